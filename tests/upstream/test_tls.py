"""The same promises where the provider speaks TLS, whose layer has buffers and ends of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.functional.speakers import OPENAI, settled
from tests.functional.upstream import (
    DONE,
    Call,
    Gate,
    Upstream,
    broken,
    chunk,
    conversation,
    flood,
    gated_stream,
    held,
    ordinary,
    silent,
    stale,
    stream,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@pytest.fixture
async def secure(
    server_side: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch, gateway: Callable[..., Any]
) -> AsyncIterator[Callable[..., Any]]:
    """Start a gateway before a provider that speaks TLS: ``one, upstream = await secure(script)``."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with Upstream(tls=server_side) as upstream:

        async def start(script: Any, **changes: Any) -> tuple[Any, Upstream]:
            upstream.script = script
            one = await gateway(url=upstream.url, **changes)
            started.append(one)
            return one, upstream

        started: list[Any] = []
        yield start
        for one in started:
            await one.close()
        await upstream.quiet()


async def test_a_frame_arrives_before_upstream_sends_the_next(secure):
    gate = Gate()
    one, _ = await secure(gated_stream([chunk("a"), chunk("b"), chunk(finish="stop"), DONE], gate))
    gate.open()
    answer = await one.chat(stream=True)
    for number, text in enumerate("ab", start=1):
        assert (await answer.event()).content == text
        await gate.waited_at(number + 1)
        gate.open()
    gate.open_all()
    assert (await OPENAI.heard(answer)).complete


@pytest.mark.parametrize("leave", ["close", "abort"], ids=["closed", "rst"])
@pytest.mark.parametrize(
    ("script", "streamed"),
    [(silent(), True), (silent(), False), (held([chunk("a")]), True)],
    ids=["streamed", "whole", "in-the-stream"],
)
async def test_a_client_that_leaves_takes_upstream_along(secure, script, streamed, leave):
    one, upstream = await secure(script)
    client = await one.ask_chat(stream=streamed)
    call = await upstream.arrived()
    getattr(client, leave)()
    await call.gone()
    assert await settled(one, outcome="client_gone") == 1


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_stream_that_breaks_is_told(secure, how):
    one, _ = await secure(broken([chunk("a")], how))
    answer = await one.chat(stream=True)
    if answer.status == 200:  # RST may overtake the frame
        heard = await OPENAI.heard(answer)
        assert (heard.complete, heard.whole) == (False, True)
        assert heard.fault.kind == "upstream_error"
    else:
        assert (answer.status, how) == (502, "reset")


async def test_a_body_may_end_with_its_connection(secure):
    one, _ = await secure(stream(conversation("a"), framing="close"))
    assert (await OPENAI.heard(await one.chat(stream=True))).complete


async def test_a_slow_client_slows_upstream_down(secure):
    one, upstream = await secure(flood(chunk("x" * 50_000), 400))
    answer = await one.chat(stream=True, connection=await one.connect(receive_buffer=4096))
    call: Call = await upstream.arrived()
    assert await call.settled(0.15) < 15_000_000
    heard = await OPENAI.heard(answer)
    assert (len(heard.text), heard.complete) == (400 * 50_000, True)


@pytest.mark.parametrize("when", ["before", "as-the-request-comes"])
async def test_a_kept_connection_that_was_closed_is_invisible(secure, when):
    one, upstream = await secure(ordinary())
    await (await one.chat()).body()
    if when == "before":
        await (await upstream.arrived()).ended()
        await upstream.close_idle()
    else:
        upstream.script = stale()
    answer = await one.chat()
    assert answer.status == 200
    await answer.body()
    assert [call.reused for call in upstream.calls] == ([False, False] if when == "before" else [False, True, False])


async def test_one_handshake_serves_many_requests(secure):
    one, upstream = await secure(ordinary())
    for _ in range(4):
        await (await one.chat()).body()
        await one.idle()
    assert len(upstream.connections) == 1
