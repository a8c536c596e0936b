"""The shipped file: loads with no secret and with all of them, and says what the code does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from proxy.settings import Settings, load

SHIPPED = Path(__file__).parent.parent / "config.toml"
SECRETS = {
    "DEEPSEEK_API_KEY": "deepseek-7f1",
    "CLOUDFLARE_API_TOKEN": "cloudflare-7f2",
    "CLOUDFLARE_ACCOUNT_ID": "0123abc",
    "OPENAI_API_KEY": "openai-7f3",
    "ANTHROPIC_API_KEY": "anthropic-7f4",
    "GEMINI_API_KEY": "gemini-7f5",
}
SECTIONS = [name for name in Settings.__struct_fields__ if name not in {"keys", "providers", "models"}]
ON_REQUEST = ["deepseek", "workers-ai", "openai", "anthropic", "gemini"]


def uncommented() -> str:
    """The file with every setting and table that it shows in comments."""
    return re.sub(r"(?m)^# (?=\[\[\w+\]\]|[a-z_]+ = | {16}\{)", "", SHIPPED.read_text(encoding="utf-8"))


def test_without_any_secret_the_demo_is_on_and_every_other_provider_is_off_with_one_warning():
    loaded = load(SHIPPED, {})
    assert [provider.name for provider in loaded.settings.providers if provider.enabled] == ["demo"]
    assert [re.search(r'"(.+?)"', warning)[1] for warning in loaded.warnings] == ON_REQUEST
    assert loaded.settings.open


def test_with_all_secrets_every_provider_is_on_without_a_word():
    loaded = load(SHIPPED, SECRETS)
    assert all(provider.enabled for provider in loaded.settings.providers)
    assert loaded.warnings == ()
    assert [provider.name for provider in loaded.settings.providers] == [*ON_REQUEST, "demo"]
    shown = repr(loaded)
    assert not [secret for secret in SECRETS.values() if secret in shown]


def test_the_reference_documents_names_are_served():
    models = load(SHIPPED, {}).settings.models
    names = {name for model in models for name in (model.id, *model.aliases)}
    assert names >= {
        "gpt-5.4",
        "gpt-4",
        "gpt-3.5-turbo",
        "deepseek-coder",
        "qwen-coder",
        "sqlcoder",
        "deepseek-chat",
        "deepseek-reasoner",
        "@cf/meta/llama-3.1-8b-instruct",
        "@hf/thebloke/deepseek-coder-6.7b-instruct-awq",
        "demo",
    }


def test_the_models_of_requests_that_name_none_are_the_contracts():
    defaults = load(SHIPPED, {}).settings.defaults
    assert defaults.chat == "@cf/meta/llama-3.1-8b-instruct"
    assert defaults.code == "@hf/thebloke/deepseek-coder-6.7b-instruct-awq"
    assert defaults.proxy == "deepseek-chat"


def test_bodies_may_be_as_large_as_agents_send_them():
    assert load(SHIPPED, {}).settings.limits.max_body_bytes == 32 * 2**20


@pytest.mark.parametrize(
    "name", [name for name in Settings.__struct_fields__ if name not in {"keys", "providers", "models"}]
)
def test_every_setting_of_a_section_is_shown_with_its_default(name):
    shown = tomllib.loads(uncommented())[name]
    defaults = msgspec.to_builtins(getattr(Settings(), name))
    assert set(shown) == set(defaults)
    own = {"limits": {"max_body_bytes"}, "defaults": {"chat", "code", "proxy"}}.get(name, set())
    assert {key: value for key, value in shown.items() if key not in own} == {
        key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items() if key not in own
    }


def test_what_is_shown_in_comments_can_be_used(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(uncommented(), encoding="utf-8")
    settings = load(path, {**SECRETS, "PROXY_KEY": "a-fine-key"}).settings
    assert [key.name for key in settings.keys] == ["laptop"]
    assert {"ollama/*", "coder"} <= {model.id for model in settings.models}
