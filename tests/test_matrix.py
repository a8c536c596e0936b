"""Every client dialect over every recorded stream: what was said survives the crossing, in the client's grammar."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from proxy.errors import GatewayError
from proxy.events import Answer, Block, Stop
from proxy.pipes import Translation
from proxy.registry import client_side, provider_side
from proxy.requests import Request
from proxy.sse import Decoder

from .cuts import at
from .dialects.anthropic_messages import grammar as messages_grammar
from .dialects.gemini import grammar as gemini_grammar
from .dialects.openai_chat import grammar as chat_grammar
from .dialects.openai_responses import grammar as responses_grammar
from .recordings import STREAMS, Recording, streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from proxy.events import Event

ASKED = Request("m", (), stream=True, include_usage=True)

GRAMMARS: dict[str, Callable[[bytes], None]] = {
    "openai_chat": chat_grammar.check,
    "anthropic_messages": messages_grammar.check,
    "openai_responses": responses_grammar.check,
    "gemini": gemini_grammar.check,
}


def spoken(recording: Recording) -> str:
    """The dialect of a recorded stream."""
    body = recording.body
    if b'"type":"message_start"' in body or b'"type": "message_start"' in body or b"event: message_start" in body:
        return "anthropic_messages"
    if b"event: response." in body or b'"type":"response.' in body:
        return "openai_responses"
    if b'"candidates"' in body:
        return "gemini"
    if recording.provider == "workers-ai":
        return "workers_ai"
    return "openai_chat" if b'"delta"' in body else ""


def scrub(text: str) -> str:
    return text


def read(recording: Recording) -> tuple[Answer, GatewayError | None]:
    """What the recording says, by the provider's own reader."""
    side, answer = provider_side(spoken(recording)), Answer()
    reader = side.reader(scrub, ASKED)
    decoder = side.decoder(1 << 24)
    try:
        for frame in (*decoder.feed(recording.body), decoder.end()):
            if frame is not None:
                fold_into(answer, reader.read(frame))
        if not reader.done and reader.finished:
            fold_into(answer, reader.end())
    except GatewayError as exc:
        return answer, exc
    return answer, None


def fold_into(answer: Answer, events: Iterable[Event]) -> None:
    for event in events:
        answer.add(event)


def written(client: str, recording: Recording, chunks: list[bytes]) -> bytes:
    """What a client of the gateway would be sent."""
    side, provider = client_side(client), provider_side(spoken(recording))
    writer = side.writer("m", ASKED, "req_1")
    pipe = Translation(provider.reader(scrub, ASKED), writer, writer.fail, 1 << 24, provider.decoder(1 << 24))
    out = [pipe.feed(chunk) for chunk in chunks]
    out.append(pipe.end())
    if pipe.error is not None:
        out.append(pipe.fail(pipe.error))
    return b"".join(out)


def said(answer: Answer, kind: Block) -> str:
    return "".join(block.text for block in answer.blocks if block.block is kind)


def aloud(answer: Answer) -> str:
    """A refusal is text where a dialect has no word for it."""
    return "".join(block.text for block in answer.blocks if block.block in (Block.TEXT, Block.REFUSAL))


def calls(answer: Answer) -> list[tuple[str, Any]]:
    return [(b.name, arguments(b.text)) for b in answer.blocks if b.block is Block.TOOL_CALL]


def arguments(text: str) -> Any:
    try:
        return json.loads(text or "{}")
    except ValueError:
        return text


def heard(client: str, frames: bytes) -> Answer:
    """What the client makes of it, by our own reader of that dialect."""
    side = provider_side(client)
    reader, decoder, answer = side.reader(scrub, ASKED), Decoder(1 << 24), Answer()
    for frame in decoder.feed(frames):
        fold_into(answer, reader.read(frame))
    if not reader.done and reader.finished:
        fold_into(answer, reader.end())
    return answer


readable = [r for r in STREAMS if spoken(r)]


@pytest.mark.parametrize("client", GRAMMARS)
@streams
def test_what_was_said_survives_the_crossing(recording, client):
    if not spoken(recording):
        pytest.skip("completions of the old kind are passed on, never translated")
    wanted, fault = read(recording)
    whole = written(client, recording, [recording.body])
    GRAMMARS[client](whole)
    if fault is not None or wanted.stop is None:
        return
    got = heard(client, whole)
    assert aloud(got).strip() == aloud(wanted).strip()
    if client != "gemini" or all(isinstance(a, dict) for _, a in calls(wanted)):
        assert calls(got) == calls(wanted)
    if client in ("openai_chat", "anthropic_messages"):
        assert said(got, Block.THINKING) == said(wanted, Block.THINKING)
    if wanted.usage and client != "gemini":
        assert got.usage is not None
        assert (got.usage.input, got.usage.output) == (wanted.usage.input, wanted.usage.output)
    if wanted.stop in (Stop.LENGTH, Stop.CONTENT_FILTER):
        assert got.stop is wanted.stop or client == "gemini"


@streams
def test_the_simplest_client_hears_what_is_said_aloud(recording):
    if not spoken(recording):
        pytest.skip("completions of the old kind are passed on, never translated")
    wanted, fault = read(recording)
    told = [json.loads(f.data) for f in Decoder(1 << 24).feed(written("simple_chat", recording, [recording.body]))]
    assert "".join(one.get("delta", "") for one in told) == aloud(wanted)
    if fault is None and wanted.stop is not None:
        assert told[-1]["done"] is True
        if wanted.usage:
            assert told[-1]["usage"]["total_tokens"] == wanted.usage.input + wanted.usage.output


@pytest.mark.parametrize("client", GRAMMARS)
@streams
def test_cuts_change_nothing(recording, client):
    if not spoken(recording):
        pytest.skip("completions of the old kind are passed on, never translated")
    chance = random.Random(len(recording.body))
    for _ in range(3):
        places = [chance.randrange(len(recording.body)) for _ in range(40)]
        pieces = written(client, recording, at(recording.body, places))
        assert fixed(pieces) == fixed(written(client, recording, [recording.body]))


def fixed(frames: bytes) -> list[str]:
    """Frames without the ids and times that are made up for each stream."""
    out = []
    for line in frames.decode().split("\n"):
        if line.startswith("data: {"):
            told = json.loads(line[6:])
            line = json.dumps(without_ids(told), sort_keys=True)
        out.append(line)
    return out


def without_ids(value: Any) -> Any:
    made_up = ("id", "item_id", "created", "created_at", "completed_at", "call_id", "responseId", "encrypted_content")
    if isinstance(value, dict):
        return {k: without_ids(v) for k, v in value.items() if k not in made_up}
    if isinstance(value, list):
        return [without_ids(v) for v in value]
    return value


# Calls whose fragments come in turns...

ARGUMENTS = ({"city": 'Rom\u00e8 {"}"', "days": [1, {"2": "]"}]}, {"zone": "\\"}, {}, {"q": "x" * 50})


def interleaved(chance: random.Random) -> bytes:
    """Chunks that go round the calls, words between them, each call's fragments of any length."""
    ways: list[list[dict[str, Any]]] = []
    for index, arguments in enumerate(ARGUMENTS):
        text = json.dumps(arguments, ensure_ascii=False)
        places = sorted(chance.sample(range(len(text) + 1), 2))
        first, *rest = (text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True))
        call = {"index": index, "id": f"call_{index}", "type": "function"}
        fragments = [{**call, "function": {"name": f"f{index}", "arguments": first}}]
        fragments += [{"index": index, "function": {"arguments": each}} for each in rest]
        ways.append([{"tool_calls": [fragment]} for fragment in fragments])
    ways.append([{"content": each} for each in ("Let me ", "see", ".")])
    chunks = []
    while ways := [way for way in ways if way]:
        delta = chance.choice(ways).pop(0)
        chunks.append({"id": "1", "model": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    return b"".join(b"data: %b\n\n" % json.dumps(each).encode() for each in chunks) + b"data: [DONE]\n\n"


@pytest.mark.parametrize("client", GRAMMARS)
@pytest.mark.parametrize("seed", range(8))
def test_calls_that_come_mixed_reach_every_client_whole(client, seed):
    chance = random.Random(seed)
    body = interleaved(chance)
    recording = Recording("openai/mixed", body, {})
    whole = written(client, recording, [body])
    GRAMMARS[client](whole)
    got = heard(client, whole)
    assert sorted(calls(got), key=lambda call: call[0]) == [(f"f{n}", each) for n, each in enumerate(ARGUMENTS)]
    assert aloud(got) == "Let me see."
    for _ in range(3):
        pieces = at(body, [chance.randrange(len(body)) for _ in range(40)])
        assert fixed(written(client, recording, pieces)) == fixed(whole)
