"""The text of a custom tool's input in a function's arguments."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.openai_responses.freeform import Unwrapper, wrap
from tests.properties import thorough

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.text('\\"/u d83🌍\n{}', max_size=40)


def unwrap(*pieces: str) -> tuple[list[str], str]:
    unwrapper = Unwrapper()
    said = [text for piece in pieces if (text := unwrapper.feed(piece))]
    rest, whole = unwrapper.end()
    said += [rest] if rest else []
    assert "".join(said) == whole
    return said, whole


@thorough
@given(texts, st.booleans(), st.data())
def test_text_comes_out_as_it_went_in_wherever_it_is_cut(text, ascii, data):
    arguments = json.dumps({"input": text}, ensure_ascii=ascii)
    places = sorted(data.draw(st.lists(st.integers(0, len(arguments)), max_size=8)))
    pieces = [arguments[a:b] for a, b in zip([0, *places], [*places, len(arguments)], strict=True)]
    assert unwrap(*pieces)[1] == unwrap(*arguments)[1] == unwrap(wrap(text))[1] == text


def test_text_is_told_as_it_comes():
    said, _ = unwrap('{"input": "', "*** ", "Begin\\", "n", "\\ud83c", '\\udf0d"', "}")
    assert said == ["*** ", "Begin", "\n", "🌍"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        pytest.param("*** Begin Patch", "*** Begin Patch", id="no-json"),
        pytest.param('{"patch": "x"}', "x", id="another-name"),
        pytest.param('{"why": "y", "input": "x"}', "x", id="not-first"),
        pytest.param('"x"', "x", id="a-string"),
        pytest.param('{"a": 1, "b": 2}', '{"a": 1, "b": 2}', id="something-else"),
        pytest.param('{"input": 5}', '{"input": 5}', id="not-text"),
        pytest.param("{}", "{}", id="nothing"),
        pytest.param("", "", id="empty"),
        pytest.param('{"input": "a\nb\tc"}', "a\nb\tc", id="raw-line-ends"),
        pytest.param('{"input": "C:\\qx"}', "C:\\qx", id="unknown-escape"),
        pytest.param('{"input": "a\\ud83dz"}', "a?z", id="half-a-character"),
        pytest.param('{"input": "cut \\u00', "cut ", id="cut-in-an-escape"),
        pytest.param('{"in', '{"in', id="cut-in-the-name"),
        pytest.param("[" * 3000, "[" * 3000, id="deep"),
    ],
)
def test_what_a_model_writes_instead_is_kept(arguments, text):
    assert unwrap(arguments)[1] == text
    assert unwrap(*arguments)[1] == text
