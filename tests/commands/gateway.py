"""A gateway of the tests' own: it answers what the test says, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable

MODELS = {"object": "list", "data": [{"id": "deepseek-chat", "object": "model"}, {"id": "gpt-4", "object": "model"}]}
LABELS = {
    "defaultModel": "deepseek-chat",
    "models": [{"id": "deepseek-chat", "label": "DeepSeek Chat", "description": "General conversation."}],
}
SOURCES = Path(__file__).parent.parent.parent


def frame(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def delta(text: str | None = None, finish: str | None = None, **more: Any) -> bytes:
    delta = {**more} if text is None else {"content": text, **more}
    return frame(model="deepseek-chat", choices=[{"index": 0, "delta": delta, "finish_reason": finish}])


USAGE = frame(model="deepseek-chat", choices=[], usage={"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10})
DONE = b"data: [DONE]\n\n"


class Gateway:
    """``script`` is the stream: bytes are sent, an event is waited for; what ``refusal`` makes is sent instead."""

    def __init__(self) -> None:
        self.url = ""
        self.script: list[bytes | asyncio.Event] = []
        self.refusal: Callable[[], web.Response] | None = None
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        self.left = asyncio.Event()

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/api/models", self._labels)
        app.router.add_post("/v1/chat/completions", self._chat)
        return app

    async def _models(self, request: web.Request) -> web.Response:
        self.asked.append((request.path, dict(request.headers), None))
        return self.refusal() if self.refusal else web.json_response(MODELS)

    async def _labels(self, request: web.Request) -> web.Response:
        self.asked.append((request.path, dict(request.headers), None))
        return self.refusal() if self.refusal else web.json_response(LABELS)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path, dict(request.headers), await request.json()))
        if self.refusal:
            return self.refusal()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        try:
            for step in self.script:
                if isinstance(step, bytes):
                    await response.write(step)
                else:
                    await step.wait()
        except (asyncio.CancelledError, ConnectionError):
            self.left.set()
            raise
        return response


async def program(*argv: str, **more: Any) -> asyncio.subprocess.Process:
    """The command as the shell starts it."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AI_PROXY")}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), asyncio.subprocess.PIPE)
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy", *argv, cwd=SOURCES, env=environ | more.pop("env", {}), **{**pipes, **more}
    )
