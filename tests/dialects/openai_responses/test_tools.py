"""Tools of this dialect as functions, and back."""

from __future__ import annotations

import pytest

from proxy.dialects.openai_responses.tools import Named, flatten, read_choice, read_tools
from proxy.errors import InvalidRequest
from proxy.requests import Choice, Tool, ToolChoice


def function(name: str, **fields):
    return {"type": "function", "name": name, **fields}


def test_a_function_is_one():
    schema = {"type": "object", "properties": {}}
    box = read_tools(
        [function("f", description="does", parameters=schema, strict=True), function("g", parameters=None)]
    )
    assert box.tools == [Tool("f", "does", schema, True), Tool("g")]
    assert (box.named("f"), box.flat("f")) == (Named("f"), "f")


def test_a_custom_tool_takes_its_text_as_one_argument_and_says_its_grammar():
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: patch"}
    box = read_tools([{"type": "custom", "name": "apply_patch", "description": "Edit.", "format": grammar}])
    (tool,) = box.tools
    assert (tool.name, tool.description, tool.schema["required"]) == ("apply_patch", "Edit.", ["input"])
    assert "lark grammar:\nstart: patch" in tool.schema["properties"]["input"]["description"]
    assert box.named("apply_patch") == Named("apply_patch", custom=True)


def test_a_namespace_is_flattened_and_found_again():
    tools = [
        {"type": "namespace", "name": "mcp__docs__", "tools": [function("search"), function("_get")]},
        {"type": "namespace", "name": "functions", "tools": [{"type": "custom", "name": "exec"}, function("wait")]},
        function("search"),
    ]
    box = read_tools(tools)
    assert [tool.name for tool in box.tools] == ["mcp__docs__search", "mcp__docs__get", "exec", "wait", "search"]
    assert box.named("mcp__docs__get") == Named("_get", "mcp__docs__")
    assert box.named("exec") == Named("exec", "functions", custom=True)
    assert box.named("search") == Named("search")
    assert box.flat("search", "mcp__docs__") == "mcp__docs__search"
    assert box.flat("_get", "mcp__docs__") == "mcp__docs__get"


def test_a_model_that_forgets_the_namespace_is_understood_where_only_one_can_be_meant():
    def namespaces(*names: str):
        return read_tools([{"type": "namespace", "name": name, "tools": [function("go")]} for name in names])

    assert namespaces("a").named("go") == Named("go", "a")
    assert namespaces("a", "b").named("go") == Named("go")
    assert namespaces("a").named("unheard") == Named("unheard")


def test_names_are_what_every_provider_takes_and_never_the_same():
    long = "a" * 60
    assert len(flatten("tool_of_a_long_name", long)) == 64
    assert flatten("x" * 30, long) != flatten("x" * 31, long)
    assert flatten("get.it", "my server") == "my_server__get_it"
    box = read_tools(
        [function("f"), {"type": "namespace", "name": "functions", "tools": [function("f")]}, function("f")]
    )
    assert [tool.name for tool in box.tools] == ["f", "f_2", "f_3"]
    assert box.named("f_2") == Named("f", "functions")
    assert box.flat("f", "functions") == "f_2"


def test_tools_that_openai_runs_are_left_out_and_named():
    box = read_tools([{"type": "web_search"}, {"type": "mcp", "server_label": "x"}, {"type": "local_shell"}])
    assert (box.tools, box.dropped) == ([], ["tools.web_search", "tools.mcp", "tools.local_shell"])


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        pytest.param("f", "tools[0]", id="no-object"),
        pytest.param({"name": "f"}, "tools[0]", id="no-type"),
        pytest.param({"type": "function"}, "tools[0].name", id="no-name"),
        pytest.param({"type": "function", "function": {"name": "f"}}, "tools[0].name", id="as-in-chat"),
        pytest.param(function("f", parameters=[]), "tools[0].parameters", id="no-schema"),
        pytest.param({"type": "namespace", "name": "n"}, "tools[0].tools", id="empty-namespace"),
        pytest.param({"type": "namespace", "name": "n", "tools": [function(5)]}, "tools[0].tools[0].name", id="inside"),
    ],
)
def test_a_broken_tool_is_named(tool, param):
    with pytest.raises(InvalidRequest) as caught:
        read_tools([tool])
    assert caught.value.param == param


BOX = [function("f"), {"type": "custom", "name": "c"}, {"type": "namespace", "name": "n", "tools": [function("g")]}]


@pytest.mark.parametrize(
    ("sent", "choice", "left"),
    [
        pytest.param(None, None, 3, id="absent"),
        pytest.param("auto", ToolChoice(Choice.AUTO), 3, id="auto"),
        pytest.param("none", ToolChoice(Choice.NONE), 3, id="none"),
        pytest.param("required", ToolChoice(Choice.REQUIRED), 3, id="required"),
        pytest.param(function("f"), ToolChoice(Choice.NAMED, "f"), 3, id="function"),
        pytest.param({"type": "custom", "name": "c"}, ToolChoice(Choice.NAMED, "c"), 3, id="custom"),
        pytest.param(function("g", namespace="n"), ToolChoice(Choice.NAMED, "n__g"), 3, id="namespace"),
        pytest.param(
            {"type": "allowed_tools", "mode": "required", "tools": [function("f"), {"type": "web_search"}]},
            ToolChoice(Choice.REQUIRED),
            1,
            id="allowed",
        ),
    ],
)
def test_tool_choices(sent, choice, left):
    read, tools = read_choice(sent, read_tools(BOX))
    assert (read, len(tools)) == (choice, left)


@pytest.mark.parametrize("sent", ["some", 5, {}, {"type": "web_search"}, {"type": "allowed_tools", "mode": "x"}])
def test_a_choice_that_cannot_be_honoured_is_refused(sent):
    with pytest.raises(InvalidRequest) as caught:
        read_choice(sent, read_tools(BOX))
    assert caught.value.param == "tool_choice"
