"""Signs of life for a client that waits: between frames, in its dialect, and not before upstream has answered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from proxy import wheel

from .speakers import OPENAI, SIMPLE, open_streams, settled, speakers
from .upstream import DONE, Call, Gate, broken, chunk, conversation, fault, gated_stream, held, refusal, silent, sse
from .wire import Frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from .speakers import Speaker
    from .upstream import Upstream
    from .wire import Answer

#: Seconds of silence before a client is told that all is well.
SOON = 0.03
COMMENT = b": keep-alive\n\n"


@pytest.fixture(autouse=True)
def fine_grain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel looks more often than it does in production."""
    monkeypatch.setattr(wheel, "GRAIN", 0.01)


async def kept(answer: Answer) -> Frame:
    frame = await answer.frame()
    assert frame is not None
    return frame


# When


@speakers
async def test_a_client_is_told_between_frames(upstream: Upstream, gateway: Callable, speaker: Speaker):
    gate = Gate()
    upstream.script = gated_stream([chunk("a"), chunk("b"), chunk(finish="stop"), DONE], gate)
    gate.open()
    answer = await speaker.ask(await gateway(stream={"keepalive": SOON}))
    assert speaker.text(await kept(answer)) == "a"
    for _ in range(2):
        assert (await kept(answer)).raw == COMMENT
    gate.open()
    assert speaker.text(await answer.event()) == "b"
    assert (await kept(answer)).raw == COMMENT
    gate.open_all()
    heard = await speaker.heard(answer)
    assert (heard.complete, heard.whole) == (True, True)


@speakers
async def test_the_answer_begins_with_it_once_upstream_s_head_is_in(upstream, gateway, speaker):
    gate = Gate()
    upstream.script = gated_stream([chunk("a"), chunk(finish="stop"), DONE], gate)
    one = await gateway(stream={"keepalive": SOON})
    answer = await speaker.ask(one)  # not a frame has come from upstream
    assert answer.status == 200
    assert answer.header("Content-Type") == "text/event-stream; charset=utf-8"
    assert answer.header("x-proxy-provider") == "up"
    for _ in range(3):
        assert (await kept(answer)).raw == COMMENT
    gate.open_all()
    heard = await speaker.heard(answer)
    assert (heard.text, heard.complete) == ("a", True)
    assert await settled(one, outcome="ok") == 1


@speakers
async def test_nothing_begins_before_upstream_s_head(upstream, gateway, speaker):
    """Many keep-alives long; the status still tells."""
    upstream.script = silent()
    answer = await speaker.ask(await gateway(stream={"keepalive": SOON}, timeouts={"first_byte": 6 * SOON}))
    assert answer.status == 504
    assert "first_byte" in speaker.error(await answer.json()).message


@pytest.mark.parametrize("status", [200, 429, 500])
async def test_nothing_begins_while_a_whole_body_is_on_its_way(upstream, gateway, status):
    """JSON, or an error: what it says is known only at its end."""
    gate = Gate()

    async def script(call: Call) -> None:
        await call.head(status, {"Content-Type": "application/json"})
        await call.send(b'{"error":{"message":')
        await gate.passed()
        await call.send(b'"boom"}}')
        await call.done()

    upstream.script = script
    one = await gateway(stream={"keepalive": SOON}, timeouts={"idle": 6 * SOON})
    answer = await one.chat(stream=True)
    assert answer.status == 504  # the clock has fired, and the status could still say so
    gate.open()


async def test_upstream_s_comments_do_not_hold_ours_back(upstream, gateway):
    """They are not passed on, so the client hears nothing of them."""

    async def script(call: Call) -> None:
        await call.frame(chunk("a"))
        while not call.left:
            await call.send(b": still thinking\n\n")
            await asyncio.sleep(SOON / 10)

    upstream.script = script
    one = await gateway(stream={"keepalive": SOON})
    answer = await one.chat(stream=True)
    assert (await kept(answer)).content == "a"
    for _ in range(2):
        assert (await kept(answer)).raw == COMMENT


@speakers
async def test_frames_that_come_in_time_need_none(upstream, gateway, speaker):
    upstream.script = held(conversation("a", "b"))
    answer = await speaker.ask(await gateway(stream={"keepalive": 5}))
    assert all(not frame.comment for frame in await answer.frames())


# In which form


FORMS = [
    pytest.param(OPENAI, "comment", COMMENT, id="openai-comment"),
    pytest.param(SIMPLE, "comment", COMMENT, id="simple-comment"),
    pytest.param(SIMPLE, "chunk", b'data: {"delta":""}\n\n', id="simple-chunk"),
]


@pytest.mark.parametrize(("speaker", "mode", "form"), FORMS)
async def test_the_form_of_a_sign_of_life(upstream, gateway, speaker, mode, form):
    upstream.script = held([chunk("a")])
    answer = await speaker.ask(await gateway(stream={"keepalive": SOON, "keepalive_mode": mode}))
    assert speaker.text(await kept(answer)) == "a"
    assert (await kept(answer)).raw == form


@pytest.mark.parametrize("script", [held(), held([chunk("a")])], ids=["first", "later"])
async def test_the_chunk_that_says_nothing(upstream, gateway, script):
    """For clients that parse every line as JSON, and index `choices[0].delta`."""
    upstream.script = script
    answer = await OPENAI.ask(await gateway(stream={"keepalive": SOON, "keepalive_mode": "chunk"}))
    frames = [await kept(answer) for _ in range(3)]
    told = frames[-1].json
    assert told["object"] == "chat.completion.chunk"
    assert told["choices"] == [{"index": 0, "delta": {}, "finish_reason": None}]
    assert not any(frame.comment for frame in frames)


@pytest.mark.parametrize("stream", [{"keepalive": 0}, {"keepalive": SOON, "keepalive_mode": "off"}], ids=["0", "off"])
@pytest.mark.parametrize("script", [held([b": thinking\n\n"]), held([chunk("a")])], ids=["first", "later"])
async def test_none_at_all(upstream, gateway, stream, script):
    upstream.script = script
    one = await gateway(stream=stream, timeouts={"idle": 6 * SOON})
    answer = await one.chat(stream=True)
    told = await answer.rest()
    assert COMMENT not in told
    assert b"timeouts.idle" in told


# Only between frames


@speakers
async def test_never_inside_a_frame(upstream, gateway, speaker):
    """The half that upstream has sent waits; the sign of life goes before it."""
    frame, gate = sse(chunk("whole")), Gate()

    async def script(call: Call) -> None:
        await call.frame(chunk("a"))
        await call.send(frame[:25])
        await gate.passed()
        await call.send(frame[25:])
        await call.frame(chunk(finish="stop"))
        await call.frame(DONE)
        await call.done()

    upstream.script = script
    answer = await speaker.ask(await gateway(stream={"keepalive": SOON}))
    assert speaker.text(await kept(answer)) == "a"
    for _ in range(3):
        assert (await kept(answer)).raw == COMMENT
    gate.open()
    heard = await speaker.heard(answer)
    assert (heard.text, heard.complete) == ("whole", True)


# What comes after it has begun


@speakers
@pytest.mark.parametrize(
    ("end", "kind", "says"),
    [
        pytest.param("error", "upstream_error", "boom", id="an-error-frame"),
        pytest.param("fin", "upstream_error", "cut", id="fin"),
        pytest.param("rst", "upstream_error", "cut", id="rst"),
        pytest.param("html", "upstream_error", "not JSON", id="html"),
    ],
)
async def test_later_faults_are_told_in_the_stream(upstream, gateway, speaker, end, kind, says):
    gate = Gate()

    async def script(call: Call) -> None:
        await call.head()
        await gate.passed()
        match end:
            case "error":
                await call.frame(fault("boom"))
                await call.done()
            case "html":
                await call.send(b"<html></html>")
                await call.done()
            case "fin":
                call.close()
            case "rst":
                call.reset()

    upstream.script = script
    one = await gateway(stream={"keepalive": SOON})
    answer = await speaker.ask(one)
    assert answer.status == 200
    assert (await kept(answer)).raw == COMMENT
    gate.open()
    heard = await speaker.heard(answer)
    assert (heard.text, heard.complete, heard.whole) == ("", False, True)
    assert heard.fault.kind == kind
    assert says in heard.fault.message
    assert await settled(one, outcome="failed", status="200") == 1


@speakers
async def test_a_clock_may_fire_after_it_has_begun(upstream, gateway, speaker):
    upstream.script = held()
    one = await gateway(stream={"keepalive": SOON}, timeouts={"first_byte": 4 * SOON})
    heard = await speaker.heard(await speaker.ask(one))
    assert heard.fault.kind == "timeout"
    assert "timeouts.first_byte" in heard.fault.message


@speakers
async def test_json_may_come_after_it_has_begun(upstream, gateway, speaker):
    """Under the head of an event stream."""
    gate = Gate()

    async def script(call: Call) -> None:
        await call.head()
        await gate.passed()
        await call.send(b'{"choices":[{"message":{"content":"Hello!"},"finish_reason":"stop"}]}')
        await call.done()

    upstream.script = script
    answer = await speaker.ask(await gateway(stream={"keepalive": SOON}))
    assert (await kept(answer)).raw == COMMENT
    gate.open()
    heard = await speaker.heard(answer)
    assert (heard.text, heard.complete) == ("Hello!", True)


@pytest.mark.parametrize("leave", ["half_close", "close", "abort"], ids=["fin", "closed", "rst"])
async def test_a_client_may_leave_after_it_has_begun(upstream, gateway, leave):
    upstream.script = held()
    one = await gateway(stream={"keepalive": SOON})
    answer = await one.chat(stream=True)
    assert (await kept(answer)).raw == COMMENT
    getattr(answer.connection, leave)()
    await (await upstream.arrived()).gone()
    assert await settled(one, outcome="client_gone") == 1
    assert open_streams(one) == 0


async def test_faults_before_it_has_begun_keep_their_status(upstream, gateway):
    one = await gateway(stream={"keepalive": 5})
    for script, status in ((refusal(429), 429), (broken([]), 502)):
        upstream.script = script
        assert (await one.chat(stream=True)).status == status
