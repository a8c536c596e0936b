"""Frames out of bytes: what each quirk of the wire means, wherever the network cuts it."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.sse import DONE, Decoder, Frame, Reframer, comment, encode, parse_field, split, split_clean
from tests.cuts import cuts, drip
from tests.whatwg import interpret

BOM = b"\xef\xbb\xbf"
WIRE = sorted((Path(__file__).parent / "wire" / "openai_chat").glob("*.sse"))

#: What str.splitlines() takes for line ends.
UNICODE = "\u2028\u0085\u2029\x0b\x0c🌍".encode()

LF, CR, CRLF = b"\n", b"\r", b"\r\n"
ENDS = [pytest.param(LF, id="lf"), pytest.param(CR, id="cr"), pytest.param(CRLF, id="crlf")]


def decode(chunks, **options):
    decoder = Decoder(**options)
    return [frame for chunk in chunks for frame in decoder.feed(chunk)]


def reframe(chunks, **options):
    reframer = Reframer(**options)
    return b"".join(map(reframer.feed, chunks))


# What frames mean...


@pytest.mark.parametrize(
    ("wire", "frames"),
    [
        pytest.param(b"data: a\n\n", [Frame(b"a")], id="lf"),
        pytest.param(b"data: a\r\n\r\n", [Frame(b"a")], id="crlf"),
        pytest.param(b"data: a\r\r", [Frame(b"a")], id="cr"),
        pytest.param(b"data: a\n\r\ndata: b\r\n\ndata: c\r\n\r", [Frame(b"a"), Frame(b"b"), Frame(b"c")], id="mixed"),
        pytest.param(b"data: a\n\rdata: b\r\n\n", [Frame(b"a"), Frame(b"b")], id="lf-cr-is-two-line-ends"),
        pytest.param(b"data: a\n\ndata: b\n\n", [Frame(b"a"), Frame(b"b")], id="two"),
        pytest.param(b"data: a\rb\r\n\r\n", [Frame(b"a")], id="cr-among-crlf-is-a-line-end"),
        pytest.param(b"event: x\ndata: a\n: c\nevent: y\ndata: b\n\n", [Frame(b"a\nb", "y")], id="type-data-type-data"),
        pytest.param(b"data:a\n\n", [Frame(b"a")], id="no-space-after-the-colon"),
        pytest.param(b"data:  a\n\n", [Frame(b" a")], id="one-space-only-is-taken"),
        pytest.param(b"data: a\ndata: b\n\n", [Frame(b"a\nb")], id="lines-of-data-are-joined"),
        pytest.param(b"data: a\ndata:\ndata: b\n\n", [Frame(b"a\n\nb")], id="an-empty-line-of-data-counts"),
        pytest.param(b"data\n\n", [Frame(b"")], id="data-without-a-colon-is-empty"),
        pytest.param(b": hello\n\ndata: a\n\n", [Frame(b"a")], id="comment-is-not-a-frame"),
        pytest.param(b"data: a\n: hello\ndata: b\n\n", [Frame(b"a\nb")], id="comment-inside-a-frame"),
        pytest.param(b":\n\n", [], id="empty-comment"),
        pytest.param(b"\n\n\n", [], id="blank-lines"),
        pytest.param(b"event: ping\n\ndata: a\n\n", [Frame(b"a")], id="a-type-without-data-is-forgotten"),
        pytest.param(b"event: x\ndata: a\n\ndata: b\n\n", [Frame(b"a", "x"), Frame(b"b")], id="one-frame-is-typed"),
        pytest.param(b"event: x\nevent: y\ndata: a\n\n", [Frame(b"a", "y")], id="the-last-type-counts"),
        pytest.param(b"event: \xff\ndata: a\n\n", [Frame(b"a", "\ufffd")], id="a-type-that-is-not-utf-8"),
        pytest.param(b"id: 1\nretry: 5\nfoo: bar\ndata: a\n\n", [Frame(b"a")], id="other-fields-mean-nothing"),
        pytest.param(b"Data: a\n data: b\ndata : c\n\n", [], id="names-are-exact"),
        pytest.param(BOM + b"data: a\n\n", [Frame(b"a")], id="bom"),
        pytest.param(BOM + BOM + b"data: a\n\n", [], id="one-bom-only"),
        pytest.param(b"data: a\n\n" + BOM + b"data: b\n\n", [Frame(b"a")], id="a-bom-later-is-not-one"),
        pytest.param(b"data: a", [], id="unfinished-line-is-not-told"),
        pytest.param(b"data: a\n", [], id="unfinished-frame-is-not-told"),
        pytest.param(b"data: " + UNICODE + b"\n\n", [Frame(UNICODE)], id="unicode-line-ends-are-text"),
        pytest.param(b"data: \x00\xff\xfe\n\n", [Frame(b"\x00\xff\xfe")], id="data-is-bytes"),
    ],
)
def test_frames_do_not_depend_on_where_the_wire_is_cut(wire, frames):
    assert [Frame(event.data, event.type.decode("utf-8", "replace")) for event in interpret(wire)] == frames
    for chunks in cuts(wire):
        assert decode(chunks) == frames


@pytest.mark.parametrize(
    ("line", "field"),
    [
        pytest.param(b"data: a: b", (b"data", b"a: b"), id="the-first-colon-counts"),
        pytest.param(b"data", (b"data", b""), id="no-colon"),
        pytest.param(b": x", (b"", b"x"), id="comment"),
    ],
)
def test_field(line, field):
    assert parse_field(line) == field


def test_what_is_written_can_be_read():
    wire = comment(b"keep-alive") + encode(b'{"a":1}') + encode(b"{}", "error") + encode(DONE)
    assert decode([wire]) == [Frame(b'{"a":1}'), Frame(b"{}", "error"), Frame(DONE)]


@pytest.mark.parametrize(
    ("wire", "frame"),
    [
        pytest.param(b"data: a", Frame(b"a"), id="in-a-line"),
        pytest.param(b"data: a\n", Frame(b"a"), id="after-a-line"),
        pytest.param(b"data: a\r", Frame(b"a"), id="after-a-cr"),
        pytest.param(b"event: x\ndata: a\ndata: b", Frame(b"a\nb", "x"), id="in-the-second-line"),
        pytest.param(b"data: z\n\n", None, id="after-a-frame"),
        pytest.param(b"data: z\n\n: hello", None, id="in-a-comment"),
        pytest.param(b"event: x", None, id="without-data"),
        pytest.param(b"", None, id="nothing-came"),
    ],
)
def test_decoder_tells_an_unterminated_frame_at_the_end(wire, frame):
    for chunks in cuts(wire) if wire else [[]]:
        decoder = Decoder()
        for chunk in chunks:
            decoder.feed(chunk)
        assert decoder.end() == frame
        assert decoder.end() is None


# Passing frames on...


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([b'data: {"a":1}', b""], id="one-line"),
        pytest.param([b'data:{"a":1}', b""], id="no-space"),
        pytest.param([b"data: a", b"data: b", b""], id="two-lines-of-data"),
        pytest.param([b"event: x", b'data: {"a":1}', b""], id="a-type"),
        pytest.param([b"event: x", b'data: {"a":1}', b"", b"event: y", b"data: {}", b""], id="types"),
        pytest.param([b"data: a", b": not said aloud", b""], id="a-comment-inside"),
        pytest.param([b"foo: bar", b"data: a", b""], id="an-unknown-field"),
        pytest.param([b'data: {"a":1}', b"", b'data: {"b":2}', b"", b"data: c", b""], id="several"),
        pytest.param([b'data: {"a":1}', b"", b"data: [DONE]", b""], id="end-mark"),
        pytest.param([b"data: " + UNICODE, b""], id="unicode-line-ends"),
        pytest.param([b"data: a:", b"data: : b", b""], id="colons-in-data"),
    ],
)
def test_whole_frames_pass_byte_for_byte(lines, end):
    wire = end.join([*lines, b""])
    for chunks in cuts(wire):
        assert reframe(chunks) == wire, chunks


def test_frames_of_mixed_line_ends_pass_byte_for_byte():
    wire = b"data: a\n\r\ndata: b\r\n\ndata: c\r\r\nevent: x\rdata: d\n\rdata: e\n\n"
    for chunks in cuts(wire):
        assert reframe(chunks) == wire, chunks


@pytest.mark.parametrize("end", ENDS)
def test_the_end_mark_is_given_on_at_once_and_the_same_wherever_it_is_cut(end):
    wire = end.join([b'data: {"a":1}', b"", b"data: [DONE]", b"", b""])
    for chunks in cuts(wire):
        assert reframe(chunks) == wire, chunks


A, JSON, MARK = [b"data: a", b""], [b'data: {"a":1}', b""], [b"data: [DONE]", b""]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(
    ("lines", "left"),
    [
        pytest.param([b"id: 1", *A], A, id="id"),
        pytest.param([b"data: a", b"retry: 3000", b""], A, id="retry"),
        pytest.param([b"id", b"retry:5", *A], A, id="id-without-a-colon"),
        pytest.param([b"id: 7", b"", *A], A, id="a-frame-of-an-id-only"),
        pytest.param([b"retry: 7", b"", *A], A, id="a-frame-of-retry-only"),
        pytest.param(
            [b"event: x", b"data: {", b"data: {", b"", b"event: y", b"", *A],
            [b"event: x", b"data: {", b"data: {", b"", *A],
            id="a-type-without-data-after-data-in-two-lines",
        ),
        pytest.param([b": hello", b"", *A], A, id="comment"),
        pytest.param([b":", b"", b":", b"", *A], A, id="empty-comments"),
        pytest.param([b"event: ping", b"", *A], A, id="a-type-without-data"),
        pytest.param([b"data:", b"", *A], A, id="empty-data"),
        pytest.param([b"data", b"", b"data: ", b"", *A], A, id="empty-data-in-other-ways"),
        pytest.param([b"data:", b"data:", b"", *A], A, id="two-lines-of-empty-data"),
        pytest.param([b"event: x", b"data:", b"", *A], A, id="empty-data-with-a-type"),
        pytest.param([b"data: : keepalive", b"", *A], A, id="a-comment-that-became-data"),
        pytest.param([b"data:: OPENROUTER", b"", *A], A, id="the-same-without-a-space"),
        pytest.param([b"", b"", *A, b"", b""], A, id="blank-lines"),
        pytest.param([*JSON, b": x", b"", *JSON], [*JSON, *JSON], id="comment-between"),
        pytest.param([*JSON, b"", b"", *JSON], [*JSON, *JSON], id="blank-lines-between"),
        pytest.param([*MARK, b"data: more", b""], MARK, id="after-the-end-mark"),
        pytest.param([*JSON, *MARK, *JSON, b": x", b""], [*JSON, *MARK], id="frames-after-the-end-mark"),
        pytest.param([*MARK, *MARK], MARK, id="a-second-end-mark"),
    ],
)
def test_what_harms_clients_is_taken_out(lines, left, end):
    wire = end.join([*lines, b""])
    for bom in (b"", BOM):
        for chunks in cuts(bom + wire):
            assert reframe(chunks) == end.join([*left, b""]), chunks


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"data: :\n\n", id="a-bare-colon"),
        pytest.param(b"data: {: x}\n\n", id="a-colon-later"),
        pytest.param(b"data:  : x\n\n", id="a-second-space-before-it"),
        pytest.param(b'data: {"content":"[DONE]"}\n\ndata: {"a":1}\n\n', id="the-end-mark-inside-json"),
        pytest.param(b'data: x [DONE]\n\ndata: {"a":1}\n\n', id="the-end-mark-not-at-the-beginning"),
        pytest.param(b"data: ide: x\n\n", id="data-that-looks-like-a-field"),
        pytest.param(b"idea: x\ndata: a\n\n", id="a-field-that-begins-with-id"),
    ],
)
def test_what_only_looks_like_it_stays(wire):
    for chunks in cuts(wire):
        assert reframe(chunks) == wire


def test_a_crlf_parted_by_the_network_is_put_together_again():
    reframer = Reframer()
    assert reframer.feed(b"data: a\r\n\r") == b"data: a\r\n\r"  # the frame does not wait: CR is a line end
    assert reframer.feed(b"\n") == b"\n"
    assert reframer.feed(b"data: b\r") == b""
    assert reframer.feed(b"\n\r\n") == b"data: b\r\n\r\n"
    assert reframer.frames == 2


@pytest.mark.parametrize("line", [b": comment", b"id: 7", b"data:"])
def test_no_half_of_a_crlf_is_left_of_what_is_taken_out(line):
    assert reframe(drip(line + b"\r\n\r\ndata: a\r\n\r\n")) == b"data: a\r\n\r\n"


def test_what_is_taken_out_does_not_join_two_line_ends_to_one():
    for chunks in cuts(b"data: a\rid: 1\n\n"):
        assert reframe(chunks) == b"data: a\r\r\n", chunks  # CR, then CRLF: LF alone would belong to the CR


@pytest.mark.parametrize(
    ("wire", "completed"),
    [
        pytest.param(b'data: {"a":1}', b'data: {"a":1}\n\n', id="in-a-line"),
        pytest.param(b'data: {"a":1}\n', b'data: {"a":1}\n\n', id="after-a-line"),
        pytest.param(b"event: x\ndata: a", b"event: x\ndata: a\n\n", id="with-a-type"),
        pytest.param(b"data: a\r\n\r\ndata: b", b"data: b\r\n\r\n", id="crlf-stays-crlf"),
        pytest.param(b"data: a\r\n\r\ndata: b\r\n", b"data: b\r\n\r\n", id="crlf-after-a-line"),
        pytest.param(b"data: {}\r\n\r\ndata: {b}", b"data: {b}\r\n\r\n", id="crlf-after-a-clean-run"),
        pytest.param(b"id: 1\ndata: a", b"data: a\n\n", id="an-id-goes"),
        pytest.param(b"data: [DONE]", b"data: [DONE]\n\n", id="end-mark"),
        pytest.param(b"data: a\n\n", b"", id="nothing-is-left"),
        pytest.param(b": hello", b"", id="comment"),
        pytest.param(b"data:", b"", id="empty-data"),
        pytest.param(b"data: [DONE]\n\ndata: x", b"", id="after-the-end-mark"),
        pytest.param(b"", b"", id="nothing-came"),
    ],
)
def test_reframer_completes_an_unterminated_frame_at_the_end(wire, completed):
    for chunks in cuts(wire) if wire else [[]]:
        reframer = Reframer()
        for chunk in chunks:
            reframer.feed(chunk)
        frames = reframer.frames
        assert reframer.end() == completed
        assert reframer.frames == frames + bool(completed)
        assert reframer.end() == b""
    assert reframer.done == (b"[DONE]" in wire)


@pytest.mark.parametrize(
    ("wire", "holding"),
    [
        pytest.param(b"", False, id="nothing"),
        pytest.param(b"data: a\n\n", False, id="whole-frames"),
        pytest.param(b"data: a\n\n\n", False, id="blank-lines"),
        pytest.param(b": keep-al", False, id="part-of-a-comment"),
        pytest.param(b": keep-alive\n", False, id="a-comment"),
        pytest.param(b"data: a\n\nda", True, id="part-of-a-line"),
        pytest.param(b"data: a\n", True, id="a-line"),
        pytest.param(b"data: a\r", True, id="a-line-ended-by-cr"),
        pytest.param(b"data: a\r\r: keep", False, id="part-of-a-comment-after-cr"),
    ],
)
def test_part_of_a_frame_is_more_than_part_of_a_comment(wire, holding):
    for chunks in cuts(wire) if wire else [[]]:
        decoder, reframer = Decoder(), Reframer()
        for chunk in chunks:
            decoder.feed(chunk)
            reframer.feed(chunk)
        assert (decoder.holding, reframer.holding) == (holding, holding)


@pytest.mark.parametrize("path", WIRE, ids=[path.stem for path in WIRE])
def test_a_run_taken_apart_is_the_same_run(path):
    reframer = Reframer()
    run = reframer.feed(path.read_bytes()) + reframer.end()
    parts = list(split(run))
    assert b"".join(raw for raw, _ in parts) == run
    assert [frame for _, frame in parts] == decode([run])
    assert len(parts) == reframer.frames


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b'data: {"a":1}\n\ndata: {}\n\ndata: [DONE]\n\n', id="lf"),
        pytest.param(b'data: {"a":1}\r\n\r\ndata: {}\r\n\r\n', id="crlf"),
    ],
)
def test_a_clean_run_is_taken_apart_in_the_same_way(wire):
    reframer = Reframer()
    run = reframer.feed(wire)
    assert reframer.clean
    assert run.endswith(reframer.blank)
    assert list(split_clean(run, reframer.blank)) == list(split(run))
    reframer = Reframer()
    reframer.feed(b'event: error\ndata: {"a":1}\n\n')
    assert not reframer.clean


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"data: {}\r\n\r\ndata: {}\n\n", id="another-line-end"),
        pytest.param(b"data: {}\r\n\r\ndata: {\r}\r\n\r\n", id="a-line-end-inside"),
        pytest.param(b"data: {}\r\n\r\n: x\r\n\r\n", id="a-comment"),
        pytest.param(b"data: {}\r\n\r\ndata: x\r\n\r\n", id="no-json"),
        pytest.param(b"data: {\r\n\r\ndata: {}\r\n\r\ndata: {}\r\n\n", id="the-last-line-end"),
    ],
)
def test_a_run_with_anything_else_in_it_is_not_clean(wire):
    reframer = Reframer()
    reframer.feed(wire)
    assert not reframer.clean


def test_a_run_of_crlf_after_a_cr_does_not_take_a_later_lf_for_its_second_half():
    chunks = [b"data: a\r\r", b"data: {}\r\n\r\n", b"\n", b"data: {}\r\n\r\n"]
    assert reframe(chunks) == b"".join(chunks[:2] + chunks[3:])


def test_a_clean_run_of_crlf_may_follow_one_that_is_not():
    reframer = Reframer()
    wire = [
        b"data: {}\r\n\r",
        b"\n",
        b"data: {}\r\n\r\n",
        b"data: {",
        b"}\r\n\r\n",
        b"data: {}\r\n\r\ndata: {}\r\n\r\n",
    ]
    seen = []
    for chunk in wire:
        assert reframer.feed(chunk) == chunk or chunk in wire[3:5]
        seen.append(reframer.clean)
    assert seen == [False, False, True, False, False, True]
    assert reframer.frames == 5
