"""What the audit asks, statement by statement. ``audit`` says what for and reads the answers.

Unless said otherwise, a statement gives (kind, account_id, number, word, stored, expected) for each row that disagrees;
``audit.row_name`` tells how the first four name it. Each reads whole tables once or twice and joins them by hash. Text
that should be a fraction but is none is passed over by the sums; ``SPELLINGS`` names it.
"""

from __future__ import annotations

from typing import Final

from tenuto.core.event import HOLD_LIFE
from tenuto.core.ledger import OVERAGE_BOOK, USAGE_BOOK
from tenuto.core.money import AMOUNT_MAX, BALANCE_MAX

from .records import REASONS, STATES, TAGS, TAKEN

DIGEST_BYTES: Final = 16
"""Bytes of a key's digest."""

COUNTS: Final = """
select (select count(*) from company) as companies,
    (select count(*) from environment) as environments,
    (select count(*) from event_price_version) as prices,
    (select count(*) from account) as accounts,
    (select count(*) from balance) as balances,
    (select count(*) from transaction) as transactions,
    events.total as events, events.holds as holds, events.keyed as keys,
    (select count(*) from event_charge) as further_charges,
    (select count(*) from gated_event) as refused_events,
    (select count(*) from price_counter) as counters,
    (select count(*) from stored_answer) as answers
from (
    select count(*) as total, count(*) filter (where state = 1) as holds, count(key_digest) as keyed from event
) as events
"""

FRACTION: Final = "'^-?[0-9]+(/0*[1-9][0-9]*)?$'"


def numerator(column: str) -> str:
    """SQL: the numerator of a fraction kept as text, null where it is no fraction."""
    return f"case when {column} ~ {FRACTION} then split_part({column}, '/', 1)::numeric end"


def denominator(column: str) -> str:
    """SQL: its denominator."""
    return f"case when {column} ~ {FRACTION} then coalesce(nullif(split_part({column}, '/', 2), ''), '1')::numeric end"


CHARGED: Final = f"""
    e.account_id, e.id as event_id, e.posting, e.state, e.reason, e.type, e.quantity,
    e.expires_at is not null as was_held, e.first is not null as is_ended, c.denomination, c.amount, c.balance_amount,
    c.transaction_seq, c.price_version_id, c.cost, c.residue, c.prior,
    {numerator("c.cost")} as num, {denominator("c.cost")} as den
"""

# Every charge with what matters of its event: the first one stands in the event itself, the others in event_charge.
# A price of overage is never the first one.
CHARGE: Final = f"""charge as not materialized (
    select {CHARGED.replace("c.", "e.")}, null::json as overage from event e where e.denomination is not null
    union all
    select {CHARGED}, c.prior -> 'overage' as overage
    from event_charge c join event e on e.account_id = c.account_id and e.id = c.event_id
)"""

# What of a charge was not there to pay it, by the event and the denomination that it was not there of.
SPILT: Final = f"""spilt as not materialized (
    select account_id, event_id, prior #>> '{{overage,denomination}}' as denomination,
        prior #>> '{{overage,units}}' as units, {numerator("prior #>> '{overage,units}'")} as num,
        {denominator("prior #>> '{overage,units}'")} as den
    from event_charge where prior -> 'overage' is not null
)"""


# Every charge that a usage transaction was made for and still names it: as the event stands, and as it stood before it
# was taken back. Only of a hold that was settled and then taken back is the settlement in neither.
POSTED: Final = """posted as not materialized (
    select account_id, denomination, transaction_seq as seq, event_id, amount, balance_amount, state = 2 as is_reversal,
        overage is not null as is_overage
    from charge where transaction_seq is not null
    union all
    select e.account_id, c.denomination collate "C", c.transaction_seq, e.id, c.amount, c.balance_amount, false,
        c.prior -> 'overage' is not null
    from event e
    cross join lateral json_to_recordset(e.first -> 'charges')
        as c (denomination text, amount bigint, balance_amount bigint, transaction_seq bigint, prior json)
    where e.first is not null and c.transaction_seq is not null
)"""


# --- the ledger -------------------------------------------------------------------------------------------------------

BALANCES: Final = """
with moved as (
    select account_id, denomination, sum(amount) as amount from transaction group by account_id, denomination
)
select 'balance', b.account_id, 0::bigint, b.denomination, format('amount %s', b.amount),
    format('amount %s, the sum of its transactions', coalesce(m.amount, 0))
from balance b left join moved m on m.account_id = b.account_id and m.denomination = b.denomination
where b.amount <> coalesce(m.amount, 0)
"""

CHAIN: Final = """
with chain as (
    select account_id, denomination, seq, id, amount, starting_balance, ending_balance,
        lag(seq, 1, 0::bigint) over w as last_seq, lag(ending_balance, 1, 0::bigint) over w as last_end,
        lag(id, 1, 0::bigint) over w as last_id
    from transaction window w as (partition by account_id, denomination order by seq)
)
select 'transaction', account_id, id, denomination,
    format('%s: seq %s, amount %s, from %s to %s', denomination, seq, amount, starting_balance, ending_balance),
    case when seq <> last_seq + 1 then format('seq %s, the next one', last_seq + 1)
        when starting_balance <> last_end then format('from %s, where the one before ended', last_end)
        when id <= last_id then 'an id above that of the one before'
        when amount = 0 then 'an amount that is not 0'
        else format('to %s, start and amount', starting_balance + amount) end
from chain
where seq <> last_seq + 1 or starting_balance <> last_end or ending_balance <> starting_balance + amount
    or amount = 0 or id <= last_id
"""

ENDS: Final = """
with last as (
    select distinct on (account_id, denomination) account_id, denomination, seq, ending_balance
    from transaction order by account_id, denomination, seq desc
)
select 'balance', b.account_id, 0::bigint, b.denomination, format('amount %s, seq %s', b.amount, b.seq),
    format('amount %s, seq %s, as its last transaction', coalesce(l.ending_balance, 0), coalesce(l.seq, 0))
from balance b left join last l on l.account_id = b.account_id and l.denomination = b.denomination
where b.amount <> coalesce(l.ending_balance, 0) or b.seq <> coalesce(l.seq, 0)
"""

HOLDS: Final = f"""
with {CHARGE},
held as (
    select account_id, denomination, sum(amount) as amount from charge where state = 1 group by account_id, denomination
)
select 'balance', b.account_id, 0::bigint, b.denomination, format('pending %s', b.pending),
    format('pending %s, what its open holds keep', coalesce(h.amount, 0))
from balance b left join held h on h.account_id = b.account_id and h.denomination = b.denomination
where b.pending <> coalesce(h.amount, 0)
"""

RESIDUE: Final = f"""
with {CHARGE},
part as (
    select account_id, denomination, den, sum(num) as num from charge where state = 0 and num is not null
    group by account_id, denomination, den
),
cost as (
    select account_id, denomination, array_agg(num::text || '/' || den::text) as parts from part
    group by account_id, denomination
),
posted as (
    select account_id, denomination, -sum(amount) as amount from transaction where book in {TAKEN}
    group by account_id, denomination
)
select b.account_id, b.denomination, cost.parts, coalesce(posted.amount, 0)::text as posted,
    b.residue_num::text || '/' || b.residue_den::text as residue
from balance b
left join cost on cost.account_id = b.account_id and cost.denomination = b.denomination
left join posted on posted.account_id = b.account_id and posted.denomination = b.denomination
"""

LAST: Final = f"""
with {CHARGE},
ranked as (
    select account_id, denomination, event_id, residue,
        rank() over (partition by account_id, denomination order by posting desc) as place
    from charge
),
part as (select *, {numerator("residue")} as num, {denominator("residue")} as den from ranked where place = 1)
select 'event', p.account_id, p.event_id, p.denomination, format('%s residue %s', p.denomination, p.residue),
    format('residue %s/%s, which its balance has since then', b.residue_num, b.residue_den)
from part p join balance b on b.account_id = p.account_id and b.denomination = p.denomination
where (p.num * b.residue_den = b.residue_num * p.den) is not true
"""


# --- usage transactions and their events ------------------------------------------------------------------------------

# A request that used a balance and overflowed into it moved it twice, usage first: its charges show what was left.
POSTINGS: Final = f"""
with {CHARGE}, {POSTED},
moved as (select * from transaction where book in {TAKEN}),
beside as (select account_id, denomination, seq, id, ending_balance from moved where book = '{OVERAGE_BOOK}')
select 'event', p.account_id, p.event_id, p.denomination,
    format('%s transaction seq %s, balance %s after it', p.denomination, p.seq, p.balance_amount),
    case when t.seq is null then 'a usage transaction that exists'
        when (t.type = 'REVERSAL') <> p.is_reversal or (t.book = '{OVERAGE_BOOK}') <> p.is_overage
            then format('another one than a transaction of type %s', t.type)
        else format('balance %s, where that transaction ended', coalesce(b.ending_balance, t.ending_balance)) end
from posted p
left join moved t on t.account_id = p.account_id and t.denomination = p.denomination and t.seq = p.seq
left join beside b on b.account_id = t.account_id and b.denomination = t.denomination and b.seq = t.seq + 1
    and b.id = t.id + 1
where t.seq is null or (t.type = 'REVERSAL') <> p.is_reversal or (t.book = '{OVERAGE_BOOK}') <> p.is_overage
    or coalesce(b.ending_balance, t.ending_balance) is distinct from p.balance_amount
"""

TOTALS: Final = f"""
with {CHARGE}, {POSTED},
summed as (
    select account_id, denomination, seq, count(*) as events, sum(amount) as amount, min(event_id) as first_event_id
    from posted group by account_id, denomination, seq
),
-- An event may overflow into one balance from several: those are as many charges, and one event.
overflown as (
    select account_id, denomination, seq, count(distinct event_id) as events from posted where is_overage
    group by account_id, denomination, seq
),
-- All but a few are settled here at once; only what is left is compared with the cost of its event.
unsettled as materialized (
    select t.account_id, t.denomination, t.seq, t.id, t.amount, t.event_count, t.first_event_id, t.type, t.book,
        coalesce(o.events, s.events) as events, s.amount as moved, s.first_event_id as first_posted
    from transaction t
    left join summed s on s.account_id = t.account_id and s.denomination = t.denomination and s.seq = t.seq
    left join overflown o on o.account_id = t.account_id and o.denomination = t.denomination and o.seq = t.seq
    where t.book in {TAKEN} and (t.type = case t.book when '{USAGE_BOOK}' then 'EVENT' else 'OVERAGE' end
        and t.amount = -s.amount and t.event_count = coalesce(o.events, s.events)
        and t.first_event_id = s.first_event_id) is not true
),
-- What its first event cost there, in one charge but for overage; 24 places are more than any cost has.
cost as (
    select t.account_id, t.id, count(*) as parts, sum(c.num * 1.{"0" * 24} / c.den) as cost, min(c.cost) as told,
        bool_and(c.state = 2 and c.reason = 3 and c.was_held) as is_taken_back, min(c.posting) as posting
    from unsettled t
    join charge c on c.account_id = t.account_id and c.event_id = t.first_event_id
        and c.denomination = t.denomination and (c.overage is not null) = (t.book = '{OVERAGE_BOOK}')
    group by t.account_id, t.id
),
judged as (
    select t.account_id, t.denomination, t.id, t.amount, t.event_count, t.first_event_id, t.type,
        case
            when t.first_event_id is null then 'the event it was made for'
            when t.type <> case t.book when '{USAGE_BOOK}' then 'EVENT' else 'OVERAGE' end and t.type <> 'REVERSAL'
                then 'the type EVENT or REVERSAL, OVERAGE or REVERSAL in the book {OVERAGE_BOOK}'
            when t.type <> 'REVERSAL' and t.events is not null then case
                when t.amount <> -t.moved then format('amount %s, what its events moved', -t.moved)
                else format('%s events from %s on', t.events, t.first_posted) end
            when t.type <> 'REVERSAL' then case
                -- A hold that was settled and then taken back.
                when c.id is null or t.event_count <> 1 or c.is_taken_back is not true then 'events that name it'
                when (abs(-t.amount - c.cost) < c.parts and t.id < c.posting) is not true
                    then format('less than one unit from %s, what its event cost', c.told) end
            else case
                when t.events is null or c.id is null or t.events <> 1 or t.event_count <> 1
                    or t.first_posted <> t.first_event_id then 'one event that was taken back by it'
                when (t.amount > 0 and abs(t.amount - c.cost) < c.parts) is not true
                    then format('less than one unit from %s, what its event had cost', c.told) end
        end as expected
    from unsettled t left join cost c on c.account_id = t.account_id and c.id = t.id
)
select 'transaction', account_id, id, denomination,
    format('%s of %s, amount %s, %s events from %s on', type, denomination, amount, event_count, first_event_id),
    expected
from judged where expected is not null
"""

ARRIVED: Final = f"""
with moved as (
    select account_id, denomination, sum(amount) as amount from transaction where book not in {TAKEN}
    group by account_id, denomination
)
select 'balance', b.account_id, 0::bigint, b.denomination, format('arrived %s', b.arrived),
    format('arrived %s, all that moved it but usage and overage', coalesce(m.amount, 0))
from balance b left join moved m on m.account_id = b.account_id and m.denomination = b.denomination
where b.arrived <> coalesce(m.amount, 0)
"""

AMOUNTS: Final = f"""
with {CHARGE}
select 'event', account_id, event_id, denomination,
    format('%s amount %s, cost %s, transaction seq %s', denomination, amount, cost, transaction_seq),
    case state when 0 then 'an amount less than one unit from the cost, with a transaction where it is not 0'
        when 1 then 'the cost rounded up, held, without a transaction'
        else 'amount 0: a cancelled event holds and moves nothing' end
from charge
where (case state
    when 0 then abs(amount * den - num) < den and (amount = 0 or transaction_seq is not null)
    when 1 then amount * den >= num and (amount - 1) * den < num and transaction_seq is null
    else amount = 0 and (transaction_seq is null or reason = 3) end) is not true
"""


# --- events -----------------------------------------------------------------------------------------------------------

PENDING, COMPLETE, CANCELLED = STATES.index("pending"), STATES.index("complete"), STATES.index("cancelled")
SUSPENDED: Final = STATES.index("suspended")
PUSHED, EXPIRED = REASONS.index("pushed"), REASONS.index("expired")

EVENT_STATES: Final = f"""
with judged as (
    select account_id, id, state, reason, expires_at, finished_at, first is not null as has_first,
        case
            when state not between 0 and {len(STATES) - 1} then 'state pending, complete, cancelled or suspended'
            when tag not between 0 and {len(TAGS) - 1} then 'tag usage, revenue or payout'
            when num_nulls(denomination, amount, cost, residue, balance_amount, balance_pending) not in (0, 6)
                then 'a charge in full, or none'
            when state = {PENDING} and expires_at is null then 'a time at which the hold ends'
            when state = {SUSPENDED} and (denomination is not null or expires_at is not null or finished_at is not null
                or reason is not null or prior -> 'asked' is null) then 'what it asks for, and nothing else: it waits'
            when state = {PENDING} and (finished_at is not null or reason is not null
                or first is not null and not was_aside) then 'no end: it is pending'
            when not was_aside and expires_at <> recorded_at + {HOLD_LIFE.total_seconds():.0f} * interval '1 second'
                then 'an end {HOLD_LIFE.total_seconds():.0f} seconds after it was recorded'
            when state = {COMPLETE} and reason is not null then 'no reason: it is complete'
            when state = {COMPLETE} and (finished_at is null) <> (expires_at is null and not was_aside)
                then 'finished_at set if and only if a hold was settled, or an event that was kept aside billed'
            when state = {CANCELLED} and (reason is null or reason not between 0 and {len(REASONS) - 1})
                then 'a reason why it is cancelled'
            when state = {CANCELLED} and finished_at is null then 'finished_at set: it is cancelled'
            when state = {CANCELLED} and (reason = {PUSHED}) <> (first is null)
                then 'as it stood before it was finished, unless it was pushed as cancelled'
            when state = {CANCELLED} and reason = {PUSHED} and denomination is not null
                then 'no charge: it was pushed as cancelled'
            when state = {CANCELLED} and reason = {EXPIRED} and finished_at is distinct from expires_at
                then 'finished when its hour was over'
            when state = {COMPLETE} and (first is null) <> (finished_at is null)
                then 'as it stood before it was finished, if and only if it was'
            when first is not null and not was_aside and ((first ->> 'state') = '{PENDING}') <> (expires_at is not null)
                then 'expires_at set if and only if it began as a hold'
        end as expected
    from event
    cross join lateral (
        select coalesce(first #>> '{{first,state}}', first ->> 'state', '') = '{SUSPENDED}') as x (was_aside)
)
select 'event', account_id, id, '', format('state %s, reason %s, expires_at %s, finished_at %s, first answer kept: %s',
    (array['complete', 'pending', 'cancelled', 'suspended'])[state + 1],
    coalesce((array['pushed', 'requested', 'expired', 'deleted'])[reason + 1], 'none'),
    coalesce(expires_at::text, 'none'), coalesce(finished_at::text, 'none'), has_first), expected
from judged where expected is not null
"""

KEYS: Final = f"""
select 'event', e.account_id, e.id, '', format('key %s', e.key), 'a key that no refused event of the account has'
from event e join gated_event g on g.account_id = e.account_id and g.key_digest = e.key_digest
union all
select 'event', account_id, id, '', format('key %s, digest %s', key, key_digest), 'a key with its digest, or neither'
from (select account_id, id, key, key_digest from event
    union all select account_id, id, key, key_digest from gated_event) as keyed
where (key is null) <> (key_digest is null) or octet_length(key_digest) <> {DIGEST_BYTES}
"""

KEYED: Final = """
select account_id, id, key, key_digest from event where key is not null and mod(id, $1::bigint) = $2::bigint
union all
select account_id, id, key, key_digest from gated_event where key is not null and mod(id, $1::bigint) = $2::bigint
"""

REFUSALS: Final = """
select 'account', a.id, 0::bigint, '', 'has_refusals false', 'true: it has refused events, and their keys'
from account a where not a.has_refusals and exists (select from gated_event g where g.account_id = a.id)
union all
select 'event', g.account_id, g.id, '', format('refused with %s', g.code), 'refused with a code of a 402'
from gated_event g where g.code <> all ($2::text[])
union all
select 'event', g.account_id, g.id, '', 'refused', 'refused or accepted, not both'
from gated_event g join event e on e.account_id = g.account_id and e.id = g.id
"""


# --- prices -----------------------------------------------------------------------------------------------------------

# Versions of prices, given by the audit, which can read their terms; account_id null: the company's.
VERSION: Final = """version as (
    select environment_id, account_id, id, price_id, type, denomination, is_plain, num::numeric as num,
        den::numeric as den
    from unnest($2::integer[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::boolean[],
        $9::text[], $10::text[])
        as v (environment_id, account_id, id, price_id, type, denomination, is_plain, num, den)
)"""
OF_CHARGE: Final = """v.environment_id = a.environment_id and v.id = c.price_version_id
        and (v.account_id is null or v.account_id = c.account_id)"""

PRICED: Final = f"""
with {CHARGE}, {SPILT}, {VERSION},
whole as (
    select c.account_id, c.event_id, c.denomination, c.type, c.quantity, c.cost, c.price_version_id, c.was_held,
        c.is_ended, case when s.event_id is null then c.num else c.num * s.den + s.num * c.den end as num,
        case when s.event_id is null then c.den else c.den * s.den end as den
    from charge c
    left join spilt s on s.account_id = c.account_id and s.event_id = c.event_id and s.denomination = c.denomination
    where c.overage is null
),
judged as (
    select c.account_id, c.event_id, c.denomination, c.type, c.quantity, c.cost, c.price_version_id,
        case
            when c.price_version_id is null then
                case when (mod(c.num, c.den) = 0) is not true then 'a whole cost: an override priced it' end
            when v.id is null then 'a price of its company'
            when v.denomination collate "C" <> c.denomination or v.type collate "C" <> c.type
                then format('a price for this, not for %s in %s', v.type, v.denomination)
            -- What a hold was settled at may have been said in whole units.
            when v.is_plain and (c.num * v.den = c.quantity * v.num * c.den
                or c.was_held and c.is_ended and mod(c.num, c.den) = 0) is not true
                then format('cost %s * %s/%s', c.quantity, v.num, v.den)
        end as expected
    from whole c
    join account a on a.id = c.account_id
    left join version v on {OF_CHARGE}
)
select 'event', account_id, event_id, denomination,
    format('%s of %s, cost %s %s, price version %s', quantity, type, cost, denomination, price_version_id), expected
from judged where expected is not null
"""

# What was not there to pay a charge, and its price. The units and prices that plans name are given by the audit.
OVERAGES: Final = f"""
with {CHARGE},
term as (
    select environment_id, account_id, version_id, denomination, into_denomination, num::numeric as num,
        den::numeric as den
    from unnest($2::integer[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[])
        as o (environment_id, account_id, version_id, denomination, into_denomination, num, den)
),
over as (
    select c.*, overage ->> 'denomination' as lacking, overage ->> 'units' as units, overage ->> 'unit' as unit,
        overage ->> 'version_id' as version_id,
        {numerator("overage ->> 'units'")} as units_num, {denominator("overage ->> 'units'")} as units_den,
        {numerator("overage ->> 'unit'")} as unit_num, {denominator("overage ->> 'unit'")} as unit_den
    from charge c where overage is not null
),
first as (
    select o.account_id, o.event_id, o.lacking from over o
    join charge c on c.account_id = o.account_id and c.event_id = o.event_id and c.overage is null
        and c.denomination = o.lacking collate "C"
),
judged as (
    select o.account_id, o.event_id, o.denomination, o.lacking, o.units, o.unit, o.cost,
        case
            when (o.units_num >= 0 and o.unit_num >= 0) is not true then 'units and a price that are exact fractions'
            when o.price_version_id is not null then 'no price of events: the plan priced it'
            when f.event_id is null then format('a charge of its event in %s', o.lacking)
            when (o.num * o.units_den * o.unit_den = o.units_num * o.unit_num * o.den) is not true
                then format('cost %s * %s', o.units, o.unit)
            when not exists (select from term t where t.environment_id = a.environment_id
                and (t.account_id is null or t.account_id = o.account_id) and t.version_id::text = o.version_id
                and t.denomination = o.lacking and t.into_denomination collate "C" = o.denomination
                and t.num * o.unit_den = o.unit_num * t.den)
                then format('a price that version %s of a plan has for it', o.version_id)
        end as expected
    from over o
    join account a on a.id = o.account_id
    left join first f on f.account_id = o.account_id and f.event_id = o.event_id and f.lacking = o.lacking
)
select 'event', account_id, event_id, denomination,
    format('%s %s: %s of %s at %s each', cost, denomination, units, lacking, unit), expected
from judged where expected is not null
"""

RATED: Final = f"""
with {CHARGE}, {SPILT}
select c.account_id, c.event_id, c.denomination, c.quantity::text, c.cost, s.units as spilt, c.prior::text, c.state,
    c.was_held and c.is_ended as is_settled, v.environment_id, v.account_id as owner_id, v.id
from charge c
join account a on a.id = c.account_id
join unnest($1::integer[], $2::bigint[], $3::bigint[]) as v (environment_id, account_id, id) on {OF_CHARGE}
left join spilt s on s.account_id = c.account_id and s.event_id = c.event_id and s.denomination = c.denomination
where mod(c.event_id, $4::bigint) = $5::bigint
"""

COUNTERS: Final = f"""
with {CHARGE}, {SPILT},
version as (
    select environment_id, null::bigint as account_id, id, price_id from event_price_version
    union all
    select a.environment_id, o.account_id, o.id, o.price_id from price_override o join account a on a.id = o.account_id
),
counted as (
    select c.account_id, v.price_id, c.prior ->> 'period' as period, k.kind, {denominator("k.part")} as den,
        sum({numerator("k.part")}) as num
    from charge c
    join account a on a.id = c.account_id
    join version v on {OF_CHARGE}
    left join spilt s on s.account_id = c.account_id and s.event_id = c.event_id and s.denomination = c.denomination
    cross join lateral (values ('units', c.prior ->> 'counted'), ('billed', c.cost), ('billed', s.units))
        as k (kind, part)
    where c.state <> {CANCELLED} and c.prior is not null and json_typeof(c.prior) = 'object' and k.part is not null
    group by c.account_id, v.price_id, c.prior ->> 'period', k.kind, {denominator("k.part")}
),
folded as (
    select account_id, price_id, period,
        array_agg(num::text || '/' || den::text) filter (where kind = 'units' and den is not null) as units,
        array_agg(num::text || '/' || den::text) filter (where kind = 'billed' and den is not null) as billed
    from counted group by account_id, price_id, period
)
select coalesce(f.account_id, p.account_id) as account_id, coalesce(f.price_id, p.price_id) as price_id,
    coalesce(f.period, p.period) as period, f.units as units_parts, f.billed as billed_parts, p.units, p.billed
from folded f
full join price_counter p on p.account_id = f.account_id and p.price_id = f.price_id and p.period = f.period
"""


# --- belonging and bounds ---------------------------------------------------------------------------------------------

TICKS: Final = """
with given as (
    select account_id, max(greatest(id, posting)) as id from event group by account_id
    union all select account_id, max(id) from transaction group by account_id
    union all select account_id, max(id) from gated_event group by account_id
    {more}
),
top as (select account_id, max(id) as id from given group by account_id)
select 'account', a.id, 0::bigint, '', format('tick %s', a.tick), format('at least %s, its largest id', t.id)
from account a join top t on t.account_id = a.id where a.tick < t.id
"""

OWNERS: Final = f"""
with {CHARGE}
select 'event', e.account_id, e.id, '', 'an event', 'an account that exists'
from event e left join account a on a.id = e.account_id where a.id is null
union all
select 'event', g.account_id, g.id, '', 'a refused event', 'an account that exists'
from gated_event g left join account a on a.id = g.account_id where a.id is null
union all
select 'balance', b.account_id, 0::bigint, b.denomination, 'a balance', 'an account that exists'
from balance b left join account a on a.id = b.account_id where a.id is null
union all
select 'transaction', t.account_id, t.id, t.denomination, format('a transaction of %s', t.denomination),
    'a balance that exists'
from transaction t left join balance b on b.account_id = t.account_id and b.denomination = t.denomination
where b.account_id is null
union all
select 'event', c.account_id, c.event_id, c.denomination, format('a charge in %s', c.denomination),
    'a balance that exists'
from charge c left join balance b on b.account_id = c.account_id and b.denomination = c.denomination
where b.account_id is null
union all
select 'event', c.account_id, c.event_id, c.denomination, format('a further charge in %s', c.denomination),
    'an event that exists, with its first charge in another denomination'
from event_charge c left join event e on e.account_id = c.account_id and e.id = c.event_id
where (e.denomination <> c.denomination or e.denomination is not null and c.prior -> 'overage' is not null) is not true
union all
select 'counter', c.account_id, c.price_id, c.period, 'a counter',
    'a price of its account or of its company'
from price_counter c left join account a on a.id = c.account_id
left join event_price p on p.environment_id = a.environment_id and p.id = c.price_id
where p.id is null and not exists (
    select from price_override o where o.account_id = c.account_id and o.price_id = c.price_id)
union all
select 'counter', c.account_id, c.price_id, c.period,
    format('highest value set by transaction %s', c.maximum_transaction_id), 'a transaction that exists'
from price_counter c left join transaction t on t.account_id = c.account_id and t.id = c.maximum_transaction_id
where c.maximum_transaction_id is not null and t.id is null
"""

ENVIRONMENTS: Final = """
select 'environment', v.company_id, v.id::bigint, case when v.live then 'live' else 'test' end,
    format('clock %s microseconds ahead', v.clock_offset),
    case when v.live then 'real time: 0' else 'a clock that is not behind' end
from environment v where v.clock_offset < 0 or v.live and v.clock_offset <> 0
union all
select 'account', a.id, 0::bigint, '', format('environment %s', a.environment_id), 'an environment that exists'
from account a left join environment v on v.id = a.environment_id where v.id is null
"""

BOUNDS: Final = f"""
with {CHARGE}
select 'balance', account_id, 0::bigint, denomination, format('amount %s, pending %s, residue %s/%s, credit limit %s',
    amount, pending, residue_num, residue_den, credit_limit), 'amounts within bounds, a residue from 0 up to below 1'
from balance
where (amount between -{BALANCE_MAX} and {BALANCE_MAX} and pending between 0 and {BALANCE_MAX}
    and coalesce(credit_limit, 0) between 0 and {AMOUNT_MAX}
    and residue_num >= 0 and residue_num < residue_den and residue_den < 'infinity'
    and residue_num = trunc(residue_num) and residue_den = trunc(residue_den)) is not true
union all
select 'transaction', account_id, id, denomination, format('amount %s, to %s', amount, ending_balance),
    'a balance within bounds'
from transaction where not (ending_balance between -{BALANCE_MAX} and {BALANCE_MAX})
union all
select 'event', account_id, event_id, denomination, format('%s amount %s, cost %s', denomination, amount, cost),
    'an amount from 0 to {AMOUNT_MAX}'
from charge where (amount between 0 and {AMOUNT_MAX} and num >= 0 and num <= {AMOUNT_MAX} * den) is not true
union all
select 'event', account_id, id, '', format('quantity %s, cogs %s', quantity, cogs_amount),
    'a quantity above 0, cogs from 0 to {AMOUNT_MAX}'
from event where not (quantity > 0 and quantity < 'infinity' and coalesce(cogs_amount, 0) between 0 and {AMOUNT_MAX})
union all
select 'account', id, 0::bigint, '', format('credit limit %s', credit_limit), 'a limit from 0 to {AMOUNT_MAX}'
from account where credit_limit not between 0 and {AMOUNT_MAX}
"""

SPELLINGS: Final = f"""
with {CHARGE},
charged as (select *, {numerator("residue")} as rest, {denominator("residue")} as whole from charge)
select 'event', account_id, event_id, denomination, format('%s cost %s, residue %s', denomination, cost, residue),
    'exact fractions, the residue from 0 up to below 1'
from charged where (num is not null and rest >= 0 and rest < whole) is not true
union all
select 'transaction', account_id, id, denomination, format('unit cost %s', unit_cost), 'an exact fraction'
from transaction where unit_cost !~ {FRACTION}
union all
select 'counter', account_id, price_id, period, format('units %s, billed %s', units, billed),
    'exact fractions'
from price_counter where units !~ {FRACTION} or billed !~ {FRACTION}
"""

ANSWERS: Final = """
select 'answer', environment_id::bigint, 0::bigint, key, format('status %s', status),
    'an answer that was given, or nothing yet'
from stored_answer where (status is null) <> (body is null) or status not between 200 and 499
"""
