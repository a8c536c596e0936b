"""Taking typed values out of a client's JSON; what does not fit is refused by its name."""

from __future__ import annotations

from typing import Any, TypeVar

import orjson

from proxy.errors import InvalidRequest

T = TypeVar("T")

WORDS: dict[type, str] = {
    str: "a string",
    int: "a whole number",
    bool: "true or false",
    list: "an array",
    dict: "an object",
}


def take(source: dict[str, Any], name: str, kind: type[T], place: str = "") -> T | None:
    """Take ``source[name]``, which stands at ``place``; None where it is absent or null."""
    value = source.get(name)
    if value is None:
        return None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise wrong(f"{place}.{name}" if place else name, WORDS[kind])
    return value


def need(source: dict[str, Any], name: str, kind: type[T], place: str = "") -> T:
    """The same for a value that must be there."""
    value = take(source, name, kind, place)
    if value is None:
        raise wrong(f"{place}.{name}" if place else name, WORDS[kind])
    return value


def number(source: dict[str, Any], name: str) -> float | None:
    """Take a number, whole or not."""
    value = source.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(name, "a number")
    return value


def objects(items: list[Any], place: str) -> list[tuple[dict[str, Any], str]]:
    """Take an array's items, which must be objects, each with its place."""
    for i, item in enumerate(items):
        if not isinstance(item, dict):
            raise wrong(f"{place}[{i}]", "an object")
    return [(item, f"{place}[{i}]") for i, item in enumerate(items)]


def dump(value: object, place: str) -> bytes:
    """Write a value as JSON; it can be nested more deeply than that goes."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        raise InvalidRequest(f"`{place}` is nested too deeply", param=place) from None


def wrong(place: str, what: str) -> InvalidRequest:
    """Say what a field has to be."""
    return InvalidRequest(f"`{place}` must be {what}", param=place)
