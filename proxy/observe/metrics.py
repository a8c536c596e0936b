"""Prometheus metrics.  Labels come from the configuration, never from the client.

With several workers each writes its own files in `PROMETHEUS_MULTIPROC_DIR`, and whichever
worker is asked adds them up.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from bisect import bisect_left
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from proxy.observe.record import GAP_BOUNDS

if TYPE_CHECKING:
    from proxy.observe.record import Gaps, Record

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_DELAY = 0.1  # seconds until other workers can tell what this one has counted
_BATCH = 64  # requests that may wait to be counted
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
        # What was counted since the last scrape: prometheus_client takes a lock and several calls for each
        # increment, and most requests of a busy moment have the same labels.
        self._sums: dict[tuple[Counter, tuple[str, ...]], int] = {}
        self._seen: dict[tuple[Histogram, tuple[str, ...]], tuple[list[int], list[float]]] = {}
        self._settled: list[tuple[Record, int, float]] = []
        self._tried: list[tuple[str, str, str]] = []
        self._live = 0
        self._shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        self._handle: asyncio.TimerHandle | None = None

    def text(self) -> bytes:
        """Render everything for a scrape."""
        self.flush()
        if self._shared:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
            return generate_latest(registry)
        return generate_latest(self._registry)

    def flush(self) -> None:
        """Hand over what was counted; with several workers others may be asked for it."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._tally()
        sums, self._sums = self._sums, {}
        for (counter, labels), amount in sums.items():
            counter.labels(*labels).inc(amount)
        seen, self._seen = self._seen, {}
        for (histogram, labels), (counts, total) in seen.items():
            child = histogram.labels(*labels)
            for bucket, count in zip(child._buckets, counts, strict=True):
                if count:
                    bucket.inc(count)
            child._sum.inc(total[0])
        self._streams.set(self._live)

    def opened(self) -> None:
        """An exchange has begun."""
        self._live += 1
        if self._shared:
            self._changed()

    def closed(self) -> None:
        """It is over."""
        self._live -= 1
        if self._shared:
            self._changed()

    def attempt(self, model: str, provider: str, outcome: str) -> None:
        """One try at a deployment has ended."""
        self._tried.append((model, provider, outcome))

    def dropped(self, model: str, provider: str, fields: int) -> None:
        """Fields of a request were not passed on: the provider's dialect has no word for them."""
        self._count(self._dropped, model, provider, amount=fields)

    def settle(self, record: Record, status: int, now: float) -> None:
        """Count a request that is over."""
        self._settled.append((record, status, now))
        if len(self._settled) >= _BATCH:
            self._tally()
        if self._shared:
            self._changed()

    def _tally(self) -> None:
        # Many at a time: what runs for the first of them is at hand for the others.
        settled, self._settled = self._settled, []
        for one in settled:
            self._add(*one)
        tried, self._tried = self._tried, []
        for labels in tried:
            self._count(self._attempts, *labels)

    def _add(self, record: Record, status: int, now: float) -> None:
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
        key = counter, labels
        self._sums[key] = self._sums.get(key, 0) + amount

    def _observe(self, histogram: Histogram, seconds: float, *labels: str) -> None:
        counts, total = self._bins(histogram, labels, len(_SECONDS))
        counts[bisect_left(_SECONDS, seconds)] += 1
        total[0] += seconds

    def _observe_gaps(self, gaps: Gaps, *labels: str) -> None:
        counts, total = self._bins(self._gap, labels, len(GAP_BOUNDS))
        for bucket, count in enumerate(gaps.counts):
            counts[bucket] += count
        total[0] += gaps.total

    def _bins(self, histogram: Histogram, labels: tuple[str, ...], bounds: int) -> tuple[list[int], list[float]]:
        """How often each bucket was met since the last scrape, the last being without bound, and the sum."""
        bins = self._seen.get((histogram, labels))
        if bins is None:
            bins = self._seen[histogram, labels] = ([0] * (bounds + 1), [0.0])
        return bins

    def _changed(self) -> None:
        """Other workers must be able to tell soon; alone, a scrape asks us."""
        if self._handle is None:
            with contextlib.suppress(RuntimeError):  # no loop runs: somebody will flush
                self._handle = asyncio.get_running_loop().call_later(_DELAY, self.flush)
