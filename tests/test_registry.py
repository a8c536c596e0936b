"""What every provider's dialect makes of things that it has no word for."""

from __future__ import annotations

import json

import pytest

from proxy.registry import provider_side
from proxy.requests import Document, Image, Quirks, Request, Role, Text, Tool, ToolCall, ToolResult, Turn

PROVIDERS = ("openai_chat", "openai_responses", "anthropic_messages", "gemini", "workers_ai")
MARK = {"type": "ephemeral"}
HI = Turn(Role.USER, (Text("Hi"),))
CALL = Turn(Role.ASSISTANT, (ToolCall("call_1abc", "f", "{}"),))


def conversation(*results: ToolResult) -> Request:
    return Request("m", (HI, CALL, Turn(Role.TOOL, results)))


def unsaid(dialect: str, request: Request, model: str = "m") -> tuple[str, ...]:
    return provider_side(dialect).unsaid(request, model, Quirks())


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(Request("m", (HI,), system=(Text("Be", MARK),)), id="system"),
        pytest.param(Request("m", (Turn(Role.USER, (Text("Hi", MARK),)),)), id="text"),
        pytest.param(Request("m", (Turn(Role.USER, (Image(url="http://x/y.png", cache=MARK),)),)), id="picture"),
        pytest.param(Request("m", (Turn(Role.USER, (Document(text="x", cache=MARK),)),)), id="document"),
        pytest.param(Request("m", (HI,), tools=(Tool("f", cache=MARK),)), id="tool"),
        pytest.param(Request("m", (HI, Turn(Role.ASSISTANT, (ToolCall("c", "f", cache=MARK),)))), id="call"),
        pytest.param(conversation(ToolResult("call_1abc", cache=MARK)), id="result"),
        pytest.param(conversation(ToolResult("call_1abc", (Text("x", MARK),))), id="inside-a-result"),
    ],
)
@pytest.mark.parametrize("dialect", PROVIDERS)
def test_cache_markers_are_sent_or_counted(dialect, request_):
    said = dialect == "anthropic_messages"
    assert ("cache_control" in unsaid(dialect, request_)) is not said
    if dialect != "workers_ai" or "Image" not in repr(request_):  # it takes no pictures
        body = provider_side(dialect).write(request_, "m", Quirks())
        assert (b"ephemeral" in body) is said


@pytest.mark.parametrize("dialect", PROVIDERS)
def test_where_there_is_no_marker_none_is_counted(dialect):
    assert "cache_control" not in unsaid(dialect, conversation(ToolResult("call_1abc", (Text("x"),))))


def told(dialect: str, *parts: Text | Image, error: bool = True) -> str:
    """The result of a call, as its provider is told it."""
    request = conversation(ToolResult("call_1abc", parts, error=error))
    body = json.loads(provider_side(dialect).write(request, "m", Quirks()))
    match dialect:
        case "openai_chat" | "workers_ai":
            found = body["messages"][2]["content"]
        case "openai_responses":
            found = body["input"][2]["output"]
        case "anthropic_messages":
            found = body["messages"][2]["content"][0]
        case "gemini":
            found = body["contents"][2]["parts"][0]["functionResponse"]["response"]
    return found if isinstance(found, str) else json.dumps(found)


@pytest.mark.parametrize("dialect", PROVIDERS)
@pytest.mark.parametrize("text", ["no such file", "<tool_use_error>no such file</tool_use_error>", ""])
def test_a_model_is_told_that_its_call_failed(dialect, text):
    said = told(dialect, Text(text))
    assert text in said
    assert "error" in said.lower()
    assert "Error: <tool" not in said
    assert "rror" not in told(dialect, Text("fine"), error=False)


def test_failures_with_pictures_say_so_in_words():
    picture = Image(url="http://x/y.png")
    assert '"Error"' in told("openai_responses", picture)
    assert told("openai_chat", picture) == "Error"
    assert told("openai_chat", Text("gone"), picture) == "Error: gone"


@pytest.mark.parametrize(
    ("model", "dropped"),
    [
        pytest.param("claude-opus-4-7", True, id="newer-models-take-none"),
        pytest.param("claude-3-5-haiku", False, id="older-do"),
    ],
)
def test_what_is_dropped_depends_on_the_model(model, dropped):
    request = Request("m", (HI,), temperature=0.5)
    assert ("temperature" in unsaid("anthropic_messages", request, model)) is dropped
