"""The Workers AI Chat API's documented interface, as its documentation prints it.

Its examples carry no key, so the gateway runs with the shipped configuration as it is: open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import shipped
from .upstream import chunk, conversation, pieces, sse, usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from . import Gateway
    from .upstream import Upstream
    from .wire import Answer

LLAMA = "@cf/meta/llama-3.1-8b-instruct"
CODER = "@hf/thebloke/deepseek-coder-6.7b-instruct-awq"
QWEN = "@cf/qwen/qwen2.5-coder-32b-instruct"
SQL = "@cf/defog/sqlcoder-7b-2"
#: The names that the document offers for Kilo Code, and what answers to them.
ALIASES = {
    "gpt-5.4": QWEN,
    "gpt-4": "deepseek-chat",
    "gpt-3.5-turbo": LLAMA,
    "deepseek-coder": CODER,
    "qwen-coder": QWEN,
    "sqlcoder": SQL,
}
ACCOUNT = f"/client/v4/accounts/{shipped.SECRETS['CLOUDFLARE_ACCOUNT_ID']}/ai"
ADD = {
    "model": CODER,
    "messages": [
        {"role": "system", "content": "You are a code assistant."},
        {"role": "user", "content": "Write a TypeScript function that adds two numbers."},
    ],
    "stream": True,
    "temperature": 0.4,
    "max_tokens": 512,
}


@pytest.fixture
async def api(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Gateway]:
    gateway = await shipped.start(tmp_path, upstream, closed=False)
    yield gateway
    await gateway.close()


async def curl(gateway: Gateway, path: str, body: str | None = None) -> Answer:
    """As the quick start does it: no key."""
    headers = {"User-Agent": "curl/8.5.0", "Accept": "*/*", **({"Content-Type": "application/json"} if body else {})}
    raw = body.encode() if body else None
    return await gateway.request("POST" if body else "GET", path, key=None, headers=headers, body=raw)


# Quick start...


async def test_curl_lists_the_models(api):
    told = await (await curl(api, "/api/models")).json()
    assert list(told) == ["defaultModel", "models"]
    assert told["defaultModel"] == LLAMA
    assert all(list(model) == ["id", "label", "description"] for model in told["models"])
    assert all(model["label"] and model["description"] for model in told["models"])
    labels = {model["id"]: model["label"] for model in told["models"]}
    assert labels[LLAMA] == "Llama 3.1 8B Instruct"
    assert labels[CODER] == "DeepSeek Coder 6.7B Instruct"
    assert {m["id"]: m["description"] for m in told["models"]}[CODER] == "Code generation and editing."


async def test_curl_chats(upstream, api):
    upstream.script = pieces([sse(f) if isinstance(f, dict) else f for f in conversation("Hel", "lo", usage=usage())])
    answer = await curl(api, "/api/chat", '{"prompt":"Say hello","stream":true}')
    assert (answer.status, answer.header("content-type")) == (200, "text/event-stream; charset=utf-8")
    assert [frame.raw for frame in await answer.frames()] == [
        b'data: {"delta":"Hel"}\n\n',
        b'data: {"delta":"lo"}\n\n',
        b'data: {"done":true,"model":"%b","usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}\n\n'
        % LLAMA.encode(),
    ]
    assert answer.whole
    call = await upstream.arrived()
    assert call.path == f"{ACCOUNT}/v1/chat/completions"
    assert call.header("authorization") == f"Bearer {shipped.SECRETS['CLOUDFLARE_API_TOKEN']}"
    assert call.asked["model"] == LLAMA
    assert call.asked["messages"] == [{"role": "user", "content": "Say hello"}]


async def test_curl_writes_code_with_the_default_model(upstream, api):
    body = '{"messages":[{"role":"user","content":"Write a hello world in Python"}],"stream":true}'
    answer = await curl(api, "/v1/chat/completions", body)
    assert answer.status == 200
    assert answer.header("x-proxy-model") == CODER
    assert (await answer.events())[-1].done
    assert (await upstream.arrived()).asked["model"] == CODER


# POST /api/chat...


async def test_the_documents_whole_request_body(upstream, api):
    body = {
        "prompt": "Explain recursion in one sentence.",
        "messages": [{"role": "user", "content": "..."}],
        "model": LLAMA,
        "stream": True,
        "max_tokens": 512,
        "temperature": 0.7,
    }
    answer = await api.request("POST", "/api/chat", key=None, json=body)
    assert (await answer.events())[-1].json["done"] is True
    asked = (await upstream.arrived()).asked
    assert asked["messages"] == [
        {"role": "user", "content": "..."},
        {"role": "user", "content": "Explain recursion in one sentence."},
    ]
    assert (asked["model"], asked["max_tokens"], asked["temperature"]) == (LLAMA, 512, 0.7)


async def test_messages_alone_will_do(upstream, api):
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    answer = await api.request("POST", "/api/chat", key=None, json={"messages": turns})
    assert [frame.json.get("delta") for frame in await answer.events()] == ["Hello!", None]
    assert (await upstream.arrived()).asked["messages"] == turns


async def test_without_a_stream_it_is_one_json_object(api):
    answer = await curl(api, "/api/chat", '{"prompt":"Say hello","stream":false}')
    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    assert await answer.json() == {
        "response": "Hello!",
        "model": LLAMA,
        "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
        "done": True,
    }


# GET /api/models and its default...


async def test_a_default_that_is_off_falls_back_to_the_first_model_that_is_on(upstream, tmp_path):
    gateway = await shipped.start(tmp_path, upstream, closed=False, without=["CLOUDFLARE_API_TOKEN"])
    told = await (await curl(gateway, "/api/models")).json()
    assert told["defaultModel"] == "deepseek-chat"
    assert [model["id"] for model in told["models"]] == ["deepseek-chat", "deepseek-reasoner", "demo"]
    answer = await curl(gateway, "/api/chat", '{"prompt":"Say hello","stream":false}')
    assert (await answer.json())["model"] == "deepseek-chat"
    await gateway.close()


async def test_without_any_secret_the_demo_answers_everything(upstream, tmp_path):
    gateway = await shipped.start(tmp_path, upstream, closed=False, without=shipped.SECRETS)
    told = await (await curl(gateway, "/api/models")).json()
    assert (told["defaultModel"], [model["id"] for model in told["models"]]) == ("demo", ["demo"])
    whole = await curl(gateway, "/api/chat", '{"prompt":"Say hello","stream":false}')
    assert whole.status == 200
    assert "hello" in (await whole.json())["response"]
    streamed = await curl(gateway, "/v1/chat/completions", '{"messages":[{"role":"user","content":"Hi"}]}')
    assert (await streamed.json())["model"] == "demo"
    assert upstream.calls == []
    await gateway.close()


# POST /v1/chat/completions...


async def test_the_documents_completion(upstream, api):
    answer = await api.request("POST", "/v1/chat/completions", key=None, json=ADD)
    assert answer.status == 200
    *chunks, done = await answer.events()
    assert all(frame.json["object"] == "chat.completion.chunk" for frame in chunks)
    assert "".join(frame.json["choices"][0]["delta"].get("content", "") for frame in chunks) == "Hello!"
    assert [frame.json["choices"][0]["finish_reason"] for frame in chunks][-1] == "stop"
    assert done.raw == b"data: [DONE]\n\n"
    call = await upstream.arrived()
    assert {**call.asked, "stream_options": None} == {**ADD, "stream_options": None}


async def test_workers_ais_own_oddities_pass_to_the_byte(upstream, api):
    """A number as a token, nulls beside it, usage that is zero first: only the usage-only chunk is kept back."""
    frames = [sse(chunk(delta={"content": 1, "tool_calls": None}, p="abc")), sse(chunk("2", finish="stop"))]
    upstream.script = pieces([*frames, sse(chunk(usage=usage(0, 0))), sse(chunk(usage=usage())), b"data: [DONE]\n\n"])
    answer = await api.request("POST", "/v1/chat/completions", key=None, json=ADD)
    assert [frame.raw for frame in await answer.events()] == [*frames, b"data: [DONE]\n\n"]


async def test_health(api):
    answer = await curl(api, "/health")
    assert (answer.status, await answer.json()) == (200, {"ok": True})


# The tools that it names...


@pytest.mark.parametrize(
    ("base", "appended"),
    [
        pytest.param("", "/v1/chat/completions", id="cursor-appends-the-path-with-v1"),
        pytest.param("", "/chat/completions", id="cursor-appends-the-path-without"),
        pytest.param("/v1", "/chat/completions", id="continue-has-v1-in-its-base"),
        pytest.param("/v1", "/v1/chat/completions", id="and-v1-twice"),
    ],
)
@pytest.mark.parametrize("key", ["not-needed", "", None])
async def test_every_base_url_and_placeholder_works(upstream, api, base, appended, key):
    answer = await api.request("POST", base + appended, key=key, json=ADD)
    assert answer.status == 200
    assert (await answer.events())[-1].done
    assert (await upstream.arrived()).asked["model"] == CODER


async def test_kilo_lists_the_models_from_a_webview(api):
    webview = "vscode-webview://0frhflbpusv2i73i43hco80u16hmrhaf5gt"
    answer = await api.request("GET", "/v1/models", key="not-needed", headers={"Origin": webview})
    told = await answer.json()
    assert answer.status == 200
    assert answer.header("access-control-allow-origin") == webview
    assert told["object"] == "list"
    listed = [model["id"] for model in told["data"]]
    assert {*ALIASES, *ALIASES.values(), "deepseek-reasoner", "demo"} == set(listed)
    assert len(listed) == len(set(listed))
    for model in told["data"]:
        assert model["object"] == "model"
        assert isinstance(model["created"], int)
        assert model["owned_by"]


@pytest.mark.parametrize(("alias", "model"), ALIASES.items())
async def test_kilos_model_names(upstream, api, alias, model):
    answer = await api.request("POST", "/v1/chat/completions", key="not-needed", json={**ADD, "model": alias})
    assert answer.status == 200
    assert (await answer.events())[-1].done
    assert (await upstream.arrived()).asked["model"] == model


@pytest.mark.parametrize("model", [LLAMA, CODER, QWEN, SQL])
async def test_models_are_named_by_their_own_ids_too(upstream, api, model):
    answer = await api.request("POST", "/v1/chat/completions", key=None, json={**ADD, "model": model})
    assert answer.status == 200
    await answer.body()
    assert (await upstream.arrived()).asked["model"] == model
