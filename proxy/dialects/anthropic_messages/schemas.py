"""JSON schemas as Anthropic takes them for answers: https://docs.claude.com/en/docs/build-with-claude/structured-outputs

Objects must be closed, and it refuses limits that its grammar cannot hold.  Those go into the
description, where the model may heed them (the official SDKs do the same).
"""

from __future__ import annotations

from typing import Any

from proxy.dialects.anthropic_messages.fields import dump

_KEPT = frozenset(("type", "enum", "const", "$ref", "description", "title", "default", "required"))
_MAPS = frozenset(("properties", "$defs", "definitions"))
_LISTS = {"anyOf": "anyOf", "oneOf": "anyOf", "allOf": "allOf"}
_FORMATS = frozenset(("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"))


def fitted(schema: dict[str, Any]) -> dict[str, Any]:
    """Write a schema anew within those bounds."""
    out: dict[str, Any] = {}
    unsaid: dict[str, Any] = {}
    for name, value in schema.items():
        if name in _KEPT or _known(name, value):
            out[name] = value
        elif name in _MAPS and isinstance(value, dict):
            out[name] = {key: _inner(one) for key, one in value.items()}
        elif name in _LISTS and isinstance(value, list):
            out[_LISTS[name]] = [_inner(one) for one in value]
        elif name == "items":
            out[name] = _inner(value)
        elif name not in ("additionalProperties", "$schema", "$id"):
            unsaid[name] = value
    if out.get("type") == "object" or "properties" in out:
        out["additionalProperties"] = False
    if unsaid:
        said = [text] if isinstance(text := out.get("description"), str) else []
        out["description"] = "\n\n".join([*said, dump(unsaid, "response_format").decode()])
    return out


def _known(name: str, value: object) -> bool:
    if name == "format":
        return isinstance(value, str) and value in _FORMATS
    return name == "minItems" and value in (0, 1)


def _inner(schema: object) -> object:
    return fitted(schema) if isinstance(schema, dict) else schema
