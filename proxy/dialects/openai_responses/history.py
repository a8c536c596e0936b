"""Input items → turns: what was said, thought, called and answered so far.

Items come one by one: what a model made in a row is one turn, and a call's result belongs right after
the turn that made it, wherever in the input it stands.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from proxy.dialects.openai_responses import freeform
from proxy.dialects.openai_responses.parts import read_output, read_parts
from proxy.dialects.openai_responses.seals import Sealed, unwrap
from proxy.errors import InvalidRequest
from proxy.requests import Role, Thinking, ToolCall, ToolResult, Turn

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
                self._call(_word(item, "call_id", place), name, _json(item.get("arguments") or ""))
            case "custom_tool_call":
                name = self._box.flat(_word(item, "name", place), _text(item.get("namespace")))
                self._call(_word(item, "call_id", place), name, freeform.wrap(_json(item.get("input") or "")))
            case "function_call_output" | "custom_tool_call_output":
                self._result(_word(item, "call_id", place), item.get("output"), f"{place}.output")
            case "agent_message":  # from one of Codex's agents to another
                self._say(Role.USER, read_parts(item.get("content"), f"{place}.content", self.dropped))
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
        self._say(role, read_parts(item.get("content"), f"{place}.content", self.dropped))

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
        draft.results.append(ToolResult(id, tuple(read_output(output, place)), name))

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
