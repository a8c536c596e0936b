"""What the gateway says of itself: log lines and metrics, and in neither what is nobody's business."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.processes import serving

from . import KEY, UPSTREAM_KEY, chat_body, config
from .upstream import (
    DONE,
    Gate,
    broken,
    chunk,
    conversation,
    fault,
    gated_stream,
    held,
    hung_up,
    ordinary,
    refusal,
    silent,
    stream,
    usage,
    whole,
)

CHAT = "/v1/chat/completions"
ADMIN = "sk-admin-key"
ADMINS = [{"name": "chief", "key": ADMIN, "admin": True}]
WILD = [{"id": "up/*", "provider": "up"}]
FIELDS = [
    "time",
    "level",
    "message",
    "request_id",
    "method",
    "route",
    "status",
    "outcome",
    "key",
    "model",
    "provider",
    "attempts",
    "streamed",
    "ttfb_ms",
    "duration_ms",
    "frames",
    "input_tokens",
    "output_tokens",
    "usage_source",
]


async def lines(gw, capfd) -> list[dict[str, Any]]:
    """Stop the gateway, and read its access log."""
    await gw.stop()
    out, err = capfd.readouterr()
    assert out == ""
    return [json.loads(line) for line in err.splitlines()]


# One line a request...


async def test_a_line_has_every_field_in_one_order(gateway, capfd):
    gw = await gateway()
    answer = await gw.chat(stream=True, headers={"X-Request-ID": "trace-1"})
    await answer.body()
    (line,) = await lines(gw, capfd)
    assert list(line) == FIELDS
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert 0 <= line["ttfb_ms"] <= line["duration_ms"] < 60_000
    assert {name: line[name] for name in FIELDS if not name.endswith("_ms") and name != "time"} == {
        "level": "info",
        "message": "request",
        "request_id": "trace-1",
        "method": "POST",
        "route": "chat_completions",
        "status": 200,
        "outcome": "ok",
        "key": "laptop",
        "model": "m",
        "provider": "up",
        "attempts": 1,
        "streamed": True,
        "frames": 5,  # role, one word, finish reason, usage, end mark: the provider's, whoever got them
        "input_tokens": 5,
        "output_tokens": 7,
        "usage_source": "upstream",
    }


SETTLED = [
    pytest.param(None, {}, {}, 200, "ok", "", ("up", 5, 7, "upstream"), id="whole"),
    pytest.param(None, {"stream": True}, {}, 200, "ok", "", ("up", 5, 7, "upstream"), id="streamed"),
    pytest.param(
        stream(conversation("a", "b")), {"stream": True}, {}, 200, "ok", "", ("up", None, 5, "estimated"), id="no-usage"
    ),
    pytest.param(whole({"choices": []}), {}, {}, 200, "ok", "", ("up", 0, 0, "none"), id="whole-without-usage"),
    pytest.param(None, {}, {"key": "wrong"}, 401, "refused", "unauthorized", ("", 0, 0, "none"), id="401"),
    pytest.param(None, {}, {"path": "/nowhere"}, 404, "refused", "not_found", ("", 0, 0, "none"), id="404"),
    pytest.param(None, {"model": "x"}, {}, 404, "refused", "not_found", ("", 0, 0, "none"), id="no-such-model"),
    pytest.param(None, {"messages": 5}, {}, 400, "refused", "invalid_request", ("", 0, 0, "none"), id="400"),
    pytest.param(refusal(429), {}, {}, 429, "refused", "rate_limited", ("up", 0, 0, "none"), id="the-providers-429"),
    pytest.param(refusal(500), {}, {}, 502, "failed", "upstream_error", ("up", 0, 0, "none"), id="502"),
    pytest.param(hung_up(), {"stream": True}, {}, 502, "failed", "upstream_error", ("up", 0, 0, "none"), id="hung-up"),
    pytest.param(silent(), {"stream": True}, {}, 504, "failed", "timeout", ("up", 0, 0, "none"), id="504"),
    pytest.param(
        broken([chunk("a", usage=usage(5, 1))]),
        {"stream": True},
        {},
        200,
        "failed",
        "upstream_error",
        ("up", 5, 1, "upstream"),
        id="a-broken-stream",
    ),
    pytest.param(
        stream([chunk("a"), fault()]),
        {"stream": True},
        {},
        200,
        "failed",
        "upstream_error",
        ("up", None, 2, "estimated"),
        id="an-error-in-the-stream",
    ),
]


@pytest.mark.parametrize(("script", "fields", "how", "status", "outcome", "error", "rest"), SETTLED)
async def test_every_ending_is_one_line(upstream, gateway, capfd, script, fields, how, status, outcome, error, rest):
    if script is not None:
        upstream.script = script
    gw = await gateway(timeouts={"first_byte": 0.1})
    answer = await gw.chat(**{"path": CHAT, **how}, **fields)
    assert answer.status == status
    await answer.rest()
    (line,) = await lines(gw, capfd)
    provider, read, written, source = rest
    assert (line["status"], line["outcome"], line.get("error", "")) == (status, outcome, error)
    assert (line["provider"], line["output_tokens"], line["usage_source"]) == (provider, written, source)
    assert read is None or line["input_tokens"] == read
    assert line["model"] == ("m" if provider else "")
    assert line["key"] == ("" if status == 401 or how else "laptop")
    assert line["request_id"] == answer.header("x-request-id")


@pytest.mark.parametrize(
    ("script", "frames"), [pytest.param(silent(), 0, id="before-it"), pytest.param(held([chunk("a")]), 1, id="inside")]
)
async def test_a_client_that_left_is_one_line_too(upstream, gateway, capfd, script, frames):
    upstream.script = script
    gw = await gateway()
    client = await gw.ask_chat(stream=True)
    await upstream.arrived()
    if frames:
        await (await client.answer()).frame()
    client.abort()
    await gw.idle()
    (line,) = await lines(gw, capfd)
    assert (line["outcome"], line["frames"]) == ("client_gone", frames)
    assert line["status"] in (499, 200)
    assert (line["ttfb_ms"] is not None) is bool(frames)


async def test_a_wildcard_is_named_by_its_pattern_and_an_alias_by_its_model(gateway, capfd):
    gw = await gateway(models=[*WILD, {"id": "m", "aliases": ["gpt-4"]}])
    assert (await gw.chat(model="up/what-the-client-wrote")).status == 200
    assert (await gw.chat(model="gpt-4")).status == 200
    assert [line["model"] for line in await lines(gw, capfd)] == ["up/*", "m"]


@pytest.mark.parametrize(("level", "count"), [("debug", 1), ("info", 1), ("warning", 0), ("error", 0)])
async def test_lines_are_information(gateway, capfd, level, count):
    gw = await gateway(log={"level": level})
    assert (await gw.chat()).status == 200
    assert len(await lines(gw, capfd)) == count


async def test_lines_may_be_text(gateway, capfd):
    gw = await gateway(log={"format": "text"})
    answer = await gw.chat(stream=True)
    await answer.body()
    await gw.stop()
    (line,) = capfd.readouterr().err.splitlines()
    assert re.match(r"\d{4}-\d\d-\d\dT\S+Z info    ", line)
    for told in ("route=chat_completions", "status=200", "outcome=ok", "key=laptop", "model=m", "output_tokens=7"):
        assert f" {told}" in line


# What is nobody's business...


PROMPT = "a-prompt-that-nobody-else-reads"
REPLY = "a-reply-that-nobody-else-reads"
WRONG = "sk-a-wrong-key-somebody-typed"


async def test_neither_keys_nor_prompts_nor_hosts_are_in_the_log_or_the_metrics(upstream, tmp_path):
    """A real process at its most talkative, asked for everything that goes wrong."""
    host = f"127.0.0.1:{upstream.port}"
    quoting = f"Incorrect key {UPSTREAM_KEY} at {host}: {PROMPT}"
    text = config(
        upstream.url,
        log={"level": "debug"},
        keys=ADMINS,
        timeouts={"first_byte": 0.1, "total": 0.2},
        models=[*WILD, {"id": "off", "provider": "nowhere"}],
        providers=[
            {"name": "nowhere", "kind": "openai", "base_url": "http://127.0.0.1:9", "api_key": "sk-nowhere-key"}
        ],
    )
    told = ""
    async with serving(tmp_path, text) as process:
        for script in (
            ordinary(REPLY),
            refusal(401, quoting),
            refusal(400, quoting, param=PROMPT),
            refusal(500, quoting),
            refusal(429, quoting, {"Retry-After": "1"}),
            whole(b"<html>" + quoting.encode()),
            whole(fault(quoting)),
            stream([chunk(REPLY), fault(quoting)]),
            stream([chunk(REPLY), f"data: {PROMPT} {REPLY}\n\n".encode(), DONE]),
            broken([chunk(REPLY)]),
            hung_up("reset"),
            silent(),
        ):
            upstream.script = script
            for fields in ({"stream": True}, {}, {"model": "up/" + PROMPT}):
                for path in (CHAT, "/api/chat"):
                    client = await process.connect()
                    headers = {"Authorization": f"Bearer {KEY}", "X-Request-ID": "trace"}
                    answer = await client.ask("POST", path, headers=headers, json=chat_body(PROMPT, **fields))
                    body = (await answer.rest()).decode("utf-8", "replace")
                    told += "".join(f"{name}: {value}\n" for name, value in answer.headers) + body
        for headers, path in (
            ({"Authorization": f"Bearer {WRONG}"}, f"/v1/models?key={WRONG}"),
            ({"x-api-key": WRONG, "X-Request-ID": f"{WRONG} {PROMPT}"}, f"/{PROMPT}"),
            ({"Authorization": f"Bearer {KEY}"}, f"/v1/models/{PROMPT}"),
            ({"Authorization": f"Bearer {KEY}", "Cookie": PROMPT}, "/metrics"),
        ):
            await (await (await process.connect()).ask("GET", path, headers=headers)).rest()
        for raw in (
            f"GET /{WRONG}\0 HTTP/1.1\r\n\r\n",
            f"{PROMPT} {WRONG}\r\n\r\n",
            f"GET / HTTP/1.1\r\n{WRONG}\r\n\r\n",
        ):
            client = await process.connect()
            await client.send(raw.encode())
            await client.closed()
        off = await (await process.connect()).ask(
            "POST", CHAT, headers={"Authorization": f"Bearer {KEY}"}, json=chat_body(PROMPT, model="off")
        )
        assert off.status == 502
        told += (await off.body()).decode()
        scraped = await (await process.connect()).ask("GET", "/metrics", headers={"Authorization": f"Bearer {ADMIN}"})
        metrics = (await scraped.body()).decode()
        await process.logged('"route":"metrics","status":200')
        log = "\n".join([*process.err, *process.out])
    assert log.count('"message":"request"') > 70
    for secret in (KEY, ADMIN, WRONG, PROMPT, REPLY, UPSTREAM_KEY, "sk-nowhere-key", host, "127.0.0.1:9", "Traceback"):
        assert secret not in metrics
        # The start line says where the gateway itself listens.
        assert not [line for line in log.splitlines() if secret in line and "listening on" not in line]
    for secret in (KEY, UPSTREAM_KEY, host, "sk-nowhere-key", "127.0.0.1:9"):
        assert secret not in told
    upstream.faults.clear()


# Metrics...


def samples(text: str) -> dict[str, float]:
    return {
        name: float(value)
        for line in text.splitlines()
        if not line.startswith("#")
        for name, _, value in [line.rpartition(" ")]
    }


async def scrape(gw) -> dict[str, float]:
    answer = await gw.request("GET", "/metrics", key=ADMIN)
    assert answer.status == 200
    return samples((await answer.body()).decode())


async def test_metrics_count_requests_frames_tokens_and_attempts(upstream, gateway):
    gw = await gateway(keys=ADMINS, models=WILD)
    for fields in ({}, {"stream": True}, {"stream": True, "model": "up/x"}):
        assert await (await gw.chat(**fields)).body()
    upstream.script = refusal(500)
    assert (await gw.chat()).status == 502
    assert (await gw.chat(key="wrong")).status == 401
    await gw.idle()
    told = await scrape(gw)
    m, wild = 'model="m",provider="up"', 'model="up/*",provider="up"'
    where = 'route="chat_completions"'
    expected = {
        f"ai_proxy_frames_total{{{m}}}": 5,
        f"ai_proxy_frames_total{{{wild}}}": 5,
        f'ai_proxy_tokens_total{{direction="input",{m},source="upstream"}}': 10,
        f'ai_proxy_tokens_total{{direction="output",{m},source="upstream"}}': 14,
        f"ai_proxy_time_to_first_frame_seconds_count{{{m}}}": 3,
        f"ai_proxy_request_duration_seconds_count{{{where}}}": 5,
        'ai_proxy_errors_total{kind="upstream_error"}': 1,
        'ai_proxy_errors_total{kind="unauthorized"}': 1,
        "ai_proxy_open_streams": 0,
    }
    assert told == {**told, **expected}
    requests = {name: count for name, count in told.items() if name.startswith("ai_proxy_requests_total")}
    assert requests == {
        f'ai_proxy_requests_total{{model="m",outcome="ok",provider="up",{where},status="200"}}': 2,
        f'ai_proxy_requests_total{{model="up/*",outcome="ok",provider="up",{where},status="200"}}': 1,
        f'ai_proxy_requests_total{{model="m",outcome="failed",provider="up",{where},status="502"}}': 1,
        f'ai_proxy_requests_total{{model="",outcome="refused",provider="",{where},status="401"}}': 1,
    }
    attempts = {name: count for name, count in told.items() if name.startswith("ai_proxy_upstream_attempts_total")}
    assert attempts == {
        'ai_proxy_upstream_attempts_total{model="m",outcome="ok",provider="up"}': 2,
        'ai_proxy_upstream_attempts_total{model="up/*",outcome="ok",provider="up"}': 1,
        'ai_proxy_upstream_attempts_total{model="m",outcome="upstream_error",provider="up"}': 1,
    }


async def test_labels_never_come_from_the_client(gateway):
    gw = await gateway(keys=ADMINS, models=WILD)
    for n in range(20):
        await (await gw.chat(model=f"up/nonsense-{n}")).body()
        await (await gw.chat(model=f"nonsense-{n}")).body()
        await (await gw.request("GET", f"/nonsense-{n}")).body()
        await (await gw.request("GET", "/v1/models/nonsense", headers={"X-Request-ID": f"nonsense-{n}"})).body()
    told = await scrape(gw)
    assert "nonsense" not in "".join(told)
    assert len([name for name in told if name.startswith("ai_proxy_requests_total")]) == 4


async def test_the_gauge_says_how_many_are_open_now(upstream, gateway):
    gate = Gate()
    upstream.script = gated_stream(conversation("a"), gate)
    gw = await gateway(keys=ADMINS)
    assert (await scrape(gw))["ai_proxy_open_streams"] == 0
    clients = [await gw.ask_chat(stream=True) for _ in range(3)]
    await gate.waited_at(3)
    assert (await scrape(gw))["ai_proxy_open_streams"] == 3
    clients[0].abort()
    await (await upstream.arrived()).gone()
    assert (await scrape(gw))["ai_proxy_open_streams"] == 2
    gate.open_all()
    for client in clients[1:]:
        assert await (await client.answer()).body()
    await gw.idle()
    assert (await scrape(gw))["ai_proxy_open_streams"] == 0


async def test_gaps_between_frames_are_counted(upstream, gateway):
    gate = Gate()
    upstream.script = gated_stream(conversation("a", "b"), gate)
    gw = await gateway(keys=ADMINS)
    client = await gw.ask_chat(stream=True)
    gate.open()
    answer = await client.answer()
    assert await answer.frame()
    for _ in range(3):
        gate.open()
        assert await answer.frame()
    gate.open_all()
    await answer.body()
    await gw.idle()
    told = await scrape(gw)
    count = told['ai_proxy_inter_frame_gap_seconds_count{model="m",provider="up"}']
    assert count == 4  # between five frames, each in a read of its own
    assert told['ai_proxy_inter_frame_gap_seconds_bucket{le="+Inf",model="m",provider="up"}'] == count
