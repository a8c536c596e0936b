"""Several calls at once, refusals and retries, what usage means, names, defaults, strict upstreams and rare framing."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from msgspec.structs import replace

from proxy.events import Usage
from proxy.providers import conventions
from proxy.refusals import read_refusal, refused
from proxy.registry import provider_side
from proxy.requests import Quirks, Role, Text, ToolCall, Turn
from tests.cuts import telling_cuts
from tests.dialects import anthropic_messages, gemini, openai_responses, workers_ai
from tests.dialects.anthropic_messages import grammar as messages_grammar
from tests.dialects.openai_chat import chunk, nothing, say, sse, usage
from tests.dialects.openai_responses import grammar as responses_grammar
from tests.functional.dialects import GEMINI, MESSAGES, WORKERS_AI
from tests.functional.upstream import broken, conversation, ordinary, refusal, stream, whole
from tests.functional.upstream import chunk as frame
from tests.quirks import anew, fed, heard, passing, request
from tests.wire import wire

TWO = {
    "chat": ("openai_chat", wire("tool-calls-whole-in-one-chunk")),
    "gemini": ("gemini", gemini.sse(gemini.chunk(gemini.call("weather"), gemini.call("time"), finish="STOP"))),
}


@pytest.mark.parametrize(("provider", "stream"), TWO.values(), ids=TWO)
@pytest.mark.parametrize(
    ("client", "grammar"),
    [("anthropic_messages", messages_grammar), ("openai_responses", responses_grammar)],
    ids=["messages", "responses"],
)
def test_29_calls_in_one_chunk_are_opened_and_closed_one_after_another(provider, stream, client, grammar):
    told = anew(stream, provider=provider, client=client).out
    grammar.check(told)
    assert told.index(b'"weather"') < told.index(b'"time"')


BODIES = {
    "openai": {"error": {"message": "it broke", "type": "x"}},
    "a-string": {"error": "it broke", "code": "x"},
    "flat": {"object": "error", "message": "it broke", "type": "x", "code": 3051},
    "cloudflare": {"success": False, "errors": [{"code": 5006, "message": "it broke"}], "result": None},
    "google": [{"error": {"code": 400, "message": "it broke", "status": "INVALID_ARGUMENT"}}],
    "a-numeric-code": {"error": {"code": 400, "message": "it broke"}},
    "detail": {"detail": "it broke"},
    "details": {"detail": [{"loc": ["body"], "msg": "it broke", "type": "missing"}]},
    "plain": b"it broke\n",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_30_every_shape_of_refusal_is_read(body):
    assert read_refusal(body if isinstance(body, bytes) else orjson.dumps(body)).message == "it broke"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>no</html>",
        b"\xff\xfe",
        b"null",
        b"7",
        b"[]",
        b"[[]]",
        b'{"error":[7]}',
        b'{"error":{"message":{}}}',
    ],
)
def test_30_and_what_says_nothing_raises_nothing(body):
    for status in (0, 400, 500):
        assert refused(status, read_refusal(body), nothing).message


@pytest.mark.parametrize(
    ("status", "body", "told", "elsewhere"),
    [
        pytest.param(400, {"error": {"message": "API key not valid."}}, 502, True, id="bad-key-gemini"),
        pytest.param(400, {"error": "Incorrect API key provided: x"}, 502, True, id="bad-key-xai"),
        pytest.param(401, {"error": "no"}, 502, True, id="bad-key"),
        pytest.param(402, {"error": "Insufficient Balance"}, 502, True, id="no-credit"),
        pytest.param(413, {"error": "too many tokens"}, 413, False, id="too-long-groq"),
        pytest.param(422, {"detail": "extra_forbidden"}, 422, False, id="strict-mistral"),
        pytest.param(429, {"errors": [{"code": 4006, "message": "daily"}]}, 429, False, id="quota-workers-ai"),
        pytest.param(498, {"error": "capacity"}, 502, True, id="capacity-groq"),
        pytest.param(500, {"error": "tools need --jinja"}, 502, True, id="a-config-fault-llama"),
        pytest.param(529, {"error": "Overloaded"}, 502, True, id="overloaded-anthropic"),
    ],
)
def test_31_statuses_are_told_by_what_they_mean(status, body, told, elsewhere):
    """`elsewhere`: another deployment would have a chance."""
    error = refused(status, read_refusal(orjson.dumps(body)), nothing)
    assert (error.status, error.retryable) == (told, elsewhere)


HINTS = {
    "seconds": ({"Retry-After": "7"}, "7"),
    "a-date": ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, "Wed, 21 Oct 2026 07:28:00 GMT"),
    "milliseconds-beside-seconds": ({"Retry-After": "2", "retry-after-ms": "1500"}, "2"),
    "resets-of-anthropic": ({"anthropic-ratelimit-tokens-reset": "2026-10-21T07:28:00Z"}, None),
    "resets-of-openai": ({"x-ratelimit-reset-tokens": "6m0s"}, None),
}


@pytest.mark.parametrize(("headers", "pause"), HINTS.values(), ids=HINTS)
async def test_32_hints_in_headers_reach_the_client_as_they_came(gateway, upstream, headers, pause):
    """Milliseconds do not: they are a header of one SDK, and seconds stand beside them."""
    upstream.script = refusal(429, "slow down", headers)
    answer = await (await gateway(limits={"requests_per_minute": 0})).chat()
    assert (answer.status, answer.header("retry-after")) == (429, pause)
    for name, value in headers.items():
        assert answer.header(name) == (None if name == "retry-after-ms" else value)


async def test_32_a_hint_in_google_s_body_becomes_a_header(gateway, upstream):
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "16.2s"}
    upstream.script = whole({"error": {"code": 429, "message": "quota", "details": [info]}}, 429)
    answer = await (await gateway(**GEMINI.table)).chat()
    assert (answer.status, answer.header("retry-after")) == (429, "17")


async def test_32_nothing_is_asked_again_once_a_byte_has_gone_out(gateway, upstream):
    upstream.script = broken([frame("a")])
    frames = await (await (await gateway()).chat(stream=True)).frames()
    assert frames[-1].json["error"]["code"] == "upstream_error"
    assert len(upstream.calls) == 1


def _anthropic() -> bytes:
    counts = {"input_tokens": 1, "cache_read_input_tokens": 10, "cache_creation_input_tokens": 100, "output_tokens": 1}
    return anthropic_messages.sse(
        anthropic_messages.start(usage=counts), anthropic_messages.stopped(), anthropic_messages.END
    )


def _gemini() -> bytes:
    counts = {"promptTokenCount": 5, "candidatesTokenCount": 7, "thoughtsTokenCount": 3, "totalTokenCount": 15}
    return gemini.sse(gemini.chunk(gemini.text("a"), finish="STOP", usage=counts))


def _chat(prompt: int, completion: int, total: int, reasoning: int) -> bytes:
    cost = {"completion_tokens_details": {"reasoning_tokens": reasoning}, "total_tokens": total}
    return sse(say("a"), chunk(finish="stop", usage={**usage(prompt, completion), **cost}), b"[DONE]")


def _responses() -> bytes:
    cost = {"input_tokens": 5, "output_tokens": 7, "output_tokens_details": {"reasoning_tokens": 3}, "total_tokens": 12}
    return openai_responses.sse(openai_responses.created(), openai_responses.ended(usage=cost))


@pytest.mark.parametrize(
    ("provider", "stream", "cost"),
    [
        pytest.param("anthropic_messages", _anthropic(), Usage(111, 5, cached=10, cache_written=100), id="anthropic"),
        pytest.param("gemini", _gemini(), Usage(5, 10, reasoning=3), id="gemini"),
        pytest.param("openai_chat", _chat(213, 2, 413, 198), Usage(213, 200, reasoning=198), id="xai"),
        pytest.param("openai_chat", _chat(5, 7, 12, 3), Usage(5, 7, reasoning=3), id="openai"),
        pytest.param("openai_responses", _responses(), Usage(5, 7, reasoning=3), id="responses"),
    ],
)
def test_33_usage_means_one_thing_here(provider, stream, cost):
    assert heard(stream, provider).usage == cost
    if provider == "openai_chat":
        assert fed(passing(), stream).usage == cost


def test_34_line_separators_of_unicode_end_no_line():
    text = "a\u2028b\u2029c\u0085d 🌍"
    stream = wire("unicode-line-ends-in-content")
    assert text.encode() in stream
    assert (fed(passing(), stream).out, anew(stream).text) == (stream, text)


def test_35_padding_is_not_passed_to_another_dialect():
    native = workers_ai.sse(workers_ai.native("a", p="padding"), workers_ai.native("")) + workers_ai.DONE
    hidden = openai_responses.sse(
        openai_responses.created(),
        openai_responses.added(0, **openai_responses.message()),
        {**openai_responses.delta("a"), "obfuscation": "padding"},
        openai_responses.ended(output=[openai_responses.message("a")]),
    )
    spaces = sse(say("a"), chunk(finish="stop"), b"[DONE]").replace(b"}\n\n", b"}     \n\n")
    chat = sse(say("a", p="padding", obfuscation="padding"), chunk(finish="stop"), b"[DONE]")
    for provider, padded in [("workers_ai", native), ("openai_responses", hidden), ("openai_chat", spaces)]:
        told = anew(padded, provider=provider)
        assert (told.text, told.error, b"padding" in told.out) == ("a", None, False)
    assert (anew(chat).text, b"padding" in anew(chat).out) == ("a", False)
    assert fed(passing(), chat).text == "a"


def test_36_interleaved_choices_finish_each_on_its_own():
    pipe, both = passing(choices=2), wire("two-choices")
    first, _, rest = both.partition(b'"finish_reason":"stop"}]}\n\n')
    assert pipe.feed(first + b'"finish_reason":"stop"}]}\n\n')
    assert not pipe.finished
    pipe.feed(rest)
    assert pipe.done
    assert anew(both).text == "Hello"  # across dialects it is the first


@pytest.mark.parametrize("speaker", [MESSAGES, GEMINI, WORKERS_AI], ids=["messages", "gemini", "workers-ai"])
async def test_36_more_answers_than_an_upstream_s_dialect_can_hold_are_refused(gateway, upstream, speaker):
    answer = await (await gateway(**speaker.table)).chat(n=2)
    assert (answer.status, upstream.calls) == (400, [])


NAMES = ["@cf/meta/llama-3.1-8b", "org/model:free", "models/x@001"]


@pytest.mark.parametrize("id", NAMES)
async def test_37_one_name_is_told_and_names_may_hold_anything(gateway, upstream, id):
    one = await gateway(models=[{"id": id, "provider": "up", "upstream": "real-name"}])
    for path in (id, quote(id, safe="")):
        answer = await one.request("GET", f"/v1/models/{path}")
        assert (await answer.json())["id"] == id
    await (await one.chat(model=id)).body()
    assert (await upstream.arrived()).asked["model"] == "real-name"
    moved = sse(say("a", model="x-1"), say("b", model="x-2"), chunk(finish="stop", model=None), b"[DONE]")
    assert {told["model"] for told in anew(moved).frames} == {"alias"}


@pytest.mark.parametrize(
    ("provider", "settings", "says"),
    [
        ("workers_ai", {"kind": "workers-ai", "endpoint": "native"}, {"max_tokens": 2048}),
        ("anthropic_messages", {"kind": "anthropic"}, {"max_tokens": 8192}),
        ("openai_chat", {"kind": "ollama"}, {"stream": True}),
    ],
    ids=["workers-ai", "anthropic", "ollama"],
)
def test_38_defaults_that_bite_are_said_aloud(provider, settings, says):
    body = provider_side(provider).write(request(), "m", conventions(**settings).quirks)
    assert says.items() <= json.loads(body).items()


async def test_38_embeddings_in_base64_pass_as_they_were_asked(gateway, upstream):
    upstream.script = ordinary()
    one = await gateway()
    body = {"model": "m", "input": "Hi", "encoding_format": "base64"}
    await (await one.request("POST", "/v1/embeddings", json=body)).body()
    assert (await upstream.arrived()).asked["encoding_format"] == "base64"


async def test_39_fields_that_an_upstream_refuses_are_left_out(gateway, upstream):
    one = await gateway(providers=[{"name": "up", "drop": ["user", "logprobs"], "ask_usage": False}])
    options = {"stream": True, "stream_options": {"include_usage": True}}
    upstream.script = stream(conversation("a"))
    await (await one.chat(user="me", logprobs=False, **options)).frames()
    assert set((await upstream.arrived()).asked) == {"model", "messages", "stream"}


def test_39_names_and_shapes_of_fields_are_the_provider_s():
    write = provider_side("openai_chat").write
    asked = request(max_tokens=9, temperature=1.0)
    assert json.loads(write(asked, "m", Quirks(max_tokens_field="max_completion_tokens")))["max_completion_tokens"] == 9
    assert "max_tokens" not in json.loads(write(asked, "m", Quirks(max_tokens_field="max_completion_tokens")))
    assert "temperature" not in json.loads(write(asked, "m", Quirks(drop=("temperature",))))


@pytest.mark.parametrize("provider", ["openai_chat", "workers_ai"])
def test_39_content_is_one_string_where_lists_and_null_are_refused(provider):
    def write(turn: Turn) -> Any:
        body = provider_side(provider).write(replace(request(), turns=(turn,)), "m", Quirks(flat_content=True))
        return json.loads(body)["messages"][0]["content"]

    assert write(Turn(Role.USER, (Text("a"), Text("b")))) == "a\n\nb"
    assert write(Turn(Role.ASSISTANT, (ToolCall("call_1", "look"),))) == ""


@pytest.mark.parametrize(
    "name", ["bom", "data-in-several-lines", "ids-and-retries", "unterminated-end-mark", "event-message-on-every-frame"]
)
def test_40_rare_framing_is_understood_wherever_it_is_cut(name):
    for pieces in telling_cuts(wire(name)):
        assert fed(passing(), *pieces).text == anew(*pieces).text == "Hello"
    assert not fed(passing(), wire(name)).out.startswith(b"\xef")


def test_40_an_event_without_data_is_none():
    stream = b"event: ping\n\n" + wire("plain")
    assert fed(passing(), stream).out == wire("plain")
    assert anew(stream).text == "Hello"


async def test_40_nobody_is_invited_to_compress_or_to_buffer(gateway, upstream):
    upstream.script = stream(conversation("Hello"), encoding="gzip")
    answer = await (await gateway()).chat(stream=True, headers={"Accept-Encoding": "gzip"})
    assert "".join(one.content or "" for one in await answer.frames() if not one.done) == "Hello"
    assert (await upstream.arrived()).header("accept-encoding") == "identity"
    assert answer.header("content-encoding") is None
    assert answer.header("x-accel-buffering") == "no"
    assert "no-cache" in answer.header("cache-control")
