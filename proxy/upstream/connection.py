"""One connection to a provider: requests go out, answers are pushed to their receiver.

Bytes go on from `data_received`, with no task woken: one read, one push.  httptools parses;
what it leaves to its user is checked here: the size of heads, interim answers, bodies that end
with the connection, and bytes after a message, which poison the connection.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import httptools
from msgspec import Struct

from proxy.errors import GatewayError, UpstreamError
from proxy.upstream.decoding import body_decoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from proxy.upstream.decoding import BodyDecoder

MAX_HEAD = 64 * 1024  # bytes; some providers send single headers of more than 8 KiB
MAX_HEADERS = 256
#: Seconds for the rest of an answer whose owner has all it wants.
LINGER = 1.0
_BODILESS = frozenset({204, 205, 304})


class Head(Struct, frozen=True):
    """The head of an answer; header names are in lower case, of repeated ones the first counts."""

    status: int
    headers: dict[str, str]

    @property
    def good(self) -> bool:
        """Does this begin an answer, and not a refusal?"""
        return 200 <= self.status < 300


class Stale(Exception):
    """A kept connection turned out to be closed before any byte of an answer: ask again on a fresh one."""


class Receiver(Protocol):
    """Who is told what comes.  Its methods must not raise."""

    def answered(self, head: Head, body: bytes) -> None:
        """All of an answer came in one read: `head_came`, `data_came` and `ended` at once."""

    def head_came(self, head: Head) -> None: ...

    def data_came(self, chunk: bytes) -> None: ...

    def ended(self, error: GatewayError | Stale | None) -> None:
        """The answer is over: whole (None), or broken as ``error`` says.  Told once, last."""


class Call(Struct, eq=False):
    """One request in flight, as its owner may steer it."""

    _connection: Connection | None

    def pause(self) -> None:
        """Read no more until `resume`: the client cannot keep up."""
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """Read on."""
        if self._connection is not None:
            self._connection.resume()

    def abort(self) -> None:
        """Close the connection now; nothing more is told.  Does nothing once the answer is over."""
        if self._connection is not None:
            self._connection.abort()

    def leave(self) -> None:
        """The owner has all it wants: what is left of the body is read and thrown away, briefly."""
        if self._connection is not None:
            self._connection.leave()

    def over(self) -> None:
        self._connection = None


class Connection(asyncio.Protocol):
    """HTTP/1.1, one request at a time.  ``release`` is told when it can be used again."""

    def __init__(self, release: Callable[[Connection], None], lost: Callable[[Connection], None]) -> None:
        self._release = release
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._receiver: Receiver | None = None
        self._call: Call | None = None
        self._body: list[bytes] = []
        self._raw: dict[bytes, bytes] = {}
        #: httptools looks these up once: body pieces go straight to the list, headers to the dictionary.
        self.on_body = self._body.append
        self.on_header = self._raw.setdefault  # of repeated ones the first counts
        self._parser = httptools.HttpResponseParser(self)
        self._requests = 0
        self._paused = False
        self.idle_since = 0.0
        self._via: tuple[bytes, bytes] | None = None
        self._linger: asyncio.TimerHandle | None = None  # an answer's rest has this long, when nobody waits for it
        self._fresh_answer()

    def _fresh_answer(self) -> None:
        self._head_bytes = 0  # read of the head; -1 once it is whole
        self._bare_bytes = 0  # read since then without a byte of the body: chunk sizes, trailers
        self._answered = False  # any byte has come
        self._head: Head | None = None  # that the receiver has not been told
        self._raw.clear()
        self._interim = False
        self._complete = False
        self._amid = False  # the receiver has been told the head; pieces of the body go on as they are
        self._kept = False  # the provider will take another request on this connection
        self._framed = False  # the body's end is told by its length or chunks
        self._decoder: BodyDecoder | None = None
        self._pieces: Iterator[bytes] | None = None  # of what was read, where they are still to be decoded

    # Asking...

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def _unsent(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def send(self, head: bytes, body: bytes, receiver: Receiver) -> Call:
        """Write a request; ``head`` ends before the Content-Length's value."""
        assert self._transport is not None
        self._requests += 1
        self._receiver = receiver
        self._call = Call(self)
        if self._via is not None:
            head = self._rewritten(head, *self._via)
        length = str(len(body)).encode()
        if len(body) < 65536:
            self._transport.write(b"".join((head, length, b"\r\n\r\n", body)))
        else:  # two writes cost less than a copy
            self._transport.write(b"".join((head, length, b"\r\n\r\n")))
            self._transport.write(body)
        return self._call

    def through(self, prefix: str, authorization: str) -> None:
        """This connection leads to a proxy that is asked in absolute form: ``prefix`` is scheme and authority."""
        self._via = (prefix.encode("latin-1"), authorization.encode("latin-1"))

    @staticmethod
    def _rewritten(head: bytes, prefix: bytes, authorization: bytes) -> bytes:
        line, _, rest = head.partition(b"\r\n")
        line = line.replace(b" /", b" %b/" % prefix, 1)
        return b"\r\n".join([line, *([b"Proxy-Authorization: " + authorization] if authorization else []), rest])

    def pause(self) -> None:
        if self._transport is not None and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is None or not self._paused:
            return
        self._paused = False
        if self._pieces is not None and (broken := self._decode()):
            self._break(broken)
        elif not self._paused and not self._transport.is_closing():
            self._transport.resume_reading()
            if self._complete:
                self._finish()

    def abort(self) -> None:
        self._settle()
        self._pieces = None
        if self._transport is not None:
            self._transport.abort()

    def leave(self) -> None:
        if self._complete and self._pieces is None:
            return
        if self._decoder is not None:
            self.abort()  # to decode for nobody costs more than a new connection
            return
        self._settle()
        self.resume()
        loop = asyncio.get_running_loop()
        self._linger = loop.call_later(LINGER, self._give_up)  # the last chunk is usually on its way

    def _give_up(self) -> None:
        self._linger = None
        if self._transport is not None:
            self._transport.abort()

    # Hearing...

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._head_bytes >= 0:
            if self._call is None and self._receiver is None and self.idle_since:
                self._close()  # an answer that nobody asked for
                return
            self._answered = True
            self._head_bytes += len(data)
        error: GatewayError | None = None
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserUpgrade, httptools.HttpParserError) as exc:
            error = _understood(exc)
        else:
            body = self._body
            if body and self._amid and self._receiver is not None:
                chunk = body[0] if len(body) == 1 else b"".join(body)  # a piece in the middle, as most are
                body.clear()
                self._bare_bytes = 0
                self._receiver.data_came(chunk)
                return
        broken: GatewayError | None = None
        head = self._head
        if head is not None:
            if self._complete and error is None and self._decoder is None:
                self._answer(head)
                return
            self._head = None
            self._amid = self._decoder is None and not self._complete
            if self._receiver is not None:
                self._receiver.head_came(head)
        if self._body:
            self._bare_bytes = 0
            broken = self._push()
        elif self._head_bytes < 0:
            self._bare_bytes += len(data)
        if error is None and (self._head_bytes > MAX_HEAD or self._bare_bytes > MAX_HEAD):
            error = _overlong()
        if not self._complete:
            broken = broken or error
        elif error is not None:
            self._kept = False  # bytes after a good answer spoil the connection, not the answer
        if broken is not None:
            self._break(broken)
        elif self._complete and self._pieces is None:
            self._finish()

    def eof_received(self) -> bool:
        return False  # a provider that half-closes has said all it will

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._linger is not None:
            self._linger.cancel()
        self._lost(self)
        receiver, call = self._receiver, self._call
        if receiver is None:
            return
        if not self._answered and self._requests > 1:
            self._end(Stale())
        elif self._head_bytes >= 0:
            self._end(UpstreamError("the provider closed the connection without an answer"))
        elif exc is None and not self._framed:
            self._end(self._decoded())
        else:
            self._end(UpstreamError("the provider's answer was cut"))
        if call is not None:
            call.over()

    # What httptools tells...

    def on_message_begin(self) -> None:
        if self._complete:  # bytes after the message that we asked for
            raise UpstreamError("the provider sent more than one answer")

    def on_headers_complete(self) -> None:
        raw = self._raw
        if len(raw) > MAX_HEADERS:
            raise UpstreamError(f"the provider's answer has more than {MAX_HEADERS} headers")
        if self._head_bytes > MAX_HEAD and sum(map(len, raw)) + sum(map(len, raw.values())) > MAX_HEAD:
            raise _overlong()
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            self._interim = True
            return
        headers = {_name(name): value.decode("latin-1") for name, value in raw.items()}
        if len(headers) != len(raw):  # one name in two spellings: the first counts
            headers = {_name(name): value.decode("latin-1") for name, value in reversed(raw.items())}
        coding, measured = headers.get("transfer-encoding"), "content-length" in headers
        if coding and measured:
            raise UpstreamError("the provider's answer has conflicting lengths")
        self._head_bytes = -1
        self._framed = measured or status in _BODILESS or (coding or "").lower().endswith("chunked")
        if "content-encoding" in headers:
            self._decoder = body_decoder(headers["content-encoding"])
        self._head = Head(status, headers)

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
            self._raw.clear()
        else:
            self._complete = True
            self._amid = False
            self._kept = self._parser.should_keep_alive()  # the parser forgets once this returns

    # Passing on...

    def _push(self) -> GatewayError | None:
        body = self._body
        chunk = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        if self._decoder is None:
            if self._receiver is not None:
                self._receiver.data_came(chunk)
            return None
        self._pieces = self._decoder.feed(chunk)
        return self._decode()

    def _decode(self) -> GatewayError | None:
        """Pass on what can be decoded, for as long as it is wanted: a few bytes can stand for gigabytes."""
        try:
            for piece in self._pieces or ():
                if self._receiver is None:
                    break
                self._receiver.data_came(piece)
                if self._paused:
                    return None
        except UpstreamError as exc:
            return exc
        self._pieces = None
        return None

    def _decoded(self) -> GatewayError | None:
        try:
            if self._decoder is not None:
                self._decoder.end()
        except UpstreamError as exc:
            return exc
        return None

    def _answer(self, head: Head) -> None:
        """All of it is there at once, and nothing went wrong."""
        body = b"".join(self._body)
        self._body.clear()
        receiver = self._let_go(None)
        if receiver is not None:
            receiver.answered(head, body)

    def _finish(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        error = self._decoded()
        receiver = self._let_go(error)
        if receiver is not None:
            receiver.ended(error)

    def _let_go(self, error: GatewayError | None) -> Receiver | None:
        """An answer is over: serve the next on this connection, if that can be.  Returns who is still to be told."""
        # An answer that came before its request was out leaves the rest of it in the way of the next.
        keep = self._kept and error is None and self.usable and not self._unsent
        receiver = self._settle()
        self._fresh_answer()
        if keep:
            self.resume()
            self._release(self)
        else:
            self._close()
        return receiver

    def _break(self, error: GatewayError) -> None:
        self._close()
        self._end(error)

    def _end(self, error: GatewayError | Stale | None) -> None:
        receiver = self._settle()
        if receiver is not None:
            receiver.ended(error)

    def _settle(self) -> Receiver | None:
        receiver, self._receiver = self._receiver, None
        if self._call is not None:
            self._call.over()
            self._call = None
        return receiver

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()


@lru_cache(256)  # providers send the same ones each time
def _name(raw: bytes) -> str:
    return raw.decode("latin-1").lower()


def _overlong() -> UpstreamError:
    return UpstreamError(f"the provider's answer has more than {MAX_HEAD} bytes of headers")


def _understood(exc: Exception) -> GatewayError:
    if isinstance(exc, httptools.HttpParserUpgrade):
        return UpstreamError("the provider answered 101; nothing was to be upgraded")
    if isinstance(exc, httptools.HttpParserCallbackError) and isinstance(exc.__context__, GatewayError):
        return exc.__context__
    return _nonsense(exc)


def _nonsense(exc: Exception) -> UpstreamError:
    return UpstreamError(f"the provider's answer is not HTTP: {exc.args[0] if exc.args else exc!r}"[:200])
