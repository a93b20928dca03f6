"""One behaviour for every table: filters and order by the headers, a key that leads on, details at the side, CSV.

A list is what a route of the API lists. Its filters are that route's own, so they reach all rows; its order turns the
rows of the page that is shown. Nothing is kept: the address says all, and can be sent to a colleague.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from litestar import Response
from litestar.response import Stream

from tenuto.core.outcomes import Refusal

from .formats import csv_text, pick
from .frame import HEADERS, ROWS, Rows, Visit

CSV_ROWS: Final = 1000
CSV_MAX: Final = 100_000
"""The most rows one file holds."""
SIZES: Final = (50, 100, 250)


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
    """More filters, of no column: parameter and label; ``from`` and ``to`` take a moment."""
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
    query = {**_moments(filters), **listing.fixed, "limit": size if size in {str(one) for one in SIZES} else str(ROWS)}
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
    plain = Shown(listing, rows, filters, sort, "", "", "", problem)
    return plain._replace(
        next_address=plain.address(cursor=found.next_cursor, limit=size) if found.next_cursor else "",
        first_address=plain.address(limit=size) if visit.query.get("cursor") else "",
        csv_address=plain.address(format="csv"),
    )


def _moments(filters: Mapping[str, str]) -> dict[str, str]:
    """A day in a filter of time is its first moment, in UTC."""
    whole = {"from", "to"}
    return {
        name: f"{value}T00:00:00Z" if name in whole and "T" not in value else value for name, value in filters.items()
    }


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


async def export(visit: Visit, listing: Listing, **params: str) -> Response[Any]:
    """All rows that the filters leave, as a file that is sent while it is read. Who took it is told."""
    filters = _moments({name: visit.query[name] for name in _known(listing) if visit.query.get(name)})
    query = {**filters, **listing.fixed, "limit": str(CSV_ROWS)}
    # The first part is read before anything is sent, so that a filter that is refused is told as for any page.
    first = await visit.rows(listing.path, query=query, **params)
    await visit.tell_export("export_table", filters)

    async def lines() -> AsyncIterator[bytes]:
        yield csv_text([[column.path for column in listing.columns]]).encode()
        found, sent = first, 0
        while True:
            yield csv_text([[pick(row, column.path) for column in listing.columns] for row in found.rows]).encode()
            sent += len(found.rows)
            if found.next_cursor is None or sent >= CSV_MAX:
                return
            found = await visit.rows(listing.path, query={**query, "cursor": found.next_cursor}, **params)

    headers = {**HEADERS, "content-disposition": f'attachment; filename="{listing.name}.csv"'}
    return Stream(lines(), media_type="text/csv; charset=utf-8", headers=headers)
