"""The life of connections whose requests go past aiohttp, alone and beside requests that do not."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from typing import TYPE_CHECKING, Any

import pytest

from proxy.connection import Connection as Ours

from . import KEY, authorized, chat_body
from .speakers import OPENAI, open_streams, settled
from .upstream import Call, Gate, chunk, completion, conversation, flood, held, ordinary, silent
from .ways import WAYS, watch
from .wire import request_bytes, within

if TYPE_CHECKING:
    from collections.abc import Callable

    from . import Gateway
    from .upstream import Script
    from .wire import Answer, Connection

CHAT = "/v1/chat/completions"
NEVER = dict.fromkeys(("connect", "first_byte", "idle", "heartbeat", "total", "after_finish", "client"), 3600)
QUIET = {"timeouts": NEVER, "stream": {"keepalive": 0}}
RECEIVE_BUFFER = (socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
HEALTH = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"


def plain(prompt: str = "Hi", *, path: str = CHAT, headers: Any = (), **fields: Any) -> bytes:
    """A request with nothing odd about it."""
    return request_bytes("POST", path, headers=authorized(KEY, headers), json=chat_body(prompt, **fields))


def odd(prompt: str = "Hi", **fields: Any) -> bytes:
    """The same for aiohttp's parser."""
    return plain(prompt, headers={"Trailer": "X-A"}, **fields)


def chunked(prompt: str = "Hi", **fields: Any) -> bytes:
    """The same with a body in chunks."""
    head, _, body = plain(prompt, **fields).partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length")]
    return b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b"", b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)])


#: As Python's SDKs send it.
HEAD = plain().partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
BODY = plain().removeprefix(HEAD)


def echo(gate: Gate | None = None, *, first: int = 1) -> Script:
    """Says what it was asked; the ``first`` requests wait at the gate, streams after their first word."""

    async def script(call: Call) -> None:
        said = call.asked["messages"][-1]["content"]
        waits = gate is not None and call.number <= first
        if call.asked.get("stream"):
            frames = conversation(said, " and no more")
            for number, frame in enumerate(frames):
                if number == 2 and waits and gate is not None:
                    await gate.passed()
                await call.frame(frame)
            await call.done()
        else:
            if waits and gate is not None:
                await gate.passed()
            await call.reply(completion(said))

    return script


async def said(answer: Answer) -> str:
    """What an answer says, whole or streamed; its status where it is none."""
    if answer.status != 200:
        await answer.body()
        return str(answer.status)
    if "event-stream" in (answer.header("content-type") or ""):
        heard = await OPENAI.heard(answer)
        assert heard.complete
        return heard.text.removesuffix(" and no more")
    told = await answer.json()
    return told["choices"][0]["message"]["content"] if "choices" in told else "health"


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for what nothing tells."""

    async def come() -> None:
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    await within(come(), what)


async def both_ends(gateway: Gateway) -> tuple[Connection, Ours]:
    """A new connection, as its client sees it and as the gateway does."""
    assert gateway.server._runner.server is not None
    before = set(gateway.server._runner.server.connections)
    client = await gateway.connect()
    await until(lambda: len(gateway.server._runner.server.connections) > len(before), "a connection")
    (ours,) = set(gateway.server._runner.server.connections) - before
    assert isinstance(ours, Ours)
    return client, ours


def log_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# One request after the other...


async def test_a_connection_carries_many(upstream, gateway, monkeypatch, capfd):
    taken = watch(monkeypatch)
    upstream.script = echo()
    one = await gateway()
    client = await one.connect()
    for number in range(50):
        await client.send(plain(f"number {number}", stream=number % 3 == 0))
        assert await said(await client.answer()) == f"number {number}"
    assert taken == ["lane"] * 50
    assert (await settled(one, outcome="ok"), open_streams(one)) == (50, 0)
    await one.stop()
    lines = log_lines(capfd.readouterr().err)
    assert {line["outcome"] for line in lines} == {"ok"}
    assert len({line["request_id"] for line in lines}) == 50


@pytest.mark.parametrize(
    ("pieces", "answer", "way"),
    [
        pytest.param([HEALTH], "health", None, id="a-probe"),
        pytest.param([odd()], "Hi", "express", id="an-odd-one"),
        pytest.param([odd(stream=True)], "Hi", "express", id="an-odd-stream"),
        pytest.param([chunked()], "Hi", "express", id="chunks"),
        pytest.param([plain(path="/nowhere")], "404", "application", id="no-path"),
        pytest.param([plain().replace(KEY.encode(), b"sk-wrong")], "401", "application", id="a-wrong-key"),
        pytest.param([HEAD, BODY], "Hi", "express", id="a-head-and-then-its-body"),
        pytest.param([plain()[:-20], plain()[-20:-10], plain()[-10:]], "Hi", "express", id="a-body-in-pieces"),
        pytest.param([HEALTH[:20], HEALTH[20:]], "health", None, id="a-probe-in-pieces"),
    ],
)
async def test_what_was_odd_is_over_when_it_has_been_answered(upstream, gateway, monkeypatch, pieces, answer, way):
    taken = watch(monkeypatch)
    upstream.script = echo()
    one = await gateway()
    client, ours = await both_ends(one)
    for number in range(3):
        await client.send(plain(f"number {number}"))
        assert await said(await client.answer()) == f"number {number}"
        for piece in pieces:
            ours.data_received(piece)
            await asyncio.sleep(0)
        assert await said(await client.answer()) == answer
        await until(lambda: ours._waiter is not None, "aiohttp's leisure")
    assert taken == (["lane", way] if way else ["lane"]) * 3


# More than one at a time...


MIXED = [plain, odd, chunked, lambda prompt: plain(prompt, stream=True), lambda prompt: odd(prompt, stream=True)]


@pytest.mark.parametrize("count", [2, 10])
@pytest.mark.parametrize("kinds", [[plain], [plain, odd], [odd, plain], MIXED], ids=["plain", "p-o", "o-p", "mixed"])
async def test_requests_sent_together_are_answered_in_order(upstream, gateway, kinds, count):
    upstream.script = echo()
    client = await (await gateway()).connect()
    for _ in range(2):
        await client.send(b"".join(kinds[number % len(kinds)](f"number {number}") for number in range(count)))
        for number in range(count):
            assert await said(await client.answer()) == f"number {number}"


@pytest.mark.parametrize("first", [plain, odd])
@pytest.mark.parametrize("at_once", [False, True], ids=["later", "at-once"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("kinds", [[plain], [odd], [odd, plain], MIXED], ids=["plain", "odd", "o-p", "mixed"])
async def test_what_comes_meanwhile_waits_for_its_turn(upstream, gateway, first, at_once, streamed, kinds):
    gate = Gate()
    upstream.script = echo(gate)
    one = await gateway()
    client, ours = await both_ends(one)
    ours.data_received(first("first", stream=streamed))
    if not at_once:
        await gate.waited_at()
    for number in range(6):
        ours.data_received(kinds[number % len(kinds)](f"number {number}"))
    await gate.waited_at()
    for _ in range(20):
        await asyncio.sleep(0)
    assert (len(upstream.calls), one.live) == (1, 1)
    gate.open_all()
    assert await said(await client.answer()) == "first"
    for number in range(6):
        assert await said(await client.answer()) == f"number {number}"


@pytest.mark.parametrize("second", [plain("second"), odd("second")], ids=["plain", "odd"])
@pytest.mark.parametrize("first", [plain, odd], ids=["after-plain", "after-odd"])
async def test_a_request_may_be_cut_by_the_end_of_the_one_before(upstream, gateway, first, second):
    """Anywhere: what came before the end, and what comes after it, is one request."""
    one = await gateway()
    client, ours = await both_ends(one)
    for at in range(1, len(second), 23):
        gate = Gate()
        upstream.script = echo(gate, first=len(upstream.calls) + 1)
        ours.data_received(first("first"))
        await gate.waited_at()
        ours.data_received(second[:at])
        gate.open_all()
        assert await said(await client.answer()) == "first"
        for _ in range(at % 5):
            await asyncio.sleep(0)
        ours.data_received(second[at:])
        assert await said(await client.answer()) == "second"


async def test_a_request_that_drips_in_meanwhile_is_one(upstream, gateway):
    gate = Gate()
    upstream.script = echo(gate)
    client = await (await gateway()).connect()
    await client.send(plain("first", stream=True))
    await gate.waited_at()
    await client.drip(plain("second"), 3)
    gate.open_all()
    assert await said(await client.answer()) == "first"
    assert await said(await client.answer()) == "second"


#: The beginning of a request whose last field is all that follows, up to the end of a line.
BEGUN = b"POST /nowhere HTTP/1.1\r\nX-A: "
ODD = odd().removesuffix(BODY)
#: A body in which the end of a head seems to come where all that follows the real one is as long as is asked for.
LIKE_AN_END = b" " * (len(BEGUN) - 4) + b"\r\n\r\n" + BODY
CUT = ODD.replace(b": %d" % len(BODY), b": %d" % len(LIKE_AN_END))
#: A body full of what ends heads.
BLANKS = odd().replace(b"Content-Length: ", b"Content-Length: 1") + b"\r\n\r\n" * 25


@pytest.mark.parametrize(
    ("before", "answers"),
    [
        pytest.param([BEGUN], 0, id="alone"),
        pytest.param([BEGUN[:9], BEGUN[9:]], 0, id="in-pieces"),
        pytest.param([HEALTH + BEGUN], 1, id="with-a-probe"),
        pytest.param([HEALTH, BEGUN], 1, id="after-a-probe"),
        pytest.param([plain(), BEGUN], 1, id="after-a-plain-one"),
        pytest.param([plain() + BEGUN], 1, id="with-a-plain-one"),
        pytest.param([odd(), BEGUN], 1, id="after-an-odd-one"),
        pytest.param([odd() + BEGUN], 1, id="with-an-odd-one"),
        pytest.param([odd()[:50], odd()[50:] + BEGUN], 1, id="with-the-end-of-a-head"),
        pytest.param([odd()[:-9], odd()[-9:] + BEGUN], 1, id="with-the-end-of-a-body"),
        pytest.param([BLANKS[:-40], BLANKS[-40:] + BEGUN], 1, id="with-the-end-of-a-body-of-blank-lines"),
        pytest.param([chunked() + BEGUN], 1, id="with-chunks"),
        pytest.param([chunked(), b"\r\n", BEGUN], 1, id="after-chunks-and-a-blank-line"),
        pytest.param([b"\r\n\r\n" + odd(), BEGUN], 1, id="after-blank-lines"),
        pytest.param([CUT[:-1], CUT[-1:] + LIKE_AN_END + BEGUN], 1, id="with-a-body-that-is-like-the-end-of-its-head"),
        pytest.param([HEALTH * 3 + BEGUN], 3, id="with-three-probes"),
        pytest.param([HEALTH * 3 + odd() + BEGUN], 4, id="with-three-probes-and-an-odd-one"),
        pytest.param([HEALTH * 70 + BEGUN], 70, id="with-more-probes-than-are-parsed-at-once"),
    ],
)
@pytest.mark.parametrize("pause", [0, 0.01], ids=["at-once", "in-turn"])
async def test_a_field_is_no_request_whatever_it_says(upstream, gateway, before, answers, pause):
    """What follows the beginning of a head belongs to it, also where it looks like a plain request."""
    one = await gateway()
    client, ours = await both_ends(one)
    for piece in [*before, plain("never")]:
        ours.data_received(piece)
        await asyncio.sleep(pause)
    for _ in range(answers):
        assert await said(await client.answer()) in ("Hello!", "health")
    assert await said(await client.answer()) == "404"
    assert not any(b"never" in call.body for call in upstream.calls)


async def test_nor_is_what_follows_a_body_whose_head_was_not_parsed_at_once(upstream, gateway):
    one = await gateway()
    client, ours = await both_ends(one)
    ours.data_received(HEALTH * 40 + ODD)
    for _ in range(40):
        assert await said(await client.answer()) == "health"
    ours.data_received(BODY + b"POS")
    assert await said(await client.answer()) == "Hello!"
    await until(lambda: ours._waiter is not None, "aiohttp's leisure")
    ours.data_received(plain("never"))
    assert await said(await client.answer()) == "400"
    assert len(upstream.calls) == 1


@pytest.mark.parametrize("seed", range(40))
async def test_where_the_wire_is_cut_makes_no_difference(upstream, gateway, seed):
    """Any requests in any pieces at any time: the same answers in the same order."""
    dice = random.Random(seed)
    upstream.script = echo()
    one = await gateway()
    client, ours = await both_ends(one)
    asked: list[tuple[bytes, str]] = []
    for number in range(12):
        kind = dice.choice([*MIXED, plain, None])
        asked.append((kind(f"number {number}"), f"number {number}") if kind else (HEALTH, "health"))
    wire, ends, at = b"".join(request for request, _ in asked), set(), 0
    for request, _ in asked:
        at += len(request)
        if dice.random() < 0.6:  # most requests come whole
            ends.add(at)
    ends |= {dice.randrange(len(wire)) for _ in range(dice.choice([0, 2, 8]))} | {len(wire)}
    for begin, end in zip([0, *sorted(ends)], sorted(ends), strict=False):
        ours.data_received(wire[begin:end])
        for _ in range(dice.choice([0, 0, 1, 2, 5, 40])):
            await asyncio.sleep(0)
    assert [await said(await client.answer()) for _ in asked] == [word for _, word in asked]


# Clients that leave...


async def half_answered(call: Call) -> None:
    """A whole answer that stops in its midst."""
    await call.head(200, {"Content-Type": "application/json"})
    await call.send(b'{"choices":[')
    await call.connection.gone.wait()


@pytest.mark.parametrize("leave", ["half_close", "close", "abort"], ids=["fin", "closed", "rst"])
@pytest.mark.parametrize(
    ("streamed", "script", "frames"),
    [
        pytest.param(True, silent(), 0, id="before-the-head"),
        pytest.param(True, held([chunk("a")]), 1, id="between-frames"),
        pytest.param(False, silent(), 0, id="before-a-whole-answer"),
        pytest.param(False, half_answered, 0, id="inside-a-whole-answer"),
    ],
)
@pytest.mark.parametrize("more", [b"", plain("second"), plain("second")[:50]], ids=["", "and-one-more", "and-a-half"])
async def test_a_client_that_leaves_takes_its_request_along(
    upstream, gateway, monkeypatch, capfd, leave, streamed, script, frames, more
):
    taken = watch(monkeypatch)
    upstream.script = script
    one = await gateway(**QUIET, keys=[{"name": "laptop", "streams": 1}])
    client, ours = await both_ends(one)
    await client.send(plain("first", stream=streamed))
    call = await upstream.arrived()
    if frames:
        assert (await (await client.answer()).event()).content == "a"
    if more:
        ours.data_received(more)
    getattr(client, leave)()
    await call.gone()
    await one.idle()
    upstream.script = ordinary()
    assert (await one.chat("third")).status == 200  # its place is free
    assert (taken, [json.loads(call.body)["messages"][0]["content"] for call in upstream.calls]) == (
        ["lane", "lane"],
        ["first", "third"],
    )
    assert (await settled(one, outcome="client_gone"), await settled(one)) == (1, 2)
    await one.stop()
    assert [(line["outcome"], line["status"]) for line in log_lines(capfd.readouterr().err)] == [
        ("client_gone", 499),
        ("ok", 200),
    ]


async def test_a_client_that_left_at_once_is_no_fault(upstream, gateway):
    """Whether anything was asked for it depends on who was faster; nothing may be left of it either way."""
    one = await gateway(**QUIET)
    for number in range(30):
        client = await one.connect()
        await client.send(plain(stream=number % 2 == 0))
        client.abort() if number % 3 else client.close()
    await one.idle()
    assert open_streams(one) == 0
    assert one.server.gateway.limits.live == 0


async def test_a_client_may_leave_what_it_was_told(upstream, gateway, capfd):
    """The answer was whole; that most of it has not left yet is nobody's fault."""

    async def script(call: Call) -> None:
        await call.reply(completion("x" * 8_000_000))

    upstream.script = script
    one = await gateway(**QUIET)
    client = await one.connect(receive_buffer=4096)
    await client.send(plain())
    assert (await client.answer()).status == 200
    client.abort()
    assert await settled(one, outcome="ok") == 1
    await one.stop()
    assert [line["outcome"] for line in log_lines(capfd.readouterr().err)] == ["ok"]


# Clocks...


async def test_an_idle_connection_is_closed_but_none_in_use(upstream, gateway, monkeypatch):
    looks = asyncio.Semaphore(0)
    look = Ours._process_keepalive

    def looked(self: Ours) -> None:
        look(self)
        looks.release()

    monkeypatch.setattr(Ours, "_process_keepalive", looked)
    taken, gate = watch(monkeypatch), Gate()
    upstream.script = echo(gate)
    one = await gateway(timeouts={"keepalive_idle": 0.5})
    client, ours = await both_ends(one)
    await client.send(plain("first", stream=True))
    await gate.waited_at()
    await within(looks.acquire(), "a look at whether the connection is idle")
    gate.open_all()
    assert await said(await client.answer()) == "first"
    closing = ours._next_keepalive_close_time
    await client.send(plain("second"))
    assert await said(await client.answer()) == "second"
    await until(lambda: ours._next_keepalive_close_time > closing, "a clock that was wound up again")
    assert taken == ["lane", "lane"]
    assert await client.closed() == "cut"


@pytest.mark.parametrize("together", [False, True], ids=["alone", "with-another"])
async def test_a_connection_need_not_be_kept_at_all(upstream, gateway, monkeypatch, together):
    taken, gate = watch(monkeypatch), Gate()
    upstream.script = echo(gate)
    one = await gateway(timeouts={"keepalive_idle": 0})
    client, ours = await both_ends(one)
    await client.send(plain("first", stream=True))
    await gate.waited_at()
    if together:
        ours.data_received(plain("second"))
    gate.open_all()
    assert await said(await client.answer()) == "first"
    if together:
        assert await said(await client.answer()) == "second"
    assert await client.closed() == "cut"
    assert {*taken} == {"lane"}


@pytest.mark.parametrize("during", [False, True], ids=["after-an-answer", "during-one"])
async def test_a_head_that_dawdles_has_its_clock_once_it_is_its_turn(upstream, gateway, during):
    gate = Gate()
    upstream.script = echo(gate)
    one = await gateway(timeouts={"client": 0.05})
    client, ours = await both_ends(one)
    await client.send(plain("first", stream=True))
    await gate.waited_at()
    if during:
        ours.data_received(plain("second")[:30])
        await asyncio.sleep(0.1)
        sweep(one)  # as every second
    gate.open_all()
    assert await said(await client.answer()) == "first"
    if not during:
        await asyncio.sleep(0.1)
        sweep(one)  # idle is not dawdling
        await client.send(plain("second")[:30])
    await until(lambda: sweep(one) or not ours.connected, "the end of patience")
    assert await client.closed() in ("cut", "reset")
    assert len(upstream.calls) == 1


def sweep(gateway: Gateway) -> None:
    """Look for late clients, as the server does every second."""
    assert gateway.server._runner.server is not None
    gateway.server._runner.server._close_late()


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_client_that_stops_reading_is_cut(upstream, gateway, monkeypatch, capfd, streamed):
    async def large(call: Call) -> None:
        await call.reply(completion("x" * 8_000_000))

    taken = watch(monkeypatch)
    upstream.script = flood(chunk("x" * 5000), 100_000) if streamed else large
    one = await gateway(timeouts={**NEVER, "client": 0.1})
    connection, ours = await both_ends(one)
    connection.sock.setsockopt(*RECEIVE_BUFFER)
    await connection.send(plain(stream=streamed))
    answer = await connection.answer()
    await until(lambda: sweep(one) or not ours.connected, "the end of patience")
    await answer.rest()
    assert answer.outcome in ("cut", "reset")
    assert taken == ["lane"]
    await one.idle()
    await one.stop()
    (line,) = log_lines(capfd.readouterr().err)
    assert line["outcome"] == ("client_stalled" if streamed else "ok")


# How much may wait...


async def test_what_may_wait_is_bounded_and_nothing_of_it_is_lost(upstream, gateway):
    gate = Gate()
    upstream.script = echo(gate)
    one = await gateway(limits={"max_body_bytes": 2**20})
    client, ours = await both_ends(one)
    await client.send(plain("first", stream=True))
    await gate.waited_at()
    requests = [plain(f"{number} " + "x" * 100_000) for number in range(60)]
    sending = asyncio.create_task(client.send(b"".join(requests)), name="fake-upstream")
    await until(lambda: ours.transport is not None and not ours.transport.is_reading(), "a stop")
    for _ in range(20):
        await asyncio.sleep(0.002)
    assert len(ours._later) < 600_000
    assert not sending.done()
    gate.open_all()
    assert await said(await client.answer()) == "first"
    for number in range(60):
        assert (await said(await client.answer())).startswith(f"{number} ")
    await sending


async def test_reading_goes_on_where_the_next_request_is_plain_too(upstream, gateway, monkeypatch):
    monkeypatch.setattr("proxy.connection._MOST_LATER", 1000)
    taken, gate = watch(monkeypatch), Gate()
    upstream.script = echo(gate)
    client, ours = await both_ends(await gateway())
    await client.send(plain("first", stream=True))
    await gate.waited_at()
    ours.data_received(plain("x" * 2000))
    assert not ours.transport.is_reading()
    gate.open_all()
    assert await said(await client.answer()) == "first"
    assert await said(await client.answer()) == "x" * 2000
    await client.send(plain("third"))
    assert await said(await client.answer()) == "third"
    assert taken == ["lane"] * 3


# Ends...


async def test_streams_may_finish_and_late_requests_are_told(upstream, gateway, monkeypatch):
    taken, gate = watch(monkeypatch), Gate()
    upstream.script = echo(gate, first=2)
    one = await gateway()
    running, ours = await both_ends(one)
    await running.send(plain("first", stream=True))
    waiting = await one.connect()
    await waiting.send(plain("second"))
    idle = await one.connect()
    await gate.waited_at(2)
    upstream.script = ordinary()
    await idle.send(plain("third"))
    assert await said(await idle.answer()) == "Hello!"
    stopping = asyncio.create_task(one.server.stop(60), name="fake-upstream")
    await asyncio.sleep(0)
    ours.data_received(plain("late"))
    await idle.send(plain("late"))
    await assert_late(await idle.answer())
    assert not stopping.done()
    gate.open_all()
    assert await said(await running.answer()) == "first"
    assert await said(await waiting.answer()) == "second"
    await assert_late(await running.answer())
    assert await within(stopping, "the end") == 0
    for client in (running, waiting, idle):
        assert await client.closed() == "cut"
    assert taken == ["lane", "lane", "lane", "application", "application"]


async def assert_late(answer: Answer) -> None:
    assert (answer.status, answer.header("connection")) == (503, "close")
    assert (await answer.json())["error"]["code"] == "overloaded"


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("drain", [0, 0.1])
async def test_stragglers_are_told(upstream, gateway, monkeypatch, streamed, drain):
    taken = watch(monkeypatch)
    upstream.script = held([chunk("a")]) if streamed else silent()
    one = await gateway(**QUIET)
    client = await one.connect()
    await client.send(plain(stream=streamed))
    await upstream.arrived()
    if streamed:
        answer = await client.answer()
        assert (await answer.event()).content == "a"
    assert await within(one.server.stop(drain), "the end") == 1
    if streamed:
        heard = await OPENAI.heard(answer)
        assert (heard.fault.kind, heard.whole) == ("overloaded", True)
    else:
        answer = await client.answer()
        assert answer.status == 503
        assert (await answer.json())["error"]["code"] == "overloaded"
    assert await client.closed() == "cut"
    assert taken == ["lane"]


@pytest.mark.parametrize(("drain", "told"), [(0, "503"), (60, "Hello!")])
async def test_a_request_that_came_just_before_the_end_is_served_or_told(upstream, gateway, drain, told):
    one = await gateway()
    client, ours = await both_ends(one)
    ours.data_received(plain("first"))
    await one.stop(drain)
    assert await said(await client.answer()) == told
    assert await client.closed() == "cut"


async def test_a_slow_client_gets_the_rest_of_its_answer_at_the_end(upstream, gateway):
    async def script(call: Call) -> None:
        await call.reply(completion("x" * 3_000_000))

    upstream.script = script
    one = await gateway()
    client = await one.connect()
    client.sock.setsockopt(*RECEIVE_BUFFER)
    await client.send(plain())
    answer = await client.answer()
    stopping = asyncio.create_task(one.server.stop(5), name="fake-upstream")
    assert len(await said(answer)) == 3_000_000
    await within(stopping, "the end")
    assert await client.closed() == "cut"


async def test_settings_change_between_two_requests(upstream, gateway, monkeypatch):
    taken = watch(monkeypatch)
    one = await gateway()
    client = await one.connect()
    await client.send(plain())
    assert await said(await client.answer()) == "Hello!"
    one.swap(models=[{"id": "n", "provider": "up"}, {"id": "m", "provider": "up", "upstream": "theirs"}])
    await client.send(plain(model="n"))
    assert await said(await client.answer()) == "Hello!"
    await client.send(plain())
    assert await said(await client.answer()) == "Hello!"
    one.swap(keys=[{"name": "laptop", "key": "sk-newer"}])
    await client.send(plain())
    assert await said(await client.answer()) == "401"
    assert [call.asked["model"] for call in upstream.calls] == ["m", "n", "theirs"]
    assert taken == ["lane", "lane", "lane", "application"]


async def test_a_request_keeps_what_it_began_with(upstream, gateway):
    """From the moment in which it came, though nothing of it has been done yet."""
    one = await gateway()
    client, ours = await both_ends(one)
    ours.data_received(plain("first"))
    one.swap(keys=[{"name": "laptop", "key": "sk-newer"}], models=[])
    assert await said(await client.answer()) == "Hello!"


# Mistakes of ours...


class Mistake(Exception):
    """Not one that anybody expects."""


def mistaken(*_: object, **__: object) -> None:
    raise Mistake("with a secret in it")


@pytest.mark.parametrize("best", WAYS)
async def test_a_mistake_before_the_answer_is_told_as_one(upstream, gateway, monkeypatch, caplog, best):
    taken = watch(monkeypatch, best)
    one = await gateway()
    client = await one.connect()
    with monkeypatch.context() as patch:
        patch.setattr("proxy.handlers.Attempt.begin", mistaken)
        await client.send(plain(headers={"X-Request-ID": "abc-1"}))
        answer = await client.answer()
        assert (answer.status, answer.header("x-request-id")) == (500, "abc-1")
        assert (await answer.json())["error"]["message"] == "internal error; request id abc-1"
    await client.send(plain())
    assert await said(await client.answer()) == "Hello!"
    assert [(record.getMessage(), record.exc_info is not None) for record in caplog.records] == [
        ("request abc-1 failed", True)
    ]
    assert taken == [best, best]


@pytest.mark.parametrize("best", WAYS)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_after_its_head_an_answer_is_not_followed_by_another(
    upstream, gateway, monkeypatch, caplog, best, streamed
):
    """Who asked for something else on that connection would take it for the answer to that."""
    taken = watch(monkeypatch, best)
    one = await gateway()
    client = await one.connect()
    with monkeypatch.context() as patch:
        patch.setattr("proxy.attempt.Attempt._settle", mistaken)
        patch.setattr("proxy.relay.Relay.close", lambda _: None)
        await client.send(plain(headers={"X-Request-ID": "abc-1"}, stream=streamed))
        await client.closed()
    assert client.buffer.count(b"HTTP/1.1") <= 1
    assert b" 500 " not in client.buffer
    await one.idle()
    assert [record.getMessage() for record in caplog.records] == ["request abc-1 failed"]
    assert await settled(one, status="500", outcome="failed") == 1
    assert taken == [best]
    assert await said(await one.chat()) == "Hello!"


async def test_a_mistake_in_telling_a_fault_ends_the_connection(upstream, gateway, monkeypatch, caplog):
    taken = watch(monkeypatch)
    one = await gateway()
    client = await one.connect()
    with monkeypatch.context() as patch:
        patch.setattr("proxy.answers.refusal", mistaken)
        await client.send(plain(model="none"))
        assert await client.closed() == "cut"
    assert bytes(client.buffer) == b""
    assert [record.exc_info is not None for record in caplog.records] == [True]
    assert (taken, one.live) == (["lane"], 0)


async def test_a_mistake_inside_a_stream_is_told_there(upstream, gateway, monkeypatch, caplog):
    gate = Gate()
    upstream.script = echo(gate)
    one = await gateway()
    client = await one.connect()
    await client.send(plain("first", stream=True))
    answer = await client.answer()
    assert (await answer.event()).content == ""
    assert (await answer.event()).content == "first"
    with monkeypatch.context() as patch:
        patch.setattr("proxy.pipes.Passthrough.feed", mistaken)
        gate.open_all()
        heard = await OPENAI.heard(answer)
    assert (heard.fault.kind, heard.whole) == ("internal_error", True)
    assert "secret" not in heard.fault.message
    upstream.script = ordinary()
    await client.send(plain("second"))
    assert await said(await client.answer()) == "Hello!"
    assert len(caplog.records) == 1
