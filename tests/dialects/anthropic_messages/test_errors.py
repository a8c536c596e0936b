"""Faults in Anthropic's words."""

from __future__ import annotations

import json

import pytest

from proxy.dialects.anthropic_messages.errors import TYPE, body, frame
from proxy.errors import (
    InternalError,
    InvalidRequest,
    Kind,
    Maker,
    NotFound,
    Overloaded,
    UpstreamError,
    UpstreamRefused,
)
from tests.dialects.anthropic_messages.grammar import check


def test_every_kind_has_its_type():
    assert set(TYPE) == set(Kind)
    assert (TYPE[Kind.PAYLOAD_TOO_LARGE], TYPE[Kind.INTERNAL_ERROR]) == ("request_too_large", "api_error")
    assert (TYPE[Kind.UPSTREAM_ERROR], TYPE[Kind.OVERLOADED], TYPE[Kind.TIMEOUT]) == (
        "api_error",
        "overloaded_error",
        "timeout_error",
    )


@pytest.mark.parametrize(
    ("error", "type"),
    [
        pytest.param(InvalidRequest("m"), "invalid_request_error", id="ours"),
        pytest.param(NotFound("m"), "not_found_error", id="not-found"),
        pytest.param(Overloaded("m"), "overloaded_error", id="overloaded"),
        pytest.param(UpstreamError("m"), "api_error", id="upstream"),
        pytest.param(
            UpstreamRefused("m", status=400, type="billing_error", maker=Maker.ANTHROPIC), "billing_error", id="theirs"
        ),
        pytest.param(
            UpstreamRefused("m", status=400, type="odd_error", maker=Maker.ANTHROPIC), "invalid_request_error", id="odd"
        ),
        pytest.param(
            UpstreamRefused("m", status=404, type="invalid_request_error"), "not_found_error", id="openai's-404"
        ),
        pytest.param(UpstreamRefused("m", status=429, type="insufficient_quota"), "rate_limit_error", id="openai's"),
        pytest.param(UpstreamRefused("m", status=422), "invalid_request_error", id="no-word"),
    ],
)
def test_an_error_has_the_type_that_clients_know(error, type):
    assert json.loads(body(error, "req_1")) == {
        "type": "error",
        "error": {"type": type, "message": "m"},
        "request_id": "req_1",
    }


def test_a_fault_in_a_stream_has_its_event_name():
    wire = frame(InternalError("req_1"))
    assert wire.startswith(b'event: error\ndata: {"type":"error",')
    assert wire.endswith(b'"request_id":null}\n\n')
    check(wire)
