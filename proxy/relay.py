"""The pump: upstream's bytes go through the pipe to the client in the loop iteration in which they come.

No task is woken per frame and no queue stands between the sides: what upstream's connection
pushes is fed to the pipe, what the pipe gives is written to the client, and while the client's
transport is full, upstream is not read.  All clocks are looked at from one wheel.
"""

from __future__ import annotations

import logging
from enum import Enum
from time import monotonic
from typing import TYPE_CHECKING

from proxy.errors import GatewayError, InternalError, TimedOut, UpstreamError
from proxy.observe.record import Gaps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from proxy.outlet import Outlet
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
    """How the client can be answered."""

    STREAM = "the first frames are there"
    WHOLE = "the whole body is there"
    QUIET = "the answer has begun, but nothing of it has come for a while"


_READY_WHOLE = Ready.WHOLE  # to look a member up costs as much as to call a function


class _Mode(Enum):
    HEAD = "no head yet"
    SNIFF = "no byte of the body yet"
    STREAM = "frames"
    WHOLE = "a body to collect"


_HEAD, _SNIFF, _STREAM, _WHOLE = _Mode


class ClientStalled(Exception):
    """The client did not read for `timeouts.client` seconds; its connection was cut."""


class Relay:
    """One attempt's answer on its way to the client."""

    # What most answers never change stands here, and costs a request nothing.

    #: How the client can be answered, or what went wrong while the status can still say so; None until that is known.
    told: Ready | GatewayError | Stale | None = None
    #: Called when ``told`` is known, and no more.
    on_ready: Callable[[], None] | None = None
    #: How it ended, if badly; ``over`` says that it has.
    error: GatewayError | ClientStalled | None = None
    over = False
    #: Called when it is over, and no more.
    on_over: Callable[[], None] | None = None
    head: Head | None = None
    first_frame_at = 0.0
    #: Silences between frames, once there has been one.
    gaps: Gaps | None = None
    call: Call | None = None
    #: What a stream goes through; None where a whole answer was asked for.
    pipe: Pipe | None = None

    _chunks: Callable[[bytes], Iterable[bytes]] | None = None
    _keepalive = 0.0
    _keepalive_frame = b""
    _mode = _HEAD
    _outlet: Outlet | None = None
    _muted = False  # the client has left, but upstream may finish
    _held: list[bytes] | None = None  # for the client, until the outlet is open
    _held_bytes = 0
    _body: list[bytes] | None = None  # of a whole answer
    _size = 0
    _body_began = False
    _made = 0  # frames of a whole answer that is said as a stream
    _sent_at = 0.0
    _last_byte = 0.0
    _last_progress = 0.0  # of a frame or a JSON byte
    _last_frame = 0.0
    _last_out = 0.0
    _full = False  # the client does not keep up, and upstream is not read

    def __init__(self, clocks: Timeouts, wheel: Wheel, *, max_whole: int, began: float, request_id: str) -> None:
        """A whole answer is wanted, of no more than ``max_whole`` bytes, until `stream` says otherwise.

        ``began`` is when (`time.monotonic`) the exchange began, for the clocks of all attempts together.
        """
        self._clocks = clocks
        self._wheel = wheel
        self._max_whole = max_whole
        self._began = began
        self._request_id = request_id

    # The attempt's side...

    def stream(
        self, pipe: Pipe, chunks: Callable[[bytes], Iterable[bytes]], *, keepalive: float, keepalive_frame: bytes
    ) -> None:
        """A stream is wanted; ``chunks`` says a whole answer as one."""
        self.pipe = pipe
        self._chunks = chunks
        # What each frame looks at is found faster here than in the class.
        self.first_frame_at = self._last_frame = 0.0
        self._muted = False
        self._keepalive = keepalive if keepalive_frame else 0.0
        self._keepalive_frame = keepalive_frame

    def sent(self, call: Call) -> None:
        """The request is on its way: the clocks run."""
        self.call = call
        self._sent_at = self._last_byte = self._last_progress = monotonic()
        if self.told is None:
            self._wheel.add(self)

    @property
    def frames(self) -> int:
        """Frames that upstream has completed."""
        return self._made + (self.pipe.frames if self.pipe is not None else 0)

    @property
    def body(self) -> bytes:
        """A whole answer."""
        return b"".join(self._body or ())

    def take_held(self) -> bytes:
        """What waits for the outlet, for the write that opens it."""
        held, self._held = b"".join(self._held or ()), None
        return held

    def flow(self, outlet: Outlet) -> None:
        """The outlet is open: from now on everything goes straight to it."""
        self._outlet = outlet
        self._last_out = monotonic()
        if self._held:
            outlet.write(self.take_held())
        if self.over:
            outlet.finish()  # does nothing where the opening write was the last one
        else:
            outlet.on_writable(self._writable)
            if outlet.full:
                self._stop_upstream()
            elif self._full:
                self._writable()

    def mute(self) -> None:
        """The client has left; upstream may finish, so that the usage is known."""
        self._muted = True
        self._writable()

    def fail(self, error: GatewayError) -> None:
        """End the exchange with ``error``, in the status if it can still say so, else in the stream."""
        if self.over:
            return
        self.error = error
        if self.pipe is not None and (self.told is not None or self._held is not None):
            self._emit(self.pipe.fail(error))
        if self.call is not None:
            self.call.abort()
        self._over()
        self._tell(error if self._held is None else Ready.STREAM)

    def close(self) -> None:
        """Whatever happened: the upstream is let go, nothing ticks any more, and nobody is called."""
        self.on_ready = self.on_over = None
        if not self.over:
            self._wheel.discard(self)
        if self.call is not None:
            self.call.abort()
        if self._outlet is not None:
            self._outlet.on_writable(None)

    # Upstream's side...

    def head_came(self, head: Head) -> None:
        self.head = head
        self._last_byte = monotonic()
        kind = head.headers.get("content-type", "")
        streamed = self.pipe is not None and head.good and "json" not in kind
        self._mode = _SNIFF if streamed else _WHOLE

    def answered(self, head: Head, body: bytes) -> None:
        """All of an answer came in one read."""
        if self.pipe is None and len(body) <= self._max_whole:
            self.head = head
            self._body = [body.lstrip(_BLANK)]
            try:
                self._over()
                self._tell(_READY_WHOLE)
            except Exception:
                self._stumble()
            return
        self.head_came(head)
        if body:
            self.data_came(body)
        self.ended(None)

    def data_came(self, chunk: bytes) -> None:
        now = self._last_byte = monotonic()
        try:
            if self._mode is _STREAM:
                self._stream(chunk, now)
            elif self._mode is _WHOLE:
                self._body_began = True
                self._collect(chunk, now)
            else:
                self._body_began = True
                self._sniff(chunk, now)
        except Exception:
            self._stumble()

    def ended(self, error: GatewayError | Stale | None) -> None:
        if self.over:
            return
        try:
            if error is not None and not isinstance(error, GatewayError):  # stale
                self._over()
                self._tell(error)
            elif self._mode is _WHOLE:
                self._end_whole(error)
            elif self.pipe is not None and self._mode is not _HEAD:
                self._end_stream(error)
            else:
                self.fail(error or UpstreamError("the provider closed the connection without an answer"))
        except Exception:
            self._stumble()

    def _stumble(self) -> None:
        """A mistake of ours, not upstream's, and no reason to leave the client without a word."""
        log.exception("request %s failed inside its answer", self._request_id)
        error = InternalError(self._request_id)
        self.fail(error)
        self._tell(error)  # in case that it came when all was over
        self._call_over()

    def _sniff(self, chunk: bytes, now: float) -> None:
        start = chunk.lstrip(_BLANK)
        if not start:
            return  # blank lines mean nothing, in JSON as in a stream
        # Content types lie: bare JSON comes as an event stream, streams come as text/plain.
        if start[:1] in (b"{", b"[", b"<"):
            self._mode = _WHOLE
            self._collect(chunk, now)
        else:
            self._mode = _STREAM
            self._stream(chunk, now)

    def _stream(self, chunk: bytes, now: float) -> None:
        pipe = self.pipe
        assert pipe is not None
        frames = pipe.frames
        out = pipe.feed(chunk)
        if pipe.frames != frames:
            if self._last_frame:
                if self.gaps is None:
                    self.gaps = Gaps()
                self.gaps.add(now - self._last_frame)
            self._last_frame = self._last_progress = now
        outlet = self._outlet
        if out and (outlet is None or self._muted):
            self._emit(out)
        elif out and outlet is not None:
            self._last_out = now
            if not self.first_frame_at:
                self.first_frame_at = now
            if outlet.write(out, last=pipe.done):
                self._stop_upstream()
        if pipe.done:
            self._leave()
            self._over()
        elif pipe.error is not None:
            self.fail(pipe.error)
        if outlet is None and self._held is not None:
            self._tell(Ready.STREAM)  # now, so that an answer that is over already leaves in one write

    def _collect(self, chunk: bytes, now: float) -> None:
        if self._body is None:
            chunk = chunk.lstrip(_BLANK)  # blank lines are DeepSeek's sign of life
            if not chunk:
                return
            self._body = []
        self._last_progress = now
        self._body.append(chunk)
        self._size += len(chunk)
        if self._size > self._max_whole:
            self.fail(UpstreamError(f"the provider's answer is larger than {self._max_whole} bytes"))

    def _end_stream(self, error: GatewayError | None) -> None:
        assert self.pipe is not None
        out = self.pipe.end(error)
        if out:
            self._emit(out)
        if self.pipe.done:
            self._over()
            self._tell(Ready.STREAM)
        else:
            self.fail(self.pipe.error or UpstreamError("the provider's stream ended before the answer did"))

    def _end_whole(self, error: GatewayError | None) -> None:
        if error is not None:
            self.fail(error)
        elif self.pipe is None or self._chunks is None or self.head is None or not self.head.good:
            self._over()
            self._tell(_READY_WHOLE)
        else:  # a stream was asked for, JSON was answered
            try:
                frames = list(self._chunks(self.body))
            except GatewayError as exc:
                self.fail(exc)
                return
            self._made = len(frames)
            self._emit(b"".join(frames))
            self._over()
            self._tell(Ready.STREAM)

    def _leave(self) -> None:
        """All that is wanted of the answer has come."""
        if self.call is not None:
            self.call.leave()
            self.call = None  # what is to become of the connection is its own matter now

    # The client's side...

    def _tell(self, how: Ready | GatewayError | Stale) -> None:
        """Have the client answered.  Always the last thing to do: what comes of it may go far."""
        if self.told is None:
            self.told = how
            on_ready, self.on_ready = self.on_ready, None
            if on_ready is not None:
                on_ready()

    def _emit(self, out: bytes) -> None:
        if self._muted:
            return
        if self._outlet is None:
            if self._held is None:
                self._held = []
            self._held.append(out)
            self._held_bytes += len(out)
            if not self.first_frame_at:
                self.first_frame_at = monotonic()
            if self._held_bytes > _HELD:
                self._stop_upstream()
            return
        self._last_out = self._last_byte
        if not self.first_frame_at:
            self.first_frame_at = monotonic()
        if self._outlet.write(out):
            self._stop_upstream()

    def _stop_upstream(self) -> None:
        if not self._full:
            self._full = True
            if self.call is not None:
                self.call.pause()

    def _writable(self) -> None:
        if self._full:
            self._full = False
            self._last_byte = self._last_progress = monotonic()
            if self.call is not None:
                self.call.resume()

    def _over(self) -> None:
        self._wheel.discard(self)
        self.over = True
        if self._outlet is not None and not self._muted:
            self._outlet.finish()
        self._call_over()

    def _call_over(self) -> None:
        # The client's next request may begin in there: whatever is done afterwards must not touch the outlet.
        on_over, self.on_over = self.on_over, None
        if on_over is not None:
            on_over()

    # The clocks...

    def tick(self, now: float) -> None:
        try:
            self._look_at_clocks(now)
        except Exception:
            self._stumble()

    def _look_at_clocks(self, now: float) -> None:
        clocks, pipe = self._clocks, self.pipe
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
        if self._last_byte > self._last_progress and self.pipe is not None and self.pipe.holding:
            self._last_progress = self._last_byte
        return now - self._last_progress

    def _keep_alive(self, now: float) -> None:
        if not self._keepalive or self._muted:
            return
        if self._outlet is not None:
            if now - self._last_out >= self._keepalive:
                self._last_out = now
                if self._outlet.write(self._keepalive_frame):
                    self._stop_upstream()
        elif self.told is None and self._mode in (_SNIFF, _STREAM) and now - self._sent_at >= self._keepalive:
            self._tell(Ready.QUIET)

    def _cut_client(self, outlet: Outlet) -> None:
        self.error = ClientStalled()
        outlet.cut()
        if self.call is not None:
            self.call.abort()
        self._over()
