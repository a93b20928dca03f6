"""What an account is on, and when something is to be done about it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest

from tenuto.core.grant import empty
from tenuto.core.plan import Cadence
from tenuto.core.subscription import RUNNING, Line, Status, Step, basis_of, due, failed_renewal, next_of
from tests.core.plan_life import START, PlanLife, offer_of, sold

BASIC: Final = offer_of(1, sold("Basic", 1000, 1000))
DAY: Final = timedelta(days=1)


def living() -> PlanLife:
    life = PlanLife()
    life.start(BASIC)
    return life


# Contract 3.1, and the example of the module: counted from the anchor, never from the date before.
DUE: Final = [
    # begins        cadence      1st           2nd           3rd
    ("2024-01-31", "MONTHLY", "2024-03-01", "2024-04-01", "2024-05-01"),
    ("2024-02-29", "MONTHLY", "2024-04-01", "2024-05-01", "2024-06-01"),
    ("2023-11-30", "MONTHLY", "2024-01-01", "2024-02-01", "2024-03-01"),
    ("2024-01-28", "MONTHLY", "2024-02-28", "2024-03-28", "2024-04-28"),
    ("2024-02-29", "YEARLY", "2025-03-01", "2026-03-01", "2027-03-01"),
    ("2024-01-31", "YEARLY", "2025-01-31", "2026-01-31", "2027-01-31"),
]


@pytest.mark.parametrize(("begins", "cadence", "first", "second", "third"), DUE)
def test_renewals_are_counted_from_the_anchor(
    begins: str, cadence: Cadence, first: str, second: str, third: str
) -> None:
    anchor = datetime.fromisoformat(f"{begins}T12:00:00+00:00")
    found = [due(anchor, number, cadence, UTC) for number in (1, 2, 3)]
    assert found == [datetime.fromisoformat(f"{day}T12:00:00+00:00") for day in (first, second, third)]


def test_it_is_the_day_there_that_counts() -> None:
    in_berlin = datetime(2030, 1, 30, 23, 30, tzinfo=UTC)  # the 31st there
    assert due(in_berlin, 1, "MONTHLY", ZoneInfo("Europe/Berlin")) == datetime(2030, 2, 28, 23, 30, tzinfo=UTC)


def test_what_is_bought_once_is_never_due() -> None:
    assert due(START, 1, "ONE_OFF", UTC) is None


SOON, LATER = START + DAY, START + 9 * DAY
NEXT: Final[dict[str, tuple[dict[str, Any], datetime | None]]] = {
    "a renewal": ({"period_end": LATER, "refill_at": None}, LATER),
    "a refill before it": ({"period_end": LATER, "refill_at": SOON}, SOON),
    "bought once": ({"period_end": None, "refill_at": None}, None),
    "a trial that ends": ({"status": "trialing", "period_end": SOON}, SOON),
    "paused": ({"status": "paused", "period_end": SOON}, None),
    "past due": ({"status": "past_due", "period_end": SOON}, None),
    "cancelled": ({"status": "cancelled", "period_end": SOON}, None),
    "waiting for a card": ({"status": "pending_card", "period_end": None}, None),
    "waiting for its payment": ({"period_end": SOON, "payment_id": 42}, None),
}


@pytest.mark.parametrize(("fields", "at"), NEXT.values(), ids=NEXT.keys())
def test_when_something_is_to_be_done(fields: dict[str, Any], at: datetime | None) -> None:
    assert next_of(replace(living().running, **fields)) == at


@pytest.mark.parametrize("status", ["trialing", "active", "past_due", "paused", "pending_card", "cancelled"])
def test_a_plan_is_in_force_until_it_is_cancelled(status: Status) -> None:
    known = replace(living().running, status=status)
    assert known.is_running is (status in RUNNING) is (status not in {"pending_card", "cancelled"})


def test_what_a_step_was_worked_out_on() -> None:
    known = living().running
    assert basis_of(None) == basis_of(replace(known, status="cancelled")) == ""
    others: list[dict[str, Any]] = [{"period_id": 0}, {"version_id": 99}, {"override_id": 3}, {"number": 9}]
    assert len({basis_of(known), *(basis_of(replace(known, **fields)) for fields in others)}) == 5


def test_a_step_that_moves_nothing_is_for_later() -> None:
    known = living().running
    later = Step(kind="change", at=START, denomination="USD", subscription=known)
    assert not later.is_now
    assert replace(later, lines=(Line("plan", "Basic", 1000, "USD"),)).is_now
    assert replace(later, cancelled={"tokens": 1}).is_now
    assert replace(later, granted={"tokens": 1}).is_now


def test_a_balance_that_is_not_there_has_an_empty_purse() -> None:
    assert living().around().purse("images") == empty("images")


def test_an_offer_costs_its_price_and_its_chosen_units() -> None:
    terms = sold(
        "Seats",
        {"MONTHLY": 1000, "YEARLY": 9000},
        {"seats": {"variable_amount_cost": {"MONTHLY": 200, "YEARLY": 1500}}},
    )
    assert offer_of(1, terms, units={"seats": 3}).price == 1600
    assert offer_of(1, terms, "YEARLY", {"seats": 3}).price == 13500


@pytest.mark.parametrize("wanted", ["past_due", "pause", "cancel"])
def test_what_a_company_does_about_a_renewal_that_failed(wanted: str) -> None:
    assert failed_renewal({"plans": {"failed_renewal": wanted}}) == wanted
    assert failed_renewal({"plans": {}}) == failed_renewal({}) == "past_due"
