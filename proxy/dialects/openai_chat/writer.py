"""Events → chat completion chunks, and the fold of them → a chat completion.

Clients join what they are told twice, so the role is said once, a tool call's id and name once, and
the finish reason once.  The parts of a chunk that never change are rendered once per stream.
"""

from __future__ import annotations

import time
from random import getrandbits
from typing import Any, assert_never

import orjson

from proxy.events import (
    Answer,
    Block,
    BlockClosed,
    BlockDelta,
    BlockOpened,
    BlockSigned,
    Cited,
    Event,
    MessageEnded,
    MessageStarted,
    Stop,
    Usage,
)
from proxy.sse import DONE, comment, encode

FINISH: dict[Stop, str] = {
    Stop.END: "stop",
    Stop.STOP_SEQUENCE: "stop",
    Stop.LENGTH: "length",
    Stop.TOOL_CALLS: "tool_calls",
    Stop.CONTENT_FILTER: "content_filter",
}

#: The field of a delta that holds a block's text; tool calls have a place of their own.
DELTA: dict[Block, bytes] = {Block.TEXT: b"content", Block.THINKING: b"reasoning_content", Block.REFUSAL: b"refusal"}

_COMMENT = comment(b"keep-alive")
_END = encode(DONE)


class ChatWriter:
    """Write one stream; ``model`` is the name the client is told."""

    def __init__(self, model: str, *, include_usage: bool = False) -> None:
        self._include_usage = include_usage
        self._id = f"chatcmpl-{getrandbits(96):024x}"
        created = int(time.time())
        head = {"id": self._id, "object": "chat.completion.chunk", "created": created, "model": model}
        #: Up to the value of `delta`, and what follows it.
        self._open = b"data: " + orjson.dumps(head)[:-1] + b',"choices":[{"index":0,"delta":'
        self._shut = b',"logprobs":null,"finish_reason":null}]}\n\n'
        self._block: Block | None = None  # of the last delta
        self._head = b""  # up to that block's text; b"" for a tool call, whose text is written apart
        self._tail = b"}" + self._shut
        self._calls = -1  # index of the last tool call
        self._silent = False  # that call has said no arguments yet

    def write(self, event: Event) -> bytes:
        """Render one event; b"" where a chunk has no word for it."""
        if isinstance(event, BlockDelta):  # the hot path: nothing but the text is new
            if event.block is not self._block:
                self._turn(event.block)
            if self._head:
                return self._head + orjson.dumps(event.text) + self._tail
            if not event.text:
                return b""
            self._silent = False
            return self._arguments(orjson.dumps(event.text))
        match event:
            case BlockOpened(block=Block.TOOL_CALL):
                self._calls += 1
                self._silent = True
                call = {"index": self._calls, "id": event.id, "type": "function"}
                return self._delta({"tool_calls": [{**call, "function": {"name": event.name, "arguments": ""}}]})
            case BlockClosed():
                if self._silent:  # no arguments are an empty object here
                    self._silent = False
                    return self._arguments(b'"{}"')
                return b""
            case MessageStarted():
                return self._delta({"role": "assistant", "content": ""})
            case Cited():
                return self._delta({"annotations": [_annotation(event.citation)]}) if "url" in event.citation else b""
            case MessageEnded():
                return self._ended(event)
            case BlockOpened() | BlockSigned():
                return b""
            case _:
                assert_never(event)

    @staticmethod
    def keepalive(mode: str) -> bytes:
        """What is sent in silence: a comment, or a chunk that says nothing."""
        return {"comment": _COMMENT, "chunk": EMPTY_CHUNK}.get(mode, b"")

    def _turn(self, block: Block) -> None:
        field = DELTA.get(block)
        self._block = block
        self._head = b'%b{"%b":' % (self._open, field) if field else b""

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return self._open + orjson.dumps(delta) + self._shut

    def _arguments(self, text: bytes) -> bytes:
        return b'%b{"tool_calls":[{"index":%d,"function":{"arguments":%b}}]}%b' % (
            self._open,
            self._calls,
            text,
            self._shut,
        )

    def _ended(self, event: MessageEnded) -> bytes:
        finish = b'%b{},"logprobs":null,"finish_reason":"%b"}]}\n\n' % (self._open, FINISH[event.stop].encode())
        if not self._include_usage or event.usage is None:
            return finish + _END
        head = self._open[: self._open.index(b',"choices":')]
        usage = orjson.dumps(usage_words(event.usage))
        return b'%b%b,"choices":[],"usage":%b}\n\n%b' % (finish, head, usage, _END)


EMPTY_CHUNK = encode(
    b'{"id":"keep-alive","object":"chat.completion.chunk","created":0,"model":"",'
    b'"choices":[{"index":0,"delta":{},"finish_reason":null}]}'
)


def whole(answer: Answer, model: str) -> bytes:
    """Render a whole answer."""
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
    said: dict[Block, list[str]] = {}
    calls, annotations = [], []
    for block in answer.blocks:
        if block.block is Block.TOOL_CALL:
            function = {"name": block.name, "arguments": block.text or "{}"}
            calls.append({"id": block.id, "type": "function", "function": function})
        else:
            said.setdefault(block.block, []).append(block.text)
        annotations += [_annotation(c) for c in block.citations if "url" in c]
    for kind, texts in said.items():
        message[DELTA[kind].decode()] = "".join(texts)
    if calls:
        message["tool_calls"] = calls
    if annotations:
        message["annotations"] = annotations
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": FINISH[answer.stop or Stop.END],
    }
    out = {
        "id": f"chatcmpl-{getrandbits(96):024x}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
    }
    if answer.usage is not None:
        out["usage"] = usage_words(answer.usage)
    return orjson.dumps(out)


def usage_words(usage: Usage) -> dict[str, Any]:
    """Say usage in this dialect's words."""
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def _annotation(citation: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "url_citation",
        "url_citation": {
            "url": citation["url"],
            "title": citation.get("title") or "",
            "start_index": citation.get("start_index", 0),
            "end_index": citation.get("end_index", 0),
        },
    }
