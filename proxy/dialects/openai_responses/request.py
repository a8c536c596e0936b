"""A client's request for a response → a canonical request, where the provider speaks another dialect.

Nothing is stored here, so what refers to something stored is refused; `store` itself is accepted and
answered with false.  Fields that only this dialect has are kept in ``extras``: the answer echoes them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from proxy.dialects.openai_responses.history import History
from proxy.dialects.openai_responses.tools import read_choice, read_tools
from proxy.dialects.openai_responses.words import NAME
from proxy.errors import InvalidRequest
from proxy.fields import Fields
from proxy.requests import Reasoning, Request, ResponseFormat, Role, Text, Turn

#: Fields that mean something stored, or something to be fetched later.
STORED = ("previous_response_id", "conversation", "background", "prompt")

#: Fields that a request has a place for, or that the answer itself makes good.
_KNOWN = frozenset(
    (
        *STORED,
        "model",
        "input",
        "instructions",
        "stream",
        "stream_options",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "max_output_tokens",
        "temperature",
        "top_p",
        "top_logprobs",
        "presence_penalty",
        "frequency_penalty",
        "reasoning",
        "text",
        "include",
        "store",
        "metadata",
        "user",
    )
)


def read(body: bytes) -> Request:
    """Read a body.  Raises ``InvalidRequest`` whose ``param`` names the field to mend."""
    try:
        return _read(_decode(body))
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None


def _read(fields: dict[str, Any]) -> Request:
    for name in STORED:
        if fields.get(name):
            raise InvalidRequest(
                f"`{name}` refers to something stored, and nothing is stored here: send the whole input", param=name
            )
    take = Fields(fields)
    given = fields.get("input")
    items = given if isinstance(given, list) else []
    hoisted = [tool for item in items for tool in _additional(item)]
    box = read_tools(take.list("tools") + hoisted)
    choice, tools = read_choice(fields.get("tool_choice"), box)
    history = History(box)
    turns = _turns(given, history)
    system = list(_instructions(fields.get("instructions")))
    while turns and turns[0].role is Role.SYSTEM:
        system += [part for part in turns.pop(0).parts if isinstance(part, Text)]
    text = take.object("text")
    others = {name for name, value in fields.items() if name not in _KNOWN and value is not None}
    extras = {name: value for name, value in fields.items() if name != "input" and value is not None}
    if hoisted:
        extras["additional_tools"] = hoisted
    return Request(
        model=take.text("model") or None,
        turns=tuple(turns),
        system=tuple(system),
        stream=take.flag("stream") or False,
        include_usage=True,
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=take.flag("parallel_tool_calls"),
        max_tokens=take.count("max_output_tokens"),
        temperature=take.number("temperature"),
        top_p=take.number("top_p"),
        presence_penalty=take.number("presence_penalty"),
        frequency_penalty=take.number("frequency_penalty"),
        logprobs=_logprobs(take),
        response_format=_format(text.get("format")),
        reasoning=_reasoning(take.object("reasoning")),
        verbosity=_word(text, "verbosity", "text"),
        user=take.text("user"),
        extras={NAME: extras},
        dropped=tuple(sorted({*others, *box.dropped, *history.dropped})),
    )


def _decode(body: bytes) -> dict[str, Any]:
    # msgspec and not orjson: integers of any size in a tool's schema must survive.
    try:
        fields: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"the body is not UTF-8 (byte {exc.start})") from None
    except msgspec.ValidationError as exc:
        raise InvalidRequest(f"the body must be a JSON object: {exc}") from None
    except msgspec.DecodeError as exc:
        raise InvalidRequest(f"the body is not JSON: {exc}" if body.strip() else "the body is empty") from None
    return fields


def _turns(given: object, history: History) -> list[Turn]:
    if given is None:
        raise InvalidRequest("`input` is missing", param="input")
    if given in ("", []):
        raise InvalidRequest("`input` must not be empty", param="input")
    if isinstance(given, str):
        return [Turn(Role.USER, (Text(given),))]
    if not isinstance(given, list):
        raise InvalidRequest("`input` must be a string or an array of items", param="input")
    for position, item in enumerate(given):
        history.read(item, f"input[{position}]")
    return list(history.turns())


def _additional(item: object) -> list[Any]:
    """Where a newer Codex declares all of its tools."""
    match item:
        case {"type": "additional_tools", "tools": list(tools)}:
            return tools
    return []


def _instructions(given: object) -> tuple[Text, ...]:
    if given is None or given == "":
        return ()
    if not isinstance(given, str):
        raise InvalidRequest("`instructions` must be a string", param="instructions")
    return (Text(given),)


def _logprobs(take: Fields) -> int | None:
    alternatives = take.integer("top_logprobs") or 0
    wanted = "message.output_text.logprobs" in take.list("include")
    return alternatives if wanted or alternatives else None


def _format(wanted: Any) -> ResponseFormat | None:
    match wanted:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return ResponseFormat()
        case {"type": "json_schema", "schema": dict(schema)}:
            name, strict = wanted.get("name"), wanted.get("strict")
            return ResponseFormat(
                schema,
                name if isinstance(name, str) and name else "answer",
                strict if isinstance(strict, bool) else None,
                _word(wanted, "description", "text.format"),
            )
        case {"type": "json_schema"}:
            raise InvalidRequest("`text.format.schema` must be an object", param="text.format.schema")
        case _:
            raise InvalidRequest("`text.format` must be text, json_object or json_schema", param="text.format")


def _reasoning(wanted: dict[str, Any]) -> Reasoning | None:
    effort = _word(wanted, "effort", "reasoning")
    summary = _word(wanted, "summary", "reasoning") or _word(wanted, "generate_summary", "reasoning")
    if not effort and not summary:
        return None
    return Reasoning(effort=effort, shown=summary != "none" if summary else None)


def _word(fields: dict[str, Any], name: str, place: str) -> str:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"`{place}.{name}` must be a string", param=f"{place}.{name}")
    return value or ""
