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

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from aiohttp.typedefs import Handler, Middleware
    from multidict import CIMultiDict

    #: The policy for a request, asked for each answer: a reload may have changed it.  None: no request could be read.
    OriginsOf = Callable[[web.Request | None], "Origins"]
    #: The methods that a request's path has; None where there is no such path.
    MethodsOf = Callable[[web.Request], Collection[str] | None]

#: Each by name: a page that sends cookies along may not be told ``*``.  One string, since every answer carries it.
EXPOSED: Final = ", ".join(
    (
        "x-request-id",
        "retry-after",
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
        "x-ratelimit-limit-tokens",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-tokens",
        "x-proxy-model",
        "x-proxy-provider",
        "x-proxy-attempts",
        "server-timing",
    )
)

_MAX_AGE = "86400"  # seconds; browsers cut it to what they like
#: A preflight's answer grows with what it asks for: no page needs more names, nor longer ones.
_MAX_NAMES = 64
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_ALWAYS = ("authorization", "content-type")  # by name: a ``*`` does not cover authorization
_ANY_METHOD = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")


# Whom we answer...


class Origins:
    """The origins that may read our answers: ``*``, or patterns such as ``https://*.example.org``.

    A ``*`` in the host stands for one or more of a host's characters, dots included; a host that is only ``*``
    takes any port as well, ``:*`` any port and none.  ``null`` (sandboxed frames, files) must be listed.
    Raises ``ValueError`` for what can never be an origin.
    """

    __slots__ = ("_exact", "_wild", "any", "patterns")

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(patterns)
        #: Every origin is welcome, and those who send none are told so.
        self.any = "*" in self.patterns
        rest = [_normalised(pattern) for pattern in self.patterns if pattern != "*"]
        self._exact = frozenset(pattern for pattern in rest if "*" not in pattern)
        wild = [_expression(pattern) for pattern in rest if "*" in pattern]
        self._wild = re.compile("|".join(wild), re.IGNORECASE | re.ASCII) if wild else None

    def __repr__(self) -> str:
        return f"Origins({self.patterns!r})"

    def match(self, origin: str) -> bool:
        """Whether a page of this origin may read the answer."""
        if self.any:
            return True
        # Lower case outside of ASCII has surprises: the Kelvin sign's is a plain k.
        if origin.isascii() and origin.lower() in self._exact:
            return True
        return self._wild is not None and self._wild.fullmatch(origin) is not None


_HOST = r"[a-z0-9._~%-]+"
_V6 = r"\[[0-9a-f:.]+\]"
_SHAPE = re.compile(
    rf"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>{_V6}|[a-z0-9._~%*-]*)(?::(?P<port>\*|[0-9]{{1,5}}))?/?",
    re.IGNORECASE | re.ASCII,
)
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def _normalised(pattern: str) -> str:
    """A pattern as browsers write origins: lower case, no slash at the end, no port that the scheme implies."""
    if pattern == "null":
        return pattern
    found = _SHAPE.fullmatch(pattern)
    if found is None:
        raise ValueError(
            f'"{pattern}" is not an origin: scheme://host[:port], with * in host or port, or "*", or "null"'
        )
    scheme, host, port = found["scheme"].lower(), found["host"].lower(), found["port"]
    if port is None or port == _DEFAULT_PORTS.get(scheme):
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{port}"


def _expression(pattern: str) -> str:
    """The regular expression for a normalised pattern that has a ``*``."""
    scheme, _, rest = pattern.partition("://")
    if rest == "*":
        return rf"{re.escape(scheme)}://(?:{_HOST}|{_V6})(?::[0-9]{{1,5}})?"
    # A port star also stands for no port: browsers leave out the one that the scheme implies.
    host, port = (rest[:-2], r"(?::[0-9]{1,5})?") if rest.endswith(":*") else (rest, "")
    wild = rf"(?:{_HOST}|{_V6})" if host.partition(":")[0] == "*" else _HOST
    return re.escape(scheme) + "://" + wild.join(map(re.escape, host.split("*"))) + port


# What every answer says...


def headers_for(origins: Origins, origin: str | None) -> dict[str, str]:
    """The headers for an answer that the application never sees, such as the parser's own 400."""
    if origins.any:
        return {hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: "*", hdrs.ACCESS_CONTROL_EXPOSE_HEADERS: EXPOSED}
    if origin is None or not origins.match(origin):
        return {hdrs.VARY: hdrs.ORIGIN}
    return {
        hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: origin,
        hdrs.ACCESS_CONTROL_EXPOSE_HEADERS: EXPOSED,
        hdrs.VARY: hdrs.ORIGIN,
    }


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
