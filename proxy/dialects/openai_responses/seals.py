"""Seals of other dialects in the one opaque field that clients send back: `encrypted_content`.

Anthropic signs thoughts and hides some, Gemini signs tool calls; each seal must come back with the next
turn or the provider refuses it.  Clients of this dialect return reasoning items unread, so every seal
rides in one.  The mark in front tells ours from what a provider of this dialect encrypted: that is of
use to nobody else, and another provider would refuse it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple
from urllib.parse import quote, unquote


class Sealed(StrEnum):
    """What a seal belongs to."""

    THOUGHT = "thought"
    #: The data itself of a thought that is not shown.
    HIDDEN = "hidden"
    CALL = "call"


class Seal(NamedTuple):
    """A seal's value; ``call`` is the tool call's id."""

    kind: Sealed
    value: str
    call: str = ""


_MARK = "proxy:"
_KINDS = frozenset(Sealed)
#: What a provider of this dialect encrypted, when it travels through another dialect as a signature.
_OURS = "responses:"


def wrap(seal: Seal) -> str:
    """Say a seal as `encrypted_content`; what a provider of this dialect had put there comes as it was."""
    if seal.kind is Sealed.THOUGHT and seal.value.startswith(_OURS):
        return seal.value.removeprefix(_OURS)
    return f"{_MARK}{seal.kind}:{quote(seal.call, safe='')}:{seal.value}"


def unwrap(content: str) -> Seal | None:
    """Read `encrypted_content`; None where it is not of our making."""
    if not content.startswith(_MARK):
        return None
    kind, _, rest = content.removeprefix(_MARK).partition(":")
    call, _, value = rest.partition(":")
    return Seal(Sealed(kind), value, unquote(call)) if kind in _KINDS else None


def sign(encrypted: str) -> str:
    """Say a provider's `encrypted_content` as a signature that other dialects carry."""
    return _OURS + encrypted


def unsign(signature: str) -> str:
    """Read such a signature; "" where a provider of another dialect made it."""
    return signature.removeprefix(_OURS) if signature.startswith(_OURS) else ""
