"""What systemd and we tell each other: readiness, sockets and signs of life, over its plain protocols.

https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

#: The first descriptor that systemd hands over (SD_LISTEN_FDS_START).
FIRST = 3
#: What is meant for one process only and must not reach its children.
VARIABLES = ("NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC")


def notify(*lines: str, environ: Mapping[str, str] = os.environ) -> None:
    """Tell the service manager, if one listens.  Nobody listening is not an error, and neither is a full queue."""
    address = environ.get("NOTIFY_SOCKET", "")
    if address.startswith("@"):  # Linux' abstract namespace
        address = "\0" + address[1:]
    elif not address.startswith("/"):  # none, or vsock: inside virtual machines, where no service of ours is
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.sendto("\n".join(lines).encode(), address)


def ready(status: str) -> None:
    notify("READY=1", f"STATUS={status}")


def reloading() -> None:
    """``ready`` has to follow, whether the new configuration was taken or not."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def stopping(seconds: float) -> None:
    """The end may take ``seconds``: ``server.drain`` is ours to know, the unit's TimeoutStopSec= only a guess at it."""
    notify("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}", "STATUS=draining")


def watchdog_interval(environ: Mapping[str, str] = os.environ) -> float | None:
    """Seconds between two signs of life: half of what the unit's WatchdogSec= allows; None where it has none."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        allowed = int(environ.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    return allowed / 2_000_000 if allowed > 0 else None


def take_descriptors(environ: MutableMapping[str, str] = os.environ) -> list[int]:
    """The descriptors of the sockets from our ``.socket`` unit, once: the variables are gone afterwards."""
    ours = environ.get("LISTEN_PID") == str(os.getpid())
    count = environ.get("LISTEN_FDS", "")
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environ.pop(name, None)
    return list(range(FIRST, FIRST + int(count))) if ours and count.isdecimal() else []


async def watchdog() -> None:
    """Tell systemd that this event loop still turns, for as long as it wants to hear that."""
    if interval := watchdog_interval():
        while True:
            notify("WATCHDOG=1")
            await asyncio.sleep(interval)
