"""A client's body: what is asked of it, and that nothing else of it changes on its way to a provider."""

from __future__ import annotations

import json as jsonlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.openai_chat.request import parse, render, split
from proxy.errors import InvalidRequest
from tests.dialects.openai_chat import dumps
from tests.properties import json, thorough

MESSAGES = [{"role": "user", "content": "Hi"}]


def body(**fields: object) -> bytes:
    return dumps({"model": "m", "messages": MESSAGES, **fields})


def refusal(raw: bytes, **options: bool) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse(raw, **options)
    assert caught.value.status == 400
    return caught.value


def nested(depth: int, kind: str = "[]") -> bytes:
    opened, closed = (b'{"a":', b"}") if kind == "{}" else (b"[", b"]")
    return opened * depth + b"1" + closed * depth


# What is asked of a body...


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        pytest.param(b"", "the body is empty", id="empty"),
        pytest.param(b" \n", "the body is empty", id="blank"),
        pytest.param(b"{", "the body is not JSON", id="unfinished"),
        pytest.param(b"{} x", "the body is not JSON", id="more-after-the-end"),
        pytest.param(b"model=m", "the body is not JSON", id="a-form"),
        pytest.param(b'{"model": NaN}', "the body is not JSON", id="nan"),
        pytest.param(b"[]", "the body must be a JSON object", id="an-array"),
        pytest.param(b"null", "the body must be a JSON object", id="null"),
        pytest.param(b'"text"', "the body must be a JSON object", id="text"),
        pytest.param(b'{"model": "\xff"}', "the body is not UTF-8 (byte 11)", id="not-utf-8"),
        pytest.param(b'{"\xc3": 1}', "the body is not UTF-8 (byte 2)", id="half-a-character"),
        pytest.param(b'\xff\xfe{\x00}\x00', "the body is not UTF-8 (byte 0)", id="utf-16"),
        pytest.param(b'{"model": "\\ud800"}', "the body is not JSON", id="half-a-surrogate-pair"),
        pytest.param(b'{"a":' + nested(100_000) + b"}", "nested too deeply", id="nested-beyond-reason"),
        pytest.param(b'{"messages":' + nested(100_000, "{}") + b"}", "nested too deeply", id="objects-beyond-reason"),
    ],
)  # fmt: skip
def test_what_is_no_object_is_refused(raw, says):
    error = refusal(raw)
    assert says in error.message
    assert error.param is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        pytest.param({"model": 5}, "model", id="model-a-number"),
        pytest.param({"model": ["m"]}, "model", id="model-an-array"),
        pytest.param({"model": {}}, "model", id="model-an-object"),
        pytest.param({"model": True}, "model", id="model-a-boolean"),
        pytest.param({"stream": "true"}, "stream", id="stream-text"),
        pytest.param({"stream": 1}, "stream", id="stream-a-number"),
        pytest.param({"stream": []}, "stream", id="stream-an-array"),
        pytest.param({"stream_options": True}, "stream_options", id="stream-options-a-boolean"),
        pytest.param({"stream_options": []}, "stream_options", id="stream-options-an-array"),
        pytest.param({"stream_options": "usage"}, "stream_options", id="stream-options-text"),
        pytest.param({"messages": None}, "messages", id="messages-null"),
        pytest.param({"messages": "Hi"}, "messages", id="messages-text"),
        pytest.param({"messages": {}}, "messages", id="messages-an-object"),
        pytest.param({"messages": []}, "messages", id="messages-empty"),
        pytest.param({"messages": ["Hi"]}, "messages[0]", id="a-message-text"),
        pytest.param({"messages": [*MESSAGES, None]}, "messages[1]", id="a-message-null"),
        pytest.param({"messages": [*MESSAGES, {"content": "x"}]}, "messages[1].role", id="a-message-without-role"),
        pytest.param({"messages": [{"role": None}]}, "messages[0].role", id="role-null"),
        pytest.param({"messages": [{"role": ["user"]}]}, "messages[0].role", id="role-an-array"),
    ],
)
def test_wrong_types_name_their_field(fields, param):
    error = refusal(body(**fields))
    assert error.param == param
    assert f"`{param.removesuffix('.role')}" in error.message


def test_messages_must_be_there():
    error = refusal(b'{"model":"m"}')
    assert (error.param, error.message) == ("messages", "`messages` is missing")


def test_endpoints_without_messages_do_not_want_them():
    assert parse(b'{"model":"m","input":"x"}', messages=False).model == "m"
    assert parse(b'{"model":"m","messages":5}', messages=False).roles == frozenset()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({}, ("m", False, False), id="usual"),
        pytest.param({"model": None}, (None, False, False), id="model-null"),
        pytest.param({"model": ""}, ("", False, False), id="model-empty"),
        pytest.param({"stream": None}, ("m", False, False), id="stream-null"),
        pytest.param({"stream": True}, ("m", True, False), id="stream"),
        pytest.param({"stream_options": None}, ("m", False, False), id="stream-options-null"),
        pytest.param({"stream_options": {}}, ("m", False, False), id="stream-options-empty"),
        pytest.param({"stream_options": {"include_usage": True}}, ("m", False, True), id="usage-asked"),
        pytest.param({"stream_options": {"include_usage": False}}, ("m", False, False), id="usage-declined"),
        pytest.param({"stream_options": {"include_usage": None, "x": [1]}}, ("m", False, False), id="usage-null"),
    ],
)
def test_what_routing_needs_to_know(fields, expected):
    request = parse(body(**fields))
    assert (request.model, request.stream, request.include_usage) == expected


def test_model_may_be_left_out():
    assert parse(dumps({"messages": MESSAGES})).model is None


@pytest.mark.parametrize(
    ("n", "choices"),
    [(None, 1), (1, 1), (2, 2), (0, 1), (-1, 1), ("2", 1), (2.5, 1), ([2], 1), (10**30, 1000), (True, 1)],
)
def test_choices(n, choices):
    assert parse(body(stream=True, n=n)).choices == choices


def test_anything_else_is_the_providers_to_judge():
    fields = {"temperature": "hot", "max_tokens": -1, "tools": 5, "n": "x", "future": {"a": [None]}}
    messages = [{"role": "wizard", "content": 5, "x": []}, {"role": "tool"}]
    assert parse(body(messages=messages, **fields)).roles == {"wizard", "tool"}


@thorough
@given(st.binary(max_size=60) | json.map(jsonlib.dumps).map(str.encode))
def test_any_body_is_taken_or_refused(raw):
    try:
        split(raw)
        request = parse(raw)
    except InvalidRequest:
        return
    render(request, model="x", stream=True, ask_usage=True, roles={"user": "u"})


@thorough
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "model": json,
            "stream": json | st.booleans(),
            "stream_options": json | st.dictionaries(st.just("include_usage"), json),
            "n": json,
            "messages": json | st.lists(st.dictionaries(st.sampled_from(["role", "content"]), json), max_size=3),
        },
    )
)
def test_any_fields_are_taken_or_refused(fields):
    refused = None
    try:
        request = parse(jsonlib.dumps(fields).encode())
    except InvalidRequest as exc:
        refused = exc
    if refused:
        assert refused.param in fields or refused.param.startswith("messages")
        return
    out = jsonlib.loads(render(request, model="x", stream=True, ask_usage=True))
    assert (out["model"], out["stream"], out["stream_options"]["include_usage"]) == ("x", True, True)
    changed = {"model", "stream", "stream_options"}
    assert {k: v for k, v in out.items() if k not in changed} == {k: v for k, v in fields.items() if k not in changed}


# What goes to the provider...


def rendered(raw: bytes, **changes: object) -> bytes:
    request = parse(raw)
    return render(request, **{"model": request.model or "", "stream": request.stream, **changes})


ODD = [
    pytest.param(b' { "messages" : [ {"role":"user"} ],\n\t"model" : "m" } ', id="white-space"),
    pytest.param(b'{"model":"m","messages":[{"role":"user"}],"n":123456789012345678901234567890}', id="big-integers"),
    pytest.param(b'{"model":"m","messages":[{"role":"user"}],"x":1e400,"y":-0.0,"z":1.10}', id="odd-floats"),
    pytest.param(b'{"model":"m","messages":[{"role":"user"}],"x":"\\u00e9\\/\\ud83c\\udf0d"}', id="escapes"),
    pytest.param(b'{"model":"m","messages":[{"role":"user","a":' + nested(400) + b"}]}", id="depth"),
    pytest.param(b'{"model":"m","messages":[{"role":"user"}],"a":' + nested(400, "{}") + b"}", id="deep-objects"),
    pytest.param('{"model":"m","messages":[{"role":"user","content":"\u2028🌍"}]}'.encode(), id="unicode"),
    pytest.param(b'{"model":"m","messages":[{"role":"user"}],"":"","\\u0000":0}', id="odd-names"),
    pytest.param(b'{"x":1,"model":"m","x":2,"messages":[{"role":"user","role":"user"}]}', id="repeated"),
]


@pytest.mark.parametrize("raw", ODD)
def test_nothing_changes_where_nothing_must(raw):
    assert rendered(raw) == raw


@pytest.mark.parametrize("first", ["model", "mod\\u0065l"])
def test_a_model_named_twice_goes_up_once_as_it_was_judged(first):
    raw = b'{"%b":"theirs","messages":[{"role":"user"}],"model":"m"}' % first.encode()
    assert rendered(raw) == b'{"model":"m","messages":[{"role":"user"}]}'


@pytest.mark.parametrize("raw", ODD)
def test_only_top_level_values_are_replaced(raw):
    out = rendered(raw, model="other", stream=True, ask_usage=True)
    before, after = split(raw), split(out)
    assert bytes(after["model"]) == b'"other"'
    assert bytes(after["stream"]) == b"true"
    assert bytes(after["stream_options"]) == b'{"include_usage":true}'
    for name, value in before.items():
        if name != "model":
            assert bytes(after[name]) == bytes(value), name
    assert set(after) == {*before, "stream", "stream_options"}


ASK, USAGE = {"ask_usage": True}, {"include_usage": True}


@pytest.mark.parametrize(
    ("fields", "changes", "expected"),
    [
        pytest.param({}, {"model": "@cf/meta/x"}, {"model": "@cf/meta/x"}, id="model"),
        pytest.param({"model": None}, {"model": "x"}, {"model": "x"}, id="model-where-it-was-null"),
        pytest.param({"stream": True}, {"stream": False}, {"stream": False}, id="no-stream"),
        pytest.param({"stream": None}, {"stream": True}, {"stream": True}, id="stream-where-it-was-null"),
        pytest.param({"stream": None}, {"stream": False}, {"stream": None}, id="null-is-false"),
        pytest.param({}, {"stream": True}, {"stream": True}, id="stream"),
        pytest.param({"stream": True}, ASK, {"stream": True, "stream_options": USAGE}, id="usage"),
        pytest.param(
            {"stream": True, "stream_options": {"include_usage": False, "x": 10**30}},
            ASK,
            {"stream": True, "stream_options": {**USAGE, "x": 10**30}},
            id="usage-beside-other-options",
        ),
        pytest.param(
            {"stream": True, "stream_options": None},
            ASK,
            {"stream": True, "stream_options": USAGE},
            id="usage-where-options-were-null",
        ),
        pytest.param({}, ASK, {}, id="no-usage-without-a-stream"),
        pytest.param({"stream": True}, {"ask_usage": False}, {"stream": True}, id="no-usage-where-it-is-refused"),
        pytest.param({"x": 1, "y": 2}, {"drop": ("x", "z")}, {"y": 2}, id="dropped"),
        pytest.param(
            {"stream": True}, {**ASK, "drop": ("stream_options",)}, {"stream": True}, id="dropped-although-ours"
        ),
    ],
)
def test_what_must_change_changes(fields, changes, expected):
    out = jsonlib.loads(rendered(body(**fields), **changes))
    assert out == {"model": "m", "messages": MESSAGES, **expected}


def test_usage_that_was_asked_for_changes_nothing():
    raw = body(stream=True, stream_options={"include_usage": True, "x": 1})
    assert rendered(raw, ask_usage=True) == raw


def test_roles_are_renamed_and_nothing_else_of_a_message():
    messages = b'[{"role":"developer","content":[{"x":1e400}]},{"content":null,"role":"user","n":' + b"9" * 30 + b"}]"
    raw = b'{"model":"m","messages":' + messages + b"}"
    assert rendered(raw, roles={"tool": "x"}) == raw
    out = split(rendered(raw, roles={"developer": "system"}))
    assert bytes(out["messages"]) == messages.replace(b"developer", b"system")


def test_of_repeated_names_the_last_counts():
    request = parse(b'{"model":"a","stream":false,"messages":[{"role":"user"}],"model":"b","stream":true}')
    assert (request.model, request.stream) == ("b", True)
    out = render(request, model="c", stream=True)
    assert out.count(b'"model"') == out.count(b'"stream"') == 1


def test_a_provider_that_takes_no_stream_options_gets_none():
    raw = b'{"model":"m","messages":[{"role":"user"}],"stream":true,"stream_options":{"include_usage":true}}'
    told = jsonlib.loads(rendered(raw, ask_usage=False))
    assert "stream_options" not in told
