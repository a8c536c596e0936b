"""A pool for each test, which must be able to close in the middle of everything."""

from __future__ import annotations

import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest

from proxy.upstream import Upstream as Pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.functional.upstream import Upstream


@pytest.fixture
async def pool(upstream: Upstream) -> AsyncIterator[Pool]:
    made = Pool()
    yield made
    await made.close()
    await upstream.quiet()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 and provider.example, with its key."""
    path = tmp_path_factory.mktemp("tls") / "pair.pem"
    told = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1,DNS:provider.example", "-days", "2"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", path, "-out", f"{path}.crt", *told],
        check=True,
        capture_output=True,
    )
    path.write_bytes(path.read_bytes() + path.with_name(path.name + ".crt").read_bytes())
    return path


@pytest.fixture
def server_side(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context
