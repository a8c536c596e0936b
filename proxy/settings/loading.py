"""Put the settings together: read every table, then look at them beside each other."""

from __future__ import annotations

import os
import re
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from proxy.settings import schema
from proxy.settings.faults import SettingsError, quoted, within
from proxy.settings.keys import key
from proxy.settings.models import check_known, check_names, model
from proxy.settings.providers import provider, web_address
from proxy.settings.reading import only_known, parse, read, tables
from proxy.settings.references import References, Unresolved
from proxy.settings.schema import Key, Model, Overrides, Provider, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SECTIONS: dict[str, type[Struct]] = {
    "server": schema.Server,
    "limits": schema.Limits,
    "timeouts": schema.Timeouts,
    "stream": schema.Stream,
    "auth": schema.Auth,
    "cors": schema.Cors,
    "state": schema.State,
    "cache": schema.Cache,
    "defaults": schema.Defaults,
    "routing": schema.Routing,
    "log": schema.Log,
}
#: Whose pages may use an open gateway unless the file says otherwise: this machine's, and programs' on it.  A web site
#: cannot have an origin of the latter kind.
LOCAL_ORIGINS = (
    "http://localhost:*",
    "https://localhost:*",
    "http://127.0.0.1:*",
    "https://127.0.0.1:*",
    "http://[::1]:*",
    "https://[::1]:*",
    "vscode-webview://*",  # extensions' panels in VS Code and its kin: Kilo Code, Continue.dev, Cline
    "vscode-file://*",  # the window of VS Code itself
    "app://*",  # Electron apps with files of their own, such as Obsidian and its plugins
    "tauri://localhost",  # Tauri apps on macOS and Linux, such as Jan
    "http://tauri.localhost",  # the same on Windows
    "https://tauri.localhost",
)
ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%*-]*)(?::(?:\*|[0-9]{1,5}))?/?")


class Loaded(Struct, frozen=True, kw_only=True):
    """The settings, and what the operator should hear although they can be used: one sentence each."""

    settings: Settings
    warnings: tuple[str, ...] = ()


def load(path: Path, environ: Mapping[str, str] = os.environ, overrides: Overrides | None = None) -> Loaded:
    """Read ``path``; references are looked up in ``environ``.

    Raises ``SettingsError``, whose ``str()`` is one line that names the file, the table, the setting and the mend.
    """
    with within(str(path)):
        file = _File(parse(path), References(environ, path.parent))
        settings = file.settings(overrides or Overrides())
    return Loaded(settings=settings, warnings=tuple(f"{path}: {warning}" for warning in file.warnings))


class _File:
    """The tables of one file on their way to ``Settings``."""

    def __init__(self, raw: dict[str, Any], references: References) -> None:
        self._raw = raw
        self._references = references
        self.warnings: list[str] = []

    def settings(self, overrides: Overrides) -> Settings:
        only_known(self._raw, Settings.__struct_fields__)
        sections: dict[str, Any] = {name: self._section(name, kind) for name, kind in SECTIONS.items()}
        sections["server"] = _overridden(sections["server"], overrides)
        sections["state"] = self._state(sections["state"])
        keys = self._keys(sections["limits"])
        providers = self._providers(strict=sections["server"].strict)
        models = self._models(providers)
        with within("defaults"):
            for name in sections["defaults"].__struct_fields__:
                if wanted := getattr(sections["defaults"], name):
                    with within(name):
                        check_known(wanted, models)
        settings = Settings(**sections, keys=keys, providers=providers, models=models)
        _check_server(settings)
        _check_origins(settings.cors)
        if settings.open and not settings.auth.anonymous and "origins" not in self._raw.get("cors", {}):
            settings = msgspec.structs.replace(settings, cors=schema.Cors(origins=LOCAL_ORIGINS))
        return settings

    def _section(self, name: str, kind: type[Struct]) -> Struct:
        with within(name):
            return read(self._raw.get(name, {}), kind, references=("url",) if name == "state" else ())

    def _tables(self, name: str, title: str) -> list[tuple[str, Mapping[str, Any]]]:
        """Each table of ``[[name]]`` with its label: ``providers[0] "deepseek"``."""
        labelled = []
        for index, table in enumerate(tables(self._raw.get(name, []), name)):
            own = table.get(title)
            labelled.append((f"{name}[{index}] {quoted(own)}" if isinstance(own, str) else f"{name}[{index}]", table))
        return labelled

    def _keys(self, limits: schema.Limits) -> tuple[Key, ...]:
        ready: list[Key] = []
        for label, table in self._tables("keys", "name"):
            with within(label):
                one = key(table, limits, self._references)
                for other in ready:
                    if other.name == one.name:
                        raise SettingsError("name: there is a key of this name already")
                    if other.digest == one.digest:
                        raise SettingsError(f"is the same key as {quoted(other.name)}")
                ready.append(one)
        return tuple(ready)

    def _providers(self, *, strict: bool) -> tuple[Provider, ...]:
        ready: list[Provider] = []
        for label, table in self._tables("providers", "name"):
            with within(label):
                one = provider(table, self._references)
                if any(other.name == one.name for other in ready):
                    raise SettingsError("name: there is a provider of this name already")
                if not one.enabled and strict:
                    raise SettingsError(f"{one.reason} (server.strict = true)")
                if not one.enabled:
                    self.warnings.append(f"{label}: {one.reason}; this provider is switched off")
                ready.append(one)
        return tuple(ready)

    def _models(self, providers: tuple[Provider, ...]) -> tuple[Model, ...]:
        names = [provider.name for provider in providers]
        labels: list[str] = []
        ready: list[Model] = []
        for label, table in self._tables("models", "id"):
            with within(label):
                ready.append(model(table, names))
                labels.append(label)
        models = tuple(ready)
        check_names(models, labels)
        if not models:
            self.warnings.append("models: there are none, so nothing can be asked")
        return models

    def _state(self, state: schema.State) -> schema.State:
        with within("state"), within("url"):
            try:
                url = self._references.text(state.url)
            except Unresolved as exc:
                raise SettingsError(str(exc)) from None
            if url != "memory:" and not re.match(r"(?:rediss?|unix)://[!-~]+\Z", url):
                raise SettingsError('must be "memory:" or a URL that begins with redis://, rediss:// or unix://')
        return schema.State(url=url)


def _overridden(server: schema.Server, overrides: Overrides) -> schema.Server:
    """What flags say wins, under the same rules."""
    flags = {name: value for name, value in msgspec.structs.asdict(overrides).items() if value is not None}
    for name, value in flags.items():
        with within(f"--{name}"):
            try:
                read({name: value}, schema.Server)
            except SettingsError as exc:
                raise SettingsError(str(exc).removeprefix(f"{name}: ")) from None
    return msgspec.structs.replace(server, **flags)


# Settings beside each other...


def _check_server(settings: Settings) -> None:
    server = settings.server
    with within("server"):
        if not re.fullmatch(r"[!-~]+", server.host) or "[" in server.host:
            raise SettingsError("host: must be a host name or an address without brackets (0.0.0.0 or :: is every one)")
        if not server.name or not server.name.isprintable():
            raise SettingsError("name: must be printable, on one line, and not empty")
        if server.public_url:
            with within("public_url"):
                web_address(server.public_url)
        if server.workers > 1 and not settings.state.shared:
            raise SettingsError(
                f'workers: {server.workers} processes share their limits through [state] url = "redis://..."; '
                "memory: is for one"
            )
        if settings.open and not settings.auth.anonymous and not is_loopback(server.host):
            raise SettingsError(
                f"host: without [[keys]] the gateway is open, and listens on loopback only, not on {server.host}; "
                'make a key with "ai-proxy key new NAME" (or set auth.anonymous = true)'
            )


def is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:  # another name, which may lead anywhere
        return False


def _check_origins(cors: schema.Cors) -> None:
    with within("cors"), within("origins"):
        for origin in cors.origins:
            if origin not in {"*", "null"} and not ORIGIN.fullmatch(origin):
                form = 'scheme://host[:port], with * in host or port, or "*", or "null"'
                raise SettingsError(f"{quoted(origin)} is not an origin: {form}")
