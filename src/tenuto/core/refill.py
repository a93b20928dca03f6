"""How a balance is filled again: by date, below a threshold, or both.

The problem, on one example. A balance of tokens gets 1,000 for 10 dollars every month, begun on 31 January, and besides
whenever less than 100 are left:

    when              available   what is needed
    31 January        0           the first refill, at once
    12 February       99          one by threshold: 99 is strictly below 100
    13 February       40          none: the one of the 12th is still open, the card is being asked
    1 March           700         the monthly one, for its own date, however late the sweep runs
    1 March           700         none: its date was taken by whoever came first

A refill that the card refuses for good is parked: nothing more is asked until somebody acts (a new card, a change, a
resume). Dates are counted from the first refill (``period.monthly``). Sources: contract 3.1, 3.2, bar I-39 and I-48.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, tzinfo
from typing import Any, Final, Literal, NamedTuple

from .event import AccountState
from .ledger import (
    DEPOSIT_BOOK,
    EXPIRY_BOOK,
    PRORATION_BOOK,
    REFILL_BOOK,
    Balance,
    Transaction,
    move,
    open_balance,
)
from .outcomes import Refusal
from .payment import RETRIES, Payment, paid_in
from .period import monthly

Source = Literal["card", "balance"]
Need = Literal["refill", "threshold_refill"]


class Refill(NamedTuple):
    """The refill of one balance: ``amount`` units for ``charge_amount`` of ``charge_denomination``.

    ``source`` says whether a card pays or another balance of the account. ``number`` counts monthly refills from the
    anchor and names the next one, due at ``next_at``. ``scheduled`` are settings that begin with that one. ``due_at``:
    a debit left less than ``threshold``. ``payment_id`` is the open refill.
    """

    account_id: int
    denomination: str
    environment_id: int
    amount: int
    charge_amount: int
    charge_denomination: str
    source: Source
    threshold: int | None
    is_monthly: bool
    created_at: datetime
    anchor_at: datetime | None = None
    number: int = 0
    last_at: datetime | None = None
    next_at: datetime | None = None
    scheduled: Mapping[str, Any] | None = None
    due_at: datetime | None = None
    payment_id: int | None = None
    declines: int = 0
    retry_at: datetime | None = None
    parked_at: datetime | None = None
    parked_code: str | None = None
    by_plan: bool = False


def new_refill(account_id: int, denomination: str, environment_id: int, created_at: datetime) -> Refill:
    """The refill of a balance before anything was set: nothing, for no money, on the card in dollars."""
    return Refill(
        account_id,
        denomination,
        environment_id,
        amount=0,
        charge_amount=0,
        charge_denomination="USD",
        source="card",
        threshold=None,
        is_monthly=False,
        created_at=created_at,
    )


SETTINGS: Final = ("amount", "charge_amount", "charge_denomination", "source", "threshold", "is_monthly")
"""The fields that a company sets."""

_AT_ONCE: Final = frozenset({"threshold"})
"""Settings that never wait for the next monthly refill."""


def need_of(refill: Refill, *, available: int, now: datetime) -> Need | None:
    """Which refill is to be begun at ``now``, if any; a date goes before a threshold."""
    if refill.payment_id is not None or refill.parked_at is not None:
        return None
    if refill.retry_at is not None and refill.retry_at > now:
        return None
    if refill.next_at is not None and refill.next_at <= now:
        return "refill"
    if refill.due_at is not None and refill.threshold is not None and available < refill.threshold:
        return "threshold_refill"
    return None


def renewed(refill: Refill, zone: tzinfo) -> tuple[Refill, datetime | None]:
    """Take the date that is due: the refill with what was scheduled for it, moved on to its next date, and that date.

    None where what was scheduled ends the monthly refills: then nothing is filled.
    """
    assert refill.next_at is not None
    assert refill.anchor_at is not None
    taken = refill.next_at
    changed = refill._replace(**{**(refill.scheduled or {}), "scheduled": None})
    if not changed.is_monthly:
        return changed._replace(next_at=None, anchor_at=None, number=0), None
    number = refill.number + 1
    return changed._replace(number=number, next_at=monthly(refill.anchor_at, number, zone)), taken


def begun_monthly(refill: Refill, at: datetime, zone: tzinfo) -> Refill:
    """The refill once its first monthly filling is paid: the dates are counted from there."""
    return refill._replace(
        is_monthly=True, anchor_at=at, number=1, last_at=at, next_at=monthly(at, 1, zone), scheduled=None
    )


def begun(refill: Refill, payment_id: int | None) -> Refill:
    """The need that was found is taken care of; the next debit that leaves too little is a need of its own."""
    return refill._replace(payment_id=payment_id, due_at=None)


def filled(refill: Refill, *, period_at: datetime | None) -> Refill:
    """After a success: nothing is open; ``period_at`` is the date that a monthly one was for.

    A debit that left too little while the refill was open is not forgotten: ``due_at`` stays.
    """
    return refill._replace(payment_id=None, declines=0, retry_at=None, last_at=period_at or refill.last_at)


def parked(refill: Refill, code: str, now: datetime) -> Refill:
    """After a final no: nothing more is asked until somebody acts."""
    return refill._replace(payment_id=None, due_at=None, retry_at=None, parked_at=now, parked_code=code)


def short(refill: Refill, code: str, now: datetime) -> Refill:
    """The balance that was to pay cannot: tried again by schedule, the third time parked."""
    declines = refill.declines + 1
    if declines > len(RETRIES):
        return parked(refill._replace(declines=declines), code, now)
    return refill._replace(declines=declines, retry_at=now + RETRIES[declines - 1])


def resumed(refill: Refill) -> Refill:
    """Take it out of its parking place."""
    return refill._replace(parked_at=None, parked_code=None, declines=0, retry_at=None)


def funded(
    state: AccountState, payment: Payment, *, limit: int, id: int, now: datetime
) -> tuple[tuple[Balance, Transaction], ...]:
    """Pay for units from another balance of the account (contract 2.2, ``charge_against_denomination``).

    ``limit`` is how far that balance may go below zero; a price of 0 moves nothing there. Raises Refusal
    ``insufficient_balance`` or ``credit_limit_reached`` like the gate does, exactly.
    """
    filled_up = paid_in(state, payment, id=id + 1, now=now)
    if not payment.amount:
        return (filled_up,)
    source = state.balances.get(payment.currency) or open_balance(payment.currency)
    room = source.available + limit
    required = payment.amount + (source.residue.numerator > 0)
    if required > room:
        raise Refusal(
            "credit_limit_reached" if limit > 0 else "insufficient_balance",
            denomination=source.denomination,
            available=source.available,
            pending=source.pending,
            required=required,
            shortfall=required - room,
        )
    paid = move(
        source,
        -payment.amount,
        id=id,
        book=DEPOSIT_BOOK if payment.reason == "deposit" else REFILL_BOOK,
        type="DEPOSIT" if payment.reason == "deposit" else "REFILL",
        description=f"{payment.description}: {payment.units} {payment.denomination}",
        now=now,
        cause_id=payment.id,
    )
    return paid, filled_up


def given_back(
    state: AccountState, payment: Payment, cancels: int, remainder: int, *, id: int, now: datetime
) -> tuple[tuple[Balance, Transaction], ...]:
    """What is left of the last refill ends, and what its worth is above the new price stands on the money's balance."""
    moves: list[tuple[Balance, Transaction]] = []
    for name, amount, book, kind, said in (
        (payment.denomination, -cancels, EXPIRY_BOOK, "CANCEL_REMAINING", "What was left of the last refill"),
        (payment.currency, remainder, PRORATION_BOOK, "PLAN_CHANGE", "Worth of the last refill above the new price"),
    ):
        if amount:
            balance = state.balances.get(name) or open_balance(name)
            made = move(
                balance,
                amount,
                id=id + len(moves),
                book=book,
                type=kind,
                description=said,
                now=now,
                cause_id=payment.id,
            )
            moves.append(made)
    return tuple(moves)


class Changed(NamedTuple):
    """What a change of settings comes to.

    ``refill`` is kept (None: it ends); ``starts_monthly``: a first monthly filling is to be paid for before.
    """

    refill: Refill | None
    starts_monthly: bool


def change(refill: Refill, changes: Mapping[str, Any], *, is_new: bool) -> Changed:
    """New settings, now or with the next monthly refill.

    Where monthly refills run, what they cost and give changes with the next one only (contract 2.2); a threshold
    changes at once. Raises Refusal ``missing_field`` where nothing says when to refill.
    """
    after = refill._replace(**changes)
    if refill.is_monthly and not is_new:
        at_once = {name: value for name, value in changes.items() if name in _AT_ONCE}
        later = {
            name: value
            for name, value in changes.items()
            if name not in _AT_ONCE and (value != getattr(refill, name) or name in (refill.scheduled or {}))
        }
        scheduled = {**(refill.scheduled or {}), **later}
        kept = resumed(refill)._replace(**at_once)
        return Changed(kept._replace(scheduled=scheduled or None), starts_monthly=False)
    if not after.is_monthly and after.threshold is None:
        if is_new:
            raise Refusal(
                "missing_field",
                "threshold: say when to refill, by a threshold, refill_monthly, or both.",
                path="threshold",
            )
        return Changed(None, starts_monthly=False)
    return Changed(resumed(after)._replace(is_monthly=refill.is_monthly), starts_monthly=after.is_monthly)
