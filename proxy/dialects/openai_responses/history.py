"""Input items → turns: what was said, thought, called and answered so far.

Items come one by one: what a model made in a row is one turn, and a call's result belongs right after
the turn that made it, wherever in the input it stands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from proxy.dialects.openai_responses import freeform
from proxy.dialects.openai_responses.seals import Sealed, unwrap
from proxy.errors import InvalidRequest
from proxy.requests import (
    Audio,
    Document,
    Image,
    Refusal,
    Role,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Turn,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.dialects.openai_responses.tools import Toolbox
    from proxy.requests import Part

ROLES: dict[str, Role] = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
}
#: The whole conversation so far in a form that only OpenAI can read.
_COMPACTED = frozenset(("compaction", "compaction_summary", "context_compaction"))
_DATA_URL = re.compile(r"data:([^;,]*)(?:;[^,]*)?;base64,(.*)", re.DOTALL)


@dataclass(slots=True)
class _Draft:
    role: Role
    parts: list[Part] = field(default_factory=list)
    #: What came of its calls.
    results: list[ToolResult] = field(default_factory=list)


class History:
    """Reads items in their order; ``dropped`` names kinds that no other dialect has."""

    def __init__(self, box: Toolbox) -> None:
        self._box = box
        self._drafts: list[_Draft] = []
        self._calls: dict[str, tuple[_Draft, str]] = {}  # id of a call → who made it, its tool
        self._signatures: dict[str, str] = {}  # id of a call → its seal
        self.dropped: list[str] = []

    def read(self, item: object, place: str) -> None:
        """Read one item.  Raises ``InvalidRequest`` naming the field to mend."""
        if not isinstance(item, dict):
            raise InvalidRequest(f"`{place}` must be an object", param=place)
        match item.get("type") or ("message" if "role" in item else None):
            case "message":
                self._message(item, place)
            case "reasoning":
                self._reasoning(item)
            case "function_call":
                name = self._box.flat(_word(item, "name", place), _text(item.get("namespace")))
                self._call(_word(item, "call_id", place), name, _text(item.get("arguments")))
            case "custom_tool_call":
                name = self._box.flat(_word(item, "name", place), _text(item.get("namespace")))
                self._call(_word(item, "call_id", place), name, freeform.wrap(_text(item.get("input"))))
            case "function_call_output" | "custom_tool_call_output":
                self._result(_word(item, "call_id", place), item.get("output"), f"{place}.output")
            case "agent_message":  # from one of Codex's agents to another
                self._say(Role.USER, _parts(item.get("content"), f"{place}.content", self.dropped))
            case "item_reference":
                raise InvalidRequest(
                    f"`{place}` refers to a stored item; nothing is stored here, send the item itself", param=place
                )
            case str(kind) if kind in _COMPACTED:
                raise InvalidRequest(f"`{place}` can be read by OpenAI only", param=place)
            case "additional_tools":
                pass  # read with the other tools
            case str(kind):
                self._foreign(item, kind)
            case _:
                raise InvalidRequest(f"`{place}` needs a `type` or a `role`", param=place)

    def turns(self) -> Iterator[Turn]:
        """The conversation, empty turns left out."""
        for draft in self._drafts:
            parts = tuple(self._signed(part) for part in draft.parts)
            if parts:
                yield Turn(draft.role, parts)
            if draft.results:
                yield Turn(Role.TOOL, tuple(draft.results))

    def _message(self, item: dict[str, Any], place: str) -> None:
        role = ROLES.get(_text(item.get("role")))
        if role is None:
            known = ", ".join(ROLES)
            raise InvalidRequest(f"`{place}.role` must be one of {known}", param=f"{place}.role")
        self._say(role, _parts(item.get("content"), f"{place}.content", self.dropped))

    def _say(self, role: Role, parts: list[Part]) -> None:
        if role is Role.ASSISTANT:
            self._answer().parts += parts
        else:
            self._drafts.append(_Draft(role, parts))

    def _answer(self) -> _Draft:
        """The model's turn that is under way: results end it, and so does whoever else speaks."""
        last = self._drafts[-1] if self._drafts else None
        if last is None or last.role is not Role.ASSISTANT or last.results:
            last = _Draft(Role.ASSISTANT)
            self._drafts.append(last)
        return last

    def _reasoning(self, item: dict[str, Any]) -> None:
        encrypted = _text(item.get("encrypted_content"))
        seal = unwrap(encrypted)
        if encrypted and seal is None:  # another provider would refuse it
            self.dropped.append("input.encrypted_content")
        texts = [_text(part.get("text")) for part in _objects(item.get("summary"))]
        if not any(texts):
            texts = [_text(part.get("text")) for part in _objects(item.get("content"))]
        text = "\n\n".join(filter(None, texts))
        match seal:
            case (Sealed.CALL, value, call):
                self._signatures[call] = value
            case (Sealed.HIDDEN, value, _):
                self._answer().parts.append(Thinking(redacted=value))
            case (Sealed.THOUGHT, value, _):
                self._answer().parts.append(Thinking(text, value))
            case _ if text:
                self._answer().parts.append(Thinking(text))

    def _call(self, id: str, name: str, arguments: str) -> None:
        draft = self._answer()
        draft.parts.append(ToolCall(id, name, arguments))
        self._calls[id] = draft, name

    def _result(self, id: str, output: object, place: str) -> None:
        made = self._calls.get(id)
        if made is None:  # its call is gone: it stays where it is
            last = self._drafts[-1] if self._drafts else None
            draft, name = (last if last and last.role is Role.TOOL else _Draft(Role.TOOL)), ""
            if draft is not last:
                self._drafts.append(draft)
        else:
            draft, name = made
        draft.results.append(ToolResult(id, tuple(_output(output, place)), name))

    def _signed(self, part: Part) -> Part:
        if isinstance(part, ToolCall) and part.id in self._signatures:
            return ToolCall(part.id, part.name, part.arguments, self._signatures[part.id])
        return part

    def _foreign(self, item: dict[str, Any], kind: str) -> None:
        """Calls of tools that only OpenAI has: the client ran it (it has an id to answer to), or OpenAI did."""
        id = item.get("call_id")
        if isinstance(id, str) and id and kind.endswith("_call"):
            name = kind.removesuffix("_call")
            told = (item.get(field) for field in ("action", "operation", "arguments"))
            self._call(id, name, _json(next((value for value in told if value is not None), {})))
        elif isinstance(id, str) and id and kind.endswith("_output"):
            self._result(id, _json(item.get("output", item.get("tools"))), f"{kind}.output")
        else:
            self.dropped.append(f"input.{kind[:40]}")


# Parts...


def _parts(content: object, place: str, dropped: list[str]) -> list[Part]:
    if isinstance(content, str):
        return [Text(content)] if content else []
    if not isinstance(content, list):
        raise InvalidRequest(f"`{place}` must be a string or an array of parts", param=place)
    return [
        part
        for position, raw in enumerate(content)
        if (part := _part(raw, f"{place}[{position}]", dropped)) is not None
    ]


def _part(part: Any, place: str, dropped: list[str]) -> Part | None:
    match part:
        case {"type": "input_text" | "output_text" | "text" | "summary_text", "text": str(text)}:
            return Text(text)
        case {"type": "refusal", "refusal": str(text)}:
            return Refusal(text)
        case {"type": "input_image" | "image_url" | "computer_screenshot"}:
            return _image(part, place)
        case {"type": "input_file"}:
            return _document(part, place)
        case {"type": "input_audio", "input_audio": {"data": str(data), "format": str(form)}}:
            return Audio(data, form)
        case {"type": "encrypted_content"}:
            dropped.append("input.encrypted_content")
            return None
        case {"type": str(kind)}:
            raise InvalidRequest(f"`{place}` is broken, or not known here: {kind[:40]!r}", param=place)
        case _:
            raise InvalidRequest(f"`{place}` must be an object with a `type`", param=place)


def _image(part: dict[str, Any], place: str) -> Image:
    url: Any = part.get("image_url")
    detail = _text(part.get("detail"))
    if isinstance(url, dict):  # as chat completions spell it
        url, detail = url.get("url"), _text(url.get("detail"))
    if not isinstance(url, str) or not url:
        if part.get("file_id"):
            raise InvalidRequest(
                f"`{place}.file_id` is a file at OpenAI, which this model's provider cannot read",
                param=f"{place}.file_id",
            )
        raise InvalidRequest(f"`{place}.image_url` must be a string", param=f"{place}.image_url")
    if found := _DATA_URL.fullmatch(url):
        return Image(data=found[2], media_type=found[1] or "image/png", detail=detail)
    return Image(url=url, detail=detail)


def _document(part: dict[str, Any], place: str) -> Document:
    url, data, id = _text(part.get("file_url")), _text(part.get("file_data")), _text(part.get("file_id"))
    name, kind = _text(part.get("filename")), ""
    if found := _DATA_URL.fullmatch(data):
        kind, data = found[1], found[2]
    if not (url or data or id):
        raise InvalidRequest(f"`{place}` needs `file_url`, `file_data` or `file_id`", param=place)
    return Document(url=url, data=data, media_type=kind, name=name, file_id=id)


def _output(output: object, place: str) -> Iterator[Text | Image | Document]:
    match output:
        case None | "":
            return
        case str():
            yield Text(output)
        case {"content": str(text)}:  # an older Codex
            yield Text(text)
        case list() if all(isinstance(part, dict) for part in output):
            for part in _parts(output, place, []):
                if isinstance(part, Text | Image | Document):
                    yield part
        case _:
            raise InvalidRequest(f"`{place}` must be a string or an array of parts", param=place)


def _json(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _objects(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _word(item: dict[str, Any], name: str, place: str) -> str:
    value = item.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"`{place}.{name}` must be a string", param=f"{place}.{name}")
    return value


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
