"""The book: how one balance moves."""

from __future__ import annotations

import pytest

from tenuto.core.ledger import (
    DEPOSIT_BOOK,
    REFUND_BOOK,
    Balance,
    Transaction,
    adjust,
    closed,
    move,
    open_balance,
    post,
    reserve,
)
from tenuto.core.money import AMOUNT_MAX, BALANCE_MAX, ZERO, exact, exact_text, parse_fraction
from tenuto.core.outcomes import Refusal
from tests.core.account_life import START


def balance(amount: int, *, residue: str = "0", pending: int = 0, lapsed: int = 0, seq: int = 4) -> Balance:
    return Balance("USD", amount, pending, lapsed, parse_fraction(residue), seq, None)


@pytest.mark.parametrize(
    ("amount", "residue", "cost", "moved", "amount_after", "residue_after"),
    [
        (10, "0", "3", 3, 7, "0"),
        (10, "2/5", "2.7", 3, 7, "0.1"),
        (10, "2/5", "0.5", 0, 10, "0.9"),
        (10, "2/5", "0.6", 1, 9, "0"),
        (0, "0", "0.000000000001", 0, 0, "0.000000000001"),
        (0, "0", "5.5", 5, -5, "0.5"),
        # what is given back
        (7, "1/10", "-2.7", -3, 10, "0.4"),
        (9, "0", "-0.6", -1, 10, "0.4"),
        (10, "9/10", "-0.5", 0, 10, "0.4"),
    ],
)
def test_whole_units_move_and_the_rest_is_carried(
    amount: int, residue: str, cost: str, moved: int, amount_after: int, residue_after: str
) -> None:
    after, units = post(balance(amount, residue=residue, pending=2, lapsed=1), exact(cost))
    assert (units, after.amount, exact_text(after.residue)) == (moved, amount_after, residue_after)
    assert after == balance(0, pending=2, lapsed=1)._replace(amount=after.amount, residue=after.residue)


def test_the_example_of_the_module() -> None:
    start = balance(10, residue="2/5", seq=0)
    posted = closed(start, post(start, exact("2.7"))[0])
    assert (posted.amount, posted.pending, exact_text(posted.residue), posted.seq) == (7, 0, "0.1", 1)
    held = closed(posted, reserve(posted, 2))
    assert (held.amount, held.pending, held.available, held.seq) == (7, 2, 5, 1)
    settled = closed(held, post(reserve(held, -2), exact("1.2"))[0])
    assert (settled.amount, settled.pending, exact_text(settled.residue), settled.seq) == (6, 0, "0.3", 2)


def test_a_new_balance_has_nothing() -> None:
    assert open_balance("credits", credit_limit=5) == Balance("credits", 0, 0, 0, ZERO, 0, 5)


@pytest.mark.parametrize(
    ("amount", "pending", "lapsed", "is_kept"),
    [
        (BALANCE_MAX, 0, 0, True),
        (BALANCE_MAX + 1, 0, 0, False),
        (-BALANCE_MAX, 0, 0, True),
        (-BALANCE_MAX - 1, 0, 0, False),
        (0, BALANCE_MAX, 0, True),
        (0, BALANCE_MAX + 1, 0, False),
        # what has lapsed is stored with what is pending until it is swept
        (0, BALANCE_MAX - 1, 1, True),
        (0, BALANCE_MAX, 1, False),
    ],
)
def test_a_balance_stays_in_what_can_be_kept(
    amount: int,
    pending: int,
    lapsed: int,
    is_kept: bool,  # noqa: FBT001 - a column
) -> None:
    after = balance(amount, pending=pending, lapsed=lapsed)
    if is_kept:
        assert closed(balance(0), after).amount == amount
        return
    with pytest.raises(Refusal) as refused:
        closed(balance(0), after)
    assert (refused.value.code, refused.value.details) == ("balance_out_of_range", {"denomination": "USD"})


def test_the_database_can_keep_the_widest_balance_plus_one_event() -> None:
    assert BALANCE_MAX + AMOUNT_MAX < 2**63


@pytest.mark.parametrize(("amount", "seq_after"), [(100, 5), (-30, 5)])
def test_an_adjustment_is_a_transaction_of_its_own(amount: int, seq_after: int) -> None:
    before = balance(20, residue="1/2", pending=3)
    after, row = adjust(before, amount, id=77, reason="goodwill", now=START)
    filled = 20 + amount if amount > 0 else before.filled
    assert after == before._replace(amount=20 + amount, seq=seq_after, filled=filled)
    assert row == Transaction(
        id=77,
        denomination="USD",
        seq=seq_after,
        book="adjustment",
        type="ADJUSTMENT",
        description="goodwill",
        amount=amount,
        starting_balance=20,
        ending_balance=20 + amount,
        recorded_at=START,
        event_count=0,
    )


def test_an_adjustment_out_of_range_is_refused() -> None:
    with pytest.raises(Refusal, match="range"):
        adjust(balance(BALANCE_MAX), 1, id=1, reason="too much", now=START)


@pytest.mark.parametrize(
    ("amount", "book", "type", "cause_id"),
    [(500, DEPOSIT_BOOK, "DEPOSIT", 42), (-500, REFUND_BOOK, "REFUND", 43), (1, "tax", "TAX", None)],
)
def test_what_is_no_usage_moves_whole_units_and_says_its_cause(
    amount: int, book: str, type: str, cause_id: int | None
) -> None:
    before = balance(20, residue="1/2", pending=3, lapsed=1)
    after, row = move(before, amount, id=77, book=book, type=type, description="Why", now=START, cause_id=cause_id)
    filled = 20 + amount if book == "deposit" else before.filled
    assert after == before._replace(amount=20 + amount, seq=5, filled=filled)
    assert row == Transaction(
        id=77,
        denomination="USD",
        seq=5,
        book=book,
        type=type,
        description="Why",
        amount=amount,
        starting_balance=20,
        ending_balance=20 + amount,
        recorded_at=START,
        cause_id=cause_id,
    )


@pytest.mark.parametrize(
    ("amount", "pending", "lapsed", "refill_below", "waits_for"),
    [
        (100, 0, 0, None, None),
        (100, 0, 0, 100, 100),
        (99, 0, 0, 100, None),
        # what is held is not available; what lapsed is
        (100, 1, 0, 100, None),
        (101, 1, 0, 100, 100),
        (100, 0, 50, 100, 100),
        (0, 0, 0, 0, 0),
        (-1, 0, 0, 0, None),
    ],
)
def test_a_refill_waits_until_less_than_its_threshold_is_left(
    amount: int, pending: int, lapsed: int, refill_below: int | None, waits_for: int | None
) -> None:
    after = balance(amount, pending=pending, lapsed=lapsed)._replace(refill_below=refill_below)
    assert closed(balance(500, seq=4), after) == after._replace(refill_below=waits_for, seq=5)


def test_a_posting_and_a_hold_carry_what_the_refill_waits_for_to_the_end_of_the_request() -> None:
    start = balance(102)._replace(refill_below=100)
    low = post(reserve(start, 2), exact("3"))[0]
    assert (low.available, low.refill_below) == (97, 100)
    assert closed(start, reserve(low, -2)._replace(amount=102)).refill_below == 100, "only the end counts"
    assert closed(start, low).refill_below is None


def test_money_that_comes_in_makes_no_refill_wait_again() -> None:
    low = closed(balance(100), balance(99)._replace(refill_below=100))
    assert adjust(low, 1000, id=1, reason="goodwill", now=START)[0].refill_below is None
