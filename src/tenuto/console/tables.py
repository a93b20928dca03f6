"""One behaviour for every table: filters and order by the headers, a key that leads on, details at the side, CSV.

A list is what a route of the API lists. Its filters are that route's own, so they reach all rows; its order turns the
rows of the page that is shown. Nothing is kept: the address says all, and can be sent to a colleague.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta, tzinfo
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import structlog
from litestar import Response
from litestar.response import Stream

from tenuto.core.invoice import settings_of
from tenuto.core.outcomes import Refusal
from tenuto.core.period import instant

from .formats import csv_text, pick, typed_amount
from .frame import HEADERS, ROWS, Rows, Visit

CSV_ROWS: Final = 1000
CSV_MAX: Final = 100_000
"""The most rows one file holds."""
SIZES: Final = (50, 100, 250)
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_log = structlog.get_logger()


class Column(NamedTuple):
    """A column: where its value stands in a row, how it is shown, and the parameter of the route that filters by it.

    ``kind``: text, code, amount, number, moment, badge. ``denomination`` is where an amount's own stands.
    ``choices`` are the values that the filter takes, where it takes few. ``link`` makes the value lead somewhere.
    """

    path: str
    label: str
    kind: str = "text"
    filter: str = ""
    choices: Sequence[str] = ()
    denomination: str = "denomination"
    link: Callable[[Mapping[str, Any]], str] | None = None
    sorts: bool = True


class Listing(NamedTuple):
    """A table: what is listed, by which columns, and what is said where there is nothing.

    ``anchor`` leads to the row's own page, if it has one. ``details`` are the paths the flyover leaves out.
    """

    name: str
    path: str
    columns: Sequence[Column]
    empty: str
    hint: str = ""
    anchor: Callable[[Mapping[str, Any]], str] | None = None
    filters: Sequence[tuple[str, str]] = ()
    """More filters, of no column: parameter and label; ``from`` and ``to`` take a day or a moment."""
    fixed: Mapping[str, str] = {}
    """Parameters that this table always has, and nobody takes away."""


class Shown(NamedTuple):
    """A table as a template shows it."""

    listing: Listing
    rows: list[dict[str, Any]]
    filters: dict[str, str]
    sort: str
    next_address: str
    first_address: str
    csv_address: str
    problem: str
    currency: str
    """The company's currency, in which an account's credit limit is."""

    def address(self, **changes: str) -> str:
        """This table, filtered or ordered otherwise, from its beginning."""
        query = {**self.filters, "sort": self.sort, **changes}
        kept = {name: value for name, value in query.items() if value}
        return f"?{urlencode(kept)}"

    def sorted_by(self, column: Column) -> str:
        """``ascending``, ``descending``, or ``none``: the order that the column gives to the table."""
        if self.sort.removeprefix("-") != column.path:
            return "none"
        return "descending" if self.sort.startswith("-") else "ascending"


def _known(listing: Listing) -> list[str]:
    return [*(column.filter for column in listing.columns if column.filter), *(name for name, _ in listing.filters)]


async def show(visit: Visit, listing: Listing, **params: str) -> Shown:
    """A table as the address asks for it. A filter that the route refuses is told beside an empty table."""
    filters = {name: visit.query[name] for name in _known(listing) if visit.query.get(name)}
    size = visit.query.get("limit", "")
    query = {
        **moments(filters, visit.environment.terms.zone),
        **listing.fixed,
        "limit": size if size in {str(one) for one in SIZES} else str(ROWS),
    }
    if visit.query.get("cursor"):
        query["cursor"] = visit.query["cursor"]
    problem = ""
    try:
        found = await visit.rows(listing.path, query=query, **params)
    except Refusal as refusal:
        if refusal.code == "not_found":
            raise
        found, problem = Rows([], None), refusal.message
    sort = visit.query.get("sort", "")
    rows = _ordered(found.rows, listing, sort)
    plain = Shown(listing, rows, filters, sort, "", "", "", problem, settings_of(visit.environment.money).currency)
    return plain._replace(
        next_address=plain.address(cursor=found.next_cursor, limit=size) if found.next_cursor else "",
        first_address=plain.address(limit=size) if visit.query.get("cursor") else "",
        csv_address=plain.address(format="csv"),
    )


def moments(filters: Mapping[str, str], zone: tzinfo) -> dict[str, str]:
    """Filters as the route takes them: a day in one of time is a day in ``zone``, the last one counted whole.

    ``from`` a day is from its first moment, ``to`` a day is before the first moment of the day after. Everything else
    stays as it is, and is judged by the route.
    """
    return {name: _bound(name, value, zone) for name, value in filters.items()}


def _bound(name: str, value: str, zone: tzinfo) -> str:
    end = name.rpartition("_")[2]
    if end not in {"from", "to"} or not _DAY.fullmatch(value):
        return value
    try:
        day = date.fromisoformat(value) + timedelta(days=1 if end == "to" else 0)
        return instant(datetime.combine(day, time()), zone).isoformat()
    except (ValueError, OverflowError):
        return value


def _ordered(rows: list[dict[str, Any]], listing: Listing, sort: str) -> list[dict[str, Any]]:
    path = sort.removeprefix("-")
    if not any(column.path == path and column.sorts for column in listing.columns):
        return rows
    present = [row for row in rows if pick(row, path) is not None]
    missing = [row for row in rows if pick(row, path) is None]
    kinds = {type(pick(row, path)) for row in present}
    by_text = kinds - {int, float, bool} != set()
    present.sort(key=lambda row: str(pick(row, path)).casefold() if by_text else pick(row, path))
    return (present[::-1] if sort.startswith("-") else present) + missing


async def answer(
    visit: Visit, listing: Listing, template: str, values: Mapping[str, Any], **params: str
) -> Response[Any]:
    """A page with one table, or the table as a file where the address asks for one."""
    if visit.query.get("format") == "csv":
        return await export(visit, listing, **params)
    return visit.page(template, table=await show(visit, listing, **params), **values)


async def export(
    visit: Visit,
    listing: Listing,
    made: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    /,
    **params: str,
) -> Response[Any]:
    """All rows that the filters leave, as a file that is sent while it is read. Who took it is told.

    ``made`` puts into a row what the file has and the route does not give.
    """
    given = {name: visit.query[name] for name in _known(listing) if visit.query.get(name)}
    filters = moments(given, visit.environment.terms.zone)
    query = {**filters, **listing.fixed, "limit": str(CSV_ROWS)}

    async def read(cursor: str | None) -> Rows:
        found = await visit.rows(listing.path, query=query if cursor is None else {**query, "cursor": cursor}, **params)
        return found if made is None else found._replace(rows=[made(row) for row in found.rows])

    # The first part is read before anything is sent, so that a filter that is refused is told as for any page.
    first = await read(None)
    await visit.tell_export("export_table", filters)
    headers = {**HEADERS, "content-disposition": f'attachment; filename="{listing.name}.csv"'}
    return Stream(file_lines(listing, first, read), media_type="text/csv; charset=utf-8", headers=headers)


async def file_lines(
    listing: Listing, first: Rows, read: Callable[[str | None], Awaitable[Rows]], most: int = CSV_MAX
) -> AsyncIterator[bytes]:
    """A file's bytes, part after part: its head, a line for each row, and a last one where it is cut at ``most`` rows.

    What fails on the way is raised again, so that the answer breaks off and nobody takes it for a whole file.
    """
    columns = file_columns(listing)
    yield csv_text([[column.path for column in columns]]).encode()
    found, sent = first, 0
    while True:
        yield csv_text([[_in_file(row, column) for column in columns] for row in found.rows]).encode()
        sent += len(found.rows)
        if found.next_cursor is None:
            return
        if sent >= most:
            yield csv_text([[f"cut at {sent:,} rows: narrow the filter"]]).encode()
            return
        try:
            found = await read(found.next_cursor)
        except Exception as error:
            _log.error("export", table=listing.name, rows=sent, exc_info=error)
            raise


def file_columns(listing: Listing) -> list[Column]:
    """The columns of a file: an amount is followed by its denomination, unless that is a column anyway."""
    found: list[Column] = []
    known = {column.path for column in listing.columns}
    for column in listing.columns:
        found.append(column)
        if column.kind == "amount" and column.denomination not in known:
            known.add(column.denomination)
            found.append(Column(column.denomination, "Denomination"))
    return found


def _in_file(row: Mapping[str, Any], column: Column) -> object:
    """A value as a file holds it: an amount in major units, 12.50 and not 1250."""
    value = pick(row, column.path)
    return typed_amount(value, pick(row, column.denomination)) if column.kind == "amount" else value
