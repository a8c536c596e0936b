"""What Anthropic has sent, cut anywhere."""

from __future__ import annotations

import json
import random
from typing import Any

from proxy.dialects.anthropic_messages.tap import Tap
from proxy.dialects.anthropic_messages.words import STOP
from proxy.events import Block, MessageStarted
from proxy.sse import Reframer, split
from tests.cuts import at, drip
from tests.dialects.anthropic_messages import fold, nothing, read, recorded, write
from tests.dialects.anthropic_messages.grammar import check


def frames(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: ")]


def joined(body: bytes, kind: str, field: str) -> str:
    deltas = [f for f in frames(body) if f["type"] == "content_block_delta" and f["delta"]["type"] == kind]
    return "".join(f["delta"][field] for f in deltas)


def chunked(body: bytes) -> list[list[bytes]]:
    dice = random.Random(7)
    return [[body], drip(body), *(at(body, [dice.randrange(len(body)) for _ in range(40)]) for _ in range(5))]


@recorded
def test_nothing_that_was_said_is_lost(recording):
    wire = frames(recording.body)
    for chunks in chunked(recording.body):
        events = read(*chunks)
        answer = fold(events)
        assert answer.text == joined(recording.body, "text_delta", "text")
        assert "".join(b.text for b in answer.blocks if b.block is Block.THINKING) == joined(
            recording.body, "thinking_delta", "thinking"
        )
        assert "".join(b.signature for b in answer.blocks) == joined(recording.body, "signature_delta", "signature")

        starts = [f["content_block"] for f in wire if f["type"] == "content_block_start"]
        calls = [b for b in answer.blocks if b.block is Block.TOOL_CALL]
        assert [(c.id, c.name) for c in calls] == [(b["id"], b["name"]) for b in starts if b["type"] == "tool_use"]
        assert all(isinstance(json.loads(c.text), dict) for c in calls)
        assert [b.redacted for b in answer.blocks if b.redacted] == [
            b["data"] for b in starts if b["type"] == "redacted_thinking"
        ]

        last = next(f for f in wire if f["type"] == "message_delta")
        usage = wire[0]["message"]["usage"] | {k: v for k, v in last["usage"].items() if v}
        assert answer.stop is STOP[last["delta"]["stop_reason"]]
        assert answer.usage is not None
        assert answer.usage.output == usage["output_tokens"]
        assert answer.usage.input == (
            usage["input_tokens"] + usage["cache_read_input_tokens"] + usage["cache_creation_input_tokens"]
        )
        assert isinstance(events[0], MessageStarted)
        assert events[0].id == wire[0]["message"]["id"]


@recorded
def test_written_anew_it_is_well_formed(recording):
    check(write(read(recording.body)))


@recorded
def test_passed_on_it_is_the_same_byte_for_byte(recording):
    for chunks in chunked(recording.body):
        reframer, tap, out = Reframer(), Tap(nothing), []
        for run in map(reframer.feed, chunks):
            out += [run] if tap.plain(run) else [tap.look(raw, frame) for raw, frame in split(run)]
        assert b"".join(out) == recording.body.rstrip(b"\n") + b"\n\n"
        assert (tap.finished, tap.done, tap.error) == (True, True, None)
        assert tap.usage == fold(read(recording.body)).usage
