"""From TOML to structs, table by table, with faults in the operator's words instead of the libraries'."""

from __future__ import annotations

import math
import re
import tomllib
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import msgspec

from proxy.settings.faults import SettingsError, nearest, quoted, within
from proxy.settings.references import misplaced

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

T = TypeVar("T", bound=msgspec.Struct)

#: msgspec's words for types, and ours.
WORDS = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "date": "a date",
    "datetime": "a date-time",
    "time": "a time of day",
}
BOUNDS = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}


def parse(path: Path) -> dict[str, Any]:
    """The file's tables.  Raises ``SettingsError``; the caller says which file."""
    try:
        text = path.read_bytes().decode("utf-8-sig")  # editors on Windows begin with a BOM
    except FileNotFoundError:
        raise SettingsError("no such file; name another one with --config FILE") from None
    except OSError as exc:
        raise SettingsError(f"cannot be read: {exc.strerror or exc}") from None
    except UnicodeDecodeError as exc:
        line = exc.object.count(b"\n", 0, exc.start) + 1
        raise SettingsError(f"line {line}: not UTF-8") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise SettingsError(_syntax(str(exc))) from None
    except RecursionError:
        raise SettingsError("nested too deeply") from None


def _syntax(message: str) -> str:
    """``Expected ... (at line 3, column 5)`` with the place in front, where one looks for it."""
    what, _, place = message.rpartition(" (at ")
    return f"{place.rstrip(')')}: {what}" if what else message


def only_known(names: Iterable[str], known: Iterable[str]) -> None:
    known = tuple(known)
    for name in names:
        if name not in known:
            raise SettingsError(f"unknown setting {quoted(name)}{nearest(name, known)}")


def read(raw: Any, kind: type[T], *, references: tuple[str, ...] = ()) -> T:
    """One table as a struct; ``references`` are the settings in which ``env:NAME`` and its like are understood."""
    table = a_table(raw)
    only_known(table, kind.__struct_fields__)
    for name, value in table.items():
        if isinstance(value, str) and name not in references and misplaced(value):
            raise SettingsError(f"{name}: references are understood in secrets only, not here")
    try:
        struct = msgspec.convert(table, kind)
    except msgspec.ValidationError as exc:
        raise SettingsError(_sentence(str(exc), table, kind)) from None
    _refuse_infinite(struct)
    return struct


def a_table(raw: Any) -> Mapping[str, Any]:
    if not isinstance(raw, dict):
        raise SettingsError(f"expected a table, found {word_for(raw)}")
    return raw


def tables(raw: Any, name: str) -> list[Mapping[str, Any]]:
    """The tables of ``[[name]]``."""
    if not isinstance(raw, list) or not all(isinstance(item, dict) for item in raw):
        found = word_for(
            next((item for item in raw if not isinstance(item, dict)), raw) if isinstance(raw, list) else raw
        )
        raise SettingsError(f"{name}: expected tables that begin with [[{name}]], found {found}")
    return raw


def word_for(value: Any) -> str:
    kind = {"list": "array", "dict": "object"}.get(type(value).__name__, type(value).__name__)
    return WORDS.get(kind, kind)


def seconds(raw: Any, kind: type[T], allowed: tuple[str, ...]) -> dict[str, float]:
    """A table that overrides some of ``kind``'s durations, and which."""
    table = a_table(raw)
    for name in table:
        if name in kind.__struct_fields__ and name not in allowed:
            raise SettingsError(f"{name}: is about the client's connection; it stands in [timeouts] only")
    only_known(table, allowed)
    whole = read(table, kind)
    return {name: getattr(whole, name) for name in table}


def _refuse_infinite(struct: msgspec.Struct) -> None:
    """TOML knows ``inf`` and ``nan``; neither is a duration or a price."""
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        if isinstance(value, float) and not math.isfinite(value):
            raise SettingsError(f"{name}: must be finite, found {value}")
        if isinstance(value, msgspec.Struct):
            with within(name):
                _refuse_infinite(value)


# What msgspec says...


def _sentence(message: str, table: Mapping[str, Any], kind: type[msgspec.Struct]) -> str:
    """``Expected `float`, got `str` - at `$.idle``` as ``idle: expected a number, found a string``."""
    what, _, place = message.partition(" - at `$")
    path = place.rstrip("`").lstrip(".")
    where = f"{path}: ".replace(".", ": ") if path else ""
    if match := re.fullmatch(r"Object missing required field `(\w+)`", what):
        return f"{where}{match[1]}: is missing"
    if match := re.fullmatch(r"Object contains unknown field `(.*)`", what, re.DOTALL):
        inner = _kind_at(kind, path)
        return f"{where}unknown setting {quoted(match[1])}{nearest(match[1], inner)}"
    if match := re.fullmatch(r"Expected `(\w+)(?: \| null)?`, got `(\w+)`", what):
        return f"{where}expected {WORDS.get(match[1], match[1])}, found {WORDS.get(match[2], match[2])}"
    if match := re.fullmatch(r"Expected `\w+(?: \| null)?` (>=|<=|>|<) ([-+.\de]+)", what):
        return f"{where}must be {BOUNDS[match[1]]} {float(match[2]):g}"
    if match := re.fullmatch(r"Invalid enum value '(.*)'", what, re.DOTALL):
        choices = [str(choice) for choice in get_args(_type_of(kind, path))]
        return f"{where}{quoted(match[1])} is none of {', '.join(choices)}{nearest(match[1], choices)}"
    return f"{where}{what}"


def _type_of(kind: type[msgspec.Struct], name: str) -> Any:
    return next((field.type for field in msgspec.structs.fields(kind) if field.name == name), None)


def _kind_at(kind: type[msgspec.Struct], path: str) -> tuple[str, ...]:
    """The settings of the struct that stands at ``path`` inside ``kind``, in a list or not; there is one level only."""
    annotated = [_type_of(kind, path.partition("[")[0])]
    for inner in annotated:
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            return inner.__struct_fields__
        annotated += get_args(inner)
    return ()
