"""Message streams and whole messages → events."""

from __future__ import annotations

import json

import pytest

from proxy.dialects.anthropic_messages.reader import Reader, read_whole
from proxy.dialects.anthropic_messages.words import STOP
from proxy.errors import GatewayError, Kind, UpstreamError, UpstreamRefused
from proxy.events import (
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
from proxy.sse import Frame
from tests.cuts import cuts, drip
from tests.dialects.anthropic_messages import (
    END,
    PING,
    closed,
    delta,
    dumps,
    fold,
    nothing,
    opened,
    read,
    said,
    sse,
    start,
    stopped,
)

STARTED = MessageStarted("msg_1", "claude-x", Usage(10, 1))
ENDED = MessageEnded(Stop.END, Usage(10, 5))
TOOL = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
PLACE = {"type": "web_search_result_location", "cited_text": "So.", "url": "https://e.org", "title": "E"}


@pytest.mark.parametrize(
    ("wire", "events"),
    [
        pytest.param(
            [start(), opened(0), PING, said(0, "Hé"), said(0, "llo"), closed(0), stopped(), END],
            [
                STARTED,
                BlockOpened(0, Block.TEXT),
                BlockDelta(0, Block.TEXT, "Hé"),
                BlockDelta(0, Block.TEXT, "llo"),
                BlockClosed(0),
                ENDED,
            ],
            id="text",
        ),
        pytest.param(
            [
                start(),
                opened(0, type="thinking", thinking="", signature=""),
                delta(0, "thinking", thinking="Hm."),
                delta(0, "thinking", thinking=""),
                delta(0, "signature", signature="sig"),
                closed(0),
                opened(1),
                said(1, "Yes"),
                closed(1),
                stopped(),
                END,
            ],
            [
                STARTED,
                BlockOpened(0, Block.THINKING),
                BlockDelta(0, Block.THINKING, "Hm."),
                BlockSigned(0, "sig"),
                BlockClosed(0),
                BlockOpened(1, Block.TEXT),
                BlockDelta(1, Block.TEXT, "Yes"),
                BlockClosed(1),
                ENDED,
            ],
            id="thinking-with-signature",
        ),
        pytest.param(
            [start(), opened(0, type="redacted_thinking", data="xyz"), closed(0), stopped(), END],
            [STARTED, BlockOpened(0, Block.THINKING, redacted="xyz"), BlockClosed(0), ENDED],
            id="redacted-thinking-comes-whole",
        ),
        pytest.param(
            [
                start(),
                opened(0, **TOOL),
                delta(0, "input_json", partial_json=""),
                delta(0, "input_json", partial_json='{"a":'),
                delta(0, "input_json", partial_json="1}"),
                closed(0),
                stopped("tool_use"),
                END,
            ],
            [
                STARTED,
                BlockOpened(0, Block.TOOL_CALL, "toolu_1", "look"),
                BlockDelta(0, Block.TOOL_CALL, '{"a":'),
                BlockDelta(0, Block.TOOL_CALL, "1}"),
                BlockClosed(0),
                MessageEnded(Stop.TOOL_CALLS, Usage(10, 5)),
            ],
            id="tool-call",
        ),
        pytest.param(
            [
                start(),
                opened(0, **TOOL),
                delta(0, "input_json", partial_json=""),
                closed(0),
                stopped("tool_use"),
                END,
            ],
            [
                STARTED,
                BlockOpened(0, Block.TOOL_CALL, "toolu_1", "look"),
                BlockDelta(0, Block.TOOL_CALL, "{}"),
                BlockClosed(0),
                MessageEnded(Stop.TOOL_CALLS, Usage(10, 5)),
            ],
            id="a-tool-without-arguments-has-empty-ones",
        ),
        pytest.param(
            [start(), opened(0, **{**TOOL, "input": {"a": 1}}), closed(0), stopped(), END],
            [
                STARTED,
                BlockOpened(0, Block.TOOL_CALL, "toolu_1", "look"),
                BlockDelta(0, Block.TOOL_CALL, '{"a":1}'),
                BlockClosed(0),
                MessageEnded(Stop.TOOL_CALLS, Usage(10, 5)),
            ],
            id="input-whole-at-the-start-and-end-turn-after-a-call",
        ),
        pytest.param(
            [
                start(),
                opened(0, type="server_tool_use", id="srv", name="web_search", input={}),
                delta(0, "input_json", partial_json='{"query":"x"}'),
                closed(0),
                opened(1, type="web_search_tool_result", tool_use_id="srv", content=[]),
                closed(1),
                opened(2, type="text", text="", citations=[]),
                delta(2, "citations", citation=PLACE),
                said(2, "So"),
                closed(2),
                stopped(),
                END,
            ],
            [
                STARTED,
                BlockOpened(0, Block.TEXT),
                Cited(0, {"url": "https://e.org", "title": "E", "text": "So.", **PLACE}),
                BlockDelta(0, Block.TEXT, "So"),
                BlockClosed(0),
                ENDED,
            ],
            id="the-provider's-own-tools-are-passed-over-and-citations-kept",
        ),
        pytest.param(
            [
                start(),
                opened(0, type="text", text="", citations=[{"type": "x_location", "cited_text": [[]], "url": {}}]),
                closed(0),
                stopped(),
                END,
            ],
            [
                STARTED,
                BlockOpened(0, Block.TEXT),
                Cited(0, {"type": "x_location"}),
                BlockClosed(0),
                ENDED,
            ],
            id="of-a-citation-that-is-none-only-words-are-kept",
        ),
        pytest.param(
            [start(), stopped("stop_sequence", "alpha"), END],
            [STARTED, MessageEnded(Stop.STOP_SEQUENCE, Usage(10, 5), "alpha")],
            id="a-stop-sequence-at-once-leaves-no-content",
        ),
        pytest.param(
            [start(), opened(0), closed(0), stopped(), END],
            [STARTED, BlockOpened(0, Block.TEXT), BlockClosed(0), ENDED],
            id="a-block-without-a-delta",
        ),
        pytest.param(
            [start(), opened(0), said(0, "a"), opened(1), said(1, "b"), stopped(), END],
            [
                STARTED,
                BlockOpened(0, Block.TEXT),
                BlockDelta(0, Block.TEXT, "a"),
                BlockClosed(0),
                BlockOpened(1, Block.TEXT),
                BlockDelta(1, Block.TEXT, "b"),
                BlockClosed(1),
                ENDED,
            ],
            id="a-block-that-nobody-closes",
        ),
        pytest.param(
            [said(0, "a"), said(0, "b"), stopped(), END],
            [
                MessageStarted(),
                BlockOpened(0, Block.TEXT),
                BlockDelta(0, Block.TEXT, "a"),
                BlockDelta(0, Block.TEXT, "b"),
                BlockClosed(0),
                MessageEnded(Stop.END, Usage(0, 5)),
            ],
            id="a-message-and-a-block-that-nobody-opened",
        ),
        pytest.param(
            [start(), opened(0, type="text", text="All"), closed(0), stopped(), END],
            [STARTED, BlockOpened(0, Block.TEXT), BlockDelta(0, Block.TEXT, "All"), BlockClosed(0), ENDED],
            id="text-whole-at-the-start",
        ),
        pytest.param(
            [start(), {"type": "something_new"}, opened(0, type="something_new"), closed(0), stopped(), END],
            [STARTED, ENDED],
            id="unknown-frames-and-blocks",
        ),
    ],
)
def test_a_stream_is_read_wherever_it_is_cut(wire, events):
    stream = sse(*wire)
    for chunks in cuts(stream) if len(stream) < 800 else ([stream], drip(stream)):
        assert read(*chunks) == events


@pytest.mark.parametrize(("reason", "stop"), [*STOP.items(), ("something_new", Stop.END)])
def test_every_stop_reason_is_known(reason, stop):
    assert read(sse(start(), stopped(reason), END))[-1].stop is stop


@pytest.mark.parametrize(
    ("first", "last", "usage"),
    [
        pytest.param(
            {"input_tokens": 10, "output_tokens": 1}, {"output_tokens": 9}, Usage(10, 9), id="input-at-the-start"
        ),
        pytest.param(
            {"input_tokens": 0, "output_tokens": 0},
            {"input_tokens": 7, "output_tokens": 9},
            Usage(7, 9),
            id="input-at-the-end",
        ),
        pytest.param(
            {"input_tokens": 10, "output_tokens": 1},
            {"input_tokens": 0, "output_tokens": 9},
            Usage(10, 9),
            id="a-zero-at-the-end-takes-nothing-back",
        ),
        pytest.param(
            {"input_tokens": 10, "output_tokens": 5}, {"output_tokens": 9}, Usage(10, 9), id="output-is-not-added-up"
        ),
        pytest.param(
            {"input_tokens": 3, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 100, "output_tokens": 1},
            {"output_tokens": 9, "output_tokens_details": {"thinking_tokens": 4}},
            Usage(123, 9, cached=100, cache_written=20, reasoning=4),
            id="input-includes-the-cache",
        ),
        pytest.param(
            {"input_tokens": 9, "cache_read_input_tokens": 0, "output_tokens": 1},
            {"input_tokens": 0, "cache_read_input_tokens": 100, "output_tokens": 9},
            Usage(100, 9, cached=100),
            id="all-of-the-input-came-from-the-cache",
        ),
        pytest.param({"input_tokens": None, "output_tokens": "x"}, {"output_tokens": None}, Usage(), id="nonsense"),
    ],
)
def test_usage_is_cumulative(first, last, usage):
    assert read(sse(start(usage=first), stopped(**last), END))[-1].usage == usage


@pytest.mark.parametrize(
    ("wire", "kind", "says"),
    [
        pytest.param(
            b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
            Kind.UPSTREAM_ERROR,
            "529",
            id="overloaded",
        ),
        pytest.param(
            b'data: {"type":"error","error":{"type":"rate_limit_error","message":"Slow"}}',
            Kind.RATE_LIMITED,
            "Slow",
            id="no-event-line",
        ),
        pytest.param(b'event: error\ndata: {"type":"api_error","message":"Oh"}', Kind.UPSTREAM_ERROR, "Oh", id="flat"),
        pytest.param(b"event: error\ndata: it broke", Kind.UPSTREAM_ERROR, "it broke", id="text"),
        pytest.param(b'data: {"error":{"message":"m","code":400}}', Kind.INVALID_REQUEST, "m", id="openai's"),
        pytest.param(b"event: ping\ndata: {", Kind.UPSTREAM_ERROR, "not JSON", id="not-json"),
        pytest.param(b"data: []", Kind.UPSTREAM_ERROR, "not an object", id="not-an-object"),
        pytest.param(
            dumps({**said(0, "x"), "y": "z"}).join([b"data: ", b""]).replace(b"z", b"\xff"),
            Kind.UPSTREAM_ERROR,
            "not JSON",
            id="not-utf-8-where-nobody-looks",
        ),
    ],
)
def test_an_error_in_the_stream_is_raised(wire, kind, says):
    with pytest.raises(GatewayError, match=says) as caught:
        read(sse(start(), opened(0), said(0, "Hi")) + wire + b"\n\n")
    assert caught.value.kind is kind


def test_secrets_are_taken_out_of_a_provider_error():
    reader = Reader(lambda text: text.replace("sk-1", "***"))
    with pytest.raises(UpstreamError, match=r"key \*\*\* is bad"):
        list(reader.read(Frame(b'{"type":"error","error":{"type":"api_error","message":"key sk-1 is bad"}}')))


def test_the_end_is_told_once_and_nothing_after_it():
    reader = Reader(nothing)
    assert not reader.finished
    list(reader.read(Frame(dumps(stopped()))))
    assert (reader.finished, reader.done) == (True, False)
    assert list(reader.read(Frame(dumps(END))))
    assert reader.done
    assert reader.usage == Usage(0, 5)
    assert list(reader.read(Frame(dumps(said(0, "more"))))) == []


def test_a_stream_without_its_end_mark_ends_with_its_stop_reason():
    assert read(sse(start(), stopped())) == [STARTED, ENDED]


def test_done_of_another_dialect_is_the_end_only_after_a_stop_reason():
    assert read(sse(start(), stopped(), b"event: data\ndata: [DONE]\n\n")) == [STARTED, ENDED]
    assert read(sse(start(), b"data: [DONE]\n\n")) == [STARTED]


WHOLE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-x",
    "content": [
        {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "server_tool_use", "id": "srv", "name": "web_search", "input": {"query": "x"}},
        {"type": "text", "text": "So", "citations": [PLACE]},
        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"a": 1}},
        {"type": "tool_use", "id": "toolu_2", "name": "go", "input": {}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 2},
}


def test_a_whole_answer_is_the_fold_of_its_stream():
    stream = [
        start(usage={"input_tokens": 10, "cache_read_input_tokens": 2, "output_tokens": 1}),
        opened(0, type="thinking", thinking="", signature=""),
        delta(0, "thinking", thinking="Hm."),
        delta(0, "signature", signature="sig"),
        closed(0),
        opened(1, type="redacted_thinking", data="xyz"),
        closed(1),
        opened(2, type="server_tool_use", id="srv", name="web_search", input={}),
        closed(2),
        opened(3, type="text", text=""),
        delta(3, "citations", citation=PLACE),
        said(3, "So"),
        closed(3),
        opened(4, **TOOL),
        delta(4, "input_json", partial_json='{"a":1}'),
        closed(4),
        opened(5, type="tool_use", id="toolu_2", name="go", input={}),
        closed(5),
        stopped("tool_use"),
        END,
    ]
    streamed, whole = fold(read(sse(*stream))), fold(read_whole(json.dumps(WHOLE).encode(), nothing))
    assert [(b.block, b.id, b.name, b.redacted, b.signature, b.text, b.citations) for b in streamed.blocks] == [
        (b.block, b.id, b.name, b.redacted, b.signature, b.text, b.citations) for b in whole.blocks
    ]
    assert (whole.id, whole.model, whole.stop, whole.usage) == (
        streamed.id,
        streamed.model,
        streamed.stop,
        streamed.usage,
    )
    assert whole.usage == Usage(12, 5, cached=2)


@pytest.mark.parametrize(
    ("body", "error", "says"),
    [
        pytest.param(b"<html>", UpstreamError, "not JSON", id="html"),
        pytest.param(b"[]", UpstreamError, "not a JSON object", id="list"),
        pytest.param(b"{}", UpstreamError, "no `content`", id="no-content"),
        pytest.param(
            b'{"type":"error","error":{"type":"invalid_request_error","message":"No"}}',
            UpstreamRefused,
            "No",
            id="error-beside-a-200",
        ),
    ],
)
def test_a_whole_answer_that_is_none_is_refused(body, error, says):
    with pytest.raises(error, match=says):
        list(read_whole(body, nothing))
