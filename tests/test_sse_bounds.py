"""What a frame may cost: its size has one bound wherever it is cut, and its work is linear however it drips in."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.openai_chat.tap import ChatTap
from proxy.pipes import Passthrough
from proxy.sse import Decoder, Frame, Reframer
from tests.cuts import at, cuts, drip
from tests.dialects.openai_chat import nothing
from tests.properties import thorough

MAX = 32

ENDS = [pytest.param(b"\n", id="lf"), pytest.param(b"\r", id="cr"), pytest.param(b"\r\n", id="crlf")]


def frame(size: int, end: bytes = b"\n") -> bytes:
    """A frame of ``size`` bytes, where a line end is counted as one."""
    return b"data: {" + b"x" * (size - 9) + end + end


def fed(parser: Decoder | Reframer, chunks: list[bytes]) -> tuple[object, bool]:
    """What came of it, and whether it was too long."""
    outs = [parser.feed(chunk) for chunk in chunks]
    whole = b"".join(outs) if isinstance(parser, Reframer) else [f for frames in outs for f in frames]
    return whole, parser.overlong


# Size...


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(
    ("before", "passes"),
    [
        pytest.param(b"", b"", id="first"),
        pytest.param(b"data: {}\n\n", b"data: {}\n\n", id="second"),
        pytest.param(b"data: {}\n\n\n", b"data: {}\n\n", id="after-a-blank-line-too-many"),
        pytest.param(b": x\n\n", b"", id="after-a-comment"),
        pytest.param(b"\n", b"", id="after-a-blank-line"),
    ],
)
def test_a_frame_of_the_largest_size_passes(before, passes, end):
    wire = before.replace(b"\n", end) + frame(MAX, end)
    for chunks in cuts(wire):
        assert fed(Reframer(MAX), chunks) == (passes.replace(b"\n", end) + frame(MAX, end), False)
        assert fed(Decoder(MAX), chunks)[1] is False


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(
    "long",
    [
        pytest.param(frame(MAX + 1), id="one-byte-more"),
        pytest.param(frame(9 * MAX), id="much-more"),
        pytest.param(b"data: {" + b"x" * MAX, id="a-line-that-does-not-end"),
        pytest.param(b"data: x\n" * MAX, id="a-frame-that-does-not-end"),
        pytest.param(b": " + b"x" * MAX, id="a-comment-that-does-not-end"),
        pytest.param(b"x" * (MAX + 1), id="garbage"),
    ],
)
def test_a_larger_frame_is_an_end_after_what_was_whole(long, end):
    first = b'data: {"a"}\n\n'.replace(b"\n", end)
    wire = first + long.replace(b"\n", end)
    for chunks in cuts(wire):
        assert fed(Reframer(MAX), chunks) == (first, True), chunks
        assert fed(Decoder(MAX), chunks) == ([Frame(b'{"a"}')], True), chunks


def test_after_too_much_nothing_is_heard():
    for parser in (Decoder(MAX), Reframer(MAX)):
        parser.feed(b"x" * (MAX + 1))
        assert not parser.feed(b"\n\ndata: {}\n\n")
        assert not parser.end()


def test_what_follows_the_end_mark_has_no_size():
    for chunks in cuts(b"data: [DONE]\n\n" + b"x" * 2 * MAX):
        reframer = Reframer(MAX)
        assert fed(reframer, chunks) == (b"data: [DONE]\n\n", False)
        assert reframer.done


def test_many_frames_in_one_read_may_be_larger_than_one_frame():
    wire = frame(MAX) * 10 + b"data: [DONE]\n\n"
    for chunks in ([wire], drip(wire), [b"data: {" + wire[7:20], wire[20:]]):
        assert fed(Reframer(MAX), chunks) == (wire, False)


TOKENS = [b"data: x", b"data: {", b"xxxxxxx", b"\n", b"\r", b"\r\n", b"\n\n", b": c", b"data: [DONE]"]


@thorough
@given(
    st.lists(st.sampled_from(TOKENS), max_size=20).map(b"".join),
    st.lists(st.integers(0, 200), max_size=5),
    st.integers(8, 24),
)
def test_the_bound_is_the_same_wherever_the_wire_is_cut(wire, where, most):
    for parser in (Decoder, Reframer):
        whole = fed(parser(most), [wire])
        assert fed(parser(most), drip(wire)) == whole
        assert fed(parser(most), at(wire, where)) == whole


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("line", [b"data: {xxxxxxx", b"xxxxxx", b": x", b"data: x"])
def test_nothing_is_kept_beyond_the_bound(line, end):
    for parser in (Decoder(MAX), Reframer(MAX)):
        for _ in range(50):
            parser.feed(end + line if isinstance(parser, Decoder) else line + end)
            assert held(parser) <= 3 * MAX  # a line, what it says, and the second byte of CRLF


def held(thing: object) -> int:
    """Bytes that an object keeps, in whatever attributes."""
    if isinstance(thing, bytes):
        return len(thing)
    if isinstance(thing, list):
        return sum(map(held, thing))
    return sum(map(held, vars(thing).values())) if hasattr(thing, "__dict__") else 0


# Work...


def feeder(kind: str):
    """What a relay does with each chunk."""
    match kind:
        case "decoder":
            parser = Decoder()
            return lambda chunk: (parser.feed(chunk), parser.holding)
        case _:
            pipe = Passthrough(ChatTap(nothing), lambda error: b"", 2**24)
            return lambda chunk: (pipe.feed(chunk), pipe.holding)


def work(kind: str, wire: list[bytes]) -> int:
    """Bytes that were allocated on the way: what is joined again and again is counted again and again."""
    feed, total = feeder(kind), 0
    tracemalloc.start()
    try:
        for chunk in wire:
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            feed(chunk)
            total += tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    return total


@pytest.mark.parametrize("kind", ["decoder", "pipe"])
@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"data: {", id="a-line"),
        pytest.param(b"data: a\r\n\r\ndata: {", id="a-line-after-crlf"),
        pytest.param(b"foo", id="a-line-of-another-kind"),
        pytest.param(b": ", id="a-comment"),
    ],
)
def test_the_work_for_a_dripping_line_grows_as_the_line_does(kind, head):
    short, long = (work(kind, drip(head + b"x" * size)) for size in (2_000, 8_000))
    assert long < 6 * short  # four times as long; copied anew for every byte it would be 16 times as much


@pytest.mark.parametrize("kind", ["decoder", "pipe"])
def test_the_work_for_a_frame_of_many_lines_grows_as_their_number_does(kind):
    short, long = (work(kind, [b"data: x\n"] * size) for size in (2_000, 8_000))
    assert long < 6 * short


def test_a_long_line_may_come_byte_by_byte():
    feed, wire = feeder("pipe"), b'data: {"a":"' + b"x" * 2**18 + b'"}\n\n'
    assert b"".join([feed(byte)[0] for byte in drip(wire)]) == wire
