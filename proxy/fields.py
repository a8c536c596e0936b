"""A decoded body's top level, taken field by field."""

from __future__ import annotations

from typing import Any

from proxy.errors import InvalidRequest


class Fields:
    """Takes values of the right type, or raises ``InvalidRequest`` that names the field."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def text(self, name: str) -> str:
        """A string; empty where it is absent."""
        return self._take(name, str, "a string") or ""

    def flag(self, name: str) -> bool | None:
        """True, false, or None where it is absent."""
        value = self._fields.get(name)
        if value is not None and not isinstance(value, bool):
            raise InvalidRequest(f"`{name}` must be true or false", param=name)
        return value

    def integer(self, name: str) -> int | None:
        """A whole number."""
        value: int | None = self._take(name, int, "a whole number")
        return value

    def count(self, name: str) -> int | None:
        """A whole number of at least 1."""
        value = self.integer(name)
        if value is not None and value < 1:
            raise InvalidRequest(f"`{name}` must be at least 1", param=name)
        return value

    def number(self, name: str) -> float | None:
        """Any number."""
        value: float | None = self._take(name, (int, float), "a number")
        return value

    def list(self, name: str) -> list[Any]:
        """An array; empty where it is absent."""
        return self._take(name, list, "an array") or []

    def object(self, name: str) -> dict[str, Any]:
        """An object; empty where it is absent."""
        return self._take(name, dict, "an object") or {}

    def _take(self, name: str, type: Any, what: str) -> Any:
        value = self._fields.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, type)):
            raise InvalidRequest(f"`{name}` must be {what}", param=name)
        return value
