"""The short way in, for exchanges about which nothing is unusual.

aiohttp's application costs a small request more than asking a provider does: its router, seven
coroutines one inside the other, its signals.  What those middlewares do are plain functions, and here
they are called in the same order.  Whatever is unusual or must be refused is left untouched to the
application, which knows how to say so.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from proxy import answers
from proxy.context import Exchange
from proxy.errors import GatewayError, InternalError
from proxy.handlers import serve
from proxy.middleware.access_log import CLIENT_GONE, close
from proxy.middleware.auth import identify
from proxy.middleware.body import at_hand, read
from proxy.middleware.limits import admit, release
from proxy.middleware.request_id import record_of

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from aiohttp import web

    from proxy.context import Endpoint
    from proxy.gateway import Gateway
    from proxy.handlers import Ask
    from proxy.plain import Plain

log = logging.getLogger(__name__)

_JSON = ("application/json", "application/json; charset=utf-8")


class Express:
    """Looks at every request before the application does; ``doors`` are the paths of exchanges."""

    def __init__(self, gateway: Gateway, doors: Mapping[str, tuple[Ask, Endpoint]]) -> None:
        self._gateway = gateway
        # The text of a pattern is a path that somebody may ask for, and nothing is there.
        self._doors = {path: door for path, door in doors.items() if "{" not in path}

    def take(self, request: web.Request | Plain) -> Coroutine[Any, Any, web.StreamResponse] | None:
        """Serve a request; None where it is the application's."""
        door = self._doors.get(request.raw_path)
        plan = self._gateway.plan
        headers = request.headers
        if (
            door is None
            or request.method != "POST"
            or self._gateway.draining
            or plan.guarded
            or headers.get("Content-Type") not in _JSON
            or "Content-Encoding" in headers
        ):
            return None
        try:
            key = identify(headers, plan)
        except GatewayError:
            return None
        ask, endpoint = door
        record = record_of(request, endpoint)
        record.key = key.name
        return self._serve(Exchange(request, self._gateway, plan, record, key, endpoint, b""), ask)

    async def _serve(self, exchange: Exchange, ask: Ask) -> web.StreamResponse:
        gateway, plan, record, request = exchange.gateway, exchange.plan, exchange.record, exchange.request
        gateway.entered()
        slot, refused, status = None, False, CLIENT_GONE
        try:
            slot = admit(gateway, plan, record, exchange.key)
            body = at_hand(request, plan, record)
            exchange.body = await read(request, plan, record) if body is None else body
            response = await serve(exchange, ask)
            status = response.status
            return response
        except GatewayError as exc:
            status = exc.status
            refused = 400 <= status < 500
            return answers.refusal(exchange, exc)
        except asyncio.CancelledError:
            record.outcome = record.outcome or "client_gone"
            raise
        except Exception:
            log.exception("request %s failed", record.request_id)
            if record.answered and (transport := request.protocol.transport) is not None:
                transport.abort()  # a second answer would be taken for the next request's
            error = InternalError(record.request_id)
            status = error.status
            return answers.refusal(exchange, error)
        finally:
            if slot is not None:
                release(gateway, slot, record, refused=refused)
            close(gateway, record, "POST", status)
            gateway.left()
