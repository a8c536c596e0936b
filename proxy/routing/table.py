"""Names → deployments: exact id, then alias, then the longest wildcard.  Pure values, one per configuration."""

from __future__ import annotations

import difflib
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import force_setattr, replace

from proxy.errors import Forbidden, NotFound
from proxy.origin import Origin
from proxy.providers import MODEL, conventions
from proxy.settings.models import usable_upstream
from proxy.settings.schema import Timeouts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from proxy.providers import Conventions
    from proxy.requests import Quirks
    from proxy.settings import Key, Model, Provider, Settings

_MODEL = MODEL.encode()
#: What a key may use that is for every model.
_EVERYTHING = ("*",)


class Target(Struct, frozen=True):
    """A deployment with all that asking it takes, except the body.

    ``heads`` maps operations to the bytes of a request's head, up to the value of Content-Length.
    """

    provider: str
    upstream: str
    weight: int
    origin: Origin
    heads: dict[str, bytes]
    timeouts: Timeouts
    #: What it is spoken to in; strangers are translated to the first.
    dialects: tuple[str, ...]
    quirks: Quirks

    def offers(self, operation: str) -> bool:
        """Can it be asked this; a conversation (`chat`) can always be had."""
        return operation == "chat" or operation in self.heads

    def speaks(self, dialect: str) -> bool:
        """Does it understand this dialect without help?"""
        return dialect in self.dialects

    def head(self, operation: str, upstream: str, *, stream: bool) -> bytes:
        """The head of a request; ``upstream`` is the model's name, which may stand in the path."""
        heads = self.heads
        head = heads.get(f"{operation}:stream") if stream else None
        if head is None:
            head = heads[operation]
        return head.replace(_MODEL, upstream.removeprefix("models/").encode(), 1) if _MODEL in head else head


class Entry(Struct, frozen=True):
    """A configured model; ``targets`` are its usable deployments."""

    id: str
    label: str
    description: str
    aliases: tuple[str, ...]
    context: int | None
    targets: tuple[Target, ...]


class Route(Struct, frozen=True):
    """What a name leads to.

    ``model`` is what clients are told, ``label`` what metrics and logs are (a wildcard's pattern),
    ``rest`` what a wildcard left of the name for upstream.
    """

    model: str
    label: str
    entry: Entry
    rest: str = ""

    def upstream(self, target: Target) -> str:
        """The name that the provider knows the model by."""
        return target.upstream or self.rest


class Table(Struct, frozen=True):
    """All names of one configuration."""

    entries: dict[str, Entry]
    aliases: dict[str, str]
    #: Prefixes of wildcards, longest first, with their patterns.
    wildcards: tuple[tuple[str, str], ...] = ()
    #: Where ids and aliases lead.
    _known: dict[str, Route] = {}

    def __post_init__(self) -> None:
        """Work out what every request would ask."""
        names = {
            **{id: id for id in self.entries},
            **{a: id for a, id in self.aliases.items() if a not in self.entries},
        }
        known = {name: Route(id, id, self.entries[id]) for name, id in names.items() if not id.endswith("*")}
        force_setattr(self, "_known", known)

    def resolve(self, name: str, key: Key | None) -> Route:
        """Find what ``name`` leads to, for a caller with ``key``.

        Raises ``NotFound`` with the nearest names that the key may use, ``Forbidden``.
        """
        route = self._known.get(name)
        if route is not None and (key is None or key.models == _EVERYTHING) and route.entry.targets:
            return route  # nearly always
        route = route or self._find(name)
        if route is None:
            raise NotFound(
                f"there is no model {name[:200]!r}{self._nearest(name, key)}", param="model", code="model_not_found"
            )
        if key is not None and not may_use(key, name, route.model):
            raise Forbidden(f"this key may not use the model {name[:200]!r}", param="model")
        if not route.entry.targets:
            raise NotFound(
                f"the model {name[:200]!r} is configured, but its provider is switched off",
                param="model",
                code="model_not_found",
            )
        return route

    def default(self, wanted: str, key: Key | None) -> str:
        """The name for a request without one: ``wanted`` if it can be had, else the first that can.

        Raises ``NotFound`` where none can.
        """
        for name in (wanted, *self.names(key)):
            route = self._find(name) if name else None
            if route and route.entry.targets and (key is None or may_use(key, name, route.model)):
                # Keys may be for an alias only.
                return route.model if key is None or may_use(key, route.model) else name
        raise NotFound("no model is available: no provider has a key", param="model", code="model_not_found")

    def names(self, key: Key | None) -> Iterator[str]:
        """The ids and aliases that can be asked for, in the order of the configuration."""
        for entry in self.entries.values():
            if not entry.targets or entry.id.endswith("*"):
                continue
            for name in (entry.id, *entry.aliases):
                if key is None or may_use(key, name, entry.id):
                    yield name

    @property
    def usable(self) -> bool:
        """Can anything be asked at all?"""
        return any(entry.targets for entry in self.entries.values())

    def _find(self, name: str) -> Route | None:
        if (known := self._known.get(name)) is not None:
            return known
        if not name.isascii() or not name.isprintable():
            return None
        for prefix, pattern in self.wildcards:
            rest = name[len(prefix) :]
            if name.startswith(prefix) and usable_upstream(rest):
                return Route(name, pattern, self.entries[pattern], rest)
        return None

    def _nearest(self, name: str, key: Key | None) -> str:
        close = difflib.get_close_matches(name[:200], list(self.names(key)), n=3, cutoff=0.4)
        return f"; did you mean {' or '.join(close)}?" if close else ""


def may_use(key: Key, *names: str) -> bool:
    """Does one of the key's globs cover one of the model's names?"""
    return any(pattern == "*" or fnmatchcase(name, pattern) for pattern in key.models for name in names)


def build(settings: Settings, demo: tuple[str, str] | None, agent: str) -> Table:
    """Lay out a configuration; ``demo`` is where the demo provider listens, and its key."""
    providers = {p.name: p for p in settings.providers}
    entries = {m.id: _entry(m, providers, settings.timeouts, demo, agent) for m in settings.models}
    aliases = {alias: m.id for m in settings.models for alias in m.aliases}
    patterns = sorted((m.id for m in settings.models if m.wildcard), key=len, reverse=True)
    return Table(entries, aliases, tuple((p[:-1], p) for p in patterns))


def _entry(
    model: Model, providers: Mapping[str, Provider], timeouts: Timeouts, demo: tuple[str, str] | None, agent: str
) -> Entry:
    targets = []
    for deployment in model.deployments:
        provider = providers[deployment.provider]
        if not provider.enabled or (provider.kind == "demo" and demo is None):
            continue
        url, key = demo if provider.kind == "demo" and demo else (provider.base_url, provider.api_key.reveal())
        kind = conventions(provider.kind, endpoint=provider.endpoint, responses=provider.responses)
        upstream = deployment.upstream or ("" if model.wildcard else model.id)
        targets.append(
            Target(
                provider=provider.name,
                upstream=upstream,
                weight=deployment.weight,
                origin=Origin.of(url, provider.tls),
                heads={op: _head(url, path, kind, key, provider.headers, agent) for op, path in kind.paths.items()},
                timeouts=replace(timeouts, **{**provider.timeouts, **model.timeouts}),
                dialects=tuple(name for name in kind.speaks if ":" not in name),
                quirks=replace(kind.quirks, ask_usage=provider.ask_usage, drop=provider.drop),
            )
        )
    label = model.label or model.id
    return Entry(model.id, label, model.description, model.aliases, model.context, tuple(targets))


def _head(url: str, path: str, kind: Conventions, key: str, extra: Mapping[str, str], agent: str) -> bytes:
    """Render a request's head once: everything in it is configuration."""
    authority, _, prefix = url.partition("://")[2].partition("/")
    headers = {
        "Host": authority,
        "Content-Type": "application/json",
        "Accept": "text/event-stream, application/json",
        "Accept-Encoding": "identity",
        "User-Agent": agent,
        **kind.headers,
    }
    if key:
        headers[kind.key_header] = kind.key_prefix + key
    given = {name.lower() for name in extra}
    lines = [f"{name}: {value}" for name, value in headers.items() if name.lower() not in given]
    lines += [f"{name}: {value}" for name, value in extra.items()]
    target = f"/{prefix}{path}" if prefix else path
    return "\r\n".join([f"POST {target} HTTP/1.1", *lines, "Content-Length: "]).encode("latin-1")
