"""Events → a response's stream, and the fold of them → a response.

The stream says everything several times: an item when it begins, its text in deltas, whole when its part
ends, whole again with the item, and once more in the terminal event.  Some clients read only the deltas,
some only the items that are done, some only the end.
"""

from __future__ import annotations

from random import getrandbits
from typing import TYPE_CHECKING, Any, assert_never

import orjson

from proxy.dialects.openai_responses.errors import tell
from proxy.dialects.openai_responses.errors import words as fault_words
from proxy.dialects.openai_responses.items import Call, Message, Reasoning
from proxy.dialects.openai_responses.response import Response
from proxy.dialects.openai_responses.seals import Seal, Sealed
from proxy.dialects.openai_responses.tools import read_tools
from proxy.dialects.openai_responses.words import NAME, REASON
from proxy.events import (
    Answer,
    Block,
    BlockClosed,
    BlockDelta,
    BlockOpened,
    BlockSigned,
    Cited,
    Event,
    MessageEnded,
    MessageStarted,
    Stop,
    Usage,
)
from proxy.sse import comment, encode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.dialects.openai_responses.items import Told
    from proxy.errors import GatewayError
    from proxy.requests import Request

_COMMENT = comment(b"keep-alive")


class Writer:
    """Write one stream; ``model`` is the name the client is told.

    An item is told to be done when the next one begins or the answer ends: only then is it known whether
    it is complete.  A tool call's seal follows it in an item of its own.
    ``estimate`` is how many tokens the input may have, for an answer whose cost nobody tells: the AI SDK
    takes no end without usage.
    """

    def __init__(self, model: str, request: Request | None = None, *, estimate: int = 0) -> None:
        declared = request.extras.get(NAME, {}) if request is not None else {}
        self._token = f"{getrandbits(96):024x}"
        self._response = Response(f"resp_{self._token}", model, declared)
        self._box = read_tools([*declared.get("tools", ()), *declared.get("additional_tools", ())])
        self._estimate = estimate
        self._number = 0  # of the next event
        self._started = False
        self._item: Message | Reasoning | Call | None = None  # not done yet
        self._output: list[dict[str, Any]] = []  # items that are done
        self.response = b""  # as the end told it

    def write(self, event: Event) -> bytes:
        """Render one event."""
        if isinstance(event, BlockDelta) and event.text and (item := self._item) is not None and item.head:
            item.pieces.append(event.text)  # the hot path: nothing but the number and the text is new
            number = self._number
            self._number = number + 1
            return b'%b%d,"delta":%b}\n\n' % (item.head, number, orjson.dumps(event.text))
        return b"".join([self._frame(type, fields) for type, fields in self._tell(event)])

    def fail(self, error: GatewayError, request_id: str = "") -> bytes:
        """Tell a fault, and with it the end."""
        number, self._number = self._number, self._number + 2
        return tell(error, self._response.render("failed", self._output, error=fault_words(error)), number)

    @staticmethod
    def keepalive(mode: str) -> bytes:
        """What is sent in silence: a comment, in mode chunk too.

        Whoever reads this dialect reads `event:` lines, so comments harm nobody; but an event that comes
        before `response.created`, or has no number, breaks strict clients.
        """
        return b"" if mode == "off" else _COMMENT

    def _frame(self, type: str, fields: dict[str, Any]) -> bytes:
        number = self._number
        self._number = number + 1
        return encode(orjson.dumps({"type": type, "sequence_number": number, **fields}), type)

    def _tell(self, event: Event) -> Iterator[Told]:
        match event:
            case BlockDelta():
                if event.text and self._item is not None:
                    yield from self._item.say(event.text)
            case BlockOpened():
                yield from self._start()
                yield from self._open(event)
            case BlockClosed():
                if self._item is not None:
                    yield from self._item.close()
            case BlockSigned():
                if self._item is not None:
                    self._item.signature = event.signature
            case Cited():
                if isinstance(self._item, Message):
                    yield from self._item.cite(event.citation)
            case MessageStarted():
                yield from self._start()
            case MessageEnded():
                yield from self._start()
                yield from self._end(event)
            case _:
                assert_never(event)

    def _start(self) -> Iterator[Told]:
        if not self._started:
            self._started = True
            response = orjson.Fragment(self._response.render("in_progress", []))
            yield "response.created", {"response": response}
            yield "response.in_progress", {"response": response}

    def _open(self, event: BlockOpened) -> Iterator[Told]:
        block = event.block
        if isinstance(self._item, Message) and block in Message.BLOCKS:
            self._item.turn(block)
            return
        yield from self._done("completed")
        index = len(self._output)
        if block is Block.TOOL_CALL:
            self._item = Call(self._token, index, event.id, self._box.named(event.name))
        elif block is Block.THINKING:
            hidden = Seal(Sealed.HIDDEN, event.redacted) if event.redacted else None
            self._item = Reasoning(self._token, index, hidden)
        else:
            self._item = Message(self._token, index)
            self._item.turn(block)
            return  # it begins with its first text
        yield from self._item.begin()

    def _done(self, status: str) -> Iterator[Told]:
        item, self._item = self._item, None
        if item is None or not item.begun:
            return
        yield from item.done(status)
        self._output.append(item.words(status))
        if isinstance(item, Call) and item.signature:
            seal = Reasoning(self._token, len(self._output), Seal(Sealed.CALL, item.signature, item.call_id))
            yield from seal.begin()
            yield from seal.done(status)
            self._output.append(seal.words(status))

    def _end(self, event: MessageEnded) -> Iterator[Told]:
        reason = REASON[event.stop]
        status = "incomplete" if reason else "completed"
        yield from self._done(status)
        usage = event.usage or Usage(self._estimate)
        self.response = self._response.render(status, self._output, usage, reason=reason)
        yield f"response.{status}", {"response": orjson.Fragment(self.response)}


def whole(answer: Answer, model: str, request: Request | None = None, *, estimate: int = 0) -> bytes:
    """Render a whole answer."""
    writer = Writer(model, request, estimate=estimate)
    for event in _unfold(answer):
        writer.write(event)
    return writer.response


def _unfold(answer: Answer) -> Iterator[Event]:
    yield MessageStarted(answer.id, answer.model)
    for index, block in enumerate(answer.blocks):
        yield BlockOpened(index, block.block, block.id, block.name, block.redacted)
        if text := block.text:
            yield BlockDelta(index, block.block, text)
        for citation in block.citations:
            yield Cited(index, citation)
        if block.signature:
            yield BlockSigned(index, block.signature)
        yield BlockClosed(index)
    yield MessageEnded(answer.stop or Stop.END, answer.usage, answer.sequence)
