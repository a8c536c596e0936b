"""The canonical request → a provider's body.

What this dialect cannot say is dropped where that is harmless (`unsaid` lists it), and refused
where the answer would be another one than was asked for.
"""

from __future__ import annotations

import re
from typing import Any

from proxy.dialects.anthropic_messages import NAME, conversation
from proxy.dialects.anthropic_messages.fields import dump
from proxy.dialects.anthropic_messages.reasoning import Plan, plan, version
from proxy.dialects.anthropic_messages.schemas import fitted
from proxy.errors import InvalidRequest
from proxy.requests import Choice, Quirks, Request, Tool

CHOICE: dict[Choice, str] = {
    Choice.AUTO: "auto",
    Choice.NONE: "none",
    Choice.REQUIRED: "any",
    Choice.NAMED: "tool",
}
_STANDARD = Quirks()
#: Anthropic refuses ids that say who somebody is.
_PERSONAL = re.compile(r"\S+@\S+\.\S+|\+?[\d\s().-]{7,}")
_LONGEST_USER = 256
#: From here on Claude can be held to a schema.
_STRUCTURED = (4, 1)


def write(request: Request, *, model: str, quirks: Quirks = _STANDARD) -> bytes:
    """Write the body; ``model`` is the provider's name for it.  Raises ``InvalidRequest`` naming the field."""
    _refuse(request)
    told = plan(request, model, quirks.default_max_tokens)
    native = _structured(model)
    system, messages = conversation.write(request, _instruction(request, native))
    out: dict[str, Any] = {"model": model, "max_tokens": told.max_tokens, "messages": messages}
    if system:
        out["system"] = system
    if request.stream:
        out["stream"] = True
    if request.stop:
        out["stop_sequences"] = list(request.stop)
    out |= _sampling(request, told)
    if told.thinking is not None:
        out["thinking"] = told.thinking
    config = _config(request, told, native)
    if config:
        out["output_config"] = config
    if _tellable(request.user):
        out["metadata"] = {"user_id": request.user}
    out |= _tools(request)
    for name, value in request.extras.get(NAME, {}).items():
        kept = out.get(name)
        out[name] = {**value, **kept} if isinstance(kept, dict) and isinstance(value, dict) else value
    for name in quirks.drop:
        out.pop(name, None)
    return dump(out, "body")


def unsaid(request: Request, model: str, quirks: Quirks) -> tuple[str, ...]:
    """List the settings of a request that this dialect, or this model, drops."""
    told = plan(request, model, quirks.default_max_tokens)
    sent = _sampling(request, told)
    wanted = {
        "temperature": request.temperature is not None and sent.get("temperature") != request.temperature,
        "top_p": request.top_p is not None and "top_p" not in sent,
        "top_k": request.top_k is not None and "top_k" not in sent,
        "seed": request.seed is not None,
        "presence_penalty": bool(request.presence_penalty),
        "frequency_penalty": bool(request.frequency_penalty),
        "reasoning": told.dropped,
        "verbosity": bool(request.verbosity),
        "user": bool(request.user) and not _tellable(request.user),
        "name": any(turn.name for turn in request.turns),
    }
    return tuple(name for name, dropped in wanted.items() if dropped)


def _refuse(request: Request) -> None:
    why = "the Messages dialect of this model's provider cannot express"
    if request.answers > 1:
        raise InvalidRequest(f"`n` is {request.answers}: {why} more than one answer", param="n")
    if request.logprobs is not None:
        raise InvalidRequest(f"`logprobs` are asked for, which {why}", param="logprobs")
    if not all(sequence.strip() for sequence in request.stop):
        raise InvalidRequest(f"`stop` holds nothing but white space, which {why}", param="stop")


def _sampling(request: Request, told: Plan) -> dict[str, Any]:
    """Temperature up to 1, or top_p; neither beside thoughts, nor for models that have neither."""
    if not told.samples:
        return {}
    out: dict[str, Any] = {}
    if request.temperature is not None:
        out["temperature"] = min(max(request.temperature, 0), 1)
    elif request.top_p is not None:
        out["top_p"] = request.top_p
    if request.top_k is not None:
        out["top_k"] = request.top_k
    return out


def _config(request: Request, told: Plan, native: bool) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if told.effort:
        config["effort"] = told.effort
    wanted = request.response_format
    if native and wanted is not None and wanted.schema is not None:
        config["format"] = {"type": "json_schema", "schema": _fitted(wanted.schema)}
    return config


def _fitted(schema: dict[str, Any]) -> dict[str, Any]:
    try:
        return fitted(schema)
    except RecursionError:
        raise InvalidRequest("`response_format` is nested too deeply", param="response_format") from None


def _structured(model: str) -> bool:
    known = version(model)
    return known is not None and known >= _STRUCTURED


def _instruction(request: Request, native: bool) -> str:
    """Ask in words for JSON where there is no setting for it: of any shape, or of older models."""
    wanted = request.response_format
    if wanted is None or (native and wanted.schema is not None):
        return ""
    said = "Answer with one JSON object and nothing else: no code fence, no words around it."
    if wanted.schema is None:
        return said
    about = f" ({wanted.description})" if wanted.description else ""
    return f"{said} It must fit this JSON schema{about}:\n{dump(wanted.schema, 'response_format').decode()}"


def _tellable(user: str) -> bool:
    return bool(user) and len(user) <= _LONGEST_USER and not _PERSONAL.fullmatch(user)


def _tools(request: Request) -> dict[str, Any]:
    tools = [_tool(tool) for tool in request.tools]
    theirs = request.extras.get(NAME, {}).get("tools")
    if not tools and not theirs:
        # The calls of earlier turns are refused where no tools are named.
        used = [_tool(Tool(name)) for name in conversation.tools_used(request)]
        return {"tools": used, "tool_choice": {"type": "none"}} if used else {}
    out: dict[str, Any] = {"tools": tools}
    choice = request.tool_choice
    if choice is not None or request.parallel_tool_calls is False:
        mode = choice.mode if choice is not None else Choice.AUTO
        told: dict[str, Any] = {"type": CHOICE[mode]}
        if choice is not None and choice.name:
            told["name"] = choice.name
        if request.parallel_tool_calls is False and mode is not Choice.NONE:
            told["disable_parallel_tool_use"] = True
        out["tool_choice"] = told
    return out


def _tool(tool: Tool) -> dict[str, Any]:
    schema = dict(tool.schema or {})
    schema.setdefault("type", "object")
    if not tool.schema:
        schema["properties"] = {}
    out: dict[str, Any] = {"name": tool.name, "input_schema": schema}
    if tool.description:
        out["description"] = tool.description
    if tool.strict:
        out["strict"] = True
    if tool.cache is not None:
        out["cache_control"] = tool.cache
    return out
