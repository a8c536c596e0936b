"""A mistake in the configuration, told in one line that leads to the place: file, table, setting, mend."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class SettingsError(Exception):
    """The configuration cannot be used; ``str()`` is one line for the operator, without any secret."""

    def __init__(self, message: str) -> None:
        # Names and paths come from the file, where a string may hold a line break.
        super().__init__("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in message))


@contextmanager
def within(place: str) -> Iterator[None]:
    """Say where: faults that leave this block are prefixed with ``place``."""
    try:
        yield
    except SettingsError as exc:
        raise SettingsError(f"{place}: {exc}") from None


def quoted(name: str) -> str:
    """A name from the file, fit for the middle of a sentence."""
    return f'"{name}"' if len(name) <= 80 else f'"{name[:77]}..."'


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the known one that was probably meant, if any is like it."""
    from difflib import get_close_matches  # only a mistake pays for the import

    close = get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return f"; did you mean {quoted(close[0])}?" if close else ""
