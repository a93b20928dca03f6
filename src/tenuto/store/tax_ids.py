"""Tax numbers of accounts, with what a register said of them, and when they are looked at next."""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

from .database import Reader, Unit


class TaxId(NamedTuple):
    """A tax number. ``status``: pending, verified, unverified, unavailable.

    ``gateway_id`` is its id at the provider, once it is known there. ``tries`` counts the turns in which the provider
    was asked about it; it only rises, so whoever comes back from a turn knows whether it still is theirs. ``next_at``
    is when the next turn is due, in the company's time; of a deleted number, when the provider is to forget it.
    """

    account_id: int
    id: int
    environment_id: int
    gateway_id: str | None
    type: str
    value: str
    country: str
    status: str
    verified_name: str | None
    verified_address: str | None
    tries: int
    next_at: datetime | None
    created_at: datetime
    deleted_at: datetime | None


_FIELDS: Final = ", ".join(TaxId._fields)


async def insert_tax_id(unit: Unit, tax_id: TaxId) -> None:
    """Keep a new tax number."""
    places = ", ".join(f"${index}" for index in range(1, len(TaxId._fields) + 1))
    await unit.execute(f"insert into tax_id ({_FIELDS}) values ({places})", *tax_id)


async def list_tax_ids(reader: Reader, account_id: int) -> list[TaxId]:
    """The tax numbers of an account that were not deleted, the oldest first."""
    rows = await reader.fetch(
        f"select {_FIELDS} from tax_id where account_id = $1 and deleted_at is null order by id", account_id
    )
    return [TaxId(*row) for row in rows]


async def read_tax_id(reader: Reader, account_id: int, tax_id: int, *, or_deleted: bool = False) -> TaxId | None:
    """One tax number that was not deleted, or whether it was or not."""
    row = await reader.fetchrow(
        f"select {_FIELDS} from tax_id where account_id = $1 and id = $2 and ($3 or deleted_at is null)",
        account_id,
        tax_id,
        or_deleted,
    )
    return None if row is None else TaxId(*row)


async def gateway_ids(reader: Reader, account_id: int) -> frozenset[str]:
    """What an account's tax numbers are called at the provider, the deleted ones too."""
    rows = await reader.fetch(
        "select gateway_id from tax_id where account_id = $1 and gateway_id is not null", account_id
    )
    return frozenset(row["gateway_id"] for row in rows)


async def update_tax_id(unit: Unit, tax_id: TaxId) -> None:
    """Write down what has become of a tax number; type, value and country never change."""
    await unit.execute(
        "update tax_id set gateway_id = $3, status = $4, verified_name = $5, verified_address = $6, tries = $7,"
        " next_at = $8, deleted_at = $9 where account_id = $1 and id = $2",
        tax_id.account_id,
        tax_id.id,
        tax_id.gateway_id,
        tax_id.status,
        tax_id.verified_name,
        tax_id.verified_address,
        tax_id.tries,
        tax_id.next_at,
        tax_id.deleted_at,
    )
