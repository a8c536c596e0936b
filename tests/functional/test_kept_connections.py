"""Connections to a provider are used again where that is safe, and one that turns out to be closed is invisible."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .speakers import OPENAI, counted, forms, settled
from .upstream import (
    JSON,
    Call,
    Gate,
    chunk,
    compact,
    completion,
    conversation,
    hung_up,
    in_turn,
    ordinary,
    redirect,
    refusal,
    stale,
    stream,
    whole,
)

if TYPE_CHECKING:
    from .upstream import Script

WHOLE = compact(completion()).encode()
GOOD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(WHOLE), WHOLE)


def raw(data: bytes, *, close: bool = False, finished: bool = True) -> Script:
    """These bytes as the whole answer."""

    async def script(call: Call) -> None:
        await call.raw(data)
        if close:
            call.close()
        call.finished = finished

    return script


GOOD_ENDS = [
    pytest.param(ordinary(), False, id="whole"),
    pytest.param(ordinary(), True, id="streamed"),
    pytest.param(whole(completion()), True, id="json-for-a-stream"),
    pytest.param(refusal(429), True, id="a-refusal"),
    pytest.param(refusal(500), False, id="a-fault"),
    pytest.param(redirect("/elsewhere"), False, id="a-redirect"),
    pytest.param(stream([chunk("a"), chunk(finish="stop")]), True, id="no-end-mark"),
]


@pytest.mark.parametrize(("script", "streamed"), GOOD_ENDS)
async def test_a_connection_is_used_again_after_a_whole_message(upstream, gateway, script, streamed):
    upstream.script = script
    one = await gateway()
    for _ in range(3):
        await (await one.chat(stream=streamed)).body()
        await one.idle()
    assert [call.reused for call in upstream.calls] == [False, True, True]
    assert len(upstream.connections) == 1


async def test_a_connection_is_used_again_when_its_last_chunk_comes_after_the_end_mark(upstream, gateway):
    """The client has its end at the mark; nobody waits for the rest of HTTP but the pool."""
    gate = Gate()

    async def script(call: Call) -> None:
        for frame in conversation("a"):
            await call.frame(frame)
        await gate.passed()
        await call.done()

    upstream.script = script
    one = await gateway()
    assert (await OPENAI.heard(await OPENAI.ask(one))).complete
    first = await upstream.arrived()
    assert (await OPENAI.heard(await OPENAI.ask(one))).complete  # it is not free yet
    second = await upstream.arrived()
    assert second.connection is not first.connection
    gate.open_all()
    await first.ended()
    await second.ended()
    upstream.script = whole()
    for _ in range(3):
        await (await one.chat()).body()
    assert all(call.reused for call in upstream.calls[2:])
    assert len(upstream.connections) == 2


async def test_a_provider_that_does_not_end_after_its_end_mark_is_left(upstream, gateway, monkeypatch):
    monkeypatch.setattr("proxy.upstream.connection.LINGER", 0.05)

    async def script(call: Call) -> None:
        for frame in conversation("a"):
            await call.frame(frame)
        while True:
            await call.frame(chunk("more"))

    upstream.script = script
    one = await gateway()
    heard = await OPENAI.heard(await OPENAI.ask(one))
    assert (heard.text, heard.complete) == ("a", True)
    await (await upstream.arrived()).gone()


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(whole(headers={**JSON, "Connection": "close"}), id="connection-close"),
        pytest.param(stream([WHOLE], headers=JSON, framing="close"), id="close-delimited"),
        pytest.param(stream([WHOLE], headers=JSON, version="HTTP/1.0"), id="http-1-0"),
    ],
)
async def test_a_connection_that_ends_is_not_used_again(upstream, gateway, script):
    upstream.script = script
    one = await gateway()
    for _ in range(2):
        await (await one.chat()).body()
    assert [call.reused for call in upstream.calls] == [False, False]


async def test_an_answer_that_came_before_its_request_was_out_ends_the_connection(upstream, gateway):
    """What is left of the request would stand before the next one."""
    upstream.early = True
    upstream.script = in_turn(refusal(413, "too long"), whole())
    one = await gateway(limits={"max_body_bytes": 2**25})
    answer = await one.chat("x" * 2**24)
    assert answer.status == 413
    upstream.early = False
    assert (await one.chat()).status == 200
    assert [call.reused for call in upstream.calls] == [False, False]


# Kept connections that turn out to be closed


@forms
@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("when", ["before", "as-the-request-comes"])
async def test_a_kept_connection_that_was_closed_is_invisible(upstream, gateway, speaker, streamed, how, when):
    one = await gateway()
    await (await one.chat()).body()
    if when == "before":
        assert await (upstream.close_idle() if how == "close" else upstream.reset_idle()) == 1
    else:
        upstream.script = stale(how=how)
    answer = await speaker.ask(one, stream=streamed)
    assert answer.status == 200
    assert answer.header("x-proxy-attempts") == "1"
    if streamed:
        assert (await speaker.heard(answer)).complete
    else:
        await answer.json()
    assert [call.reused for call in upstream.calls] == ([False, False] if when == "before" else [False, True, False])
    assert upstream.calls[-1].body == upstream.calls[-2].body or when == "before"
    assert await settled(one, outcome="ok") == 2
    assert counted(one, "ai_proxy_upstream_attempts_total", outcome="ok") == 2


async def test_a_large_request_survives_a_kept_connection_that_was_closed(upstream, gateway):
    one = await gateway(limits={"max_body_bytes": 2**24})
    await (await one.chat()).body()
    upstream.early = True  # it closes while the body is still coming

    async def script(call: Call) -> None:
        if call.reused:
            call.reset()
        else:
            await call.read_body()
            await call.reply(completion(str(len(call.body))))

    upstream.script = script
    prompt = "x" * (4 * 2**20)
    answer = await one.chat(prompt)
    assert answer.status == 200
    assert int((await answer.json())["choices"][0]["message"]["content"]) > len(prompt)


async def test_all_kept_connections_may_have_been_closed(upstream, gateway):
    """Only one of them is tried: the next try is on a fresh connection, however many are kept."""
    gate = Gate()

    async def script(call: Call) -> None:
        await gate.passed()
        await call.reply(completion())

    upstream.script = script
    one = await gateway()
    connections = [await one.ask_chat() for _ in range(4)]
    await gate.waited_at(4)
    gate.open_all()
    for connection in connections:
        assert (await connection.answer()).status == 200
    upstream.script = stale()
    assert (await one.chat()).status == 200
    assert [call.reused for call in upstream.calls[4:]] == [True, False]


@pytest.mark.parametrize(
    "partial",
    [b"H", b"HTTP/1.1 200 OK\r\n", GOOD[:60], GOOD[:-1]],
    ids=["one-byte", "a-status-line", "half-of-a-head", "half-of-a-body"],
)
async def test_a_request_is_not_sent_again_once_anything_has_been_answered(upstream, gateway, partial):
    upstream.script = in_turn(whole(), raw(partial, close=True))
    one = await gateway()
    await (await one.chat()).body()
    answer = await one.chat()
    assert answer.status == 502
    assert [call.reused for call in upstream.calls] == [False, True]


async def test_a_request_is_sent_again_once_only(upstream, gateway):
    upstream.script = in_turn(whole(), hung_up(), hung_up())
    one = await gateway()
    await (await one.chat()).body()
    assert (await one.chat()).status == 502
    assert [call.reused for call in upstream.calls] == [False, True, False]
