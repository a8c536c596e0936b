"""The load: raw protocols that ask in a closed loop and check every answer.

    python -m tests.bench.load

One JSON object a line on stdin (``Task``), one on stdout (``Report``).  A task with ``hold`` leaves its streams
open; the next line, whatever it says, closes them first.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import cast

import uvloop

from .upstream import Wish

KEY = "sk-bench-0123456789"
STAMP = re.compile(rb"@(\d{16})\.(\d{5})@")
LAST_CHUNK = b"\r\n0\r\n\r\n"
#: Seconds that requests in flight may take after the end; more counts as errors.
PATIENCE = 20.0


@dataclass
class Task:
    """``connections`` connections, opened over ``ramp`` seconds, each with one request in flight.

    A request that ends before ``seconds`` have passed is followed by the next one.  0: one request each.
    The gateway passes on what it gets for the model ``m``, and translates what it gets for ``t``.
    """

    port: int
    connections: int = 1
    seconds: float = 0.0
    ramp: float = 0.0
    frames: int = 0
    pause_us: int = 0
    hold: bool = False
    model: str = "m"

    def request(self) -> bytes:
        wish = Wish(self.frames, self.pause_us, self.hold)
        asked: dict[str, object] = {"model": self.model, "messages": [{"role": "user", "content": wish.prompt()}]}
        if self.frames:
            asked |= {"stream": True, "stream_options": {"include_usage": True}}
        body = json.dumps(asked).encode()
        return (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAuthorization: Bearer {KEY}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body


@dataclass
class Report:
    """What came: ``answers`` were right to the last byte, ``faults`` (a few of them in words) were not.

    Times are in microseconds: ``first`` from the request to its first content frame, ``delay`` from the
    upstream's write of a paced frame to its arrival here.
    """

    answers: int = 0
    frames: int = 0
    faults: int = 0
    said: list[str] = field(default_factory=list)
    elapsed: float = 0.0
    first_p50: float = 0.0
    delay_p50: float = 0.0
    delay_p99: float = 0.0


def whole_stream(raw: bytes, frames: int) -> str:
    """What is wrong with a chunked stream of ``frames`` content frames; empty if nothing is."""
    head, _, body = raw.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        return f"{head[:40]!r}: {body[:200]!r}"
    text, at = [], 0
    while size := int(body[at : (end := body.index(b"\r\n", at))], 16):
        text.append(body[end + 2 : end + 2 + size])
        at = end + 4 + size
    told = b"".join(text)
    numbers = [int(number) for _, number in STAMP.findall(told)]
    if numbers != list(range(frames)):
        return f"{len(numbers)} of {frames} frames, or out of order"
    return "" if told.endswith(b"data: [DONE]\n\n") else f"no end mark: {told[-60:]!r}"


def whole_answer(raw: bytes) -> str:
    if raw.startswith(b"HTTP/1.1 200") and b"lorem ipsum dolor sit amet" in raw:
        return ""
    return repr(raw[:300])


class Asker(asyncio.Protocol):
    """One connection of the load."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def ask(self) -> None:
        self._parts: list[bytes] = []
        self._left: int | None = None  # body bytes to come, where the head tells; else the last chunk ends it
        self._headed = False
        self._first = 0
        self._busy = True
        self._began = time.monotonic_ns() // 1000
        self.transport.write(self._run.request)

    def data_received(self, data: bytes) -> None:
        run, now = self._run, time.monotonic_ns() // 1000
        self._parts.append(data)
        if run.paced:
            run.delays.extend([now - int(stamp) for stamp, _ in STAMP.findall(data)])
        if run.task.frames and not self._first and STAMP.search(data):
            self._first = now
            run.firsts.append(now - self._began)
            if run.task.hold:
                return self._end("")
        if not self._headed:
            self._read_head()
        elif self._left is not None:
            self._left -= len(data)
        if self._ended():
            raw = b"".join(self._parts)
            self._end(whole_stream(raw, run.task.frames) if run.task.frames else whole_answer(raw))
        return None

    def _read_head(self) -> None:
        raw = b"".join(self._parts)
        end = raw.find(b"\r\n\r\n") + 4
        if end >= 4:
            self._headed = True
            head = raw[:end].lower()
            at = head.find(b"\r\ncontent-length:")
            if at >= 0:
                self._left = int(head[at + 17 : head.find(b"\r", at + 17)]) - (len(raw) - end)

    def _ended(self) -> bool:
        if not self._headed or self._left is not None:
            return self._headed and self._left is not None and self._left <= 0
        last = self._parts[-1]
        return (last if len(last) >= 7 else b"".join(self._parts[-7:])).endswith(LAST_CHUNK)

    def _end(self, fault: str) -> None:
        self._busy = False
        self._run.count(fault)
        if self._run.goes_on() and not fault:
            self.ask()
        else:
            self._run.leave(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._busy:
            self._end("the connection was closed inside an answer")


class Run:
    """One task under way."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.request = task.request()
        self.paced = bool(task.pause_us)
        self.report = Report()
        self.firsts: list[int] = []
        self.delays: list[int] = []
        self._left = task.connections
        self._over = asyncio.Event()
        self._deadline = 0.0
        self._askers: list[Asker] = []

    async def go(self) -> Report:
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._deadline = began + self.task.seconds
        for number in range(self.task.connections):
            await asyncio.sleep(max(0, began + self.task.ramp * number / self.task.connections - loop.time()))
            _, asker = await loop.create_connection(lambda: Asker(self), "127.0.0.1", self.task.port)
            self._askers.append(asker)
            asker.ask()
        try:
            await asyncio.wait_for(self._over.wait(), self.task.seconds + PATIENCE)
        except TimeoutError:
            self.count(f"{self._left} requests without an end")
        report = self.report
        report.elapsed = loop.time() - began
        if self.firsts:
            report.first_p50 = quantile(self.firsts, 0.5)
        if self.delays:
            report.delay_p50, report.delay_p99 = quantile(self.delays, 0.5), quantile(self.delays, 0.99)
        return report

    def count(self, fault: str) -> None:
        if not fault:
            self.report.answers += 1
            self.report.frames += self.task.frames
            return
        self.report.faults += 1
        if len(self.report.said) < 3:
            self.report.said.append(fault)

    def goes_on(self) -> bool:
        return asyncio.get_running_loop().time() < self._deadline

    def leave(self, asker: Asker) -> None:
        if not self.task.hold:
            asker.transport.close()
        self._left -= 1
        if not self._left:
            self._over.set()

    async def release(self) -> None:
        for asker in self._askers:
            asker.transport.close()
        await asyncio.sleep(0.05)


def quantile(values: list[int], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main() -> None:
    gc.disable()
    held: Run | None = None
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin:
            if held:
                runner.run(held.release())
                held = None
            fields = json.loads(line)
            report = Report()
            if fields:
                run = Run(Task(**fields))
                report = runner.run(run.go())
                held = run if run.task.hold else None
            print(json.dumps(asdict(report)), flush=True)
            gc.collect()


if __name__ == "__main__":
    main()
