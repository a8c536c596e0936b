"""Turns → the `contents` of a request to Google.

Calls and results alternate strictly: the results of one step are ONE user content, in the order of
the calls, right after the one model content that holds the calls.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any, assert_never
from urllib.parse import unquote_to_bytes, urlsplit

import orjson

from proxy.errors import InvalidRequest
from proxy.requests import (
    Audio,
    Document,
    Image,
    Part,
    Refusal,
    Role,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Turn,
)

#: What Google documents for calls that another model made: Gemini 3 refuses a call without any seal.
NO_SIGNATURE = "skip_thought_signature_validator"

_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "heic": "image/heic",
    "heif": "image/heif",
    "pdf": "application/pdf",
    "txt": "text/plain",
    "mp4": "video/mp4",
    "mp3": "audio/mp3",
    "wav": "audio/wav",
}


class Contents:
    """Writes one conversation; ``system`` has the texts of turns by the system."""

    def __init__(self, *, sealed: bool) -> None:
        """``sealed``: the model wants a signature on the first call of each step."""
        self.system: list[dict[str, Any]] = []
        self._contents: list[dict[str, Any]] = []
        self._sealed = sealed
        self._names: dict[str, str] = {}  # of the functions, by their calls' ids, in the order of the calls
        self._results: list[ToolResult] = []  # of the step whose turns are being read

    def add(self, turn: Turn) -> None:
        """Write one turn."""
        if turn.role is Role.TOOL:
            self._results += [part for part in turn.parts if isinstance(part, ToolResult)]
            return
        self._answer()
        parts = [written for part in turn.parts if (written := self._part(part)) is not None]
        if turn.role is Role.SYSTEM:
            self.system += parts
        elif turn.role is Role.ASSISTANT:
            self._append("model", parts)
        else:
            self._append("user", parts)

    def end(self) -> list[dict[str, Any]]:
        """Return all contents; where only the system spoke, that is the question."""
        self._answer()
        if not self._contents and self.system:
            self._append("user", self.system)
            self.system = []
        if self._sealed:
            for content in self._contents:
                _seal(content["parts"])
        return self._contents

    def _append(self, role: str, parts: list[dict[str, Any]]) -> None:
        if not parts:
            return
        last = self._contents[-1] if self._contents else None
        if last is not None and last["role"] == role and "functionResponse" not in last["parts"][0]:
            last["parts"] += parts
        else:
            self._contents.append({"role": role, "parts": parts})

    def _answer(self) -> None:
        """Say the results of a step together; pictures in them stand beside them."""
        if not self._results:
            return
        order = list(self._names)
        results, shown = [], []
        for result in sorted(self._results, key=lambda r: order.index(r.id) if r.id in self._names else len(order)):
            results.append({"functionResponse": self._response(result)})
            shown += [self._part(part) for part in result.parts if not isinstance(part, Text)]
        self._contents.append({"role": "user", "parts": results + shown})
        self._results = []

    def _response(self, result: ToolResult) -> dict[str, Any]:
        name = self._names.get(result.id) or result.name
        if not name:
            raise InvalidRequest(
                f"the tool result {result.id!r} answers no call of this conversation", param="messages"
            )
        text = "\n".join(part.text for part in result.parts if isinstance(part, Text))
        return {"id": result.id, "name": name, "response": {"error": text} if result.error else _object(text, "output")}

    def _part(self, part: Part) -> dict[str, Any] | None:
        match part:
            case Text() | Refusal():
                return {"text": part.text} if part.text else None
            case Image():
                return _media(part.url, part.data, part.media_type or "image/jpeg")
            case Audio():
                return _media("", part.data, f"audio/{part.format}")
            case Document():
                return _document(part)
            case ToolCall():
                self._names[part.id] = part.name
                call = {"id": part.id, "name": part.name, "args": _object(part.arguments, "arguments")}
                sealed = {"thoughtSignature": part.signature} if part.signature else {}
                return {"functionCall": call, **sealed}
            case Thinking():  # calls are sealed here, thoughts are not: they stay behind
                return None
            case ToolResult():
                return None
            case _:
                assert_never(part)


def _seal(parts: list[dict[str, Any]]) -> None:
    calls = [part for part in parts if "functionCall" in part]
    if calls and not any("thoughtSignature" in call for call in calls):
        calls[0]["thoughtSignature"] = NO_SIGNATURE


def _object(text: str, key: str) -> dict[str, Any]:
    """Read arguments or a result as the object that must be sent; what is none is put under ``key``."""
    if not text.strip():
        return {key: ""} if key == "output" else {}
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {key: text}
    return value if isinstance(value, dict) else {key: text}


def _document(document: Document) -> dict[str, Any] | None:
    if document.text:
        return {"text": document.text}
    if document.file_id and not (document.url or document.data):
        raise InvalidRequest(
            "`file_id`: this provider (dialect gemini) has no files of other providers; send the file itself",
            param="file_id",
        )
    return _media(document.url, document.data, document.media_type)


def _media(url: str, data: str, type: str) -> dict[str, Any]:
    """Show a file: its bytes, or where Google finds it."""
    if url.startswith("data:"):
        head, comma, data = url.partition(",")
        type = head[5:].partition(";")[0] or type
        if not comma or not data:
            raise InvalidRequest("a data: URL without data", param="url")
        if not head.endswith(";base64"):
            data = b64encode(unquote_to_bytes(data)).decode()
    elif url:
        known = _TYPES.get(urlsplit(url).path.rpartition(".")[2].lower())
        return {"fileData": {"mimeType": known or type or "application/pdf", "fileUri": url}}
    return {"inlineData": {"mimeType": type or "application/pdf", "data": data}}
