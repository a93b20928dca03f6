"""The decision about usage: what events cost, whether they may pass, and what is written.

The problem, on one example. An account holds 10 credits; a chat costs 3, and requests come in one after another:

    request                           answer   balance         why
    chat, gated                       200      10 -> 7         7 is left
    chat pending, gated               200      7, 3 pending    the hold keeps 3 away, the amount stays
    two chats in a list, gated        402      unchanged       4 are available, 6 are needed: all or nothing
    chat, not gated                   200      7 -> 4          an ungated event is always billed
    complete the hold with 2 of 3     200      4 -> 2          the rest of the hold is free again
    the first chat again, same key    200      2               the stored answer; nothing moves

Everything that decides is read before (``AccountState``), everything that follows is returned (``Decision``) and saved
in one unit by the caller; nothing here waits, asks or writes. Order of judgement of one event: a known key answers
first, then its time, its price, the gate. Sources: contract 2.3, 3.5 to 3.7; design 5, 6, 11.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import NamedTuple

from .catalog import PriceVersion
from .event import (
    HOLD_LIFE,
    AccountState,
    Charge,
    Decision,
    Event,
    GatedEvent,
    Prior,
    Settlement,
    State,
    UsageEvent,
    as_of,
    credit_limit_of,
)
from .ledger import USAGE_BOOK, Balance, Transaction, closed, open_balance, post, reserve
from .money import AMOUNT_MAX, ZERO, Exact, at_most, exact, minus, plus, round_up, times
from .outcomes import Refusal
from .period import month_of
from .rating import EMPTY, Counter, count, rate
from .terms import Terms


def bill_events(
    state: AccountState,
    events: Sequence[UsageEvent],
    *,
    terms: Terms,
    known: Mapping[bytes, Event | GatedEvent],
    now: datetime,
    tick: int,
    request_id: str,
) -> Decision:
    """Decide one request's events, in order, on the account as it is: all of them, or none if one is refused.

    ``known`` are the stored outcomes of keys used before; ``tick`` is the present in microseconds and becomes the
    first id unless the account is ahead of it. Raises Refusal for a reused key or a time outside the window; the path
    names the event.
    """
    posting = next_id = max(tick, state.tick + 1)
    book = _Book(state, terms, now)
    answers: list[Event | GatedEvent | int] = []
    drafts: list[_Draft] = []
    refused: list[GatedEvent] = []
    is_refused = False
    seen: dict[bytes, int] = {}
    for index, event in enumerate(events):
        digest = event.key_digest
        if digest is not None:
            if digest in seen:
                _same_body(events[seen[digest]].fingerprint, event, index)
                answers.append(answers[seen[digest]])
                continue
            seen[digest] = index
            if digest in known:
                answer = _first_answer(known[digest], event, index)
                is_refused = is_refused or isinstance(answer, GatedEvent)
                answers.append(answer)
                continue
        occurred_at = now if event.occurred_at is None else event.occurred_at
        if event.occurred_at is not None:
            _within_window(event.occurred_at, terms, now, index)
        priced = [] if event.state == "cancelled" else _price(event, occurred_at, terms, book, index)
        shortage = book.shortage(priced) if event.gated else None
        if shortage is not None:
            code, details = shortage
            gated = GatedEvent(state.account_id, next_id, event, occurred_at, now, code, details, request_id)
            refused.append(gated)
            answers.append(gated)
        else:
            answers.append(len(drafts))
            drafts.append(_Draft(next_id, event, occurred_at, book.take(priced, next_id, event)))
        next_id += 1
    if refused or is_refused:
        return _refuse(state, now, answers, refused, next_id)
    if not drafts:
        return Decision(state, now, tuple(a for a in answers if not isinstance(a, int)), is_replay=True)
    transactions, next_id = book.close(next_id)
    made = tuple(_event(draft, state.account_id, posting, book, now) for draft in drafts)
    return Decision(
        _after(state, book, next_id, made),
        now,
        made if len(made) == len(answers) else tuple(made[a] if isinstance(a, int) else a for a in answers),
        events=made,
        transactions=transactions,
        balances=tuple(book.after.values()),
        counters=tuple(book.counters),
    )


def finish_event(
    state: AccountState, event: Event, settlement: Settlement, *, terms: Terms, now: datetime, tick: int
) -> Decision:
    """End a pending event: settle it, for all or less than it holds, or let its hold go.

    Raises Refusal ``event_expired`` or ``event_finished`` before any field is judged (design 12), the settlement's own
    problem next, and ``exceeds_reserved`` where it asks for more than is held.
    """
    _must_be(("pending",), event, now)
    if settlement.problem is not None:
        raise settlement.problem
    book = _Book(state, terms, now)
    if not event.charges and settlement.override:
        raise Refusal("exceeds_reserved", reserved=0, required=settlement.override)
    charges: list[Charge] = []
    for index, charge in enumerate(event.charges):
        settled = _settled(charge, index, settlement, terms)
        book.release(charge)
        book.uncount(charge, settled)
        if settlement.state == "complete":
            book.settle(settled, event.id, settlement.quantity or exact(event.quantity))
        charges.append(settled)
    return _end(
        state,
        event._replace(
            state=settlement.state,
            quantity=settlement.quantity_text or event.quantity,
            finished_at=now,
            reason=None if settlement.state == "complete" else "requested",
            charges=tuple(charges),
            first=event.first or event,
        ),
        book,
        tick,
    )


def void_event(state: AccountState, event: Event, *, terms: Terms, now: datetime, tick: int) -> Decision:
    """Take an event back: a hold is let go, a charge is reversed to the last fraction by a new transaction.

    Raises Refusal ``event_finished`` for an event that is cancelled already, ``event_expired`` for a hold that lapsed.
    """
    _must_be(("pending", "complete"), event, now)
    book = _Book(state, terms, now)
    for charge in event.charges:
        book.uncount(charge, None)
        if event.state == "pending":
            book.release(charge)
        else:
            book.reverse(charge, event.id, exact(event.quantity))
    ended = event._replace(state="cancelled", finished_at=now, reason="deleted", first=event.first or event)
    return _end(state, ended, book, tick)


def expire_event(state: AccountState, event: Event, *, terms: Terms, now: datetime, tick: int) -> Decision:
    """Tidy a hold whose hour is over: it counted for nothing since then, now its row says so too.

    Raises Refusal ``event_finished`` where there is nothing to tidy.
    """
    if event.state != "pending" or event.expires_at is None or event.expires_at > now:
        raise Refusal("event_finished", state=event.state)
    book = _Book(state, terms, now)
    for charge in event.charges:
        book.uncount(charge, None)
        book.lapse(charge)
    ended = event._replace(
        state="cancelled", finished_at=event.expires_at, reason="expired", first=event.first or event
    )
    return _end(state, ended, book, tick)


class _Priced(NamedTuple):
    """One charge that an event asks for, before the gate."""

    denomination: str
    cost: Exact
    version: PriceVersion | None
    month: date | None
    counted: Exact


class _Taken(NamedTuple):
    """One charge that was taken, before the balances after the request are known."""

    denomination: str
    amount: int
    cost: Exact
    price_version_id: int | None
    prior: Prior | None


class _Draft(NamedTuple):
    """An accepted event, before the balances after the request are known."""

    id: int
    event: UsageEvent
    occurred_at: datetime
    taken: tuple[_Taken, ...]


class _Tally:
    """One balance while a request is decided. The only mutable thing in this module; it never leaves it."""

    __slots__ = (
        "balance",
        "before",
        "count",
        "first_event_id",
        "limit",
        "previous_id",
        "raised",
        "type",
        "unit_cost",
        "value",
    )

    def __init__(self, balance: Balance, limit: int) -> None:
        self.before = self.balance = balance
        self.limit = limit
        self.count = 0
        self.first_event_id: int | None = None
        self.unit_cost: Exact | None = None
        self.type = "EVENT"
        self.value: Exact | None = None
        self.previous_id: int | None = None
        self.raised: tuple[tuple[int, date], ...] = ()


class _Book:
    """The balances and counters that one request touches, opened as they are needed and closed once."""

    def __init__(self, state: AccountState, terms: Terms, now: datetime) -> None:
        self.state, self.terms, self.now = state, terms, now
        self.tallies: dict[str, _Tally] = {}
        self.counters: dict[tuple[int, date], Counter] = {}
        self.after: dict[str, Balance] = {}
        self.made: dict[str, Transaction] = {}

    def tally(self, denomination: str) -> _Tally:
        tally = self.tallies.get(denomination)
        if tally is None:
            balance = self.state.balances.get(denomination) or open_balance(denomination)
            limit = credit_limit_of(balance, self.state.credit_limit, self.terms)
            tally = self.tallies[denomination] = _Tally(balance, limit)
        return tally

    def counter(self, price_id: int, month: date) -> Counter:
        found = self.counters.get((price_id, month))
        return found if found is not None else self.state.counters.get((price_id, month), EMPTY)

    def shortage(self, priced: Sequence[_Priced]) -> tuple[str, dict[str, object]] | None:
        """Why the gate refuses these charges, or None. Exact: residue plus cost against what is available."""
        if self.state.bar is not None:
            return self.state.bar, {}
        for charge in priced:
            tally = self.tallies.get(charge.denomination) or self.tally(charge.denomination)
            balance = tally.balance
            room = balance.amount - balance.pending + tally.limit
            cost = charge.cost
            if cost.numerator == 0:
                if room >= 0:
                    continue
                required = 0
            else:
                owed = plus(balance.residue, cost)
                if owed.numerator <= room * owed.denominator:
                    continue
                required = round_up(owed)
            return (
                "credit_limit_reached" if tally.limit > 0 else "insufficient_balance",
                {
                    "denomination": charge.denomination,
                    "available": balance.amount - balance.pending,
                    "pending": balance.pending,
                    "required": required,
                    "shortfall": required - room,
                },
            )
        return None

    def take(self, priced: Sequence[_Priced], event_id: int, event: UsageEvent) -> tuple[_Taken, ...]:
        """Post or reserve each charge. After the gate nothing here may fail but the bounds of a balance."""
        taken: list[_Taken] = []
        for charge in priced:
            version = charge.version
            prior = None
            if version is not None and charge.month is not None:
                prior = self._count(charge, version, event)
            if event.state == "pending":
                amount = round_up(charge.cost)
                tally = self.tally(charge.denomination)
                tally.balance = reserve(tally.balance, amount)
            else:
                unit = (
                    version.unit if version and version.is_plain else _unit_cost(version, charge.cost, event.quantity)
                )
                amount = self._move(charge.denomination, charge.cost, event_id, unit)
            taken.append(
                _Taken(charge.denomination, amount, charge.cost, None if version is None else version.id, prior)
            )
        return tuple(taken)

    def _count(self, charge: _Priced, version: PriceVersion, event: UsageEvent) -> Prior:
        assert charge.month is not None
        slot = (version.price_id, charge.month)
        before = self.counter(*slot)
        self.counters[slot] = count(before, charge.counted, charge.cost)
        if version.max_value_billing and charge.counted.numerator > 0 and event.state == "complete":
            self._raise(charge.denomination, slot, event.quantity)
        return Prior(charge.month, before.units, before.billed, charge.counted)

    def _move(self, denomination: str, cost: Exact, event_id: int, unit: Exact | None) -> int:
        tally = self.tally(denomination)
        tally.balance, moved = post(tally.balance, cost)
        tally.count += 1
        if tally.first_event_id is None:
            tally.first_event_id, tally.unit_cost = event_id, unit
        elif tally.unit_cost != unit:
            tally.unit_cost = None
        return moved

    def _raise(self, denomination: str, slot: tuple[int, date], value: Exact) -> None:
        """Let the coming transaction say which value it billed, and the counter which transaction its highest."""
        tally, counter = self.tally(denomination), self.counter(*slot)
        tally.value, tally.previous_id = value, counter.maximum_transaction_id
        if at_most(counter.units, value):
            tally.raised += (slot,)

    def settle(self, charge: Charge, event_id: int, quantity: Exact) -> None:
        """Post what a hold came to; its counter has been put right before."""
        version = self._version(charge)
        self._move(charge.denomination, charge.cost, event_id, _unit_cost(version, charge.cost, quantity))
        if version is not None and version.max_value_billing and charge.prior and charge.prior.counted.numerator > 0:
            self._raise(charge.denomination, (version.price_id, charge.prior.month), quantity)

    def reverse(self, charge: Charge, event_id: int, quantity: Exact) -> None:
        """Post the exact opposite of what an event had cost."""
        unit = _unit_cost(self._version(charge), charge.cost, quantity)
        self._move(charge.denomination, minus(ZERO, charge.cost), event_id, unit)
        self.tallies[charge.denomination].type = "REVERSAL"

    def release(self, charge: Charge) -> None:
        """Let go what a hold reserves."""
        tally = self.tally(charge.denomination)
        tally.balance = reserve(tally.balance, -charge.amount)

    def lapse(self, charge: Charge) -> None:
        """Forget what a hold reserved that had counted as lapsed already when the state was read."""
        tally = self.tally(charge.denomination)
        tally.balance = tally.balance._replace(lapsed=tally.balance.lapsed - charge.amount)

    def uncount(self, charge: Charge, settled: Charge | None) -> None:
        """Take what a charge had added to its counter out again, but for what its settlement leaves in."""
        version = self._version(charge)
        if charge.prior is None or version is None:
            return
        units, cost = charge.prior.counted, charge.cost
        if settled is not None and settled.prior is not None:
            units, cost = minus(units, settled.prior.counted), minus(cost, settled.cost)
        slot = (version.price_id, charge.prior.month)
        self.counters[slot] = count(self.counter(*slot), minus(ZERO, units), minus(ZERO, cost))

    def _version(self, charge: Charge) -> PriceVersion | None:
        return None if charge.price_version_id is None else self.terms.versions.get(charge.price_version_id)

    def close(self, next_id: int) -> tuple[tuple[Transaction, ...], int]:
        """The transactions of the request, one per denomination that moved, and the balances after it."""
        for denomination, tally in self.tallies.items():
            after = self.after[denomination] = closed(tally.before, tally.balance)
            if after.seq != tally.before.seq:
                self.made[denomination] = self._transaction(tally, after, next_id)
                for slot in tally.raised:
                    self.counters[slot] = self.counters[slot]._replace(maximum_transaction_id=next_id)
                next_id += 1
        return tuple(self.made.values()), next_id

    def _transaction(self, tally: _Tally, after: Balance, id: int) -> Transaction:
        events = "1 event" if tally.count == 1 else f"{tally.count} events"
        return Transaction(
            id,
            after.denomination,
            after.seq,
            USAGE_BOOK,
            tally.type,
            f"Reversal of {events}" if tally.type == "REVERSAL" else events,
            after.amount - tally.before.amount,
            tally.before.amount,
            after.amount,
            self.now,
            tally.unit_cost,
            tally.first_event_id,
            tally.count,
            tally.value,
            tally.previous_id,
        )

    def snapshot(self, charge: Charge) -> Charge:
        """The charge of an ended event with what the ending did to its balance."""
        after, made = self.after[charge.denomination], self.made.get(charge.denomination)
        return charge._replace(
            amount=-made.amount if made and made.type == "EVENT" else 0,
            transaction_id=made.id if made else None,
            transaction_seq=made.seq if made else None,
            balance_amount=after.amount,
            balance_pending=after.pending,
            residue=after.residue,
        )


def _price(event: UsageEvent, occurred_at: datetime, terms: Terms, book: _Book, index: int) -> Sequence[_Priced]:
    """The charges an event asks for: its override, else one per denomination that prices its type (contract 3.7)."""
    if event.override is not None:
        amount, denomination = event.override
        return (_Priced(denomination, Exact(amount, 1), None, None, ZERO),)
    price = terms.single.get(event.type)
    if price is not None:
        latest = price.versions[-1]
        version = latest if latest.effective_at <= occurred_at else price.version_at(occurred_at)
        if version.is_plain:
            cost = times(event.quantity, version.unit)
            if cost.numerator > AMOUNT_MAX * cost.denominator:
                raise _out_of_range(index)
            return (_Priced(version.denomination, cost, version, None, ZERO),)
        versions = [version]
    else:
        versions = terms.versions_for(event.type, event.properties, occurred_at)
    priced: list[_Priced] = []
    for version in versions:
        month = month_of(occurred_at, terms.zone) if version.is_counted else None
        counter = EMPTY if month is None else book.counter(version.price_id, month)
        rated = rate(version, event.quantity, counter)
        if not at_most(rated.cost, Exact(AMOUNT_MAX, 1)):
            raise _out_of_range(index)
        priced.append(_Priced(version.denomination, rated.cost, version, month, rated.counted))
    return priced


def _unit_cost(version: PriceVersion | None, cost: Exact, quantity: Exact) -> Exact | None:
    """The price of one unit, where one price for all of them made the cost; of an override, where there is one unit."""
    if version is not None and not version.is_plain:
        return None
    unit = cost if version is None else version.unit
    whole = times(quantity, unit)
    return unit if whole.numerator * cost.denominator == cost.numerator * whole.denominator else None


def _out_of_range(index: int) -> Refusal:
    path = f"events[{index}].quantity"
    return Refusal("out_of_range", f"{path}: at its price this costs more than 10^15.", path=path)


def _within_window(occurred_at: datetime, terms: Terms, now: datetime, index: int) -> None:
    if occurred_at > now + terms.ahead:
        raise Refusal("in_future", path=f"events[{index}].occurred_at", ahead_seconds=int(terms.ahead.total_seconds()))
    if occurred_at < now - terms.late:
        raise Refusal("too_late", path=f"events[{index}].occurred_at", late_seconds=int(terms.late.total_seconds()))


def _same_body(fingerprint: int, event: UsageEvent, index: int) -> None:
    if fingerprint != event.fingerprint:
        raise Refusal("key_reused", path=f"events[{index}].key", key=event.key)


def _first_answer(known: Event | GatedEvent, event: UsageEvent, index: int) -> Event | GatedEvent:
    """What the key was answered with: for an event finished since, as it stood when it was pushed."""
    if isinstance(known, GatedEvent):
        _same_body(known.event.fingerprint, event, index)
        return known
    _same_body(known.fingerprint, event, index)
    return known.first or known


def _refuse(
    state: AccountState,
    now: datetime,
    answers: Sequence[Event | GatedEvent | int],
    refused: Sequence[GatedEvent],
    next_id: int,
) -> Decision:
    """Nothing is billed; the refused events get a record, and the others keep their keys unused."""
    kept = tuple(None if isinstance(answer, int) else answer for answer in answers)
    if not refused:
        return Decision(state, now, kept, is_replay=True, is_refused=True)
    after = state._replace(tick=next_id, has_refusals=True)
    return Decision(after, now, kept, is_refused=True, gated=tuple(refused))


def _event(draft: _Draft, account_id: int, posting: int, book: _Book, now: datetime) -> Event:
    event = draft.event
    charges: list[Charge] = []
    for taken in draft.taken:
        after = book.after[taken.denomination]
        made = book.made.get(taken.denomination) if event.state == "complete" else None
        charges.append(
            Charge(
                *taken,
                None if made is None else made.id,
                None if made is None else made.seq,
                after.amount,
                after.pending,
                after.residue,
            )
        )
    return Event(
        account_id,
        draft.id,
        posting,
        event.type,
        event.quantity_text,
        event.state,
        event.gated,
        event.key,
        event.key_digest,
        event.fingerprint,
        event.tag,
        draft.occurred_at,
        now,
        event.metadata,
        tuple(charges),
        now + HOLD_LIFE if event.state == "pending" else None,
        now if event.state == "cancelled" else None,
        "pushed" if event.state == "cancelled" else None,
        event.cogs_amount,
        event.cogs_denomination,
        event.parent_event_id,
    )


def _must_be(states: tuple[State, ...], event: Event, now: datetime) -> None:
    """Refuse to change an event that is over, an hour over too, swept or not; said before any field (design 12)."""
    event = as_of(event, now)
    if event.reason == "expired":
        raise Refusal("event_expired", state=event.state)
    if event.state not in states:
        raise Refusal("event_finished", state=event.state)


def _after(state: AccountState, book: _Book, tick: int, made: Sequence[Event]) -> AccountState:
    """The account once a closed book is written and the events of ``made`` are there."""
    return AccountState(
        state.account_id,
        state.environment_id,
        tick,
        state.credit_limit,
        state.has_refusals,
        {**state.balances, **book.after},
        {**state.counters, **book.counters} if book.counters else state.counters,
        _earliest(state.expires_at, made),
        state.bar,
        state.plan,
        state.own_prices,
        state.own_versions,
    )


def _earliest(expires_at: datetime | None, events: Sequence[Event]) -> datetime | None:
    for event in events:
        if event.expires_at is not None and (expires_at is None or event.expires_at < expires_at):
            expires_at = event.expires_at
    return expires_at


def _settled(charge: Charge, index: int, settlement: Settlement, terms: Terms) -> Charge:
    """What one charge of a hold comes to at the end.

    A quantity is rated on the terms and the counter of the moment the event was pushed. An override speaks for the
    first charge and frees the others. Nothing may come to more than the hold reserved.
    """
    if settlement.state != "complete":
        return charge._replace(prior=None)
    version = None if charge.price_version_id is None else terms.versions.get(charge.price_version_id)
    if settlement.quantity is not None and version is not None:
        prior = charge.prior
        rated = rate(version, settlement.quantity, EMPTY if prior is None else Counter(prior.units, prior.billed))
        charge = charge._replace(
            cost=rated.cost, prior=None if prior is None else prior._replace(counted=rated.counted)
        )
    if settlement.override is not None:
        charge = charge._replace(cost=Exact(settlement.override if index == 0 else 0, 1))
    if not at_most(charge.cost, Exact(charge.amount, 1)):
        raise Refusal(
            "exceeds_reserved",
            denomination=charge.denomination,
            reserved=charge.amount,
            required=round_up(charge.cost),
        )
    return charge


def _end(state: AccountState, event: Event, book: _Book, tick: int) -> Decision:
    """The decision that ends one event: its row changed, its posting and its balances."""
    posting = max(tick, state.tick + 1)
    transactions, next_id = book.close(posting + 1)
    ended = event._replace(posting=posting, charges=tuple(book.snapshot(charge) for charge in event.charges))
    return Decision(
        state=_after(state, book, next_id, ()),
        recorded_at=book.now,
        answers=(ended,),
        finished=ended,
        transactions=transactions,
        balances=tuple(book.after.values()),
        counters=tuple(book.counters),
    )
