"""What is no HTTP, or hardly: malformed requests, absurd heads, clients that dawdle."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from . import KEY, chat_body
from .upstream import Gate, conversation, gated_stream
from .wire import Answer, Connection

SECRET = b"sk-a-key-in-a-broken-request"
HOST = b"Host: localhost\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + b"Authorization: Bearer " + KEY.encode() + b"\r\n"
JSON = b"Content-Type: application/json\r\n"
BODY = json.dumps(chat_body()).encode()


MALFORMED = [
    pytest.param(b"nonsense " + SECRET + b"\r\n\r\n", id="nonsense"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + SECRET + b"\r\n\r\n", id="tls"),
    pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="http2-preface"),
    pytest.param(b"GET /health HTTP/2.0\r\n" + HOST + b"\r\n", id="http2-in-words"),
    pytest.param(b"GET /health HTTP/1.2\r\n" + HOST + b"\r\n", id="http-1.2"),
    pytest.param(b"GET /health HTTP/9\r\n" + HOST + b"\r\n", id="half-a-version"),
    pytest.param(b"GET /health\r\n\r\n", id="http-0.9"),
    pytest.param(b"FROBNICATE /health HTTP/1.1\r\n" + HOST + b"\r\n", id="a-method-from-nowhere"),
    pytest.param(b"ge\0t /health HTTP/1.1\r\n" + HOST + b"\r\n", id="a-method-with-nul"),
    pytest.param(b"GET /\xff\xfe?" + SECRET + b" HTTP/1.1\r\n" + HOST + b"\r\n", id="bytes-in-the-path"),
    pytest.param(b"GET /v1/models/" + SECRET + b"\x01 HTTP/1.1\r\n" + HOST + b"\r\n", id="control-bytes-in-the-path"),
    pytest.param(b"GET http://[::1/ HTTP/1.1\r\n" + HOST + b"\r\n", id="half-an-address"),
    pytest.param(b"GET /health HTTP/1.1\r\n\r\n", id="no-host"),
    pytest.param(b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", id="two-hosts"),
    pytest.param(b"GET /health HTTP/1.1\r\n" + HOST + b"X: a\0" + SECRET + b"\r\n\r\n", id="nul-in-a-value"),
    pytest.param(b"GET /health HTTP/1.1\r\n" + HOST + b"X: a\r" + SECRET + b"\r\n\r\n", id="bare-cr-in-a-value"),
    pytest.param(b"GET /health HTTP/1.1\n" + HOST + b"\n", id="bare-lf"),
    pytest.param(b"GET /health HTTP/1.1\r\n" + HOST + b"X\xff: a\r\n\r\n", id="bytes-in-a-name"),
    pytest.param(b"GET /health HTTP/1.1\r\n" + HOST + b"X : a\r\n\r\n", id="a-space-before-the-colon"),
    pytest.param(b"GET /health HTTP/1.1\r\n" + HOST + b": a\r\n\r\n", id="no-name"),
    pytest.param(b"GET /health HTTP/1.1\r\n" + HOST + SECRET + b"\r\n\r\n", id="no-colon"),
    pytest.param(b"GET /health HTTP/1.1\r\n" + HOST + b"X: a\r\n folded\r\n\r\n", id="a-folded-line"),
    pytest.param(b"GET /health HTTP/1.1\r\n" + HOST + b"X: " + SECRET * 2400 + b"\r\n\r\n", id="a-header-of-64-kib"),
    pytest.param(
        b"GET /health HTTP/1.1\r\n" + HOST + b"".join(b"X-%d: a\r\n" % n for n in range(1000)) + b"\r\n",
        id="a-thousand-headers",
    ),
    pytest.param(b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", id="an-endless-path"),
    pytest.param(POST + JSON + b"Content-Length: -5\r\n\r\n", id="a-negative-length"),
    pytest.param(POST + JSON + b"Content-Length: 5x\r\n\r\n", id="a-length-that-is-none"),
    pytest.param(POST + JSON + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}", id="two-lengths"),
    pytest.param(
        POST + JSON + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="length-and-chunks"
    ),
    pytest.param(POST + JSON + b"Transfer-Encoding: gzip\r\n\r\n", id="a-transfer-encoding-without-chunks"),
    pytest.param(POST + JSON + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n", id="a-chunk-size-that-is-none"),
    pytest.param(
        POST + JSON + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\n\r\n", id="an-endless-chunk-size"
    ),
]


def assert_told_in_json(answer: Answer, body: bytes) -> None:
    told = json.loads(body)
    assert answer.status == 400
    assert answer.header("content-type") == "application/json"
    assert list(told) == ["error", "details", "timestamp"]
    assert (told["error"], told["details"]) == ("invalid_request", "the request is not valid HTTP")
    assert answer.header("access-control-allow-origin") == "*"
    assert "x-request-id" in (answer.header("access-control-expose-headers") or "")
    assert (answer.header("x-request-id") or "").startswith("req_")
    assert answer.header("server") == "ai-proxy"
    assert answer.whole


@pytest.mark.parametrize("wire", MALFORMED)
async def test_malformed_http_gets_400_in_json_and_a_closed_connection(upstream, gateway, caplog, capfd, wire):
    gw = await gateway()
    client = await gw.connect()
    await client.send(wire)
    answer = await client.answer()
    assert_told_in_json(answer, await answer.rest())
    assert await client.closed() in ("cut", "reset")
    assert bytes(client.buffer) == b""
    assert upstream.calls == []
    await gw.stop()
    said = "".join(capfd.readouterr()) + caplog.text
    assert SECRET.decode() not in said
    assert "Traceback" not in said


@pytest.mark.parametrize("size", [1, 5])
async def test_it_is_told_wherever_the_wire_is_cut(gateway, size):
    client = await (await gateway()).connect()
    with contextlib.suppress(ConnectionError):  # it may not want to hear the end
        await client.drip(b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", size)
    answer = await client.answer()
    assert_told_in_json(answer, await answer.rest())


async def test_a_listed_origin_is_not_known_of_what_could_not_be_read(gateway):
    """The parser gives no headers, so nobody is let in; a cache must know why."""
    gw = await gateway(cors={"origins": ["https://app.example.org"]})
    client = await gw.connect()
    await client.send(b"GET /health HTTP/1.1\r\nOrigin: https://app.example.org\r\nHost: a\r\nHost: b\r\n\r\n")
    answer = await client.answer()
    assert answer.status == 400
    assert answer.header("vary") == "Origin"
    assert not answer.values("access-control-allow-origin")


async def test_what_was_asked_before_the_nonsense_is_answered_first(gateway):
    client = await (await gateway()).connect()
    await client.send(b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n")
    good = await client.answer()
    assert (good.status, await good.body()) == (200, b'{"ok":true}')
    await client.send(b"nonsense\r\n\r\n")
    bad = await client.answer()
    assert_told_in_json(bad, await bad.rest())


@pytest.mark.parametrize(
    ("path", "said"),
    [("/v1/chat/completions", ["error", "message"]), ("/chat", ["details"])],
)
async def test_a_body_that_turns_out_malformed_is_told_in_the_routes_form(upstream, gateway, path, said):
    client = await (await gateway()).connect()
    head = POST.replace(b"/v1/chat/completions", path.encode()) + JSON + b"Expect: 100-continue\r\n"
    await client.send(head + b"Transfer-Encoding: chunked\r\n\r\n")
    assert await client.line() == b"HTTP/1.1 100 Continue"
    assert await client.line() == b""
    await client.send(b"zz\r\n\r\n")
    answer = await client.answer()
    told = json.loads(await answer.rest())
    assert answer.status == 400
    for name in said:
        told = told[name]
    assert told == "the body is not valid HTTP"
    assert await client.closed() in ("cut", "reset")
    assert upstream.calls == []


# Heads that are large, and still right...


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"X: " + b"a" * 30_000 + b"\r\n", id="one-large-header"),
        pytest.param(b"".join(b"X-%d: a\r\n" % n for n in range(100)), id="a-hundred-headers"),
        pytest.param(b"Cookie: " + b"a=b; " * 4000 + b"\r\n", id="a-page's-cookies"),
        pytest.param(b"X: \xff\xfe\r\n", id="bytes-in-a-value"),
        pytest.param(b"X: \xc3\xa9\t\xe6\x9d\xb1\r\n", id="utf-8-and-a-tab"),
    ],
)
async def test_large_and_odd_heads_that_are_right_are_served(gateway, head):
    client = await (await gateway()).connect()
    await client.send(POST + JSON + head + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
    assert (await client.answer()).status == 200


async def test_the_largest_header_is_a_setting(gateway):
    gw = await gateway(limits={"max_header_bytes": 1000})
    client = await gw.connect()
    await client.send(b"GET /health HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 1001 + b"\r\n\r\n")
    answer = await client.answer()
    assert_told_in_json(answer, await answer.rest())


async def test_nothing_of_the_clients_headers_goes_upstream(upstream, gateway):
    gw = await gateway()
    sent = {
        "Cookie": "a=b",
        "X-Api-Key": "sk-other",
        "X-Forwarded-For": "192.0.2.1",
        "Accept-Encoding": "br",
        "User-Agent": "somebody",
        "X-Anything": "1",
        "Connection": "X-Anything",
    }
    assert (await gw.chat(headers=sent)).status == 200
    call = await upstream.arrived()
    told = {name.lower(): value for name, value in call.headers}
    assert set(told) == {
        "host",
        "content-type",
        "accept",
        "accept-encoding",
        "user-agent",
        "authorization",
        "content-length",
    }
    assert told["accept-encoding"] == "identity"
    assert told["user-agent"].startswith("ai-proxy/")


# Injection...


@pytest.mark.parametrize(
    "id",
    [
        pytest.param("a b", id="a-space"),
        pytest.param('"><script>', id="markup"),
        pytest.param("x" * 129, id="endless"),
        pytest.param("", id="empty"),
        pytest.param("é", id="not-ascii"),
        pytest.param("a%0d%0aX-Evil: 1", id="percent"),
    ],
)
async def test_a_request_id_that_is_not_sane_is_replaced(gateway, id):
    answer = await (await gateway()).request("GET", "/health", headers={"X-Request-ID": id})
    told = answer.values("x-request-id")
    assert len(told) == 1
    assert told[0].startswith("req_")


@pytest.mark.parametrize("id", ["abc-123", "req_1", "a" * 128, "4bf92f35:77b3.4da6_a3"])
async def test_a_sane_one_is_kept(gateway, id):
    answer = await (await gateway()).request("GET", "/nowhere", headers={"X-Request-ID": id})
    assert answer.values("x-request-id") == [id]


@pytest.mark.parametrize("model", ["m\r\nX-Evil: 1", "m\nX-Evil: 1", "up/m\r\n\r\n<html>", "m\u0085X-Evil: 1"])
async def test_a_models_name_cannot_add_a_header(gateway, model):
    gw = await gateway(models=[{"id": "up/*", "provider": "up"}])
    for answer in (
        await gw.chat(model=model),
        await gw.chat(path="/api/chat", model=model),
        await gw.request("GET", "/v1/models/" + "".join(f"%{byte:02x}" for byte in model.encode())),
    ):
        assert answer.status == 404
        assert not answer.values("x-evil")
        await answer.json()


# Dawdlers...


async def drip(client: Connection) -> str:
    """Send one header after the other until the gateway has had enough."""
    end = asyncio.ensure_future(client.closed())
    with contextlib.suppress(ConnectionError):
        await client.send(b"GET /health HTTP/1.1\r\n")
        while not end.done():
            await client.send(b"X: a\r\n")
            await asyncio.wait([end], timeout=0.05)
    return await end


async def test_a_head_has_its_clock_however_it_comes_and_nothing_else_is_measured_by_it(upstream, gateway):
    gate = Gate()
    upstream.script = gated_stream(conversation("a"), gate)
    gw = await gateway(timeouts={"client": 0.2})
    patient = await gw.connect()
    assert await (await patient.ask("GET", "/health")).body()
    gate.open()
    streaming = await gw.chat(stream=True)
    late = [await gw.connect() for _ in range(3)]
    second = await gw.connect()
    assert await (await second.ask("GET", "/health")).body()
    for client, begun in zip([*late, second], [b"", b"G", b"GET /health HTTP/1.1\r\nHost: local", b"GET"], strict=True):
        await client.send(begun)
    ends = await asyncio.gather(*(client.closed() for client in [*late, second]), drip(await gw.connect()))
    assert set(ends) <= {"cut", "reset"}
    # Both are older than all of them: one is between two requests, one has its head in.
    assert (await patient.ask("GET", "/health")).status == 200
    gate.open_all()
    assert (await streaming.events())[-1].done
    assert streaming.whole


async def test_a_body_that_comes_before_its_handler_runs_is_not_taken_for_a_late_head(gateway):
    """Between the taking of a head and the first step of its handler lies a turn of the loop; bytes may come in it."""
    gw = await gateway()
    client = await gw.connect()
    assert await (await client.ask("GET", "/health")).body()
    (connection,) = gw.server._runner.server.connections
    for turns in range(4):
        connection.data_received(POST + JSON + b"Content-Length: %d\r\n\r\n" % len(BODY))
        for _ in range(turns):
            await asyncio.sleep(0)
        connection.data_received(BODY)
        assert connection.waiting_since == 0
        assert await (await client.answer()).json()


async def test_all_headers_together_have_a_limit(gateway):
    gw = await gateway()
    many = b"".join(b"X-%d: " % n + b"a" * 1000 + b"\r\n" for n in range(100))
    for begun in (b"GET /health HTTP/1.1\r\n" + HOST + many + b"\r\n", b"GET /health HTTP/1.1\r\n" + HOST + many):
        for size in (len(begun), 7000):
            client = await gw.connect()
            with contextlib.suppress(ConnectionError):
                await client.drip(begun, size)
            answer = await client.answer()
            assert_told_in_json(answer, await answer.rest())
            assert await client.closed() in ("cut", "reset")


async def test_heads_are_counted_one_by_one(gateway):
    client = await (await gateway(limits={"max_header_bytes": 1000})).connect()
    for _ in range(10):
        await client.drip(b"GET /health HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 400 + b"\r\n\r\n", 100)
        answer = await client.answer()
        assert (answer.status, await answer.body()) == (200, b'{"ok":true}')


async def test_a_body_is_no_head_however_long_it_is_and_whenever_it_comes(gateway):
    gw = await gateway()
    client = await gw.connect()
    body = json.dumps(chat_body("x" * 200_000)).encode()
    for key, status in ((b"wrong", 401), (KEY.encode(), 200)):
        head = POST.replace(KEY.encode(), key) + JSON + b"Content-Length: %d\r\n\r\n" % len(body)
        await client.send(head)
        if status == 401:
            answer = await client.answer()  # before its body
        await client.drip(body, 20_000)
        if status == 200:
            answer = await client.answer()
        assert answer.status == status
        await answer.body()
