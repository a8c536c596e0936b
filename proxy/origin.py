"""Where a provider listens, as a value."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit


class TLS(NamedTuple):
    """Paths of PEM files; "" for the system's certificates, and for no client certificate."""

    ca: str = ""
    certificate: str = ""
    key: str = ""


class Origin(NamedTuple):
    """Scheme, host and port, and how the other side is to be believed."""

    secure: bool
    host: str
    port: int
    tls: TLS = TLS()

    @classmethod
    def of(cls, url: str, tls: TLS = TLS()) -> Origin:
        """Read the origin of an absolute URL."""
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        return cls(secure, parts.hostname or "", parts.port or (443 if secure else 80), tls)
