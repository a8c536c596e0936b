"""Server-sent events as bytes: whole frames out of slices cut anywhere.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
No I/O, no JSON: a `Decoder` reads frames for those who want their meaning, a `Reframer`
passes them on as they are, `encode` writes them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator

BOM = b"\xef\xbb\xbf"
#: The end mark of OpenAI-like streams.
DONE = b"[DONE]"

# LF, CR or CRLF and nothing else: bytes.splitlines() would do, str.splitlines() would
# also cut at U+2028 and U+0085, which are legal inside JSON.
_LINE_END = re.compile(rb"\r\n|\n|\r")
_CRLF = b"\r\n"
_CR = 0x0D  # a number is found ten times as fast as bytes
_LAST = b"\n\ndata: [DONE]\n\n"
_FRAME_END = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
# Frames of an `event: ` line and a `data: {…}` line; counting them would be slower, and be fooled.
_NAMED = re.compile(rb"(?:event: [^\n]*+\ndata: \{[^\n]*+\n\n)++")


class Frame(Struct, frozen=True, gc=False):
    """One dispatched event: its data, lines joined by LF, and its type ("" for `message`)."""

    data: bytes
    event: str = ""


def encode(data: bytes, event: str = "") -> bytes:
    """Write one frame; ``data`` is one line (JSON has no raw line ends)."""
    if event:
        return b"event: %b\ndata: %b\n\n" % (event.encode(), data)
    return b"data: %b\n\n" % data


def comment(text: bytes) -> bytes:
    """Write a comment, which keeps connections alive and means nothing."""
    return b": %b\n\n" % text


def parse_field(line: bytes) -> tuple[bytes, bytes]:
    """Split a line into field name and value; one space after the colon is not part of the value."""
    name, _, value = line.partition(b":")
    return name, value[1:] if value[:1] == b" " else value


# Reading the meaning...


class Decoder:
    """Turn slices of an event stream, cut anywhere, into whole frames.

    Unfinished input is kept as a list of pieces and joined once, when its line
    ends: a 1 MiB line that drips in byte by byte must not cost 1 MiB² of copying.

    A run of whole frames that are one `data: ` line each, or an `event: ` line and that, is taken
    apart by one split; all else is read line by line.

    ``overlong`` is set when a frame outgrows ``max_frame`` bytes.  What was whole before it
    has been returned; what comes after is ignored.
    """

    def __init__(self, max_frame: int = 16 * 2**20) -> None:
        self._max_frame = max_frame
        self._pieces: list[bytes] = []  # of the unfinished line
        self._data: list[bytes] = []  # of the unfinished frame
        self._event = b""
        self._size = 0  # bytes of the unfinished frame's whole lines
        self._pending = 0  # bytes of its unfinished line
        self._swallow_lf = False  # last chunk ended in CR: its LF may follow
        self._head: bytes | None = b""  # the first bytes, while they may still be a BOM
        self.overlong = False

    def feed(self, chunk: bytes) -> list[Frame]:
        """Take the next bytes; return the frames they complete, if any."""
        if self._head is not None:
            chunk = self._skip_bom(chunk)
        if self._swallow_lf and chunk:
            self._swallow_lf = False
            chunk = chunk.removeprefix(b"\n")
        if not chunk or self.overlong:
            return []

        line_end = b"\r\n" if _CR in chunk else b"\n"
        blank = line_end * 2
        begun: list[Frame] = []
        if self._size or self._pieces:  # a frame was cut: the shortcut begins behind it
            place = chunk.find(blank)
            if place < 0:
                return self._line_by_line(chunk)
            begun = self._line_by_line(chunk[: place + len(blank)])
            chunk = chunk[place + len(blank) :]
            if not chunk or self.overlong:
                return begun
        place = chunk.rfind(blank)
        end = place + len(blank)
        if place >= 0 and end <= self._max_frame and (frames := _simple(chunk[:end], line_end)):
            if end < len(chunk):
                frames += self._line_by_line(chunk[end:])
        else:
            frames = self._line_by_line(chunk)
        return begun + frames if begun else frames

    @property
    def holding(self) -> bool:
        """Has part of a frame come that is more than a comment?"""
        return bool(self._data or self._event or (self._pieces and not self._pieces[0].startswith(b":")))

    def end(self) -> Frame | None:
        """The input is over: return what an unterminated last frame would have been."""
        line = b"".join(self._pieces)
        self._pieces = []
        if line:
            self._field(line)
        if not self._data or self.overlong:
            return None
        frame = Frame(b"\n".join(self._data), self._event.decode("utf-8", "replace"))
        self._data = []
        return frame

    def _skip_bom(self, chunk: bytes) -> bytes:
        head = (self._head or b"") + chunk
        if len(head) < len(BOM) and BOM.startswith(head):
            self._head = head
            return b""
        self._head = None
        return head.removeprefix(BOM)

    def _line_by_line(self, chunk: bytes) -> list[Frame]:
        """Read whatever lines there are."""
        frames: list[Frame] = []
        if _CR in chunk:
            self._swallow_lf = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if lines and self._pieces:
            lines[0] = b"".join([*self._pieces, lines[0]])
            self._pieces = []
            self._pending = 0
        if rest:
            self._pieces.append(rest)
            self._pending += len(rest)
        for line in lines:
            self._size += len(line) + 1
            if self._size > self._max_frame:
                self.overlong = True
                return frames
            if line:
                if line.startswith(b"data: "):  # what nearly every line is
                    self._data.append(line[6:])
                else:
                    self._field(line)
                continue
            if self._data:  # a blank line after `event:` alone dispatches nothing
                frames.append(Frame(b"\n".join(self._data), self._event.decode("utf-8", "replace")))
                self._data = []
            self._event = b""
            self._size = 0
        self.overlong = self._size + self._pending > self._max_frame
        return frames

    def _field(self, line: bytes) -> None:
        name, value = parse_field(line)
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._event = value


def _simple(run: bytes, line_end: bytes) -> list[Frame]:
    """Read whole frames that are all of the two kinds that nearly every frame is; none where one is not."""
    if line_end == b"\n":
        lines = run.split(b"\n")
    else:  # three times as fast as to split at two bytes
        lines = run.replace(b"\r", b"").split(b"\n")
        if line_end.join(lines) != run:
            return []  # there are other line ends, too
    lines.pop()
    frames: list[Frame] = []
    if lines[0][:6] == b"data: ":
        if any(lines[1::2]):
            return []
        for line in lines[::2]:
            if line[:6] != b"data: ":
                return []
            frames.append(Frame(line[6:]))
        return frames
    if any(lines[2::3]) or len(lines) % 3:
        return []
    last, event = b"", ""
    for name, line in zip(lines[::3], lines[1::3], strict=True):
        if name != last:  # types come in long rows: each is decoded once
            if name[:7] != b"event: ":
                return []
            last, event = name, name[7:].decode("utf-8", "replace")
        if line[:6] != b"data: ":
            return []
        frames.append(Frame(line[6:], event))
    return frames


# Passing frames on...


class Reframer:
    """Give whole frames on, byte for byte, as soon as their last byte is in.

    Taken out: `id:` and `retry:` lines (the official OpenAI client parses the empty event that
    they dispatch and dies of it), frames without data or with empty data, data that begins with
    a colon and a space (relics of comments), the BOM, and everything after the end mark.

    A run of frames that are one `data: {…}` line each, ended by LF or all by CRLF, passes in a handful of
    C-level scans, however many frames it holds: that is the hot path.  All else goes line by line.

    ``overlong`` is set when a frame outgrows ``max_frame`` bytes, ``done`` when the end mark was passed on;
    ``clean`` tells that the last run was of that simple kind, ``blank`` with what its frames end,
    ``between`` that the next byte begins a frame and that every line has ended with LF so far,
    ``frames`` how many frames were given on.
    """

    def __init__(self, max_frame: int = 16 * 2**20) -> None:
        self._max_frame = max_frame
        self._tail: list[bytes] = []  # of the unfinished frame, on the LF path
        self._tail_size = 0
        self._slow: _Lines | None = None  # once a CR was seen
        self._head: bytes | None = b""  # the first bytes, while they may still be a BOM
        self.overlong = False
        self.done = False
        self.clean = True
        self.between = False
        self.blank = b"\n\n"
        self.frames = 0

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes; return the whole frames they complete, as one run."""
        self.between = False
        if self._head is not None:
            chunk = self._skip_bom(chunk)
        if not chunk or self.done or self.overlong:
            return b""
        if self._slow is None and _CR in chunk:
            self._slow = _Lines(self._max_frame)
            chunk = b"".join([*self._tail, chunk])
            self._tail = []
        if self._slow is not None:
            return self._crlf(self._slow, chunk) or self._line_by_line(self._slow, chunk)

        end = chunk.rfind(b"\n\n") + 2
        meets_at_the_cut = self._tail and chunk[:1] == b"\n" and self._tail[-1][-1:] == b"\n"
        if end == 1 and not meets_at_the_cut:
            self._hold(chunk)
            return b""
        run = chunk if end == len(chunk) else chunk[:end]
        if self._tail:
            run = b"".join([*self._tail, run])
            self._tail = []
        self._tail_size = 0
        if end < len(chunk):
            self._hold(chunk[end:])

        # Every LF belongs to the end of a frame that begins as it should, so every frame is one line.
        ends = run.endswith(_LAST)
        frames = run.count(b"\n\ndata: {") + 1 + ends
        if run.startswith(b"data: {") and run.count(b"\n") == 2 * frames and len(run) <= self._max_frame:
            self.done = ends
            self.clean = True
            self.between = not (ends or self._tail)
            self.frames += frames
            return run
        if len(run) <= self._max_frame and _NAMED.fullmatch(run):
            self.clean = False
            self.between = not self._tail
            self.frames += run.count(b"\n") // 3
            return run
        return self._line_by_line(_Lines(self._max_frame), run)

    def end(self) -> bytes:
        """The input is over: return an unterminated last frame, terminated; b"" if there is none."""
        if self.done or self.overlong:
            return b""
        lines = self._slow
        if lines is None:
            lines, held = _Lines(self._max_frame), b"".join(self._tail)
            self._tail = []
            lines.feed(held)
        out = lines.end()
        self.done = lines.done
        self.clean = False
        self.frames += bool(out)
        return out

    @property
    def holding(self) -> bool:
        """Has part of a frame come that is more than a comment?"""
        if self._slow is not None:
            return self._slow.holding
        return bool(self._tail) and self._tail[0][:1] != b":"

    def _skip_bom(self, chunk: bytes) -> bytes:
        head = (self._head or b"") + chunk
        if len(head) < len(BOM) and BOM.startswith(head):
            self._head = head
            return b""
        self._head = None
        return head.removeprefix(BOM)

    def _hold(self, piece: bytes) -> None:
        if not self._tail:
            piece = piece.lstrip(b"\n")  # blank lines between frames belong to none
            if not piece:
                return
        self._tail.append(piece)
        self._tail_size += len(piece)
        if self._tail_size > self._max_frame:
            self.overlong = True
            self._tail = []

    def _crlf(self, lines: _Lines, run: bytes) -> bytes:
        """Take whole frames of one `data: {…}` line each that all end with CRLF, as Google's do; else nothing."""
        if not (lines.idle and run.startswith(b"data: {") and run.endswith(_CRLF * 2) and len(run) <= self._max_frame):
            return b""
        frames = run.count(b"\r\n\r\ndata: {") + 1
        if not run.count(b"\r") == run.count(b"\n") == 2 * frames:
            return b""
        lines.took_crlf()
        self.clean = True
        self.blank = _CRLF * 2
        self.frames += frames
        return run

    def _line_by_line(self, lines: _Lines, chunk: bytes) -> bytes:
        before = lines.frames
        out = lines.feed(chunk)
        self.frames += lines.frames - before
        self.clean = False
        self.done = lines.done
        self.overlong = (self.overlong or lines.overlong) and not self.done
        return out


class _Lines:
    """The Reframer's slow path: every kind of line end, kept as it came."""

    def __init__(self, max_frame: int) -> None:
        self._max_frame = max_frame
        self._pieces: list[bytes] = []  # of the unfinished line
        self._kept: list[bytes] = []  # lines of the unfinished frame that go on, with their ends
        self._data: list[bytes] = []  # what they say
        self._size = 0  # bytes of the unfinished frame's whole lines
        self._pending = 0  # bytes of its unfinished line
        self._crlf = False  # the last line end was CRLF
        self._parted = False  # last chunk ended in CR: its LF may follow
        self._given = False  # the last line went on, or will with its frame
        self.done = False
        self.overlong = False
        self.frames = 0

    def feed(self, chunk: bytes) -> bytes:
        out: list[bytes] = []
        start = 0
        if self._parted and chunk[:1] == b"\n":
            start = 1
            self._crlf = True
            if self._given:  # after its line, or after a frame that could not wait for it
                (self._kept or out).append(b"\n")
        self._parted = chunk[-1:] == b"\r"
        for match in _LINE_END.finditer(chunk, start):
            line, end = chunk[start : match.start()], match.group()
            start = match.end()
            self._crlf = end == b"\r\n"
            if self._pieces:
                line = b"".join([*self._pieces, line])
                self._pieces = []
                self._pending = 0
            self._size += len(line) + 1
            if self._size > self._max_frame:
                self.overlong = True
                break
            if line:
                self._take(line, end)
            else:
                out.append(self._dispatch(end))
                if self.done:
                    break
        else:
            if start < len(chunk):
                self._pieces.append(chunk[start:])
                self._pending += len(chunk) - start
                self.overlong = self._size + self._pending > self._max_frame
        return b"".join(out)

    def end(self) -> bytes:
        line = b"".join(self._pieces)
        self._pieces = []
        end = b"\r\n" if self._crlf else b"\n"
        if line:
            self._take(line, end)
        return self._dispatch(end)

    @property
    def holding(self) -> bool:
        return bool(self._data) or (bool(self._pieces) and self._pieces[0][:1] != b":")

    @property
    def idle(self) -> bool:
        """Does the next byte begin a frame?"""
        return not (self._size or self._pieces or self._parted)

    def took_crlf(self) -> None:
        """Whole frames that end with CRLF were taken elsewhere."""
        self._crlf = True

    def _take(self, line: bytes, end: bytes) -> None:
        name, value = parse_field(line)
        # A BOM is none here and its line means nothing; but it may become the first that the client gets.
        self._given = name not in (b"id", b"retry") and not line.startswith(BOM)
        if name == b"data":
            self._data.append(value)
        if self._given:
            self._kept.append(line + end)

    def _dispatch(self, end: bytes) -> bytes:
        data, kept = self._data, b"".join(self._kept)
        self._data, self._kept, self._size = [], [], 0
        self._given = any(data) and not data[0].startswith(b": ")
        if not self._given:
            return b""
        self.frames += 1
        if data[0].startswith(DONE):
            self.done = True  # nobody waits for the second half of a CRLF: the line before has the same end
            end = b"\r\n" if kept.endswith(b"\r\n") else kept[-1:]
        elif end == b"\n" and kept.endswith(b"\r"):  # what stood between was taken out: together they were one end
            end = b"\r\n"
        return kept + end


def split(run: bytes) -> Iterator[tuple[bytes, Frame]]:
    """Take a run of whole frames apart again: each frame's bytes and its meaning."""
    start = 0
    for match in _FRAME_END.finditer(run):
        raw = run[start : match.end()]
        start = match.end()
        data, event = [], b""
        for line in _LINE_END.split(raw):
            name, value = parse_field(line)
            if name == b"data":
                data.append(value)
            elif name == b"event":
                event = value
        yield raw, Frame(b"\n".join(data), event.decode("utf-8", "replace"))


def split_clean(run: bytes, blank: bytes = b"\n\n") -> Iterator[tuple[bytes, Frame]]:
    """The same for a run that the Reframer called clean: one `data: ` line a frame, ended by ``blank``."""
    for line in run[: -len(blank)].split(blank):
        yield line + blank, Frame(line[6:])
