"""The lists of models: only what can be asked, and only what the caller's key may use."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from aiohttp import web

from proxy.context import CALLER, PLAN
from proxy.errors import NotFound
from proxy.probes import json_response

if TYPE_CHECKING:
    from proxy.routing.table import Entry

#: Clients want a time of creation; providers do not tell one.
_CREATED = int(time.time())


async def list_models(request: web.Request) -> web.Response:
    """`GET /v1/models`, in OpenAI's form; aliases are models of their own."""
    table, key = request[PLAN].table, request[CALLER]
    return json_response({"object": "list", "data": [_model(table.resolve(n, key), n) for n in table.names(key)]})


async def get_model(request: web.Request) -> web.Response:
    """`GET /v1/models/{id}`: ids hold `/` and `@`, percent-encoded or not."""
    name = request.match_info["id"]
    return json_response(_model(request[PLAN].table.resolve(name, request[CALLER]), name))


async def api_models(request: web.Request) -> web.Response:
    """`GET /api/models`."""
    plan, key = request[PLAN], request[CALLER]
    names = set(plan.table.names(key))
    listed = {e.id: _described(e.id, e) for e in plan.table.entries.values() if e.id in names}
    try:
        default = plan.table.default(plan.settings.defaults.chat, key)
        if default not in listed:  # one that a wildcard covers, or an alias without its model
            listed[default] = _described(default, plan.table.resolve(default, key).entry)
    except NotFound:
        default = ""
    return json_response({"defaultModel": default, "models": list(listed.values())})


def _described(name: str, entry: Entry) -> dict[str, str]:
    label = name if entry.id.endswith("*") else entry.label
    return {"id": name, "label": label, "description": entry.description}


def _model(route: Any, name: str) -> dict[str, Any]:
    model = {"id": name, "object": "model", "created": _CREATED, "owned_by": route.entry.targets[0].provider}
    if route.entry.context:
        model["context_length"] = route.entry.context
    return model
