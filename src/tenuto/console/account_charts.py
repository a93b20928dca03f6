"""What an account's page draws: how its spend burns up, its balance burns down, and what its plan brought in.

The problem, on one example. On the second of March a balance of 500 cents has moved three times: a top-up of 100 in
February, and usage of 3 on each of the first two days of March. Its charts say

    burn-up, March       0.03  0.06
    burn-up, February    0.00  0.00 ...      what was spent by the same day of the month
    burn-down            5.06 ... 5.03  5.00

from the sums by day that the API gives; a day on which nothing moved keeps what the day before had. Amounts are whole
units until a chart is drawn in major units, and the numbers under it are whole units again. Source: contract 4.
"""

from __future__ import annotations

from calendar import monthrange
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from tenuto.core.ledger import OVERAGE_BOOK, PLAN_BOOK, PRORATION_BOOK, TAKEN_BOOKS

from .formats import in_major

Kind: TypeAlias = Literal["postpaid", "subscription", "prepaid", "hybrid"]
Row: TypeAlias = Mapping[str, Any]

RUNNING: Final = frozenset({"TRIALING", "ACTIVE", "PAST_DUE", "PAUSED"})
"""The states of a plan that somebody is on."""
TOP_UPS: Final = frozenset({"deposit", "refill", "threshold_refill", "refill_start"})
"""Why a payment buys units beside a plan."""
BURN_UP_MONTHS: Final = 3
BURN_DOWN_DAYS: Final = 60
REVENUE_MONTHS: Final = 6
MONTH_LENGTH: Final = len("2026-11")
LINE_FROM: Final = 5
"""The credit line is drawn from a fifth of it on."""


def kind_of(*, has_credit: bool, has_plan: bool, has_funds: bool) -> Kind:
    """How an account pays, by what it has: a credit line, a plan that runs, funds of its own that no plan gave.

    A credit line covers what funds do not, so both together are still paid afterwards; a plan beside either is hybrid.
    """
    if has_plan:
        return "hybrid" if has_credit or has_funds else "subscription"
    return "postpaid" if has_credit else "prepaid"


class Chart(NamedTuple):
    """A chart with its numbers: ``heads`` and ``rows`` are the table under it, whole units of ``denomination``."""

    name: str
    title: str
    label: str
    config: dict[str, Any]
    heads: Sequence[str]
    rows: Sequence[tuple[str, Sequence[int | None]]]
    denomination: str


class Month(NamedTuple):
    """A calendar month."""

    year: int
    month: int

    @property
    def name(self) -> str:
        """As the API spells it: 2026-11."""
        return f"{self.year:04}-{self.month:02}"

    @property
    def first(self) -> date:
        """Its first day."""
        return date(self.year, self.month, 1)

    @property
    def days(self) -> int:
        """How many days it has."""
        return monthrange(self.year, self.month)[1]


def months_until(today: date, count: int) -> list[Month]:
    """The last ``count`` months, this one last."""
    whole = today.year * 12 + today.month - 1
    return [Month(one // 12, one % 12 + 1) for one in range(whole - count + 1, whole + 1)]


def _drawn_all(amounts: Iterable[int | None], denomination: str) -> list[float | None]:
    return [in_major(amount, denomination) for amount in amounts]


# --- spend ------------------------------------------------------------------------------------------------------------


def spend_by_day(movements: Sequence[Row], denomination: str) -> dict[str, int]:
    """What events took of a balance, by day; what was given back for events taken back is subtracted."""
    spent: dict[str, int] = defaultdict(int)
    for row in movements:
        if row["denomination"] == denomination and row["book"] in TAKEN_BOOKS:
            spent[row["bucket"]] -= row["amount"]
    return spent


def spend_of(movements: Sequence[Row], denomination: str, month: Month) -> int:
    """What events took of a balance in one month."""
    spent = spend_by_day(movements, denomination)
    return sum(amount for day, amount in spent.items() if day.startswith(month.name))


def burn_up(movements: Sequence[Row], denomination: str, today: date, *, limit: int = 0) -> Chart:
    """Spend since the month began, by day, beside that of earlier months.

    The credit line ``limit`` is drawn in where spend comes near enough to it to be seen beside it.
    """
    spent, months = spend_by_day(movements, denomination), months_until(today, BURN_UP_MONTHS)[::-1]
    lines = {month: _cumulated(spent, month, today) for month in months}
    sets = [
        {"label": "This month" if month is months[0] else month.name, "data": _drawn_all(lines[month], denomination)}
        for month in months
    ]
    most = max((amount for line in lines.values() for amount in line if amount is not None), default=0)
    if limit and most * LINE_FROM >= limit:
        line = [in_major(limit, denomination)] * 31
        sets.append({"label": "Credit line", "data": line, "borderDash": [6, 4]})
    days = [str(day) for day in range(1, 32)]
    return Chart(
        "burn-up",
        "Spend in the month",
        f"Spend in {denomination} by day of the month, this month and the two before it",
        {"type": "line", "data": {"labels": days, "datasets": sets}, "options": {"scales": _from_zero(denomination)}},
        [month.name for month in months],
        [(day, [lines[month][at] for month in months]) for at, day in enumerate(days)],
        denomination,
    )


def _cumulated(spent: Mapping[str, int], month: Month, today: date) -> list[int | None]:
    """What was spent by the end of each day; None for days that the month does not have, or that are to come."""
    found: list[int | None] = []
    whole = 0
    for day in range(1, 32):
        if day > month.days or month.first + timedelta(days=day - 1) > today:
            found.append(None)
            continue
        whole += spent.get(f"{month.name}-{day:02}", 0)
        found.append(whole)
    return found


def _from_zero(denomination: str, *, is_stacked: bool = False) -> dict[str, Any]:
    title = {"display": True, "text": denomination}
    return {
        "x": {"stacked": is_stacked, "grid": {"display": False}, "ticks": {"maxRotation": 0, "autoSkipPadding": 28}},
        "y": {"stacked": is_stacked, "beginAtZero": True, "title": title},
    }


# --- balances ---------------------------------------------------------------------------------------------------------


def burn_down(movements: Sequence[Row], denomination: str, amount: int, today: date) -> Chart:
    """What was on a balance at the end of each of the last days; ``amount`` is what is on it now."""
    days = [today - timedelta(days=back) for back in range(BURN_DOWN_DAYS - 1, -1, -1)]
    ends = _ends_of_days(movements, denomination, amount, days)
    names = [day.isoformat() for day in days]
    shown = {"label": "Balance", "data": _drawn_all(ends, denomination), "stepped": "after"}
    return Chart(
        "burn-down",
        "Balance",
        f"The balance in {denomination} at the end of each of the last {BURN_DOWN_DAYS} days",
        {
            "type": "line",
            "data": {"labels": names, "datasets": [shown]},
            "options": {"scales": _from_zero(denomination)},
        },
        ["Balance"],
        [(name, [end]) for name, end in zip(names, ends, strict=True)],
        denomination,
    )


def _ends_of_days(movements: Sequence[Row], denomination: str, amount: int, days: Sequence[date]) -> list[int]:
    ends: dict[str, int] = {}
    moved: dict[str, int] = defaultdict(int)
    for row in movements:
        if row["denomination"] == denomination:
            ends[row["bucket"]] = row["ending_balance"]
            moved[row["bucket"]] += row["amount"]
    first = min(ends, default="")
    now = ends[first] - moved[first] if first else amount
    found = []
    for name in sorted({*ends, *(day.isoformat() for day in days)}):
        now = ends.get(name, now)
        if name >= days[0].isoformat():
            found.append(now)
    return found[: len(days)]


# --- revenue ----------------------------------------------------------------------------------------------------------


def revenue(movements: Sequence[Row], paid: Sequence[Row], denomination: str, today: date) -> Chart:
    """What an account brought in by month: by its plan, by top-ups that were paid, and by overage.

    ``movements`` are summed by day or month, ``paid`` is the account's revenue by month: a top-up stands where it
    succeeded, what went back where it did. One charged against another balance brings in nothing new.
    """
    months = [month.name for month in months_until(today, REVENUE_MONTHS)]
    parts: dict[str, dict[str, int]] = {name: defaultdict(int) for name in ("Core plan", "Top-ups", "Overage")}
    books = {PLAN_BOOK: "Core plan", PRORATION_BOOK: "Core plan", OVERAGE_BOOK: "Overage"}
    for row in movements:
        part = books.get(row["book"])
        if part is not None and row["denomination"] == denomination:
            parts[part][row["bucket"][:MONTH_LENGTH]] -= row["amount"]
    for row in paid:
        if row["reason"] in TOP_UPS and row["currency"] == denomination:
            parts["Top-ups"][row["bucket"][:MONTH_LENGTH]] += row["net"]
    sets = [
        {"label": name, "data": _drawn_all((part.get(month, 0) for month in months), denomination)}
        for name, part in parts.items()
    ]
    scales = _from_zero(denomination, is_stacked=True)
    return Chart(
        "revenue",
        "Revenue by month",
        f"Revenue in {denomination} by month, split into core plan, top-ups and overage",
        {"type": "bar", "data": {"labels": months, "datasets": sets}, "options": {"scales": scales}},
        list(parts),
        [(month, [part.get(month, 0) for part in parts.values()]) for month in months[::-1]],
        denomination,
    )
