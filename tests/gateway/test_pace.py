"""How fast we ask, on a made-up clock."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest

from tenuto.gateway.pace import HOLD_BACK_SECONDS, RateLimit


class MadeUpTime:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.at = 1000.0

    def clock(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.at += seconds
        await asyncio.sleep(0)


@pytest.mark.parametrize("per_second", [1.0, 5.0, 25.0, 100.0])
async def test_no_second_sees_more_than_its_rate(per_second: float) -> None:
    time = MadeUpTime()
    limit = RateLimit(per_second, clock=time.clock, sleep=time.sleep)
    went: deque[float] = deque()
    for _ in range(int(per_second) * 5):
        await limit.wait()
        went.append(time.at)
        assert sum(at > time.at - 1 for at in went) <= max(per_second, 2)
    took = time.at - 1000
    assert took == pytest.approx(len(went) / (0.8 * per_second), rel=0.3)


async def test_a_rested_bucket_lets_a_few_go_at_once_and_never_saves_up_more() -> None:
    time = MadeUpTime()
    limit = RateLimit(25, clock=time.clock, sleep=time.sleep)
    for rest in (0.0, 3600.0):
        time.at += rest
        began = time.at
        for _ in range(5):
            await limit.wait()
        assert time.at == began
        await limit.wait()
        assert time.at - began == pytest.approx(0.05, abs=1e-4)


async def test_who_comes_first_goes_first() -> None:
    time = MadeUpTime()
    limit = RateLimit(10, clock=time.clock, sleep=time.sleep)
    went: list[int] = []

    async def ask(number: int) -> None:
        await limit.wait()
        went.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(40):
            group.create_task(ask(number))
    assert went == list(range(40))


async def test_one_that_gives_up_takes_no_right_with_it() -> None:
    time = MadeUpTime()
    gate = asyncio.Event()

    async def sleep(seconds: float) -> None:
        await gate.wait()
        await time.sleep(seconds)

    limit = RateLimit(5, clock=time.clock, sleep=sleep)
    await limit.wait()
    impatient, patient = asyncio.create_task(limit.wait()), asyncio.create_task(limit.wait())
    await asyncio.sleep(0)
    impatient.cancel()
    gate.set()
    await patient
    assert impatient.cancelled()
    assert time.at - 1000 == pytest.approx(0.25, abs=1e-4)


async def test_after_too_many_nothing_goes_for_a_second_and_then_at_the_old_pace() -> None:
    time = MadeUpTime()
    limit = RateLimit(25, clock=time.clock, sleep=time.sleep)
    limit.hold_back()
    limit.hold_back()  # several answers that say the same hold back once
    await limit.wait()
    assert time.at - 1000 == pytest.approx(HOLD_BACK_SECONDS, abs=1e-3)
    await limit.wait()
    assert time.at - 1000 == pytest.approx(HOLD_BACK_SECONDS + 0.05, abs=1e-3)


def test_a_rate_is_above_zero() -> None:
    with pytest.raises(ValueError, match="above zero"):
        RateLimit(0)
