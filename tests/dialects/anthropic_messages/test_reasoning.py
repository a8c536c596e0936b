"""How each generation of models is told to think."""

from __future__ import annotations

import json

import pytest

from proxy.dialects.anthropic_messages.asking import unsaid, write
from proxy.dialects.anthropic_messages.reasoning import BUDGET, EFFORT, version
from proxy.requests import (
    Choice,
    Quirks,
    Reasoning,
    Request,
    Role,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
)

HI = (Turn(Role.USER, (Text("Hi"),)),)
OLD, FIRST, LATER, OTHER = "claude-haiku-4-5", "claude-opus-4-6", "claude-opus-4-7", "deepseek-v4"


def told(model, reasoning, turns=HI, **fields):
    sent = json.loads(write(Request("m", turns, reasoning=reasoning, **fields), model=model))
    return sent.get("thinking"), sent.get("output_config", {}).get("effort"), sent["max_tokens"]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("claude-3-7-sonnet-20250219", (3, 7)),
        ("claude-3-haiku-20240307", (3, 0)),
        ("claude-sonnet-4-20250514", (4, 0)),
        ("claude-opus-4-1-20250805", (4, 1)),
        ("claude-haiku-4-5", (4, 5)),
        ("us.anthropic.claude-opus-4-6-v1", (4, 6)),
        ("anthropic/claude-4.7-opus", (4, 7)),
        ("claude-sonnet-5", (5, 0)),
        ("claude-opus-5.5", (5, 5)),
        ("claude-mythos-preview", (99, 0)),
        ("deepseek-v4", None),
    ],
)
def test_the_version_is_in_the_name(model, expected):
    assert version(model) == expected


@pytest.mark.parametrize(
    ("model", "reasoning", "thinking", "effort"),
    [
        pytest.param(OLD, None, None, None, id="old-nothing-asked"),
        pytest.param(LATER, None, None, None, id="later-nothing-asked"),
        pytest.param(OLD, Reasoning("low"), {"type": "enabled", "budget_tokens": 2048}, None, id="old-effort"),
        pytest.param(
            OLD, Reasoning(budget=500), {"type": "enabled", "budget_tokens": 1024}, None, id="old-small-budget"
        ),
        pytest.param(OLD, Reasoning(budget=-1), {"type": "enabled", "budget_tokens": 8192}, None, id="old-any-budget"),
        pytest.param(OLD, Reasoning(shown=True), {"type": "enabled", "budget_tokens": 8192}, None, id="old-adaptive"),
        pytest.param(OLD, Reasoning("none"), None, None, id="old-off"),
        pytest.param(OTHER, Reasoning("high"), {"type": "enabled", "budget_tokens": 16384}, None, id="other-effort"),
        pytest.param(OTHER, Reasoning(budget=0), {"type": "disabled"}, None, id="other-off"),
        pytest.param(FIRST, Reasoning("high"), {"type": "adaptive"}, "high", id="new-effort"),
        pytest.param(FIRST, Reasoning("xhigh"), {"type": "adaptive"}, "high", id="new-effort-that-came-later"),
        pytest.param(FIRST, Reasoning("minimal"), {"type": "adaptive"}, "low", id="new-minimal"),
        pytest.param(LATER, Reasoning("xhigh"), {"type": "adaptive"}, "xhigh", id="later-effort"),
        pytest.param(LATER, Reasoning(budget=9000), {"type": "adaptive"}, "high", id="later-budget"),
        pytest.param(LATER, Reasoning(budget=99_999), {"type": "adaptive"}, "xhigh", id="later-large-budget"),
        pytest.param(LATER, Reasoning(budget=-1), {"type": "adaptive"}, None, id="later-any-budget"),
        pytest.param(
            LATER, Reasoning("low", shown=True), {"type": "adaptive", "display": "summarized"}, "low", id="later-shown"
        ),
        pytest.param(
            LATER, Reasoning("low", shown=False), {"type": "adaptive", "display": "omitted"}, "low", id="later-hidden"
        ),
        pytest.param(LATER, Reasoning("none"), None, "low", id="later-off-is-as-little-as-it-can"),
        pytest.param(LATER, Reasoning(budget=0), None, "low", id="later-budget-of-nothing"),
    ],
)
def test_models_are_told_to_think_in_their_words(model, reasoning, thinking, effort):
    assert told(model, reasoning)[:2] == (thinking, effort)


def test_every_effort_has_a_budget_and_a_word():
    assert set(BUDGET) == set(EFFORT)


@pytest.mark.parametrize(
    ("max_tokens", "thinking", "limit"),
    [
        pytest.param(None, 8192, 4096 + 8192, id="no-limit-leaves-room-for-the-answer"),
        pytest.param(20_000, 8192, 20_000, id="a-large-limit"),
        pytest.param(4000, 3000, 4000, id="a-small-limit-makes-the-budget-smaller"),
        pytest.param(1000, None, 1000, id="a-tiny-limit-leaves-no-room-to-think"),
    ],
)
def test_thoughts_fit_into_the_limit(max_tokens, thinking, limit):
    got = told(OLD, Reasoning("medium"), max_tokens=max_tokens)
    assert got == (thinking and {"type": "enabled", "budget_tokens": thinking}, None, limit)


@pytest.mark.parametrize("model", [OLD, FIRST])
def test_a_forced_call_leaves_no_thinking(model):
    forced = ToolChoice(Choice.REQUIRED)
    fields = {"tools": (Tool("look"),), "tool_choice": forced}
    assert told(model, Reasoning("high"), **fields)[0] is None
    assert told(model, Reasoning("high"), **fields)[2] == 4096
    request = Request("m", HI, reasoning=Reasoning("high"), tool_choice=forced)
    assert "reasoning" in unsaid(request, model, Quirks())


def sampling(model, reasoning):
    request = Request("m", HI, temperature=0.5, top_k=5, reasoning=reasoning)
    return {"temperature", "top_k"} & json.loads(write(request, model=model)).keys()


@pytest.mark.parametrize(
    ("model", "reasoning", "sent"),
    [
        pytest.param(OLD, None, True, id="old"),
        pytest.param(OLD, Reasoning("low"), False, id="old-thinking"),
        pytest.param(FIRST, None, True, id="new"),
        pytest.param(FIRST, Reasoning("low"), False, id="new-thinking"),
        pytest.param(FIRST, Reasoning("none"), True, id="new-not-thinking"),
        pytest.param(LATER, None, False, id="later-has-none"),
        pytest.param(OTHER, None, True, id="other"),
    ],
)
def test_temperature_does_not_stand_beside_thoughts(model, reasoning, sent):
    assert bool(sampling(model, reasoning)) is sent


CALL = ToolCall("1", "look", "{}")
RESULT = Turn(Role.TOOL, (ToolResult("1", (Text("ok"),)),))


@pytest.mark.parametrize(
    ("turns", "thinks"),
    [
        pytest.param((*HI, Turn(Role.ASSISTANT, (CALL,)), RESULT), False, id="thoughts-lost"),
        pytest.param((*HI, Turn(Role.ASSISTANT, (Thinking("Hm."), CALL)), RESULT), False, id="signature-lost"),
        pytest.param(
            (*HI, Turn(Role.ASSISTANT, (Thinking("Hm.", "details:{}"), CALL)), RESULT), False, id="another-s-signature"
        ),
        pytest.param((*HI, Turn(Role.ASSISTANT, (Thinking("Hm.", "sig"), CALL)), RESULT), True, id="signed"),
        pytest.param((*HI, Turn(Role.ASSISTANT, (Thinking(redacted="x"), CALL)), RESULT), True, id="redacted"),
        pytest.param((*HI, Turn(Role.ASSISTANT, (CALL,)), RESULT, *HI), False, id="the-user-adds-to-the-results"),
        pytest.param(
            (*HI, Turn(Role.ASSISTANT, (CALL,)), RESULT, Turn(Role.ASSISTANT, (Text("Done."),)), *HI),
            True,
            id="a-turn-that-is-over",
        ),
        pytest.param(
            (*HI, Turn(Role.ASSISTANT, (Thinking("Hm.", "sig"), CALL)), RESULT, Turn(Role.ASSISTANT, (CALL,)), RESULT),
            True,
            id="the-first-part-of-a-turn-was-signed",
        ),
    ],
)
def test_a_budget_is_not_given_where_thoughts_of_this_turn_are_lost(turns, thinks):
    assert bool(told(OLD, Reasoning("low"), turns)[0]) is thinks
    assert told(FIRST, Reasoning("low"), turns)[0] == {"type": "adaptive"}
