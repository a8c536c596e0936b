"""OpenRouter's `reasoning_details`: thoughts with what their maker wants back, as seals that other dialects carry.

A detail is words (`reasoning.text`, `reasoning.summary`), perhaps signed, or data that is not shown
(`reasoning.encrypted`); beside them stand `format`, `id` and `index`, without which it would be refused.
So the seal is all of the detail but its words, and a mark in front tells it from those of others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proxy.requests import Thinking

_MARK = "details:"
_WORDS = ("text", "summary")


def words(detail: dict[str, Any]) -> str:
    """What a detail says aloud."""
    return next((text for name in _WORDS if isinstance(text := detail.get(name), str) and text), "")


def seal(detail: dict[str, Any]) -> str:
    """Say a detail as a signature, or as data that is not shown; "" where nothing of it is wanted back."""
    if not (detail.get("signature") or detail.get("data")):
        return ""
    kept = {k: v for k, v in detail.items() if k not in _WORDS and isinstance(v, str | int | None)}
    return _MARK + orjson.dumps(kept).decode()


def details(thoughts: Iterable[Thinking]) -> list[dict[str, Any]]:
    """Write the thoughts that came in this form, as they came."""
    out = []
    for thought in thoughts:
        detail = _unsealed(thought.signature or thought.redacted)
        if detail is not None and thought.text:
            detail["summary" if detail.get("type") == "reasoning.summary" else "text"] = thought.text
        if detail is not None:
            out.append(detail)
    return out


def _unsealed(seal: str) -> dict[str, Any] | None:
    if not seal.startswith(_MARK):
        return None
    try:
        detail = orjson.loads(seal.removeprefix(_MARK))
    except orjson.JSONDecodeError:
        return None
    return detail if isinstance(detail, dict) else None
