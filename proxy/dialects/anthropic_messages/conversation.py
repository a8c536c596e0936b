"""Turns → Anthropic's messages.

Its rules: the first message is the user's; neighbours of one role are one message; all results
of a turn's calls stand in the user message right after it, before anything else; call ids are
unique and of few letters; no text is blank; only thoughts with their signature go back.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, assert_never
from urllib.parse import unquote_to_bytes

from proxy.dialects.anthropic_messages import NAME
from proxy.dialects.anthropic_messages.words import arguments
from proxy.errors import InvalidRequest
from proxy.requests import Audio, Document, Image, Refusal, Role, Text, Thinking, ToolCall, ToolResult, marked

if TYPE_CHECKING:
    from proxy.requests import Cache, Part, Request

ROLE: dict[Role, str] = {
    Role.SYSTEM: "system",
    Role.USER: "user",
    Role.ASSISTANT: "assistant",
    Role.TOOL: "user",
}
#: Said first where a conversation begins with the assistant.
OPENING = "(The conversation begins here.)"
_STRANGE = re.compile(r"[^A-Za-z0-9_-]")

Block = dict[str, Any]


def write(request: Request, more: str = "") -> tuple[str | list[Block], list[Block]]:
    """Write the system prompt and the messages; ``more`` is added to the prompt.

    System turns inside a conversation go to the prompt, since few models know them elsewhere;
    they keep their place if the client speaks this dialect, and so knows whom it talks to.
    """
    in_place = NAME in request.extras
    system: list[Block] = [block for text in request.system for block in _text(text.text, text.cache)]
    messages: list[Block] = []
    ids = _Ids()
    for turn in request.turns:
        blocks = [block for part in turn.parts for block in _part(part, ids)]
        if turn.role is Role.SYSTEM and not (in_place and messages):
            system += blocks
        elif blocks:
            role = ROLE[turn.role]
            if messages and messages[-1]["role"] == role:
                messages[-1]["content"] += blocks
            else:
                messages.append({"role": role, "content": blocks})
    if not messages:  # a prompt alone: somebody has to say it
        if not system:
            raise InvalidRequest("`messages` holds no text", param="messages")
        messages, system = [{"role": "user", "content": system}], []
    if messages[0]["role"] != "user":
        messages.insert(0, {"role": "user", "content": list(_text(OPENING))})
    for message in messages:
        message["content"].sort(key=lambda block: block["type"] != "tool_result")
    _trim(messages[-1])
    for message in messages:
        message["content"] = _flat(message["content"])
    system += _text(more)
    return _flat(system, "\n\n"), messages


def _trim(message: Block) -> None:
    """An assistant's last words are gone on with, and must not end in white space."""
    last = message["content"][-1]
    if message["role"] == "assistant" and last["type"] == "text":
        last["text"] = last["text"].rstrip()


def _flat(blocks: list[Block], glue: str | None = None) -> str | list[Block]:
    """Say plain text as a string, which everybody understands."""
    if (len(blocks) == 1 or glue is not None) and all(block.keys() == {"type", "text"} for block in blocks):
        return (glue or "").join(block["text"] for block in blocks)
    return blocks


def _part(part: Part, ids: _Ids) -> Iterator[Block]:
    match part:
        case Text():
            yield from _text(part.text, part.cache)
        case Refusal():
            yield from _text(part.text)
        case Image():
            yield _marked({"type": "image", "source": _picture(part)}, part.cache)
        case Document():
            yield _marked(_document(part), part.cache)
        case Thinking():
            if marked(part.signature or part.redacted):
                return  # another provider's, which this one would refuse
            if part.redacted:
                yield {"type": "redacted_thinking", "data": part.redacted}
            elif part.signature:
                yield {"type": "thinking", "thinking": part.text, "signature": part.signature}
        case ToolCall():
            call = {
                "type": "tool_use",
                "id": ids.called(part.id),
                "name": part.name,
                "input": arguments(part.arguments),
            }
            yield _marked(call, part.cache)
        case ToolResult():
            yield _result(part, ids)
        case Audio():
            raise InvalidRequest(
                "`messages` holds audio, which the Messages dialect of this model's provider cannot express",
                param="messages",
            )
        case _:
            assert_never(part)


def _text(text: str, cache: Cache | None = None) -> Iterator[Block]:
    if text.strip():
        yield _marked({"type": "text", "text": text}, cache)


def _marked(block: Block, cache: Cache | None) -> Block:
    if cache is not None:
        block["cache_control"] = cache
    return block


def _result(result: ToolResult, ids: _Ids) -> Block:
    block: Block = {"type": "tool_result", "tool_use_id": ids.answered(result.id)}
    inner = [block for part in result.parts for block in _part(part, ids)]
    if inner:
        block["content"] = _flat(inner)
    if result.error:
        block["is_error"] = True
    return _marked(block, result.cache)


def _picture(image: Image) -> Block:
    if image.data:
        return _base64(image.media_type, image.data)
    return _source(image.url)


def _document(document: Document) -> Block:
    if document.media_type.startswith("image/") and not document.text:
        source = {"type": "file", "file_id": document.file_id} if document.file_id else _source(document.url)
        return {"type": "image", "source": _base64(document.media_type, document.data) if document.data else source}
    if document.text:
        source = {"type": "text", "media_type": "text/plain", "data": document.text}
    elif document.file_id:
        source = {"type": "file", "file_id": document.file_id}
    else:
        source = _base64(document.media_type, document.data) if document.data else _source(document.url)
        if str(source.get("media_type")).startswith("text/"):
            source = {"type": "text", "media_type": "text/plain", "data": _words(source["data"])}
    block: Block = {"type": "document", "source": source}
    if document.name:
        block["title"] = document.name
    return block


def _words(data: str) -> str:
    try:
        return b64decode(data).decode("utf-8", "replace")
    except NotBase64:
        raise InvalidRequest("`messages` holds a text document that is not base64", param="messages") from None


def _source(url: str) -> Block:
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    head, _, data = url[5:].partition(",")
    media_type, *rest = head.split(";")
    if "base64" not in rest:
        data = b64encode(unquote_to_bytes(data)).decode()
    return _base64(media_type, data)


def _base64(media_type: str, data: str) -> Block:
    if data.startswith("data:"):
        return _source(data)
    kind = "image/jpeg" if media_type == "image/jpg" else media_type or "application/pdf"
    return {"type": "base64", "media_type": kind, "data": data}


class _Ids:
    """Call ids of other dialects, made unique and of Anthropic's letters; results find their calls."""

    def __init__(self) -> None:
        self._given: set[str] = set()
        self._open: dict[str, deque[str]] = {}  # theirs → ours, of calls that have no result yet
        self._last: dict[str, str] = {}

    def called(self, id: str) -> str:
        clean = base = _STRANGE.sub("_", id) or "call"
        n = 1
        while clean in self._given:
            n += 1
            clean = f"{base}_{n}"
        self._given.add(clean)
        self._open.setdefault(id, deque()).append(clean)
        self._last[id] = clean
        return clean

    def answered(self, id: str) -> str:
        waiting = self._open.get(id)
        return waiting.popleft() if waiting else self._last.get(id) or _STRANGE.sub("_", id) or "call"


def tools_used(request: Request) -> Iterable[str]:
    """Name the tools that were called, each once."""
    return dict.fromkeys(part.name for turn in request.turns for part in turn.parts if isinstance(part, ToolCall))
