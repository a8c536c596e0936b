"""A provider's ``tls``: whom to believe and who we are, in PEM files that are tried before they are needed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from proxy.origin import TLS
from proxy.settings.faults import SettingsError, quoted, within
from proxy.settings.reading import read

if TYPE_CHECKING:
    from pathlib import Path

    from proxy.settings.references import References

MAX_FILE = 4 << 20  # bytes; every authority of the web together is a quarter of it


class TLSTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ``tls`` table as it is written."""

    ca: str = ""
    certificate: str = ""
    key: str = ""


def tls(raw: Any, base_url: str, references: References) -> TLS:
    """The files, read once.  Raises ``SettingsError`` for what no connection could use."""
    table = read(raw, TLSTable)
    files = {name: getattr(table, name) for name in table.__struct_fields__ if getattr(table, name)}
    if not files:
        return TLS()
    if not base_url.startswith("https://"):
        raise SettingsError("is for a base_url that begins with https://")
    if table.key and not table.certificate:
        raise SettingsError("key: is of no use without its certificate")
    paths: dict[str, str] = {}
    seal = hashlib.sha256()
    for name, file in files.items():
        with within(name):
            path = references.path(file)
            seal.update(hashlib.sha256(_content(path, file)).digest())
            paths[name] = str(path)
    found = TLS(**paths, seal=seal.hexdigest())
    _try(found, table)
    return found


def _content(path: Path, name: str) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except OSError as exc:
        raise SettingsError(f"the file {quoted(name)} cannot be read ({exc.strerror or exc})") from None
    except ValueError:  # a NUL in the path
        raise SettingsError(f"the file {quoted(name)} cannot be read") from None
    if len(content) > MAX_FILE:
        raise SettingsError(f"the file {quoted(name)} is larger than {MAX_FILE} bytes")
    return content


def _try(found: TLS, table: TLSTable) -> None:
    """Do with each file what a connection would."""
    import ssl  # whoever names no files needs no OpenSSL to read a configuration

    # A client certificate could be believed, too: that tells its own faults from its key's.
    for name, file, path in (("ca", table.ca, found.ca), ("certificate", table.certificate, found.certificate)):
        if file:
            with within(name):
                try:
                    TLS(ca=path).context()
                except OSError:
                    raise SettingsError(f"the file {quoted(file)} has no certificate in PEM form") from None
    if not table.certificate:
        return
    with within("key" if table.key else "certificate"):
        file = f"the file {quoted(table.key or table.certificate)}"
        try:
            found.context()
        except ssl.SSLError as exc:
            raise SettingsError(f"{file} {_why(exc.reason, separate=bool(table.key))}") from None
        except OSError as exc:
            raise SettingsError(f"{file} cannot be used: {exc.strerror or exc}") from None


def _why(reason: str | None, *, separate: bool) -> str:
    if reason == "KEY_VALUES_MISMATCH":
        return "has the key of another certificate"
    if reason:
        return f"is refused: {reason.lower().replace('_', ' ')}"
    return "has no private key in PEM form" + ("" if separate else '; name the key\'s file with key = "FILE"')
