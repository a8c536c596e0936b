"""The quirks of providers' streams that concern this dialect, by their numbers in the list of them."""

from __future__ import annotations

import json

import pytest

from proxy.dialects.anthropic_messages.asking import write as ask
from proxy.dialects.anthropic_messages.errors import frame
from proxy.dialects.anthropic_messages.request import read as read_request
from proxy.dialects.anthropic_messages.writer import whole
from proxy.errors import GatewayError, UpstreamError
from proxy.events import Block, BlockClosed, BlockDelta, BlockOpened, MessageEnded, MessageStarted, Stop, Usage
from proxy.requests import Request, Role, Text, Turn
from tests.dialects.anthropic_messages import (
    END,
    closed,
    delta,
    dumps,
    fold,
    opened,
    read,
    said,
    sse,
    start,
    stopped,
    write,
)
from tests.dialects.anthropic_messages.grammar import check

TOOL = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}


def test_3_errors_after_the_200_are_recognised_and_told_again():
    with pytest.raises(GatewayError) as caught:
        read(
            sse(start()) + b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"O"}}\n\n'
        )
    check(frame(caught.value))


def test_5_there_is_no_done():
    wire = write([MessageStarted(), MessageEnded(Stop.END)])
    assert b"[DONE]" not in wire
    assert wire.endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')


def test_6_an_end_without_a_stop_reason_is_no_end():
    assert not any(isinstance(event, MessageEnded) for event in read(sse(start(), opened(0), said(0, "a"), closed(0))))


def test_15_signatures_make_the_round_trip():
    answer = read(
        sse(
            start(),
            opened(0, type="thinking", thinking="", signature=""),
            delta(0, "thinking", thinking="Hm."),
            delta(0, "signature", signature="s/+="),
            closed(0),
            opened(1, **TOOL),
            closed(1),
            stopped("tool_use"),
            END,
        )
    )
    message = json.loads(whole(fold(answer), "m"))
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "ok"}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": message["content"]},
        {"role": "user", "content": [result]},
    ]
    sent = json.loads(ask(read_request(dumps({"messages": messages})), model="m"))
    assert sent["messages"][1]["content"][0] == {"type": "thinking", "thinking": "Hm.", "signature": "s/+="}


def test_17_what_the_sdk_and_claude_code_need():
    check(write([MessageStarted(), BlockOpened(0, Block.TEXT), BlockClosed(0), MessageEnded(Stop.END, None)]))


def test_19_no_space_after_the_colon():
    wire = sse(start(), opened(0), said(0, "a"), closed(0), stopped(), END)
    assert read(wire.replace(b": {", b":{").replace(b"event: ", b"event:")) == read(wire)


def test_24_arguments_of_a_tool_without_any_are_an_object():
    events = read(sse(start(), opened(0, **TOOL), delta(0, "input_json", partial_json=""), closed(0), stopped(), END))
    assert fold(events).blocks[0].text == "{}"


def test_25_a_cut_tool_call_is_passed_on_as_it_is():
    wire = [
        start(),
        opened(0, **TOOL),
        delta(0, "input_json", partial_json='{"a'),
        closed(0),
        stopped("max_tokens"),
        END,
    ]
    answer = fold(read(sse(*wire)))
    assert (answer.blocks[0].text, answer.stop) == ('{"a', Stop.LENGTH)
    assert json.loads(whole(answer, "m"))["content"][0]["input"] == {}
    check(write(read(sse(*wire))))


def test_29_calls_that_came_at_once_are_told_one_after_another():
    events = [MessageStarted()]
    for i in range(3):
        events += [
            BlockOpened(i, Block.TOOL_CALL, f"call_{i}", "look"),
            BlockDelta(i, Block.TOOL_CALL, "{}"),
            BlockClosed(i),
        ]
    check(write([*events, MessageEnded(Stop.TOOL_CALLS)]))


def test_33_the_input_includes_what_came_from_the_cache():
    usage = {"input_tokens": 1, "cache_read_input_tokens": 10, "cache_creation_input_tokens": 100, "output_tokens": 1}
    answer = fold(read(sse(start(usage=usage), stopped(), END)))
    assert answer.usage == Usage(111, 5, cached=10, cache_written=100)
    again = json.loads(whole(answer, "m"))["usage"]
    assert again == usage | {"output_tokens": 5}


def test_34_line_separators_of_unicode_end_no_line():
    text = "a\u2028b\u2029c\u0085d"
    assert fold(read(sse(start(), opened(0), said(0, text), closed(0), stopped(), END))).text == text
    written = write([MessageStarted(), BlockOpened(0, Block.TEXT), BlockDelta(0, Block.TEXT, text), BlockClosed(0)])
    assert fold(read(written)).text == text


def test_35_padding_is_ignored():
    wire = sse(start(), opened(0), said(0, "a"), closed(0), stopped(), END)
    assert read(wire.replace(b"}\n\n", b"        }   \n\n")) == read(wire)


def test_37_the_client_is_told_one_name():
    wire = write([MessageStarted("x", "deepseek-v4-flash"), MessageEnded(Stop.END)])
    assert b"deepseek" not in wire
    assert b'"model":"claude-x"' in wire


def test_38_max_tokens_is_never_missing():
    assert json.loads(ask(Request("m", (Turn(Role.USER, (Text("Hi"),)),)), model="m"))["max_tokens"] == 4096


def test_a_frame_that_is_not_json_is_the_provider_s_fault():
    with pytest.raises(UpstreamError, match="not JSON"):
        read(b"event: content_block_delta\ndata: <html>\n\n")
