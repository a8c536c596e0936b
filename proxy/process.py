"""One process that serves: what its signals do, and how it ends.

| signal  | what happens                                                                                     |
|---------|--------------------------------------------------------------------------------------------------|
| SIGTERM | at once: deaf to new connections, 503 to new requests; live exchanges have ``server.drain`` s    |
| SIGINT  | the same with 5 s                                                                                |
| either, a second time | the process ends at once, with 128 + the signal's number                           |
| SIGHUP  | the file is read again: a good one is swapped in between two requests, a broken one is only told |
| SIGUSR2 | said to need ``server.workers`` > 1; the supervisor has the rest                                 |
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import uvloop

from proxy import sockets, systemd
from proxy.faults import Faults
from proxy.launch import DEFERRED, counted, leave_now
from proxy.observe import logs
from proxy.serving import LAST_WORDS, Server
from proxy.settings import SettingsError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from proxy.launch import Launch

log = logging.getLogger(__name__)

#: Seconds that SIGINT, somebody's Ctrl-C, gives to live exchanges.
INTERRUPT_DRAIN = 5.0


class Link:
    """A worker's end of the line to its supervisor, which hears how far it is, and whose end is ours."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.set_inheritable(False)

    def close(self) -> None:
        self._sock.close()

    def tell(self, word: str) -> None:
        with suppress(OSError):  # a supervisor that is gone is noticed elsewhere
            self._sock.send(f"{word}\n".encode())

    def on_end(self, act: Callable[[], object]) -> None:
        """Call ``act`` once the supervisor is gone."""
        loop = asyncio.get_running_loop()

        def look() -> None:
            with suppress(BlockingIOError):
                if not self._sock.recv(1024):
                    loop.remove_reader(self._sock)
                    act()

        self._sock.setblocking(False)
        loop.add_reader(self._sock, look)


class Process:
    """What the signals do to a running server."""

    def __init__(self, server: Server, launch: Launch, link: Link | None) -> None:
        self._server = server
        self._launch = launch
        self._link = link
        self._settings = launch.settings
        self._hup = asyncio.Event()
        self._stopped = asyncio.Event()
        self._drain = 0.0

    async def run(self) -> None:
        """Serve until told to stop, and stop."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop, signal.SIGTERM)
        loop.add_signal_handler(signal.SIGINT, self._stop, signal.SIGINT)
        loop.add_signal_handler(signal.SIGHUP, self._hup.set)
        loop.add_signal_handler(signal.SIGUSR2, self._no_upgrade)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, DEFERRED)
        helpers = [asyncio.create_task(self._reloads()), asyncio.create_task(systemd.watchdog())]
        # What start-up made is there to stay: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        if self._link:
            self._link.on_end(lambda: self._stop(signal.SIGTERM) if not self._stopped.is_set() else None)
            self._link.tell("ready")
        else:
            log.info("%s", self._launch.serving())
            systemd.ready("serving")
        await self._stopped.wait()
        stragglers = await self._server.stop(self._drain)
        for helper in helpers:
            helper.cancel()
        if stragglers:
            log.warning("ended; cut after %g s: %s", self._drain, counted(stragglers, "exchange"))
        else:
            log.info("ended; nothing was cut")

    def _stop(self, number: signal.Signals) -> None:
        if self._stopped.is_set():
            leave_now(number)
        self._server.drain()
        self._drain = INTERRUPT_DRAIN if number == signal.SIGINT else self._settings.server.drain
        self._stopped.set()
        systemd.stopping(self._drain + 2 * LAST_WORDS + self._settings.timeouts.client)
        live = counted(self._server.gateway.live, "exchange")
        log.info("%s: draining, %s live, at most %g s", number.name, live, self._drain)

    async def _reloads(self) -> None:
        while True:
            await self._hup.wait()
            self._hup.clear()  # before the file is read: a signal in the meantime means a newer file
            if self._stopped.is_set():
                continue
            systemd.reloading()
            await self._reload()
            systemd.ready("serving")
            if self._link:
                self._link.tell("reloaded")

    async def _reload(self) -> None:
        try:
            # In a thread: a secret's file on a slow disk must not stop the streams.
            settings, told = await asyncio.to_thread(self._launch.reload)
            if self._stopped.is_set():
                return
            self._server.swap(settings)
        except SettingsError as exc:
            log.error("not reloaded, everything stays as it was: %s", exc)
            return
        except Exception as exc:
            # Ours, not the operator's.  What it says might hold what the file says, so only its place is told.
            log.error("not reloaded, everything stays as it was: %s", logs.where(exc))
            return
        self._settings = settings
        logs.setup(settings.log)
        if self._link:  # the supervisor tells the rest, once for all of its workers
            return
        for sentence in told:
            log.warning("%s", sentence)
        models, keys = counted(len(settings.models), "model"), counted(len(settings.keys), "key")
        log.info("reloaded %s: %s, %s", self._launch.config, models, keys)

    def _no_upgrade(self) -> None:
        log.warning("SIGUSR2 replaces workers, and there are none: it needs server.workers of 2 or more")


def run(launch: Launch, link: Link | None = None) -> int:
    """Serve in this process until a signal ends it; the exit code."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(launch, link))
    finally:
        sockets.close(launch.sockets)
        if link:
            link.close()


async def _serve(launch: Launch, link: Link | None) -> int:
    asyncio.get_running_loop().set_exception_handler(Faults())
    try:
        server = await Server.start(launch.settings, socks=launch.sockets, alone=launch.alone)
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 2
    await Process(server, launch, link).run()
    return 0
