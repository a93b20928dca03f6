"""An account's first page: its headline by how it pays, its charts, and its balances below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from litestar import Response

from tenuto.core.ledger import GRANT_BOOK, TAKEN_BOOKS
from tenuto.core.money import is_fiat

from . import account_charts as charts
from .account_charts import Kind
from .account_head import head
from .frame import Page, Visit
from .tables import Column, Listing, answer

PERIOD_MAX: Final = timedelta(days=400)
"""How far back movements by day can be summed."""

BALANCES: Final = Listing(
    name="balances",
    path="/accounts/{account_id}/balances",
    columns=(
        Column("denomination", "Balance"),
        Column("amount", "Amount", "amount"),
        Column("pending", "Held", "amount"),
        Column("available", "Available", "amount"),
        Column("credit_limit", "Its own credit line", "amount"),
        Column("threshold", "Refilled below", "amount"),
        Column("next_periodic_refill", "Next refill", "moment"),
        Column("managed_by_plan_id", "Plan", "code", link=lambda row: f"/control/plans/{row['managed_by_plan_id']}"),
        Column("updated_at", "Last moved", "moment"),
    ),
    empty="This account has no balance yet.",
    hint="Open one under Admin, put the account on a plan, or post an event: its price opens the balance.",
    anchor=lambda row: f"/control/accounts/{row['account_id']}/admin/balances/{quote(row['denomination'], '')}",
)


async def overview(visit: Visit) -> Response[Any]:
    """The account and its balances; headline and charts come after it, in a part."""
    account = await head(visit)
    values = {"account": account, "asked": visit.query.get("denomination", "")}
    return await answer(visit, BALANCES, "account.html", values, account_id=account["id"])


class Line(NamedTuple):
    """A balance with the credit line that holds for it: its own, else the account's, else the company's."""

    denomination: str
    amount: int
    available: int
    limit: int
    is_funded: bool
    """Whether it has, or gets, units that no plan gives."""
    plan_id: str | None


class Card(NamedTuple):
    """What a plan included of a balance since its period began, what was used of it, and what is left."""

    denomination: str
    included: int
    used: int
    left: int
    share: int
    """Of what is included that is used: 0 to 100."""


class Used(NamedTuple):
    """What events of one type came to: their costs by denomination, and what they cost the company by currency."""

    type: str
    events: int
    quantity: Decimal
    costs: Mapping[str, int]
    cogs: Mapping[str, int]


def line_of(balance: Mapping[str, Any], account_limit: int | None, default: int) -> Line:
    """A balance as the overview judges it."""
    own = balance["credit_limit"]
    limit = own if own is not None else account_limit if account_limit is not None else default
    plan_id = balance["managed_by_plan_id"]
    is_refilled = balance["threshold"] is not None or balance["refill_monthly"]
    is_funded = is_refilled or (plan_id is None and balance["amount"] > 0)
    return Line(balance["denomination"], balance["amount"], balance["available"], limit, is_funded, plan_id)


def chosen(lines: Sequence[Line], movements: Sequence[Mapping[str, Any]], kind: Kind, asked: str) -> Line | None:
    """The balance that the headline is about: the one asked for, else the one that says most of how is paid."""
    for line in lines:
        if line.denomination == asked:
            return line

    def weight(line: Line) -> tuple[bool, bool, bool, int]:
        moved = sum(row["denomination"] == line.denomination for row in movements)
        is_paid_later = kind == "postpaid" and line.limit > 0 and is_fiat(line.denomination)
        return is_paid_later, kind != "postpaid" and line.is_funded, line.plan_id is None, moved

    return max(lines, key=weight, default=None)


def card_of(line: Line, movements: Sequence[Mapping[str, Any]]) -> Card:
    """One balance of a plan, by what has moved since its period began."""
    mine = [row for row in movements if row["denomination"] == line.denomination]
    included = sum(row["amount"] for row in mine if row["book"] == GRANT_BOOK and row["amount"] > 0)
    used = -sum(row["amount"] for row in mine if row["book"] in TAKEN_BOOKS)
    share = min(100, max(0, used * 100 // included)) if included > 0 else 0
    return Card(line.denomination, included, used, line.amount, share)


class _Asking(NamedTuple):
    """What the parts of one page ask about, and when: ``today`` is the day in the company's zone."""

    visit: Visit
    account_id: str
    now: datetime

    @property
    def today(self) -> date:
        return self.now.date()

    def start_of(self, day: date) -> str:
        """The first moment of a day in the company's zone."""
        return datetime.combine(day, time(), tzinfo=self.now.tzinfo).isoformat()

    async def movements(self, since: str, by: str) -> list[dict[str, Any]]:
        query = {"from": since, "by": by}
        found = await self.visit.get("/accounts/{account_id}/movements", query=query, account_id=self.account_id)
        rows: list[dict[str, Any]] = found["rows"]
        return rows


async def figures(visit: Visit) -> Response[Any]:
    """Headline, charts and usage by type: the part of the overview that is summed up."""
    account = await visit.get("/accounts/{account_id}", account_id=visit.param("account_id"))
    zone = visit.environment.terms.zone
    asking = _Asking(visit, account["id"], visit.engine.now_of(visit.environment).astimezone(zone))
    lines = await _lines(visit, account)
    has_plan = account["plan_status"] in charts.RUNNING
    has_credit = any(line.limit > 0 for line in lines) or (not lines and bool(account["credit_limit"]))
    kind = charts.kind_of(has_credit=has_credit, has_plan=has_plan, has_funds=any(line.is_funded for line in lines))
    # One sum serves all charts; revenue, which only a plan has, looks back the furthest.
    months = charts.months_until(asking.today, charts.REVENUE_MONTHS if has_plan else charts.BURN_UP_MONTHS)
    since = asking.start_of(months[0].first)
    movements = await asking.movements(since, "day")
    line = chosen(lines, movements, kind, visit.query.get("denomination", ""))
    spent = 0 if line is None else charts.spend_of(movements, line.denomination, months[-1])
    plan = await visit.get("/accounts/{account_id}/plan", account_id=account["id"]) if has_plan else None
    return visit.page(
        "account_figures.html",
        account=account,
        kind=kind,
        line=line,
        lines=lines,
        spent=spent,
        share=min(100, max(0, spent * 100 // line.limit)) if line is not None and line.limit > 0 else None,
        charts=[
            *([] if line is None or kind == "subscription" else _spend_charts(line, movements, kind, asking.today)),
            *([] if plan is None else [await _revenue(asking, plan, since, movements)]),
        ],
        plan=plan,
        cards=[] if plan is None else await _cards(asking, plan, lines),
        usage=await _usage(asking),
    )


async def _lines(visit: Visit, account: Mapping[str, Any]) -> list[Line]:
    balances = await visit.get("/accounts/{account_id}/balances", account_id=account["id"])
    default = 0
    if visit.may("company:read"):
        default = (await visit.get("/companies/{company_id}"))["default_credit_limit"]
    return [line_of(balance, account["credit_limit"], default) for balance in balances]


def _spend_charts(line: Line, movements: Sequence[Mapping[str, Any]], kind: Kind, today: date) -> list[charts.Chart]:
    """Burn-up for whoever pays as they go, and burn-down for what they paid before."""
    up = charts.burn_up(movements, line.denomination, today, limit=line.limit)
    if kind == "postpaid":
        return [up]
    return [up, charts.burn_down(movements, line.denomination, line.amount, today)]


async def _revenue(
    asking: _Asking, plan: Mapping[str, Any], since: str, movements: Sequence[Mapping[str, Any]]
) -> charts.Chart:
    """What the account brought in; who may not read payments sees no top-ups."""
    paid: list[dict[str, Any]] = []
    if asking.visit.may("payments:read"):
        query = {"from": since, "by": "month"}
        found = await asking.visit.get("/accounts/{account_id}/revenue", query=query, account_id=asking.account_id)
        paid = found["rows"]
    return charts.revenue(movements, paid, plan["renewal_denomination"], asking.today)


async def _cards(asking: _Asking, plan: Mapping[str, Any], lines: Sequence[Line]) -> list[Card]:
    """One card for each balance that the plan fills."""
    metered = [line for line in lines if line.plan_id is not None]
    if not metered:
        return []
    since = max(datetime.fromisoformat(plan["period_start"]), asking.now - PERIOD_MAX + timedelta(days=1))
    if since > asking.now:
        return []
    movements = await asking.movements(since.isoformat(), "month")
    return [card_of(line, movements) for line in metered]


async def _usage(asking: _Asking) -> list[Used]:
    """What was used this month, by type."""
    if not asking.visit.may("events:read"):
        return []
    query = {"from": asking.start_of(asking.today.replace(day=1)), "by": "type"}
    found = await asking.visit.get("/accounts/{account_id}/usage", query=query, account_id=asking.account_id)
    return by_type(found["rows"])


def by_type(rows: Sequence[Mapping[str, Any]]) -> list[Used]:
    """Usage with one row a type, whatever balances it took from, in the order that the rows came in."""
    found: dict[str, Used] = {}
    for row in rows:
        name = row["bucket"]
        used = found.get(name, Used(name, 0, Decimal(0), {}, {}))
        costs, cogs = dict(used.costs), dict(used.cogs)
        if row["denomination"] is not None:
            costs[row["denomination"]] = costs.get(row["denomination"], 0) + row["amount"]
        for currency, amount in row["cogs"].items():
            cogs[currency] = cogs.get(currency, 0) + amount
        found[name] = Used(name, used.events + row["events"], used.quantity + Decimal(row["quantity"]), costs, cogs)
    return list(found.values())


PAGES: Final = (
    Page("GET", "/control/accounts/{account_id}", overview, "balances:read"),
    Page("GET", "/control/accounts/{account_id}/charts", figures, "balances:read", is_slow=True),
)
