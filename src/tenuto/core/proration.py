"""What is left of a period, and what is to be paid besides its price.

The problem, on one example. A month of 30 days cost 1,000 cents and included 1,000 tokens and 20 images; on the 16th
250 tokens and 15 images are used, and the account changes its plan:

    measure    left            share
    time       15 of 30 days   1/2
    tokens     750 of 1000     3/4
    images     5 of 20         1/4     the smallest: 250 cents are given back

So nothing is used and refunded too. Sources: design 11 (Changes), contract 3.3 and 3.4, bar I-59 and I-60.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from .grant import Grant, left_of
from .money import Exact, at_most, is_fiat
from .period import months_within, whole_seconds
from .plan import PlanTerms, included, variable_lines
from .subscription import Around, Line, Offer, Period


def unused_credit(around: Around) -> int:
    """The price of the running period times the smallest share that is left, rounded down (design 11, Changes).

    Shares: of the time, in whole seconds, and of the units of each included balance, those still to come in a year's
    period counted in. A plan that is bought once and includes nothing leaves nothing to measure, and gives nothing
    back.
    """
    period, subscription, terms = around.period, around.subscription, around.terms
    if period is None or subscription is None or terms is None or subscription.status == "past_due":
        return 0
    shares = [share for share in (_time_left(period, around.at), *_units_left(around, period)) if share is not None]
    if not shares or not period.price:
        return 0
    least = shares[0]
    for share in shares[1:]:
        if at_most(share, least):
            least = share
    return _kept(around, period) * least.numerator // least.denominator


def modified_credit(around: Around, denomination: str) -> int:
    """What is given back of a period of which one balance is to be had in another amount (contract 3.3).

    Its price by the units left, whatever the time. Where a year was paid for, or the period gave other units too, those
    count as well, as for Ariel: they must not have been used and be refunded.
    """
    period, subscription = around.period, around.subscription
    if period is None or subscription is None or subscription.status != "active":
        return 0
    given = given_in(around, period.id)
    if subscription.refill_number or set(given) - {denomination}:
        return unused_credit(around)
    left = left_of(around.purse(denomination).of_period(period.id)) - held_of(around, denomination)
    return refill_credit(_kept(around, period), given.get(denomination, 0), left)


def refill_credit(price: int, gave: int, left: int) -> int:
    """What the rest of a refill is worth: its price by units left, rounded down to a cent (contract 3.3)."""
    return price * min(max(0, left), gave) // gave if gave else 0


def _kept(around: Around, period: Period) -> int:
    """What is kept of a period's price: what was given back, or refunded, cannot be given back again."""
    return max(0, period.price - period.credited - around.refunded)


def _time_left(period: Period, at: datetime) -> Exact | None:
    if period.end_at is None:
        return None
    whole = whole_seconds(period.start_at, period.end_at)
    return Exact(min(whole, whole_seconds(at, period.end_at)), max(1, whole))


def _units_left(around: Around, period: Period) -> list[Exact]:
    """The share left of each balance whose units the period gave, or of a year's period is to give still.

    What the plan includes but has not given, after a step down for instance, was not paid for and is not measured.
    """
    subscription, terms = around.subscription, around.terms
    assert subscription is not None
    assert terms is not None
    times = to_come = 0
    if subscription.refill_number and subscription.period_start is not None and subscription.period_end is not None:
        times = months_within(subscription.period_start, subscription.period_end, around.zone)
        to_come = times - subscription.refill_number
    every = included(terms, subscription.variable_units)
    shares: list[Exact] = []
    for name in sorted({*every, *given_in(around, period.id)}):
        grants = around.purse(name).of_period(period.id)
        later = every.get(name, 0) * to_come
        gave = max(sum(grant.units for grant in grants), every.get(name, 0)) if times else sum(g.units for g in grants)
        total = gave + every.get(name, 0) * max(0, times - 1)
        if total:
            shares.append(Exact(min(max(0, left_of(grants) - held_of(around, name)) + later, total), total))
    return shares


def held_of(around: Around, name: str) -> int:
    """Units that holds reserve: they may be used still, so they are neither given back nor taken away."""
    balance = around.state.balances.get(name)
    return 0 if balance is None else balance.pending


def given_in(around: Around, period_id: int) -> dict[str, int]:
    """Units by denomination that the plan gave in a period, or in this month of it."""
    given = {name: sum(g.units for g in purse.of_period(period_id)) for name, purse in around.purses.items()}
    return {name: units for name, units in given.items() if units}


class Ending(NamedTuple):
    """Grants that end, what is left of them by denomination, and how many of these units end with them."""

    cancelled: dict[str, int]
    left: dict[str, int]
    ids: tuple[int, ...]


def ending(around: Around, terms: PlanTerms, *, rolls_over: bool) -> Ending:
    """The grants of the plan that end here with their units.

    ``rolls_over``: units that the plan lets roll over stay. Not so where they are given back for money: then those
    stay that holds reserve, for they are not given back.
    """
    cancelled_units: dict[str, int] = {}
    remaining: dict[str, int] = {}
    ids: list[int] = []
    for name, purse in sorted(around.purses.items()):
        grants: list[Grant] = [grant for grant in purse.grants if grant.source == "plan"]
        ids.extend(grant.id for grant in grants)
        balance = terms.balances.get(name)
        left = left_of(grants)
        if left:
            remaining[name] = left
        gone = left if rolls_over else max(0, left - held_of(around, name))
        if gone and not (rolls_over and balance is not None and balance.rollover):
            cancelled_units[name] = gone
    return Ending(cancelled_units, remaining, tuple(ids))


def granted(units: Mapping[str, int], around: Around, *, is_free: bool, ends_of: int | None = None) -> dict[str, int]:
    """Units that come: what a plan gives for nothing comes once a period, however often it is entered.

    ``ends_of``: the plan that is entered, where grants that it gave for nothing end here.
    """
    if not is_free:
        return dict(units)
    used = dict(around.used_free)
    if ends_of is not None and around.period is not None and not around.period.price:
        for name, purse in around.purses.items():
            for grant in purse.grants:
                if grant.plan_id == ends_of and (grant.until_at is None or grant.until_at > around.at):
                    used[name] = used.get(name, 0) + grant.units - grant.left
    return {name: amount - used.get(name, 0) for name, amount in units.items() if amount > used.get(name, 0)}


def charged(line: Line, offer: Offer) -> int:
    """What a line adds to the charge; what is in another denomination stands on that balance instead."""
    return line.amount if line.denomination == offer.terms.denomination else 0


def plan_lines(offer: Offer) -> list[Line]:
    """The price of a period, line by line."""
    terms = offer.terms
    lines = [Line("plan", terms.name, terms.renewals[offer.cadence], terms.denomination)]
    for name, units, unit in variable_lines(terms, offer.cadence, offer.units):
        lines.append(Line("variable", name, units * unit, terms.denomination, units, unit))
    return [line for line in lines if line.amount]


def setup_lines(terms: PlanTerms) -> list[Line]:
    """What a plan asks for once."""
    return [Line("setup_fee", "Setup fee", terms.setup_fee, terms.denomination)] if terms.setup_fee else []


def minimum_lines(around: Around, credit: int, *, is_whole: bool) -> list[Line]:
    """What the period that ends is short of its minimum: the plan's price and usage count; a part of it by time."""
    period, terms = around.period, around.terms
    if period is None or terms is None or terms.minimum_spend is None or period.is_trial:
        return []
    minimum = terms.minimum_spend
    if not is_whole and period.end_at is not None:
        whole = whole_seconds(period.start_at, period.end_at)
        minimum = minimum * min(whole, whole_seconds(period.start_at, around.at)) // max(1, whole)
    spent = max(0, around.purse(period.denomination).spent - period.spent_before)
    short = minimum - spent - (period.price - credit)
    if short <= 0:
        return []
    return [Line("minimum_spend", f"Up to the minimum spend of {minimum}", short, period.denomination)]


def owed_lines(around: Around, denomination: str) -> list[Line]:
    """What the balance owes for overage and usage, but for what invoices ask for already, or will."""
    if around.by_invoice or not is_fiat(denomination):
        # A debt in tokens stands on the balance that pays: asked for once more it would be paid by itself.
        return []
    balance = around.state.balances.get(denomination)
    # Not what was used since, where the step comes late: the next one asks for that.
    owed = 0 if balance is None else -max(balance.amount, around.purse(denomination).amount) - around.owed
    return [Line("owed", f"Owed on the {denomination} balance", owed, denomination)] if owed > 0 else []


def earlier_credit(around: Around, denomination: str, total: int) -> int:
    """How much of the credit of earlier changes this uses up."""
    grants = [grant for grant in around.purse(denomination).grants if grant.source == "credit"]
    balance = around.state.balances.get(denomination)
    held = 0 if balance is None else max(0, balance.available)
    return max(0, min(left_of(grants), held, total))
