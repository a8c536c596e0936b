"""Workers AI's chunks, made and read."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import orjson

from proxy.dialects.workers_ai.reader import Reader
from proxy.dialects.workers_ai.whole import read_whole
from proxy.events import Answer, Block
from proxy.sse import Decoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from proxy.events import Event

DONE = b"data: [DONE]\n\n"
COUNTS = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def nothing(text: str) -> str:
    """A scrub with nothing to hide."""
    return text


def numbered() -> Callable[[], str]:
    """Ids that a test can foretell: c1, c2, …"""
    numbers = count(1)
    return lambda: f"c{next(numbers)}"


def native(response: Any = "", **more: Any) -> dict[str, Any]:
    return {"response": response, "p": "abcdefghij", **more}


def delta(finish: str | None = None, **said: Any) -> dict[str, Any]:
    """A chunk of OpenAI's shape, from the same endpoint."""
    choice = {"delta": said, "finish_reason": finish, "index": 0}
    return {"choices": [choice], "object": "chat.completion.chunk"}


def sse(*chunks: Any) -> bytes:
    return b"".join(b"data: %b\n\n" % orjson.dumps(chunk) for chunk in chunks)


def read(*pieces: bytes, max_tokens: int | None = None) -> list[Event]:
    """The events of a stream, its end included where it may end."""
    decoder, reader = Decoder(), Reader(nothing, max_tokens=max_tokens, new_id=numbered())
    events: list[Event] = []
    for piece in pieces:
        for frame in decoder.feed(piece):
            events += reader.read(frame)
    if reader.finished and not reader.done:
        events += reader.end()
    return events


def fold(events: Iterable[Event]) -> Answer:
    answer = Answer()
    for event in events:
        answer.add(event)
    return answer


def whole(body: Any, max_tokens: int | None = None) -> Answer:
    body = body if isinstance(body, bytes) else orjson.dumps(body)
    return fold(read_whole(body, nothing, max_tokens=max_tokens, new_id=numbered()))


def shape(answer: Answer) -> list[tuple[Block, str, str, str]]:
    """What an answer's blocks say."""
    return [(block.block, block.id, block.name, block.text) for block in answer.blocks]
