"""The official Python SDK against the running gateway: what its users see, asynchronously and not."""

from __future__ import annotations

import asyncio
import base64
import struct
from typing import TYPE_CHECKING, Any

import openai
import pytest

from . import KEY
from .upstream import (
    DONE,
    broken,
    chunk,
    conversation,
    fault,
    held,
    in_turn,
    ordinary,
    refusal,
    stream,
    usage,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LLAMA = "@cf/meta/llama-3.1-8b-instruct"
HI: Any = [{"role": "user", "content": "Hi"}]


@pytest.fixture
async def gw(gateway):
    return await gateway(models=[{"id": LLAMA, "provider": "up", "aliases": ["gpt-4"]}])


def options(gw, **more: Any) -> dict[str, Any]:
    return {"base_url": f"{gw.url}/v1", "api_key": KEY, "max_retries": 0, "timeout": 10, **more}


@pytest.fixture
async def client(gw) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(**options(gw)) as client:
        yield client


async def synchronously(gw, use, **more: Any) -> Any:
    """Do something with the synchronous client, in a thread of its own: the loop belongs to the gateway."""

    def work() -> Any:
        with openai.OpenAI(**options(gw, **more)) as client:
            return use(client)

    return await asyncio.to_thread(work)


# Chat...


async def test_a_whole_answer(client):
    answer = await client.chat.completions.create(model=LLAMA, messages=HI)
    assert answer.choices[0].message.content == "Hello!"
    assert answer.model == LLAMA
    assert answer.usage is not None
    assert answer.usage.total_tokens == 12
    assert answer._request_id


async def test_a_stream(upstream, client):
    upstream.script = stream(conversation("Hel", "lo", "!", usage=usage()))
    chunks = [c async for c in await client.chat.completions.create(model=LLAMA, messages=HI, stream=True)]
    assert [c.choices[0].delta.content for c in chunks] == ["", "Hel", "lo", "!", None]
    assert [c.choices[0].delta.role for c in chunks] == ["assistant", None, None, None, None]
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(c.usage is None for c in chunks)


async def test_a_stream_with_its_usage(upstream, client):
    upstream.script = stream(conversation("Hello", usage=usage()))
    asked = await client.chat.completions.create(
        model=LLAMA, messages=HI, stream=True, stream_options={"include_usage": True}
    )
    *_, last = [c async for c in asked]
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 7


async def test_keep_alives_between_frames_do_not_disturb_it(upstream, gateway):
    gate = asyncio.Event()

    async def script(call):
        await call.frame(chunk("Hel", role="assistant"))
        await gate.wait()
        for frame in (chunk("lo"), chunk(finish="stop"), DONE):
            await call.frame(frame)
        await call.done()

    upstream.script = script
    gw = await gateway(stream={"keepalive": 0.1})
    watching = await gw.ask_chat(stream=True)
    answer = await watching.answer()
    async with openai.AsyncOpenAI(**options(gw)) as client:
        asked = await client.chat.completions.create(model="m", messages=HI, stream=True)
        while not (await answer.frame()).comment:  # so the other has had one, too, or soon will
            pass
        gate.set()
        assert [c.choices[0].delta.content async for c in asked] == ["Hel", "lo", None]
    await answer.body()


async def test_the_stream_helper(upstream, client):
    call = [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "add", "arguments": ""}}]
    rest = [{"index": 0, "function": {"arguments": '{"a": 1}'}}]
    upstream.script = stream(
        [
            chunk("", role="assistant"),
            chunk("Let me see."),
            chunk(delta={"tool_calls": call}),
            chunk(delta={"tool_calls": rest}),
            chunk(finish="tool_calls"),
            DONE,
        ]
    )
    async with client.chat.completions.stream(model=LLAMA, messages=HI) as running:
        seen = [event.type async for event in running]
        final = await running.get_final_completion()
    assert "content.delta" in seen
    assert "tool_calls.function.arguments.done" in seen
    message = final.choices[0].message
    assert (message.role, message.content) == ("assistant", "Let me see.")
    assert message.tool_calls is not None
    assert (message.tool_calls[0].function.name, message.tool_calls[0].function.arguments) == ("add", '{"a": 1}')
    assert final.choices[0].finish_reason == "tool_calls"


async def test_json_for_a_stream_becomes_one(upstream, client):
    upstream.script = whole()
    chunks = [c async for c in await client.chat.completions.create(model=LLAMA, messages=HI, stream=True)]
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "Hello!"
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_leaving_a_stream_leaves_the_provider(upstream, gw, client):
    upstream.script = held([chunk("a")])
    running = await client.chat.completions.create(model=LLAMA, messages=HI, stream=True)
    async for _ in running:
        break
    await running.close()
    await (await upstream.arrived()).gone()
    await gw.idle()


async def test_without_v1_in_the_base_url(gw):
    async with openai.AsyncOpenAI(**options(gw, base_url=gw.url)) as client:
        answer = await client.chat.completions.create(model=LLAMA, messages=HI)
        assert answer.choices[0].message.content == "Hello!"
        assert [model.id async for model in client.models.list()] == ["m", LLAMA, "gpt-4"]


async def test_without_asynchrony(gw):
    def use(client: openai.OpenAI) -> tuple[Any, ...]:
        answer = client.chat.completions.create(model=LLAMA, messages=HI)
        streamed = client.chat.completions.create(model=LLAMA, messages=HI, stream=True)
        text = "".join(c.choices[0].delta.content or "" for c in streamed)
        with client.chat.completions.stream(model=LLAMA, messages=HI) as running:
            final = running.get_final_completion()
        listed = [model.id for model in client.models.list()]
        return answer.choices[0].message.content, text, final.choices[0].message.content, listed

    assert await synchronously(gw, use) == ("Hello!", "Hello!", "Hello!", ["m", LLAMA, "gpt-4"])


# Other endpoints...


async def test_models(client):
    assert [model.id async for model in client.models.list()] == ["m", LLAMA, "gpt-4"]
    model = await client.models.retrieve(LLAMA)  # sends @cf%2Fmeta%2F...
    assert (model.id, model.object, model.owned_by) == (LLAMA, "model", "up")
    assert model.created > 0


async def test_completions_of_the_old_kind(upstream, client):
    upstream.script = whole(
        {
            "id": "cmpl-1",
            "object": "text_completion",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "text": "Hello", "finish_reason": "stop", "logprobs": None}],
        }
    )
    answer = await client.completions.create(model="m", prompt="Hi")
    assert answer.choices[0].text == "Hello"


async def test_embeddings_are_base64_unless_said_otherwise(upstream, client):
    vector = [0.25, -0.5, 3.0]
    packed = base64.b64encode(struct.pack("<3f", *vector)).decode()
    entry = {"object": "embedding", "index": 0, "embedding": packed}
    upstream.script = whole({"object": "list", "data": [entry], "model": "m", "usage": usage(5, 0)})
    answer = await client.embeddings.create(model="m", input="Hi")
    assert answer.data[0].embedding == vector
    assert (await upstream.arrived()).asked["encoding_format"] == "base64"

    upstream.script = ordinary()
    answer = await client.embeddings.create(model="m", input=["Hi"], encoding_format="float")
    assert answer.data[0].embedding == [0.25, -0.5]


# Errors...


async def test_a_wrong_key(gw):
    async with openai.AsyncOpenAI(**options(gw, api_key="wrong")) as client:
        with pytest.raises(openai.AuthenticationError) as told:
            await client.models.list()
    assert (told.value.status_code, told.value.code, told.value.type) == (
        401,
        "invalid_api_key",
        "authentication_error",
    )
    assert told.value.request_id


async def test_an_unknown_model(client):
    with pytest.raises(openai.NotFoundError) as told:
        await client.chat.completions.create(model="gpt-5", messages=HI)
    assert (told.value.code, told.value.param, told.value.type) == ("model_not_found", "model", "invalid_request_error")
    assert "did you mean gpt-4?" in told.value.message
    with pytest.raises(openai.NotFoundError) as told:
        await client.models.retrieve("@cf/nobody/knows")
    assert told.value.code == "model_not_found"


async def test_an_unknown_path(client):
    with pytest.raises(openai.NotFoundError) as told:
        await client.images.generate(model="m", prompt="a cat")
    assert told.value.type == "invalid_request_error"


async def test_a_bad_field(client):
    with pytest.raises(openai.BadRequestError) as told:
        await client.chat.completions.create(model=LLAMA, messages=[])
    assert told.value.param == "messages"
    with pytest.raises(openai.BadRequestError) as told:
        await client.chat.completions.create(model=LLAMA, messages=[{"content": "x"}])  # type: ignore[typeddict-item]
    assert told.value.param == "messages[0].role"


async def test_what_the_key_may_not_use(gateway):
    gw = await gateway(keys=[{"name": "laptop", "models": ["m"]}], models=[{"id": LLAMA, "provider": "up"}])
    async with openai.AsyncOpenAI(**options(gw)) as client:
        with pytest.raises(openai.PermissionDeniedError) as told:
            await client.chat.completions.create(model=LLAMA, messages=HI)
    assert (told.value.type, told.value.param) == ("permission_error", "model")


async def test_a_limit_says_when_to_come_again(gateway):
    gw = await gateway(keys=[{"name": "laptop", "requests_per_minute": 1}])
    async with openai.AsyncOpenAI(**options(gw)) as client:
        await client.chat.completions.create(model="m", messages=HI)
        with pytest.raises(openai.RateLimitError) as told:
            await client.chat.completions.create(model="m", messages=HI)
    assert told.value.code == "rate_limit_exceeded"
    assert 0 < float(told.value.response.headers["retry-after"]) <= 120  # or the SDK passes it over
    assert told.value.response.headers["x-ratelimit-limit-requests"] == "1"


async def test_the_providers_own_refusal_is_its_own(upstream, client):
    upstream.script = refusal(
        400, "max_tokens is too large", type="invalid_request_error", param="max_tokens", code="too_large"
    )
    with pytest.raises(openai.BadRequestError) as told:
        await client.chat.completions.create(model=LLAMA, messages=HI, max_tokens=10**9)
    assert (told.value.param, told.value.code) == ("max_tokens", "too_large")
    assert "max_tokens is too large" in told.value.message


@pytest.mark.parametrize(
    ("script", "said"),
    [
        pytest.param(stream([chunk("a"), fault("out of order")]), "out of order", id="the-provider-says-an-error"),
        pytest.param(broken([chunk("a")]), "cut", id="it-closes"),
        pytest.param(broken([chunk("a")], "reset"), "cut", id="it-resets"),
        pytest.param(stream([chunk("a")]), "ended", id="it-ends-too-early"),
        pytest.param(held([chunk("a")]), "timeouts.idle", id="it-stalls"),
    ],
)
async def test_a_fault_inside_a_stream_is_raised_after_what_came(upstream, gateway, script, said):
    upstream.script = script
    gw = await gateway(timeouts={"idle": 0.2})
    async with openai.AsyncOpenAI(**options(gw)) as client:
        asked = await client.chat.completions.create(model="m", messages=HI, stream=True)
        assert (await anext(asked)).choices[0].delta.content == "a"
        with pytest.raises(openai.APIError) as told:
            await anext(asked)
    assert said in told.value.message


async def test_the_sdk_tries_again_where_that_may_help(upstream, gw):
    upstream.script = in_turn(refusal(500), ordinary())
    async with openai.AsyncOpenAI(**options(gw, max_retries=1)) as client:
        answer = await client.chat.completions.create(model=LLAMA, messages=HI)
    assert answer.choices[0].message.content == "Hello!"
    assert len(upstream.calls) == 2


async def test_errors_without_asynchrony(gw, upstream):
    upstream.script = stream([chunk("a"), fault("out of order")])

    def use(client: openai.OpenAI) -> tuple[Any, ...]:
        with pytest.raises(openai.NotFoundError) as unknown:
            client.chat.completions.create(model="gpt-5", messages=HI)
        with pytest.raises(openai.APIError, match="out of order"):
            for _ in client.chat.completions.create(model=LLAMA, messages=HI, stream=True):
                pass
        return (unknown.value.code,)

    assert await synchronously(gw, use) == ("model_not_found",)
    with pytest.raises(openai.AuthenticationError):
        await synchronously(gw, lambda client: client.models.list(), api_key="wrong")
