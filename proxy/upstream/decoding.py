"""Bodies that come compressed although `identity` was asked for, decoded as they come."""

from __future__ import annotations

import sys
import zlib
from typing import TYPE_CHECKING, Protocol

from proxy.errors import UpstreamError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE = 1 << 18  # a few bytes can decompress to gigabytes: they are handed on in pieces
_BROTLI = 1 << 16  # its limit is one of blocks, which double: up to twice as much comes
_WINDOW = 23  # log2 of 8 MiB, the largest window in HTTP (RFC 9659); zstd itself would take 128 MiB from us
_EMPTIES = 1000  # frames without content, in a row: each costs 30 µs and could take 9 bytes
_STACK = 3  # codings upon each other
_BARREN = 4 << 20  # bytes of one coding in which the next finds nothing


class BodyDecoder(Protocol):
    """Undoes one content coding."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decode the next bytes.  Raises ``UpstreamError``."""

    def end(self) -> None:
        """The body is over.  Raises ``UpstreamError`` where the coding is not."""


def body_decoder(coding: str) -> BodyDecoder | None:
    """Find the decoder for a `Content-Encoding`; None for identity.  Raises ``UpstreamError``."""
    if not coding:
        return None
    names = [name for word in coding.split(",") if (name := word.strip().lower()) not in {"", "identity"}]
    if len(names) > _STACK:
        raise UpstreamError(f"the provider's answer is encoded {len(names)} times over; identity was asked for")
    decoder: BodyDecoder | None = None
    for name in reversed(names):  # they stand in the order in which they were applied
        one = _decoder(name)
        decoder = one if decoder is None else _Stacked(decoder, one)
    return decoder


def _decoder(name: str) -> BodyDecoder:
    match name:
        case "gzip" | "x-gzip":
            return _Zlib("gzip", zlib.MAX_WBITS | 16)
        case "deflate":
            return _Deflate()
        case "br":
            return _Brotli()
        case "zstd":
            return _Zstd()
        case _:
            raise UpstreamError(f"the provider's answer is encoded as {name[:40]!r}; identity was asked for")


# One coding.  A body without a single byte is none that was cut: servers put the header on those, too...


class _Zlib:
    def __init__(self, name: str, wbits: int) -> None:
        self._name = name
        self._wbits = wbits
        self._inflate = zlib.decompressobj(wbits)
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._begun = True
        try:
            while data:
                if self._inflate.eof:
                    if self._name != "gzip":
                        return  # what follows belongs to nothing
                    self._inflate = zlib.decompressobj(self._wbits)  # gzip's members follow one another
                if piece := self._inflate.decompress(data, _PIECE):
                    yield piece
                data = self._inflate.unconsumed_tail or self._inflate.unused_data
        except zlib.error:
            raise _broken(self._name) from None

    def end(self) -> None:
        if self._begun and not self._inflate.eof:
            raise _cut(self._name)


class _Deflate:
    """RFC 9110 means zlib's framing; some servers send raw deflate.  The first byte tells."""

    def __init__(self) -> None:
        self._inner: _Zlib | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._inner is None and data:
            self._inner = _Zlib("deflate", zlib.MAX_WBITS if data[0] & 0x0F == 8 else -zlib.MAX_WBITS)
        if self._inner is not None:
            yield from self._inner.feed(data)

    def end(self) -> None:
        if self._inner is not None:
            self._inner.end()


class _Brotli:
    """RFC 7932.  Nothing may follow its one stream."""

    def __init__(self) -> None:
        import brotli  # only an answer in it pays for the import

        self._error: type[Exception] = brotli.error
        self._unpack = brotli.Decompressor()
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._begun = True
        try:
            # It may have taken all input and still have output to give; that there is none left shows in an empty one.
            while piece := self._unpack.process(data, output_buffer_limit=_BROTLI):
                yield piece
                data = b""
        except self._error:
            raise _broken("br") from None

    def end(self) -> None:
        if self._begun and not self._unpack.is_finished():
            raise _cut("br")


class _Zstd:
    """RFC 8878.  Frames follow one another; some hold nothing, or what is to be skipped."""

    def __init__(self) -> None:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd

        def fresh() -> zstd.ZstdDecompressor:
            return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW})

        self._error = zstd.ZstdError
        self._fresh = fresh
        self._frame = fresh()
        self._begun = False
        self._empties = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._begun = True
        try:
            while data or not (self._frame.eof or self._frame.needs_input):
                if self._frame.eof:
                    self._empties += 1
                    if self._empties > _EMPTIES:
                        raise _broken("zstd")
                    self._frame = self._fresh()
                if piece := self._frame.decompress(data, _PIECE):
                    self._empties = 0
                    yield piece
                data = self._frame.unused_data
        except self._error:
            raise _broken("zstd") from None

    def end(self) -> None:
        if self._begun and not self._frame.eof:
            raise _cut("zstd")


# Several...


class _Stacked:
    """What ``outer`` unpacks is still packed, for ``inner``."""

    def __init__(self, outer: BodyDecoder, inner: BodyDecoder) -> None:
        self._outer = outer
        self._inner = inner
        self._barren = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        for packed in self._outer.feed(data):
            self._barren += len(packed)
            for piece in self._inner.feed(packed):
                self._barren = 0
                yield piece
            if self._barren > _BARREN:  # nobody could pause what has no output
                raise UpstreamError("the provider's answer is packed twice, with nothing inside")

    def end(self) -> None:
        self._outer.end()
        self._inner.end()


def _broken(name: str) -> UpstreamError:
    return UpstreamError(f"the provider's answer is broken {name}")


def _cut(name: str) -> UpstreamError:
    return UpstreamError(f"the provider's {name} answer was cut")
