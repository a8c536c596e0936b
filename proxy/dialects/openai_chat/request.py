"""A client's request, split at the top level and otherwise left alone.

msgspec decodes the body to `dict[str, Raw]`, so depth, big integers and unknown fields survive
untouched; only the values that must change are replaced.
"""

from __future__ import annotations

import re
from collections.abc import Callable
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


class _Body(msgspec.Struct):
    """What is looked at of a body, so that one pass in C reads and checks all of it."""

    model: str | None = None
    stream: bool | None = None
    stream_options: dict[str, Raw] | None = None
    n: Raw = Raw(b"")


class _Chat(_Body, kw_only=True):
    messages: list[_Head]


_plain = msgspec.json.Decoder(_Body).decode
_chat = msgspec.json.Decoder(_Chat).decode


class ChatRequest(msgspec.Struct, eq=False):
    """What routing and relaying need to know of a body, and the body itself."""

    body: bytes
    model: str | None
    stream: bool
    _read: _Body
    _fields: dict[str, Raw] | None = None

    @property
    def include_usage(self) -> bool:
        """Does the client want the usage chunk?"""
        options = self._read.stream_options
        return options is not None and bytes(options.get("include_usage", b"")) == b"true"

    @property
    def choices(self) -> int:
        """How many answers at once (`n`); what is no count is the provider's to judge."""
        told = bytes(self._read.n)
        return max(1, int(told[:4])) if told.isdigit() else 1

    @property
    def fields(self) -> dict[str, Raw]:
        """The body taken apart at its top level, for those who change something in it."""
        if self._fields is None:
            self._fields = split(self.body)
        return self._fields

    @property
    def roles(self) -> set[str]:
        """Who speaks in its messages."""
        return {head.role for head in self._read.messages} if isinstance(self._read, _Chat) else set()


def parse(body: bytes, *, messages: bool = True) -> ChatRequest:
    """Read and check a body; ``messages`` is False for endpoints that have none.

    Raises ``InvalidRequest`` whose ``param`` names the field to mend.
    """
    try:
        if not body.isascii():
            body.decode()
        read = _chat(body) if messages else _plain(body)
    except (ValueError, RecursionError):  # msgspec's faults and Unicode's are ValueErrors
        raise _fault(body, messages=messages) from None
    if messages and not read.messages:  # type: ignore[attr-defined]
        raise _fault(body, messages=messages)
    return ChatRequest(body, read.model, bool(read.stream), read)


def _fault(body: bytes, *, messages: bool) -> InvalidRequest:
    """Find out what is wrong with a body, field by field."""
    try:
        fields = split(body)
        model_of(fields)
        flag(fields, "stream")
        if messages:
            _check_messages(fields)
        if "stream_options" in fields:
            try:
                _options(fields["stream_options"])
            except msgspec.DecodeError:
                raise InvalidRequest("`stream_options` must be an object", param="stream_options") from None
    except InvalidRequest as exc:
        return exc
    return InvalidRequest("the body is not what a request must be")


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
    changes: dict[str, Any] = {}
    if request.model != model:
        changes["model"] = model
    if stream is not request.stream:
        changes["stream"] = _TRUE if stream else _FALSE
    if stream and ask_usage and not request.include_usage:
        options = _options(request.fields.get("stream_options", b"null")) or {}
        changes["stream_options"] = {**options, "include_usage": _TRUE}
    elif stream and not ask_usage:  # the provider refuses the field, whoever says it
        drop = (*drop, "stream_options")
    if roles and not request.roles.isdisjoint(roles):
        changes["messages"] = _rename(_objects(request.fields["messages"]), roles)
    if not changes and (not drop or request.fields.keys().isdisjoint(drop)) and _says_once(request.body, b'"model"'):
        return request.body
    out = {**request.fields, **changes}
    for name in drop:
        out.pop(name, None)
    return _dump(out)


def _says_once(body: bytes, name: bytes) -> bool:
    """Does the field of this quoted name stand at most once, so that no provider can read another value than we did?"""
    return body.count(name) < 2 and body.find(b"\\u006") < 0


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


def _check_messages(fields: dict[str, Raw]) -> None:
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


def _rename(messages: list[dict[str, Raw]], roles: dict[str, str]) -> list[dict[str, Any]]:
    return [{**m, "role": roles.get(_name(m["role"]) or "", m["role"])} for m in messages]
