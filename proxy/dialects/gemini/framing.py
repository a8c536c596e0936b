"""How answers lie in the stream: server-sent events with `alt=sse`, else one JSON array, sent piece by piece.

Google's own streams are of the first kind with one oddity: an error after the first chunks comes as
bare JSON over several lines, without `data:`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from proxy import sse
from proxy.dialects.gemini import errors

if TYPE_CHECKING:
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
