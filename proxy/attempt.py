"""One try at a deployment: asked, told to the client, settled.

Nothing waits here.  What upstream's connection pushes leads to the client's answer and to the end of
it all in the same call; only a connection that is still to be made has a task.
"""

from __future__ import annotations

import asyncio
import logging
from functools import lru_cache
from math import ceil
from time import monotonic
from typing import TYPE_CHECKING

from proxy import answers
from proxy.errors import GatewayError, InternalError
from proxy.outlet import Outlet
from proxy.refusals import read_refusal, refused
from proxy.registry import retry_after
from proxy.relay import ClientStalled, Ready, Relay
from proxy.upstream.connection import Stale

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.bridges import Bridge
    from proxy.context import Exchange
    from proxy.events import Usage
    from proxy.outlet import Sent
    from proxy.routing.table import Route, Target
    from proxy.upstream import Head

    #: Is told once how it ended: the answer, why there is none, or (None) that the client has left.
    Ended = Callable[[Sent | Exception | None], None]

log = logging.getLogger(__name__)

EVENT_STREAM = "text/event-stream; charset=utf-8"
UNBUFFERED = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
#: A whole answer may be larger than a frame: embeddings of long lists are.
_WHOLE = 8
#: Bytes that a client's transport takes without being full.
_AT_ONCE = 32 * 1024
#: Seconds; a provider's body that asks for more has a mistake in it.
_LONGEST_PAUSE = 30 * 24 * 3600.0
_READY_WHOLE = Ready.WHOLE  # looked up once: every request asks


class Attempt:
    """One try at a deployment, up to its answer's last byte."""

    _dialing: asyncio.Task[None] | None = None
    _response: Sent | None = None  # a stream that has begun

    def __init__(self, exchange: Exchange, bridge: Bridge, route: Route, target: Target, ended: Ended) -> None:
        self._exchange = exchange
        self._bridge = bridge
        self._route = route
        self._target = target
        self._ended: Ended | None = ended
        self._gateway = exchange.gateway
        self._plan = exchange.plan
        self._record = exchange.record
        upstream = route.upstream(target)
        self._body = bridge.body(upstream, target)
        head = target.head(bridge.dialect, upstream, stream=bridge.stream)
        self._head = head.replace(b"\r\n", b"\r\n" + bridge.headers, 1) if bridge.headers else head
        self._relay = self._new_relay()

    def begin(self) -> None:
        """Ask."""
        self._record.sent_at = monotonic()
        try:
            call = self._gateway.upstream.reuse(self._target.origin, self._head, self._body, self._relay)
            if call is not None:
                self._relay.sent(call)
            else:
                self._dial()
        except Exception as exc:
            self._end(exc)

    def leave(self) -> None:
        """The client has left.  Where that is wanted, upstream may finish, so that the usage is known."""
        if self._ended is None:
            return
        relay = self._relay
        self._record.outcome = "client_gone"
        if self._plan.settings.stream.on_disconnect == "cancel" or relay.call is None:
            self._end(None)
        else:
            relay.on_ready, relay.on_over = None, self._outlived
            relay.mute()

    # Asking...

    def _dial(self) -> None:
        self._dialing = asyncio.get_running_loop().create_task(self._ask_afresh())

    async def _ask_afresh(self) -> None:
        """Send the request on a connection of its own."""
        target = self._target
        try:
            call = await self._gateway.upstream.send(
                target.origin, self._head, self._body, self._relay, connect=target.timeouts.connect
            )
            self._dialing = None
            self._relay.sent(call)
        except Exception as exc:
            self._dialing = None
            self._end(exc)

    def _new_relay(self) -> Relay:
        bridge, model, settings = self._bridge, self._route.model, self._plan.settings
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
                bridge.pipe(model, max_frame),
                lambda body: bridge.chunks(body, model),  # without `self`, which would be a cycle
                keepalive=settings.stream.keepalive,
                keepalive_frame=self._keepalive,
            )
        relay.on_ready = self._answer
        self._gateway.relays.add(relay)
        return relay

    # Answering...

    def _answer(self) -> None:
        """The relay has told how."""
        relay, told = self._relay, self._relay.told
        try:
            if told is _READY_WHOLE:
                self._end(self._whole())
            elif isinstance(told, Stale):
                # No byte of an answer has come on a connection that was kept: it had been closed.
                self._gateway.relays.discard(relay)
                relay.close()
                self._relay = self._new_relay()
                self._dial()
            elif isinstance(told, GatewayError):
                self._end(told)
            else:
                self._stream(quiet=told is Ready.QUIET)
        except Exception as exc:
            self._end(exc)

    def _whole(self) -> Sent:
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

    def _stream(self, *, quiet: bool) -> None:
        relay, record = self._relay, self._record
        if relay.head is not None:
            passed_on(relay.head, self._exchange)
        record.first_frame_at = relay.first_frame_at
        outlet = Outlet(self._exchange.request)
        first = relay.take_held()
        if quiet and not first:
            first = self._keepalive
        head = answers.head(self._exchange, self._bridge.media_type or EVENT_STREAM, UNBUFFERED)
        self._response = outlet.open(head, first, last=relay.over and len(first) < _AT_ONCE)
        relay.on_over = self._streamed
        try:
            relay.flow(outlet)
        except Exception:
            log.exception("request %s failed inside its stream", record.request_id)
            relay.fail(InternalError(record.request_id))
        if relay.over:
            self._streamed()

    # Ending...

    def _streamed(self) -> None:
        """The stream is over."""
        relay, record, result = self._relay, self._record, self._response
        if isinstance(relay.error, ClientStalled):
            record.outcome, result = "client_stalled", None
        elif relay.error is not None:
            record.outcome, record.error, record.reason = "failed", relay.error.kind, relay.error.reason
        else:
            record.usage = self._usage_of_whole()
        self._end(result)

    def _outlived(self) -> None:
        """Upstream has finished what its client did not wait for."""
        self._record.usage = self._usage_of_whole()
        self._end(None)

    def _usage_of_whole(self) -> Usage | None:
        """What a whole answer has cost that was not told as one."""
        relay = self._relay
        if relay.error is None and relay.head is not None and relay.head.good and relay.body:
            try:
                return self._bridge.whole(relay.body, self._route.model)[1]
            except GatewayError:
                return None
            except Exception:  # the answer has gone out, and must end without its price, too
                log.exception("request %s has an answer that cannot be counted", self._record.request_id)
        return None

    def _end(self, result: Sent | Exception | None) -> None:
        """Settle, once, and tell."""
        ended, self._ended = self._ended, None
        if ended is None:
            return
        if isinstance(result, GatewayError):
            outcome: str = result.kind
        else:
            outcome = "cancelled" if result is None or isinstance(result, Exception) else self._record.error or "ok"
        try:
            self._settle(outcome)
        except Exception as exc:
            result = exc
        ended(result)

    def _settle(self, outcome: str) -> None:
        relay, record = self._relay, self._record
        self._gateway.relays.discard(relay)
        relay.close()
        if self._dialing is not None:
            self._dialing.cancel()
        if relay.pipe is not None:
            record.first_frame_at = record.first_frame_at or relay.first_frame_at
            record.frames, record.gaps = relay.frames, relay.gaps
            record.usage = record.usage or relay.pipe.usage
        self._gateway.metrics.attempt(self._route.label, self._target.provider, outcome)

    @property
    def _keepalive(self) -> bytes:
        return self._bridge.keepalive(self._plan.settings.stream.keepalive_mode)


def passed_on(head: Head, exchange: Exchange) -> None:
    """Take what a client may see of a provider's headers."""
    told, scrub, key = exchange.record.headers, exchange.plan.scrub, exchange.key
    for name, value in head.headers.items():
        ours = _passes(name)
        if not ours or (ours[:12] == "x-ratelimit-" and (key.requests_per_minute or key.tokens_per_minute)):
            continue  # where a key has limits of ours, those are told
        if value.isprintable():
            told[ours] = scrub(value)


@lru_cache(256)  # providers send the same ones each time
def _passes(name: str) -> str:
    """How a client is told a provider's header; "" where it is not."""
    if name in ("x-request-id", "request-id", "x-ds-trace-id"):
        return "x-upstream-request-id"
    if name == "retry-after" or name.startswith(("x-ratelimit-", "openai-", "anthropic-ratelimit-")):
        return "" if name == "openai-organization" else name
    return ""
