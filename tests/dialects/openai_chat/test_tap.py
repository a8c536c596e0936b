"""What the tap wants to see of frames that pass, and what it makes of what it sees."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.openai_chat.tap import END_MARK, ChatTap
from proxy.events import Usage
from proxy.sse import Frame, encode, split
from tests.dialects.openai_chat import chunk, dumps, nothing, say, sse, usage
from tests.properties import json, thorough

#: Objects with the fields that matter holding anything.
choices = st.lists(
    json
    | st.fixed_dictionaries(
        {}, optional={"index": json, "delta": json, "message": json, "finish_reason": json, "text": json}
    ),
    max_size=3,
)
chunks = st.fixed_dictionaries(
    {},
    optional={"id": json, "model": json, "choices": json | choices, "usage": json, "error": json, "object": json},
)


def look(tap: ChatTap, *payloads: object) -> bytes:
    """What of these goes to the client."""
    return b"".join(tap.look(raw, frame) for raw, frame in split(sse(*payloads)))


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(say("Hi"), id="content"),
        pytest.param(say("Hi", usage=None), id="usage-is-null"),
        pytest.param(chunk({"reasoning_content": "Hm"}), id="reasoning"),
        pytest.param(say("a usage, an error, a finish_reason"), id="words"),
    ],
)
def test_the_usual_frame_is_not_looked_at(frame):
    assert ChatTap(nothing).plain(sse(frame, frame))


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(chunk(finish="stop"), id="finish-reason"),
        pytest.param(chunk(finish=""), id="empty-finish-reason"),
        pytest.param(say("Hi", usage=usage(1, 1)), id="usage"),
        pytest.param({"error": {"message": "no"}}, id="error"),
        pytest.param({"error": None, **say("Hi")}, id="error-is-null"),
        pytest.param({"object": "error", "message": "no"}, id="flat-error"),
    ],
)
def test_one_frame_of_interest_among_many_is_enough(frame):
    tap = ChatTap(nothing)
    assert not tap.plain(sse(frame))
    assert not tap.plain(sse(*[say("Hi", usage=None)] * 5, frame, *[say("Hi", usage=None)] * 5))


@pytest.mark.parametrize(
    ("finished", "payload"),
    [
        pytest.param(True, chunk(finish="stop"), id="stop"),
        pytest.param(True, chunk(finish="a word of tomorrow"), id="unknown"),
        pytest.param(False, chunk(finish=""), id="empty-is-none"),
        pytest.param(False, chunk(finish=None), id="null"),
        pytest.param(False, {**say("x"), "choices": [{"delta": {"finish_reason": "stop"}}]}, id="elsewhere"),
        pytest.param(False, say('"finish_reason":"stop"'), id="in-content"),
        pytest.param(True, {"choices": [{"index": None, "finish_reason": "stop"}]}, id="index-null-is-the-first"),
        pytest.param(True, {"choices": [{"finish_reason": "length", "text": "x"}]}, id="of-a-completion"),
    ],
)
def test_finish(finished, payload):
    tap = ChatTap(nothing)
    assert look(tap, payload) == sse(payload)
    assert tap.finished == finished


def test_what_is_not_json_passes():
    tap = ChatTap(nothing)
    for data in (b'{"usage":', b'["usage"]', b'"error"', b"finish_reason"):
        assert look(tap, data) == sse(data)
    assert (tap.finished, tap.error, tap.usage) == (False, None, None)


@pytest.mark.parametrize(
    ("payloads", "counts"),
    [
        pytest.param([usage(3, 1)], Usage(3, 1), id="one"),
        pytest.param([usage(3, 1), usage(3, 2), usage(3, 3)], Usage(3, 3), id="the-last-of-a-cumulative-count"),
        pytest.param([usage(3, 1), usage(0, 0)], Usage(3, 1), id="zeros-last"),
        pytest.param([usage(3, 1), {}], Usage(3, 1), id="empty-last"),
        pytest.param([usage(0, 0)], Usage(0, 0), id="zeros-only"),
        pytest.param(
            [{"total_tokens": 4, "completion_tokens": 4}, {"prompt_tokens": None}], Usage(0, 4), id="a-total-only"
        ),
        pytest.param([None], None, id="null"),
        pytest.param([], None, id="none"),
    ],
)
def test_the_last_usage_that_counts_anything_counts(payloads, counts):
    tap = ChatTap(nothing)
    look(tap, *[say("x", usage=each) for each in payloads])
    assert tap.usage == counts


def test_usage_on_every_chunk_takes_no_room():
    tap = ChatTap(nothing, include_usage=True)
    for count in range(1, 2000):
        look(tap, say("x" * 100, usage=usage(3, count)))
    assert sum(map(len, tap._usages)) < 2000
    assert tap.usage == Usage(3, 1999)


def test_the_end_is_the_end_mark_after_what_was_asked_for():
    assert ChatTap(nothing, include_usage=True).end() == END_MARK == encode(b"[DONE]")
    tap = ChatTap(nothing, include_usage=True)
    look(tap, chunk(finish="stop", usage=usage(3, 1)))
    extra, mark = tap.end().split(b"\n\n")[:2]
    assert (orjson.loads(extra[6:])["usage"], mark) == (usage(3, 1), b"data: [DONE]")
    assert tap.end() == END_MARK  # once


def test_an_added_chunk_keeps_the_object_of_old_completions():
    tap = ChatTap(nothing, include_usage=True)
    old = {"id": "cmpl-1", "object": "text_completion", "choices": [{"text": "x", "finish_reason": "stop"}]}
    look(tap, {**old, "usage": usage(3, 1)})
    assert orjson.loads(tap.end()[6:].split(b"\n\n")[0])["object"] == "text_completion"


@thorough
@given(st.lists(chunks | json, max_size=4), st.sampled_from(["", "error"]), st.booleans(), st.integers(1, 3))
def test_any_json_is_taken(payloads, event, asked, choices):
    tap = ChatTap(nothing, include_usage=asked, choices=choices)
    for payload in payloads:
        data = orjson.dumps(payload)
        raw = encode(data, event)
        out = tap.look(raw, Frame(data, event))
        assert out in (raw, b"") or b"[DONE]" in raw
        if event == "error" or (isinstance(payload, dict) and payload.get("error")):
            assert tap.error is not None
            break
    assert tap.end().endswith(END_MARK)
    assert tap.usage is None or isinstance(tap.usage, Usage)


@thorough
@given(st.binary(max_size=60), st.sampled_from(["", "error", "x"]))
def test_any_bytes_are_taken(data, event):
    for words in (b"", b'"usage" "error"'):
        tap = ChatTap(nothing)
        tap.look(encode(data + words, event), Frame(data + words, event))
        assert (tap.error is not None) == (event == "error" and not data.startswith(b"[DONE]"))


def test_choices_are_counted_by_their_index():
    tap = ChatTap(nothing, choices=2)
    for payload, finished in (
        (chunk(finish="stop", index=1), False),
        (chunk(finish="stop", index=1), False),
        (chunk(finish="stop", index=0), True),
    ):
        look(tap, payload)
        assert tap.finished == finished
    both = {"choices": [{"index": 0, "finish_reason": "stop"}, {"index": 1, "finish_reason": "stop"}]}
    tap = ChatTap(nothing, choices=2)
    look(tap, both)
    assert tap.finished


def test_scalar_scrubbing_reaches_every_word_of_an_error():
    tap = ChatTap(lambda text: text.replace("secret", "*"))
    look(tap, dumps({"error": {"message": "a secret", "type": "secret", "param": "secret", "code": 400}}))
    assert tap.error is not None
    assert "secret" not in repr(vars(tap.error)) + str(tap.error)
