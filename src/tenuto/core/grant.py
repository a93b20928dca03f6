"""Grants: units that arrived together and end together, and which of them are used first.

The problem, on one example. A balance holds 1,000 tokens of the plan, which end on 1 April, 200 given for goodwill,
which end on 15 March, and 50 that were bought. 300 are used by 15 March:

    grant       units   priority   ends        used first          left on 15 March
    plan        1000    50         1 April     1st: 50 is before   700
    goodwill    200     100        15 March    2nd                 200, which end now
    the rest    50      -          -           last                50

Nobody notes with each event which grant it used. A balance knows what usage has taken in all (what arrived less what
is there), and how much of that its grants are burned down by; the difference is burned when it matters: when a grant
comes, ends or is valued. Between two such moments the grants are the same, so the order within does not matter. What is
owed (a balance below zero) is paid by what arrives next. Sources: house (The words, grant), design 11 (Changes).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple

Source = Literal["plan", "manual", "credit"]

GRANTS_MAX: Final = 200
"""Open grants one balance may have."""

PLAN_PRIORITY: Final = 50
MANUAL_PRIORITY: Final = 100
CREDIT_PRIORITY: Final = 200
PRIORITY_MAX: Final = 255


class Grant(NamedTuple):
    """Units that arrived together. ``left`` is as of what their purse says is burned; ``price`` what was paid for them.

    ``until_at``: when the period that a plan gave them for was meant to end. An open one has no ``closed_at``.
    """

    account_id: int
    id: int
    environment_id: int
    denomination: str
    source: Source
    units: int
    left: int
    priority: int
    price: int
    price_denomination: str
    plan_id: int | None
    period_id: int | None
    until_at: datetime | None
    expires_at: datetime | None
    reason: str
    created_at: datetime
    closed_at: datetime | None = None


class Purse(NamedTuple):
    """The open grants of one balance in the order in which they are used.

    ``amount`` and ``arrived`` are the balance's; their difference is what usage took, of which the grants are burned
    down by ``burned``.
    """

    denomination: str
    amount: int
    arrived: int
    burned: int
    grants: tuple[Grant, ...] = ()

    @property
    def spent(self) -> int:
        """What usage has taken in all."""
        return self.arrived - self.amount

    def of_period(self, period_id: int) -> tuple[Grant, ...]:
        """The grants that a plan made for one of its periods."""
        return tuple(grant for grant in self.grants if grant.source == "plan" and grant.period_id == period_id)


def empty(denomination: str) -> Purse:
    """The purse of a balance that is not there yet."""
    return Purse(denomination, 0, 0, 0)


def as_before(purse: Purse, *, used: int, arrived: int) -> Purse:
    """The purse as it was before usage took ``used`` more and ``arrived`` more came in."""
    return purse._replace(amount=purse.amount + used - arrived, arrived=purse.arrived - arrived)


def burned_down(purse: Purse) -> Purse:
    """The purse with its grants burned down by all that usage has taken, and by what is owed besides."""
    grants = _burned(purse.grants, purse.spent - purse.burned)
    short = sum(grant.left for grant in grants) - max(0, purse.amount)
    # Something later may have burned them down further already, and usage that is taken back fills no grant again.
    return purse._replace(burned=max(purse.burned, purse.spent), grants=_burned(grants, short))


def opened(purse: Purse, grants: Iterable[Grant]) -> Purse:
    """The purse, burned down, with grants whose units have just arrived: what is owed is paid from them first."""
    more = tuple(grants)
    units = sum(grant.units for grant in more)
    after = purse._replace(
        amount=purse.amount + units,
        arrived=purse.arrived + units,
        grants=tuple(sorted((*purse.grants, *more), key=_order)),
    )
    return burned_down(after)


def closed(purse: Purse, ids: Iterable[int], *, now: datetime, cancelled: int = 0) -> tuple[Purse, tuple[Grant, ...]]:
    """The purse without some of its grants, of whose units ``cancelled`` are taken away; and those grants, closed."""
    ended = frozenset(ids)
    gone = tuple(grant._replace(closed_at=now) for grant in purse.grants if grant.id in ended)
    after = purse._replace(
        amount=purse.amount - cancelled,
        arrived=purse.arrived - cancelled,
        grants=tuple(grant for grant in purse.grants if grant.id not in ended),
    )
    return after, gone


def taken_from(purse: Purse, units: int, *, source: Source) -> Purse:
    """The purse after ``units`` were used up of the grants from one source, by something that is no usage."""
    chosen = _burned([grant for grant in purse.grants if grant.source == source], units)
    after = {grant.id: grant for grant in chosen}
    return purse._replace(grants=tuple(after.get(grant.id, grant) for grant in purse.grants))


def left_of(grants: Iterable[Grant]) -> int:
    """Units that are left of grants."""
    return sum(grant.left for grant in grants)


_NEVER: Final = datetime.max.replace(tzinfo=UTC)


def _order(grant: Grant) -> tuple[int, datetime, int]:
    """By priority, and what ends sooner before what ends later or never."""
    return grant.priority, grant.expires_at or _NEVER, grant.id


def _burned(grants: Sequence[Grant], units: int) -> tuple[Grant, ...]:
    result: list[Grant] = []
    for grant in grants:
        used = min(grant.left, max(0, units))
        units -= used
        result.append(grant._replace(left=grant.left - used) if used else grant)
    return tuple(result)
