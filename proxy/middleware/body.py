"""Takes a request's body: its type, its size, its time.

The server hands it over as it came (``auto_decompress=False``): what is compressed is undone here, where it is counted.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from proxy.connection import body_at_hand
from proxy.context import BODY, PLAN, RECORD, endpoint_of
from proxy.errors import InvalidRequest, PayloadTooLarge, TimedOut

if TYPE_CHECKING:
    from aiohttp import StreamReader
    from aiohttp.typedefs import Handler, Middleware

    from proxy.gateway import Plan
    from proxy.observe.record import Record
    from proxy.plain import Plain

_SETTING = "limits.max_body_bytes"
_ENCODINGS = frozenset({"", "identity", "gzip", "x-gzip", "deflate"})
_NOT_ENCODED = "the body is not what its Content-Encoding says"
#: A body that comes slower than this many bytes a second, after `timeouts.client` seconds, is given up.
_PACE = 16 * 1024


def body() -> Middleware:
    """Read the body of an exchange, counted after decompression.  Sets ``BODY``.

    Raises ``InvalidRequest`` (415, 400), ``PayloadTooLarge``, ``TimedOut``.
    """

    @web.middleware
    async def take(request: web.Request, handler: Handler) -> web.StreamResponse:
        endpoint = endpoint_of(request)
        if endpoint is None or not endpoint.exchange:
            return await handler(request)
        kind = request.content_type if "Content-Type" in request.headers else ""
        if kind != "application/json" and not kind.endswith("+json"):
            told = f"not {kind[:80]!r}" if kind else "there is none"
            raise InvalidRequest(f"the Content-Type must be application/json; {told}", status=415)
        encoding = request.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in _ENCODINGS:
            raise InvalidRequest(
                f"the Content-Encoding {encoding[:40]!r} is not known; gzip and deflate are", status=415
            )
        coding = "" if encoding == "identity" else encoding
        request[BODY] = await read(request, request[PLAN], request[RECORD], coding)
        return await handler(request)

    return take


async def read(request: web.Request | Plain, plan: Plan, record: Record, coding: str = "") -> bytes:
    """Read a body that is ``coding``.  Raises ``InvalidRequest``, ``PayloadTooLarge``, ``TimedOut``."""
    data = None if coding else at_hand(request, plan, record)
    if data is None:
        assert isinstance(request, web.Request)  # what is plain is at hand
        data = await _read(request, coding, plan.settings.limits.max_body_bytes, plan.settings.timeouts.client)
        record.body_size = len(data)
    return data


def at_hand(request: web.Request | Plain, plan: Plan, record: Record) -> bytes | None:
    """Take a body that came with its head; None where it must be read.  Raises ``PayloadTooLarge``."""
    data = body_at_hand(request)
    if data is None:
        return None
    if len(data) > plan.settings.limits.max_body_bytes:
        raise PayloadTooLarge(plan.settings.limits.max_body_bytes, _SETTING)
    record.body_size = len(data)
    return data


async def _read(request: web.Request, coding: str, limit: int, patience: float) -> bytes:
    if (request.content_length or 0) > limit:
        raise PayloadTooLarge(limit, _SETTING)
    content = request.content
    if not content.is_eof() and _waits_for_our_word(request):
        # Only now: a body that is refused unread need not be sent.
        transport = request.transport
        if transport is not None:
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    inflate = _Inflate(coding, limit) if coding else None
    try:
        if content.is_eof():
            data = content.read_nowait() if not content.at_eof() else b""
            if len(data) > limit:
                raise PayloadTooLarge(limit, _SETTING)
            data = data if inflate is None else inflate.feed(data)
        else:
            data = await _read_slowly(content, inflate, limit, patience)
    except (HttpProcessingError, web.RequestPayloadError):
        raise InvalidRequest("the body is not valid HTTP") from None
    if inflate is not None:
        inflate.end()
    return data


def _waits_for_our_word(request: web.Request) -> bool:
    # `headers` may have lost it on the way here, so that nobody gives our word before us.
    return any(n.lower() == b"expect" and v.lower() == b"100-continue" for n, v in request.raw_headers)


async def _read_slowly(content: StreamReader, inflate: _Inflate | None, limit: int, patience: float) -> bytes:
    loop = asyncio.get_running_loop()
    began, size, received = loop.time(), 0, 0
    pieces = []
    try:
        async with asyncio.timeout(patience) as clock:
            while piece := await content.readany():
                received += len(piece)
                if inflate is not None:
                    piece = inflate.feed(piece)
                size += len(piece)
                if size > limit or received > limit:
                    raise PayloadTooLarge(limit, _SETTING)
                pieces.append(piece)
                clock.reschedule(began + patience + received / _PACE)
    except TimeoutError:
        raise TimedOut("client", patience, "the request's body did not come") from None
    return b"".join(pieces)


class _Inflate:
    """Undoes gzip and deflate, never further than ``limit`` bytes: a few can stand for gigabytes."""

    def __init__(self, coding: str, limit: int) -> None:
        self._gzip = coding != "deflate"
        self._limit = limit
        self._left = limit
        self._stream: zlib._Decompress | None = None

    def feed(self, data: bytes) -> bytes:
        """Decompress the next bytes.  Raises ``InvalidRequest``, ``PayloadTooLarge``."""
        pieces = []
        while data:
            if self._stream is None or self._stream.eof:  # one gzip member may follow another
                self._stream = zlib.decompressobj(self._window(data[0]))
            try:
                piece = self._stream.decompress(data, self._left + 1)
            except zlib.error:
                raise InvalidRequest(_NOT_ENCODED) from None
            self._left -= len(piece)
            if self._left < 0:
                raise PayloadTooLarge(self._limit, _SETTING)
            pieces.append(piece)
            data = self._stream.unused_data
        return b"".join(pieces)

    def end(self) -> None:
        """The body is over.  Raises ``InvalidRequest`` where its coding is not."""
        if self._stream is not None and not self._stream.eof:
            raise InvalidRequest(_NOT_ENCODED)

    def _window(self, first: int) -> int:
        if self._gzip:
            return zlib.MAX_WBITS | 16
        # RFC 9110 means zlib's framing; some clients send raw deflate.  The first byte tells.
        return zlib.MAX_WBITS if first & 0x0F == 8 else -zlib.MAX_WBITS
