"""A client's messages → turns.

Tool results come inside user messages; here they have turns of their own, before what the user says.
What only a provider's own tools understand (searches, code runs) is passed over and listed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from proxy.dialects.anthropic_messages.fields import dump, need, objects, take, wrong
from proxy.requests import (
    Document,
    Image,
    Part,
    Role,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Turn,
)

ROLES: dict[str, Role] = {"user": Role.USER, "assistant": Role.ASSISTANT, "system": Role.SYSTEM}


class Blocks:
    """Reads a request's content; ``dropped`` collects what was passed over."""

    def __init__(self) -> None:
        self.dropped: list[str] = []
        self._tools: dict[str, str] = {}  # call id → tool name

    def turns(self, message: dict[str, Any], place: str) -> Iterator[Turn]:
        """Read one message."""
        role = need(message, "role", str, place)
        if role not in ROLES:
            raise wrong(f"{place}.role", f"one of {', '.join(ROLES)}")
        blocks = self._blocks(message, place)
        if role == "system":
            yield Turn(Role.SYSTEM, tuple(self._texts(blocks)))
        elif role == "assistant":
            if parts := tuple(p for block, at in blocks if (p := self._assistant(block, at))):
                yield Turn(Role.ASSISTANT, parts)
        else:
            yield from self._user(blocks)

    def texts(self, source: dict[str, Any], name: str) -> tuple[Text, ...]:
        """Read a field that is a string or an array of text blocks."""
        if source.get(name) is None:
            return ()
        return tuple(self._texts(self._blocks(source, "", name)))

    def _blocks(self, source: dict[str, Any], place: str, name: str = "content") -> list[tuple[dict[str, Any], str]]:
        content, place = source.get(name), f"{place}.{name}" if place else name
        if isinstance(content, str):
            return [({"type": "text", "text": content}, place)]
        if not isinstance(content, list):
            raise wrong(place, "a string or an array of blocks")
        blocks = objects(content, place)
        for block, at in blocks:
            need(block, "type", str, at)
        return blocks

    def _texts(self, blocks: list[tuple[dict[str, Any], str]]) -> Iterator[Text]:
        for block, place in blocks:
            if block["type"] == "text":
                yield self._text(block, place)
            else:
                self._drop(block)

    def _user(self, blocks: list[tuple[dict[str, Any], str]]) -> Iterator[Turn]:
        if results := tuple(self._result(block, at) for block, at in blocks if block["type"] == "tool_result"):
            yield Turn(Role.TOOL, results)
        said: list[Part] = []
        for block, place in blocks:
            match block["type"]:
                case "tool_result":
                    continue
                case "mid_conv_system":
                    if said:
                        yield Turn(Role.USER, tuple(said))
                        said = []
                    yield Turn(Role.SYSTEM, tuple(self._texts(self._blocks(block, place))))
                case "tool_use" | "thinking" | "redacted_thinking":
                    raise wrong(f"{place}.type", "a user's: this is a block of an assistant's message")
                case _:
                    if part := self._shown(block, place):
                        said.append(part)
        if said:
            yield Turn(Role.USER, tuple(said))

    def _assistant(self, block: dict[str, Any], place: str) -> Part | None:
        match block["type"]:
            case "thinking":
                return Thinking(need(block, "thinking", str, place), take(block, "signature", str, place) or "")
            case "redacted_thinking":
                return Thinking(redacted=need(block, "data", str, place))
            case "tool_use":
                id, name = need(block, "id", str, place), need(block, "name", str, place)
                self._tools[id] = name
                given = dump(take(block, "input", dict, place) or {}, f"{place}.input").decode()
                return ToolCall(id, name, given, cache=_cache(block, place))
            case "tool_result":
                raise wrong(f"{place}.type", "an assistant's: tool results belong into the next user message")
            case _:
                return self._shown(block, place)

    def _result(self, block: dict[str, Any], place: str) -> ToolResult:
        id = need(block, "tool_use_id", str, place)
        blocks = [] if block.get("content") is None else self._blocks(block, place)
        parts = tuple(part for one, at in blocks if (part := self._shown(one, at)))
        error = take(block, "is_error", bool, place) or False
        return ToolResult(id, parts, self._tools.get(id, ""), error, _cache(block, place))

    def _shown(self, block: dict[str, Any], place: str) -> Text | Image | Document | None:
        match block["type"]:
            case "text":
                return self._text(block, place)
            case "image":
                return self._image(block, place)
            case "document":
                return self._document(block, place)
            case "search_result":
                heads = [t for name in ("title", "source") if (t := take(block, name, str, place))]
                found = [text.text for text in self._texts(self._blocks(block, place))]
                return Text("\n".join([*heads, *found]), _cache(block, place))
            case _:
                self._drop(block)
                return None

    def _text(self, block: dict[str, Any], place: str) -> Text:
        return Text(need(block, "text", str, place), _cache(block, place))

    def _image(self, block: dict[str, Any], place: str) -> Image | Document:
        source, at, cache = need(block, "source", dict, place), f"{place}.source", _cache(block, place)
        match source.get("type"):
            case "base64":
                return Image(
                    data=need(source, "data", str, at), media_type=need(source, "media_type", str, at), cache=cache
                )
            case "url":
                return Image(url=need(source, "url", str, at), cache=cache)
            case "file":
                return Document(file_id=need(source, "file_id", str, at), media_type="image/*", cache=cache)
            case _:
                raise wrong(f"{at}.type", "base64, url or file")

    def _document(self, block: dict[str, Any], place: str) -> Document:
        source, at, cache = need(block, "source", dict, place), f"{place}.source", _cache(block, place)
        name = take(block, "title", str, place) or ""
        for field in ("citations", "context"):
            if block.get(field):
                self.dropped.append(f"document.{field}")
        match source.get("type"):
            case "base64":
                data, media_type = need(source, "data", str, at), need(source, "media_type", str, at)
                return Document(data=data, media_type=media_type, name=name, cache=cache)
            case "url":
                return Document(url=need(source, "url", str, at), name=name, cache=cache)
            case "text":
                media_type = take(source, "media_type", str, at) or "text/plain"
                return Document(text=need(source, "data", str, at), media_type=media_type, name=name, cache=cache)
            case "content":
                text = "\n\n".join(text.text for text in self._texts(self._blocks(source, at)))
                return Document(text=text, media_type="text/plain", name=name, cache=cache)
            case "file":
                return Document(file_id=need(source, "file_id", str, at), name=name, cache=cache)
            case _:
                raise wrong(f"{at}.type", "base64, url, text, content or file")

    def _drop(self, block: dict[str, Any]) -> None:
        self.dropped.append(f"messages.{block['type']}")


def _cache(block: dict[str, Any], place: str) -> dict[str, Any] | None:
    return take(block, "cache_control", dict, place)
