"""Holds every exchange to its key's limits, and to what the process can bear."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from aiohttp import web

from proxy.context import CALLER, PLAN, RECORD, endpoint_of

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

    from proxy.gateway import Gateway, Plan
    from proxy.observe.record import Record
    from proxy.settings import Key
    from proxy.state.limits import Slot


def limits(gateway: Gateway) -> Middleware:
    """Take a slot for an exchange and settle it once, however it ends.

    A request that is refused with a 4xx costs nothing.  Raises ``RateLimited``, ``Overloaded``.
    """

    @web.middleware
    async def hold(request: web.Request, handler: Handler) -> web.StreamResponse:
        endpoint = endpoint_of(request)
        if endpoint is None or not endpoint.exchange:
            return await handler(request)
        record = request[RECORD]
        slot = admit(gateway, request[PLAN], record, request[CALLER])
        refused = False
        try:
            return await handler(request)
        except Exception as exc:
            refused = 400 <= getattr(exc, "status", 500) < 500
            raise
        finally:
            release(gateway, slot, record, refused=refused)

    return hold


def admit(gateway: Gateway, plan: Plan, record: Record, key: Key) -> Slot:
    """Take a slot for an exchange; its answer will say what is left.  Raises ``RateLimited``, ``Overloaded``."""
    now = monotonic()
    slot = gateway.limits.admit(key, plan.settings.limits.max_streams, now)
    if key.requests_per_minute or key.tokens_per_minute:
        record.headers.update(gateway.limits.headers(key, now))
    gateway.metrics.opened()
    return slot


def release(gateway: Gateway, slot: Slot, record: Record, *, refused: bool) -> None:
    """Give the slot back; ``refused`` with a 4xx it costs nothing."""
    gateway.metrics.closed()
    tokens = 0
    if slot.usage is not None:
        read, written, _ = record.tokens
        tokens = read + written
    slot.settle(refused=refused, tokens=tokens, now=monotonic())
