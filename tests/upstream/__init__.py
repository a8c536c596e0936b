"""The HTTP/1.1 client below the relay, asked directly: a receiver that remembers, and a pool of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from proxy.origin import Origin
from proxy.upstream import Head
from tests.functional.wire import within

if TYPE_CHECKING:
    from proxy.errors import GatewayError
    from proxy.upstream import Call
    from proxy.upstream import Upstream as Pool
    from proxy.upstream.connection import Stale
    from tests.functional.upstream import Upstream


class Receiver:
    """Remembers what it was told, in order; an answer that was told at once counts as its head, body and end."""

    def __init__(self) -> None:
        self.at_once = False
        self.head: Head | None = None
        self.pieces: list[bytes] = []
        self.ends: list[GatewayError | Stale | None] = []
        self._news = asyncio.Event()
        self.over = asyncio.Event()

    def answered(self, head: Head, body: bytes) -> None:
        self.at_once = True
        self.head_came(head)
        if body:
            self.data_came(body)
        self.ended(None)

    def head_came(self, head: Head) -> None:
        assert self.head is None
        assert not self.pieces
        assert not self.ends
        self.head = head
        self._news.set()

    def data_came(self, chunk: bytes) -> None:
        assert self.head is not None
        assert not self.ends
        assert chunk
        self.pieces.append(chunk)
        self._news.set()

    def ended(self, error: GatewayError | Stale | None) -> None:
        self.ends.append(error)
        assert len(self.ends) == 1
        self.over.set()
        self._news.set()

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    async def told(self, body: bytes = b"") -> None:
        """Wait until the head is in, and that much of a body."""

        async def come() -> None:
            while self.head is None or not self.body.startswith(body):
                self._news.clear()
                await self._news.wait()

        await within(come(), f"an answer that begins with {body[:40]!r}")

    async def ended_with(self) -> GatewayError | Stale | None:
        """Wait for the end; return what it was."""
        await within(self.over.wait(), "the end of an answer")
        return self.ends[0]


def origin(upstream: Upstream) -> Origin:
    return Origin(bool(upstream.tls), "127.0.0.1", upstream.port)


def head(upstream: Upstream) -> bytes:
    """A request's head, as the routing table lays it out: up to the value of its Content-Length."""
    return f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{upstream.port}\r\nContent-Length: ".encode()


async def sent(pool: Pool, origin: Origin, head: bytes, body: bytes, receiver: Receiver, *, connect: float = 5) -> Call:
    """Send a request as an attempt does: on a kept connection where there is one."""
    what = origin, head, body, receiver
    return pool.reuse(*what) or await pool.send(*what, connect=connect)


async def send(pool: Pool, upstream: Upstream, body: bytes = b"{}") -> tuple[Call, Receiver]:
    """Send a request; the answer goes to the receiver."""
    receiver = Receiver()
    return await sent(pool, origin(upstream), head(upstream), body, receiver), receiver


async def answered(pool: Pool, upstream: Upstream, body: bytes = b"{}") -> Receiver:
    """Send a request and wait for the end of a good answer."""
    _, receiver = await send(pool, upstream, body)
    assert await receiver.ended_with() is None
    return receiver
