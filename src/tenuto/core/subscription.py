"""An account on a plan: what it is on, the periods it has paid for, and the steps that take it from one to the next.

The problem, on one example. An account began on 31 January with a monthly plan, in Berlin:

    renewal   due           period                      why
    0         31 January    31 January to 1 March       what begins on the 29th, 30th or 31st comes again on a first
    1         1 March       1 March to 1 April          counted from the anchor, never from the one before
    2         1 April       1 April to 1 May            however late the sweep runs: each renewal is for its own date

Everything that is done to it is a :class:`Step`: worked out whole by ``lifecycle``, shown as a preview or carried out
as it stands by ``effect``. Nothing is written before a card has said yes. Sources: contract 3.1 to 3.4, design 11,
bar I-53.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import Any, Final, Literal, NamedTuple

from .event import AccountState
from .grant import Purse, empty
from .period import monthly, yearly
from .plan import Cadence, PlanTerms, Scheme, price_of

Status = Literal["pending_card", "trialing", "active", "past_due", "paused", "cancelled"]
StepKind = Literal["start", "renewal", "refill", "change", "modify", "cancel"]
LineKind = Literal["plan", "variable", "setup_fee", "minimum_spend", "proration", "owed", "credit"]

RUNNING: Final = frozenset({"trialing", "active", "past_due", "paused"})
"""Statuses in which the plan's terms are in force."""

SOLD: Final = frozenset({"plan", "variable", "setup_fee", "minimum_spend"})
"""Lines that are sold by the step; the others say what is paid otherwise, or was owed before."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """An account on a plan, as it is kept.

    ``number`` is of the next renewal, counted from ``anchor_at``; ``refill_number`` of the next refill of its balances,
    counted from the period's start. ``scheduled`` is what it changes to at the next renewal. ``next_at`` is when
    something is to be done by itself.
    """

    account_id: int
    environment_id: int
    plan_id: int
    version_id: int
    override_id: int | None
    cadence: Cadence
    status: Status
    zone: str
    anchor_at: datetime
    number: int
    period_id: int
    period_start: datetime | None
    period_end: datetime | None
    refill_number: int
    refill_at: datetime | None
    variable_units: Mapping[str, int]
    scheduled: Mapping[str, Any] | None
    cancels_at_end: bool
    payment_id: int | None
    declines: int
    next_at: datetime | None
    renewed_at: datetime | None
    created_at: datetime
    ended_at: datetime | None

    @property
    def is_running(self) -> bool:
        """Whether its plan's terms are in force."""
        return self.status in RUNNING


@dataclass(frozen=True, slots=True)
class Period:
    """A span that is paid for whole. ``price`` is what was asked for it, ``credited`` what was given back of that."""

    account_id: int
    id: int
    environment_id: int
    plan_id: int
    version_id: int
    override_id: int | None
    cadence: Cadence
    is_trial: bool
    start_at: datetime
    end_at: datetime | None
    ended_at: datetime | None
    denomination: str
    price: int
    credited: int
    spent_before: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Line:
    """One explained part of a step: ``quantity`` at ``unit`` each come to ``amount`` of the denomination."""

    kind: LineKind
    description: str
    amount: int
    denomination: str
    quantity: int = 1
    unit: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What is done to a subscription, whole: what it sells and credits, which units end and come, and what it is then.

    ``charge`` is to be paid in ``denomination`` now; ``credit`` is given back of the old period, ``credit_used`` is
    what is taken of earlier credit. ``cancelled`` and ``granted`` are units by denomination; the grants ``ends`` are
    over, of which ``left`` was there; new ones are for a time until ``until_at``. ``period`` is the one that begins, or
    the running one as changed. ``tick``: the account's when it was worked out at once; what has a larger id came later.
    None: its date says so.
    """

    kind: StepKind
    at: datetime
    denomination: str
    subscription: Subscription
    scheme: Scheme | None = None
    lines: tuple[Line, ...] = ()
    charge: int = 0
    credit: int = 0
    credit_used: int = 0
    cancelled: Mapping[str, int] = field(default_factory=dict)
    granted: Mapping[str, int] = field(default_factory=dict)
    ends: tuple[int, ...] = ()
    left: Mapping[str, int] = field(default_factory=dict)
    until_at: datetime | None = None
    period: Period | None = None
    closes: Period | None = None
    tick: int | None = None

    @property
    def is_now(self) -> bool:
        """Whether it does more than change what comes later."""
        return bool(self.lines or self.cancelled or self.granted or self.period or self.closes)


class Offer(NamedTuple):
    """What an account is to be on: a version, in terms that may be agreed with it alone, how often, how much of it.

    ``agrees``: what is agreed beside the version's own terms, where that is not written down yet for this version.
    """

    plan_id: int
    version_id: int
    override_id: int | None
    terms: PlanTerms
    cadence: Cadence
    units: Mapping[str, int]
    agrees: Mapping[str, Any] | None = None

    @property
    def price(self) -> int:
        """What a period of it costs."""
        return price_of(self.terms, self.cadence, self.units)


class Around(NamedTuple):
    """All that a step depends on, as of ``at``.

    ``purses`` are burned down to that moment. ``terms`` are those the subscription is on. ``owed`` is what open
    invoices of the offer's denomination still wait for, ``by_invoice`` whether the account pays by invoice in it.
    ``refunded``: what went back of the running period's payments. ``invoiced``: all currencies it is invoiced in.
    ``used_free``: units of the offered plan that it gave for nothing in a period that would still run, and that were
    used.
    """

    account_id: int
    environment_id: int
    state: AccountState
    purses: Mapping[str, Purse]
    subscription: Subscription | None
    period: Period | None
    terms: PlanTerms | None
    zone_name: str
    zone: tzinfo
    at: datetime
    owed: int = 0
    by_invoice: bool = False
    had_trial: bool = False
    used_free: Mapping[str, int] = {}
    refunded: int = 0
    invoiced: frozenset[str] = frozenset()

    def purse(self, denomination: str) -> Purse:
        """The grants of one balance."""
        return self.purses.get(denomination) or empty(denomination)


NEW_PERIOD: Final = -1
"""The id of a period that gets its own when the step is carried out."""


FAILED_RENEWALS: Final = ("past_due", "pause", "cancel")
"""What may become of a plan whose renewal was refused for good."""


def failed_renewal(money: Mapping[str, Any]) -> str:
    """What the company does about a plan whose renewal was refused for good: past_due, pause or cancel."""
    found: str = money.get("plans", {}).get("failed_renewal", "past_due")
    return found


def basis_of(subscription: Subscription | None) -> str:
    """What a step was worked out on: where it says otherwise when the money is there, something else came between."""
    if subscription is None or not subscription.is_running:
        return ""
    return f"{subscription.period_id}/{subscription.version_id}/{subscription.override_id}/{subscription.number}"


def still_holds(settings: Mapping[str, Any] | None, known: Subscription | None) -> bool:
    """Whether a plan still is what the step that a payment carries was worked out on."""
    return bool((settings or {}).get("basis") == basis_of(known))


def due(anchor: datetime, number: int, cadence: Cadence, zone: tzinfo) -> datetime | None:
    """The date of a renewal, counted from the anchor; None for what is bought once."""
    match cadence:
        case "MONTHLY":
            return monthly(anchor, number, zone)
        case "YEARLY":
            return yearly(anchor, number, zone)
        case _:
            return None


def next_of(subscription: Subscription) -> datetime | None:
    """When something is to be done to a subscription by itself."""
    if subscription.status not in {"trialing", "active"} or subscription.payment_id is not None:
        return None
    dates = [at for at in (subscription.period_end, subscription.refill_at) if at is not None]
    return min(dates, default=None)
