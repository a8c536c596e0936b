"""Bodies are undone piece by piece, never further than the limit, and have as long as they come fast enough."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from proxy.errors import InvalidRequest, PayloadTooLarge
from proxy.middleware.body import _Inflate
from tests.functional import KEY, authorized, chat_body

TEXT = b"abc" * 1000


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("coding", "data"),
    [
        pytest.param("gzip", gzip.compress(TEXT), id="gzip"),
        pytest.param("x-gzip", gzip.compress(TEXT[:7]) + gzip.compress(b"") + gzip.compress(TEXT[7:]), id="members"),
        pytest.param("deflate", zlib.compress(TEXT), id="zlib"),
        pytest.param("deflate", raw_deflate(TEXT), id="raw-deflate"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 10, 10_000])
def test_what_was_packed_comes_out_wherever_it_is_cut(coding, data, size):
    inflate = _Inflate(coding, len(TEXT))
    assert b"".join(inflate.feed(data[at : at + size]) for at in range(0, len(data), size)) == TEXT
    inflate.end()


def test_nothing_is_nothing():
    inflate = _Inflate("gzip", 10)
    assert inflate.feed(b"") == b""
    inflate.end()


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("data", [b"nonsense", b"\x1f\x8b\xff", b"\x78\xff\xff"])
def test_what_was_not_packed_is_the_clients_mistake(coding, data):
    with pytest.raises(InvalidRequest, match="not what its Content-Encoding says"):
        _Inflate(coding, 100).feed(data + b"x" * 50)


@pytest.mark.parametrize("left", [1, 5, 8, 20])
def test_an_end_that_is_missing_is_noticed(left):
    inflate = _Inflate("gzip", len(TEXT))
    inflate.feed(gzip.compress(TEXT)[:-left])
    with pytest.raises(InvalidRequest):
        inflate.end()


@pytest.mark.parametrize(("limit", "fits"), [(len(TEXT), True), (len(TEXT) - 1, False), (1, False)])
def test_the_limit_is_of_what_comes_out(limit, fits):
    inflate = _Inflate("gzip", limit)
    if fits:
        assert inflate.feed(gzip.compress(TEXT)) == TEXT
        return
    with pytest.raises(PayloadTooLarge):
        inflate.feed(gzip.compress(TEXT))


def test_a_bomb_never_gets_larger_than_the_limit(monkeypatch):
    """What zlib is asked for is counted, not what would come out."""
    asked = []
    make = zlib.decompressobj

    class Watched:
        def __init__(self, window):
            self._inner = make(window)

        def decompress(self, data, most):
            asked.append(most)
            return self._inner.decompress(data, most)

        def __getattr__(self, name):
            return getattr(self._inner, name)

    bomb = gzip.compress(b"x" * 10_000_000)
    monkeypatch.setattr("proxy.middleware.body.zlib.decompressobj", Watched)
    with pytest.raises(PayloadTooLarge):
        _Inflate("gzip", 1000).feed(bomb)
    assert asked == [1001]


async def test_a_body_has_more_time_the_more_of_it_has_come(upstream, gateway):
    gw = await gateway(timeouts={"client": 0.2})
    body = json.dumps(chat_body("x" * 100_000)).encode()
    head = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    large, small = await gw.connect(), await gw.connect()
    await large.request("POST", "/v1/chat/completions", headers=authorized(KEY, head))
    await large.send(body[:-1])  # worth some six seconds
    await small.request("POST", "/v1/chat/completions", headers=authorized(KEY, head))
    await small.send(body[:10])
    assert (await small.answer()).status == 504  # so the clock itself has run out for both
    await large.send(body[-1:])
    assert (await large.answer()).status == 200
