"""Chat completion chunks → events.

The usage comes on the finish chunk or after it, so the end is told at the end mark, when both
are known.  Blocks have no bounds on the wire: one is over when another begins.
"""

from __future__ import annotations

from random import getrandbits
from typing import TYPE_CHECKING, Any

import orjson

from proxy.errors import UpstreamError
from proxy.events import Block, BlockClosed, BlockDelta, BlockOpened, MessageEnded, MessageStarted, Stop, Usage
from proxy.refusals import Scrub, read_refusal, refused
from proxy.sse import DONE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.errors import GatewayError
    from proxy.events import Event
    from proxy.sse import Frame

STOP: dict[str, Stop] = {
    "stop": Stop.END,
    "eos": Stop.END,
    "length": Stop.LENGTH,
    "model_length": Stop.LENGTH,
    "insufficient_system_resource": Stop.LENGTH,
    "tool_calls": Stop.TOOL_CALLS,
    "function_call": Stop.TOOL_CALLS,
    "content_filter": Stop.CONTENT_FILTER,
}


class ChatReader:
    """Read the first choice of one stream; quirks of the wire end here.

    ``finished`` tells that a finish reason was read, ``done`` that the end was told.
    Raises the provider's own error where a frame holds one.
    """

    def __init__(self, scrub: Scrub) -> None:
        self._scrub = scrub
        self._started = False
        self._open: Block | None = None
        self._index = -1  # of the open block
        self._opened: object = None  # the id and key with which it was opened
        self._call: object = None  # which tool call is open: its index, else its id, else its name
        self._stop: Stop | None = None
        self._usage: dict[str, Any] | None = None
        self._called = False  # a tool
        self._ids: set[str] = set()  # of its calls
        self.finished = False
        self.done = False

    def read(self, frame: Frame) -> Iterator[Event]:
        """Read one frame."""
        if self.done:
            return
        if frame.data.startswith(DONE):
            yield from self.end()
            return
        if frame.event == "error":
            raise self._refused(frame.data)
        try:
            chunk = orjson.loads(frame.data)
        except orjson.JSONDecodeError:
            raise UpstreamError("the provider sent a frame that is not JSON") from None
        if not isinstance(chunk, dict):
            raise UpstreamError("the provider sent a frame that is not an object")
        if chunk.get("error") or chunk.get("object") == "error":
            raise self._refused(chunk)
        yield from self.chunk(chunk)

    def chunk(self, chunk: dict[str, Any]) -> Iterator[Event]:
        """Read one decoded chunk; a whole answer is one chunk whose deltas are messages."""
        usage = chunk.get("usage")
        if isinstance(usage, dict) and (self._usage is None or usage.get("prompt_tokens") or usage.get("total_tokens")):
            self._usage = usage
        choices = chunk.get("choices")
        candidates = choices if isinstance(choices, list) else ()
        choice = next((c for c in candidates if isinstance(c, dict) and not c.get("index")), None)
        if choice is None:
            return
        if not self._started:
            self._started = True
            yield MessageStarted(_text(chunk.get("id")), _text(chunk.get("model")))
        delta = choice.get("delta")
        if delta is None:  # Perplexity's streams have both, and the message is all of the text so far
            delta = choice.get("message")
        if isinstance(delta, dict):
            yield from self._delta(delta)
        if reason := choice.get("finish_reason"):
            self.finished = True
            self._stop = STOP.get(str(reason), Stop.END)

    def end(self) -> Iterator[Event]:
        """The end mark, or a body that ended after the finish reason."""
        self.done = True
        yield from self._close()
        stop = self._stop or Stop.END
        if stop is Stop.END and self._called:  # Gemini's and Ollama's word for it is `stop`
            stop = Stop.TOOL_CALLS
        yield MessageEnded(stop, self.usage)

    @property
    def usage(self) -> Usage | None:
        """What the provider says the answer costs; None until it does."""
        return usage_of(self._usage) if self._usage else None

    def _refused(self, body: object) -> GatewayError:
        refusal = read_refusal(body)
        return refused(refusal.status, refusal, self._scrub)

    def _delta(self, delta: dict[str, Any]) -> Iterator[Event]:
        thinking = delta.get("reasoning_content")
        if thinking is None:  # two homes with the same text: one is shown
            thinking = delta.get("reasoning")
        content = delta.get("content")
        if isinstance(content, list):  # Mistral's thinking parts
            yield from self._parts(content)
            content = None
        for block, value in ((Block.THINKING, thinking), (Block.TEXT, content), (Block.REFUSAL, delta.get("refusal"))):
            if text := _text(value):
                yield from self._say(block, text)
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, dict):
                yield from self._tool_call(call)

    def _parts(self, parts: list[Any]) -> Iterator[Event]:
        for part in parts:
            if not isinstance(part, dict):
                continue
            if part.get("type") == "thinking":
                inner = part.get("thinking")
                texts = inner if isinstance(inner, list) else [{"text": inner}]
                for one in texts:
                    if isinstance(one, dict) and (text := _text(one.get("text"))):
                        yield from self._say(Block.THINKING, text)
            elif text := _text(part.get("text")):
                yield from self._say(Block.TEXT, text)

    def _say(self, block: Block, text: str) -> Iterator[Event]:
        if self._open is not block:
            yield from self._begin(block)
        yield BlockDelta(self._index, block, text)

    def _tool_call(self, call: dict[str, Any]) -> Iterator[Event]:
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        id, name = _text(call.get("id")), _text(function.get("name"))
        index = call.get("index")
        # A name comes once, so that one without index and id is a call of its own.
        known = index if isinstance(index, int) else id or (object() if name else self._call)
        # Old Ollama gives every parallel call the index 0: a new id with a name is a new call.
        if self._open is not Block.TOOL_CALL or known != self._call or (id and name and (id, known) != self._opened):
            if not (id or name):
                return  # an end mark with everything null (Workers AI)
            self._call = known
            self._opened = (id, known)
            if not id or id == "null" or id in self._ids:  # Mistral's word for none; LocalAI's one for all
                id = f"call_{getrandbits(96):024x}"
            self._ids.add(id)
            self._called = True
            yield from self._begin(Block.TOOL_CALL, id, name)
        arguments = function.get("arguments")
        if isinstance(arguments, dict | list):
            arguments = orjson.dumps(arguments).decode()
        if text := _text(arguments):
            yield BlockDelta(self._index, Block.TOOL_CALL, text)

    def _begin(self, block: Block, id: str = "", name: str = "") -> Iterator[Event]:
        yield from self._close()
        self._open = block
        self._index += 1
        yield BlockOpened(self._index, block, id, name)

    def _close(self) -> Iterator[Event]:
        if self._open is not None:
            self._open = None
            yield BlockClosed(self._index)


def usage_of(usage: dict[str, Any]) -> Usage:
    """Read OpenAI's usage object."""
    prompt, completion = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    read, written = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    reasoning = _count(completion, "reasoning_tokens")
    if reasoning and _count(usage, "total_tokens") == read + written + reasoning:
        written += reasoning  # xAI counts thoughts apart
    return Usage(
        read,
        written,
        cached=_count(prompt, "cached_tokens") or _count(usage, "prompt_cache_hit_tokens"),
        cache_written=_count(prompt, "cache_write_tokens"),
        reasoning=reasoning,
    )


def _count(source: object, name: str) -> int:
    value = source.get(name) if isinstance(source, dict) else None
    return value if isinstance(value, int) and value > 0 else 0


def _text(value: object) -> str:
    """Text as it is; a number is a token that looks like one (Workers AI), null is nothing."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""
