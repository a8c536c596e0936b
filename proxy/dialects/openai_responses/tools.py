"""Tools of this dialect that others do not have, told to a provider as functions, and back.

Codex groups tools in namespaces and has custom ones, whose input is text and not JSON; it finds a call's
tool by namespace and name, and drops a call that names only the flat function.  Tools that OpenAI runs
itself (`web_search`, …) cannot be offered; they are left out.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from proxy.errors import InvalidRequest
from proxy.requests import Choice, Tool, ToolChoice

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Tools outside of a namespace are in this one as well, under their bare names.
_DEFAULT = "functions"
_UNFIT = re.compile(r"[^a-zA-Z0-9_-]")
_LONGEST = 64  # characters of a function's name that every provider takes


@dataclass(frozen=True, slots=True)
class Named:
    """A tool as the client calls it; a custom one takes text."""

    name: str
    namespace: str = ""
    custom: bool = False

    @property
    def words(self) -> dict[str, str]:
        """How an item that calls it says so."""
        return {"name": self.name, "namespace": self.namespace} if self.namespace else {"name": self.name}


@dataclass(slots=True)
class Toolbox:
    """A request's tools as functions; ``dropped`` names the kinds that were left out."""

    tools: list[Tool] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    _named: dict[str, Named] = field(default_factory=dict)
    _flat: dict[tuple[str, str], str] = field(default_factory=dict)
    _bare: dict[str, list[Named]] = field(default_factory=dict)

    def flat(self, name: str, namespace: str = "") -> str:
        """The function that stands for a tool of the client's; of one that is gone, what it would be."""
        return self._flat.get((namespace, name)) or flatten(name, namespace)

    def named(self, flat: str) -> Named:
        """The client's tool for a function that was called; models tend to forget the namespace."""
        known = self._named.get(flat)
        if known is None:
            same = self._bare.get(flat, ())
            known = same[0] if len(same) == 1 else Named(flat)
        return known

    def add(self, tool: Tool, named: Named) -> None:
        """Take a tool in; of tools that would share a name the later ones get a number."""
        name, number = tool.name, 2
        while name in self._named:
            name = f"{tool.name[: _LONGEST - 4]}_{number}"
            number += 1
        self.tools.append(tool if name == tool.name else Tool(name, tool.description, tool.schema, tool.strict))
        self._named[name] = named
        self._flat[named.namespace, named.name] = name
        self._bare.setdefault(named.name, []).append(named)


def flatten(name: str, namespace: str) -> str:
    """Join a namespace and a name as Codex does, within what providers take."""
    if not namespace or namespace == _DEFAULT:
        return name
    joined = _UNFIT.sub("_", f"{namespace.rstrip('_')}__{name.lstrip('_')}")
    if len(joined) <= _LONGEST:
        return joined
    return f"{joined[: _LONGEST - 9]}_{hashlib.sha256(joined.encode()).hexdigest()[:8]}"


def read_tools(tools: list[Any], place: str = "tools") -> Toolbox:
    """Read tool declarations.  Raises ``InvalidRequest`` naming the one that is broken."""
    box = Toolbox()
    for tool, named in _declared(tools, place, "", box):
        box.add(tool, named)
    return box


def read_choice(choice: Any, box: Toolbox) -> tuple[ToolChoice | None, tuple[Tool, ...]]:
    """Read `tool_choice`; also the tools that it leaves."""
    everything = tuple(box.tools)
    match choice:
        case None:
            return None, everything
        case "auto" | "none" | "required":
            return ToolChoice(Choice(choice)), everything
        case {"type": "function" | "custom", "name": str(name)}:
            return ToolChoice(Choice.NAMED, box.flat(name, _namespace(choice))), everything
        case {"type": "allowed_tools", "mode": "auto" | "required" as mode, "tools": list(allowed)}:
            names = {box.flat(tool["name"], _namespace(tool)) for tool in allowed if _is_named(tool)}
            return ToolChoice(Choice(mode)), tuple(tool for tool in everything if tool.name in names)
        case {"type": str(kind)}:
            raise InvalidRequest(
                f"`tool_choice` asks for {kind[:40]!r}, which this model's provider does not have", param="tool_choice"
            )
        case _:
            raise InvalidRequest("`tool_choice` must be none, auto, required or a tool", param="tool_choice")


def _declared(tools: list[Any], place: str, namespace: str, box: Toolbox) -> Iterator[tuple[Tool, Named]]:
    for position, tool in enumerate(tools):
        where = f"{place}[{position}]"
        match tool:
            case {"type": "function", "name": str(name)}:
                yield _function(tool, flatten(name, namespace), where), Named(name, namespace)
            case {"type": "custom", "name": str(name)}:
                yield _custom(tool, flatten(name, namespace)), Named(name, namespace, custom=True)
            case {"type": "namespace", "name": str(name), "tools": list(inner)}:
                yield from _declared(inner, f"{where}.tools", name, box)
            case {"type": "function" | "custom" | "namespace" as kind}:
                missing = "tools" if kind == "namespace" and isinstance(tool.get("name"), str) else "name"
                raise InvalidRequest(f"`{where}.{missing}` is missing", param=f"{where}.{missing}")
            case {"type": str(kind)}:
                box.dropped.append(f"tools.{kind[:40]}")
            case _:
                raise InvalidRequest(f"`{where}` must be an object with a `type`", param=where)


def _function(tool: dict[str, Any], name: str, where: str) -> Tool:
    schema, strict = tool.get("parameters"), tool.get("strict")
    if schema is not None and not isinstance(schema, dict):
        raise InvalidRequest(f"`{where}.parameters` must be an object", param=f"{where}.parameters")
    return Tool(name, _text(tool.get("description")), schema, strict if isinstance(strict, bool) else None)


def _custom(tool: dict[str, Any], name: str) -> Tool:
    wanted = "The whole input, as plain text."
    match tool.get("format"):
        case {"type": "grammar", "syntax": str(syntax), "definition": str(definition)}:
            wanted += f" It must match this {syntax} grammar:\n{definition}"
    schema = {
        "type": "object",
        "properties": {"input": {"type": "string", "description": wanted}},
        "required": ["input"],
        "additionalProperties": False,
    }
    return Tool(name, _text(tool.get("description")), schema)


def _is_named(tool: object) -> bool:
    return isinstance(tool, dict) and isinstance(tool.get("name"), str)


def _namespace(tool: dict[str, Any]) -> str:
    return _text(tool.get("namespace"))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
