"""What a stream of chat completion chunks must be for clients that join what they are told."""

from __future__ import annotations

import json
from typing import Any


def check(frames: bytes) -> None:
    """Role once and first, a call's id and name once, the finish reason once, usage last, then the end mark."""
    assert frames.endswith(b"\n\n"), "the last frame is not whole"
    lines = frames[:-2].split(b"\n\n")
    assert all(line.startswith(b"data: ") for line in lines), "a frame is not one data line with a space"
    told = [line[6:] for line in lines]
    failed = b'"error":' in told[-1]
    if not failed:
        assert told.pop() == b"[DONE]", "there is no end mark"
    chunks: list[dict[str, Any]] = [json.loads(data) for data in told]
    if failed:
        assert chunks.pop()["error"]["message"], "a fault says nothing"
    roles, finishes, calls = 0, 0, {}
    for position, chunk in enumerate(chunks):
        assert chunk["object"] == "chat.completion.chunk"
        assert chunk["id"] == chunks[0]["id"], "the id changes"
        assert chunk["model"] == chunks[0]["model"], "the model changes"
        if not chunk["choices"]:
            assert position == len(chunks) - 1, "usage is not the last chunk"
            assert chunk["usage"]["total_tokens"] >= 0
            continue
        assert not chunk.get("usage"), "usage on a chunk with choices"
        (choice,) = chunk["choices"]
        assert choice["index"] == 0
        delta = choice["delta"]
        roles += "role" in delta
        assert position or "role" in delta, "the first chunk says no role"
        finishes += choice["finish_reason"] is not None
        assert not finishes or not delta, "something is said after the finish reason"
        for call in delta.get("tool_calls", ()):
            index = call["index"]
            if index not in calls:
                assert call["id"], "a call begins without an id"
                assert call["function"]["name"], "a call begins without a name"
                assert index == len(calls), "calls are not counted from 0"
                calls[index] = ""
            else:
                assert "id" not in call, "a call's id is said twice"
                assert "name" not in call["function"], "a call's name is said twice"
            calls[index] += call["function"]["arguments"]
    assert roles <= 1, "the role is said twice"
    assert failed or finishes == 1, f"{finishes} finish reasons"
