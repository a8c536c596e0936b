"""``chat``: an answer in the terminal as it arrives, and how fast it was."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from proxy.commands import Failure, show, web
from proxy.commands.gateway import Gateway, message_of
from proxy.sse import DONE, Decoder

if TYPE_CHECKING:
    import argparse

#: The fields of a delta that hold text, in the order in which they are shown.
KINDS = ("reasoning_content", "content")
MAX_FRAME = 16 * 2**20
#: Streams have no total; the gateway's own clocks are shorter than this silence (seconds), and it keeps streams alive.
TIME = aiohttp.ClientTimeout(total=None, sock_connect=web.CONNECT, sock_read=1800)


def run(args: argparse.Namespace) -> int:
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": _prompt(args.prompt)}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if args.model:
        body["model"] = args.model
    return asyncio.run(_chat(Gateway(args), body))


def _prompt(words: list[str]) -> str:
    if words and words != ["-"]:
        # Arguments may hold bytes that are no text.
        prompt = " ".join(words).encode("utf-8", "replace").decode()
    elif words or not sys.stdin.isatty():
        prompt = sys.stdin.buffer.read().decode("utf-8", "replace")
    else:
        raise Failure('what is the question?  ai-proxy chat "Why is the sky blue?"', code=2)
    if not prompt.strip():
        raise Failure("the prompt is empty", code=2)
    return prompt


async def _chat(gateway: Gateway, body: dict[str, Any]) -> int:
    screen, answer = Screen(), Answer()
    try:
        async with web.session() as session:
            await _stream(session, gateway, body, answer, screen)
    finally:
        screen.close()
    print(answer.summary(), file=sys.stderr)
    return 0


async def _stream(
    session: aiohttp.ClientSession, gateway: Gateway, body: dict[str, Any], answer: Answer, screen: Screen
) -> None:
    async with gateway.ask(session, "POST", "/v1/chat/completions", json=body, timeout=TIME) as response:
        if response.content_type != "text/event-stream":
            raise Failure(f"{gateway.url} answered {response.content_type} where a stream was asked for")
        decoder = Decoder(MAX_FRAME)
        async for chunk in response.content.iter_any():
            for frame in decoder.feed(chunk):
                if frame.data == DONE:
                    return
                for kind, text in answer.take(frame.data):
                    screen.write(kind, text)
            if decoder.overlong:
                raise Failure(f"a frame of the stream is longer than {MAX_FRAME} bytes")
    if not answer.finished:
        raise Failure("the stream ended before the answer did")


class Answer:
    """What the frames of a stream add up to, and when they came."""

    def __init__(self) -> None:
        self.model = ""
        self.finished = False
        self._asked = time.monotonic()
        self._first = self._last = 0.0
        self._pieces = 0
        self._usage: dict[str, Any] = {}

    def take(self, data: bytes) -> list[tuple[str, str]]:
        """The pieces of text in a frame, each with its kind: ``content`` or ``reasoning_content``."""
        try:
            chunk: Any = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise Failure("the stream has a frame that is not JSON") from None
        if not isinstance(chunk, dict):
            raise Failure("the stream has a frame that is not an object")
        if chunk.get("error"):
            raise Failure(f"the answer broke off: {message_of(data) or 'the gateway does not say why'}")
        if isinstance(chunk.get("model"), str):
            self.model = self.model or chunk["model"]
        if isinstance(chunk.get("usage"), dict):
            self._usage = chunk["usage"]
        pieces: list[tuple[str, str]] = []
        for choice in _objects(chunk.get("choices")):
            self.finished = self.finished or bool(choice.get("finish_reason"))
            for delta in _objects([choice.get("delta")]):
                texts = [(kind, delta.get(kind)) for kind in KINDS]
                pieces += [(kind, text) for kind, text in texts if isinstance(text, str) and text]
        if pieces:
            self._last = time.monotonic()
            self._first = self._first or self._last
            self._pieces += 1
        return pieces

    def summary(self) -> str:
        """Time to first token, tokens per second, usage: what there is of them."""
        parts = [self.model] if self.model else []
        if self._pieces:
            parts.append(f"first token after {self._first - self._asked:.2f} s")
        tokens, sent = self._usage.get("completion_tokens"), self._usage.get("prompt_tokens")
        if speed := self._speed(tokens):
            parts.append(speed)
        parts.append(f"{sent} tokens in, {tokens} out" if self._usage else "usage unknown")
        return " · ".join(parts)

    def _speed(self, tokens: Any) -> str:
        """The first piece has no time of its own: the clock starts when it is there."""
        took = self._last - self._first
        if took <= 0:
            return ""
        if isinstance(tokens, int) and tokens > 1:
            return f"{(tokens - 1) / took:.1f} tokens/s"
        return f"{(self._pieces - 1) / took:.1f} frames/s"


def _objects(values: Any) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


class Screen:
    """Where text goes as it comes.  On a terminal: a sign of life until then, thoughts dimmed, no escape sequences."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._waiting: AbstractContextManager[Any] = nullcontext()
        self._column = 0  # does the last line still want its end?
        self._kind = ""
        if self._terminal:
            from rich.console import Console

            self._console = Console(highlight=False)
            self._waiting = self._console.status("waiting for the first token")
        self._waiting.__enter__()

    def write(self, kind: str, text: str) -> None:
        self._stop_waiting()
        if not self._terminal:
            if kind == "content":  # a file or the next program wants the answer only
                self._put(text)
            return
        if self._kind and kind != self._kind:
            self._line_end()
        self._kind = kind
        dim = kind == "reasoning_content" and self._console.color_system and not self._console.no_color
        self._put(f"\x1b[2m{show.harmless(text)}\x1b[0m" if dim else show.harmless(text), text)

    def _put(self, text: str, visible: str | None = None) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
        self._column = not (visible or text).endswith("\n")

    def _stop_waiting(self) -> None:
        self._waiting.__exit__(None, None, None)
        self._waiting = nullcontext()

    def _line_end(self) -> None:
        if self._column:
            self._put("\n")

    def close(self) -> None:
        self._stop_waiting()
        self._line_end()
