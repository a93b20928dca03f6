"""The clock of a test company, moved step by step: everything due happens in order, each thing at its own date.

The clock stops at each moment at which something is due, and goes on when nothing is due there any more. So a year
passes as it would have passed: the refill of March before the decline of April before the pause of May.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from tenuto.core.outcomes import Refusal, invalid
from tenuto.engine import Answer, Engine
from tenuto.service import accounts as service
from tenuto.service import grants, invoicing, payments, refills, refunds, renewals, usage
from tenuto.service.idempotency import Steps
from tenuto.store import due, records
from tenuto.store.accounts import Environment
from tenuto.store.database import Reader, Unit

from . import body as bodies
from . import shapes
from .routes import Call, Route

LIMIT: Final = 500
PATIENCE_SECONDS: Final = 60.0
"""How long a moment may take whose payments somebody else has in hand."""
LOOK_SECONDS: Final = 0.02


class ClockIn(msgspec.Struct, forbid_unknown_fields=True):
    """Where to move a test clock: by seconds, or to a moment."""

    advance_seconds: int | None = None
    now: str | None = None


class _Work(NamedTuple):
    """Due work in the order in which it is done at one moment, and the rows that say that there is some."""

    name: str
    sweep: Callable[..., Awaitable[int]]
    kinds: tuple[due.Due, ...]


_WORK: Final = (
    _Work("expire_grants", grants.expire_grants, (due.GRANTS,)),
    _Work("renew_due", renewals.renew_due, (due.PLANS,)),
    _Work("cut_invoices", invoicing.cut_invoices, (due.INVOICES_TO_CUT,)),
    _Work("finalize_invoices", invoicing.finalize_invoices, (due.INVOICES_TO_FINALIZE,)),
    _Work("collect_invoices", invoicing.collect_invoices, (due.INVOICES_TO_COLLECT,)),
    _Work("refill_due", refills.refill_due, (due.REFILLS_BY_DATE, due.REFILLS_BY_THRESHOLD)),
    _Work("collect_due", payments.collect_due, (due.PAYMENTS,)),
    _Work("refund_due", refunds.refund_due, (due.REFUNDS,)),
    _Work("dun_invoices", invoicing.dun_invoices, (due.INVOICES_TO_DUN,)),
)


async def get_clock(call: Call) -> Answer:
    """The present of the company's half."""
    call.company()
    return Answer(200, shapes.wrapped(_clock(call.engine, call.environment, {})))


def _clock(engine: Engine, environment: Environment, done: dict[str, int]) -> shapes.ClockOut:
    return shapes.ClockOut(
        now=bodies.spelled(engine.now_of(environment)),
        offset_seconds=int(environment.clock_offset.total_seconds()),
        done=done,
    )


async def move_clock(call: Call) -> Answer:
    """Move a test clock forward; when it answers, everything that fell due has been done."""
    call.company()
    given, environment = call.decoded(ClockIn), call.environment
    if (given.advance_seconds is None) == (given.now is None):
        raise invalid("advance_seconds", "send either advance_seconds or now.")
    to = None if given.now is None else bodies.moment(given.now, "now")
    by = None
    if given.advance_seconds is not None:
        by = timedelta(seconds=bodies.whole(given.advance_seconds, "advance_seconds", least=1, most=3_200_000_000))

    async def begin(unit: Unit) -> tuple[datetime, timedelta]:
        return await service.clock_target(call.engine, unit, environment, to=to, by=by)

    async def resume(_: Unit) -> tuple[datetime, timedelta]:
        raise Refusal("request_in_progress")

    async def finish(span: tuple[datetime, timedelta]) -> Answer:
        moved, done = await live_through(call.engine, environment, *span)
        return Answer(200, shapes.wrapped(_clock(call.engine, moved, done)))

    return await call.once_in_steps(Steps(begin, resume, finish))


async def live_through(
    engine: Engine, environment: Environment, since: datetime, offset: timedelta
) -> tuple[Environment, dict[str, int]]:
    """Move a company's clock from ``since`` until it is ``offset`` ahead, stopping wherever something is due.

    The environment as it is then, and per sweep how much was due. Safe with the clockwork at work: what it has in hand
    is waited for.
    """
    done = Counter({"release_expired": await _holds_due(engine, environment, offset)})
    # What is due already is done at its own date too, before the first step.
    environment = await _stop_at(engine, environment, since - engine.now(), done)
    at = since
    while True:
        async with engine.database.reading() as reader:
            earliest = await due.earliest_due(reader, environment.id, after=at)
        if earliest is None or earliest >= engine.now() + offset:
            break
        # What falls due within one second is done at one stop, in the order of its kinds.
        at = earliest if not earliest.microsecond else earliest.replace(microsecond=0) + timedelta(seconds=1)
        environment = await _stop_at(engine, environment, min(at - engine.now(), offset), done)
    environment = await _stop_at(engine, environment, offset, done)
    return environment, dict(done)


async def _stop_at(engine: Engine, environment: Environment, offset: timedelta, done: Counter[str]) -> Environment:
    """Let the clock be so far ahead, and do all that is due by then."""
    # Counted before anybody else can see the new time: whoever does it, this move made it due.
    counts = await service.set_clock(engine, environment, offset, lambda unit: _due_counts(unit, engine, environment))
    done.update(counts)
    found = await engine.environment(environment.id)
    assert found is not None
    await usage.replay_all(engine, environment.id)
    await usage.release_all_expired(engine, environment.id)
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up_at:
        took = 0
        for work in _WORK:
            if work.name in counts:
                took += await work.sweep(engine, now=engine.now(), limit=LIMIT, environment_id=environment.id)
        async with engine.database.reading() as reader:
            if not took:
                if not await due.in_hand(reader, environment.id, engine.now()):
                    break
                await asyncio.sleep(LOOK_SECONDS)
            counts = await _due_counts(reader, engine, environment)
    return found


async def _due_counts(reader: Reader, engine: Engine, environment: Environment) -> dict[str, int]:
    """How much is due now, by the name of the work."""
    found = await due.count_due(reader, now=engine.now(), environment_id=environment.id)
    counts = {work.name: sum(found[kind.place] for kind in work.kinds) for work in _WORK}
    return {name: count for name, count in counts.items() if count}


async def _holds_due(engine: Engine, environment: Environment, offset: timedelta) -> int:
    """How many holds a move ends, counted at once: the clock runs on while those of one moment are released."""
    by = engine.now() + max(timedelta(), offset - environment.clock_offset)
    async with engine.database.reading() as reader:
        found = await records.due_accounts(reader, by, None, environment.id)
    return sum(count for _, _, count in found)


ROUTES: Final = (
    Route(
        "GET",
        "/companies/{company_id}/clock",
        get_clock,
        "Read the clock",
        "Companies",
        shapes.ClockOut,
        scope="company:read",
    ),
    Route(
        "POST",
        "/companies/{company_id}/clock",
        move_clock,
        "Move a test clock forward",
        "Companies",
        shapes.ClockOut,
        scope="company:write",
        body=ClockIn,
        refusals=("live_clock", "clock_not_forward"),
        example={"advance_seconds": 3600},
    ),
)
