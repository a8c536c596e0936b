"""One coarse clock for everything that waits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from proxy import wheel
from proxy.wheel import Wheel

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(autouse=True)
def fine_grain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel, "GRAIN", 0.001)


class Member:
    """Counts its ticks, and does something at each."""

    def __init__(self, does: Callable[[], None] = lambda: None) -> None:
        self.ticks: list[float] = []
        self.does = does
        self._news = asyncio.Event()

    def tick(self, now: float) -> None:
        self.ticks.append(now)
        self._news.set()
        self.does()

    async def ticked(self, times: int = 1) -> None:
        wanted = len(self.ticks) + times
        async with asyncio.timeout(10):
            while len(self.ticks) < wanted:
                self._news.clear()
                await self._news.wait()


async def test_members_are_told_the_loop_s_time():
    turning, member = Wheel(), Member()
    before = asyncio.get_running_loop().time()
    turning.add(member)
    await member.ticked(3)
    turning.close()
    assert before < member.ticks[0] < member.ticks[1] < member.ticks[2] <= asyncio.get_running_loop().time()


async def test_a_member_that_left_is_told_no_more():
    turning, stays, leaves = Wheel(), Member(), Member()
    turning.add(stays)
    turning.add(leaves)
    await leaves.ticked()
    turning.discard(leaves)
    told = len(leaves.ticks)
    await stays.ticked(3)
    assert len(leaves.ticks) == told
    turning.discard(leaves)  # a second time does nothing
    turning.close()


async def test_members_may_leave_and_join_inside_their_tick():
    turning, joins = Wheel(), Member()

    def change() -> None:
        turning.discard(changes)
        turning.add(joins)

    changes = Member(change)
    turning.add(changes)
    await joins.ticked(2)
    assert len(changes.ticks) == 1
    turning.close()


async def test_an_empty_wheel_stands_still_and_turns_again():
    turning, member = Wheel(), Member()
    turning.add(member)
    turning.discard(member)
    other = Member(lambda: turning.discard(other))
    turning.add(other)
    await other.ticked()
    await asyncio.sleep(0.005)
    assert turning._handle is None  # an idle process sleeps
    turning.add(member)
    await member.ticked()
    turning.close()


async def test_one_member_s_mistake_does_not_stop_the_others(caplog: pytest.LogCaptureFixture):
    turning = Wheel()

    def fails() -> None:
        raise RuntimeError("wrong")

    wrong, others = Member(fails), [Member() for _ in range(3)]
    for member in (others[0], wrong, *others[1:]):
        turning.add(member)
    for other in others:
        await other.ticked(3)
    assert len(wrong.ticks) == 1
    assert "a clock failed" in caplog.text
    turning.close()


async def test_a_closed_wheel_tells_nobody():
    turning, member = Wheel(), Member()
    turning.add(member)
    turning.close()
    turning.close()
    await asyncio.sleep(0.005)
    assert member.ticks == []
