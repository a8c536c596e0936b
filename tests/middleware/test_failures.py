"""Every kind of fault in every form: the contract's table."""

from __future__ import annotations

import json
import re

import pytest

from proxy.errors import (
    Forbidden,
    GatewayError,
    InternalError,
    InvalidRequest,
    Kind,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    RateLimited,
    TimedOut,
    Unauthorized,
    UpstreamError,
    UpstreamRefused,
)
from proxy.middleware.failures import GEMINI, OPENAI, SIMPLE

#: Fault, status, the simple word, OpenAI's type and code, Gemini's status.
TABLE = [
    (InvalidRequest("no", param="x"), 400, "invalid_request", "invalid_request_error", None, "INVALID_ARGUMENT"),
    (InvalidRequest("no", status=415), 415, "invalid_request", "invalid_request_error", None, "INVALID_ARGUMENT"),
    (Unauthorized("no"), 401, "unauthorized", "authentication_error", "invalid_api_key", "UNAUTHENTICATED"),
    (Forbidden("no"), 403, "forbidden", "permission_error", None, "PERMISSION_DENIED"),
    (NotFound("no"), 404, "not_found", "invalid_request_error", None, "NOT_FOUND"),
    (
        NotFound("no", param="model", code="model_not_found"),
        404,
        "not_found",
        "invalid_request_error",
        "model_not_found",
        "NOT_FOUND",
    ),
    (MethodNotAllowed("PUT", "/", ["GET"]), 405, "not_found", "invalid_request_error", None, "NOT_FOUND"),
    (
        PayloadTooLarge(1, "limits.max_body_bytes"),
        413,
        "payload_too_large",
        "invalid_request_error",
        "payload_too_large",
        "INVALID_ARGUMENT",
    ),
    (
        RateLimited("no", retry_after=3),
        429,
        "rate_limited",
        "rate_limit_error",
        "rate_limit_exceeded",
        "RESOURCE_EXHAUSTED",
    ),
    (InternalError("req_1"), 500, "internal_error", "server_error", "internal_error", "INTERNAL"),
    (UpstreamError("no"), 502, "upstream_error", "server_error", "upstream_error", "INTERNAL"),
    (Overloaded("no", retry_after=3), 503, "overloaded", "server_error", "overloaded", "UNAVAILABLE"),
    (TimedOut("idle", 1, "silence"), 504, "timeout", "server_error", "timeout", "DEADLINE_EXCEEDED"),
    (
        UpstreamRefused("no", status=429, type="tokens", code="slow"),
        429,
        "rate_limited",
        "tokens",
        "slow",
        "RESOURCE_EXHAUSTED",
    ),
    (UpstreamRefused("no", status=422), 422, "invalid_request", "invalid_request_error", None, "INVALID_ARGUMENT"),
]
CASES = pytest.mark.parametrize(
    ("error", "status", "kind", "type", "code", "google"),
    TABLE,
    ids=[f"{type(row[0]).__name__}-{row[1]}-{row[4]}" for row in TABLE],
)


@CASES
def test_whole_answers(error, status, kind, type, code, google):
    assert error.status == status
    assert json.loads(OPENAI.body(error)) == {
        "error": {"message": error.message, "type": type, "param": error.param, "code": code}
    }
    assert json.loads(GEMINI.body(error)) == {
        "error": {"code": status, "message": error.message, "status": google},
    }
    simple = json.loads(SIMPLE.body(error))
    assert list(simple) == ["error", "details", "timestamp"]
    assert (simple["error"], simple["details"]) == (kind, error.message)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", simple["timestamp"])


@CASES
@pytest.mark.parametrize("form", [OPENAI, SIMPLE, GEMINI], ids=["openai", "simple", "gemini"])
def test_frames_hold_the_same_on_one_line(form, error, status, kind, type, code, google):
    frame = form.frame(error)
    assert frame.startswith(b"data: {")
    assert frame.endswith(b"}\n\n")
    assert frame.count(b"\n") == 2
    told, whole = json.loads(frame[6:]), json.loads(form.body(error))
    told.pop("timestamp", None)
    whole.pop("timestamp", None)
    assert told == whole


def test_the_table_has_every_kind():
    assert {row[0].kind for row in TABLE} == set(Kind)


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (Unauthorized("no"), {"WWW-Authenticate": "Bearer"}),
        (MethodNotAllowed("PUT", "/", ["GET", "HEAD"]), {"Allow": "GET, HEAD"}),
        (RateLimited("no", retry_after=2.6), {"Retry-After": "3"}),
        (RateLimited("no", retry_after=0, headers={"x": "y"}), {"Retry-After": "1", "x": "y"}),
        (Overloaded("no"), {"Retry-After": "1"}),
        (GatewayError("no"), {}),
    ],
    ids=["401", "405", "429", "429-at-least-a-second", "503", "others-none"],
)
def test_headers_that_belong_to_a_fault(error, headers):
    assert error.headers == headers


async def test_a_mistake_of_ours_is_one_line_in_the_log_and_says_nothing_to_the_client(gateway, monkeypatch, caplog):
    def broken(*_: object) -> None:
        raise RuntimeError("the prompt was: secret")

    gw = await gateway()
    monkeypatch.setattr("proxy.models.json_response", broken)
    answer = await gw.request("GET", "/v1/models", headers={"X-Request-ID": "trace-1"})
    error = (await answer.json())["error"]
    assert answer.status == 500
    assert error == {
        "message": "internal error; request id trace-1",
        "type": "server_error",
        "param": None,
        "code": "internal_error",
    }
    (record,) = caplog.records
    assert record.getMessage() == "request trace-1 failed"
    assert (await gw.request("GET", "/health")).status == 200


async def test_a_mistake_outside_of_it_is_told_and_logged_too(gateway, monkeypatch, caplog):
    gw = await gateway()
    monkeypatch.setattr(gw.server.gateway.metrics, "settle", lambda *_: 1 / 0)
    answer = await gw.request("GET", "/health", headers={"X-Request-ID": "trace-1"})
    told = await answer.json()
    assert (answer.status, told["error"]) == (500, "internal_error")
    assert answer.values("x-request-id") == ["trace-1"]
    assert told["details"] == "internal error; request id trace-1"
    assert answer.header("access-control-allow-origin") == "*"
    assert [record.getMessage() for record in caplog.records] == ["request trace-1 failed outside of its middleware"]
