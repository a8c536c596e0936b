"""Google's chunks → events.

Each chunk is an answer of its own whose parts continue the one before; there are no bounds of blocks
and no end mark: the end is the close of the connection after a finish reason.
"""

from __future__ import annotations

from secrets import token_hex
from typing import TYPE_CHECKING, Any

import orjson

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
    Usage,
)
from proxy.refusals import Scrub, read_refusal, refused
from proxy.sse import DONE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from proxy.events import Event
    from proxy.sse import Frame

# Members of an enum are looked up slowly, and these once per chunk.
_TEXT, _THINKING = Block.TEXT, Block.THINKING

#: Those that are not here, and those of the future, mean that the model had no more to say.
STOP: dict[str, Stop] = {
    "MAX_TOKENS": Stop.LENGTH,
    "SAFETY": Stop.CONTENT_FILTER,
    "RECITATION": Stop.CONTENT_FILTER,
    "BLOCKLIST": Stop.CONTENT_FILTER,
    "PROHIBITED_CONTENT": Stop.CONTENT_FILTER,
    "SPII": Stop.CONTENT_FILTER,
    "MODEL_ARMOR": Stop.CONTENT_FILTER,
    "IMAGE_SAFETY": Stop.CONTENT_FILTER,
    "IMAGE_PROHIBITED_CONTENT": Stop.CONTENT_FILTER,
    "IMAGE_RECITATION": Stop.CONTENT_FILTER,
    "IMAGE_OTHER": Stop.CONTENT_FILTER,
}


class Reader:
    """Read the first candidate of one stream; quirks of the wire end here.

    A finish reason may be followed by more: with code execution the model stops where the code begins,
    and goes on once it has run.  ``finished`` therefore falls back while the answer grows.

    ``new_id`` makes ids for calls, which have hardly ever one.
    Raises the provider's own error where a frame holds one.
    """

    def __init__(self, scrub: Scrub, new_id: Callable[[], str] | None = None) -> None:
        self._scrub = scrub
        self._new_id = new_id or (lambda: f"call_{token_hex(12)}")
        self._started = False
        self._open: Block | None = None
        self._index = -1  # of the open block
        self._called = False
        self._cited: set[str] = set()  # what was cited so far: later chunks repeat it
        self._stop: Stop | None = None
        self._counts: dict[str, Any] = {}
        self.finished = False
        self.done = False

    @property
    def usage(self) -> Usage | None:
        """The last count; each is of all so far."""
        return usage_of(self._counts) if self._counts else None

    def read(self, frame: Frame) -> Iterable[Event]:
        """Read one frame."""
        if self.done:
            return ()
        if frame.data.startswith(DONE):  # of relays that know no other end
            return self.end()
        try:
            chunk = orjson.loads(frame.data)
        except orjson.JSONDecodeError:
            raise UpstreamError("the provider sent a frame that is not JSON") from None
        return self._more(chunk) or self.chunk(chunk)

    def chunk(self, chunk: Any) -> Iterator[Event]:
        """Read one decoded chunk; a whole answer is one chunk."""
        if isinstance(chunk, list) and chunk:  # an error among the array's items stays one
            chunk = chunk[0]
        if not isinstance(chunk, dict):
            raise UpstreamError("the provider sent a frame that is not an object")
        if chunk.get("error"):
            refusal = read_refusal(chunk)
            raise refused(refusal.status, refusal, self._scrub)
        counts = chunk.get("usageMetadata")
        if isinstance(counts, dict) and "promptTokenCount" in counts:  # Vertex counts only at the end
            self._counts = counts
        candidates = chunk.get("candidates")
        candidate = None
        for one in candidates if isinstance(candidates, list) else ():
            if isinstance(one, dict) and not one.get("index"):
                candidate = one
                break
        if not self._started:
            self._started = True
            yield MessageStarted(_text(chunk.get("responseId")), _text(chunk.get("modelVersion")), self.usage)
        if candidate is not None:
            yield from self._candidate(candidate)
        elif (feedback := chunk.get("promptFeedback")) and isinstance(feedback, dict) and feedback.get("blockReason"):
            self.finished = True
            self._stop = Stop.CONTENT_FILTER

    def _more(self, chunk: Any) -> tuple[Event, ...]:
        """Read a chunk that has only more text for the open block, as nearly all have; nothing of any other.

        It saves `chunk` the look at everything that may stand in one, and four generators.
        """
        try:
            (candidate,) = chunk["candidates"]
            (part,) = candidate["content"]["parts"]
            text = part["text"]
        except (KeyError, TypeError, ValueError):
            return ()
        thought = len(part) == 2 and part.get("thought") is True
        if not (thought or len(part) == 1) or self._open is not (_THINKING if thought else _TEXT):
            return ()
        if not isinstance(text, str) or not text or chunk.get("error"):
            return ()
        if candidate.get("finishReason") or candidate.get("groundingMetadata") or candidate.get("index"):
            return ()
        counts = chunk.get("usageMetadata")
        if isinstance(counts, dict) and "promptTokenCount" in counts:
            self._counts = counts
        self.finished = False
        return (BlockDelta(self._index, self._open, text),)

    def end(self) -> Iterator[Event]:
        """The body ended after the finish reason."""
        self.done = True
        yield from self._close()
        stop = self._stop or Stop.END
        if stop is Stop.END and self._called:  # calls end with STOP, too
            stop = Stop.TOOL_CALLS
        yield MessageEnded(stop, self.usage)

    def _candidate(self, candidate: dict[str, Any]) -> Iterator[Event]:
        content = candidate.get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        part: Any = None
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict):
                yield from self._part(part)
        if (grounding := candidate.get("groundingMetadata")) and isinstance(grounding, dict):
            yield from self._citations(grounding)
        if reason := candidate.get("finishReason"):
            self._stop = STOP.get(str(reason), Stop.END)
            # Code without its result: it runs now, and the answer goes on.
            self.finished = not (isinstance(part, dict) and "executableCode" in part and self._stop is Stop.END)
        elif part is not None:
            self.finished = False

    def _part(self, part: dict[str, Any]) -> Iterator[Event]:
        signature = _text(part.get("thoughtSignature"))
        call = part.get("functionCall")
        if isinstance(call, dict):
            yield from self._call(call, signature)
            return
        text = part.get("text")
        if isinstance(text, str) and text:
            block = Block.THINKING if part.get("thought") else Block.TEXT
            if self._open is not block:
                yield from self._begin(block)
            yield BlockDelta(self._index, block, text)
        if signature:  # it may come alone, on an empty text at the end
            if self._open is None:
                yield from self._begin(Block.TEXT)
            yield BlockSigned(self._index, signature)
            yield from self._close()  # what follows is not what was sealed

    def _call(self, call: dict[str, Any], signature: str) -> Iterator[Event]:
        self._called = True
        yield from self._begin(Block.TOOL_CALL, _text(call.get("id")) or self._new_id(), _text(call.get("name")))
        try:
            yield BlockDelta(self._index, Block.TOOL_CALL, orjson.dumps(call.get("args") or {}).decode())
        except orjson.JSONEncodeError:
            raise UpstreamError("the provider sent arguments that are nested too deeply") from None
        if signature:
            yield BlockSigned(self._index, signature)
        yield from self._close()

    def _citations(self, grounding: dict[str, Any]) -> Iterator[Event]:
        chunks = grounding.get("groundingChunks")
        for chunk in chunks if isinstance(chunks, list) else ():
            web = chunk.get("web") if isinstance(chunk, dict) else None
            if not isinstance(web, dict) or not (url := _text(web.get("uri"))) or url in self._cited:
                continue
            self._cited.add(url)
            if self._open is not Block.TEXT:
                yield from self._begin(Block.TEXT)
            yield Cited(self._index, {"url": url, "title": _text(web.get("title"))})

    def _begin(self, block: Block, id: str = "", name: str = "") -> Iterator[Event]:
        yield from self._close()
        self._open = block
        self._index += 1
        yield BlockOpened(self._index, block, id, name)

    def _close(self) -> Iterator[Event]:
        if self._open is not None:
            self._open = None
            yield BlockClosed(self._index)


def read_whole(body: bytes, scrub: Scrub, new_id: Callable[[], str] | None = None) -> Iterator[Event]:
    """Read an answer that came whole: one object, or a stream's array.  Raises ``GatewayError``."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise UpstreamError("the provider's answer is not JSON") from None
    reader = Reader(scrub, new_id)
    known = False
    for chunk in answer if isinstance(answer, list) else [answer]:
        yield from reader.chunk(chunk)
        known = known or bool(chunk.get("candidates") or chunk.get("promptFeedback"))
    if not known:
        raise UpstreamError("the provider's answer has no `candidates`")
    yield from reader.end()


def usage_of(counts: dict[str, Any]) -> Usage:
    """Read Google's counts: thoughts and tools' prompts are counted beside the others, and any may be absent."""
    thoughts = _count(counts, "thoughtsTokenCount")
    return Usage(
        _count(counts, "promptTokenCount") + _count(counts, "toolUsePromptTokenCount"),
        _count(counts, "candidatesTokenCount") + thoughts,
        _count(counts, "cachedContentTokenCount"),
        reasoning=thoughts,
    )


def _count(counts: dict[str, Any], name: str) -> int:
    value = counts.get(name)
    return value if type(value) is int and value > 0 else 0  # true is no number here


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
