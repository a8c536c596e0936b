"""A private authority and what it signs, made by the openssl command."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple

#: Without the system's openssl.cnf, whose extensions would stand beside ours.
CONFIG = "[req]\ndistinguished_name = dn\n[dn]\n"


class Pair(NamedTuple):
    """A certificate and its key, each in a file."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates; ``ca`` is the file of its own."""

    def __init__(self, directory: Path, name: str = "Test CA") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._config = directory / "openssl.cnf"
        self._config.write_text(CONFIG)
        extensions = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign"]
        self.ca, self._key = self._sign(name, directory / "ca", extensions)

    def issue(self, name: str, into: Path | None = None, alternative: str = "IP:127.0.0.1,DNS:localhost") -> Pair:
        """A certificate for ``name``; ``into`` is the files' path without its end, and what is there is replaced."""
        extensions = [f"subjectAltName={alternative}", "keyUsage=critical,digitalSignature"]
        by = ["-CA", self.ca, "-CAkey", self._key]
        return self._sign(name, into or self._directory / name.replace(" ", "-"), extensions, by)

    def server(self, *, asks: Authority | None = None) -> ssl.SSLContext:
        """The server's side of TLS, which ``asks`` for a certificate of this authority's."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue("server"))
        if asks is not None:
            context.load_verify_locations(asks.ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _sign(self, name: str, into: Path, extensions: list[str], by: list[str | Path] | None = None) -> Pair:
        pair = Pair(into.with_suffix(".pem"), into.with_suffix(".key"))
        identifiers = ["subjectKeyIdentifier=hash", *(["authorityKeyIdentifier=keyid"] if by else [])]
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-config", self._config, "-subj", f"/CN={name}", "-days", "2"),
                *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", *(by or [])),
                *("-keyout", pair.key, "-out", pair.certificate),
                *(word for extension in [*extensions, *identifiers] for word in ("-addext", extension)),
            ],
            check=True,
            capture_output=True,
        )
        return pair
