"""The lists of models: only what can be asked, and only what the caller's key may use."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aiohttp import web

from proxy.context import CALLER, PLAN
from proxy.errors import NotFound
from proxy.probes import json_response

if TYPE_CHECKING:
    from proxy.dialects.gemini.listing import Listed
    from proxy.routing.table import Entry

#: Clients want a time of creation; providers do not tell one.
_CREATED = int(time.time())


async def list_models(request: web.Request) -> web.Response:
    """`GET /v1/models`; aliases are models of their own.

    OpenAI's form, or Anthropic's for clients that say which version of that they speak, or Google's for
    those that show their key as Google's do.
    """
    if _is_google_s(request):
        return await gemini_models(request)
    table, key = request[PLAN].table, request[CALLER]
    if "anthropic-version" in request.headers:
        return json_response(_anthropic([(n, table.resolve(n, key).entry) for n in table.names(key)]))
    return json_response({"object": "list", "data": [_model(table.resolve(n, key), n) for n in table.names(key)]})


async def get_model(request: web.Request) -> web.Response:
    """`GET /v1/models/{id}`: ids hold `/` and `@`, percent-encoded or not.  OpenAI's form, or Google's."""
    if _is_google_s(request):
        return await gemini_model(request)
    name = request.match_info["id"]
    return json_response(_model(request[PLAN].table.resolve(name, request[CALLER]), name))


async def gemini_models(request: web.Request) -> web.Response:
    """`GET /v1beta/models`."""
    from proxy.dialects.gemini import listing

    table, key = request[PLAN].table, request[CALLER]
    listed = [_listed(name, table.resolve(name, key).entry) for name in table.names(key)]
    return web.Response(body=listing.models(listed), content_type="application/json")


async def gemini_model(request: web.Request) -> web.Response:
    """`GET /v1beta/models/{id}`."""
    from proxy.dialects.gemini import listing

    name = request.match_info["id"].removeprefix("models/")
    entry = request[PLAN].table.resolve(name, request[CALLER]).entry
    return web.Response(body=listing.model(_listed(name, entry)), content_type="application/json")


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


def _is_google_s(request: web.Request) -> bool:
    """Is this a client of Google's, by where it shows its key?  Its SDK asks below `/v1`, too."""
    return "x-goog-api-key" in request.headers and "Authorization" not in request.headers


def _listed(name: str, entry: Entry) -> Listed:
    from proxy.dialects.gemini.listing import Listed

    return Listed(name, entry.label, entry.description, entry.context)


def _anthropic(models: list[tuple[str, Entry]]) -> dict[str, Any]:
    created = datetime.fromtimestamp(_CREATED, UTC).isoformat().replace("+00:00", "Z")
    data = [{"type": "model", "id": n, "display_name": e.label, "created_at": created} for n, e in models]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"data": data, "has_more": False, "first_id": first, "last_id": last}


def _described(name: str, entry: Entry) -> dict[str, str]:
    label = name if entry.id.endswith("*") else entry.label
    return {"id": name, "label": label, "description": entry.description}


def _model(route: Any, name: str) -> dict[str, Any]:
    model = {"id": name, "object": "model", "created": _CREATED, "owned_by": route.entry.targets[0].provider}
    if route.entry.context:
        model["context_length"] = route.entry.context
    return model
