"""Plans and their immutable versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from tenuto.core.catalog import EventPrice, families_of
from tenuto.core.plan import PlanTerms, PlanVersion, plan_terms

from .database import Reader, Record, Unit


class PlanRow(NamedTuple):
    """A plan at one of its versions. ``terms`` are the version's in their stored form, event prices included."""

    id: int
    code: str | None
    created_at: datetime
    archived_at: datetime | None
    version_id: int
    number: int
    terms: dict[str, Any]
    changed_at: datetime


_PLAN = (
    "select p.id, p.code, p.created_at, p.archived_at, v.id as version_id, v.number, v.terms,"
    " v.created_at as changed_at from plan p join plan_version v"
    " on v.environment_id = p.environment_id and v.plan_id = p.id"
)
_LATEST = (
    f"{_PLAN} and v.number = (select max(n.number) from plan_version n"
    " where n.environment_id = p.environment_id and n.plan_id = p.id)"
)


async def insert_plan(unit: Unit, *, environment_id: int, id: int, code: str | None, now: datetime) -> bool:
    """A plan, without versions yet; False where one that is not archived has the code."""
    return (
        await unit.fetchval(
            "insert into plan (environment_id, id, code, created_at) values ($1, $2, $3, $4)"
            " on conflict (environment_id, code) where code is not null and archived_at is null do nothing"
            " returning id",
            environment_id,
            id,
            code,
            now,
        )
        is not None
    )


async def insert_plan_version(
    unit: Unit,
    *,
    environment_id: int,
    id: int,
    plan_id: int,
    number: int,
    terms: Mapping[str, object],
    now: datetime,
) -> None:
    """The next version of a plan; its event prices are rows of their own (``catalog.insert_plan_prices``)."""
    await unit.execute(
        "insert into plan_version (environment_id, id, plan_id, number, terms, created_at)"
        " values ($1, $2, $3, $4, $5, $6)",
        environment_id,
        id,
        plan_id,
        number,
        msgspec.json.encode(terms).decode(),
        now,
    )


async def archive_plan(unit: Unit, environment_id: int, plan_id: int, now: datetime) -> None:
    """Sell a plan no more. Its code is free for another."""
    await unit.execute(
        "update plan set archived_at = $3 where environment_id = $1 and id = $2 and archived_at is null",
        environment_id,
        plan_id,
        now,
    )


async def read_plan(reader: Reader, environment_id: int, plan_id: int) -> PlanRow | None:
    """A plan at its latest version, archived or not."""
    row = await reader.fetchrow(f"{_LATEST} where p.environment_id = $1 and p.id = $2", environment_id, plan_id)
    return None if row is None else _row(row)


async def list_plans(
    reader: Reader,
    environment_id: int,
    *,
    limit: int,
    after: int | None,
    code: str | None = None,
    is_archived: bool | None = None,
) -> list[PlanRow]:
    """Plans at their latest versions, by id from ``after`` on."""
    rows = await reader.fetch(
        f"{_LATEST} where p.environment_id = $1 and p.id > $3 and ($4::text is null or p.code = $4)"
        " and ($5::boolean is null or (p.archived_at is not null) = $5) order by p.id limit $2",
        environment_id,
        limit,
        after if after is not None else -1,
        code,
        is_archived,
    )
    return [_row(row) for row in rows]


async def list_versions(
    reader: Reader, environment_id: int, plan_id: int, *, limit: int, after: int | None
) -> list[PlanRow]:
    """A plan at each of its versions, by number from ``after`` on."""
    rows = await reader.fetch(
        f"{_PLAN} where p.environment_id = $1 and p.id = $2 and v.number > $4 order by v.number limit $3",
        environment_id,
        plan_id,
        limit,
        after if after is not None else 0,
    )
    return [_row(row) for row in rows]


async def read_plan_versions(
    reader: Reader, environment_id: int, prices: Mapping[int, Sequence[EventPrice]]
) -> list[PlanVersion]:
    """Every version of every plan; ``prices`` are the event prices by the version that brings them."""
    rows = await reader.fetch(
        "select v.id, v.plan_id, v.number, v.terms, p.archived_at from plan_version v"
        " join plan p on p.environment_id = v.environment_id and p.id = v.plan_id"
        " where v.environment_id = $1 order by v.plan_id, v.number",
        environment_id,
    )
    return [
        PlanVersion(
            id=row["id"],
            plan_id=row["plan_id"],
            number=row["number"],
            terms=_terms(row["terms"]),
            prices=families_of(prices.get(row["id"], ())),
            is_archived=row["archived_at"] is not None,
        )
        for row in rows
    ]


def terms_of_plan(row: PlanRow) -> PlanTerms:
    """The terms of a row."""
    return plan_terms(row.terms)


def _row(row: Record) -> PlanRow:
    return PlanRow(*(msgspec.json.decode(row[name]) if name == "terms" else row[name] for name in PlanRow._fields))


@lru_cache(maxsize=4096)
def _terms(text: str) -> PlanTerms:
    """Terms from the JSON in which they are kept; cached, since an environment reads all that ever were."""
    return plan_terms(msgspec.json.decode(text))
