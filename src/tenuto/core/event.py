"""Events and accounts as decisions know them: what comes in, what is kept, and all that an answer depends on.

The problem, on one example. Two workers bill one account; each remembers what it read. So what a decision reads is one
value (``AccountState``) whose tick proves that nothing of it has changed, what it does is another (``Decision``), and
nothing in either waits, asks or writes: they can be remembered, passed on, replayed and compared. Sources: contract 2.3
and 3.5, design 5, 6 and 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Final, Literal, NamedTuple

from .catalog import EventPrice, PriceVersion
from .ledger import Balance, Transaction
from .money import Exact, is_fiat
from .outcomes import Refusal
from .plan import PlanTerms
from .rating import Counter
from .terms import Terms

State = Literal["complete", "pending", "cancelled"]
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
    """What a counted price had seen in its month before an event, and what the event added: enough to rate it again."""

    month: date
    units: Exact
    billed: Exact
    counted: Exact


class Charge(NamedTuple):
    """What one event did to one balance.

    ``amount``: whole units; of a complete event those it moved out, of a pending one those it holds. ``cost`` is exact.
    ``balance_amount``, ``balance_pending``, ``residue``: that balance right after the request. ``transaction_id`` and
    ``transaction_seq`` are None where no whole unit moved.
    """

    denomination: str
    amount: int
    cost: Exact
    price_version_id: int | None
    prior: Prior | None
    transaction_id: int | None
    transaction_seq: int | None
    balance_amount: int
    balance_pending: int
    residue: Exact


class Event(NamedTuple):
    """An event as it is kept. ``posting`` names the request that billed it: events of one posting share it.

    ``first`` is the event as it stood when it was pushed, kept once it was finished, so that its key goes on giving
    the first answer.
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
    periods, newest first, back to the oldest that an event may fall in; prices count by that name. ``unspent`` is what
    the balance of the plan's denomination would hold had nothing been spent in this period: the spend cap counts from
    there.
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
    ``own_prices`` are event prices agreed with this account, ``own_versions`` all of them there ever were.
    """

    account_id: int
    environment_id: int
    tick: int
    credit_limit: int | None
    has_refusals: bool
    balances: Mapping[str, Balance]
    counters: Mapping[tuple[int, date], Counter]
    expires_at: datetime | None
    bar: Literal["account_paused", "credit_blocked"] | None = None
    plan: OnPlan | None = None
    own_prices: Mapping[str, tuple[tuple[EventPrice, ...], ...]] = {}
    own_versions: Mapping[int, PriceVersion] = {}


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
    finished: Event | None = None
    gated: tuple[GatedEvent, ...] = ()
    transactions: tuple[Transaction, ...] = ()
    balances: tuple[Balance, ...] = ()
    counters: tuple[tuple[int, date], ...] = ()

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


def credit_limit_of(balance: Balance, state_limit: int | None, terms: Terms) -> int:
    """How far below zero a balance may go: its own limit, else for money the account's, else the company's default."""
    if balance.credit_limit is not None:
        return balance.credit_limit
    if not is_fiat(balance.denomination):
        return 0
    return terms.default_credit_limit if state_limit is None else state_limit
