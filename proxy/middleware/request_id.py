"""Gives every request an id, and every answer the headers that say how it came about."""

from __future__ import annotations

import re
from time import monotonic
from typing import TYPE_CHECKING

from aiohttp import web

from proxy import answers
from proxy.context import PLAN, RECORD
from proxy.observe.record import Record, new_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.typedefs import Handler, Middleware

    from proxy.context import Endpoint
    from proxy.gateway import Gateway
    from proxy.plain import Plain

_SANE = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def request_id(gateway: Gateway, endpoints: Mapping[object, Endpoint]) -> Middleware:
    """Begin a request: the configuration that it will keep, its record, its id.

    The client's `x-request-id` is taken if it is sane.  Sets ``PLAN`` and ``RECORD``.
    """

    @web.middleware
    async def begin(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[PLAN] = gateway.plan
        request[RECORD] = record_of(request, endpoints.get(request.match_info.handler))
        gateway.entered()
        try:
            return await handler(request)
        finally:
            gateway.left()

    return begin


def record_of(request: web.Request | Plain, endpoint: Endpoint | None) -> Record:
    """Begin what is remembered of a request."""
    given = request.headers.get("X-Request-ID")
    if given is None or not _SANE.fullmatch(given):
        given = new_id()
    return Record(given, monotonic(), endpoint.name if endpoint else "", endpoint)


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Say on every answer which request it belongs to, who answered, and how long what took."""
    headers = response.headers
    headers["Server"] = answers.SERVER
    if (record := request.get(RECORD)) is not None:
        headers.update(answers.told(record))
