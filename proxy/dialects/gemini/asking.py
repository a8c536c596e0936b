"""A request → the body for Google.

Model and streaming stand in the path.  Schemas go into the fields for JSON Schema (`parameters`
would take an OpenAPI subset without `additionalProperties`, `$ref`, `oneOf`).
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from proxy.dialects.gemini.schema import for_provider
from proxy.dialects.gemini.turns import Contents
from proxy.errors import InvalidRequest
from proxy.requests import Choice, Quirks, Reasoning, Request, Tool, cached

MODE = {Choice.AUTO: "AUTO", Choice.NONE: "NONE", Choice.REQUIRED: "ANY", Choice.NAMED: "ANY"}

#: Effort → tokens of thought, as Google's own OpenAI endpoint has it, and → level, from Gemini 3 on.
BUDGET = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576, "max": 24576}
LEVEL = {"none": "MINIMAL", "minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH"} | dict.fromkeys(
    ("xhigh", "max"), "HIGH"
)

# Up to 2.5 models think by budget and take calls without a signature.
_OLD = re.compile(r"\bgemini-[12][.-]")


def write(request: Request, *, model: str, quirks: Quirks) -> bytes:
    """Write the body; ``model`` is the provider's name for it.

    Raises ``InvalidRequest`` for what this dialect cannot say and may not leave out.
    """
    contents = Contents(sealed=not _OLD.search(model))
    contents.system += [{"text": text.text} for text in request.system if text.text]
    for turn in request.turns:
        contents.add(turn)
    body: dict[str, Any] = {"contents": contents.end()}
    if contents.system:
        body["systemInstruction"] = {"parts": contents.system}
    body.update(_tools(request))
    config = _config(request, model)
    extras = dict(request.extras.get("gemini", {}))
    config |= extras.pop("generationConfig", {})
    if config:
        body["generationConfig"] = config
    _merge(body, extras)
    for name in quirks.drop:
        body.pop(name, None)
        config.pop(name, None)
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:
        raise InvalidRequest("the request is nested too deeply") from None


def unsaid(request: Request, model: str, quirks: Quirks) -> tuple[str, ...]:
    """Name the fields that are left out here, because the dialect has no word for them."""
    return tuple(
        name
        for name, said in (
            ("parallel_tool_calls", request.parallel_tool_calls is False),
            ("user", request.user),
            ("verbosity", request.verbosity),
            ("cache_control", cached(request)),
        )
        if said
    )


def _tools(request: Request) -> dict[str, Any]:
    if not request.tools:
        return {}
    out: dict[str, Any] = {"tools": [{"functionDeclarations": [_declared(tool) for tool in request.tools]}]}
    if choice := request.tool_choice:
        config: dict[str, Any] = {"mode": MODE[choice.mode]}
        if choice.mode is Choice.NAMED:
            config["allowedFunctionNames"] = [choice.name]
        out["toolConfig"] = {"functionCallingConfig": config}
    return out


def _declared(tool: Tool) -> dict[str, Any]:
    out: dict[str, Any] = {"name": tool.name}
    if tool.description:
        out["description"] = tool.description
    if tool.schema and (tool.schema.get("properties") or tool.schema.get("type") != "object"):
        out["parametersJsonSchema"] = for_provider(tool.schema)
    return out


def _config(request: Request, model: str) -> dict[str, Any]:
    config: dict[str, Any] = {
        "maxOutputTokens": request.max_tokens,
        "temperature": request.temperature,
        "topP": request.top_p,
        "topK": request.top_k,
        "stopSequences": list(request.stop) or None,
        "seed": request.seed,
        "presencePenalty": request.presence_penalty,
        "frequencyPenalty": request.frequency_penalty,
        "candidateCount": request.answers if request.answers > 1 else None,
    }
    if request.logprobs is not None:
        config["responseLogprobs"] = True
        config["logprobs"] = request.logprobs or None
    if format := request.response_format:
        config["responseMimeType"] = "application/json"
        config["responseJsonSchema"] = for_provider(format.schema) if format.schema else None
    if request.reasoning is not None:
        config["thinkingConfig"] = _thinking(request.reasoning, model) or None
    return {name: value for name, value in config.items() if value is not None}


def _thinking(reasoning: Reasoning, model: str) -> dict[str, Any]:
    """Google takes a level or a budget, never both; the lowest of either depends on the size of the model."""
    out: dict[str, Any] = {}
    if reasoning.shown is not None:
        out["includeThoughts"] = reasoning.shown
    effort, budget = reasoning.effort, reasoning.budget
    if not _OLD.search(model):
        if budget == 0:
            effort = "none"
        if level := LEVEL.get(effort):
            out["thinkingLevel"] = "LOW" if level == "MINIMAL" and "pro" in model else level
        elif budget is not None:
            out["thinkingBudget"] = budget
        return out
    if budget is None:
        budget = 0 if effort == "none" else BUDGET.get(effort)
    if budget is not None:
        least, most = (128, 32768) if "pro" in model else (0, 24576)
        if budget and "lite" in model:
            least = 512
        out["thinkingBudget"] = min(max(budget, least), most)
    return out


def _merge(body: dict[str, Any], extras: dict[str, Any]) -> None:
    """Put back what a client of the same dialect said beside our fields."""
    body.setdefault("tools", []).extend(extras.pop("tools", ()))
    if not body["tools"]:
        del body["tools"]
    if config := extras.pop("toolConfig", None):
        body["toolConfig"] = {**body.get("toolConfig", {}), **config}
    body.update(extras)
