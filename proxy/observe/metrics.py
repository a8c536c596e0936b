"""Prometheus metrics.  Labels come from the configuration, never from the client.

With several workers each writes its own files in `PROMETHEUS_MULTIPROC_DIR`, and whichever
worker is asked adds them up.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from proxy.observe.record import GAP_BOUNDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.observe.record import Gaps, Record

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Metrics:
    """Everything that is counted; one of it lives as long as the process."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nobody reads
        self._registry = registry = CollectorRegistry()
        deployment = ("model", "provider")
        self._requests = Counter(
            "ai_proxy_requests",
            "Requests settled",
            ("route", "model", "provider", "status", "outcome"),
            registry=registry,
        )
        self._errors = Counter("ai_proxy_errors", "Faults told to clients", ("kind",), registry=registry)
        self._streams = Gauge(
            "ai_proxy_open_streams", "Exchanges in flight", registry=registry, multiprocess_mode="livesum"
        )
        self._first = Histogram(
            "ai_proxy_time_to_first_frame_seconds",
            "From the request's arrival to the first frame for the client",
            deployment,
            buckets=_SECONDS,
            registry=registry,
        )
        self._gap = Histogram(
            "ai_proxy_inter_frame_gap_seconds",
            "Silence between two reads that completed frames",
            deployment,
            buckets=GAP_BOUNDS,
            registry=registry,
        )
        self._duration = Histogram(
            "ai_proxy_request_duration_seconds",
            "From the request's arrival to its settlement",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._tokens = Counter("ai_proxy_tokens", "Tokens", (*deployment, "direction", "source"), registry=registry)
        self._frames = Counter("ai_proxy_frames", "Frames relayed", deployment, registry=registry)
        self._attempts = Counter(
            "ai_proxy_upstream_attempts", "Attempts at deployments", (*deployment, "outcome"), registry=registry
        )
        self._dropped = Counter(
            "ai_proxy_dropped_fields",
            "Request fields that the provider's dialect cannot say",
            deployment,
            registry=registry,
        )
        # prometheus_client finds a labelled child under a lock each time: kept here, it is one look-up.
        self._children: dict[tuple[object, ...], Histogram] = {}
        self._incs: dict[tuple[object, ...], Callable[[float], None]] = {}

    def text(self) -> bytes:
        """Render everything for a scrape."""
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
            return generate_latest(registry)
        return generate_latest(self._registry)

    def opened(self) -> None:
        """An exchange has begun."""
        self._streams.inc()

    def closed(self) -> None:
        """It is over."""
        self._streams.dec()

    def attempt(self, model: str, provider: str, outcome: str) -> None:
        """One try at a deployment has ended."""
        self._count(self._attempts, model, provider, outcome)

    def dropped(self, model: str, provider: str, fields: int) -> None:
        """Fields of a request were not passed on: the provider's dialect has no word for them."""
        self._count(self._dropped, model, provider, amount=fields)

    def settle(self, record: Record, status: int, now: float) -> None:
        """Count a request that is over."""
        label, provider = record.label, record.provider
        self._count(self._requests, record.route, label, provider, str(status), record.outcome)
        self._observe(self._duration, now - record.began, record.route)
        if record.error:
            self._count(self._errors, record.error)
        if not provider:
            return
        if record.first_frame_at:
            self._observe(self._first, record.first_frame_at - record.began, label, provider)
        if record.frames:
            self._count(self._frames, label, provider, amount=record.frames)
        if record.gaps is not None and any(record.gaps.counts):
            self._observe_gaps(record.gaps, label, provider)
        read, written, source = record.tokens
        if read:
            self._count(self._tokens, label, provider, "input", source, amount=read)
        if written:
            self._count(self._tokens, label, provider, "output", source, amount=written)

    def _count(self, counter: Counter, *labels: str, amount: int = 1) -> None:
        inc = self._incs.get((counter, labels))
        if inc is None:
            # The value's own: the counter's asks each time whether it may be incremented at all.
            inc = self._incs[counter, labels] = counter.labels(*labels)._value.inc
        inc(amount)

    def _observe(self, histogram: Histogram, seconds: float, *labels: str) -> None:
        child = self._children.get((histogram, labels))
        if child is None:
            child = self._children[histogram, labels] = histogram.labels(*labels)
        child.observe(seconds)

    def _observe_gaps(self, gaps: Gaps, *labels: str) -> None:
        """Add a stream's gaps at once: `observe` per gap would cost more than the frame."""
        child = self._gap.labels(*labels)
        for bucket, count in zip(child._buckets, gaps.counts, strict=True):
            if count:
                bucket.inc(count)
        child._sum.inc(gaps.total)
