"""What a provider wants back that clients drop: thoughts, kept by the id of the tool call that they led to.

DeepSeek refuses a turn whose thoughts are missing, Anthropic and Gemini one whose seals are; most
clients' dialects have no place for either.  The memory is bounded and belongs to this process: what
it has forgotten is simply not sent.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from proxy.events import Block, BlockClosed, BlockDelta, BlockOpened, BlockSigned
from proxy.requests import Request, Role, Thinking, ToolCall, Turn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.events import Event
    from proxy.requests import Part

_MOST = 16 * 2**20  # bytes of text
_LONGEST = 2**20  # of one answer's thoughts


class _Kept(NamedTuple):
    """What belongs to one call: who spoke, the thoughts before it, and its own seal."""

    dialect: str
    thoughts: tuple[Thinking, ...]
    signature: str

    @property
    def size(self) -> int:
        return 200 + len(self.signature) + sum(len(t.text) + len(t.signature) + len(t.redacted) for t in self.thoughts)


class Memory:
    """Thoughts by tool call, the oldest forgotten first."""

    def __init__(self, most: int = _MOST) -> None:
        """``most`` bounds the bytes of text that are kept."""
        self._most = most
        self._size = 0
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def keep(self, call: str, dialect: str, thoughts: tuple[Thinking, ...], signature: str = "") -> None:
        """Remember what led to a call, as a provider of this dialect told it."""
        if not call or not (thoughts or signature):
            return
        kept = _Kept(dialect, thoughts, signature)
        if (old := self._kept.pop(call, None)) is not None:
            self._size -= old.size
        self._kept[call] = kept
        self._size += kept.size
        while self._size > self._most:
            _, oldest = self._kept.popitem(last=False)
            self._size -= oldest.size

    def thoughts(self, call: str) -> str:
        """The words that led to a call; "" where they are not known."""
        kept = self._kept.get(call)
        return "".join(t.text for t in kept.thoughts) if kept else ""

    def restore(self, request: Request, dialect: str) -> Request:
        """Put back what a client has dropped, on the turns of the calls that it belongs to.

        A seal means something only to those who made it: others' are left out.
        """
        if not self._kept:
            return request
        turns = tuple(self._restored(turn, dialect) for turn in request.turns)
        return request if turns == request.turns else replace(request, turns=turns)

    def listen(self, events: Iterator[Event], dialect: str) -> Iterator[Event]:
        """Pass events on, and remember what of them will be wanted back."""
        listener = Listener(self, dialect)
        for event in events:
            listener.hear(event)
            yield event

    def _restored(self, turn: Turn, dialect: str) -> Turn:
        """The first thoughts lead the turn; later ones stand before the call that they led to."""
        calls = {part.id for part in turn.parts if isinstance(part, ToolCall)} if turn.role is Role.ASSISTANT else ()
        known = {id: kept for id in calls if (kept := self._kept.get(id)) and kept.dialect == dialect}
        if not known:
            return turn
        sealed = any(_sealed(thought) for kept in known.values() for thought in kept.thoughts)
        told = any(isinstance(part, Thinking) and (_sealed(part) or not sealed) for part in turn.parts)
        parts: list[Part] = []
        back: tuple[Thinking, ...] = ()
        for part in turn.parts:
            if isinstance(part, Thinking) and sealed and not told:
                continue  # the words without their seal, which are of no use
            if isinstance(part, ToolCall) and (kept := known.get(part.id)):
                if kept.thoughts and not told:
                    same = kept.thoughts[: len(back)] == back  # another answer's, where the client joined two
                    at = len(parts) if back else 0
                    parts[at:at] = kept.thoughts[len(back) :] if same else kept.thoughts
                    back = kept.thoughts
                if kept.signature and not part.signature:
                    part = replace(part, signature=kept.signature)
            parts.append(part)
        return turn if tuple(parts) == turn.parts else replace(turn, parts=tuple(parts))


def _sealed(thought: Thinking) -> bool:
    return bool(thought.signature or thought.redacted)


class Listener:
    """Hears one answer, and keeps in ``memory`` what its tool calls will need."""

    def __init__(self, memory: Memory, dialect: str) -> None:
        self._memory = memory
        self._dialect = dialect
        self._block: Block | None = None
        self._call = ""
        self._redacted = ""
        self._signature = ""
        self._pieces: list[str] = []
        self._size = 0
        self._thoughts: list[Thinking] = []

    def hear(self, event: Event) -> None:
        """Take the next event."""
        if isinstance(event, BlockDelta):
            if event.block is Block.THINKING and self._size < _LONGEST:
                self._size += len(event.text)
                self._pieces.append(event.text)
        elif isinstance(event, BlockOpened):
            self._block, self._call, self._redacted, self._signature = event.block, event.id, event.redacted, ""
        elif isinstance(event, BlockSigned):
            self._signature = event.signature
        elif isinstance(event, BlockClosed):
            self._closed()

    def _closed(self) -> None:
        if self._block is Block.THINKING:
            self._thoughts.append(Thinking("".join(self._pieces), self._signature, self._redacted))
            self._pieces = []
        elif self._block is Block.TOOL_CALL:
            self._memory.keep(self._call, self._dialect, tuple(self._thoughts), self._signature)
        self._block = None
