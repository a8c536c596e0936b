"""What the tap sees of chunks that pass."""

from __future__ import annotations

import orjson
import pytest

from proxy.dialects.gemini.framing import Events
from proxy.dialects.gemini.tap import Tap
from proxy.errors import Kind, UpstreamError
from proxy.events import Usage
from proxy.pipes import Passthrough
from tests.cuts import at, cuts
from tests.dialects.gemini import call, chunk, nothing, sse, text
from tests.dialects.gemini.grammar import check_array
from tests.recordings import STREAMS

RECORDED = [r for r in STREAMS if r.provider == "gemini"]
ABSENT = pytest.mark.skipif(not RECORDED, reason="no recordings beside the repository")

COUNTS = {"promptTokenCount": 7, "candidatesTokenCount": 3}
GOOD = sse(chunk(text("x"), usage={"promptTokenCount": 7}), chunk(text("y"), finish="STOP", usage=COUNTS))
REFUSED = {"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}}


def passed(*pieces: bytes, array: bool = False):
    tap = Tap(nothing, array=array)
    pipe = Passthrough(tap, tap.fail, 2**20)  # type: ignore[arg-type]
    out = b"".join(map(pipe.feed, pieces)) + pipe.end()
    if pipe.error is not None:
        out += pipe.fail(pipe.error)
    return pipe, tap, out


@pytest.mark.parametrize("wire", [GOOD, GOOD.replace(b"\r\n", b"\n")], ids=["crlf", "lf"])
def test_frames_pass_byte_for_byte(wire):
    for pieces in cuts(wire):
        pipe, tap, out = passed(*pieces)
        assert out == wire
        assert (pipe.done, pipe.error, tap.usage) == (True, None, Usage(7, 3))


@pytest.mark.parametrize("end", [b"\r\n", b"\n"], ids=["crlf", "lf"])
def test_a_burst_passes_as_single_frames_do(end):
    many = [chunk(text(str(n)), usage={"promptTokenCount": 7, "candidatesTokenCount": n}) for n in range(50)]
    last = chunk(text("."), finish="STOP", usage=COUNTS)
    for chunks, finished in (([*many, last], True), ([*many[:20], last, *many[20:]], False), (many, False)):
        wire = sse(*chunks).replace(b"\r\n", end)
        pipe, tap, out = passed(wire)
        assert (out[: len(wire)], tap.finished, pipe.done, pipe.frames) == (wire, finished, finished, len(chunks))
        single = passed(*(wire[n : n + 1] for n in range(len(wire))))
        assert (single[2], single[1].usage, single[0].frames) == (out, tap.usage, len(chunks))
    _, tap, out = passed(sse(*many[:20], REFUSED, *many[20:]).replace(b"\r\n", end))
    assert out.startswith(sse(*many[:20]).replace(b"\r\n", end) + b'data: {"error"')
    assert tap.error is not None


@pytest.mark.parametrize(
    ("chunks", "finished"),
    [
        pytest.param([chunk(text("x"))], False, id="text"),
        pytest.param([chunk(text('"finishReason":"STOP"'))], False, id="text-that-talks-of-it"),
        pytest.param([chunk(call("f", {"error": 1, "finishReason": "STOP"}))], False, id="arguments-that-look-like-it"),
        pytest.param([chunk(text("x"), finish="STOP")], True, id="finish-reason"),
        pytest.param([{"candidates": [{"finishReason": "SAFETY"}]}], True, id="without-content"),
        pytest.param([{"promptFeedback": {"blockReason": "SAFETY"}}], True, id="blocked-prompt"),
        pytest.param([chunk(text("x"), finish="STOP"), chunk(text("y"))], False, id="quirk-26-more-comes"),
        pytest.param([chunk(text("x"), finish="STOP"), {"usageMetadata": COUNTS}], True, id="only-counts-come"),
        pytest.param([chunk({"executableCode": {}}, finish="STOP")], False, id="code-that-runs-now"),
    ],
)
def test_finished(chunks, finished):
    pipe, tap, _ = passed(sse(*chunks))
    assert tap.finished is finished
    assert pipe.done is finished
    assert (pipe.error is None) is finished  # a stream that ends before it is finished was cut


def test_usage_of_a_stream_that_was_cut_is_what_came_last():
    pipe, tap, _ = passed(sse(chunk(text("x"), usage=COUNTS), chunk(text("y"))))
    assert isinstance(pipe.error, UpstreamError)
    assert tap.usage == Usage(7, 3)


@pytest.mark.parametrize("counts", [None, {"trafficType": "ON_DEMAND"}])
def test_no_counts_are_no_usage(counts):
    assert passed(sse(chunk(text("x"), finish="STOP", usage=counts)))[1].usage is None


@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize("refusal", [REFUSED, [REFUSED]], ids=["object", "list"])
def test_an_error_is_spelled_anew_and_ends_the_stream(refusal, array):
    pipe, _, out = passed(sse(chunk(text("x")), refusal, chunk(text("y"))), array=array)
    assert pipe.error is not None
    assert pipe.error.kind is Kind.RATE_LIMITED
    assert b'{"error":{"code":429,"message":"slow down","status":"RESOURCE_EXHAUSTED"}}' in out
    assert b'"y"' not in out


BARE = b'{\r\n  "error": {\r\n    "code": 429,\r\n    "message": "slow down"\r\n  }\r\n}'


@pytest.mark.parametrize("end", [b"", b"\r\n", b"\r\n\r\n"], ids=["torn", "a-line-end", "a-blank-line"])
@pytest.mark.parametrize(("before", "after"), [(b"", b""), (b"[", b"]")], ids=["quirk-3-bare-json", "in-a-list"])
@pytest.mark.parametrize("begun", [b"", sse(chunk(text("x")))], ids=["first", "in-the-middle"])
def test_an_error_that_is_no_event_is_one_all_the_same(begun, before, after, end):
    for pieces in cuts(begun + before + BARE + after + end):
        pipe, _, out = passed(*pieces)
        assert pipe.error is not None
        assert pipe.error.kind is Kind.RATE_LIMITED
        assert out == begun + b'data: {"error":{"code":429,"message":"slow down","status":"RESOURCE_EXHAUSTED"}}\n\n'


def test_the_scrub_sees_messages():
    tap = Tap(lambda text: text.replace("slow", "[redacted]"))
    assert list(Passthrough(tap, Events().fail, 2**20).feed(sse(REFUSED))) == []  # type: ignore[arg-type]
    assert tap.error is not None
    assert tap.error.message == "[redacted] down"


# Without `alt=sse`...


def test_frames_become_items_of_an_array():
    for pieces in cuts(GOOD):
        pipe, tap, out = passed(*pieces, array=True)
        check_array(out)
        assert len(orjson.loads(out)) == 2
        assert (pipe.done, tap.usage) == (True, Usage(7, 3))


def test_what_is_not_json_would_break_the_array():
    wire = sse(chunk(text("x"))) + b"data: nonsense\r\n\r\n"
    _pipe, _, out = passed(wire, array=True)
    assert orjson.loads(out)[-1]["error"]["message"] == "the provider sent a frame that is not JSON"
    assert passed(wire)[2].startswith(wire)  # events pass as they are


def test_a_cut_closes_the_array():
    pipe, _, out = passed(sse(chunk(text("x"))), array=True)
    assert pipe.error is not None
    assert orjson.loads(out)[-1]["error"]["code"] == 502


@ABSENT
@pytest.mark.parametrize("recording", [pytest.param(r, id=r.name) for r in RECORDED])
def test_recorded_streams_pass(recording):
    for places in ([], [1], [40, 400, 4000], list(range(0, 9000, 7))):
        pipe, tap, out = passed(*at(recording.body, places))
        assert out == recording.body
        assert pipe.done
        assert tap.usage is not None
        _, _, items = passed(*at(recording.body, places), array=True)
        frames = [line[6:] for line in recording.body.split(b"\r\n") if line]
        assert orjson.loads(items) == [orjson.loads(frame) for frame in frames]
