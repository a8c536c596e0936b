"""Where each kind of provider is asked, and how it is shown the key: as their own pages say."""

from __future__ import annotations

from typing import get_args

import pytest

from proxy.providers import KINDS, conventions
from proxy.routing.table import Target, build
from proxy.settings import load
from proxy.settings.schema import ProviderKind

KEY = "fine-key-of-some-length"
ACCOUNT = {"account_id": "0123456789abcdef"}
WORKERS = "https://api.cloudflare.com/client/v4/accounts/0123456789abcdef/ai"


@pytest.fixture
def target(tmp_path):
    """The deployment of one model at one provider, at its default place."""

    def of(kind: str, **more: str) -> Target:
        lines = {"name": "p", "kind": kind, "api_key": KEY, **more}
        table = "".join(f'{name} = "{value}"\n' for name, value in lines.items())
        path = tmp_path / "config.toml"
        path.write_text(f'[[providers]]\n{table}\n[[models]]\nid = "m"\nprovider = "p"\nupstream = "a/b:c"\n')
        settings = load(path, {}).settings
        (found,) = build(settings, None, "agent").resolve("m", None).entry.targets
        return found

    return of


def url(asked: Target, operation: str, *, stream: bool = False) -> str:
    head = asked.head(operation, asked.upstream, stream=stream).decode()
    origin = asked.origin
    scheme, usual = ("https", 443) if origin.secure else ("http", 80)
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    place = host if origin.port == usual else f"{host}:{origin.port}"
    assert f"\r\nHost: {place}\r\n" in head
    return f"{scheme}://{place}{head.split(' ')[1]}"


def test_every_kind_that_can_be_configured_has_conventions():
    assert set(KINDS) == set(get_args(ProviderKind))


@pytest.mark.parametrize(
    ("kind", "more", "operation", "expected"),
    [
        ("openai", {}, "openai_chat", "https://api.openai.com/v1/chat/completions"),
        ("openai", {}, "openai_responses", "https://api.openai.com/v1/responses"),
        ("openai", {}, "embeddings", "https://api.openai.com/v1/embeddings"),
        ("openai", {"endpoint": "responses"}, "openai_responses", "https://api.openai.com/v1/responses"),
        ("openai", {"endpoint": "responses"}, "embeddings", "https://api.openai.com/v1/embeddings"),
        ("openai", {"base_url": "https://h/base"}, "openai_chat", "https://h/base/v1/chat/completions"),
        ("openai", {"base_url": "https://h/base/v1"}, "openai_chat", "https://h/base/v1/chat/completions"),
        ("openai", {"base_url": "https://h/base/v1/"}, "openai_chat", "https://h/base/v1/chat/completions"),
        ("openai", {"base_url": "http://[::1]:8000"}, "completions", "http://[::1]:8000/v1/completions"),
        ("deepseek", {}, "openai_chat", "https://api.deepseek.com/v1/chat/completions"),
        ("deepseek", {}, "completions", "https://api.deepseek.com/beta/completions"),
        ("workers-ai", ACCOUNT, "openai_chat", f"{WORKERS}/v1/chat/completions"),
        ("workers-ai", ACCOUNT, "embeddings", f"{WORKERS}/v1/embeddings"),
        ("workers-ai", {**ACCOUNT, "endpoint": "native"}, "workers_ai", f"{WORKERS}/run/a/b:c"),
        ("anthropic", {}, "anthropic_messages", "https://api.anthropic.com/v1/messages"),
        ("anthropic", {}, "count_tokens", "https://api.anthropic.com/v1/messages/count_tokens"),
        (
            "gemini",
            {},
            "gemini_count",
            "https://generativelanguage.googleapis.com/v1beta/models/a/b:c:countTokens",
        ),
        (
            "gemini",
            {},
            "gemini",
            "https://generativelanguage.googleapis.com/v1beta/models/a/b:c:generateContent",
        ),
    ],
)
def test_where_it_is_asked(target, kind, more, operation, expected):
    assert url(target(kind, **more), operation) == expected


def test_gemini_streams_at_another_place(target):
    place = "https://generativelanguage.googleapis.com/v1beta/models/a/b:c:streamGenerateContent?alt=sse"
    assert url(target("gemini"), "gemini", stream=True) == place


@pytest.mark.parametrize(
    ("kind", "more", "line"),
    [
        ("openai", {}, f"Authorization: Bearer {KEY}"),
        ("deepseek", {}, f"Authorization: Bearer {KEY}"),
        ("workers-ai", ACCOUNT, f"Authorization: Bearer {KEY}"),
        ("ollama", {}, f"Authorization: Bearer {KEY}"),
        ("anthropic", {}, f"x-api-key: {KEY}"),
        ("anthropic", {}, "anthropic-version: 2023-06-01"),
        ("gemini", {}, f"x-goog-api-key: {KEY}"),
    ],
)
def test_the_key_is_shown_as_the_kind_wants_it(target, kind, more, line):
    asked = target(kind, **more)
    for head in asked.heads.values():
        assert f"\r\n{line}\r\n".encode() in head
        assert head.count(KEY.encode()) == 1


def test_the_first_dialect_is_the_one_for_strangers(target):
    assert target("openai").dialects == ("openai_chat", "openai_responses")
    assert target("openai", base_url="https://h").dialects == ("openai_chat",)
    assert target("openai", base_url="https://h", endpoint="responses").dialects == ("openai_responses",)
    assert target("anthropic").dialects == ("anthropic_messages",)
    assert target("gemini").dialects == ("gemini",)
    assert target("workers-ai", **ACCOUNT, endpoint="native").dialects == ("workers_ai",)


def test_only_openai_knows_developers():
    known = {"openai", "demo", "anthropic", "gemini"}  # the last two have no such roles at all
    for kind, told in KINDS.items():
        assert told.quirks.roles == ({} if kind in known else {"developer": "system"}), kind
    assert conventions("workers-ai", endpoint="native").quirks.roles == {"developer": "system"}


@pytest.mark.parametrize("kind", KINDS)
def test_paths_are_paths(kind):
    for path in KINDS[kind].paths.values():
        assert path.startswith("/")
        assert not path.endswith("/")
