"""Workers AI's whole answers: an envelope around a result, whose shape is the model's.

`response` as text, object (JSON mode) or null, OpenAI's `choices`, or the Responses shape of gpt-oss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from proxy.dialects.workers_ai.reader import Reader
from proxy.dialects.workers_ai.refusals import refusal_of
from proxy.errors import UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from proxy.events import Event
    from proxy.refusals import Scrub

_SHAPES = frozenset({"response", "tool_calls", "choices", "output"})


def read_whole(
    body: bytes, scrub: Scrub, *, max_tokens: int | None = None, new_id: Callable[[], str] | None = None
) -> Iterator[Event]:
    """Read an answer that came whole; ``max_tokens`` and ``new_id`` as for `Reader`.  Raises ``GatewayError``."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise UpstreamError("the provider's answer is not JSON") from None
    if not isinstance(answer, dict):
        raise UpstreamError("the provider's answer is not a JSON object")
    if answer.get("success") is False or answer.get("errors") or answer.get("error"):
        raise refusal_of(answer, scrub)
    result = answer.get("result", answer)
    if isinstance(result, str):
        result = {"response": result}
    if not isinstance(result, dict) or _SHAPES.isdisjoint(result):
        raise UpstreamError("the provider's answer has no result")
    reader = Reader(scrub, max_tokens=max_tokens, new_id=new_id)
    yield from reader.chunk(_as_chunk(result) if "output" in result and "choices" not in result else result)
    yield from reader.end()


def _as_chunk(response: dict[str, Any]) -> dict[str, Any]:
    """Say the Responses shape as the chunk that the reader knows."""
    thoughts: list[str] = []
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    for item in _objects(response.get("output")):
        match item.get("type"):
            case "reasoning":
                thoughts += _texts(item.get("content")) or _texts(item.get("summary"))
            case "message":
                texts += _texts(item.get("content"))
            case "function_call":
                calls.append({**item, "id": item.get("call_id") or item.get("id")})
    cut = response.get("status") == "incomplete"
    return {
        "id": response.get("id"),
        "model": response.get("model"),
        "usage": response.get("usage"),
        "choices": [
            {
                "message": {"reasoning": "".join(thoughts), "content": "".join(texts), "tool_calls": calls},
                "finish_reason": "length" if cut else None,
            }
        ],
    }


def _texts(parts: object) -> list[str]:
    return [text for part in _objects(parts) if isinstance(text := part.get("text"), str)]


def _objects(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
