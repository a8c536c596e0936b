"""Takes a request's body: its type, its size, its time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError, HttpProcessingError

from proxy.context import BODY, PLAN, RECORD, endpoint_of
from proxy.errors import InvalidRequest, PayloadTooLarge, TimedOut

if TYPE_CHECKING:
    from aiohttp import StreamReader
    from aiohttp.typedefs import Handler, Middleware

_SETTING = "limits.max_body_bytes"
_ENCODINGS = frozenset({"", "identity", "gzip", "x-gzip", "deflate"})
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
        settings = request[PLAN].settings
        request[BODY] = data = await _read(request, settings.limits.max_body_bytes, settings.timeouts.client)
        record = request[RECORD]
        record.body_size = len(data)
        record.body_at = request.loop.time()
        return await handler(request)

    return take


async def _read(request: web.Request, limit: int, patience: float) -> bytes:
    if (request.content_length or 0) > limit:
        raise PayloadTooLarge(limit, _SETTING)
    content = request.content
    if not content.is_eof() and request.headers.get("Expect", "").lower() == "100-continue":
        # Only now: a body that is refused unread need not be sent.
        transport = request.transport
        if transport is not None:
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    try:
        if content.is_eof():
            data = content.read_nowait() if not content.at_eof() else b""
            if len(data) > limit:
                raise PayloadTooLarge(limit, _SETTING)
            return data
        return await _read_slowly(content, limit, patience)
    except ContentEncodingError:
        raise InvalidRequest("the body is not what its Content-Encoding says") from None
    except (HttpProcessingError, web.RequestPayloadError) as exc:
        if isinstance(exc.__cause__, ContentEncodingError):
            raise InvalidRequest("the body is not what its Content-Encoding says") from None
        raise InvalidRequest("the body is not valid HTTP") from None


async def _read_slowly(content: StreamReader, limit: int, patience: float) -> bytes:
    loop = asyncio.get_running_loop()
    began, size = loop.time(), 0
    pieces = []
    try:
        async with asyncio.timeout(patience) as clock:
            while piece := await content.readany():
                size += len(piece)
                if size > limit:
                    raise PayloadTooLarge(limit, _SETTING)
                pieces.append(piece)
                clock.reschedule(began + patience + size / _PACE)
    except TimeoutError:
        raise TimedOut("client", patience, "the request's body did not come") from None
    return b"".join(pieces)
