"""What the audit asks about plans: subscriptions, periods, steps and grants against each other, books and dates.

The problem, on one example. An account on Basic (1,000 cents a month for 1,000 tokens) renewed on 1 March:

    row                                    what has to stand beside it
    step: renewal, sold 1000, charge 1000  -1000 in book plan, and a payment of 1000 that succeeded
    step: granted 1000, cancelled 700      +1000 in book grant and -700 in book expiry, which name the step
    period: price 1000, from 1 March       the step that began it then and sold 1000; the one before ended there
    grant: 1000 tokens of this period      what the steps of the period granted; open while the period runs
    subscription: number 2, to 1 April     the second date counted from its anchor, in its own zone

The statements give what those of ``audit_queries`` give; where dates or terms have to be worked out in Python, a
statement gives the rows and a function says what each should be.
"""

from __future__ import annotations

from datetime import tzinfo
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from tenuto.core.cards import maximum, to_stripe
from tenuto.core.grant import CREDIT_PRIORITY, PLAN_PRIORITY
from tenuto.core.ledger import EXPIRY_BOOK, GRANT_BOOK, PLAN_BOOK, PRORATION_BOOK
from tenuto.core.money import AMOUNT_MAX, CURRENCY_EXPONENTS
from tenuto.core.payment import FOR_PLANS, RETRIES
from tenuto.core.period import monthly
from tenuto.core.plan import CADENCES, merged, plan_terms, refuse_prices
from tenuto.core.subscription import RUNNING, SOLD, due

from .audit_money import compared, listed, orphans, posted
from .database import Record
from .records import TAKEN

COUNTS: Final = """
select (select count(*) from plan) as plans,
    (select count(*) from plan_version) as plan_versions,
    (select count(*) from plan_override) as agreed_terms,
    (select count(*) from subscription) as subscriptions,
    (select count(*) from subscription_period) as periods,
    (select count(*) from subscription_step) as steps,
    (select count(*) from balance_grant) as grants
"""

_RUNNING: Final = listed(RUNNING)
_BEGINS: Final = "'start', 'renewal', 'change', 'modify'"
"""Kinds of steps that begin a period, or add to the price of one."""

_SOLD: Final = listed(SOLD)

# Every line of every step with what matters of the step.
_LINE: Final = """line as not materialized (
    select account_id, id, step_kind, period_id, for_at, step_denomination, line ->> 'kind' as kind,
        (line ->> 'amount')::bigint as amount, line ->> 'denomination' collate "C" as denomination
    from (
        select account_id, id, kind as step_kind, period_id, for_at, denomination as step_denomination,
            json_array_elements(lines) as line
        from subscription_step
    ) as each_line
)"""


def _units(column: str) -> str:
    """SQL: the units by denomination that steps have granted or cancelled, one row each."""
    return f"""
    select account_id, id, period_id, denomination collate "C" as denomination,
        ({column} ->> denomination)::bigint as units
    from (
        select account_id, id, period_id, {column}, json_object_keys({column}) as denomination from subscription_step
    ) as each_unit"""


def _least_charges() -> dict[str, int]:
    """Currencies of which a card is charged no single smallest unit, with what charges are whole times of."""
    found: dict[str, int] = {}
    for currency in CURRENCY_EXPONENTS:
        least = next((units for units in (1, 10, 100) if to_stripe(units, currency) is not None), 1)
        if least > 1:
            found[currency] = least
    return found


_LEAST: Final = "case {} {} else 1 end".format(
    "s.denomination", " ".join(f"when '{name}' then {units}" for name, units in sorted(_least_charges().items()))
)


_MOST: Final = "case {} {} else 0 end".format(
    "s.denomination", " ".join(f"when '{name}' then {maximum(name)}" for name in sorted(CURRENCY_EXPONENTS))
)

# --- payments and steps -----------------------------------------------------------------------------------------------

# Where the plan was no longer what the step had been worked out on, the money stays on the balance: then a step or an
# agreement came between, or the subscription has moved on within the same period.
PLAN_PAYMENTS: Final = f"""
with asked as (
    select p.account_id, p.id, p.reason, p.status, p.amount, p.created_at, p.finished_at,
        p.settings ->> 'basis' as basis, p.settings #>> '{{step,kind}}' as asked_kind, t.id as step_id, t.kind, t.charge
    from payment p left join subscription_step t on t.account_id = p.account_id and t.payment_id = p.id
    where p.reason in ({listed(FOR_PLANS)})
),
present as (
    select account_id, period_id, case when status in ({_RUNNING}) then
        format('%s/%s/%s/%s', period_id, version_id, coalesce(override_id::text, 'None'), number) else '' end as basis
    from subscription
),
judged as (
    select a.account_id, a.id, a.reason, a.status, a.amount, a.step_id, a.kind,
        case
            when a.basis is null or a.asked_kind is null then 'the step that it is for, and what that was worked out on'
            when a.step_id is not null and a.status <> 'succeeded' then 'no step: it has not come in'
            when a.step_id is not null and a.charge <> a.amount then format('%s, what its step charged', a.charge)
            when a.kind <> a.asked_kind then format('a step that is a %s, as it asked', a.asked_kind)
            when a.reason <> case a.asked_kind when 'start' then 'plan_start' when 'renewal' then 'plan_renewal'
                else 'plan_change' end then format('the reason of a %s', a.asked_kind)
            when a.step_id is null and a.status = 'succeeded'
                and not exists (select from subscription_step s where s.account_id = a.account_id and s.id > a.id
                    and s.created_at <= a.finished_at and (s.kind, s.charge, s.created_at)
                        is distinct from (a.asked_kind, a.amount, a.finished_at))
                and not exists (select from plan_override o where o.account_id = a.account_id
                    and o.created_at between a.created_at and a.finished_at)
                and (n.basis <> a.basis and n.period_id::text = split_part(a.basis, '/', 1)) is not true
                then 'the step that it paid for'
        end as expected
    from asked a left join present n on n.account_id = a.account_id
)
select 'payment', account_id, id, '',
    format('%s for %s, %s, step %s %s', status, reason, amount, coalesce(kind, 'none'), step_id), expected
from judged where expected is not null
union all
select 'step', t.account_id, t.id, '', format('paid by %s', t.payment_id), 'a payment that is for a plan'
from subscription_step t left join payment p on p.account_id = t.account_id and p.id = t.payment_id
where t.payment_id is not null and p.reason not in ({listed(FOR_PLANS)})
"""

STEPS: Final = f"""
with {_LINE},
summed as (
    select account_id, id, greatest(coalesce(sum(amount) filter (where denomination = step_denomination), 0), 0) as due,
        -coalesce(sum(amount) filter (where kind = 'proration'), 0) as back,
        bool_or(kind not in ('credit', 'owed', 'proration', {_SOLD})) as is_strange
    from line group by account_id, id
),
told as (
    select s.account_id, s.id, s.kind, s.for_at, s.charge, s.credit, s.payment_id, coalesce(l.due, 0) as due,
        coalesce(l.back, 0) as back, coalesce(l.is_strange, false) as is_strange, {_LEAST} as least,
        {_MOST} as most,
        count(*) over (partition by s.account_id, s.kind, s.for_at) as twins
    from subscription_step s left join summed l on l.account_id = s.account_id and l.id = s.id
),
judged as (
    select *,
        case
            when kind not in ('refill', 'cancel', {_BEGINS}) then 'a kind that there is'
            when is_strange then 'lines of kinds that there are'
            when credit <> back or credit < 0 then format('credit %s, as its lines say', back)
            when kind in ('refill', 'cancel') and payment_id is not null then 'no payment: it waits for none'
            when kind = 'refill' and charge <> 0 then 'no charge: it has none'
            when payment_id is not null and charge <> div(due + least - 1, least) * least and charge <> most
                then format('charge %s, as its lines say', due)
            when payment_id is null and charge not in (0, due) then format('charge 0 or %s, as its lines say', due)
            when kind in ('renewal', 'refill') and twins > 1 then 'one for its date'
        end as expected
    from told
)
select 'step', account_id, id, '',
    format('%s for %s: charge %s, credit %s', kind, for_at, charge, credit), expected
from judged where expected is not null
"""

STEP_MOVES: Final = f"""
with {_LINE},
expected as (
    select account_id, id as cause_id, denomination,
        case kind when 'proration' then '{PRORATION_BOOK}' else '{PLAN_BOOK}' end as book, -sum(amount) as amount
    from line where kind in ('proration', {_SOLD})
    group by account_id, id, denomination, 4 having sum(amount) <> 0
    union all
    select account_id, id, denomination, '{GRANT_BOOK}', units from ({_units("granted")}) as g where units <> 0
    union all
    select account_id, id, denomination, '{EXPIRY_BOOK}', -units from ({_units("cancelled")}) as g where units <> 0
),
{posted(PLAN_BOOK, PRORATION_BOOK, GRANT_BOOK, EXPIRY_BOOK)}
{compared("step", "subscription_step")}
"""


# --- periods and subscriptions ----------------------------------------------------------------------------------------

# Ids rise with time. Where a period ended when it was meant to, the next one may begin later: what is past due or
# paused waits. What was ended before may begin again whenever it likes.
PERIODS: Final = f"""
with {_LINE},
sold as (
    select account_id, period_id, denomination, sum(amount) as price from line
    where step_kind in ({_BEGINS}) and kind in ('plan', 'variable') group by account_id, period_id, denomination
),
ending as (
    select account_id, period_id, sum(credit) as credit from subscription_step where kind = 'cancel'
    group by account_id, period_id
),
chained as (
    select *, lag(id) over w as last_id, lag(ended_at) over w as last_ended, lag(end_at) over w as last_end,
        lead(id) over w as next_id
    from subscription_period window w as (partition by account_id order by id)
),
told as (
    select p.*, f.kind, f.for_at, coalesce(s.price, 0) as sold, v.plan_id as sold_plan,
        v.terms ->> 'renewal_denomination' as sold_in,
        coalesce(e.credit, 0) + case when n.kind in ('change', 'modify') then n.credit else 0 end as given_back
    from chained p
    left join subscription_step f on f.account_id = p.account_id and f.id = p.id
    left join subscription_step n on n.account_id = p.account_id and n.id = p.next_id
    left join ending e on e.account_id = p.account_id and e.period_id = p.id
    left join sold s on s.account_id = p.account_id and s.period_id = p.id and s.denomination = p.denomination
    left join plan_version v on v.environment_id = p.environment_id and v.id = p.version_id
),
judged as (
    select *,
        case
            when end_at <= start_at or ended_at < start_at then 'an end after its start'
            when last_id is not null and last_ended is null then 'none before it that has not ended'
            when start_at < last_ended then format('from %s on, where the one before ended', last_ended)
            when start_at > last_ended and kind <> 'start' and last_end is distinct from last_ended
                then format('from %s, where the one before ended', last_ended)
            when (kind in ({_BEGINS}) and for_at = start_at) is not true then 'a step that began it then'
            when is_trial and price <> 0 then 'no price: it is a trial'
            when price <> sold then format('price %s, what its steps sold', sold)
            when credited <> given_back or not (credited between 0 and price)
                then format('credited %s, what its steps gave back, and no more than its price', given_back)
            when cadence not in ({listed(CADENCES)}) then 'a cadence that there is'
            when sold_plan <> plan_id or sold_in <> denomination
                then format('the plan of its version, in %s', sold_in)
        end as expected
    from told
)
select 'period', account_id, id, '',
    format('from %s to %s, ended %s, price %s %s, credited %s', start_at, coalesce(end_at::text, 'never'),
        coalesce(ended_at::text, 'never'), price, denomination, credited), expected
from judged where expected is not null
"""

# A plan that was taken up again after a pause ends later than its period was meant to: its date is a new anchor. What
# could not be renewed, by a fault, is put off for an hour.
SUBSCRIPTIONS: Final = f"""
with last as (
    select distinct on (account_id) * from subscription_period order by account_id, id desc
),
dated as (
    select *, status in ({_RUNNING}) as is_running, least(period_end, refill_at) as due_at from subscription
),
judged as (
    select s.*,
        case
            when s.status not in ('pending_card', 'cancelled', {_RUNNING}) then 'a status that there is'
            when (s.status = 'cancelled') <> (s.ended_at is not null) then 'ended_at if and only if it is cancelled'
            when s.is_running and (l.id = s.period_id and l.ended_at is null) is not true
                then 'its last period, which has not ended'
            when not s.is_running and l.id is not null and l.ended_at is null then 'no period that has not ended'
            when s.is_running and (l.plan_id, l.version_id, l.cadence, l.start_at)
                is distinct from (s.plan_id, s.version_id, s.cadence, s.period_start)
                then 'the plan, version, cadence and start of its period'
            when s.is_running and l.end_at is distinct from s.period_end
                and (s.number = 0 and s.anchor_at = s.period_end and s.period_end > l.end_at) is not true
                then format('the end of its period, %s', l.end_at)
            when s.status = 'trialing' and not l.is_trial or s.status = 'active' and l.is_trial
                then 'trialing if and only if its period is a trial'
            when s.status in ('paused', 'cancelled') and s.next_at is not null then 'no next_at: nothing is to be done'
            when s.status in ('active', 'trialing') and s.payment_id is not null and s.next_at is not null
                then 'no next_at: it waits for its payment'
            when s.status in ('active', 'trialing') and s.payment_id is null and s.next_at is distinct from s.due_at
                and (s.next_at > s.due_at and s.updated_at >= s.due_at
                    and s.next_at <= s.updated_at + interval '{int(RETRIES[0].total_seconds())} seconds') is not true
                then format('next_at %s, when something is to be done', coalesce(s.due_at::text, 'none'))
        end as expected
    from dated s left join last l on l.account_id = s.account_id
)
select 'subscription', account_id, 0::bigint, '',
    format('%s, period %s from %s to %s, next_at %s, ended_at %s', status, period_id, period_start, period_end,
        coalesce(next_at::text, 'none'), coalesce(ended_at::text, 'none')), expected
from judged where expected is not null
"""

# For Python: dates are counted in the subscription's own zone, which never changes; $1 and $2 choose a share of them.
PLAN_DATES: Final = f"""
select 'subscription' as kind, account_id, 0::bigint as number, '' as word,
    format('period to %s, balances filled on %s', coalesce(period_end::text, 'never'),
        coalesce(refill_at::text, 'no date')) as stored,
    cadence, zone, anchor_at, number as renewal, period_start, period_end, refill_number, refill_at
from subscription where status in ({_RUNNING}) and mod(account_id, $1::bigint) = $2::bigint
"""


def judge_dates(row: Record) -> str:
    """What the dates of a running plan should be, counted from its anchor, or nothing where they are that."""
    zone = _zone(row["zone"])
    end = row["anchor_at"] if row["renewal"] == 0 else due(row["anchor_at"], row["renewal"], row["cadence"], zone)
    if row["period_end"] != end:
        return f"to {end or 'never'}, number {row['renewal']} from {row['anchor_at']} in {row['zone']}"
    if row["refill_at"] is None:
        return ""
    refill_at = monthly(row["period_start"], row["refill_number"], zone)
    # What was due in a pause is due when the plan is taken up again.
    if row["refill_at"] < refill_at or end is None or row["refill_at"] >= end:
        return f"filled on {refill_at}, month {row['refill_number']} of its period, or later within it"
    return ""


@lru_cache(maxsize=1024)
def _zone(name: str) -> tzinfo:
    return ZoneInfo(name)


# --- grants -----------------------------------------------------------------------------------------------------------

GRANTS: Final = f"""
with {_LINE},
spare as (
    select account_id, id, for_at, denomination, -sum(amount) as units from line where kind in ('proration', {_SOLD})
    group by account_id, id, for_at, denomination having sum(amount) < 0
),
judged as (
    select g.*,
        case
            when not (g.units_left between 0 and g.units) or g.units < 1 then 'units left from 0 to what it gave'
            when g.source not in ('plan', 'manual', 'credit') then 'a source that there is'
            when (g.source = 'plan') <> (g.plan_id is not null) or (g.source = 'plan') <> (g.period_id is not null)
                then 'a plan and a period if and only if a plan gave it'
            when g.source = 'plan' and g.priority <> {PLAN_PRIORITY} then 'priority {PLAN_PRIORITY}: a plan gave it'
            when g.source = 'credit' and g.priority <> {CREDIT_PRIORITY} then 'priority {CREDIT_PRIORITY}: it is credit'
            when g.source <> 'manual' and g.expires_at is not null then 'no expires_at: nobody gave it by hand'
            when g.source = 'plan' and g.closed_at is null and p.ended_at is not null
                then 'closed: its period has ended'
            when g.source = 'credit' and c.id is null then 'a step that gave this much back at that moment'
        end as expected
    from balance_grant g
    left join subscription_period p on p.account_id = g.account_id and p.id = g.period_id
    left join spare c on g.source = 'credit' and c.account_id = g.account_id and c.denomination = g.denomination
        and c.for_at = g.created_at and c.units = g.units
),
gave as (
    select account_id, period_id, denomination, sum(units) as units from ({_units("granted")}) as x
    group by account_id, period_id, denomination
),
given as (
    select account_id, period_id, denomination, sum(units) as units from balance_grant where source = 'plan'
    group by account_id, period_id, denomination
)
select 'grant', account_id, id, denomination,
    format('%s %s, %s left, priority %s, period %s, closed %s', source, units, units_left, priority,
        coalesce(period_id::text, 'none'), coalesce(closed_at::text, 'never')), expected
from judged where expected is not null
union all
select 'period', coalesce(x.account_id, g.account_id), coalesce(x.period_id, g.period_id), '',
    format('grants of %s %s', coalesce(x.units, 0), coalesce(x.denomination, g.denomination)),
    format('%s, what its steps granted', coalesce(g.units, 0))
from given x full join gave g on g.account_id = x.account_id and g.period_id = x.period_id
    and g.denomination = x.denomination
where coalesce(x.units, 0) <> coalesce(g.units, 0)
"""

# What was given by hand ends by a transaction that names no more than itself; all that ends at one moment is compared.
GRANT_MOVES: Final = f"""
with expected as (
    select account_id, id as cause_id, denomination, '{GRANT_BOOK}' as book, units as amount
    from balance_grant where source = 'manual'
),
{posted(GRANT_BOOK)},
over as (
    select account_id, denomination, closed_at as at, sum(units_left) as units from balance_grant
    where source = 'manual' and closed_at is not null group by account_id, denomination, closed_at
),
gone as (
    select account_id, denomination, recorded_at as at, -sum(amount) as units from transaction
    where book = '{EXPIRY_BOOK}' and cause_id = id group by account_id, denomination, recorded_at
)
{compared("grant", "balance_grant")}
union all
select 'balance', coalesce(o.account_id, g.account_id), 0::bigint, coalesce(o.denomination, g.denomination),
    format('%s units ended on %s', coalesce(g.units, 0), coalesce(o.at, g.at)),
    format('%s, what was left of grants that ended then', coalesce(o.units, 0))
from over o full join gone g on g.account_id = o.account_id and g.denomination = o.denomination and g.at = o.at
where coalesce(o.units, 0) <> coalesce(g.units, 0)
"""

# What is left of open grants was there when they were burned down last: all that has arrived less what they are burned
# down by, but for what was taken off since by something that is no usage. What a step ends goes before what it gives.
BURNED: Final = f"""
with back as (
    select account_id, denomination, sum(amount) as units from transaction where book in {TAKEN} and amount > 0
    group by account_id, denomination
),
open as (
    select account_id, denomination, sum(units_left) as units, min(id) as oldest, min(created_at) as since
    from balance_grant where closed_at is null group by account_id, denomination
),
taken as (
    select t.account_id, t.denomination, -sum(t.amount) as units
    from transaction t
    join open o on o.account_id = t.account_id and o.denomination = t.denomination
    left join subscription_step s on s.account_id = t.account_id and s.id = t.cause_id and s.for_at = o.since
    where t.amount < 0 and t.book not in {TAKEN}
        and (t.id > o.oldest or t.recorded_at >= o.since and s.id is null)
    group by t.account_id, t.denomination
),
judged as (
    select b.account_id, b.denomination, b.amount, b.arrived, b.burned, coalesce(o.units, 0) as held,
        b.arrived - b.amount + coalesce(r.units, 0) as used_at_most,
        greatest(b.arrived - b.burned + coalesce(t.units, 0), 0) as held_at_most
    from balance b
    left join back r on r.account_id = b.account_id and r.denomination = b.denomination
    left join open o on o.account_id = b.account_id and o.denomination = b.denomination
    left join taken t on t.account_id = b.account_id and t.denomination = b.denomination
    where b.burned <> 0 or o.units is not null
)
select 'balance', account_id, 0::bigint, denomination,
    format('amount %s, arrived %s, burned %s, %s left of its grants', amount, arrived, burned, held),
    case when burned between 0 and used_at_most then format('at most %s left, which was there', held_at_most)
        else format('burned down by 0 to %s, what usage took', used_at_most) end
from judged where not (burned between 0 and used_at_most) or held > held_at_most
"""


# --- terms ------------------------------------------------------------------------------------------------------------

PLAN_NUMBERS: Final = """
with numbered as (
    select v.*, row_number() over (partition by environment_id, plan_id order by number) as place from plan_version v
)
select 'plan', environment_id::bigint, plan_id, number::text, format('version %s', number),
    format('version %s, the next one', place)
from numbered where number <> place
union all
select 'plan', p.environment_id::bigint, p.id, '1', 'no version', 'a first version'
from plan p left join plan_version v on v.environment_id = p.environment_id and v.plan_id = p.id where v.id is null
"""

# For Python: every version of every plan, and what was agreed with accounts; of the latter $1 and $2 choose a share.
PLAN_TERMS: Final = """
select 'plan' as kind, environment_id::bigint as account_id, plan_id as number, number::text as word,
    'its terms' as stored, terms, null::json as of_version, null::json as changes
from plan_version
union all
select 'agreement', o.account_id, o.id, '', format('terms agreed on version %s', o.version_id), o.terms, v.terms,
    o.changes
from plan_override o
join account a on a.id = o.account_id
join plan_version v on v.environment_id = a.environment_id and v.id = o.version_id
where mod(o.account_id, $1::bigint) = $2::bigint
"""


def judge_terms(row: Record) -> str:
    """What stored terms should be, or nothing where they can be read and are what was agreed. Raises for unreadable."""
    terms = msgspec.json.decode(row["terms"])
    plan_terms(terms)
    refuse_prices(terms.get("event_prices", ()))
    if row["changes"] is None:
        return ""
    whole = merged(msgspec.json.decode(row["of_version"]), msgspec.json.decode(row["changes"]))
    return "" if _spelled(whole) == _spelled(terms) else "its version's terms with its changes laid over them"


def _spelled(terms: dict[str, Any]) -> bytes:
    """Terms in one spelling, to compare: Python finds True equal to 1."""
    return msgspec.json.encode(terms, order="sorted")


# Terms that were agreed since may say otherwise already; they hold for balances from the next step on.
PLAN_REFILLS: Final = f"""
with said as (
    select environment_id, null::bigint as account_id, id as version_id, terms -> 'balances' as balances
    from plan_version
    union all
    select a.environment_id, o.account_id, o.version_id, o.terms -> 'balances' from plan_override o
    join account a on a.id = o.account_id
),
filled as (
    select environment_id, account_id, version_id, denomination collate "C" as denomination,
        bool_or(balances -> denomination ->> 'auto_refill_amount' is not null) as is_filled
    from (select *, json_object_keys(balances) as denomination from said) as each_balance
    group by environment_id, account_id, version_id, denomination
),
judged as (
    select r.account_id, r.denomination, s.status, bool_or(f.is_filled) as is_filled
    from refill r
    left join subscription s on s.account_id = r.account_id
    left join filled f on f.environment_id = s.environment_id and f.version_id = s.version_id
        and f.denomination = r.denomination and (f.account_id is null or f.account_id = r.account_id)
    where r.by_plan group by r.account_id, r.denomination, s.status
)
select 'refill', account_id, 0::bigint, denomination, format('filled by a plan that is %s', coalesce(status, 'none')),
    'a plan in force that fills this balance'
from judged where (status in ({_RUNNING}) and is_filled) is not true
"""


# --- what is added to the checks of all rows --------------------------------------------------------------------------

GIVEN: Final = """
    union all select account_id, max(id) from subscription_period group by account_id
    union all select account_id, max(id) from subscription_step group by account_id
    union all select account_id, max(id) from balance_grant group by account_id
"""
"""Ids of accounts, for ``audit_queries.TICKS``."""

_HALVES: Final = " union all ".join(
    f"select '{kind}' as kind, account_id, {number} as number, environment_id from {table}"
    for kind, table, number in (
        ("subscription", "subscription", "0::bigint"),
        ("period", "subscription_period", "id"),
        ("step", "subscription_step", "id"),
        ("grant", "balance_grant", "id"),
    )
)


def _versions(kind: str, table: str, number: str) -> str:
    """SQL: rows of a table whose version of a plan is not there."""
    return f"""
union all
select '{kind}', x.account_id, x.{number}, '', format('plan version %s', x.version_id), 'one that exists'
from {table} x left join plan_version v on v.environment_id = x.environment_id and v.id = x.version_id
where v.id is null"""


OWNERS: Final = f"""
union all
select h.kind, h.account_id, h.number, '', format('environment %s', h.environment_id),
    case when a.id is null then 'an account that exists' else format('environment %s, as its account', a.environment_id)
    end
from ({_HALVES}) as h left join account a on a.id = h.account_id
where a.environment_id is distinct from h.environment_id
union all
select 'agreement', o.account_id, o.id, '', format('plan version %s', o.version_id), 'one that exists, of its company'
from plan_override o left join account a on a.id = o.account_id
left join plan_version v on v.environment_id = a.environment_id and v.id = o.version_id where v.id is null
union all
select 'grant', g.account_id, g.id, g.denomination, 'a grant', 'a balance that exists'
from balance_grant g left join balance b on b.account_id = g.account_id and b.denomination = g.denomination
where b.account_id is null
""" + "".join(
    (
        orphans("subscription", "subscription", "plan_override", "override_id", number="account_id"),
        orphans("subscription", "subscription", "payment", "payment_id", number="account_id"),
        orphans("period", "subscription_period", "plan_override", "override_id"),
        orphans("step", "subscription_step", "payment", "payment_id"),
        orphans("step", "subscription_step", "subscription_period", "period_id"),
        orphans("grant", "balance_grant", "subscription_period", "period_id"),
        _versions("subscription", "subscription", "account_id"),
        _versions("period", "subscription_period", "id"),
        _versions("step", "subscription_step", "id"),
    )
)
"""Rows of plans whose owner is not there, for ``audit_queries.OWNERS``."""

BOUNDS: Final = f"""
union all
select 'grant', account_id, id, denomination, format('units %s, price %s', units, price),
    'units from 1, a price from 0, to {AMOUNT_MAX}'
from balance_grant where not (units between 1 and {AMOUNT_MAX} and price between 0 and {AMOUNT_MAX})
union all
select 'step', account_id, id, '', format('charge %s, credit %s', charge, credit), 'amounts from 0 to {AMOUNT_MAX}'
from subscription_step where not (charge between 0 and {AMOUNT_MAX} and credit between 0 and {AMOUNT_MAX})
union all
select 'period', account_id, id, '', format('price %s, credited %s', price, credited),
    'amounts from 0 to {AMOUNT_MAX}'
from subscription_period where not (price between 0 and {AMOUNT_MAX} and credited between 0 and {AMOUNT_MAX})
"""
