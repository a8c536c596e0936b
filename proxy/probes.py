"""What load balancers, people and Prometheus ask of the gateway itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from proxy.context import PLAN
from proxy.dialects.simple_chat import now
from proxy.errors import Overloaded
from proxy.gateway import GATEWAY
from proxy.observe.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Mapping


def json_response(answer: Any, headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer with JSON."""
    return web.Response(body=orjson.dumps(answer), headers=headers, content_type="application/json")


async def root(request: web.Request) -> web.Response:
    """`GET /`: is it there, and what is it?"""
    answer = {"status": "ok", "service": request[PLAN].settings.server.name, "timestamp": now()}
    return json_response(answer, {"Vary": "Accept"})


async def health(request: web.Request) -> web.Response:
    """`GET /health`."""
    return json_response({"ok": True})


async def livez(request: web.Request) -> web.Response:
    """`GET /livez`: the process answers."""
    return json_response({"ok": True})


async def readyz(request: web.Request) -> web.Response:
    """`GET /readyz`: something can be asked."""
    if not request[PLAN].table.usable:
        raise Overloaded("no deployment is usable: no provider has a key", retry_after=10)
    return json_response({"ok": True})


async def metrics(request: web.Request) -> web.Response:
    """`GET /metrics`."""
    return web.Response(body=request.app[GATEWAY].metrics.text(), headers={"Content-Type": CONTENT_TYPE})
