"""What a payment does next, what an answer makes of it, and what can be given back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any, Final, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenuto.core.event import AccountState
from tenuto.core.ledger import open_balance
from tenuto.core.outcomes import Refusal
from tenuto.core.payment import (
    AWAITED,
    FOR_PLANS,
    HARD_DECLINES,
    OPEN,
    PROCESSING,
    Action,
    Answered,
    Payment,
    PaymentReason,
    RefillCaps,
    RefillsDone,
    Returned,
    Status,
    answered,
    began,
    credited,
    credited_again,
    dropped,
    failed,
    in_doubt,
    makes_room,
    next_step,
    over_cap,
    paid_in,
    retried,
    returnable,
    returned,
    shown_status,
    told_of_success,
    voided,
)

NOW: Final = datetime(2030, 1, 15, 12, tzinfo=UTC)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(hours=24)
STATUSES: Final[tuple[Status, ...]] = get_args(Status)
WORDS: Final = (
    "requires_payment_method",
    "requires_confirmation",
    "requires_action",
    "processing",
    "requires_capture",
    "canceled",
    "succeeded",
)
NO_BALANCES: Final = AccountState(7, 1, 0, None, False, {}, {}, None)
REFILL: Final = Payment(
    account_id=7,
    id=42,
    environment_id=1,
    method="card",
    reason="threshold_refill",
    status="intended",
    amount=1000,
    currency="USD",
    denomination="credits",
    units=500,
    description="Refill",
    created_at=NOW - HOUR,
    due_at=NOW - HOUR,
    slot="refill:credits",
    next_attempt_at=NOW,
)


def refill(status: Status, **fields: Any) -> Payment:
    """A refill for 10 dollars as it is found in a status; it has an intent from ``created`` on."""
    known = {"intent_id": None if status in {"intended", "skipped"} else "pi_1"}
    usual: Mapping[str, Any] = known | ({"attempts": 1} if status == "confirming" else {})
    return REFILL._replace(status=status, **{**usual, **fields})


def said(status: str, code: str | None = None, **fields: Any) -> Answered:
    return Answered("pi_1", status, 1000, "USD", code, None if code is None else "No.")._replace(**fields)


def told(payment: Payment, status: str, code: str | None = None, *, is_reading: bool = False) -> Payment:
    return answered(payment, said(status, code), now=NOW, is_reading=is_reading)


# --- the next step ----------------------------------------------------------------------------------------------------

DUE: Final[dict[Status, Action]] = {
    "intended": "create",
    "created": "confirm",
    "confirming": "inspect",
    "processing": "inspect",
    "voiding": "cancel",
    "succeeded": "none",
    "failed": "none",
    "skipped": "none",
    "voided": "none",
}


def test_the_table_names_every_status() -> None:
    assert set(DUE) == set(STATUSES)


@pytest.mark.parametrize(("status", "action"), DUE.items())
def test_what_is_due_has_its_step_and_what_is_not_waits(status: Status, action: Action) -> None:
    steps = [
        next_step(refill(status, next_attempt_at=at), now=NOW)
        for at in (NOW - DAY, NOW, NOW + timedelta(microseconds=1), None)
    ]
    assert steps == [action, action, "none" if action == "none" else "wait", "none"]
    assert refill(status).is_open is (status in OPEN) is (action != "none")


@pytest.mark.parametrize(
    ("status", "action"), [("intended", "create"), ("processing", "inspect"), ("voiding", "cancel")]
)
def test_a_step_that_moves_no_money_only_takes_the_payment_in_hand(status: Status, action: Action) -> None:
    assert began(refill(status, fence=3), action, card_id=5, now=NOW) == refill(status, fence=4)


def test_a_confirmation_is_in_doubt_before_it_leaves() -> None:
    before = refill("created", attempts=1, fence=3)
    assert began(before, "confirm", card_id=5, now=NOW) == before._replace(
        status="confirming", attempts=2, fence=4, card_id=5, next_attempt_at=NOW + timedelta(seconds=2)
    )


@pytest.mark.parametrize(
    ("tries", "seconds"), [(0, 2), (1, 4), (2, 8), (3, 16), (4, 32), (5, 60), (6, 60), (10**6, 60)]
)
def test_doubt_asks_ever_more_slowly(tries: int, seconds: int) -> None:
    before = refill("confirming")
    after = in_doubt(before, tries=tries, now=NOW)
    assert after == before._replace(next_attempt_at=NOW + timedelta(seconds=seconds))


# --- answers ----------------------------------------------------------------------------------------------------------

# What becomes of a payment in each status (the columns), by what its intent says, called or read. Declined answers are
# soft here. `=` leaves it as it is; `again` is created, due now; `1h` is created, after a first decline; `kept` is
# created, tried when it would have been.
COLUMNS: Final = ("intended", "created", "confirming", "processing", "voiding", "failed", "succeeded", "voided")
ANSWERS: Final = {
    # word, declined, read         intended      created       confirming    processing    voiding       failed
    ("succeeded", False, False): "succeeded     succeeded     succeeded     succeeded     succeeded     succeeded",
    ("succeeded", False, True): " succeeded     succeeded     succeeded     succeeded     succeeded     succeeded",
    ("canceled", False, False): " voided        voided        voided        voided        voided        voided",
    ("canceled", False, True): "  voided        voided        voided        voided        voided        voided",
    ("processing", False, False): "processing   processing    processing    processing    voiding+30s   processing",
    ("processing", False, True): "processing    processing    processing    processing    voiding+30s   processing",
    ("requires_capture", False, True): "processing processing processing    processing    voiding+30s   processing",
    ("requires_confirmation", False, False): "again again     again-1       again         voiding       =",
    ("requires_confirmation", False, True): "again again      again-1       again         voiding       =",
    ("requires_payment_method", False, False): "again again   again-1       again         voiding       =",
    ("requires_payment_method", False, True): "again again    again-1       again         voiding       =",
    ("requires_payment_method", True, False): "kept kept      1h            1h            voiding       =",
    ("requires_payment_method", True, True): "kept kept       again-1       1h            voiding       =",
    ("requires_confirmation", True, False): "kept kept        1h            1h            voiding       =",
    ("requires_confirmation", True, True): "kept kept         again-1       1h            voiding       =",
    ("requires_action", False, False): "kept    kept          action        action        voiding       =",
    ("requires_action", False, True): "kept     kept          action        action        voiding       =",
}
LATER: Final = NOW + timedelta(minutes=7)
BECOMES: Final[dict[str, Mapping[str, Any]]] = {
    "succeeded": {"status": "succeeded", "next_attempt_at": None, "finished_at": NOW},
    "voided": {"status": "voided", "next_attempt_at": None, "finished_at": NOW},
    "processing": {"status": "processing", "next_attempt_at": NOW + PROCESSING},
    "voiding": {"next_attempt_at": NOW},
    "voiding+30s": {"status": "voiding", "next_attempt_at": NOW + PROCESSING},
    "again": {"status": "created", "next_attempt_at": NOW},
    "again-1": {"status": "created", "next_attempt_at": NOW, "attempts": 0},
    "kept": {"status": "created"},
    "1h": {
        "status": "created",
        "next_attempt_at": NOW + HOUR,
        "declines": 1,
        "code": "insufficient_funds",
        "message": "No.",
    },
    "action": {
        "status": "failed",
        "next_attempt_at": None,
        "finished_at": NOW,
        "declines": 1,
        "code": "authentication_required",
        "message": "The bank wants the customer to confirm.",
    },
    "=": {},
}


@pytest.mark.parametrize(("asked", "row"), ANSWERS.items(), ids=[" ".join(map(str, asked)) for asked in ANSWERS])
def test_what_an_answer_makes_of_a_payment(asked: tuple[str, bool, bool], row: str) -> None:
    word, is_declined, is_reading = asked
    for status, cell in zip(COLUMNS, [*row.split(), "=", "="], strict=True):
        is_over = status in {"failed", "succeeded", "voided"}
        before = refill(status, next_attempt_at=None if is_over else LATER)  # type: ignore[arg-type]
        answer = said(word, "insufficient_funds" if is_declined else None)
        after = answered(before, answer, now=NOW, is_reading=is_reading)
        becomes = {"status": status, **BECOMES[cell]}
        assert after == before._replace(intent_id=before.intent_id if cell == "=" else "pi_1", **becomes), status


def test_the_table_names_every_word() -> None:
    assert {word for word, _, _ in ANSWERS} == set(WORDS)


@pytest.mark.parametrize(
    ("status", "word", "code"), [*product(STATUSES, WORDS, [None, "insufficient_funds", "lost_card"])]
)
@pytest.mark.parametrize("is_reading", [False, True])
def test_the_same_answer_twice_changes_nothing_more(
    status: Status,
    word: str,
    code: str | None,
    is_reading: bool,  # noqa: FBT001 - a column
) -> None:
    once = told(refill(status), word, code, is_reading=is_reading)
    assert told(once, word, code, is_reading=is_reading) == once


def test_an_intended_payment_learns_its_intent_and_a_paid_one_its_charge() -> None:
    created = answered(REFILL, said("requires_confirmation"), now=NOW, is_reading=False)
    assert (created.status, created.intent_id, created.charge_id) == ("created", "pi_1", None)
    paid = answered(refill("confirming"), said("succeeded", charge_id="ch_1"), now=NOW, is_reading=False)
    assert (paid.status, paid.charge_id, paid.slot) == ("succeeded", "ch_1", "refill:credits")
    assert told(refill("processing", charge_id="ch_0"), "processing").charge_id == "ch_0"


def test_success_after_declines_forgets_their_reason() -> None:
    before = refill("confirming", declines=1, code="insufficient_funds", message="No.")
    assert (
        told(before, "succeeded")[11:]
        == refill("succeeded", attempts=1, declines=1, finished_at=NOW)._replace(next_attempt_at=None)[11:]
    )


def test_soft_declines_are_tried_after_an_hour_and_a_day_and_the_third_is_the_last() -> None:
    payment, story = refill("created"), []
    for _ in range(3):
        payment = told(began(payment, "confirm", card_id=5, now=NOW), "requires_payment_method", "insufficient_funds")
        wait = None if payment.next_attempt_at is None else payment.next_attempt_at - NOW
        story.append((payment.status, payment.declines, payment.attempts, wait))
    assert story == [("created", 1, 1, HOUR), ("created", 2, 2, DAY), ("failed", 3, 3, None)]
    assert (payment.code, payment.finished_at) == ("insufficient_funds", NOW)


@pytest.mark.parametrize("code", sorted(HARD_DECLINES))
def test_a_hard_decline_is_never_tried_again(code: str) -> None:
    after = told(refill("confirming"), "requires_payment_method", code)
    assert (after.status, after.declines, after.code, after.next_attempt_at) == ("failed", 1, code, None)


@pytest.mark.parametrize("code", ["insufficient_funds", "card_declined", "do_not_honor", "a word of tomorrow"])
def test_a_decline_that_may_pass_is_tried_again(code: str) -> None:
    assert told(refill("confirming"), "requires_payment_method", code).status == "created"


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("deposit", "failed"),
        ("refill_start", "failed"),
        ("refill", "created"),
        ("threshold_refill", "created"),
        ("invoice", "created"),
    ],
)
def test_where_somebody_waits_for_the_answer_a_decline_fails_at_once(reason: PaymentReason, status: Status) -> None:
    after = told(refill("confirming", reason=reason), "requires_payment_method", "insufficient_funds")
    assert (after.status, after.declines) == (status, 1)


def test_an_answer_of_no_known_word_is_a_decline() -> None:
    after = told(refill("confirming"), "requires_source")
    assert (after.status, after.declines, after.code, after.message) == ("created", 1, "card_declined", "")


def test_an_old_refusal_read_again_is_not_counted_again() -> None:
    waiting = refill("created", declines=1, attempts=1, code="insufficient_funds", next_attempt_at=LATER)
    assert told(waiting, "requires_payment_method", "insufficient_funds", is_reading=True) == waiting
    woken = waiting._replace(next_attempt_at=None)
    assert told(woken, "requires_payment_method", "lost_card", is_reading=True) == woken._replace(next_attempt_at=NOW)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("wrong", [{"amount": 999}, {"currency": "EUR"}])
def test_an_intent_for_another_amount_is_never_applied(status: Status, wrong: Mapping[str, Any]) -> None:
    with pytest.raises(Refusal) as refused:
        answered(refill(status), said("succeeded", **wrong), now=NOW, is_reading=True)
    assert (refused.value.code, refused.value.details) == (
        "gateway_mismatch",
        {"expected": 1000, "found": wrong.get("amount", 1000)},
    )


def test_a_success_that_comes_late_still_counts() -> None:
    given_up = failed(refill("confirming"), "payment_method_required", "No card.", now=NOW - HOUR)
    assert given_up == refill("confirming")._replace(
        status="failed",
        code="payment_method_required",
        message="No card.",
        next_attempt_at=None,
        finished_at=NOW - HOUR,
    )
    paid = told(given_up, "succeeded", is_reading=True)
    assert (paid.status, paid.code, paid.message, paid.finished_at) == ("succeeded", None, None, NOW)


@pytest.mark.parametrize(
    ("status", "after"),
    [
        ("intended", None),
        ("created", "processing"),
        ("confirming", "confirming"),
        ("processing", "processing"),
        ("failed", "voiding"),
        ("skipped", None),
        ("voiding", None),
        ("succeeded", None),
        ("voided", "voiding"),
    ],
)
def test_a_message_of_success_is_a_hint_to_look_that_no_refusal_can_bury(status: Status, after: Status | None) -> None:
    before = refill(status, fence=3, next_attempt_at=LATER, finished_at=NOW)
    woken = told_of_success(before, now=NOW)
    if after is None:
        assert woken is None
        return
    kept = None if after == "voiding" else before.slot
    assert woken == before._replace(status=after, fence=4, slot=kept, next_attempt_at=NOW, finished_at=None)
    assert next_step(woken, now=NOW) == ("cancel" if after == "voiding" else "inspect")


# --- by hand ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "status"),
    [
        (refill("failed", declines=3), "created"),
        (refill("failed", intent_id=None), "intended"),
        (refill("skipped"), "intended"),
        (refill("created", declines=2, next_attempt_at=NOW + DAY), "created"),
    ],
)
def test_a_retry_goes_on_with_the_same_intent_and_counts_declines_anew(before: Payment, status: Status) -> None:
    after = retried(before._replace(finished_at=NOW), now=NOW)
    assert after == before._replace(status=status, declines=0, next_attempt_at=NOW, finished_at=None)


@pytest.mark.parametrize(
    ("before", "shown"),
    [
        (refill("intended"), "pending"),
        (refill("created"), "pending"),
        (refill("confirming", declines=1), "pending"),
        (refill("processing"), "pending"),
        (refill("voiding"), "pending"),
        (refill("succeeded"), "succeeded"),
        (refill("succeeded", refunded=1000), "refunded"),
        (refill("voided"), "voided"),
    ],
)
def test_what_has_not_failed_cannot_be_retried(before: Payment, shown: str) -> None:
    with pytest.raises(Refusal) as refused:
        retried(before, now=NOW)
    assert (refused.value.code, refused.value.details) == ("payment_not_retryable", {"status": shown})


@pytest.mark.parametrize(
    ("before", "status"),
    [
        (refill("intended"), "voided"),
        (refill("skipped"), "voided"),
        (refill("failed", intent_id=None), "voided"),
        # the provider has to cancel first: it may have succeeded
        (refill("created"), "voiding"),
        (refill("confirming"), "voiding"),
        (refill("confirming", intent_id=None), "voiding"),
        (refill("processing"), "voiding"),
        (refill("failed"), "voiding"),
        (refill("voiding"), "voiding"),
    ],
)
def test_a_payment_is_given_up_at_once_only_where_nobody_was_asked(before: Payment, status: Status) -> None:
    after = voided(before, now=NOW)
    is_over = status == "voided"
    assert after == before._replace(
        status=status,
        slot=before.slot if is_over or before.is_open else None,
        next_attempt_at=None if is_over else NOW,
        finished_at=NOW if is_over else None,
    )


@pytest.mark.parametrize(
    ("before", "shown"),
    [
        (refill("succeeded"), "succeeded"),
        (refill("succeeded", refunded=1000), "refunded"),
        (refill("voided"), "voided"),
    ],
)
def test_what_is_over_cannot_be_given_up(before: Payment, shown: str) -> None:
    with pytest.raises(Refusal) as refused:
        voided(before, now=NOW)
    assert (refused.value.code, refused.value.details) == ("payment_not_voidable", {"status": shown})


SHOWN: Final[dict[str, str]] = dict.fromkeys(OPEN, "pending") | {
    "succeeded": "succeeded",
    "failed": "failed",
    "skipped": "skipped",
    "voided": "voided",
}


@pytest.mark.parametrize("status", STATUSES)
def test_a_status_is_shown_in_the_contracts_words(status: Status) -> None:
    assert shown_status(refill(status, refunded=999)) == SHOWN[status]


# --- the balance ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "book", "type"),
    [
        ("deposit", "deposit", "DEPOSIT"),
        ("refill", "refill", "REFILL"),
        ("refill_start", "refill", "REFILL"),
        ("threshold_refill", "refill", "THRESHOLD_REFILL"),
        ("invoice", "payment", "PAYMENT"),
    ],
)
def test_a_success_credits_its_units_in_the_book_of_its_reason(reason: PaymentReason, book: str, type: str) -> None:
    held = open_balance("credits")._replace(amount=30, pending=20, seq=4)
    state = AccountState(7, 1, 200, None, False, {"credits": held}, {}, None)
    balance, row = paid_in(state, refill("succeeded", reason=reason), id=300, now=NOW)
    assert balance == held._replace(amount=530, seq=5, filled=0 if book == "payment" else 530)
    assert (row.id, row.book, row.type, row.description, row.cause_id) == (300, book, type, "Refill", 42)
    assert (row.amount, row.starting_balance, row.ending_balance, row.recorded_at) == (500, 30, 530, NOW)


def test_a_success_opens_the_balance_it_credits() -> None:
    balance, row = paid_in(AccountState(7, 1, 0, None, False, {}, {}, None), refill("succeeded"), id=1, now=NOW)
    assert balance == open_balance("credits")._replace(amount=500, seq=1, filled=500)
    assert (row.seq, row.starting_balance, row.ending_balance) == (1, 0, 500)


# --- giving back ------------------------------------------------------------------------------------------------------

PAID: Final = refill("succeeded", next_attempt_at=None)


@pytest.mark.parametrize(
    ("amount", "refunded", "units_returned", "promised", "promised_units", "back"),
    [
        (None, 0, 0, 0, 0, Returned(1000, 500)),
        (1000, 0, 0, 0, 0, Returned(1000, 500)),
        (1, 0, 0, 0, 0, Returned(1, 0)),
        (3, 0, 0, 0, 0, Returned(3, 1)),
        (333, 333, 166, 0, 0, Returned(333, 167)),
        (None, 333, 166, 333, 167, Returned(334, 167)),
        (None, 999, 499, 0, 0, Returned(1, 1)),
        # one that was promised failed after others had counted on it: nothing is given twice, nothing taken back
        (1, 15, 8, 0, 0, Returned(1, 0)),
    ],
)
def test_units_go_with_the_money_in_proportion_and_rounded_down_in_sum(
    amount: int | None, refunded: int, units_returned: int, promised: int, promised_units: int, back: Returned
) -> None:
    paid = PAID._replace(refunded=refunded, units_returned=units_returned)
    assert returnable(paid, amount, promised=promised, promised_units=promised_units) == back


@pytest.mark.parametrize(
    ("amount", "refunded", "promised", "left"),
    [(1001, 0, 0, 1000), (501, 300, 200, 500), (None, 1000, 0, 0), (None, 400, 600, 0), (1, 1000, 0, 0)],
)
def test_no_more_goes_back_than_is_left(amount: int | None, refunded: int, promised: int, left: int) -> None:
    with pytest.raises(Refusal) as refused:
        returnable(PAID._replace(refunded=refunded), amount, promised=promised, promised_units=0)
    assert (refused.value.code, refused.value.details) == (
        "refund_exceeds_payment",
        {"refundable": left, "required": left if amount is None else amount},
    )


@pytest.mark.parametrize(
    ("payment", "shown"),
    [(refill("failed"), "failed"), (refill("confirming"), "pending"), (PAID._replace(method="balance"), "succeeded")],
)
def test_only_money_that_came_in_can_go_back(payment: Payment, shown: str) -> None:
    with pytest.raises(Refusal) as refused:
        returnable(payment, None, promised=0, promised_units=0)
    assert (refused.value.code, refused.value.details) == ("payment_not_refundable", {"status": shown})


@settings(derandomize=True, deadline=None)
@given(st.integers(1, 10**6), st.integers(0, 10**6), st.lists(st.tuples(st.integers(1, 10**6), st.booleans())))
def test_parts_that_add_up_to_a_payment_take_exactly_its_units(
    amount: int, units: int, parts: list[tuple[int, bool]]
) -> None:
    """Whatever the parts, and whichever of them fail on their way, as long as each ends before the next begins."""
    paid = PAID._replace(amount=amount, units=units)
    for part, is_done in [*parts, (amount, True)]:
        if paid.refunded == amount:
            break
        back = returnable(paid, min(part, amount - paid.refunded), promised=0, promised_units=0)
        assert back.units >= 0
        paid = returned(paid, *back) if is_done else paid
        assert 0 <= paid.units_returned <= units
        assert paid.units_returned == units * paid.refunded // amount
    assert (paid.refunded, paid.units_returned, shown_status(paid)) == (amount, units, "refunded")


@settings(derandomize=True, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(0, 300),
    st.lists(st.tuples(st.integers(1, 100), st.sampled_from(["done", "failed"])), max_size=8),
    st.randoms(use_true_random=False),
)
def test_refunds_under_way_together_never_take_more_than_the_units(
    amount: int, units: int, parts: list[tuple[int, str]], chance: Any
) -> None:
    paid = PAID._replace(amount=amount, units=units)
    under_way: list[tuple[Returned, str]] = []
    for part, end in parts:
        promised = sum(back.amount for back, _ in under_way)
        left = amount - paid.refunded - promised
        if left > 0:
            taken = sum(back.units for back, _ in under_way)
            under_way.append((returnable(paid, min(part, left), promised=promised, promised_units=taken), end))
        if under_way and chance.random() < 0.5:
            back, ended = under_way.pop(chance.randrange(len(under_way)))
            paid = returned(paid, *back) if ended == "done" else paid
        assert 0 <= paid.units_returned <= units
    for back, _ in under_way:
        paid = returned(paid, *back)
    if paid.refunded < amount:
        paid = returned(paid, *returnable(paid, None, promised=0, promised_units=0))
    assert paid.units_returned <= units
    assert paid.units_returned == units, "the last part takes what is left"


# --- caps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caps", "done", "is_over"),
    [
        (RefillCaps(), RefillsDone(3, 23, 10**9), False),
        (RefillCaps(), RefillsDone(4, 4, 0), True),
        (RefillCaps(), RefillsDone(0, 24, 0), True),
        (RefillCaps(per_day=None), RefillsDone(0, 10**6, 0), False),
        (RefillCaps(per_hour=0), RefillsDone(0, 0, 0), True),
        (RefillCaps(amount_per_day=3000), RefillsDone(1, 2, 2000), False),
        (RefillCaps(amount_per_day=2999), RefillsDone(1, 2, 2000), True),
    ],
)
def test_a_balance_is_refilled_so_often_and_for_so_much_a_day(
    caps: RefillCaps,
    done: RefillsDone,
    is_over: bool,  # noqa: FBT001 - a column
) -> None:
    assert over_cap(caps, done, 1000) is is_over


@pytest.mark.parametrize(("fence", "minutes"), [(2, 0.5), (3, 1), (4, 2), (9, 64), (40, 360)])
def test_a_bank_that_takes_its_time_is_asked_ever_more_rarely(fence: int, minutes: float) -> None:
    slow = refill("processing", fence=fence, attempts=1)
    after = answered(slow, said("processing"), now=NOW, is_reading=True)
    assert after.next_attempt_at == NOW + timedelta(minutes=minutes)


# --- room, and what is credited again -------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["deposit", "refill", "refill_start", "threshold_refill", "invoice"])
@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("declines", [0, 1])
def test_only_a_refill_below_a_threshold_that_was_declined_makes_room(
    reason: PaymentReason, status: Status, declines: int
) -> None:
    payment = refill(status, reason=reason, declines=declines)
    assert makes_room(payment) == (reason == "threshold_refill" and status == "created" and declines == 1)


def test_what_makes_room_is_over_at_once() -> None:
    waits = refill("created", declines=1, next_attempt_at=LATER)
    after = dropped(waits, now=NOW)
    assert after == waits._replace(status="voided", next_attempt_at=None, finished_at=NOW)
    assert next_step(after, now=LATER) == "none"


@pytest.mark.parametrize(
    ("settled", "returned_before", "before", "units", "credited"),
    [
        (1000, 0, 0, 400, 400),  # all of it had paid invoices
        (0, 0, 0, 400, 0),  # the balance holds all of it
        (600, 0, 0, 400, 0),  # what the balance holds goes back first
        (600, 0, 0, 500, 100),
        (600, 300, 0, 200, 100),
        (600, 500, 100, 500, 500),
        (600, 300, 150, 150, 0),  # one that credited stands, another that did not was undone
    ],
)
def test_a_refund_credits_what_had_paid_invoices(
    settled: int, returned_before: int, before: int, units: int, credited: int
) -> None:
    payment = refill("succeeded", reason="invoice", units=1000, units_returned=returned_before)
    assert credited_again(payment, units, settled=settled, credited=before) == credited


@given(
    settled=st.integers(min_value=0, max_value=1000),
    parts=st.lists(st.integers(min_value=1, max_value=400), max_size=9),
)
def test_refunds_in_parts_credit_in_sum_what_had_paid_invoices(settled: int, parts: list[int]) -> None:
    payment, credited, taken = refill("succeeded", reason="invoice", units=1000), 0, 0
    for part in parts:
        units = min(part, 1000 - taken)
        credited += credited_again(payment, units, settled=settled, credited=credited)
        payment, taken = returned(payment, 0, units), taken + units
    assert credited == max(0, taken - (1000 - settled))


def test_what_credit_notes_gave_back_is_not_refunded_too() -> None:
    payment = refill("succeeded", amount=1000)
    assert returnable(payment, None, promised=0, promised_units=0, credited=300).amount == 700
    with pytest.raises(Refusal) as refused:
        returnable(payment, 701, promised=0, promised_units=0, credited=300)
    assert refused.value.details == {"refundable": 700, "required": 701}


# --- plans, and what takes the place of a refill ----------------------------------------------------------------------


@pytest.mark.parametrize("reason", get_args(PaymentReason))
def test_a_payment_that_somebody_waits_for_fails_with_its_first_decline(reason: PaymentReason) -> None:
    after = told(refill("confirming", reason=reason), "requires_payment_method", "insufficient_funds")
    assert after.status == ("failed" if reason in AWAITED else "created")
    assert (reason in AWAITED) is (reason in {"deposit", "refill_start", "plan_start", "plan_change"})


@pytest.mark.parametrize("status", ["failed", "skipped"])
@pytest.mark.parametrize("reason", sorted(FOR_PLANS))
def test_of_a_plan_only_a_renewal_is_tried_again(reason: PaymentReason, status: Status) -> None:
    payment = refill(status, reason=reason, declines=3)
    if reason == "plan_renewal":
        again = retried(payment, now=NOW)
        assert (again.declines, again.next_attempt_at, again.finished_at) == (0, NOW, None)
        assert again.status == ("created" if payment.intent_id else "intended")
    else:
        with pytest.raises(Refusal) as found:
            retried(payment, now=NOW)
        assert found.value.code == "payment_not_retryable"


def test_a_renewal_that_was_declined_is_tried_again_before_its_time() -> None:
    waiting = refill("created", reason="plan_renewal", declines=1, next_attempt_at=NOW + HOUR)
    assert retried(waiting, now=NOW).next_attempt_at == NOW
    with pytest.raises(Refusal):
        retried(refill("created", reason="plan_renewal"), now=NOW)


@pytest.mark.parametrize("reason", sorted(FOR_PLANS))
def test_what_is_paid_for_a_plan_comes_in_as_money(reason: PaymentReason) -> None:
    payment = refill("succeeded", reason=reason, denomination="USD", units=1000)
    ((balance, made),) = credited(NO_BALANCES, payment, id=50, now=NOW)
    assert (balance.amount, made.book, made.type, made.cause_id) == (1000, "payment", "PAYMENT", 42)


def test_what_is_left_of_a_refill_ends_when_the_next_one_is_paid() -> None:
    state = NO_BALANCES._replace(balances={"credits": open_balance("credits")._replace(amount=250, seq=3)})
    came, ended = credited(state, refill("succeeded", settings={"cancelled": 250}), id=50, now=NOW)
    assert (came[1].amount, came[1].book, came[1].seq) == (500, "refill", 4)
    assert (ended[1].amount, ended[1].book, ended[1].type) == (-250, "expiry", "CANCEL_REMAINING")
    assert (ended[1].id, ended[1].seq, ended[1].starting_balance, ended[1].cause_id) == (51, 5, 750, 42)
    assert ended[0].amount == 500


@pytest.mark.parametrize("kept", [None, {}, {"cancelled": 0}])
def test_nothing_ends_where_nothing_was_left(kept: Mapping[str, Any] | None) -> None:
    assert len(credited(NO_BALANCES, refill("succeeded", settings=kept), id=50, now=NOW)) == 1
