"""An HTTP/1.1 client for tests that sees the wire as it is.

It decides nothing: any bytes go out, and what comes back is told piece by piece, with how it ended.

    async with await connect(port) as client:
        answer = await client.ask("POST", "/v1/chat/completions", json={...})
        assert answer.status == 200
        frame = await answer.frame()     # the next SSE frame, the moment it is complete
        assert await answer.frame() is None and answer.whole

Bytes leave the socket only when a test asks for them, so not reading *is* back-pressure: nothing
reads ahead on the test's behalf.  Every wait has a deadline that only guards against hanging.
"""

from __future__ import annotations

import asyncio
import json as jsonlib
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeVar

T = TypeVar("T")
Headers = Mapping[str, str] | Sequence[tuple[str, str]]

#: Seconds that anything in a test may take before it counts as hanging; never a measure of speed.
PATIENCE = 10.0

#: A blank line, as the SSE specification has it: LF, CR or CRLF, mixed as they come.
BLANK = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
LINES = re.compile(rb"\r\n|\n|\r")


async def within(awaitable: Awaitable[T], what: str) -> T:
    """Wait for something that must happen; say what did not."""
    try:
        async with asyncio.timeout(PATIENCE) as clock:
            return await awaitable
    except TimeoutError:
        if not clock.expired():
            raise
        raise AssertionError(f"{what}: not in {PATIENCE:g} s") from None


def pairs(headers: Headers) -> list[tuple[str, str]]:
    return list(headers.items()) if isinstance(headers, Mapping) else list(headers)


def listener() -> socket.socket:
    """A bound socket on a free loopback port, for a server to listen on."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    return sock


def reset_on_close(sock: Any) -> None:
    """From now on closing this socket sends RST, not FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Malformed(AssertionError):
    """The other side broke HTTP/1.1."""


class Cut(AssertionError):
    """A body that had to be whole was not."""


@dataclass(frozen=True)
class Frame:
    """One dispatched block of an event stream: the bytes as they came, blank line included."""

    raw: bytes
    event: str = ""
    data: bytes | None = None

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        event, data = "", []
        for line in LINES.split(raw):
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"data":
                data.append(value)
            elif name == b"event":
                event = value.decode()
        return cls(raw, event, b"\n".join(data) if data else None)

    @property
    def comment(self) -> bool:
        """Nothing but comments, so no client sees an event."""
        return all(line.startswith(b":") for line in LINES.split(self.raw) if line)

    @property
    def done(self) -> bool:
        return self.data == b"[DONE]"

    @property
    def json(self) -> Any:
        assert self.data is not None, f"no data in {self.raw!r}"
        return jsonlib.loads(self.data)

    @property
    def content(self) -> str | None:
        """``choices[0].delta.content`` of a chat chunk; None where there is none."""
        choices = () if self.done else self.json.get("choices") or ()
        return choices[0].get("delta", {}).get("content") if choices else None


def request_bytes(
    method: str,
    target: str,
    *,
    host: str = "127.0.0.1",
    headers: Headers = (),
    json: Any = None,
    body: bytes | None = None,
) -> bytes:
    """A request in one piece; what the caller's headers already say is not said again."""
    given = pairs(headers)
    names = {name.lower() for name, _ in given}
    if json is not None:
        body = jsonlib.dumps(json, ensure_ascii=False).encode()
        if "content-type" not in names:
            given.append(("Content-Type", "application/json"))
    if "host" not in names:
        given.insert(0, ("Host", host))
    if body is not None and not names & {"content-length", "transfer-encoding"}:
        given.append(("Content-Length", str(len(body))))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in given)]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + (body or b"")


@dataclass(eq=False)
class Answer:
    """One response: its head is in, its body comes when asked for.

    ``outcome`` is None while the body runs; then ``whole`` (it ended as HTTP says), ``cut`` (the connection
    closed first) or ``reset``.  A body without a length that ends with the connection counts as ``whole``.
    """

    connection: Connection
    version: str
    status: int
    reason: str
    headers: list[tuple[str, str]]
    interim: list[int] = field(default_factory=list)
    outcome: Literal["whole", "cut", "reset"] | None = None
    trailers: list[tuple[str, str]] = field(default_factory=list)
    _left: int | None = None  # bytes of the body still to come, where the head told its length
    _chunked: bool = False
    _text: bytearray = field(default_factory=bytearray)  # body bytes that are not yet a whole frame
    _swallow_lf: bool = False  # the last frame ended in CR: its LF may follow

    def header(self, name: str, default: str | None = None) -> str | None:
        return next(iter(self.values(name)), default)

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def whole(self) -> bool:
        return self.outcome == "whole"

    # The body in pieces

    async def chunk(self) -> bytes | None:
        """The next HTTP chunk exactly as it was sent, or, where the body is not chunked, the next bytes.

        None at the end; ``outcome`` then says which end it was.
        """
        if self.outcome is not None:
            return None
        return await within(self._chunk(), f"the next piece of {self!r}")

    async def chunks(self) -> AsyncIterator[bytes]:
        while (piece := await self.chunk()) is not None:
            yield piece

    async def _chunk(self) -> bytes | None:
        connection = self.connection
        if self._chunked:
            return await self._one_chunk()
        if self._left == 0:
            self.outcome = "whole"
            return None
        if not connection.buffer and not await connection.more():
            self.outcome = connection.lost if self._left is not None or connection.lost == "reset" else "whole"
            return None
        piece = connection.take(len(connection.buffer) if self._left is None else self._left)
        if self._left is not None:
            self._left -= len(piece)
        return piece

    async def _one_chunk(self) -> bytes | None:
        connection = self.connection
        line = await connection.line()
        if line is None:
            self.outcome = connection.lost
            return None
        size = re.fullmatch(rb"([0-9a-fA-F]+)(?:;.*)?", line)
        if size is None:
            raise Malformed(f"{line!r} is no chunk size")
        wanted = int(size[1], 16)
        if wanted == 0:
            await self._trailers()
            return None
        while len(connection.buffer) < wanted + 2:
            if not await connection.more():
                self.outcome = connection.lost  # what came of this chunk is told: a client has seen it, too
                return connection.take(wanted) or None
        piece = connection.take(wanted)
        if connection.take(2) != b"\r\n":
            raise Malformed(f"no CRLF after a chunk of {wanted} bytes")
        return piece

    async def _trailers(self) -> None:
        while line := await self.connection.line():
            name, _, value = line.decode("latin-1").partition(":")
            self.trailers.append((name, value.strip()))
        self.outcome = self.connection.lost if line is None else "whole"

    # The body as an event stream

    async def frame(self) -> Frame | None:
        """The next frame, comments too; None at the end of the body."""
        while True:
            if self._swallow_lf and self._text:
                if self._text.startswith(b"\n"):
                    del self._text[:1]
                self._swallow_lf = False
            if end := BLANK.search(self._text):
                raw = bytes(self._text[: end.end()])
                del self._text[: end.end()]
                self._swallow_lf = raw.endswith(b"\r")
                return Frame.parse(raw)
            piece = await self.chunk()
            if piece is None:
                return None
            self._text += piece

    async def event(self) -> Frame | None:
        """The next frame that a client sees: comments are skipped."""
        while (frame := await self.frame()) is not None:
            if frame.data is not None:
                return frame
        return None

    async def frames(self) -> list[Frame]:
        """All that is left, comments too."""
        found = []
        while (frame := await self.frame()) is not None:
            found.append(frame)
        return found

    async def events(self) -> list[Frame]:
        return [frame for frame in await self.frames() if frame.data is not None]

    @property
    def unfinished(self) -> bytes:
        """What was left without a blank line after it."""
        return bytes(self._text)

    # The body in one

    async def rest(self) -> bytes:
        """Everything that is left, however it ends."""
        told = bytes(self._text)
        self._text.clear()
        return told + b"".join([piece async for piece in self.chunks()])

    async def body(self) -> bytes:
        """Everything that is left.  Raises ``Cut`` if it is not whole."""
        told = await self.rest()
        if not self.whole:
            raise Cut(f"{self!r} after {told[-200:]!r}")
        return told

    async def json(self) -> Any:
        return jsonlib.loads(await self.body())

    def __repr__(self) -> str:
        return f"<answer {self.status} {self.outcome or 'under way'}>"


class Connection:
    """One connection to the gateway; ``buffer`` holds what was received and not yet asked for."""

    def __init__(self, sock: socket.socket, port: int) -> None:
        self.sock = sock
        self.port = port
        self.buffer = bytearray()
        #: How the gateway ended the connection, once it did.
        self.lost: Literal["cut", "reset"] | None = None
        self._asked: list[str] = []  # methods still to be answered: a HEAD has no body

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    # Sending

    async def send(self, data: bytes) -> None:
        """Any bytes, as they are; waits until the kernel took them.  Raises ``ConnectionError`` if it is too late."""
        await within(asyncio.get_running_loop().sock_sendall(self.sock, data), f"sending {len(data)} bytes")

    async def drip(self, data: bytes, size: int = 1) -> None:
        """``size`` bytes at a time, with a turn of the event loop for the reader after each."""
        for at in range(0, len(data), size):
            await self.send(data[at : at + size])
            await asyncio.sleep(0)

    async def request(
        self, method: str, target: str, *, headers: Headers = (), json: Any = None, body: bytes | None = None
    ) -> None:
        """Send a request; ``answer`` reads what comes back."""
        host = f"127.0.0.1:{self.port}"
        await self.send(request_bytes(method, target, host=host, headers=headers, json=json, body=body))
        self._asked.append(method)

    async def ask(
        self, method: str, target: str, *, headers: Headers = (), json: Any = None, body: bytes | None = None
    ) -> Answer:
        """Send a request and read the answer's head."""
        await self.request(method, target, headers=headers, json=json, body=body)
        return await self.answer()

    # Receiving

    async def answer(self) -> Answer:
        """The next response's head.  Raises ``Cut`` if the connection ends first."""
        return await within(self._answer(), "the head of an answer")

    async def _answer(self) -> Answer:
        interim: list[int] = []
        while True:
            version, status, reason, headers = await self._head()
            if status >= 200 or status == 101:
                break
            interim.append(status)
        method = self._asked.pop(0) if self._asked else "GET"
        answer = Answer(self, version, status, reason, headers, interim)
        lengths, codings = answer.values("content-length"), answer.values("transfer-encoding")
        if (lengths and codings) or len(set(lengths)) > 1:
            raise Malformed(f"two body lengths: {lengths} {codings}")
        if method == "HEAD" or status in {204, 304}:
            answer._left, answer.outcome = 0, "whole"
        elif codings:
            answer._chunked = True
        elif lengths:
            answer._left = int(lengths[0])
        return answer

    async def _head(self) -> tuple[str, int, str, list[tuple[str, str]]]:
        line = await self.line()
        if line is None:
            raise Cut(f"the connection was {self.lost} before an answer: {bytes(self.buffer[:200])!r}")
        start = re.fullmatch(r"(HTTP/1\.[01]) (\d{3}) ?(.*)", line.decode("latin-1"))
        if start is None:
            raise Malformed(f"{line!r} is no status line")
        headers = []
        while line := await self.line():
            name, colon, value = line.decode("utf-8", "surrogateescape").partition(":")
            if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
                raise Malformed(f"{line!r} is no header")
            headers.append((name, value.strip(" \t")))
        if line is None:
            raise Cut(f"the connection was {self.lost} inside a head")
        return start[1], int(start[2]), start[3], headers

    async def line(self) -> bytes | None:
        """The next line without its CRLF; None if the connection ends before it does."""
        while (at := self.buffer.find(b"\r\n")) < 0:
            if not await self.more():
                return None
        line = self.take(at)
        del self.buffer[:2]
        return line

    def take(self, count: int) -> bytes:
        """At most ``count`` bytes of what is there."""
        piece = bytes(self.buffer[:count])
        del self.buffer[:count]
        return piece

    async def more(self, limit: int = 65536) -> bool:
        """Read once from the socket; False when nothing more will come."""
        if self.lost is not None:
            return False
        try:
            data = await asyncio.get_running_loop().sock_recv(self.sock, limit)
        except ConnectionError:
            self.lost = "reset"
            return False
        if not data:
            self.lost = "cut"
            return False
        self.buffer += data
        return True

    async def closed(self) -> str:
        """Wait until the gateway ends the connection: ``cut`` or ``reset``.  What came before stays in ``buffer``."""

        async def drained() -> str:
            while await self.more():
                pass
            return self.lost or ""

        return await within(drained(), "the connection's end")

    # Leaving

    def half_close(self) -> None:
        """Nothing more will be sent; answers are still read."""
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Leave, as a closed browser tab does.  (With unread bytes the kernel makes it an RST.)"""
        self.sock.close()

    def abort(self) -> None:
        """Leave with an RST."""
        if self.sock.fileno() >= 0:
            reset_on_close(self.sock)
        self.sock.close()


async def connect(port: int, host: str = "127.0.0.1", *, receive_buffer: int | None = None) -> Connection:
    """Open a connection.  A small ``receive_buffer`` (bytes; the kernel doubles it) fills up soon."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await within(asyncio.get_running_loop().sock_connect(sock, (host, port)), f"connecting to port {port}")
    except BaseException:
        sock.close()
        raise
    return Connection(sock, port)


def contents(frames: Iterable[Frame]) -> list[str]:
    """The text deltas in some frames of a chat stream, empty ones left out."""
    return [text for frame in frames if frame.data is not None and (text := frame.content)]
