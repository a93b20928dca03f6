"""Accounts on plans: started, changed, modified, paused, cancelled; and the sweep that renews them.

A verb decides one step (``core.lifecycle``) on the account as it stands. What costs nothing now is done in that unit;
what a card has to pay for is written down as a payment that carries the step, and whoever drives the payment does the
step when the money is there. A preview decides the same step and writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, NamedTuple

import structlog

from tenuto.core import lifecycle
from tenuto.core.effect import Effect, effect_of, on_card, way_of
from tenuto.core.event import AccountState, credit_limit_of
from tenuto.core.identifiers import spell_of_account
from tenuto.core.ledger import open_balance
from tenuto.core.outcomes import Refusal, invalid
from tenuto.core.payment import LEASE, RETRIES, Payment, PaymentReason, retried
from tenuto.core.plan import (
    Cadence,
    PlanTerms,
    PlanVersion,
    Scheme,
    checked_cadence,
    checked_units,
    included,
    merged,
    plan_terms,
)
from tenuto.core.proration import modified_credit
from tenuto.core.subscription import Around, Offer, Step, Subscription, basis_of, failed_renewal
from tenuto.engine import Engine, Once
from tenuto.store import accounts, due, ledger, payments, subscriptions
from tenuto.store.accounts import Environment
from tenuto.store.database import AccountMovedOn, Contended, Reader, Record, Unavailable, Unit, translated
from tenuto.store.subscriptions import Moment, Standing, StoredStep, Written

AT_ONCE: Final = 50
"""Accounts that are renewed in one unit."""
EACH: Final = 2 * AT_ONCE
"""Accounts of one company that a pass takes, where others may be due too."""

_log = structlog.get_logger()


class PlanAsk(NamedTuple):
    """What is asked for: a plan (none: the one the account is on), how often, how many of what can be chosen."""

    plan_id: int | None = None
    cadence: Cadence | None = None
    units: Mapping[str, int] | None = None
    scheme: Scheme | None = None


class Decided(NamedTuple):
    """A step as it was decided, on which state, and what pays for it (``way_of``)."""

    step: Step
    way: str
    state: AccountState
    standing: Standing
    now: datetime


class Begun(NamedTuple):
    """A step that was done (no ``payment``), or that is done when its payment has come in."""

    step: Step | StoredStep
    payment: Payment | None
    account_id: int


Decide = Callable[[Standing, AccountState, datetime], Step]


def usual_scheme(environment: Environment) -> Scheme:
    """How plans change where no scheme is named: as the company says, else Sleeping Beauty (contract 3.4)."""
    found: Scheme = environment.money.get("plans", {}).get("scheme", "sleeping_beauty")
    return found


# --- deciding ---------------------------------------------------------------------------------------------------------


async def _decided(
    reader: Reader, environment: Environment, account_id: int, state: AccountState, decide: Decide, now: datetime
) -> Decided:
    """A step on the account as it is now, and what would pay for it.

    Raises Refusal ``plan_change_in_progress`` where one is being paid for, or a renewal is due that goes before it.
    """
    standing = await subscriptions.read_standing(reader, account_id, Moment(now, state.tick))
    if standing.payment_id is not None:
        raise Refusal("plan_change_in_progress", payment_id=spell_of_account("pay", account_id, standing.payment_id))
    known = standing.subscription
    if known is not None and known.status in {"trialing", "active"} and known.next_at and known.next_at <= now:
        raise Refusal("plan_change_in_progress", "A renewal is due; it goes first, in a moment.")
    step = replace(decide(standing, state, now), tick=state.tick)
    way = _way(environment, step, standing, state)
    return Decided(_as_paid(step, way), way, state, standing, now)


def _way(environment: Environment, step: Step, standing: Standing, state: AccountState) -> str:
    around = standing.around_of(step, state, step.at)
    balance = state.balances.get(step.denomination) or open_balance(step.denomination)
    limit = credit_limit_of(balance, state.credit_limit, environment.terms)
    return way_of(step, around, has_card=standing.has_card, limit=limit)


def _as_paid(step: Step, way: str) -> Step:
    """The step with what is really charged now."""
    match way:
        case "none":
            return replace(step, charge=0)
        case "card":
            return replace(step, charge=on_card(step.charge, step.denomination))
        case _:
            return step


async def preview_step(engine: Engine, environment: Environment, account_id: int, decide: Decide) -> Decided:
    """What a verb would do now, line by line; nothing is written. Refused as the verb would be."""
    now = engine.now_of(environment)
    async with engine.database.reading() as reader:
        state = (await ledger.load_states(reader, {account_id: now})).states.get(account_id)
        if state is None or state.environment_id != environment.id:
            raise Refusal("not_found")
        return await _decided(reader, environment, account_id, state, decide, now)


async def begin_step(
    engine: Engine,
    unit: Unit,
    environment: Environment,
    account_id: int,
    decide: Decide,
    *,
    once: Once | None = None,
    opens_account: bool = False,
) -> Begun:
    """Do a step here and now, or write its payment down, to be driven next.

    ``opens_account``: the account was made for this; it goes again if the payment fails.
    """
    now = engine.now_of(environment)
    state = await ledger.take_account(unit, environment.id, account_id, now)
    decided = await _decided(unit, environment, account_id, state, decide, now)
    step, tick = decided.step, max(engine.tick(), state.tick + 1)
    if decided.way == "card":
        reason: PaymentReason = "plan_start" if step.kind == "start" else "plan_change"
        payment = _payment(step, state, decided.standing, reason, tick, now)
        payment = payment._replace(
            settings={**(payment.settings or {}), "opens_account": opens_account},
            request_key=None if once is None else once.key,
            fingerprint=None if once is None else once.fingerprint,
        )
        await _make_room(unit, decided.standing, now)
        await payments.insert_payment(unit, payment, claimed_until=engine.now() + LEASE)
        await ledger.raise_tick(unit, account_id, tick)
        return Begun(step, payment, account_id)
    await subscriptions.carry_out(unit, step, state, paid=0, payment_id=None, tick=tick, now=now)
    engine.nudge("refill_due")
    return Begun(step, None, account_id)


async def _make_room(unit: Unit, standing: Standing, now: datetime) -> None:
    """A renewal that waits after a decline gives its place to a change, and is worked out anew should that fail too."""
    known = standing.subscription
    if known is None or known.payment_id is None:
        return
    held = await payments.read_payment(unit, known.account_id, known.payment_id)
    if held is not None and held.payment.status == "created":
        await payments.give_up(unit, known.account_id, known.payment_id, now)
        again = replace(known, payment_id=None, next_at=held.payment.next_attempt_at)
        await subscriptions.put_subscriptions(unit, [again], now)


def _payment(
    step: Step, state: AccountState, standing: Standing, reason: PaymentReason, id: int, now: datetime
) -> Payment:
    return Payment(
        account_id=state.account_id,
        id=id,
        environment_id=state.environment_id,
        method="card",
        reason=reason,
        status="intended",
        amount=step.charge,
        currency=step.denomination,
        denomination=step.denomination,
        units=step.charge,
        description=next((line.description for line in step.lines if line.kind == "plan"), "Plan"),
        created_at=now,
        due_at=step.at,
        slot="plan",
        settings={"step": subscriptions.step_to_json(step), "basis": basis_of(standing.subscription)},
        next_attempt_at=now,
    )


# --- offers -----------------------------------------------------------------------------------------------------------


def _latest(environment: Environment, plan_id: int) -> PlanVersion:
    """The version of a plan that is sold now. Raises Refusal ``invalid_field`` for one that is not there any more."""
    found = [version for version in environment.terms.plans.values() if version.plan_id == plan_id]
    if not found:
        raise invalid("plan_id", "is no plan of this company.")
    return max(found, key=lambda version: version.number)


def new_offer(environment: Environment, ask: PlanAsk) -> Offer:
    """What an account that is on no plan is to be on. Raises Refusal for what the plan does not sell."""
    if ask.plan_id is None:
        raise Refusal("missing_field", "plan_id: names the plan.", path="plan_id")
    version = _latest(environment, ask.plan_id)
    if version.is_archived:
        raise invalid("plan_id", "is archived: nobody new is sold this plan.")
    return Offer(
        plan_id=version.plan_id,
        version_id=version.id,
        override_id=None,
        terms=version.terms,
        cadence=checked_cadence(version.terms, ask.cadence),
        units=checked_units(version.terms, ask.units or {}),
    )


async def next_offer(reader: Reader, environment: Environment, account_id: int, ask: PlanAsk) -> Offer:
    """What an account that may be on a plan is to be on: the plan's latest version, and the rest as it was.

    What was agreed with the account stays agreed on its own plan, laid over the new version's terms; on another plan it
    is over. A negative ``override_id`` says that these terms are yet to be written down (:func:`_kept`).
    """
    known = await subscriptions.read_subscription(reader, account_id)
    if known is None or not known.is_running:
        return new_offer(environment, ask)
    plan_id = known.plan_id if ask.plan_id is None else ask.plan_id
    version = _latest(environment, plan_id)
    is_same = plan_id == known.plan_id
    if version.is_archived and not is_same:
        raise invalid("plan_id", "is archived: nobody new is sold this plan.")
    terms, override_id = version.terms, None
    if is_same and known.override_id is not None:
        if version.id == known.version_id:
            terms = await subscriptions.read_terms(reader, environment.id, account_id, known)
            override_id = known.override_id
        else:
            changes = await subscriptions.read_override_changes(reader, account_id, known.override_id)
            terms = plan_terms(merged(await _stored(reader, environment, version.id), changes))
            override_id = -known.override_id
    cadence = ask.cadence or (known.cadence if known.cadence in terms.renewals else None)
    return Offer(plan_id, version.id, override_id, terms, checked_cadence(terms, cadence), _units(terms, known, ask))


def _units(terms: PlanTerms, known: Subscription, ask: PlanAsk) -> dict[str, int]:
    """The units that were asked for; where nothing was, as many as before of what can still be chosen."""
    if ask.units is not None:
        return checked_units(terms, ask.units)
    kept = {
        name: units
        for name, units in known.variable_units.items()
        if name in terms.balances and terms.balances[name].variable_cost is not None
    }
    return checked_units(terms, kept)


async def _stored(reader: Reader, environment: Environment, version_id: int) -> dict[str, Any]:
    return await subscriptions.read_version_terms(reader, environment.id, version_id)


async def _kept(engine: Engine, unit: Unit, environment: Environment, account_id: int, offer: Offer) -> Offer:
    """The offer with its terms written down, where they were laid together for it."""
    if offer.override_id is None or offer.override_id > 0:
        return offer
    changes = await subscriptions.read_override_changes(unit, account_id, -offer.override_id)
    return await _agree(engine, unit, environment, account_id, offer, changes)


async def _agree(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, offer: Offer, changes: Mapping[str, Any]
) -> Offer:
    """The offer in terms agreed with the account: ``changes`` laid over its version's, written down."""
    whole = merged(await _stored(unit, environment, offer.version_id), changes)
    terms, id, now = plan_terms(whole), engine.new_id(), engine.now_of(environment)
    await subscriptions.insert_override(unit, account_id, id, offer.version_id, changes, whole, now)
    return offer._replace(override_id=id, terms=terms)


# --- verbs ------------------------------------------------------------------------------------------------------------


def starting(offer: Offer, zone: str) -> Decide:
    """Begin with a plan. Refused with ``plan_not_active`` where the account is on one."""

    def decide(standing: Standing, state: AccountState, now: datetime) -> Step:
        if standing.subscription is not None and standing.subscription.is_running:
            raise Refusal("plan_not_active", status=standing.subscription.status)
        return lifecycle.started(offer, standing.around(state, zone, now, offer.terms.denomination, offer.plan_id))

    return decide


def changing(offer: Offer, scheme: Scheme, zone: str) -> Decide:
    """Change to an offer by a scheme; an account that is on no plan begins with it."""

    def decide(standing: Standing, state: AccountState, now: datetime) -> Step:
        around = standing.around(state, zone, now, offer.terms.denomination, offer.plan_id)
        if standing.subscription is None or not standing.subscription.is_running:
            return lifecycle.started(offer, around)
        return lifecycle.changed(offer, scheme, around)

    return decide


def _on_plan(verb: Callable[[Around], Step]) -> Decide:
    """A verb on the plan that an account is on."""

    def decide(standing: Standing, state: AccountState, now: datetime) -> Step:
        known = standing.subscription
        if known is None or standing.terms is None:
            raise Refusal("no_plan")
        return verb(standing.around(state, known.zone, now, standing.terms.denomination, known.plan_id))

    return decide


async def change_plan(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, ask: PlanAsk, once: Once | None
) -> Begun:
    """Put an account on a plan, or change the one it is on (contract 3.4)."""
    await ledger.lock_accounts(unit, [account_id])
    offer = await next_offer(unit, environment, account_id, ask)
    offer = await _kept(engine, unit, environment, account_id, offer)
    scheme = ask.scheme or usual_scheme(environment)
    decide = changing(offer, scheme, environment.zone_name)
    return await begin_step(engine, unit, environment, account_id, decide, once=once)


async def preview_change(engine: Engine, environment: Environment, account_id: int, ask: PlanAsk) -> Decided:
    """What :func:`change_plan` would do."""
    async with engine.database.reading() as reader:
        offer = await next_offer(reader, environment, account_id, ask)
    scheme = ask.scheme or usual_scheme(environment)
    return await preview_step(engine, environment, account_id, changing(offer, scheme, environment.zone_name))


def cancelling(*, at_end: bool, prorates: bool) -> Decide:
    """End the plan, with its period or now."""
    return _on_plan(lambda around: lifecycle.cancelled(around, at_end=at_end, prorates=prorates))


PAUSING: Final = _on_plan(lifecycle.paused)
RESUMING: Final = _on_plan(lifecycle.resumed)
REINSTATING: Final = _on_plan(lifecycle.reinstated)


async def wait_for_card(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, ask: PlanAsk
) -> Subscription:
    """Put an account on a plan once it has given a card (contract 2.1, ``enable_card_collector``)."""
    now = engine.now_of(environment)
    state = await ledger.take_account(unit, environment.id, account_id, now)
    offer = new_offer(environment, ask)
    standing = await subscriptions.read_standing(unit, account_id, Moment(now, state.tick))
    if standing.subscription is not None and standing.subscription.is_running:
        raise Refusal("plan_not_active", status=standing.subscription.status)
    around = standing.around(state, environment.zone_name, now, offer.terms.denomination, offer.plan_id)
    made = lifecycle.pending(offer, around)
    await subscriptions.put_subscriptions(unit, [made], now)
    await ledger.raise_tick(unit, account_id, max(engine.tick(), state.tick + 1))
    return made


async def agree_terms(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, changes: Mapping[str, Any]
) -> Subscription:
    """Agree other prices or amounts with one account, laid over its plan's terms; an empty object takes them back.

    What usage is billed by holds at once; what a period costs and includes holds from the next renewal on. Raises
    Refusal ``no_plan``, or as a plan in these terms would be refused.
    """
    now = engine.now_of(environment)
    state = await ledger.take_account(unit, environment.id, account_id, now)
    known = await subscriptions.read_subscription(unit, account_id)
    if known is None or not known.is_running:
        raise Refusal("no_plan")
    if await payments.open_payment(unit, account_id, "plan", or_skipped=False) is not None:
        raise Refusal("plan_change_in_progress")
    offer = await _present_offer(unit, environment, account_id, known)
    if changes:
        agreed = await _agree(engine, unit, environment, account_id, offer, changes)
    else:
        agreed = offer._replace(override_id=None, terms=plan_terms(await _stored(unit, environment, known.version_id)))
    if agreed.terms.denomination != offer.terms.denomination or known.cadence not in agreed.terms.renewals:
        raise invalid("renewals", "keep the denomination and the cadence that the account is on.")
    if known.cadence == "YEARLY" and agreed.terms.refills_monthly != offer.terms.refills_monthly:
        raise invalid("refill_cadence", "stays as it is in a year that was paid for; change the plan by ariel.")
    checked_units(agreed.terms, known.variable_units)
    after = replace(known, override_id=agreed.override_id)
    await subscriptions.put_subscriptions(unit, [after], now)
    held = {name: state.balances.get(name) or open_balance(name) for name in agreed.terms.balances}
    await subscriptions.put_refills(unit, after, agreed.terms, held, now)
    await ledger.raise_tick(unit, account_id, max(engine.tick(), state.tick + 1))
    engine.nudge("refill_due")
    return after


async def _present_offer(reader: Reader, environment: Environment, account_id: int, known: Subscription) -> Offer:
    terms = await subscriptions.read_terms(reader, environment.id, account_id, known)
    return Offer(known.plan_id, known.version_id, known.override_id, terms, known.cadence, known.variable_units)


class ModifyAsk(NamedTuple):
    """More of one balance, for another price (contract 3.3)."""

    denomination: str
    amount: int
    charge: int


async def modified_offer(
    engine: Engine, reader: Reader, environment: Environment, account_id: int, ask: ModifyAsk, *, keeps: bool
) -> Offer | None:
    """The account's plan with another amount and price of its only included balance; None where no plan fills it.

    ``keeps``: ``reader`` is a unit, in which the terms are written down. Raises Refusal where the price of one balance
    cannot be told from that of the others.
    """
    known = await subscriptions.read_subscription(reader, account_id)
    if known is None or not known.is_running:
        return None
    offer = await _present_offer(reader, environment, account_id, known)
    if ask.denomination not in offer.terms.balances:
        return None
    if set(included(offer.terms, offer.units)) - {ask.denomination} or offer.units:
        raise invalid(
            "denomination", "the plan sells more than this balance, so its price is not one of its own; use changeplan."
        )
    changes: dict[str, Any] = {}
    if known.override_id is not None:
        changes = await subscriptions.read_override_changes(reader, account_id, known.override_id)
    changes = merged(
        changes,
        {
            "balances": {ask.denomination: {"amount": ask.amount}},
            "renewals": {known.cadence: {"amount": ask.charge}},
        },
    )
    if keeps:
        return await _agree(engine, reader, environment, account_id, offer, changes)
    terms = plan_terms(merged(await _stored(reader, environment, known.version_id), changes))
    return offer._replace(terms=terms)


def modifying(offer: Offer, ask: ModifyAsk) -> Decide:
    """More units now for another price: what is left of the old ones is given back, and the month begins anew."""

    def modify(around: Around) -> Step:
        assert around.terms is not None
        refuse_less(ask, around.terms.balances[ask.denomination].amount)
        credit = modified_credit(around, ask.denomination)
        return lifecycle.restarted(offer, around, credit, kind="modify", scheme=None)

    return _on_plan(modify)


def refuse_less(ask: ModifyAsk, before: int) -> None:
    """Raises Refusal ``invalid_field`` for anything but an increase (contract 3.3)."""
    if ask.amount <= before:
        raise invalid(
            "amount", f"is above the {before} of now; less is scheduled for the next month with PUT …/auto_refill."
        )


async def schedule_amount(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, ask: ModifyAsk
) -> Step | None:
    """From the next renewal on, another amount for another price; None where no plan fills the balance."""
    now = engine.now_of(environment)
    state = await ledger.take_account(unit, environment.id, account_id, now)
    offer = await modified_offer(engine, unit, environment, account_id, ask, keeps=True)
    if offer is None:
        return None
    decide = changing(offer, "sleeping_beauty", environment.zone_name)
    decided = await _decided(unit, environment, account_id, state, decide, now)
    tick = max(engine.tick(), state.tick + 1)
    await subscriptions.carry_out(unit, decided.step, state, paid=0, payment_id=None, tick=tick, now=now)
    return decided.step


class Moved(NamedTuple):
    """How many accounts of a plan were moved to its latest version, and how many could not, by code."""

    moved: int
    refused: Mapping[str, int]


async def move_accounts(engine: Engine, environment: Environment, plan_id: int) -> Moved:
    """Schedule a plan's latest version for every account that is on an older one, with its next renewal.

    Each account by itself, so that one that cannot be moved keeps no other; doing it again moves who is left.
    Raises Refusal ``not_found``.
    """
    known = [version for version in environment.terms.plans.values() if version.plan_id == plan_id]
    if not known:
        raise Refusal("not_found")
    latest = max(known, key=lambda version: version.number)
    moved, refused, after = 0, Counter[str](), -1
    while True:
        async with engine.database.reading() as reader:
            found = await subscriptions.accounts_behind(
                reader, environment.id, plan_id, latest.id, after=after, limit=AT_ONCE
            )
        if not found:
            return Moved(moved, dict(refused))
        for account_id in found:
            try:
                async with translated(), engine.database.writing() as unit:
                    ask = PlanAsk(plan_id=plan_id, scheme="sleeping_beauty")
                    await change_plan(engine, unit, environment, account_id, ask, None)
                moved += 1
            except Refusal as refusal:
                refused[refusal.code] += 1
        after = found[-1]


# --- the sweep --------------------------------------------------------------------------------------------------------


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
        if isinstance(error, Refusal) and error.code in {"insufficient_balance", "credit_limit_reached"}:
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
        step = _as_paid(step, way)
        if way == "card":
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


async def _next_step(unit: Unit, environment: Environment, found: _Due, known: Subscription) -> Step:
    """What is due of a plan: what a card is waited for, its end, a renewal, or another month of a year's."""
    at = found.at
    if known.status == "pending_card":
        offer = await _present_offer(unit, environment, known.account_id, known)
        step = starting(offer, known.zone)(found.standing, found.state, found.now)
        return replace(step, tick=found.state.tick)
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


async def _scheduled_offer(unit: Unit, environment: Environment, known: Subscription) -> Offer:
    later = dict(known.scheduled or {})
    after = replace(known, **later)
    terms = await subscriptions.read_terms(unit, environment.id, known.account_id, after)
    return Offer(after.plan_id, after.version_id, after.override_id, terms, after.cadence, after.variable_units)


def _way_of_renewal(environment: Environment, step: Step, standing: Standing, state: AccountState) -> str:
    """As for any step; but where a card is missing its payment is written down all the same, to fail and be seen."""
    try:
        return _way(environment, step, standing, state)
    except Refusal as refusal:
        if refusal.code == "payment_method_required":
            return "card"
        raise


async def _ask_card(unit: Unit, environment: Environment, found: _Due, step: Step) -> None:
    """Write the payment of a renewal down; the plan waits for its end."""
    known = found.standing.subscription
    assert known is not None
    reason: PaymentReason = "plan_start" if step.kind == "start" else "plan_renewal"
    payment = _payment(step, found.state, found.standing, reason, found.tick, found.now)
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
    if (held.payment.settings or {}).get("basis") != basis_of(known):
        # Other terms were agreed since: it is worked out anew.
        return False
    await payments.update_payment(unit, retried(held.payment, now=found.now), found.now)
    await subscriptions.put_subscriptions(unit, [replace(known, next_at=None)], found.now)
    await ledger.raise_tick(unit, known.account_id, found.tick)
    return True


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
