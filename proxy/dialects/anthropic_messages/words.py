"""What both directions must agree on: why an answer stopped, how its tokens are counted, what a call is given."""

from __future__ import annotations

from typing import Any

import orjson

from proxy.events import Stop, Usage

STOP: dict[str, Stop] = {
    "end_turn": Stop.END,
    "max_tokens": Stop.LENGTH,
    "model_context_window_exceeded": Stop.LENGTH,
    "tool_use": Stop.TOOL_CALLS,
    "stop_sequence": Stop.STOP_SEQUENCE,
    "refusal": Stop.CONTENT_FILTER,
    "pause_turn": Stop.END,
}

REASON: dict[Stop, str] = {
    Stop.END: "end_turn",
    Stop.LENGTH: "max_tokens",
    Stop.TOOL_CALLS: "tool_use",
    Stop.CONTENT_FILTER: "refusal",
    Stop.STOP_SEQUENCE: "stop_sequence",
}

_INPUTS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


def merge_counts(known: dict[str, Any], news: object) -> dict[str, Any]:
    """Take over newer counts, which are cumulative.

    The input is told at the start, at the end, or at both; zeros at the end (gateways that have
    told it at the start) do not wipe it out.
    """
    if not isinstance(news, dict):
        return known
    fresh = {name: value for name, value in news.items() if value is not None}
    if not any(fresh.get(name) for name in _INPUTS):
        for name in _INPUTS:
            fresh.pop(name, None)
    return {**known, **fresh}


def usage_of(counts: dict[str, Any]) -> Usage:
    """Read a usage object; this dialect's input is what the cache had nothing to do with."""
    written, cached = _count(counts, "cache_creation_input_tokens"), _count(counts, "cache_read_input_tokens")
    return Usage(
        input=_count(counts, "input_tokens") + written + cached,
        output=_count(counts, "output_tokens"),
        cached=cached,
        cache_written=written,
        reasoning=_count(counts.get("output_tokens_details"), "thinking_tokens"),
    )


def usage_words(usage: Usage) -> dict[str, Any]:
    """Say usage; clients want all four numbers, always."""
    words: dict[str, Any] = {
        "input_tokens": max(0, usage.input - usage.cached - usage.cache_written),
        "cache_creation_input_tokens": usage.cache_written,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.output,
    }
    if usage.reasoning:
        words["output_tokens_details"] = {"thinking_tokens": usage.reasoning}
    return words


def arguments(text: str) -> dict[str, object]:
    """Read a call's arguments as the object that this dialect wants; broken ones (a cut answer) are none."""
    try:
        given = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return given if isinstance(given, dict) else {}


def _count(source: object, name: str) -> int:
    value = source.get(name) if isinstance(source, dict) else None
    return value if type(value) is int and value > 0 else 0  # true is no number here
