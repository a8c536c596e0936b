"""Which deployment is asked: pure, with chance passed in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.routing.table import Target


def choose(targets: Sequence[Target], chance: float) -> Target:
    """Pick one by weight; ``chance`` is uniform in [0, 1)."""
    if len(targets) == 1:
        return targets[0]
    point = chance * sum(t.weight for t in targets)
    for target in targets:
        point -= target.weight
        if point < 0:
            return target
    return targets[-1]
