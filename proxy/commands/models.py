"""``models``: what a running gateway serves to this key."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from proxy.commands import Failure, show, web
from proxy.commands.gateway import Gateway

if TYPE_CHECKING:
    import argparse

TIME = aiohttp.ClientTimeout(total=30, sock_connect=web.CONNECT)


def run(args: argparse.Namespace) -> int:
    ids, labels, default = asyncio.run(_ask(Gateway(args)))
    rows = [(id_, *labels.get(id_, ("", "")), "default" if id_ == default else "") for id_ in ids]
    show.table(("model", "label", "description", ""), rows)
    return 0


async def _ask(gateway: Gateway) -> tuple[list[str], dict[str, tuple[str, str]], str]:
    """Ids, labels with descriptions by id, and the default's id."""
    async with web.session() as session:
        listed = await _json(session, gateway, "/v1/models")
        told = await _json(session, gateway, "/api/models")
    try:
        ids = [str(model["id"]) for model in listed["data"]]
        labels = {
            str(model["id"]): (str(model.get("label") or ""), str(model.get("description") or ""))
            for model in told["models"]
        }
        return ids, labels, str(told["defaultModel"])
    except (KeyError, TypeError, AttributeError):
        raise Failure(f"{gateway.url} does not answer like a gateway") from None


async def _json(session: aiohttp.ClientSession, gateway: Gateway, path: str) -> Any:
    async with gateway.ask(session, "GET", path, timeout=TIME) as response:
        try:
            return orjson.loads(await response.read())
        except orjson.JSONDecodeError:
            raise Failure(f"{gateway.url} does not answer like a gateway") from None
