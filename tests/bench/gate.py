"""Say whether a commit made requests or frames dearer.

    python -m tests.bench.gate [--base REV] [--head REV] [--bound PERCENT]

Both commits are unpacked into a temporary directory; the checkout that this runs in is only read.  Their gateways
stand side by side before the same fake provider and work in turns: A B B A, then B A A B.  What counts is CPU,
user and system time of the gateway's process for each request or frame.  Of the two slices that each has in a turn
the lesser counts, because whatever else the machine does can only add to it; a turn gives one ratio, and the median
of the ratios is the verdict.  What seems lost is measured over as many turns again before it is called lost.

Exit codes: 0, nothing was lost; 1, something was, or an answer was wrong; 2, there is nothing to compare.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import statistics
import subprocess
import sys
import time
import zipfile
from configparser import ConfigParser
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .__main__ import stage
from .load import Task
from .targets import LOAD_CPUS, ROOT, Load, Running

if TYPE_CHECKING:
    from collections.abc import Iterable


class Incomparable(Exception):
    """There are no two gateways to compare; the message is for people."""


# What is compared...


@dataclass(frozen=True)
class Side:
    """One of the two: its code, unpacked, and what to call it."""

    name: str
    tree: Path

    @property
    def requirements(self) -> set[str]:
        setup = ConfigParser()
        setup.read(self.tree / "setup.cfg")
        return set(setup.get("options", "install_requires", fallback="").split("\n")) - {""}


def git(*arguments: str) -> bytes:
    """What git prints.  Raises ``Incomparable`` with its own words."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True)
    except FileNotFoundError:
        raise Incomparable("git is not installed") from None
    except subprocess.CalledProcessError as exc:
        raise Incomparable(f"git {' '.join(arguments)}: {exc.stderr.decode(errors='replace').strip()}") from None
    return done.stdout


def usual_base(head: str) -> str:
    """The latest tag before ``head``, or else the commit before it."""
    try:
        return git("describe", "--tags", "--abbrev=0", head or "HEAD").decode().strip()
    except Incomparable:
        return f"{head or 'HEAD'}~1"


def unpack(rev: str, directory: Path) -> Side:
    """Lay the code of a commit, or of the working tree as it is now (""), out in ``directory``."""
    if rev:
        commit = git("rev-parse", "--verify", "--end-of-options", f"{rev}^{{commit}}").decode().strip()
        with zipfile.ZipFile(io.BytesIO(git("archive", "--format=zip", commit))) as archive:
            archive.extractall(directory)
        title = git("log", "-1", "--format=%h %s", commit).decode().strip()
        return Side(title, directory)
    shutil.copytree(ROOT / "proxy", directory / "proxy", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.cfg", directory)
    return Side("the working tree", directory)


# How it is compared...


@dataclass(frozen=True)
class Scenario:
    """One kind of work; ``task`` has everything but the port, and CPU is counted for each ``unit``."""

    what: str
    unit: str
    task: Task


@dataclass(frozen=True)
class Scale:
    """How much is done: ``turns`` at each of ``instances`` pairs of processes.

    A slice takes ``seconds``, or ``paced`` frames on each stream.  Short ones meet the same weather.
    """

    instances: int = 4
    turns: int = 5
    seconds: float = 0.25
    paced: int = 25
    warm: float = 0.5

    def scenarios(self) -> list[Scenario]:
        def task(connections: int, seconds: float = self.seconds, **fields: object) -> Task:
            return Task(0, connections, seconds, **fields)  # type: ignore[arg-type]

        paced = task(50, 0, ramp=0.2, frames=self.paced, pause_us=20_000)
        streams = "streams of 100 frames back to back"
        return [
            Scenario("small JSON, 64 connections", "answers", task(64)),
            Scenario(f"32 {streams}", "frames", task(32, frames=100)),
            Scenario("50 streams, one frame per 20 ms", "frames", paced),
            Scenario(f"8 translated {streams}", "frames", task(8, frames=100, model="t")),
        ]


SCALES = {"full": Scale(), "micro": Scale(instances=1, turns=2, seconds=0.05, paced=2, warm=0.05)}


@dataclass
class Comparison:
    """What both sides cost in one scenario, turn by turn, in CPU µs."""

    scenario: Scenario
    base: list[float] = field(default_factory=list)
    head: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        return [head / base for base, head in zip(self.base, self.head, strict=True)]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def spread(self) -> tuple[float, float]:
        """Between these lies the middle half of the ratios."""
        if len(self.base) < 2:
            return self.ratio, self.ratio
        low, _, high = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return low, high

    def lost(self, bound: float) -> bool:
        """Is ``head`` dearer by more than ``bound`` (0.1: a tenth)?"""
        return self.ratio > 1 + bound


class Gate:
    """One run: what was measured so far, and which answers were wrong."""

    def __init__(self, scale: Scale, base: Side, head: Side, directory: Path, load: Load, upstream: int) -> None:
        self.comparisons = [Comparison(scenario) for scenario in scale.scenarios()]
        self.faults: list[str] = []
        self._scale = scale
        self._sides = (base, head)
        self._directory = directory
        self._load = load
        self._upstream = upstream
        self._instances = 0

    def run(self, comparisons: Iterable[Comparison]) -> None:
        """Measure all turns of these scenarios, at fresh processes."""
        comparisons = list(comparisons)
        for _ in range(self._scale.instances if comparisons else 0):
            with contextlib.ExitStack() as stack:
                order = self._sides if self._instances % 4 == 0 else self._sides[::-1]
                running = {side: stack.enter_context(self._start(side)) for side in order}
                base, head = (running[side] for side in self._sides)
                for comparison in comparisons:
                    self._warm(comparison.scenario, base, head)
                    for _ in range(self._scale.turns):
                        self._turn(comparison, base, head)

    def _start(self, side: Side) -> Running:
        self._instances += 1
        return Running("gateway", self._upstream, self._directory / str(self._instances), tree=side.tree)

    def _warm(self, scenario: Scenario, *sides: Running) -> None:
        task = scenario.task
        for side in sides:
            self._load.run(Task(side.port, task.connections, self._scale.warm, frames=task.frames, model=task.model))

    def _turn(self, comparison: Comparison, base: Running, head: Running) -> None:
        pair = (base, head) if len(comparison.base) % 2 == 0 else (head, base)
        costs: dict[Running, list[float]] = {base: [], head: []}
        for side in (*pair, *reversed(pair)):
            costs[side].append(self._cost(comparison.scenario, side))
        comparison.base.append(min(costs[base]))
        comparison.head.append(min(costs[head]))

    def _cost(self, scenario: Scenario, side: Running) -> float:
        """CPU µs for each answer or frame, from rest to rest."""
        time.sleep(0.03)
        before = side.cpu()
        report = self._load.run(Task(**{**vars(scenario.task), "port": side.port}))
        self.faults += [f"{scenario.what}: {said}" for said in report.said]
        done: int = getattr(report, scenario.unit)
        return (side.cpu() - before) * 1e6 / max(1, done)


def compare(base: str, head: str, scale: Scale, bound: float) -> int:
    began = time.monotonic()
    with stage() as (directory, load, port):
        sides = unpack(base, directory / "base"), unpack(head, directory / "head")
        print(f"base: {sides[0].name}\nhead: {sides[1].name}", flush=True)
        if sides[0].requirements != sides[1].requirements:
            print("setup.cfg asks for other packages in head than in base; both run with those that are installed here")
        gate = Gate(scale, *sides, directory, load, port)
        gate.run(gate.comparisons)
        gate.run([comparison for comparison in gate.comparisons if comparison.lost(bound)])
    print(table(gate.comparisons, bound))
    print(f"\n{time.monotonic() - began:.0f} s; a ratio above {1 + bound:.2f} is lost")
    for fault in gate.faults[:10]:
        print(f"wrong: {fault}", file=sys.stderr)
    return 1 if gate.faults or any(comparison.lost(bound) for comparison in gate.comparisons) else 0


def table(comparisons: Iterable[Comparison], bound: float) -> str:
    lines = [f"\n{'CPU µs for each request or frame':44}{'base':>9}{'head':>9}{'ratio':>8}  {'middle half':13}turns"]
    for comparison in comparisons:
        base, head = statistics.median(comparison.base), statistics.median(comparison.head)
        low, high = comparison.spread
        lines.append(
            f"{comparison.scenario.what:44}{base:9.2f}{head:9.2f}{comparison.ratio:8.3f}  {low:.3f}–{high:.3f}  "
            f"{len(comparison.base):4}{'  LOST' if comparison.lost(bound) else ''}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.gate", description="Say whether a commit made requests or frames dearer."
    )
    parser.add_argument(
        "--base", default="", metavar="REV", help="default: the latest tag, else the commit before head"
    )
    parser.add_argument("--head", default="", metavar="REV", help="default: the working tree, committed or not")
    parser.add_argument("--bound", type=float, default=10.0, metavar="PERCENT", help="default: %(default)g")
    parser.add_argument(
        "--micro", dest="scale", action="store_const", const="micro", default="full", help="only prove that it runs"
    )
    args = parser.parse_args()
    os.sched_setaffinity(0, LOAD_CPUS)
    try:
        return compare(args.base or usual_base(args.head), args.head, SCALES[args.scale], args.bound / 100)
    except Incomparable as exc:
        print(exc, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
