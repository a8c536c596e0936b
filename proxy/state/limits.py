"""Limits of keys and of the process: requests and tokens a minute, exchanges at once.

A minute is a sliding window of two counters: the running minute's, and the last one's share that
still lies within sixty seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from proxy.errors import Overloaded, RateLimited

if TYPE_CHECKING:
    from proxy.settings import Key

_WINDOW = 60.0  # seconds


class _Counter:
    """How much of something happened in the last minute, nearly."""

    __slots__ = ("_last", "_now", "_period")

    def __init__(self) -> None:
        self._period = -1
        self._now = 0
        self._last = 0

    def value(self, now: float) -> float:
        self._turn(now)
        return self._now + self._last * (1 - now % _WINDOW / _WINDOW)

    def add(self, amount: int, now: float) -> None:
        self._turn(now)
        self._now += amount

    def take_back(self, amount: int, when: float, now: float) -> None:
        """Undo what was added at ``when``, which may have been in the last minute."""
        self._turn(now)
        period = int(when // _WINDOW)
        if period == self._period:
            self._now = max(0, self._now - amount)
        elif period == self._period - 1:
            self._last = max(0, self._last - amount)

    def wait(self, most: int, now: float) -> float:
        """Seconds until the value is no more than ``most``, if nothing more comes."""
        self._turn(now)
        gone = now % _WINDOW
        if self._now <= most:
            # The last minute's share must shrink to what is left.
            share = (most - self._now) / self._last if self._last else 1.0
            return max(0.0, _WINDOW * (1 - share) - gone) + 0.01
        return _WINDOW - gone + _WINDOW * (1 - most / self._now) + 0.01

    def _turn(self, now: float) -> None:
        period = int(now // _WINDOW)
        if period != self._period:
            self._last = self._now if period == self._period + 1 else 0
            self._now = 0
            self._period = period


class _Usage:
    __slots__ = ("requests", "streams", "tokens")

    def __init__(self) -> None:
        self.requests = _Counter()
        self.tokens = _Counter()
        self.streams = 0


class Slot(Struct, eq=False):
    """One admitted exchange.  Settled exactly once, whatever became of it."""

    _limits: Limits
    #: Its key's; None for one without limits.
    usage: _Usage | None
    _when: float
    _settled: bool = False

    def settle(self, *, refused: bool, tokens: int, now: float) -> None:
        """Give the slot back; a request refused with a 4xx costs nothing, another what it used."""
        if self._settled:
            return
        self._settled = True
        self._limits.live -= 1
        if self.usage is None:
            return
        self.usage.streams -= 1
        if refused:
            self.usage.requests.take_back(1, self._when, now)
        elif tokens:
            self.usage.tokens.add(tokens, now)


class Limits:
    """All counters of this process; they live on when the configuration changes."""

    def __init__(self) -> None:
        #: Exchanges at once, of everybody.
        self.live = 0
        self._usage: dict[str, _Usage] = {}

    def admit(self, key: Key | None, max_streams: int, now: float) -> Slot:
        """Take a slot, and count the request.  Raises ``RateLimited``, ``Overloaded``."""
        if max_streams and self.live >= max_streams:
            raise Overloaded(f"all {max_streams} places are taken (limits.max_streams)", retry_after=1)
        usage = None
        if key is not None and (key.requests_per_minute or key.tokens_per_minute or key.streams):
            usage = self._usage.get(key.name)
            if usage is None:
                usage = self._usage[key.name] = _Usage()
            self._check(key, usage, now)
            usage.requests.add(1, now)
            usage.streams += 1
        self.live += 1
        return Slot(self, usage, now)

    def headers(self, key: Key, now: float) -> dict[str, str]:
        """Say what is left, as OpenAI's `x-ratelimit-*` do."""
        told: dict[str, str] = {}
        usage = self._usage.get(key.name)
        if usage is None:
            return told
        for what, limit, counter in (
            ("requests", key.requests_per_minute, usage.requests),
            ("tokens", key.tokens_per_minute, usage.tokens),
        ):
            if limit:
                told[f"x-ratelimit-limit-{what}"] = str(limit)
                told[f"x-ratelimit-remaining-{what}"] = str(max(0, int(limit - counter.value(now))))
                told[f"x-ratelimit-reset-{what}"] = f"{_WINDOW - now % _WINDOW:.0f}s"
        return told

    def _check(self, key: Key, usage: _Usage, now: float) -> None:
        for name, limit, counter in (
            ("requests per minute", key.requests_per_minute, usage.requests),
            ("tokens per minute", key.tokens_per_minute, usage.tokens),
        ):
            # One more request must fit; what an answer will cost is known only afterwards.
            if limit and counter.value(now) > limit - 1:
                raise RateLimited(
                    f"this key may use {limit} {name}",
                    retry_after=counter.wait(limit - 1, now),
                    headers=self.headers(key, now),
                )
        if key.streams and usage.streams >= key.streams:
            raise RateLimited(
                f"this key may have {key.streams} exchanges at once (streams)",
                retry_after=1,
                headers=self.headers(key, now),
            )
