"""What the bench compares the lanes with: the same worker, a transaction per event. No user runs this.

The door, the decision, the rows and the checks are Tenuto's own; only the gathering is gone. A request takes one of 32
connections, and on it: BEGIN, lock the account, load its state, decide, save, COMMIT. As in a lane, a key is looked for
only once the unique index has objected, so it is not handicapped by more statements than it needs. It is run as a
program, in place of ``tenuto.server``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Hashable, Sequence
from typing import Final

from tenuto.engine import Answer, Engine
from tenuto.lanes import TRIES_MAX, Again, Lanes, Overloaded
from tenuto.service import usage
from tenuto.service.usage import UsageRequest, UsageWork
from tenuto.store import ledger
from tenuto.store.database import Unit

CONNECTIONS: Final = 32


class PlainWork(UsageWork):
    """One request, one unit, one connection; nothing is remembered from one to the next."""

    async def _optimistic(  # type: ignore[explicit-override]  # Python 3.11 has no override
        self, unit: Unit, requests: Sequence[UsageRequest]
    ) -> Sequence[Answer | BaseException]:
        self._remembered.clear()
        async with unit.transaction():
            await ledger.lock_accounts(unit, [request.account_id for request in requests])
            return await super()._optimistic(unit, requests)


class PlainLanes(Lanes[UsageRequest, Answer]):
    """In place of lanes: whoever comes takes a free connection, or waits for one."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(())
        self._free: asyncio.LifoQueue[PlainWork] = asyncio.LifoQueue()
        for _ in range(CONNECTIONS):
            self._free.put_nowait(PlainWork(engine, 0))

    def submit(  # type: ignore[explicit-override]  # Python 3.11 has no override
        self,
        place: Hashable,  # noqa: ARG002 - here any connection will do
        request: UsageRequest,
    ) -> Awaitable[Answer]:
        """A free connection serves it, whatever its place."""
        return self._served(request)

    async def _served(self, request: UsageRequest) -> Answer:
        work = await self._free.get()
        try:
            for again in range(TRIES_MAX):
                try:
                    (answer,) = await work.turn([request], again=again)
                except Again:
                    continue
                if isinstance(answer, BaseException):
                    raise answer
                return answer
        finally:
            self._free.put_nowait(work)
        raise Overloaded


if __name__ == "__main__":
    from tenuto.server import run_worker

    usage.open_lanes = PlainLanes
    run_worker()
