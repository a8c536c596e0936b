"""One exchange for all dialects: parse → authorise → route → attempt → pipe → relay."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from math import ceil
from random import random
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from aiohttp import web

from proxy import answers
from proxy.asked import CountAsked, DialectAsked, SimpleAsked
from proxy.bridges import OpenAIBridge
from proxy.errors import GatewayError, InternalError, NotFound
from proxy.outlet import Outlet
from proxy.refusals import read_refusal, refused
from proxy.registry import retry_after
from proxy.relay import ClientStalled, Ready, Relay
from proxy.routing.decide import choose
from proxy.upstream.connection import Stale

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.asked import Asked
    from proxy.bridges import Bridge
    from proxy.context import Exchange
    from proxy.events import Usage
    from proxy.routing.table import Route, Target
    from proxy.upstream import Head

    #: Reads what an exchange is about; where nobody need be asked, the answer.
    Ask = Callable[[Exchange], Asked | bytes]

log = logging.getLogger(__name__)
T = TypeVar("T")

EVENT_STREAM = "text/event-stream; charset=utf-8"
UNBUFFERED = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
#: A whole answer may be larger than a frame: embeddings of long lists are.
_WHOLE = 8
#: Bytes that a client's transport takes without being full.
_AT_ONCE = 32 * 1024
#: Seconds; a provider's body that asks for more has a mistake in it.
_LONGEST_PAUSE = 30 * 24 * 3600.0


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


async def serve(exchange: Exchange, ask: Ask) -> web.StreamResponse:
    """Serve one request."""
    asked = ask(exchange)
    if isinstance(asked, bytes):
        return answers.whole(exchange, asked)
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
    return await Attempt(exchange, bridge, route, target).run()


class Attempt:
    """One try at a deployment, up to its answer's last byte."""

    def __init__(self, exchange: Exchange, bridge: Bridge, route: Route, target: Target) -> None:
        self._exchange = exchange
        self._bridge = bridge
        self._route = route
        self._target = target
        self._gateway = exchange.gateway
        self._plan = exchange.plan
        self._record = exchange.record
        upstream = route.upstream(target)
        self._body = bridge.body(upstream, target)
        head = target.head(bridge.dialect, upstream, stream=bridge.stream)
        self._head = head.replace(b"\r\n", b"\r\n" + bridge.headers, 1) if bridge.headers else head
        self._cancels = self._plan.settings.stream.on_disconnect == "cancel"
        self._relay = self._new_relay()

    async def run(self) -> web.StreamResponse:
        """Ask, and answer the client.  Raises ``GatewayError`` while the status can still say so."""
        outcome = "cancelled"
        record = self._record
        try:
            record.sent_at = monotonic()
            call = self._gateway.upstream.reuse(self._target.origin, self._head, self._body, self._relay)
            if call is not None:
                self._relay.sent(call)
            else:
                await self._ask_afresh()
            try:
                ready = await self._kept(self._relay.ready)
            except Stale:
                # No byte of an answer has come on a connection that was kept: it had been closed.
                self._gateway.relays.discard(self._relay)
                self._relay.close()
                self._relay = self._new_relay()
                await self._ask_afresh()
                ready = await self._kept(self._relay.ready)
            response = self._whole() if ready is Ready.WHOLE else await self._stream(ready)
            outcome = record.error or "ok"
            return response
        except GatewayError as exc:
            outcome = exc.kind
            raise
        except asyncio.CancelledError:
            if isinstance(self._relay.error, ClientStalled):
                record.outcome = "client_stalled"
            else:
                await self._outlive()
            raise
        finally:
            self._settle(outcome)

    async def _ask_afresh(self) -> None:
        """Send the request on a connection of its own."""
        target = self._target
        call = await self._gateway.upstream.send(
            target.origin, self._head, self._body, self._relay, connect=target.timeouts.connect
        )
        self._relay.sent(call)

    def _kept(self, future: asyncio.Future[T]) -> asyncio.Future[T]:
        """A client that leaves cancels what its handler waits for; where upstream may finish, it must not."""
        return future if self._cancels else asyncio.shield(future)

    def _whole(self) -> web.StreamResponse:
        relay, record = self._relay, self._record
        head, body = relay.head, relay.body
        assert head is not None
        record.first_frame_at = monotonic()
        passed_on(head, self._exchange)
        if not head.good:
            raise refused(head.status, read_refusal(body), self._plan.scrub, self._pause(head, body))
        answer, record.usage = self._bridge.whole(body, self._route.model)
        return answers.whole(self._exchange, answer)

    def _pause(self, head: Head, refusal: bytes) -> dict[str, str] | None:
        """When the provider wants to be asked again."""
        told = head.headers.get("retry-after")
        if told is None and head.status == 429:
            seconds = retry_after(self._bridge.dialect, refusal)
            if seconds is not None and 0 <= seconds <= _LONGEST_PAUSE:  # neither NaN nor infinity
                told = str(max(1, ceil(seconds)))
        return None if told is None else {"Retry-After": told}

    async def _stream(self, ready: Ready) -> web.StreamResponse:
        relay, record = self._relay, self._record
        if relay.head is not None:
            passed_on(relay.head, self._exchange)
        record.first_frame_at = relay.first_frame_at
        outlet = Outlet(self._exchange.request)
        first = relay.take_held()
        if ready is Ready.QUIET and not first:
            first = self._keepalive
        head = answers.head(self._exchange, self._bridge.media_type or EVENT_STREAM, UNBUFFERED)
        response = outlet.open(head, first, last=relay.over and len(first) < _AT_ONCE)
        try:
            relay.flow(outlet)
            await self._kept(relay.done)
        except Exception:
            log.exception("request %s failed inside its stream", record.request_id)
            relay.fail(InternalError(record.request_id))
        if isinstance(relay.error, ClientStalled):
            record.outcome = "client_stalled"
        elif relay.error is not None:
            record.outcome, record.error, record.reason = "failed", relay.error.kind, relay.error.reason
        else:
            record.usage = self._usage_of_whole()
        return response

    async def _outlive(self) -> None:
        """The client has left.  Where that is wanted, upstream may finish, so that the usage is known."""
        relay = self._relay
        if self._cancels or relay.call is None:
            return
        relay.mute()
        self._record.outcome = "client_gone"
        await relay.done
        self._record.usage = self._usage_of_whole()

    def _usage_of_whole(self) -> Usage | None:
        """What a whole answer has cost that was not told as one."""
        relay = self._relay
        if relay.error is None and relay.head is not None and relay.head.good and relay.body:
            with contextlib.suppress(GatewayError):
                return self._bridge.whole(relay.body, self._route.model)[1]
        return None

    def _settle(self, outcome: str) -> None:
        relay, record = self._relay, self._record
        self._gateway.relays.discard(relay)
        relay.close()
        if relay.pipe is not None:
            record.first_frame_at = record.first_frame_at or relay.first_frame_at
            record.frames, record.gaps = relay.frames, relay.gaps
            record.usage = record.usage or relay.pipe.usage
        self._gateway.metrics.attempt(self._route.label, self._target.provider, outcome)

    @property
    def _keepalive(self) -> bytes:
        return self._bridge.keepalive(self._plan.settings.stream.keepalive_mode)

    def _new_relay(self) -> Relay:
        bridge, settings = self._bridge, self._plan.settings
        max_frame = settings.limits.max_frame_bytes
        relay = Relay(
            self._target.timeouts,
            self._gateway.wheel,
            max_whole=_WHOLE * max_frame,
            began=self._record.began,
            request_id=self._record.request_id,
        )
        if bridge.stream:
            relay.stream(
                bridge.pipe(self._route.model, max_frame),
                lambda body: bridge.chunks(body, self._route.model),
                keepalive=settings.stream.keepalive,
                keepalive_frame=self._keepalive,
            )
        self._gateway.relays.add(relay)
        return relay


def passed_on(head: Head, exchange: Exchange) -> None:
    """Take what a client may see of a provider's headers."""
    told, scrub, key = exchange.record.headers, exchange.plan.scrub, exchange.key
    for name, value in head.headers.items():
        if name[0] not in "aorx":  # most headers: none of ours begins so
            continue
        if name in ("x-request-id", "request-id", "x-ds-trace-id"):
            name = "x-upstream-request-id"
        elif name.startswith("x-ratelimit-"):
            if key.requests_per_minute or key.tokens_per_minute:
                continue  # ours are told
        elif name != "retry-after" and not name.startswith(("openai-", "anthropic-ratelimit-")):
            continue
        if value.isprintable() and name != "openai-organization":
            told[name] = scrub(value)
