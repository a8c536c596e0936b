"""A client's request, split at the top level and otherwise left alone.

msgspec decodes the body to `dict[str, Raw]`, so depth, big integers and unknown fields survive
untouched; only the values that must change are replaced.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Raw

from proxy.errors import InvalidRequest


class _Head(msgspec.Struct):
    role: str


class _Call(msgspec.Struct):
    id: str = ""


_calls = msgspec.json.Decoder(list[_Call] | None).decode
_split = msgspec.json.Decoder(dict[str, Raw]).decode
_heads = msgspec.json.Decoder(list[_Head]).decode
_objects = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_options = msgspec.json.Decoder(dict[str, Raw] | None).decode
_name: Callable[[Raw], str | None] = msgspec.json.Decoder(str | None).decode
_dump = msgspec.json.Encoder().encode

_TRUE = Raw(b"true")
_FALSE = Raw(b"false")
_PLACE = re.compile(r" - at `\$(.*)`$")


@dataclass(slots=True)
class ChatRequest:
    """What routing and relaying need to know of a body, and the body itself.

    ``include_usage`` tells whether the client wants the usage chunk; ``choices`` is `n`.
    """

    body: bytes
    fields: dict[str, Raw]
    model: str | None
    stream: bool
    include_usage: bool = False
    choices: int = 1
    roles: frozenset[str] = field(default_factory=frozenset)


def parse(body: bytes, *, messages: bool = True) -> ChatRequest:
    """Split and check a body; ``messages`` is False for endpoints that have none.

    Raises ``InvalidRequest`` whose ``param`` names the field to mend.
    """
    fields = split(body)
    request = ChatRequest(body, fields, model_of(fields), flag(fields, "stream"))
    if messages:
        request.roles = _roles(fields)
    if (raw := fields.get("stream_options")) is not None:
        try:
            options = _options(raw)
        except msgspec.DecodeError:
            raise InvalidRequest("`stream_options` must be an object", param="stream_options") from None
        request.include_usage = bool(options) and bytes(options.get("include_usage", b"")) == b"true"
    if request.stream and (raw := fields.get("n")) is not None and bytes(raw).isdigit():
        request.choices = max(1, int(bytes(raw)[:4]))
    return request


def split(body: bytes) -> dict[str, Raw]:
    """Take a JSON object apart at its top level; of repeated keys the last one counts."""
    try:
        if not body.isascii():
            body.decode()
        return _split(body)
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"the body is not UTF-8 (byte {exc.start})") from None
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None
    except msgspec.ValidationError as exc:
        raise InvalidRequest(f"the body must be a JSON object: {exc}") from None
    except msgspec.DecodeError as exc:
        raise InvalidRequest(f"the body is not JSON: {exc}" if body.strip() else "the body is empty") from None


def render(
    request: ChatRequest,
    *,
    model: str,
    stream: bool,
    ask_usage: bool = False,
    drop: tuple[str, ...] = (),
    roles: dict[str, str] | None = None,
) -> bytes:
    """Write the body for a provider: its name for the model, and what else must change.

    ``roles`` maps message roles that the provider does not know to ones that it does.
    """
    fields = request.fields
    changes: dict[str, Any] = {}
    if request.model != model:
        changes["model"] = model
    if stream is not request.stream:
        changes["stream"] = _TRUE if stream else _FALSE
    if stream and ask_usage and not request.include_usage:
        options = _options(fields.get("stream_options", b"null")) or {}
        changes["stream_options"] = {**options, "include_usage": _TRUE}
    elif stream and not ask_usage:  # the provider refuses the field, whoever says it
        drop = (*drop, "stream_options")
    if roles and not request.roles.isdisjoint(roles):
        changes["messages"] = _rename(_objects(fields["messages"]), roles)
    if not changes and fields.keys().isdisjoint(drop) and _says_once(request.body, b"model"):
        return request.body
    out = {**fields, **changes}
    for name in drop:
        out.pop(name, None)
    return _dump(out)


def _says_once(body: bytes, name: bytes) -> bool:
    """Does the field stand at most once, so that no provider can read another value than we did?"""
    return body.count(b'"%b"' % name) < 2 and b"\\u006" not in body


def remind(request: ChatRequest, thoughts: Callable[[str], str]) -> None:
    """Put back the thoughts that a client dropped from its tool turns, as `reasoning_content`.

    ``thoughts`` knows them by the id of a call.  DeepSeek refuses a turn without them.
    """
    if b'"tool_calls"' not in request.body:
        return
    messages: list[dict[str, Any]] = [dict(message) for message in _objects(request.fields["messages"])]
    changed = False
    for message in messages:
        if "tool_calls" not in message or "reasoning_content" in message:
            continue
        try:
            ids = [call.id for call in _calls(message["tool_calls"]) or ()]
        except msgspec.DecodeError:
            continue  # the provider's to judge
        if words := next(filter(None, map(thoughts, ids)), ""):
            message["reasoning_content"] = words
            changed = True
    if changed:
        request.fields["messages"] = Raw(_dump(messages))
        request.body = _dump(request.fields)


def model_of(fields: dict[str, Raw]) -> str | None:
    """Read `model`.  Raises ``InvalidRequest``."""
    raw = fields.get("model")
    if raw is None:
        return None
    try:
        return _name(raw)
    except msgspec.DecodeError:
        raise InvalidRequest("`model` must be a string", param="model") from None


def flag(fields: dict[str, Raw], name: str) -> bool:
    """Read a boolean; null is false.  Raises ``InvalidRequest``."""
    value = bytes(fields.get(name, b"null"))
    if value not in (b"true", b"false", b"null"):
        raise InvalidRequest(f"`{name}` must be true or false", param=name)
    return value == b"true"


def _roles(fields: dict[str, Raw]) -> frozenset[str]:
    raw = fields.get("messages")
    if raw is None:
        raise InvalidRequest("`messages` is missing", param="messages")
    try:
        heads = _heads(raw)
    except RecursionError:
        raise InvalidRequest("`messages` is nested too deeply", param="messages") from None
    except msgspec.DecodeError as exc:
        place = _PLACE.search(str(exc))
        if place is None:
            raise InvalidRequest("`messages` must be an array of objects", param="messages") from None
        param = f"messages{place[1]}"
        said = _PLACE.sub("", str(exc))
        if said.startswith("Object missing"):
            raise InvalidRequest(f"`{param}` has no `role`", param=f"{param}.role") from None
        raise InvalidRequest(f"`{param}`: {said.replace('Expected', 'expected')}", param=param) from None
    if not heads:
        raise InvalidRequest("`messages` must not be empty", param="messages")
    return frozenset(head.role for head in heads)


def _rename(messages: list[dict[str, Raw]], roles: dict[str, str]) -> list[dict[str, Any]]:
    return [{**m, "role": roles.get(_name(m["role"]) or "", m["role"])} for m in messages]
