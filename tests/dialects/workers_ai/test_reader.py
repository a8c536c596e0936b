"""Native streams become events: what each quirk of the wire means."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.workers_ai.reader import STOP, Reader, usage_of
from proxy.dialects.workers_ai.refusals import STATUS
from proxy.errors import GatewayError, Kind, UpstreamError
from proxy.events import Block, BlockClosed, BlockDelta, BlockOpened, MessageEnded, MessageStarted, Stop, Usage
from proxy.sse import Frame
from tests.cuts import at, cuts
from tests.dialects.workers_ai import COUNTS, DONE, delta, fold, native, nothing, read, shape, sse, whole
from tests.properties import json, thorough
from tests.recordings import STREAMS, Recording

RECORDED = [r for r in STREAMS if r.provider == "workers-ai"]
TEXT, THINKING, CALL = Block.TEXT, Block.THINKING, Block.TOOL_CALL


def test_a_native_stream():
    assert read(sse(native("Hel"), native("lo"), {"response": "", "usage": COUNTS}) + DONE) == [
        MessageStarted(),
        BlockOpened(0, TEXT),
        BlockDelta(0, TEXT, "Hel"),
        BlockDelta(0, TEXT, "lo"),
        BlockClosed(0),
        MessageEnded(Stop.END, Usage(7, 3)),
    ]


@pytest.mark.parametrize(
    ("chunks", "blocks"),
    [
        pytest.param(
            [native("1"), native(6), native(0), native(2.5), native(True)],
            [(TEXT, "", "", "1602.5true")],
            id="quirk-21-tokens-that-look-like-numbers",
        ),
        pytest.param([native(None), native("x"), native(None)], [(TEXT, "", "", "x")], id="null-is-nothing"),
        pytest.param([native("")], [], id="quirk-35-padding-is-nothing"),
        pytest.param([native({"a": 1})], [(TEXT, "", "", '{"a":1}')], id="an-object-is-json-mode"),
        pytest.param([native("x", tool_calls=[])], [(TEXT, "", "", "x")], id="no-calls-on-every-chunk"),
        pytest.param(
            [native(None, tool_calls=[{"name": "f", "arguments": {"a": 1}}, {"name": "f", "arguments": None}])],
            [(CALL, "c1", "f", '{"a":1}'), (CALL, "c2", "f", "{}")],
            id="quirk-24-native-calls-have-no-id-and-objects-as-arguments",
        ),
        pytest.param(
            [native(tool_calls=[{"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}}])],
            [(CALL, "x", "f", "{}")],
            id="quirk-22-calls-of-openai-shape-at-top-level",
        ),
        pytest.param(
            [delta(content="", role="assistant"), delta(reasoning="hm"), delta(content="a"), delta(content=7)],
            [(THINKING, "", "", "hm"), (TEXT, "", "", "a7")],
            id="openai-chunks",
        ),
        pytest.param(
            [delta(reasoning_content="hm", reasoning="hm")], [(THINKING, "", "", "hm")], id="quirk-16-thoughts-once"
        ),
        pytest.param([delta(content=[{"type": "text", "text": "a"}])], [(TEXT, "", "", "a")], id="content-in-parts"),
        pytest.param(
            [
                delta(tool_calls=[{"id": "x", "type": "function", "index": 0, "function": {"name": "f"}}]),
                delta(tool_calls=[{"index": 0, "function": {"arguments": '{"a"'}}]),
                delta(tool_calls=[{"index": 0, "function": {"arguments": ":1}"}}]),
                delta(tool_calls=[{"index": 1, "function": {"name": "g", "arguments": {"b": 2}}}]),
                delta(tool_calls=[{"id": None, "type": None, "function": {"name": None, "arguments": None}}]),
            ],
            [(CALL, "x", "f", '{"a":1}'), (CALL, "c1", "g", '{"b":2}')],
            id="fragments-and-an-end-mark-with-everything-null",
        ),
        pytest.param(
            [delta(tool_calls=[{"id": None, "type": None, "index": 5, "function": {"name": None}}])],
            [],
            id="an-end-mark-of-no-call",
        ),
        pytest.param(
            [{"choices": []}, {"p": "abc"}, {}, native("x")], [(TEXT, "", "", "x")], id="quirk-7-chunks-without-choices"
        ),
    ],
)
def test_blocks(chunks, blocks):
    assert shape(fold(read(sse(*chunks) + DONE))) == blocks


def test_ids_that_are_made_up_are_unique():
    calls = [{"name": "f"}, {"name": "f"}]
    ids = [e.id for e in Reader(nothing).chunk(native(tool_calls=calls)) if isinstance(e, BlockOpened)]
    assert len(set(ids)) == 2
    assert all(len(id) > 9 for id in ids)


# How it ends...

TAIL = {"response": "", "usage": {**COUNTS, "neurons": 1.5}}


@pytest.mark.parametrize(
    ("chunks", "limit", "stop"),
    [
        pytest.param([native("x"), TAIL], None, Stop.END, id="nothing-is-said"),
        pytest.param([native("x"), TAIL], 3, Stop.LENGTH, id="as-many-tokens-as-were-asked-for"),
        pytest.param([native("x"), TAIL], 4, Stop.END, id="fewer"),
        pytest.param([native("x")], 3, Stop.END, id="not-counted"),
        pytest.param([native(tool_calls=[{"name": "f"}]), TAIL], 9, Stop.TOOL_CALLS, id="calls"),
        pytest.param([native(tool_calls=[{"name": "f"}]), TAIL], 3, Stop.LENGTH, id="calls-that-were-cut"),
        pytest.param([delta(content="x"), delta("length")], None, Stop.LENGTH, id="length"),
        pytest.param([delta(content="x"), delta("stop"), TAIL], 3, Stop.END, id="a-reason-is-believed"),
        pytest.param(
            [delta(tool_calls=[{"index": 0, "id": "x", "function": {"name": "f"}}]), delta("stop")],
            None,
            Stop.TOOL_CALLS,
            id="quirk-11-stop-after-calls",
        ),
        pytest.param([native("x", finish_reason="length")], None, Stop.LENGTH, id="a-reason-at-top-level"),
        pytest.param([delta(content="x"), delta("novel")], None, Stop.END, id="quirk-27-unknown-means-the-end"),
        pytest.param([delta(finish="", content="x")], None, Stop.END, id="quirk-27-empty-means-none"),
    ],
)
def test_stop(chunks, limit, stop):
    assert fold(read(sse(*chunks) + DONE, max_tokens=limit)).stop is stop


@pytest.mark.parametrize(("word", "stop"), STOP.items())
def test_finish_reasons(word, stop):
    assert fold(read(sse(delta(word)) + DONE)).stop is stop


@pytest.mark.parametrize(
    ("chunks", "finished"),
    [
        pytest.param([native("x")], False, id="quirk-6-text-alone-was-cut"),
        pytest.param([native("x"), native("")], False, id="an-empty-text-is-no-end"),
        pytest.param([native("x"), TAIL], True, id="counts-are-the-tail"),
        pytest.param([native("x", usage=COUNTS)], False, id="counts-on-every-chunk-are-not"),
        pytest.param([native(usage={"prompt_tokens": 0, "completion_tokens": 1})], False, id="counts-of-one-are-not"),
        pytest.param([native("x"), TAIL, native("y")], False, id="text-after-counts"),
        pytest.param([native(tool_calls=[{"name": "f"}], usage=COUNTS)], False, id="calls-with-counts"),
        pytest.param([delta("stop")], True, id="finish-reason"),
        pytest.param([delta("stop"), {"choices": [], "usage": {}}], True, id="zeros-behind-it"),
        pytest.param([{"choices": [], "usage": COUNTS}], True, id="counts-without-choices"),
    ],
)
def test_quirk_5_an_end_without_an_end_mark(chunks, finished):
    reader = Reader(nothing)
    for chunk in chunks:
        list(reader.read(Frame(orjson.dumps(chunk))))
    assert (reader.finished, reader.done) == (finished, False)


def test_nothing_is_read_after_the_end():
    assert fold(read(sse(native("x")) + DONE + sse(native("y")))).text == "x"


# What it costs...


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        pytest.param([COUNTS], Usage(7, 3), id="once"),
        pytest.param([{"prompt_tokens": 0}, COUNTS], Usage(7, 3), id="zeros-first"),
        pytest.param([COUNTS, {"prompt_tokens": 0, "completion_tokens": 0}], Usage(7, 3), id="quirk-8-zeros-last"),
        pytest.param([COUNTS, {"prompt_tokens": 0, "completion_tokens": 1}], Usage(7, 3), id="ones-on-every-chunk"),
        pytest.param([{"prompt_tokens": 7, "completion_tokens": 1}, COUNTS], Usage(7, 3), id="the-last-counts"),
        pytest.param([None, {}], None, id="none"),
    ],
)
def test_usage_is_the_last_that_counts(counts, usage):
    events = read(sse(*(native("x", usage=one) for one in counts)) + DONE)
    assert events[-1].usage == usage


def test_usage_in_both_spellings():
    details = {"prompt_tokens_details": {"cached_tokens": 2}, "completion_tokens_details": {"reasoning_tokens": 1}}
    assert usage_of({**COUNTS, **details}) == Usage(7, 3, cached=2, reasoning=1)
    assert usage_of({"input_tokens": 7, "output_tokens": 3}) == Usage(7, 3)


# What goes wrong...


@pytest.mark.parametrize(
    ("chunk", "kind", "message"),
    [
        pytest.param(
            {"errors": [{"code": 3040, "message": "no capacity"}], "success": False},
            Kind.RATE_LIMITED,
            "no cap",
            id="errors",
        ),
        pytest.param({"success": False}, Kind.UPSTREAM_ERROR, "failed", id="no-success"),
        pytest.param({"error": {"message": "broke"}}, Kind.UPSTREAM_ERROR, "broke", id="error"),
        pytest.param({"error": "AiError: 4006: used up"}, Kind.RATE_LIMITED, "used up", id="code-in-the-text"),
    ],
)
def test_quirk_3_errors_after_the_200(chunk, kind, message):
    for pieces in cuts(sse(native("x"), chunk)):
        with pytest.raises(GatewayError, match=message) as failed:
            read(*pieces)
        assert failed.value.kind is kind


@pytest.mark.parametrize("wire", [b"data: nonsense\n\n", b"data: [1]\n\n", b"event: error\ndata: {}\n\n"])
def test_nonsense_is_an_error(wire):
    with pytest.raises(UpstreamError):
        read(wire)


@pytest.mark.parametrize(("code", "status"), STATUS.items())
def test_codes_have_the_status_that_cloudflare_gives_them(code, status):
    body = {"errors": [{"code": int(code), "message": "x"}], "success": False, "result": None}
    with pytest.raises(GatewayError) as failed:
        whole(body)
    told = failed.value
    if status in (400, 404, 413, 429):
        assert told.status == status
    elif status in (401, 403):
        assert "refused this gateway's key" in told.message
    else:
        assert told.kind is Kind.UPSTREAM_ERROR


# Recorded and odd ones...


@pytest.mark.skipif(not RECORDED, reason="no recordings beside the repository")
@pytest.mark.parametrize("recording", [pytest.param(r, id=r.name) for r in RECORDED])
@given(places=st.lists(st.integers(0, 1000), max_size=8))
@thorough
def test_recorded_streams_survive_any_cut(recording: Recording, places):
    chunks = [orjson.loads(line[6:]) for line in recording.body.split(b"\n\n") if line and b"DONE" not in line]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk.get("choices", [])]
    answer = fold(read(*at(recording.body, places)))
    assert answer.text == "".join([c.get("response", "") for c in chunks] + [d.get("content") or "" for d in deltas])
    thoughts = "".join(block.text for block in answer.blocks if block.block is THINKING)
    assert thoughts == "".join(d.get("reasoning", "") for d in deltas)
    assert answer.stop is Stop.END
    counts = [chunk["usage"] for chunk in chunks if chunk.get("usage", {}).get("total_tokens")]
    assert answer.usage == (usage_of(counts[-1]) if counts else None)


@given(st.dictionaries(st.sampled_from(["response", "tool_calls", "choices", "usage", "finish_reason"]), json), json)
@thorough
def test_odd_chunks_are_read_or_refused(chunk, inner):
    reader = Reader(nothing)
    chunk.setdefault("choices", [{"delta": {"content": inner, "tool_calls": [inner, {"function": inner}]}}])
    events = [*reader.chunk(chunk), *reader.end()]
    assert isinstance(events[0], MessageStarted)
    assert isinstance(events[-1], MessageEnded)
