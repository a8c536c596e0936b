"""Answers of real providers, kept in a folder beside this repository; tests that need them skip where it is absent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "recordings"


class Recording(NamedTuple):
    """One answer: whose, its body as it came, and the call."""

    name: str
    body: bytes
    meta: dict[str, Any]

    @property
    def provider(self) -> str:
        return self.name.partition("/")[0]

    @property
    def status(self) -> int:
        return int(self.meta["status"])


def _read(suffix: str) -> list[Recording]:
    found = []
    for path in sorted(FOLDER.rglob(f"*{suffix}")):
        if path.name.endswith(".meta.json"):
            continue
        meta = json.loads(path.with_name(path.name.removesuffix(suffix) + ".meta.json").read_bytes())
        found.append(Recording(f"{path.parent.name}/{path.name.removesuffix(suffix)}", path.read_bytes(), meta))
    return found


def _params(recordings: list[Recording]) -> list[Any]:
    if recordings:
        return [pytest.param(recording, id=recording.name) for recording in recordings]
    reason = f"no recordings at {FOLDER.parent.name}/{FOLDER.name} beside the repository"
    return [pytest.param(None, id="none", marks=pytest.mark.skip(reason=reason))]


STREAMS = _read(".sse.txt")
WHOLES = _read(".json")

#: Every recorded event stream.
streams = pytest.mark.parametrize("recording", _params(STREAMS))
#: Those that are chat completions.
chat_streams = pytest.mark.parametrize(
    "recording",
    _params([r for r in STREAMS if b'"choices":' in r.body and b'"delta":' in r.body]),
)
#: Bodies that say no.
refusals = pytest.mark.parametrize("recording", _params([r for r in WHOLES if r.status >= 400]))
#: Whole chat completions.
chat_wholes = pytest.mark.parametrize(
    "recording", _params([r for r in WHOLES if r.status == 200 and b'"choices"' in r.body[:200]])
)
