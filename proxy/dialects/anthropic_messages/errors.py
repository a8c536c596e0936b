"""Faults in Anthropic's words: `{"type": "error", "error": {"type", "message"}, "request_id"}`."""

from __future__ import annotations

import orjson

from proxy.errors import GatewayError, Kind, UpstreamRefused
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

#: What clients know beside these; a provider of another dialect has words that they don't.
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
    word = error.type if isinstance(error, UpstreamRefused) and error.type in _KNOWN else None
    return orjson.dumps(
        {
            "type": "error",
            "error": {"type": word or TYPE[error.kind], "message": error.message},
            "request_id": request_id or None,
        }
    )


def frame(error: GatewayError, request_id: str = "") -> bytes:
    """Render the frame that tells a fault inside a stream; clients raise on its event name."""
    return encode(body(error, request_id), "error")


def theirs(body: object, scrub: Scrub) -> GatewayError:
    """Read what a provider says went wrong beside a 200; ``body`` is decoded, or raw bytes."""
    refusal = read_refusal(body)
    return refused(refusal.status or STATUS.get(refusal.type or "", 0), refusal, scrub)
