"""Google's own SDK, and requests as its other clients make them, over a chat provider and over Gemini itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.dialects.gemini.grammar import check, check_array

from . import KEY, UPSTREAM_KEY
from .dialects import ARGUMENTS, CHAT, ENCRYPTED, GEMINI, MESSAGES, RESPONSES_ONLY, Provider
from .upstream import Gate, broken, gated_stream, in_turn, stream, whole

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from . import Gateway
    from .upstream import Upstream
    from .wire import Answer

genai = pytest.importorskip("google.genai")
types, errors = genai.types, genai.errors

# The SDK subclasses aiohttp's session, which aiohttp does not like to see.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

HI = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
LISTED = [{"id": "m", "label": "Em", "context": 4096}, {"id": "@cf/x/y", "provider": "up", "aliases": ["alias"]}]

crossed = pytest.mark.parametrize(
    "provider",
    [
        pytest.param(CHAT, id="chat"),
        pytest.param(MESSAGES, id="anthropic"),
        pytest.param(RESPONSES_ONLY, id="responses"),
    ],
)
providers = pytest.mark.parametrize("provider", [pytest.param(CHAT, id="chat"), pytest.param(GEMINI, id="gemini")])
counters = pytest.mark.parametrize("provider", [pytest.param(GEMINI, id="gemini")])
versions = pytest.mark.parametrize("version", ["v1beta", "v1"])


@pytest.fixture
async def gw(gateway: Callable[..., Any], provider: Provider) -> Gateway:
    return await gateway(**provider.table)


@pytest.fixture
async def client(gw: Gateway) -> AsyncIterator[Any]:
    sdk = genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=gw.url)).aio
    yield sdk
    await sdk.aclose()


async def ask(gw: Gateway, action: str, body: Any = HI, *, version: str = "v1beta", model: str = "m") -> Answer:
    """As clients do: the key in Google's header."""
    path = f"/{version}/models/{model}:{action}"
    return await gw.request("POST", path, key=None, headers={"x-goog-api-key": KEY}, json=body)


def texts(chunks: list[Any]) -> str:
    return texts_of([one["candidates"][0]["content"] for one in chunks])


def texts_of(contents: list[Any]) -> str:
    return "".join(part.get("text", "") for content in contents for part in content["parts"])


# The SDK...


@providers
async def test_a_whole_answer(upstream: Upstream, client, provider):
    upstream.script = provider.answers("Hello!")
    config = types.GenerateContentConfig(system_instruction="Be brief.", temperature=0.5, max_output_tokens=64)
    answer = await client.models.generate_content(model="m", contents="Hi", config=config)
    assert answer.text == "Hello!"
    assert answer.candidates[0].finish_reason == types.FinishReason.STOP
    counts = answer.usage_metadata
    assert (counts.prompt_token_count, counts.candidates_token_count, counts.total_token_count) == (5, 7, 12)
    asked = json.dumps((await upstream.arrived()).asked)
    assert all(said in asked for said in ("Be brief.", "0.5", "64"))


@providers
async def test_a_stream(upstream, client, provider):
    upstream.script = provider.answers("Hel", "lo!")
    told = [c async for c in await client.models.generate_content_stream(model="m", contents="Hi")]
    assert "".join(c.text or "" for c in told) == "Hello!"
    assert told[-1].candidates[0].finish_reason == types.FinishReason.STOP
    assert told[-1].usage_metadata.total_token_count == 12


@crossed
async def test_a_call_and_its_result(upstream, client, provider):
    upstream.script = in_turn(stream(provider.calls()), provider.answers("Rain."))
    schema = types.Schema(type="OBJECT", properties={"city": types.Schema(type="STRING")}, required=["city"])
    declared = types.FunctionDeclaration(name="weather", description="Tell it.", parameters=schema)
    config = types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=[declared])],
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    chat = client.chats.create(model="m", config=config)
    calls = []
    async for told in await chat.send_message_stream("Weather?"):
        calls += told.function_calls or []
    (call,) = calls
    assert (call.name, call.args) == ("weather", ARGUMENTS)
    result = types.FunctionResponse(id=call.id, name=call.name, response={"output": "it rains"})
    answer = await chat.send_message(types.Part(function_response=result))
    assert answer.text == "Rain."
    first, second = upstream.calls
    assert '"object"' in json.dumps(first.asked["tools"])  # and not Google's OBJECT
    messages = second.asked["input" if provider is RESPONSES_ONLY else "messages"]
    assert "it rains" in json.dumps(messages[-1])
    if provider is CHAT:
        assert json.loads(messages[-2]["tool_calls"][0]["function"]["arguments"]) == ARGUMENTS
        assert messages[-2]["tool_calls"][0]["id"] == messages[-1]["tool_call_id"]
    elif provider is RESPONSES_ONLY:
        assert messages[-3]["encrypted_content"] == ENCRYPTED  # nothing showed it to the client
        assert messages[-2]["call_id"] == messages[-1]["call_id"] == "call_1"
    else:
        assert messages[-2]["content"][-1]["id"] == messages[-1]["content"][0]["tool_use_id"]


@crossed
async def test_tokens_are_counted_here(upstream, client, provider):
    few = (await client.models.count_tokens(model="m", contents="Hi")).total_tokens
    many = (await client.models.count_tokens(model="m", contents="Hi " * 500)).total_tokens
    assert 0 < few < many
    assert upstream.calls == []


@counters
async def test_tokens_are_counted_by_a_provider_that_counts(upstream, client, provider):
    upstream.script = whole({"totalTokens": 23, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 23}]})
    assert (await client.models.count_tokens(model="m", contents="Hi")).total_tokens == 23
    call = await upstream.arrived()
    assert (call.target, call.header("x-goog-api-key")) == ("/v1beta/models/m:countTokens", UPSTREAM_KEY)
    assert texts_of(call.asked["contents"]) == "Hi"


@providers
async def test_errors_are_raised(upstream, client, provider):
    with pytest.raises(errors.ClientError) as told:
        await client.models.generate_content(model="gpt-5", contents="Hi")
    assert (told.value.code, told.value.status) == (404, "NOT_FOUND")
    upstream.script = whole(provider.refuses("too hot", 400), 400)
    with pytest.raises(errors.ClientError) as told:
        await client.models.generate_content(model="m", contents="Hi")
    assert (told.value.code, told.value.status, told.value.message) == (400, "INVALID_ARGUMENT", "too hot")
    upstream.script = broken(provider.says("one", "two")[:1])
    with pytest.raises(errors.ServerError) as told:
        async for _ in await client.models.generate_content_stream(model="m", contents="Hi"):
            pass
    assert (told.value.code, told.value.status) == (502, "INTERNAL")


# On the wire...


@versions
@providers
async def test_one_answer(upstream, gw, provider, version):
    upstream.script = provider.answers("Hello!")
    answer = await ask(gw, "generateContent", version=version)
    assert answer.header("Content-Type").startswith("application/json")
    assert texts([await answer.json()]) == "Hello!"


@versions
@providers
async def test_server_sent_events(upstream, gw, provider, version):
    upstream.script = provider.answers("Hel", "lo!")
    answer = await ask(gw, "streamGenerateContent?alt=sse", version=version)
    assert answer.header("Content-Type").startswith("text/event-stream")
    body = await answer.body()
    if provider is GEMINI:
        assert body == b"".join(provider.says("Hel", "lo!"))
    else:
        check(body)
    assert texts([json.loads(line[6:]) for line in body.decode().splitlines() if line]) == "Hello!"


@versions
@pytest.mark.parametrize("query", ["", "?alt=json"])
@providers
async def test_an_array(upstream, gw, provider, version, query):
    upstream.script = provider.answers("Hel", "lo!")
    answer = await ask(gw, f"streamGenerateContent{query}", version=version)
    assert answer.header("Content-Type").startswith("application/json")
    body = await answer.body()
    check_array(body)
    assert texts(json.loads(body)) == "Hello!"


@pytest.mark.parametrize("query", ["", "?alt=sse"], ids=["array", "events"])
@providers
async def test_each_piece_comes_when_it_is_said(upstream, gw, provider, query):
    gate, frames = Gate(), provider.says("one", "two")
    upstream.script = gated_stream(frames, gate)
    gate.open(1 + next(at for at, frame in enumerate(frames) if b"one" in frame))
    answer = await ask(gw, f"streamGenerateContent{query}")
    heard = b""
    while b"one" not in heard:
        heard += await answer.chunk()
    assert b"two" not in heard
    gate.open_all()
    assert b"two" in await answer.body()


@providers
async def test_an_array_ends_with_its_fault(upstream, gw, provider):
    frames = provider.says("one", "two")
    upstream.script = broken(frames[: 1 + next(at for at, frame in enumerate(frames) if b"one" in frame)])
    answer = await ask(gw, "streamGenerateContent")
    body = await answer.body()
    check_array(body)
    *said, fault = json.loads(body)
    assert texts(said) == "one"
    assert fault["error"]["status"] == "INTERNAL"


@crossed
@pytest.mark.parametrize(
    ("config", "param"),
    [
        pytest.param({"candidateCount": 2}, "generationConfig.candidateCount", id="answers"),
        pytest.param({"responseLogprobs": True}, "generationConfig.responseLogprobs", id="probabilities"),
    ],
)
async def test_what_no_answer_could_hold_is_not_left_out(upstream, gw, provider, config, param):
    for action in ("generateContent", "streamGenerateContent", "streamGenerateContent?alt=sse"):
        answer = await ask(gw, action, {**HI, "generationConfig": config})
        assert answer.status == 400
        error = (await answer.json())["error"]
        assert (error["status"], f"`{param}`" in error["message"]) == ("INVALID_ARGUMENT", True)
    assert upstream.calls == []


@pytest.mark.parametrize("provider", [GEMINI], ids=["gemini"])
async def test_what_only_google_knows_passes(upstream, gw, provider):
    upstream.script = provider.answers("Hello!")
    body = {**HI, "generationConfig": {"candidateCount": 2, "responseLogprobs": True}, "cachedContent": "c/1"}
    answer = await ask(gw, "generateContent", body)
    assert await answer.json() == provider.said("Hello!")
    assert (await upstream.arrived()).asked == body


@crossed
@versions
async def test_a_count_on_the_wire(upstream, gw, provider, version):
    answer = await ask(gw, "countTokens", version=version)
    assert (await answer.json())["totalTokens"] > 0
    for model, status in (("gpt-5", 404), ("m", 400)):
        refused = await ask(gw, "countTokens", {"contents": 5}, model=model, version=version)
        assert (refused.status, (await refused.json())["error"]["code"]) == (status, status)


@counters
@pytest.mark.parametrize(
    ("body", "told"),
    [
        pytest.param(HI, HI, id="contents"),
        pytest.param({**HI, "new": {"a": 1.0}}, {**HI, "new": {"a": 1.0}}, id="what-nobody-knows-yet"),
        pytest.param(
            {"generateContentRequest": {"model": "models/alias", **HI, "tools": [{"x": {}}]}},
            {"generateContentRequest": {"model": "models/gemini-x", **HI, "tools": [{"x": {}}]}},
            id="a-whole-request-under-the-provider-s-name",
        ),
        pytest.param(
            {"generateContentRequest": HI},
            {"generateContentRequest": {"model": "models/gemini-x", **HI}},
            id="a-whole-request-without-a-name",
        ),
        pytest.param({"generateContentRequest": 5}, {"generateContentRequest": 5}, id="nonsense-is-google-s-to-judge"),
    ],
)
async def test_a_count_passes_as_it_is(upstream, gateway, provider, body, told):
    answer = {"totalTokens": 23, "cachedContentTokenCount": 1}
    upstream.script = whole(answer)
    gw = await gateway(**provider.table, models=[{"id": "m", "upstream": "gemini-x", "aliases": ["alias"]}])
    got = await ask(gw, "countTokens", body, model="alias")
    assert (got.status, await got.json()) == (200, answer)
    call = await upstream.arrived()
    assert (call.target, call.asked) == ("/v1beta/models/gemini-x:countTokens", told)


@counters
async def test_a_count_that_is_none_is_the_provider_s_fault(upstream, gw, provider):
    for answer in ({"totalTokens": "23"}, {}, []):
        upstream.script = whole(answer)
        refused = await ask(gw, "countTokens")
        assert (refused.status, (await refused.json())["error"]["status"]) == (502, "INTERNAL")


@counters
async def test_a_refused_count_keeps_its_words_and_its_pause(upstream, gw, provider):
    refusal = provider.refuses("quota", 429, "RESOURCE_EXHAUSTED")
    refusal["error"]["details"] = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17s"}]
    upstream.script = whole(refusal, 429)
    refused = await ask(gw, "countTokens")
    assert (refused.status, refused.header("Retry-After")) == (429, "17")
    assert (await refused.json())["error"]["message"] == "quota"


@counters
async def test_a_count_needs_a_model_that_the_key_may_use(upstream, gateway, provider):
    gw = await gateway(**provider.table, keys=[{"name": "laptop", "models": ["other"]}])
    for model, status in (("gpt-5", 404), ("m", 403)):
        assert (await ask(gw, "countTokens", model=model)).status == status
    assert upstream.calls == []


# Models...


@versions
async def test_models_in_google_s_form(gateway, version):
    gw = await gateway(models=LISTED)
    headers = {"x-goog-api-key": KEY}
    answer = await gw.request("GET", f"/{version}/models", key=None, headers=headers)
    assert answer.status == 200
    first, *rest = (await answer.json())["models"]
    assert (first["name"], first["displayName"], first["inputTokenLimit"]) == ("models/m", "Em", 4096)
    assert "generateContent" in first["supportedGenerationMethods"]
    assert [one["name"] for one in rest] == ["models/@cf/x/y", "models/alias"]


@pytest.mark.parametrize(
    ("key", "headers", "form"),
    [
        pytest.param(KEY, {}, "data", id="bearer"),
        pytest.param(KEY, {"x-goog-api-key": "other"}, "data", id="bearer-goes-first"),
        pytest.param(None, {"x-goog-api-key": KEY}, "models", id="google-s"),
        pytest.param(None, {"x-api-key": KEY}, "data", id="anthropic-s"),
    ],
)
async def test_below_v1_the_key_s_header_tells_the_form(gateway, key, headers, form):
    answer = await (await gateway()).request("GET", "/v1/models", key=key, headers=headers)
    assert answer.status == 200
    assert form in await answer.json()


async def test_only_what_the_key_may_use_is_listed(gateway):
    gw = await gateway(models=LISTED, keys=[{"name": "laptop", "models": ["alias"]}])
    answer = await gw.request("GET", "/v1/models", key=None, headers={"x-goog-api-key": KEY})
    assert [one["name"] for one in (await answer.json())["models"]] == ["models/alias"]


@pytest.mark.parametrize("provider", [CHAT], ids=["chat"])
async def test_the_sdk_lists_them(client, provider):
    assert [one.name async for one in await client.models.list()] == ["models/m"]
    assert (await client.models.get(model="m")).name == "models/m"


async def test_that_there_is_no_such_model_is_told_in_the_form_of_its_path(gateway):
    """Below `/v1` it is OpenAI's, whoever asks; Google's SDK reads both."""
    gw = await gateway()
    headers = {"x-goog-api-key": KEY}
    answer = await gw.request("GET", "/v1beta/models/nobody", key=None, headers=headers)
    error = (await answer.json())["error"]
    assert (answer.status, error["code"], error["status"]) == (404, 404, "NOT_FOUND")
    answer = await gw.request("GET", "/v1/models/nobody", key=None, headers=headers)
    error = (await answer.json())["error"]
    assert (answer.status, error["code"], error["type"]) == (404, "model_not_found", "invalid_request_error")
    for version in ("v1beta", "v1"):
        options = types.HttpOptions(base_url=gw.url, api_version=version)
        sdk = genai.Client(api_key=KEY, http_options=options).aio
        with pytest.raises(errors.ClientError, match="nobody") as caught:
            await sdk.models.get(model="nobody")
        await sdk.aclose()
        assert caught.value.code == 404
