"""The small dialect: what it takes, what it says, how it fails."""

from __future__ import annotations

import json as jsonlib
import re

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects import simple_chat
from proxy.dialects.openai_chat.request import split
from proxy.errors import InvalidRequest
from proxy.events import Block, BlockClosed, BlockDelta, BlockOpened, MessageEnded, MessageStarted, Stop, Usage
from proxy.requests import Image, Request, Role, Text, Turn
from tests.properties import json, thorough
from tests.test_errors import EVERY


def parse(body: object) -> Request:
    return simple_chat.parse(split(body if isinstance(body, bytes) else jsonlib.dumps(body).encode()))


HI = Turn(Role.USER, (Text("Hi"),))


@pytest.mark.parametrize(
    ("body", "turns"),
    [
        pytest.param({"prompt": "Hi"}, (HI,), id="prompt"),
        pytest.param({"messages": [{"role": "user", "content": "Hi"}]}, (HI,), id="messages"),
        pytest.param({"prompt": "Hi", "messages": []}, (HI,), id="prompt-and-no-messages"),
        pytest.param({"prompt": None, "messages": [{"role": "user", "content": "Hi"}]}, (HI,), id="prompt-null"),
        pytest.param({"prompt": "Hi", "messages": None}, (HI,), id="messages-null"),
        pytest.param(
            {"prompt": "Hi", "messages": [{"role": "system", "content": "Be brief."}]},
            (Turn(Role.SYSTEM, (Text("Be brief."),)), HI),
            id="the-prompt-is-the-last-message",
        ),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}, (HI,), id="text-parts"
        ),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}]},
            (Turn(Role.USER, (Image("data:x"),)),),
            id="an-image",
        ),
        pytest.param({"prompt": ""}, (Turn(Role.USER, (Text(""),)),), id="an-empty-prompt-is-one"),
    ],
)
def test_what_is_asked(body, turns):
    assert parse(body).turns == turns


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({}, (None, True, None, None), id="a-stream-is-the-default"),
        pytest.param({"stream": False}, (None, False, None, None), id="no-stream"),
        pytest.param({"stream": None}, (None, True, None, None), id="null-is-the-default"),
        pytest.param({"model": "m"}, ("m", True, None, None), id="model"),
        pytest.param({"model": ""}, (None, True, None, None), id="an-empty-model-is-none"),
        pytest.param({"max_tokens": 5}, (None, True, 5, None), id="max-tokens"),
        pytest.param({"temperature": 0.5}, (None, True, None, 0.5), id="temperature"),
        pytest.param({"temperature": 1}, (None, True, None, 1.0), id="a-whole-temperature"),
        pytest.param({"future": {"x": []}}, (None, True, None, None), id="unknown-fields"),
    ],
)
def test_how_it_is_asked(fields, expected):
    request = parse({"prompt": "Hi", **fields})
    assert (request.model, request.stream, request.max_tokens, request.temperature) == expected


@pytest.mark.parametrize(
    ("body", "param"),
    [
        pytest.param({}, "prompt", id="nothing"),
        pytest.param({"messages": []}, "messages", id="no-messages"),
        pytest.param({"prompt": 5}, "prompt", id="prompt-a-number"),
        pytest.param({"prompt": ["Hi"]}, "prompt", id="prompt-an-array"),
        pytest.param({"messages": "Hi"}, "messages", id="messages-text"),
        pytest.param({"messages": ["Hi"]}, "messages", id="a-message-text"),
        pytest.param({"messages": [{"content": "Hi"}]}, "messages[0].role", id="no-role"),
        pytest.param({"messages": [{"role": "wizard", "content": "Hi"}]}, "messages[0].role", id="unknown-role"),
        pytest.param({"messages": [{"role": ["user"], "content": "Hi"}]}, "messages[0].role", id="role-an-array"),
        pytest.param({"messages": [{"role": {}, "content": "Hi"}]}, "messages[0].role", id="role-an-object"),
        pytest.param({"messages": [{"role": "user"}]}, "messages[0].content", id="no-content"),
        pytest.param({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", id="content-a-number"),
        pytest.param({"messages": [{"role": "user", "content": [5]}]}, "messages[0].content[0]", id="a-part-a-number"),
        pytest.param({"prompt": "Hi", "stream": "yes"}, "stream", id="stream-text"),
        pytest.param({"prompt": "Hi", "model": 5}, "model", id="model-a-number"),
        pytest.param({"prompt": "Hi", "max_tokens": "5"}, "max_tokens", id="max-tokens-text"),
        pytest.param({"prompt": "Hi", "max_tokens": 0}, "max_tokens", id="max-tokens-zero"),
        pytest.param({"prompt": "Hi", "max_tokens": 5.5}, "max_tokens", id="max-tokens-a-fraction"),
        pytest.param({"prompt": "Hi", "temperature": "hot"}, "temperature", id="temperature-text"),
        pytest.param(b'{"prompt":"Hi","temperature":1e400}', "temperature", id="temperature-beyond-numbers"),
        pytest.param(b'{"messages":' + b"[" * 400 + b"]" * 400 + b"}", "messages", id="messages-deep-arrays"),
    ],
)
def test_the_field_to_mend_is_named(body, param):
    with pytest.raises(InvalidRequest) as caught:
        parse(body)
    assert caught.value.param == param
    assert f"`{param}`" in caught.value.message or param.startswith(("prompt", "messages"))


@thorough
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "prompt": json | st.text(),
            "messages": json
            | st.lists(
                st.fixed_dictionaries({}, optional={"role": json | st.just("user"), "content": json}), max_size=3
            ),
            "stream": json,
            "model": json,
            "max_tokens": json,
            "temperature": json,
        },
    )
)
def test_any_fields_are_taken_or_refused(fields):
    try:
        request = parse(fields)
    except InvalidRequest:
        return
    assert request.turns


# What is said...


def test_a_stream():
    writer = simple_chat.SimpleWriter("alias")
    events = [
        MessageStarted("id", "theirs"),
        BlockOpened(0, Block.THINKING),
        BlockDelta(0, Block.THINKING, "Hm."),
        BlockClosed(0),
        BlockOpened(1, Block.TEXT),
        BlockDelta(1, Block.TEXT, 'He said "hi"\n\u2028'),
        BlockClosed(1),
        BlockOpened(2, Block.TOOL_CALL, "id", "f"),
        BlockDelta(2, Block.TOOL_CALL, "{}"),
        BlockClosed(2),
        BlockOpened(3, Block.REFUSAL),
        BlockDelta(3, Block.REFUSAL, "No."),
        BlockClosed(3),
        MessageEnded(Stop.END, Usage(9, 5, cached=4, reasoning=3)),
    ]
    assert b"".join(map(writer.write, events)).decode() == (
        'data: {"delta":"He said \\"hi\\"\\n\u2028"}\n\n'
        'data: {"delta":"No."}\n\n'
        'data: {"done":true,"model":"alias",'
        '"usage":{"prompt_tokens":9,"completion_tokens":5,"total_tokens":14}}\n\n'
    )


@pytest.mark.parametrize("usage", [None, Usage(9, 5)])
def test_a_whole_answer(usage):
    told = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14} if usage else None
    assert orjson.loads(simple_chat.whole("Hi", "alias", usage)) == {
        "response": "Hi",
        "model": "alias",
        "usage": told,
        "done": True,
    }


def test_usage_that_is_not_known_is_null():
    assert b'"usage":null' in simple_chat.SimpleWriter("m").write(MessageEnded(Stop.END))


@pytest.mark.parametrize(("error", "kind", "status", "code"), EVERY)
def test_faults(error, kind, status, code):
    told = orjson.loads(simple_chat.body(error))
    assert list(told) == ["error", "details", "timestamp"]
    assert (told["error"], told["details"]) == (kind.value, error.message)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told["timestamp"])
    frame = simple_chat.frame(error)
    assert frame.startswith(b"data: {")
    assert frame.endswith(b"}\n\n")
    assert orjson.loads(frame[6:])["error"] == kind.value
