"""A running gateway, as ``models`` and ``chat`` see it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson

from proxy.commands import Failure, web
from proxy.settings.faults import SettingsError, within
from proxy.settings.providers import web_address
from proxy.settings.references import VISIBLE

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator

    import aiohttp

MAX_ERROR = 65_536  # bytes of a refusal that are read for its message


class Gateway:
    """Its address, with or without ``/v1`` at the end, and our key there."""

    def __init__(self, args: argparse.Namespace) -> None:
        try:
            with within("--url"):
                self.url = web_address(args.url).removesuffix("/v1")
        except SettingsError as exc:
            raise Failure(str(exc), code=2) from None
        if args.key and not VISIBLE.fullmatch(args.key):
            raise Failure("--key: has characters other than visible ASCII", code=2)
        self._headers = {"Authorization": f"Bearer {args.key}"} if args.key else {}

    @asynccontextmanager
    async def ask(
        self, session: aiohttp.ClientSession, method: str, path: str, **more: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer with status 200; raises ``Failure`` for every other."""
        url, hint = self.url + path, "; is the gateway running?"
        async with web.asked(session, method, url, headers=self._headers, hint=hint, **more) as response:
            if response.status != 200:
                raise await self._refusal(response)
            yield response

    async def _refusal(self, response: aiohttp.ClientResponse) -> Failure:
        """Status and message in one line."""
        body = await response.content.read(MAX_ERROR)
        line = web.status_line(response.status)
        if said := message_of(body):
            line = f"{line}: {said}"
        elif 300 <= response.status < 400:
            line = f"{line}: the gateway is not at {self.url}"
        if response.status == 401 and not self._headers:
            line += " (give a key with --key or AI_PROXY_KEY)"
        return Failure(line)


def message_of(body: bytes) -> str:
    """The message of an error in any of the gateway's forms, on one line; "" where there is none."""
    try:
        answer: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    error = answer.get("error") if isinstance(answer, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    if message is None and isinstance(error, str):  # the simple form
        message = answer.get("details") or error
    text = " ".join(message.split()) if isinstance(message, str) else ""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
