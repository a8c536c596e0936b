"""One exchange for all dialects: parse → authorise → route → attempt → pipe → relay."""

from __future__ import annotations

import asyncio
from random import random
from typing import TYPE_CHECKING

from aiohttp import web

from proxy import answers
from proxy.asked import CountAsked, DialectAsked, SimpleAsked
from proxy.attempt import Attempt
from proxy.bridges import OpenAIBridge
from proxy.errors import NotFound
from proxy.routing.decide import choose

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.asked import Asked
    from proxy.attempt import Ended
    from proxy.context import Exchange

    #: Reads what an exchange is about; where nobody need be asked, the answer.
    Ask = Callable[[Exchange], Asked | bytes]


# The endpoints: what each client asks for, or the answer where nobody need be asked...


def chat_completions(exchange: Exchange) -> Asked:
    """`POST /v1/chat/completions`."""
    return OpenAIBridge(exchange, "chat")


def completions(exchange: Exchange) -> Asked:
    """`POST /v1/completions`."""
    return OpenAIBridge(exchange, "completions")


def embeddings(exchange: Exchange) -> Asked:
    """`POST /v1/embeddings`."""
    return OpenAIBridge(exchange, "embeddings")


def chat(exchange: Exchange) -> Asked:
    """`POST /chat`: chat completions with the simple form of errors; `Accept` may ask for a stream."""
    wants_stream = "text/event-stream" in ",".join(exchange.request.headers.getall("Accept", ())).lower()
    return OpenAIBridge(exchange, "chat", stream_default=wants_stream)


def api_chat(exchange: Exchange) -> Asked:
    """`POST /api/chat`."""
    return SimpleAsked(exchange.body, exchange.plan.scrub, exchange.fail)


def messages(exchange: Exchange) -> Asked:
    """`POST /v1/messages`, as Anthropic has it."""
    return _dialect(exchange, "anthropic_messages")


def responses(exchange: Exchange) -> Asked:
    """`POST /v1/responses`, as OpenAI has it, without what would need a memory here."""
    return _dialect(exchange, "openai_responses")


def gemini(exchange: Exchange) -> Asked | bytes:
    """`POST /v1beta/models/{model}:generateContent` and its kin, as Google has them."""
    request = exchange.request
    assert isinstance(request, web.Request)  # a pattern's paths are the application's
    name, _, action = request.match_info["call"].rpartition(":")
    model = name.removeprefix("models/")
    match action:
        case "generateContent":
            return _dialect(exchange, "gemini", model=model, stream=False)
        case "streamGenerateContent":
            form = "gemini" if request.query.get("alt") == "sse" else "gemini_array"
            return _dialect(exchange, "gemini", model=model, stream=True, form=form)
        case "countTokens":
            return count_gemini(exchange, model)
        case _:
            raise NotFound(f"there is nothing at {request.path[:200]}")


def count_messages(exchange: Exchange) -> Asked | bytes:
    """`POST /v1/messages/count_tokens`: asked of a provider that counts, else estimated here."""
    asked = _dialect(exchange, "anthropic_messages", stream=False)
    plan, key = exchange.plan, exchange.key
    route = plan.table.resolve(asked.model or plan.table.default(plan.settings.defaults.code, key), key)
    if any(t.offers("count_tokens") for t in route.entry.targets):
        return CountAsked(asked, plan.scrub)
    from proxy.dialects.anthropic_messages import count

    return count.body(count.estimate(asked.request()))


def count_gemini(exchange: Exchange, model: str) -> Asked | bytes:
    """`:countTokens`: asked of a provider that counts, else estimated here."""
    route = exchange.plan.table.resolve(model, exchange.key)
    if any(t.offers("gemini_count") for t in route.entry.targets):
        return CountAsked(_dialect(exchange, "gemini", model=model, stream=False), exchange.plan.scrub)
    from proxy.dialects.anthropic_messages.count import estimate
    from proxy.dialects.gemini.listing import counted
    from proxy.dialects.gemini.request import read_count

    return counted(estimate(read_count(exchange.body, model=model)))


def _dialect(
    exchange: Exchange, dialect: str, *, model: str | None = None, stream: bool | None = None, form: str = ""
) -> DialectAsked:
    return DialectAsked(
        exchange.body,
        dialect,
        exchange.plan.scrub,
        exchange.fail,
        request_id=exchange.record.request_id,
        model=model,
        stream=stream,
        form=form,
        beta=",".join(exchange.request.headers.getall("anthropic-beta", ())),
        memory=exchange.gateway.memory,
    )


# The exchange...


def begin(exchange: Exchange, ask: Ask, ended: Ended) -> Attempt | None:
    """Begin to serve a request; None where that was all.  ``ended`` is told how it ends.

    Raises ``GatewayError`` for what nobody is asked.
    """
    asked = ask(exchange)
    if isinstance(asked, bytes):
        ended(answers.whole(exchange, asked))
        return None
    plan, record, key = exchange.plan, exchange.record, exchange.key
    table = plan.table
    name = asked.model or table.default(getattr(plan.settings.defaults, exchange.endpoint.default, ""), key)
    route = table.resolve(name, key)
    targets = route.entry.targets
    if asked.operation != "chat":  # which all of them can be asked
        targets = tuple(t for t in targets if t.offers(asked.operation))
        if not targets:
            raise NotFound(f"the provider of {route.model!r} offers no {asked.operation}", param="model")
    target = targets[0] if len(targets) == 1 else choose(targets, random())
    bridge = asked.meet(target)
    record.label, record.model, record.provider = route.label, route.model, target.provider
    record.streamed = bridge.stream
    record.attempts = 1
    if bridge.dropped:
        exchange.gateway.metrics.dropped(route.label, target.provider, len(bridge.dropped))
    attempt = Attempt(exchange, bridge, route, target, ended)
    attempt.begin()
    return attempt


async def serve(exchange: Exchange, ask: Ask) -> web.StreamResponse:
    """Serve a request for those who wait; who is cancelled takes it along."""
    over: asyncio.Future[web.StreamResponse | Exception | None] = asyncio.get_running_loop().create_future()

    def ended(result: web.StreamResponse | Exception | None) -> None:
        if not over.done():
            over.set_result(result)

    attempt = begin(exchange, ask, ended)
    try:
        result = await asyncio.shield(over)
    except asyncio.CancelledError:
        if attempt is not None:
            attempt.leave()
            await over
        raise
    if isinstance(result, web.StreamResponse):
        return result
    raise result or asyncio.CancelledError
