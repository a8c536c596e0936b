"""Connections to providers: made, kept and found again, one pool per origin, with no cap but ours."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from proxy.errors import TimedOut, UpstreamError
from proxy.upstream.connection import Connection
from proxy.upstream.dialing import Dialer

if TYPE_CHECKING:
    from proxy.origin import Origin
    from proxy.upstream.connection import Call, Receiver

#: Seconds a connection is kept idle: less than most servers do, so that we close first.
IDLE = 30.0


class Upstream:
    """Sends requests, each on a connection of its own for as long as it lasts."""

    def __init__(self) -> None:
        self._idle: dict[Origin, list[Connection]] = {}
        self._open: set[Connection] = set()
        self._dialer = Dialer()
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    def reuse(self, origin: Origin, head: bytes, body: bytes, receiver: Receiver) -> Call | None:
        """Write a request on a kept connection; None where there is none."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.usable:
                connection.idle_since = 0.0
                return connection.send(head, body, receiver)
        return None

    async def send(self, origin: Origin, head: bytes, body: bytes, receiver: Receiver, *, connect: float) -> Call:
        """Write a request on a new connection, made within ``connect`` seconds.

        Raises ``UpstreamError``, ``TimedOut``.
        """
        connection = await self._connect(origin, connect)
        return connection.send(head, body, receiver)

    async def close(self) -> None:
        """Close every connection, idle or not."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in tuple(self._open):
            connection.abort()
        self._idle.clear()
        await asyncio.sleep(0)

    async def _connect(self, origin: Origin, patience: float) -> Connection:
        def factory() -> Connection:
            return Connection(partial(self._release, origin), partial(self._forget, origin))

        try:
            async with asyncio.timeout(patience):
                connection = await self._dialer.dial(origin, factory)
        except TimeoutError:
            raise TimedOut("connect", patience, "no connection to the provider") from None
        except ssl.SSLCertVerificationError as exc:
            why = exc.verify_message.partition(",")[0]  # after a comma comes the provider's name
            raise UpstreamError(f"the provider's certificate is not trusted: {why}") from None
        except ssl.SSLError as exc:
            raise UpstreamError(f"TLS with the provider failed: {exc.reason or 'handshake'}") from None
        except OSError as exc:
            raise UpstreamError(f"no connection to the provider: {reason(exc)}") from None
        self._open.add(connection)
        return connection

    def _release(self, origin: Origin, connection: Connection) -> None:
        connection.idle_since = monotonic()
        self._idle.setdefault(origin, []).append(connection)
        if self._sweep is None and not self._closed:
            self._sweep = asyncio.get_running_loop().call_later(IDLE / 4, self._expire)

    def _forget(self, origin: Origin, connection: Connection) -> None:
        self._open.discard(connection)
        idle = self._idle.get(origin)
        if connection.idle_since and idle and connection in idle:
            idle.remove(connection)

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        oldest = monotonic() - IDLE
        for idle in self._idle.values():
            for connection in [c for c in idle if c.idle_since < oldest]:
                idle.remove(connection)
                connection.abort()
        self._idle = {origin: idle for origin, idle in self._idle.items() if idle}
        self._sweep = loop.call_later(IDLE / 4, self._expire) if self._idle else None


def reason(exc: OSError) -> str:
    """Say why a connection failed without saying to whom: messages of the loop name the address."""
    if isinstance(exc, socket.gaierror):
        return "its name does not resolve"
    if isinstance(exc, ConnectionRefusedError):
        return "connection refused"
    if isinstance(exc, ConnectionResetError):
        return "connection reset"
    return os.strerror(exc.errno) if exc.errno is not None and exc.errno > 0 else "network error"
