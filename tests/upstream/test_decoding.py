"""Encodings that nobody asked for, undone piece by piece."""

from __future__ import annotations

import gzip
import zlib
from random import Random

import pytest

from proxy.errors import UpstreamError
from proxy.upstream.decoding import _PIECE, BodyDecoder, body_decoder

TEXT = Random(1).randbytes(300).hex().encode() + b"a" * 3000


def raw_deflate(data: bytes) -> bytes:
    squeeze = zlib.compressobj(wbits=-15)
    return squeeze.compress(data) + squeeze.flush()


def finished(decoder: BodyDecoder, wire: bytes) -> bytes:
    """All that comes out, to a good end."""
    out = b"".join(decoder.feed(wire))
    decoder.end()
    return out


CODINGS = [
    pytest.param("gzip", gzip.compress, id="gzip"),
    pytest.param(" X-GZip ", gzip.compress, id="x-gzip"),
    pytest.param("gzip", lambda data: gzip.compress(data[:50]) + gzip.compress(data[50:]), id="gzip-in-members"),
    pytest.param("deflate", zlib.compress, id="deflate"),
    pytest.param("deflate", raw_deflate, id="raw-deflate"),
]


@pytest.mark.parametrize(("coding", "squeeze"), CODINGS)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_what_was_squeezed_comes_out_however_it_is_cut(coding, squeeze, size):
    decoder = body_decoder(coding)
    assert decoder is not None
    wire = squeeze(TEXT)
    out = b"".join(piece for at in range(0, len(wire), size) for piece in decoder.feed(wire[at : at + size]))
    assert out == TEXT
    decoder.end()


@pytest.mark.parametrize(("coding", "squeeze"), CODINGS)
def test_what_was_cut_is_told_at_the_end(coding, squeeze):
    decoder = body_decoder(coding)
    assert decoder is not None
    assert TEXT.startswith(b"".join(decoder.feed(squeeze(TEXT)[:-6])))
    with pytest.raises(UpstreamError, match="answer was cut"):
        decoder.end()


@pytest.mark.parametrize(("coding", "squeeze"), CODINGS[:4])
def test_what_is_broken_is_told_at_once(coding, squeeze):
    decoder = body_decoder(coding)
    assert decoder is not None
    wire = bytearray(squeeze(TEXT))
    wire[len(wire) // 2] ^= 0xFF
    with pytest.raises(UpstreamError, match=r"is broken|was cut"):
        finished(decoder, bytes(wire))


@pytest.mark.parametrize("coding", ["", "identity", " Identity "])
def test_nothing_is_done_to_what_is_plain(coding):
    assert body_decoder(coding) is None


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "x" * 500])
def test_what_is_not_known_is_named(coding):
    with pytest.raises(UpstreamError, match=coding[:40]) as caught:
        body_decoder(coding)
    assert len(caught.value.message) < 150


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_few_bytes_that_stand_for_many_come_in_pieces(coding):
    decoder, size = body_decoder(coding), 20 * _PIECE
    assert decoder is not None
    wire = (gzip.compress if coding == "gzip" else zlib.compress)(bytes(size))
    assert len(wire) < _PIECE / 10
    pieces = [len(piece) for piece in decoder.feed(wire)]
    assert sum(pieces) == size
    assert max(pieces) <= _PIECE
    decoder.end()


def test_each_flushed_piece_comes_out_at_once():
    squeeze, decoder = zlib.compressobj(wbits=31), body_decoder("gzip")
    assert decoder is not None
    for text in (b"data: 1\n\n", b"data: 2\n\n", b"x" * _PIECE, b"y" * (2 * _PIECE)):
        wire = squeeze.compress(text) + squeeze.flush(zlib.Z_SYNC_FLUSH)
        assert b"".join(decoder.feed(wire)) == text
    assert b"".join(decoder.feed(squeeze.flush())) == b""
    decoder.end()


def test_what_follows_a_deflated_body_belongs_to_nothing():
    decoder = body_decoder("deflate")
    assert decoder is not None
    assert b"".join(decoder.feed(zlib.compress(b"a") + b"junk")) == b"a"
    decoder.end()
