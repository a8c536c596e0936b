"""Schemas: Google's subset of OpenAPI 3.0 (https://ai.google.dev/api/caching#Schema) → JSON Schema.

The other way needs none of it: `parametersJsonSchema` and `responseJsonSchema` take JSON Schema.
"""

from __future__ import annotations

from typing import Any

from proxy.dialects.gemini.fields import snake

_ONE = frozenset({"items", "additionalProperties", "not"})
_LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_MAPS = frozenset({"properties", "$defs", "definitions"})
_SIZES = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
#: Keywords are written like this, too.
_NAMES = {snake(name): name for name in (*_ONE, *_LISTS, *_SIZES, "propertyOrdering")}


def from_openapi(schema: Any) -> Any:
    """Respell a schema: types in lower case, `nullable` as a type, sizes (64 bits, so strings) as numbers."""
    if not isinstance(schema, dict):
        return schema
    out: dict[str, Any] = {}
    for key, value in schema.items():
        name: str = _NAMES.get(key, str(key))
        if name in _MAPS and isinstance(value, dict):
            out[name] = {key: from_openapi(inner) for key, inner in value.items()}
        elif name in _LISTS and isinstance(value, list):
            out[name] = [from_openapi(inner) for inner in value]
        elif name in _ONE:
            out[name] = from_openapi(value)
        elif name in _SIZES and isinstance(value, str) and value.isdigit():
            out[name] = int(value)
        elif name == "type":
            if (kind := _type(value)) is not None:
                out[name] = kind
        elif name not in ("nullable", "propertyOrdering") and value is not None:
            out[name] = value
    if out.get("format") == "enum":  # says no more than `enum` itself
        del out["format"]
    if schema.get("nullable") is True:
        _allow_null(out)
    return out


def for_provider(schema: dict[str, Any]) -> dict[str, Any]:
    """Take out what Google's JSON Schema fields do not know."""
    return {key: value for key, value in schema.items() if key != "$schema"}


def _type(value: Any) -> Any:
    if isinstance(value, list):
        return [_type(one) for one in value]
    if not isinstance(value, str):
        return value
    return None if value == "TYPE_UNSPECIFIED" else value.lower()


def _allow_null(schema: dict[str, Any]) -> None:
    if isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
    if isinstance(schema.get("anyOf"), list):
        schema["anyOf"] = [*schema["anyOf"], {"type": "null"}]
    if isinstance(schema.get("enum"), list):
        schema["enum"] = [*schema["enum"], None]
