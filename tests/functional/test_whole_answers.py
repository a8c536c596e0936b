"""Answers that come whole: passed on or translated if they are answers, a status if they are not."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from .speakers import OPENAI, SIMPLE, counted, forms, settled, speakers
from .upstream import JSON, Call, broken, chunk, compact, completion, conversation, fault, sse, stream, usage, whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from .speakers import Speaker
    from .upstream import Script, Upstream

TEXT = "Grüße 🌍"


def text_of(speaker: Speaker, body: Any) -> str:
    return body["response"] if speaker is SIMPLE else body["choices"][0]["message"]["content"]


async def asked(gateway: Any, speaker: Speaker) -> Any:
    """Ask for a whole answer; return its body, which must be a good one."""
    answer = await speaker.ask(gateway, stream=False)
    assert answer.status == 200, await answer.rest()
    assert answer.header("Content-Type") == "application/json"
    return await answer.json()


# Good ones


ODD = b'{ "id":"x", "choices" : [{"message":{"x":[[[1e300,12345678901234567890123]]]}}],\n"y":"\\u00e9",\t"z":1.10 }'


async def test_an_answer_passes_byte_for_byte(upstream: Upstream, gateway: Callable):
    upstream.script = whole(ODD)
    answer = await (await gateway()).chat()
    assert (answer.status, await answer.body()) == (200, ODD)
    assert answer.header("Content-Length") == str(len(ODD))
    assert (answer.header("x-proxy-model"), answer.header("x-proxy-provider")) == ("m", "up")
    assert answer.header("x-proxy-attempts") == "1"


async def test_the_simple_form_of_an_answer(upstream, gateway):
    upstream.script = whole(
        completion(TEXT, model="other", usage=usage(3, 4, prompt_tokens_details={"cached_tokens": 1}))
    )
    one = await gateway()
    assert await asked(one, SIMPLE) == {
        "response": TEXT,
        "model": "m",
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
        "done": True,
    }
    await settled(one)
    assert counted(one, "ai_proxy_tokens_total", source="upstream", direction="output") == 4


@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        ("/v1/completions", {"prompt": "a"}, {"object": "text_completion", "choices": [{"text": "b", "index": 0}]}),
        ("/v1/embeddings", {"input": "a"}, {"object": "list", "data": [{"embedding": "AAAA", "index": 0}]}),
    ],
    ids=["completions", "embeddings"],
)
async def test_other_whole_answers_pass_too(upstream, gateway, path, body, answer):
    upstream.script = whole({**answer, "usage": usage(5, 0)})
    one = await gateway()
    told = await one.request("POST", path, json={"model": "m", **body})
    assert (told.status, await told.json()) == (200, {**answer, "usage": usage(5, 0)})
    assert (await upstream.arrived()).asked == {"model": "m", **body}
    await settled(one)
    assert counted(one, "ai_proxy_tokens_total", source="upstream", direction="input") == 5


@speakers
@pytest.mark.parametrize("prefix", [b"\n\n\n", b" \r\n\t", b"\xef\xbb\xbf"], ids=["deepseek", "white-space", "bom"])
async def test_what_stands_before_json_means_nothing(upstream, gateway, speaker, prefix):
    upstream.script = whole(completion(TEXT), prefix=prefix)
    assert text_of(speaker, await asked(await gateway(), speaker)) == TEXT


def framed(body: bytes, *, drip: int = 0, **head: Any) -> Script:
    """A JSON answer in some framing, in pieces of ``drip`` bytes if given."""

    async def script(call: Call) -> None:
        await call.head(200, JSON, **head)
        await (call.drip(body, drip) if drip else call.send(body))
        await call.done()

    return script


@speakers
@pytest.mark.parametrize(
    "script",
    [
        pytest.param(framed(b"\n\n" + compact(completion(TEXT)).encode(), drip=1), id="chunked-byte-by-byte"),
        pytest.param(framed(compact(completion(TEXT)).encode(), framing="close"), id="close-delimited"),
        pytest.param(framed(compact(completion(TEXT)).encode(), version="HTTP/1.0"), id="http-1-0"),
        pytest.param(framed(compact(completion(TEXT)).encode(), encoding="gzip"), id="gzip"),
        pytest.param(framed(compact(completion(TEXT)).encode(), encoding="gzip", framing="close"), id="gzip-and-close"),
        pytest.param(framed(compact(completion(TEXT)).encode(), encoding="deflate"), id="deflate"),
        pytest.param(framed(compact(completion(TEXT)).encode(), encoding="br"), id="br"),
        pytest.param(framed(compact(completion(TEXT)).encode(), encoding="zstd", framing="close"), id="zstd-and-close"),
        pytest.param(framed(compact(completion(TEXT * 100_000)).encode()), id="large"),
    ],
)
async def test_however_an_answer_is_framed(upstream, gateway, speaker, script):
    upstream.script = script
    text = text_of(speaker, await asked(await gateway(), speaker))
    assert text == TEXT * (len(text) // len(TEXT))


@pytest.mark.parametrize("status", [200, 201])
async def test_interim_heads_are_skipped(upstream, gateway, status):
    async def script(call: Call) -> None:
        await call.interim(100)
        await call.interim(103, {"Link": "</x>", "x-request-id": "early", "Content-Length": "7"})
        await call.reply(completion(TEXT), status, {**JSON, "x-request-id": "late"})

    upstream.script = script
    answer = await (await gateway()).chat()
    assert answer.status == 200
    assert answer.interim == []
    assert answer.header("x-upstream-request-id") == "late"
    assert text_of(OPENAI, await answer.json()) == TEXT


# Encodings that nobody asked for


def encoded(body: bytes, coding: str, *, streamed: bool = False) -> Script:
    """These bytes as they are, under a head that says how they are encoded."""

    async def script(call: Call) -> None:
        kind = "text/event-stream" if streamed else "application/json"
        await call.head(200, {"Content-Type": kind, "Content-Encoding": coding})
        await call.send(body)
        await call.done()

    return script


STREAM = b"".join(frame if isinstance(frame, bytes) else sse(frame) for frame in conversation(TEXT))
WHOLE = compact(completion(TEXT)).encode()


def raw_deflate(data: bytes) -> bytes:
    squeeze = zlib.compressobj(wbits=-15)
    return squeeze.compress(data) + squeeze.flush()


@forms
@pytest.mark.parametrize(
    ("coding", "squeeze"),
    [
        pytest.param("gzip", gzip.compress, id="gzip"),
        pytest.param("GZip", gzip.compress, id="in-any-case"),
        pytest.param("x-gzip", lambda d: gzip.compress(d[:9]) + gzip.compress(d[9:]), id="gzip-in-two-members"),
        pytest.param("deflate", zlib.compress, id="deflate"),
        pytest.param("deflate", raw_deflate, id="deflate-without-its-frame"),
        pytest.param("identity", bytes, id="identity"),
    ],
)
async def test_a_known_encoding_is_undone(upstream, gateway, speaker, streamed, coding, squeeze):
    upstream.script = encoded(squeeze(STREAM if streamed else WHOLE), coding, streamed=streamed)
    one = await gateway()
    answer = await speaker.ask(one, stream=streamed)
    assert answer.header("Content-Encoding") is None
    if streamed:
        heard = await speaker.heard(answer)
        assert (heard.text, heard.complete) == (TEXT, True)
    else:
        assert text_of(speaker, await answer.json()) == TEXT


@forms
@pytest.mark.parametrize(
    ("coding", "body", "says"),
    [
        pytest.param("compress", b"\x1f\x9d\x90", "'compress'", id="unknown"),
        pytest.param("gzip, lzma", b"", "'lzma'", id="one-of-two-unknown"),
        pytest.param("br", b"<html>", "broken br", id="not-brotli"),
        pytest.param("br", b"\x0b\x02\x80", "br answer was cut", id="cut-brotli"),
        pytest.param("zstd", b"plain text", "broken zstd", id="not-zstandard"),
        pytest.param("zstd", b"\x28\xb5\x2f\xfd", "zstd answer was cut", id="cut-zstandard"),
        pytest.param("gzip", b"plain text", "broken gzip", id="not-what-it-says"),
        pytest.param("gzip", gzip.compress(b"")[:-4], "gzip answer was cut", id="cut-gzip"),
        pytest.param("deflate", zlib.compress(b"")[:-2], "deflate answer was cut", id="cut-deflate"),
    ],
)
async def test_an_encoding_that_cannot_be_undone_is_named(upstream, gateway, speaker, streamed, coding, body, says):
    upstream.script = encoded(body, coding, streamed=streamed)
    answer = await speaker.ask(await gateway(), stream=streamed)
    assert answer.status == 502
    told = speaker.error(await answer.json())
    assert told.kind == "upstream_error"
    assert says in told.message


@speakers
async def test_a_stream_whose_encoding_is_cut_is_a_broken_one(upstream, gateway, speaker):
    squeezed = gzip.compress(sse(chunk("a" * 50)) + sse(chunk("b" * 50)))
    upstream.script = encoded(squeezed[:-12], "gzip", streamed=True)
    heard = await speaker.heard(await speaker.ask(await gateway()))
    assert heard.text.startswith("a" * 50)
    assert (heard.complete, heard.whole) == (False, True)
    assert "gzip answer was cut" in heard.fault.message


# Bad ones


@speakers
@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        pytest.param(b"", 502, "not JSON", id="nothing"),
        pytest.param(b"\n\n\n", 502, "not JSON", id="blank-lines"),
        pytest.param(b"<html>oops</html>", 502, "not JSON", id="html"),
        pytest.param(b'{"choices":[', 502, "not JSON", id="half-of-an-object"),
        pytest.param(b"[1]", 502, "not a JSON object", id="array"),
        pytest.param(b'"text"', 502, "not a JSON object", id="string"),
        pytest.param(b"null", 502, "not a JSON object", id="null"),
        pytest.param(b"{}", 502, "no `choices`", id="no-choices"),
        pytest.param(b'{"choices":{}}', 502, "no `choices`", id="choices-of-another-kind"),
        pytest.param(b'{"choices":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 502, "not JSON", id="absurdly-deep"),
        pytest.param(compact(fault("boom")).encode(), 502, "boom", id="an-error-with-200"),
        pytest.param(compact(fault("slow", code=429)).encode(), 429, "slow", id="an-error-that-names-its-status"),
    ],
)
async def test_what_is_no_answer_is_a_status(upstream, gateway, speaker, body, status, says):
    upstream.script = whole(body)
    one = await gateway()
    answer = await speaker.ask(one, stream=False)
    assert answer.status == status
    told = speaker.error(await answer.json())
    assert says in told.message
    assert "oops" not in told.message
    assert await settled(one, status=str(status)) == 1


@forms
@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_is_none(upstream, gateway, speaker, streamed, status):
    async def script(call: Call) -> None:
        await call.head(status, {}, framing="none")
        await call.done()

    upstream.script = script
    answer = await speaker.ask(await gateway(timeouts={"total": 1, "first_byte": 1}), stream=streamed)
    assert answer.status == 502
    assert speaker.error(await answer.json()).kind == "upstream_error"


@forms
async def test_nothing_is_upgraded(upstream, gateway, speaker, streamed):
    async def script(call: Call) -> None:
        await call.head(101, {"Upgrade": "websocket", "Connection": "Upgrade"}, framing="none")
        await call.connection.gone.wait()

    upstream.script = script
    answer = await speaker.ask(await gateway(), stream=streamed)
    assert answer.status == 502
    assert "101" in speaker.error(await answer.json()).message
    await (await upstream.arrived()).gone()


def reset_at_its_end(body: bytes) -> Script:
    """A body that would end with its connection, but the connection breaks."""

    async def script(call: Call) -> None:
        await call.head(200, JSON, framing="close")
        await call.send(body)
        for _ in range(10):  # the gateway reads it: RST would take it away
            await asyncio.sleep(0)
        call.reset()

    return script


@speakers
@pytest.mark.parametrize(
    "script",
    [
        pytest.param(broken([b'{"choices":['], "close"), id="chunked-and-fin"),
        pytest.param(broken([WHOLE], "close"), id="chunked-without-its-last-chunk"),
        pytest.param(broken([WHOLE], "reset"), id="chunked-and-rst"),
        pytest.param(broken([WHOLE], "half_close"), id="chunked-and-half-closed"),
        pytest.param(framed(WHOLE, length=len(WHOLE) + 1), id="shorter-than-its-content-length"),
        pytest.param(framed(WHOLE[:-1], framing="close"), id="close-delimited-and-cut"),
        pytest.param(reset_at_its_end(WHOLE), id="close-delimited-and-rst"),
    ],
)
async def test_an_answer_that_breaks_is_none(upstream, gateway, speaker, script):
    async def closes(call: Call) -> None:
        await script(call)
        call.close()

    upstream.script = closes
    answer = await speaker.ask(await gateway(), stream=False)
    assert answer.status == 502
    told = speaker.error(await answer.json())
    assert told.kind == "upstream_error"
    assert "127.0.0.1" not in told.message


@speakers
async def test_an_answer_that_is_too_large_is_given_up(upstream, gateway, speaker):
    """Eight frames' worth: embeddings of long lists are larger than any frame."""
    limit = 8 * 65536

    async def script(call: Call) -> None:
        await call.head(200, JSON)
        while True:
            await call.send(b" " + b"1" * 65536)

    upstream.script = script
    answer = await speaker.ask(await gateway(limits={"max_frame_bytes": 65536}), stream=False)
    assert answer.status == 502
    assert f"{limit} bytes" in speaker.error(await answer.json()).message
    await (await upstream.arrived()).gone()


async def test_an_error_body_may_not_be_endless_either(upstream, gateway):
    async def script(call: Call) -> None:
        await call.head(500, {"Content-Type": "text/html"})
        while True:
            await call.send(b"<p>" * 10_000)

    upstream.script = script
    answer = await (await gateway(limits={"max_frame_bytes": 65536})).chat(stream=True)
    assert answer.status == 502
    await (await upstream.arrived()).gone()


@speakers
async def test_a_stream_for_a_whole_answer_is_folded(upstream, gateway, speaker):
    upstream.script = stream(conversation("Grüße ", "🌍", usage=usage(5, 7)))
    one = await gateway()
    assert text_of(speaker, await asked(one, speaker)) == TEXT
    await settled(one)
    assert counted(one, "ai_proxy_tokens_total", source="upstream", direction="output") == 7


@speakers
@pytest.mark.parametrize(
    "frames",
    [[chunk("a")], [chunk("a"), fault("boom")], [chunk("a"), b"data: {"]],
    ids=["no-end", "an-error", "half-a-frame"],
)
async def test_a_broken_stream_for_a_whole_answer_is_none(upstream, gateway, speaker, frames):
    upstream.script = stream(frames)
    answer = await speaker.ask(await gateway(), stream=False)
    assert answer.status == 502
    assert speaker.error(await answer.json()).kind == "upstream_error"
