"""Message stream events → canonical events, and whole messages through the same mapping.

Blocks are numbered on the wire, one open at a time.  What a provider's own tools did (searches,
code runs) are blocks as well; they are passed over, so the numbers here are ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import orjson

from proxy.dialects.anthropic_messages.errors import theirs
from proxy.dialects.anthropic_messages.words import STOP, merge_counts, usage_of
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
    Stop,
)
from proxy.sse import DONE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from proxy.events import Event, Usage
    from proxy.refusals import Scrub
    from proxy.sse import Frame

#: Delta → where its text is, and the kind of block that it belongs to.
DELTA: dict[str, tuple[str, Block]] = {
    "text_delta": ("text", Block.TEXT),
    "thinking_delta": ("thinking", Block.THINKING),
    "input_json_delta": ("partial_json", Block.TOOL_CALL),
}


# What nearly every frame is, exactly so and with nothing else in it.  Decoded into types it costs half of what
# a dictionary does, and nothing needs to be looked up and checked; what differs is read the general way.


class _Said(msgspec.Struct, gc=False, forbid_unknown_fields=True, tag_field="type", tag="text_delta"):
    block: ClassVar[Block] = Block.TEXT
    text: str


class _Thought(msgspec.Struct, gc=False, forbid_unknown_fields=True, tag_field="type", tag="thinking_delta"):
    block: ClassVar[Block] = Block.THINKING
    text: str = msgspec.field(name="thinking")


class _Called(msgspec.Struct, gc=False, forbid_unknown_fields=True, tag_field="type", tag="input_json_delta"):
    block: ClassVar[Block] = Block.TOOL_CALL
    text: str = msgspec.field(name="partial_json")


class _Delta(msgspec.Struct, gc=False, forbid_unknown_fields=True, tag_field="type", tag="content_block_delta"):
    index: int
    delta: _Said | _Thought | _Called


_delta = msgspec.json.Decoder(_Delta).decode
#: How such frames are named, if they are.
_DELTA_NAMES = ("content_block_delta", "")


class Reader:
    """Read one stream.

    Quirks that end here: padding after the JSON, frames without their `event:` line, an empty
    argument string for a tool without arguments, input or text that is whole at a block's start,
    blocks that nobody opened, a `[DONE]`.

    ``finished`` tells that a stop reason was read, ``done`` that the end was told.
    Raises the provider's own error where a frame holds one.
    """

    def __init__(self, scrub: Scrub) -> None:
        self._scrub = scrub
        self._started = False
        self._open: Block | None = None
        self._index = -1  # of the open block, or of the last one
        self._place: object = None  # the wire's number for what was opened or passed over last
        self._arguments = ""  # of the open tool call, where they came with its start
        self._spoken = False  # the open block has had a delta
        self._called = False  # there was a tool call
        self._counts: dict[str, Any] = {}
        self._stop = Stop.END
        self._sequence = ""
        self.finished = False
        self.done = False

    @property
    def usage(self) -> Usage | None:
        """What the provider has told so far."""
        return usage_of(self._counts) if self._counts else None

    def read(self, frame: Frame) -> Iterable[Event]:
        """Read one frame."""
        if frame.event in _DELTA_NAMES and self._open is not None:
            try:
                told = _delta(frame.data)
            except (ValueError, RecursionError):
                return self._read(frame)
            delta = told.delta
            if delta.block is self._open and told.index == self._place and delta.text:
                self._spoken = True
                return (BlockDelta(self._index, delta.block, delta.text),)
        return self._read(frame)

    def _read(self, frame: Frame) -> Iterator[Event]:
        if self.done:
            return
        try:
            data = orjson.loads(frame.data)
        except orjson.JSONDecodeError:
            if frame.event == "error":
                raise theirs(frame.data, self._scrub) from None
            if frame.data.startswith(DONE):  # gateways that speak this dialect add one
                if self.finished:
                    yield from self.end()
                return
            raise UpstreamError("the provider sent a frame that is not JSON") from None
        if not isinstance(data, dict):
            raise UpstreamError("the provider sent a frame that is not an object")
        if frame.event == "error":
            raise theirs(data, self._scrub)
        kind = data.get("type") or frame.event
        if kind == "content_block_delta":
            yield from self._delta(data.get("index"), data.get("delta"))
        elif kind == "content_block_start":
            yield from self._begin(data.get("index"), data.get("content_block"))
        elif kind == "content_block_stop":
            yield from self._close()
        elif kind == "message_start":
            yield from self._start(data.get("message"))
        elif kind == "message_delta":
            self._counts = merge_counts(self._counts, data.get("usage"))
            self._finish(data.get("delta"))
        elif kind == "message_stop":
            yield from self.end()
        elif kind == "error" or data.get("error"):
            raise theirs(data, self._scrub)

    def message(self, message: dict[str, Any]) -> Iterator[Event]:
        """Read a whole message: each block comes complete at its start."""
        yield from self._start(message)
        for place, block in enumerate(message["content"]):
            yield from self._begin(place, block)
            yield from self._close()
        self._finish(message)
        yield from self.end()

    def end(self) -> Iterator[Event]:
        """The end mark, or a body that ended after the stop reason."""
        self.done = True
        yield from self._start(None)
        yield from self._close()
        stop = Stop.TOOL_CALLS if self._called and self._stop is Stop.END else self._stop
        yield MessageEnded(stop, self.usage, self._sequence)

    def _start(self, message: object) -> Iterator[Event]:
        if self._started:
            return
        self._started = True
        message = message if isinstance(message, dict) else {}
        self._counts = merge_counts(self._counts, message.get("usage"))
        yield MessageStarted(_text(message.get("id")), _text(message.get("model")), self.usage)

    def _finish(self, told: object) -> None:
        if isinstance(told, dict) and (reason := told.get("stop_reason")):
            self.finished = True
            self._stop = STOP.get(str(reason), Stop.END)
            self._sequence = _text(told.get("stop_sequence"))

    # One block after another...

    def _begin(self, place: object, block: object) -> Iterator[Event]:
        yield from self._close()
        self._place = place
        if not isinstance(block, dict):
            return
        match block.get("type"):
            case "text":
                yield from self._opened(Block.TEXT)
                yield from self._say(_text(block.get("text")))
                citations = block.get("citations")
                for citation in citations if isinstance(citations, list) else ():
                    yield from self._cite(citation)
            case "thinking":
                yield from self._opened(Block.THINKING)
                yield from self._say(_text(block.get("thinking")))
                if signature := _text(block.get("signature")):
                    yield BlockSigned(self._index, signature)
            case "redacted_thinking":
                yield from self._opened(Block.THINKING, redacted=_text(block.get("data")))
            case "tool_use":
                self._arguments = _arguments(block.get("input"))
                self._called = True
                yield from self._opened(Block.TOOL_CALL, _text(block.get("id")), _text(block.get("name")))

    def _delta(self, place: object, delta: object) -> Iterator[Event]:
        if not isinstance(delta, dict):
            return
        kind = _text(delta.get("type"))
        if kind in DELTA:
            field, block = DELTA[kind]
            if place != self._place and block is not Block.TOOL_CALL:  # nobody opened it
                yield from self._close()
                self._place = place
                yield from self._opened(block)
            if block is self._open and (text := _text(delta.get(field))):
                self._spoken = True
                yield BlockDelta(self._index, block, text)
        elif self._open is None:
            return
        elif kind == "signature_delta":
            yield BlockSigned(self._index, _text(delta.get("signature")))
        elif kind == "citations_delta":
            yield from self._cite(delta.get("citation"))

    def _opened(self, block: Block, id: str = "", name: str = "", redacted: str = "") -> Iterator[Event]:
        yield from self._start(None)
        self._open = block
        self._spoken = False
        self._index += 1
        yield BlockOpened(self._index, block, id, name, redacted)

    def _say(self, text: str) -> Iterator[Event]:
        if text and self._open is not None:
            yield BlockDelta(self._index, self._open, text)

    def _cite(self, citation: object) -> Iterator[Event]:
        if isinstance(citation, dict) and self._open is Block.TEXT:
            title = citation.get("title") or citation.get("document_title")
            told = {"url": citation.get("url"), "title": title, "text": citation.get("cited_text")}
            flat = {k: v for k, v in citation.items() if not isinstance(v, dict | list)}
            words = {k: v for k, v in told.items() if v and isinstance(v, str)}
            yield Cited(self._index, {**words, **flat})

    def _close(self) -> Iterator[Event]:
        block, self._open = self._open, None
        if block is None:
            return
        if block is Block.TOOL_CALL and not self._spoken:
            yield BlockDelta(self._index, block, self._arguments)
        yield BlockClosed(self._index)


def read_whole(body: bytes, scrub: Scrub) -> Iterator[Event]:
    """Read a whole answer.  Raises ``GatewayError`` where it is none."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise UpstreamError("the provider's answer is not JSON") from None
    if not isinstance(answer, dict):
        raise UpstreamError("the provider's answer is not a JSON object")
    if answer.get("type") == "error" or answer.get("error"):
        raise theirs(answer, scrub)
    if not isinstance(answer.get("content"), list):
        raise UpstreamError("the provider's answer has no `content`")
    yield from Reader(scrub).message(answer)


def _arguments(given: object) -> str:
    try:
        return orjson.dumps(given or {}).decode()
    except orjson.JSONEncodeError:
        raise UpstreamError("the provider sent arguments that are nested too deeply") from None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
