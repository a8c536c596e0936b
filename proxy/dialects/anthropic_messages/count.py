"""A local estimate of what a request's input costs, for those who have to know before a provider says it.

The heuristic, made to come out near what Anthropic has counted (a test holds it to recordings):
a token is 3.5 bytes of ASCII text; other characters are a token each; every message, call and
result costs some tokens more than its words; tools and thinking cost a preamble.  A picture costs a token per
750 pixels once scaled to 1568 at its longer edge, 1600 where its size is not known; a
document that is not text costs 2000 tokens for each started 50 KiB.
"""

from __future__ import annotations

import struct
from base64 import b64decode
from binascii import Error as NotBase64
from typing import TYPE_CHECKING, Any, assert_never

import orjson

from proxy.requests import Audio, Document, Image, Refusal, Text, Thinking, ToolCall, ToolResult

if TYPE_CHECKING:
    from proxy.requests import Part, Request, Turn

_BYTES_PER_TOKEN = 3.5
_PER_MESSAGE = 4
_PER_REQUEST = 3
_PER_CALL = 40
_PER_RESULT = 30
_PER_TOOL = 12
_TOOLS_PREAMBLE = 430
_THINKING_PREAMBLE = 28
_PICTURE = 1600
_PIXELS_PER_TOKEN = 750
_LONGEST_EDGE = 1568
_DOCUMENT = 2000
_DOCUMENT_BYTES = 50 * 1024
_HEAD = 64 * 1024  # base64 letters of a picture that are looked at for its size


def estimate(request: Request) -> int:
    """Estimate the tokens of a request's input; never 0."""
    total = float(_PER_REQUEST)
    for text in request.system:
        total += _PER_MESSAGE + tokens(text.text)
    for turn in request.turns:
        total += _turn(turn)
    if request.reasoning is not None:
        total += _THINKING_PREAMBLE
    if request.tools:
        total += _TOOLS_PREAMBLE
    for tool in request.tools:
        total += _PER_TOOL + tokens(tool.name) + tokens(tool.description) + _schema(tool.schema)
    if request.response_format is not None:
        total += _schema(request.response_format.schema)
    return max(1, round(total))


def body(count: int) -> bytes:
    """Render the answer of `count_tokens`."""
    return orjson.dumps({"input_tokens": count})


def tokens(text: str) -> float:
    """Estimate the tokens of some words."""
    if text.isascii():
        return len(text) / _BYTES_PER_TOKEN
    strange = len(text) - len(text.encode("ascii", "ignore"))
    return (len(text) - strange) / _BYTES_PER_TOKEN + strange


def _schema(schema: dict[str, Any] | None) -> float:
    try:
        return len(orjson.dumps(schema or {})) / _BYTES_PER_TOKEN
    except orjson.JSONEncodeError:  # nested too deeply: whoever writes it will say so
        return 0


def _turn(turn: Turn) -> float:
    return _PER_MESSAGE + sum(map(_part, turn.parts))


def _part(part: Part) -> float:
    match part:
        case Text() | Refusal():
            return tokens(part.text)
        case Thinking():
            return tokens(part.text)
        case ToolCall():
            return _PER_CALL + tokens(part.name) + tokens(part.arguments)
        case ToolResult():
            return _PER_RESULT + sum(map(_part, part.parts))
        case Image():
            return _picture(part)
        case Document():
            return tokens(part.text) if part.text else _DOCUMENT * (1 + len(part.data) * 3 // 4 // _DOCUMENT_BYTES)
        case Audio():
            return len(part.data) * 3 / 4 / 1000
        case _:
            assert_never(part)


# How large is a picture?


def _picture(image: Image) -> float:
    data = image.data
    if not data and image.url.startswith("data:"):
        data = image.url.partition(",")[2]
    width, height = size(data)
    if not (width and height):
        return _PICTURE
    scale = min(1.0, _LONGEST_EDGE / max(width, height))
    return min(_PICTURE, width * scale * height * scale / _PIXELS_PER_TOKEN)


def size(data: str) -> tuple[int, int]:
    """Read width and height from the head of a PNG, GIF or JPEG in base64; (0, 0) where they do not show."""
    try:
        head = b64decode(data[:_HEAD])
        if head.startswith(b"\x89PNG"):
            return struct.unpack(">II", head[16:24])
        if head.startswith(b"GIF8"):
            return struct.unpack("<HH", head[6:10])
        if head.startswith(b"\xff\xd8"):
            return _jpeg(head)
    except (NotBase64, ValueError, struct.error, IndexError):
        pass
    return (0, 0)


def _jpeg(head: bytes) -> tuple[int, int]:
    place = 2
    while place < len(head) and head[place] == 0xFF:
        marker = head[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame's head
            height, width = struct.unpack(">HH", head[place + 5 : place + 9])
            return width, height
        place += 2 + int.from_bytes(head[place + 2 : place + 4])
    return (0, 0)
