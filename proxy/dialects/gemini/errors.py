"""Faults in Google's words: `{"error": {"code", "message", "status"}}`, `error` being the first key."""

from __future__ import annotations

from typing import Any

import orjson

from proxy.errors import GatewayError, Kind, Maker, UpstreamRefused
from proxy.sse import encode

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

#: What clients know beside these of the words that go with a status that is kept.
_KNOWN = frozenset({*STATUS.values(), "FAILED_PRECONDITION", "OUT_OF_RANGE"})
_RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"


def body(error: GatewayError, request_id: str = "") -> bytes:
    """Render a whole error answer; the dialect has no place for a ``request_id``."""
    word = error.type if isinstance(error, UpstreamRefused) and error.maker is Maker.GOOGLE else None
    status = word if word in _KNOWN else STATUS[error.kind]
    return orjson.dumps({"error": {"code": error.status, "message": error.message, "status": status}})


def frame(error: GatewayError, request_id: str = "") -> bytes:
    """Render the frame that tells a fault inside a stream; Google's SDK looks whether it begins with `error`."""
    return encode(body(error, request_id))


# The provider's own...


def retry_after(refusal: bytes) -> float | None:
    """Find the pause that Google asks for, in seconds: it stands in the error's details, not in a header."""
    try:
        told: Any = orjson.loads(refusal)
    except orjson.JSONDecodeError:
        return None
    if isinstance(told, list) and told:
        told = told[0]
    error = told.get("error") if isinstance(told, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and detail.get("@type") == _RETRY_INFO:
            try:
                return float(str(detail.get("retryDelay")).removesuffix("s"))
            except ValueError:
                return None
    return None
