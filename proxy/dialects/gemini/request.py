"""A client's body → a request.

The model and whether to stream stand in the path.  What only Google knows (safety settings, its own
tools, …) goes into ``extras``, under the names that the client gave it.
"""

from __future__ import annotations

from typing import Any

import orjson

from proxy.dialects.gemini.contents import Contents
from proxy.dialects.gemini.fields import Fields, wrong
from proxy.dialects.gemini.schema import from_openapi
from proxy.errors import InvalidRequest
from proxy.requests import Choice, Reasoning, Request, ResponseFormat, Text, Tool, ToolChoice

MODES = {"AUTO": Choice.AUTO, "VALIDATED": Choice.AUTO, "ANY": Choice.REQUIRED, "NONE": Choice.NONE}


def read(body: bytes, *, model: str | None = None, stream: bool = False) -> Request:
    """Read a body; ``model`` may be written `models/x`.  Raises ``InvalidRequest`` naming the field."""
    try:
        return _Body(Fields(_decoded(body))).request(model, stream)
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None


def read_count(body: bytes, *, model: str | None = None) -> Request:
    """Read the body of `:countTokens`: `contents`, or a whole request under `generateContentRequest`."""
    try:
        fields = Fields(_decoded(body))
        inner = fields.object("generateContentRequest")
        return _Body(inner or fields).request(model, False)
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None


def _decoded(body: bytes) -> Any:
    if not body.strip():
        raise InvalidRequest("the body is empty")
    try:
        if not body.isascii():
            body.decode()
        return orjson.loads(body)
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"the body is not UTF-8 (byte {exc.start})") from None
    except orjson.JSONDecodeError as exc:
        if "limit" in str(exc):
            raise InvalidRequest("the body is nested too deeply") from None
        raise InvalidRequest(f"the body is not JSON: {exc}") from None


class _Body:
    """Reads one body, collecting what the waist has no place for."""

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._config = fields.object("generationConfig") or Fields({}, "generationConfig")
        self._extras: dict[str, Any] = {}
        self._dropped: list[str] = []

    def request(self, model: str | None, stream: bool) -> Request:
        fields, config = self._fields, self._config
        named = fields.text("model")
        system = self._system()
        contents = Contents()
        if fields.get("contents") is None:
            raise InvalidRequest("`contents` is missing", param="contents")
        for content in fields.objects("contents"):
            contents.add(content)
        if not contents.turns:
            raise InvalidRequest("`contents` says nothing", param="contents")
        tools = self._tools()
        choice, tools = self._choice(tools)
        logprobs = config.integer("logprobs")
        return Request(
            model=(model or named).removeprefix("models/") or None,
            turns=tuple(contents.turns),
            system=system,
            stream=stream,
            include_usage=True,
            tools=tools,
            tool_choice=choice,
            max_tokens=config.integer("maxOutputTokens"),
            temperature=config.number("temperature"),
            top_p=config.number("topP"),
            top_k=config.integer("topK"),
            stop=tuple(config.texts("stopSequences")),
            seed=config.integer("seed"),
            presence_penalty=config.number("presencePenalty"),
            frequency_penalty=config.number("frequencyPenalty"),
            answers=config.integer("candidateCount") or 1,
            logprobs=(logprobs or 0) if config.flag("responseLogprobs") else None,
            response_format=self._format(),
            reasoning=self._reasoning(),
            extras=self._unread(),
            dropped=(*self._dropped, *sorted(contents.dropped)),
        )

    def _system(self) -> tuple[Text, ...]:
        system = self._fields.object("systemInstruction")
        if system is None:
            return ()
        system.get("role")  # whatever it says
        texts = [part.text("text") for part in system.objects("parts")]
        return tuple(Text(text) for text in texts if text)

    def _tools(self) -> tuple[Tool, ...]:
        tools: list[Tool] = []
        others: list[dict[str, Any]] = []
        for group in self._fields.objects("tools"):
            for declared in group.objects("functionDeclarations"):
                name = declared.text("name")
                if not name:
                    raise wrong(declared.where("name"), "the function's name")
                tools.append(Tool(name, declared.text("description"), _parameters(declared)))
            if rest := group.unread:
                others.append(rest)
                self._dropped += [f"tools.{key}" for key in rest]
        if others:
            self._extras["tools"] = others
        return tuple(tools)

    def _choice(self, tools: tuple[Tool, ...]) -> tuple[ToolChoice | None, tuple[Tool, ...]]:
        """Read the mode; where only some functions are allowed, the others are not offered."""
        whole = self._fields.object("toolConfig")
        config = whole.object("functionCallingConfig") if whole is not None else None
        if whole is not None and (rest := whole.unread):
            self._extras["toolConfig"] = rest
            self._dropped += [f"toolConfig.{key}" for key in rest]
        if config is None:
            return None, tools
        word = config.text("mode").upper()
        mode = MODES.get(word)
        if mode is None:
            if word not in ("", "MODE_UNSPECIFIED"):
                place = config.where("mode")
                raise InvalidRequest(f"`{place}` must be one of {', '.join(MODES)}", param=place)
            return None, tools
        allowed = config.texts("allowedFunctionNames")
        if allowed and mode is not Choice.NONE:
            if mode is Choice.REQUIRED and len(allowed) == 1:
                return ToolChoice(Choice.NAMED, allowed[0]), tools
            tools = tuple(tool for tool in tools if tool.name in allowed)
        return ToolChoice(mode), tools

    def _format(self) -> ResponseFormat | None:
        config = self._config
        schema = config.get("responseJsonSchema")
        place = config.where("responseJsonSchema")
        if schema is None and (schema := config.get("responseSchema")) is not None:
            place = config.where("responseSchema")
            schema = from_openapi(schema)
        if schema is not None and not isinstance(schema, dict):
            raise wrong(place, "a schema")
        type = config.text("responseMimeType")
        if type == "application/json":
            return ResponseFormat(schema)
        if type not in ("", "text/plain"):
            self._dropped.append("generationConfig.responseMimeType")
        return None

    def _reasoning(self) -> Reasoning | None:
        thinking = self._config.object("thinkingConfig")
        if thinking is None:
            return None
        effort = thinking.text("thinkingLevel").lower()
        budget = thinking.integer("thinkingBudget")
        return Reasoning(
            "" if effort == "thinking_level_unspecified" else effort,
            None if budget is None or budget < 0 else budget,  # -1: as the model likes
            thinking.flag("includeThoughts"),
        )

    def _unread(self) -> dict[str, dict[str, Any]]:
        extras = {**self._fields.unread, **self._extras}
        self._dropped += self._fields.unread
        if rest := self._config.unread:
            extras["generationConfig"] = rest
            self._dropped += [f"generationConfig.{key}" for key in rest]
        return {"gemini": extras} if extras else {}


def _parameters(declared: Fields) -> dict[str, Any] | None:
    schema, place = declared.get("parametersJsonSchema"), declared.where("parametersJsonSchema")
    if schema is None:
        schema, place = from_openapi(declared.get("parameters")), declared.where("parameters")
    if schema is not None and not isinstance(schema, dict):
        raise wrong(place, "a schema")
    return schema
