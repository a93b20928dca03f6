"""Organizations, whose tokens are believed, and the tree in which the top pays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

from .database import Reader, Record, Unit


@dataclass(frozen=True, slots=True)
class Issuer:
    """Somebody whose tokens a half of a company believes. ``keys`` are public JWKs by their ``kid``.

    ``good_at``: when a look at ``jwks_url`` last gave keys. ``secret`` is sealed. ``opens``: organizations are made at
    the first sight of a token. ``max_life`` is the longest life of a token in seconds. Times are real ones.
    """

    environment_id: int
    id: int
    issuer: str
    audience: str
    algorithm: str
    jwks_url: str | None
    keys: Mapping[str, Mapping[str, Any]]
    secret: bytes | None
    opens: bool
    max_life: int
    fetched_at: datetime | None
    good_at: datetime | None
    fetch_error: str | None
    next_fetch_at: datetime | None
    created_at: datetime
    updated_at: datetime | None


_ISSUER: Final = tuple(field.name for field in fields(Issuer))


class Organization(NamedTuple):
    """An organization, as its tokens name it by ``external_id``. The top of a tree has the account that pays."""

    environment_id: int
    id: int
    external_id: str
    parent_id: int | None
    account_id: int | None
    name: str
    owner_id: str | None
    created_at: datetime
    updated_at: datetime | None


_ORGANIZATION: Final = ", ".join(Organization._fields)


# --- issuers ----------------------------------------------------------------------------------------------------------


async def insert_issuer(unit: Unit, issuer: Issuer) -> bool:
    """Believe somebody's tokens; False where this issuer and audience are known already, here or elsewhere."""
    places = ", ".join(f"${index}" for index in range(1, len(_ISSUER) + 1))
    found = await unit.fetchval(
        f"insert into issuer ({', '.join(_ISSUER)}) values ({places}) on conflict do nothing returning id",
        *(_stored(name, getattr(issuer, name)) for name in _ISSUER),
    )
    return found is not None


async def update_issuer(
    unit: Unit, environment_id: int, issuer_id: int, changes: Mapping[str, object], now: datetime
) -> None:
    """Set columns of an issuer."""
    columns = [name for name in _ISSUER if name in changes]
    sets = "".join(f", {name} = ${index}" for index, name in enumerate(columns, 4))
    await unit.execute(
        f"update issuer set updated_at = $3{sets} where environment_id = $1 and id = $2",
        environment_id,
        issuer_id,
        now,
        *(_stored(name, changes[name]) for name in columns),
    )


async def delete_issuer(unit: Unit, environment_id: int, issuer_id: int) -> None:
    """Believe its tokens no more."""
    await unit.execute("delete from issuer where environment_id = $1 and id = $2", environment_id, issuer_id)


async def list_issuers(reader: Reader, environment_id: int) -> list[Issuer]:
    """All issuers of a half of a company, the oldest first."""
    rows = await reader.fetch(
        f"select {', '.join(_ISSUER)} from issuer where environment_id = $1 order by created_at, id", environment_id
    )
    return [_issuer(row) for row in rows]


async def read_issuer(reader: Reader, environment_id: int, issuer_id: int) -> Issuer | None:
    """One issuer of a half of a company."""
    row = await reader.fetchrow(
        f"select {', '.join(_ISSUER)} from issuer where environment_id = $1 and id = $2", environment_id, issuer_id
    )
    return None if row is None else _issuer(row)


async def find_issuer(reader: Reader, issuer: str, audiences: list[str]) -> Issuer | None:
    """Whose tokens with this issuer, for one of these audiences, are believed; None where that may be several."""
    rows = await reader.fetch(
        f"select {', '.join(_ISSUER)} from issuer where issuer = $1 and audience = any($2) limit 2", issuer, audiences
    )
    return _issuer(rows[0]) if len(rows) == 1 else None


async def plan_fetch(unit: Unit, environment_id: int, issuer_id: int, at: datetime) -> None:
    """Let the keys of an issuer be fetched at a moment of real time."""
    await unit.execute(
        "update issuer set next_fetch_at = $3 where environment_id = $1 and id = $2", environment_id, issuer_id, at
    )


async def claim_fetches(unit: Unit, now: datetime, again_at: datetime, limit: int) -> list[Issuer]:
    """Issuers whose keys are to be fetched, each given to one who asks and planned anew for ``again_at``."""
    rows = await unit.fetch(
        f"update issuer set next_fetch_at = $2 where (environment_id, id) in (select environment_id, id from issuer"
        " where next_fetch_at <= $1 order by next_fetch_at limit $3 for update skip locked)"
        f" returning {', '.join(_ISSUER)}",
        now,
        again_at,
        limit,
    )
    return [_issuer(row) for row in rows]


async def save_fetch(
    unit: Unit, issuer: Issuer, begun_at: datetime, keys: Mapping[str, Mapping[str, Any]] | None, error: str | None
) -> None:
    """What a look at published keys gave; None leaves those that are kept. One that began later is not undone."""
    await unit.execute(
        "update issuer set fetched_at = $5, fetch_error = $6, keys = coalesce($7::text::json, keys),"
        " good_at = case when $7::text is null then good_at else $5 end"
        " where environment_id = $1 and id = $2 and jwks_url = $3 and algorithm = $4"
        " and (fetched_at is null or fetched_at < $5)",
        issuer.environment_id,
        issuer.id,
        issuer.jwks_url,
        issuer.algorithm,
        begun_at,
        error,
        None if keys is None else msgspec.json.encode(keys).decode(),
    )


def _stored(name: str, value: object) -> object:
    return msgspec.json.encode(value).decode() if name == "keys" else value


def _issuer(row: Record) -> Issuer:
    return Issuer(*(msgspec.json.decode(row[name]) if name == "keys" else row[name] for name in _ISSUER))


# --- organizations ----------------------------------------------------------------------------------------------------


async def insert_organization(unit: Unit, organization: Organization) -> Organization:
    """An organization; where one of this name is there already, that one."""
    places = ", ".join(f"${index}" for index in range(1, len(Organization._fields) + 1))
    # The update changes nothing: it makes the one that is there come back, and holds it until the unit ends.
    row = await unit.fetchrow(
        f"insert into organization ({_ORGANIZATION}) values ({places})"
        " on conflict (environment_id, external_id) do update set external_id = excluded.external_id"
        f" returning {_ORGANIZATION}",
        *organization,
    )
    assert row is not None
    return Organization(*row)


async def read_named(reader: Reader, environment_id: int, external_id: str) -> Organization | None:
    """The organization that tokens name so."""
    row = await reader.fetchrow(
        f"select {_ORGANIZATION} from organization where environment_id = $1 and external_id = $2",
        environment_id,
        external_id,
    )
    return None if row is None else Organization(*row)


async def read_path(reader: Reader, environment_id: int, organization_id: int) -> list[Organization]:
    """An organization and those above it, itself first, who pays last."""
    rows = await reader.fetch(
        f"with recursive path as (select {_ORGANIZATION}, 1 as depth from organization"
        " where environment_id = $1 and id = $2"
        f" union all select {', '.join('o.' + name for name in Organization._fields)}, p.depth + 1"
        " from organization o join path p on o.environment_id = p.environment_id and o.id = p.parent_id"
        " where p.depth < 64)"
        f" select {_ORGANIZATION} from path order by depth",
        environment_id,
        organization_id,
    )
    return [Organization(*row) for row in rows]


async def read_height(reader: Reader, environment_id: int, organization_id: int, most: int) -> int:
    """How many levels there are below an organization, counted no further than ``most``."""
    found: int = await reader.fetchval(
        "with recursive below as (select id, 0 as depth from organization where environment_id = $1 and id = $2"
        " union all select o.id, b.depth + 1 from organization o join below b on o.parent_id = b.id"
        " where o.environment_id = $1 and b.depth < $3)"
        " select coalesce(max(depth), 0) from below",
        environment_id,
        organization_id,
        most,
    )
    return found


async def read_parents(reader: Reader, environment_id: int, organization_id: int) -> dict[int, int | None]:
    """The parents of an organization and of those above it."""
    return {one.id: one.parent_id for one in await read_path(reader, environment_id, organization_id)}


async def read_organization_of(reader: Reader, account_id: int) -> Organization | None:
    """The organization whose account this is."""
    row = await reader.fetchrow(f"select {_ORGANIZATION} from organization where account_id = $1", account_id)
    return None if row is None else Organization(*row)


class Placed(NamedTuple):
    """An organization with the name of the one that stands above it."""

    organization: Organization
    parent: str | None


_FILTERS: Final = {"external_id": "o.external_id", "parent": "p.external_id", "account_id": "o.account_id"}


async def list_organizations(
    reader: Reader, environment_id: int, *, limit: int, after: int | None, filters: Mapping[str, object]
) -> list[Placed]:
    """Organizations by id. ``filters``: external_id, parent (by its own name), account_id."""
    arguments: list[object] = [environment_id, limit, after or 0]
    where = ""
    for name, column in _FILTERS.items():
        if name in filters:
            arguments.append(filters[name])
            where += f" and {column} = ${len(arguments)}"
    rows = await reader.fetch(
        f"select {', '.join('o.' + name for name in Organization._fields)}, p.external_id as parent"
        " from organization o left join organization p on p.environment_id = o.environment_id and p.id = o.parent_id"
        f" where o.environment_id = $1 and o.id > $3{where} order by o.id limit $2",
        *arguments,
    )
    return [Placed(Organization(*row[:-1]), row["parent"]) for row in rows]


async def delete_organization(unit: Unit, environment_id: int, organization_id: int) -> None:
    """Forget an organization, with what it was cleared for."""
    # It goes first: what is cleared at the same time waits for it or is seen here.
    for table, column in (("organization", "id"), ("clearance", "organization_id")):
        await unit.execute(
            f"delete from {table} where environment_id = $1 and {column} = $2", environment_id, organization_id
        )


async def update_organization(
    unit: Unit, environment_id: int, organization_id: int, changes: Mapping[str, object], now: datetime
) -> None:
    """Set name, parent_id, account_id or owner_id."""
    columns = [name for name in ("name", "parent_id", "account_id", "owner_id") if name in changes]
    sets = "".join(f", {name} = ${index}" for index, name in enumerate(columns, 4))
    await unit.execute(
        f"update organization set updated_at = $3{sets} where environment_id = $1 and id = $2",
        environment_id,
        organization_id,
        now,
        *(changes[name] for name in columns),
    )
