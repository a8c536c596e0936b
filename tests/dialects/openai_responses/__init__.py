"""Helpers for what speaks OpenAI's Responses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from proxy.dialects.openai_responses.reader import Reader
from proxy.dialects.openai_responses.request import read as read_request
from proxy.dialects.openai_responses.writer import Writer
from proxy.events import (
    Answer,
    Block,
    BlockClosed,
    BlockDelta,
    BlockOpened,
    BlockSigned,
    MessageEnded,
    MessageStarted,
    Stop,
)
from proxy.sse import Decoder
from tests.recordings import STREAMS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proxy.events import Event
    from proxy.requests import Request

_RECORDED = [pytest.param(r, id=r.name) for r in STREAMS if b'"response.created"' in r.body]
_ABSENT = [pytest.param(None, id="none", marks=pytest.mark.skip(reason="no recordings beside the repository"))]
#: Every recorded stream of this dialect.
recorded = pytest.mark.parametrize("recording", _RECORDED or _ABSENT)


def nothing(text: str) -> str:
    """A scrub that has nothing to hide."""
    return text


def dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def asked(**fields: Any) -> Request:
    """A client's request for a response."""
    return read_request(dumps({"model": "m", "input": "Hi", **fields}))


def frames(stream: bytes) -> list[dict[str, Any]]:
    """What a stream says."""
    return [json.loads(frame.data) for frame in Decoder().feed(stream) if frame.data != b"[DONE]"]


def kinds(stream: bytes) -> list[str]:
    """Its events' types, without their common beginning."""
    return [frame["type"].removeprefix("response.") for frame in frames(stream)]


# What a provider sends...


def sse(*payloads: dict[str, Any] | bytes) -> bytes:
    """Frames as OpenAI sends them, numbered; bytes stay."""
    return b"".join(
        p
        if isinstance(p, bytes)
        else b"event: %b\ndata: %b\n\n" % (p["type"].encode(), dumps({**p, "sequence_number": number}))
        for number, p in enumerate(payloads)
    )


def ev(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", **fields}


def created(**fields: Any) -> dict[str, Any]:
    return ev("created", response={"id": "resp_1", "model": "gpt-x", "status": "in_progress", "error": None, **fields})


def ended(status: str = "completed", output: list[Any] | None = None, **fields: Any) -> dict[str, Any]:
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    response = {"id": "resp_1", "model": "gpt-x", "status": status, "output": output or [], "usage": usage, **fields}
    return ev(status, response=response)


def delta(text: str, item: int = 0, part: int = 0, kind: str = "output_text") -> dict[str, Any]:
    return ev(f"{kind}.delta", output_index=item, content_index=part, item_id=f"i_{item}", delta=text)


def added(index: int, **item: Any) -> dict[str, Any]:
    return ev("output_item.added", output_index=index, item=item)


def done(index: int, **item: Any) -> dict[str, Any]:
    return ev("output_item.done", output_index=index, item=item)


def call(id: str, name: str, arguments: str = "", **fields: Any) -> dict[str, Any]:
    return {"type": "function_call", "id": f"fc_{id}", "call_id": id, "name": name, "arguments": arguments, **fields}


def message(*texts: str, **fields: Any) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []} for text in texts]
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": content, **fields}


def read(*chunks: bytes) -> list[Event]:
    """Read a stream that came in these chunks."""
    decoder, reader = Decoder(), Reader(nothing)
    return [event for chunk in chunks for frame in decoder.feed(chunk) for event in reader.read(frame)]


# What an answer says...


def block(
    index: int, kind: str, *texts: str, id: str = "", name: str = "", redacted: str = "", signature: str = ""
) -> list[Event]:
    """A block from its opening to its end."""
    block = Block(kind)
    deltas = [BlockDelta(index, block, text) for text in texts]
    seal = [BlockSigned(index, signature)] if signature else []
    return [BlockOpened(index, block, id, name, redacted), *deltas, *seal, BlockClosed(index)]


def fold(events: Iterable[Event]) -> Answer:
    answer = Answer()
    for event in events:
        answer.add(event)
    return answer


def write(events: Iterable[Event], request: Request | None = None, **options: Any) -> bytes:
    writer = Writer("told-model", request, **options)
    return b"".join(map(writer.write, events))


def final_output(events: Iterable[Event], request: Request | None = None) -> list[dict[str, Any]]:
    """The output of the response that holds these blocks."""
    stream = write([MessageStarted(), *events, MessageEnded(Stop.END)], request)
    output: list[dict[str, Any]] = frames(stream)[-1]["response"]["output"]
    return output
