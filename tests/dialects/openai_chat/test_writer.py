"""Events become chunks: every delta its own, under the name of its block."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.openai_chat.writer import DELTA, ChatWriter
from proxy.events import Block, BlockDelta, BlockOpened
from tests.properties import thorough


def delta(frame: bytes) -> dict[str, object]:
    assert frame.startswith(b"data: ")
    assert frame.endswith(b"\n\n")
    chunk = orjson.loads(frame[6:])
    assert set(chunk) == {"id", "object", "created", "model", "choices"}
    (choice,) = chunk["choices"]
    assert (choice["index"], choice["finish_reason"]) == (0, None)
    return choice["delta"]


def test_every_block_has_a_name_or_a_place_of_its_own():
    assert set(DELTA) == set(Block) - {Block.TOOL_CALL}


@thorough
@given(st.lists(st.tuples(st.sampled_from(list(DELTA)), st.text()), max_size=8))
def test_deltas_of_any_blocks_in_any_order(told):
    writer = ChatWriter("m")
    for block, text in told:
        assert delta(writer.write(BlockDelta(0, block, text))) == {DELTA[block].decode(): text}


@pytest.mark.parametrize("before", [None, *DELTA])
def test_arguments_after_any_block(before):
    writer = ChatWriter("m")
    if before is not None:
        writer.write(BlockDelta(0, before, "x"))
    opened = delta(writer.write(BlockOpened(1, Block.TOOL_CALL, "c", "f")))
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
    assert opened == {"tool_calls": [call]}
    said = delta(writer.write(BlockDelta(1, Block.TOOL_CALL, '{"a":')))
    assert said == {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]}
    assert writer.write(BlockDelta(1, Block.TOOL_CALL, "")) == b""
    if before is not None:
        assert delta(writer.write(BlockDelta(2, before, "y"))) == {DELTA[before].decode(): "y"}
