"""Ways in which a network cuts a stream; what is read from it must not depend on them."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def cuts(wire: bytes) -> Iterator[list[bytes]]:
    """Whole, byte by byte, and in two at every place."""
    yield [wire]
    yield drip(wire)
    for place in range(1, len(wire)):
        yield [wire[:place], wire[place:]]


def drip(wire: bytes) -> list[bytes]:
    """Byte by byte."""
    return [wire[i : i + 1] for i in range(len(wire))]


def at(wire: bytes, places: list[int]) -> list[bytes]:
    """Cut at these places, in any order, wherever they fall in the stream."""
    ordered = [0, *sorted({place % (len(wire) + 1) for place in places}), len(wire)]
    return [wire[start:stop] for start, stop in pairwise(ordered) if start < stop]


def telling_cuts(wire: bytes) -> Iterator[list[bytes]]:
    """Whole, byte by byte, and in two at every place that is unlike those before it: within a line they are alike."""
    yield [wire]
    yield drip(wire)
    shape = re.sub(rb"[^\r\n: ]", b"x", wire)
    places = {shape[max(0, place - 4) : place + 4]: place for place in range(1, len(wire))}
    for place in sorted({*places.values(), *range(1, min(4, len(wire)))}):
        yield [wire[:place], wire[place:]]
