"""Chat completions for a client of another dialect, the simple one: every frame is read and written anew."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson
import pytest

from proxy.dialects import simple_chat
from proxy.dialects.openai_chat.reader import ChatReader
from proxy.errors import UpstreamError
from proxy.events import Usage
from proxy.pipes import Translation
from proxy.scrub import scrubber
from tests.cuts import drip, telling_cuts
from tests.dialects.openai_chat import chunk, nothing, say, sse, usage
from tests.whatwg import interpret
from tests.wire import CHAT, wire

RESET = UpstreamError("the provider's connection broke")
INSIDE, BEFORE = "the provider's stream ended inside a frame", "the provider's stream ended before the answer did"


class Outcome(NamedTuple):
    """What the client got, and how the pipe thinks that it ended."""

    frames: list[Any]
    done: bool
    error: str
    usage: object


def translation(max_frame: int = 2**20, scrub=nothing) -> Translation:
    return Translation(ChatReader(scrub), simple_chat.SimpleWriter("alias"), simple_chat.frame, max_frame)


def outcome(chunks: list[bytes], torn: UpstreamError | None = None) -> Outcome:
    pipe = translation()
    out = b""
    for each in chunks:
        out += pipe.feed(each)
        if pipe.done or pipe.error:
            break
    else:
        out += pipe.end(torn)
    assert pipe.done != bool(pipe.error)
    frames = [orjson.loads(event.data) for event in interpret(out)]
    assert out == b"".join(b"data: " + orjson.dumps(frame) + b"\n\n" for frame in frames)
    return Outcome(frames, pipe.done, pipe.error.message if pipe.error else "", pipe.usage)


def text(frames: list[Any]) -> str:
    return "".join(frame.get("delta", "") for frame in frames)


@pytest.mark.parametrize("name", CHAT)
def test_an_outcome_does_not_depend_on_cuts(name):
    whole = outcome([wire(name)])
    for chunks in telling_cuts(wire(name)):
        assert outcome(chunks) == whole, chunks[0]


#: Streams that say something else than Hello.
SAYS = {
    "unicode-line-ends-in-content": "a\u2028b\u2029c\u0085d 🌍",
    "numbers-as-tokens": "42.0",
    "refusal": "I can't help.",
    "error-as-a-word": '{"error": {"message": "no"}} event: error "error"',
    "two-choices": "Hello",  # the first
    **dict.fromkeys([name for name in CHAT if name.startswith("tool-call")], ""),
}
COSTS = {
    "usage-with-zeros-last": (57, 28),
    "usage-real-then-zeros": (57, 28),
    "usage-on-every-chunk-and-no-end-mark": (3, 2),
    "two-choices": (3, 4),
}
GOOD = [name for name in CHAT if not name.startswith(("error-", "cut-", "unterminated-"))]


@pytest.mark.parametrize("name", [*GOOD, "error-as-a-word", "error-null-on-every-chunk", "error-empty-on-every-chunk"])
def test_a_good_stream_is_said_anew(name):
    told = outcome([wire(name)])
    assert (told.done, told.error) == (True, "")
    assert text(told.frames) == SAYS.get(name, "Hello")
    prompt, completion = COSTS.get(name, (3, 1))
    spoken, _, _ = wire(name).replace(b": ", b":").partition(b"[DONE]")
    cost = usage(prompt, completion) if b'"usage":{' in spoken else None
    assert told.frames[-1] == {"done": True, "model": "alias", "usage": cost}
    assert not any("done" in frame for frame in told.frames[:-1])
    assert all(set(frame) == {"delta"} for frame in told.frames[:-1])


def test_a_frame_is_said_before_another_byte_is_read():
    pipe, stream = translation(), wire("plain")
    due = [event.due for event in interpret(stream)][1:]  # the first has a role only
    told = [position for position, byte in enumerate(drip(stream), 1) if pipe.feed(byte)]
    assert told == [due[0], due[1], due[3]]  # the finish reason is told with the end, when usage is known too


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("error-at-the-top", "The server had an error while processing your request"),
        ("error-with-its-event", "Failed to call a function"),
        ("error-event-that-is-not-json", "upstream went away"),
        ("error-flat", "out of memory"),
        ("error-with-a-number-then-the-end-mark", "max_tokens is too large"),
        ("error-with-a-finish-reason", "Provider disconnected"),
        ("error-as-a-string", "model runner has unexpectedly stopped"),
        ("error-first", "Rate limit reached"),
        ("unterminated-error", "The server had an error while processing your request"),
    ],
)
def test_an_error_ends_the_stream_in_the_providers_words(name, message):
    told = outcome([wire(name)])
    assert message in told.error
    assert text(told.frames) == ("Hel" if b'"Hel"' in wire(name) else "")
    assert not any("done" in frame for frame in told.frames)


def test_an_error_is_told_in_the_clients_dialect():
    pipe = translation(scrub=scrubber(["sk-upstream-secret"], []))
    pipe.feed(sse({"error": {"message": "sk-upstream-secret is bad", "code": 429}}))
    assert pipe.error is not None
    assert pipe.feed(sse(say("more"))) == b""
    (frame,) = interpret(pipe.fail(pipe.error))
    told = orjson.loads(frame.data)
    assert (told["error"], told["details"]) == ("rate_limited", "[redacted] is bad")


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"data: nonsense\n\n", id="not-json"),
        pytest.param(b"data: [1,2]\n\n", id="not-an-object"),
        pytest.param(b'data: "text"\n\n', id="text"),
        pytest.param(b"data: \xff\n\n", id="not-utf-8"),
    ],
)
def test_nonsense_is_an_error(stream):
    told = outcome([sse(say("Hel")) + stream])
    assert told.error.startswith("the provider sent a frame that is not ")
    assert text(told.frames) == "Hel"


@pytest.mark.parametrize(
    ("name", "said", "error"),
    [
        pytest.param("no-end-mark", "Hello", "", id="the-end-is-told-after-a-finish-reason"),
        pytest.param("cut-after-a-frame", "Hel", BEFORE, id="cut-between-frames"),
        pytest.param("cut-in-a-frame", "Hel", INSIDE, id="cut-in-a-frame"),
        pytest.param("cut-in-the-usage-after-finish", "Hello", "", id="cut-after-the-finish-reason"),
        pytest.param("unterminated-content", "Hello", INSIDE, id="whole-content-is-said-and-the-cut-told"),
        pytest.param("unterminated-finish", "Hello", "", id="an-unterminated-finish-counts"),
        pytest.param("unterminated-end-mark", "Hello", "", id="an-unterminated-end-mark-counts"),
        pytest.param("unterminated-usage", "Hello", "", id="unterminated-usage-counts"),
    ],
)
@pytest.mark.parametrize("torn", [None, RESET], ids=["eof", "reset"])
def test_the_end_of_the_body(name, said, error, torn):
    told = outcome([wire(name)], torn)
    assert text(told.frames) == said
    assert told.error == (error and torn.message if torn else error)
    assert ("done" in told.frames[-1]) == (not error)
    assert told.usage == (Usage(3, 1) if name == "unterminated-usage" else None)


def test_nothing_at_all_is_a_cut():
    assert outcome([]).error == BEFORE
    assert outcome([b": keep-alive\n\ndata:\n\ndata:\ndata:\n\ndata: : keepalive\n\n"]).error == BEFORE


def test_the_end_is_told_once():
    pipe = translation()
    assert b'"done":true' in pipe.feed(wire("plain"))
    assert pipe.feed(wire("plain")) == b""
    assert pipe.end(RESET) == b""
    assert pipe.error is None


def test_data_in_several_lines_may_be_unterminated():
    stream = wire("data-in-several-lines")
    stream = stream[: stream.rindex(b"\n\ndata: [DONE]")]
    told = outcome([stream])
    assert (text(told.frames), told.done, told.usage) == ("Hello", True, Usage(3, 1))


def test_too_long_a_frame_is_told_with_its_setting():
    pipe = translation(max_frame=300)
    assert pipe.feed(sse(say("Hi")) + b"data: {" + b"x" * 300) == b'data: {"delta":"Hi"}\n\n'
    assert pipe.error is not None
    assert "300 bytes without an end of frame (limits.max_frame_bytes)" in pipe.error.message


def test_after_the_end_mark_no_frame_is_too_long():
    pipe = translation(max_frame=64)
    pipe.feed(b"data: [DONE]\n\n" + b"x" * 100)
    assert (pipe.done, pipe.error) == (True, None)


def test_part_of_a_frame_is_progress_and_part_of_a_comment_is_none():
    pipe = translation()
    for piece, holding in ((b": keep", False), (b"-alive\n\n", False), (b"dat", True), (b"a: {}\n\n", False)):
        pipe.feed(piece)
        assert pipe.holding == holding


def test_frames_are_counted_that_are_more_than_signs_of_life():
    pipe = translation()
    pipe.feed(b": x\n\n" + sse(chunk({"role": "assistant"}), say("a"), say("b")))
    assert pipe.frames == 3
