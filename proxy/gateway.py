"""What requests share: the configuration in force, and what outlives its changes."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from aiohttp import web
from msgspec import Struct, field
from msgspec.structs import replace

from proxy import __version__
from proxy.dialects import simple_chat
from proxy.errors import InternalError, InvalidRequest, Overloaded
from proxy.observe.logs import AccessLog
from proxy.observe.metrics import Metrics
from proxy.observe.record import Record, new_id
from proxy.origin import Origin
from proxy.pages import Origins, headers_for
from proxy.routing import table
from proxy.scrub import scrubber
from proxy.settings import Key
from proxy.state.limits import Limits
from proxy.state.memory import Memory
from proxy.upstream import Upstream
from proxy.wheel import Wheel

if TYPE_CHECKING:
    from aiohttp.web_request import BaseRequest

    from proxy.demo import Demo
    from proxy.refusals import Scrub
    from proxy.relay import Relay
    from proxy.routing.table import Table
    from proxy.settings import Settings

AGENT = f"ai-proxy/{__version__}"


class Plan(Struct, frozen=True):
    """One configuration, worked out: a request keeps the one that it began with."""

    settings: Settings
    table: Table
    #: Digest of a key → whose it is.
    callers: dict[bytes, Key]
    #: Who asks without a credential, where that is allowed.
    anonymous: Key | None
    #: An open gateway that nobody said should be one: it serves this machine only.
    guarded: bool
    origins: Origins
    scrub: Scrub
    #: The same as long as what heads are judged by is the same.
    edition: object = field(default_factory=object)


def draw_up(settings: Settings, demo: tuple[str, str] | None = None) -> Plan:
    """Work out a configuration; ``demo`` is where the demo provider listens, and its key."""
    open_ = settings.open
    anonymous = None
    if open_ or settings.auth.anonymous:
        limits = settings.limits
        anonymous = Key(
            name="anonymous",
            digest=b"",
            requests_per_minute=limits.requests_per_minute,
            tokens_per_minute=limits.tokens_per_minute,
            streams=limits.streams,
        )
    guarded = open_ and not settings.auth.anonymous
    asked = [p for p in settings.providers if p.kind != "demo"]
    secrets = [s for p in asked for s in (p.api_key.reveal(), p.account_id, *p.headers.values())]
    hosts = [h for p in asked for h in _hosts(p.base_url)]
    return Plan(
        settings=settings,
        table=table.build(settings, demo, AGENT),
        callers={key.digest: key for key in settings.keys},
        anonymous=anonymous,
        guarded=guarded,
        origins=Origins(settings.cors.origins),
        scrub=scrubber(secrets, hosts),
    )


def _hosts(url: str) -> list[str]:
    if not url:
        return []
    origin = Origin.of(url)
    return [f"{origin.host}:{origin.port}", origin.host]


class Gateway:
    """Everything that lives as long as the process.  ``plan`` is the configuration in force."""

    def __init__(self, settings: Settings) -> None:
        self.metrics = Metrics()
        self.limits = Limits()
        self.memory = Memory()
        self.wheel = Wheel()
        self.upstream = Upstream()
        self.access_log = AccessLog(settings.log)
        #: Exchanges that can still be told of an end.
        self.relays: set[Relay] = set()
        self.live = 0
        self.draining = False
        self._idle = asyncio.Event()
        self._demo: Demo | None = None
        self._starting: asyncio.Task[None] | None = None
        self.plan = draw_up(settings)

    async def start(self) -> None:
        """Start what needs the loop."""
        await self._start_demo(self.plan.settings)

    def swap(self, settings: Settings) -> None:
        """Serve every request that begins from now on by ``settings``; running ones keep theirs."""
        self.access_log.follow(settings.log)
        self.plan = draw_up(settings, self._demo_place)
        if self._demo is None and self._starting is None and _wants_demo(settings):
            self._starting = asyncio.ensure_future(self._start_demo(settings))

    # Beginning and ending of requests...

    def entered(self) -> None:
        """A request has begun."""
        self.live += 1

    def left(self) -> None:
        """It is over."""
        self.live -= 1
        if not self.live:
            self._idle.set()

    def drain(self) -> None:
        """Take nothing new: whatever arrives from now on is told that we are going."""
        self.draining = True

    async def idle(self) -> None:
        """Wait until no request is in flight."""
        while self.live:
            self._idle.clear()
            await self._idle.wait()

    def cut(self) -> None:
        """Tell the exchanges in flight that their time is over."""
        for relay in tuple(self.relays):
            relay.fail(Overloaded("the gateway is shutting down; ask again"))

    async def close(self) -> None:
        """Close connections to providers and write what the log still holds."""
        if self._starting is not None:
            self._starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._starting
        self.wheel.close()
        await self.upstream.close()
        if self._demo is not None:
            await self._demo.close()
        self.access_log.flush()
        self.metrics.flush()

    # What connections ask...

    @property
    def patience(self) -> float:
        """Seconds that a client has to send a request head, or to read what it is sent."""
        return self.plan.settings.timeouts.client

    def answer_malformed(self, request: BaseRequest, status: int) -> web.Response:
        """Answer what is not HTTP, and (``status`` 500) what failed outside of every middleware."""
        records = (value for value in request.values() if isinstance(value, Record))
        id = next((record.request_id for record in records), None) or new_id()
        error = InvalidRequest("the request is not valid HTTP") if status < 500 else InternalError(id)
        headers = {"Server": "ai-proxy", "x-request-id": id, **headers_for(self.plan.origins, None)}
        return web.Response(
            body=simple_chat.body(error),
            status=error.status,
            headers=headers,
            content_type="application/json",
        )

    # The demo provider...

    @property
    def _demo_place(self) -> tuple[str, str] | None:
        return (self._demo.base_url, self._demo.api_key) if self._demo is not None else None

    async def _start_demo(self, settings: Settings) -> None:
        if not _wants_demo(settings):
            return
        from proxy.demo import Demo  # what the configuration does not use is not loaded

        demo = Demo()
        await demo.start()
        self._demo = demo
        self.plan = replace(self.plan, table=table.build(self.plan.settings, self._demo_place, AGENT))


def _wants_demo(settings: Settings) -> bool:
    return any(p.kind == "demo" and p.enabled for p in settings.providers)


GATEWAY: web.AppKey[Gateway] = web.AppKey("gateway", Gateway)
