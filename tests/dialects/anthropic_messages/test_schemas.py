"""Schemas for answers, within Anthropic's bounds."""

from __future__ import annotations

import pytest

from proxy.dialects.anthropic_messages.schemas import fitted


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        pytest.param({"type": "string"}, {"type": "string"}, id="as-it-is"),
        pytest.param(
            {"type": "object", "properties": {"a": {"type": "object"}}, "required": ["a"]},
            {
                "type": "object",
                "properties": {"a": {"type": "object", "additionalProperties": False}},
                "required": ["a"],
                "additionalProperties": False,
            },
            id="objects-are-closed",
        ),
        pytest.param(
            {"type": "object", "additionalProperties": True, "$schema": "x"},
            {"type": "object", "additionalProperties": False},
            id="open-ones-too",
        ),
        pytest.param(
            {"type": "integer", "minimum": 1, "description": "How many"},
            {"type": "integer", "description": 'How many\n\n{"minimum":1}'},
            id="limits-go-into-the-description",
        ),
        pytest.param(
            {"type": "string", "format": "email"}, {"type": "string", "format": "email"}, id="formats-that-are-known"
        ),
        pytest.param(
            {"type": "string", "format": "regex"},
            {"type": "string", "description": '{"format":"regex"}'},
            id="formats-that-are-not",
        ),
        pytest.param(
            {"type": "array", "items": {"type": "object"}, "minItems": 1, "maxItems": 3},
            {
                "type": "array",
                "items": {"type": "object", "additionalProperties": False},
                "minItems": 1,
                "description": '{"maxItems":3}',
            },
            id="arrays",
        ),
        pytest.param(
            {"oneOf": [{"type": "null"}, {"$ref": "#/$defs/A"}], "$defs": {"A": {"type": "object"}}},
            {
                "anyOf": [{"type": "null"}, {"$ref": "#/$defs/A"}],
                "$defs": {"A": {"type": "object", "additionalProperties": False}},
            },
            id="alternatives-and-definitions",
        ),
        pytest.param({"items": True, "enum": ["a"]}, {"items": True, "enum": ["a"]}, id="what-is-no-schema-stays"),
    ],
)
def test_a_schema_is_fitted(schema, told):
    before = repr(schema)
    assert fitted(schema) == told
    assert repr(schema) == before
