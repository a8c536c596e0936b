"""``[[keys]]``: who may ask; a key is turned into its digest at once and not kept."""

from __future__ import annotations

import datetime
import hashlib
import re
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from proxy.settings.faults import SettingsError, within
from proxy.settings.reading import read, word_for
from proxy.settings.references import References, Unresolved
from proxy.settings.schema import Key, Limit, Limits, Names

if TYPE_CHECKING:
    from collections.abc import Mapping

DIGEST_OF_NOTHING = hashlib.sha256(b"").digest()


class KeyTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ``[[keys]]`` table as it is written."""

    name: str
    key: str | None = None
    sha256: str | None = None
    models: Names = ("*",)
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    streams: Limit | None = None
    expires: Any = None
    admin: bool = False


def key(raw: Mapping[str, Any], limits: Limits, references: References) -> Key:
    table = read(raw, KeyTable, references=("key", "sha256"))
    if not 1 <= len(table.name) <= 64 or not table.name.isprintable():
        raise SettingsError("name: must be 1 to 64 printable characters")
    if "" in table.models:
        raise SettingsError("models: a pattern is empty")
    with within("expires"):
        expires = _moment(table.expires)
    return Key(
        name=table.name,
        digest=_digest(table, references),
        models=table.models,
        requests_per_minute=_own(table.requests_per_minute, limits.requests_per_minute),
        tokens_per_minute=_own(table.tokens_per_minute, limits.tokens_per_minute),
        streams=_own(table.streams, limits.streams),
        expires=expires,
        admin=table.admin,
    )


def _own(limit: int | None, common: int) -> int:
    return common if limit is None else limit


def _digest(table: KeyTable, references: References) -> bytes:
    if table.key is not None and table.sha256 is not None:
        raise SettingsError("has both key and sha256; one of them decides")
    if table.key is None and table.sha256 is None:
        raise SettingsError('key: is missing (or sha256); "ai-proxy key new NAME" makes one')
    setting, text = ("key", table.key) if table.key is not None else ("sha256", table.sha256 or "")
    with within(setting):
        try:
            secret = references.secret(text)
        except Unresolved as exc:
            # Not a warning as it is for a provider: a lost key must not open the gateway.
            raise SettingsError(str(exc)) from None
        if setting == "key":
            return hashlib.sha256(secret.encode()).digest()
        if not re.fullmatch(r"[0-9A-Fa-f]{64}", secret):
            raise SettingsError("must be 64 hexadecimal digits")
        digest = bytes.fromhex(secret)
        if digest == DIGEST_OF_NOTHING:
            raise SettingsError("is the digest of an empty key")
        return digest


def _moment(value: Any) -> datetime.datetime | None:
    """A TOML date (its first moment) or date-time, in UTC, which is also meant where no zone is named."""
    if value is None:
        return None
    if not isinstance(value, datetime.date):  # date-times are dates, too
        mend = ": write the date without quotation marks" if isinstance(value, str) else ""
        raise SettingsError(f"expected a date, found {word_for(value)}{mend}")
    if not isinstance(value, datetime.datetime):
        return datetime.datetime(value.year, value.month, value.day, tzinfo=datetime.UTC)
    if value.tzinfo is None:
        return value.replace(tzinfo=datetime.UTC)
    try:
        return value.astimezone(datetime.UTC)
    except OverflowError:
        raise SettingsError("is outside the calendar") from None
