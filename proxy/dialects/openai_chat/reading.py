"""A client's chat completion body → a canonical request, where the provider speaks another dialect."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import orjson

from proxy.dialects.openai_chat.request import parse
from proxy.errors import InvalidRequest
from proxy.fields import Fields
from proxy.requests import (
    Audio,
    Choice,
    Document,
    Image,
    Reasoning,
    Refusal,
    Request,
    ResponseFormat,
    Role,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.requests import Part

NAME = "openai_chat"

ROLES: dict[str, Role] = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "tool": Role.TOOL,
    "function": Role.TOOL,
}

_KNOWN = frozenset(
    (
        "model",
        "messages",
        "stream",
        "stream_options",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "stop",
        "seed",
        "presence_penalty",
        "frequency_penalty",
        "n",
        "logprobs",
        "top_logprobs",
        "response_format",
        "reasoning_effort",
        "verbosity",
        "user",
        "functions",
        "function_call",
    )
)
_DATA_URL = re.compile(r"data:([^;,]*)(?:;[^,]*)?;base64,(.*)", re.DOTALL)


def read(body: bytes) -> Request:
    """Read a body.  Raises ``InvalidRequest`` whose ``param`` names the field to mend."""
    checked = parse(body)
    try:
        fields: dict[str, Any] = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise InvalidRequest(f"the body cannot be read: {exc}") from None
    take = Fields(fields)
    turns = list(_turns(fields["messages"]))
    system: list[Text] = []
    while turns and turns[0].role is Role.SYSTEM:
        system += [part for part in turns.pop(0).parts if isinstance(part, Text)]
    others = {name: value for name, value in fields.items() if name not in _KNOWN and value is not None}
    return Request(
        model=checked.model,
        turns=tuple(turns),
        system=tuple(system),
        stream=checked.stream,
        include_usage=checked.include_usage,
        tools=_tools(take.list("tools") or [{"function": f} for f in take.list("functions")]),
        tool_choice=_tool_choice(fields.get("tool_choice") or fields.get("function_call")),
        parallel_tool_calls=take.flag("parallel_tool_calls"),
        max_tokens=take.count("max_completion_tokens") or take.count("max_tokens"),
        temperature=take.number("temperature"),
        top_p=take.number("top_p"),
        stop=_stop(fields.get("stop")),
        seed=take.integer("seed"),
        presence_penalty=take.number("presence_penalty"),
        frequency_penalty=take.number("frequency_penalty"),
        answers=take.count("n") or 1,
        logprobs=(take.integer("top_logprobs") or 0) if take.flag("logprobs") else None,
        response_format=_response_format(fields.get("response_format")),
        reasoning=Reasoning(effort=effort) if (effort := take.text("reasoning_effort")) else None,
        verbosity=take.text("verbosity"),
        user=take.text("user"),
        extras={NAME: others} if others else {},
        dropped=tuple(sorted(others)),
    )


def _turns(messages: list[dict[str, Any]]) -> Iterator[Turn]:
    results: list[ToolResult] = []
    for position, message in enumerate(messages):
        place, role = f"messages[{position}]", ROLES.get(message["role"])
        if role is None:
            raise InvalidRequest(f"`{place}.role` is not known: {message['role'][:40]!r}", param=f"{place}.role")
        if role is Role.TOOL:  # results in a row are one turn
            results.append(_result(message, place))
            continue
        if results:
            yield Turn(Role.TOOL, tuple(results))
            results = []
        name = message.get("name")
        parts = tuple(_parts(message.get("content"), f"{place}.content"))
        if role is Role.ASSISTANT:
            parts = (*_thoughts(message), *parts, *_calls(message, place))
        yield Turn(role, parts, name if isinstance(name, str) else "")
    if results:
        yield Turn(Role.TOOL, tuple(results))


def _parts(content: object, place: str) -> Iterator[Part]:
    if content is None:
        return
    if isinstance(content, str):
        if content:
            yield Text(content)
        return
    if not isinstance(content, list):
        raise InvalidRequest(f"`{place}` must be a string or an array of parts", param=place)
    for position, part in enumerate(content):
        yield _part(part, f"{place}[{position}]")


def _part(part: Any, place: str) -> Part:
    match part:
        case str():
            return Text(part)
        case {"type": "text" | "input_text" | "output_text", "text": str(text)}:
            cache = part.get("cache_control")
            return Text(text, cache if isinstance(cache, dict) else None)
        case {"type": "image_url", "image_url": {"url": str(url)} | str(url)}:
            inner = part["image_url"]
            detail = inner.get("detail") if isinstance(inner, dict) else None
            detail = detail if isinstance(detail, str) else ""
            if found := _DATA_URL.fullmatch(url):
                return Image(data=found[2], media_type=found[1] or "image/png", detail=detail)
            return Image(url=url, detail=detail)
        case {"type": "input_audio", "input_audio": {"data": str(data), "format": str(kind)}}:
            return Audio(data, kind)
        case {"type": "file", "file": dict(file)}:
            return _document(file)
        case {"type": "refusal", "refusal": str(text)}:
            return Refusal(text)
        case {"type": "thinking", "thinking": str(text)}:
            return Thinking(text, str(part.get("signature") or ""))
        case _:
            raise InvalidRequest(f"`{place}` is not a part that is known here", param=place)


def _document(file: dict[str, Any]) -> Document:
    data, kind = str(file.get("file_data") or ""), ""
    if found := _DATA_URL.fullmatch(data):
        kind, data = found[1], found[2]
    return Document(
        data=data, media_type=kind, name=str(file.get("filename") or ""), file_id=str(file.get("file_id") or "")
    )


def _thoughts(message: dict[str, Any]) -> Iterator[Thinking]:
    blocks = message.get("thinking_blocks")
    if isinstance(blocks, list) and blocks:
        for block in blocks:
            if isinstance(block, dict):
                yield Thinking(
                    str(block.get("thinking") or ""), str(block.get("signature") or ""), str(block.get("data") or "")
                )
        return
    text = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(text, str) and text:
        yield Thinking(text)


def _calls(message: dict[str, Any], place: str) -> Iterator[ToolCall]:
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise InvalidRequest(f"`{place}.tool_calls` must be an array", param=f"{place}.tool_calls")
    if isinstance(old := message.get("function_call"), dict):
        calls = [*calls, {"id": str(old.get("name")), "function": old}]
    for position, call in enumerate(calls):
        match call:
            case {"function": {"name": str(name)} as function}:
                arguments = function.get("arguments") or ""
                if not isinstance(arguments, str):
                    arguments = orjson.dumps(arguments).decode()
                yield ToolCall(str(call.get("id") or ""), name, arguments, _signature(call))
            case _:
                where = f"{place}.tool_calls[{position}]"
                raise InvalidRequest(f"`{where}` is not a function call", param=where)


def _signature(call: dict[str, Any]) -> str:
    """Where Google's own OpenAI endpoint keeps a thought signature."""
    match call:
        case {"extra_content": {"google": {"thought_signature": str(signature)}}}:
            return signature
    return ""


def _result(message: dict[str, Any], place: str) -> ToolResult:
    id = message.get("tool_call_id") or message.get("name")
    if not isinstance(id, str) or not id:
        raise InvalidRequest(f"`{place}.tool_call_id` is missing", param=f"{place}.tool_call_id")
    parts = tuple(_parts(message.get("content"), f"{place}.content"))
    return ToolResult(id, tuple(p for p in parts if isinstance(p, Text | Image | Document)))


def _tools(tools: list[Any]) -> tuple[Tool, ...]:
    found = []
    for position, tool in enumerate(tools):
        match tool:
            case {"function": {"name": str(name)} as function}:
                schema, strict = function.get("parameters"), function.get("strict")
                cache = tool.get("cache_control")
                found.append(
                    Tool(
                        name,
                        str(function.get("description") or ""),
                        schema if isinstance(schema, dict) else None,
                        strict if isinstance(strict, bool) else None,
                        cache if isinstance(cache, dict) else None,
                    )
                )
            case _:
                where = f"tools[{position}]"
                raise InvalidRequest(f"`{where}` is not a function; other tools stay with OpenAI", param=where)
    return tuple(found)


def _tool_choice(choice: object) -> ToolChoice | None:
    match choice:
        case None:
            return None
        case "auto" | "none" | "required":
            return ToolChoice(Choice(choice))
        case {"function": {"name": str(name)}} | {"name": str(name)}:
            return ToolChoice(Choice.NAMED, name)
        case {"type": "allowed_tools", "allowed_tools": {"mode": "auto" | "required" as mode}}:
            return ToolChoice(Choice(mode))
        case _:
            raise InvalidRequest("`tool_choice` is not known", param="tool_choice")


def _stop(stop: object) -> tuple[str, ...]:
    match stop:
        case None:
            return ()
        case str():
            return (stop,)
        case list() if all(isinstance(one, str) for one in stop):
            return tuple(stop)
        case _:
            raise InvalidRequest("`stop` must be a string or an array of strings", param="stop")


def _response_format(wanted: object) -> ResponseFormat | None:
    match wanted:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return ResponseFormat()
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)} as inner}:
            return ResponseFormat(
                schema, str(inner.get("name") or "answer"), inner.get("strict"), str(inner.get("description") or "")
            )
        case _:
            raise InvalidRequest("`response_format` is not known", param="response_format")
