"""Takes configured secrets and provider hosts out of text that leaves the gateway."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

_SHORTEST = 6  # a shorter "secret" would tear holes into ordinary words


def scrubber(secrets: Iterable[str], hosts: Iterable[str]) -> Callable[[str], str]:
    """Build the function that does it, once per configuration."""
    hidden = sorted({s for s in (*secrets, *hosts) if len(s) >= _SHORTEST}, key=len, reverse=True)
    if not hidden:
        return str
    pattern = re.compile("|".join(map(re.escape, hidden)), re.IGNORECASE)

    def scrub(text: str) -> str:
        return pattern.sub("[redacted]", text)

    return scrub
