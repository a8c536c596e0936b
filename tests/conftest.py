"""Fixtures for every test: a fake provider, and the gateway before it.

``TEST_LOOP=uvloop`` runs the asynchronous tests on uvloop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.functional import Gateway
from tests.functional.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

if os.environ.get("TEST_LOOP") == "uvloop":

    @pytest.hookimpl(optionalhook=True)
    def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
        import uvloop

        return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """A provider that nobody has asked yet; set its ``script``."""
    async with Upstream() as started:
        yield started


@pytest.fixture
async def gateway(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Callable[..., object]]:
    """Start gateways: ``await gateway("[timeouts]\\nidle = 1", stream={"keepalive": 1}, environ={...})``.

    What is given changes ``CONFIG`` (see ``tests.functional.config``).  Afterwards each is stopped and must have
    left nothing: no exchange, no task, no connection to the upstream.
    """
    started: list[Gateway] = []

    async def start(text: str = "", *, url: str | None = None, **changes: Any) -> Gateway:
        directory = tmp_path / f"gateway-{len(started) + 1}"
        directory.mkdir()
        started.append(await Gateway.start(directory, url or upstream.url, text, **changes))
        return started[-1]

    yield start
    async with contextlib.AsyncExitStack() as stack:  # one that fails to close does not keep the others open
        stack.push_async_callback(upstream.quiet)
        for one in started:
            stack.push_async_callback(one.close)
