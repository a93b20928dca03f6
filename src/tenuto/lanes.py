"""Lanes: many requests at once as fast as one.

A lane is one task that owns one connection. It takes everything that waits, has it loaded, decided and saved as one
unit, and only then answers; while it works, the next batch gathers. There is no timer: at rest a request is answered
as fast as the database commits. The lane knows no noun; what the three steps do is given to it (``Work``).

Always true: a request owns no connection, so a cancelled one disturbs nobody; what waits is bounded, past it a request
is refused at once (``Overloaded``); a batch that fails for a reason of its content is halved until the culprit stands
alone and only it fails; a batch whose reading proves stale (``Again``) is read and decided anew. Source: design 7.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Final, Generic, Protocol, TypeVar

Request = TypeVar("Request")
Answer = TypeVar("Answer")
Request_contra = TypeVar("Request_contra", contravariant=True)
Answer_co = TypeVar("Answer_co", covariant=True)

TRIES_MAX: Final = 8
"""How often a batch may prove stale before its requests are told to come again later."""


class Overloaded(Exception):
    """More waits than the lane takes on."""


class Again(Exception):
    """What was read is no longer true, and nothing was written: load and decide once more."""


class Lost(Exception):
    """The lane's footing is gone (its connection): halving helps nobody, every request of the batch fails alike."""


class Work(Protocol[Request_contra, Answer_co]):
    """What a lane does with a batch. ``again`` counts the times that this batch has proved stale."""

    async def turn(self, requests: Sequence[Request_contra], *, again: int) -> Sequence[Answer_co | BaseException]:
        """Load, decide, save: an answer for each request, in order; an exception as an answer fails that one only.

        Raises Again, Lost, or whatever is wrong with the batch.
        """
        ...

    async def recover(self) -> None:
        """Get new footing after Lost; called before the next batch. Raises Lost while there is none."""
        ...

    async def close(self) -> None:
        """Give up what the work holds; called once, after the last batch."""
        ...


class Lane(Generic[Request, Answer]):
    """One lane. ``weigh`` tells how much a request counts against the bounds (an event is 1)."""

    def __init__(
        self,
        work: Work[Request, Answer],
        *,
        weigh: Callable[[Request], int],
        waiting_max: int,
        batch_max: int,
    ) -> None:
        self._work = work
        self._weigh = weigh
        self._waiting_max = waiting_max
        self._batch_max = batch_max
        self._queue: deque[tuple[Request, asyncio.Future[Answer], int]] = deque()
        self._waiting = 0
        self._gathered = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """The weight of what waits."""
        return self._waiting

    def start(self) -> None:
        """Begin to take batches."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Answer what waits, then end."""
        self._closing = True
        self._gathered.set()
        if self._task is not None:
            await self._task
            self._task = None
            await self._work.close()

    def submit(self, request: Request) -> asyncio.Future[Answer]:
        """Put a request in the lane; its answer comes by the future. Raises Overloaded."""
        weight = self._weigh(request)
        if self._closing or self._waiting + weight > self._waiting_max:
            raise Overloaded
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._queue.append((request, future, weight))
        self._waiting += weight
        self._gathered.set()
        return future

    async def _run(self) -> None:
        is_lost = False
        while True:
            await self._gathered.wait()
            if not self._queue:
                if self._closing:
                    return
                self._gathered.clear()
                continue
            batch = self._take()
            try:
                if is_lost:
                    await self._work.recover()
                is_lost = not await self._serve(batch)
            except Lost as error:
                is_lost = True
                _fail(batch, error)
            except Exception as error:  # noqa: BLE001 - a fault must not end the lane; its requests hear of it
                _fail(batch, error)

    def _take(self) -> list[tuple[Request, asyncio.Future[Answer]]]:
        """What waits, up to the bound, without those whose client has gone."""
        batch: list[tuple[Request, asyncio.Future[Answer]]] = []
        taken = 0
        while self._queue and (not batch or taken + self._queue[0][2] <= self._batch_max):
            request, future, weight = self._queue.popleft()
            self._waiting -= weight
            if not future.done():
                taken += weight
                batch.append((request, future))
        return batch

    async def _serve(self, batch: Sequence[tuple[Request, asyncio.Future[Answer]]]) -> bool:
        """Answer a batch, halving it around a culprit; False if the footing was lost."""
        if not batch:
            return True
        try:
            answers = await self._turn([request for request, _ in batch])
        except Lost as error:
            _fail(batch, error)
            return False
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to somebody in this batch
            if len(batch) == 1:
                _fail(batch, error)
                return True
            middle = len(batch) // 2
            if await self._serve(batch[:middle]):
                return await self._serve(batch[middle:])
            _fail(batch[middle:], Lost("the connection was lost while the batch was being halved"))
            return False
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        return True

    async def _turn(self, requests: Sequence[Request]) -> Sequence[Answer | BaseException]:
        for again in range(TRIES_MAX):
            try:
                return await self._work.turn(requests, again=again)
            except Again:
                continue
        raise Overloaded


def _fail(batch: Sequence[tuple[Request, asyncio.Future[Answer]]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)


class Lanes(Generic[Request, Answer]):
    """A few lanes; what has the same ``place`` always goes to the same one, in order."""

    def __init__(self, lanes: Sequence[Lane[Request, Answer]]) -> None:
        self._lanes = lanes

    def start(self) -> None:
        """Start every lane."""
        for lane in self._lanes:
            lane.start()

    async def stop(self) -> None:
        """Answer what waits in every lane, then end them."""
        await asyncio.gather(*(lane.stop() for lane in self._lanes))

    def submit(self, place: Hashable, request: Request) -> Awaitable[Answer]:
        """Put a request in the lane of ``place``. Raises Overloaded."""
        return self._lanes[hash(place) % len(self._lanes)].submit(request)

    @property
    def waiting(self) -> int:
        """The weight of what waits in all lanes."""
        return sum(lane.waiting for lane in self._lanes)
