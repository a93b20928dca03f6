"""Sums of what the lists hold: usage by day, month, type and account, movements of balances, revenue, owed, plans.

The problem, on one example. In March an account sent three chats: one at 5 cents, one that is still held, and one that
was taken back; the company paid 2 cents for each. What March says is

    type  denomination  events  amount  cogs
    CHAT  USD           1       5       {"USD": 2}

for only complete events count, each once, in the row of its first charge; a further charge (of overage, or of a second
price) adds its amount to the row of its own denomination. So the rows of a report add up to the events that the list of
events shows, and their amounts to the transactions.

The time of an event is when it was recorded. Its id is real time in microseconds, and a test clock is never behind real
time: a span of recorded time is a span of ids, which the BRIN index on them finds, and the exact moments are looked at
in what it finds. Everything is summed before a name is joined to it. Sources: contract 2.7, 4; bar 4.9.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import asyncpg

from tenuto.core.money import CURRENCY_EXPONENTS

from .database import Database, Reader, Record
from .payments import PAID

REPORT_SECONDS: Final = 60
"""How long one report may take the database."""
SLACK: Final = timedelta(hours=1)
"""How far an id may be from the real time of its record: ids of a busy account run ahead of the clock."""
_CURRENCIES: Final = sorted(CURRENCY_EXPONENTS)


class Span(NamedTuple):
    """Which records are summed: of an environment or of one account, recorded from ``start`` up to before ``end``.

    ``zone`` is the company's, by which days and months begin; ``offset`` how far its clock is ahead of real time.
    """

    environment_id: int
    account_id: int | None
    start: datetime
    end: datetime
    zone: str
    offset: timedelta

    @property
    def ids(self) -> tuple[int, int]:
        """The ids between which all of it is."""
        return _microseconds(self.start - self.offset - SLACK), _microseconds(self.end + SLACK)


def _microseconds(at: datetime) -> int:
    return int((at - _EPOCH) // timedelta(microseconds=1))


_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


@asynccontextmanager
async def reporting(database: Database) -> AsyncIterator[Reader]:
    """A connection for a report: one moment for all its statements, and more time and memory than a request has.

    Raises TimeoutError where the report takes longer than ``REPORT_SECONDS``.
    """
    try:
        async with database.reading() as reader, reader.transaction(isolation="repeatable_read", readonly=True):
            await reader.execute(f"set local statement_timeout = '{REPORT_SECONDS}s'")
            await reader.execute("set local work_mem = '64MB'")
            # A plan for any span would read the whole table for a day.
            await reader.execute("set local plan_cache_mode = 'force_custom_plan'")
            yield reader
    except asyncpg.QueryCanceledError as error:
        msg = "The report took too long; ask for a shorter span."
        raise TimeoutError(msg) from error


# --- usage ------------------------------------------------------------------------------------------------------------

BUCKETS: Final = {
    "day": "date_trunc('day', e.recorded_at at time zone {zone})::date",
    "month": "date_trunc('month', e.recorded_at at time zone {zone})::date",
    "type": "e.type",
    "account": "e.account_id",
}
"""SQL: by what events can be summed. A day or month is its first day in the company's zone."""


def _taken(span: Span, by: str, event_type: str | None) -> tuple[str, list[object]]:
    """SQL of the common table ``part``, and its arguments.

    Its rows are sums by bucket, denomination and the denomination of what was paid for the events. ``event_type``
    narrows them to one type of event.
    """
    low, high = span.ids
    arguments: list[object] = [low, high, span.start, span.end, span.account_id or span.environment_id]
    where = "e.id >= $1 and e.id < $2 and e.recorded_at >= $3 and e.recorded_at < $4 and e.state = 0"
    joined = ""
    if span.account_id is None:
        joined = " join account w on w.id = e.account_id and w.environment_id = $5"
    else:
        where += " and e.account_id = $5"
    if event_type is not None:
        arguments.append(event_type)
        where += f" and e.type = ${len(arguments)}"
    bucket = BUCKETS[by]
    if "{zone}" in bucket:
        arguments.append(span.zone)
        bucket = bucket.format(zone=f"${len(arguments)}::text")
    return (
        f"""
part as materialized (
    select {bucket} as bucket, e.denomination, e.cogs_denomination, count(*) as events, sum(e.quantity) as quantity,
        coalesce(sum(e.amount), 0) as amount, sum(e.cogs_amount) as cogs
    from event e{joined} where {where} group by 1, 2, 3
    union all
    select {bucket}, x.denomination, null, 0, 0, sum(x.amount), null
    from event_charge x join event e on e.account_id = x.account_id and e.id = x.event_id{joined}
    where {where} and x.event_id >= $1 and x.event_id < $2 group by 1, 2
)""",
        arguments,
    )


_SUMS: Final = """
    sum(events)::bigint as events, sum(quantity) as quantity, sum(amount) as amount,
    coalesce(json_object_agg(cogs_denomination, cogs) filter (where cogs is not null), '{}')::text as cogs"""

_WHOLE: Final = f"""
select denomination, {_SUMS} from (
    select denomination, cogs_denomination, sum(events) as events, sum(quantity) as quantity, sum(amount) as amount,
        sum(cogs) as cogs
    from part group by denomination, cogs_denomination) as summed
group by denomination"""


async def sum_usage(
    reader: Reader, span: Span, by: str, *, limit: int, event_type: str | None = None
) -> tuple[list[Record], list[Record]]:
    """What events came to, by bucket and denomination; and the same of all of them by denomination alone.

    Rows have bucket, denomination (None: without a price), events, quantity, amount and cogs (JSON text by currency).
    Of types and accounts the ``limit`` with the greatest amounts of each denomination are there, and one more where
    there are more; of days and months all.
    """
    part, arguments = _taken(span, by, event_type)
    is_ranked = by in {"type", "account"}
    arguments.append(limit + 1 if is_ranked else _ALL)
    named = "n.name, ranked.* from ranked left join account n on n.id = ranked.bucket"
    rows = await reader.fetch(
        f"""
with {part},
ranked as (
    select *, row_number() over (partition by denomination order by amount desc, events desc, bucket) as rank
    from (select bucket, denomination, {_SUMS} from part group by bucket, denomination) as summed)
select {named if by == "account" else "null as name, * from ranked"} where rank <= ${len(arguments)}::bigint
union all
select null, null, *, 0 from ({_WHOLE}) as whole
order by {"rank" if is_ranked else "bucket"}, denomination""",
        *arguments,
    )
    return [row for row in rows if row["rank"]], [row for row in rows if not row["rank"]]


_ALL: Final = 2**62


# --- movements --------------------------------------------------------------------------------------------------------


async def sum_movements(reader: Reader, span: Span, by: str) -> list[Record]:
    """What moved an account's balances, by day or month, denomination and book.

    Rows have bucket, denomination, book, amount and ending_balance: what was on the balance after the last movement of
    that day or month, whatever its book.
    """
    assert span.account_id is not None
    low, high = span.ids
    bucket = BUCKETS[by].replace("e.", "t.").format(zone="$6::text")
    rows: list[Record] = await reader.fetch(
        f"""
select m.bucket, m.denomination, m.book, m.amount, l.ending_balance
from (
    select bucket, denomination, book, sum(amount) as amount,
        max(max(seq)) over (partition by bucket, denomination) as last_seq
    from (
        select {bucket} as bucket, t.denomination, t.book, t.amount, t.seq from transaction t
        where t.account_id = $1 and t.id >= $2 and t.id < $3 and t.recorded_at >= $4 and t.recorded_at < $5) as moved
    group by bucket, denomination, book) as m
join transaction l on l.account_id = $1 and l.denomination = m.denomination and l.seq = m.last_seq
order by m.bucket, m.denomination, m.book""",
        span.account_id,
        low,
        high,
        span.start,
        span.end,
        span.zone,
    )
    return rows


# --- costs and margin -------------------------------------------------------------------------------------------------


async def sum_costs(reader: Reader, span: Span, by: str, *, limit: int) -> tuple[list[Record], list[Record]]:
    """What usage brought and what it cost the company, by bucket and currency; and all of it by currency alone.

    Rows have bucket, currency, revenue (charged in it, further charges included) and cogs. Of types and accounts those
    with the greatest of both are there, one more than ``limit`` where there are more.
    """
    part, arguments = _taken(span, by, None)
    is_ranked = by in {"type", "account"}
    arguments += [limit + 1 if is_ranked else _ALL, _CURRENCIES]
    count = len(arguments)
    named = "n.name, ranked.* from ranked left join account n on n.id = ranked.bucket"
    rows = await reader.fetch(
        f"""
with {part},
money as (
    select bucket, denomination as currency, amount as revenue, 0 as cogs from part
    where denomination = any(${count}::text[])
    union all
    select bucket, cogs_denomination, 0, cogs from part where cogs_denomination = any(${count}::text[])),
ranked as (
    select *, row_number() over (partition by currency order by greatest(revenue, cogs) desc, bucket) as rank
    from (select bucket, currency, sum(revenue) as revenue, sum(cogs) as cogs from money group by bucket, currency
        having sum(revenue) <> 0 or sum(cogs) <> 0) as summed)
select {named if by == "account" else "null as name, * from ranked"} where rank <= ${count - 1}::bigint
union all
select null, null, currency, sum(revenue), sum(cogs), 0 from money group by currency
having sum(revenue) <> 0 or sum(cogs) <> 0
order by {"rank" if is_ranked else "bucket"}, currency""",
        *arguments,
    )
    return [row for row in rows if row["rank"]], [row for row in rows if not row["rank"]]


# --- money ------------------------------------------------------------------------------------------------------------


async def sum_revenue(reader: Reader, span: Span, by: str) -> list[Record]:
    """Money that came in and money that went back, by day or month, reason of the payment and currency.

    It is a company's, or one account's where the span names one. Rows have bucket, reason, currency, payments, amount,
    refunds, refunded, disputes, disputed. A payment stands where it succeeded, a refund where it did. What was paid
    from a balance had come in before, and does not count again.
    """
    unit = {"day": "day", "month": "month"}[by]
    mine = "" if span.account_id is None else " and p.account_id = $5"
    rows: list[Record] = await reader.fetch(
        f"""
select bucket, reason, currency, sum(payments)::bigint as payments, sum(amount) as amount,
    sum(refunds)::bigint as refunds, sum(refunded) as refunded, sum(disputes)::bigint as disputes,
    sum(disputed) as disputed
from (
    select date_trunc('{unit}', p.finished_at at time zone $4::text)::date as bucket, p.reason, p.currency,
        count(*) as payments, sum(p.amount) as amount, 0 as refunds, 0 as refunded, 0 as disputes, 0 as disputed
    from payment p
    where p.environment_id = $1 and {PAID} and p.finished_at >= $2 and p.finished_at < $3{mine}
    group by 1, 2, 3
    union all
    select date_trunc('{unit}', r.finished_at at time zone $4::text)::date, p.reason, p.currency, 0, 0,
        count(*) filter (where r.kind = 'refund'), coalesce(sum(r.amount) filter (where r.kind = 'refund'), 0),
        count(*) filter (where r.kind = 'dispute'), coalesce(sum(r.amount) filter (where r.kind = 'dispute'), 0)
    from refund r join payment p on p.account_id = r.account_id and p.id = r.payment_id
    where r.environment_id = $1 and r.status = 'succeeded' and p.method <> 'balance'
        and r.finished_at >= $2 and r.finished_at < $3{mine}
    group by 1, 2, 3) as moved
group by bucket, reason, currency order by bucket, currency, reason""",
        span.environment_id,
        span.start,
        span.end,
        span.zone,
        *(() if span.account_id is None else (span.account_id,)),
    )
    return rows


async def sum_owed(
    reader: Reader, environment_id: int, now: datetime, *, limit: int
) -> tuple[list[Record], list[Record]]:
    """Who owes: accounts with what remains of their open invoices, and with money balances below zero, by currency.

    Rows have bucket (the account's id), name, currency, owed, overdue, invoices, due_at (the earliest) and negative
    (how far the balance is below zero); and the sums by currency, with accounts. The two overlap: what an invoice waits
    for mostly stands on the balance too. Those who owe most first, one more than ``limit`` where there are more.
    """
    rows = await reader.fetch(
        """
with part as (
    select i.account_id, i.currency, sum(i.amount_due - i.amount_paid - i.amount_credited) as owed,
        coalesce(sum(i.amount_due - i.amount_paid - i.amount_credited) filter (where i.due_at < $2), 0) as overdue,
        count(*) as invoices, min(i.due_at) as due_at, 0 as negative
    from invoice i where i.environment_id = $1 and i.status = 'open' group by i.account_id, i.currency
    union all
    select b.account_id, b.denomination, 0, 0, 0, null, -b.amount
    from balance b join account a on a.id = b.account_id and a.environment_id = $1
    where b.amount < 0 and b.denomination = any($4::text[])),
summed as (
    select account_id as bucket, currency, sum(owed) as owed, sum(overdue) as overdue,
        sum(invoices)::bigint as invoices, min(due_at) as due_at, sum(negative) as negative
    from part group by account_id, currency having sum(owed) <> 0 or sum(negative) <> 0),
ranked as (
    select *, row_number() over (partition by currency order by greatest(owed, negative) desc, bucket) as rank
    from summed)
select n.name, ranked.*, 1::bigint as accounts from ranked join account n on n.id = ranked.bucket where rank <= $3
union all
select null, null, currency, sum(owed), sum(overdue), sum(invoices)::bigint, min(due_at), sum(negative), 0, count(*)
from summed group by currency
order by rank, currency""",
        environment_id,
        now,
        limit + 1,
        _CURRENCIES,
    )
    return [row for row in rows if row["rank"]], [row for row in rows if not row["rank"]]


# --- plans ------------------------------------------------------------------------------------------------------------


async def sum_plans(reader: Reader, environment_id: int) -> list[Record]:
    """What subscriptions come to, by plan, currency, status (active, past_due, trialing) and cadence.

    Rows have plan_id, name, currency, status, cadence (MONTHLY, YEARLY), subscriptions and amount: what all of them pay
    for a period, chosen units included. Plans that are paid for once, or in tokens, have no place here.
    """
    rows: list[Record] = await reader.fetch(
        """
with counted as (
    select s.plan_id, s.version_id, s.override_id, s.account_id * (s.override_id is not null)::integer as own,
        s.status, s.cadence, count(*) as subscriptions
    from subscription s
    where s.environment_id = $1 and s.status in ('active', 'past_due', 'trialing') and s.cadence <> 'ONE_OFF'
    group by 1, 2, 3, 4, 5, 6),
chosen as (
    select s.version_id, s.override_id, s.account_id * (s.override_id is not null)::integer as own, s.status, s.cadence,
        u.key as denomination, sum(u.value::bigint) as units
    from subscription s, json_each_text(s.variable_units) u
    where s.environment_id = $1 and s.status in ('active', 'past_due', 'trialing') and s.cadence <> 'ONE_OFF'
    group by 1, 2, 3, 4, 5, 6),
priced as (
    select c.*, coalesce(o.terms, v.terms) as terms
    from counted c
    join plan_version v on v.environment_id = $1 and v.id = c.version_id
    left join plan_override o on o.account_id = c.own and o.id = c.override_id)
select p.plan_id, p.terms ->> 'renewal_denomination' as currency, p.status, p.cadence,
    sum(p.subscriptions)::bigint as subscriptions,
    sum(p.subscriptions * coalesce((p.terms -> 'renewals' -> p.cadence ->> 'amount')::bigint, 0)
        + coalesce(x.amount, 0)) as amount
from priced p
left join lateral (
    -- The price of a chosen unit is one number, or one for each cadence.
    select sum(h.units * coalesce((case json_typeof(p.terms -> 'balances' -> h.denomination -> 'variable_amount_cost')
        when 'object' then p.terms -> 'balances' -> h.denomination -> 'variable_amount_cost' ->> p.cadence
        else p.terms -> 'balances' -> h.denomination ->> 'variable_amount_cost' end)::bigint, 0)) as amount
    from chosen h
    where h.version_id = p.version_id and h.own = p.own and h.status = p.status and h.cadence = p.cadence
        and h.override_id is not distinct from p.override_id) x on true
where p.terms ->> 'renewal_denomination' = any($2::text[])
group by 1, 2, 3, 4 order by 1, 2, 3, 4""",
        environment_id,
        _CURRENCIES,
    )
    return rows


async def sum_movement_of_plans(reader: Reader, span: Span) -> list[Record]:
    """Who came to each plan and who left it: plan_id, started, trials, converted, changed_in, changed_out, ended.

    By the periods of plans: one that follows no other is a start, one that nothing follows and that ended an end.
    """
    rows: list[Record] = await reader.fetch(
        """
with placed as (
    select plan_id, start_at, ended_at, is_trial, lag(plan_id) over told as before_id,
        lag(is_trial) over told as before_trial, lag(coalesce(ended_at, end_at)) over told as before_end,
        lead(start_at) over told as after_start
    from subscription_period where environment_id = $1
    window told as (partition by account_id order by id)),
moved as (
    select plan_id, 'started' as what from placed
    where start_at >= $2 and start_at < $3 and (before_id is null or before_end < start_at)
    union all
    select plan_id, 'trials' from placed
    where start_at >= $2 and start_at < $3 and is_trial and (before_id is null or before_end < start_at)
    union all
    select plan_id, 'converted' from placed
    where start_at >= $2 and start_at < $3 and not is_trial and before_trial and before_end >= start_at
    union all
    select case way when 'changed_in' then plan_id else before_id end, way from placed,
        (values ('changed_in'), ('changed_out')) as ways (way)
    where start_at >= $2 and start_at < $3 and before_id <> plan_id and before_end >= start_at
    union all
    select plan_id, 'ended' from placed
    where ended_at >= $2 and ended_at < $3 and (after_start is null or after_start > ended_at))
select plan_id, count(*) filter (where what = 'started') as started, count(*) filter (where what = 'trials') as trials,
    count(*) filter (where what = 'converted') as converted,
    count(*) filter (where what = 'changed_in') as changed_in,
    count(*) filter (where what = 'changed_out') as changed_out, count(*) filter (where what = 'ended') as ended
from moved group by plan_id""",
        span.environment_id,
        span.start,
        span.end,
    )
    return rows


async def plan_names(reader: Reader, environment_id: int) -> dict[int, str]:
    """The name of each plan, by its newest version."""
    rows = await reader.fetch(
        "select distinct on (plan_id) plan_id, terms ->> 'name' as name from plan_version where environment_id = $1"
        " order by plan_id, number desc",
        environment_id,
    )
    return {row["plan_id"]: row["name"] for row in rows}


# --- figures ----------------------------------------------------------------------------------------------------------


async def count_figures(reader: Reader, environment_id: int, now: datetime, real_now: datetime) -> Record:
    """How things stand: accounts, events and refused, failed payments, refills and webhooks that wait for somebody.

    Events are those recorded in the last day, payments those made in the last seven. ``unsealed_at`` is the oldest
    thing done that no sweep has sealed yet, in real time: while the clockwork runs it is never old.
    """
    day, ahead = timedelta(days=1), now - real_now
    row = await reader.fetchrow(
        """
select
    (select count(*) from account where environment_id = $1) as accounts,
    (select count(*) from event e join account a on a.id = e.account_id and a.environment_id = $1
        where e.id >= $2 and e.recorded_at >= $3) as events,
    (select count(*) from gated_event g join account a on a.id = g.account_id and a.environment_id = $1
        where g.id >= $2 and g.recorded_at >= $3) as refused,
    (select count(*) from payment
        where environment_id = $1 and id >= $4 and status = 'failed' and created_at >= $5) as failed_payments,
    (select count(*) from refill where environment_id = $1 and parked_at is not null) as parked_refills,
    (select count(*) from webhook where environment_id = $1 and deleted_at is null
        and (failing_since is not null or paused_by = 'failures')) as failing_webhooks,
    (select min(at) from activity x join environment v on v.company_id = x.company_id
        where v.id = $1 and x.number is null) as unsealed_at""",
        environment_id,
        _microseconds(now - day - ahead - SLACK),
        now - day,
        _microseconds(now - 7 * day - ahead - SLACK),
        now - 7 * day,
    )
    assert row is not None
    return row


async def list_parked(reader: Reader, environment_id: int, limit: int) -> list[Record]:
    """Refills that begin nothing more until somebody acts, the newest first, one more than ``limit`` if there are."""
    rows: list[Record] = await reader.fetch(
        "select r.account_id, n.name, r.denomination, r.amount, r.charge_amount, r.charge_denomination, r.parked_at,"
        " r.parked_code from refill r join account n on n.id = r.account_id"
        " where r.environment_id = $1 and r.parked_at is not null"
        " order by r.parked_at desc, r.account_id, r.denomination limit $2",
        environment_id,
        limit + 1,
    )
    return rows
