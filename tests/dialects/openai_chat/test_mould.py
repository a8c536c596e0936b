"""Chunks cast in one mould are read by their text alone; whatever else changes is seen."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.dialects.openai_chat.mould import More, Mould, more
from proxy.events import Block
from tests.dialects.openai_chat import chunk, dumps, say


def learned(first: bytes) -> Mould:
    """A mould of one chunk."""
    mould, said = Mould(), more(orjson.loads(first))
    assert said is not None
    mould.learn(first, said)
    return mould


def call(text: str, index: int = 0, **more: Any) -> dict[str, Any]:
    return chunk({"tool_calls": [{"index": index, "function": {"arguments": text}, **more}]})


def think(text: str, field: str = "reasoning_content") -> dict[str, Any]:
    return chunk({"content": None, field: text})


ESCAPED = dumps(say("e")).replace(b'"e"', b'"\\u00e9"')


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        pytest.param(dumps(say("Hel")), dumps(say("lo")), (Block.TEXT, -1, "lo"), id="text"),
        pytest.param(dumps(say("Hel")), dumps(say('"\n\\')), (Block.TEXT, -1, '"\n\\'), id="escapes"),
        pytest.param(dumps(say("Hel")), dumps(say("é\u2028🌍")), (Block.TEXT, -1, "é\u2028🌍"), id="unicode"),
        pytest.param(dumps(say("é")), dumps(say("x")), (Block.TEXT, -1, "x"), id="learned-from-unicode"),
        pytest.param(ESCAPED, dumps(say("x")), (Block.TEXT, -1, "x"), id="learned-from-escapes"),
        pytest.param(dumps(think("Hm")), dumps(think(".")), (Block.THINKING, -1, "."), id="thoughts"),
        pytest.param(dumps(think("a", "reasoning")), dumps(think("b", "reasoning")), (Block.THINKING, -1, "b"), id="b"),
        pytest.param(dumps(call('{"a":', 3)), dumps(call("1}", 3)), (Block.TOOL_CALL, 3, "1}"), id="arguments"),
        pytest.param(
            orjson.dumps(say("a"), option=orjson.OPT_INDENT_2),
            orjson.dumps(say("b"), option=orjson.OPT_INDENT_2),
            (Block.TEXT, -1, "b"),
            id="spaces",
        ),
    ],
)  # fmt: skip
def test_what_fits_is_read_as_it_would_be_without(first, second, said):
    assert learned(first).fit(second) == more(orjson.loads(second)) == More(*said)


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(say(""), id="no-text"),
        pytest.param(say("x", id="chatcmpl-2"), id="another-answer"),
        pytest.param(chunk({"content": "x"}, finish="stop"), id="finish-reason"),
        pytest.param(chunk({"content": 5}), id="a-number"),
        pytest.param(chunk({"content": ["x"]}), id="parts"),
        pytest.param(chunk({"content": "x", "refusal": "no"}), id="another-field"),
        pytest.param(say("x", usage={"prompt_tokens": 1}), id="usage"),
        pytest.param(say("x", error={"message": "no"}), id="error"),
        pytest.param(think("x"), id="thoughts"),
        pytest.param({}, id="nothing"),
    ],
)
def test_what_differs_in_more_does_not_fit(second):
    assert learned(dumps(say("Hel"))).fit(dumps(second)) is None


@pytest.mark.parametrize(
    "spoilt", [b'"x', b'x"', b"", b'"x""y"', b'"\xff"', b'"\n"', b'"\\x"', b'"\\ud800"', b'{"a":"x"}']
)
def test_broken_text_does_not_fit(spoilt):
    assert learned(dumps(say("Hel"))).fit(dumps(say("HERE")).replace(b'"HERE"', spoilt)) is None


def test_head_and_tail_may_not_overlap():
    first = dumps(say("x"))
    head, _, tail = first.partition(b'"x"')
    assert learned(first).fit(head[: -len(tail)] + tail) is None
    assert learned(first).fit(tail) is None


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(say("gpt-x"), id="another-field-says-the-same"),
        pytest.param(say("x", model='say "x'), id="another-string-ends-with-it"),
        pytest.param(say("content"), id="it-is-the-name-of-its-field"),
        pytest.param(say("choices"), id="it-is-the-name-of-another-field"),
    ],
)
def test_what_only_looks_like_the_text_is_not_taken_for_it(first):
    mould = learned(dumps(first))
    for second in (say("gpt-x", model="y"), say("x", model='say "y'), think("content", "reasoning"), say("y"), first):
        assert mould.fit(dumps(second)) is None


def test_a_mould_is_learned_as_soon_as_it_can_be():
    mould = learned(dumps(say("gpt-x")))
    mould.learn(dumps(say("Hel")), More(Block.TEXT, -1, "Hel"))
    assert mould.fit(dumps(say("lo"))) == More(Block.TEXT, -1, "lo")


def test_chunks_that_never_fit_are_left_alone():
    mould = Mould()
    chunks = [say("x", obfuscation="y" * n) for n in range(9)]
    for each in chunks:
        assert mould.fit(dumps(each)) is None
        mould.learn(dumps(each), More(Block.TEXT, -1, "x"))
    assert mould.fit(dumps(chunks[-1])) is None  # not learned any more
    assert mould.fit(dumps(chunks[2])) == More(Block.TEXT, -1, "x")
    mould.learn(dumps(chunks[-1]), More(Block.TEXT, -1, "x"))  # patience is back with a chunk that fits
    assert mould.fit(dumps(chunks[-1])) == More(Block.TEXT, -1, "x")


def test_nothing_large_is_kept():
    first = dumps(say("x", padding="y" * 5000))
    assert learned(first).fit(first) is None
