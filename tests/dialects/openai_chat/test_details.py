"""OpenRouter's thoughts: read with their seals, and sent back as they came."""

from __future__ import annotations

import json

import pytest

from proxy.dialects.openai_chat.details import details
from proxy.events import Block
from proxy.registry import client_side, provider_side
from proxy.requests import Quirks, Request, Role, Text, Thinking, ToolCall, Turn
from proxy.state.memory import Memory
from tests.dialects.openai_chat import chunk, nothing, sse
from tests.dialects.openai_chat.test_reader import fold, read
from tests.recordings import STREAMS

FORMAT = {"format": "anthropic-claude-v1", "index": 0}
SIGNED = {"type": "reasoning.text", "signature": "S1", **FORMAT}
HIDDEN = {"type": "reasoning.encrypted", "data": "E==", "id": "rs_1", "format": "openai-responses-v1", "index": 1}


def thought(text: str) -> dict:
    return {"type": "reasoning.text", "text": text, **FORMAT}


def stream(*deltas: dict) -> bytes:
    return sse(*[chunk(delta) for delta in deltas], chunk(finish="stop"), b"[DONE]")


def thoughts(answer) -> list[tuple[str, list[dict]]]:
    """The words of each block of thoughts, and what would be sent back for it."""
    return [
        (b.text, details([Thinking(b.text, b.signature, b.redacted)]))
        for b in answer.blocks
        if b.block is Block.THINKING
    ]


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        pytest.param(
            [
                {"reasoning": "Hm", "reasoning_details": [thought("Hm")]},
                {"reasoning": ".", "reasoning_details": [thought(".")]},
                {"content": "", "reasoning_details": [SIGNED]},
            ],
            [("Hm.", [{**SIGNED, "text": "Hm."}])],
            id="words-then-their-seal",
        ),
        pytest.param(
            [{"reasoning_content": "Hm", "reasoning_details": [thought("Hm")]}], [("Hm", [])], id="shown-once-unsealed"
        ),
        pytest.param([{"reasoning_details": [thought("Hm")]}], [("Hm", [])], id="no-other-home"),
        pytest.param(
            [{"reasoning": "Hm", "reasoning_details": [HIDDEN]}], [("Hm", []), ("", [HIDDEN])], id="words-beside-data"
        ),
        pytest.param(
            [{"reasoning_details": [{**thought("a"), "signature": "A"}, {**thought("b"), "signature": "B"}]}],
            [
                ("a", [{**thought("a"), "signature": "A"}]),
                ("b", [{**thought("b"), "signature": "B"}]),
            ],
            id="several-each-with-its-own",
        ),
        pytest.param(
            [{"reasoning_details": [{"type": "reasoning.summary", "summary": "So", "signature": "S", "id": None}]}],
            [("So", [{"type": "reasoning.summary", "summary": "So", "signature": "S", "id": None}])],
            id="a-summary",
        ),
        pytest.param([{"reasoning_details": [SIGNED]}], [("", [SIGNED])], id="a-seal-on-nothing"),
        pytest.param([{"reasoning": "Hm", "reasoning_details": []}], [("Hm", [])], id="an-empty-list"),
        pytest.param([{"reasoning": "Hm", "reasoning_details": ["x", None, {}]}], [("Hm", [])], id="nonsense"),
        pytest.param([{"reasoning_details": {"text": "x"}}], [], id="no-list"),
    ],
)
def test_what_was_thought(deltas, expected):
    answer = fold(read(stream(*deltas)))
    assert thoughts(answer) == expected
    assert not any('"text"' in block.signature + block.redacted for block in answer.blocks)
    whole = {"choices": [{"index": 0, "message": deltas[0], "finish_reason": "stop"}]}
    if len(deltas) == 1:
        events = provider_side("openai_chat").read_whole(json.dumps(whole).encode(), nothing, Request(None, ()))
        assert thoughts(fold(list(events))) == expected


def test_a_recorded_answer_is_sealed_before_its_calls():
    found = [r for r in STREAMS if r.name == "openrouter/reasoning-tool-order-matrix-streaming-parallel"]
    if not found:
        pytest.skip("no recordings beside the repository")
    first, *calls = fold(read(found[0].body)).blocks
    assert first.text[:20] not in first.signature
    assert details([Thinking(first.text, first.signature)]) == [
        {**SIGNED, "signature": "signature_REDACTED_1", "text": first.text}
    ]
    assert [block.block for block in calls] == [Block.TOOL_CALL, Block.TOOL_CALL]


def test_google_s_own_endpoint_seals_calls():
    seal = {"extra_content": {"google": {"thought_signature": "S"}}}
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}, **seal}
    assert fold(read(stream({"tool_calls": [call]}))).blocks[0].signature == "S"


# The next turn...

CALLED = [
    {"reasoning": "Hm", "reasoning_details": [thought("Hm")]},
    {"reasoning_details": [SIGNED, HIDDEN]},
    {"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "f", "arguments": "{}"}}]},
]
CAME = [{**SIGNED, "text": "Hm"}, HIDDEN]


def sent(request: Request, dialect: str = "openai_chat") -> dict:
    return json.loads(provider_side(dialect).write(request, "m", Quirks()))


def test_an_anthropic_client_returns_them_unread():
    from proxy.dialects.anthropic_messages import request as messages

    answer = json.loads(client_side("anthropic_messages").whole(fold(read(stream(*CALLED))), "m", Request(None, ())))
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": "2"}
    turns = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": answer["content"]},
        {"role": "user", "content": [result]},
    ]
    body = {"model": "m", "max_tokens": 9, "messages": turns}
    message = sent(messages.read(json.dumps(body).encode()))["messages"][1]
    assert message["reasoning_details"] == CAME
    assert "reasoning_content" not in message


def test_what_a_client_drops_is_remembered():
    memory = Memory()
    list(memory.listen(iter(read(stream(*CALLED))), "openai_chat"))
    request = Request(None, (Turn(Role.ASSISTANT, (ToolCall("call_1", "f", "{}"),)),))
    assert sent(memory.restore(request, "openai_chat"))["messages"][0]["reasoning_details"] == CAME


@pytest.mark.parametrize(
    "thought",
    [
        pytest.param(Thinking("Hm"), id="unsealed"),
        pytest.param(Thinking("Hm", "EqQB"), id="anthropic-s"),
        pytest.param(Thinking("Hm", "responses:gAAA"), id="openai-s"),
        pytest.param(Thinking(redacted="EqQB"), id="hidden-by-anthropic"),
        pytest.param(Thinking("Hm", '{"type":"reasoning.text"}'), id="unmarked"),
        pytest.param(Thinking("Hm", "details:nonsense"), id="broken"),
        pytest.param(Thinking("Hm", "details:[1]"), id="no-object"),
    ],
)
def test_thoughts_that_came_in_another_form_are_not_sent_in_this_one(thought):
    assert "reasoning_details" not in sent(Request(None, (Turn(Role.ASSISTANT, (thought, Text("So"))),)))["messages"][0]


@pytest.mark.parametrize("dialect", ["anthropic_messages", "gemini", "openai_responses", "workers_ai"])
def test_nobody_else_is_sent_them(dialect):
    parts = [Thinking(b.text, b.signature, b.redacted) for b in fold(read(stream(*CALLED[:2]))).blocks]
    turns = (Turn(Role.USER, (Text("go"),)), Turn(Role.ASSISTANT, (*parts, Text("So"))), Turn(Role.USER, (Text("?"),)))
    said = json.dumps(sent(Request(None, turns), dialect))
    assert "So" in said
    assert "S1" not in said
    assert "E==" not in said
