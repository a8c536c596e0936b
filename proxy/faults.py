"""What the log says about exceptions that nobody caught: enough to find them, nothing that a client said."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from proxy.observe.logs import where

if TYPE_CHECKING:
    import asyncio

log = logging.getLogger(__name__)

#: Seconds in which the same fault is told only once.
PAUSE = 10.0
#: Different faults that are remembered for that.
KNOWN = 64


class Faults:
    """An exception handler for the loop that neither floods the log nor repeats what clients said.

    With every descriptor in use, asyncio reports each free place of the backlog, each time with a traceback.
    Reprs of callbacks hold bytes that were being read, and messages of exceptions may quote them; a type and a
    place in the code do not.
    """

    def __init__(self) -> None:
        self._told: dict[str, tuple[float, int]] = {}  # fault → when it was told last, how often it was not since

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # Where asyncio puts a repr into the text, it comes after these words.
        text = str(context.get("message") or "fault").partition(" in callback ")[0]
        exc = context.get("exception")
        fault = f"{text}: {where(exc)}" if isinstance(exc, BaseException) else text
        if isinstance(exc, OSError) and exc.errno:
            fault += f" ({os.strerror(exc.errno)})"
        now = loop.time()
        when, more = self._told.get(fault, (-PAUSE, 0))
        if now - when < PAUSE:
            self._told[fault] = (when, more + 1)
            return
        if len(self._told) >= KNOWN:
            self._told.clear()
        self._told[fault] = (now, 0)
        log.error("event loop: %s%s", fault, f" ({more} times more since it was last told)" if more else "")
