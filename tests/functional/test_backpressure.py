"""A slow client slows upstream down: what it has not read is never more than a few buffers.

Bytes count as accepted when a kernel took them from the fake provider, whose own buffer is kept small here.
"""

from __future__ import annotations

import asyncio
import socket
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from .speakers import OPENAI, SIMPLE, open_streams, settled
from .upstream import DONE, EVENT_STREAM, Call, Gate, chunk, completion, sse, stream
from .wire import contents

if TYPE_CHECKING:
    from collections.abc import Callable

    from .upstream import Script, Upstream

#: An upper bound for everything between two applications on loopback, with room for other kernels.
BOUND = 4 * 2**20


def narrow(call: Call) -> None:
    """Keep the provider's own kernel from taking megabytes."""
    assert call.connection._transport is not None
    sock = call.connection._transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)


def endless(frame: bytes, gate: Gate | None = None, **head: Any) -> Script:
    """The frame again and again; once the gate opens, a good end."""

    async def script(call: Call) -> None:
        narrow(call)
        await call.head(**head)
        while not (gate and gate.reached):
            await call.send(frame)
        await call.send(sse(chunk(finish="stop")) + DONE)
        await call.done()

    return script


@pytest.mark.parametrize(
    ("speaker", "frame"),
    [
        pytest.param(OPENAI, sse(chunk("x" * 400)), id="openai-small-frames"),
        pytest.param(OPENAI, sse(chunk("x" * 100_000)), id="openai-large-frames"),
        pytest.param(SIMPLE, sse(chunk("x" * 10_000)), id="simple"),
    ],
)
async def test_upstream_is_not_read_while_the_client_is_not_reading(
    upstream: Upstream, gateway: Callable, speaker, frame
):
    gate = Gate()
    upstream.script = endless(frame, gate)
    one = await gateway()
    answer = await speaker.ask(one, connection=await one.connect(receive_buffer=4096))
    call = await upstream.arrived()
    assert await call.settled(0.15) < BOUND
    assert open_streams(one) == 1

    gate.reached = 1  # the client reads on: nothing is lost, nothing comes twice
    if speaker is OPENAI:
        body = await answer.body()
        end = sse(chunk(finish="stop")) + DONE
        assert body.endswith(end)
        assert body.removesuffix(end) == frame * (len(body.removesuffix(end)) // len(frame))
    heard = await speaker.heard(answer)
    assert heard.whole
    assert heard.text == "x" * len(heard.text)
    assert speaker is OPENAI or heard.complete
    assert await settled(one, outcome="ok") == 1


@pytest.mark.parametrize(
    "head",
    [{"framing": "close"}, {"encoding": "gzip"}],
    ids=["close-delimited", "gzip"],
)
async def test_however_upstream_frames_its_answer(upstream, gateway, head):
    gate = Gate()
    frame = sse(chunk(Random(1).randbytes(20_000).hex()))  # longer than gzip looks back
    upstream.script = endless(frame, gate, **head)
    one = await gateway()
    answer = await OPENAI.ask(one, connection=await one.connect(receive_buffer=4096))
    assert await (await upstream.arrived()).settled(0.15) < BOUND
    gate.reached = 1
    body = (await answer.body()).removesuffix(sse(chunk(finish="stop")) + DONE)
    assert body == frame * (len(body) // len(frame))


async def test_a_few_bytes_that_stand_for_many_are_not_unfolded_ahead(upstream, gateway):
    """30 MB in one read of upstream: what the client has not read is mostly not even decompressed."""
    frame, times = sse(chunk("x" * 99_900)), 300
    upstream.script = stream([frame * times + sse(chunk(finish="stop")) + DONE], encoding="gzip")
    one = await gateway()
    answer = await OPENAI.ask(one, connection=await one.connect(receive_buffer=4096))
    call = await upstream.arrived()
    await call.ended()
    assert call.sent < 2**20
    for _ in range(3):
        assert await answer.chunk()
        assert sum(c.transport.get_write_buffer_size() for c in one.server._runner.server.connections) < BOUND
    assert open_streams(one) == 1


async def test_a_client_that_stops_and_goes_on_again_and_again_misses_nothing(upstream, gateway):
    count = 1500

    async def script(call: Call) -> None:
        narrow(call)
        for number in range(count):
            await call.frame(chunk(f"{number} " + "x" * 2000))
        await call.frame(chunk(finish="stop"))
        await call.frame(DONE)
        await call.done()

    upstream.script = script
    one = await gateway()
    answer = await OPENAI.ask(one, connection=await one.connect(receive_buffer=4096))
    call = await upstream.arrived()
    frames = []
    for _ in range(2):
        before = await call.settled(0.05)
        frames += [await answer.event() for _ in range(count // 5)]
        assert call.accepted > before  # it was let go on
    frames += await answer.events()
    assert [int(text.split()[0]) for text in contents(frames)] == list(range(count))
    assert frames[-1].done


async def test_a_slow_client_does_not_slow_another(upstream, gateway):
    upstream.script = endless(sse(chunk("x" * 1000)))
    one = await gateway()
    slow = await OPENAI.ask(one, connection=await one.connect(receive_buffer=4096))
    await (await upstream.arrived()).settled(0.1)
    gate = Gate()
    upstream.script = endless(sse(chunk("y" * 1000)), gate)
    fast = await OPENAI.ask(one)
    for _ in range(3000):  # more than the slow one was allowed
        assert await fast.event()
    gate.reached = 1
    assert (await OPENAI.heard(fast)).complete
    assert (await slow.event()).content == "x" * 1000


@pytest.mark.parametrize("over", [False, True], ids=["in-the-stream", "after-its-end"])
async def test_a_client_that_reads_slowly_is_not_one_that_does_not_read(upstream, gateway, over):
    """One frame that takes longer to deliver than `client`; each look finds that the client has taken some."""
    big, gate = sse(chunk("x" * 6_000_000)), Gate()
    if over:
        gate.open_all()

    async def script(call: Call) -> None:
        await call.head(200, EVENT_STREAM)
        for at in range(0, len(big), 60_000):
            await call.send(big[at : at + 60_000])
        await gate.passed()
        await call.frame(chunk(finish="stop"))
        await call.frame(DONE)
        await call.done()

    upstream.script = script
    one = await gateway(timeouts={"client": 0.2})
    answer = await OPENAI.ask(one, connection=await one.connect(receive_buffer=65536))
    loop = asyncio.get_running_loop()
    began = loop.time()
    while loop.time() < began + 0.6:  # three times as long
        assert await answer.connection.more()
        await asyncio.sleep(0.01)
    gate.open()
    body = await answer.body()
    assert body == big + sse(chunk(finish="stop")) + DONE


@pytest.mark.parametrize("speaker", [OPENAI, SIMPLE], ids=["openai", "simple"])
async def test_a_client_that_never_reads_is_cut(upstream, gateway, speaker):
    """Counted as what it was: neither a fault of upstream's nor a client that left."""
    upstream.script = endless(sse(chunk("x" * 1000)))
    one = await gateway(timeouts={"client": 0.2, "idle": 0.1})
    answer = await speaker.ask(one, connection=await one.connect(receive_buffer=4096))
    call = await upstream.arrived()
    await call.gone()
    await one.idle()
    assert await settled(one) == await settled(one, outcome="client_stalled") == 1
    assert open_streams(one) == 0
    heard = await answer.rest()
    assert answer.outcome in {"cut", "reset"}
    assert b"error" not in heard  # nobody would have read it


async def test_a_client_that_never_reads_a_whole_answer_is_cut_too(upstream, gateway):
    async def script(call: Call) -> None:
        await call.reply(completion("x" * 8_000_000))

    upstream.script = script
    one = await gateway(timeouts={"client": 0.2})
    connection = await one.connect(receive_buffer=4096)
    answer = await one.chat(connection=connection)
    assert answer.status == 200
    server = one.server._runner.server
    connections = list(server.connections)
    assert connections

    async def dropped() -> None:
        while any(connection.connected for connection in connections):
            server._close_late()  # as it does every second
            await asyncio.sleep(0.05)

    await asyncio.wait_for(dropped(), 10)
