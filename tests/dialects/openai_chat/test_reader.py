"""Chunks become events: what each quirk of the wire means."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.openai_chat.reader import STOP, ChatReader, usage_of
from proxy.errors import GatewayError
from proxy.events import (
    Answer,
    Block,
    BlockClosed,
    BlockDelta,
    BlockOpened,
    MessageEnded,
    MessageStarted,
    Stop,
    Usage,
)
from proxy.sse import Decoder, Frame, Reframer
from tests.dialects.openai_chat import chunk, dumps, nothing, say, sse, usage
from tests.dialects.openai_chat.test_tap import chunks
from tests.properties import json, thorough
from tests.recordings import chat_streams, chat_wholes
from tests.wire import CHAT, wire


def read(stream: bytes) -> list:
    """The events of a stream, its end included."""
    reader, events = ChatReader(nothing), []
    for frame in Decoder().feed(Reframer().feed(stream)):
        events += reader.read(frame)
    if not reader.done:
        events += reader.end()
    return events


def fold(events: list) -> Answer:
    answer = Answer()
    for event in events:
        answer.add(event)
    return answer


def blocks(stream: bytes) -> list[tuple[Block, str]]:
    return [(block.block, block.text) for block in fold(read(stream)).blocks]


def calls(stream: bytes) -> list[tuple[str, str, str]]:
    return [(b.id, b.name, b.text) for b in fold(read(stream)).blocks if b.block is Block.TOOL_CALL]


def well_formed(events: list) -> None:
    """Blocks open and close one after another, numbered from 0; deltas belong to the open one; the end is last."""
    open_, number = None, -1
    for event in events[:-1]:
        match event:
            case MessageStarted():
                assert event is events[0]
            case BlockOpened():
                assert open_ is None
                number += 1
                assert event.index == number
                open_ = event
            case BlockDelta():
                assert open_ is not None
                assert (event.index, event.block) == (open_.index, open_.block)
                assert event.text
            case BlockClosed():
                assert open_ is not None
                assert event.index == open_.index
                open_ = None
            case MessageEnded():
                raise AssertionError("an end before the end")
    assert open_ is None
    assert isinstance(events[-1], MessageEnded)


def test_a_plain_stream():
    assert read(wire("plain")) == [
        MessageStarted("chatcmpl-1", "gpt-x"),
        BlockOpened(0, Block.TEXT),
        BlockDelta(0, Block.TEXT, "Hel"),
        BlockDelta(0, Block.TEXT, "lo"),
        BlockClosed(0),
        MessageEnded(Stop.END),
    ]


TEXT, THINKING, REFUSAL = Block.TEXT, Block.THINKING, Block.REFUSAL


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("numbers-as-tokens", [(TEXT, "42.0")]),
        ("reasoning-then-text", [(THINKING, "Hm."), (TEXT, "Hello")]),
        ("reasoning-in-two-homes", [(THINKING, "Hm."), (TEXT, "Hello")]),
        ("reasoning-as-content-parts", [(THINKING, "Hm."), (TEXT, "Hello")]),
        ("refusal", [(REFUSAL, "I can't help.")]),
        ("message-beside-delta", [(TEXT, "Hello")]),
        ("two-choices", [(TEXT, "Hello")]),
        ("data-in-several-lines", [(TEXT, "Hello")]),
        ("empty-choices-first", [(TEXT, "Hello")]),
        ("role-on-every-chunk", [(TEXT, "Hello")]),
        ("no-finish-reason", [(TEXT, "Hello")]),
    ],
)
def test_what_is_said(name, expected):
    assert blocks(wire(name)) == expected


ROME, TIME = ("call_1", "weather", '{"city":"Rome"}'), ("call_2", "time", "{}")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tool-call-in-fragments", [ROME, TIME]),
        ("tool-calls-whole-in-one-chunk", [ROME, TIME]),
        ("tool-calls-all-with-index-zero", [ROME, TIME]),
        ("tool-calls-without-index", [ROME, TIME]),
        ("tool-call-arguments-as-object", [ROME]),
        ("tool-call-end-marker-of-nulls", [ROME]),
        ("tool-call-cut-by-the-limit", [("call_1", "weather", '{"ci')]),
    ],
)
def test_what_is_called(name, expected):
    assert calls(wire(name)) == expected


def test_fragments_without_an_index_belong_to_the_call_that_is_open():
    first = {"id": "call_1", "function": {"name": "f", "arguments": '{"a'}}
    stream = sse(*[chunk({"tool_calls": [each]}) for each in (first, {"function": {"arguments": '":1}'}})])
    assert calls(stream) == [("call_1", "f", '{"a":1}')]


def test_calls_of_the_same_name_without_index_and_id_are_two():
    call = {"function": {"name": "f", "arguments": "{}"}}
    assert [each[1:] for each in calls(sse(chunk({"tool_calls": [call, call]})))] == [("f", "{}"), ("f", "{}")]


def test_fragments_of_parallel_calls_may_interleave():
    pieces = [(0, "a", "f", ""), (1, "b", "g", ""), (0, None, None, "{}"), (1, None, None, "[]")]
    stream = sse(
        *[
            chunk({"tool_calls": [{"index": i, "id": id, "function": {"name": name, "arguments": text}}]})
            for i, id, name, text in pieces
        ]
    )
    assert calls(stream) == [("a", "f", "{}"), ("b", "g", "[]")]


def test_a_call_whose_id_is_repeated_on_every_fragment_is_one_call():
    stream = sse(
        *[
            chunk({"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "f", "arguments": each}}]})
            for each in ('{"a', '":1}')
        ]
    )
    assert calls(stream) == [("call_1", "f", '{"a":1}')]


@pytest.mark.parametrize("reason", ["stop", "tool_calls", None])
def test_an_answer_that_calls_ends_for_that_reason(reason):
    call = chunk({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f"}}]})
    assert fold(read(sse(call, chunk(finish=reason), b"[DONE]"))).stop is Stop.TOOL_CALLS
    assert fold(read(sse(call, chunk(finish="length"), b"[DONE]"))).stop is Stop.LENGTH


@pytest.mark.parametrize("id", [None, "", "null", "same"])
def test_every_call_gets_an_id_of_its_own(id):
    stream = sse(*[chunk({"tool_calls": [{"index": i, "id": id, "function": {"name": "f"}}]}) for i in range(3)])
    ids = [each for each, _, _ in calls(stream)]
    assert len(set(ids)) == 3
    assert all(each and each != "null" for each in ids)


def test_text_may_come_before_a_call():
    stream = sse(say("Let me see."), chunk({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f"}}]}))
    assert blocks(stream) == [(TEXT, "Let me see."), (Block.TOOL_CALL, "")]


@pytest.mark.parametrize(
    ("reason", "stop"),
    [
        ("stop", Stop.END),
        ("length", Stop.LENGTH),
        ("tool_calls", Stop.TOOL_CALLS),
        ("function_call", Stop.TOOL_CALLS),
        ("content_filter", Stop.CONTENT_FILTER),
        ("eos", Stop.END),
        ("model_length", Stop.LENGTH),
        ("insufficient_system_resource", Stop.LENGTH),
        ("a word of tomorrow", Stop.END),
    ],
)
def test_why_it_ended(reason, stop):
    assert fold(read(sse(say("x"), chunk(finish=reason), b"[DONE]"))).stop is stop


def test_the_table_of_reasons_leads_to_every_stop_that_the_dialect_knows():
    assert set(STOP.values()) == set(Stop) - {Stop.STOP_SEQUENCE}


@pytest.mark.parametrize("reason", [None, "", False])
def test_no_reason_is_no_finish(reason):
    reader = ChatReader(nothing)
    list(reader.read(Frame(dumps(chunk(finish=reason)))))
    assert not reader.finished


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("usage-alone-after-finish", Usage(3, 1)),
        ("usage-on-finish-chunk", Usage(3, 1, cached=2)),
        ("usage-twice", Usage(3, 1)),
        ("usage-with-zeros-last", Usage(57, 28)),
        ("usage-real-then-zeros", Usage(57, 28)),
        ("usage-on-every-chunk-and-no-end-mark", Usage(3, 2)),
        ("usage-after-finish-with-a-choice", Usage(3, 1)),
        ("plain", None),
    ],
)
def test_what_it_cost(name, expected):
    assert fold(read(wire(name))).usage == expected


@pytest.mark.parametrize(
    ("wire_usage", "expected"),
    [
        pytest.param(usage(9, 5, prompt_tokens_details={"cached_tokens": 4}), Usage(9, 5, cached=4), id="cached"),
        pytest.param(
            usage(9, 5, completion_tokens_details={"reasoning_tokens": 3}), Usage(9, 5, reasoning=3), id="reasoning"
        ),
        pytest.param(
            {
                "prompt_tokens": 213,
                "completion_tokens": 2,
                "total_tokens": 413,
                "completion_tokens_details": {"reasoning_tokens": 198},
            },
            Usage(213, 200, reasoning=198),
            id="xai-counts-thoughts-apart",
        ),
        pytest.param(usage(9, 5, prompt_cache_hit_tokens=4), Usage(9, 5, cached=4), id="deepseek-cached"),
        pytest.param({"prompt_tokens": "9", "completion_tokens": None}, Usage(), id="nonsense-counts-nothing"),
        pytest.param({"prompt_tokens": -1, "completion_tokens": 2}, Usage(0, 2), id="negative-counts-nothing"),
        pytest.param(
            usage(9, 5, prompt_tokens_details=None, completion_tokens_details=[]), Usage(9, 5), id="details-null"
        ),
    ],
)
def test_usage(wire_usage, expected):
    assert usage_of(wire_usage) == expected


@pytest.mark.parametrize("name", [name for name in CHAT if not name.startswith(("error-", "cut-", "unterminated-"))])
def test_events_are_well_formed(name):
    well_formed(read(wire(name)))


@pytest.mark.parametrize(
    ("frame", "status", "message"),
    [
        pytest.param(Frame(b'{"error":{"message":"no","code":429}}'), 429, "no", id="at-the-top"),
        pytest.param(Frame(b'{"message":"no","code":400}', "error"), 400, "no", id="with-its-event"),
        pytest.param(Frame(b"gone", "error"), 502, "gone", id="plain-text"),
        pytest.param(Frame(b'{"object":"error","message":"no","code":404}'), 404, "no", id="flat"),
        pytest.param(Frame(b'{"error":"no"}'), 502, "no", id="a-string"),
        pytest.param(Frame(b'{"error":{"code":401,"message":"sk-1?"}}'), 502, "this gateway's key", id="our-key"),
    ],
)
def test_an_error_is_raised(frame, status, message):
    with pytest.raises(GatewayError) as caught:
        list(ChatReader(nothing).read(frame))
    assert caught.value.status == status
    assert message in caught.value.message


def test_after_the_end_mark_nothing_is_read():
    reader = ChatReader(nothing)
    assert len(list(reader.read(Frame(b"[DONE]")))) == 1
    assert list(reader.read(Frame(dumps(say("more"))))) == []


@thorough
@given(st.lists(chunks | json, max_size=5))
def test_any_json_is_read_or_refused(payloads):
    reader, events = ChatReader(nothing), []
    try:
        for payload in payloads:
            events += reader.read(Frame(orjson.dumps(payload)))
    except GatewayError:
        return
    well_formed([*events, *reader.end()])
    fold(events)


deltas = st.fixed_dictionaries(
    {},
    optional={
        "content": json,
        "reasoning": json,
        "reasoning_content": json,
        "refusal": json,
        "tool_calls": json
        | st.lists(
            json
            | st.fixed_dictionaries(
                {},
                optional={
                    "index": json | st.integers(0, 2),
                    "id": json,
                    "function": json
                    | st.fixed_dictionaries({}, optional={"name": json | st.just("f"), "arguments": json}),
                },
            ),
            max_size=3,
        ),
    },
)


@thorough
@given(st.lists(deltas, max_size=6))
def test_any_deltas_make_well_formed_events(said):
    events = read(sse(*[orjson.dumps(chunk(delta)) for delta in said], b"[DONE]"))
    well_formed(events)


# Recorded...


@chat_streams
def test_recorded_streams_are_read(recording):
    if b"event: error" in recording.body:
        with pytest.raises(GatewayError, match="tool"):
            read(recording.body)
        return
    events = read(recording.body)
    well_formed(events)
    answer = fold(events)
    text, thoughts, arguments = naive(recording.body)
    assert answer.text == text
    assert "".join(block.text for block in answer.blocks if block.block is THINKING) == thoughts
    assert "".join(block.text for block in answer.blocks if block.block is Block.TOOL_CALL) == arguments
    for block in answer.blocks:
        if block.block is Block.TOOL_CALL:
            assert block.name
            assert answer.stop is Stop.LENGTH or block.text == "" or isinstance(orjson.loads(block.text), dict)


@chat_streams
def test_recorded_calls_are_told_frame_by_frame(recording):
    if b"event: error" in recording.body:
        pytest.skip("it ends in a refusal")
    reader = ChatReader(nothing)
    for frame in Decoder().feed(recording.body):
        told = [e.text for e in reader.read(frame) if isinstance(e, BlockDelta) and e.block is Block.TOOL_CALL]
        assert "".join(told) == naive(b"data: " + frame.data.replace(b"\n", b""))[2]


@chat_wholes
def test_a_whole_answer_is_the_fold_of_one_chunk(recording):
    body = orjson.loads(recording.body)
    reader = ChatReader(nothing)
    answer = fold([*reader.chunk(body), *reader.end()])
    assert answer.text == body["choices"][0]["message"]["content"]
    assert answer.usage == Usage(
        body["usage"]["prompt_tokens"],
        body["usage"]["completion_tokens"],
        cached=body["usage"]["prompt_tokens_details"]["cached_tokens"],
        reasoning=body["usage"]["completion_tokens_details"]["reasoning_tokens"],
    )


def naive(stream: bytes) -> tuple[str, str, str]:
    """Text, thoughts and arguments, put together by the simplest means."""
    text, thoughts, arguments = "", "", ""
    for line in stream.split(b"\n"):
        if not line.startswith(b"data: {"):
            continue
        for choice in orjson.loads(line[6:]).get("choices") or []:
            delta = choice.get("delta") or {}
            content = delta.get("content") or ""
            if isinstance(content, list):
                for part in content:
                    if part["type"] == "thinking":
                        thoughts += "".join(each["text"] for each in part["thinking"])
                    else:
                        text += part["text"]
            else:
                text += str(content)
            thoughts += delta.get("reasoning_content") or delta.get("reasoning") or ""
            for call in delta.get("tool_calls") or []:
                arguments += call["function"].get("arguments") or ""
    return text, thoughts, arguments
