"""The book: balances, their transactions, and the few ways in which a balance moves.

The problem, on one example. A balance of 10 cents with residue 0.4 is asked for an event of 2.7 cents and a hold of
1.2 cents:

    step              amount   pending   residue   transaction
    start             10       0         0.4
    post 2.7          7        0         0.1       seq 1: usage, -3, from 10 to 7
    reserve 1.2       7        2         0.1       none; the hold keeps 2, its cost rounded up
    settle at 1.2     6        0         0.3       seq 2: usage, -1, from 7 to 6

A transaction is both sides of a double entry: ``amount`` on the account's balance and minus ``amount`` on the company's
book named by ``book``. A balance's transactions are numbered without a gap, each starts where the last one ended, and
a correction is a new row. ``available`` is the amount less what is pending. Source: design 5.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

from .money import BALANCE_MAX, ZERO, Exact, plus, split_whole
from .outcomes import Refusal

USAGE_BOOK: Final = "usage"
OVERAGE_BOOK: Final = "overage"
ADJUSTMENT_BOOK: Final = "adjustment"
DEPOSIT_BOOK: Final = "deposit"
REFILL_BOOK: Final = "refill"
PAYMENT_BOOK: Final = "payment"
REFUND_BOOK: Final = "refund"
REFUND_CREDIT_BOOK: Final = "refund_credit"
REFUND_FAILED_BOOK: Final = "refund_failed"
DISPUTE_BOOK: Final = "dispute"
DISPUTE_WON_BOOK: Final = "dispute_won"
TAX_BOOK: Final = "tax"
CREDIT_NOTE_BOOK: Final = "credit_note"
VOID_BOOK: Final = "void"
INVOICE_ITEM_BOOK: Final = "invoice_item"
PLAN_BOOK: Final = "plan"
PRORATION_BOOK: Final = "proration"
GRANT_BOOK: Final = "grant"
EXPIRY_BOOK: Final = "expiry"

PASSING_BOOKS: Final = frozenset(
    {PAYMENT_BOOK, PLAN_BOOK, TAX_BOOK, INVOICE_ITEM_BOOK, CREDIT_NOTE_BOOK, VOID_BOOK, REFUND_CREDIT_BOOK}
)
"""The books of money that passes through a balance on its way to what it pays for: it neither fills nor empties it."""

TAKEN_BOOKS: Final = (USAGE_BOOK, OVERAGE_BOOK)
"""The books of what events take; what moves a balance by any other book has arrived on it."""


class Balance(NamedTuple):
    """One number per account and denomination, in smallest units.

    ``pending`` is what live holds reserve; ``lapsed`` what holds reserve whose hour is over but that no sweep has
    tidied yet: it is stored with ``pending`` and counts for nothing. ``seq`` numbers the last transaction.
    ``refill_below`` is the threshold of a refill that waits for being needed: whoever leaves less than it available
    takes it away, which tells the store to write down that a refill is due (contract 3.2). ``filled`` is what it held
    when units last arrived: 100 % of what can be consumed of it.
    """

    denomination: str
    amount: int
    pending: int
    lapsed: int
    residue: Exact
    seq: int
    credit_limit: int | None
    refill_below: int | None = None
    filled: int = 0

    @property
    def available(self) -> int:
        """What may be spent before any credit limit."""
        return self.amount - self.pending


def open_balance(denomination: str, *, credit_limit: int | None = None) -> Balance:
    """A balance of nothing."""
    return Balance(denomination, 0, 0, 0, ZERO, 0, credit_limit)


class Transaction(NamedTuple):
    """One immutable movement of one balance. ``id`` is unique per account and rises with time.

    The events it is made of are those of ``account`` from ``first_event_id`` on, ``event_count`` of them, that carry
    its ``seq``. ``unit_cost`` is the price of one unit where one price made the whole amount. ``cause_id`` is the
    payment, refund, invoice or credit note that made it; a cause moves a balance once per book.
    """

    id: int
    denomination: str
    seq: int
    book: str
    type: str
    description: str
    amount: int
    starting_balance: int
    ending_balance: int
    recorded_at: datetime
    unit_cost: Exact | None = None
    first_event_id: int | None = None
    event_count: int = 0
    max_value_billing_amount: Exact | None = None
    max_value_billing_previous_id: int | None = None
    cause_id: int | None = None


def post(balance: Balance, cost: Exact) -> tuple[Balance, int]:
    """Take an exact cost (negative: give it back): the balance after, and the whole units that moved out."""
    moved, residue = split_whole(plus(balance.residue, cost))
    denomination, amount, pending, lapsed, _, seq, limit, refill_below, filled = balance
    return Balance(denomination, amount - moved, pending, lapsed, residue, seq, limit, refill_below, filled), moved


def reserve(balance: Balance, units: int) -> Balance:
    """Hold whole units (negative: let them go)."""
    return balance._replace(pending=balance.pending + units)


def closed(before: Balance, after: Balance) -> Balance:
    """The balance at the end of a request: numbered on if whole units moved, for then a transaction is written.

    Where it took some and left less available than its refill waits for, the refill waits no longer.

    Raises Refusal ``balance_out_of_range`` before a balance could leave what the database keeps.
    """
    denomination, amount, pending, lapsed, residue, _, credit_limit, refill_below, filled = after
    if not (-BALANCE_MAX <= amount <= BALANCE_MAX and pending + lapsed <= BALANCE_MAX):
        raise Refusal("balance_out_of_range", denomination=denomination)
    seq = before.seq + (amount != before.amount)
    left = amount - pending
    if refill_below is not None and left < refill_below and left < before.amount - before.pending:
        refill_below = None
    kept = residue if residue.numerator else ZERO
    return Balance(denomination, amount, pending, lapsed, kept, seq, credit_limit, refill_below, filled)


def adjust(balance: Balance, amount: int, *, id: int, reason: str, now: datetime) -> tuple[Balance, Transaction]:
    """Units in or out without payment, by the company's word."""
    return move(balance, amount, id=id, book=ADJUSTMENT_BOOK, type="ADJUSTMENT", description=reason, now=now)


def move(
    balance: Balance,
    amount: int,
    *,
    id: int,
    book: str,
    type: str,  # noqa: A002 - the contract's word
    description: str,
    now: datetime,
    cause_id: int | None = None,
) -> tuple[Balance, Transaction]:
    """Whole units in (or out, where ``amount`` is negative) that are no usage; ``amount`` is not 0."""
    held = balance.amount + amount
    fills = amount > 0 and book not in PASSING_BOOKS
    moved = closed(balance, balance._replace(amount=held, filled=max(0, held) if fills else balance.filled))
    return moved, Transaction(
        id=id,
        denomination=balance.denomination,
        seq=moved.seq,
        book=book,
        type=type,
        description=description,
        amount=amount,
        starting_balance=balance.amount,
        ending_balance=moved.amount,
        recorded_at=now,
        cause_id=cause_id,
    )
