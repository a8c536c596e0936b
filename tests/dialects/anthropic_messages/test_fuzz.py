"""Whatever comes is understood or refused in our words: bodies and frames with one thing in them changed."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.dialects.anthropic_messages import asking
from proxy.dialects.anthropic_messages.count import estimate
from proxy.dialects.anthropic_messages.reader import Reader, read_whole
from proxy.dialects.anthropic_messages.request import read
from proxy.dialects.anthropic_messages.tap import Tap
from proxy.dialects.anthropic_messages.writer import Writer, whole
from proxy.errors import GatewayError, InvalidRequest
from proxy.requests import Quirks
from proxy.sse import Decoder, split
from tests.dialects.anthropic_messages import (
    END,
    closed,
    delta,
    dumps,
    fold,
    nothing,
    opened,
    said,
    sse,
    start,
    stopped,
)
from tests.dialects.anthropic_messages.grammar import check

BODY = {
    "model": "m",
    "max_tokens": 5,
    "stream": True,
    "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {
            "role": "user",
            "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "t", "signature": "s"},
                {"type": "tool_use", "id": "1", "name": "x", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "r"}]},
                {"type": "document", "title": "t", "source": {"type": "text", "data": "d"}},
                {"type": "search_result", "title": "t", "source": "s", "content": [{"type": "text", "text": "r"}]},
            ],
        },
    ],
    "tools": [{"name": "x", "input_schema": {"type": "object"}}, {"type": "web_search_20250305", "name": "w"}],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 2000},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object", "format": "x"}}},
    "metadata": {"user_id": "u"},
    "stop_sequences": ["a"],
}
STREAM: list[dict[str, Any]] = [
    start(),
    opened(0, type="thinking", thinking="", signature=""),
    delta(0, "thinking", thinking="t"),
    delta(0, "signature", signature="s"),
    closed(0),
    opened(1),
    said(1, "a"),
    delta(1, "citations", citation={"type": "char_location", "cited_text": "c"}),
    closed(1),
    opened(2, type="tool_use", id="1", name="x", input={}),
    delta(2, "input_json", partial_json="{}"),
    closed(2),
    stopped("tool_use"),
    END,
]
ANSWER = {
    "id": "msg_1",
    "model": "m",
    "content": [
        {"type": "text", "text": "t", "citations": [{"cited_text": "c"}]},
        {"type": "tool_use", "id": "1", "name": "x", "input": {"a": 1}},
    ],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
DEEP: Any = "x"
for _ in range(300):
    DEEP = [DEEP]

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 9)
    | st.floats(0, 1)
    | st.sampled_from(["", "text", "tool_use", "\u2028é"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "text", "a"]), inner, max_size=2)
    ),
    max_leaves=4,
)
changes = st.tuples(st.integers(0, 10_000), anything | st.just(DEEP) | st.just({"a": DEEP}))


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every place inside: a container and a key."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    found = [(value, key) for key in keys]
    for key in keys:
        found += places(value[key])
    return found


def changed(value: Any, change: tuple[int, Any]) -> Any:
    value = copy.deepcopy(value)
    found = places(value)
    container, key = found[change[0] % len(found)]
    container[key] = change[1]
    return value


#: What `check` says of faults that are the provider's: they pass as they are.
PROVIDERS_OWN = ("has a name", "no object", "0 tokens")


def complaint(stream: bytes) -> str:
    """What is wrong with a stream's grammar; "" if nothing, or if only a call's arguments are not JSON."""
    try:
        check(stream)
    except AssertionError as exc:
        return str(exc)
    except json.JSONDecodeError:  # arguments pass as they are
        return ""
    return ""


@settings(max_examples=150, deadline=None)
@given(changes)
def test_a_body_is_read_and_asked_or_refused(change):
    try:
        request = read(dumps(changed(BODY, change)))
        estimate(request)
        asking.unsaid(request, "claude-opus-4-6", Quirks())
        sent = json.loads(asking.write(request, model="claude-opus-4-6"))
    except InvalidRequest:
        return
    assert sent["messages"][0]["role"] == "user"


@settings(max_examples=150, deadline=None)
@given(changes)
@example((111, True))  # a count that is no number
@example((1889, "text"))  # a stop sequence beside another reason
def test_a_stream_is_read_and_written_or_refused(change):
    frames = [frame for frame in changed(STREAM, change) if isinstance(frame, dict)]
    wire = sse(*({**frame, "type": str(frame.get("type"))} for frame in frames))
    reader, writer, tap, out = Reader(nothing), Writer("m", estimate=1), Tap(nothing), b""
    for raw, frame in split(wire):
        tap.look(raw, frame)
    try:
        for frame in Decoder().feed(wire):
            for event in reader.read(frame):
                out += writer.write(event)
    except GatewayError:
        return
    if reader.done and b'"stop_reason":"max_tokens"' not in out:
        fault = complaint(out)
        assert not fault or any(words in fault for words in PROVIDERS_OWN)


@settings(max_examples=100, deadline=None)
@given(changes)
def test_a_whole_answer_is_read_and_written_or_refused(change):
    try:
        answer = fold(read_whole(dumps(changed(ANSWER, change)), nothing))
        written = whole(answer, "m")
    except GatewayError:
        return
    assert json.loads(written)["type"] == "message"


@given(st.binary(max_size=40))
def test_bytes_that_are_no_request_are_refused(body):
    with pytest.raises(InvalidRequest):
        read(body)
