"""Helpers for what speaks chat completions."""

from __future__ import annotations

import json
from typing import Any


def nothing(text: str) -> str:
    """A scrub that has nothing to hide."""
    return text


def sse(*payloads: Any, end: bytes = b"\n") -> bytes:
    """Frames of ``payloads``: objects become JSON, bytes stay."""
    return b"".join(b"data: " + (p if isinstance(p, bytes) else dumps(p)) + end + end for p in payloads)


def dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def chunk(delta: Any = None, *, finish: Any = None, index: int = 0, **fields: Any) -> dict[str, Any]:
    """A chat completion chunk with one choice."""
    choice = {"index": index, "delta": {} if delta is None else delta, "finish_reason": finish}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "gpt-x"}
    return {**head, "choices": [choice], **fields}


def say(text: str, **fields: Any) -> dict[str, Any]:
    """A chunk of text."""
    return chunk({"content": text}, **fields)


def usage(prompt: int, completion: int, **more: Any) -> dict[str, Any]:
    """A usage object."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        **more,
    }
