"""Halves of companies take turns at what is due: those done many at once get whole turns, and none waits for ever."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg
import pytest

from tenuto.engine import Engine
from tenuto.store import due

NOON: Final = datetime(2026, 11, 21, 12, tzinfo=UTC)
COMPANIES: Final = 5
EACH: Final = 12

_COMPANIES: Final = """
with made as (insert into company (id, name, created_at) select n, 'Acme', $1 from generate_series(1, $2::int) n)
insert into environment (company_id, live, revision, zone, default_credit_limit, late_seconds, ahead_seconds,
    clock_offset, created_at, updated_at)
select n, false, 1, 'UTC', 0, 0, 0, 0, $1, $1 from generate_series(1, $2::int) n
"""
_PLANS: Final = """
with made as (
    insert into account (id, environment_id, tick, opened, name, email, created_at)
    select v.id * 1000 + n, v.id, 1, 1, 'Ada', 'ada@example.com', $1
    from environment v, generate_series(1, $2::int) n returning id, environment_id
)
insert into subscription (account_id, environment_id, plan_id, version_id, cadence, status, zone, anchor_at, number,
    period_id, refill_number, variable_units, cancels_at_end, declines, next_at, created_at, updated_at)
select id, environment_id, 1, 1, 'MONTHLY', 'active', 'UTC', $1, 1, 1, 1, '{}', false, 0,
    $1 - id % 1000 * interval '1 second', $1, $1
from made
"""


@pytest.fixture
async def due_engine(engine: Engine) -> Engine:
    """Five companies, each with twelve plans that are due."""
    connection = await asyncpg.connect(engine.database.dsn)
    await connection.execute(_COMPANIES, NOON, COMPANIES)
    await connection.execute(_PLANS, NOON, EACH)
    await connection.close()
    return engine


async def taken(engine: Engine, now: datetime, limit: int, together: int) -> list[tuple[int, int]]:
    """Half of a company and account, as a pass would take them."""
    async with engine.database.reading() as reader:
        rows = await due.due_rows(reader, due.PLANS, "t.account_id", now=now, limit=limit, together=together)
    return [(row["environment_id"], row["account_id"] % 1000) for row in rows]


async def test_one_at_a_time_all_halves_have_a_turn(due_engine: Engine) -> None:
    rows = await taken(due_engine, NOON, 2 * COMPANIES, 1)
    assert Counter(Counter(half for half, _ in rows).values()) == {2: COMPANIES}


async def test_done_together_a_turn_is_whole_and_of_the_earliest(due_engine: Engine) -> None:
    rows = await taken(due_engine, NOON, 8, 4)
    first, second = rows[:4], rows[4:]
    assert len({half for half, _ in first}) == len({half for half, _ in second}) == 1
    assert first[0][0] != second[0][0]
    earliest = list(range(EACH, EACH - 4, -1))
    assert [number for _, number in first] == [number for _, number in second] == earliest


async def test_no_half_waits_for_the_others_to_be_done(due_engine: Engine) -> None:
    first = [(await taken(due_engine, NOON + timedelta(microseconds=4099 * n), 4, 4))[0][0] for n in range(100)]
    assert len(set(first)) == COMPANIES
    assert max(Counter(first).values()) < 100 // 2
