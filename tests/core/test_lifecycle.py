"""How an account on a plan starts, renews, changes and ends: what each step charges, credits and grants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from tenuto.core import lifecycle
from tenuto.core.ledger import OVERAGE_BOOK
from tenuto.core.outcomes import Refusal
from tenuto.core.plan import Scheme, checked_units
from tenuto.core.subscription import Offer, Step, Subscription
from tests.core.plan_life import PlanLife, offer_of, sold

APRIL: Final = datetime(2030, 4, 1, tzinfo=UTC)
"""The first of a month of 30 days."""

BASIC: Final = offer_of(1, sold("Basic", 1000, 1000))
PRO: Final = offer_of(2, sold("Pro", 4000, 5000))
FREE: Final = offer_of(3, sold("Free", 0, 100))
TRIAL: Final = offer_of(4, sold("Trial", 1000, 1000, trial_days=10, setup_fee=500))
OTHER_TRIAL: Final = offer_of(5, sold("Other", 4000, 5000, trial_days=30))
YEAR: Final = offer_of(6, sold("Year", {"YEARLY": 12_000}, 100, refill_cadence="MONTHLY"))
WHOLE_YEAR: Final = offer_of(7, sold("Whole year", {"YEARLY": 24_000}, 2400))
ONCE: Final = offer_of(8, sold("Once", {"ONE_OFF": 3000}, 700))
LEAST: Final = offer_of(9, sold("Least", 1000, 0, minimum_spend=4000))


def begun(offer: Offer, *, now: datetime = APRIL, **fields: Any) -> PlanLife:
    """An account that has just begun with a plan."""
    life = PlanLife(now=now, **fields)
    life.start(offer)
    return life


def told(step: Step) -> dict[str, int]:
    """The lines of a step, by kind."""
    return {line.kind: line.amount for line in step.lines}


def held(life: PlanLife) -> tuple[int, int, int]:
    """Tokens, dollars, and what was paid."""
    life.audit()
    return life.amount("tokens"), life.amount("USD"), life.paid


def refused(ask: Callable[[], object]) -> str:
    """The code with which something is refused."""
    with pytest.raises(Refusal) as found:
        ask()
    return found.value.code


# --- starting ---------------------------------------------------------------------------------------------------------


def test_a_plan_is_charged_and_granted_at_once() -> None:
    life = PlanLife(now=APRIL)
    step = life.start(BASIC)
    assert (step.kind, step.charge, step.granted, told(step)) == ("start", 1000, {"tokens": 1000}, {"plan": 1000})
    assert held(life) == (1000, 0, 1000)
    assert (life.running.status, life.running.number) == ("active", 1)
    assert life.period.end_at == life.running.next_at == datetime(2030, 5, 1, tzinfo=UTC)


def test_a_setup_fee_is_asked_for_once() -> None:
    life = begun(offer_of(1, sold("Fee", 1000, 0, setup_fee=500)))
    assert told(life.last) == {"plan": 1000, "setup_fee": 500}
    life.wait(days=30)
    assert told(life.last) == {"plan": 1000}
    assert life.paid == 2500


def test_a_trial_gives_the_units_for_nothing_and_the_fee_comes_with_the_first_renewal() -> None:
    life = begun(TRIAL)
    assert (life.running.status, life.period.is_trial, life.period.price) == ("trialing", True, 0)
    assert held(life) == (1000, 0, 0)
    assert life.running.next_at == APRIL + timedelta(days=10)
    life.use("tokens", 300)
    life.wait(days=10)
    assert (life.running.status, told(life.last)) == ("active", {"plan": 1000, "setup_fee": 500})
    assert held(life) == (1000, 0, 1500)
    assert life.running.next_at == datetime(2030, 5, 11, tzinfo=UTC)


def test_a_trial_is_had_once() -> None:
    life = begun(TRIAL)
    life.cancel()
    step = life.start(OTHER_TRIAL)
    assert (step.charge, life.running.status) == (4000, "active")


def test_what_is_bought_once_has_no_end() -> None:
    life = begun(ONCE)
    assert (life.period.end_at, life.running.next_at) == (None, None)
    life.wait(days=900)
    assert held(life) == (700, 0, 3000)


def test_a_plan_may_wait_for_a_card() -> None:
    made = lifecycle.pending(BASIC, PlanLife(now=APRIL).around(BASIC))
    assert (made.status, made.is_running, made.period_end, made.next_at) == ("pending_card", False, None, None)


# --- renewing ---------------------------------------------------------------------------------------------------------


def test_a_renewal_replaces_what_is_left() -> None:
    life = begun(BASIC)
    life.use("tokens", 300)
    life.give("tokens", 50)
    life.wait(days=30)
    assert (life.last.cancelled, life.last.granted) == ({"tokens": 700}, {"tokens": 1000})
    assert held(life) == (1050, 0, 2000)
    first, second = life.periods.values()
    assert first.ended_at == first.end_at == second.start_at


def test_a_renewal_keeps_what_rolls_over() -> None:
    life = begun(offer_of(1, sold("Rolls", 1000, {"tokens": {"amount": 1000, "rollover": True}})))
    life.use("tokens", 300)
    life.wait(days=30)
    assert (life.last.cancelled, held(life)) == ({}, (1700, 0, 2000))


DATES: Final = [
    # begins      renewals (contract 3.1)
    ("2024-01-31", ["2024-03-01", "2024-04-01", "2024-05-01"]),
    ("2024-02-29", ["2024-04-01", "2024-05-01", "2024-06-01"]),
    ("2024-01-15", ["2024-02-15", "2024-03-15", "2024-04-15"]),
    ("2023-12-30", ["2024-02-01", "2024-03-01", "2024-04-01"]),
]


@pytest.mark.parametrize(("begins", "renewals"), DATES)
def test_renewals_come_on_the_dates_of_the_contract(begins: str, renewals: list[str]) -> None:
    life = begun(BASIC, now=datetime.fromisoformat(f"{begins}T09:00:00+00:00"))
    found = []
    for _ in renewals:
        assert life.running.next_at is not None
        found.append(life.running.next_at.date().isoformat())
        life.until(life.running.next_at)
    assert found == renewals


def test_renewals_keep_their_wall_time_and_do_not_drift() -> None:
    life = begun(BASIC, now=datetime(2022, 2, 27, 1, 30, tzinfo=UTC), zone="Europe/Berlin")
    life.until(datetime(2022, 3, 27, 1, 30, tzinfo=UTC))  # 02:30 does not exist there: 03:30
    assert (life.last.kind, life.period.start_at) == ("renewal", life.now)
    assert life.running.next_at == datetime(2022, 4, 27, 0, 30, tzinfo=UTC)


def test_a_year_from_a_leap_day_renews_on_the_first_of_march() -> None:
    life = begun(WHOLE_YEAR, now=datetime(2028, 2, 29, tzinfo=UTC))
    assert life.running.next_at == datetime(2029, 3, 1, tzinfo=UTC)


def test_a_renewal_asks_for_the_minimum_and_for_what_is_owed() -> None:
    life = begun(LEAST)
    life.use("USD", 700, book=OVERAGE_BOOK)
    life.wait(days=30)
    assert told(life.last) == {"plan": 1000, "minimum_spend": 2300, "owed": 700}
    assert held(life) == (0, 0, 5000)


def test_a_renewal_that_an_invoice_asks_for_is_posted_and_no_card_is_asked() -> None:
    life = begun(BASIC, by_invoice=True, card="none")
    life.use("USD", 700, book=OVERAGE_BOOK)
    life.wait(days=30)
    assert (told(life.last), life.last.charge) == ({"plan": 1000}, 0)
    assert held(life) == (1000, -2700, 0)


def test_a_charge_below_the_cards_minimum_is_carried_as_owed() -> None:
    life = begun(PRO)
    life.change(offer_of(1, sold("Cheap", 1000, 0)), "ariel")  # 3,000 of credit
    life.wait(days=62)
    assert (life.amount("USD"), told(life.last)) == (1000, {"plan": 1000, "credit": -1000})
    life.use("USD", 20, book=OVERAGE_BOOK)
    life.wait(days=30)
    assert (told(life.last), life.last.charge) == ({"plan": 1000, "credit": -980}, 0)
    assert held(life) == (0, -20, 4000)
    life.wait(days=31)
    assert (told(life.last), held(life)) == ({"plan": 1000, "owed": 20}, (0, 0, 5020))


def test_the_balances_of_a_year_are_filled_every_month() -> None:
    life = begun(YEAR)
    life.use("tokens", 40)
    life.wait(days=30)
    assert (life.last.kind, life.last.charge, life.last.cancelled) == ("refill", 0, {"tokens": 60})
    assert held(life) == (100, 0, 12_000)
    life.until(datetime(2031, 3, 31, tzinfo=UTC))
    assert (life.running.refill_number, life.running.refill_at) == (12, None)
    assert life.running.next_at == datetime(2031, 4, 1, tzinfo=UTC)
    assert sum(units for step, _, _ in life.steps for units in step.granted.values()) == 1200
    life.wait(days=1)
    assert (life.last.kind, held(life)) == ("renewal", (100, 0, 24_000))


def test_a_free_year_is_filled_with_what_was_not_used_of_the_month() -> None:
    life = begun(offer_of(1, sold("Free year", {"YEARLY": 0}, 100, refill_cadence="MONTHLY")))
    life.use("tokens", 100)
    life.wait(days=30)
    assert held(life) == (100, 0, 0)


# --- a card that says no ----------------------------------------------------------------------------------------------


def test_a_renewal_that_is_paid_late_is_still_for_its_own_date() -> None:
    life = begun(BASIC, card="yes")
    life.card = "no"
    life.use("tokens", 300)
    life.wait(days=33)
    assert (life.running.status, held(life)) == ("past_due", (700, 0, 1000))
    life.use("tokens", 50)
    life.retry()
    assert (life.running.status, held(life)) == ("active", (950, 0, 2000))
    assert life.period.start_at == datetime(2030, 5, 1, tzinfo=UTC)


def test_a_renewal_that_is_paid_when_its_own_period_is_over_begins_then() -> None:
    life = begun(BASIC)
    life.card = "no"
    life.use("tokens", 300)
    life.wait(days=30)
    life.use("tokens", 100)
    life.wait(days=70)
    life.retry()
    now = APRIL + timedelta(days=100)
    assert (life.period.start_at, life.running.anchor_at, life.running.number) == (now, now, 1)
    assert life.running.next_at == life.period.end_at == datetime(2030, 8, 10, tzinfo=UTC)
    assert (life.last.cancelled, held(life)) == ({"tokens": 600}, (1000, 0, 2000))


def test_a_year_that_is_paid_a_year_late_begins_then_and_is_filled_from_then() -> None:
    life = begun(YEAR)
    life.card = "no"
    life.wait(days=365 + 400)
    life.retry()
    assert (life.running.refill_number, life.running.refill_at) == (1, life.last.until_at)
    assert life.running.refill_at == datetime(2032, 6, 5, tzinfo=UTC)


def test_only_a_renewal_begins_late() -> None:
    life = begun(BASIC)
    step = life.look(PRO, "ariel")
    assert lifecycle.late(step, life.around()) is step
    life.wait(days=30)
    assert lifecycle.late(life.last, life.around()) is life.last
    endless = replace(life.last, period=replace(life.period, end_at=None))
    assert lifecycle.late(endless, life.around()) is endless
    assert lifecycle.late(replace(life.last, period=None), life.around()).period is None


# --- changing ---------------------------------------------------------------------------------------------------------


def used_half(offer: Offer) -> PlanLife:
    """On the 16th of 30 days, 250 tokens are used."""
    life = begun(offer)
    life.use("tokens", 250)
    life.wait(days=15)
    return life


# The example of the module, and the way down.
SCHEMES: Final[dict[str, tuple[Offer, Offer, Scheme, dict[str, int], tuple[int, int, int]]]] = {
    "up, later": (BASIC, PRO, "sleeping_beauty", {}, (750, 0, 1000)),
    "up, the difference": (BASIC, PRO, "snow_white", {"plan": 3000}, (4750, 0, 4000)),
    "up, anew": (BASIC, PRO, "ariel", {"plan": 4000, "proration": -500}, (5000, 0, 4500)),
    "down, later": (PRO, BASIC, "sleeping_beauty", {}, (4750, 0, 4000)),
    "down, nothing now": (PRO, BASIC, "snow_white", {}, (4750, 0, 4000)),
    "down, anew": (PRO, BASIC, "ariel", {"plan": 1000, "proration": -2000}, (1000, 1000, 4000)),
    "to nothing, anew": (PRO, FREE, "ariel", {"proration": -2000}, (100, 2000, 4000)),
}


@pytest.mark.parametrize(("old", "new", "scheme", "lines", "after"), SCHEMES.values(), ids=SCHEMES.keys())
def test_a_change_by_each_scheme(
    old: Offer, new: Offer, scheme: Scheme, lines: dict[str, int], after: tuple[int, int, int]
) -> None:
    life = used_half(old)
    step = life.change(new, scheme)
    assert (step.scheme, told(step), held(life)) == (scheme, lines, after)
    restarts = scheme == "ariel"
    assert life.running.next_at == datetime(2030, 5, 16 if restarts else 1, tzinfo=UTC)
    life.wait(days=30)
    assert life.running.plan_id == new.plan_id
    assert life.amount("tokens") == new.terms.balances["tokens"].amount


def test_a_change_for_later_takes_the_place_of_another_and_can_be_taken_back() -> None:
    life = begun(BASIC)
    life.cancel(at_end=True)
    life.change(PRO, "sleeping_beauty")
    assert not life.running.cancels_at_end
    life.change(FREE, "sleeping_beauty")
    assert (life.running.scheduled or {})["plan_id"] == FREE.plan_id
    life.do(lifecycle.reinstated)
    assert life.running.scheduled is None
    assert refused(lambda: life.do(lifecycle.reinstated)) == "nothing_scheduled"


def test_a_change_for_later_may_change_how_often_and_counts_from_there() -> None:
    life = begun(BASIC, now=datetime(2030, 1, 31, tzinfo=UTC))
    life.change(YEAR, "sleeping_beauty")
    life.until(datetime(2030, 3, 1, tzinfo=UTC))
    assert (life.running.anchor_at, life.running.next_at) == (life.now, datetime(2030, 4, 1, tzinfo=UTC))
    assert (life.period.end_at, life.running.refill_number) == (datetime(2031, 3, 1, tzinfo=UTC), 1)


def test_what_was_bought_once_waits_for_no_renewal() -> None:
    life = begun(ONCE)
    with pytest.raises(Refusal) as found:
        life.change(BASIC, "sleeping_beauty")
    assert found.value.details["path"] == "scheme"
    life.change(BASIC, "ariel")
    assert held(life) == (1000, 2000, 3000)


IMAGES: Final = offer_of(20, sold("Images", 5000, {"tokens": 900, "images": 50}))
CHEAP_IMAGES: Final = offer_of(21, sold("Cheap", 900, {"images": 50}))
EUROS: Final = offer_of(22, sold("Euros", 5000, 5000, denomination="EUR"))
NO_SNOW: Final[dict[str, tuple[Offer, Offer]]] = {
    "another cadence": (BASIC, YEAR),
    "another currency": (BASIC, EUROS),
    "dearer, and less of something": (BASIC, IMAGES),
    "from months to a whole year": (YEAR, WHOLE_YEAR),
    "from a whole year to months": (offer_of(23, sold("Little", {"YEARLY": 500}, 50)), YEAR),
}


@pytest.mark.parametrize(("old", "new"), NO_SNOW.values(), ids=NO_SNOW.keys())
def test_what_snow_white_cannot_do(old: Offer, new: Offer) -> None:
    life = begun(old)
    before = held(life)
    with pytest.raises(Refusal) as found:
        life.change(new, "snow_white")
    assert (found.value.code, found.value.details["path"], held(life)) == ("invalid_field", "scheme", before)


def test_cheaper_with_less_of_something_gives_and_takes_nothing_now() -> None:
    life = begun(BASIC)
    step = life.change(CHEAP_IMAGES, "snow_white")
    assert (step.granted, step.cancelled, step.charge, life.period.price) == ({}, {}, 0, 1000)


def test_to_and_fro_charges_and_gives_what_the_dearest_plan_does() -> None:
    life = begun(BASIC)
    for offer in (PRO, BASIC, PRO, FREE, BASIC, PRO):
        life.change(offer, "snow_white")
    assert held(life) == (5000, 0, 4000)
    assert life.period.price == 4000


def test_a_year_changes_by_the_difference_and_is_filled_with_more_from_then_on() -> None:
    life = begun(YEAR)
    life.wait(days=45)
    life.change(offer_of(24, sold("More", {"YEARLY": 18_000}, 150, refill_cadence="MONTHLY")), "snow_white")
    assert held(life) == (150, 0, 18_000)
    life.wait(days=16)
    assert held(life) == (150, 0, 18_000)


def test_in_a_trial_a_change_swaps_what_it_is_a_trial_of() -> None:
    life = begun(TRIAL)
    life.use("tokens", 300)
    life.wait(days=4)
    step = life.change(OTHER_TRIAL, "ariel")
    assert (step.charge, step.credit, step.cancelled, held(life)) == (0, 0, {"tokens": 700}, (5000, 0, 0))
    assert (life.running.status, life.running.next_at) == ("trialing", APRIL + timedelta(days=10))
    back = life.change(TRIAL, "ariel")
    assert back.granted == {"tokens": 700}
    life.wait(days=6)
    assert held(life) == (1000, 0, 1500)


def test_in_a_trial_snow_white_gives_more_for_nothing() -> None:
    life = begun(TRIAL)
    life.change(OTHER_TRIAL, "snow_white")
    assert (held(life), life.period.price, life.period.is_trial) == ((5000, 0, 0), 0, True)


def test_a_trial_that_is_over_and_was_not_paid_for_is_swapped_no_more() -> None:
    life = begun(TRIAL)
    life.card = "no"
    life.use("tokens", 1000)
    life.wait(days=12)
    assert life.running.status == "past_due"
    assert life.change(PRO, "ariel").charge == 4000
    assert held(life) == (0, 0, 0)
    life.card = "yes"
    step = life.change(TRIAL, "ariel")
    assert (told(step), life.running.status) == ({"plan": 1000, "setup_fee": 500}, "active")
    assert held(life) == (1000, 0, 1500)


def test_a_year_that_is_tried_is_filled_every_month_of_its_trial() -> None:
    year = offer_of(25, sold("Year", {"YEARLY": 12_000}, 100, refill_cadence="MONTHLY", trial_days=45))
    life = begun(year)
    assert life.running.refill_at == datetime(2030, 5, 1, tzinfo=UTC)
    life.wait(days=10)
    life.change(offer_of(26, year.terms), "ariel")
    assert life.running.refill_at == datetime(2030, 5, 11, tzinfo=UTC)
    life.wait(days=20)
    life.change(offer_of(27, year.terms), "ariel")
    assert life.running.next_at == life.running.period_end == APRIL + timedelta(days=45)


def test_credit_of_a_change_pays_the_next_renewals() -> None:
    life = begun(PRO)
    life.change(BASIC, "ariel")
    assert held(life) == (1000, 3000, 4000)
    life.wait(days=100)
    assert held(life) == (1000, 0, 4000)
    life.wait(days=31)
    assert held(life) == (1000, 0, 5000)


def test_a_change_takes_the_minimum_by_time() -> None:
    life = begun(LEAST)
    life.wait(days=15)
    step = life.change(PRO, "ariel")
    assert told(step) == {"plan": 4000, "minimum_spend": 1500, "proration": -500}
    assert held(life) == (5000, 0, 6000)


def test_a_free_allowance_is_given_once_however_often_it_is_entered() -> None:
    life = begun(FREE)
    life.use("tokens", 60)
    for _ in range(3):
        life.change(BASIC, "ariel")
        life.change(FREE, "ariel")
    assert held(life)[0] == 40
    life.cancel()
    assert life.start(FREE).granted == {"tokens": 40}


def test_a_free_plan_that_rolls_over_is_not_cancelled_to_be_begun_again() -> None:
    rolls = offer_of(1, sold("Rolls", 0, {"tokens": {"amount": 100, "rollover": True}}))
    life = begun(rolls)
    for _ in range(3):
        life.cancel()
        life.start(rolls)
    assert held(life) == (100, 0, 0)


# Contract 3.3: what a balance held, and what it comes to.
MODIFIED: Final = [
    # gave, price, used, gives now, price now, credit, charge, amount
    (1000, 1000, 750, 5000, 4000, 250, 3750, 5000),
    (1000, 1000, 1000, 2000, 1800, 0, 1800, 2000),
    (300, 1000, 200, 600, 1900, 333, 1567, 600),
    (1000, 1000, 1040, 2000, 1800, 0, 1800, 1960),
]


@pytest.mark.parametrize(("gave", "price", "used", "gives", "new_price", "credit", "charge", "amount"), MODIFIED)
def test_a_change_in_the_middle_of_a_month(
    gave: int, price: int, used: int, gives: int, new_price: int, credit: int, charge: int, amount: int
) -> None:
    life = begun(offer_of(1, sold("Old", price, gave)))
    life.use("tokens", used)
    life.wait(days=9)
    step = life.modify(offer_of(1, sold("New", new_price, gives))._replace(version_id=11))
    assert (step.kind, step.credit, step.charge) == ("modify", credit, charge)
    assert held(life) == (amount, 0, price + charge)
    assert life.running.next_at == datetime(2030, 5, 10, tzinfo=UTC)


# --- ending -----------------------------------------------------------------------------------------------------------


def test_cancelled_now_what_is_unused_is_given_back_where_that_is_said() -> None:
    life = used_half(BASIC)
    step = life.cancel(prorates=True)
    assert (step.credit, told(step), step.charge) == (500, {"proration": -500}, 0)
    assert (held(life), life.running.status) == ((0, 500, 1000), "cancelled")
    assert (life.period.ended_at, life.period.credited, life.running.ended_at) == (life.now, 500, life.now)


def test_cancelled_now_without_that_nothing_is_given_back() -> None:
    life = used_half(BASIC)
    life.cancel()
    assert (held(life), life.running.next_at) == ((0, 0, 1000), None)
    life.wait(days=90)
    assert held(life) == (0, 0, 1000)


ROLLS: Final = offer_of(1, sold("Rolls", 1000, {"tokens": {"amount": 1000, "rollover": True}}))


def test_what_rolls_over_and_was_paid_for_stays_unless_it_is_given_back() -> None:
    kept, given_back = used_half(ROLLS), used_half(ROLLS)
    kept.cancel()
    given_back.cancel(prorates=True)
    assert (held(kept), held(given_back)) == ((750, 0, 1000), (0, 500, 1000))


def test_cancelled_at_the_end_it_runs_until_then() -> None:
    life = used_half(BASIC)
    life.change(PRO, "sleeping_beauty")
    step = life.cancel(at_end=True)
    assert (step.kind, step.is_now, life.running.status) == ("cancel", False, "active")
    assert (life.running.cancels_at_end, life.running.scheduled) == (True, None)
    life.wait(days=14)
    assert held(life) == (750, 0, 1000)
    life.wait(days=1)
    assert (life.running.status, held(life)) == ("cancelled", (0, 0, 1000))


def test_an_end_that_was_to_come_can_be_taken_back() -> None:
    life = begun(BASIC)
    life.cancel(at_end=True)
    life.do(lifecycle.reinstated)
    life.wait(days=30)
    assert (life.running.status, life.paid) == ("active", 2000)


def test_an_end_takes_the_minimum_of_a_whole_period_or_by_time() -> None:
    now, later = begun(LEAST), begun(LEAST)
    now.wait(days=15)
    now.cancel()
    later.cancel(at_end=True)
    later.wait(days=30)
    assert (told(now.last), now.last.charge, now.amount("USD")) == ({"minimum_spend": 1000}, 1000, 0)
    assert (told(later.last), later.last.charge, later.amount("USD")) == ({"minimum_spend": 3000}, 3000, 0)


def test_what_is_past_due_has_no_end_to_wait_for() -> None:
    life = begun(BASIC)
    life.card = "no"
    life.wait(days=33)
    life.cancel(at_end=True)
    assert (life.running.status, held(life)) == ("cancelled", (0, 0, 1000))


def test_what_is_past_due_is_asked_for_again_whatever_is_scheduled() -> None:
    life = begun(BASIC)
    life.card = "no"
    life.wait(days=33)
    again = life.now + timedelta(hours=1)
    life.subscription = replace(life.running, next_at=again)
    life.sweeps_late = True
    life.change(PRO, "sleeping_beauty")
    assert (life.running.status, life.running.next_at) == ("past_due", again)


# --- pausing ----------------------------------------------------------------------------------------------------------


def test_a_pause_within_a_period_changes_nothing_of_it() -> None:
    life = begun(BASIC)
    life.wait(days=5)
    life.do(lifecycle.paused)
    assert (life.running.status, life.running.next_at, held(life)) == ("paused", None, (1000, 0, 1000))
    life.wait(days=10)
    life.do(lifecycle.resumed)
    assert (life.running.status, life.running.next_at) == ("active", datetime(2030, 5, 1, tzinfo=UTC))


def test_after_a_pause_beyond_the_period_the_next_one_begins_now() -> None:
    life = begun(BASIC)
    life.do(lifecycle.paused)
    life.wait(days=100)
    assert held(life) == (1000, 0, 1000)
    life.do(lifecycle.resumed)
    assert life.running.next_at == life.now
    life.sweep()
    assert (held(life), life.running.anchor_at) == ((1000, 0, 2000), life.now)
    assert life.running.next_at == datetime(2030, 8, 10, tzinfo=UTC)


def test_a_trial_is_paused_and_taken_up_as_a_trial() -> None:
    life = begun(TRIAL)
    life.do(lifecycle.paused)
    life.wait(days=3)
    life.do(lifecycle.resumed)
    assert (life.running.status, life.running.next_at) == ("trialing", APRIL + timedelta(days=10))


def test_a_month_that_was_paused_over_is_filled_when_it_is_taken_up() -> None:
    life = begun(YEAR)
    life.use("tokens", 70)
    life.do(lifecycle.paused)
    life.wait(days=35)
    life.do(lifecycle.resumed)
    assert life.running.next_at == datetime(2030, 5, 1, tzinfo=UTC)
    life.sweep()
    assert (held(life), life.running.refill_at) == ((100, 0, 12_000), datetime(2030, 6, 1, tzinfo=UTC))


# --- what cannot be done ----------------------------------------------------------------------------------------------


def with_status(**fields: Any) -> Subscription:
    return replace(begun(BASIC).running, **fields)


def test_nothing_is_done_where_there_is_no_plan() -> None:
    nobody, former = PlanLife(now=APRIL), begun(BASIC)
    former.cancel()
    assert refused(lambda: nobody.change(PRO, "ariel")) == "no_plan"
    assert refused(lambda: former.change(PRO, "sleeping_beauty")) == "no_plan"
    assert refused(lambda: former.do(lifecycle.paused)) == "no_plan"


@pytest.mark.parametrize("scheme", ["snow_white", "ariel"])
def test_a_paused_plan_is_changed_for_later_only(scheme: Scheme) -> None:
    life = begun(BASIC)
    life.do(lifecycle.paused)
    assert refused(lambda: life.change(PRO, scheme)) == "plan_not_active"
    life.change(PRO, "sleeping_beauty")
    assert life.running.scheduled is not None


def test_only_what_runs_is_paused_and_only_what_is_paused_is_resumed() -> None:
    life = begun(BASIC)
    assert refused(lambda: life.do(lifecycle.resumed)) == "plan_not_paused"
    life.subscription = with_status(status="past_due", period_id=life.running.period_id)
    assert refused(lambda: life.do(lifecycle.paused)) == "plan_not_active"


def test_the_difference_is_not_added_to_what_was_not_paid() -> None:
    life = begun(BASIC)
    life.card = "no"
    life.wait(days=33)
    assert refused(lambda: life.change(PRO, "snow_white")) == "plan_not_paid"


# --- what a hostile reader tried --------------------------------------------------------------------------------------


def test_what_is_sold_without_a_trial_is_sold_in_a_trial_too() -> None:
    life = begun(TRIAL)
    life.use("tokens", 1000)
    life.change(PRO, "ariel")
    assert (told(life.last), life.running.status) == ({"plan": 4000}, "active")
    assert held(life) == (5000, 0, 4000)


def test_what_a_trial_has_left_of_units_ends_though_they_roll_over() -> None:
    life = begun(offer_of(20, sold("Rolls", 1000, 1000, trial_days=10, rollover=True)))
    life.wait(days=10)
    assert held(life) == (1000, 0, 1000)


def test_a_minimum_is_not_left_by_snow_white() -> None:
    life = begun(LEAST)
    assert refused(lambda: life.change(offer_of(21, sold("Less", 1000, 0)), "snow_white")) == "invalid_field"


def test_a_period_that_is_over_is_not_added_to() -> None:
    life = begun(BASIC)
    life.card = "no"
    life.wait(days=29)
    life.now = life.running.period_end or life.now
    assert refused(lambda: life.do(lambda around: lifecycle.changed(PRO, "snow_white", around), PRO)) == "plan_not_paid"


def test_ariel_settles_what_overage_owes() -> None:
    life = begun(BASIC)
    life.use("USD", 300)
    life.change(PRO, "ariel")
    assert (told(life.last)["owed"], life.amount("USD")) == (300, 0)


def test_a_paused_plan_can_be_ended_with_its_period() -> None:
    life, trial = begun(BASIC), begun(TRIAL)
    for one in (life, trial):
        one.do(lifecycle.paused)
        one.cancel(at_end=True)
        one.wait(days=31)
        assert one.running.status == "cancelled"


def test_a_plan_that_waits_for_a_card_can_be_ended() -> None:
    around = begun(BASIC).around()
    waiting = lifecycle.pending(BASIC, around)
    step = lifecycle.cancelled(around._replace(subscription=waiting), at_end=True, prorates=False)
    assert (step.kind, step.subscription.status, step.is_now) == ("cancel", "cancelled", False)


def test_units_that_are_held_are_neither_given_back_nor_taken() -> None:
    life = begun(BASIC)
    around = life.around()
    tokens = around.state.balances["tokens"]._replace(pending=400)
    state = around.state._replace(balances={**around.state.balances, "tokens": tokens})
    step = lifecycle.cancelled(around._replace(state=state), at_end=False, prorates=True)
    assert (step.credit, step.cancelled) == (600, {"tokens": 600})


def test_what_was_refunded_is_not_given_back() -> None:
    around = begun(BASIC).around()
    assert lifecycle.cancelled(around._replace(refunded=700), at_end=False, prorates=True).credit == 300


def test_no_more_can_be_chosen_than_a_balance_may_get() -> None:
    terms = sold("Seats", 1000, {"seats": {"amount": 1, "variable_amount_cost": 0}})
    assert checked_units(terms, {"seats": 10**15 - 1}) == {"seats": 10**15 - 1}
    assert refused(lambda: checked_units(terms, {"seats": 10**15})) == "out_of_range"
