"""Requests as they nearly always come: a POST with all of its head and body in one read, and nothing odd.

What is read here is a strict subset of HTTP/1.1 (https://www.rfc-editor.org/rfc/rfc9112).  Whatever lies
outside of it, or might be read in two ways, is left to a whole parser.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any

from aiohttp import HttpVersion11
from msgspec import Struct
from multidict import CIMultiDict

_HEAD = re.compile(rb"POST (/[!-~]*) HTTP/1\.1\r\n((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~]*(?<![\t ])\r\n)+)\r\n")
_FIELD = re.compile(r"([^:]+):[\t ]*([^\r]*)\r\n")
#: Fields that say more of a message than that it has a length.
_ODD = frozenset(
    (
        "transfer-encoding",
        "content-encoding",
        "expect",
        "upgrade",
        "trailer",
        "proxy-connection",
        "sec-websocket-key1",  # refused by aiohttp's parser
    )
)
#: Fields that say who asks, in the order in which they are believed.
CREDENTIALS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
#: Fields that are not kept: secrets, and what each request says anew.
_PASSING = (*CREDENTIALS, "cookie", "proxy-authorization", "content-length")
_LENGTH = re.compile(rb"\r\ncontent-length:[\t ]*", re.IGNORECASE)
_MOST = 100  # fields; a parser stops at 128
#: A longer head is read anew each time.
_SHORT = 4096
_DIGITS = 20  # of a length, at most


class Head(Struct, eq=False):
    """A head that has been read.  Clients say the same with every request on a connection, but for the length.

    Known again by its digest, so that no credential stays in memory.
    """

    path: str
    headers: CIMultiDict[str]
    #: Where the length's value stands; 0 where it is not to be known again.
    at: int
    digest: bytes
    #: What was made of it, and what that holds for.
    judged: Any = None
    edition: object = None

    def again(self, data: bytes, protocol: Any) -> Plain | None:
        """Read a request with the same head; None where that is not it, or its length is not the body's."""
        at = self.at
        stop, end = data.find(b"\r\n", at), data.find(b"\r\n\r\n", at) + 4
        if (
            not at
            or data[at:stop] != str(len(data) - end).encode()
            or sha256(data[:at] + data[stop:end]).digest() != self.digest
        ):
            return None
        return Plain(protocol, self, data[end:])


class Plain(Struct, eq=False):
    """Such a request, with as much of the face of aiohttp's as an exchange looks at."""

    #: The connection that it came on.
    protocol: Any
    head: Head
    body: bytes

    method = "POST"
    version = HttpVersion11
    keep_alive = True

    @property
    def raw_path(self) -> str:
        """As it was asked for; what is percent-encoded is no path of an exchange."""
        return self.head.path

    path = raw_path  # there is nothing in it to decode

    @property
    def headers(self) -> CIMultiDict[str]:
        """Without credentials and length, once it is known whose they are."""
        return self.head.headers

    @property
    def judged(self) -> Any:
        """What was made of the same head before."""
        return self.head.judged

    def remember(self, judged: object, edition: object) -> None:
        """Say what was made of this head, and what that holds for; what only this request says is forgotten."""
        head = self.head
        head.judged, head.edition = judged, edition
        for name in _PASSING:
            head.headers.popall(name, None)


def read(data: bytes, protocol: Any, max_head: int) -> Plain | None:
    """Read a request that has come whole; None where it is not plain, or a head of more than ``max_head`` bytes."""
    found = _HEAD.match(data)
    if found is None or found.end() > max_head:
        return None
    fields = _FIELD.findall(found[2].decode("ascii"))
    names = {name.lower() for name, _ in fields}
    headers = CIMultiDict(fields)
    length = str(len(data) - found.end())
    if (
        len(names) != len(fields)  # nothing is said twice
        or len(names) > _MOST
        or "host" not in names
        or not names.isdisjoint(_ODD)
        or headers.get("Content-Length") != length  # not all there, or followed by another
        or headers.get("Connection", "keep-alive").lower() != "keep-alive"
    ):
        return None
    end = found.end()
    at, digest = 0, b""
    if end <= min(_SHORT, max_head - _DIGITS) and (told := _LENGTH.search(data, 0, end)) is not None:
        at = told.end()
        digest = sha256(data[:at] + data[at + len(length) : end]).digest()
    return Plain(protocol, Head(found[1].decode("ascii"), headers, at, digest), data[end:])
