"""The text of a custom tool's input, wrapped as a function's arguments and taken out again as it streams."""

from __future__ import annotations

import json
import re

import orjson

_START = re.compile(r'\s*\{\s*"input"\s*:\s*"')
# Characters of a JSON string that are complete: raw ones, and whole escapes.
_READY = re.compile(r'(?:[^"\\]++|\\(?:u[0-9a-fA-F]{4}|[^u]))*')
_HALF = re.compile(r"(?<!\\)(?:\\\\)*(\\u[dD][89abAB][0-9a-fA-F]{2})\Z")  # the first half of a surrogate pair
_PATIENCE = 64  # characters after which arguments that do not begin as expected never will


def wrap(input: str) -> str:
    """Say a custom tool's input as arguments."""
    return orjson.dumps({"input": input}).decode()


class Unwrapper:
    """Takes `{"input": "…"}` apart piece by piece; what a model wrote instead is kept as it is."""

    def __init__(self) -> None:
        self._pieces: list[str] = []  # of all arguments
        self._said: list[str] = []  # of the input
        self._rest = ""  # not decided, or not decoded yet
        self._inside = False  # the input's text has begun
        self._over = False  # it has ended, or will not be found

    def feed(self, piece: str) -> str:
        """Take a piece of the arguments; return the input's text that it completes."""
        self._pieces.append(piece)
        if self._over:
            return ""
        self._rest += piece
        if not self._inside:
            start = _START.match(self._rest)
            if start is None:
                self._over = len(self._rest) > _PATIENCE
                return ""
            self._inside = True
            self._rest = self._rest[start.end() :]
        ready = _READY.match(self._rest)
        assert ready is not None  # it matches the empty string
        raw = ready.group()
        if half := _HALF.search(raw):
            raw = raw[: half.start(1)]
        self._rest = self._rest[len(raw) :]
        self._over = self._rest[:1] == '"'
        return self._say(_decoded(raw))

    def end(self) -> tuple[str, str]:
        """The arguments are complete: the rest of the input's text, and all of it."""
        rest = ""
        if not self._inside:
            rest = self._say(_found("".join(self._pieces)))
        return rest, "".join(self._said)

    def _say(self, text: str) -> str:
        if text:
            self._said.append(text)
        return text


def _decoded(raw: str) -> str:
    try:
        text: str = json.loads(f'"{raw}"', strict=False)  # models write raw line ends
    except ValueError:  # an escape that JSON does not know
        return raw
    return text.encode("utf-8", "replace").decode()


def _found(arguments: str) -> str:
    """The input in arguments of another form: the only string in them, or all of them."""
    try:
        value = json.loads(arguments, strict=False)
    except (ValueError, RecursionError):
        return arguments
    if isinstance(value, dict):
        value = value.get("input", next(iter(value.values())) if len(value) == 1 else None)
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else arguments
