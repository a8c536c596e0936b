"""One connection to a provider: what its user is told, and what it may do at which moment."""

from __future__ import annotations

import asyncio
import gzip
from typing import get_args

import pytest

from proxy.errors import UpstreamError
from proxy.upstream.connection import MAX_HEAD, Stale
from tests.codings import Coding
from tests.functional.upstream import (
    JSON,
    Call,
    Gate,
    Upstream,
    chunk,
    conversation,
    flood,
    held,
    hung_up,
    in_turn,
    silent,
    sse,
    stream,
    whole,
)

from . import answered, send


async def turns(count: int = 5) -> None:
    """Let the loop go round: what must not happen has had its chance."""
    for _ in range(count):
        await asyncio.sleep(0)


# What the receiver is told


async def test_head_body_end_in_this_order(pool, upstream: Upstream):
    upstream.script = stream([b"one", b"two"], headers=[("X-A", "1"), ("x-a", "2"), ("X-B", "ü")])
    receiver = await answered(pool, upstream)
    assert receiver.head.status == 200
    assert receiver.head.headers["x-a"] == "1"  # of repeated ones the first counts
    assert receiver.head.headers["x-b"].encode("latin-1").decode() == "ü"
    assert receiver.body == b"onetwo"


async def test_the_head_is_told_before_a_body_has_come(pool, upstream):
    gate = Gate()

    async def script(call: Call) -> None:
        await call.head()
        await gate.passed()
        await call.send(b"late")
        await call.done()

    upstream.script = script
    _, receiver = await send(pool, upstream)
    await receiver.told()
    assert receiver.pieces == []
    gate.open()
    assert await receiver.ended_with() is None
    assert receiver.body == b"late"


WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
PACKED = gzip.compress(b"hello")


@pytest.mark.parametrize(
    ("wire", "body", "at_once", "kept"),
    [
        pytest.param(WHOLE, b"hello", True, True, id="length"),
        pytest.param(CHUNKED, b"hello", True, True, id="chunks"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", b"", True, True, id="no-body"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\n\r\n" + WHOLE, b"hello", True, True, id="after-an-interim-one"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
            b"hello",
            True,
            False,
            id="the-last-one",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(PACKED), PACKED),
            b"hello",
            False,
            True,
            id="decompressed",
        ),
        pytest.param(WHOLE + WHOLE, b"hello", False, False, id="more-than-was-asked-for"),
        pytest.param(WHOLE + b"\0rubbish", b"hello", False, False, id="rubbish-behind"),
    ],
)
async def test_an_answer_that_comes_in_one_read_is_told_at_once(pool, upstream, wire, body, at_once, kept):
    """What must be decompressed, or leaves a connection that cannot be trusted, goes the long way."""

    async def script(call: Call) -> None:
        await call.raw(wire)
        call.finished = True

    upstream.script = script
    for _ in range(2):
        receiver = await answered(pool, upstream)
        assert receiver.body == body
        assert receiver.at_once is at_once
    assert upstream.calls[1].reused is kept


async def test_a_refusal_in_one_read_is_told_at_once_with_its_status(pool, upstream):
    upstream.script = whole({"error": "no"}, 429, {**JSON, "Retry-After": "1"})
    receiver = await answered(pool, upstream)
    assert receiver.at_once
    assert (receiver.head.status, receiver.head.headers["retry-after"]) == (429, "1")


@pytest.mark.parametrize("size", [1, 2, 5])
async def test_the_wire_may_be_cut_anywhere(pool, upstream, size):
    wire = (
        b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n"
        b"5;ext=1\r\nhello\r\n1\r\n \r\n005\r\nworld\r\n0\r\nX-Trailer: t\r\n\r\n"
    )

    async def script(call: Call) -> None:
        await call.drip_raw(wire, size)
        call.finished = True

    upstream.script = script
    for _ in range(2):
        receiver = await answered(pool, upstream)
        assert receiver.body == b"hello world"
        assert set(receiver.head.headers) == {"transfer-encoding", "x-a"}
    assert upstream.calls[1].reused


@pytest.mark.parametrize("body", [b"", b"x", b"y" * 65535, b"z" * 3_000_000], ids=len)
async def test_a_request_arrives_whole(pool, upstream, body):
    upstream.script = whole()
    await answered(pool, upstream, body)
    call = await upstream.arrived()
    assert call.body == body
    assert call.values("content-length") == [str(len(body))]


# What the user may do


async def test_an_abort_closes_at_once_and_nothing_more_is_told(pool, upstream):
    upstream.script = flood(b"x" * 10_000, 10_000)
    call, receiver = await send(pool, upstream)
    await receiver.told(b"x")
    call.abort()
    told = len(receiver.pieces)
    await (await upstream.arrived()).gone()
    assert len(receiver.pieces) == told
    assert receiver.ends == []
    call.abort()
    call.leave()
    call.pause()
    call.resume()


@pytest.mark.parametrize("what", ["abort", "leave", "pause", "resume"])
async def test_what_is_done_too_late_does_nothing_to_the_next(pool, upstream, what):
    """The connection belongs to another request by then."""
    upstream.script = in_turn(whole(), held([chunk("a")]))
    old, receiver = await send(pool, upstream)
    assert await receiver.ended_with() is None
    _, receiver = await send(pool, upstream)
    await receiver.told(b"data: ")
    getattr(old, what)()
    await turns()
    second = upstream.calls[1]
    assert second.reused
    assert not second.left
    assert receiver.ends == []


async def test_a_paused_connection_is_not_read(pool, upstream):
    upstream.script = flood(b"x" * 10_000, 2_000)
    call, receiver = await send(pool, upstream)
    await receiver.told(b"x")
    call.pause()
    call.pause()
    told = len(receiver.pieces)
    await (await upstream.arrived()).settled(0.1)
    assert len(receiver.pieces) == told
    call.resume()
    call.resume()
    assert await receiver.ended_with() is None
    assert receiver.body == b"x" * 20_000_000 + b"data: [DONE]\n\n"


async def test_a_connection_that_ended_paused_can_be_used_again(pool, upstream):
    """Its last bytes come, and whoever is told of them pauses."""
    gate = Gate()

    async def script(call: Call) -> None:
        await call.head(200, JSON, length=2)
        await gate.passed()
        await call.send(b"{}")
        call.finished = True

    upstream.script = script
    call, receiver = await send(pool, upstream)
    await receiver.told()
    tell = receiver.data_came

    def full(piece: bytes) -> None:
        tell(piece)
        call.pause()

    receiver.data_came = full
    gate.open_all()
    assert await receiver.ended_with() is None
    await answered(pool, upstream)
    assert upstream.calls[-1].reused


@pytest.mark.parametrize("coding", get_args(Coding))
async def test_who_pauses_inside_what_it_is_told_gets_no_more(pool, upstream, coding):
    """Decompressed pieces wait, as bytes on the wire do."""
    size = 3_000_000
    upstream.script = stream([b"x" * size], encoding=coding)
    call, receiver = await send(pool, upstream)
    tell = receiver.data_came

    def full(piece: bytes) -> None:
        tell(piece)
        call.pause()

    receiver.data_came = full
    await receiver.told(b"x")
    await (await upstream.arrived()).ended()
    await turns()
    assert 0 < len(receiver.body) < size / 2
    assert receiver.ends == []
    while not receiver.ends:
        before = len(receiver.pieces)
        call.resume()
        assert len(receiver.pieces) <= before + 1
        await asyncio.sleep(0)
    assert receiver.ends == [None]
    assert receiver.body == b"x" * size
    await answered(pool, upstream)
    assert upstream.calls[-1].reused


async def test_who_aborts_inside_what_it_is_told_gets_no_more(pool, upstream):
    upstream.script = stream([b"x" * 3_000_000], encoding="gzip")
    call, receiver = await send(pool, upstream)
    tell = receiver.data_came

    def fed_up(piece: bytes) -> None:
        tell(piece)
        call.abort()

    receiver.data_came = fed_up
    await receiver.told(b"x")
    await (await upstream.arrived()).gone()
    assert len(receiver.pieces) == 1
    assert receiver.ends == []


async def test_who_leaves_early_hears_no_more_and_the_connection_is_kept(pool, upstream):
    gate = Gate()

    async def script(call: Call) -> None:
        for frame in conversation("a"):
            await call.frame(frame)
        await gate.passed()
        await call.send(b"more")
        await call.done()

    upstream.script = script
    call, receiver = await send(pool, upstream)
    await receiver.told(sse(chunk("", role="assistant")))
    call.leave()
    told = receiver.body
    gate.open_all()
    first = await upstream.arrived()
    await first.ended()
    while not pool._idle:  # noqa: ASYNC110
        await asyncio.sleep(0)
    upstream.script = whole()
    await answered(pool, upstream)
    assert upstream.calls[-1].reused
    assert (receiver.body, receiver.ends) == (told, [])


async def test_who_leaves_does_not_wait_for_ever(pool, upstream, monkeypatch):
    monkeypatch.setattr("proxy.upstream.connection.LINGER", 0.02)
    upstream.script = flood(b"x" * 1000, 1_000_000)
    call, receiver = await send(pool, upstream)
    await receiver.told(b"x")
    call.leave()
    await (await upstream.arrived()).gone()
    assert receiver.ends == []


async def test_the_linger_of_one_answer_does_not_end_the_next(pool, upstream, monkeypatch):
    monkeypatch.setattr("proxy.upstream.connection.LINGER", 0.05)
    gate = Gate()

    async def script(call: Call) -> None:
        await call.head()
        await call.send(b"enough")
        await gate.passed()
        await call.done()

    upstream.script = script
    call, receiver = await send(pool, upstream)
    await receiver.told(b"enough")
    call.leave()
    gate.open_all()
    await (await upstream.arrived()).ended()
    upstream.script = held([b"slow"])
    await turns()
    _, second = await send(pool, upstream)
    await second.told(b"slow")
    await asyncio.sleep(0.15)
    assert second.ends == []
    assert not upstream.calls[-1].left


# How it ends


@pytest.mark.parametrize(
    ("how", "says"),
    [("close", "was cut"), ("reset", "was cut"), ("half_close", "was cut")],
)
@pytest.mark.parametrize("head", [{}, {"length": 100}], ids=["chunked", "length"])
async def test_a_body_that_breaks_is_told_once_after_all_of_it(pool, upstream, head, how, says):
    gate = Gate()

    async def script(call: Call) -> None:
        await call.head(200, JSON, **head)
        await call.send(b"some")
        await gate.passed()
        getattr(call, how)()
        await call.connection.gone.wait()

    upstream.script = script
    _, receiver = await send(pool, upstream)
    await receiver.told(b"some")
    gate.open()
    error = await receiver.ended_with()
    assert isinstance(error, UpstreamError)
    assert says in error.message


async def test_a_body_that_ends_with_its_connection_has_ended_well(pool, upstream):
    upstream.script = stream([b"some"], framing="close")
    receiver = await answered(pool, upstream)
    assert receiver.body == b"some"


async def test_a_fresh_connection_that_is_closed_is_no_stale_one(pool, upstream):
    upstream.script = hung_up()
    _, receiver = await send(pool, upstream)
    assert isinstance(await receiver.ended_with(), UpstreamError)


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_kept_connection_that_is_closed_before_any_byte_is_stale(pool, upstream, how):
    upstream.script = in_turn(whole(), hung_up(how))
    await answered(pool, upstream)
    _, receiver = await send(pool, upstream)
    assert isinstance(await receiver.ended_with(), Stale)


async def test_a_byte_is_enough_not_to_be_stale(pool, upstream):
    async def script(call: Call) -> None:
        await call.raw(b"H")
        call.close()

    upstream.script = in_turn(whole(), script)
    await answered(pool, upstream)
    _, receiver = await send(pool, upstream)
    assert isinstance(await receiver.ended_with(), UpstreamError)


async def test_an_answer_that_nobody_asked_for_closes_the_connection(pool, upstream):
    gate = Gate()

    async def script(call: Call) -> None:
        await call.reply({})
        await gate.passed()
        await call.raw(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")

    upstream.script = script
    await answered(pool, upstream)
    gate.open_all()
    await (await upstream.arrived()).gone()
    await answered(pool, upstream)
    assert not upstream.calls[-1].reused


# Bounds


@pytest.mark.parametrize("at_once", [True, False], ids=["in-one-read", "in-many"])
async def test_a_head_has_a_bound_however_it_comes(pool, upstream, at_once):
    head = b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %b\r\n" % (i, b"y" * 1000) for i in range(70)) + b"\r\n"
    assert len(head) > MAX_HEAD

    async def script(call: Call) -> None:
        await (call.raw(head) if at_once else call.drip_raw(head, 500))
        await call.connection.gone.wait()

    upstream.script = script
    _, receiver = await send(pool, upstream)
    error = await receiver.ended_with()
    assert f"{MAX_HEAD} bytes of headers" in str(error)
    assert receiver.head is None


@pytest.mark.parametrize(
    "endless",
    [b"X: y\r\n" * 20, b"x" * 1000, b"y: " + b"z" * 50_000],
    ids=["many-trailers", "one-trailer", "large-trailers"],
)
async def test_trailers_have_a_bound(pool, upstream, endless):
    async def script(call: Call) -> None:
        await call.head()
        await call.send(b"body")
        await call.raw(b"0\r\n")
        while True:
            await call.raw(endless)

    upstream.script = script
    _, receiver = await send(pool, upstream)
    error = await receiver.ended_with()
    assert "headers" in str(error) or "not HTTP" in str(error)
    await (await upstream.arrived()).gone()


async def test_the_size_of_a_chunk_has_a_bound(pool, upstream):
    async def script(call: Call) -> None:
        await call.head()
        await call.raw(b"5;")
        while True:
            await call.raw(b"x" * 10_000)

    upstream.script = script
    _, receiver = await send(pool, upstream)
    assert await receiver.ended_with() is not None
    await (await upstream.arrived()).gone()


async def test_many_small_chunks_are_no_trailers(pool, upstream):
    """What counts are reads without a byte of the body."""

    async def script(call: Call) -> None:
        await call.head()
        for _ in range(300):
            await call.raw(b"1;" + b"e" * 1000 + b"\r\n")
            await asyncio.sleep(0)
            await call.raw(b"x\r\n")
        await call.done()

    upstream.script = script
    receiver = await answered(pool, upstream)
    assert receiver.body == b"x" * 300


async def test_the_pool_may_close_in_the_middle_of_everything(pool, upstream):
    upstream.script = in_turn(whole(), silent(), held([chunk("a")]), flood(b"x" * 10_000, 10_000))
    await answered(pool, upstream)
    receivers = [(await send(pool, upstream))[1] for _ in range(3)]
    for _ in range(4):
        await upstream.arrived()
    await pool.close()
    await upstream.quiet()
    assert all(receiver.ends == [] for receiver in receivers)
