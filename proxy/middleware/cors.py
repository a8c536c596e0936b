"""Lets web pages and editors use the gateway: one policy for every path, origins by pattern.

https://fetch.spec.whatwg.org/#http-cors-protocol

aiohttp-cors decides what an answer says to a listed origin; `Everywhere` tells it that the one policy
covers every request.  Three of its ways are not ours, and are mended here:

- under ``*`` it repeats the request's Origin and is silent without one: `install` sends the literal ``*``;
- it never says ``Vary``, so a shared cache could hand one page's answer to another: `install` says it;
- its preflights are 200 or 403, per route, with header names in random order: `preflights` answers instead.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NoReturn

from aiohttp import hdrs, web
from aiohttp_cors import CorsConfig, ResourceOptions
from aiohttp_cors.abc import AbstractRouterAdapter

from proxy.pages import EXPOSED, Origins

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from aiohttp.typedefs import Handler, Middleware
    from multidict import CIMultiDict

    #: The policy for a request, asked for each answer: a reload may have changed it.  None: no request could be read.
    OriginsOf = Callable[[web.Request | None], "Origins"]
    #: The methods that a request's path has; None where there is no such path.
    MethodsOf = Callable[[web.Request], Collection[str] | None]

_MAX_AGE = "86400"  # seconds; browsers cut it to what they like
#: A preflight's answer grows with what it asks for: no page needs more names, nor longer ones.
_MAX_NAMES = 64
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_ALWAYS = ("authorization", "content-type")  # by name: a ``*`` does not cover authorization
_ANY_METHOD = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")


# What every answer says...


def install(app: web.Application, origins: OriginsOf) -> None:
    """Put the policy on every answer that ``app`` prepares: errors, unknown paths and streams too."""

    async def mark(request: web.Request, response: web.StreamResponse) -> None:
        headers = response.headers
        if origins(request).any:
            headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = "*"
            headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = EXPOSED
            return
        # The library, next in line, asserts that nobody spoke before it; `headers_for` may have, on an error's answer.
        headers.popall(hdrs.ACCESS_CONTROL_ALLOW_ORIGIN, None)
        headers.popall(hdrs.ACCESS_CONTROL_EXPOSE_HEADERS, None)
        headers.popall(hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS, None)
        _vary_by_origin(headers)

    app.on_response_prepare.append(mark)
    CorsConfig(app, router_adapter=Everywhere(origins))


def _vary_by_origin(headers: CIMultiDict[str]) -> None:
    """Say so whether the origin matched or not: a cache must not keep a refusal for others either."""
    if hdrs.VARY not in headers:
        headers[hdrs.VARY] = hdrs.ORIGIN
        return
    told = ", ".join(headers.getall(hdrs.VARY))
    if {"*", "origin"}.isdisjoint(name.strip().lower() for name in told.split(",")):
        headers[hdrs.VARY] = f"{told}, {hdrs.ORIGIN}"


class Everywhere(AbstractRouterAdapter):
    """Tells aiohttp-cors that one policy covers every request, whatever the router made of it."""

    #: One name, which is all of them: the library joins a set, so several would come in random order.
    ANSWER: Final = ResourceOptions(expose_headers=(EXPOSED,))  # type: ignore[no-untyped-call]

    def __init__(self, origins: OriginsOf) -> None:
        self._origins = origins

    def is_cors_enabled_on_request(self, request: web.Request) -> bool:
        return not self._origins(request).any  # under ``*`` the answer is already marked

    def is_preflight_request(self, request: web.Request) -> bool:
        return False  # `preflights` grants methods and names; the Origin is answered as everybody's

    def get_non_preflight_request_config(self, request: web.Request) -> dict[str, ResourceOptions]:
        origin = request.headers.get(hdrs.ORIGIN, "")
        return {origin: self.ANSWER} if self._origins(request).match(origin) else {}

    async def get_preflight_request_config(
        self, preflight_request: web.Request, origin: str, requested_method: str
    ) -> dict[str, ResourceOptions]:
        return self.get_non_preflight_request_config(preflight_request)

    def add_preflight_handler(self, routing_entity: Any, handler: Any, webview: bool = False) -> NoReturn:
        raise TypeError("one policy covers every path; none can be added")

    def set_config_for_routing_entity(self, routing_entity: Any, config: Any) -> NoReturn:
        raise TypeError("one policy covers every path; none can be added")


# What a preflight is told...


def allowed_methods(request: web.Request) -> Collection[str] | None:
    """What the application's router says of the request's path."""
    match = request.match_info
    refusal = match.http_exception
    if isinstance(refusal, web.HTTPMethodNotAllowed):
        return refusal.allowed_methods
    if refusal is not None or (resource := match.route.resource) is None:
        return None
    methods = {route.method for route in resource}
    return _ANY_METHOD if hdrs.METH_ANY in methods else methods


def preflights(origins: OriginsOf, methods_of: MethodsOf = allowed_methods) -> Middleware:
    """Answer OPTIONS for every known path; unknown ones go on, to become the usual 404.

    Stands outside of whatever asks for a key: browsers send preflights without one.
    """

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == hdrs.METH_OPTIONS and (methods := methods_of(request)) is not None:
            return preflight(request, methods, origins(request))
        return await handler(request)

    return answer


def preflight(request: web.Request, methods: Collection[str], origins: Origins) -> web.Response:
    """The 204 for an OPTIONS request to a path with these methods.

    It never refuses: a method that the path lacks gets its 405 from the request itself, which a page can
    read, and an origin that is not listed learns that from the missing headers.
    """
    allow = ", ".join(sorted({*methods, hdrs.METH_OPTIONS}))
    headers = {
        hdrs.ALLOW: allow,
        hdrs.VARY: f"{hdrs.ACCESS_CONTROL_REQUEST_METHOD}, {hdrs.ACCESS_CONTROL_REQUEST_HEADERS}",
    }
    origin = request.headers.get(hdrs.ORIGIN)
    method = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_METHOD)
    if (origin is not None or method is not None) and origins.match(origin or ""):
        known = method is None or method in methods or not _TOKEN.fullmatch(method)
        headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = allow if known else f"{allow}, {method}"
        headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = _names_asked_for(request)
        headers[hdrs.ACCESS_CONTROL_MAX_AGE] = _MAX_AGE
    return web.Response(status=204, headers=headers)


def _names_asked_for(request: web.Request) -> str:
    """The header names of a preflight, in its order and spelling, and those that every client of ours needs."""
    names: dict[str, str] = {}
    for line in request.headers.getall(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, ()):
        for item in line.split(","):
            name = item.strip(" \t")
            if len(names) < _MAX_NAMES and _TOKEN.fullmatch(name):
                names.setdefault(name.lower(), name)
    for name in _ALWAYS:
        names.setdefault(name, name)
    return ", ".join(names.values())
