"""Event streams read as the WHATWG says, step by step and byte by byte: slow, and simple enough to be believed.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
Shares no code and no idea with ``proxy.sse``.
"""

from __future__ import annotations

from typing import NamedTuple


class Event(NamedTuple):
    """One dispatched event, and the number of input bytes after which it was due."""

    data: bytes
    type: bytes
    due: int


class EventSource:
    """Interpret a stream; ``events`` has what was dispatched so far."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.read = 0  # bytes of the stream
        self._start = b""  # the first three bytes, while they may be a byte order mark
        self._line = b""
        self._after_cr = False
        self._data = b""
        self._type = b""

    def take(self, byte: int) -> None:
        """Take the next byte."""
        self.read += 1
        if self._start is not None:
            self._start += bytes([byte])
            if self._start == b"\xef\xbb\xbf":
                self._start = None
                return
            if b"\xef\xbb\xbf".startswith(self._start):
                return
            held, self._start = self._start, None
            for each in held:
                self._take(each)
            return
        self._take(byte)

    def _take(self, byte: int) -> None:
        after_cr, self._after_cr = self._after_cr, byte == 0x0D
        if byte == 0x0A and after_cr:
            return  # the second half of CR LF, a line end that has been seen
        if byte in (0x0A, 0x0D):
            line, self._line = self._line, b""
            self._process(line)
        else:
            self._line += bytes([byte])

    def _process(self, line: bytes) -> None:
        if line == b"":
            self._dispatch()
        elif line.startswith(b":"):
            pass
        elif b":" in line:
            colon = line.index(b":")
            field, value = line[:colon], line[colon + 1 :]
            if value.startswith(b" "):
                value = value[1:]
            self._field(field, value)
        else:
            self._field(line, b"")

    def _field(self, field: bytes, value: bytes) -> None:
        if field == b"event":
            self._type = value
        elif field == b"data":
            self._data += value + b"\n"

    def _dispatch(self) -> None:
        if self._data == b"":
            self._type = b""
            return
        self.events.append(Event(self._data.removesuffix(b"\n"), self._type, self.read))
        self._data = self._type = b""


def interpret(wire: bytes) -> list[Event]:
    """Every event that ``wire`` dispatches."""
    source = EventSource()
    for byte in wire:
        source.take(byte)
    return source.events


def passed(events: list[Event]) -> list[Event]:
    """What a gateway leaves of them: no empty data, no relics of comments, nothing after the end mark."""
    left = []
    for event in events:
        if event.data.strip(b"\n") == b"" or event.data.startswith(b": "):
            continue
        left.append(event)
        if event.data.startswith(b"[DONE]"):
            break
    return left
