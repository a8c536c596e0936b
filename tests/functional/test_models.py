"""Names of models: ids with ``/`` and ``@``, aliases, wildcards, defaults, and what each key may see and use."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from . import KEY, chat_body
from .upstream import whole

LLAMA = "@cf/meta/llama-3.1-8b-instruct"
OTHER = "sk-other-key"
MODELS = [
    {"id": LLAMA, "provider": "up", "label": "Llama", "description": "Small.", "aliases": ["gpt-3.5-turbo", "small"]},
    {"id": "big", "provider": "up", "upstream": "big-2026-01", "context": 65536, "aliases": ["gpt-4"]},
    {"id": "off", "provider": "gone", "aliases": ["gone"]},
    {"id": "up/*", "provider": "up"},
    {"id": "up/special/*", "provider": "second"},
]
PROVIDERS = [
    {"name": "second", "kind": "openai", "base_url": "{url}", "api_key": "sk-second-secret"},
    {"name": "gone", "kind": "openai", "api_key": "env:NOT_SET_ANYWHERE"},
]


@pytest.fixture
def serve(gateway, upstream):
    async def start(*globs: str, **tables: object):
        second, gone = PROVIDERS
        key = {"name": "other", "key": OTHER, "models": list(globs or ["*"])}
        return await gateway(
            keys=[key], models=MODELS, providers=[{**second, "base_url": upstream.url}, gone], **tables
        )

    return start


async def listed(gw, path="/v1/models", key=OTHER):
    answer = await gw.request("GET", path, key=key)
    assert answer.status == 200
    return await answer.json()


def ids(told):
    return [model["id"] for model in told.get("data", told.get("models"))]


async def ask(gw, model, key=OTHER, path="/v1/chat/completions"):
    body = chat_body() if model is None else chat_body(model=model)
    if model is None:
        del body["model"]
    return await gw.request("POST", path, key=key, json=body)


# Lists...


async def test_models_and_aliases_are_listed_in_the_files_order(serve):
    told = await listed(await serve())
    assert told["object"] == "list"
    assert ids(told) == ["m", LLAMA, "gpt-3.5-turbo", "small", "big", "gpt-4"]
    assert {frozenset(model) for model in told["data"]} == {
        frozenset({"id", "object", "created", "owned_by"}),
        frozenset({"id", "object", "created", "owned_by", "context_length"}),
    }
    big, gpt4 = (next(m for m in told["data"] if m["id"] == name) for name in ("big", "gpt-4"))
    assert big["context_length"] == gpt4["context_length"] == 65536
    assert {model["owned_by"] for model in told["data"]} == {"up"}


async def test_the_simple_list_has_ids_labels_and_descriptions(serve):
    told = await listed(await serve(defaults={"chat": "gpt-4"}), "/api/models")
    assert told == {
        "defaultModel": "big",
        "models": [
            {"id": "m", "label": "m", "description": ""},
            {"id": LLAMA, "label": "Llama", "description": "Small."},
            {"id": "big", "label": "big", "description": ""},
        ],
    }


@pytest.mark.parametrize(
    ("globs", "names", "simple"),
    [
        pytest.param(["*"], ["m", LLAMA, "gpt-3.5-turbo", "small", "big", "gpt-4"], ["m", LLAMA, "big"], id="all"),
        pytest.param(["@cf/*"], [LLAMA, "gpt-3.5-turbo", "small"], [LLAMA], id="a-model-with-its-aliases"),
        pytest.param(["b?g", "m"], ["m", "big", "gpt-4"], ["m", "big"], id="two-globs"),
        pytest.param(["nothing"], [], [], id="nothing"),
    ],
)
async def test_a_key_sees_only_what_it_may_use(serve, globs, names, simple):
    gw = await serve(*globs)
    assert ids(await listed(gw)) == names
    told = await listed(gw, "/api/models")
    assert ids(told) == simple
    assert told["defaultModel"] == (simple[0] if simple else "")
    assert ids(await listed(gw, key=KEY)) == ["m", LLAMA, "gpt-3.5-turbo", "small", "big", "gpt-4"]


# One model...


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(LLAMA, id="as-it-is"),
        pytest.param(quote(LLAMA, safe=""), id="all-encoded"),
        pytest.param("@cf%2Fmeta%2Fllama-3.1-8b-instruct", id="as-openais-sdk-does"),
        pytest.param("%40cf/meta/llama-3.1-8b-instruct", id="the-at-sign-encoded"),
        pytest.param("@cf%2fmeta%2fllama-3%2e1-8b-instruct", id="small-letters-and-dots"),
    ],
)
@pytest.mark.parametrize("prefix", ["/v1", "", "/v1/v1"])
async def test_ids_hold_slashes_and_at_signs_encoded_or_not(serve, prefix, path):
    told = await listed(await serve(), f"{prefix}/models/{path}")
    assert (told["id"], told["object"], told["owned_by"]) == (LLAMA, "model", "up")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        pytest.param("gpt-4", "gpt-4", id="an-alias-under-its-own-name"),
        pytest.param("up/gpt-4.1", "up/gpt-4.1", id="a-wildcard"),
        pytest.param("up/a/b%2Fc", "up/a/b/c", id="a-wildcard-with-slashes"),
    ],
)
async def test_what_can_be_asked_can_be_looked_up(serve, name, told):
    assert (await listed(await serve(), f"/v1/models/{name}"))["id"] == told


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        pytest.param("nothing", 404, "model_not_found", id="unknown"),
        pytest.param("off", 404, "model_not_found", id="switched-off"),
        pytest.param("gone", 404, "model_not_found", id="an-alias-of-what-is-off"),
        pytest.param("up/*", 404, "model_not_found", id="a-wildcard-itself"),
        pytest.param("up/", 404, "model_not_found", id="a-wildcard-with-nothing"),
        pytest.param("M", 404, "model_not_found", id="case-matters"),
        pytest.param("m", 403, None, id="not-for-this-key"),
    ],
)
async def test_what_cannot_be_asked_is_refused_the_same_way_by_look_up_and_by_use(upstream, serve, name, status, code):
    gw = await serve("b*", "up/*", "off", "gone", "M", "nothing")
    for answer in (await gw.request("GET", f"/v1/models/{name}", key=OTHER), await ask(gw, name)):
        error = (await answer.json())["error"]
        assert (answer.status, error["code"], error["param"]) == (status, code, "model")
    assert upstream.calls == []


# Use...


@pytest.mark.parametrize(
    ("asked", "sent", "label"),
    [
        pytest.param(LLAMA, LLAMA, LLAMA, id="an-id"),
        pytest.param("gpt-3.5-turbo", LLAMA, LLAMA, id="an-alias"),
        pytest.param("small", LLAMA, LLAMA, id="another-alias"),
        pytest.param("big", "big-2026-01", "big", id="an-id-with-the-providers-own-name"),
        pytest.param("gpt-4", "big-2026-01", "big", id="an-alias-of-it"),
        pytest.param("up/gpt-4.1:beta@2", "gpt-4.1:beta@2", "up/gpt-4.1:beta@2", id="a-wildcard"),
        pytest.param("up/special/x", "x", "up/special/x", id="the-longest-wildcard-wins"),
        pytest.param("up/specialx", "specialx", "up/specialx", id="and-only-where-it-matches"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat"])
async def test_the_provider_hears_its_own_name(upstream, serve, asked, sent, label, path):
    gw = await serve()
    answer = await ask(gw, asked, path=path)
    assert (answer.status, answer.header("x-proxy-model")) == (200, label)
    assert answer.header("x-proxy-provider") == ("second" if asked == "up/special/x" else "up")
    assert (await upstream.arrived()).asked["model"] == sent


async def test_the_provider_names_the_model_in_its_own_answer(upstream, serve):
    upstream.script = whole({"choices": [], "model": "big-2026-01"})
    assert (await (await ask(await serve(), "gpt-4")).json())["model"] == "big-2026-01"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("up/../secret", id="dots"),
        pytest.param("up/./x", id="a-dot"),
        pytest.param("up//x", id="an-empty-segment"),
        pytest.param("up/x/", id="a-slash-at-the-end"),
        pytest.param("up/x?y=1", id="a-query"),
        pytest.param("up/x#y", id="a-fragment"),
        pytest.param("up/x y", id="a-space"),
        pytest.param("up/x%2e%2e", id="percent"),
        pytest.param("up/x\r\nX-Evil: 1", id="a-header"),
        pytest.param("up/x\u0000", id="nul"),
        pytest.param("up/é", id="not-ascii"),
        pytest.param("up/" + "x" * 201, id="endless"),
    ],
)
async def test_a_wildcard_takes_no_name_that_would_mean_something_in_a_path_or_header(upstream, serve, name):
    answer = await ask(await serve(), name)
    assert answer.status == 404
    assert (await answer.json())["error"]["code"] == "model_not_found"
    assert not answer.values("x-evil")
    assert upstream.calls == []


@pytest.mark.parametrize(
    ("glob", "name", "status"),
    [
        pytest.param("gpt-4", "gpt-4", 200, id="an-alias-alone-may-be-used"),
        pytest.param("gpt-4", "big", 403, id="but-not-its-id"),
        pytest.param("big", "gpt-4", 200, id="an-id-brings-its-aliases"),
        pytest.param("up/*", "up/anything", 200, id="a-wildcard"),
        pytest.param("up/gpt-*", "up/gpt-4", 200, id="part-of-a-wildcard"),
        pytest.param("up/gpt-*", "up/o3", 403, id="and-not-the-rest"),
        pytest.param("u*", "m", 403, id="others-not"),
    ],
)
async def test_globs_of_a_key_cover_ids_and_aliases(serve, glob, name, status):
    assert (await ask(await serve(glob), name)).status == status


# Unknown names...


@pytest.mark.parametrize(
    ("globs", "near"),
    [
        pytest.param(["*"], "; did you mean gpt-4 or gpt-3.5-turbo?", id="all"),
        pytest.param(["b*"], "; did you mean gpt-4?", id="those-of-the-key"),
        pytest.param(["@cf/*"], "; did you mean gpt-3.5-turbo?", id="and-no-others"),
        pytest.param(["m"], "", id="or-none"),
    ],
)
async def test_the_nearest_names_come_from_the_keys_own_models(serve, globs, near):
    told = await (await ask(await serve(*globs), "gpt-5")).json()
    assert told["error"]["message"] == f"there is no model 'gpt-5'{near}"


async def test_a_name_that_is_like_no_other_gets_no_suggestion(serve):
    said = (await (await ask(await serve(), "zzzzzz")).json())["error"]["message"]
    assert said == "there is no model 'zzzzzz'"


# Defaults...


@pytest.mark.parametrize(
    ("path", "defaults", "told"),
    [
        pytest.param("/v1/chat/completions", {"code": "big"}, "big", id="code"),
        pytest.param("/v1/completions", {"code": "big"}, "big", id="code-for-completions"),
        pytest.param("/chat", {"proxy": "big"}, "big", id="proxy"),
        pytest.param("/api/chat", {"chat": "big"}, "big", id="chat"),
        pytest.param("/chat", {"proxy": "gpt-4"}, "big", id="an-alias-stands-for-its-model"),
        pytest.param("/chat", {"proxy": "up/gpt-4.1"}, "up/gpt-4.1", id="a-wildcards-model"),
        pytest.param("/chat", {"code": "big", "chat": "big"}, "m", id="another-routes-default-is-not-mine"),
        pytest.param("/chat", {"proxy": "off"}, "m", id="one-that-is-off-falls-back-to-the-first-that-is-on"),
        pytest.param("/chat", {}, "m", id="without-one-it-is-the-first"),
    ],
)
async def test_a_request_without_a_model_gets_its_routes_default(serve, path, defaults, told):
    gw = await serve(defaults=defaults)
    answer = await ask(gw, None, path=path)
    assert (answer.status, answer.header("x-proxy-model")) == (200, told)
    await answer.body()


async def test_null_is_no_model(serve):
    gw = await serve(defaults={"code": "big"})
    answer = await gw.chat(model=None)
    assert (answer.status, answer.header("x-proxy-model")) == (200, "big")


async def test_a_default_that_the_key_may_not_use_gives_way_to_one_that_it_may(serve):
    gw = await serve("@cf/*", defaults={"chat": "big", "code": "big", "proxy": "big"})
    for path in ("/v1/chat/completions", "/chat", "/api/chat"):
        answer = await ask(gw, None, path=path)
        assert (answer.status, answer.header("x-proxy-model")) == (200, LLAMA)
        await answer.body()
    assert (await listed(gw, "/api/models"))["defaultModel"] == LLAMA


async def test_where_nothing_is_left_the_error_says_so(serve):
    answer = await ask(await serve("nothing"), None)
    assert answer.status == 404
    assert (await answer.json())["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("globs", "default", "told"),
    [
        pytest.param(["*"], "gpt-4", "big", id="an-alias"),
        pytest.param(["*"], "off", "m", id="one-that-is-off"),
        pytest.param(["*"], "", "m", id="none"),
        pytest.param(["*"], "up/gpt-4.1", "up/gpt-4.1", id="a-wildcards-model"),
        pytest.param(["up/*"], "up/gpt-4.1", "up/gpt-4.1", id="a-wildcards-model-and-nothing-else"),
        pytest.param(["gpt-4"], "big", "gpt-4", id="a-key-for-an-alias-alone"),
    ],
)
async def test_the_default_is_always_an_id_that_is_listed_and_that_works(serve, globs, default, told):
    gw = await serve(*globs, defaults={"chat": default} if default else {})
    answer = await listed(gw, "/api/models")
    assert answer["defaultModel"] == told
    assert told in ids(answer)
    whole_answer = await gw.request("POST", "/api/chat", key=OTHER, json={"prompt": "Hi", "stream": False})
    assert whole_answer.status == 200
    named = await gw.request("POST", "/api/chat", key=OTHER, json={"prompt": "Hi", "stream": False, "model": told})
    assert named.status == 200
