"""Events → message streams and whole messages."""

from __future__ import annotations

import json

import pytest

from proxy.dialects.anthropic_messages.words import REASON, STOP
from proxy.dialects.anthropic_messages.writer import DELTA, Writer, whole
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
from proxy.requests import Request, Role, Text, Turn
from proxy.sse import Decoder
from tests.dialects.anthropic_messages import fold, write
from tests.dialects.anthropic_messages.grammar import check

STARTED = MessageStarted("chatcmpl-1", "gpt-x")
ENDED = MessageEnded(Stop.END, Usage(30, 8, cached=20))
TEXT = [BlockOpened(0, Block.TEXT), BlockDelta(0, Block.TEXT, "Hé"), BlockClosed(0)]
CALL = [
    BlockOpened(0, Block.TOOL_CALL, "call_1", "look"),
    BlockDelta(0, Block.TOOL_CALL, '{"a":'),
    BlockDelta(0, Block.TOOL_CALL, "1}"),
    BlockClosed(0),
]
THOUGHT = [
    BlockOpened(0, Block.THINKING),
    BlockDelta(0, Block.THINKING, "Hm."),
    BlockSigned(0, "sig"),
    BlockClosed(0),
]


def frames(wire):
    return [json.loads(frame.data) for frame in Decoder().feed(wire)]


def middle(*events):
    """The frames of these events, without those around every message."""
    return frames(write([STARTED, *events, ENDED]))[1:-2]


def test_a_stream_word_for_word():
    assert write([STARTED, *TEXT, ENDED]) == (
        b"event: message_start\n"
        b'data: {"type":"message_start","message":{"id":"msg_chatcmpl-1","type":"message","role":"assistant",'
        b'"model":"claude-x","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":7,'
        b'"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":1}}}\n\n'
        b"event: content_block_start\n"
        b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
        b"event: content_block_delta\n"
        b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"H\xc3\xa9"}}\n\n'
        b"event: content_block_stop\n"
        b'data: {"type":"content_block_stop","index":0}\n\n'
        b"event: message_delta\n"
        b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
        b'"usage":{"input_tokens":10,"cache_creation_input_tokens":0,"cache_read_input_tokens":20,"output_tokens":8}}\n\n'
        b"event: message_stop\n"
        b'data: {"type":"message_stop"}\n\n'
    )


@pytest.mark.parametrize(
    ("events", "told"),
    [
        pytest.param(
            CALL,
            [
                {
                    "type": "content_block_start",
                    "index": 0,
                    "content_block": {"type": "tool_use", "id": "call_1", "name": "look", "input": {}},
                },
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "input_json_delta", "partial_json": '{"a":'},
                },
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "input_json_delta", "partial_json": "1}"},
                },
                {"type": "content_block_stop", "index": 0},
            ],
            id="tool-call",
        ),
        pytest.param(
            [CALL[0], BlockDelta(0, Block.TOOL_CALL, ""), CALL[-1]],
            [
                {
                    "type": "content_block_start",
                    "index": 0,
                    "content_block": {"type": "tool_use", "id": "call_1", "name": "look", "input": {}},
                },
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "input_json_delta", "partial_json": "{}"},
                },
                {"type": "content_block_stop", "index": 0},
            ],
            id="a-call-without-arguments-is-given-an-empty-object",
        ),
        pytest.param(
            THOUGHT,
            [
                {
                    "type": "content_block_start",
                    "index": 0,
                    "content_block": {"type": "thinking", "thinking": "", "signature": ""},
                },
                {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
                {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "sig"}},
                {"type": "content_block_stop", "index": 0},
            ],
            id="the-signature-comes-before-the-block's-end",
        ),
        pytest.param(
            [BlockOpened(0, Block.THINKING, redacted="xyz"), BlockDelta(0, Block.THINKING, "no"), BlockClosed(0)],
            [
                {
                    "type": "content_block_start",
                    "index": 0,
                    "content_block": {"type": "redacted_thinking", "data": "xyz"},
                },
                {"type": "content_block_stop", "index": 0},
            ],
            id="redacted-thinking-comes-whole",
        ),
        pytest.param(
            [CALL[0], *CALL[1:3], BlockSigned(0, "gemini's"), CALL[-1]],
            [
                {
                    "type": "content_block_start",
                    "index": 0,
                    "content_block": {"type": "tool_use", "id": "call_1", "name": "look", "input": {}},
                },
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "input_json_delta", "partial_json": '{"a":'},
                },
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "input_json_delta", "partial_json": "1}"},
                },
                {"type": "content_block_stop", "index": 0},
            ],
            id="only-thoughts-are-signed",
        ),
    ],
)
def test_blocks_are_told_in_order(events, told):
    assert middle(*events) == told


@pytest.mark.parametrize(
    ("citation", "told"),
    [
        pytest.param(
            {"url": "https://e.org", "title": "E", "text": "So.", "start_index": 3},
            {
                "type": "web_search_result_location",
                "cited_text": "So.",
                "url": "https://e.org",
                "title": "E",
                "encrypted_index": "",
            },
            id="another-dialect's",
        ),
        pytest.param(
            {"title": "D", "text": "So.", "type": "char_location", "cited_text": "So.", "document_index": 0},
            {"title": "D", "type": "char_location", "cited_text": "So.", "document_index": 0},
            id="its-own",
        ),
    ],
)
def test_citations_stand_in_their_text_block(citation, told):
    frame = middle(TEXT[0], Cited(0, citation), *TEXT[1:])[1]
    assert frame == {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": told}}


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        pytest.param(None, (7, 0, 0, 1), id="estimated"),
        pytest.param(Usage(0, 0), (7, 0, 0, 1), id="a-zero-is-not-believed"),
        pytest.param(Usage(100, 3, cached=60, cache_written=10), (30, 10, 60, 3), id="known"),
        pytest.param(Usage(60, 0, cached=60), (0, 0, 60, 1), id="all-from-the-cache"),
    ],
)
def test_the_first_frame_says_what_the_input_costs(usage, told):
    first = frames(write([MessageStarted("", "", usage)]))[0]["message"]["usage"]
    assert tuple(first.values()) == told


def test_without_an_estimate_the_request_is_weighed():
    request = Request("m", (Turn(Role.USER, (Text("x" * 3500),)),))
    first = frames(Writer("m", request).write(STARTED))[0]
    assert 1000 <= first["message"]["usage"]["input_tokens"] < 1100
    assert frames(Writer("m").write(STARTED))[0]["message"]["usage"]["input_tokens"] == 1


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        pytest.param(None, {"input_tokens": 7, "output_tokens": 25}, id="none"),
        pytest.param(Usage(0, 9), {"input_tokens": 7, "output_tokens": 9}, id="output-alone"),
        pytest.param(Usage(5, 0), {"input_tokens": 5, "output_tokens": 25}, id="input-alone"),
        pytest.param(
            Usage(5, 9, reasoning=4),
            {"input_tokens": 5, "output_tokens": 9, "output_tokens_details": {"thinking_tokens": 4}},
            id="reasoning",
        ),
    ],
)
def test_the_last_frame_says_what_the_answer_cost(usage, told):
    events = [STARTED, TEXT[0], BlockDelta(0, Block.TEXT, "x" * 100), TEXT[-1], MessageEnded(Stop.END, usage)]
    last = frames(write(events))[-2]["usage"]
    assert last == {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0} | told


@pytest.mark.parametrize("stop", Stop)
def test_every_stop_has_its_reason(stop):
    wire = write([STARTED, *TEXT, MessageEnded(stop, ENDED.usage, "x" if stop is Stop.STOP_SEQUENCE else "")])
    check(wire)
    assert frames(wire)[-2]["delta"]["stop_reason"] == REASON[stop]
    assert STOP[REASON[stop]] is stop


def test_the_tables_cover_their_enums():
    assert set(DELTA) == set(Block)
    assert set(REASON) == set(Stop)


@pytest.mark.parametrize(
    ("stops", "sequence"), [(("a",), "a"), (("a", "b"), None), ((), None)], ids=["one", "two", "none"]
)
def test_a_stop_sequence_that_the_provider_does_not_name_is_known_if_there_is_only_one(stops, sequence):
    request = Request("m", (), stop=stops)
    told = frames(write([STARTED, MessageEnded(Stop.STOP_SEQUENCE, ENDED.usage)], Writer("m", request, estimate=1)))
    assert told[-2]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": sequence}


def test_a_refusal_is_text_and_a_stop_reason():
    no = [BlockOpened(0, Block.REFUSAL), BlockDelta(0, Block.REFUSAL, "No."), BlockClosed(0)]
    told = frames(write([STARTED, *no, ENDED]))
    assert told[2]["delta"] == {"type": "text_delta", "text": "No."}
    assert told[-2]["delta"]["stop_reason"] == "refusal"
    assert json.loads(whole(fold([STARTED, *no, ENDED]), "m"))["stop_reason"] == "refusal"


def test_calls_without_an_id_are_given_one_each():
    calls = [
        BlockOpened(0, Block.TOOL_CALL, "", "look"),
        BlockClosed(0),
        BlockOpened(1, Block.TOOL_CALL, "", "look"),
        BlockClosed(1),
    ]
    told = [f["content_block"]["id"] for f in middle(*calls) if f["type"] == "content_block_start"]
    assert len(set(told)) == 2
    assert all(id.startswith("toolu_") for id in told)


def test_ids_of_messages_are_anthropics_or_begin_like_them():
    assert frames(write([MessageStarted("msg_9")]))[0]["message"]["id"] == "msg_9"
    assert frames(write([MessageStarted()]))[0]["message"]["id"].startswith("msg_")


def test_a_message_that_ends_before_it_began_is_whole():
    check(write([ENDED]))


@pytest.mark.parametrize("mode", ["comment", "chunk"])
def test_silence_is_filled_with_pings(mode):
    assert Writer.keepalive(mode) == b'event: ping\ndata: {"type":"ping"}\n\n'


def test_silence_may_be_silent():
    assert Writer.keepalive("off") == b""


def test_a_whole_answer():
    events = [
        STARTED,
        *THOUGHT,
        BlockOpened(1, Block.THINKING, redacted="xyz"),
        BlockClosed(1),
        BlockOpened(2, Block.TEXT),
        BlockDelta(2, Block.TEXT, "H"),
        BlockDelta(2, Block.TEXT, "i"),
        Cited(2, {"url": "https://e.org", "text": "So."}),
        BlockClosed(2),
        BlockOpened(3, Block.TOOL_CALL, "call_1", "look"),
        BlockDelta(3, Block.TOOL_CALL, '{"a":1}'),
        BlockClosed(3),
        MessageEnded(Stop.TOOL_CALLS, Usage(30, 8, cached=20, reasoning=2)),
    ]
    assert json.loads(whole(fold(events), "claude-x")) == {
        "id": "msg_chatcmpl-1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
            {"type": "redacted_thinking", "data": "xyz"},
            {
                "type": "text",
                "text": "Hi",
                "citations": [
                    {
                        "type": "web_search_result_location",
                        "cited_text": "So.",
                        "url": "https://e.org",
                        "title": None,
                        "encrypted_index": "",
                    }
                ],
            },
            {"type": "tool_use", "id": "call_1", "name": "look", "input": {"a": 1}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 10,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 20,
            "output_tokens": 8,
            "output_tokens_details": {"thinking_tokens": 2},
        },
    }


@pytest.mark.parametrize("arguments", ["", '{"a": "b', "[1]", '"x"'])
def test_broken_arguments_of_a_whole_answer_are_none(arguments):
    events = [STARTED, CALL[0], BlockDelta(0, Block.TOOL_CALL, arguments), CALL[-1], MessageEnded(Stop.LENGTH, None)]
    message = json.loads(whole(fold(events), "m"))
    assert message["content"][0]["input"] == {}
    assert message["usage"]["input_tokens"] == 1
