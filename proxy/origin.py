"""Where a provider listens, as a value."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import ssl


class TLS(NamedTuple):
    """Paths of PEM files; "" for the system's certificates, and for no client certificate.

    ``seal`` stands for what is in them: files that were renewed make another origin, with connections of its own.
    """

    ca: str = ""
    certificate: str = ""
    key: str = ""
    seal: str = ""

    def context(self) -> ssl.SSLContext:
        """Read the files, for connections to come.  Raises ``OSError``, of which ``ssl.SSLError`` is one."""
        import ssl  # a value needs no sockets

        context = ssl.create_default_context(cafile=self.ca or None)
        if self.ca:
            # What is named is believed, a server's own certificate too.  Python 3.13 does so by itself.
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if self.certificate:
            context.load_cert_chain(self.certificate, self.key or None, password=_ask_nobody)
        return context


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


def _ask_nobody() -> str:
    # OpenSSL would ask the terminal, and wait.
    raise OSError(errno.EACCES, "the key is encrypted")
