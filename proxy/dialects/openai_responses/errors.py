"""Faults in this dialect's words, and a provider's faults in ours.

A whole answer has OpenAI's envelope.  A stream tells a fault twice, as OpenAI does: an `error` event,
then `response.failed`.  Codex and the AI SDK act on the second; the official SDKs raise on a frame with
a top-level `error` and would take any other end for a short answer.  So the first has the documented
flat fields and the envelope besides.
"""

from __future__ import annotations

from typing import Any

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

#: What `response.error.code` says: the dialect has a closed list, and clients retry on `server_error`.
CODE: dict[Kind, str] = {
    Kind.INVALID_REQUEST: "invalid_prompt",
    Kind.UNAUTHORIZED: "invalid_api_key",
    Kind.FORBIDDEN: "invalid_prompt",
    Kind.NOT_FOUND: "model_not_found",
    Kind.PAYLOAD_TOO_LARGE: "invalid_prompt",
    Kind.RATE_LIMITED: "rate_limit_exceeded",
    Kind.INTERNAL_ERROR: "server_error",
    Kind.UPSTREAM_ERROR: "server_error",
    Kind.OVERLOADED: "server_error",
    Kind.TIMEOUT: "server_error",
}

#: What a provider's code for a fault inside a stream would have been as a status.
STATUS: dict[str, int] = {
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "usage_not_included": 429,
    "context_length_exceeded": 400,
    "bio_policy": 400,
    "misalignment_policy_violation": 400,
    "image_too_large": 400,
    "image_too_small": 400,
    "image_parse_error": 400,
    "image_content_policy_violation": 400,
    "image_file_too_large": 400,
    "image_file_not_found": 400,
    "empty_image_file": 400,
    "unsupported_image_media_type": 400,
    "failed_to_download_image": 400,
    "model_not_found": 404,
}


def body(error: GatewayError, request_id: str = "") -> bytes:
    """Render a whole error answer."""
    return orjson.dumps({"error": _envelope(error)})


def frame(error: GatewayError, request_id: str = "", *, id: str = "", number: int = 0) -> bytes:
    """Render the frames that tell a fault inside a stream.

    ``id`` is the response's, where it is known, and ``number`` the next event's.
    """
    return tell(error, orjson.dumps({**_BARE, "id": id, "error": words(error)}), number)


def tell(error: GatewayError, response: bytes, number: int) -> bytes:
    """Render a fault before ``response``, an object that failed; ``number`` is the next event's."""
    said = words(error)
    first = {
        "type": "error",
        "sequence_number": number,
        **said,
        "param": error.param,
        "error": _envelope(error, **said),
    }
    last = {"type": "response.failed", "sequence_number": number + 1, "response": orjson.Fragment(response)}
    return encode(orjson.dumps(first), "error") + encode(orjson.dumps(last), "response.failed")


def words(error: GatewayError) -> dict[str, str]:
    """Say a fault as a response object does; a provider's own code is kept, clients act on it."""
    theirs = error.code if isinstance(error, UpstreamRefused) and error.maker is Maker.OPENAI else None
    return {"code": theirs or CODE[error.kind], "message": error.message}


def _envelope(error: GatewayError, **instead: str) -> dict[str, str | None]:
    theirs = error.type if isinstance(error, UpstreamRefused) and error.maker is Maker.OPENAI else None
    return {
        "message": error.message,
        "type": theirs or TYPE[error.kind],
        "param": error.param,
        "code": error.code,
        **instead,
    }


#: The least that clients take for a response object.
_BARE: dict[str, Any] = {
    "id": "",
    "object": "response",
    "created_at": 0,
    "status": "failed",
    "model": "",
    "output": [],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": None,
}


# A provider's faults...


def is_fault(event: dict[str, Any], name: str) -> bool:
    """Does a frame say that there will be no answer?  ``name`` is from its `event:` line."""
    kind = event.get("type")
    return kind in ("error", "response.failed") or name == "error" or (bool(event.get("error")) and kind is None)


def told(event: object, scrub: Scrub) -> GatewayError:
    """Read a fault: flat, in an envelope, or in a response object that failed."""
    if isinstance(event, dict) and not event.get("error") and isinstance(event.get("response"), dict):
        event = event["response"]
    refusal = read_refusal(event)
    if refusal.type in ("error", "response.failed"):  # the event's type, not the fault's
        refusal = refusal._replace(type=None)
    return refused(refusal.status or _status(refusal.code or "", refusal.type or ""), refusal, scrub)


def _status(code: str, type: str) -> int:
    if code.startswith("invalid_") or type == "invalid_request_error":
        return STATUS.get(code, 400)
    return STATUS.get(code, 0)
