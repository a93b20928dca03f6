"""What is due: rows with a due time in the table they concern, by company and in the company's own time.

There is no queue (house, The clockwork without a queue). A sweep asks for the rows of its kind that are due; the test
clock asks for the earliest of any kind, so that it can stop at each. A row is due when its company's clock has reached
its time, and a test clock may be ahead: so each half of a company is asked by itself, through an index that begins with
it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

from .database import Reader, Record


class Due(NamedTuple):
    """A kind of due rows: the table, the column of the due time, and which of its rows still wait.

    ``is_claimed``: a worker takes a row in hand until a moment of real time; meanwhile it is nobody else's to do.
    """

    table: str
    column: str
    waiting: str
    is_claimed: bool = False

    @property
    def place(self) -> str:
        """Its name: where it stands in the tables."""
        return f"{self.table}.{self.column}"


REFILLS_BY_DATE: Final = Due("refill", "next_at", "t.payment_id is null and t.parked_at is null")
REFILLS_BY_THRESHOLD: Final = Due("refill", "due_at", "t.payment_id is null and t.parked_at is null")
PAYMENTS: Final = Due(
    "payment",
    "next_attempt_at",
    "t.status in ('intended', 'created', 'confirming', 'processing', 'voiding')",
    is_claimed=True,
)
REFUNDS: Final = Due("refund", "next_attempt_at", "t.status = 'intended'", is_claimed=True)
INVOICES_TO_CUT: Final = Due("invoice_terms", "next_at", "true")
INVOICES_TO_FINALIZE: Final = Due("invoice", "finalize_at", "t.status = 'draft'")
INVOICES_TO_COLLECT: Final = Due("invoice", "next_collection_at", "t.status = 'open'")
PLANS: Final = Due(
    "subscription",
    "next_at",
    # One whose change is being paid for waits, and must not stand before the others meanwhile.
    "not exists (select from payment y where y.account_id = t.account_id and y.slot = 'plan'"
    " and y.status in ('intended', 'created', 'confirming', 'processing', 'voiding')"
    " and not (y.status = 'created' and y.declines > 0))",
)
GRANTS: Final = Due("balance_grant", "expires_at", "t.closed_at is null")
INVOICES_TO_DUN: Final = Due("invoice", "next_dunning_at", "t.status = 'open'")
TAX_IDS: Final = Due("tax_id", "next_at", "true")
"""Not one of the kinds below: a register answers in real time, and a test clock must not wait for it."""

KINDS: Final = (
    REFILLS_BY_DATE,
    REFILLS_BY_THRESHOLD,
    PAYMENTS,
    REFUNDS,
    INVOICES_TO_CUT,
    INVOICES_TO_FINALIZE,
    INVOICES_TO_COLLECT,
    INVOICES_TO_DUN,
    PLANS,
    GRANTS,
)


_ANOTHER_ORDER: Final = "hashint4(v.id # extract(microseconds from $1::timestamptz)::integer), v.id"


async def due_rows(
    reader: Reader,
    kind: Due,
    columns: str,
    *,
    now: datetime,
    limit: int,
    environment_id: int | None = None,
    each: int | None = None,
    together: int = 1,
) -> list[Record]:
    """The rows of a kind that are due, earliest first: ``environment_id``, ``due``, then ``columns`` of table ``t``.

    ``now`` is real time; each half of a company is judged by its own clock. The halves take turns, so that one with
    much to do keeps no other waiting; ``each`` bounds what one may have of a pass. Where ``together`` rows of one half
    are done at once, turns are of so many, and each pass takes the halves in another order: not all have a turn in it.
    """
    free = " and (t.claimed_until is null or t.claimed_until <= $1)" if kind.is_claimed else ""
    turns = "d.turn" if together == 1 else f"(d.turn - 1) / {together}, {_ANOTHER_ORDER}"
    return await reader.fetch(
        f"select v.id as environment_id, d.* from environment v cross join lateral ("
        f" select t.{kind.column} as due, row_number() over (order by t.{kind.column}) as turn, {columns}"
        f" from {kind.table} t where t.environment_id = v.id"
        f" and t.{kind.column} <= $1::timestamptz + v.clock_offset * interval '1 microsecond' and {kind.waiting}{free}"
        f" order by t.{kind.column} limit $4) d"
        f" where $3::integer is null or v.id = $3 order by {turns}, d.due limit $2",
        now,
        limit,
        environment_id,
        limit if each is None else each,
    )


_EARLIEST: Final = "select least({}, {})".format(
    ", ".join(
        f"(select min(t.{kind.column}) from {kind.table} t"
        f" where t.environment_id = $1 and t.{kind.column} > $2 and {kind.waiting})"
        for kind in KINDS
    ),
    "(select min(h.expires_at) from event h join account a on a.id = h.account_id"
    " where h.state = 1 and h.expires_at > $2 and a.environment_id = $1)",
)


async def earliest_due(reader: Reader, environment_id: int, *, after: datetime) -> datetime | None:
    """When, after a moment, the next thing of any kind is due in one half of a company (in the company's time)."""
    found: datetime | None = await reader.fetchval(_EARLIEST, environment_id, after)
    return found


_COUNTS: Final = "select {} from environment v where v.id = $2".format(
    ", ".join(
        f"(select count(*) from {kind.table} t where t.environment_id = v.id"
        f" and t.{kind.column} <= $1::timestamptz + v.clock_offset * interval '1 microsecond' and {kind.waiting})"
        f' as "{kind.place}"'
        for kind in KINDS
    )
)


async def count_due(reader: Reader, *, now: datetime, environment_id: int) -> dict[str, int]:
    """How many rows of each kind, by its place, are due in one half of a company."""
    return dict(await reader.fetchrow(_COUNTS, now, environment_id) or {})


async def in_hand(reader: Reader, environment_id: int, now: datetime) -> bool:
    """Whether somebody has a payment or a refund of one half of a company in hand at this moment."""
    found: bool = await reader.fetchval(
        "select exists (select from payment t where t.environment_id = $1 and t.claimed_until > $2"
        f" and {PAYMENTS.waiting})"
        " or exists (select from refund t where t.environment_id = $1 and t.claimed_until > $2"
        f" and {REFUNDS.waiting})",
        environment_id,
        now,
    )
    return found
