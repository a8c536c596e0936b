"""A client that leaves takes its upstream request along, in every phase; everything is settled once.

No script here says a word after the client has left, and every clock is far away: what closes the
upstream connection is the client's leaving, and nothing else.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from . import authorized, chat_body
from .speakers import OPENAI, SIMPLE, counted, open_streams, settled
from .upstream import (
    DONE,
    Call,
    Gate,
    blackhole,
    chunk,
    completion,
    conversation,
    flood,
    held,
    hung_up,
    in_turn,
    ordinary,
    silent,
    sse,
    usage,
)
from .wire import within

if TYPE_CHECKING:
    from collections.abc import Callable

    from . import Gateway
    from .upstream import Script, Upstream
    from .wire import Connection

NEVER = dict.fromkeys(("connect", "first_byte", "idle", "heartbeat", "total", "after_finish", "client"), 3600)
ONE_AT_ONCE = {"name": "laptop", "streams": 1, "requests_per_minute": 100}


def half_answered() -> Script:
    """A whole answer that stops in its midst."""

    async def script(call: Call) -> None:
        await call.head(200, {"Content-Type": "application/json"})
        await call.send(b'{"choices":[')
        await call.connection.gone.wait()

    return script


#: How a client leaves: FIN alone, FIN and then no socket, RST.
leavings = pytest.mark.parametrize("leave", ["half_close", "close", "abort"], ids=["fin", "closed", "rst"])

PHASES = [
    pytest.param(True, silent(), 0, id="streamed-before-the-head"),
    pytest.param(True, held(), 0, id="streamed-before-the-body"),
    pytest.param(True, held([b": still working\n\n"]), 0, id="streamed-before-the-first-frame"),
    pytest.param(True, held([chunk("a")]), 1, id="streamed-between-frames"),
    pytest.param(True, held([chunk("a"), b'data: {"choices":[']), 1, id="streamed-inside-a-frame"),
    pytest.param(True, held([chunk("a"), chunk(finish="stop")]), 1, id="streamed-before-the-end-mark"),
    pytest.param(False, silent(), 0, id="whole-before-the-head"),
    pytest.param(False, half_answered(), 0, id="whole-inside-the-body"),
]


async def settled_once(gateway: Gateway) -> None:
    """The exchange is over, and was counted once as one whose client has left."""
    await gateway.idle()
    assert await settled(gateway) == await settled(gateway, outcome="client_gone") == 1
    assert counted(gateway, "ai_proxy_upstream_attempts_total") == 1
    assert counted(gateway, "ai_proxy_errors_total") == 0
    assert open_streams(gateway) == 0


async def goes_on(gateway: Gateway, upstream: Upstream) -> None:
    """The slot is free again, and the first request has cost its key one."""
    upstream.script = ordinary()
    answer = await gateway.chat()
    assert answer.status == 200
    assert answer.header("x-ratelimit-remaining-requests") == "98"
    await answer.body()
    assert gateway.server.gateway.limits.live == 0


@pytest.mark.parametrize(
    ("speaker", "leave"),
    [(OPENAI, "half_close"), (OPENAI, "close"), (OPENAI, "abort"), (SIMPLE, "close")],
    ids=["openai-fin", "openai-closed", "openai-rst", "simple-closed"],
)
@pytest.mark.parametrize(("streamed", "script", "frames"), PHASES)
async def test_upstream_is_left_at_once(
    upstream: Upstream, gateway: Callable, speaker, leave, streamed, script, frames
):
    upstream.script = script
    one = await gateway(timeouts=NEVER, stream={"keepalive": 0}, keys=[ONE_AT_ONCE])
    client = await one.connect()
    await client.request("POST", speaker.path, headers=authorized("sk-test-key"), json=chat_body(stream=streamed))
    call = await upstream.arrived()
    if frames:  # the gateway has seen that much, so it is in that phase
        answer = await client.answer()
        for _ in range(frames):
            assert speaker.text(await answer.event()) == "a"
    getattr(client, leave)()
    await call.gone()
    await settled_once(one)
    await goes_on(one, upstream)


@leavings
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
async def test_an_attempt_to_connect_is_given_up(upstream, gateway, leave, streamed):
    async with blackhole() as port:
        one = await gateway(url=f"http://127.0.0.1:{port}", timeouts=NEVER, keys=[ONE_AT_ONCE])
        client = await one.ask_chat(stream=streamed)
        await until(lambda: one.live == 1)
        getattr(client, leave)()
        await settled_once(one)


@pytest.mark.parametrize("leave", ["close", "abort"], ids=["closed", "rst"])
async def test_a_client_may_leave_in_full_flow(upstream, gateway, leave):
    """Between two writes of ours, while upstream sends as fast as it can."""
    upstream.script = flood(chunk("x" * 500), 1_000_000)
    one = await gateway(timeouts=NEVER, keys=[ONE_AT_ONCE])
    answer = await one.chat(stream=True)
    for _ in range(20):
        assert await answer.event()
    getattr(answer.connection, leave)()
    await (await upstream.arrived()).gone()
    await settled_once(one)


async def test_a_client_that_will_say_no_more_has_left(upstream, gateway):
    """A half-closed connection is a closed one to asyncio: what is in its buffer still goes out, no more."""
    upstream.script = flood(chunk("x" * 500), 1_000_000)
    one = await gateway(timeouts=NEVER)
    answer = await one.chat(stream=True)
    answer.connection.half_close()
    await answer.rest()
    assert answer.outcome == "cut"
    await (await upstream.arrived()).gone()
    await settled_once(one)


@pytest.mark.parametrize("leave", ["close", "abort"], ids=["closed", "rst"])
async def test_a_client_may_leave_while_upstream_is_stopped_for_it(upstream, gateway, leave):
    upstream.script = flood(chunk("x" * 50_000), 1_000)
    one = await gateway(timeouts=NEVER, keys=[ONE_AT_ONCE])
    answer = await one.chat(stream=True, connection=await one.connect(receive_buffer=4096))
    call = await upstream.arrived()
    await call.settled(0.1)
    getattr(answer.connection, leave)()
    await call.gone()
    await settled_once(one)


@leavings
async def test_a_client_may_leave_a_retry(upstream, gateway, leave):
    """The first try met a kept connection that had been closed; the second is as well watched."""
    upstream.script = in_turn(ordinary(), hung_up(), silent())
    one = await gateway(timeouts=NEVER)
    await (await one.chat()).body()
    client = await one.ask_chat(stream=True)
    calls = [await upstream.arrived() for _ in range(3)]
    assert [call.reused for call in calls] == [False, True, False]
    getattr(client, leave)()
    await calls[2].gone()
    await one.idle()
    assert (await settled(one), await settled(one, outcome="client_gone")) == (2, 1)


async def test_others_are_not_disturbed(upstream, gateway):
    gates = {name: Gate() for name in ("stays", "leaves")}

    async def script(call: Call) -> None:
        gate = gates[call.asked["messages"][0]["content"]]
        for frame in (chunk("a"), chunk("b"), chunk(finish="stop"), DONE):
            await gate.passed()
            await call.frame(frame)
        await call.done()

    upstream.script = script
    one = await gateway(timeouts=NEVER)
    for gate in gates.values():
        gate.open()
    stays, leaves = [await one.chat(name, stream=True) for name in gates]
    calls = [await upstream.arrived() for _ in range(2)]
    leaves.connection.close()
    await calls[1].gone()
    gates["stays"].open_all()
    assert (await OPENAI.heard(stays)).complete
    assert not calls[0].left
    gates["leaves"].open_all()


# stream.on_disconnect = "drain"


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what nothing tells."""

    async def come() -> None:
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    await within(come(), "a condition")


async def left_unnoticed_by_upstream(gateway: Gateway, client: Connection, call: Call) -> None:
    """Leave, wait until the gateway knows, and see that upstream does not."""
    client.close()
    await until(lambda: not any(one.connected for one in gateway.server._runner.server.connections))
    assert not call.left
    assert gateway.live == 1


def gated(gate: Gate, *frames: object) -> Script:
    """The first frame at once, the others when the gate opens."""

    async def script(call: Call) -> None:
        if call.asked["stream"]:
            await call.frame(frames[0])
            await gate.passed()
            for frame in frames[1:]:
                await call.frame(frame)
            await call.done()
        else:
            await gate.passed()
            await call.reply(completion(usage=usage(5, 7)))

    return script


@pytest.mark.parametrize("speaker", [OPENAI, SIMPLE], ids=["openai", "simple"])
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
async def test_upstream_may_finish_so_that_its_usage_is_known(upstream, gateway, speaker, streamed):
    gate = Gate()
    upstream.script = gated(gate, *conversation("a", "b", usage=usage(5, 7)))
    one = await gateway(timeouts=NEVER, stream={"on_disconnect": "drain"}, keys=[ONE_AT_ONCE])
    client = await one.connect()
    await client.request("POST", speaker.path, headers=authorized("sk-test-key"), json=chat_body(stream=streamed))
    call = await upstream.arrived()
    await gate.waited_at()
    await left_unnoticed_by_upstream(one, client, call)
    gate.open()
    await call.ended()
    assert call.finished
    await settled_once(one)
    assert counted(one, "ai_proxy_tokens_total", direction="input", source="upstream") == 5
    assert counted(one, "ai_proxy_tokens_total", direction="output", source="upstream") == 7
    await goes_on(one, upstream)
    assert upstream.calls[-1].reused  # the answer was read to its end


async def test_an_answer_that_has_not_begun_may_finish_too(upstream, gateway):
    gate = Gate()

    async def script(call: Call) -> None:
        await gate.passed()
        for frame in conversation("a", usage=usage(5, 7)):
            await call.frame(frame)
        await call.done()

    upstream.script = script
    one = await gateway(timeouts=NEVER, stream={"on_disconnect": "drain"})
    client = await one.ask_chat(stream=True)
    call = await upstream.arrived()
    await left_unnoticed_by_upstream(one, client, call)
    gate.open()
    await settled_once(one)
    assert call.finished
    assert counted(one, "ai_proxy_tokens_total", source="upstream") == 12


async def test_upstream_goes_on_where_it_was_stopped_for_a_slow_client(upstream, gateway):
    frames = [sse(chunk("x" * 50_000))] * 400 + conversation(usage=usage(5, 7))

    async def script(call: Call) -> None:
        for frame in frames:
            await call.frame(frame)
        await call.done()

    upstream.script = script
    one = await gateway(timeouts=NEVER, stream={"on_disconnect": "drain"})
    answer = await one.chat(stream=True, connection=await one.connect(receive_buffer=4096))
    call = await upstream.arrived()
    assert await call.settled(0.1) < 400 * 50_000
    answer.connection.close()
    await call.ended()
    await settled_once(one)
    assert counted(one, "ai_proxy_tokens_total", source="upstream") == 12


@pytest.mark.parametrize(
    ("streamed", "script"),
    [
        pytest.param(True, held([chunk("a")]), id="silence"),
        pytest.param(True, held(), id="silence-before-the-answer"),
        pytest.param(False, half_answered(), id="silence-inside-a-whole-answer"),
    ],
)
async def test_a_drained_answer_still_has_its_clocks(upstream, gateway, streamed, script):
    upstream.script = script
    one = await gateway(timeouts={**NEVER, "idle": 0.2, "first_byte": 0.2}, stream={"on_disconnect": "drain"})
    client = await one.ask_chat(stream=streamed)
    call = await upstream.arrived()
    client.close()
    await call.gone()
    await one.idle()
    assert await settled(one, outcome="client_gone") == 1
    assert open_streams(one) == 0


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
async def test_a_drained_answer_may_break(upstream, gateway, streamed, how):
    gate = Gate()

    async def script(call: Call) -> None:
        await gate.passed()
        getattr(call, how)()

    upstream.script = script
    one = await gateway(timeouts=NEVER, stream={"on_disconnect": "drain"})
    client = await one.ask_chat(stream=streamed)
    await left_unnoticed_by_upstream(one, client, await upstream.arrived())
    gate.open()
    await settled_once(one)


async def test_a_drained_request_is_not_asked_again(upstream, gateway):
    """Where the kept connection turns out to be closed there is nobody left to ask for."""
    gate = Gate()

    async def script(call: Call) -> None:
        await gate.passed()
        call.close()

    upstream.script = in_turn(ordinary(), script)
    one = await gateway(timeouts=NEVER, stream={"on_disconnect": "drain"})
    await (await one.chat()).body()
    one._connections[0].close()
    client = await one.ask_chat(stream=True)
    calls = [await upstream.arrived() for _ in range(2)]
    assert calls[1].reused
    await left_unnoticed_by_upstream(one, client, calls[1])
    gate.open()
    await one.idle()
    assert len(upstream.calls) == 2
    assert (await settled(one), await settled(one, outcome="client_gone")) == (2, 1)
