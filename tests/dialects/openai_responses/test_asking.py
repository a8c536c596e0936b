"""A request for a provider that speaks Responses."""

from __future__ import annotations

import json

import pytest

from proxy.dialects.openai_responses.asking import unsaid, write
from proxy.dialects.openai_responses.seals import sign
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
from tests.dialects.openai_responses import asked

HI = Turn(Role.USER, (Text("Hi"),))


def sent(*turns: Turn, model: str = "up", quirks: Quirks | None = None, **fields):
    return json.loads(write(Request("m", turns or (HI,), **fields), model=model, quirks=quirks or Quirks()))


def message(role: str, *content):
    return {"type": "message", "role": role, "content": list(content)}


def text(words: str):
    return {"type": "input_text", "text": words}


def output(words: str):
    return {"type": "output_text", "text": words}


def test_the_least_that_is_asked():
    assert sent() == {
        "model": "up",
        "input": [message("user", text("Hi"))],
        "stream": False,
        "store": False,
        "include": ["reasoning.encrypted_content"],
    }


@pytest.mark.parametrize(
    ("turn", "items"),
    [
        pytest.param(Turn(Role.SYSTEM, (Text("a"),)), [message("system", text("a"))], id="system"),
        pytest.param(
            Turn(Role.USER, (Image("https://e.org/a.png"), Image(data="R0lG", media_type="image/gif", detail="low"))),
            [
                message(
                    "user",
                    {"type": "input_image", "image_url": "https://e.org/a.png", "detail": "auto"},
                    {"type": "input_image", "image_url": "data:image/gif;base64,R0lG", "detail": "low"},
                )
            ],
            id="images",
        ),
        pytest.param(
            Turn(
                Role.USER,
                (
                    Document(file_id="file_1"),
                    Document(url="https://e.org/a.pdf"),
                    Document(data="JVBE", media_type="application/pdf", name="a.pdf"),
                    Document(text="plain"),
                ),
            ),
            [
                message(
                    "user",
                    {"type": "input_file", "file_id": "file_1"},
                    {"type": "input_file", "file_url": "https://e.org/a.pdf"},
                    {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"},
                    text("plain"),
                )
            ],
            id="files",
        ),
        pytest.param(
            Turn(Role.ASSISTANT, (Text("a"), Text(""), Refusal("b"), ToolCall("1", "f", "{}"), Text("c"))),
            [
                message("assistant", output("a"), {"type": "refusal", "refusal": "b"}),
                {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
                message("assistant", output("c")),
            ],
            id="what-a-model-said",
        ),
        pytest.param(
            Turn(Role.ASSISTANT, (ToolCall("1", "f", ""), ToolCall("2", "f", '{"a": "b'))),
            [
                {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
                {"type": "function_call", "call_id": "2", "name": "f", "arguments": '{"a": "b'},
            ],
            id="empty-and-broken-arguments",
        ),
        pytest.param(
            Turn(Role.TOOL, (ToolResult("1", (Text("a"), Text("b"))), ToolResult("2", ()))),
            [
                {"type": "function_call_output", "call_id": "1", "output": "a\n\nb"},
                {"type": "function_call_output", "call_id": "2", "output": ""},
            ],
            id="results",
        ),
        pytest.param(
            Turn(Role.TOOL, (ToolResult("1", (Text("a"), Image("https://e.org/a.png"))),)),
            [
                {
                    "type": "function_call_output",
                    "call_id": "1",
                    "output": [
                        text("a"),
                        {"type": "input_image", "image_url": "https://e.org/a.png", "detail": "auto"},
                    ],
                }
            ],
            id="results-with-images",
        ),
    ],
)
def test_turns_become_items(turn, items):
    assert sent(turn)["input"] == items


def test_the_system_prompt_is_the_instructions():
    assert sent(system=(Text("a"), Text("b")))["instructions"] == "a\n\nb"


def test_a_prompt_alone_is_said_by_somebody():
    """There is no response to instructions alone."""
    body = json.loads(write(Request("m", (), system=(Text("a"),)), model="up", quirks=Quirks()))
    assert body["input"] == [message("user", text("a"))]
    assert "instructions" not in body
    with pytest.raises(InvalidRequest, match="holds no text"):
        write(Request("m", (Turn(Role.USER, ()),)), model="up", quirks=Quirks())


def test_a_turn_without_words_is_left_out():
    assert sent(HI, Turn(Role.ASSISTANT, ()), Turn(Role.USER, ()), HI)["input"] == [message("user", text("Hi"))] * 2


@pytest.mark.parametrize(
    ("document", "name"),
    [
        pytest.param(Document(data="JVBE", media_type="application/pdf"), "file.pdf", id="pdf"),
        pytest.param(Document(data="YSxi", media_type="text/csv"), "file.csv", id="csv"),
        pytest.param(Document(data="JVBE"), "file.pdf", id="unknown"),
        pytest.param(Document(data="JVBE", name="a"), "a", id="named"),
    ],
)
def test_a_file_s_name_tells_what_it_is(document, name):
    assert sent(Turn(Role.USER, (document,)))["input"][0]["content"][0]["filename"] == name


def test_roles_that_a_provider_does_not_know_are_renamed():
    body = sent(Turn(Role.SYSTEM, (Text("a"),)), quirks=Quirks(roles={"system": "developer"}))
    assert body["input"][0]["role"] == "developer"


# Thoughts...


def test_what_a_provider_encrypted_goes_back_to_it():
    thoughts = Thinking("Hm.", sign("gAAA")), Thinking("", sign("gBBB"))
    body = sent(HI, Turn(Role.ASSISTANT, (*thoughts, ToolCall("1", "f"))))
    assert body["input"][1:3] == [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}], "encrypted_content": "gAAA"},
        {"type": "reasoning", "summary": [], "encrypted_content": "gBBB"},
    ]
    assert body["include"] == ["reasoning.encrypted_content"]


@pytest.mark.parametrize(
    "thought",
    [
        pytest.param(Thinking("Hm."), id="unsigned"),
        pytest.param(Thinking("Hm.", "anthropic=="), id="signed-by-another"),
        pytest.param(Thinking(redacted="xyz"), id="hidden-by-another"),
    ],
)
def test_thoughts_of_other_providers_stay_away(thought):
    body = sent(HI, Turn(Role.ASSISTANT, (thought, Text("a"))))
    assert [item["type"] for item in body["input"]] == ["message", "message"]


def test_a_thought_without_what_followed_it_stays_away():
    assert len(sent(HI, Turn(Role.ASSISTANT, (Thinking("Hm.", sign("gAAA")),)))["input"]) == 1
    turn = Turn(Role.ASSISTANT, (Text("a"), Thinking("Hm.", sign("gAAA"))))
    assert [item["type"] for item in sent(HI, turn)["input"]] == ["message", "message"]


@pytest.mark.parametrize(
    ("reasoning", "words"),
    [
        pytest.param(Reasoning("low"), {"effort": "low"}, id="effort"),
        pytest.param(Reasoning("none"), {"effort": "none"}, id="none"),
        pytest.param(Reasoning("max"), {"effort": "xhigh"}, id="max"),
        pytest.param(Reasoning(budget=1000), {"effort": "low"}, id="small-budget"),
        pytest.param(Reasoning(budget=5000), {"effort": "medium"}, id="budget"),
        pytest.param(Reasoning(budget=50000), {"effort": "high"}, id="large-budget"),
        pytest.param(Reasoning("high", shown=True), {"effort": "high", "summary": "auto"}, id="shown"),
        pytest.param(Reasoning(shown=True), {"summary": "auto"}, id="only-shown"),
        pytest.param(Reasoning(budget=0), None, id="off"),
        pytest.param(None, None, id="absent"),
    ],
)
def test_how_much_to_think(reasoning, words):
    body = sent(reasoning=reasoning)
    assert body.get("reasoning") == words
    assert body["include"] == ["reasoning.encrypted_content"]  # models think unasked


@pytest.mark.parametrize(
    ("model", "thinks"),
    [
        pytest.param("gpt-5-codex", True, id="codex"),
        pytest.param("o3-pro", True, id="o"),
        pytest.param("gpt-5.4-nano", True, id="gpt-5"),
        pytest.param("gpt-oss-120b", True, id="open"),
        pytest.param("codex-mini-latest", True, id="codex-mini"),
        pytest.param("openai/gpt-5-codex", True, id="with-its-maker"),
        pytest.param("my-thinker", True, id="anything-else"),
        pytest.param("gpt-4o", False, id="gpt-4o"),
        pytest.param("openai/gpt-4.1-mini", False, id="gpt-4.1-with-its-maker"),
        pytest.param("ft:gpt-4o-mini:org::id", False, id="fine-tuned"),
        pytest.param("gpt-3.5-turbo", False, id="gpt-3.5"),
        pytest.param("gpt-35-turbo", False, id="gpt-3.5-at-azure"),
        pytest.param("gpt-5-chat-latest", False, id="chat-variant"),
        pytest.param("gpt-5.1-chat-latest", False, id="chat-variant-with-a-point"),
        pytest.param("chatgpt-4o-latest", False, id="chatgpt"),
    ],
)
def test_models_that_do_not_think_are_not_told_to(model, thinks):
    """They refuse the words for it, thoughts of earlier turns, and to be asked for what they thought."""
    turn = Turn(Role.ASSISTANT, (Thinking("Hm.", sign("gAAA")), Text("a")))
    body = sent(HI, turn, model=model, reasoning=Reasoning("low"))
    assert ("include" in body, "reasoning" in body) == (thinks, thinks)
    assert [item["type"] for item in body["input"]] == ["message", *["reasoning"] * thinks, "message"]


# Settings...


def test_settings_have_their_own_names_here():
    wanted = ResponseFormat({"maximum": 2**70}, "n", True, "d")
    tool = Tool("f", "does", {"type": "string"}, True)
    body = sent(
        stream=True,
        max_tokens=99,
        temperature=0.0,
        top_p=0.5,
        user="u",
        verbosity="low",
        response_format=wanted,
        tools=(tool, Tool("g")),
        model="gpt-4.1",
        tool_choice=ToolChoice(Choice.NAMED, "f"),
        parallel_tool_calls=False,
    )
    del body["input"]
    assert body == {
        "model": "gpt-4.1",
        "stream": True,
        "store": False,
        "max_output_tokens": 99,
        "temperature": 0.0,
        "top_p": 0.5,
        "user": "u",
        "text": {
            "verbosity": "low",
            "format": {
                "type": "json_schema",
                "name": "n",
                "schema": {"maximum": 2**70},
                "strict": True,
                "description": "d",
            },
        },
        "tools": [
            {"type": "function", "name": "f", "description": "does", "parameters": {"type": "string"}, "strict": True},
            {
                "type": "function",
                "name": "g",
                "description": "",
                "parameters": {"type": "object", "properties": {}},
                "strict": False,
            },
        ],
        "tool_choice": {"type": "function", "name": "f"},
        "parallel_tool_calls": False,
    }


@pytest.mark.parametrize(("wanted", "told"), [(1, 16), (16, 16), (17, 17)])
def test_an_answer_may_be_no_shorter_than_the_provider_has_it(wanted, told):
    assert sent(max_tokens=wanted)["max_output_tokens"] == told


def test_a_name_that_is_too_long_becomes_another_that_stays_the_same():
    """OpenAI takes 64 characters; Claude Code's have more."""
    assert sent(user="u" * 64)["user"] == "u" * 64
    first, again, other = (sent(user=user)["user"] for user in ("u" * 65, "u" * 65, "v" * 65))
    assert len(first) == 64
    assert first == again != other


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        pytest.param(None, {"type": "object", "properties": {}}, id="none"),
        pytest.param({}, {"type": "object", "properties": {}}, id="empty"),
        pytest.param({"type": "object"}, {"type": "object", "properties": {}}, id="as-mcp-servers-have-it"),
        pytest.param(
            {"type": "object", "properties": {"a": {}}}, {"type": "object", "properties": {"a": {}}}, id="whole"
        ),
        pytest.param({"anyOf": [{"type": "object"}]}, {"anyOf": [{"type": "object"}]}, id="something-else"),
    ],
)
def test_an_object_has_properties(schema, told):
    assert sent(tools=(Tool("f", schema=schema),))["tools"][0]["parameters"] == told


@pytest.mark.parametrize("mode", [Choice.AUTO, Choice.NONE, Choice.REQUIRED])
def test_tool_choices(mode):
    assert sent(tools=(Tool("f"),), tool_choice=ToolChoice(mode))["tool_choice"] == mode.value


def test_a_tool_choice_without_tools_is_not_sent():
    assert "tool_choice" not in sent(tool_choice=ToolChoice(Choice.AUTO), parallel_tool_calls=True)


def test_any_json_is_a_format():
    assert sent(response_format=ResponseFormat())["text"] == {"format": {"type": "json_object"}}


def test_what_a_provider_refuses_is_dropped():
    body = sent(temperature=1.0, reasoning=Reasoning("low"), quirks=Quirks(drop=("temperature", "include", "store")))
    assert body.keys() == {"model", "input", "stream", "reasoning"}


def test_ids_that_a_provider_does_not_take_become_others_that_stay_the_same():
    turns = (Turn(Role.ASSISTANT, (ToolCall("functions.f:0", "f"), ToolCall("ok", "f"))),)
    turns += (Turn(Role.TOOL, (ToolResult("functions.f:0"), ToolResult("ok"))),)
    first, second, *outputs = sent(*turns, quirks=Quirks(tool_id="[a-z0-9_]{1,64}"))["input"]
    assert [item["call_id"] for item in outputs] == [first["call_id"], second["call_id"]]
    assert first["call_id"].startswith("call_")
    assert second["call_id"] == "ok"


def test_what_only_this_dialect_has_goes_to_a_provider_that_speaks_it():
    own = {"prompt_cache_key": "k", "metadata": {"a": "b"}, "service_tier": "flex", "truncation": "auto"}
    body = json.loads(write(asked(**own, client_metadata={"x": "y"}), model="up", quirks=Quirks()))
    assert {name: body[name] for name in own} == own
    assert "client_metadata" not in body


# What cannot be said...


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        pytest.param({"answers": 2}, "n", id="answers"),
        pytest.param({"stop": ("x",)}, "stop", id="stop"),
        pytest.param({"logprobs": 0}, "logprobs", id="logprobs"),
    ],
)
def test_what_would_change_the_answer_is_refused(fields, param):
    with pytest.raises(InvalidRequest) as caught:
        sent(**fields)
    assert caught.value.param == param
    assert f"`{param}`" in caught.value.message
    assert "Responses" in caught.value.message


def test_unless_it_is_to_be_left_out():
    assert "stop" not in sent(stop=("x",), quirks=Quirks(drop=("stop",)))


@pytest.mark.parametrize("part", [Audio("x", "wav"), ToolResult("1")])
def test_a_part_that_cannot_be_passed_on_is_refused(part):
    with pytest.raises(InvalidRequest):
        sent(Turn(Role.USER, (part,)))


def test_a_schema_too_deep_to_write_is_refused():
    schema: dict = {}
    for _ in range(20_000):
        schema = {"a": schema}
    with pytest.raises(InvalidRequest, match="too deeply"):
        sent(tools=(Tool("f", schema=schema),))


def test_what_can_be_done_without_is_named():
    turn = Turn(Role.USER, (Text("Hi"),), "bob")
    request = Request("m", (turn,), top_k=5, seed=0, presence_penalty=0.1, frequency_penalty=0.1)
    assert unsaid(request, "m", Quirks()) == ("top_k", "seed", "presence_penalty", "frequency_penalty", "name")
    assert unsaid(Request("m", (HI,)), "m", Quirks()) == ()


def test_what_is_left_out_for_a_model_or_by_the_operator_is_named():
    request = Request("m", (HI,), stop=("x",), reasoning=Reasoning("low"))
    assert unsaid(request, "gpt-4o", Quirks(drop=("stop",))) == ("stop", "reasoning")
    assert unsaid(request, "o3", Quirks(drop=("stop",))) == ("stop",)
