"""Streams of real providers through both kinds of pipe."""

from __future__ import annotations

import orjson

from proxy.dialects import simple_chat
from proxy.dialects.openai_chat import errors
from proxy.dialects.openai_chat.reader import ChatReader, usage_of
from proxy.dialects.openai_chat.tap import ChatTap
from proxy.errors import GatewayError
from proxy.pipes import Passthrough, Pipe, Translation
from tests.cuts import drip
from tests.dialects.openai_chat import nothing
from tests.recordings import Recording, chat_streams
from tests.whatwg import interpret

#: The only recording that ends in an error.
FAILED = "groq/test-groq-test-tool-use-failed-error-streaming.1"


def run(pipe: Pipe, recording: Recording) -> tuple[bytes, GatewayError | None]:
    """Feed it in pieces of a few frames."""
    out, body = b"", recording.body
    for start in range(0, len(body), 999):
        out += pipe.feed(body[start : start + 999])
        if pipe.done or pipe.error:
            break
    else:
        out += pipe.end()
    assert pipe.done != bool(pipe.error)
    assert bool(pipe.error) == (recording.name == FAILED)
    return out, pipe.error


def chunks(stream: bytes) -> list[dict]:
    return [orjson.loads(e.data) for e in interpret(stream) if e.data != b"[DONE]" and e.type != b"error"]


def is_usage_only(chunk: dict) -> bool:
    return not chunk.get("choices") and bool(chunk.get("usage"))


def expected_usage(recording: Recording) -> dict | None:
    """By the simplest reading: the last that counts anything, else the last."""
    found = [chunk["usage"] for chunk in chunks(recording.body) if chunk.get("usage")]
    return next((usage for usage in reversed(found) if usage["total_tokens"]), found[-1] if found else None)


@chat_streams
def test_a_client_that_did_not_ask_for_usage_gets_the_rest_unchanged(recording):
    pipe = Passthrough(ChatTap(nothing), errors.frame, 2**20)
    out, error = run(pipe, recording)
    assert chunks(out) == [chunk for chunk in chunks(recording.body) if not is_usage_only(chunk)]
    assert out.endswith(b"data: [DONE]\n\n") == (error is None)
    assert pipe.usage == (usage_of(usage) if (usage := expected_usage(recording)) else None)


@chat_streams
def test_a_client_that_asked_gets_one_usage_chunk_and_nothing_is_moved(recording):
    pipe = Passthrough(ChatTap(nothing, include_usage=True), errors.frame, 2**20)
    out, error = run(pipe, recording)
    told, usage = chunks(out), expected_usage(recording)
    assert [chunk for chunk in told if not is_usage_only(chunk)] == [
        chunk for chunk in chunks(recording.body) if not is_usage_only(chunk)
    ]
    only = [chunk["usage"] for chunk in told if is_usage_only(chunk)]
    assert only == ([usage] if usage and not error else [])
    if only:
        assert is_usage_only(told[-1])


@chat_streams
def test_the_same_is_said_to_a_client_of_another_dialect(recording):
    pipe = Translation(ChatReader(nothing), simple_chat.SimpleWriter("m"), simple_chat.frame, 2**20)
    out, error = run(pipe, recording)
    frames = [orjson.loads(event.data) for event in interpret(out)]
    assert "".join(frame.get("delta", "") for frame in frames) == spoken(recording)
    assert any(frame.get("done") for frame in frames) == (error is None)
    again = Translation(ChatReader(nothing), simple_chat.SimpleWriter("m"), simple_chat.frame, 2**20)
    assert b"".join([*map(again.feed, drip(recording.body)), again.end()]) == out


def spoken(recording: Recording) -> str:
    """The first choice's text, naively."""
    said = []
    for chunk in chunks(recording.body):
        for choice in chunk.get("choices") or []:
            delta = choice.get("delta") or {}
            if choice.get("index", 0) == 0:
                for part in (delta.get("content"), delta.get("refusal")):
                    if isinstance(part, list):
                        said += [each["text"] for each in part if each["type"] == "text"]
                    elif part is not None:
                        said.append(str(part))
    return "".join(said)
