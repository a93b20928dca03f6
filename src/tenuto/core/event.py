"""Events and accounts as decisions know them: what comes in, what is kept, and all that an answer depends on.

The problem, on one example. Two workers bill one account; each remembers what it read. So what a decision reads is one
value (``AccountState``) whose tick proves that nothing of it has changed, what it does is another (``Decision``), and
nothing in either waits, asks or writes: they can be remembered, passed on, replayed and compared. Sources: contract 2.3
and 3.5, design 5, 6 and 7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple

from .catalog import EventPrice, PriceVersion, families_of
from .ledger import Balance, Transaction
from .money import Exact, is_fiat, plus
from .outcomes import Refusal
from .plan import FlagValue, PlanTerms
from .rating import Counter
from .terms import Terms
from .topic import NOTHING, Told, Watch

State = Literal["complete", "pending", "cancelled", "suspended"]
Reason = Literal["pushed", "requested", "expired", "deleted"]

HOLD_LIFE: Final = timedelta(seconds=3600)
"""How long an event may stay pending; at exactly this age it is gone (contract 3.5, design 11)."""

EVENTS_MAX: Final = 1000
"""Events one request may carry."""


class UsageEvent(NamedTuple):
    """One reported event as it came through the door, validated in itself.

    ``override`` is a total of whole units with its denomination. ``properties`` is the metadata where it is an object,
    for prices that look at it; ``metadata`` the JSON text as given. ``occurred_at`` None means now.
    ``fingerprint`` is a 64-bit digest of the whole body, by which a repeated key is told from a reused one.
    """

    type: str
    quantity: Exact
    quantity_text: str
    state: State
    gated: bool
    key: str | None
    key_digest: bytes | None
    fingerprint: int
    override: tuple[int, str] | None
    properties: Mapping[str, object]
    metadata: str | None
    tag: str
    occurred_at: datetime | None
    cogs_amount: int | None
    cogs_denomination: str | None
    parent_event_id: int | None


class Prior(NamedTuple):
    """What a counted price had seen in its period before an event, and what the event added: enough to rate it again.

    ``period`` is the name of a plan period, else the first day of a calendar month.
    """

    period: str
    units: Exact
    billed: Exact
    counted: Exact


class OverageOf(NamedTuple):
    """What of a charge in ``denomination`` was not there to pay it: ``units``, exact, at ``unit`` each.

    The price is that of plan version ``version_id``, or of what was agreed with the account on top of it.
    """

    denomination: str
    units: Exact
    unit: Exact
    version_id: int


class Charge(NamedTuple):
    """What one event did to one balance.

    A charge with ``overage`` is the price of what the charge of the same event in ``overage.denomination`` did not
    find there; that one is then what it did find, down to 0.

    ``amount``: whole units; of a complete event those it moved out, of a pending one those it holds. ``cost`` is exact.
    ``balance_amount``, ``balance_pending``, ``residue``: that balance right after the request. ``transaction_id`` and
    ``transaction_seq`` are None where no whole unit moved.
    """

    denomination: str
    amount: int
    cost: Exact
    price_version_id: int | None
    prior: Prior | None
    overage: OverageOf | None
    transaction_id: int | None
    transaction_seq: int | None
    balance_amount: int
    balance_pending: int
    residue: Exact


class Asked(NamedTuple):
    """What an event that is kept aside asks for: the state it was pushed in, and its override.

    ``version_id`` is the plan's that the account was on when it came: by its prices it is billed, whatever follows.
    """

    state: State
    override: tuple[int, str] | None
    version_id: int | None = None


class Event(NamedTuple):
    """An event as it is kept. ``posting`` names the request that billed it: events of one posting share it.

    ``first`` is the event as it stood when it was pushed, kept once it was finished, so that its key goes on giving
    the first answer; of one that was kept aside, billed and ended after that, as it was billed, with a ``first`` of its
    own. ``asked``: of one that is suspended, what it is to become.
    """

    account_id: int
    id: int
    posting: int
    type: str
    quantity: str
    state: State
    gated: bool
    key: str | None
    key_digest: bytes | None
    fingerprint: int
    tag: str
    occurred_at: datetime
    recorded_at: datetime
    metadata: str | None
    charges: tuple[Charge, ...] = ()
    expires_at: datetime | None = None
    finished_at: datetime | None = None
    reason: Reason | None = None
    cogs_amount: int | None = None
    cogs_denomination: str | None = None
    parent_event_id: int | None = None
    first: Event | None = None
    asked: Asked | None = None


class GatedEvent(NamedTuple):
    """A refused event, kept in a record of its own with the refusal it got."""

    account_id: int
    id: int
    event: UsageEvent
    occurred_at: datetime
    recorded_at: datetime
    code: str
    details: Mapping[str, object]
    request_id: str


class OnPlan(NamedTuple):
    """The plan an account is on, as far as its usage is concerned.

    ``override``: its terms, where they were agreed with this account alone. ``periods`` are (start, name) of its plan
    periods, newest first, back to the oldest that an event may fall in; prices count by that name. A period that a
    change began before the last one was over counts from where that was to end: free units do not come again by
    changing. ``unspent`` is what the balance of the plan's denomination would hold had nothing been spent in this
    period: the spend cap counts from there.
    """

    version_id: int
    override: PlanTerms | None
    periods: tuple[tuple[datetime, str], ...]
    unspent: int


class AccountState(NamedTuple):
    """All that a decision about one account depends on, as one moment knew it.

    ``tick`` is the largest id given to anything of the account; it rises with every write, so an unchanged tick proves
    that nothing here has changed. ``expires_at`` is when the next live hold lapses: from then on this state is stale.
    ``bar`` is the code with which every gated event is refused, whatever it costs (contract 3.6).
    ``own_prices`` are event prices agreed with this account, ``own_past`` those that ended, ``own_versions`` all of
    them there ever were.
    ``blocked_by`` says what blocks its credit, ``own_flags`` the flags that were set for it, ``watch`` who listens to
    it alone. ``is_suspended``: its events are kept aside.
    """

    account_id: int
    environment_id: int
    tick: int
    credit_limit: int | None
    has_refusals: bool
    balances: Mapping[str, Balance]
    counters: Mapping[tuple[int, str], Counter]
    expires_at: datetime | None
    bar: Literal["account_paused", "credit_blocked"] | None = None
    plan: OnPlan | None = None
    own_prices: Mapping[str, tuple[tuple[EventPrice, ...], ...]] = {}
    own_versions: Mapping[int, PriceVersion] = {}
    blocked_by: str | None = None
    own_flags: Mapping[str, FlagValue] = {}
    watch: Watch | None = None
    is_suspended: bool = False
    own_past: Mapping[str, tuple[EventPrice, ...]] = {}


class Decision(NamedTuple):
    """What one request does: an answer for each of its events, and the rows that make it true.

    ``answers`` holds an ``Event`` for what was accepted (or is a known key), a ``GatedEvent`` for what was refused, and
    None for what was not billed because of its neighbours: with one refusal nothing is, ``gated`` then holds the new
    refusals and every other row is missing.
    """

    state: AccountState
    recorded_at: datetime
    answers: tuple[Event | GatedEvent | None, ...]
    is_replay: bool = False
    is_refused: bool = False
    events: tuple[Event, ...] = ()
    finished: tuple[Event, ...] = ()
    gated: tuple[GatedEvent, ...] = ()
    transactions: tuple[Transaction, ...] = ()
    balances: tuple[Balance, ...] = ()
    counters: tuple[tuple[int, str], ...] = ()
    told: Told = NOTHING

    @property
    def refusals(self) -> tuple[GatedEvent, ...]:
        """The refused among the answers."""
        return tuple(answer for answer in self.answers if isinstance(answer, GatedEvent))


class Settlement(NamedTuple):
    """How a pending event is to end: ``complete``, for ``quantity`` units or at ``override`` where given, or not.

    ``problem`` is what was wrong with the request itself; it is said only once the event's state allowed an ending.
    """

    state: State
    quantity: Exact | None = None
    quantity_text: str | None = None
    override: int | None = None
    problem: Refusal | None = None


def as_of(event: Event, now: datetime) -> Event:
    """The event as it must be read at ``now``: a hold past its hour is cancelled, swept or not (contract 3.5)."""
    if event.state == "pending" and event.expires_at is not None and event.expires_at <= now:
        return event._replace(
            state="cancelled",
            reason="expired",
            finished_at=event.expires_at,
            charges=tuple(charge._replace(amount=0) for charge in event.charges),
        )
    return event


def credit_limit_of(balance: Balance, state_limit: int | None, default: int) -> int:
    """How far below zero a balance may go: its own limit, else for money the account's, else the company's default."""
    if balance.credit_limit is not None:
        return balance.credit_limit
    if not is_fiat(balance.denomination):
        return 0
    return default if state_limit is None else state_limit


def overflow_of(charges: Sequence[Charge], charge: Charge) -> Charge | None:
    """The charge of the same event for what ``charge`` did not find on its balance; None where it found everything."""
    for other in charges:
        if other.overage is not None and other.overage.denomination == charge.denomination:
            return other
    return None


def whole_cost(charges: Sequence[Charge], charge: Charge) -> Exact:
    """What an event cost in a denomination by its price or override: what was there to pay it, and what was not."""
    spilt = None if charge.overage is not None else overflow_of(charges, charge)
    return charge.cost if spilt is None or spilt.overage is None else plus(charge.cost, spilt.overage.units)


Families = tuple[tuple[EventPrice, ...], ...]
"""Prices of one type: a family per denomination, the most specific match first."""


def prices_of(kind: str, state: AccountState, terms: Terms) -> Families | None:
    """The prices of a type for an account with prices of its own or of its plan; None where the company's hold.

    A plan that prices a type prices it alone. Over that lie the account's own prices: one takes the place of that with
    the same denomination and match, or stands beside the others (contract 3.7).
    """
    plan = None if state.plan is None else terms.plans.get(state.plan.version_id)
    of_plan = None if plan is None else plan.prices.get(kind)
    own = state.own_prices.get(kind)
    if own is None:
        return of_plan
    others = terms.prices.get(kind, ()) if of_plan is None else of_plan
    return _laid_over(_flat(others), _flat(own))


def prices_as_of(at: datetime, version_id: int | None, kind: str, state: AccountState, terms: Terms) -> Families:
    """The same as they were when an event was recorded, on the version of a plan that the account had then, or on none.

    What was deleted since prices it, what was made since does not.
    """
    plan = None if version_id is None else terms.plans.get(version_id)
    of_plan = None if plan is None else plan.prices.get(kind)
    others = _flat(of_plan or ())
    if of_plan is None:
        others = [*_flat(terms.prices.get(kind, ())), *terms.past.get(kind, ())]
    own = [*_flat(state.own_prices.get(kind, ())), *state.own_past.get(kind, ())]
    return _laid_over([p for p in others if p.held_at(at)], [p for p in own if p.held_at(at)])


def _flat(families: Families) -> list[EventPrice]:
    return [price for family in families for price in family]


def _laid_over(others: Sequence[EventPrice], agreed: Sequence[EventPrice]) -> Families:
    """Prices of one type with an account's own over them."""
    rules = {_rule(price) for price in agreed}
    kept = [price for price in others if _rule(price) not in rules]
    return next(iter(families_of([*kept, *agreed]).values()), ())


def _rule(price: EventPrice) -> tuple[str, frozenset[tuple[str, bool, object]]]:
    """What tells a price from others of its type; true is not 1."""
    return price.denomination, frozenset((name, isinstance(value, bool), value) for name, value in price.match.items())


def versions_among(families: Families, properties: Mapping[str, object], at: datetime) -> list[PriceVersion]:
    """The versions that price an event: one per family that has a covering price."""
    found = (next((price for price in family if price.covers(properties)), None) for family in families)
    return [price.version_at(at) for price in found if price is not None]


def plan_terms_of(state: AccountState, terms: Terms) -> PlanTerms | None:
    """What an account's plan promises it; None without a plan, or where the plan is newer than what is known.

    In the second case the company's terms have moved on, which the save finds out: nothing decided so is written.
    """
    if state.plan is None:
        return None
    if state.plan.override is not None:
        return state.plan.override
    version = terms.plans.get(state.plan.version_id)
    return None if version is None else version.terms
