"""Providers: addresses in one form, and off without their secrets."""

from __future__ import annotations

import msgspec
import pytest

from proxy.origin import TLS
from proxy.settings import Secret
from tests.settings.tables import DEMO, PROVIDER, SECRET

BASES = [
    ("openai", None, "https://api.openai.com"),
    ("deepseek", None, "https://api.deepseek.com"),
    ("anthropic", None, "https://api.anthropic.com"),
    ("gemini", None, "https://generativelanguage.googleapis.com"),
    ("workers-ai", None, "https://api.cloudflare.com/client/v4/accounts/abc123/ai"),
    ("ollama", None, "http://127.0.0.1:11434"),
    ("demo", None, ""),
    ("deepseek", "https://api.deepseek.com/v1", "https://api.deepseek.com"),
    ("deepseek", "https://api.deepseek.com/v1/", "https://api.deepseek.com"),
    ("openai", "http://LOCALHOST:8000/", "http://localhost:8000"),
    ("openai", "https://openrouter.ai/api/v1", "https://openrouter.ai/api"),
    ("gemini", "https://g.example/v1beta/", "https://g.example"),
    ("workers-ai", "https://x.example/{account_id}/ai/v1", "https://x.example/abc123/ai"),
    ("openai", "http://[::1]:8000/v1", "http://[::1]:8000"),
]


@pytest.mark.parametrize(("kind", "written", "address"), BASES, ids=lambda value: str(value or "default"))
def test_addresses_have_one_form(settings, kind, written, address):
    base = f'base_url = "{written}"\n' if written else ""
    account = 'account_id = "abc123"\n' if kind == "workers-ai" else ""
    text = f'[[providers]]\nname = "p"\nkind = "{kind}"\napi_key = "secret-1"\n{base}{account}'
    assert settings(text).providers[0].base_url == address


def test_a_provider_that_says_the_least_has_the_contracts_defaults(settings):
    found = settings('[[providers]]\nname = "p"\nkind = "deepseek"\napi_key = "secret-1"').providers[0]
    assert msgspec.structs.asdict(found) == {
        "name": "p",
        "kind": "deepseek",
        "base_url": "https://api.deepseek.com",
        "api_key": Secret("secret-1"),
        "account_id": "",
        "endpoint": "openai",
        "headers": {},
        "timeouts": {},
        "tls": TLS(),
        "ask_usage": True,
        "responses": False,
        "drop": (),
        "enabled": True,
        "reason": "",
    }


@pytest.mark.parametrize(
    ("provider", "responses"),
    [
        pytest.param('kind = "openai"\napi_key = "k1"', True, id="openai-itself"),
        pytest.param(
            'kind = "openai"\napi_key = "k1"\nbase_url = "https://api.openai.com/v1"', True, id="said-in-full"
        ),
        pytest.param('kind = "openai"\napi_key = "k1"\nresponses = false', False, id="switched-off"),
        pytest.param('kind = "openai"\nbase_url = "http://127.0.0.1:1"', False, id="another-server"),
        pytest.param(
            'kind = "openai"\nbase_url = "http://127.0.0.1:1"\nresponses = true', True, id="another-that-does"
        ),
        pytest.param('kind = "deepseek"\napi_key = "k1"', False, id="another-kind"),
        pytest.param(
            'kind = "openai"\nbase_url = "http://127.0.0.1:1"\nendpoint = "responses"', True, id="nothing-but-responses"
        ),
    ],
)
def test_responses_are_for_openai_unless_it_is_said(settings, provider, responses):
    assert settings(f'[[providers]]\nname = "p"\n{provider}').providers[0].responses is responses


@pytest.mark.parametrize(
    ("provider", "sentence"),
    [
        pytest.param(
            'kind = "deepseek"',
            'api_key: is missing; give "env:NAME", "file:PATH" or "credential:NAME"',
            id="a-company-wants-a-key",
        ),
        pytest.param('kind = "deepseek"\napi_key = ""', "api_key: is empty", id="empty-key"),
        pytest.param(
            'kind = "deepseek"\napi_key = "env:LAZY"',
            "api_key: the environment variable LAZY is a placeholder, not a secret",
            id="placeholder-behind-a-reference",
        ),
        pytest.param(
            'kind = "openai"\napi_key = "a\\r\\nb"', "api_key: has characters other than visible ASCII", id="crlf"
        ),
        pytest.param(
            'kind = "workers-ai"\napi_key = "k1"',
            'account_id: is missing; base_url has a place for it (account_id = "env:CLOUDFLARE_ACCOUNT_ID")',
            id="no-account",
        ),
        pytest.param(
            'kind = "workers-ai"\napi_key = "k1"\naccount_id = "a/b"',
            "account_id: may only have letters, digits, - and _",
            id="account-with-a-slash",
        ),
        pytest.param(
            'kind = "workers-ai"\napi_key = "k1"\naccount_id = "your-account-id"',
            "account_id: is a placeholder, not a secret",
            id="account-placeholder",
        ),
        pytest.param(
            'kind = "openai"\nendpoint = "native"',
            'endpoint: "native" is for kind "workers-ai"; kind "openai" takes "openai" or "responses": '
            'leave it out, or change kind to "workers-ai"',
            id="native-openai",
        ),
        pytest.param(
            'kind = "deepseek"\nendpoint = "responses"',
            'endpoint: "responses" is for kind "openai"; kind "deepseek" takes "openai": '
            'leave it out, or change kind to "openai"',
            id="responses-of-deepseek",
        ),
        pytest.param(
            'kind = "workers-ai"\nendpoint = "responses"',
            'endpoint: "responses" is for kind "openai"; kind "workers-ai" takes "openai" or "native": '
            'leave it out, or change kind to "openai"',
            id="responses-of-workers-ai",
        ),
        pytest.param(
            'kind = "openai"\nendpoint = "response"',
            'endpoint: "response" is none of openai, native, responses; did you mean "responses"?',
            id="another-endpoint",
        ),
        pytest.param(
            'kind = "openai"\nendpoint = "responses"\nresponses = false',
            'responses: false contradicts endpoint = "responses"; leave one of them out',
            id="responses-and-no-responses",
        ),
        pytest.param(
            'kind = "gemini"\nresponses = true', 'responses: is for kind "openai" only', id="responses-elsewhere"
        ),
        pytest.param(
            'kind = "demo"\nbase_url = "http://x"',
            "base_url: the demo answers inside this program and has no address",
            id="demo-elsewhere",
        ),
        pytest.param(
            'kind = "openai"\nbase_url = "ftp://x"', "base_url: must begin with https:// or http://", id="ftp"
        ),
        pytest.param(
            'kind = "openai"\nbase_url = "x.org"', "base_url: must begin with https:// or http://", id="no-scheme"
        ),
        pytest.param('kind = "openai"\nbase_url = "http:///v1"', "base_url: names no host", id="no-host"),
        pytest.param(
            'kind = "openai"\nbase_url = "http://u:p@x"',
            "base_url: must not have credentials in it",
            id="credentials",
        ),
        pytest.param(
            'kind = "openai"\nbase_url = "http://x?a=1"', "base_url: must not have a query or a fragment", id="query"
        ),
        pytest.param(
            'kind = "openai"\nbase_url = "http://x#"',
            "base_url: must not have a query or a fragment",
            id="empty-fragment",
        ),
        pytest.param(
            'kind = "openai"\nbase_url = "http://x:99999"',
            "base_url: is not a URL: Port out of range 0-65535",
            id="port",
        ),
        pytest.param(
            'kind = "openai"\nbase_url = "http://x/../y"',
            "base_url: has an empty, . or .. segment in its path",
            id="dot-segments",
        ),
        pytest.param(
            'kind = "openai"\nbase_url = "http://x/{account_id}"',
            "base_url: has characters that do not belong into a URL",
            id="a-place-for-an-account-elsewhere",
        ),
        pytest.param(
            'kind = "openai"\nbase_url = "env:BASE"',
            "base_url: references are understood in secrets only, not here",
            id="reference-in-an-address",
        ),
        pytest.param(
            'kind = "openai"\nheaders = { "a b" = "x" }', 'headers: "a b" is not the name of a header', id="header-name"
        ),
        pytest.param(
            'kind = "openai"\nheaders = { x = "a\\r\\nb" }',
            'headers: "x": must be printable ASCII on one line, without spaces at its ends',
            id="header-injection",
        ),
        pytest.param('kind = "openai"\nheaders = { x = 1 }', 'headers: "x": expected a string', id="header-number"),
        pytest.param(
            'kind = "openai"\nheaders = { Content-Length = "1" }',
            'headers: "Content-Length" is set by the gateway itself',
            id="framing-header",
        ),
        pytest.param(
            'kind = "openai"\nheaders = { x = "1", X = "2" }', 'headers: "X" is there twice', id="header-twice"
        ),
        pytest.param(
            'kind = "openai"\ndrop = ["model"]', 'drop: "model" cannot be left out of a request', id="dropped-model"
        ),
    ],
)
def test_a_provider_that_could_not_be_asked_is_told(complaint, provider, sentence):
    assert (
        complaint(f'[[providers]]\nname = "p"\n{provider}', {"LAZY": "changeme"})
        == f'config.toml: providers[0] "p": {sentence}'
    )


@pytest.mark.parametrize("kind", ["openai", "deepseek", "anthropic"])
def test_a_server_of_ones_own_needs_no_key(settings, kind):
    provider = settings(f'[[providers]]\nname = "p"\nkind = "{kind}"\nbase_url = "http://127.0.0.1:1"').providers[0]
    assert provider.enabled
    assert not provider.api_key


@pytest.mark.parametrize(
    ("provider", "reasons"),
    [
        pytest.param('api_key = "env:NONE"', "api_key: the environment variable NONE is not set", id="unset"),
        pytest.param('api_key = "env:EMPTY"', "api_key: the environment variable EMPTY is empty", id="empty-variable"),
        pytest.param(
            'api_key = "k1"\nheaders = { X-Team = "env:NONE" }',
            'headers: "X-Team": the environment variable NONE is not set',
            id="header",
        ),
        pytest.param(
            'api_key = "env:NONE"\naccount_id = "env:NONE2"',
            "api_key: the environment variable NONE is not set; account_id: the environment variable NONE2 is not set",
            id="two-reasons-in-one-warning",
        ),
    ],
)
def test_a_provider_without_its_secret_is_off_with_one_warning(loaded, complaint, place, provider, reasons):
    text = f'[[providers]]\nname = "p"\nkind = "workers-ai"\naccount_id = "abc"\n{provider}'
    text = text.replace('account_id = "abc"\n', "") if provider.count("account_id") else text
    text += '\n[[models]]\nid = "m"\nprovider = "p"'
    found = loaded(text, {"EMPTY": " "})
    assert [provider.enabled for provider in found.settings.providers] == [False]
    assert found.warnings == (f'{place}: providers[0] "p": {reasons}; this provider is switched off',)
    strict = complaint(f"[server]\nstrict = true\n{text}", {"EMPTY": " "})
    assert strict == f'config.toml: providers[0] "p": {reasons} (server.strict = true)'


def test_headers_and_clocks_of_a_provider_are_resolved(settings):
    text = PROVIDER + 'headers = { X-Auth = "env:TEAM", X-Plain = "a b" }\ntimeouts = { idle = 5, stream_total = 0 }'
    found = settings(text, {"TEAM": f"Bearer {SECRET}"})
    assert found.providers[0].headers == {"X-Auth": f"Bearer {SECRET}", "X-Plain": "a b"}
    assert found.providers[0].timeouts == {"idle": 5.0, "stream_total": 0.0}
    assert SECRET not in repr(found)


def test_two_providers_of_one_name_are_refused(complaint):
    assert complaint(DEMO + DEMO) == 'config.toml: providers[1] "demo": name: there is a provider of this name already'


@pytest.mark.parametrize("shown", [repr, str, "{}".format, lambda loaded: repr(loaded.settings.providers[0])])
def test_no_secret_shows(loaded, shown):
    text = (
        f'[state]\nurl = "redis://:{SECRET}@127.0.0.1/0"\n[[keys]]\nname = "k"\nkey = "{SECRET}"\n'
        f'[[providers]]\nname = "p"\nkind = "openai"\napi_key = "{SECRET}"\nheaders = {{ X = "{SECRET}" }}\n'
    )
    assert SECRET not in shown(loaded(text))
