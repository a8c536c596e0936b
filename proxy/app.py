"""The application: its routes, its middleware with the reason for each place, and what they share."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING

from aiohttp import web

from proxy import handlers, models, probes
from proxy.connection import FIRST, MANNERS
from proxy.context import ENDPOINTS, PLAN, Endpoint, exchange_of
from proxy.express import Express
from proxy.gateway import GATEWAY, Gateway
from proxy.middleware import cors
from proxy.middleware.access_log import access_log
from proxy.middleware.auth import auth
from proxy.middleware.body import body
from proxy.middleware.failures import ANTHROPIC, GEMINI, OPENAI, RESPONSES, SIMPLE, failures
from proxy.middleware.limits import limits
from proxy.middleware.request_id import add_headers, request_id
from proxy.pages import Origins

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from proxy.context import Form
    from proxy.handlers import Ask
    from proxy.settings import Settings

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

__all__ = ["GATEWAY", "build_app"]

#: A missing or repeated leading /v1 is forgiven: clients disagree on who adds it.
_V1 = ("/v1", "", "/v1/v1")


def _v1(path: str) -> tuple[str, ...]:
    return tuple(f"{prefix}{path}" for prefix in _V1)


def _exchange(name: str, form: Form, default: str = "") -> Endpoint:
    return Endpoint(name, form, exchange=True, default=default)


#: Paths, handler, and what middleware must know of what is there to GET.
PAGES: tuple[tuple[tuple[str, ...], Handler, Endpoint], ...] = (
    (("/",), probes.root, Endpoint("root", SIMPLE, public=True)),
    (("/health",), probes.health, Endpoint("health", SIMPLE, public=True)),
    (("/livez",), probes.livez, Endpoint("livez", SIMPLE, public=True)),
    (("/readyz",), probes.readyz, Endpoint("readyz", SIMPLE, public=True)),
    (("/metrics",), probes.metrics, Endpoint("metrics", SIMPLE, admin=True)),
    (("/api/models",), models.api_models, Endpoint("api_models", SIMPLE)),
    (_v1("/models"), models.list_models, Endpoint("models", OPENAI)),
    (_v1("/models/{id:.+}"), models.get_model, Endpoint("model", OPENAI)),
    (("/v1beta/models",), models.gemini_models, Endpoint("gemini_models", GEMINI)),
    (("/v1beta/models/{id:.+}",), models.gemini_model, Endpoint("gemini_model", GEMINI)),
)
_CALL = "/models/{call:.+:[A-Za-z]+}"
#: The same of what is there to POST to, which asks a provider.
EXCHANGES: tuple[tuple[tuple[str, ...], Ask, Endpoint], ...] = (
    (("/chat",), handlers.chat, _exchange("chat", SIMPLE, "proxy")),
    (("/api/chat",), handlers.api_chat, _exchange("api_chat", SIMPLE, "chat")),
    (_v1("/chat/completions"), handlers.chat_completions, _exchange("chat_completions", OPENAI, "code")),
    (_v1("/completions"), handlers.completions, _exchange("completions", OPENAI, "code")),
    (_v1("/embeddings"), handlers.embeddings, _exchange("embeddings", OPENAI)),
    (_v1("/responses"), handlers.responses, _exchange("responses", RESPONSES, "code")),
    (_v1("/messages"), handlers.messages, _exchange("messages", ANTHROPIC, "code")),
    (_v1("/messages/count_tokens"), handlers.count_messages, _exchange("count_tokens", ANTHROPIC, "code")),
    ((f"/v1beta{_CALL}", *_v1(_CALL)), handlers.gemini, _exchange("gemini", GEMINI)),
)
#: All of it: method, paths, and what middleware must know.
ROUTES: tuple[tuple[str, tuple[str, ...], Endpoint], ...] = (
    *(("GET", paths, endpoint) for paths, _, endpoint in PAGES),
    *(("POST", paths, endpoint) for paths, _, endpoint in EXCHANGES),
)


def build_app(settings: Settings) -> web.Application:
    """Put the gateway together; ``app[GATEWAY]`` steers it."""

    def origins(request: web.Request | None) -> Origins:
        plan = request.get(PLAN) if request is not None else None
        return (plan or gateway.plan).origins

    gateway = Gateway(settings)
    endpoints: dict[object, Endpoint] = {}
    app = web.Application(
        middlewares=[
            request_id(gateway, endpoints),  # first: all that follows is about one request, under one configuration
            access_log(gateway),  # sees every answer, and every client that leaves
            cors.preflights(origins),  # before anything can ask for a key: browsers send preflights without one
            failures(gateway),  # outside all that refuses, so that every refusal is said in the client's dialect
            auth(),  # before the body is looked at: strangers cost us nothing
            limits(gateway),  # before the body is read, so that a full house does not fill its memory
            body(),  # type, size and time of the body, just before it is needed
        ]
    )
    app[GATEWAY] = gateway
    app[MANNERS] = gateway
    app[ENDPOINTS] = endpoints
    app.on_response_prepare.append(add_headers)
    cors.install(app, origins)
    for paths, page, endpoint in PAGES:
        endpoints[page] = endpoint
        for path in paths:
            app.router.add_get(path, page)
    doors = {}
    for paths, ask, endpoint in EXCHANGES:
        handle = _of_requests(ask)
        endpoints[handle] = endpoint
        for path in paths:
            app.router.add_post(path, handle, expect_handler=_wait_for_the_body)
            doors[path] = (ask, endpoint)
    app[FIRST] = Express(gateway, doors)

    async def run(_: web.Application) -> AsyncIterator[None]:
        await gateway.start()
        yield
        await gateway.close()

    app.cleanup_ctx.append(run)
    return app


def _of_requests(ask: Ask) -> Handler:
    """Make of what reads an exchange a handler that aiohttp's router can call."""

    @wraps(ask)
    async def handle(request: web.Request) -> web.StreamResponse:
        return await handlers.serve(exchange_of(request), ask)

    return handle


async def _wait_for_the_body(request: web.Request) -> None:
    """`Expect: 100-continue` is answered when the body is wanted, not before."""
