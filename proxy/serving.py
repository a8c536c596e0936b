"""The application on its sockets: started, swapped to new settings, drained and stopped."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aiohttp import web

from proxy import sockets
from proxy.app import GATEWAY, build_app
from proxy.connection import make_server

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from proxy.gateway import Gateway
    from proxy.settings import Settings

#: Seconds in which requests that arrived together with the signal are read, so that they get their answer.
ARRIVED = 0.05
#: Seconds for what has been said to leave the process: error frames to stragglers, 503 to late-comers.
LAST_WORDS = 2.0
#: Seconds between two looks at whether the last bytes have left.
FLUSH_LOOK = 0.02


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
            try:
                await server.stop()
            finally:
                sockets.close(listening)
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
