"""Looks at chat completion frames as they pass, and parses only those that matter.

A frame matters when it may hold a finish reason, usage or an error.  Whether one does is
asked of a whole run of frames with a few C-level scans; the usual run costs no more.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import orjson

from proxy.dialects.openai_chat.errors import theirs
from proxy.dialects.openai_chat.reader import usage_of
from proxy.sse import DONE, encode

if TYPE_CHECKING:
    from proxy.errors import GatewayError
    from proxy.events import Usage
    from proxy.refusals import Scrub
    from proxy.sse import Frame

END_MARK = encode(DONE)
_TEXTS = (b'"content":"', b'"reasoning_content":"', b'"reasoning":"', b'"arguments":"', b'"text":"')
_CANDIDATES = 4  # usage objects kept until the end: the last that is not all zeros counts


class ChatTap:
    """Knows how far one chat stream has come, and keeps its client's view of usage right.

    The usage arrives anywhere: alone in a chunk without choices, on the finish chunk (DeepSeek),
    on every chunk (Perplexity), twice (Groq), with zeros last (Workers AI).  A usage-only chunk
    reaches only a client that asked (simple loops index `choices[0]`), and such a client gets
    exactly one.
    """

    named = False
    texts: tuple[bytes, ...] = _TEXTS
    done = False  # the Reframer knows this dialect's end mark

    def __init__(self, scrub: Scrub, *, include_usage: bool = False, choices: int = 1) -> None:
        self._scrub = scrub
        self._include_usage = include_usage
        self._choices = choices
        self._finished: set[int] = set()  # indexes of choices whose finish reason has passed
        self._usages: deque[bytes] = deque(maxlen=_CANDIDATES)  # data of frames that held one
        self._usage_passed = False
        self.finished = False
        self.error: GatewayError | None = None

    def plain(self, run: bytes) -> bool:
        """Is there nothing in these whole frames that this tap wants to see?"""
        count = run.count
        return (
            run.find(b'"error"') < 0  # which costs half of what `in` does
            and (run.find(b'"usage"') < 0 or count(b'"usage"') == count(b'"usage":null'))
            and count(b'"finish_reason"') == count(b'"finish_reason":null')
        )

    def look(self, raw: bytes, frame: Frame) -> bytes:
        """See one frame; return what of it goes to the client.  Sets ``error`` where it is one."""
        data = frame.data
        if data.startswith(DONE):
            return self._usage_chunk() + raw
        if frame.event == "error":
            return self._refused(data)
        if self.plain(raw):
            return raw
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError:
            return raw
        if not isinstance(chunk, dict):
            return raw
        if chunk.get("error") or chunk.get("object") == "error":
            return self._refused(chunk)
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and choice.get("finish_reason"):
                index = choice.get("index")
                self._finished.add(index if isinstance(index, int) else 0)
                self.finished = len(self._finished) >= self._choices
        if isinstance(chunk.get("usage"), dict):
            self._usages.append(data)
            if not choices:
                return self._usage_only(raw, chunk)
        return raw

    def end(self) -> bytes:
        """Upstream forgot its end mark after a complete answer: supply it."""
        return self._usage_chunk() + END_MARK

    @property
    def usage(self) -> Usage | None:
        """What the answer cost."""
        return usage_of(words) if (words := self._words()) else None

    def _words(self) -> dict[str, Any] | None:
        """The provider's usage object: the last that counts anything."""
        latest = None
        for data in reversed(self._usages):
            usage: dict[str, Any] = orjson.loads(data)["usage"]
            if usage.get("prompt_tokens") or usage.get("total_tokens"):
                return usage
            latest = latest or usage
        return latest

    def _refused(self, body: object) -> bytes:
        self.error = theirs(body, self._scrub)
        return b""

    def _usage_only(self, raw: bytes, chunk: dict[str, Any]) -> bytes:
        counts = chunk["usage"].get("total_tokens") or chunk["usage"].get("prompt_tokens")
        if not self._include_usage or self._usage_passed or not counts or "choices" not in chunk:
            return b""
        self._usage_passed = True
        return raw

    def _usage_chunk(self) -> bytes:
        """Usage came on another chunk only, and the client waits for the one without choices."""
        if not self._include_usage or self._usage_passed or not self._usages:
            return b""
        self._usage_passed = True
        told = [orjson.loads(data) for data in self._usages]
        last = next((c for c in reversed(told) if c.get("id")), told[-1])  # Workers AI ends with a line without
        old = last.get("object") == "text_completion"  # Perplexity ends with `chat.completion.done`
        return encode(
            orjson.dumps(
                {
                    "id": last.get("id", ""),
                    "object": "text_completion" if old else "chat.completion.chunk",
                    "created": last.get("created", 0),
                    "model": last.get("model", ""),
                    "choices": [],
                    "usage": self._words(),
                }
            )
        )
