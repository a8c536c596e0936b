"""`POST /api/chat`: the small dialect before a provider that speaks chat completions."""

from __future__ import annotations

import asyncio

import pytest

from .upstream import (
    DONE,
    Gate,
    broken,
    chunk,
    completion,
    conversation,
    fault,
    gated_stream,
    held,
    ordinary,
    pieces,
    refusal,
    silent,
    sse,
    stream,
    usage,
    whole,
)

PATH = "/api/chat"
COUNTED = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}


async def ask(gw, prompt="Hi", **fields):
    return await gw.request("POST", PATH, json={"model": "m", "prompt": prompt, **fields})


def deltas(frames) -> str:
    return "".join(frame.json.get("delta", "") for frame in frames)


# What the provider is asked...


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        pytest.param({"prompt": "Hi"}, [("user", "Hi")], id="a-prompt"),
        pytest.param({"prompt": ""}, [("user", "")], id="an-empty-prompt-is-one"),
        pytest.param(
            {"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]},
            [("system", "S"), ("user", "U")],
            id="messages",
        ),
        pytest.param(
            {"prompt": "Hi", "messages": [{"role": "assistant", "content": "A"}]},
            [("assistant", "A"), ("user", "Hi")],
            id="both-the-prompt-comes-last",
        ),
        pytest.param({"prompt": "Hi", "messages": []}, [("user", "Hi")], id="a-prompt-and-no-messages"),
        pytest.param({"prompt": "Hi", "messages": None}, [("user", "Hi")], id="a-prompt-and-null"),
        pytest.param(
            {"prompt": None, "messages": [{"role": "user", "content": "U"}]}, [("user", "U")], id="null-and-messages"
        ),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "U"}]}]},
            [("user", "U")],
            id="text-in-parts",
        ),
        pytest.param({"prompt": '東京 🙂 \u2028 \\ "'}, [("user", '東京 🙂 \u2028 \\ "')], id="any-text"),
    ],
)
async def test_prompt_and_messages(upstream, gateway, body, messages):
    gw = await gateway()
    answer = await gw.request("POST", PATH, json={"model": "m", **body})
    assert (await answer.events())[-1].json["done"] is True
    asked = (await upstream.arrived()).asked
    assert [(turn["role"], turn["content"]) for turn in asked["messages"]] == messages


async def test_images_pass(upstream, gateway):
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
    ]
    gw = await gateway()
    answer = await gw.request("POST", PATH, json={"model": "m", "messages": [{"role": "user", "content": parts}]})
    assert answer.status == 200
    await answer.body()
    assert (await upstream.arrived()).asked["messages"][0]["content"] == parts


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        pytest.param({}, {"stream": True, "stream_options": {"include_usage": True}}, id="a-stream-by-default"),
        pytest.param(
            {"stream": None}, {"stream": True, "stream_options": {"include_usage": True}}, id="null-is-default"
        ),
        pytest.param({"stream": False}, {"stream": False}, id="whole"),
        pytest.param(
            {"stream": False, "max_tokens": 512, "temperature": 0.7},
            {"stream": False, "max_tokens": 512, "temperature": 0.7},
            id="limits-and-temperature",
        ),
        pytest.param({"stream": False, "max_tokens": None, "temperature": None}, {"stream": False}, id="nulls"),
        pytest.param(
            {"stream": False, "temperature": 0}, {"stream": False, "temperature": 0}, id="a-whole-temperature"
        ),
        pytest.param({"stream": False, "unknown": [1]}, {"stream": False}, id="what-is-not-its-own-is-left-out"),
    ],
)
async def test_settings(upstream, gateway, fields, sent):
    answer = await ask(await gateway(), **fields)
    assert answer.status == 200
    await answer.body()
    asked = (await upstream.arrived()).asked
    assert {name: value for name, value in asked.items() if name not in ("model", "messages")} == sent


async def test_a_providers_habits_are_minded(upstream, gateway):
    gw = await gateway(
        providers=[
            {"name": "up", "ask_usage": False, "drop": ["temperature"]},
            {"name": "deep", "kind": "deepseek", "base_url": upstream.url, "api_key": "sk-deepseek-secret"},
        ],
        models=[{"id": "d", "provider": "deep"}],
    )
    await (await ask(gw, temperature=1)).body()
    asked = (await upstream.arrived()).asked
    assert not {"stream_options", "temperature"} & set(asked)
    turns = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    await (await gw.request("POST", PATH, json={"model": "d", "messages": turns})).body()
    asked = (await upstream.arrived()).asked
    assert [turn["role"] for turn in asked["messages"]] == ["system", "user"]


# What the client gets...


async def test_a_stream_to_the_byte(upstream, gateway):
    upstream.script = stream(conversation("Hel", "lö\n", usage=usage()))
    answer = await ask(await gateway())
    assert answer.status == 200
    assert answer.header("content-type") == "text/event-stream; charset=utf-8"
    assert answer.header("cache-control") == "no-cache, no-transform"
    assert answer.header("x-accel-buffering") == "no"
    assert await answer.body() == (
        b'data: {"delta":"Hel"}\n\n'
        + 'data: {"delta":"lö\\n"}\n\n'.encode()
        + b'data: {"done":true,"model":"m","usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}\n\n'
    )


async def test_every_word_arrives_before_the_next_is_said(upstream, gateway):
    gate = Gate()
    upstream.script = gated_stream(conversation("a", "b", "c", usage=usage()), gate)
    gw = await gateway()
    client = await gw.connect()
    await client.request(
        "POST", PATH, headers={"Authorization": "Bearer sk-test-key"}, json={"model": "m", "prompt": "Hi"}
    )
    gate.open(2)  # its role, which is nothing here, and the first word
    answer = await client.answer()
    for word in "abc":
        assert (await answer.event()).json == {"delta": word}
        gate.open()
    gate.open_all()
    assert (await answer.event()).json == {"done": True, "model": "m", "usage": COUNTED}


@pytest.mark.parametrize("size", [1, 5, 10_000])
async def test_wherever_the_provider_cuts(upstream, gateway, size):
    words = ["Schöne ", "Grüße ", "🙂", "\u2028"]
    raw = b"".join(f if isinstance(f, bytes) else sse(f) for f in conversation(*words, usage=usage()))
    upstream.script = pieces([raw[at : at + size] for at in range(0, len(raw), size)])
    frames = await (await ask(await gateway())).events()
    assert [frame.json.get("delta") for frame in frames] == [*words, None]
    assert frames[-1].json["usage"] == COUNTED


@pytest.mark.parametrize(
    ("frames", "text", "counted"),
    [
        pytest.param([chunk("a"), chunk(finish="stop"), DONE], "a", None, id="no-usage"),
        pytest.param([chunk("a"), chunk(finish="stop", usage=usage()), DONE], "a", COUNTED, id="usage-on-the-finish"),
        pytest.param([chunk("a"), chunk(finish="stop")], "a", None, id="no-end-mark"),
        pytest.param([chunk("a"), chunk(finish="length"), DONE], "a", None, id="cut-by-length"),
        pytest.param([chunk(finish="stop"), DONE], "", None, id="nothing-said"),
        pytest.param(
            [chunk(delta={"reasoning_content": "hm"}), chunk("a"), chunk(finish="stop"), DONE],
            "a",
            None,
            id="thoughts-are-not-words",
        ),
        pytest.param([chunk(delta={"refusal": "No."}), chunk(finish="stop"), DONE], "No.", None, id="a-refusal-is"),
        pytest.param([b": hello\n\n", b"retry: 5\n\n", chunk("a"), chunk(finish="stop"), DONE], "a", None, id="noise"),
    ],
)
@pytest.mark.parametrize("asked", [True, False], ids=["streamed", "whole"])
async def test_what_becomes_of_answers(upstream, gateway, frames, text, counted, asked):
    if asked:
        upstream.script = stream(frames)
        told = await (await ask(await gateway())).events()
        assert deltas(told) == text
        assert told[-1].json == {"done": True, "model": "m", "usage": counted}
        return
    message = {"role": "assistant", "content": text}
    upstream.script = whole({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": counted})
    told = await (await ask(await gateway(), stream=False)).json()
    assert told == {"response": text, "model": "m", "usage": counted, "done": True}


async def test_a_stream_asked_and_json_answered_becomes_a_stream(upstream, gateway):
    upstream.script = whole(completion("Hello!"))
    answer = await ask(await gateway())
    assert answer.header("content-type") == "text/event-stream; charset=utf-8"
    frames = await answer.events()
    assert deltas(frames) == "Hello!"
    assert frames[-1].json == {"done": True, "model": "m", "usage": COUNTED}


async def test_the_model_is_told_by_the_name_of_the_configuration(gateway):
    gw = await gateway(models=[{"id": "m", "aliases": ["alias"], "upstream": "theirs"}])
    for asked in (True, False):
        answer = await ask(gw, model="alias", stream=asked)
        told = (await answer.events())[-1].json if asked else await answer.json()
        assert told["model"] == "m"


async def test_without_a_model_the_default_is_told(gateway):
    gw = await gateway(models=[{"id": "d", "provider": "up"}], defaults={"chat": "d"})
    answer = await gw.request("POST", PATH, json={"prompt": "Hi", "stream": False})
    assert (await answer.json())["model"] == "d"


@pytest.mark.parametrize(
    ("mode", "sign"), [("comment", b": keep-alive\n\n"), ("chunk", b'data: {"delta":""}\n\n'), ("off", None)]
)
async def test_silence_is_bridged_between_frames(upstream, gateway, mode, sign):
    gate = asyncio.Event()
    upstream.script = gated_stream([chunk("a"), chunk("b", finish="stop"), DONE], [None, gate])
    gw = await gateway(stream={"keepalive": 0.1, "keepalive_mode": mode})
    answer = await ask(gw)
    first = await answer.frame()
    assert first.json == {"delta": "a"}
    if sign is not None:
        assert (await answer.frame()).raw == sign
    gate.set()
    told = [frame.raw for frame in await answer.frames() if frame.raw != sign]
    assert told == [b'data: {"delta":"b"}\n\n', b'data: {"done":true,"model":"m","usage":null}\n\n']


# Faults...


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        pytest.param(stream([chunk("a"), fault("out of order")]), "upstream_error", id="an-error-in-the-stream"),
        pytest.param(stream([chunk("a"), fault("slow", code=429)]), "rate_limited", id="that-has-a-status"),
        pytest.param(broken([chunk("a")]), "upstream_error", id="cut"),
        pytest.param(stream([chunk("a")]), "upstream_error", id="ended-too-early"),
        pytest.param(stream([chunk("a"), b"data: nonsense\n\n"]), "upstream_error", id="nonsense"),
        pytest.param(held([chunk("a")]), "timeout", id="stalled"),
    ],
)
async def test_a_fault_is_told_after_what_came_and_nothing_follows_it(upstream, gateway, script, kind):
    upstream.script = script
    answer = await ask(await gateway(timeouts={"idle": 0.2}))
    first, last = await answer.events()
    assert first.json == {"delta": "a"}
    assert list(last.json) == ["error", "details", "timestamp"]
    assert last.json["error"] == kind
    assert answer.whole


@pytest.mark.parametrize(
    ("script", "status", "kind"),
    [
        pytest.param(refusal(400, "no"), 400, "invalid_request", id="400"),
        pytest.param(refusal(404, "no"), 404, "not_found", id="404"),
        pytest.param(refusal(413, "no"), 413, "payload_too_large", id="413"),
        pytest.param(refusal(422, "no"), 422, "invalid_request", id="422"),
        pytest.param(refusal(429, "no"), 429, "rate_limited", id="429"),
        pytest.param(refusal(401, "no"), 502, "upstream_error", id="401"),
        pytest.param(refusal(503, "no"), 502, "upstream_error", id="503"),
        pytest.param(silent(), 504, "timeout", id="silence"),
        pytest.param(whole(fault("no")), 502, "upstream_error", id="an-error-with-200"),
        pytest.param(whole({"choices": 5}), 502, "upstream_error", id="nonsense"),
    ],
)
@pytest.mark.parametrize("asked", [True, False], ids=["streamed", "whole"])
async def test_a_fault_before_the_first_word_is_a_status(upstream, gateway, script, status, kind, asked):
    upstream.script = script
    answer = await ask(await gateway(timeouts={"first_byte": 0.1, "total": 0.1}), stream=asked)
    told = await answer.json()
    assert (answer.status, told["error"]) == (status, kind)
    assert list(told) == ["error", "details", "timestamp"]


async def test_a_client_that_leaves_leaves_the_provider(upstream, gateway):
    upstream.script = held([chunk("a")])
    gw = await gateway()
    answer = await ask(gw)
    await answer.frame()
    answer.connection.abort()
    await (await upstream.arrived()).gone()
    await gw.idle()
    upstream.script = ordinary()
    assert (await ask(gw, stream=False)).status == 200
