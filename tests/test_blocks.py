"""Pieces that come mixed become blocks one after another, and nothing of them is lost."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.blocks import Blocks
from proxy.errors import UpstreamError
from proxy.events import Answer, Block, BlockClosed, BlockDelta, BlockOpened, BlockSigned, MessageEnded, Stop

from .dialects.openai_chat.test_reader import well_formed
from .properties import thorough

TEXT, THINKING, CALL = Block.TEXT, Block.THINKING, Block.TOOL_CALL


def fold(events: list) -> Answer:
    answer = Answer()
    for event in events:
        answer.add(event)
    return answer


def fragments(*pieces: tuple) -> list:
    """The events of calls' fragments: index, id, name, arguments; of words: a kind and its text."""
    blocks, events = Blocks(), []
    for piece in pieces:
        events += blocks.say(*piece) if isinstance(piece[0], Block) else blocks.call(*piece)
    events += blocks.end()
    well_formed([*events, MessageEnded(Stop.END)])
    return events


def told(events: list) -> list[tuple]:
    return [(b.id or b.block, b.text) for b in fold(events).blocks]


A, B = (0, "a", "f"), (1, "b", "g")


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        pytest.param([(*A, "{}"), (*B, "{}")], [("a", "{}"), ("b", "{}")], id="one-after-another"),
        pytest.param(
            [(*A, '{"x'), (*B, '{"y'), (0, "", "", '":1}'), (1, "", "", '":2}')],
            [("a", '{"x":1}'), ("b", '{"y":2}')],
            id="in-turns",
        ),
        pytest.param(
            [(*A, ""), (*B, ""), (0, "", "", "{}"), (1, "", "", "[]")], [("a", "{}"), ("b", "[]")], id="announced-first"
        ),
        pytest.param(
            [(*A, ""), (*B, ""), (1, "", "", "[]"), (0, "", "", "{}")], [("a", "{}"), ("b", "[]")], id="last-one-first"
        ),
        pytest.param(
            [(*A, '{"x'), (*B, '{"y'), (0, "a", "f", '":1}'), (1, "b", "g", '":2}')],
            [("a", '{"x":1}'), ("b", '{"y":2}')],
            id="each-with-its-id-and-name",
        ),
        pytest.param(
            [(None, "a", "f", '{"x'), (None, "b", "g", '{"y'), (None, "a", "", '":1}'), (None, "b", "", '":2}')],
            [("a", '{"x":1}'), ("b", '{"y":2}')],
            id="told-apart-by-ids-alone",
        ),
        pytest.param(
            [(0, "a", "f", '{"x'), (0, "b", "g", '{"y'), (0, "a", "", '":1}'), (0, "b", "", '":2}')],
            [("a", '{"x":1}'), ("b", '{"y":2}')],
            id="all-with-index-zero-and-their-ids",
        ),
        pytest.param(
            [(*A, '{"x'), (*B, '{"y'), (1, "", "", '":2'), (None, "", "", "}"), (0, "", "", '":1}')],
            [("a", '{"x":1}'), ("b", '{"y":2}')],
            id="without-any-mark-it-belongs-to-the-last",
        ),
        pytest.param([(*A, '{"x'), (*B, "{}")], [("a", '{"x'), ("b", "{}")], id="cut-by-the-limit"),
        pytest.param([(*A, ""), (*B, "")], [("a", ""), ("b", "")], id="without-arguments"),
        pytest.param([(*A, "1"), (*B, "null")], [("a", "1"), ("b", "null")], id="arguments-that-nothing-closes"),
        pytest.param(
            [(*A, '{"x'), (TEXT, "So"), (THINKING, "hm"), (TEXT, "."), (0, "", "", '":1}'), (TEXT, "!")],
            [("a", '{"x":1}'), (TEXT, "So"), (THINKING, "hm"), (TEXT, ".!")],
            id="words-between-fragments",
        ),
        pytest.param(
            [(*A, '{"x'), (*B, '{"y'), (TEXT, "So"), (0, "", "", '":1}'), (TEXT, "."), (1, "", "", '":2}')],
            [("a", '{"x":1}'), ("b", '{"y":2}'), (TEXT, "So.")],
            id="words-wait-for-every-call-before-them",
        ),
        pytest.param([(*A, "{}"), (TEXT, "So"), (0, "", "", " ")], [("a", "{}"), (TEXT, "So")], id="spaces-after-all"),
        pytest.param([(*A, "{}"), (0, "a", "f", "")], [("a", "{}")], id="an-end-with-id-and-name"),
    ],
)
def test_what_comes_mixed_is_told_in_order(pieces, expected):
    assert told(fragments(*pieces)) == expected


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        pytest.param([(0, "", "f", "{}"), (0, "", "g", "{}")], ["{}", "{}"], id="by-their-names"),
        pytest.param([(0, "", "f", "{}"), (0, "", "f", "{}")], ["{}", "{}"], id="or-because-the-first-was-complete"),
        pytest.param([(None, "", "f", "{}"), (None, "", "f", "{}")], ["{}", "{}"], id="without-index"),
        pytest.param([(None, "", "f", '{"x'), (None, "", "", '":1}')], ['{"x":1}'], id="and-one-in-pieces-is-one"),
        pytest.param([(0, "", "f", '{"x'), (0, "", "f", '":1}')], ['{"x":1}'], id="with-its-name-on-each-too"),
    ],
)
def test_calls_without_ids_are_told_apart(pieces, expected):
    events = fragments(*pieces)
    assert [text for _, text in told(events)] == expected
    assert len({block.id for block in fold(events).blocks}) == len(expected)


def test_where_calls_follow_one_another_nothing_waits():
    blocks = Blocks()
    pieces = [
        (0, "a", "f", ""),
        (0, "", "", '{"x": '),
        (0, "", "", '"}\\""}'),
        (1, "b", "g", '{"y'),
        (1, "", "", '":[{}]}'),
        (2, "c", "h", "{"),
    ]
    assert [list(blocks.call(*piece)) for piece in pieces] == [
        [BlockOpened(0, CALL, "a", "f")],
        [BlockDelta(0, CALL, '{"x": ')],
        [BlockDelta(0, CALL, '"}\\""}')],
        [BlockClosed(0), BlockOpened(1, CALL, "b", "g"), BlockDelta(1, CALL, '{"y')],
        [BlockDelta(1, CALL, '":[{}]}')],
        [BlockClosed(1), BlockOpened(2, CALL, "c", "h"), BlockDelta(2, CALL, "{")],
    ]
    assert list(blocks.end()) == [BlockClosed(2)]


def test_the_first_call_streams_and_the_next_goes_on_where_it_has_come_to():
    blocks = Blocks()
    assert len(list(blocks.call(0, "a", "f", '{"x'))) == 2
    assert list(blocks.call(1, "b", "g", '{"y')) == []
    assert list(blocks.call(0, "", "", '":')) == [BlockDelta(0, CALL, '":')]
    assert list(blocks.call(0, "", "", "1}")) == [
        BlockDelta(0, CALL, "1}"),
        BlockClosed(0),
        BlockOpened(1, CALL, "b", "g"),
        BlockDelta(1, CALL, '{"y'),
    ]
    assert list(blocks.call(1, "", "", '":')) == [BlockDelta(1, CALL, '":')]


@pytest.mark.parametrize(
    "arguments",
    ['{"a": "}"}', '{"a": "\\"}"}', '{"a\\\\": [{"b": {}}, "]}"]}', '["\\\\\\"", {}]', ' {"a": "\\u007d"} '],
)
def test_arguments_are_complete_when_their_bracket_closes(arguments):
    end = max(arguments.rfind("}"), arguments.rfind("]")) + 1
    for place in range(len(arguments) + 1):
        blocks = Blocks()
        for letter in ("", *arguments[:place]):
            list(blocks.call(0, "a", "f", letter))
        waits = not list(blocks.say(TEXT, "x"))
        assert waits is (place < end)
        assert bool(list(blocks.call(0, "", "", arguments[place:]))) is waits


# Seals...


def test_a_seal_closes_the_thoughts_that_it_is_on():
    blocks = Blocks()
    events = [*blocks.say(THINKING, "hm"), *blocks.seal("S1"), *blocks.say(THINKING, "so"), *blocks.end()]
    assert [(b.text, b.signature) for b in fold(events).blocks] == [("hm", "S1"), ("so", "")]
    well_formed([e for e in (*events, MessageEnded(Stop.END)) if not isinstance(e, BlockSigned)])


def test_thoughts_that_are_not_shown_and_seals_without_thoughts_have_blocks_of_their_own():
    blocks = Blocks()
    events = [*blocks.hide("X"), *blocks.seal("S"), *blocks.call(0, "a", "f", "{}", "C"), *blocks.end()]
    assert [(b.block, b.redacted, b.signature) for b in fold(events).blocks] == [
        (THINKING, "X", ""),
        (THINKING, "", "S"),
        (CALL, "", "C"),
    ]


def test_seals_wait_too():
    blocks = Blocks()
    events = [
        *blocks.call(0, "a", "f", "{"),
        *blocks.say(THINKING, "hm"),
        *blocks.seal("S"),
        *blocks.say(THINKING, "so"),
        *blocks.hide("X"),
        *blocks.call(1, "b", "g", "{}", "C"),
        *blocks.call(0, "", "", "}"),
        *blocks.end(),
    ]
    assert [(b.id, b.text, b.redacted, b.signature) for b in fold(events).blocks] == [
        ("a", "{}", "", ""),
        ("", "hm", "", "S"),
        ("", "so", "", ""),
        ("", "", "X", ""),
        ("b", "{}", "", "C"),
    ]


# Bounds...


@pytest.mark.parametrize(
    "add",
    [
        pytest.param(lambda blocks: blocks.call(1, "b", "g", "x" * 100), id="arguments"),
        pytest.param(lambda blocks: blocks.call(1, "b", "g", ""), id="empty-fragments"),
        pytest.param(lambda blocks: blocks.say(TEXT, "x"), id="words"),
        pytest.param(lambda blocks: blocks.hide("x" * 100), id="hidden-thoughts"),
        pytest.param(lambda blocks: blocks.seal("x" * 100), id="seals"),
    ],
)
def test_what_waits_is_bounded(add):
    blocks = Blocks(most=10_000)
    list(blocks.call(0, "a", "f", "{"))
    with pytest.raises(UpstreamError, match="more than 10000 characters"):
        [list(add(blocks)) for _ in range(200)]


def test_what_has_gone_does_not_count():
    blocks = Blocks(most=1000)
    for number in range(100):
        list(blocks.call(number * 2, f"a{number}", "f", "{"))
        list(blocks.call(number * 2 + 1, f"b{number}", "f", '{"x":"' + "y" * 300 + '"}'))
        list(blocks.call(number * 2, "", "", "}"))
        list(blocks.say(TEXT, "z" * 300))
        list(blocks.seal("s" * 300))


# Whatever order...

arguments = st.dictionaries(st.text(max_size=5), st.text('{}[]"\\x ', max_size=8), min_size=1, max_size=3)


@st.composite
def mixed(draw) -> tuple[list[str], list[tuple]]:
    """Some calls' arguments, and fragments of them mixed with words, each call's own in order."""
    calls = [json.dumps(each, ensure_ascii=draw(st.booleans())) for each in draw(st.lists(arguments, max_size=4))]
    ways = []
    for index, text in enumerate(calls):
        places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
        cuts = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
        ways.append([(index, f"id{index}" if not n else "", "f" if not n else "", cut) for n, cut in enumerate(cuts)])
    ways.append([(draw(st.sampled_from([TEXT, THINKING])), f"<{n}>") for n in range(draw(st.integers(0, 4)))])
    order = draw(st.permutations([number for number, way in enumerate(ways) for _ in way]))
    return calls, [ways[number].pop(0) for number in order]


@thorough
@given(mixed())
def test_nothing_is_lost_in_whatever_order_it_comes(case):
    calls, pieces = case
    answer = fold(fragments(*pieces))
    assert {b.id: b.text for b in answer.blocks if b.block is CALL} == {f"id{n}": c for n, c in enumerate(calls)}
    said = [piece for piece in pieces if isinstance(piece[0], Block)]
    for kind in (TEXT, THINKING):
        assert "".join(b.text for b in answer.blocks if b.block is kind) == "".join(t for k, t in said if k is kind)
    began = list(dict.fromkeys(f"id{piece[0]}" for piece in pieces if not isinstance(piece[0], Block)))
    assert [b.id for b in answer.blocks if b.block is CALL] == began
