"""What is left of a period, and what is to be paid besides its price."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import pytest

from tenuto.core.grant import left_of
from tenuto.core.ledger import OVERAGE_BOOK
from tenuto.core.proration import (
    charged,
    earlier_credit,
    ending,
    given_in,
    granted,
    minimum_lines,
    modified_credit,
    owed_lines,
    plan_lines,
    refill_credit,
    setup_lines,
    unused_credit,
)
from tenuto.core.subscription import Around, Line, Offer, Subscription, basis_of, still_holds
from tests.core.plan_life import PlanLife, offer_of, sold

APRIL: Final = datetime(2030, 4, 1, tzinfo=UTC)
"""The first of a month of 30 days."""

BOTH: Final = offer_of(1, sold("Both", 1000, {"tokens": 1000, "images": 20}))
PLAIN: Final = offer_of(2, sold("Plain", 1000, {}))
ONCE: Final = offer_of(3, sold("Once", {"ONE_OFF": 1000}, 1000))
NOTHING: Final = offer_of(4, sold("Nothing", {"ONE_OFF": 1000}, {}))
FREE: Final = offer_of(5, sold("Free", 0, 100))
TRIAL: Final = offer_of(6, sold("Trial", 1000, 100, trial_days=10))
YEAR: Final = offer_of(7, sold("Year", {"YEARLY": 12_000}, 100, refill_cadence="MONTHLY"))


def living(offer: Offer, *, days: float = 0, **used: int) -> PlanLife:
    """An account that began with a plan so many days ago and has used so much."""
    life = PlanLife(now=APRIL)
    life.start(offer)
    for name, units in used.items():
        life.use(name, units)
    life.wait(days=days)
    return life


# --- credit -----------------------------------------------------------------------------------------------------------

SECOND: Final = 1 / 86_400
CREDITS: Final[dict[str, tuple[PlanLife, int]]] = {
    "the example of the module": (living(BOTH, days=15, tokens=250, images=15), 250),
    "time is least": (living(BOTH, days=15, tokens=250, images=5), 500),
    "tokens are least": (living(BOTH, days=3, tokens=950), 50),
    "one is used up": (living(BOTH, images=20), 0),
    "more than there was": (living(BOTH, tokens=1300), 0),
    "at once": (living(BOTH), 1000),
    "a second later": (living(BOTH, days=SECOND), 999),
    "part of a second is a whole one that is over": (living(BOTH, days=SECOND / 2), 999),
    "only time to measure": (living(PLAIN, days=10), 666),
    "only units to measure": (living(ONCE, days=400, tokens=250), 750),
    "nothing to measure": (living(NOTHING), 0),
    "nothing was paid": (living(FREE, tokens=10), 0),
    "a trial": (living(TRIAL, days=2), 0),
    "a year, half of it over": (living(YEAR, days=365 / 2), 6000),
    "a year's first month used up": (living(YEAR, tokens=100), 11_000),
    "a year's first month, some used": (living(YEAR, tokens=30), 11_700),
}


@pytest.mark.parametrize(("life", "credit"), CREDITS.values(), ids=CREDITS.keys())
def test_the_smallest_share_left_is_given_back(life: PlanLife, credit: int) -> None:
    assert unused_credit(life.around()) == credit


def test_nothing_is_given_back_where_nothing_runs_or_nobody_paid() -> None:
    around = living(BOTH).around()
    assert around.subscription is not None
    assert unused_credit(PlanLife().around()) == 0
    assert unused_credit(around._replace(terms=None)) == 0
    assert unused_credit(around._replace(subscription=None)) == 0
    assert unused_credit(around._replace(subscription=replace(around.subscription, status="past_due"))) == 0


def test_what_was_given_back_already_is_not_given_back_again() -> None:
    around = living(BOTH).around()
    assert around.period is not None
    assert unused_credit(around._replace(period=replace(around.period, credited=600))) == 400


def test_units_that_others_gave_are_no_part_of_the_price() -> None:
    life = living(BOTH, tokens=500)
    life.give("tokens", 5000)
    life.adjust("images", 70)
    assert unused_credit(life.around()) == 500


def test_a_balance_whose_units_never_came_is_not_measured() -> None:
    around = living(BOTH).around()
    whole = unused_credit(around)
    assert unused_credit(around._replace(purses={"tokens": around.purse("tokens")})) == whole > 0


def test_a_year_whose_month_was_not_filled_counts_what_is_to_come() -> None:
    around = living(YEAR).around()
    assert unused_credit(around._replace(purses={})) == 11_000


def test_a_balance_of_a_year_that_includes_nothing_is_not_measured() -> None:
    around = living(YEAR).around()
    assert unused_credit(around._replace(terms=sold("Year", {"YEARLY": 12_000}, {}), purses={})) == 12_000


REFILLS: Final = [
    # price, gave, left, credit (contract 3.3)
    (1000, 1000, 250, 250),
    (1000, 1000, 0, 0),
    (1000, 300, 100, 333),
    (1000, 1000, -40, 0),
    (1000, 1000, 1000, 1000),
    (1000, 1000, 4000, 1000),
    (1000, 0, 0, 0),
]


@pytest.mark.parametrize(("price", "gave", "left", "credit"), REFILLS)
def test_what_the_rest_of_a_refill_is_worth(price: int, gave: int, left: int, credit: int) -> None:
    assert refill_credit(price, gave, left) == credit


# --- units that end and come ------------------------------------------------------------------------------------------


def test_what_a_period_gave() -> None:
    life = living(BOTH, tokens=1000)
    life.give("tokens", 7)
    assert given_in(life.around(), life.period.id) == {"tokens": 1000, "images": 20}
    assert given_in(life.around(), 0) == {}


def test_grants_of_the_plan_end_and_those_by_hand_stay() -> None:
    life = living(BOTH, tokens=250, images=20)
    life.give("tokens", 7)
    ends = ending(life.around(), BOTH.terms, rolls_over=True)
    assert ends.cancelled == {"tokens": 750}
    assert {life.grants[id].denomination for id in ends.ids} == {"tokens", "images"}
    assert all(life.grants[id].source == "plan" for id in ends.ids)


def test_what_rolls_over_stays_but_not_where_it_is_given_back() -> None:
    rolls = offer_of(1, sold("Rolls", 1000, {"tokens": {"amount": 1000, "rollover": True}, "images": 20}))
    around = living(rolls).around()
    assert ending(around, rolls.terms, rolls_over=True).cancelled == {"images": 20}
    assert ending(around, rolls.terms, rolls_over=False).cancelled == {"images": 20, "tokens": 1000}
    assert ending(around, PLAIN.terms, rolls_over=True).cancelled == {"images": 20, "tokens": 1000}


def test_what_is_paid_for_comes_whole() -> None:
    around = living(FREE, tokens=60).around()
    assert granted({"tokens": 100}, around, is_free=False, ends_of=5) == {"tokens": 100}


def test_what_is_free_comes_less_what_was_used_of_it() -> None:
    around = living(FREE, tokens=60).around()
    assert granted({"tokens": 100, "images": 3}, around, is_free=True, ends_of=5) == {"tokens": 40, "images": 3}
    assert granted({"tokens": 60}, around, is_free=True, ends_of=5) == {}
    assert granted({"tokens": 100}, around, is_free=True, ends_of=99) == {"tokens": 100}
    assert granted({"tokens": 100}, around, is_free=True) == {"tokens": 100}
    assert granted({"tokens": 100}, around._replace(used_free={"tokens": 30}), is_free=True) == {"tokens": 70}
    assert granted({"tokens": 100}, around._replace(used_free={"tokens": 30}), is_free=True, ends_of=5) == {
        "tokens": 10
    }


def test_what_was_free_for_a_time_that_is_over_does_not_count() -> None:
    life = living(FREE, tokens=60)
    later = life.around(at=datetime(2030, 5, 1, tzinfo=UTC))
    assert granted({"tokens": 100}, later, is_free=True, ends_of=5) == {"tokens": 100}


def test_what_is_free_for_ever_comes_once() -> None:
    for_ever = offer_of(8, sold("For ever", {"ONE_OFF": 0}, 100))
    life = living(for_ever, tokens=60)
    assert granted({"tokens": 100}, life.around(), is_free=True, ends_of=8) == {"tokens": 40}
    life.cancel()
    life.wait(days=900)
    assert life.start(for_ever).granted == {"tokens": 40}


def test_units_used_of_a_paid_period_were_not_free() -> None:
    around = living(BOTH, tokens=60).around()
    assert granted({"tokens": 100}, around, is_free=True, ends_of=1) == {"tokens": 100}


# --- lines ------------------------------------------------------------------------------------------------------------


def kinds(lines: list[Line]) -> list[tuple[str, int]]:
    return [(line.kind, line.amount) for line in lines]


def test_a_price_line_by_line() -> None:
    seats = {"seats": {"variable_amount_cost": 200}, "desks": {"variable_amount_cost": 0}}
    offer = offer_of(1, sold("Seats", 1000, seats), units={"seats": 3, "desks": 2})
    assert plan_lines(offer) == [
        Line("plan", "Seats", 1000, "USD"),
        Line("variable", "seats", 600, "USD", 3, 200),
    ]
    assert plan_lines(FREE) == []


def test_a_setup_fee_where_there_is_one() -> None:
    assert kinds(setup_lines(sold("Fee", 1000, 0, setup_fee=500))) == [("setup_fee", 500)]
    assert setup_lines(FREE.terms) == []


def test_only_lines_in_the_plans_denomination_are_charged() -> None:
    line = Line("minimum_spend", "Up to it", 700, "EUR")
    assert charged(line, BOTH) == 0
    assert charged(replace(line, denomination="USD"), BOTH) == 700


LEAST: Final = offer_of(9, sold("Least", 1000, 0, minimum_spend=4000))
SHORT: Final[dict[str, tuple[PlanLife, int, bool, list[tuple[str, int]]]]] = {
    "nothing but the price": (living(LEAST, days=30), 0, True, [("minimum_spend", 3000)]),
    "usage counts": (living(LEAST, USD=700), 0, True, [("minimum_spend", 2300)]),
    "reached exactly": (living(LEAST, USD=3000), 0, True, []),
    "more than reached": (living(LEAST, USD=9000), 0, True, []),
    "half of the time": (living(LEAST, days=15), 500, False, [("minimum_spend", 1500)]),
    "at once": (living(LEAST), 1000, False, []),
    "all of the time": (living(LEAST, days=30), 0, False, [("minimum_spend", 3000)]),
    "no minimum": (living(BOTH), 0, True, []),
    "no plan": (PlanLife(), 0, True, []),
}


@pytest.mark.parametrize(("life", "credit", "is_whole", "lines"), SHORT.values(), ids=SHORT.keys())
def test_what_a_period_is_short_of_its_minimum(
    life: PlanLife, credit: int, lines: list[tuple[str, int]], *, is_whole: bool
) -> None:
    # Renewals between would begin new periods: the plan is looked at as of its first one.
    assert kinds(minimum_lines(first_period(life), credit, is_whole=is_whole)) == lines


def first_period(life: PlanLife) -> Around:
    around = life.around()
    if not life.periods:
        return around
    return around._replace(period=min(life.periods.values(), key=lambda period: period.id))


def test_a_trial_has_no_minimum_and_one_without_an_end_all_of_it() -> None:
    trial = offer_of(1, sold("Trial", 1000, 0, minimum_spend=4000, trial_days=9))
    assert minimum_lines(living(trial).around(), 0, is_whole=True) == []
    around = living(LEAST).around()
    assert around.period is not None
    endless = around._replace(period=replace(around.period, end_at=None))
    assert kinds(minimum_lines(endless, 0, is_whole=False)) == [("minimum_spend", 3000)]


def test_usage_before_the_period_does_not_count() -> None:
    life = PlanLife(now=APRIL)
    life.use("USD", 5000, book=OVERAGE_BOOK)
    life.start(LEAST)
    assert kinds(minimum_lines(life.around(), 0, is_whole=True)) == [("minimum_spend", 3000)]


OWED: Final[dict[str, tuple[int, int, bool, list[tuple[str, int]]]]] = {
    # balance, what open invoices wait for, pays by invoice
    "owed for usage": (-700, 0, False, [("owed", 700)]),
    "a part is invoiced": (-700, 500, False, [("owed", 200)]),
    "all is invoiced": (-700, 700, False, []),
    "an invoice will ask for it": (-700, 0, True, []),
    "nothing owed": (0, 0, False, []),
    "something there": (700, 0, False, []),
}


@pytest.mark.parametrize(("amount", "invoiced", "by_invoice", "lines"), OWED.values(), ids=OWED.keys())
def test_what_the_balance_owes(amount: int, invoiced: int, lines: list[tuple[str, int]], *, by_invoice: bool) -> None:
    life = PlanLife(owed=invoiced, by_invoice=by_invoice)
    life.adjust("USD", amount)
    assert kinds(owed_lines(life.around(), "USD")) == lines


def test_a_balance_that_is_not_there_owes_nothing_and_holds_no_credit() -> None:
    assert owed_lines(PlanLife().around(), "USD") == []
    assert earlier_credit(PlanLife().around(), "USD", 1000) == 0


# 4,000 for a month, changed at once to 500: 3,500 of credit.
USED_UP: Final[dict[str, tuple[dict[str, int], int, int]]] = {
    "all that is asked for": ({}, 1000, 1000),
    "all there is": ({}, 9000, 3500),
    "what is left of it": ({"used": 3000}, 1000, 500),
    "what is there": ({"held": 3200}, 1000, 300),
    "nothing is there": ({"used": 4000}, 1000, 0),
    "nothing is asked for": ({}, 0, 0),
}


@pytest.mark.parametrize(("fields", "total", "credit"), USED_UP.values(), ids=USED_UP.keys())
def test_credit_of_an_earlier_change_is_used_up(fields: dict[str, int], total: int, credit: int) -> None:
    life = living(offer_of(1, sold("Dear", 4000, 0)))
    life.change(offer_of(2, sold("Cheap", 500, 0)), "ariel")
    life.use("USD", fields.get("used", 0), book=OVERAGE_BOOK)
    balance = life.state.balances["USD"]._replace(pending=fields.get("held", 0))
    life.state = life.state._replace(balances={**life.state.balances, "USD": balance})
    assert earlier_credit(life.around(), "USD", total) == credit


def test_money_that_was_given_otherwise_is_no_credit_of_a_change() -> None:
    life = living(BOTH)
    life.give("USD", 700)
    life.adjust("USD", 700)
    assert earlier_credit(life.around(), "USD", 1000) == 0


def test_what_a_modified_month_gives_back() -> None:
    around = living(BOTH).around()
    assert around.period is not None
    nobody = around._replace(period=None)
    unpaid = around._replace(subscription=replace(begun_subscription(around), status="past_due"))
    assert [modified_credit(one, "tokens") for one in (nobody, unpaid)] == [0, 0]
    # It gave images too: they count, as for a change by ariel.
    assert modified_credit(around, "tokens") == unused_credit(around)
    alone = around._replace(purses={"tokens": around.purse("tokens")})
    left = left_of(around.purse("tokens").grants)
    gave = sum(grant.units for grant in around.purse("tokens").grants)
    assert modified_credit(alone, "tokens") == around.period.price * left // gave
    year = living(YEAR).around()
    assert modified_credit(year, "tokens") == unused_credit(year)


def begun_subscription(around: Around) -> Subscription:
    assert around.subscription is not None
    return around.subscription


def test_a_step_holds_while_the_plan_is_what_it_was_worked_out_on() -> None:
    known = begun_subscription(living(BOTH).around())
    assert still_holds({"basis": basis_of(known)}, known)
    assert not still_holds({"basis": basis_of(known)}, replace(known, override_id=5))
    assert not still_holds(None, known)
    assert still_holds({"basis": ""}, None)
