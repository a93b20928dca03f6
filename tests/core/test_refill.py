"""When a balance is filled again, for what, and when no more."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenuto.core.event import AccountState
from tenuto.core.ledger import Balance, open_balance
from tenuto.core.money import parse_fraction
from tenuto.core.outcomes import Refusal
from tenuto.core.payment import Payment
from tenuto.core.refill import (
    SETTINGS,
    Changed,
    Need,
    Refill,
    begun,
    begun_monthly,
    change,
    filled,
    funded,
    given_back,
    need_of,
    new_refill,
    parked,
    renewed,
    resumed,
    short,
)

NOW: Final = datetime(2030, 1, 31, 12, tzinfo=UTC)
SOON: Final = NOW + timedelta(microseconds=1)
HOUR: Final = timedelta(hours=1)
NEW: Final = new_refill(7, "credits", 1, NOW)
LOW: Final = NEW._replace(amount=1000, charge_amount=500, threshold=100)
MONTHLY: Final = begun_monthly(NEW._replace(amount=1000, charge_amount=500), NOW, UTC)
PARKED: Final[dict[str, Any]] = {"parked_at": NOW, "parked_code": "card_declined", "declines": 3, "retry_at": NOW}


def test_a_refill_begins_as_nothing() -> None:
    assert Refill(7, "credits", 1, 0, 0, "USD", "card", None, is_monthly=False, created_at=NOW) == NEW
    assert set(SETTINGS) <= set(NEW._fields)


# --- the need ---------------------------------------------------------------------------------------------------------

NEEDS: Final[dict[str, tuple[Refill, int, Need | None]]] = {
    "nothing set": (NEW, 0, None),
    "a debit left less than the threshold": (LOW._replace(due_at=NOW), 99, "threshold_refill"),
    "below is strict": (LOW._replace(due_at=NOW), 100, None),
    "below zero is below": (LOW._replace(due_at=NOW, threshold=0), -1, "threshold_refill"),
    "a threshold of 0 leaves 0 alone": (LOW._replace(due_at=NOW, threshold=0), 0, None),
    "no debit since": (LOW, 99, None),
    "the threshold was taken away": (LOW._replace(due_at=NOW, threshold=None), 99, None),
    "its date has come": (MONTHLY._replace(next_at=NOW), 10**6, "refill"),
    "its date has passed": (MONTHLY._replace(next_at=NOW - HOUR), 10**6, "refill"),
    "its date is still to come": (MONTHLY._replace(next_at=SOON), 0, None),
    "a date goes before a threshold": (MONTHLY._replace(next_at=NOW, due_at=NOW, threshold=100), 0, "refill"),
    "between two dates a threshold holds too": (
        MONTHLY._replace(next_at=SOON, due_at=NOW, threshold=100),
        99,
        "threshold_refill",
    ),
    "one is open": (LOW._replace(due_at=NOW, payment_id=42), 0, None),
    "one is open at its date": (MONTHLY._replace(next_at=NOW, payment_id=42), 0, None),
    "parked": (LOW._replace(due_at=NOW, parked_at=NOW), 0, None),
    "tried again later": (LOW._replace(due_at=NOW, retry_at=SOON), 0, None),
    "tried again now": (LOW._replace(due_at=NOW, retry_at=NOW), 0, "threshold_refill"),
}


@pytest.mark.parametrize(("refill", "available", "need"), NEEDS.values(), ids=NEEDS.keys())
def test_what_is_needed(refill: Refill, available: int, need: Need | None) -> None:
    assert need_of(refill, available=available, now=NOW) == need


# --- dates ------------------------------------------------------------------------------------------------------------


def test_the_first_monthly_filling_sets_the_dates_and_each_is_taken_once() -> None:
    refill = begun_monthly(NEW._replace(scheduled={"amount": 5}), NOW, UTC)
    assert refill == NEW._replace(
        is_monthly=True, anchor_at=NOW, number=1, last_at=NOW, next_at=datetime(2030, 3, 1, 12, tzinfo=UTC)
    )
    taken = []
    for _ in range(3):
        refill, date = renewed(refill, UTC)
        taken.append(date)
    assert taken == [datetime(2030, month, 1, 12, tzinfo=UTC) for month in (3, 4, 5)]
    assert (refill.number, refill.next_at, refill.anchor_at) == (4, datetime(2030, 6, 1, 12, tzinfo=UTC), NOW)


def test_dates_are_counted_at_the_companys_wall_clock() -> None:
    began = datetime(2030, 3, 15, 13, tzinfo=UTC)  # 9 o'clock in New York, in summer
    refill = begun_monthly(NEW, began, ZoneInfo("America/New_York"))._replace(number=8)
    after, _ = renewed(refill, ZoneInfo("America/New_York"))
    assert after.next_at == datetime(2030, 12, 15, 14, tzinfo=UTC)  # 9 o'clock still, in winter


def test_what_was_scheduled_begins_with_the_next_date() -> None:
    refill = MONTHLY._replace(scheduled={"amount": 2000, "charge_amount": 900, "source": "balance"})
    after, date = renewed(refill, UTC)
    assert date == MONTHLY.next_at
    assert after == refill._replace(
        amount=2000,
        charge_amount=900,
        source="balance",
        scheduled=None,
        number=2,
        next_at=datetime(2030, 4, 1, 12, tzinfo=UTC),
    )


def test_where_the_months_end_nothing_is_filled_and_a_threshold_stays() -> None:
    refill = MONTHLY._replace(scheduled={"is_monthly": False, "amount": 2000}, threshold=100)
    after, date = renewed(refill, UTC)
    assert date is None
    assert after == refill._replace(
        is_monthly=False, amount=2000, scheduled=None, next_at=None, anchor_at=None, number=0
    )
    assert need_of(after._replace(due_at=NOW), available=0, now=NOW + timedelta(days=400)) == "threshold_refill"


# --- ends -------------------------------------------------------------------------------------------------------------

OPEN: Final = LOW._replace(payment_id=42, due_at=NOW, declines=2, retry_at=NOW)


@pytest.mark.parametrize(
    ("period_at", "last_at"), [(None, NOW - HOUR), (datetime(2030, 3, 1, tzinfo=UTC), datetime(2030, 3, 1, tzinfo=UTC))]
)
def test_a_success_leaves_nothing_open(period_at: datetime | None, last_at: datetime) -> None:
    after = filled(OPEN._replace(last_at=NOW - HOUR), period_at=period_at)
    assert after == LOW._replace(last_at=last_at, due_at=NOW), "a debit meanwhile is a need of its own"


def test_a_need_that_is_taken_care_of_is_due_no_more() -> None:
    assert begun(LOW._replace(due_at=NOW), 42) == LOW._replace(payment_id=42)


def test_a_final_no_parks_it_until_somebody_acts() -> None:
    after = parked(OPEN, "lost_card", NOW)
    assert after == LOW._replace(parked_at=NOW, parked_code="lost_card", declines=2)
    assert need_of(after._replace(due_at=NOW), available=0, now=NOW + timedelta(days=400)) is None
    assert resumed(after) == LOW


def test_a_balance_that_cannot_pay_is_asked_three_times() -> None:
    refill, story = LOW._replace(due_at=NOW), []
    for _ in range(3):
        refill = short(refill, "insufficient_balance", NOW)
        wait = None if refill.retry_at is None else refill.retry_at - NOW
        story.append((refill.declines, wait, refill.parked_code))
    assert story == [(1, HOUR, None), (2, 24 * HOUR, None), (3, None, "insufficient_balance")]
    assert (refill.parked_at, refill.due_at) == (NOW, None)


# --- another balance pays ---------------------------------------------------------------------------------------------


def paying(amount: int, *, residue: str = "0", pending: int = 0) -> AccountState:
    held: Balance = open_balance("USD")._replace(amount=amount, pending=pending, residue=parse_fraction(residue), seq=3)
    return AccountState(7, 1, 200, None, False, {"USD": held}, {}, None)


PAYMENT: Final = Payment(
    account_id=7,
    id=42,
    environment_id=1,
    method="balance",
    reason="threshold_refill",
    status="succeeded",
    amount=500,
    currency="USD",
    denomination="credits",
    units=1000,
    description="Refill",
    created_at=NOW,
    due_at=NOW,
)


@pytest.mark.parametrize(
    ("reason", "book", "type", "credited"),
    [
        ("threshold_refill", "refill", "REFILL", "THRESHOLD_REFILL"),
        ("refill", "refill", "REFILL", "REFILL"),
        ("refill_start", "refill", "REFILL", "REFILL"),
        ("deposit", "deposit", "DEPOSIT", "DEPOSIT"),
    ],
)
def test_units_are_paid_from_another_balance(reason: Any, book: str, type: str, credited: str) -> None:
    (usd, paid), (credits_, got) = funded(paying(500), PAYMENT._replace(reason=reason), limit=0, id=300, now=NOW)
    assert (usd.amount, usd.seq, credits_.amount, credits_.seq) == (0, 4, 1000, 1)
    assert (paid.id, paid.denomination, paid.book, paid.type, paid.amount) == (300, "USD", book, type, -500)
    assert (got.id, got.denomination, got.book, got.type, got.amount) == (301, "credits", book, credited, 1000)
    assert (paid.description, got.description) == ("Refill: 1000 credits", "Refill")
    assert (paid.cause_id, got.cause_id) == (42, 42)


def test_what_is_for_nothing_moves_nothing_in_the_balance_that_pays() -> None:
    for state in (paying(-(10**6)), AccountState(7, 1, 0, None, False, {}, {}, None)):
        ((balance, row),) = funded(state, PAYMENT._replace(amount=0), limit=0, id=300, now=NOW)
        assert (balance.denomination, balance.amount, row.id, row.amount) == ("credits", 1000, 301, 1000)


GATE: Final = {
    # what there is: amount, pending, residue, limit -> None, or the refusal and what it says
    "exactly enough": (500, 0, "0", 0, None),
    "one less": (499, 0, "0", 0, ("insufficient_balance", 500, 1)),
    "a fraction that is owed already counts": (500, 0, "1/1000000", 0, ("insufficient_balance", 501, 1)),
    "the last unit covers the fraction": (501, 0, "999/1000", 0, None),
    "what is held is not there": (501, 2, "0", 0, ("insufficient_balance", 500, 1)),
    "a limit lends": (0, 0, "0", 500, None),
    "to the last unit": (0, 0, "0", 499, ("credit_limit_reached", 500, 1)),
    "a limit lends no fraction": (0, 0, "1/2", 500, ("credit_limit_reached", 501, 1)),
}


@pytest.mark.parametrize(("amount", "pending", "residue", "limit", "refusal"), GATE.values(), ids=GATE.keys())
def test_the_balance_that_pays_is_gated_exactly(
    amount: int, pending: int, residue: str, limit: int, refusal: tuple[str, int, int] | None
) -> None:
    state = paying(amount, residue=residue, pending=pending)
    if refusal is None:
        assert funded(state, PAYMENT, limit=limit, id=300, now=NOW)[0][0] == state.balances["USD"]._replace(
            amount=amount - 500, seq=4
        )
        return
    with pytest.raises(Refusal) as refused:
        funded(state, PAYMENT, limit=limit, id=300, now=NOW)
    code, required, shortfall = refusal
    assert (refused.value.code, refused.value.details) == (
        code,
        {
            "denomination": "USD",
            "available": amount - pending,
            "pending": pending,
            "required": required,
            "shortfall": shortfall,
        },
    )


def test_a_balance_that_does_not_exist_has_nothing_to_pay_with() -> None:
    nothing = AccountState(7, 1, 0, None, False, {}, {}, None)
    with pytest.raises(Refusal, match="does not cover"):
        funded(nothing, PAYMENT, limit=0, id=300, now=NOW)
    assert funded(nothing, PAYMENT, limit=500, id=300, now=NOW)[0][0].amount == -500


@settings(derandomize=True, deadline=None)
@given(
    st.integers(-20, 20),
    st.integers(0, 9),
    st.fractions(0, Fraction(99, 100), max_denominator=100),
    st.integers(0, 9),
    st.integers(1, 30),
)
def test_the_gate_is_the_comparison_of_exact_numbers(
    amount: int, pending: int, residue: Fraction, limit: int, price: int
) -> None:
    state = paying(amount, residue=str(residue), pending=pending)
    is_covered = amount - pending + limit - price - residue >= 0
    try:
        funded(state, PAYMENT._replace(amount=price), limit=limit, id=300, now=NOW)
    except Refusal as refusal:
        assert not is_covered
        assert refusal.details["shortfall"] == -((amount - pending + limit - price - residue) // 1)  # noqa: PT017
    else:
        assert is_covered


# --- changes ----------------------------------------------------------------------------------------------------------

CHANGES: Final[dict[str, tuple[Refill, Mapping[str, Any], Changed]]] = {
    "a threshold takes effect at once": (
        LOW,
        {"threshold": 50},
        Changed(LOW._replace(threshold=50), starts_monthly=False),
    ),
    "without months so does all the rest": (
        LOW,
        {"amount": 7, "charge_amount": 3, "charge_denomination": "EUR", "source": "balance"},
        Changed(
            LOW._replace(amount=7, charge_amount=3, charge_denomination="EUR", source="balance"), starts_monthly=False
        ),
    ),
    "months begin with a filling that is paid for first": (
        LOW,
        {"is_monthly": True},
        Changed(LOW, starts_monthly=True),
    ),
    "without threshold and months it ends": (LOW, {"threshold": None}, Changed(None, starts_monthly=False)),
    "a change takes it out of its parking place": (
        LOW._replace(**PARKED),
        {"amount": 7},
        Changed(LOW._replace(amount=7), starts_monthly=False),
    ),
    "what a month costs and gives changes with the next one": (
        MONTHLY,
        {"amount": 2000, "charge_amount": 900},
        Changed(MONTHLY._replace(scheduled={"amount": 2000, "charge_amount": 900}), starts_monthly=False),
    ),
    "what is the same already is no change": (
        MONTHLY,
        {"amount": 1000, "charge_amount": 500, "is_monthly": True},
        Changed(MONTHLY, starts_monthly=False),
    ),
    "a threshold needs no month's end": (
        MONTHLY._replace(**PARKED),
        {"threshold": 100, "amount": 2000},
        Changed(MONTHLY._replace(threshold=100, scheduled={"amount": 2000}), starts_monthly=False),
    ),
    "later changes are added to those that wait": (
        MONTHLY._replace(scheduled={"amount": 2000, "is_monthly": False}),
        {"charge_amount": 900, "is_monthly": True},
        Changed(
            MONTHLY._replace(scheduled={"amount": 2000, "is_monthly": True, "charge_amount": 900}), starts_monthly=False
        ),
    ),
    "months end with the next date": (
        MONTHLY,
        {"is_monthly": False},
        Changed(MONTHLY._replace(scheduled={"is_monthly": False}), starts_monthly=False),
    ),
}


@pytest.mark.parametrize(("before", "changes", "changed"), CHANGES.values(), ids=CHANGES.keys())
def test_a_change_takes_effect_now_or_with_the_next_month(
    before: Refill, changes: Mapping[str, Any], changed: Changed
) -> None:
    assert change(before, changes, is_new=False) == changed


@pytest.mark.parametrize(
    ("changes", "starts_monthly"),
    [({"threshold": 0}, False), ({"is_monthly": True}, True), ({"is_monthly": True, "threshold": 5}, True)],
)
def test_a_new_refill_says_when(
    changes: Mapping[str, Any],
    starts_monthly: bool,  # noqa: FBT001 - a column
) -> None:
    kept = NEW._replace(amount=10, threshold=changes.get("threshold"))
    assert change(NEW, {"amount": 10, **changes}, is_new=True) == Changed(kept, starts_monthly)


def test_a_new_refill_that_does_not_say_when_is_refused() -> None:
    with pytest.raises(Refusal) as refused:
        change(NEW, {"amount": 10, "charge_amount": 5}, is_new=True)
    assert (refused.value.code, refused.value.details) == ("missing_field", {"path": "threshold"})


# --- what takes the place of another ----------------------------------------------------------------------------------

BACK: Final[dict[str, tuple[int, int, list[tuple[str, int, str, int]]]]] = {
    # what is left of the old units, what they are worth above the new price: denomination, amount, book, id
    "units end": (250, 0, [("credits", -250, "expiry", 60)]),
    "money comes back": (0, 40, [("USD", 40, "proration", 60)]),
    "both": (250, 40, [("credits", -250, "expiry", 60), ("USD", 40, "proration", 61)]),
    "neither": (0, 0, []),
}


@pytest.mark.parametrize(("cancels", "remainder", "moves"), BACK.values(), ids=BACK.keys())
def test_what_is_left_of_a_refill_and_its_worth(
    cancels: int, remainder: int, moves: list[tuple[str, int, str, int]]
) -> None:
    credits_held = open_balance("credits")._replace(amount=300, seq=2)
    state = AccountState(7, 1, 0, None, False, {"credits": credits_held}, {}, None)
    payment = Payment(7, 42, 1, "card", "refill", "succeeded", 0, "USD", "credits", 1000, "Refill", NOW, NOW)
    found = given_back(state, payment, cancels, remainder, id=60, now=NOW)
    assert [(made.denomination, made.amount, made.book, made.id) for _, made in found] == moves
    assert all(made.ending_balance == balance.amount and made.cause_id == 42 for balance, made in found)
