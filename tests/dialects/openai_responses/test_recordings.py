"""What OpenAI, Azure, OpenRouter and xAI have sent, cut anywhere."""

from __future__ import annotations

import json
import random

import pytest

from proxy.dialects.openai_responses.reader import read_whole
from proxy.dialects.openai_responses.tap import Tap
from proxy.dialects.openai_responses.words import usage_of
from proxy.events import Block, Stop
from proxy.sse import Reframer, split
from tests import recordings
from tests.cuts import at, drip
from tests.dialects.openai_responses import dumps, fold, frames, nothing, read, recorded, write
from tests.dialects.openai_responses.grammar import check

WHOLE = [
    pytest.param(r, id=r.name) for r in recordings.WHOLES if r.status == 200 and b'"object": "response"' in r.body
] or [pytest.param(None, id="none", marks=pytest.mark.skip(reason="no recordings beside the repository"))]


def chunked(body: bytes) -> list[list[bytes]]:
    dice = random.Random(7)
    return [[body], drip(body), *(at(body, [dice.randrange(len(body)) for _ in range(40)]) for _ in range(5))]


def joined(body: bytes, kind: str) -> str:
    return "".join(frame["delta"] for frame in frames(body) if frame["type"] == f"response.{kind}.delta")


@recorded
def test_nothing_that_was_said_is_lost(recording):
    response = frames(recording.body)[-1]["response"]
    for chunks in chunked(recording.body):
        answer = fold(read(*chunks))
        assert answer.text == joined(recording.body, "output_text")
        thoughts = "".join(b.text for b in answer.blocks if b.block is Block.THINKING)
        assert thoughts == joined(recording.body, "reasoning_summary_text")
        calls = [item for item in response["output"] if item["type"] == "function_call"]
        assert [(b.id, b.name, b.text) for b in answer.blocks if b.block is Block.TOOL_CALL] == [
            (item["call_id"], item["name"], item["arguments"]) for item in calls
        ]
        sealed = [item for item in response["output"] if item.get("encrypted_content")]
        assert len([b for b in answer.blocks if b.signature]) == len(sealed)
        assert answer.stop is (Stop.TOOL_CALLS if calls else Stop.END)
        assert answer.usage == usage_of(response["usage"])
        assert (answer.id, answer.model) == (response["id"], response["model"])


@recorded
def test_the_stream_folds_to_the_response_that_it_ends_with(recording):
    streamed = fold(read(recording.body))
    whole = fold(read_whole(dumps(frames(recording.body)[-1]["response"]), nothing))
    # OpenAI encrypts anew each time that it tells an item.
    for one in (*streamed.blocks, *whole.blocks):
        one.pieces, one.signature = ["".join(one.pieces)], one.signature and "sealed"
    assert streamed == whole


@pytest.mark.parametrize("recording", WHOLE)
def test_whole_responses_are_read(recording):
    told = json.loads(recording.body)
    answer = fold(read_whole(recording.body, nothing))
    assert [(b.id, b.name, b.text) for b in answer.blocks if b.block is Block.TOOL_CALL] == [
        (item["call_id"], item["name"], item["arguments"]) for item in told["output"] if item["type"] == "function_call"
    ]
    assert (answer.id, answer.model, answer.usage) == (told["id"], told["model"], usage_of(told["usage"]))


@recorded
def test_written_anew_it_is_well_formed_and_says_the_same(recording):
    stream = write(read(recording.body))
    check(stream)
    before, after = (frames(body)[-1]["response"] for body in (recording.body, stream))
    kept = [
        item for item in before["output"] if not (item["type"].endswith("_call") and item["type"] != "function_call")
    ]
    kept = [i for i in kept if i["type"] != "reasoning" or i["summary"] or i.get("encrypted_content")]
    assert [item["type"] for item in after["output"]] == [item["type"] for item in kept]
    for one, other in zip(after["output"], kept, strict=True):
        for name in ("call_id", "name", "arguments", "summary", "content"):
            if other.get(name):
                assert one[name] == other[name]
    assert after["usage"]["total_tokens"] == before["usage"]["total_tokens"]


@recorded
def test_passed_on_it_is_the_same_byte_for_byte(recording):
    for chunks in chunked(recording.body):
        reframer, tap, out = Reframer(), Tap(nothing), []
        for run in map(reframer.feed, chunks):
            out += [run] if run and tap.plain(run) else [tap.look(raw, frame) for raw, frame in split(run)]
        assert [json.dumps(frame) for frame in frames(b"".join(out))] == [
            json.dumps(frame) for frame in frames(recording.body)
        ]
        whole = [raw for raw in recording.body.split(b"\n\n") if raw.strip() and not raw.startswith(b":")]
        assert b"".join(out) == b"".join(raw.lstrip(b"\n") + b"\n\n" for raw in whole)
        assert (tap.finished, tap.done, tap.error) == (True, True, None)
        assert tap.usage == fold(read(recording.body)).usage
