"""A response's stream → events, quirk by quirk."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.openai_responses.reader import Reader, read_whole
from proxy.dialects.openai_responses.seals import sign
from proxy.errors import GatewayError, UpstreamError, UpstreamRefused
from proxy.events import Block, Cited, MessageEnded, MessageStarted, Stop, Usage
from proxy.sse import Frame
from tests import properties
from tests.dialects.openai_responses import (
    added,
    block,
    call,
    created,
    delta,
    done,
    dumps,
    ended,
    ev,
    fold,
    message,
    nothing,
    read,
    sse,
)
from tests.properties import thorough

START = MessageStarted("resp_1", "gpt-x")


def thought(*texts: str, **fields):
    summary = [{"type": "summary_text", "text": text} for text in texts]
    return {"type": "reasoning", "id": "rs_1", "summary": summary, **fields}


def end(stop: Stop = Stop.END):
    return MessageEnded(stop, Usage(10, 5))


@pytest.mark.parametrize(
    ("wire", "events"),
    [
        pytest.param(
            [added(0, type="message"), delta("Hé"), delta("llo"), done(0, **message("Héllo"))],
            block(0, "text", "Hé", "llo"),
            id="text",
        ),
        pytest.param(
            [delta("a", part=0), delta("b", part=1), done(0, **message("a", "b"))],
            [*block(0, "text", "a"), *block(1, "text", "b")],
            id="parts-are-blocks",
        ),
        pytest.param([delta("No.", kind="refusal")], block(0, "refusal", "No."), id="refusal"),
        pytest.param(
            [
                added(0, **call("c1", "f", status="in_progress")),
                delta('{"a":', kind="function_call_arguments"),
                delta("1}", kind="function_call_arguments"),
                ev("function_call_arguments.done", output_index=0, arguments='{"a":1}'),
                done(0, **call("c1", "f", '{"a":1}')),
                added(1, **call("c2", "g")),
                done(1, **call("c2", "g")),
            ],
            [
                *block(0, "tool_call", '{"a":', "1}", id="c1", name="f"),
                *block(1, "tool_call", id="c2", name="g"),
            ],
            id="calls",
        ),
        pytest.param(
            [added(0, **thought()), done(0, **thought(encrypted_content="gAAA"))],
            block(0, "thinking", signature=sign("gAAA")),
            id="a-thought-that-is-only-sealed",
        ),
        pytest.param([added(0, **thought()), done(0, **thought())], [], id="an-empty-thought-is-none"),
        pytest.param(
            [
                ev("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="a"),
                ev("reasoning_summary_text.delta", output_index=0, summary_index=1, delta="b"),
                ev("reasoning_summary_text.delta", output_index=0, summary_index=1, delta="c"),
                done(0, **thought("a", "bc", encrypted_content="gAAA")),
            ],
            block(0, "thinking", "a", "\n\nb", "c", signature=sign("gAAA")),
            id="summary-parts-are-paragraphs",
        ),
        pytest.param(
            [
                ev("reasoning_text.delta", output_index=0, content_index=0, delta="raw"),
                ev("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="short"),
                done(0, **thought("short")),
            ],
            block(0, "thinking", "raw"),
            id="of-two-homes-for-thoughts-one-is-read",
        ),
    ],
)
def test_items_become_blocks(wire, events):
    stop = Stop.TOOL_CALLS if any(getattr(e, "block", None) is Block.TOOL_CALL for e in events) else Stop.END
    assert read(sse(created(), *wire, ended())) == [START, *events, end(stop)]


@pytest.mark.parametrize(
    ("wire", "events"),
    [
        pytest.param([done(0, **message("a", "b"))], [*block(0, "text", "a"), *block(1, "text", "b")], id="message"),
        pytest.param([done(0, **thought("a", "b"))], block(0, "thinking", "a\n\nb"), id="thought"),
        pytest.param(
            [done(0, type="reasoning", summary=[], content=[{"type": "reasoning_text", "text": "raw"}])],
            block(0, "thinking", "raw"),
            id="raw-thought",
        ),
        pytest.param([done(0, **call("c", "f", "{}"))], block(0, "tool_call", "{}", id="c", name="f"), id="call"),
        pytest.param(
            [added(0, **call("c", "f")), ev("function_call_arguments.done", output_index=0, arguments="{}")],
            block(0, "tool_call", "{}", id="c", name="f"),
            id="arguments-without-deltas",
        ),
        pytest.param(
            [delta("{", kind="function_call_arguments"), done(0, **call("c", "f", "{}"))],
            block(0, "tool_call", "{}", id="c", name="f"),
            id="deltas-of-a-call-that-nobody-began",
        ),
        pytest.param(
            [done(0, type="custom_tool_call", call_id="c", name="p", input="x")],
            block(0, "tool_call", '{"input":"x"}', id="c", name="p"),
            id="custom-tool",
        ),
    ],
)
def test_what_no_delta_said_is_read_from_the_item(wire, events):
    (first, *read_events, _) = read(sse(created(), *wire, ended()))
    assert (first, read_events) == (START, events)


def test_what_nothing_said_is_read_from_the_end():
    output = [thought("a"), message("b"), call("c", "f", "{}")]
    assert read(sse(ended(output=output))) == [
        START,
        *block(0, "thinking", "a"),
        *block(1, "text", "b"),
        *block(2, "tool_call", "{}", id="c", name="f"),
        end(Stop.TOOL_CALLS),
    ]


def test_items_that_overlap_are_told_one_after_another():
    events = read(
        sse(
            created(),
            added(0, **call("c1", "f")),
            delta("{", kind="function_call_arguments"),
            added(1, **call("c2", "g")),
            delta('{"b"', item=1, kind="function_call_arguments"),
            delta("}", kind="function_call_arguments"),
            delta("text", item=2),
            delta(":1}", item=1, kind="function_call_arguments"),
            done(0, **call("c1", "f", "{}")),
            done(1, **call("c2", "g", '{"b":1}')),
            delta("!", item=2),
            ended(),
        )
    )
    assert events == [
        START,
        *block(0, "tool_call", "{", "}", id="c1", name="f"),
        *block(1, "tool_call", '{"b"', ":1}", id="c2", name="g"),
        *block(2, "text", "text", "!"),
        end(Stop.TOOL_CALLS),
    ]


def test_a_call_that_is_never_done_does_not_swallow_the_rest():
    events = read(sse(created(), added(0, **call("c", "f")), delta("x", item=1), ended()))
    assert events[1:-1] == [*block(0, "tool_call", id="c", name="f"), *block(1, "text", "x")]


def test_a_text_that_is_interrupted_goes_on_as_another():
    events = read(sse(created(), delta("a"), delta("x", item=1), delta("b"), ended()))
    assert events[1:-1] == [*block(0, "text", "a"), *block(1, "text", "x"), *block(2, "text", "b")]


def test_annotations_are_sources_and_are_told_once():
    citation = {"type": "url_citation", "url": "https://e.org", "title": "E", "start_index": 0, "end_index": 1}
    told = ev("output_text.annotation.added", output_index=0, content_index=0, annotation_index=0, annotation=citation)
    item = message("a")
    item["content"][0]["annotations"] = [citation]
    for wire in ([delta("a"), told, done(0, **item)], [delta("a"), done(0, **item)], [done(0, **item)]):
        events = read(sse(created(), *wire, ended()))
        assert [event for event in events if isinstance(event, Cited)] == [Cited(0, citation)]


@pytest.mark.parametrize(
    ("last", "stop"),
    [
        pytest.param(ended(), Stop.END, id="completed"),
        pytest.param(ended("incomplete", incomplete_details={"reason": "max_output_tokens"}), Stop.LENGTH, id="limit"),
        pytest.param(
            ended("incomplete", incomplete_details={"reason": "content_filter"}), Stop.CONTENT_FILTER, id="filter"
        ),
        pytest.param(ended("incomplete", incomplete_details={"reason": "new"}), Stop.LENGTH, id="unheard-of"),
        pytest.param(ended("incomplete"), Stop.LENGTH, id="no-reason"),
    ],
)
def test_every_end_is_a_stop(last, stop):
    *_, event = read(sse(created(), delta("a"), last))
    assert event == end(stop)


def test_a_call_that_was_cut_stays_broken():
    broken = call("c", "f", '{"a": "b', status="incomplete")
    wire = sse(
        created(), added(0, **call("c", "f")), delta('{"a": "b', kind="function_call_arguments"), done(0, **broken)
    )
    events = read(wire + sse(ended("incomplete")))
    assert events[1:] == [*block(0, "tool_call", '{"a": "b', id="c", name="f"), end(Stop.LENGTH)]


def test_usage_with_all_its_details():
    usage = {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 5},
    }
    assert fold(read(sse(ended(usage=usage)))).usage == Usage(100, 20, 60, 10, 5)
    assert fold(read(sse(ended(usage=None)))).usage is None


# The wire's habits...


def test_events_without_their_event_line_are_read_by_type():
    stream = b"".join(b"data: " + dumps(event) + b"\n\n" for event in (created(), delta("a"), ended()))
    assert read(stream) == [START, *block(0, "text", "a"), end()]


def test_events_without_a_type_are_read_by_their_event_line():
    stream = sse(created(), delta("a"), ended()).replace(b'"type":"response.output_text.delta",', b"")
    assert read(stream) == [START, *block(0, "text", "a"), end()]


def test_padding_keepalives_hosted_tools_and_what_is_new_are_passed_over():
    odd = [
        {"type": "keepalive"},
        ev("queued", response={}),
        ev("in_progress", response={}),
        ev("web_search_call.searching", output_index=0),
        added(0, type="web_search_call", id="ws_1"),
        done(0, type="web_search_call", id="ws_1"),
        ev("something.new", a=1),
        {**delta("a", item=1), "obfuscation": "x"},
        ev("content_part.done", output_index=1, part={"type": "output_text", "text": "a"}),
    ]
    assert read(b": ping\n\n" + sse(created(), *odd, ended())) == [START, *block(0, "text", "a"), end()]


def test_nothing_is_read_after_the_end():
    assert read(sse(created(), ended(), delta("a"), b"data: [DONE]\n\n", b"data: x\n\n")) == [START, end()]


def test_an_end_mark_without_an_end_is_a_cut():
    with pytest.raises(UpstreamError, match="before the answer"):
        read(sse(created(), delta("a"), b"data: [DONE]\n\n"))


def test_the_end_is_known_when_it_is_told():
    reader = Reader(nothing)
    for event in (created(), delta("a")):
        list(reader.read(Frame(dumps(event))))
        assert (reader.finished, reader.done, reader.usage) == (False, False, None)
    list(reader.read(Frame(dumps(ended()))))
    assert (reader.finished, reader.done, reader.usage) == (True, True, Usage(10, 5))
    assert list(reader.end()) == []


@pytest.mark.parametrize("data", [b"{", b"[]", b"x", b"5"])
def test_a_frame_that_is_no_object_is_the_providers_fault(data):
    with pytest.raises(UpstreamError, match="frame that is not"):
        list(Reader(nothing).read(Frame(data)))


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(sse({"type": "error", "code": "rate_limit_exceeded", "message": "slow"}), id="flat"),
        pytest.param(sse({"type": "error", "error": {"code": "rate_limit_exceeded", "message": "slow"}}), id="nested"),
        pytest.param(
            sse(ev("failed", response={"error": {"code": "rate_limit_exceeded", "message": "slow"}})), id="failed"
        ),
        pytest.param(b'data: {"error":{"code":429,"message":"slow"}}\n\n', id="envelope"),
        pytest.param(b'event: error\ndata: {"code":"rate_limit_exceeded","message":"slow"}\n\n', id="named-only"),
    ],
)
def test_errors_after_the_200_end_the_answer(wire):
    with pytest.raises(UpstreamRefused, match="slow") as caught:
        read(sse(created(), delta("a")) + wire)
    assert caught.value.status == 429


def test_an_error_that_is_no_json_is_one():
    with pytest.raises(UpstreamError, match="the provider failed: overloaded"):
        read(sse(created()) + b"event: error\ndata: overloaded\n\n")


# Whole answers...


def test_a_whole_answer_is_the_fold_of_its_stream():
    output = [thought("Hm.", encrypted_content="e"), message("a", "b"), call("c", "f", '{"a":1}')]
    wire = [
        created(),
        ev("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="H"),
        ev("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="m."),
        done(0, **output[0]),
        delta("a", item=1),
        delta("b", item=1, part=1),
        done(1, **output[1]),
        added(2, **call("c", "f")),
        delta('{"a":1}', item=2, kind="function_call_arguments"),
        done(2, **output[2]),
        ended(output=output),
    ]
    streamed, whole = fold(read(sse(*wire))), fold(read_whole(dumps(wire[-1]["response"]), nothing))
    assert shown(streamed) == shown(whole)


def shown(answer):
    blocks = [(b.block, b.id, b.name, b.text, b.signature, b.citations) for b in answer.blocks]
    return answer.id, answer.model, answer.stop, answer.usage, blocks


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b"", "is not JSON", id="empty"),
        pytest.param(b"[]", "is not a JSON object", id="array"),
        pytest.param(b"{}", "has no `output`", id="no-output"),
        pytest.param(b'{"output":5}', "has no `output`", id="output-number"),
        pytest.param(b'{"error":{"message":"broke","code":"server_error"}}', "the provider failed: broke", id="error"),
        pytest.param(
            b'{"status":"failed","error":{"message":"broke","code":"server_error"},"output":[]}',
            "the provider failed: broke",
            id="failed",
        ),
        pytest.param(b'{"status":"failed","output":[]}', "the provider failed", id="failed-and-mute"),
        pytest.param(b'{"status":"in_progress","output":[]}', "answer is in progress", id="not-finished"),
        pytest.param(b'{"status":"cancelled","output":[]}', "answer is cancelled", id="cancelled"),
    ],
)
def test_an_answer_that_is_none_is_the_providers_fault(body, message):
    with pytest.raises(UpstreamError, match=message):
        list(read_whole(body, nothing))


def test_a_whole_answer_that_was_cut_says_so():
    body = dumps(
        {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "output": [message("a")]}
    )
    assert fold(read_whole(body, nothing)).stop is Stop.LENGTH


_wire = st.lists(
    st.dictionaries(
        st.sampled_from(
            ["type", "delta", "item", "output_index", "item_id", "response", "annotation", "arguments", "summary_index"]
        ),
        properties.json
        | st.sampled_from([f"response.{kind}.delta" for kind in ("output_text", "refusal", "function_call_arguments")])
        | st.sampled_from([f"response.output_item.{kind}" for kind in ("added", "done")])
        | st.sampled_from([call("c", "f", "{}"), message("a"), thought("b", encrypted_content="e")])
        | st.integers(0, 2),
    ),
    max_size=8,
)


@thorough
@given(_wire)
def test_any_frames_are_read_or_refused_and_blocks_stay_in_order(wire):
    reader, events = Reader(nothing), []
    try:
        for event in [*wire, ended()]:
            events += reader.read(Frame(dumps(event)))
    except GatewayError:
        return
    opened = None
    for event in events:
        kind = type(event).__name__
        if kind == "BlockOpened":
            assert opened is None
            opened = event.index
        elif kind in ("BlockDelta", "BlockSigned", "Cited", "BlockClosed"):
            assert opened == event.index
            opened = None if kind == "BlockClosed" else opened
    assert opened is None
    fold(events)
