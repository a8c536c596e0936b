"""Keep a gateway busy with everything that goes wrong, and see that nothing of it stays behind.

    python -m tests.bench.soak [--minutes N] [--rate VISITS] [--seed N]

One gateway process stands between a provider in changing moods (``moods``) and clients of every temper (``visits``);
meanwhile its configuration is changed again and again, and at times into nonsense.  Afterwards the clients are gone,
and so must be what the gateway had for them: memory, descriptors, tasks, slots.  What it said on the way must be a
log, and it must end as it is told to.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import uvloop

from tests.functional import UPSTREAM_KEY, authorized, config
from tests.functional.upstream import blackhole
from tests.functional.wire import connect
from tests.processes import Process

from .findings import ALLOWED, JUDGED, Finding, Look, growth, unusual
from .moods import LARGE_FRAME, Moody
from .visits import ADMIN, DIALECTS, HURRIED, MODELS, NARROW, NARROW_STREAMS, Ask, Visits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

#: Visits that may be under way at once.
CROWD = 150
#: Seconds between two looks at memory, and between two changes of the configuration.
LOOK, RELOAD = 1.0, 5.0
#: Objects of one kind that may be left: the configuration that is in force, the last connections' remains.
LEFT = 50
#: Seconds for the last exchanges to be settled, and for connections to providers to be given up.
SETTLED, GIVEN_UP = 15.0, 60.0
#: The allocator gives back at once what is free, so that memory that stays is memory that is held.
ENVIRON = {"MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_MMAP_THRESHOLD_": "65536"}


@dataclass(frozen=True)
class Plan:
    """How long, how many visits begin in a second, and where chance begins."""

    seconds: float
    rate: float
    seed: int

    @property
    def short(self) -> bool:
        """Too short to wait for what the gateway does by the minute, or to judge its memory."""
        return self.seconds < JUDGED


# What the gateway is told to do...


def settings(url: str, closed: int, hole: int, keepalive: float = 0.2) -> str:
    """Small limits and short clocks, so that all of them are met."""
    table = {"base_url": url, "api_key": UPSTREAM_KEY}
    kinds: dict[str, dict[str, Any]] = {
        "chat": {"kind": "openai"},
        "messages": {"kind": "anthropic"},
        "gemini": {"kind": "gemini"},
        "workers": {"kind": "workers-ai", "endpoint": "native"},
        "responses": {"kind": "openai", "responses": True},
        "down": {"kind": "openai", "base_url": f"http://127.0.0.1:{closed}"},
        "hole": {"kind": "openai", "base_url": f"http://127.0.0.1:{hole}"},
    }
    return config(
        url,
        limits={"max_body_bytes": 65_536, "max_frame_bytes": LARGE_FRAME},
        timeouts={
            "connect": 1.0,
            "first_byte": 3.0,
            "idle": 3.0,
            "heartbeat": 6.0,
            "total": 6.0,
            "after_finish": 1.0,
            "client": 3.0,
            "keepalive_idle": 3.0,
        },
        stream={"keepalive": keepalive},
        keys=[
            {"name": "narrow", "key": NARROW, "streams": NARROW_STREAMS},
            {"name": "hurried", "key": HURRIED, "requests_per_minute": 20},
            {"name": "admin", "key": ADMIN, "admin": True},
        ],
        providers=[{"name": name, **table, **kind} for name, kind in kinds.items()],
        models=[{"id": name, "provider": name} for name in kinds],
    )


class Soak:
    """One run against one process."""

    def __init__(self, plan: Plan, process: Process, upstream: Moody, window: Path, texts: list[str]) -> None:
        self.visits = Visits(process.port, plan.seed)
        self.looks: list[Look] = []
        self._plan = plan
        self._process = process
        self._upstream = upstream
        self._window = window
        self._texts = texts
        self._dice = random.Random(plan.seed)
        self._began = time.monotonic()

    # While it runs

    async def run(self, say: Callable[[str], object]) -> None:
        """Everything at once, for as long as is planned; returns when the last client has gone."""
        self._began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            helpers = [group.create_task(self._watch(say)), group.create_task(self._reload())]
            await self._come_and_go()
            for helper in helpers:
                helper.cancel()

    @property
    def _now(self) -> float:
        return time.monotonic() - self._began

    async def _come_and_go(self) -> None:
        under_way = 0

        async def visit() -> None:
            nonlocal under_way
            under_way += 1
            await self.visits.make()
            under_way -= 1

        async with asyncio.TaskGroup() as group:
            while self._now < self._plan.seconds and self._process.running:
                if under_way < CROWD:
                    group.create_task(visit())
                await asyncio.sleep(self._dice.expovariate(self._plan.rate))

    async def _watch(self, say: Callable[[str], object]) -> None:
        told = 0
        while self._process.running:
            self.looks.append(look := Look.at_process(self._process.pid, self._now))
            if (minute := int(self._now // 60)) > told:
                told = minute
                made, wrong = self.visits.made.total(), len(self.visits.wrong)
                say(f"minute {minute}: {look}; {await self.live():.0f} live; {made:,} visits, {wrong} wrong")
            await asyncio.sleep(LOOK)

    async def _reload(self) -> None:
        """Change the configuration, and every third time break it."""
        for number in range(1, 10_000):
            await asyncio.sleep(min(RELOAD, self._plan.seconds / 5))
            if number % 3:
                await self._process.reload(self._texts[number % 2])
            else:
                await self._process.reload("[server", "not reloaded")

    async def live(self) -> float:
        """Exchanges in flight, as the gateway counts them."""
        async with await connect(self._process.port) as client:
            text = await (await client.ask("GET", "/metrics", headers=authorized(ADMIN))).body()
        found = re.search(rb"(?m)^ai_proxy_open_streams (\S+)$", text)
        assert found, "the gauge of exchanges in flight is gone"
        return float(found[1])

    async def held(self) -> tuple[list[str], dict[str, int]]:
        """The tasks that the gateway runs, and the objects it holds, by kind."""
        self._window.unlink(missing_ok=True)
        self._process.send(signal.SIGUSR1)
        async with asyncio.timeout(SETTLED):
            while not self._window.exists():  # noqa: ASYNC110  # another process makes it
                await asyncio.sleep(0.05)
        told = json.loads(self._window.read_text())
        return told["tasks"], told["objects"]

    # Afterwards

    async def findings(self, base: Look, tasks: list[str]) -> list[Finding]:
        """Compare with what there was before anybody came, and end the process."""
        found = [self._memory(), Finding(bool(self.visits.wrong), f"{len(self.visits.wrong)} visits went wrong")]
        live = await _until(self.live, lambda live: not live, SETTLED)
        found.append(Finding(bool(live), f"{live:.0f} exchanges in flight"))
        found.append(await self._slots())
        patience = SETTLED if self._plan.short else GIVEN_UP
        last = await _until(self._look, lambda look: look.descriptors <= base.descriptors, patience)
        left = last.descriptors - base.descriptors
        found.append(Finding(left > 0, f"{last.descriptors} descriptors, before the first client {base.descriptors}"))
        now, objects = await self.held()
        more = Counter(now) - Counter(tasks)
        found.append(Finding(bool(more), f"{len(now)} tasks{': more than before: ' if more else ''}{_counted(more)}"))
        many = Counter({kind: count for kind, count in objects.items() if count > LEFT})
        found.append(
            Finding(bool(many), f"at most {LEFT} objects of a kind{', but: ' if many else ''}{_counted(many)}")
        )
        return [*found, await self._end(), *self._log()]

    def _memory(self) -> Finding:
        if self._plan.short:
            return Finding(False, f"memory was not judged: that takes {JUDGED:g} s")
        warm, last = growth(self.looks, self._plan.seconds)
        return Finding(
            last - warm > ALLOWED,
            f"memory, warm {warm / 1024:.1f} MiB, at the end {last / 1024:.1f} MiB: {(last - warm) / 1024:+.1f} MiB "
            f"of {ALLOWED / 1024:+.1f} allowed",
        )

    async def _look(self) -> Look:
        if self._plan.short:
            await self._upstream.close_idle()
        return Look.at_process(self._process.pid, self._now)

    async def _slots(self) -> Finding:
        """A key with a few streams gets all of them, and not one more: none was lost on the way."""
        ask = Ask("stalling", DIALECTS[0], MODELS[0], key=NARROW)
        async with AsyncExitStack() as stack:
            statuses = []
            for _ in range(NARROW_STREAMS + 1):
                client = await stack.enter_async_context(await connect(self._process.port))
                statuses.append((await ask.send(client)).status)
        wrong = statuses != [200] * NARROW_STREAMS + [429]
        return Finding(wrong, f"slots of a key with {NARROW_STREAMS} streams: {', '.join(map(str, statuses))}")

    async def _end(self) -> Finding:
        """SIGTERM beside a live stream, which has to be finished first."""
        ask = Ask("slow", DIALECTS[0], MODELS[0])
        async with await connect(self._process.port) as client:
            answer = await ask.send(client)
            self._process.send(signal.SIGTERM)
            end = await ask.end(answer)
        code = await self._process.ended()
        return Finding(bool(code) or end != "complete", f"exit code {code} after SIGTERM; the last stream was {end}")

    def _log(self) -> list[Finding]:
        strange = [line for line in self._process.err if unusual(line)] + self._process.out
        said = Finding(bool(strange), f"{len(self._process.err):,} log lines, {len(strange)} that should not be there")
        faults = [repr(fault) for fault in self._upstream.faults]
        asked = Finding(bool(faults), f"{len(faults)} requests to the provider were not as they should be")
        return [said, asked, *(Finding(True, line[:500]) for line in (*strange[:10], *faults[:10]))]


async def _until(ask: Callable[[], Awaitable[T]], right: Callable[[T], bool], patience: float) -> T:
    """Ask until the answer is right or ``patience`` is over; the last answer."""
    deadline = time.monotonic() + patience
    while not right(told := await ask()) and time.monotonic() < deadline:  # noqa: ASYNC110  # of another process
        await asyncio.sleep(0.2)
    return told


async def soak(plan: Plan, say: Callable[[str], object] = print) -> list[Finding]:
    """Start everything, run, and say what was found."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        closed = stack.enter_context(socket.socket())
        closed.bind(("127.0.0.1", 0))  # and never listens
        hole = await stack.enter_async_context(blackhole())
        upstream = await Moody().listen()
        stack.push_async_callback(_stop, upstream)
        texts = [settings(upstream.url, closed.getsockname()[1], hole, keepalive) for keepalive in (0.2, 0.3)]
        window = directory / "window.json"
        program = (sys.executable, "-m", "tests.bench.watched", str(window), "serve")
        process = await Process.start(directory, texts[0], "--port", "0", environ=ENVIRON, program=program)
        stack.push_async_callback(process.close)
        await process.serves()
        run = Soak(plan, process, upstream, window, texts)
        tasks, _ = await run.held()
        base = Look.at_process(process.pid, 0)
        say(f"{plan.seconds:.0f} s with {plan.rate:g} visits a second, seed {plan.seed}; at first {base}")
        found: list[Finding] = []
        try:
            await run.run(say)
            found += await run.findings(base, tasks)
        except* (AssertionError, OSError) as exc:  # it has ended, or does not do as it is told
            state = "still running" if process.running else "gone"
            found.append(Finding(True, f"the soak broke off, the gateway is {state}: {exc.exceptions!r}"[:500]))
            found += [Finding(True, line[:500]) for line in process.err[-5:]]
        say(f"visits: {_counted(run.visits.made)}\nends: {_counted(run.visits.ends)}")
        return [*found, *(Finding(True, wrong[:500]) for wrong in run.visits.wrong[:10])]


async def _stop(upstream: Moody) -> None:
    upstream.faults.clear()  # they are told already
    await upstream.stop()


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.most_common())


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.soak", description="Keep a gateway busy, and see that nothing stays behind."
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="default: %(default)g")
    parser.add_argument("--rate", type=float, default=60.0, metavar="VISITS", help="a second; default: %(default)g")
    parser.add_argument("--seed", type=int, default=None, help="repeats the choices of a run")
    args = parser.parse_args()
    seed = random.randrange(10**6) if args.seed is None else args.seed
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        findings = runner.run(soak(Plan(args.minutes * 60, args.rate, seed), lambda line: print(line, flush=True)))
    print(*findings, sep="\n")
    return 1 if any(finding.wrong for finding in findings) else 0


if __name__ == "__main__":
    sys.exit(main())
