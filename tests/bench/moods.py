"""A provider of every dialect that behaves as the prompt tells it: well, badly, or not at all."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from tests.functional.dialects import CHAT, GEMINI, MESSAGES, RESPONSES, WORKERS_AI
from tests.functional.upstream import EVENT_STREAM, JSON, Upstream, compact, sse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.functional.dialects import Provider
    from tests.functional.upstream import Call

#: Providers by the beginning of the path that they are asked at.
PATHS = {
    "/v1/chat/completions": CHAT,
    "/v1/messages": MESSAGES,
    "/v1/responses": RESPONSES,
    "/v1beta/": GEMINI,
    "/run/": WORKERS_AI,
}
#: Frames of a flood, and letters in each: more than sockets hold, so that a slow reader is felt.
FLOOD, FILLER = 400, "lorem ipsum " * 170
FRAMES = 8
#: Seconds: between frames of a slow answer, and a pause that is longer than the keep-alive and shorter than the clocks.
SLOW, QUIET = 0.02, 0.5
#: Bytes that no frame, and no whole answer, may have.
LARGE_FRAME, LARGE_ANSWER = 32_768, 262_144


def prompt(mood: str) -> str:
    return f"soak: {mood}."


def numbered(frames: int, filler: str = "") -> tuple[str, ...]:
    """Pieces of an answer that can be told apart: @0@, @1@, ..."""
    return tuple(f"@{number}@ {filler}" for number in range(frames))


@cache
def answers(path: str, pieces: tuple[str, ...]) -> tuple[list[bytes], bytes]:
    """The same answer as frames and in one."""
    provider = PATHS[path]
    return provider.says(*pieces), compact(provider.said("".join(pieces))).encode()


@dataclass(frozen=True)
class Told:
    """One call, and the good answer to it."""

    call: Call
    provider: Provider
    streamed: bool
    frames: list[bytes]
    body: bytes

    @property
    def pieces(self) -> list[bytes]:
        return self.frames if self.streamed else [self.body]

    async def head(self, **how: str) -> None:
        await self.call.head(200, EVENT_STREAM if self.streamed else JSON, **how)  # type: ignore[arg-type]

    async def rest(self, pause: float = 0.0) -> None:
        """All that follows the head."""
        for piece in self.pieces:
            await self.call.send(piece)
            await asyncio.sleep(pause)
        await self.call.done()

    async def half(self) -> None:
        """The head, and the first half of the answer, which has content."""
        if self.streamed:
            await self.head()
            for frame in self.frames[: len(self.frames) // 2 + 1]:
                await self.call.send(frame)
        else:
            await self.call.head(200, JSON, length=len(self.body))
            await self.call.send(self.body[: len(self.body) // 2])


# In good health, each in its own way...


async def fine(told: Told) -> None:
    if told.streamed:
        await told.head()
        await told.rest()
    else:
        await told.call.reply(told.body)


async def slow(told: Told) -> None:
    await told.head()
    await told.rest(SLOW)


async def quiet(told: Told) -> None:
    await told.head()
    await asyncio.sleep(QUIET)
    await told.rest()


async def dripping(told: Told) -> None:
    await told.head()
    await told.call.drip(b"".join(told.pieces), 61)
    await told.call.done()


async def packed(told: Told) -> None:
    await told.head(encoding="gzip")
    await told.rest()


async def unframed(told: Told) -> None:
    await told.head(framing="close")
    await told.rest()


async def stale(told: Told) -> None:
    """A kept connection is reset, as if the request had crossed its end; a new one is served."""
    if told.call.reused:
        told.call.reset()
    else:
        await fine(told)


# Ill...


async def stalling(told: Told) -> None:
    await told.half()
    await told.call.connection.gone.wait()


async def silent(told: Told) -> None:
    await told.call.connection.gone.wait()


async def torn(told: Told) -> None:
    await told.half()
    if told.streamed:
        await told.call.torn(told.frames[-1][:10])


async def resetting(told: Told) -> None:
    await told.half()
    told.call.reset()


async def hanging_up(told: Told) -> None:
    told.call.close()


async def babbling(told: Told) -> None:
    await told.call.raw(b"220 mail.invalid ESMTP\r\n\r\n")


async def elsewhere(told: Told) -> None:
    await told.call.reply(b"<html><body>Welcome</body></html>", 200, {"Content-Type": "text/html"})


async def stammering(told: Told) -> None:
    """What should be an HTTP chunk is none."""
    await told.head()
    await told.call.send(told.pieces[0][:20])
    await told.call.raw(b"zz\r\n")


async def raving(told: Told) -> None:
    """What should be JSON is none."""
    if told.streamed:
        await told.half()
        await told.call.send(b'data: {"choices":[{]\n\n')
    else:
        await told.call.reply(told.body[:-3])


async def bloated(told: Told) -> None:
    if told.streamed:
        await told.half()
        await told.call.send(sse("x" * LARGE_FRAME))
    else:
        await told.call.reply(b'{"a":"%b"}' % (b"x" * LARGE_ANSWER))


async def sorry(told: Told) -> None:
    """An error frame inside a stream."""
    error = told.provider.refuses("out of order", 529, "overloaded_error")
    if told.streamed:
        await told.half()
        await told.call.frame(sse(error, event="error"))
        await told.call.done()
    else:
        await told.call.reply(error, 529)


def refusing(status: int) -> Callable[[Told], Awaitable[None]]:
    async def refuse(told: Told) -> None:
        await told.call.reply(told.provider.refuses("not so", status), status)

    return refuse


@dataclass(frozen=True)
class Mood:
    """What the provider does, and in which ways an exchange with it may end for a client that stays.

    ``complete``: the whole answer.  ``told``: a part, then an error frame.  ``refused``: an error status.
    """

    act: Callable[[Told], Awaitable[None]]
    ends: frozenset[str]
    pieces: tuple[str, ...] = numbered(FRAMES)


COMPLETE, BROKEN, REFUSED = frozenset({"complete"}), frozenset({"told", "refused"}), frozenset({"refused"})
WELL = {
    "fine": Mood(fine, COMPLETE),
    "slow": Mood(slow, COMPLETE),
    "quiet": Mood(quiet, COMPLETE),
    "dripping": Mood(dripping, COMPLETE),
    "packed": Mood(packed, COMPLETE),
    "unframed": Mood(unframed, COMPLETE),
    "stale": Mood(stale, COMPLETE),
}
ILL = {
    "stalling": Mood(stalling, BROKEN),
    "silent": Mood(silent, REFUSED),
    "torn": Mood(torn, BROKEN),
    "resetting": Mood(resetting, BROKEN),
    "hanging_up": Mood(hanging_up, REFUSED),
    "babbling": Mood(babbling, REFUSED),
    "elsewhere": Mood(elsewhere, REFUSED),
    "stammering": Mood(stammering, BROKEN),
    "raving": Mood(raving, BROKEN),
    "bloated": Mood(bloated, BROKEN),
    "sorry": Mood(sorry, BROKEN),
    **{f"refusing_{status}": Mood(refusing(status), REFUSED) for status in (400, 401, 404, 429, 500, 503)},
}
MOODS = {**WELL, **ILL, "flooding": Mood(fine, COMPLETE, numbered(FLOOD, FILLER))}


class Moody(Upstream):
    """The provider.  It keeps nothing of what is over: a soak makes more calls than should be remembered."""

    def __init__(self) -> None:
        super().__init__(self._answer)

    async def _answer(self, call: Call) -> None:
        found = re.search(rb"soak: (\w+)\.", call.body)
        assert found, f"{call!r} has lost its prompt"
        mood = MOODS[found[1].decode()]
        path = next(path for path in PATHS if call.target.startswith(path))
        streamed = ":stream" in call.target or call.asked.get("stream") is True
        await mood.act(Told(call, PATHS[path], streamed, *answers(path, mood.pieces)))

    def _tell(self, call: Call) -> None:
        del call.connection.calls[1:]  # the first is how later ones know that they are later
        self.connections = [connection for connection in self.connections if not connection.lost.is_set()]
