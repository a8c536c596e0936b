"""Names → deployments: what a client's word for a model leads to, and for whom."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import Forbidden, NotFound
from proxy.origin import Origin
from proxy.routing.table import Table, build, may_use
from proxy.settings import Deployment, Key, Model, Provider, Secret, Settings, Timeouts
from proxy.settings.models import usable_upstream
from tests.properties import thorough

KEY = "sk-upstream-secret"


def provider(name: str = "up", kind: str = "openai", url: str = "https://api.provider.example", **more) -> Provider:
    return Provider(**{"name": name, "kind": kind, "base_url": url, "api_key": Secret(KEY), **more})


def model(id: str, *, at: str = "up", upstream: str | None = None, **more) -> Model:
    named = "" if id.endswith("*") else id
    deployment = Deployment(provider=at, upstream=named if upstream is None else upstream)
    return Model(**{"id": id, "deployments": (deployment,), **more})


def key(*models: str) -> Key:
    return Key(name="laptop", digest=b"", models=models)


def table(
    *models: Model, providers: tuple[Provider, ...] = (provider(), provider("off", enabled=False)), **more
) -> Table:
    return build(Settings(models=models, providers=providers, **more), None, "ai-proxy/1")


NAMES = table(
    model("deepseek-chat", aliases=("gpt-4", "chat")),
    model("@cf/meta/llama-3.1-8b-instruct", aliases=("llama",)),
    model("openai/gpt-5", upstream="gpt-5-turbo"),
    model("openai/*"),
    model("openai/ft:*"),
    model("cold", at="off", aliases=("frozen",)),
)


# What a name leads to...


@pytest.mark.parametrize(
    ("name", "told", "label", "upstream"),
    [
        pytest.param("deepseek-chat", "deepseek-chat", "deepseek-chat", "deepseek-chat", id="an-id"),
        pytest.param("gpt-4", "deepseek-chat", "deepseek-chat", "deepseek-chat", id="an-alias"),
        pytest.param("openai/gpt-5", "openai/gpt-5", "openai/gpt-5", "gpt-5-turbo", id="an-id-before-a-wildcard"),
        pytest.param("openai/o3", "openai/o3", "openai/*", "o3", id="a-wildcard"),
        pytest.param("openai/a/b:c@1", "openai/a/b:c@1", "openai/*", "a/b:c@1", id="the-rest-may-have-slashes"),
        pytest.param("openai/ft:x", "openai/ft:x", "openai/ft:*", "x", id="the-longest-wildcard"),
        pytest.param(
            "@cf/meta/llama-3.1-8b-instruct", *["@cf/meta/llama-3.1-8b-instruct"] * 3, id="odd-but-usual-characters"
        ),
    ],
)
def test_names(name, told, label, upstream):
    route = NAMES.resolve(name, None)
    assert (route.model, route.label, route.upstream(route.entry.targets[0])) == (told, label, upstream)


def test_an_id_comes_before_an_alias_of_the_same_name():
    names = table(model("a", aliases=("b",)), model("b"))
    assert names.resolve("b", None).model == "b"


def test_a_wildcard_for_everything():
    names = table(model("*"), model("x"))
    assert names.resolve("x", None).label == "x"
    assert (names.resolve("y/z", None).label, names.resolve("y/z", None).rest) == ("*", "y/z")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "openai/",
        "openai/*",
        "openai/ft:*",
        "*",
        "openai",
        "OpenAI/o3",
        "gpt-4 ",
        " gpt-4",
        "gpt-4\n",
        "openai/..",
        "openai/../admin",
        "openai/a/../b",
        "openai/./a",
        "openai//a",
        "openai/a/",
        "openai/a//b",
        "openai/%2e%2e/a",
        "openai/a?b",
        "openai/a#b",
        "openai/a b",
        "openai/a\\b",
        "openai/a\r\nHost: evil",
        "openai/a\n",
        "openai/a\x00",
        "openai/é",
        "openai/\u2024\u2024/a",
        "openai/ａ",
        "openai/\ud800",
        "openai/" + "x" * 201,
        "x" * 100_000,
    ],
)
def test_what_is_no_name_leads_nowhere(name):
    with pytest.raises(NotFound) as caught:
        NAMES.resolve(name, None)
    error = caught.value
    assert (error.status, error.param, error.code) == (404, "model", "model_not_found")
    assert error.message.isprintable()
    assert len(error.message) < 1000


@thorough
@given(st.text(max_size=30) | st.text("./ao*%-", max_size=8).map("openai/".__add__))
def test_only_clean_names_go_upstream(name):
    try:
        route = NAMES.resolve(name, None)
    except NotFound:
        return
    upstream = route.upstream(route.entry.targets[0])
    assert usable_upstream(upstream)
    assert not {"", ".", ".."} & set(upstream.split("/"))
    assert upstream.isascii()
    assert not any(c.isspace() or c in "%?#\\*" for c in upstream)


def test_a_provider_that_is_switched_off_is_said_to_be():
    for name in ("cold", "frozen"):
        with pytest.raises(NotFound, match="switched off"):
            NAMES.resolve(name, None)
    assert not table(model("cold", at="off")).usable
    assert NAMES.usable


# Who may use what...


@pytest.mark.parametrize(
    ("globs", "name", "allowed"),
    [
        pytest.param(("*",), "deepseek-chat", True, id="everything"),
        pytest.param(("*",), "openai/o3", True, id="everything-behind-a-wildcard"),
        pytest.param(("deepseek-*",), "deepseek-chat", True, id="an-id"),
        pytest.param(("deepseek-*",), "gpt-4", True, id="an-alias-of-an-allowed-id"),
        pytest.param(("gpt-4",), "gpt-4", True, id="an-alias"),
        pytest.param(("gpt-*",), "gpt-4", True, id="a-glob-over-aliases"),
        pytest.param(("gpt-4",), "deepseek-chat", False, id="an-alias-does-not-allow-the-id"),
        pytest.param(("gpt-4",), "chat", False, id="nor-another-alias"),
        pytest.param(("openai/*",), "openai/o3", True, id="a-wildcard"),
        pytest.param(("openai/o?",), "openai/o3", True, id="a-part-of-a-wildcard"),
        pytest.param(("openai/o?",), "openai/gpt-4o", False, id="another-part"),
        pytest.param(("openai/?",), "openai/o3", False, id="a-question-mark-is-not-the-star-of-a-wildcard"),
        pytest.param(("Deepseek-*",), "deepseek-chat", False, id="case-counts"),
        pytest.param((), "deepseek-chat", False, id="nothing"),
        pytest.param(("x", "gpt-4"), "gpt-4", True, id="any-of-several"),
    ],
)
def test_globs_of_keys(globs, name, allowed):
    if allowed:
        assert NAMES.resolve(name, key(*globs))
        return
    with pytest.raises(Forbidden) as caught:
        NAMES.resolve(name, key(*globs))
    assert (caught.value.status, caught.value.param) == (403, "model")


def test_may_use_asks_for_one_of_the_names():
    assert may_use(key("b"), "a", "b")
    assert not may_use(key("c"), "a", "b")


@pytest.mark.parametrize(
    ("name", "globs", "hint"),
    [
        pytest.param("deepseek-chatt", ("*",), "did you mean deepseek-chat", id="the-nearest"),
        pytest.param("gpt4", ("*",), "did you mean gpt-4", id="an-alias"),
        pytest.param("deepseek-chatt", ("gpt-4",), None, id="not-what-the-key-may-not-use"),
        pytest.param("gpt4", ("gpt-4",), "did you mean gpt-4?", id="what-the-key-may-use"),
        pytest.param("colb", ("*",), None, id="not-what-is-switched-off"),
        pytest.param("zzzzzz", ("*",), None, id="nothing-near"),
    ],
)
def test_the_nearest_names_are_the_keys_own(name, globs, hint):
    with pytest.raises(NotFound) as caught:
        NAMES.resolve(name, key(*globs))
    assert (hint or "there is no model") in caught.value.message
    if hint is None:
        assert "did you mean" not in caught.value.message


EVERYTHING = ["deepseek-chat", "gpt-4", "chat", "@cf/meta/llama-3.1-8b-instruct", "llama", "openai/gpt-5"]


@pytest.mark.parametrize(
    ("globs", "listed"),
    [
        pytest.param(None, EVERYTHING, id="without-a-key"),
        pytest.param(("*",), EVERYTHING, id="everything"),
        pytest.param(("deepseek-chat",), ["deepseek-chat", "gpt-4", "chat"], id="an-id-and-its-aliases"),
        pytest.param(("gpt-4",), ["gpt-4"], id="an-alias-only"),
        pytest.param(("openai/*",), ["openai/gpt-5"], id="no-wildcards"),
        pytest.param((), [], id="nothing"),
    ],
)
def test_names_that_are_listed_can_be_asked_for(globs, listed):
    whose = None if globs is None else key(*globs)
    assert list(NAMES.names(whose)) == listed
    for name in listed:
        assert NAMES.resolve(name, whose)


# Defaults...


@pytest.mark.parametrize(
    ("wanted", "globs", "default"),
    [
        pytest.param("openai/gpt-5", None, "openai/gpt-5", id="as-configured"),
        pytest.param("gpt-4", None, "deepseek-chat", id="an-alias-is-said-by-its-id"),
        pytest.param("openai/o3", None, "openai/o3", id="behind-a-wildcard"),
        pytest.param("", None, "deepseek-chat", id="none-configured"),
        pytest.param("cold", None, "deepseek-chat", id="switched-off"),
        pytest.param("gone", None, "deepseek-chat", id="unknown"),
        pytest.param("deepseek-chat", ("llama",), "llama", id="the-first-that-the-key-may-use"),
        pytest.param("gpt-4", ("gpt-4",), "gpt-4", id="an-alias-where-the-key-may-not-use-the-id"),
        pytest.param("", ("gpt-4",), "gpt-4", id="an-alias-as-the-first"),
        pytest.param("", ("deepseek-chat",), "deepseek-chat", id="an-id-as-the-first"),
    ],
)
def test_a_default_can_be_asked_for(wanted, globs, default):
    whose = None if globs is None else key(*globs)
    assert NAMES.default(wanted, whose) == default
    assert NAMES.resolve(default, whose)


def test_no_default_where_nothing_can_be_had():
    for names, whose in ((NAMES, key()), (table(model("cold", at="off")), None), (table(), None)):
        with pytest.raises(NotFound) as caught:
            names.default("deepseek-chat", whose)
        assert caught.value.code == "model_not_found"


# What asking a deployment takes...


def head(one: Provider, operation: str = "openai_chat") -> list[str]:
    (target,) = table(model("m", at=one.name), providers=(one,)).resolve("m", None).entry.targets
    text = target.heads[operation].decode("latin-1")
    assert text.endswith("Content-Length: ")
    assert "\r" not in text.replace("\r\n", "")
    return text.split("\r\n")


def test_a_head():
    assert head(provider()) == [
        "POST /v1/chat/completions HTTP/1.1",
        "Host: api.provider.example",
        "Content-Type: application/json",
        "Accept: text/event-stream, application/json",
        "Accept-Encoding: identity",
        "User-Agent: ai-proxy/1",
        f"Authorization: Bearer {KEY}",
        "Content-Length: ",
    ]


@pytest.mark.parametrize(
    ("url", "host", "path"),
    [
        ("https://h", "h", "/v1/chat/completions"),
        ("http://127.0.0.1:9000", "127.0.0.1:9000", "/v1/chat/completions"),
        ("https://h/client/v4/accounts/a/ai", "h", "/client/v4/accounts/a/ai/v1/chat/completions"),
        ("http://[::1]:8080/x", "[::1]:8080", "/x/v1/chat/completions"),
    ],
)
def test_a_base_url_is_a_host_and_a_path(url, host, path):
    lines = head(provider(url=url))
    assert lines[:2] == [f"POST {path} HTTP/1.1", f"Host: {host}"]


def test_without_a_key_none_is_shown():
    assert not any(line.startswith("Authorization") for line in head(provider(api_key=Secret(""))))


def test_configured_headers_are_added_and_win():
    lines = head(provider(headers={"X-Team": "a", "authorization": "Token t", "User-Agent": "us"}))
    assert [line for line in lines if line.lower().startswith(("x-team", "authorization", "user-agent"))] == [
        "X-Team: a",
        "authorization: Token t",
        "User-Agent: us",
    ]


def test_a_deployment_has_its_providers_and_its_models_clocks():
    one = provider(timeouts={"idle": 7.0, "connect": 8.0}, ask_usage=False, drop=("user",))
    names = table(model("m", timeouts={"idle": 9.0}), providers=(one,), timeouts=Timeouts(first_byte=3.0))
    (target,) = names.resolve("m", None).entry.targets
    clocks = target.timeouts
    assert (clocks.idle, clocks.connect, clocks.first_byte, clocks.total) == (9.0, 8.0, 3.0, 600.0)
    assert (target.quirks.ask_usage, target.quirks.drop, target.provider) == (False, ("user",), "up")


def test_the_demo_provider_is_where_it_listens():
    demo = Provider(name="demo", kind="demo", base_url="")
    settings = Settings(models=(model("m", at="demo"),), providers=(demo,))
    assert not build(settings, None, "a").usable
    (target,) = build(settings, ("http://127.0.0.1:5", "k"), "a").resolve("m", None).entry.targets
    assert target.origin == Origin.of("http://127.0.0.1:5")
    assert b"Authorization: Bearer k" in target.heads["openai_chat"]


def test_usable_deployments_stay_in_their_order():
    wanted = [("up", "a", 2), ("off", "b", 1), ("up", "c", 1)]
    many = Model(id="m", deployments=tuple(Deployment(provider=p, upstream=u, weight=w) for p, u, w in wanted))
    assert [(t.upstream, t.weight) for t in table(many).resolve("m", None).entry.targets] == [("a", 2), ("c", 1)]


def test_a_model_is_called_by_its_label():
    entries = table(model("m", label="M", description="D.", context=5), model("n")).entries
    assert (entries["m"].label, entries["m"].description, entries["m"].context) == ("M", "D.", 5)
    assert (entries["n"].label, entries["n"].description, entries["n"].context) == ("n", "", None)
