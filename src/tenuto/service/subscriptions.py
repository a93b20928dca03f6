"""Accounts on plans: started, changed, modified, paused, cancelled, moved.

A verb decides one step (``core.lifecycle``) on the account as it stands. What costs nothing now is done in that unit;
what a card has to pay for is written down as a payment that carries the step, and whoever drives the payment does the
step when the money is there. A preview decides the same step and writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, NamedTuple

from tenuto.core import lifecycle
from tenuto.core.effect import Way, as_paid
from tenuto.core.event import AccountState
from tenuto.core.identifiers import spell_of_account
from tenuto.core.ledger import open_balance
from tenuto.core.outcomes import Refusal, invalid
from tenuto.core.payment import LEASE, Payment, PaymentReason
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
from tenuto.core.subscription import Around, Offer, Step, Subscription
from tenuto.engine import Engine, Once
from tenuto.store import ledger, payments, subscriptions
from tenuto.store.accounts import Environment
from tenuto.store.database import Reader, Unit, translated
from tenuto.store.flags import Replaced, follow_plans
from tenuto.store.subscriptions import Moment, Standing, StoredStep

AT_ONCE: Final = 50
"""Accounts that are looked for at a time where many are moved."""


class PlanAsk(NamedTuple):
    """What is asked for: a plan (none: the one the account is on), how often, how many of what can be chosen."""

    plan_id: int | None = None
    cadence: Cadence | None = None
    units: Mapping[str, int] | None = None
    scheme: Scheme | None = None


class Decided(NamedTuple):
    """A step as it was decided, on which state, and what pays for it (``way_of``)."""

    step: Step
    way: Way
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
    way = standing.way_of(step, state, environment.terms)
    return Decided(as_paid(step, way, state.balances.get(step.denomination)), way, state, standing, now)


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
    if decided.way == "card" and step.kind != "cancel":
        reason: PaymentReason = "plan_start" if step.kind == "start" else "plan_change"
        payment = subscriptions.payment_of(step, state, decided.standing, reason, tick, now)
        payment = payment._replace(
            settings={**(payment.settings or {}), "opens_account": opens_account},
            request_key=None if once is None else once.key,
            fingerprint=None if once is None else once.fingerprint,
        )
        await _make_room(unit, decided.standing, now)
        await payments.insert_payment(unit, payment, claimed_until=engine.now() + LEASE)
        await ledger.raise_tick(unit, account_id, tick)
        return Begun(step, payment, account_id)
    effect = await subscriptions.carry_out(unit, step, state, paid=0, payment_id=None, tick=tick, now=now)
    if decided.way == "card":
        # The plan ends whatever the bank says; what is owed for it is asked for besides.
        is_suspended = environment.capture_suspended or decided.standing.is_suspended
        await subscriptions.ask_for_rest(unit, step, effect, is_suspended=is_suspended, now=now)
        engine.nudge("collect_due")
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

    What was agreed with the account stays agreed on its own plan, laid over the new version's terms (to be written down
    by :func:`_kept`); on another plan it is over.
    """
    known = await subscriptions.read_subscription(reader, account_id)
    if known is None or not known.is_running:
        return new_offer(environment, ask)
    plan_id = known.plan_id if ask.plan_id is None else ask.plan_id
    version = _latest(environment, plan_id)
    is_same = plan_id == known.plan_id
    if version.is_archived and not is_same:
        raise invalid("plan_id", "is archived: nobody new is sold this plan.")
    terms, override_id, agrees = version.terms, None, None
    if is_same and known.override_id is not None:
        if version.id == known.version_id:
            terms = await subscriptions.read_terms(reader, environment.id, account_id, known)
            override_id = known.override_id
        else:
            agrees = await subscriptions.read_override_changes(reader, account_id, known.override_id)
            terms = plan_terms(merged(await _stored(reader, environment, version.id), agrees))
    cadence = ask.cadence or (known.cadence if known.cadence in terms.renewals else None)
    units = _units(terms, known, ask)
    return Offer(plan_id, version.id, override_id, terms, checked_cadence(terms, cadence), units, agrees)


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
    if offer.agrees is None:
        return offer
    return await _agree(engine, unit, environment, account_id, offer, offer.agrees)


async def _agree(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, offer: Offer, changes: Mapping[str, Any]
) -> Offer:
    """The offer in terms agreed with the account: ``changes`` laid over its version's, written down."""
    whole = merged(await _stored(unit, environment, offer.version_id), changes)
    terms, id, now = plan_terms(whole), engine.new_id(), engine.now_of(environment)
    await subscriptions.insert_override(unit, account_id, id, offer.version_id, changes, whole, now)
    return offer._replace(override_id=id, terms=terms, agrees=None)


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
    await ledger.take_account(unit, environment.id, account_id, engine.now_of(environment))
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
    offer = await subscriptions.read_offer(unit, environment.id, known)
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
    if known.scheduled and known.scheduled["plan_id"] == known.plan_id:
        # A later version of the plan is agreed on likewise, or the agreement would be over with the next renewal.
        later = replace(known, **{**known.scheduled, "override_id": None})
        coming = await subscriptions.read_offer(unit, environment.id, later)
        if changes:
            coming = await _agree(engine, unit, environment, account_id, coming, changes)
        after = replace(after, scheduled={**known.scheduled, "override_id": coming.override_id})
    await subscriptions.put_subscriptions(unit, [after], now)
    held = {name: state.balances.get(name) or open_balance(name) for name in agreed.terms.balances}
    await subscriptions.put_refills(unit, after, agreed.terms, held, now)
    tick = max(engine.tick(), state.tick + 1)
    other = Replaced(state, after.version_id, after.override_id, {}, tick, None, "other terms were agreed")
    await follow_plans(unit, [other], now)
    await ledger.raise_tick(unit, account_id, tick)
    engine.nudge("refill_due")
    return after


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
    offer = await subscriptions.read_offer(reader, environment.id, known)
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


async def modify_mid_month(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, ask: ModifyAsk, once: Once | None
) -> Begun:
    """More of the plan's only balance from now on. Raises Refusal ``no_plan`` where no plan fills it any more."""
    await ledger.take_account(unit, environment.id, account_id, engine.now_of(environment))
    offer = await modified_offer(engine, unit, environment, account_id, ask, keeps=True)
    if offer is None:
        raise Refusal("no_plan")
    return await begin_step(engine, unit, environment, account_id, modifying(offer, ask), once=once)


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
