"""What is remembered of one exchange, from its first byte to its settlement."""

from __future__ import annotations

from bisect import bisect_left
from math import inf
from random import getrandbits
from typing import Any

from msgspec import Struct

from proxy.events import Usage

#: Upper bounds in seconds of the buckets for gaps between frames.
GAP_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_EDGES = (-inf, *GAP_BOUNDS, inf)


def new_id() -> str:
    """Make an id for a request that came with none."""
    return f"req_{getrandbits(96).to_bytes(12).hex()}"


class Gaps:
    """Silences between two reads that completed frames, counted per bucket: a stream has many."""

    __slots__ = ("_bucket", "_least", "_most", "counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(GAP_BOUNDS) + 1)
        self.total = 0.0
        self._bucket = 0  # of the last one, which the next one is nearly always in
        self._least = self._most = 0.0

    def add(self, seconds: float) -> None:
        """Count one silence."""
        if not self._least < seconds <= self._most:
            self._bucket = at = bisect_left(GAP_BOUNDS, seconds)
            self._least, self._most = _EDGES[at], _EDGES[at + 1]
        self.counts[self._bucket] += 1
        self.total += seconds


class Record(Struct, eq=False):
    """One request; whoever learns something writes it here, and it is settled once.

    Times are of `time.monotonic`, in seconds; 0 for what did not happen.
    """

    request_id: str
    began: float
    route: str = ""
    #: The route that matched, as the application describes it.
    endpoint: Any = None
    key: str = ""
    #: The configured id (a wildcard's pattern), never what the client wrote.
    label: str = ""
    #: The name that answers carry in `x-proxy-model`.
    model: str = ""
    provider: str = ""
    attempts: int = 0
    streamed: bool = False
    outcome: str = ""
    #: The head of its answer has been written: nothing else can be said of it.
    answered: bool = False
    error: str = ""
    #: Why, in our own words.
    reason: str = ""
    sent_at: float = 0.0
    first_frame_at: float = 0.0
    frames: int = 0
    body_size: int = 0
    usage: Usage | None = None
    gaps: Gaps | None = None
    headers: dict[str, str] = {}  # each has its own: msgspec copies it

    @property
    def tokens(self) -> tuple[int, int, str]:
        """Tokens in and out, and who says so: upstream, estimated, none."""
        if self.usage is not None:
            return self.usage.input, self.usage.output, "upstream"
        if self.frames:
            # Some four bytes of request make a token, and a frame holds about one.
            return self.body_size // 4, self.frames, "estimated"
        return 0, 0, "none"
