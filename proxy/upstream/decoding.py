"""Bodies that come compressed although `identity` was asked for, decoded as they come."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Protocol

from proxy.errors import UpstreamError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE = 1 << 18  # a few bytes can decompress to gigabytes: they are handed on in pieces


class BodyDecoder(Protocol):
    """Undoes one content coding."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decode the next bytes.  Raises ``UpstreamError``."""

    def end(self) -> None:
        """The body is over.  Raises ``UpstreamError`` where the coding is not."""


def body_decoder(coding: str) -> BodyDecoder | None:
    """Find the decoder for a `Content-Encoding`; None for identity.  Raises ``UpstreamError``."""
    match coding.strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip":
            return _Zlib("gzip", zlib.MAX_WBITS | 16)
        case "deflate":
            return _Deflate()
        case other:
            raise UpstreamError(f"the provider's answer is encoded as {other[:40]!r}; identity was asked for")


class _Zlib:
    def __init__(self, name: str, wbits: int) -> None:
        self._name = name
        self._wbits = wbits
        self._inflate = zlib.decompressobj(wbits)

    def feed(self, data: bytes) -> Iterator[bytes]:
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
            raise UpstreamError(f"the provider's answer is broken {self._name}") from None

    def end(self) -> None:
        if not self._inflate.eof:
            raise UpstreamError(f"the provider's {self._name} answer was cut")


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
