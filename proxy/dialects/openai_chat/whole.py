"""Chat completions that come whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import orjson

from proxy.dialects.openai_chat.errors import theirs
from proxy.errors import UpstreamError
from proxy.refusals import Scrub
from proxy.sse import DONE, encode


def check(body: bytes, scrub: Scrub, required: str = "choices", kind: type = list) -> dict[str, Any]:
    """Decode a provider's whole answer; it must be an object with ``required``, a ``kind``.

    DeepSeek sends blank lines while it works, and some providers answer 200 with an error.
    """
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise UpstreamError("the provider's answer is not JSON") from None
    if not isinstance(answer, dict):
        raise UpstreamError("the provider's answer is not a JSON object")
    if answer.get("error") or answer.get("success") is False or answer.get("object") == "error":
        raise theirs(answer, scrub)
    if not isinstance(answer.get(required), kind):
        raise UpstreamError(f"the provider's answer has no `{required}`")
    return answer


class _Glance(msgspec.Struct):
    """A good answer, as far as it must be looked at: what is strange in it makes it no such thing."""

    choices: list[msgspec.Raw]
    #: For orjson: msgspec's integers have no bound, and are counted.
    usage: msgspec.Raw = msgspec.Raw(b"null")
    object: str | None = None
    error: None = None
    success: bool | None = None


_glance = msgspec.json.Decoder(_Glance).decode


def usage_in(body: bytes, scrub: Scrub) -> dict[str, Any] | None:
    """Check a completion that goes on as it is, and find its usage.  Raises ``GatewayError`` as `check` does."""
    try:
        if not body.isascii():
            body.decode()
        answer = _glance(body)
        usage = orjson.loads(bytes(answer.usage))
        good = answer.success is not False and answer.object != "error"
    except (ValueError, RecursionError):
        good = False
    if not good:  # whatever it is, `check` has the words for it
        usage = check(body, scrub).get("usage")
    return usage if isinstance(usage, dict) else None


def as_stream(answer: dict[str, Any], *, include_usage: bool) -> Iterator[bytes]:
    """Say a whole answer as the stream that was asked for, ended as streams end."""
    head = {k: v for k, v in answer.items() if k not in ("choices", "usage", "object")}
    kind = "chat.completion.chunk"
    choices = [c for c in answer["choices"] if isinstance(c, dict)]
    if any("text" in c for c in choices):  # a completion of the old kind is its own chunk
        yield encode(orjson.dumps({**head, "object": answer.get("object", "text_completion"), "choices": choices}))
    else:
        for position, choice in enumerate(choices):
            index = choice.get("index", position)
            rest = {k: v for k, v in choice.items() if k not in ("message", "delta", "finish_reason", "index")}
            said = {"index": index, "delta": _delta(choice.get("message")), "finish_reason": None, **rest}
            ended = {"index": index, "delta": {}, "finish_reason": choice.get("finish_reason") or "stop"}
            yield encode(orjson.dumps({**head, "object": kind, "choices": [said]}))
            yield encode(orjson.dumps({**head, "object": kind, "choices": [ended]}))
    if include_usage and answer.get("usage"):
        yield encode(orjson.dumps({**head, "object": kind, "choices": [], "usage": answer["usage"]}))
    yield encode(DONE)


def _delta(message: object) -> dict[str, Any]:
    delta = {"role": "assistant", **(message if isinstance(message, dict) else {})}
    calls = delta.get("tool_calls")
    if isinstance(calls, list):
        delta["tool_calls"] = [{"index": i, **c} if isinstance(c, dict) else c for i, c in enumerate(calls)]
    return delta
