"""The AI Proxy Worker's documented interface, as its documentation prints it: requests, readers, shapes and errors.

The gateway runs with the shipped configuration; what is written in JavaScript there is done here step by step.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from . import KEY, authorized, shipped
from .upstream import chunk, completion, conversation, hung_up, pieces, refusal, silent, sse, usage, whole

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from . import Gateway
    from .upstream import Upstream
    from .wire import Answer

QUICKSORT = {
    "model": "deepseek-chat",
    "messages": [
        {"role": "system", "content": "You are a professional programming assistant."},
        {"role": "user", "content": "Please write a Python quicksort function for me."},
    ],
    "max_tokens": 1000,
}
POEM = {
    "model": "deepseek-chat",
    "messages": [{"role": "user", "content": "Write a poem about programming"}],
    "stream": True,
}
#: The answer in the document, byte for byte.
ANSWER = (
    b'{"id": "chatcmpl-123","object": "chat.completion","created": 1677652288,"model": "deepseek-chat","choices": '
    b'[{"index": 0,"message": {"role": "assistant","content": "Hello! I\'m DeepSeek, happy to help you."},'
    b'"finish_reason": "stop"}],"usage": {"prompt_tokens": 20,"completion_tokens": 15,"total_tokens": 35}}'
)
_CHUNK = (
    '{"id":"chatcmpl-123","object":"chat.completion.chunk","created":1677652288,"model":"deepseek-chat",'
    '"choices":[{"index":0,"delta":%s,"finish_reason":%s}]}'
)
#: The stream in the document.
STREAM = [
    sse(_CHUNK % ('{"role":"assistant"}', "null")),
    sse(_CHUNK % ('{"content":"Hello"}', "null")),
    sse(_CHUNK % ('{"content":"!"}', "null")),
    sse(_CHUNK % ("{}", '"stop"')),
    b"data: [DONE]\n\n",
]
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture
async def worker(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Gateway]:
    gateway = await shipped.start(tmp_path, upstream)
    yield gateway
    await gateway.close()


async def post(gateway: Gateway, body: Any, *, accept: str | None = None, key: str | None = KEY) -> Answer:
    """`POST /chat` with the document's headers."""
    headers = [("Content-Type", "application/json"), *([("Accept", accept)] if accept else [])]
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await gateway.request("POST", "/chat", key=key, headers=headers, body=raw)


# Health...


async def test_the_health_check_needs_no_key_and_says_exactly_three_things(worker):
    answer = await worker.request("GET", "/", key=None, headers={"Accept": "*/*", "User-Agent": "curl/8.5.0"})
    told = await answer.json()
    assert answer.status == 200
    assert answer.header("content-type") == "application/json"
    assert list(told) == ["status", "service", "timestamp"]
    assert (told["status"], told["service"]) == ("ok", "AI Proxy")
    assert TIMESTAMP.fullmatch(told["timestamp"])
    assert abs((datetime.now(UTC) - datetime.fromisoformat(told["timestamp"])).total_seconds()) < 60


# Whole answers...


async def test_the_whole_answer_is_the_providers_to_the_byte(upstream, worker):
    upstream.script = whole(ANSWER)
    answer = await post(worker, QUICKSORT, accept="application/json")
    assert answer.status == 200
    assert answer.header("content-type") == "application/json"
    assert await answer.body() == ANSWER
    call = await upstream.arrived()
    assert call.header("authorization") == f"Bearer {shipped.SECRETS['DEEPSEEK_API_KEY']}"
    assert call.asked == QUICKSORT


async def test_every_documented_parameter_reaches_the_provider(upstream, worker):
    body = {
        **QUICKSORT,
        "stream": False,
        "max_tokens": 2048,
        "temperature": 1.0,
        "top_p": 0.9,
        "frequency_penalty": -2,
        "presence_penalty": 2,
        "stop": ["END", "\n\n"],
        "seed": 7,
    }
    assert (await post(worker, body)).status == 200
    assert (await upstream.arrived()).body == json.dumps(body).encode()


@pytest.mark.parametrize("stop", ["END", ["a", "b"], None])
async def test_stop_may_be_text_list_or_null(upstream, worker, stop):
    assert (await post(worker, {**QUICKSORT, "stop": stop})).status == 200
    assert (await upstream.arrived()).asked["stop"] == stop


@pytest.mark.parametrize("model", ["deepseek-chat", "deepseek-reasoner"])
async def test_both_documented_models_are_there(upstream, worker, model):
    answer = await post(worker, {**QUICKSORT, "model": model})
    assert (await answer.json())["model"] == model
    assert (await upstream.arrived()).asked["model"] == model


async def test_a_request_without_a_model_gets_the_default(upstream, worker):
    answer = await post(worker, {"messages": QUICKSORT["messages"]})
    assert answer.status == 200
    assert answer.header("x-proxy-model") == "deepseek-chat"
    assert (await upstream.arrived()).asked["model"] == "deepseek-chat"


async def test_javascript_reads_the_answer(upstream, worker):
    upstream.script = whole(ANSWER)
    body = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "Hello, please introduce yourself"}]}
    answer = await post(worker, {**body, "max_tokens": 1000}, accept="*/*")
    assert answer.status == 200  # `response.ok`
    assert (await answer.json())["choices"][0]["message"]["content"] == "Hello! I'm DeepSeek, happy to help you."


async def test_python_reads_the_answer(worker):
    payload = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1000}
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{worker.url}/chat", headers=headers, json=payload) as response,
    ):
        response.raise_for_status()
        data = await response.json()
    assert data["choices"][0]["message"]["content"] == "Hello!"


async def test_swifts_body_is_understood(upstream, worker):
    # JSONSerialization escapes slashes and keeps no order.
    body = (
        b'{"max_tokens":1000,"messages":[{"role":"user","content":"Hello, see https:\\/\\/example.org"}],'
        b'"model":"deepseek-chat"}'
    )
    answer = await post(worker, body, accept="*/*")
    assert answer.status == 200
    assert (await answer.json())["choices"][0]["message"]["content"] == "Hello!"
    assert (await upstream.arrived()).body == body


# Streams...


async def test_the_stream_is_the_documents_frame_by_frame(upstream, worker):
    upstream.script = pieces([b"".join(STREAM)])
    answer = await post(worker, POEM, accept="text/event-stream")
    assert answer.status == 200
    assert answer.header("content-type") == "text/event-stream; charset=utf-8"
    assert [frame.raw for frame in await answer.frames()] == STREAM
    assert answer.whole


@pytest.mark.parametrize(
    ("accept", "fields", "streamed"),
    [
        pytest.param("text/event-stream", {"stream": True}, True, id="asked-twice"),
        pytest.param("text/event-stream", {}, True, id="accept-alone-asks-for-a-stream"),
        pytest.param("text/event-stream", {"stream": None}, True, id="null-is-not-given"),
        pytest.param("application/json, Text/Event-Stream;q=0.9", {}, True, id="accept-is-a-list"),
        pytest.param("text/event-stream", {"stream": False}, False, id="what-is-given-wins"),
        pytest.param("application/json", {"stream": True}, True, id="what-is-given-wins-over-json"),
        pytest.param("application/json", {}, False, id="json"),
        pytest.param("*/*", {}, False, id="anything"),
        pytest.param(None, {}, False, id="no-accept"),
    ],
)
async def test_who_gets_a_stream(upstream, worker, accept, fields, streamed):
    answer = await post(worker, {**QUICKSORT, **fields}, accept=accept)
    kind = "text/event-stream; charset=utf-8" if streamed else "application/json"
    assert (answer.status, answer.header("content-type")) == (200, kind)
    assert bool((await upstream.arrived()).asked.get("stream")) is streamed
    await answer.body()


async def javascript(answer: Answer) -> tuple[list[str], bool]:
    """The document's reading loop: what each read gives is decoded and split alone, no remainder is kept."""
    told = []
    async for value in answer.chunks():
        for line in value.decode("utf-8", "replace").split("\n"):
            if not line.startswith("data: "):
                continue
            data = line[6:]
            if data == "[DONE]":
                return told, True
            try:
                parsed = json.loads(data)
            except ValueError:
                continue  # the example ignores what it cannot parse
            choices = parsed["choices"]
            if content := (choices[0] if choices else {}).get("delta", {}).get("content"):
                told.append(content)
    return told, False


WORDS = ["Schöne ", "Grüße ", "aus ", "東京 ", "🙂", "\u2028", '"quoted"\n']


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000, 100_000])
async def test_javascripts_reader_loses_nothing_wherever_the_provider_cuts(upstream, worker, size):
    raw = b"".join(frame if isinstance(frame, bytes) else sse(frame) for frame in conversation(*WORDS, usage=usage()))
    upstream.script = pieces([raw[at : at + size] for at in range(0, len(raw), size)])
    answer = await post(worker, POEM, accept="text/event-stream")
    assert await javascript(answer) == (WORDS, True)


async def test_pythons_reader_takes_every_line(upstream, worker):
    # `parsed["choices"][0]` would raise for the usage chunk that the gateway has asked for.
    upstream.script = pieces([sse(f) if isinstance(f, dict) else f for f in conversation(*WORDS, usage=usage())])
    told, done = [], False
    headers = {"Authorization": f"Bearer {KEY}", "Accept": "text/event-stream"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{worker.url}/chat", headers=headers, json=POEM) as response,
    ):
        response.raise_for_status()
        async for line in response.content:
            text = line.rstrip(b"\r\n").decode()
            if text.startswith("data: "):
                if text[6:] == "[DONE]":
                    done = True
                    break
                if content := json.loads(text[6:])["choices"][0]["delta"].get("content"):
                    told.append(content)
    assert (told, done) == (WORDS, True)
    assert (await upstream.arrived()).asked["stream_options"] == {"include_usage": True}


# Errors...


def assert_error(told: dict[str, str], kind: str) -> None:
    """The one form of all errors."""
    assert list(told) == ["error", "details", "timestamp"]
    assert told["error"] == kind
    assert told["details"]
    assert TIMESTAMP.fullmatch(told["timestamp"])


async def test_400(worker):
    answer = await post(worker, b"{")
    assert answer.status == 400
    assert_error(await answer.json(), "invalid_request")


@pytest.mark.parametrize("key", [None, "YOUR_PROXY_KEY"])
async def test_401(worker, key):
    answer = await post(worker, QUICKSORT, key=key)
    assert answer.status == 401
    assert_error(await answer.json(), "unauthorized")


@pytest.mark.parametrize("path", ["/nowhere", "/chat/", "/chats", "/api", "/v1", "/v1beta"])
async def test_404(worker, path):
    answer = await worker.request("POST", path, json=QUICKSORT)
    assert answer.status == 404
    assert_error(await answer.json(), "not_found")


async def test_404_for_a_model_names_those_that_are_near(worker):
    answer = await post(worker, {**QUICKSORT, "model": "deepseek-chad"})
    told = await answer.json()
    assert answer.status == 404
    assert_error(told, "not_found")
    assert "deepseek-chat" in told["details"]


async def test_413_before_a_byte_of_the_body_was_sent(worker):
    client = await worker.connect()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(33_554_433))]
    answer = await client.ask("POST", "/chat", headers=authorized(KEY, headers))
    told = await answer.json()
    assert answer.status == 413
    assert_error(told, "payload_too_large")
    assert "33554432 bytes (limits.max_body_bytes)" in told["details"]


async def test_500_says_its_request_id_and_nothing_else(worker, monkeypatch, caplog):
    def broken(*_: object) -> None:
        raise RuntimeError("a mistake with a prompt in it")

    monkeypatch.setattr("proxy.handlers.Attempt", broken)
    answer = await post(worker, QUICKSORT)
    told = await answer.json()
    assert answer.status == 500
    assert_error(told, "internal_error")
    assert told["details"] == f"internal error; request id {answer.header('x-request-id')}"
    assert [record.levelname for record in caplog.records] == ["ERROR"]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(refusal(500, "out of order"), id="the-provider-answers-500"),
        pytest.param(refusal(401, "Incorrect API key provided: sk-deepseek-secret"), id="it-refuses-our-key"),
        pytest.param(whole(b"<html>", headers={"Content-Type": "text/html"}), id="it-answers-a-page"),
        pytest.param(whole({"object": "chat.completion"}), id="it-answers-something-else"),
        pytest.param(hung_up(), id="it-hangs-up"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_502(upstream, worker, script, stream):
    upstream.script = script
    answer = await post(worker, {**QUICKSORT, "stream": stream})
    told = await answer.body()
    assert answer.status == 502
    assert_error(json.loads(told), "upstream_error")
    assert b"sk-deepseek-secret" not in told


@pytest.mark.parametrize(("stream", "clock"), [(False, "total"), (True, "first_byte")])
async def test_504_names_the_clock(upstream, tmp_path, stream, clock):
    upstream.script = silent()
    worker = await shipped.start(tmp_path, upstream, replace=(f"# {clock} = ", f"{clock} = 0.2  # "))
    answer = await post(worker, {**QUICKSORT, "stream": stream})
    told = await answer.json()
    assert answer.status == 504
    assert_error(told, "timeout")
    assert f"timeouts.{clock}" in told["details"]
    await worker.close()


async def test_an_error_inside_a_stream_has_the_same_form(upstream, worker):
    upstream.script = pieces([sse(chunk("Hel")), sse({"error": {"message": "out of order", "type": "server_error"}})])
    answer = await post(worker, POEM, accept="text/event-stream")
    first, error = await answer.events()
    assert first.content == "Hel"
    assert_error(error.json, "upstream_error")
    assert "out of order" in error.json["details"]


async def test_javascripts_error_handler_finds_status_kind_and_details(worker):
    answer = await post(worker, QUICKSORT, key="wrong", accept="*/*")
    error = await answer.json()
    said = f"API Error ({answer.status}): {error['error']} - {error['details']}"
    assert said == "API Error (401): unauthorized - this key is not known"
    assert answer.header("access-control-allow-origin") == "*"  # or the page could read none of it


async def test_another_answer_than_the_documents_passes_too(upstream, worker):
    """What the document does not know survives: reasoning, fingerprints, cache figures."""
    message = {"role": "assistant", "content": "4", "reasoning_content": "2 + 2"}
    told = completion(system_fingerprint="fp", usage=usage(prompt_cache_hit_tokens=3))
    told["choices"][0]["message"] = message
    upstream.script = whole(told)
    assert await (await post(worker, QUICKSORT)).json() == told
