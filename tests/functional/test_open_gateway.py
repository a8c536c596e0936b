"""A gateway without keys serves this machine only, unless somebody says that everybody is meant."""

from __future__ import annotations

import json

import pytest

from . import KEY, chat_body

PAGE = "https://app.example.org"
#: What a reverse proxy or a tunnel adds.
FORWARDED = [
    ("Forwarded", "for=192.0.2.1"),
    ("X-Forwarded-For", "192.0.2.1"),
    ("x-forwarded-host", "ai.example.org"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Port", "443"),
    ("X-Forwarded-Server", "nginx"),
    ("X-Forwarded-Anything", ""),
    ("Via", "1.1 varnish"),
    ("CF-Connecting-IP", "192.0.2.1"),
    ("Cf-Ray", "8a1"),
    ("cf-visitor", '{"scheme":"https"}'),
    ("CF-Access-Jwt-Assertion", "x"),
]


@pytest.fixture
async def gw(gateway):
    return await gateway(keys=[])


async def ask(gw, headers=(), path="/v1/chat/completions", key=None):
    if path == "/v1/models":
        return await gw.request("GET", path, key=key, headers=headers)
    return await gw.request("POST", path, key=key, headers=headers, json=chat_body())


# Credentials do not matter...


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="none"),
        pytest.param([("Authorization", "Bearer not-needed")], id="not-needed"),
        pytest.param([("Authorization", "Bearer ")], id="empty"),
        pytest.param([("Authorization", "Basic eDp5")], id="basic"),
        pytest.param([("Authorization", "Bearer a"), ("Authorization", "Bearer b")], id="two"),
        pytest.param([("x-api-key", "sk-anything")], id="x-api-key"),
        pytest.param([("Authorization", "Bearer \udcff")], id="bytes"),
    ],
)
async def test_whatever_credential_comes_is_passed_over(upstream, gw, headers):
    for path in ("/v1/chat/completions", "/chat", "/v1/models"):
        assert (await ask(gw, headers, path)).status == 200
    for call in upstream.calls:
        assert call.values("authorization") == ["Bearer sk-upstream-secret"]


# Hosts...


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8080",
        "LocalHost:1",
        "localhost.",
        "gateway.localhost:8080",
        "127.0.0.1",
        "127.0.0.1:8080",
        "127.8.9.10",
        "[::1]",
        "[::1]:8080",
    ],
)
async def test_names_of_this_machine_are_served(gw, host):
    assert (await ask(gw, {"Host": host})).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "ai.example.org",
        "ai.example.org:8080",
        "localhost.example.org",
        "127.0.0.1.example.org",
        "notlocalhost",
        "192.168.1.7",
        "10.0.0.1:8080",
        "0.0.0.0",
        "[::]",
        "[2001:db8::1]",
        "2130706433",
        "0x7f000001",
        "127.1",
        "",
        "[::1",
        "\udcff",
    ],
)
async def test_foreign_names_are_refused(upstream, gw, host):
    """A page whose name was rebound to a loopback address comes with its own Host."""
    for path in ("/v1/chat/completions", "/api/chat", "/v1/models"):
        answer = await ask(gw, {"Host": host}, path)
        told = await answer.json()
        assert answer.status == 403
        assert (told["error"] if path == "/api/chat" else told["error"]["type"]) in ("forbidden", "permission_error")
    assert upstream.calls == []


async def test_a_client_of_http_1_0_must_name_a_host_too(gw):
    client = await gw.connect()
    await client.send(b"GET /v1/models HTTP/1.0\r\n\r\n")
    assert (await client.answer()).status == 403
    client = await gw.connect()
    await client.send(b"GET /v1/models HTTP/1.0\r\nHost: localhost\r\n\r\n")
    assert (await client.answer()).status == 200


# Pages...


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:3000",
        "http://127.0.0.1:8080",
        "http://[::1]:5173",
        "vscode-webview://0frhflbpusv2i73i43hco80u16hmrhaf5gt",
        "app://obsidian.md",
    ],
)
async def test_pages_of_this_machine_and_editors_are_served(gw, origin):
    answer = await ask(gw, {"Origin": origin})
    assert answer.status == 200
    assert answer.values("access-control-allow-origin") == [origin]
    assert "Origin" in answer.header("vary")


@pytest.mark.parametrize("origin", [PAGE, "null", "https://localhost.example.org", "file://", "", "http://192.168.1.7"])
async def test_foreign_pages_are_refused_and_may_not_read_why(upstream, gw, origin):
    for path in ("/v1/chat/completions", "/v1/models"):
        answer = await ask(gw, {"Origin": origin}, path)
        assert answer.status == 403
        assert not answer.values("access-control-allow-origin")
        assert "Origin" in answer.header("vary")
    assert upstream.calls == []


async def test_a_second_origin_does_not_hide_behind_the_first(gw):
    sent = [("Origin", "http://localhost:3000"), ("Origin", PAGE)]
    assert (await ask(gw, sent)).status == 403


@pytest.mark.parametrize(("origins", "status"), [(["*"], 200), ([PAGE], 200), (["https://other.example"], 403)])
async def test_origins_that_are_configured_are_what_counts(gateway, origins, status):
    gw = await gateway(keys=[], cors={"origins": origins})
    assert (await ask(gw, {"Origin": PAGE})).status == status
    assert (await ask(gw, {"Host": "ai.example.org"})).status == 403


async def test_a_form_on_a_foreign_page_costs_nothing(upstream, gw):
    """What a browser sends without asking first: no preflight, a text type, and an Origin."""
    body = json.dumps(chat_body()).encode()
    sent = {"Origin": PAGE, "Content-Type": "text/plain"}
    answer = await gw.request("POST", "/v1/chat/completions", key=None, headers=sent, body=body)
    assert answer.status in (403, 415)
    assert upstream.calls == []


# Through proxies and tunnels...


@pytest.mark.parametrize(("name", "value"), FORWARDED, ids=[name for name, _ in FORWARDED])
async def test_what_came_through_a_proxy_is_refused(upstream, gw, name, value):
    for key in (None, KEY):
        answer = await ask(gw, {name: value}, key=key)
        assert answer.status == 403
        assert "proxy" in (await answer.json())["error"]["message"]
    assert upstream.calls == []


@pytest.mark.parametrize("name", ["X-Forwarding", "Viable", "CFG", "X-CF-Ray", "Forwarded-By-Hand"])
async def test_names_that_only_look_alike_are_not(gw, name):
    assert (await ask(gw, {name: "1"})).status == 200


# What stays open to everybody...


@pytest.mark.parametrize(
    "headers", [{"Host": "10.0.0.7:8080"}, {"Origin": PAGE}, {"X-Forwarded-For": "192.0.2.1", "Via": "1.1 x"}]
)
async def test_probes_and_the_root_are_exempt(gw, headers):
    for path in ("/", "/health", "/livez", "/readyz"):
        assert (await gw.request("GET", path, key=None, headers=headers)).status == 200


@pytest.mark.parametrize("headers", [{"Host": "ai.example.org"}, {"Origin": PAGE}, {"Via": "1.1 x"}])
async def test_preflights_are_exempt_and_grant_strangers_nothing(gw, headers):
    sent = {**headers, "Access-Control-Request-Method": "POST"}
    answer = await gw.request("OPTIONS", "/v1/chat/completions", key=None, headers=sent)
    assert answer.status == 204
    assert not answer.values("access-control-allow-origin")


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("GET", "/chat", 405)])
async def test_404_and_405_come_before_403(gw, method, path, status):
    assert (await gw.request(method, path, key=None, headers={"Host": "ai.example.org"})).status == status


async def test_strangers_are_refused_before_their_body_is_read(gw):
    client = await gw.connect()
    sent = {"Origin": PAGE, "Content-Type": "application/json", "Content-Length": "1000"}
    assert (await client.ask("POST", "/chat", headers=sent)).status == 403


# Said to be open...


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="nothing-special"),
        pytest.param({"Host": "ai.example.org"}, id="any-host"),
        pytest.param({"Origin": PAGE}, id="any-page"),
        pytest.param(dict(FORWARDED), id="through-any-proxy"),
        pytest.param({"Authorization": "Bearer whatever"}, id="any-credential"),
    ],
)
async def test_anonymous_without_keys_serves_everybody(gateway, headers):
    gw = await gateway(keys=[], auth={"anonymous": True})
    answer = await ask(gw, headers)
    assert answer.status == 200
    assert answer.values("access-control-allow-origin") == ["*"]


async def test_a_closed_gateway_minds_neither_host_nor_proxy_nor_page(gateway):
    gw = await gateway()
    answer = await ask(gw, [("Host", "ai.example.org"), ("Origin", PAGE), *FORWARDED], key=KEY)
    assert answer.status == 200
    assert answer.values("access-control-allow-origin") == ["*"]


# Admin pages...


@pytest.mark.parametrize(
    ("anonymous", "headers", "status"),
    [
        pytest.param(False, {}, 200, id="a-loopback-peer-of-an-open-gateway"),
        pytest.param(False, {"Host": "ai.example.org"}, 403, id="by-a-foreign-name"),
        pytest.param(False, {"X-Forwarded-For": "192.0.2.1"}, 403, id="through-a-proxy"),
        pytest.param(True, {}, 200, id="a-loopback-peer-of-an-anonymous-one"),
        pytest.param(True, {"X-Forwarded-For": "192.0.2.1"}, 403, id="whose-proxy-is-the-loopback-peer"),
        pytest.param(True, {"CF-Ray": "8a1"}, 403, id="or-its-tunnel"),
    ],
)
async def test_who_is_admin_without_keys(gateway, anonymous, headers, status):
    gw = await gateway(keys=[], auth={"anonymous": anonymous})
    assert (await gw.request("GET", "/metrics", key=None, headers=headers)).status == status


async def test_a_peer_from_elsewhere_is_no_admin(gateway, monkeypatch):
    gw = await gateway(keys=[], auth={"anonymous": True})
    monkeypatch.setattr("aiohttp.web.Request.remote", "192.0.2.1")
    assert (await gw.request("GET", "/metrics", key=None)).status == 403
    assert (await ask(gw)).status == 200
