"""Helpers for what speaks Anthropic's Messages."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from proxy.dialects.anthropic_messages.reader import Reader
from proxy.dialects.anthropic_messages.writer import Writer
from proxy.events import Answer
from proxy.sse import Decoder
from tests.recordings import STREAMS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proxy.events import Event

_RECORDED = [pytest.param(r, id=r.name) for r in STREAMS if r.provider == "anthropic"]
_ABSENT = [pytest.param(None, id="none", marks=pytest.mark.skip(reason="no recordings beside the repository"))]
#: Every recorded stream of this dialect.
recorded = pytest.mark.parametrize("recording", _RECORDED or _ABSENT)


def nothing(text: str) -> str:
    """A scrub that has nothing to hide."""
    return text


def dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def sse(*payloads: dict[str, Any] | bytes) -> bytes:
    """Frames as Anthropic sends them; bytes stay."""
    return b"".join(
        p if isinstance(p, bytes) else b"event: %b\ndata: %b\n\n" % (p["type"].encode(), dumps(p)) for p in payloads
    )


def start(**message: Any) -> dict[str, Any]:
    """The first frame."""
    usage = {"input_tokens": 10, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 1}
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": []}
    return {
        "type": "message_start",
        "message": {**head, "stop_reason": None, "stop_sequence": None, "usage": usage, **message},
    }


def opened(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block or {"type": "text", "text": ""}}


def delta(index: int, kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": f"{kind}_delta", **fields}}


def said(index: int, text: str) -> dict[str, Any]:
    return delta(index, "text", text=text)


def closed(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def stopped(reason: str = "end_turn", sequence: str | None = None, **usage: Any) -> dict[str, Any]:
    """The frame with the stop reason."""
    told = {"stop_reason": reason, "stop_sequence": sequence}
    return {"type": "message_delta", "delta": told, "usage": usage or {"output_tokens": 5}}


END: dict[str, Any] = {"type": "message_stop"}
PING: dict[str, Any] = {"type": "ping"}


def read(*chunks: bytes) -> list[Event]:
    """Read a stream that came in these chunks."""
    decoder, reader = Decoder(), Reader(nothing)
    events = [event for chunk in chunks for frame in decoder.feed(chunk) for event in reader.read(frame)]
    if not reader.done and reader.finished:
        events += reader.end()
    return events


def fold(events: Iterable[Event]) -> Answer:
    answer = Answer()
    for event in events:
        answer.add(event)
    return answer


def write(events: Iterable[Event], writer: Writer | None = None) -> bytes:
    writer = writer or Writer("claude-x", estimate=7)
    return b"".join(map(writer.write, events))
