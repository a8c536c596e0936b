"""A session of Codex: what it sends, what it reads of the stream, what it sends back."""

from __future__ import annotations

from typing import Any

from proxy.events import MessageEnded, MessageStarted, Stop, Usage
from proxy.requests import Role, Text, Thinking, ToolCall, ToolResult, Turn
from tests.dialects.openai_responses import asked, block, frames, write
from tests.dialects.openai_responses.grammar import check

TOOLS = [
    {
        "type": "namespace",
        "name": "functions",
        "tools": [
            {
                "type": "custom",
                "name": "apply_patch",
                "format": {"type": "grammar", "syntax": "lark", "definition": "x"},
            },
            {"type": "function", "name": "exec_command", "strict": False, "parameters": {"type": "object"}},
        ],
    },
    {"type": "namespace", "name": "mcp__docs", "tools": [{"type": "function", "name": "search", "parameters": {}}]},
    {"type": "web_search", "external_web_access": True},
]
FIRST = [
    {"type": "additional_tools", "role": "developer", "tools": TOOLS},
    {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "<permissions>"}]},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Fix it."}]},
]

#: Codex reads items by these fields, and skips one that lacks any.
NEEDED: dict[str, dict[str, type]] = {
    "message": {"role": str, "content": list},
    "reasoning": {"summary": list},
    "function_call": {"name": str, "arguments": str, "call_id": str},
    "custom_tool_call": {"name": str, "input": str, "call_id": str},
}


def session(items: list[dict[str, Any]]):
    return asked(
        model="gpt-x",
        instructions="You are Codex.",
        input=items,
        tool_choice="auto",
        parallel_tool_calls=False,
        reasoning={"effort": "medium", "summary": "auto"},
        store=False,
        stream=True,
        include=["reasoning.encrypted_content"],
        prompt_cache_key="0199",
        client_metadata={"x-codex-installation-id": "1"},
    )


def heard(stream: bytes) -> list[dict[str, Any]]:
    """The items that Codex takes out of a stream, as it sends them back: without ids."""
    check(stream)
    told = frames(stream)
    items = [frame["item"] for frame in told if frame["type"] == "response.output_item.done"]
    for item in items:
        assert all(isinstance(item[name], type) for name, type in NEEDED[item["type"]].items())
    last = told[-1]
    assert last["type"] == "response.completed"
    assert last["response"]["id"]
    assert all(isinstance(last["response"]["usage"][n], int) for n in ("input_tokens", "output_tokens", "total_tokens"))
    return [{name: value for name, value in item.items() if name not in ("id", "status")} for item in items]


def test_a_session_over_another_dialects_provider_loses_nothing():
    first = session(FIRST)
    assert [tool.name for tool in first.tools] == ["apply_patch", "exec_command", "mcp__docs__search"]
    assert first.system == (Text("You are Codex."), Text("<permissions>"))
    answer = [
        MessageStarted("msg_1", "claude-x"),
        *block(0, "thinking", "I must look.", signature="sig=="),
        *block(1, "text", "I look."),
        *block(2, "tool_call", '{"cmd": "ls"}', id="toolu_1", name="exec_command"),
        *block(3, "tool_call", '{"q": "x"}', id="toolu_2", name="mcp__docs__search"),
        *block(4, "tool_call", '{"input": "*** Begin Patch\\n"}', id="toolu_3", name="apply_patch"),
        MessageEnded(Stop.TOOL_CALLS, Usage(10, 5)),
    ]
    items = heard(write(answer, first))
    calls = [(i["type"], i.get("namespace"), i["name"]) for i in items if "call_id" in i]
    assert calls == [
        ("function_call", "functions", "exec_command"),
        ("function_call", "mcp__docs", "search"),
        ("custom_tool_call", "functions", "apply_patch"),
    ]
    outputs = [
        {"type": "function_call_output", "call_id": "toolu_1", "output": "a.txt"},
        {"type": "function_call_output", "call_id": "toolu_2", "output": [{"type": "input_text", "text": "found"}]},
        {"type": "custom_tool_call_output", "call_id": "toolu_3", "output": "Done!"},
    ]
    second = session([*FIRST, *items, *outputs])
    assert second.turns[1:] == (
        Turn(
            Role.ASSISTANT,
            (
                Thinking("I must look.", "sig=="),
                Text("I look."),
                ToolCall("toolu_1", "exec_command", '{"cmd": "ls"}'),
                ToolCall("toolu_2", "mcp__docs__search", '{"q": "x"}'),
                ToolCall("toolu_3", "apply_patch", '{"input":"*** Begin Patch\\n"}'),
            ),
        ),
        Turn(
            Role.TOOL,
            (
                ToolResult("toolu_1", (Text("a.txt"),), "exec_command"),
                ToolResult("toolu_2", (Text("found"),), "mcp__docs__search"),
                ToolResult("toolu_3", (Text("Done!"),), "apply_patch"),
            ),
        ),
    )
    assert second.tools == first.tools
