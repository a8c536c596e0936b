"""Envelopes of every recorded shape become the events that their streams would."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.workers_ai.whole import read_whole
from proxy.errors import GatewayError, Kind
from proxy.events import Block, MessageEnded, Stop, Usage
from tests.dialects.workers_ai import COUNTS, DONE, delta, fold, native, nothing, read, shape, sse, whole
from tests.properties import json, thorough
from tests.recordings import WHOLES, Recording

RECORDED = [r for r in WHOLES if r.provider == "workers-ai"]
TEXT, THINKING, CALL = Block.TEXT, Block.THINKING, Block.TOOL_CALL


def envelope(result):
    return {"result": result, "success": True, "errors": [], "messages": []}


GPT_OSS = {
    "id": "resp_1",
    "model": "@cf/openai/gpt-oss-20b",
    "object": "response",
    "status": "completed",
    "output": [
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}], "summary": []},
        {"type": "message", "content": [{"type": "output_text", "text": "a"}, {"type": "output_text", "text": "b"}]},
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": '{"a":1}'},
    ],
    "usage": {"input_tokens": 7, "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": 1}},
}


@pytest.mark.parametrize(
    ("result", "blocks", "stop"),
    [
        pytest.param({"response": "x", "tool_calls": []}, [(TEXT, "", "", "x")], Stop.END, id="text"),
        pytest.param({"response": 6}, [(TEXT, "", "", "6")], Stop.END, id="number"),
        pytest.param({"response": {"a": 1}}, [(TEXT, "", "", '{"a":1}')], Stop.END, id="object-of-json-mode"),
        pytest.param({"response": [1]}, [(TEXT, "", "", "[1]")], Stop.END, id="list-of-json-mode"),
        pytest.param({"response": ""}, [], Stop.END, id="empty"),
        pytest.param("x", [(TEXT, "", "", "x")], Stop.END, id="a-bare-string"),
        pytest.param(
            {"response": None, "tool_calls": [{"name": "f", "arguments": {"a": 1}}]},
            [(CALL, "c1", "f", '{"a":1}')],
            Stop.TOOL_CALLS,
            id="null-and-native-calls",
        ),
        pytest.param(
            {"tool_calls": [{"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            [(CALL, "x", "f", "{}")],
            Stop.TOOL_CALLS,
            id="calls-of-openai-shape-and-no-response",
        ),
        pytest.param(
            {
                "id": "chat-1",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "reasoning_content": "hm", "content": "x", "tool_calls": []},
                        "finish_reason": "length",
                    }
                ],
            },
            [(THINKING, "", "", "hm"), (TEXT, "", "", "x")],
            Stop.LENGTH,
            id="openai-shape",
        ),
        pytest.param(
            GPT_OSS,
            [(THINKING, "", "", "hm"), (TEXT, "", "", "ab"), (CALL, "call_1", "f", '{"a":1}')],
            Stop.TOOL_CALLS,
            id="responses-shape",
        ),
        pytest.param(
            {"output": [{"type": "reasoning", "summary": [{"text": "s"}]}], "status": "incomplete"},
            [(THINKING, "", "", "s")],
            Stop.LENGTH,
            id="responses-shape-cut",
        ),
    ],
)
def test_shapes(result, blocks, stop):
    for body in (envelope(result), result) if isinstance(result, dict) else (envelope(result),):
        answer = whole(body)
        assert shape(answer) == blocks
        assert answer.stop is stop


def test_usage_of_gpt_oss():
    answer = whole(envelope(GPT_OSS))
    assert (answer.usage, answer.id) == (Usage(7, 3, reasoning=1), "resp_1")


@pytest.mark.parametrize(("limit", "stop"), [(3, Stop.LENGTH), (4, Stop.END), (None, Stop.END)])
def test_the_limit_is_seen_in_the_counts(limit, stop):
    assert whole(envelope({"response": "x", "usage": COUNTS}), max_tokens=limit).stop is stop


@pytest.mark.parametrize(
    ("chunks", "result"),
    [
        pytest.param(
            [native("a"), native(1), {"response": "", "usage": COUNTS}], {"response": "a1", "usage": COUNTS}, id="text"
        ),
        pytest.param(
            [native(None, tool_calls=[{"name": "f", "arguments": {"a": 1}}]), {"response": None, "usage": COUNTS}],
            {"response": None, "tool_calls": [{"name": "f", "arguments": {"a": 1}}], "usage": COUNTS},
            id="calls",
        ),
        pytest.param(
            [delta(reasoning="hm"), delta(content="a"), delta("stop"), {"response": "", "usage": COUNTS}],
            {"choices": [{"message": {"reasoning": "hm", "content": "a"}, "finish_reason": "stop"}], "usage": COUNTS},
            id="openai-shape",
        ),
    ],
)
def test_the_fold_of_a_stream_is_the_whole_answer(chunks, result):
    answer, streamed = whole(envelope(result)), fold(read(sse(*chunks) + DONE))
    assert shape(answer) == shape(streamed)
    assert (answer.stop, answer.usage) == (streamed.stop, streamed.usage)


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        pytest.param(b"<html>", Kind.UPSTREAM_ERROR, "not JSON", id="html"),
        pytest.param([], Kind.UPSTREAM_ERROR, "not a JSON object", id="list"),
        pytest.param(envelope(None), Kind.UPSTREAM_ERROR, "no result", id="null"),
        pytest.param(envelope({}), Kind.UPSTREAM_ERROR, "no result", id="quirk-23-an-empty-result"),
        pytest.param({}, Kind.UPSTREAM_ERROR, "no result", id="empty"),
        pytest.param(
            {"result": {}, "success": False, "errors": [{"code": 5006, "message": "AiError: Bad input"}]},
            Kind.INVALID_REQUEST,
            "Bad input",
            id="quirk-30-no-success-beside-a-200",
        ),
        pytest.param({"success": False, "result": None}, Kind.UPSTREAM_ERROR, "failed", id="no-reason"),
        pytest.param(
            {"errors": [{"message": "AiError: 3036: daily limit", "code": 1}]},
            Kind.RATE_LIMITED,
            "daily",
            id="code-in-text",
        ),
        pytest.param({"error": {"message": "broke"}}, Kind.UPSTREAM_ERROR, "broke", id="openai-error"),
    ],
)
def test_what_is_no_answer(body, kind, message):
    with pytest.raises(GatewayError, match=message) as failed:
        whole(body)
    assert failed.value.kind is kind


def test_messages_are_scrubbed():
    body = orjson.dumps({"success": False, "errors": [{"code": 5006, "message": "your secret"}]})
    with pytest.raises(GatewayError, match="your hidden"):
        list(read_whole(body, lambda text: text.replace("secret", "hidden")))


@pytest.mark.skipif(not RECORDED, reason="no recordings beside the repository")
@pytest.mark.parametrize("recording", [pytest.param(r, id=r.name) for r in RECORDED])
def test_recorded_wholes(recording: Recording):
    body = orjson.loads(recording.body)
    if recording.status >= 400:
        with pytest.raises(GatewayError):
            whole(recording.body)
        return
    answer, result = whole(recording.body), body["result"]
    assert answer.text == result.get("response", "")
    assert [block.name for block in answer.blocks if block.block is CALL] == [
        call["function"]["name"] for call in result["tool_calls"]
    ]
    assert answer.usage is not None
    assert answer.usage.input == result["usage"]["prompt_tokens"]


@given(st.dictionaries(st.sampled_from(["response", "tool_calls", "choices", "output", "usage", "status"]), json))
@thorough
def test_any_result_is_read_or_refused(result):
    try:
        events = list(read_whole(orjson.dumps(envelope(result)), nothing))
    except GatewayError:
        return
    assert isinstance(events[-1], MessageEnded)
