"""The book of one request: the balances and counters that it touches, opened as they are needed and closed once.

The problem, on one example. A request uses 5 of the 3 GB that are left, and 2 more dollars; a GB beyond is 1 dollar:

    balance       what is asked          what is done                               transactions
    storage_gb    3 left, 5 used         3 are taken, 2 are over                    usage -3
    USD           1000 left, 200 used    200 for the event, 200 for 2 GB over       usage -200, then overage -200

A balance is asked many times in a request and moved once, so a ``Tally`` keeps where it stood, where it stands and what
the coming transactions say; what moved it for overage is kept apart, because it goes to a book of its own. Nothing
else in the core changes in place; it never leaves the request. Sources: contract 2.5, 3.6, 3.7; design 5, 11.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from .catalog import PriceVersion
from .event import AccountState, Charge, OverageOf, Prior, State, UsageEvent, credit_limit_of, plan_terms_of
from .ledger import OVERAGE_BOOK, USAGE_BOOK, Balance, Transaction, closed, open_balance, post, reserve
from .money import ZERO, Exact, at_most, minus, plus, round_up, times
from .period import month_of
from .rating import EMPTY, Counter, count
from .terms import Terms

Shortage = tuple[str, dict[str, object]]
"""Why the gate refuses: a code and its details."""


class Priced(NamedTuple):
    """One charge that an event asks for, before the gate.

    ``whole`` is what it cost before it was split where its balance has overage terms, None where it has none; ``cost``
    is then what is there to pay it. ``overage`` says that it is the price of what was not there.
    """

    denomination: str
    cost: Exact
    version: PriceVersion | None
    period: str | None
    counted: Exact
    whole: Exact | None = None
    overage: OverageOf | None = None


class Taken(NamedTuple):
    """One charge that was taken, before the balances after the request are known."""

    denomination: str
    amount: int
    cost: Exact
    price_version_id: int | None
    prior: Prior | None
    overage: OverageOf | None


class _Overflow:
    """What moved a balance in a request for overage: the coming transaction in the book of overage."""

    __slots__ = ("count", "denominations", "first_event_id", "last_event_id", "moved", "unit_cost")

    def __init__(self, event_id: int, unit_cost: Exact) -> None:
        self.first_event_id = self.last_event_id = event_id
        self.unit_cost: Exact | None = unit_cost
        self.count, self.moved = 1, 0
        self.denominations: dict[str, None] = {}


class Tally:
    """One balance while a request is decided."""

    __slots__ = (
        "balance",
        "before",
        "count",
        "first_event_id",
        "limit",
        "overflow",
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
        self.raised: tuple[tuple[int, str], ...] = ()
        self.overflow: _Overflow | None = None


class Book:
    """The balances and counters that one request touches.

    ``plan`` are the terms of the account's plan, if any; ``has_usual_prices`` says that only the company's prices hold.
    """

    def __init__(self, state: AccountState, terms: Terms, now: datetime) -> None:
        self.state, self.terms, self.now = state, terms, now
        self.plan = None if state.plan is None else plan_terms_of(state, terms)
        self.has_usual_prices = state.plan is None and not state.own_prices
        self.tallies: dict[str, Tally] = {}
        self.counters: dict[tuple[int, str], Counter] = {}
        self.after: dict[str, Balance] = {}
        self.made: dict[str, Transaction] = {}
        self.overflowed: dict[str, Transaction] = {}

    def tally(self, denomination: str) -> Tally:
        """The balance as this request has left it so far."""
        tally = self.tallies.get(denomination)
        if tally is None:
            balance = self.state.balances.get(denomination) or open_balance(denomination)
            limit = credit_limit_of(balance, self.state.credit_limit, self.terms.default_credit_limit)
            tally = self.tallies[denomination] = Tally(balance, limit)
        return tally

    def period(self, occurred_at: datetime) -> str:
        """What a price counts an event by: the plan period it falls in, else the calendar month of the company."""
        if self.state.plan is not None:
            for start_at, name in self.state.plan.periods:
                if start_at <= occurred_at:
                    return name
        return month_of(occurred_at, self.terms.zone).isoformat()

    def counter(self, price_id: int, period: str) -> Counter:
        """What the price has seen of the period, this request so far included."""
        found = self.counters.get((price_id, period))
        return found if found is not None else self.state.counters.get((price_id, period), EMPTY)

    def version(self, version_id: int | None) -> PriceVersion | None:
        """The terms that something was priced by: the company's, of a plan, or agreed with the account."""
        if version_id is None:
            return None
        return self.terms.versions.get(version_id) or self.state.own_versions.get(version_id)

    # --- the gate

    def shortage(self, priced: Sequence[Priced], state: State) -> Shortage | None:
        """Why the gate refuses these charges, or None. Exact: residue plus cost against what is available."""
        if self.state.bar is not None:
            return self.state.bar, {}
        if self.terms.is_paused:
            return "account_paused", {}
        for charge in priced if self.plan is None else self._gathered(priced, state):
            tally = self.tallies.get(charge.denomination) or self.tally(charge.denomination)
            balance = tally.balance
            room = balance.amount - balance.pending + tally.limit
            required = _required(balance, charge.cost, room)
            if required is not None:
                code = "credit_limit_reached" if tally.limit > 0 else "insufficient_balance"
                return code, _details(balance, balance.amount - balance.pending, required, required - room)
        return None if self.plan is None or self.plan.spend_cap is None else self._above_cap(priced, state)

    def _gathered(self, priced: Sequence[Priced], state: State) -> list[Priced]:
        """What is to be judged of each balance as one sum: not what is taken from where overage has its price.

        A hold rounds each of its charges up, so several on one balance may need more than their sum.
        """
        sums: dict[str, list[Priced]] = {}
        for charge in priced:
            if charge.whole is None:
                sums.setdefault(charge.denomination, []).append(charge)
        return [self._summed(charges, state) for charges in sums.values()]

    def _summed(self, charges: Sequence[Priced], state: State) -> Priced:
        first = charges[0]
        cost, held = first.cost, round_up(first.cost)
        for further in charges[1:]:
            cost, held = plus(cost, further.cost), held + round_up(further.cost)
        if state == "pending" and len(charges) > 1:
            at_least = minus(Exact(held, 1), self.tally(first.denomination).balance.residue)
            cost = cost if at_most(at_least, cost) else at_least
        return first._replace(cost=cost)

    def _above_cap(self, priced: Sequence[Priced], state: State) -> Shortage | None:
        """Why a plan's spend cap refuses these charges: it counts all that usage and overage took in the period."""
        plan, on = self.plan, self.state.plan
        assert plan is not None and plan.spend_cap is not None and on is not None  # noqa: PT018 - one fact, for mypy
        charges = [charge for charge in priced if charge.denomination == plan.denomination]
        if not charges:
            return None
        balance = self.tally(plan.denomination).balance
        room = balance.amount - balance.pending - (on.unspent - plan.spend_cap)
        required = _required(balance, self._summed(charges, state).cost, room)
        if required is None:
            return None
        return "spend_cap_reached", _details(balance, room, required, required - room)

    # --- what is taken

    def covered(self, denomination: str, cost: Exact) -> Exact:
        """How much of a cost is there to pay it, to the last fraction, before any credit."""
        balance = self.tally(denomination).balance
        there = minus(Exact(balance.amount - balance.pending, 1), balance.residue)
        if there.numerator <= 0:
            return ZERO
        return cost if at_most(cost, there) else there

    def take(self, priced: Sequence[Priced], event_id: int, event: UsageEvent) -> tuple[Taken, ...]:
        """Post or reserve each charge. After the gate nothing here may fail but the bounds of a balance."""
        taken: list[Taken] = []
        for charge in priced:
            version = charge.version
            prior = None
            if version is not None and charge.period is not None:
                prior = self._count(charge, version, event)
            if event.state == "pending":
                amount = round_up(charge.cost)
                tally = self.tally(charge.denomination)
                tally.balance = reserve(tally.balance, amount)
            elif charge.overage is not None:
                amount = self._spill(charge.denomination, charge.cost, event_id, charge.overage)
            else:
                unit = (
                    version.unit
                    if version and version.is_plain
                    else _unit_cost(version, charge.whole or charge.cost, event.quantity)
                )
                amount = self._move(charge.denomination, charge.cost, event_id, unit)
            version_id = None if version is None else version.id
            taken.append(Taken(charge.denomination, amount, charge.cost, version_id, prior, charge.overage))
        return tuple(taken)

    def _count(self, charge: Priced, version: PriceVersion, event: UsageEvent) -> Prior:
        assert charge.period is not None
        slot = (version.price_id, charge.period)
        before = self.counter(*slot)
        self.counters[slot] = count(before, charge.counted, charge.whole or charge.cost)
        if version.max_value_billing and charge.counted.numerator > 0 and event.state == "complete":
            self._raise(charge.denomination, slot, event.quantity)
        return Prior(charge.period, before.units, before.billed, charge.counted)

    def _move(self, denomination: str, cost: Exact, event_id: int, unit: Exact | None) -> int:
        tally = self.tally(denomination)
        tally.balance, moved = post(tally.balance, cost)
        tally.count += 1
        if tally.first_event_id is None:
            tally.first_event_id, tally.unit_cost = event_id, unit
        elif tally.unit_cost != unit:
            tally.unit_cost = None
        return moved

    def _spill(self, denomination: str, cost: Exact, event_id: int, overage: OverageOf) -> int:
        """Post the price of overage, to be told in a transaction of its own."""
        tally = self.tally(denomination)
        tally.balance, moved = post(tally.balance, cost)
        overflow = tally.overflow
        if overflow is None:
            overflow = tally.overflow = _Overflow(event_id, overage.unit)
        elif overflow.unit_cost != overage.unit:
            overflow.unit_cost = None
        if overflow.last_event_id != event_id:
            overflow.last_event_id = event_id
            overflow.count += 1
        overflow.moved += moved
        overflow.denominations[overage.denomination] = None
        return moved

    def _raise(self, denomination: str, slot: tuple[int, str], value: Exact) -> None:
        """Let the coming transaction say which value it billed, and the counter which transaction its highest."""
        tally, counter = self.tally(denomination), self.counter(*slot)
        tally.value, tally.previous_id = value, counter.maximum_transaction_id
        if at_most(counter.units, value):
            tally.raised += (slot,)

    # --- what was taken before

    def settle(self, charge: Charge, whole: Exact, event_id: int, quantity: Exact) -> Charge:
        """Post what a hold came to, ``whole`` with what overflowed; its counter has been put right before."""
        if charge.overage is not None:
            return charge._replace(amount=self._spill(charge.denomination, charge.cost, event_id, charge.overage))
        version = self.version(charge.price_version_id)
        moved = self._move(charge.denomination, charge.cost, event_id, _unit_cost(version, whole, quantity))
        if version is not None and version.max_value_billing and charge.prior and charge.prior.counted.numerator > 0:
            self._raise(charge.denomination, (version.price_id, charge.prior.period), quantity)
        return charge._replace(amount=moved)

    def reverse(self, charge: Charge, whole: Exact, event_id: int, quantity: Exact) -> None:
        """Post the exact opposite of what an event had cost, ``whole`` with what overflowed."""
        cost = minus(ZERO, charge.cost)
        if charge.overage is not None:
            self._spill(charge.denomination, cost, event_id, charge.overage)
        else:
            unit = _unit_cost(self.version(charge.price_version_id), whole, quantity)
            self._move(charge.denomination, cost, event_id, unit)
        self.tallies[charge.denomination].type = "REVERSAL"

    def release(self, charge: Charge) -> None:
        """Let go what a hold reserves."""
        tally = self.tally(charge.denomination)
        tally.balance = reserve(tally.balance, -charge.amount)

    def lapse(self, charge: Charge) -> None:
        """Forget what a hold reserved that had counted as lapsed already when the state was read."""
        tally = self.tally(charge.denomination)
        tally.balance = tally.balance._replace(lapsed=tally.balance.lapsed - charge.amount)

    def uncount(self, charge: Charge, cost: Exact, settled: Prior | None = None, settled_cost: Exact = ZERO) -> None:
        """Take what a charge had added to its counter out again, but for what its settlement leaves in.

        ``cost`` and ``settled_cost`` are whole, with what overflowed.
        """
        version = self.version(charge.price_version_id)
        if charge.prior is None or version is None:
            return
        units = charge.prior.counted
        if settled is not None:
            units, cost = minus(units, settled.counted), minus(cost, settled_cost)
        slot = (version.price_id, charge.prior.period)
        self.counters[slot] = count(self.counter(*slot), minus(ZERO, units), minus(ZERO, cost))

    # --- the end of the request

    def close(self, next_id: int) -> tuple[tuple[Transaction, ...], int]:
        """The transactions of the request and the balances after it.

        One per denomination that moved; where it moved for usage and for overage, one for each, usage first.
        """
        transactions: list[Transaction] = []
        for denomination, tally in self.tallies.items():
            before = tally.before
            after = closed(before, tally.balance)
            spilt = 0 if tally.overflow is None else tally.overflow.moved
            used = before.amount - after.amount - spilt
            if used:
                made = self._usage(tally, before.seq + 1, before.amount - used, next_id)
                for slot in tally.raised:
                    self.counters[slot] = self.counters[slot]._replace(maximum_transaction_id=next_id)
                self.made[denomination] = made
                transactions.append(made)
                next_id += 1
            if spilt:
                after = after._replace(seq=before.seq + (2 if used else 1))
                made = self._overage(tally, after, next_id)
                self.overflowed[denomination] = made
                transactions.append(made)
                next_id += 1
            self.after[denomination] = after
        return tuple(transactions), next_id

    def _usage(self, tally: Tally, seq: int, ending: int, id: int) -> Transaction:
        events = "1 event" if tally.count == 1 else f"{tally.count} events"
        return Transaction(
            id,
            tally.before.denomination,
            seq,
            USAGE_BOOK,
            tally.type,
            f"Reversal of {events}" if tally.type == "REVERSAL" else events,
            ending - tally.before.amount,
            tally.before.amount,
            ending,
            self.now,
            tally.unit_cost,
            tally.first_event_id,
            tally.count,
            tally.value,
            tally.previous_id,
        )

    def _overage(self, tally: Tally, after: Balance, id: int) -> Transaction:
        overflow = tally.overflow
        assert overflow is not None
        what = f"verage of {', '.join(sorted(overflow.denominations))}"
        is_reversal = tally.type == "REVERSAL"
        return Transaction(
            id,
            after.denomination,
            after.seq,
            OVERAGE_BOOK,
            "REVERSAL" if is_reversal else "OVERAGE",
            f"Reversal of o{what}" if is_reversal else f"O{what}",
            -overflow.moved,
            after.amount + overflow.moved,
            after.amount,
            self.now,
            overflow.unit_cost,
            overflow.first_event_id,
            overflow.count,
        )

    def snapshot(self, charge: Charge) -> Charge:
        """The charge of an ended event with what the ending did to its balance."""
        after = self.after[charge.denomination]
        made = (self.made if charge.overage is None else self.overflowed).get(charge.denomination)
        return charge._replace(
            transaction_id=made.id if made else None,
            transaction_seq=made.seq if made else None,
            balance_amount=after.amount,
            balance_pending=after.pending,
            residue=after.residue,
        )


def _required(balance: Balance, cost: Exact, room: int) -> int | None:
    """The whole units that are needed where ``room`` does not do; None where it does.

    What costs nothing needs a balance that is not below its floor, and no more.
    """
    if cost.numerator == 0:
        return None if room >= 0 else 0
    owed = plus(balance.residue, cost)
    return None if owed.numerator <= room * owed.denominator else round_up(owed)


def _details(balance: Balance, available: int, required: int, shortfall: int) -> dict[str, object]:
    return {
        "denomination": balance.denomination,
        "available": available,
        "pending": balance.pending,
        "required": required,
        "shortfall": shortfall,
    }


def _unit_cost(version: PriceVersion | None, cost: Exact, quantity: Exact) -> Exact | None:
    """The price of one unit, where one price for all of them made the cost; of an override, where there is one unit."""
    if version is not None and not version.is_plain:
        return None
    unit = cost if version is None else version.unit
    whole = times(quantity, unit)
    return unit if whole.numerator * cost.denominator == cost.numerator * whole.denominator else None
