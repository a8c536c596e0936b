"""Every kind of provider is asked in its own way, and no answer gives away a key."""

from __future__ import annotations

import aiohttp
import pytest
from aioresponses import aioresponses, core

from proxy.commands.live import ask_all
from proxy.settings import load
from tests.certificates import Authority
from tests.functional.upstream import Upstream, in_turn, whole

SECRET = "Zq81-very-secret-7f"
OPENAI = {"object": "list", "data": [{"id": "a"}, {"id": "b"}]}
BEARER = {"Authorization": f"Bearer {SECRET}"}
CHAT = "https://api.openai.com/v1/chat/completions"


class Response(aiohttp.ClientResponse):
    """What aioresponses 0.7 builds, on an aiohttp (3.14) that asks for one thing more."""

    class _Nothing:
        output_size = 0

    def __init__(self, *args, **more):
        super().__init__(*args, stream_writer=self._Nothing(), **more)


@pytest.fixture
def web(monkeypatch):
    monkeypatch.setattr(core, "ClientResponse", Response)
    with aioresponses() as web:
        yield web


@pytest.fixture
def ask(tmp_path):
    """Ask one provider; how it was found."""

    async def of(kind: str, more: str = "", models: str = ""):
        config = tmp_path / "config.toml"
        config.write_text(f'[[providers]]\nname = "p"\nkind = "{kind}"\napi_key = "{SECRET}"\n{more}\n{models}')
        (finding,) = await ask_all(load(config, {}).settings)
        assert SECRET not in finding.said
        assert finding.provider == "p"
        return finding

    return of


ACCOUNT = 'account_id = "abc"'


@pytest.mark.parametrize(
    ("kind", "more", "url", "headers", "answer"),
    [
        pytest.param("openai", "", "https://api.openai.com/v1/models", BEARER, OPENAI, id="openai"),
        pytest.param(
            "deepseek",
            "",
            "https://api.deepseek.com/v1/models",
            BEARER,
            OPENAI,
            id="deepseek",
        ),
        pytest.param(
            "anthropic",
            "",
            "https://api.anthropic.com/v1/models",
            {"x-api-key": SECRET, "anthropic-version": "2023-06-01"},
            {"data": [{"id": "a"}, {"id": "b"}], "has_more": False},
            id="anthropic",
        ),
        pytest.param(
            "gemini",
            "",
            "https://generativelanguage.googleapis.com/v1beta/models",
            {"x-goog-api-key": SECRET},
            {"models": [{"name": "models/a"}, {"name": "models/b"}]},
            id="gemini",
        ),
        pytest.param(
            "workers-ai",
            ACCOUNT,
            "https://api.cloudflare.com/client/v4/accounts/abc/ai/models/search",
            BEARER,
            {"result": [{"name": "@cf/a"}, {"name": "@cf/b"}], "success": True},
            id="workers-ai",
        ),
        pytest.param("ollama", "", "http://127.0.0.1:11434/v1/models", BEARER, OPENAI, id="ollama"),
        pytest.param(
            "openai",
            'base_url = "https://x.org/api/v1"\nheaders = { authorization = "Basic abc", X-Team = "7" }',
            "https://x.org/api/v1/models",
            {"authorization": "Basic abc", "X-Team": "7"},
            OPENAI,
            id="own-headers-win",
        ),
    ],
)
async def test_each_kind_is_asked_for_its_models_in_its_own_way(ask, web, kind, more, url, headers, answer):
    web.get(url, payload=answer)
    finding = await ask(kind, more)
    assert (finding.ok, finding.said) == (True, "2 models")
    web.assert_called_once()
    (((_, called), (request,)),) = web.requests.items()
    assert str(called) == url
    assert request.kwargs["headers"] == {"User-Agent": "ai-proxy", "Accept": "application/json", **headers}
    assert request.kwargs["allow_redirects"] is False


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param({"status": 401, "body": f"no such key: {SECRET}"}, "refused the key: 401 Unauthorized", id="401"),
        pytest.param({"status": 403}, "refused the key: 403 Forbidden", id="403"),
        pytest.param({"status": 500}, "answered 500 Internal Server Error", id="500"),
        pytest.param({"status": 529}, "answered 529", id="status-without-a-name"),
        pytest.param(
            {"status": 301, "headers": {"Location": "https://elsewhere.org/"}},
            "redirects: 301 Moved Permanently; is base_url the API's address?",
            id="redirects-are-not-followed",
        ),
        pytest.param(
            {"body": "<html>"}, "answered 200, but not with JSON; is base_url the API's address?", id="a-web-page"
        ),
        pytest.param({"payload": {"data": {}}}, "answered 200, but not with a list of models", id="other-json"),
        pytest.param({"payload": []}, "answered 200, but not with a list of models", id="bare-list"),
        pytest.param({"exception": TimeoutError()}, "api.openai.com did not answer in time", id="silence"),
        pytest.param(
            {"exception": aiohttp.ServerDisconnectedError()},
            "api.openai.com closed the connection without an answer",
            id="closed",
        ),
        pytest.param({"status": 404}, "answered 404 Not Found", id="no-list-and-no-model-to-try"),
    ],
)
async def test_an_answer_that_is_none_is_told_in_a_clause(ask, web, answer, said):
    web.get("https://api.openai.com/v1/models", **answer)
    finding = await ask("openai")
    assert (finding.ok, finding.said) == (False, said)


MODEL = '[[models]]\nid = "any/*"\nprovider = "p"\n[[models]]\nid = "m"\nprovider = "p"\nupstream = "real-m"'


@pytest.mark.parametrize(
    ("answer", "ok", "said"),
    [
        pytest.param({"payload": {"choices": []}}, True, "one token of real-m", id="answers"),
        pytest.param({"status": 401}, False, "refused the key: 401 Unauthorized", id="refuses"),
    ],
)
async def test_a_server_without_a_list_is_asked_for_one_token(ask, web, answer, ok, said):
    web.get("https://api.openai.com/v1/models", status=404)
    web.post(CHAT, **answer)
    finding = await ask("openai", models=MODEL)
    assert (finding.ok, finding.said) == (ok, said)
    request = web.requests[("POST", aiohttp.client.URL(CHAT))][0]
    assert request.kwargs["json"] == {
        "model": "real-m",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 1,
    }


async def test_a_server_that_is_asked_in_responses_is_asked_for_as_few_tokens_as_it_gives(ask, web):
    place = "https://api.openai.com/v1/responses"
    web.get("https://api.openai.com/v1/models", status=404)
    web.post(place, payload={"output": []})
    finding = await ask("openai", 'endpoint = "responses"', models=MODEL)
    assert (finding.ok, finding.said) == (True, "a few tokens of real-m")
    request = web.requests[("POST", aiohttp.client.URL(place))][0]
    assert request.kwargs["json"] == {"model": "real-m", "input": "Hi", "max_output_tokens": 16, "store": False}


async def test_providers_that_are_off_are_not_asked(tmp_path, web):
    config = tmp_path / "config.toml"
    config.write_text('[[providers]]\nname = "p"\nkind = "openai"\napi_key = "env:NONE"')
    assert await ask_all(load(config, {}).settings) == []
    web.assert_not_called()


# TLS of its own...


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def strict(authority):
    """A provider that wants to know who asks."""
    async with Upstream(whole(OPENAI), tls=authority.server(asks=authority)) as upstream:
        yield upstream


async def test_an_own_authority_and_certificate_are_used(ask, strict, authority):
    pair = authority.issue("client")
    files = f'ca = "{authority.ca}", certificate = "{pair.certificate}", key = "{pair.key}"'
    finding = await ask("openai", f'base_url = "{strict.url}"\ntls = {{ {files} }}')
    assert (finding.ok, finding.said) == (True, "2 models")
    strict.script = in_turn(whole({}, 404), whole())
    finding = await ask("openai", f'base_url = "{strict.url}"\ntls = {{ {files} }}', MODEL)
    assert (finding.ok, finding.said) == (True, "one token of real-m")


async def test_without_the_certificate_the_refusal_is_told(ask, strict, authority):
    finding = await ask("openai", f'base_url = "{strict.url}"\ntls = {{ ca = "{authority.ca}" }}')
    assert not finding.ok
    assert strict.calls == []


async def test_a_server_of_another_authority_is_not_asked(ask, strict, tmp_path):
    other = Authority(tmp_path / "other")
    finding = await ask("openai", f'base_url = "{strict.url}"\ntls = {{ ca = "{other.ca}" }}')
    assert not finding.ok
    assert "cannot be trusted" in finding.said
    assert strict.calls == []
