"""A client's `contents` → turns.

Tool calls have hardly ever an id here: a result finds its call by name and order.  The ids that
are made up count the conversation's calls, so that the same history gets the same ids each time.
"""

from __future__ import annotations

from typing import Any

import orjson
from msgspec.structs import replace

from proxy.dialects.gemini.fields import Fields, wrong
from proxy.errors import InvalidRequest
from proxy.requests import Audio, Document, Image, Part, Role, Text, Thinking, ToolCall, ToolResult, Turn

ROLES = {"": Role.USER, "user": Role.USER, "model": Role.ASSISTANT, "function": Role.USER}


class Contents:
    """Reads one conversation; ``dropped`` collects the names of what has no place in a turn."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.dropped: set[str] = set()
        self._waiting: list[tuple[str, str]] = []  # id and name of calls without a result so far
        self._ids: set[str] = set()
        self._made = 0

    def add(self, content: Fields) -> None:
        """Read one content: its tool results make a turn of their own, which follows the calls."""
        role = ROLES.get(content.text("role"))
        if role is None:
            raise InvalidRequest(f"`{content.where('role')}` must be user or model", param=content.where("role"))
        said: list[Part] = []
        results: list[Part] = []
        for fields in content.objects("parts"):
            for part in self._part(fields):
                if isinstance(part, ToolCall) and role is not Role.ASSISTANT:
                    raise InvalidRequest(f"`{fields.place}`: only the model calls functions", param=fields.place)
                (results if isinstance(part, ToolResult) else said).append(part)
        if results:
            self._append(Role.TOOL, results)
        if said:
            self._append(role, said)

    def _append(self, role: Role, parts: list[Part]) -> None:
        """SDKs send a streamed answer back as it came, a content and a part for each chunk: it is one turn."""
        if role is Role.ASSISTANT:
            if self.turns and self.turns[-1].role is role:
                parts = [*self.turns.pop().parts, *parts]
            parts = _joined(parts)
        elif role is Role.TOOL and self.turns and self.turns[-1].role is role:
            parts = [*self.turns.pop().parts, *parts]
        self.turns.append(Turn(role, tuple(parts)))

    def _part(self, fields: Fields) -> list[Part]:
        signature = fields.text("thoughtSignature")
        thought = fields.flag("thought")
        parts: list[Part] = []
        if (text := fields.get("text")) is not None:
            if not isinstance(text, str):
                raise wrong(fields.where("text"), "a string")
            if thought:
                parts.append(Thinking(text, signature))
            elif text:
                parts.append(Text(text))
            if signature and not thought:
                self.dropped.add("contents.parts.thoughtSignature")  # of text: no other dialect seals it
        elif (call := fields.object("functionCall")) is not None:
            parts.append(self._call(call, signature))
        elif (answer := fields.object("functionResponse")) is not None:
            parts.append(self._result(answer))
        elif (blob := fields.object("inlineData")) is not None:
            parts.append(_inline(blob))
        elif (file := fields.object("fileData")) is not None:
            parts.append(_file(file))
        elif (code := fields.object("executableCode")) is not None:
            parts.append(Text(f"```{code.text('language').lower()}\n{code.text('code')}\n```"))
        elif (outcome := fields.object("codeExecutionResult")) is not None:
            parts.append(Text(f"```\n{outcome.text('output')}\n```"))
        self.dropped.update(f"contents.parts.{name}" for name in fields.unread)
        return parts

    def _call(self, call: Fields, signature: str) -> ToolCall:
        name, args = call.text("name"), call.get("args")
        if not name:
            raise wrong(call.where("name"), "the function's name")
        if args is not None and not isinstance(args, dict):
            raise wrong(call.where("args"), "an object")
        id = call.text("id")
        if not id or id in self._ids:
            id = self._new_id()
        self._ids.add(id)
        self._waiting.append((id, name))
        return ToolCall(id, name, _dumped(args or {}, call.where("args")), signature)

    def _result(self, answer: Fields) -> ToolResult:
        name, response = answer.text("name"), answer.get("response")
        if response is not None and not isinstance(response, dict):
            raise wrong(answer.where("response"), "an object")
        id = self._called(answer.text("id"), name)
        said, error = _said(response or {}, answer.where("response"))
        parts: list[Text | Image | Document] = [Text(said)]
        for fields in answer.objects("parts"):
            for part in self._part(fields):
                if not isinstance(part, Text | Image | Document):
                    raise wrong(fields.place, "text, an image or a file")
                parts.append(part)
        return ToolResult(id, tuple(parts), name, error)

    def _called(self, id: str, name: str) -> str:
        """Find the call that is answered: by id, else the first of this name that still waits."""
        for known in self._waiting:
            if id and known[0] == id:
                self._waiting.remove(known)
                return id
        for known in self._waiting:
            if known[1] == name:
                self._waiting.remove(known)
                return known[0]
        return id or self._new_id()

    def _new_id(self) -> str:
        while True:
            self._made += 1
            id = f"call_{self._made:09}"  # nine digits: some models' templates ask for them
            if id not in self._ids:
                return id


def _joined(parts: list[Part]) -> list[Part]:
    """Put the pieces of a streamed answer together again; a seal ends the thought that it is on."""
    out: list[Part] = []
    for part in parts:
        last = out[-1] if out else None
        if isinstance(part, Text) and isinstance(last, Text):
            out[-1] = replace(last, text=last.text + part.text)
        elif isinstance(part, Thinking) and isinstance(last, Thinking) and not last.signature:
            out[-1] = replace(last, text=last.text + part.text, signature=part.signature)
        else:
            out.append(part)
    return out


def _said(response: dict[str, Any], place: str) -> tuple[str, bool]:
    """Unwrap a result: text under one of the usual keys is the result itself."""
    match response:
        case {"output": str(text)} | {"result": str(text)} if len(response) == 1:
            return text, False
        case {"error": str(text)} if len(response) == 1:
            return text, True
        case _:
            return _dumped(response, place), len(response) == 1 and "error" in response


def _inline(blob: Fields) -> Part:
    type, data = blob.text("mimeType"), blob.text("data")
    if not data:
        raise wrong(blob.where("data"), "base64 data")
    kind, _, format = type.partition("/")
    if kind == "image":
        return Image(data=data, media_type=type)
    if kind == "audio":
        return Audio(data, {"mpeg": "mp3", "x-wav": "wav"}.get(format, format))
    return Document(data=data, media_type=type, name=blob.text("displayName"))


def _file(file: Fields) -> Part:
    type, uri = file.text("mimeType"), file.text("fileUri")
    if not uri:
        raise wrong(file.where("fileUri"), "a URI")
    if type.startswith("image/"):
        return Image(url=uri, media_type=type)
    return Document(url=uri, media_type=type, name=file.text("displayName"))


def _dumped(value: dict[str, Any], place: str) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        raise InvalidRequest(f"`{place}` is nested too deeply", param=place) from None
