"""A client's body → the canonical request.

Nothing is refused for being unknown: Claude Code alone sends a list `system` with cache markers,
`thinking`, `context_management` and typed tools.  What the waist has no place for is listed in
``dropped`` and kept in ``extras``, for a provider that speaks this dialect.
"""

from __future__ import annotations

from typing import Any

import orjson

from proxy.dialects.anthropic_messages import NAME
from proxy.dialects.anthropic_messages.blocks import Blocks
from proxy.dialects.anthropic_messages.fields import need, number, objects, take, wrong
from proxy.errors import InvalidRequest
from proxy.requests import Choice, Reasoning, Request, ResponseFormat, Tool, ToolChoice, Turn

_PLAIN = frozenset(("model", "messages", "system", "stream", "max_tokens", "temperature", "top_k", "top_p"))
#: Fields that have a place at the waist; of some of them only parts.
KNOWN = _PLAIN | {"metadata", "output_config", "output_format", "stop_sequences", "thinking", "tool_choice", "tools"}
CHOICE: dict[str, Choice] = {
    "auto": Choice.AUTO,
    "any": Choice.REQUIRED,
    "tool": Choice.NAMED,
    "none": Choice.NONE,
}
_TOOL = frozenset({"type", "name", "description", "input_schema", "strict", "cache_control"})


def read(body: bytes) -> Request:
    """Read a body of `messages` or `count_tokens`.  Raises ``InvalidRequest`` whose ``param`` names the field."""
    return _Reading(_object(body)).request()


class _Reading:
    """One body; what has no place is collected on the way."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields
        self._blocks = Blocks()
        self._extras: dict[str, Any] = {name: value for name, value in fields.items() if name not in KNOWN}
        self._dropped = list(self._extras)

    def request(self) -> Request:
        fields = self._fields
        system = self._blocks.texts(fields, "system")
        turns = self._turns()
        tools = self._tools()
        choice = take(fields, "tool_choice", dict)
        config = self._partly("output_config", {"effort", "format"})
        metadata = self._partly("metadata", {"user_id"})
        parallel = choice and take(choice, "disable_parallel_tool_use", bool, "tool_choice")
        return Request(
            model=take(fields, "model", str) or None,
            turns=turns,
            system=system,
            stream=take(fields, "stream", bool) or False,
            include_usage=True,
            tools=tools,
            tool_choice=None if choice is None else _choice(choice),
            parallel_tool_calls=False if parallel else None,
            max_tokens=self._whole("max_tokens"),
            temperature=number(fields, "temperature"),
            top_p=number(fields, "top_p"),
            top_k=self._whole("top_k"),
            stop=self._stop(),
            response_format=self._format(config),
            reasoning=self._reasoning(take(config, "effort", str, "output_config") or ""),
            user=take(metadata, "user_id", str, "metadata") or "",
            extras={NAME: self._extras},
            dropped=tuple(dict.fromkeys([*self._dropped, *self._blocks.dropped])),
        )

    def _turns(self) -> tuple[Turn, ...]:
        messages = need(self._fields, "messages", list)
        if not messages:
            raise InvalidRequest("`messages` must not be empty", param="messages")
        turns = tuple(turn for m, at in objects(messages, "messages") for turn in self._blocks.turns(m, at))
        if not turns:
            raise InvalidRequest("`messages` holds nothing that can be said to a model", param="messages")
        return turns

    def _tools(self) -> tuple[Tool, ...]:
        tools, given = [], take(self._fields, "tools", list) or []
        for tool, place in objects(given, "tools"):
            kind = take(tool, "type", str, place) or "custom"
            if kind != "custom":  # the provider's own: it knows their schemas, and runs some of them itself
                self._lose(f"tools.{kind}", "tools", given)
                continue
            for name in tool.keys() - _TOOL:
                self._lose(f"tools.{name}", "tools", given)
            tools.append(
                Tool(
                    need(tool, "name", str, place),
                    take(tool, "description", str, place) or "",
                    take(tool, "input_schema", dict, place),
                    take(tool, "strict", bool, place),
                    take(tool, "cache_control", dict, place),
                )
            )
        return tuple(tools)

    def _reasoning(self, effort: str) -> Reasoning | None:
        thinking = take(self._fields, "thinking", dict)
        if thinking is None:
            return Reasoning(effort) if effort else None
        shown = take(thinking, "display", str, "thinking") != "omitted"
        match thinking.get("type"):
            case "enabled":
                return Reasoning(effort, take(thinking, "budget_tokens", int, "thinking"), shown)
            case "adaptive":
                return Reasoning(effort, None, shown)
            case "disabled":
                return Reasoning(effort, 0)
            case kind:
                self._lose(f"thinking.{kind}", "thinking", thinking)
                return Reasoning(effort, None, shown)

    def _format(self, config: dict[str, Any]) -> ResponseFormat | None:
        place = "output_config.format"
        wanted = take(config, "format", dict, "output_config")
        if wanted is None:  # where it stood while it was a beta
            place, wanted = "output_format", take(self._fields, "output_format", dict)
        if wanted is None:
            return None
        if wanted.get("type") != "json_schema":
            raise wrong(f"{place}.type", "json_schema")
        return ResponseFormat(need(wanted, "schema", dict, place), strict=True)

    def _stop(self) -> tuple[str, ...]:
        stop = take(self._fields, "stop_sequences", list) or []
        for i, sequence in enumerate(stop):
            if not isinstance(sequence, str):
                raise wrong(f"stop_sequences[{i}]", "a string")
        return tuple(stop)

    def _whole(self, name: str) -> int | None:
        value = take(self._fields, name, int)
        if value is not None and value < 0:
            raise wrong(name, "0 or more")
        return value

    def _partly(self, name: str, known: set[str]) -> dict[str, Any]:
        """Take an object of which only ``known`` fields have a place at the waist."""
        value = take(self._fields, name, dict) or {}
        for field in value.keys() - known:
            self._lose(f"{name}.{field}", name, value)
        return value

    def _lose(self, what: str, name: str, value: object) -> None:
        self._dropped.append(what)
        self._extras[name] = value


def _choice(choice: dict[str, Any]) -> ToolChoice:
    kind = need(choice, "type", str, "tool_choice")
    if kind not in CHOICE:
        raise wrong("tool_choice.type", f"one of {', '.join(CHOICE)}")
    mode = CHOICE[kind]
    return ToolChoice(mode, need(choice, "name", str, "tool_choice") if mode is Choice.NAMED else "")


def _object(body: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise InvalidRequest(_complaint(body, exc)) from None
    if not isinstance(fields, dict):
        raise InvalidRequest("the body must be a JSON object")
    return fields


def _complaint(body: bytes, exc: orjson.JSONDecodeError) -> str:
    if not body.strip():
        return "the body is empty"
    try:
        body.decode()
    except UnicodeDecodeError as bad:
        return f"the body is not UTF-8 (byte {bad.start})"
    if "depth limit" in exc.msg or "Recursion limit" in exc.msg:
        return "the body is nested too deeply"
    return f"the body is not JSON: {exc}"
