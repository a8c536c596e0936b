"""A response's stream → events, and whole responses through the same mapping.

The stream says everything several times; the deltas are read, and what stands in an item that is done
only where no delta said it.  OpenAI's items come one after another.  Others' overlap: what comes beside
an unfinished tool call waits for its end, a text or thought is cut in two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from proxy.dialects.openai_responses import freeform
from proxy.dialects.openai_responses.errors import is_fault, told
from proxy.dialects.openai_responses.seals import sign
from proxy.dialects.openai_responses.words import stop_of, usage_of
from proxy.errors import UpstreamError
from proxy.events import (
    Block,
    BlockClosed,
    BlockDelta,
    BlockOpened,
    BlockSigned,
    Cited,
    MessageEnded,
    MessageStarted,
)
from proxy.sse import DONE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from proxy.events import Event, Usage
    from proxy.refusals import Scrub
    from proxy.sse import Frame

#: Deltas → the kind of block that they belong to.
DELTA: dict[str, Block] = {
    "response.output_text.delta": Block.TEXT,
    "response.refusal.delta": Block.REFUSAL,
    "response.reasoning_summary_text.delta": Block.THINKING,
    "response.reasoning_text.delta": Block.THINKING,
    "response.function_call_arguments.delta": Block.TOOL_CALL,
}
_THINKING = Block.THINKING  # members of an enum are looked up slowly, and this one once per delta
_TERMINAL = frozenset(("response.completed", "response.incomplete"))


@dataclass(slots=True)
class _Item:
    """How much of an item has been told."""

    opened: bool = False
    length: int = 0  # characters
    part: int = 0  # its last part
    home: str = ""  # thoughts have two, with the same text: one is read
    cited: bool = False
    over: bool = False


class Reader:
    """Read one stream.

    ``finished`` and ``done`` tell that the terminal event was read; a `[DONE]` before it is no end.
    Raises the provider's own error where a frame holds one.
    """

    def __init__(self, scrub: Scrub) -> None:
        self._scrub = scrub
        self._started = False
        self._open: Block | None = None
        self._index = -1  # of the open block, or of the last one
        self._place: object = None  # the wire's number for that block's item
        self._items: dict[object, _Item] = {}
        self._called = False  # there was a tool call
        self._waiting: list[tuple[str, dict[str, Any]]] = []  # events of items beside an unfinished tool call
        self.usage: Usage | None = None
        self.finished = False
        self.done = False

    def read(self, frame: Frame) -> Iterable[Event]:
        """Read one frame."""
        if self.done:
            return ()
        if frame.data.startswith(DONE):
            raise UpstreamError("the provider ended its stream before the answer")
        try:
            event = orjson.loads(frame.data)
        except orjson.JSONDecodeError:
            if frame.event == "error":
                raise told(frame.data, self._scrub) from None
            raise UpstreamError("the provider sent a frame that is not JSON") from None
        if not isinstance(event, dict):
            raise UpstreamError("the provider sent a frame that is not an object")
        kind = _text(event.get("type")) or frame.event
        if kind in DELTA:
            return self._more(kind, event) or self._any(kind, event)
        if is_fault(event, frame.event):
            raise told(event, self._scrub)
        return self._any(kind, event)

    def response(self, response: dict[str, Any]) -> Iterator[Event]:
        """Read a whole response."""
        yield from self._start(response)
        yield from self._terminal(response)

    def end(self) -> Iterator[Event]:
        """Nothing is left to tell: the terminal event said it all."""
        yield from ()

    def _more(self, kind: str, event: dict[str, Any]) -> tuple[Event, ...]:
        """Read a delta that has only more text for the open block, as nearly all have; nothing of any other.

        It saves `_any` the look at everything that may be otherwise, and four generators.
        """
        place, block, text = event.get("output_index"), DELTA[kind], event.get("delta")
        if block is not self._open or not isinstance(place, int) or place != self._place:
            return ()
        item = self._items[place]
        part = event.get("summary_index") or event.get("content_index") or 0
        if part != item.part or (block is _THINKING and item.home != kind):
            return ()
        if not isinstance(text, str) or not text:
            return ()
        item.length += len(text)
        return (BlockDelta(self._index, block, text),)

    def _any(self, kind: str, event: dict[str, Any]) -> Iterator[Event]:
        yield from self._event(kind, event)
        yield from self._release()

    def _event(self, kind: str, event: dict[str, Any]) -> Iterator[Event]:
        place = _place(event.get("output_index"), event.get("item_id"))
        if self._open is Block.TOOL_CALL and place is not None and place != self._place:
            self._waiting.append((kind, event))
        elif kind in DELTA:
            yield from self._delta(kind, place, event)
        elif kind == "response.output_item.done":
            yield from self._item_done(place, event.get("item"))
        elif kind == "response.output_item.added":
            item = event.get("item")
            if isinstance(item, dict) and item.get("type") == "function_call":
                yield from self._call(place, item)
        elif kind == "response.function_call_arguments.done":
            if self._item(place).opened:
                yield from self._call_done(place, _text(event.get("arguments")))
        elif kind == "response.output_text.annotation.added":
            yield from self._cite(place, event.get("annotation"))
        elif kind in _TERMINAL:
            yield from self._terminal(event.get("response"))
        elif kind == "response.created":
            yield from self._start(event.get("response"))

    # The response...

    def _start(self, response: object) -> Iterator[Event]:
        if not self._started:
            self._started = True
            response = response if isinstance(response, dict) else {}
            yield MessageStarted(_text(response.get("id")), _text(response.get("model")))

    def _terminal(self, response: object) -> Iterator[Event]:
        response = response if isinstance(response, dict) else {}
        yield from self._start(response)
        yield from self._close()
        while self._waiting:
            yield from self._release()
            yield from self._close()
        output = response.get("output")
        if self._index < 0 and isinstance(output, list):  # nothing was told before the end
            for place, item in enumerate(output):
                yield from self._item_done(place, item)
        self.usage = usage_of(response.get("usage"))
        self.finished = self.done = True
        yield MessageEnded(stop_of(response, self._called), self.usage)

    # Deltas...

    def _delta(self, kind: str, place: object, event: dict[str, Any]) -> Iterator[Event]:
        block, text, item = DELTA[kind], _text(event.get("delta")), self._item(place)
        if not text or item.over:
            return
        part = event.get("summary_index") or event.get("content_index") or 0
        here = self._open is block and self._place == place
        if block is Block.TOOL_CALL:
            if not here:  # nobody said whose they are: the item will, when it is done
                return
        elif block is Block.THINKING:
            item.home = item.home or kind
            if item.home != kind:
                return
            if not here:
                yield from self._opened(block, place)
            elif part != item.part:
                text = f"\n\n{text}"
        elif not here or part != item.part:
            yield from self._opened(block, place)
        item.part = part
        item.length += len(text)
        yield BlockDelta(self._index, block, text)

    def _cite(self, place: object, citation: object) -> Iterator[Event]:
        if isinstance(citation, dict) and self._open is Block.TEXT and self._place == place:
            self._item(place).cited = True
            yield Cited(self._index, citation)

    # Items that are done...

    def _item_done(self, place: object, item: object) -> Iterator[Event]:
        if not isinstance(item, dict) or self._item(place).over:
            return
        match item.get("type"):
            case "message":
                yield from self._message(place, item)
            case "reasoning":
                yield from self._reasoning(place, item)
            case "function_call":
                yield from self._call(place, item)
                yield from self._call_done(place, _text(item.get("arguments")))
            case "custom_tool_call":
                yield from self._call(place, item)
                yield from self._call_done(place, freeform.wrap(_text(item.get("input"))))
        self._item(place).over = True
        if self._place == place:
            yield from self._close()

    def _message(self, place: object, item: dict[str, Any]) -> Iterator[Event]:
        known = self._item(place)
        told_in_deltas, cited = known.length > 0, known.cited
        for part in _objects(item.get("content")):
            block, name = (Block.REFUSAL, "refusal") if part.get("type") == "refusal" else (Block.TEXT, "text")
            text = _text(part.get(name))
            if text and not told_in_deltas:
                yield from self._opened(block, place)
                yield BlockDelta(self._index, block, text)
            for citation in () if cited else _objects(part.get("annotations")):
                yield from self._cite(place, citation)

    def _reasoning(self, place: object, item: dict[str, Any]) -> Iterator[Event]:
        texts = [_text(part.get("text")) for part in _objects(item.get("summary"))]
        if not any(texts):
            texts = [_text(part.get("text")) for part in _objects(item.get("content"))]
        text, encrypted = "\n\n".join(filter(None, texts)), _text(item.get("encrypted_content"))
        if text and not self._item(place).length:
            yield from self._opened(Block.THINKING, place)
            yield BlockDelta(self._index, Block.THINKING, text)
        if encrypted:
            if self._open is not Block.THINKING or self._place != place:
                yield from self._opened(Block.THINKING, place)
            yield BlockSigned(self._index, sign(encrypted))

    def _call(self, place: object, item: dict[str, Any]) -> Iterator[Event]:
        if not self._item(place).opened:
            self._called = True
            id = _text(item.get("call_id")) or _text(item.get("id"))
            yield from self._opened(Block.TOOL_CALL, place, id, _text(item.get("name")))

    def _call_done(self, place: object, arguments: str) -> Iterator[Event]:
        item = self._item(place)
        if rest := arguments[item.length :]:
            yield BlockDelta(self._index, Block.TOOL_CALL, rest)
        item.over = True
        yield from self._close()

    # One block after another...

    def _item(self, place: object) -> _Item:
        item = self._items.get(place)
        if item is None:
            item = self._items[place] = _Item()
        return item

    def _opened(self, block: Block, place: object, id: str = "", name: str = "") -> Iterator[Event]:
        yield from self._start(None)
        yield from self._close()
        self._item(place).opened = True
        self._open = block
        self._place = place
        self._index += 1
        yield BlockOpened(self._index, block, id, name)

    def _close(self) -> Iterator[Event]:
        if self._open is not None:
            self._open = None
            yield BlockClosed(self._index)

    def _release(self) -> Iterator[Event]:
        """Read what has waited, up to the next unfinished tool call."""
        while self._waiting and self._open is not Block.TOOL_CALL:
            waiting, self._waiting = self._waiting, []
            for kind, event in waiting:
                yield from self._event(kind, event)


def read_whole(body: bytes, scrub: Scrub) -> Iterator[Event]:
    """Read a whole answer.  Raises ``GatewayError`` where it is none."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise UpstreamError("the provider's answer is not JSON") from None
    if not isinstance(answer, dict):
        raise UpstreamError("the provider's answer is not a JSON object")
    status = answer.get("status")
    if answer.get("error") or status == "failed":
        raise told(answer, scrub)
    if status in ("cancelled", "queued", "in_progress"):
        raise UpstreamError(f"the provider's answer is {status.replace('_', ' ')}")
    if not isinstance(answer.get("output"), list):
        raise UpstreamError("the provider's answer has no `output`")
    yield from Reader(scrub).response(answer)


def _place(index: object, id: object) -> int | str | None:
    """What an event's item is known by; some providers give no number."""
    for value in (index, id):
        if isinstance(value, int | str):
            return value
    return None


def _objects(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
