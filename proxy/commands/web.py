"""One HTTP session for commands: no redirects, no cookies, and failures told in one line."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from proxy.commands import Failure
from proxy.settings.loading import is_loopback

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CONNECT = 10.0  # seconds


def session() -> aiohttp.ClientSession:
    # Not trust_env: it would send passwords from ~/.netrc, too.
    return aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT),
        headers={"User-Agent": "ai-proxy"},
    )


@asynccontextmanager
async def asked(
    client: aiohttp.ClientSession, method: str, url: str, *, hint: str = "", **more: Any
) -> AsyncIterator[aiohttp.ClientResponse]:
    """The answer to a request, whatever its status; what goes wrong on the way, or while it is read, is a ``Failure``.

    ``hint`` ends the sentence for those who find nobody at the address.
    """
    where = urlsplit(url).netloc
    try:
        async with client.request(method, url, allow_redirects=False, proxy=proxy_for(url), **more) as response:
            yield response
    except aiohttp.ClientConnectorCertificateError as exc:
        reason = getattr(exc.certificate_error, "verify_message", "") or "it is not valid"
        raise Failure(f"the certificate of {where} cannot be trusted: {reason}") from None
    except aiohttp.ClientConnectorSSLError:
        raise Failure(f"cannot speak TLS with {where}; is it http://?") from None
    except aiohttp.ClientConnectorError as exc:
        raise Failure(f"cannot reach {where}: {_reason(exc)}{hint}") from None
    except TimeoutError:
        raise Failure(f"{where} did not answer in time") from None
    except aiohttp.ServerDisconnectedError:
        raise Failure(f"{where} closed the connection without an answer") from None
    except aiohttp.ClientPayloadError:
        raise Failure(f"the connection to {where} broke inside the answer") from None
    except aiohttp.ClientError as exc:
        raise Failure(f"the connection to {where} broke: {type(exc).__name__}") from None


def _reason(exc: aiohttp.ClientConnectorError) -> str:
    error = exc.os_error
    if error.errno and error.errno > 0:
        return os.strerror(error.errno).lower()  # what asyncio says names its own functions
    return (error.strerror or str(error) or type(error).__name__).lower()


def proxy_for(url: str) -> str | None:
    """The proxy that the environment names for this address; this machine is never behind one."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or proxy_bypass(host):
        return None
    return getproxies().get(parts.scheme)


def status_line(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
