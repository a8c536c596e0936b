"""Bodies that cannot be served: each gets the right status, in the right form, and never a 500 or a traceback."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest

from . import KEY, authorized, chat_body

JSON = {"Content-Type": "application/json"}
TURNS = b'"messages":[{"role":"user","content":"x"}]'
CHAT = "/v1/chat/completions"


async def post(gw, body: bytes, path: str = CHAT, headers=JSON):
    return await gw.request("POST", path, headers=headers, body=body)


async def refusal(answer, path: str) -> tuple[str, str | None]:
    """The message of a 400, and the field that it names, which the simple form has no place for."""
    told = await answer.json()
    assert answer.status == 400, told
    if path.startswith("/v1"):
        error = told["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", None)
        return error["message"], error["param"]
    assert told["error"] == "invalid_request"
    return told["details"], None


@pytest.fixture(autouse=True)
def _nothing_is_asked_and_nothing_is_complained_of(upstream, caplog):
    yield
    assert upstream.calls == []
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]


# What is no JSON object...


NOT_JSON = [
    pytest.param(b"", "the body is empty", id="nothing"),
    pytest.param(b" \r\n\t", "the body is empty", id="blanks"),
    pytest.param(b"{", "the body is not JSON", id="half-an-object"),
    pytest.param(b"{" + TURNS, "the body is not JSON", id="an-object-without-its-end"),
    pytest.param(b"{" + TURNS + b"} x", "the body is not JSON", id="something-behind-it"),
    pytest.param(b"{" + TURNS + b"}{}", "the body is not JSON", id="two-objects"),
    pytest.param(b"{" + TURNS + b",}", "the body is not JSON", id="a-comma-too-many"),
    pytest.param(b"{'model':'m'}", "the body is not JSON", id="single-quotes"),
    pytest.param(b'{"temperature":NaN,' + TURNS + b"}", "the body is not JSON", id="nan"),
    pytest.param(b'{"temperature":-Infinity,' + TURNS + b"}", "the body is not JSON", id="infinity"),
    pytest.param(b'{"x":"a\nb",' + TURNS + b"}", "the body is not JSON", id="a-raw-line-end-in-text"),
    pytest.param(b'{"x":"\\q",' + TURNS + b"}", "the body is not JSON", id="an-escape-that-is-none"),
    pytest.param(b'{"x":"\\ud800",' + TURNS + b"}", "the body is not JSON", id="half-a-surrogate-pair"),
    pytest.param(b'{"x":"\\ud83d\\u0041",' + TURNS + b"}", "the body is not JSON", id="a-pair-of-unequal-halves"),
    pytest.param(b'{"x":01,' + TURNS + b"}", "the body is not JSON", id="a-leading-zero"),
    pytest.param(b"model=m&messages=x", "the body is not JSON", id="a-form"),
    pytest.param(b"\x00" * 64, "the body is not JSON", id="nul-bytes"),
    pytest.param(b'{"x":"\xff",' + TURNS + b"}", "the body is not UTF-8 (byte 6)", id="a-byte-that-is-not-utf-8"),
    pytest.param(b'{"x":"\xc3",' + TURNS + b"}", "the body is not UTF-8 (byte 6)", id="half-a-character"),
    pytest.param(b'{"x":"\xed\xa0\x80",' + TURNS + b"}", "the body is not UTF-8", id="a-surrogate-in-utf-8"),
    pytest.param(b'{"x":"\xc0\xaf",' + TURNS + b"}", "the body is not UTF-8", id="overlong"),
    pytest.param('{"model":"m"}'.encode("utf-16"), "the body is not UTF-8", id="utf-16"),
    pytest.param(b"[]", "the body must be a JSON object", id="an-array"),
    pytest.param(b'"x"', "the body must be a JSON object", id="text"),
    pytest.param(b"null", "the body must be a JSON object", id="null"),
    pytest.param(b"5", "the body must be a JSON object", id="a-number"),
    pytest.param(b"[" * 200_000, "the body must be a JSON object", id="deep-arrays"),
    pytest.param(b'{"a":' * 200_000, "the body is nested too deeply", id="deep-objects"),
    pytest.param(b'{"x":' + b"[" * 200_000, "the body is nested too deeply", id="deep-inside-an-unknown-field"),
    pytest.param(b'{"messages":' + b"[" * 200_000, "the body is nested too deeply", id="deep-messages"),
]


@pytest.mark.parametrize(("body", "said"), NOT_JSON)
async def test_what_is_no_json_object(gateway, body, said):
    gw = await gateway()
    for path in (CHAT, "/chat", "/api/chat", "/v1/embeddings", "/v1/completions"):
        message, param = await refusal(await post(gw, body, path), path)
        assert message.startswith(said)
        assert param is None


# Fields of the wrong type, in passthrough...


WRONG: list[Any] = [
    ("model", 5, "model"),
    ("model", ["m"], "model"),
    ("model", {}, "model"),
    ("model", True, "model"),
    ("stream", "true", "stream"),
    ("stream", 1, "stream"),
    ("stream", {}, "stream"),
    ("stream_options", [], "stream_options"),
    ("stream_options", "x", "stream_options"),
    ("stream_options", True, "stream_options"),
    ("messages", None, "messages"),
    ("messages", "Hi", "messages"),
    ("messages", {}, "messages"),
    ("messages", [], "messages"),
    ("messages", 5, "messages"),
    ("messages", [5], "messages[0]"),
    ("messages", ["Hi"], "messages[0]"),
    ("messages", [None], "messages[0]"),
    ("messages", [[]], "messages[0]"),
    ("messages", [{"role": "user", "content": "x"}, "y"], "messages[1]"),
    ("messages", [{}], "messages[0].role"),
    ("messages", [{"role": "user"}, {"content": "x"}], "messages[1].role"),
    ("messages", [{"role": 5}], "messages[0].role"),
    ("messages", [{"role": None}], "messages[0].role"),
    ("messages", [{"role": ["user"]}], "messages[0].role"),
]


@pytest.mark.parametrize(("field", "value", "param"), WRONG, ids=[f"{f}={json.dumps(v)}" for f, v, _ in WRONG])
async def test_a_wrong_type_is_named_with_its_place(gateway, field, value, param):
    gw = await gateway()
    for path, named in ((CHAT, param), ("/chat", None)):
        told = await refusal(await post(gw, json.dumps(chat_body(**{field: value})).encode(), path), path)
        assert f"`{param.removesuffix('.role')}" in told[0]
        assert told[1] == named


@pytest.mark.parametrize("path", [CHAT, "/chat"])
async def test_messages_must_be_there(gateway, path):
    message, param = await refusal(await post(await gateway(), b'{"model":"m"}', path), path)
    assert (message, param) == ("`messages` is missing", "messages" if path == CHAT else None)


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/embeddings"])
@pytest.mark.parametrize(("field", "value"), [("model", 5), ("stream", "yes"), ("stream_options", 5)])
async def test_endpoints_without_messages_check_the_rest(gateway, path, field, value):
    body = {"model": "m", "input": "x", "prompt": "x", field: value}
    _, param = await refusal(await post(await gateway(), json.dumps(body).encode(), path), path)
    assert param == field


# ... and at /api/chat


ROLES = "must be one of system, developer, user, assistant"
UNWRITTEN = "the body cannot be written for the provider"
SIMPLE: list[Any] = [
    ({}, "give `prompt` or `messages`"),
    ({"model": "m"}, "give `prompt` or `messages`"),
    ({"prompt": None}, "give `prompt` or `messages`"),
    ({"messages": []}, "give `prompt` or `messages`"),
    ({"prompt": 5}, "`prompt` must be a string"),
    ({"prompt": ["x"]}, "`prompt` must be a string"),
    ({"messages": "x"}, "`messages` must be an array of objects"),
    ({"messages": {}}, "`messages` must be an array of objects"),
    ({"messages": [5]}, "`messages` must be an array of objects"),
    ({"messages": [{"content": "x"}]}, f"`messages[0].role` {ROLES}"),
    ({"messages": [{"role": 5, "content": "x"}]}, f"`messages[0].role` {ROLES}"),
    ({"messages": [{"role": "user", "content": "x"}, {"role": "x", "content": "x"}]}, f"`messages[1].role` {ROLES}"),
    ({"messages": [{"role": "user", "content": [5]}]}, "`messages[0].content[0]` must be a text or an image_url part"),
    ({"messages": [{"role": "user"}]}, "every message needs `content`"),
    ({"messages": [{"role": "user", "content": 5}]}, "every message needs `content`"),
    ({"prompt": "x", "model": 5}, "`model` must be a string"),
    ({"prompt": "x", "stream": "no"}, "`stream` must be true or false"),
    ({"prompt": "x", "stream": 0}, "`stream` must be true or false"),
    ({"prompt": "x", "max_tokens": "5"}, "`max_tokens` must be a whole number"),
    ({"prompt": "x", "max_tokens": 5.5}, "`max_tokens` must be a whole number"),
    ({"prompt": "x", "max_tokens": True}, "`max_tokens` must be a whole number"),
    ({"prompt": "x", "max_tokens": 0}, "`max_tokens` must be at least 1"),
    (
        {"prompt": "x", "max_tokens": 10**30},
        "the body cannot be written for the provider: Integer exceeds 64-bit range",
    ),
    ({"prompt": "x", "max_tokens": -1}, "`max_tokens` must be at least 1"),
    ({"prompt": "x", "temperature": "hot"}, "`temperature` must be a number"),
    ({"prompt": "x", "temperature": []}, "`temperature` must be a number"),
]


@pytest.mark.parametrize(("body", "said"), SIMPLE, ids=[json.dumps(body) for body, _ in SIMPLE])
async def test_the_simple_dialect_says_what_to_mend(gateway, body, said):
    message, _ = await refusal(await post(await gateway(), json.dumps(body).encode(), "/api/chat"), "/api/chat")
    assert message == said


@pytest.mark.parametrize(
    "content", [b"[" * 5000 + b"]" * 5000, b"[" * 990 + b"]" * 990, b'[{"a":' * 480 + b"1" + b"}]" * 480]
)
async def test_the_simple_dialect_refuses_what_it_cannot_write_again(gateway, content):
    body = b'{"model":"m","messages":[{"role":"user","content":[{"a":' + content + b"}]}]}"
    message, _ = await refusal(await post(await gateway(), body, "/api/chat"), "/api/chat")
    assert "nested too deeply" in message or "must be a text" in message  # newer Pythons read deeper


# Content types and encodings...


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(None, id="none"),
        pytest.param("", id="empty"),
        pytest.param("text/plain", id="text"),
        pytest.param("application/x-www-form-urlencoded", id="a-form"),
        pytest.param("multipart/form-data; boundary=x", id="multipart"),
        pytest.param("application/octet-stream", id="bytes"),
        pytest.param("application/json, text/plain", id="two-in-one"),
        pytest.param("application/jsonp", id="nearly"),
        pytest.param("nonsense", id="nonsense"),
        pytest.param("\udcff/\udcfe", id="bytes-that-are-not-ascii"),
    ],
)
async def test_415_for_what_is_not_called_json(gateway, kind):
    gw = await gateway()
    headers = {} if kind is None else {"Content-Type": kind}
    for path in (CHAT, "/chat", "/api/chat"):
        answer = await post(gw, json.dumps(chat_body()).encode(), path, headers)
        told = await answer.json()
        assert answer.status == 415
        assert (told["error"]["type"] if path == CHAT else told["error"]).startswith("invalid_request")
        assert "application/json" in json.dumps(told)


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "snappy", "\udcff", "x" * 1000])
async def test_415_for_an_encoding_that_is_not_known(gateway, coding):
    answer = await post(await gateway(), b"x", CHAT, {**JSON, "Content-Encoding": coding})
    told = await answer.json()
    assert answer.status == 415
    assert "gzip and deflate" in told["error"]["message"]


GOOD = json.dumps(chat_body(model="none")).encode()  # found out only after the body was understood


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        pytest.param("gzip", gzip.compress(GOOD), id="gzip"),
        pytest.param("X-GZIP", gzip.compress(GOOD), id="its-other-name"),
        pytest.param("gzip", gzip.compress(GOOD[:20]) + gzip.compress(GOOD[20:]), id="two-members"),
        pytest.param("deflate", zlib.compress(GOOD), id="deflate"),
        pytest.param("deflate", raw_deflate(GOOD), id="raw-deflate"),
        pytest.param("identity", GOOD, id="identity"),
        pytest.param("", GOOD, id="an-empty-header"),
    ],
)
@pytest.mark.parametrize("size", [1, 1000], ids=["dripping", "at-once"])
async def test_known_encodings_are_undone(gateway, coding, body, size):
    client = await (await gateway()).connect()
    head = {**JSON, "Content-Encoding": coding, "Content-Length": str(len(body))}
    await client.request("POST", CHAT, headers=authorized(KEY, head))
    await client.drip(body, size)
    told = await (await client.answer()).json()
    assert told["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        pytest.param("gzip", b"nonsense", id="no-gzip"),
        pytest.param("gzip", GOOD, id="not-encoded-at-all"),
        pytest.param("gzip", gzip.compress(GOOD)[:-9], id="cut"),
        pytest.param("gzip", gzip.compress(GOOD)[:-4] + b"oops", id="a-wrong-checksum"),
        pytest.param("gzip", gzip.compress(GOOD) + b"oops", id="something-behind-it"),
        pytest.param("deflate", b"nonsense", id="no-deflate"),
        pytest.param("deflate", zlib.compress(GOOD)[:-2], id="deflate-cut"),
    ],
)
@pytest.mark.parametrize("size", [1, 1000], ids=["dripping", "at-once"])
async def test_a_broken_encoding_is_the_clients_mistake(gateway, coding, body, size):
    client = await (await gateway()).connect()
    head = {**JSON, "Content-Encoding": coding, "Content-Length": str(len(body))}
    await client.request("POST", CHAT, headers=authorized(KEY, head))
    await client.drip(body, size)
    message, _ = await refusal(await client.answer(), CHAT)
    assert message == "the body is not what its Content-Encoding says"


# Too much...


LIMIT = 10_000
#: A chunk of 20 kB that is nothing when it is unpacked.
NOTHING = b"4e20\r\n" + gzip.compress(b"") * 1000


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        pytest.param({"Content-Length": str(LIMIT + 1)}, b"", id="said-beforehand-and-not-sent"),
        pytest.param({}, b"x" * (LIMIT + 1), id="with-its-length"),
        pytest.param({"Transfer-Encoding": "chunked"}, b"%x\r\n" % (LIMIT + 1) + b"x" * (LIMIT + 1), id="a-chunk"),
        pytest.param({"Transfer-Encoding": "chunked"}, b"1\r\nx\r\n" * (LIMIT + 1), id="chunk-by-chunk"),
        pytest.param({"Content-Encoding": "gzip"}, gzip.compress(b"x" * (LIMIT + 1)), id="after-gzip"),
        pytest.param({"Content-Encoding": "gzip"}, gzip.compress(b"x" * 50_000_000), id="a-bomb"),
        pytest.param({"Content-Encoding": "gzip"}, gzip.compress(b"x" * LIMIT) * 2, id="in-two-members"),
        pytest.param({"Content-Encoding": "gzip", "Transfer-Encoding": "chunked"}, NOTHING, id="endless-nothing"),
        pytest.param({"Content-Encoding": "deflate"}, zlib.compress(b"x" * 50_000_000), id="a-deflate-bomb"),
        pytest.param(
            {"Content-Encoding": "gzip", "Transfer-Encoding": "chunked"},
            b"%x\r\n" % len(gzip.compress(b"x" * 50_000_000)) + gzip.compress(b"x" * 50_000_000),
            id="a-bomb-in-a-chunk",
        ),
    ],
)
async def test_413_says_the_limit_and_its_setting(gateway, headers, body):
    gw = await gateway(limits={"max_body_bytes": LIMIT})
    for path in (CHAT, "/chat"):
        answer = await gw.request("POST", path, headers={**JSON, **headers}, body=body)
        told = await answer.json()
        assert answer.status == 413
        if path == CHAT:
            assert (told["error"]["type"], told["error"]["code"]) == ("invalid_request_error", "payload_too_large")
        else:
            assert told["error"] == "payload_too_large"
        assert f"{LIMIT} bytes (limits.max_body_bytes)" in json.dumps(told)


@pytest.mark.parametrize("sent", [b"", b'{"model"'], ids=["nothing", "the-beginning"])
async def test_a_body_that_stays_out_gets_504_after_its_clock(gateway, sent):
    gw = await gateway(timeouts={"client": 0.2})
    client = await gw.connect()
    await client.request("POST", CHAT, headers=authorized(KEY, {**JSON, "Content-Length": "1000"}))
    await client.send(sent)
    answer = await client.answer()
    assert answer.status == 504
    error = (await answer.json())["error"]
    assert error["code"] == "timeout"
    assert "(timeouts.client)" in error["message"]
    await gw.idle()


async def test_a_client_that_leaves_inside_its_body_leaves_nothing_behind(gateway):
    gw = await gateway()
    client = await gw.connect()
    head = {**JSON, "Content-Length": "1000", "Expect": "100-continue"}
    await client.request("POST", CHAT, headers=authorized(KEY, head))
    assert await client.line() == b"HTTP/1.1 100 Continue"  # so the body is being waited for
    assert gw.live == 1
    await client.send(b'{"model"')
    client.abort()
    await gw.idle()
