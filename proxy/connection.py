"""The client's connection, as aiohttp serves it, with what a gateway needs on top.

Everything that leans on aiohttp's inside is in this module: a request head has a deadline of its
own, requests that are not HTTP get our words instead of aiohttp's text, and plain requests are
served past its parser and its task for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler, _ErrInfo
from multidict import CIMultiDict, CIMultiDictProxy

from proxy import plain
from proxy.plain import Plain

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


class Visit(Protocol):
    """A request to be served past the application."""

    def begin(self, done: Callable[[web.StreamResponse | None], None]) -> None:
        """Serve a plain request.  ``done`` is told its answer, which has left; None where there is none to be had."""

    def leave(self) -> None:
        """The client has left, or must."""

    async def served(self) -> web.StreamResponse:
        """Serve a request that aiohttp has parsed."""


class First(Protocol):
    """Who looks at requests before the application does."""

    @property
    def edition(self) -> object:
        """What a judgement of a head holds for: another one after each change of settings."""

    def take(self, request: web.Request | Plain) -> Visit | None:
        """Look at a request; None where it is the application's."""


FIRST: web.AppKey[First] = web.AppKey("first", First)

_VERSIONS = (HttpVersion10, HttpVersion11)
_BLANK = b"\r\n\r\n"  # the end of a head, and of chunks
#: Bytes that the kernel takes for a client beyond those on their way to it.
_UNSENT = 128 * 1024
#: Bytes of further requests that may wait while one is served.
_MOST_LATER = 64 * 1024


class Connection(RequestHandler):
    """One client connection."""

    __slots__ = (
        "_answer",
        "_body",
        "_first",
        "_full_since",
        "_head",
        "_known",
        "_later",
        "_left",
        "_manners",
        "_plain_only",
        "_unsent",
        "_visit",
        "_visit_over",
        "full",
        "waiting_since",
        "writable",
    )

    def __init__(self, server: Server, manners: Manners, first: First | None, **kwargs: Any) -> None:
        super().__init__(server, **kwargs)
        self._manners = manners
        self._first = first
        self._visit: Visit | None = None  # serves a plain request, past aiohttp
        self._answer: web.StreamResponse | None = None  # that has left, but that its client has not taken yet
        self._visit_over: asyncio.Future[None] | None = None  # where somebody waits for the end of both
        self._later = b""  # what has come meanwhile
        self._known: plain.Head | None = None  # of the last plain request
        self._plain_only = False  # nothing else has come since then
        #: When the client began to owe us a request head; 0 if it does not.
        self.waiting_since = 0.0
        self._head = 0  # bytes of a request head that is not all there yet
        self._body: StreamReader | None = None  # of the latest request
        #: Bytes of that body still to come; None where the parser may have begun with the next head.
        self._left: int | None = 0
        self._full_since = 0.0  # since when the client has taken nothing of what waits for it; 0 if nothing does
        self._unsent = 0  # bytes that waited when it was last looked at
        #: Is the transport's buffer full, since the client is slower than what it is sent?
        self.full = False
        #: Told when that buffer has drained after it was full.
        self.writable: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.waiting_since = monotonic()
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            # Else the kernel takes megabytes for a client that does not read, before anybody here is told.
            with contextlib.suppress(OSError):  # not every kernel knows it
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)

    def data_received(self, data: bytes) -> None:
        if self._visit is not None or self._answer is not None:
            self._keep_for_later(data)
        elif self._first is None or not self._take_plain(data, self._first):
            self._parse(data)

    # Plain requests, past aiohttp's parser, request and task of its own...

    def _take_plain(self, data: bytes, first: First) -> bool:
        """Serve a plain request, if nothing that came before it is still to be done."""
        if self._close or self._force_close or not (self._plain_only or self._is_parser_idle()):
            return False
        known = self._known
        request = known.again(data, self) if known is not None and known.edition is first.edition else None
        if request is None:
            request = plain.read(data, self, self.max_field_size)
            if request is None:
                return False
        visit = first.take(request)
        if visit is None:
            self._known = None
            return False
        self._plain_only = True
        self._known = request.head
        self.waiting_since = 0.0
        self._visit = visit
        visit.begin(self._served)
        return True

    def _is_parser_idle(self) -> bool:
        """Is nothing of what came before still to be done, by the parser or behind it?"""
        if self._messages or self._left != 0:
            return False
        if self._waiter is None and self._request_count:  # aiohttp is not done with the last one
            return False
        return self._body is None or self._body.is_eof()

    def _served(self, answer: web.StreamResponse | None) -> None:
        """The answer has left, in so far as there is one.  The next request may begin here, on the caller's stack."""
        self._visit = None
        if answer is not None and self.full:
            self._answer = answer  # until the client has caught up
            return
        self._answer = None
        if self._visit_over is not None:
            self._visit_over.set_result(None)
            self._visit_over = None
        if self.transport is None or self.transport.is_closing():
            return
        if answer is None or not answer.keep_alive or self._close:
            self.transport.close()
            return
        self._next_keepalive_close_time = close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(close_time, self._process_keepalive)
        if self._later:
            later, self._later = self._later, b""
            self._resume_transport_reading()
            try:
                self.data_received(later)
            except Exception:  # else whoever told us of the end would take it for its own
                log.exception("a request failed before it began")
                self.abort()

    def _keep_for_later(self, data: bytes) -> None:
        self._later += data
        if len(self._later) > _MOST_LATER:
            self._pause_transport_reading()

    def _process_keepalive(self) -> None:
        if self._visit is None and self._answer is None:
            super()._process_keepalive()
        else:  # aiohttp takes us for idle; the end of what we do winds the clock up again
            self._keepalive_handle = None

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self._answer is not None:
            self.full = False
            self._served(self._answer)
        elif self._visit is not None:
            self._visit.leave()

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109  # as aiohttp has it
        self._close = True
        await self._served_by(timeout)
        if self._visit is not None:
            self._visit.leave()
            await self._served_by(timeout)
        await super().shutdown(timeout)

    async def _served_by(self, timeout: float | None) -> None:  # noqa: ASYNC109  # as above
        if self._visit is not None or self._answer is not None:
            self._visit_over = self._loop.create_future()
            await asyncio.wait({self._visit_over}, timeout=timeout)
            self._visit_over = None

    # All others, through it...

    def _parse(self, data: bytes) -> None:
        self._plain_only = False
        # A body's bytes are no head that dawdles, also while no handler is there to read them.
        in_body = self._body is not None and not self._body.is_eof()
        count = self._request_count
        super().data_received(data)
        messages = self._messages
        self._left = self._still_to_come(data, self._request_count - count)
        if messages:
            message, self._body = messages[-1]
            received = self._head + len(data)
            if (
                len(messages) > 1
                or isinstance(message, _ErrInfo)
                or message.version is not HttpVersion11
                or received > self.max_field_size
                or hdrs.EXPECT in message.headers
            ):  # hardly ever
                self._look_at_heads(received)
            self.waiting_since, self._head = 0.0, 0
        elif self._request_in_progress:
            self.waiting_since, self._head = 0.0, 0
        elif data and not in_body:
            self.waiting_since = self.waiting_since or monotonic()
            self._head += len(data)
            if self._head > self.max_field_size and not self._force_close:
                self._messages.append(_fault("a head that is too large"))
                if self._waiter is not None and not self._waiter.done():
                    self._waiter.set_result(None)

    def _still_to_come(self, data: bytes, new: int) -> int | None:
        """Tell from what the parser was fed where it stands, which it keeps to itself.

        ``new`` messages began in ``data``.  What is told may be too little, but never too much.
        """
        left = self._left
        if not new:
            return left - len(data) if left is not None and left >= len(data) else None
        message, body = self._messages[-1]
        if isinstance(message, _ErrInfo):
            return None
        if data.endswith(_BLANK) and body.is_eof():
            return 0  # a head that followed would be all there, and so no longer the parser's
        end, length = data.find(_BLANK), message.headers.get(hdrs.CONTENT_LENGTH)
        if left != 0 or end < 0 or length is None:
            return None
        left = int(length) - (len(data) - end - len(_BLANK))
        return left if left >= 0 else None

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
        self.full = True
        self._full_since = monotonic()
        self._unsent = 0

    def resume_writing(self) -> None:
        super().resume_writing()
        self.full = False
        self._full_since = 0.0
        if self._answer is not None:
            self._served(self._answer)
        elif self.writable is not None:
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
        if self.transport is None:
            return False
        before, self._unsent = self._unsent, self.transport.get_write_buffer_size()
        if not self._unsent:
            self._full_since = 0.0
            return False
        if self._unsent < before or not self._full_since:
            self._full_since = now  # slow, but it reads; or too little waits for anybody to be told
        return bool(before) and now - self._full_since > patience  # a first look cannot know

    async def caught_up(self) -> None:
        """Wait until the client has taken most of what it was sent.  Raises ``ConnectionError`` if it leaves."""
        await self._drain_helper()

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

    def __init__(self, manners: Manners, first: First | None, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._manners = manners
        self._first = first
        self._sweep: asyncio.TimerHandle | None = None

    def __call__(self) -> RequestHandler:
        if self._sweep is None:
            self._sweep = self._loop.call_later(1, self._close_late)
        return Connection(self, self._manners, self._first, loop=self._loop, **self._kwargs)

    def _close_late(self) -> None:
        now, patience = monotonic(), self._manners.patience
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
    ordinary = app._make_handler(auto_decompress=False, **kwargs)
    first = app.get(FIRST)

    async def handle(request: web.Request) -> web.StreamResponse:
        visit = first.take(request) if first is not None else None
        return await (visit.served() if visit is not None else ordinary.request_handler(request))

    return Server(
        app[MANNERS],
        first,
        handle,
        request_factory=ordinary.request_factory,
        handler_cancellation=ordinary.handler_cancellation,
        loop=ordinary._loop,
        **ordinary._kwargs,
    )


def body_at_hand(request: web.Request | Plain) -> bytes | None:
    """Take a body that came together with its head; None where it must be waited for.

    aiohttp's own way looks for more to parse each time, in case reading had been stopped.
    """
    if isinstance(request, Plain):
        return request.body
    content = request.content
    if not content.is_eof() or content.exception() is not None or request.protocol._reading_paused:
        return None
    buffer = getattr(content, "_buffer", None)  # a request without a body has none
    if not buffer or len(buffer) > 1 or content._http_chunk_splits is not None:
        return None
    data: bytes = buffer.popleft()
    content._size = 0
    content._cursor += len(data)
    return data
