"""Which deployment is asked, by weight."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.routing.decide import choose
from tests.properties import thorough


def targets(*weights: int) -> list:
    return [SimpleNamespace(name=i, weight=weight) for i, weight in enumerate(weights)]


@pytest.mark.parametrize(
    ("weights", "chance", "chosen"),
    [
        pytest.param([5], 0.999, 0, id="the-only-one"),
        pytest.param([1, 1], 0.0, 0, id="the-lower-end"),
        pytest.param([1, 1], 0.499, 0, id="the-lower-half"),
        pytest.param([1, 1], 0.5, 1, id="the-upper-half"),
        pytest.param([1, 1], 0.9999999999999999, 1, id="the-upper-end"),
        pytest.param([2, 1], 0.66, 0, id="two-thirds"),
        pytest.param([2, 1], 0.67, 1, id="the-last-third"),
        pytest.param([1, 2, 1], 0.25, 1, id="between"),
    ],
)
def test_choice(weights, chance, chosen):
    assert choose(targets(*weights), chance).name == chosen


@thorough
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=6), st.floats(0, 1, exclude_max=True))
def test_somebody_is_always_chosen(weights, chance):
    assert choose(targets(*weights), chance).name in range(len(weights))


def test_weights_are_shares():
    many = targets(3, 1, 6)
    chosen = [choose(many, i / 1000).name for i in range(1000)]
    assert [chosen.count(i) for i in range(3)] == [300, 100, 600]
