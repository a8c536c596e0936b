"""Limits of keys and of the process: what is refused, what it says, what it costs, and when a place is free again."""

from __future__ import annotations

import json
import re

import pytest

from . import chat_body
from .upstream import (
    Gate,
    broken,
    chunk,
    conversation,
    fault,
    gated_stream,
    held,
    hung_up,
    in_turn,
    ordinary,
    refusal,
    silent,
    stream,
    usage,
    whole,
)

OTHER = "sk-other-key"
CHAT = "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}


def laptop(**limits: int) -> list[dict[str, object]]:
    return [{"name": "laptop", **limits}, {"name": "other", "key": OTHER}]


def ratelimits(answer) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.headers if name.lower().startswith("x-ratelimit-")}


async def assert_limited(answer, said: str) -> None:
    error = (await answer.json())["error"]
    assert answer.status == 429
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert said in error["message"]
    assert 1 <= int(answer.header("retry-after") or 0) <= 120  # the window slides: a minute, and its share of the next


# Requests a minute...


async def test_above_its_requests_a_key_gets_429_and_others_do_not(upstream, gateway):
    gw = await gateway(keys=laptop(requests_per_minute=3))
    for left in (2, 1, 0):
        answer = await gw.chat(stream=left == 1)
        assert answer.status == 200
        told = ratelimits(answer)
        assert told["x-ratelimit-limit-requests"] == "3"
        assert told["x-ratelimit-remaining-requests"] == str(left)
        assert re.fullmatch(r"\d+s", told["x-ratelimit-reset-requests"])
        assert set(told) == {f"x-ratelimit-{what}-requests" for what in ("limit", "remaining", "reset")}
        await answer.body()
    refused = await gw.chat()
    await assert_limited(refused, "3 requests per minute")
    assert ratelimits(refused)["x-ratelimit-remaining-requests"] == "0"
    assert len(upstream.calls) == 3
    other = await gw.chat(key=OTHER)
    assert (other.status, ratelimits(other)) == (200, {})


async def test_the_simple_form_has_its_own_word(gateway):
    gw = await gateway(keys=laptop(requests_per_minute=1))
    assert (await gw.chat(path="/chat")).status == 200
    for path in ("/chat", "/api/chat"):
        answer = await gw.chat(path=path)
        assert (answer.status, (await answer.json())["error"]) == (429, "rate_limited")


async def test_limits_may_be_everybodys(gateway):
    gw = await gateway(limits={"requests_per_minute": 1}, keys=laptop(requests_per_minute=0))
    assert [(await gw.chat(key=OTHER)).status for _ in range(2)] == [200, 429]
    assert [(await gw.chat()).status for _ in range(3)] == [200, 200, 200]  # its own setting says: none


async def test_an_open_gateway_is_one_caller(gateway):
    gw = await gateway(keys=[], limits={"requests_per_minute": 2})
    assert [(await gw.chat(key=key)).status for key in (None, "a", "b")] == [200, 200, 429]


async def test_lists_and_probes_are_not_counted(gateway):
    gw = await gateway(keys=laptop(requests_per_minute=1, tokens_per_minute=1, streams=1), limits={"max_streams": 1})
    for path in ("/v1/models", "/v1/models/m", "/api/models", "/health", "/nowhere", CHAT) * 2:
        assert (await gw.request("GET", path)).status < 429
    assert (await gw.chat()).status == 200


# Refused requests cost nothing...


REFUSED = [
    pytest.param(b"{", JSON, 400, id="400"),
    pytest.param(b"", JSON, 400, id="400-empty"),
    pytest.param(json.dumps(chat_body(messages=[])).encode(), JSON, 400, id="400-a-field"),
    pytest.param(b"{}", {}, 415, id="415"),
    pytest.param(b"", {**JSON, "Content-Length": "2000000"}, 413, id="413"),
    pytest.param(json.dumps(chat_body(model="none")).encode(), JSON, 404, id="404"),
    pytest.param(json.dumps(chat_body(model="other")).encode(), JSON, 403, id="403"),
]


@pytest.mark.parametrize(("body", "headers", "status"), REFUSED)
async def test_what_we_refuse_costs_nothing(gateway, body, headers, status):
    gw = await gateway(
        keys=laptop(requests_per_minute=2, tokens_per_minute=100, models=["m"]),
        models=[{"id": "other", "provider": "up"}],
    )
    for _ in range(4):
        answer = await gw.request("POST", CHAT, headers=headers, body=body)
        assert answer.status == status
    assert ratelimits(await gw.chat())["x-ratelimit-remaining-requests"] == "1"


@pytest.mark.parametrize("status", [400, 404, 413, 422, 429])
@pytest.mark.parametrize("asked", [False, True], ids=["whole", "streamed"])
async def test_what_the_provider_refuses_costs_nothing_either(upstream, gateway, status, asked):
    upstream.script = refusal(status, usage=usage())
    gw = await gateway(keys=laptop(requests_per_minute=2, tokens_per_minute=100))
    for _ in range(4):
        assert (await gw.chat(stream=asked)).status == status
    upstream.script = ordinary()
    told = ratelimits(await gw.chat())
    assert told["x-ratelimit-remaining-requests"] == "1"
    assert told["x-ratelimit-remaining-tokens"] == "100"


@pytest.mark.parametrize("script", [refusal(500), hung_up(), whole(b"nonsense"), refusal(401)])
async def test_what_fails_on_the_other_side_is_counted(upstream, gateway, script):
    upstream.script = script
    gw = await gateway(keys=laptop(requests_per_minute=2))
    assert [(await gw.chat()).status for _ in range(3)] == [502, 502, 429]


async def test_a_refused_request_of_ours_is_not_asked_for_twice(gateway):
    """429s do not count themselves: whoever keeps asking is not kept out for longer."""
    gw = await gateway(keys=laptop(requests_per_minute=1))
    assert (await gw.chat()).status == 200
    waits = []
    for _ in range(5):
        answer = await gw.chat()
        assert answer.status == 429
        waits.append(int(answer.header("retry-after") or 0))
    assert max(waits) == waits[0]


# Tokens a minute...


@pytest.mark.parametrize("asked", [False, True], ids=["whole", "streamed"])
async def test_tokens_are_charged_when_they_are_known(gateway, asked):
    gw = await gateway(keys=laptop(tokens_per_minute=20))
    left = []
    for _ in range(2):  # 12 tokens each: the second begins within the limit, and ends beyond
        answer = await gw.chat(stream=asked)
        assert answer.status == 200
        left.append(ratelimits(answer)["x-ratelimit-remaining-tokens"])
        await answer.body()
        await gw.idle()
    assert left == ["20", "8"]
    refused = await gw.chat()
    await assert_limited(refused, "20 tokens per minute")
    assert ratelimits(refused)["x-ratelimit-remaining-tokens"] == "0"
    assert ratelimits(refused)["x-ratelimit-limit-tokens"] == "20"


async def test_a_stream_without_usage_is_charged_by_estimate(upstream, gateway):
    upstream.script = stream(conversation(*["word "] * 30))
    gw = await gateway(keys=laptop(tokens_per_minute=60))
    for status in (200, 200, 429):
        answer = await gw.chat(stream=True)
        assert answer.status == status
        await answer.body()
        await gw.idle()


async def test_a_stream_that_its_client_leaves_is_charged_for_what_came(upstream, gateway):
    upstream.script = held([chunk("a", usage=usage(5, 1)), chunk("b", usage=usage(5, 100))])
    gw = await gateway(keys=laptop(tokens_per_minute=50))
    answer = await gw.chat(stream=True)
    for _ in range(2):
        await answer.frame()
    answer.connection.abort()
    await gw.idle()
    assert (await gw.chat()).status == 429


# Places...


async def test_a_key_has_its_places_and_others_have_theirs(upstream, gateway):
    gates = [Gate(), Gate()]
    upstream.script = in_turn(*(gated_stream(conversation("a"), gate) for gate in gates), ordinary())
    gw = await gateway(keys=laptop(streams=2))
    for gate in gates:
        gate.open()
    running = [await gw.chat(stream=True), await gw.chat(stream=True)]
    await assert_limited(await gw.chat(), "2 exchanges at once")
    assert (await gw.chat(key=OTHER)).status == 200
    for gate, answer in zip(gates, running, strict=True):
        gate.open_all()
        assert (await answer.events())[-1].done
    await gw.idle()
    assert (await gw.chat()).status == 200


async def test_a_full_house_is_503_for_everybody(upstream, gateway):
    gate = Gate()
    upstream.script = in_turn(gated_stream(conversation("a"), gate), ordinary())
    gw = await gateway(limits={"max_streams": 1}, keys=laptop(requests_per_minute=2))
    gate.open()
    running = await gw.chat(stream=True)
    for path in (CHAT, "/chat", "/api/chat"):
        answer = await gw.chat(path=path, key=OTHER)
        told = await answer.json()
        assert answer.status == 503
        assert int(answer.header("retry-after") or 0) >= 1
        assert (told["error"]["code"] if path == CHAT else told["error"]) == "overloaded"
    assert (await gw.request("GET", "/readyz", key=None)).status == 200
    gate.open_all()
    await running.body()
    await gw.idle()
    assert (await gw.chat(key=OTHER)).status == 200
    assert (await gw.chat()).status == 200  # the 503 had taken nothing of its two


ENDINGS = [
    pytest.param(ordinary(), {}, 200, id="a-whole-answer"),
    pytest.param(ordinary(), {"stream": True}, 200, id="a-stream"),
    pytest.param(whole(), {"stream": True}, 200, id="json-for-a-stream"),
    pytest.param(broken([chunk("a")]), {"stream": True}, 200, id="a-stream-that-broke"),
    pytest.param(broken([chunk("a")], "reset"), {"stream": True}, 200, id="a-stream-that-was-reset"),
    pytest.param(stream([chunk("a"), fault()]), {"stream": True}, 200, id="an-error-in-the-stream"),
    pytest.param(held([chunk("a")]), {"stream": True}, 200, id="a-stream-that-stalled"),
    pytest.param(silent(), {"stream": True}, 504, id="no-first-byte"),
    pytest.param(silent(), {}, 504, id="no-answer"),
    pytest.param(hung_up(), {}, 502, id="hung-up"),
    pytest.param(refusal(500), {"stream": True}, 502, id="the-providers-500"),
    pytest.param(refusal(429), {}, 429, id="the-providers-429"),
    pytest.param(ordinary(), {"messages": []}, 400, id="400"),
    pytest.param(ordinary(), {"model": "none"}, 404, id="404"),
]


@pytest.mark.parametrize(("script", "fields", "status"), ENDINGS)
async def test_a_place_is_free_again_after_every_ending(upstream, gateway, script, fields, status):
    upstream.script = script
    gw = await gateway(
        keys=laptop(streams=1), limits={"max_streams": 1}, timeouts={"first_byte": 0.1, "idle": 0.1, "total": 0.1}
    )
    for _ in range(2):
        answer = await gw.chat(**fields)
        assert answer.status == status
        await answer.rest()
        await gw.idle()
    upstream.script = ordinary()
    assert (await gw.chat()).status == 200


@pytest.mark.parametrize(
    ("script", "asked", "frames"),
    [
        pytest.param(silent(), True, 0, id="before-the-first-byte"),
        pytest.param(silent(), False, 0, id="before-a-whole-answer"),
        pytest.param(held(), True, 0, id="after-the-providers-head"),
        pytest.param(held([chunk("a")]), True, 1, id="inside-the-stream"),
    ],
)
@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_place_is_free_again_when_its_client_leaves(upstream, gateway, script, asked, frames, how):
    upstream.script = script
    gw = await gateway(keys=laptop(streams=1, requests_per_minute=10), limits={"max_streams": 1})
    client = await gw.ask_chat(stream=asked)
    call = await upstream.arrived()
    if frames:
        assert await (await client.answer()).frame()
    assert (await gw.chat()).status == 503
    getattr(client, how)()
    await gw.idle()
    await call.gone()
    upstream.script = ordinary()
    answer = await gw.chat()
    assert answer.status == 200
    assert ratelimits(answer)["x-ratelimit-remaining-requests"] == "8"  # the one that left was counted, once


async def test_a_place_is_free_again_when_a_body_stays_out(gateway):
    gw = await gateway(keys=laptop(streams=1), limits={"max_streams": 1}, timeouts={"client": 0.1})
    head = {**JSON, "Content-Length": "1000"}
    assert (await gw.request("POST", CHAT, headers=head)).status == 504
    assert (await gw.chat()).status == 200


async def test_a_place_is_free_again_after_a_mistake_of_ours(gateway, monkeypatch, caplog):
    gw = await gateway(keys=laptop(streams=1), limits={"max_streams": 1})
    with monkeypatch.context() as patch:
        patch.setattr("proxy.handlers.Attempt", None)
        assert (await gw.chat()).status == 500
    assert (await gw.chat()).status == 200
    assert len(caplog.records) == 1


# Whose rate limits are told...


THEIRS = {**JSON, "x-ratelimit-limit-requests": "5000", "x-ratelimit-remaining-requests": "4999"}


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        pytest.param({}, {"x-ratelimit-limit-requests": "5000", "x-ratelimit-remaining-requests": "4999"}, id="theirs"),
        pytest.param({"requests_per_minute": 7}, None, id="ours"),
    ],
)
async def test_the_providers_limits_are_told_where_there_are_none_of_ours(upstream, gateway, limits, told):
    upstream.script = whole(headers=THEIRS)
    answer = await (await gateway(keys=laptop(**limits))).chat()
    if told is None:
        assert ratelimits(answer)["x-ratelimit-limit-requests"] == "7"
        assert "5000" not in ratelimits(answer).values()
    else:
        assert ratelimits(answer) == told


async def test_the_providers_429_keeps_its_retry_after(upstream, gateway):
    upstream.script = refusal(429, "slow down", {"Retry-After": "17"}, type="tokens", code="rate_limit_exceeded")
    answer = await (await gateway()).chat()
    error = (await answer.json())["error"]
    assert (answer.status, answer.header("retry-after")) == (429, "17")
    assert error == {"message": "slow down", "type": "tokens", "param": None, "code": "rate_limit_exceeded"}
