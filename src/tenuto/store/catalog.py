"""Event prices and their immutable versions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from tenuto.core.catalog import EventPrice, PriceVersion, price_version

from .database import Reader, Record, Unit


async def read_prices(reader: Reader, environment_id: int) -> tuple[list[EventPrice], list[PriceVersion]]:
    """The prices in force, and every version there ever was, also of deleted prices."""
    rows = await reader.fetch(
        "select p.id as price, p.type, p.denomination, p.match, p.deleted_at, v.id, v.number, v.terms, v.effective_at"
        " from event_price p join event_price_version v on v.environment_id = p.environment_id and v.price_id = p.id"
        " where p.environment_id = $1 order by p.id, v.number",
        environment_id,
    )
    versions = [_version(row) for row in rows]
    prices: dict[int, list[PriceVersion]] = {}
    heads: dict[int, Record] = {}
    for row, version in zip(rows, versions, strict=True):
        if row["deleted_at"] is None:
            prices.setdefault(row["price"], []).append(version)
            heads[row["price"]] = row
    return [
        EventPrice(
            id=price_id,
            type=heads[price_id]["type"],
            denomination=heads[price_id]["denomination"],
            match=msgspec.json.decode(heads[price_id]["match"]),
            versions=tuple(found),
        )
        for price_id, found in prices.items()
    ], versions


async def read_version(reader: Reader, environment_id: int, version_id: int) -> Record | None:
    """One version of a price, whether that is still in force or not."""
    return await reader.fetchrow(
        "select p.type, p.denomination, p.match, p.created_at, v.terms, v.effective_at from event_price_version v"
        " join event_price p on p.environment_id = v.environment_id and p.id = v.price_id"
        " where v.environment_id = $1 and v.id = $2",
        environment_id,
        version_id,
    )


_PRICE = (
    "select p.id, p.type, p.denomination, p.match, p.created_at, p.deleted_at, v.number, v.terms, v.effective_at"
    " from event_price p join lateral (select number, terms, effective_at from event_price_version"
    " where environment_id = p.environment_id and price_id = p.id order by number desc limit 1) v on true"
)


async def read_price(reader: Reader, environment_id: int, price_id: int) -> Record | None:
    """A price that is in force, with its latest terms."""
    return await reader.fetchrow(
        f"{_PRICE} where p.environment_id = $1 and p.id = $2 and p.deleted_at is null", environment_id, price_id
    )


async def list_prices(
    reader: Reader, environment_id: int, *, limit: int, after: int | None, filters: Mapping[str, str]
) -> list[Record]:
    """Prices in force, newest id last seen first; ``filters``: type, denomination."""
    arguments: list[object] = [environment_id, limit, after if after is not None else -1]
    where = "p.environment_id = $1 and p.deleted_at is null and p.id > $3"
    for name in ("type", "denomination"):
        if name in filters:
            arguments.append(filters[name])
            where += f" and p.{name} = ${len(arguments)}"
    found: list[Record] = await reader.fetch(f"{_PRICE} where {where} order by p.id limit $2", *arguments)
    return found


async def insert_price(
    unit: Unit,
    *,
    environment_id: int,
    id: int,
    kind: str,
    denomination: str,
    match: Mapping[str, object],
    now: datetime,
) -> bool:
    """A new price rule; False where one with the same type, denomination and match is in force."""
    return (
        await unit.fetchval(
            "insert into event_price (environment_id, id, type, denomination, match, match_key, created_at)"
            " values ($1, $2, $3, $4, $5, $6, $7)"
            " on conflict (environment_id, type, denomination, match_key)"
            " where deleted_at is null and plan_version_id is null do nothing"
            " returning id",
            environment_id,
            id,
            kind,
            denomination,
            msgspec.json.encode(match).decode(),
            msgspec.json.encode(match, order="sorted").decode(),
            now,
        )
        is not None
    )


async def insert_version(
    unit: Unit,
    *,
    environment_id: int,
    id: int,
    price_id: int,
    number: int,
    terms: Mapping[str, object],
    now: datetime,
) -> None:
    """The next version of a price."""
    await unit.execute(
        "insert into event_price_version (environment_id, id, price_id, number, terms, effective_at)"
        " values ($1, $2, $3, $4, $5, $6)",
        environment_id,
        id,
        price_id,
        number,
        msgspec.json.encode(terms).decode(),
        now,
    )


async def delete_price(unit: Unit, environment_id: int, price_id: int, now: datetime) -> None:
    """Take a price out of force; its versions stay, for what they priced."""
    await unit.execute(
        "update event_price set deleted_at = $3 where environment_id = $1 and id = $2 and deleted_at is null",
        environment_id,
        price_id,
        now,
    )


def terms_of_row(row: Record) -> dict[str, object]:
    """The terms in a row of a price, as they were set."""
    return msgspec.json.decode(row["terms"], type=dict[str, object])


def _version(row: Record) -> PriceVersion:
    return price_version(
        id=row["id"],
        price_id=row["price"],
        number=row["number"],
        denomination=row["denomination"],
        effective_at=row["effective_at"],
        terms=msgspec.json.decode(row["terms"]),
    )
