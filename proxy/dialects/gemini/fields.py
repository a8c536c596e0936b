"""The objects of a request body: fields under both of their spellings, and words for what is wrong with them.

Google reads `systemInstruction` and `system_instruction` alike, takes null for absent, and a single
object where a list of them is meant.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from proxy.errors import InvalidRequest


@cache
def snake(name: str) -> str:
    """Respell `topP` as `top_p`."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)


class Fields:
    """One object; ``place`` is where it stands, in the client's own words, "" for the body.

    What was asked for counts as read; the rest is ``unread``.
    """

    def __init__(self, source: object, place: str = "") -> None:
        if not isinstance(source, dict):
            raise wrong(place, "an object") if place else InvalidRequest("the body must be a JSON object")
        self.source: dict[str, Any] = source
        self.place = place
        self._read: set[str] = set()

    def get(self, name: str) -> Any:
        """Look a field up by its camelCase name."""
        key = self._key(name)
        self._read.add(key)
        return self.source.get(key)

    def where(self, name: str) -> str:
        """Say where a field stands, as the client spelled it."""
        key = self._key(name)
        return f"{self.place}.{key}" if self.place else key

    def text(self, name: str) -> str:
        """Read a string; "" where there is none."""
        value = self.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise wrong(self.where(name), "a string")
        return value

    def number(self, name: str) -> float | None:
        """Read a number."""
        value = self.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise wrong(self.where(name), "a number")
        return value

    def integer(self, name: str) -> int | None:
        """Read a whole number, also one that is written `40.0`."""
        value = self.number(name)
        if isinstance(value, float) and not value.is_integer():
            raise wrong(self.where(name), "a whole number")
        return None if value is None else int(value)

    def flag(self, name: str) -> bool | None:
        """Read true or false."""
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            raise wrong(self.where(name), "true or false")
        return value

    def object(self, name: str) -> Fields | None:
        """Read an object."""
        value = self.get(name)
        return None if value is None else Fields(value, self.where(name))

    def objects(self, name: str) -> list[Fields]:
        """Read a list of objects."""
        value, place = self.get(name), self.where(name)
        if value is None:
            return []
        if isinstance(value, dict):
            return [Fields(value, place)]
        if not isinstance(value, list):
            raise wrong(place, "an array of objects")
        return [Fields(item, f"{place}[{i}]") for i, item in enumerate(value)]

    def texts(self, name: str) -> list[str]:
        """Read a list of strings."""
        value = self.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise wrong(self.where(name), "an array of strings")
        return value

    @property
    def unread(self) -> dict[str, Any]:
        """What nobody asked for."""
        return {key: value for key, value in self.source.items() if key not in self._read and value is not None}

    def _key(self, name: str) -> str:
        return name if name in self.source else (other if (other := snake(name)) in self.source else name)


def wrong(place: str, wanted: str) -> InvalidRequest:
    """Say that a field is of another type than it should be."""
    return InvalidRequest(f"`{place}` must be {wanted}", param=place)
