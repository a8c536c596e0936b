"""Turns everything that goes wrong into an answer in the client's dialect."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aiohttp import web

from proxy.context import ENDPOINTS, RECORD, Endpoint, Form, endpoint_of
from proxy.dialects import simple_chat
from proxy.dialects.anthropic_messages import errors as anthropic_messages
from proxy.dialects.gemini import errors as gemini
from proxy.dialects.openai_chat import errors as openai_chat
from proxy.dialects.openai_responses import errors as openai_responses
from proxy.errors import GatewayError, InternalError, InvalidRequest, MethodNotAllowed, NotFound, Overloaded

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

    from proxy.gateway import Gateway

log = logging.getLogger(__name__)

OPENAI = Form(openai_chat.body, openai_chat.frame)
SIMPLE = Form(simple_chat.body, simple_chat.frame)
GEMINI = Form(gemini.body, gemini.frame)
ANTHROPIC = Form(anthropic_messages.body, anthropic_messages.frame)
RESPONSES = Form(openai_responses.body, openai_responses.frame)


def failures(gateway: Gateway) -> Middleware:
    """Answer faults: the router's, ours, and those that nobody expected.

    Stands inside the access log, so that its answers are logged, and outside all that can refuse.
    """

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if gateway.draining:
                raise Overloaded("the gateway is shutting down; ask again", headers={"Connection": "close"})
            if request.match_info.http_exception is not None:
                raise _unmatched(request, request.match_info.http_exception)
            return await handler(request)
        except GatewayError as exc:
            return respond(request, exc)
        except web.HTTPException as exc:
            return respond(request, InvalidRequest(exc.reason, status=exc.status))
        except Exception:
            log.exception("request %s failed", request[RECORD].request_id)
            if request[RECORD].answered and request.transport is not None:
                request.transport.abort()  # a second answer would be taken for the next request's
            return respond(request, InternalError(request[RECORD].request_id))

    return answer


def respond(request: web.Request, error: GatewayError) -> web.Response:
    """Tell a fault as a whole answer."""
    record = request[RECORD]
    record.error, record.reason = error.kind, error.reason
    response = web.Response(
        body=form_of(request).body(error, record.request_id),
        status=error.status,
        headers=error.headers,
        content_type="application/json",
    )
    if "Connection" in error.headers:
        response.force_close()
    return response


def form_of(request: web.Request) -> Form:
    """The form of the route that matched; where none did, of those that live nearby."""
    endpoint = endpoint_of(request) or _endpoint_at(request)
    if endpoint is not None:
        return endpoint.form
    path = request.path
    if path.startswith("/v1beta/"):
        return GEMINI
    return OPENAI if path.startswith("/v1/") else SIMPLE


def _endpoint_at(request: web.Request) -> Endpoint | None:
    """Find whose path it is that was asked with the wrong method."""
    if not isinstance(request.match_info.http_exception, web.HTTPMethodNotAllowed):
        return None
    found = None
    for route in request.app.router.routes():
        place = route.get_info()
        pattern = place.get("pattern")
        if place.get("path") == request.path or (pattern is not None and pattern.fullmatch(request.rel_url.raw_path)):
            found = request.app[ENDPOINTS].get(route.handler)  # the last: special paths come after general ones
    return found


def _unmatched(request: web.Request, exc: web.HTTPException) -> GatewayError:
    if isinstance(exc, web.HTTPMethodNotAllowed):
        return MethodNotAllowed(request.method, request.path, sorted(exc.allowed_methods))
    return NotFound(f"there is nothing at {request.path[:200]}")
