"""The short way in, for exchanges about which nothing is unusual.

aiohttp's application costs a small request more than asking a provider does: its router, seven
coroutines one inside the other, its signals.  What those middlewares do are plain functions, and here
they are called in the same order, with no task.  Whatever is unusual or must be refused is left untouched
to the application, which knows how to say so.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from proxy import answers
from proxy.context import Exchange
from proxy.errors import GatewayError, InternalError
from proxy.handlers import begin, serve
from proxy.middleware.access_log import CLIENT_GONE, close
from proxy.middleware.auth import identify
from proxy.middleware.body import at_hand, read
from proxy.middleware.limits import admit, release
from proxy.middleware.request_id import record_of
from proxy.plain import Plain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiohttp import web

    from proxy.attempt import Attempt
    from proxy.context import Endpoint
    from proxy.gateway import Gateway, Plan
    from proxy.handlers import Ask
    from proxy.settings import Key
    from proxy.state.limits import Slot

    #: Whose request it is, what reads it, and what is known of its path.
    Judgement = tuple[Key, Ask, Endpoint]

log = logging.getLogger(__name__)

_JSON = ("application/json", "application/json; charset=utf-8")


class Express:
    """Looks at every request before the application does; ``doors`` are the paths of exchanges."""

    def __init__(self, gateway: Gateway, doors: Mapping[str, tuple[Ask, Endpoint]]) -> None:
        self._gateway = gateway
        # The text of a pattern is a path that somebody may ask for, and nothing is there.
        self._doors = {path: door for path, door in doors.items() if "{" not in path}

    @property
    def edition(self) -> object:
        """What a judgement of a head holds for: another one after each change of settings."""
        return self._gateway.plan.edition

    def take(self, request: web.Request | Plain) -> Visit | None:
        """Look at a request; None where it is the application's."""
        plan = self._gateway.plan
        judged = request.judged if isinstance(request, Plain) else None
        if judged is None:
            judged = self._judge(request, plan)
            if judged is None:
                return None
            if isinstance(request, Plain):
                request.remember(judged, plan.edition)
        key, ask, endpoint = judged
        if self._gateway.draining or (key.expires is not None and datetime.now(UTC) >= key.expires):
            return None
        record = record_of(request, endpoint)
        record.key = key.name
        return Visit(Exchange(request, self._gateway, plan, record, key, endpoint, b""), ask)

    def _judge(self, request: web.Request | Plain, plan: Plan) -> Judgement | None:
        """Who asks for what, as a head tells it; None where it is the application's."""
        door = self._doors.get(request.raw_path)
        headers = request.headers
        if (
            door is None
            or request.method != "POST"
            or plan.guarded
            or headers.get("Content-Type") not in _JSON
            or "Content-Encoding" in headers
        ):
            return None
        try:
            return identify(headers, plan), *door
        except GatewayError:
            return None


class Visit:
    """One exchange on the short way, from its admission to its settlement."""

    _slot: Slot | None = None
    _attempt: Attempt | None = None
    _done: Callable[[web.StreamResponse | None], None] | None = None

    def __init__(self, exchange: Exchange, ask: Ask) -> None:
        self._exchange = exchange
        self._ask = ask

    def begin(self, done: Callable[[web.StreamResponse | None], None]) -> None:
        """Serve a plain request.  ``done`` is told its answer, which has left; None where there is none to be had."""
        self._done = done
        exchange = self._exchange
        exchange.gateway.entered()
        try:
            self._slot = admit(exchange.gateway, exchange.plan, exchange.record, exchange.key)
            exchange.body = at_hand(exchange.request, exchange.plan, exchange.record) or b""
            self._attempt = begin(exchange, self._ask, self._ended)
        except Exception as exc:
            self._ended(exc)

    def leave(self) -> None:
        """The client has left, or must."""
        if self._attempt is not None:
            self._attempt.leave()

    def _ended(self, result: web.StreamResponse | Exception | None) -> None:
        done, self._done = self._done, None
        assert done is not None
        response = None
        try:
            response = self._settle(result)
        except Exception:
            log.exception("request %s failed outside of its handler", self._exchange.record.request_id)
        done(response)

    async def served(self) -> web.StreamResponse:
        """Serve a request that aiohttp has parsed."""
        exchange = self._exchange
        exchange.gateway.entered()
        result: web.StreamResponse | Exception | None = None
        try:
            self._slot = admit(exchange.gateway, exchange.plan, exchange.record, exchange.key)
            exchange.body = await read(exchange.request, exchange.plan, exchange.record)
            result = await serve(exchange, self._ask)
        except asyncio.CancelledError:
            self._settle(None)
            raise
        except Exception as exc:
            result = exc
        response = self._settle(result)
        assert response is not None
        return response

    def _settle(self, result: web.StreamResponse | Exception | None) -> web.StreamResponse | None:
        """Note a request that is over; what went wrong is told its client."""
        gateway, record = self._exchange.gateway, self._exchange.record
        status, refused = CLIENT_GONE, False
        try:
            if isinstance(result, Exception):
                error = result if isinstance(result, GatewayError) else self._mistake(result)
                status = error.status
                refused = 400 <= status < 500
                result = answers.refusal(self._exchange, error)
            elif result is not None:
                status = result.status
            else:
                record.outcome = record.outcome or "client_gone"
            return result
        finally:
            gateway.left()
            if self._slot is not None:
                release(gateway, self._slot, record, refused=refused)
            close(gateway, record, "POST", status)

    def _mistake(self, exc: Exception) -> GatewayError:
        record = self._exchange.record
        log.error("request %s failed", record.request_id, exc_info=exc)
        if record.answered and (transport := self._exchange.request.protocol.transport) is not None:
            transport.abort()  # a second answer would be taken for the next request's
        return InternalError(record.request_id)
