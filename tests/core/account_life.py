"""One account with all its rows in memory, kept as the store keeps them, and a second opinion on every step.

``event`` and ``settle_for`` build what comes through the door; a ``Life`` asks the core and keeps what it answers;
``audit`` works out every balance and counter again, by other means than the core's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from hashlib import blake2b
from typing import Final
from zoneinfo import ZoneInfo

from tenuto.core.catalog import EventPrice, PriceVersion, Property, families_of, price_version
from tenuto.core.event import (
    AccountState,
    Decision,
    Event,
    GatedEvent,
    OnPlan,
    Settlement,
    State,
    UsageEvent,
    as_of,
    plan_terms_of,
    whole_cost,
)
from tenuto.core.ledger import OVERAGE_BOOK, TAKEN_BOOKS, Balance, Transaction, move, open_balance
from tenuto.core.money import Exact, exact, parse_fraction
from tenuto.core.notification import after_told, told_of
from tenuto.core.plan import PlanTerms, PlanVersion, plan_terms
from tenuto.core.terms import Terms, terms_of
from tenuto.core.topic import DEAF, USUAL_RULES, Notification, Rule, Told, Watch
from tenuto.core.usage import Queued, bill_events, expire_event, finish_event, replay_events, void_event

START: Final = datetime(2030, 1, 15, 12, tzinfo=UTC)
LONG_AGO: Final = datetime(2020, 1, 1, tzinfo=UTC)
ACCOUNT_ID: Final = 78364164096
PLAN_ID: Final = 7
PLAN_VERSION_ID: Final = 70
NO_PLAN: Final = {"name": "None", "renewal_denomination": "USD", "renewals": {"ONE_OFF": {"amount": 0}}, "balances": {}}
NOTHING: Final = AccountState(ACCOUNT_ID, 1, 0, None, False, {}, {}, None)


def fraction(value: Exact) -> Fraction:
    """The same number in the standard library's own arithmetic, for a second opinion."""
    return Fraction(value.numerator, value.denominator)


def digest(text: str, size: int = 16) -> bytes:
    return blake2b(text.encode(), digest_size=size).digest()


def event(
    kind: str,
    quantity: str = "1",
    *,
    state: State = "complete",
    gated: bool = False,
    key: str | None = None,
    override: tuple[int, str] | None = None,
    properties: Mapping[str, object] | None = None,
    occurred_at: datetime | None = None,
    cogs: tuple[int, str] | None = None,
) -> UsageEvent:
    """An event as it comes through the door; its fingerprint is a digest of everything in it."""
    body = repr((kind, quantity, state, gated, key, override, properties, occurred_at, cogs))
    return UsageEvent(
        type=kind,
        quantity=exact(quantity),
        quantity_text=quantity,
        state=state,
        gated=gated,
        key=key,
        key_digest=None if key is None else digest(key),
        fingerprint=int.from_bytes(digest(body, 8), "big", signed=True),
        override=override,
        properties=properties or {},
        metadata=None if properties is None else json.dumps(properties),
        tag="usage",
        occurred_at=occurred_at,
        cogs_amount=None if cogs is None else cogs[0],
        cogs_denomination=None if cogs is None else cogs[1],
        parent_event_id=None,
    )


def settle_for(*, quantity: str | None = None, cost: int | None = None) -> Settlement:
    """The ending of a hold in full, or for the quantity or the cost given."""
    return Settlement("complete", None if quantity is None else exact(quantity), quantity, cost)


CANCEL: Final = Settlement("cancelled")


@dataclass
class Life:
    """One account and all its rows in memory, kept as the store keeps them, and audited after each step."""

    now: datetime = START
    zone: str = "UTC"
    account_limit: int | None = None
    company_limit: int = 0
    prices: dict[tuple[str, str, str], EventPrice] = field(default_factory=dict)
    versions: list[PriceVersion] = field(default_factory=list)
    opening: dict[str, Balance] = field(default_factory=dict)
    stored: AccountState = NOTHING
    events: dict[int, Event] = field(default_factory=dict)
    gated: list[GatedEvent] = field(default_factory=list)
    known: dict[bytes, Event | GatedEvent] = field(default_factory=dict)
    transactions: list[Transaction] = field(default_factory=list)
    requests: int = 0
    plan: PlanTerms | None = None
    is_agreed: bool = False
    periods: list[tuple[datetime, str]] = field(default_factory=list)
    unspent: int = 0
    plan_prices: dict[tuple[str, str, str], EventPrice] = field(default_factory=dict)
    own_prices: dict[tuple[str, str, str], EventPrice] = field(default_factory=dict)
    watch: Watch = DEAF
    rules: tuple[Rule, ...] = USUAL_RULES
    is_paused: bool = False
    is_suspended: bool = False
    told: list[Told] = field(default_factory=list)

    # --- the scene

    def subscribe(self, balances: Mapping[str, Mapping[str, object]], **terms: object) -> None:
        """Put the account on a plan, whose terms are agreed with it alone where ``is_agreed`` is set."""
        given = {"name": "Pro", "renewal_denomination": "USD", "renewals": {"MONTHLY": {"amount": 0}}}
        self.plan = plan_terms({**given, "balances": dict(balances), **terms})

    def price(
        self,
        kind: str,
        denomination: str,
        terms: Mapping[str, object],
        *,
        match: Mapping[str, Property] | None = None,
        since: datetime = LONG_AGO,
        among: dict[tuple[str, str, str], EventPrice] | None = None,
    ) -> PriceVersion:
        """A price, or a new version of one that is alike in type, denomination and match.

        ``among`` says whose: the company's unless told, else ``plan_prices`` or ``own_prices``.
        """
        prices = self.prices if among is None else among
        slot = (kind, denomination, json.dumps(match or {}, sort_keys=True))
        old = prices.get(slot)
        price_id = old.id if old else 1 + sum(map(len, (self.prices, self.plan_prices, self.own_prices)))
        version = price_version(
            id=len(self.versions) + 1,
            price_id=price_id,
            number=len(old.versions) + 1 if old else 1,
            denomination=denomination,
            effective_at=since,
            terms=terms,
        )
        self.versions.append(version)
        versions = (*old.versions, version) if old else (version,)
        prices[slot] = EventPrice(price_id, kind, denomination, match or {}, versions)
        return version

    def open(
        self, denomination: str, amount: int, *, limit: int | None = None, residue: str = "0", filled: int = 0
    ) -> None:
        balance = open_balance(denomination, credit_limit=limit)._replace(
            amount=amount, residue=parse_fraction(residue), filled=filled
        )
        self.opening[denomination] = balance
        self.stored = self.stored._replace(balances={**self.stored.balances, denomination: balance})

    @property
    def terms(self) -> Terms:
        return terms_of(
            zone=ZoneInfo(self.zone),
            default_credit_limit=self.company_limit,
            late=timedelta(days=35),
            ahead=timedelta(minutes=5),
            prices=self.prices.values(),
            versions=[version for version in self.versions if version.id not in self._own_versions],
            plans=[self._plan_version] if self.plan is not None else [],
            watch=self.watch,
            rules=self.rules,
            is_paused=self.is_paused,
            is_suspended=self.is_suspended,
        )

    @property
    def _own_versions(self) -> dict[int, PriceVersion]:
        return {version.id: version for price in self.own_prices.values() for version in price.versions}

    @property
    def _plan_version(self) -> PlanVersion:
        assert self.plan is not None
        terms = plan_terms(NO_PLAN) if self.is_agreed else self.plan
        return PlanVersion(PLAN_VERSION_ID, PLAN_ID, 1, terms, families_of(self.plan_prices.values()))

    @property
    def state(self) -> AccountState:
        """The account as a load at this moment would find it: a hold past its hour is lapsed, not pending."""
        balances = dict(self.stored.balances)
        for denomination, balance in balances.items():
            held = {is_live: self._held(denomination, is_live=is_live) for is_live in (True, False)}
            balances[denomination] = balance._replace(pending=held[True], lapsed=held[False])
        live = [hold.expires_at for hold in self._holds(is_live=True) if hold.expires_at is not None]
        return self.stored._replace(
            credit_limit=self.account_limit,
            balances=balances,
            expires_at=min(live, default=None),
            plan=self._on_plan,
            own_prices=families_of(self.own_prices.values()),
            own_versions=self._own_versions,
        )

    @property
    def _on_plan(self) -> OnPlan | None:
        if self.plan is None:
            return None
        override = self.plan if self.is_agreed else None
        return OnPlan(PLAN_VERSION_ID, override, tuple(sorted(self.periods, reverse=True)), self.unspent)

    # --- what is asked

    def push(self, *events: UsageEvent) -> Decision:
        return self._save(
            bill_events(
                self.state,
                events,
                terms=self.terms,
                known=self.known,
                now=self.now,
                tick=self._tick(),
                request_id=f"r{self.requests}",
            )
        )

    def finish(self, event_id: int, settlement: Settlement) -> Decision:
        held = self.events[event_id]
        decision = finish_event(self.state, held, settlement, terms=self.terms, now=self.now, tick=self._tick())
        self._save(decision)
        for before, after in zip(held.charges, self.events[event_id].charges, strict=True):
            assert settlement.state == "cancelled" or fraction(after.cost) <= before.amount, "no more than was held"
        return decision

    def void(self, event_id: int) -> Decision:
        return self._save(
            void_event(self.state, self.events[event_id], terms=self.terms, now=self.now, tick=self._tick())
        )

    def sweep(self) -> list[Decision]:
        return [
            self._save(expire_event(self.state, hold, terms=self.terms, now=self.now, tick=self._tick()))
            for hold in list(self._holds(is_live=False))
        ]

    def replay(self, *event_ids: int) -> Decision:
        """Bill what was kept aside: the events named, else all of them in order."""
        among = event_ids or sorted(held.id for held in self.events.values() if held.state == "suspended")
        queued = [
            Queued(self.events[event_id], json.loads(self.events[event_id].metadata or "{}")) for event_id in among
        ]
        return self._save(replay_events(self.state, queued, terms=self.terms, now=self.now, tick=self._tick()))

    def move(self, *moves: tuple[str, int, str]) -> Told:
        """Units of a denomination that arrive or go by a book, in one save: no usage, but it is told of as such is."""
        before, terms, tick = self.state, self.terms, max(self._tick(), self.stored.tick + 1)
        after: dict[str, Balance] = {}
        made: list[Transaction] = []
        for place, (denomination, amount, book) in enumerate(moves):
            held = after.get(denomination) or before.balances.get(denomination) or open_balance(denomination)
            self.opening.setdefault(denomination, open_balance(denomination))
            after[denomination], row = move(
                held, amount, id=tick + place, book=book, type=book.upper(), description=book, now=self.now
            )
            made.append(row)
        plan = plan_terms_of(before, terms)
        told = told_of(before, made, after, listening=terms.listening, plan=plan, now=self.now)
        bar, blocked_by = after_told(before, told)
        self.stored = self.stored._replace(
            tick=tick + len(moves), balances={**self.stored.balances, **after}, bar=bar, blocked_by=blocked_by
        )
        self.transactions.extend(made)
        self.told.append(told)
        audit(self)
        return told

    def wait(self, span: timedelta) -> None:
        self.now += span

    # --- what is known

    def amount(self, denomination: str) -> int:
        return self.state.balances[denomination].amount

    def available(self, denomination: str) -> int:
        return self.state.balances[denomination].available

    def owed(self, denomination: str) -> Fraction:
        """All that usage ever took from a balance, to the last fraction."""
        before, now = self.opening[denomination], self.stored.balances[denomination]
        arrived = sum(
            row.amount for row in self.transactions if row.denomination == denomination and row.book not in TAKEN_BOOKS
        )
        return before.amount + arrived - now.amount + fraction(now.residue) - fraction(before.residue)

    @property
    def notifications(self) -> list[Notification]:
        """Everything that was told so far."""
        return [notification for told in self.told for notification in told.notifications]

    def _holds(self, *, is_live: bool) -> list[Event]:
        return [
            held
            for held in self.events.values()
            if held.state == "pending" and (as_of(held, self.now).state == "pending") is is_live
        ]

    def _held(self, denomination: str, *, is_live: bool) -> int:
        return sum(
            charge.amount
            for hold in self._holds(is_live=is_live)
            for charge in hold.charges
            if charge.denomination == denomination
        )

    def _tick(self) -> int:
        self.requests += 1
        return int(self.now.timestamp()) * 10**6

    def _save(self, decision: Decision) -> Decision:
        """Keep the rows of a decision, and refuse those that the database would refuse."""
        for made in decision.events:
            assert made.id not in self.events
            self.events[made.id] = made
            self._know(made)
        for ended in decision.finished:
            self.events[ended.id] = ended
            self._know(ended)
        for refused in decision.gated:
            self.gated.append(refused)
            if refused.event.key_digest is not None:
                assert refused.event.key_digest not in self.known, "a key has one outcome"
                self.known[refused.event.key_digest] = refused
        for balance in decision.balances:
            assert decision.state.balances[balance.denomination] == balance
            self.opening.setdefault(balance.denomination, open_balance(balance.denomination))
        for transaction in decision.transactions:
            named = {
                made.id: charge
                for made in self.events.values()
                for charge in made.charges
                if made.id >= (transaction.first_event_id or 0)
                and (charge.denomination, charge.transaction_seq) == (transaction.denomination, transaction.seq)
            }
            assert len(named) == transaction.event_count, "a transaction names its events"
            assert all((charge.overage is not None) == (transaction.book == OVERAGE_BOOK) for charge in named.values())
            self.transactions.append(transaction)
        ids = [made.id for made in decision.events] + [refused.id for refused in decision.gated]
        ids += [row.id for row in decision.transactions]
        assert len(set(ids)) == len(ids)
        assert all(self.stored.tick < id <= decision.state.tick for id in ids)
        if decision.gated or any(answer is None for answer in decision.answers):
            assert not any((decision.events, decision.transactions, decision.balances, decision.counters))
        self.stored = decision.state
        self.told.append(decision.told)
        audit(self)
        return decision

    def _know(self, made: Event) -> None:
        if made.key_digest is not None:
            self.known[made.key_digest] = made


def audit(life: Life) -> None:
    """Every balance and counter worked out again from the events and transactions, by other means than the core's."""
    state = life.state
    assert set(state.balances) == set(life.opening)
    for denomination, balance in state.balances.items():
        at = life.opening[denomination].amount
        chain = [row for row in life.transactions if row.denomination == denomination]
        for seq, row in enumerate(chain, start=1):
            assert (row.seq, row.starting_balance, row.ending_balance) == (seq, at, at + row.amount)
            at = row.ending_balance
        assert (balance.amount, balance.seq) == (at, len(chain)), "the balance equals the last end"
        assert 0 <= fraction(balance.residue) < 1
        cost = sum(
            fraction(charge.cost)
            for made in life.events.values()
            if made.state == "complete"
            for charge in made.charges
            if charge.denomination == denomination
        )
        assert life.owed(denomination) == cost, "posted sum and residue are the exact sum"
        assert life.stored.balances[denomination].pending + life.stored.balances[denomination].lapsed == (
            balance.pending + balance.lapsed
        ), "what is pending is what the holds reserve"
    _audit_counters(life)


def _audit_counters(life: Life) -> None:
    price_of = {version.id: version.price_id for version in life.versions}
    for slot, counter in life.stored.counters.items():
        counted = [
            (charge.prior, whole_cost(made.charges, charge))
            for made in life.events.values()
            if made.state != "cancelled"
            for charge in made.charges
            if charge.prior is not None and (price_of[charge.price_version_id or 0], charge.prior.period) == slot
        ]
        assert fraction(counter.units) == sum(fraction(prior.counted) for prior, _ in counted)
        assert fraction(counter.billed) == sum(fraction(cost) for _, cost in counted)
