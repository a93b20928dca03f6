"""Event prices and their immutable versions: a company's, those that a version of a plan brings, an account's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from tenuto.core.catalog import EventPrice, PriceVersion, price_version

from .database import Reader, Record, Unit


class Prices(NamedTuple):
    """The event prices of an environment.

    ``own`` are the company's prices in force, ``of_plans`` those of each version of a plan by its id. ``versions`` are
    all versions that ever were, also of deleted prices: a hold is settled on the version it was rated with. ``past``
    are the company's deleted prices: they price what was kept aside while they held.
    """

    own: list[EventPrice]
    of_plans: dict[int, list[EventPrice]]
    versions: list[PriceVersion]
    past: list[EventPrice]


async def read_prices(reader: Reader, environment_id: int) -> Prices:
    """The event prices of an environment, but for those agreed with one account."""
    rows = await reader.fetch(
        "select p.id as price, p.type, p.denomination, p.match, p.plan_version_id, p.created_at, p.deleted_at, v.id,"
        " v.number, v.terms, v.effective_at"
        " from event_price p join event_price_version v on v.environment_id = p.environment_id and v.price_id = p.id"
        " where p.environment_id = $1 order by p.id, v.number",
        environment_id,
    )
    versions = [_version(row) for row in rows]
    grouped: dict[int, list[PriceVersion]] = {}
    heads: dict[int, Record] = {}
    for row, version in zip(rows, versions, strict=True):
        grouped.setdefault(row["price"], []).append(version)
        heads[row["price"]] = row
    found = Prices([], {}, versions, [])
    for price_id, known in grouped.items():
        head = heads[price_id]
        price = EventPrice(
            id=price_id,
            type=head["type"],
            denomination=head["denomination"],
            match=msgspec.json.decode(head["match"]),
            versions=tuple(known),
            created_at=head["created_at"],
            ended_at=head["deleted_at"],
        )
        of_plan = head["plan_version_id"]
        if price.ended_at is not None:
            if of_plan is None:
                found.past.append(price)
            continue
        (found.own if of_plan is None else found.of_plans.setdefault(of_plan, [])).append(price)
    return found


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
    """A price of the company that is in force, with its latest terms."""
    return await reader.fetchrow(
        f"{_PRICE} where p.environment_id = $1 and p.id = $2 and p.deleted_at is null and p.plan_version_id is null",
        environment_id,
        price_id,
    )


async def list_prices(
    reader: Reader, environment_id: int, *, limit: int, after: int | None, filters: Mapping[str, str]
) -> list[Record]:
    """The company's prices in force, by id from ``after`` on; ``filters``: type, denomination."""
    where, more = _filtered(filters, "p")
    arguments = [environment_id, limit, after if after is not None else -1, *more]
    where = f"p.environment_id = $1 and p.deleted_at is null and p.plan_version_id is null and p.id > $3{where}"
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
            *_spellings(match),
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


async def insert_plan_prices(
    unit: Unit,
    *,
    environment_id: int,
    plan_version_id: int,
    prices: Sequence[Mapping[str, object]],
    ids: Sequence[tuple[int, int]],
    now: datetime,
) -> None:
    """The event prices of a version of a plan; ``ids`` are one of the price and one of its version for each.

    ``prices`` are as they stand in the plan's terms: type, denomination, match, and the terms of the price.
    """
    rules, versions = [], []
    for price, (price_id, version_id) in zip(prices, ids, strict=True):
        terms = {name: value for name, value in price.items() if name not in {"type", "denomination", "match"}}
        rule = (price["type"], price["denomination"], *_spellings(price["match"]))
        rules.append((environment_id, price_id, *rule, plan_version_id, now))
        versions.append((environment_id, version_id, price_id, msgspec.json.encode(terms).decode(), now))
    await unit.executemany(
        "insert into event_price (environment_id, id, type, denomination, match, match_key, plan_version_id,"
        " created_at) values ($1, $2, $3, $4, $5, $6, $7, $8)",
        rules,
    )
    await unit.executemany(
        "insert into event_price_version (environment_id, id, price_id, number, terms, effective_at)"
        " values ($1, $2, $3, 1, $4, $5)",
        versions,
    )


async def delete_price(unit: Unit, environment_id: int, price_id: int, now: datetime) -> None:
    """Take a price out of force; its versions stay, for what they priced."""
    await unit.execute(
        "update event_price set deleted_at = $3 where environment_id = $1 and id = $2 and deleted_at is null",
        environment_id,
        price_id,
        now,
    )


# --- agreed with one account ---


_OVERRIDE = (
    "select account_id, price_id as id, id as version_id, type, denomination, match, number, terms, created_at,"
    " effective_at from (select distinct on (price_id) * from price_override"
    " where account_id = $1 and ended_at is null order by price_id, number desc) o"
)


async def read_override(reader: Reader, account_id: int, price_id: int) -> Record | None:
    """A price agreed with an account that is in force, with its latest terms; ``id`` is the price's."""
    return await reader.fetchrow(f"{_OVERRIDE} where price_id = $2", account_id, price_id)


async def list_overrides(
    reader: Reader, account_id: int, *, limit: int, after: int | None, filters: Mapping[str, str]
) -> list[Record]:
    """The prices in force that are agreed with an account, as in :func:`list_prices`."""
    where, more = _filtered(filters, "o")
    arguments = [account_id, limit, after if after is not None else -1, *more]
    found: list[Record] = await reader.fetch(
        f"{_OVERRIDE} where price_id > $3{where} order by price_id limit $2", *arguments
    )
    return found


async def count_overrides(reader: Reader, account_id: int) -> int:
    """How many prices agreed with an account are in force."""
    found: int = await reader.fetchval(
        "select count(*) from price_override where account_id = $1 and ended_at is null and number = 1", account_id
    )
    return found


async def insert_override(
    unit: Unit,
    *,
    account_id: int,
    ids: tuple[int, int],
    kind: str,
    denomination: str,
    match: Mapping[str, object],
    terms: Mapping[str, object],
    now: datetime,
) -> bool:
    """A price agreed with an account, which is locked; False where one of its kind is in force.

    ``ids`` are those of the price and of its first version.
    """
    return (
        await unit.fetchval(
            "insert into price_override (account_id, id, price_id, number, type, denomination, match, match_key, terms,"
            " created_at, effective_at) values ($1, $3, $2, 1, $4, $5, $6, $7, $8, $9, $9)"
            " on conflict (account_id, type, denomination, match_key) where ended_at is null and number = 1 do nothing"
            " returning id",
            account_id,
            *ids,
            kind,
            denomination,
            *_spellings(match),
            msgspec.json.encode(terms).decode(),
            now,
        )
        is not None
    )


async def insert_override_version(
    unit: Unit, *, account_id: int, id: int, price_id: int, terms: Mapping[str, object], now: datetime
) -> None:
    """The next version of a price agreed with an account, which is locked."""
    await unit.execute(
        "insert into price_override (account_id, id, price_id, number, type, denomination, match, match_key, terms,"
        " created_at, effective_at) select account_id, $3, price_id, number + 1, type, denomination, match, match_key,"
        " $4, created_at, $5 from price_override where account_id = $1 and price_id = $2 order by number desc limit 1",
        account_id,
        price_id,
        id,
        msgspec.json.encode(terms).decode(),
        now,
    )


async def end_override(unit: Unit, account_id: int, price_id: int, now: datetime) -> None:
    """Take a price agreed with an account out of force; its versions stay, for what they priced."""
    await unit.execute(
        "update price_override set ended_at = $3 where account_id = $1 and price_id = $2 and ended_at is null",
        account_id,
        price_id,
        now,
    )


def _filtered(filters: Mapping[str, str], table: str) -> tuple[str, list[object]]:
    """Conditions and arguments, from the fourth on, for the filters that a list of prices takes."""
    names = [name for name in ("type", "denomination") if name in filters]
    where = "".join(f" and {table}.{name} = ${place}" for place, name in enumerate(names, 4))
    return where, [filters[name] for name in names]


def _spellings(match: object) -> tuple[str, str]:
    """A match as it was given, and in the one spelling by which two are compared."""
    return msgspec.json.encode(match).decode(), msgspec.json.encode(match, order="sorted").decode()


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
