"""The book: how one balance moves."""

from __future__ import annotations

import pytest

from tenuto.core.ledger import Balance, Transaction, adjust, closed, open_balance, post, reserve
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
    assert after == before._replace(amount=20 + amount, seq=seq_after)
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
