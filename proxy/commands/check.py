"""``check``: what the configuration would serve, and with ``--live`` whether its providers answer."""

from __future__ import annotations

import asyncio
import datetime
import sys
from typing import TYPE_CHECKING

from proxy.commands import Failure, show
from proxy.settings import SettingsError, load
from proxy.settings.loading import LOCAL_ORIGINS

if TYPE_CHECKING:
    import argparse

    from proxy.settings import Key, Model, Provider, Settings


def run(args: argparse.Namespace) -> int:
    try:
        loaded = load(args.config)
    except SettingsError as exc:
        raise Failure(str(exc), code=2, prefixed=False) from None
    for warning in loaded.warnings:
        print(warning, file=sys.stderr)
    settings = loaded.settings
    show.table(("", ""), _overview(settings), title=f"{args.config} is fine")
    _providers(settings.providers)
    _models(settings)
    _keys(settings.keys)
    return asyncio.run(_live(settings)) if args.live else 0


# What would be served...


def _overview(settings: Settings) -> list[tuple[str, str]]:
    server, limits = settings.server, settings.limits
    host = f"[{server.host}]" if ":" in server.host else server.host
    workers = f", {server.workers} workers" if server.workers > 1 else ""
    rows = [
        ("listens on", f"http://{host}:{server.port}{workers}"),
        ("access", _access(settings)),
        ("web pages", _pages(settings.cors.origins)),
        ("bodies", f"up to {_size(limits.max_body_bytes)}"),
        ("exchanges", f"{limits.max_streams or 'any number'} at once"),
    ]
    names = (("chat", "POST /api/chat"), ("code", "POST /v1/..."), ("proxy", "POST /chat"))
    return rows + [(route, _default(settings, getattr(settings.defaults, name))) for name, route in names]


def _access(settings: Settings) -> str:
    if not settings.open:
        also = ", or none at all (auth.anonymous)" if settings.auth.anonymous else ""
        return f"with one of {len(settings.keys)} keys{also}" if len(settings.keys) > 1 else f"with the key{also}"
    return (
        "open to everybody (auth.anonymous)" if settings.auth.anonymous else "open to this machine: there are no keys"
    )


def _pages(origins: tuple[str, ...]) -> str:
    if origins == LOCAL_ORIGINS:
        return "of this machine, and editors"
    return "of everybody" if "*" in origins else f"of {', '.join(origins) or 'nobody'}"


def _default(settings: Settings, name: str) -> str:
    """Who answers a request that names no model."""
    first = next((model.id for model in settings.models if not model.wildcard and _on(settings, model)), None)
    if name:
        named = _named(settings, name)
        if named and _on(settings, named):
            return name
    if first is None:
        return "nobody" if not name else f"nobody: {name} is off"
    return f"{first}, because {name} is off" if name else first


def _named(settings: Settings, name: str) -> Model | None:
    """The model of this name; the longest wildcard where no id and no alias is it."""
    exact = next((model for model in settings.models if name in (model.id, *model.aliases)), None)
    wild = [model for model in settings.models if model.wildcard and name.startswith(model.id[:-1])]
    return exact or max(wild, key=lambda model: len(model.id), default=None)


def _on(settings: Settings, model: Model) -> bool:
    enabled = {provider.name for provider in settings.providers if provider.enabled}
    return any(deployment.provider in enabled for deployment in model.deployments)


def _size(number: int) -> str:
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if number >= unit and number % unit == 0:
            return f"{number // unit} {name}"
    return f"{number} bytes"


def _providers(providers: tuple[Provider, ...]) -> None:
    rows = [
        (
            provider.name,
            provider.kind,
            "on" if provider.enabled else "off",
            _address(provider) + _files(provider) if provider.enabled else provider.reason,
        )
        for provider in providers
    ]
    show.table(("name", "kind", "state", "address"), rows, title="Providers")


def _address(provider: Provider) -> str:
    if not provider.base_url:
        return "inside this program"
    # The account may be known by reference only, and that is how it stays.
    return provider.base_url.replace(provider.account_id, "***") if provider.account_id else provider.base_url


def _files(provider: Provider) -> str:
    """What its TLS has of its own."""
    own = [name for name, file in (("CA", provider.tls.ca), ("certificate", provider.tls.certificate)) if file]
    return f" (own {' and '.join(own)})" if own else ""


def _models(settings: Settings) -> None:
    rows = [
        (
            model.id,
            "on" if _on(settings, model) else "off",
            ", ".join(model.aliases),
            ", ".join(
                f"{each.provider}: {each.upstream or '*'}" + (f" (weight {each.weight})" if each.weight > 1 else "")
                for each in model.deployments
            ),
            ", ".join(model.fallbacks),
        )
        for model in settings.models
    ]
    show.table(("model", "state", "aliases", "deployments", "fallbacks"), rows, title="Models")


def _keys(keys: tuple[Key, ...]) -> None:
    if not keys:
        return
    rows = [
        (
            key.name,
            ", ".join(key.models) or "none",
            str(key.requests_per_minute or "any"),
            str(key.tokens_per_minute or "any"),
            str(key.streams or "any"),
            _expiry(key),
            "yes" if key.admin else "",
        )
        for key in keys
    ]
    show.table(("key", "models", "requests/min", "tokens/min", "streams", "expires", "admin"), rows, title="Keys")


def _expiry(key: Key) -> str:
    if key.expires is None:
        return "never"
    if key.expires <= datetime.datetime.now(datetime.UTC):
        return "expired"
    return key.expires.strftime("%Y-%m-%d %H:%M UTC")


# Whether it would work...


async def _live(settings: Settings) -> int:
    from proxy.commands.live import ask_all

    findings = await ask_all(settings)
    rows = [
        (each.provider, "ok" if each.ok else "failed", f"{each.seconds * 1000:.0f} ms", each.said) for each in findings
    ]
    show.table(("provider", "state", "latency", "answer"), rows, title="Live")
    return 0 if all(each.ok for each in findings) else 1
