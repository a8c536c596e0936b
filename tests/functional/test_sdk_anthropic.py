"""Anthropic's official SDK, and what Claude Code does, against the running gateway before every kind of provider."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anthropic
import pytest

from proxy.dialects.openai_responses.seals import sign
from tests.dialects import openai_responses as responses
from tests.dialects.anthropic_messages import END, closed, delta, opened, said, start, stopped
from tests.dialects.anthropic_messages import sse as messages_sse
from tests.dialects.anthropic_messages.grammar import check

from . import KEY, UPSTREAM_KEY
from .dialects import apart
from .upstream import (
    DONE,
    JSON,
    Gate,
    broken,
    chunk,
    completion,
    gated_stream,
    held,
    in_turn,
    pieces,
    refusal,
    sse,
    stream,
    usage,
    whole,
)
from .wire import within

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from .upstream import Call, Upstream

HI: Any = [{"role": "user", "content": "Hi"}]
ASKED: dict[str, Any] = {"max_tokens": 4096, "messages": HI}
LOOK: dict[str, Any] = {
    "name": "look",
    "description": "Look at a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
PARIS = {"city": "Paris"}


# What each provider says: thoughts, "Hello!", and a call


@dataclass(frozen=True)
class Provider:
    """One kind, and the same answer in its dialect: whole, and as frames of which each text is one."""

    kind: str
    path: str
    answer: dict[str, Any]
    frames: list[bytes]
    fault: bytes
    thoughts: bool = True
    signature: str = ""
    #: Of its `[[providers]]` table, where the kind does not say it all.
    settings: dict[str, Any] = field(default_factory=dict)

    def texts(self) -> list[bytes]:
        """The frames up to the second text, one for each text."""
        at = next(i for i, frame in enumerate(self.frames) if b'"Hel"' in frame)
        return [b"".join(self.frames[: at + 1]), self.frames[at + 1]]

    def rest(self) -> list[bytes]:
        return self.frames[next(i for i, frame in enumerate(self.frames) if b'"lo!"' in frame) + 1 :]


def chat(kind: str, *, thoughts: bool) -> Provider:
    thinking = {"reasoning_content": "Hm."} if thoughts else {}
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": json.dumps(PARIS)}}
    begun = [{"index": 0, **call, "function": {"name": "look", "arguments": ""}}]
    rest = [{"index": 0, "function": {"arguments": piece}} for piece in ('{"city":', ' "Paris"}')]
    message = {"role": "assistant", "content": "Hello!", **thinking, "tool_calls": [call]}
    frames: list[Any] = [
        chunk("", role="assistant"),
        *([chunk(delta={"reasoning_content": text}) for text in ("H", "m.")] if thoughts else []),
        chunk("Hel"),
        chunk("lo!"),
        chunk(delta={"tool_calls": begun}),
        *(chunk(delta={"tool_calls": [piece]}) for piece in rest),
        chunk(finish="tool_calls"),
        chunk(usage=usage(9, 7)),
    ]
    return Provider(
        kind,
        "/v1/chat/completions",
        {
            **completion(usage=usage(9, 7)),
            "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
            "usage": usage(9, 7),
        },
        [*map(sse, frames), DONE],
        sse({"error": {"message": "out of order", "type": "server_error", "code": None}}),
        thoughts,
    )


def gemini() -> Provider:
    parts: list[dict[str, Any]] = [
        {"text": "Hm.", "thought": True, "thoughtSignature": "c2ln"},
        {"text": "Hel"},
        {"text": "lo!"},
        {"functionCall": {"name": "look", "args": PARIS}},
    ]
    counts = {"promptTokenCount": 9, "candidatesTokenCount": 7, "totalTokenCount": 16}

    def told(*parts: dict[str, Any], **candidate: Any) -> dict[str, Any]:
        content = {"parts": list(parts), "role": "model"}
        return {"candidates": [{"content": content, "index": 0, **candidate}], "usageMetadata": counts}

    return Provider(
        "gemini",
        "/v1beta/models/gemini-x:generateContent",
        told(parts[0], {"text": "Hello!"}, parts[3], finishReason="STOP"),
        [sse(told(*parts[:1])), *(sse(told(part)) for part in parts[1:3]), sse(told(parts[3], finishReason="STOP"))],
        sse({"error": {"code": 500, "message": "out of order", "status": "INTERNAL"}}),
        signature="c2ln",
    )


def claude() -> Provider:
    call = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
    counts = {"input_tokens": 9, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 7}
    frames = [
        start(usage={**counts, "output_tokens": 1}, model="claude-x"),
        {"type": "ping"},
        opened(0, type="thinking", thinking="", signature=""),
        delta(0, "thinking", thinking="Hm."),
        delta(0, "signature", signature="c2ln"),
        closed(0),
        opened(1),
        said(1, "Hel"),
        said(1, "lo!"),
        closed(1),
        opened(2, **call),
        delta(2, "input_json", partial_json=""),
        delta(2, "input_json", partial_json='{"city":'),
        delta(2, "input_json", partial_json=' "Paris"}'),
        closed(2),
        stopped("tool_use", **counts),
        END,
    ]
    answer = {
        **start(model="claude-x")["message"],
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
            {"type": "text", "text": "Hello!"},
            {**call, "input": PARIS},
        ],
        "stop_reason": "tool_use",
        "usage": counts,
    }
    fault = {"type": "error", "error": {"type": "overloaded_error", "message": "out of order"}}
    return Provider(
        "anthropic", "/v1/messages", answer, [*map(messages_sse, frames)], messages_sse(fault), signature="c2ln"
    )


def codex() -> Provider:
    thought = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "Hm."}],
        "encrypted_content": "gAAA",
    }
    text, call = responses.message("Hello!"), responses.call("call_1", "look", json.dumps(PARIS))
    summary = {"output_index": 0, "summary_index": 0, "item_id": "rs_1"}
    counts = {"input_tokens": 9, "output_tokens": 7, "total_tokens": 16}
    last = responses.ended(output=[thought, text, call], object="response", usage=counts)
    frames = [
        responses.created(),
        responses.added(0, **{**thought, "summary": []}),
        *(responses.ev("reasoning_summary_text.delta", **summary, delta=piece) for piece in ("H", "m.")),
        responses.done(0, **thought),
        responses.added(1, **{**text, "content": []}),
        responses.delta("Hel", 1),
        responses.delta("lo!", 1),
        responses.done(1, **text),
        responses.added(2, **{**call, "arguments": ""}),
        *(responses.delta(piece, 2, kind="function_call_arguments") for piece in ('{"city":', ' "Paris"}')),
        responses.done(2, **call),
        last,
    ]
    return Provider(
        "responses",
        "/v1/responses",
        last["response"],
        apart(responses.sse(*frames)),
        sse({"type": "error", "sequence_number": 9, "code": "server_error", "message": "out of order"}, event="error"),
        signature=sign("gAAA"),
        settings={"kind": "openai", "endpoint": "responses"},
    )


OPENAI, DEEPSEEK, GEMINI, CLAUDE = chat("openai", thoughts=False), chat("deepseek", thoughts=True), gemini(), claude()
CODEX = codex()
PROVIDERS = [OPENAI, DEEPSEEK, GEMINI, CLAUDE, CODEX]
providers = pytest.mark.parametrize("provider", [pytest.param(p, id=p.kind) for p in PROVIDERS])
strangers = pytest.mark.parametrize("provider", [pytest.param(p, id=p.kind) for p in (OPENAI, DEEPSEEK, GEMINI, CODEX)])
NAMES = {"gemini": "gemini-x", "anthropic": "claude-x"}


@pytest.fixture
async def start_gateway(gateway: Callable, upstream: Upstream) -> Callable:
    """Start one before a provider of each kind; models have the kinds' names, and `claude-x` its own on both sides."""
    address = {"base_url": upstream.url, "api_key": UPSTREAM_KEY}
    providers = [{"name": p.kind, "kind": p.kind, **address, **p.settings} for p in PROVIDERS]
    models = [{"id": p.kind, "provider": p.kind, "upstream": NAMES.get(p.kind, "gpt-x")} for p in PROVIDERS]
    models.append({"id": "claude-x", "provider": "anthropic", "upstream": "claude-x"})
    return functools.partial(gateway, providers=providers, models=models)


@pytest.fixture
async def gw(start_gateway: Callable) -> Any:
    return await start_gateway()


def options(gw: Any, **more: Any) -> dict[str, Any]:
    return {"base_url": gw.url, "api_key": KEY, "max_retries": 0, "timeout": 10, **more}


@pytest.fixture
async def client(gw: Any) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(**options(gw)) as client:
        yield client


def is_the_answer(message: Any, provider: Provider) -> None:
    """Is this what every provider has said?"""
    *thinking, text, call = message.content
    assert [(block.thinking, block.signature) for block in thinking] == (
        [("Hm.", provider.signature)] if provider.thoughts else []
    )
    assert text.text == "Hello!"
    assert (call.type, call.name, call.input) == ("tool_use", "look", PARIS)
    assert call.id
    assert (message.stop_reason, message.stop_sequence) == ("tool_use", None)
    assert (message.usage.input_tokens, message.usage.output_tokens) == (9, 7)
    assert message.id.startswith("msg_")


def nothing_of_the_client_s(call: Call) -> None:
    """The client's key stays here."""
    assert KEY not in str(call.headers)
    assert KEY.encode() not in call.body


# Whole answers and streams...


@providers
async def test_a_whole_answer(upstream, client, provider):
    upstream.script = whole(provider.answer)
    message = await client.messages.create(model=provider.kind, tools=[LOOK], **ASKED)
    is_the_answer(message, provider)
    assert message.model == ("claude-x" if provider is CLAUDE else provider.kind)
    call = await upstream.arrived()
    assert call.target == provider.path
    nothing_of_the_client_s(call)


@providers
async def test_the_stream_helper_accumulates_the_same(upstream, client, provider):
    upstream.script = stream(provider.frames)
    async with client.messages.stream(model=provider.kind, tools=[LOOK], **ASKED) as running:
        seen = [event async for event in running]
        message = await running.get_final_message()
    is_the_answer(message, provider)
    assert [event.text for event in seen if event.type == "text"] == ["Hel", "lo!"]
    assert "".join(event.partial_json for event in seen if event.type == "input_json").replace(" ", "") == (
        '{"city":"Paris"}'
    )
    assert "".join(event.thinking for event in seen if event.type == "thinking") == "Hm." * provider.thoughts
    assert [event.signature for event in seen if event.type == "signature"] == [provider.signature] * bool(
        provider.signature
    )
    nothing_of_the_client_s(await upstream.arrived())


@providers
async def test_the_frames_obey_the_grammar(upstream, gw, provider):
    upstream.script = stream(provider.frames)
    answer = await gw.chat(path="/v1/messages", model=provider.kind, stream=True, max_tokens=9)
    check(await answer.body())
    assert answer.header("content-type") == "text/event-stream; charset=utf-8"


@providers
async def test_a_text_arrives_before_the_provider_sends_the_next(upstream, client, provider):
    gate = Gate()
    first, second = provider.texts()
    upstream.script = gated_stream([first, second, *provider.rest()], gate)
    gate.open()
    events = await client.messages.create(model=provider.kind, stream=True, tools=[LOOK], **ASKED)

    async def next_text() -> str:
        async for event in events:
            if event.type == "content_block_delta" and event.delta.type == "text_delta":
                return event.delta.text
        raise AssertionError("the stream has ended")

    assert await within(next_text(), "the first text") == "Hel"
    await gate.waited_at(2)  # and no further: the first frames alone made the client's
    assert gate.reached == 2
    gate.open()
    assert await within(next_text(), "the second text") == "lo!"
    await gate.waited_at(3)
    assert gate.reached == 3
    gate.open_all()
    assert [event.type async for event in events][-2:] == ["message_delta", "message_stop"]


@strangers
async def test_the_first_frame_guesses_the_input_and_the_last_one_knows(upstream, client, provider):
    upstream.script = stream(provider.frames)
    messages = [{"role": "user", "content": "word " * 500}]
    events = await client.messages.create(model=provider.kind, max_tokens=9, messages=messages, stream=True)
    seen = [event async for event in events]
    (first,) = [event for event in seen if event.type == "message_start"]
    (last,) = [event for event in seen if event.type == "message_delta"]
    assert provider is GEMINI or 300 < first.message.usage.input_tokens < 1000  # Gemini tells it in its first frame
    assert first.message.usage.input_tokens > 0
    assert last.usage.input_tokens == 9


async def test_json_for_a_stream_becomes_one(upstream, client):
    for provider in PROVIDERS:
        upstream.script = whole(provider.answer)
        async with client.messages.stream(model=provider.kind, tools=[LOOK], **ASKED) as running:
            is_the_answer(await running.get_final_message(), provider)


async def test_leaving_a_stream_leaves_the_provider(upstream, gw, client):
    for provider in PROVIDERS:
        upstream.script = held(provider.texts())
        async with client.messages.stream(model=provider.kind, **ASKED) as running:
            async for event in running:
                if event.type == "text":
                    break
        await (await upstream.arrived()).gone()
        await gw.idle()


# A provider that speaks it, too: bytes pass...

#: Nothing in it has to change; some of it nobody has heard of yet.
VERBATIM = (
    b'{ "model":"claude-x",  "max_tokens": 12345678901234567890123, "stream": %b, "system": [{"type":"text",'
    b'"text":"\\u00e9","cache_control":{"type":"ephemeral"}}], "messages":[{"role":"user","content":"Hi","x":1.0}], '
    b'"context_management":{"edits":[]}, "from_the_future":{"a":[1,2.50,null]} }'
)


async def test_bytes_pass_both_ways_whole(upstream, gw):
    answer = (
        b'{ "id":"msg_1","type":"message","content":[{"type":"new","x":1.0}], "usage":{"input_tokens":3},"later":{} }'
    )
    upstream.script = whole(answer)
    body = VERBATIM % b"false"
    got = await gw.request("POST", "/v1/messages", body=body, headers=JSON)
    assert await got.body() == answer
    assert (await upstream.arrived()).body == body


async def test_bytes_pass_both_ways_streamed(upstream, gw):
    future = b'event: from_the_future\ndata: {"type":"from_the_future",  "x":1.0}\n\n'
    padded = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":1      }\n\n'
    frames = [*CLAUDE.frames[:9], future, padded, *CLAUDE.frames[10:]]
    upstream.script = pieces(frames)
    body = VERBATIM % b"true"
    got = await gw.request("POST", "/v1/messages", body=body, headers=JSON)
    assert await got.body() == b"".join(frames)
    assert (await upstream.arrived()).body == body


async def test_every_event_arrives_before_the_provider_sends_the_next(upstream, gw):
    gate = Gate()
    upstream.script = gated_stream(CLAUDE.frames, gate)
    gate.open()
    answer = await gw.chat(path="/v1/messages", model="claude-x", stream=True, max_tokens=9)
    for number, frame in enumerate(CLAUDE.frames, start=1):
        assert (await answer.frame()).raw == frame
        await gate.waited_at(number + 1)
        assert gate.reached == number + 1
        gate.open()
    assert await answer.rest() == b""


async def test_what_we_do_not_understand_is_the_provider_s_to_judge(upstream, gw):
    body = VERBATIM.replace(b'"role":"user"', b'"role":"oracle"')
    upstream.script = whole(CLAUDE.answer)
    for streamed in (b"false", b"true"):  # JSON for a stream becomes one all the same
        got = await gw.request("POST", "/v1/messages", body=body % streamed, headers=JSON)
        assert (got.status, b"Hello!" in await got.body()) == (200, True)


async def test_only_the_model_s_name_changes(upstream, client):
    upstream.script = whole({**CLAUDE.answer, "later": {"a": 1}})
    more = {"context_management": {"edits": []}, "from_the_future": [1, {}]}
    message = await client.messages.create(model="anthropic", **ASKED, extra_body=more)
    assert message.model_extra == {"later": {"a": 1}}
    assert (await upstream.arrived()).asked == {"model": "claude-x", **ASKED, **more}


async def test_the_provider_gets_its_own_headers(upstream, client):
    upstream.script = whole(CLAUDE.answer)
    await client.messages.create(model="anthropic", **ASKED, extra_headers={"anthropic-version": "1999-01-01"})
    call = await upstream.arrived()
    assert call.values("x-api-key") == [UPSTREAM_KEY]
    assert call.values("anthropic-version") == ["2023-06-01"]
    assert call.values("authorization") == []
    nothing_of_the_client_s(call)


async def test_a_stream_without_its_end_mark_gets_one_and_never_a_done(upstream, gw):
    for extra in ([], [b"event: data\ndata: [DONE]\n\n"], [DONE]):
        upstream.script = stream([*CLAUDE.frames[:-1], *extra])
        answer = await gw.chat(path="/v1/messages", model="claude-x", stream=True, max_tokens=9)
        assert await answer.body() == b"".join(CLAUDE.frames)


# Counting...


@strangers
async def test_a_count_is_estimated(upstream, client, provider):
    few = await client.messages.count_tokens(model=provider.kind, messages=HI)
    many = await client.messages.count_tokens(
        model=provider.kind, messages=[{"role": "user", "content": "word " * 500}], tools=[LOOK], system="Be kind."
    )
    assert 0 < few.input_tokens < 50 < 500 < many.input_tokens < 2000
    assert upstream.calls == []


async def test_a_count_is_asked_of_a_provider_that_counts(upstream, client):
    upstream.script = whole({"input_tokens": 2095})
    counted = await client.messages.count_tokens(
        model="anthropic", messages=HI, thinking={"type": "adaptive"}, extra_body={"from_the_future": 1}
    )
    assert counted.input_tokens == 2095
    call = await upstream.arrived()
    assert call.target == "/v1/messages/count_tokens"
    assert call.asked == {
        "model": "claude-x",
        "messages": HI,
        "thinking": {"type": "adaptive"},
        "from_the_future": 1,
    }
    assert (call.values("x-api-key"), call.values("anthropic-version")) == ([UPSTREAM_KEY], ["2023-06-01"])
    nothing_of_the_client_s(call)


async def test_a_count_can_be_refused(upstream, client):
    with pytest.raises(anthropic.NotFoundError):
        await client.messages.count_tokens(model="nobody", messages=HI)
    for model in ("openai", "anthropic"):
        upstream.script = refusal(400, "messages: at least one", type="invalid_request_error")
        with pytest.raises(anthropic.BadRequestError, match="messages"):
            await client.messages.count_tokens(model=model, messages=[])


# Errors...


def word(told: pytest.ExceptionInfo[Any]) -> str:
    """The error's type in the body, which is whole."""
    body = told.value.body
    assert body["type"] == "error"
    assert body["request_id"]
    assert body["error"]["message"]
    return body["error"]["type"]


async def test_a_wrong_key(gw, upstream):
    for given in ({"api_key": "wrong"}, {"api_key": None, "auth_token": "wrong"}):
        async with anthropic.AsyncAnthropic(**options(gw, **given)) as client:
            with pytest.raises(anthropic.AuthenticationError) as told:
                await client.messages.create(model="openai", **ASKED)
        assert word(told) == "authentication_error"
    assert upstream.calls == []


async def test_a_key_as_a_token(gw, upstream):
    upstream.script = whole(OPENAI.answer)
    async with anthropic.AsyncAnthropic(**options(gw, api_key=None, auth_token=KEY)) as client:
        is_the_answer(await client.messages.create(model="openai", **ASKED), OPENAI)


async def test_an_unknown_model(client):
    with pytest.raises(anthropic.NotFoundError, match="anthropic") as told:
        await client.messages.create(model="anthropix", **ASKED)
    assert word(told) == "not_found_error"


async def test_a_model_that_the_key_may_not_use(start_gateway):
    gw = await start_gateway(keys=[{"name": "laptop", "models": ["openai"]}])
    async with anthropic.AsyncAnthropic(**options(gw)) as client:
        with pytest.raises(anthropic.PermissionDeniedError) as told:
            await client.messages.create(model="gemini", **ASKED)
    assert word(told) == "permission_error"


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        pytest.param({"messages": []}, "messages", id="no-messages"),
        pytest.param({"messages": [{"role": "user", "content": 5}]}, r"messages\[0\].content", id="content"),
        pytest.param({"max_tokens": "many"}, "max_tokens", id="max-tokens"),
        pytest.param({"tools": [{"name": 5}]}, r"tools\[0\].name", id="tool"),
    ],
)
@strangers
async def test_a_bad_field_is_named(upstream, client, provider, fields, names):
    for streamed in (False, True):
        with pytest.raises(anthropic.BadRequestError, match=names) as told:
            await client.messages.create(model=provider.kind, stream=streamed, **{**ASKED, **fields})
        assert word(told) == "invalid_request_error"
    assert upstream.calls == []


async def test_a_limit_says_when_to_come_again(start_gateway, upstream):
    upstream.script = whole(OPENAI.answer)
    gw = await start_gateway(keys=[{"name": "laptop", "requests_per_minute": 1}])
    async with anthropic.AsyncAnthropic(**options(gw)) as client:
        await client.messages.create(model="openai", **ASKED)
        with pytest.raises(anthropic.RateLimitError) as told:
            await client.messages.create(model="openai", **ASKED)
    assert word(told) == "rate_limit_error"
    assert 0 < float(told.value.response.headers["retry-after"]) <= 120


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@providers
async def test_the_providers_limit_is_told_with_its_words(upstream, client, provider, streamed):
    upstream.script = refusal(429, "slow down", {"Retry-After": "7"}, type="rate_limit_error")
    with pytest.raises(anthropic.RateLimitError, match="slow down") as told:
        await client.messages.create(model=provider.kind, stream=streamed, **ASKED)
    assert word(told) == "rate_limit_error"
    assert told.value.response.headers["retry-after"] == "7"


@providers
async def test_the_provider_refusing_our_key_is_not_the_client_s_fault(upstream, client, provider):
    upstream.script = refusal(401, f"bad key {UPSTREAM_KEY}", type="authentication_error")
    with pytest.raises(anthropic.InternalServerError) as told:
        await client.messages.create(model=provider.kind, **ASKED)
    assert (told.value.status_code, word(told)) == (502, "api_error")
    assert UPSTREAM_KEY not in told.value.response.text


FAULTS = {
    "the-provider-says-an-error": (lambda p: stream([*p.texts(), p.fault]), "out of order"),
    "it-closes": (lambda p: broken(p.texts()), "cut"),
    "it-resets": (lambda p: broken(p.texts(), "reset"), "cut"),
    "it-ends-too-early": (lambda p: stream(p.texts()), "ended"),
    "it-stalls": (lambda p: held(p.texts()), "timeouts.idle"),
}


@pytest.mark.parametrize(("script", "said"), FAULTS.values(), ids=FAULTS)
@providers
async def test_a_fault_inside_a_stream_is_raised_after_what_came(upstream, start_gateway, provider, script, said):
    upstream.script = script(provider)
    gw = await start_gateway(timeouts={"idle": 0.2})
    heard = ""

    async def hear(client: anthropic.AsyncAnthropic) -> None:
        nonlocal heard
        async with client.messages.stream(model=provider.kind, **ASKED) as running:
            async for event in running:
                heard += event.text if event.type == "text" else ""

    async with anthropic.AsyncAnthropic(**options(gw)) as client:
        with pytest.raises(anthropic.APIStatusError, match=said) as told:
            await hear(client)
    own = provider.kind == "anthropic" and said == "out of order"  # its word is one that the client knows
    assert word(told) == ("overloaded_error" if own else "timeout_error" if "idle" in said else "api_error")
    assert heard == "Hello!"


async def test_the_sdk_tries_again_where_that_may_help(upstream, gw):
    upstream.script = in_turn(refusal(500), whole(CLAUDE.answer))
    async with anthropic.AsyncAnthropic(**options(gw, max_retries=1)) as client:
        is_the_answer(await client.messages.create(model="anthropic", **ASKED), CLAUDE)
    assert len(upstream.calls) == 2


# Claude Code...

EPHEMERAL = {"type": "ephemeral"}
CODE: dict[str, Any] = {
    "max_tokens": 32000,
    "stream": True,
    "temperature": 1,
    "system": [
        {"type": "text", "text": "You are Claude Code.", "cache_control": EPHEMERAL},
        {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
    ],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Look at Paris.", "cache_control": EPHEMERAL}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Let me.", "signature": "c2ln"},
                {"type": "tool_use", "id": "toolu_1", "name": "look", "input": PARIS},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain", "cache_control": EPHEMERAL},
                {"type": "text", "text": "<system-reminder>So?</system-reminder>"},
            ],
        },
    ],
    "tools": [
        {**LOOK, "cache_control": EPHEMERAL, "eager_input_streaming": True},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 8},
    ],
    "tool_choice": {"type": "auto"},
    "thinking": {"type": "enabled", "budget_tokens": 31999},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "output_config": {"effort": "high"},
    "metadata": {"user_id": json.dumps({"device_id": "d" * 64, "account_uuid": "", "session_id": "s"})},
}
CODE_HEADERS = {
    "x-api-key": KEY,
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "claude-code-20250219,context-management-2025-06-27,interleaved-thinking-2025-05-14",
    "anthropic-dangerous-direct-browser-access": "true",
    "x-app": "cli",
    "User-Agent": "claude-cli/2.1.0 (external, cli)",
}
#: What OpenAI's chat completions have; anything else gets a 400 of a strict provider.
CHAT_WORDS = {
    *("model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature"),
    *("tools", "tool_choice", "reasoning_effort", "user"),
}
MESSAGES_WORDS = (b"cache_control", b"context_management", b"budget_tokens", b"web_search", b"c2ln", b"eager_input")


async def code(gw: Any, model: str, path: str = "/v1/messages?beta=true", **more: Any) -> Any:
    return await gw.request("POST", path, key=None, headers=CODE_HEADERS, json={"model": model, **CODE, **more})


async def test_claude_code_looks_whether_somebody_is_there(gw):
    answer = await gw.request("HEAD", "/", key=None)
    assert answer.status == 200


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@providers
async def test_claude_code_is_never_refused(upstream, gw, provider, streamed):
    upstream.script = stream(provider.frames) if streamed else whole(provider.answer)
    answer = await code(gw, provider.kind, stream=streamed)
    body = await answer.body()
    assert answer.status == 200, body
    if streamed:
        check(body)
    call = await upstream.arrived()
    assert call.query == ("alt=sse" if provider is GEMINI and streamed else "")
    nothing_of_the_client_s(call)


@pytest.mark.parametrize("provider", [pytest.param(p, id=p.kind) for p in (OPENAI, DEEPSEEK)])
async def test_what_only_anthropic_knows_never_reaches_an_openai_upstream(upstream, gw, provider):
    upstream.script = stream(provider.frames)
    await (await code(gw, provider.kind)).body()
    call = await upstream.arrived()
    assert call.asked.keys() <= CHAT_WORDS
    assert [word for word in MESSAGES_WORDS if word in call.body] == []
    assert [name for name, _ in call.headers if name.lower().startswith(("anthropic", "x-"))] == []
    asked = call.asked
    assert [message["role"] for message in asked["messages"]] == ["system", "user", "assistant", "tool", "user"]
    assert "You are Claude Code." in str(asked["messages"][0]["content"])
    assert asked["messages"][2]["tool_calls"][0]["function"] == {"name": "look", "arguments": '{"city":"Paris"}'}
    assert asked["messages"][3]["tool_call_id"] == "toolu_1"
    assert [tool["function"]["name"] for tool in asked["tools"]] == ["look"]


async def test_claude_code_reaches_anthropic_as_it_is(upstream, gw):
    upstream.script = stream(CLAUDE.frames)
    answer = await code(gw, "anthropic")
    assert await answer.body() == b"".join(CLAUDE.frames)
    assert (await upstream.arrived()).asked == {"model": "claude-x", **CODE}


@strangers
async def test_claude_code_counts(gw, upstream, provider):
    answer = await code(gw, provider.kind, "/v1/messages/count_tokens?beta=true")
    assert (await answer.json())["input_tokens"] > 100
    assert upstream.calls == []


async def test_claude_code_waits_with_pings(upstream, start_gateway):
    gate = Gate()
    upstream.script = gated_stream(OPENAI.frames, gate)
    gw = await start_gateway(stream={"keepalive": 0.1})
    answer = await code(gw, "openai")
    first = await answer.frame()
    assert (first.event, first.json) == ("ping", {"type": "ping"})
    gate.open_all()
    check(first.raw + await answer.rest())


async def test_the_features_that_a_body_uses_are_named_to_anthropic_and_to_nobody_else(upstream, gw):
    for provider in (CLAUDE, OPENAI):
        upstream.script = stream(provider.frames)
        await (await code(gw, provider.kind)).body()
        call = await upstream.arrived()
        assert call.header("anthropic-beta") == (CODE_HEADERS["anthropic-beta"] if provider is CLAUDE else None)
