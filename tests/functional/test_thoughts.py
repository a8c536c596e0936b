"""Agents over many turns: what a provider wants back, and a client has dropped, comes back."""

from __future__ import annotations

import json

from .upstream import DONE, Call, chunk, in_turn, stream, whole

TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
USER = {"role": "user", "content": "go"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
THINKING = [
    chunk(role="assistant", delta={"reasoning_content": "first "}),
    chunk(delta={"reasoning_content": "this"}),
    chunk(delta={"tool_calls": [{"index": 0, **CALL}]}),
    chunk(finish="tool_calls"),
    DONE,
]
SECOND_TURN = [
    USER,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "2"},
]


def asked(call: Call) -> list[dict[str, object]]:
    return json.loads(call.body)["messages"]


async def test_deepseek_gets_its_thoughts_back_through_a_stream_that_passes(gateway, upstream):
    served = await gateway(providers=[{"name": "up", "kind": "deepseek"}])
    upstream.script = in_turn(stream(THINKING), stream([chunk("done", finish="stop"), DONE]))
    first = await (await served.chat(messages=[USER], tools=TOOLS, stream=True)).frames()
    assert b"".join(frame.raw for frame in first).count(b"reasoning_content") == 2
    await (await served.chat(messages=SECOND_TURN, tools=TOOLS, stream=True)).frames()
    turns = asked(upstream.calls[1])
    assert turns[1]["reasoning_content"] == "first this"
    assert [turns[0], turns[2]] == [SECOND_TURN[0], SECOND_TURN[2]]


async def test_and_through_a_whole_answer(gateway, upstream):
    served = await gateway(providers=[{"name": "up", "kind": "deepseek"}])
    message = {"role": "assistant", "content": None, "reasoning_content": "first this", "tool_calls": [CALL]}
    answer = {"id": "1", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    upstream.script = whole(answer)
    for messages in ([USER], SECOND_TURN):
        assert (await served.chat(messages=messages, tools=TOOLS)).status == 200
    assert asked(upstream.calls[1])[1]["reasoning_content"] == "first this"


async def test_others_are_told_nothing_that_the_client_did_not_say(gateway, upstream):
    served = await gateway()
    upstream.script = in_turn(stream(THINKING), stream([chunk("done", finish="stop"), DONE]))
    for messages in ([USER], SECOND_TURN):
        await (await served.chat(messages=messages, tools=TOOLS, stream=True)).frames()
    assert asked(upstream.calls[1]) == SECOND_TURN


async def test_a_client_of_another_dialect_gets_them_back_too(gateway, upstream):
    served = await gateway(providers=[{"name": "up", "kind": "deepseek"}])
    upstream.script = in_turn(stream(THINKING), stream([chunk("done", finish="stop"), DONE]))
    tools = [{"name": "look", "input_schema": {"type": "object"}}]
    use = {"type": "tool_use", "id": "call_1", "name": "look", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": "2"}
    turns = [USER, {"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    for messages in ([USER], turns):
        body = {"model": "m", "max_tokens": 100, "messages": messages, "tools": tools, "stream": True}
        answer = await served.request("POST", "/v1/messages", json=body)
        await answer.body()
    assert asked(upstream.calls[1])[1]["reasoning_content"] == "first this"
