"""Whatever bytes upstream says: whole frames and a proper end, or an error; no hang, no escaped exception."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from .speakers import OPENAI, SIMPLE
from .upstream import DONE, chunk, compact, completion, fault, sse, usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from . import Gateway
    from .speakers import Speaker
    from .upstream import Call, Upstream
    from .wire import Answer

bounded = settings(
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,  # the same in every run
    # One gateway serves all examples: what an earlier one broke shows in a later one.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

# JSON in which every known field may hold anything


FIELDS = [
    *("choices", "delta", "message", "content", "role", "finish_reason", "index", "text", "response", "refusal"),
    *("usage", "prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "cached_tokens"),
    *("error", "errors", "code", "type", "param", "detail", "object", "success", "status_code"),
    *("tool_calls", "function", "arguments", "name", "id", "reasoning", "reasoning_content", "model", "created"),
]
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
WORDS = st.sampled_from(
    ["stop", "length", "error", "assistant", "a", "429", "chat.completion.chunk", "text_completion"]
)
VALUES = st.recursive(
    SCALARS | WORDS | st.sampled_from([429, 400, 0, -1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=12,
)
ODD = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=5)
CHUNKS = st.builds(
    lambda top, choice, delta: {**top, "choices": [{**choice, "delta": delta}]}, ODD, ODD, VALUES
) | st.sampled_from([chunk("a"), chunk(finish="stop"), chunk(usage=usage()), fault(), completion()])


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


# Streams: good pieces and bad ones, in any order


PIECES = (
    CHUNKS.map(sse)
    | ODD.map(lambda odd: b"data: " + dumped(odd) + b"\n\n")
    | VALUES.map(dumped)
    | st.sampled_from(
        [DONE, sse(fault("x"), event="error"), b"data: [DONE]", b": c\n\n", b"\xef\xbb\xbf", b"id: 1\n\n"]
    )
    | st.sampled_from([b"data", b":", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b"event: error\n", b"data: {", b"<html>"])
    | st.binary(max_size=12)
)
BODIES = st.lists(PIECES, max_size=8).map(b"".join)
WHOLES = BODIES | ODD.map(dumped) | CHUNKS.map(dumped)

TYPES = st.sampled_from(["text/event-stream", "application/json", "text/plain", "text/html", "é/\xff", ""])
ENCODINGS = st.sampled_from(["", "", "", "", "gzip", "deflate", "br"])
STATUS = st.sampled_from([200] * 8 + [201, 204, 301, 400, 401, 404, 429, 500, 503, 100, 101, 304, 999])
FRAMINGS = st.sampled_from(["chunked", "length", "close", "short", "long"])


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """A head that is HTTP, and any body, framed truly or not."""
    body, framing = draw(WHOLES), draw(FRAMINGS)
    lines = [f"HTTP/1.{draw(st.sampled_from('10'))} {draw(STATUS)} X"]
    if kind := draw(TYPES):
        lines.append(f"Content-Type: {kind}")
    if coding := draw(ENCODINGS):
        lines.append(f"Content-Encoding: {coding}")
    if framing == "chunked":
        lines.append("Transfer-Encoding: chunked")
        sizes = draw(st.lists(st.integers(1, 40), max_size=5))
        parts, at = [], 0
        for size in [*sizes, len(body)]:
            if part := body[at : at + size]:
                parts.append(b"%x\r\n%b\r\n" % (len(part), part))
            at += size
        body = b"".join(parts) + draw(st.sampled_from([b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"", b"0\r\n", b"zz\r\n"]))
    elif framing != "close":
        lines.append(f"Content-Length: {max(0, len(body) + {'length': 0, 'short': -3, 'long': 3}[framing])}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


# Asking for them


@pytest.fixture
async def asked(upstream: Upstream, gateway: Any) -> AsyncIterator[Any]:
    """Have upstream say these bytes, cut at these places, to every kind of request; each must end as it should."""
    one = await gateway(stream={"keepalive": 0}, timeouts={"first_byte": 5, "idle": 5, "total": 5})

    async def ask(wire: bytes, cuts: list[int]) -> None:
        edges = sorted({0, len(wire), *(cut % (len(wire) + 1) for cut in cuts)})

        async def script(call: Call) -> None:
            for start, end in pairwise(edges):
                await call.raw(wire[start:end])
                await asyncio.sleep(0)
            call.close()

        upstream.script = script
        for speaker in (OPENAI, SIMPLE):
            for stream in (True, False):
                await ends_as_it_should(one, speaker, await speaker.ask(one, stream=stream), stream)

    yield ask
    await one.idle()
    assert not one.complaints


async def ends_as_it_should(gateway: Gateway, speaker: Speaker, answer: Answer, stream: bool) -> None:
    assert answer.status in {200, 400, 404, 413, 422, 429, 502}
    if answer.header("Content-Type") == "application/json":
        told = json.loads(await answer.body())
        assert answer.status != 200 or not stream
        if answer.status != 200:
            assert speaker.error(told).message
        return
    assert stream
    assert answer.status == 200
    frames = await answer.frames()
    assert answer.whole, "the body was cut"
    assert not answer.unfinished
    assert frames
    last = frames[-1].data or b""
    if not last.startswith(b"[DONE]"):
        assert speaker.ends(frames[-1]) or speaker.fault(frames[-1]) is not None
    for frame in frames[:-1]:
        assert frame.data is not None
        assert not frame.data.startswith(b"[DONE]")
    if speaker is SIMPLE:
        assert [speaker.ends(f) or bool(speaker.fault(f)) for f in frames] == [False] * (len(frames) - 1) + [True]


@given(wire=answers(), cuts=st.lists(st.integers(0, 2000), max_size=4))
@example(wire=b"HTTP/1.1 201 Created\r\n\r\n" + sse(chunk(finish="stop")), cuts=[])
@bounded
async def test_any_body_under_a_head(asked, wire, cuts):
    await asked(wire, cuts)


@given(wire=st.binary(max_size=200) | st.binary(max_size=60).map(lambda b: b"HTTP/1.1 " + b), cuts=st.just([3]))
@example(wire=b"", cuts=[])
@example(wire=b"HTTP/1.1 200 OK\r\n\r\n", cuts=[])
@example(wire=b"\r\n\r\n", cuts=[1])
@settings(bounded, max_examples=20)
async def test_any_bytes_at_all(asked, wire, cuts):
    await asked(wire, cuts)


EVENT_STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@given(body=BODIES, cuts=st.lists(st.integers(0, 2000), max_size=6))
@bounded
async def test_any_stream(asked, body, cuts):
    await asked(EVENT_STREAM_HEAD + sse(chunk("a")) + body, cuts)


@given(told=ODD | CHUNKS)
@bounded
async def test_any_json(asked, told):
    await asked(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + compact(told).encode(), [])
