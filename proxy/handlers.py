"""One exchange for all dialects: parse → authorise → route → attempt → pipe → relay."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from math import ceil
from random import random
from typing import TYPE_CHECKING, TypeVar

from aiohttp import web

from proxy.asked import CountAsked, DialectAsked, SimpleAsked
from proxy.bridges import OpenAIBridge
from proxy.connection import Outlet
from proxy.context import BODY, CALLER, PLAN, RECORD
from proxy.errors import GatewayError, InternalError, NotFound
from proxy.gateway import GATEWAY
from proxy.middleware.failures import form_of
from proxy.refusals import read_refusal, refused
from proxy.registry import retry_after
from proxy.relay import ClientStalled, Ready, Relay
from proxy.routing.decide import choose
from proxy.upstream.connection import Stale

if TYPE_CHECKING:
    from proxy.asked import Asked
    from proxy.bridges import Bridge
    from proxy.events import Usage
    from proxy.gateway import Gateway, Plan
    from proxy.observe.record import Record
    from proxy.routing.table import Route, Target
    from proxy.upstream import Head

log = logging.getLogger(__name__)
T = TypeVar("T")

EVENT_STREAM = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
}
#: A whole answer may be larger than a frame: embeddings of long lists are.
_WHOLE = 8
#: Bytes that a client's transport takes without being full.
_AT_ONCE = 32 * 1024
#: Seconds; a provider's body that asks for more has a mistake in it.
_LONGEST_PAUSE = 30 * 24 * 3600.0


# The endpoints...


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """`POST /v1/chat/completions`."""
    return await exchange(request, _openai(request, "chat"), request[PLAN].settings.defaults.code)


async def completions(request: web.Request) -> web.StreamResponse:
    """`POST /v1/completions`."""
    return await exchange(request, _openai(request, "completions"), request[PLAN].settings.defaults.code)


async def embeddings(request: web.Request) -> web.StreamResponse:
    """`POST /v1/embeddings`."""
    return await exchange(request, _openai(request, "embeddings"), "")


async def chat(request: web.Request) -> web.StreamResponse:
    """`POST /chat`: chat completions with the simple form of errors; `Accept` may ask for a stream."""
    wants_stream = "text/event-stream" in ",".join(request.headers.getall("Accept", ())).lower()
    return await exchange(request, _openai(request, "chat", wants_stream), request[PLAN].settings.defaults.proxy)


async def api_chat(request: web.Request) -> web.StreamResponse:
    """`POST /api/chat`."""
    fail, id = form_of(request).frame, request[RECORD].request_id
    asked = SimpleAsked(request[BODY], request[PLAN].scrub, lambda error: fail(error, id))
    return await exchange(request, asked, request[PLAN].settings.defaults.chat)


async def messages(request: web.Request) -> web.StreamResponse:
    """`POST /v1/messages`, as Anthropic has it."""
    return await exchange(request, _dialect(request, "anthropic_messages"), request[PLAN].settings.defaults.code)


async def responses(request: web.Request) -> web.StreamResponse:
    """`POST /v1/responses`, as OpenAI has it, without what would need a memory here."""
    return await exchange(request, _dialect(request, "openai_responses"), request[PLAN].settings.defaults.code)


async def gemini(request: web.Request) -> web.StreamResponse:
    """`POST /v1beta/models/{model}:generateContent` and its kin, as Google has them."""
    name, _, action = request.match_info["call"].rpartition(":")
    model = name.removeprefix("models/")
    match action:
        case "generateContent":
            asked = _dialect(request, "gemini", model=model, stream=False)
        case "streamGenerateContent":
            form = "gemini" if request.query.get("alt") == "sse" else "gemini_array"
            asked = _dialect(request, "gemini", model=model, stream=True, form=form)
        case "countTokens":
            return await count_gemini(request, model)
        case _:
            raise NotFound(f"there is nothing at {request.path[:200]}")
    return await exchange(request, asked, "")


async def count_messages(request: web.Request) -> web.StreamResponse:
    """`POST /v1/messages/count_tokens`: asked of a provider that counts, else estimated here."""
    asked = _dialect(request, "anthropic_messages", stream=False)
    plan, key = request[PLAN], request[CALLER]
    route = plan.table.resolve(asked.model or plan.table.default(plan.settings.defaults.code, key), key)
    if any(t.offers("count_tokens") for t in route.entry.targets):
        return await exchange(request, CountAsked(asked, plan.scrub), plan.settings.defaults.code)
    from proxy.dialects.anthropic_messages import count

    return web.Response(body=count.body(count.estimate(asked.request())), content_type="application/json")


async def count_gemini(request: web.Request, model: str) -> web.Response:
    """Estimate what a request to Gemini would cost."""
    from proxy.dialects.anthropic_messages.count import estimate
    from proxy.dialects.gemini.listing import counted
    from proxy.dialects.gemini.request import read_count

    request[PLAN].table.resolve(model, request[CALLER])
    tokens = estimate(read_count(request[BODY], model=model))
    return web.Response(body=counted(tokens), content_type="application/json")


def _dialect(
    request: web.Request, dialect: str, *, model: str | None = None, stream: bool | None = None, form: str = ""
) -> DialectAsked:
    fail, id = form_of(request).frame, request[RECORD].request_id
    return DialectAsked(
        request[BODY],
        dialect,
        request[PLAN].scrub,
        lambda error: fail(error, id),
        request_id=id,
        model=model,
        stream=stream,
        form=form,
        beta=",".join(request.headers.getall("anthropic-beta", ())),
        memory=request.app[GATEWAY].memory,
    )


def _openai(request: web.Request, operation: str, stream_default: bool = False) -> OpenAIBridge:
    fail, id = form_of(request).frame, request[RECORD].request_id
    return OpenAIBridge(
        request[BODY],
        operation,
        request[PLAN].scrub,
        lambda error: fail(error, id),
        stream_default=stream_default,
        memory=request.app[GATEWAY].memory,
    )


# The exchange...


async def exchange(request: web.Request, asked: Asked, default: str) -> web.StreamResponse:
    """Serve one request; ``default`` is the model for one that names none."""
    plan, record, key = request[PLAN], request[RECORD], request[CALLER]
    route = plan.table.resolve(asked.model or plan.table.default(default, key), key)
    targets = [t for t in route.entry.targets if t.offers(asked.operation)]
    if not targets:
        raise NotFound(f"the provider of {route.model!r} offers no {asked.operation}", param="model")
    target = choose(targets, random())
    bridge = asked.meet(target)
    record.label, record.model, record.provider = route.label, route.model, target.provider
    record.streamed = bridge.stream
    record.attempts = 1
    if bridge.dropped:
        request.app[GATEWAY].metrics.dropped(route.label, target.provider, len(bridge.dropped))
    record.headers.update({"x-proxy-model": route.model, "x-proxy-provider": target.provider, "x-proxy-attempts": "1"})
    return await Attempt(request, bridge, route, target).run()


class Attempt:
    """One try at a deployment, up to its answer's last byte."""

    def __init__(self, request: web.Request, bridge: Bridge, route: Route, target: Target) -> None:
        self._request = request
        self._bridge = bridge
        self._route = route
        self._target = target
        self._gateway: Gateway = request.app[GATEWAY]
        self._plan: Plan = request[PLAN]
        self._record: Record = request[RECORD]
        key = request[CALLER]
        self._limited = bool(key.requests_per_minute or key.tokens_per_minute)
        self._upstream = route.upstream(target)
        self._body = bridge.body(self._upstream, target)
        self._relay = self._new_relay()

    async def run(self) -> web.StreamResponse:
        """Ask, and answer the client.  Raises ``GatewayError`` while the status can still say so."""
        outcome = "cancelled"
        try:
            ready = await self._ask()
            if ready is Ready.WHOLE:
                response: web.StreamResponse = self._whole()
            else:
                response = await self._stream(ready)
            outcome = self._record.error or "ok"
            return response
        except GatewayError as exc:
            outcome = exc.kind
            raise
        except asyncio.CancelledError:
            if isinstance(self._relay.error, ClientStalled):
                self._record.outcome = "client_stalled"
            else:
                await self._outlive()
            raise
        finally:
            self._settle(outcome)

    async def _ask(self) -> Ready:
        """Send the request and wait until it is known how to answer."""
        target, record, gateway, bridge = self._target, self._record, self._gateway, self._bridge
        head, origin = target.head(bridge.dialect, self._upstream, stream=bridge.stream), target.origin
        if bridge.headers:
            head = head.replace(b"\r\n", b"\r\n" + bridge.headers, 1)
        gateway.relays.add(self._relay)
        fresh = False
        while True:
            record.sent_at = record.sent_at or asyncio.get_running_loop().time()
            call = await gateway.upstream.send(
                origin, head, self._body, self._relay, connect=target.timeouts.connect, fresh=fresh
            )
            self._relay.sent(call)
            try:
                return await self._kept(self._relay.ready)
            except Stale:
                # No byte of an answer has come on a connection that was kept: it had been closed.
                gateway.relays.discard(self._relay)
                self._relay.close()
                self._relay, fresh = self._new_relay(), True
                gateway.relays.add(self._relay)

    def _kept(self, future: asyncio.Future[T]) -> asyncio.Future[T]:
        """A client that leaves cancels what its handler waits for; where upstream may finish, it must not."""
        return asyncio.shield(future) if self._plan.settings.stream.on_disconnect == "drain" else future

    def _whole(self) -> web.Response:
        relay, record = self._relay, self._record
        head, body = relay.head, relay.body
        assert head is not None
        record.first_frame_at = asyncio.get_running_loop().time()
        record.headers.update(passed_on(head, self._plan, ours=self._limited))
        if not head.good:
            raise refused(head.status, read_refusal(body), self._plan.scrub, self._pause(head, body))
        answer, record.usage = self._bridge.whole(body, self._route.model)
        return web.Response(body=answer, content_type="application/json")

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
            record.headers.update(passed_on(relay.head, self._plan, ours=self._limited))
        record.first_frame_at = relay.first_frame_at
        response = web.StreamResponse(headers=EVENT_STREAM)
        if self._bridge.media_type:
            response.headers["Content-Type"] = self._bridge.media_type
        outlet = Outlet(self._request)
        first = relay.take_held()
        if ready is Ready.QUIET and not first:
            first = self._keepalive
        try:
            await outlet.open(response, first, last=relay.done.done() and len(first) < _AT_ONCE)
            relay.flow(outlet)
            await self._kept(relay.done)
        except ConnectionError:
            # The client left between two lines of ours; the cancellation that says so is on its way.
            await asyncio.shield(relay.done)
            raise asyncio.CancelledError from None
        except Exception:
            if not response.prepared:
                raise
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
        if self._plan.settings.stream.on_disconnect != "drain" or relay.call is None:
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
        record.first_frame_at = record.first_frame_at or relay.first_frame_at
        record.frames, record.gaps = relay.frames, relay.gaps
        record.usage = record.usage or relay.usage
        self._gateway.metrics.attempt(self._route.label, self._target.provider, outcome)

    @property
    def _keepalive(self) -> bytes:
        return self._bridge.keepalive(self._plan.settings.stream.keepalive_mode)

    def _new_relay(self) -> Relay:
        bridge, settings = self._bridge, self._plan.settings
        max_frame = settings.limits.max_frame_bytes
        return Relay(
            bridge.pipe(self._route.model, max_frame) if bridge.stream else None,
            self._target.timeouts,
            self._gateway.wheel,
            keepalive=settings.stream.keepalive,
            keepalive_frame=self._keepalive,
            max_whole=_WHOLE * max_frame,
            chunks=lambda body: bridge.chunks(body, self._route.model),
            began=self._record.began,
            request_id=self._record.request_id,
        )


def passed_on(head: Head, plan: Plan, *, ours: bool) -> dict[str, str]:
    """Choose what of a provider's headers its client may see; ``ours``: rate limits are told by us."""
    told: dict[str, str] = {}
    for name, value in head.headers.items():
        if name[0] not in "aorx":  # most headers: none of ours begins so
            continue
        limits = name.startswith("x-ratelimit-") and not ours
        if limits or name == "retry-after" or name.startswith(("openai-", "anthropic-ratelimit-")):
            told[name] = plan.scrub(value)
        elif name in ("x-request-id", "request-id", "x-ds-trace-id"):
            told["x-upstream-request-id"] = plan.scrub(value)
    return {name: value for name, value in told.items() if value.isprintable() and name != "openai-organization"}
