"""A client's request for a response, and how the rest of the house sees it."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.openai_responses.request import read
from proxy.errors import InvalidRequest
from proxy.events import MessageEnded, MessageStarted, Stop
from proxy.requests import (
    Audio,
    Choice,
    Document,
    Image,
    Reasoning,
    Refusal,
    ResponseFormat,
    Role,
    Text,
    Thinking,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
)
from tests import properties
from tests.dialects.openai_responses import asked, block, dumps, final_output, write
from tests.dialects.openai_responses.grammar import check
from tests.properties import thorough
from tests.recordings import STREAMS, WHOLES


def user(*parts):
    return Turn(Role.USER, parts)


def assistant(*parts):
    return Turn(Role.ASSISTANT, parts)


def results(*parts):
    return Turn(Role.TOOL, parts)


def said(role: str, *content, **fields):
    return {"type": "message", "role": role, "content": list(content), **fields}


def text(words: str):
    return {"type": "input_text", "text": words}


def called(id: str, name: str = "f", arguments: str = "{}", **fields):
    return {"type": "function_call", "call_id": id, "name": name, "arguments": arguments, **fields}


def came(id: str, output="ok"):
    return {"type": "function_call_output", "call_id": id, "output": output}


def call(id: str, name: str = "f", arguments: str = "{}", signature: str = ""):
    return ToolCall(id, name, arguments, signature)


def result(id: str, *parts, name: str = "f"):
    return ToolResult(id, parts or (Text("ok"),), name)


# What was said...


@pytest.mark.parametrize(
    ("sent", "turns"),
    [
        pytest.param("Hi", [user(Text("Hi"))], id="a-string"),
        pytest.param([{"role": "user", "content": "Hi"}], [user(Text("Hi"))], id="no-type"),
        pytest.param([said("user", text("a"), text("b"))], [user(Text("a"), Text("b"))], id="parts"),
        pytest.param(
            [said("user", text("a")), said("user", text("b"))], [user(Text("a")), user(Text("b"))], id="two-messages"
        ),
        pytest.param(
            [
                said("user", text("a")),
                said(
                    "assistant", {"type": "output_text", "text": "b", "annotations": []}, id="msg_1", status="completed"
                ),
                said("assistant", {"type": "refusal", "refusal": "no"}),
            ],
            [user(Text("a")), assistant(Text("b"), Refusal("no"))],
            id="what-a-model-said-in-a-row-is-one-turn",
        ),
        pytest.param(
            [said("user", text("a")), said("developer", text("b")), said("system", text("c"))],
            [user(Text("a")), Turn(Role.SYSTEM, (Text("b"),)), Turn(Role.SYSTEM, (Text("c"),))],
            id="instructions-in-between",
        ),
        pytest.param(
            [said("user", {"type": "input_image", "image_url": "https://e.org/a.png", "detail": "low"})],
            [user(Image("https://e.org/a.png", detail="low"))],
            id="image",
        ),
        pytest.param(
            [said("user", {"type": "input_image", "image_url": "data:image/gif;base64,R0lG"})],
            [user(Image(data="R0lG", media_type="image/gif"))],
            id="image-data",
        ),
        pytest.param(
            [
                said(
                    "user", {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"}
                )
            ],
            [user(Document(data="JVBE", media_type="application/pdf", name="a.pdf"))],
            id="file",
        ),
        pytest.param(
            [
                said(
                    "user",
                    {"type": "input_file", "file_url": "https://e.org/a"},
                    {"type": "input_file", "file_id": "f"},
                )
            ],
            [user(Document(url="https://e.org/a"), Document(file_id="f"))],
            id="files-elsewhere",
        ),
        pytest.param(
            [said("user", {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}})],
            [user(Audio("UklG", "wav"))],
            id="sound",
        ),
        pytest.param(
            [said("user", text("a")), said("user"), {"role": "assistant", "content": ""}],
            [user(Text("a"))],
            id="empty-turns-are-none",
        ),
        pytest.param(
            [{"type": "agent_message", "author": "/a", "recipient": "/", "content": [text("done")]}],
            [user(Text("done"))],
            id="another-agent-of-codex",
        ),
    ],
)
def test_messages(sent, turns):
    assert list(asked(input=sent).turns) == turns


def test_instructions_and_what_leads_the_input_are_the_system_prompt():
    request = asked(
        instructions="Be brief.",
        input=[said("developer", text("a"), text("b")), said("system", text("c")), said("user", text("d"))],
    )
    assert request.system == (Text("Be brief."), Text("a"), Text("b"), Text("c"))
    assert request.turns == (user(Text("d")),)


# Calls, and what came of them...


@pytest.mark.parametrize(
    ("sent", "turns"),
    [
        pytest.param(
            [said("assistant", text("I look.")), called("1"), called("2"), came("1"), came("2")],
            [assistant(Text("I look."), call("1"), call("2")), results(result("1"), result("2"))],
            id="neighbours-are-one-turn",
        ),
        pytest.param(
            [called("1"), came("1"), called("2"), came("2"), said("assistant", text("So."))],
            [
                assistant(call("1")),
                results(result("1")),
                assistant(call("2")),
                results(result("2")),
                assistant(Text("So.")),
            ],
            id="one-after-the-other",
        ),
        pytest.param(
            [called("1"), called("2"), said("user", text("wait")), came("2"), came("1")],
            [assistant(call("1"), call("2")), results(result("2"), result("1")), user(Text("wait"))],
            id="late-results-go-to-their-calls",
        ),
        pytest.param(
            [came("1"), came("2"), said("user", text("a"))],
            [results(result("1", name=""), result("2", name="")), user(Text("a"))],
            id="results-without-calls",
        ),
        pytest.param(
            [called("1", arguments='{"a": "b'), came("1", "")],
            [assistant(call("1", arguments='{"a": "b')), results(ToolResult("1", (), "f"))],
            id="broken-arguments-and-no-output",
        ),
        pytest.param(
            [called("1", arguments={"a": 1}), called("2", arguments=None)],
            [assistant(call("1", arguments='{"a":1}'), call("2", arguments=""))],
            id="arguments-that-are-no-text",
        ),
        pytest.param(
            [called("1"), came("1", [text("a"), {"type": "input_image", "image_url": "https://e.org/a.png"}])],
            [assistant(call("1")), results(result("1", Text("a"), Image("https://e.org/a.png")))],
            id="parts",
        ),
        pytest.param(
            [called("1"), came("1", {"content": "ok", "success": False})],
            [assistant(call("1")), results(result("1"))],
            id="an-older-codex",
        ),
        pytest.param(
            [
                {"type": "local_shell_call", "call_id": "1", "status": "completed", "action": {"command": ["ls"]}},
                {"type": "local_shell_call_output", "call_id": "1", "output": "a.txt"},
            ],
            [
                assistant(call("1", "local_shell", '{"command":["ls"]}')),
                results(result("1", Text("a.txt"), name="local_shell")),
            ],
            id="a-tool-that-the-client-runs-for-openai",
        ),
        pytest.param(
            [
                {"type": "shell_call", "call_id": "1", "action": {"commands": ["ls"]}},
                {"type": "shell_call_output", "call_id": "1", "output": [{"stdout": "a"}]},
            ],
            [
                assistant(call("1", "shell", '{"commands":["ls"]}')),
                results(result("1", Text('[{"stdout":"a"}]'), name="shell")),
            ],
            id="a-shell",
        ),
    ],
)
def test_calls(sent, turns):
    assert list(asked(input=sent).turns) == turns


def test_calls_of_custom_tools_and_of_namespaces_are_calls_of_their_functions():
    tools = [
        {"type": "custom", "name": "apply_patch"},
        {"type": "namespace", "name": "mcp__docs", "tools": [{"type": "function", "name": "search"}]},
    ]
    request = asked(
        tools=tools,
        input=[
            {"type": "custom_tool_call", "call_id": "1", "name": "apply_patch", "input": 'a "b"\n'},
            {"type": "custom_tool_call_output", "call_id": "1", "output": "ok"},
            called("2", "search", namespace="mcp__docs"),
            called("3", "gone", namespace="mcp__old"),
        ],
    )
    assert list(request.turns) == [
        assistant(call("1", "apply_patch", '{"input":"a \\"b\\"\\n"}')),
        results(result("1", name="apply_patch")),
        assistant(call("2", "mcp__docs__search"), call("3", "mcp__old__gone")),
    ]


def test_tools_that_a_newer_codex_declares_in_the_input_are_tools():
    inner = [{"type": "custom", "name": "exec", "description": "Run."}, {"type": "web_search"}]
    item = {
        "type": "additional_tools",
        "role": "developer",
        "tools": [{"type": "namespace", "name": "functions", "tools": inner}],
    }
    request = asked(input=[item, said("user", text("a"))])
    assert [tool.name for tool in request.tools] == ["exec"]
    assert request.turns == (user(Text("a")),)
    assert request.dropped == ("tools.web_search",)
    (told,) = final_output(block(0, "tool_call", '{"input":"ls"}', id="1", name="exec"), request)
    assert (told["type"], told["namespace"], told["name"], told["input"]) == (
        "custom_tool_call",
        "functions",
        "exec",
        "ls",
    )


# Thoughts...


def test_thoughts_without_a_seal_are_text():
    summary = [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}]
    content = [{"type": "reasoning_text", "text": "c"}]
    request = asked(
        input=[
            {"type": "reasoning", "id": "rs_1", "summary": summary, "content": content},
            {"type": "reasoning", "summary": [], "content": content},
            {"type": "reasoning", "summary": []},
            called("1"),
        ]
    )
    assert list(request.turns) == [assistant(Thinking("a\n\nb"), Thinking("c"), call("1"))]


def test_what_only_its_provider_can_decrypt_is_left_out():
    summary = [{"type": "summary_text", "text": "a"}]
    request = asked(
        input=[
            {"type": "reasoning", "summary": summary, "encrypted_content": "gAAAAA"},
            {"type": "reasoning", "summary": [], "encrypted_content": "gAAAAA"},
            said("assistant", text("b")),
        ]
    )
    assert list(request.turns) == [assistant(Thinking("a"), Text("b"))]
    assert request.dropped == ("input.encrypted_content",)


def test_seals_of_other_dialects_come_back_with_what_was_told():
    events = [
        *block(0, "thinking", "Hm", ".", signature="anthropic=="),
        *block(1, "thinking", redacted="hidden:data"),
        *block(2, "text", "I look."),
        *block(3, "tool_call", '{"a":1}', id="functions.f:0", name="f", signature="gemini/+"),
        *block(4, "tool_call", "{}", id="call_2", name="f"),
    ]
    output = final_output(events)
    assert list(asked(input=[*output, came("functions.f:0")]).turns) == [
        assistant(
            Thinking("Hm.", "anthropic=="),
            Thinking(redacted="hidden:data"),
            Text("I look."),
            call("functions.f:0", arguments='{"a":1}', signature="gemini/+"),
            call("call_2"),
        ),
        results(result("functions.f:0")),
    ]


def test_seals_survive_a_client_that_sends_back_no_ids_as_codex_does():
    output = final_output(block(0, "thinking", "Hm.", signature="sig"))
    stripped = [{name: value for name, value in item.items() if name not in ("id", "status")} for item in output]
    assert list(asked(input=stripped).turns) == [assistant(Thinking("Hm.", "sig"))]


# Settings...


@pytest.mark.parametrize(
    ("sent", "field", "value"),
    [
        pytest.param({"model": None}, "model", None, id="no-model"),
        pytest.param({"model": ""}, "model", None, id="empty-model"),
        pytest.param({"model": "a/b"}, "model", "a/b", id="model"),
        pytest.param({}, "stream", False, id="no-stream"),
        pytest.param({"stream": True}, "stream", True, id="stream"),
        pytest.param({}, "include_usage", True, id="usage-is-always-told"),
        pytest.param({"max_output_tokens": 9}, "max_tokens", 9, id="limit"),
        pytest.param({"temperature": 0}, "temperature", 0, id="temperature"),
        pytest.param({"top_p": 0.5}, "top_p", 0.5, id="top_p"),
        pytest.param({"presence_penalty": 1}, "presence_penalty", 1, id="presence"),
        pytest.param({"frequency_penalty": -1}, "frequency_penalty", -1, id="frequency"),
        pytest.param({"parallel_tool_calls": False}, "parallel_tool_calls", False, id="parallel"),
        pytest.param({"user": "u"}, "user", "u", id="user"),
        pytest.param({"tool_choice": "required"}, "tool_choice", ToolChoice(Choice.REQUIRED), id="choice"),
        pytest.param({"top_logprobs": 0}, "logprobs", None, id="no-logprobs"),
        pytest.param({"top_logprobs": 3}, "logprobs", 3, id="logprobs"),
        pytest.param({"include": ["message.output_text.logprobs"]}, "logprobs", 0, id="logprobs-included"),
        pytest.param({"reasoning": {"effort": "high"}}, "reasoning", Reasoning("high"), id="effort"),
        pytest.param(
            {"reasoning": {"effort": "low", "summary": "auto"}}, "reasoning", Reasoning("low", shown=True), id="summary"
        ),
        pytest.param({"reasoning": {"summary": "none"}}, "reasoning", Reasoning(shown=False), id="no-summary"),
        pytest.param({"reasoning": {"effort": None}}, "reasoning", None, id="no-reasoning"),
        pytest.param({"text": {"verbosity": "low"}}, "verbosity", "low", id="verbosity"),
        pytest.param({"text": {"format": {"type": "text"}}}, "response_format", None, id="text"),
        pytest.param({"text": {"format": {"type": "json_object"}}}, "response_format", ResponseFormat(), id="json"),
        pytest.param(
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"a": 2**70}, "strict": True}}},
            "response_format",
            ResponseFormat({"a": 2**70}, "n", True),
            id="schema",
        ),
    ],
)
def test_settings(sent, field, value):
    assert getattr(asked(**sent), field) == value


CODEX = {
    "model": "gpt-5.4",
    "instructions": "You are Codex.",
    "input": [said("developer", text("<permissions>")), said("user", text("Hi"))],
    "tools": [
        {"type": "function", "name": "exec_command", "strict": False, "parameters": {"type": "object"}},
        {"type": "custom", "name": "apply_patch", "format": {"type": "grammar", "syntax": "lark", "definition": "x"}},
        {"type": "namespace", "name": "mcp__a", "description": "A", "tools": [{"type": "function", "name": "b"}]},
        {"type": "web_search", "external_web_access": True},
        {"type": "tool_search", "execution": "client"},
        {"type": "image_generation"},
        {"type": "local_shell"},
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"effort": "medium", "summary": "auto"},
    "store": False,
    "stream": True,
    "include": ["reasoning.encrypted_content"],
    "service_tier": "priority",
    "prompt_cache_key": "0199",
    "client_metadata": {"x-codex-installation-id": "1"},
    "text": {"verbosity": "low"},
    "something_new": {"a": 1},
}


def test_nothing_that_codex_sends_is_refused():
    request = asked(**CODEX)
    assert [tool.name for tool in request.tools] == ["exec_command", "apply_patch", "mcp__a__b"]
    assert request.dropped == (
        "client_metadata",
        "prompt_cache_key",
        "service_tier",
        "something_new",
        "tools.image_generation",
        "tools.local_shell",
        "tools.tool_search",
        "tools.web_search",
    )
    assert request.extras["openai_responses"]["prompt_cache_key"] == "0199"
    assert "input" not in request.extras["openai_responses"]


def test_what_openai_ran_itself_is_left_out_of_the_history():
    items = [{"type": "web_search_call", "id": "ws_1"}, {"type": "mcp_list_tools"}, {"type": "ghost_snapshot"}]
    request = asked(input=[said("user", text("a")), *items])
    assert request.turns == (user(Text("a")),)
    assert request.dropped == ("input.ghost_snapshot", "input.mcp_list_tools", "input.web_search_call")


def test_null_is_as_good_as_absent():
    names = ("instructions", "stream", "tools", "tool_choice", "max_output_tokens", "text", "reasoning", "include")
    stored = ("previous_response_id", "conversation", "background", "prompt", "metadata", "truncation", "store")
    request = asked(**dict.fromkeys((*names, *stored)))
    assert (request.system, request.tools, request.dropped) == ((), (), ())


# Refusals...


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        pytest.param({"previous_response_id": "resp_1"}, "previous_response_id", id="previous_response_id"),
        pytest.param({"conversation": {"id": "conv_1"}}, "conversation", id="conversation"),
        pytest.param({"background": True}, "background", id="background"),
        pytest.param({"prompt": {"id": "pmpt_1"}}, "prompt", id="prompt"),
        pytest.param({"input": None}, "input", id="no-input"),
        pytest.param({"input": ""}, "input", id="empty-input"),
        pytest.param({"input": []}, "input", id="no-items"),
        pytest.param({"input": {}}, "input", id="input-object"),
        pytest.param({"input": ["Hi"]}, "input[0]", id="item-string"),
        pytest.param({"input": [{"content": "Hi"}]}, "input[0]", id="neither-type-nor-role"),
        pytest.param({"input": [{"type": 5}]}, "input[0]", id="type-number"),
        pytest.param({"input": [{"role": "tool", "content": "x"}]}, "input[0].role", id="role"),
        pytest.param({"input": [{"role": ["user"], "content": "x"}]}, "input[0].role", id="role-list"),
        pytest.param({"input": [{"role": "user"}]}, "input[0].content", id="no-content"),
        pytest.param({"input": [said("user", "x")]}, "input[0].content[0]", id="part-string"),
        pytest.param({"input": [said("user", {"type": "video"})]}, "input[0].content[0]", id="part-unknown"),
        pytest.param({"input": [said("user", {"type": "input_text"})]}, "input[0].content[0]", id="part-without-text"),
        pytest.param(
            {"input": [said("user", text("a"), {"type": "input_image", "file_id": "file_1"})]},
            "input[0].content[1].file_id",
            id="image-at-openai",
        ),
        pytest.param(
            {"input": [said("user", {"type": "input_image"})]}, "input[0].content[0].image_url", id="image-missing"
        ),
        pytest.param({"input": [said("user", {"type": "input_file"})]}, "input[0].content[0]", id="file-missing"),
        pytest.param({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id", id="call-without-id"),
        pytest.param({"input": [{"type": "function_call", "call_id": "1"}]}, "input[0].name", id="call-without-name"),
        pytest.param({"input": [came("1", 5)]}, "input[0].output", id="output-number"),
        pytest.param({"input": [came("1", [{"type": "x"}])]}, "input[0].output[0]", id="output-part"),
        pytest.param({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]", id="item-reference"),
        pytest.param({"input": [{"type": "compaction", "encrypted_content": "x"}]}, "input[0]", id="compaction"),
        pytest.param({"model": 5}, "model", id="model"),
        pytest.param({"stream": "yes"}, "stream", id="stream"),
        pytest.param({"instructions": ["x"]}, "instructions", id="instructions"),
        pytest.param({"max_output_tokens": 0}, "max_output_tokens", id="limit-zero"),
        pytest.param({"max_output_tokens": 1.5}, "max_output_tokens", id="limit-half"),
        pytest.param({"temperature": True}, "temperature", id="temperature"),
        pytest.param({"tools": {}}, "tools", id="tools"),
        pytest.param({"tools": [5]}, "tools[0]", id="tool"),
        pytest.param({"tool_choice": {"type": "file_search"}}, "tool_choice", id="tool-choice"),
        pytest.param({"include": "x"}, "include", id="include"),
        pytest.param({"text": "x"}, "text", id="text"),
        pytest.param({"text": {"format": {"type": "x"}}}, "text.format", id="format"),
        pytest.param({"text": {"format": {"type": "json_schema"}}}, "text.format.schema", id="no-schema"),
        pytest.param({"text": {"verbosity": 1}}, "text.verbosity", id="verbosity"),
        pytest.param({"reasoning": {"effort": 5}}, "reasoning.effort", id="effort"),
        pytest.param({"reasoning": "high"}, "reasoning", id="reasoning"),
    ],
)
def test_a_refusal_names_the_field(sent, param):
    with pytest.raises(InvalidRequest) as caught:
        asked(**sent)
    assert caught.value.param == param
    assert param in caught.value.message


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="array"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"input":"a"', id="cut"),
        pytest.param(b'{"input":"\xff"}', id="not-utf-8"),
        pytest.param(b'{"input":"\\ud800"}', id="half-a-character"),
        pytest.param(b'{"temperature":1e999,"input":"a"}', id="infinite"),
        pytest.param(b'{"input":' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="deep"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(body):
    with pytest.raises(InvalidRequest):
        read(body)


@pytest.mark.parametrize("depth", [100, 900, 940, 960, 2000])
def test_how_deep_a_body_may_be_is_no_fault_of_ours(depth):
    deep = b"[" * depth + b"]" * depth
    with suppress(InvalidRequest):
        request = read(b'{"input":[{"type":"x_call","call_id":"1","action":%b}],"metadata":%b}' % (deep, deep))
        check(write([MessageStarted(), MessageEnded(Stop.END)], request))


_values = properties.json
_items = st.dictionaries(
    st.sampled_from(
        ["type", "role", "content", "call_id", "name", "arguments", "output", "summary", "encrypted_content"]
    ),
    _values
    | st.just({"a": 1})
    | st.sampled_from(["message", "user", "assistant", "reasoning", "function_call", "function_call_output", "x_call"])
    | st.lists(
        st.dictionaries(st.sampled_from(["type", "text", "image_url"]), st.sampled_from(["input_text", "input_image"]))
    ),
)


@thorough
@given(
    st.lists(_items, max_size=4),
    st.dictionaries(st.sampled_from(["tools", "text", "tool_choice", "reasoning"]), _values),
)
def test_any_json_is_read_or_refused(items, fields):
    with suppress(InvalidRequest):
        read(dumps({"input": items, **fields}))


_SENT = [
    pytest.param(recording.meta["request_body"], id=recording.name)
    for recording in (*STREAMS, *WHOLES)
    if "/responses" in recording.meta["url"] and "input" in (recording.meta["request_body"] or {})
] or [pytest.param(None, id="none", marks=pytest.mark.skip(reason="no recordings beside the repository"))]


@pytest.mark.parametrize("sent", _SENT)
def test_what_real_clients_have_sent_is_read(sent):
    request = read(dumps(sent))
    assert request.turns
    assert request.model == sent["model"]
    assert len(request.tools) == sum(tool["type"] == "function" for tool in sent.get("tools", ()))
