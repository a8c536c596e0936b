"""Chat completion chunks → events.

The usage comes on the finish chunk or after it, so the end is told at the end mark, when both
are known.  Blocks have no bounds on the wire: one is over when another begins, but for tool calls,
whose fragments say where they belong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from proxy.blocks import Blocks
from proxy.dialects.openai_chat.details import seal, words
from proxy.dialects.openai_chat.errors import theirs
from proxy.dialects.openai_chat.mould import More, Mould, more
from proxy.errors import UpstreamError
from proxy.events import Block, MessageEnded, MessageStarted, Stop, Usage
from proxy.refusals import Scrub
from proxy.sse import DONE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from proxy.errors import GatewayError
    from proxy.events import Event
    from proxy.sse import Frame

_TOOL_CALL = Block.TOOL_CALL  # members of an enum are looked up slowly, and this one once per chunk

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
        self._blocks = Blocks()
        self._mould = Mould()
        self._stop: Stop | None = None
        self._usage: dict[str, Any] | None = None
        self.finished = False
        self.done = False

    def read(self, frame: Frame) -> Iterable[Event]:
        """Read one frame."""
        if self.done:
            return ()
        if frame.event != "error" and (said := self._mould.fit(frame.data)) and (events := self._go_on(said)):
            return events
        if frame.data.startswith(DONE):
            return self.end()
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
        said = more(chunk)
        if said is not None:
            self._mould.learn(frame.data, said)
            if events := self._go_on(said):
                return events
        return self.chunk(chunk)

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

    def _go_on(self, said: More) -> tuple[Event, ...]:
        if said.block is _TOOL_CALL:
            return self._blocks.argue(said.call, said.text)
        return self._blocks.more(said.block, said.text)

    def end(self) -> Iterator[Event]:
        """The end mark, or a body that ended after the finish reason."""
        self.done = True
        yield from self._blocks.end()
        stop = self._stop or Stop.END
        if stop is Stop.END and self._blocks.called:  # Gemini's and Ollama's word for it is `stop`
            stop = Stop.TOOL_CALLS
        yield MessageEnded(stop, self.usage)

    @property
    def usage(self) -> Usage | None:
        """What the provider says the answer costs; None until it does."""
        return usage_of(self._usage) if self._usage else None

    def _refused(self, body: object) -> GatewayError:
        return theirs(body, self._scrub)

    def _delta(self, delta: dict[str, Any]) -> Iterator[Event]:
        thinking = delta.get("reasoning_content")
        if thinking is None:  # two homes with the same text: one is shown
            thinking = delta.get("reasoning")
        details = delta.get("reasoning_details")
        if isinstance(details, list) and details:  # a third home, with seals (OpenRouter)
            yield from self._details([detail for detail in details if isinstance(detail, dict)], _text(thinking))
            thinking = None
        content = delta.get("content")
        if isinstance(content, list):  # Mistral's thinking parts
            yield from self._parts(content)
            content = None
        for block, value in ((Block.THINKING, thinking), (Block.TEXT, content), (Block.REFUSAL, delta.get("refusal"))):
            if text := _text(value):
                yield from self._blocks.say(block, text)
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, dict):
                yield from self._tool_call(call)

    def _details(self, details: list[dict[str, Any]], thinking: str) -> Iterator[Event]:
        if thinking and not any(map(words, details)):
            yield from self._blocks.say(Block.THINKING, thinking)
        for detail in details:
            if text := words(detail):
                yield from self._blocks.say(Block.THINKING, text)
            if sealed := seal(detail):
                yield from self._blocks.hide(sealed) if detail.get("data") else self._blocks.seal(sealed)

    def _parts(self, parts: list[Any]) -> Iterator[Event]:
        for part in parts:
            if not isinstance(part, dict):
                continue
            if part.get("type") == "thinking":
                inner = part.get("thinking")
                texts = inner if isinstance(inner, list) else [{"text": inner}]
                for one in texts:
                    if isinstance(one, dict) and (text := _text(one.get("text"))):
                        yield from self._blocks.say(Block.THINKING, text)
            elif text := _text(part.get("text")):
                yield from self._blocks.say(Block.TEXT, text)

    def _tool_call(self, call: dict[str, Any]) -> Iterator[Event]:
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        id, arguments = _text(call.get("id")), function.get("arguments")
        if isinstance(arguments, dict | list):
            try:
                arguments = orjson.dumps(arguments).decode()
            except orjson.JSONEncodeError:
                raise UpstreamError("the provider sent arguments that are nested too deeply") from None
        yield from self._blocks.call(
            call.get("index"),
            "" if id == "null" else id,  # Mistral's word for none
            _text(function.get("name")),
            _text(arguments),
            _signature(call),
        )


def _signature(call: dict[str, Any]) -> str:
    """Where Google's own OpenAI endpoint keeps a thought signature."""
    match call:
        case {"extra_content": {"google": {"thought_signature": str(signature)}}}:
            return signature
    return ""


def usage_of(usage: dict[str, Any]) -> Usage:
    """Read OpenAI's usage object."""
    prompt, completion = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    read, written = _number(usage.get("prompt_tokens")), _number(usage.get("completion_tokens"))
    if not prompt and not completion:
        return Usage(
            read, written, cached=_count(usage, "prompt_cache_hit_tokens") if "prompt_cache_hit_tokens" in usage else 0
        )
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
    return _number(source.get(name)) if isinstance(source, dict) else 0


def _number(value: object) -> int:
    return value if type(value) is int and value > 0 else 0  # true is none here


def _text(value: object) -> str:
    """Text as it is; a number is a token that looks like one (Workers AI), null is nothing."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""
