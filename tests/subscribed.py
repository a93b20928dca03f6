"""An account put on a plan behind the service's back: what usage sees of a plan, without anything being charged."""

from __future__ import annotations

import asyncio
import threading
from typing import Final

import asyncpg

from tenuto.core.identifiers import read

_PERIOD: Final = """
insert into subscription_period (account_id, id, environment_id, plan_id, version_id, override_id, cadence, is_trial,
    start_at, end_at, ended_at, denomination, price, credited, spent_before, created_at)
select a.id, a.tick + $6, a.environment_id, $2, v.id, $4, 'MONTHLY', false, clock.now - $5::interval,
    clock.now - $5::interval + interval '30 days', null, 'USD', 1000, 0,
    coalesce((select b.arrived - b.amount from balance b where b.account_id = a.id and b.denomination = 'USD'), 0),
    clock.now
from account a join environment e on e.id = a.environment_id
cross join lateral (select now() + e.clock_offset * interval '1 microsecond' as now) clock
join plan_version v on v.environment_id = a.environment_id and v.plan_id = $2
where a.id = $1 order by v.number desc limit $3
returning id, version_id, start_at, end_at
"""
_SUBSCRIPTION: Final = """
insert into subscription (account_id, environment_id, plan_id, version_id, override_id, cadence, status, zone,
    anchor_at, number, period_id, period_start, period_end, refill_number, refill_at, variable_units, scheduled,
    cancels_at_end, payment_id, declines, next_at, renewed_at, created_at, updated_at, ended_at)
select a.id, a.environment_id, $2, $3, $8, 'MONTHLY', 'active', 'UTC', $5, 1, $4, $5, $6, 1, null, $7, null, false,
    null, 0, null, $5, $5, $5, null
from account a where a.id = $1
"""
_OVERRIDE: Final = """
insert into plan_override (account_id, id, version_id, changes, terms, created_at)
select $1, a.tick + 1, v.id, '{}', $3, now() from account a
join plan_version v on v.environment_id = a.environment_id and v.plan_id = $2 where a.id = $1 returning id
"""


def subscribe(dsn: str, account: str, plan: str, *, agreed: str | None = None, chosen: str = "{}") -> int:
    """Put an account on a plan; the id of its period, which began a day ago, after one of a month before.

    ``agreed`` are plan terms of its own, in JSON as they are stored; ``chosen`` its variable units.
    """
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(_subscribe(dsn, account, plan, agreed, chosen))))
    thread.start()
    thread.join()
    return found[0]


async def _subscribe(dsn: str, account: str, plan: str, agreed: str | None, chosen: str) -> int:
    account_id, plan_id = read("a", account), read("p", plan)
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            override_id, row = None, None
            if agreed is not None:
                override_id = await connection.fetchval(_OVERRIDE, account_id, plan_id, agreed)
            for number, ago in ((2, "31 days"), (3, "1 day")):
                interval = await connection.fetchval("select $1::text::interval", ago)
                row = await connection.fetchrow(_PERIOD, account_id, plan_id, 1, override_id, interval, number)
            assert row is not None
            values = (row["version_id"], row["id"], row["start_at"], row["end_at"], chosen, override_id)
            await connection.execute(_SUBSCRIPTION, account_id, plan_id, *values)
            await connection.execute("update account set tick = tick + 10 where id = $1", account_id)
            return int(row["id"])
    finally:
        await connection.close()
