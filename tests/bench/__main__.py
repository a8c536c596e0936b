"""Measure the gateway beside a bare aiohttp relay, and nginx and Envoy where they are installed.

    python -m tests.bench [--quick] [--json FILE] [--targets gateway,relay,nginx,envoy]
    python -m tests.bench --profile

The target has one core, the fake upstream and the load have the others.  Within a round fresh instances of all
targets meet the same work one after the other, in turning order; figures are medians over the rounds.  CPU is
user and system time of the target's processes, so it hardly depends on what else the machine does; delays do,
p99 above all.

A translated stream is one that an OpenAI client gets from a provider that speaks Anthropic's Messages: only the
gateway has those, so they are set beside its own passthrough.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import pstats
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .load import Report, Task
from .targets import CPUS, LOAD_CPUS, ROOT, TARGET_CPUS, TICK, Load, Process, Running, available, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Scale:
    """How much is done: ``seconds`` of JSON and of bursts, ``paced`` frames on each of ``streams`` streams.

    ``idle`` streams are held open; streams that stay are opened over ``ramp`` seconds.  Once there is a crowd of
    ``crowd`` streams that bring ``crowd_frames`` frames each.
    """

    rounds: int = 3
    seconds: float = 1.0
    streams: int = 50
    paced: int = 50
    idle: int = 500
    ramp: float = 0.5
    imports: int = 5
    crowd: int = 1000
    crowd_frames: int = 20


SCALES = {
    "full": Scale(),
    "quick": Scale(rounds=1, seconds=0.5, paced=40, idle=200, imports=1, crowd_frames=10),
    "micro": Scale(1, 0.1, streams=5, paced=5, idle=10, ramp=0.05, imports=1, crowd=10, crowd_frames=2),
}

#: The rows of the table: name, what it says, digits after the point.
ROWS = {
    "json_cpu": ("CPU µs per small JSON request, 64 connections", 0),
    "burst_cpu": ("CPU µs per frame, 32 streams of 100 back to back", 2),
    "translated_cpu": ("CPU µs per frame, 8 translated streams of 100 back to back", 2),
    "translated_ratio": ("    ÷ the gateway's own passthrough, 32 streams", 2),
    "paced_cpu": ("CPU µs per frame, 50 streams, one per 20 ms", 1),
    "first": ("added µs to the first frame, 1 stream", 0),
    "delay_p50": ("added µs per paced frame, p50", 0),
    "delay_p99": ("added µs per paced frame, p99", 0),
    "crowd_wrong": ("wrong of 1,000 streams, one frame per 200 ms", 0),
    "crowd_p99": ("    added ms per frame, p99", 1),
    "memory": ("KiB per idle open stream", 1),
    "translated_memory": ("KiB per idle open translated stream", 1),
    "start": ("ms from start to the first answer", 0),
    "import": ("ms to import the application", 0),
}

#: The rows that only the gateway fills.
TRANSLATED = {"translated_cpu", "translated_ratio", "translated_memory"}

#: What ``--profile`` puts the gateway under, for ``PROFILED`` seconds each.
LOADS: dict[str, dict[str, Any]] = {
    "small JSON requests, 64 connections": {"connections": 64},
    "32 streams of 100 frames back to back": {"connections": 32, "frames": 100},
    "8 translated streams of 100 frames back to back": {"connections": 8, "frames": 100, "model": "t"},
}
PROFILED = 3.0

#: Microseconds between two frames of a stream in the crowd, and how many streams a second come to it.
CROWD_PAUSE_US, CROWD_RATE = 200_000, 500

#: What stands in for ``proxy.app`` beside it; the others import nothing.
IMPORTS = {"gateway": "proxy.app", "relay": "aiohttp.web, uvloop"}


class Bench:
    """One run: the upstream, the load, and every figure in the order it was taken."""

    def __init__(self, scale: Scale, names: list[str], directory: Path, load: Load, upstream: int) -> None:
        self.scale = scale
        self.names = names
        self.load = load
        self.upstream = upstream
        self.taken: dict[str, dict[str, list[float]]] = {row: {name: [] for name in names} for row in ROWS}
        self.answers = self.frames = 0
        self.faults: list[str] = []
        self._directory = directory
        self._instances = 0

    def note(self, row: str, name: str, value: float) -> None:
        self.taken[row][name].append(value)

    def run(self, who: str, task: Task) -> Report:
        report = self.load.run(task)
        self.answers += report.answers
        self.frames += report.frames
        self.faults += [f"{who}: {said}" for said in report.said]
        return report

    # A round, at fresh instances

    def fresh(self, name: str) -> Running:
        """Start a target: how soon it answers, and what an idle stream weighs once it is warm."""
        target = self._start(name)
        self.note("start", name, target.started * 1e3)
        self.note("memory", name, self._weight(target, "m"))
        return target

    def translated_weight(self) -> None:
        """What an idle translated stream weighs, at an instance that has no room left over from other streams."""
        with self._start("gateway") as target:
            self.note("translated_memory", target.name, self._weight(target, "t"))

    def _start(self, name: str) -> Running:
        self._instances += 1
        return Running(name, self.upstream, self._directory / f"{name}-{self._instances}")

    def _weight(self, target: Running, model: str) -> float:
        """KiB per idle stream; the target is warm afterwards, too."""
        name, seconds = target.name, min(0.3, self.scale.seconds)
        self.run(name, Task(target.port, 64, seconds))
        self.run(name, Task(target.port, 32, seconds, frames=100, model=model))
        time.sleep(0.2)
        before = target.memory()
        held = Task(target.port, self.scale.idle, ramp=self.scale.ramp, frames=2, hold=True, model=model)
        idle = self.run(name, held)
        time.sleep(0.2)
        weight = (target.memory() - before) / max(1, idle.answers)
        self.load.run(None)
        return weight

    def round(self, number: int, targets: list[Running]) -> None:
        """Each kind of work at every target, and directly at the upstream where only differences tell."""
        turn = number % len(targets)
        targets = targets[turn:] + targets[:turn]
        seconds = self.scale.seconds
        for target in targets:
            cpu, report = self._cost(target, Task(target.port, 64, seconds))
            self.note("json_cpu", target.name, cpu / max(1, report.answers))
        for target in targets:
            cpu, report = self._cost(target, Task(target.port, 32, seconds, frames=100))
            self.note("burst_cpu", target.name, cpu / max(1, report.frames))
            if target.name == "gateway":
                self._translated(target, cpu / max(1, report.frames))
        direct = self.run("direct", self._first(self.upstream))
        for target in targets:
            report = self.run(target.name, self._first(target.port))
            self.note("first", target.name, report.first_p50 - direct.first_p50)
        direct = self.run("direct", self._paced(self.upstream))
        for target in targets:
            cpu, report = self._cost(target, self._paced(target.port))
            self.note("paced_cpu", target.name, cpu / max(1, report.frames))
            self.note("delay_p50", target.name, report.delay_p50 - direct.delay_p50)
            self.note("delay_p99", target.name, report.delay_p99 - direct.delay_p99)

    def crowd(self, targets: list[Running]) -> None:
        """A thousand streams at once: that none is wrong, and how late the latest frames are."""
        direct = self.run("direct", self._crowd(self.upstream))
        for target in targets:
            report = self.run(target.name, self._crowd(target.port))
            self.note("crowd_wrong", target.name, report.faults)
            self.note("crowd_p99", target.name, (report.delay_p99 - direct.delay_p99) / 1e3)

    def _translated(self, target: Running, passthrough: float) -> None:
        task = Task(target.port, 8, self.scale.seconds, frames=100, model="t")
        self.run(target.name, replace(task, seconds=min(0.3, task.seconds)))  # it is warm for passthrough only
        cpu, report = self._cost(target, task)
        each = cpu / max(1, report.frames)
        self.note("translated_cpu", target.name, each)
        self.note("translated_ratio", target.name, each / passthrough)

    def _first(self, port: int) -> Task:
        return Task(port, 1, self.scale.seconds / 2, frames=1)

    def _paced(self, port: int) -> Task:
        return Task(port, self.scale.streams, ramp=self.scale.ramp, frames=self.scale.paced, pause_us=20_000)

    def _crowd(self, port: int) -> Task:
        number = self.scale.crowd
        frames = self.scale.crowd_frames
        return Task(port, number, ramp=number / CROWD_RATE, frames=frames, pause_us=CROWD_PAUSE_US)

    def _cost(self, target: Running, task: Task) -> tuple[float, Report]:
        """CPU µs that the target used for a task, from rest to rest."""
        time.sleep(0.05)
        before = target.cpu()
        report = self.run(target.name, task)
        return (target.cpu() - before) * 1e6, report

    # Without a server

    def imports(self) -> None:
        for _ in range(self.scale.imports):
            for name in self.names:
                if name in IMPORTS:
                    self.note("import", name, import_ms(IMPORTS[name]))

    # The end

    def figures(self) -> dict[str, dict[str, float | None]]:
        """Medians by row and target; None where there is nothing to measure."""
        return {
            row: {name: statistics.median(taken) if taken else None for name, taken in by_name.items()}
            for row, by_name in self.taken.items()
        }


def import_ms(modules: str) -> float:
    code = f"import time; t = time.perf_counter(); import {modules}; print(time.perf_counter() - t)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, TARGET_CPUS),
    )
    return float(done.stdout) * 1e3


def busy_seconds() -> float:
    """What all cores together have worked since the machine was started."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / TICK


@contextlib.contextmanager
def stage() -> Iterator[tuple[Path, Load, int]]:
    """A scratch directory, the load, and the port of an upstream that is about to come up."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        port = free_port()
        stack.enter_context(Process([sys.executable, "-m", "tests.bench.upstream", str(port)], LOAD_CPUS))
        yield directory, stack.enter_context(Load()), port


def measure(scale: Scale, names: list[str]) -> Bench:
    with stage() as (directory, load, port):
        bench = Bench(scale, names, directory, load, port)
        bench.imports()  # meanwhile the upstream comes up
        for number in range(scale.rounds):
            with contextlib.ExitStack() as instances:
                targets = [instances.enter_context(bench.fresh(name)) for name in names]
                bench.round(number, targets)
                if not number:
                    bench.crowd(targets)
            if "gateway" in names:
                bench.translated_weight()
        return bench


def profile(seconds: float) -> int:
    """Print where the gateway spends its time under each load; shares are right, times are a profiler's."""
    faults: list[str] = []
    with stage() as (directory, load, port):
        for number, (what, fields) in enumerate(LOADS.items()):
            file = directory / f"profile-{number}"
            with Running("gateway", port, directory / str(number), profile=file) as target:
                report = load.run(Task(target.port, seconds=seconds, **fields))
                target.leave()
            faults += [f"{what}: {said}" for said in report.said]
            print(f"{what}: {report.answers:,} answers in {report.elapsed:.1f} s", flush=True)
            pstats.Stats(str(file)).strip_dirs().sort_stats("tottime").print_stats(25)
    for fault in faults:
        print(f"wrong: {fault}", file=sys.stderr)
    return 1 if faults else 0


def table(figures: dict[str, dict[str, float | None]], names: list[str]) -> str:
    """One line a row: every target's figure, then the gateway's as a multiple of the others'."""
    others = [name for name in names if name != "gateway"] if "gateway" in names else []
    heads = ["", *names, *(f"÷ {name}" for name in others)]
    lines = [heads]
    for row, (what, digits) in ROWS.items():
        told = figures[row]
        ratios = [_ratio(told["gateway"], told[name]) for name in others]
        lines.append([what, *(_number(told[name], digits) for name in names), *ratios])
    widths = [max(len(line[at]) for line in lines) for at in range(len(heads))]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    )


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _ratio(ours: float | None, theirs: float | None) -> str:
    return f"{ours / theirs:.2f}" if ours is not None and theirs is not None and ours > 0 and theirs > 0 else "–"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure what the gateway costs.")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", dest="scale", action="store_const", const="quick", help="one short round")
    size.add_argument("--micro", dest="scale", action="store_const", const="micro", help="only prove that it runs")
    size.add_argument("--profile", action="store_true", help="instead, the gateway's functions by their own time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every figure, round by round")
    parser.add_argument("--targets", default=",".join(available()), help="default: %(default)s")
    parser.set_defaults(scale="full")
    args = parser.parse_args()
    names = args.targets.split(",")
    if unknown := set(names) - set(available()):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # two sockets for each idle stream
    os.sched_setaffinity(0, LOAD_CPUS)
    if args.profile:
        return profile(PROFILED)
    began, busy = time.monotonic(), busy_seconds()
    bench = measure(SCALES[args.scale], names)
    elapsed = time.monotonic() - began
    figures = bench.figures()
    machine = {"cores": len(CPUS), "python": platform.python_version(), "busy": (busy_seconds() - busy) / elapsed}

    print(table(figures, names))
    print(
        f"\n{len(CPUS)} cores, {machine['busy']:.1f} busy on average (the bench itself keeps about one busy); "
        f"{elapsed:.0f} s; {bench.answers:,} answers and {bench.frames:,} frames checked, {len(bench.faults)} wrong"
    )
    for fault in bench.faults[:10]:
        print(f"wrong: {fault}", file=sys.stderr)
    if args.json:
        told: dict[str, Any] = {"machine": machine, "rows": figures, "rounds": bench.taken, "faults": bench.faults}
        args.json.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    return 1 if bench.faults else 0


if __name__ == "__main__":
    sys.exit(main())
