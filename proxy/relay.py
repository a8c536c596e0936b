"""The pump: upstream's bytes go through the pipe to the client in the loop iteration in which they come.

No task is woken per frame and no queue stands between the sides: what upstream's connection
pushes is fed to the pipe, what the pipe gives is written to the client, and while the client's
transport is full, upstream is not read.  All clocks are looked at from one wheel.
"""

from __future__ import annotations

import asyncio
import logging
from enum import Enum
from typing import TYPE_CHECKING

from proxy.errors import GatewayError, InternalError, TimedOut, UpstreamError
from proxy.observe.record import Gaps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from proxy.connection import Outlet
    from proxy.events import Usage
    from proxy.pipes import Pipe
    from proxy.settings import Timeouts
    from proxy.upstream import Call, Head
    from proxy.upstream.connection import Stale
    from proxy.wheel import Wheel


log = logging.getLogger(__name__)

#: What may stand before an answer and means nothing: blank lines, a BOM.
_BLANK = b"\xef\xbb\xbf \t\r\n"
#: Bytes that may wait for the client's side to open before upstream is stopped.
_HELD = 256 * 1024


class Ready(Enum):
    """What the handler waits for before it answers."""

    STREAM = "the first frames are there"
    WHOLE = "the whole body is there"
    QUIET = "the answer has begun, but nothing of it has come for a while"


class _Mode(Enum):
    HEAD = "no head yet"
    SNIFF = "no byte of the body yet"
    STREAM = "frames"
    WHOLE = "a body to collect"


class ClientStalled(Exception):
    """The client did not read for `timeouts.client` seconds; its connection was cut."""


class Relay:
    """One attempt's answer on its way to the client.

    ``ready`` tells the handler how to answer, or raises what went wrong while the status can
    still say so.  ``done`` is settled when the answer is over; ``error`` then says how, if badly.
    """

    def __init__(
        self,
        pipe: Pipe | None,
        clocks: Timeouts,
        wheel: Wheel,
        *,
        keepalive: float,
        keepalive_frame: bytes,
        max_whole: int,
        chunks: Callable[[bytes], Iterable[bytes]] | None = None,
        began: float,
        request_id: str,
    ) -> None:
        """``pipe`` is None where a whole answer was asked for; ``chunks`` says one as a stream.

        ``began`` is the loop's time at which the exchange began, for the clocks of all attempts together.
        """
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[Ready] = loop.create_future()
        self.done: asyncio.Future[None] = loop.create_future()
        self.error: GatewayError | ClientStalled | None = None
        self.head: Head | None = None
        self.first_frame_at = 0.0
        self.gaps = Gaps()
        self.call: Call | None = None

        self._time = loop.time
        self._pipe = pipe
        self._clocks = clocks
        self._wheel = wheel
        self._keepalive = keepalive if keepalive_frame else 0.0
        self._keepalive_frame = keepalive_frame
        self._max_whole = max_whole
        self._chunks = chunks
        self._began = began
        self._request_id = request_id
        self._mode = _Mode.HEAD
        self._outlet: Outlet | None = None
        self._muted = False  # the client has left, but upstream may finish
        self._held: list[bytes] = []  # for the client, until the outlet is open
        self._held_bytes = 0
        self._body: list[bytes] = []  # of a whole answer
        self._size = 0
        self._body_began = False
        self._made = 0  # frames of a whole answer that is said as a stream
        self._sent_at = 0.0
        self._last_byte = 0.0
        self._last_progress = 0.0  # of a frame or a JSON byte
        self._last_frame = 0.0
        self._last_out = 0.0
        self._full = False  # the client does not keep up, and upstream is not read

    # The handler's side...

    def sent(self, call: Call) -> None:
        """The request is on its way: the clocks run."""
        self.call = call
        self._sent_at = self._last_byte = self._last_progress = self._time()
        if not self.ready.done():
            self._wheel.add(self)

    @property
    def frames(self) -> int:
        """Frames that upstream has completed."""
        return self._made + (self._pipe.frames if self._pipe is not None else 0)

    @property
    def usage(self) -> Usage | None:
        """What a stream said of its cost."""
        return self._pipe.usage if self._pipe is not None else None

    @property
    def body(self) -> bytes:
        """A whole answer."""
        return b"".join(self._body)

    def take_held(self) -> bytes:
        """What waits for the outlet, for the write that opens it."""
        held, self._held = b"".join(self._held), []
        return held

    def flow(self, outlet: Outlet) -> None:
        """The outlet is open: from now on everything goes straight to it."""
        self._outlet = outlet
        self._last_out = self._time()
        if self._held:
            outlet.write(self.take_held())
        if self.done.done():
            outlet.finish()  # does nothing where the opening write was the last one
        else:
            outlet.on_writable(self._writable)
            if self._full and not outlet.full:
                self._writable()
            self._watch_client(outlet)

    def mute(self) -> None:
        """The client has left; upstream may finish, so that the usage is known."""
        self._muted = True
        self._writable()

    def fail(self, error: GatewayError) -> None:
        """End the exchange with ``error``, in the status if it can still say so, else in the stream."""
        if self.done.done():
            return
        self.error = error
        if not self.ready.done():
            self.ready.set_exception(error)
        elif self._pipe is not None:
            self._emit(self._pipe.fail(error))
        self._over()
        if self.call is not None:
            self.call.abort()

    def close(self) -> None:
        """Whatever happened: the upstream is let go, and nothing ticks any more."""
        self._wheel.discard(self)
        if self.call is not None:
            self.call.abort()
        if self._outlet is not None:
            self._outlet.on_writable(None)
        if self.ready.done() and not self.ready.cancelled():
            self.ready.exception()  # seen

    # Upstream's side...

    def head_came(self, head: Head) -> None:
        self.head = head
        self._last_byte = self._time()
        kind = head.headers.get("content-type", "")
        streamed = self._pipe is not None and head.good and "json" not in kind
        self._mode = _Mode.SNIFF if streamed else _Mode.WHOLE

    def data_came(self, chunk: bytes) -> None:
        now = self._last_byte = self._time()
        self._body_began = True
        try:
            if self._mode is _Mode.STREAM:
                self._stream(chunk, now)
            elif self._mode is _Mode.WHOLE:
                self._collect(chunk, now)
            else:
                self._sniff(chunk, now)
        except Exception:
            self._stumble()

    def ended(self, error: GatewayError | Stale | None) -> None:
        if self.done.done():
            return
        try:
            if error is not None and not isinstance(error, GatewayError):  # stale
                if not self.ready.done():
                    self.ready.set_exception(error)
                self._over()
            elif self._mode is _Mode.WHOLE:
                self._end_whole(error)
            elif self._pipe is not None and self._mode is not _Mode.HEAD:
                self._end_stream(error)
            else:
                self.fail(error or UpstreamError("the provider closed the connection without an answer"))
        except Exception:
            self._stumble()

    def _stumble(self) -> None:
        """A mistake of ours, not upstream's, and no reason to leave the client without a word."""
        log.exception("request %s failed inside its answer", self._request_id)
        self.fail(InternalError(self._request_id))

    def _sniff(self, chunk: bytes, now: float) -> None:
        start = chunk.lstrip(_BLANK)
        if not start:
            return  # blank lines mean nothing, in JSON as in a stream
        # Content types lie: bare JSON comes as an event stream, streams come as text/plain.
        if start[:1] in (b"{", b"[", b"<"):
            self._mode = _Mode.WHOLE
            self._collect(chunk, now)
        else:
            self._mode = _Mode.STREAM
            self._stream(chunk, now)

    def _stream(self, chunk: bytes, now: float) -> None:
        pipe = self._pipe
        assert pipe is not None
        frames = pipe.frames
        out = pipe.feed(chunk)
        if pipe.frames != frames:
            if self._last_frame:
                self.gaps.add(now - self._last_frame)
            self._last_frame = self._last_progress = now
        if out:
            self._emit(out, last=pipe.done)
        if pipe.done:
            if self.call is not None:
                self.call.leave()
            self._over()
        elif pipe.error is not None:
            self.fail(pipe.error)

    def _collect(self, chunk: bytes, now: float) -> None:
        if not self._body:
            chunk = chunk.lstrip(_BLANK)  # blank lines are DeepSeek's sign of life
            if not chunk:
                return
        self._last_progress = now
        self._body.append(chunk)
        self._size += len(chunk)
        if self._size > self._max_whole:
            self.fail(UpstreamError(f"the provider's answer is larger than {self._max_whole} bytes"))

    def _end_stream(self, error: GatewayError | None) -> None:
        assert self._pipe is not None
        out = self._pipe.end(error)
        if out:
            self._emit(out)
        if self._pipe.done:
            self._over()
        else:
            self.fail(self._pipe.error or UpstreamError("the provider's stream ended before the answer did"))

    def _end_whole(self, error: GatewayError | None) -> None:
        if error is not None:
            self.fail(error)
        elif self._pipe is None or self._chunks is None or self.head is None or not self.head.good:
            if not self.ready.done():
                self.ready.set_result(Ready.WHOLE)
            self._over()
        else:  # a stream was asked for, JSON was answered
            try:
                frames = list(self._chunks(self.body))
            except GatewayError as exc:
                self.fail(exc)
                return
            self._made = len(frames)
            self._emit(b"".join(frames))
            self._over()

    # The client's side...

    def _emit(self, out: bytes, *, last: bool = False) -> None:
        if self._muted:
            return
        if self._outlet is None:
            self._held.append(out)
            self._held_bytes += len(out)
            if not self.ready.done():
                self.first_frame_at = self._time()
                self.ready.set_result(Ready.STREAM)
            if self._held_bytes > _HELD:
                self._stop_upstream()
            return
        if not self.first_frame_at:
            self.first_frame_at = self._time()
        self._outlet.write(out, last=last)
        self._last_out = self._last_byte
        self._watch_client(self._outlet)

    def _watch_client(self, outlet: Outlet) -> None:
        if outlet.full:
            self._stop_upstream()

    def _stop_upstream(self) -> None:
        if not self._full:
            self._full = True
            if self.call is not None:
                self.call.pause()

    def _writable(self) -> None:
        if self._full:
            self._full = False
            self._last_byte = self._last_progress = self._time()
            if self.call is not None:
                self.call.resume()

    def _over(self) -> None:
        self._wheel.discard(self)
        if self._outlet is not None and not self._muted:
            self._outlet.finish()
        if not self.done.done():
            self.done.set_result(None)

    # The clocks...

    def tick(self, now: float) -> None:
        try:
            self._look_at_clocks(now)
        except Exception:
            self._stumble()

    def _look_at_clocks(self, now: float) -> None:
        clocks, pipe = self._clocks, self._pipe
        if self._full:
            if self._outlet is not None and self._outlet.stalled(now, clocks.client):
                self._cut_client(self._outlet)
        elif pipe is not None and pipe.finished:
            if self._without_progress(now) > clocks.after_finish:
                self._end_stream(None)
                if self.call is not None:
                    self.call.abort()
        elif pipe is None and now - self._began > clocks.total:
            self.fail(TimedOut("total", clocks.total, "no whole answer from the provider"))
        elif pipe is not None and clocks.stream_total and now - self._began > clocks.stream_total:
            self.fail(TimedOut("stream_total", clocks.stream_total, "the stream went on"))
        elif pipe is not None and not self._body_began and now - self._sent_at > clocks.first_byte:
            self.fail(TimedOut("first_byte", clocks.first_byte, "no answer from the provider"))
        elif self._body_began and now - self._last_byte > clocks.idle:
            self.fail(TimedOut("idle", clocks.idle, "the provider was silent inside its answer"))
        elif self._body_began and self._without_progress(now) > clocks.heartbeat:
            self.fail(TimedOut("heartbeat", clocks.heartbeat, "the provider only said that it is alive"))
        else:
            self._keep_alive(now)

    def _without_progress(self, now: float) -> float:
        """Seconds in which nothing has come but signs of life."""
        # Asked here and not at each read: a frame in many pieces would be put together as often.
        if self._last_byte > self._last_progress and self._pipe is not None and self._pipe.holding:
            self._last_progress = self._last_byte
        return now - self._last_progress

    def _keep_alive(self, now: float) -> None:
        if not self._keepalive or self._muted:
            return
        if self._outlet is not None:
            if now - self._last_out >= self._keepalive:
                self._outlet.write(self._keepalive_frame)
                self._last_out = now
                self._watch_client(self._outlet)
        elif (
            not self.ready.done()
            and self._mode in (_Mode.SNIFF, _Mode.STREAM)
            and now - self._sent_at >= self._keepalive
        ):
            self.ready.set_result(Ready.QUIET)

    def _cut_client(self, outlet: Outlet) -> None:
        self.error = ClientStalled()
        outlet.cut()
        if self.call is not None:
            self.call.abort()
        self._over()
