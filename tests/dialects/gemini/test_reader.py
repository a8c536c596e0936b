"""Google's chunks become events: what each quirk of the wire means."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.gemini.reader import STOP, Reader, read_whole, usage_of
from proxy.errors import GatewayError, Kind, UpstreamError
from proxy.events import (
    Block,
    BlockClosed,
    BlockDelta,
    BlockOpened,
    BlockSigned,
    MessageEnded,
    MessageStarted,
    Stop,
    Usage,
)
from proxy.sse import Frame
from tests.cuts import at, cuts
from tests.dialects.gemini import call, chunk, fold, nothing, numbered, read, shape, sse, text, whole
from tests.properties import json, thorough
from tests.recordings import STREAMS, WHOLES, Recording

RECORDED = [r for r in STREAMS if r.provider == "gemini"]
WHOLE = [r for r in WHOLES if r.provider == "gemini" and r.status == 200 and b"candidates" in r.body]
ABSENT = pytest.mark.skipif(not RECORDED, reason="no recordings beside the repository")

COUNTS = {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10}


def well_formed(events: list[Any]) -> None:
    """Blocks open and close one after another, numbered from 0; deltas belong to the open one; the end is last."""
    open_, number = None, -1
    assert isinstance(events[0], MessageStarted)
    assert isinstance(events[-1], MessageEnded)
    for event in events[1:-1]:
        match event:
            case BlockOpened():
                assert open_ is None
                number += 1
                assert event.index == number
                open_ = event.block
            case BlockDelta():
                assert (event.index, event.block) == (number, open_)
            case BlockClosed():
                assert event.index == number
                open_ = None
            case _:
                assert open_ is not None
                assert event.index == number
    assert open_ is None


# What it says...


def test_text_becomes_one_block():
    events = read(sse(chunk(text("Hel"), usage=COUNTS), chunk(text("lo"), finish="STOP", usage=COUNTS)))
    assert events == [
        MessageStarted("r1", "gemini-2.5-flash", Usage(7, 3)),
        BlockOpened(0, Block.TEXT),
        BlockDelta(0, Block.TEXT, "Hel"),
        BlockDelta(0, Block.TEXT, "lo"),
        BlockClosed(0),
        MessageEnded(Stop.END, Usage(7, 3)),
    ]


@pytest.mark.parametrize(
    ("chunks", "blocks"),
    [
        pytest.param(
            [chunk(text("hm", thought=True)), chunk(text("so", thought=True)), chunk(text("4"), finish="STOP")],
            [("thinking", "", "hmso", ""), ("text", "", "4", "")],
            id="thoughts-are-a-block-of-their-own",
        ),
        pytest.param(
            [chunk(call("f", {"a": 1}), call("g"), finish="STOP")],
            [("tool_call", "f", '{"a":1}', ""), ("tool_call", "g", "{}", "")],
            id="calls-come-whole-and-several-in-a-chunk",
        ),
        pytest.param(
            [chunk(call("f", thoughtSignature="AAAA")), chunk(text(""), finish="STOP")],
            [("tool_call", "f", "{}", "AAAA")],
            id="a-call-is-signed",
        ),
        pytest.param(
            [chunk(text("289")), chunk(text("", thoughtSignature="BBBB"), finish="STOP")],
            [("text", "", "289", "BBBB")],
            id="the-signature-comes-on-an-empty-text-in-the-last-chunk",
        ),
        pytest.param(
            [chunk(text("a", thoughtSignature="CCCC")), chunk(text("b"), finish="STOP")],
            [("text", "", "a", "CCCC"), ("text", "", "b", "")],
            id="what-follows-a-signed-text-is-not-signed",
        ),
        pytest.param(
            [chunk(text("", thoughtSignature="DDDD"), finish="STOP")],
            [("text", "", "", "DDDD")],
            id="a-signature-alone-is-kept",
        ),
        pytest.param([chunk(text(""), finish="STOP")], [], id="an-empty-text-is-no-block"),
        pytest.param(
            [
                chunk({"executableCode": {"code": "1"}}),
                chunk({"codeExecutionResult": {}}),
                chunk(text("1"), finish="STOP"),
            ],
            [("text", "", "1", "")],
            id="parts-that-only-this-dialect-has-are-left-out",
        ),
        pytest.param(
            [{"candidates": [{"finishReason": "MAX_TOKENS"}]}], [], id="a-candidate-can-lack-content"
        ),
        pytest.param(
            [{"candidates": [{"content": {"role": "model"}, "finishReason": "STOP"}]}], [], id="content-can-lack-parts"
        ),
        pytest.param(
            [{"candidates": [{"content": {"parts": [text("no")]}, "index": 1}, {**chunk(text("a"))["candidates"][0]}]},
             chunk(text("b"), finish="STOP")],
            [("text", "", "ab", "")],
            id="the-first-candidate-counts-wherever-it-stands",
        ),
    ],
)  # fmt: skip
def test_blocks(chunks, blocks):
    events = read(sse(*chunks))
    well_formed(events)
    assert shape(fold(events)) == blocks


def test_calls_without_an_id_get_unique_ones():
    events = Reader(nothing).chunk(chunk(call("f"), call("f"), call("f", id="mine"), finish="STOP"))
    ids = [event.id for event in events if isinstance(event, BlockOpened)]
    assert len(set(ids)) == 3
    assert ids[2] == "mine"
    assert all(id.replace("_", "").isalnum() for id in ids)


def test_sources_are_told_once():
    web = {"groundingChunks": [{"web": {"uri": "https://a.example", "title": "A"}}, {"retrievedContext": {}}]}
    answer = fold(
        read(sse(chunk(text("x"), groundingMetadata=web), chunk(text("y"), finish="STOP", groundingMetadata=web)))
    )
    assert answer.blocks[0].citations == [{"url": "https://a.example", "title": "A"}]


# How it ends...


@pytest.mark.parametrize(
    ("reason", "stop"),
    [
        *STOP.items(),
        ("STOP", Stop.END),
        ("LANGUAGE", Stop.END),
        ("OTHER", Stop.END),
        ("MALFORMED_FUNCTION_CALL", Stop.END),
        ("A_WORD_OF_NEXT_YEAR", Stop.END),
    ],
)
def test_finish_reasons_and_unknown_ones_mean_the_end(reason, stop):
    assert fold(read(sse(chunk(text("x"), finish=reason)))).stop is stop


@pytest.mark.parametrize(
    ("reason", "stop"), [("STOP", Stop.TOOL_CALLS), ("MAX_TOKENS", Stop.LENGTH), ("SAFETY", Stop.CONTENT_FILTER)]
)
def test_quirk_11_stop_after_calls_means_tool_calls(reason, stop):
    assert fold(read(sse(chunk(call("f")), chunk(text(""), finish=reason)))).stop is stop


@pytest.mark.parametrize("reason", ["SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "JAILBREAK"])
def test_a_blocked_prompt_is_a_content_filter(reason):
    blocked = {"promptFeedback": {"blockReason": reason}, "usageMetadata": COUNTS}
    events = read(sse(blocked))
    assert events == [MessageStarted("", "", Usage(7, 3)), MessageEnded(Stop.CONTENT_FILTER, Usage(7, 3))]


def test_quirk_26_text_follows_the_first_of_two_finish_reasons():
    reader = Reader(nothing)
    steps = [
        (chunk(text("a"), finish="STOP"), True),
        (chunk(text("b")), False),
        (chunk({"executableCode": {"code": "1"}}, finish="STOP"), False),
        (chunk({"codeExecutionResult": {"output": "1"}}), False),
        ({"usageMetadata": COUNTS}, False),
        (chunk(text("c"), finish="MAX_TOKENS"), True),
        ({"usageMetadata": COUNTS}, True),
    ]
    events = []
    for step, finished in steps:
        events += reader.chunk(step)
        assert reader.finished is finished
    events += reader.end()
    answer = fold(events)
    assert (answer.text, answer.stop) == ("abc", Stop.LENGTH)


def test_quirk_5_the_end_is_the_close_after_a_finish_reason():
    reader = Reader(nothing)
    list(reader.read(Frame(orjson.dumps(chunk(text("x"), finish="STOP")))))
    assert (reader.finished, reader.done) == (True, False)
    assert list(reader.end())[-1] == MessageEnded(Stop.END)
    assert reader.done


def test_quirk_6_without_a_finish_reason_nothing_is_finished():
    reader = Reader(nothing)
    list(reader.read(Frame(orjson.dumps(chunk(text("x"))))))
    assert not reader.finished


def test_a_done_of_relays_is_an_end():
    events = read(sse(chunk(text("x"))) + b"data: [DONE]\n\n" + sse(chunk(text("y"))))
    assert fold(events).text == "x"
    assert isinstance(events[-1], MessageEnded)


# What it costs...


def test_quirk_8_the_last_count_is_kept():
    first = {"promptTokenCount": 7, "totalTokenCount": 7}
    events = read(sse(chunk(text("x"), usage=first), chunk(text("y"), finish="STOP", usage=COUNTS)))
    assert events[0].usage == Usage(7)
    assert events[-1].usage == Usage(7, 3)


def test_counts_that_count_nothing_do_not_replace_others():
    events = read(
        sse(chunk(text("x"), usage=COUNTS), chunk(text("y"), finish="STOP", usage={"trafficType": "ON_DEMAND"}))
    )
    assert events[-1].usage == Usage(7, 3)


def test_no_counts_are_no_usage():
    assert read(sse(chunk(text("x"), finish="STOP")))[-1].usage is None


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        pytest.param(COUNTS, Usage(7, 3), id="plain"),
        pytest.param(
            {**COUNTS, "thoughtsTokenCount": 40}, Usage(7, 43, reasoning=40), id="quirk-33-thoughts-are-beside"
        ),
        pytest.param({**COUNTS, "cachedContentTokenCount": 5}, Usage(7, 3, cached=5), id="cached-is-included"),
        pytest.param({**COUNTS, "toolUsePromptTokenCount": 90}, Usage(97, 3), id="prompts-of-tools-are-beside"),
        pytest.param({"promptTokenCount": 7}, Usage(7), id="any-may-be-absent"),
        pytest.param({"promptTokenCount": None, "candidatesTokenCount": "3"}, Usage(), id="nonsense-counts-nothing"),
    ],
)
def test_usage(counts, usage):
    assert usage_of(counts) == usage


# What goes wrong...

REFUSED = {"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}}
BARE = b'{\r\n  "error": {\r\n    "code": 499,\r\n    "message": "was cancelled"\r\n  }\r\n}\r\n'


@pytest.mark.parametrize(
    ("wire", "kind", "message"),
    [
        pytest.param(sse(REFUSED), Kind.RATE_LIMITED, "slow down", id="first"),
        pytest.param(sse(chunk(text("x")), REFUSED), Kind.RATE_LIMITED, "slow down", id="quirk-3-in-the-middle"),
        pytest.param(sse([REFUSED]), Kind.RATE_LIMITED, "slow down", id="quirk-30-in-a-list"),
        pytest.param(sse(chunk(text("x"))) + BARE, Kind.UPSTREAM_ERROR, "was cancelled", id="bare-json-at-the-end"),
        pytest.param(
            sse(chunk(text("x"))) + BARE + b"\r\n",
            Kind.UPSTREAM_ERROR,
            "was cancelled",
            id="bare-json-and-a-blank-line",
        ),
        pytest.param(b"data: nonsense\n\n", Kind.UPSTREAM_ERROR, "not JSON", id="not-json"),
        pytest.param(b"data: 1\n\n", Kind.UPSTREAM_ERROR, "not an object", id="not-an-object"),
    ],
)
def test_errors(wire, kind, message):
    for pieces in cuts(wire):
        with pytest.raises(GatewayError) as failed:
            read(*pieces)
        assert failed.value.kind is kind
        assert message in failed.value.message


def test_quirk_31_a_bad_key_is_ours_to_mend():
    body = {
        "error": {
            "code": 400,
            "message": "API key not valid. Please pass a valid API key.",
            "status": "INVALID_ARGUMENT",
        }
    }
    with pytest.raises(UpstreamError, match="refused this gateway's key"):
        read(sse(body))


def test_arguments_too_deep_to_be_written_are_an_error():
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"a": deep}
    with pytest.raises(UpstreamError, match="nested too deeply"):
        list(Reader(nothing).chunk(chunk(call("f", deep))))


# Whole answers...


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b"<html>", "not JSON", id="html"),
        pytest.param(b"1", "not an object", id="number"),
        pytest.param(b"[]", "no `candidates`", id="empty-list"),
        pytest.param(b"{}", "no `candidates`", id="empty"),
        pytest.param(orjson.dumps([REFUSED]), "slow down", id="refusal-in-a-list"),
    ],
)
def test_wholes_that_say_no(body, message):
    with pytest.raises(GatewayError, match=message):
        list(read_whole(body, nothing))


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([chunk(text("a")), chunk(text("b"), finish="STOP", usage=COUNTS)], id="text"),
        pytest.param(
            [chunk(text("a", thought=True)), chunk(text("b"), finish="MAX_TOKENS", usage=COUNTS)], id="thoughts"
        ),
        pytest.param(
            [chunk(call("f", {"a": 1}, thoughtSignature="AAAA")), chunk(call("g"), finish="STOP", usage=COUNTS)],
            id="calls",
        ),
        pytest.param(
            [chunk(text("a")), chunk(text("", thoughtSignature="A"), finish="STOP", usage=COUNTS)], id="sealed"
        ),
    ],
)
def test_the_fold_of_a_stream_is_the_whole_answer(chunks):
    """As one object, and as the array that comes without `alt=sse`."""
    parts = [part for one in chunks for part in one["candidates"][0]["content"]["parts"]]
    finish = chunks[-1]["candidates"][0]["finishReason"]
    streamed = fold(read(sse(*chunks)))
    assert whole(orjson.dumps(chunk(*parts, finish=finish, usage=COUNTS))) == streamed
    assert whole(orjson.dumps(chunks)) == streamed


# Recorded streams...


def said(body: bytes) -> tuple[str, str, list[Any], str, dict[str, Any]]:
    """What a recording says, read the plain way: text, thoughts, calls, finish reason, counts."""
    texts: dict[bool, str] = {False: "", True: ""}
    calls, reason, counts = [], "", {}
    for line in body.decode().split("\r\n"):
        if not line:
            continue
        one = orjson.loads(line.removeprefix("data: "))
        first = one["candidates"][0]
        for part in first["content"].get("parts", []):
            if "functionCall" in part:
                calls.append((part["functionCall"]["name"], part["functionCall"]["args"]))
            texts[part.get("thought", False)] += part.get("text", "")
        reason, counts = first.get("finishReason"), one["usageMetadata"]
    return texts[False], texts[True], calls, reason, counts


@ABSENT
@pytest.mark.parametrize("recording", [pytest.param(r, id=r.name) for r in RECORDED])
@given(places=st.lists(st.integers(0, 10_000), max_size=12))
@thorough
def test_recorded_streams_survive_any_cut(recording: Recording, places):
    events = read(*at(recording.body, places))
    well_formed(events)
    answer = fold(events)
    texts, thoughts, calls, reason, counts = said(recording.body)
    assert answer.text == texts
    assert "".join(b.text for b in answer.blocks if b.block is Block.THINKING) == thoughts
    assert [(b.name, orjson.loads(b.text)) for b in answer.blocks if b.block is Block.TOOL_CALL] == calls
    assert answer.stop is (Stop.TOOL_CALLS if calls else STOP.get(reason, Stop.END))
    assert answer.usage is not None
    assert answer.usage.input + answer.usage.output == counts["totalTokenCount"]


@ABSENT
@pytest.mark.parametrize("recording", [pytest.param(r, id=r.name) for r in RECORDED])
def test_recorded_signatures_survive(recording: Recording):
    signatures = [block.signature for block in fold(read(recording.body)).blocks if block.signature]
    assert signatures == [
        part["thoughtSignature"]
        for line in recording.body.decode().split("\r\n")
        if line
        for part in orjson.loads(line[6:])["candidates"][0]["content"].get("parts", [])
        if "thoughtSignature" in part
    ]


@pytest.mark.skipif(not WHOLE, reason="no recordings beside the repository")
@pytest.mark.parametrize("recording", [pytest.param(r, id=r.name) for r in WHOLE])
def test_recorded_wholes_are_read_like_a_stream(recording: Recording):
    assert whole(recording.body) == fold(read(sse(orjson.loads(recording.body))))


@given(json)
@thorough
def test_any_json_is_read_or_refused(value):
    try:
        events = list(Reader(nothing, numbered()).chunk(value))
    except GatewayError:
        return
    assert isinstance(events[0], MessageStarted)


@given(st.dictionaries(st.sampled_from(["candidates", "usageMetadata", "promptFeedback", "error"]), json), json, json)
@thorough
def test_odd_chunks_are_read_or_refused(outer, parts, finish):
    outer.setdefault("candidates", [{"content": {"parts": parts}, "finishReason": finish, "groundingMetadata": parts}])
    reader = Reader(nothing)
    try:
        events = [*reader.chunk(outer), *reader.end()]
    except GatewayError:
        return
    well_formed(events)


def test_signed_events_come_before_the_close():
    events = read(sse(chunk(call("f", thoughtSignature="AAAA"), finish="STOP")))
    assert [type(event) for event in events[1:-1]] == [BlockOpened, BlockDelta, BlockSigned, BlockClosed]
