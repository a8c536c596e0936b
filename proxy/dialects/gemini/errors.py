"""Faults in Google's words: `{"error": {"code", "message", "status"}}`, `error` being the first key."""

from __future__ import annotations

import orjson

from proxy.errors import GatewayError, Kind

STATUS: dict[Kind, str] = {
    Kind.INVALID_REQUEST: "INVALID_ARGUMENT",
    Kind.UNAUTHORIZED: "UNAUTHENTICATED",
    Kind.FORBIDDEN: "PERMISSION_DENIED",
    Kind.NOT_FOUND: "NOT_FOUND",
    Kind.PAYLOAD_TOO_LARGE: "INVALID_ARGUMENT",
    Kind.RATE_LIMITED: "RESOURCE_EXHAUSTED",
    Kind.INTERNAL_ERROR: "INTERNAL",
    Kind.UPSTREAM_ERROR: "INTERNAL",
    Kind.OVERLOADED: "UNAVAILABLE",
    Kind.TIMEOUT: "DEADLINE_EXCEEDED",
}


def body(error: GatewayError) -> bytes:
    """Render a whole error answer."""
    return orjson.dumps({"error": {"code": error.status, "message": error.message, "status": STATUS[error.kind]}})
