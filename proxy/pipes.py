"""From upstream's bytes to the client's: one shape for passing on and for translating.

A pipe is fed slices cut anywhere and returns what can go to the client now.  It knows no clock
and no connection; the relay asks it how far the answer has come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import orjson

from proxy.errors import GatewayError, UpstreamError
from proxy.sse import DONE, Decoder, Reframer, split, split_clean
from proxy.template import Template

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from proxy.events import Event, Usage
    from proxy.sse import Frame


#: The last bytes of a run, which are looked at frame by frame where something may stand in them.
_SMALL = 1024


class Pipe(Protocol):
    """What the relay sees of an answer in progress."""

    @property
    def finished(self) -> bool:
        """A finish reason has passed: what is missing is usage and the end mark."""

    @property
    def done(self) -> bool:
        """The end mark has passed, or was supplied: nothing more goes to the client."""

    @property
    def error(self) -> GatewayError | None:
        """What upstream said or did wrong; what was whole before it has been returned."""

    @property
    def frames(self) -> int:
        """Frames that upstream has completed so far, whatever became of them."""

    def feed(self, chunk: bytes) -> bytes:
        """Take upstream's next bytes; return whole frames for the client."""

    def end(self, torn: GatewayError | None = None) -> bytes:
        """Upstream's body is over; ``torn`` says how it broke, if it did.

        Completes the answer (``done``) or sets ``error``.
        """

    def fail(self, error: GatewayError) -> bytes:
        """Tell a fault in the client's dialect, after its last whole frame."""

    @property
    def holding(self) -> bool:
        """Has part of a frame come that is more than a sign of life?"""

    @property
    def usage(self) -> Usage | None:
        """What upstream says the answer cost."""


class Tap(Protocol):
    """A dialect's look at frames that pass byte for byte."""

    finished: bool
    #: The end mark has passed.
    done: bool
    error: GatewayError | None
    #: Frames have `event:` lines, and `plain` looks at them.
    named: bool
    #: What stands before strings that `plain` need not look at.
    texts: tuple[bytes, ...]

    def plain(self, run: bytes) -> bool: ...

    def look(self, raw: bytes, frame: Frame) -> bytes: ...

    def end(self) -> bytes: ...

    @property
    def usage(self) -> Usage | None: ...


class Reader(Protocol):
    """A dialect's frames → events.

    What a frame says is told as a tuple where it is known at once, as with nearly all frames of a
    stream: a generator would cost as much as reading them.
    """

    @property
    def finished(self) -> bool: ...

    @property
    def done(self) -> bool: ...

    @property
    def usage(self) -> Usage | None: ...

    def read(self, frame: Frame) -> Iterable[Event]: ...

    def end(self) -> Iterable[Event]: ...


class Writer(Protocol):
    """Events → a dialect's bytes."""

    def write(self, event: Event) -> bytes: ...


class Passthrough:
    """The same dialect on both sides: whole frames go on byte for byte."""

    def __init__(self, tap: Tap, fail: Callable[[GatewayError], bytes], max_frame: int) -> None:
        self._tap = tap
        self._max_frame = max_frame
        self._reframer = getattr(tap, "reframer", Reframer)(max_frame)  # Google's needs one of its own
        self._template = Template(tap.texts, max_frame)
        self._passed = True  # the last frame went to the client
        self.fail = fail
        self.frames = 0
        self.finished = False
        self.done = False
        self.error: GatewayError | None = None

    def feed(self, chunk: bytes) -> bytes:
        reframer = self._reframer
        if self.error is not None or self.done:
            return b""
        if reframer.between and self._template.fits(chunk):
            reframer.frames = self.frames = self.frames + 1
            return chunk
        run = reframer.feed(chunk)
        frames, self.frames = self.frames, reframer.frames
        if run:
            if (
                not (reframer.done or reframer.overlong)
                and (reframer.clean or self._tap.named)
                and self._tap.plain(run)
            ):
                if reframer.between and self.frames == frames + 1:
                    self._template.learn(run)
                return run  # of the middle of a stream the tap need see hardly ever anything
            run = self._inspect(run)
            self.done = (reframer.done or self._tap.done) and self.error is None
        if reframer.overlong and not self._settled():
            self.error = overlong(self._max_frame)
        return run

    def end(self, torn: GatewayError | None = None) -> bytes:
        if self.done or self.error is not None:
            return b""
        out = b""
        last = self._reframer.end()
        self.frames = self._reframer.frames
        if last and all(is_whole(frame.data) for _, frame in split(last)):
            out = self._look(last)
            self.done = (self._reframer.done or self._tap.done) and self.error is None
        if not self._settled():
            if self.finished:
                self.done = True
                out += self._tap.end()
            else:
                self.error = torn or cut(bool(last))
        return out

    @property
    def holding(self) -> bool:
        return self._reframer.holding

    @property
    def usage(self) -> Usage | None:
        return self._tap.usage

    def _settled(self) -> bool:
        return self.done or self.error is not None

    def _inspect(self, run: bytes) -> bytes:
        """Have the tap see what it must: the end of a stream, or what stands out of its middle."""
        reframer, plain = self._reframer, self._tap.plain
        if not reframer.clean and not self._tap.named:
            return self._look(run)
        # What matters stands at the end of a stream, a burst's other frames need not be taken apart.
        blank = reframer.blank
        start = run.rfind(blank, 0, -_SMALL) + len(blank)
        if start >= len(blank) and plain(run[:start]):
            return run[:start] + self._look(run[start:])
        return self._look(run)

    def _look(self, run: bytes) -> bytes:
        out = []
        tap = self._tap
        if run[:1] == b"\n":  # no frame begins so: it is the second half of a CRLF that a cut had parted
            out.append(run[:1] if self._passed else b"")
            run = run[1:]
        for raw, frame in split_clean(run, self._reframer.blank) if self._reframer.clean else split(run):
            out.append(tap.look(raw, frame))
            if tap.error is not None:
                self.error = tap.error
                break
            self._passed = bool(out[-1])
        self.finished = tap.finished
        return b"".join(out)


class Translation:
    """Another dialect on each side: every frame is read and written anew."""

    def __init__(
        self,
        reader: Reader,
        writer: Writer,
        fail: Callable[[GatewayError], bytes],
        max_frame: int,
        decoder: Decoder | None = None,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._max_frame = max_frame
        self._decoder = decoder or Decoder(max_frame)
        self.fail = fail
        self.frames = 0
        self.finished = False
        self.done = False
        self.error: GatewayError | None = None

    def feed(self, chunk: bytes) -> bytes:
        if self.error is not None or self.done:
            return b""
        frames = self._decoder.feed(chunk)
        out = self._translate(frames) if frames else b""
        if self._decoder.overlong and not self._settled():
            self.error = overlong(self._max_frame)
        return out

    def end(self, torn: GatewayError | None = None) -> bytes:
        if self.done or self.error is not None:
            return b""
        out = b""
        last = self._decoder.end()
        if last is not None and is_whole(last.data):
            out = self._translate([last])
        if not self._settled():
            if self.finished:
                out += b"".join(map(self._writer.write, self._reader.end()))
                self.done = True
            else:
                self.error = torn or cut(last is not None)
        return out

    @property
    def holding(self) -> bool:
        return self._decoder.holding

    @property
    def usage(self) -> Usage | None:
        return self._reader.usage

    def _settled(self) -> bool:
        return self.done or self.error is not None

    def _translate(self, frames: list[Frame]) -> bytes:
        """Read frames and write what they say, up to the end or an error."""
        out: list[bytes] = []
        reader, read, write, add = self._reader, self._reader.read, self._writer.write, out.append
        try:
            for frame in frames:
                data = frame.data
                # Empty data and relics of comments; JSON, which nearly all data is, needs no second look.
                if data[:1] != b"{" and (data[:2] == b": " or not data.strip(b"\n")):
                    continue
                self.frames += 1
                for event in read(frame):
                    add(write(event))
                if reader.done:
                    break
        except GatewayError as exc:
            self.error = exc
        self.finished = reader.finished
        self.done = reader.done
        return b"".join(out)


class Listening:
    """A reader whose events somebody else hears, too."""

    def __init__(self, reader: Reader, hear: Callable[[Event], None]) -> None:
        self._reader = reader
        self._hear = hear

    @property
    def finished(self) -> bool:
        return self._reader.finished

    @property
    def done(self) -> bool:
        return self._reader.done

    @property
    def usage(self) -> Usage | None:
        return self._reader.usage

    def read(self, frame: Frame) -> Iterable[Event]:
        return self._overhear(self._reader.read(frame))

    def end(self) -> Iterable[Event]:
        return self._overhear(self._reader.end())

    def _overhear(self, events: Iterable[Event]) -> Iterable[Event]:
        if not isinstance(events, tuple):
            return self._one_by_one(events)
        for event in events:  # what is all known needs no generator around it
            self._hear(event)
        return events

    def _one_by_one(self, events: Iterable[Event]) -> Iterator[Event]:
        """Where an error may stand behind an event, it is heard when it is told."""
        for event in events:
            self._hear(event)
            yield event


class Overheard:
    """A pipe through which bytes pass as they are, while a reader follows what they say.

    Only for providers that will want an answer's thoughts back: it is the one case in which frames
    that pass are parsed.
    """

    def __init__(self, pipe: Passthrough, reader: Reader, hear: Callable[[Event], None], max_frame: int) -> None:
        self._pipe = pipe
        self._reader = Listening(reader, hear)
        self._decoder = Decoder(max_frame)
        self._deaf = False  # what passes could not be read: it is the client's to judge
        self.fail = pipe.fail

    @property
    def frames(self) -> int:
        return self._pipe.frames

    @property
    def finished(self) -> bool:
        return self._pipe.finished

    @property
    def done(self) -> bool:
        return self._pipe.done

    @property
    def error(self) -> GatewayError | None:
        return self._pipe.error

    @property
    def holding(self) -> bool:
        return self._pipe.holding

    @property
    def usage(self) -> Usage | None:
        return self._pipe.usage

    def feed(self, chunk: bytes) -> bytes:
        if not self._deaf:
            self._listen(self._decoder.feed(chunk))
        return self._pipe.feed(chunk)

    def end(self, torn: GatewayError | None = None) -> bytes:
        out = self._pipe.end(torn)
        if self._pipe.done and not self._deaf and not self._reader.done:
            for _ in self._reader.end():
                continue
        return out

    def _listen(self, frames: list[Frame]) -> None:
        try:
            for frame in frames:
                for _ in self._reader.read(frame):
                    continue
        except GatewayError:
            self._deaf = True


def is_whole(data: bytes) -> bool:
    """Is an unterminated last frame all there: the end mark, or JSON that closes?"""
    if data.strip() == DONE:
        return True
    try:
        return isinstance(orjson.loads(data), dict | list)
    except orjson.JSONDecodeError:
        return False


def cut(inside: bool) -> UpstreamError:
    """Upstream's body ended without a finish reason or an end mark."""
    where = "inside a frame" if inside else "before the answer did"
    return UpstreamError(f"the provider's stream ended {where}")


def overlong(limit: int) -> UpstreamError:
    """A frame that never ends."""
    return UpstreamError(f"the provider sent more than {limit} bytes without an end of frame (limits.max_frame_bytes)")
