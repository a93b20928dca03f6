"""One account on plans, all of it in memory, kept as the store keeps it: what a step of a plan really comes to.

A ``PlanLife`` decides steps with ``core.lifecycle``, lets a made-up card pay for them and carries them out with
``core.effect``. It uses units, lets time pass, and works out every sum again from the transactions (``audit``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from tenuto.core import lifecycle
from tenuto.core.effect import Effect, Way, effect_of, expired, on_card, way_of
from tenuto.core.event import AccountState
from tenuto.core.grant import MANUAL_PRIORITY, Grant, Purse, as_before, burned_down, left_of, opened
from tenuto.core.ledger import (
    ADJUSTMENT_BOOK,
    GRANT_BOOK,
    OVERAGE_BOOK,
    PAYMENT_BOOK,
    USAGE_BOOK,
    Transaction,
    move,
    open_balance,
)
from tenuto.core.outcomes import Refusal
from tenuto.core.plan import Cadence, PlanTerms, Scheme, checked_cadence, checked_units, plan_terms
from tenuto.core.proration import modified_credit
from tenuto.core.subscription import Around, Offer, Period, Step, Subscription

START: Final = datetime(2030, 1, 16, 12, tzinfo=UTC)
ACCOUNT_ID: Final = 78364164096
TAKES: Final = frozenset({USAGE_BOOK, OVERAGE_BOOK})
Card = Literal["yes", "no", "slow", "none"]


def sold(
    name: str,
    price: int | Mapping[str, int],
    balances: Mapping[str, int | Mapping[str, Any]] | int,
    *,
    denomination: str = "USD",
    **more: Any,
) -> PlanTerms:
    """Terms in short: a price by the month or by cadence, and the tokens (or all balances) that come with it."""
    by_cadence = {"MONTHLY": price} if isinstance(price, int) else price
    units = {"tokens": balances} if isinstance(balances, int) else balances
    return plan_terms(
        {
            "name": name,
            "renewal_denomination": denomination,
            "renewals": {cadence: {"amount": amount} for cadence, amount in by_cadence.items()},
            "balances": {key: {"amount": had} if isinstance(had, int) else had for key, had in units.items()},
            **more,
        }
    )


def offer_of(
    plan_id: int, terms: PlanTerms, cadence: Cadence | None = None, units: Mapping[str, int] | None = None
) -> Offer:
    """A plan as an account is sold it; its only version has ten times its id."""
    chosen = checked_units(terms, units or {})
    return Offer(plan_id, 10 * plan_id, None, terms, checked_cadence(terms, cadence), chosen)


@dataclass
class PlanLife:
    """An account, what it paid, and all its rows.

    ``card`` is what it says when it is asked; a slow one is answered for by ``answer``. ``sweeps_late``: what is due
    is done only when somebody asks for something (``sweep``).
    """

    now: datetime = START
    zone: str = "UTC"
    card: Card = "yes"
    by_invoice: bool = False
    owed: int = 0
    sweeps_late: bool = False
    tick: int = 0
    paid: int = 0
    state: AccountState = field(default_factory=lambda: AccountState(ACCOUNT_ID, 1, 0, None, False, {}, {}, None))
    transactions: list[Transaction] = field(default_factory=list)
    grants: dict[int, Grant] = field(default_factory=dict)
    burned: dict[str, int] = field(default_factory=dict)
    periods: dict[int, Period] = field(default_factory=dict)
    terms: dict[int, PlanTerms] = field(default_factory=dict)
    subscription: Subscription | None = None
    steps: list[tuple[Step, Effect, int]] = field(default_factory=list)
    waiting: Step | None = None
    is_asked: bool = False
    payments: set[int] = field(default_factory=set)

    # --- what it looks like

    def amount(self, denomination: str) -> int:
        """What a balance holds; 0 where there is none."""
        balance = self.state.balances.get(denomination)
        return 0 if balance is None else balance.amount

    @property
    def running(self) -> Subscription:
        """The subscription, which is there."""
        assert self.subscription is not None
        return self.subscription

    @property
    def period(self) -> Period:
        """The running period."""
        return self.periods[self.running.period_id]

    @property
    def last(self) -> Step:
        """The step that was carried out last."""
        return self.steps[-1][0]

    def left(self, denomination: str) -> int:
        """What is left of the open grants of a balance."""
        return left_of(self.purse(denomination, self.now, self.tick).grants)

    def purse(self, denomination: str, at: datetime, tick: int | None) -> Purse:
        """The grants of a balance as of a moment: by the tick that the account had, else by the time."""
        own = [one for one in self.transactions if one.denomination == denomination]
        done = {effect.step_id for _, effect, _ in self.steps} | self.payments
        later = [
            one
            for one in own
            if (one.recorded_at >= at and one.cause_id not in done if tick is None else one.id > tick)
        ]
        arrived = sum(one.amount for one in own if one.book not in TAKES)
        open_grants = [
            one
            for one in self.grants.values()
            if one.denomination == denomination and not one.closed_at and not _came_later(one, at, tick)
        ]
        order = sorted(open_grants, key=lambda one: (one.priority, one.expires_at or datetime.max.replace(tzinfo=UTC)))
        known = Purse(denomination, self.amount(denomination), arrived, self.burned.get(denomination, 0), tuple(order))
        used = -sum(one.amount for one in later if one.book in TAKES)
        came = sum(one.amount for one in later if one.book not in TAKES)
        return burned_down(as_before(known, used=used, arrived=came))

    def around(self, offer: Offer | None = None, *, at: datetime | None = None, tick: int | None = None) -> Around:
        """What a step depends on, as of now unless told."""
        at, tick = (self.now, self.tick) if at is None else (at, tick)
        known = self.subscription
        plan_id = offer.plan_id if offer else known.plan_id if known else 0
        names = {one.denomination for one in self.transactions}
        used: dict[str, int] = {}
        for grant in self.grants.values():
            free = grant.period_id in self.periods and not self.periods[grant.period_id].price
            runs = grant.until_at is None or grant.until_at > at
            if grant.plan_id == plan_id and grant.closed_at and runs and free:
                used[grant.denomination] = used.get(grant.denomination, 0) + grant.units - grant.left
        return Around(
            account_id=ACCOUNT_ID,
            environment_id=1,
            state=self.state,
            purses={name: self.purse(name, at, tick) for name in sorted(names)},
            subscription=known,
            period=None if known is None else self.periods.get(known.period_id),
            terms=None if known is None else self.terms[known.version_id],
            zone_name=self.zone,
            zone=ZoneInfo(self.zone),
            at=at,
            owed=self.owed,
            by_invoice=self.by_invoice,
            invoiced=frozenset({"USD"} if self.by_invoice else ()),
            had_trial=any(period.is_trial for period in self.periods.values()),
            used_free=used,
        )

    # --- what the account and its company do

    def start(self, offer: Offer) -> Step:
        """Begin with a plan."""
        return self.do(lambda around: lifecycle.started(offer, around), offer)

    def change(self, offer: Offer, scheme: Scheme) -> Step:
        """Change the plan by a scheme."""
        return self.do(lambda around: lifecycle.changed(offer, scheme, around), offer)

    def look(self, offer: Offer, scheme: Scheme) -> Step:
        """What a change would come to; nothing is done."""
        return lifecycle.changed(offer, scheme, self.around(offer))

    def modify(self, offer: Offer, denomination: str = "tokens") -> Step:
        """Another amount for another price, mid-month (contract 3.3)."""

        def decide(around: Around) -> Step:
            credit = modified_credit(around, denomination)
            return lifecycle.restarted(offer, around, credit, kind="modify", scheme=None)

        return self.do(decide, offer)

    def cancel(self, *, at_end: bool = False, prorates: bool = False) -> Step:
        """End the plan."""
        return self.do(lambda around: lifecycle.cancelled(around, at_end=at_end, prorates=prorates))

    def use(self, denomination: str, units: int, *, book: str = USAGE_BOOK) -> None:
        """Use units, whether they are there or not."""
        self._move(denomination, -units, book)

    def adjust(self, denomination: str, units: int) -> None:
        """Put units on a balance."""
        self._move(denomination, units, ADJUSTMENT_BOOK)

    def give(self, denomination: str, units: int, *, priority: int = MANUAL_PRIORITY, days: int | None = None) -> Grant:
        """Give units by hand, as the service does."""
        before = self.purse(denomination, self.now, self.tick)
        grant = Grant(
            account_id=ACCOUNT_ID,
            id=self.tick + 1,
            environment_id=1,
            denomination=denomination,
            source="manual",
            units=units,
            left=units,
            priority=priority,
            price=0,
            price_denomination="USD",
            plan_id=None,
            period_id=None,
            until_at=None,
            expires_at=None if days is None else self.now + timedelta(days=days),
            reason="goodwill",
            created_at=self.now,
        )
        self.tick += 1
        self._move(denomination, units, GRANT_BOOK)
        self._keep(opened(before, [grant]))
        return self.grants[grant.id]

    def expire(self) -> None:
        """End the grants whose time is over, each as of its own date."""
        for at in sorted({one.expires_at for one in self.grants.values() if one.expires_at and not one.closed_at}):
            if at > self.now:
                break
            for name in sorted(self.state.balances):
                purse = self.purse(name, at, None)
                after, gone, made = expired(purse, self.state, at=at, tick=self.tick + 1, now=self.now)
                if made is not None:
                    self._write(made[0].denomination, made[1])
                self.grants.update({grant.id: grant for grant in gone})
                if gone:
                    self._keep(after)

    def wait(self, **by: float) -> None:
        """Let time pass; what falls due meanwhile is done at its time, unless the sweep is late."""
        self.until(self.now + timedelta(**by))

    def until(self, at: datetime) -> None:
        """Let time pass until a moment."""
        while not self.sweeps_late and (due := self._due()) is not None and due <= at:
            self.now = max(self.now, due)
            self.renew()
        self.now = at

    def sweep(self) -> None:
        """Do all that is due, each for its own date, however late."""
        while (due := self._due()) is not None and due <= self.now:
            self.renew()

    def renew(self) -> Step:
        """Take the plan one step on, as the sweep does."""
        known = self.running
        at = known.period_end if known.status == "past_due" else known.next_at
        assert at is not None
        terms = self.terms[known.version_id]
        offer = Offer(known.plan_id, known.version_id, known.override_id, terms, known.cadence, known.variable_units)
        if known.period_end is None or known.period_end > at:
            step = lifecycle.refilled(self.around(at=at))
        elif known.cancels_at_end:
            step = lifecycle.cancelled(self.around(at=at), at_end=False, prorates=False)
        else:
            if known.scheduled:
                offer = self._scheduled(known)
            restarts = known.number == 0 and known.anchor_at == known.period_end
            step = lifecycle.renewed(offer, self.around(offer, at=at), restarts=restarts)
        return self._pay(step, offer)

    def retry(self) -> Step:
        """The renewal that failed is asked for again, and paid."""
        step = self.waiting
        assert step is not None
        return self._paid(step)

    def answer(self) -> Step:
        """The slow card says yes, at last."""
        return self.retry()

    def do(self, decide: Callable[[Around], Step], offer: Offer | None = None) -> Step:
        """Decide a step, and pay for it or do it at once; not while another is being paid for."""
        self.sweep()
        if self.is_asked:
            raise Refusal("plan_change_in_progress")
        if offer is not None:
            self.terms[offer.version_id] = offer.terms
        step = replace(decide(self.around(offer)), tick=self.tick)
        return self._pay(step, offer)

    def way(self, step: Step) -> Way:
        """How a step is paid."""
        around = self.around(at=step.at, tick=step.tick)
        try:
            return way_of(step, around, has_card=self.card != "none", limit=0)
        except Refusal as refusal:
            if step.kind == "renewal" and refusal.code == "payment_method_required":
                return "card"
            raise

    # --- what is kept

    def audit(self) -> None:
        """Every sum again: balances, what grants hold, and what money came to."""
        for name, balance in self.state.balances.items():
            own = [one for one in self.transactions if one.denomination == name]
            assert balance.amount == sum(one.amount for one in own)
            assert all(before.ending_balance == after.starting_balance for before, after in pairwise(own))
            purse = self.purse(name, self.now, self.tick)
            assert sum(grant.left for grant in purse.grants) <= max(0, balance.amount)
        assert all(0 <= grant.left <= grant.units for grant in self.grants.values())
        assert self.paid == sum(one.amount for one in self.transactions if one.book == PAYMENT_BOOK)
        ordered = sorted(self.periods.values(), key=lambda one: (one.start_at, one.id))
        assert all(
            before.ended_at is not None and before.ended_at <= after.start_at for before, after in pairwise(ordered)
        )

    def _pay(self, step: Step, offer: Offer | None) -> Step:
        way = self.way(step)
        if way == "none":
            return self._carry_out(replace(step, charge=0), 0)
        if way == "balance":
            return self._carry_out(step, 0)
        step = replace(step, charge=on_card(step.charge, step.denomination))
        if self.card == "yes":
            return self._paid(step)
        if self.card == "slow":
            self.waiting, self.is_asked = step, True
        elif step.kind == "renewal":
            self.waiting = step
            self.subscription = replace(self.running, status="past_due", next_at=None)
        return step

    def _paid(self, step: Step) -> Step:
        self.paid += step.charge
        self._move(step.denomination, step.charge, PAYMENT_BOOK)
        done = self._carry_out(step, step.charge)
        self.payments.update(one.id for one in self.transactions if one.book == PAYMENT_BOOK)
        return done

    def _carry_out(self, step: Step, paid: int) -> Step:
        """The same as ``store.subscriptions.carry_out``, on rows in memory."""
        at, tick = step.at, step.tick
        past_due = self.subscription is not None and self.subscription.status == "past_due"
        if past_due and step.kind == "renewal":
            late = lifecycle.late(step, self.around())
            if late is not step:
                # What came in with this payment is added by the step itself.
                at, tick, step = self.now, self.tick - (paid > 0), late
        around = self.around(at=at, tick=tick)
        terms = self.terms[step.subscription.version_id]
        effect = effect_of(step, around, self.state, terms, tick=self.tick + 1, paid=paid, now=self.now)
        for _, made in effect.moves:
            if made is not None:
                self._write(made.denomination, made)
        self.tick = max(self.tick, effect.tick)
        self.state = self.state._replace(
            balances={**self.state.balances, **{one.denomination: one for one, _ in effect.moves}}, tick=self.tick
        )
        self.grants.update({grant.id: grant for grant in effect.grants})
        self.burned.update(effect.burned)
        self.periods.update({period.id: period for period in effect.periods})
        self.subscription, self.waiting, self.is_asked = effect.subscription, None, False
        self.steps.append((step, effect, paid))
        return step

    def _scheduled(self, known: Subscription) -> Offer:
        after = replace(known, **dict(known.scheduled or {}))
        terms = self.terms[after.version_id]
        return Offer(after.plan_id, after.version_id, after.override_id, terms, after.cadence, after.variable_units)

    def _due(self) -> datetime | None:
        return None if self.subscription is None or self.is_asked else self.subscription.next_at

    def _keep(self, purse: Purse) -> None:
        self.grants.update({grant.id: grant for grant in purse.grants})
        self.burned[purse.denomination] = purse.burned

    def _move(self, denomination: str, amount: int, book: str) -> None:
        if amount:
            balance = self.state.balances.get(denomination) or open_balance(denomination)
            _, made = move(
                balance,
                amount,
                id=self.tick + 1,
                book=book,
                type="TEST",
                description="",
                now=self.now,
                cause_id=self.tick + 1,
            )
            self._write(denomination, made)

    def _write(self, denomination: str, made: Transaction) -> None:
        self.transactions.append(made)
        self.tick = max(self.tick, made.id)
        balance = self.state.balances.get(denomination) or open_balance(denomination)
        kept = balance._replace(amount=made.ending_balance, seq=made.seq)
        self.state = self.state._replace(balances={**self.state.balances, denomination: kept}, tick=self.tick)


def _came_later(grant: Grant, at: datetime, tick: int | None) -> bool:
    """Whether a grant was given by hand after a moment; those of steps come in the order of their dates."""
    return grant.source == "manual" and (grant.created_at >= at if tick is None else grant.id > tick)
