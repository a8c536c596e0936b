"""Answers that come whole: what is one, and how it is said as a stream."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.openai_chat.reader import ChatReader
from proxy.dialects.openai_chat.whole import as_stream, check, usage_in
from proxy.errors import GatewayError, Kind
from proxy.events import Answer
from proxy.sse import Decoder
from tests.dialects.openai_chat import dumps, nothing, usage
from tests.properties import json, thorough
from tests.recordings import chat_wholes, refusals

CALLS = [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}, {"id": "call_2"}]


def answer(**message: object) -> dict:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop", "logprobs": None}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-x", "system_fingerprint": "fp"}
    return {**head, "choices": [choice], "usage": usage(3, 1)}


def stream(body: dict, *, include_usage: bool = False) -> list[dict]:
    """The chunks, without the end mark, which must be there."""
    frames = [frame.data for frame in Decoder().feed(b"".join(as_stream(body, include_usage=include_usage)))]
    assert frames[-1] == b"[DONE]"
    return [orjson.loads(frame) for frame in frames[:-1]]


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(dumps(answer(content="Hi")), id="usual"),
        pytest.param(b"\n\n\n  " + dumps(answer(content="Hi")) + b"\n", id="after-blank-lines"),
        pytest.param(b'{"choices":[]}', id="without-choices"),
        pytest.param(b'{"choices":[],"error":null}', id="error-null"),
    ],
)
def test_an_answer(raw):
    assert isinstance(check(raw, nothing)["choices"], list)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        pytest.param(b"", "is not JSON", id="empty"),
        pytest.param(b"\n\n", "is not JSON", id="blank-lines-only"),
        pytest.param(b"<html>", "is not JSON", id="html"),
        pytest.param(b'{"choices":[', "is not JSON", id="cut"),
        pytest.param(b"[]", "is not a JSON object", id="an-array"),
        pytest.param(b"{}", "has no `choices`", id="no-choices"),
        pytest.param(b'{"choices":null}', "has no `choices`", id="choices-null"),
        pytest.param(b'{"choices":{}}', "has no `choices`", id="choices-an-object"),
    ],
)
def test_nonsense_is_told(raw, says):
    with pytest.raises(GatewayError, match=says) as caught:
        check(raw, nothing)
    assert (caught.value.status, caught.value.kind) == (502, Kind.UPSTREAM_ERROR)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        pytest.param({"error": {"message": "no credit", "code": 402}}, 502, "no credit", id="openrouter"),
        pytest.param({"error": {"message": "too long", "code": 400}}, 400, "too long", id="a-status-in-the-body"),
        pytest.param({"error": "busy"}, 502, "busy", id="a-string"),
        pytest.param({"success": False, "errors": [{"code": 7, "message": "bad"}]}, 502, "bad", id="cloudflare"),
        pytest.param({"object": "error", "message": "out of memory", "code": 500}, 502, "out of memory", id="flat"),
    ],
)
def test_an_error_with_200_is_an_error(body, status, says):
    with pytest.raises(GatewayError, match=says) as caught:
        check(dumps(body), nothing)
    assert caught.value.status == status


def test_other_operations_want_other_fields():
    assert check(b'{"data":[]}', nothing, "data") == {"data": []}
    with pytest.raises(GatewayError, match="has no `data`"):
        check(b'{"choices":[]}', nothing, "data")


def test_an_answer_is_said_as_chunks():
    said, ended, cost = stream(answer(content="Hi", refusal=None, reasoning_content="Hm"), include_usage=True)
    head = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-x",
        "system_fingerprint": "fp",
    }
    delta = {"role": "assistant", "content": "Hi", "refusal": None, "reasoning_content": "Hm"}
    assert said == {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None, "logprobs": None}]}
    assert ended == {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    assert cost == {**head, "choices": [], "usage": usage(3, 1)}


def test_usage_goes_to_those_who_asked():
    assert not any("usage" in chunk for chunk in stream(answer(content="Hi")))


def test_calls_get_the_index_that_streams_need():
    said, _ = stream(answer(content=None, tool_calls=CALLS))
    assert said["choices"][0]["delta"]["tool_calls"] == [{"index": i, **call} for i, call in enumerate(CALLS)]


def test_every_choice_is_said():
    body = answer(content="one")
    body["choices"].append({"index": 1, "message": {"content": "two"}, "finish_reason": "length"})
    told = [(c["index"], c["delta"].get("content"), c["finish_reason"]) for x in stream(body) for c in x["choices"]]
    assert told == [(0, "one", None), (0, None, "stop"), (1, "two", None), (1, None, "length")]


def test_a_finish_reason_is_never_missing():
    body = answer(content="Hi")
    del body["choices"][0]["finish_reason"]
    assert stream(body)[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_completion_of_the_old_kind_is_its_own_chunk():
    body = {
        "id": "cmpl-1",
        "object": "text_completion",
        "choices": [{"text": "Hi", "index": 0, "finish_reason": "stop"}],
    }
    assert stream(body) == [body]


@thorough
@given(
    st.lists(json | st.fixed_dictionaries({}, optional={"index": json, "message": json, "text": json}), max_size=3),
    json,
)
def test_any_choices_can_be_said(choices, cost):
    body = {"choices": choices, "usage": cost}
    assert check(dumps(body), nothing) == body
    stream(body, include_usage=True)


@thorough
@given(st.binary(max_size=80) | json.map(dumps))
def test_any_body_is_taken_or_refused(raw):
    try:
        body = check(raw, nothing)
    except GatewayError:
        return
    stream(body)


# The usage of an answer that goes on as it is...


def judged(look, raw: bytes) -> object:
    """What is found in an answer, or the fault with it."""
    try:
        return look(raw, nothing)
    except GatewayError as exc:
        return type(exc), exc.kind, exc.message


def found(raw: bytes, scrub: object) -> object:
    told = check(raw, scrub).get("usage")
    return told if isinstance(told, dict) else None


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(dumps(answer(content="Hi")), id="usual"),
        pytest.param(b" \n" + dumps(answer(content="H\u00efi\U0001f642")), id="not-ascii"),
        pytest.param(b'{"choices":[]}', id="none"),
        pytest.param(b'{"choices":[],"usage":null}', id="null"),
        pytest.param(b'{"choices":[],"usage":"odd"}', id="odd"),
        pytest.param(b'{"choices":[],"usage":{"prompt_tokens":1%b}}' % (b"0" * 400), id="a-count-without-bound"),
        pytest.param(b'{"choices":[],"usage":{"a":1},"usage":{"a":2}}', id="said-twice"),
        pytest.param(b'{"choices":[],"usage":{"a":1},"error":null,"object":null,"success":true}', id="good-signs"),
        pytest.param(b'{"choices":[],"object":"error","message":"no"}', id="an-error-by-its-name"),
        pytest.param(b'{"choices":[],"object":7,"error":""}', id="signs-that-say-nothing"),
        pytest.param(b'{"choices":[],"success":false,"errors":[{"message":"no"}]}', id="no-success"),
        pytest.param(b'{"choices":[],"error":{"message":"no"}}', id="an-error"),
        pytest.param(b'{"choices":{}}', id="choices-that-are-none"),
        pytest.param(b'{"choices":[]', id="half"),
        pytest.param(b'{"choices":["\xff"]}', id="not-utf-8"),
        pytest.param(b"[]", id="an-array"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_a_glance_finds_what_a_whole_look_does(raw):
    assert judged(usage_in, raw) == judged(found, raw)


@given(
    st.dictionaries(
        st.sampled_from(["choices", "usage", "error", "success", "object", "x"]),
        json | st.just([]) | st.just({}) | st.fixed_dictionaries({"prompt_tokens": json}),
    )
)
@thorough
def test_a_glance_finds_what_a_whole_look_does_in_anything(body):
    raw = dumps(body)
    assert judged(usage_in, raw) == judged(found, raw)


@chat_wholes
def test_a_glance_finds_the_usage_of_recorded_answers(recording):
    assert usage_in(recording.body, nothing) == check(recording.body, nothing).get("usage")


# Recorded...


@chat_wholes
def test_what_is_said_as_a_stream_folds_into_the_same_answer(recording):
    body = check(recording.body, nothing)
    answers = []
    for chunks in ([body], [*stream(body, include_usage=True)]):
        reader, folded = ChatReader(nothing), Answer()
        for chunk in chunks:
            for event in reader.chunk(chunk):
                folded.add(event)
        for event in reader.end():
            folded.add(event)
        answers.append(folded)
    assert answers[0] == answers[1]
    assert answers[0].text


@refusals
def test_recorded_refusals_are_no_answers(recording):
    with pytest.raises(GatewayError):
        check(recording.body, nothing)
