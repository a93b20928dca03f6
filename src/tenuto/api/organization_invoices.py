"""Invoices as the people of an organization see them: those there are, and the one that is coming.

Nothing is worked out here: an invoice is the row that its company sees, the coming one is what the sweep of renewals
would do (``service.renewals``). Source: contract 5.7.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tenuto.core.identifiers import read_of_account, spell_of_account
from tenuto.core.invoice import Invoice
from tenuto.core.organization import READ_SCOPE
from tenuto.core.outcomes import Refusal
from tenuto.core.subscription import SOLD
from tenuto.engine import Answer
from tenuto.service import invoicing, renewals
from tenuto.service import organization_plans as own
from tenuto.service.renewals import Upcoming
from tenuto.store import invoices as store
from tenuto.store.accounts import Account
from tenuto.store.records import Page

from . import dialect, shapes
from .dialect import FAMILY
from .organization_plans import amount_in
from .organizations import own_account
from .routes import Call, Route

LISTED_MAX: Final = 1000
"""The newest invoices of an account that are listed: the family knows no pages (contract 5.3)."""


class OwnInvoiceOut(shapes.Shape):
    """An invoice, its amounts in major units. A coming one has no ``id``, ``number`` or PDF.

    ``amount_due`` is what is charged: ``total`` and ``starting_balance`` (above zero the customer owed it before, below
    zero it was held for it), or less where a card cannot be charged so little. ``amount_remaining`` is what of it is
    not paid.
    """

    id: str | msgspec.UnsetType
    number: str | None
    description: str
    status: str
    currency: str
    currency_symbol: str
    subtotal: float
    subtotal_excluding_tax: float
    tax: float
    total: float
    total_excluding_tax: float
    starting_balance: float
    amount_due: float
    amount_paid: float
    amount_remaining: float
    paid: bool
    attempted: bool
    attempt_count: int
    due_date: str | None
    invoice_pdf: str | None
    period_start: str | None
    period_end: str | None
    created_at: str | None


def _shown(call: Call, found: Invoice, attempts: int, token: str) -> OwnInvoiceOut:
    zone, currency = call.member.claims.zone, found.currency
    tax = found.tax + found.tax_included
    due = found.amount_due - found.amount_credited
    return OwnInvoiceOut(
        id=spell_of_account("in", found.account_id, found.id),
        number=found.number,
        description=found.memo or "",
        status=found.status,
        currency=currency,
        currency_symbol=dialect.symbol(currency),
        subtotal=amount_in(found.subtotal, currency),
        subtotal_excluding_tax=amount_in(found.subtotal - found.tax_included, currency),
        tax=amount_in(tax, currency),
        total=amount_in(found.total, currency),
        total_excluding_tax=amount_in(found.total - tax, currency),
        starting_balance=amount_in(-found.applied, currency),
        amount_due=amount_in(due, currency),
        amount_paid=amount_in(found.amount_paid, currency),
        amount_remaining=amount_in(due - found.amount_paid, currency),
        paid=found.status == "paid",
        attempted=attempts > 0,
        attempt_count=attempts,
        due_date=dialect.moment(found.due_at, zone),
        invoice_pdf=f"{call.engine.public_url}/i/{token}/invoice.pdf",
        period_start=dialect.moment(found.period_start, zone),
        period_end=dialect.moment(found.period_end, zone),
        created_at=dialect.moment(found.created_at, zone),
    )


def _coming(call: Call, coming: Upcoming) -> OwnInvoiceOut:
    """What the next renewal comes to. What it sells is the total; what was owed or held before goes with it."""
    step, zone, currency = coming.step, call.member.claims.zone, coming.step.denomination
    sold = sum(line.amount for line in step.lines if line.kind in SOLD and line.denomination == currency)
    before = sum(line.amount for line in step.lines if line.kind not in SOLD and line.denomination == currency)
    tax = sum(line.amount for line in coming.taxes)
    contained = sum(line.amount for line in coming.taxes if line.is_inclusive)
    total = sold + tax - contained
    due = step.charge if coming.way is not None else max(0, total + before - coming.covered)
    begins = step.period.start_at if step.period is not None else coming.subscription.period_start
    ends = step.period.end_at if step.period is not None else coming.subscription.period_end
    return OwnInvoiceOut(
        id=msgspec.UNSET,
        number=None,
        description=next((line.description for line in step.lines if line.kind == "plan"), ""),
        status="draft",
        currency=currency,
        currency_symbol=dialect.symbol(currency),
        subtotal=amount_in(sold, currency),
        subtotal_excluding_tax=amount_in(sold - contained, currency),
        tax=amount_in(tax, currency),
        total=amount_in(total, currency),
        total_excluding_tax=amount_in(total - tax, currency),
        starting_balance=amount_in(before - coming.covered, currency),
        amount_due=amount_in(due, currency),
        amount_paid=0.0,
        amount_remaining=amount_in(due, currency),
        paid=False,
        attempted=False,
        attempt_count=0,
        due_date=dialect.moment(step.at, zone),
        invoice_pdf=None,
        period_start=dialect.moment(begins, zone),
        period_end=dialect.moment(ends, zone),
        created_at=None,
    )


async def _all_shown(call: Call, account: Account, found: list[Invoice]) -> list[OwnInvoiceOut]:
    async with call.engine.database.reading() as reader:
        attempts = await store.read_attempts(reader, account.id)
    tokens = await invoicing.links_to(call.engine, call.environment, account.id, [one.id for one in found])
    return [_shown(call, one, attempts.get(one.id, 0), tokens[one.id]) for one in found]


async def list_own_invoices(call: Call) -> Answer:
    """The invoices of the account, paid and unpaid, newest first; drafts are the company's own."""
    account = await own_account(call)
    async with call.engine.database.reading() as reader:
        found = await store.list_invoices(reader, call.whose(account), Page(LISTED_MAX, None), {})
    return dialect.bare(200, await _all_shown(call, account, [one for one in found if one.status != "draft"]))


async def get_own_invoice(call: Call) -> Answer:
    """One invoice by ``in_…``; by ``sub_…`` the one that is coming for that subscription."""
    account, text = await own_account(call), call.params["own_invoice_id"]
    subscription = read_of_account("sub", text)
    if subscription is not None:
        async with call.engine.database.reading() as reader:
            current = await own.read_current(reader, account)
        if current is None or not current.is_running or subscription != (account.id, current.tick):
            raise Refusal("not_found")
        return dialect.bare(
            200, _coming(call, await renewals.preview_renewal(call.engine, call.environment, account.id))
        )
    named = read_of_account("in", text)
    if named is None or named[0] != account.id:
        raise Refusal("not_found")
    async with call.engine.database.reading() as reader:
        found = await store.read_invoice(reader, call.environment.id, *named)
    if found is None or found.status == "draft":
        raise Refusal("not_found")
    return dialect.bare(200, (await _all_shown(call, account, [found]))[0])


_TAG: Final = "Invoices of organizations"


def _route(path: str, serve: Any, summary: str, **more: Any) -> Route:
    return Route("GET", path, serve, summary, _TAG, OwnInvoiceOut, scope=READ_SCOPE, family=FAMILY, **more)


ROUTES: Final = tuple(
    route
    for top in ("/account", "/billing")
    for route in (
        _route(f"{top}/invoices", list_own_invoices, "List invoices", is_list=True),
        _route(f"{top}/invoices/{{own_invoice_id}}", get_own_invoice, "Get an invoice, or the one that is coming"),
    )
)
