"""What an answer says, whatever the dialect: the waist of the hourglass.

A stream is read into these events and written from them; a whole answer is their fold.
Events are facts in the past tense, and structs because a stream makes thousands of them.
Blocks open and close one after another, numbered from 0 in the order in which they open; a delta
belongs to the one open block.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

from msgspec import Struct


class Block(StrEnum):
    """What a block holds."""

    TEXT = "text"
    THINKING = "thinking"
    REFUSAL = "refusal"
    TOOL_CALL = "tool_call"


class Stop(StrEnum):
    """Why an answer ended."""

    END = "end"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    STOP_SEQUENCE = "stop_sequence"


class Usage(Struct, frozen=True, gc=False):
    """Tokens.  ``input`` includes ``cached`` (read) and ``cache_written``, ``output`` includes ``reasoning``."""

    input: int = 0
    output: int = 0
    cached: int = 0
    cache_written: int = 0
    reasoning: int = 0

    def __bool__(self) -> bool:
        return bool(self.input or self.output)


class MessageStarted(Struct, frozen=True, gc=False):
    """The answer has begun; ``id`` and ``model`` are the provider's words, ``usage`` what it knows so far."""

    id: str = ""
    model: str = ""
    usage: Usage | None = None


class BlockOpened(Struct, frozen=True, gc=False):
    """A block begins; tool calls have an id and a name; ``redacted`` is the data of thoughts that are not shown."""

    index: int
    block: Block
    id: str = ""
    name: str = ""
    redacted: str = ""


class BlockDelta(Struct, frozen=True, gc=False):
    """A piece of a block's text (a tool call's text is its arguments)."""

    index: int
    block: Block
    text: str


class BlockSigned(Struct, frozen=True, gc=False):
    """The provider's seal on a block, to be sent back with it in the next turn; it comes before the block closes."""

    index: int
    signature: str


class Cited(Struct, frozen=True, gc=False):
    """A source for a text block: `url`, `title`, `text`, and whatever else the provider says."""

    index: int
    citation: dict[str, Any]


class BlockClosed(Struct, frozen=True, gc=False):
    """No more of this block."""

    index: int


class MessageEnded(Struct, frozen=True, gc=False):
    """The answer is complete; ``sequence`` is the stop sequence that fired."""

    stop: Stop
    usage: Usage | None = None
    sequence: str = ""


Event: TypeAlias = MessageStarted | BlockOpened | BlockDelta | BlockSigned | Cited | BlockClosed | MessageEnded


@dataclass(slots=True)
class Folded:
    """A block of a whole answer."""

    block: Block
    id: str = ""
    name: str = ""
    redacted: str = ""
    signature: str = ""
    pieces: list[str] = field(default_factory=list)
    citations: list[dict[str, Any]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Its deltas, joined."""
        return "".join(self.pieces)


@dataclass(slots=True)
class Answer:
    """A whole answer: the fold of its events."""

    id: str = ""
    model: str = ""
    blocks: list[Folded] = field(default_factory=list)
    stop: Stop | None = None
    sequence: str = ""
    usage: Usage | None = None

    @property
    def text(self) -> str:
        """All that was said aloud."""
        return "".join(b.text for b in self.blocks if b.block is Block.TEXT)

    def add(self, event: Event) -> None:
        """Take the next event of the stream."""
        match event:
            case MessageStarted():
                self.id, self.model = event.id, event.model
            case BlockOpened():
                self.blocks.append(Folded(event.block, event.id, event.name, event.redacted))
            case BlockDelta():
                self.blocks[event.index].pieces.append(event.text)
            case BlockSigned():
                self.blocks[event.index].signature = event.signature
            case Cited():
                self.blocks[event.index].citations.append(event.citation)
            case MessageEnded():
                self.stop, self.usage, self.sequence = event.stop, event.usage, event.sequence
            case BlockClosed():
                return
