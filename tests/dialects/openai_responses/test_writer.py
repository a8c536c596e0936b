"""Events → a response's stream."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.openai_responses.words import REASON
from proxy.dialects.openai_responses.writer import Writer, whole
from proxy.errors import TimedOut, UpstreamError, UpstreamRefused
from proxy.events import (
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
from tests.dialects.openai_responses import asked, block, fold, frames, kinds, write
from tests.dialects.openai_responses.grammar import check
from tests.properties import thorough

START = MessageStarted("chatcmpl-1", "upstream-model")
END = MessageEnded(Stop.END, Usage(100, 20, cached=60, cache_written=10, reasoning=5))


def final(stream: bytes):
    return frames(stream)[-1]["response"]


@pytest.mark.parametrize(
    ("events", "told"),
    [
        pytest.param(
            block(0, Block.TEXT, "Hé", "llo"),
            [
                "output_item.added",
                "content_part.added",
                "output_text.delta",
                "output_text.delta",
                "output_text.done",
                "content_part.done",
                "output_item.done",
            ],
            id="text",
        ),
        pytest.param(
            block(0, Block.REFUSAL, "No."),
            [
                "output_item.added",
                "content_part.added",
                "refusal.delta",
                "refusal.done",
                "content_part.done",
                "output_item.done",
            ],
            id="refusal",
        ),
        pytest.param(
            block(0, Block.THINKING, "H", "m"),
            [
                "output_item.added",
                "reasoning_summary_part.added",
                "reasoning_summary_text.delta",
                "reasoning_summary_text.delta",
                "reasoning_summary_text.done",
                "reasoning_summary_part.done",
                "output_item.done",
            ],
            id="thinking",
        ),
        pytest.param(
            block(0, Block.THINKING, redacted="xyz"),
            ["output_item.added", "output_item.done"],
            id="a-thought-that-is-not-shown",
        ),
        pytest.param(
            block(0, Block.TOOL_CALL, '{"a":', "1}", id="call_1", name="f"),
            [
                "output_item.added",
                "function_call_arguments.delta",
                "function_call_arguments.delta",
                "function_call_arguments.done",
                "output_item.done",
            ],
            id="tool-call",
        ),
        pytest.param(
            block(0, Block.TOOL_CALL, id="call_1", name="f"),
            [
                "output_item.added",
                "function_call_arguments.delta",
                "function_call_arguments.done",
                "output_item.done",
            ],
            id="no-arguments-are-an-empty-object",
        ),
        pytest.param(block(0, Block.TEXT, ""), [], id="an-empty-text-is-no-item"),
        pytest.param([], [], id="an-empty-answer"),
    ],
)
def test_a_block_is_told_in_the_order_of_the_dialect(events, told):
    stream = write([START, *events, END])
    check(stream)
    assert kinds(stream) == ["created", "in_progress", *told, "completed"]


def test_texts_in_a_row_are_parts_of_one_message():
    stream = write(
        [START, *block(0, Block.TEXT, "One."), *block(1, Block.TEXT, "Two."), *block(2, Block.REFUSAL, "No."), END]
    )
    check(stream)
    (message,) = final(stream)["output"]
    assert [part.get("text", part.get("refusal")) for part in message["content"]] == ["One.", "Two.", "No."]


def test_items_come_one_after_another_and_all_of_them_again_at_the_end():
    events = [
        *block(0, Block.THINKING, "Hm."),
        *block(1, Block.TEXT, "I look."),
        *block(2, Block.TOOL_CALL, '{"a":1}', id="call_1", name="f"),
        *block(3, Block.TOOL_CALL, '{"b":2}', id="call_2", name="g"),
    ]
    stream = write([START, *events, MessageEnded(Stop.TOOL_CALLS, Usage(1, 2))])
    check(stream)
    thought, message, first, second = final(stream)["output"]
    assert thought["summary"] == [{"type": "summary_text", "text": "Hm."}]
    assert message["content"][0]["text"] == "I look."
    assert (first["call_id"], first["name"], first["arguments"]) == ("call_1", "f", '{"a":1}')
    assert (second["call_id"], second["name"], second["arguments"]) == ("call_2", "g", '{"b":2}')
    assert [item["id"].partition("_")[0] for item in final(stream)["output"]] == ["rs", "msg", "fc", "fc"]
    assert {item.get("status") for item in final(stream)["output"]} == {None, "completed"}


def test_a_call_without_an_id_gets_one_that_stays():
    stream = write([START, *block(0, Block.TOOL_CALL, "{}", name="f"), END])
    check(stream)
    ids = {frame["item"]["call_id"] for frame in frames(stream) if "item" in frame}
    assert len(ids) == 1
    assert ids.pop().startswith("call_")


@pytest.mark.parametrize("stop", list(Stop))
def test_every_stop_is_a_status(stop):
    stream = write([START, *block(0, Block.TEXT, "x"), MessageEnded(stop, Usage(1, 2))])
    check(stream)
    response = final(stream)
    assert response["incomplete_details"] == ({"reason": REASON[stop]} if REASON[stop] else None)
    assert response["status"] == ("incomplete" if REASON[stop] else "completed")
    assert response["output"][0]["status"] == response["status"]
    assert (response["completed_at"] is None) == (response["status"] == "incomplete")


def test_a_call_that_was_cut_is_incomplete_and_its_arguments_stay_broken():
    stream = write(
        [
            START,
            *block(0, Block.TEXT, "x"),
            *block(1, Block.TOOL_CALL, '{"a": "b', id="c", name="f"),
            MessageEnded(Stop.LENGTH),
        ]
    )
    check(stream)
    text, call = final(stream)["output"]
    assert (text["status"], call["status"], call["arguments"]) == ("completed", "incomplete", '{"a": "b')


def test_usage_is_told_in_this_dialects_words():
    assert final(write([START, END]))["usage"] == {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 5},
        "total_tokens": 120,
    }


def test_where_nobody_tells_usage_the_input_is_estimated():
    usage = final(write([START, MessageEnded(Stop.END)], estimate=7))["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (7, 0, 7)


def test_sources_become_annotations():
    native = {"type": "file_citation", "file_id": "file_1", "filename": "a.pdf", "index": 3}
    events = [
        BlockOpened(0, Block.TEXT),
        Cited(0, {"url": "https://a.org", "title": "A", "text": "So."}),
        BlockDelta(0, Block.TEXT, "12345"),
        Cited(0, {"url": "https://b.org", "type": "web_search_result_location"}),
        Cited(0, native),
        Cited(0, {"type": "char_location", "document_index": 0}),
        BlockClosed(0),
    ]
    stream = write([START, *events, END])
    check(stream)
    assert final(stream)["output"][0]["content"][0]["annotations"] == [
        {"type": "url_citation", "url": "https://a.org", "title": "A", "start_index": 0, "end_index": 0},
        {"type": "url_citation", "url": "https://b.org", "title": "", "start_index": 5, "end_index": 5},
        native,
    ]


def test_the_request_is_echoed():
    sent = {
        "instructions": "Be brief.",
        "max_output_tokens": 50,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "prompt_cache_key": "k",
        "reasoning": {"effort": "low"},
        "safety_identifier": "s",
        "temperature": 0.5,
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"maximum": 2**70}, "strict": True}},
        "tool_choice": "required",
        "tools": [{"type": "function", "name": "f", "parameters": {}, "strict": True}, {"type": "web_search"}],
        "top_p": 0.9,
        "truncation": "auto",
        "user": "u",
    }
    stream = write([START, END], asked(**sent, store=True, service_tier="flex", background=False))
    check(stream)
    for response in (frames(stream)[0]["response"], final(stream)):
        assert {name: response[name] for name in sent} == sent | {"reasoning": {"effort": "low", "summary": None}}
        assert (response["store"], response["background"], response["service_tier"]) == (False, False, "default")
        assert response["model"] == "told-model"


def test_without_a_request_the_usual_is_said():
    response = final(write([START, END]))
    assert (response["text"], response["tool_choice"], response["tools"]) == ({"format": {"type": "text"}}, "auto", [])
    assert response["parallel_tool_calls"] is True


def test_a_custom_tools_input_is_text_again():
    request = asked(tools=[{"type": "custom", "name": "apply_patch"}])
    pieces = ['{"in', 'put": "*** Begin\\', "nPatch", ' \\u00e9"', "}"]
    stream = write([START, *block(0, Block.TOOL_CALL, *pieces, id="call_1", name="apply_patch"), END], request)
    check(stream)
    deltas = [f["delta"] for f in frames(stream) if f["type"] == "response.custom_tool_call_input.delta"]
    assert deltas == ["*** Begin", "\nPatch", " é"]
    (item,) = final(stream)["output"]
    assert item.pop("id").startswith("ctc_")
    assert item == {
        "type": "custom_tool_call",
        "status": "completed",
        "call_id": "call_1",
        "name": "apply_patch",
        "input": "*** Begin\nPatch é",
    }


def test_a_namespace_is_told_again():
    tools = [{"type": "namespace", "name": "mcp__docs", "tools": [{"type": "function", "name": "search"}]}]
    stream = write([START, *block(0, Block.TOOL_CALL, "{}", id="c", name="mcp__docs__search"), END], asked(tools=tools))
    check(stream)
    (item,) = final(stream)["output"]
    assert (item["namespace"], item["name"]) == ("mcp__docs", "search")


def test_an_event_before_the_start_begins_the_response():
    stream = write([*block(0, Block.TEXT, "x"), END])
    check(stream)


# Faults...


@pytest.mark.parametrize(
    "before",
    [
        pytest.param([], id="nothing"),
        pytest.param([START], id="start"),
        pytest.param([START, BlockOpened(0, Block.TEXT), BlockDelta(0, Block.TEXT, "x")], id="half-a-text"),
        pytest.param(
            [START, *block(0, Block.THINKING, "x"), BlockOpened(1, Block.TOOL_CALL, "c", "f")], id="half-a-call"
        ),
    ],
)
def test_a_fault_ends_the_stream_wherever_it_happens(before):
    writer = Writer("m")
    stream = b"".join(map(writer.write, before)) + writer.fail(TimedOut("idle", 120, "nothing came"))
    check(stream)
    error, failed = frames(stream)[-2:]
    assert (error["code"], error["message"]) == ("server_error", "nothing came for 120 s (timeouts.idle)")
    assert failed["response"]["usage"] is None


def test_what_was_done_before_a_fault_is_told_with_it():
    writer = Writer("m")
    b"".join(map(writer.write, [START, *block(0, Block.TOOL_CALL, "{}", id="c", name="f"), *block(1, Block.TEXT, "x")]))
    _, failed = frames(writer.fail(UpstreamError("torn")))
    assert [item["type"] for item in failed["response"]["output"]] == ["function_call"]


def test_a_providers_own_code_is_kept_for_clients_that_act_on_it():
    refused = UpstreamRefused("too long", status=400, code="context_length_exceeded", type="invalid_request_error")
    error, failed = frames(Writer("m").fail(refused))
    assert error["error"]["type"] == "invalid_request_error"
    assert failed["response"]["error"] == {"code": "context_length_exceeded", "message": "too long"}


# The whole...


EVERYTHING = [
    START,
    *block(0, Block.THINKING, "H", "m.")[:-1],
    BlockSigned(0, "sig"),
    BlockClosed(0),
    *block(1, Block.THINKING, redacted="xyz"),
    *block(2, Block.TEXT, "Hé", 'llo "\n\u2028')[:-1],
    Cited(2, {"url": "https://e.org", "title": "E", "text": "So."}),
    BlockClosed(2),
    *block(3, Block.TOOL_CALL, '{"a":', ' "b"}', id="call_1", name="look")[:-1],
    BlockSigned(3, "gemini"),
    BlockClosed(3),
    *block(4, Block.TOOL_CALL, id="call_2", name="go"),
    MessageEnded(Stop.TOOL_CALLS, Usage(100, 20, cached=60)),
]


def anonymous(response):
    """Without what differs between any two responses."""
    text = json.dumps({name: value for name, value in response.items() if name not in ("created_at", "completed_at")})
    return text.replace(response["id"].removeprefix("resp_"), "")


def test_a_whole_answer_is_what_the_stream_ends_with():
    request = asked(temperature=0.5)
    stream = write(EVERYTHING, request)
    check(stream)
    response = json.loads(whole(fold(EVERYTHING), "told-model", request))
    assert anonymous(response) == anonymous(final(stream))


def test_keepalives_are_comments():
    assert (Writer.keepalive("comment"), Writer.keepalive("chunk"), Writer.keepalive("off")) == (
        b": keep-alive\n\n",
        b": keep-alive\n\n",
        b"",
    )


_texts = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=4)
_blocks = st.lists(st.tuples(st.sampled_from(Block), _texts, st.booleans(), st.sampled_from(["f", "patch", "ns__g"])))


@thorough
@given(_blocks, st.sampled_from(Stop), st.booleans())
def test_any_events_are_a_well_formed_stream(blocks, stop, fails):
    tools = [
        {"type": "custom", "name": "patch"},
        {"type": "namespace", "name": "ns", "tools": [{"type": "function", "name": "g"}]},
    ]
    writer, stream = Writer("m", asked(tools=tools)), []
    events = [START]
    for index, (kind, texts, sealed, name) in enumerate(blocks):
        one = block(index, kind, *texts, id=f"call_{index}", name=name)
        events += [*one[:-1], *([BlockSigned(index, "s")] if sealed else []), one[-1]]
    if not fails:
        events.append(MessageEnded(stop))
    stream = b"".join(map(writer.write, events))
    check(stream + writer.fail(UpstreamError("torn")) if fails else stream)
    if not fails:
        said = "".join(text for kind, texts, _, _ in blocks if kind is Block.TEXT for text in texts)
        messages = [item for item in final(stream)["output"] if item["type"] == "message"]
        assert "".join(p.get("text", "") for item in messages for p in item["content"]) == said
