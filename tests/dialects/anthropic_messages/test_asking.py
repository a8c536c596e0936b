"""The canonical request → a provider's body: the settings."""

from __future__ import annotations

import json

import pytest

from proxy.dialects.anthropic_messages import NAME
from proxy.dialects.anthropic_messages.asking import CHOICE, unsaid, write
from proxy.dialects.anthropic_messages.request import read
from proxy.errors import InvalidRequest
from proxy.requests import (
    Choice,
    Quirks,
    Reasoning,
    Request,
    ResponseFormat,
    Role,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
)

HI = (Turn(Role.USER, (Text("Hi"),)),)
NEW, OLD, OTHER = "claude-sonnet-4-6", "claude-sonnet-4-20250514", "deepseek-v4"
LOOK = Tool("look", "Look", {"type": "object", "properties": {"a": {"type": "string"}}})
CACHE = {"type": "ephemeral"}


def body(model=NEW, quirks=None, turns=HI, **fields):
    return json.loads(write(Request("m", turns, **fields), model=model, quirks=quirks or Quirks()))


def test_the_smallest_body():
    assert body() == {"model": NEW, "max_tokens": 4096, "messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        pytest.param({"max_tokens": 5}, {"max_tokens": 5}, id="max-tokens"),
        pytest.param({"stream": True}, {"stream": True}, id="stream"),
        pytest.param({"stop": ("a", "b")}, {"stop_sequences": ["a", "b"]}, id="stop"),
        pytest.param({"temperature": 0.3, "top_k": 5}, {"temperature": 0.3, "top_k": 5}, id="temperature"),
        pytest.param({"temperature": 1.7}, {"temperature": 1}, id="temperature-goes-up-to-1"),
        pytest.param({"top_p": 0.3}, {"top_p": 0.3}, id="top-p"),
        pytest.param(
            {"temperature": 0.3, "top_p": 0.3}, {"temperature": 0.3, "top_p": None}, id="temperature-or-top-p"
        ),
        pytest.param({"user": "u-1"}, {"metadata": {"user_id": "u-1"}}, id="user"),
        pytest.param({"user": "a@example.org"}, {"metadata": None}, id="an-address-says-who-it-is"),
        pytest.param({"user": "+49 30 1234567"}, {"metadata": None}, id="a-number-says-who-it-is"),
        pytest.param({"user": "u" * 300}, {"metadata": None}, id="a-long-user"),
        pytest.param({"system": (Text("a"), Text("b"))}, {"system": "a\n\nb"}, id="system"),
        pytest.param(
            {"system": (Text("a"), Text("b", CACHE))},
            {"system": [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": CACHE}]},
            id="system-with-a-cache-marker",
        ),
        pytest.param({"presence_penalty": 1, "seed": 3, "verbosity": "low"}, {"seed": None}, id="what-has-no-word"),
    ],
)
def test_settings_are_said(fields, told):
    sent = body(**fields)
    assert {name: sent.get(name) for name in told} == told


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        pytest.param({"answers": 2}, "n", id="answers"),
        pytest.param({"logprobs": 0}, "logprobs", id="logprobs"),
        pytest.param({"stop": ("\n",)}, "stop", id="stop-at-white-space"),
        pytest.param({"turns": ()}, "messages", id="nothing-said"),
        pytest.param({"turns": (Turn(Role.USER, (Text(" "),)),)}, "messages", id="nothing-but-white-space"),
    ],
)
def test_what_would_change_the_answer_is_refused(fields, param):
    with pytest.raises(InvalidRequest) as caught:
        body(**fields)
    assert caught.value.param == param
    assert f"`{param}`" in caught.value.message


def test_what_is_dropped_is_listed():
    request = Request(
        "m",
        (Turn(Role.USER, (Text("Hi"),), name="Ada"),),
        temperature=1.5,
        top_p=0.5,
        top_k=5,
        seed=1,
        presence_penalty=0.1,
        frequency_penalty=0.1,
        verbosity="low",
        user="a@example.org",
        reasoning=Reasoning("high"),
        tool_choice=ToolChoice(Choice.REQUIRED),
    )
    everything = "temperature top_p top_k seed presence_penalty frequency_penalty reasoning verbosity user name"
    assert unsaid(request, "claude-opus-4-7", Quirks()) == tuple(everything.split())
    assert "top_k" not in unsaid(request, OLD, Quirks())
    modest = Request("m", HI, presence_penalty=0, temperature=0.5, user="u")
    assert unsaid(modest, OLD, Quirks()) == ()


@pytest.mark.parametrize("mode", Choice)
def test_every_tool_choice_is_said(mode):
    sent = body(tools=(LOOK,), tool_choice=ToolChoice(mode, "look" if mode is Choice.NAMED else ""))
    assert sent["tool_choice"] == {"type": CHOICE[mode]} | ({"name": "look"} if mode is Choice.NAMED else {})


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        pytest.param(None, {"type": "auto", "disable_parallel_tool_use": True}, id="none-given"),
        pytest.param(ToolChoice(Choice.REQUIRED), {"type": "any", "disable_parallel_tool_use": True}, id="required"),
        pytest.param(ToolChoice(Choice.NONE), {"type": "none"}, id="none"),
    ],
)
def test_one_call_at_a_time(choice, told):
    assert body(tools=(LOOK,), tool_choice=choice, parallel_tool_calls=False)["tool_choice"] == told


def test_a_tool_choice_without_tools_is_not_said():
    assert body(tool_choice=ToolChoice(Choice.AUTO), parallel_tool_calls=False).keys() == body().keys()


@pytest.mark.parametrize(
    ("tool", "told"),
    [
        pytest.param(LOOK, {"name": "look", "description": "Look", "input_schema": LOOK.schema}, id="usual"),
        pytest.param(Tool("x"), {"name": "x", "input_schema": {"type": "object", "properties": {}}}, id="no-schema"),
        pytest.param(
            Tool("x", schema={"properties": {}}),
            {"name": "x", "input_schema": {"type": "object", "properties": {}}},
            id="no-type",
        ),
        pytest.param(
            Tool("x", schema={"type": "object"}, strict=True, cache=CACHE),
            {"name": "x", "input_schema": {"type": "object"}, "strict": True, "cache_control": CACHE},
            id="strict",
        ),
        pytest.param(
            Tool("x", schema={"type": "object"}, strict=False),
            {"name": "x", "input_schema": {"type": "object"}},
            id="not-strict",
        ),
    ],
)
def test_tools_are_said(tool, told):
    assert body(tools=(tool,))["tools"] == [told]


def test_tools_that_were_called_are_named_where_none_are_offered_any_more():
    turns = (
        *HI,
        Turn(Role.ASSISTANT, (ToolCall("1", "look", "{}"), ToolCall("2", "look", "{}"))),
        Turn(Role.TOOL, (ToolResult("1", (Text("a"),)), ToolResult("2", (Text("b"),)))),
    )
    sent = body(turns=turns)
    assert [tool["name"] for tool in sent["tools"]] == ["look"]
    assert sent["tool_choice"] == {"type": "none"}


SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


def test_a_schema_for_the_answer_is_a_setting():
    sent = body(response_format=ResponseFormat(SCHEMA))
    fitted = {**SCHEMA, "additionalProperties": False}
    assert sent["output_config"] == {"format": {"type": "json_schema", "schema": fitted}}
    assert "system" not in sent


@pytest.mark.parametrize("model", [OLD, OTHER, "claude-3-7-sonnet-latest"])
def test_older_and_other_models_are_asked_for_json_in_words(model):
    sent = body(model, system=(Text("Be brief."),), response_format=ResponseFormat(SCHEMA, description="a letter"))
    assert "output_config" not in sent
    assert sent["system"].startswith("Be brief.\n\nAnswer with one JSON object")
    assert sent["system"].endswith(f"(a letter):\n{json.dumps(SCHEMA, separators=(',', ':'))}")


def test_json_of_any_shape_is_asked_for_in_words():
    sent = body(response_format=ResponseFormat())
    assert sent["system"].startswith("Answer with one JSON object and nothing else")
    assert "output_config" not in sent


@pytest.mark.parametrize("depth", [300, 1000])
def test_a_schema_that_is_nested_too_deeply_is_refused(depth):
    schema: dict[str, object] = {"type": "object"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    with pytest.raises(InvalidRequest, match="too deeply"):
        body(response_format=ResponseFormat(schema))
    with pytest.raises(InvalidRequest, match="too deeply"):
        body(OLD, response_format=ResponseFormat(schema))
    with pytest.raises(InvalidRequest, match="too deeply"):
        body(tools=(Tool("x", schema=schema),))


def test_fields_that_the_provider_refuses_are_left_out():
    sent = body(quirks=Quirks(drop=("temperature", "metadata")), temperature=0.5, user="u")
    assert {"temperature", "metadata"}.isdisjoint(sent)


def test_the_default_limit_is_the_provider_s():
    assert body(quirks=Quirks(default_max_tokens=8192))["max_tokens"] == 8192


def test_what_only_this_dialect_knows_comes_back():
    asked = {
        "model": "m",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "Hi"}, {"role": "system", "content": "New rules"}],
        "metadata": {"user_id": "u", "x": 1},
        "output_config": {"effort": "low", "task_budget": {"type": "tokens", "total": 9}},
        "context_management": {"edits": []},
        "tools": [{"type": "web_search_20250305", "name": "web_search"}, {"name": "look", "input_schema": {}}],
        "tool_choice": {"type": "auto"},
        "thinking": {"type": "adaptive", "display": "summarized"},
    }
    request = read(json.dumps(asked).encode())
    assert request.extras[NAME]
    assert json.loads(write(request, model=NEW)) == asked | {"model": NEW}


def test_it_does_not_come_back_from_another_dialect_s_fields():
    assert body(extras={"openai_chat": {"logit_bias": {}}}).keys() == body().keys()
