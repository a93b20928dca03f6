"""Payments: begun by whoever needs money, driven here through the provider, applied once.

Every step is a short unit, a call with nothing open, and a short unit again; the next step is always what
``core.payment.next_step`` says of the row, so whoever finds a payment, after whatever crash, goes on where it stands
(design 7, bar 2.5). Between them stand the named fault points at which tests stop the world.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import structlog

from tenuto import metrics
from tenuto.core.cards import maximum, minimum, to_stripe
from tenuto.core.identifiers import spell, spell_of_account
from tenuto.core.money import is_fiat
from tenuto.core.outcomes import Refusal, invalid
from tenuto.core.payment import (
    AWAITED,
    FOR_PLANS,
    LEASE,
    Action,
    Answered,
    Payment,
    answered,
    began,
    credited,
    dropped,
    failed,
    in_doubt,
    makes_room,
    next_step,
    paid_in,
    retried,
    told_of_success,
    voided,
)
from tenuto.core.refill import SETTINGS, Refill, begun_monthly, filled, parked
from tenuto.core.subscription import failed_renewal, still_holds
from tenuto.engine import Engine, Once
from tenuto.gateway.port import GatewayEvent, GatewayRefused, GatewayUnclear, Intent
from tenuto.store import accounts, due, invoices, ledger, pauses, payments, refills, requests, subscriptions
from tenuto.store.accounts import Environment
from tenuto.store.database import Record, Unit, translated

EACH: Final = 25
"""Payments of one company in one pass: what its provider takes in about two seconds. Others wait no longer."""
AT_ONCE: Final = 32
"""Payments of one pass that are with the provider at the same time."""
EVENT_LIFE: Final = timedelta(days=35)
KEY_TROUBLE: Final = timedelta(hours=1)
"""When a payment is looked at again after the provider refused the company's key."""
KEY_STEPS: Final = 8
"""After how many steps a payment changes its idempotency keys."""
_CARD_AHEAD: Final = frozenset({"create", "confirm"})

_log = structlog.get_logger()


class Deposit(NamedTuple):
    """What is asked of a deposit: ``units`` of ``denomination`` for ``amount`` of ``currency`` on the card."""

    denomination: str
    units: int
    amount: int
    currency: str


def refuse_uncharged(amount: int, currency: str, path: str) -> None:
    """Raises Refusal ``amount_not_chargeable`` for what no card can be charged."""
    if not is_fiat(currency):
        raise invalid("currency", "is an ISO 4217 code such as USD.")
    least, most = minimum(currency), maximum(currency)
    if not least <= amount <= most or to_stripe(amount, currency) is None:
        raise Refusal(
            "amount_not_chargeable",
            f"{path}: a card can be charged {least} to {most} of the smallest unit of {currency}, in whole"
            " amounts that cards know.",
            path=path,
            minimum=least,
            maximum=most,
        )


async def begin_deposit(
    engine: Engine,
    unit: Unit,
    environment: Environment,
    account_id: int,
    ask: Deposit,
    once: Once | None,
    *,
    starts: Refill | None = None,
    cancels: int = 0,
) -> Payment:
    """Write a deposit down, to be driven next. It takes the balance's refill slot: one need is paid for once.

    With ``starts`` it is the first filling of a monthly refill, whose settings take effect when it is paid; ``cancels``
    units of the last one end then. A refill that waits after a decline gives its place up. Raises Refusal
    ``payment_method_required``, ``refill_in_progress``.
    """
    state = await ledger.take_account(unit, environment.id, account_id, engine.now_of(environment))
    now = engine.now_of(environment)
    if await payments.chargeable_card(unit, account_id) is None:
        raise Refusal("payment_method_required")
    await _clear_slot(engine, unit, environment, account_id, ask.denomination, now)
    tick = max(engine.tick(), state.tick + 1)
    payment = Payment(
        account_id=account_id,
        id=tick,
        environment_id=environment.id,
        method="card",
        reason="deposit" if starts is None else "refill_start",
        status="intended",
        amount=ask.amount,
        currency=ask.currency,
        denomination=ask.denomination,
        units=ask.units,
        description="Deposit" if starts is None else "Monthly refill",
        created_at=now,
        due_at=now,
        slot=ask.denomination,
        settings=None
        if starts is None
        else {**{name: getattr(starts, name) for name in SETTINGS}, "cancelled": cancels},
        request_key=None if once is None else once.key,
        fingerprint=None if once is None else once.fingerprint,
        next_attempt_at=now,
    )
    paid_in(state, payment, id=tick, now=now)  # a balance without room for it refuses now, not once it is paid for
    # Whoever asked for it drives it: the clockwork would only take it out of their hands.
    await payments.insert_payment(unit, payment, claimed_until=engine.now() + LEASE)
    await ledger.raise_tick(unit, account_id, tick)
    return payment


async def _clear_slot(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, slot: str, now: datetime
) -> None:
    found = await payments.open_payment(unit, account_id, slot, or_skipped=False)
    if found is None:
        return
    if not makes_room(found):
        raise Refusal(
            "refill_in_progress", payment_id=spell_of_account("pay", account_id, found.id), status=found.status
        )
    after = dropped(found, now=now)
    await payments.update_payment(unit, after, now)
    await _close(engine, unit, environment, found, after, now)


# --- driving ----------------------------------------------------------------------------------------------------------


class _Unclear(NamedTuple):
    """A call whose end nobody knows."""


class _Turn(NamedTuple):
    """A payment as committed, and the call that is to be made next with which card (none: nothing to do now)."""

    payment: Payment
    action: Action | None
    card: payments.Chargeable | None
    until: datetime | None


_Outcome = Answered | GatewayRefused | _Unclear


async def drive(
    engine: Engine, environment: Environment, account_id: int, payment_id: int, *, fence: int | None = None
) -> Payment:
    """Take a payment as far as it goes now: to its end, to a date of its schedule, or into doubt that time resolves.

    ``fence``: as it was when the caller wrote the payment down and claimed it (0 for a new one): while that stands,
    nobody else has it in hand.
    """
    last: tuple[_Turn, _Outcome] | None = None
    while True:
        async with translated(), engine.database.writing() as unit:
            turn = await _take_turn(engine, unit, environment, account_id, payment_id, last, fence)
        if turn.action is None:
            engine.reach("payment.closed")
            return turn.payment
        engine.reach(f"payment.before_{turn.action}")
        outcome = await _ask(engine, environment, turn)
        engine.reach(f"payment.after_{turn.action}")
        last = turn, outcome


async def _take_turn(
    engine: Engine,
    unit: Unit,
    environment: Environment,
    account_id: int,
    payment_id: int,
    last: tuple[_Turn, _Outcome] | None,
    fence: int | None,
) -> _Turn:
    """One unit: record what the last call brought, decide the next step, and say so before it is made."""
    await ledger.lock_accounts(unit, [account_id])
    held = await payments.read_payment(unit, account_id, payment_id)
    if held is None or held.payment.environment_id != environment.id:
        raise Refusal("not_found")
    payment, now, real_now = held.payment, engine.now_of(environment), engine.now()
    if last is None:
        is_claimed = held.claimed_until is not None and held.claimed_until > real_now
        if is_claimed and payment.fence != fence:
            return _Turn(payment, None, None, None)
    elif last[0].payment.fence != payment.fence and not _is_sure(payment, last[1]):
        return _Turn(payment, None, None, None)
    else:
        payment = await _record(engine, unit, environment, payment, last, now)
    action = next_step(payment, now=now)
    card = None
    if action in _CARD_AHEAD:
        card = await payments.chargeable_card(unit, account_id)
        stopped = await _stopped(unit, payment, card, now)
        if stopped is not None:
            await _close(engine, unit, environment, payment, stopped, now)
            payment, action = stopped, "none"
    if action in {"none", "wait"}:
        if payment is not held.payment or held.claimed_until is not None:
            await payments.update_payment(unit, payment, now)
        return _Turn(payment, None, None, None)
    payment = began(payment, action, card_id=None if card is None else card.card.id, now=now)
    if action == "confirm":
        await payments.begin_attempt(unit, payment, now)
    until = real_now + LEASE
    await payments.update_payment(unit, payment, now, claimed_until=until)
    return _Turn(payment, action, card, until)


async def _stopped(unit: Unit, payment: Payment, card: payments.Chargeable | None, now: datetime) -> Payment | None:
    """The payment where nothing is to be asked of a card after all, or None."""
    if not await _is_owed(unit, payment):
        # Its invoices were settled otherwise meanwhile; what waits for a card is never confirmed again.
        return dropped(payment, now=now)
    if card is None:
        return failed(payment, "payment_method_required", "The account has no card.", now=now)
    if card.is_suspended and payment.declines:
        # Its next try is an automatic capture like the first one was.
        return payment._replace(status="skipped", next_attempt_at=None)
    return None


async def _is_as_planned(unit: Unit, payment: Payment) -> bool:
    """Whether the plan still is what a payment's step was worked out on."""
    known = await subscriptions.read_subscription(unit, payment.account_id)
    return still_holds(payment.settings, known)


async def _is_owed(unit: Unit, payment: Payment) -> bool:
    """Whether what a capture of invoices, or of an ended plan, is to pay still waits to be paid."""
    if payment.reason == "plan_end":
        return await ledger.read_owed_on(unit, payment.account_id, payment.denomination) >= payment.amount
    if payment.reason != "invoice":
        return True
    return await invoices.payable(unit, payment.account_id, payment.currency) >= payment.amount


def _is_sure(payment: Payment, outcome: _Outcome) -> bool:
    """Whether an answer holds even for one that was overtaken: that this very intent succeeded cannot change again."""
    return (
        isinstance(outcome, Answered)
        and outcome.status == "succeeded"
        and outcome.intent_id == payment.intent_id
        and payment.is_open
    )


async def _ask(engine: Engine, environment: Environment, turn: _Turn) -> _Outcome:
    """The one call of a step. A worker whose lease ran out makes none."""
    payment = turn.payment
    public = spell_of_account("pay", payment.account_id, payment.id)
    try:
        gateway = await engine.gateway_for(environment)
        if turn.until is None or engine.now() >= turn.until:
            return _Unclear()
        match turn.action:
            case "create":
                assert turn.card is not None
                found = await gateway.create_intent(
                    key=_key_of(payment, "create"),
                    amount=payment.amount,
                    currency=payment.currency,
                    customer=turn.card.customer,
                    account=spell("a", payment.account_id),
                    payment=public,
                    description=payment.description,
                )
            case "confirm":
                assert turn.card is not None
                assert payment.intent_id is not None
                card = turn.card.card
                key = _key_of(payment, f"confirm:{payment.attempts}:{card.id}")
                found = await gateway.confirm_intent(payment.intent_id, key=key, card=card.gateway_id)
            case "cancel":
                assert payment.intent_id is not None
                found = await gateway.cancel_intent(payment.intent_id, key=_key_of(payment, "cancel"))
            case _:
                assert payment.intent_id is not None
                found = await gateway.read_intent(payment.intent_id)
    except GatewayUnclear as error:
        _log.warning("payment", payment=public, step=turn.action, outcome="unclear", reason=str(error))
        return _Unclear()
    except GatewayRefused as refused:
        _log.warning("payment", payment=public, step=turn.action, outcome="refused", reason=str(refused))
        return refused
    except Refusal as refusal:
        return GatewayRefused(refusal.code, refusal.message, is_key=refusal.code == "gateway_not_configured")
    return _answer_of(found)


def _key_of(payment: Payment, step: str) -> str:
    """The idempotency key of a call.

    A provider repeats what it answered to a key, an error that says nothing too, for a day. So a payment that gets no
    further changes its keys after some steps; an intent that is made twice moves no money, and one pays only once.
    """
    public, generation = spell_of_account("pay", payment.account_id, payment.id), payment.fence // KEY_STEPS
    return f"{public}:{step}" + (f":again{generation}" if generation else "")


def _answer_of(intent: Intent) -> Answered:
    declined = intent.declined
    return Answered(
        intent.gateway_id,
        intent.status,
        intent.amount,
        intent.currency,
        None if declined is None else declined.code,
        None if declined is None else declined.message,
        intent.charge_id,
    )


async def _record(
    engine: Engine,
    unit: Unit,
    environment: Environment,
    before: Payment,
    last: tuple[_Turn, _Outcome],
    now: datetime,
) -> Payment:
    """What a call brought, on the payment as it is now, with its effects."""
    turn, outcome = last
    match outcome:
        case Answered():
            try:
                after = answered(before, outcome, now=now, is_reading=turn.action == "inspect")
            except Refusal as refusal:
                _log.error("payment", payment=before.id, account=before.account_id, outcome=refusal.code)
                after = failed(before, refusal.code, refusal.message, now=now)
        case GatewayRefused(is_key=True) if before.reason not in AWAITED or before.intent_id:
            after = before._replace(code=outcome.code, message=outcome.message, next_attempt_at=now + KEY_TROUBLE)
        case GatewayRefused() if turn.action in {"inspect", "cancel"}:
            # The intent cannot be looked at, with another company's key for instance: it may have been paid, so nothing
            # is concluded from that.
            _log.error("payment", payment=before.id, account=before.account_id, outcome="in doubt", reason=outcome.code)
            after = before._replace(code=outcome.code, message=outcome.message, next_attempt_at=now + KEY_TROUBLE)
        case GatewayRefused():
            after = failed(before, "gateway_refused", f"{outcome.code}: {outcome.message}", now=now)
        case _:
            after = in_doubt(before, tries=max(0, before.fence - 1 - before.attempts), now=now)
    was_asked = before.status in {"confirming", "processing"} and after.status not in {before.status, "created"}
    if was_asked or after.declines > before.declines:
        ended = "declined" if after.declines > before.declines or after.status == "failed" else after.status
        await payments.end_attempt(unit, before, after, ended, now)
    await _close(engine, unit, environment, before, after, now)
    return after


async def _close(
    engine: Engine, unit: Unit, environment: Environment, before: Payment, after: Payment, now: datetime
) -> None:
    """The effects of a payment's end: success credits its balance, in the unit that says so, and never twice."""
    if after.status == before.status:
        return
    metrics.PAYMENTS.labels(after.reason, after.status).inc()
    if after.status == "succeeded":
        await _credit(engine, unit, environment, after, now)
    elif after.reason in FOR_PLANS:
        await _end_unpaid(engine, unit, environment, before, after, now)
    elif after.status in {"failed", "voided"} and after.reason in {"refill", "threshold_refill"}:
        refill = await refills.read_refill(unit, after.account_id, after.denomination)
        if refill is not None and refill.payment_id == after.id:
            is_final = after.status == "failed"
            ended = parked(refill, after.code or "", now) if is_final else filled(refill, period_at=None)
            await refills.put_refill(unit, ended, now)
            await ledger.raise_tick(unit, after.account_id, engine.tick())


async def _credit(engine: Engine, unit: Unit, environment: Environment, payment: Payment, now: datetime) -> None:
    """Credit a payment, let it pay the oldest invoices first, and end the refill that it was for."""
    account_id = payment.account_id
    state = (await ledger.load_states(unit, {account_id: now})).states[account_id]
    tick = max(engine.tick(), state.tick + 1)
    if payment.units:
        moves = credited(state, payment, id=tick, now=now)
        tick = moves[-1][1].id
        await ledger.save_moves(unit, state, tick, moves, now)
    if payment.reason in FOR_PLANS:
        await _do_step(engine, unit, payment, now)
        return
    await requests.complete_topup(unit, payment, now=now, real_now=engine.now())
    if is_fiat(payment.denomination) and payment.units and payment.reason != "plan_end":
        await invoices.settle_incoming(unit, payment, now=now, tick=engine.tick())
    if payment.reason in {"refill", "threshold_refill"}:
        refill = await refills.read_refill(unit, account_id, payment.denomination)
        if refill is not None and refill.payment_id in {payment.id, None}:
            await refills.put_refill(unit, filled(refill, period_at=payment.period_at), now)
            if refill.due_at is not None:
                engine.nudge("refill_due")
            await ledger.raise_tick(unit, account_id, tick)
    elif payment.reason == "refill_start":
        known = await refills.read_refill(unit, account_id, payment.denomination)
        await refills.put_refill(unit, _started(payment, environment, now, known), now)
        await ledger.raise_tick(unit, account_id, tick)


async def _do_step(engine: Engine, unit: Unit, payment: Payment, now: datetime) -> None:
    """Do the step of a plan that a payment was for, as it was worked out.

    Where the plan is not as it was then, the money stays on the balance, and the log says so.
    """
    account_id, settings = payment.account_id, payment.settings or {}
    known = await subscriptions.read_subscription(unit, account_id)
    if not still_holds(settings, known):
        _log.error("payment", payment=payment.id, account=account_id, outcome="plan changed meanwhile")
        return
    step = subscriptions.step_of_json(settings["step"])
    state = (await ledger.load_states(unit, {account_id: now})).states[account_id]
    tick = max(engine.tick(), state.tick + 1)
    await subscriptions.carry_out(unit, step, state, paid=payment.units, payment_id=payment.id, tick=tick, now=now)
    engine.nudge("refill_due")
    engine.nudge("renew_due")


async def _end_unpaid(
    engine: Engine, unit: Unit, environment: Environment, before: Payment, after: Payment, now: datetime
) -> None:
    """A payment for a plan that did not come in: the plan is past due, or was never begun."""
    account_id = after.account_id
    if (after.settings or {}).get("opens_account") and after.status in {"failed", "voided"}:
        await accounts.delete_opened(unit, account_id)
        return
    known = await subscriptions.read_subscription(unit, account_id)
    if known is None or known.payment_id != after.id:
        return
    is_over = after.status in {"failed", "voided"}
    if after.reason == "plan_start":
        changed = replace(known, payment_id=None) if is_over else known
    elif not is_over and after.declines == before.declines:
        return
    else:
        changed = replace(known, status="past_due", payment_id=None if after.status == "voided" else known.payment_id)
        if not is_over:
            # Its next try asks whatever card there is then; nothing else is due meanwhile.
            changed = replace(changed, next_at=None)
    if is_over and after.reason == "plan_renewal":
        match failed_renewal(environment.money):
            case "cancel":
                changed = replace(changed, payment_id=None, cancels_at_end=True, next_at=now)
                engine.nudge("renew_due")
            case "pause" if after.status == "failed":
                changes = {"paused_at": now, "paused_by": "plan"}
                await accounts.update_account(unit, account_id, changes, now, engine.tick())
    await subscriptions.put_subscriptions(unit, [changed], now)
    await ledger.raise_tick(unit, account_id, engine.tick())


def _started(payment: Payment, environment: Environment, now: datetime, known: Refill | None) -> Refill:
    """The refill whose first monthly filling was just paid; the dates count from when it was asked for."""
    settings = dict(payment.settings or {})
    for name in ("is_monthly", "cancelled"):
        settings.pop(name, None)
    refill = known or Refill(
        payment.account_id,
        payment.denomination,
        payment.environment_id,
        is_monthly=False,
        created_at=now,
        **settings,
    )
    return begun_monthly(refill._replace(**settings), payment.created_at, environment.terms.zone)


async def collect_due(engine: Engine, *, now: datetime, limit: int, environment_id: int | None = None) -> int:
    """Sweep: drive every payment that has a step to take; how many took one."""

    async def step(environment: Environment, row: Record) -> bool:
        driven = await drive(engine, environment, row["account_id"], row["id"])
        # One that ends without a call, for want of a card, has taken its step too: its end may make other work due.
        return driven.fence > int(row["fence"]) or not driven.is_open

    return await engine.each_due(
        due.PAYMENTS,
        "t.account_id, t.id, t.fence",
        step,
        now=now,
        limit=limit,
        environment_id=environment_id,
        each=EACH,
        at_once=AT_ONCE,
    )


async def forget_events(engine: Engine, *, now: datetime, limit: int) -> int:
    """Sweep: delete notes of the provider's messages that are too old to come again."""
    async with engine.database.writing() as unit:
        return await payments.forget_events(unit, now - EVENT_LIFE, limit)


# --- by hand ----------------------------------------------------------------------------------------------------------


async def _payment(unit: Unit, environment: Environment, account_id: int, payment_id: int) -> Payment:
    await ledger.lock_accounts(unit, [account_id])
    held = await payments.read_payment(unit, account_id, payment_id)
    if held is None or held.payment.environment_id != environment.id:
        raise Refusal("not_found")
    return held.payment


async def retry_payment(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, payment_id: int, *, is_claimed: bool = False
) -> Payment:
    """Have a failed or skipped payment tried again. Raises ``payment_not_retryable``, ``refill_in_progress``."""
    now = engine.now_of(environment)
    before = await _payment(unit, environment, account_id, payment_id)
    after = retried(before, now=now)
    if not await _is_owed(unit, before):
        raise Refusal("payment_not_retryable", "What it was to pay is not owed any more.", status=before.status)
    if before.reason in FOR_PLANS and not await _is_as_planned(unit, before):
        raise Refusal("payment_not_retryable", "The plan is not as it was then; try renewplan.", status=before.status)
    if after.slot is not None:
        other = await payments.open_payment(unit, account_id, after.slot, or_skipped=False)
        if other is not None and other.id != after.id:
            raise Refusal("refill_in_progress", payment_id=spell_of_account("pay", account_id, other.id))
    await payments.update_payment(unit, after, now, claimed_until=engine.now() + LEASE if is_claimed else None)
    if after.reason in FOR_PLANS:
        # The plan waits for its payment again.
        await subscriptions.wait_for(unit, account_id, after.id)
    if after.reason in {"refill", "threshold_refill"}:
        refill = await refills.read_refill(unit, account_id, after.denomination)
        if refill is not None and refill.payment_id is None:
            taken = refill._replace(payment_id=after.id, parked_at=None, parked_code=None, retry_at=None)
            await refills.put_refill(unit, taken, now)
            await ledger.raise_tick(unit, account_id, engine.tick())
    return after


async def void_payment(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, payment_id: int, *, is_claimed: bool = False
) -> Payment:
    """Give a payment up; where the provider knows of it, driving it has it cancelled there first."""
    now = engine.now_of(environment)
    before = await _payment(unit, environment, account_id, payment_id)
    after = voided(before, now=now)
    await payments.update_payment(unit, after, now, claimed_until=engine.now() + LEASE if is_claimed else None)
    await _close(engine, unit, environment, before, after, now)
    return after


async def suspend_capture(engine: Engine, unit: Unit, environment: Environment, account_id: int | None) -> None:
    """Skip automatic captures from now on, of one account or of the whole half of the company."""
    await _set_capture(engine, unit, environment, account_id, is_suspended=True)


async def resume_capture(
    engine: Engine, unit: Unit, environment: Environment, account_id: int | None, *, process: bool, limit: int
) -> list[tuple[int, int]]:
    """Take captures up again; each that was skipped is to be processed or is voided. Which ones (account, payment)."""
    await _set_capture(engine, unit, environment, account_id, is_suspended=False)
    found = await payments.skipped_payments(unit, environment.id, account_id, limit)
    resumed = []
    for owner, payment_id in sorted(found):
        is_wanted = process and await _is_wanted(engine, unit, environment, owner, payment_id)
        verb = retry_payment if is_wanted else void_payment
        try:
            changed = await verb(engine, unit, environment, owner, payment_id)
        except Refusal:
            # A deposit of this balance is being paid for: this one stays skipped, to be retried by itself.
            continue
        if changed.reason == "invoice" and not is_wanted:
            await invoices.collect_again(unit, owner, changed.currency, engine.now_of(environment))
        if process and not is_wanted and changed.reason in FOR_PLANS:
            # The plan is worked out anew, as it is by now.
            await subscriptions.wake(unit, owner, engine.now_of(environment))
            engine.nudge("renew_due")
        resumed.append((owner, payment_id))
    return resumed


async def _is_wanted(engine: Engine, unit: Unit, environment: Environment, account_id: int, payment_id: int) -> bool:
    """Whether the need that a capture was skipped for is still there: what is owed, or too little on the balance."""
    state = await ledger.take_account(unit, environment.id, account_id, engine.now_of(environment))
    held = await payments.read_payment(unit, account_id, payment_id)
    assert held is not None
    payment = held.payment
    if payment.reason in FOR_PLANS:
        return await _is_as_planned(unit, payment)
    if payment.reason != "threshold_refill":
        return await _is_owed(unit, payment)
    refill = await refills.read_refill(unit, account_id, payment.denomination)
    balance = state.balances[payment.denomination]
    return refill is not None and refill.threshold is not None and balance.available < refill.threshold


async def _set_capture(
    engine: Engine, unit: Unit, environment: Environment, account_id: int | None, *, is_suspended: bool
) -> None:
    changes = {"capture_suspended": is_suspended}
    if account_id is None:
        await accounts.lock_environment(unit, environment.id)
        await pauses.pause_company(unit, environment.id, changes, engine.now_of(environment), pauses.BY_HAND)
        await accounts.raise_revision(unit, environment.id, engine.now())
        return
    now = engine.now_of(environment)
    await ledger.take_account(unit, environment.id, account_id, now)
    await accounts.update_account(unit, account_id, changes, now, engine.tick())


async def take_intent_event(engine: Engine, environment: Environment, event: GatewayEvent) -> Payment | None:
    """What the provider says of an intent: a hint to look, never the truth by itself. The payment to drive, if any.

    Known messages, foreign objects, wrong amounts and the other mode change nothing (bar I-47).
    """
    async with translated(), engine.database.writing() as unit:
        found = None
        if event.intent_id is not None and event.is_live == environment.live:
            found = await payments.find_by_intent(unit, environment.id, event.intent_id)
        outcome = "taken"
        if found is None:
            outcome = "not_ours"
        elif (event.amount, event.currency) != (found.amount, found.currency):
            outcome = "mismatch"
            _log.error("gateway_event", id=event.id, outcome=outcome, payment=found.id, account=found.account_id)
        now = engine.now_of(environment)
        if found is not None:
            await ledger.lock_accounts(unit, [found.account_id])
        if not await payments.take_event(unit, environment.id, event.id, event.type, outcome, now):
            return None
        if found is None or outcome != "taken":
            return None
        held = await payments.read_payment(unit, found.account_id, found.id)
        assert held is not None
        payment = held.payment
        if event.status == "succeeded":
            woken, until = told_of_success(payment, now=now), None
        else:
            is_open = payment.status in {"confirming", "processing"}
            woken, until = payment._replace(next_attempt_at=now) if is_open else None, held.claimed_until
        if woken is not None:
            await payments.update_payment(unit, woken, now, claimed_until=until)
        return woken
