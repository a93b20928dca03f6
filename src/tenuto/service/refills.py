"""Refills: their settings, and the sweep that begins those that are due.

A refill by card only writes a payment down here; whoever drives payments does the rest. A refill from another balance
of the account is done in one unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from tenuto.core.event import AccountState, credit_limit_of
from tenuto.core.ledger import open_balance
from tenuto.core.money import is_fiat
from tenuto.core.outcomes import Refusal, invalid
from tenuto.core.payment import Payment, PaymentReason, RefillCaps, over_cap, paid_in, voided
from tenuto.core.proration import refill_credit
from tenuto.core.refill import (
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
from tenuto.engine import Engine
from tenuto.store import due, invoices, ledger, payments, refills
from tenuto.store.accounts import Environment, read_account
from tenuto.store.database import Reader, Record, Unit, translated

AT_ONCE: Final = 4
"""Refills that are begun at the same time: as many as there are connections."""


def refill_caps(environment: Environment) -> RefillCaps:
    """How often the company lets one balance be refilled by itself."""
    return RefillCaps(**environment.money.get("refills", {}))


class RefillSet(NamedTuple):
    """What setting a refill came to: the refill now (None: ended), or the one that a first payment is to start."""

    refill: Refill | None
    starts: Refill | None


async def set_refill(
    engine: Engine,
    unit: Unit,
    environment: Environment,
    account_id: int,
    denomination: str,
    changes: Mapping[str, Any],
) -> RefillSet:
    """Set, change or end the refill of a balance; the balance is opened where it is not there yet (contract 2.2).

    Where this begins monthly refills, nothing is written: the first filling has to be paid first, and is in ``starts``.
    From another balance it is paid here and now. Raises Refusal ``missing_field``, ``insufficient_balance``.
    """
    now = engine.now_of(environment)
    state = await ledger.take_account(unit, environment.id, account_id, now)
    known = await refills.read_refill(unit, account_id, denomination)
    if known is None:
        refuse_incomplete(changes)
    refill = known or new_refill(account_id, denomination, environment.id, now)
    changed = change(refill, changes, is_new=known is None)
    tick = max(engine.tick(), state.tick + 1)
    if denomination not in state.balances:
        opened = open_balance(denomination)
        await ledger.save_moves(unit, state, tick, [(opened, None)], now)
        state = state._replace(balances={**state.balances, denomination: opened}, tick=tick)
        tick += 1
    if changed.starts_monthly:
        assert changed.refill is not None
        starts = changed.refill._replace(is_monthly=True)
        if starts.source == "card" and starts.charge_amount:
            return RefillSet(known, starts)
        return RefillSet(await _start_from_balance(unit, environment, state, starts, tick, now), None)
    if changed.refill is None:
        await refills.delete_refill(unit, account_id, denomination)
    else:
        kept = _due_if_low(changed.refill, state, now)
        await refills.put_refill(unit, kept, now)
        if kept.due_at is not None:
            engine.nudge("refill_due")
        changed = changed._replace(refill=kept)
    await ledger.raise_tick(unit, account_id, tick)
    return RefillSet(changed.refill, None)


def refuse_incomplete(changes: Mapping[str, Any]) -> None:
    """Raises Refusal ``missing_field`` where a new refill does not say what it gives and costs."""
    for name, path in (("amount", "amount"), ("charge_amount", "usd_charge")):
        if name not in changes:
            raise Refusal("missing_field", f"{path}: a new refill says how much it gives and costs.", path=path)


def _due_if_low(refill: Refill, state: AccountState, now: datetime) -> Refill:
    """A threshold that is set above what is there is crossed already."""
    if refill.threshold is None:
        return refill._replace(due_at=None)
    is_low = state.balances[refill.denomination].available < refill.threshold
    return refill._replace(due_at=refill.due_at or now if is_low else None)


class Modified(NamedTuple):
    """More of a monthly refill from now on: what is left of the last one is worth ``credit`` and ends.

    ``charge`` is the rest of the new price, ``remainder`` what the credit is above it.
    """

    refill: Refill
    cancels: int
    credit: int
    charge: int
    remainder: int


async def modified(
    reader: Reader, environment: Environment, account_id: int, denomination: str, amount: int, price: int
) -> Modified:
    """What more of a monthly refill, for another price, comes to now (contract 3.3).

    Raises Refusal ``no_refill``, or ``invalid_field`` for anything but an increase.
    """
    refill = await refills.read_refill(reader, account_id, denomination)
    if refill is None or not refill.is_monthly or refill.environment_id != environment.id:
        raise Refusal("no_refill")
    if amount <= refill.amount:
        raise invalid(
            "amount",
            f"is above the {refill.amount} of now; less is scheduled for the next month with PUT …/auto_refill.",
        )
    last = await refills.last_filling(reader, account_id, denomination)
    left = 0 if last is None else last.left
    credit = 0 if last is None else refill_credit(refill.charge_amount, last.units, left)
    after = refill._replace(amount=amount, charge_amount=price, scheduled=None)
    return Modified(after, left, credit, max(0, price - credit), max(0, credit - price))


async def modify_at_once(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, change: Modified
) -> Refill:
    """Do it without a card: another balance pays, or there is nothing to pay. What the credit is above goes back."""
    now = engine.now_of(environment)
    state = await ledger.take_account(unit, environment.id, account_id, now)
    refill, tick = resumed(change.refill), max(engine.tick(), state.tick + 1)
    payment = _payment(refill, "refill", tick, None, now)._replace(
        amount=change.charge,
        method="balance",
        status="succeeded",
        slot=None,
        settings={"cancelled": change.cancels},
        next_attempt_at=None,
        finished_at=now,
    )
    last = await _fund(unit, environment, state, payment, tick + 1, now)
    if change.cancels or change.remainder:
        state = (await ledger.load_states(unit, {account_id: now})).states[account_id]
        moves = given_back(state, payment, change.cancels, change.remainder, id=last + 1, now=now)
        await ledger.save_moves(unit, state, moves[-1][1].id, moves, now)
    begun = begun_monthly(refill, now, environment.terms.zone)
    await refills.put_refill(unit, begun, now)
    return begun


async def end_refill(engine: Engine, unit: Unit, environment: Environment, account_id: int, denomination: str) -> None:
    """End the refills of a balance at once; one that waits after a decline is given up."""
    now = engine.now_of(environment)
    state = await ledger.take_account(unit, environment.id, account_id, now)
    if denomination not in state.balances:
        raise Refusal("not_found")
    waiting = await payments.open_payment(unit, account_id, denomination)
    if waiting is not None and waiting.reason != "deposit" and (waiting.status == "skipped" or waiting.declines):
        await payments.update_payment(unit, voided(waiting, now=now), now)
    await refills.delete_refill(unit, account_id, denomination)
    await ledger.raise_tick(unit, account_id, max(engine.tick(), state.tick + 1))


async def resume_refill(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, denomination: str
) -> Refill:
    """Take a parked refill up again. Raises Refusal ``no_refill``."""
    now = engine.now_of(environment)
    state = await ledger.take_account(unit, environment.id, account_id, now)
    known = await refills.read_refill(unit, account_id, denomination)
    if known is None:
        raise Refusal("no_refill")
    kept = _due_if_low(resumed(known), state, now)
    await refills.put_refill(unit, kept, now)
    await ledger.raise_tick(unit, account_id, max(engine.tick(), state.tick + 1))
    engine.nudge("refill_due")
    return kept


async def _start_from_balance(
    unit: Unit, environment: Environment, state: AccountState, starts: Refill, tick: int, now: datetime
) -> Refill:
    payment = _payment(starts, "refill", tick, now, now)._replace(
        method="balance", status="succeeded", slot=None, next_attempt_at=None, finished_at=now
    )
    await _fund(unit, environment, state, payment, tick + 1, now)
    begun = begun_monthly(starts, now, environment.terms.zone)
    await refills.put_refill(unit, begun, now)
    return begun


async def _fund(
    unit: Unit, environment: Environment, state: AccountState, payment: Payment, tick: int, now: datetime
) -> int:
    """Pay from another balance, or for nothing, in this unit; the last id given. Raises Refusal where it cannot."""
    source = state.balances.get(payment.currency) or open_balance(payment.currency)
    limit = credit_limit_of(source, state.credit_limit, environment.terms.default_credit_limit)
    moves = funded(state, payment, limit=limit, id=tick, now=now)
    await payments.insert_payment(unit, payment)
    await ledger.save_moves(unit, state, moves[-1][1].id, moves, now)
    if is_fiat(payment.denomination):
        await invoices.settle_incoming(unit, payment, now=now, tick=moves[-1][1].id)
    return moves[-1][1].id


def _payment(refill: Refill, reason: PaymentReason, id: int, period_at: datetime | None, now: datetime) -> Payment:
    return Payment(
        account_id=refill.account_id,
        id=id,
        environment_id=refill.environment_id,
        method="card",
        reason=reason,
        status="intended",
        amount=refill.charge_amount,
        currency=refill.charge_denomination,
        denomination=refill.denomination,
        units=refill.amount,
        description="Monthly refill" if reason == "refill" else "Refill below threshold",
        created_at=now,
        due_at=period_at or now,
        slot=refill.denomination,
        period_at=period_at if reason == "refill" else None,
        next_attempt_at=now,
    )


async def deposit_from_balance(
    engine: Engine,
    unit: Unit,
    environment: Environment,
    account_id: int,
    *,
    denomination: str,
    units: int,
    amount: int,
    source: str,
) -> Payment:
    """Buy units of one balance with another of the same account, at once. Raises Refusal ``insufficient_balance``."""
    now = engine.now_of(environment)
    state = await ledger.take_account(unit, environment.id, account_id, now)
    tick = max(engine.tick(), state.tick + 1)
    asked = new_refill(account_id, denomination, environment.id, now)._replace(
        amount=units, charge_amount=amount, charge_denomination=source
    )
    payment = _payment(asked, "deposit", tick, None, now)._replace(
        method="balance",
        status="succeeded",
        description="Deposit",
        slot=None,
        next_attempt_at=None,
        finished_at=now,
    )
    await _fund(unit, environment, state, payment, tick + 1, now)
    return payment


async def refill_due(engine: Engine, *, now: datetime, limit: int, environment_id: int | None = None) -> int:
    """Sweep: begin every refill that is due, each for its own date; how many were begun, or tidied away."""

    async def step(environment: Environment, row: Record) -> bool:
        async with translated(), engine.database.writing() as unit:
            return await begin_refill(engine, unit, environment, row["account_id"], row["denomination"])

    begun = 0
    for kind in (due.REFILLS_BY_DATE, due.REFILLS_BY_THRESHOLD):
        begun += await engine.each_due(
            kind,
            "t.account_id, t.denomination",
            step,
            now=now,
            limit=limit,
            environment_id=environment_id,
            at_once=AT_ONCE,
        )
    if begun:
        engine.nudge("collect_due")
    return begun


async def begin_refill(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, denomination: str
) -> bool:
    """Begin the refill that a balance needs now; False where it needs none, or something else has to end first."""
    now = engine.now_of(environment)
    state = await ledger.take_account(unit, environment.id, account_id, now)
    refill = await refills.read_refill(unit, account_id, denomination)
    if refill is None or refill.payment_id is not None or refill.parked_at is not None:
        return False
    tick = max(engine.tick(), state.tick + 1)
    reason = need_of(refill, available=state.balances[denomination].available, now=now)
    if reason is None:
        if refill.due_at is None or (refill.retry_at is not None and refill.retry_at > now):
            return False
        # It was filled by other means since the debit that left it low.
        await _keep(unit, begun(refill, None), tick, now)
        return True
    if await payments.open_payment(unit, account_id, denomination) is not None:
        return False
    after, period_at = renewed(refill, environment.terms.zone) if reason == "refill" else (refill, None)
    if reason == "refill" and period_at is None:
        await _end_monthly(unit, after, tick, now)
        return True
    await _begin(engine, unit, environment, state, refill, after, reason, period_at)
    return True


async def _end_monthly(unit: Unit, after: Refill, tick: int, now: datetime) -> None:
    """What was scheduled for this date ends the monthly refills."""
    if after.threshold is not None:
        await _keep(unit, after, tick, now)
        return
    await refills.delete_refill(unit, after.account_id, after.denomination)
    await ledger.raise_tick(unit, after.account_id, tick)


async def _begin(
    engine: Engine,
    unit: Unit,
    environment: Environment,
    state: AccountState,
    before: Refill,
    after: Refill,
    reason: PaymentReason,
    period_at: datetime | None,
) -> None:
    """Pay for a refill from a balance here, or write its payment down; ``after`` has its date taken already."""
    now = engine.now_of(environment)
    account_id, denomination = after.account_id, after.denomination
    tick = max(engine.tick(), state.tick + 1)
    done = await payments.refills_done(unit, account_id, denomination, now)
    # Dates bound themselves; it is a threshold that a broken program could run down again and again.
    if reason == "threshold_refill" and over_cap(refill_caps(environment), done, after.charge_amount):
        await _keep(unit, parked(before, "refill_cap_reached", now), tick, now)
        return
    payment = _payment(after, reason, tick, period_at, now)
    if after.source == "balance" or not after.charge_amount:
        paid = payment._replace(method="balance", status="succeeded", slot=None, next_attempt_at=None, finished_at=now)
        try:
            await _fund(unit, environment, state, paid, tick + 1, now)
        except Refusal as refusal:
            await _keep(unit, short(before, refusal.code, now), tick, now)
            return
        await _keep(unit, filled(begun(after, None), period_at=period_at), tick + 2, now)
        return
    account = await read_account(unit, environment.id, account_id)
    assert account is not None
    if account.capture_suspended or environment.capture_suspended:
        payment = payment._replace(status="skipped", next_attempt_at=None)
    try:
        paid_in(state, payment, id=tick, now=now)
    except Refusal as refusal:
        await _keep(unit, parked(before, refusal.code, now), tick, now)
        return
    await payments.insert_payment(unit, payment)
    await _keep(unit, begun(after, payment.id), tick, now)
    engine.reach("refill.begun")


async def _keep(unit: Unit, refill: Refill, tick: int, now: datetime) -> None:
    await refills.put_refill(unit, refill, now)
    await ledger.raise_tick(unit, refill.account_id, tick)
