"""A request becomes a body that Cloudflare's schemas take."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from proxy.dialects.workers_ai.request import CHOICE, limit, unsaid, write
from proxy.errors import InvalidRequest
from proxy.requests import (
    Audio,
    Choice,
    Document,
    Image,
    Quirks,
    Reasoning,
    Refusal,
    Request,
    ResponseFormat,
    Role,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
)

HI = Request(model=None, turns=(Turn(Role.USER, (Text("hi"),)),))


def written(request: Request, quirks: Quirks | None = None) -> Any:
    return orjson.loads(write(request, model="m", quirks=quirks or Quirks()))


def messages(*turns: Turn, quirks: Quirks | None = None) -> list[dict[str, Any]]:
    return written(Request(model=None, turns=turns), quirks)["messages"]


def test_the_smallest_has_a_limit():
    assert written(HI) == {"messages": [{"role": "user", "content": "hi"}], "stream": False, "max_tokens": 4096}


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        pytest.param(
            [Turn(Role.USER, (Text("a"), Text("b"), Document(text="c")))],
            [{"role": "user", "content": "a\n\nb\n\nc"}],
            id="quirk-39-contents-are-strings",
        ),
        pytest.param(
            [Turn(Role.SYSTEM, (Text("a"),)), Turn(Role.ASSISTANT, (Thinking("hm"), Text("b"), Refusal("c")))],
            [{"role": "system", "content": "a"}, {"role": "assistant", "content": "b\n\nc"}],
            id="thoughts-stay-behind",
        ),
        pytest.param(
            [
                Turn(Role.ASSISTANT, (ToolCall("call_000000001", "f", '{"a":1}'), ToolCall("call_000000002", "g"))),
                Turn(Role.TOOL, (ToolResult("call_000000001", (Text("x"),), "f"), ToolResult("call_000000002"))),
            ],
            [
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [
                        {
                            "id": "call_000000001",
                            "type": "function",
                            "function": {"name": "f", "arguments": '{"a":1}'},
                        },
                        {"id": "call_000000002", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                    ],
                },
                {"role": "tool", "content": "x", "tool_call_id": "call_000000001", "name": "f"},
                {"role": "tool", "content": "", "tool_call_id": "call_000000002"},
            ],
            id="quirk-39-content-is-never-null",
        ),
    ],
)
def test_messages(turns, expected):
    assert messages(*turns) == expected


def test_system():
    request = replace(HI, system=(Text("a"), Text("b")))
    assert written(request)["messages"][0] == {"role": "system", "content": "a\n\nb"}


def test_ids_that_would_be_refused_are_replaced_everywhere():
    said = messages(
        Turn(Role.ASSISTANT, (ToolCall("a-1", "f"), ToolCall("b-2", "f"), ToolCall("toolu_01ABCDEFGHI", "f"))),
        Turn(Role.TOOL, (ToolResult("b-2"), ToolResult("a-1"))),
    )
    assert [call["id"] for call in said[0]["tool_calls"]] == ["000000001", "000000002", "toolu_01ABCDEFGHI"]
    assert [one["tool_call_id"] for one in said[1:]] == ["000000002", "000000001"]


def test_quirks_of_a_provider():
    quirks = Quirks(
        default_max_tokens=64,
        max_tokens_field="max_completion_tokens",
        roles={"system": "user"},
        drop=("seed",),
        tool_id=".",
    )
    request = replace(HI, system=(Text("a"),), seed=7, turns=(Turn(Role.ASSISTANT, (ToolCall("x", "f"),)),))
    body = written(request, quirks)
    assert body["max_completion_tokens"] == 64
    assert "seed" not in body
    assert body["messages"][0]["role"] == "user"
    assert body["messages"][1]["tool_calls"][0]["id"] == "x"


def test_settings():
    request = replace(
        HI,
        stream=True,
        max_tokens=64,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        seed=7,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        stop=("X",),
        reasoning=Reasoning("minimal"),
    )
    body = written(request)
    del body["messages"]
    assert body == {
        "stream": True,
        "max_tokens": 64,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "seed": 7,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "stop": ["X"],
        "reasoning_effort": "low",
    }
    assert limit(request, Quirks()) == 64


def test_quirk_38_a_limit_is_always_asked_for():
    assert limit(HI, Quirks(default_max_tokens=99)) == 99
    assert written(HI, Quirks(default_max_tokens=99))["max_tokens"] == 99


@pytest.mark.parametrize(
    ("format", "told"),
    [
        (ResponseFormat(), {"type": "json_object"}),
        (ResponseFormat({"type": "object"}, name="n"), {"type": "json_schema", "json_schema": {"type": "object"}}),
    ],
    ids=["any", "the-schema-is-bare"],
)
def test_response_format(format, told):
    assert written(replace(HI, response_format=format))["response_format"] == told


def test_tools_have_all_that_the_schema_wants():
    schema = {"type": "object", "properties": {"a": {}}, "required": ["a"]}
    request = replace(HI, tools=(Tool("f", "d", schema), Tool("g")), parallel_tool_calls=False)
    body = written(request)
    assert body["tools"] == [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": schema}},
        {
            "type": "function",
            "function": {"name": "g", "description": "", "parameters": {"type": "object", "properties": {}}},
        },
    ]
    assert body["parallel_tool_calls"] is False
    assert "tool_choice" not in body


def test_choices_cover_every_mode():
    assert set(CHOICE) | {Choice.NAMED} == set(Choice)


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        (ToolChoice(Choice.AUTO), "auto"),
        (ToolChoice(Choice.NONE), "none"),
        (ToolChoice(Choice.REQUIRED), "required"),
        (ToolChoice(Choice.NAMED, "f"), {"type": "function", "function": {"name": "f"}}),
    ],
)
def test_tool_choice(choice, told):
    assert written(replace(HI, tools=(Tool("f"),), tool_choice=choice))["tool_choice"] == told
    assert "tool_choice" not in written(replace(HI, tool_choice=choice))


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        pytest.param(replace(HI, answers=2), "n", id="answers"),
        pytest.param(replace(HI, logprobs=0), "logprobs", id="logprobs"),
        pytest.param(replace(HI, turns=(Turn(Role.USER, (Image("https://a.example"),)),)), "messages", id="image"),
        pytest.param(replace(HI, turns=(Turn(Role.USER, (Audio("QUJD", "wav"),)),)), "messages", id="audio"),
        pytest.param(replace(HI, turns=(Turn(Role.USER, (Document(data="QUJD"),)),)), "messages", id="file"),
        pytest.param(
            replace(HI, turns=(Turn(Role.TOOL, (ToolResult("x", (Image("https://a.example"),)),)),)),
            "messages",
            id="result",
        ),
    ],
)
def test_what_cannot_be_said_is_refused(request_, param):
    with pytest.raises(InvalidRequest, match="dialect workers_ai") as failed:
        written(request_)
    assert failed.value.param == param


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        pytest.param(HI, (), id="nothing"),
        pytest.param(replace(HI, seed=0, user="u", verbosity="low"), ("seed", "user", "verbosity"), id="words"),
        pytest.param(replace(HI, reasoning=Reasoning("none")), ("reasoning",), id="no-effort"),
        pytest.param(replace(HI, reasoning=Reasoning("high"), seed=10**10 - 1), (), id="said"),
    ],
)
def test_what_is_left_out_is_named(request_, names):
    assert unsaid(request_, "m", Quirks()) == names
    assert not {"seed", "user", "verbosity", "reasoning_effort"}.intersection(names) & set(written(request_))


def test_what_is_nested_too_deeply_is_refused():
    schema: dict[str, Any] = {}
    for _ in range(300):
        schema = {"items": schema}
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        written(replace(HI, response_format=ResponseFormat(schema)))
