"""A swap of settings between two requests: what is running keeps the old ones, and what was counted stays counted."""

from __future__ import annotations

import asyncio
import json

import pytest

from . import KEY, UPSTREAM_KEY, authorized, chat_body
from .upstream import DONE, Gate, Upstream, chunk, conversation, fault, gated_stream, ordinary, refusal, silent
from .wire import within

CHAT = "/v1/chat/completions"
NEW = "sk-a-newer-key"
PAGE = "https://app.example.org"


async def begun(gw, upstream, frames=None, **fields):
    """A stream that has told its first frame and waits at a gate."""
    gate = Gate()
    upstream.script = gated_stream(frames or conversation("a", "b"), gate)
    gate.open()
    answer = await gw.chat(stream=True, **fields)
    assert answer.status == 200
    assert await answer.frame()
    return answer, gate


# What runs...


async def test_a_running_stream_goes_on_whatever_was_taken_from_it(upstream, gateway):
    gw = await gateway(models=[{"id": "other", "provider": "up"}])
    answer, gate = await begun(gw, upstream)
    gw.swap(keys=[{"name": "laptop", "key": NEW}], models=[], limits={"max_streams": 1}, timeouts={"idle": 0.1})
    assert (await gw.request("GET", "/v1/models")).status == 401
    assert (await (await gw.request("GET", "/v1/models", key=NEW)).json())["data"] == []
    gate.open_all()
    assert (await answer.events())[-1].done
    assert answer.whole


async def test_a_request_keeps_what_it_began_with_while_its_body_comes(upstream, gateway):
    upstream.script = refusal(400, f"I know {UPSTREAM_KEY}, and no other key")
    gw = await gateway(keys=[{"name": "laptop", "models": ["m"]}])
    client = await gw.connect()
    body = json.dumps(chat_body()).encode()
    head = {"Content-Type": "application/json", "Expect": "100-continue", "Content-Length": str(len(body))}
    await client.request("POST", CHAT, headers=authorized(KEY, head))
    assert await client.line() == b"HTTP/1.1 100 Continue"  # it has been let in, under the old settings
    await client.line()
    async with Upstream() as second:
        gw.swap(
            keys=[{"name": "laptop", "key": NEW, "models": ["nothing"]}],
            providers=[{"name": "up", "base_url": second.url, "api_key": "sk-another-secret"}],
            limits={"max_body_bytes": 1},
        )
        await client.send(body)
        answer = await client.answer()
        assert answer.status == 400
        assert (await answer.json())["error"]["message"] == "I know [redacted], and no other key"
        assert second.calls == []
    assert (await upstream.arrived()).header("authorization") == f"Bearer {UPSTREAM_KEY}"


async def test_what_a_running_stream_must_not_say_is_still_taken_out_of_it(upstream, gateway):
    gw = await gateway()
    answer, gate = await begun(gw, upstream, [chunk("a"), fault(f"bad key {UPSTREAM_KEY}")])
    gw.swap(providers=[{"name": "up", "api_key": "sk-another-secret"}])
    gate.open_all()
    (error,) = await answer.events()
    assert error.json["error"]["message"].endswith("bad key [redacted]")


async def test_a_running_request_keeps_its_clocks(upstream, gateway):
    gw = await gateway(timeouts={"first_byte": 0.2})
    upstream.script = silent()
    client = await gw.ask_chat(stream=True)
    await upstream.arrived()
    gw.swap(timeouts={"first_byte": 600})
    answer = await client.answer()
    assert answer.status == 504
    assert "0.2 s (timeouts.first_byte)" in (await answer.json())["error"]["message"]


# What comes after...


async def test_the_next_request_on_an_open_connection_sees_everything_new(upstream, gateway):
    gw = await gateway()
    client = await gw.connect()
    assert (await (await gw.chat(connection=client)).json())["model"] == "m"
    async with Upstream(ordinary("From the second.")) as second:
        gw.swap(
            keys=[{"name": "laptop", "key": NEW, "models": ["n"]}],
            providers=[{"name": "up", "base_url": second.url, "api_key": "sk-another-secret"}],
            models=[{"id": "n", "provider": "up", "upstream": "theirs", "aliases": ["gpt-4"]}],
            defaults={"code": "gpt-4"},
            server={"name": "Renamed"},
        )
        refused = await gw.chat(connection=client)
        assert refused.status == 401
        await refused.body()
        answer = await gw.chat(connection=client, key=NEW, model=None)
        assert answer.header("x-proxy-model") == "n"
        assert (await answer.json())["choices"][0]["message"]["content"] == "From the second."
        call = await second.arrived()
        assert (call.asked["model"], call.header("authorization")) == ("theirs", "Bearer sk-another-secret")
        told = await client.ask("GET", "/")
        assert (await told.json())["service"] == "Renamed"
        await gw.stop()


async def test_a_new_connection_follows_the_new_limits_of_heads(gateway):
    gw = await gateway()
    gw.swap(limits={"max_header_bytes": 500})
    answer = await gw.request("GET", "/health", headers={"X": "a" * 501})
    assert answer.status == 400
    await answer.rest()


async def test_pages_are_let_in_by_the_new_policy(upstream, gateway):
    gw = await gateway(cors={"origins": [PAGE]})
    answer, gate = await begun(gw, upstream, headers={"Origin": PAGE})
    gw.swap(cors={"origins": ["https://other.example"]})
    refused = await gw.request("GET", "/health", headers={"Origin": PAGE})
    preflight = await gw.request("OPTIONS", CHAT, key=None, headers={"Origin": PAGE})
    for told in (refused, preflight):
        assert not told.values("access-control-allow-origin")
    assert answer.values("access-control-allow-origin") == [PAGE]
    gate.open_all()
    assert (await answer.events())[-1].done


async def test_a_gateway_is_closed_and_opened_again(gateway):
    gw = await gateway(keys=[])
    assert (await gw.chat(key=None)).status == 200
    gw.swap()
    assert (await gw.chat(key=None)).status == 401
    assert (await gw.chat()).status == 200
    gw.swap(keys=[])
    assert (await gw.chat(key="whatever")).status == 200
    assert (await gw.chat(key=None, headers={"Host": "ai.example.org"})).status == 403
    gw.swap(keys=[], auth={"anonymous": True})
    assert (await gw.chat(key=None, headers={"Host": "ai.example.org"})).status == 200


async def test_the_demo_can_be_switched_on(gateway):
    gw = await gateway()
    gw.swap(providers=[{"name": "demo", "kind": "demo"}], models=[{"id": "demo", "provider": "demo"}])

    async def started():
        while (answer := await gw.chat(model="demo", stream=True)).status != 200:
            await answer.body()
        return answer

    answer = await within(started(), "an answer of the demo")
    assert (await answer.events())[-1].done
    gw.swap()
    assert (await gw.chat(model="demo")).status == 404


@pytest.mark.parametrize(
    ("log", "count"),
    [({"level": "error"}, 0), ({"level": "info", "format": "text"}, 1), ({"level": "info", "format": "json"}, 1)],
)
async def test_the_log_follows(gateway, capfd, log, count):
    gw = await gateway(log={"level": "warning"})
    assert (await gw.chat()).status == 200
    gw.swap(log=log)
    assert (await gw.chat()).status == 200
    await gw.stop()
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == count
    for line in lines:
        assert line.startswith("{") is (log["format"] == "json")


# What lives on...


async def test_requests_that_were_counted_stay_counted(gateway):
    def laptop(limit):
        return [{"name": "laptop", "requests_per_minute": limit}]

    gw = await gateway(keys=laptop(2))
    left = []
    for limit in (2, 2, 5, 4, 2):
        gw.swap(keys=laptop(limit))
        answer = await gw.chat()
        left.append((answer.status, answer.header("x-ratelimit-remaining-requests")))
    assert left == [(200, "1"), (200, "0"), (200, "2"), (200, "0"), (429, "0")]
    gw.swap(keys=[{"name": "renamed", "key": KEY, "requests_per_minute": 2}, {"name": "laptop", "key": NEW}])
    assert (await gw.chat()).header("x-ratelimit-remaining-requests") == "1"  # another name, another account


async def test_a_new_key_under_an_old_name_goes_on_with_its_account(gateway):
    gw = await gateway(keys=[{"name": "laptop", "requests_per_minute": 1}])
    assert (await gw.chat()).status == 200
    gw.swap(keys=[{"name": "laptop", "key": NEW, "requests_per_minute": 1}])
    assert (await gw.chat(key=NEW)).status == 429


async def test_places_that_are_taken_stay_taken(upstream, gateway):
    gw = await gateway(keys=[{"name": "laptop", "streams": 1}])
    answer, gate = await begun(gw, upstream)
    upstream.script = ordinary()
    gw.swap(keys=[{"name": "laptop", "streams": 1}])
    assert (await gw.chat()).status == 429
    gw.swap(keys=[{"name": "laptop", "streams": 2}])
    assert (await gw.chat()).status == 200
    gw.swap(limits={"max_streams": 1})
    assert (await gw.chat()).status == 503
    gate.open_all()
    assert (await answer.events())[-1].done
    await gw.idle()
    assert (await gw.chat()).status == 200


async def test_connections_to_providers_live_on(upstream, gateway):
    gw = await gateway()
    assert (await gw.chat()).status == 200
    gw.swap(providers=[{"name": "up", "headers": {"X-New": "1"}}])
    assert (await gw.chat()).status == 200
    first, second = upstream.calls
    assert second.connection is first.connection
    assert (first.header("x-new"), second.header("x-new")) == (None, "1")


async def test_metrics_live_on(gateway):
    gw = await gateway()
    assert (await gw.chat()).status == 200
    gw.swap(keys=[{"name": "laptop", "admin": True}])
    assert (await gw.chat()).status == 200
    told = (await (await gw.request("GET", "/metrics")).body()).decode()
    counted = 'ai_proxy_requests_total{model="m",outcome="ok",provider="up",route="chat_completions",status="200"} 2.0'
    assert counted in told


async def test_many_swaps_lose_no_request(upstream, gateway):
    """Streams that begin under one configuration each, and end under the last."""
    gate = asyncio.Event()
    upstream.script = gated_stream([chunk("a"), chunk(finish="stop"), DONE], [None, gate])
    gw = await gateway()
    running = []
    for n in range(20):
        running.append(await gw.chat(stream=True))
        await running[-1].frame()
        gw.swap(server={"name": f"Number {n}"})
    gate.set()
    for answer in running:
        assert (await answer.events())[-1].done
    assert len(upstream.calls) == 20
