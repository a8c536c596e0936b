"""Faults in Anthropic's words: `{"type": "error", "error": {"type", "message"}, "request_id"}`."""

from __future__ import annotations

import orjson

from proxy.errors import GatewayError, Kind, Maker, UpstreamError, UpstreamRefused
from proxy.refusals import Scrub, read_refusal, refused
from proxy.sse import encode

TYPE: dict[Kind, str] = {
    Kind.INVALID_REQUEST: "invalid_request_error",
    Kind.UNAUTHORIZED: "authentication_error",
    Kind.FORBIDDEN: "permission_error",
    Kind.NOT_FOUND: "not_found_error",
    Kind.PAYLOAD_TOO_LARGE: "request_too_large",
    Kind.RATE_LIMITED: "rate_limit_error",
    Kind.INTERNAL_ERROR: "api_error",
    Kind.UPSTREAM_ERROR: "api_error",
    Kind.OVERLOADED: "overloaded_error",
    Kind.TIMEOUT: "timeout_error",
}

#: What clients know; others that speak this dialect have words that they don't.
_KNOWN = frozenset({*TYPE.values(), "billing_error", "conflict_error"})

#: Inside a stream the provider's word is all there is; these are the statuses that go with it.
STATUS: dict[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


def body(error: GatewayError, request_id: str = "") -> bytes:
    """Render a whole error answer."""
    return _body(error, request_id, _own(error) if isinstance(error, UpstreamRefused) else None)


def frame(error: GatewayError, request_id: str = "") -> bytes:
    """Render the frame that tells a fault inside a stream; clients raise on its event name.

    No status stands beside the word here: that a provider is overloaded is told in its own.
    """
    return encode(_body(error, request_id, _own(error)), "error")


def _own(error: GatewayError) -> str | None:
    """The word of a provider that speaks this dialect."""
    theirs = error.type if isinstance(error, UpstreamError) and error.maker is Maker.ANTHROPIC else None
    return theirs if theirs in _KNOWN else None


def _body(error: GatewayError, request_id: str, word: str | None) -> bytes:
    said = {"type": word or TYPE[error.kind], "message": error.message}
    return orjson.dumps({"type": "error", "error": said, "request_id": request_id or None})


def theirs(body: object, scrub: Scrub) -> GatewayError:
    """Read what a provider says went wrong beside a 200; ``body`` is decoded, or raw bytes."""
    refusal = read_refusal(body)
    return refused(refusal.status or STATUS.get(refusal.type or "", 0), refusal, scrub)
