"""What requests share: a configuration worked out, and what outlives its changes."""

from __future__ import annotations

import asyncio
import json
from hashlib import sha256

import pytest
from aiohttp.test_utils import make_mocked_request

from proxy.errors import Kind
from proxy.gateway import Gateway, draw_up
from proxy.settings import load

from .functional import KEY, UPSTREAM_KEY, config


@pytest.fixture
def settings(tmp_path):
    def read(text="", url="https://api.example.org/base", environ=None, **tables):
        path = tmp_path / "config.toml"
        path.write_text(config(url, text, **tables))
        return load(path, environ or {}).settings

    return read


# A plan...


def test_callers_are_found_by_the_digest_of_their_key(settings):
    plan = draw_up(settings(keys=[{"name": "other", "sha256": "ab" * 32}]))
    assert {digest: key.name for digest, key in plan.callers.items()} == {
        sha256(KEY.encode()).digest(): "laptop",
        bytes.fromhex("ab" * 32): "other",
    }


@pytest.mark.parametrize(
    ("tables", "anonymous", "guarded"),
    [
        pytest.param({}, False, False, id="closed"),
        pytest.param({"auth": {"anonymous": True}}, True, False, id="closed-and-anonymous"),
        pytest.param({"keys": []}, True, True, id="open"),
        pytest.param({"keys": [], "auth": {"anonymous": True}}, True, False, id="open-to-everybody"),
    ],
)
def test_who_may_ask_without_a_key_and_from_where(settings, tables, anonymous, guarded):
    plan = draw_up(settings(**tables))
    assert (plan.anonymous is not None, plan.guarded) == (anonymous, guarded)


def test_who_asks_without_a_key_has_everybodys_limits(settings):
    limits = {"requests_per_minute": 1, "tokens_per_minute": 2, "streams": 3}
    nobody = draw_up(settings(keys=[], limits=limits)).anonymous
    assert nobody is not None
    assert (nobody.name, nobody.admin, nobody.models) == ("anonymous", False, ("*",))
    assert (nobody.requests_per_minute, nobody.tokens_per_minute, nobody.streams) == (1, 2, 3)


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param(UPSTREAM_KEY, id="a-key"),
        pytest.param(UPSTREAM_KEY.upper(), id="in-capitals"),
        pytest.param("cloudflare-token", id="another-provider's-key"),
        pytest.param("0123456789abcdef", id="an-account"),
        pytest.param("a-header-secret", id="a-header's-value"),
        pytest.param("api.example.org", id="a-host"),
        pytest.param("api.example.org:443", id="a-host-and-its-port"),
        pytest.param("gateway.internal:8443", id="another-port"),
    ],
)
def test_secrets_and_hosts_are_taken_out(settings, secret):
    workers = {
        "name": "workers",
        "kind": "workers-ai",
        "api_key": "cloudflare-token",
        "account_id": "0123456789abcdef",
        "base_url": "https://gateway.internal:8443/{account_id}",
        "headers": {"X-Auth": "a-header-secret"},
    }
    plan = draw_up(settings(providers=[workers]))
    assert plan.scrub(f"before {secret} after") == "before [redacted] after"


def test_without_secrets_texts_stay_as_they_are(settings):
    plan = draw_up(settings(providers=[{"name": "demo", "kind": "demo"}], models=[{"id": "m", "provider": "demo"}]))
    assert plan.scrub("nothing in here") == "nothing in here"


# The gateway...


async def test_idle_waits_until_the_last_request_has_left(settings):
    gateway = Gateway(settings())
    await gateway.idle()
    gateway.entered()
    gateway.entered()
    waiting = asyncio.ensure_future(gateway.idle())
    await asyncio.sleep(0)
    gateway.left()
    await asyncio.sleep(0)
    assert (gateway.live, waiting.done()) == (1, False)
    gateway.left()
    gateway.entered()  # another one came before the waiter woke up
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    gateway.left()
    await waiting
    await gateway.close()


async def test_a_swap_changes_the_plan_and_nothing_else(settings):
    gateway = Gateway(settings())
    before = gateway.plan
    lasting = {name: getattr(gateway, name) for name in ("metrics", "limits", "wheel", "upstream", "relays")}
    gateway.entered()
    gateway.swap(settings(timeouts={"client": 7}))
    assert gateway.plan is not before
    assert gateway.patience == 7
    assert gateway.live == 1
    for name, value in lasting.items():
        assert getattr(gateway, name) is value
    await gateway.close()


async def test_the_demo_is_started_once_however_often_it_is_asked_for(settings, monkeypatch):
    started = []

    class Demo:
        base_url, api_key = "http://127.0.0.1:9", "sk-demo-token"

        async def start(self):
            started.append(self)
            await asyncio.sleep(0)

        async def close(self):
            started.remove(self)

    monkeypatch.setattr("proxy.demo.Demo", Demo)
    demo = {"providers": [{"name": "demo", "kind": "demo"}], "models": [{"id": "d", "provider": "demo"}]}
    gateway = Gateway(settings())
    for _ in range(3):
        gateway.swap(settings(**demo))
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    gateway.swap(settings(**demo))
    assert len(started) == 1
    assert gateway.plan.table.entries["d"].targets
    await gateway.close()
    assert started == []


async def test_closing_does_not_wait_for_a_demo_that_never_starts(settings, monkeypatch):
    class Demo:
        async def start(self):
            await asyncio.Event().wait()

    monkeypatch.setattr("proxy.demo.Demo", Demo)
    gateway = Gateway(settings())
    gateway.swap(settings(providers=[{"name": "demo", "kind": "demo"}]))
    await asyncio.sleep(0)
    await gateway.close()


@pytest.mark.parametrize(
    ("status", "told", "kind"),
    [(400, 400, Kind.INVALID_REQUEST), (500, 500, Kind.INTERNAL_ERROR), (504, 500, Kind.INTERNAL_ERROR)],
)
def test_what_no_middleware_sees_is_answered_in_the_simple_form(settings, status, told, kind):
    response = Gateway(settings(cors={"origins": ["*"]})).answer_malformed(make_mocked_request("GET", "/"), status)
    body = json.loads(bytes(response.body))  # type: ignore[arg-type]
    assert (response.status, body["error"]) == (told, kind)
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert response.headers["Server"] == "ai-proxy"
    id = response.headers["x-request-id"]
    assert id.startswith("req_")
    if told == 500:
        assert body["details"] == f"internal error; request id {id}"
