"""An estimate of the input, held to what Anthropic has counted."""

from __future__ import annotations

import base64
import json
import re
import struct

import pytest

from proxy.dialects.anthropic_messages.count import body, estimate, size, tokens
from proxy.dialects.anthropic_messages.request import read
from proxy.requests import (
    Audio,
    Document,
    Image,
    Refusal,
    Request,
    Role,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
)
from tests.dialects.anthropic_messages import recorded
from tests.recordings import WHOLES


def png(width: int, height: int) -> str:
    return base64.b64encode(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", width, height)).decode()


def jpeg(width: int, height: int) -> str:
    exif = b"\xff\xe1" + struct.pack(">H", 102) + b"e" * 100
    frame = b"\xff\xc0" + struct.pack(">HBHH", 17, 8, height, width)
    return base64.b64encode(b"\xff\xd8" + exif + frame + b"\0" * 8).decode()


def asked(*parts, role=Role.USER):
    return Request("m", (Turn(role, parts),))


@recorded
def test_the_estimate_is_near_what_was_counted(recording):
    request = read(json.dumps(recording.meta["request_body"]).encode())
    if any(name.startswith("tools.") for name in request.dropped):
        pytest.skip("a tool of the provider's own, which reads pages that are not in the request")
    counted = int(re.findall(rb'"input_tokens":(\d+)', recording.body)[0])
    assert 0.7 < estimate(request) / counted < 1.3


@pytest.mark.parametrize(
    "recording", [pytest.param(r, id=r.name) for r in WHOLES if r.name.startswith("anthropic/anthropic-count")]
)
def test_the_estimate_is_near_what_count_tokens_said(recording):
    request = read(json.dumps(recording.meta["request_body"]).encode())
    assert 0.7 < estimate(request) / json.loads(recording.body)["input_tokens"] < 1.3


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        pytest.param("", 0, 0, id="nothing"),
        pytest.param("Hello, how are you today?", 5, 9, id="english"),
        pytest.param("今日はいい天気ですね", 8, 14, id="japanese"),
        pytest.param("naïve café", 3, 6, id="accents"),
    ],
)
def test_words_are_weighed(text, low, high):
    assert low <= tokens(text) <= high


@pytest.mark.parametrize(
    ("data", "width", "height"),
    [
        pytest.param(png(640, 480), 640, 480, id="png"),
        pytest.param(jpeg(640, 480), 640, 480, id="jpeg-behind-its-exif"),
        pytest.param(base64.b64encode(b"GIF89a" + struct.pack("<HH", 640, 480)).decode(), 640, 480, id="gif"),
        pytest.param(png(1, 1)[:20], 0, 0, id="cut"),
        pytest.param(jpeg(1, 1)[:8], 0, 0, id="cut-jpeg"),
        pytest.param("é!", 0, 0, id="not-base64"),
        pytest.param("", 0, 0, id="none"),
        pytest.param(base64.b64encode(b"RIFF....WEBP").decode(), 0, 0, id="another-format"),
    ],
)
def test_a_picture_says_its_size(data, width, height):
    assert size(data) == (width, height)


@pytest.mark.parametrize(
    ("part", "low", "high"),
    [
        pytest.param(Image(data=png(300, 250), media_type="image/png"), 100, 110, id="small-picture"),
        pytest.param(Image(url=f"data:image/png;base64,{png(300, 250)}"), 100, 110, id="data-url"),
        pytest.param(Image(data=png(8000, 6000), media_type="image/png"), 1600, 1620, id="large-picture"),
        pytest.param(Image(url="https://e.org/a.png"), 1600, 1620, id="picture-elsewhere"),
        pytest.param(Document(data="x" * 100_000, media_type="application/pdf"), 4000, 4020, id="pdf"),
        pytest.param(Document(text="word " * 100), 130, 160, id="text-document"),
        pytest.param(Refusal("No."), 5, 12, id="refusal"),
        pytest.param(Thinking("Hm."), 5, 12, id="thinking"),
        pytest.param(Audio("x" * 4000, "wav"), 5, 20, id="audio"),
        pytest.param(ToolCall("1", "look", "{}"), 40, 60, id="call"),
        pytest.param(ToolResult("1", (Text("x"), Image())), 1630, 1650, id="result"),
    ],
)
def test_every_part_counts(part, low, high):
    assert low <= estimate(asked(part)) <= high


def test_tools_and_system_count():
    bare = asked(Text("Hi"))
    tool = Tool("look", "Look at it", {"type": "object", "properties": {"a": {"type": "string"}}})
    deep: dict[str, object] = {}
    for _ in range(400):
        deep = {"a": deep}
    assert estimate(Request("m", bare.turns, tools=(tool,))) > estimate(bare) + 400
    assert estimate(Request("m", bare.turns, tools=(Tool("look", schema=deep),))) > estimate(bare) + 400
    assert estimate(Request("m", bare.turns, system=(Text("Be brief. " * 10),))) > estimate(bare) + 25


def test_an_estimate_is_never_nothing():
    assert estimate(Request("m", ())) >= 1


def test_the_answer_of_count_tokens():
    assert body(12) == b'{"input_tokens":12}'
