"""``serve``: this process, or a small one that starts ``server.workers`` of the same program and watches them.

Workers share the listening sockets and nothing else of the parent.  Each has one end of a socket pair: it says
"ready" and "reloaded" there, and its end means that the supervisor is gone, so that the worker drains and ends.
The supervisor never imports aiohttp: it stays small, and there is little in it that could fail.

| signal           | what happens                                                                               |
|------------------|--------------------------------------------------------------------------------------------|
| SIGTERM, SIGINT  | passed on; ends when the last worker has; a second one kills them all at once              |
| SIGHUP           | the file is judged here, once; a good one is read again by every worker                    |
| SIGUSR2          | new workers from the code on disk; once all of them serve, the old ones drain and end      |
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from proxy import sockets, systemd
from proxy.faults import Faults
from proxy.launch import DEFERRED, Launch, counted, leave_now
from proxy.observe import logs
from proxy.settings import Overrides, SettingsError, load
from proxy.worker import WORKER, Worker, ending, outcome

log = logging.getLogger(__name__)

#: Seconds that workers may take over a reload before systemd is told that it is done all the same.
RELOAD = 10.0
#: Seconds after ``server.drain`` in which a worker must have ended: it has last words and slow readers to see to.
MARGIN = 45.0


def serve(config: Path, overrides: Overrides) -> int:
    """Serve what ``config`` says until a signal ends it.

    The exit code: 0; 1 (cannot listen) or 2 (configuration), each with one line on stderr; 128 + n where a second
    signal n did not wait.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, DEFERRED)
    try:
        return _serve(config, overrides)
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 2
    except sockets.CannotListen as exc:
        print(exc, file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before there was a loop that knows SIGINT
        return 128 + signal.SIGINT


def _serve(config: Path, overrides: Overrides) -> int:
    loaded = load(config, overrides=overrides)
    settings = loaded.settings
    logs.setup(settings.log)
    _allow_many_descriptors()
    link, *descriptors = map(int, os.environ.pop(WORKER, "-1").split(","))
    worker = link >= 0
    if not worker:
        for warning in loaded.warnings:  # workers would only repeat them
            log.warning("%s", warning)
        descriptors = systemd.take_descriptors()
    listening = sockets.inherit(descriptors) or sockets.bind(settings.server.host, settings.server.port)
    try:
        launch = Launch(config=config, overrides=overrides, settings=settings, sockets=listening, alone=not descriptors)
    except SettingsError:
        sockets.close(listening)
        raise
    if settings.server.workers > 1 and not worker:
        with asyncio.Runner() as runner:
            return runner.run(Supervisor(launch).run())

    from proxy import process  # only now: sockets listen before aiohttp is imported, and a supervisor never does

    return process.run(launch, process.Link(socket.socket(fileno=link)) if worker else None)


def _allow_many_descriptors() -> None:
    """A stream takes two descriptors, and the usual soft limit of 1024 is there for programs that use select()."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # a sandbox may forbid it
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Supervisor:
    """Start the workers, replace them when they die or their code is new, and end with them."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._settings = launch.settings
        self._workers: list[Worker] = []
        self._old: set[Worker] = set()  # replaced, and still draining
        self._metrics = Path(tempfile.mkdtemp(prefix="ai-proxy-"))
        self._stop = asyncio.Event()
        self._hup = asyncio.Event()
        self._usr2 = asyncio.Event()

    async def run(self) -> int:
        """Until a signal ends it; the exit code."""
        asyncio.get_running_loop().set_exception_handler(Faults())
        self._install()
        helpers: list[asyncio.Task[None]] = []
        try:
            code = await self._start()
            if not self._stop.is_set():
                if code:
                    return code
                helpers += map(asyncio.create_task, (self._reloads(), self._upgrades(), systemd.watchdog()))
                log.info("%s, %d workers; each counts limits for itself", self._launch.serving(), len(self._workers))
                systemd.ready("serving")
                await self._stop.wait()
            await self._end()
            return 0
        finally:
            for helper in helpers:
                helper.cancel()
            await self._kill()

    async def _kill(self) -> None:
        """Whoever is still there."""
        for worker in self._all():
            worker.kill()
        await asyncio.gather(*(worker.ended() for worker in self._all()))
        shutil.rmtree(self._metrics, ignore_errors=True)

    def _install(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._leave, number)
        loop.add_signal_handler(signal.SIGHUP, self._hup.set)
        loop.add_signal_handler(signal.SIGUSR2, self._usr2.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, DEFERRED)

    def _all(self) -> list[Worker]:
        self._old = {worker for worker in self._old if not worker.gone}
        return [*self._workers, *self._old]

    def _new(self) -> Worker:
        return Worker(self._launch, self._metrics)

    async def _start(self) -> int:
        """Start all workers and wait until they serve; 0, or the exit code to give up with.

        The first one goes alone: what keeps it from serving would keep the others, too, and is told once.
        """
        for number in (1, self._launch.settings.server.workers - 1):
            fresh = [self._new() for _ in range(number)]
            self._workers += fresh
            code = await outcome(fresh)
            if code is not None or self._stop.is_set():
                if code == 2:  # a mistake in the configuration, and the worker has told it
                    return 2
                if not self._stop.is_set():
                    print(f"the workers do not start: one {ending(code or 0)}", file=sys.stderr)
                return 1
        return 0

    def _leave(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            for worker in self._all():
                worker.kill()
            shutil.rmtree(self._metrics, ignore_errors=True)
            leave_now(number)
        self._stop.set()
        sockets.close(self._launch.sockets)
        for worker in self._all():
            worker.leave(number)
        systemd.stopping(self._settings.server.drain + MARGIN)
        log.info("%s: passed on to %s", number.name, counted(len(self._all()), "worker"))

    async def _end(self) -> None:
        """Wait for the last worker, but not for one that cannot end."""
        try:
            async with asyncio.timeout(self._settings.server.drain + MARGIN):
                await asyncio.gather(*(worker.ended() for worker in self._all()))
        except TimeoutError:
            log.error("workers did not end in time and were killed")
        else:
            log.info("ended; every worker has")

    # Reload...

    async def _reloads(self) -> None:
        while True:
            await self._hup.wait()
            self._hup.clear()
            if self._stop.is_set():
                continue
            systemd.reloading()
            await self._reload()
            systemd.ready("serving")

    async def _reload(self) -> None:
        try:
            settings, told = await asyncio.to_thread(self._launch.reload)
        except SettingsError as exc:
            log.error("not reloaded, everything stays as it was: %s", exc)
            return
        except Exception as exc:
            log.error("not reloaded, everything stays as it was: %s", logs.where(exc))
            return
        self._settings = settings
        logs.setup(settings.log)
        asked = [worker for worker in self._all() if worker.reload()]
        with suppress(TimeoutError):
            async with asyncio.timeout(RELOAD):
                await asyncio.gather(*(worker.reloaded.wait() for worker in asked))
        for sentence in told:
            log.warning("%s", sentence)
        log.info("reloaded %s in %s", self._launch.config, counted(len(asked), "worker"))

    # Upgrade...

    async def _upgrades(self) -> None:
        while True:
            await self._usr2.wait()
            self._usr2.clear()
            await self._upgrade()

    async def _upgrade(self) -> None:
        """New workers beside the old ones; these leave when all the new ones serve, and stay if one does not."""
        if self._stop.is_set():
            return
        log.info("starting %s from the code on disk", counted(len(self._workers), "worker"))
        fresh = [self._new() for _ in self._workers]
        self._old.update(fresh)  # not counted on yet, but ended with the rest
        code = await outcome(fresh)
        if self._stop.is_set():  # all of them have been told
            return
        if code is not None:
            log.error("a new worker %s; the old ones serve on", ending(code))
            for worker in fresh:
                worker.kill()
            return
        replaced, self._workers = self._workers, fresh
        self._old = self._old.difference(fresh).union(replaced)
        for worker in replaced:
            worker.leave()
        log.info("%s new: the old ones drain", counted(len(fresh), "worker"))
