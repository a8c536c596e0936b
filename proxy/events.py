"""What an answer says, whatever the dialect: the waist of the hourglass.

A stream is read into these events and written from them; a whole answer is their fold.
Events are facts in the past tense.  Blocks open and close one after another in the order
of their index; a delta belongs to an open block.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias


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


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as providers count them; ``input`` includes ``cached``, ``output`` includes ``reasoning``."""

    input: int = 0
    output: int = 0
    cached: int = 0
    reasoning: int = 0

    def __bool__(self) -> bool:
        return bool(self.input or self.output)


@dataclass(frozen=True, slots=True)
class MessageStarted:
    """The answer has begun; ``id`` and ``model`` are the provider's words."""

    id: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class BlockOpened:
    """A block begins; tool calls have an id and a name."""

    index: int
    block: Block
    id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class BlockDelta:
    """A piece of a block's text (a tool call's text is its arguments)."""

    index: int
    block: Block
    text: str


@dataclass(frozen=True, slots=True)
class BlockClosed:
    """No more of this block."""

    index: int


@dataclass(frozen=True, slots=True)
class MessageEnded:
    """The answer is complete."""

    stop: Stop
    usage: Usage | None = None


Event: TypeAlias = MessageStarted | BlockOpened | BlockDelta | BlockClosed | MessageEnded


@dataclass(slots=True)
class Answer:
    """A whole answer: the fold of its events."""

    id: str = ""
    model: str = ""
    #: (kind, text) of each block, in order.
    blocks: list[tuple[Block, str]] = field(default_factory=list)
    stop: Stop | None = None
    usage: Usage | None = None

    @property
    def text(self) -> str:
        """All that was said aloud."""
        return "".join(text for kind, text in self.blocks if kind is Block.TEXT)

    def add(self, event: Event) -> None:
        """Take the next event of the stream."""
        match event:
            case MessageStarted():
                self.id, self.model = event.id, event.model
            case BlockOpened():
                self.blocks.append((event.block, ""))
            case BlockDelta():
                kind, text = self.blocks[event.index]
                self.blocks[event.index] = (kind, text + event.text)
            case MessageEnded():
                self.stop, self.usage = event.stop, event.usage
            case BlockClosed():
                return
