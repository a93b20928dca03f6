"""Sums for people who count money: usage and movements of one account, and the reports of a company.

A span is half-open and in the company's own days: without ``from`` and ``to`` it is the calendar month that is now.
What a report says can be found again in the lists: each row of it carries the filters by which they show its records.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary, WeakValueDictionary

import msgspec

from tenuto.core.identifiers import spell
from tenuto.core.outcomes import Refusal, invalid
from tenuto.core.period import day_after, instant, month_of, month_start
from tenuto.engine import Answer, Engine
from tenuto.store import reports
from tenuto.store.database import Reader, Record
from tenuto.store.records import quantity_text
from tenuto.store.reports import Span

from . import shapes
from .body import spelled
from .report_shapes import (
    AccountRevenueOut,
    AccountRowOut,
    AccountsReportOut,
    CostRowOut,
    CostsReportOut,
    CostTotalOut,
    FiguresOut,
    MoneyFigureOut,
    MovementRowOut,
    MovementsOut,
    OwedReportOut,
    OwedRowOut,
    OwedTotalOut,
    ParkedOut,
    ParkedRowOut,
    PlanMovementOut,
    RecurringReportOut,
    RecurringRowOut,
    RecurringTotalOut,
    ReportRowOut,
    RevenueReportOut,
    RevenueRowOut,
    RevenueTotalOut,
    TotalOut,
    UsageOut,
    UsageReportOut,
    UsageRowOut,
)
from .routes import Call, Param, Route

FIRST_YEAR: Final = 1971
LAST_YEAR: Final = 2900
DAYS_MAX: Final = 400
MONTHS_MAX: Final = 3700
"""The longest span in days of a report by day, and of any other."""


# --- spans ------------------------------------------------------------------------------------------------------------


def span_of(call: Call, account_id: int | None, *, days_max: int = MONTHS_MAX) -> Span:
    """The span that is asked for; without one this calendar month. Raises Refusal where it is none, or too long."""
    filters, environment = call.filters(), call.environment
    zone, now = environment.terms.zone, call.engine.now_of(environment)
    start, end = filters.get("from"), filters.get("to")
    assert start is None or isinstance(start, datetime)
    assert end is None or isinstance(end, datetime)
    for name, at in (("from", start), ("to", end)):
        if at is not None and not FIRST_YEAR <= at.year <= LAST_YEAR:
            raise invalid(name, f"is between {FIRST_YEAR} and {LAST_YEAR}.", "out_of_range")
    if start is None:
        start = month_start(month_of(now if end is None else end - timedelta(microseconds=1), zone), 0, zone)
    if end is None:
        end = month_start(month_of(max(now, start), zone), 1, zone)
    if end <= start:
        raise invalid("to", "is after from.")
    if end - start > timedelta(days=days_max):
        raise invalid("to", f"is at most {days_max} days after from.", "out_of_range")
    return Span(environment.id, account_id, start, end, environment.zone_name, environment.clock_offset)


def _asked_by(call: Call, default: str) -> str:
    return str(call.filters().get("by", default))


def _days_max(by: str) -> int:
    return DAYS_MAX if by == "day" else MONTHS_MAX


def _bucket(value: Any, by: str) -> str:
    """A bucket as it is spelled: a day, a month, a type."""
    return value.isoformat()[:7] if by == "month" else value.isoformat() if by == "day" else str(value)


def _cut(rows: Sequence[Record], limit: int) -> tuple[list[Record], bool]:
    """Rows without those that were only read to know whether there are more."""
    kept = [row for row in rows if row["rank"] <= limit]
    return kept, len(kept) < len(rows)


def _cogs(text: str) -> dict[str, int]:
    return {name: int(amount) for name, amount in msgspec.json.decode(text, type=dict[str, int]).items()}


# --- of one account ---------------------------------------------------------------------------------------------------


async def account_usage(call: Call) -> Answer:
    """What an account used, by day, month or type."""
    account = await call.account()
    by = _asked_by(call, "type")
    span = span_of(call, account.id, days_max=_days_max(by))
    async with _turn(call) as reader:
        found, _ = await reports.sum_usage(reader, span, by, limit=TYPES_MAX)
    rows, has_more = (found, False) if by in {"day", "month"} else _cut(found, TYPES_MAX)
    return Answer(
        200,
        shapes.wrapped(
            UsageOut(
                spell("a", account.id),
                str(spelled(span.start)),
                str(spelled(span.end)),
                by,
                [_usage_row(row, by) for row in rows],
                has_more,
            )
        ),
    )


def _usage_row(row: Record, by: str) -> UsageRowOut:
    return UsageRowOut(
        _bucket(row["bucket"], by),
        row["denomination"],
        row["events"],
        quantity_text(row["quantity"]),
        int(row["amount"]),
        _cogs(row["cogs"]),
    )


async def account_movements(call: Call) -> Answer:
    """What moved the balances of an account, by day or month."""
    account = await call.account()
    by = _asked_by(call, "day")
    span = span_of(call, account.id, days_max=_days_max(by))
    async with _turn(call) as reader:
        found = await reports.sum_movements(reader, span, by)
    rows = [
        MovementRowOut(
            _bucket(row["bucket"], by), row["denomination"], row["book"], int(row["amount"]), row["ending_balance"]
        )
        for row in found
    ]
    out = MovementsOut(spell("a", account.id), str(spelled(span.start)), str(spelled(span.end)), by, rows)
    return Answer(200, shapes.wrapped(out))


async def account_revenue(call: Call) -> Answer:
    """What an account paid less what went back, by day or month, reason and currency, as the company's report says."""
    account = await call.account()
    by = _asked_by(call, "month")
    span = span_of(call, account.id, days_max=_days_max(by))
    rows, totals = await _revenue(call, span, by)
    return Answer(200, shapes.wrapped(AccountRevenueOut(spell("a", account.id), *_ends(span), by, rows, totals)))


# --- of a company -----------------------------------------------------------------------------------------------------


class Turns:
    """Whose report is being made in this worker: one of a company at a time, and few of all."""

    def __init__(self) -> None:
        self.of_all = asyncio.Semaphore(REPORTS_MAX)
        self.of_company: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()


_TURNS: Final[WeakKeyDictionary[Engine, Turns]] = WeakKeyDictionary()


@asynccontextmanager
async def _turn(call: Call) -> AsyncIterator[Reader]:
    """A connection for a report, when it is this company's turn. Raises Refusal ``overloaded``."""
    turns = _TURNS.setdefault(call.engine, Turns())
    lock = turns.of_company.setdefault(call.environment.company_id, asyncio.Lock())
    taken: list[asyncio.Lock | asyncio.Semaphore] = []
    try:
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                for gate in (lock, turns.of_all):
                    await gate.acquire()
                    taken.append(gate)
        except TimeoutError as error:
            raise Refusal("overloaded", "Another report is being made; ask again in a moment.") from error
        try:
            async with reports.reporting(call.engine.database) as reader:
                yield reader
        except TimeoutError as error:
            raise Refusal("overloaded", "The report takes too long; ask for a shorter span.") from error
    finally:
        for gate in taken:
            gate.release()


def _ends(span: Span) -> tuple[str, str]:
    return str(spelled(span.start)), str(spelled(span.end))


def _filters(span: Span, **more: str | None) -> dict[str, str]:
    """The filters of the list of events that show what a row is the sum of."""
    start, end = _ends(span)
    chosen = {name: value for name, value in more.items() if value is not None}
    return {"state": "complete", **chosen, "recorded_from": start, "recorded_to": end}


async def usage_report(call: Call) -> Answer:
    """What all accounts used, by type, day or month."""
    call.company()
    by, event_type = _asked_by(call, "type"), call.filters().get("type")
    span, limit = span_of(call, None, days_max=_days_max(by)), call.limit()
    async with _turn(call) as reader:
        found, whole = await reports.sum_usage(
            reader, span, by, limit=limit, event_type=None if event_type is None else str(event_type)
        )
    rows, has_more = (found, False) if by in {"day", "month"} else _cut(found, limit)
    out = UsageReportOut(*_ends(span), by, [_report_row(call, span, row, by) for row in rows], _totals(whole), has_more)
    return Answer(200, shapes.wrapped(out))


def _report_row(call: Call, span: Span, row: Record, by: str) -> ReportRowOut:
    found = _usage_row(row, by)
    event_type = found.bucket if by == "type" else call.query.get("type")
    part = span if by == "type" else _part(call, span, row["bucket"], by)
    filters = _filters(part, type=event_type, denomination=found.denomination)
    return ReportRowOut(**msgspec.structs.asdict(found), filters=filters)


def _part(call: Call, span: Span, first: date, by: str) -> Span:
    """The day or month of a span that begins with a day."""
    zone = call.environment.terms.zone
    start = instant(datetime(first.year, first.month, first.day), zone)  # noqa: DTZ001 - wall time, given its zone next
    end = day_after(start, 1, zone) if by == "day" else month_start(first, 1, zone)
    return span._replace(start=max(start, span.start), end=min(end, span.end))


def _totals(whole: Sequence[Record]) -> list[TotalOut]:
    return [
        TotalOut(
            row["denomination"], row["events"], quantity_text(row["quantity"]), int(row["amount"]), _cogs(row["cogs"])
        )
        for row in whole
    ]


async def accounts_report(call: Call) -> Answer:
    """The accounts that were charged most for usage."""
    call.company()
    span, limit = span_of(call, None), call.limit()
    async with _turn(call) as reader:
        found, whole = await reports.sum_usage(reader, span, "account", limit=limit)
    kept, has_more = _cut(found, limit)
    rows = []
    for row in kept:
        account_id, shown = spell("a", row["bucket"]), _usage_row(row, "account")
        filters = _filters(span, account_id=account_id, denomination=shown.denomination)
        used = {name: value for name, value in msgspec.structs.asdict(shown).items() if name != "bucket"}
        rows.append(AccountRowOut(account_id=account_id, name=row["name"], **used, filters=filters))
    return Answer(200, shapes.wrapped(AccountsReportOut(*_ends(span), rows, _totals(whole), has_more)))


async def costs_report(call: Call) -> Answer:
    """What usage brought, what it cost, and what is left, by type, account, day or month."""
    call.company()
    by, limit = _asked_by(call, "type"), call.limit()
    span = span_of(call, None, days_max=_days_max(by))
    async with _turn(call) as reader:
        found, whole = await reports.sum_costs(reader, span, by, limit=limit)
    kept, has_more = (found, False) if by in {"day", "month"} else _cut(found, limit)
    rows = [_cost_row(call, span, row, by) for row in kept]
    totals = [CostTotalOut(row["currency"], *_margin(row)) for row in whole]
    return Answer(200, shapes.wrapped(CostsReportOut(*_ends(span), by, rows, totals, has_more)))


def _cost_row(call: Call, span: Span, row: Record, by: str) -> CostRowOut:
    match by:
        case "type":
            bucket, filters = row["bucket"], _filters(span, type=row["bucket"])
        case "account":
            bucket = spell("a", row["bucket"])
            filters = _filters(span, account_id=bucket)
        case _:
            bucket, filters = _bucket(row["bucket"], by), _filters(_part(call, span, row["bucket"], by))
    return CostRowOut(bucket, row["name"], row["currency"], *_margin(row), filters)


def _margin(row: Record) -> tuple[int, int, int, str | None]:
    """Revenue, cogs, margin, and the margin as a percentage of revenue with one digit after the point."""
    revenue, cogs = int(row["revenue"]), int(row["cogs"])
    percent = None if not revenue else f"{Decimal(revenue - cogs) * 100 / revenue:.1f}"
    return revenue, cogs, revenue - cogs, percent


async def revenue_report(call: Call) -> Answer:
    """Payments that succeeded less what went back, by day or month, reason and currency."""
    call.company()
    by = _asked_by(call, "month")
    span = span_of(call, None, days_max=_days_max(by))
    rows, totals = await _revenue(call, span, by)
    return Answer(200, shapes.wrapped(RevenueReportOut(*_ends(span), by, rows, totals)))


async def _revenue(call: Call, span: Span, by: str) -> tuple[list[RevenueRowOut], list[RevenueTotalOut]]:
    """Revenue of a company or of one account, row by row and in each currency."""
    async with _turn(call) as reader:
        found = await reports.sum_revenue(reader, span, by)
    rows = []
    sums: dict[str, dict[str, int]] = {}
    for row in found:
        moved = _moved(row)
        whole = sums.setdefault(row["currency"], dict.fromkeys(moved, 0))
        for name, number in moved.items():
            whole[name] += number
        rows.append(
            RevenueRowOut(
                **_named(currency=row["currency"], **moved),
                bucket=_bucket(row["bucket"], by),
                reason=row["reason"],
                filters=_paid(_part(call, span, row["bucket"], by), row["reason"], row["currency"]),
            )
        )
    totals = [RevenueTotalOut(**_named(currency=currency, **moved)) for currency, moved in sorted(sums.items())]
    return rows, totals


def _paid(part: Span, reason: str, currency: str) -> dict[str, str]:
    """The filters of the list of payments that show what came in, in a row of revenue."""
    start, end = _ends(part)
    return {
        "status": "paid",
        "reason": reason,
        "currency": currency,
        "finished_from": start,
        "finished_to": end,
    }


def _moved(row: Record) -> dict[str, int]:
    names = ("payments", "amount", "refunds", "refunded", "disputes", "disputed")
    moved = {name: int(row[name]) for name in names}
    return {**moved, "net": moved["amount"] - moved["refunded"] - moved["disputed"]}


def _named(**fields: Any) -> dict[str, Any]:
    """Fields of a shape that come from one row each, by name."""
    return fields


async def owed_report(call: Call) -> Answer:
    """Accounts that owe, and how much."""
    call.company()
    limit, now = call.limit(), call.engine.now_of(call.environment)
    async with _turn(call) as reader:
        found, whole = await reports.sum_owed(reader, call.environment.id, now, limit=limit)
    kept, has_more = _cut(found, limit)
    rows = [
        OwedRowOut(
            account_id=spell("a", row["bucket"]),
            name=row["name"],
            currency=row["currency"],
            owed=int(row["owed"]),
            overdue=int(row["overdue"]),
            invoices=row["invoices"],
            due_at=spelled(row["due_at"]),
            negative=int(row["negative"]),
            filters={"status": "open", "currency": row["currency"]},
        )
        for row in kept
    ]
    totals = [
        OwedTotalOut(
            row["currency"], *(int(row[name]) for name in ("accounts", "owed", "overdue", "invoices", "negative"))
        )
        for row in whole
    ]
    return Answer(200, shapes.wrapped(OwedReportOut(str(spelled(now)), rows, totals, has_more)))


async def mrr_report(call: Call) -> Answer:
    """What subscriptions pay in a month, by plan, and who came and went."""
    call.company()
    span, now = span_of(call, None), call.engine.now_of(call.environment)
    async with _turn(call) as reader:
        found = await reports.sum_plans(reader, call.environment.id)
        moved = await reports.sum_movement_of_plans(reader, span)
        names = await reports.plan_names(reader, call.environment.id)
    rows = [
        RecurringRowOut(**_named(currency=currency, **numbers), plan_id=spell("p", plan_id), name=names[plan_id])
        for (plan_id, currency), numbers in _recurring(found).items()
    ]
    sums: dict[str, dict[str, int]] = {}
    for row in rows:
        whole = sums.setdefault(row.currency, dict.fromkeys(_RECURRING, 0))
        for name in _RECURRING:
            whole[name] += getattr(row, name)
    totals = [RecurringTotalOut(**_named(currency=currency, **whole)) for currency, whole in sums.items()]
    movement = [
        PlanMovementOut(**_named(**{**dict(row), "plan_id": spell("p", row["plan_id"])}), name=names[row["plan_id"]])
        for row in sorted(moved, key=lambda row: names[row["plan_id"]])
    ]
    out = RecurringReportOut(str(spelled(now)), *_ends(span), rows, totals, movement)
    return Answer(200, shapes.wrapped(out))


def _recurring(found: Sequence[Record]) -> dict[tuple[int, str], dict[str, int]]:
    """By plan and currency: how many subscriptions of each status there are, and what they pay a month."""
    exact: dict[tuple[int, str], dict[str, Fraction]] = {}
    for row in found:
        numbers = exact.setdefault((row["plan_id"], row["currency"]), dict.fromkeys(_RECURRING, Fraction(0)))
        status = row["status"]
        numbers[status] += row["subscriptions"]
        share = Fraction(int(row["amount"]), MONTHS[row["cadence"]])
        numbers["mrr" if status == "active" else f"{status}_mrr"] += share
    return {key: {name: round(number) for name, number in numbers.items()} for key, numbers in exact.items()}


_RECURRING: Final = ("active", "mrr", "past_due", "past_due_mrr", "trialing", "trialing_mrr")
MONTHS: Final = {"MONTHLY": 1, "YEARLY": 12}
"""How many months a period of each cadence is."""
WAIT_SECONDS: Final = 15.0
"""How long a report waits for its turn."""
REPORTS_MAX: Final = 2
"""How many reports are made at a time in one worker."""
TYPES_MAX: Final = 1000
"""The most types of events that are told of one account and denomination."""

_SPAN: Final = (
    Param("from", "moment", "Recorded at or after this time; without it, since this calendar month began."),
    Param("to", "moment", "Recorded before this time; without it, until this calendar month ends."),
)

# --- figures ----------------------------------------------------------------------------------------------------------


class Kept(NamedTuple):
    """What was found, and until when it is told to others, on the worker's own clock."""

    until: float
    found: Any


_KEPT: Final[WeakKeyDictionary[Engine, dict[tuple[int, str], Kept]]] = WeakKeyDictionary()


async def _once_in(call: Call, name: str, seconds: float, read: Callable[[], Awaitable[Any]]) -> Any:
    """What ``read`` found for this half of the company less than so many seconds ago; for all who ask."""
    kept = _KEPT.setdefault(call.engine, {})
    key, now = (call.environment.id, name), time.monotonic()
    known = kept.get(key)
    if known is None or known.until <= now:
        if known is not None:
            # Whoever asks while it is being found gets what was there before.
            kept[key] = known._replace(until=now + seconds)
        if len(kept) >= KEPT_MAX:
            kept.clear()
        known = kept[key] = Kept(time.monotonic() + seconds, await read())
    return known.found


async def figures(call: Call) -> Answer:
    """How things stand at a glance."""
    call.company()
    engine, environment = call.engine, call.environment
    now = engine.now_of(environment)

    async def counted() -> Record:
        async with reports.reporting(engine.database) as reader:
            return await reports.count_figures(reader, environment.id, now, engine.now())

    async def of_money() -> list[MoneyFigureOut]:
        async with _turn(call) as reader:
            moved = await reports.sum_revenue(reader, span_of(call, None), "month")
            _, owed = await reports.sum_owed(reader, environment.id, now, limit=0)
        return _money_figures(moved, owed)

    found = await _once_in(call, "counts", COUNTS_SECONDS, counted)
    money = None
    if "reports:read" in call.caller.key.scopes:
        money = await _once_in(call, "money", MONEY_SECONDS, of_money)
    unsealed_at = found["unsealed_at"]
    out = FiguresOut(
        at=str(spelled(now)),
        **_named(**{name: found[name] for name in _COUNTED}),
        clockwork=unsealed_at is None or engine.now() - unsealed_at < LATE,
        waiting=engine.lanes.waiting,
        money=money,
    )
    return Answer(200, shapes.wrapped(out))


async def parked_refills(call: Call) -> Answer:
    """Refills that wait for somebody to act."""
    call.company()
    limit = call.limit()
    async with call.engine.database.reading() as reader:
        found = await reports.list_parked(reader, call.environment.id, limit)
    rows = [
        ParkedRowOut(
            spell("a", row["account_id"]),
            row["name"],
            row["denomination"],
            row["amount"],
            row["charge_amount"],
            row["charge_denomination"],
            spelled(row["parked_at"]),
            row["parked_code"],
        )
        for row in found[:limit]
    ]
    return Answer(200, shapes.wrapped(ParkedOut(rows, len(found) > limit)))


def _money_figures(moved: Sequence[Record], owed: Sequence[Record]) -> list[MoneyFigureOut]:
    sums: dict[str, MoneyFigureOut] = {}
    for row in moved:
        known = sums.setdefault(row["currency"], MoneyFigureOut(row["currency"], 0, 0))
        known.revenue += int(row["amount"] - row["refunded"] - row["disputed"])
    for row in owed:
        sums.setdefault(row["currency"], MoneyFigureOut(row["currency"], 0, 0)).owed = int(row["owed"])
    return [sums[currency] for currency in sorted(sums)]


_COUNTED: Final = ("accounts", "events", "refused", "failed_payments", "parked_refills", "failing_webhooks")
COUNTS_SECONDS: Final = 5.0
MONEY_SECONDS: Final = 30.0
"""How old figures may be that are told."""
KEPT_MAX: Final = 2000
LATE: Final = timedelta(minutes=1)
"""How long after something was done the clockwork has sealed it, if it runs."""

_LIMIT: Final = Param("limit", "limit", "Rows to return, 1 to 1000, in each denomination.")
_REFUSED: Final = ("invalid_string", "zone_required", "unknown_zone", "out_of_range", "overloaded")


def _report(
    name: str, serve: Callable[[Call], Awaitable[Answer]], summary: str, answer: Any, query: tuple[Param, ...]
) -> Route:
    return Route(
        "GET",
        f"/companies/{{company_id}}/reports/{name}",
        serve,
        summary,
        "Reports",
        answer,
        scope="reports:read",
        query=query,
        refusals=_REFUSED,
    )


def _by(choices: str) -> Param:
    return Param("by", choices, f"What to sum by; `{choices.partition('|')[0]}` where it is not said.")


ROUTES: Final = (
    Route(
        "GET",
        "/accounts/{account_id}/usage",
        account_usage,
        "Sum up an account's usage",
        "Reports",
        UsageOut,
        scope="events:read",
        query=(*_SPAN, _by("type|day|month")),
        refusals=_REFUSED,
    ),
    Route(
        "GET",
        "/accounts/{account_id}/movements",
        account_movements,
        "Sum up what moved an account's balances",
        "Reports",
        MovementsOut,
        scope="balances:read",
        query=(*_SPAN, _by("day|month")),
        refusals=_REFUSED,
    ),
    Route(
        "GET",
        "/accounts/{account_id}/revenue",
        account_revenue,
        "Sum up an account's payments and refunds",
        "Reports",
        AccountRevenueOut,
        scope="payments:read",
        query=(*_SPAN, _by("month|day")),
        refusals=_REFUSED,
    ),
    _report(
        "usage",
        usage_report,
        "Sum up usage",
        UsageReportOut,
        (*_SPAN, _by("type|day|month"), Param("type", "text", "Only events of this type."), _LIMIT),
    ),
    _report("accounts", accounts_report, "Sum up usage by account", AccountsReportOut, (*_SPAN, _LIMIT)),
    _report(
        "cogs",
        costs_report,
        "Compare what usage brings and costs",
        CostsReportOut,
        (*_SPAN, _by("type|account|day|month"), _LIMIT),
    ),
    _report("revenue", revenue_report, "Sum up payments and refunds", RevenueReportOut, (*_SPAN, _by("month|day"))),
    _report("owed", owed_report, "Sum up what is owed", OwedReportOut, (_LIMIT,)),
    Route(
        "GET",
        "/companies/{company_id}/figures",
        figures,
        "See how things stand",
        "Reports",
        FiguresOut,
        scope="events:read",
    ),
    Route(
        "GET",
        "/companies/{company_id}/parked_refills",
        parked_refills,
        "List refills that are parked",
        "Reports",
        ParkedOut,
        scope="payments:read",
        query=(_LIMIT,),
    ),
    _report("mrr", mrr_report, "Sum up what plans bring in a month", RecurringReportOut, _SPAN),
)
