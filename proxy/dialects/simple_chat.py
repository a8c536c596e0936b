"""The small dialect of `POST /api/chat`, and the error form of the simple endpoints.

Request: `prompt` or `messages`, `model`, `stream` (default true), `max_tokens`, `temperature`.
Stream: `{"delta"}` …, `{"done": true, "model", "usage"}`.  Whole: `{"response", "model", "usage", "done"}`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeVar, assert_never

import msgspec
import orjson

from proxy.errors import GatewayError, InvalidRequest
from proxy.events import (
    Block,
    BlockClosed,
    BlockDelta,
    BlockOpened,
    BlockSigned,
    Cited,
    Event,
    MessageEnded,
    MessageStarted,
    Usage,
)
from proxy.requests import Image, Request, Role, Text, Turn
from proxy.sse import comment, encode

T = TypeVar("T")

_ALOUD = frozenset((Block.TEXT, Block.REFUSAL))

ROLES = {"system": Role.SYSTEM, "developer": Role.SYSTEM, "user": Role.USER, "assistant": Role.ASSISTANT}


def parse(fields: dict[str, msgspec.Raw]) -> Request:
    """Read a body that is split at its top level.  Raises ``InvalidRequest`` naming the field."""
    prompt = _take(fields, "prompt", str, "a string")
    turns = _take(fields, "messages", list[dict[str, Any]], "an array of objects")
    messages = [_turn(turn, i) for i, turn in enumerate(turns or [])]
    if prompt is not None:
        messages.append(Turn(Role.USER, (Text(prompt),)))
    if not messages:
        raise InvalidRequest("give `prompt` or `messages`", param="prompt" if turns is None else "messages")
    stream = _take(fields, "stream", bool, "true or false")
    max_tokens = _take(fields, "max_tokens", int, "a whole number")
    if max_tokens is not None and max_tokens < 1:
        raise InvalidRequest("`max_tokens` must be at least 1", param="max_tokens")
    return Request(
        model=_take(fields, "model", str, "a string") or None,
        turns=tuple(messages),
        stream=stream is not False,
        max_tokens=max_tokens,
        temperature=_take(fields, "temperature", float, "a number"),
    )


class SimpleWriter:
    """Write events for a client of `/api/chat`; ``model`` is the name it is told."""

    def __init__(self, model: str) -> None:
        self._model = model

    def write(self, event: Event) -> bytes:
        """Render one event; b"" where this dialect has no word for it."""
        if isinstance(event, BlockDelta):
            return b'data: {"delta":%b}\n\n' % orjson.dumps(event.text) if event.block in _ALOUD else b""
        match event:
            case MessageEnded():
                usage = usage_words(event.usage) if event.usage else None
                return encode(orjson.dumps({"done": True, "model": self._model, "usage": usage}))
            case MessageStarted() | BlockOpened() | BlockSigned() | Cited() | BlockClosed():
                return b""
            case _:
                assert_never(event)


def keepalive(mode: str) -> bytes:
    """What is sent in silence: a comment, or a delta that says nothing."""
    return {"comment": comment(b"keep-alive"), "chunk": encode(b'{"delta":""}')}.get(mode, b"")


def whole(text: str, model: str, usage: Usage | None) -> bytes:
    """Render a whole answer."""
    return orjson.dumps(
        {"response": text, "model": model, "usage": usage_words(usage) if usage else None, "done": True}
    )


def usage_words(usage: Usage) -> dict[str, int]:
    """Say usage in OpenAI's names."""
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
    }


def body(error: GatewayError, request_id: str = "") -> bytes:
    """Render a fault: kind, details and time."""
    return orjson.dumps({"error": error.kind, "details": error.message, "timestamp": now()})


def now() -> str:
    """Tell the time as this dialect does: UTC, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def frame(error: GatewayError, request_id: str = "") -> bytes:
    """Render the frame that tells a fault inside a stream."""
    return encode(body(error))


def _take(fields: dict[str, msgspec.Raw], name: str, type: type[T], what: str) -> T | None:
    raw = fields.get(name)
    if raw is None or bytes(raw) == b"null":
        return None
    try:
        return msgspec.json.decode(raw, type=type)
    except RecursionError:
        raise InvalidRequest(f"`{name}` is nested too deeply", param=name) from None
    except msgspec.DecodeError:
        raise InvalidRequest(f"`{name}` must be {what}", param=name) from None


def _turn(turn: dict[str, Any], position: int) -> Turn:
    place, role, content = f"messages[{position}]", turn.get("role"), turn.get("content")
    if not isinstance(role, str) or role not in ROLES:
        known = ", ".join(ROLES)
        raise InvalidRequest(f"`{place}.role` must be one of {known}", param=f"{place}.role")
    if isinstance(content, str):
        return Turn(ROLES[role], (Text(content),))
    if not isinstance(content, list):
        raise InvalidRequest("every message needs `content`", param=f"{place}.content")
    return Turn(ROLES[role], tuple(_part(part, f"{place}.content[{i}]") for i, part in enumerate(content)))


def _part(part: Any, place: str) -> Text | Image:
    """Parts are spelled as in chat completions: text, or an image by its URL."""
    match part:
        case {"type": "text", "text": str(text)}:
            return Text(text)
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            return Image(url)
        case _:
            raise InvalidRequest(f"`{place}` must be a text or an image_url part", param=place)
