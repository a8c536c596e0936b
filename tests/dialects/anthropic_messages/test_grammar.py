"""The validator finds what is wrong."""

from __future__ import annotations

import pytest

from proxy.dialects.anthropic_messages import errors
from proxy.errors import UpstreamError
from tests.dialects.anthropic_messages import END, PING, closed, delta, opened, said, sse, start, stopped
from tests.dialects.anthropic_messages.grammar import check

USAGE = {"input_tokens": 1, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 1}
STOPPED = stopped(**USAGE)
GOOD = [PING, start(), opened(0), PING, said(0, "a"), closed(0), STOPPED, END]
CALL = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
SIGNED = delta(0, "signature", signature="sig")


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param(sse(*GOOD), id="an-answer"),
        pytest.param(sse(*GOOD[:5]) + errors.frame(UpstreamError("it broke")), id="an-answer-that-breaks"),
        pytest.param(errors.frame(UpstreamError("it broke")), id="an-error-alone"),
        pytest.param(
            sse(start(), opened(0, **CALL), delta(0, "input_json", partial_json='{"a'), closed(0))
            + sse(stopped("max_tokens", **USAGE), END),
            id="a-call-that-is-cut-for-length",
        ),
    ],
)
def test_what_is_right_passes(frames):
    check(frames)


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        pytest.param(sse(*GOOD) + b"data: [DONE]\n\n", "no \\[DONE\\]", id="done"),
        pytest.param(sse(*GOOD).replace(b"event: message_start\n", b""), "event line", id="no-event-line"),
        pytest.param(sse(*GOOD).replace(b"event: message_stop", b"event: ping"), "contradicts", id="another-event"),
        pytest.param(sse(*GOOD)[:-1], "not whole", id="unterminated"),
        pytest.param(sse(said(0, "a"), END), "first frame", id="no-start"),
        pytest.param(sse(start(), said(0, "a"), STOPPED, END), "outside", id="no-block"),
        pytest.param(sse(start(), opened(0), opened(1), STOPPED, END), "another is open", id="two-blocks-at-once"),
        pytest.param(sse(start(), opened(1), END), "the 1. one", id="a-number-left-out"),
        pytest.param(sse(start(), opened(0), said(1, "a"), END), "inside block 0", id="another-block's-delta"),
        pytest.param(
            sse(start(), opened(0), delta(0, "thinking", thinking="x"), END), "text block", id="another-delta"
        ),
        pytest.param(
            sse(start(), opened(0, type="thinking", thinking="", signature=""), SIGNED, SIGNED, END),
            "follows the signature",
            id="two-signatures",
        ),
        pytest.param(sse(start(), opened(0), STOPPED, END), "inside a block", id="a-block-left-open"),
        pytest.param(sse(start(), stopped(output_tokens=1), END), "lacks input_tokens", id="usage"),
        pytest.param(sse(start(usage={**USAGE, "input_tokens": 0}), STOPPED, END), "0 tokens", id="no-input"),
        pytest.param(sse(start(), END), "without a message_delta", id="no-stop-reason"),
        pytest.param(sse(start(), STOPPED), "neither", id="no-end"),
        pytest.param(
            sse(start(), opened(0, **CALL), delta(0, "input_json", partial_json="[1]"), closed(0), STOPPED, END),
            "no object",
            id="arguments",
        ),
    ],
)
def test_what_is_wrong_is_named(frames, says):
    with pytest.raises(AssertionError, match=says):
        check(frames)
