"""Which web pages may read our answers, as values."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_ALLOW_ORIGIN = "Access-Control-Allow-Origin"
_EXPOSE = "Access-Control-Expose-Headers"
_VARY = "Vary"

#: Each by name: a page that sends cookies along may not be told ``*``.  One string, since every answer carries it.
EXPOSED: Final = ", ".join(
    (
        "x-request-id",
        "retry-after",
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
        "x-ratelimit-limit-tokens",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-tokens",
        "x-proxy-model",
        "x-proxy-provider",
        "x-proxy-attempts",
        "server-timing",
    )
)


class Origins:
    """The origins that may read our answers: ``*``, or patterns such as ``https://*.example.org``.

    A ``*`` in the host stands for one or more of a host's characters, dots included; a host that is only ``*``
    takes any port as well, ``:*`` any port and none.  ``null`` (sandboxed frames, files) must be listed.
    Raises ``ValueError`` for what can never be an origin.
    """

    __slots__ = ("_exact", "_wild", "any", "patterns")

    #: The header lines under ``*``, which are the same for everybody.
    lines: Final = f"{_ALLOW_ORIGIN}: *\r\n{_EXPOSE}: {EXPOSED}\r\n"

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(patterns)
        #: Every origin is welcome, and those who send none are told so.
        self.any = "*" in self.patterns
        rest = [_normalised(pattern) for pattern in self.patterns if pattern != "*"]
        self._exact = frozenset(pattern for pattern in rest if "*" not in pattern)
        wild = [_expression(pattern) for pattern in rest if "*" in pattern]
        self._wild = re.compile("|".join(wild), re.IGNORECASE | re.ASCII) if wild else None

    def __repr__(self) -> str:
        return f"Origins({self.patterns!r})"

    def match(self, origin: str) -> bool:
        """Whether a page of this origin may read the answer."""
        if self.any:
            return True
        # Lower case outside of ASCII has surprises: the Kelvin sign's is a plain k.
        if origin.isascii() and origin.lower() in self._exact:
            return True
        return self._wild is not None and self._wild.fullmatch(origin) is not None


_HOST = r"[a-z0-9._~%-]+"
_V6 = r"\[[0-9a-f:.]+\]"
_SHAPE = re.compile(
    rf"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>{_V6}|[a-z0-9._~%*-]*)(?::(?P<port>\*|[0-9]{{1,5}}))?/?",
    re.IGNORECASE | re.ASCII,
)
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def _normalised(pattern: str) -> str:
    """A pattern as browsers write origins: lower case, no slash at the end, no port that the scheme implies."""
    if pattern == "null":
        return pattern
    found = _SHAPE.fullmatch(pattern)
    if found is None:
        raise ValueError(
            f'"{pattern}" is not an origin: scheme://host[:port], with * in host or port, or "*", or "null"'
        )
    scheme, host, port = found["scheme"].lower(), found["host"].lower(), found["port"]
    if port is None or port == _DEFAULT_PORTS.get(scheme):
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{port}"


def _expression(pattern: str) -> str:
    """The regular expression for a normalised pattern that has a ``*``."""
    scheme, _, rest = pattern.partition("://")
    if rest == "*":
        return rf"{re.escape(scheme)}://(?:{_HOST}|{_V6})(?::[0-9]{{1,5}})?"
    # A port star also stands for no port: browsers leave out the one that the scheme implies.
    host, port = (rest[:-2], r"(?::[0-9]{1,5})?") if rest.endswith(":*") else (rest, "")
    wild = rf"(?:{_HOST}|{_V6})" if host.partition(":")[0] == "*" else _HOST
    return re.escape(scheme) + "://" + wild.join(map(re.escape, host.split("*"))) + port


def headers_for(origins: Origins, origin: str | None) -> dict[str, str]:
    """The headers for an answer that the application never sees, such as the parser's own 400."""
    if origins.any:
        return {_ALLOW_ORIGIN: "*", _EXPOSE: EXPOSED}
    if origin is None or not origins.match(origin):
        return {_VARY: "Origin"}
    return {
        _ALLOW_ORIGIN: origin,
        _EXPOSE: EXPOSED,
        _VARY: "Origin",
    }
