"""A canonical request → the body of a request for a response, where the client speaks another dialect.

Nothing is to be stored at the provider; what it encrypts comes back with the next turn instead.
"""

from __future__ import annotations

import hashlib
import re
from mimetypes import guess_extension
from typing import TYPE_CHECKING, Any

import msgspec

from proxy.dialects.openai_responses.seals import unsign
from proxy.dialects.openai_responses.words import NAME
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

#: Fields of this dialect that a client who speaks it may have sent, and that change nothing else.
_OWN = (
    "metadata",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_cache_options",
    "safety_identifier",
    "service_tier",
    "truncation",
    "max_tool_calls",
)
#: Tokens to think with, for dialects that count them.
_EFFORT_OF_BUDGET = ((1024, "low"), (8192, "medium"), (1 << 62, "high"))
#: Models that do not think.  They refuse thoughts, to be told how to think, and to be asked for what they thought.
_THOUGHTLESS = re.compile(r"(?<![a-z0-9])(?:chatgpt-|gpt-[34]|gpt-[\d.]+-chat)")
_ENCRYPTED = "reasoning.encrypted_content"
_LEAST = 16  # tokens: fewer are refused
_LONGEST_USER = 64  # characters: more are refused


def write(request: Request, *, model: str, quirks: Quirks) -> bytes:
    """Write a request.  Raises ``InvalidRequest`` where it asks for what a response cannot give."""
    _refuse(request, quirks)
    thinks = not _THOUGHTLESS.search(model)
    items = [item for item in _items(request, quirks) if thinks or item["type"] != "reasoning"]
    instructions = "\n\n".join(text.text for text in request.system)
    if not items:  # a prompt alone: somebody has to say it
        if not instructions:
            raise InvalidRequest("`messages` holds no text", param="messages")
        items, instructions = [_message("user", [{"type": "input_text", "text": instructions}])], ""
    out: dict[str, Any] = {"model": model, "input": items, "stream": request.stream, "store": False}
    sent = request.extras.get(NAME, {})
    out.update((name, sent[name]) for name in _OWN if name in sent)
    settings = (
        ("instructions", instructions or None),
        ("max_output_tokens", None if request.max_tokens is None else max(request.max_tokens, _LEAST)),
        ("temperature", request.temperature),
        ("top_p", request.top_p),
        ("text", _text_words(request) or None),
        ("reasoning", _reasoning_words(request.reasoning) or None if thinks else None),
        ("include", [_ENCRYPTED] if thinks else None),  # whether it was told how to think, or thinks by itself
        ("user", _user(request.user) or None),
    )
    out.update((name, value) for name, value in settings if value is not None)
    if request.tools:
        out["tools"] = [_tool_words(tool) for tool in request.tools]
        if request.tool_choice is not None:
            out["tool_choice"] = _choice_words(request.tool_choice)
        if request.parallel_tool_calls is not None:
            out["parallel_tool_calls"] = request.parallel_tool_calls
    for name in quirks.drop:
        out.pop(name, None)
    try:
        return msgspec.json.encode(out)
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None


def unsaid(request: Request, model: str, quirks: Quirks) -> tuple[str, ...]:
    """Fields that this dialect has no word for and can do without."""
    named = any(turn.name for turn in request.turns)
    thinks = not _THOUGHTLESS.search(model)
    told = (
        ("stop", request.stop or None),  # said only if it is to be left out
        ("reasoning", None if thinks else _reasoning_words(request.reasoning) or None),
        ("top_k", request.top_k),
        ("seed", request.seed),
        ("presence_penalty", request.presence_penalty),
        ("frequency_penalty", request.frequency_penalty),
        ("name", named or None),
        ("cache_control", cached(request) or None),
    )
    return tuple(name for name, value in told if value is not None)


def _refuse(request: Request, quirks: Quirks) -> None:
    """What the answer cannot do is refused, unless the operator has it left out."""
    wishes = (
        ("n", "more than one answer", request.answers > 1),
        ("stop", "stop sequences", bool(request.stop)),
        ("logprobs", "log probabilities", request.logprobs is not None),
    )
    for name, what, wished in wishes:
        if wished and name not in quirks.drop:
            raise InvalidRequest(
                f"`{name}`: {what} cannot be had, as this model's provider is asked in Responses", param=name
            )


# What was said...


def _items(request: Request, quirks: Quirks) -> Iterator[dict[str, Any]]:
    for turn in request.turns:
        match turn.role:
            case Role.ASSISTANT:
                yield from _answer(turn, quirks)
            case Role.TOOL:
                for result in turn.parts:
                    if isinstance(result, ToolResult):
                        yield _result(result, quirks)
            case Role.SYSTEM | Role.USER if turn.parts:
                role = quirks.roles.get(turn.role.value, turn.role.value)
                yield _message(role, [_part_words(part) for part in turn.parts])


def _message(role: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": content}


def _answer(turn: Turn, quirks: Quirks) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    for part in turn.parts:
        match part:
            case Text() if part.text:
                _said(items).append({"type": "output_text", "text": part.text})
            case Refusal():
                _said(items).append({"type": "refusal", "refusal": part.text})
            case ToolCall():
                items.append(_call(part, quirks))
            case Thinking() if encrypted := unsign(part.signature):
                summary = [{"type": "summary_text", "text": part.text}] if part.text else []
                items.append({"type": "reasoning", "summary": summary, "encrypted_content": encrypted})
    while items and items[-1]["type"] == "reasoning":  # refused without what followed it
        items.pop()
    return items


def _said(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The parts of the message that is under way."""
    if not items or items[-1]["type"] != "message":
        items.append(_message("assistant", []))
    content: list[dict[str, Any]] = items[-1]["content"]
    return content


def _call(call: ToolCall, quirks: Quirks) -> dict[str, Any]:
    return {
        "type": "function_call",
        "call_id": _tool_id(call.id, quirks),
        "name": call.name,
        "arguments": call.arguments or "{}",
    }


def _result(result: ToolResult, quirks: Quirks) -> dict[str, Any]:
    output: str | list[dict[str, Any]]
    if all(isinstance(part, Text) for part in result.parts):
        output = "\n\n".join(part.text for part in result.parts if isinstance(part, Text))
        output = failed(output) if result.error else output
    else:
        output = [_part_words(part) for part in (*((Text(failed("")),) if result.error else ()), *result.parts)]
    return {"type": "function_call_output", "call_id": _tool_id(result.id, quirks), "output": output}


def _part_words(part: Part) -> dict[str, Any]:
    match part:
        case Text() | Refusal() | Thinking():
            return {"type": "input_text", "text": part.text}
        case Image():
            url = part.url or f"data:{part.media_type};base64,{part.data}"
            return {"type": "input_image", "image_url": url, "detail": part.detail or "auto"}
        case Document(text=str(text)) if text:
            return {"type": "input_text", "text": text}
        case Document():
            return {"type": "input_file", **_file_words(part)}
        case Audio():
            raise InvalidRequest("sound cannot be passed to this model's provider", param="messages")
        case _:
            raise InvalidRequest("a part of a message stands where it cannot be", param="messages")


def _file_words(file: Document) -> dict[str, Any]:
    if file.file_id:
        return {"file_id": file.file_id}
    if file.url:
        return {"file_url": file.url}
    data = f"data:{file.media_type or 'application/pdf'};base64,{file.data}"
    name = file.name or f"file{guess_extension(file.media_type) or '.pdf'}"  # it tells what the file is
    return {"filename": name, "file_data": data}


def _tool_id(id: str, quirks: Quirks) -> str:
    """The id of a call as the provider takes it: the same one always becomes the same other one."""
    if not quirks.tool_id or re.fullmatch(quirks.tool_id, id):
        return id
    return f"call_{hashlib.sha256(id.encode()).hexdigest()[:24]}"


def _user(user: str) -> str:
    """Whose request it is, in few characters; Claude Code's names are longer."""
    return user if len(user) <= _LONGEST_USER else hashlib.sha256(user.encode()).hexdigest()


# How it is to be answered...


def _text_words(request: Request) -> dict[str, Any]:
    words: dict[str, Any] = {}
    if request.response_format is not None:
        words["format"] = _format_words(request.response_format)
    if request.verbosity:
        words["verbosity"] = request.verbosity
    return words


def _format_words(wanted: ResponseFormat) -> dict[str, Any]:
    if wanted.schema is None:
        return {"type": "json_object"}
    words: dict[str, Any] = {"type": "json_schema", "name": wanted.name, "schema": wanted.schema}
    if wanted.strict is not None:
        words["strict"] = wanted.strict
    if wanted.description:
        words["description"] = wanted.description
    return words


def _reasoning_words(reasoning: Reasoning | None) -> dict[str, Any]:
    if reasoning is None or (reasoning.budget == 0 and not reasoning.effort):
        return {}  # to think less than a model does by itself has no word that every model takes
    words: dict[str, Any] = {}
    if reasoning.effort:
        words["effort"] = "xhigh" if reasoning.effort == "max" else reasoning.effort
    elif reasoning.budget:
        words["effort"] = next(effort for most, effort in _EFFORT_OF_BUDGET if reasoning.budget <= most)
    if reasoning.shown:
        words["summary"] = "auto"
    return words


def _tool_words(tool: Tool) -> dict[str, Any]:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": _parameters(tool.schema or {"type": "object"}),
        "strict": tool.strict or False,  # left out it would mean true, as it does in no other dialect
    }


def _parameters(schema: dict[str, Any]) -> dict[str, Any]:
    """MCP servers leave `properties` out where there are none, and OpenAI refuses that."""
    return {**schema, "properties": {}} if schema.get("type") == "object" and "properties" not in schema else schema


def _choice_words(choice: ToolChoice) -> str | dict[str, Any]:
    if choice.mode is Choice.NAMED:
        return {"type": "function", "name": choice.name}
    return choice.mode.value
