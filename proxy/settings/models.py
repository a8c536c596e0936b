"""``[[models]]``: names that clients ask for, each of them once, and deployments that exist."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, Struct

from proxy.settings.faults import SettingsError, nearest, quoted, within
from proxy.settings.reading import read, seconds
from proxy.settings.schema import ATTEMPT_CLOCKS, Count, Deployment, Model, Names, Price, Timeouts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: An id or alias: it travels in headers and paths, and is shown in messages between quotation marks.
NAME = re.compile(r'[^\x00-\x20"#%*?\\\x7f-\U0010ffff]{1,200}')
#: A provider's own name for a model; it may become a part of the path there.
UPSTREAM = re.compile(r"[A-Za-z0-9@._:/-]{1,200}")


class DeploymentTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    provider: str
    upstream: str | None = None
    weight: Count = 1


class ModelTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ``[[models]]`` table as it is written: ``provider`` (and ``upstream``) is short for one deployment."""

    id: str
    provider: str | None = None
    upstream: str | None = None
    deployments: tuple[DeploymentTable, ...] | None = None
    label: str = ""
    description: str = ""
    aliases: Names = ()
    context: Annotated[int, Meta(ge=1)] | None = None
    timeouts: dict[str, Any] = {}
    price: Price | None = None
    fallbacks: Names = ()


def model(raw: Mapping[str, Any], providers: Iterable[str]) -> Model:
    table = read(raw, ModelTable)
    with within("id"):
        _check_name(table.id.removesuffix("*") if table.id != "*" else "any")
    for alias in table.aliases:
        with within("aliases"):
            _check_name(alias)
    with within("timeouts"):
        timeouts = seconds(table.timeouts, Timeouts, ATTEMPT_CLOCKS)
    return Model(
        id=table.id,
        deployments=_deployments(table, tuple(providers)),
        label=table.label,
        description=table.description,
        aliases=table.aliases,
        context=table.context,
        timeouts=timeouts,
        price=table.price,
        fallbacks=table.fallbacks,
    )


def _check_name(name: str) -> None:
    if "*" in name:
        raise SettingsError(f'{quoted(name)}: only an id can have a "*", and only as its end')
    if not NAME.fullmatch(name):
        raise SettingsError(f'{quoted(name)}: must be 1 to 200 visible ASCII characters, without spaces and "#%*?\\')
    if _dotted(name):
        raise SettingsError(f"{quoted(name)}: must not have empty, . or .. segments")


def _dotted(name: str) -> bool:
    """``openai/`` is the beginning of a wildcard; elsewhere a path could be taken for another one."""
    return any(segment in {"", ".", ".."} for segment in name.removesuffix("/").split("/"))


def _deployments(table: ModelTable, providers: tuple[str, ...]) -> tuple[Deployment, ...]:
    if table.deployments is None:
        if table.provider is None:
            raise SettingsError("provider: is missing (or deployments, for more than one)")
        return (_deployment(table, DeploymentTable(provider=table.provider, upstream=table.upstream), providers),)
    if table.provider is not None or table.upstream is not None:
        raise SettingsError("deployments: name providers themselves; leave out provider and upstream beside them")
    if not table.deployments:
        raise SettingsError("deployments: is empty")
    ready: list[Deployment] = []
    for index, short in enumerate(table.deployments):
        with within(f"deployments[{index}]"):
            deployment = _deployment(table, short, providers)
            if any((each.provider, each.upstream) == (deployment.provider, deployment.upstream) for each in ready):
                raise SettingsError("is the same as one before it; use weight instead")
            ready.append(deployment)
    return tuple(ready)


def _deployment(table: ModelTable, short: DeploymentTable, providers: tuple[str, ...]) -> Deployment:
    if short.provider not in providers:
        raise SettingsError(f"provider: unknown provider {quoted(short.provider)}{nearest(short.provider, providers)}")
    upstream = short.upstream
    if upstream is None:
        upstream = "" if table.id.endswith("*") else table.id
        if not upstream:
            return Deployment(provider=short.provider, weight=short.weight)
    if not usable_upstream(upstream):
        raise SettingsError(
            f"upstream: {quoted(upstream)} is not a name that can go upstream: "
            "1 to 200 letters, digits and @._:/- without empty, . or .. segments"
        )
    return Deployment(provider=short.provider, upstream=upstream, weight=short.weight)


def usable_upstream(name: str) -> bool:
    """May this name go into a request to a provider, where it can be part of the path?"""
    return bool(UPSTREAM.fullmatch(name)) and not any(segment in {"", ".", ".."} for segment in name.split("/"))


# Names among each other...


def check_names(models: tuple[Model, ...], labels: list[str]) -> None:
    """Every id and alias once; fallbacks lead somewhere else.  ``labels`` say where each model stands."""
    owners: dict[str, str] = {}
    for model, label in zip(models, labels, strict=True):
        with within(label):
            for name, setting in [(model.id, "id"), *((alias, "aliases") for alias in model.aliases)]:
                if name in owners:
                    whose = "this model" if owners[name] == model.id else quoted(owners[name])
                    raise SettingsError(f"{setting}: {quoted(name)} is already a name of {whose}")
                owners[name] = model.id
    for model, label in zip(models, labels, strict=True):
        with within(label), within("fallbacks"):
            for name in model.fallbacks:
                check_known(name, models)
                if owners.get(name) == model.id:
                    raise SettingsError(f"{quoted(name)} is this model itself")


def check_known(name: str, models: tuple[Model, ...]) -> None:
    """Is there a model of this name: an id, an alias, or what a wildcard covers?"""
    names = [known for model in models for known in (model.id, *model.aliases) if not known.endswith("*")]
    if name in names:
        return
    for model in models:
        prefix = model.id.removesuffix("*")
        if model.wildcard and name.startswith(prefix) and usable_upstream(name.removeprefix(prefix)):
            return
    raise SettingsError(f"unknown model {quoted(name)}{nearest(name, names)}")
