"""Events become Google's chunks, and the grammar holds."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.gemini.reader import Reader
from proxy.dialects.gemini.writer import MALFORMED, REASON, Writer, usage_words, whole
from proxy.errors import UpstreamError
from proxy.events import (
    Answer,
    Block,
    BlockClosed,
    BlockDelta,
    BlockOpened,
    BlockSigned,
    Cited,
    MessageEnded,
    MessageStarted,
    Stop,
    Usage,
)
from proxy.requests import Reasoning, Request
from tests.dialects.gemini import fold, nothing, numbered, read, shape
from tests.dialects.gemini.grammar import check, check_array, check_chunks
from tests.properties import thorough

STARTED = MessageStarted("r1", "upstream's name", Usage(7))
ENDED = MessageEnded(Stop.END, Usage(7, 3))
SHOWN = Request(model="m", turns=(), reasoning=Reasoning(shown=True))
HIDDEN = Request(model="m", turns=())


def block(index, kind, *texts, id="", name="", signature=""):
    """One block's events."""
    events = [BlockOpened(index, kind, id, name), *(BlockDelta(index, kind, text) for text in texts)]
    if signature:
        events.append(BlockSigned(index, signature))
    return [*events, BlockClosed(index)]


TEXT = block(0, Block.TEXT, "Hel", "lo")
CALL = block(0, Block.TOOL_CALL, '{"a"', ":1}", id="c1", name="f")


def written(*events, request=None):
    """A stream, and its chunks."""
    writer = Writer("m", request)
    out = b"".join(map(writer.write, (STARTED, *events)))
    check(out)
    return out, [orjson.loads(line[6:]) for line in out.split(b"\n\n") if line]


def parts(*events, request=None):
    _, chunks = written(*events, request=request)
    return [part for chunk in chunks for part in chunk["candidates"][0]["content"]["parts"]][:-1]


def test_a_stream_of_text_on_the_wire():
    out, _ = written(*TEXT, ENDED)
    assert out.decode() == (
        'data: {"candidates":[{"content":{"parts":[{"text":"Hel"}],"role":"model"},"index":0}],'
        '"modelVersion":"m","responseId":"r1"}\n\n'
        'data: {"candidates":[{"content":{"parts":[{"text":"lo"}],"role":"model"},"index":0}],'
        '"modelVersion":"m","responseId":"r1"}\n\n'
        'data: {"candidates":[{"content":{"parts":[{"text":""}],"role":"model"},"finishReason":"STOP","index":0}],'
        '"usageMetadata":{"promptTokenCount":7,"candidatesTokenCount":3,"totalTokenCount":10},'
        '"modelVersion":"m","responseId":"r1"}\n\n'
    )


def test_each_delta_is_a_frame_at_once():
    writer = Writer("m")
    assert writer.write(STARTED) == b""
    assert writer.write(BlockOpened(0, Block.TEXT)) == b""
    assert b'"text":"Hel"' in writer.write(BlockDelta(0, Block.TEXT, "Hel"))


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        pytest.param(CALL, [{"functionCall": {"name": "f", "args": {"a": 1}, "id": "c1"}}], id="call-comes-whole"),
        pytest.param(
            block(0, Block.TOOL_CALL, name="f"),
            [{"functionCall": {"name": "f", "args": {}}}],
            id="call-without-arguments",
        ),
        pytest.param(
            block(0, Block.TOOL_CALL, "{}", name="f", signature="AAAA"),
            [{"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "AAAA"}],
            id="quirk-15-a-call-is-signed-on-its-part",
        ),
        pytest.param(
            block(0, Block.TEXT, "x", signature="AAAA"),
            [{"text": "x"}, {"text": "", "thoughtSignature": "AAAA"}],
            id="a-text-is-signed-after-it",
        ),
        pytest.param(
            block(0, Block.THINKING, "hm", signature="AAAA"),
            [{"text": "hm", "thought": True}, {"text": "", "thought": True, "thoughtSignature": "AAAA"}],
            id="thoughts-are-marked",
        ),
        pytest.param(block(0, Block.REFUSAL, "no"), [{"text": "no"}], id="a-refusal-is-text"),
        pytest.param(
            [BlockOpened(0, Block.THINKING, redacted="xyz"), BlockClosed(0)], [], id="redacted-thoughts-are-not-shown"
        ),
        pytest.param(block(0, Block.TOOL_CALL, '{"a":', name="f"), [], id="quirk-25-a-cut-call-is-not-told"),
        pytest.param(block(0, Block.TOOL_CALL, "[1]", name="f"), [], id="arguments-that-are-no-object-are-not-told"),
    ],
)
def test_parts(events, expected):
    assert parts(*events, ENDED) == expected


def test_calls_do_not_mix_their_arguments():
    two = [*CALL, *block(1, Block.TOOL_CALL, '{"b":2}', name="g")]
    assert [part["functionCall"]["args"] for part in parts(*two, ENDED)] == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize("request_", [HIDDEN, Request(model="m", turns=(), reasoning=Reasoning("high"))])
def test_thoughts_are_shown_only_where_they_are_wanted(request_):
    thinking = block(0, Block.THINKING, "hm", signature="AAAA")
    assert parts(*thinking, ENDED, request=request_) == []
    assert len(parts(*thinking, ENDED, request=SHOWN)) == 2
    answer = fold([STARTED, *thinking, ENDED])
    assert b"hm" not in whole(answer, "m", request_)
    assert b"hm" in whole(answer, "m", SHOWN)


def test_reasons_cover_every_stop():
    assert set(REASON) == set(Stop)


@pytest.mark.parametrize("stop", Stop)
def test_the_finish_reason_is_on_the_last_chunk(stop):
    _, chunks = written(*TEXT, MessageEnded(stop))
    assert chunks[-1]["candidates"][0]["finishReason"] == REASON[stop]
    assert "usageMetadata" not in chunks[-1]


@pytest.mark.parametrize(
    ("stop", "reason"), [(Stop.LENGTH, "MAX_TOKENS"), (Stop.TOOL_CALLS, MALFORMED), (Stop.END, MALFORMED)]
)
def test_a_broken_call_is_told_by_the_finish_reason(stop, reason):
    broken = block(0, Block.TOOL_CALL, '{"a":', name="f")
    _, chunks = written(*broken, MessageEnded(stop))
    last = chunks[-1]["candidates"][0]
    assert last["finishReason"] == reason
    assert "of f are not a JSON object" in last["finishMessage"]
    assert orjson.loads(whole(fold([STARTED, *broken, MessageEnded(stop)]), "m"))["candidates"] == [last]


def test_sources_stand_on_the_last_chunk():
    cited = [*TEXT[:-1], Cited(0, {"url": "https://a.example", "title": "A"}), Cited(0, {"text": "?"}), TEXT[-1]]
    _, chunks = written(*cited, ENDED)
    webs = {"groundingChunks": [{"web": {"uri": "https://a.example", "title": "A"}}]}
    assert chunks[-1]["candidates"][0]["groundingMetadata"] == webs


@pytest.mark.parametrize(
    ("usage", "words"),
    [
        (Usage(7, 3), {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10}),
        (
            Usage(7, 43, cached=5, reasoning=40),
            {
                "promptTokenCount": 7,
                "candidatesTokenCount": 3,
                "totalTokenCount": 50,
                "cachedContentTokenCount": 5,
                "thoughtsTokenCount": 40,
            },
        ),
    ],
)
def test_usage_has_thoughts_beside(usage, words):
    assert usage_words(usage) == words


# Faults and silence...

BROKEN = UpstreamError("the provider broke")


def test_a_fault_ends_the_stream():
    writer = Writer("m")
    out = b"".join(map(writer.write, (STARTED, *TEXT[:2]))) + writer.fail(BROKEN)
    check(out)
    assert out.endswith(b'data: {"error":{"code":502,"message":"the provider broke","status":"INTERNAL"}}\n\n')


@pytest.mark.parametrize("mode", ["comment", "chunk", "off"])
def test_nothing_is_sent_in_silence(mode):
    assert Writer.keepalive(mode) == b""


# Without `alt=sse`...


@pytest.mark.parametrize("events", [TEXT, CALL, []])
def test_an_array_says_the_same(events):
    writer = Writer("m", array=True)
    out = [writer.write(event) for event in (STARTED, *events, ENDED)]
    check_array(b"".join(out))
    assert orjson.loads(b"".join(out)) == written(*events, ENDED)[1]


def test_items_of_an_array_leave_one_by_one():
    writer = Writer("m", array=True)
    first, second = (writer.write(event) for event in TEXT[1:3])
    assert first.startswith(b'[{"candidates"')
    assert second.startswith(b',\r\n{"candidates"')
    assert writer.write(ENDED).endswith(b"}]")


@pytest.mark.parametrize("events", [[], TEXT])
def test_a_fault_closes_the_array(events):
    writer = Writer("m", array=True)
    out = b"".join(map(writer.write, events)) + writer.fail(BROKEN)
    check_array(out)
    assert orjson.loads(out)[-1]["error"]["code"] == 502


# Whole answers...


@pytest.mark.parametrize(
    "events",
    [
        pytest.param(TEXT, id="text"),
        pytest.param(CALL, id="call"),
        pytest.param([*block(0, Block.THINKING, "hm"), *block(1, Block.TEXT, "x", signature="AAAA")], id="thoughts"),
        pytest.param([], id="nothing"),
    ],
)
def test_a_whole_answer_is_read_like_its_stream(events):
    answer = fold([STARTED, *events, ENDED])
    body = orjson.loads(whole(answer, "m"))
    check_chunks([body])
    assert shape(fold([*Reader(nothing, numbered()).chunk(body)])) == shape(answer)


def test_a_whole_answer_on_the_wire():
    answer = fold([STARTED, *TEXT, *block(1, Block.TOOL_CALL, '{"a":1}', id="c1", name="f"), ENDED])
    assert orjson.loads(whole(answer, "m")) == {
        "candidates": [
            {
                "content": {
                    "parts": [{"text": "Hello"}, {"functionCall": {"name": "f", "args": {"a": 1}, "id": "c1"}}],
                    "role": "model",
                },
                "finishReason": "STOP",
                "index": 0,
            }
        ],
        "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10},
        "modelVersion": "m",
        "responseId": "r1",
    }


def test_an_answer_without_an_end_is_still_rendered():
    check_chunks([orjson.loads(whole(Answer(), "m"))])


# Anything...

KINDS = st.sampled_from([Block.TEXT, Block.THINKING, Block.REFUSAL, Block.TOOL_CALL])


@given(st.lists(st.tuples(KINDS, st.lists(st.text(max_size=5), max_size=3), st.sampled_from(["", "AAAA"])), max_size=5))
@thorough
def test_any_answer_obeys_the_grammar_and_is_read_back(blocks):
    events = []
    for index, (kind, texts, signature) in enumerate(blocks):
        pieces = ["{", '"a"', ":1}"] if kind is Block.TOOL_CALL else texts
        named = {"id": f"c{index}", "name": "f"} if kind is Block.TOOL_CALL else {}
        events += block(index, kind, *pieces, signature=signature, **named)
    out, _ = written(*events, ENDED)
    mine, theirs = fold([STARTED, *events, ENDED]), fold(read(out))
    spoken = (Block.TEXT, Block.REFUSAL)
    assert theirs.text == "".join(b.text for b in mine.blocks if b.block in spoken)
    for kind in (Block.THINKING, Block.TOOL_CALL):
        assert "".join(b.text.replace(" ", "") for b in theirs.blocks if b.block is kind) == "".join(
            b.text.replace(" ", "") for b in mine.blocks if b.block is kind
        )
    assert [b.signature for b in theirs.blocks if b.signature] == [b.signature for b in mine.blocks if b.signature]
