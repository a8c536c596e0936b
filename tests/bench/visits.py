"""Clients of every dialect and temper: most ask and listen, some leave early, read slowly or talk nonsense."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.functional import KEY, authorized
from tests.functional.wire import Connection, connect, request_bytes

from .moods import COMPLETE, ILL, MOODS, REFUSED, WELL, prompt

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.functional.wire import Answer

#: A key for four streams at once, one for few requests a minute, and one that may look at the metrics.
NARROW, HURRIED, ADMIN = "sk-narrow-0123456789", "sk-hurried-0123456789", "sk-admin-0123456789"
NARROW_STREAMS = 4
#: Models, each at a provider of this dialect.
MODELS = ("chat", "messages", "gemini", "workers", "responses")
#: Models whose provider refuses connections, or does not even that.
UNREACHABLE = ("down", "hole")
#: Seconds that a visit may take before it counts as hanging.
PATIENCE = 30.0
#: Seconds that a client must not read before the gateway leaves it, with room.
STALLED = 7.0
MARK = re.compile(rb"@(\d+)@")


# How clients speak...


@dataclass(frozen=True)
class Dialect:
    """``ends`` is in every complete stream, ``breaks`` in every broken one, and neither in the other."""

    ends: bytes
    breaks: bytes
    path: str
    body: Callable[[str, str], dict[str, Any]]
    #: Where a stream is asked for, if the path says so and not the body.
    streams_at: str = ""

    def request(self, model: str, text: str, streamed: bool) -> tuple[str, dict[str, Any]]:
        """Where to ask, and what."""
        path = self.streams_at if streamed and self.streams_at else self.path
        asked = self.body(model, text) | ({} if self.streams_at else {"stream": streamed})
        return path.replace("{model}", model), asked


def _chat(model: str, text: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}]}


def _gemini(_: str, text: str) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"text": text}]}]}


_GOOGLE = "/v1beta/models/{model}:"
DIALECTS = (
    Dialect(b"data: [DONE]", b'{"error":', "/v1/chat/completions", _chat),
    Dialect(b"data: [DONE]", b'{"error":', "/chat", _chat),
    Dialect(b'"done":true', b'{"error":', "/api/chat", lambda model, text: {"model": model, "prompt": text}),
    Dialect(
        b"event: response.completed",
        b"event: error",
        "/v1/responses",
        lambda model, text: {"model": model, "input": text},
    ),
    Dialect(
        b"event: message_stop",
        b"event: error",
        "/v1/messages",
        lambda model, text: {**_chat(model, text), "max_tokens": 1000},
    ),
    Dialect(
        b'"finishReason"',
        b'{"error":',
        f"{_GOOGLE}generateContent",
        _gemini,
        f"{_GOOGLE}streamGenerateContent?alt=sse",
    ),
    Dialect(b'"finishReason"', b'{"error":', f"{_GOOGLE}generateContent", _gemini, f"{_GOOGLE}streamGenerateContent"),
)


def end_of(dialect: Dialect, streamed: bool, status: int, raw: bytes, pieces: int) -> str:
    """How an exchange ended that HTTP says is whole: ``complete``, ``told``, ``refused``, or what is wrong with it."""
    if status != 200:
        return "refused" if b'"error"' in raw else f"{status} without an error: {raw[:200]!r}"
    numbers = list(dict.fromkeys(int(number) for number in MARK.findall(raw)))
    everything = numbers == list(range(pieces))
    if not streamed:
        return "complete" if everything else f"{len(numbers)} of {pieces} pieces, or out of order"
    ended, broke = dialect.ends in raw, dialect.breaks in raw
    if ended == broke:
        return f"a stream with {'both an end and an error' if ended else 'neither end nor error'}: {raw[-300:]!r}"
    if ended and not everything:
        return f"an end after {len(numbers)} of {pieces} pieces, or out of order"
    return "complete" if ended else "told"


# What clients do...


@dataclass(frozen=True)
class Ask:
    """An exchange that a client begins."""

    mood: str
    dialect: Dialect
    model: str
    streamed: bool = True
    key: str = KEY

    def __str__(self) -> str:
        how = "streamed" if self.streamed else "whole"
        return f"{self.dialect.path} to {self.model}, {how}, provider {self.mood}"

    @property
    def bytes(self) -> bytes:
        path, body = self.dialect.request(self.model, prompt(self.mood), self.streamed)
        return request_bytes("POST", path, headers=authorized(self.key), json=body)

    async def send(self, client: Connection) -> Answer:
        """Returns when the answer's head is in."""
        path, body = self.dialect.request(self.model, prompt(self.mood), self.streamed)
        return await client.ask("POST", path, headers=authorized(self.key), json=body)

    async def end(self, answer: Answer, pause: float = 0.0) -> str:
        """Read the rest, with a ``pause`` after each piece; how it ended."""
        pieces = []
        async for piece in answer.chunks():
            pieces.append(piece)
            if pause:
                await asyncio.sleep(pause)
        if not answer.whole:
            return f"{answer.outcome} after {b''.join(pieces)[-200:]!r}"
        return end_of(self.dialect, self.streamed, answer.status, b"".join(pieces), len(MOODS[self.mood].pieces))


class Visits:
    """Visits to a gateway at ``port``: each is one client that comes, does what it came for, and goes."""

    def __init__(self, port: int, seed: int) -> None:
        self.made: Counter[str] = Counter()
        #: How exchanges ended.
        self.ends: Counter[str] = Counter()
        #: What should not have been.
        self.wrong: list[str] = []
        self._port = port
        self._dice = random.Random(seed)
        self._kinds = {
            self.listens: 50,
            self.suffers: 20,
            self.stays: 5,
            self.leaves_before_the_answer: 8,
            self.leaves_inside_the_answer: 10,
            self.leaves_inside_its_request: 6,
            self.drips_its_request: 2,
            self.reads_slowly: 1,
            self.stops_reading: 1,
            self.cannot_be_served: 2,
            self.is_limited: 6,
            self.is_refused: 8,
            self.looks_around: 4,
        }

    async def make(self) -> None:
        """One visit of some kind; what goes wrong is noted."""
        [kind] = self._dice.choices(list(self._kinds), list(self._kinds.values()))
        name = kind.__name__
        try:
            async with asyncio.timeout(PATIENCE):
                await kind()
        except (AssertionError, OSError, TimeoutError) as exc:
            self.wrong.append(f"{name}: {type(exc).__name__}: {exc}")
        self.made[name] += 1

    def _ask(self, mood: str, *, streamed: bool | None = None, key: str = KEY) -> Ask:
        if streamed is None:
            streamed = self._dice.random() < 0.7
        # The last frames of a flood in Responses say all of it again, and would be too large.
        models = MODELS if mood != "flooding" else MODELS[:-1]
        return Ask(mood, self._dice.choice(DIALECTS), self._dice.choice(models), streamed, key)

    async def _hear(self, ask: Ask, client: Connection, ends: frozenset[str] | None = None, pause: float = 0.0) -> None:
        """Ask and listen to the end, which has to be one of ``ends``: left out, of those that the mood has."""
        try:
            end = await ask.end(await ask.send(client), pause)
        except (AssertionError, OSError) as exc:
            end = f"{type(exc).__name__}: {exc}"
        self.ends[end if end in {"complete", "told", "refused"} else "wrong"] += 1
        assert end in (ends or MOODS[ask.mood].ends), f"{ask}: {end}"

    def _leave(self, client: Connection) -> None:
        """FIN or RST."""
        self._dice.choice((client.close, client.abort))()

    # Those who stay

    async def listens(self) -> None:
        async with await connect(self._port) as client:
            await self._hear(self._ask(self._dice.choice(list(WELL))), client)

    async def suffers(self) -> None:
        async with await connect(self._port) as client:
            await self._hear(self._ask(self._dice.choice(list(ILL))), client)

    async def stays(self) -> None:
        """Several exchanges on one connection."""
        async with await connect(self._port) as client:
            for _ in range(self._dice.randint(2, 5)):
                await self._hear(self._ask("fine"), client)
                await asyncio.sleep(self._dice.uniform(0, 0.1))

    async def drips_its_request(self) -> None:
        ask = self._ask("fine")
        async with await connect(self._port) as client:
            await client.drip(ask.bytes, 53)
            end = await ask.end(await client.answer())
            assert end == "complete", f"{ask}: {end}"

    async def reads_slowly(self) -> None:
        async with await connect(self._port, receive_buffer=32768) as client:
            await self._hear(self._ask("flooding", streamed=True), client, pause=0.002)

    async def stops_reading(self) -> None:
        ask = self._ask("flooding", streamed=True)
        async with await connect(self._port, receive_buffer=4096) as client:
            answer = await ask.send(client)
            await asyncio.sleep(STALLED)
            await answer.rest()
            assert not answer.whole, f"{ask}: a client that did not read for {STALLED:g} s was waited for"

    async def cannot_be_served(self) -> None:
        ask = Ask("fine", self._dice.choice(DIALECTS), self._dice.choice(UNREACHABLE), self._dice.random() < 0.5)
        async with await connect(self._port) as client:
            await self._hear(ask, client, REFUSED)

    async def is_limited(self) -> None:
        ask = self._ask("slow", key=self._dice.choice((NARROW, HURRIED)))
        async with await connect(self._port) as client:
            await self._hear(ask, client, COMPLETE | REFUSED)

    # Those who leave

    async def leaves_before_the_answer(self) -> None:
        ask = self._ask(self._dice.choice(("silent", "slow", "quiet", "fine")))
        async with await connect(self._port) as client:
            await client.send(ask.bytes)
            await asyncio.sleep(self._dice.choice((0, 0.001, 0.05)))
            self._leave(client)

    async def leaves_inside_the_answer(self) -> None:
        ask = self._ask(self._dice.choice(("slow", "quiet", "stalling", "flooding")), streamed=True)
        async with await connect(self._port) as client:
            answer = await ask.send(client)
            for _ in range(self._dice.randint(0, 3)):
                await answer.chunk()
            self._leave(client)

    async def leaves_inside_its_request(self) -> None:
        """Somewhere between its first byte and its last."""
        raw = self._ask("fine").bytes
        async with await connect(self._port) as client:
            await client.send(raw[: self._dice.randrange(1, len(raw))])
            await asyncio.sleep(self._dice.choice((0, 0.01, 0.1)))
            self._leave(client)

    # Those who should not have come

    async def is_refused(self) -> None:
        what, raw, status = self._dice.choice(REFUSALS)
        async with await connect(self._port) as client:
            await client.send(raw)
            answer = await client.answer()
            told = await answer.rest()
            assert answer.status == status, f"{what}: {answer.status} instead of {status}"
            assert answer.whole, f"{what}: {answer.outcome}"
            assert b'"error"' in told, f"{what}: {told!r}"

    async def looks_around(self) -> None:
        path = self._dice.choice(("/", "/health", "/livez", "/readyz", "/v1/models", "/api/models", "/v1beta/models"))
        async with await connect(self._port) as client:
            answer = await client.ask("GET", path, headers=authorized(KEY))
            await answer.body()
            assert answer.status == 200, f"{path}: {answer.status}"


def _post(path: str = "/v1/chat/completions", key: str = KEY, **what: Any) -> bytes:
    return request_bytes("POST", path, headers=what.pop("headers", authorized(key)), **what)


_GOOD = _chat("chat", prompt("fine"))
#: What is said to a gateway that must say no, and how it says so.
REFUSALS = (
    ("an unknown key", _post(key="sk-nobody-0123456789", json=_GOOD), 401),
    ("no key", _post(headers=(), json=_GOOD), 401),
    ("an unknown model", _post(json={**_GOOD, "model": "nothing"}), 404),
    ("an unknown path", _post("/v1/nothing", json=_GOOD), 404),
    ("another method", request_bytes("DELETE", "/v1/chat/completions", headers=authorized(KEY)), 405),
    ("no messages", _post(json={"model": "chat"}), 400),
    ("no JSON", _post(body=b"{", headers=[*authorized(KEY), ("Content-Type", "application/json")]), 400),
    ("no content type", _post(body=b"{}"), 415),
    (
        "a body that is too large",
        _post(headers=[*authorized(KEY), ("Content-Type", "application/json"), ("Content-Length", "99999999")]),
        413,
    ),
    ("metrics, and no admin", request_bytes("GET", "/metrics", headers=authorized(KEY)), 403),
    ("no HTTP", b"HELO mail.invalid\r\n\r\n", 400),
)
