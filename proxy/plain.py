"""Requests as they nearly always come: a POST with all of its head and body in one read, and nothing odd.

What is read here is a strict subset of HTTP/1.1 (https://www.rfc-editor.org/rfc/rfc9112).  Whatever lies
outside of it, or might be read in two ways, is left to a whole parser.
"""

from __future__ import annotations

import re
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
_MOST = 100  # fields; a parser stops at 128


class Plain(Struct, eq=False):
    """Such a request, with as much of the face of aiohttp's as an exchange looks at."""

    #: The connection that it came on.
    protocol: Any
    raw_path: str
    headers: CIMultiDict[str]
    body: bytes

    method = "POST"
    version = HttpVersion11
    keep_alive = True

    @property
    def path(self) -> str:
        """As it was asked for; what is percent-encoded is no path of an exchange."""
        return self.raw_path


def read(data: bytes, protocol: Any, max_head: int) -> Plain | None:
    """Read a request that has come whole; None where it is not plain, or a head of more than ``max_head`` bytes."""
    found = _HEAD.match(data)
    if found is None or found.end() > max_head:
        return None
    fields = _FIELD.findall(found[2].decode("ascii"))
    names = {name.lower() for name, _ in fields}
    headers = CIMultiDict(fields)
    if (
        len(names) != len(fields)  # nothing is said twice
        or len(names) > _MOST
        or "host" not in names
        or not names.isdisjoint(_ODD)
        or headers.get("Content-Length") != str(len(data) - found.end())  # not all there, or followed by another
        or headers.get("Connection", "keep-alive").lower() != "keep-alive"
    ):
        return None
    return Plain(protocol, found[1].decode("ascii"), headers, data[found.end() :])
