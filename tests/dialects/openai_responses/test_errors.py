"""Faults in this dialect's words, and a provider's in ours."""

from __future__ import annotations

import json

import pytest

from proxy.dialects.openai_responses import errors
from proxy.errors import (
    Forbidden,
    InternalError,
    InvalidRequest,
    Kind,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    RateLimited,
    TimedOut,
    Unauthorized,
    UpstreamError,
    UpstreamRefused,
)
from tests.dialects.openai_responses import frames, nothing
from tests.dialects.openai_responses.grammar import check


@pytest.mark.parametrize("table", [errors.TYPE, errors.CODE], ids=["type", "code"])
def test_every_kind_has_its_word(table):
    assert table.keys() == set(Kind)


@pytest.mark.parametrize(
    ("error", "type", "code", "param"),
    [
        pytest.param(InvalidRequest("no", param="input"), "invalid_request_error", None, "input", id="invalid"),
        pytest.param(Unauthorized("no"), "authentication_error", "invalid_api_key", None, id="unauthorized"),
        pytest.param(Forbidden("no"), "permission_error", None, None, id="forbidden"),
        pytest.param(
            NotFound("no", code="model_not_found"), "invalid_request_error", "model_not_found", None, id="not-found"
        ),
        pytest.param(PayloadTooLarge(5, "x"), "invalid_request_error", "payload_too_large", None, id="too-large"),
        pytest.param(RateLimited("no", retry_after=1), "rate_limit_error", "rate_limit_exceeded", None, id="rate"),
        pytest.param(InternalError("req_1"), "server_error", "internal_error", None, id="internal"),
        pytest.param(UpstreamError("no"), "server_error", "upstream_error", None, id="upstream"),
        pytest.param(
            UpstreamRefused("no", status=400, type="theirs", code="c", param="p"), "theirs", "c", "p", id="refused"
        ),
        pytest.param(Overloaded("no"), "server_error", "overloaded", None, id="overloaded"),
        pytest.param(TimedOut("idle", 1, "no"), "server_error", "timeout", None, id="timeout"),
    ],
)
def test_an_answer_that_says_no_has_openais_envelope(error, type, code, param):
    assert json.loads(errors.body(error, "req_1")) == {
        "error": {"message": error.message, "type": type, "param": param, "code": code}
    }


def test_a_fault_in_a_stream_is_told_twice():
    stream = errors.frame(UpstreamError("torn"))
    check(stream)
    error, failed = frames(stream)
    assert error == {
        "type": "error",
        "sequence_number": 0,
        "code": "server_error",
        "message": "torn",
        "param": None,
        "error": {"message": "torn", "type": "server_error", "param": None, "code": "server_error"},
    }
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {"code": "server_error", "message": "torn"}


@pytest.mark.parametrize(
    ("event", "status", "code", "message"),
    [
        pytest.param(
            {"type": "error", "code": "rate_limit_exceeded", "message": "slow", "param": None},
            429,
            "rate_limit_exceeded",
            "slow",
            id="flat",
        ),
        pytest.param(
            {
                "type": "error",
                "error": {"type": "invalid_request_error", "code": "context_length_exceeded", "message": "long"},
            },
            400,
            "context_length_exceeded",
            "long",
            id="nested",
        ),
        pytest.param(
            {
                "type": "response.failed",
                "response": {"status": "failed", "error": {"code": "invalid_image_url", "message": "no image"}},
            },
            400,
            "invalid_image_url",
            "no image",
            id="failed-response",
        ),
        pytest.param(
            {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "broke"}}},
            502,
            "upstream_error",
            "the provider failed: broke",
            id="their-fault",
        ),
        pytest.param(
            {"type": "error", "code": "server_is_overloaded", "message": "busy"},
            502,
            "upstream_error",
            "the provider failed: busy",
            id="overloaded",
        ),
        pytest.param({"error": {"code": 429, "message": "slow"}}, 429, "429", "slow", id="a-gateways-number"),
        pytest.param(
            {"type": "error", "code": "invalid_api_key", "message": "Incorrect API key provided: sk-1"},
            502,
            "upstream_error",
            "the provider refused this gateway's key (400)",
            id="our-key",
        ),
        pytest.param(
            {"type": "response.failed", "response": {}}, 502, "upstream_error", "the provider failed", id="mute"
        ),
        pytest.param({"type": "response.failed"}, 502, "upstream_error", "the provider failed", id="empty"),
        pytest.param(b"<html>", 502, "upstream_error", "the provider failed", id="no-json"),
    ],
)
def test_a_providers_fault_is_understood(event, status, code, message):
    error = errors.told(event, nothing)
    assert (error.status, error.code, error.message) == (status, code, message)


def test_a_fault_that_may_be_retried_is_told_from_one_that_may_not():
    assert errors.told({"type": "error", "code": "server_error", "message": "x"}, nothing).retryable
    assert not errors.told({"type": "error", "code": "invalid_prompt", "message": "x"}, nothing).retryable


def test_configured_secrets_are_taken_out():
    def scrub(text: str) -> str:
        return text.replace("sk-secret", "[redacted]")

    error = errors.told({"type": "error", "code": "invalid_prompt", "message": "key sk-secret"}, scrub)
    assert error.message == "key [redacted]"
