"""Looks at Google's chunks as they pass, and parses only those that matter: a finish reason, a block, an error.

The counts are on every chunk and of all so far: the last one is kept, and read when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from proxy.dialects.gemini.framing import Reframer, framing
from proxy.dialects.gemini.reader import usage_of
from proxy.errors import UpstreamError
from proxy.refusals import Scrub, read_refusal, refused

if TYPE_CHECKING:
    from proxy.errors import GatewayError
    from proxy.events import Usage
    from proxy.sse import Frame

_COUNTS = b'"usageMetadata"'


class Tap:
    """Knows how far one stream has come.

    ``array`` is for clients that do not ask for `alt=sse`: each chunk becomes an item of their array.
    """

    named = False
    texts: tuple[bytes, ...] = ()  # each frame's counts are kept
    reframer = Reframer

    def __init__(self, scrub: Scrub, *, array: bool = False) -> None:
        self._scrub = scrub
        self._array = array
        self._framing = framing(array)
        self._counted = b""  # the last bytes that hold counts
        self.finished = False
        self.done = False
        self.error: GatewayError | None = None

    def plain(self, run: bytes) -> bool:
        """Is there nothing in these whole frames that this tap wants to see?"""
        if _COUNTS in run:
            self._counted = run
        # After a finish reason more may come; an item of an array is written anew.
        return not (
            self.finished or self._array or b'"finishReason"' in run or b'"blockReason"' in run or b'"error"' in run
        )

    def look(self, raw: bytes, frame: Frame) -> bytes:
        """See one frame; return what of it goes to the client.  Sets ``error`` where it is one."""
        if self.plain(raw):
            return raw
        try:
            chunk = orjson.loads(frame.data)
        except orjson.JSONDecodeError:
            if self._array:
                self.error = UpstreamError("the provider sent a frame that is not JSON")
                return b""
            return raw
        if isinstance(chunk, list) and chunk:
            chunk = chunk[0]
        if isinstance(chunk, dict):
            if chunk.get("error"):
                refusal = read_refusal(chunk)
                self.error = refused(refusal.status, refusal, self._scrub)
                return b""
            self._see(chunk)
        return self._framing.item(frame.data) if self._array else raw

    def end(self) -> bytes:
        """The body ended after a finish reason: that is the end."""
        return self._framing.end()

    def fail(self, error: GatewayError) -> bytes:
        """Tell a fault, which ends the stream."""
        return self._framing.fail(error)

    @property
    def usage(self) -> Usage | None:
        """The last count."""
        start = self._counted.rfind(b"data:", 0, self._counted.rfind(_COUNTS))
        if start < 0:
            return None
        line = self._counted[start + 5 :].splitlines()[0]
        try:
            counts = orjson.loads(line).get("usageMetadata")
        except (orjson.JSONDecodeError, AttributeError):
            return None
        return usage_of(counts) if isinstance(counts, dict) and "promptTokenCount" in counts else None

    def _see(self, chunk: dict[str, Any]) -> None:
        candidates = chunk.get("candidates")
        first = candidates[0] if isinstance(candidates, list) and candidates else None
        if isinstance(first, dict):
            content = first.get("content")
            parts = content.get("parts") if isinstance(content, dict) else None
            last = parts[-1] if isinstance(parts, list) and parts else None
            if reason := first.get("finishReason"):
                # Code without its result: it runs now, and the answer goes on.
                self.finished = not (isinstance(last, dict) and "executableCode" in last and reason == "STOP")
            elif last is not None:
                self.finished = False
        elif isinstance(feedback := chunk.get("promptFeedback"), dict) and feedback.get("blockReason"):
            self.finished = True
