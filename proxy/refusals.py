"""What a provider says when it says no, whatever shape it gives it: one reader that cannot fail.

Seen on the wire: OpenAI's envelope, a bare string under `error` (Ollama, xAI), a flat object
(Mistral, old vLLM), `errors[]` beside `success: false` (Cloudflare), a list of envelopes (Google),
`detail` as text or list (FastAPI), numeric codes (OpenRouter, vLLM), HTML, plain text, nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from proxy.errors import GatewayError, Maker, UpstreamError, UpstreamRefused

Scrub = Callable[[str], str]

_LONGEST = 2000  # characters of a provider's message that are passed on
_LONGEST_WORD = 200  # of its codes
_BAD_KEY = re.compile(
    r"(?i)\bapi[ _-]?key\b.*\b(invalid|incorrect|not valid|expired|missing)"
    r"|(invalid|incorrect|expired)\b.*\bapi[ _-]?key\b"
)


#: What clients of OpenAI's dialects are told where the provider's code is none of that.
_CODE = {413: "payload_too_large", 429: "rate_limit_exceeded"}


class Refusal(NamedTuple):
    """The provider's words; empty where it had none.  ``status`` is 0 where the body names none.

    ``maker`` says whose words ``type`` and ``code`` are.
    """

    message: str = ""
    type: str | None = None
    param: str | None = None
    code: str | None = None
    status: int = 0
    maker: Maker = Maker.OPENAI


def read_refusal(body: object) -> Refusal:
    """Find the message in a decoded error body, or in raw bytes."""
    if isinstance(body, bytes):
        try:
            body = orjson.loads(body)
        except orjson.JSONDecodeError:
            text = body.decode("utf-8", "replace").strip() if isinstance(body, bytes) else ""
            return Refusal("" if text.startswith("<") else text)
    listed = isinstance(body, list)
    if isinstance(body, list):
        body = body[0] if body else None
    if not isinstance(body, dict):
        return Refusal(body if isinstance(body, str) else "")
    error: Any = body.get("error") or body.get("errors") or body.get("detail")
    if isinstance(error, list):
        error = error[0] if error else None
    if isinstance(error, str):
        error = {"message": error, "code": body.get("code")}
    if not isinstance(error, dict):
        error = body
    message = error.get("message") or error.get("msg") or ""
    code, status = error.get("code"), 0
    for claimed in (code, error.get("status_code"), error.get("raw_status_code"), body.get("status_code")):
        if isinstance(claimed, int) and 400 <= claimed < 600:
            status = claimed
            break
    return Refusal(
        message if isinstance(message, str) else "",
        _word(error.get("type") or error.get("status")),
        _word(error.get("param")),
        _word(code),
        status,
        Maker.GOOGLE if listed else _maker(body, error),
    )


def _maker(body: dict[str, Any], error: dict[str, Any]) -> Maker:
    """Tell by its shape whose error it is: compatible endpoints of others say no in their own words."""
    if "type" not in error and isinstance(error.get("status"), str):
        return Maker.GOOGLE
    if body.get("success") is False and "errors" in body:
        return Maker.CLOUDFLARE
    # A stream of Responses wraps an error likewise, and has more to say of it.
    if body.get("type") == "error" and error is not body and error.keys().isdisjoint(("code", "param")):
        return Maker.ANTHROPIC
    return Maker.OPENAI


def refused(status: int, refusal: Refusal, scrub: Scrub, headers: dict[str, str] | None = None) -> GatewayError:
    """Say a provider's refusal as our error; its message loses configured secrets and hosts.

    ``status`` is 0 where the provider named none: inside a stream, or beside its 200.
    ``headers`` are those of the provider's answer that clients may see (`Retry-After`).
    """

    def told(word: str | None) -> str | None:
        return scrub(word)[:_LONGEST_WORD] if word else None

    message = scrub(refusal.message)[:_LONGEST]  # shortened only now, or half a secret would stand at its end
    named = f" ({status})" if status else ""
    bad_key = status in (0, 400) and (refusal.code == "invalid_api_key" or _BAD_KEY.search(message))
    if status in (401, 403) or bad_key:
        return UpstreamError(f"the provider refused this gateway's key{named}")
    if status in UpstreamRefused.KEPT:
        return UpstreamRefused(
            message or f"the provider answered {status}",
            status=status,
            type=told(refusal.type),
            param=told(refusal.param),
            code=told(refusal.code) if refusal.maker is Maker.OPENAI else _code(status, message),
            maker=refusal.maker,
            headers=headers,
        )
    if 300 <= status < 400:
        return UpstreamError(f"the provider answered {status}; redirects are not followed")
    failed = UpstreamError(f"the provider failed{named}" + (f": {message}" if message else ""))
    failed.reason = f"the provider failed{named}"
    failed.type, failed.maker = told(refusal.type), refusal.maker
    return failed


def _code(status: int, message: str) -> str | None:
    if status == 404 and "model" in message.lower():
        return "model_not_found"
    return _CODE.get(status)


def _word(value: object) -> str | None:
    if isinstance(value, bool) or value is None or value == "":
        return None
    return str(value) if isinstance(value, str | int) else None
