"""The sockets we listen on.

They are bound and listening before anything slow is imported: a taken port is told at once, and whoever connects
while the process still starts waits in the kernel's queue instead of being refused.
"""

from __future__ import annotations

import errno
import os
import socket
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Connections that the kernel keeps for us; it takes the smaller of this and net.core.somaxconn.
BACKLOG = 4096

#: Why ``bind`` may refuse, and which setting mends it.
REFUSALS = {
    errno.EADDRINUSE: "the port is in use (server.port)",
    errno.EACCES: "this user may not use the port (server.port)",
    errno.EADDRNOTAVAIL: "this machine does not have the address (server.host)",
    errno.EAFNOSUPPORT: "this machine does not have the address (server.host)",
}
#: What one address of a name may answer without harm to the others: "localhost" is ::1, too, even where IPv6 is off.
ABSENT = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


class CannotListen(Exception):
    """No socket to be had; ``str()`` is one line for the operator."""


def bind(host: str, port: int) -> list[socket.socket]:
    """Listen on every address that ``host`` stands for.  Port 0: one free port, the same for all of them.

    Raises ``CannotListen``.
    """
    sockets: list[socket.socket] = []
    absent: CannotListen | None = None
    for family, address in _addresses(host, port):
        if not port and sockets:
            address = (address[0], sockets[0].getsockname()[1], *address[2:])
        try:
            sockets.append(_listen(family, address))
        except OSError as exc:
            refusal = CannotListen(
                f"cannot listen on {_spelled(host, port)}: {REFUSALS.get(exc.errno or 0, _why(exc))}"
            )
            if exc.errno not in ABSENT:
                close(sockets)
                raise refusal from None
            absent = refusal
    if not sockets and absent:
        raise absent
    return sockets


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, Any]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as exc:
        raise CannotListen(f"cannot listen on {_spelled(host, port)}: {_why(exc)} (server.host)") from None
    # A name may be listed twice in /etc/hosts.
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _listen(family: socket.AddressFamily, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A restart must not wait for the last connections' TIME_WAIT; a socket that still listens keeps its port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def inherit(descriptors: Sequence[int]) -> list[socket.socket]:
    """Take over listening sockets that came with the process, by their descriptors.

    Raises ``CannotListen``.
    """
    sockets = []
    for descriptor in descriptors:
        try:
            os.set_inheritable(descriptor, False)
            sock = socket.socket(fileno=descriptor)
            listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as exc:
            raise CannotListen(f"cannot listen on descriptor {descriptor}: {_why(exc)}") from None
        if sock.type != socket.SOCK_STREAM or not listening:
            sock.detach()
            raise CannotListen(f"cannot listen on descriptor {descriptor}: it is not a listening stream socket")
        sock.setblocking(False)
        sockets.append(sock)
    return sockets


def close(sockets: Sequence[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def exposed(sockets: Sequence[socket.socket]) -> str | None:
    """The first address among them that other machines reach, if any."""
    for sock in sockets:
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            host = sock.getsockname()[0]
            address = ip_address(host.partition("%")[0])
            if isinstance(address, IPv6Address) and address.ipv4_mapped:
                address = address.ipv4_mapped
            if not address.is_loopback:
                return str(host)
    return None


def where(sockets: Sequence[socket.socket]) -> str:
    """For the log: ``http://127.0.0.1:8080, http://[::1]:8080``."""
    return ", ".join(
        f"http://{_spelled(*sock.getsockname()[:2])}"
        if sock.family in (socket.AF_INET, socket.AF_INET6)
        else f"unix:{sock.getsockname()}"
        for sock in sockets
    )


def _spelled(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _why(exc: Exception) -> str:
    return (getattr(exc, "strerror", None) or str(exc)).lower()
