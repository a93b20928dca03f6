"""The page of a company's customer: a signed link to what one account has, used and paid, and to a top-up of it.

The problem, on one example. Ada opens her page, presses "Pay $10.00" twice, and then loads an old copy of the page:

    what she does                          form      payment
    looks at the page                      k3…       none
    presses, twice in a hurry              k3…       po_…:k3…   one deposit, driven once; both clicks lead to it
    presses again on the page that follows 9f…       po_…:9f…   another deposit: she asked for another
    presses on an old copy of the page     k3…       po_…:k3…   the first one, which is shown again

So a form is paid for at most once: its number, which only this page can have made, is part of the payment's request
key. The link is good for as many visits as there are until it expires. Sources: contract 2.7, 4; bar 4.9 and 5.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, NamedTuple

import structlog

from tenuto.core.identifiers import read_of_account, spell_of_account
from tenuto.core.invoice import Invoice, settings_of
from tenuto.core.money import is_fiat
from tenuto.core.outcomes import Refusal
from tenuto.core.payment import Payment
from tenuto.core.plan import price_of
from tenuto.engine import Engine, Once
from tenuto.store import accounts, invoices, ledger, payments, records, reports, subscriptions
from tenuto.store.accounts import Account, Environment
from tenuto.store.database import Reader, Unit, translated
from tenuto.store.payments import Link, StoredCard
from tenuto.store.records import BalanceRow, Page, Whose

KIND: Final = "portal"
PREFIX: Final = "po"
LIFE: Final = timedelta(days=1)
LIFE_LEAST: Final = timedelta(minutes=5)
LIFE_MOST: Final = timedelta(days=30)
ORIGINS_MAX: Final = 5
ROWS: Final = 12
"""Invoices and payments on the page: the newest."""
DAYS: Final = 30
"""Days of usage on the page, today among them."""
USAGE_SECONDS: Final = 3.0
"""How long the page waits for the sums of usage: without them it shows the rest."""
_SUMMING: Final = asyncio.Semaphore(1)
"""One page at a time sums usage in a worker: however often customers load theirs, others find a free connection."""
SERIES_MAX: Final = 4
"""Denominations whose usage is drawn: those that were used most often."""
_NUMBER: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_log = structlog.get_logger()


# --- links ------------------------------------------------------------------------------------------------------------


async def make_link(
    engine: Engine,
    unit: Unit,
    environment: Environment,
    account_id: int,
    *,
    return_url: str | None,
    origins: Sequence[str],
    life: timedelta,
) -> Link:
    """A link to the page of an account. ``origins`` are the sites that may frame it. Raises Refusal ``not_found``."""
    state = await ledger.take_account(unit, environment.id, account_id, engine.now_of(environment))
    tick = max(engine.tick(), state.tick + 1)
    # The person who opens it lives in real time, whatever the company's test clock says.
    now = engine.now()
    ask = {"embed_origins": list(origins)}
    link = Link(account_id, tick, environment.id, KIND, None, None, return_url, now + life, None, now, ask)
    await payments.insert_link(unit, link)
    await ledger.raise_tick(unit, account_id, tick)
    return link


def public_id(link: Link) -> str:
    """The part of a link's token that says which link it is."""
    return spell_of_account(PREFIX, link.account_id, link.id)


def token_of(engine: Engine, link: Link) -> str:
    """What stands in the address of a page."""
    public = public_id(link)
    return f"{public}.{engine.vault.sign(f'portal {public}')}"


async def open_portal(engine: Engine, token: str) -> tuple[Link, Environment]:
    """The link behind a token and whose it is. Raises Refusal ``link_not_usable``, the same for every reason."""
    public, _, mac = token.partition(".")
    found = read_of_account(PREFIX, public)
    if found is None or not engine.vault.verify(f"portal {public}", mac):
        raise Refusal("link_not_usable")
    async with engine.database.reading() as reader:
        link = await payments.read_link(reader, *found)
    if link is None or link.kind != KIND or link.expires_at <= engine.now():
        raise Refusal("link_not_usable")
    environment = await engine.environment(link.environment_id)
    if environment is None:
        raise Refusal("link_not_usable")
    return link, environment


def origins_of(link: Link) -> list[str]:
    """The sites that may frame the page."""
    return [str(origin) for origin in link.ask["embed_origins"]]


# --- forms ------------------------------------------------------------------------------------------------------------


def make_form(engine: Engine, link: Link) -> str:
    """What the forms of one showing of the page carry: a number and our signature over it."""
    number = secrets.token_hex(16)
    return f"{number}.{engine.vault.sign(f'form {public_id(link)} {number}')}"


def number_of(engine: Engine, link: Link, form: str) -> str:
    """The number of a form of this very page. Raises Refusal ``foreign_form``."""
    number, _, mac = form.partition(".")
    if not _NUMBER.fullmatch(number) or not engine.vault.verify(f"form {public_id(link)} {number}", mac):
        raise Refusal("foreign_form")
    return number


def _once(link: Link, number: str) -> Once:
    """The request key of a form's payment. A caller's own key may read the same; no fingerprint of one does."""
    key = f"{public_id(link)}:{number}"
    return Once(key, hashlib.blake2b(f"portal {key}".encode(), digest_size=16).digest())


async def read_payment(reader: Reader, link: Link, number: str) -> Payment | None:
    """The payment that a form of the page led to."""
    once = _once(link, number)
    found = await payments.find_by_request(reader, link.account_id, once.key) if _NUMBER.fullmatch(number) else None
    return found if found is not None and found.fingerprint == once.fingerprint else None


async def begin_once(
    engine: Engine, link: Link, number: str, begin: Callable[[Unit, Once], Awaitable[Payment]]
) -> tuple[Payment, int | None]:
    """The payment of a form, begun if nobody has, and the fence to drive it with (None where it is in other hands).

    Raises Refusal as ``begin`` does, and ``link_not_usable`` where the link is gone.
    """
    async with translated(), engine.database.writing() as unit:
        await ledger.lock_accounts(unit, [link.account_id])
        known = await read_payment(unit, link, number)
        if known is not None:
            return known, None
        if await payments.read_link(unit, link.account_id, link.id) is None:
            raise Refusal("link_not_usable")
        return await begin(unit, _once(link, number)), 0


# --- what the page shows ----------------------------------------------------------------------------------------------


class PlanView(NamedTuple):
    """The plan an account is on: what it costs each month or year, and until when it is paid for."""

    name: str
    status: str
    cadence: str
    price: int
    denomination: str
    period_end: datetime | None
    ends: bool


class Usage(NamedTuple):
    """What was used on each of ``days``, by denomination."""

    days: list[date]
    amounts: dict[str, list[int]]


class View(NamedTuple):
    """All that the page shows. ``payment`` is what the form that was sent last led to; ``usage`` None: not now."""

    account: Account
    now: datetime
    currency: str
    balances: list[BalanceRow]
    plan: PlanView | None
    card: StoredCard | None
    invoices: list[Invoice]
    payments: list[Payment]
    payment: Payment | None
    usage: Usage | None


async def read_view(engine: Engine, environment: Environment, link: Link, number: str = "") -> View:
    """What the page shows of its one account. Raises Refusal ``link_not_usable`` where that is gone."""
    now = engine.now_of(environment)
    whose = Whose(environment.id, link.account_id, 0)
    async with engine.database.reading() as reader:
        account = await accounts.read_account(reader, environment.id, link.account_id)
        if account is None:
            raise Refusal("link_not_usable")
        balances = await records.list_balances(reader, account.id, now)
        chargeable = await payments.chargeable_card(reader, account.id)
        drafts_too = await invoices.list_invoices(reader, whose, Page(2 * ROWS, None), {})
        view = View(
            account,
            now,
            _currency_of(environment, account, balances),
            balances,
            await _read_plan(reader, environment, account.id),
            None if chargeable is None else chargeable.card,
            [one for one in drafts_too if one.status != "draft"][:ROWS],
            await payments.list_payments(reader, whose, Page(ROWS, None), {}),
            await read_payment(reader, link, number),
            None,
        )
    return view._replace(usage=await _read_usage(engine, environment, account.id, now))


def _currency_of(environment: Environment, account: Account, balances: Sequence[BalanceRow]) -> str:
    """The money that an account tops up: its own currency, else the company's, else that of a balance it has."""
    usual = account.currency or settings_of(environment.money).currency
    held = [row.denomination for row in balances if is_fiat(row.denomination)]
    return usual if usual in held or not held else held[0]


async def read_currency(engine: Engine, environment: Environment, link: Link) -> str:
    """The money that the link's account tops up. Raises Refusal ``link_not_usable`` where the account is gone."""
    async with engine.database.reading() as reader:
        account = await accounts.read_account(reader, environment.id, link.account_id)
        if account is None:
            raise Refusal("link_not_usable")
        balances = await records.list_balances(reader, account.id, engine.now_of(environment))
    return _currency_of(environment, account, balances)


async def _read_plan(reader: Reader, environment: Environment, account_id: int) -> PlanView | None:
    found = await subscriptions.read_subscription(reader, account_id)
    if found is None or not found.is_running:
        return None
    terms = await subscriptions.read_terms(reader, environment.id, account_id, found)
    price = price_of(terms, found.cadence, found.variable_units)
    ends = found.cancels_at_end
    return PlanView(terms.name, found.status, found.cadence, price, terms.denomination, found.period_end, ends)


async def _read_usage(engine: Engine, environment: Environment, account_id: int, now: datetime) -> Usage | None:
    """The sums of the last days; None where the database takes too long for a page that somebody waits for."""
    zone = environment.terms.zone
    today = now.astimezone(zone).date()
    days = [today - timedelta(days=DAYS - 1 - count) for count in range(DAYS)]
    start = datetime.combine(days[0], time(), tzinfo=zone).astimezone(UTC)
    span = reports.Span(
        environment.id, account_id, start, now + timedelta(hours=1), environment.zone_name, environment.clock_offset
    )
    try:
        async with asyncio.timeout(USAGE_SECONDS), _SUMMING, reports.reporting(engine.database) as reader:
            rows, totals = await reports.sum_usage(reader, span, "day", limit=DAYS)
    except TimeoutError:
        _log.warning("portal_usage", outcome="took too long")
        return None
    often = sorted(totals, key=lambda row: (-row["events"], row["denomination"] or ""))
    shown = [row["denomination"] for row in often if row["denomination"] is not None and row["amount"]][:SERIES_MAX]
    amounts = {name: [0] * DAYS for name in sorted(shown)}
    place = {day: index for index, day in enumerate(days)}
    for row in rows:
        if row["denomination"] in amounts and row["bucket"] in place:
            amounts[row["denomination"]][place[row["bucket"]]] += int(row["amount"])
    return Usage(days, amounts)
