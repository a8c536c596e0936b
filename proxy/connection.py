"""The client's connection, as aiohttp serves it, with what a gateway needs on top.

Everything that leans on aiohttp's inside is in this module: a request head has a deadline of its
own, requests that are not HTTP get our words instead of aiohttp's text, and a stream can be
written straight to the transport, with no task woken between upstream's read and ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler, _ErrInfo
from multidict import CIMultiDict, CIMultiDictProxy

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import StreamReader
    from aiohttp.http import RawRequestMessage
    from aiohttp.web_request import BaseRequest

log = logging.getLogger(__name__)


class Manners(Protocol):
    """What connections ask of the application; a reload may change the answers."""

    @property
    def patience(self) -> float:
        """Seconds that a client has to send a request head, or to read what it is sent."""

    def answer_malformed(self, request: BaseRequest, status: int) -> web.Response:
        """Answer what is not HTTP, and (``status`` 500) what failed outside of every middleware."""


MANNERS: web.AppKey[Manners] = web.AppKey("manners", Manners)

_VERSIONS = (HttpVersion10, HttpVersion11)
#: Bytes that the kernel takes for a client beyond those on their way to it.
_UNSENT = 128 * 1024


class Connection(RequestHandler):
    """One client connection."""

    __slots__ = ("_body", "_full_since", "_head", "_manners", "_unsent", "waiting_since", "writable")

    def __init__(self, server: Server, manners: Manners, **kwargs: Any) -> None:
        super().__init__(server, **kwargs)
        self._manners = manners
        #: When the client began to owe us a request head; 0 if it does not.
        self.waiting_since = 0.0
        self._head = 0  # bytes of a request head that is not all there yet
        self._body: StreamReader | None = None  # of the latest request
        self._full_since = 0.0  # since when the client has taken nothing of a full buffer; 0 if there is none
        self._unsent = 0  # bytes in that buffer when it was last looked at
        #: Told when the transport's buffer has drained after it was full.
        self.writable: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.waiting_since = self._loop.time()
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            # Else the kernel takes megabytes for a client that does not read, before anybody here is told.
            with contextlib.suppress(OSError):  # not every kernel knows it
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)

    def data_received(self, data: bytes) -> None:
        # A body's bytes are no head that dawdles, also while no handler is there to read them.
        in_body = self._body is not None and not self._body.is_eof()
        super().data_received(data)
        if self._messages:
            self._look_at_heads(self._head + len(data))
            self._body = self._messages[-1][1]
        if self._request_in_progress or self._messages:
            self.waiting_since, self._head = 0.0, 0
        elif data and not in_body:
            self.waiting_since = self.waiting_since or self._loop.time()
            self._head += len(data)
            if self._head > self.max_field_size and not self._force_close:
                self._messages.append(_fault("a head that is too large"))
                if self._waiter is not None and not self._waiter.done():
                    self._waiter.set_result(None)

    def _look_at_heads(self, received: int) -> None:
        messages = self._messages
        for at, (message, _) in enumerate(messages):
            if isinstance(message, _ErrInfo):
                self._spoil_bodies()
                continue
            if message.version not in _VERSIONS:
                # The parser knows HTTP/0.9 and 2.0, and answers would claim to be that.
                messages[at] = _fault("an HTTP version that is not spoken here")
            elif received > self.max_field_size and _size(message) > self.max_field_size:
                # The parser's limit is for each header alone.
                messages[at] = _fault("a head that is too large")
            elif hdrs.EXPECT in message.headers:
                # aiohttp would ask for the body before anybody has looked at the head.  `raw_headers` still tell.
                rest = CIMultiDict(message.headers)
                del rest[hdrs.EXPECT]
                messages[at] = (message._replace(headers=CIMultiDictProxy(rest)), messages[at][1])

    def _spoil_bodies(self) -> None:
        """The parser has given up, maybe inside a body: whoever waits for more of that would do so in vain."""
        bodies = [payload for _, payload in self._messages]
        if self._current_request is not None:
            bodies.append(self._current_request.content)
        for payload in bodies:
            if not payload.is_eof() and payload.exception() is None:
                payload.set_exception(web.RequestPayloadError("not valid HTTP"))

    def pause_writing(self) -> None:
        super().pause_writing()
        self._full_since = self._loop.time()
        self._unsent = 0

    def resume_writing(self) -> None:
        super().resume_writing()
        self._full_since = 0.0
        if self.writable is not None:
            self.writable()

    def handle_error(
        self, request: BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer what is not HTTP.  aiohttp's own way logs the offending bytes, which may be a key."""
        response = self._manners.answer_malformed(request, status)
        if status >= 500:
            log.error("request %s failed outside of its middleware", response.headers["x-request-id"], exc_info=exc)
        response.force_close()
        return response

    def stalled(self, now: float, patience: float) -> bool:
        """Has the client taken nothing of what waits for it in ``patience`` seconds?  Those who ask look often."""
        if not self._full_since or self.transport is None:
            return False
        before, self._unsent = self._unsent, self.transport.get_write_buffer_size()
        if self._unsent < before:
            self._full_since = now  # slow, but it reads
        return bool(before) and now - self._full_since > patience  # a first look cannot know

    def abort(self) -> None:
        """Drop the connection with whatever its buffers hold."""
        if self.transport is not None:
            self.transport.abort()

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Say nothing: what goes wrong in a handler is logged by the middleware, without the bytes."""


def _fault(what: str) -> tuple[_ErrInfo, StreamReader]:
    """What the parser would have said."""
    fault = BadHttpMessage(what)
    return _ErrInfo(status=400, exc=fault, message=fault.message), EMPTY_PAYLOAD


def _size(message: RawRequestMessage) -> int:
    return len(message.path) + sum(len(name) + len(value) + 4 for name, value in message.raw_headers)


class Server(web.Server):
    """Makes our connections, and drops those that never finish a request head or never read their answer."""

    def __init__(self, manners: Manners, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._manners = manners
        self._sweep: asyncio.TimerHandle | None = None

    def __call__(self) -> RequestHandler:
        if self._sweep is None:
            self._sweep = self._loop.call_later(1, self._close_late)
        return Connection(self, self._manners, loop=self._loop, **self._kwargs)

    def _close_late(self) -> None:
        now, patience = self._loop.time(), self._manners.patience
        connections = self.connections
        for connection in connections:
            if not isinstance(connection, Connection):
                continue
            late = 0 < connection.waiting_since < now - patience
            # A stream looks after its client itself, and counts it.
            if late or (connection.writable is None and connection.stalled(now, patience)):
                connection.abort()
        self._sweep = self._loop.call_later(1, self._close_late) if connections else None


def make_server(app: web.Application, **kwargs: Any) -> Server:
    """Build the server of an application: aiohttp's own, with our connections."""
    # Bodies are decompressed where they are counted; the parser would also call encodings that it lacks malformed.
    plain = app._make_handler(auto_decompress=False, **kwargs)
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

    async def open(self, response: web.StreamResponse, first: bytes, *, last: bool = False) -> None:
        """Send the head and ``first``, which may be empty, or is the whole body if ``last``."""
        response._send_headers_immediately = False  # they leave with what is written next
        self._writer = await response.prepare(self._request)
        if last:
            self._over = True
            await self._writer.write_eof(first)
        elif first:
            await self._writer.write(first, drain=False)
        else:
            self._writer.send_headers()

    def write(self, data: bytes, *, last: bool = False) -> None:
        """Send ``data``; a client that has left takes nothing, and its handler is being cancelled.

        ``last`` ends the body in the same write.
        """
        transport = self._connection.transport
        if transport is None or self._over or transport.is_closing():
            return
        if last:
            self._over = True
            self._writer._eof = True  # as `set_eof` would, which would write once more
            transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if self._chunked else data)
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

    def stalled(self, now: float, patience: float) -> bool:
        """Has the client taken nothing in ``patience`` seconds, although there is something for it?"""
        return bool(self._connection.stalled(now, patience))

    def on_writable(self, tell: Callable[[], None] | None) -> None:
        """Have ``tell`` called when the client has caught up."""
        self._connection.writable = tell

    def cut(self) -> None:
        """Drop the connection without ending the body."""
        self._over = True
        if self._connection.transport is not None:
            self._connection.transport.abort()
