"""What is remembered of an exchange: tokens and who counted them, silences by their length."""

from __future__ import annotations

import pytest

from proxy.events import Usage
from proxy.observe.record import GAP_BOUNDS, Gaps, Record, new_id


@pytest.mark.parametrize(
    ("known", "tokens"),
    [
        pytest.param({"usage": Usage(3, 5)}, (3, 5, "upstream"), id="upstream-says"),
        pytest.param({"usage": Usage(3), "frames": 9}, (3, 0, "upstream"), id="upstream-says-half"),
        pytest.param({"usage": Usage(), "frames": 9}, (0, 0, "upstream"), id="upstream-says-nothing-was-used"),
        pytest.param({"frames": 7, "body_size": 41}, (10, 7, "estimated"), id="nobody-says"),
        pytest.param({"body_size": 400}, (0, 0, "none"), id="nothing-came"),
        pytest.param({}, (0, 0, "none"), id="nothing-was-sent"),
    ],
)
def test_tokens(known, tokens):
    assert Record("req_1", 0.0, **known).tokens == tokens


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [
        pytest.param(0.0, 0, id="none"),
        pytest.param(GAP_BOUNDS[0], 0, id="a-bound-belongs-to-its-bucket"),
        pytest.param(0.0051, 1, id="above-it-the-next"),
        pytest.param(30.0, len(GAP_BOUNDS) - 1, id="the-last-bound"),
        pytest.param(1e9, len(GAP_BOUNDS), id="beyond-all-bounds"),
    ],
)
def test_silences_fall_into_buckets(seconds, bucket):
    gaps = Gaps()
    gaps.add(seconds)
    assert gaps.counts.index(1) == bucket
    assert (sum(gaps.counts), gaps.total) == (1, seconds)


def test_bounds_grow():
    assert list(GAP_BOUNDS) == sorted(set(GAP_BOUNDS))


def test_ids_differ():
    ids = {new_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(id) == 28 and id.startswith("req_") for id in ids)
