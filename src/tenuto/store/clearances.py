"""Clearances: how many of something each organization has, or will have once what was cleared is made."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from tenuto.core.plan import FlagValue

from .database import Reader, Unit
from .records import decoded


class Known(NamedTuple):
    """What is known of one thing in a tree of organizations.

    ``expected`` is how many the asking organization will have, None where it never asked; that many at least until
    ``until`` (real time), whatever is counted. ``others`` is what all others in its tree have together.
    """

    expected: int | None
    until: datetime | None
    others: int


async def lock_payer(unit: Unit, environment_id: int, payer_id: int) -> None:
    """Let one clearance at a time be judged for a tree: the organization at its top is locked."""
    await unit.execute(
        "select from organization where environment_id = $1 and id = $2 for no key update", environment_id, payer_id
    )


async def read_known(reader: Reader, environment_id: int, payer_id: int, organization_id: int, basename: str) -> Known:
    """What was cleared of one thing so far, in the tree under ``payer_id``."""
    row = await reader.fetchrow(
        "with recursive tree as (select id, 1 as depth from organization where environment_id = $1 and id = $2"
        " union all select o.id, t.depth + 1 from organization o join tree t on o.parent_id = t.id"
        " where o.environment_id = $1 and t.depth < 64)"
        " select max(c.expected) filter (where c.organization_id = $3) as expected,"
        " max(c.until) filter (where c.organization_id = $3) as until,"
        " coalesce(sum(c.expected) filter (where c.organization_id <> $3), 0)::bigint as others"
        " from clearance c join tree t on t.id = c.organization_id where c.environment_id = $1 and c.basename = $4",
        environment_id,
        payer_id,
        organization_id,
        basename,
    )
    assert row is not None
    return Known(row["expected"], row["until"], row["others"])


async def keep(
    unit: Unit, environment_id: int, organization_id: int, basename: str, expected: int, until: datetime
) -> None:
    """Remember how many an organization will have, in any case until ``until`` (real time); not of one that is gone."""
    await unit.execute(
        "insert into clearance (environment_id, organization_id, basename, expected, until)"
        " select environment_id, id, $3, $4, $5 from organization where environment_id = $1 and id = $2 for key share"
        " on conflict on constraint clearance_pkey"
        " do update set expected = excluded.expected, until = excluded.until",
        environment_id,
        organization_id,
        basename,
        expected,
        until,
    )


async def read_own_flag(reader: Reader, account_id: int, name: str) -> FlagValue | None:
    """A flag that was set for one account; None where none was."""
    text = await reader.fetchval("select value from account_flag where account_id = $1 and name = $2", account_id, name)
    found: FlagValue | None = None if text is None else decoded(text)
    return found


async def is_overdue(reader: Reader, account_id: int, before: datetime) -> bool:
    """Whether an invoice that was due before then (the company's time) still waits for money, given up or not."""
    found: bool = await reader.fetchval(
        "select exists (select from invoice where account_id = $1 and status in ('open', 'uncollectible')"
        " and due_at < $2)",
        account_id,
        before,
    )
    return found
