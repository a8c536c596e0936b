"""Google's chunks, made and read."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import orjson

from proxy.dialects.gemini.framing import Decoder
from proxy.dialects.gemini.reader import Reader, read_whole
from proxy.events import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from proxy.events import Event


def nothing(text: str) -> str:
    """A scrub with nothing to hide."""
    return text


def numbered() -> Callable[[], str]:
    """Ids that a test can foretell: c1, c2, …"""
    numbers = count(1)
    return lambda: f"c{next(numbers)}"


def candidate(*parts: dict[str, Any], finish: str = "", **more: Any) -> dict[str, Any]:
    out: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, **more}
    if finish:
        out["finishReason"] = finish
    return {**out, "index": 0}


def chunk(*parts: dict[str, Any], finish: str = "", usage: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """One answer in progress, as Google sends it."""
    out: dict[str, Any] = {"candidates": [candidate(*parts, finish=finish, **more)]}
    if usage is not None:
        out["usageMetadata"] = usage
    return {**out, "modelVersion": "gemini-2.5-flash", "responseId": "r1"}


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"text": said, **more}


def call(name: str, args: dict[str, Any] | None = None, id: str = "", **more: Any) -> dict[str, Any]:
    return {"functionCall": {"name": name, "args": args or {}, **({"id": id} if id else {})}, **more}


def sse(*chunks: Any) -> bytes:
    """A stream as it comes from Google."""
    return b"".join(b"data: %b\r\n\r\n" % orjson.dumps(chunk) for chunk in chunks)


def read(*pieces: bytes) -> list[Event]:
    """The events of a stream, its end included where it may end."""
    decoder, reader = Decoder(), Reader(nothing, numbered())
    events: list[Event] = []
    for piece in pieces:
        for frame in decoder.feed(piece):
            events += reader.read(frame)
    if (frame := decoder.end()) is not None:
        events += reader.read(frame)
    if reader.finished and not reader.done:
        events += reader.end()
    return events


def fold(events: Iterable[Event]) -> Answer:
    answer = Answer()
    for event in events:
        answer.add(event)
    return answer


def whole(body: bytes) -> Answer:
    return fold(read_whole(body, nothing, numbered()))


def shape(answer: Answer) -> list[tuple[str, ...]]:
    """What an answer's blocks say."""
    return [(block.block.value, block.name, block.text, block.signature) for block in answer.blocks]
