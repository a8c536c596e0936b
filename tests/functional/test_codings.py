"""Answers that come compressed although nobody asked for it: what the client sees of that is nothing."""

from __future__ import annotations

from typing import get_args

import brotli
import pytest

from tests.codings import Coding, packer, zstd

from .speakers import OPENAI, SIMPLE, forms
from .upstream import DONE, EVENT_STREAM, JSON, Call, Gate, chunk, compact, completion, conversation, sse, whole

codings = pytest.mark.parametrize("coding", get_args(Coding))


@codings
async def test_a_frame_arrives_before_upstream_sends_the_next(upstream, gateway, coding):
    gate = Gate()

    async def script(call: Call) -> None:
        await call.head(encoding=coding)
        for frame in (chunk("a"), chunk("b"), chunk(finish="stop"), DONE):
            await call.frame(frame)
            await gate.passed()
        await call.done()

    upstream.script = script
    answer = await OPENAI.ask(await gateway())
    assert answer.header("Content-Encoding") is None
    for text in "ab":
        assert (await answer.event()).content == text
        gate.open()
    gate.open_all()
    assert (await OPENAI.heard(answer)).complete


@codings
async def test_a_stream_that_breaks_off_inside_is_told(upstream, gateway, coding):
    """HTTP ends well; what it holds does not."""

    async def script(call: Call) -> None:
        pack, flush, _ = packer(coding)
        await call.head(headers={**EVENT_STREAM, "Content-Encoding": coding})
        await call.send(pack(sse(chunk("a"))) + flush())
        await call.done()

    upstream.script = script
    heard = await OPENAI.heard(await OPENAI.ask(await gateway()))
    assert (heard.text, heard.complete, heard.whole) == ("a", False, True)
    assert heard.fault.kind == "upstream_error"


@codings
async def test_a_stream_that_turns_into_nonsense_is_told(upstream, gateway, coding):
    gate = Gate()

    async def script(call: Call) -> None:
        pack, flush, _ = packer(coding)
        await call.head(headers={**EVENT_STREAM, "Content-Encoding": coding})
        await call.send(pack(sse(chunk("a"))) + flush())
        await gate.passed()
        await call.send(b"\xff" * 100)
        await call.gone()

    upstream.script = script
    answer = await SIMPLE.ask(await gateway())
    gate.open()
    heard = await SIMPLE.heard(answer)
    assert (heard.text, heard.complete, heard.whole) == ("a", False, True)
    assert f"broken {coding}" in heard.fault.message


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
async def test_codings_upon_each_other_are_undone_last_first(upstream, gateway, streamed):
    said = [frame if isinstance(frame, bytes) else sse(frame) for frame in conversation("a", "b")]
    body = b"".join(said) if streamed else compact(completion("ab")).encode()
    headers = {**(EVENT_STREAM if streamed else JSON), "Content-Encoding": "br, identity,zstd"}
    upstream.script = whole(zstd.compress(brotli.compress(body)), headers=headers)
    answer = await OPENAI.ask(await gateway(), stream=streamed)
    if streamed:
        assert (await OPENAI.heard(answer)).text == "ab"
    else:
        assert (await answer.json())["choices"][0]["message"]["content"] == "ab"


@forms
async def test_a_coding_that_nobody_knows_is_named(upstream, gateway, speaker, streamed):
    upstream.script = whole(b"x", headers={**JSON, "Content-Encoding": "lzma"})
    answer = await speaker.ask(await gateway(), stream=streamed)
    assert answer.status == 502
    assert "encoded as 'lzma'; identity was asked for" in speaker.error(await answer.json()).message
