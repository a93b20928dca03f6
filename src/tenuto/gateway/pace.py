"""How fast we ask a provider that counts requests.

The problem, on one example. Stripe takes 25 requests a second of one account in test mode; 60 charges fall due at once:

    requests 1 to 5        go at once: the bucket holds a fifth of a second's worth of rights
    requests 6 to 60       go in the order they came, one every 50 ms, four fifths of the rate
    any one second         sees 25 at most, whenever it begins

Should the provider say "too many" all the same (somebody else uses the account too), nothing goes for a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

HOLD_BACK_SECONDS: Final = 1.0
"""How long nothing goes after the provider said that it was too much."""

_AT_ONCE: Final = 0.2
"""The part of a second's worth that may go at once; the rest of the rate fills the bucket again."""


class RateLimit:
    """A token bucket. Whoever comes first goes first; one that gives up while waiting takes no right with it."""

    def __init__(
        self,
        per_second: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        if per_second <= 0:
            raise ValueError("A rate is above zero.")
        self._clock, self._sleep = clock, sleep
        self._most = max(1.0, per_second * _AT_ONCE)
        self._refill = per_second * (1 - _AT_ONCE)
        self._rights, self._counted_at = self._most, clock()
        self._turn = asyncio.Lock()  # wakes those who wait in the order they came

    async def wait(self) -> None:
        """Return when one request may go."""
        async with self._turn:
            while (missing := 1 - self._count()) > 0:
                # A hair more than needed, lest rounding leaves a wait of nothing for ever.
                await self._sleep(missing / self._refill + 1e-6)
            self._rights -= 1

    def hold_back(self) -> None:
        """The provider said that it was too much: the next request goes after a second."""
        self._count()
        self._rights = min(self._rights, 1 - HOLD_BACK_SECONDS * self._refill)

    def _count(self) -> float:
        now = self._clock()
        self._rights = min(self._most, self._rights + (now - self._counted_at) * self._refill)
        self._counted_at = now
        return self._rights
