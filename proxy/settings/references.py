"""Secrets, and the references that keep them out of the file: ``env:NAME``, ``file:PATH``, ``credential:NAME``."""

from __future__ import annotations

import hmac
import re
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.settings.faults import SettingsError, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What examples put where a secret belongs.  Taken at its word, it would be a key that everybody knows.
PLACEHOLDER = re.compile(
    r"""
      change[-_ ]?me .*
    | your[-_ ] .*               # your-key-here, YOUR_PROXY_KEY
    | < .* >
    | x{3,} .*
    | (?:[a-z]+[-_])+ x{3,}      # sk-xxxxxxxx; but a random key may begin like that
    | .* (?: \.{3} | … )         # sk-..., sk-proj-…
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
#: What can travel in a header without a doubt about where it ends.
VISIBLE = re.compile(r"[!-~]+")
MAX_FILE = 65_536  # bytes; more is not a secret but the wrong file


class Unresolved(Exception):
    """A reference that leads nowhere; ``str()`` says why, in a clause."""


class Secret:
    """A text that ``repr``, logs and tracebacks do not show; false when empty."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)


class References:
    """Look up what references stand for; ``directory`` is where relative ``file:`` paths start: the file's own."""

    def __init__(self, environ: Mapping[str, str], directory: Path) -> None:
        self._environ = environ
        self._directory = directory

    def secret(self, text: str) -> str:
        """The secret that ``text`` is or refers to: visible ASCII.

        Raises ``Unresolved``, or ``SettingsError`` for what is empty, a placeholder or not fit for a header.
        """
        value, whence = self._look_up(text)
        if not value:
            raise SettingsError(f"{whence}is empty")
        if PLACEHOLDER.fullmatch(value):
            raise SettingsError(f"{whence}is a placeholder, not a secret")
        if not VISIBLE.fullmatch(value):
            raise SettingsError(f"{whence}has characters other than visible ASCII")
        return value

    def text(self, text: str) -> str:
        """What ``text`` is, or the phrase it refers to: words may follow each other (``Bearer abc``)."""
        if not is_reference(text):
            return text
        value, whence = self._look_up(text)
        if not value:
            raise SettingsError(f"{whence}is empty")
        if any(PLACEHOLDER.fullmatch(word) for word in value.split()):
            raise SettingsError(f"{whence}is a placeholder, not a secret")
        return value

    def path(self, name: str) -> Path:
        """Where a file is that the configuration names."""
        return self._directory / name

    def _look_up(self, text: str) -> tuple[str, str]:
        """The value, and the beginning of a sentence about it."""
        scheme, colon, name = text.partition(":")
        if not colon or scheme not in SCHEMES:
            return text, ""
        if not name:
            raise SettingsError(f'"{scheme}:" names nothing')
        if scheme == "env":
            return self._variable(name)
        if scheme == "file":
            return self._file(self.path(name), f"the file {quoted(name)} ")
        return self._credential(name)

    def _variable(self, name: str) -> tuple[str, str]:
        value = self._environ.get(name)
        if value is None:
            raise Unresolved(f"the environment variable {name} is not set")
        if not value.strip():
            # Units and shells often declare a variable and leave it empty.
            raise Unresolved(f"the environment variable {name} is empty")
        return value.strip(), f"the environment variable {name} "

    def _credential(self, name: str) -> tuple[str, str]:
        directory = self._environ.get("CREDENTIALS_DIRECTORY")
        if "/" in name or name in {".", ".."}:
            raise SettingsError(f"{quoted(name)} is not the name of a credential")
        if not directory:
            raise Unresolved(f"the credential {quoted(name)} is not there: systemd did not set CREDENTIALS_DIRECTORY")
        return self._file(Path(directory) / name, f"the credential {quoted(name)} ")

    @staticmethod
    def _file(path: Path, whence: str) -> tuple[str, str]:
        try:
            with path.open("rb") as file:
                content = file.read(MAX_FILE + 1)
        except OSError as exc:
            raise Unresolved(f"{whence}cannot be read ({exc.strerror or exc})") from None
        except ValueError:  # a NUL in the path
            raise Unresolved(f"{whence}cannot be read") from None
        if len(content) > MAX_FILE:
            raise SettingsError(f"{whence}is larger than {MAX_FILE} bytes")
        try:
            return content.decode("utf-8-sig").strip(), whence
        except UnicodeDecodeError:
            raise SettingsError(f"{whence}is not UTF-8") from None


SCHEMES = ("env", "file", "credential")


def is_reference(text: str) -> bool:
    return text.partition(":")[0] in SCHEMES and ":" in text


def misplaced(text: str) -> bool:
    """Does this look like a reference, where none is understood?  (Model names have colons, too: ``qwen:7b``.)"""
    return re.fullmatch(r"(?:env|credential):\w+|file:[./~].*", text) is not None
