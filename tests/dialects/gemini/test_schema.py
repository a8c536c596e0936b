"""Google's OpenAPI subset becomes JSON Schema."""

from __future__ import annotations

import pytest

from proxy.dialects.gemini.schema import for_provider, from_openapi


@pytest.mark.parametrize(
    ("openapi", "schema"),
    [
        pytest.param({"type": "STRING"}, {"type": "string"}, id="type"),
        pytest.param({"type": "TYPE_UNSPECIFIED"}, {}, id="no-type"),
        pytest.param({"type": ["STRING", "NULL"]}, {"type": ["string", "null"]}, id="types"),
        pytest.param(
            {"type": "OBJECT", "properties": {"type": {"type": "INTEGER"}, "min_items": {"type": "NUMBER"}}},
            {"type": "object", "properties": {"type": {"type": "integer"}, "min_items": {"type": "number"}}},
            id="names-of-properties-stay",
        ),
        pytest.param(
            {"type": "ARRAY", "items": {"type": "BOOLEAN"}, "minItems": "1", "max_items": 2},
            {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2},
            id="sizes-are-numbers",
        ),
        pytest.param(
            {"type": "STRING", "nullable": True, "enum": ["A"], "format": "enum"},
            {"type": ["string", "null"], "enum": ["A", None]},
            id="nullable",
        ),
        pytest.param(
            {"any_of": [{"type": "STRING"}], "nullable": True},
            {"anyOf": [{"type": "string"}, {"type": "null"}]},
            id="nullable-choice",
        ),
        pytest.param(
            {"type": "OBJECT", "propertyOrdering": ["a"], "title": None, "required": ["a"], "format": "x"},
            {"type": "object", "required": ["a"], "format": "x"},
            id="what-json-schema-does-not-know",
        ),
        pytest.param(
            {"type": "object", "additionalProperties": False, "$defs": {"A": {"type": "STRING"}}, "enum": ["STRING"]},
            {"type": "object", "additionalProperties": False, "$defs": {"A": {"type": "string"}}, "enum": ["STRING"]},
            id="json-schema-stays",
        ),
        pytest.param(None, None, id="none"),
    ],
)
def test_from_openapi(openapi, schema):
    assert from_openapi(openapi) == schema


def test_for_provider_leaves_out_the_version():
    schema = {"$schema": "x", "type": "object", "additionalProperties": False}
    assert for_provider(schema) == {"type": "object", "additionalProperties": False}
    assert "$schema" in schema
