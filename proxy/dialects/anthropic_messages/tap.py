"""Looks at message stream frames as they pass, and parses only the few that matter.

The first frame and the last ones say usage, stop reason and end; an error may stand anywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from proxy.dialects.anthropic_messages.errors import theirs
from proxy.dialects.anthropic_messages.words import merge_counts, usage_of
from proxy.sse import DONE, encode

if TYPE_CHECKING:
    from proxy.errors import GatewayError
    from proxy.events import Usage
    from proxy.refusals import Scrub
    from proxy.sse import Frame

END_MARK = encode(b'{"type":"message_stop"}', "message_stop")
_MIDDLE = frozenset({"content_block_delta", "content_block_start", "content_block_stop", "ping"})


class Tap:
    """Knows how far one message stream has come.

    ``finished`` tells that a stop reason has passed, ``done`` that the end mark has; nothing goes
    on after it, and a `[DONE]` (some gateways add one) never does: it breaks Claude Code.
    """

    named = True
    texts: tuple[bytes, ...] = (b'"text":"', b'"thinking":"', b'"partial_json":"')

    def __init__(self, scrub: Scrub) -> None:
        self._scrub = scrub
        self._counts: dict[str, Any] = {}
        self.finished = False
        self.done = False
        self.error: GatewayError | None = None

    def plain(self, run: bytes) -> bool:
        """Is there nothing in these whole frames that this tap wants to see?"""
        return (
            not self.done
            and run.find(b"message_") < 0  # which costs half of what `in` does
            and run.find(b'"error"') < 0
            and run.find(b"event: error") < 0
            and run.find(b"[DONE]") < 0
        )

    def look(self, raw: bytes, frame: Frame) -> bytes:
        """See one frame; return what of it goes to the client.  Sets ``error`` where it is one."""
        if self.done:
            return b""
        if frame.event in _MIDDLE:  # the usual frame: its text is not looked at
            return raw
        if frame.data.startswith(DONE):
            return self.end() if self.finished else b""
        if frame.event == "error":
            return self._refused(frame.data)
        try:
            data = orjson.loads(frame.data)
        except orjson.JSONDecodeError:
            return raw
        if not isinstance(data, dict):
            return raw
        match data.get("type") or frame.event:
            case "message_start":
                message = data.get("message")
                self._counts = merge_counts(self._counts, message.get("usage") if isinstance(message, dict) else None)
            case "message_delta":
                delta = data.get("delta")
                self._counts = merge_counts(self._counts, data.get("usage"))
                self.finished = self.finished or (isinstance(delta, dict) and bool(delta.get("stop_reason")))
            case "message_stop":
                self.done = True
            case kind if kind == "error" or data.get("error"):
                return self._refused(data)
        return raw

    def end(self) -> bytes:
        """Upstream forgot its end mark after a complete answer: supply it."""
        self.done = True
        return END_MARK

    @property
    def usage(self) -> Usage | None:
        """What the provider has told so far."""
        return usage_of(self._counts) if self._counts else None

    def _refused(self, body: object) -> bytes:
        self.error = theirs(body, self._scrub)
        return b""
