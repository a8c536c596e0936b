"""What the headers of an answer say: which request it was, who answered, what took how long."""

from __future__ import annotations

import re

import pytest

from . import KEY, UPSTREAM_KEY
from .upstream import conversation, refusal, silent, stream, whole

CHAT = "/v1/chat/completions"
WILD = [{"id": "up/*", "provider": "up"}]


@pytest.mark.parametrize(
    ("script", "fields", "status"),
    [
        pytest.param(None, {}, 200, id="whole"),
        pytest.param(None, {"stream": True}, 200, id="streamed"),
        pytest.param(refusal(400), {}, 400, id="refused"),
        pytest.param(refusal(500), {"stream": True}, 502, id="failed"),
        pytest.param(silent(), {"stream": True}, 504, id="late"),
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/chat", "/api/chat"])
async def test_every_answer_of_a_provider_says_whose_it_is_and_what_took_how_long(
    upstream, gateway, script, fields, status, path
):
    if script is not None:
        upstream.script = script
    gw = await gateway(timeouts={"first_byte": 0.1}, models=WILD)
    answer = await gw.chat(path=path, model="up/gpt", headers={"X-Request-ID": "trace-7"}, **fields)
    await answer.rest()
    assert answer.status == status
    assert answer.values("x-request-id") == ["trace-7"]
    assert answer.values("x-proxy-model") == ["up/gpt"]
    assert answer.values("x-proxy-provider") == ["up"]
    assert answer.values("x-proxy-attempts") == ["1"]
    timing = answer.header("server-timing") or ""
    assert re.fullmatch(r"gateway;dur=[\d.]+, upstream;dur=[\d.]+, total;dur=[\d.]+", timing)
    gateway_ms, upstream_ms, total_ms = (float(part) for part in re.findall(r"dur=([\d.]+)", timing))
    assert gateway_ms + upstream_ms <= total_ms + 0.2
    assert answer.values("server") == ["ai-proxy"]


@pytest.mark.parametrize(
    ("method", "path", "key"),
    [("GET", "/health", None), ("GET", "/nowhere", None), ("POST", CHAT, "wrong"), ("GET", "/v1/models", KEY)],
)
async def test_other_answers_have_an_id_and_their_time(gateway, method, path, key):
    gw = await gateway()
    first, second = [await gw.request(method, path, key=key) for _ in range(2)]
    assert first.header("x-request-id") != second.header("x-request-id")
    for answer in (first, second):
        assert re.fullmatch(r"req_[0-9a-f]{24}", answer.header("x-request-id") or "")
        assert re.fullmatch(r"total;dur=[\d.]+", answer.header("server-timing") or "")
        assert answer.values("server") == ["ai-proxy"]
        assert not answer.values("x-proxy-model")


@pytest.mark.parametrize("asked", [False, True], ids=["whole", "streamed"])
async def test_of_the_providers_headers_only_those_on_the_list_pass(upstream, gateway, asked):
    theirs = {
        "openai-processing-ms": "12",
        "openai-version": "2020-10-01",
        "openai-organization": "org-ours",
        "anthropic-ratelimit-requests-remaining": "9",
        "x-request-id": "req_theirs",
        "Set-Cookie": "a=b",
        "Server": "cloudflare",
        "x-goog-api-key": UPSTREAM_KEY,
        "openai-echo": f"key {UPSTREAM_KEY}",
        "CF-Ray": "8a1",
        "Location": upstream.url,
        "X-Powered-By": "them",
    }
    kind = "text/event-stream" if asked else "application/json"
    head = {"Content-Type": kind, **theirs}
    upstream.script = stream(conversation("a"), headers=head) if asked else whole(headers=head)
    answer = await (await gateway()).chat(stream=asked, headers={"X-Request-ID": "ours"})
    assert answer.status == 200
    told = {name.lower(): value for name, value in answer.headers}
    assert told["openai-processing-ms"] == "12"
    assert told["openai-version"] == "2020-10-01"
    assert told["anthropic-ratelimit-requests-remaining"] == "9"
    assert told["x-request-id"] == "ours"
    assert told["x-upstream-request-id"] == "req_theirs"
    assert told["server"] == "ai-proxy"
    assert told["openai-echo"] == "key [redacted]"
    assert not told.keys() & {
        "set-cookie",
        "x-goog-api-key",
        "cf-ray",
        "location",
        "x-powered-by",
        "openai-organization",
    }
    await answer.body()
