"""What a reader tells at once, because a frame only goes on with a block, it would tell on the long way, too."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.dialects.anthropic_messages.reader import Reader as MessagesReader
from proxy.dialects.gemini.reader import Reader as GeminiReader
from proxy.dialects.openai_chat.reader import ChatReader
from proxy.dialects.openai_responses.reader import Reader as ResponsesReader
from proxy.dialects.workers_ai.reader import Reader as WorkersReader
from proxy.errors import GatewayError
from proxy.events import BlockOpened
from proxy.sse import Frame
from tests.dialects import anthropic_messages, gemini, openai_chat, openai_responses, workers_ai
from tests.properties import json, thorough

if TYPE_CHECKING:
    from proxy.events import Event


def nothing(text: str) -> str:
    """A scrub that has nothing to hide."""
    return text


# Readers that know no shortcut...


class LongMessages(MessagesReader):
    read = MessagesReader._read


class LongChat(ChatReader):
    def _go_on(self, said: Any) -> tuple[Event, ...]:
        return ()


class LongGemini(GeminiReader):
    def _more(self, chunk: Any) -> tuple[Event, ...]:
        return ()


class LongResponses(ResponsesReader):
    def _more(self, kind: str, event: dict[str, Any]) -> tuple[Event, ...]:
        return ()


class LongWorkers(WorkersReader):
    def _more(self, chunk: dict[str, Any]) -> tuple[Event, ...]:
        return ()


# Frames...


def messages() -> list[Any]:
    delta, opened, closed = anthropic_messages.delta, anthropic_messages.opened, anthropic_messages.closed
    thinking, tool = {"type": "thinking", "thinking": ""}, {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    return [
        *(anthropic_messages.start(), opened(0, **thinking)),
        *(delta(0, "thinking", thinking=text) for text in ("Hm", ".", "")),
        *(delta(0, "text", thinking="?"), delta(0, "signature", signature="s"), closed(0), opened(1)),
        *(anthropic_messages.said(1, text) for text in ("Hel", "lo", "", "é\u2028")),
        *(anthropic_messages.said(7, "of no block"), delta(1, "text", text="x", more="unknown")),
        *(closed(1), opened(2, **tool)),
        *(delta(2, "input_json", partial_json=text) for text in ("", '{"a":', "1}")),
        *(closed(2), opened(3, **tool), closed(3), opened(4, type="server_tool_use")),
        *(delta(4, "input_json", partial_json="{}"), closed(4)),
        *(anthropic_messages.stopped(), anthropic_messages.END),
    ]


def chat() -> list[Any]:
    chunk, say = openai_chat.chunk, openai_chat.say

    def call(index: Any, text: Any, name: str | None = None, **more: Any) -> Any:
        function = {"arguments": text} if name is None else {"name": name, "arguments": text}
        return chunk({"tool_calls": [{"index": index, "function": function, **more}]})

    return [
        chunk({"role": "assistant", "content": ""}),
        *(chunk({"content": None, "reasoning_content": text}) for text in ("Hm", "...")),
        chunk({"reasoning": "Hm", "content": ""}),
        chunk({"reasoning": "Hm", "reasoning_details": [{"type": "reasoning.text", "text": "Hm", "signature": "s"}]}),
        chunk({"content": 0, "reasoning": "Hm"}),
        *(say(text) for text in ("Hel", "lo", "", "é\u2028", "content", "gpt-x", '"', "stop")),
        *(say("Hi", id="other"), say("Hi", usage=openai_chat.usage(1, 2)), say("Hi", error={"message": "no"})),
        *(say("gpt-x", model=model) for model in ("gpt-x", "gpt-y")),
        *(say("x", model=model) for model in ('say "x', 'say "y')),
        *(chunk({field: "content"}) for field in ("content", "reasoning")),
        *(say("x", said="x"), say("no", object="error"), chunk({"content": "x"}, index=1)),
        *(chunk({"content": "x", "refusal": "no"}), chunk({"content": "x", "tool_calls": []})),
        *(call(0, "", "f", id="a"), call(0, '{"a":'), call(0, "1"), call(0, "}"), call(0, "\n")),
        *(call(1, "", "f", id="b"), call(1, '{"b":'), call(0, "x"), call(1, "2"), call(None, "}")),
        call(1, "{}", "g"),
        *(call(2, "", "f", id="c"), call(2, '{"c":'), call(3, "{}", "f", id="d"), call(2, "3"), call(2, "}")),
        *(call(3, "x", id="d"), call("3", "x"), call(True, "x"), call(3, 5), call(3, "")),
        *(call(0, "", "f", id="z"), call(0, "y", id="a"), call(0, "y")),
        *(say("end", usage=None), chunk({"content": "x"}, finish="length"), chunk(finish="stop")),
    ]


def google() -> list[Any]:
    chunk, text, counts = gemini.chunk, gemini.text, {"promptTokenCount": 7, "candidatesTokenCount": 3}
    return [
        *(chunk(text("Hm", thought=thought)) for thought in (True, True, False, 1)),
        *(chunk(text(said), usage=counts) for said in ("Hel", "lo", "", "é\u2028")),
        *(chunk(text("x"), usage={"candidatesTokenCount": 9}), chunk(text("a"), index=1), chunk(text("x"), text("y"))),
        *(chunk(text("x", thoughtSignature="s")), chunk(text("x")), chunk(gemini.call("f", {"a": 1}))),
        *(chunk(text("x")), chunk(text("x"), finish="STOP"), chunk(text("x"))),
        *([chunk(text("x"))], chunk(text("x"), error={"message": "no"}), {"usageMetadata": counts}),
        chunk(text("x"), groundingMetadata={"groundingChunks": [{"web": {"uri": "u", "title": "t"}}]}),
        {**chunk(text("x")), "error": {"code": 429, "message": "slow"}},
    ]


def responses() -> list[Any]:
    delta, added, done = openai_responses.delta, openai_responses.added, openai_responses.done
    call, whole = openai_responses.call("c", "f"), openai_responses.call("c", "f", '{"a":12}')
    arguments = "function_call_arguments"
    return [
        openai_responses.created(),
        *(delta("Hm", 0, part, kind=kind) for part in (0, 1) for kind in ("reasoning_summary_text", "reasoning_text")),
        *(delta(text, 1) for text in ("Hel", "lo", "", "é\u2028")),
        *(delta("x", 1, 1), delta("no", 1, kind="refusal"), delta("x", "1"), delta("x", 2)),
        *(done(1, **openai_responses.message("Hello")), delta("x", 1)),
        *(added(3, **call), delta('{"a":', 3, kind=arguments), delta("1", 3, kind=arguments)),
        *(added(4, **call), delta('{"a":', 4, kind=arguments), delta("", 3, kind=arguments)),
        *(
            delta("2", 3, kind=arguments),
            done(3, **whole),
            done(4, **whole),
            openai_responses.ev("error", message="no"),
        ),
        openai_responses.ended(),
    ]


def workers() -> list[Any]:
    native, delta = workers_ai.native, workers_ai.delta
    return [
        *(native(text) for text in ("Hel", "lo", "", "é\u2028", 5, None, ["a"])),
        *(native("", usage=workers_ai.COUNTS), native("x"), native("x", usage={"prompt_tokens": 9})),
        *(delta(content="Hi"), delta(reasoning="Hm"), native("x"), {"response": "bare"}),
        *(native("", tool_calls=[{"name": "f", "arguments": {"a": 1}}]), native("x", errors=[{"message": "no"}])),
        *(native("x", finish_reason="stop"), native("x"), delta("stop")),
    ]


class Pair(NamedTuple):
    """A reader, the same without shortcuts, and what they read."""

    short: Any
    long: Any
    frames: list[Any]


PAIRS = {
    "anthropic_messages": Pair(MessagesReader, LongMessages, messages()),
    "openai_chat": Pair(ChatReader, LongChat, chat()),
    "gemini": Pair(GeminiReader, LongGemini, google()),
    "openai_responses": Pair(ResponsesReader, LongResponses, responses()),
    "workers_ai": Pair(WorkersReader, LongWorkers, workers()),
}
dialects = pytest.mark.parametrize("dialect", PAIRS)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every place inside: a container and a key."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in [(value, key), *places(value[key])]]


def changed(value: Any, place: int, to: Any) -> Any:
    value = copy.deepcopy(value)
    found = places(value)
    container, key = found[place % len(found)]
    container[key] = to
    return value


def spliced(data: bytes, place: int, by: bytes) -> bytes:
    place %= len(data)
    return data[:place] + by + data[place + 1 :]


def outcome(reader: Any, data: list[tuple[bytes, str]]) -> list[Any]:
    """What is told of each frame, but for ids that were made up, and what the reader then thinks of the stream."""
    told: list[Any] = []
    for each, name in data:
        try:
            for event in reader.read(Frame(each, name)):
                told += [msgspec.structs.replace(event, id="") if isinstance(event, BlockOpened) else event]
        except GatewayError as exc:
            told.append((type(exc), exc.message))
        told.append((reader.finished, reader.done, reader.usage))
    return told


#: How far from the last frame the next one stands, how it is changed, which byte is spoilt, how it is named.
frames = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 1, 1, 1, 1, 2, 3, -2]),
        st.none() | st.none() | st.tuples(st.integers(0, 100), json),
        st.none()
        | st.tuples(st.integers(0, 1000), st.sampled_from([b"", b'"', b"\\", b"\xff", b" ", b"\\u00e9", b"}"])),
        st.sampled_from(["", "", "", "", "", "", "error", "content_block_delta"]),
    ),
    max_size=16,
)
AS_IT_IS, AGAIN = (1, None, None, ""), (0, None, None, "")


@dialects
@thorough
@given(st.integers(0, 60), frames)
@example(0, [AS_IT_IS] * 60)
@example(0, [AS_IT_IS, AGAIN] * 60)
@example(0, [AS_IT_IS, AGAIN, (0, None, None, "error")] * 60)
def test_a_shortcut_tells_the_same(dialect, place, steps):
    pair, data = PAIRS[dialect], []
    for step, change, spoilt, name in steps:
        frame = pair.frames[place % len(pair.frames)]
        wire = orjson.dumps(changed(frame, *change) if change else frame)
        data.append((spliced(wire, *spoilt) if spoilt else wire, name))
        place += step
    assert outcome(pair.short(nothing), data) == outcome(pair.long(nothing), data)


@dialects
def test_a_delta_is_told_at_once(dialect):
    """A tuple is made before it is asked for, a generator is not: nearly all frames are of the first kind."""
    first, again = {
        "anthropic_messages": (anthropic_messages.opened(0), anthropic_messages.said(0, "x")),
        "openai_chat": (openai_chat.say("x"), openai_chat.say("y")),
        "gemini": (gemini.chunk(gemini.text("x")), gemini.chunk(gemini.text("y"))),
        "openai_responses": (openai_responses.delta("x"), openai_responses.delta("y")),
        "workers_ai": (workers_ai.native("x"), workers_ai.native("y")),
    }[dialect]
    reader = PAIRS[dialect].short(nothing)
    list(reader.read(Frame(orjson.dumps(first))))
    for _ in range(3):
        assert isinstance(reader.read(Frame(orjson.dumps(again))), tuple)
