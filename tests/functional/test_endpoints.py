"""Every path of the table, who may ask it, and which refusal comes first where there are several reasons."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from . import KEY, authorized, chat_body
from .upstream import whole

ADMIN = "sk-admin-key"
ADMINS = [{"name": "chief", "key": ADMIN, "admin": True}]
JSON = {"Content-Type": "application/json"}
TEXT = {"Content-Type": "text/plain"}

PUBLIC = ["/", "/health", "/livez", "/readyz"]
#: Path below /v1, and whether it is asked with POST and this body.
BELOW_V1: dict[str, Any] = {
    "chat/completions": chat_body(),
    "completions": {"model": "m", "prompt": "Hi"},
    "embeddings": {"model": "m", "input": "Hi"},
    "models": None,
    "models/m": None,
}


def form(body: bytes) -> str:
    """Which dialect an error is told in."""
    told = json.loads(body)
    if isinstance(told["error"], str):
        assert list(told) == ["error", "details", "timestamp"]
        return "simple"
    if told.get("type") == "error":
        assert list(told["error"]) == ["type", "message"]
        return "anthropic"
    if "status" in told["error"]:
        assert list(told["error"]) == ["code", "message", "status"]
        return "gemini"
    assert list(told["error"]) == ["message", "type", "param", "code"]
    return "openai"


# What is public...


@pytest.mark.parametrize("path", PUBLIC)
async def test_probes_ask_for_no_key(gateway, path):
    gw = await gateway()
    for key in (None, KEY, "wrong"):
        answer = await gw.request("GET", path, key=key)
        assert (answer.status, answer.header("content-type")) == (200, "application/json")
        assert await answer.json()


@pytest.mark.parametrize("path", PUBLIC)
async def test_head_is_get_without_a_body(gateway, path):
    gw = await gateway()
    client = await gw.connect()
    answer = await client.ask("HEAD", path)
    assert answer.status == 200
    assert int(answer.header("content-length")) > 0
    assert await answer.body() == b""
    assert (await client.ask("GET", path)).status == 200  # nothing of a body stood in between


async def test_the_root_says_its_configured_name_and_that_it_depends_on_accept(gateway):
    gw = await gateway(server={"name": "Our models"})
    answer = await gw.request("GET", "/", key=None)
    told = await answer.json()
    assert (told["status"], told["service"]) == ("ok", "Our models")
    assert "Accept" in answer.header("vary")


async def test_health_says_ok_and_nothing_else(gateway):
    gw = await gateway()
    assert await (await gw.request("GET", "/health", key=None)).body() == b'{"ok":true}'


async def test_readyz_is_503_when_nothing_can_be_asked(gateway):
    gw = await gateway(providers=[{"name": "up", "api_key": "env:NOT_SET_ANYWHERE"}])
    ready = await gw.request("GET", "/readyz", key=None)
    assert ready.status == 503
    assert int(ready.header("retry-after")) > 0
    assert (await ready.json())["error"] == "overloaded"
    assert (await gw.request("GET", "/livez", key=None)).status == 200


# What needs a key...


@pytest.mark.parametrize(
    ("method", "path", "told"),
    [
        ("GET", "/v1/models", "openai"),
        ("GET", "/v1/models/m", "openai"),
        ("GET", "/api/models", "simple"),
        ("GET", "/metrics", "simple"),
        ("POST", "/chat", "simple"),
        ("POST", "/api/chat", "simple"),
        ("POST", "/v1/chat/completions", "openai"),
        ("POST", "/v1/completions", "openai"),
        ("POST", "/v1/embeddings", "openai"),
        ("POST", "/v1/responses", "openai"),
        ("POST", "/v1/messages", "anthropic"),
        ("POST", "/messages/count_tokens", "anthropic"),
        ("GET", "/v1beta/models", "gemini"),
        ("POST", "/v1beta/models/m:generateContent", "gemini"),
        ("POST", "/v1/models/m:streamGenerateContent", "gemini"),
    ],
)
async def test_everything_else_does(upstream, gateway, method, path, told):
    gw = await gateway()
    answer = await gw.request(method, path, key=None, json=chat_body() if method == "POST" else None)
    assert answer.status == 401
    assert answer.header("www-authenticate") == "Bearer"
    assert form(await answer.body()) == told
    assert upstream.calls == []


async def test_metrics_need_an_admins_key(gateway):
    gw = await gateway(keys=ADMINS)
    refused = await gw.request("GET", "/metrics")
    assert refused.status == 403
    assert (await refused.json())["error"] == "forbidden"
    granted = await gw.request("GET", "/metrics", key=ADMIN)
    assert (granted.status, granted.header("content-type")) == (200, "text/plain; version=0.0.4; charset=utf-8")


# /v1 is forgiven...


@pytest.mark.parametrize("prefix", ["/v1", "", "/v1/v1"])
@pytest.mark.parametrize("path", BELOW_V1)
async def test_v1_may_be_missing_or_doubled_and_errors_are_openais_all_the_same(gateway, prefix, path):
    gw = await gateway()
    body = BELOW_V1[path]
    answer = await gw.request("POST" if body else "GET", f"{prefix}/{path}", json=body)
    assert answer.status == 200
    assert await answer.json()
    refused = await gw.request("POST" if body else "GET", f"{prefix}/{path}", key="wrong", json=body)
    assert refused.status == 401
    assert form(await refused.body()) == "openai"


async def test_embeddings_and_completions_are_passed_on_as_they_are(upstream, gateway):
    gw = await gateway()
    told = b'{"object": "text_completion", "choices": [ {"index":0,"text":"Hello","finish_reason":"stop"} ]}'
    upstream.script = whole(told)
    body = b'{"model":"m","prompt":["Hi"],"echo":false,"unknown":{"deep":[1e2]}}'
    answer = await gw.request("POST", "/v1/completions", headers=JSON, body=body)
    assert await answer.body() == told
    call = await upstream.arrived()
    assert (call.path, call.body) == ("/v1/completions", body)

    told = b'{"object": "list", "data": [ {"embedding": "AACAPgAAAL8=", "index": 0} ], "model": "m"}'
    upstream.script = whole(told)
    body = b'{"model":"m","input":[[1,2]],"encoding_format":"base64","dimensions":2}'
    answer = await gw.request("POST", "/v1/embeddings", headers=JSON, body=body)
    assert await answer.body() == told
    call = await upstream.arrived()
    assert (call.path, call.body) == ("/v1/embeddings", body)


async def test_embeddings_are_never_a_stream(upstream, gateway):
    body = {"model": "m", "input": "Hi", "stream": True}
    answer = await (await gateway()).request("POST", "/v1/embeddings", json=body)
    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    assert (await answer.json())["data"][0]["embedding"] == [0.25, -0.5]
    assert (await upstream.arrived()).asked == body


async def test_a_provider_without_an_operation_is_not_asked_for_it(upstream, gateway):
    gw = await gateway(
        providers=[{"name": "deep", "kind": "deepseek", "base_url": upstream.url, "api_key": "sk-deepseek-secret"}],
        models=[{"id": "chatty", "provider": "deep"}],
    )
    answer = await gw.request("POST", "/v1/embeddings", json={"model": "chatty", "input": "Hi"})
    assert answer.status == 404
    assert (await answer.json())["error"]["param"] == "model"
    assert upstream.calls == []


# What is not there...


@pytest.mark.parametrize(
    ("method", "path", "told"),
    [
        pytest.param("GET", "/nowhere", "simple", id="elsewhere"),
        pytest.param("GET", "/v1", "simple", id="v1-itself"),
        pytest.param("GET", "/v1/nowhere", "openai", id="below-v1"),
        pytest.param("GET", "/v1/models/", "openai", id="a-model-without-a-name"),
        pytest.param("POST", "/v1/v1/v1/chat/completions", "openai", id="v1-three-times"),
        pytest.param("GET", "/v1beta/nowhere", "gemini", id="below-v1beta"),
        pytest.param("GET", "/api/nowhere", "simple", id="below-api"),
        pytest.param("GET", "/%2e%2e/etc/passwd", "simple", id="upwards"),
        pytest.param("GET", "/chat/completions/", "simple", id="a-slash-too-many"),
        pytest.param("DELETE", "/nowhere", "simple", id="another-method"),
        pytest.param("OPTIONS", "/nowhere", "simple", id="options"),
    ],
)
async def test_404_in_the_form_of_its_neighbours(gateway, method, path, told):
    gw = await gateway()
    for key in (None, KEY):
        answer = await gw.request(method, path, key=key)
        assert answer.status == 404
        assert form(await answer.body()) == told


@pytest.mark.parametrize(
    ("method", "path", "allow", "told"),
    [
        pytest.param("POST", "/", "GET, HEAD", "simple", id="root"),
        pytest.param("DELETE", "/health", "GET, HEAD", "simple", id="health"),
        pytest.param("GET", "/chat", "POST", "simple", id="chat"),
        pytest.param("GET", "/api/chat", "POST", "simple", id="api-chat"),
        pytest.param("HEAD", "/v1/chat/completions", "POST", "openai", id="head-for-a-post"),
        pytest.param("GET", "/v1/chat/completions", "POST", "openai", id="get-for-a-post"),
        pytest.param("PUT", "/chat/completions", "POST", "openai", id="without-v1"),
        pytest.param("PUT", "/models/@cf%2Fmeta%2Fllama", "GET, HEAD", "openai", id="a-model-without-v1"),
        pytest.param("PUT", "/v1/responses", "POST", "openai", id="responses"),
        pytest.param("GET", "/v1/messages", "POST", "anthropic", id="messages"),
        pytest.param("PUT", "/v1beta/models/m:generateContent", "GET, HEAD, POST", "gemini", id="gemini"),
        pytest.param("PUT", "/v1/models/m:generateContent", "GET, HEAD, POST", "gemini", id="gemini-below-v1"),
        pytest.param("PATCH", "/v1/v1/embeddings", "POST", "openai", id="doubled-v1"),
        pytest.param("POST", "/v1/models", "GET, HEAD", "openai", id="post-for-a-get"),
        pytest.param("DELETE", "/v1/models/@cf/meta/llama", "GET, HEAD", "openai", id="a-model"),
    ],
)
async def test_405_says_which_methods_there_are(gateway, method, path, allow, told):
    gw = await gateway()
    for key in (None, KEY):
        answer = await gw.request(method, path, key=key)
        assert answer.status == 405
        assert answer.header("allow") == allow
        if method != "HEAD":
            assert form(await answer.body()) == told


# Two faults at once: 404, 405, 401, 415, 413, 400, 403...

HUGE = [("Content-Length", "2000000")]
FORBIDDEN = chat_body(model="other")

ORDER = [
    pytest.param("POST", "/nowhere", "wrong", [*TEXT.items(), *HUGE], b"", 404, id="404-before-everything"),
    pytest.param("PUT", "/v1/chat/completions", "wrong", [*TEXT.items(), *HUGE], b"", 405, id="405-before-401"),
    pytest.param("PUT", "/chat", None, [], b"{", 405, id="405-before-401-without-a-key"),
    pytest.param(
        "POST", "/v1/chat/completions", "wrong", [*TEXT.items(), *HUGE], b"", 401, id="401-before-415-and-413"
    ),
    pytest.param("POST", "/api/chat", None, JSON, b"{", 401, id="401-before-400"),
    pytest.param("POST", "/v1/chat/completions", KEY, [*TEXT.items(), *HUGE], b"", 415, id="415-before-413"),
    pytest.param("POST", "/v1/chat/completions", KEY, {}, b"{", 415, id="415-before-400"),
    pytest.param("POST", "/chat", KEY, [*JSON.items(), *HUGE], b"{", 413, id="413-before-400"),
    pytest.param(
        "POST",
        "/v1/chat/completions",
        KEY,
        JSON,
        json.dumps({**FORBIDDEN, "stream": 1}).encode(),
        400,
        id="400-before-403",
    ),
    pytest.param("POST", "/v1/chat/completions", KEY, JSON, json.dumps(FORBIDDEN).encode(), 403, id="403-at-last"),
]


@pytest.mark.parametrize(("method", "path", "key", "headers", "body", "status"), ORDER)
async def test_of_several_faults_the_first_in_order_is_told(
    upstream, gateway, method, path, key, headers, body, status
):
    gw = await gateway(keys=[{"name": "laptop", "models": ["m"]}], models=[{"id": "other", "provider": "up"}])
    client = await gw.connect()
    await client.request(method, path, headers=authorized(key, headers), body=body)
    assert (await client.answer()).status == status
    assert upstream.calls == []


@pytest.mark.parametrize(
    ("method", "path", "key", "headers", "status"),
    [
        pytest.param("POST", "/nowhere", KEY, JSON, 404, id="404"),
        pytest.param("PUT", "/chat", KEY, JSON, 405, id="405"),
        pytest.param("POST", "/chat", "wrong", JSON, 401, id="401"),
        pytest.param("POST", "/chat", KEY, TEXT, 415, id="415"),
        pytest.param("POST", "/chat", KEY, {**JSON, "Content-Encoding": "br"}, 415, id="415-encoding"),
        pytest.param("GET", "/v1/models", KEY, JSON, 200, id="no-fault-at-all"),
    ],
)
@pytest.mark.parametrize("length", [("Content-Length", "1000"), ("Transfer-Encoding", "chunked")], ids=["cl", "te"])
async def test_what_needs_no_body_does_not_wait_for_one(gateway, method, path, key, headers, status, length):
    gw = await gateway()
    client = await gw.connect()
    answer = await client.ask(method, path, headers=[*authorized(key, headers), length])
    assert answer.status == status
    assert answer.interim == []


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        pytest.param("/nowhere", JSON, 404, id="404"),
        pytest.param("/livez", JSON, 405, id="405"),
        pytest.param("/chat", TEXT, 415, id="415"),
        pytest.param("/chat", {**JSON, "Content-Length": "2000000"}, 413, id="413"),
    ],
)
async def test_expect_100_continue_is_answered_with_the_refusal_alone(gateway, path, headers, status):
    gw = await gateway()
    client = await gw.connect()
    sent = {"Content-Length": "1000", **headers, "Expect": "100-continue"}
    answer = await client.ask("POST", path, headers=authorized(KEY, sent))
    assert (answer.interim, answer.status) == ([], status)


async def test_expect_100_continue_gets_its_word_when_the_body_is_wanted(gateway):
    gw = await gateway()
    client = await gw.connect()
    body = json.dumps(chat_body()).encode()
    sent = [*JSON.items(), ("Expect", "100-Continue"), ("Content-Length", str(len(body)))]
    await client.request("POST", "/v1/chat/completions", headers=authorized(KEY, sent))
    while b"\r\n\r\n" not in client.buffer:
        await client.more()
    assert bytes(client.buffer) == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send(body)
    answer = await client.answer()
    assert (answer.interim, answer.status) == ([100], 200)


@pytest.mark.parametrize("path", ["/health", "/nowhere"])
async def test_other_expectations_are_passed_over(gateway, path):
    gw = await gateway()
    answer = await gw.request("GET", path, headers={"Expect": "magic"})
    assert answer.status == (200 if path == "/health" else 404)
    assert answer.header("content-type") == "application/json"
    assert answer.header("x-request-id")


# More than one request on a connection...


async def test_pipelined_requests_are_answered_in_order(gateway):
    gw = await gateway()
    client = await gw.connect()
    for stream in (True, False, True):
        await client.request("POST", "/v1/chat/completions", headers=authorized(KEY), json=chat_body(stream=stream))
    await client.request("GET", "/health")
    kinds = []
    for _ in range(4):
        answer = await client.answer()
        assert answer.status == 200
        kinds.append((answer.header("content-type") or "").partition(";")[0])
        assert await answer.body()
    assert kinds == ["text/event-stream", "application/json", "text/event-stream", "application/json"]


async def test_a_refused_request_leaves_its_connection_usable_once_its_body_has_come(gateway):
    gw = await gateway()
    client = await gw.connect()
    refused = await client.ask("POST", "/chat", headers={**JSON, "Content-Length": "4"})
    assert refused.status == 401
    await refused.body()
    await client.send(b"{}  ")
    await asyncio.sleep(0)
    assert (await gw.chat(connection=client)).status == 200


async def test_an_upgrade_nobody_offers_is_passed_over(gateway):
    gw = await gateway()
    sent = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
    client = await gw.connect()
    for _ in range(2):  # Java's client asks so, and goes on with HTTP/1.1
        answer = await gw.request("POST", "/v1/chat/completions", headers=sent, json=chat_body(), connection=client)
        assert (answer.status, answer.interim) == (200, [])
        await answer.body()
