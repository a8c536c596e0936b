"""A frame that fits the template goes on as it would have gone the long way: short way = long way."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy import template
from proxy.dialects.anthropic_messages import errors as messages_errors
from proxy.dialects.anthropic_messages.tap import Tap
from proxy.dialects.openai_chat import errors as chat_errors
from proxy.dialects.openai_chat.tap import ChatTap
from proxy.pipes import Passthrough
from proxy.template import Template
from tests.cuts import at
from tests.dialects import anthropic_messages, openai_chat
from tests.dialects.anthropic_messages import nothing
from tests.properties import thorough
from tests.recordings import streams
from tests.wire import CHAT, wire

DIALECTS = {"openai_chat": (ChatTap, chat_errors.frame), "anthropic_messages": (Tap, messages_errors.frame)}
dialects = pytest.mark.parametrize("dialect", DIALECTS)

# Both ways...


class Told(NamedTuple):
    """What a pipe gives at one step, and what it then thinks of the stream."""

    out: bytes
    frames: int
    finished: bool
    done: bool
    error: str
    usage: object
    holding: bool


def pipe(dialect: str, max_frame: int = 2**20, **options: Any) -> Passthrough:
    tap, fail = DIALECTS[dialect]
    return Passthrough(tap(nothing, **options), fail, max_frame)


def steps(through: Passthrough, reads: list[bytes]) -> list[Told]:
    """Feed reads, beyond the end, too, and then end the body."""

    def told(out: bytes) -> Told:
        error = through.error.message if through.error else ""
        state = (through.frames, through.finished, through.done, error, through.usage, through.holding)
        return Told(out, *state)

    return [*(told(through.feed(read)) for read in reads), told(through.end())]


def both(dialect: str, reads: list[bytes], max_frame: int = 2**20, **options: Any) -> list[Told]:
    """What the short way tells, which is what the long way does."""
    long = pipe(dialect, max_frame, **options)
    long._template = Template((), max_frame)  # it never fits
    short = steps(pipe(dialect, max_frame, **options), reads)
    assert short == steps(long, reads)
    return short


def one_by_one(stream: bytes, times: int = 1) -> list[bytes]:
    """One frame a read, each this many times: a frame fits itself if it fits anything."""
    frames = re.findall(rb"(?s).+?(?:(?:\r\n|\n|\r){2}|\Z)", stream)
    return [frame for frame in frames for _ in range(times)]


def said(dialect: str, text: bytes) -> bytes:
    """A frame that says ``text`` as it is, escaped or not."""
    return FRAMES[dialect].replace(b"%", text)


FRAMES = {
    "openai_chat": openai_chat.sse(openai_chat.say("%")),
    "anthropic_messages": anthropic_messages.sse(anthropic_messages.said(0, "%")),
}
ENDS = {"openai_chat": b"data: [DONE]\n\n", "anthropic_messages": anthropic_messages.sse(anthropic_messages.END)}
ERRORS = {
    "openai_chat": openai_chat.sse({"error": {"message": "no"}}),
    "anthropic_messages": anthropic_messages.sse({"type": "error", "error": {"type": "api_error", "message": "no"}}),
}

# Any streams...

#: What `%` becomes: words that mean something elsewhere, and all that may end a string, a line or a frame.
TEXTS = [
    *(b"a", b"word", b" and", b"", "é\u2028🌍".encode(), b"\xff", b"\\", b"x\\", b'"', b'\\"', b'say \\"', b'x\\\\"'),
    *(b"error", b"usage", b"finish_reason", b'"error"', b'","error":{"message":"no"},"x":"', b'","finish_reason":"x'),
    *(b'"usage":null', b'","usage":{"prompt_tokens":3,"completion_tokens":1},"x":"', b"content", b'","content":"'),
    *(b"[DONE]", b"data: [DONE]", b"event: error", b"message_", b"message_stop", b'"message_stop"', b"event: error\n"),
    *(b"\r", b"\n", b"\r\n", b"\n\n", b"\r\n\r\n", b"\rid: 1", b"\nid: 1\n", b"\n\nid: 1\n\n", b"\xef\xbb\xbf", b"{"),
    *(b"\n\ndata: {", b"\n\ndata: [DONE]\n\n", b'"}\n\nevent: error\ndata: {"x":"', b"x" * 40, b"x" * 400),
]
#: Frames with a text, `%`, and with something else that may differ, `#`.
ALIKE = {
    "openai_chat": [
        FRAMES["openai_chat"],
        openai_chat.sse(openai_chat.say("%", usage=None, obfuscation="#")),
        openai_chat.sse({"seq": "#", **openai_chat.chunk({"content": "", "reasoning_content": "%"})}),
        openai_chat.sse(openai_chat.chunk({"tool_calls": [{"index": 0, "function": {"arguments": "%"}}]})),
        openai_chat.sse(openai_chat.say("%"), end=b"\r\n"),
        b'data: {"choices": [{"delta": {"content": "%"}, "finish_reason": null}], "content":"%"}\n\n',
        b'data:{"content":"%"}\n\n',
        b'event: #\ndata: {"content":"%"}\n\n',
        b'id: 7\ndata: {"content":"%"}\n\n',
    ],
    "anthropic_messages": [
        FRAMES["anthropic_messages"],
        anthropic_messages.sse(anthropic_messages.delta(0, "thinking", thinking="%", p="#")),
        anthropic_messages.sse(anthropic_messages.delta(1, "input_json", partial_json="%")),
        b'data: {"type":"content_block_delta","delta":{"n":#,"text":"%"}}\n\n',
        b'event: #\ndata: {"type": "content_block_delta", "text":"%"}\n\n',
        b'event: content_block_delta\r\ndata: {"text":"%"}\r\n\r\n',
        b': hi\nevent: content_block_delta\ndata: {"text":"%"}\n\n',
    ],
}
COUNTS = openai_chat.usage(3, 1)
UNLIKE = {
    "openai_chat": [
        *(ENDS["openai_chat"], ERRORS["openai_chat"], b"event: error\ndata: no\n\n", b'data: {"x"\ndata: :1}\n\n'),
        *(openai_chat.sse(openai_chat.chunk(finish="stop", **more)) for more in ({}, {"usage": COUNTS})),
        openai_chat.sse({"content": "a", "usage": COUNTS, "choices": []}),
    ],
    "anthropic_messages": [
        *(ENDS["anthropic_messages"], ERRORS["anthropic_messages"], b"data: [DONE]\n\n", b"event: ping\ndata: {}\n\n"),
        anthropic_messages.sse(anthropic_messages.start()),
        anthropic_messages.sse(anthropic_messages.stopped()),
        anthropic_messages.sse(anthropic_messages.opened(0), anthropic_messages.closed(0)),
    ],
}
NOISE = [b"", b"\n", b"\r\n", b"\r", b": c\n\n", b"id: 1\n\n", b"retry: 5\n", b"\xef\xbb\xbf", b"data: {"]
often = st.sampled_from([True, True, True, True, True, False])
usual = st.sampled_from(TEXTS[:3]) | st.sampled_from(TEXTS)


@st.composite
def reads(draw: st.DrawFn, dialect: str) -> list[bytes]:
    """Mostly frames of one shape, and mostly one a read: else nothing would ever fit."""
    home, out = draw(st.sampled_from(ALIKE[dialect])), [b""]
    rest = st.sampled_from(UNLIKE[dialect] + NOISE)
    for _ in range(draw(st.integers(1, 14))):
        if draw(often):
            shape = home if draw(often) else draw(st.sampled_from(ALIKE[dialect]))
            differs = draw(st.sampled_from([b"1", b"1", b"1", b"23", b"error", b""]))
            frame = shape.replace(b"#", differs).replace(b"%", draw(usual))
        else:
            frame = draw(rest)
        if draw(often):
            out.append(frame)
        else:  # cut anywhere, or joined with what came before
            first, *more = at(frame, draw(st.lists(st.integers(0, 400), max_size=2))) or [b""]
            out[-1] += first
            out += more
    return out


@dialects
@thorough
@given(st.data(), st.sampled_from([2**20, 300]), st.booleans())
def test_both_ways_tell_the_same(dialect, data, max_frame, asked):
    options = {"include_usage": asked} if dialect == "openai_chat" else {}
    for _ in range(4):  # a stream costs less to try than to make up
        both(dialect, data.draw(reads(dialect)), max_frame, **options)


@dialects
@thorough
@given(usual, usual, usual)
@example(b"a", b'"},"error":{"message":"no"},"x":{"y":"', b"a")
@example(b'\\"', b"\\", b"b")
def test_any_three_texts_in_a_row_are_told_the_same(dialect, first, second, third):
    for shape in ALIKE[dialect]:
        both(dialect, [shape.replace(b"#", b"1").replace(b"%", text) for text in (first, second, third, b"a")])


@pytest.mark.parametrize(
    ("dialect", "frame", "texts"),
    [
        ("anthropic_messages", b'event: "text":"%"a":1}\n\n', [b"\ndata: {", b"x"]),
        ("anthropic_messages", b'event: message_stop\ndata: {"text":"%"}\n\n', [b"a", b"message_"]),
        ("openai_chat", b'data: {"\\u0065rror":{"message":"no"},"content":"%"}\n\n', [b"a", b"error"]),
    ],
    ids=["a-text-that-ends-in-the-next-line", "an-end-mark-without-its-type", "an-error-behind-an-escape"],
)
def test_odd_frames_are_told_the_same(dialect, frame, texts):
    both(dialect, [frame.replace(b"%", text) for text in texts])


# Streams, hand-made and recorded...


@dialects
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("name", CHAT)
def test_hand_made_streams_are_told_the_same(dialect, name, times):
    both(dialect, one_by_one(wire(name), times))


@dialects
@streams
def test_recorded_streams_are_told_the_same(dialect, recording):
    for times in (1, 3):
        both(dialect, one_by_one(recording.body, times))


# When the short way is taken...

WORDS = [b"Hel", b"lo", b",", b" error", b"", "é".encode(), b" [DONE", b"\\n", b"."]


def asked(through: Passthrough, reads: list[bytes]) -> list[bytes]:
    """What was looked at of these reads, all of which pass."""
    looked: list[bytes] = []
    plain = through._tap.plain
    through._tap.plain = lambda run: looked.append(run) or plain(run)  # type: ignore[method-assign]
    assert [through.feed(read) for read in reads] == reads
    assert through.frames == len(reads)
    return looked


@pytest.mark.parametrize("frame", ALIKE["openai_chat"][:4], ids=["text", "padded-text", "thinking", "tool-call"])
def test_of_a_usual_chat_stream_the_first_words_and_the_end_are_looked_at(frame):
    chunk, sse = openai_chat.chunk, openai_chat.sse
    words = [frame.replace(b"%", word) for word in WORDS]
    first, finish = sse(chunk({"role": "assistant", "content": ""})), sse(chunk(finish="stop"))
    through = pipe("openai_chat")
    assert asked(through, [first, *words, finish])[:3] == [first, words[0], finish]
    assert through.feed(ENDS["openai_chat"]) == ENDS["openai_chat"]
    assert (through.finished, through.done) == (True, True)


def test_of_a_usual_message_stream_each_blocks_first_words_and_the_end_are_looked_at():
    opened, delta, closed = anthropic_messages.opened, anthropic_messages.delta, anthropic_messages.closed
    head = one_by_one(anthropic_messages.sse(anthropic_messages.start(), opened(0), anthropic_messages.PING))
    words = [said("anthropic_messages", word) for word in WORDS]
    next_block = one_by_one(anthropic_messages.sse(closed(0), opened(1)))
    calls = [anthropic_messages.sse(delta(1, "input_json", partial_json=text)) for text in ("{", " ", "1", "}")]
    tail = one_by_one(anthropic_messages.sse(closed(1), anthropic_messages.stopped(), anthropic_messages.END))
    through = pipe("anthropic_messages")
    looked = asked(through, [*head, *words, *next_block, *calls, *tail])
    assert looked == [*head, words[0], *next_block, calls[0], *tail]
    assert (through.finished, through.done) == (True, True)


@dialects
def test_frames_that_differ_elsewhere_are_learned_a_few_times_only(dialect):
    reads = [FRAMES[dialect].replace(b'"%"', b'"a","n":%d' % n) for n in range(10, 90)]
    through = pipe(dialect)
    learned = []
    for read in reads:
        assert through.feed(read) == read
        learned.append(through._template._front + through._template._back)
    assert len(set(learned)) == template._TRIES
    assert through._template.fits(reads[template._TRIES - 1])
    assert not any(map(through._template.fits, reads[template._TRIES :]))


@dialects
def test_quotes_in_a_text_cost_no_more_than_a_look_at_its_frame(dialect):
    texts = [b'say \\"a\\"' if number % 10 == 5 else b"a" for number in range(500)]
    assert len(asked(pipe(dialect), [said(dialect, text) for text in texts])) <= 1 + 50


# What is not a frame like that...


@dialects
def test_a_frame_that_fits_but_for_its_size_is_overlong(dialect):
    reads = [said(dialect, b"a"), said(dialect, b"b")]
    limit = len(reads[0]) + 9
    most, more = said(dialect, b"x" * 10), said(dialect, b"x" * 11)
    assert asked(pipe(dialect, limit), [*reads, most]) == reads[:1]
    *_, told, after, _ = both(dialect, [*reads, most, more, reads[0]], limit)
    assert told.error.startswith(f"the provider sent more than {limit} bytes without an end of frame")
    assert (told.out, after.out, after.frames) == (b"", b"", 3)


@dialects
def test_a_frame_in_pieces_is_told_when_it_is_whole(dialect):
    a, b = said(dialect, b"a"), said(dialect, b"b")
    for place in range(1, len(b)):
        told = both(dialect, [a, a, b[:place], b[place:], a])
        assert [step.out for step in told] == [a, a, b"", b, a, b""]
        assert [step.frames for step in told] == [1, 2, 2, 3, 4, 4]
        assert [step.holding for step in told] == [False, False, True, False, False, False]


@dialects
def test_a_read_that_fits_belongs_to_the_frame_that_is_unfinished(dialect):
    a = said(dialect, b"a")
    for begun in [b"data: {", b": c", b"id: 1", b"event: error\n", b'data: {"x"\n', *(a[:n] for n in range(1, len(a)))]:
        told = both(dialect, [a, a, begun, a, a, a])
        assert told[2].out == b""
    for begun in (b": c\n", b"\r", b"data: {}\r\n\r", b"\xef"):
        both(dialect, [a, a, begun, a, a, a])


@dialects
def test_what_comes_with_a_fitting_frame_is_not_taken_for_it(dialect):
    a = said(dialect, b"a")
    for read in (a + a, a + b"data: {", a + b"\n", b"\n" + a, b": c\n\n" + a, b"x" + a):
        both(dialect, [a, a, read, a, read, read, a, a])


@dialects
def test_a_byte_that_differs_is_seen(dialect):
    a = said(dialect, b"a")
    for place in range(len(a)):
        for byte in (b'"', b"\n", b"\r", b":", b"\\", b""):
            other = a[:place] + byte + a[place + 1 :]
            both(dialect, [a, other, other, a])


@dialects
def test_frames_that_matter_are_not_learned(dialect):
    for frame in UNLIKE[dialect]:
        both(dialect, [said(dialect, b"a"), frame, frame, frame, said(dialect, b"b")])


def test_a_quote_is_not_both_ends_of_a_text():
    learned = Template((b'"text":"',), 99)
    learned.learn(b'data: {"text":"a"}\n\n')
    assert learned.fits(b'data: {"text":""}\n\n')
    assert not learned.fits(b'data: {"text":"}\n\n')


@dialects
@pytest.mark.parametrize("last", [ENDS, ERRORS], ids=["end-mark", "error"])
def test_nothing_passes_after_the_end(dialect, last):
    a = said(dialect, b"a")
    for reads in ([a, a, last[dialect]], [a, a, a + last[dialect]], [a, a, last[dialect] + a]):
        *_, ended, more, again, _ = both(dialect, [*reads, a, a])
        assert ended.done != bool(ended.error)
        assert more == again == ended._replace(out=b"")


def test_nothing_passes_after_an_end_mark_that_anthropic_does_not_have():
    a = said("anthropic_messages", b"a")
    assert [told.out for told in both("anthropic_messages", [a, a, b"data: [DONE]\n\n", a])] == [a, a, b"", b"", b""]
