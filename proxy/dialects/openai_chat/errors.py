"""Faults in OpenAI's words: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import orjson

from proxy.errors import GatewayError, Kind, Maker, UpstreamRefused
from proxy.refusals import Scrub, read_refusal, refused
from proxy.sse import encode

TYPE: dict[Kind, str] = {
    Kind.INVALID_REQUEST: "invalid_request_error",
    Kind.UNAUTHORIZED: "authentication_error",
    Kind.FORBIDDEN: "permission_error",
    Kind.NOT_FOUND: "invalid_request_error",
    Kind.PAYLOAD_TOO_LARGE: "invalid_request_error",
    Kind.RATE_LIMITED: "rate_limit_error",
    Kind.INTERNAL_ERROR: "server_error",
    Kind.UPSTREAM_ERROR: "server_error",
    Kind.OVERLOADED: "server_error",
    Kind.TIMEOUT: "server_error",
}


#: Inside a stream the provider's words may be all there is; these are the statuses that go with them.
STATUS: dict[str, int] = {
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "not_found_error": 404,
    "model_not_found": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "tokens": 429,
    "requests": 429,
}


def body(error: GatewayError, request_id: str = "") -> bytes:
    """Render a whole error answer."""
    theirs = error.type if isinstance(error, UpstreamRefused) and error.maker is Maker.OPENAI else None
    return orjson.dumps(
        {
            "error": {
                "message": error.message,
                "type": theirs or TYPE[error.kind],
                "param": error.param,
                "code": error.code,
            }
        }
    )


def frame(error: GatewayError, request_id: str = "") -> bytes:
    """Render the frame that tells a fault inside a stream; clients raise on a top-level `error`."""
    return encode(body(error))


def theirs(body: object, scrub: Scrub) -> GatewayError:
    """Read what a provider says went wrong beside a 200; ``body`` is decoded, or raw bytes."""
    refusal = read_refusal(body)
    named = STATUS.get(refusal.code or "") or STATUS.get(refusal.type or "", 0)
    return refused(refusal.status or named, refusal, scrub)
