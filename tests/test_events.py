"""A whole answer is the fold of its events."""

from __future__ import annotations

from proxy.events import (
    Answer,
    Block,
    BlockClosed,
    BlockDelta,
    BlockOpened,
    BlockSigned,
    Cited,
    MessageEnded,
    MessageStarted,
    Stop,
    Usage,
)

SOURCE = {"url": "https://example.org", "title": "Example"}

EVENTS = [
    MessageStarted("id", "theirs"),
    BlockOpened(0, Block.THINKING),
    BlockDelta(0, Block.THINKING, "Hm"),
    BlockDelta(0, Block.THINKING, "."),
    BlockSigned(0, "seal"),
    BlockClosed(0),
    BlockOpened(1, Block.THINKING, redacted="opaque"),
    BlockClosed(1),
    BlockOpened(2, Block.TEXT),
    BlockDelta(2, Block.TEXT, "Hel"),
    BlockDelta(2, Block.TEXT, "lo"),
    Cited(2, SOURCE),
    BlockClosed(2),
    BlockOpened(3, Block.TOOL_CALL, "call_1", "f"),
    BlockDelta(3, Block.TOOL_CALL, '{"a":'),
    BlockDelta(3, Block.TOOL_CALL, "1}"),
    BlockClosed(3),
    BlockOpened(4, Block.TEXT),
    BlockDelta(4, Block.TEXT, " again"),
    BlockClosed(4),
    MessageEnded(Stop.STOP_SEQUENCE, Usage(9, 5), "###"),
]


def test_the_fold_of_all_events():
    answer = Answer()
    for event in EVENTS:
        answer.add(event)
    assert (answer.id, answer.model, answer.stop, answer.sequence) == ("id", "theirs", Stop.STOP_SEQUENCE, "###")
    assert answer.usage == Usage(9, 5)
    assert answer.text == "Hello again"
    assert [(b.block, b.id, b.name, b.text, b.signature, b.redacted) for b in answer.blocks] == [
        (Block.THINKING, "", "", "Hm.", "seal", ""),
        (Block.THINKING, "", "", "", "", "opaque"),
        (Block.TEXT, "", "", "Hello", "", ""),
        (Block.TOOL_CALL, "call_1", "f", '{"a":1}', "", ""),
        (Block.TEXT, "", "", " again", "", ""),
    ]
    assert answer.blocks[2].citations == [SOURCE]


def test_an_answer_without_an_end_has_no_reason():
    answer = Answer()
    for event in EVENTS[:-1]:
        answer.add(event)
    assert (answer.stop, answer.usage) == (None, None)
    assert Answer().text == ""


def test_no_usage_is_falsy_and_a_token_is_not():
    assert not Usage()
    assert not Usage(cached=5)
    assert Usage(1)
    assert Usage(output=1)
