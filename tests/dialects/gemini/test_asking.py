"""A request becomes a body for Google."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from proxy.dialects.gemini.asking import MODE, unsaid, write
from proxy.dialects.gemini.request import read
from proxy.dialects.gemini.turns import NO_SIGNATURE
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
from tests.recordings import STREAMS, WHOLES

RECORDED = [
    r for r in (*STREAMS, *WHOLES) if r.provider == "gemini" and "contents" in (r.meta.get("request_body") or {})
]

OLD, NEW, PRO = "gemini-2.5-flash", "gemini-3-flash-preview", "gemini-3.1-pro-preview"
HI = Request(model=None, turns=(Turn(Role.USER, (Text("hi"),)),))


def written(request: Request, model: str = OLD, quirks: Quirks | None = None) -> Any:
    return orjson.loads(write(request, model=model, quirks=quirks or Quirks()))


def contents(*turns: Turn, model: str = OLD) -> list[dict[str, Any]]:
    return written(Request(model=None, turns=turns), model)["contents"]


def part(part: Any) -> Any:
    return contents(Turn(Role.USER, (part,)))[0]["parts"][0]


def user(*parts: Any) -> Turn:
    return Turn(Role.USER, parts)


def assistant(*parts: Any) -> Turn:
    return Turn(Role.ASSISTANT, parts)


def results(*parts: Any) -> Turn:
    return Turn(Role.TOOL, parts)


def result(id: str, text: str, **more: Any) -> ToolResult:
    return ToolResult(id, (Text(text),), **more)


# The conversation...


def test_the_smallest():
    assert written(HI) == {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}


def test_system():
    request = replace(HI, system=(Text("a"), Text("")), turns=(Turn(Role.SYSTEM, (Text("b"),)), *HI.turns))
    assert written(request) == {
        "systemInstruction": {"parts": [{"text": "a"}, {"text": "b"}]},
        "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
    }


def test_a_system_alone_is_the_question():
    assert written(Request(model=None, turns=(), system=(Text("a"),))) == {
        "contents": [{"role": "user", "parts": [{"text": "a"}]}]
    }


def test_one_speakers_turns_are_one_content():
    assert contents(user(Text("a")), user(Text("b")), assistant(Text("c")), assistant(Refusal("d"), Text(""))) == [
        {"role": "user", "parts": [{"text": "a"}, {"text": "b"}]},
        {"role": "model", "parts": [{"text": "c"}, {"text": "d"}]},
    ]


def test_thoughts_stay_behind():
    said = contents(
        user(Text("a")), assistant(Thinking("hm", "sealed by another")), assistant(Thinking("x"), Text("b"))
    )
    assert said[1:] == [{"role": "model", "parts": [{"text": "b"}]}]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        pytest.param(
            Image(data="QUJD", media_type="image/png"),
            {"inlineData": {"mimeType": "image/png", "data": "QUJD"}},
            id="data",
        ),
        pytest.param(
            Image("data:image/webp;base64,QUJD"),
            {"inlineData": {"mimeType": "image/webp", "data": "QUJD"}},
            id="data-url",
        ),
        pytest.param(
            Image("data:;base64,QUJD"),
            {"inlineData": {"mimeType": "image/jpeg", "data": "QUJD"}},
            id="data-url-of-no-type",
        ),
        pytest.param(
            Image("data:image/svg+xml,%3Csvg%3E"),
            {"inlineData": {"mimeType": "image/svg+xml", "data": "PHN2Zz4="}},
            id="data-url-of-text",
        ),
        pytest.param(
            Image("https://a.example/b.PNG?c=d.gif"),
            {"fileData": {"mimeType": "image/png", "fileUri": "https://a.example/b.PNG?c=d.gif"}},
            id="url",
        ),
        pytest.param(
            Image("https://a.example/b"),
            {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://a.example/b"}},
            id="url-of-no-type",
        ),
        pytest.param(Audio("QUJD", "mp3"), {"inlineData": {"mimeType": "audio/mp3", "data": "QUJD"}}, id="audio"),
        pytest.param(
            Document(data="QUJD", media_type="text/csv"),
            {"inlineData": {"mimeType": "text/csv", "data": "QUJD"}},
            id="file",
        ),
        pytest.param(Document(data="QUJD"), {"inlineData": {"mimeType": "application/pdf", "data": "QUJD"}}, id="pdf"),
        pytest.param(Document(text="abc"), {"text": "abc"}, id="plain-text"),
        pytest.param(
            Document(url="https://a.example/b"),
            {"fileData": {"mimeType": "application/pdf", "fileUri": "https://a.example/b"}},
            id="file-elsewhere",
        ),
    ],
)
def test_media(shown, expected):
    assert part(shown) == expected


@pytest.mark.parametrize(
    ("shown", "param"), [(Document(file_id="file-1"), "file_id"), (Image("data:image/png"), "url")], ids=["file", "url"]
)
def test_what_cannot_be_shown_is_refused(shown, param):
    with pytest.raises(InvalidRequest) as failed:
        part(shown)
    assert failed.value.param == param


# Calls and results...


def test_results_are_one_content_in_the_order_of_the_calls():
    said = contents(
        user(Text("a")),
        assistant(Text("b"), ToolCall("1", "f", '{"x":1}'), ToolCall("2", "g")),
        results(result("2", "two")),
        results(result("1", '{"one":1}')),
        user(Text("c")),
    )
    assert said[1:] == [
        {
            "role": "model",
            "parts": [
                {"text": "b"},
                {"functionCall": {"id": "1", "name": "f", "args": {"x": 1}}},
                {"functionCall": {"id": "2", "name": "g", "args": {}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "1", "name": "f", "response": {"one": 1}}},
                {"functionResponse": {"id": "2", "name": "g", "response": {"output": "two"}}},
            ],
        },
        {"role": "user", "parts": [{"text": "c"}]},
    ]


@pytest.mark.parametrize(
    ("told", "response"),
    [
        pytest.param(result("1", "x"), {"output": "x"}, id="text"),
        pytest.param(result("1", "[1]"), {"output": "[1]"}, id="a-list-is-no-object"),
        pytest.param(result("1", "7"), {"output": "7"}, id="a-number-is-no-object"),
        pytest.param(result("1", '{"a":1}'), {"a": 1}, id="an-object-is-one"),
        pytest.param(result("1", "x", error=True), {"error": "x"}, id="error"),
        pytest.param(ToolResult("1"), {"output": ""}, id="nothing"),
    ],
)
def test_a_response_is_an_object(told, response):
    said = contents(assistant(ToolCall("1", "f")), results(told))
    assert said[1]["parts"][0]["functionResponse"]["response"] == response


def test_quirk_25_broken_arguments_are_kept():
    said = contents(assistant(ToolCall("1", "f", '{"a":')))
    assert said[0]["parts"][0]["functionCall"]["args"] == {"arguments": '{"a":'}


def test_pictures_of_results_stand_beside():
    shown = ToolResult("1", (Text("see"), Image(data="QUJD", media_type="image/png")))
    parts = contents(assistant(ToolCall("1", "f")), results(shown))[1]["parts"]
    assert [list(part) for part in parts] == [["functionResponse"], ["inlineData"]]


def test_a_result_knows_its_name_where_the_call_is_gone():
    assert contents(results(result("1", "x", name="f")))[0]["parts"][0]["functionResponse"]["name"] == "f"


def test_a_result_without_a_call_is_refused():
    with pytest.raises(InvalidRequest, match="'1' answers no call"):
        contents(results(result("1", "x")))


@pytest.mark.parametrize(
    ("model", "signatures", "sent"),
    [
        pytest.param(OLD, ("", ""), (None, None), id="old-models-want-none"),
        pytest.param(NEW, ("", ""), (NO_SIGNATURE, None), id="new-ones-want-one-a-step"),
        pytest.param(NEW, ("", "AAAA"), (None, "AAAA"), id="quirk-15-one-that-came-goes-back"),
        pytest.param(OLD, ("AAAA", ""), ("AAAA", None), id="to-old-models-too"),
        pytest.param("gemini-flash-latest", ("", ""), (NO_SIGNATURE, None), id="latest-is-new"),
    ],
)
def test_signatures(model, signatures, sent):
    calls = [ToolCall(str(i), "f", "", signature) for i, signature in enumerate(signatures)]
    parts = contents(assistant(*calls), model=model)[0]["parts"]
    assert tuple(part.get("thoughtSignature") for part in parts) == sent


# Tools...

TOOL = Tool("f", "d", {"$schema": "x", "type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}})


def test_tools():
    request = replace(HI, tools=(TOOL, Tool("g"), Tool("h", schema={"type": "object", "properties": {}})))
    assert written(request)["tools"] == [
        {
            "functionDeclarations": [
                {
                    "name": "f",
                    "description": "d",
                    "parametersJsonSchema": {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}},
                },
                {"name": "g"},
                {"name": "h"},
            ]
        }
    ]


def test_modes_cover_every_choice():
    assert set(MODE) == set(Choice)


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        (ToolChoice(Choice.AUTO), {"mode": "AUTO"}),
        (ToolChoice(Choice.NONE), {"mode": "NONE"}),
        (ToolChoice(Choice.REQUIRED), {"mode": "ANY"}),
        (ToolChoice(Choice.NAMED, "f"), {"mode": "ANY", "allowedFunctionNames": ["f"]}),
    ],
)
def test_tool_choice(choice, config):
    request = replace(HI, tools=(TOOL,), tool_choice=choice)
    assert written(request)["toolConfig"] == {"functionCallingConfig": config}
    assert "toolConfig" not in written(replace(request, tools=()))


# Settings...


def test_settings():
    request = replace(
        HI,
        max_tokens=64,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        stop=("X",),
        seed=7,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        answers=2,
        logprobs=3,
    )
    config = {
        "maxOutputTokens": 64,
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 40,
        "stopSequences": ["X"],
        "seed": 7,
        "presencePenalty": 0.1,
        "frequencyPenalty": 0.2,
        "candidateCount": 2,
        "responseLogprobs": True,
        "logprobs": 3,
    }
    assert written(request)["generationConfig"] == config
    del config["seed"]
    assert written(request, quirks=Quirks(drop=("seed", "contents_of_others")))["generationConfig"] == config


@pytest.mark.parametrize(
    ("format", "config"),
    [
        (ResponseFormat(), {"responseMimeType": "application/json"}),
        (
            ResponseFormat({"$schema": "x", "type": "object", "additionalProperties": False}),
            {
                "responseMimeType": "application/json",
                "responseJsonSchema": {"type": "object", "additionalProperties": False},
            },
        ),
    ],
)
def test_response_format(format, config):
    assert written(replace(HI, response_format=format))["generationConfig"] == config


@pytest.mark.parametrize(
    ("model", "reasoning", "config"),
    [
        (OLD, Reasoning("low"), {"thinkingBudget": 1024}),
        (OLD, Reasoning("high"), {"thinkingBudget": 24576}),
        (OLD, Reasoning("none"), {"thinkingBudget": 0}),
        (OLD, Reasoning("high", 2000), {"thinkingBudget": 2000}),
        (OLD, Reasoning(budget=100_000), {"thinkingBudget": 24576}),
        ("gemini-2.5-pro", Reasoning("none"), {"thinkingBudget": 128}),
        ("gemini-2.5-pro", Reasoning(budget=100_000), {"thinkingBudget": 32768}),
        ("gemini-2.5-flash-lite", Reasoning(budget=100), {"thinkingBudget": 512}),
        ("gemini-2.5-flash-lite", Reasoning(budget=0), {"thinkingBudget": 0}),
        (OLD, Reasoning("extreme", shown=True), {"includeThoughts": True}),
        (NEW, Reasoning("none"), {"thinkingLevel": "MINIMAL"}),
        (NEW, Reasoning(budget=0), {"thinkingLevel": "MINIMAL"}),
        (PRO, Reasoning("minimal"), {"thinkingLevel": "LOW"}),
        (NEW, Reasoning("max", shown=False), {"includeThoughts": False, "thinkingLevel": "HIGH"}),
        (NEW, Reasoning("high", 2000), {"thinkingLevel": "HIGH"}),
        (NEW, Reasoning(budget=2000), {"thinkingBudget": 2000}),
    ],
)
def test_reasoning_is_a_level_or_a_budget(model, reasoning, config):
    assert written(replace(HI, reasoning=reasoning), model)["generationConfig"] == {"thinkingConfig": config}


def test_no_reasoning_is_not_said():
    assert written(replace(HI, reasoning=Reasoning())) == written(HI)


def test_what_is_left_out_is_named():
    assert unsaid(HI, "m", Quirks()) == ()
    assert unsaid(replace(HI, parallel_tool_calls=False, user="u", verbosity="low"), "m", Quirks()) == (
        "parallel_tool_calls",
        "user",
        "verbosity",
    )


def test_what_is_nested_too_deeply_is_refused():
    schema: dict[str, Any] = {}
    for _ in range(300):
        schema = {"items": schema}
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        written(replace(HI, tools=(Tool("f", schema=schema),)))


# The same dialect on both sides...


def test_what_only_this_dialect_knows_comes_back():
    body = {
        "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
        "safetySettings": [{"category": "x"}],
        "tools": [{"functionDeclarations": [{"name": "f"}]}, {"googleSearch": {}}],
        "toolConfig": {"functionCallingConfig": {"mode": "AUTO"}, "retrievalConfig": {}},
        "generationConfig": {"temperature": 1, "speechConfig": {}},
    }
    assert written(read(orjson.dumps(body))) == body
    only = {"contents": body["contents"], "tools": [{"googleSearch": {}}], "generationConfig": {"speechConfig": {}}}
    assert written(read(orjson.dumps(only))) == only


@pytest.mark.skipif(not RECORDED, reason="no recordings beside the repository")
@pytest.mark.parametrize("recording", [pytest.param(r, id=r.name) for r in RECORDED])
def test_recorded_requests_are_written_as_they_were(recording):
    """Roles, texts, calls, results and seals of calls, part by part."""

    def told(body: Any) -> list[Any]:
        out = []
        for content in body["contents"]:
            for part in content["parts"]:
                call, answer = part.get("functionCall"), part.get("functionResponse")
                if call:
                    out.append((content["role"], call["name"], call["args"], part.get("thoughtSignature")))
                elif answer:
                    said = answer["response"]
                    out.append(("user", answer["name"], said.get("output", said.get("result"))))
                else:
                    out.append((content.get("role", "user"), part.get("text") or part["inlineData"]))
        return out

    body = recording.meta["request_body"]
    mine = written(read(orjson.dumps(body)))
    assert told(mine) == told(body)
    names = [tool["name"] for group in body.get("tools", []) for tool in group.get("functionDeclarations", [])]
    assert [t["name"] for group in mine.get("tools", []) for t in group.get("functionDeclarations", [])] == names
