"""The audit: clean on books that hold everything, and naming the very row when a fact is changed behind its back."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import asyncpg
import pytest

from tenuto.engine import Settings
from tenuto.server import Server, wait_until_ready
from tenuto.store import audit
from tests.client import Client, Company

MONEY_COUNTS = {"cards", "payments", "refunds", "refills", "invoices", "invoice_lines", "credit_notes"}
"""What ``test_audit_money`` has books of."""
MONEY_CHECKS: Final = (
    *("payments", "payment_states", "returned", "refunds", "causes", "refills", "refill_dates", "invoices", "lines"),
    *("taxes", "invoice_moves", "credit_notes", "billed", "ranges", "numbers", "settlements", "cards", "pauses"),
    "secrets",
)
"""Rules that ``test_audit_money`` breaks one by one."""
PLAN_COUNTS: Final = {"plans", "plan_versions", "agreed_terms", "subscriptions", "periods", "steps", "grants"}
"""What ``test_audit_plans`` has books of."""
PLAN_CHECKS: Final = (
    *("plan_payments", "steps", "step_moves", "periods", "subscriptions", "plan_dates", "grants", "grant_moves"),
    *("burned", "plan_numbers", "plan_terms", "plan_refills"),
)
"""Rules that ``test_audit_plans`` breaks one by one."""
SIGNAL_COUNTS: Final = {"webhooks", "topics", "notifications", "deliveries", "flags", "flag_changes"}
"""What ``test_audit_signals`` has books of."""
SIGNAL_CHECKS: Final = (
    *("told", "untold", "published", "deliveries", "heard", "webhooks", "filled", "flags", "replays"),
)
"""Rules that ``test_audit_signals`` breaks one by one."""
ORGANIZATION_COUNTS: Final = {"organizations", "tax_ids", "issuers", "clearances"}
"""What ``test_audit_organizations`` has books of."""
ORGANIZATION_CHECKS: Final = ("organizations", "tax_ids", "issuers", "clearances")
"""Rules that ``test_audit_organizations`` breaks one by one."""
TIERS = [{"up_to": 10, "amount": "2", "per": 1}, {"up_to": None, "amount": "1", "per": 3}]


@pytest.fixture(scope="module")
def books(new_database: Callable[[str], str]) -> Iterator[Server]:
    """A service of this module's own whose ledger holds everything that can be in one."""
    server = Server(Settings(port=0, database=new_database("audit"), registration="open", log_level="warning"))
    server.start()
    try:
        assert wait_until_ready(*server.address, seconds=30)
        with Client(*server.address) as client:
            for name in ("Acme", "Other"):
                company = Company.open(client, name)
                listen(company)
                fill(company)
                overflow(company)
        yield server
    finally:
        server.stop()


def listen(company: Company) -> None:
    """Somebody hears everything, and has for a while."""
    made = company.call("POST", "/v1/companies/{company}/webhooks", {"topics": ["*"]})
    assert made.status == 200, made
    assert company.call("POST", "/v1/companies/{company}/clock", {"advance_seconds": 120}).status == 200


def fill(company: Company) -> None:
    """Holds settled, cancelled, deleted, expired and open; tiers; fractions; several denominations; refusals."""
    company.price("CHAT", "credits", "3")
    company.price("READ", "USD", "15", per=1_000_000)
    company.price("SEVENTH", "USD", "1", per=7)
    company.price("BOTH", "credits", "2")
    company.price("BOTH", "USD", "0.4")
    company.price("STORE", "credits", model="graduated", tiers=TIERS, free_units=2)
    company.price("BULK", "credits", model="volume", tiers=TIERS)
    company.price("PACK", "credits", "5", per=4, model="package")
    company.price("SEAT", "credits", "10", max_value_billing=True)
    company.price("CAPPED", "USD", "0.3", minimum="1", cap="2.5")
    account = company.account(credits=10_000, USD=5_000)
    spend(company, account)
    hold(company, account)
    refuse(company)
    reprice = company.price("MOVING", "credits", "1")
    company.send(account, type="MOVING", quantity=5)
    company.call("PUT", f"/v1/companies/{{company}}/event_prices/{reprice}", {"amount": "2"})
    company.send(account, type="MOVING", quantity=5)
    company.call("DELETE", f"/v1/companies/{{company}}/event_prices/{reprice}")
    lapse(company, account)
    last = company.send(account, type="BOTH", state="pending", key="open hold")
    assert last.status == 200, last
    assert company.send(account, type="STORE", state="pending", quantity=3).status == 200
    adjusted = company.call("POST", f"/v1/accounts/{account}/balance/credits/adjust", {"amount": -3, "reason": "sorry"})
    assert adjusted.status == 200, adjusted


def spend(company: Company, account: str) -> None:
    for number in range(8):
        assert company.send(account, type="READ", quantity=4_808 * (number + 1), key=f"read {number}").status == 200
        assert company.send(account, type="SEVENTH", quantity="2.5", gate_on_balance=True).status == 200
        for kind in ("BOTH", "STORE", "BULK", "PACK", "SEAT", "CAPPED"):
            sent = company.send(account, type=kind, quantity=number + 1, key=f"{kind} {number}")
            assert sent.status == 200, sent
    listed: list[dict[str, object]] = [
        {"type": "CHAT"},
        {"type": "BOTH", "key": "in a list"},
        {"type": "CHAT", "state": "pending"},
    ]
    listed += [{"type": "CHAT", "state": "cancelled"}, {"type": "UNPRICED"}, {"type": "READ", "quantity": 7}]
    assert company.send(account, *listed, *listed[:1]).status == 200
    paid: dict[str, object] = {"cost_override_amount": 12, "cost_override_denomination": "USD", "cogs": 3}
    assert company.send(account, type="CHAT", **paid).status == 200
    once = {"idempotency-key": "once"}
    assert company.call("POST", f"/v1/accounts/{account}/events", {"type": "CHAT"}, once).status == 200


def hold(company: Company, account: str) -> None:
    """Each kind of price held and ended in each way."""
    for kind in ("CHAT", "READ", "SEVENTH", "BOTH", "STORE", "BULK", "PACK", "SEAT", "CAPPED", "UNPRICED"):
        ends: list[dict[str, object]] = [
            {"state": "complete"},
            {"state": "complete", "quantity": 3},
            {"state": "complete", "cost_override_amount": 0},
            {"state": "cancelled"},
        ]
        for is_deleted in (False, True):
            for end in ends:
                event = held(company, account, kind)
                ended = company.call("PUT", f"/v1/events/{event}", end)
                assert ended.status == 200, ended
                if is_deleted and end["state"] == "complete":
                    assert company.call("DELETE", f"/v1/events/{event}").status == 200
        assert company.call("DELETE", f"/v1/events/{held(company, account, kind)}").status == 200
        pushed = company.send(account, type=kind, quantity=40)
        assert company.call("DELETE", f"/v1/events/{pushed.data['id']}").status == 200


def overflow(company: Company) -> None:
    """An account on a plan: overage of plain and of counted prices, of overrides and holds, and prices of its own."""
    into = {"overage_charge_denomination": "USD"}
    balances = {
        "credits": {"amount": 10, "overage_charge_amount": "2.5", **into},
        "tokens": {"amount": 10, "overage_charge_amount": "1", "overage_charge_per": 3, **into},
    }
    company.price("TRIPLE", "credits", "3")
    company.price("TRIPLE", "tokens", "2")
    company.price("TRIPLE", "USD", "0.7")
    plan = company.plan(renewals={"MONTHLY": {"amount": 0}}, balances=balances)
    account = company.account(credits=50, tokens=0, USD=5_000)
    company.agreed_price(account, "CHAT", "credits", "1.25")
    company.start(account, plan)
    kinds = ("CHAT", "STORE", "BULK", "SEAT", "TRIPLE")
    sent = [company.send(account, type=kind, quantity=number) for number in range(1, 6) for kind in kinds]
    override = {"type": "ODD", "cost_override_amount": 7, "cost_override_denomination": "credits"}
    sent.append(company.send(account, override, {"type": "TRIPLE"}, {"type": "TRIPLE"}))
    assert all(answer.status == 200 for answer in sent)
    hold(company, account)
    gone = company.send(account, type="TRIPLE", quantity=4).data["id"]
    assert company.call("DELETE", f"/v1/events/{gone}").status == 200
    last = company.send(account, type="TRIPLE", quantity=2)
    assert [cost["denomination"] for cost in last.data["costs"]] == ["USD", "credits", "USD", "tokens", "USD"]
    assert company.send(account, type="TRIPLE", quantity=9, state="pending").status == 200


def held(company: Company, account: str, kind: str) -> str:
    sent = company.send(account, type=kind, quantity=40, state="pending", gate_on_balance=True)
    assert sent.status == 200, sent
    return str(sent.data["id"])


def refuse(company: Company) -> None:
    poor = company.account(credits=2)
    assert company.send(poor, type="CHAT", gate_on_balance=True, key="too poor").status == 402
    assert company.send(poor, {"type": "BOTH"}, {"type": "CHAT", "gate_on_balance": True}).status == 402
    assert company.send(poor, type="BOTH", key="paid").status == 200


def lapse(company: Company, account: str) -> None:
    for kind in ("BOTH", "STORE", "READ"):
        held(company, account, kind)
    assert company.call("POST", "/v1/companies/{company}/clock", {"advance_seconds": 3_700}).status == 200


@pytest.fixture
async def books_open(books: Server) -> AsyncIterator[asyncpg.Connection]:
    """A connection in a transaction that is rolled back: what a test breaks, nobody ever sees."""
    async with torn_open(books.dsn) as connection:
        yield connection


async def findings(connection: asyncpg.Connection, only: str | None = None) -> dict[str, list[audit.Finding]]:
    planned = await audit.plan(connection)
    checks = [check for check in audit.CHECKS if only in {None, check.name}]
    found = [await audit.run(connection, planned, check) for check in checks]
    return {outcome.check: list(outcome.findings) for outcome in found if outcome.total}


async def test_books_that_hold_everything_are_clean(books_open: asyncpg.Connection) -> None:
    planned = await audit.plan(books_open)
    found = [outcome async for outcome in audit.outcomes(books_open, planned)]

    assert [finding for outcome in found for finding in outcome.findings] == []
    assert [outcome.check for outcome in found] == [check.name for check in audit.CHECKS]
    elsewhere = MONEY_COUNTS | PLAN_COUNTS | ORGANIZATION_COUNTS
    elsewhere |= SIGNAL_COUNTS - {"webhooks", "topics", "notifications"}
    assert all(count for name, count in planned.counts.items() if name not in elsewhere), planned.counts


class Wrong(NamedTuple):
    """A fact made wrong by ``sql``, which returns the row (kind, account_id, number, word) that ``check`` must name."""

    check: str
    sql: str
    first: str = ""


@asynccontextmanager
async def torn_open(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection in a transaction that is rolled back: what a test breaks, nobody ever sees."""
    connection = await asyncpg.connect(dsn)
    transaction = connection.transaction(isolation="repeatable_read")
    await transaction.start()
    try:
        yield connection
    finally:
        await transaction.rollback()
        await connection.close()


async def expect_clean(connection: asyncpg.Connection) -> audit.Plan:
    """No check finds anything in the books; what they hold is counted."""
    planned = await audit.plan(connection)
    found = [outcome async for outcome in audit.outcomes(connection, planned)]
    assert [finding for outcome in found for finding in outcome.findings] == []
    return planned


async def expect_named(connection: asyncpg.Connection, wrong: Wrong) -> None:
    """The row that was made wrong is named by its check, with what stands there and what should."""
    if wrong.first:
        await connection.execute(wrong.first)
    row = await connection.fetchrow(wrong.sql)
    assert row is not None, "the books have no such row"

    found = (await findings(connection, wrong.check)).get(wrong.check, [])

    assert audit.row_name(*row) in {finding.row for finding in found}, found
    assert all(finding.stored and finding.expected for finding in found)


def balance(change: str) -> str:
    return f"""update balance set {change} where denomination = 'credits' and account_id = (
        select account_id from event where state = 1 order by id limit 1)
        returning 'balance', account_id, 0::bigint, denomination"""


def event(change: str, where: str) -> str:
    return f"""update event set {change} where (account_id, id) = (
        select account_id, id from event where {where} order by id desc limit 1)
        returning 'event', account_id, id, denomination"""


def charge(change: str, where: str = "true") -> str:
    return f"""update event_charge set {change} where (account_id, event_id, position) = (
        select x.account_id, x.event_id, x.position from event_charge x join event e
        on e.account_id = x.account_id and e.id = x.event_id where {where} order by e.id desc limit 1)
        returning 'event', account_id, event_id, denomination"""


def transaction(change: str, where: str) -> str:
    return f"""update transaction set {change} where (account_id, id) = (
        select account_id, id from transaction where {where} order by id desc limit 1)
        returning 'transaction', account_id, id, denomination"""


def account(change: str, where: str) -> str:
    return f"""update account set {change} where id = (select id from account where {where} order by id limit 1)
        returning 'account', id, 0::bigint, ''"""


def counter(change: str) -> str:
    return f"""update price_counter set {change} where (account_id, price_id) = (
        select account_id, price_id from price_counter order by 1, 2 limit 1)
        returning 'counter', account_id, price_id, period"""


def gated(change: str) -> str:
    return f"""update gated_event set {change} where (account_id, id) = (
        select account_id, id from gated_event where key is not null order by id limit 1)
        returning 'event', account_id, id, ''"""


OVER = "x.prior -> 'overage' is not null and e.state = 0 and e.first is null and x.amount > 1"
OVERAGE = "book = 'overage' and type = 'OVERAGE' and event_count = 1"
SETTLED = "state = 0 and first is not null and amount > 1 and price_version_id is not null"
PLAIN = "state = 0 and first is null and type = 'READ' and amount > 0"
REVERSED = "state = 2 and transaction_seq is not null and amount = 0 and cost <> '0'"
HELD = "state = 1 and type = 'BOTH'"
COUNTED = "state = 0 and first is null and type = 'STORE'"
USAGE = "book = 'usage' and type = 'EVENT'"
ORPHANED = """book = 'usage' and type = 'EVENT' and exists (select from event e where e.account_id =
    transaction.account_id and e.id = first_event_id and state = 2 and expires_at is not null)"""
NO_MOVES = "alter table transaction drop constraint transaction_moves"
NO_SUM = "alter table transaction drop constraint transaction_adds_up"
NO_CLOCK = "alter table environment drop constraint environment_live_clock"
NO_FRACTION = "alter table balance drop constraint balance_residue_fraction"
NO_QUANTITY = "alter table event drop constraint event_quantity_finite"
NO_OWNER = "alter table balance drop constraint balance_account_fkey"

WRONGS = {
    "balance arrived": Wrong("arrived", balance("arrived = arrived + 1")),
    "usage that arrived": Wrong(
        "arrived",
        transaction("book = 'overage'", "book = 'deposit' or book = 'adjustment'").replace(
            "'transaction', account_id, id", "'balance', account_id, 0::bigint"
        ),
    ),
    "overage cost": Wrong("overages", charge("cost = '7/9'", OVER)),
    "overage cost, of a hold": Wrong(
        "overages", charge("cost = '7/9'", "x.prior -> 'overage' is not null and e.state = 1")
    ),
    "overage of other units": Wrong(
        "prices",
        charge('prior = replace(prior::text, \'"units":"\', \'"units":"9\')::json', OVER).replace(
            "returning 'event', account_id, event_id, denomination",
            "returning 'event', account_id, event_id, ''",
        ),
    ),
    "overage of no number of units": Wrong(
        "overages", charge('prior = replace(prior::text, \'"units":"\', \'"units":"many\')::json', OVER)
    ),
    "overage at another price": Wrong(
        "overages",
        "select 'event', account_id, event_id, denomination from event_charge"
        " where prior #>> '{overage,denomination}' = 'credits' order by event_id limit 1",
        "update plan_version set terms = replace(terms::text, '\"2.5\"', '\"2.6\"')::json",
    ),
    "overage by no version": Wrong(
        "overages", charge("prior = replace(prior::text, '\"version_id\":', '\"version_id\":9')::json", OVER)
    ),
    "overage of a balance that was not charged": Wrong(
        "overages", charge("prior = replace(prior::text, 'credits', 'cradits')::json", OVER + " and type = 'CHAT'")
    ),
    "overage with a price of events": Wrong("overages", charge("price_version_id = 7", OVER)),
    "overage in a transaction of usage": Wrong(
        "postings",
        charge(
            "transaction_seq = (select max(seq) from transaction t where t.account_id = event_charge.account_id and"
            " t.denomination = event_charge.denomination and t.book = 'usage' and t.type = 'EVENT')",
            OVER,
        ),
    ),
    "overage balance": Wrong("postings", charge("balance_amount = balance_amount + 1", OVER)),
    "overage told as usage": Wrong(
        "postings",
        "with moved as (update transaction set book = 'usage', type = 'EVENT' where (account_id, id) = (select"
        f" account_id, id from transaction where {OVERAGE} and exists (select from event e where e.account_id ="
        " transaction.account_id and e.id = first_event_id and e.state = 0) order by id limit 1) returning *)"
        " select 'event', account_id, first_event_id, denomination from moved",
    ),
    "overage transaction amount": Wrong(
        "totals", transaction("amount = amount - 1, ending_balance = ending_balance - 1", OVERAGE)
    ),
    "overage transaction events": Wrong("totals", transaction("event_count = event_count + 1", OVERAGE)),
    "overage transaction type": Wrong("totals", transaction("type = 'EVENT'", OVERAGE)),
    "overage reversal amount": Wrong(
        "totals",
        transaction(
            "amount = amount + 3, ending_balance = ending_balance + 3", "type = 'REVERSAL' and book = 'overage'"
        ),
    ),
    "overage in the residue": Wrong(
        "residue",
        transaction("book = 'adjustment'", OVERAGE).replace(
            "'transaction', account_id, id", "'balance', account_id, 0::bigint"
        ),
    ),
    "cost at an own price": Wrong(
        "prices",
        event(
            "cost = '7/9'",
            "state = 0 and first is null and type = 'CHAT' and price_version_id in (select id from price_override)",
        ),
    ),
    "an own price of somebody else": Wrong(
        "prices",
        event(
            "price_version_id = (select max(id) from price_override o where o.account_id <> event.account_id)",
            "type = 'CHAT' and account_id = (select"
            " max(account_id) from price_override) and price_version_id is not null",
        ),
    ),
    "counter of a plan's period": Wrong(
        "counters",
        "update price_counter set billed = '1000003' where (account_id, price_id) = (select account_id, price_id from"
        " price_counter where period not like '%-%' order by 1, 2 limit 1) and period not like '%-%'"
        " returning 'counter', account_id, price_id, period",
    ),
    "prior of a charge that overflowed": Wrong(
        "ratings",
        event(
            "cost = '1/1000003'",
            COUNTED + " and exists (select from event_charge x where x.account_id = event.account_id and"
            " x.event_id = event.id)",
        ),
    ),
    "balance amount": Wrong("balances", balance("amount = amount + 1")),
    "balance amount, end": Wrong("ends", balance("amount = amount - 1")),
    "balance seq": Wrong("ends", balance("seq = seq + 1")),
    "balance pending": Wrong("holds", balance("pending = pending + 1")),
    "balance residue": Wrong("residue", balance("residue_num = 1, residue_den = 1000003")),
    "balance residue of one": Wrong("bounds", balance("residue_num = residue_den"), NO_FRACTION),
    "balance without account": Wrong(
        "owners",
        "insert into balance (account_id, denomination, amount, pending, seq, residue_num, residue_den, created_at,"
        " updated_at) select 36, denomination, 0, 0, 0, 0, 1, created_at, updated_at from balance"
        " limit 1 returning 'balance', account_id, 0::bigint, denomination",
        NO_OWNER,
    ),
    "balance gone": Wrong(
        "owners",
        "with gone as (delete from balance where (account_id, denomination) = (select account_id, denomination"
        " from event where state = 1 and denomination is not null order by id limit 1) returning *)"
        " select 'event', e.account_id, e.id, '' from event e join gone using (account_id, denomination) order by id",
    ),
    "transaction amount": Wrong("chain", transaction("amount = amount - 1", USAGE), NO_SUM),
    "transaction of nothing": Wrong("chain", transaction("amount = 0", USAGE), NO_SUM + ";" + NO_MOVES),
    "transaction start": Wrong("chain", transaction("starting_balance = starting_balance + 1", USAGE), NO_SUM),
    "transaction seq": Wrong("chain", transaction("seq = seq + 1000000", USAGE)),
    "transaction id": Wrong("chain", transaction("id = 5", USAGE).replace("returning", "and id <> 5 returning")),
    "transaction moved with its balance": Wrong(
        "totals", transaction("amount = amount - 1, ending_balance = ending_balance - 1", USAGE)
    ),
    "transaction event count": Wrong("totals", transaction("event_count = event_count + 1", USAGE)),
    "transaction first event": Wrong("totals", transaction("first_event_id = first_event_id - 1", USAGE)),
    "transaction type": Wrong("totals", transaction("type = 'REVERSAL'", USAGE)),
    "settlement of an event taken back": Wrong(
        "totals", transaction("amount = amount - 2, ending_balance = ending_balance - 2", ORPHANED)
    ),
    "reversal amount": Wrong(
        "totals",
        transaction("amount = amount + 2, ending_balance = ending_balance + 2", "type = 'REVERSAL' and book = 'usage'"),
    ),
    "transaction book": Wrong(
        "postings",
        "with moved as (update transaction set book = 'adjustment' where (account_id, id) = (select account_id, id"
        f" from transaction where {USAGE} and event_count = 1 and not exists (select from event e where e.account_id ="
        " transaction.account_id and e.id = first_event_id and e.state = 2) order by id limit 1) returning *)"
        " select 'event', account_id, first_event_id, denomination from moved",
    ),
    "transaction unit cost": Wrong("spellings", transaction("unit_cost = '1/0'", USAGE)),
    "event amount": Wrong(
        "totals",
        event("amount = amount + 1", PLAIN).replace(
            "returning 'event', account_id, id, denomination",
            "returning 'transaction', account_id, (select t.id from transaction t where t.account_id = event.account_id"
            " and t.denomination = event.denomination and t.seq = event.transaction_seq), denomination",
        ),
    ),
    "event amount far off": Wrong("amounts", event("amount = amount + 2", PLAIN)),
    "event balance": Wrong("postings", event("balance_amount = balance_amount + 1", PLAIN)),
    "event of no transaction": Wrong("postings", event("transaction_seq = 999999", PLAIN)),
    "event of a reversal": Wrong(
        "postings",
        event("transaction_seq = null", PLAIN).replace(
            "transaction_seq = null",
            "transaction_seq = (select max(t.seq) from transaction t where t.account_id ="
            " event.account_id and t.denomination = event.denomination and t.type = 'REVERSAL')",
        ),
    ),
    "event moved in no transaction": Wrong("amounts", event("transaction_seq = null", PLAIN)),
    "event first balance": Wrong(
        "postings",
        event(
            "first = replace(first::text, '\"balance_amount\":', '\"balance_amount\":9')::json",
            "state = 2 and expires_at is null and (first #>> '{charges,0,transaction_seq}') is not null",
        ),
    ),
    "event cost": Wrong("prices", event("cost = cost || '0'", PLAIN)),
    "event cost, settled": Wrong("prices", event("cost = '1/1000'", SETTLED + " and type = 'SEVENTH'")),
    "event cost of tiers": Wrong("ratings", event("cost = '1/1000003'", COUNTED)),
    "event cost in words": Wrong("spellings", event("cost = 'much'", PLAIN)),
    "event residue": Wrong("spellings", event("residue = '4/3'", PLAIN)),
    "event residue, last": Wrong(
        "last",
        "update event set residue = '1/1000003' where (account_id, id) = (select account_id, id from event"
        " where denomination = 'USD' order by posting desc limit 1)"
        " returning 'event', account_id, id, denomination",
    ),
    "event prior": Wrong(
        "ratings", event('prior = replace(prior::text, \'"counted":"\', \'"counted":"9\')::json', COUNTED)
    ),
    "event prior gone": Wrong("ratings", event("prior = null", COUNTED)),
    "event prior of another shape": Wrong("ratings", event("prior = '[1]'", COUNTED)),
    "event quantity that cannot be rated": Wrong("ratings", event("quantity = 'NaN'", COUNTED), NO_QUANTITY),
    "event price": Wrong("prices", event("price_version_id = 7", PLAIN)),
    "event price of another type": Wrong("prices", event("type = 'CHAT'", PLAIN)),
    "event override": Wrong("prices", event("price_version_id = null", PLAIN + " and cost like '%/200000'")),
    "event quantity": Wrong("prices", event("quantity = quantity + 0.000000001", PLAIN)),
    "event quantity no number": Wrong("bounds", event("quantity = 'NaN'", "denomination is null"), NO_QUANTITY),
    "event cogs": Wrong("bounds", event("cogs_amount = -1", PLAIN)),
    "event cost beyond all bounds": Wrong("bounds", event("amount = 10000000000000000", PLAIN)),
    "event cost of a reversed one": Wrong("prices", event("cost = '1/1000'", REVERSED + " and type = 'SEVENTH'")),
    "hold amount": Wrong("amounts", event("amount = amount + 1", HELD)),
    "hold without end": Wrong("states", event("expires_at = null", HELD)),
    "hold too long": Wrong("states", event("expires_at = expires_at + interval '1 second'", HELD)),
    "hold finished": Wrong("states", event("finished_at = recorded_at", HELD)),
    "complete with a reason": Wrong("states", event("reason = 1", PLAIN)),
    "complete and finished": Wrong("states", event("finished_at = recorded_at", PLAIN)),
    "complete but held": Wrong("states", event("expires_at = recorded_at + interval '1 hour'", PLAIN)),
    "settled but not finished": Wrong("states", event("finished_at = null", SETTLED)),
    "settled without its first answer": Wrong("states", event("first = null", SETTLED)),
    "cancelled without reason": Wrong("states", event("reason = null", REVERSED)),
    "cancelled, not finished": Wrong("states", event("finished_at = null", REVERSED)),
    "cancelled, but moves": Wrong("amounts", event("amount = 1", REVERSED)),
    "expired at another time": Wrong("states", event("finished_at = recorded_at", "state = 2 and reason = 2")),
    "pushed as cancelled, charged": Wrong("states", event("reason = 0", REVERSED)),
    "half a charge": Wrong("states", event("balance_pending = null", PLAIN)),
    "unknown state": Wrong("states", event("state = 4", PLAIN)),
    "unknown tag": Wrong("states", event("tag = 3", PLAIN)),
    "event without account": Wrong("owners", event("account_id = 35", "denomination is null")),
    "charge amount": Wrong("amounts", charge("amount = amount + 2", "e.state = 0")),
    "charge of an open hold": Wrong("amounts", charge("amount = amount + 1", "e.state = 1")),
    "charge balance": Wrong("postings", charge("balance_amount = 123456", "x.transaction_seq is not null")),
    "charge cost": Wrong("prices", charge("cost = '7/9'", "e.state = 0")),
    "charge without event": Wrong("owners", charge("event_id = 3")),
    "charge in the first one's denomination": Wrong(
        "owners",
        "update event_charge x set denomination = e.denomination from event e where e.account_id = x.account_id"
        " and e.id = x.event_id and (x.account_id, x.event_id) = (select account_id, event_id from event_charge"
        " order by event_id limit 1) returning 'event', x.account_id, x.event_id, x.denomination",
    ),
    "key refused and accepted": Wrong(
        "keys",
        "update event set key = g.key, key_digest = g.key_digest from gated_event g where g.key is not null and"
        " (event.account_id, event.id) = (select e.account_id, e.id from event e where e.account_id = g.account_id"
        " and e.key is not null limit 1) returning 'event', event.account_id, event.id, ''",
    ),
    "key without digest": Wrong("keys", event("key_digest = null", "key is not null")),
    "key digest": Wrong("digests", event(r"key_digest = '\x00112233445566778899aabbccddeeff'", "key is not null")),
    "key of another digest": Wrong("digests", gated("key = 'other'")),
    "refused for no reason": Wrong("refusals", gated("code = 'not_found'")),
    "refusals unmarked": Wrong("refusals", account("has_refusals = false", "has_refusals")),
    "refused event without account": Wrong("owners", gated("account_id = 34")),
    "account tick": Wrong("ticks", account("tick = tick - 1000000", "has_refusals")),
    "account credit limit": Wrong("bounds", account("credit_limit = 9000000000000000", "has_refusals")),
    "counter units": Wrong("counters", counter("units = '1000003'")),
    "counter billed": Wrong("counters", counter("billed = '1/1000003'")),
    "counter in words": Wrong("spellings", counter("billed = 'much'")),
    "counter without price": Wrong("owners", counter("price_id = 33")),
    "counter of no transaction": Wrong("owners", counter("maximum_transaction_id = 32")),
    "live clock": Wrong(
        "environments",
        "update environment set live = true, clock_offset = 1 where id = (select min(id) from environment)"
        " returning 'environment', company_id, id::bigint, 'live'",
        NO_CLOCK,
    ),
    "price terms": Wrong(
        "terms",
        'update event_price_version set terms = \'{"model": "per_unit", "amount": "many"}\''
        " where (environment_id, id) = (select environment_id, id from event_price_version limit 1)"
        " returning 'price', 0::bigint, price_id, number::text",
    ),
    "price amount": Wrong(
        "prices",
        'with dearer as (update event_price_version v set terms = \'{"amount": "4"}\' from event_price p where p.type ='
        " 'CHAT' and p.environment_id = v.environment_id and p.id = v.price_id returning v.*)"
        " select 'event', e.account_id, e.id, '' from event e join dearer d on d.id = e.price_version_id"
        " where e.state = 0 and e.first is null limit 1",
    ),
    "answer not given": Wrong(
        "answers",
        "update stored_answer set status = null where (environment_id, key) = (select environment_id, key from"
        " stored_answer limit 1) returning 'answer', environment_id::bigint, 0::bigint, key",
    ),
}


@pytest.mark.parametrize("name", WRONGS)
async def test_a_wrong_fact_is_named(books_open: asyncpg.Connection, name: str) -> None:
    await expect_named(books_open, WRONGS[name])


async def test_data_that_cannot_be_computed_with_is_a_finding(books_open: asyncpg.Connection) -> None:
    await books_open.execute("update event set first = '{\"charges\": 3}' where first is not null")

    found = await findings(books_open, "postings")

    assert [finding.row for finding in found["postings"]] == ["(unreadable data)"]


async def test_many_findings_are_counted_all_and_named_some(books_open: asyncpg.Connection) -> None:
    await books_open.execute("update event set tag = 3")
    planned = await audit.plan(books_open, limit=5)
    check = next(check for check in audit.CHECKS if check.name == "states")

    outcome = await audit.run(books_open, planned, check)

    assert outcome.total == planned.counts["events"]
    assert len(outcome.findings) == 5


async def test_a_share_of_very_many_events_is_looked_at(
    books_open: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "SAMPLED_FROM", 10)
    await books_open.execute(r"update event set key_digest = decode(md5(key), 'hex')")
    planned = await audit.plan(books_open)
    check = next(check for check in audit.CHECKS if check.name == "digests")

    outcome = await audit.run(books_open, planned, check)

    assert planned.stride > 1
    assert outcome.total < planned.counts["keys"]


def test_the_audit_is_clean_while_load_runs(books: Server) -> None:
    done = threading.Event()
    sent = 0

    def load() -> None:
        nonlocal sent
        with Client(*books.address) as client:
            company = Company.open(client, "Busy")
            listen(company)
            company.price("CHAT", "credits", "1", per=7)
            company.price("STORE", "credits", model="graduated", tiers=TIERS)
            busy = company.account(credits=50)
            while not done.is_set():
                company.send(busy, *({"type": "CHAT", "gate_on_balance": True}, {"type": "STORE"}))
                company.call("PUT", f"/v1/events/{held_any(company, busy)}", {"state": "complete", "quantity": 1})
                sent += 1

    thread = threading.Thread(target=load)
    thread.start()
    try:
        codes = [command("--database", books.dsn).returncode for _ in range(2)]
    finally:
        done.set()
        thread.join()

    assert codes == [0, 0]
    assert sent > 10


def held_any(company: Company, account: str) -> str:
    return str(company.send(account, type="CHAT", quantity=20, state="pending").data["id"])


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line itself, as cron would call it."""
    line = [sys.executable, "-m", "tenuto.cli", "audit", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


async def test_the_command_says_what_it_counted_and_what_disagrees(books: Server) -> None:
    clean = command("--database", books.dsn)
    connection = await asyncpg.connect(books.dsn)
    try:
        row = await connection.fetchrow(balance("pending = pending + 5"))
        broken = command("--database", books.dsn)
        await connection.execute(balance("pending = pending - 5"))
    finally:
        await connection.close()

    assert (clean.returncode, broken.returncode) == (0, 1), clean.stderr + broken.stderr
    assert "accounts" in clean.stdout
    assert row is not None
    assert audit.row_name(*row) in broken.stdout
    assert "holds" in broken.stdout


def test_the_command_ends_with_2_when_it_cannot_run(
    new_database: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    nowhere = command("--database", "postgresql://nobody@127.0.0.1:1/none")
    empty = command("--database", new_database("audit_empty"))
    no_server = command("--data", str(tmp_path_factory.mktemp("nothing")))

    assert [run.returncode for run in (nowhere, empty, no_server)] == [2, 2, 2]
    assert all(run.stderr.startswith("tenuto: ") for run in (nowhere, empty, no_server))


def test_every_check_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()

    assert re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE) == [check.name for check in audit.CHECKS]


def test_every_check_has_a_wrong_fact_that_it_names() -> None:
    elsewhere = {*MONEY_CHECKS, *PLAN_CHECKS, *SIGNAL_CHECKS, *ORGANIZATION_CHECKS, "activity"}
    known = {wrong.check for wrong in WRONGS.values()} | elsewhere
    assert known == {check.name for check in audit.CHECKS}
