"""Pages can read every answer, whatever it is: the policy in front of the whole gateway."""

from __future__ import annotations

import json
import re

import pytest

from proxy.app import ROUTES

from . import KEY, chat_body
from .upstream import broken, chunk, hung_up, ordinary, refusal, silent, sse, stream, whole
from .wire import connect

PAGE = "https://app.example.org"
STRANGER = "https://stranger.example.net"
EXPOSED = [
    "x-request-id",
    "retry-after",
    *(f"x-ratelimit-{what}-{of}" for of in ("requests", "tokens") for what in ("limit", "remaining", "reset")),
    "x-proxy-model",
    "x-proxy-provider",
    "x-proxy-attempts",
    "server-timing",
]
JSON = {"Content-Type": "application/json"}
CHAT = "/v1/chat/completions"
BODY = json.dumps(chat_body()).encode()
STREAM = json.dumps(chat_body(stream=True)).encode()

METHODS = {
    re.sub(r"\{call:[^}]*\}", "m:generateContent", path.replace("{id:.+}", "@cf/meta/llama")): method
    for method, paths, _ in ROUTES
    for path in paths
}

#: Every kind of answer: how it is asked, what the provider does, and its status.
ANSWERS = [
    pytest.param("GET", "/health", None, {}, b"", None, 200, id="a-probe"),
    pytest.param("GET", "/", None, {}, b"", None, 200, id="the-root"),
    pytest.param("GET", "/v1/models", KEY, {}, b"", None, 200, id="models"),
    pytest.param("GET", "/metrics", KEY, {}, b"", None, 403, id="forbidden"),
    pytest.param("POST", CHAT, KEY, JSON, BODY, None, 200, id="a-whole-answer"),
    pytest.param("POST", CHAT, KEY, JSON, STREAM, None, 200, id="a-stream"),
    pytest.param("POST", CHAT, KEY, JSON, STREAM, broken([chunk("a")]), 200, id="a-broken-stream"),
    pytest.param("POST", CHAT, KEY, JSON, STREAM, refusal(429, "slow"), 429, id="the-providers-429"),
    pytest.param("POST", CHAT, KEY, JSON, BODY, refusal(500), 502, id="502"),
    pytest.param("POST", CHAT, KEY, JSON, BODY, hung_up(), 502, id="502-hung-up"),
    pytest.param("POST", CHAT, KEY, JSON, BODY, whole(b"nonsense"), 502, id="502-nonsense"),
    pytest.param("POST", CHAT, KEY, JSON, STREAM, silent(), 504, id="504"),
    pytest.param("POST", CHAT, KEY, JSON, b"{", None, 400, id="400"),
    pytest.param("POST", CHAT, KEY, JSON, b'{"model":"x","messages":[{"role":"user"}]}', None, 404, id="no-model"),
    pytest.param("POST", CHAT, None, JSON, BODY, None, 401, id="401"),
    pytest.param("POST", CHAT, "wrong", JSON, BODY, None, 401, id="401-wrong"),
    pytest.param("POST", CHAT, KEY, {}, BODY, None, 415, id="415"),
    pytest.param("POST", CHAT, KEY, {**JSON, "Content-Length": "2000000"}, b"", None, 413, id="413"),
    pytest.param("POST", "/chat", KEY, JSON, BODY, None, 200, id="chat"),
    pytest.param("POST", "/api/chat", KEY, JSON, b'{"prompt":"Hi"}', None, 200, id="api-chat"),
    pytest.param("GET", "/nowhere", None, {}, b"", None, 404, id="404"),
    pytest.param("GET", "/v1beta/nowhere", None, {}, b"", None, 404, id="404-gemini"),
    pytest.param("OPTIONS", "/nowhere", None, {}, b"", None, 404, id="404-options"),
    pytest.param("GET", CHAT, None, {}, b"", None, 405, id="405"),
    pytest.param("OPTIONS", CHAT, None, {}, b"", None, 204, id="options"),
    pytest.param("GET", "/health", None, {"X": "a\0b"}, b"", None, 400, id="malformed"),
    pytest.param("GET", "/health", None, {"X": "a" * 70_000}, b"", None, 400, id="a-huge-head"),
]
CASES = pytest.mark.parametrize(("method", "path", "key", "headers", "body", "script", "status"), ANSWERS)


@CASES
async def test_star_is_on_every_answer(upstream, gateway, method, path, key, headers, body, script, status):
    upstream.script = script or ordinary()
    gw = await gateway(timeouts={"first_byte": 0.1})
    for origin in ({}, {"Origin": PAGE}):
        answer = await gw.request(method, path, key=key, headers={**headers, **origin}, body=body)
        assert answer.status == status
        assert answer.values("access-control-allow-origin") == ["*"]
        assert answer.values("access-control-expose-headers") == [", ".join(EXPOSED)]
        assert not answer.values("access-control-allow-credentials")
        assert answer.header("x-request-id")
        await answer.rest()


@CASES
async def test_a_listed_origin_is_named_and_others_are_not(
    upstream, gateway, method, path, key, headers, body, script, status
):
    upstream.script = script or ordinary()
    gw = await gateway(cors={"origins": ["https://*.example.org"]}, timeouts={"first_byte": 0.1})
    for origin in ({"Origin": PAGE}, {"Origin": STRANGER}, {}):
        answer = await gw.request(method, path, key=key, headers={**headers, **origin}, body=body)
        readable = PAGE in origin.values() and "X" not in headers  # of what could not be read the Origin is not known
        assert answer.status == status
        assert answer.values("access-control-allow-origin") == ([PAGE] if readable else [])
        assert "Origin" in ", ".join(answer.values("vary"))
        await answer.rest()


# Preflights...


@pytest.mark.parametrize("path", METHODS)
async def test_a_preflight_needs_no_key_on_any_path(gateway, path):
    gw = await gateway()
    for asked in ("GET", "POST", "DELETE"):
        sent = {
            "Origin": PAGE,
            "Access-Control-Request-Method": asked,
            "Access-Control-Request-Headers": "authorization,x-stainless-lang, x-api-key",
        }
        answer = await gw.request("OPTIONS", path, key=None, headers=sent)
        assert answer.status == 204
        assert answer.values("access-control-allow-origin") == ["*"]
        granted = (answer.header("access-control-allow-methods") or "").split(", ")
        assert {METHODS[path], asked, "OPTIONS"} <= set(granted)
        named = (answer.header("access-control-allow-headers") or "").split(", ")
        assert named == ["authorization", "x-stainless-lang", "x-api-key", "content-type"]
        assert int(answer.header("access-control-max-age") or 0) > 0
        assert await answer.body() == b""


async def test_what_a_page_does_from_preflight_to_stream(upstream, gateway):
    """As a browser: ask first, then send the request, and read body and exposed headers."""
    gw = await gateway()
    sent = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    client = await gw.connect()
    asked = await client.ask("OPTIONS", CHAT, headers=sent)
    assert (asked.status, asked.header("access-control-allow-origin")) == (204, "*")
    answer = await gw.chat(stream=True, headers={"Origin": PAGE}, connection=client)
    assert answer.status == 200
    assert [frame.raw for frame in await answer.frames()][-1] == b"data: [DONE]\n\n"
    exposed = (answer.header("access-control-expose-headers") or "").split(", ")
    for name in ("x-request-id", "x-proxy-model", "x-proxy-provider", "x-proxy-attempts", "server-timing"):
        assert name in exposed
        assert answer.header(name)


async def test_the_providers_own_cors_headers_do_not_pass(upstream, gateway):
    theirs = {"Access-Control-Allow-Origin": "https://theirs.example", "Access-Control-Allow-Credentials": "true"}
    head = {"Content-Type": "text/event-stream", **theirs}
    for asked, script in (
        (False, whole(headers={"Content-Type": "application/json", **theirs})),
        (True, stream([sse(chunk("a")), sse(chunk(finish="stop"))], headers=head)),
    ):
        upstream.script = script
        answer = await (await gateway()).chat(stream=asked)
        await answer.body()
        assert answer.values("access-control-allow-origin") == ["*"]
        assert not answer.values("access-control-allow-credentials")


async def test_while_draining_pages_can_read_that_it_is(gateway):
    gw = await gateway()
    client = await connect(gw.port)
    async with client:
        assert await (await client.ask("GET", "/health")).body()
        gw.server.drain()
        answer = await client.ask("GET", "/health", headers={"Origin": PAGE})
        assert (answer.status, answer.header("connection")) == (503, "close")
        assert answer.values("access-control-allow-origin") == ["*"]
