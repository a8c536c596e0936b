"""A worker's place, with other programs where the gateway would be."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from proxy import worker
from proxy.worker import Worker
from tests.processes import PATIENCE, launched

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from proxy.launch import Launch


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    with launched(tmp_path) as launch:
        yield launch


def instead(monkeypatch: pytest.MonkeyPatch, *programs: str) -> None:
    """Workers are these Python programs, one after another, the last one again and again; ``link`` is their end."""
    left = list(programs)

    def spawn(self: Worker, theirs: Any) -> subprocess.Popen[bytes]:
        program = left.pop(0) if len(left) > 1 else left[0]
        code = f"import os, signal, socket; link = socket.socket(fileno={theirs.fileno()}); {program}"
        return subprocess.Popen([sys.executable, "-c", code], pass_fds=[theirs.fileno()])

    monkeypatch.setattr(Worker, "_spawn", spawn)


async def test_a_crash_loop_does_not_spin(
    launch: Launch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO, "proxy.worker")
    monkeypatch.setattr(worker, "PAUSE", 0.001)
    monkeypatch.setattr(worker, "LONGEST_PAUSE", 0.004)
    instead(monkeypatch, "link.send(b'ready\\n'); raise SystemExit(3)")
    place = Worker(launch, tmp_path)
    assert await place.started is None

    lives = 0

    async def enough(live: Any = place._process_life) -> int:
        nonlocal lives
        lives += 1
        if lives == 5:
            place.leave()
        return await live()

    monkeypatch.setattr(place, "_process_life", enough)
    async with asyncio.timeout(PATIENCE):
        await place.ended()
    pauses = re.findall(r"ended with exit code 3; the next one starts in (\S+) s", caplog.text)
    assert pauses == ["0.001", "0.002", "0.004", "0.004", "0.004"]


async def test_a_worker_that_cannot_be_started_at_all_is_an_outcome_too(
    launch: Launch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python-here"))
    place = Worker(launch, tmp_path)
    assert await place.started == 1
    await place.ended()


async def test_told_to_leave_before_it_began_it_never_begins(
    launch: Launch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Worker, "_spawn", None)  # would fail
    place = Worker(launch, tmp_path)
    place.leave()
    await place.ended()
    assert await place.started == -signal.SIGTERM


async def test_gauges_of_a_dead_worker_are_dropped_and_counters_kept(
    launch: Launch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    instead(
        monkeypatch,
        f"os.chdir({str(tmp_path)!r}); "
        "[open(f'{kind}_{os.getpid()}.db', 'w').close() for kind in ('counter', 'gauge_livesum', 'gauge_all')]; "
        "raise SystemExit(3)",
    )
    metrics = tmp_path
    place = Worker(launch, metrics)
    assert await place.started == 3
    assert sorted(file.name.rpartition("_")[0] for file in metrics.glob("*.db")) == ["counter", "gauge_all"]
