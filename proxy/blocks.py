"""One block after another, out of pieces that come mixed.

The waist has one open block at a time.  Providers of chat completions say with each fragment to which
tool call it belongs, and some interleave them.  The call that began first goes on as it comes; what
else comes before its arguments are complete waits, and follows in the order in which it began.  Where
one call ends before the next begins, nothing ever waits.
"""

from __future__ import annotations

import re
from collections import deque
from random import getrandbits
from typing import TYPE_CHECKING

from proxy.errors import UpstreamError
from proxy.events import Block, BlockClosed, BlockDelta, BlockOpened, BlockSigned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from proxy.events import Event

#: Characters that may wait.
MOST = 16 * 2**20
_KEEPING = 64  # what a piece costs beside its characters


def make_id() -> str:
    """Make an id for a call that came without one."""
    return f"call_{getrandbits(96):024x}"


class Blocks:
    """The blocks of one answer.

    ``called`` tells that it has a tool call.  Raises ``UpstreamError`` where more than ``most`` characters wait.
    """

    def __init__(self, new_id: Callable[[], str] = make_id, most: int = MOST) -> None:
        self._new_id = new_id
        self._most = most
        self._open: Block | None = None
        self._index = -1  # of the open block
        self._current: _Piece | None = None  # the call whose block is open
        self._calls: dict[object, _Piece] = {}  # by index, by index and id, or by id
        self._latest: _Piece | None = None  # the call of the last fragment
        self._ids: set[str] = set()  # of calls
        self._waiting: deque[_Piece] = deque()
        self._held = 0  # characters that wait
        self.called = False

    def say(self, block: Block, text: str) -> Iterable[Event]:
        """Words, thoughts, or a no."""
        if self._open is block:
            return (BlockDelta(self._index, block, text),)
        if self._busy():
            self._add(self._wait(block), text)
            return ()
        return (*self._begin(_Piece(block)), BlockDelta(self._index, block, text))

    def more(self, block: Block, text: str) -> tuple[Event, ...]:
        """The same where that block is open, at once; else nothing happens."""
        return (BlockDelta(self._index, block, text),) if self._open is block else ()

    def seal(self, signature: str) -> Iterator[Event]:
        """The seal on the thoughts before it; it may come without any."""
        if self._busy():
            self._sign(self._wait(Block.THINKING), signature)
            return
        if self._open is not Block.THINKING:
            yield from self._begin(_Piece(Block.THINKING))
        yield BlockSigned(self._index, signature)
        yield from self._close()

    def hide(self, data: str) -> Iterator[Event]:
        """Thoughts that are not shown."""
        piece = _Piece(Block.THINKING, redacted=data)
        if self._busy():
            self._waiting.append(piece)
            self._count(piece, data)
            return
        yield from self._begin(piece)
        yield from self._close()

    def call(self, index: object, id: str, name: str, arguments: str, signature: str = "") -> Iterator[Event]:
        """A fragment of a tool call, with what it has to tell it from the others."""
        call = self._find(index, id, name, arguments)
        if call is None:
            if not (id or name):
                return  # an end mark with everything null (Workers AI)
            call = self._enter(index, id, name)
            if self._busy():
                call.waits = True
                self._waiting.append(call)
            else:
                yield from self._begin(call)
        self._latest = call
        if call.waits:
            self._add(call, arguments)
            self._sign(call, signature or call.signature)
        elif call is self._current:
            if arguments:
                call.hear(arguments)
                yield BlockDelta(self._index, Block.TOOL_CALL, arguments)
            if signature:
                yield BlockSigned(self._index, signature)
            while self._waiting and not self._busy():
                yield from self._follow()
        # else its arguments were complete, and its block is closed: what comes after them means nothing

    def argue(self, index: int, arguments: str) -> tuple[Event, ...]:
        """The same for arguments with nothing but an index, at once where that call is open; else nothing happens."""
        call = self._current
        if call is None or self._waiting or self._calls.get(index) is not call:
            return ()
        self._latest = call
        call.hear(arguments)
        return (BlockDelta(self._index, call.block, arguments),)

    def end(self) -> Iterator[Event]:
        """Nothing more comes, and what waits has waited long enough."""
        while self._waiting:
            yield from self._follow()
        yield from self._close()

    # Which call a fragment belongs to...

    def _find(self, index: object, id: str, name: str, arguments: str) -> _Piece | None:
        if isinstance(index, int):
            found = self._calls.get(index)
            if found is not None and id and id != found.told:
                # Old Ollama gives every parallel call the index 0: a new id with a name is a new call.
                found = self._calls.get((index, id)) or (None if name else found)
        elif id:
            found = self._calls.get(id)
        else:  # a name comes once, so that one without index and id is a call of its own
            found = None if name else self._latest
        if found is not None and name and found.complete and (name != found.name or (arguments.strip() and not id)):
            return None  # complete arguments do not go on: it has no number of its own, but it is another call
        return found

    def _enter(self, index: object, id: str, name: str) -> _Piece:
        self.called = True
        unique = id if id and id not in self._ids else self._new_id()  # LocalAI has one id for all calls
        self._ids.add(unique)
        call = _Piece(Block.TOOL_CALL, unique, name, told=id)
        if isinstance(index, int):
            self._calls[index] = self._calls[index, id] = call
        elif id:
            self._calls[id] = call
        return call

    # One block after another...

    def _busy(self) -> bool:
        """Is a call open whose arguments are not complete?"""
        return self._current is not None and not self._current.complete

    def _begin(self, piece: _Piece) -> Iterator[Event]:
        yield from self._close()
        self._open = piece.block
        self._current = piece if piece.block is Block.TOOL_CALL else None
        self._index += 1
        yield BlockOpened(self._index, piece.block, piece.id, piece.name, piece.redacted)

    def _close(self) -> Iterator[Event]:
        if self._open is not None:
            self._open = self._current = None
            yield BlockClosed(self._index)

    # What waits...

    def _wait(self, block: Block) -> _Piece:
        last = self._waiting[-1] if self._waiting else None
        if last is None or last.block is not block or last.redacted or last.signature:
            last = _Piece(block)
            self._waiting.append(last)
        return last

    def _add(self, piece: _Piece, text: str) -> None:
        piece.hear(text)
        piece.texts.append(text)
        self._count(piece, text)

    def _sign(self, piece: _Piece, signature: str) -> None:
        piece.signature = signature
        self._count(piece, signature)

    def _count(self, piece: _Piece, held: str) -> None:
        size = len(held) + _KEEPING
        piece.size += size
        self._held += size
        if self._held > self._most:
            raise UpstreamError(f"more than {self._most} characters came beside a tool call that did not end")

    def _follow(self) -> Iterator[Event]:
        piece = self._waiting.popleft()
        self._held -= piece.size
        piece.waits = False
        yield from self._begin(piece)
        if text := "".join(piece.texts):
            yield BlockDelta(self._index, piece.block, text)
        piece.texts = []
        if piece.signature:
            yield BlockSigned(self._index, piece.signature)
        if piece.block is Block.THINKING and (piece.signature or piece.redacted):
            yield from self._close()


#: What decides where JSON ends; an escaped character is one with its backslash.
_MARKS = re.compile(r'\\.?|["{}\[\]]', re.DOTALL)


class _Piece:
    """A block; of a call, ``complete`` tells that the bracket which opened its arguments has closed."""

    __slots__ = (
        *("block", "id", "name", "redacted", "signature", "told", "texts", "size", "waits", "complete"),
        *("_depth", "_quoted", "_escaped"),
    )

    def __init__(self, block: Block, id: str = "", name: str = "", redacted: str = "", told: str = "") -> None:
        self.block = block
        self.id = id
        self.name = name
        self.redacted = redacted
        self.signature = ""
        self.told = told  # the id on the wire
        self.texts: list[str] = []  # those that wait
        self.size = 0  # of all that waits
        self.size = 0  # of all that waits
        self.waits = False
        self.complete = False
        self._depth = 0
        self._quoted = False  # inside a string
        self._escaped = False  # by a backslash that the last fragment ended with

    def hear(self, text: str) -> None:
        """Follow the arguments so far as to know when they end."""
        if self.complete or self.block is not Block.TOOL_CALL:
            return
        if self._escaped and text:
            text = text[1:]
            self._escaped = False
        for mark in _MARKS.findall(text):
            if mark == '"':
                self._quoted = not self._quoted
            elif mark[0] == "\\":
                self._escaped = len(mark) == 1
            elif not self._quoted:
                self._depth += 1 if mark in "{[" else -1
                if self._depth <= 0:
                    self.complete = True
                    return
