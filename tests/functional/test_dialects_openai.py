"""The official OpenAI SDK's chat over providers that speak something else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import openai
import pytest

from tests.dialects.workers_ai import native
from tests.dialects.workers_ai import sse as native_sse

from . import KEY
from .dialects import ARGUMENTS, ENCRYPTED, GEMINI, MESSAGES, RESPONSES_ONLY, WEATHER, WORKERS_AI, Provider
from .speakers import counted
from .upstream import DONE, chunk, in_turn, sse, stream, usage, whole

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from .upstream import Upstream

HI: Any = [{"role": "user", "content": "Hi"}]
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "description": "Tell it.", "parameters": WEATHER}}]

providers = pytest.mark.parametrize(
    "provider",
    [
        pytest.param(MESSAGES, id="anthropic"),
        pytest.param(GEMINI, id="gemini"),
        pytest.param(WORKERS_AI, id="workers-ai"),
        pytest.param(RESPONSES_ONLY, id="responses"),
    ],
)


@pytest.fixture
async def client(gateway: Callable[..., Any], provider: Provider) -> AsyncIterator[openai.AsyncOpenAI]:
    gw = await gateway(**provider.table)
    async with openai.AsyncOpenAI(base_url=f"{gw.url}/v1", api_key=KEY, max_retries=0, timeout=10) as client:
        yield client


async def chunks(client: openai.AsyncOpenAI, **fields: Any) -> list[Any]:
    return [c async for c in await client.chat.completions.create(model="m", messages=HI, stream=True, **fields)]


# What is said...


@providers
async def test_a_stream(upstream: Upstream, client, provider):
    upstream.script = provider.answers("Hel", "lo", "!")
    told = await chunks(client)
    assert "".join(c.choices[0].delta.content or "" for c in told) == "Hello!"
    assert [c.choices[0].delta.role for c in told if c.choices[0].delta.role] == ["assistant"]
    assert [c.choices[0].finish_reason for c in told if c.choices[0].finish_reason] == ["stop"]
    assert {c.model for c in told} == {"m"}
    assert all(c.usage is None for c in told)  # nobody asked


@providers
async def test_a_stream_with_its_usage(upstream, client, provider):
    upstream.script = provider.answers("Hello", "!")
    *rest, last = await chunks(client, stream_options={"include_usage": True})
    assert last.choices == []
    assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.total_tokens) == (5, 7, 12)
    assert all(c.usage is None for c in rest)


@providers
async def test_a_whole_answer(upstream, client, provider):
    upstream.script = provider.answers("Hello!")
    answer = await client.chat.completions.create(model="m", messages=HI)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "Hello!", "stop")
    assert (answer.model, answer.object) == ("m", "chat.completion")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 7)
    assert answer._request_id


@providers
async def test_a_whole_answer_for_a_stream_becomes_one(upstream, client, provider):
    upstream.script = whole(provider.said("Hello!"))
    told = await chunks(client)
    assert "".join(c.choices[0].delta.content or "" for c in told) == "Hello!"
    assert told[-1].choices[0].finish_reason == "stop"


@providers
async def test_a_stream_for_a_whole_answer_becomes_one(upstream, client, provider):
    if provider is GEMINI:
        pytest.skip("its path says which is wanted, so it cannot be mistaken")
    upstream.script = stream(provider.says("Hel", "lo!"))
    answer = await client.chat.completions.create(model="m", messages=HI)
    assert answer.choices[0].message.content == "Hello!"


# Tools...


@providers
async def test_a_call_and_its_result(upstream, client, provider):
    """Two turns, of which the second tells the provider what came of the first."""
    upstream.script = in_turn(stream(provider.calls()), provider.answers("Rain."))
    async with client.chat.completions.stream(model="m", messages=HI, tools=TOOLS) as running:
        final = await running.get_final_completion()
    (choice,) = final.choices
    (call,) = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls"
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", ARGUMENTS)
    assert call.id

    mine = {"id": call.id, "type": "function", "function": {"name": "weather", "arguments": call.function.arguments}}
    turns: Any = [
        *HI,
        {"role": "assistant", "content": None, "tool_calls": [mine]},
        {"role": "tool", "tool_call_id": call.id, "content": "it rains"},
    ]
    answer = await client.chat.completions.create(model="m", messages=turns, tools=TOOLS)
    assert answer.choices[0].message.content == "Rain."
    first, second = upstream.calls
    assert "Tell it." in json.dumps(first.asked["tools"])
    assert told_result(provider, second.asked) == ("weather", ARGUMENTS, "it rains")


def told_result(provider: Provider, asked: Any) -> tuple[str, Any, str]:
    """The call and its result, as the provider was told them: they must belong together."""
    if provider is MESSAGES:
        call, result = asked["messages"][-2]["content"][0], asked["messages"][-1]["content"][0]
        assert (call["type"], result["type"], call["id"]) == ("tool_use", "tool_result", result["tool_use_id"])
        said = result["content"]
        return call["name"], call["input"], said if isinstance(said, str) else said[0]["text"]
    if provider is GEMINI:
        call = asked["contents"][-2]["parts"][0]["functionCall"]
        result = asked["contents"][-1]["parts"][0]["functionResponse"]
        assert result["name"] == call["name"]
        return call["name"], call["args"], *result["response"].values()
    if provider is RESPONSES_ONLY:
        thought, call, result = asked["input"][-3:]  # what the client has dropped is there again
        assert (thought["type"], thought["encrypted_content"]) == ("reasoning", ENCRYPTED)
        assert (call["type"], result["type"], call["call_id"]) == (
            "function_call",
            "function_call_output",
            result["call_id"],
        )
        return call["name"], json.loads(call["arguments"]), result["output"]
    turn, result = asked["messages"][-2:]
    (call,) = turn["tool_calls"]
    assert (turn["role"], result["role"], call["id"]) == ("assistant", "tool", result["tool_call_id"])
    return call["function"]["name"], json.loads(call["function"]["arguments"]), result["content"]


# Errors...


@providers
async def test_a_refusal_keeps_its_words(upstream, client, provider):
    upstream.script = whole(provider.refuses("the temperature is too high", 400), 400)
    for streamed in (False, True):
        with pytest.raises(openai.BadRequestError) as told:
            await client.chat.completions.create(model="m", messages=HI, temperature=2, stream=streamed)
        assert "the temperature is too high" in told.value.message
        assert told.value.request_id


@providers
async def test_a_failure_is_the_provider_s(upstream, client, provider):
    upstream.script = whole(provider.refuses("boom", 500, "api_error"), 500)
    with pytest.raises(openai.InternalServerError) as told:
        await client.chat.completions.create(model="m", messages=HI, stream=True)
    assert (told.value.status_code, told.value.code) == (502, "upstream_error")


@providers
async def test_a_fault_inside_a_stream_is_raised_after_what_came(upstream, client, provider):
    frames = provider.says("Hel", "lo")
    said = frames[: 1 + next(at for at, frame in enumerate(frames) if b"Hel" in frame)]
    fault = provider.refuses("out of order", 500, "api_error")
    event = b"event: error\n" if provider is MESSAGES else b""
    upstream.script = stream([*said, b"%bdata: %b\n\n" % (event, json.dumps(fault).encode())])
    asked = await client.chat.completions.create(model="m", messages=HI, stream=True)
    heard: list[str] = []

    async def hear() -> None:
        async for c in asked:
            heard.extend([c.choices[0].delta.content or ""])

    with pytest.raises(openai.APIError, match="out of order"):
        await hear()
    assert "".join(heard) == "Hel"


@providers
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        pytest.param({"n": 2}, "n", id="n"),
        pytest.param({"logprobs": True}, "logprobs", id="logprobs"),
        pytest.param({"logprobs": True, "top_logprobs": 3}, "logprobs", id="top-logprobs"),
    ],
)
async def test_what_no_answer_could_hold_is_not_left_out(upstream, client, provider, fields, param, streamed):
    with pytest.raises(openai.BadRequestError) as told:
        await client.chat.completions.create(model="m", messages=HI, stream=streamed, **fields)
    assert told.value.param == param
    assert f"`{param}`" in told.value.message
    assert upstream.calls == []


@providers
async def test_one_answer_without_probabilities_is_what_everybody_gives(upstream, client, provider):
    upstream.script = provider.answers("Hello!")
    answer = await client.chat.completions.create(model="m", messages=HI, n=1, logprobs=False)
    assert answer.choices[0].message.content == "Hello!"


@pytest.mark.parametrize("provider", [GEMINI], ids=["gemini"])
@pytest.mark.parametrize(
    ("delay", "headers", "told"),
    [
        pytest.param("17s", {}, "17", id="in-the-body"),
        pytest.param("1.5s", {}, "2", id="rounded-up"),
        pytest.param("0s", {}, "1", id="never-none"),
        pytest.param("17s", {"Retry-After": "3"}, "3", id="the-header-goes-first"),
        pytest.param("nan", {}, None, id="no-number"),
        pytest.param("1e999s", {}, None, id="for-ever"),
        pytest.param("-5s", {}, None, id="in-the-past"),
        pytest.param(None, {}, None, id="not-at-all"),
    ],
)
async def test_gemini_says_in_the_body_when_to_ask_again(upstream, client, provider, delay, headers, told):
    refusal = provider.refuses("quota", 429, "RESOURCE_EXHAUSTED")
    if delay is not None:
        info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}
        refusal["error"]["details"] = [info]
    upstream.script = whole(refusal, 429, {"Content-Type": "application/json", **headers})
    with pytest.raises(openai.RateLimitError) as refused:
        await client.chat.completions.create(model="m", messages=HI)
    assert refused.value.response.headers.get("retry-after") == told


# The limit of tokens...


@pytest.mark.parametrize("provider", [WORKERS_AI], ids=["workers-ai"])
@pytest.mark.parametrize(
    ("fields", "limit"), [pytest.param({}, 2048, id="ours"), pytest.param({"max_tokens": 9}, 9, id="the-client-s")]
)
@pytest.mark.parametrize(("short", "finish"), [(0, "length"), (1, "stop")], ids=["used-up", "not-used-up"])
async def test_an_answer_as_long_as_was_allowed_was_cut(upstream, client, provider, fields, limit, short, finish):
    """Old models do not say why they stopped; the limit that counts is the one that was sent."""
    counts = usage(5, limit - short)
    frames = [native_sse(native("Hel")), native_sse(native("", usage=counts)), DONE]
    answer = {"result": {"response": "Hel", "usage": counts}, "success": True, "errors": [], "messages": []}
    upstream.script = in_turn(stream(frames), whole(answer))
    told = await chunks(client, **fields)
    assert told[-1].choices[0].finish_reason == finish
    answer = await client.chat.completions.create(model="m", messages=HI, **fields)
    assert answer.choices[0].finish_reason == finish
    assert [call.asked["max_tokens"] for call in upstream.calls] == [limit, limit]


# What is lost...


@pytest.mark.parametrize(
    ("model", "asked", "lost"),
    [
        pytest.param({"id": "m", "upstream": "claude-opus-4-7"}, "m", 1, id="a-model-without-temperature"),
        pytest.param({"id": "m", "upstream": "claude-3-5-haiku"}, "m", 0, id="a-model-with-it"),
        pytest.param({"id": "up/*", "provider": "up"}, "up/claude-opus-4-7", 1, id="behind-a-wildcard"),
    ],
)
async def test_what_a_model_cannot_be_told_is_counted(upstream, gateway, model, asked, lost):
    upstream.script = whole(MESSAGES.said("Hello!"))
    gw = await gateway(**MESSAGES.table, models=[model])
    answer = await gw.chat(model=asked, messages=HI, temperature=0.5)
    assert answer.status == 200
    assert ("temperature" in (await upstream.arrived()).asked) == (not lost)
    assert counted(gw, "ai_proxy_dropped_fields_total", provider="up") == lost


async def test_openrouter_gets_its_thoughts_back_from_a_client_of_anthropic_s(upstream, gateway):
    """Through a stream, though the client returns nothing but the call."""
    thought = {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": 0}
    call = {"index": 0, "id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    deltas = [
        {"reasoning": "Hm.", "reasoning_details": [{**thought, "text": "Hm."}]},
        {"reasoning_details": [{**thought, "signature": "S1"}]},
        {"tool_calls": [call]},
    ]
    frames = [*(sse(chunk(delta=delta)) for delta in deltas), sse(chunk(finish="tool_calls")), DONE]
    upstream.script = in_turn(stream(frames), stream([sse(chunk("done", finish="stop")), DONE]))
    gw = await gateway()
    use = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "gone", "is_error": True}
    later = [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    for more in ([], later):
        body = {"model": "m", "max_tokens": 9, "stream": True, "messages": [*HI, *more]}
        tools = [{"name": "weather", "input_schema": {"type": "object"}}]
        answer = await gw.request("POST", "/v1/messages", json={**body, "tools": tools})
        told = await answer.body()
        assert (b'"thinking":"Hm."' in told) is (not more)
    asked = (upstream.calls[1].asked or {})["messages"]
    assert asked[1]["reasoning_details"] == [{**thought, "text": "Hm.", "signature": "S1"}]
    assert asked[2]["content"] == "Error: gone"
