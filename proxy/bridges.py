"""What joins a client's dialect with a provider's for one exchange.

A bridge is made from the client's body; it writes the provider's body, makes the pipe for a
stream and renders a whole answer.  The exchange around it is the same for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from proxy.dialects import simple_chat
from proxy.dialects.openai_chat import request as chat_request
from proxy.dialects.openai_chat import whole as chat_whole
from proxy.dialects.openai_chat.reader import ChatReader
from proxy.dialects.openai_chat.tap import ChatTap
from proxy.events import Answer
from proxy.pipes import Passthrough, Pipe, Translation
from proxy.sse import comment, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from proxy.errors import GatewayError
    from proxy.refusals import Scrub
    from proxy.routing.table import Target

    Fail = Callable[[GatewayError], bytes]

COMMENT = comment(b"keep-alive")
#: For clients that parse every line as JSON: a chunk that says nothing.
EMPTY_CHUNK = encode(
    b'{"id":"keep-alive","object":"chat.completion.chunk","created":0,"model":"",'
    b'"choices":[{"index":0,"delta":{},"finish_reason":null}]}'
)


class Bridge(Protocol):
    """One exchange between two dialects.

    ``operation`` is what the provider is asked to do, ``model`` what the client asked for.
    """

    operation: str
    model: str | None
    stream: bool

    def body(self, upstream: str, target: Target) -> bytes:
        """Write the provider's body; ``upstream`` is its name for the model."""

    def pipe(self, model: str, max_frame: int) -> Pipe:
        """Make the pipe for a stream; ``model`` is the name that the client is told."""

    def chunks(self, body: bytes) -> Iterator[bytes]:
        """Say a provider's whole answer as the stream that was asked for.  Raises ``GatewayError``."""

    def whole(self, body: bytes, model: str) -> tuple[bytes, dict[str, Any] | None]:
        """Render a provider's whole answer; also its usage.  Raises ``GatewayError``."""

    def keepalive(self, mode: str) -> bytes:
        """What is sent between frames so that nobody on the way gives up; b"" for nothing."""


class OpenAIBridge:
    """The same dialect on both sides: chat completions, completions, embeddings."""

    def __init__(self, body: bytes, operation: str, scrub: Scrub, fail: Fail, *, stream_default: bool = False) -> None:
        """``stream_default`` says what is meant where `stream` is not given."""
        self.operation = operation
        self._request = chat_request.parse(body, messages=operation == "chat")
        self.model = self._request.model or None
        if operation == "embeddings":
            self._request.stream = False  # there is nothing to stream; the field is the provider's to judge
        self.stream = self._request.stream
        if stream_default and bytes(self._request.fields.get("stream", b"null")) == b"null":
            self.stream = True
        self._scrub = scrub
        self._fail = fail

    def body(self, upstream: str, target: Target) -> bytes:
        return chat_request.render(
            self._request,
            model=upstream,
            stream=self.stream,
            ask_usage=target.ask_usage and self.operation != "embeddings",
            drop=target.drop,
            roles=target.roles,
        )

    def pipe(self, model: str, max_frame: int) -> Pipe:
        request = self._request
        tap = ChatTap(self._scrub, include_usage=request.include_usage, choices=request.choices)
        return Passthrough(tap, self._fail, max_frame)

    def chunks(self, body: bytes) -> Iterator[bytes]:
        answer = chat_whole.check(body, self._scrub)
        return chat_whole.as_stream(answer, include_usage=self._request.include_usage)

    def whole(self, body: bytes, model: str) -> tuple[bytes, dict[str, Any] | None]:
        answer = chat_whole.check(body, self._scrub, "data" if self.operation == "embeddings" else "choices")
        usage = answer.get("usage")
        return body, usage if isinstance(usage, dict) else None

    def keepalive(self, mode: str) -> bytes:
        return {"comment": COMMENT, "chunk": EMPTY_CHUNK}.get(mode, b"")


class SimpleBridge:
    """`/api/chat` before a provider that speaks chat completions."""

    operation = "chat"

    def __init__(self, body: bytes, scrub: Scrub, fail: Fail) -> None:
        self._request = simple_chat.parse(chat_request.split(body))
        self.model = self._request.model
        self.stream = self._request.stream
        self._scrub = scrub
        self._fail = fail
        self._told = ""

    def body(self, upstream: str, target: Target) -> bytes:
        return chat_request.write(
            self._request, model=upstream, ask_usage=target.ask_usage, drop=target.drop, roles=target.roles
        )

    def pipe(self, model: str, max_frame: int) -> Pipe:
        self._told = model
        return Translation(ChatReader(self._scrub), simple_chat.SimpleWriter(model), self._fail, max_frame)

    def chunks(self, body: bytes) -> Iterator[bytes]:
        reader, writer = self._read(body), simple_chat.SimpleWriter(self._told)
        return (out for event in reader if (out := writer.write(event)))

    def whole(self, body: bytes, model: str) -> tuple[bytes, dict[str, Any] | None]:
        answer = Answer()
        for event in self._read(body):
            answer.add(event)
        raw = chat_whole.check(body, self._scrub).get("usage")
        return simple_chat.whole(answer.text, model, answer.usage), raw if isinstance(raw, dict) else None

    def keepalive(self, mode: str) -> bytes:
        return {"comment": COMMENT, "chunk": encode(b'{"delta":""}')}.get(mode, b"")

    def _read(self, body: bytes) -> Iterator[Any]:
        reader = ChatReader(self._scrub)
        yield from reader.chunk(chat_whole.check(body, self._scrub))
        yield from reader.end()
