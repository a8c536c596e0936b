"""A canonical request → a chat completion body, where the client speaks another dialect."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

import orjson

from proxy.dialects.openai_chat.details import details
from proxy.errors import InvalidRequest
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
    cached,
    failed,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.requests import Part, Quirks

NAME = "openai_chat"

#: Tokens to think with, for dialects that count them; and back, by the nearest from above.
EFFORT_OF_BUDGET = ((1024, "low"), (8192, "medium"), (1 << 62, "high"))


def write(request: Request, *, model: str, quirks: Quirks) -> bytes:
    """Write a request for a provider that speaks chat completions."""
    out: dict[str, Any] = {
        **request.extras.get(NAME, {}),
        "model": model,
        "messages": list(_messages(request, quirks)),
        "stream": request.stream,
    }
    if request.stream and quirks.ask_usage:
        out["stream_options"] = {"include_usage": True}
    settings = (
        (quirks.max_tokens_field, request.max_tokens),
        ("temperature", request.temperature),
        ("top_p", request.top_p),
        ("seed", request.seed),
        ("presence_penalty", request.presence_penalty),
        ("frequency_penalty", request.frequency_penalty),
        ("stop", list(request.stop) or None),
        ("n", request.answers if request.answers > 1 else None),
        ("user", request.user or None),
        ("verbosity", request.verbosity or None),
        ("reasoning_effort", _effort(request.reasoning)),
        ("response_format", _format_words(request.response_format)),
    )
    out.update((name, value) for name, value in settings if value is not None)
    if request.logprobs is not None:
        out["logprobs"] = True
        if request.logprobs:
            out["top_logprobs"] = request.logprobs
    if request.tools:
        out["tools"] = [_tool_words(tool) for tool in request.tools]
        if request.tool_choice is not None:
            out["tool_choice"] = _choice_words(request.tool_choice)
        if request.parallel_tool_calls is not None:
            out["parallel_tool_calls"] = request.parallel_tool_calls
    for name in quirks.drop:
        out.pop(name, None)
    return orjson.dumps(out)


def unsaid(request: Request, model: str, quirks: Quirks) -> tuple[str, ...]:
    """Fields that this dialect has no word for."""
    told = (("top_k", request.top_k is not None), ("cache_control", cached(request)))
    return tuple(name for name, said in told if said)


def _messages(request: Request, quirks: Quirks) -> Iterator[dict[str, Any]]:
    def role(name: str) -> str:
        return quirks.roles.get(name, name)

    if request.system:
        yield {"role": role("system"), "content": "\n\n".join(text.text for text in request.system)}
    for turn in request.turns:
        named = {"name": turn.name} if turn.name else {}
        match turn.role:
            case Role.TOOL:
                yield from _result_messages(turn, quirks)
            case Role.ASSISTANT:
                yield {**_answer(turn, quirks), **named}
            case Role.SYSTEM | Role.USER:
                yield {"role": role(turn.role.value), "content": _content(turn.parts, quirks), **named}


def _answer(turn: Turn, quirks: Quirks) -> dict[str, Any]:
    said = [part.text for part in turn.parts if isinstance(part, Text | Refusal)]
    calls = [part for part in turn.parts if isinstance(part, ToolCall)]
    message: dict[str, Any] = {"role": "assistant", "content": "".join(said) or (None if calls else "")}
    if quirks.flat_content and message["content"] is None:
        message["content"] = ""
    if calls:
        message["tool_calls"] = [
            {
                "id": tool_id(call.id, quirks),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments or "{}"},
                **({"extra_content": {"google": {"thought_signature": call.signature}}} if call.signature else {}),
            }
            for call in calls
        ]
        thoughts = "".join(part.text for part in turn.parts if isinstance(part, Thinking))
        if thoughts and quirks.return_reasoning:
            message["reasoning_content"] = thoughts
    if sealed := details(part for part in turn.parts if isinstance(part, Thinking)):
        message["reasoning_details"] = sealed  # they came so
    return message


def _result_messages(turn: Turn, quirks: Quirks) -> Iterator[dict[str, Any]]:
    shown: list[Part] = []
    for result in turn.parts:
        if not isinstance(result, ToolResult):
            continue
        texts = [part.text for part in result.parts if isinstance(part, Text | Document) and part.text]
        shown += [part for part in result.parts if not isinstance(part, Text)]
        content = "\n\n".join(texts)
        content = failed(content) if result.error else content
        yield {"role": "tool", "tool_call_id": tool_id(result.id, quirks), "content": content}
    pictures = tuple(part for part in shown if isinstance(part, Image))
    if pictures:  # a tool message holds text only
        yield {"role": "user", "content": _content(pictures, quirks)}


def _content(parts: tuple[Part, ...], quirks: Quirks) -> str | list[dict[str, Any]]:
    if all(isinstance(part, Text) for part in parts):
        return "\n\n".join(part.text for part in parts if isinstance(part, Text))
    words = [_part_words(part) for part in parts]
    if quirks.flat_content:
        raise InvalidRequest("this model's provider takes text only", param="messages")
    return words


def _part_words(part: Part) -> dict[str, Any]:
    match part:
        case Text() | Refusal() | Thinking():
            return {"type": "text", "text": part.text}
        case Image():
            url = part.url or f"data:{part.media_type};base64,{part.data}"
            return {"type": "image_url", "image_url": {"url": url, **({"detail": part.detail} if part.detail else {})}}
        case Audio():
            return {"type": "input_audio", "input_audio": {"data": part.data, "format": part.format}}
        case Document():
            if part.text:
                return {"type": "text", "text": part.text}
            if part.url:
                raise InvalidRequest("a file by URL cannot be passed to this model's provider", param="messages")
            if part.file_id:
                return {"type": "file", "file": {"file_id": part.file_id}}
            data = f"data:{part.media_type or 'application/pdf'};base64,{part.data}"
            return {"type": "file", "file": {"file_data": data, "filename": part.name or "file"}}
        case _:
            raise InvalidRequest("a part of a message stands where it cannot be", param="messages")


def tool_id(id: str, quirks: Quirks) -> str:
    """The id of a tool call as the provider takes it: the same one always becomes the same other one."""
    if not quirks.tool_id or re.fullmatch(quirks.tool_id, id):
        return id
    return hashlib.sha256(id.encode()).hexdigest()[:9]


def _tool_words(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {
        "name": tool.name,
        "parameters": tool.schema or {"type": "object", "properties": {}},
    }
    if tool.description:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _choice_words(choice: ToolChoice) -> str | dict[str, Any]:
    if choice.mode is Choice.NAMED:
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode.value


def _effort(reasoning: Reasoning | None) -> str | None:
    if reasoning is None:
        return None
    if reasoning.effort:
        return reasoning.effort
    if not reasoning.budget:
        return None
    return next(effort for most, effort in EFFORT_OF_BUDGET if reasoning.budget <= most)


def _format_words(wanted: ResponseFormat | None) -> dict[str, Any] | None:
    if wanted is None:
        return None
    if wanted.schema is None:
        return {"type": "json_object"}
    inner: dict[str, Any] = {"name": wanted.name, "schema": wanted.schema}
    if wanted.strict is not None:
        inner["strict"] = wanted.strict
    if wanted.description:
        inner["description"] = wanted.description
    return {"type": "json_schema", "json_schema": inner}
