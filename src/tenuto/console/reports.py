"""Reports: revenue, usage, costs and margin, what is owed, plans; the figures of Home; all events of a company.

A report's page comes at once and empty; its figures are asked for by the page, for they may take seconds. What a report
says is the API's: a table, a chart of the same rows, and a file of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from litestar import Response

from tenuto.core.money import is_fiat
from tenuto.core.outcomes import Refusal
from tenuto.core.period import day_after, instant, moment_text, month_of, month_start

from .accounts import EVENTS, REFUSED
from .formats import csv_text, in_major, pick
from .frame import HEADERS, Page, Visit
from .tables import Column, answer

ROWS_MOST: Final = "1000"
SHOWN_MOST: Final = 100
NO_UNIT: Final = "none"
"""How an address asks for what has no price: a parameter that is empty is none."""
BARS: Final = 12
"""How many types, accounts or plans a chart shows: those that come first."""
RANGES: Final = (
    ("month", "This month"),
    ("last_month", "Last month"),
    ("90_days", "Last 90 days"),
)


class Field(NamedTuple):
    """A column of a report: where its value stands, and how it is shown: text, number, amount, percent or money."""

    path: str
    label: str
    kind: str = "text"


class Report(NamedTuple):
    """A report of the API as a page shows it.

    ``unit`` is the field that says in what a row counts, ``bars`` the fields that the chart draws. ``leads`` is where a
    row leads on to.
    """

    name: str
    label: str
    says: str
    unit: str
    fields: Sequence[Field]
    bars: Sequence[Field]
    leads: Callable[[Mapping[str, Any]], str]
    by: Sequence[tuple[str, str]] = ()
    has_span: bool = True
    file: Sequence[str] = ()
    """The fields of a row that stand in a file, all but its filters."""
    empty: str = "Nothing in this time."


def _events_of(row: Mapping[str, Any]) -> str:
    return f"/control/events?{urlencode(row['filters'])}"


def _account_of(row: Mapping[str, Any]) -> str:
    return f"/control/accounts/{row['account_id']}"


def _payments_of(row: Mapping[str, Any]) -> str:
    return f"/control/payments?{urlencode(row['filters'])}"


def _costs_of(row: Mapping[str, Any]) -> str:
    return f"/control/accounts/{row['bucket']}" if row["name"] is not None else _events_of(row)


_USED: Final = (
    Field("events", "Events", "number"),
    Field("quantity", "Quantity", "number"),
    Field("amount", "Charged", "amount"),
    Field("cogs", "Cost of goods", "money"),
)
_BY_TIME: Final = (("day", "By day"), ("month", "By month"))
_KIND: Final = Field("bucket", "What")
_COUNTED: Final = ("denomination", "events", "quantity", "amount", "cogs")
_PAID: Final = ("payments", "amount", "refunds", "refunded", "disputes", "disputed", "net")
_RECURRING: Final = ("active", "mrr", "past_due", "past_due_mrr", "trialing", "trialing_mrr")
REPORTS: Final = {
    report.name: report
    for report in (
        Report(
            "revenue",
            "Revenue",
            "Money that came in, less what went back. Payments stand where they succeeded, refunds where they did.",
            "currency",
            (
                *(Field("bucket", "When"), Field("reason", "For"), Field("payments", "Payments", "number")),
                *(Field("amount", "Came in", "amount"), Field("refunded", "Refunded", "amount")),
                *(Field("disputed", "Disputed", "amount"), Field("net", "Net", "amount")),
            ),
            (Field("net", "Net"),),
            _payments_of,
            (("month", "By month"), ("day", "By day")),
            file=("currency", *_PAID, "bucket", "reason"),
            empty="No payment succeeded in this time.",
        ),
        Report(
            "usage",
            "Usage",
            "What complete events came to. A further charge, such as of overage, adds to the amount of its own row.",
            "denomination",
            (_KIND, *_USED),
            (Field("amount", "Charged"),),
            _events_of,
            (("type", "By type"), *_BY_TIME),
            file=("bucket", *_COUNTED),
            empty="No event was billed in this time.",
        ),
        Report(
            "accounts",
            "Accounts",
            "Who was charged most for usage.",
            "denomination",
            (Field("name", "Account"), *_USED),
            (Field("amount", "Charged"),),
            _account_of,
            file=("account_id", "name", *_COUNTED),
            empty="No account used anything in this time.",
        ),
        Report(
            "cogs",
            "Costs and margin",
            "What usage brought in money, what it cost you as the events told, and what is left.",
            "currency",
            (
                *(_KIND, Field("revenue", "Revenue", "amount"), Field("cogs", "Cost of goods", "amount")),
                *(Field("margin", "Margin", "amount"), Field("margin_percent", "Margin %", "percent")),
            ),
            (Field("revenue", "Revenue"), Field("cogs", "Cost of goods"), Field("margin", "Margin")),
            _costs_of,
            (("type", "By type"), ("account", "By account"), *_BY_TIME),
            file=("bucket", "name", "currency", "revenue", "cogs", "margin", "margin_percent"),
            empty="No event was charged in money or told what it costs. Send cogs with your events.",
        ),
        Report(
            "owed",
            "Owed",
            "What open invoices wait for, now. A balance below zero is mostly the same money: the two are not added.",
            "currency",
            (
                *(Field("name", "Account"), Field("owed", "Owed", "amount"), Field("overdue", "Overdue", "amount")),
                *(Field("invoices", "Invoices", "number"), Field("due_at", "Earliest due", "moment")),
                Field("negative", "Balance below zero", "amount"),
            ),
            (Field("owed", "Owed"), Field("negative", "Below zero")),
            _account_of,
            has_span=False,
            file=("account_id", "name", "currency", "owed", "overdue", "invoices", "due_at", "negative"),
            empty="Nobody owes anything.",
        ),
        Report(
            "mrr",
            "Recurring",
            "What subscriptions pay in a month, now; a year counts by its twelfth. Trials stand apart.",
            "currency",
            (
                *(Field("name", "Plan"), Field("active", "Active", "number"), Field("mrr", "A month", "amount")),
                *(Field("past_due", "Past due", "number"), Field("past_due_mrr", "A month, past due", "amount")),
                *(Field("trialing", "Trialing", "number"), Field("trialing_mrr", "A month, after trial", "amount")),
            ),
            (Field("mrr", "Active"), Field("past_due_mrr", "Past due"), Field("trialing_mrr", "Trialing")),
            lambda row: f"/control/plans/{row['plan_id']}",
            file=("currency", *_RECURRING, "plan_id", "name"),
            empty="No account is on a plan that is paid in money.",
        ),
    )
}
FIRST: Final = "revenue"


# --- what is asked for ------------------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """A report as the address asks for it. ``first`` and ``last`` are days, both of them in it."""

    report: Report
    range: str
    first: date
    last: date
    by: str
    query: dict[str, str]

    def address(self, path: str = "", **changes: str) -> str:
        """The same report, or part ``path`` of it, asked for otherwise."""
        kept = {"range": self.range, "by": self.by}
        kept |= changes
        if kept["range"] == "custom":
            kept |= {"from": self.first.isoformat(), "to": self.last.isoformat()}
        return f"/control/reports/{self.report.name}{path}?{urlencode({k: v for k, v in kept.items() if v})}"


def _asked(visit: Visit, name: str) -> Asked:
    """Raises Refusal ``not_found`` where there is no such report."""
    report = REPORTS.get(name)
    if report is None:
        raise Refusal("not_found")
    zone = visit.environment.terms.zone
    today = visit.engine.now_of(visit.environment).astimezone(zone).date()
    chosen = visit.query.get("range", "month")
    match chosen:
        case "last_month":
            last = today.replace(day=1) - timedelta(days=1)
            first = last.replace(day=1)
        case "90_days":
            first, last = today - timedelta(days=89), today
        case "custom":
            first, last = _day(visit.query.get("from"), today), _day(visit.query.get("to"), today)
        case _:
            chosen, first = "month", today.replace(day=1)
            last = month_start(month_of(visit.engine.now_of(visit.environment), zone), 1, zone).astimezone(zone).date()
            last -= timedelta(days=1)
    by = visit.query.get("by", "")
    if by not in {choice for choice, _ in report.by}:
        by = report.by[0][0] if report.by else ""
    query = {"by": by} if by else {}
    if report.has_span:
        start = instant(datetime(first.year, first.month, first.day), zone)  # noqa: DTZ001 - given its zone next
        end = instant(datetime(last.year, last.month, last.day), zone)  # noqa: DTZ001 - given its zone next
        query |= {"from": moment_text(start), "to": moment_text(day_after(end, 1, zone))}
    if report.name not in {"revenue", "mrr"}:
        query["limit"] = ROWS_MOST
    return Asked(report, chosen, first, last, by, query)


def _day(text: str | None, otherwise: date) -> date:
    try:
        found = date.fromisoformat(text or "")
    except ValueError:
        return otherwise
    return found if 2000 <= found.year < 2900 else otherwise  # noqa: PLR2004 - years that a report can be of


# --- pages ------------------------------------------------------------------------------------------------------------


async def reports(visit: Visit) -> Response[Any]:
    """The first report."""
    return visit.go(f"/control/reports/{FIRST}")


async def report(visit: Visit) -> Response[Any]:
    """A report's page: what it is about, and of when. Its figures follow."""
    asked = _asked(visit, visit.param("name"))
    unit = {"unit": visit.query["unit"]} if "unit" in visit.query else {}
    return visit.page(
        "report.html",
        reports=REPORTS.values(),
        asked=asked,
        report=asked.report,
        ranges=RANGES,
        figures=asked.address("/figures", **unit),
    )


async def figures(visit: Visit) -> Response[Any]:
    """The figures of a report: a chart, a table, the whole."""
    asked = _asked(visit, visit.param("name"))
    found = await visit.get(f"/companies/{{company_id}}/reports/{asked.report.name}", query=asked.query)
    units = _units(found["totals"], asked.report)
    unit = visit.query.get("unit", units[0] if units else "")
    if unit == NO_UNIT and unit not in units:
        unit = ""
    rows = [row for row in found["rows"] if (row[asked.report.unit] or "") == unit]
    whole = next((row for row in found["totals"] if (row[asked.report.unit] or "") == unit), None)
    return visit.page(
        "report_figures.html",
        asked=asked,
        report=asked.report,
        units=units,
        no_unit=NO_UNIT,
        unit=unit,
        rows=rows[:SHOWN_MOST],
        count=len(rows),
        has_more=found.get("has_more", False),
        whole=whole,
        chart=_chart(asked, rows, unit) if rows else None,
        movement=found.get("movement"),
        pick=pick,
    )


def _units(totals: Sequence[Mapping[str, Any]], report: Report) -> list[str]:
    """Denominations of a report: money before tokens, then by how much; what has no price comes last, as nothing."""
    most: dict[str, int] = {}
    for row in totals:
        name = row[report.unit] or ""
        most[name] = sum(abs(int(row[field.path])) for field in report.bars)
    return sorted(most, key=lambda name: (not name, not is_fiat(name), -most[name], name))


async def export(visit: Visit) -> Response[Any]:
    """All rows of a report as a file. Who took it is told."""
    asked = _asked(visit, visit.param("name"))
    found = await visit.get(f"/companies/{{company_id}}/reports/{asked.report.name}", query=asked.query)
    names = asked.report.file
    lines = [names, *([_flat(row[name]) for name in names] for row in found["rows"])]
    if found.get("has_more", False):
        lines.append([f"Cut here: of each {asked.report.unit} the first {ROWS_MOST} rows stand above; there are more."])
    text = csv_text(lines)
    await visit.tell_export("export_report", asked.query)
    days = f"-{asked.first}-{asked.last}" if asked.report.has_span else ""
    file = f"{asked.report.name}{days}.csv"
    headers = {**HEADERS, "content-disposition": f'attachment; filename="{file}"'}
    return Response(text.encode(), media_type="text/csv; charset=utf-8", headers=headers)


def _flat(value: object) -> object:
    """A cell of a file: costs by currency are one text."""
    return " ".join(f"{amount} {name}" for name, amount in value.items()) if isinstance(value, Mapping) else value


# --- charts -----------------------------------------------------------------------------------------------------------


def _chart(asked: Asked, rows: Sequence[Mapping[str, Any]], unit: str) -> dict[str, Any]:
    """The chart of a report's rows: through time where they are days or months, else the first of them side by side."""
    if asked.report.name == "revenue":
        return _stacked(rows, unit)
    is_time = asked.by in {"day", "month"}
    drawn = rows if is_time else rows[:BARS]
    sets = [
        {"label": field.label, "data": [in_major(row[field.path], unit) for row in drawn]}
        for field in asked.report.bars
    ]
    kind = "line" if is_time and len(drawn) > 1 else "bar"
    return _config(kind, [_label(row) for row in drawn], sets, unit)


def _stacked(rows: Sequence[Mapping[str, Any]], unit: str) -> dict[str, Any]:
    labels = list(dict.fromkeys(row["bucket"] for row in rows))
    net = {(row["bucket"], row["reason"]): row["net"] for row in rows}
    reasons = dict.fromkeys(row["reason"] for row in rows)
    sets = [
        {
            "label": reason.replace("_", " "),
            "data": [in_major(net.get((label, reason), 0), unit) for label in labels],
            "stack": "net",
        }
        for reason in reasons
    ]
    return _config("bar", labels, sets, unit, is_stacked=True)


def _label(row: Mapping[str, Any]) -> str:
    text = str(row.get("name") or row.get("bucket") or "")
    return text if len(text) <= LABEL_MOST else f"{text[: LABEL_MOST - 1]}…"


LABEL_MOST: Final = 24


def _config(
    kind: str, labels: Sequence[str], sets: list[dict[str, Any]], unit: str, *, is_stacked: bool = False
) -> dict[str, Any]:
    scales = {
        "x": {"stacked": is_stacked, "grid": {"display": False}},
        "y": {"stacked": is_stacked, "beginAtZero": True, "title": {"display": bool(unit), "text": unit}},
    }
    options = {"scales": scales, "plugins": {"legend": {"display": len(sets) > 1, "position": "bottom"}}}
    bars = {"maxBarThickness": 56, "borderRadius": 4} if kind == "bar" else {}
    return {"type": kind, "data": {"labels": labels, "datasets": [{**one, **bars} for one in sets]}, "options": options}


# --- Home's figures, and the lists they lead to -----------------------------------------------------------------------


async def glance(visit: Visit) -> Response[Any]:
    """How things stand, as tiles of Home. Each leads to the list of what it counts."""
    now = visit.engine.now_of(visit.environment)
    day, week = (moment_text(now - timedelta(days=days)) for days in (1, 7))
    links = {
        "events": f"/control/events?{urlencode({'recorded_from': day})}",
        "failed": f"/control/payments?{urlencode({'status': 'failed', 'from': week})}",
    }
    stands = await visit.get("/companies/{company_id}/figures")
    return visit.page("part_figures.html", stands=stands, links=links)


async def parked(visit: Visit) -> Response[Any]:
    """Refills that wait for somebody to act."""
    found = await visit.get("/companies/{company_id}/parked_refills", query={"limit": ROWS_MOST})
    return visit.page("report_parked.html", rows=found["rows"], has_more=found["has_more"])


_WHOSE: Final = Column("account_id", "Account", "code", filter="account_id", link=_account_of)
_ALL_EVENTS: Final = EVENTS._replace(
    path="/companies/{company_id}/events",
    columns=(EVENTS.columns[0], _WHOSE, *EVENTS.columns[1:]),
    empty="No event has been billed.",
    hint="Events stand here as they are posted, with what each of them cost.",
    filters=(("key", "Idempotency key"), ("recorded_from", "Recorded from"), ("recorded_to", "Recorded before")),
)
_ALL_REFUSED: Final = REFUSED._replace(
    path="/companies/{company_id}/gated_events",
    columns=(REFUSED.columns[0], _WHOSE._replace(filter=""), *REFUSED.columns[1:]),
    empty="No event has been refused.",
    hint="Events that are posted as gated, and that a balance does not cover, stand here.",
)


async def events(visit: Visit) -> Response[Any]:
    """All events of the company that were recorded."""
    return await answer(visit, _ALL_EVENTS, "report_events.html", {"title": "Events", "tab": "events"})


async def refused(visit: Visit) -> Response[Any]:
    """All events of the company that were refused."""
    return await answer(visit, _ALL_REFUSED, "report_events.html", {"title": "Refused events", "tab": "refused"})


_READ: Final = "reports:read"
PAGES: Final = (
    Page("GET", "/control/reports", reports, _READ),
    Page("GET", "/control/reports/{name}", report, _READ),
    Page("GET", "/control/reports/{name}/figures", figures, _READ, is_slow=True),
    Page("GET", "/control/reports/{name}/csv", export, _READ, is_slow=True),
    Page("GET", "/control/figures", glance, "events:read"),
    Page("GET", "/control/parked", parked, "payments:read"),
    Page("GET", "/control/events", events, "events:read"),
    Page("GET", "/control/refused", refused, "events:read"),
)
