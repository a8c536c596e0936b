"""Holds every exchange to its key's limits, and to what the process can bear."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from proxy.context import CALLER, PLAN, RECORD, endpoint_of

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

    from proxy.gateway import Gateway
    from proxy.observe.record import Record


def limits(gateway: Gateway) -> Middleware:
    """Take a slot for an exchange and settle it once, however it ends.

    A request that is refused with a 4xx costs nothing.  Raises ``RateLimited``, ``Overloaded``.
    """

    @web.middleware
    async def hold(request: web.Request, handler: Handler) -> web.StreamResponse:
        endpoint = endpoint_of(request)
        if endpoint is None or not endpoint.exchange:
            return await handler(request)
        record, key = request[RECORD], request[CALLER]
        now = asyncio.get_running_loop().time
        slot = gateway.limits.admit(key, request[PLAN].settings.limits.max_streams, now())
        if key.requests_per_minute or key.tokens_per_minute:
            record.headers.update(gateway.limits.headers(key, now()))
        gateway.metrics.opened()
        refused = False
        try:
            return await handler(request)
        except Exception as exc:
            refused = 400 <= getattr(exc, "status", 500) < 500
            raise
        finally:
            gateway.metrics.closed()
            slot.settle(refused=refused, tokens=_spent(record), now=now())

    return hold


def _spent(record: Record) -> int:
    read, written, _ = record.tokens
    return read + written
