"""From a quantity to an exact cost.

The problem, on one example. Storage is sold in tiers: the first 10 units of a month at 2 cents, the rest at 1 cent,
with 4 units free and at least 3 cents an event. Seven units come in when 5 were used before:

    quantity       7
    free units     of units 6..12 none is free any more (1..4 were)        -> 7 billable, 1 billable came before
    tiers          billable 2..8 lie in the first tier: 7 * 2 = 14
    minimum        14 is above 3                                           -> 14
    cap            none                                                    -> 14

The steps stand in this order because each is defined on what the one before leaves: allowance is counted in units, so
it must come before money; a minimum or a cap is a promise about the event's money, so it comes after the tiers; and
nothing is rounded here at all, the ledger carries the fraction (``money``). Where the allowance covers an event whole,
it costs nothing and no minimum is raised (decision 0006). Sources: design 11 (Rating), contract 3.11.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from .catalog import PriceVersion, Tier
from .money import ZERO, Exact, at_most, minus, plus, split_whole, times


class Counter(NamedTuple):
    """What a period has seen of one price.

    ``units`` counted so far (with max value billing: the highest value so far), ``billed`` the exact amount so far
    (volume needs it), ``maximum_transaction_id`` the transaction that set the highest value, where one did.
    """

    units: Exact = ZERO
    billed: Exact = ZERO
    maximum_transaction_id: int | None = None


EMPTY: Final = Counter()


class Line(NamedTuple):
    """One explained part of a cost: ``units`` at ``unit`` each make ``exact``; ``what`` says which rule it was."""

    what: str
    units: Exact
    unit: Exact
    exact: Exact


class Rated(NamedTuple):
    """A cost, the units to add to the counter, and the lines that sum to the cost."""

    cost: Exact
    counted: Exact
    lines: tuple[Line, ...]


def rate(version: PriceVersion, quantity: Exact, counter: Counter) -> Rated:
    """The exact cost of ``quantity`` units after what ``counter`` has seen. The pipeline of this module's opening."""
    before = counter.units
    counted = _above(quantity, before) if version.max_value_billing else quantity
    billable_before = _above(before, Exact(version.free_units, 1))
    billable_after = _above(plus(before, counted), Exact(version.free_units, 1))
    billable = minus(billable_after, billable_before)
    lines: list[Line] = []
    free = minus(counted, billable)
    if free.numerator > 0:
        lines.append(Line("free_units", free, ZERO, ZERO))
    if billable.numerator == 0:
        return Rated(ZERO, counted, tuple(lines))
    match version.model:
        case "per_unit":
            lines.append(Line("per_unit", billable, version.unit, times(billable, version.unit)))
        case "package":
            lines.append(_packages(version, billable_before, billable_after))
        case "graduated":
            lines.extend(_graduated(version.tiers, billable_before, billable_after))
        case _:  # volume
            lines.append(_volume(version.tiers, billable, billable_after, counter.billed))
    cost = ZERO
    for line in lines:
        cost = plus(cost, line.exact)
    if version.minimum is not None and not at_most(version.minimum, cost):
        lines.append(Line("minimum", Exact(1, 1), version.minimum, minus(version.minimum, cost)))
        cost = version.minimum
    if version.cap is not None and not at_most(cost, version.cap):
        lines.append(Line("cap", Exact(1, 1), version.cap, minus(version.cap, cost)))
        cost = version.cap
    return Rated(cost, counted, tuple(lines))


def count(counter: Counter, counted: Exact, cost: Exact) -> Counter:
    """The counter after an event; negative arguments take an event back out."""
    return counter._replace(units=plus(counter.units, counted), billed=plus(counter.billed, cost))


def _above(value: Exact, floor: Exact) -> Exact:
    """``value - floor``, or zero where that is negative."""
    rest = minus(value, floor)
    return rest if rest.numerator > 0 else ZERO


def _packages(version: PriceVersion, before: Exact, after: Exact) -> Line:
    """Packages opened by this event: a package is paid when its first unit is used."""
    opened = _packages_in(after, version.per) - _packages_in(before, version.per)
    return Line("package", Exact(opened, 1), version.unit, times(Exact(opened, 1), version.unit))


def _packages_in(units: Exact, per: int) -> int:
    whole, rest = split_whole(Exact(units.numerator, units.denominator * per))
    return whole + (rest.numerator > 0)


def _graduated(tiers: tuple[Tier, ...], before: Exact, after: Exact) -> list[Line]:
    """Each unit at the price of the tier it lies in."""
    lines: list[Line] = []
    start = ZERO
    for tier in tiers:
        end = after if tier.up_to is None or at_most(after, Exact(tier.up_to, 1)) else Exact(tier.up_to, 1)
        low = before if at_most(start, before) else start
        units = minus(end, low)
        if units.numerator > 0:
            lines.append(Line("tier", units, tier.unit, times(units, tier.unit)))
        start = end
    return lines


def _volume(tiers: tuple[Tier, ...], units: Exact, after: Exact, billed: Exact) -> Line:
    """All units of the period at the price of the tier the total lies in, less what was billed; never below zero."""
    tier = next(tier for tier in tiers if tier.up_to is None or at_most(after, Exact(tier.up_to, 1)))
    return Line("volume", units, tier.unit, _above(times(after, tier.unit), billed))
