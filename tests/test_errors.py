"""The faults that clients are told of: their kinds, statuses and headers."""

from __future__ import annotations

import pytest

from proxy import errors
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

EVERY = [
    pytest.param(InvalidRequest("x"), Kind.INVALID_REQUEST, 400, None, id="invalid-request"),
    pytest.param(InvalidRequest("x", status=415), Kind.INVALID_REQUEST, 415, None, id="content-type"),
    pytest.param(Unauthorized("x"), Kind.UNAUTHORIZED, 401, "invalid_api_key", id="unauthorized"),
    pytest.param(Forbidden("x"), Kind.FORBIDDEN, 403, None, id="forbidden"),
    pytest.param(NotFound("x"), Kind.NOT_FOUND, 404, None, id="no-path"),
    pytest.param(NotFound("x", code="model_not_found"), Kind.NOT_FOUND, 404, "model_not_found", id="no-model"),
    pytest.param(MethodNotAllowed("PUT", "/x", ["GET"]), Kind.NOT_FOUND, 405, None, id="method"),
    pytest.param(PayloadTooLarge(1, "s"), Kind.PAYLOAD_TOO_LARGE, 413, "payload_too_large", id="too-large"),
    pytest.param(RateLimited("x", retry_after=1), Kind.RATE_LIMITED, 429, "rate_limit_exceeded", id="rate-limited"),
    pytest.param(InternalError("req_1"), Kind.INTERNAL_ERROR, 500, "internal_error", id="internal"),
    pytest.param(UpstreamError("x"), Kind.UPSTREAM_ERROR, 502, "upstream_error", id="upstream"),
    pytest.param(UpstreamRefused("x", status=400), Kind.INVALID_REQUEST, 400, None, id="refused-400"),
    pytest.param(UpstreamRefused("x", status=404), Kind.NOT_FOUND, 404, None, id="refused-404"),
    pytest.param(UpstreamRefused("x", status=413), Kind.PAYLOAD_TOO_LARGE, 413, None, id="refused-413"),
    pytest.param(UpstreamRefused("x", status=422), Kind.INVALID_REQUEST, 422, None, id="refused-422"),
    pytest.param(UpstreamRefused("x", status=429), Kind.RATE_LIMITED, 429, None, id="refused-429"),
    pytest.param(Overloaded("x"), Kind.OVERLOADED, 503, "overloaded", id="overloaded"),
    pytest.param(TimedOut("idle", 1, "x"), Kind.TIMEOUT, 504, "timeout", id="timed-out"),
]


@pytest.mark.parametrize(("error", "kind", "status", "code"), EVERY)
def test_the_table_of_the_contract(error, kind, status, code):
    assert (error.kind, error.status, error.code) == (kind, status, code)


def test_every_kind_and_every_class_is_in_the_table():
    assert {param.values[1] for param in EVERY} == set(Kind)
    classes = {each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, GatewayError)}
    assert {type(param.values[0]) for param in EVERY} == classes - {GatewayError}


@pytest.mark.parametrize(("error", "kind", "status", "code"), EVERY)
def test_another_deployment_is_asked_where_the_fault_was_not_the_clients(error, kind, status, code):
    assert error.retryable == (status >= 500 and kind is not Kind.INTERNAL_ERROR)


@pytest.mark.parametrize(("error", "kind", "status", "code"), EVERY)
def test_the_log_says_why_where_that_is_not_in_a_clients_or_providers_words(error, kind, status, code):
    if isinstance(error, InvalidRequest | Unauthorized | Forbidden | NotFound | UpstreamRefused):
        assert error.reason in ("", f"the provider answered {status}")
    elif isinstance(error, UpstreamError | Overloaded | RateLimited | TimedOut):
        assert error.reason == error.message


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        pytest.param(Unauthorized("x"), {"WWW-Authenticate": "Bearer"}, id="how-to-authenticate"),
        pytest.param(MethodNotAllowed("PUT", "/x", ["GET", "HEAD"]), {"Allow": "GET, HEAD"}, id="what-is-allowed"),
        pytest.param(RateLimited("x", retry_after=7), {"Retry-After": "7"}, id="when-to-come-back"),
        pytest.param(RateLimited("x", retry_after=7.2), {"Retry-After": "8"}, id="not-before-it-is-time"),
        pytest.param(RateLimited("x", retry_after=0), {"Retry-After": "1"}, id="never-at-once"),
        pytest.param(RateLimited("x", retry_after=2, headers={"a": "b"}), {"Retry-After": "2", "a": "b"}, id="others"),
        pytest.param(Overloaded("x"), {"Retry-After": "1"}, id="no-room"),
        pytest.param(Overloaded("x", retry_after=1.01), {"Retry-After": "2"}, id="no-room-for-a-while"),
        pytest.param(UpstreamRefused("x", status=429, headers={"Retry-After": "9"}), {"Retry-After": "9"}, id="theirs"),
        pytest.param(InvalidRequest("x"), {}, id="none"),
    ],
)
def test_headers(error, headers):
    assert error.headers == headers


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PayloadTooLarge(1_048_576, "limits.x"), "the request body is larger than 1048576 bytes (limits.x)"),
        (TimedOut("first_byte", 0.5, "no answer"), "no answer for 0.5 s (timeouts.first_byte)"),
        (TimedOut("idle", 120.0, "silence"), "silence for 120 s (timeouts.idle)"),
        (InternalError("req_1"), "internal error; request id req_1"),
        (MethodNotAllowed("PUT", "/x", ["GET", "HEAD"]), "/x does not take PUT; it takes GET, HEAD"),
    ],
)
def test_messages_say_the_number_and_the_setting(error, message):
    assert error.message == str(error) == message
