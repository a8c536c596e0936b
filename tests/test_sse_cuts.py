"""Any bytes, cut anywhere, against an independent reading of the specification; and streams of real providers."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.sse import Decoder, Frame, Reframer
from tests.cuts import at, cuts, drip, telling_cuts
from tests.properties import thorough
from tests.recordings import streams
from tests.whatwg import Event, EventSource, interpret, passed

WIRE = sorted((Path(__file__).parent / "wire" / "openai_chat").glob("*.sse"))

#: What streams are made of, in all orders: enough for every state that a parser can be in.
TOKENS = [
    *(b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r\n"),
    *(b"data: ", b"data:", b"data", b"event: error", b"event:", b"id: 1", b"retry: 5", b": hello", b":", b"foo: bar"),
    *(b'data: {"a":1}\n\n', b"data: : keepalive", b"data: [DONE]", b"[DONE]", b"data: {", b"{", b"x"),
    *(b"event: x\ndata: {", b"event: x\ndata: {}\n\n", b" ", b"\x00"),
    *(b'data: {"a":1}\r\n\r\n', b"event: x\r\ndata: {}\r\n\r\n", b"event: y\ndata: [DONE]\n\n"),
    *(b"\xef\xbb\xbf", b"\xef", b"\xbb", "\u2028\u0085🌍".encode(), b"\xff"),
]
wires = st.lists(st.sampled_from(TOKENS), max_size=14).map(b"".join)
places = st.lists(st.integers(0, 400), max_size=6)


@lru_cache(maxsize=256)
def spoken(wire: bytes) -> list[Event]:
    return interpret(wire)


def frames_of(events: list[Event]) -> list[Frame]:
    return [Frame(event.data, event.type.decode("utf-8", "replace")) for event in events]


def decode(chunks):
    decoder = Decoder()
    return [frame for chunk in chunks for frame in decoder.feed(chunk)]


def check_that_nothing_waits(wire: bytes, chunks: list[bytes]) -> None:
    """Every frame is out when the chunk with its last byte was fed, and nothing else is."""
    due = passed(spoken(wire))
    reframer, client = Reframer(), EventSource()
    read = told = 0
    for chunk in chunks:
        read += len(chunk)
        for byte in reframer.feed(chunk):
            client.take(byte)
        while told < len(due) and due[told].due <= read:
            told += 1
        assert len(client.events) == reframer.frames == told, read
    assert [event[:2] for event in client.events] == [event[:2] for event in due]
    assert reframer.done == any(event.data.startswith(b"[DONE]") for event in due)


def ended(wire: list[bytes]) -> tuple[bytes, bool]:
    """All that a reframer gives, with what it makes of an unterminated last frame."""
    reframer = Reframer()
    out = b"".join(map(reframer.feed, wire))
    return out + reframer.end(), reframer.done


# Any bytes...


@thorough
@given(wire=wires, where=places)
@example(wire=b"data: a\r\n\r\n", where=[8])
@example(wire=b"\xef\xbb\xbfdata: a\n\n", where=[1, 2])
def test_decoder_reads_as_the_specification_says(wire, where):
    frames = frames_of(interpret(wire))
    for chunks in ([wire], drip(wire), at(wire, where)):
        assert decode(chunks) == frames


@thorough
@given(wire=wires, where=places)
@example(wire=b"data: a\n\n\ndata: b\n\n", where=[9])
@example(wire=b"\n\xef\xbb\xbfevent: x\ndata: {}\n\n", where=[])
@example(wire=b"data: a\rid: 1\n\n", where=[])
@example(wire=b"event: a\ndata: {1}\ndata: {2}\n\nevent: b\n\n", where=[])
@example(wire=b"data: a\r\r\n: b\r\n\r\ndata: c\n\r", where=[])
def test_no_frame_waits_for_more_than_its_last_byte(wire, where):
    for chunks in ([wire], drip(wire), at(wire, where)):
        check_that_nothing_waits(wire, chunks)


@thorough
@given(wire=wires, where=places)
@example(wire=b"data: [DONE]\n\r\n", where=[14])
@example(wire=b"id: 1\r\ndata: a\r\n\r\n: x\r\n\r\n", where=[])
def test_what_goes_on_does_not_depend_on_cuts(wire, where):
    whole = ended([wire])
    for chunks in (drip(wire), at(wire, where)):
        assert ended(chunks) == whole


#: Long runs are what the shortcuts take; one frame in them may be unlike the others.
ALIKE = [b'data: {"a":1}', b"event: x\ndata: {}", b"event: y\ndata: b\xff"]
UNLIKE = [
    b"",
    b": c",
    b"data: a\ndata: b",
    b"data:a",
    b"data: \r",
    b"event: x",
    b"data: [DONE]",
    b"id: 1\ndata: {}",
    b"x",
]


@thorough
@given(
    st.sampled_from(ALIKE),
    st.integers(0, 6),
    st.sampled_from(UNLIKE + ALIKE),
    st.integers(0, 6),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    places,
)
def test_runs_are_read_as_the_specification_says(frame, before, unlike, after, end, where):
    run = b"".join(each + b"\n\n" for each in [*[frame] * before, unlike, *[frame] * after]).replace(b"\n", end)
    for wire in (run, run[:-1], b"\n" + run, run + b"data: {"):
        whole = ended([wire])
        for chunks in ([wire], drip(wire), at(wire, where)):
            assert decode(chunks) == frames_of(interpret(wire))
            assert ended(chunks) == whole
            check_that_nothing_waits(wire, chunks)
    assert ended([run, b"data: {"]) == ended([run + b"data: {"])


@thorough
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [b"data: a", b'data: {"a":1}', b"event: x\ndata: a", b"data:\ndata: \xff", b"data: a\n: c"]
            ),
            st.sampled_from([b"\n", b"\r", b"\r\n"]),
            st.sampled_from([b"\n", b"\r", b"\r\n"]),
        ),
        max_size=8,
    ),
    places,
)
def test_frames_that_may_pass_pass_byte_for_byte(frames, where):
    wire = b""
    for lines, end, blank in frames:
        # LF after CR would be one line end: then the blank line is another LF.
        between = b"\r\n" if end == b"\r" and blank == b"\n" else blank
        wire += lines.replace(b"\n", end) + end + between
    for chunks in ([wire], drip(wire), at(wire, where)):
        reframer = Reframer()
        assert b"".join(map(reframer.feed, chunks)) == wire


@thorough
@given(st.binary(max_size=200), places, st.integers(1, 40))
def test_any_bytes_are_taken(wire, where, max_frame):
    for chunks in ([wire], drip(wire), at(wire, where)):
        decoder, reframer = Decoder(max_frame), Reframer(max_frame)
        for chunk in chunks:
            decoder.feed(chunk)
            reframer.feed(chunk)
        decoder.end()
        reframer.end()


# Streams, hand-made and recorded...


@pytest.mark.parametrize("path", WIRE, ids=[path.stem for path in WIRE])
def test_hand_made_streams_are_read_the_same_wherever_they_are_cut(path):
    wire = path.read_bytes()
    frames, whole = frames_of(interpret(wire)), ended([wire])
    assert frames_of(passed(interpret(whole[0] + b"\n\n"))) == frames_of(passed(interpret(wire + b"\n\n")))
    for chunks in cuts(wire):
        assert decode(chunks) == frames
        assert ended(chunks) == whole
    check_that_nothing_waits(wire, drip(wire))


@streams
def test_recorded_streams_leave_frame_by_frame(recording):
    check_that_nothing_waits(recording.body, drip(recording.body))


@streams
def test_recorded_streams_are_read_the_same_wherever_they_are_cut(recording):
    wire = recording.body
    frames, whole = frames_of(spoken(wire)), ended([wire])
    assert decode([wire]) == decode(drip(wire)) == frames
    for chunks in telling_cuts(wire):
        assert ended(chunks) == whole, chunks[0]


@streams
def test_recorded_streams_without_anything_to_take_out_pass_byte_for_byte(recording):
    wire = recording.body
    lines = wire.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    if any(line.startswith((b":", b"id", b"retry")) for line in lines) or not wire.endswith((b"\n\n", b"\r\n\r\n")):
        pytest.skip("has comments, ids or an unterminated end")
    assert ended([wire])[0] == wire
