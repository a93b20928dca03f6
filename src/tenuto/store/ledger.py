"""The shelf of the hot path: account states, and what was decided about them.

Per batch of a lane: one statement to load the accounts that are not remembered, one to save (``tenuto_save``, which
proves that nothing changed in between). Rows locked per event: its account, its balance. Rows written per event: the
event, and a transaction where a whole unit moved. Many events at once go by COPY inside the same unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from tenuto.core.catalog import EventPrice, PriceVersion, by_type, families_of, price_version
from tenuto.core.event import AccountState, Asked, Charge, Decision, Event, Families, GatedEvent, OnPlan
from tenuto.core.ledger import TAKEN_BOOKS, Balance, Transaction
from tenuto.core.money import Exact, fraction_text, parse_fraction
from tenuto.core.notification import told_of
from tenuto.core.outcomes import Refusal
from tenuto.core.plan import PlanTerms, plan_terms
from tenuto.core.rating import Counter
from tenuto.core.topic import NOTHING, Heard, watch_of

from .answers import StoredAnswer
from .database import Reader, Record, Unit
from .records import REASONS, STATES, TAGS, decoded
from .signals import Signals, add_told, read_ears, save_signals

_STATE_CODE: Final = {state: code for code, state in enumerate(STATES)}
_TAG_CODE: Final = {tag: code for code, tag in enumerate(TAGS)}
_REASON_CODE: Final = {reason: code for code, reason in enumerate(REASONS)}

COPY_FROM: Final = 200
"""From how many events on a batch is copied instead of passed as arrays: where COPY began to win when measured."""


PERIODS_MAX: Final = 50
"""Plan periods that an account is read with: those that an event may fall in, and more than those."""

_LOAD: Final = """
select a.id, a.environment_id, a.tick, a.credit_limit, a.has_refusals,
    case when a.paused_at is not null then 'account_paused'
        when a.credit_blocked_at is not null then 'credit_blocked' end as bar,
    case when a.credit_blocked_at is not null then a.credit_blocked_by end as blocked_by,
    a.usage_suspended_at is not null as is_suspended,
    (select json_object_agg(f.name, f.value) from account_flag f where f.account_id = a.id) as own_flags,
    (select json_agg(json_build_array(h.webhook_id, h.topic, h.account_id, h.denomination, h.level))
        from webhook_topic h where h.account_id = a.id) as watch,
    (select json_agg(json_build_array(b.denomination, b.amount, b.pending, b.seq, b.residue_num::text,
            b.residue_den::text, b.credit_limit, (
                select r.threshold from refill r where r.account_id = b.account_id
                and r.denomination = b.denomination and r.due_at is null and r.parked_at is null), b.filled))
        from balance b where b.account_id = a.id) as balances,
    (select json_agg(json_build_array(c.price_id, c.period, c.units, c.billed, c.maximum_transaction_id))
        from price_counter c where c.account_id = a.id) as counters,
    least((select min(h.expires_at) from event h
        where h.account_id = a.id and h.state = 1 and h.expires_at > asked.now),
        (select min(g.expires_at) from balance_grant g
        where g.account_id = a.id and g.closed_at is null and g.expires_at > asked.now)) as expires_at,
    exists (select from balance_grant g
        where g.account_id = a.id and g.closed_at is null and g.expires_at <= asked.now) as is_expiring,
    (select json_agg(json_build_array(lapsed.denomination, lapsed.amount)) from (
            select h.denomination, h.amount from event h
            where h.account_id = a.id and h.state = 1 and h.expires_at <= asked.now and h.denomination is not null
            union all
            select x.denomination, x.amount from event h
            join event_charge x on x.account_id = h.account_id and x.event_id = h.id
            where h.account_id = a.id and h.state = 1 and h.expires_at <= asked.now
        ) as lapsed) as lapsed,
    exists (select from event h
        where h.account_id = a.id and h.state = 1 and h.expires_at <= asked.now) as is_lapsing,
    -- Terms and prices stay text inside the JSON, so that they are read again only when they are others.
    (select json_build_array(s.version_id, o.id, o.terms::text,
            coalesce((select b.arrived from balance b
                where b.account_id = a.id and b.denomination = p.denomination), 0) - coalesce(p.spent_before, 0),
            (select json_agg(json_build_array((extract(epoch from q.counts_from) * 1000000)::bigint, q.id) order by
                q.counts_from desc, q.id desc)
                from (select i.id, greatest(i.start_at, max(coalesce(i.end_at, i.ended_at)) over (
                        order by i.start_at, i.id rows between unbounded preceding and 1 preceding)) as counts_from
                    from (select * from subscription_period n where n.account_id = a.id
                        order by n.start_at desc, n.id desc limit {periods}) as i) as q))
        from subscription s
        left join plan_override o on o.account_id = s.account_id and o.id = s.override_id
        left join subscription_period p on p.account_id = s.account_id and p.id = s.period_id
        where s.account_id = a.id and s.status in ('trialing', 'active', 'past_due', 'paused')) as plan,
    (select json_agg(json_build_array(w.id, w.price_id, w.number, w.type, w.denomination, w.match::text, w.terms::text,
            (extract(epoch from w.effective_at) * 1000000)::bigint,
            (extract(epoch from w.created_at) * 1000000)::bigint,
            (extract(epoch from w.ended_at) * 1000000)::bigint) order by w.price_id, w.number)
        from price_override w where w.account_id = a.id) as own_prices
from unnest($1::bigint[], $2::timestamptz[]) as asked (id, now)
join account a on a.id = asked.id
""".replace("{periods}", str(PERIODS_MAX))


class Loaded(NamedTuple):
    """Account states, and which of those accounts have holds, or grants, past their time that nobody has tidied yet."""

    states: dict[int, AccountState]
    lapsing: list[int]
    expiring: list[int]


async def load_states(unit: Reader, asked: Mapping[int, datetime]) -> Loaded:
    """The state of each account at the moment given with it; accounts that do not exist are left out.

    One statement, so one snapshot: every part of a state belongs to its tick.
    """
    rows = await unit.fetch(_LOAD, list(asked), list(asked.values()))
    return Loaded(
        {row["id"]: _state(row) for row in rows},
        [row["id"] for row in rows if row["is_lapsing"]],
        [row["id"] for row in rows if row["is_expiring"]],
    )


async def lock_accounts(unit: Unit, account_ids: Iterable[int]) -> None:
    """Lock account rows in id order. What they own is read in the next statement, never in this one (house, Locks)."""
    await unit.execute("select from account where id = any($1) order by id for no key update", sorted(account_ids))


async def take_account(unit: Unit, environment_id: int, account_id: int, now: datetime) -> AccountState:
    """Lock an account, then read it in the next statement. Raises Refusal for one that is not the environment's."""
    await lock_accounts(unit, [account_id])
    state = (await load_states(unit, {account_id: now})).states.get(account_id)
    if state is None or state.environment_id != environment_id:
        raise Refusal("not_found")
    return state


async def take_accounts(
    unit: Unit, environment_id: int, account_ids: Iterable[int], now: datetime
) -> dict[int, AccountState]:
    """Lock many accounts of an environment, then read them in the next statement; those of others are left out."""
    wanted = list(account_ids)
    await lock_accounts(unit, wanted)
    states = (await load_states(unit, dict.fromkeys(wanted, now))).states
    return {id: state for id, state in states.items() if state.environment_id == environment_id}


async def raise_tick(unit: Unit, account_id: int, tick: int) -> None:
    """Let everyone who remembers the account find out that something about it changed."""
    await unit.execute("update account set tick = greatest(tick + 1, $2) where id = $1", account_id, tick)


async def save(
    unit: Unit,
    decided: Sequence[tuple[AccountState, Sequence[Decision]]],
    *,
    revisions: Mapping[int, int],
    relied: Sequence[AccountState] = (),
    answers: Sequence[StoredAnswer] = (),
) -> bool:
    """Write all that was decided: per account the state it was decided on and its decisions in order.

    ``relied`` are states that something was answered on without anything to write; they are proven like the others.

    Fails with TN001, TN002, TN003 or 23505 and nothing written (``database.translated`` gives them names). ``unit`` may
    be a bare connection: then this is one unit by itself, in one round trip unless the batch is large. True where it
    left a refill due.
    """
    rows = _Rows(decided, relied, answers)
    if len(rows.events) < COPY_FROM:
        await unit.execute(_SAVE, *rows.arguments(revisions, rows.events))
        return "low" in rows.rest
    async with unit.transaction():
        await unit.execute(_SAVE, *rows.arguments(revisions, ()))
        await unit.copy_records_to_table("event", records=map(_copied, rows.events), columns=EventRow.__struct_fields__)
    return "low" in rows.rest


_SAVE: Final = "select tenuto_save($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
_encode: Final = msgspec.json.Encoder().encode


class EventRow(msgspec.Struct, omit_defaults=True):
    """An event in the columns of its table, as JSON carries it: the fastest way for many small values into a unit.

    Arrays, one a column, took asyncpg three times as long to encode.
    """

    account_id: int
    id: int
    posting: int
    fingerprint: int
    amount: int | None
    balance_amount: int | None
    balance_pending: int | None
    transaction_seq: int | None
    price_version_id: int | None
    occurred_at: datetime
    recorded_at: datetime
    state: int
    tag: int
    gated: bool
    type: str
    denomination: str | None
    quantity: object
    cost: str | None
    residue: str | None
    key: str | None = None
    key_digest: bytes | str | None = None
    metadata: str | None = None
    expires_at: datetime | None = None
    finished_at: datetime | None = None
    parent_event_id: int | None = None
    cogs_amount: int | None = None
    reason: int | None = None
    cogs_denomination: str | None = None
    prior: dict[str, object] | str | None = None


class _Rows:
    """The rows of a batch, flattened once, ready to be passed on."""

    def __init__(
        self,
        decided: Sequence[tuple[AccountState, Sequence[Decision]]],
        relied: Sequence[AccountState],
        answers: Sequence[StoredAnswer],
    ) -> None:
        self.ticks: dict[int, tuple[int, int]] = {state.account_id: (state.tick, state.tick) for state in relied}
        self.events: list[Event] = []
        self.balances: list[dict[str, object]] = []
        self.transactions: list[dict[str, object]] = []
        self.rest: dict[str, list[dict[str, object]]] = {}
        self.signals: Signals = {}
        for before, decisions in decided:
            self._account(before, decisions[-1].state, decisions)
        for answer in answers:
            self._add("answers", _answer_row(answer))

    def _account(self, before: AccountState, after: AccountState, decisions: Sequence[Decision]) -> None:  # noqa: C901, PLR0912 - one branch a kind of row
        account_id = before.account_id
        self.ticks[account_id] = (before.tick, after.tick)
        if after.has_refusals and not before.has_refusals:
            self._add("refusing", {"account_id": account_id})
        balances: dict[str, datetime] = {}
        counters: dict[tuple[int, str], None] = {}
        finished: dict[int, Event] = {}
        for decision in decisions:
            for transaction in decision.transactions:
                self.transactions.append(_transaction_row(account_id, transaction))
            for event in decision.events:
                self._made(event, before)
            for event in decision.finished:
                finished[event.id] = event
            if decision.told is not NOTHING:
                add_told(self.signals, before, decision.told, decision.recorded_at)
            for gated in decision.gated:
                self._add("gated", _gated_row(gated))
            for balance in decision.balances:
                balances[balance.denomination] = decision.recorded_at
            for slot in decision.counters:
                counters[slot] = None
        # Only the last word about an event is written: one statement changes a row once, and does not say by which.
        for event in finished.values():
            self._finished(event)
        for denomination, at in balances.items():
            balance = after.balances[denomination]
            self._balance(before, _balance_row(account_id, balance, at))
            if balance.refill_below is None and _went_low(before, balance):
                self._add("low", {"account_id": account_id, "denomination": denomination, "at": at})
        for slot in counters:
            self._add("counters", _counter_row(account_id, slot, after.counters[slot]))

    def _balance(self, before: AccountState, row: dict[str, object]) -> None:
        if row["denomination"] in before.balances:
            self.balances.append(row)
        else:
            self._add("opened", row)

    def _made(self, event: Event, before: AccountState) -> None:
        self.events.append(event)
        if before.has_refusals and event.key_digest is not None:
            self._add("probes", {"account_id": event.account_id, "key_digest": event.key_digest.hex()})
        if len(event.charges) > 1:
            self._further_charges(event)

    def _add(self, section: str, row: dict[str, object]) -> None:
        self.rest.setdefault(section, []).append(row)

    def _further_charges(self, event: Event) -> None:
        for position, charge in enumerate(event.charges[1:], 1):
            self._add(
                "charges",
                {"account_id": event.account_id, "event_id": event.id, "position": position, **charge_json(charge)},
            )

    def _finished(self, event: Event) -> None:
        first = event.charges[0] if event.charges else None
        self._add(
            "finished",
            {
                "account_id": event.account_id,
                "id": event.id,
                "posting": event.posting,
                "state": _STATE_CODE[event.state],
                "reason": None if event.reason is None else _REASON_CODE[event.reason],
                "quantity": event.quantity,
                "expires_at": event.expires_at,
                "finished_at": event.finished_at,
                "first": _first_json(event.first),
                **({"prior": _asked_json(event.asked)} if first is None else charge_json(first)),
            },
        )
        self._further_charges(event)

    def arguments(self, revisions: Mapping[int, int], events: Sequence[Event]) -> tuple[object, ...]:
        """The arguments of tenuto_save, in its order."""
        ids = sorted(self.ticks)  # rows are locked in this order
        return (
            list(revisions),
            list(revisions.values()),
            ids,
            [self.ticks[id][0] for id in ids],
            [self.ticks[id][1] for id in ids],
            _encode(self.balances).decode(),
            _encode(self.transactions).decode(),
            _encode([_event_row(event) for event in events]).decode(),
            _encode(self.rest).decode() if self.rest else None,
            _encode(self.signals).decode() if self.signals else None,
        )


def _event_row(event: Event) -> EventRow:
    """An event as tenuto_save takes it."""
    row = EventRow(*_usual(event))
    if event.key_digest is not None:
        row.key_digest = event.key_digest.hex()
    # As a text, so that every byte of it arrives: JSON inside JSON would have its strings spelled anew.
    row.metadata = event.metadata
    row.expires_at, row.finished_at = event.expires_at, event.finished_at
    row.parent_event_id, row.reason = event.parent_event_id, _reason(event)
    row.cogs_amount, row.cogs_denomination = event.cogs_amount, event.cogs_denomination
    row.prior = _prior_json(event.charges[0]) if event.charges else _asked_json(event.asked)
    return row


def _copied(event: Event) -> tuple[object, ...]:
    """An event as COPY takes it, in the order of the columns of EventRow."""
    prior = _prior_json(event.charges[0]) if event.charges else _asked_json(event.asked)
    return (
        *_usual(event, quantity=Decimal(event.quantity)),
        event.key_digest,
        event.metadata,
        event.expires_at,
        event.finished_at,
        event.parent_event_id,
        event.cogs_amount,
        _reason(event),
        event.cogs_denomination,
        None if prior is None else _encode(prior).decode(),
    )


def _reason(event: Event) -> int | None:
    return None if event.reason is None else _REASON_CODE[event.reason]


def _usual(event: Event, quantity: object = None) -> tuple[Any, ...]:
    """The columns of an event up to its key, which are spelled alike whichever way it goes."""
    amount = balance_amount = balance_pending = transaction_seq = price_version_id = denomination = cost = residue = (
        None
    )
    if event.charges:
        charge = event.charges[0]
        amount, balance_amount, balance_pending = charge.amount, charge.balance_amount, charge.balance_pending
        transaction_seq, price_version_id = charge.transaction_seq, charge.price_version_id
        denomination = charge.denomination
        cost = f"{charge.cost.numerator}/{charge.cost.denominator}"
        residue = f"{charge.residue.numerator}/{charge.residue.denominator}"
    return (
        event.account_id,
        event.id,
        event.posting,
        event.fingerprint,
        amount,
        balance_amount,
        balance_pending,
        transaction_seq,
        price_version_id,
        event.occurred_at,
        event.recorded_at,
        _STATE_CODE[event.state],
        _TAG_CODE[event.tag],
        event.gated,
        event.type,
        denomination,
        quantity or event.quantity,
        cost,
        residue,
        event.key,
    )


def _transaction_row(account_id: int, transaction: Transaction) -> dict[str, object]:
    row: dict[str, object] = {
        "account_id": account_id,
        "denomination": transaction.denomination,
        "seq": transaction.seq,
        "id": transaction.id,
        "amount": transaction.amount,
        "starting_balance": transaction.starting_balance,
        "ending_balance": transaction.ending_balance,
        "first_event_id": transaction.first_event_id,
        "recorded_at": transaction.recorded_at,
        "event_count": transaction.event_count,
        "book": transaction.book,
        "type": transaction.type,
        "description": transaction.description,
    }
    if transaction.unit_cost is not None:
        row["unit_cost"] = fraction_text(transaction.unit_cost)
    if transaction.max_value_billing_amount is not None:
        row["max_value_billing_amount"] = fraction_text(transaction.max_value_billing_amount)
        row["max_value_billing_previous_id"] = transaction.max_value_billing_previous_id
    if transaction.cause_id is not None:
        row["cause_id"] = transaction.cause_id
    return row


def _balance_row(account_id: int, balance: Balance, at: datetime) -> dict[str, object]:
    return {
        "account_id": account_id,
        "denomination": balance.denomination,
        "amount": balance.amount,
        "pending": balance.pending + balance.lapsed,
        "seq": balance.seq,
        "residue_num": str(balance.residue.numerator),
        "residue_den": str(balance.residue.denominator),
        "updated_at": at,
    }


def _answer_row(answer: StoredAnswer) -> dict[str, object]:
    return {
        "environment_id": answer.environment_id,
        "key": answer.key,
        "fingerprint": answer.fingerprint.hex(),
        "status": answer.status,
        "body": answer.body.decode(),
        "created_at": answer.created_at,
    }


def _counter_row(account_id: int, slot: tuple[int, str], counter: Counter) -> dict[str, object]:
    return {
        "account_id": account_id,
        "price_id": slot[0],
        "period": slot[1],
        "units": fraction_text(counter.units),
        "billed": fraction_text(counter.billed),
        "maximum_transaction_id": counter.maximum_transaction_id,
    }


def _gated_row(gated: GatedEvent) -> dict[str, object]:
    event = gated.event
    return {
        "account_id": gated.account_id,
        "id": gated.id,
        "fingerprint": event.fingerprint,
        "occurred_at": gated.occurred_at,
        "recorded_at": gated.recorded_at,
        "tag": _TAG_CODE[event.tag],
        "type": event.type,
        "quantity": event.quantity_text,
        "state": _STATE_CODE[event.state],
        "key": event.key,
        "key_digest": None if event.key_digest is None else event.key_digest.hex(),
        "code": gated.code,
        "details": gated.details,
        "metadata": event.metadata,
        "request_id": gated.request_id,
    }


def _prior_json(charge: Charge) -> dict[str, object] | None:
    """What a charge remembers of how it came about: what its price had seen before, what it is the overage of."""
    prior, overage = charge.prior, charge.overage
    if prior is None and overage is None:
        return None
    kept: dict[str, object] = {}
    if prior is not None:
        kept["period"] = prior.period
        kept["units"] = fraction_text(prior.units)
        kept["billed"] = fraction_text(prior.billed)
        kept["counted"] = fraction_text(prior.counted)
    if overage is not None:
        kept["overage"] = {
            "denomination": overage.denomination,
            "units": fraction_text(overage.units),
            "unit": fraction_text(overage.unit),
            "version_id": overage.version_id,
        }
    return kept


def charge_json(charge: Charge) -> dict[str, object]:
    """A charge in the columns of the database."""
    return {
        "denomination": charge.denomination,
        "amount": charge.amount,
        "balance_amount": charge.balance_amount,
        "balance_pending": charge.balance_pending,
        "transaction_seq": charge.transaction_seq,
        "price_version_id": charge.price_version_id,
        "cost": fraction_text(charge.cost),
        "residue": fraction_text(charge.residue),
        "prior": _prior_json(charge),
    }


def _asked_json(asked: Asked | None) -> dict[str, object] | None:
    """What an event that is kept aside asks for."""
    return None if asked is None else {"asked": {**asked._asdict(), "state": _STATE_CODE[asked.state]}}


def _first_json(first: Event | None) -> dict[str, object] | None:
    """What finishing an event changes, as it was before."""
    if first is None:
        return None
    return {
        "posting": first.posting,
        "state": _STATE_CODE[first.state],
        "quantity": first.quantity,
        "prior": _asked_json(first.asked),
        "charges": [{**charge_json(charge), "transaction_id": charge.transaction_id} for charge in first.charges],
        **({} if first.first is None else {"first": _first_json(first.first)}),
    }


def _state(row: Record) -> AccountState:
    lapsed: dict[str, int] = {}
    for denomination, amount in decoded(row["lapsed"]):
        lapsed[denomination] = lapsed.get(denomination, 0) + amount
    balances = {
        denomination: Balance(
            denomination,
            amount,
            pending - lapsed.get(denomination, 0),
            lapsed.get(denomination, 0),
            Exact(int(numerator), int(denominator)),
            seq,
            credit_limit,
            refill_below,
            filled,
        )
        for denomination, amount, pending, seq, numerator, denominator, credit_limit, refill_below, filled in decoded(
            row["balances"]
        )
    }
    counters = {
        (price_id, period): Counter(parse_fraction(units), parse_fraction(billed), maximum)
        for price_id, period, units, billed, maximum in decoded(row["counters"])
    }
    state = AccountState(
        row["id"],
        row["environment_id"],
        row["tick"],
        row["credit_limit"],
        row["has_refusals"],
        balances,
        counters,
        row["expires_at"],
        row["bar"],
        blocked_by=row["blocked_by"],
        is_suspended=row["is_suspended"],
    )
    if row["own_flags"] is not None:
        state = state._replace(own_flags=decoded(row["own_flags"]))
    if row["watch"] is not None:
        state = state._replace(watch=watch_of(Heard(*heard) for heard in decoded(row["watch"])))
    if row["plan"] is not None:
        state = state._replace(plan=_on_plan(row["plan"]))
    if row["own_prices"] is not None:
        own_prices, own_past, own_versions = _own_prices(row["own_prices"])
        state = state._replace(own_prices=own_prices, own_past=own_past, own_versions=own_versions)
    return state


def _on_plan(text: str) -> OnPlan:
    version_id, override_id, terms, unspent, periods = decoded(text)
    return OnPlan(
        version_id,
        None if override_id is None else _agreed_terms(override_id, terms),
        tuple((_instant(micros), str(name)) for micros, name in periods or ()),
        unspent,
    )


@lru_cache(maxsize=1024)
def _agreed_terms(override_id: int, terms: str) -> PlanTerms:  # noqa: ARG001 - the id belongs to what is remembered
    """Plan terms agreed with one account, read once: they never change under their id."""
    return plan_terms(msgspec.json.decode(terms))


def _own_prices(
    text: str,
) -> tuple[Mapping[str, Families], Mapping[str, tuple[EventPrice, ...]], Mapping[int, PriceVersion]]:
    """Event prices agreed with an account by type, in force and ended, and every version there ever was."""
    prices: dict[int, EventPrice] = {}
    versions: dict[int, PriceVersion] = {}
    for id, price_id, number, kind, denomination, match, terms, effective_at, created_at, ended_at in decoded(text):
        version = versions[id] = _own_version(id, price_id, number, denomination, terms, effective_at)
        known = prices.get(price_id)
        prices[price_id] = EventPrice(
            price_id,
            kind,
            denomination,
            msgspec.json.decode(match),
            (*(() if known is None else known.versions), version),
            _instant(created_at),
            None if ended_at is None else _instant(ended_at),
        )
    in_force = [price for price in prices.values() if price.ended_at is None]
    return families_of(in_force), by_type(price for price in prices.values() if price.ended_at is not None), versions


@lru_cache(maxsize=4096)
def _own_version(
    id: int, price_id: int, number: int, denomination: str, terms: str, effective_micros: int
) -> PriceVersion:
    return price_version(
        id=id,
        price_id=price_id,
        number=number,
        denomination=denomination,
        effective_at=_instant(effective_micros),
        terms=msgspec.json.decode(terms),
    )


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _instant(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


async def save_moves(
    unit: Unit,
    before: AccountState,
    tick: int,
    moves: Sequence[tuple[Balance, Transaction | None]],
    now: datetime,
) -> None:
    """Write balances of an account that this unit has locked, each with the transaction that moved it, if one did.

    ``before`` is the state the moves were decided on; a balance may be moved several times, the last one stands.
    """
    await save_many_moves(unit, [(before, tick, moves, now)])


async def save_many_moves(
    unit: Unit,
    many: Sequence[tuple[AccountState, int, Sequence[tuple[Balance, Transaction | None]], datetime]],
) -> None:
    """Write the moves of many accounts that this unit has locked, in as few statements as those of one.

    Per account, each named once: the state its moves were decided on, its tick after them, the moves, and when.
    """
    if not many:
        return
    balances: list[dict[str, object]] = []
    transactions: list[dict[str, object]] = []
    low: list[dict[str, object]] = []
    for before, _, moves, now in many:
        account_id = before.account_id
        arrived: dict[str, int] = {}
        for _, made in moves:
            if made is not None:
                transactions.append(_transaction_row(account_id, made))
                if made.book not in TAKEN_BOOKS:
                    arrived[made.denomination] = arrived.get(made.denomination, 0) + made.amount
        for denomination, balance in {balance.denomination: balance for balance, _ in moves}.items():
            row = _balance_row(account_id, balance, now)
            balances.append({**row, "arrived": arrived.get(denomination, 0), "filled": balance.filled})
            if _went_low(before, balance):
                low.append({"account_id": account_id, "denomination": denomination, "at": now})
    await unit.execute(
        "update account set tick = moved.tick from unnest($1::bigint[], $2::bigint[]) as moved (id, tick)"
        " where account.id = moved.id",
        [before.account_id for before, *_ in many],
        [tick for _, tick, *_ in many],
    )
    await unit.execute(
        "select tenuto_put_balances($1), tenuto_put_transactions($2)",
        _encode(balances).decode(),
        _encode(transactions).decode(),
    )
    await save_signals(unit, await _told_of_moves(unit, many))
    if low:
        await unit.execute("select tenuto_save_rest($1)", _encode({"low": low}).decode())


async def _told_of_moves(
    unit: Unit,
    many: Sequence[tuple[AccountState, int, Sequence[tuple[Balance, Transaction | None]], datetime]],
) -> Signals:
    """What moves beside the hot path have to say."""
    signals: Signals = {}
    ears = await read_ears(unit, [before for before, *_ in many])
    for before, _, moves, now in many:
        told = told_of(
            before,
            [made for _, made in moves if made is not None],
            {balance.denomination: balance for balance, _ in moves},
            listening=ears.listening[before.environment_id],
            plan=ears.plan_of(before),
            now=now,
        )
        add_told(signals, before, told, now)
    return signals


def _went_low(before: AccountState, after: Balance) -> bool:
    """Whether a balance fell below what its refill waits for."""
    known = before.balances.get(after.denomination)
    return known is not None and known.refill_below is not None and after.refill_below is None


async def read_owed_on(reader: Reader, account_id: int, denomination: str) -> int:
    """How far a balance is below zero, but for what open invoices ask for."""
    found: int | None = await reader.fetchval(
        "select greatest(0, -b.amount - coalesce((select sum(greatest(i.amount_due - i.amount_paid"
        " - i.amount_credited, 0)) from invoice i where i.account_id = b.account_id and i.currency = b.denomination"
        " and i.status = 'open'), 0))::bigint from balance b where b.account_id = $1 and b.denomination = $2",
        account_id,
        denomination,
    )
    return found or 0


async def save_credit_limit(unit: Unit, account_id: int, tick: int, denomination: str, limit: int | None) -> None:
    """Set the credit limit of one balance of an account that this unit has locked."""
    await unit.execute("update account set tick = $2 where id = $1", account_id, tick)
    await unit.execute(
        "update balance set credit_limit = $3 where account_id = $1 and denomination = $2",
        account_id,
        denomination,
        limit,
    )
