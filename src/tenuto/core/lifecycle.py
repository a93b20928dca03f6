"""An account on a plan: how it starts, renews, changes and ends, and what each of these charges, credits and grants.

The problem, on one example. Basic is 1,000 cents a month for 1,000 tokens, Pro 4,000 for 5,000. An account on Basic has
used 250 tokens when, on the 16th of 30 days, it wants Pro now:

    scheme            charge                       units                        next renewal
    sleeping_beauty   0                            none                         as it was; Pro from then on
    snow_white        4000 - 1000 = 3000           5000 - 1000 = 4000 more      as it was
    ariel             4000 - 500 = 3500            the 750 left end, 5000 new   a month from today

Ariel gives back the smallest share that is left of anything: half of the time is left, three quarters of the tokens, so
half of the price, and nothing is used twice and refunded. Snow White measures by what the period was already paid for
and has already given, so going to and fro charges and grants no more than the dearest plan on the way.

Every change is a :class:`Step`: worked out here whole, shown as a preview or carried out as it stands by :mod:`effect`,
by whoever holds the account. Nothing is written before a card has said yes. Sources: contract 3.1, 3.3 and 3.4,
design 11, bar I-53 to I-62; decisions 0032 and 0033.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, tzinfo

from .outcomes import Refusal, invalid
from .period import day_after, monthly
from .plan import PlanTerms, Scheme, included
from .proration import (
    Ending,
    charged,
    earlier_credit,
    ending,
    given_in,
    granted,
    minimum_lines,
    owed_lines,
    plan_lines,
    setup_lines,
    unused_credit,
)
from .subscription import NEW_PERIOD, Around, Line, Offer, Period, Step, StepKind, Subscription, due, next_of


def started(offer: Offer, around: Around) -> Step:
    """An account begins with a plan: charged at once, or after a trial that it has once."""
    terms, at = offer.terms, around.at
    is_trial = _has_trial(offer) and not around.had_trial
    lines = [] if is_trial else [*plan_lines(offer), *setup_lines(terms)]
    fresh = _subscription(offer, around)
    if is_trial:
        end = day_after(at, terms.trial_days, around.zone)
        fresh = replace(fresh, status="trialing", anchor_at=end, number=0, period_start=at, period_end=end)
        fresh = _with_refills(fresh, terms, around.zone)
    else:
        fresh = _in_period(fresh, at, 0, terms, around.zone)
    return _step(offer, around, fresh, lines, kind="start", is_trial=is_trial)


def renewed(offer: Offer, around: Around, *, restarts: bool = False) -> Step:
    """The next period, for its own date ``around.at``; on what was scheduled for it, if anything.

    ``restarts``: dates are counted from here, as after a pause or where the cadence changes.
    """
    before = _running(around)
    period = around.period
    assert period is not None
    is_new_count = restarts or offer.cadence != before.cadence
    lines = [*plan_lines(offer)]
    if period.is_trial:
        lines += setup_lines(offer.terms)
    lines += minimum_lines(around, 0, is_whole=True)
    lines += owed_lines(around, offer.terms.denomination)
    credit = earlier_credit(around, offer.terms.denomination, sum(charged(line, offer) for line in lines))
    if credit:
        lines.append(Line("credit", "Credit of an earlier change", -credit, offer.terms.denomination))
    fresh = replace(_onto(before, offer), status="active")
    if is_new_count:
        fresh = replace(fresh, anchor_at=around.at, number=0)
    fresh = _in_period(fresh, around.at, fresh.number, offer.terms, around.zone)
    return replace(_step(offer, around, fresh, lines, kind="renewal"), credit_used=credit)


def refilled(around: Around) -> Step:
    """The balances of a year's period are filled for another month; nothing is charged."""
    before, terms = _running(around), around.terms
    assert terms is not None
    assert around.period is not None
    units = granted(included(terms, before.variable_units), around, is_free=around.period.price == 0)
    ends = ending(around, terms, rolls_over=True)
    number = before.refill_number + 1
    assert before.period_start is not None
    at = monthly(before.period_start, number, around.zone)
    is_last = before.period_end is not None and at >= before.period_end
    after = replace(before, refill_number=number, refill_at=None if is_last else at)
    return Step(
        kind="refill",
        at=around.at,
        denomination=terms.denomination,
        cancelled=ends.cancelled,
        granted=units,
        ends=ends.ids,
        left=ends.left,
        until_at=after.refill_at or after.period_end,
        subscription=replace(after, next_at=next_of(after)),
    )


def changed(offer: Offer, scheme: Scheme, around: Around) -> Step:
    """Another plan, version, cadence or number of units, by one of the three schemes (contract 3.4, design 11)."""
    match scheme:
        case "sleeping_beauty":
            return _scheduled(offer, around)
        case "snow_white":
            return _added(offer, around)
        case _:
            return restarted(offer, around, unused_credit(around), kind="change", scheme="ariel")


def _scheduled(offer: Offer, around: Around) -> Step:
    """Nothing now; from the next renewal on."""
    before = _running(around)
    later = {
        "plan_id": offer.plan_id,
        "version_id": offer.version_id,
        "override_id": offer.override_id,
        "cadence": offer.cadence,
        "variable_units": dict(offer.units),
    }
    if before.period_end is None:
        raise invalid("scheme", "sleeping_beauty waits for a renewal, and this plan was bought once; use ariel.")
    after = replace(before, scheduled=later, cancels_at_end=False)
    return replace(_only(after, offer.terms.denomination, around), scheme="sleeping_beauty")


def _added(offer: Offer, around: Around) -> Step:
    """The difference is charged and granted now, and the period stays as it is.

    Measured by what the period was paid for and has given: to and fro comes to no more than the dearest plan on the
    way (bar I-59). A step down charges, grants and takes nothing. A plan that costs more and includes less of something
    is refused: what the old one gave could not stay and be paid for.
    """
    before, period, old = _unpaused(around), around.period, around.terms
    assert period is not None
    assert old is not None
    if offer.cadence != before.cadence:
        raise invalid("scheme", "snow_white keeps the period, so it cannot change the cadence; use ariel.")
    if before.cadence == "YEARLY" and offer.terms.refills_monthly != old.refills_monthly:
        raise invalid("scheme", "snow_white keeps the dates on which balances are filled; use ariel.")
    if offer.terms.denomination != period.denomination:
        raise invalid(
            "scheme", f"snow_white charges a difference, and the plan in force is paid in {period.denomination}."
        )
    if before.status == "past_due" or (before.period_end is not None and before.period_end <= around.at):
        raise Refusal("plan_not_paid")
    if offer.terms.minimum_spend != old.minimum_spend:
        raise invalid("scheme", "snow_white keeps the period, and what is to be spent in it; use ariel.")
    given = given_in(around, period.id)
    units = included(offer.terms, offer.units)
    smaller = [name for name in given if units.get(name, 0) < given[name]]
    price = 0 if period.is_trial else offer.price
    lines: list[Line] = []
    more: dict[str, int] = {}
    if not smaller:
        due = max(0, price - period.price)
        if due:
            lines.append(Line("plan", f"{offer.terms.name}: difference for this period", due, period.denomination))
        more = {name: amount - given.get(name, 0) for name, amount in units.items() if amount > given.get(name, 0)}
        more = granted(more, around, is_free=price == 0)
    elif price > period.price:
        raise invalid(
            "scheme",
            f"snow_white adds to what this period has given, and the plan includes fewer {smaller[0]}; use ariel.",
        )
    charge = sum(line.amount for line in lines)
    raised = replace(
        period,
        plan_id=offer.plan_id,
        version_id=offer.version_id,
        override_id=offer.override_id,
        price=max(price, period.price),
    )
    return Step(
        kind="change",
        scheme="snow_white",
        at=around.at,
        denomination=period.denomination,
        lines=tuple(lines),
        charge=charge,
        granted=more,
        until_at=before.refill_at or before.period_end,
        period=raised,
        subscription=replace(_onto(before, offer), next_at=next_of(_onto(before, offer))),
    )


def restarted(offer: Offer, around: Around, credit: int, *, kind: StepKind, scheme: Scheme | None) -> Step:
    """The old period ends here, ``credit`` of its price is given back, and a new one begins with the whole new price.

    What a trial has left of time is kept: the change only swaps what it is a trial of; but what is sold without a trial
    is sold. A new period settles what the balance owes, like a renewal.
    """
    before, period = _unpaused(around), around.period
    assert period is not None
    if period.is_trial and period.end_at is not None and period.end_at > around.at and _has_trial(offer):
        return _swapped(offer, around, kind, scheme)
    lines = [*plan_lines(offer), *minimum_lines(around, credit, is_whole=False)]
    if period.is_trial:
        lines += setup_lines(offer.terms)
    lines += owed_lines(around, offer.terms.denomination)
    if credit:
        lines.append(Line("proration", "Unused part of the period that ends", -credit, period.denomination))
    fresh = replace(_onto(before, offer), status="active", anchor_at=around.at, number=0)
    fresh = _in_period(fresh, around.at, 0, offer.terms, around.zone)
    return _step(offer, around, fresh, lines, kind=kind, scheme=scheme, credit=credit)


def _swapped(offer: Offer, around: Around, kind: StepKind, scheme: Scheme | None) -> Step:
    """A trial of something else: until the same day, with the units of the new plan, for nothing."""
    before, period = _running(around), around.period
    assert period is not None
    fresh = replace(_onto(before, offer), period_start=around.at)
    fresh = _with_refills(fresh, offer.terms, around.zone)
    return _step(offer, around, fresh, [], kind=kind, scheme=scheme, is_trial=True)


def cancelled(around: Around, *, at_end: bool, prorates: bool) -> Step:
    """The plan ends: with its period, or now, with what is unused given back where ``prorates`` says so."""
    if around.subscription is not None and around.subscription.status == "pending_card":
        return replace(_forgotten(around.subscription, around), kind="cancel")
    before, period, terms = _running(around), around.period, around.terms
    assert period is not None
    assert terms is not None
    is_over = before.period_end is not None and around.at >= before.period_end
    if at_end and not is_over:
        after = replace(before, cancels_at_end=True, scheduled=None)
        if after.status == "paused":
            # A pause would keep it from its end.
            after = replace(after, status="trialing" if period.is_trial else "active")
        return replace(_only(after, terms.denomination, around), kind="cancel")
    credit = unused_credit(around) if prorates else 0
    lines = [*minimum_lines(around, credit, is_whole=is_over), *owed_lines(around, period.denomination)]
    if credit:
        lines.append(Line("proration", "Unused part of the period that ends", -credit, period.denomination))
    # What was given for nothing stays no longer than its time, or it could be had again and again.
    ends = ending(around, terms, rolls_over=not credit and (is_over or period.price > 0))
    after = replace(
        before,
        status="cancelled",
        refill_at=None,
        scheduled=None,
        cancels_at_end=False,
        payment_id=None,
        next_at=None,
        ended_at=around.at,
    )
    return Step(
        kind="cancel",
        at=around.at,
        denomination=period.denomination,
        lines=tuple(lines),
        charge=max(0, sum(line.amount for line in lines)),
        credit=credit,
        cancelled=ends.cancelled,
        ends=ends.ids,
        left=ends.left,
        closes=replace(period, ended_at=around.at, credited=credit),
        subscription=after,
    )


def _forgotten(waiting: Subscription, around: Around) -> Step:
    """A plan that waits for a card waits no longer."""
    assert around.terms is not None
    after = replace(waiting, status="cancelled", next_at=None, ended_at=around.at)
    return Step(kind="cancel", at=around.at, denomination=around.terms.denomination, subscription=after)


def paused(around: Around) -> Step:
    """No renewal until it is taken up again. What was paid for stays until then."""
    before = _running(around)
    if before.status not in {"active", "trialing"}:
        raise Refusal("plan_not_active", status=before.status)
    terms = around.terms
    assert terms is not None
    return _only(replace(before, status="paused"), terms.denomination, around)


def resumed(around: Around) -> Step:
    """Taken up again: the period goes on, or where it is over the next one is due now and counted from now."""
    before, terms = _running(around), around.terms
    assert terms is not None
    assert around.period is not None
    if before.status != "paused":
        raise Refusal("plan_not_paused", status=before.status)
    after = replace(before, status="trialing" if around.period.is_trial else "active")
    if after.period_end is not None and after.period_end < around.at:
        after = replace(after, period_end=around.at, anchor_at=around.at, number=0, refill_at=None)
    return _only(after, terms.denomination, around)


def reinstated(around: Around) -> Step:
    """What was to happen at the end of the period, an end or a change, is not to happen."""
    before, terms = _running(around), around.terms
    assert terms is not None
    if not before.cancels_at_end and before.scheduled is None:
        raise Refusal("nothing_scheduled")
    return _only(replace(before, cancels_at_end=False, scheduled=None), terms.denomination, around)


def late(step: Step, around: Around) -> Step:
    """A renewal that was paid so late that its own period would be over: it begins when it was paid.

    Nobody pays for a time in which the plan was not paid for and could not be used.
    """
    period = step.period
    if step.kind != "renewal" or period is None or period.end_at is None or period.end_at > around.at:
        return step
    fresh = replace(step.subscription, anchor_at=around.at, number=0)
    end = due(around.at, 1, fresh.cadence, around.zone)
    assert end is not None
    has_refills = step.subscription.refill_at is not None
    refill_at = monthly(around.at, 1, around.zone) if has_refills else None
    fresh = replace(
        fresh,
        number=1,
        period_start=around.at,
        period_end=end,
        refill_number=1 if has_refills else 0,
        refill_at=refill_at,
    )
    fresh = replace(fresh, renewed_at=around.at, next_at=next_of(fresh))
    assert around.terms is not None
    ends = ending(around, around.terms, rolls_over=True)
    return replace(
        step,
        at=around.at,
        cancelled=ends.cancelled,
        left=ends.left,
        period=replace(period, start_at=around.at, end_at=end, spent_before=around.purse(step.denomination).spent),
        subscription=fresh,
        until_at=refill_at or end,
    )


def _running(around: Around) -> Subscription:
    if around.subscription is None or not around.subscription.is_running:
        raise Refusal("no_plan")
    return around.subscription


def _unpaused(around: Around) -> Subscription:
    """The running subscription, for what would charge it; a pause ends by resuming, not by the way."""
    found = _running(around)
    if found.status == "paused":
        raise Refusal("plan_not_active", status=found.status)
    return found


def _has_trial(offer: Offer) -> bool:
    return offer.terms.trial_days > 0 and offer.cadence != "ONE_OFF"


def _onto(subscription: Subscription, offer: Offer) -> Subscription:
    """The subscription on another offer; what was scheduled or could not be paid is over with that."""
    return replace(
        subscription,
        plan_id=offer.plan_id,
        version_id=offer.version_id,
        override_id=offer.override_id,
        cadence=offer.cadence,
        variable_units=offer.units,
        scheduled=None,
        cancels_at_end=False,
        payment_id=None,
        declines=0,
    )


def _subscription(offer: Offer, around: Around) -> Subscription:
    return Subscription(
        account_id=around.account_id,
        environment_id=around.environment_id,
        plan_id=offer.plan_id,
        version_id=offer.version_id,
        override_id=offer.override_id,
        cadence=offer.cadence,
        status="active",
        zone=around.zone_name,
        anchor_at=around.at,
        number=0,
        period_id=0,
        period_start=None,
        period_end=None,
        refill_number=0,
        refill_at=None,
        variable_units=offer.units,
        scheduled=None,
        cancels_at_end=False,
        payment_id=None,
        declines=0,
        next_at=None,
        renewed_at=None,
        created_at=around.at,
        ended_at=None,
    )


def pending(offer: Offer, around: Around) -> Subscription:
    """A plan that waits for a card: nothing is granted, and nothing is charged before there is one."""
    return replace(_subscription(offer, around), status="pending_card")


def _in_period(
    subscription: Subscription, start: datetime, number: int, terms: PlanTerms, zone: tzinfo
) -> Subscription:
    """The subscription in the period that begins at ``start`` with renewal ``number`` of its anchor."""
    end = due(subscription.anchor_at, number + 1, subscription.cadence, zone)
    after = replace(subscription, number=number + 1, period_start=start, period_end=end, renewed_at=start)
    return _with_refills(after, terms, zone)


def _with_refills(subscription: Subscription, terms: PlanTerms, zone: tzinfo) -> Subscription:
    """The subscription with when its balances are filled next within the period, where that is every month."""
    refill_number, refill_at = 0, None
    start, end = subscription.period_start, subscription.period_end
    if terms.refills_monthly and subscription.cadence == "YEARLY" and start is not None and end is not None:
        at = monthly(start, 1, zone)
        refill_number, refill_at = 1, at if at < end else None
    after = replace(subscription, refill_number=refill_number, refill_at=refill_at)
    return replace(after, next_at=next_of(after))


def _step(
    offer: Offer,
    around: Around,
    fresh: Subscription,
    lines: list[Line],
    *,
    kind: StepKind,
    scheme: Scheme | None = None,
    credit: int = 0,
    is_trial: bool = False,
) -> Step:
    """A step that begins a period: the old one, if any, is closed, its units end, those of the new one come."""
    old, denomination, price = around.period, offer.terms.denomination, 0 if is_trial else offer.price
    ends, closes = Ending({}, {}, ()), None
    if around.subscription is not None and around.subscription.is_running and around.terms is not None:
        assert old is not None
        # What a trial has left of units ends with it.
        ends = ending(around, around.terms, rolls_over=kind == "renewal" and not old.is_trial)
        ended_at = min(around.at, old.end_at or around.at)
        closes = replace(old, ended_at=ended_at, credited=old.credited + credit)
    period = Period(
        account_id=around.account_id,
        id=NEW_PERIOD,
        environment_id=around.environment_id,
        plan_id=offer.plan_id,
        version_id=offer.version_id,
        override_id=offer.override_id,
        cadence=offer.cadence,
        is_trial=is_trial,
        start_at=around.at,
        end_at=fresh.period_end,
        ended_at=None,
        denomination=denomination,
        price=price,
        credited=0,
        spent_before=around.purse(denomination).spent,
        created_at=around.at,
    )
    units = included(offer.terms, offer.units)
    return Step(
        kind=kind,
        scheme=scheme,
        at=around.at,
        denomination=denomination,
        subscription=replace(fresh, period_id=NEW_PERIOD),
        lines=tuple(lines),
        charge=max(0, sum(charged(line, offer) for line in lines)),
        credit=credit,
        cancelled=ends.cancelled,
        granted=granted(units, around, is_free=price == 0, ends_of=offer.plan_id),
        ends=ends.ids,
        left=ends.left,
        until_at=fresh.refill_at or fresh.period_end,
        period=period,
        closes=closes,
    )


def _only(subscription: Subscription, denomination: str, around: Around) -> Step:
    """A step that moves nothing now. What is past due is asked for again when it would have been."""
    # A renewal that was skipped or failed is given up with this (store.subscriptions.carry_out), and worked out anew.
    after = replace(subscription, payment_id=None)
    after = replace(after, next_at=subscription.next_at if after.status == "past_due" else next_of(after))
    return Step(kind="change", at=around.at, denomination=denomination, subscription=after)
