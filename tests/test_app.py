"""The application as a whole: which paths there are, and what middleware knows of each."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from proxy.app import EXCHANGES, GATEWAY, PAGES, ROUTES, build_app
from proxy.connection import FIRST, MANNERS
from proxy.context import ENDPOINTS
from proxy.middleware.failures import OPENAI, SIMPLE
from proxy.settings import load

from .functional import config


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(config("http://127.0.0.1:9"))
    return load(path, {}).settings


PATHS = [(method, path, endpoint) for method, paths, endpoint in ROUTES for path in paths]


def test_no_path_is_there_twice():
    assert max(Counter((method, path) for method, path, _ in PATHS).values()) == 1


def test_a_handler_serves_one_endpoint_and_an_endpoint_has_one_name():
    assert max(Counter(handler for table in (PAGES, EXCHANGES) for _, handler, _ in table).values()) == 1
    assert max(Counter(endpoint.name for _, _, endpoint in ROUTES).values()) == 1


@pytest.mark.parametrize(("method", "path", "endpoint"), PATHS, ids=[f"{method} {path}" for method, path, _ in PATHS])
def test_what_is_known_of_a_path_fits_together(method, path, endpoint):
    assert not (endpoint.public and (endpoint.admin or endpoint.exchange))
    assert endpoint.exchange is (method == "POST")  # what is sent to a provider, and nothing else, has a body
    if path.startswith("/v1/"):
        assert endpoint.form is not SIMPLE


@pytest.mark.parametrize("name", ["chat/completions", "completions", "embeddings", "models", "models/{id:.+}"])
def test_v1_is_forgiven_missing_and_doubled(name):
    forms = {path: endpoint.form for _, path, endpoint in PATHS}
    assert {forms[f"{prefix}/{name}"] for prefix in ("", "/v1", "/v1/v1")} == {OPENAI}


def test_every_route_is_registered_with_what_middleware_must_know(settings):
    app = build_app(settings)
    registered = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.handler in app[ENDPOINTS]
    }
    assert registered >= {(method, re.sub(r"\{(\w+):[^}]*\}", r"{\1}", path)) for method, path, _ in PATHS}
    assert all(route.handler in app[ENDPOINTS] for route in app.router.routes())


def test_the_short_way_leads_to_the_same_handlers(settings):
    """By path alone: what a pattern matches is the application's."""
    short = build_app(settings)[FIRST]._doors
    assert short == {path: (ask, known) for paths, ask, known in EXCHANGES for path in paths if "{" not in path}


def test_heads_are_answered_where_gets_are(settings):
    routes = {(route.method, route.resource.canonical) for route in build_app(settings).router.routes()}
    assert {("HEAD", path) for method, path in routes if method == "GET"} <= routes


def test_two_applications_share_nothing(settings):
    one, other = build_app(settings), build_app(settings)
    for name in ("metrics", "limits", "upstream", "wheel", "relays"):
        assert getattr(one[GATEWAY], name) is not getattr(other[GATEWAY], name)
    assert one[MANNERS] is one[GATEWAY]


def test_middleware_stands_in_its_order(settings):
    names = [middleware.__qualname__.partition(".")[0] for middleware in build_app(settings).middlewares]
    known = ["request_id", "access_log", "preflights", "failures", "auth", "limits", "body"]
    assert [name for name in names if name in known] == known
