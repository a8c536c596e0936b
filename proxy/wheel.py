"""One coarse clock for everything that waits: a stream costs a set entry, not a timer."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import Protocol

log = logging.getLogger(__name__)

#: Seconds between two looks; every clock of the gateway is at most this late.
GRAIN = 0.1


class Ticking(Protocol):
    """Something with deadlines."""

    def tick(self, now: float) -> None:
        """Look at the clocks; ``now`` is `time.monotonic`, in seconds.  Must not raise."""


class Wheel:
    """Tells its members the time while there are any; an idle process sleeps."""

    def __init__(self) -> None:
        self._members: set[Ticking] = set()
        self._handle: asyncio.TimerHandle | None = None

    def add(self, member: Ticking) -> None:
        """Begin to tell ``member`` the time."""
        self._members.add(member)
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_later(GRAIN, self._turn)

    def discard(self, member: Ticking) -> None:
        """Stop it; a member may do so from inside its own tick."""
        self._members.discard(member)

    def close(self) -> None:
        """Forget everything."""
        self._members.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        now = monotonic()
        for member in tuple(self._members):
            try:
                member.tick(now)
            except Exception:  # one clock's mistake must not stop all the others
                self._members.discard(member)
                log.exception("a clock failed")
        self._handle = loop.call_later(GRAIN, self._turn) if self._members else None
