"""Events → message stream events, and folded answers → whole messages.

Clients read the `event:` line: a frame without it is lost on them.  There is no `[DONE]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_never
from uuid import uuid4

import orjson

from proxy.dialects.anthropic_messages.count import estimate as count
from proxy.dialects.anthropic_messages.words import REASON, arguments, usage_words
from proxy.errors import UpstreamError
from proxy.events import (
    Block,
    BlockClosed,
    BlockDelta,
    BlockOpened,
    BlockSigned,
    Cited,
    MessageEnded,
    MessageStarted,
    Stop,
    Usage,
)
from proxy.sse import encode

if TYPE_CHECKING:
    from proxy.events import Answer, Event, Folded
    from proxy.requests import Request

#: Block → its delta, and the delta's field.
DELTA: dict[Block, tuple[str, str]] = {
    Block.TEXT: ("text_delta", "text"),
    Block.REFUSAL: ("text_delta", "text"),
    Block.THINKING: ("thinking_delta", "thinking"),
    Block.TOOL_CALL: ("input_json_delta", "partial_json"),
}
_STOPPED = encode(b'{"type":"message_stop"}', "message_stop")
_PING = encode(b'{"type":"ping"}', "ping")
_LETTERS_PER_TOKEN = 4


class Writer:
    """Write events for one client; ``model`` is the name that it is told.

    The first frame has to say what the input costs, which most providers tell at the end: it says
    ``estimate`` (of ``request``, where none is given), and the last frame says the truth.
    """

    def __init__(self, model: str, request: Request | None = None, *, estimate: int = 0) -> None:
        self._model = model
        self._request = request
        self._estimate = estimate
        self._started = False
        self._head = b""  # of a delta frame of the open block, up to its text; b"" where it takes none
        self._thinking = False  # the open block holds thoughts
        self._bare = False  # the open block is a call that has no arguments yet
        self._refused = False
        self._letters = 0  # said so far

    @staticmethod
    def keepalive(mode: str) -> bytes:
        """What is sent in silence; every client of this dialect knows pings."""
        return b"" if mode == "off" else _PING

    def write(self, event: Event) -> bytes:
        """Render one event as whole frames; b"" where this dialect has no word for it."""
        if isinstance(event, BlockDelta):  # the hot path: nothing but the text is new
            text = event.text
            if not self._head or not text:
                return b""
            self._bare = False
            self._letters += len(text)
            return self._head + orjson.dumps(text) + b"}}\n\n"
        match event:
            case BlockOpened():
                return self._start(None) + self._open(event)
            case BlockClosed():
                return self._close(event.index)
            case BlockSigned():
                if not self._thinking:  # Gemini signs text and calls, too
                    return b""
                return _delta(event.index, {"type": "signature_delta", "signature": event.signature})
            case Cited():
                return _delta(event.index, {"type": "citations_delta", "citation": citation(event.citation)})
            case MessageStarted():
                return self._start(event)
            case MessageEnded():
                return self._start(None) + self._end(event)
            case _:
                assert_never(event)

    def _start(self, event: MessageStarted | None) -> bytes:
        if self._started:
            return b""
        self._started = True
        usage = (event and event.usage) or Usage()
        if not usage.input:
            usage = Usage(self._guess(), usage.output)
        message = _message(event.id if event else "", self._model)
        message["usage"] = usage_words(usage) | {"output_tokens": usage.output or 1}
        return _frame("message_start", message=message)

    def _open(self, event: BlockOpened) -> bytes:
        kind, field = DELTA[event.block]
        self._thinking = event.block is Block.THINKING
        self._bare = event.block is Block.TOOL_CALL
        self._refused = self._refused or event.block is Block.REFUSAL
        self._head = b""
        if not event.redacted:
            lead = b'{"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":'
            self._head = b"event: content_block_delta\ndata: " + lead % (event.index, kind.encode(), field.encode())
        block = _block(event.block, id=event.id, name=event.name, redacted=event.redacted)
        return _frame("content_block_start", index=event.index, content_block=block)

    def _close(self, index: int) -> bytes:
        # Anthropic itself sends "" for a call without arguments, which clients that parse at once trip over.
        out = b"%b%b}}\n\n" % (self._head, b'"{}"') if self._bare else b""
        self._bare = False
        self._head = b""
        return out + _frame("content_block_stop", index=index)

    def _end(self, event: MessageEnded) -> bytes:
        usage = event.usage or Usage()
        if not (usage.input and usage.output):
            output = usage.output or max(1, self._letters // _LETTERS_PER_TOKEN)
            usage = Usage(usage.input or self._guess(), output, usage.cached, usage.cache_written, usage.reasoning)
        delta = _stopped(event.stop, event.sequence, self._request, refused=self._refused)
        return _frame("message_delta", delta=delta, usage=usage_words(usage)) + _STOPPED

    def _guess(self) -> int:
        if not self._estimate:
            self._estimate = count(self._request) if self._request else 1
        return self._estimate


def whole(answer: Answer, model: str, request: Request | None = None) -> bytes:
    """Render a whole answer."""
    blocks = [_folded(block) for block in answer.blocks]
    refused = any(block.block is Block.REFUSAL for block in answer.blocks)
    usage = answer.usage or Usage(count(request) if request else 1, max(1, len(answer.text) // _LETTERS_PER_TOKEN))
    message = _message(answer.id, model)
    message |= {"content": blocks, **_stopped(answer.stop or Stop.END, answer.sequence, request, refused=refused)}
    try:
        return orjson.dumps(message | {"usage": usage_words(usage)})
    except orjson.JSONEncodeError:
        raise UpstreamError("the provider sent arguments that are nested too deeply") from None


def citation(told: dict[str, object]) -> dict[str, object]:
    """Say a citation; one that is not Anthropic's becomes a search result, which has a URL and a title."""
    if str(told.get("type")).endswith("_location") and "cited_text" in told:
        return {name: value for name, value in told.items() if name != "text"}
    return {
        "type": "web_search_result_location",
        "cited_text": told.get("text") or "",
        "url": told.get("url") or "",
        "title": told.get("title"),
        "encrypted_index": "",
    }


def _message(id: str, model: str) -> dict[str, Any]:
    return {
        "id": id if id.startswith("msg_") else f"msg_{id or uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _block(block: Block, *, id: str = "", name: str = "", redacted: str = "") -> dict[str, Any]:
    """A block before anything was said in it."""
    match block:
        case Block.TEXT | Block.REFUSAL:
            return {"type": "text", "text": ""}
        case Block.THINKING if redacted:
            return {"type": "redacted_thinking", "data": redacted}
        case Block.THINKING:
            return {"type": "thinking", "thinking": "", "signature": ""}
        case Block.TOOL_CALL:  # its result is sent back with its id, so that it must have one
            return {"type": "tool_use", "id": id or f"toolu_{uuid4().hex}", "name": name, "input": {}}
        case _:
            assert_never(block)


def _folded(folded: Folded) -> dict[str, Any]:
    block = _block(folded.block, id=folded.id, name=folded.name, redacted=folded.redacted)
    match block["type"]:
        case "text":
            block["text"] = folded.text
            if folded.citations:
                block["citations"] = [citation(told) for told in folded.citations]
        case "thinking":
            block["thinking"], block["signature"] = folded.text, folded.signature
        case "tool_use":
            block["input"] = arguments(folded.text)
    return block


def _stopped(stop: Stop, sequence: str, request: Request | None, *, refused: bool) -> dict[str, Any]:
    if refused and stop is Stop.END:
        stop = Stop.CONTENT_FILTER
    if stop is not Stop.STOP_SEQUENCE:
        sequence = ""  # a provider that names one all the same is not repeated
    elif not sequence and request is not None and len(request.stop) == 1:
        sequence = request.stop[0]  # the provider said that one fired, and there is only one
    return {"stop_reason": REASON[stop], "stop_sequence": sequence or None}


def _delta(index: int, delta: dict[str, Any]) -> bytes:
    return _frame("content_block_delta", index=index, delta=delta)


def _frame(kind: str, **fields: Any) -> bytes:
    return encode(orjson.dumps({"type": kind, **fields}), kind)
