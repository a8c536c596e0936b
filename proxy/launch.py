"""What a process was started with: its configuration file, its flags and its sockets."""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import msgspec

from proxy import sockets
from proxy.settings import Loaded, Overrides, Settings, SettingsError, load

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

#: Signals that must not kill a process which is not ready for them yet: they wait until it is.
DEFERRED = {signal.SIGHUP, signal.SIGUSR2}
#: Settings of [server] that a running process cannot change.
FIXED = ("host", "port", "workers")


@dataclass(frozen=True, kw_only=True)
class Launch:
    """The part of a process that no reload changes, and the settings that it began with."""

    config: Path
    overrides: Overrides
    settings: Settings
    sockets: Sequence[socket.socket]
    #: Nobody else listens on these sockets: when we close them, nobody takes what waits in their queues.
    alone: bool = True

    def __post_init__(self) -> None:
        """Raises ``SettingsError`` where an open gateway could be reached from outside."""
        refuse_exposed(self.settings, self.sockets, self.config)

    def reload(self) -> tuple[Settings, list[str]]:
        """The settings as the file has them now, and what the operator should hear about them, a sentence each.

        What only a restart can change is as it was, so that the settings never say what is not so.
        Raises ``SettingsError``.
        """
        loaded: Loaded = load(self.config, overrides=self.overrides)
        refuse_exposed(loaded.settings, self.sockets, self.config)
        began, now = self.settings, loaded.settings
        changed = [f"server.{name}" for name in FIXED if getattr(now.server, name) != getattr(began.server, name)]
        if now.state != began.state:
            changed.append("[state]")
        told = list(loaded.warnings)
        if changed:
            told.append(f"{self.config}: {', '.join(changed)}: changed, but this needs a restart")
        server = msgspec.structs.replace(now.server, **{name: getattr(began.server, name) for name in FIXED})
        return msgspec.structs.replace(now, server=server, state=began.state), told

    def serving(self) -> str:
        """The line that an operator looks for after the start."""
        settings = self.settings
        if not settings.open:
            access = f"closed: {counted(len(settings.keys), 'key')}"
        elif settings.auth.anonymous:
            access = "open to everybody: auth.anonymous = true"
        else:
            access = "open to this machine: no [[keys]]"
        where = sockets.where(self.sockets)
        return f"listening on {where} ({access}), {counted(len(settings.models), 'model')}"


def refuse_exposed(settings: Settings, listening: Sequence[socket.socket], config: Path) -> None:
    """An open gateway on the sockets that we really have: names and .socket units may lead anywhere.

    Raises ``SettingsError``.
    """
    if settings.open and not settings.auth.anonymous and (address := sockets.exposed(listening)):
        raise SettingsError(
            f"{config}: without [[keys]] the gateway is open and listens on loopback addresses only, not {address}; "
            'make a key with "ai-proxy key new NAME" (or set auth.anonymous = true)'
        )


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def leave_now(number: signal.Signals) -> NoReturn:
    """The second signal: somebody has waited enough.  The exit code is 128 + its number, as shells count."""
    log.warning("%s again: ending at once", number.name)
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(128 + number)
