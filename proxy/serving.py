"""One process that serves: its listener, its signals, the swap of its settings, and its end.

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
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import uvloop
from aiohttp import web

from proxy import sockets, systemd
from proxy.app import GATEWAY, build_app
from proxy.connection import make_server
from proxy.faults import Faults
from proxy.launch import leave_now
from proxy.observe import logs
from proxy.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from proxy.gateway import Gateway
    from proxy.launch import Launch
    from proxy.settings import Settings

log = logging.getLogger(__name__)

#: Seconds that SIGINT, somebody's Ctrl-C, gives to live exchanges.
INTERRUPT_DRAIN = 5.0
#: Seconds in which requests that arrived together with the signal are read, so that they get their answer.
ARRIVED = 0.05
#: Seconds for what has been said to leave the process: error frames to stragglers, 503 to late-comers.
LAST_WORDS = 2.0
#: Seconds between two looks at whether the last bytes have left.
FLUSH_LOOK = 0.02


# Serving...


class Runner(web.AppRunner):
    """aiohttp's runner with our connections; that and ``retune`` is all we touch of its inside."""

    def __init__(self, app: web.Application, settings: Settings) -> None:
        super().__init__(
            app,
            shutdown_timeout=LAST_WORDS,  # our own drain has already waited
            handler_cancellation=True,
            access_log=None,
            lingering_time=2.0,
            **connection_options(settings),
        )

    async def _make_server(self) -> web.Server:
        loop = asyncio.get_running_loop()
        self.app._set_loop(loop)
        self.app.on_startup.freeze()
        await self.app.startup()
        self.app.freeze()
        return make_server(self.app, loop=loop, **self._kwargs)

    def retune(self, settings: Settings) -> None:
        """Connections that are made from now on follow ``settings``."""
        if self.server:
            self.server._kwargs.update(connection_options(settings))


def connection_options(settings: Settings) -> dict[str, Any]:
    """What a connection is told when it is made."""
    head = settings.limits.max_header_bytes
    return {
        "keepalive_timeout": settings.timeouts.keepalive_idle,
        "max_line_size": head,
        "max_field_size": head,
    }


class Server:
    """The application on its sockets.  ``stop`` it; nothing else closes what it holds."""

    def __init__(self, runner: Runner, settings: Settings, *, alone: bool) -> None:
        self.app = runner.app
        self.port = 0
        self._runner = runner
        self._settings = settings
        self._alone = alone
        self._listeners: list[tuple[asyncio.Server, socket.socket]] = []
        self._draining = False
        self._arriving: set[asyncio.Task[Any]] = set()  # the last of the queue, on their way to being connections

    @classmethod
    async def start(
        cls,
        settings: Settings,
        *,
        sock: socket.socket | None = None,
        socks: Sequence[socket.socket] = (),
        alone: bool = True,
    ) -> Server:
        """Serve on ``sock`` or ``socks``, or else where the settings say.

        Not ``alone``: other processes listen on the same sockets.  Raises ``CannotListen``.
        """
        listening = [sock] if sock else list(socks) or sockets.bind(settings.server.host, settings.server.port)
        runner = Runner(build_app(settings), settings)
        server = cls(runner, settings, alone=alone)
        try:
            await runner.setup()
            for one in listening:
                await server._listen(one)
        except BaseException:
            sockets.close(listening)
            await server.stop()
            raise
        return server

    async def _listen(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        factory = self._runner.server
        assert factory is not None  # set up before
        if sock.family == socket.AF_UNIX:
            listener = await loop.create_unix_server(factory, sock=sock, backlog=sockets.BACKLOG)
        else:
            self.port = self.port or sock.getsockname()[1]
            listener = await loop.create_server(factory, sock=sock, backlog=sockets.BACKLOG)
        self._listeners.append((listener, sock))

    @property
    def gateway(self) -> Gateway:
        return self.app[GATEWAY]

    def swap(self, settings: Settings) -> None:
        """Let every request that starts from now on be served by ``settings``."""
        self.gateway.swap(settings)
        self._runner.retune(settings)
        self._settings = settings

    def drain(self) -> None:
        """Take nothing new, from this very iteration of the loop on.

        Idle connections stay: a request that still arrives there is told 503, not reset.
        """
        if self._draining:
            return
        self._draining = True
        for listener, sock in self._listeners:
            if self._alone:
                self._take_queue(sock)
            listener.close()
        self.gateway.drain()

    def _take_queue(self, sock: socket.socket) -> None:
        """Accept whom the kernel has already told that we are here: closing the socket would reset them."""
        loop = asyncio.get_running_loop()
        factory = self._runner.server
        assert factory is not None
        with suppress(OSError):  # at the latest BlockingIOError, when the queue is empty
            while True:
                client, _ = sock.accept()
                client.setblocking(False)
                task = loop.create_task(loop.connect_accepted_socket(factory, client))
                self._arriving.add(task)
                task.add_done_callback(self._arriving.discard)

    async def stop(self, drain: float = 0) -> int:
        """End in order: turn deaf, let live exchanges finish, tell the stragglers, close everything.

        Live exchanges have ``drain`` seconds.  Returns how many stragglers there were.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + drain
        self.drain()
        if drain:
            await asyncio.sleep(ARRIVED)
        stragglers = 0
        if not await self._idle_until(deadline):
            stragglers = self.gateway.live
            self.gateway.cut()
            await self._idle_until(loop.time() + LAST_WORDS)
        web_server = self._runner.server
        transports = [c.transport for c in web_server.connections if c.transport] if web_server else []
        await self._runner.cleanup()
        # A finished answer may still stand in our buffers before a slow client.  The kernel sends what it has
        # after our end, but what it does not have would be lost.
        patience = min(max(LAST_WORDS, deadline - loop.time()), self._settings.timeouts.client)
        await _flushed(transports, loop.time() + patience)
        return stragglers

    async def _idle_until(self, deadline: float) -> bool:
        try:
            async with asyncio.timeout_at(deadline):
                await self.gateway.idle()
        except TimeoutError:
            return False
        return True


async def _flushed(transports: Iterable[asyncio.Transport], deadline: float) -> None:
    """Wait until these (closing) transports have handed everything to the kernel, at most until ``deadline``."""
    loop = asyncio.get_running_loop()
    while any(t.get_write_buffer_size() for t in transports) and loop.time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(FLUSH_LOOK)


# Life of the process...


class Link:
    """A worker's end of the line to its supervisor, which hears how far it is, and whose end is ours."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def tell(self, word: str) -> None:
        with suppress(OSError):  # a supervisor that is gone is noticed elsewhere
            self._sock.send(f"{word}\n".encode())

    def on_end(self, act: Any) -> None:
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
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP, signal.SIGUSR2})
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
            log.warning("ended; %d exchanges were still live after %g s and were cut", stragglers, self._drain)
        else:
            log.info("ended; nothing was cut")

    def _stop(self, number: signal.Signals) -> None:
        if self._stopped.is_set():
            leave_now(number)
        self._server.drain()
        self._drain = INTERRUPT_DRAIN if number == signal.SIGINT else self._settings.server.drain
        self._stopped.set()
        systemd.stopping(self._drain + 2 * LAST_WORDS + self._settings.timeouts.client)
        log.info("%s: draining, %d exchanges live, at most %g s", number.name, self._server.gateway.live, self._drain)

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
        for sentence in told:
            log.warning("%s", sentence)
        log.info("reloaded %s: %d models, %d keys", self._launch.config, len(settings.models), len(settings.keys))

    def _no_upgrade(self) -> None:
        log.warning("SIGUSR2 replaces workers, and there are none: it needs server.workers of 2 or more")


def run(launch: Launch, link: Link | None = None) -> int:
    """Serve in this process until a signal ends it; the exit code."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(launch, link))


async def _serve(launch: Launch, link: Link | None) -> int:
    asyncio.get_running_loop().set_exception_handler(Faults())
    try:
        server = await Server.start(launch.settings, socks=launch.sockets, alone=launch.alone)
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 2
    await Process(server, launch, link).run()
    return 0
