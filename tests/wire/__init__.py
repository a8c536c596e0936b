"""Hand-made streams, each named for its quirk: ``wire("crlf")``."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent

#: The chat completion streams by name.
CHAT = {path.stem: path.read_bytes() for path in sorted((FOLDER / "openai_chat").glob("*.sse"))}


def wire(name: str) -> bytes:
    """One of the chat completion streams."""
    return CHAT[name]
