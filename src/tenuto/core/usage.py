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
from datetime import datetime
from typing import NamedTuple

from .event import (
    HOLD_LIFE,
    AccountState,
    Asked,
    Charge,
    Decision,
    Event,
    GatedEvent,
    OverageOf,
    Settlement,
    State,
    UsageEvent,
    as_of,
    overflow_of,
    plan_terms_of,
    prices_as_of,
    prices_of,
    versions_among,
    whole_cost,
)
from .ledger import Transaction
from .money import AMOUNT_MAX, ZERO, Exact, at_most, exact, minus, reduced, round_up, times
from .notification import after_told, told_of
from .outcomes import Refusal, invalid
from .plan import PlanTerms
from .rating import EMPTY, Counter, rate
from .tally import Book, Priced, Taken
from .terms import Terms
from .topic import Told


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
    book = Book(state, terms, now)
    answers: list[Event | GatedEvent | int] = []
    drafts: list[_Draft] = []
    refused: list[GatedEvent] = []
    is_refused = False
    is_suspended, on = state.is_suspended or terms.is_suspended, None if state.plan is None else state.plan.version_id
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
        asked = Asked(event.state, event.override, on) if is_suspended and event.state != "cancelled" else None
        priced = _laid(event, occurred_at, terms, book, index) if asked is None else ()
        shortage = book.shortage(priced, event.state) if event.gated and asked is None else None
        if shortage is not None:
            code, details = shortage
            gated = GatedEvent(state.account_id, next_id, event, occurred_at, now, code, details, request_id)
            refused.append(gated)
            answers.append(gated)
        else:
            answers.append(len(drafts))
            drafts.append(_Draft(next_id, event, occurred_at, book.take(priced, next_id, event), asked))
        next_id += 1
    if refused or is_refused:
        return _refuse(state, now, answers, refused, next_id)
    if not drafts:
        return Decision(state, now, tuple(a for a in answers if not isinstance(a, int)), is_replay=True)
    transactions, next_id = book.close(next_id)
    made = tuple(_event(draft, state.account_id, posting, book, now) for draft in drafts)
    told = _told(state, book, transactions)
    return Decision(
        _after(state, book, next_id, made, told),
        now,
        made if len(made) == len(answers) else tuple(made[a] if isinstance(a, int) else a for a in answers),
        events=made,
        transactions=transactions,
        balances=tuple(book.after.values()),
        counters=tuple(book.counters),
        told=told,
    )


class Queued(NamedTuple):
    """An event that was kept aside, with its metadata as prices look at it."""

    event: Event
    properties: Mapping[str, object]


def replay_events(state: AccountState, queued: Sequence[Queued], *, terms: Terms, now: datetime, tick: int) -> Decision:
    """Bill events that were kept aside, in order, each priced as of its own time; none is refused any more.

    What they cost moves the balances of now. Those that are not suspended any more are left alone.
    """
    posting = max(tick, state.tick + 1)
    book = Book(state, terms, now)
    taken: list[tuple[Event, tuple[Taken, ...]]] = []
    for event, properties in queued:
        if event.state != "suspended" or event.asked is None:
            continue
        usage = UsageEvent(
            event.type,
            exact(event.quantity),
            event.quantity,
            event.asked.state,
            event.gated,
            event.key,
            event.key_digest,
            event.fingerprint,
            event.asked.override,
            properties,
            event.metadata,
            event.tag,
            event.occurred_at,
            event.cogs_amount,
            event.cogs_denomination,
            event.parent_event_id,
        )
        priced = _laid(usage, event.occurred_at, terms, book, len(taken), kept=event)
        taken.append((event, book.take(priced, event.id, usage)))
    transactions, next_id = book.close(posting + 1)
    ended = tuple(_replayed(event, charges, posting, book, now) for event, charges in taken)
    told = _told(state, book, transactions)
    return Decision(
        _after(state, book, next_id, ended, told),
        now,
        ended,
        finished=ended,
        transactions=transactions,
        balances=tuple(book.after.values()),
        counters=tuple(book.counters),
        told=told,
    )


def _replayed(event: Event, taken: Sequence[Taken], posting: int, book: Book, now: datetime) -> Event:
    assert event.asked is not None
    state = event.asked.state
    return event._replace(
        posting=posting,
        state=state,
        charges=_charges(taken, state, book),
        expires_at=now + HOLD_LIFE if state == "pending" else None,
        finished_at=None if state == "pending" else now,
        first=event.first or event,
        asked=None,
    )


def finish_event(
    state: AccountState, event: Event, settlement: Settlement, *, terms: Terms, now: datetime, tick: int
) -> Decision:
    """End a pending event: settle it, for all or less than it holds, or let its hold go.

    Raises Refusal ``event_expired`` or ``event_finished`` before any field is judged (design 12), the settlement's own
    problem next, and ``exceeds_reserved`` where it asks for more than is held.
    """
    is_kept_aside = event.asked is not None and event.asked.state == "pending"
    _must_be(("pending", "suspended") if is_kept_aside else ("pending",), event, now)
    if settlement.problem is not None:
        raise settlement.problem
    book = Book(state, terms, now)
    if event.asked is not None:
        return _end(state, _asked_anew(event, event.asked, settlement, now), book, tick)
    if not event.charges and settlement.override:
        raise Refusal("exceeds_reserved", reserved=0, required=settlement.override)
    quantity = settlement.quantity or exact(event.quantity)
    charges: list[Charge] = []
    settled = _settled(event, settlement, book)
    for before, after in zip(event.charges, settled, strict=True):
        whole = whole_cost(settled, after)
        book.release(before)
        book.uncount(before, whole_cost(event.charges, before), after.prior, whole)
        charges.append(book.settle(after, whole, event.id, quantity) if settlement.state == "complete" else after)
    return _end(
        state,
        event._replace(
            state=settlement.state,
            quantity=settlement.quantity_text or event.quantity,
            finished_at=now,
            reason=None if settlement.state == "complete" else "requested",
            charges=tuple(charges),
            first=_as_it_stood(event),
        ),
        book,
        tick,
    )


def _asked_anew(event: Event, asked: Asked, settlement: Settlement, now: datetime) -> Event:
    """The end of a hold that is kept aside with its event: it is billed so when it is replayed, or never.

    Raises Refusal ``exceeds_reserved`` for more than was asked for, and ``invalid_field`` for a cost without a
    denomination: it has one once the event has a price.
    """
    first = event.first or event
    if settlement.state != "complete":
        return event._replace(state="cancelled", reason="requested", finished_at=now, asked=None, first=first)
    override = asked.override
    if settlement.override is not None:
        if override is None:
            raise invalid("cost_override_amount", "waits until the event is billed: nothing has priced it so far.")
        if settlement.override > override[0]:
            raise Refusal(
                "exceeds_reserved", denomination=override[1], reserved=override[0], required=settlement.override
            )
        override = settlement.override, override[1]
    if settlement.quantity is not None and override is None and not at_most(settlement.quantity, exact(event.quantity)):
        raise Refusal("exceeds_reserved", reserved_quantity=event.quantity, required_quantity=settlement.quantity_text)
    quantity = settlement.quantity_text or event.quantity
    return event._replace(asked=asked._replace(state="complete", override=override), quantity=quantity, first=first)


def void_event(state: AccountState, event: Event, *, terms: Terms, now: datetime, tick: int) -> Decision:
    """Take an event back: a hold is let go, a charge is reversed to the last fraction by a new transaction.

    Raises Refusal ``event_finished`` for an event that is cancelled already, ``event_expired`` for a hold that lapsed.
    """
    _must_be(("pending", "complete", "suspended"), event, now)
    book = Book(state, terms, now)
    for charge in event.charges:
        whole = whole_cost(event.charges, charge)
        book.uncount(charge, whole)
        if event.state == "pending":
            book.release(charge)
        else:
            book.reverse(charge, whole, event.id, exact(event.quantity))
    ended = event._replace(
        state="cancelled",
        finished_at=now,
        reason="deleted",
        charges=_emptied(event),
        first=_as_it_stood(event),
        asked=None,
    )
    return _end(state, ended, book, tick)


def expire_event(state: AccountState, event: Event, *, terms: Terms, now: datetime, tick: int) -> Decision:
    """Tidy a hold whose hour is over: it counted for nothing since then, now its row says so too.

    Raises Refusal ``event_finished`` where there is nothing to tidy.
    """
    if event.state != "pending" or event.expires_at is None or event.expires_at > now:
        raise Refusal("event_finished", state=event.state)
    book = Book(state, terms, now)
    for charge in event.charges:
        book.uncount(charge, whole_cost(event.charges, charge))
        book.lapse(charge)
    ended = event._replace(
        state="cancelled",
        finished_at=event.expires_at,
        reason="expired",
        charges=_emptied(event),
        first=_as_it_stood(event),
    )
    return _end(state, ended, book, tick)


class _Draft(NamedTuple):
    """An accepted event, before the balances after the request are known."""

    id: int
    event: UsageEvent
    occurred_at: datetime
    taken: tuple[Taken, ...]
    asked: Asked | None = None


def _laid(
    event: UsageEvent, occurred_at: datetime, terms: Terms, book: Book, index: int, *, kept: Event | None = None
) -> Sequence[Priced]:
    """The charges an event asks for, with what is overage split off; ``kept``: of one that was kept aside."""
    if event.state == "cancelled":
        return ()
    priced = _price(event, occurred_at, terms, book, index, kept)
    if book.plan is not None and book.state.plan is not None:
        return _split(priced, book, book.plan, book.state.plan.version_id, index)
    return priced


def _price(
    event: UsageEvent, occurred_at: datetime, terms: Terms, book: Book, index: int, kept: Event | None
) -> Sequence[Priced]:
    """The charges an event asks for: its override, else one per denomination that prices its type (contract 3.7)."""
    if event.override is not None:
        amount, denomination = event.override
        return (Priced(denomination, Exact(amount, 1), None, None, ZERO),)
    if kept is None or kept.asked is None:
        families = None if book.has_usual_prices else prices_of(event.type, book.state, terms)
    else:
        families = prices_as_of(kept.recorded_at, kept.asked.version_id, event.type, book.state, terms)
    price = terms.single.get(event.type) if families is None else None
    if price is not None:
        latest = price.versions[-1]
        version = latest if latest.effective_at <= occurred_at else price.version_at(occurred_at)
        if version.is_plain:
            cost = times(event.quantity, version.unit)
            if cost.numerator > AMOUNT_MAX * cost.denominator:
                raise _out_of_range(index)
            return (Priced(version.denomination, cost, version, None, ZERO),)
        versions = [version]
    elif families is None:
        versions = terms.versions_for(event.type, event.properties, occurred_at)
    else:
        versions = versions_among(families, event.properties, occurred_at)
    priced: list[Priced] = []
    for version in versions:
        period = book.period(occurred_at) if version.is_counted else None
        counter = EMPTY if period is None else book.counter(version.price_id, period)
        rated = rate(version, event.quantity, counter)
        if not at_most(rated.cost, Exact(AMOUNT_MAX, 1)):
            raise _out_of_range(index)
        priced.append(Priced(version.denomination, rated.cost, version, period, rated.counted))
    return priced


def _split(priced: Sequence[Priced], book: Book, plan: PlanTerms, version_id: int, index: int) -> list[Priced]:
    """Charges with what their balances do not cover priced as overage, where the plan has a price for it.

    No charge of an event changes what another one of it finds: each balance is charged by one price, and a balance
    into which others overflow has no overage of its own.
    """
    laid: list[Priced] = []
    for charge in priced:
        terms = plan.balances.get(charge.denomination)
        if terms is None or terms.overage is None:
            laid.append(charge)
            continue
        covered = book.covered(charge.denomination, charge.cost)
        laid.append(charge._replace(cost=covered, whole=charge.cost))
        rest = minus(charge.cost, covered)
        if rest.numerator > 0:
            unit, into = terms.overage
            cost = reduced(times(rest, unit))
            if not at_most(cost, Exact(AMOUNT_MAX, 1)):
                raise _out_of_range(index)
            overage = OverageOf(charge.denomination, reduced(rest), unit, version_id)
            laid.append(Priced(into, cost, None, None, ZERO, None, overage))
    return laid


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
    while known.first is not None:
        known = known.first
    return known


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


def _event(draft: _Draft, account_id: int, posting: int, book: Book, now: datetime) -> Event:
    event, state = draft.event, draft.event.state if draft.asked is None else "suspended"
    return Event(
        account_id,
        draft.id,
        posting,
        event.type,
        event.quantity_text,
        state,
        event.gated,
        event.key,
        event.key_digest,
        event.fingerprint,
        event.tag,
        draft.occurred_at,
        now,
        event.metadata,
        _charges(draft.taken, state, book),
        now + HOLD_LIFE if state == "pending" else None,
        now if state == "cancelled" else None,
        "pushed" if state == "cancelled" else None,
        event.cogs_amount,
        event.cogs_denomination,
        event.parent_event_id,
        None,
        draft.asked,
    )


def _charges(taken: Sequence[Taken], state: State, book: Book) -> tuple[Charge, ...]:
    """What was taken, with the balances after the request and the transactions that moved them."""
    charges: list[Charge] = []
    for one in taken:
        after = book.after[one.denomination]
        made = None
        if state == "complete":
            made = (book.made if one.overage is None else book.overflowed).get(one.denomination)
        charges.append(
            Charge(
                *one,
                None if made is None else made.id,
                None if made is None else made.seq,
                after.amount,
                after.pending,
                after.residue,
            )
        )
    return tuple(charges)


def _told(state: AccountState, book: Book, transactions: Sequence[Transaction]) -> Told:
    """What a closed book has to say."""
    listening, plan = book.terms.listening, plan_terms_of(state, book.terms)
    return told_of(state, transactions, book.after, listening=listening, plan=plan, now=book.now)


def _must_be(states: tuple[State, ...], event: Event, now: datetime) -> None:
    """Refuse to change an event that is over, an hour over too, swept or not; said before any field (design 12)."""
    event = as_of(event, now)
    if event.reason == "expired":
        raise Refusal("event_expired", state=event.state)
    if event.state == "suspended" and "suspended" not in states:
        said = "The event is kept aside and no hold; it is billed when usage is resumed, or deleted."
        raise Refusal("event_finished", said, state=event.state)
    if event.state not in states:
        raise Refusal("event_finished", state=event.state)


def _after(state: AccountState, book: Book, tick: int, made: Sequence[Event], told: Told) -> AccountState:
    """The account once a closed book is written, the events of ``made`` are there, and what it says has come true."""
    bar, blocked_by = after_told(state, told)
    return AccountState(
        state.account_id,
        state.environment_id,
        tick,
        state.credit_limit,
        state.has_refusals,
        {**state.balances, **book.after},
        {**state.counters, **book.counters} if book.counters else state.counters,
        _earliest(state.expires_at, made),
        bar,
        state.plan,
        state.own_prices,
        state.own_versions,
        blocked_by,
        state.own_flags,
        state.watch,
        state.is_suspended,
        state.own_past,
    )


def _earliest(expires_at: datetime | None, events: Sequence[Event]) -> datetime | None:
    for event in events:
        if event.expires_at is not None and (expires_at is None or event.expires_at < expires_at):
            expires_at = event.expires_at
    return expires_at


def _as_it_stood(event: Event) -> Event:
    """The event as it was pushed; of one that was kept aside, as it was billed, with how it was pushed behind that."""
    if event.first is None or (event.first.state == "suspended" and event.state != "suspended"):
        return event
    return event.first


def _emptied(event: Event) -> tuple[Charge, ...]:
    """Charges that hold and move nothing any more."""
    return tuple(charge._replace(amount=0) for charge in event.charges)


def _settled(event: Event, settlement: Settlement, book: Book) -> list[Charge]:
    """What the charges of a hold come to at the end, in their order.

    A quantity is rated on the terms and the counter of the moment the event was pushed. An override speaks for the
    first charge and frees the others. What was covered then is used first, the rest has the price of overage that it
    had then. Nothing may come to more than the hold reserved.
    """
    if settlement.state != "complete":
        return [charge._replace(amount=0, prior=None) for charge in event.charges]
    settled: dict[tuple[str, OverageOf | None], Charge] = {}
    for index, charge in enumerate(event.charges):
        if charge.overage is not None:
            continue
        total, prior = whole_cost(event.charges, charge), charge.prior
        version = book.version(charge.price_version_id)
        if settlement.quantity is not None and version is not None:
            rated = rate(version, settlement.quantity, EMPTY if prior is None else Counter(prior.units, prior.billed))
            total, prior = rated.cost, None if prior is None else prior._replace(counted=rated.counted)
        if settlement.override is not None:
            total = Exact(settlement.override if index == 0 else 0, 1)
        spilt = overflow_of(event.charges, charge)
        covered = total if spilt is None or at_most(total, charge.cost) else charge.cost
        settled[charge.denomination, None] = _within_reserve(charge._replace(cost=covered, prior=prior))
        if spilt is not None and spilt.overage is not None:
            units = reduced(minus(total, covered))
            overage = spilt.overage._replace(units=units)
            settled[spilt.denomination, spilt.overage] = _within_reserve(
                spilt._replace(cost=reduced(times(units, overage.unit)), overage=overage)
            )
    return [settled[charge.denomination, charge.overage] for charge in event.charges]


def _within_reserve(charge: Charge) -> Charge:
    if not at_most(charge.cost, Exact(charge.amount, 1)):
        raise Refusal(
            "exceeds_reserved",
            denomination=charge.denomination,
            reserved=charge.amount,
            required=round_up(charge.cost),
        )
    return charge


def _end(state: AccountState, event: Event, book: Book, tick: int) -> Decision:
    """The decision that ends one event: its row changed, its posting and its balances."""
    posting = max(tick, state.tick + 1)
    transactions, next_id = book.close(posting + 1)
    ended = event._replace(posting=posting, charges=tuple(book.snapshot(charge) for charge in event.charges))
    told = _told(state, book, transactions)
    return Decision(
        state=_after(state, book, next_id, (), told),
        recorded_at=book.now,
        answers=(ended,),
        finished=(ended,),
        transactions=transactions,
        balances=tuple(book.after.values()),
        counters=tuple(book.counters),
        told=told,
    )
