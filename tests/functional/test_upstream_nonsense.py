"""Answers that are not HTTP, or too much of it: a fault of upstream's, and never a connection to use again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .speakers import OPENAI
from .upstream import Call, Gate, big_head, compact, completion, hung_up, whole

if TYPE_CHECKING:
    from .upstream import Script

WHOLE = compact(completion()).encode()
GOOD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(WHOLE), WHOLE)


def raw(data: bytes, *, close: bool = False, finished: bool = True) -> Script:
    """These bytes as the whole answer."""

    async def script(call: Call) -> None:
        await call.raw(data)
        if close:
            call.close()
        call.finished = finished

    return script


def ok(*headers: bytes, body: bytes = b"") -> Script:
    """The head of a good answer with these headers, and what comes after it."""
    return raw(b"".join(line + b"\r\n" for line in (b"HTTP/1.1 200 OK", *headers)) + b"\r\n" + body, close=True)


CHUNKED = b"Transfer-Encoding: chunked"

NONSENSE = [
    pytest.param(raw(b"SSH-2.0-OpenSSH_9.6\r\n", close=True), "not HTTP", id="another-protocol"),
    pytest.param(raw(b"\x16\x03\x01\x00\xa5\x01", close=True), "not HTTP", id="tls"),
    pytest.param(raw(b"HTTP/1.1 abc OK\r\n\r\n", close=True), "not HTTP", id="a-status-that-is-none"),
    pytest.param(ok(b"no colon"), "not HTTP", id="a-header-that-is-none"),
    pytest.param(ok(b"Content-Length: -1"), "not HTTP", id="a-negative-length"),
    pytest.param(ok(b"Content-Length: 1e3"), "not HTTP", id="an-odd-length"),
    pytest.param(ok(b"Content-Length: 5", b"Content-Length: 6", body=b"abcdef"), "provider", id="two-lengths"),
    pytest.param(ok(b"Content-Length: 5", CHUNKED, body=b"0\r\n\r\n"), "provider", id="a-length-and-chunks"),
    pytest.param(ok(CHUNKED, body=b"xyz\r\n"), "not HTTP", id="chunks-that-are-none"),
    pytest.param(raw(b"HTTP/1.1 200 OK\r\nX: y", close=True), "closed the connection", id="half-of-a-head"),
    pytest.param(raw(b"HTTP/1.1 100 Continue\r\n\r\n", close=True), "closed the connection", id="an-interim-head"),
    pytest.param(hung_up("close"), "closed the connection", id="nothing"),
    pytest.param(hung_up("reset"), "closed the connection", id="nothing-and-rst"),
    pytest.param(big_head(70_000, WHOLE), "65536 bytes of headers", id="a-header-of-70000-bytes"),
    pytest.param(ok(b"X: " + b"y" * 200_000), "65536 bytes of headers", id="a-header-of-200000-bytes"),
    pytest.param(ok(*[b"X-%d: y" % number for number in range(300)]), "256 headers", id="300-headers"),
    pytest.param(raw(b"HTTP/1.1 102 Wait\r\nX: y\r\n\r\n" * 4000, close=True), "headers", id="4000-interim-heads"),
]


@pytest.mark.parametrize(("script", "says"), NONSENSE)
async def test_what_is_not_http_is_a_fault_of_upstream_s(upstream, gateway, script, says):
    upstream.script = script
    one = await gateway()
    answer = await one.chat(stream=True)
    assert answer.status == 502
    told = OPENAI.error(await answer.json())
    assert told.kind == "upstream_error"
    assert says in told.message
    call = await upstream.arrived()
    await call.gone()
    assert len(upstream.calls) == 1  # a fresh connection is not tried twice
    upstream.script = whole()
    assert (await one.chat()).status == 200
    assert not upstream.calls[1].reused


async def test_large_headers_are_taken_up_to_a_bound(upstream, gateway):
    """Some providers send single headers of more than 8 KiB."""
    upstream.script = big_head(60_000, WHOLE)
    assert (await (await gateway()).chat()).status == 200


@pytest.mark.parametrize(
    "after",
    [b"garbage", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", b"0\r\n\r\n"],
    ids=["garbage", "another-answer", "a-chunk"],
)
@pytest.mark.parametrize("later", [False, True], ids=["in-one-read", "later"])
async def test_bytes_after_an_answer_spoil_the_connection_not_the_answer(upstream, gateway, after, later):
    gate = Gate()

    async def script(call: Call) -> None:
        await call.raw(GOOD if later else GOOD + after)
        await gate.passed()
        if later:
            await call.raw(after)
        await call.connection.gone.wait()

    upstream.script = script
    one = await gateway()
    answer = await one.chat()
    assert (answer.status, await answer.body()) == (200, WHOLE)
    gate.open()
    await (await upstream.arrived()).gone()
    upstream.script = whole()
    assert (await one.chat()).status == 200
    assert not upstream.calls[1].reused
