"""Every clock is named in the error when it fires, and does not fire for what is not its business."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from proxy import wheel

from .speakers import OPENAI, Fault, open_streams, settled, speakers
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
    silent,
    sse,
    stream,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from .upstream import Script, Upstream

#: Seconds; longer than ``GRAIN``.
SOON = 0.05
GRAIN = 0.01
#: For a clock that must not speak: no stall of a busy machine takes that long.
LATER = 0.3


@pytest.fixture(autouse=True)
def fine_grain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel looks more often than it does in production: the same clocks in less time."""
    monkeypatch.setattr(wheel, "GRAIN", GRAIN)


def said(fault: Fault | None, clock: str) -> bool:
    """Does the fault name this clock, and its setting?"""
    return fault is not None and fault.kind == "timeout" and f"(timeouts.{clock})" in fault.message


def dripping(wire: bytes, first: bytes = b"") -> Script:
    """The same bytes again and again, for as long as the gateway stays; the seconds between are short."""

    async def script(call: Call) -> None:
        await call.head()
        if first:
            await call.send(first)
        while not call.left:
            await call.send(wire)
            await asyncio.sleep(SOON / 10)

    return script


# Before an answer has begun: 504


@speakers
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
async def test_connect_ends_an_attempt_to_reach_a_provider_that_says_nothing(gateway: Callable, speaker, streamed):
    async with blackhole() as port:
        one = await gateway(url=f"http://127.0.0.1:{port}", timeouts={"connect": SOON})
        answer = await speaker.ask(one, stream=streamed)
        assert answer.status == 504
        assert said(speaker.error(await answer.json()), "connect")


@speakers
@pytest.mark.parametrize(
    "script", [pytest.param(silent(), id="no-head"), pytest.param(held(), id="a-head-without-a-body")]
)
async def test_first_byte_ends_a_stream_that_does_not_begin(upstream: Upstream, gateway, speaker, script):
    upstream.script = script
    one = await gateway(timeouts={"first_byte": SOON})
    answer = await speaker.ask(one)
    assert answer.status == 504
    assert said(speaker.error(await answer.json()), "first_byte")
    await (await upstream.arrived()).gone()
    assert await settled(one, outcome="failed", status="504") == 1


@speakers
@pytest.mark.parametrize(
    "script", [pytest.param(silent(), id="no-head"), pytest.param(held(), id="a-head-without-a-body")]
)
async def test_total_ends_a_whole_answer_that_does_not_come(upstream, gateway, speaker, script):
    upstream.script = script
    one = await gateway(timeouts={"total": SOON})
    answer = await speaker.ask(one, stream=False)
    assert answer.status == 504
    assert said(speaker.error(await answer.json()), "total")
    await (await upstream.arrived()).gone()


async def test_total_ends_a_whole_answer_that_drips_for_ever(upstream, gateway):
    async def script(call: Call) -> None:
        await call.head(200, {"Content-Type": "application/json"})
        await call.send(b'{"choices":[')
        while not call.left:
            await call.send(b" ")
            await asyncio.sleep(SOON / 10)

    upstream.script = script
    answer = await (await gateway(timeouts={"total": LATER + SOON, "idle": LATER})).chat()
    assert answer.status == 504
    assert said(OPENAI.error(await answer.json()), "total")


@speakers
async def test_idle_ends_a_whole_answer_that_stops_in_its_midst(upstream, gateway, speaker):
    async def script(call: Call) -> None:
        await call.head(200, {"Content-Type": "application/json"})
        await call.send(b'{"choices":[')
        await call.connection.gone.wait()

    upstream.script = script
    answer = await speaker.ask(await gateway(timeouts={"idle": SOON}), stream=False)
    assert answer.status == 504
    assert said(speaker.error(await answer.json()), "idle")


@speakers
async def test_idle_ends_an_error_that_stops_in_its_midst(upstream, gateway, speaker):
    async def script(call: Call) -> None:
        await call.head(429, {"Content-Type": "application/json"})
        await call.send(b'{"error":')
        await call.connection.gone.wait()

    upstream.script = script
    answer = await speaker.ask(await gateway(timeouts={"idle": SOON}))
    assert answer.status == 504
    assert said(speaker.error(await answer.json()), "idle")


async def test_heartbeat_ends_a_whole_answer_of_blank_lines(upstream, gateway):
    """As DeepSeek sends them while it works; each counts as life for `idle`."""
    upstream.script = dripping(b"\n")
    answer = await (await gateway(timeouts={"heartbeat": LATER + SOON, "idle": LATER})).chat()
    assert answer.status == 504
    assert said(OPENAI.error(await answer.json()), "heartbeat")


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
async def test_heartbeat_and_idle_say_nothing_of_an_answer_that_has_not_begun(upstream, gateway, streamed):
    """Silence before the first byte has a clock of its own, which did not fire here."""
    gate = Gate()

    async def script(call: Call) -> None:
        await gate.passed()
        await (stream(conversation("a"))(call) if streamed else call.reply(completion("a")))

    upstream.script = script
    one = await gateway(timeouts={"idle": SOON, "heartbeat": SOON})
    asked = asyncio.create_task(one.chat(stream=streamed))
    await gate.waited_at()
    await asyncio.sleep(2 * SOON)
    gate.open()
    answer = await asked
    assert answer.status == 200
    await answer.body()


# Inside a stream: an error frame


STALLS = [
    pytest.param(held([chunk("a")]), id="after-a-frame"),
    pytest.param(held([chunk("a"), b'data: {"choices":[{"delta":{"cont']), id="inside-a-frame"),
    pytest.param(held([sse(chunk("a")), b"data"]), id="inside-a-field-name"),
]


@speakers
@pytest.mark.parametrize("script", STALLS)
async def test_idle_ends_a_stream_that_falls_silent(upstream, gateway, speaker, script):
    upstream.script = script
    one = await gateway(timeouts={"idle": SOON})
    heard = await speaker.heard(await speaker.ask(one))
    assert (heard.text, heard.complete, heard.whole) == ("a", False, True)
    assert said(heard.fault, "idle")
    assert speaker.fault(heard.frames[-1])  # nothing after it
    await (await upstream.arrived()).gone()
    assert await settled(one, outcome="failed", status="200") == 1
    assert open_streams(one) == 0


@speakers
async def test_comments_are_life_for_idle_but_not_for_heartbeat(upstream, gateway, speaker):
    upstream.script = dripping(b": OPENROUTER PROCESSING\n\n", sse(chunk("a")))
    one = await gateway(timeouts={"idle": LATER, "heartbeat": LATER + SOON})
    heard = await speaker.heard(await speaker.ask(one))
    assert heard.text == "a"
    assert said(heard.fault, "heartbeat")


async def test_comments_before_the_first_frame_are_life_too(upstream, gateway):
    """They are the answer's first bytes, so `first_byte` is satisfied; nothing was said, so the status tells."""
    upstream.script = dripping(b": keep-alive\n\n")
    one = await gateway(
        timeouts={"first_byte": LATER, "idle": LATER, "heartbeat": LATER + SOON}, stream={"keepalive_mode": "off"}
    )
    answer = await one.chat(stream=True)
    assert answer.status == 504
    assert said(OPENAI.error(await answer.json()), "heartbeat")


async def test_a_frame_that_takes_its_time_is_progress(upstream, gateway):
    """Longer than `heartbeat`, but every byte of it is more than a sign of life."""
    frame = sse(chunk("slow"))

    async def script(call: Call) -> None:
        await call.head()
        for at in range(0, len(frame), 16):
            await call.send(frame[at : at + 16])
            await asyncio.sleep(LATER / 12)
        await call.frame(chunk(finish="stop"))
        await call.frame(DONE)
        await call.done()

    upstream.script = script
    one = await gateway(timeouts={"idle": LATER, "heartbeat": LATER})
    heard = await OPENAI.heard(await OPENAI.ask(one))
    assert (heard.text, heard.complete) == ("slow", True)


@speakers
async def test_stream_total_ends_a_stream_however_lively(upstream, gateway, speaker):
    upstream.script = dripping(sse(chunk("a")))
    one = await gateway(timeouts={"stream_total": 2 * SOON, "total": 0.1})  # `total` is for whole answers
    heard = await speaker.heard(await speaker.ask(one))
    assert heard.text.startswith("aaa")
    assert said(heard.fault, "stream_total")
    assert (heard.complete, heard.whole) == (False, True)


@speakers
@pytest.mark.parametrize("rest", [b"", b": still here\n\n"], ids=["silence", "comments"])
async def test_after_finish_completes_an_answer_whose_end_mark_does_not_come(upstream, gateway, speaker, rest):
    """Not an error: with a finish reason the answer is complete.  Signs of life do not keep it open."""
    first = sse(chunk("a")) + sse(chunk(finish="stop"))
    upstream.script = dripping(rest, first) if rest else held([first])
    one = await gateway(timeouts={"after_finish": SOON})
    heard = await speaker.heard(await speaker.ask(one))
    assert (heard.text, heard.complete, heard.fault, heard.whole) == ("a", True, None, True)
    await (await upstream.arrived()).gone()
    assert await settled(one, outcome="ok") == 1


# A client that reads slowly is no silence of upstream's


async def test_no_clock_of_upstreams_fires_while_the_client_is_slow(upstream, gateway):
    """Upstream is not read then, so it cannot speak; when the client reads on, the clocks begin anew."""
    frame, times = chunk("x" * 50_000), 200
    upstream.script = flood(frame, times)
    one = await gateway(timeouts={"idle": LATER / 2, "heartbeat": LATER / 2, "first_byte": LATER / 2})
    connection = await one.connect(receive_buffer=4096)
    answer = await OPENAI.ask(one, connection=connection)
    call = await upstream.arrived()
    assert await call.settled(quiet=LATER) < times * 50_000  # upstream has been stopped for longer than any clock
    assert await answer.body() == sse(frame) * times + DONE
    assert await settled(one, outcome="ok") == 1


# Who sets them


@pytest.mark.parametrize(
    ("provider", "model", "told"),
    [
        ({}, {}, "0.07 s (timeouts.idle)"),
        ({"timeouts": {"idle": 0.06}}, {}, "0.06 s (timeouts.idle)"),
        ({"timeouts": {"idle": 0.4}}, {"timeouts": {"idle": 0.05}}, "0.05 s (timeouts.idle)"),
    ],
    ids=["the-file", "the-provider", "the-model"],
)
async def test_the_nearest_setting_counts(upstream, gateway, provider, model, told):
    upstream.script = held([chunk("a")])
    one = await gateway(timeouts={"idle": 0.07}, providers=[{"name": "up", **provider}], models=[{"id": "m", **model}])
    heard = await OPENAI.heard(await OPENAI.ask(one))
    assert told in heard.fault.message


async def test_json_that_was_asked_as_a_stream_has_the_clocks_of_a_stream(upstream, gateway):
    async def script(call: Call) -> None:
        await call.head(200, {"Content-Type": "application/json"})
        await call.send(b'{"choices":')
        await call.connection.gone.wait()

    upstream.script = script
    answer = await OPENAI.ask(await gateway(timeouts={"idle": SOON, "total": 0.1}))
    assert answer.status == 504
    assert said(OPENAI.error(await answer.json()), "idle")


async def test_an_error_frame_of_a_clock_comes_between_frames(upstream, gateway):
    """The half frame that upstream has begun is not passed on."""
    upstream.script = held([sse(chunk("a")) + b'data: {"half'])
    answer = await OPENAI.ask(await gateway(timeouts={"idle": SOON}))
    body = await answer.body()
    assert body.startswith(sse(chunk("a")) + b'data: {"error":{')
    assert b"half" not in body
