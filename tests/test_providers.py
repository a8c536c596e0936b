"""Where each kind of provider is asked, and how it is shown the key: as their own pages say."""

from __future__ import annotations

from typing import get_args

import pytest

from proxy.providers import KINDS
from proxy.routing.table import build
from proxy.settings import load
from proxy.settings.schema import ProviderKind

KEY = "fine-key-of-some-length"


@pytest.fixture
def asked(tmp_path):
    """Operation → URL and head of one provider of a kind, at its default place."""

    def of(kind: str, **more: str) -> dict[str, tuple[str, str]]:
        lines = {"name": "p", "kind": kind, "api_key": KEY, **more}
        table = "".join(f'{name} = "{value}"\n' for name, value in lines.items())
        path = tmp_path / "config.toml"
        path.write_text(f'[[providers]]\n{table}\n[[models]]\nid = "m"\nprovider = "p"\n')
        settings = load(path, {}).settings
        (target,) = build(settings, None, "agent").resolve("m", None).entry.targets
        origin = target.url.partition("://")
        found = {}
        for operation, head in target.heads.items():
            text = head.decode()
            found[operation] = (f"{origin[0]}://{origin[2].partition('/')[0]}{text.split(' ')[1]}", text)
        return found

    return of


def test_every_kind_that_can_be_configured_has_conventions():
    assert set(KINDS) == set(get_args(ProviderKind))


@pytest.mark.parametrize(
    ("kind", "more", "url"),
    [
        ("openai", {}, "https://api.openai.com/v1/chat/completions"),
        ("deepseek", {}, "https://api.deepseek.com/v1/chat/completions"),
        ("ollama", {}, "http://localhost:11434/v1/chat/completions"),
        (
            "workers-ai",
            {"account_id": "0123456789abcdef"},
            "https://api.cloudflare.com/client/v4/accounts/0123456789abcdef/ai/v1/chat/completions",
        ),
        ("openai", {"base_url": "https://h/base"}, "https://h/base/v1/chat/completions"),
        ("openai", {"base_url": "https://h/base/v1"}, "https://h/base/v1/chat/completions"),
        ("openai", {"base_url": "https://h/base/v1/"}, "https://h/base/v1/chat/completions"),
    ],
)
def test_where_chat_is_asked(asked, kind, more, url):
    told, head = asked(kind, **more)["chat"]
    assert told.replace("127.0.0.1", "localhost") == url
    assert f"\r\nAuthorization: Bearer {KEY}\r\n" in head


@pytest.mark.parametrize("kind", ["openai", "ollama"])
def test_where_the_rest_is_asked(asked, kind):
    paths = asked(kind)
    assert paths["embeddings"][0].endswith("/v1/embeddings")
    assert paths["completions"][0].endswith("/v1/completions")


def test_deepseek_completes_code_at_its_beta():
    assert KINDS["deepseek"].paths["completions"] == "/beta/completions"


def test_only_openai_knows_developers():
    for kind, conventions in KINDS.items():
        assert conventions.roles == ({} if kind in ("openai", "demo") else {"developer": "system"}), kind


@pytest.mark.parametrize("kind", KINDS)
def test_paths_are_paths(kind):
    for path in KINDS[kind].paths.values():
        assert path.startswith("/")
        assert not path.endswith("/")
