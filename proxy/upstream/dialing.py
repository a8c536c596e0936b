"""Reaching a provider: names to addresses, proxies on the way, TLS at the end.

`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` are honoured as curl does (lower case wins;
`HTTP_PROXY` in capitals too, since no request of a client sets our environment).  Loopback never uses a proxy.
"""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import ssl
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

from aiohappyeyeballs import start_connection

from proxy.errors import UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from proxy.origin import TLS, Origin
    from proxy.upstream.connection import Connection

#: Seconds before the next address is tried beside the last: RFC 8305, section 8.
_EYEBALLS = 0.25
_MAX_REPLY = 16 * 1024  # bytes of a proxy's answer to CONNECT


class Proxy(NamedTuple):
    """An HTTP proxy; ``authorization`` is the value of its header, or ""."""

    host: str
    port: int
    authorization: str


class Proxies:
    """Which proxy an origin is reached through, as the environment says."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        def given(name: str) -> str:
            return environ.get(name) or environ.get(name.upper()) or ""

        self._plain = given("http_proxy") or given("all_proxy")
        self._secure = given("https_proxy") or given("all_proxy")
        self._direct = tuple(rule.strip().lower() for rule in given("no_proxy").split(",") if rule.strip())

    def find(self, origin: Origin) -> Proxy | None:
        """The proxy for an origin; None to go there directly.  Raises ``UpstreamError`` for one of another kind."""
        url = self._secure if origin.secure else self._plain
        if not url or is_loopback(origin.host) or any(_covers(rule, origin) for rule in self._direct):
            return None
        return _proxy(url)


class Dialer:
    """Makes connections.  Contexts for TLS are made once for each set of files."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._proxies = Proxies(environ)
        self._contexts: dict[TLS, ssl.SSLContext] = {}

    async def dial(self, origin: Origin, factory: Callable[[], Connection]) -> Connection:
        """Connect to ``origin``.  Raises ``OSError``, ``ssl.SSLError``, ``UpstreamError``; knows no clock."""
        loop = asyncio.get_running_loop()
        proxy = self._proxies.find(origin)
        sock = await _reach(proxy.host, proxy.port) if proxy else await _reach(origin.host, origin.port)
        try:
            if proxy and origin.secure:
                await _tunnel(sock, proxy, origin)
            if origin.secure:
                context = self._context(origin.tls)
                _, connection = await loop.create_connection(
                    factory, sock=sock, ssl=context, server_hostname=origin.host
                )
            else:
                _, connection = await loop.create_connection(factory, sock=sock)
        except BaseException:
            sock.close()
            raise
        if proxy and not origin.secure:
            connection.through(f"http://{_authority(origin)}", proxy.authorization)
        return connection

    def _context(self, tls: TLS) -> ssl.SSLContext:
        context = self._contexts.get(tls)
        if context is None:
            try:
                context = tls.context()
            except ssl.SSLError as exc:
                raise UpstreamError(f"the provider's TLS files cannot be used: {exc.reason or 'not PEM'}") from None
            except OSError as exc:
                raise UpstreamError(f"the provider's TLS files cannot be used: {exc.strerror or 'no files'}") from None
            for old in [known for known in self._contexts if known._replace(seal=tls.seal) == tls]:
                del self._contexts[old]  # what was in the same files before
            self._contexts[tls] = context
        return context


def is_loopback(host: str) -> bool:
    """Is this a name or an address of this machine?"""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


async def _reach(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    sock = await start_connection(found, happy_eyeballs_delay=_EYEBALLS, interleave=1, loop=loop)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


async def _tunnel(sock: socket.socket, proxy: Proxy, origin: Origin) -> None:
    loop = asyncio.get_running_loop()
    authority = _authority(origin)
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    await loop.sock_sendall(sock, "\r\n".join([*lines, "", ""]).encode("latin-1"))
    reply = b""
    while b"\r\n\r\n" not in reply:
        # One byte too many would be the beginning of TLS; a proxy that is asked sends none of that first.
        piece = await loop.sock_recv(sock, 1024)
        reply += piece
        if not piece or len(reply) > _MAX_REPLY:
            raise UpstreamError("the proxy on the way to the provider broke off")
    status = reply.split(b" ", 2)[1:2]
    if status != [b"200"]:
        said = status[0][:3].decode("latin-1") if status else "nothing"
        raise UpstreamError(f"the proxy on the way to the provider answered {said}")


def _authority(origin: Origin) -> str:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    return f"{host}:{origin.port}"


def _proxy(url: str) -> Proxy:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.hostname:
        raise UpstreamError("the environment's proxy is not http://host:port; other kinds are not spoken")
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode()
    return Proxy(parts.hostname, parts.port or 80, authorization)


def _covers(rule: str, origin: Origin) -> bool:
    """Does a NO_PROXY entry (host, .domain, address, network, host:port or *) cover an origin?"""
    if rule == "*":
        return True
    host = origin.host.lower()
    name, colon, port = rule.rpartition(":")
    if colon and port.isdigit() and name.count(":") == 0:
        if int(port) != origin.port:
            return False
        rule = name
    rule = rule.strip("[]")
    try:
        return ip_address(host) in ip_network(rule, strict=False)
    except ValueError:
        rule = rule.lstrip(".").removeprefix("*.")
        return host == rule or host.endswith("." + rule)
