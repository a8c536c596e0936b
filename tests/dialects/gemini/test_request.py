"""A client's body becomes a request."""

from __future__ import annotations

import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.gemini.request import MODES, read, read_count
from proxy.errors import InvalidRequest
from proxy.requests import (
    Audio,
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
from tests.properties import json, thorough
from tests.recordings import STREAMS, WHOLES

RECORDED = [
    r for r in (*STREAMS, *WHOLES) if r.provider == "gemini" and "contents" in (r.meta.get("request_body") or {})
]

HI = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}


def reading(body: Any, **more: Any) -> Request:
    return read(orjson.dumps(body), **more)


def with_hi(**more: Any) -> Request:
    return reading({**HI, **more})


def turns(*contents: dict[str, Any]) -> list[tuple[Role, tuple[Any, ...]]]:
    return [(turn.role, turn.parts) for turn in reading({"contents": list(contents)}).turns]


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "parts": list(parts)}


def model(*parts: Any) -> dict[str, Any]:
    return {"role": "model", "parts": list(parts)}


def called(name: str, args: Any = None, **more: Any) -> dict[str, Any]:
    return {"functionCall": {"name": name, "args": args or {}, **more}}


def answered(name: str, response: Any, **more: Any) -> dict[str, Any]:
    return {"functionResponse": {"name": name, "response": response, **more}}


# The conversation...


def test_a_conversation():
    request = reading(
        {"systemInstruction": {"parts": [{"text": "Be brief"}]}, **HI}, model="models/gemini-2.5-flash", stream=True
    )
    assert request == Request(
        model="gemini-2.5-flash",
        turns=(Turn(Role.USER, (Text("hi"),)),),
        system=(Text("Be brief"),),
        stream=True,
        include_usage=True,
    )


@pytest.mark.parametrize(
    ("body", "system"),
    [
        pytest.param({"system_instruction": {"parts": [{"text": "a"}]}}, ("a",), id="snake-case"),
        pytest.param({"systemInstruction": {"role": "user", "parts": {"text": "a"}}}, ("a",), id="one-part"),
        pytest.param(
            {"systemInstruction": {"parts": [{"text": "a"}, {"text": ""}, {"text": "b"}]}}, ("a", "b"), id="many"
        ),
        pytest.param({"systemInstruction": None}, (), id="null"),
    ],
)
def test_system_instructions(body, system):
    assert tuple(text.text for text in with_hi(**body).system) == system


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        pytest.param([{"parts": [{"text": "hi"}]}], [(Role.USER, (Text("hi"),))], id="no-role-is-the-user"),
        pytest.param([{"parts": {"text": "hi"}}], [(Role.USER, (Text("hi"),))], id="one-part"),
        pytest.param(
            [user({"text": "a"}, {"text": "b"})], [(Role.USER, (Text("a"), Text("b")))], id="parts-of-the-user-stay"
        ),
        pytest.param(
            [model({"text": "a"}, {"text": "b"}), model({"text": "c"})],
            [(Role.ASSISTANT, (Text("abc"),))],
            id="chunks-of-a-streamed-answer-are-one-turn",
        ),
        pytest.param(
            [
                model(
                    {"text": "h", "thought": True},
                    {"text": "m", "thought": True},
                    {"text": "", "thought": True, "thoughtSignature": "AAAA"},
                    {"text": "so"},
                )
            ],
            [(Role.ASSISTANT, (Thinking("hm", "AAAA"), Text("so")))],
            id="thoughts-are-put-together-with-their-seal",
        ),
        pytest.param(
            [model({"text": "a", "thought": True, "thoughtSignature": "A"}, {"text": "b", "thought": True})],
            [(Role.ASSISTANT, (Thinking("a", "A"), Thinking("b")))],
            id="a-seal-ends-a-thought",
        ),
        pytest.param(
            [user({"text": ""}), user({"text": "x"})], [(Role.USER, (Text("x"),))], id="empty-texts-say-nothing"
        ),
        pytest.param(
            [user({"inlineData": {"mimeType": "image/png", "data": "QUJD"}})],
            [(Role.USER, (Image(data="QUJD", media_type="image/png"),))],
            id="image",
        ),
        pytest.param(
            [user({"inline_data": {"mime_type": "audio/mpeg", "data": "QUJD"}})],
            [(Role.USER, (Audio("QUJD", "mp3"),))],
            id="audio-in-snake-case",
        ),
        pytest.param(
            [user({"inlineData": {"mimeType": "application/pdf", "data": "QUJD", "displayName": "a.pdf"}})],
            [(Role.USER, (Document(data="QUJD", media_type="application/pdf", name="a.pdf"),))],
            id="document",
        ),
        pytest.param(
            [user({"fileData": {"mimeType": "image/png", "fileUri": "https://a.example/a.png"}})],
            [(Role.USER, (Image(url="https://a.example/a.png", media_type="image/png"),))],
            id="image-elsewhere",
        ),
        pytest.param(
            [user({"fileData": {"fileUri": "https://a.example/a"}})],
            [(Role.USER, (Document(url="https://a.example/a"),))],
            id="file-elsewhere",
        ),
        pytest.param(
            [model({"executableCode": {"language": "PYTHON", "code": "1"}}, {"codeExecutionResult": {"output": "1"}})],
            [(Role.ASSISTANT, (Text("```python\n1\n``````\n1\n```"),))],
            id="code-is-told-as-text",
        ),
    ],
)
def test_contents(contents, expected):
    assert turns(*contents) == expected


# Calls and results...


def ids(*contents: dict[str, Any]) -> list[tuple[str, str]]:
    """Calls and results, by id."""
    return [
        (part.id, part.name)
        for _, parts in turns(*contents)
        for part in parts
        if isinstance(part, ToolCall | ToolResult)
    ]


def test_a_call_and_its_result():
    assert turns(
        model({**called("f", {"a": 1}), "thoughtSignature": "AAAA"}),
        user(answered("f", {"output": "2"}), {"text": "so?"}),
    ) == [
        (Role.ASSISTANT, (ToolCall("call_000000001", "f", '{"a":1}', "AAAA"),)),
        (Role.TOOL, (ToolResult("call_000000001", (Text("2"),), "f"),)),
        (Role.USER, (Text("so?"),)),
    ]


ONE, TWO, THREE = "call_000000001", "call_000000002", "call_000000003"


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        pytest.param(
            [model(called("f"), called("g")), user(answered("g", {}), answered("f", {}))],
            [(ONE, "f"), (TWO, "g"), (TWO, "g"), (ONE, "f")],
            id="by-name",
        ),
        pytest.param(
            [model(called("f"), called("f")), user(answered("f", {}), answered("f", {}))],
            [(ONE, "f"), (TWO, "f"), (ONE, "f"), (TWO, "f")],
            id="by-order",
        ),
        pytest.param(
            [model(called("f")), user(answered("f", {})), model(called("f")), user(answered("f", {}))],
            [(ONE, "f"), (ONE, "f"), (TWO, "f"), (TWO, "f")],
            id="unique-over-the-conversation",
        ),
        pytest.param(
            [
                model(called("f", id="x"), called("f", id="y")),
                user(answered("f", {}, id="y"), answered("f", {}, id="x")),
            ],
            [("x", "f"), ("y", "f"), ("y", "f"), ("x", "f")],
            id="by-id",
        ),
        pytest.param(
            [model(called("f", id="x"), called("f", id="x")), user(answered("f", {}, id="x"), answered("f", {}))],
            [("x", "f"), (ONE, "f"), ("x", "f"), (ONE, "f")],
            id="ids-that-are-not-unique",
        ),
        pytest.param(
            [model(called("f")), user(answered("f", {}, id="of the client"))],
            [(ONE, "f"), (ONE, "f")],
            id="an-id-that-no-call-has",
        ),
        pytest.param([user(answered("f", {}))], [(ONE, "f")], id="a-result-without-a-call"),
        pytest.param(
            [model(called("f", id=ONE), called("g")), user(answered("g", {}))],
            [(ONE, "f"), (TWO, "g"), (TWO, "g")],
            id="made-up-ids-avoid-given-ones",
        ),
        pytest.param(
            [{"role": "model", "parts": [called("f")]}, {"role": "function", "parts": [answered("f", {})]}],
            [(ONE, "f"), (ONE, "f")],
            id="the-old-role",
        ),
    ],
)
def test_results_find_their_calls(contents, expected):
    assert ids(*contents) == expected


@pytest.mark.parametrize(
    ("response", "said", "error"),
    [
        pytest.param({"output": "x"}, "x", False, id="output"),
        pytest.param({"result": "x"}, "x", False, id="result"),
        pytest.param({"error": "x"}, "x", True, id="error"),
        pytest.param({"output": {"a": 1}}, '{"output":{"a":1}}', False, id="not-text"),
        pytest.param({"error": {"a": 1}}, '{"error":{"a":1}}', True, id="error-object"),
        pytest.param({"output": "x", "b": 1}, '{"output":"x","b":1}', False, id="one-of-many"),
        pytest.param({}, "{}", False, id="empty"),
        pytest.param(None, "{}", False, id="null"),
    ],
)
def test_results(response, said, error):
    (_, (result,)) = turns(user(answered("f", response)))[0]
    assert (result.parts, result.error) == ((Text(said),), error)


def test_pictures_in_a_result():
    picture = {"inlineData": {"mimeType": "image/png", "data": "QUJD"}}
    (_, (result,)) = turns(user(answered("f", {"output": "see"}, parts=[picture])))[0]
    assert result.parts == (Text("see"), Image(data="QUJD", media_type="image/png"))


# Tools...


def test_functions():
    request = with_hi(
        tools=[
            {"functionDeclarations": [{"name": "f", "description": "d", "parameters": {"type": "OBJECT"}}]},
            {"function_declarations": {"name": "g", "parameters_json_schema": {"type": "object", "$defs": {}}}},
        ]
    )
    assert request.tools == (
        Tool("f", "d", {"type": "object"}),
        Tool("g", schema={"type": "object", "$defs": {}}),
    )


DECLARED = {"tools": [{"functionDeclarations": [{"name": "f"}, {"name": "g"}, {"name": "h"}]}]}


@pytest.mark.parametrize(
    ("config", "choice", "names"),
    [
        pytest.param(None, None, "fgh", id="none"),
        pytest.param({}, None, "fgh", id="empty"),
        pytest.param({"mode": "MODE_UNSPECIFIED"}, None, "fgh", id="unspecified"),
        pytest.param({"mode": "any"}, ToolChoice(Choice.REQUIRED), "fgh", id="lower-case"),
        *(pytest.param({"mode": word}, ToolChoice(mode), "fgh", id=word.lower()) for word, mode in MODES.items()),
        pytest.param(
            {"mode": "ANY", "allowedFunctionNames": ["g"]}, ToolChoice(Choice.NAMED, "g"), "fgh", id="any-of-one"
        ),
        pytest.param(
            {"mode": "ANY", "allowed_function_names": ["g", "h"]}, ToolChoice(Choice.REQUIRED), "gh", id="any-of-some"
        ),
        pytest.param(
            {"mode": "VALIDATED", "allowedFunctionNames": ["g"]}, ToolChoice(Choice.AUTO), "g", id="validated-of-some"
        ),
    ],
)
def test_tool_choice(config, choice, names):
    request = with_hi(**DECLARED, toolConfig={"functionCallingConfig": config})
    assert request.tool_choice == choice
    assert "".join(tool.name for tool in request.tools) == names


# Settings...


def test_settings():
    request = with_hi(
        generationConfig={
            "maxOutputTokens": 64,
            "temperature": 0.5,
            "topP": 0.9,
            "topK": 40.0,
            "stopSequences": ["X"],
            "seed": 7,
            "presencePenalty": 0.1,
            "frequencyPenalty": 0.2,
            "candidateCount": 2,
            "responseLogprobs": True,
            "logprobs": 3,
        }
    )
    assert (request.max_tokens, request.temperature, request.top_p, request.top_k) == (64, 0.5, 0.9, 40)
    assert (request.stop, request.seed, request.answers, request.logprobs) == (("X",), 7, 2, 3)
    assert (request.presence_penalty, request.frequency_penalty) == (0.1, 0.2)
    assert request.dropped == ()
    assert isinstance(request.top_k, int)


def test_settings_in_snake_case():
    assert with_hi(generation_config={"max_output_tokens": 5, "top_p": 1}).max_tokens == 5


@pytest.mark.parametrize(
    ("config", "format"),
    [
        pytest.param({}, None, id="none"),
        pytest.param({"responseMimeType": "text/plain"}, None, id="text"),
        pytest.param({"responseMimeType": "application/json"}, ResponseFormat(), id="any-json"),
        pytest.param(
            {"responseMimeType": "application/json", "responseSchema": {"type": "STRING"}},
            ResponseFormat({"type": "string"}),
            id="openapi-schema",
        ),
        pytest.param(
            {"responseMimeType": "application/json", "responseJsonSchema": {"type": "string", "const": "TYPE"}},
            ResponseFormat({"type": "string", "const": "TYPE"}),
            id="json-schema",
        ),
    ],
)
def test_response_format(config, format):
    assert with_hi(generationConfig=config).response_format == format


@pytest.mark.parametrize(
    ("config", "reasoning"),
    [
        pytest.param({"thinkingLevel": "HIGH"}, Reasoning("high"), id="level"),
        pytest.param({"thinkingLevel": "THINKING_LEVEL_UNSPECIFIED"}, Reasoning(), id="unspecified"),
        pytest.param({"thinkingBudget": 0}, Reasoning(budget=0), id="off"),
        pytest.param({"thinkingBudget": -1, "includeThoughts": True}, Reasoning(shown=True), id="dynamic-and-shown"),
        pytest.param({"thinking_budget": 512, "include_thoughts": False}, Reasoning("", 512, False), id="snake-case"),
    ],
)
def test_reasoning(config, reasoning):
    assert with_hi(generationConfig={"thinkingConfig": config}).reasoning == reasoning


def test_what_only_this_dialect_knows_rides_along():
    safety = [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]
    request = reading(
        {
            "contents": [
                user({"text": "hi", "videoMetadata": {"fps": 1}}),
                model({"text": "ho", "thoughtSignature": "AAAA"}, {"toolCall": {}}),
            ],
            "safetySettings": safety,
            "cachedContent": None,
            "tools": [{"googleSearch": {}}, {"functionDeclarations": [{"name": "f"}], "codeExecution": {}}],
            "toolConfig": {"retrievalConfig": {"languageCode": "de"}},
            "generationConfig": {"speechConfig": {}, "responseMimeType": "text/x.enum"},
        }
    )
    assert request.extras == {
        "gemini": {
            "safetySettings": safety,
            "tools": [{"googleSearch": {}}, {"codeExecution": {}}],
            "toolConfig": {"retrievalConfig": {"languageCode": "de"}},
            "generationConfig": {"speechConfig": {}},
        }
    }
    assert set(request.dropped) == {
        "safetySettings",
        "tools.googleSearch",
        "tools.codeExecution",
        "toolConfig.retrievalConfig",
        "generationConfig.speechConfig",
        "generationConfig.responseMimeType",
        "contents.parts.videoMetadata",
        "contents.parts.thoughtSignature",
        "contents.parts.toolCall",
    }


def test_a_count_of_a_whole_request():
    assert read_count(orjson.dumps({"generateContentRequest": {"model": "models/m", **HI}})).model == "m"
    assert read_count(orjson.dumps(HI), model="m").turns == reading(HI).turns


# What is wrong with it...


def deep(levels: int) -> bytes:
    return b'{"contents":' + b"[" * levels + b"]" * levels + b"}"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b"", "the body is empty", id="empty"),
        pytest.param(b"{", "not JSON", id="cut"),
        pytest.param(b'{"a":"\xff"}', "not UTF-8", id="not-utf-8"),
        pytest.param(b"[]", "must be a JSON object", id="list"),
        pytest.param(deep(5000), "nested too deeply", id="deep"),
    ],
)
def test_bodies_that_are_none(body, message):
    with pytest.raises(InvalidRequest, match=message):
        read(body)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        pytest.param({}, "contents", id="missing"),
        pytest.param({"contents": []}, "contents", id="empty"),
        pytest.param({"contents": [{"role": "user"}]}, "contents", id="says-nothing"),
        pytest.param({"contents": "hi"}, "contents", id="text"),
        pytest.param({"contents": ["hi"]}, "contents[0]", id="texts"),
        pytest.param({"contents": [{"role": "system", "parts": []}]}, "contents[0].role", id="role"),
        pytest.param({"contents": [{"role": 1}]}, "contents[0].role", id="role-number"),
        pytest.param({"contents": [user({"text": 1})]}, "contents[0].parts[0].text", id="text-number"),
        pytest.param({"contents": [user("hi")]}, "contents[0].parts[0]", id="part-text"),
        pytest.param({"contents": [user({"inlineData": {}})]}, "contents[0].parts[0].inlineData.data", id="no-data"),
        pytest.param(
            {"contents": [user({"inline_data": {"data": 1}})]}, "contents[0].parts[0].inline_data.data", id="own-words"
        ),
        pytest.param({"contents": [user({"fileData": {}})]}, "contents[0].parts[0].fileData.fileUri", id="no-uri"),
        pytest.param(
            {"contents": [model({"functionCall": {}})]}, "contents[0].parts[0].functionCall.name", id="no-name"
        ),
        pytest.param(
            {"contents": [model({"functionCall": {"name": "f", "args": []}})]},
            "contents[0].parts[0].functionCall.args",
            id="args-list",
        ),
        pytest.param({"contents": [user(called("f"))]}, "contents[0].parts[0]", id="the-user-calls"),
        pytest.param(
            {"contents": [user(answered("f", "x"))]}, "contents[0].parts[0].functionResponse.response", id="result"
        ),
        pytest.param(
            {"contents": [user(answered("f", {}, parts=[called("g")]))]},
            "contents[0].parts[0].functionResponse.parts[0]",
            id="a-call-in-a-result",
        ),
        pytest.param({**HI, "systemInstruction": "x"}, "systemInstruction", id="system"),
        pytest.param(
            {**HI, "tools": [{"functionDeclarations": [{}]}]}, "tools[0].functionDeclarations[0].name", id="tool"
        ),
        pytest.param(
            {**HI, "tools": [{"functionDeclarations": [{"name": "f", "parameters": 1}]}]},
            "tools[0].functionDeclarations[0].parameters",
            id="schema",
        ),
        pytest.param(
            {**HI, "toolConfig": {"functionCallingConfig": {"mode": "MAYBE"}}},
            "toolConfig.functionCallingConfig.mode",
            id="mode",
        ),
        pytest.param({**HI, "generationConfig": []}, "generationConfig", id="config"),
        pytest.param({**HI, "generationConfig": {"temperature": "hot"}}, "generationConfig.temperature", id="number"),
        pytest.param({**HI, "generationConfig": {"topK": 1.5}}, "generationConfig.topK", id="whole-number"),
        pytest.param({**HI, "generationConfig": {"seed": True}}, "generationConfig.seed", id="flag-for-number"),
        pytest.param(
            {**HI, "generationConfig": {"stopSequences": "X"}}, "generationConfig.stopSequences", id="text-for-texts"
        ),
        pytest.param(
            {**HI, "generationConfig": {"responseSchema": "X"}}, "generationConfig.responseSchema", id="answer-schema"
        ),
        pytest.param(
            {**HI, "generationConfig": {"thinkingConfig": {"includeThoughts": 1}}},
            "generationConfig.thinkingConfig.includeThoughts",
            id="number-for-flag",
        ),
    ],
)  # fmt: skip
def test_faults_name_the_field_in_the_clients_words(body, param):
    with pytest.raises(InvalidRequest) as failed:
        reading(body)
    assert failed.value.param == param
    assert f"`{param.split('[')[0]}" in failed.value.message


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(
            b'{"contents":[],"tools":[{"functionDeclarations":[{"name":"f","parameters":%b}]}]}'
            % (b'{"items":' * 900 + b"1" + b"}" * 900),
            id="schema",
        ),
        pytest.param(
            b'{"contents":[{"role":"model","parts":[{"functionCall":{"name":"f","args":%b}}]}]}'
            % (b'{"a":' * 400 + b"1" + b"}" * 400),
            id="arguments",
        ),
    ],
)
def test_what_is_nested_too_deeply_is_refused(body):
    with pytest.raises(InvalidRequest):
        read(body)


# Recorded and odd ones...


@pytest.mark.skipif(not RECORDED, reason="no recordings beside the repository")
@pytest.mark.parametrize("recording", [pytest.param(r, id=r.name) for r in RECORDED])
def test_recorded_requests_are_read(recording):
    body = recording.meta["request_body"]
    request = reading(body)
    said = [part for content in body["contents"] for part in content["parts"]]
    parts = [part for turn in request.turns for part in turn.parts]
    assert len([part for part in parts if isinstance(part, ToolCall)]) == sum("functionCall" in part for part in said)
    assert len([part for part in parts if isinstance(part, ToolResult)]) == sum("functionResponse" in p for p in said)
    texts = "".join(part["text"] for part in said if "text" in part and not part.get("thought"))
    assert "".join(part.text for part in parts if isinstance(part, Text)) == texts
    calls = {part.id for part in parts if isinstance(part, ToolCall)}
    assert {part.id for part in parts if isinstance(part, ToolResult)} <= calls


WORDS = """
contents parts role text systemInstruction tools functionDeclarations name parameters toolConfig functionCall args
functionResponse response inlineData generationConfig thinkingConfig
"""
NAMES = st.sampled_from(WORDS.split())


@given(
    st.recursive(
        json, lambda inner: st.dictionaries(NAMES, inner | st.lists(inner, max_size=2), max_size=4), max_leaves=20
    )
)
@thorough
def test_any_json_is_read_or_refused(body):
    with contextlib.suppress(InvalidRequest):
        assert reading(body).turns
