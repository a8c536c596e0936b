"""What a stream of this dialect has to look like for its strictest client."""

from __future__ import annotations

import json
from typing import Any

NUMBERS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")
DELTAS: dict[str, set[str]] = {
    "text": {"text_delta", "citations_delta"},
    "thinking": {"thinking_delta", "signature_delta"},
    "tool_use": {"input_json_delta"},
    "redacted_thinking": set(),
}
REASONS = {"end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"}


def check(frames: bytes) -> None:
    """Raise ``AssertionError`` with a sentence where the stream is not well formed."""
    assert b"[DONE]" not in frames, "there is no [DONE] in this dialect"
    assert frames.endswith(b"\n\n"), "the last frame is not whole"
    told = [_frame(raw) for raw in frames[:-2].split(b"\n\n")]
    told = [data for data in told if data["type"] != "ping"]
    assert told, "nothing was said"
    if told[-1]["type"] == "error":
        _error(told.pop())
        complete = False
    else:
        assert told[-1]["type"] == "message_stop", "the stream ends neither with message_stop nor with an error"
        told.pop()
        complete = True
    if not told:
        assert not complete, "message_stop without a message"
        return
    _message_start(told[0])
    ended = _blocks(told[1:])
    assert ended or not complete, "message_stop without a message_delta before it"


def _frame(raw: bytes) -> dict[str, Any]:
    lines = raw.split(b"\n")
    assert len(lines) == 2, f"a frame is an event line and a data line, not {raw!r}"
    assert lines[0].startswith(b"event: "), f"no event line: clients lose {raw!r}"
    assert lines[1].startswith(b"data: "), f"no data line in {raw!r}"
    data = json.loads(lines[1][6:])
    assert data["type"] == lines[0][7:].decode(), f"the event line contradicts the type in {raw!r}"
    return data


def _error(data: dict[str, Any]) -> None:
    assert isinstance(data["error"]["type"], str), "an error has a type"
    assert data["error"]["message"], "an error has a message"


def _message_start(data: dict[str, Any]) -> None:
    assert data["type"] == "message_start", f"the first frame is {data['type']}"
    message = data["message"]
    assert message["type"] == "message", "message_start holds a message"
    assert message["role"] == "assistant", "the assistant speaks"
    assert message["content"] == [], "content begins empty"
    assert message["stop_reason"] is None, "no stop reason is known at the start"
    assert message["stop_sequence"] is None, "no stop sequence is known at the start"
    assert message["id"], "a message has an id"
    assert isinstance(message["model"], str), "a message has a model"
    _usage(message["usage"])
    assert message["usage"]["output_tokens"] > 0, "output_tokens are small at the start, but not 0"


def _usage(usage: dict[str, Any]) -> None:
    for name in NUMBERS:
        assert type(usage.get(name)) is int, f"usage lacks {name}"
        assert usage[name] >= 0, f"{name} is negative"
    assert any(usage[name] for name in NUMBERS[:3]), "an input of 0 tokens breaks Claude Code's meter"


def _blocks(told: list[dict[str, Any]]) -> bool:
    count, block, signed, argued = 0, None, False, ""
    arguments: list[str] = []
    for data in told:
        match data["type"]:
            case "content_block_start":
                assert block is None, f"block {data['index']} begins while another is open"
                assert data["index"] == count, f"block {data['index']} is the {count + 1}. one"
                block, signed, argued = data["content_block"], False, ""
                _empty(block)
            case "content_block_delta":
                assert block is not None, "a delta outside of a block"
                assert data["index"] == count, f"a delta of block {data['index']} inside block {count}"
                kind = data["delta"]["type"]
                assert kind in DELTAS[block["type"]], f"{kind} inside a {block['type']} block"
                assert not signed, "something follows the signature of a block"
                signed = kind == "signature_delta"
                argued += data["delta"].get("partial_json", "")
            case "content_block_stop":
                assert block is not None, "a block is closed that is not open"
                assert data["index"] == count, f"block {data['index']} is closed, {count} is open"
                if block["type"] == "tool_use":
                    arguments.append(argued)
                block = None
                count += 1
            case "message_delta":
                assert block is None, "the message ends inside a block"
                assert data is told[-1], "something stands between message_delta and message_stop"
                reason, sequence = data["delta"]["stop_reason"], data["delta"]["stop_sequence"]
                assert reason in REASONS, f"{reason} is no stop reason"
                assert sequence is None or reason == "stop_sequence", "a stop sequence, but another stop reason"
                _usage(data["usage"])
                if reason != "max_tokens":
                    for text in arguments:
                        assert isinstance(json.loads(text or "{}"), dict), f"arguments are no object: {text}"
                return True
            case kind:
                raise AssertionError(f"{kind} has no place here")
    return False


def _empty(block: dict[str, Any]) -> None:
    match block["type"]:
        case "text":
            assert block["text"] == "", "a text block begins empty"
        case "thinking":
            assert (block["thinking"], block["signature"]) == ("", ""), "a thinking block begins empty"
        case "tool_use":
            assert block["id"], "a call has an id"
            assert block["name"], "a call has a name"
            assert block["input"] == {}, "the input of a call begins empty"
        case "redacted_thinking":
            assert block["data"], "redacted thoughts come whole"
        case kind:
            raise AssertionError(f"{kind} is no block that we write")
