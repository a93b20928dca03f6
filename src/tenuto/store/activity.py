"""What was done by whom, as a chain: each row is sealed with a digest over itself and the seal before it.

Rows are written with what they tell of, in its unit, and wait for nobody; a sweep numbers and seals them afterwards, so
that to take one out, or to alter one, breaks the chain from there on. Source: bar 5 (Audit log).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

from .database import Reader, Record, Unit


class Activity(NamedTuple):
    """One thing that somebody did: in a half of the company, or (None) in all of it.

    ``asked`` is JSON as it stands. ``number``, ``digest`` and the digest before it, ``previous``, are there once the
    row is sealed; ``sealed`` is the text that it is over.
    """

    company_id: int
    id: int
    environment_id: int | None
    at: datetime
    actor: str
    actor_name: str
    address: str
    action: str
    target: str
    asked: str | None
    number: int | None
    digest: bytes | None
    previous: bytes | None
    sealed: str


_LOCK: Final = 0x74_6E_61
_SEALED: Final = ("environment_id", "actor", "actor_name", "address", "action", "target")


async def insert_activity(  # noqa: PLR0913 - who, from where, what and when
    unit: Unit,
    *,
    company_id: int,
    environment_id: int | None,
    at: datetime,
    actor: str,
    actor_name: str,
    address: str,
    action: str,
    target: str,
    asked: object,
) -> None:
    """Tell what was done in this unit."""
    await unit.execute(
        "insert into activity (company_id, environment_id, at, actor, actor_name, address, action, target, asked)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        company_id,
        environment_id,
        at,
        actor,
        actor_name,
        address,
        action,
        target,
        None if asked is None else msgspec.json.encode(asked).decode(),
    )


async def list_activity(
    reader: Reader,
    company_id: int,
    environment_id: int,
    *,
    before: int | None,
    limit: int,
    actor: str | None,
    action: str | None,
) -> list[Activity]:
    """What was done in one half of a company and in all of it, the latest first; by one actor, of one kind."""
    rows = await reader.fetch(
        "select a.*, p.digest as previous from activity a"
        " left join activity p on p.company_id = a.company_id and p.number = a.number - 1"
        " where a.company_id = $1 and (a.environment_id is null or a.environment_id = $2)"
        " and a.id < coalesce($3, 9223372036854775807) and ($4::text is null or $4 in (a.actor, a.actor_name))"
        " and ($5::text is null or a.action = $5) order by a.id desc limit $6",
        company_id,
        environment_id,
        before,
        actor,
        action,
        limit,
    )
    return [Activity(**row, sealed=sealed_text(row)) for row in rows]


def sealed_text(row: Record | Mapping[str, Any]) -> str:
    """What of a row is sealed, ``asked`` as the text it stands as."""
    told = [row["company_id"], row["id"], row["at"].isoformat(), *(row[name] for name in _SEALED), row["asked"]]
    return msgspec.json.encode(told).decode()


def seal(row: Record | Mapping[str, Any], before: bytes) -> bytes:
    """The digest that seals a row, with that of the row before it; of the first, nothing."""
    return hashlib.sha256(before + sealed_text(row).encode()).digest()


async def seal_activity(unit: Unit, limit: int) -> int:
    """Number and seal what is not sealed yet; how many rows. One company is sealed by one at a time."""
    companies = await unit.fetch("select distinct company_id from activity where number is null limit 100")
    done = 0
    for (company_id,) in companies:
        if not await unit.fetchval("select pg_try_advisory_xact_lock($1, hashint8($2))", _LOCK, company_id):
            continue
        last = await unit.fetchrow(
            "select number, digest from activity where company_id = $1 and number is not null"
            " order by number desc limit 1",
            company_id,
        )
        number, before = (last["number"], last["digest"]) if last else (0, b"")
        rows = await unit.fetch(
            "select * from activity where company_id = $1 and number is null order by id limit $2", company_id, limit
        )
        sealed = []
        for row in rows:
            number, before = number + 1, seal(row, before)
            sealed.append((company_id, row["id"], number, before))
        await unit.executemany(
            "update activity set number = $3, digest = $4 where company_id = $1 and id = $2 and number is null", sealed
        )
        done += len(sealed)
    return done


SEALED: Final = "select * from activity where number is not null order by company_id, number"
"""The chains of all companies, row by row; for the audit."""
