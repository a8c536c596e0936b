"""The application on its sockets, in this process."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from proxy.serving import Server
from proxy.settings import load
from tests.functional import config
from tests.functional.wire import Connection, connect, listener

if TYPE_CHECKING:
    from pathlib import Path

    from proxy.settings import Settings
    from tests.functional.upstream import Upstream


async def test_a_connection_that_waits_in_the_queue_is_answered_and_not_reset(gateway: Any) -> None:
    """The kernel has told these clients that they are connected; nobody had accepted them when the end came."""
    running = await gateway()
    socks = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(5)]  # no turn of the loop between
    running.server.drain()
    for sock in socks:
        sock.setblocking(False)
        async with Connection(sock, running.port) as client:
            answer = await client.ask("GET", "/livez")
            assert answer.status == 503
            await answer.body()


async def test_new_connections_follow_new_limits(gateway: Any, upstream: Upstream, tmp_path: Path) -> None:
    running = await gateway("[limits]\nmax_header_bytes = 1024")
    big = [("X-Big", "b" * 4000)]
    assert (await running.request("GET", "/livez", headers=big)).status == 400
    running.server.swap(settings(tmp_path, config(upstream.url, "[limits]\nmax_header_bytes = 8192")))
    assert (await running.request("GET", "/livez", headers=big)).status == 200


async def test_it_listens_where_the_settings_say(upstream: Upstream, tmp_path: Path) -> None:
    server = await Server.start(settings(tmp_path, config(upstream.url, server={"host": "127.0.0.1", "port": 0})))
    async with await connect(server.port) as client:
        assert (await client.ask("GET", "/livez")).status == 200
    await server.stop()
    with pytest.raises(ConnectionRefusedError):
        await connect(server.port)


async def test_a_start_that_fails_leaves_nothing_open(upstream: Upstream, tmp_path: Path, monkeypatch: Any) -> None:
    async def failing(self: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr("proxy.gateway.Gateway.start", failing)
    with listener() as sock:
        port = sock.getsockname()[1]
        with pytest.raises(RuntimeError, match="no"):
            await Server.start(settings(tmp_path, config(upstream.url)), sock=sock)
    with pytest.raises(ConnectionRefusedError):
        await connect(port)


def settings(directory: Path, text: str) -> Settings:
    path = directory / "settings.toml"
    path.write_text(text)
    return load(path, {}).settings
