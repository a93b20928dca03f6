"""The audit of money: clean after everything that moves money has happened, and naming the very row that is wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest

from tenuto.store import audit
from tests.money_books import Money, money_books
from tests.store.test_audit import MONEY_CHECKS, Wrong, expect_clean, expect_named, findings, torn_open


@pytest.fixture(scope="module")
async def money(new_database: Callable[[str], str]) -> AsyncIterator[Money]:
    async with money_books(new_database("audit_money")) as found:
        yield found


@pytest.fixture
async def books(money: Money) -> AsyncIterator[asyncpg.Connection]:
    """A connection in a transaction that is rolled back: what a test breaks, nobody ever sees."""
    async with torn_open(money.engine.settings.database) as connection:
        yield connection


async def test_books_in_which_money_moved_are_clean(books: asyncpg.Connection) -> None:
    planned = await expect_clean(books)
    counted = ("cards", "payments", "refunds", "refills", "invoices", "credit_notes", "notifications", "deliveries")
    assert all(planned.counts[name] for name in counted), planned.counts


async def test_the_books_hold_what_the_rules_are_about(books: asyncpg.Connection) -> None:
    async def words(query: str) -> set[str]:
        return {row[0] for row in await books.fetch(query)}

    assert await words("select status from payment") >= {"succeeded", "failed", "skipped", "created"}
    assert await words("select status from invoice") == {"draft", "open", "paid", "void", "uncollectible"}
    assert await words("select method from payment") == {"card", "balance", "out_of_band"}
    assert await words("select book from transaction") >= {
        *("deposit", "refill", "payment", "refund", "refund_credit", "dispute", "dispute_won", "tax", "credit_note"),
        *("void", "invoice_item", "usage"),
    }
    assert await words("select denomination from refill where parked_at is not null") == {"credits"}
    assert await words("select denomination from refill where is_monthly") == {"seats", "tokens"}
    assert await words("select kind from invoice_line") == {"usage", "manual"}


def first(table: str, kind: str, change: str, where: str = "true", word: str = "''") -> str:
    """Change the first row of a table that has an id of its own."""
    return f"""update {table} set {change} where (account_id, id) = (
        select account_id, id from {table} x where {where} order by account_id, id limit 1)
        returning '{kind}', account_id, id, {word}"""


def payment(change: str, where: str = "status = 'succeeded' and method = 'card' and reason = 'deposit'") -> str:
    return first("payment", "payment", change, where)


def invoice_row(change: str, where: str) -> str:
    return first("invoice", "invoice", change, where)


def moved(book: str, change: str, names: str = "transaction") -> str:
    """Change a transaction of a book; ``names`` is the kind of row that is wrong then."""
    number = "id" if names == "transaction" else "cause_id"
    return f"""update transaction set {change} where (account_id, id) = (
        select account_id, id from transaction where book = '{book}' order by account_id, id limit 1)
        returning '{names}', account_id, {number}, denomination"""


def gone(book: str, names: str) -> str:
    return f"""delete from transaction where (account_id, id) = (
        select account_id, id from transaction where book = '{book}' order by account_id, id limit 1)
        returning '{names}', account_id, cause_id, denomination"""


def refill_row(change: str, where: str) -> str:
    return f"""update refill set {change} where (account_id, denomination) = (
        select account_id, denomination from refill where {where} order by account_id, denomination limit 1)
        returning 'refill', account_id, 0::bigint, denomination"""


def line(change: str, where: str) -> str:
    return f"""update invoice_line set {change} where (account_id, invoice_id, position) = (
        select account_id, invoice_id, position from invoice_line where {where} order by 1, 2, 3 limit 1)
        returning 'line', account_id, invoice_id, position::text"""


def half(change: str, where: str) -> str:
    return f"""update environment set {change} where id = (select id from environment where {where} limit 1)
        returning 'environment', company_id, id::bigint, case when live then 'live' else 'test' end"""


def dropped(table: str, *constraints: str) -> str:
    return ";".join(f"alter table {table} drop constraint {name}" for name in constraints)


LINE_TO_INVOICE = ("'line', account_id, invoice_id, position::text", "'invoice', account_id, invoice_id, ''")
NO_SUM = "alter table transaction drop constraint transaction_adds_up"
FINAL_TAX = "tax > 0 and status <> 'draft'"

WRONGS = {
    "payment without its transaction": Wrong("payments", gone("deposit", "payment")),
    "payment credited with another amount": Wrong(
        "payments", moved("deposit", "amount = amount + 1", "payment"), NO_SUM
    ),
    "payment credited in another book": Wrong("payments", moved("deposit", "book = 'refill'", "payment")),
    "payment of other units": Wrong("payments", payment("units = units + 1")),
    "payment that failed after all": Wrong("payments", payment("status = 'failed'")),
    "payment from a balance, taken twice as much": Wrong(
        "payments", payment("amount = amount * 2", "method = 'balance'")
    ),
    "payment that succeeded after all": Wrong("payments", payment("status = 'succeeded'", "status = 'failed'")),
    "payment of no status": Wrong("payment_states", payment("status = 'paid'")),
    "payment of no reason": Wrong("payment_states", payment("reason = 'gift'")),
    "payment of no method": Wrong("payment_states", payment("method = 'cheque'")),
    "payment succeeded, not finished": Wrong("payment_states", payment("finished_at = null")),
    "payment succeeded, to be tried": Wrong("payment_states", payment("next_attempt_at = created_at")),
    "payment succeeded without intent": Wrong("payment_states", payment("intent_id = null")),
    "payment open, nothing to come": Wrong("payment_states", payment("next_attempt_at = null", "status = 'created'")),
    "payment open, finished": Wrong("payment_states", payment("finished_at = created_at", "status = 'created'")),
    "payment of more attempts": Wrong("payment_states", payment("attempts = attempts + 1")),
    "payment of fewer attempts": Wrong("payment_states", payment("attempts = attempts - 1")),
    "attempt with a gap": Wrong(
        "payment_states",
        "update payment_attempt set number = 7 where (account_id, payment_id, number) = (select account_id, payment_id,"
        " number from payment_attempt order by 1, 2, 3 limit 1) returning 'payment', account_id, payment_id, ''",
    ),
    "payment refunded more": Wrong("returned", payment("refunded = refunded + 1")),
    "payment refunded beyond it": Wrong(
        "returned", payment("refunded = amount + 1"), dropped("payment", "payment_refunded_within")
    ),
    "payment with other units returned": Wrong("returned", payment("units_returned = units_returned + 1")),
    "refund of more than was paid": Wrong(
        "returned",
        first("refund", "payment", "amount = 100000, status = 'intended'", "kind = 'refund'").replace(
            "account_id, id, ''", "account_id, payment_id, ''"
        ),
    ),
    "refund of a payment that failed": Wrong(
        "returned",
        "update refund set payment_id = p.id, account_id = p.account_id from payment p where p.status = 'failed' and"
        " (refund.account_id, refund.id) = (select account_id, id from refund limit 1)"
        " returning 'payment', p.account_id, p.id, ''",
    ),
    "refund without its transaction": Wrong("refunds", gone("refund", "refund")),
    "refund of an invoice, not credited": Wrong("refunds", gone("refund_credit", "refund")),
    "dispute without its transaction": Wrong("refunds", gone("dispute", "refund")),
    "won dispute, not given back": Wrong("refunds", gone("dispute_won", "refund")),
    "bounced refund, not given back": Wrong("refunds", gone("refund_failed", "refund")),
    "refund of other units": Wrong("refunds", first("refund", "refund", "units = units + 1", "units > 0")),
    "refund that failed after all": Wrong(
        "refunds", first("refund", "refund", "status = 'failed'", "kind = 'refund' and units > 0")
    ),
    "refund of no status": Wrong("refunds", first("refund", "refund", "status = 'gone'")),
    "refund not finished": Wrong("refunds", first("refund", "refund", "finished_at = null")),
    "deposit of no payment": Wrong("causes", moved("deposit", "cause_id = 5")),
    "deposit without cause": Wrong("causes", moved("deposit", "cause_id = null")),
    "tax of no invoice": Wrong("causes", moved("tax", "cause_id = 5")),
    "refund of a payment's id": Wrong(
        "causes",
        moved("refund", "cause_id = (select max(id) from payment p where p.account_id = transaction.account_id)"),
    ),
    "usage with a cause": Wrong("causes", moved("usage", "cause_id = 5")),
    "credit note of no note": Wrong("causes", moved("credit_note", "cause_id = 5")),
    "refill of a payment that ended": Wrong(
        "refills",
        refill_row(
            "payment_id = (select max(id) from payment p where p.account_id = refill.account_id"
            " and p.status = 'succeeded')",
            "is_monthly",
        ),
    ),
    "refill of no payment": Wrong("refills", refill_row("payment_id = 5", "is_monthly")),
    "refill monthly without anchor": Wrong("refills", refill_row("anchor_at = null", "is_monthly")),
    "refill monthly without date": Wrong(
        "refills", refill_row("next_at = null", "is_monthly"), dropped("refill", "refill_monthly_has_date")
    ),
    "refill parked for nothing": Wrong("refills", refill_row("parked_code = null", "parked_at is not null")),
    "refill that nothing begins": Wrong("refills", refill_row("threshold = null", "not is_monthly")),
    "two open payments for one need": Wrong(
        "refills",
        "with open as (select * from payment where status = 'created' limit 1)"
        " insert into payment select (jsonb_populate_record(null::payment, to_jsonb(open)"
        " || jsonb_build_object('id', open.id - 1, 'request_key', null))).* from open"
        " returning 'payment', account_id, id, ''",
        "drop index payment_slot_key",
    ),
    "two payments for one date": Wrong(
        "refills",
        "with dated as (select * from payment where period_at is not null limit 1)"
        " insert into payment select (jsonb_populate_record(null::payment, to_jsonb(dated)"
        " || jsonb_build_object('id', dated.id - 1, 'slot', null))).* from dated"
        " returning 'payment', account_id, id, ''",
        "drop index payment_period_key",
    ),
    "refill on another day": Wrong("refill_dates", refill_row("next_at = next_at + interval '1 hour'", "is_monthly")),
    "refill of another number": Wrong("refill_dates", refill_row("number = number + 1", "is_monthly")),
    "invoice of no status": Wrong("invoices", invoice_row("status = 'sent'", "status = 'paid'")),
    "invoice of another subtotal": Wrong(
        "invoices", invoice_row("subtotal = subtotal + 1, tax = tax - 1", "status = 'paid'")
    ),
    "invoice that does not add up": Wrong(
        "invoices", invoice_row("total = total + 1", "status = 'paid'"), dropped("invoice", "invoice_adds_up")
    ),
    "invoice of another tax inside": Wrong("invoices", invoice_row("tax_included = 0", "status = 'paid'")),
    "invoice paid more": Wrong("invoices", invoice_row("amount_paid = amount_paid + 1", "status = 'open'")),
    "invoice credited more": Wrong("invoices", invoice_row("amount_credited = amount_credited + 1", "status = 'open'")),
    "invoice credited less": Wrong("invoices", invoice_row("amount_credited = 0", "amount_credited > 0")),
    "invoice paid, something remains": Wrong(
        "invoices", invoice_row("status = 'paid', paid_at = created_at", "status = 'open'")
    ),
    "invoice open, nothing remains": Wrong(
        "invoices", invoice_row("status = 'open', paid_at = null", "status = 'paid'")
    ),
    "invoice paid at no time": Wrong("invoices", invoice_row("paid_at = null", "status = 'paid'")),
    "invoice void at no time": Wrong("invoices", invoice_row("voided_at = null", "status = 'void'")),
    "invoice void, collected": Wrong("invoices", invoice_row("next_collection_at = created_at", "status = 'void'")),
    "invoice final without number": Wrong("invoices", invoice_row("number = null", "status = 'open'")),
    "invoice credited beyond its total": Wrong(
        "invoices",
        "update credit_note set amount = 1000000 where (account_id, id) = (select account_id, id from credit_note"
        " limit 1) returning 'invoice', account_id, invoice_id, ''",
    ),
    "line amount": Wrong("invoices", line("amount = amount + 1", "true").replace(*LINE_TO_INVOICE)),
    "line far from its cost": Wrong("lines", line("amount = amount + 2", "kind = 'usage'")),
    "line of another exact cost": Wrong("lines", line("exact = '1/7'", "kind = 'usage' and amount > 10")),
    "line out of place": Wrong("lines", line("position = 99", "position = 1")),
    "manual line of events": Wrong("lines", line("event_count = 3", "kind = 'manual'")),
    "line of no fraction": Wrong("spellings", line("exact = 'much'", "kind = 'usage'")),
    "tax of another amount": Wrong(
        "taxes",
        "update invoice_tax set amount = amount + 1 where (account_id, invoice_id, position) = (select account_id,"
        " invoice_id, position from invoice_tax where is_inclusive limit 1)"
        " returning 'tax', account_id, invoice_id, position::text",
    ),
    "tax of another rate": Wrong(
        "taxes",
        "update invoice_tax set rate = '21' where (account_id, invoice_id, position) = (select account_id,"
        " invoice_id, position from invoice_tax where not is_inclusive limit 1)"
        " returning 'tax', account_id, invoice_id, position::text",
    ),
    "tax not posted": Wrong("invoice_moves", gone("tax", "invoice")),
    "manual lines not posted": Wrong("invoice_moves", gone("invoice_item", "invoice")),
    "void not posted": Wrong("invoice_moves", gone("void", "invoice")),
    "tax of a draft": Wrong("invoice_moves", invoice_row("status = 'draft'", FINAL_TAX)),
    "tax posted otherwise": Wrong("invoice_moves", moved("tax", "amount = amount - 1", "invoice"), NO_SUM),
    "credit note not posted": Wrong("credit_notes", gone("credit_note", "credit note")),
    "credit note of another amount": Wrong("credit_notes", first("credit_note", "credit note", "amount = amount + 1")),
    "line of what was not posted": Wrong(
        "billed", line("amount = amount + 1", "kind = 'usage'").replace(*LINE_TO_INVOICE)
    ),
    "range of nothing": Wrong("billed", invoice_row("tick_from = tick_to", "status = 'paid' and subtotal > 0")),
    "ranges that overlap": Wrong(
        "ranges",
        "update invoice set tick_from = tick_from - 1 where (account_id, id) = (select account_id, max(id)"
        " from invoice group by account_id) returning 'invoice', account_id, id, ''",
    ),
    "range that ends before it starts": Wrong("ranges", invoice_row("tick_from = tick_to + 1", "status = 'paid'")),
    "terms invoiced further": Wrong(
        "ranges",
        "update invoice_terms set invoiced_tick = invoiced_tick - 1 returning 'terms', account_id, 0::bigint, currency",
    ),
    "number twice": Wrong("numbers", invoice_row("number = 'INV-000001'", "number = 'INV-000003'")),
    "number beyond the last": Wrong("numbers", invoice_row("number = 'INV-000099'", "number = 'INV-000003'")),
    "number missing": Wrong(
        "numbers",
        "with counted as (update number_series set last_number = last_number + 1 where name = 'credit_note'"
        " returning environment_id) select 'environment', v.company_id, v.id::bigint,"
        " 'test, numbers of credit_note' from environment v join counted c on c.environment_id = v.id",
    ),
    "credit note without number": Wrong("numbers", first("credit_note", "credit note", "number = 'CN-'")),
    "settled by more than was paid": Wrong(
        "settlements",
        "update invoice_payment set amount = 1000000 where (account_id, payment_id) = (select account_id, payment_id"
        " from invoice_payment limit 1) returning 'payment', account_id, payment_id, ''",
    ),
    "settled by what failed": Wrong(
        "settlements",
        "update payment p set status = 'failed' from invoice_payment s where s.account_id = p.account_id and"
        " s.payment_id = p.id returning 'payment', p.account_id, p.id, ''",
    ),
    "settled by nobody": Wrong(
        "settlements",
        "update invoice_payment set payment_id = 5 where (account_id, payment_id) = (select account_id, payment_id"
        " from invoice_payment limit 1) returning 'payment', account_id, payment_id, ''",
        dropped("invoice_payment", "invoice_payment_payment_fkey"),
    ),
    "settled in another currency": Wrong(
        "settlements",
        "update invoice i set currency = 'EUR' from invoice_payment s where s.account_id = i.account_id and"
        " s.invoice_id = i.id returning 'invoice', i.account_id, i.id, ''",
    ),
    "two default cards": Wrong(
        "cards",
        first("payment_method", "account", "is_default = true", "not is_default").replace(
            "account_id, id, ''", "account_id, 0::bigint, ''"
        ),
        "drop index payment_method_default_key",
    ),
    "no default card": Wrong(
        "cards",
        first("payment_method", "account", "is_default = false", "is_default").replace(
            "account_id, id, ''", "account_id, 0::bigint, ''"
        ),
    ),
    "removed default card": Wrong("cards", first("payment_method", "card", "removed_at = created_at", "is_default")),
    "paused by nobody": Wrong(
        "pauses",
        "update account set paused_at = created_at where id = (select min(id) from account)"
        " returning 'account', id, 0::bigint, ''",
    ),
    "credit blocked at no time": Wrong(
        "pauses",
        "update account set credit_blocked_by = 'dunning' where id = (select min(id) from account)"
        " returning 'account', id, 0::bigint, ''",
    ),
    "secret in the open": Wrong("secrets", half("stripe_key = 'sk_live_in_the_open_for_everybody'", "live")),
    "webhook secret cut": Wrong("secrets", half(r"stripe_webhook_secret = '\x0102'", "live")),
    "key without hint": Wrong("secrets", half("stripe_key_hint = null", "live")),
    "tick below a link": Wrong(
        "ticks",
        "update account set tick = tick - 1000000 where id = (select account_id from payment_link where kind = 'card')"
        " returning 'account', id, 0::bigint, ''",
    ),
    "payment of another company's half": Wrong("owners", payment("environment_id = environment_id + 1")),
    "payment by a card of nobody": Wrong("owners", payment("card_id = 5")),
    "link to no invoice": Wrong("owners", first("payment_link", "link", "invoice_id = 5", "kind = 'invoice'")),
    "line of no invoice": Wrong(
        "owners",
        line("invoice_id = 5", "true").replace(*LINE_TO_INVOICE),
        dropped("invoice_line", "invoice_line_invoice_fkey"),
    ),
    "message to nobody": Wrong(
        "environments",
        "update gateway_event set environment_id = 77 where id = (select min(id) from gateway_event)"
        " returning 'message', environment_id::bigint, 0::bigint, id",
    ),
    "numbers of nobody": Wrong(
        "environments",
        "update number_series set environment_id = 77 where name = 'invoice'"
        " returning 'series', environment_id::bigint, 0::bigint, name",
    ),
    "payment beyond all bounds": Wrong("bounds", payment("amount = 2000000000000000")),
    "refund beyond all bounds": Wrong("bounds", first("refund", "refund", "units = 2000000000000000")),
    "refill beyond all bounds": Wrong("bounds", refill_row("charge_amount = 2000000000000000", "is_monthly")),
}


@pytest.mark.parametrize("name", WRONGS)
async def test_a_wrong_fact_about_money_is_named(books: asyncpg.Connection, name: str) -> None:
    await expect_named(books, WRONGS[name])


def test_every_rule_about_money_has_a_wrong_fact_that_it_names() -> None:
    assert set(MONEY_CHECKS) <= {check.name for check in audit.CHECKS}
    assert {wrong.check for wrong in WRONGS.values()} >= set(MONEY_CHECKS)


async def test_a_date_from_before_the_company_moved_is_no_finding(books: asyncpg.Connection) -> None:
    await books.execute(
        "update environment set zone = 'UTC', updated_at = updated_at + interval '1 year' where not live"
    )
    assert await findings(books, "refill_dates") == {}
    await books.execute("update environment set zone = 'Nowhere/Land'")
    assert (await findings(books, "refill_dates"))["refill_dates"]
