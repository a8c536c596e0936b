"""Lets in whom the configuration knows, and nobody by accident."""

from __future__ import annotations

import hmac
import re
from datetime import UTC, datetime
from hashlib import sha256
from ipaddress import ip_address
from typing import TYPE_CHECKING

from aiohttp import web

from proxy.context import CALLER, PLAN, RECORD, endpoint_of
from proxy.errors import Forbidden, Unauthorized
from proxy.plain import CREDENTIALS

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware
    from multidict import MultiMapping

    from proxy.gateway import Plan
    from proxy.settings import Key

#: Looked at in this order, where there is no `Authorization: Bearer`.
_HEADERS = CREDENTIALS[1:]
_NOBODY = sha256(b"nobody").digest()
_HOST = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[^][:@/\s]+))(?::[0-9]*)?")
#: Signs that a request came through a proxy, and so from somewhere else.
_FORWARDED = re.compile(r"forwarded|x-forwarded-.*|x-real-ip|via|cf-.*", re.IGNORECASE)


def auth() -> Middleware:
    """Admit requests whose key is known, and say whose it is.

    Keys are found by their SHA-256 and confirmed with ``compare_digest``, so no key sits in
    memory or in a traceback.  Sets ``CALLER``.  Raises ``Unauthorized``, ``Forbidden``.
    """

    @web.middleware
    async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
        endpoint = endpoint_of(request)
        assert endpoint is not None  # unknown paths were refused before
        if endpoint.public:
            return await handler(request)
        plan = request[PLAN]
        if plan.guarded:
            _guard(request, plan)
        caller = identify(request.headers, plan)
        if endpoint.admin and not caller.admin and not (plan.settings.open and _is_from_here(request)):
            raise Forbidden("this needs an admin key (admin = true in its [[keys]] table)")
        request[CALLER] = caller
        request[RECORD].key = caller.name
        return await handler(request)

    return admit


def identify(headers: MultiMapping[str], plan: Plan) -> Key:
    """Find whose credential a request carries.  Raises ``Unauthorized``."""
    if not plan.callers and plan.anonymous is not None:  # an open gateway does not look
        return plan.anonymous
    credential = _credential(headers)
    if credential is None:
        if plan.anonymous is not None:
            return plan.anonymous
        raise Unauthorized("a key is needed: send it as `Authorization: Bearer KEY`")
    digest = sha256(credential).digest()
    key = plan.callers.get(digest)
    # The comparison takes as long for an unknown key as for a known one.
    if not hmac.compare_digest(digest, key.digest if key is not None else _NOBODY) or key is None:
        raise Unauthorized("this key is not known")
    if key.expires is not None and datetime.now(UTC) >= key.expires:
        raise Unauthorized("this key has expired")
    return key


def _credential(headers: MultiMapping[str]) -> bytes | None:
    authorization = headers.getall("Authorization", ())
    if len(authorization) > 1:
        raise Unauthorized("there are two Authorization headers")
    scheme, _, token = authorization[0].partition(" ") if authorization else ("", "", "")
    if scheme.lower() == "bearer":
        return token.strip().encode("utf-8", "surrogateescape")
    for name in _HEADERS:
        given = headers.getall(name, ())
        if len(given) > 1:
            raise Unauthorized(f"there are two {name} headers")
        if given:
            return given[0].strip().encode("utf-8", "surrogateescape")
    if authorization:  # some other scheme: Basic may be meant for a server before us, so a key beside it counts
        raise Unauthorized("the Authorization header must be `Bearer KEY`")
    return None


def _guard(request: web.Request, plan: Plan) -> None:
    """Keep an open gateway to this machine: neither other hosts' names for it, nor pages, nor tunnels."""
    headers = request.headers
    if not _is_local_name(headers.get("Host", "")):
        raise Forbidden("this gateway has no keys and serves this machine only: ask it as localhost")
    if not all(plan.origins.match(origin) for origin in headers.getall("Origin", ())):
        raise Forbidden("this gateway has no keys and does not serve this page (cors.origins)")
    if _is_forwarded(request):
        raise Forbidden("this gateway has no keys and does not serve requests that came through a proxy")


def _is_from_here(request: web.Request) -> bool:
    return _is_loopback(request.remote) and not _is_forwarded(request)


def _is_forwarded(request: web.Request) -> bool:
    return any(_FORWARDED.fullmatch(name) for name in request.headers)


def _is_local_name(host: str) -> bool:
    found = _HOST.fullmatch(host.lower())
    if found is None:
        return False
    name = (found["name"] or found["v6"]).rstrip(".")
    return name == "localhost" or name.endswith(".localhost") or _is_loopback(name)


def _is_loopback(address: str | None) -> bool:
    try:
        return ip_address(address or "").is_loopback
    except ValueError:
        return False
