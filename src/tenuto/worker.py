"""The clockwork: a table of sweeps and the loop that runs them.

There is no queue. What must happen later is a row with a due time in the table it concerns; a sweep looks for due rows
and does them through the same verbs, lanes and locks as a customer's request. A sweep is ``(engine, now, limit) ->
count``, idempotent, and safe with none, one or five clockworks alive. What is due is also honoured on read, so a late
sweep changes no answer. Sources: design 7, house (The clockwork without a queue).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple, Protocol

import structlog

from tenuto import metrics
from tenuto.engine import DatabaseClock, Engine
from tenuto.lanes import Lost, Overloaded
from tenuto.service.accounts import note_keys_used
from tenuto.service.activity import seal_activity
from tenuto.service.cards import customer_of
from tenuto.service.deliveries import forget_notifications
from tenuto.service.grants import expire_grants
from tenuto.service.idempotency import forget_answers
from tenuto.service.invoicing import collect_invoices, cut_invoices, dun_invoices, finalize_invoices
from tenuto.service.payments import collect_due, forget_events
from tenuto.service.refills import refill_due
from tenuto.service.refunds import refund_due
from tenuto.service.renewals import renew_due
from tenuto.service.tax_ids import verify_due
from tenuto.service.usage import release_expired, replay_suspended
from tenuto.service.users import forget_sessions
from tenuto.store.database import Unavailable

LIMIT: Final = 500
"""Due rows one pass takes."""

_log = structlog.get_logger()


class SweepFunction(Protocol):
    """One pass over what is due at ``now``, at most ``limit`` of it; how much was done."""

    async def __call__(self, engine: Engine, *, now: datetime, limit: int) -> int:
        """How much was done."""
        ...


class Sweep(NamedTuple):
    """A sweep and how often it is run, in seconds, when nothing is due."""

    name: str
    run: SweepFunction
    interval_seconds: float


async def verify_tax_ids(engine: Engine, *, now: datetime, limit: int) -> int:
    """Sweep: ask about every tax number that is due; how many were asked about."""
    return await verify_due(engine, customer_of, now=now, limit=limit)


SWEEPS: Final = (
    Sweep("release_expired", release_expired, 5.0),
    Sweep("replay_suspended", replay_suspended, 0.5),
    Sweep("renew_due", renew_due, 0.5),
    Sweep("expire_grants", expire_grants, 1.0),
    Sweep("refill_due", refill_due, 0.5),
    Sweep("collect_due", collect_due, 0.5),
    Sweep("refund_due", refund_due, 2.0),
    Sweep("cut_invoices", cut_invoices, 5.0),
    Sweep("finalize_invoices", finalize_invoices, 5.0),
    Sweep("collect_invoices", collect_invoices, 2.0),
    Sweep("dun_invoices", dun_invoices, 10.0),
    Sweep("verify_tax_ids", verify_tax_ids, 2.0),
    Sweep("forget_events", forget_events, 600.0),
    Sweep("note_keys_used", note_keys_used, 30.0),
    Sweep("forget_notifications", forget_notifications, 600.0),
    Sweep("forget_answers", forget_answers, 600.0),
    Sweep("forget_sessions", forget_sessions, 600.0),
    Sweep("seal_activity", seal_activity, 2.0),
)


class Clockwork:
    """Runs sweeps in one process until it is stopped."""

    def __init__(self, engine: Engine, sweeps: Sequence[Sweep] = SWEEPS) -> None:
        self._engine, self._sweeps = engine, sweeps
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()

    def start(self) -> None:
        """Begin; every sweep has a loop of its own, so that a slow one delays no other."""
        self._tasks = [asyncio.create_task(self._loop(sweep)) for sweep in self._sweeps]
        if isinstance(self._engine.clock, DatabaseClock):
            self._tasks.append(asyncio.create_task(self._keep_time(self._engine.clock)))

    async def stop(self) -> None:
        """Let the passes under way end."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    async def _loop(self, sweep: Sweep) -> None:
        while not self._stopping.is_set():
            done = 0
            try:
                done = await sweep.run(self._engine, now=self._engine.now(), limit=LIMIT)
            except (Unavailable, Lost, Overloaded) as error:
                _log.warning(sweep.name, outcome="the database does not answer, or is busy", reason=str(error))
            except Exception as error:  # noqa: BLE001 - a sweep that fails is tried again; the clockwork goes on
                _log.error(sweep.name, outcome="failed", exc_info=error)
            if done:
                metrics.SWEPT.labels(sweep.name).inc(done)
                _log.info(sweep.name, done=done)
            if not done:
                await self._pause(sweep.interval_seconds, self._engine.nudged(sweep.name))

    async def _keep_time(self, clock: DatabaseClock) -> None:
        while not self._stopping.is_set():
            await self._pause(10.0)
            try:
                await clock.look()
            except Unavailable:
                continue

    async def _pause(self, seconds: float, nudged: asyncio.Event | None = None) -> None:
        """Wait for the interval, the end, or somebody in this process who knows of something due."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self._stopping, nudged) if event is not None]
        _, pending = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in pending:
            wait.cancel()
        if nudged is not None:
            nudged.clear()
