"""What joins a client's dialect with a provider's for one exchange.

Either both speak the same, and bytes pass as they are, or the waist stands between them.  The
exchange around a bridge is the same for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec
import orjson
from msgspec.structs import replace

from proxy.dialects.openai_chat import request as chat_request
from proxy.dialects.openai_chat import whole as chat_whole
from proxy.dialects.openai_chat.reader import ChatReader, usage_of
from proxy.dialects.openai_chat.tap import ChatTap
from proxy.dialects.openai_chat.writer import ChatWriter
from proxy.errors import InvalidRequest, UpstreamError
from proxy.pipes import Listening, Overheard, Passthrough, Pipe, Translation
from proxy.registry import client_side, fold, provider_side, tap
from proxy.requests import Request
from proxy.sse import Decoder
from proxy.state.memory import Listener

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from proxy.errors import GatewayError
    from proxy.events import Event, Usage
    from proxy.pipes import Reader
    from proxy.refusals import Scrub
    from proxy.registry import ClientSide
    from proxy.routing.table import Target
    from proxy.state.memory import Memory

    Fail = Callable[[GatewayError], bytes]


class Posed(Protocol):
    """A client's request, with what its bridge needs from around it."""

    body: bytes

    @property
    def scrub(self) -> Scrub:
        """Takes secrets out of a provider's words."""

    @property
    def memory(self) -> Memory | None:
        """Whose thoughts will be wanted back."""

    def fail(self, error: GatewayError) -> bytes:
        """Say a fault inside a stream, in the client's dialect."""


class Given(Protocol):
    """A client's request, split at its top level."""

    body: bytes
    fields: dict[str, msgspec.Raw]
    dialect: str
    model: str | None
    stream: bool
    #: Which features of Anthropic's it uses.
    beta: bytes

    def request(self) -> Request:
        """All of it, in the waist's words.  Raises ``InvalidRequest``."""


class Bridge(Protocol):
    """One exchange between two dialects; ``dialect`` is what the provider is spoken to in."""

    dialect: str
    stream: bool
    #: Of a stream to the client, where it is not an event stream.
    media_type: str
    #: Fields of the client's body that the provider will not hear of.
    dropped: tuple[str, ...]
    #: Header lines of the client's that mean something to this provider, each with its line end.
    headers: bytes

    def body(self, upstream: str, target: Target) -> bytes:
        """Write the provider's body; ``upstream`` is its name for the model."""

    def pipe(self, model: str, max_frame: int) -> Pipe:
        """Make the pipe for a stream; ``model`` is the name that the client is told."""

    def chunks(self, body: bytes, model: str) -> Iterator[bytes]:
        """Say a provider's whole answer as the stream that was asked for.  Raises ``GatewayError``."""

    def whole(self, body: bytes, model: str) -> tuple[bytes, Usage | None]:
        """Render a provider's whole answer; also its usage.  Raises ``GatewayError``."""

    def keepalive(self, mode: str) -> bytes:
        """What is sent between frames so that nobody on the way gives up; b"" for nothing."""


#: How a body begins that is a stream.
_STREAM = (b"data:", b"event:", b":")
_NOTHING = Request(None, ())


def stream_events(reader: Reader, body: bytes) -> Iterator[Event]:
    """Read a stream that has come whole.  Raises ``GatewayError``; ``UpstreamError`` where it has no end."""
    decoder = Decoder(len(body) + 1)
    for frame in (*decoder.feed(body), decoder.end()):
        if frame is not None and frame.data:
            yield from reader.read(frame)
    if not reader.done:
        if not reader.finished:
            raise UpstreamError("the provider's answer has no end")
        yield from reader.end()


# The same dialect on both sides...


class OpenAIBridge:
    """Chat completions, completions and embeddings for a provider that speaks them."""

    media_type = ""
    dropped: tuple[str, ...] = ()
    headers = b""

    def __init__(self, posed: Posed, operation: str, *, stream_default: bool = False) -> None:
        """``stream_default`` says what is meant where `stream` is not given."""
        self.operation = operation
        self.dialect = "openai_chat" if operation == "chat" else operation
        self._request = request = chat_request.parse(posed.body, messages=operation == "chat")
        self.model = request.model or None
        if operation == "embeddings":
            request.stream = False  # there is nothing to stream; the field is the provider's to judge
        self.stream = request.stream
        if stream_default and bytes(request.fields.get("stream", b"null")) == b"null":
            self.stream = True
        self._scrub = posed.scrub
        self._fail = posed.fail
        self._memory = posed.memory
        self._overheard = False  # its thoughts will be wanted back

    def meet(self, target: Target) -> Bridge:
        if self.operation != "chat" or target.speaks("openai_chat"):
            self._overheard = target.quirks.return_reasoning and "tools" in self._request.fields
            return self
        from proxy.dialects.openai_chat.reading import read

        request = replace(read(self._request.body), stream=self.stream)
        return Crossing(client_side("openai_chat"), request, target, self._scrub, self._fail, memory=self._memory)

    def body(self, upstream: str, target: Target) -> bytes:
        quirks = target.quirks
        if self._overheard and self._memory is not None:
            chat_request.remind(self._request, self._memory.thoughts)
        return chat_request.render(
            self._request,
            model=upstream,
            stream=self.stream,
            ask_usage=quirks.ask_usage and self.operation != "embeddings",
            drop=quirks.drop,
            roles=quirks.roles,
        )

    def pipe(self, model: str, max_frame: int) -> Pipe:
        request = self._request
        inner = ChatTap(self._scrub, include_usage=request.include_usage, choices=request.choices)
        pipe = Passthrough(inner, self._fail, max_frame)
        if self._overheard and self._memory is not None:
            return Overheard(pipe, ChatReader(self._scrub), Listener(self._memory, "openai_chat").hear, max_frame)
        return pipe

    def chunks(self, body: bytes, model: str) -> Iterator[bytes]:
        answer = chat_whole.check(body, self._scrub)
        return chat_whole.as_stream(answer, include_usage=self._request.include_usage)

    def whole(self, body: bytes, model: str) -> tuple[bytes, Usage | None]:
        if body.startswith(_STREAM):  # nobody asked for one
            provider = provider_side("openai_chat")
            folded = fold(stream_events(provider.reader(self._scrub, _NOTHING), body))
            return client_side("openai_chat").whole(folded, model, _NOTHING), folded.usage
        if self.operation == "embeddings":
            usage = chat_whole.check(body, self._scrub, "data").get("usage")
        else:
            usage = chat_whole.usage_in(body, self._scrub)
        if self._overheard and self._memory is not None:
            fold(
                self._memory.listen(provider_side("openai_chat").read_whole(body, self._scrub, _NOTHING), "openai_chat")
            )
        return body, usage_of(usage) if isinstance(usage, dict) else None

    def keepalive(self, mode: str) -> bytes:
        return ChatWriter.keepalive(mode)


class Same:
    """Any other dialect for a provider that speaks it: the model's name changes, and nothing else."""

    media_type = ""
    dropped: tuple[str, ...] = ()
    headers = b""

    def __init__(self, asked: Given, scrub: Scrub, fail: Fail) -> None:
        self.dialect = asked.dialect
        self.stream = asked.stream
        self.headers = b"anthropic-beta: %b\r\n" % asked.beta if asked.beta else b""
        self._asked = asked
        self._scrub = scrub
        self._fail = fail

    def body(self, upstream: str, target: Target) -> bytes:
        fields = self._asked.fields
        drop = target.quirks.drop
        if "model" not in fields and self.dialect == "gemini":  # it stands in the path
            if fields.keys().isdisjoint(drop):
                return self._asked.body
            return msgspec.json.encode({k: v for k, v in fields.items() if k not in drop})
        if self._asked.model == upstream and fields.keys().isdisjoint(drop):
            return self._asked.body
        return msgspec.json.encode({k: v for k, v in {**fields, "model": upstream}.items() if k not in drop})

    def pipe(self, model: str, max_frame: int) -> Pipe:
        inner = tap(self.dialect, self._scrub)
        # Where a fault must continue the stream's own count, the tap knows how.
        return Passthrough(inner, getattr(inner, "fail", self._fail), max_frame)

    def chunks(self, body: bytes, model: str) -> Iterator[bytes]:
        side, request = client_side(self.dialect), self._understood()
        writer = side.writer(model, request, "")
        events = provider_side(self.dialect).read_whole(body, self._scrub, request)
        return (out for event in events if (out := writer.write(event)))

    def whole(self, body: bytes, model: str) -> tuple[bytes, Usage | None]:
        events = provider_side(self.dialect).read_whole(body, self._scrub, _NOTHING)
        return body, fold(events).usage

    def keepalive(self, mode: str) -> bytes:
        return client_side(self.dialect).keepalive(mode)

    def _understood(self) -> Request:
        """The request as far as we understand it: the provider has, and an answer is no time to refuse it."""
        try:
            return self._asked.request()
        except InvalidRequest:
            return _NOTHING


# Across the waist...


class Crossing:
    """A client and a provider that speak different dialects.

    Raises ``InvalidRequest`` for what the answer could not hold: events tell one answer, without probabilities.
    """

    headers = b""

    def __init__(
        self,
        side: ClientSide,
        request: Request,
        target: Target,
        scrub: Scrub,
        fail: Fail,
        request_id: str = "",
        memory: Memory | None = None,
    ) -> None:
        if request.answers > 1:
            raise _cannot(side.answers, "more than one answer", target)
        if request.logprobs is not None:
            raise _cannot(side.logprobs, "log probabilities", target)
        if memory is not None:
            request = memory.restore(request, target.dialects[0])
        self._memory = memory if request.tools else None
        self._side = side
        self._provider = provider_side(target.dialects[0])
        self._request = request
        self._sent = self._provider.settle(request, target.quirks)
        self._scrub = scrub
        self._fail = fail
        self._request_id = request_id
        self.dialect = self._provider.name
        self.stream = request.stream
        self.media_type = side.media_type
        # A wildcard's deployment has no name of its own: the client's stands for it.
        unsaid = self._provider.unsaid(request, target.upstream or request.model or "", target.quirks)
        self.dropped = (*request.dropped, *unsaid)

    def body(self, upstream: str, target: Target) -> bytes:
        try:
            return self._provider.write(self._sent, upstream, target.quirks)
        except RecursionError:
            raise InvalidRequest("the body is nested too deeply") from None
        except orjson.JSONEncodeError as exc:  # a number beyond 64 bits, or depth
            raise InvalidRequest(f"the body cannot be written for the provider: {exc}") from None
        except InvalidRequest as exc:
            exc.message = f"{exc.message} (provider {target.provider})"
            raise

    def pipe(self, model: str, max_frame: int) -> Pipe:
        writer = self._side.writer(model, self._request, self._request_id)
        reader = self._provider.reader(self._scrub, self._sent)
        if self._memory is not None:
            reader = Listening(reader, Listener(self._memory, self.dialect).hear)
        fail = self._fail if self._side.name == "openai_chat" else writer.fail
        return Translation(reader, writer, fail, max_frame, self._provider.decoder(max_frame))

    def chunks(self, body: bytes, model: str) -> Iterator[bytes]:
        writer = self._side.writer(model, self._request, self._request_id)
        events = self._provider.read_whole(body, self._scrub, self._sent)
        return (out for event in events if (out := writer.write(event)))

    def whole(self, body: bytes, model: str) -> tuple[bytes, Usage | None]:
        if body.startswith(_STREAM):  # nobody asked for one
            events = stream_events(self._provider.reader(self._scrub, self._sent), body)
        else:
            events = self._provider.read_whole(body, self._scrub, self._sent)
        answer = fold(self._memory.listen(events, self.dialect) if self._memory is not None else events)
        if answer.stop is None:
            raise UpstreamError("the provider's answer has no end")
        return self._side.whole(answer, model, self._request), answer.usage

    def keepalive(self, mode: str) -> bytes:
        return self._side.keepalive(mode)


def _cannot(field: str, what: str, target: Target) -> InvalidRequest:
    return InvalidRequest(
        f"`{field}`: {what} cannot be had from provider {target.provider} in this dialect", param=field
    )
