"""Output items as they grow: what each step of a block makes a client hear.

An item tells everything in order (begun, its parts, its text in deltas, the text whole, done) and knows
what it is as a whole.  The writer numbers what is told.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import orjson

from proxy.dialects.openai_responses.freeform import Unwrapper
from proxy.dialects.openai_responses.seals import Seal, Sealed, wrap
from proxy.events import Block

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.dialects.openai_responses.tools import Named

#: An event's type, and its fields.
Told: TypeAlias = tuple[str, dict[str, Any]]


class Item(ABC):
    """One item; ``index`` is its place in the output."""

    prefix: ClassVar[str]

    def __init__(self, token: str, index: int) -> None:
        self.index = index
        self.id = f"{self.prefix}_{token}{index:04x}"
        self.begun = False
        self.signature = ""
        self.pieces: list[str] = []  # of the open part's text
        #: A delta's frame up to its number, while text needs nothing but that; the writer adds to ``pieces`` itself.
        self.head = b""

    @abstractmethod
    def words(self, status: str) -> dict[str, Any]:
        """The item as far as it has come."""

    def begin(self) -> Iterator[Told]:
        """Tell that there is such an item, once."""
        if not self.begun:
            self.begun = True
            yield "response.output_item.added", {"output_index": self.index, "item": self.words("in_progress")}

    def done(self, status: str) -> Iterator[Told]:
        """Tell it whole; an item of which nothing was told is none."""
        if self.begun:
            yield "response.output_item.done", {"output_index": self.index, "item": self.words(status)}


class Message(Item):
    """What is said aloud; texts in a row are its parts, and an empty one is none."""

    prefix = "msg"

    #: What a part may be.
    BLOCKS: ClassVar[frozenset[Block]] = frozenset((Block.TEXT, Block.REFUSAL))

    def __init__(self, token: str, index: int) -> None:
        super().__init__(token, index)
        self._block = Block.TEXT
        self._content: list[dict[str, Any]] = []  # parts that are over
        self._annotations: list[dict[str, Any]] = []
        self._open = False
        self._place: dict[str, Any] = {}

    def words(self, status: str) -> dict[str, Any]:
        return {"id": self.id, "type": "message", "status": status, "role": "assistant", "content": self._content}

    def turn(self, block: Block) -> None:
        """The next part is a ``block``."""
        self._block = block

    def say(self, text: str) -> Iterator[Told]:
        """Tell a piece of the open part's text."""
        if not self._open:
            yield from self._part()
        self.pieces.append(text)
        if self._block is Block.TEXT:
            yield "response.output_text.delta", {**self._place, "logprobs": [], "delta": text}
        else:
            yield "response.refusal.delta", {**self._place, "delta": text}

    def cite(self, citation: dict[str, Any]) -> Iterator[Told]:
        """Tell a source, where it has a form here."""
        told = annotation(citation, sum(map(len, self.pieces)))
        if self._block is not Block.TEXT or told is None:
            return
        if not self._open:
            yield from self._part()
        number = len(self._annotations)
        self._annotations.append(told)
        yield (
            "response.output_text.annotation.added",
            {**self._place, "annotation_index": number, "annotation": told},
        )

    def close(self) -> Iterator[Told]:
        """The open part is over."""
        if not self._open:
            return
        self._open = False
        self.head = b""
        text = "".join(self.pieces)
        part = self._words(text)
        self._content.append(part)
        if self._block is Block.TEXT:
            yield "response.output_text.done", {**self._place, "text": text, "logprobs": []}
        else:
            yield "response.refusal.done", {**self._place, "refusal": text}
        yield "response.content_part.done", {**self._place, "part": part}

    def _part(self) -> Iterator[Told]:
        yield from self.begin()
        self._open = True
        self.pieces = []
        self._annotations = []
        self._place = {"item_id": self.id, "output_index": self.index, "content_index": len(self._content)}
        if self._block is Block.TEXT:
            self.head = _head("response.output_text.delta", **self._place, logprobs=[])
        else:
            self.head = _head("response.refusal.delta", **self._place)
        yield "response.content_part.added", {**self._place, "part": self._words("")}

    def _words(self, text: str) -> dict[str, Any]:
        if self._block is Block.REFUSAL:
            return {"type": "refusal", "refusal": text}
        return {"type": "output_text", "text": text, "annotations": [*self._annotations], "logprobs": []}


class Reasoning(Item):
    """What is thought, as a summary of one part; ``seal`` is known from the start where nothing is shown."""

    prefix = "rs"

    def __init__(self, token: str, index: int, seal: Seal | None = None) -> None:
        super().__init__(token, index)
        self._seal = seal
        self._summary: list[dict[str, Any]] = []
        self._place = {"item_id": self.id, "output_index": index, "summary_index": 0}

    def words(self, status: str) -> dict[str, Any]:
        item: dict[str, Any] = {"id": self.id, "type": "reasoning", "summary": self._summary}
        seal = Seal(Sealed.THOUGHT, self.signature) if self.signature else self._seal
        return {**item, "encrypted_content": wrap(seal)} if seal else item

    def say(self, text: str) -> Iterator[Told]:
        """Tell a piece of the summary."""
        if not self.pieces:
            self.head = _head("response.reasoning_summary_text.delta", **self._place)
            part = {"type": "summary_text", "text": ""}
            yield "response.reasoning_summary_part.added", {**self._place, "part": part}
        self.pieces.append(text)
        yield "response.reasoning_summary_text.delta", {**self._place, "delta": text}

    def close(self) -> Iterator[Told]:
        """The summary is over."""
        self.head = b""
        if self.pieces:
            part = {"type": "summary_text", "text": "".join(self.pieces)}
            self._summary = [part]
            yield "response.reasoning_summary_text.done", {**self._place, "text": part["text"]}
            yield "response.reasoning_summary_part.done", {**self._place, "part": part}


class Call(Item):
    """A call of a function, or of a custom tool, which takes text."""

    prefix = "fc"

    def __init__(self, token: str, index: int, call_id: str, tool: Named) -> None:
        super().__init__(token, index)
        if tool.custom:
            self.id = f"ctc_{token}{index:04x}"
        self.call_id = call_id or f"call_{token}{index:04x}"
        self._tool = tool
        self._input = Unwrapper() if tool.custom else None
        self._told = ""  # the whole text, once it is
        self._place = {"item_id": self.id, "output_index": index}
        if self._input is None:
            self.head = _head("response.function_call_arguments.delta", **self._place)

    def words(self, status: str) -> dict[str, Any]:
        item = {"id": self.id, "type": "function_call", "status": status, "call_id": self.call_id, **self._tool.words}
        if self._tool.custom:
            return {**item, "type": "custom_tool_call", "input": self._told}
        return {**item, "arguments": self._told}

    def say(self, text: str) -> Iterator[Told]:
        """Tell a piece of the arguments."""
        if self._input is None:
            self.pieces.append(text)
            yield "response.function_call_arguments.delta", {**self._place, "delta": text}
        elif said := self._input.feed(text):
            yield "response.custom_tool_call_input.delta", {**self._place, "delta": said}

    def close(self) -> Iterator[Told]:
        """The arguments are over; none are an empty object."""
        if self._input is None:
            self.head = b""
            if not self.pieces:
                yield from self.say("{}")
            self._told = "".join(self.pieces)
            done = {"arguments": self._told, **self._tool.words}
            yield "response.function_call_arguments.done", {**self._place, **done}
            return
        rest, self._told = self._input.end()
        if rest:
            yield "response.custom_tool_call_input.delta", {**self._place, "delta": rest}
        yield "response.custom_tool_call_input.done", {**self._place, "input": self._told}


def _head(type: str, **fields: Any) -> bytes:
    said = orjson.dumps({"type": type, **fields})[:-1]
    return b'event: %b\ndata: %b,"sequence_number":' % (type.encode(), said)


def annotation(citation: dict[str, Any], at: int) -> dict[str, Any] | None:
    """Say a source; ``at`` is how many characters precede it.  None where it has no form here."""
    if citation.get("type") in ("url_citation", "file_citation", "container_file_citation", "file_path"):
        return citation
    if not citation.get("url"):
        return None
    return {
        "type": "url_citation",
        "url": citation["url"],
        "title": citation.get("title") or "",
        "start_index": citation.get("start_index", at),
        "end_index": citation.get("end_index", at),
    }
