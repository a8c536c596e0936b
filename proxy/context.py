"""What middleware and handlers tell each other about a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from proxy.errors import GatewayError
from proxy.gateway import Plan
from proxy.observe.record import Record
from proxy.settings import Key

#: The configuration that the request began with.
PLAN: web.RequestKey[Plan] = web.RequestKey("plan", Plan)
#: What is remembered of it.
RECORD: web.RequestKey[Record] = web.RequestKey("record", Record)
#: Whose key it came with.
CALLER: web.RequestKey[Key] = web.RequestKey("caller", Key)
#: Its body, for endpoints that have one.
BODY: web.RequestKey[bytes] = web.RequestKey("body", bytes)


class Render(Protocol):
    """Says a fault in a dialect's words."""

    def __call__(self, error: GatewayError, request_id: str = "") -> bytes: ...


@dataclass(frozen=True, slots=True)
class Form:
    """How a dialect tells faults: as a whole answer, and inside a stream."""

    body: Render
    frame: Render


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What middleware must know of a route.

    ``public`` needs no key; ``admin`` needs an admin's; ``exchange`` has a JSON body, counts
    against limits and asks a provider.
    """

    name: str
    form: Form
    public: bool = False
    admin: bool = False
    exchange: bool = False


ENDPOINTS = web.AppKey("endpoints", dict[object, Endpoint])


def endpoint_of(request: web.Request) -> Endpoint | None:
    """The route that matched; None where none did."""
    endpoint: Endpoint | None = request[RECORD].endpoint
    return endpoint
