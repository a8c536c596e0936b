"""Streams that break: an error frame after the last whole frame and a proper end, or a status if nothing was said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from . import UPSTREAM_KEY
from .speakers import OPENAI, SIMPLE, Fault, settled, speakers
from .upstream import (
    DONE,
    EVENT_STREAM,
    Call,
    Gate,
    Sendable,
    broken,
    chunk,
    completion,
    conversation,
    fault,
    gated_stream,
    held,
    pieces,
    sse,
    stream,
    usage,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from .upstream import Script, Upstream


# How a connection can end inside an answer


async def fin(call: Call) -> None:
    call.close()


async def rst(call: Call) -> None:
    call.reset()


async def half_close(call: Call) -> None:
    call.half_close()
    await call.connection.gone.wait()


async def torn_chunk(call: Call) -> None:
    await call.torn(b'data: {"choices":[')
    call.close()


async def broken_chunk_size(call: Call) -> None:
    await call.raw(b"zz\r\n")
    await call.connection.gone.wait()


async def half_a_frame(call: Call) -> None:
    await call.send(b'data: {"choices":[{"index":0,"delta":{"content":"lo')
    await call.done()


async def well(call: Call) -> None:
    await call.done()


#: What is wrong, the framing of the body, and how it ends.
BREAKS = [
    pytest.param({}, fin, id="chunked-and-fin"),
    pytest.param({}, rst, id="chunked-and-rst"),
    pytest.param({}, half_close, id="chunked-and-half-closed"),
    pytest.param({}, torn_chunk, id="inside-a-chunk"),
    pytest.param({}, broken_chunk_size, id="a-chunk-size-that-is-none"),
    pytest.param({}, half_a_frame, id="inside-a-frame"),
    pytest.param({}, well, id="http-is-whole-but-the-answer-is-not"),
    pytest.param({"length": 100_000}, fin, id="shorter-than-its-content-length"),
    pytest.param({"length": 100_000}, rst, id="content-length-and-rst"),
    pytest.param({"framing": "close"}, fin, id="close-delimited"),
    pytest.param({"framing": "close"}, rst, id="close-delimited-and-rst"),
    pytest.param({"version": "HTTP/1.0"}, fin, id="http-1-0"),
]


def ending(end: Any, head: dict[str, Any], frames: list[Sendable], gate: Gate | None = None) -> Script:
    """These frames, then (when the gate opens) that end.  RST would overtake what was not read yet."""

    async def script(call: Call) -> None:
        await call.head(200, EVENT_STREAM, **head)
        for frame in frames:
            await call.frame(frame)
        if gate is not None:
            await gate.passed()
        await end(call)

    return script


@speakers
@pytest.mark.parametrize(("head", "end"), BREAKS)
async def test_a_break_is_told_after_the_last_whole_frame(upstream: Upstream, gateway: Callable, speaker, head, end):
    gate = Gate()
    upstream.script = ending(end, head, [chunk("", role="assistant"), chunk("Hel")], gate)
    one = await gateway()
    answer = await speaker.ask(one)
    frame = await answer.event()
    assert speaker.text(frame) == "Hel" or speaker.text(await answer.event()) == "Hel"
    gate.open()
    heard = await speaker.heard(answer)
    assert (heard.text, heard.complete, heard.whole) == ("", False, True)
    assert [speaker.fault(frame) is not None for frame in heard.frames] == [True]
    assert heard.fault.kind == "upstream_error"
    assert "127.0.0.1" not in heard.fault.message
    assert await settled(one, outcome="failed", status="200") == 1
    await broken_upstream_is_not_asked_again(one, upstream, reusable=end in {well, half_a_frame} and not head)


@speakers
@pytest.mark.parametrize(("head", "end"), BREAKS)
async def test_a_break_before_the_first_frame_is_a_status(upstream, gateway, speaker, head, end):
    upstream.script = ending(end, head, [b": processing\n\n"])
    one = await gateway()
    answer = await speaker.ask(one)
    assert answer.status == 502
    assert answer.header("Content-Type") == "application/json"
    assert speaker.error(await answer.json()).kind == "upstream_error"
    assert await settled(one, outcome="failed", status="502") == 1
    await broken_upstream_is_not_asked_again(one, upstream, reusable=end in {well, half_a_frame} and not head)


async def broken_upstream_is_not_asked_again(gateway: Any, upstream: Upstream, *, reusable: bool) -> None:
    upstream.script = whole()
    assert (await gateway.chat()).status == 200
    assert upstream.calls[-1].reused is reusable


# With a finish reason an answer is complete


FINISHED = [chunk("a"), chunk(finish="stop")]


@speakers
@pytest.mark.parametrize(
    "end", [well, fin, rst, torn_chunk, half_a_frame, broken_chunk_size], ids=lambda end: end.__name__
)
async def test_the_end_mark_is_supplied_after_a_finish_reason(upstream, gateway, speaker, end):
    gate = Gate()
    upstream.script = ending(end, {}, FINISHED, gate)
    answer = await speaker.ask(await gateway())
    assert speaker.text(await answer.event()) == "a"
    gate.open()
    heard = await speaker.heard(answer)
    assert (heard.complete, heard.fault, heard.whole) == (True, None, True)
    assert sum(speaker.ends(frame) for frame in heard.frames) == 1


async def test_what_was_supplied_is_all_that_was_added(upstream, gateway):
    upstream.script = stream(FINISHED)
    answer = await OPENAI.ask(await gateway())
    assert await answer.body() == b"".join(map(sse, FINISHED)) + DONE


async def test_with_two_choices_one_finish_reason_is_not_enough(upstream, gateway):
    upstream.script = stream(FINISHED)
    heard = await OPENAI.heard(await OPENAI.ask(await gateway(), n=2))
    assert (heard.complete, heard.fault.kind) == (False, "upstream_error")


@speakers
async def test_an_end_mark_alone_is_a_good_end_too(upstream, gateway, speaker):
    """Some providers never give a finish reason."""
    upstream.script = stream([chunk("a"), DONE])
    heard = await speaker.heard(await speaker.ask(await gateway()))
    assert (heard.text, heard.complete, heard.fault) == ("a", True, None)


@speakers
async def test_a_connection_that_breaks_after_the_end_mark_does_not_matter(upstream, gateway, speaker):
    upstream.script = broken(conversation("a"), "close")
    one = await gateway()
    heard = await speaker.heard(await speaker.ask(one))
    assert (heard.text, heard.complete, heard.fault, heard.whole) == ("a", True, None, True)
    assert await settled(one, outcome="ok") == 1


# The last frame without its blank line


@speakers
@pytest.mark.parametrize(
    ("tail", "text", "complete"),
    [
        pytest.param(sse(chunk(finish="stop")) + b"data: [DONE]", "", True, id="end-mark"),
        pytest.param(sse(chunk(finish="stop")) + b"data: [DONE]\n", "", True, id="end-mark-with-half-of-its-end"),
        pytest.param(sse(chunk(finish="stop")).rstrip(), "", True, id="finish-reason"),
        pytest.param(sse(chunk(finish="stop")) + sse(chunk(usage=usage())).rstrip(), "", True, id="usage"),
        pytest.param(sse(chunk("b")).rstrip(), "b", False, id="content"),
        pytest.param(sse(chunk("b"))[:-20], "", False, id="half-of-its-json"),
        pytest.param(b"data: [DO", "", False, id="half-of-an-end-mark"),
        pytest.param(b": comment", "", False, id="comment"),
    ],
)
async def test_an_unterminated_last_frame_is_completed_or_reported(upstream, gateway, speaker, tail, text, complete):
    upstream.script = pieces([sse(chunk("a")), tail], framing="close" if speaker is SIMPLE else "chunked")
    answer = await speaker.ask(await gateway())
    heard = await speaker.heard(answer)
    assert (heard.text, heard.complete, heard.whole) == ("a" + text, complete, True)
    assert (heard.fault is None) is complete


# Errors that upstream tells in its stream


ERRORS = [
    pytest.param(sse(fault("boom")), 502, id="openai"),
    pytest.param(sse(fault("boom"), event="error"), 502, id="groq-names-the-event"),
    pytest.param(sse({"message": "boom"}, event="error"), 502, id="an-event-and-nothing-else"),
    pytest.param(sse({"error": "boom"}), 502, id="ollama-text"),
    pytest.param(sse({"object": "error", "message": "boom", "code": 400}), 400, id="old-vllm-flat"),
    pytest.param(sse(fault("boom", code=429)), 429, id="openrouter-with-a-number"),
    pytest.param(sse({**chunk("", finish="error"), **fault("boom", code=502)}), 502, id="openrouter-in-a-chunk"),
    pytest.param(sse({"error": {"message": "boom"}}, end="\r\n"), 502, id="crlf"),
    pytest.param(b'data: {"error":\ndata: {"message":"boom"}}\n\n', 502, id="over-two-lines"),
    pytest.param(sse({"type": "error", "error": {"type": "overloaded_error", "message": "boom"}}), 502, id="anthropic"),
]


@speakers
@pytest.mark.parametrize(("error", "status"), ERRORS)
async def test_an_error_as_the_first_frame_is_a_status(upstream, gateway, speaker, error, status):
    upstream.script = pieces([error + DONE])
    answer = await speaker.ask(await gateway())
    assert answer.status == status
    assert "boom" in speaker.error(await answer.json()).message
    await (await upstream.arrived()).ended()


@pytest.mark.parametrize(
    ("speaker", "apart"),
    [(OPENAI, True), (OPENAI, False), (SIMPLE, False)],
    ids=["openai-in-a-read-of-its-own", "openai-in-one-read", "simple"],
)
@pytest.mark.parametrize(("error", "status"), ERRORS)
async def test_an_error_in_a_stream_ends_it(upstream, gateway, speaker, error, status, apart):
    after = sse(chunk("never")) + sse(chunk(finish="stop")) + DONE
    upstream.script = pieces([sse(chunk("a")), error, after] if apart else [sse(chunk("a")) + error + after])
    one = await gateway()
    heard = await speaker.heard(await speaker.ask(one))
    assert (heard.text, heard.complete, heard.whole) == ("a", False, True)
    assert "boom" in heard.fault.message
    assert speaker.fault(heard.frames[-1]) == heard.fault
    assert await settled(one, outcome="failed") == 1


@speakers
async def test_an_error_in_a_stream_loses_secrets_and_hosts(upstream, gateway, speaker):
    said = f"Incorrect key {UPSTREAM_KEY.upper()} at {upstream.url}/v1 for tenant-4711"
    upstream.script = stream([chunk("a"), fault(said, type=UPSTREAM_KEY, code="c")])
    one = await gateway(providers=[{"name": "up", "headers": {"X-Tenant": "tenant-4711"}}])
    answer = await speaker.ask(one)
    told = await answer.body()
    for secret in (UPSTREAM_KEY, UPSTREAM_KEY.upper(), "127.0.0.1", str(upstream.port), "tenant-4711"):
        assert secret.encode() not in told
    assert b"Incorrect key" in told


async def test_an_error_keeps_the_provider_s_words_for_openai_clients(upstream, gateway):
    upstream.script = stream([chunk("a"), fault("too long", type="context_error", code=400, param="messages")])
    heard = await OPENAI.heard(await OPENAI.ask(await gateway()))
    error = heard.frames[-1].json["error"]
    assert (error["message"], error["type"], error["param"]) == ("too long", "context_error", "messages")


@speakers
@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(chunk('"error": {"message": "no"}'), id="quoted-in-the-text"),
        pytest.param(chunk("x", error=None), id="null"),
        pytest.param({**chunk("x"), "meta": {"error": {"message": "deep"}}}, id="further-down"),
        pytest.param(chunk("data: [DONE]"), id="an-end-mark-in-the-text"),
        pytest.param(chunk("event: error"), id="an-event-in-the-text"),
    ],
)
async def test_what_only_looks_like_an_error_is_none(upstream, gateway, speaker, frame):
    upstream.script = stream([chunk("a"), frame, chunk("b"), chunk(finish="stop"), DONE])
    heard = await speaker.heard(await speaker.ask(await gateway()))
    assert heard.fault is None
    assert (heard.text[0], heard.text[-1], heard.complete) == ("a", "b", True)


# Content types lie


CLOUDFLARE = {"result": None, "success": False, "errors": [{"code": 5007, "message": "No such model"}]}


@speakers
@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream", "text/plain"])
@pytest.mark.parametrize("prefix", [b"", b"\n\n", b"\xef\xbb\xbf"], ids=["plain", "blank-lines", "bom"])
async def test_json_for_a_stream_becomes_one(upstream, gateway, speaker, content_type, prefix):
    upstream.script = whole(completion("Hello!"), 200, {"Content-Type": content_type}, prefix=prefix)
    one = await gateway()
    answer = await speaker.ask(one)
    assert answer.header("Content-Type") == "text/event-stream; charset=utf-8"
    heard = await speaker.heard(answer)
    assert (heard.text, heard.complete, heard.whole) == ("Hello!", True, True)
    assert await settled(one, outcome="ok") == 1


async def test_json_for_a_stream_keeps_its_fields_and_names_each_call(upstream, gateway):
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {
        "role": "assistant",
        "content": None,
        "reasoning_content": "hm",
        "tool_calls": [call, {**call, "id": "c2"}],
    }
    choices = [
        {"index": 0, "message": message, "finish_reason": "tool_calls"},
        {"index": 1, "message": {"role": "assistant", "content": "b"}, "finish_reason": "stop"},
    ]
    upstream.script = whole({**completion(), "choices": choices, "x_unknown": 1})
    answer = await OPENAI.ask(await gateway(), n=2, stream_options={"include_usage": True})
    frames = await answer.events()
    assert frames[-1].done
    chunks = [frame.json for frame in frames[:-1]]
    assert {(c["id"], c["object"], c["model"], c["x_unknown"]) for c in chunks} == {
        ("chatcmpl-1", "chat.completion.chunk", "m", 1)
    }
    deltas = [c["choices"][0] for c in chunks if c["choices"]]
    assert deltas[0]["delta"]["reasoning_content"] == "hm"
    assert [t["index"] for t in deltas[0]["delta"]["tool_calls"]] == [0, 1]
    assert [(d["index"], d["finish_reason"]) for d in deltas] == [(0, None), (0, "tool_calls"), (1, None), (1, "stop")]
    assert [c["usage"] for c in chunks if not c["choices"]] == [usage()]


@speakers
@pytest.mark.parametrize(
    ("body", "content_type", "status", "says"),
    [
        pytest.param(fault("boom"), "application/json", 502, "boom", id="an-error-with-200"),
        pytest.param(fault("slow down", code=429), "text/event-stream", 429, "slow down", id="an-error-as-a-stream"),
        pytest.param(CLOUDFLARE, "application/json", 502, "No such model", id="cloudflare"),
        pytest.param(b"<html><h1>Bad Gateway secret</h1></html>", "text/html", 502, "not JSON", id="html"),
        pytest.param(b"\n<!doctype html>", "text/event-stream", 502, "not JSON", id="html-as-a-stream"),
        pytest.param(b'{"choices":', "application/json", 502, "not JSON", id="half-of-an-object"),
        pytest.param(b'[{"choices":[]}]', "application/json", 502, "not a JSON object", id="an-array"),
        pytest.param({"id": "x"}, "application/json", 502, "no `choices`", id="no-choices"),
        pytest.param(b"", "application/json", 502, "not JSON", id="nothing"),
        pytest.param(b"", "text/event-stream", 502, "ended before", id="an-empty-stream"),
        pytest.param(b"Service Unavailable", "text/plain", 502, "ended", id="plain-words"),
    ],
)  # fmt: skip
async def test_what_is_no_answer_is_a_status(upstream, gateway, speaker, body, content_type, status, says):
    upstream.script = whole(body, 200, {"Content-Type": content_type})
    answer = await speaker.ask(await gateway())
    assert answer.status == status
    told = speaker.error(await answer.json())
    assert says in told.message
    assert "secret" not in told.message


# Too much


@speakers
async def test_a_frame_that_never_ends_is_told_with_its_limit(upstream, gateway, speaker):
    upstream.script = pieces([sse(chunk("a")), b"data: " + b"x" * 3000, b"x" * 3000])
    one = await gateway(limits={"max_frame_bytes": 4096})
    heard = await speaker.heard(await speaker.ask(one))
    assert (heard.text, heard.whole) == ("a", True)
    assert heard.fault.kind == "upstream_error"
    assert "4096 bytes" in heard.fault.message
    assert "limits.max_frame_bytes" in heard.fault.message
    await (await upstream.arrived()).gone()


@speakers
async def test_a_first_frame_that_never_ends_is_a_status(upstream, gateway, speaker):
    upstream.script = pieces([b"data: " + b"x" * 3000, b"x" * 3000])
    answer = await speaker.ask(await gateway(limits={"max_frame_bytes": 4096}))
    assert answer.status == 502
    assert "limits.max_frame_bytes" in speaker.error(await answer.json()).message


# Our own mistakes


@pytest.mark.parametrize("first", [True, False], ids=["before-the-first-frame", "in-the-stream"])
async def test_a_mistake_of_ours_is_told_as_one(upstream, gateway, monkeypatch, caplog, first):
    """Not blamed on upstream, and nothing of what was said is in the log."""

    def fails(*_: object) -> bytes:
        raise RuntimeError("told: a secret")

    monkeypatch.setattr("proxy.dialects.openai_chat.tap.ChatTap.look", fails)
    trigger, gate = chunk("the answer", finish="stop"), Gate()
    upstream.script = held([trigger]) if first else gated_stream([chunk("a"), trigger], gate)
    gate.open()
    one = await gateway()
    answer = await one.chat(stream=True)
    if first:
        assert answer.status == 500
        told = OPENAI.error(await answer.json())
    else:
        assert (await answer.event()).content == "a"
        gate.open()
        told = (await OPENAI.heard(answer)).fault
    assert told == Fault("internal_error", f"internal error; request id {answer.header('x-request-id')}")
    assert answer.header("x-request-id") in caplog.text
    assert "the answer" not in caplog.text
    assert await settled(one, outcome="failed") == 1
    await (await upstream.arrived()).gone()
