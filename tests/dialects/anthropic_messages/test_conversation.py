"""The canonical request → a provider's body: the conversation."""

from __future__ import annotations

import base64
import json

import pytest

from proxy.dialects.anthropic_messages import NAME
from proxy.dialects.anthropic_messages.asking import write
from proxy.dialects.anthropic_messages.conversation import OPENING, ROLE
from proxy.errors import InvalidRequest
from proxy.requests import (
    Audio,
    Document,
    Image,
    Refusal,
    Request,
    Role,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Turn,
)

CACHE = {"type": "ephemeral"}
HI = Turn(Role.USER, (Text("Hi"),))


def said(role, *parts):
    return Turn(role, tuple(Text(part) if isinstance(part, str) else part for part in parts))


def sent(*turns, **fields):
    return json.loads(write(Request("m", turns, **fields), model="claude-sonnet-4-6"))


def messages(*turns, **fields):
    return [(m["role"], m["content"]) for m in sent(*turns, **fields)["messages"]]


def text(words, **more):
    return {"type": "text", "text": words, **more}


def use(id, name="look", **input):
    return {"type": "tool_use", "id": id, "name": name, "input": input}


def result(id, content=None, **more):
    return {"type": "tool_result", "tool_use_id": id} | ({"content": content} if content else {}) | more


def test_every_role_has_its_word():
    assert set(ROLE) == set(Role)


@pytest.mark.parametrize(
    ("turns", "told"),
    [
        pytest.param(
            [HI, said(Role.USER, "there")],
            [("user", [text("Hi"), text("there")])],
            id="neighbours-of-one-role-are-one-message",
        ),
        pytest.param(
            [said(Role.ASSISTANT, "Welcome"), HI],
            [("user", OPENING), ("assistant", "Welcome"), ("user", "Hi")],
            id="the-first-message-is-the-user's",
        ),
        pytest.param(
            [
                HI,
                said(Role.ASSISTANT, "", ToolCall("1", "look", '{"a": 1}')),
                said(Role.TOOL, ToolResult("1", (Text("ok"),))),
            ],
            [("user", "Hi"), ("assistant", [use("1", a=1)]), ("user", [result("1", "ok")])],
            id="empty-text-beside-a-call-is-left-out",
        ),
        pytest.param(
            [
                HI,
                said(Role.ASSISTANT, ToolCall("1", "look", ""), ToolCall("2", "look", "{}")),
                said(Role.TOOL, ToolResult("1", (Text("a"),))),
                said(Role.TOOL, ToolResult("2", (Text("b"),), error=True)),
                said(Role.USER, "And now?"),
            ],
            [
                ("user", "Hi"),
                ("assistant", [use("1"), use("2")]),
                ("user", [result("1", "a"), result("2", "b", is_error=True), text("And now?")]),
            ],
            id="results-and-the-user's-next-words-are-one-message",
        ),
        pytest.param(
            [
                HI,
                said(Role.ASSISTANT, ToolCall("1", "look", "{}")),
                said(Role.USER, "Wait"),
                said(Role.TOOL, ToolResult("1", (Text("a"),))),
            ],
            [("user", "Hi"), ("assistant", [use("1")]), ("user", [result("1", "a"), text("Wait")])],
            id="results-come-first",
        ),
        pytest.param(
            [HI, said(Role.ASSISTANT, "The answer is: \n")],
            [("user", "Hi"), ("assistant", "The answer is:")],
            id="words-to-go-on-with-do-not-end-in-white-space",
        ),
        pytest.param(
            [HI, said(Role.ASSISTANT, " "), said(Role.USER, "Hello?")],
            [("user", [text("Hi"), text("Hello?")])],
            id="blank-text-is-left-out",
        ),
        pytest.param(
            [said(Role.USER, Text("Hi", CACHE))],
            [("user", [text("Hi", cache_control=CACHE)])],
            id="cache-marker",
        ),
        pytest.param(
            [HI, said(Role.ASSISTANT, Refusal("No.")), HI],
            [("user", "Hi"), ("assistant", "No."), ("user", "Hi")],
            id="refusal",
        ),
        pytest.param(
            [
                HI,
                said(Role.ASSISTANT, ToolCall("1", "look", "{}", cache=CACHE)),
                said(
                    Role.TOOL,
                    ToolResult("1", (Text("see"), Image("https://e.org/a.png")), cache=CACHE),
                ),
            ],
            [
                ("user", "Hi"),
                ("assistant", [use("1") | {"cache_control": CACHE}]),
                (
                    "user",
                    [
                        result(
                            "1",
                            [text("see"), {"type": "image", "source": {"type": "url", "url": "https://e.org/a.png"}}],
                            cache_control=CACHE,
                        )
                    ],
                ),
            ],
            id="pictures-in-results-and-cache-markers",
        ),
        pytest.param(
            [HI, said(Role.ASSISTANT, ToolCall("1", "x")), said(Role.TOOL, ToolResult("1", (Text(""),)))],
            [("user", "Hi"), ("assistant", [use("1", "x")]), ("user", [result("1")])],
            id="an-empty-result",
        ),
    ],
)
def test_turns_become_messages(turns, told):
    assert messages(*turns) == told


@pytest.mark.parametrize("arguments", ["", "{", "[1]", '"x"', "null"])
def test_broken_arguments_are_none(arguments):
    assert messages(HI, said(Role.ASSISTANT, ToolCall("1", "look", arguments)))[1] == ("assistant", [use("1")])


@pytest.mark.parametrize(
    ("part", "told"),
    [
        pytest.param(
            Thinking("Hm.", "sig"), [{"type": "thinking", "thinking": "Hm.", "signature": "sig"}], id="signed"
        ),
        pytest.param(Thinking(redacted="xyz"), [{"type": "redacted_thinking", "data": "xyz"}], id="redacted"),
        pytest.param(Thinking("Hm."), [], id="unsigned"),
    ],
)
def test_only_signed_thoughts_go_back_to_the_turn_that_thought_them(part, told):
    turn = said(Role.ASSISTANT, part, ToolCall("1", "look", "{}"))
    sent = messages(HI, turn, said(Role.TOOL, ToolResult("1", (Text("ok"),))))
    assert sent[1] == ("assistant", [*told, use("1")])


# System turns...


def test_system_turns_join_the_prompt():
    body = sent(
        said(Role.SYSTEM, "b"), HI, said(Role.SYSTEM, "c"), said(Role.USER, "there"), system=(Text("a"), Text(" "))
    )
    assert body["system"] == "a\n\nb\n\nc"
    assert [m["role"] for m in body["messages"]] == ["user"]


def test_system_turns_of_this_dialect_keep_their_place():
    assert messages(HI, said(Role.SYSTEM, "c"), said(Role.ASSISTANT, "d"), HI, extras={NAME: {}}) == [
        ("user", "Hi"),
        ("system", "c"),
        ("assistant", "d"),
        ("user", "Hi"),
    ]


def test_a_prompt_alone_is_said_by_the_user():
    body = sent(said(Role.SYSTEM, "Tell a joke."))
    assert body["messages"] == [{"role": "user", "content": "Tell a joke."}]
    assert "system" not in body


# Call ids...


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        pytest.param(["call_1"], ["call_1"], id="as-they-are"),
        pytest.param(["functions.look:0"], ["functions_look_0"], id="strange-letters"),
        pytest.param(["a.b", "a:b"], ["a_b", "a_b_2"], id="two-that-become-the-same"),
        pytest.param(["é" * 3], ["___"], id="nothing-but-strange-letters"),
        pytest.param(["", ""], ["call", "call_2"], id="none"),
    ],
)
def test_call_ids_are_clean_unique_and_the_same_in_their_results(theirs, ours):
    calls = said(Role.ASSISTANT, *(ToolCall(id, "look", "{}") for id in theirs))
    results = said(Role.TOOL, *(ToolResult(id, (Text(str(i)),)) for i, id in enumerate(theirs)))
    assert messages(HI, calls, results)[1:] == [
        ("assistant", [use(id) for id in ours]),
        ("user", [result(id, str(i)) for i, id in enumerate(ours)]),
    ]


def test_an_id_that_every_turn_uses_again_is_another_one_each_time():
    call, answer = said(Role.ASSISTANT, ToolCall("0", "look", "{}")), said(Role.TOOL, ToolResult("0", (Text("a"),)))
    assert messages(HI, call, answer, call, answer)[1:] == [
        ("assistant", [use("0")]),
        ("user", [result("0", "a")]),
        ("assistant", [use("0_2")]),
        ("user", [result("0_2", "a")]),
    ]


def test_a_result_without_a_call_is_the_provider_s_to_judge():
    assert messages(said(Role.TOOL, ToolResult("a.b", (Text("x"),)))) == [("user", [result("a_b", "x")])]


# Pictures and documents...

PNG = base64.b64encode(b"\x89PNG").decode()


@pytest.mark.parametrize(
    ("part", "told"),
    [
        pytest.param(
            Image("https://e.org/a.png", detail="high"),
            {"type": "image", "source": {"type": "url", "url": "https://e.org/a.png"}},
            id="url",
        ),
        pytest.param(
            Image(f"data:image/png;base64,{PNG}", cache=CACHE),
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": PNG},
                "cache_control": CACHE,
            },
            id="data-url",
        ),
        pytest.param(
            Image(f"data:image/png;name=a.png;base64,{PNG}"),
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
            id="data-url-with-a-name",
        ),
        pytest.param(
            Image("data:image/png,%89PNG"),
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
            id="data-url-without-base64",
        ),
        pytest.param(
            Image(data="AAAA", media_type="image/jpg"),
            {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "AAAA"}},
            id="jpg-is-jpeg",
        ),
        pytest.param(
            Document(file_id="file_1", media_type="image/*"),
            {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
            id="a-file-that-is-an-image",
        ),
        pytest.param(
            Document(data="AAAA", media_type="image/png"),
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
            id="a-document-that-is-an-image",
        ),
        pytest.param(
            Document(data="AAAA", media_type="application/pdf", name="T", cache=CACHE),
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"},
                "title": "T",
                "cache_control": CACHE,
            },
            id="pdf",
        ),
        pytest.param(
            Document(data="data:application/pdf;base64,AAAA"),
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}},
            id="pdf-in-a-data-url",
        ),
        pytest.param(
            Document(data=base64.b64encode("é".encode()).decode(), media_type="text/csv"),
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "é"}},
            id="text-in-base64",
        ),
        pytest.param(
            Document(url="https://e.org/a.pdf"),
            {"type": "document", "source": {"type": "url", "url": "https://e.org/a.pdf"}},
            id="pdf-url",
        ),
        pytest.param(
            Document(text="words"),
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
            id="text",
        ),
        pytest.param(
            Document(file_id="file_1"),
            {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
            id="file",
        ),
    ],
)
def test_what_is_shown(part, told):
    assert messages(said(Role.USER, part)) == [("user", [told])]


def test_text_that_is_not_base64_is_refused():
    with pytest.raises(InvalidRequest, match="base64"):
        messages(said(Role.USER, Document(data="A", media_type="text/plain")))


def test_sound_is_refused():
    with pytest.raises(InvalidRequest, match="audio") as caught:
        messages(said(Role.USER, Audio("AAAA", "wav")))
    assert caught.value.param == "messages"
