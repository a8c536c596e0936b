"""What providers say when they say no: every shape is read, none can hurt, and nothing of ours is told."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import GatewayError, Kind, Maker, UpstreamError, UpstreamRefused
from proxy.refusals import Refusal, read_refusal, refused
from proxy.scrub import scrubber
from tests.dialects.openai_chat import dumps, nothing
from tests.properties import json, thorough
from tests.recordings import Recording, refusals

KEPT = {
    400: Kind.INVALID_REQUEST,
    404: Kind.NOT_FOUND,
    413: Kind.PAYLOAD_TOO_LARGE,
    422: Kind.INVALID_REQUEST,
    429: Kind.RATE_LIMITED,
}


def no(
    type: str | None = None,
    param: str | None = None,
    code: str | None = None,
    status: int = 0,
    maker: Maker = Maker.OPENAI,
) -> Refusal:
    return Refusal("no", type, param, code, status, maker)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(
            {"error": {"message": "no", "type": "t", "param": "p", "code": "c"}}, no("t", "p", "c"), id="openai"
        ),
        pytest.param({"error": {"message": "no"}}, no(), id="openai-with-less"),
        pytest.param(
            {"type": "error", "error": {"type": "t", "message": "no"}}, no("t", maker=Maker.ANTHROPIC), id="anthropic"
        ),
        pytest.param(
            {"error": {"code": 429, "message": "no", "status": "RESOURCE_EXHAUSTED"}},
            no("RESOURCE_EXHAUSTED", code="429", status=429, maker=Maker.GOOGLE),
            id="google",
        ),
        pytest.param(
            [{"error": {"code": 400, "message": "no"}}],
            no(code="400", status=400, maker=Maker.GOOGLE),
            id="google-in-a-list",
        ),
        pytest.param(
            {"type": "error", "sequence_number": 3, "error": {"type": "t", "code": "c", "message": "no"}},
            no("t", code="c"),
            id="openai-s-responses",
        ),
        pytest.param({"error": "no"}, no(), id="a-string"),
        pytest.param({"code": "invalid-argument", "error": "no"}, no(code="invalid-argument"), id="xai"),
        pytest.param(
            {"object": "error", "message": "no", "type": "t", "param": None, "code": "1500", "raw_status_code": 400},
            no("t", code="1500", status=400),
            id="mistral",
        ),
        pytest.param({"object": "error", "message": "no", "code": 404}, no(code="404", status=404), id="old-vllm"),
        pytest.param(
            {"success": False, "errors": [{"code": 5006, "message": "no"}], "result": {}},
            no(code="5006", maker=Maker.CLOUDFLARE),
            id="cloudflare",
        ),
        pytest.param({"errors": ["no"]}, no(), id="a-list-of-strings"),
        pytest.param(
            {"error": {"code": 402, "message": "no"}, "user_id": "u"}, no(code="402", status=402), id="openrouter"
        ),
        pytest.param(
            {"error": {"message": "no", "code": "c", "status_code": 400}}, no(code="c", status=400), id="groq"
        ),
        pytest.param({"detail": "no"}, no(), id="fastapi"),
        pytest.param({"detail": [{"loc": ["body"], "msg": "no", "type": "t"}]}, no("t"), id="fastapi-list"),
        pytest.param({"message": "no"}, no(), id="flat"),
        pytest.param("no", no(), id="json-text"),
        pytest.param(b"no", no(), id="plain-text"),
        pytest.param(b"  no \n", no(), id="plain-text-in-white-space"),
        pytest.param(b"\xffno", Refusal("\ufffdno"), id="not-utf-8"),
        pytest.param(b"<html><h1>502 Bad Gateway</h1></html>", Refusal(), id="html"),
        pytest.param(b"\n <!DOCTYPE html>", Refusal(), id="html-after-white-space"),
        pytest.param(b"", Refusal(), id="nothing"),
        pytest.param({}, Refusal(), id="an-empty-object"),
        pytest.param([], Refusal(), id="an-empty-list"),
        pytest.param([[]], Refusal(), id="lists"),
        pytest.param(None, Refusal(), id="null"),
        pytest.param(5, Refusal(), id="a-number"),
        pytest.param({"error": {"message": {"a": 1}}}, Refusal(), id="a-message-that-is-none"),
        pytest.param({"error": True, "message": "no"}, no(), id="an-error-that-is-a-flag"),
        pytest.param({"error": {"message": "no", "code": True}}, no(), id="a-code-that-is-a-flag"),
        pytest.param({"error": {"message": "no", "code": 7}}, no(code="7"), id="a-code-that-is-no-status"),
        pytest.param({"error": {"message": "no", "type": ["t"], "param": {}}}, no(), id="odd-words"),
    ],
)
def test_shapes(body, expected):
    assert read_refusal(body) == expected
    if not isinstance(body, bytes):
        assert read_refusal(dumps(body)) == expected
        assert read_refusal(b"\n\n" + dumps(body)) == expected


bodies = st.recursive(
    json,
    lambda inner: st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ["error", "errors", "detail", "message", "msg", "type", "param", "code", "status"], inner
        ),
    ),
    max_leaves=6,
)


@thorough
@given(bodies | st.lists(bodies, max_size=2) | st.binary(max_size=60) | bodies.map(orjson.dumps), st.integers(0, 700))
def test_any_refusal_is_read(body, status):
    refusal = read_refusal(body)
    assert isinstance(refusal.message, str)
    assert all(word is None or isinstance(word, str) for word in (refusal.type, refusal.param, refusal.code))
    assert refusal.status == 0 or 400 <= refusal.status < 600
    error = refused(status, refusal, nothing)
    assert isinstance(error, GatewayError)
    assert error.message


# Which status the client sees...


def test_a_status_is_kept_or_becomes_bad_gateway():
    for status in range(300, 600):
        error = refused(status, Refusal("no"), nothing)
        if status in KEPT:
            assert isinstance(error, UpstreamRefused)
            assert (error.status, error.kind, error.message, error.retryable) == (status, KEPT[status], "no", False)
        else:
            assert type(error) is UpstreamError
            assert (error.status, error.kind, error.code) == (502, Kind.UPSTREAM_ERROR, "upstream_error")
            assert f"{status}" in error.message


@pytest.mark.parametrize(
    ("status", "refusal"),
    [
        pytest.param(401, Refusal("Incorrect API key provided: sk-12***"), id="401"),
        pytest.param(403, Refusal("Country not supported"), id="403"),
        pytest.param(400, Refusal("API key not valid. Please pass a valid API key."), id="google"),
        pytest.param(400, Refusal("Incorrect API key provided: in***ey."), id="xai"),
        pytest.param(400, Refusal("no", code="invalid_api_key"), id="by-its-code"),
        pytest.param(0, Refusal("Invalid API key"), id="in-a-stream"),
    ],
)
def test_our_key_is_our_affair(status, refusal):
    error = refused(status, refusal, nothing)
    assert type(error) is UpstreamError
    assert error.status == 502
    assert error.message.startswith("the provider refused this gateway's key")
    assert refusal.message not in error.message


def test_a_400_that_names_a_key_of_another_kind_is_kept():
    error = refused(400, Refusal("`key` is not a property of the schema"), nothing)
    assert error.status == 400


@pytest.mark.parametrize("status", [400, 500, 0])
def test_a_refusal_without_words_says_what_is_known(status):
    assert refused(status, Refusal(), nothing).message == {
        400: "the provider answered 400",
        500: "the provider failed (500)",
        0: "the provider failed",
    }[status]  # fmt: skip


@pytest.mark.parametrize("status", [0, 302, 400, 402, 404, 429, 500])
def test_the_log_may_say_nothing_that_a_provider_said(status):
    error = refused(status, Refusal("you said: tell me a secret", "secret", "secret", "secret"), nothing)
    assert "secret" not in error.reason
    assert error.reason.startswith("the provider ")


def test_redirects_are_not_followed():
    assert refused(302, Refusal("moved"), nothing).message == "the provider answered 302; redirects are not followed"


@pytest.mark.parametrize("status", [429, 503])
def test_when_to_come_back_is_passed_on_where_the_status_is(status):
    error = refused(status, Refusal("no"), nothing, {"Retry-After": "9"})
    assert error.headers == ({"Retry-After": "9"} if status in KEPT else {})


# What the client must not see...

SECRET, HOST = "sk-upstream-secret", "api.provider.example"
SCRUB = scrubber([SECRET, "acc0unt"], [HOST])


@pytest.mark.parametrize("status", [400, 404, 413, 422, 429, 402, 500, 503, 0])
def test_secrets_and_hosts_are_taken_out_of_everything(status):
    said = f"{SECRET} {SECRET.upper()} https://{HOST}/v1/accounts/acc0unt"
    error = refused(status, Refusal(said, said, said, said), SCRUB)
    told = f"{vars(error)} {error}".lower()
    assert SECRET not in told
    assert HOST not in told
    assert "acc0unt" not in told
    assert "[redacted]" in error.message


def test_long_words_are_shortened_after_that():
    for before in range(1990, 2001):
        error = refused(400, Refusal("x" * before + SECRET, code="y" * 195 + SECRET), SCRUB)
        assert len(error.message) <= 2000
        assert SECRET[:3] not in error.message
        assert error.code is not None
        assert len(error.code) <= 200
        assert SECRET[:3] not in error.code


# Recorded...

#: What the message of a recording must contain; our own words where it was about our key.
ABOUT_OUR_KEY = "the provider refused this gateway's key"


@refusals
def test_recorded_refusals(recording: Recording):
    refusal = read_refusal(recording.body)
    assert refusal.message
    assert refusal.message in orjson.dumps(orjson.loads(recording.body)).decode().replace('\\"', '"')
    error = refused(recording.status, refusal, nothing)
    if "auth" in recording.name or "api-key" in recording.name:
        assert error.message.startswith(ABOUT_OUR_KEY)
    else:
        assert refusal.message in error.message
        assert error.status == (recording.status if recording.status in KEPT else 502)
