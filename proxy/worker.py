"""A place for one worker of the supervisor: started, heard out, and started again when it dies."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from proxy import systemd
from proxy.launch import DEFERRED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from proxy.launch import Launch

log = logging.getLogger(__name__)

#: How a worker knows that it is one: the descriptors of its socket pair's end and of the listening sockets.
WORKER = "AI_PROXY_WORKER"
#: Pauses before a worker that died is replaced, in seconds: the first, and the longest.  Each doubles the last ...
PAUSE, LONGEST_PAUSE = 0.5, 30.0
#: ... until one has lived this long; its successor starts at once.
STEADY = 10.0


class Worker:
    """A place for one process: it is started again when it dies, until it is told to leave."""

    def __init__(self, launch: Launch, metrics: Path) -> None:
        self._launch = launch
        self._metrics = metrics
        #: Set once: None when it serves, the exit code where it ended before.
        self.started: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self.reloaded = asyncio.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._serves = False
        self._leaving = asyncio.Event()
        self._life = asyncio.create_task(self._live())

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    @property
    def gone(self) -> bool:
        """It has left, and no process of it is there any more."""
        return self._life.done()

    async def ended(self) -> None:
        """Wait until it is gone."""
        await asyncio.wait([self._life])

    def reload(self) -> bool:
        """Pass SIGHUP on; False where no process is there that could hear it, or one that ends anyway."""
        self.reloaded.clear()
        return not self._leaving.is_set() and self._signal(signal.SIGHUP)

    def leave(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Let it end as ``number`` says, and start no other.  Once: a second signal would not let it drain."""
        if not self._leaving.is_set():
            self._leaving.set()
            self._signal(number if self._serves else signal.SIGTERM)  # a young Python shows tracebacks for SIGINT

    def kill(self) -> None:
        self._leaving.set()
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> bool:
        if self._process is None or self._process.poll() is not None:
            return False
        self._process.send_signal(number)
        return True

    async def _live(self) -> None:
        pause = 0.0
        while not self._leaving.is_set():
            began = time.monotonic()
            code = await self._process_life()
            if not self.started.done():
                self.started.set_result(code)
                return
            if self._leaving.is_set():
                return
            pause = 0.0 if time.monotonic() - began > STEADY else min(max(PAUSE, 2 * pause), LONGEST_PAUSE)
            log.error("worker %d %s; the next one starts in %g s", self.pid, ending(code), pause)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._leaving.wait()
        if not self.started.done():
            self.started.set_result(-signal.SIGTERM)

    async def _process_life(self) -> int:
        """Start a process and hear it out; its exit code, negative for a signal."""
        ours, theirs = socket.socketpair()
        try:
            self._process = self._spawn(theirs)
        except OSError as exc:
            ours.close()
            log.error("a worker cannot be started: %s", exc.strerror)
            return 1
        finally:
            theirs.close()
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            with suppress(OSError):  # killed with something unread
                while word := await reader.readline():
                    self._hear(word.strip())
        finally:
            writer.close()
            self._serves = False
            self.reloaded.set()
        code = await asyncio.to_thread(self._process.wait)
        # Gauges of live processes count until their file is gone; prometheus_client leaves that to the parent.
        for file in self._metrics.glob(f"gauge_live*_{self.pid}.db"):
            file.unlink(missing_ok=True)
        return code

    def _spawn(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        told = self._launch.overrides
        flags = {"--config": self._launch.config, "--host": told.host, "--port": told.port, "--workers": told.workers}
        given = [text for flag, value in flags.items() if value is not None for text in (flag, str(value))]
        descriptors = [theirs.fileno(), *(sock.fileno() for sock in self._launch.sockets)]
        environ = {name: value for name, value in os.environ.items() if name not in systemd.VARIABLES}
        environ[WORKER] = ",".join(map(str, descriptors))
        environ["PROMETHEUS_MULTIPROC_DIR"] = str(self._metrics)
        with deferred():
            return subprocess.Popen(
                [sys.executable, "-m", "proxy", "serve", *given],
                env=environ,
                stdin=subprocess.DEVNULL,
                pass_fds=descriptors,
                process_group=0,  # a terminal's Ctrl-C is for the supervisor: with its own it would be the second
            )

    def _hear(self, word: bytes) -> None:
        if word == b"ready":
            self._serves = True
            log.info("worker %d serves", self.pid)
            if not self.started.done():
                self.started.set_result(None)
        elif word == b"reloaded":
            self.reloaded.set()


@contextmanager
def deferred() -> Iterator[None]:
    """Processes that are started in here are born with these signals waiting."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, DEFERRED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


async def outcome(workers: Iterable[Worker]) -> int | None:
    """None when all of them serve; else the exit code of one that does not, as soon as it is known."""
    for coming in asyncio.as_completed([worker.started for worker in workers]):
        if (code := await coming) is not None:
            return code
    return None
