"""Invoices with their lines, taxes, payments and credit notes; the terms they are cut by; what of them is owed.

Whoever changes any of it holds its account's row lock. Ids are ticks of the account, so a range of ticks is a set of
transactions and postings that never changes again: that is what an invoice is cut by (decision 0016).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec

from tenuto.core.event import Event
from tenuto.core.invoice import (
    COLLECT_AGAIN,
    UNBILLED_BOOKS,
    Invoice,
    InvoiceTerms,
    Line,
    Moved,
    Posted,
    Standing,
    TaxLine,
    UsageGroup,
    rates_of,
    relief,
    settle,
)
from tenuto.core.ledger import REFILL_BOOK, USAGE_BOOK
from tenuto.core.money import ZERO, Exact, fraction_text, parse_fraction, plus
from tenuto.core.payment import Payment
from tenuto.core.topic import Notification

from . import facts
from .accounts import update_account
from .database import Reader, Record, Unit
from .payments import older
from .records import TAKEN, Page, Whose, decoded, load_events, quantity_text
from .signals import tell

_COLUMNS: Final = Invoice._fields
_JSON: Final = ("seller", "customer")
_SELECT: Final = "select " + ", ".join(f"i.{name}" for name in _COLUMNS) + " from invoice i"
_INSERT: Final = "insert into invoice ({}, updated_at) values ({})".format(
    ", ".join(_COLUMNS), ", ".join(f"${place}" for place in range(1, len(_COLUMNS) + 2))
)
_FIXED: Final = ("account_id", "id", "environment_id", "currency", "created_at", "tick_from", "tick_to")
_CHANGES: Final = tuple(name for name in _COLUMNS if name not in _FIXED)
_UPDATE: Final = (
    "update invoice i set {}, updated_at = $3 from invoice b where i.account_id = $1 and i.id = $2"
    " and b.account_id = i.account_id and b.id = i.id returning b.status, b.dunning_step".format(
        ", ".join(f"{name} = ${place}" for place, name in enumerate(_CHANGES, 4))
    )
)
_REMAINS: Final = "i.amount_due - i.amount_paid - i.amount_credited"
_PAYABLE: Final = "i.status in ('open', 'uncollectible')"


def _encoded(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _value(invoice: Invoice, name: str) -> object:
    value = getattr(invoice, name)
    return _encoded(value) if name in _JSON else value


def _invoice(row: Record) -> Invoice:
    return Invoice(*(decoded(row[name]) if name in _JSON else row[name] for name in _COLUMNS))


# --- what pays what ---------------------------------------------------------------------------------------------------


async def open_invoices(reader: Reader, account_id: int, currency: str) -> list[Invoice]:
    """What money can still settle in one currency, the oldest first: open invoices, and those that were given up."""
    rows = await reader.fetch(
        f"{_SELECT} where i.account_id = $1 and i.currency = $2 and {_PAYABLE} order by i.id",
        account_id,
        currency,
    )
    return [_invoice(row) for row in rows]


async def payable(reader: Reader, account_id: int, currency: str) -> int:
    """What remains in sum of the invoices that money can still settle in one currency."""
    found: int = await reader.fetchval(
        f"select coalesce(sum({_REMAINS}), 0)::bigint from invoice i"
        f" where i.account_id = $1 and i.currency = $2 and {_PAYABLE}",
        account_id,
        currency,
    )
    return found


async def settle_incoming(unit: Unit, payment: Payment, *, now: datetime, tick: int) -> None:
    """Let the units of a payment that came in pay the oldest invoices first; what dunning had closed opens again.

    ``now`` is the company's time, ``tick`` the real present in microseconds. The account is locked, and its balance
    has the units already.
    """
    unpaid = await open_invoices(unit, payment.account_id, payment.denomination)
    if settled := settle(unpaid, payment.units, now=now):
        await save_settled(unit, payment.id, settled, now)
        await collect_again(unit, payment.account_id, payment.denomination, now)
    await relieve(unit, payment.account_id, now=now, tick=tick)


async def save_settled(unit: Unit, payment_id: int, settled: Sequence[tuple[Invoice, int]], now: datetime) -> None:
    """Write invoices after a payment, with how much of it each one got (``core.invoice.settle``)."""
    await update_invoices(unit, [invoice for invoice, _ in settled], now)
    await unit.executemany(
        "insert into invoice_payment (account_id, invoice_id, payment_id, amount, paid_at) values ($1, $2, $3, $4, $5)",
        [(invoice.account_id, invoice.id, payment_id, amount, now) for invoice, amount in settled],
    )


async def load_standing(reader: Reader, account_id: int, now: datetime) -> Standing:
    """What relief from dunning is judged by at ``now`` (the company's time). The account exists."""
    row = await reader.fetchrow(
        "select a.paused_by, a.credit_blocked_by, exists (select from invoice i where i.account_id = a.id"
        " and i.status in ('open', 'uncollectible') and i.due_at < $2),"
        f" coalesce((select sum({_REMAINS}) from invoice i where i.account_id = a.id and i.status = 'open'"
        " and i.currency = coalesce(e.money #>> '{invoicing,currency}', 'USD')), 0)::bigint,"
        " coalesce(a.credit_limit, e.default_credit_limit)"
        " from account a join environment e on e.id = a.environment_id where a.id = $1",
        account_id,
        now,
    )
    assert row is not None
    return Standing(*row)


async def save_relief(unit: Unit, account_id: int, lifted: Mapping[str, object], now: datetime, tick: int) -> None:
    """Write what ``core.invoice.relief`` undoes. The account's own tick rises with it, so that lanes see it."""
    await update_account(unit, account_id, lifted, now, tick)


async def relieve(unit: Unit, account_id: int, *, now: datetime, tick: int) -> None:
    """Undo what dunning did to an account, where its invoices allow it now; in the unit that settled them, after it.

    ``now`` is the company's time, ``tick`` the real present in microseconds.
    """
    lifted = relief(await load_standing(unit, account_id, now))
    if lifted is not None:
        await save_relief(unit, account_id, lifted, now, tick)


async def wake_collections(unit: Unit, account_id: int, now: datetime) -> int:
    """A new card: what is charged by itself and still open is collected at once. How many invoices were woken."""
    done: str = await unit.execute(
        "update invoice set next_collection_at = $2, updated_at = $2 where account_id = $1 and status = 'open'"
        " and collection = 'charge_automatically'",
        account_id,
        now,
    )
    return int(done.rpartition(" ")[2])


async def collect_again(unit: Unit, account_id: int, currency: str, now: datetime) -> None:
    """What is charged by itself, and was in a capture that paid something else or was given up, is looked at again."""
    await unit.execute(
        "update invoice i set next_collection_at = $3, updated_at = $4 where i.account_id = $1 and i.currency = $2"
        " and i.status = 'open' and i.collection = 'charge_automatically' and i.next_collection_at is null"
        f" and {_REMAINS} > 0",
        account_id,
        currency,
        now + COLLECT_AGAIN,
        now,
    )


async def read_owed(reader: Reader, account_ids: Sequence[int]) -> dict[int, dict[str, int]]:
    """Per account, what remains of its open invoices by currency; accounts that owe nothing are left out."""
    rows = await reader.fetch(
        f"select i.account_id, i.currency, sum({_REMAINS})::bigint as owed from invoice i"
        " where i.account_id = any($1) and i.status = 'open' group by i.account_id, i.currency order by i.currency",
        list(account_ids),
    )
    owed: dict[int, dict[str, int]] = {}
    for account_id, currency, amount in rows:
        owed.setdefault(account_id, {})[currency] = amount
    return owed


async def read_waiting(reader: Reader, draft: Invoice) -> int:
    """What remains of the invoices of this currency that came before a draft."""
    found: int = await reader.fetchval(
        f"select coalesce(sum({_REMAINS}), 0)::bigint from invoice i where i.account_id = $1 and i.currency = $2"
        f" and i.id < $3 and {_PAYABLE}",
        draft.account_id,
        draft.currency,
        draft.id,
    )
    return found


# --- invoices ---------------------------------------------------------------------------------------------------------


async def insert_invoice(unit: Unit, invoice: Invoice) -> None:
    """A new draft, without its lines."""
    await unit.execute(_INSERT, *(_value(invoice, name) for name in _COLUMNS), invoice.created_at)


async def update_invoice(unit: Unit, invoice: Invoice, now: datetime) -> None:
    """Write how an invoice stands now."""
    await update_invoices(unit, [invoice], now)


async def update_invoices(unit: Unit, found: Sequence[Invoice], now: datetime) -> None:
    """Write how invoices of one account stand now, and tell what is new about them."""
    told: list[Notification] = []
    for invoice in found:
        values = (_value(invoice, name) for name in _CHANGES)
        before = await unit.fetchrow(_UPDATE, invoice.account_id, invoice.id, now, *values)
        assert before is not None
        told += facts.of_invoice(facts.InvoiceBefore(*before), invoice, now)
    if told:
        await tell(unit, found[0].environment_id, *told)


async def delete_invoice(unit: Unit, invoice: Invoice) -> None:
    """Forget a draft with its lines and taxes."""
    for table in ("invoice_line", "invoice_tax"):
        await unit.execute(
            f"delete from {table} where account_id = $1 and invoice_id = $2", invoice.account_id, invoice.id
        )
    await unit.execute("delete from invoice where account_id = $1 and id = $2", invoice.account_id, invoice.id)


async def read_invoice(reader: Reader, environment_id: int, account_id: int, invoice_id: int) -> Invoice | None:
    """One invoice of an environment; None for a foreign one."""
    row = await reader.fetchrow(
        f"{_SELECT} where i.account_id = $1 and i.id = $2 and i.environment_id = $3",
        account_id,
        invoice_id,
        environment_id,
    )
    return None if row is None else _invoice(row)


async def list_drafts(reader: Reader, account_id: int, currency: str, up_to: int) -> list[Invoice]:
    """The drafts of an account in one currency with ids up to one, the oldest first."""
    rows = await reader.fetch(
        f"{_SELECT} where i.account_id = $1 and i.currency = $2 and i.id <= $3 and i.status = 'draft' order by i.id",
        account_id,
        currency,
        up_to,
    )
    return [_invoice(row) for row in rows]


async def list_invoices(reader: Reader, whose: Whose, page: Page, filters: Mapping[str, object]) -> list[Invoice]:
    """Invoices, newest first. ``filters``: status, currency."""
    arguments: list[object] = [whose.environment_id, page.limit]
    where = "i.environment_id = $1"
    for name in ("status", "currency"):
        if name in filters:
            arguments.append(filters[name])
            where += f" and i.{name} = ${len(arguments)}"
    rows = await reader.fetch(
        f"{_SELECT} where {where}{older(whose, page, arguments, 'i')} order by i.id desc, i.account_id desc limit $2",
        *arguments,
    )
    return [_invoice(row) for row in rows]


async def read_attempts(reader: Reader, account_id: int) -> dict[int, int]:
    """How often a card was asked for invoices of an account, by invoice: while it was open, for its currency.

    What comes in pays the oldest first, so a card that is asked for one is asked for all that are open.
    """
    rows = await reader.fetch(
        "select i.id, sum(p.attempts)::bigint from invoice i join payment p on p.account_id = i.account_id"
        " and p.reason = 'invoice' and p.method = 'card' and p.currency = i.currency and p.created_at >= i.finalized_at"
        " and (i.paid_at is null or p.created_at <= i.paid_at) where i.account_id = $1 group by i.id",
        account_id,
    )
    return {row[0]: row[1] for row in rows}


async def save_lines(unit: Unit, invoice: Invoice, lines: Sequence[Line]) -> None:
    """Put lines in the place of those before."""
    await unit.execute(
        "delete from invoice_line where account_id = $1 and invoice_id = $2", invoice.account_id, invoice.id
    )
    await unit.executemany(
        "insert into invoice_line (account_id, invoice_id, position, kind, description, amount, event_type,"
        " price_version_id, quantity, event_count, exact) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        [
            (
                *(invoice.account_id, invoice.id),
                *line._replace(exact=None)[:-1],
                None if line.exact is None else fraction_text(line.exact),
            )
            for line in lines
        ],
    )


async def save_taxes(unit: Unit, invoice: Invoice, taxes: Sequence[TaxLine]) -> None:
    """Put taxes in the place of those before."""
    await unit.execute(
        "delete from invoice_tax where account_id = $1 and invoice_id = $2", invoice.account_id, invoice.id
    )
    await unit.executemany(
        "insert into invoice_tax (account_id, invoice_id, position, name, rate, is_inclusive, amount)"
        " values ($1, $2, $3, $4, $5, $6, $7)",
        [(invoice.account_id, invoice.id, *tax) for tax in taxes],
    )


class PaidPart(NamedTuple):
    """What one payment paid of an invoice."""

    payment_id: int
    amount: int
    paid_at: datetime
    method: str
    description: str


class CreditNote(NamedTuple):
    """A credit note of an invoice."""

    account_id: int
    id: int
    environment_id: int
    invoice_id: int
    number: str
    amount: int
    reason: str
    created_at: datetime


class WholeInvoice(NamedTuple):
    """An invoice with all that stands on it."""

    invoice: Invoice
    lines: tuple[Line, ...]
    taxes: tuple[TaxLine, ...]
    payments: tuple[PaidPart, ...] = ()
    credit_notes: tuple[CreditNote, ...] = ()


async def read_whole(reader: Reader, invoice: Invoice) -> WholeInvoice:
    """An invoice with its lines, taxes, payments and credit notes, each in order."""
    mine = (invoice.account_id, invoice.id)
    payments = await reader.fetch(
        "select s.payment_id, s.amount, s.paid_at, p.method, p.description from invoice_payment s"
        " join payment p on p.account_id = s.account_id and p.id = s.payment_id"
        " where s.account_id = $1 and s.invoice_id = $2 order by s.payment_id",
        *mine,
    )
    notes = await reader.fetch(
        "select {} from credit_note n where n.account_id = $1 and n.invoice_id = $2 order by n.id".format(
            ", ".join(f"n.{name}" for name in CreditNote._fields)
        ),
        *mine,
    )
    return WholeInvoice(
        invoice,
        await read_lines(reader, invoice),
        await read_taxes(reader, invoice),
        tuple(PaidPart(*row) for row in payments),
        tuple(CreditNote(*row) for row in notes),
    )


async def read_lines(reader: Reader, invoice: Invoice) -> tuple[Line, ...]:
    """The lines of an invoice, in order."""
    rows = await reader.fetch(
        "select l.position, l.kind, l.description, l.amount, l.event_type, l.price_version_id, l.quantity,"
        " l.event_count, l.exact from invoice_line l where l.account_id = $1 and l.invoice_id = $2 order by l.position",
        invoice.account_id,
        invoice.id,
    )
    return tuple(_line(row) for row in rows)


def _line(row: Record) -> Line:
    exact = row["exact"]
    return Line(**{**dict(row), "exact": None if exact is None else parse_fraction(exact)})


async def read_taxes(reader: Reader, invoice: Invoice) -> tuple[TaxLine, ...]:
    """The taxes of an invoice, in order."""
    rows = await reader.fetch(
        "select t.position, t.name, t.rate, t.is_inclusive, t.amount from invoice_tax t"
        " where t.account_id = $1 and t.invoice_id = $2 order by t.position",
        invoice.account_id,
        invoice.id,
    )
    return tuple(TaxLine(*row) for row in rows)


# What the payments for invoices of an account ($1) paid of each; what of a payment was or is being given back; and what
# credit notes put back on the balance of what these payments had paid.
_COVER: Final = f"""
select s.payment_id, s.invoice_id, s.amount, p.amount as whole,
    (select coalesce(sum(r.amount), 0) from refund r where r.account_id = s.account_id
        and r.payment_id = s.payment_id and r.kind = 'refund' and r.status in ('intended', 'succeeded')) as returned,
    greatest(0, (select coalesce(sum(n.amount), 0) from credit_note n
            where n.account_id = s.account_id and n.invoice_id = s.invoice_id)
        + sum(s.amount) over (partition by s.invoice_id) + {_REMAINS} - i.total) as excess
from invoice_payment s
join payment p on p.account_id = s.account_id and p.id = s.payment_id and p.reason = 'invoice'
join invoice i on i.account_id = s.account_id and i.id = s.invoice_id
where s.account_id = $1
"""


async def credited_of(reader: Reader, account_id: int, payment_id: int) -> int:
    """What of a payment for invoices cannot go back any more, for credit notes gave it back already.

    Of each invoice at most what it paid. A note takes first what was not paid by such a payment, then what others paid.
    """
    found: int = await reader.fetchval(
        f"with cover as ({_COVER})"
        " select coalesce(sum(least(c.amount, greatest(0, c.excess - ("
        "select coalesce(sum(greatest(0, o.amount - o.returned)), 0) from cover o"
        " where o.invoice_id = c.invoice_id and o.payment_id <> c.payment_id)))), 0)::bigint"
        " from cover c where c.payment_id = $2",
        account_id,
        payment_id,
    )
    return found


async def paid_by(reader: Reader, account_id: int, payment_id: int) -> list[tuple[int, str | None, int]]:
    """What a payment paid of invoices, oldest first: id and number of each, and the amount."""
    rows = await reader.fetch(
        "select s.invoice_id, i.number, s.amount from invoice_payment s"
        " join invoice i on i.account_id = s.account_id and i.id = s.invoice_id"
        " where s.account_id = $1 and s.payment_id = $2 order by s.invoice_id",
        account_id,
        payment_id,
    )
    return [(row["invoice_id"], row["number"], row["amount"]) for row in rows]


async def settled_of(reader: Reader, account_id: int, payment_id: int) -> int:
    """How much of a payment paid invoices; the rest of it is held by the balance."""
    found: int = await reader.fetchval(
        "select coalesce(sum(amount), 0)::bigint from invoice_payment where account_id = $1 and payment_id = $2",
        account_id,
        payment_id,
    )
    return found


async def returned_of(reader: Reader, invoice: Invoice) -> int:
    """What of an invoice cannot be credited any more, for the payments that paid it were refunded."""
    found: int = await reader.fetchval(
        f"with cover as ({_COVER})"
        " select coalesce(sum(c.amount - least(c.amount, greatest(0, c.whole - c.returned - ("
        "select coalesce(sum(least(o.amount, o.excess)), 0) from cover o"
        " where o.payment_id = c.payment_id and o.invoice_id <> c.invoice_id)))), 0)::bigint"
        " from cover c where c.invoice_id = $2",
        invoice.account_id,
        invoice.id,
    )
    return found


async def insert_credit_note(unit: Unit, note: CreditNote) -> None:
    """A credit note of a final invoice."""
    await unit.execute(
        "insert into credit_note ({}) values ($1, $2, $3, $4, $5, $6, $7, $8)".format(", ".join(CreditNote._fields)),
        *note,
    )


async def read_credit_note(reader: Reader, environment_id: int, account_id: int, note_id: int) -> CreditNote | None:
    """One credit note of an environment; None for a foreign one."""
    row = await reader.fetchrow(
        "select {} from credit_note where account_id = $1 and id = $2 and environment_id = $3".format(
            ", ".join(CreditNote._fields)
        ),
        account_id,
        note_id,
        environment_id,
    )
    return None if row is None else CreditNote(*row)


async def sum_credit_notes(reader: Reader, invoice: Invoice) -> int:
    """What the credit notes of an invoice come to."""
    found: int = await reader.fetchval(
        "select coalesce(sum(amount), 0)::bigint from credit_note where account_id = $1 and invoice_id = $2",
        invoice.account_id,
        invoice.id,
    )
    return found


async def next_number(unit: Unit, environment_id: int, series: str) -> int:
    """The next number of a series of a company's half. Locked until the unit ends, so that none is ever missing."""
    found: int = await unit.fetchval(
        "insert into number_series (environment_id, name, last_number) values ($1, $2, 1)"
        " on conflict (environment_id, name) do update set last_number = number_series.last_number + 1"
        " returning last_number",
        environment_id,
        series,
    )
    return found


# --- terms ------------------------------------------------------------------------------------------------------------

_TERMS: Final = InvoiceTerms._fields
_TERMS_COLUMNS: Final = ", ".join("grace_seconds" if name == "grace" else name for name in _TERMS)
_COMPANY_GRACE: Final = -1
"""How the grace period of the company is kept in the terms of an account."""


async def read_terms(reader: Reader, account_id: int) -> list[InvoiceTerms]:
    """The terms of an account that pays by invoice, by currency."""
    rows = await reader.fetch(
        f"select {_TERMS_COLUMNS} from invoice_terms where account_id = $1 order by currency", account_id
    )
    return [_terms(row) for row in rows]


async def save_terms(unit: Unit, terms: InvoiceTerms, now: datetime) -> None:
    """Write terms, new or changed."""
    changing = [name for name in _TERMS_COLUMNS.split(", ") if name not in {"account_id", "currency", "environment_id"}]
    await unit.execute(
        "insert into invoice_terms ({}, updated_at) values ({})"
        " on conflict (account_id, currency) do update set {}".format(
            _TERMS_COLUMNS,
            ", ".join(f"${place}" for place in range(1, len(_TERMS) + 2)),
            ", ".join(f"{name} = excluded.{name}" for name in (*changing, "updated_at")),
        ),
        *(_terms_value(terms, name) for name in _TERMS),
        now,
    )


async def delete_terms(unit: Unit, account_id: int, currency: str) -> None:
    """End invoicing of an account in a currency."""
    await unit.execute("delete from invoice_terms where account_id = $1 and currency = $2", account_id, currency)


def _terms_value(terms: InvoiceTerms, name: str) -> object:
    if name == "grace":
        return _COMPANY_GRACE if terms.grace is None else int(terms.grace.total_seconds())
    if name == "taxes":
        given = None
        if terms.taxes is not None:
            given = [{"name": tax.name, "rate": tax.rate, "inclusive": tax.is_inclusive} for tax in terms.taxes]
        return _encoded(given)
    value: object = getattr(terms, name)
    return value


def _terms(row: Record) -> InvoiceTerms:
    values = dict(row)
    seconds, taxes = values.pop("grace_seconds"), decoded(values["taxes"])
    values["grace"] = None if seconds == _COMPANY_GRACE else timedelta(seconds=seconds)
    values["taxes"] = None if taxes is None else rates_of(taxes)
    return InvoiceTerms(**values)


# --- what was posted --------------------------------------------------------------------------------------------------

GATHER_SECONDS: Final = 25
"""How long adding up a range may take: less than an open unit may idle (database)."""

_HOLD_MARGIN: Final = 7_200_000_000
"""Microseconds: an event is complete at most an hour after its id was given, which is its hold's life; twice that."""

# Charges of one account ($1) in one denomination ($2) with what the condition lets through.
_CHARGE: Final = """
select e.id, e.type, e.price_version_id, e.cost, e.quantity, null as lacking from (
    select *, transaction_seq as seq from event where account_id = $1 and denomination = $2
) e where {condition}
union all
select e.id, e.type, e.charged_by, e.charged, e.quantity, e.lacking from (
    select e.*, x.price_version_id as charged_by, x.cost as charged, x.transaction_seq as seq,
        x.prior #>> '{{overage,denomination}}' as lacking
    from event e join event_charge x on x.account_id = e.account_id and x.event_id = e.id
    where e.account_id = $1 and x.denomination = $2
) e where {condition}
"""

# Or much later, where an event was kept aside: those are found by an index of their own.
_BY_AGE: Final = f"(e.id > $3 - {_HOLD_MARGIN} or e.posting > $3 and e.posting - e.id > {_HOLD_MARGIN})"

_BILLED_NOW: Final = f"e.state = 0 and e.posting > $3 and e.posting <= $4 and {_BY_AGE} and e.id <= $4"

# Taken back in the range ($3, $4], but billed before it. An event that came and went within the range is on no line. Of
# a hold that was settled first, the row no longer says when: by its age, or by the transaction that settled it.
_TAKEN_BACK: Final = f"""e.state = 2 and e.reason = 3 and e.posting > $3 and e.posting <= $4 and e.id <= $3
and case when e.expires_at is null then (e.first ->> 'posting')::bigint <= $3
    when e.seq is null then false
    else e.id <= $3 - {_HOLD_MARGIN} and e.first -> 'first' is null or exists (
        select from transaction t where t.account_id = e.account_id and t.denomination = $2 and t.book in {TAKEN}
        and t.first_event_id = e.id and t.type <> 'REVERSAL' and t.id <= $3) end"""

# The same events as _BILLED_NOW, found later: some may have been taken back since.
_BILLED_THEN: Final = f"""{_BY_AGE} and e.id <= $4 and (
    e.state = 0 and e.posting > $3 and e.posting <= $4
    or e.state = 2 and e.reason = 3 and e.posting > $4 and (
        case when e.expires_at is null then (e.first ->> 'posting')::bigint > $3
            and (e.first ->> 'posting')::bigint <= $4
        else exists (select from transaction t where t.account_id = e.account_id and t.denomination = $2
            and t.book in {TAKEN} and t.first_event_id = e.id and t.type <> 'REVERSAL' and t.id > $3
            and t.id <= $4) end))"""

_DENOMINATOR: Final = "coalesce(nullif(split_part(cost, '/', 2), ''), '1')"
_GROUPED: Final = f"""
with charge as ({{charge}})
select p.type, p.price_version_id, sum(p.quantity) as quantity, sum(p.count)::bigint as events,
    array_agg(p.part) as parts, case when bool_and(p.is_overage) and min(p.first) = max(p.last) then min(p.first) end
    as overage
from (
    select type, price_version_id, sum(quantity) as quantity, count(*) as count,
        sum(split_part(cost, '/', 1)::numeric)::text || '/' || {_DENOMINATOR} as part,
        bool_and(lacking is not null) as is_overage, min(lacking) as first, max(lacking) as last
    from charge group by type, price_version_id, {_DENOMINATOR}
) as p
group by p.type, p.price_version_id order by p.type, p.price_version_id
"""

_BILLED: Final = f"t.book <> all($3) and not (t.book = '{REFILL_BOOK}' and t.amount > 0)"


class Gathered(NamedTuple):
    """What is to be billed of one currency in the ticks above ``tick_from`` up to ``tick_to``."""

    currency: str
    tick_from: int
    tick_to: int
    posted: Posted


async def gather_posted(reader: Reader, account_id: int, currency: str, tick_from: int) -> Gathered:
    """All that is to be billed above ``tick_from`` up to the account's present, as one moment knew it.

    Nothing is locked: adding up a large month takes seconds in which the account goes on being used. One snapshot sees
    a tick and all that was written up to it, and what is written later has larger ids.
    """
    async with reader.transaction(isolation="repeatable_read", readonly=True):
        await reader.execute(f"set local statement_timeout = '{GATHER_SECONDS}s'")
        tick_to = await reader.fetchval("select tick from account where id = $1", account_id)
        posted = await read_posted(reader, account_id, currency, tick_from, tick_to)
    return Gathered(currency, tick_from, tick_to, posted)


async def read_posted(reader: Reader, account_id: int, currency: str, tick_from: int, tick_to: int) -> Posted:
    """All that is to be billed of what was posted with ids above ``tick_from`` up to ``tick_to``.

    ``tick_to`` is the present of the account in the reader's snapshot.
    """
    asked = (account_id, currency, tick_from, tick_to)
    groups: list[UsageGroup] = []
    for condition, is_reversal in ((_BILLED_NOW, False), (_TAKEN_BACK, True)):
        rows = await reader.fetch(_GROUPED.format(charge=_CHARGE.format(condition=condition)), *asked)
        groups.extend(_group(row, is_reversal=is_reversal) for row in rows)
    rows = await reader.fetch(
        f"select case when t.book in {TAKEN} then $6 else t.book end as book,"
        f" case when t.book in {TAKEN} then '' else t.description end as said, sum(t.amount)::bigint as amount"
        " from transaction t where t.account_id = $1 and t.denomination = $2 and t.id > $4 and t.id <= $5"
        f" and {_BILLED}"
        " group by 1, 2 order by min(t.id)",
        account_id,
        currency,
        list(UNBILLED_BOOKS),
        tick_from,
        tick_to,
        USAGE_BOOK,
    )
    return Posted(
        tuple(groups),
        sum(row["amount"] for row in rows if row["book"] == USAGE_BOOK),
        tuple(Moved(*row) for row in rows if row["book"] != USAGE_BOOK and row["amount"]),
    )


def _group(row: Record, *, is_reversal: bool) -> UsageGroup:
    total = ZERO
    for part in row["parts"]:
        total = plus(total, parse_fraction(part))
    if is_reversal:
        total = Exact(-total.numerator, total.denominator)
    return UsageGroup(
        row["type"],
        row["price_version_id"],
        quantity_text(row["quantity"]),
        row["events"],
        total,
        is_reversal,
        row["overage"],
    )


async def read_posted_since(reader: Reader, account_id: int, currency: str, tick: int) -> int:
    """What billed books have moved with ids above ``tick``, as the balance saw it."""
    found: int = await reader.fetchval(
        "select coalesce(sum(t.amount), 0)::bigint from transaction t"
        f" where t.account_id = $1 and t.denomination = $2 and t.id > $4 and {_BILLED}",
        account_id,
        currency,
        list(UNBILLED_BOOKS),
        tick,
    )
    return found


async def line_events(reader: Reader, invoice: Invoice, line: Line, page: Page) -> list[Event]:
    """The events behind a line of usage or of reversals, newest first."""
    condition = _TAKEN_BACK if line.kind == "reversal" else _BILLED_THEN
    rows = await reader.fetch(
        f"select c.id from ({_CHARGE.format(condition=condition)}) as c where c.type = $5"
        " and c.price_version_id is not distinct from $6 and ($7::bigint is null or c.id < $7)"
        " order by c.id desc limit $8",
        invoice.account_id,
        invoice.currency,
        invoice.tick_from,
        invoice.tick_to,
        line.event_type,
        line.price_version_id,
        page.after[0] if page.after else None,
        page.limit,
    )
    wanted = [(invoice.account_id, row["id"]) for row in rows]
    found = await load_events(reader, wanted)
    return [found[key] for key in wanted]
