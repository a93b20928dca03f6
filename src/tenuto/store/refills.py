"""Refill settings of balances, and which are due."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

from tenuto.core.refill import Refill

from . import facts
from .database import Reader, Record, Unit
from .records import TAKEN, decoded
from .signals import tell

_COLUMNS: Final = Refill._fields
_SELECT: Final = "select {} from refill r".format(", ".join(f"r.{name}" for name in _COLUMNS))
_PUT: Final = (
    "with before as (select payment_id, parked_at from refill where account_id = $1 and denomination = $2)"
    " insert into refill ({names}, updated_at) values ({places})"
    " on conflict (account_id, denomination) do update set {sets}"
    " returning (select payment_id from before), (select parked_at from before)"
).format(
    names=", ".join(_COLUMNS),
    places=", ".join(f"${place}" for place in range(1, len(_COLUMNS) + 2)),
    sets=", ".join(f"{name} = excluded.{name}" for name in (*_COLUMNS[2:], "updated_at")),
)


async def put_refill(unit: Unit, refill: Refill, now: datetime) -> None:
    """Write a refill as it is now; its account is locked. A lane that remembers another must notice: raise the tick."""
    values: list[Any] = [
        msgspec.json.encode(value).decode() if name == "scheduled" and value is not None else value
        for name, value in refill._asdict().items()
    ]
    before = await unit.fetchrow(_PUT, *values, now)
    assert before is not None
    await tell(unit, refill.environment_id, *facts.of_refill(facts.RefillBefore(*before), refill, now))


async def delete_refill(unit: Unit, account_id: int, denomination: str) -> None:
    """End the refills of a balance."""
    await unit.execute("delete from refill where account_id = $1 and denomination = $2", account_id, denomination)


async def read_refill(reader: Reader, account_id: int, denomination: str) -> Refill | None:
    """The refill of one balance."""
    row = await reader.fetchrow(f"{_SELECT} where r.account_id = $1 and r.denomination = $2", account_id, denomination)
    return None if row is None else refill_of(row)


async def list_refills(reader: Reader, account_id: int) -> list[Refill]:
    """The refills of an account's balances."""
    rows = await reader.fetch(f"{_SELECT} where r.account_id = $1 order by r.denomination", account_id)
    return [refill_of(row) for row in rows]


class LastFilling(NamedTuple):
    """The last monthly filling of a balance: the units it gave, and how many of them are left."""

    units: int
    left: int


async def last_filling(reader: Reader, account_id: int, denomination: str) -> LastFilling | None:
    """What is left of the last monthly refill: refilled units are used first, and it is at most what it gave."""
    row = await reader.fetchrow(
        "select f.amount as units, b.amount as held, ("
        " select coalesce(-sum(t.amount), 0)::bigint from transaction t where t.account_id = f.account_id"
        f" and t.denomination = f.denomination and t.seq > f.seq and t.book in {TAKEN}) as used"
        " from transaction f join payment p on p.account_id = f.account_id and p.id = f.cause_id"
        " join balance b on b.account_id = f.account_id and b.denomination = f.denomination"
        " where f.account_id = $1 and f.denomination = $2 and f.book = 'refill' and f.amount > 0"
        " and p.reason in ('refill', 'refill_start') and p.status = 'succeeded' order by f.seq desc limit 1",
        account_id,
        denomination,
    )
    if row is None:
        return None
    units: int = row["units"]
    return LastFilling(units, max(0, min(units - row["used"], units, row["held"])))


def refill_of(row: Record) -> Refill:
    """A refill as core knows it."""
    return Refill(*(decoded(row[name]) if name == "scheduled" else row[name] for name in _COLUMNS))
