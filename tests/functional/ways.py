"""The ways that a request may take to its handler, and which one it took.

``lane``: a plain request, past aiohttp.  ``express``: through aiohttp's parser, past its application.
``application``: through all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy import plain
from proxy.express import Express
from proxy.plain import Plain

if TYPE_CHECKING:
    import pytest

WAYS = ("lane", "express", "application")


def watch(monkeypatch: pytest.MonkeyPatch, best: str = "lane") -> list[str]:
    """Note which way each POST takes; ``best`` is the shortest that is open."""
    taken: list[str] = []
    take = Express.take

    def look(self, request):
        serving = take(self, request) if best != "application" else None
        if not isinstance(request, Plain):
            if request.method == "POST":
                taken.append("application" if serving is None else "express")
        elif serving is not None:
            taken.append("lane")
        return serving

    monkeypatch.setattr(Express, "take", look)
    if best != "lane":
        monkeypatch.setattr(plain, "read", lambda *_: None)
    return taken
