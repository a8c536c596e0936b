"""HTTP between gateway and provider: what is asked, what is believed, when a connection is used again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import KEY, UPSTREAM_KEY
from .speakers import OPENAI, SIMPLE, forms, settled, speakers
from .upstream import (
    EVENT_STREAM,
    JSON,
    Call,
    Upstream,
    compact,
    completion,
    conversation,
    redirect,
    refusal,
    stream,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Callable


WHOLE = compact(completion()).encode()


# Asking


async def test_a_request_carries_what_is_configured_and_nothing_of_the_client_s(upstream: Upstream, gateway: Callable):
    one = await gateway(providers=[{"name": "up", "headers": {"X-Team": "blue", "user-agent": "ours"}}])
    told = [
        ("Cookie", "session=1"),
        ("User-Agent", "client/1"),
        ("x-api-key", "sk-other"),
        ("x-goog-api-key", "sk-other"),
        ("OpenAI-Organization", "org-client"),
        ("X-Forwarded-For", "1.2.3.4"),
        ("Accept-Encoding", "br"),
        ("X-Stainless-Lang", "python"),
        ("x-request-id", "client-id"),
        ("Proxy-Authorization", "Basic x"),
        ("TE", "trailers"),
    ]
    await (await one.chat(headers=told)).body()
    call = await upstream.arrived()
    assert (call.method, call.target) == ("POST", "/v1/chat/completions")
    assert call.headers == [
        ("Host", f"127.0.0.1:{upstream.port}"),
        ("Content-Type", "application/json"),
        ("Accept", "text/event-stream, application/json"),
        ("Accept-Encoding", "identity"),
        ("Authorization", f"Bearer {UPSTREAM_KEY}"),
        ("X-Team", "blue"),
        ("user-agent", "ours"),
        ("Content-Length", str(len(call.body))),
    ]
    assert KEY not in str(call.headers) + call.body.decode()


async def test_our_own_agent_is_named_where_nothing_else_is(upstream, gateway):
    await (await (await gateway()).chat()).body()
    assert (await upstream.arrived()).header("User-Agent").startswith("ai-proxy/")


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/openai", "/openai/v1/"])
async def test_a_base_url_means_the_same_with_and_without_v1(upstream, gateway, path):
    await (await (await gateway(providers=[{"name": "up", "base_url": upstream.url + path}])).chat()).body()
    prefix = "/openai" if "openai" in path else ""
    assert (await upstream.arrived()).target == prefix + "/v1/chat/completions"


BODY = b' {"messages" : [{"role":"user","content":"\xc3\xbc\\u00fc","x":1e5}],\n"model":"m", "n":%d, "stream":%b %b}'


@pytest.mark.parametrize("stream", [b"false", b"true"], ids=["whole", "streamed"])
async def test_a_body_that_needs_no_change_goes_byte_for_byte(upstream, gateway, stream):
    body = BODY % (10**30, stream, b',"stream_options":{"include_usage":true}')
    answer = await (await gateway()).request(
        "POST", OPENAI.path, body=body, headers={"Content-Type": "application/json"}
    )
    await answer.rest()
    assert (await upstream.arrived()).body == body


async def test_only_what_must_change_changes(upstream, gateway):
    body = BODY % (10**30, b"true", b"")
    one = await gateway(models=[{"id": "m", "upstream": "@vendor/real-name"}])
    answer = await one.request("POST", OPENAI.path, body=body, headers={"Content-Type": "application/json"})
    await answer.rest()
    call = await upstream.arrived()
    assert b'[{"role":"user","content":"\xc3\xbc\\u00fc","x":1e5}]' in call.body
    assert b"1000000000000000000000000000000" in call.body
    asked = call.asked
    assert asked.pop("stream_options") == {"include_usage": True}
    assert asked.pop("model") == "@vendor/real-name"
    assert list(asked) == ["messages", "n", "stream"]


@pytest.mark.parametrize("kind", ["deepseek", "ollama", "workers-ai", "openai"])
async def test_the_developer_role_is_known_to_openai_only(upstream, gateway, kind):
    account = {"account_id": "a" * 32} if kind == "workers-ai" else {}
    one = await gateway(providers=[{"name": "up", "kind": kind, "base_url": upstream.url, **account}])
    turns = [{"role": "developer", "content": "Be terse.", "name": "dev"}, {"role": "user", "content": "Hi"}]
    await (await one.chat(messages=turns)).body()
    told = (await upstream.arrived()).asked["messages"]
    assert told[0] == {**turns[0], "role": "developer" if kind == "openai" else "system"}
    assert told[1] == turns[1]


async def test_fields_that_a_provider_refuses_are_dropped(upstream, gateway):
    one = await gateway(providers=[{"name": "up", "drop": ["user", "metadata"]}])
    await (await one.chat(user="me", metadata={"a": 1}, seed=7)).body()
    asked = (await upstream.arrived()).asked
    assert set(asked) == {"model", "messages", "seed"}


@pytest.mark.parametrize("ask_usage", [True, False])
@speakers
async def test_usage_is_asked_for_where_the_provider_takes_it(upstream, gateway, speaker, ask_usage):
    one = await gateway(providers=[{"name": "up", "ask_usage": ask_usage}])
    assert (await speaker.heard(await speaker.ask(one))).complete
    assert (await upstream.arrived()).asked.get("stream_options") == ({"include_usage": True} if ask_usage else None)


async def test_usage_is_not_asked_for_a_whole_answer(upstream, gateway):
    await (await (await gateway()).chat()).body()
    assert "stream_options" not in (await upstream.arrived()).asked


async def test_other_stream_options_of_the_client_s_stay(upstream, gateway):
    answer = await OPENAI.ask(await gateway(), stream_options={"include_obfuscation": False, "include_usage": False})
    await answer.rest()
    assert (await upstream.arrived()).asked["stream_options"] == {"include_obfuscation": False, "include_usage": True}


# Refusals


@forms
@pytest.mark.parametrize("status", [400, 404, 413, 422, 429])
async def test_what_a_provider_judges_keeps_status_words_and_retry_after(upstream, gateway, speaker, streamed, status):
    said = f"no: {UPSTREAM_KEY} at {upstream.url}"
    upstream.script = refusal(
        status, said, {"Retry-After": "17"}, type="their_type", code="their_code", param="messages[0]"
    )
    one = await gateway()
    answer = await speaker.ask(one, stream=streamed)
    assert answer.status == status
    assert answer.values("Retry-After") == ["17"]
    body = await answer.json()
    assert UPSTREAM_KEY not in str(body)
    assert "127.0.0.1" not in str(body)
    assert speaker.error(body).message.startswith("no: ")
    if speaker is OPENAI:
        told = body["error"]
        assert (told["type"], told["code"], told["param"]) == ("their_type", "their_code", "messages[0]")
    assert await settled(one, outcome="refused", status=str(status)) == 1


@speakers
@pytest.mark.parametrize("status", [401, 403])
async def test_a_provider_that_refuses_our_key_is_not_quoted(upstream, gateway, speaker, status):
    upstream.script = refusal(status, "Incorrect API key: sk-up****cret", code="invalid_api_key")
    answer = await speaker.ask(await gateway())
    assert answer.status == 502
    assert answer.header("WWW-Authenticate") is None
    told = speaker.error(await answer.json())
    assert told.kind == "upstream_error"
    assert "sk-up" not in told.message
    assert str(status) in told.message


@pytest.mark.parametrize("status", [402, 405, 408, 409, 418, 498, 500, 501, 502, 503, 504, 520, 529, 599])
async def test_every_other_status_is_a_fault_of_upstream_s(upstream, gateway, status):
    speaker = (OPENAI, SIMPLE)[status % 2]
    upstream.script = refusal(status, "it broke", {"Retry-After": "3"})
    answer = await speaker.ask(await gateway(), stream=status % 2 == 0)
    assert answer.status == 502
    assert answer.values("Retry-After") == ["3"]
    told = speaker.error(await answer.json())
    assert told.kind == "upstream_error"
    assert str(status) in told.message


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(upstream, gateway, status):
    speaker = (OPENAI, SIMPLE)[status % 2]
    async with Upstream() as elsewhere:
        upstream.script = redirect(f"{elsewhere.url}/v1/chat/completions", status)
        answer = await speaker.ask(await gateway(), stream=status % 2 == 0)
        assert answer.status == 502
        assert answer.header("Location") is None
        assert "redirects are not followed" in speaker.error(await answer.json()).message
        assert elsewhere.connections == []
        assert len(upstream.calls) == 1


@pytest.mark.parametrize(
    ("body", "content_type", "says"),
    [
        (b"<html>nginx</html>", "text/html", "the provider failed (503)"),
        (b"", "text/plain", "the provider failed (503)"),
        (b"overloaded, come back", "text/plain", "the provider failed (503): overloaded, come back"),
        (b'{"detail":[{"msg":"bad"}]}', "application/json", "the provider failed (503): bad"),
        (b'{"errors":[{"code":1,"message":"neurons"}]}', "application/json", "the provider failed (503): neurons"),
        (b'[{"error":{"message":"quota"}}]', "application/json", "the provider failed (503): quota"),
        (b'"just text"', "application/json", "the provider failed (503): just text"),
        (b"\xff\xfe{", "application/json", "the provider failed (503)"),
    ],
    ids=["html", "nothing", "text", "detail", "errors", "a-list", "a-string", "bytes"],
)
async def test_whatever_shape_an_error_has_it_is_told(upstream, gateway, body, content_type, says):
    upstream.script = whole(body, 503, {"Content-Type": content_type})
    answer = await (await gateway()).chat()
    assert answer.status == 502
    assert (await answer.json())["error"]["message"].startswith(says)


async def test_a_refused_connection_is_told_without_its_address(upstream, gateway):
    one = await gateway()
    upstream.refuse()
    for speaker in (OPENAI, SIMPLE):
        answer = await speaker.ask(one)
        assert answer.status == 502
        told = speaker.error(await answer.json())
        assert told.message == "no connection to the provider: connection refused"


async def test_a_name_that_does_not_resolve_is_told_without_it(gateway):
    one = await gateway(url="http://no-such-host.invalid")
    answer = await one.chat()
    assert answer.status in {502, 504}
    assert "invalid" not in OPENAI.error(await answer.json()).message


# Headers of answers


FOREIGN = {
    "Set-Cookie": "a=b",
    "Server": "cloudflare",
    "x-goog-api-key": "sk-leak",
    "Authorization": "Bearer leak",
    "Location": "http://elsewhere",
    "openai-organization": "org-1",
    "Access-Control-Allow-Origin": "https://evil.example",
    "x-proxy-model": "spoofed",
    "x-request-id": "req-theirs",
    "openai-processing-ms": "12",
    "openai-version": "2020-10-01",
    "x-ratelimit-remaining-requests": "7",
    "anthropic-ratelimit-tokens-limit": "9",
    "Via": "1.1 somewhere",
    "X-Custom": "x",
    "Retry-After": "1",
    "Connection": "keep-alive",
}


@speakers
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
async def test_headers_pass_an_allow_list(upstream, gateway, speaker, streamed):
    upstream.script = (
        stream(conversation("a"), headers={**EVENT_STREAM, **FOREIGN})
        if streamed
        else whole(headers={**JSON, **FOREIGN})
    )
    answer = await speaker.ask(await gateway(), stream=streamed)
    told = {name.lower(): value for name, value in answer.headers}
    assert {name: told[name] for name in told if name in {n.lower() for n in FOREIGN}} == {
        "server": "ai-proxy",
        "access-control-allow-origin": "*",
        "x-proxy-model": "m",
        "x-request-id": told["x-request-id"],
        "openai-processing-ms": "12",
        "openai-version": "2020-10-01",
        "x-ratelimit-remaining-requests": "7",
        "anthropic-ratelimit-tokens-limit": "9",
        "retry-after": "1",
    } | ({"connection": told["connection"]} if "connection" in told else {})
    assert told["x-request-id"] != "req-theirs"
    assert told["x-upstream-request-id"] == "req-theirs"
    assert len(told) == len(answer.headers)  # none twice
    await answer.rest()


@pytest.mark.parametrize("limit", ["requests_per_minute", "tokens_per_minute"])
async def test_our_limits_hide_the_provider_s(upstream, gateway, limit):
    upstream.script = whole(
        headers={**JSON, "x-ratelimit-limit-requests": "7", "x-ratelimit-limit-tokens": "7", "x-ratelimit-x": "7"}
    )
    answer = await (await gateway(keys=[{"name": "laptop", limit: 1000}])).chat()
    told = {name: value for name, value in answer.headers if name.startswith("x-ratelimit-")}
    assert told[f"x-ratelimit-limit-{limit.partition('_')[0]}"] == "1000"
    assert "7" not in told.values()


async def test_headers_lose_secrets_and_hosts_too(upstream, gateway):
    upstream.script = whole(
        headers={**JSON, "openai-note": f"{UPSTREAM_KEY} {upstream.url}", "x-request-id": UPSTREAM_KEY}
    )
    answer = await (await gateway()).chat()
    assert UPSTREAM_KEY not in str(answer.headers)
    assert "127.0.0.1" not in str(answer.headers)


async def test_trailers_are_no_headers(upstream, gateway):
    async def script(call: Call) -> None:
        await call.head(200, JSON)
        await call.send(WHOLE)
        await call.done({"x-request-id": "late", "openai-version": "late", "retry-after": "9"})

    upstream.script = script
    one = await gateway()
    answer = await one.chat()
    assert answer.status == 200
    assert "late" not in str(answer.headers)
    assert answer.header("retry-after") is None
    await (await one.chat()).body()
    assert upstream.calls[1].reused
