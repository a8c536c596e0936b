"""The rules of Google's streams, for whatever is written in this dialect."""

from __future__ import annotations

from typing import Any

import orjson


def check(frames: bytes) -> None:
    """Check a stream that was asked for with `alt=sse`; raises ``AssertionError`` with a sentence."""
    assert frames.endswith(b"\n\n"), "the last frame has no end"
    chunks = []
    for raw in frames[:-2].split(b"\n\n"):
        assert raw.startswith(b"data: "), f"a frame is not `data: ` with the space: {raw[:40]!r}"
        assert b"\n" not in raw, f"a frame has more than one line: {raw[:40]!r}"
        data = raw[6:]
        assert data != b"[DONE]", "the dialect has no [DONE]"
        chunks.append(_loaded(data))
        if "error" in chunks[-1]:
            assert data.startswith(b'{"error":'), "`error` is not the first key"
    check_chunks(chunks)


def check_array(body: bytes) -> None:
    """Check a stream that was asked for without."""
    chunks = _loaded(body)
    assert isinstance(chunks, list), "the body is not an array"
    check_chunks(chunks)


def check_chunks(chunks: list[dict[str, Any]]) -> None:
    """Check what a stream says."""
    assert chunks, "the stream is empty"
    counted: dict[str, int] = {}
    for position, chunk in enumerate(chunks):
        last = position == len(chunks) - 1
        assert isinstance(chunk, dict), "a chunk is not an object"
        if "error" in chunk:
            assert last, "something follows an error"
            error = chunk["error"]
            assert set(error) == {"code", "message", "status"}, f"an error has other fields: {sorted(error)}"
            assert isinstance(error["code"], int), "an error's code is not a number"
            return
        counts = chunk.get("usageMetadata", {})
        for name, value in counts.items():
            assert isinstance(value, int), f"{name} is not a number"
            assert value >= counted.get(name, 0), f"{name} went down: the counts are of all so far"
        counted = counts or counted
        assert len(chunk["candidates"]) == 1, "a chunk has not one candidate"
        candidate = chunk["candidates"][0]
        assert candidate["index"] == 0, "the candidate is not the first"
        assert ("finishReason" in candidate) is last, (
            "the finish reason does not stand on the last chunk, and there only"
        )
        assert candidate["content"]["role"] == "model", "somebody else speaks"
        assert candidate["content"]["parts"], "a chunk says nothing"
        for part in candidate["content"]["parts"]:
            _check_part(part)


def _check_part(part: dict[str, Any]) -> None:
    kinds = [kind for kind in ("text", "functionCall") if kind in part]
    assert len(kinds) == 1, f"a part holds not one thing: {sorted(part)}"
    assert set(part) <= {*kinds, "thought", "thoughtSignature"}, f"a part has unknown fields: {sorted(part)}"
    if kinds == ["functionCall"]:
        call = part["functionCall"]
        assert call["name"], "a call has no name"
        assert isinstance(call["args"], dict), "a call's arguments are not an object"
    else:
        assert isinstance(part["text"], str), "a part's text is not text"


def _loaded(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise AssertionError(f"not JSON: {exc}") from None
