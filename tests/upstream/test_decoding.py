"""Encodings that nobody asked for, undone piece by piece."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import subprocess
import sys
import zlib
from random import Random
from typing import get_args

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import UpstreamError
from proxy.upstream.decoding import _BARREN, _EMPTIES, _PIECE, BodyDecoder, body_decoder
from tests.codings import Coding, packer, zstd
from tests.properties import thorough

TEXT = Random(1).randbytes(300).hex().encode() + b"a" * 3000


def raw_deflate(data: bytes) -> bytes:
    squeeze = zlib.compressobj(wbits=-15)
    return squeeze.compress(data) + squeeze.flush()


def skippable(data: bytes) -> bytes:
    """A frame that says nothing (RFC 8878, 3.1.2)."""
    return b"\x5a\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data


def checked(data: bytes) -> bytes:
    """A frame that ends in a checksum."""
    return zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1})


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
    pytest.param("zstd", checked, id="zstd"),
    pytest.param("zstd", lambda data: checked(data[:50]) + skippable(b"?") + checked(data[50:]), id="zstd-in-frames"),
    pytest.param("gzip, zstd", lambda data: checked(gzip.compress(data)), id="gzip-in-zstd"),
    pytest.param("br, GZIP", lambda data: gzip.compress(brotli.compress(data)), id="br-in-gzip"),
    pytest.param("deflate", raw_deflate, id="raw-deflate"),
    pytest.param("br", brotli.compress, id="br"),
    pytest.param("gzip,identity, br", lambda data: brotli.compress(gzip.compress(data)), id="gzip-in-br"),
]
#: Those whose end has a checksum.
CHECKED = CODINGS[:8]


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
    wire = squeeze(TEXT)
    for left in (1, 6, len(wire) // 2, len(wire) - 1):
        decoder = body_decoder(coding)
        assert decoder is not None
        assert TEXT.startswith(b"".join(decoder.feed(wire[:-left])))
        with pytest.raises(UpstreamError, match="answer was cut"):
            decoder.end()


def test_what_was_cut_before_it_was_packed_again_is_told():
    decoder = body_decoder("gzip, br")
    assert decoder is not None
    assert b"".join(decoder.feed(brotli.compress(gzip.compress(TEXT)[:-1]))) == TEXT
    with pytest.raises(UpstreamError, match="gzip answer was cut"):
        decoder.end()


@pytest.mark.parametrize(("coding", "squeeze"), CHECKED)
def test_what_is_broken_is_told_at_once(coding, squeeze):
    decoder = body_decoder(coding)
    assert decoder is not None
    wire = bytearray(squeeze(TEXT))
    wire[len(wire) // 2] ^= 0xFF
    with pytest.raises(UpstreamError, match=r"is broken|was cut"):
        finished(decoder, bytes(wire))


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, br"])
@thorough
@given(wire=st.binary(max_size=200), cut=st.integers(0, 200))
def test_any_bytes_are_decoded_or_refused(coding, wire, cut):
    for junk in (wire, gzip.compress(wire) + wire, brotli.compress(wire)[:-1] + wire, checked(wire) + wire):
        decoder = body_decoder(coding)
        assert decoder is not None
        with contextlib.suppress(UpstreamError):
            for part in filter(None, (junk[:cut], junk[cut:])):
                list(decoder.feed(part))
            decoder.end()


@pytest.mark.parametrize("coding", ["", "identity", " Identity ", ",", "identity, identity"])
def test_nothing_is_done_to_what_is_plain(coding):
    assert body_decoder(coding) is None


@pytest.mark.parametrize(
    ("coding", "named"),
    [("compress", "compress"), ("gzip, aes128gcm", "aes128gcm"), ("gzip;q=1", "gzip;q=1"), ("x" * 500, "x" * 40)],
)
def test_what_is_not_known_is_named(coding, named):
    with pytest.raises(UpstreamError, match=f"'{named}'") as caught:
        body_decoder(coding)
    assert len(caught.value.message) < 150


def test_nobody_packs_an_answer_that_often():
    with pytest.raises(UpstreamError, match="encoded 4 times over"):
        body_decoder("gzip, gzip, gzip, gzip")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, br"])
def test_a_body_without_a_byte_is_whole(coding):
    """Refusals often have the header and no body."""
    decoder = body_decoder(coding)
    assert decoder is not None
    decoder.end()


@pytest.mark.parametrize(
    ("coding", "squeeze"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("br", brotli.compress),
        ("zstd", zstd.compress),
        ("gzip, br", lambda data: brotli.compress(gzip.compress(data))),
    ],
)
def test_a_few_bytes_that_stand_for_many_come_in_pieces(coding, squeeze):
    decoder, size = body_decoder(coding), 20 * _PIECE
    assert decoder is not None
    wire = squeeze(bytes(size))
    assert len(wire) < _PIECE / 10
    pieces = [len(piece) for piece in decoder.feed(wire)]
    assert sum(pieces) == size
    assert max(pieces) <= _PIECE
    decoder.end()


@pytest.mark.parametrize("coding", get_args(Coding))
def test_each_flushed_piece_comes_out_at_once(coding):
    decoder = body_decoder(coding)
    assert decoder is not None
    pack, flush, finish = packer(coding)
    for text in (b"data: 1\n\n", b"data: 2\n\n", b"x" * _PIECE, b"y" * (2 * _PIECE)):
        wire = pack(text) + flush()
        assert b"".join(decoder.feed(wire)) == text
    assert b"".join(decoder.feed(finish())) == b""
    decoder.end()


def test_what_follows_a_deflated_body_belongs_to_nothing():
    decoder = body_decoder("deflate")
    assert decoder is not None
    assert b"".join(decoder.feed(zlib.compress(b"a") + b"junk")) == b"a"
    decoder.end()


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize(
    ("coding", "squeeze"), [("gzip", gzip.compress), ("br", brotli.compress), ("zstd", zstd.compress)]
)
def test_what_follows_another_body_and_is_none_is_told(coding, squeeze, cut):
    decoder = body_decoder(coding)
    assert decoder is not None
    told = [squeeze(b"a"), b"junk"] if cut else [squeeze(b"a") + b"junk"]
    with pytest.raises(UpstreamError, match=f"broken {coding}"):
        list(itertools.chain.from_iterable(map(decoder.feed, told)))


# What it may cost...


@pytest.mark.parametrize(("window", "good"), [(23, True), (24, False)])
def test_zstd_s_window_is_no_larger_than_http_s(window, good):
    decoder = body_decoder("zstd")
    assert decoder is not None
    squeeze = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: window})
    wire = squeeze.compress(TEXT) + squeeze.flush(squeeze.FLUSH_BLOCK) + squeeze.flush()
    if good:
        assert finished(decoder, wire) == TEXT
    else:
        with pytest.raises(UpstreamError, match="broken zstd"):
            finished(decoder, wire)


@pytest.mark.parametrize("empty", [zstd.compress(b""), skippable(b"")], ids=["empty", "skippable"])
def test_frames_of_zstd_that_hold_nothing_are_numbered(empty):
    wire = empty * (_EMPTIES - 1) + zstd.compress(b"a")
    for decoder in (body_decoder("zstd"), body_decoder("zstd")):
        assert decoder is not None
        assert finished(decoder, wire + wire) == b"aa"
        with pytest.raises(UpstreamError, match="broken zstd"):
            list(decoder.feed(empty * (_EMPTIES + 1)))


def test_a_coding_that_unpacks_to_nothing_is_left():
    """Empty blocks, packed again: nobody could pause what has no output."""
    squeeze = zlib.compressobj(wbits=31)
    start = squeeze.compress(b"a") + squeeze.flush(zlib.Z_SYNC_FLUSH)
    nothing = b"\x00\x00\x00\xff\xff"
    for size, good in ((_BARREN // 2, True), (2 * _BARREN, False)):
        decoder = body_decoder("gzip, br")
        assert decoder is not None
        pieces = decoder.feed(brotli.compress(start + nothing * (size // 5), quality=1))
        assert next(pieces) == b"a"
        if good:
            assert list(pieces) == []
        else:
            with pytest.raises(UpstreamError, match="nothing inside"):
                list(pieces)


def test_a_large_body_may_be_packed_twice():
    decoder, body = body_decoder("gzip, zstd"), Random(2).randbytes(_BARREN + _PIECE)
    assert decoder is not None
    assert finished(decoder, zstd.compress(gzip.compress(body, 1), 1)) == body


def test_libraries_are_loaded_when_such_an_answer_comes():
    script = (
        "import sys, proxy.upstream\n"
        "from proxy.upstream.decoding import body_decoder\n"
        "def loaded(): return sorted({'brotli', 'backports.zstd', 'compression.zstd'} & set(sys.modules))\n"
        "body_decoder('gzip'); print(len(loaded())); body_decoder('br, zstd'); print(len(loaded()))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, timeout=60, text=True)
    assert (run.stdout, run.stderr) == ("0\n2\n", "")
