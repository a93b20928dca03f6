"""Equalities of overage that hold for every plan, every event and every order.

``Life`` audits itself after each step, so posted sums, residues, chains, holds and counters are exact in any life that
can be lived at all; here stands what overage adds: what was there and what was not are the whole cost, the second has
its price to the last fraction, and a balance with overage terms never pays what it does not have.
"""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenuto.core.event import Decision, Event, UsageEvent, overflow_of, whole_cost
from tests.core.account_life import Life, event, fraction, settle_for
from tests.properties.test_usage_properties import (
    EVERYTHING,
    TYPES,
    Ending,
    Step,
    amounts,
    any_terms,
    copy_of,
    quantities,
    seeded,
    steps,
    sums,
    take,
    usage_events,
)

METERED: Final = ("credits", "tokens")


@st.composite
def plans(draw: st.DrawFn, *, is_plain: bool = False) -> Life:
    """An account on a plan that prices what goes beyond one or two of its balances."""
    life = Life()
    priced = draw(st.sampled_from([METERED, METERED[:1]]))
    life.subscribe(
        {
            name: {
                "overage_charge_amount": draw(amounts),
                "overage_charge_per": draw(st.sampled_from([1, 1, 7, 60])),
                "overage_charge_denomination": "USD",
            }
            for name in priced
        }
    )
    for denomination in (*METERED, "USD"):
        least = 0 if is_plain else -3
        residue = "0" if is_plain else draw(st.sampled_from(["0", "2/5", "6/7"]))
        life.open(denomination, draw(st.integers(least, 30)), residue=residue)
    several = [["credits"], ["credits", "USD"], ["credits", "tokens"], ["tokens", "USD"]]
    for kind in TYPES:
        for denomination in draw(st.sampled_from(several)):
            life.price(kind, denomination, {"amount": draw(amounts)} if is_plain else draw(any_terms()))
    return life


def check_overage(life: Life, lived: list[Step]) -> None:
    assert life.plan is not None
    for step in lived:
        before = life.state
        answer = take(life, step)
        for made in life.events.values():
            check_charges(life, made)
        if not isinstance(answer, Decision) or isinstance(step, Ending):
            continue
        for denomination, balance in life.state.balances.items():
            terms = life.plan.balances.get(denomination)
            if terms is not None:
                # What is held keeps its fractions back too, so less than one unit may be owed beside it.
                assert balance.available >= min(0, before.balances[denomination].available)
                assert balance.amount >= min(0, before.balances[denomination].amount)


def check_charges(life: Life, made: Event) -> None:
    assert life.plan is not None
    for charge in made.charges:
        if charge.overage is not None:
            priced = life.plan.balances[charge.overage.denomination].overage
            assert priced is not None
            assert fraction(charge.cost) == fraction(charge.overage.units) * fraction(priced.unit)
            assert charge.denomination == priced.denomination
            continue
        spilt = overflow_of(made.charges, charge)
        version = next((known for known in life.versions if known.id == charge.price_version_id), None)
        whole = fraction(whole_cost(made.charges, charge))
        assert fraction(charge.cost) <= whole
        assert spilt is None or charge.denomination in life.plan.balances
        is_as_pushed = made.state != "cancelled" and made.first is None
        if version is not None and version.is_plain and is_as_pushed:
            assert whole == Fraction(made.quantity) * fraction(version.unit)


@seeded
@given(plans(), steps(EVERYTHING))
def test_what_was_there_and_what_was_not_are_the_whole_cost(life: Life, lived: list[Step]) -> None:
    check_overage(life, lived)


@pytest.mark.slow
@settings(deadline=None, max_examples=5_000, suppress_health_check=list(HealthCheck))
@given(plans(), steps(EVERYTHING))
def test_what_was_there_and_what_was_not_are_the_whole_cost_campaign(life: Life, lived: list[Step]) -> None:
    check_overage(life, lived)


@seeded
@given(plans(is_plain=True), st.lists(usage_events(), max_size=8), st.data())
def test_the_order_of_events_changes_no_sum(life: Life, events: list[UsageEvent], data: st.DataObject) -> None:
    told, shuffled = with_plan(life), with_plan(life)
    for one in events:
        told.push(one)
    for one in data.draw(st.permutations(events)):
        shuffled.push(one)
    assert sums(told) == sums(shuffled)


@seeded
@given(plans(), st.lists(usage_events(), min_size=1, max_size=8), st.data())
def test_cutting_a_list_into_requests_changes_no_sum(life: Life, events: list[UsageEvent], data: st.DataObject) -> None:
    whole, cut = with_plan(life), with_plan(life)
    whole.push(*events)
    at = data.draw(st.integers(0, len(events) - 1))
    for part in (events[:at], events[at:]):
        if part:
            cut.push(*part)
    assert sums(whole) == sums(cut)


@seeded
@given(plans(), st.sampled_from(TYPES), quantities)
def test_a_hold_settled_in_full_is_a_plain_event(life: Life, kind: str, quantity: str) -> None:
    held, plain = with_plan(life), with_plan(life)
    hold = held.push(event(kind, quantity, state="pending")).events[0]
    held.finish(hold.id, settle_for())
    plain.push(event(kind, quantity))
    assert sums(held) == sums(plain)
    assert sorted(row._replace(id=0) for row in held.transactions) == sorted(
        row._replace(id=0, first_event_id=hold.id) for row in plain.transactions
    )


@seeded
@given(plans(), steps(EVERYTHING))
def test_taking_everything_back_leaves_nothing(life: Life, lived: list[Step]) -> None:
    for step in lived:
        take(life, step)
    life.wait(timedelta(hours=1))
    life.sweep()
    for event_id, made in sorted(life.events.items()):
        if made.state == "complete":
            life.void(event_id)
    assert set(sums(life).values()) <= {0}
    assert not any(fraction(seen.units) or fraction(seen.billed) for seen in life.stored.counters.values())


def with_plan(life: Life) -> Life:
    copied = copy_of(life)
    copied.plan = life.plan
    return copied
