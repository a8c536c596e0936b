"""How answers lie in the stream, small answers, and what errors ask for."""

from __future__ import annotations

import orjson
import pytest

from proxy import sse
from proxy.dialects.gemini.errors import body, frame, retry_after
from proxy.dialects.gemini.framing import Decoder, Reframer
from proxy.dialects.gemini.listing import Listed, counted, model, models
from proxy.errors import InvalidRequest
from proxy.sse import Frame
from tests.cuts import cuts
from tests.recordings import WHOLES

RECORDED = [r for r in WHOLES if r.provider == "gemini" and r.status == 429]


@pytest.mark.parametrize(
    ("wire", "frames"),
    [
        pytest.param(b"data: a\r\n\r\ndata: b\r\n\r\n", [Frame(b"a"), Frame(b"b")], id="quirk-12-crlf"),
        pytest.param(b": hm\n\nevent: x\ndata: a\n\n", [Frame(b"a", "x")], id="other-fields"),
        pytest.param(b'data: a\n\n{\n "error": {}\n}\n\n', [Frame(b"a"), Frame(b'{\n "error": {}\n}')], id="bare-json"),
        pytest.param(b'[{\n "data": 1\n}]\n\ndata: a\n\n', [Frame(b'[{\n "data": 1\n}]'), Frame(b"a")], id="bare-list"),
        pytest.param(b"data: a\n{\n\n", [Frame(b"a")], id="not-inside-a-frame"),
        pytest.param(b"{}\n\ndata: a\nevent: x\n\n", [Frame(b"{}"), Frame(b"a", "x")], id="and-not-in-the-next"),
        pytest.param(b"nonsense\n\ndata: a\n\n", [Frame(b"a")], id="other-lines-mean-nothing"),
    ],
)
def test_bare_json_is_a_frame(wire, frames):
    for pieces in cuts(wire):
        decoder = Decoder()
        assert [f for piece in pieces for f in decoder.feed(piece)] == frames


@pytest.mark.parametrize(
    ("wire", "passed"),
    [
        pytest.param(b"data: {}\r\n\r\n", b"data: {}\r\n\r\n", id="what-is-right-stays"),
        pytest.param(
            b'data: {}\r\n\r\n{\r\n  "error": {\r\n  }\r\n}\r\n',
            b'data: {}\r\n\r\ndata: {\r\ndata:   "error": {\r\ndata:   }\r\ndata: }\r\n\r\n',
            id="bare-json",
        ),
        pytest.param(b'{\n "a": 1\n}\n\ndata: {}\n\n', b'data: {\ndata:  "a": 1\ndata: }\n\ndata: {}\n\n', id="first"),
        pytest.param(b"data: {}\n\n[{\n}]", b"data: {}\n\ndata: [{\ndata: }]\n\n", id="a-list-without-a-line-end"),
        pytest.param(b"data: {}\n{\n\n", b"data: {}\n{\n\n", id="not-inside-a-frame"),
        pytest.param(b"{}\n\n{}\n\n", b"data: {}\n\ndata: {}\n\n", id="several"),
        pytest.param(b"nonsense\n\n", b"", id="other-lines-mean-nothing"),
    ],
)
def test_bare_json_passes_as_a_frame(wire, passed):
    for pieces in cuts(wire):
        reframer = Reframer()
        assert b"".join([*map(reframer.feed, pieces), reframer.end()]) == passed


def test_a_frame_tells_a_fault():
    assert frame(InvalidRequest("no")) == sse.encode(body(InvalidRequest("no")))


# Errors...


def detailed(*details):
    return {"error": {"code": 429, "message": "", "details": list(details)}}


RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "27s"}


@pytest.mark.parametrize(
    ("refusal", "pause"),
    [
        pytest.param(detailed({"@type": "other"}, RETRY), 27.0, id="quirk-32-it-stands-in-the-details"),
        pytest.param([detailed(RETRY)], 27.0, id="in-a-list"),
        pytest.param(detailed({**RETRY, "retryDelay": "0.5s"}), 0.5, id="fractions"),
        pytest.param(detailed({**RETRY, "retryDelay": "soon"}), None, id="nonsense"),
        pytest.param(detailed(), None, id="none"),
        pytest.param({"error": "x"}, None, id="flat"),
        pytest.param([], None, id="empty"),
    ],
)
def test_retry_after(refusal, pause):
    assert retry_after(orjson.dumps(refusal)) == pause


def test_what_is_not_json_asks_for_no_pause():
    assert retry_after(b"<html>") is None


@pytest.mark.skipif(not RECORDED, reason="no recordings beside the repository")
def test_the_recorded_refusal_asks_for_a_pause():
    assert [retry_after(recording.body) for recording in RECORDED] == [55.0]


# Small answers...


def test_models():
    page = orjson.loads(models([Listed("a/b", "A", "An a.", 4096), Listed("c")]))
    methods = ["generateContent", "streamGenerateContent", "countTokens"]
    assert page == {
        "models": [
            {
                "name": "models/a/b",
                "displayName": "A",
                "supportedGenerationMethods": methods,
                "description": "An a.",
                "inputTokenLimit": 4096,
            },
            {"name": "models/c", "displayName": "c", "supportedGenerationMethods": methods},
        ]
    }
    assert orjson.loads(model(Listed("c"))) == page["models"][1]


def test_count():
    assert orjson.loads(counted(8)) == {"totalTokens": 8}
