"""Providers of every dialect in good health: what each sends when it says or calls something."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from tests.dialects import anthropic_messages as messages
from tests.dialects import gemini as google
from tests.dialects import openai_responses as openai
from tests.dialects import workers_ai as cloudflare

from . import UPSTREAM_KEY
from .upstream import DONE, chunk, completion, conversation, sse, stream, usage, whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .upstream import Call, Script

#: Tokens in and out, of every answer here.
COST = (5, 7)
ARGUMENTS = {"city": "Ulm"}
#: What a tool is called with, in two pieces.
PIECES = ('{"city":', ' "Ulm"}')
#: A thought as OpenAI tells it.
ENCRYPTED = "gAAAAABthought=="
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@dataclass(frozen=True)
class Provider:
    """A provider of one dialect; streams are lists of frames."""

    #: Of its `[[providers]]` table.
    settings: Mapping[str, Any]
    paths: tuple[str, str]
    key: tuple[str, str] = ("Authorization", f"Bearer {UPSTREAM_KEY}")
    table: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", {"providers": [{"name": "up", **self.settings}]})

    def says(self, *pieces: str) -> list[bytes]:
        raise NotImplementedError

    def calls(self, name: str = "weather") -> list[bytes]:
        """Call a tool with ``ARGUMENTS``."""
        raise NotImplementedError

    def said(self, text: str) -> dict[str, Any]:
        """The same as a whole answer."""
        raise NotImplementedError

    def refuses(self, message: str, status: int, type: str = "") -> dict[str, Any]:
        return {"error": {"message": message, "type": type or "invalid_request_error"}}

    def path(self, streamed: bool) -> str:
        return self.paths[streamed]

    def answers(self, *pieces: str) -> Script:
        """A stream or a whole answer, as it is asked."""
        frames, body = stream(self.says(*pieces)), whole(self.said("".join(pieces)))

        async def script(call: Call) -> None:
            streamed = ":stream" in call.target or (call.asked or {}).get("stream") is True
            assert call.target == self.path(streamed)
            assert call.header(self.key[0]) == self.key[1]
            await (frames if streamed else body)(call)

        return script


class Chat(Provider):
    def says(self, *pieces: str) -> list[bytes]:
        frames = conversation(*pieces, usage=usage(*COST))
        return [frame if isinstance(frame, bytes) else sse(frame) for frame in frames]

    def calls(self, name: str = "weather") -> list[bytes]:
        begin = [{"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": ""}}]
        rest = [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in PIECES]
        first = chunk(delta={"tool_calls": begin}, role="assistant")
        last = [sse(chunk(finish="tool_calls")), sse(chunk(usage=usage(*COST))), DONE]
        return [sse(first), *(sse(chunk(delta=piece)) for piece in rest), *last]

    def said(self, text: str) -> dict[str, Any]:
        return completion(text, usage=usage(*COST))


class Messages(Provider):
    def says(self, *pieces: str) -> list[bytes]:
        return self._around(messages.opened(0), [messages.said(0, piece) for piece in pieces], "end_turn")

    def calls(self, name: str = "weather") -> list[bytes]:
        begin = messages.opened(0, type="tool_use", id="toolu_1", name=name, input={})
        pieces = [messages.delta(0, "input_json", partial_json=piece) for piece in PIECES]
        return self._around(begin, pieces, "tool_use")

    def _around(self, begin: dict[str, Any], pieces: list[dict[str, Any]], why: str) -> list[bytes]:
        start = messages.start(usage={"input_tokens": COST[0], "output_tokens": 1})
        last = [messages.closed(0), messages.stopped(why, output_tokens=COST[1]), messages.END]
        return [messages.sse(frame) for frame in [start, messages.PING, begin, *pieces, *last]]

    def said(self, text: str) -> dict[str, Any]:
        answer: dict[str, Any] = messages.start()["message"]
        cost = {"input_tokens": COST[0], "output_tokens": COST[1]}
        return {**answer, "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "usage": cost}

    def refuses(self, message: str, status: int, type: str = "") -> dict[str, Any]:
        return {"type": "error", "error": {"type": type or "invalid_request_error", "message": message}}


class Gemini(Provider):
    counts: ClassVar[dict[str, int]] = {
        "promptTokenCount": COST[0],
        "candidatesTokenCount": COST[1],
        "totalTokenCount": sum(COST),
    }

    def says(self, *pieces: str) -> list[bytes]:
        *first, last = pieces
        chunks = [google.chunk(google.text(piece)) for piece in first]
        return [google.sse(one) for one in [*chunks, self.said(last)]]

    def calls(self, name: str = "weather") -> list[bytes]:
        return [google.sse(google.chunk(google.call(name, ARGUMENTS), finish="STOP", usage=self.counts))]

    def said(self, text: str) -> dict[str, Any]:
        return google.chunk(google.text(text), finish="STOP", usage=self.counts)

    def refuses(self, message: str, status: int, type: str = "") -> dict[str, Any]:
        return {"error": {"code": status, "message": message, "status": type or "INVALID_ARGUMENT"}}


class WorkersAI(Provider):
    counts: ClassVar[dict[str, int]] = usage(*COST)

    def says(self, *pieces: str) -> list[bytes]:
        told = [*map(cloudflare.native, pieces), cloudflare.native("", usage=self.counts)]
        return [*map(cloudflare.sse, told), DONE]

    def calls(self, name: str = "weather") -> list[bytes]:
        call = cloudflare.native("", tool_calls=[{"name": name, "arguments": ARGUMENTS}])
        return [cloudflare.sse(call), cloudflare.sse(cloudflare.native("", usage=self.counts)), DONE]

    def said(self, text: str) -> dict[str, Any]:
        return {"result": {"response": text, "usage": self.counts}, "success": True, "errors": [], "messages": []}

    def refuses(self, message: str, status: int, type: str = "") -> dict[str, Any]:
        return {"result": None, "success": False, "errors": [{"code": 5006, "message": message}], "messages": []}


def apart(frames: bytes) -> list[bytes]:
    """The frames of a stream, one by one."""
    return [frame + b"\n\n" for frame in frames.split(b"\n\n")[:-1]]


class Responses(Provider):
    counts: ClassVar[dict[str, int]] = {
        "input_tokens": COST[0],
        "output_tokens": COST[1],
        "total_tokens": sum(COST),
    }

    def says(self, *pieces: str) -> list[bytes]:
        item = openai.message("".join(pieces))
        frames = [
            openai.created(),
            openai.added(0, **{**item, "content": []}),
            *(openai.delta(piece) for piece in pieces),
            openai.done(0, **item),
            self._ended(item),
        ]
        return apart(openai.sse(*frames))

    def calls(self, name: str = "weather") -> list[bytes]:
        """As a model does that thinks: thoughts that nobody can read lead to the call."""
        thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": ENCRYPTED}
        item = openai.call("call_1", name, json.dumps(ARGUMENTS), status="completed")
        frames = [
            openai.created(),
            openai.added(0, **{**thought, "encrypted_content": "not yet"}),
            openai.done(0, **thought),
            openai.added(1, **{**item, "arguments": "", "status": "in_progress"}),
            *(openai.delta(piece, 1, kind="function_call_arguments") for piece in PIECES),
            openai.done(1, **item),
            self._ended(thought, item),
        ]
        return apart(openai.sse(*frames))

    def _ended(self, *items: dict[str, Any]) -> dict[str, Any]:
        return openai.ended(output=list(items), object="response", usage=self.counts)

    def said(self, text: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._ended(openai.message(text))["response"]
        return answer


CHAT = Chat({"kind": "openai"}, ("/v1/chat/completions",) * 2)
MESSAGES = Messages({"kind": "anthropic"}, ("/v1/messages",) * 2, ("x-api-key", UPSTREAM_KEY))
GEMINI = Gemini(
    {"kind": "gemini"},
    ("/v1beta/models/m:generateContent", "/v1beta/models/m:streamGenerateContent?alt=sse"),
    ("x-goog-api-key", UPSTREAM_KEY),
)
WORKERS_AI = WorkersAI({"kind": "workers-ai", "endpoint": "native"}, ("/run/m",) * 2)
RESPONSES = Responses({"kind": "openai", "responses": True}, ("/v1/responses",) * 2)
#: One that has no chat completions, or is not to be asked for them.
RESPONSES_ONLY = Responses({"kind": "openai", "endpoint": "responses"}, ("/v1/responses",) * 2)
