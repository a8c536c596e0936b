"""What clients drop and providers want back."""

from __future__ import annotations

import pytest

from proxy.events import Block, BlockClosed, BlockDelta, BlockOpened, BlockSigned
from proxy.requests import Request, Role, Text, Thinking, ToolCall, Turn
from proxy.state.memory import Memory

ANSWER = [
    BlockOpened(0, Block.THINKING),
    BlockDelta(0, Block.THINKING, "first "),
    BlockDelta(0, Block.THINKING, "this"),
    BlockSigned(0, "seal"),
    BlockClosed(0),
    BlockOpened(1, Block.TOOL_CALL, "call_1", "look"),
    BlockDelta(1, Block.TOOL_CALL, "{}"),
    BlockSigned(1, "mark"),
    BlockClosed(1),
]
THOUGHT = Thinking("first this", "seal")


def heard(memory, events=ANSWER, dialect="gemini"):
    assert list(memory.listen(iter(events), dialect)) == events
    return memory


def turn(*parts):
    return Request("m", (Turn(Role.USER, (Text("go"),)), Turn(Role.ASSISTANT, parts)))


@pytest.mark.parametrize(
    ("parts", "restored"),
    [
        pytest.param(
            (ToolCall("call_1", "look"),),
            (THOUGHT, ToolCall("call_1", "look", signature="mark")),
            id="both-are-put-back",
        ),
        pytest.param(
            (Text("so"), ToolCall("call_1", "look")),
            (THOUGHT, Text("so"), ToolCall("call_1", "look", signature="mark")),
            id="thoughts-come-first",
        ),
        pytest.param(
            (Thinking("mine"), ToolCall("call_1", "look", signature="my")),
            (Thinking("mine"), ToolCall("call_1", "look", signature="my")),
            id="what-the-client-kept-is-left",
        ),
        pytest.param((ToolCall("call_2", "look"),), (ToolCall("call_2", "look"),), id="another-call"),
        pytest.param((Text("so"),), (Text("so"),), id="no-call"),
    ],
)
def test_what_is_put_back(parts, restored):
    assert heard(Memory()).restore(turn(*parts), "gemini").turns[1].parts == restored


def test_a_seal_goes_only_to_those_who_made_it():
    request = turn(ToolCall("call_1", "look"))
    assert heard(Memory()).restore(request, "anthropic_messages") is request


def test_the_oldest_is_forgotten_first_and_the_bound_holds():
    memory = Memory(most=1000)
    for number in range(10):
        memory.keep(f"call_{number}", "openai_chat", (Thinking("x" * 100),))
    known = [number for number in range(10) if memory.thoughts(f"call_{number}")]
    assert known == [7, 8, 9]


def test_one_answer_cannot_fill_it():
    memory = Memory(most=10**9)
    drip = [BlockDelta(0, Block.THINKING, "x" * 10_000)] * 1000
    heard(memory, [ANSWER[0], *drip, BlockClosed(0), *ANSWER[5:]])
    assert len(memory.thoughts("call_1")) < 1_100_000
