"""Who may read our answers, and what preflights are told: on a real application and real sockets."""

from __future__ import annotations

import re

import pytest
from aiohttp import web

from proxy.middleware.cors import allowed_methods, install, preflights
from proxy.pages import EXPOSED, Origins, headers_for
from proxy.settings.loading import LOCAL_ORIGINS

PAGE = "https://app.example.org"
STRANGER = "https://stranger.example.net"


# Patterns...


@pytest.mark.parametrize(
    ("pattern", "origin"),
    [
        pytest.param("*", "https://anything.example", id="star-is-everybody"),
        pytest.param("*", "null", id="star-is-null-too"),
        pytest.param("https://example.org", "https://example.org", id="exact"),
        pytest.param("HTTPS://Example.ORG", "https://example.org", id="the-pattern's-case-does-not-matter"),
        pytest.param("https://example.org", "HTTPS://EXAMPLE.org", id="the-origin's-case-does-not-matter"),
        pytest.param("https://example.org/", "https://example.org", id="a-slash-at-the-end-is-forgiven"),
        pytest.param("https://example.org:443", "https://example.org", id="the-implied-port-is-none-https"),
        pytest.param("http://example.org:80", "http://example.org", id="the-implied-port-is-none-http"),
        pytest.param("https://*.example.org", "https://a.example.org", id="one-label"),
        pytest.param("https://*.example.org", "https://a.b-c.example.org", id="several-labels"),
        pytest.param("https://*.example.org", "https://A.EXAMPLE.ORG", id="wild-and-upper-case"),
        pytest.param("https://app-*.example.org", "https://app-17.example.org", id="star-within-a-label"),
        pytest.param("https://*.example.org:*", "https://a.example.org:8443", id="two-stars"),
        pytest.param("http://localhost:*", "http://localhost:3000", id="any-port"),
        pytest.param("http://localhost:*", "http://localhost", id="any-port-and-the-implied-one"),
        pytest.param("http://[::1]:*", "http://[::1]:5173", id="ipv6"),
        pytest.param("http://*", "http://example.org:8080", id="a-scheme's-every-host-and-port"),
        pytest.param("http://*", "http://[::1]:8080", id="a-scheme's-every-host-is-ipv6-too"),
        pytest.param("http://*:3000", "http://[::1]:3000", id="every-host-at-a-port"),
        pytest.param("vscode-webview://*", "vscode-webview://0frhflbpusv2i73i43hco80u16hmrhaf5gt", id="webview"),
        pytest.param("null", "null", id="null-when-listed"),
        pytest.param("file://", "file://", id="a-scheme-without-a-host"),
    ],
)
def test_pattern_lets_in(pattern, origin):
    assert Origins(["https://other.example", pattern]).match(origin)


@pytest.mark.parametrize(
    ("pattern", "origin"),
    [
        pytest.param("https://example.org", "http://example.org", id="another-scheme"),
        pytest.param("https://example.org", "https://example.org:8443", id="another-port"),
        pytest.param("https://example.org", "https://example.org.evil.org", id="a-longer-name"),
        pytest.param("https://example.org", "https://exampleXorg", id="a-dot-is-a-dot"),
        pytest.param("https://example.org", "https://example.org/", id="no-origin-has-a-slash"),
        pytest.param("https://*.example.org", "https://example.org", id="a-star-is-at-least-one-character"),
        pytest.param("https://*.example.org", "https://.example.org", id="nothing-before-the-dot"),
        pytest.param("https://*.example.org", "https://evil.org/.example.org", id="a-path-is-not-a-host"),
        pytest.param("https://*.example.org", "https://evil.example.org.evil.org", id="the-end-is-the-end"),
        pytest.param("https://*.example.org", "https://evil.org?.example.org", id="a-query-is-not-a-host"),
        pytest.param("https://*.example.org", "https://evil.org#.example.org", id="a-fragment-is-not-a-host"),
        pytest.param("https://*.example.org", "https://evil.org\\.example.org", id="a-backslash-is-not-a-host"),
        pytest.param("https://*.example.org", "https://me@evil.org:1.example.org", id="no-user-and-no-port-in-a-host"),
        pytest.param("https://*.example.org", "https://a.example.org:8443", id="a-port-must-be-asked-for"),
        pytest.param("https://*.example.org", "https://evil.org\n.example.org", id="a-new-line-inside"),
        pytest.param("https://*.example.org", "https://a.example.org\n", id="a-new-line-at-the-end"),
        pytest.param("http://localhost:*", "http://localhost:3000.evil.org", id="a-port-has-digits-only"),
        pytest.param("http://localhost:*", "http://localhost.evil.org:3000", id="a-port-does-not-hide-a-host"),
        pytest.param("http://localhost:*", "http://localhost:", id="a-colon-needs-a-port"),
        pytest.param("vscode-webview://*", "https://vscode-webview", id="a-scheme-is-not-a-host"),
        pytest.param("vscode-webview://*", "vscode-webview://", id="a-host-must-be-there"),
        pytest.param("http://*", "https://example.org", id="every-host-of-one-scheme-only"),
        pytest.param("http://*", "null", id="null-when-not-listed"),
        pytest.param("https://kiosk.example", "https://\u212aiosk.example", id="kelvin-is-not-k"),
        pytest.param("https://*.kiosk.example", "https://a.\u212aiosk.example", id="kelvin-is-not-k-when-wild"),
        pytest.param("https://example.org", "", id="empty"),
        pytest.param("https://example.org", "*", id="a-star-is-no-origin"),
    ],
)
def test_pattern_keeps_out(pattern, origin):
    assert not Origins([pattern]).match(origin)


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param("", id="empty"),
        pytest.param("example.org", id="no-scheme"),
        pytest.param("https://example.org/chat", id="a-path"),
        pytest.param("https://bücher.example", id="not-as-browsers-write-it"),
        pytest.param("*://a.example", id="a-star-for-a-scheme"),
        pytest.param("http://a:b:c", id="two-ports"),
        pytest.param("http://a:port", id="a-port-in-words"),
        pytest.param("http://a b", id="a-space"),
        pytest.param("http://me@a.example", id="a-user"),
    ],
)
def test_what_can_never_be_an_origin_is_an_error(pattern):
    with pytest.raises(ValueError, match=re.escape(f'"{pattern}" is not an origin')):
        Origins([pattern])


def test_nobody_is_let_in_by_an_empty_list():
    assert not Origins([]).any
    assert not Origins([]).match(PAGE)


@pytest.mark.parametrize(
    ("origin", "welcome"),
    [
        ("http://localhost", True),
        ("http://localhost:3000", True),
        ("https://localhost:3000", True),
        ("http://127.0.0.1:8080", True),
        ("https://127.0.0.1", True),
        ("http://[::1]:5173", True),
        ("vscode-webview://0frhflbpusv2i73i43hco80u16hmrhaf5gt9959na9n2n9kb5c61", True),
        ("vscode-file://vscode-app", True),
        ("app://obsidian.md", True),
        ("tauri://localhost", True),
        ("http://tauri.localhost", True),
        ("https://example.org", False),
        ("http://localhost.example.org", False),
        ("http://127.0.0.1.example.org:8080", False),
        ("http://192.168.1.7:3000", False),
        ("file://", False),
        ("null", False),
    ],
)
def test_open_gateway_lets_in_this_machine_and_programs_on_it(origin, welcome):
    assert Origins(LOCAL_ORIGINS).match(origin) is welcome


# Every answer...


class Application:
    """One of everything that can be answered, behind a policy that can be changed."""

    def __init__(self, *patterns):
        self.origins = Origins(patterns)
        app = web.Application(middlewares=[preflights(self.policy), guard])
        app.router.add_post("/v1/chat/completions", whole)
        app.router.add_get("/whole", whole)
        app.router.add_get("/stream", stream)
        app.router.add_get("/broken", broken)
        app.router.add_get("/vary", vary)
        app.router.add_get("/spoken", spoken)
        app.router.add_route("*", "/any", whole)
        app.router.add_get("/refused", whole)
        install(app, self.policy)
        self.app = app

    def policy(self, request):
        return self.origins


@web.middleware
async def guard(request, handler):
    if request.path == "/refused" or "Authorization" not in request.headers:
        raise web.HTTPUnauthorized
    return await handler(request)


async def whole(request):
    return web.json_response({})


async def stream(request):
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(b"data: 1\n\n")
    return response


async def broken(request):
    raise RuntimeError("a mistake of ours")


async def vary(request):
    return web.Response(headers={"Vary": request.query["told"]})


async def spoken(request):
    stranger = headers_for(Origins([STRANGER]), STRANGER)
    return web.Response(headers={**stranger, "Access-Control-Allow-Credentials": "true"})


ANSWERS = [
    pytest.param("GET", "/whole", 200, id="whole"),
    pytest.param("GET", "/stream", 200, id="stream"),
    pytest.param("GET", "/nowhere", 404, id="unknown-path"),
    pytest.param("OPTIONS", "/nowhere", 404, id="unknown-path-and-options"),
    pytest.param("GET", "/v1/chat/completions", 405, id="unknown-method"),
    pytest.param("GET", "/broken", 500, id="our-mistake"),
    pytest.param("GET", "/refused", 401, id="refused-in-a-middleware"),
    pytest.param("OPTIONS", "/whole", 204, id="options"),
]
KEY = {"Authorization": "Bearer key"}


@pytest.fixture
def clients(aiohttp_client):
    async def client(*patterns):
        return await aiohttp_client(Application(*patterns).app)

    return client


@pytest.mark.parametrize(("method", "path", "status"), ANSWERS)
@pytest.mark.parametrize("origin", [None, PAGE, "null"])
async def test_star_is_said_on_every_answer_as_it_is(clients, method, path, status, origin):
    client = await clients("*")
    sent = KEY if origin is None else {**KEY, "Origin": origin}
    async with client.request(method, path, headers=sent) as response:
        assert response.status == status
        assert response.headers.getall("Access-Control-Allow-Origin") == ["*"]
        assert response.headers.getall("Access-Control-Expose-Headers") == [EXPOSED]
        assert "Origin" not in response.headers.get("Vary", "")
        assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.parametrize(("method", "path", "status"), ANSWERS)
async def test_listed_origin_is_named_on_every_answer(clients, method, path, status):
    client = await clients("https://*.example.org")
    async with client.request(method, path, headers={**KEY, "Origin": PAGE}) as response:
        assert response.status == status
        assert response.headers.getall("Access-Control-Allow-Origin") == [PAGE]
        assert response.headers.getall("Access-Control-Expose-Headers") == [EXPOSED]
        assert response.headers.getall("Vary")[0].endswith("Origin")
        assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.parametrize(("method", "path", "status"), ANSWERS)
@pytest.mark.parametrize("origin", [None, STRANGER, "null", "*"])
async def test_others_are_told_nothing_but_vary(clients, method, path, status, origin):
    client = await clients("https://*.example.org")
    sent = KEY if origin is None else {**KEY, "Origin": origin}
    async with client.request(method, path, headers=sent) as response:
        assert response.status == status
        assert not [name for name in response.headers if name.startswith("Access-Control")]
        assert response.headers["Vary"].endswith("Origin")


@pytest.mark.parametrize(
    ("told", "vary"),
    [
        ("Accept", "Accept, Origin"),
        ("Accept, Accept-Encoding", "Accept, Accept-Encoding, Origin"),
        ("Accept, origin", "Accept, origin"),
        ("X-Origin", "X-Origin, Origin"),
        ("*", "*"),
    ],
)
async def test_vary_is_added_to_what_the_handler_said(clients, told, vary):
    client = await clients(PAGE)
    async with client.get("/vary", params={"told": told}, headers=KEY) as response:
        assert response.headers.getall("Vary") == [vary]


async def test_what_was_said_before_gives_way_to_the_policy(clients):
    client = await clients(PAGE)
    async with client.get("/spoken", headers={**KEY, "Origin": PAGE}) as response:
        assert response.status == 200
        assert response.headers.getall("Access-Control-Allow-Origin") == [PAGE]
        assert response.headers.getall("Access-Control-Expose-Headers") == [EXPOSED]
        assert response.headers.getall("Vary") == ["Origin"]
        assert "Access-Control-Allow-Credentials" not in response.headers


def test_exposed_names_are_those_of_the_contract_in_their_order():
    assert EXPOSED == (
        "x-request-id, retry-after, "
        "x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
        "x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens, "
        "x-proxy-model, x-proxy-provider, x-proxy-attempts, server-timing"
    )


async def test_policy_may_change_while_serving(aiohttp_client):
    application = Application(STRANGER)
    client = await aiohttp_client(application.app)
    told = []
    for patterns in ((STRANGER,), (PAGE,), ("*",), (STRANGER,)):
        application.origins = Origins(patterns)
        async with client.get("/whole", headers={**KEY, "Origin": PAGE}) as response:
            told.append(response.headers.get("Access-Control-Allow-Origin"))
    assert told == [None, PAGE, "*", None]


@pytest.mark.parametrize(
    ("patterns", "origin", "headers"),
    [
        pytest.param(["*"], None, {"Access-Control-Allow-Origin": "*"}, id="star"),
        pytest.param(["*"], PAGE, {"Access-Control-Allow-Origin": "*"}, id="star-and-an-origin"),
        pytest.param([PAGE], PAGE, {"Access-Control-Allow-Origin": PAGE, "Vary": "Origin"}, id="listed"),
        pytest.param([PAGE], STRANGER, {"Vary": "Origin"}, id="not-listed"),
        pytest.param([PAGE], None, {"Vary": "Origin"}, id="none-came"),
    ],
)
def test_an_answer_without_a_request_says_the_same(patterns, origin, headers):
    told = headers_for(Origins(patterns), origin)
    assert told.pop("Access-Control-Expose-Headers", EXPOSED) == EXPOSED
    assert told == headers


# Preflights...


def listed(value):
    return [name.strip() for name in value.split(",")]


@pytest.mark.parametrize("patterns", [("*",), ("https://*.example.org",)], ids=["star", "listed"])
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE", "QUERY", "OPTIONS"])
async def test_preflight_needs_no_key_and_gets_204_whatever_method_is_asked(clients, patterns, method):
    client = await clients(*patterns)
    sent = {"Origin": PAGE, "Access-Control-Request-Method": method}
    async with client.options("/v1/chat/completions", headers=sent) as response:
        assert response.status == 204
        assert await response.read() == b""
        assert response.headers["Access-Control-Allow-Origin"] == ("*" if "*" in patterns else PAGE)
        assert set(listed(response.headers["Access-Control-Allow-Methods"])) == {"OPTIONS", "POST", method}
        assert listed(response.headers["Access-Control-Allow-Headers"]) == ["authorization", "content-type"]
        assert response.headers["Access-Control-Max-Age"] == "86400"
        assert "Access-Control-Allow-Credentials" not in response.headers
        assert "Content-Length" not in response.headers
        assert "Content-Type" not in response.headers
        varies = listed(response.headers["Vary"])
        assert "Access-Control-Request-Headers" in varies
        assert ("Origin" in varies) is ("*" not in patterns)


@pytest.mark.parametrize(
    "method",
    [
        pytest.param("PO ST", id="a-space"),
        pytest.param("GET, DELETE", id="a-list"),
        pytest.param("GE\u00e9", id="not-ascii"),
        pytest.param("X" * 65, id="endless"),
        pytest.param("", id="empty"),
    ],
)
async def test_method_that_is_none_is_not_repeated(clients, method):
    client = await clients("*")
    sent = {"Origin": PAGE, "Access-Control-Request-Method": method}
    async with client.options("/whole", headers=sent) as response:
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Methods"] == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        pytest.param([], ["authorization", "content-type"], id="none"),
        pytest.param(["x-api-key"], ["x-api-key", "authorization", "content-type"], id="one"),
        pytest.param(
            ["content-type,x-stainless-lang, authorization ,x-b"],
            ["content-type", "x-stainless-lang", "authorization", "x-b"],
            id="order-and-spaces",
        ),
        pytest.param(["X-A,x-a,X-a"], ["X-A", "authorization", "content-type"], id="once-and-as-spelled-first"),
        pytest.param(["x-a", "x-b"], ["x-a", "x-b", "authorization", "content-type"], id="two-lines"),
        pytest.param(["x-a,,x b,x:c,(x),x-\u00e9,"], ["x-a", "authorization", "content-type"], id="no-tokens"),
        pytest.param(["x" * 65 + ",x-a"], ["x-a", "authorization", "content-type"], id="endless-name"),
        pytest.param(
            [",".join(f"x-{n}" for n in range(1000))],
            [*(f"x-{n}" for n in range(64)), "authorization", "content-type"],
            id="endless-list",
        ),
    ],
)
async def test_names_granted_are_those_asked_for(clients, asked, granted):
    client = await clients("*")
    sent = [("Origin", PAGE), ("Access-Control-Request-Method", "GET")]
    sent += [("Access-Control-Request-Headers", line) for line in asked]
    async with client.options("/whole", headers=sent) as response:
        assert response.status == 204
        assert listed(response.headers["Access-Control-Allow-Headers"]) == granted


@pytest.mark.parametrize(
    ("sent", "grants"),
    [
        pytest.param({}, False, id="no-preflight"),
        pytest.param({"Origin": PAGE}, True, id="an-origin-alone"),
        pytest.param({"Origin": STRANGER}, False, id="a-stranger"),
        pytest.param({"Origin": STRANGER, "Access-Control-Request-Method": "GET"}, False, id="a-stranger's-preflight"),
        pytest.param({"Access-Control-Request-Method": "GET"}, False, id="a-preflight-from-nowhere"),
    ],
)
async def test_options_on_a_known_path_tells_its_methods(clients, sent, grants):
    client = await clients(PAGE)
    async with client.options("/whole", headers=sent) as response:
        assert response.status == 204
        assert response.headers["Allow"] == "GET, HEAD, OPTIONS"
        assert ("Access-Control-Allow-Methods" in response.headers) is grants
        assert ("Access-Control-Allow-Origin" in response.headers) is grants


async def test_star_answers_a_preflight_that_names_no_origin(clients):
    client = await clients("*")
    async with client.options("/whole", headers={"Access-Control-Request-Method": "GET"}) as response:
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert response.headers["Access-Control-Allow-Methods"] == "GET, HEAD, OPTIONS"


async def test_preflight_for_an_unknown_path_is_the_usual_404(clients):
    client = await clients(PAGE)
    sent = {**KEY, "Origin": PAGE, "Access-Control-Request-Method": "GET"}
    async with client.options("/nowhere", headers=sent) as response:
        assert response.status == 404
        assert response.headers["Access-Control-Allow-Origin"] == PAGE
        assert "Access-Control-Allow-Methods" not in response.headers


async def test_path_that_takes_any_method_lists_them(clients):
    client = await clients("*")
    async with client.options("/any") as response:
        assert response.status == 204
        assert response.headers["Allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"


async def test_options_that_is_no_preflight_grants_nothing(clients):
    client = await clients("*")
    async with client.options("/whole") as response:
        assert (response.status, response.headers["Allow"]) == (204, "GET, HEAD, OPTIONS")
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert not [
            name for name in response.headers if name.startswith(("Access-Control-Allow-M", "Access-Control-M"))
        ]


async def test_another_router_can_say_what_paths_there_are(aiohttp_client):
    def policy(request):
        return Origins(["*"])

    async def everything(request):
        raise web.HTTPNotFound

    methods = {"/known": {"POST"}}
    app = web.Application(middlewares=[preflights(policy, methods_of=lambda request: methods.get(request.path))])
    app.router.add_route("*", "/{path:.*}", everything)
    install(app, policy)
    client = await aiohttp_client(app)
    async with client.options("/known") as response:
        assert (response.status, response.headers["Allow"]) == (204, "OPTIONS, POST")
    async with client.options("/unknown") as response:
        assert response.status == 404


async def test_methods_of_a_path_come_from_the_router(aiohttp_client):
    seen = {}

    @web.middleware
    async def look(request, handler):
        methods = allowed_methods(request)
        seen[request.method, request.path] = methods and set(methods)
        return await handler(request)

    app = web.Application(middlewares=[look])
    app.router.add_get("/get", whole)
    app.router.add_post("/post", whole)
    app.router.add_put("/post", whole)
    app.router.add_options("/own", whole)
    client = await aiohttp_client(app)
    for method, path in (
        ("GET", "/get"),
        ("OPTIONS", "/get"),
        ("OPTIONS", "/post"),
        ("OPTIONS", "/own"),
        ("GET", "/no"),
    ):
        async with client.request(method, path):
            pass
    assert seen == {
        ("GET", "/get"): {"GET", "HEAD"},
        ("OPTIONS", "/get"): {"GET", "HEAD"},
        ("OPTIONS", "/post"): {"POST", "PUT"},
        ("OPTIONS", "/own"): {"OPTIONS"},
        ("GET", "/no"): None,
    }
