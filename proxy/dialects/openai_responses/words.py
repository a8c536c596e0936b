"""What reader and writer must agree on: why an answer stopped, and how its tokens are counted."""

from __future__ import annotations

from typing import Any

from proxy.events import Stop, Usage

NAME = "openai_responses"

#: Why a response is `incomplete`; every other stop completes it.
REASON: dict[Stop, str | None] = {
    Stop.END: None,
    Stop.TOOL_CALLS: None,
    Stop.STOP_SEQUENCE: None,
    Stop.LENGTH: "max_output_tokens",
    Stop.CONTENT_FILTER: "content_filter",
}


def stop_of(response: dict[str, Any], called: bool) -> Stop:
    """Say why a response ended; ``called``: it has a tool call."""
    if response.get("status") == "incomplete":
        details = response.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        return Stop.CONTENT_FILTER if reason == "content_filter" else Stop.LENGTH
    return Stop.TOOL_CALLS if called else Stop.END


def usage_of(usage: object) -> Usage | None:
    """Read a usage object."""
    if not isinstance(usage, dict):
        return None
    read, said = usage.get("input_tokens_details"), usage.get("output_tokens_details")
    return Usage(
        input=_count(usage, "input_tokens"),
        output=_count(usage, "output_tokens"),
        cached=_count(read, "cached_tokens"),
        cache_written=_count(read, "cache_write_tokens"),
        reasoning=_count(said, "reasoning_tokens"),
    )


def usage_words(usage: Usage) -> dict[str, Any]:
    """Say usage; clients want both details, always."""
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_written},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }


def _count(source: object, name: str) -> int:
    value = source.get(name) if isinstance(source, dict) else None
    return value if type(value) is int and value > 0 else 0  # true is no number here
