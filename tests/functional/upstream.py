"""A fake provider for tests: a real server on a loopback port, scripted per test.

    async def test_something(upstream, gateway):
        gate = Gate()
        upstream.script = gated_stream(conversation("Hel", "lo"), gate)
        ...
        call = await upstream.arrived()                  # the request as the gateway sent it
        assert call.header("authorization") == "Bearer sk-upstream-secret"
        gate.open()                                      # lets one frame through
        ...
        await call.gone()                                # the gateway closed the connection

A script is ``async def script(call: Call) -> None``; it answers one request with what ``Call`` offers, byte by
byte if it must.  A script that returns before ``done()`` leaves a torn answer: the connection is closed there.
``Gone`` ends a script quietly when the gateway left first.  Anything else that a script raises, and anything
malformed that the gateway sends, fails the test when the upstream stops.

Ready-made scripts stand at the end; ``ordinary()``, the default, answers like a provider in good health.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json as jsonlib
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from tests.codings import Coding, Packer, packer

from .wire import Headers, pairs, reset_on_close, within

if TYPE_CHECKING:
    import ssl

Script = Callable[["Call"], Awaitable[None]]
#: What ``Call.frame`` takes: an object to be sent as ``data:``, or the frame's own bytes.
Sendable = Mapping[str, Any] | bytes

JSON = {"Content-Type": "application/json"}
EVENT_STREAM = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
DONE = b"data: [DONE]\n\n"


class Gone(ConnectionError):
    """The gateway has closed the connection; there is nobody left to answer."""


# What a provider says


def sse(data: Any, *, event: str = "", end: str = "\n") -> bytes:
    """One frame.  ``data`` may be text, bytes, or anything JSON can say; ``end`` is the kind of line end."""
    text = data if isinstance(data, str) else data.decode() if isinstance(data, bytes) else compact(data)
    lines = [f"event: {event}"] if event else []
    lines += [f"data: {line}" for line in text.split("\n")]
    return (end.join(lines) + end + end).encode()


def compact(obj: Any) -> str:
    return jsonlib.dumps(obj, ensure_ascii=False, separators=(",", ":"))


def usage(prompt: int = 5, completion: int = 7, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **more}


def chunk(
    content: str | None = None,
    *,
    role: str | None = None,
    finish: str | None = None,
    usage: Mapping[str, Any] | None = None,
    delta: Mapping[str, Any] | None = None,
    model: str = "m",
    id: str = "chatcmpl-1",
    **more: Any,
) -> dict[str, Any]:
    """One ``chat.completion.chunk``.

    ``delta`` adds to what ``role`` and ``content`` say (tool calls, reasoning); ``more`` are top-level fields.
    With ``usage`` and nothing else it is the chunk with empty ``choices`` that OpenAI sends last.
    """
    said: dict[str, Any] = {} if role is None else {"role": role}
    if content is not None:
        said["content"] = content
    said |= delta or {}
    bare = usage is not None and not said and finish is None
    choices = [] if bare else [{"index": 0, "delta": said, "logprobs": None, "finish_reason": finish}]
    told = {"id": id, "object": "chat.completion.chunk", "created": 1700000000, "model": model, "choices": choices}
    return {**told, **({} if usage is None else {"usage": dict(usage)}), **more}


def conversation(*texts: str, usage: Mapping[str, Any] | None = None, finish: str = "stop") -> list[Sendable]:
    """The frames of a good stream: role, one per text, the finish reason, usage if given, ``[DONE]``."""
    frames: list[Sendable] = [chunk("", role="assistant"), *(chunk(text) for text in texts), chunk(finish=finish)]
    if usage is not None:
        frames.append(chunk(usage=usage))
    return [*frames, DONE]


def completion(content: str = "Hello!", *, model: str = "m", finish: str = "stop", **more: Any) -> dict[str, Any]:
    """A whole ``chat.completion``; ``more`` are top-level fields."""
    message = {"role": "assistant", "content": content, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    told = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": model}
    return {**told, "choices": [choice], "usage": usage(), **more}


def fault(message: str = "it broke", *, type: str = "server_error", **more: Any) -> dict[str, Any]:
    """An error body in OpenAI's form; as a frame it is the error inside a stream."""
    return {"error": {"message": message, "type": type, "param": None, "code": None, **more}}


# One exchange


class Call:
    """A request as it arrived, and the means to answer it."""

    def __init__(
        self, connection: Connection, number: int, start: re.Match[str], headers: list[tuple[str, str]]
    ) -> None:
        self.connection = connection
        #: Counts from 1 over the whole upstream.
        self.number = number
        self.method = start[1]
        #: Path and query exactly as sent.
        self.target = start[2]
        #: As received: order, case and repetitions kept.
        self.headers = headers
        #: Whole before the script starts, unless the upstream is ``early``.
        self.body = b""
        self.finished = False
        #: Bytes that scripts handed over so far, framing included.
        self.sent = 0
        #: The script has ended, one way or another.
        self.over = asyncio.Event()
        self.read = False  # the request body is in
        self._headed = False
        self._framing: Framing = "none"
        self._packer: Packer | None = None  # where the body is encoded
        self._closing = False  # no other request may follow on this connection

    # What was asked

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    def header(self, name: str, default: str | None = None) -> str | None:
        return next(iter(self.values(name)), default)

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def asked(self) -> Any:
        """The request body as JSON."""
        return jsonlib.loads(self.body)

    @property
    def reused(self) -> bool:
        """Did this connection carry another request before?"""
        return self.connection.calls[0] is not self

    async def read_body(self) -> bytes:
        """Take the request's body in; scripts of an ``early`` upstream say when."""
        if not self.read:
            self.body = await self.connection.read_body(self)
            self.read = True
        return self.body

    # The answer, from its head to its end

    async def interim(self, status: int = 103, headers: Headers = ()) -> None:
        """A 1xx head before the real one."""
        await self.raw(head_bytes("HTTP/1.1", status, pairs(headers)))

    async def head(
        self,
        status: int = 200,
        headers: Headers = EVENT_STREAM,
        *,
        framing: Framing = "chunked",
        length: int | None = None,
        encoding: Coding | Literal[""] = "",
        version: str = "HTTP/1.1",
    ) -> None:
        """Send the head, nothing else.

        ``framing`` is how the body ends: ``chunked``; ``close``, with the connection; ``none``, there is no body.
        ``length`` instead says Content-Length, true or not.  ``encoding`` compresses what ``send`` is given, and
        flushes after each, so that every piece can be decoded at once.  HTTP/1.0 knows no chunks: ``close``.
        """
        if version == "HTTP/1.0" and framing == "chunked":
            framing = "close"
        self._framing = "length" if length is not None else framing
        told = pairs(headers)
        if length is not None:
            told.append(("Content-Length", str(length)))
        elif framing == "chunked":
            told.append(("Transfer-Encoding", "chunked"))
        if encoding:
            told.append(("Content-Encoding", encoding))
            self._packer = packer(encoding)
        if framing == "close" and version == "HTTP/1.1":
            told.append(("Connection", "close"))
        self._closing = (
            self._framing == "close"
            or version == "HTTP/1.0"
            or ("connection", "close") in ((k.lower(), v) for k, v in told)
        )
        self._headed = True
        await self.raw(head_bytes(version, status, told))

    async def send(self, data: bytes) -> None:
        """Body bytes, framed and encoded as the head said; one call is one HTTP chunk."""
        if self._packer is not None:
            data = self._packer.pack(data) + self._packer.flush()
        await self._body(data)

    async def frame(self, data: Sendable, *, event: str = "") -> None:
        """One SSE frame, in a chunk of its own; with the usual head before it, if none was sent."""
        if not self._headed:
            await self.head()
        await self.send(data if isinstance(data, bytes) else sse(data, event=event))

    async def done(self, trailers: Headers = ()) -> None:
        """End the body as its framing asks for; the connection stays open for more, if it may."""
        if self.read and self.connection.pending:
            raise AssertionError(f"the gateway sent {self.connection.pending} bytes before its answer had ended")
        self.finished = True
        if self._packer is not None:
            await self._body(self._packer.finish())
        if self._framing == "chunked":
            await self.raw(b"0\r\n" + b"".join(f"{k}: {v}\r\n".encode() for k, v in pairs(trailers)) + b"\r\n")
        if self._closing:
            self.close()

    async def reply(self, body: Any, status: int = 200, headers: Headers = JSON) -> None:
        """A whole answer with its Content-Length, in one write; ``body`` is bytes or JSON."""
        data = body if isinstance(body, bytes) else compact(body).encode()
        told = [*pairs(headers), ("Content-Length", str(len(data)))]
        self._headed = self.finished = True
        self._closing = ("connection", "close") in ((k.lower(), v) for k, v in told)
        await self.raw(head_bytes("HTTP/1.1", status, told) + data)
        if self._closing:
            self.close()

    # Bytes below the framing

    async def raw(self, data: bytes) -> None:
        """These bytes as they are; returns when the kernel took them all.  Raises ``Gone``."""
        self.sent += len(data)
        await self.connection.write(data)

    async def drip(self, data: bytes, size: int = 1) -> None:
        """Body bytes, ``size`` at a time, each in its own segment (and HTTP chunk)."""
        for at in range(0, len(data), size):
            await self.send(data[at : at + size])
            await asyncio.sleep(0)  # the gateway's turn to read

    async def drip_raw(self, data: bytes, size: int = 1) -> None:
        """The same below the framing: heads and chunk sizes can be cut anywhere, too."""
        for at in range(0, len(data), size):
            await self.raw(data[at : at + size])
            await asyncio.sleep(0)

    async def torn(self, data: bytes, missing: int = 16) -> None:
        """The beginning of an HTTP chunk that is ``missing`` bytes longer; close or reset after it."""
        await self.raw(b"%x\r\n" % (len(data) + missing) + data)

    async def _body(self, data: bytes) -> None:
        if not self._headed:
            raise AssertionError("a script sent a body before its head")
        if data:
            await self.raw(b"%x\r\n%b\r\n" % (len(data), data) if self._framing == "chunked" else data)

    # Ends that are not in the book

    def close(self) -> None:
        """FIN, wherever the answer is."""
        self.connection.close()

    def reset(self) -> None:
        """RST, wherever the answer is."""
        self.connection.reset()

    def half_close(self) -> None:
        """FIN from here; still reading."""
        self.connection.half_close()

    # What the gateway does

    @property
    def left(self) -> bool:
        """Has the gateway closed this connection (FIN or RST)?"""
        return self.connection.gone.is_set()

    async def gone(self) -> None:
        """Wait until the gateway closes this connection."""
        await within(self.connection.gone.wait(), f"the gateway leaving {self!r}")

    async def ended(self) -> None:
        """Wait until the script is through."""
        await within(self.over.wait(), f"the end of {self!r}")

    @property
    def accepted(self) -> int:
        """How many of the sent bytes the kernel took; the rest waits here until the gateway reads."""
        return self.sent - self.connection.unsent

    async def settled(self, quiet: float = 0.3) -> int:
        """Wait until the script has ended or nothing moved for ``quiet`` seconds; return ``accepted``.

        For back-pressure: a gateway without it lets a ``flood`` run to its end; compare with an upper bound.
        """

        async def still() -> int:
            while not self.over.is_set():
                before = self.accepted
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.over.wait(), quiet)
                if self.accepted == before:
                    break
            return self.accepted

        return await within(still(), f"{self!r} coming to rest")

    def __repr__(self) -> str:
        return f"<call {self.number} {self.method} {self.target} on connection {self.connection.number}>"


Framing = Literal["chunked", "length", "close", "none"]


def head_bytes(version: str, status: int, headers: Sequence[tuple[str, str]]) -> bytes:
    reason = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Unheard Of"
    lines = [f"{version} {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n"


# One connection


class Connection(asyncio.Protocol):
    """Requests of the gateway, one after the other, each handed to the script."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        #: Counts from 1 over the whole upstream.
        self.number = 0
        self.calls: list[Call] = []
        #: The gateway closed it (FIN or RST), or it broke.
        self.gone = asyncio.Event()
        #: Closed on both sides.
        self.lost = asyncio.Event()
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._news = asyncio.Event()  # bytes came, or the end did
        self._flowing = asyncio.Event()  # cleared while the kernel takes no more
        self._flowing.set()
        self._busy = False  # a request has begun and its answer has not ended
        self.task: asyncio.Task[None] | None = None

    # From the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        if not self.upstream.tls:  # whose layer does not tell when it is empty
            # A write is over when the kernel has it: nothing hides here.
            self._transport.set_write_buffer_limits(high=0)
        self.upstream.connections.append(self)
        self.number = len(self.upstream.connections)
        self.task = asyncio.create_task(self._serve(), name=f"{TASKS}-{self.number}")

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._news.set()

    def eof_received(self) -> bool:
        self._leave()
        return not self.upstream.tls  # keep the half that is still open: scripts decide; TLS has no halves

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        self.lost.set()
        self._flowing.set()

    def pause_writing(self) -> None:
        self._flowing.clear()

    def resume_writing(self) -> None:
        self._flowing.set()

    def _leave(self) -> None:
        self.gone.set()
        self._news.set()

    # Requests

    async def _serve(self) -> None:
        try:
            while (call := await self._next_call()) is not None:
                await self._exchange(call)
                if not call.finished:
                    break
                await call.read_body()  # what an early answer left unread
        except Gone:
            pass
        except Exception as exc:
            self.upstream.faults.append(exc)
        finally:
            self.close()

    async def _exchange(self, call: Call) -> None:
        self.calls.append(call)
        try:
            if not self.upstream.early:
                await call.read_body()
            self.upstream._tell(call)
            await self.upstream.script(call)
        finally:
            call.over.set()
            self._busy = False

    async def _next_call(self) -> Call | None:
        """The next request head; None when the gateway closes between two requests."""
        while b"\r\n\r\n" not in self._received:
            if self.gone.is_set():
                if self._received:
                    raise AssertionError(f"the gateway left inside a request head: {bytes(self._received[:200])!r}")
                return None
            await self._more()
        self._busy = True
        head, _, _ = bytes(self._received).partition(b"\r\n\r\n")
        del self._received[: len(head) + 4]
        first, *lines = head.decode("utf-8", "surrogateescape").split("\r\n")
        start = re.fullmatch(r"([A-Z]+) (/\S*) HTTP/1\.1", first)
        fields = [re.fullmatch(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([^\r\n\0]*)", line) for line in lines]
        if start is None or None in fields:
            raise AssertionError(f"the gateway sent a malformed head: {head!r}")
        headers = [(found[1], found[2].strip()) for found in fields if found]
        call = Call(self, next(self.upstream._numbers), start, headers)
        if len(call.values("host")) != 1 or (call.values("content-length") and call.values("transfer-encoding")):
            raise AssertionError(f"the gateway sent an ambiguous head: {head!r}")
        return call

    async def read_body(self, call: Call) -> bytes:
        if "chunked" in (call.header("transfer-encoding") or ""):
            return b"".join([piece async for piece in self._chunks()])
        return await self._exactly(int(call.header("content-length") or 0))

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self._line(), 16):
            yield await self._exactly(size)
            await self._line()
        while await self._line():
            pass

    async def _line(self) -> bytes:
        while (at := self._received.find(b"\r\n")) < 0:
            await self._more()
        line = await self._exactly(at)
        await self._exactly(2)
        return line

    async def _exactly(self, count: int) -> bytes:
        while len(self._received) < count:
            await self._more()
        told = bytes(self._received[:count])
        del self._received[:count]
        return told

    async def _more(self) -> None:
        if self.gone.is_set():
            raise Gone("the gateway left inside a request")
        self._news.clear()
        await self._news.wait()

    @property
    def pending(self) -> int:
        """Bytes received that belong to no request yet."""
        return len(self._received)

    # Answers

    async def write(self, data: bytes) -> None:
        if self.gone.is_set() or self._transport is None or self._transport.is_closing():
            raise Gone("the connection is closed")
        self._transport.write(data)
        await self._flowing.wait()
        if self.lost.is_set():
            raise Gone("the connection broke")

    @property
    def unsent(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport and not self.lost.is_set() else 0

    @property
    def idle(self) -> bool:
        """Open, and between two requests: what a pool would use again."""
        return not (self._busy or self.gone.is_set() or self.lost.is_set())

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        if self._transport is not None and not self.lost.is_set():
            reset_on_close(self._transport.get_extra_info("socket"))
            self._transport.abort()

    def half_close(self) -> None:
        if self._transport is not None:
            self._transport.write_eof()

    def __repr__(self) -> str:
        return f"<connection {self.number}, {len(self.calls)} calls>"


#: How the tasks of an upstream are named, so that nobody takes them for leaks.
TASKS = "fake-upstream"


# The provider


class Upstream:
    """The listening side: scripts go in, calls come out.

    ``script`` may be changed at any time; it is looked up when a request is in.
    """

    def __init__(self, script: Script | None = None, *, tls: ssl.SSLContext | None = None) -> None:
        self.script: Script = script or ordinary()
        self.tls = tls
        #: True: scripts start when the request's head is in, and read the body (or not) themselves.
        self.early = False
        #: Everything that arrived, in order.
        self.calls: list[Call] = []
        self.connections: list[Connection] = []
        #: What went wrong in scripts and in the gateway's requests; raised by ``stop``.
        self.faults: list[Exception] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._numbers = itertools.count(1)
        self._taken = 0  # calls that ``arrived`` has handed out
        self._arrival = asyncio.Event()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def listen(self) -> Self:
        """Take connections: at first on a free port, after ``refuse`` on the same one."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self), "127.0.0.1", self.port, ssl=self.tls, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def refuse(self) -> None:
        """From now on connections are refused; those that are open stay open."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def stop(self) -> None:
        """Stop listening, cut what is open, and raise what went wrong meanwhile."""
        self.refuse()
        tasks = [connection.task for connection in self.connections if connection.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in self.connections:
            if connection._transport is not None and not connection.lost.is_set():
                connection._transport.abort()
            await within(connection.lost.wait(), f"closing {connection!r}")
        if len(self.faults) == 1:
            raise self.faults[0]
        if self.faults:
            raise ExceptionGroup("the fake upstream met more than one fault", self.faults)

    async def __aenter__(self) -> Self:
        return await self.listen()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # What happened

    def _tell(self, call: Call) -> None:
        self.calls.append(call)
        self._arrival.set()

    async def arrived(self) -> Call:
        """The next request that no earlier ``arrived`` has told; waits for it."""

        async def next_one() -> Call:
            while len(self.calls) <= self._taken:
                self._arrival.clear()
                await self._arrival.wait()
            self._taken += 1
            return self.calls[self._taken - 1]

        return await within(next_one(), f"request {self._taken + 1} at the upstream")

    @property
    def open(self) -> list[Connection]:
        """Connections that the gateway has not closed."""
        return [connection for connection in self.connections if not connection.gone.is_set()]

    async def quiet(self) -> None:
        """Wait until the gateway has closed every connection."""
        for connection in self.connections:
            await within(connection.gone.wait(), f"the gateway leaving {connection!r}")

    # Idle connections, as providers end them

    async def close_idle(self) -> int:
        """FIN on every connection between two requests; returns how many, once the gateway has answered it."""
        return await self._end_idle(Connection.close)

    async def reset_idle(self) -> int:
        """The same with RST."""
        return await self._end_idle(Connection.reset)

    async def _end_idle(self, end: Callable[[Connection], None]) -> int:
        idle = [connection for connection in self.connections if connection.idle]
        for connection in idle:
            end(connection)
            await within(connection.lost.wait(), f"closing {connection!r}")
        return len(idle)


@contextlib.asynccontextmanager
async def blackhole() -> AsyncIterator[int]:
    """A loopback port where connecting neither succeeds nor fails: its backlog is full, so SYNs are dropped."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = []
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            fillers.append(asyncio.ensure_future(loop.sock_connect(filler, ("127.0.0.1", port))))
        await asyncio.sleep(0)
        try:
            yield port
        finally:
            for task in fillers:
                task.cancel()
            await asyncio.gather(*fillers, return_exceptions=True)


# Gates: order is proved, not timed


class Gate:
    """A turnstile between a test and a script: each ``open()`` lets one ``await gate.passed()`` through."""

    def __init__(self) -> None:
        self._tickets = asyncio.Semaphore(0)
        self._forever = False
        #: How often a script has come here, let through or not.
        self.reached = 0
        self._came = asyncio.Event()

    def open(self, times: int = 1) -> None:
        for _ in range(times):
            self._tickets.release()

    def open_all(self) -> None:
        """No more waiting here."""
        self._forever = True
        self._tickets.release()

    async def passed(self) -> None:
        """The script's side: wait for a ticket."""
        self.reached += 1
        self._came.set()
        await self._tickets.acquire()
        if self._forever:
            self._tickets.release()

    async def waited_at(self, times: int = 1) -> None:
        """The test's side: wait until a script has come here ``times`` times in all."""

        async def come() -> None:
            while self.reached < times:
                self._came.clear()
                await self._came.wait()

        await within(come(), f"a script coming to its gate {times} times")


Gates = Gate | Sequence[asyncio.Event | None]


# Ready-made scripts


def ordinary(content: str = "Hello!") -> Script:
    """A provider in good health: whole or streamed as asked, usage if asked, models, embeddings."""

    async def script(call: Call) -> None:
        if call.path.endswith("/models"):
            return await call.reply({"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "up"}]})
        if call.path.endswith("/embeddings"):
            vector = {"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}
            return await call.reply({"object": "list", "data": [vector], "model": "m", "usage": usage(5, 0)})
        if not call.path.endswith("/completions"):
            return await call.reply(fault(f"no {call.path} here", type="invalid_request_error"), 404)
        asked = call.asked
        model = asked.get("model", "m")
        if not asked.get("stream"):
            return await call.reply(completion(content, model=model))
        counted = usage() if (asked.get("stream_options") or {}).get("include_usage") else None
        for frame in conversation(*re.findall(r"\S+\s*|\s+", content), usage=counted):
            await call.frame({**frame, "model": model} if isinstance(frame, Mapping) else frame)
        return await call.done()

    return script


def whole(body: Any = None, status: int = 200, headers: Headers = JSON, *, prefix: bytes = b"") -> Script:
    """One answer with its length.  ``prefix`` goes before the JSON (DeepSeek's blank lines)."""

    async def script(call: Call) -> None:
        told = completion() if body is None else body
        await call.reply(prefix + (told if isinstance(told, bytes) else compact(told).encode()), status, headers)

    return script


def refusal(status: int, message: str = "no", headers: Headers = (), **more: Any) -> Script:
    """An error status with an error body in OpenAI's form; ``more`` are fields of the error."""
    return whole(fault(message, **more), status, [*JSON.items(), *pairs(headers)])


def stream(
    frames: Iterable[Sendable],
    *,
    status: int = 200,
    headers: Headers = EVENT_STREAM,
    framing: Framing = "chunked",
    encoding: Coding | Literal[""] = "",
    version: str = "HTTP/1.1",
) -> Script:
    """A stream that ends well; every frame is one write.  See ``Call.head`` for the rest."""
    frames = list(frames)

    async def script(call: Call) -> None:
        await call.head(status, headers, framing=framing, encoding=encoding, version=version)
        for frame in frames:
            await call.frame(frame)
        await call.done()

    return script


def gated_stream(frames: Iterable[Sendable], gates: Gates, *, headers: Headers = EVENT_STREAM) -> Script:
    """Head at once, then a gate before each frame, and one before the end if there are gates left.

    ``gates`` is one ``Gate`` for all, or one ``asyncio.Event`` a frame (None: no waiting).
    """
    frames = list(frames)

    async def script(call: Call) -> None:
        await call.head(200, headers)
        for at, frame in enumerate(frames):
            await _pass(gates, at)
            await call.frame(frame)
        await _pass(gates, len(frames))
        await call.done()

    return script


async def _pass(gates: Gates, at: int) -> None:
    if isinstance(gates, Gate):
        await gates.passed()
    elif at < len(gates) and (event := gates[at]) is not None:
        await event.wait()


def pieces(data: Iterable[bytes], headers: Headers = EVENT_STREAM, *, framing: Framing = "chunked") -> Script:
    """A body in exactly these pieces, cut wherever the test likes, that ends well."""
    data = list(data)

    async def script(call: Call) -> None:
        await call.head(200, headers, framing=framing)
        for piece in data:
            await call.drip(piece, max(1, len(piece)))
        await call.done()

    return script


def held(frames: Iterable[Sendable] = ()) -> Script:
    """Some frames, then silence for as long as the gateway stays."""
    frames = list(frames)

    async def script(call: Call) -> None:
        await call.head()
        for frame in frames:
            await call.frame(frame)
        await call.connection.gone.wait()

    return script


def silent() -> Script:
    """The request is taken and never answered."""

    async def script(call: Call) -> None:
        await call.connection.gone.wait()

    return script


def broken(frames: Iterable[Sendable], how: Literal["close", "reset", "half_close"] = "close") -> Script:
    """A stream that ends after these frames without its last chunk."""
    frames = list(frames)

    async def script(call: Call) -> None:
        await call.head()
        for frame in frames:
            await call.frame(frame)
        {"close": call.close, "reset": call.reset, "half_close": call.half_close}[how]()
        if how == "half_close":
            await call.connection.gone.wait()

    return script


def hung_up(how: Literal["close", "reset"] = "close") -> Script:
    """The request is taken and the connection ended without a byte."""

    async def script(call: Call) -> None:
        (call.close if how == "close" else call.reset)()

    return script


def stale(then: Script | None = None, how: Literal["close", "reset"] = "close") -> Script:
    """Hang up on a request that comes on a used connection, as if it had crossed the close of an idle one."""
    fresh, used = then or ordinary(), hung_up(how)

    async def script(call: Call) -> None:
        await (used if call.reused else fresh)(call)

    return script


def redirect(location: str, status: int = 307) -> Script:
    return whole(b"", status, {"Location": location})


def big_head(size: int, then: bytes = b"{}") -> Script:
    """An answer with one header of ``size`` bytes."""
    return whole(then, 200, {**JSON, "X-Big": "b" * size})


def flood(frame: Sendable, times: int) -> Script:
    """The same frame, as often and as fast as the gateway takes it, then ``[DONE]``."""
    raw = frame if isinstance(frame, bytes) else sse(frame)
    return stream([*[raw] * times, DONE])


def in_turn(*scripts: Script) -> Script:
    """The first request gets the first script, and so on; the last one stays."""
    left = list(scripts)

    async def script(call: Call) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(call)

    return script
