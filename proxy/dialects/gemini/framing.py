"""How answers lie in the stream: server-sent events with `alt=sse`, else one JSON array, sent piece by piece.

Google's own streams are of the first kind with one oddity: an error after the first chunks comes as
bare JSON over several lines, without `data:`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from proxy import sse
from proxy.dialects.gemini import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.errors import GatewayError


class Framing(Protocol):
    """What surrounds each answer."""

    def item(self, data: bytes) -> bytes: ...

    def end(self) -> bytes: ...

    def fail(self, error: GatewayError) -> bytes: ...


class Events:
    """`data: ` with the space (Google's SDK wants it), no event names, and no end mark."""

    def item(self, data: bytes) -> bytes:
        return sse.encode(data)

    def end(self) -> bytes:
        return b""

    def fail(self, error: GatewayError) -> bytes:
        return errors.frame(error)


class Array:
    """One array, whose items leave as soon as they are known."""

    def __init__(self) -> None:
        self._open = False

    def item(self, data: bytes) -> bytes:
        before = b",\r\n" if self._open else b"["
        self._open = True
        return before + data

    def end(self) -> bytes:
        return b"]" if self._open else b"[]"

    def fail(self, error: GatewayError) -> bytes:
        """An error is the last item."""
        return self.item(errors.body(error)) + self.end()


def framing(array: bool) -> Framing:
    """Choose one."""
    return Array() if array else Events()


class Decoder(sse.Decoder):
    """Frames, where JSON without `data:` is a frame, too: from a line that begins it to the next blank one."""

    _bare: list[bytes] | None = None  # the lines of the frame that is JSON as it stands

    def _field(self, line: bytes) -> None:
        if not self._data and line[:1] in (b"{", b"["):
            self._bare = self._data
        if self._data is self._bare:
            self._data.append(line)
        else:
            super()._field(line)


class Reframer(sse.Reframer):
    """Frames on their way to a client, where JSON without `data:` becomes one: nobody would see it otherwise."""

    _last = b"\n\n"  # the last bytes, which tell whether a frame begins
    _bare = False  # inside JSON as it stands

    def feed(self, chunk: bytes) -> bytes:
        named = chunk
        if self._bare or chunk[:1] in (b"{", b"[") or b"\n{" in chunk or b"\n[" in chunk:
            named = b"".join(self._named(chunk))
        self._last = (self._last + chunk[-4:])[-4:]
        return super().feed(named)

    def _named(self, chunk: bytes) -> Iterator[bytes]:
        """Say of each line of bare JSON that it is data."""
        last = self._last
        if last.endswith(b"\r") and chunk.startswith(b"\n"):  # a line end that a cut had parted
            yield b"\n"
            last, chunk = last + b"\n", chunk[1:]
        fresh = last.endswith((b"\n", b"\r"))
        begins = last.endswith((b"\n\n", b"\r\n\r\n", b"\r\r"))
        for line in chunk.splitlines(keepends=True):
            if fresh:
                empty = line[:1] in (b"\r", b"\n")
                self._bare = not empty and (self._bare or (begins and line[:1] in (b"{", b"[")))
                begins = empty
                if self._bare:
                    yield b"data: "
            fresh = line.endswith((b"\n", b"\r"))
            yield line
