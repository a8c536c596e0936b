"""Faults in OpenAI's words: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import orjson

from proxy.errors import GatewayError, Kind, UpstreamRefused
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


def body(error: GatewayError, request_id: str = "") -> bytes:
    """Render a whole error answer."""
    theirs = error.type if isinstance(error, UpstreamRefused) else None
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
