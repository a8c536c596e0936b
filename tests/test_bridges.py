"""What joins a client's dialect with a provider's for one exchange, without either of them."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from proxy.asked import DialectAsked, SimpleAsked
from proxy.bridges import OpenAIBridge
from proxy.dialects import simple_chat
from proxy.dialects.openai_chat import errors as openai_errors
from proxy.errors import InvalidRequest, UpstreamError, UpstreamRefused
from proxy.events import Usage
from proxy.routing import table
from proxy.settings import load
from proxy.state.memory import Memory

from .functional import config
from .functional.upstream import completion, fault, sse, usage

HI = [{"role": "user", "content": "Hi"}]
USED = Usage(5, 7)


@pytest.fixture
def target(tmp_path):
    """Make a deployment at a provider with these settings."""

    def make(**provider):
        path = tmp_path / "config.toml"
        path.write_text(config("http://127.0.0.1:9", providers=[{"name": "up", **provider}]))
        (found,) = table.build(load(path, {}).settings, None, "agent").entries["m"].targets
        return found

    return make


def scrub(text):
    return text.replace("sk-secret", "[redacted]")


@dataclass
class Posed:
    """What is around a bridge."""

    body: bytes
    memory: Memory | None = None

    def scrub(self, text):
        return scrub(text)

    def fail(self, error):
        return openai_errors.frame(error)


def openai(body, operation="chat", **how):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return OpenAIBridge(Posed(raw), operation, **how)


def simple(body):
    return SimpleAsked(json.dumps(body).encode(), scrub, simple_chat.frame)


# Chat completions on both sides...


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}', id="plain"),
        pytest.param(b' {\n"messages" : [ {"role":"user"} ] , "model":"m"}\r\n', id="spaces"),
        pytest.param(
            b'{"model":"m","messages":[{"role":"user","x":1}],"seed":123456789012345678901234567890,"t":1.10}',
            id="numbers-that-are-larger-than-others-think",
        ),
        pytest.param('{"model":"m","messages":[{"role":"user","content":"\\u00e9é🙂"}]}'.encode(), id="escapes"),
        pytest.param(b'{"model":"m","messages":[{"role":"user"}],"x":' + b"[" * 500 + b"]" * 500 + b"}", id="depth"),
        pytest.param(b'{"model":"m","messages":[{"role":"user"}],"stream":false}', id="stream-false"),
        pytest.param(
            b'{"model":"m","messages":[{"role":"user"}],"stream":true,"stream_options":{"include_usage": true}}',
            id="usage-asked-for-already",
        ),
    ],
)
def test_where_nothing_must_change_the_bytes_stay(target, body):
    at = target()
    assert openai(body).meet(at).body("m", at) is body


@pytest.mark.parametrize(
    ("fields", "how", "sent"),
    [
        pytest.param({"model": "alias"}, {}, {"model": "theirs"}, id="the-provider's-name"),
        pytest.param({}, {}, {"model": "theirs"}, id="a-model-where-there-was-none"),
        pytest.param(
            {"model": "theirs", "stream": True},
            {},
            {"stream_options": {"include_usage": True}},
            id="usage-is-asked-for",
        ),
        pytest.param(
            {"model": "theirs", "stream": True, "stream_options": {"include_usage": False, "x": 1}},
            {},
            {"stream_options": {"include_usage": True, "x": 1}},
            id="beside-what-was-there",
        ),
        pytest.param({"model": "theirs", "stream": True}, {"ask_usage": False}, {}, id="where-the-provider-takes-it"),
        pytest.param({"model": "theirs", "x": 1, "y": 2}, {"drop": ["x", "z"]}, {"x": None}, id="a-field-it-refuses"),
        pytest.param(
            {"model": "theirs", "messages": [{"role": "developer", "content": "Be brief.", "x": 1.10}]},
            {"kind": "deepseek"},
            {"messages": [{"role": "system", "content": "Be brief.", "x": 1.10}]},
            id="a-role-it-does-not-know",
        ),
    ],
)
def test_only_what_must_change_does(target, fields, how, sent):
    at = target(**how)
    body = {"messages": HI, "unknown": {"deep": [1, None]}, **fields}
    expected = {name: value for name, value in {**body, **sent}.items() if value is not None}
    assert json.loads(openai(body).meet(at).body("theirs", at)) == expected


@pytest.mark.parametrize(
    ("fields", "default", "streamed"),
    [
        ({}, False, False),
        ({}, True, True),
        ({"stream": None}, True, True),
        ({"stream": False}, True, False),
        ({"stream": True}, False, True),
        ({"stream": None}, False, False),
    ],
)
def test_what_is_given_decides_whether_it_streams(target, fields, default, streamed):
    bridge = openai({"model": "m", "messages": HI, **fields}, stream_default=default)
    assert bridge.stream is streamed
    assert bridge.meet(target()).stream is streamed
    assert bridge.meet(target(kind="anthropic")).stream is streamed
    assert json.loads(bridge.body("m", target())).get("stream") in ((True,) if streamed else (None, False))


@pytest.mark.parametrize("model", [None, ""])
def test_no_name_is_no_model(model):
    assert openai({"model": model, "messages": HI}).model is None
    assert simple({"model": model, "prompt": "Hi"}).model is None


def test_embeddings_never_stream_and_ask_for_no_usage(target):
    body = b'{"model":"m","input":"Hi","stream":true}'
    bridge = openai(body, "embeddings")
    assert bridge.stream is False
    assert bridge.body("m", target()) is body


@pytest.mark.parametrize(
    ("operation", "answer", "used"),
    [
        ("chat", completion(), USED),
        ("completions", {"choices": [{"text": "a"}]}, None),
        ("embeddings", {"data": [{"embedding": "AAA="}], "usage": usage(5, 0)}, Usage(5, 0)),
        ("chat", {"choices": [], "usage": "odd"}, None),
    ],
)
def test_a_whole_answer_passes_to_the_byte(operation, answer, used):
    raw = b" \n" + json.dumps(answer).encode() + b"\n"
    assert openai({"model": "m", "messages": HI}, operation).whole(raw, "m") == (raw, used)


@pytest.mark.parametrize(
    ("operation", "answer", "fault_", "said"),
    [
        pytest.param("chat", b"<html>", UpstreamError, "not JSON", id="a-page"),
        pytest.param("chat", b"[]", UpstreamError, "not a JSON object", id="an-array"),
        pytest.param("chat", b"{}", UpstreamError, "has no `choices`", id="no-choices"),
        pytest.param("chat", b'{"choices":{}}', UpstreamError, "has no `choices`", id="choices-that-are-none"),
        pytest.param("embeddings", b'{"choices":[]}', UpstreamError, "has no `data`", id="an-answer-to-something-else"),
        pytest.param(
            "chat", b'{"error":{"message":"bad sk-secret"}}', UpstreamError, r"bad \[redacted\]", id="an-error"
        ),
        pytest.param("chat", b'{"error":{"message":"slow","code":429}}', UpstreamRefused, "slow", id="with-a-status"),
    ],
)
def test_what_is_no_answer_is_a_fault(operation, answer, fault_, said):
    with pytest.raises(fault_, match=said):
        openai({"model": "m", "messages": HI}, operation).whole(answer, "m")


def test_a_stream_passes_and_its_fault_is_told_in_the_client_s_words():
    pipe = openai({"model": "m", "messages": HI, "stream": True}).pipe("m", 1000)
    frame = sse({"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]})
    assert pipe.feed(frame) == frame
    assert pipe.feed(sse(fault("bad sk-secret"))) == b""
    assert pipe.error is not None
    assert json.loads(pipe.fail(pipe.error)[6:])["error"]["message"].endswith("bad [redacted]")


@pytest.mark.parametrize("begin", [b"data: ", b": hello\n\ndata: "])
def test_a_stream_that_nobody_asked_for_is_folded(begin):
    frames = begin + b"\n\ndata: ".join(
        json.dumps(frame).encode()
        for frame in (
            {"choices": [{"index": 0, "delta": {"content": "Hel"}, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {"content": "lo"}, "finish_reason": "stop"}], "usage": usage()},
        )
    )
    answer, used = openai({"model": "m", "messages": HI}).whole(frames + b"\n\ndata: [DONE]\n\n", "m")
    assert json.loads(answer)["choices"][0]["message"]["content"] == "Hello"
    assert used == USED


SIGNS = [("comment", b": keep-alive\n\n"), ("off", b"")]


@pytest.mark.parametrize(("mode", "sign"), SIGNS)
def test_signs_of_life(mode, sign):
    assert openai({"model": "m", "messages": HI}).keepalive(mode) == sign


def test_an_empty_chunk_is_one_that_says_nothing():
    told = json.loads(openai({"model": "m", "messages": HI}).keepalive("chunk")[6:])
    assert told["object"] == "chat.completion.chunk"
    assert told["choices"] == [{"index": 0, "delta": {}, "finish_reason": None}]


# Another dialect on each side...


def test_a_simple_request_becomes_a_chat_completion(target):
    asked = simple({"prompt": "Hi", "max_tokens": 5, "temperature": 0.5, "stream": False})
    assert (asked.model, asked.stream, asked.operation) == (None, False, "chat")
    at = target()
    told = json.loads(asked.meet(at).body("theirs", at))
    assert told.pop("stream", False) is False
    assert told == {"model": "theirs", "messages": HI, "max_tokens": 5, "temperature": 0.5}


def test_a_providers_habits_are_minded(target):
    at = target(ask_usage=False, drop=["temperature"])
    asked = simple({"messages": [{"role": "developer", "content": "x"}], "temperature": 1})
    told = json.loads(asked.meet(at).body("m", at))
    assert told == {"model": "m", "messages": [{"role": "system", "content": "x"}], "stream": True}


def test_stream_whole_answer_and_json_for_a_stream_say_the_same(target):
    frames = [
        {"choices": [{"index": 0, "delta": {"content": "Hello!"}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": usage()},
    ]
    bridge = simple({"prompt": "Hi"}).meet(target())
    pipe = bridge.pipe("m", 10_000)
    streamed = pipe.feed(b"".join(map(sse, frames)) + b"data: [DONE]\n\n")
    assert pipe.done
    raw = json.dumps(completion("Hello!")).encode()
    assert b"".join(bridge.chunks(raw, "m")) == streamed
    answer, used = bridge.whole(raw, "m")
    last = json.loads(streamed.rpartition(b"data: ")[2])
    assert json.loads(answer) == {"response": "Hello!", **last}
    assert used == pipe.usage == USED


@pytest.mark.parametrize("raw", [b"<html>", b"{}", b'{"error":"no"}'])
def test_what_is_no_answer_is_a_fault_across_the_waist_too(target, raw):
    bridge = simple({"prompt": "Hi"}).meet(target())
    with pytest.raises(UpstreamError):
        bridge.whole(raw, "m")


def test_what_the_provider_could_not_read_is_the_clients_mistake(target):
    at = target()
    asked = simple({"prompt": "Hi", "max_tokens": 10**30})
    with pytest.raises(InvalidRequest, match="64-bit"):
        asked.meet(at).body("m", at)


@pytest.mark.parametrize(("mode", "sign"), [*SIGNS, ("chunk", b'data: {"delta":""}\n\n')])
def test_signs_of_life_of_the_simple_dialect(target, mode, sign):
    assert simple({"prompt": "Hi"}).meet(target()).keepalive(mode) == sign


@pytest.mark.parametrize(
    ("kind", "dialect"), [("openai", "openai_chat"), ("deepseek", "openai_chat"), ("anthropic", "anthropic_messages")]
)
def test_who_speaks_what(target, kind, dialect):
    body = json.dumps({"model": "m", "max_tokens": 5, "messages": HI}).encode()
    at = target(kind=kind)
    for asked in (openai(body), simple({"prompt": "Hi"}), DialectAsked(body, "anthropic_messages", scrub, bytes)):
        assert asked.meet(at).dialect == dialect


def test_what_both_sides_speak_passes_to_the_byte(target):
    body = b' {"model":"m","max_tokens":5,"messages":[{"role":"user","content":"Hi"}],"unknown":1.10}'
    at = target(kind="anthropic")
    asked = DialectAsked(body, "anthropic_messages", scrub, lambda error: b"")
    assert asked.meet(at).body("m", at) is body
    assert json.loads(asked.meet(at).body("theirs", at)) == {**json.loads(body), "model": "theirs"}
