"""Which requests are read without a whole parser, and that one would read them alike."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import pytest
from aiohttp import HttpVersion11
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser
from hypothesis import example, given
from hypothesis import strategies as st

from proxy import plain
from proxy.plain import Plain
from tests.properties import thorough

START = b"POST /v1/chat/completions HTTP/1.1\r\n"
HOST = b"Host: localhost\r\n"
BODY = b'{"model":"m"}'
LENGTH = b"Content-Length: 13\r\n"
LIMIT = 32 * 1024


def request(*fields: bytes, start: bytes = START, body: bytes = BODY) -> bytes:
    """A request of these fields, `Host` and `Content-Length`."""
    return start + HOST + b"".join(fields) + b"Content-Length: %d\r\n\r\n" % len(body) + body


def read(wire: bytes, limit: int = LIMIT) -> Plain | None:
    return plain.read(wire, None, limit)


# What is read...


PLAIN = [
    pytest.param(request(), {}, id="the-least"),
    pytest.param(request(b"X-A: b\r\n"), {"x-a": "b"}, id="a-field"),
    pytest.param(request(b"X-A:b\r\n"), {"x-a": "b"}, id="no-space-after-the-colon"),
    pytest.param(request(b"X-A:\t \tb\r\n"), {"x-a": "b"}, id="much-space-after-the-colon"),
    pytest.param(request(b"X-A: b\tc  d\r\n"), {"x-a": "b\tc  d"}, id="space-inside-a-value"),
    pytest.param(request(b"X-A:\r\n"), {"x-a": ""}, id="an-empty-value"),
    pytest.param(request(b"X-A: b:c: d\r\n"), {"x-a": "b:c: d"}, id="colons-in-a-value"),
    pytest.param(request(b"X-A:: b\r\n"), {"x-a": ": b"}, id="two-colons"),
    pytest.param(request(b"!#$%&'*+-.^_`|~09: b\r\n"), {"!#$%&'*+-.^_`|~09": "b"}, id="any-token-is-a-name"),
    pytest.param(request(b'X-A: "q", <a>; \\{}[]()@\r\n'), {"x-a": '"q", <a>; \\{}[]()@'}, id="any-visible-value"),
    pytest.param(request(b"Connection: keep-alive\r\n"), {"connection": "keep-alive"}, id="keep-alive"),
    pytest.param(request(b"connection: Keep-Alive\r\n"), {"connection": "Keep-Alive"}, id="keep-alive-in-capitals"),
    pytest.param(request(b"TE: trailers\r\n"), {"te": "trailers"}, id="te-asks-for-nothing-of-ours"),
    pytest.param(START + b"HOST: localhost\r\ncontent-LENGTH: 13\r\n\r\n" + BODY, {}, id="names-in-any-case"),
    pytest.param(START + LENGTH + HOST + b"\r\n" + BODY, {}, id="fields-in-any-order"),
    pytest.param(START + b"Host:\r\n" + LENGTH + b"\r\n" + BODY, {"host": ""}, id="an-empty-host"),
]


@pytest.mark.parametrize(("wire", "fields"), PLAIN)
def test_a_plain_request_is_read(wire, fields):
    told = read(wire)
    assert told is not None
    assert (told.method, told.raw_path, told.path) == ("POST", "/v1/chat/completions", "/v1/chat/completions")
    assert (told.version, told.keep_alive, told.body) == (HttpVersion11, True, BODY)
    told_fields = {name.lower(): value for name, value in told.headers.items()}
    assert told_fields == {"host": "localhost", "content-length": "13", **fields}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="none"),
        pytest.param(b"\r\n\r\n", id="blank-lines"),
        pytest.param(b"\0\xff\xfe\n", id="any-bytes"),
        pytest.param(request(), id="what-looks-like-a-request"),
        pytest.param(b"x" * 300_000, id="larger-than-any-head"),
    ],
)
def test_a_body_is_bytes(body):
    told = read(request(body=body))
    assert told is not None
    assert told.body == body


@pytest.mark.parametrize("path", ["/", "//", "/a?b=c&d", "/a#b", "/%2F%00", "/*", "/a;b=c", "/~^`|{}\"'<>\\[]!"])
def test_a_target_is_told_as_it_was_asked_for(path):
    told = read(request(start=f"POST {path} HTTP/1.1\r\n".encode()))
    assert told is not None
    assert told.raw_path == path


def test_fields_keep_their_order_and_spelling():
    told = read(request(b"b-B: 1\r\n", b"A-a: 2\r\n", b"c-C: 3\r\n"))
    assert told is not None
    assert [*told.headers] == ["Host", "b-B", "A-a", "c-C", "Content-Length"]
    assert told.headers["B-b"] == "1"


# What is left to a whole parser...


ODD = [
    # The first line
    pytest.param(request(start=b"GET /v1/models HTTP/1.1\r\n"), id="get"),
    pytest.param(request(start=b"PUT /v1/models HTTP/1.1\r\n"), id="put"),
    pytest.param(request(start=b"OPTIONS * HTTP/1.1\r\n"), id="options"),
    pytest.param(request(start=b"post / HTTP/1.1\r\n"), id="a-method-in-small-letters"),
    pytest.param(request(start=b"POSTER / HTTP/1.1\r\n"), id="a-longer-method"),
    pytest.param(request(start=b"POST / HTTP/1.0\r\n"), id="http-1.0"),
    pytest.param(request(start=b"POST / HTTP/1.2\r\n"), id="http-1.2"),
    pytest.param(request(start=b"POST / HTTP/2.0\r\n"), id="http-2"),
    pytest.param(request(start=b"POST / http/1.1\r\n"), id="http-in-small-letters"),
    pytest.param(request(start=b"POST /\r\n"), id="http-0.9"),
    pytest.param(request(start=b"POST  / HTTP/1.1\r\n"), id="two-spaces-before-the-target"),
    pytest.param(request(start=b"POST /  HTTP/1.1\r\n"), id="two-spaces-after-the-target"),
    pytest.param(request(start=b"POST\t/ HTTP/1.1\r\n"), id="a-tab-for-a-space"),
    pytest.param(request(start=b"POST / HTTP/1.1 \r\n"), id="a-space-at-the-end"),
    pytest.param(request(start=b"POST / HTTP/1.1\n"), id="a-bare-lf-after-the-first-line"),
    pytest.param(request(start=b"POST / HTTP/1.1\r\r\n"), id="two-crs"),
    pytest.param(request(start=b"\r\n" + START), id="a-blank-line-before"),
    pytest.param(request(start=b"POST http://localhost/ HTTP/1.1\r\n"), id="absolute-form"),
    pytest.param(request(start=b"POST localhost:80 HTTP/1.1\r\n"), id="authority-form"),
    pytest.param(request(start=b"POST * HTTP/1.1\r\n"), id="a-star"),
    pytest.param(request(start=b"POST ?a HTTP/1.1\r\n"), id="a-query-alone"),
    pytest.param(request(start=b"POST /a b HTTP/1.1\r\n"), id="a-space-in-the-target"),
    pytest.param(request(start="POST /é HTTP/1.1\r\n".encode()), id="utf-8-in-the-target"),
    pytest.param(request(start=b"POST /\xff HTTP/1.1\r\n"), id="bytes-in-the-target"),
    pytest.param(request(start=b"POST /\0 HTTP/1.1\r\n"), id="nul-in-the-target"),
    pytest.param(request(start=b"POST /\x7f HTTP/1.1\r\n"), id="delete-in-the-target"),
    # Lines
    pytest.param(request(b"X-A: b\n"), id="a-bare-lf"),
    pytest.param(request(b"X-A: b\r"), id="a-bare-cr"),
    pytest.param(request(b"X-A: b\r\r\n"), id="two-crs-after-a-field"),
    pytest.param(request(b"X-A: b\rX-B: c\r\n"), id="a-cr-in-a-value"),
    pytest.param(request(b"X-A: b\r\n c\r\n"), id="a-folded-line"),
    pytest.param(request(b"X-A: b\r\n\tc\r\n"), id="a-line-folded-with-a-tab"),
    pytest.param(START + b" X-A: b\r\n" + HOST + LENGTH + b"\r\n" + BODY, id="a-space-before-the-first-field"),
    pytest.param(START + HOST + LENGTH + b"\n" + BODY, id="a-bare-lf-at-the-end-of-the-head"),
    pytest.param(START + HOST + LENGTH + BODY, id="no-end-of-the-head"),
    pytest.param(START + b"\r\n", id="no-fields"),
    # Names and values
    pytest.param(request(b"X-A : b\r\n"), id="a-space-before-the-colon"),
    pytest.param(request(b"X A: b\r\n"), id="a-space-in-a-name"),
    pytest.param(request(b"X-A\r\n"), id="no-colon"),
    pytest.param(request(b": b\r\n"), id="no-name"),
    pytest.param(request(b"X(A): b\r\n"), id="a-name-that-is-no-token"),
    pytest.param(request(b"X-\xc3\xa9: b\r\n"), id="utf-8-in-a-name"),
    pytest.param(request(b"X\0: b\r\n"), id="nul-in-a-name"),
    pytest.param(request(b"X-A: b \r\n"), id="a-space-after-a-value"),
    pytest.param(request(b"X-A: b\t\r\n"), id="a-tab-after-a-value"),
    pytest.param(request(b"X-A: \r\n"), id="a-value-of-space"),
    pytest.param(request(b"X-A: \xc3\xa9\r\n"), id="utf-8-in-a-value"),
    pytest.param(request(b"X-A: \xff\r\n"), id="bytes-in-a-value"),
    pytest.param(request(b"X-A: \0\r\n"), id="nul-in-a-value"),
    pytest.param(request(b"X-A: \x0b\r\n"), id="a-control-character-in-a-value"),
    pytest.param(request(b"X-A: \x7f\r\n"), id="delete-in-a-value"),
    # Said twice, or not at all
    pytest.param(request(LENGTH), id="two-equal-lengths"),
    pytest.param(request(b"Content-Length: 12\r\n"), id="two-lengths"),
    pytest.param(request(b"content-length: 13\r\n"), id="two-lengths-in-two-spellings"),
    pytest.param(request(HOST), id="two-equal-hosts"),
    pytest.param(request(b"host: example.org\r\n"), id="two-hosts"),
    pytest.param(request(b"X-A: b\r\n", b"x-a: b\r\n"), id="a-field-twice"),
    pytest.param(request(b"Authorization: Bearer a\r\n", b"Authorization: Bearer b\r\n"), id="two-keys"),
    pytest.param(START + LENGTH + b"\r\n" + BODY, id="no-host"),
    pytest.param(START + HOST + b"\r\n", id="no-length"),
    pytest.param(START + HOST + b"\r\n" + BODY, id="a-body-of-no-length"),
    # What says more of the message
    pytest.param(request(b"Transfer-Encoding: chunked\r\n"), id="a-length-and-chunks"),
    pytest.param(START + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="chunks"),
    pytest.param(request(b"transfer-encoding: identity\r\n"), id="no-transfer-encoding-to-speak-of"),
    pytest.param(request(b"Transfer-Encoding:\r\n"), id="an-empty-transfer-encoding"),
    pytest.param(request(b"Content-Encoding: gzip\r\n"), id="a-packed-body"),
    pytest.param(request(b"Expect: 100-continue\r\n"), id="expect"),
    pytest.param(request(b"Upgrade: websocket\r\n"), id="upgrade"),
    pytest.param(request(b"Trailer: X-A\r\n"), id="trailer"),
    pytest.param(request(b"Sec-WebSocket-Key1: a\r\n"), id="an-old-websocket"),
    pytest.param(request(b"Connection: close\r\n"), id="close"),
    pytest.param(request(b"connection: Close\r\n"), id="close-in-another-spelling"),
    pytest.param(request(b"Connection: keep-alive, close\r\n"), id="keep-alive-and-close"),
    pytest.param(request(b"Connection: Upgrade\r\n"), id="connection-upgrade"),
    pytest.param(request(b"Connection: X-A\r\n"), id="a-field-of-this-hop"),
    pytest.param(request(b"Connection:\r\n"), id="an-empty-connection"),
    pytest.param(request(b"Proxy-Connection: close\r\n"), id="proxy-connection"),
    # Lengths that may be read in two ways
    *(
        pytest.param(START + HOST + b"Content-Length:" + length + b"\r\n\r\n" + BODY, id=f"the-length-{name}")
        for name, length in {
            "with-a-plus": b" +13",
            "with-a-minus": b" -13",
            "with-a-zero-before": b" 013",
            "in-hex": b" 0xd",
            "with-a-point": b" 13.0",
            "with-an-underscore": b" 1_3",
            "twice-in-one": b" 13, 13",
            "with-a-space-after": b" 13 ",
            "with-a-space-in-it": b" 1 3",
            "in-quotes": b' "13"',
            "empty": b"",
            "of-another-script": " ١٣".encode(),
        }.items()
    ),
    # Bodies that are not all there, or are followed by more
    pytest.param(request()[:-1], id="a-body-too-short"),
    pytest.param(request() + b"\n", id="a-body-too-long"),
    pytest.param(request() + request(), id="two-requests"),
    pytest.param(request() + START, id="a-request-and-a-half"),
    pytest.param(request(body=b"") + b"\r\n", id="a-blank-line-after"),
    pytest.param(START + HOST + b"Content-Length: 18446744073709551629\r\n\r\n" + BODY, id="a-length-beyond-64-bits"),
    pytest.param(b"", id="nothing"),
    *(pytest.param(request()[:at], id=f"cut-at-{at}") for at in range(1, len(request()) - len(BODY), 7)),
]


@pytest.mark.parametrize("wire", ODD)
def test_what_is_odd_is_left_to_a_whole_parser(wire):
    assert read(wire) is None


def test_a_head_has_as_many_fields_as_a_parser_takes():
    fields = [b"X-%d: a\r\n" % n for n in range(99)]
    assert read(request(*fields[:98])) is not None  # with `Host` and `Content-Length` a hundred
    assert read(request(*fields)) is None


def test_a_head_has_a_limit():
    wire = request(b"X-A: " + b"b" * 500 + b"\r\n")
    size = len(wire) - len(BODY)
    assert read(wire, size) is not None
    assert read(wire, size - 1) is None
    assert read(request(body=b"x" * 5000), size) is not None  # a body is none


# A whole parser reads the same...


class Message(NamedTuple):
    """What a parser makes of a request."""

    method: str
    target: str
    version: Any
    fields: list[tuple[str, str]]
    body: bytes


class Connection:
    """As much of one as a parser and a body ask for."""

    _reading_paused = False

    def resume_reading(self, resume_parser: bool = True) -> None: ...


def parsed(wire: bytes) -> Message:
    """What aiohttp's parser makes of the whole of ``wire``.  Raises ``HttpProcessingError``."""
    parser = HttpRequestParser(
        Connection(),
        LOOP,
        2**18,
        max_line_size=LIMIT,
        max_field_size=LIMIT,
        max_headers=128,
        auto_decompress=False,
        max_msg_queue_size=32,
    )
    messages, upgraded, tail = parser.feed_data(wire)
    ((head, body),) = messages
    assert (upgraded, tail, body.is_eof()) == (False, b"", True)
    assert (head.should_close, head.upgrade, head.chunked, head.compression) == (False, False, False, None)
    fields = [(name.lower(), value) for name, value in head.headers.items()]
    data = body.read_nowait() if not body.at_eof() else b""
    return Message(head.method, head.path, head.version, fields, data)


LOOP = asyncio.new_event_loop()
LOOP.close()  # nothing runs on it


def assert_read_alike(wire: bytes) -> bool:
    """Whether a request is plain; a whole parser must then agree."""
    told = read(wire)
    if told is None:
        return False
    fields = [(name.lower(), value) for name, value in told.headers.items()]
    assert Message(told.method, told.raw_path, told.version, fields, told.body) == parsed(wire)
    return True


def test_the_parser_to_agree_with_is_the_one_in_use():
    assert HttpRequestParser.__module__ == "aiohttp._http_parser"


@pytest.mark.parametrize("wire", [param.values[0] for param in PLAIN], ids=[param.id for param in PLAIN])
def test_a_whole_parser_reads_the_same(wire):
    assert assert_read_alike(wire)


bodies = st.sampled_from([b"", BODY, b"\r\n\r\n", request(), b"0\r\n\r\n"]) | st.binary(max_size=40)
targets = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=12)
tokens = st.text(st.sampled_from("!#$%&'*+-.^_`|~09azAZ"), min_size=1, max_size=8)
#: Fields that a parser looks at, or that look as if it did.
known = st.sampled_from(
    [
        *("Accept", "Authorization", "Connection", "Content-Encoding", "Content-Type", "Content-Length", "Cookie"),
        *("Date", "Expect", "Host", "HTTP2-Settings", "Keep-Alive", "Max-Forwards", "Origin", "Proxy-Connection"),
        *("Sec-WebSocket-Key", "Sec-WebSocket-Key1", "TE", "Trailer", "Transfer-Encoding", "Upgrade", "Via"),
    ]
)
names = known | known.map(str.lower) | known.map(str.upper) | tokens
visible = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E) | st.just("\t"), max_size=16)
values = visible | st.sampled_from(["close", "keep-alive", "chunked", "100-continue", "gzip", "h2c", "websocket", "0"])
spaces = st.sampled_from(["", " ", "\t", "  "])
fields = st.lists(st.tuples(names, spaces, values).map("{0[0]}:{0[1]}{0[2]}\r\n".format), max_size=4)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Requests that are HTTP, or nearly; many are plain."""
    body = draw(bodies)
    lines = ["Host: localhost\r\n", f"Content-Length:{draw(spaces)}{len(body)}\r\n", *draw(fields)]
    return f"POST /{draw(targets)} HTTP/1.1\r\n{''.join(draw(st.permutations(lines)))}\r\n".encode() + body


@given(requests())
@thorough
def test_whatever_is_read_a_whole_parser_reads_the_same(wire):
    assert_read_alike(wire)


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """A plain request in which some bytes were changed, added or taken out."""
    wire = request(b"X-A: b\r\n", b"Connection: keep-alive\r\n")
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(wire)))
        put = draw(
            st.sampled_from([b"", b"\r", b"\n", b"\r\n", b" ", b":", b"\t", b"\0", b"0", b"1"]) | st.binary(max_size=2)
        )
        wire = wire[:at] + put + wire[at + draw(st.integers(0, 3)) :]
    return wire


@given(spoilt())
@example(request().replace(b"13", b"13\r\nContent-Length: 13"))
@thorough
def test_what_was_spoilt_is_read_the_same_or_not_at_all(wire):
    assert_read_alike(wire)


@given(
    st.dictionaries(tokens.map(lambda name: f"x-{name}".lower()), visible.map(str.strip), max_size=8), spaces, bodies
)
@thorough
def test_fields_that_mean_nothing_here_keep_no_request_from_being_plain(told, space, body):
    wire = request(*(f"{name}:{space if value else ''}{value}\r\n".encode() for name, value in told.items()), body=body)
    assert assert_read_alike(wire)


@given(st.binary(max_size=200))
@thorough
def test_any_bytes_are_read_the_same_or_not_at_all(wire):
    try:
        assert_read_alike(wire)
    except HttpProcessingError as exc:
        raise AssertionError(f"a whole parser refuses it: {exc}") from None


# Heads as they are sent...


CLIENTS = {
    "openai-python": """Host: 127.0.0.1:8080
Accept-Encoding: gzip, deflate, br, zstd
Connection: keep-alive
authorization: Bearer sk-a
accept: application/json
content-type: application/json
user-agent: OpenAI/Python 3.54.0
x-stainless-lang: python
x-stainless-package-version: 3.54.0
x-stainless-os: Linux
x-stainless-arch: x64
x-stainless-runtime: CPython
x-stainless-runtime-version: 3.11.7
x-stainless-async: false
x-stainless-retry-count: 0
x-stainless-read-timeout: 600
Content-Length: 13""",
    "anthropic-python": """Host: 127.0.0.1:8080
Accept-Encoding: gzip, deflate, br, zstd
Connection: keep-alive
x-stainless-timeout: NOT_GIVEN
x-stainless-retry-count: 0
x-stainless-read-timeout: 600
Accept: application/json
Content-Type: application/json
User-Agent: Anthropic/Python 2.12.0
X-Stainless-Lang: python
X-Stainless-Package-Version: 2.12.0
X-Stainless-OS: Linux
X-Stainless-Arch: x64
X-Stainless-Runtime: CPython
X-Stainless-Runtime-Version: 3.11.7
Authorization: Bearer sk-a
X-Stainless-Async: false
anthropic-version: 2023-06-01
Content-Length: 13""",
    "curl": """Host: localhost:8080
User-Agent: curl/7.88.1
Accept: */*
Content-Type: application/json
Authorization: Bearer sk-a
Content-Length: 13""",
    "aiohttp": """Host: 127.0.0.1:8080
Accept: */*
Accept-Encoding: gzip, deflate, br, zstd
User-Agent: Python/3.11 aiohttp/3.14.5
Content-Length: 13
Content-Type: application/json""",
    "fetch-in-node": """host: localhost:8080
connection: keep-alive
content-type: application/json
accept: */*
accept-language: *
sec-fetch-mode: cors
user-agent: node
accept-encoding: gzip, deflate
content-length: 13""",
    "fetch-in-chromium": """Host: localhost:8080
Connection: keep-alive
Content-Length: 13
sec-ch-ua-platform: "Linux"
Authorization: Bearer sk-a
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36
sec-ch-ua: "Chromium";v="142", "Google Chrome";v="142", "Not_A Brand";v="99"
Content-Type: application/json
sec-ch-ua-mobile: ?0
Accept: */*
Origin: https://app.example.org
Sec-Fetch-Site: cross-site
Sec-Fetch-Mode: cors
Sec-Fetch-Dest: empty
Referer: https://app.example.org/
Accept-Encoding: gzip, deflate, br, zstd
Accept-Language: en-US,en;q=0.9,de;q=0.8""",
    "fetch-in-firefox": """Host: localhost:8080
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0
Accept: */*
Accept-Language: en-US,en;q=0.5
Accept-Encoding: gzip, deflate, br, zstd
Referer: https://app.example.org/
Content-Type: application/json
Authorization: Bearer sk-a
Content-Length: 13
Origin: https://app.example.org
Sec-GPC: 1
Connection: keep-alive
Sec-Fetch-Dest: empty
Sec-Fetch-Mode: cors
Sec-Fetch-Site: cross-site
Priority: u=4
Pragma: no-cache
Cache-Control: no-cache""",
    "nginx": """Host: ai.example.org
X-Real-IP: 192.0.2.1
X-Forwarded-For: 192.0.2.1
X-Forwarded-Proto: https
Content-Length: 13
User-Agent: curl/7.88.1
Accept: */*
Content-Type: application/json
Authorization: Bearer sk-a""",
}


@pytest.mark.parametrize("client", CLIENTS)
def test_what_clients_send_is_plain(client):
    head = CLIENTS[client].replace("\n", "\r\n").encode()
    assert assert_read_alike(START + head + b"\r\n\r\n" + BODY)


# Heads known again...


#: Everything that is not kept of a head, and one field that is.
FULL = request(
    b"Authorization: Bearer sk-a\r\n",
    b"X-API-Key: sk-b\r\n",
    b"Cookie: c=d\r\n",
    b"X-A: b\r\n",
)


def known(wire: bytes, limit: int = LIMIT) -> plain.Head:
    """The head of a plain request whose sender has been found, so that it may come again."""
    told = read(wire, limit)
    assert told is not None
    told.remember("judged", "edition")
    return told.head


def with_body(wire: bytes, body: bytes, length: bytes | None = None) -> bytes:
    """The same head before another body, whose ``length`` is told as it is or otherwise."""
    told = read(wire)
    assert told is not None
    head = wire[: len(wire) - len(told.body)]
    before, after = head[: told.head.at], head[told.head.at + len(str(len(told.body))) :]
    return before + (str(len(body)).encode() if length is None else length) + after + body


def kept(told: Plain) -> list[tuple[str, str]]:
    """Its fields without those that are not kept."""
    return [(name, value) for name, value in told.headers.items() if name.lower() not in plain._PASSING]


def assert_known_alike(head: plain.Head, wire: bytes) -> bool:
    """Whether a head is known again; reading it anew must then come to the same."""
    again = head.again(wire, "its connection")
    if again is None:
        return False
    anew = read(wire)
    assert anew is not None
    assert (again.protocol, again.head, again.judged) == ("its connection", head, "judged")
    assert (again.raw_path, again.path, again.body) == (anew.raw_path, anew.path, anew.body)
    assert [*again.headers.items()] == kept(anew)
    return True


@pytest.mark.parametrize("wire", [param.values[0] for param in PLAIN], ids=[param.id for param in PLAIN])
@pytest.mark.parametrize("body", [b"", b"x", b"\r\n\r\n", b"y" * 99, request(), b"z" * 300_000])
def test_a_head_is_known_again_before_any_body(wire, body):
    assert assert_known_alike(known(wire), with_body(wire, body))


@pytest.mark.parametrize("client", CLIENTS)
def test_what_clients_send_again_is_known(client):
    wire = START + CLIENTS[client].replace("\n", "\r\n").encode() + b"\r\n\r\n" + BODY
    assert assert_known_alike(known(wire), with_body(wire, b"another"))


def test_neither_credentials_nor_a_length_are_kept_of_a_head():
    head = known(FULL)
    assert [*head.headers.items()] == [("Host", "localhost"), ("X-A", "b")]
    again = head.again(with_body(FULL, b"another"), None)
    assert again is not None
    assert "Content-Length" not in again.headers
    assert not any(b"sk-" in part for part in (head.digest, str(head).encode()))


def test_one_byte_makes_another_head():
    head, end = known(FULL), len(FULL) - len(BODY)
    assert head.again(FULL, None) is not None
    for at in range(end):
        assert head.again(FULL[:at] + FULL[at + 1 :], None) is None, f"without byte {at}"
        for byte in (b"\0", b"\t", b"\n", b"\r", b" ", b"0", b"1", b":", b"A", b"a", b"\xff"):
            assert head.again(FULL[:at] + byte + FULL[at:], None) is None, f"{byte!r} before byte {at}"
            if byte != FULL[at : at + 1]:
                assert head.again(FULL[:at] + byte + FULL[at + 1 :], None) is None, f"{byte!r} for byte {at}"


@pytest.mark.parametrize(
    "wire",
    [
        *(
            pytest.param(with_body(FULL, b"twelve bytes", length), id=f"a-length-{name}")
            for name, length in {
                "with-a-plus": b"+12",
                "with-a-minus": b"-12",
                "with-a-zero-before": b"012",
                "with-one-space-more": b" 12",
                "with-a-space-after": b"12 ",
                "with-an-underscore": b"1_2",
                "with-a-point": b"12.0",
                "in-hex": b"0xc",
                "of-another-script": "١٢".encode(),
                "twice-in-one": b"12, 12",
                "of-nothing": b"",
                "too-small": b"11",
                "too-large": b"13",
                "beyond-64-bits": b"18446744073709551628",
                "and-one-more-field": b"12\r\nX-C: d",
                "and-the-end-of-the-head": b"12\r\n\r\n",
            }.items()
        ),
        pytest.param(FULL * 2, id="two-requests"),
        pytest.param(FULL + START, id="a-request-and-a-half"),
        pytest.param(FULL[:-1], id="a-body-cut-short"),
        pytest.param(FULL + b"\n", id="a-body-too-long"),
        pytest.param(FULL[: -len(BODY)], id="no-body-yet"),
        pytest.param(FULL[: -len(BODY) - 2], id="no-end-of-the-head"),
        pytest.param(FULL.replace(START, START + LENGTH).replace(LENGTH + b"\r\n", b"\r\n"), id="the-length-elsewhere"),
        pytest.param(FULL.replace(b"Content-Length", b"content-length"), id="the-length-in-another-spelling"),
        pytest.param(FULL.replace(b"sk-a", b"sk-c"), id="another-key"),
        pytest.param(FULL.replace(b"/v1/chat", b"/v2/chat"), id="another-path"),
        pytest.param(FULL.replace(HOST, b"").replace(b"X-A", HOST + b"X-A"), id="fields-in-another-order"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_what_is_not_quite_the_same_head_is_not_known(wire):
    assert known(FULL).again(wire, None) is None


@pytest.mark.parametrize(("size", "again"), [(plain._SHORT, True), (plain._SHORT + 1, False)], ids=["short", "long"])
def test_long_heads_are_not_known_again(size, again):
    least = len(request(b"X-A: \r\n")) - len(BODY)
    wire = request(b"X-A: " + b"b" * (size - least) + b"\r\n")
    head = known(wire)
    assert (bool(head.at), bool(head.digest)) == (again, again)
    assert assert_known_alike(head, wire) is again


@pytest.mark.parametrize(("room", "again"), [(20, True), (19, False), (0, False)])
def test_nor_are_those_that_a_longer_length_would_make_too_large(room, again):
    """The longest length has twenty digits more than none."""
    head = known(FULL, len(FULL) - len(BODY) + room)
    assert (bool(head.at), bool(head.digest)) == (again, again)
    assert assert_known_alike(head, FULL) is again


def test_a_head_of_nothing_is_never_known():
    """Where no digest is kept, not even what it would be the digest of."""
    long = known(request(b"X-A: " + b"b" * 5000 + b"\r\n"))
    for wire in (b"", b"0", b"\r\n\r\n", b"0\r\n\r\n", request()):
        assert long.again(wire, None) is None


@given(spoilt())
@example(request(b"X-A: b\r\n", b"Connection: keep-alive\r\n"))
@thorough
def test_what_was_spoilt_is_known_only_as_what_it_is_read_as(wire):
    assert_known_alike(known(request(b"X-A: b\r\n", b"Connection: keep-alive\r\n")), wire)


@given(spoilt() | requests(), bodies)
@thorough
def test_whatever_is_read_is_known_again(wire, body):
    if read(wire) is not None:
        head, another = known(wire), with_body(wire, body)
        assert assert_known_alike(head, another)
        assert assert_known_alike(known(another), wire)


@given(requests(), requests())
@thorough
def test_a_head_is_not_taken_for_another(one, other):
    if read(one) is not None:
        assert_known_alike(known(one), other)
