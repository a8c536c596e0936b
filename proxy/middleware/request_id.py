"""Gives every request an id, and every answer the headers that say how it came about."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from aiohttp import web

from proxy.context import PLAN, RECORD
from proxy.observe.record import Record, new_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.typedefs import Handler, Middleware

    from proxy.context import Endpoint
    from proxy.gateway import Gateway

_ANTHROPIC = frozenset({"messages", "count_tokens"})
_SANE = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def request_id(gateway: Gateway, endpoints: Mapping[object, Endpoint]) -> Middleware:
    """Begin a request: the configuration that it will keep, its record, its id.

    The client's `x-request-id` is taken if it is sane.  Sets ``PLAN`` and ``RECORD``.
    """

    @web.middleware
    async def begin(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[PLAN] = gateway.plan
        given = request.headers.get("X-Request-ID")
        if given is None or not _SANE.fullmatch(given):
            given = new_id()
        endpoint = endpoints.get(request.match_info.handler)
        now = asyncio.get_running_loop().time()
        request[RECORD] = Record(given, now, endpoint.name if endpoint else "", endpoint)
        gateway.entered()
        try:
            return await handler(request)
        finally:
            gateway.left()

    return begin


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Say on every answer which request it belongs to, who answered, and how long what took."""
    record = request.get(RECORD)
    headers = response.headers
    headers["Server"] = "ai-proxy"
    if record is None:
        return
    headers["x-request-id"] = record.request_id
    if record.route in _ANTHROPIC:
        headers["request-id"] = record.request_id  # where Anthropic's SDK looks for it
    if record.headers:
        headers.update(record.headers)
    now = asyncio.get_running_loop().time()
    timing = f"total;dur={(now - record.began) * 1000:.1f}"
    if record.sent_at:
        first = record.first_frame_at or now
        timing = (
            f"gateway;dur={(record.sent_at - record.began) * 1000:.1f}, "
            f"upstream;dur={(first - record.sent_at) * 1000:.1f}, {timing}"
        )
    headers["Server-Timing"] = timing
