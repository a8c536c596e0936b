"""The official OpenAI SDK's responses over providers of other dialects, and over one that speaks them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import openai
import pytest
from pydantic import BaseModel

from . import KEY
from .dialects import ARGUMENTS, CHAT, MESSAGES, RESPONSES, RESPONSES_ONLY, WEATHER, Provider
from .upstream import Gate, broken, gated_stream, in_turn, sse, stream, whole

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from .upstream import Upstream

TOOLS: Any = [{"type": "function", "name": "weather", "description": "Tell it.", "parameters": WEATHER, "strict": None}]

CROSSED = [pytest.param(CHAT, id="chat"), pytest.param(MESSAGES, id="anthropic")]
crossed = pytest.mark.parametrize("provider", CROSSED)
PASSED = [pytest.param(RESPONSES, id="responses"), pytest.param(RESPONSES_ONLY, id="nothing-but-responses")]
providers = pytest.mark.parametrize("provider", [*CROSSED, *PASSED])
passed = pytest.mark.parametrize("provider", PASSED)


@pytest.fixture
async def client(gateway: Callable[..., Any], provider: Provider) -> AsyncIterator[openai.AsyncOpenAI]:
    gw = await gateway(**provider.table)
    async with openai.AsyncOpenAI(base_url=f"{gw.url}/v1", api_key=KEY, max_retries=0, timeout=10) as client:
        yield client


async def create(client: openai.AsyncOpenAI, **fields: Any) -> Any:
    return await client.responses.create(**{"model": "m", "input": "Hi", **fields})


# What is said...


@providers
async def test_a_whole_response(upstream: Upstream, client, provider):
    upstream.script = provider.answers("Hello!")
    response = await create(client, instructions="Be brief.", temperature=0.5)
    assert (response.status, response.output_text, response.object) == ("completed", "Hello!", "response")
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (5, 7, 12)
    if provider in (CHAT, MESSAGES):
        assert (response.model, response.instructions, response.temperature) == ("m", "Be brief.", 0.5)
    asked = json.dumps((await upstream.arrived()).asked)
    assert "Be brief." in asked
    assert "0.5" in asked


@providers
async def test_a_stream(upstream, client, provider):
    upstream.script = provider.answers("Hel", "lo!")
    told = [event async for event in await create(client, stream=True)]
    assert (told[0].type, told[-1].type) == ("response.created", "response.completed")
    assert [event.sequence_number for event in told] == list(range(len(told)))
    assert "".join(event.delta for event in told if event.type == "response.output_text.delta") == "Hello!"
    assert told[-1].response.output_text == "Hello!"
    assert told[-1].response.usage.total_tokens == 12


@crossed
async def test_the_stream_helper(upstream, client, provider):
    upstream.script = provider.answers("Hel", "lo!")
    async with client.responses.stream(model="m", input="Hi") as running:
        kinds = [event.type async for event in running]
        final = await running.get_final_response()
    assert kinds.count("response.output_text.delta") == 2
    assert kinds.index("response.output_item.added") < kinds.index("response.content_part.added")
    assert (final.status, final.output_text, final.model) == ("completed", "Hello!", "m")


@providers
async def test_each_piece_comes_when_it_is_said(upstream, client, provider):
    gate, frames = Gate(), provider.says("one", "two")
    upstream.script = gated_stream(frames, gate)
    gate.open(1 + next(at for at, frame in enumerate(frames) if b"one" in frame))
    running = await create(client, stream=True)
    async for event in running:
        if event.type == "response.output_text.delta":
            assert event.delta == "one"
            break
    gate.open_all()
    assert [e.delta async for e in running if e.type == "response.output_text.delta"] == ["two"]


class Weather(BaseModel):
    city: str


@crossed
async def test_an_answer_of_a_form(upstream, client, provider):
    upstream.script = provider.answers('{"city":', '"Ulm"}')
    whole = await client.responses.parse(model="m", input="Hi", text_format=Weather)
    assert whole.output_parsed == Weather(city="Ulm")
    async with client.responses.stream(model="m", input="Hi", text_format=Weather) as running:
        final = await running.get_final_response()
    assert final.output_parsed == Weather(city="Ulm")
    assert final.text.format.name == "Weather"
    for call in upstream.calls:
        assert "city" in json.dumps(call.asked)  # the schema, in a field or in words


@crossed
async def test_a_whole_answer_for_a_stream_becomes_one(upstream, client, provider):
    upstream.script = whole(provider.said("Hello!"))
    *_, last = [event async for event in await create(client, stream=True)]
    assert (last.type, last.response.output_text) == ("response.completed", "Hello!")


# Tools...


@crossed
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
async def test_a_call_and_its_result(upstream, client, provider, streamed):
    """Two turns; the second holds all of the first, as nothing is stored."""
    upstream.script = in_turn(stream(provider.calls()), provider.answers("Rain."))
    said: Any = [{"role": "user", "content": "Weather?"}]
    if streamed:
        *_, last = [event async for event in await create(client, input=said, tools=TOOLS, stream=True)]
        first = last.response
    else:  # a stream that nobody asked for is read all the same
        first = await create(client, input=said, tools=TOOLS)
    (call,) = [item for item in first.output if item.type == "function_call"]
    assert (call.name, json.loads(call.arguments), call.status) == ("weather", ARGUMENTS, "completed")
    said += [item.model_dump(exclude_none=True) for item in first.output]
    said.append({"type": "function_call_output", "call_id": call.call_id, "output": "it rains"})
    second = await create(client, input=said, tools=TOOLS)
    assert second.output_text == "Rain."
    messages = upstream.calls[1].asked["messages"]
    if provider is MESSAGES:
        asked, result = messages[-2]["content"][-1], messages[-1]["content"][0]
        assert (asked["name"], asked["input"]) == ("weather", ARGUMENTS)
        assert asked["id"] == result["tool_use_id"]
    else:
        (asked,) = messages[-2]["tool_calls"]
        assert json.loads(asked["function"]["arguments"]) == ARGUMENTS
        assert asked["id"] == messages[-1]["tool_call_id"]
    assert "it rains" in json.dumps(messages[-1])


# Errors...


@crossed
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        pytest.param({"previous_response_id": "resp_1"}, "previous_response_id", id="an-earlier-response"),
        pytest.param({"conversation": "conv_1"}, "conversation", id="a-conversation"),
        pytest.param({"background": True}, "background", id="later"),
        pytest.param({"input": []}, "input", id="nothing"),
        pytest.param({"top_logprobs": 2}, "top_logprobs", id="alternatives"),
        pytest.param({"include": ["message.output_text.logprobs"]}, "top_logprobs", id="probabilities"),
    ],
)
async def test_what_cannot_be_had_is_named(upstream, client, provider, fields, param, streamed):
    with pytest.raises(openai.BadRequestError) as told:
        await create(client, stream=streamed, **fields)
    assert told.value.param == param
    assert f"`{param}`" in told.value.message
    assert upstream.calls == []


@providers
async def test_an_unknown_model(upstream, client, provider):
    with pytest.raises(openai.NotFoundError) as told:
        await create(client, model="gpt-5")
    assert (told.value.code, told.value.param, told.value.type) == ("model_not_found", "model", "invalid_request_error")
    assert upstream.calls == []


@providers
async def test_a_refusal_keeps_its_words(upstream, client, provider):
    upstream.script = whole(provider.refuses("too hot", 400), 400)
    for streamed in (False, True):
        with pytest.raises(openai.BadRequestError, match="too hot") as told:
            await create(client, stream=streamed)
        assert told.value.type == "invalid_request_error"


@providers
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_cut_is_raised_after_what_came(upstream, client, provider, how):
    gate, frames = Gate(), provider.says("one", "two")
    frames = frames[: 1 + next(at for at, frame in enumerate(frames) if b"one" in frame)]

    async def script(call: Any) -> None:
        for frame in frames:
            await call.frame(frame)
        await gate.passed()
        (call.close if how == "close" else call.reset)()

    upstream.script = script
    running, kinds = await create(client, stream=True), []

    async def hear() -> None:
        async for event in running:
            kinds.append(event.type)
            if event.type == "response.output_text.delta":
                gate.open()

    with pytest.raises(openai.APIError):
        await hear()
    assert kinds[0] == "response.created"
    assert kinds.count("response.output_text.delta") == 1
    assert "response.completed" not in kinds


@crossed
async def test_a_fault_is_told_to_both_kinds_of_clients(upstream, gateway, provider):
    """The SDK raises on `error`, Codex on `response.failed`; the numbers go on."""
    frames = provider.says("one", "two")
    upstream.script = broken(frames[: 1 + next(at for at, frame in enumerate(frames) if b"one" in frame)])
    gw = await gateway(**provider.table)
    body = {"model": "m", "input": "Hi", "stream": True}
    answer = await gw.request("POST", "/v1/responses", json=body)
    frames = await answer.events()
    assert answer.whole
    error, failed = frames[-2:]
    assert (error.event, failed.event) == ("error", "response.failed")
    assert (failed.json["response"]["status"], failed.json["response"]["error"]["code"]) == ("failed", "server_error")
    assert failed.json["response"]["id"] == frames[0].json["response"]["id"]
    assert [frame.json["sequence_number"] for frame in frames] == list(range(len(frames)))


@passed
async def test_where_it_is_spoken_it_passes_as_it_is(upstream, gateway, provider):
    """What only this dialect knows goes both ways, an id of a response included; names are the gateway's."""
    frames = provider.says("Hel", "lo!")
    upstream.script = in_turn(stream(frames), whole(provider.said("Hello!")))
    gw = await gateway(**provider.table, models=[{"id": "m", "provider": "up", "upstream": "gpt-x"}])
    body = {"model": "m", "input": "Hi", "previous_response_id": "resp_0", "include": ["x"], "background": False}
    streamed = await gw.request("POST", "/v1/responses", json={**body, "stream": True})
    assert await streamed.body() == b"".join(frames)
    answer = await gw.request("POST", "/v1/responses", json=body)
    assert await answer.json() == provider.said("Hello!")
    first, second = upstream.calls
    assert (first.asked, second.asked) == ({**body, "stream": True, "model": "gpt-x"}, {**body, "model": "gpt-x"})
    assert {call.target for call in upstream.calls} == {"/v1/responses"}


@passed
async def test_a_fault_between_passing_frames_goes_on_with_their_numbers(upstream, gateway, provider):
    frames = provider.says("one", "two")[:3]
    fault = {"type": "error", "sequence_number": 3, "code": "server_error", "message": "boom"}
    upstream.script = stream([*frames, sse(fault, event="error")])
    gw = await gateway(**provider.table)
    answer = await gw.request("POST", "/v1/responses", json={"model": "m", "input": "Hi", "stream": True})
    body = await answer.body()
    assert body.startswith(b"".join(frames))
    told = [json.loads(line[6:]) for line in body.decode().split("\n") if line.startswith("data: ")]
    numbers = [event["sequence_number"] for event in told]
    assert numbers == list(range(5))
    assert [event["type"] for event in told[3:]] == ["error", "response.failed"]
    assert "boom" in told[3]["message"]
