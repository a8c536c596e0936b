"""What an answer has cost: asked for, told to clients that asked, recorded with its source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .speakers import OPENAI, SIMPLE, counted, settled, speakers
from .upstream import (
    DONE,
    Gate,
    Sendable,
    chunk,
    completion,
    fault,
    gated_stream,
    held,
    refusal,
    sse,
    stream,
    usage,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from . import Gateway
    from .upstream import Upstream

ZERO = usage(0, 0)
COST = usage(5, 7)
TOLD = sse(chunk(usage=COST))


def wire(frames: list[Sendable]) -> bytes:
    return b"".join(frame if isinstance(frame, bytes) else sse(frame) for frame in frames)


async def tokens(gateway: Gateway) -> dict[str, tuple[float, float]]:
    """What was recorded, by source: tokens in and out."""
    await settled(gateway)

    def count(source: str, direction: str) -> float:
        return counted(gateway, "ai_proxy_tokens_total", source=source, direction=direction)

    both = {source: (count(source, "input"), count(source, "output")) for source in ("upstream", "estimated", "none")}
    return {source: pair for source, pair in both.items() if any(pair)}


#: Name of a provider's habit, its stream, and what a client that asked gets of it (None: the same bytes).
HABITS: list[Any] = [
    pytest.param(
        [chunk("a"), chunk(finish="stop"), chunk(usage=COST), DONE],
        None,
        id="openai-alone-after-the-finish",
    ),
    pytest.param(
        [{**chunk("a"), "usage": None}, chunk(finish="stop"), chunk(usage=COST), DONE],
        None,
        id="openai-null-before",
    ),
    pytest.param(
        [chunk("a"), chunk(finish="stop", usage=COST), DONE],
        [chunk("a"), chunk(finish="stop", usage=COST), chunk(usage=COST), DONE],
        id="deepseek-on-the-finish",
    ),
    pytest.param(
        [chunk("a", usage=usage(5, 1)), chunk("b", usage=usage(5, 2)), chunk(finish="stop", usage=COST), DONE],
        [
            chunk("a", usage=usage(5, 1)),
            chunk("b", usage=usage(5, 2)),
            chunk(finish="stop", usage=COST),
            chunk(usage=COST),
            DONE,
        ],
        id="perplexity-on-every-chunk",
    ),
    pytest.param(
        [chunk("a"), chunk(finish="stop"), chunk(delta={"content": ""}, usage=COST), DONE],
        [chunk("a"), chunk(finish="stop"), chunk(delta={"content": ""}, usage=COST), chunk(usage=COST), DONE],
        id="openrouter-after-the-finish-with-a-choice",
    ),
    pytest.param(
        [chunk("a"), chunk(finish="stop", usage=COST), chunk(usage=ZERO), {"response": "", "usage": COST}, DONE],
        [chunk("a"), chunk(finish="stop", usage=COST), chunk(usage=COST), DONE],
        id="workers-ai-zeros-and-a-native-tail",
    ),
    pytest.param(
        [chunk("a"), chunk(finish="stop", usage=COST), chunk(usage=COST), chunk(usage=COST), DONE],
        [chunk("a"), chunk(finish="stop", usage=COST), chunk(usage=COST), DONE],
        id="twice",
    ),
    pytest.param(
        [{"choices": [], "prompt_filter_results": []}, chunk("a"), chunk(finish="stop"), chunk(usage=COST), DONE],
        None,
        id="azure-another-chunk-without-choices",
    ),
]


@pytest.mark.parametrize(("said", "heard"), HABITS)
async def test_a_client_that_asked_gets_exactly_one_usage_chunk(upstream: Upstream, gateway: Callable, said, heard):
    upstream.script = stream(said)
    one = await gateway()
    answer = await OPENAI.ask(one, stream_options={"include_usage": True})
    assert await answer.body() == wire(heard or said)
    assert await tokens(one) == {"upstream": (5, 7)}


@pytest.mark.parametrize(("said", "heard"), HABITS)
async def test_a_client_that_did_not_ask_gets_none(upstream, gateway, said, heard):
    """Simple loops index `choices[0]`.  Nothing else is changed."""
    upstream.script = stream(said)
    one = await gateway()
    answer = await OPENAI.ask(one)
    body = await answer.body()
    assert TOLD not in body
    assert body == wire([frame for frame in heard or said if frame != chunk(usage=COST)])
    assert await tokens(one) == {"upstream": (5, 7)}


@pytest.mark.parametrize("value", [False, None, "yes", 1], ids=str)
async def test_only_true_is_asking(upstream, gateway, value):
    upstream.script = stream([chunk("a"), chunk(finish="stop"), chunk(usage=COST), DONE])
    answer = await OPENAI.ask(await gateway(), stream_options={"include_usage": value})
    assert TOLD not in await answer.body()


async def test_none_is_made_up_where_upstream_gave_none(upstream, gateway):
    said = [chunk("a"), chunk("b"), chunk(finish="stop"), DONE]
    upstream.script = stream(said)
    one = await gateway()
    answer = await OPENAI.ask(one, stream_options={"include_usage": True})
    assert await answer.body() == wire(said)
    (told,) = (await tokens(one)).items()
    assert told[0] == "estimated"


async def test_the_added_chunk_comes_before_a_supplied_end_mark_too(upstream, gateway):
    said = [chunk("a"), chunk(finish="stop", usage=COST)]
    upstream.script = stream(said)
    answer = await OPENAI.ask(await gateway(), stream_options={"include_usage": True})
    assert await answer.body() == wire(said) + TOLD + DONE


async def test_no_frame_waits_for_usage(upstream, gateway):
    """The finish reason goes on at once; the usage is waited for behind it."""
    gate = Gate()
    upstream.script = gated_stream([chunk("a"), chunk(finish="stop"), chunk(usage=COST), DONE], gate)
    gate.open(2)
    answer = await OPENAI.ask(await gateway(), stream_options={"include_usage": True})
    assert (await answer.event()).content == "a"
    assert (await answer.event()).json["choices"][0]["finish_reason"] == "stop"
    gate.open()
    assert (await answer.event()).json["usage"] == COST
    gate.open_all()
    assert (await answer.event()).done


async def test_usage_that_comes_late_is_waited_for_only_so_long(upstream, gateway):
    upstream.script = held([chunk("a"), chunk(finish="stop", usage=COST)])
    one = await gateway(timeouts={"after_finish": 0.1})
    answer = await OPENAI.ask(one, stream_options={"include_usage": True})
    assert (await answer.body()).endswith(TOLD + DONE)
    assert await tokens(one) == {"upstream": (5, 7)}


# The simple dialect


@pytest.mark.parametrize(("said", "heard"), HABITS)
async def test_the_simple_end_says_the_usage(upstream, gateway, said, heard):
    upstream.script = stream(said)
    one = await gateway()
    frames = await (await SIMPLE.ask(one)).events()
    assert frames[-1].json == {"done": True, "model": "m", "usage": COST}
    assert not any("usage" in frame.json for frame in frames[:-1])
    assert await tokens(one) == {"upstream": (5, 7)}


async def test_the_simple_end_without_usage_says_null(upstream, gateway):
    upstream.script = stream([chunk("a"), chunk(finish="stop"), DONE])
    frames = await (await SIMPLE.ask(await gateway())).events()
    assert frames[-1].json == {"done": True, "model": "m", "usage": None}


# What is recorded


@speakers
@pytest.mark.parametrize("streamed", [True, False], ids=["as-a-stream", "whole"])
async def test_the_usage_of_json_is_recorded(upstream, gateway, speaker, streamed):
    upstream.script = whole(completion(usage=COST))
    one = await gateway()
    await (await speaker.ask(one, stream=streamed)).body()
    assert await tokens(one) == {"upstream": (5, 7)}


@speakers
async def test_an_answer_that_breaks_is_estimated_from_what_was_seen(upstream, gateway, speaker):
    upstream.script = stream([chunk("a"), chunk("b"), chunk("c")])
    one = await gateway()
    assert (await speaker.heard(await speaker.ask(one))).fault
    recorded = await tokens(one)
    assert set(recorded) == {"estimated"}
    assert recorded["estimated"][1] == 3


@speakers
async def test_usage_that_came_before_a_break_counts(upstream, gateway, speaker):
    upstream.script = stream([chunk("a", usage=COST)])
    one = await gateway()
    assert (await speaker.heard(await speaker.ask(one))).fault
    assert await tokens(one) == {"upstream": (5, 7)}


@pytest.mark.parametrize(
    "script", [refusal(429), refusal(500), stream([fault()])], ids=["a-refusal", "a-fault", "an-error-frame"]
)
async def test_where_nothing_was_answered_nothing_was_spent(upstream, gateway, script):
    upstream.script = script
    one = await gateway()
    await (await one.chat(stream=True)).body()
    assert (await tokens(one)).get("upstream") is None


async def test_a_client_that_leaves_has_spent_what_it_saw(upstream, gateway):
    upstream.script = held([chunk("a"), chunk("b")])
    one = await gateway()
    answer = await one.chat(stream=True)
    for _ in range(2):
        await answer.event()
    answer.connection.close()
    recorded = await tokens(one)
    assert set(recorded) == {"estimated"}
    assert recorded["estimated"][1] == 2


@speakers
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
async def test_tokens_are_charged_to_the_key_after_the_answer(upstream, gateway, speaker, streamed):
    cost = usage(60, 40)
    upstream.script = (
        stream([chunk("a", finish="stop", usage=cost), DONE]) if streamed else whole(completion(usage=cost))
    )
    one = await gateway(keys=[{"name": "laptop", "tokens_per_minute": 150}])
    left = []
    for _ in range(2):
        answer = await speaker.ask(one, stream=streamed)
        left.append(answer.header("x-ratelimit-remaining-tokens"))
        await answer.body()
        await one.idle()
    assert left == ["150", "50"]
    answer = await speaker.ask(one, stream=streamed)
    assert answer.status == 429


@speakers
@pytest.mark.parametrize("odd", ["many", -5, None, {}, True], ids=str)
async def test_usage_that_is_no_number_breaks_nothing(upstream, gateway, speaker, odd):
    broken = {"prompt_tokens": odd, "completion_tokens": odd, "total_tokens": odd, "prompt_tokens_details": odd}
    upstream.script = stream([chunk("a"), chunk(finish="stop", usage=broken), chunk(usage=broken), DONE])
    one = await gateway()
    heard = await speaker.heard(await speaker.ask(one, stream_options={"include_usage": True}))
    assert (heard.text, heard.complete, heard.fault) == ("a", True, None)
    assert await settled(one, outcome="ok") == 1
