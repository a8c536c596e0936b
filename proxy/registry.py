"""Which dialects there are, and what each offers.  A dialect is loaded when somebody speaks it.

N + M, never pairs: a client's dialect reads requests and writes answers, a provider's writes
requests and reads answers, and the waist stands between them.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from proxy.events import Answer
from proxy.pipes import Tap, Writer
from proxy.sse import Decoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from proxy.errors import GatewayError
    from proxy.events import Event
    from proxy.pipes import Reader
    from proxy.refusals import Scrub
    from proxy.requests import Quirks, Request


class Telling(Writer, Protocol):
    """A writer that can also tell a fault, in its stream's own state."""

    def fail(self, error: GatewayError) -> bytes: ...


class ClientSide(Struct, frozen=True):
    """A dialect as clients speak it."""

    name: str
    #: Makes a stream's writer, told the model's name for the client, the request, and the request's id.
    writer: Callable[[str, Request, str], Telling]
    #: Renders a whole answer, told the model's name for the client and the request.
    whole: Callable[[Answer, str, Request], bytes]
    #: What is sent in silence, by mode.
    keepalive: Callable[[str], bytes]
    #: Of its streams, where they are not event streams.
    media_type: str = ""
    #: Its fields for what no answer across the waist can hold.
    answers: str = "n"
    logprobs: str = "logprobs"


class ProviderSide(Struct, frozen=True):
    """A dialect as providers speak it."""

    name: str
    #: Writes a body, told the provider's name for the model and the provider's quirks.
    write: Callable[[Request, str, Quirks], bytes]
    reader: Callable[[Scrub, Request], Reader]
    read_whole: Callable[[bytes, Scrub, Request], Iterator[Event]]
    #: Fields of a request that the dialect, this model, or this provider has no word for.
    unsaid: Callable[[Request, str, Quirks], tuple[str, ...]]
    decoder: Callable[[int], Decoder] = Decoder
    #: Fills in what a body always says, for those who must know it to read the answer.
    settle: Callable[[Request, Quirks], Request] = lambda request, _: request


class _Writer:
    """Gives a writer whose dialect tells faults without state the means to tell them."""

    def __init__(self, write: Callable[[Event], bytes], fail: Callable[[GatewayError], bytes]) -> None:
        self.write = write
        self.fail = fail


@cache
def client_side(name: str) -> ClientSide:
    """Find a dialect that clients speak.  Raises ``LookupError``."""
    match name:
        case "openai_chat":
            return _client_openai_chat(name)
        case "simple_chat":
            return _client_simple_chat(name)
        case "anthropic_messages":
            return _client_anthropic_messages(name)
        case "openai_responses":
            return _client_openai_responses(name)
        case "gemini" | "gemini_array":
            return _client_gemini(name)
    raise LookupError(f"no client speaks {name}")


def _client_openai_chat(name: str) -> ClientSide:
    from proxy.dialects.openai_chat import errors, writer

    def make(model: str, request: Request, request_id: str) -> Telling:
        return _Writer(writer.ChatWriter(model, include_usage=request.include_usage).write, errors.frame)

    return ClientSide(name, make, lambda answer, model, _: writer.whole(answer, model), writer.ChatWriter.keepalive)


def _client_simple_chat(name: str) -> ClientSide:
    from proxy.dialects import simple_chat

    def make(model: str, request: Request, request_id: str) -> Telling:
        return _Writer(simple_chat.SimpleWriter(model).write, simple_chat.frame)

    def whole(answer: Answer, model: str, request: Request) -> bytes:
        return simple_chat.whole(answer.text, model, answer.usage)

    return ClientSide(name, make, whole, simple_chat.keepalive)


def _client_anthropic_messages(name: str) -> ClientSide:
    from proxy.dialects.anthropic_messages import count, errors, writer

    def make(model: str, request: Request, request_id: str) -> Telling:
        # Claude Code's meter wants a number at the start, when no provider has told one.
        inner = writer.Writer(model, request, estimate=count.estimate(request))
        return _Writer(inner.write, lambda error: errors.frame(error, request_id))

    return ClientSide(name, make, writer.whole, writer.Writer.keepalive)


def _client_openai_responses(name: str) -> ClientSide:
    from proxy.dialects.openai_responses import writer

    def make(model: str, request: Request, request_id: str) -> Telling:
        return writer.Writer(model, request)

    return ClientSide(name, make, writer.whole, writer.Writer.keepalive, logprobs="top_logprobs")


def _client_gemini(name: str) -> ClientSide:
    from proxy.dialects.gemini import writer

    def make(model: str, request: Request, request_id: str) -> Telling:
        return writer.Writer(model, request, array=array)

    array = name == "gemini_array"
    media_type = "application/json" if array else ""
    return ClientSide(
        name,
        make,
        writer.whole,
        writer.Writer.keepalive,
        media_type,
        answers="generationConfig.candidateCount",
        logprobs="generationConfig.responseLogprobs",
    )


@cache
def provider_side(name: str) -> ProviderSide:
    """Find a dialect that providers speak.  Raises ``LookupError``."""
    match name:
        case "openai_chat":
            return _provider_openai_chat(name)
        case "anthropic_messages":
            return _provider_anthropic_messages(name)
        case "openai_responses":
            return _provider_openai_responses(name)
        case "gemini":
            return _provider_gemini(name)
        case "workers_ai":
            return _provider_workers_ai(name)
    raise LookupError(f"no provider speaks {name}")


def _provider_openai_chat(name: str) -> ProviderSide:
    from proxy.dialects.openai_chat import asking, reader, whole

    def read_whole(body: bytes, scrub: Scrub, request: Request) -> Iterator[Event]:
        inner = reader.ChatReader(scrub)
        yield from inner.chunk(whole.check(body, scrub))
        yield from inner.end()

    return ProviderSide(
        name, _named(asking.write), lambda scrub, _: reader.ChatReader(scrub), read_whole, asking.unsaid
    )


def _provider_anthropic_messages(name: str) -> ProviderSide:
    from proxy.dialects.anthropic_messages import asking, reader

    return ProviderSide(
        name, _named(asking.write), lambda scrub, _: reader.Reader(scrub), _plain(reader.read_whole), asking.unsaid
    )


def _provider_openai_responses(name: str) -> ProviderSide:
    from proxy.dialects.openai_responses import asking, reader

    return ProviderSide(
        name, _named(asking.write), lambda scrub, _: reader.Reader(scrub), _plain(reader.read_whole), asking.unsaid
    )


def _provider_gemini(name: str) -> ProviderSide:
    from proxy.dialects.gemini import asking, framing, reader

    return ProviderSide(
        name,
        _named(asking.write),
        lambda scrub, _: reader.Reader(scrub),
        _plain(reader.read_whole),
        asking.unsaid,
        framing.Decoder,
    )


def _provider_workers_ai(name: str) -> ProviderSide:
    from proxy.dialects.workers_ai import reader, request, whole

    def make(scrub: Scrub, asked: Request) -> Reader:
        return reader.Reader(scrub, max_tokens=asked.max_tokens)

    def read_whole(body: bytes, scrub: Scrub, asked: Request) -> Iterator[Event]:
        return whole.read_whole(body, scrub, max_tokens=asked.max_tokens)

    def settle(asked: Request, quirks: Quirks) -> Request:
        return replace(asked, max_tokens=request.limit(asked, quirks))

    return ProviderSide(name, _named(request.write), make, read_whole, request.unsaid, settle=settle)


def _named(write: Any) -> Callable[[Request, str, Quirks], bytes]:
    return lambda request, model, quirks: write(request, model=model, quirks=quirks)


def _plain(read_whole: Any) -> Callable[[bytes, Scrub, Request], Iterator[Event]]:
    return lambda body, scrub, _: read_whole(body, scrub)


def tap(name: str, scrub: Scrub) -> Tap:
    """Make what looks at frames that pass between two sides that speak the same dialect."""
    match name:
        case "anthropic_messages":
            from proxy.dialects.anthropic_messages.tap import Tap as MessagesTap

            return MessagesTap(scrub)
        case "openai_responses":
            from proxy.dialects.openai_responses.tap import Tap as ResponsesTap

            return ResponsesTap(scrub)
        case "gemini":
            from proxy.dialects.gemini.tap import Tap as GeminiTap

            return GeminiTap(scrub)
    raise LookupError(f"nothing passes in {name}")


def retry_after(name: str, refusal: bytes) -> float | None:
    """Find the pause, in seconds, that a provider asks for in a refusal's body, where its dialect has it there."""
    if name not in ("gemini", "gemini_count"):
        return None
    from proxy.dialects.gemini import errors

    return errors.retry_after(refusal)


def fold(events: Iterator[Event]) -> Answer:
    """A whole answer is the fold of its stream."""
    answer = Answer()
    for event in events:
        answer.add(event)
    return answer
