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
            (Thinking("mine", "own"), ToolCall("call_1", "look", signature="my")),
            (Thinking("mine", "own"), ToolCall("call_1", "look", signature="my")),
            id="what-the-client-kept-is-left",
        ),
        pytest.param(
            (Thinking(redacted="own"), ToolCall("call_1", "look", signature="my")),
            (Thinking(redacted="own"), ToolCall("call_1", "look", signature="my")),
            id="hidden-thoughts-too",
        ),
        pytest.param(
            (Thinking("first "), Thinking("this"), Text("so"), ToolCall("call_1", "look")),
            (THOUGHT, Text("so"), ToolCall("call_1", "look", signature="mark")),
            id="words-that-lost-their-seal-get-it-back",
        ),
        pytest.param((ToolCall("call_2", "look"),), (ToolCall("call_2", "look"),), id="another-call"),
        pytest.param((Text("so"),), (Text("so"),), id="no-call"),
    ],
)
def test_what_is_put_back(parts, restored):
    assert heard(Memory()).restore(turn(*parts), "gemini").turns[1].parts == restored


def thought(index, seal):
    return [BlockOpened(index, Block.THINKING), BlockSigned(index, seal), BlockClosed(index)]


def call(index, id):
    return [BlockOpened(index, Block.TOOL_CALL, id, "look"), BlockClosed(index)]


@pytest.mark.parametrize(
    ("parts", "restored"),
    [
        pytest.param(
            (Text("so"), ToolCall("a", "look"), ToolCall("b", "look"), ToolCall("c", "look")),
            ("1", Text("so"), ToolCall("a", "look"), "2", "3", ToolCall("b", "look"), ToolCall("c", "look")),
            id="each-stands-before-its-call",
        ),
        pytest.param((ToolCall("b", "look"),), ("1", "2", "3", ToolCall("b", "look")), id="of-a-call-that-was-dropped"),
        pytest.param(
            (ToolCall("a", "look"), ToolCall("b", "look"), ToolCall("z", "look")),
            ("1", ToolCall("a", "look"), "2", "3", ToolCall("b", "look"), "9", ToolCall("z", "look")),
            id="of-two-answers-in-one-turn",
        ),
    ],
)
def test_thoughts_between_calls_stay_between_them(parts, restored):
    events = [*thought(0, "1"), *call(1, "a"), *thought(2, "2"), *thought(3, "3"), *call(4, "b"), *call(5, "c")]
    memory = heard(Memory(), events)
    heard(memory, [*thought(0, "9"), *call(1, "z")])
    wanted = tuple(Thinking("", part) if isinstance(part, str) else part for part in restored)
    assert memory.restore(turn(*parts), "gemini").turns[1].parts == wanted


def test_thoughts_that_nobody_seals_are_left_as_the_client_has_them():
    memory = heard(Memory(), [e for e in ANSWER if not isinstance(e, BlockSigned)], "openai_chat")
    kept = turn(Thinking("mine"), ToolCall("call_1", "look"))
    assert memory.restore(kept, "openai_chat") is kept


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
