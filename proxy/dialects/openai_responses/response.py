"""The response object around an answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from proxy.dialects.openai_responses.words import usage_words

if TYPE_CHECKING:
    from proxy.events import Usage

#: What the object says of its request where the request said nothing; clients count on every field.
_DEFAULTS: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "temperature": None,
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}
#: What it says whatever was asked: nothing is stored, and no tier is ours to give.
_FIXED: dict[str, Any] = {
    "background": False,
    "previous_response_id": None,
    "service_tier": "default",
    "store": False,
}


class Response:
    """One response object, as it is told at the start and at the end.

    What it echoes of the request (an agent's instructions and tools: a hundred kilobytes) is rendered once.
    """

    def __init__(self, id: str, model: str, sent: dict[str, Any]) -> None:
        """``sent`` are the request's fields."""
        self._head = {"id": id, "object": "response", "created_at": int(time.time())}
        self._model = model
        self._echo = _echo(sent)

    def render(
        self,
        status: str,
        output: list[dict[str, Any]],
        usage: Usage | None = None,
        *,
        reason: str | None = None,
        error: dict[str, str] | None = None,
    ) -> bytes:
        """Say how far the response has come; ``reason`` is why it is incomplete."""
        told = {
            **self._head,
            "status": status,
            "completed_at": int(time.time()) if status == "completed" else None,
            "error": error,
            "incomplete_details": {"reason": reason} if reason else None,
            "model": self._model,
            "output": output,
            "usage": usage_words(usage) if usage is not None else None,  # zeros are told, too
        }
        return orjson.dumps(told)[:-1] + b"," + self._echo


def _echo(sent: dict[str, Any]) -> bytes:
    echo = {name: sent.get(name, default) for name, default in _DEFAULTS.items()}
    for name, least in (("text", {"format": {"type": "text"}}), ("reasoning", {"effort": None, "summary": None})):
        given = sent.get(name)
        echo[name] = {**least, **given} if isinstance(given, dict) else least
    try:
        return msgspec.json.encode({**echo, **_FIXED})[1:]
    except RecursionError:  # a schema at the very limit of what could be read
        return _echo({})
