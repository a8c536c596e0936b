"""Content codings from the sending side, all with one face."""

from __future__ import annotations

import sys
import zlib
from typing import TYPE_CHECKING, Literal, NamedTuple

import brotli

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Callable

Coding = Literal["gzip", "deflate", "br", "zstd"]


class Packer(NamedTuple):
    """What is packed may stay inside until it is flushed; ``finish`` ends the whole."""

    pack: Callable[[bytes], bytes]
    flush: Callable[[], bytes]
    finish: Callable[[], bytes]


def packer(coding: Coding) -> Packer:
    match coding:
        case "gzip" | "deflate":
            inner = zlib.compressobj(wbits=31 if coding == "gzip" else 15)
            return Packer(inner.compress, lambda: inner.flush(zlib.Z_SYNC_FLUSH), inner.flush)
        case "br":
            google = brotli.Compressor(quality=5)
            return Packer(google.process, google.flush, google.finish)
        case "zstd":
            facebook = zstd.ZstdCompressor()
            return Packer(facebook.compress, lambda: facebook.flush(facebook.FLUSH_BLOCK), facebook.flush)


__all__ = ["Coding", "Packer", "packer", "zstd"]
