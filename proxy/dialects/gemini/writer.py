"""Events → Google's chunks.

The dialect knows no fragments of a call: its arguments are an object, so they are collected, per call,
until the call closes.  All else goes out with the event that says it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_never

import orjson

from proxy.dialects.gemini.framing import framing
from proxy.events import (
    Answer,
    Block,
    BlockClosed,
    BlockDelta,
    BlockOpened,
    BlockSigned,
    Cited,
    Event,
    Folded,
    MessageEnded,
    MessageStarted,
    Stop,
    Usage,
)

if TYPE_CHECKING:
    from proxy.errors import GatewayError
    from proxy.requests import Request

REASON: dict[Stop, str] = {
    Stop.END: "STOP",
    Stop.LENGTH: "MAX_TOKENS",
    Stop.TOOL_CALLS: "STOP",
    Stop.CONTENT_FILTER: "SAFETY",
    Stop.STOP_SEQUENCE: "STOP",
}
MALFORMED = "MALFORMED_FUNCTION_CALL"
#: A chunk up to its text.
_HEAD = b'{"candidates":[{"content":{"parts":[{"text":'


class Writer:
    """Write one stream; ``model`` is the name that the client is told.

    ``array`` is for clients that do not ask for `alt=sse`.  Thoughts are shown only where the
    request wants them.  A call whose arguments never became an object is not told, or a client
    would run it with none: the finish reason says so.
    """

    def __init__(self, model: str, request: Request | None = None, *, array: bool = False) -> None:
        self._model = model
        self._framing = framing(array)
        self._thoughts = _shown(request)
        self._id = ""
        self._tails = self._make_tails()
        self._call: Folded | None = None
        self._citations: list[dict[str, Any]] = []
        self._malformed = ""  # the name of a function whose call was broken

    @staticmethod
    def keepalive(mode: str) -> bytes:
        """Nothing can be sent in silence: the SDKs take every line for an answer."""
        return b""

    def fail(self, error: GatewayError) -> bytes:
        """Tell a fault, which ends the stream."""
        return self._framing.fail(error)

    def write(self, event: Event) -> bytes:
        """Render one event; b"" where there is nothing to say yet."""
        if isinstance(event, BlockDelta):
            tail = self._tails.get(event.block)
            if tail is not None:  # the hot path: nothing but the text is new
                return self._framing.item(_HEAD + orjson.dumps(event.text) + tail)
            if event.block is Block.TOOL_CALL and self._call is not None:
                self._call.pieces.append(event.text)
            return b""
        match event:
            case BlockOpened():
                self._call = Folded(event.block, event.id, event.name)
                return b""
            case BlockSigned():
                return self._signed(event.signature)
            case BlockClosed():
                return self._closed()
            case Cited():
                self._citations.append(event.citation)
                return b""
            case MessageStarted():
                self._id = event.id
                self._tails = self._make_tails()
                return b""
            case MessageEnded():
                return self._ended(event)
            case _:
                assert_never(event)

    def _make_tails(self) -> dict[Block, bytes]:
        """What follows a delta's text, by its block; what has none here is not said as it comes."""
        blank = len(_HEAD) + len(b'""')
        tail = _chunk([{"text": ""}], self._model, self._id)[blank:]
        tails = {Block.TEXT: tail, Block.REFUSAL: tail}
        if self._thoughts:
            tails[Block.THINKING] = _chunk([{"text": "", "thought": True}], self._model, self._id)[blank:]
        return tails

    def _said(self, part: dict[str, Any]) -> bytes:
        return self._framing.item(_chunk([part], self._model, self._id))

    def _signed(self, signature: str) -> bytes:
        """Calls are sealed on their own part, all else on an empty text after it."""
        block = self._call.block if self._call is not None else Block.TEXT
        if block is Block.TOOL_CALL and self._call is not None:
            self._call.signature = signature
            return b""
        if block is Block.THINKING:
            return self._said({"text": "", "thought": True, "thoughtSignature": signature}) if self._thoughts else b""
        return self._said({"text": "", "thoughtSignature": signature})

    def _closed(self) -> bytes:
        call, self._call = self._call, None
        if call is None or call.block is not Block.TOOL_CALL:
            return b""
        part = _call(call)
        if part is None:
            self._malformed = call.name
            return b""
        return self._said(part)

    def _ended(self, event: MessageEnded) -> bytes:
        last = _chunk(
            [{"text": ""}],
            self._model,
            self._id,
            finish=_finish(event.stop, self._malformed, self._citations),
            usage=event.usage,
        )
        return self._framing.item(last) + self._framing.end()


def whole(answer: Answer, model: str, request: Request | None = None) -> bytes:
    """Render a whole answer."""
    thoughts = _shown(request)
    parts: list[dict[str, Any]] = []
    citations: list[dict[str, Any]] = []
    malformed = ""
    for block in answer.blocks:
        citations += block.citations
        if block.block is Block.TOOL_CALL:
            if (call := _call(block)) is not None:
                parts.append(call)
            else:
                malformed = block.name
        elif block.block is not Block.THINKING:
            parts.append({"text": block.text, **_sealed(block)})
        elif thoughts and (block.text or block.signature):
            parts.append({"text": block.text, "thought": True, **_sealed(block)})
    finish = _finish(answer.stop or Stop.END, malformed, citations)
    return _chunk(parts or [{"text": ""}], model, answer.id, finish=finish, usage=answer.usage)


def usage_words(usage: Usage) -> dict[str, int]:
    """Say usage in Google's names: thoughts are counted beside the answer, not in it."""
    out = {
        "promptTokenCount": usage.input,
        "candidatesTokenCount": usage.output - usage.reasoning,
        "totalTokenCount": usage.input + usage.output,
    }
    if usage.cached:
        out["cachedContentTokenCount"] = usage.cached
    if usage.reasoning:
        out["thoughtsTokenCount"] = usage.reasoning
    return out


def _chunk(
    parts: list[dict[str, Any]],
    model: str,
    id: str,
    finish: dict[str, Any] | None = None,
    usage: Usage | None = None,
) -> bytes:
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}}
    if finish:
        candidate |= finish
    candidate["index"] = 0
    out: dict[str, Any] = {"candidates": [candidate]}
    if usage is not None:
        out["usageMetadata"] = usage_words(usage)
    out["modelVersion"] = model
    if id:
        out["responseId"] = id
    return orjson.dumps(out)


def _finish(stop: Stop, malformed: str, citations: list[dict[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {"finishReason": REASON[stop]}
    if malformed and stop is not Stop.LENGTH:
        out["finishReason"] = MALFORMED
    if malformed:
        out["finishMessage"] = f"the arguments of a call of {malformed} are not a JSON object"
    webs = [{"uri": c["url"], "title": c.get("title") or ""} for c in citations if c.get("url")]
    if webs:
        out["groundingMetadata"] = {"groundingChunks": [{"web": web} for web in webs]}
    return out


def _call(call: Folded) -> dict[str, Any] | None:
    text = call.text
    try:
        args = orjson.loads(text) if text.strip() else {}
    except orjson.JSONDecodeError:
        return None
    if not isinstance(args, dict):
        return None
    function = {"name": call.name, "args": args}
    if call.id:
        function["id"] = call.id
    return {"functionCall": function, **_sealed(call)}


def _sealed(block: Folded) -> dict[str, str]:
    return {"thoughtSignature": block.signature} if block.signature else {}


def _shown(request: Request | None) -> bool:
    return request is None or (request.reasoning is not None and request.reasoning.shown is True)
