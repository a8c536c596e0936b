"""Whatever an exchange ends with, nothing of it stays behind: no place, no clock, no body, no key."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import types
from collections import Counter
from datetime import UTC, date, datetime
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from proxy.attempt import Attempt
from proxy.connection import Server
from proxy.context import Exchange
from proxy.express import Visit
from proxy.gateway import Gateway as Heart
from proxy.gateway import Plan
from proxy.plain import Plain, read
from proxy.relay import Relay

from . import KEY, authorized, chat_body
from .speakers import OPENAI, counted, open_streams, settled
from .test_plain_requests import (
    CHAT,
    NEVER,
    QUIET,
    RECEIVE_BUFFER,
    both_ends,
    echo,
    log_lines,
    odd,
    plain,
    said,
    until,
)
from .upstream import Call, Gate, chunk, compact, completion, conversation, flood, ordinary, sse, usage
from .ways import WAYS, watch
from .wire import Cut, request_bytes, within

if TYPE_CHECKING:
    from collections.abc import Iterator

    from . import Gateway
    from .upstream import Script
    from .wire import Answer, Connection

#: What an exchange is made of while it lasts.
PARTS = (Attempt, Visit, Relay, Exchange, Plain)
DRAIN = {"timeouts": NEVER, "stream": {"keepalive": 0, "on_disconnect": "drain"}}

both = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


def left_behind(gateway: Gateway) -> dict[str, float]:
    """What the gateway still counts, by its name; empty where all is settled."""
    heart = gateway.server.gateway
    counts = {
        "exchanges": heart.live,
        "relays": len(heart.relays),
        "clocks": len(heart.wheel._members),
        "places": heart.limits.live,
        "open streams": open_streams(gateway),
    }
    return {name: count for name, count in counts.items() if count}


def parts() -> Counter[str]:
    """How many of each of an exchange's parts there are, cycles included where nobody has collected them."""
    return Counter(type(thing).__name__ for thing in gc.get_objects() if type(thing) in PARTS)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """What is kept by nothing but a cycle stays, and so shows."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def all_settled(gateway: Gateway) -> None:
    await gateway.idle()
    await until(lambda: not left_behind(gateway), "a gateway without a trace")


# Clients that are slow...


@pytest.mark.parametrize("best", WAYS)
async def test_a_client_that_stalls_is_counted_as_one(upstream, gateway, monkeypatch, capfd, best):
    """It is no fault of the provider's, and no good answer either."""
    taken = watch(monkeypatch, best)
    upstream.script = flood(chunk("x" * 5000), 100_000)
    one = await gateway(timeouts={**NEVER, "client": 0.1})
    client, ours = await both_ends(one)
    client.sock.setsockopt(*RECEIVE_BUFFER)
    await client.send(plain(stream=True))
    answer = await client.answer()
    await until(lambda: not ours.connected, "the end of patience")
    await answer.rest()
    assert answer.outcome in ("cut", "reset")
    await all_settled(one)
    assert counted(one, "ai_proxy_upstream_attempts_total", outcome="cancelled") == 1
    assert counted(one, "ai_proxy_upstream_attempts_total") == 1
    assert await settled(one, status="499", outcome="client_stalled") == await settled(one) == 1
    assert taken == [best]
    await one.stop()
    assert [(line["outcome"], line["status"]) for line in log_lines(capfd.readouterr().err)] == [
        ("client_stalled", 499)
    ]


async def test_a_slow_client_keeps_nothing_but_what_it_has_not_taken(upstream, gateway):
    """Neither what it has asked nor what it was answered; its next request waits until it has read."""

    async def large(call: Call) -> None:
        await call.reply(completion("x" * 8_000_000))

    upstream.script = large
    one = await gateway(**QUIET, limits={"max_body_bytes": 2**25})
    client, ours = await both_ends(one)
    client.sock.setsockopt(*RECEIVE_BUFFER)
    gc.collect()
    before = parts()
    ours.data_received(plain("y" * 5_000_000))
    answer = await client.answer()
    await one.idle()
    assert ours._answer is not None
    gc.collect()
    assert parts() - before == Counter()
    assert left_behind(one) == {}
    upstream.script = echo()
    ours.data_received(plain("second"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert (len(upstream.calls), one.live) == (1, 0)
    assert len(await said(answer)) == 8_000_000
    assert await said(await client.answer()) == "second"
    assert ours._answer is None


# Cycles...


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/responses", "/api/chat"])
@both
async def test_an_exchange_is_no_cycle(upstream, gateway, monkeypatch, path, streamed):
    """Where it were, its bodies would stay until a collection, and each of those stops all streams."""
    taken = watch(monkeypatch)
    fields = {"max_tokens": 5, "stream": streamed}
    body = {"model": "m", "input": "Hi", "stream": streamed} if path == "/v1/responses" else chat_body(**fields)
    asking = request_bytes("POST", path, headers=authorized(KEY), json=body)
    one = await gateway()
    client = await one.connect()

    async def ask() -> None:
        await client.send(asking)
        answer = await client.answer()
        assert answer.status == 200
        await answer.body()

    await ask()  # what is made once, and kept
    await one.idle()
    with uncollected():
        before = parts()
        for _ in range(50):
            await ask()
        await one.idle()
        assert parts() - before == Counter()
    assert taken == ["lane"] * 51


# Clients that leave an answer to be counted...


def drained(gate: Gate) -> Script:
    """Waits at the gate, a stream after its first word."""

    async def script(call: Call) -> None:
        if call.asked.get("stream"):
            first, *others = conversation("a", "b", usage=usage(5, 7))
            await call.frame(first)
            await gate.passed()
            for frame in others:
                await call.frame(frame)
            await call.done()
        else:
            await gate.passed()
            await call.reply(completion("a", usage=usage(5, 7)))

    return script


async def waits_for_nobody(gateway: Gateway, gate: Gate, request: bytes) -> asyncio.Task[None]:
    """Ask, and leave while the answer is at its gate; tells aiohttp's task once the gateway knows."""
    client, ours = await both_ends(gateway)
    await client.send(request)
    await gate.waited_at()
    task = ours._task_handler
    assert task is not None
    client.abort()
    await until(lambda: not ours.connected, "the gateway's knowledge")
    assert gateway.live == 1
    return task


@pytest.mark.parametrize("kind", [plain, odd])
@both
async def test_what_nobody_waits_for_is_counted_and_let_go(upstream, gateway, caplog, kind, streamed):
    gate = Gate()
    upstream.script = drained(gate)
    one = await gateway(**DRAIN)
    gc.collect()
    before = parts()
    task = await waits_for_nobody(one, gate, kind(stream=streamed))
    gate.open_all()
    await all_settled(one)
    await within(asyncio.wait({task}), "aiohttp's end")
    assert (
        counted(one, "ai_proxy_tokens_total", direction="input", source="upstream"),
        counted(one, "ai_proxy_tokens_total", direction="output", source="upstream"),
    ) == (5, 7)
    assert await settled(one, status="499", outcome="client_gone") == await settled(one) == 1
    del task
    gc.collect()
    assert parts() - before == Counter()
    assert caplog.records == []


@pytest.mark.parametrize("kind", [plain, odd])
@both
async def test_the_end_does_not_wait_for_it(upstream, gateway, capfd, kind, streamed):
    gate = Gate()
    upstream.script = drained(gate)
    one = await gateway(**DRAIN)
    await waits_for_nobody(one, gate, kind(stream=streamed))
    await one.stop()
    assert left_behind(one) == {}
    assert [(line["outcome"], line["status"]) for line in log_lines(capfd.readouterr().err)] == [("client_gone", 499)]
    await upstream.calls[0].gone()
    gate.open_all()


@pytest.mark.parametrize("kind", [plain, odd])
@both
async def test_a_mistake_in_counting_it_is_told_once(upstream, gateway, monkeypatch, caplog, kind, streamed):
    gate = Gate()

    async def script(call: Call) -> None:
        await call.head(200, {"Content-Type": "application/json"})  # also where a stream was asked for
        await gate.passed()
        await call.send(compact(completion("a")).encode())
        await call.done()

    upstream.script = script
    one = await gateway(**DRAIN)
    await waits_for_nobody(one, gate, kind(stream=streamed))
    monkeypatch.setattr("proxy.bridges.OpenAIBridge.whole", mistaken)
    gate.open_all()
    await all_settled(one)
    assert await settled(one, outcome="client_gone") == 1
    (complaint,) = caplog.records
    assert "cannot be counted" in complaint.getMessage()
    assert complaint.exc_info is not None
    assert complaint.exc_info[0] is Mistake


@both
async def test_a_handler_may_be_cancelled_while_it_waits_for_the_count(upstream, gateway, caplog, streamed):
    """As aiohttp does at its end: whoever comes to tell the handler then finds nobody."""
    gate = Gate()
    upstream.script = drained(gate)
    one = await gateway(**DRAIN)
    task = await waits_for_nobody(one, gate, odd(stream=streamed))
    task.cancel()
    await until(lambda: one.live == 0, "the handler's end")
    gate.open_all()
    await all_settled(one)
    await upstream.calls[0].ended()
    assert caplog.records == []
    assert await settled(one, outcome="client_gone") == await settled(one) == 1
    assert one.complaints == []


# Mistakes of ours...


class Mistake(Exception):
    """Not one that anybody expects."""


def mistaken(*_: object, **__: object) -> None:
    raise Mistake("with a secret in it")


#: How answers come: all at once, or the rest after some of it was taken; as they were asked for or not.
WHOLE = ("whole", "whole-in-pieces")
EVENTS = ("streamed", "streamed-in-pieces")
STREAMED = (*EVENTS, "json-for-a-stream")
OVER = ("streamed", "json-for-a-stream")  # when the client is first told anything
COLLECTED = ("whole-in-pieces", "json-for-a-stream")
ALL = (*WHOLE, *STREAMED)


def answering(comes: str, gate: Gate) -> Script:
    """A provider whose answers come so."""
    frames = [frame if isinstance(frame, bytes) else sse(frame) for frame in conversation("a", "b")]

    async def script(call: Call) -> None:
        if comes == "whole":
            return await call.reply(completion("a"))
        body = b"".join(frames) if comes.startswith("streamed") else compact(completion("a")).encode()
        kind = "text/event-stream" if comes.startswith("streamed") else "application/json"
        first = len(frames[0]) if comes.endswith("in-pieces") else len(body)
        wire = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (kind.encode(), len(body))
        call.finished = True
        await call.raw(wire + body[:first])
        if first < len(body):
            await gate.passed()
            await call.raw(body[first:])
        return None

    return script


#: Where a mistake may be, and on the way of which answers that lies; "fresh": only before a connection is kept.
SITES = [
    # Before anybody is asked
    ("proxy.express.admit", ALL, None),
    ("proxy.express.at_hand", ALL, None),
    ("proxy.express.begin", ALL, None),
    ("proxy.bridges.OpenAIBridge.body", ALL, None),
    ("proxy.bridges.OpenAIBridge.pipe", STREAMED, None),
    ("proxy.attempt.Attempt._new_relay", ALL, None),
    # In asking
    ("proxy.upstream.Upstream.reuse", ALL, None),
    ("proxy.attempt.Attempt._dial", ALL, "fresh"),
    ("proxy.upstream.Upstream.send", ALL, "fresh"),
    ("proxy.upstream.connection.Connection.send", ALL, None),
    ("proxy.relay.Relay.sent", ALL, None),
    # In hearing
    ("proxy.relay.Relay._over", ALL, None),
    ("proxy.relay.Relay._collect", COLLECTED, None),
    ("proxy.relay.Relay._end_whole", COLLECTED, None),
    ("proxy.relay.Relay._sniff", EVENTS, None),
    ("proxy.relay.Relay._stream", EVENTS, None),
    ("proxy.pipes.Passthrough.feed", EVENTS, None),
    ("proxy.relay.Relay._emit", STREAMED, None),
    ("proxy.upstream.connection.Call.leave", EVENTS, None),
    # In answering
    ("proxy.attempt.Attempt._whole", WHOLE, None),
    ("proxy.attempt.passed_on", ALL, None),
    ("proxy.bridges.OpenAIBridge.whole", WHOLE, None),
    ("proxy.answers.head", ALL, None),
    ("proxy.attempt.Attempt._stream", STREAMED, None),
    ("proxy.relay.Relay.take_held", STREAMED, None),
    ("proxy.outlet.Outlet.open", STREAMED, None),
    ("proxy.relay.Relay.flow", OVER, None),
    ("proxy.outlet.Outlet.on_writable", ("streamed-in-pieces",), None),
    ("proxy.outlet.Outlet.write", ("streamed-in-pieces",), None),
    ("proxy.outlet.Outlet.finish", STREAMED, None),
    ("proxy.attempt.Attempt._streamed", OVER, None),
]


@pytest.mark.parametrize(
    ("site", "comes", "connection"),
    [
        pytest.param(site, comes, connection, id=f"{site.removeprefix('proxy.')}-{comes}-{connection}")
        for site, many, only in SITES
        for comes in many
        for connection in ("fresh", "kept")
        if only in (None, connection)
    ],
)
async def test_a_mistake_anywhere_ends_its_own_exchange_only(
    upstream, gateway, monkeypatch, caplog, capfd, site, comes, connection
):
    """Its client is told or cut, once; all is settled; those who come after are served."""
    one = await gateway(**QUIET, keys=[{"name": "laptop", "streams": 3}])
    client = await one.connect()
    if connection == "kept":
        await client.send(plain())
        assert await said(await client.answer()) == "Hello!"
    gate, made, right = Gate(), [], resolve_name(site)
    upstream.script = answering(comes, gate)

    def once(*args: Any, **kwargs: Any) -> Any:
        if not made:
            made.append(site)
            mistaken()
        return right(*args, **kwargs)

    def amid() -> bool:
        return bool(gate.reached) and any(relay._body_began for relay in one.server.gateway.relays)

    monkeypatch.setattr(site, once)
    await client.send(plain(headers={"X-Request-ID": "mistaken"}, stream=comes not in WHOLE))
    await until(lambda: bool(made) or amid(), "the mistake, or the first piece")
    gate.open_all()
    await told_or_cut(client)
    await all_settled(one)
    assert made == [site]
    assert any(record.exc_info and record.exc_info[0] is Mistake for record in caplog.records)
    upstream.script = ordinary()
    await nothing_more(client)
    assert await said(await one.chat(headers={"X-Request-ID": "after"})) == "Hello!"
    await one.stop()
    ids = Counter(line["request_id"] for line in log_lines(capfd.readouterr().err))
    assert (ids["mistaken"], ids["after"]) == (1, 1)


async def told_or_cut(client: Connection) -> None:
    """Read what a client is told of a mistake, which may have come when all else had been said."""
    try:
        answer = await client.answer()
    except Cut:
        return
    if answer.status == 500:
        fault = OPENAI.error(await answer.json())
    else:
        assert answer.status == 200
        heard = await OPENAI.heard(answer)
        assert heard.complete or heard.fault or not heard.whole
        fault = heard.fault
    if fault:
        assert fault.kind == "internal_error"
        assert "secret" not in fault.message


async def nothing_more(client: Connection) -> None:
    """What comes next on a connection, if anything, is the answer to what is asked next."""
    try:
        await client.send(plain(headers={"X-Request-ID": "next"}))
        answer = await client.answer()
    except (Cut, ConnectionError):
        return
    assert (answer.header("x-request-id"), await said(answer)) == ("next", "Hello!")


@pytest.mark.parametrize("kind", [plain, odd])
@both
async def test_a_mistake_in_a_request_that_waited_is_not_the_one_before_its(
    upstream, gateway, monkeypatch, caplog, capfd, kind, streamed
):
    """It begins on the stack of the end before it, which has gone well."""
    gate = Gate()
    upstream.script = echo(gate)
    one = await gateway(**QUIET)
    client, ours = await both_ends(one)
    await client.send(plain("first", stream=streamed))
    await gate.waited_at()
    ours.data_received(kind("second"))
    with monkeypatch.context() as patch:
        patch.setattr("proxy.express.record_of", mistaken)
        gate.open_all()
        assert await said(await client.answer()) == "first"
        await nothing_but_an_end(client)
    await all_settled(one)
    assert len(caplog.records) == 1
    assert await said(await one.chat("third")) == "third"
    await one.stop()
    assert [line["outcome"] for line in log_lines(capfd.readouterr().err)] == ["ok", "ok"]


async def nothing_but_an_end(client: Connection) -> None:
    await client.closed()
    assert b" 200 " not in client.buffer


# Idle connections...


@pytest.mark.parametrize("kind", [plain, odd])
@both
async def test_an_idle_connection_keeps_nothing_of_its_last_exchange(upstream, gateway, kind, streamed):
    gate = Gate()
    upstream.script = echo(gate)
    one = await gateway(**QUIET)
    client, ours = await both_ends(one)
    gc.collect()
    before = parts()
    await client.send(kind("first", stream=streamed))
    await gate.waited_at()
    gate.open_all()
    assert await said(await client.answer()) == "first"
    await all_settled(one)
    await until(lambda: ours._waiter is not None or kind is plain, "aiohttp's leisure")
    gc.collect()
    assert parts() - before == Counter()
    assert ours.writable is None


@pytest.mark.parametrize("best", ["lane", "express"])
async def test_an_idle_connection_keeps_nothing_of_settings_that_were_changed(upstream, gateway, monkeypatch, best):
    taken = watch(monkeypatch, best)
    one = await gateway()
    client, ours = await both_ends(one)
    for streamed in (False, True):
        await client.send(plain(stream=streamed))
        assert await said(await client.answer()) == "Hello!"
    before = one.server.gateway.plan.settings
    one.swap(models=[{"id": "n", "provider": "up"}])
    await until(lambda: ours._waiter is not None or best == "lane", "aiohttp's leisure")
    gc.collect()
    assert ours.connected
    assert [plan for plan in gc.get_objects() if type(plan) is Plan and plan.settings is before] == []
    assert taken == [best] * 2


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
async def test_a_key_that_was_revoked_opens_nothing_on_a_connection_that_it_had_opened(
    upstream, gateway, monkeypatch, header
):
    taken = watch(monkeypatch)
    one = await gateway()
    client, _ = await both_ends(one)
    old, new = (keyed(header, key) for key in (KEY, "sk-newer"))
    for request, status in ((old, 200), (old, 200), (new, 401), (old, 200)):
        await client.send(request)
        assert await status_of(await client.answer()) == status
    one.swap(keys=[{"name": "laptop", "key": "sk-newer"}])
    for request, status in ((old, 401), (new, 200), (old, 401), (new, 200), (new, 200)):
        await client.send(request)
        assert await status_of(await client.answer()) == status
    assert taken == [
        *("lane", "lane", "application", "lane"),
        *("application", "lane", "application", "lane", "lane"),
    ]


def keyed(header: str, key: str) -> bytes:
    """A request with the key in this header."""
    value = f"Bearer {key}" if header == "Authorization" else key
    return request_bytes("POST", CHAT, headers={header: value}, json=chat_body())


async def status_of(answer: Answer) -> int:
    await answer.body()
    return answer.status


async def test_a_key_that_has_expired_meanwhile_is_refused_though_its_head_is_known(upstream, gateway, monkeypatch):
    taken = watch(monkeypatch)
    one = await gateway(keys=[{"name": "laptop", "expires": date(2999, 1, 1)}])
    client, ours = await both_ends(one)

    async def ask() -> int:
        await client.send(plain())
        return await status_of(await client.answer())

    assert [await ask() for _ in range(3)] == [200] * 3
    assert ours._known is not None

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2999, 1, 1, tzinfo=tz or UTC)

    with monkeypatch.context() as patch:
        for module in ("proxy.express", "proxy.middleware.auth"):
            patch.setattr(f"{module}.datetime", Later)
        assert [await ask() for _ in range(2)] == [401] * 2
    assert await ask() == 200
    assert taken == ["lane"] * 3 + ["application"] * 2 + ["lane"]


async def test_each_request_on_a_connection_is_answered_for_its_own_head(upstream, gateway, monkeypatch):
    """Whatever was remembered of the one before."""
    taken = watch(monkeypatch)
    pages = ["https://a.example", "https://b.example"]
    one = await gateway(cors={"origins": pages})
    client = await one.connect()
    told = []
    asked = [("one", pages[0]), ("one", pages[0]), ("two", pages[0]), ("two", pages[1]), ("two", None), (None, None)]
    for id, page in asked:
        headers = {"X-Request-ID": id, "Origin": page}
        await client.send(plain(headers={name: value for name, value in headers.items() if value}))
        answer = await client.answer()
        await answer.body()
        told.append((answer.header("x-request-id"), answer.header("access-control-allow-origin")))
    assert told[:-1] == asked[:-1]
    last, page = told[-1]
    assert last not in ("one", "two")
    assert page is None
    assert taken == ["lane"] * len(asked)


async def test_an_id_that_nobody_gave_is_another_each_time(upstream, gateway):
    one = await gateway()
    client = await one.connect()
    ids = set()
    for _ in range(5):
        await client.send(plain())
        answer = await client.answer()
        await answer.body()
        ids.add(answer.header("x-request-id"))
    assert len(ids) == 5


async def test_each_request_says_itself_whether_it_wants_a_stream(upstream, gateway, monkeypatch):
    """`/chat` looks at `Accept`."""
    taken = watch(monkeypatch)
    one = await gateway()
    client = await one.connect()
    for kind in ("text/event-stream", "application/json", "text/event-stream", "text/event-stream"):
        await client.send(plain(path="/chat", headers={"Accept": kind}))
        answer = await client.answer()
        assert kind in answer.header("content-type")
        await answer.body()
    assert taken == ["lane"] * 4


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key", "API-Key", "X-Goog-API-Key"])
async def test_no_credential_can_be_reached_from_an_idle_connection(upstream, gateway, monkeypatch, header):
    """Whoever gets at the memory of a process should not find the keys of all who ever asked."""
    taken = watch(monkeypatch)
    one = await gateway()
    client, ours = await both_ends(one)
    for _ in range(3):
        await client.send(keyed(header, KEY))
        assert await said(await client.answer()) == "Hello!"
    assert ours._known is not None
    assert list(within_reach(ours, KEY)) == []
    assert taken == ["lane"] * 3


async def test_nor_can_a_cookie(upstream, gateway):
    one = await gateway()
    client, ours = await both_ends(one)
    for name in ("Cookie", "Proxy-Authorization"):
        await client.send(plain(headers={name: "session=of-somebody"}))
        assert await said(await client.answer()) == "Hello!"
        assert ours._known is not None
        assert list(within_reach(ours, "of-somebody")) == []


def test_what_is_within_reach_is_found():
    """Else the tests above would say nothing."""
    told = read(plain(), None, 4096)
    assert len(list(within_reach([{"a": told}], KEY))) == 1


#: What leads to everything else in the process.
_ELSEWHERE = (
    *(type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.CodeType, types.FrameType),
    *(asyncio.AbstractEventLoop, asyncio.BaseTransport, Heart, Server),
)


def within_reach(thing: object, text: str) -> Iterator[str]:
    """Where a text is held by what a thing holds, however far down."""
    raw, seen, todo = text.encode(), set(), [(thing, type(thing).__name__)]
    kept = []  # else an id might be given to another
    while todo:
        thing, place = todo.pop()
        if id(thing) in seen or isinstance(thing, _ELSEWHERE):
            continue
        seen.add(id(thing))
        kept.append(thing)
        if (isinstance(thing, str) and text in thing) or (
            isinstance(thing, bytes | bytearray | memoryview) and raw in bytes(thing)
        ):
            yield place
        inside = gc.get_referents(thing)
        if isinstance(thing, CIMultiDict | CIMultiDictProxy):  # which the collector does not look into
            inside += [*thing.keys(), *thing.values()]
        todo += [(other, f"{place} > {type(other).__name__}") for other in inside]


# Connections to providers...


def dawdling(gate: Gate) -> Script:
    """A stream whose last chunk comes long after its end was told."""

    async def script(call: Call) -> None:
        for frame in conversation(call.asked["messages"][-1]["content"]):
            await call.frame(frame)
        await gate.passed()
        await call.done()

    return script


async def test_a_stream_whose_last_chunk_is_late_keeps_its_connection(upstream, gateway, monkeypatch):
    monkeypatch.setattr("proxy.upstream.connection.LINGER", 3600)
    gate = Gate()
    upstream.script = dawdling(gate)
    one = await gateway(**QUIET)
    client = await one.connect()
    for number in range(5):
        await client.send(plain(f"number {number}", stream=True))
        assert await said(await client.answer()) == f"number {number}"
        assert left_behind(one) == {}
        (connection,) = one.server.gateway.upstream._open
        linger = connection._linger
        assert not linger.cancelled()
        gate.open()
        await until(lambda: connection.idle_since > 0, "the end of the answer")  # noqa: B023  # asked at once
        assert linger.cancelled()  # else it would end a later answer
    assert len(upstream.connections) == 1


async def test_one_whose_last_chunk_never_comes_is_given_up(upstream, gateway, monkeypatch):
    monkeypatch.setattr("proxy.upstream.connection.LINGER", 0)
    gate = Gate()
    upstream.script = dawdling(gate)
    one = await gateway(**QUIET)
    client = await one.connect()
    for number in range(3):
        await client.send(plain(f"number {number}", stream=True))
        assert await said(await client.answer()) == f"number {number}"
        await upstream.calls[-1].gone()
        assert left_behind(one) == {}
    await until(lambda: not one.server.gateway.upstream._open, "no connection")
    assert len(upstream.connections) == 3
    gate.open_all()
