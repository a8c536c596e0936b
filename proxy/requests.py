"""What a client asks for, whatever the dialect: the waist of the hourglass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Message:
    """One turn; ``content`` is text or the parts as the client sent them."""

    role: str
    content: str | list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Request:
    """A conversation to go on with; None leaves a setting to the provider."""

    model: str | None
    messages: tuple[Message, ...]
    stream: bool
    max_tokens: int | None = None
    temperature: float | None = None
