"""A request → the body for `/ai/run/{model}`; the model stands in the path.

Cloudflare checks the body against the model's JSON schema: message contents are strings (many models
take no arrays, none takes null), every tool has a description and parameters with properties, and a
schema for the answer is bare, without OpenAI's name around it.
"""

from __future__ import annotations

import re
from typing import Any, assert_never

import orjson

from proxy.errors import InvalidRequest
from proxy.requests import (
    Audio,
    Choice,
    Document,
    Image,
    Part,
    Quirks,
    Refusal,
    Request,
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

CHOICE = {Choice.AUTO: "auto", Choice.NONE: "none", Choice.REQUIRED: "required"}
EFFORT = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}

_MAX_SEED = 9_999_999_999
#: Some models' templates want nine letters or digits in a row.
_CALL_ID = "[a-zA-Z0-9]{9}"


def write(request: Request, *, model: str, quirks: Quirks) -> bytes:
    """Write the body.

    A limit of tokens is always sent: the default of 256 cuts answers.
    Raises ``InvalidRequest`` for what this dialect cannot say and may not leave out.
    """
    if request.answers > 1:
        raise _cannot("n", "more than one answer")
    if request.logprobs is not None:
        raise _cannot("logprobs", "log probabilities")
    messages = _Messages(quirks)
    if request.system:
        messages.say("system", "\n\n".join(text.text for text in request.system))
    for turn in request.turns:
        messages.add(turn)
    body: dict[str, Any] = {
        "messages": messages.written,
        "stream": request.stream,
        quirks.max_tokens_field: limit(request, quirks),
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "seed": _seed(request),
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "stop": list(request.stop) or None,
        "reasoning_effort": EFFORT.get(request.reasoning.effort) if request.reasoning else None,
    }
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        body["tool_choice"] = _choice(request.tool_choice)
        body["parallel_tool_calls"] = request.parallel_tool_calls
    if format := request.response_format:
        if format.schema:
            body["response_format"] = {"type": "json_schema", "json_schema": format.schema}
        else:
            body["response_format"] = {"type": "json_object"}
    try:
        return orjson.dumps({k: v for k, v in body.items() if v is not None and k not in quirks.drop})
    except orjson.JSONEncodeError:
        raise InvalidRequest("the request is nested too deeply") from None


def limit(request: Request, quirks: Quirks) -> int:
    """Tell how many tokens are asked for: an answer that has as many was cut, and does not say so."""
    return request.max_tokens or quirks.default_max_tokens


def unsaid(request: Request, model: str, quirks: Quirks) -> tuple[str, ...]:
    """Name the fields that are left out here, because the dialect has no word for them."""
    reasoning = request.reasoning
    return tuple(
        name
        for name, said in (
            ("reasoning", reasoning is not None and reasoning.effort not in EFFORT),
            ("seed", request.seed is not None and _seed(request) is None),
            ("user", request.user),
            ("verbosity", request.verbosity),
            ("cache_control", cached(request)),
        )
        if said
    )


class _Messages:
    """Writes one conversation."""

    def __init__(self, quirks: Quirks) -> None:
        self.written: list[dict[str, Any]] = []
        self._roles = quirks.roles
        self._fits = re.compile(quirks.tool_id or _CALL_ID).search
        self._ids: dict[str, str] = {}  # of calls whose own id would be refused

    def say(self, role: str, content: str, **more: Any) -> None:
        self.written.append({"role": self._roles.get(role, role), "content": content, **more})

    def add(self, turn: Turn) -> None:
        if turn.role is Role.TOOL:
            for result in turn.parts:
                if isinstance(result, ToolResult):
                    named = {"name": result.name} if result.name else {}
                    text = _text(result.parts)
                    text = failed(text) if result.error else text
                    self.say("tool", text, tool_call_id=self._id(result.id), **named)
            return
        calls = [
            {
                "id": self._id(part.id),
                "type": "function",
                "function": {"name": part.name, "arguments": part.arguments or "{}"},
            }
            for part in turn.parts
            if isinstance(part, ToolCall)
        ]
        self.say(turn.role, _text(turn.parts), **({"tool_calls": calls} if calls else {}))

    def _id(self, id: str) -> str:
        if self._fits(id):
            return id
        return self._ids.setdefault(id, f"{len(self._ids) + 1:09}")


def _text(parts: tuple[Part, ...]) -> str:
    texts = []
    for part in parts:
        match part:
            case Text() | Refusal():
                texts.append(part.text)
            case Document() if part.text:
                texts.append(part.text)
            case Image():
                raise _cannot("messages", "images")
            case Audio():
                raise _cannot("messages", "audio")
            case Document():
                raise _cannot("messages", "files")
            case Thinking() | ToolCall() | ToolResult():  # thoughts stay behind, calls stand beside
                continue
            case _:
                assert_never(part)
    return "\n\n".join(texts)


def _seed(request: Request) -> int | None:
    """Seeds of OpenAI's clients may be 0 or negative, which is refused here."""
    seed = request.seed
    return seed if seed is not None and 0 < seed <= _MAX_SEED else None


def _tool(tool: Tool) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {}, **(tool.schema or {})}
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def _choice(choice: ToolChoice | None) -> str | dict[str, Any] | None:
    if choice is None:
        return None
    if choice.mode is Choice.NAMED:
        return {"type": "function", "function": {"name": choice.name}}
    return CHOICE[choice.mode]


def _cannot(field: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"`{field}`: this provider (dialect workers_ai) does not know {what}", param=field)
