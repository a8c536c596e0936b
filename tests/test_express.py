"""Which requests take the short way in; what becomes of them there is told by `tests/functional/test_two_ways.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from multidict import CIMultiDict

from proxy.app import EXCHANGES, GATEWAY, PAGES, build_app
from proxy.connection import FIRST
from proxy.plain import Head, Plain
from proxy.settings import load

from .functional import KEY, config

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

CHAT = "/v1/chat/completions"
USUAL = {"Host": "localhost", "Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}


@pytest.fixture
def application(tmp_path) -> Callable[..., web.Application]:
    def build(**tables: Any) -> web.Application:
        path = tmp_path / "config.toml"
        path.write_text(config("http://127.0.0.1:9", **tables))
        return build_app(load(path, {}).settings)

    return build


def takes(app: web.Application, path: str = CHAT, method: str = "POST", **fields: str | None) -> bool:
    """Whether a request with these fields beside the usual ones takes the short way."""
    told = {**USUAL, **{name.replace("_", "-"): value for name, value in fields.items()}}
    headers = CIMultiDict((name, value) for name, value in told.items() if value is not None)
    request = type("Asked", (Plain,), {"method": method})(None, Head(path, headers, 0, b""), b"{}")
    taken = app[FIRST].take(request) is not None
    assert app[GATEWAY].live == 0  # nothing has been done yet
    return taken


@pytest.mark.parametrize("path", [path for paths, *_ in EXCHANGES for path in paths if "{" not in path])
def test_all_paths_of_exchanges_are_doors(application, path):
    assert takes(application(), path)


@pytest.mark.parametrize(
    "path",
    [
        *(path for paths, *_ in PAGES for path in paths),
        *(path for paths, *_ in EXCHANGES for path in paths if "{" in path),  # which somebody may ask for as it stands
        "/v1beta/models/m:generateContent",
        f"{CHAT}/",
        f"{CHAT}?beta=true",
        f"{CHAT}#a",
        f"/{CHAT}",
        CHAT.upper(),
        CHAT.replace("chat", "%63hat"),
        f"http://localhost{CHAT}",
        "/",
        "*",
        "",
    ],
)
def test_no_other_path_is_one(application, path):
    assert not takes(application(), path)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "post"])
def test_other_methods_are_the_applications(application, method):
    assert not takes(application(), method=method)


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8"])
def test_json_is_taken_as_it_is_nearly_always_named(application, kind):
    assert takes(application(), Content_Type=kind)


@pytest.mark.parametrize(
    "fields",
    [
        {"Content_Type": None},
        {"Content_Type": ""},
        {"Content_Type": "text/plain"},
        {"Content_Type": "application/json; charset=latin-1"},
        {"Content_Type": "application/problem+json"},
        {"Content_Encoding": "gzip"},
        {"Content_Encoding": ""},
    ],
)
def test_other_bodies_are_the_applications(application, fields):
    assert not takes(application(), **fields)


@pytest.mark.parametrize(
    ("fields", "taken"),
    [
        ({}, True),
        ({"Authorization": f"bearer {KEY}"}, True),
        ({"Authorization": None, "x_api_key": KEY}, True),
        ({"Authorization": None, "x_goog_api_key": KEY}, True),
        ({"Authorization": f"Bearer {KEY}", "x_api_key": "other"}, True),
        ({"Authorization": None}, False),
        ({"Authorization": "Bearer other"}, False),
        ({"Authorization": f"Basic {KEY}"}, False),
        ({"Authorization": "Bearer other", "x_api_key": KEY}, False),
    ],
)
def test_strangers_are_the_applications(application, fields, taken):
    assert takes(application(), **fields) is taken


def test_nobody_in_particular_is_taken_where_that_is_wanted(application):
    assert takes(application(auth={"anonymous": True}), Authorization=None)
    assert not takes(application(auth={"anonymous": True}), Authorization="Bearer other")
    assert takes(application(keys=[], auth={"anonymous": True}), Authorization="Bearer other")


def test_an_open_gateway_looks_at_more_than_this_does(application):
    assert not takes(application(keys=[]))


def test_nothing_is_taken_once_the_gateway_drains(application):
    app = application()
    app[GATEWAY].drain()
    assert not takes(app)


def test_what_is_taken_follows_the_settings(application, tmp_path):
    app = application()
    other = application(keys=[{"name": "laptop", "key": "sk-newer"}])
    app[GATEWAY].swap(other[GATEWAY].plan.settings)
    assert not takes(app)
    assert takes(app, Authorization="Bearer sk-newer")
