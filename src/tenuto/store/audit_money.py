"""What the audit asks about money: payments, refunds, refills, invoices and cards against each other and the books.

The problem, on one example. A deposit of 10 dollars succeeded, 4 went back, and an invoice was paid with the rest:

    row                                   what has to stand beside it
    payment: succeeded, 1000 units        one transaction of the book deposit, +1000, that names it
    payment.refunded 400                  refunds that succeeded and disputes that were not won: 400 in sum
    refund: succeeded, 400 units          one transaction of the book refund, -400, that names it
    invoice.amount_paid 600               its parts of payments: 600 in sum, of one payment at most its units

The statements give what those of ``audit_queries`` give. A movement and its cause are compared from both sides, so that
one that is missing, doubled, of another amount or of no cause is named.
"""

from __future__ import annotations

from typing import Final

from tenuto.core.invoice import NUMBER_DIGITS, UNBILLED_BOOKS
from tenuto.core.ledger import (
    ADJUSTMENT_BOOK,
    CREDIT_NOTE_BOOK,
    DEPOSIT_BOOK,
    DISPUTE_BOOK,
    DISPUTE_WON_BOOK,
    EXPIRY_BOOK,
    GRANT_BOOK,
    INVOICE_ITEM_BOOK,
    OVERAGE_BOOK,
    PAYMENT_BOOK,
    PLAN_BOOK,
    PRORATION_BOOK,
    REFILL_BOOK,
    REFUND_BOOK,
    REFUND_CREDIT_BOOK,
    REFUND_FAILED_BOOK,
    TAX_BOOK,
    USAGE_BOOK,
    VOID_BOOK,
)
from tenuto.core.money import AMOUNT_MAX
from tenuto.core.payment import FOR_PLANS, OPEN

from .audit_queries import FRACTION, denominator, numerator
from .database import Reader, Record

COUNTS: Final = """
select (select count(*) from payment_method) as cards,
    (select count(*) from payment) as payments,
    (select count(*) from refund) as refunds,
    (select count(*) from refill) as refills,
    (select count(*) from invoice) as invoices,
    (select count(*) from invoice_line) as invoice_lines,
    (select count(*) from credit_note) as credit_notes
"""


def listed(words: tuple[str, ...] | frozenset[str]) -> str:
    """SQL: words as a list to compare with."""
    return ", ".join(f"'{word}'" for word in sorted(words))


_OPEN: Final = listed(OPEN)
_PAYMENT_BOOKS: Final = (DEPOSIT_BOOK, REFILL_BOOK, PAYMENT_BOOK)
_REFUND_BOOKS: Final = (REFUND_BOOK, REFUND_CREDIT_BOOK, REFUND_FAILED_BOOK, DISPUTE_BOOK, DISPUTE_WON_BOOK)
_INVOICE_BOOKS: Final = (TAX_BOOK, VOID_BOOK, INVOICE_ITEM_BOOK)
_BOOK: Final = f"""case when p.reason = 'deposit' then '{DEPOSIT_BOOK}'
    when p.reason in ('invoice', 'plan_end', {listed(FOR_PLANS)}) then '{PAYMENT_BOOK}' else '{REFILL_BOOK}' end"""


def posted(*books: str) -> str:
    """SQL: the CTE of what causes have moved in some books; a cause moves a balance once a book."""
    return f"""posted as (
    select account_id, cause_id, denomination, book, sum(amount) as amount, count(*) as moves from transaction
    where cause_id is not null and book in ({listed(books)}) group by account_id, cause_id, denomination, book
)"""


def compared(kind: str, table: str) -> str:
    """SQL: what ``expected`` says against ``posted``; movements whose cause is not in ``table`` are left to CAUSES."""
    return f"""
select '{kind}', c.account_id, c.id, m.denomination,
    format('%s transactions of book %s, %s %s in sum', m.moves, m.book, m.posted, m.denomination),
    case when m.expected = 0 then 'none' else format('one of %s %s', m.expected, m.denomination) end
from (
    select coalesce(e.account_id, t.account_id) as account_id, coalesce(e.cause_id, t.cause_id) as cause_id,
        coalesce(e.denomination, t.denomination) as denomination, coalesce(e.book, t.book) as book,
        coalesce(e.amount, 0) as expected, coalesce(t.amount, 0) as posted, coalesce(t.moves, 0) as moves
    from expected e
    full join posted t on t.account_id = e.account_id and t.cause_id = e.cause_id
        and t.denomination = e.denomination and t.book = e.book
) as m
join {table} c on c.account_id = m.account_id and c.id = m.cause_id
where m.expected <> m.posted or m.moves <> 1
"""


# --- payments and refunds ---------------------------------------------------------------------------------------------

PAYMENTS: Final = f"""
with expected as (
    select p.account_id, p.id as cause_id, p.denomination, {_BOOK} as book, p.units as amount
    from payment p where p.status = 'succeeded' and p.units <> 0
    union all
    select p.account_id, p.id, p.currency, {_BOOK}, -p.amount
    from payment p where p.status = 'succeeded' and p.method = 'balance' and p.amount <> 0
    union all
    select p.account_id, p.id, p.denomination, '{EXPIRY_BOOK}', -coalesce((p.settings ->> 'cancelled')::bigint, 0)
    from payment p where p.status = 'succeeded' and (p.settings ->> 'cancelled')::bigint <> 0
),
{posted(*_PAYMENT_BOOKS, EXPIRY_BOOK)}
{compared("payment", "payment")}
"""

# One attempt more than is counted stays where a confirmation never arrived: nobody knew, so it has no outcome.
PAYMENT_STATES: Final = f"""
with attempt as (
    select account_id, payment_id, count(*) as rows, max(number) as last,
        count(*) filter (where outcome is null) as unknown
    from payment_attempt group by account_id, payment_id
),
judged as (
    select p.account_id, p.id, p.method, p.reason, p.status, p.finished_at, p.next_attempt_at, p.attempts,
        coalesce(a.rows, 0) as rows,
        case
            when p.status not in ({_OPEN}, 'succeeded', 'failed', 'skipped', 'voided') then 'a status that there is'
            when p.method not in ('card', 'balance', 'out_of_band') then 'a method that there is'
            when p.reason not in ('deposit', 'refill', 'threshold_refill', 'refill_start', 'invoice',
                'plan_end', {listed(FOR_PLANS)}) then 'a reason that there is'
            when p.status in ('succeeded', 'failed', 'voided') and p.finished_at is null
                then 'finished_at set: it has ended'
            when p.status in ({_OPEN}, 'skipped') and p.finished_at is not null then 'no finished_at: it has not ended'
            when p.status in ({_OPEN}) and p.next_attempt_at is null then 'next_attempt_at set: something is to be done'
            when p.status not in ({_OPEN}) and p.next_attempt_at is not null
                then 'no next_attempt_at: nothing is to be done by itself'
            when p.method = 'card' and p.status in ('created', 'confirming', 'processing', 'voiding', 'succeeded')
                and p.intent_id is null then 'the intent that it is about'
            when p.method <> 'card' and p.status <> 'succeeded' then 'succeeded: nobody had to be asked'
            when coalesce(a.last, 0) <> coalesce(a.rows, 0) then 'attempts that are numbered without a gap'
            when p.attempts <> coalesce(a.rows, 0)
                and (p.attempts + 1 = a.rows and a.unknown > 0) is not true then 'as many attempts as are counted'
        end as expected
    from payment p left join attempt a on a.account_id = p.account_id and a.payment_id = p.id
)
select 'payment', account_id, id, '',
    format('%s %s for %s, finished_at %s, next_attempt_at %s, attempts %s, %s of them kept', status, method, reason,
        coalesce(finished_at::text, 'none'), coalesce(next_attempt_at::text, 'none'), attempts, rows), expected
from judged where expected is not null
"""

RETURNED: Final = """
with back as (
    select account_id, payment_id, sum(amount) filter (where status = 'succeeded') as amount,
        sum(units) filter (where status = 'succeeded') as units,
        sum(amount) filter (where kind = 'refund' and status <> 'failed') as asked
    from refund group by account_id, payment_id
)
select 'payment', p.account_id, p.id, '',
    format('amount %s, refunded %s, units returned %s of %s, refunds asked for %s', p.amount, p.refunded,
        p.units_returned, p.units, coalesce(b.asked, 0)),
    case when p.refunded <> coalesce(b.amount, 0) or p.units_returned <> coalesce(b.units, 0)
        then format('refunded %s, units returned %s, the sums of what went back', coalesce(b.amount, 0),
            coalesce(b.units, 0))
        when p.status <> 'succeeded' then 'nothing given back of what never came'
        else 'at most what was paid' end
from payment p left join back b on b.account_id = p.account_id and b.payment_id = p.id
where p.refunded <> coalesce(b.amount, 0) or p.units_returned <> coalesce(b.units, 0)
    or not (p.refunded between 0 and p.amount) or not (p.units_returned between 0 and p.units)
    or coalesce(b.asked, 0) > p.amount or p.status <> 'succeeded' and b.asked > 0
"""

_UNDONE: Final = "r.status = 'failed' and r.code in ('dispute_won', 'refund_failed', 'refund_canceled')"
"""Money that had gone back and came again."""

REFUNDS: Final = f"""
with returned as (
    select r.account_id, r.id as cause_id, p.denomination, r.kind, r.units, r.credited,
        r.status = 'failed' as is_undone
    from refund r join payment p on p.account_id = r.account_id and p.id = r.payment_id
    where r.units <> 0 and (r.status = 'succeeded' or {_UNDONE})
),
expected as (
    select account_id, cause_id, denomination,
        case kind when 'dispute' then '{DISPUTE_BOOK}' else '{REFUND_BOOK}' end as book, -units as amount from returned
    union all
    select account_id, cause_id, denomination, '{REFUND_CREDIT_BOOK}', credited from returned where credited <> 0
    union all
    select account_id, cause_id, denomination,
        case kind when 'dispute' then '{DISPUTE_WON_BOOK}' else '{REFUND_FAILED_BOOK}' end, units - credited
    from returned where is_undone and units > credited
),
{posted(*_REFUND_BOOKS)}
{compared("refund", "refund")}
union all
select 'refund', account_id, id, '',
    format('%s %s, code %s, finished_at %s, next_attempt_at %s', kind, status, coalesce(code, 'none'),
        coalesce(finished_at::text, 'none'), coalesce(next_attempt_at::text, 'none')),
    'intended with a next_attempt_at, or succeeded or failed with a finished_at; a dispute succeeded, or won'
from refund r
where (kind in ('refund', 'dispute') and case status
    when 'intended' then kind = 'refund' and finished_at is null and next_attempt_at is not null
    when 'succeeded' then finished_at is not null and next_attempt_at is null
    when 'failed' then finished_at is not null and next_attempt_at is null
        and (kind = 'refund' or {_UNDONE})
    else false end) is not true
"""

# Units that end by themselves, or are taken back, name no more than their own transaction; ``grant_moves`` holds them.
CAUSES: Final = f"""
with cause as (
    select account_id, id, 'payment' as kind from payment
    union all select account_id, id, 'refund' from refund
    union all select account_id, id, 'credit note' from credit_note
    union all select account_id, id, 'invoice' from invoice
    union all select account_id, id, 'step' from subscription_step
    union all select account_id, id, 'grant' from balance_grant where source = 'manual'
),
named as (
    select account_id, id, denomination, book, cause_id,
        case when book in ({listed(_PAYMENT_BOOKS)}) then array['payment']
            when book in ({listed(_REFUND_BOOKS)}) then array['refund']
            when book = '{CREDIT_NOTE_BOOK}' then array['credit note']
            when book in ({listed(_INVOICE_BOOKS)}) then array['invoice']
            when book = '{PLAN_BOOK}' then array['step']
            when book = '{GRANT_BOOK}' then array['step', 'grant']
            when book in ('{PRORATION_BOOK}', '{EXPIRY_BOOK}') then array['step', 'payment']
        end as kinds
    from transaction where book not in ('{USAGE_BOOK}', '{ADJUSTMENT_BOOK}') or cause_id is not null
)
select 'transaction', t.account_id, t.id, t.denomination,
    format('book %s, cause %s', t.book, coalesce(t.cause_id::text, 'none')),
    case when t.kinds is null then 'no cause: this book has none'
        else format('a %s of its account', array_to_string(t.kinds, ' or a ')) end
from named t left join cause c on c.account_id = t.account_id and c.id = t.cause_id and c.kind = any(t.kinds)
where t.kinds is null and t.cause_id is not null
    or t.kinds is not null and c.id is null and (t.book = '{EXPIRY_BOOK}' and t.cause_id = t.id) is not true
"""


# --- refills ----------------------------------------------------------------------------------------------------------

REFILLS: Final = f"""
with judged as (
    select r.account_id, r.denomination, r.payment_id, p.status, r.is_monthly, r.next_at, r.parked_at, r.parked_code,
        case
            when r.payment_id is not null and (p.denomination = r.denomination and p.reason in ('refill',
                'threshold_refill') and p.status in ({_OPEN}, 'skipped')) is not true
                then 'a refill of this balance that is open or was skipped'
            when r.is_monthly <> (r.next_at is not null) or r.is_monthly <> (r.anchor_at is not null)
                or r.is_monthly and r.number < 1 then 'a first and a next date if and only if it is monthly'
            when (r.parked_at is null) <> (r.parked_code is null) or r.parked_code = ''
                then 'parked with the code of what kept it, or neither'
            when r.parked_at is not null and r.payment_id is not null then 'no open payment: it is parked'
            when r.source not in ('card', 'balance') then 'a source that there is'
            when not r.is_monthly and r.threshold is null then 'a date or a threshold that says when'
        end as expected
    from refill r left join payment p on p.account_id = r.account_id and p.id = r.payment_id
),
open as (
    select account_id, id, slot, count(*) over (partition by account_id, slot) as payments
    from payment
    where slot is not null and status in ('intended', 'created', 'confirming', 'processing', 'voiding')
),
dated as (
    select account_id, id, denomination, period_at,
        count(*) over (partition by account_id, denomination, period_at) as payments
    from payment where period_at is not null
)
select 'refill', account_id, 0::bigint, denomination,
    format('payment %s %s, monthly %s, next %s, parked %s %s', coalesce(payment_id::text, 'none'),
        coalesce(status, ''), is_monthly, coalesce(next_at::text, 'none'), coalesce(parked_at::text, 'never'),
        coalesce(parked_code, '')), expected
from judged where expected is not null
union all
select 'payment', account_id, id, slot, format('%s open payments for %s', payments, slot), 'one at a time'
from open where payments > 1
union all
select 'payment', account_id, id, denomination, format('%s payments for %s', payments, period_at), 'one for a date'
from dated where payments > 1
"""

# For Python: dates are counted in the zone that the company has now; `is_moved` says that it may have had another.
REFILL_DATES: Final = """
select r.account_id, r.denomination, r.anchor_at, r.number, r.next_at, v.zone,
    v.updated_at + v.clock_offset * interval '1 microsecond' > r.updated_at as is_moved
from refill r join environment v on v.id = r.environment_id
where r.is_monthly and r.anchor_at is not null and r.next_at is not null and mod(r.account_id, $1::bigint) = $2::bigint
"""


# --- invoices ---------------------------------------------------------------------------------------------------------

INVOICES: Final = """
with lined as (
    select account_id, invoice_id, sum(amount) as amount from invoice_line group by account_id, invoice_id
),
taxed as (
    select account_id, invoice_id, coalesce(sum(amount) filter (where not is_inclusive), 0) as added,
        coalesce(sum(amount) filter (where is_inclusive), 0) as included
    from invoice_tax group by account_id, invoice_id
),
paid as (
    select account_id, invoice_id, sum(amount) as amount from invoice_payment group by account_id, invoice_id
),
noted as (
    select account_id, invoice_id, sum(amount) as amount from credit_note group by account_id, invoice_id
),
summed as (
    select i.*, i.amount_due - i.amount_paid - i.amount_credited as remaining, coalesce(l.amount, 0) as lines,
        coalesce(t.added, 0) as added, coalesce(t.included, 0) as included, coalesce(p.amount, 0) as paid,
        coalesce(n.amount, 0) as noted
    from invoice i
    left join lined l on l.account_id = i.account_id and l.invoice_id = i.id
    left join taxed t on t.account_id = i.account_id and t.invoice_id = i.id
    left join paid p on p.account_id = i.account_id and p.invoice_id = i.id
    left join noted n on n.account_id = i.account_id and n.invoice_id = i.id
),
judged as (
    select *,
        case
            when status not in ('draft', 'open', 'paid', 'void', 'uncollectible') then 'a status that there is'
            when subtotal <> lines then format('subtotal %s, the sum of its lines', lines)
            when tax <> added then format('tax %s, the sum of its taxes on top', added)
            when tax_included <> included then format('tax_included %s, the sum of its taxes inside', included)
            when total <> subtotal + tax then format('total %s, subtotal and tax', subtotal + tax)
            when amount_due <> total - applied then format('amount_due %s, the total less what is applied',
                total - applied)
            when applied < 0 or amount_due < 0 then 'no more applied than the total'
            when amount_paid <> paid then format('amount_paid %s, what payments gave', paid)
            when noted > total then format('credit notes of at most %s, its total', total)
            -- What a note is beyond what remained when it came stays on the balance.
            when amount_credited < 0 or amount_credited > noted or amount_credited <> noted and status <> 'paid'
                then format('amount_credited %s, the sum of its credit notes', noted)
            when remaining < 0 then 'no less than nothing that remains'
            when status = 'paid' and remaining <> 0 then format('nothing that remains, not %s', remaining)
            when status in ('open', 'uncollectible') and remaining = 0 then 'something that remains'
            when status in ('draft', 'void') and amount_paid <> 0 then 'nothing paid'
            when (status = 'draft') <> (number is null) or (status = 'draft') <> (finalized_at is null)
                then 'a number and finalized_at if and only if it is final'
            when (status = 'paid') <> (paid_at is not null) then 'paid_at if and only if it is paid'
            when (status = 'void') <> (voided_at is not null) then 'voided_at if and only if it is void'
            when status <> 'open' and (next_dunning_at is not null or next_collection_at is not null)
                then 'nothing asked for any more: it is not open'
        end as expected
    from summed
)
select 'invoice', account_id, id, currency,
    format('%s %s: subtotal %s, tax %s, total %s, applied %s, due %s, paid %s, credited %s', status, number, subtotal,
        tax, total, applied, amount_due, amount_paid, amount_credited), expected
from judged where expected is not null
"""

# Largest remainders leave a line within a unit of its exact cost. A hold that was settled and then taken back may no
# longer say when it was settled: each such event of the account may shift less than a unit more (decision 0016).
LINES: Final = f"""
with vague as (
    select account_id, count(*) as events from event where state = 2 and reason = 3 and expires_at is not null
    group by account_id
),
part as (
    select l.*, row_number() over (partition by l.account_id, l.invoice_id order by l.position) as place,
        l.kind in ('usage', 'reversal') as is_usage, {numerator("l.exact")} as num, {denominator("l.exact")} as den,
        coalesce(v.events, 0) as shifts
    from invoice_line l left join vague v on v.account_id = l.account_id
)
select 'line', account_id, invoice_id, position::text,
    format('line %s, %s of %s, exactly %s, %s events', position, kind, amount, coalesce(exact, 'none'), event_count),
    case when position <> place then format('position %s', place)
        when not is_usage and (exact is not null or event_count <> 0) then 'no events: it is no usage'
        when event_count < 0 then 'no fewer events than none'
        else 'an amount within one unit of its exact cost' end
from part
where position <> place or not is_usage and (exact is not null or event_count <> 0) or event_count < 0
    or exact is not null and (abs(amount * den - num) <= den * (1 + shifts)) is not true
"""

# Half up to the unit of subtotal * rate / 100; of rates inside the prices / (100 + all of them) (decision 0018).
TAXES: Final = """
with rated as (
    select t.account_id, t.invoice_id, t.position, t.name, t.rate, t.is_inclusive, t.amount,
        greatest(i.subtotal, 0) as subtotal,
        case when t.rate ~ '^[0-9]+([.][0-9]+)?$' then t.rate::numeric end as percent,
        bool_or(t.rate = '') over w as is_given
    from invoice_tax t join invoice i on i.account_id = t.account_id and i.id = t.invoice_id
    window w as (partition by t.account_id, t.invoice_id)
),
shared as (
    select *, 100 + case when is_inclusive then sum(percent) filter (where is_inclusive) over w else 0 end as whole
    from rated window w as (partition by account_id, invoice_id)
)
select 'tax', account_id, invoice_id, position::text, format('%s %s%%, %s', name, rate, amount),
    case when percent is null then 'a rate in percent'
        else format('%s, of %s', div(2 * subtotal * percent + whole, 2 * whole), subtotal) end
from shared where not is_given and (amount = div(2 * subtotal * percent + whole, 2 * whole)) is not true
"""

_FINAL: Final = "i.status <> 'draft'"

INVOICE_MOVES: Final = f"""
with expected as (
    select i.account_id, i.id as cause_id, i.currency as denomination, '{TAX_BOOK}' as book, -i.tax as amount
    from invoice i where {_FINAL} and i.tax <> 0
    union all
    select i.account_id, i.id, i.currency, '{VOID_BOOK}', i.amount_due - i.amount_paid - i.amount_credited
    from invoice i where i.status = 'void'
    union all
    select i.account_id, i.id, i.currency, '{INVOICE_ITEM_BOOK}', -l.amount
    from invoice i join (
        select account_id, invoice_id, sum(amount) as amount from invoice_line where kind = 'manual'
        group by account_id, invoice_id
    ) as l on l.account_id = i.account_id and l.invoice_id = i.id
    where {_FINAL} and l.amount <> 0
),
{posted(*_INVOICE_BOOKS)}
{compared("invoice", "invoice")}
"""

CREDIT_NOTES: Final = f"""
with expected as (
    select n.account_id, n.id as cause_id, i.currency as denomination, '{CREDIT_NOTE_BOOK}' as book, n.amount
    from credit_note n join invoice i on i.account_id = n.account_id and i.id = n.invoice_id
),
{posted(CREDIT_NOTE_BOOK)}
{compared("credit note", "credit_note")}
"""

BILLED: Final = f"""
with moved as (
    select i.account_id, i.id, case t.book when '{OVERAGE_BOOK}' then '{USAGE_BOOK}' else t.book end as book,
        -sum(t.amount) as amount
    from invoice i
    join transaction t on t.account_id = i.account_id and t.denomination = i.currency
        and t.id > i.tick_from and t.id <= i.tick_to
    where t.book not in ({listed(UNBILLED_BOOKS)}) and not (t.book = '{REFILL_BOOK}' and t.amount > 0)
    group by i.account_id, i.id, 3
),
lined as (
    select account_id, invoice_id as id,
        case when kind in ('usage', 'reversal') then '{USAGE_BOOK}' else kind end as book,
        sum(amount) as amount
    from invoice_line where kind <> 'manual' group by account_id, invoice_id, 3
)
select 'invoice', coalesce(m.account_id, l.account_id), coalesce(m.id, l.id), coalesce(m.book, l.book),
    format('lines of %s: %s', coalesce(m.book, l.book), coalesce(l.amount, 0)),
    format('%s, what was posted in its range', coalesce(m.amount, 0))
from moved m full join lined l on l.account_id = m.account_id and l.id = m.id and l.book = m.book
where coalesce(m.amount, 0) <> coalesce(l.amount, 0)
"""

# Terms that have cut nothing yet may begin after what others of the same account ended with.
RANGES: Final = """
with ordered as (
    select account_id, id, currency, tick_from, tick_to,
        lag(tick_to) over (partition by account_id, currency order by tick_from, tick_to, id) as last_to
    from invoice
),
ended as (select account_id, currency, max(tick_to) as tick from invoice group by account_id, currency)
select 'invoice', account_id, id, currency, format('posted from %s to %s', tick_from, tick_to),
    case when tick_from < last_to then format('from %s on, where the one before ended', last_to)
        when tick_from > tick_to then 'an end that is not before its start'
        else 'an end before its own id' end
from ordered where tick_from < last_to or tick_from > tick_to or tick_to >= id
union all
select 'terms', t.account_id, 0::bigint, t.currency, format('invoiced up to %s, %s times', t.invoiced_tick, t.number),
    format('up to %s, where its last invoice ends', coalesce(e.tick::text, 'nothing'))
from invoice_terms t left join ended e on e.account_id = t.account_id and e.currency = t.currency
where t.number < 0 or t.invoiced_tick < e.tick or t.number > 0 and e.tick is distinct from t.invoiced_tick
"""

_NUMBERED: Final = f"right(substring(n.number from '[0-9]+$'), greatest({NUMBER_DIGITS}, length(s.last_number::text)))"

NUMBERS: Final = f"""
with numbered as (
    select account_id, id, environment_id, number, 'invoice' as series from invoice where number is not null
    union all select account_id, id, environment_id, number, 'credit_note' from credit_note
),
told as (
    select n.*, {_NUMBERED}::bigint as place, s.last_number,
        count(*) over (partition by n.environment_id, n.series, {_NUMBERED}::bigint) as twins
    from numbered n left join number_series s on s.environment_id = n.environment_id and s.name = n.series
),
kept as (
    select environment_id, series, count(distinct place) as numbers, max(place) as highest from told
    group by environment_id, series
)
select replace(series, '_', ' '), account_id, id, number, format('number %s', number),
    case when twins > 1 then 'a number that no other one has'
        else format('a number from 1 to %s', coalesce(last_number, 0)) end
from told where twins > 1 or (place between 1 and last_number) is not true
union all
select 'environment', coalesce(v.company_id, 0), v.id::bigint,
    concat(case when v.live then 'live' else 'test' end, ', numbers of ', coalesce(s.name, k.series)),
    format('%s numbers up to %s', coalesce(k.numbers, 0), coalesce(k.highest, 0)),
    format('every number from 1 to %s', coalesce(s.last_number, 0))
from number_series s full join kept k on k.environment_id = s.environment_id and k.series = s.name
left join environment v on v.id = coalesce(s.environment_id, k.environment_id)
where coalesce(s.name, k.series) <> 'notification'
    and (coalesce(s.last_number, 0) <> coalesce(k.numbers, 0) or coalesce(s.last_number, 0) <> coalesce(k.highest, 0))
"""

SETTLEMENTS: Final = """
with given as (
    select account_id, payment_id, sum(amount) as amount from invoice_payment group by account_id, payment_id
)
select 'payment', g.account_id, g.payment_id, '',
    format('invoices paid with %s of %s units, %s', g.amount, p.units, coalesce(p.status, 'which is not there')),
    case when p.status = 'succeeded' then 'at most its units' else 'a payment that succeeded' end
from given g left join payment p on p.account_id = g.account_id and p.id = g.payment_id
where (p.status = 'succeeded' and g.amount <= p.units) is not true
union all
select 'invoice', s.account_id, s.invoice_id, p.denomination,
    format('paid with %s %s, %s %s', s.amount, p.denomination, i.status, i.currency), 'final, and paid in its currency'
from invoice_payment s
join payment p on p.account_id = s.account_id and p.id = s.payment_id
left join invoice i on i.account_id = s.account_id and i.id = s.invoice_id
where (s.amount > 0 and i.currency = p.denomination and i.status in ('open', 'paid', 'uncollectible')) is not true
"""


# --- cards, pauses, secrets -------------------------------------------------------------------------------------------

CARDS: Final = """
with kept as (
    select account_id, count(*) as cards, count(*) filter (where is_default) as defaults from payment_method
    where removed_at is null group by account_id
)
select 'account', account_id, 0::bigint, '', format('%s cards, %s of them the default', cards, defaults), 'one default'
from kept where defaults <> 1
union all
select 'card', account_id, id, '', 'a default that was removed', 'no default: it was removed'
from payment_method where is_default and removed_at is not null
"""

PAUSES: Final = """
select 'account', id, 0::bigint, '',
    format('paused %s by %s, credit blocked %s by %s', coalesce(paused_at::text, 'never'),
        coalesce(paused_by, 'nobody'), coalesce(credit_blocked_at::text, 'never'),
        coalesce(credit_blocked_by, 'nobody')),
    'since when and by whom (manual, dunning or plan), or neither'
from account
where (paused_at is null) <> (paused_by is null) or paused_by not in ('manual', 'dunning', 'plan')
    or (credit_blocked_at is null) <> (credit_blocked_by is null)
    or credit_blocked_by not in ('manual', 'dunning', 'level')
"""

SECRETS: Final = r"""
select 'environment', company_id, id::bigint, case when live then 'live' else 'test' end,
    format('%s of %s bytes', name, octet_length(secret)), 'sealed by this version'
from environment
cross join lateral (values ('stripe_key', stripe_key), ('stripe_webhook_secret', stripe_webhook_secret))
    as sealed (name, secret)
where secret is not null and (substring(secret from 1 for 1) <> '\x01' or octet_length(secret) <= 29)
union all
select 'environment', company_id, id::bigint, case when live then 'live' else 'test' end,
    format('the hint %s', coalesce(stripe_key_hint, 'none')), 'a hint if and only if there is a key'
from environment where (stripe_key is null) <> (stripe_key_hint is null)
"""


# --- what is added to the checks of all rows --------------------------------------------------------------------------

GIVEN: Final = """
    union all select account_id, max(id) from payment group by account_id
    union all select account_id, max(id) from refund group by account_id
    union all select account_id, max(id) from invoice group by account_id
    union all select account_id, max(id) from credit_note group by account_id
    union all select account_id, max(id) from payment_method group by account_id
    union all select account_id, max(id) from payment_link group by account_id
    union all select account_id, max(invoiced_tick) from invoice_terms group by account_id
"""
"""Ids of accounts, for ``audit_queries.TICKS``."""

_HALVES: Final = " union all ".join(
    f"select '{kind}' as kind, account_id, {number} as number, {word} as word, environment_id from {table}"
    for kind, table, number, word in (
        ("payment", "payment", "id", "''"),
        ("refund", "refund", "id", "''"),
        ("refill", "refill", "0::bigint", "denomination"),
        ("terms", "invoice_terms", "0::bigint", "currency"),
        ("invoice", "invoice", "id", "''"),
        ("credit note", "credit_note", "id", "''"),
        ("link", "payment_link", "id", "''"),
    )
)


def orphans(kind: str, table: str, owner: str, column: str, *, number: str = "id") -> str:
    """SQL: rows of a table that name an ``owner`` of their account that is not there."""
    return f"""
union all
select '{kind}', x.account_id, x.{number}, '', format('{owner.replace("_", " ")} %s', x.{column}), 'one that exists'
from {table} x left join {owner} o on o.account_id = x.account_id and o.id = x.{column}
where x.{column} is not null and o.id is null"""


OWNERS: Final = f"""
union all
select h.kind, h.account_id, h.number, h.word, format('environment %s', h.environment_id),
    case when a.id is null then 'an account that exists' else format('environment %s, as its account', a.environment_id)
    end
from ({_HALVES}) as h left join account a on a.id = h.account_id
where a.environment_id is distinct from h.environment_id
union all
select 'card', m.account_id, m.id, '', 'a card', 'an account that exists'
from payment_method m left join account a on a.id = m.account_id where a.id is null
union all
select 'refill', r.account_id, 0::bigint, r.denomination, 'a refill', 'a balance that exists'
from refill r left join balance b on b.account_id = r.account_id and b.denomination = r.denomination
where b.account_id is null
""" + "".join(
    (
        orphans("payment", "payment", "payment_method", "card_id"),
        orphans("payment", "payment_attempt", "payment", "payment_id", number="payment_id"),
        orphans("payment", "payment_attempt", "payment_method", "card_id", number="payment_id"),
        orphans("refund", "refund", "payment", "payment_id"),
        orphans("invoice", "invoice_line", "invoice", "invoice_id", number="invoice_id"),
        orphans("invoice", "invoice_tax", "invoice", "invoice_id", number="invoice_id"),
        orphans("invoice", "invoice_payment", "invoice", "invoice_id", number="invoice_id"),
        orphans("credit note", "credit_note", "invoice", "invoice_id"),
        orphans("credit note", "credit_note", "refund", "refund_id"),
        orphans("link", "payment_link", "invoice", "invoice_id"),
    )
)
"""Rows of money whose owner is not there, for ``audit_queries.OWNERS``."""

ENVIRONMENTS: Final = """
union all
select 'message', g.environment_id::bigint, 0::bigint, g.id, format('environment %s', g.environment_id),
    'an environment that exists'
from gateway_event g left join environment v on v.id = g.environment_id where v.id is null
union all
select 'series', s.environment_id::bigint, 0::bigint, s.name, format('environment %s', s.environment_id),
    'an environment that exists'
from number_series s left join environment v on v.id = s.environment_id where v.id is null
"""

BOUNDS: Final = f"""
union all
select 'payment', account_id, id, '', format('amount %s, units %s', amount, units), 'amounts from 0 to {AMOUNT_MAX}'
from payment where not (amount between 0 and {AMOUNT_MAX} and units between 0 and {AMOUNT_MAX})
union all
select 'refund', account_id, id, '', format('amount %s, units %s', amount, units),
    'an amount from 1, units from 0, to {AMOUNT_MAX}'
from refund where not (amount between 1 and {AMOUNT_MAX} and units between 0 and {AMOUNT_MAX})
union all
select 'refill', account_id, 0::bigint, denomination,
    format('amount %s for %s, threshold %s', amount, charge_amount, threshold),
    'an amount from 1, a charge and a threshold from 0, to {AMOUNT_MAX}'
from refill where not (amount between 1 and {AMOUNT_MAX} and charge_amount between 0 and {AMOUNT_MAX}
    and coalesce(threshold, 0) between 0 and {AMOUNT_MAX})
union all
select 'credit note', account_id, id, '', format('amount %s', amount), 'an amount from 1 to {AMOUNT_MAX}'
from credit_note where not (amount between 1 and {AMOUNT_MAX})
"""

SPELLINGS: Final = f"""
union all
select 'line', account_id, invoice_id, position::text, format('exactly %s', exact), 'an exact fraction'
from invoice_line where exact !~ {FRACTION}
"""


# --- what the provider is compared with -------------------------------------------------------------------------------


_CARD_PAYMENT: Final = """
select account_id, id, environment_id, status, amount, currency, intent_id, next_attempt_at from payment
"""


async def card_payments(reader: Reader, environment_id: int) -> list[Record]:
    """Every payment of a company's half that a card has paid or is to pay, oldest first."""
    return await reader.fetch(
        f"{_CARD_PAYMENT} where environment_id = $1 and method = 'card' order by id", environment_id
    )


async def card_payment(reader: Reader, account_id: int, payment_id: int) -> Record | None:
    """One of them, as it is now."""
    return await reader.fetchrow(
        f"{_CARD_PAYMENT} where account_id = $1 and id = $2 and method = 'card'", account_id, payment_id
    )


async def environments(reader: Reader) -> list[Record]:
    """Every company's half that has card payments or a key of its own, with when it began.

    ``oldest`` is the id of its oldest card payment, which is microseconds of real time; null where there is none.
    """
    return await reader.fetch(
        "select v.id, v.company_id, v.live, v.created_at, min(p.id) as oldest from environment v"
        " left join payment p on p.environment_id = v.id and p.method = 'card' group by v.id"
        " having count(p.id) > 0 or v.stripe_key is not null order by v.id"
    )
