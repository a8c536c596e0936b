from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from proxy.cli import main
from tests.commands.gateway import Gateway

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@pytest.fixture(autouse=True)
def _no_addresses_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AI_PROXY_URL", "AI_PROXY_KEY", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def gateway(aiohttp_server: Callable[[web.Application], Awaitable[object]]) -> Gateway:
    """Something that answers like a gateway, as the test wants it to."""
    gateway = Gateway()
    gateway.url = str((await aiohttp_server(gateway.app())).make_url("")).rstrip("/")
    return gateway


@pytest.fixture
def command() -> Callable[..., Awaitable[int]]:
    """Run a command beside the servers of the test; its exit code."""

    async def run(*argv: str) -> int:
        return await asyncio.to_thread(main, list(argv))

    return run
