"""Looks at a response's stream as its frames pass, and parses only the few that matter: its end, and faults."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import orjson

from proxy.dialects.openai_responses.errors import frame as fault_frame
from proxy.dialects.openai_responses.errors import is_fault, told
from proxy.dialects.openai_responses.words import usage_of
from proxy.errors import UpstreamError
from proxy.sse import DONE

if TYPE_CHECKING:
    from proxy.errors import GatewayError
    from proxy.events import Usage
    from proxy.refusals import Scrub
    from proxy.sse import Frame

#: Frames whose content is the client's business only.
_MIDDLE = frozenset(
    (
        "response.output_text.delta",
        "response.refusal.delta",
        "response.reasoning_summary_text.delta",
        "response.reasoning_text.delta",
        "response.function_call_arguments.delta",
        "response.custom_tool_call_input.delta",
    )
)
_ID = re.compile(rb'"id":\s*"([^"\\]{1,200})"')
_NUMBER = re.compile(rb'"sequence_number":\s*(\d{1,18})')


class Tap:
    """Knows how far one stream has come.

    ``done`` tells that the terminal event has passed; only a `[DONE]` goes on after it (OpenRouter's have one).
    """

    named = True
    texts: tuple[bytes, ...] = ()  # each frame has a number, and the last is kept

    def __init__(self, scrub: Scrub) -> None:
        self._scrub = scrub
        self._id = ""
        self._last = b""  # the frames seen last, for their number
        self.usage: Usage | None = None
        self.finished = False
        self.done = False
        self.error: GatewayError | None = None

    def plain(self, run: bytes) -> bool:
        """Is there nothing in these whole frames that this tap wants to see?

        Quotes inside of texts are escaped, so `"error"` is a word of the wire here, not of the answer.
        """
        if self.done or not self._id:
            return False
        unseen = (
            run.find(b'"response.completed"') < 0  # which costs half of what `in` does
            and run.find(b'"response.incomplete"') < 0
            and run.find(b'"response.failed"') < 0
            and (run.find(b'"error"') < 0 or run.count(b'"error"') == run.count(b'"error":null'))
            and run.find(b"event: error") < 0
            and run.find(b"[DONE]") < 0
        )
        if unseen:
            self._last = run
        return unseen

    def look(self, raw: bytes, frame: Frame) -> bytes:
        """See one frame; return what of it goes to the client.  Sets ``error`` where it is one."""
        if self.done:
            return raw if frame.data.startswith(DONE) else b""
        if frame.event in _MIDDLE:
            self._last = raw
            return raw
        if self.plain(raw):
            return raw
        if not self._id and (found := _ID.search(raw)):
            self._id = found[1].decode("utf-8", "replace")
        try:
            event = orjson.loads(frame.data)
        except orjson.JSONDecodeError:
            if frame.event == "error":
                self.error = told(frame.data, self._scrub)
            elif frame.data.startswith(DONE):
                self.error = UpstreamError("the provider ended its stream before the answer")
            return b"" if self.error is not None else raw
        if not isinstance(event, dict):
            return raw
        if is_fault(event, frame.event):
            self.error = told(event, self._scrub)
            return b""  # and its number is free again
        self._last = raw
        response = event.get("response")
        if event.get("type") in ("response.completed", "response.incomplete") and isinstance(response, dict):
            self.usage = usage_of(response.get("usage"))
            self.finished = self.done = True
        return raw

    def end(self) -> bytes:
        """The terminal event is the end mark: there is none to supply."""
        return b""

    def fail(self, error: GatewayError, request_id: str = "") -> bytes:
        """Tell a fault in the response that has begun."""
        numbers = _NUMBER.findall(self._last)
        return fault_frame(error, request_id, id=self._id, number=int(numbers[-1]) + 1 if numbers else 0)
