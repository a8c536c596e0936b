"""Who is let in: which header decides, what a wrong one gets, and what no header ever gets."""

from __future__ import annotations

import hmac
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest

from . import KEY, chat_body

OTHER = "sk-other-key"
UMLAUT = "schlüssel-東京-🔑"
#: Header lines, and whose key is meant; None: nobody's.
CREDENTIALS = [
    pytest.param([("Authorization", f"Bearer {KEY}")], "laptop", id="bearer"),
    pytest.param([("authorization", f"bearer {KEY}")], "laptop", id="in-small-letters"),
    pytest.param([("Authorization", f"BEARER   {KEY}  ")], "laptop", id="in-capitals-and-with-spaces"),
    pytest.param([("x-api-key", KEY)], "laptop", id="x-api-key"),
    pytest.param([("api-key", KEY)], "laptop", id="api-key"),
    pytest.param([("X-Goog-Api-Key", KEY)], "laptop", id="x-goog-api-key"),
    pytest.param([("Authorization", f"Bearer {UMLAUT}")], "umlaut", id="not-ascii"),
    pytest.param([("x-api-key", UMLAUT)], "umlaut", id="not-ascii-in-x-api-key"),
    pytest.param([("Authorization", f"Bearer {KEY}"), ("x-api-key", "wrong")], "laptop", id="bearer-decides"),
    pytest.param([("x-api-key", OTHER), ("Authorization", f"Bearer {KEY}")], "laptop", id="bearer-decides-when-last"),
    pytest.param([("Authorization", "Bearer wrong"), ("x-api-key", KEY)], None, id="bearer-decides-when-wrong"),
    pytest.param([("Authorization", "Bearer"), ("x-api-key", KEY)], None, id="bearer-decides-when-empty"),
    pytest.param([("x-api-key", KEY), ("api-key", OTHER)], "laptop", id="x-api-key-before-api-key"),
    pytest.param([("api-key", KEY), ("x-goog-api-key", OTHER)], "laptop", id="api-key-before-x-goog-api-key"),
    pytest.param([("x-api-key", "wrong"), ("api-key", KEY)], None, id="the-first-of-them-decides"),
    pytest.param([("Authorization", "Basic bmdpbng6eA=="), ("x-api-key", KEY)], "laptop", id="basic-is-for-others"),
    pytest.param([("Authorization", "Basic bmdpbng6eA==")], None, id="basic-alone"),
    pytest.param([("Authorization", KEY)], None, id="without-the-word"),
    pytest.param([("Authorization", f"Bearer{KEY}")], None, id="without-a-space"),
    pytest.param([("Authorization", f"Bearer {KEY}")] * 2, None, id="twice"),
    pytest.param([("Authorization", f"Bearer {KEY}"), ("authorization", "Basic x")], None, id="twice-and-different"),
    pytest.param([("x-api-key", KEY)] * 2, None, id="x-api-key-twice"),
    pytest.param([("api-key", KEY), ("Api-Key", KEY)], None, id="api-key-twice"),
    pytest.param([("x-goog-api-key", KEY), ("x-goog-api-key", OTHER)], None, id="x-goog-api-key-twice"),
    pytest.param([("Authorization", f"Bearer {KEY}"), *[("x-api-key", KEY)] * 2], "laptop", id="an-ignored-one-twice"),
    pytest.param([("Authorization", f"Bearer {KEY}, Bearer {OTHER}")], None, id="two-in-one"),
    pytest.param([("Authorization", f"Bearer {KEY} {KEY}")], None, id="two-words"),
    pytest.param([("Authorization", f"Bearer {KEY.upper()}")], None, id="case-matters"),
    pytest.param([("Authorization", f"Bearer {KEY[:-1]}")], None, id="nearly"),
    pytest.param([("Authorization", f"Bearer {sha256(KEY.encode()).hexdigest()}")], None, id="its-digest"),
    pytest.param([("Authorization", "Bearer \udcff\udcfe")], None, id="bytes-that-are-no-text"),
    pytest.param([("Authorization", "")], None, id="empty"),
    pytest.param([("x-api-key", "")], None, id="empty-x-api-key"),
    pytest.param([("Cookie", f"key={KEY}"), ("X-Key", KEY), ("Proxy-Authorization", f"Bearer {KEY}")], None, id="else"),
    pytest.param([], None, id="nothing"),
]


@pytest.fixture
async def gw(gateway):
    return await gateway(
        keys=[
            {"name": "other", "key": OTHER, "models": ["o"]},
            {"name": "umlaut", "sha256": sha256(UMLAUT.encode()).hexdigest(), "models": ["u"]},
            {"name": "laptop", "models": ["m"]},
            {"name": "digest", "sha256": sha256(b"sk-digest-key").hexdigest().upper()},
        ],
        models=[{"id": "o", "provider": "up"}, {"id": "u", "provider": "up"}],
    )


#: Whose key it was is seen in the model that it may use.
MODELS = {"laptop": "m", "other": "o", "umlaut": "u"}


@pytest.mark.parametrize(("headers", "whose"), CREDENTIALS)
async def test_who_is_meant(upstream, gw, headers, whose):
    asked = await gw.request("POST", "/chat", key=None, headers=headers, json=chat_body(model=MODELS.get(whose, "m")))
    assert asked.status == (401 if whose is None else 200)
    assert len(upstream.calls) == (whose is not None)
    answer = await gw.request("GET", "/v1/models", key=None, headers=headers)
    told = await answer.json()
    if whose is not None:
        assert answer.status == 200
        # Google's clients, who send Google's header alone, are answered in Google's form.
        names = [m["id"] for m in told["data"]] if "data" in told else [m["name"] for m in told["models"]]
        assert [name.removeprefix("models/") for name in names] == [MODELS[whose]]
        return
    assert answer.status == 401
    assert answer.values("www-authenticate") == ["Bearer"]
    assert (told["error"]["type"], told["error"]["code"]) == ("authentication_error", "invalid_api_key")
    assert KEY not in told["error"]["message"]


@pytest.mark.parametrize("name", ["key", "api_key", "api-key", "access_token", "token", "x-api-key", "authorization"])
async def test_never_in_the_query(gw, name):
    assert (await gw.request("GET", f"/v1/models?{name}={KEY}", key=None)).status == 401


async def test_a_key_may_be_configured_by_its_digest(gw):
    assert (await gw.request("GET", "/v1/models", key="sk-digest-key")).status == 200


# Time...


@pytest.mark.parametrize(
    ("expires", "status"),
    [
        pytest.param(datetime(2999, 1, 1, tzinfo=UTC).date(), 200, id="far-off"),
        pytest.param(datetime(2020, 1, 1, tzinfo=UTC).date(), 401, id="long-ago"),
        pytest.param(datetime.now(UTC).date(), 401, id="today-since-midnight"),
        pytest.param(datetime.now(UTC).date() + timedelta(days=2), 200, id="the-day-after-tomorrow"),
    ],
)
async def test_a_key_is_valid_until_the_first_moment_of_its_day(gateway, expires, status):
    gw = await gateway(keys=[{"name": "laptop", "expires": expires}])
    answer = await gw.request("GET", "/v1/models")
    assert answer.status == status
    if status == 401:
        assert (await answer.json())["error"]["message"] == "this key has expired"


async def test_a_key_expires_while_the_gateway_runs(gateway, monkeypatch):
    gw = await gateway(keys=[{"name": "laptop", "expires": datetime(2999, 1, 1, tzinfo=UTC).date()}])
    assert (await gw.request("GET", "/v1/models")).status == 200

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2999, 1, 1, tzinfo=tz)

    monkeypatch.setattr("proxy.middleware.auth.datetime", Later)
    assert (await gw.request("GET", "/v1/models")).status == 401


# Side channels...


@pytest.mark.parametrize("key", [KEY, "wrong", "sk-test-kez", "", "\udcff", None])
async def test_digests_are_compared_in_constant_time_for_known_and_unknown_keys_alike(gw, monkeypatch, key):
    compared = []

    def compare(one, other):
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr("proxy.middleware.auth.hmac", type("hmac", (), {"compare_digest": staticmethod(compare)}))
    answer = await gw.request("GET", "/v1/models", key=key)
    assert answer.status == (200 if key == KEY else 401)
    assert len(compared) == (key is not None)
    for pair in compared:
        assert [(type(side), len(side)) for side in pair] == [(bytes, 32)] * 2


async def test_unknown_and_expired_keys_get_the_same_headers(gateway):
    gw = await gateway(keys=[{"name": "old", "key": OTHER, "expires": datetime(2020, 1, 1, tzinfo=UTC).date()}])
    heads = []
    for key in (OTHER, "wrong"):
        answer = await gw.request("GET", "/v1/models", key=key)
        heads.append([name for name, _ in answer.headers])
    assert heads[0] == heads[1]


# Keys beside openness...


@pytest.mark.parametrize(
    ("key", "status"),
    [
        pytest.param(None, 200, id="without-a-credential"),
        pytest.param(KEY, 200, id="with-a-known-one"),
        pytest.param("wrong", 401, id="a-wrong-one-is-still-wrong"),
        pytest.param("", 401, id="an-empty-one-too"),
    ],
)
async def test_anonymous_beside_keys(gateway, key, status):
    gw = await gateway(auth={"anonymous": True})
    assert (await gw.request("GET", "/v1/models", key=key)).status == status


async def test_anonymous_is_no_admin_where_there_are_keys(gateway):
    gw = await gateway(auth={"anonymous": True}, keys=[{"name": "chief", "key": OTHER, "admin": True}])
    assert (await gw.request("GET", "/metrics", key=None)).status == 403
    assert (await gw.request("GET", "/metrics", key=KEY)).status == 403
    assert (await gw.request("GET", "/metrics", key=OTHER)).status == 200


async def test_what_a_key_may_not_use_is_403_and_not_401(upstream, gw):
    answer = await gw.chat(model="o")
    error = (await answer.json())["error"]
    assert answer.status == 403
    assert (error["type"], error["param"], error["code"]) == ("permission_error", "model", None)
    assert not answer.values("www-authenticate")
    assert upstream.calls == []
