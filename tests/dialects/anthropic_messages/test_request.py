"""A client's body → the canonical request."""

from __future__ import annotations

import json

import pytest

from proxy.dialects.anthropic_messages import NAME
from proxy.dialects.anthropic_messages.request import CHOICE, read
from proxy.errors import InvalidRequest
from proxy.requests import (
    Choice,
    Document,
    Image,
    Reasoning,
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

CACHE = {"type": "ephemeral", "ttl": "1h"}
HI = [{"role": "user", "content": "Hi"}]


def asked(**fields):
    return read(json.dumps({"model": "m", "messages": HI, **fields}).encode())


def turns(*messages):
    return asked(messages=messages).turns


def user(*blocks):
    return turns({"role": "user", "content": blocks})


def test_the_smallest_request():
    assert read(b'{"messages":[{"role":"user","content":"Hi"}]}') == Request(
        None, (Turn(Role.USER, (Text("Hi"),)),), include_usage=True, extras={NAME: {}}
    )


def test_a_request_of_everything_that_the_waist_knows():
    request = asked(
        system="Be brief.",
        stream=True,
        max_tokens=100,
        temperature=0.5,
        top_p=1,
        top_k=40,
        stop_sequences=["a", "b"],
        metadata={"user_id": "u"},
        tools=[{"name": "look", "description": "d", "input_schema": {"type": "object"}, "strict": True}],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        thinking={"type": "enabled", "budget_tokens": 2000},
        output_config={"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    )
    assert request == Request(
        "m",
        (Turn(Role.USER, (Text("Hi"),)),),
        system=(Text("Be brief."),),
        stream=True,
        include_usage=True,
        tools=(Tool("look", "d", {"type": "object"}, True),),
        tool_choice=ToolChoice(Choice.REQUIRED),
        parallel_tool_calls=False,
        max_tokens=100,
        temperature=0.5,
        top_p=1,
        top_k=40,
        stop=("a", "b"),
        response_format=ResponseFormat({"type": "object"}, strict=True),
        reasoning=Reasoning("high", 2000, True),
        user="u",
        extras={NAME: {}},
    )


def test_nulls_are_absent_fields():
    names = [
        "system",
        "stream",
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "stop_sequences",
        "metadata",
        "tools",
        "tool_choice",
        "thinking",
    ]
    assert asked(**dict.fromkeys([*names, "output_config", "output_format"])) == asked()


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        pytest.param(
            {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": CACHE}]},
            [Turn(Role.USER, (Text("Hi", CACHE),))],
            id="cache-marker",
        ),
        pytest.param(
            {"role": "system", "content": "New rules"},
            [Turn(Role.SYSTEM, (Text("New rules"),))],
            id="system-inside-a-conversation",
        ),
        pytest.param(
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a"},
                    {"type": "mid_conv_system", "content": [{"type": "text", "text": "New rules"}]},
                    {"type": "text", "text": "b"},
                ],
            },
            [Turn(Role.USER, (Text("a"),)), Turn(Role.SYSTEM, (Text("New rules"),)), Turn(Role.USER, (Text("b"),))],
            id="system-inside-a-message",
        ),
        pytest.param(
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
                    {"type": "redacted_thinking", "data": "xyz"},
                    {"type": "text", "text": "Let me look."},
                    {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"a": "é"}, "cache_control": CACHE},
                ],
            },
            [
                Turn(
                    Role.ASSISTANT,
                    (
                        Thinking("Hm.", "sig"),
                        Thinking(redacted="xyz"),
                        Text("Let me look."),
                        ToolCall("toolu_1", "look", '{"a":"é"}', cache=CACHE),
                    ),
                )
            ],
            id="assistant",
        ),
        pytest.param(
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm."}]},
            [Turn(Role.ASSISTANT, (Thinking("Hm."),))],
            id="thinking-without-a-signature",
        ),
        pytest.param(
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "1", "content": "ok"},
                    {"type": "tool_result", "tool_use_id": "2", "is_error": True, "cache_control": CACHE},
                    {"type": "text", "text": "And now?"},
                ],
            },
            [
                Turn(Role.TOOL, (ToolResult("1", (Text("ok"),)), ToolResult("2", (), "", True, CACHE))),
                Turn(Role.USER, (Text("And now?"),)),
            ],
            id="results-have-a-turn-of-their-own",
        ),
        pytest.param(
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "before"},
                    {
                        "type": "tool_result",
                        "tool_use_id": "1",
                        "content": [
                            {"type": "text", "text": "ok"},
                            {"type": "image", "source": {"type": "url", "url": "https://e.org/a.png"}},
                            {"type": "document", "source": {"type": "text", "data": "words"}},
                            {"type": "tool_reference", "tool_name": "x"},
                        ],
                    },
                ],
            },
            [
                Turn(
                    Role.TOOL,
                    (
                        ToolResult(
                            "1",
                            (
                                Text("ok"),
                                Image("https://e.org/a.png"),
                                Document(text="words", media_type="text/plain"),
                            ),
                        ),
                    ),
                ),
                Turn(Role.USER, (Text("before"),)),
            ],
            id="results-come-first-and-hold-pictures",
        ),
    ],
)
def test_messages_become_turns(message, expected):
    assert list(turns(message)) == expected


def test_a_result_knows_its_tool():
    call = {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "look", "input": {}}]}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "ok"}]}
    assert turns(*HI, call, result)[-1] == Turn(Role.TOOL, (ToolResult("1", (Text("ok"),), "look"),))


@pytest.mark.parametrize(
    ("block", "part"),
    [
        pytest.param(
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
                "cache_control": CACHE,
            },
            Image(data="AAAA", media_type="image/png", cache=CACHE),
            id="image-base64",
        ),
        pytest.param(
            {"type": "image", "source": {"type": "url", "url": "https://e.org"}}, Image("https://e.org"), id="image-url"
        ),
        pytest.param(
            {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
            Document(file_id="file_1", media_type="image/*"),
            id="image-file",
        ),
        pytest.param(
            {
                "type": "document",
                "title": "T",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "AA=="},
            },
            Document(data="AA==", media_type="application/pdf", name="T"),
            id="pdf",
        ),
        pytest.param(
            {"type": "document", "source": {"type": "url", "url": "https://e.org"}},
            Document("https://e.org"),
            id="pdf-url",
        ),
        pytest.param(
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
            Document(text="words", media_type="text/plain"),
            id="text-document",
        ),
        pytest.param(
            {
                "type": "document",
                "source": {
                    "type": "content",
                    "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
                },
            },
            Document(text="a\n\nb", media_type="text/plain"),
            id="document-of-blocks",
        ),
        pytest.param(
            {"type": "document", "source": {"type": "file", "file_id": "f"}}, Document(file_id="f"), id="file"
        ),
        pytest.param(
            {
                "type": "search_result",
                "title": "T",
                "source": "https://e.org",
                "content": [{"type": "text", "text": "So."}],
            },
            Text("T\nhttps://e.org\nSo."),
            id="search-result",
        ),
    ],
)
def test_what_a_user_shows(block, part):
    assert user(block) == (Turn(Role.USER, (part,)),)


def test_system_may_be_a_list_with_cache_markers():
    given = [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": CACHE}]
    assert asked(system=given).system == (Text("a"), Text("b", CACHE))


@pytest.mark.parametrize(
    ("fields", "reasoning"),
    [
        pytest.param({}, None, id="none"),
        pytest.param({"thinking": {"type": "enabled", "budget_tokens": 2048}}, Reasoning("", 2048, True), id="enabled"),
        pytest.param({"thinking": {"type": "enabled"}}, Reasoning("", None, True), id="without-a-budget"),
        pytest.param({"thinking": {"type": "adaptive"}}, Reasoning("", None, True), id="adaptive"),
        pytest.param(
            {"thinking": {"type": "adaptive", "display": "omitted"}, "output_config": {"effort": "max"}},
            Reasoning("max", None, False),
            id="adaptive-with-effort",
        ),
        pytest.param(
            {"thinking": {"type": "disabled"}, "output_config": {"effort": "low"}}, Reasoning("low", 0), id="disabled"
        ),
        pytest.param({"output_config": {"effort": "low"}}, Reasoning("low"), id="effort-alone"),
        pytest.param({"thinking": {"type": "between_tools"}}, Reasoning("", None, True), id="a-kind-of-the-future"),
    ],
)
def test_thinking_is_read(fields, reasoning):
    assert asked(**fields).reasoning == reasoning


@pytest.mark.parametrize(("kind", "mode"), CHOICE.items())
def test_tool_choices_are_read(kind, mode):
    choice = asked(tool_choice={"type": kind, "name": "look"}).tool_choice
    assert choice == ToolChoice(mode, "look" if mode is Choice.NAMED else "")
    assert set(CHOICE.values()) == set(Choice)


def test_a_format_may_stand_where_it_did_as_a_beta():
    assert asked(output_format={"type": "json_schema", "schema": {}}).response_format == ResponseFormat({}, strict=True)


@pytest.mark.parametrize(
    ("fields", "dropped", "extras"),
    [
        pytest.param(
            {"context_management": {"edits": []}},
            ("context_management",),
            {"context_management": {"edits": []}},
            id="context-management",
        ),
        pytest.param(
            {"service_tier": "auto", "betas": ["x"]},
            ("service_tier", "betas"),
            {"service_tier": "auto", "betas": ["x"]},
            id="unknown-fields",
        ),
        pytest.param(
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}, {"name": "look"}]},
            ("tools.web_search_20250305",),
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}, {"name": "look"}]},
            id="server-tools",
        ),
        pytest.param(
            {"tools": [{"type": "custom", "name": "look", "eager_input_streaming": True}]},
            ("tools.eager_input_streaming",),
            {"tools": [{"type": "custom", "name": "look", "eager_input_streaming": True}]},
            id="fields-of-tools",
        ),
        pytest.param(
            {"metadata": {"user_id": "u", "x": 1}},
            ("metadata.x",),
            {"metadata": {"user_id": "u", "x": 1}},
            id="metadata",
        ),
        pytest.param(
            {"output_config": {"task_budget": 1}},
            ("output_config.task_budget",),
            {"output_config": {"task_budget": 1}},
            id="output-config",
        ),
        pytest.param(
            {"thinking": {"type": "between_tools"}},
            ("thinking.between_tools",),
            {"thinking": {"type": "between_tools"}},
            id="thinking",
        ),
        pytest.param(
            {
                "messages": [
                    *HI,
                    {
                        "role": "assistant",
                        "content": [{"type": "server_tool_use", "id": "s"}, {"type": "text", "text": "a"}],
                    },
                    {"role": "assistant", "content": [{"type": "web_search_tool_result"}]},
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "document",
                                "source": {"type": "text", "data": "x"},
                                "citations": {"enabled": True},
                                "context": "c",
                            }
                        ],
                    },
                ],
                "system": [{"type": "novel"}],
            },
            (
                "messages.novel",
                "messages.server_tool_use",
                "messages.web_search_tool_result",
                "document.citations",
                "document.context",
            ),
            {},
            id="blocks",
        ),
    ],
)
def test_what_is_unknown_is_dropped_listed_and_kept(fields, dropped, extras):
    request = asked(**fields)
    assert request.dropped == dropped
    assert request.extras == {NAME: extras}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"{", "not JSON", id="cut"),
        pytest.param(b'{"a":"\xff"}', r"not UTF-8 \(byte 6\)", id="latin-1"),
        pytest.param(b"[]", "must be a JSON object", id="list"),
        pytest.param(b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", "too deeply", id="deep"),
    ],
)
def test_a_body_that_is_none_is_refused(body, says):
    with pytest.raises(InvalidRequest, match=says):
        read(body)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        pytest.param({"messages": None}, "messages", id="no-messages"),
        pytest.param({"messages": []}, "messages", id="empty-messages"),
        pytest.param({"messages": "Hi"}, "messages", id="text-for-messages"),
        pytest.param({"messages": ["Hi"]}, "messages[0]", id="text-for-a-message"),
        pytest.param({"messages": [*HI, {"content": "Hi"}]}, "messages[1].role", id="no-role"),
        pytest.param({"messages": [{"role": "tool", "content": "Hi"}]}, "messages[0].role", id="another-role"),
        pytest.param({"messages": [{"role": "user"}]}, "messages[0].content", id="no-content"),
        pytest.param(
            {"messages": [{"role": "user", "content": ["Hi"]}]}, "messages[0].content[0]", id="text-for-a-block"
        ),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}, "messages[0].content[0].type", id="no-type"
        ),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text", id="no-text"
        ),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image"}]}]},
            "messages[0].content[1].source",
            id="no-source",
        ),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "x"}}]}]},
            "messages[0].content[0].source.type",
            id="another-source",
        ),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "x"}}]}]},
            "messages[0].content[0].source.type",
            id="another-document",
        ),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]},
            "messages[0].content[0].tool_use_id",
            id="no-call-id",
        ),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": 3}]}]},
            "messages[0].content[0].content",
            id="a-number-for-a-result",
        ),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "tool_use"}]}]},
            "messages[0].content[0].type",
            id="a-user's-call",
        ),
        pytest.param(
            {"messages": [{"role": "assistant", "content": [{"type": "tool_result"}]}]},
            "messages[0].content[0].type",
            id="an-assistant's-result",
        ),
        pytest.param(
            {
                "messages": [
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "x", "input": "{}"}]}
                ]
            },
            "messages[0].content[0].input",
            id="text-for-input",
        ),
        pytest.param({"messages": [{"role": "assistant", "content": []}]}, "messages", id="nothing-said"),
        pytest.param({"model": 3}, "model", id="model"),
        pytest.param({"stream": "yes"}, "stream", id="stream"),
        pytest.param({"system": 3}, "system", id="system"),
        pytest.param({"system": [{"type": "text"}]}, "system[0].text", id="system-text"),
        pytest.param({"max_tokens": 1.5}, "max_tokens", id="max-tokens"),
        pytest.param({"max_tokens": True}, "max_tokens", id="max-tokens-true"),
        pytest.param({"max_tokens": -1}, "max_tokens", id="max-tokens-negative"),
        pytest.param({"temperature": "hot"}, "temperature", id="temperature"),
        pytest.param({"temperature": False}, "temperature", id="temperature-false"),
        pytest.param({"stop_sequences": "x"}, "stop_sequences", id="stop"),
        pytest.param({"stop_sequences": ["x", 3]}, "stop_sequences[1]", id="stop-number"),
        pytest.param({"metadata": {"user_id": 3}}, "metadata.user_id", id="user"),
        pytest.param({"tools": {}}, "tools", id="tools"),
        pytest.param({"tools": [{"description": "d"}]}, "tools[0].name", id="tool-name"),
        pytest.param({"tools": [{"name": "x", "input_schema": []}]}, "tools[0].input_schema", id="tool-schema"),
        pytest.param({"tool_choice": {}}, "tool_choice.type", id="tool-choice"),
        pytest.param({"tool_choice": {"type": "most"}}, "tool_choice.type", id="another-tool-choice"),
        pytest.param({"tool_choice": {"type": "tool"}}, "tool_choice.name", id="tool-choice-name"),
        pytest.param({"thinking": "hard"}, "thinking", id="thinking"),
        pytest.param({"thinking": {"type": "enabled", "budget_tokens": "x"}}, "thinking.budget_tokens", id="budget"),
        pytest.param({"output_config": {"effort": 3}}, "output_config.effort", id="effort"),
        pytest.param({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type", id="format"),
        pytest.param({"output_format": {"type": "json_schema"}}, "output_format.schema", id="schema"),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(fields, param):
    with pytest.raises(InvalidRequest) as caught:
        asked(**fields)
    assert caught.value.param == param
    assert f"`{param}`" in caught.value.message


def test_input_that_is_nested_too_deeply_is_refused():
    deep = "[" * 300 + "]" * 300
    body = '{"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"1","name":"x","input":{"a":%s}}]}]}'
    with pytest.raises(InvalidRequest, match="too deeply") as caught:
        read((body % deep).encode())
    assert caught.value.param == "messages[0].content[0].input"
