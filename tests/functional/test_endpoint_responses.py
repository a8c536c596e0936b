"""`endpoint = "responses"`: a provider that is asked in Responses, whatever its clients speak."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest

from proxy.dialects.openai_responses.seals import sign
from tests.dialects.openai_responses import added, call, created, delta, done, ended, ev, message
from tests.dialects.openai_responses import sse as responses_sse

from . import KEY
from .dialects import ENCRYPTED, RESPONSES_ONLY, WEATHER, apart
from .speakers import counted
from .upstream import JSON, in_turn, sse, stream, whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from . import Gateway
    from .upstream import Upstream
    from .wire import Answer

TABLE = RESPONSES_ONLY.table
ULM, BONN = '{"city":"Ulm"}', '{"city":"Bonn"}'
HI: Any = [{"role": "user", "content": "Hi"}]
CHAT_TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}]
MESSAGES_TOOLS: Any = [{"name": "weather", "input_schema": WEATHER}]
GEMINI_TOOLS = [{"functionDeclarations": [{"name": "weather", "parametersJsonSchema": WEATHER}]}]


@pytest.fixture
async def gw(gateway: Callable[..., Any]) -> Gateway:
    served: Gateway = await gateway(**TABLE)
    return served


def thought(encrypted: str, *texts: str) -> dict[str, Any]:
    summary = [{"type": "summary_text", "text": text} for text in texts]
    return {"type": "reasoning", "id": f"rs_{encrypted}", "summary": summary, "encrypted_content": encrypted}


def frames_of(*items: dict[str, Any]) -> list[bytes]:
    """A stream in which each item is told when it begins and when it is done."""
    told = []
    for index, item in enumerate(items):
        empty = {"reasoning": {"summary": []}, "function_call": {"arguments": ""}, "message": {"content": []}}
        told.append(added(index, **{**item, **empty[item["type"]]}))
        told.append(done(index, **item))
    return apart(responses_sse(created(), *told, ended(output=list(items), object="response")))


def answer_of(*items: dict[str, Any], **fields: Any) -> dict[str, Any]:
    response: dict[str, Any] = ended(output=list(items), object="response", **fields)["response"]
    return response


# What the provider is asked...


async def test_all_that_chat_completions_can_say(upstream: Upstream, gw: Gateway) -> None:
    upstream.script = RESPONSES_ONLY.answers("Hello!")
    asked = {
        "model": "m",
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is it?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO", "detail": "low"}},
                    {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"}},
                ],
            },
        ],
        "tools": CHAT_TOOLS,
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False,
        "response_format": {"type": "json_schema", "json_schema": {"name": "w", "schema": WEATHER, "strict": True}},
        "reasoning_effort": "low",
        "verbosity": "low",
        "max_completion_tokens": 5,
        "temperature": 1,
        "user": "u",
    }
    answer = await gw.request("POST", "/v1/chat/completions", json=asked)
    assert answer.status == 200
    sent = (await upstream.arrived()).asked
    parts = [
        {"type": "input_text", "text": "What is it?"},
        {"type": "input_image", "image_url": "data:image/png;base64,iVBO", "detail": "low"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"},
    ]
    assert sent == {
        "model": "m",
        "instructions": "Be brief.",
        "input": [{"type": "message", "role": "user", "content": parts}],
        "stream": False,
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "tools": [{"type": "function", "name": "weather", "description": "", "parameters": WEATHER, "strict": False}],
        "tool_choice": {"type": "function", "name": "weather"},
        "parallel_tool_calls": False,
        "text": {"format": {"type": "json_schema", "name": "w", "schema": WEATHER, "strict": True}, "verbosity": "low"},
        "reasoning": {"effort": "low"},
        "max_output_tokens": 16,  # no answer may be shorter
        "temperature": 1.0,
        "user": "u",
    }


async def test_ids_of_another_provider_s_calls_are_made_to_fit(upstream, gw):
    """OpenAI takes 64 characters; other providers' histories have longer ones."""
    upstream.script = RESPONSES_ONLY.answers("Rain.")
    asked = {"id": "x" * 65, "type": "function", "function": {"name": "weather", "arguments": ULM}}
    results = [{"role": "tool", "tool_call_id": "x" * 65, "content": "rain"}]
    turns = [*HI, {"role": "assistant", "content": None, "tool_calls": [asked]}, *results]
    assert (await gw.chat(messages=turns, tools=CHAT_TOOLS)).status == 200
    _, made, told = (await upstream.arrived()).asked["input"]
    assert made["call_id"] == told["call_id"]
    assert len(made["call_id"]) <= 64


STOP = pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("/v1/chat/completions", {"messages": HI, "stop": ["x"]}, id="chat"),
        pytest.param("/v1/messages", {"messages": HI, "max_tokens": 9, "stop_sequences": ["x"]}, id="messages"),
        pytest.param(
            "/v1beta/models/m:generateContent",
            {"contents": [{"parts": [{"text": "Hi"}]}], "generationConfig": {"stopSequences": ["x"]}},
            id="gemini",
        ),
    ],
)


@STOP
async def test_stop_sequences_are_refused_by_name(upstream, gw, path, body):
    answer = await gw.request("POST", path, json={"model": "m", **body})
    assert answer.status == 400
    told = (await answer.json())["error"]["message"]
    assert "`stop`: stop sequences" in told
    assert "(provider up)" in told
    assert upstream.calls == []


@STOP
async def test_unless_the_operator_has_them_left_out(upstream, gateway, path, body):
    upstream.script = RESPONSES_ONLY.answers("Hello!")
    gw = await gateway(providers=[{"name": "up", **RESPONSES_ONLY.settings, "drop": ["stop", "include"]}])
    answer = await gw.request("POST", path, json={"model": "m", **body})
    assert answer.status == 200
    assert not {"stop", "include"} & (await upstream.arrived()).asked.keys()


async def test_what_can_be_done_without_is_left_out_and_counted(upstream, gw):
    upstream.script = RESPONSES_ONLY.answers("Hello!")
    answer = await gw.chat(seed=1, frequency_penalty=0.5, service_tier="flex")
    assert answer.status == 200
    assert not {"seed", "frequency_penalty", "service_tier"} & (await upstream.arrived()).asked.keys()
    assert counted(gw, "ai_proxy_dropped_fields_total", provider="up") == 3


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/completions"])
async def test_what_is_no_conversation_goes_where_it_always_went(upstream, gw, path):
    upstream.script = whole({"data": [], "choices": []})
    answer = await gw.request("POST", path, json={"model": "m", "input": "Hi", "prompt": "Hi"})
    assert answer.status == 200
    assert (await upstream.arrived()).target == path


# Thoughts over many turns...

FIRST = (
    thought("gAAA", "Two cities."),
    call("call_1", "weather", ULM),
    thought("gBBB"),
    call("call_2", "weather", BONN),
)
SECOND = (thought("gCCC"), message("One more."), call("call_3", "weather", ULM))
LAST = (thought("gDDD"), message("Rain."))


def told_again(*items: dict[str, Any]) -> list[dict[str, Any]]:
    """Items of an answer as input, without what belongs to the answer only."""
    again = []
    for item in items:
        kept = {name: value for name, value in item.items() if name not in ("id", "status")}
        if item["type"] == "message":
            kept["content"] = [{"type": "output_text", "text": part["text"]} for part in item["content"]]
        again.append(kept)
    return again


def result(id: str, output: str) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": id, "output": output}


#: What the provider must be told in the third turn, whoever asks.
WHOLE_STORY = [
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
    *told_again(*FIRST),
    result("call_1", "sun"),
    result("call_2", "fog"),
    *told_again(*SECOND),
    result("call_3", "rain"),
]
RESULTS = {"call_1": "sun", "call_2": "fog", "call_3": "rain"}


def without_words(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Thoughts without their summaries, which few clients give back."""
    return [{**item, "summary": []} if item["type"] == "reasoning" else item for item in items]


async def test_chat_clients_drop_them_and_they_are_there_again(upstream, gw):
    upstream.script = in_turn(*(stream(frames_of(*items)) for items in (FIRST, SECOND, LAST)))
    turns: Any = [*HI]
    async with openai.AsyncOpenAI(base_url=f"{gw.url}/v1", api_key=KEY, max_retries=0, timeout=10) as client:
        for _ in range(2):
            async with client.chat.completions.stream(model="m", messages=turns, tools=CHAT_TOOLS) as running:
                (choice,) = (await running.get_final_completion()).choices
            assert choice.finish_reason == "tool_calls"
            calls = choice.message.tool_calls
            turns.append(
                {
                    "role": "assistant",
                    "content": choice.message.content,
                    "reasoning_content": "Two cities.",  # some give the words back, which nobody sealed
                    "tool_calls": [one.model_dump(include={"id", "type", "function"}) for one in calls],
                }
            )
            turns += [{"role": "tool", "tool_call_id": one.id, "content": RESULTS[one.id]} for one in calls]
        last = await client.chat.completions.create(model="m", messages=turns, tools=CHAT_TOOLS)
    assert last.choices[0].message.content == "Rain."
    assert [call.target for call in upstream.calls] == ["/v1/responses"] * 3
    assert upstream.calls[2].asked["input"] == WHOLE_STORY


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
async def test_anthropic_clients_carry_them_as_signatures(upstream, gateway, streamed):
    """Each turn asks another process, which remembers nothing."""
    wholes = [whole(answer_of(*items)) for items in (FIRST, SECOND, LAST)]
    streams = [stream(frames_of(*items)) for items in (FIRST, SECOND, LAST)]
    upstream.script = in_turn(*(streams if streamed else wholes))
    turns: Any = [*HI]
    fields: Any = {"model": "m", "max_tokens": 4096, "tools": MESSAGES_TOOLS}
    thinking: Any = {"type": "enabled", "budget_tokens": 2048}
    for number in range(3):
        gw = await gateway(**TABLE)
        async with anthropic.AsyncAnthropic(base_url=gw.url, api_key=KEY, max_retries=0, timeout=10) as client:
            if streamed:
                async with client.messages.stream(messages=turns, thinking=thinking, **fields) as running:
                    answer = await running.get_final_message()
            else:
                answer = await client.messages.create(messages=turns, thinking=thinking, **fields)
        turns.append({"role": "assistant", "content": answer.model_dump()["content"]})
        calls = [block.id for block in answer.content if block.type == "tool_use"]
        assert answer.stop_reason == ("end_turn" if number == 2 else "tool_use")
        turns.append(
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": id, "content": RESULTS[id]} for id in calls],
            }
        )
    asked = [call.asked for call in upstream.calls]
    assert asked[0]["reasoning"] == {"effort": "medium", "summary": "auto"}
    assert asked[2]["input"] == WHOLE_STORY
    said = turns[1]["content"][0]
    assert (said["type"], said["thinking"], said["signature"]) == ("thinking", "Two cities.", sign("gAAA"))


async def ask_gemini(gw: Gateway, contents: list[Any], **config: Any) -> Answer:
    body = {"contents": contents, "tools": GEMINI_TOOLS, "generationConfig": config}
    return await gw.request("POST", "/v1beta/models/m:generateContent", json=body)


@pytest.mark.parametrize("shown", [True, False], ids=["shown", "not-shown"])
async def test_gemini_clients_get_them_back_or_carry_them(upstream, gateway, shown):
    """Where thoughts are shown the client has their seals, else the gateway remembers."""
    upstream.script = in_turn(*(whole(answer_of(*items)) for items in (FIRST, SECOND, LAST)))
    config = {"thinkingConfig": {"includeThoughts": True}} if shown else {}
    contents: list[Any] = [{"role": "user", "parts": [{"text": "Hi"}]}]
    gw = await gateway(**TABLE)
    for _ in range(2):
        answer = await (await ask_gemini(gw, contents, **config)).json()
        content = answer["candidates"][0]["content"]
        contents.append(content)
        calls = [part["functionCall"] for part in content["parts"] if "functionCall" in part]
        results = [{**each, "response": {"output": RESULTS[each["id"]]}} for each in calls]
        for each in results:
            del each["args"]
        contents.append({"role": "user", "parts": [{"functionResponse": each} for each in results]})
        if shown:
            gw = await gateway(**TABLE)  # which remembers nothing
    assert (await ask_gemini(gw, contents, **config)).status == 200
    assert upstream.calls[2].asked["input"] == WHOLE_STORY


async def test_responses_clients_carry_them_as_they_are(upstream, gateway):
    upstream.script = in_turn(*(stream(frames_of(*items)) for items in (FIRST, SECOND, LAST)))
    said: list[Any] = [*HI]
    for items in (FIRST, SECOND, LAST):
        gw = await gateway(**TABLE)
        answer = await gw.request("POST", "/v1/responses", json={"model": "m", "input": said, "stream": True})
        assert await answer.body() == b"".join(frames_of(*items))
        said += [*items, *(result(item["call_id"], "x") for item in items if item["type"] == "function_call")]
    assert upstream.calls[1].asked["input"] == [*HI, *FIRST, result("call_1", "x"), result("call_2", "x")]


async def test_thoughts_that_another_provider_sealed_stay_away(upstream, gw):
    upstream.script = RESPONSES_ONLY.answers("Hello!")
    content = [{"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}, {"type": "text", "text": "So."}]
    turns = [*HI, {"role": "assistant", "content": content}, *HI]
    answer = await gw.request("POST", "/v1/messages", json={"model": "m", "max_tokens": 99, "messages": turns})
    assert answer.status == 200
    sent = (await upstream.arrived()).asked
    assert [item["type"] for item in sent["input"]] == ["message"] * 3
    assert "c2ln" not in json.dumps(sent)


# How an answer ends...

CUT = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
FILTERED = {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}
NO = {**message(), "content": [{"type": "refusal", "refusal": "No."}]}
HALF = call("call_1", "weather", '{"city":"Ul', status="incomplete")


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(
    ("items", "fields", "chat", "messages", "gemini"),
    [
        pytest.param([message("Hi.")], {}, "stop", "end_turn", "STOP", id="said"),
        pytest.param([call("c", "weather", ULM)], {}, "tool_calls", "tool_use", "STOP", id="called"),
        pytest.param([message("Hi.")], CUT, "length", "max_tokens", "MAX_TOKENS", id="cut"),
        pytest.param([HALF], CUT, "length", "max_tokens", "MAX_TOKENS", id="cut-in-a-call"),
        pytest.param([thought("gAAA")], CUT, "length", "max_tokens", "MAX_TOKENS", id="cut-before-a-word"),
        pytest.param([message("Hi.")], FILTERED, "content_filter", "refusal", "SAFETY", id="filtered"),
        pytest.param([NO], {}, "stop", "refusal", "STOP", id="refused"),
    ],
)
async def test_every_end_has_its_word(upstream, gw, items, fields, chat, messages, gemini, streamed):
    status = fields.get("status", "completed")
    last = ended(status, list(items), object="response", **{k: v for k, v in fields.items() if k != "status"})
    begun = frames_of(*items)[:-1]
    upstream.script = stream([*begun, *apart(responses_sse(last))]) if streamed else whole(last["response"])
    answer = await gw.chat(stream=streamed)
    finish = rb'"finish_reason":"%b"' % chat.encode()
    assert (await answer.body()).count(finish) == 1
    answer = await gw.request(
        "POST", "/v1/messages", json={"model": "m", "max_tokens": 9, "messages": HI, "stream": streamed}
    )
    assert (await answer.body()).count(b'"stop_reason":"%b"' % messages.encode()) == 1
    action = "streamGenerateContent?alt=sse" if streamed else "generateContent"
    answer = await gw.request("POST", f"/v1beta/models/m:{action}", json={"contents": [{"parts": [{"text": "Hi"}]}]})
    assert (await answer.body()).count(b'"finishReason":"%b"' % gemini.encode()) == 1
    answer = await gw.request("POST", "/api/chat", json={"model": "m", "prompt": "Hi", "stream": streamed})
    assert b'"done":true' in await answer.body()


async def test_usage_is_told_with_its_details(upstream, gw):
    usage = {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 60},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 5},
        "total_tokens": 120,
    }
    upstream.script = whole(answer_of(message("Hi."), usage=usage))
    told = (await (await gw.chat()).json())["usage"]
    assert (told["prompt_tokens"], told["completion_tokens"], told["total_tokens"]) == (100, 20, 120)
    assert told["prompt_tokens_details"]["cached_tokens"] == 60
    assert told["completion_tokens_details"]["reasoning_tokens"] == 5


# What goes wrong...

FAILED = ev(
    "failed",
    response={"id": "resp_1", "status": "failed", "error": {"code": "rate_limit_exceeded", "message": "slower"}},
)
ERROR = {"type": "error", "code": "rate_limit_exceeded", "message": "slower", "param": None}


@pytest.mark.parametrize("last", [pytest.param(FAILED, id="failed"), pytest.param(ERROR, id="error")])
async def test_a_fault_before_the_answer_has_a_status(upstream, gw, last):
    upstream.script = stream(apart(responses_sse(last)))
    answer = await gw.chat(stream=True)
    assert answer.status == 429
    assert (await answer.json())["error"]["message"] == "slower"


async def test_a_whole_answer_that_failed_has_a_status(upstream, gw):
    upstream.script = whole(FAILED["response"])
    answer = await gw.chat()
    assert answer.status == 429
    assert (await answer.json())["error"]["message"] == "slower"


@pytest.mark.parametrize("last", [pytest.param(FAILED, id="failed"), pytest.param(ERROR, id="error")])
async def test_a_fault_after_the_first_words_ends_the_stream(upstream, gw, last):
    begun = [created(), added(0, **{**message("Hel"), "content": []}), delta("Hel")]
    upstream.script = stream(apart(responses_sse(*begun, last)))
    async with openai.AsyncOpenAI(base_url=f"{gw.url}/v1", api_key=KEY, max_retries=0, timeout=10) as client:
        heard: list[str] = []
        running = await client.chat.completions.create(model="m", messages=HI, stream=True)

        async def hear() -> None:
            async for chunk in running:
                heard.extend(choice.delta.content or "" for choice in chunk.choices)

        with pytest.raises(openai.APIError, match="slower"):
            await hear()
    assert "".join(heard) == "Hel"


async def test_the_provider_s_refusal_names_what_it_refuses(upstream, gw):
    refused = {
        "message": "Unsupported parameter: 'temperature'",
        "type": "invalid_request_error",
        "param": "temperature",
    }
    upstream.script = whole({"error": {**refused, "code": None}}, 400, JSON)
    answer = await gw.chat(temperature=0.5)
    assert answer.status == 400
    error = (await answer.json())["error"]
    assert (error["param"], error["message"]) == ("temperature", refused["message"])


async def test_an_end_mark_after_the_end_is_no_more_than_that(upstream, gw):
    """OpenRouter has one."""
    upstream.script = stream([b": OPENROUTER PROCESSING\n\n", *RESPONSES_ONLY.says("Hel", "lo!"), sse("[DONE]")])
    frames = await (await gw.chat(stream=True)).frames()
    assert "".join(frame.content or "" for frame in frames) == "Hello!"
    assert [frame.done for frame in frames].count(True) == 1


async def test_a_chat_client_s_calls_have_the_ids_that_results_are_asked_by(upstream, gw):
    """A function call has two; only `call_id` is an answer's."""
    upstream.script = stream(RESPONSES_ONLY.calls())
    frames = await (await gw.chat(stream=True, tools=CHAT_TOOLS)).frames()
    ids = [
        each["id"]
        for frame in frames
        if not frame.done
        for choice in frame.json["choices"]
        for each in choice["delta"].get("tool_calls", ())
        if "id" in each
    ]
    assert ids == ["call_1"]
    assert ENCRYPTED.encode() not in b"".join(frame.raw for frame in frames)
