"""The frames of a stream are alike but for a few words: one that is like another need not be looked at.

Most frames come alone, each in a read of its own, and looking at what never changes in them is what
they cost.
"""

from __future__ import annotations

import re

_QUOTE, _LF, _CR = b'"\n\r'
_ENDS = re.compile(rb'["\r\n]')  # of a string, or of a line
#: A stream whose frames differ in more than their text, as in a number of each, is not worth more tries.
_TRIES = 8


class Template:
    """What a whole frame in which nothing mattered had around its text.

    ``keys`` begin the strings that may say anything, e.g. `"content":"`.  A read with the same bytes
    around such a string is a whole frame, too, and as little matters in it.
    """

    __slots__ = ("_back", "_before", "_behind", "_front", "_keys", "_max_frame", "_tries")

    def __init__(self, keys: tuple[bytes, ...], max_frame: int) -> None:
        self._keys = keys
        self._max_frame = max_frame
        self._tries = _TRIES if keys else 0
        self._front = self._back = b""
        self._before = self._behind = 0

    def fits(self, read: bytes) -> bool:
        """Is this a frame like that?  Only for reads that begin where a frame does."""
        size = len(read)
        before, behind = self._before, size - self._behind
        if not (0 < before <= behind and size <= self._max_frame):
            return False
        if read[:before] != self._front or read[behind:] != self._back:  # costs less than to ask how it starts and ends
            return False
        text = read[before:behind]
        return not (_QUOTE in text or _LF in text or _CR in text)

    def learn(self, frame: bytes) -> None:
        """Remember a frame of one `data: {…}` line, or of an `event: ` line and that, in which nothing mattered."""
        if not self._tries:
            return
        for key in self._keys:
            before = frame.find(key) + len(key)
            end = _end(frame, before)
            if len(key) <= before < end:  # a text that is empty is not the one that changes
                front, back = frame[:before], frame[end:]
                if front.find(b"\\") < 0 and back.find(b"\\") < 0:  # nothing in them says another thing than it seems
                    self._tries -= 1
                    self._front, self._back = front, back
                    self._before, self._behind = before, len(frame) - end
                return


def _end(frame: bytes, start: int) -> int:
    """Where a string ends that begins at ``start``; -1 where it holds a quote, or a line ends before."""
    found = _ENDS.search(frame, start)
    if found is None or found[0] != b'"' or frame[found.start() - 1 : found.start()] == b"\\":
        return -1
    return found.start()
