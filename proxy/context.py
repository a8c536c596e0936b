"""What middleware and handlers tell each other about a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from aiohttp import web
from msgspec import Struct

from proxy.errors import GatewayError
from proxy.gateway import GATEWAY, Gateway, Plan
from proxy.observe.record import Record
from proxy.plain import Plain
from proxy.settings import Key

if TYPE_CHECKING:
    from proxy.refusals import Scrub
    from proxy.state.memory import Memory

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


class Form(Struct, frozen=True):
    """How a dialect tells faults: as a whole answer, and inside a stream."""

    body: Render
    frame: Render


class Endpoint(Struct, frozen=True):
    """What middleware must know of a route.

    ``public`` needs no key; ``admin`` needs an admin's; ``exchange`` has a JSON body, counts
    against limits and asks a provider: ``default`` is which of `[defaults]` a request without a model means.
    """

    name: str
    form: Form
    public: bool = False
    admin: bool = False
    exchange: bool = False
    default: str = ""


ENDPOINTS = web.AppKey("endpoints", dict[object, Endpoint])


class Exchange(Struct, eq=False):
    """A request for a provider that nothing in front of its handler has refused."""

    #: For its connection, its headers and its path.
    request: web.Request | Plain
    gateway: Gateway
    plan: Plan
    record: Record
    #: Whose key it came with.
    key: Key
    endpoint: Endpoint
    body: bytes

    @property
    def scrub(self) -> Scrub:
        """Takes secrets and hosts out of what a provider says."""
        return self.plan.scrub

    @property
    def memory(self) -> Memory:
        """Thoughts of providers that will want them back."""
        return self.gateway.memory

    def fail(self, error: GatewayError) -> bytes:
        """Say a fault inside a stream, in the client's dialect."""
        return self.endpoint.form.frame(error, self.record.request_id)


def exchange_of(request: web.Request) -> Exchange:
    """Gather what the middleware has learnt of a request."""
    record = request[RECORD]
    return Exchange(
        request, request.app[GATEWAY], request[PLAN], record, request[CALLER], record.endpoint, request[BODY]
    )


def endpoint_of(request: web.Request) -> Endpoint | None:
    """The route that matched; None where none did."""
    endpoint: Endpoint | None = request[RECORD].endpoint
    return endpoint
