"""An account put on a plan behind the service's back: what usage sees of a plan, without anything being charged."""

from __future__ import annotations

import asyncio
import threading
from typing import Final

import asyncpg
import msgspec

from tenuto.core.identifiers import read
from tenuto.core.plan import merged

_PERIOD: Final = """
insert into subscription_period (account_id, id, environment_id, plan_id, version_id, override_id, cadence, is_trial,
    start_at, end_at, ended_at, denomination, price, credited, spent_before, created_at)
select a.id, a.tick + $6, a.environment_id, $2, v.id, $4, 'MONTHLY', false, clock.now - $5::interval,
    clock.now - $5::interval + interval '30 days',
    case when clock.now - $5::interval + interval '30 days' < clock.now
        then clock.now - $5::interval + interval '30 days' end, 'USD', 0, 0,
    coalesce((select b.arrived - b.amount from balance b where b.account_id = a.id and b.denomination = 'USD'), 0),
    clock.now
from account a join environment e on e.id = a.environment_id
cross join lateral (select now() + e.clock_offset * interval '1 microsecond' as now) clock
join plan_version v on v.environment_id = a.environment_id and v.plan_id = $2
where a.id = $1 order by v.number desc limit $3
returning id, version_id, start_at, end_at
"""
_STEP: Final = """
insert into subscription_step (account_id, id, environment_id, kind, scheme, for_at, period_id, plan_id, version_id,
    denomination, charge, credit, lines, granted, cancelled, payment_id, created_at)
select p.account_id, p.id, p.environment_id, $3, null, p.start_at, p.id, p.plan_id, p.version_id, p.denomination, 0, 0,
    '[]', '{}', '{}', null, p.created_at
from subscription_period p where p.account_id = $1 and p.id = $2
"""
_SUBSCRIPTION: Final = """
insert into subscription (account_id, environment_id, plan_id, version_id, override_id, cadence, status, zone,
    anchor_at, number, period_id, period_start, period_end, refill_number, refill_at, variable_units, scheduled,
    cancels_at_end, payment_id, declines, next_at, renewed_at, created_at, updated_at, ended_at)
select a.id, a.environment_id, $2, $3, $8, 'MONTHLY', 'active', 'UTC', $6, 0, $4, $5, $6, 0, null, $7, null, false,
    null, 0, $6, $5, $5, $5, null
from account a where a.id = $1
"""
_OVERRIDE: Final = """
insert into plan_override (account_id, id, version_id, changes, terms, created_at)
select $1, a.tick + 1, v.id, $3, $4, now() from account a
join plan_version v on v.environment_id = a.environment_id and v.plan_id = $2 where a.id = $1 returning id
"""
_TERMS: Final = """
select v.terms from account a join plan_version v on v.environment_id = a.environment_id and v.plan_id = $2
where a.id = $1 order by v.number desc limit 1
"""


def subscribe(dsn: str, account: str, plan: str, *, agreed: str | None = None, chosen: str = "{}") -> int:
    """Put an account on a plan; the id of its period, which began a day ago, after one of a month before.

    Nothing was charged or given for either, and so the rows say. ``agreed`` are plan terms of its own, in JSON, laid
    over the plan's; ``chosen`` its variable units.
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
                known = msgspec.json.decode(await connection.fetchval(_TERMS, account_id, plan_id))
                terms = msgspec.json.encode(merged(known, msgspec.json.decode(agreed))).decode()
                override_id = await connection.fetchval(_OVERRIDE, account_id, plan_id, agreed, terms)
            for number, ago, kind in ((2, "31 days", "start"), (3, "1 day", "renewal")):
                interval = await connection.fetchval("select $1::text::interval", ago)
                row = await connection.fetchrow(_PERIOD, account_id, plan_id, 1, override_id, interval, number)
                assert row is not None
                await connection.execute(_STEP, account_id, row["id"], kind)
            assert row is not None
            values = (row["version_id"], row["id"], row["start_at"], row["end_at"], chosen, override_id)
            await connection.execute(_SUBSCRIPTION, account_id, plan_id, *values)
            await connection.execute("update account set tick = tick + 10 where id = $1", account_id)
            return int(row["id"])
    finally:
        await connection.close()
