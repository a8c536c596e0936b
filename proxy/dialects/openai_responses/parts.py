"""Parts of a message: words, pictures, files, sound."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from proxy.errors import InvalidRequest
from proxy.requests import Audio, Document, Image, Refusal, Text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.requests import Part

_DATA_URL = re.compile(r"data:([^;,]*)(?:;[^,]*)?;base64,(.*)", re.DOTALL)


def read_parts(content: object, place: str, dropped: list[str]) -> list[Part]:
    """Read a message's content; ``dropped`` takes the names of parts that no other dialect has.

    Raises ``InvalidRequest`` naming the part that is broken.
    """
    if isinstance(content, str):
        return [Text(content)] if content else []
    if not isinstance(content, list):
        raise InvalidRequest(f"`{place}` must be a string or an array of parts", param=place)
    return [
        part
        for position, raw in enumerate(content)
        if (part := _part(raw, f"{place}[{position}]", dropped)) is not None
    ]


def _part(part: Any, place: str, dropped: list[str]) -> Part | None:
    match part:
        case {"type": "input_text" | "output_text" | "text" | "summary_text", "text": str(text)}:
            return Text(text)
        case {"type": "refusal", "refusal": str(text)}:
            return Refusal(text)
        case {"type": "input_image" | "image_url" | "computer_screenshot"}:
            return _image(part, place)
        case {"type": "input_file"}:
            return _document(part, place)
        case {"type": "input_audio", "input_audio": {"data": str(data), "format": str(form)}}:
            return Audio(data, form)
        case {"type": "encrypted_content"}:
            dropped.append("input.encrypted_content")
            return None
        case {"type": str(kind)}:
            raise InvalidRequest(f"`{place}` is broken, or not known here: {kind[:40]!r}", param=place)
        case _:
            raise InvalidRequest(f"`{place}` must be an object with a `type`", param=place)


def _image(part: dict[str, Any], place: str) -> Image:
    url: Any = part.get("image_url")
    detail = _text(part.get("detail"))
    if isinstance(url, dict):  # as chat completions spell it
        url, detail = url.get("url"), _text(url.get("detail"))
    if not isinstance(url, str) or not url:
        if part.get("file_id"):
            raise InvalidRequest(
                f"`{place}.file_id` is a file at OpenAI, which this model's provider cannot read",
                param=f"{place}.file_id",
            )
        raise InvalidRequest(f"`{place}.image_url` must be a string", param=f"{place}.image_url")
    if found := _DATA_URL.fullmatch(url):
        return Image(data=found[2], media_type=found[1] or "image/png", detail=detail)
    return Image(url=url, detail=detail)


def _document(part: dict[str, Any], place: str) -> Document:
    url, data, id = _text(part.get("file_url")), _text(part.get("file_data")), _text(part.get("file_id"))
    name, kind = _text(part.get("filename")), ""
    if found := _DATA_URL.fullmatch(data):
        kind, data = found[1], found[2]
    if not (url or data or id):
        raise InvalidRequest(f"`{place}` needs `file_url`, `file_data` or `file_id`", param=place)
    return Document(url=url, data=data, media_type=kind, name=name, file_id=id)


def read_output(output: object, place: str) -> Iterator[Text | Image | Document]:
    """Read what came of a call.  Raises as `read_parts` does."""
    match output:
        case None | "":
            return
        case str():
            yield Text(output)
        case {"content": str(text)}:  # an older Codex
            yield Text(text)
        case list() if all(isinstance(part, dict) for part in output):
            for part in read_parts(output, place, []):
                if isinstance(part, Text | Image | Document):
                    yield part
        case _:
            raise InvalidRequest(f"`{place}` must be a string or an array of parts", param=place)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
