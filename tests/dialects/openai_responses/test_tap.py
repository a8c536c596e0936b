"""What the tap sees of frames that pass."""

from __future__ import annotations

import pytest

from proxy.dialects.openai_responses.tap import Tap
from proxy.errors import TimedOut
from proxy.events import Usage
from proxy.sse import split
from tests.dialects.openai_responses import created, delta, ended, ev, frames, nothing, sse
from tests.dialects.openai_responses.grammar import check


def passed(stream: bytes, tap: Tap) -> bytes:
    return b"".join(tap.look(raw, frame) for raw, frame in split(stream))


def test_an_answer_passes_as_it_is_and_its_end_is_seen():
    tap, stream = Tap(nothing), sse(created(), delta("a"))
    assert passed(stream, tap) == stream
    assert (tap.finished, tap.done, tap.usage) == (False, False, None)
    last = sse(ended())
    assert passed(last, tap) == last
    assert (tap.finished, tap.done, tap.error, tap.usage) == (True, True, None, Usage(10, 5))
    assert tap.end() == b""


def test_an_incomplete_answer_is_an_end_too():
    tap = Tap(nothing)
    passed(sse(created(), ended("incomplete")), tap)
    assert (tap.done, tap.error) == (True, None)


def test_only_an_end_mark_passes_after_the_end():
    assert passed(sse(ended(), delta("a"), b"data: [DONE]\n\n"), Tap(nothing)) == sse(ended()) + b"data: [DONE]\n\n"


def test_an_end_mark_before_the_end_is_a_cut():
    tap, stream = Tap(nothing), sse(created(), delta("a"))
    assert passed(stream + b"data: [DONE]\n\n", tap) == stream
    assert "before the answer" in tap.error.message


@pytest.mark.parametrize(
    "event",
    [
        pytest.param({"type": "error", "code": "rate_limit_exceeded", "message": "key sk-1"}, id="flat"),
        pytest.param({"type": "error", "error": {"code": "rate_limit_exceeded", "message": "key sk-1"}}, id="nested"),
        pytest.param(
            ev("failed", response={"error": {"code": "rate_limit_exceeded", "message": "key sk-1"}}), id="failed"
        ),
    ],
)
def test_a_fault_is_taken_out_and_told_without_secrets(event):
    tap = Tap(lambda text: text.replace("sk-1", "[redacted]"))
    start = sse(created(), ev("in_progress", response={"error": None}), delta("a"))
    assert passed(start + sse(event), tap) == start
    assert (tap.error.status, tap.error.code, tap.error.message) == (429, "rate_limit_exceeded", "key [redacted]")
    assert not tap.done


def test_an_error_that_is_no_json_is_one():
    tap = Tap(nothing)
    assert passed(sse(created()) + b"event: error\ndata: overloaded\n\n", tap) == sse(created())
    assert tap.error.message == "the provider failed: overloaded"


def test_what_is_no_event_of_the_dialect_passes():
    for raw in (b"data: x\n\n", b"data: [1]\n\n", b'data: {"type":"keepalive"}\n\n'):
        assert passed(raw, Tap(nothing)) == raw


def test_words_inside_a_text_are_not_looked_at():
    tap = Tap(nothing)
    passed(sse(created()), tap)
    said = 'x "response.completed" "error" {"type":"response.failed"}'
    for event in (delta(said), ev("output_text.done", output_index=0, text=said)):
        assert tap.plain(sse(event))
        assert passed(sse(event), tap) == sse(event)
    assert not tap.done


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(ended(), id="completed"),
        pytest.param(ended("incomplete"), id="incomplete"),
        pytest.param(ended("failed"), id="failed"),
        pytest.param({"type": "error", "message": "x"}, id="error"),
        pytest.param(b'data: {"error":{"message":"x"}}\n\n', id="envelope"),
        pytest.param(b"event: error\ndata: x\n\n", id="named"),
        pytest.param(b"data: [DONE]\n\n", id="end-mark"),
    ],
)
def test_what_matters_is_never_plain(event):
    tap = Tap(nothing)
    passed(sse(created()), tap)
    assert tap.plain(sse(delta("a")))
    assert not tap.plain(sse(delta("a"), event))


def test_a_fault_of_ours_goes_on_where_the_provider_stopped():
    """The official client's helper wants the same id, strict ones the next number."""
    tap = Tap(nothing)
    stream = passed(sse(created(), ev("in_progress", response={"error": None}), delta("a")), tap)
    error, failed = frames(tap.fail(TimedOut("idle", 120, "nothing came")))
    assert [error["sequence_number"], failed["sequence_number"]] == [3, 4]
    assert failed["response"]["id"] == frames(stream)[0]["response"]["id"] == "resp_1"
    assert error["message"] == failed["response"]["error"]["message"] == "nothing came for 120 s (timeouts.idle)"


def test_a_fault_before_anything_came_is_told_all_the_same():
    check(Tap(nothing).fail(TimedOut("idle", 120, "nothing came")))
