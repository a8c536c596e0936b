"""The application: its routes, its middleware with the reason for each place, and what they share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from proxy import handlers, models, probes
from proxy.connection import MANNERS
from proxy.context import ENDPOINTS, PLAN, Endpoint
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

    from proxy.settings import Settings

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

__all__ = ["GATEWAY", "build_app"]

#: A missing or repeated leading /v1 is forgiven: clients disagree on who adds it.
_V1 = ("/v1", "", "/v1/v1")


def _v1(path: str) -> tuple[str, ...]:
    return tuple(f"{prefix}{path}" for prefix in _V1)


#: Method, paths, handler, and what middleware must know of it.
ROUTES: tuple[tuple[str, tuple[str, ...], Handler, Endpoint], ...] = (
    ("GET", ("/",), probes.root, Endpoint("root", SIMPLE, public=True)),
    ("GET", ("/health",), probes.health, Endpoint("health", SIMPLE, public=True)),
    ("GET", ("/livez",), probes.livez, Endpoint("livez", SIMPLE, public=True)),
    ("GET", ("/readyz",), probes.readyz, Endpoint("readyz", SIMPLE, public=True)),
    ("GET", ("/metrics",), probes.metrics, Endpoint("metrics", SIMPLE, admin=True)),
    ("GET", ("/api/models",), models.api_models, Endpoint("api_models", SIMPLE)),
    ("GET", _v1("/models"), models.list_models, Endpoint("models", OPENAI)),
    ("GET", _v1("/models/{id:.+}"), models.get_model, Endpoint("model", OPENAI)),
    ("POST", ("/chat",), handlers.chat, Endpoint("chat", SIMPLE, exchange=True)),
    ("POST", ("/api/chat",), handlers.api_chat, Endpoint("api_chat", SIMPLE, exchange=True)),
    ("POST", _v1("/chat/completions"), handlers.chat_completions, Endpoint("chat_completions", OPENAI, exchange=True)),
    ("POST", _v1("/completions"), handlers.completions, Endpoint("completions", OPENAI, exchange=True)),
    ("POST", _v1("/embeddings"), handlers.embeddings, Endpoint("embeddings", OPENAI, exchange=True)),
    ("POST", _v1("/responses"), handlers.responses, Endpoint("responses", RESPONSES, exchange=True)),
    ("POST", _v1("/messages"), handlers.messages, Endpoint("messages", ANTHROPIC, exchange=True)),
    (
        "POST",
        _v1("/messages/count_tokens"),
        handlers.count_messages,
        Endpoint("count_tokens", ANTHROPIC, exchange=True),
    ),
    ("GET", ("/v1beta/models",), models.gemini_models, Endpoint("gemini_models", GEMINI)),
    ("GET", ("/v1beta/models/{id:.+}",), models.gemini_model, Endpoint("gemini_model", GEMINI)),
    (
        "POST",
        tuple(f"{v}/models/{{call:.+:[A-Za-z]+}}" for v in ("/v1beta", *_V1)),
        handlers.gemini,
        Endpoint("gemini", GEMINI, exchange=True),
    ),
)


def build_app(settings: Settings) -> web.Application:
    """Put the gateway together; ``app[GATEWAY]`` steers it."""

    def origins(request: web.Request | None) -> Origins:
        plan = request.get(PLAN) if request is not None else None
        return (plan or gateway.plan).origins

    gateway = Gateway(settings)
    endpoints: dict[object, Endpoint] = {handler: endpoint for _, _, handler, endpoint in ROUTES}
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
    for method, paths, handler, _ in ROUTES:
        for path in paths:
            if method == "GET":
                app.router.add_get(path, handler)
            else:
                app.router.add_route(method, path, handler, expect_handler=_wait_for_the_body)

    async def run(_: web.Application) -> AsyncIterator[None]:
        await gateway.start()
        yield
        await gateway.close()

    app.cleanup_ctx.append(run)
    return app


async def _wait_for_the_body(request: web.Request) -> None:
    """`Expect: 100-continue` is answered when the body is wanted, not before."""
