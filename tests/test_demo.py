"""The demo provider, asked over a real socket as the gateway asks it."""

from __future__ import annotations

import asyncio
import base64
import json
import struct

import aiohttp
import pytest

from proxy.demo import MODEL, Demo

DEADLINE = 10  # seconds: a guard against hanging, never what is tested

TOOLS = [
    {"type": "custom", "custom": {"name": "shell"}},
    {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}},
    {"type": "function", "function": {"name": "look_up"}},
]


async def at_once():
    """A pause that is none."""


@pytest.fixture
async def demo():
    demo = Demo(pause=at_once)
    await demo.start()
    yield demo
    await demo.close()


@pytest.fixture
async def session(demo):
    async with client_of(demo) as session:
        yield session


def client_of(demo):
    headers = {"Authorization": f"Bearer {demo.api_key}"}
    return aiohttp.ClientSession(demo.base_url, headers=headers, timeout=aiohttp.ClientTimeout(DEADLINE))


def chat(text="What is this?", **fields):
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}


async def post(session, path, body):
    async with session.post(path, json=body) as response:
        assert response.content_type == "application/json"
        return response.status, json.loads(await response.read())


async def streamed(session, path, body):
    """The chunks of a stream that is sound: every frame one data line, one head, an end mark."""
    async with session.post(path, json={**body, "stream": True}) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        *frames, done, rest = (await response.read()).split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    assert all(frame.startswith(b"data: ") and b"\n" not in frame for frame in frames)
    chunks = [json.loads(frame[6:]) for frame in frames]
    assert len({(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in chunks}) == 1
    return chunks


def fold(chunks):
    """The message, finish reason and usage that a streamed chat comes to."""
    message, finish, usage = {}, None, None
    for chunk in chunks:
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            assert finish is None
            finish = choice["finish_reason"]
            delta = choice["delta"]
            message.setdefault("role", delta.get("role"))
            if delta.get("content") is not None:
                message["content"] = message.get("content", "") + delta["content"]
            for call in delta.get("tool_calls", ()):
                known = message.setdefault("tool_calls", {}).setdefault(call["index"], {"arguments": ""})
                known["name"] = known.get("name") or call["function"].get("name")
                known["arguments"] += call["function"]["arguments"]
    return message, finish, usage


# Chats...


async def test_answer_says_what_it_is_and_quotes_the_question(session):
    status, answer = await post(session, "/v1/chat/completions", chat("Why is\n the sky  blue?"))
    assert (status, answer["object"], answer["model"]) == (200, "chat.completion", MODEL)
    (choice,) = answer["choices"]
    text = choice["message"]["content"]
    assert "“Why is the sky blue?”" in text
    assert "demo provider of AI Proxy" in text
    assert "not a language model" in text
    assert choice["finish_reason"] == "stop"
    words = len(text.split())
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": words, "total_tokens": 5 + words}


async def test_same_question_gets_the_same_words(session):
    texts = {(await post(session, "/v1/chat/completions", chat()))[1]["choices"][0]["message"]["content"] for _ in "12"}
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("messages", "quote"),
    [
        pytest.param(
            [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "one"},
                {"role": "user", "content": "two"},
            ],
            "“two”",
            id="last-of-the-user",
        ),
        pytest.param(
            [{"role": "user", "content": "one"}, {"role": "assistant", "content": "no"}],
            "“one”",
            id="not-the-assistant",
        ),
        pytest.param(
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "see"},
                        {"type": "image_url", "image_url": {"url": "data:,"}},
                        {"type": "text", "text": "this"},
                    ],
                }
            ],
            "“see this”",
            id="parts",
        ),
        pytest.param([{"role": "user", "content": "w " * 41}], "“" + "w " * 40 + "…”", id="long-questions-are-cut"),
        pytest.param([{"role": "user", "content": "{quote} %s"}], "“{quote} %s”", id="braces"),
        pytest.param([{"role": "system", "content": "s"}], "you have said nothing yet", id="no-question"),
        pytest.param([{"role": "user", "content": None}], "you have said nothing yet", id="null"),
    ],
)
async def test_question_is_the_users_last_message(session, messages, quote):
    status, answer = await post(session, "/v1/chat/completions", {"model": "any/name", "messages": messages})
    assert status == 200
    assert answer["model"] == "any/name"
    assert quote in answer["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="plain"),
        pytest.param({"max_tokens": 3}, id="cut"),
        pytest.param({"stop": ["gateway"]}, id="stopped"),
        pytest.param({"tools": TOOLS, "tool_choice": "required"}, id="tool"),
    ],
)
async def test_stream_folds_to_the_whole_answer(session, fields):
    body = chat(**fields, stream_options={"include_usage": True})
    _, answer = await post(session, "/v1/chat/completions", body)
    whole = answer["choices"][0]
    message, finish, usage = fold(await streamed(session, "/v1/chat/completions", body))
    assert message["role"] == "assistant"
    assert message.get("content") == whole["message"]["content"]
    calls = [call["function"] for call in whole["message"].get("tool_calls", ())]
    assert list(message.get("tool_calls", {}).values()) == calls
    assert (finish, usage) == (whole["finish_reason"], answer["usage"])


async def test_stream_goes_word_by_word(session):
    chunks = await streamed(session, "/v1/chat/completions", chat())
    first, *words, last = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert (first, last) == ({"role": "assistant", "content": ""}, {})
    assert all(len(word["content"].split()) == 1 for word in words)
    assert len(words) > 30


@pytest.mark.parametrize(
    ("options", "places"),
    [
        pytest.param(None, [False, False, False, False], id="not-asked"),
        pytest.param({"include_usage": False}, [False, False, False, False], id="refused"),
        pytest.param({"include_usage": True}, [None, None, None, None, 3], id="asked"),
    ],
)
async def test_usage_is_streamed_to_those_who_ask(session, options, places):
    body = chat("a b c", max_tokens=2, stream_options=options)
    chunks = await streamed(session, "/v1/chat/completions", body)
    told = [chunk["usage"] and chunk["usage"]["prompt_tokens"] if "usage" in chunk else False for chunk in chunks]
    assert told == places
    assert [len(chunk["choices"]) for chunk in chunks] == [0 if place == 3 else 1 for place in places]


@pytest.mark.parametrize(
    ("fields", "text", "finish"),
    [
        pytest.param({"max_tokens": 4}, "This is the demo", "length", id="max_tokens"),
        pytest.param({"max_completion_tokens": 2, "max_tokens": 4}, "This is", "length", id="max_completion_tokens"),
        pytest.param({"stop": "demo"}, "This is the", "stop", id="stop"),
        pytest.param({"stop": ["nowhere", "demo", "the"]}, "This is", "stop", id="stops"),
        pytest.param({"stop": "demo", "max_tokens": 3}, "This is the", "stop", id="stopped-before-the-limit"),
        pytest.param({"stop": "This"}, "", "stop", id="stopped-at-once"),
        pytest.param({"stop": ["", "demo"]}, "This is the", "stop", id="an-empty-stop-stops-nothing"),
    ],
)
async def test_answer_is_cut_where_it_was_asked_to_be(session, fields, text, finish):
    _, answer = await post(session, "/v1/chat/completions", chat(**fields))
    (choice,) = answer["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (text, finish)
    assert answer["usage"]["completion_tokens"] == len(text.split())


async def test_other_fields_are_accepted(session):
    body = chat(n=3, temperature=0.2, top_p=1, seed=7, user="me", response_format={"type": "text"}, nonsense=[1, {}])
    body |= {"stop": None, "tools": None, "stream": None, "stream_options": None, "max_tokens": None}
    status, answer = await post(session, "/v1/chat/completions", body)
    assert (status, len(answer["choices"])) == (200, 1)


# Tools...

ASKED = {"role": "user", "content": "please look_up the sky"}
CALLED = {"role": "assistant", "content": None, "tool_calls": []}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "blue"}


@pytest.mark.parametrize(
    ("messages", "choice", "called"),
    [
        pytest.param([ASKED], None, "look_up", id="named-by-the-user"),
        pytest.param([ASKED], "auto", "look_up", id="named-and-auto"),
        pytest.param([ASKED], "none", None, id="named-and-none"),
        pytest.param([{"role": "user", "content": "overlook it"}], None, None, id="part-of-a-word-is-no-name"),
        pytest.param([{"role": "user", "content": "(look)"}], None, "look", id="named-in-brackets"),
        pytest.param([{"role": "user", "content": "hello"}], "required", "look", id="required"),
        pytest.param([ASKED], "required", "look_up", id="required-and-named"),
        pytest.param([ASKED], {"type": "function", "function": {"name": "look"}}, "look", id="forced"),
        pytest.param([ASKED, CALLED, RESULT], None, None, id="answered-is-not-called-again"),
    ],
)
async def test_tool_is_called_when_forced_or_named(session, messages, choice, called):
    body = {"model": MODEL, "messages": messages, "tools": TOOLS}
    status, answer = await post(
        session, "/v1/chat/completions", body if choice is None else {**body, "tool_choice": choice}
    )
    assert status == 200
    (answered,) = answer["choices"]
    if called is None:
        assert answered["finish_reason"] == "stop"
        assert "tool_calls" not in answered["message"]
    else:
        (call,) = answered["message"]["tool_calls"]
        assert answered["finish_reason"] == "tool_calls"
        assert answered["message"]["content"] is None
        assert (call["type"], call["function"]) == ("function", {"name": called, "arguments": "{}"})


async def test_tool_call_is_streamed_in_fragments(session):
    chunks = await streamed(session, "/v1/chat/completions", chat("look", tools=TOOLS))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": None}
    calls = [delta["tool_calls"][0] for delta in deltas[1:-1]]
    assert calls[0].pop("id").startswith("call_")
    assert calls == [
        {"index": 0, "type": "function", "function": {"name": "look", "arguments": ""}},
        {"index": 0, "function": {"arguments": "{"}},
        {"index": 0, "function": {"arguments": "}"}},
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


# Completions, embeddings, models...


async def test_completion_is_whole_and_streamed(session):
    body = {"model": MODEL, "prompt": "def f():", "max_tokens": 5, "stream_options": {"include_usage": True}}
    status, answer = await post(session, "/v1/completions", body)
    assert (status, answer["object"]) == (200, "text_completion")
    (choice,) = answer["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("This is the demo provider", "length")
    chunks = await streamed(session, "/v1/completions", body)
    choices = [chunk["choices"][0] for chunk in chunks[:-1]]
    assert "".join(choice["text"] for choice in choices) == choice["text"]
    assert [choice["finish_reason"] for choice in choices] == [None] * 5 + ["length"]
    assert chunks[-1]["usage"] == answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 5, "total_tokens": 7}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        pytest.param("one two", [2], id="text"),
        pytest.param(["one", "two three"], [1, 2], id="texts"),
        pytest.param([1, 2, 3], [3], id="token-numbers"),
        pytest.param([[1, 2], [3]], [2, 1], id="lists-of-token-numbers"),
        pytest.param(" ", [0], id="a-space"),
    ],
)
async def test_embeddings_are_one_for_each_input(session, given, words):
    status, answer = await post(session, "/v1/embeddings", {"model": MODEL, "input": given})
    assert (status, answer["object"], answer["model"]) == (200, "list", MODEL)
    assert [item["index"] for item in answer["data"]] == list(range(len(words)))
    assert all(sum(x * x for x in item["embedding"]) == pytest.approx(1) for item in answer["data"])
    assert answer["usage"] == {"prompt_tokens": sum(words), "total_tokens": sum(words)}


async def test_base64_embedding_is_the_floats_in_little_endian(session):
    body = {"model": MODEL, "input": "one two three", "dimensions": 8}
    _, floats = await post(session, "/v1/embeddings", {**body, "encoding_format": "float"})
    _, packed = await post(session, "/v1/embeddings", {**body, "encoding_format": "base64"})
    vector = floats["data"][0]["embedding"]
    assert struct.unpack("<8f", base64.b64decode(packed["data"][0]["embedding"])) == pytest.approx(vector)


async def test_texts_that_share_words_are_near(session):
    texts = ["the sky is blue", "Blue is the sky", "a gateway streams frames"]
    _, answer = await post(session, "/v1/embeddings", {"model": MODEL, "input": texts})
    sky, again, other = (item["embedding"] for item in answer["data"])
    assert sky == again
    assert sum(a * b for a, b in zip(sky, other, strict=True)) < 0.5


async def test_models_are_listed(session):
    async with session.get("/v1/models") as response:
        listed = json.loads(await response.read())
    assert listed == {
        "object": "list",
        "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "ai-proxy"}],
    }


# Faults...


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        pytest.param("chat/completions", {"messages": [{"role": "user"}]}, "model", id="no-model"),
        pytest.param("chat/completions", {"model": MODEL}, "messages", id="no-messages"),
        pytest.param("chat/completions", {"model": MODEL, "messages": []}, "messages", id="empty-messages"),
        pytest.param("chat/completions", {"model": MODEL, "messages": [{}]}, "messages[0].role", id="no-role"),
        pytest.param(
            "chat/completions",
            {"model": MODEL, "messages": [{"role": "user", "content": 5}]},
            "messages[0].content",
            id="content-is-a-number",
        ),
        pytest.param("chat/completions", chat(model=""), "model", id="empty-model"),
        pytest.param("chat/completions", chat(stream="yes"), "stream", id="stream-is-a-word"),
        pytest.param("chat/completions", chat(max_tokens=0), "max_tokens", id="no-tokens"),
        pytest.param("chat/completions", chat(stop=[1]), "stop[0]", id="stop-is-a-number"),
        pytest.param("chat/completions", chat(stream_options=[]), "stream_options", id="options-are-a-list"),
        pytest.param("chat/completions", chat(tools=[{}]), "tools[0].type", id="tool-without-type"),
        pytest.param(
            "chat/completions",
            chat(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "fly"}}),
            "tool_choice",
            id="unknown-tool-forced",
        ),
        pytest.param("chat/completions", [], None, id="not-an-object"),
        pytest.param("completions", {"model": MODEL}, "prompt", id="no-prompt"),
        pytest.param("completions", {"model": MODEL, "prompt": [1, "a"]}, "prompt", id="mixed-prompt"),
        pytest.param("embeddings", {"model": MODEL}, "input", id="no-input"),
        pytest.param("embeddings", {"model": MODEL, "input": ""}, "input", id="empty-input"),
        pytest.param("embeddings", {"model": MODEL, "input": []}, "input", id="no-inputs"),
        pytest.param(
            "embeddings", {"model": MODEL, "input": "a", "encoding_format": "hex"}, "encoding_format", id="encoding"
        ),
        pytest.param("embeddings", {"model": MODEL, "input": "a", "dimensions": 0}, "dimensions", id="flat"),
    ],
)
async def test_fault_in_the_body_names_the_field(session, path, body, param):
    status, answer = await post(session, f"/v1/{path}", body)
    assert (status, answer["error"]["type"], answer["error"]["param"]) == (400, "invalid_request_error", param)
    assert answer["error"]["message"].startswith(param.partition("[")[0] if param else "the body")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'{"model":', id="cut"),
        pytest.param(b'{"model":"\xff"}', id="not-utf-8"),
        pytest.param(b'{"model":"\\ud800"}', id="half-a-surrogate-pair"),
        pytest.param(b'{"x":' + b"[" * 100_000, id="deep"),
    ],
)
async def test_what_is_no_json_is_a_400(session, body):
    async with session.post("/v1/chat/completions", data=body) as response:
        assert response.status == 400
        assert json.loads(await response.read())["error"]["message"].startswith("the body")


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/", 404), ("GET", "/v1/embeddings", 405)])
async def test_other_paths_and_methods_are_refused_in_the_envelope(session, method, path, status):
    async with session.request(method, path) as response:
        assert response.status == status
        assert json.loads(await response.read())["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("given", [None, "Bearer ", "Bearer guess", "Bearer gu\u00e9ss", "Basic {key}", "{key}"])
async def test_nobody_else_is_served(demo, given):
    headers = {} if given is None else {"Authorization": given.format(key=demo.api_key)}
    async with aiohttp.ClientSession(demo.base_url, headers=headers) as stranger:
        status, answer = await post(stranger, "/v1/chat/completions", chat())
    assert (status, answer["error"]["code"]) == (401, "invalid_api_key")


def test_each_process_has_its_own_key():
    assert Demo().api_key != Demo().api_key


# Life...


class Gate:
    """A pause that lasts until it is cancelled, and says when it began and was."""

    def __init__(self):
        self.waiting = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self):
        self.waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.left.set()


async def test_first_frame_is_sent_before_the_first_pause_and_a_client_that_leaves_ends_it():
    gate = Gate()
    demo = Demo(pause=gate)
    await demo.start()
    async with asyncio.timeout(DEADLINE), client_of(demo) as session:
        response = await session.post("/v1/chat/completions", json=chat(stream=True))
        assert (await response.content.readline()).startswith(b'data: {"id":"chatcmpl-')
        await gate.waiting.wait()
        assert not gate.left.is_set()
        response.close()
        await gate.left.wait()
    await demo.close()


async def test_close_cuts_what_is_being_answered():
    gate = Gate()
    demo = Demo(pause=gate)
    await demo.start()
    async with asyncio.timeout(DEADLINE), client_of(demo) as session:
        response = await session.post("/v1/chat/completions", json=chat(stream=True))
        await gate.waiting.wait()
        await demo.close()
        assert gate.left.is_set()
        with pytest.raises(aiohttp.ClientError):
            await response.read()


async def test_it_is_on_loopback_only_between_start_and_close():
    demo = Demo()
    with pytest.raises(RuntimeError, match="not started"):
        _ = demo.base_url
    await demo.start()
    first = demo.base_url
    await demo.start()
    assert demo.base_url == first
    assert first.startswith("http://127.0.0.1:")
    await demo.close()
    await demo.close()
    with pytest.raises(RuntimeError, match="not started"):
        _ = demo.base_url
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(first)


async def test_it_pauses_of_its_own_accord():
    demo = Demo()
    await demo.start()
    async with client_of(demo) as session:
        chunks = await streamed(session, "/v1/chat/completions", chat(max_tokens=2))
    assert fold(chunks)[0]["content"] == "This is"
    await demo.close()
