"""The renewal of plans: the sweep that takes every plan that is due one step on, each for its own date.

Accounts of one company go by the dozen in one unit: locked together, read in one statement, decided one by one in pure
code, written in a handful of statements. What a card has to pay for waits for its payment (``service.payments``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, NamedTuple

import structlog

from tenuto.core import invoice as rules
from tenuto.core import lifecycle
from tenuto.core.effect import Effect, Way, as_paid, effect_of
from tenuto.core.event import AccountState
from tenuto.core.invoice import TaxLine
from tenuto.core.outcomes import Refusal
from tenuto.core.payment import RETRIES, PaymentReason, retried
from tenuto.core.subscription import Offer, Step, Subscription, failed_renewal, still_holds
from tenuto.engine import Engine
from tenuto.store import accounts, due, invoices, ledger, payments, subscriptions
from tenuto.store.accounts import Environment
from tenuto.store.database import AccountMovedOn, Contended, Reader, Record, Unavailable, Unit, translated
from tenuto.store.subscriptions import Moment, Standing, Written

AT_ONCE: Final = 50
"""Accounts that are renewed in one unit."""
EACH: Final = 2 * AT_ONCE
"""Accounts of one company that a pass takes, where others may be due too."""

_log = structlog.get_logger()


async def renew_due(engine: Engine, *, now: datetime, limit: int, environment_id: int | None = None) -> int:
    """Sweep: take every plan that is due one step on, each for its own date; how many went on.

    Accounts of one company go by the dozen in one unit; where one of them cannot be done, each goes by itself.
    """
    async with engine.database.reading() as reader:
        rows = await due.due_rows(
            reader,
            due.PLANS,
            "t.account_id, t.next_at, t.status, t.period_end, t.refill_at",
            now=now,
            limit=limit,
            environment_id=environment_id,
            each=None if environment_id is not None else EACH,
            together=AT_ONCE,
        )
    by_half: dict[int, list[Record]] = {}
    for row in rows:
        by_half.setdefault(row["environment_id"], []).append(row)
    done = 0
    for half, found in by_half.items():
        environment = await engine.environment(half)
        for at in range(0, len(found), AT_ONCE):
            if environment is not None:
                done += await _renew(engine, environment, found[at : at + AT_ONCE])
    if done:
        engine.nudge("collect_due")
        engine.nudge("refill_due")
    return done


async def _renew(engine: Engine, environment: Environment, rows: Sequence[Record]) -> int:
    asked = {row["account_id"]: row for row in rows}
    try:
        async with translated(), engine.database.writing() as unit:
            done = await _renew_in(engine, unit, environment, asked)
        engine.reach("plan.renewed")
    except Unavailable:
        raise
    except Exception as error:  # noqa: BLE001 - one account that cannot be done must not keep the others
        if len(asked) > 1:
            return sum([await _renew(engine, environment, [row]) for row in rows])
        if isinstance(error, AccountMovedOn | Contended):
            # Somebody else has it in hand; the next pass looks at it again.
            return 0
        if isinstance(error, Refusal):
            _log.warning("renew_due", account=next(iter(asked)), outcome="refused", code=error.code)
        else:
            _log.error("renew_due", account=next(iter(asked)), outcome="failed", exc_info=error)
        return await _put_off(engine, environment, next(iter(asked)), error)
    return done


async def _put_off(engine: Engine, environment: Environment, account_id: int, error: Exception) -> int:
    """What cannot be done is not tried again at once, so that it keeps no other from its turn."""
    async with translated(), engine.database.writing() as unit:
        await ledger.lock_accounts(unit, [account_id])
        known = await subscriptions.read_subscription(unit, account_id)
        if known is None or known.next_at is None:
            return 0
        now = engine.now_of(environment)
        later = replace(known, next_at=now + RETRIES[0])
        is_short = isinstance(error, Refusal) and error.code in {"insufficient_balance", "credit_limit_reached"}
        if is_short and known.is_running:
            later = _unpaid(environment, known, now)
            if later.next_at is None and failed_renewal(environment.money) == "pause":
                changes = {"paused_at": now, "paused_by": "plan"}
                await accounts.update_account(unit, account_id, changes, now, engine.tick())
        await subscriptions.put_subscriptions(unit, [later], now)
        await ledger.raise_tick(unit, account_id, engine.tick())
    return 1


def _unpaid(environment: Environment, known: Subscription, now: datetime) -> Subscription:
    """A balance that was to pay cannot: tried again by schedule, and the third time as the company has it."""
    after = replace(known, status="past_due", declines=known.declines + 1)
    if known.declines < len(RETRIES):
        return replace(after, next_at=now + RETRIES[known.declines])
    if failed_renewal(environment.money) == "cancel":
        return replace(after, next_at=now, cancels_at_end=True)
    return replace(after, next_at=None)


class _Due(NamedTuple):
    """One account whose plan is due, locked and read."""

    state: AccountState
    standing: Standing
    at: datetime
    now: datetime
    tick: int


def _moment(row: Record) -> Moment:
    """As of when an account is renewed: its own date, however late it is and however often it was put off."""
    if row["status"] == "pending_card":
        return Moment(row["next_at"])
    if row["status"] == "past_due" or row["refill_at"] is None:
        return Moment(row["period_end"])
    return Moment(min(row["refill_at"], row["period_end"]))


async def _renew_in(engine: Engine, unit: Unit, environment: Environment, asked: Mapping[int, Record]) -> int:
    now = engine.now_of(environment)
    states = await ledger.take_accounts(unit, environment.id, asked, now)
    standings = await subscriptions.read_standings(unit, {id: _moment(asked[id]) for id in states})
    written: list[Written] = []
    done = 0
    for account_id, state in states.items():
        standing = standings[account_id]
        known = standing.subscription
        row = asked[account_id]
        if known is None or known.next_at != row["next_at"] or standing.payment_id is not None:
            continue
        found = _Due(state, standing, _moment(row).at, now, max(engine.tick(), state.tick + 1))
        done += 1
        step = await _next_step(unit, environment, found, known)
        way = _way_of_renewal(environment, step, standing, state)
        if way == "card" and await _retry(unit, found, known):
            continue
        step = as_paid(step, way, state.balances.get(step.denomination))
        if way == "card" and step.kind == "cancel":
            effect = await subscriptions.carry_out(unit, step, state, paid=0, payment_id=None, tick=found.tick, now=now)
            is_suspended = environment.capture_suspended or standing.is_suspended
            await subscriptions.ask_for_rest(unit, step, effect, is_suspended=is_suspended, now=now)
        elif way == "card":
            await _ask_card(unit, environment, found, step)
        elif _is_plain(step, standing):
            written.append(_written(found, step))
        else:
            await subscriptions.carry_out(unit, step, state, paid=0, payment_id=None, tick=found.tick, now=now)
    if written:
        await subscriptions.write_effects(unit, written, now)
    return done


def _is_plain(step: Step, standing: Standing) -> bool:
    """Whether it can be written together with others: it touches no settings of refills."""
    known = standing.subscription
    assert known is not None
    is_same = (known.version_id, known.override_id) == (step.subscription.version_id, step.subscription.override_id)
    return is_same and step.kind in {"renewal", "refill"} and known.status != "past_due"


def _written(found: _Due, step: Step) -> Written:
    around = found.standing.around_of(step, found.state, step.at)
    assert found.standing.terms is not None
    effect: Effect = effect_of(step, around, found.state, found.standing.terms, tick=found.tick, paid=0, now=found.now)
    return Written(step, effect, found.state, found.state.environment_id, None)


async def _next_step(unit: Reader, environment: Environment, found: _Due, known: Subscription) -> Step:
    """What is due of a plan: what a card is waited for, its end, a renewal, or another month of a year's."""
    at = found.at
    if known.status == "pending_card":
        offer = await subscriptions.read_offer(unit, environment.id, known)
        around = found.standing.around(found.state, known.zone, found.now, offer.terms.denomination, offer.plan_id)
        return replace(lifecycle.started(offer, around), tick=found.state.tick)
    assert found.standing.terms is not None
    terms = found.standing.terms
    if known.period_end is None or known.period_end > at:
        around = found.standing.around(found.state, known.zone, at, terms.denomination, known.plan_id)
        return lifecycle.refilled(around)
    if known.cancels_at_end:
        around = found.standing.around(found.state, known.zone, at, terms.denomination, known.plan_id)
        return lifecycle.cancelled(around, at_end=False, prorates=False)
    offer = Offer(known.plan_id, known.version_id, known.override_id, terms, known.cadence, known.variable_units)
    if known.scheduled:
        offer = await _scheduled_offer(unit, environment, known)
    around = found.standing.around(found.state, known.zone, at, offer.terms.denomination, offer.plan_id)
    return lifecycle.renewed(offer, around, restarts=known.number == 0 and known.anchor_at == known.period_end)


async def _scheduled_offer(unit: Reader, environment: Environment, known: Subscription) -> Offer:
    later = dict(known.scheduled or {})
    after = replace(known, **later)
    terms = await subscriptions.read_terms(unit, environment.id, known.account_id, after)
    return Offer(after.plan_id, after.version_id, after.override_id, terms, after.cadence, after.variable_units)


def _way_of_renewal(environment: Environment, step: Step, standing: Standing, state: AccountState) -> Way:
    """As for any step; but where a card is missing its payment is written down all the same, to fail and be seen."""
    try:
        return standing.way_of(step, state, environment.terms)
    except Refusal as refusal:
        if refusal.code == "payment_method_required":
            return "card"
        raise


async def _ask_card(unit: Unit, environment: Environment, found: _Due, step: Step) -> None:
    """Write the payment of a renewal down; the plan waits for its end."""
    known = found.standing.subscription
    assert known is not None
    reason: PaymentReason = "plan_start" if step.kind == "start" else "plan_renewal"
    payment = subscriptions.payment_of(step, found.state, found.standing, reason, found.tick, found.now)
    if environment.capture_suspended or found.standing.is_suspended:
        payment = payment._replace(status="skipped", next_attempt_at=None)
    if known.payment_id is not None:
        # Other terms were agreed since it failed: tried again by hand, it would pay for what is not sold any more.
        await payments.give_up(unit, known.account_id, known.payment_id, found.now)
    await payments.insert_payment(unit, payment)
    waiting = replace(known, payment_id=payment.id, next_at=None)
    await subscriptions.put_subscriptions(unit, [waiting], found.now)
    await ledger.raise_tick(unit, known.account_id, found.tick)


async def _retry(unit: Unit, found: _Due, known: Subscription) -> bool:
    """Whether a renewal that failed is tried again, on the same payment, now that there is another card."""
    if known.payment_id is None:
        return False
    held = await payments.read_payment(unit, known.account_id, known.payment_id)
    if held is None or held.payment.status != "failed" or held.payment.reason != "plan_renewal":
        return False
    if not still_holds(held.payment.settings, known):
        # Other terms were agreed since: it is worked out anew.
        return False
    await payments.update_payment(unit, retried(held.payment, now=found.now), found.now)
    await subscriptions.put_subscriptions(unit, [replace(known, next_at=None)], found.now)
    await ledger.raise_tick(unit, known.account_id, found.tick)
    return True


class Upcoming(NamedTuple):
    """What the next renewal of a plan would come to if nothing more were used: its step, and the way it is paid.

    ``way`` None: an invoice will ask for it, with ``taxes``, and the balance covers so much of it.
    """

    step: Step
    way: Way | None
    subscription: Subscription
    taxes: tuple[TaxLine, ...] = ()
    covered: int = 0


async def preview_renewal(engine: Engine, environment: Environment, account_id: int) -> Upcoming:
    """What the sweep would do at the end of the period; nothing is written. Raises Refusal where nothing is due."""
    now = engine.now_of(environment)
    async with engine.database.reading() as reader:
        state = (await ledger.load_states(reader, {account_id: now})).states[account_id]
        standing = await subscriptions.read_standing(reader, account_id, Moment(now, state.tick))
        known = standing.subscription
        if known is None or known.status not in {"trialing", "active", "past_due"} or known.period_end is None:
            raise Refusal("not_found", "No invoice is coming.")
        found = _Due(state, standing, known.period_end, now, state.tick)
        step = await _next_step(reader, environment, found, known)
        terms = {terms.currency: terms for terms in await invoices.read_terms(reader, account_id)}
    if step.kind == "cancel" and not step.charge:
        raise Refusal("not_found", "No invoice is coming.")
    name = step.denomination
    balance = state.balances.get(name)
    if name not in standing.invoiced:
        try:
            way = _way_of_renewal(environment, step, standing, state)
        except Refusal:
            way = "balance"
        return Upcoming(as_paid(step, way, balance), way, known)
    sold = sum(line.amount for line in step.lines if line.denomination == name)
    agreed = terms[name].taxes if name in terms else None
    taxes = rules.taxes_of(max(0, sold), rules.settings_of(environment.money).taxes if agreed is None else agreed)
    total = sold + sum(tax.amount for tax in taxes if not tax.is_inclusive)
    free = (0 if balance is None else balance.amount) + standing.owed.get(name, 0)
    return Upcoming(step, None, known, taxes, max(0, min(total, free)))


async def renew_now(engine: Engine, unit: Unit, environment: Environment, account_id: int) -> Subscription:
    """Try again what is past due, at once. Raises Refusal ``plan_not_active`` where nothing is."""
    now = engine.now_of(environment)
    state = await ledger.take_account(unit, environment.id, account_id, now)
    known = await subscriptions.read_subscription(unit, account_id)
    if known is None:
        raise Refusal("no_plan")
    if known.status != "past_due":
        raise Refusal("plan_not_active", status=known.status)
    held = None if known.payment_id is None else await payments.read_payment(unit, account_id, known.payment_id)
    if held is not None and held.payment.is_open and held.payment.status != "voiding":
        # It is being asked for already; where it waits after a decline, it waits no longer.
        if held.payment.status == "created" and held.payment.declines:
            await payments.update_payment(unit, retried(held.payment, now=now), now)
            engine.nudge("collect_due")
        return known
    after = replace(known, next_at=now)
    await subscriptions.put_subscriptions(unit, [after], now)
    await ledger.raise_tick(unit, account_id, max(engine.tick(), state.tick + 1))
    return after
