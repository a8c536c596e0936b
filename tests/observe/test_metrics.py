"""Metrics: what is counted, under labels that only the configuration can name."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from proxy.events import Usage
from proxy.observe.metrics import CONTENT_TYPE, Metrics
from proxy.observe.record import GAP_BOUNDS, Gaps, Record
from tests.properties import thorough

GAP = "ai_proxy_inter_frame_gap_seconds"


def samples(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """(name, labels) → value, without the times at which series were created."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples(metrics.text()).get((name, tuple(sorted(labels.items()))), 0.0)


def record(**known: object) -> Record:
    told = {"route": "chat_completions", "label": "m", "provider": "up", "outcome": "ok", "model": "written/by-client"}
    return Record(**{"request_id": "req_1", "began": 100.0, **told, **known})


def gaps(*seconds: float) -> Gaps:
    counted = Gaps()
    for each in seconds:
        counted.add(each)
    return counted


def test_what_a_request_adds():
    metrics = Metrics()
    usage = Usage(30, 5)
    for _ in range(2):
        metrics.settle(record(first_frame_at=100.2, frames=7, usage=usage, gaps=gaps(0.02, 0.7)), 200, 101.5)
    at = {"model": "m", "provider": "up"}
    assert value(metrics, "ai_proxy_requests_total", route="chat_completions", status="200", outcome="ok", **at) == 2
    assert value(metrics, "ai_proxy_frames_total", **at) == 14
    assert value(metrics, "ai_proxy_tokens_total", direction="input", source="upstream", **at) == 60
    assert value(metrics, "ai_proxy_tokens_total", direction="output", source="upstream", **at) == 10
    assert value(metrics, "ai_proxy_time_to_first_frame_seconds_count", **at) == 2
    assert value(metrics, "ai_proxy_time_to_first_frame_seconds_sum", **at) == pytest.approx(0.4)
    assert value(metrics, "ai_proxy_request_duration_seconds_sum", route="chat_completions") == pytest.approx(3.0)
    assert value(metrics, f"{GAP}_count", **at) == 4
    assert value(metrics, f"{GAP}_sum", **at) == pytest.approx(1.44)
    assert value(metrics, f"{GAP}_bucket", le="0.025", **at) == 2


def test_a_request_that_nobody_was_asked_for():
    metrics = Metrics()
    metrics.settle(record(label="", provider="", outcome="refused", error="unauthorized"), 401, 100.1)
    told = samples(metrics.text())
    assert value(metrics, "ai_proxy_errors_total", kind="unauthorized") == 1
    assert not any(("model", "m") in labels or ("first_frame" in name and labels) for name, labels in told)


def test_tokens_that_were_estimated_are_told_apart():
    metrics = Metrics()
    metrics.settle(record(frames=7, body_size=40), 200, 101.0)
    told = {"model": "m", "provider": "up", "source": "estimated"}
    assert value(metrics, "ai_proxy_tokens_total", direction="input", **told) == 10
    assert value(metrics, "ai_proxy_tokens_total", direction="output", **told) == 7


def test_exchanges_in_flight_and_attempts():
    metrics = Metrics()
    metrics.opened()
    metrics.opened()
    metrics.closed()
    metrics.attempt("m", "up", "ok")
    metrics.attempt("m", "up", "timeout")
    assert value(metrics, "ai_proxy_open_streams") == 1
    assert value(metrics, "ai_proxy_upstream_attempts_total", model="m", provider="up", outcome="timeout") == 1


def test_what_is_counted_does_not_wait_for_a_scrape_without_bound():
    metrics = Metrics()
    for _ in range(1000):
        metrics.attempt("m", "up", "ok")
        metrics.settle(record(frames=7), 200, 101.0)
        assert max(len(metrics._settled), len(metrics._tried)) < 500
    told = {"model": "m", "provider": "up"}
    for _ in range(2):  # a scrape takes nothing away
        assert value(metrics, "ai_proxy_upstream_attempts_total", outcome="ok", **told) == 1000
        assert value(metrics, "ai_proxy_frames_total", **told) == 7000


def test_labels_are_words_of_the_configuration():
    metrics = Metrics()
    metrics.settle(
        record(request_id="evil-id", model="evil-model", key="evil-key", reason="evil-reason", headers={"x": "evil"}),
        200,
        101.0,
    )
    assert b"evil" not in metrics.text()


@thorough
@given(st.lists(st.sampled_from([0.0, *GAP_BOUNDS]) | st.floats(0, 100), max_size=30))
def test_gaps_added_at_once_are_gaps_added_one_by_one(seconds):
    registry = CollectorRegistry()
    one_by_one = Histogram(GAP, "x", ("model", "provider"), buckets=GAP_BOUNDS, registry=registry)
    for each in seconds:
        one_by_one.labels("m", "up").observe(each)
    metrics = Metrics()
    metrics.settle(record(gaps=gaps(*seconds)), 200, 101.0)
    at_once = {key: value for key, value in samples(metrics.text()).items() if key[0].startswith(GAP)}
    assert at_once == pytest.approx(samples(generate_latest(registry)))


def test_several_instances_do_not_share():
    first, second = Metrics(), Metrics()
    first.opened()
    assert value(second, "ai_proxy_open_streams") == 0


def test_the_content_type_is_of_the_text_format():
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")


def test_workers_add_up(tmp_path):
    """Each process writes its own files, which is decided when prometheus_client is imported."""
    script = textwrap.dedent("""
        from tests.observe.test_metrics import Metrics, gaps, record
        metrics = Metrics()
        metrics.opened()
        metrics.settle(record(frames=3, gaps=gaps(0.02, 0.02, 7.0), first_frame_at=100.1), 200, 101.0)
        metrics.attempt("m", "up", "ok")
        print(metrics.text().decode())
    """)
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for workers in (1, 2):
        run = subprocess.run(
            [sys.executable, "-W", "error", "-c", script], env=environ, capture_output=True, check=False, timeout=60
        )
        assert run.returncode == 0, run.stderr.decode()
        told = samples(run.stdout)
        at = (("model", "m"), ("provider", "up"))
        assert told["ai_proxy_frames_total", at] == 3 * workers
        assert told[f"{GAP}_count", at] == 3 * workers
        assert told[f"{GAP}_sum", at] == pytest.approx(7.04 * workers)
        assert told["ai_proxy_upstream_attempts_total", (at[0], ("outcome", "ok"), at[1])] == workers
        assert told["ai_proxy_open_streams", ()] == workers  # whose file is removed when a worker ends
