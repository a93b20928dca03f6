"""Treasury Management: the list of accounts, an account's page with its tabs, and an event explained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from litestar import Response

from . import account_events, account_overview
from .account_head import head
from .formats import amount, typed_amount
from .frame import Page, Visit
from .invoices import INVOICES as ALL_INVOICES
from .money import PAYMENTS as ALL_PAYMENTS
from .money import TRANSACTIONS as ALL_TRANSACTIONS
from .tables import Column, Listing, export, show

# --- the list ---------------------------------------------------------------------------------------------------------

_STANDS: Final = (
    ("paused", "paused"),
    ("credit_blocked", "blocked"),
    ("usage_suspended", "suspended"),
    ("capture_suspended", "capture suspended"),
)
"""What of an account can stand still, and the word for it in the list."""


def _page_of(row: Mapping[str, Any]) -> str:
    return f"/control/accounts/{row['id']}"


def _plan_of(row: Mapping[str, Any]) -> str:
    return f"/control/plans/{row['plan_id']}" if row["plan_id"] else ""


_NAME: Final = Column("name", "Account", filter="name")
_EMAIL: Final = Column("email", "Email", filter="email")
_PLAN: Final = Column("plan_status", "Plan", "badge", link=_plan_of)
_OPENED: Final = Column("created_at", "Opened", "moment")

ACCOUNTS: Final = Listing(
    name="accounts",
    path="/companies/{company_id}/accounts",
    columns=(
        _NAME,
        _EMAIL,
        _PLAN,
        Column("standing", "Standing", "badges", sorts=False),
        Column("owed", "Owed", sorts=False),
        _OPENED,
    ),
    empty="No account has been opened yet.",
    hint="Open one by New account above, or let a payment link open it for you.",
    anchor=_page_of,
)
_ACCOUNTS_FILE: Final = ACCOUNTS._replace(
    columns=(
        *(Column("id", "Account"), _NAME, _EMAIL, _PLAN, Column("plan_id", "Plan")),
        *(Column(name, label) for name, label in _STANDS),
        *(Column("owed_balances", "Owed"), _OPENED),
    )
)


def _in_file(row: dict[str, Any]) -> dict[str, Any]:
    owed = [f"{name} {typed_amount(units, name)}" for name, units in row["owed_balances"].items() if units]
    return {**row, "owed_balances": owed}


async def accounts(visit: Visit) -> Response[Any]:
    """All accounts of the company, newest first."""
    if visit.query.get("format") == "csv":
        return await export(visit, _ACCOUNTS_FILE, _in_file)
    shown = await show(visit, ACCOUNTS)
    rows = [
        {
            **row,
            "plan_status": None if row["plan_status"] == "NONE" else row["plan_status"].lower(),
            "standing": [word for name, word in _STANDS if row[name]],
            "owed": ", ".join(amount(owed, name, visit.locale) for name, owed in row["owed_balances"].items() if owed),
        }
        for row in shown.rows
    ]
    return visit.page("accounts.html", table=shown._replace(rows=rows))


# --- the tabs of an account -------------------------------------------------------------------------------------------


async def _tab(visit: Visit, tab: str, listing: Listing, **values: Any) -> Response[Any]:
    """A page with one table of the account."""
    account_id = visit.param("account_id")
    if visit.query.get("format") == "csv":
        return await export(visit, listing, account_id=account_id)
    account = await head(visit)
    table = await show(visit, listing, account_id=account_id)
    return visit.page("account_list.html", account=account, tab=tab, table=table, **{"views": (), **values})


_STATES: Final = ("complete", "pending", "cancelled", "suspended")
_TAGS: Final = ("usage", "revenue", "payout")


def event_page(row: Mapping[str, Any]) -> str:
    """The address of the page that explains an event."""
    return f"/control/events/{row['id']}"


EVENTS: Final = Listing(
    name="events",
    path="/accounts/{account_id}/events",
    columns=(
        Column("id", "Event", "code"),
        Column("type", "Type", filter="type"),
        Column("quantity", "Quantity", "number"),
        Column("cost.amount", "Cost", "amount", denomination="cost.denomination"),
        Column("balance.amount", "Balance after", "amount", denomination="balance.denomination"),
        Column("cost.denomination", "Denomination", filter="denomination"),
        Column("state", "State", "badge", filter="state", choices=_STATES),
        Column("tag", "Tag", filter="tag", choices=_TAGS),
        Column("recorded_at", "When", "moment"),
    ),
    empty="No event of this account has been billed.",
    hint="Events that are posted for it stand here, with what each of them cost.",
    anchor=event_page,
    filters=(("key", "Idempotency key"), ("from", "From"), ("to", "To")),
)
REFUSED: Final = Listing(
    name="refused-events",
    path="/accounts/{account_id}/gated_events",
    columns=(
        Column("id", "Event", "code"),
        Column("type", "Type", filter="type"),
        Column("quantity", "Quantity", "number"),
        Column("code", "Refused because", "badge", filter="code"),
        Column("tag", "Tag"),
        Column("key", "Idempotency key", "code", filter="key"),
        Column("recorded_at", "When", "moment"),
    ),
    empty="No event of this account has been refused.",
    hint="Events that were turned away, such as gated ones that its balance does not cover, stand here.",
    filters=(("from", "From"), ("to", "To")),
)


def _views(visit: Visit) -> tuple[tuple[str, str], ...]:
    at = f"/control/accounts/{visit.param('account_id')}"
    return ((f"{at}/events", "Recorded"), (f"{at}/refused", "Refused"))


async def events(visit: Visit) -> Response[Any]:
    """The account's events."""
    return await _tab(visit, "events", EVENTS, title="Events", views=_views(visit))


async def refused(visit: Visit) -> Response[Any]:
    """The account's events that were refused."""
    return await _tab(visit, "events", REFUSED, title="Refused events", views=_views(visit))


def _own(listing: Listing, *others: str, path: str, empty: str, hint: str) -> Listing:
    """A list of the company as one account has it: without the columns and filters that say which account it is."""
    return listing._replace(
        path=path,
        columns=tuple(column for column in listing.columns if column.path not in others),
        filters=tuple((name, label) for name, label in listing.filters if name not in others),
        empty=empty,
        hint=hint,
    )


TRANSACTIONS: Final = _own(
    ALL_TRANSACTIONS,
    "account.name",
    "account_id",
    path="/accounts/{account_id}/transactions",
    empty="No balance of this account has moved yet.",
    hint="Every event, refill and adjustment leaves a transaction here.",
)


async def transactions(visit: Visit) -> Response[Any]:
    """What moved the account's balances."""
    return await _tab(visit, "transactions", TRANSACTIONS, title="Transactions")


PAYMENTS: Final = _own(
    ALL_PAYMENTS,
    "account_id",
    path="/accounts/{account_id}/payments",
    empty="This account has not paid yet.",
    hint="Deposits, refills, plans and invoices that are paid stand here.",
)


async def payments(visit: Visit) -> Response[Any]:
    """The account's payments."""
    return await _tab(visit, "payments", PAYMENTS, title="Payments")


INVOICES: Final = _own(
    ALL_INVOICES,
    "customer.name",
    path="/accounts/{account_id}/invoices",
    empty="This account has no invoice yet.",
    hint="An account that pays by invoice gets one at the end of each of its periods.",
)


async def invoices(visit: Visit) -> Response[Any]:
    """The account's invoices."""
    return await _tab(visit, "invoices", INVOICES, title="Invoices")


PAGES: Final = (
    Page("GET", "/control/accounts", accounts, "accounts:read"),
    Page("GET", "/control/accounts/{account_id}/events", events, "events:read"),
    Page("GET", "/control/accounts/{account_id}/refused", refused, "events:read"),
    Page("GET", "/control/accounts/{account_id}/transactions", transactions, "balances:read"),
    Page("GET", "/control/accounts/{account_id}/payments", payments, "payments:read"),
    Page("GET", "/control/accounts/{account_id}/invoices", invoices, "invoices:read"),
    *account_overview.PAGES,
    *account_events.PAGES,
)
