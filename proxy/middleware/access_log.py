"""Settles every request once, at its end: one log line, and the metrics."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from aiohttp import web

from proxy.context import RECORD

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

    from proxy.gateway import Gateway
    from proxy.observe.record import Record

CLIENT_GONE = 499  # nginx's word for a client that left before its answer


def access_log(gateway: Gateway) -> Middleware:
    """Write one line about each request, whatever became of it.

    Outcomes: `ok`, `refused` (4xx), `failed` (5xx, or a fault told in a stream), `client_gone`, `client_stalled`.
    """

    @web.middleware
    async def settle(request: web.Request, handler: Handler) -> web.StreamResponse:
        record = request[RECORD]
        status = CLIENT_GONE
        try:
            response = await handler(request)
            status = response.status
            return response
        except asyncio.CancelledError:
            record.outcome = record.outcome or "client_gone"
            raise
        finally:
            close(gateway, record, request.method, status)

    return settle


def close(gateway: Gateway, record: Record, method: str, status: int) -> None:
    """Note a request that is over."""
    if not record.outcome:
        record.outcome = "ok" if status < 400 else "refused" if status < 500 else "failed"
    now = monotonic()
    gateway.metrics.settle(record, status, now)
    gateway.access_log.settle(record, method, record.route, status, now)
