"""Answers on their way to the client's transport, rendered by us: in one write, with no task woken between.

aiohttp's responses, writers and signals cost as much as asking a provider.  It is handed what has left already.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import HttpVersion11, web
from aiohttp.helpers import rfc822_formatted_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.web_request import BaseRequest

    from proxy.connection import Connection
    from proxy.plain import Plain


class Sent(web.StreamResponse):
    """An answer that has left already: aiohttp waits for its client, and does nothing else."""

    def __init__(self, status: int, keep_alive: bool, connection: Connection) -> None:
        self._status = status
        self._keep_alive = keep_alive
        self._connection = connection

    async def prepare(self, request: BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        if self._connection.full:
            await self._connection.caught_up()


_REASONS = {status.value: status.phrase for status in HTTPStatus}
#: Bytes from which on two writes cost less than a copy.
_LARGE = 64 * 1024


def send_whole(request: web.Request | Plain, status: int, head: str, body: bytes, *, close: bool = False) -> Sent:
    """Answer with ``body``, in one write with its head; ``head`` are header lines, without those of the framing."""
    connection: Connection = request.protocol  # type: ignore[assignment]  # we serve no others
    start = _start(request, status, head, f"Content-Length: {len(body)}\r\n", keep := request.keep_alive and not close)
    transport = connection.transport
    if transport is not None and not transport.is_closing():
        if len(body) < _LARGE:
            transport.write(start + body)
        else:
            transport.write(start)  # asyncio's `writelines` tells nobody that a client is behind (CVE-2024-12254)
            transport.write(body)
    return Sent(status, keep, connection)


def _start(request: web.Request | Plain, status: int, head: str, framing: str, keep: bool) -> bytes:
    if request.version >= HttpVersion11:
        line, connection = "HTTP/1.1", "" if keep else "Connection: close\r\n"
    else:
        line, connection = "HTTP/1.0", "Connection: keep-alive\r\n" if keep else ""
    return (
        f"{line} {status} {_REASONS[status]}\r\n{head}{framing}Date: {rfc822_formatted_time()}\r\n{connection}\r\n"
    ).encode("utf-8", "replace")


#: How chunks begin: to write a number costs more than the rest of it.
_SIZES = tuple(b"%x\r\n" % size for size in range(1024))


def _chunk(data: bytes) -> bytes:
    size = len(data)
    return (_SIZES[size] if size < len(_SIZES) else b"%x\r\n" % size) + data + b"\r\n"


class Outlet:
    """The client's side of a stream: whole frames go to its transport, at once.

    Its head and first frames leave in one write.
    """

    __slots__ = ("_chunked", "_connection", "_open", "_over", "_request")

    def __init__(self, request: web.Request | Plain) -> None:
        self._request = request
        self._connection: Connection = request.protocol  # type: ignore[assignment]  # we serve no others
        self._chunked = request.version >= HttpVersion11
        self._open = False
        self._over = False

    def open(self, head: str, first: bytes, *, last: bool = False) -> Sent:
        """Send the head of a stream and ``first``, which may be empty, or is the whole body if ``last``."""
        keep = self._chunked and self._request.keep_alive  # else the connection's end is the body's
        start = _start(self._request, 200, head, "Transfer-Encoding: chunked\r\n" if self._chunked else "", keep)
        self._open, self._over = True, last
        transport = self._connection.transport
        if transport is not None and not transport.is_closing():
            transport.write(start + self._framed(first, last=last))
        return Sent(200, keep, self._connection)

    def _framed(self, data: bytes, *, last: bool) -> bytes:
        if not self._chunked:
            return data
        chunk = _chunk(data) if data else b""  # an empty one would be the end
        return chunk + b"0\r\n\r\n" if last else chunk

    def write(self, data: bytes, *, last: bool = False) -> bool:
        """Send ``data``, and say whether the client is now slower than its stream.

        ``last`` ends the body in the same write.  A client that has left takes nothing, and whoever
        serves it is told.
        """
        connection = self._connection
        transport = connection.transport
        if transport is None or self._over or transport.is_closing():
            return False
        if last:
            self._over = True
            transport.write(self._framed(data, last=True))
        else:
            transport.write(_chunk(data) if self._chunked else data)
        return connection.full

    def finish(self) -> None:
        """End the body."""
        if self._over or not self._open:
            return
        self._over = True
        transport = self._connection.transport
        if self._chunked and transport is not None and not transport.is_closing():
            transport.write(b"0\r\n\r\n")

    @property
    def full(self) -> bool:
        """Is the client slower than its stream?"""
        return self._connection.full

    def stalled(self, now: float, patience: float) -> bool:
        """Has the client taken nothing in ``patience`` seconds, although there is something for it?"""
        return self._connection.stalled(now, patience)

    def on_writable(self, tell: Callable[[], None] | None) -> None:
        """Have ``tell`` called when the client has caught up."""
        self._connection.writable = tell

    def cut(self) -> None:
        """Drop the connection without ending the body."""
        self._over = True
        self._connection.abort()
