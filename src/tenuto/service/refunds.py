"""Money that goes back: refunds that we ask for, and disputes that a bank opened.

A refund is written down with what it takes off the balance, then asked for, then applied, once; whatever is unclear is
looked up at the provider by our own id before it is asked for again. A dispute is taken as a reversal when the provider
says that the bank took the money, and given back when it is won.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, NamedTuple

import structlog

from tenuto.core.event import AccountState
from tenuto.core.identifiers import spell_of_account
from tenuto.core.ledger import (
    DISPUTE_BOOK,
    DISPUTE_WON_BOOK,
    REFUND_BOOK,
    REFUND_CREDIT_BOOK,
    REFUND_FAILED_BOOK,
    Balance,
    Transaction,
    move,
    open_balance,
)
from tenuto.core.outcomes import Refusal
from tenuto.core.payment import FOR_PLANS, LEASE, Payment, credited_again, returnable, returned
from tenuto.engine import Engine, Once
from tenuto.gateway.port import GatewayEvent, GatewayRefund, GatewayRefused, GatewayUnclear
from tenuto.store import due, invoices, ledger, payments, subscriptions
from tenuto.store.accounts import Environment
from tenuto.store.database import Record, Unit, translated
from tenuto.store.payments import Refund

AT_ONCE: Final = 8
AGAIN: Final = timedelta(seconds=30)
DISPUTED: Final = frozenset({"needs_response", "under_review", "lost", "won"})
"""The statuses of a dispute for which the bank has taken the money (of one that is won: had taken it)."""
PENDING: Final = timedelta(hours=1)
"""When a refund that the provider is still working on is looked at again."""
KEY_TROUBLE: Final = timedelta(hours=1)

_log = structlog.get_logger()


async def begin_refund(
    engine: Engine,
    unit: Unit,
    environment: Environment,
    account_id: int,
    payment_id: int,
    *,
    amount: int | None,
    reason: str,
    once: Once | None,
) -> Refund:
    """Write a refund down: ``amount`` of a payment (None: all that is left), never more in sum than was paid.

    Money that did not come by card goes back outside too: that refund is done at once.
    """
    now = engine.now_of(environment)
    state = await ledger.take_account(unit, environment.id, account_id, now)
    held = await payments.read_payment(unit, account_id, payment_id)
    if held is None:
        raise Refusal("not_found")
    under_way = [r for r in await payments.list_refunds(unit, account_id, payment_id) if r.status == "intended"]
    credited = 0
    if held.payment.reason == "invoice":
        credited = await invoices.credited_of(unit, account_id, payment_id)
    elif held.payment.reason in FOR_PLANS:
        credited = min(held.payment.amount, await subscriptions.credited_of(unit, account_id, payment_id))
    back = returnable(
        held.payment,
        amount,
        promised=sum(refund.amount for refund in under_way),
        promised_units=sum(refund.units for refund in under_way),
        credited=credited,
    )
    tick = max(engine.tick(), state.tick + 1)
    refund = Refund(
        account_id=account_id,
        id=tick,
        environment_id=environment.id,
        payment_id=payment_id,
        kind="refund",
        status="intended",
        amount=back.amount,
        units=back.units,
        reason=reason,
        gateway_id=None,
        request_key=None if once is None else once.key,
        fingerprint=None if once is None else once.fingerprint,
        code=None,
        fence=0,
        next_attempt_at=now,
        created_at=now,
        finished_at=None,
    )
    # Whoever asked for it drives it: the clockwork would only take it out of their hands.
    await payments.insert_refund(unit, refund, claimed_until=engine.now() + LEASE)
    await ledger.raise_tick(unit, account_id, tick)
    if held.payment.method != "card":
        state = state._replace(tick=tick)
        refund = refund._replace(status="succeeded", next_attempt_at=None, finished_at=now)
        refund = await _apply(engine, unit, state, held.payment, refund, REFUND_BOOK)
        await payments.update_refund(unit, refund)
    return refund


class _Turn(NamedTuple):
    refund: Refund
    payment: Payment


_Outcome = GatewayRefund | GatewayRefused | None


async def drive_refund(
    engine: Engine, environment: Environment, account_id: int, refund_id: int, *, fence: int | None = None
) -> Refund:
    """Take a refund as far as it goes now; ``fence`` is that of one which the caller claimed when it wrote it down."""
    async with translated(), engine.database.writing() as unit:
        turn = await _begin(engine, unit, environment, account_id, refund_id, fence)
    if isinstance(turn, Refund):
        return turn
    engine.reach("refund.before_ask")
    outcome = await _ask(engine, environment, turn)
    engine.reach("refund.after_ask")
    async with translated(), engine.database.writing() as unit:
        return await _record(engine, unit, environment, turn, outcome)


async def _begin(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, refund_id: int, fence: int | None
) -> _Turn | Refund:
    await ledger.lock_accounts(unit, [account_id])
    found = await payments.read_refund(unit, account_id, refund_id)
    if found is None or found[0].environment_id != environment.id:
        raise Refusal("not_found")
    refund, claimed_until = found
    now, real_now = engine.now_of(environment), engine.now()
    is_taken = claimed_until is not None and claimed_until > real_now and refund.fence != fence
    if refund.status != "intended" or is_taken or refund.next_attempt_at is None or refund.next_attempt_at > now:
        return refund
    held = await payments.read_payment(unit, account_id, refund.payment_id)
    assert held is not None
    refund = refund._replace(fence=refund.fence + 1)
    await payments.update_refund(unit, refund, claimed_until=real_now + LEASE)
    return _Turn(refund, held.payment)


async def _ask(engine: Engine, environment: Environment, turn: _Turn) -> _Outcome:
    """One refund at the provider: found by our id if it may be there already, else asked for. None: nobody knows."""
    refund, payment = turn
    public = spell_of_account("re", refund.account_id, refund.id)
    assert payment.intent_id is not None
    try:
        gateway = await engine.gateway_for(environment)
        if refund.fence > 1:
            found = await gateway.find_refund(intent_id=payment.intent_id, refund=public)
            if found is not None:
                return found
        return await gateway.refund(
            key=public, intent_id=payment.intent_id, amount=refund.amount, currency=payment.currency, refund=public
        )
    except GatewayUnclear as error:
        _log.warning("refund", refund=public, outcome="unclear", reason=str(error))
        return None
    except GatewayRefused as refused:
        _log.warning("refund", refund=public, outcome="refused", reason=str(refused))
        return refused
    except Refusal as refusal:
        return GatewayRefused(refusal.code, refusal.message, is_key=True)


async def _record(engine: Engine, unit: Unit, environment: Environment, turn: _Turn, outcome: _Outcome) -> Refund:
    account_id, now = turn.refund.account_id, engine.now_of(environment)
    state = await ledger.take_account(unit, environment.id, account_id, now)
    found = await payments.read_refund(unit, account_id, turn.refund.id)
    assert found is not None
    refund = found[0]
    if refund.fence != turn.refund.fence or refund.status != "intended":
        return refund
    match outcome:
        case GatewayRefund(status="succeeded"):
            refund = refund._replace(
                status="succeeded", gateway_id=outcome.gateway_id, next_attempt_at=None, finished_at=now
            )
            held = await payments.read_payment(unit, account_id, refund.payment_id)
            assert held is not None
            refund = await _apply(engine, unit, state, held.payment, refund, REFUND_BOOK)
        case GatewayRefund(status="failed" | "canceled"):
            code = outcome.failure or outcome.status
            refund = refund._replace(
                status="failed", code=code, gateway_id=outcome.gateway_id, next_attempt_at=None, finished_at=now
            )
        case GatewayRefund():
            refund = refund._replace(gateway_id=outcome.gateway_id, next_attempt_at=now + PENDING)
        case GatewayRefused(is_key=True):
            refund = refund._replace(code=outcome.code, next_attempt_at=now + KEY_TROUBLE)
        case GatewayRefused():
            refund = refund._replace(status="failed", code=outcome.code, next_attempt_at=None, finished_at=now)
        case None:
            refund = refund._replace(next_attempt_at=now + AGAIN)
    await payments.update_refund(unit, refund)
    return refund


async def _apply(
    engine: Engine, unit: Unit, state: AccountState, payment: Payment, refund: Refund, book: str
) -> Refund:
    """Take the refund's units off the balance, and note on the payment what went back; the refund with what it credits.

    What paid an invoice was owed for usage: giving it back must not make the customer owe it again, so as much is
    credited (decision 0021).
    """
    now = refund.finished_at or refund.created_at
    tick = max(engine.tick(), state.tick + 1)
    moves: list[tuple[Balance, Transaction]] = []
    balance = state.balances.get(payment.denomination) or open_balance(payment.denomination)

    def moved(amount: int, into: str, kind: str) -> None:
        before = moves[-1][0] if moves else balance
        made = move(
            before,
            amount,
            id=tick + len(moves),
            book=into,
            type=kind,
            description=refund.reason,
            now=now,
            cause_id=refund.id,
        )
        moves.append(made)

    credited = 0
    if payment.reason in {"invoice", "plan_end", *FOR_PLANS} and book == REFUND_BOOK:
        # What paid for a plan was owed like what paid an invoice: it must not be owed again because it was given back.
        settled = payment.units
        if payment.reason == "invoice":
            settled = await invoices.settled_of(unit, payment.account_id, payment.id)
        elif payment.reason in FOR_PLANS and not await subscriptions.is_step_paid_by(
            unit, payment.account_id, payment.id
        ):
            settled = 0
        others = await payments.list_refunds(unit, payment.account_id, payment.id)
        standing = sum(one.credited for one in others if one.status == "succeeded")
        credited = credited_again(payment, refund.units, settled=settled, credited=standing)
    if refund.units:
        moved(-refund.units, book, "REFUND")
    if credited:
        moved(credited, REFUND_CREDIT_BOOK, "ADJUSTMENT")
    if moves:
        await ledger.save_moves(unit, state, moves[-1][1].id, moves, now)
    await payments.update_payment(unit, returned(payment, refund.amount, refund.units), now)
    return refund._replace(credited=credited)


async def refund_due(engine: Engine, *, now: datetime, limit: int, environment_id: int | None = None) -> int:
    """Sweep: drive every refund that has a step to take; how many took one."""

    async def step(environment: Environment, row: Record) -> bool:
        return (await drive_refund(engine, environment, row["account_id"], row["id"])).fence > int(row["fence"])

    return await engine.each_due(
        due.REFUNDS,
        "t.account_id, t.id, t.fence",
        step,
        now=now,
        limit=limit,
        environment_id=environment_id,
        at_once=AT_ONCE,
    )


async def take_refund_event(engine: Engine, environment: Environment, event: GatewayEvent) -> None:
    """What the provider says of a refund or a dispute; a known message and what is not ours change nothing."""
    async with translated(), engine.database.writing() as unit:
        payment = None
        if event.intent_id is not None and event.is_live == environment.live:
            payment = await payments.find_by_intent(unit, environment.id, event.intent_id)
        now = engine.now_of(environment)
        state = None
        if payment is not None:
            state = await ledger.take_account(unit, environment.id, payment.account_id, now)
        outcome = "taken" if payment is not None else "not_ours"
        if payment is not None and event.currency != payment.currency:
            outcome = "mismatch"
        is_finished = payment is None or payment.status in {"succeeded", "voided"}
        if outcome == "taken" and event.object_type == "dispute" and not is_finished:
            # A charge that we do not know of yet is disputed: not taken, so that the provider says it again.
            raise Refusal("request_in_progress", "The payment that is disputed is not finished here; say it again.")
        if not await payments.take_event(unit, environment.id, event.id, event.type, outcome, now):
            return
        if payment is None or state is None or outcome != "taken":
            return
        held = await payments.read_payment(unit, payment.account_id, payment.id)
        assert held is not None
        if event.object_type == "dispute":
            await _dispute(engine, unit, state, held.payment, event, now)
        else:
            refund = await payments.find_refund(unit, payment.account_id, gateway_id=event.object_id, kind="refund")
            if refund is not None and refund.status == "intended":
                await payments.update_refund(unit, refund._replace(next_attempt_at=now))
            elif refund is not None and refund.status == "succeeded" and event.status in {"failed", "canceled"}:
                undone = refund._replace(status="failed", code=f"refund_{event.status}")
                await _give_back(engine, unit, state, held.payment, undone, REFUND_FAILED_BOOK, now)


async def _dispute(
    engine: Engine, unit: Unit, state: AccountState, payment: Payment, event: GatewayEvent, now: datetime
) -> None:
    """A dispute that was opened takes money and units back; one that was won gives both again.

    An inquiry (``warning_…``) takes no money yet, and what is not known here is left alone.
    """
    if event.status not in DISPUTED or not event.object_id:
        return
    known = await payments.find_refund(unit, payment.account_id, gateway_id=event.object_id, kind="dispute")
    if known is None:
        under_way = [
            one for one in await payments.list_refunds(unit, payment.account_id, payment.id) if one.status == "intended"
        ]
        promised = sum(one.amount for one in under_way)
        amount = min(event.amount or 0, payment.amount - payment.refunded - promised)
        if payment.status != "succeeded" or amount <= 0:
            _log.error("dispute", payment=payment.id, account=payment.account_id, outcome="nothing left to reverse")
            return
        back = returnable(payment, amount, promised=promised, promised_units=sum(one.units for one in under_way))
        tick = max(engine.tick(), state.tick + 1)
        opened = Refund(
            account_id=payment.account_id,
            id=tick,
            environment_id=payment.environment_id,
            payment_id=payment.id,
            kind="dispute",
            status="succeeded",
            amount=back.amount,
            units=back.units,
            reason=f"Dispute: {event.reason or 'general'}",
            gateway_id=event.object_id,
            request_key=None,
            fingerprint=None,
            code=None,
            fence=0,
            next_attempt_at=None,
            created_at=now,
            finished_at=now,
        )
        await payments.insert_refund(unit, opened)
        await ledger.raise_tick(unit, payment.account_id, tick)
        await _apply(engine, unit, state._replace(tick=tick), payment, opened, DISPUTE_BOOK)
        known, payment = opened, returned(payment, back.amount, back.units)
        if event.status != "won":
            return
        state = await ledger.take_account(unit, state.environment_id, state.account_id, now)
    if event.status == "won" and known.status == "succeeded":
        won = known._replace(status="failed", code="dispute_won")
        await _give_back(engine, unit, state, payment, won, DISPUTE_WON_BOOK, now)


async def _give_back(
    engine: Engine, unit: Unit, state: AccountState, payment: Payment, refund: Refund, book: str, now: datetime
) -> None:
    """Undo a reversal that did not stand after all: a dispute that was won, a refund that never reached the customer.

    Where a refund had credited what it took, there is nothing to give back but the word that the payment stands.
    """
    if refund.units > refund.credited:
        tick = max(engine.tick(), state.tick + 1)
        given = move(
            state.balances.get(payment.denomination) or open_balance(payment.denomination),
            refund.units - refund.credited,
            id=tick,
            book=book,
            type="REFUND",
            description=f"{refund.reason}: {refund.code}",
            now=now,
            cause_id=refund.id,
        )
        await ledger.save_moves(unit, state, tick, [given], now)
    await payments.update_refund(unit, refund)
    await payments.update_payment(unit, returned(payment, -refund.amount, -refund.units), now)
