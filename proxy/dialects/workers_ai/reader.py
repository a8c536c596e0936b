"""Workers AI's native streams → events.

`{"response": "…", "p": "…"}` where ``p`` is padding of random length; newer models send OpenAI's chunks
from the same endpoint and a native tail behind them.  The old shape has no finish reason: the end is
the end mark, and whether the limit of tokens cut the answer is seen in the counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from proxy.blocks import Blocks, make_id
from proxy.dialects.workers_ai.refusals import refusal_of
from proxy.errors import UpstreamError
from proxy.events import Block, MessageEnded, MessageStarted, Stop, Usage
from proxy.sse import DONE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from proxy.events import Event
    from proxy.refusals import Scrub
    from proxy.sse import Frame

_TEXT = Block.TEXT  # members of an enum are looked up slowly, and this one once per chunk
#: The fields of most native chunks.
_TEXT_ONLY = frozenset(("response", "p"))

STOP: dict[str, Stop] = {
    "stop": Stop.END,
    "length": Stop.LENGTH,
    "model_length": Stop.LENGTH,
    "max_tokens": Stop.LENGTH,
    "tool_calls": Stop.TOOL_CALLS,
    "function_call": Stop.TOOL_CALLS,
    "content_filter": Stop.CONTENT_FILTER,
}


class Reader:
    """Read one stream; quirks of the wire end here.

    ``max_tokens`` is the limit that was asked for, ``new_id`` makes ids for calls without one.
    ``finished`` also tells that a native tail came: counts without text, which nothing but the end mark follows.
    """

    def __init__(self, scrub: Scrub, *, max_tokens: int | None = None, new_id: Callable[[], str] | None = None) -> None:
        self._scrub = scrub
        self._max_tokens = max_tokens
        self._blocks = Blocks(new_id or make_id)
        self._started = False
        self._stop: Stop | None = None
        self._counts: dict[str, Any] = {}
        self.finished = False
        self.done = False

    @property
    def usage(self) -> Usage | None:
        """The last count that is not all zeros."""
        return usage_of(self._counts) if self._counts else None

    def read(self, frame: Frame) -> Iterable[Event]:
        """Read one frame."""
        if self.done:
            return ()
        if frame.data.startswith(DONE):
            return self.end()
        try:
            chunk = orjson.loads(frame.data)
        except orjson.JSONDecodeError:
            raise UpstreamError("the provider sent a frame that is not JSON") from None
        if not isinstance(chunk, dict):
            raise UpstreamError("the provider sent a frame that is not an object")
        if chunk.get("error") or chunk.get("errors") or chunk.get("success") is False or frame.event == "error":
            raise refusal_of(chunk, self._scrub)
        return self._more(chunk) or self.chunk(chunk)

    def chunk(self, chunk: dict[str, Any]) -> Iterator[Event]:
        """Read one decoded chunk; a whole result is one."""
        if not self._started:
            self._started = True
            yield MessageStarted(_text(chunk.get("id")), _text(chunk.get("model")))
        counted = self._count(chunk.get("usage"))
        text = _text(chunk.get("response"))
        if text:
            yield from self._blocks.say(Block.TEXT, text)
        calls = chunk.get("tool_calls")
        if isinstance(calls, list):
            yield from self._calls(calls)
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        reason = chunk.get("finish_reason")
        if isinstance(choice, dict):
            delta = choice.get("delta")
            if delta is None:
                delta = choice.get("message")
            if isinstance(delta, dict):
                yield from self._delta(delta)
            reason = choice.get("finish_reason") or reason
        if reason:
            self.finished = True
            self._stop = STOP.get(str(reason), Stop.END)
        elif self._stop is None:
            self.finished = counted and not text and choice is None and not calls

    def _more(self, chunk: dict[str, Any]) -> tuple[Event, ...]:
        """Read a chunk that has only more text, as nearly all native ones have; nothing of any other."""
        text = chunk.get("response")
        if not isinstance(text, str) or not text or not chunk.keys() <= _TEXT_ONLY:
            return ()
        events = self._blocks.more(_TEXT, text)
        if events and self._stop is None:
            self.finished = False
        return events

    def end(self) -> Iterator[Event]:
        """The end mark, or a body that ended after the answer was complete."""
        self.done = True
        yield from self._blocks.end()
        stop, usage = self._stop, self.usage
        if stop is None and usage is not None and self._max_tokens and usage.output >= self._max_tokens:
            stop = Stop.LENGTH
        if self._blocks.called and stop in (None, Stop.END):
            stop = Stop.TOOL_CALLS
        yield MessageEnded(stop or Stop.END, usage)

    def _count(self, counts: object) -> bool:
        """Keep counts that count: zeros come last, and counts of one token on every chunk."""
        if not isinstance(counts, dict) or not (counts.get("prompt_tokens") or counts.get("input_tokens")):
            return False
        self._counts = counts
        return True

    def _delta(self, delta: dict[str, Any]) -> Iterator[Event]:
        thinking = delta.get("reasoning_content")
        if thinking is None:
            thinking = delta.get("reasoning")
        content = delta.get("content")
        if isinstance(content, list):
            content = "".join(_text(part.get("text")) for part in content if isinstance(part, dict))
        for block, value in ((Block.THINKING, thinking), (Block.TEXT, content)):
            if text := _text(value):
                yield from self._blocks.say(block, text)
        calls = delta.get("tool_calls")
        if isinstance(calls, list):
            yield from self._calls(calls)

    def _calls(self, calls: list[Any]) -> Iterator[Event]:
        for call in calls:
            if not isinstance(call, dict):
                continue
            inner = call.get("function")
            function = inner if isinstance(inner, dict) else call  # natively the call is the function
            arguments = function.get("arguments")
            yield from self._blocks.call(
                call.get("index"),
                _text(call.get("id")),
                _text(function.get("name")),
                _text({} if inner is None and arguments is None else arguments),
            )


def usage_of(counts: dict[str, Any]) -> Usage:
    """Read the counts, in the names of chat completions or of Responses."""
    details = counts.get("prompt_tokens_details") or counts.get("input_tokens_details")
    thoughts = counts.get("completion_tokens_details") or counts.get("output_tokens_details")
    return Usage(
        _count(counts, "prompt_tokens") or _count(counts, "input_tokens"),
        _count(counts, "completion_tokens") or _count(counts, "output_tokens"),
        _count(details, "cached_tokens"),
        reasoning=_count(thoughts, "reasoning_tokens"),
    )


def _count(source: object, name: str) -> int:
    value = source.get(name) if isinstance(source, dict) else None
    return value if type(value) is int and value > 0 else 0  # true is no number here


def _text(value: object) -> str:
    """Text as it is.  Tokens that look like JSON came as what they look like: say them as JSON; null is nothing."""
    if isinstance(value, str):
        return value
    try:
        return "" if value is None else orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        raise UpstreamError("the provider sent a value that is nested too deeply") from None
