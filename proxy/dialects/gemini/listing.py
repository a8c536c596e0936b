"""Small answers of the client side: the models, one model, a count of tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson

METHODS = ("generateContent", "streamGenerateContent", "countTokens")


class Listed(NamedTuple):
    """What is told of a model; ``context`` is in tokens."""

    name: str
    label: str = ""
    description: str = ""
    context: int | None = None


def models(listed: Iterable[Listed]) -> bytes:
    """Render the answer to `GET /v1beta/models`, which is one page."""
    return orjson.dumps({"models": [_model(one) for one in listed]})


def model(listed: Listed) -> bytes:
    """Render the answer to `GET /v1beta/models/{model}`."""
    return orjson.dumps(_model(listed))


def counted(tokens: int) -> bytes:
    """Render the answer to `:countTokens`."""
    return orjson.dumps({"totalTokens": tokens})


def _model(listed: Listed) -> dict[str, Any]:
    out: dict[str, Any] = {
        "name": f"models/{listed.name}",
        "displayName": listed.label or listed.name,
        "supportedGenerationMethods": METHODS,
    }
    if listed.description:
        out["description"] = listed.description
    if listed.context is not None:
        out["inputTokenLimit"] = listed.context
    return out
