"""A look at frames that pass byte for byte."""

from __future__ import annotations

import pytest

from proxy.dialects.anthropic_messages.tap import Tap
from proxy.errors import Kind, UpstreamRefused
from proxy.events import Usage
from proxy.sse import split
from tests.dialects.anthropic_messages import END, PING, closed, nothing, opened, said, sse, start, stopped

ANSWER = sse(start(), opened(0), PING, said(0, "a"), closed(0), stopped(output_tokens=9), END)


def passed(tap: Tap, run: bytes) -> bytes:
    return run if tap.plain(run) else b"".join(tap.look(raw, frame) for raw, frame in split(run))


def test_an_answer_passes_unchanged_and_is_understood():
    tap = Tap(nothing)
    assert passed(tap, ANSWER) == ANSWER
    assert (tap.finished, tap.done, tap.error) == (True, True, None)
    assert tap.usage == Usage(10, 9)


@pytest.mark.parametrize(
    ("run", "plain"),
    [
        pytest.param(sse(opened(0), said(0, "a"), said(0, "b"), closed(0), PING), True, id="the-middle-of-an-answer"),
        pytest.param(sse(start()), False, id="start"),
        pytest.param(sse(said(0, "a"), stopped()), False, id="stop-reason"),
        pytest.param(sse(END), False, id="end"),
        pytest.param(b'event: error\ndata: {"type":"error"}\n\n', False, id="error"),
        pytest.param(b"data: [DONE]\n\n", False, id="done"),
        pytest.param(sse(said(0, "the event: error, no less")), False, id="words-that-look-like-it"),
    ],
)
def test_only_what_matters_is_looked_at(run, plain):
    assert Tap(nothing).plain(run) is plain


@pytest.mark.parametrize(
    "text", ['{"type":"message_stop"}', 'event: error\ndata: {"type":"error","error":{}}', "data: [DONE]", '"error"']
)
@pytest.mark.parametrize("named", [True, False], ids=["named", "without-event-lines"])
def test_words_of_an_answer_are_not_taken_for_its_end(text, named):
    frame = sse(said(0, text))
    if not named:
        frame = frame.partition(b"\n")[2]
    tap = Tap(nothing)
    assert passed(tap, frame) == frame
    assert (tap.finished, tap.done, tap.error) == (False, False, None)


def test_frames_without_event_lines_are_understood():
    bare = b"".join(line + b"\n\n" for line in ANSWER.splitlines() if line.startswith(b"data: "))
    tap = Tap(nothing)
    assert passed(tap, bare) == bare
    assert (tap.finished, tap.done, tap.usage) == (True, True, Usage(10, 9))


def test_nothing_goes_on_after_the_end():
    tap = Tap(nothing)
    assert passed(tap, ANSWER + b"event: data\ndata: [DONE]\n\n" + sse(PING)) == ANSWER
    assert passed(tap, sse(PING)) == b""


def test_a_done_of_another_dialect_becomes_the_end():
    tap = Tap(nothing)
    without = ANSWER.removesuffix(sse(END))
    assert passed(tap, without + b"data: [DONE]\n\n") == ANSWER
    assert tap.done


def test_a_done_before_a_stop_reason_ends_nothing():
    tap = Tap(nothing)
    assert passed(tap, sse(start()) + b"data: [DONE]\n\n") == sse(start())
    assert not tap.done


def test_the_end_is_supplied():
    tap = Tap(nothing)
    passed(tap, ANSWER.removesuffix(sse(END)))
    assert (tap.finished, tap.done) == (True, False)
    assert tap.end() == sse(END)
    assert tap.done


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        pytest.param(
            b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"sk-1"}}',
            Kind.UPSTREAM_ERROR,
            id="named",
        ),
        pytest.param(
            b'data: {"type":"error","error":{"type":"api_error","message":"sk-1"}}', Kind.UPSTREAM_ERROR, id="unnamed"
        ),
        pytest.param(b'data: {"error":{"message":"sk-1"}}', Kind.UPSTREAM_ERROR, id="openai's"),
        pytest.param(b"event: error\ndata: sk-1", Kind.UPSTREAM_ERROR, id="text"),
        pytest.param(
            b'event: error\ndata: {"type":"error","error":{"type":"invalid_request_error","message":"sk-1"}}',
            Kind.INVALID_REQUEST,
            id="a-refusal",
        ),
    ],
)
def test_an_error_is_taken_out_and_kept_without_its_secrets(frame, kind):
    tap = Tap(lambda text: text.replace("sk-1", "***"))
    assert passed(tap, frame + b"\n\n") == b""
    assert tap.error is not None
    assert tap.error.kind is kind
    assert "***" in tap.error.message
    assert isinstance(tap.error, UpstreamRefused) is (kind is Kind.INVALID_REQUEST)


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"type":"message_start","message":3}', b'{"type":"message_delta"}'])
def test_nonsense_passes(data):
    frame = b'event: message_x\ndata: %b "message_\n\n' % data
    tap = Tap(nothing)
    assert passed(tap, frame) == frame
    bare = b"event: message_x\ndata: %b\n\n" % data
    assert b"".join(tap.look(raw, one) for raw, one in split(bare)) == bare
    assert (tap.usage, tap.finished, tap.done, tap.error) == (None, False, False, None)
