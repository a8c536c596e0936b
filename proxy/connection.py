"""The client's connection, as aiohttp serves it, with what a gateway needs on top.

Everything that leans on aiohttp's inside is in this module: a request head has a deadline of its
own, requests that are not HTTP get our words instead of aiohttp's text, and a stream can be
written straight to the transport, with no task woken between upstream's read and ours.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.web_request import BaseRequest


class Manners(Protocol):
    """What connections ask of the application; a reload may change the answers."""

    @property
    def head_patience(self) -> float:
        """Seconds that a client has for a request head."""

    def answer_malformed(self, status: int) -> web.Response:
        """Answer what is not HTTP."""


MANNERS: web.AppKey[Manners] = web.AppKey("manners", Manners)


class Connection(RequestHandler):
    """One client connection."""

    __slots__ = ("_manners", "waiting_since", "writable")

    def __init__(self, server: Server, manners: Manners, **kwargs: Any) -> None:
        super().__init__(server, **kwargs)
        self._manners = manners
        #: When the client began to owe us a request head; 0 if it does not.
        self.waiting_since = 0.0
        #: Told when the transport's buffer has drained after it was full.
        self.writable: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.waiting_since = self._loop.time()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._request_in_progress or self._messages:
            self.waiting_since = 0.0
        elif data and not self.waiting_since:
            self.waiting_since = self._loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.writable is not None:
            self.writable()

    def handle_error(
        self, request: BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer what is not HTTP.  aiohttp's own way logs the offending bytes, which may be a key."""
        response = self._manners.answer_malformed(status)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Say nothing: what goes wrong in a handler is logged by the middleware, without the bytes."""


class Server(web.Server):
    """Makes our connections, and closes those that never finish a request head."""

    def __init__(self, manners: Manners, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._manners = manners
        self._sweep: asyncio.TimerHandle | None = None

    def __call__(self) -> RequestHandler:
        if self._sweep is None:
            self._sweep = self._loop.call_later(1, self._close_late)
        return Connection(self, self._manners, loop=self._loop, **self._kwargs)

    def _close_late(self) -> None:
        latest = self._loop.time() - self._manners.head_patience
        connections = self.connections
        for connection in connections:
            if isinstance(connection, Connection) and 0 < connection.waiting_since < latest:
                connection.force_close()
        self._sweep = self._loop.call_later(1, self._close_late) if connections else None


def make_server(app: web.Application, **kwargs: Any) -> Server:
    """Build the server of an application: aiohttp's own, with our connections."""
    plain = app._make_handler(**kwargs)
    return Server(
        app[MANNERS],
        plain.request_handler,
        request_factory=plain.request_factory,
        handler_cancellation=plain.handler_cancellation,
        loop=plain._loop,
        **plain._kwargs,
    )


class Outlet:
    """The client's side of a stream: whole frames go to its transport, at once.

    The head and the first frames leave in one write, through aiohttp; what follows is written
    behind its back, in the framing that it has begun.
    """

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._connection: Any = request.protocol
        self._chunked = request.version >= (1, 1)
        self._writer: Any = None  # aiohttp's StreamWriter
        self._over = False

    async def open(self, response: web.StreamResponse, first: bytes) -> None:
        """Send the head and ``first``, which may be empty."""
        self._writer = await response.prepare(self._request)
        if first:
            await self._writer.write(first, drain=False)
        else:
            self._writer.send_headers()

    def write(self, data: bytes) -> None:
        """Send ``data``; a client that has left takes nothing, and its handler is being cancelled."""
        transport = self._connection.transport
        if transport is None or self._over or transport.is_closing():
            return
        transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def finish(self) -> None:
        """End the body."""
        if self._over or self._writer is None:
            return
        self._over = True
        transport = self._connection.transport
        if transport is not None and not transport.is_closing():
            self._writer.set_eof()

    @property
    def full(self) -> bool:
        """Is the client slower than its stream?"""
        return bool(self._connection.writing_paused)

    def on_writable(self, tell: Callable[[], None] | None) -> None:
        """Have ``tell`` called when the client has caught up."""
        self._connection.writable = tell

    def cut(self) -> None:
        """Drop the connection without ending the body."""
        self._over = True
        if self._connection.transport is not None:
            self._connection.transport.abort()
