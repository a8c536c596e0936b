"""Chat completions that come whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from proxy.errors import UpstreamError
from proxy.refusals import Scrub, read_refusal, refused
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
        refusal = read_refusal(answer)
        raise refused(refusal.status, refusal, scrub)
    if not isinstance(answer.get(required), kind):
        raise UpstreamError(f"the provider's answer has no `{required}`")
    return answer


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
