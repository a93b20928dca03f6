"""Carrying out a step: which rows it moves, opens and closes, all in one unit.

The problem, on one example. Ariel from Basic to Pro was worked out at noon: 750 tokens end, 5,000 come, 4,000 cents
less 500 are charged. The card says yes a minute later, when 20 more tokens were used:

    balance   noon   a minute later   rows                                       after
    tokens    750    730              -750 expiry, +5000 grant                   4980: the 20 were used of the new ones
    USD       0      0                +3500 payment, -4000 plan, +500 proration  0

A step is carried out as it was worked out, as if it had been done at its own date: what was used since then is burned
of what it brings. So a preview, a slow bank and a late sweep all come to the same. Sources: design 7 (A card must say
yes), design 11 (Changes), bar I-53, I-54 and I-60.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final, Literal, NamedTuple

from .cards import maximum, minimum, to_stripe
from .event import AccountState
from .grant import CREDIT_PRIORITY, PLAN_PRIORITY, Grant, Purse, burned_down, closed, left_of, opened, taken_from
from .ledger import EXPIRY_BOOK, GRANT_BOOK, PLAN_BOOK, PRORATION_BOOK, Balance, Transaction, move, open_balance
from .money import Exact, allocate, is_fiat
from .outcomes import Refusal
from .plan import PlanTerms
from .refill import Refill, new_refill
from .subscription import NEW_PERIOD, SOLD, Around, Line, Period, Step, Subscription

_TYPES: Final[Mapping[str, str]] = {"start": "PLAN_START", "renewal": "PLAN_RENEWAL", "refill": "PLAN_RENEWAL"}
_SAID: Final[Mapping[str, str]] = {
    "start": "begins",
    "renewal": "renewed",
    "refill": "filled again",
    "change": "changed",
    "modify": "changed",
    "cancel": "ended",
}


Way = Literal["none", "card", "balance"]


class Effect(NamedTuple):
    """What a step writes. ``moves`` in their order; ``grants`` are new or changed; ``burned`` by denomination.

    ``tick`` is the largest id that was given; ``step_id`` the first.
    """

    step_id: int
    tick: int
    moves: tuple[tuple[Balance, Transaction | None], ...]
    subscription: Subscription
    periods: tuple[Period, ...]
    grants: tuple[Grant, ...]
    burned: Mapping[str, int]


def effect_of(
    step: Step, around: Around, state: AccountState, terms: PlanTerms, *, tick: int, paid: int, now: datetime
) -> Effect:
    """Everything that a step does.

    ``around`` are the purses as of the step's date, ``state`` the balances as they are now (a payment's credit is in
    them), ``terms`` those the subscription is on afterwards, ``paid`` what came in for it. Ids begin at ``tick``.
    Raises Refusal ``balance_out_of_range``.
    """
    ledger = _Moves(state, tick, step, terms, now)
    period, subscription = step.period, step.subscription
    if period is not None and period.id == NEW_PERIOD:
        period = replace(period, id=tick)
        subscription = replace(subscription, period_id=tick)
    step = replace(step, period=period, subscription=subscription)
    if subscription.is_running:
        for name in terms.balances:
            ledger.open(name)
    changed: list[Grant] = []
    burned: dict[str, int] = {}
    for name in _touched(step, around):
        purse, gone = _carried_out(step, around, name, ledger, paid if name == step.denomination else 0)
        changed.extend((*gone, *purse.grants))
        burned[name] = purse.burned
    return Effect(
        step_id=tick,
        tick=ledger.last_id,
        moves=tuple(ledger.made),
        subscription=subscription,
        periods=tuple(found for found in (step.closes, period) if found is not None),
        grants=tuple(changed),
        burned=burned,
    )


def _carried_out(step: Step, around: Around, name: str, ledger: _Moves, paid: int) -> tuple[Purse, tuple[Grant, ...]]:
    """What a step does to one balance: the purse after it, and the grants that it closed."""
    before = around.purse(name)
    cancelled = step.cancelled.get(name, 0)
    sold, credit = _posted(step, name)
    units = step.granted.get(name, 0)
    ledger.move(name, -cancelled, EXPIRY_BOOK, "CANCEL_REMAINING")
    ledger.move(name, -sold, PLAN_BOOK)
    ledger.move(name, credit, PRORATION_BOOK)
    ledger.move(name, units, GRANT_BOOK)
    without, gone = closed(before, step.ends, now=ledger.now, cancelled=cancelled)
    # What somebody's gift has burned of them since the step's moment is burned of what the step brings instead.
    again = max(0, step.left.get(name, 0) - left_of(gone))
    without = without._replace(burned=without.burned - again)
    spare = 0 if name in around.invoiced else max(0, credit - sold)
    moved = credit + paid - sold - spare
    after = without._replace(amount=without.amount + moved, arrived=without.arrived + moved)
    if step.credit_used and name == step.denomination:
        after = taken_from(after, step.credit_used, source="credit")
    new = _plan_grants(step, around, name, units, ledger.grant_id)
    if spare:
        new += (_credit_grant(around, name, spare, ledger.grant_id, step.at),)
    return opened(burned_down(after), new), gone


def expired(
    purse: Purse, state: AccountState, *, at: datetime, tick: int, now: datetime
) -> tuple[Purse, tuple[Grant, ...], tuple[Balance, Transaction] | None]:
    """The purse after the grants whose time was over at ``at``, those grants, and the move that takes their rest."""
    ending = [grant for grant in purse.grants if grant.expires_at is not None and grant.expires_at <= at]
    units = sum(grant.left for grant in ending)
    after, gone = closed(purse, [grant.id for grant in ending], now=now, cancelled=units)
    if not units:
        return after, gone, None
    made = move(
        state.balances[purse.denomination],
        -units,
        id=tick,
        book=EXPIRY_BOOK,
        type="EXPIRY",
        description="Units that were given until now",
        now=now,
        cause_id=tick,
    )
    return after, gone, made


def way_of(step: Step, around: Around, *, has_card: bool, limit: int) -> Way:
    """How the charge of a step is paid: by card, from the balance it is charged to, or not now.

    ``none``: nothing is due, an invoice will ask for it, or it is less than a card can be charged and is carried as
    owed (design 11, Captures). ``limit`` is how far that balance may go below zero. Raises Refusal
    ``payment_method_required``, ``amount_not_chargeable``, ``insufficient_balance`` or ``credit_limit_reached``.
    """
    charge, name = step.charge, step.denomination
    if not charge or around.by_invoice:
        return "none"
    balance = around.state.balances.get(name) or open_balance(name)
    # Earlier credit is on that balance already: it lowers what a card is asked for, not what the balance has to hold.
    required = charge + step.credit_used + (balance.residue.numerator > 0)
    # Units that end with the step cannot pay for it.
    held = balance.available - step.cancelled.get(name, 0)
    if is_fiat(name):
        return _way_of_money(step, name, owed=max(0, -balance.amount), has_card=has_card, is_held=required <= held)
    room = held + limit
    if required > room:
        raise Refusal(
            "credit_limit_reached" if limit > 0 else "insufficient_balance",
            denomination=name,
            available=held,
            pending=balance.pending,
            required=required,
            shortfall=required - room,
        )
    return "balance"


def _way_of_money(step: Step, currency: str, *, owed: int, has_card: bool, is_held: bool) -> Way:
    """How money is paid. What nobody waits for goes on: carried as owed where a card cannot be charged it."""
    is_awaited = step.kind not in {"renewal", "cancel"}
    if step.charge < minimum(currency):
        if not is_awaited or (has_card and step.charge + owed < minimum(currency)):
            return "none"
    elif step.charge > maximum(currency) and is_awaited:
        raise Refusal("amount_not_chargeable", minimum=minimum(currency), maximum=maximum(currency))
    if has_card:
        return "card"
    if not is_held:
        raise Refusal("payment_method_required")
    return "balance"


def as_paid(step: Step, way: Way, balance: Balance | None) -> Step:
    """The step with what is really charged now; ``balance`` is the one of its denomination.

    A little that was carried goes with what reaches the card's minimum; what is above its maximum stays owed.
    """
    name, charge = step.denomination, step.charge
    if way != "card":
        return step if way == "balance" else replace(step, charge=0)
    if charge < minimum(name):
        owed = 0 if balance is None else max(0, -balance.amount)
        line = Line("owed", f"Owed on the {name} balance", owed, name)
        return replace(step, charge=on_card(charge + owed, name), lines=(*step.lines, line))
    return replace(step, charge=on_card(min(charge, maximum(name)), name))


def on_card(charge: int, currency: str) -> int:
    """The charge as a card can be asked for it: rounded up, and the difference stays on the balance (bar R-5)."""
    while to_stripe(charge, currency) is None:
        charge += 1
    return charge


def plan_refills(
    terms: PlanTerms, known: Iterable[Refill], subscription: Subscription, now: datetime
) -> tuple[tuple[Refill, ...], tuple[str, ...]]:
    """How a plan's balances fill themselves: refills to keep, and balances whose plan-made refill is over.

    What the company set for a balance itself is left alone.
    """
    by_balance = {refill.denomination: refill for refill in known}
    keep: list[Refill] = []
    wanted = {name: balance.refill for name, balance in terms.balances.items() if balance.refill is not None}
    for name, rule in wanted.items():
        before = by_balance.get(name)
        if before is not None and not before.by_plan:
            continue
        overage = terms.balances[name].overage
        refill = before or new_refill(subscription.account_id, name, subscription.environment_id, now)
        keep.append(
            refill._replace(
                amount=rule.amount,
                threshold=rule.threshold,
                charge_amount=rule.charge,
                charge_denomination=terms.denomination if overage is None else overage.denomination,
                by_plan=True,
            )
        )
    over = tuple(name for name, refill in by_balance.items() if refill.by_plan and name not in wanted)
    return tuple(keep), over


def _touched(step: Step, around: Around) -> list[str]:
    names = {step.denomination, *step.cancelled, *step.granted, *(line.denomination for line in step.lines)}
    ends = frozenset(step.ends)
    names |= {name for name, purse in around.purses.items() if any(grant.id in ends for grant in purse.grants)}
    return sorted(names)


def _posted(step: Step, name: str) -> tuple[int, int]:
    """What a step sells in one denomination, and what it gives back."""
    here = [line for line in step.lines if line.denomination == name]
    sold = sum(line.amount for line in here if line.kind in SOLD)
    return sold, -sum(line.amount for line in here if line.kind == "proration")


def _plan_grants(step: Step, around: Around, name: str, units: int, id: int) -> tuple[Grant, ...]:
    if not units:
        return ()
    return (
        Grant(
            account_id=around.account_id,
            id=id,
            environment_id=around.environment_id,
            denomination=name,
            source="plan",
            units=units,
            left=units,
            priority=PLAN_PRIORITY,
            price=_price_of(step, name),
            price_denomination=step.denomination,
            plan_id=step.subscription.plan_id,
            period_id=step.subscription.period_id,
            until_at=step.until_at,
            expires_at=None,
            reason=_SAID[step.kind],
            created_at=step.at,
        ),
    )


def _price_of(step: Step, name: str) -> int:
    """The part of a step's price that stands for one balance's units: by units, and the parts add to the whole."""
    price = sum(line.amount for line in step.lines if line.kind in {"plan", "variable"})
    names, total = sorted(step.granted), sum(step.granted.values())
    parts = allocate(price, [Exact(price * step.granted[other], total) for other in names])
    return parts[names.index(name)]


def _credit_grant(around: Around, name: str, units: int, id: int, at: datetime) -> Grant:
    return Grant(
        account_id=around.account_id,
        id=id,
        environment_id=around.environment_id,
        denomination=name,
        source="credit",
        units=units,
        left=units,
        priority=CREDIT_PRIORITY,
        price=units,
        price_denomination=name,
        plan_id=None,
        period_id=None,
        until_at=None,
        expires_at=None,
        reason="credit of a plan change",
        created_at=at,
    )


class _Moves:
    """The rows of one step, numbered from its tick. The only mutable thing in this module; it never leaves it."""

    def __init__(self, state: AccountState, tick: int, step: Step, terms: PlanTerms, now: datetime) -> None:
        self.balances = dict(state.balances)
        self.tick = self.last_id = tick
        self.step, self.now = step, now
        self.type = _TYPES.get(step.kind, "PLAN_CHANGE")
        self.said = f"{terms.name} {_SAID[step.kind]}"
        self.made: list[tuple[Balance, Transaction | None]] = []

    @property
    def grant_id(self) -> int:
        """The next id, for a grant."""
        self.last_id += 1
        return self.last_id

    def open(self, name: str) -> None:
        if name not in self.balances:
            self.balances[name] = open_balance(name)
            self.made.append((self.balances[name], None))

    def move(self, name: str, amount: int, book: str, type: str | None = None) -> None:  # noqa: A002 - the contract's word
        if not amount:
            return
        self.last_id += 1
        after, made = move(
            self.balances.get(name) or open_balance(name),
            amount,
            id=self.last_id,
            book=book,
            type=type or self.type,
            description=self.said,
            now=self.now,
            cause_id=self.tick,
        )
        self.balances[name] = after
        self.made.append((after, made))
