"""Chunks that differ from one to the next in a few letters only.

Every chunk says the answer's id, model and time anew around its text.  Most providers' are cast in
one mould as long as a block lasts: what stands before and behind the text is learned from one chunk,
and of the next ones only the text is parsed, which takes a fourth of the time.
"""

from __future__ import annotations

import json
from typing import Any

import orjson
from msgspec import Struct

from proxy.events import Block

# Members of an enum are looked up slowly, and these once per chunk.
_TEXT, _THINKING, _TOOL_CALL = Block.TEXT, Block.THINKING, Block.TOOL_CALL
_SILENT = (None, "")

#: No JSON begins so.
_NOTHING = b"\0"
#: Nothing larger is kept beside a stream, in bytes.
_LARGEST = 4096
#: Moulds in a row that no chunk fitted: this provider's chunks have none.
_PATIENCE = 3


class More(Struct, frozen=True, gc=False):
    """What a chunk says that only goes on with a block; ``call`` is a tool call's index."""

    block: Block
    call: int
    text: str


class Mould:
    """What stands around the text of one stream's chunks.

    A string in JSON can be exchanged for another without a look at the rest, so what fits is read
    exactly as `more` would read it.
    """

    def __init__(self) -> None:
        self._head = self._tail = _NOTHING
        self._block = _TEXT
        self._call = -1
        self._unfitting = 0  # moulds since a chunk has fitted one

    def fit(self, data: bytes) -> More | None:
        """Read a chunk that was cast in the mould; None of any other."""
        head, tail = self._head, self._tail
        if not (data.startswith(head) and data.endswith(tail)):
            return None
        try:
            text = orjson.loads(data[len(head) : -len(tail)])
        except orjson.JSONDecodeError:
            return None
        if not isinstance(text, str) or not text:
            return None
        self._unfitting = 0
        return More(self._block, self._call, text)

    def learn(self, data: bytes, said: More) -> None:
        """Take the mould of a chunk and what `more` has read in it."""
        if self._unfitting >= _PATIENCE or len(data) > _LARGEST:
            return
        self._unfitting += 1
        for spelled in (orjson.dumps(said.text), json.dumps(said.text).encode()):
            head, found, tail = data.partition(spelled)
            if found and _is_place(head, tail, said):
                self._head, self._tail, self._block, self._call = head, tail, said.block, said.call
                return


def _is_place(head: bytes, tail: bytes, said: More) -> bool:
    """Does the text stand there, and not a string that is like it, a key, or part of another string?"""
    try:
        other = more(orjson.loads(head + b'"?"' + tail))
    except orjson.JSONDecodeError:
        return False
    return other == More(said.block, said.call, "?")


def more(chunk: dict[str, Any]) -> More | None:
    """Read a chunk that only goes on with a block, as nearly all do; None of any other."""
    try:
        (choice,) = chunk["choices"]
        delta = choice["delta"]
    except (KeyError, TypeError, ValueError):
        return None
    if choice.get("finish_reason") or choice.get("index") or chunk.get("usage") is not None:
        return None
    if not isinstance(delta, dict) or delta.get("refusal") is not None or delta.get("reasoning_details"):
        return None
    content, thinking = delta.get("content"), delta.get("reasoning_content")
    if thinking is None:
        thinking = delta.get("reasoning")
    if calls := delta.get("tool_calls"):
        return _arguments(calls) if content in _SILENT and thinking in _SILENT else None
    if thinking in _SILENT:
        block, text = _TEXT, content
    elif content in _SILENT:
        block, text = _THINKING, thinking
    else:
        return None
    return More(block, -1, text) if isinstance(text, str) and text else None


def _arguments(calls: Any) -> More | None:
    try:
        (call,) = calls
        index, function = call["index"], call["function"]
        text = function["arguments"]
    except (KeyError, TypeError, ValueError):
        return None
    if call.get("id") not in _SILENT or function.get("name") not in _SILENT or "extra_content" in call:
        return None
    return More(_TOOL_CALL, index, text) if isinstance(index, int) and isinstance(text, str) and text else None
