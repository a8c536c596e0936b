"""What the rest of the house reads: every setting with its default, frozen.

Seconds and bytes are meant where no unit is named.  The defaults are part of the contract.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from proxy.origin import TLS
from proxy.settings.references import Secret

#: A duration where 0 says something: at once, or off.
SecondsOrZero = Annotated[float, Meta(ge=0)]
#: A duration where 0 could only be a mistake.
Seconds = Annotated[float, Meta(gt=0)]
#: A number where 0 means no limit.
Limit = Annotated[int, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]
Names = tuple[str, ...]


class Server(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the gateway listens, and what it calls itself."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    workers: Count = 1
    #: How long SIGTERM lets live streams finish.
    drain: SecondsOrZero = 300.0
    name: str = "AI Proxy"
    #: A provider whose secret is missing is an error instead of a warning.
    strict: bool = False
    public_url: str = ""


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one request, one process and (the last three) one key may use; 0 = no limit, except for sizes."""

    max_body_bytes: Count = 1_048_576
    max_frame_bytes: Count = 16_777_216
    max_header_bytes: Count = 32_768
    max_streams: Limit = 0
    requests_per_minute: Limit = 0
    tokens_per_minute: Limit = 0
    streams: Limit = 0


class Timeouts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Named clocks; the error says which one fired.  Streams have no total: a good answer may take ten minutes."""

    connect: Seconds = 5.0
    first_byte: Seconds = 120.0
    #: Silence inside an answer.
    idle: Seconds = 120.0
    #: The longest stretch of mere signs of life.
    heartbeat: Seconds = 600.0
    #: A whole answer, all attempts together.
    total: Seconds = 600.0
    #: A streamed answer; 0 = no limit.
    stream_total: SecondsOrZero = 0.0
    #: How long to wait for usage and the end mark after a finish reason.
    after_finish: SecondsOrZero = 2.0
    #: A request head, a body (plus 1 s per 16 KiB), a client that does not read.
    client: Seconds = 30.0
    #: An idle client connection; 0 = closed after each answer.
    keepalive_idle: SecondsOrZero = 75.0


#: The clocks that belong to an attempt or its answer: a provider or a model may have its own.
ATTEMPT_CLOCKS = ("connect", "first_byte", "idle", "heartbeat", "total", "stream_total", "after_finish")


class Stream(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How streams are kept alive, and what happens when their reader leaves."""

    keepalive: SecondsOrZero = 15.0
    keepalive_mode: Literal["comment", "chunk", "off"] = "comment"
    on_disconnect: Literal["cancel", "drain"] = "cancel"


class Auth(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    #: Requests without a credential are served; a wrong one is still refused.
    anonymous: bool = False


class Cors(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Origins whose pages may read answers: ``*``, or patterns like ``https://*.example.org``."""

    origins: Names = ("*",)


class State(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where limits, cool-downs and cache live: ``memory:`` or a Redis URL, which may hold a password."""

    url: str = "memory:"

    def __repr__(self) -> str:
        return f"State(url={self.url.partition(':')[0]}:***)" if self.shared else "State(url=memory:)"

    @property
    def shared(self) -> bool:
        return self.url != "memory:"


class Cache(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    #: Seconds an answer may be given again; 0 = off.
    ttl: SecondsOrZero = 0.0
    max_bytes: Count = 67_108_864


class Defaults(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model of a request that names none, by route; "" = the first that is available."""

    chat: str = ""
    code: str = ""
    proxy: str = ""


class Routing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How failures are met: further attempts, and rest for a deployment that keeps failing."""

    retries: Limit = 2
    backoff: SecondsOrZero = 0.25
    cooldown: SecondsOrZero = 30.0
    trip: Count = 5
    window: Seconds = 60.0
    hedge_after: SecondsOrZero = 0.0


class Log(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"


class Key(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may ask for what.  Only the digest (SHA-256, 32 bytes) of the key itself is kept."""

    name: str
    digest: bytes
    models: Names = ("*",)
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    streams: int = 0
    #: Aware, in UTC; the key is valid until then.
    expires: datetime | None = None
    admin: bool = False

    def __repr__(self) -> str:
        return f"Key(name={self.name!r}, digest=***, models={self.models!r}, admin={self.admin!r})"


ProviderKind = Literal["openai", "deepseek", "workers-ai", "anthropic", "gemini", "ollama", "demo"]
#: Which of its APIs a provider is asked in, where it has several; only some kinds have a choice.
Endpoint = Literal["openai", "native", "responses"]


class Provider(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A company's conventions with our account there; ``base_url`` has no trailing slash or version."""

    name: str
    kind: ProviderKind
    base_url: str
    api_key: Secret = Secret()
    account_id: str = ""
    endpoint: Endpoint = "openai"
    headers: dict[str, str] = {}
    timeouts: dict[str, float] = {}
    tls: TLS = TLS()
    ask_usage: bool = True
    responses: bool = False
    drop: Names = ()
    #: False: one of its references leads nowhere, so it cannot be asked; ``reason`` says which.
    enabled: bool = True
    reason: str = ""

    def __repr__(self) -> str:
        return f"Provider(name={self.name!r}, kind={self.kind!r}, enabled={self.enabled!r}, ***)"


class Price(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Per million tokens, in whatever currency the operator thinks; ``cached`` left out: as ``input``."""

    input: Annotated[float, Meta(ge=0)]
    output: Annotated[float, Meta(ge=0)]
    cached: Annotated[float, Meta(ge=0)] | None = None


class Deployment(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model at one provider; ``upstream`` is "" in a wildcard, where the rest of the name goes upstream."""

    provider: str
    upstream: str = ""
    weight: Count = 1


class Model(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What clients ask for, and where it is deployed."""

    id: str
    deployments: tuple[Deployment, ...]
    label: str = ""
    description: str = ""
    aliases: Names = ()
    context: int | None = None
    timeouts: dict[str, float] = {}
    price: Price | None = None
    fallbacks: Names = ()

    @property
    def wildcard(self) -> bool:
        return self.id.endswith("*")


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One state of the configuration; a reload makes another one."""

    server: Server = Server()
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    stream: Stream = Stream()
    auth: Auth = Auth()
    cors: Cors = Cors()
    state: State = State()
    cache: Cache = Cache()
    defaults: Defaults = Defaults()
    routing: Routing = Routing()
    log: Log = Log()
    keys: tuple[Key, ...] = ()
    providers: tuple[Provider, ...] = ()
    models: tuple[Model, ...] = ()

    @property
    def open(self) -> bool:
        """Without keys nobody can be told from anybody else."""
        return not self.keys


class Overrides(Struct, frozen=True, kw_only=True):
    """What the command line says instead of the file; None: as the file says."""

    host: str | None = None
    port: int | None = None
    workers: int | None = None
