"""What a soak looks at, and what it makes of it: memory, descriptors, log lines."""

from __future__ import annotations

import json
import os
import re
import statistics
from dataclasses import dataclass
from pathlib import Path

#: Memory is compared between two windows, the second fifth of the run and the last.
WINDOWS = 5
#: KiB that may lie between the two: an allocator breathes.  In a run shorter than this many seconds caches still fill.
ALLOWED, JUDGED = 2048, 300.0
#: Log lines that belong to a day like this, besides requests.
USUAL = re.compile(
    r"info: (listening on http|reloaded |SIGTERM: draining, |ended; nothing was cut)"
    r"|error: not reloaded, everything stays as it was: .*config\.toml"
)
OUTCOMES = {"ok", "refused", "failed", "client_gone", "client_stalled"}


@dataclass(frozen=True)
class Finding:
    """Something that was looked at in the end; ``wrong`` where it is not as it should be."""

    wrong: bool
    said: str

    def __str__(self) -> str:
        return f"{'WRONG' if self.wrong else 'ok   '}  {self.said}"


@dataclass(frozen=True)
class Look:
    """What the kernel says about a process; ``rss`` in KiB, ``at`` in seconds of the run."""

    at: float
    rss: int
    descriptors: int

    @classmethod
    def at_process(cls, pid: int, at: float) -> Look:
        status = Path(f"/proc/{pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        assert found
        return cls(at, int(found[1]), len(os.listdir(f"/proc/{pid}/fd")))

    def __str__(self) -> str:
        return f"{self.rss / 1024:.1f} MiB, {self.descriptors} descriptors"


def growth(looks: list[Look], seconds: float) -> tuple[float, float]:
    """KiB after the warm-up, and at the end: lower quartiles, because large answers come and go."""
    fifths: list[list[int]] = [[] for _ in range(WINDOWS)]
    for look in looks:
        fifths[min(WINDOWS - 1, int(look.at / seconds * WINDOWS))].append(look.rss)
    return statistics.quantiles(fifths[1])[0], statistics.quantiles(fifths[-1])[0]


def unusual(line: str) -> bool:
    """Is this no line of the log, or one that nobody should have had a reason to write?"""
    try:
        said = json.loads(line)
        level, message = said["level"], said["message"]
    except (ValueError, TypeError, KeyError):
        return True
    if "exception" in said:
        return True
    if message == "request":
        outcome, error = said.get("outcome"), said.get("error")
        return outcome not in OUTCOMES or error == "internal_error" or said.get("status") == 500
    return not USUAL.match(f"{level}: {message}")
