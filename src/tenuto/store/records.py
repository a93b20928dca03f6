"""What was written, read back: events, refused events, transactions and balances, one by one and in lists.

Lists are newest first and go by cursor. A company's lists walk the time-ordered ids back through their BRIN index in
windows that widen until enough rows are found: no index by company has to be kept on the hot path for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

from tenuto.core.event import Asked, Charge, Event, GatedEvent, OverageOf, Prior, Reason, State, UsageEvent, as_of
from tenuto.core.ledger import TAKEN_BOOKS
from tenuto.core.money import Exact, parse_fraction

from .database import Reader, Record

STATES: Final[tuple[State, ...]] = ("complete", "pending", "cancelled", "suspended")
TAGS: Final = ("usage", "revenue", "payout")
REASONS: Final[tuple[Reason, ...]] = ("pushed", "requested", "expired", "deleted")
"""The codes of event.state, event.tag and event.reason are positions in these."""

_EVENT: Final = """
select e.*, t.id as transaction_id,
    (select json_agg(json_build_object('denomination', x.denomination, 'amount', x.amount, 'balance_amount',
            x.balance_amount, 'balance_pending', x.balance_pending, 'transaction_seq', x.transaction_seq,
            'transaction_id', y.id, 'price_version_id', x.price_version_id, 'cost', x.cost, 'residue', x.residue,
            'prior', x.prior) order by x.position)
        from event_charge x
        left join transaction y on y.account_id = x.account_id and y.denomination = x.denomination
            and y.seq = x.transaction_seq
        where x.account_id = e.account_id and x.event_id = e.id) as further
from event e
left join transaction t on t.account_id = e.account_id and t.denomination = e.denomination and t.seq = e.transaction_seq
"""


async def load_known(unit: Reader, keys: Mapping[int, Sequence[bytes]]) -> dict[int, dict[bytes, Event | GatedEvent]]:
    """Per account, the stored outcomes of those of the given key digests that were used before."""
    account_ids = [account_id for account_id, digests in keys.items() for _ in digests]
    digests = [digest for found in keys.values() for digest in found]
    known: dict[int, dict[bytes, Event | GatedEvent]] = {account_id: {} for account_id in keys}
    if not digests:
        return known
    asked = " join unnest($1::bigint[], $2::bytea[]) as asked (account_id, key_digest)"
    same = " on asked.account_id = {0}.account_id and asked.key_digest = {0}.key_digest"
    for row in await unit.fetch(_EVENT + asked + same.format("e"), account_ids, digests):
        known[row["account_id"]][row["key_digest"]] = event_of(row)
    gated = "select g.* from gated_event g" + asked + same.format("g")
    for row in await unit.fetch(gated, account_ids, digests):
        known[row["account_id"]][row["key_digest"]] = gated_of(row)
    return known


async def load_events(unit: Reader, wanted: Sequence[tuple[int, int]]) -> dict[tuple[int, int], Event]:
    """Events by (account id, event id)."""
    if not wanted:
        return {}
    rows = await unit.fetch(
        _EVENT + " join unnest($1::bigint[], $2::bigint[]) as asked (account_id, id)"
        " on asked.account_id = e.account_id and asked.id = e.id",
        [account_id for account_id, _ in wanted],
        [event_id for _, event_id in wanted],
    )
    return {(row["account_id"], row["id"]): event_of(row) for row in rows}


async def load_lapsed(unit: Reader, asked: Mapping[int, datetime], limit: int) -> list[Event]:
    """Per account, at most ``limit`` of its holds whose hour is over at the moment given with it, oldest first."""
    rows = await unit.fetch(
        "select found.* from unnest($1::bigint[], $2::timestamptz[]) as asked (account_id, now)"
        f" cross join lateral ({_EVENT} where e.account_id = asked.account_id and e.state = 1"
        " and e.expires_at <= asked.now order by e.expires_at limit $3) as found",
        list(asked),
        list(asked.values()),
        limit,
    )
    return [event_of(row) for row in rows]


async def due_accounts(
    reader: Reader, now: datetime, limit: int | None, environment_id: int | None = None
) -> list[tuple[int, int, int]]:
    """(environment id, account id, count) of accounts with holds whose hour is over, the longest overdue first.

    ``limit`` None takes all of them.
    ``now`` is real time; an environment whose clock is ahead is judged by its own.
    """
    rows = await reader.fetch(
        "select a.environment_id, e.account_id, count(*) from event e join account a on a.id = e.account_id"
        " join environment v on v.id = a.environment_id"
        " where e.state = 1 and e.expires_at <= $1::timestamptz + v.clock_offset * interval '1 microsecond'"
        " and ($3::integer is null or v.id = $3)"
        " group by a.environment_id, e.account_id order by min(e.expires_at) limit $2",
        now,
        limit,
        environment_id,
    )
    return [tuple(row) for row in rows]


class BalanceRow(NamedTuple):
    """A balance as it stands at a moment: holds past their hour are not in ``pending``."""

    account_id: int
    denomination: str
    amount: int
    pending: int
    residue: Exact
    credit_limit: int | None
    created_at: datetime
    updated_at: datetime
    refill: RefillShown | None
    plan: PlanShown | None


class PlanShown(NamedTuple):
    """The plan that manages a balance, as it is shown with it.

    ``variable_units`` are those the account chose, None where there is nothing to choose. Where it includes units,
    ``last_at`` is when they came last, ``next_at`` when they come again.
    """

    id: int
    variable_units: int | None
    last_at: datetime | None
    next_at: datetime | None


class RefillShown(NamedTuple):
    """The refill of a balance as it is shown with it."""

    amount: int
    charge_amount: int
    charge_denomination: str
    threshold: int | None
    is_monthly: bool
    last_at: datetime | None
    next_at: datetime | None
    parked_code: str | None


_BALANCE: Final = """
select b.account_id, b.denomination, b.amount, b.pending - coalesce((
        select sum(lapsed.amount) from (
            select h.amount from event h
            where h.account_id = b.account_id and h.state = 1 and h.expires_at <= $2 and h.denomination = b.denomination
            union all
            select x.amount from event h
            join event_charge x on x.account_id = h.account_id and x.event_id = h.id
            where h.account_id = b.account_id and h.state = 1 and h.expires_at <= $2 and x.denomination = b.denomination
        ) as lapsed), 0)::bigint as pending,
    b.residue_num::text as numerator, b.residue_den::text as denominator, b.credit_limit, b.created_at, b.updated_at,
    r.amount as refill_amount, r.charge_amount, r.charge_denomination, r.threshold, r.is_monthly, r.last_at, r.next_at,
    r.parked_code, m.plan_id, m.variable_units, m.included_last_at, m.included_next_at
from balance b
left join refill r on r.account_id = b.account_id and r.denomination = b.denomination
left join lateral (
    select s.plan_id, k.variable_units, case when k.is_included then s.renewed_at end as included_last_at,
        case when not k.is_included then null
            -- The last period of a year is still filled every month, and then not begun again.
            when s.refill_at is not null then s.refill_at
            when not s.cancels_at_end and s.cadence <> 'ONE_OFF' then s.period_end end as included_next_at
    from subscription s
    left join plan_override o on o.account_id = s.account_id and o.id = s.override_id
    left join plan_version v on v.environment_id = s.environment_id and v.id = s.version_id
    cross join lateral (select coalesce(o.terms, v.terms) -> 'balances' -> b.denomination as terms,
        coalesce((s.variable_units ->> b.denomination)::bigint, 0) as chosen) t
    cross join lateral (select
        case when json_typeof(t.terms -> 'variable_amount_cost') <> 'null' then t.chosen end as variable_units,
        coalesce((t.terms ->> 'amount')::bigint, 0) + t.chosen > 0 as is_included) k
    where s.account_id = b.account_id and s.status not in ('cancelled', 'pending_card')
        and json_typeof(t.terms) = 'object'
) m on true
"""


async def read_balance(
    reader: Reader, environment_id: int, revision: int, account_id: int, denomination: str, now: datetime
) -> tuple[bool, BalanceRow | None]:
    """One balance, and whether the environment is still at ``revision``: reading and proof in one round trip."""
    row = await reader.fetchrow(
        f"select v.revision = $5 as is_current, b.* from environment v"
        f" left join account a on a.environment_id = v.id and a.id = $1"
        f" left join lateral ({_BALANCE} where b.account_id = a.id and b.denomination = $3) b on true"
        " where v.id = $4",
        account_id,
        now,
        denomination,
        environment_id,
        revision,
    )
    if row is None or not row["is_current"]:
        return False, None
    return True, None if row["account_id"] is None else _balance(row)


async def list_balances(reader: Reader, account_id: int, now: datetime) -> list[BalanceRow]:
    """All balances of an account, by denomination."""
    rows = await reader.fetch(f"{_BALANCE} where b.account_id = $1 order by b.denomination", account_id, now)
    return [_balance(row) for row in rows]


def _balance(row: Record) -> BalanceRow:
    return BalanceRow(
        row["account_id"],
        row["denomination"],
        row["amount"],
        row["pending"],
        Exact(int(row["numerator"]), int(row["denominator"])),
        row["credit_limit"],
        row["created_at"],
        row["updated_at"],
        None if row["refill_amount"] is None else RefillShown(*(row[name] for name in _REFILL_COLUMNS)),
        None if row["plan_id"] is None else PlanShown(*(row[name] for name in _PLAN_COLUMNS)),
    )


_PLAN_COLUMNS: Final = ("plan_id", "variable_units", "included_last_at", "included_next_at")


_REFILL_COLUMNS: Final = (
    *("refill_amount", "charge_amount", "charge_denomination", "threshold", "is_monthly", "last_at", "next_at"),
    "parked_code",
)


TAKEN: Final = "({})".format(", ".join(f"'{book}'" for book in TAKEN_BOOKS))
"""SQL: the books of what events take."""


class Whose(NamedTuple):
    """Whose records a list is of: one account's, or (``account_id`` None) a whole environment's."""

    environment_id: int
    account_id: int | None
    since: int
    """Microseconds before which there can be nothing."""


class Page(NamedTuple):
    """Which part of a list: at most ``limit`` rows older than ``after``, the (id, account id) of the last one seen."""

    limit: int
    after: tuple[int, int] | None


FIRST_WINDOW: Final = 2_000_000
WIDENING: Final = 8


async def list_events(
    reader: Reader, whose: Whose, page: Page, filters: Mapping[str, object], now: datetime
) -> list[Event]:
    """Billed, pending, cancelled and unpriced events, newest first, as they are to be read at ``now``.

    ``filters``: type, state, gated, key, tag, denomination, parent_event_id, from, to (of the event's own time),
    recorded_from, recorded_to.
    """
    where, arguments = _filtered("e", filters, {"denomination", "parent_event_id", "key", "type", "tag", "gated"})
    if filters.get("state") in {"complete", "suspended"}:
        where += " and e.state = 0" if filters["state"] == "complete" else " and e.state = 3"
    elif "state" in filters:
        arguments.append(now)
        lapsed = f"e.state = 1 and e.expires_at <= ${len(arguments)}"
        still = f" and e.state = 1 and not ({lapsed})"
        where += still if filters["state"] == "pending" else f" and (e.state = 2 or {lapsed})"
    rows = await _windowed(reader, _EVENT, "e", whose, page, where, arguments)
    return [as_of(event_of(row), now) for row in rows]


async def list_gated(reader: Reader, whose: Whose, page: Page, filters: Mapping[str, object]) -> list[GatedEvent]:
    """Refused events, newest first. ``filters``: type, key, code, tag, from, to."""
    where, arguments = _filtered("g", filters, {"type", "key", "code", "tag"})
    rows = await _windowed(reader, "select g.* from gated_event g", "g", whose, page, where, arguments)
    return [gated_of(row) for row in rows]


_TRANSACTION: Final = """
select t.*, n.name as account_name,
    case when t.event_count = 1 then (
        select json_agg(json_build_array(e.id, e.type)) from event e
        where e.account_id = t.account_id and e.id = t.first_event_id)
    when t.event_count > 1 then (
        select json_agg(json_build_array(e.id, e.type) order by e.id) from event e
        where e.account_id = t.account_id and e.id >= t.first_event_id and e.id < t.first_event_id + 1000
            and ((e.denomination = t.denomination and e.transaction_seq = t.seq)
                or exists (select from event_charge x where x.account_id = e.account_id and x.event_id = e.id
                    and x.denomination = t.denomination and x.transaction_seq = t.seq)
                or (e.first::jsonb -> 'charges') @> json_build_array(json_build_object(
                    'denomination', t.denomination, 'transaction_seq', t.seq))::jsonb))
    end as events,
    t.book in ('proration', 'expiry') and exists (
        select from payment p where p.account_id = t.account_id and p.id = t.cause_id) as is_of_payment
from transaction t join account n on n.id = t.account_id
"""


async def list_transactions(reader: Reader, whose: Whose, page: Page, filters: Mapping[str, object]) -> list[Record]:
    """Transactions, newest first, with account name and events.

    ``filters``: denomination, type, book, cause_id, from, to.
    """
    where, arguments = _filtered("t", filters, {"denomination", "type", "book", "cause_id"}, at="recorded_at")
    return await _windowed(reader, _TRANSACTION, "t", whose, page, where, arguments)


async def read_transaction(reader: Reader, account_id: int, denomination: str, seq: int) -> Record | None:
    """One transaction by its place in a balance's chain."""
    return await reader.fetchrow(
        f"{_TRANSACTION} where t.account_id = $1 and t.denomination = $2 and t.seq = $3", account_id, denomination, seq
    )


async def find_transaction(reader: Reader, environment_id: int, account_id: int, transaction_id: int) -> Record | None:
    """One transaction of an environment; None for a foreign one."""
    return await reader.fetchrow(
        f"{_TRANSACTION} where t.account_id = $1 and t.id = $2 and n.environment_id = $3",
        account_id,
        transaction_id,
        environment_id,
    )


async def read_event(reader: Reader, environment_id: int, account_id: int, event_id: int) -> Event | None:
    """One event of an environment; None for a foreign one."""
    row = await reader.fetchrow(
        f"{_EVENT} join account a on a.id = e.account_id where e.account_id = $1 and e.id = $2"
        " and a.environment_id = $3",
        account_id,
        event_id,
        environment_id,
    )
    return None if row is None else event_of(row)


async def owns_account(reader: Reader, environment_id: int, account_id: int) -> bool:
    """Whether an account is one of the environment's."""
    found = await reader.fetchval(
        "select 1 from account where id = $1 and environment_id = $2", account_id, environment_id
    )
    return found is not None


async def read_own_version(reader: Reader, account_id: int, version_id: int) -> Record | None:
    """One version of an event price agreed with an account, whether that is still in force or not."""
    return await reader.fetchrow(
        "select price_id, number, type, denomination, match, created_at, terms, effective_at from price_override"
        " where account_id = $1 and id = $2",
        account_id,
        version_id,
    )


async def read_posting(reader: Reader, event: Event) -> list[Event]:
    """The events after ``event`` that were billed by the same request, as they were billed, in order."""
    rows = await reader.fetch(
        f"{_EVENT} where e.account_id = $1 and e.id > $2 and e.id < $2 + 1000 order by e.id",
        event.account_id,
        event.id,
    )
    found = (event_of(row) for row in rows)
    return [billed for billed in map(_as_billed, found) if billed.posting == event.posting]


def _as_billed(event: Event) -> Event:
    """An event as the request left it that billed it."""
    return event if event.first is None or event.first.state == "suspended" else event.first


def _filtered(
    alias: str, filters: Mapping[str, object], columns: set[str], *, at: str = "occurred_at"
) -> tuple[str, list[object]]:
    """The conditions of a list, with their arguments from $1 on. ``columns`` are the names that are columns."""
    where, arguments = "", []
    for name, value in filters.items():
        if name in columns:
            arguments.append(TAGS.index(value) if name == "tag" else value)
            where += f" and {alias}.{name} = ${len(arguments)}"
        elif name in {"from", "to"}:
            arguments.append(value)
            where += f" and {alias}.{at} {'>=' if name == 'from' else '<'} ${len(arguments)}"
        elif name in {"recorded_from", "recorded_to"}:
            arguments.append(value)
            where += f" and {alias}.recorded_at {'>=' if name == 'recorded_from' else '<'} ${len(arguments)}"
    return where, arguments


async def _windowed(
    reader: Reader, query: str, alias: str, whose: Whose, page: Page, where: str, arguments: Sequence[object]
) -> list[Record]:
    """Rows newest first: of one account by its key, of an environment window by window back in time."""
    count = len(arguments)
    order = f" order by {alias}.id desc, {alias}.account_id desc limit ${count + 1}"
    if whose.account_id is not None:
        older = f" and {alias}.id < ${count + 3}"
        rows: list[Record] = await reader.fetch(
            f"{query} where {alias}.account_id = ${count + 2}{older}{where}{order}",
            *arguments,
            page.limit,
            whose.account_id,
            page.after[0] if page.after else _NO_END,
        )
        return rows
    scope = (
        f" join account w on w.id = {alias}.account_id and w.environment_id = ${count + 2}"
        f" where {alias}.id >= ${count + 3} and {alias}.id <= ${count + 4}"
        f" and ({alias}.id, {alias}.account_id) < (${count + 5}, ${count + 6})"
    )
    before, before_account = page.after or (_NO_END, _NO_END)
    newest: int = await reader.fetchval("select (extract(epoch from clock_timestamp()) * 1000000)::bigint")
    high, low = before, min(before, newest) - FIRST_WINDOW
    found: list[Record] = []
    width = FIRST_WINDOW
    while True:
        low = max(low, whose.since)
        found += await reader.fetch(
            f"{query}{scope}{where}{order}",
            *arguments,
            page.limit - len(found),
            whose.environment_id,
            low,
            high,
            before,
            before_account,
        )
        if len(found) >= page.limit or low <= whose.since:
            return found
        width *= WIDENING
        high, low = low - 1, low - width


_NO_END: Final = 2**63 - 1


def event_of(row: Record) -> Event:
    """An event as core knows it, from a row of ``_EVENT``."""
    charges: tuple[Charge, ...] = ()
    if row["denomination"] is not None:
        prior = decoded(row["prior"])
        first = Charge(
            row["denomination"],
            row["amount"],
            parse_fraction(row["cost"]),
            row["price_version_id"],
            _prior_of(prior),
            _overage_of(prior),
            row["transaction_id"],
            row["transaction_seq"],
            row["balance_amount"],
            row["balance_pending"],
            parse_fraction(row["residue"]),
        )
        charges = (first, *(_charge_of(further) for further in decoded(row["further"])))
    event = Event(
        row["account_id"],
        row["id"],
        row["posting"],
        row["type"],
        quantity_text(row["quantity"]),
        STATES[row["state"]],
        row["gated"],
        row["key"],
        row["key_digest"],
        row["fingerprint"],
        TAGS[row["tag"]],
        row["occurred_at"],
        row["recorded_at"],
        row["metadata"],
        charges,
        row["expires_at"],
        row["finished_at"],
        None if row["reason"] is None else REASONS[row["reason"]],
        row["cogs_amount"],
        row["cogs_denomination"],
        row["parent_event_id"],
        None,
        _asked_of(decoded(row["prior"])) if not charges else None,
    )
    return event if row["first"] is None else event._replace(first=_first_of(event, decoded(row["first"])))


def _asked_of(prior: Mapping[str, Any] | None) -> Asked | None:
    if not prior or "asked" not in prior:
        return None
    asked = prior["asked"]
    override = None if asked["override"] is None else tuple(asked["override"])
    return Asked(STATES[asked["state"]], override, asked.get("version_id"))


def _first_of(event: Event, first: Mapping[str, Any]) -> Event:
    state = STATES[first["state"]]
    found = event._replace(
        posting=first["posting"],
        state=state,
        quantity=first["quantity"],
        charges=tuple(_charge_of(charge) for charge in first["charges"]),
        # A hold that was kept aside has its hour from its replay on.
        expires_at=None if state == "suspended" else event.expires_at,
        finished_at=None,
        reason=None,
        asked=_asked_of(first.get("prior")),
    )
    return found if "first" not in first else found._replace(first=_first_of(event, first["first"]))


def _charge_of(charge: Mapping[str, Any]) -> Charge:
    return Charge(
        charge["denomination"],
        charge["amount"],
        parse_fraction(charge["cost"]),
        charge["price_version_id"],
        _prior_of(charge["prior"]),
        _overage_of(charge["prior"]),
        charge["transaction_id"],
        charge["transaction_seq"],
        charge["balance_amount"],
        charge["balance_pending"],
        parse_fraction(charge["residue"]),
    )


def _prior_of(prior: Mapping[str, Any] | None) -> Prior | None:
    if not prior or "period" not in prior:
        return None
    return Prior(
        prior["period"],
        parse_fraction(prior["units"]),
        parse_fraction(prior["billed"]),
        parse_fraction(prior["counted"]),
    )


def _overage_of(prior: Mapping[str, Any] | None) -> OverageOf | None:
    if not prior or "overage" not in prior:
        return None
    overage = prior["overage"]
    return OverageOf(
        overage["denomination"],
        parse_fraction(overage["units"]),
        parse_fraction(overage["unit"]),
        overage["version_id"],
    )


def quantity_text(quantity: Any) -> str:
    """A quantity as it is spelled everywhere: without trailing zeros or an exponent."""
    text = format(quantity, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def gated_of(row: Record) -> GatedEvent:
    """A refused event as core knows it."""
    return GatedEvent(
        row["account_id"],
        row["id"],
        UsageEvent(
            type=row["type"],
            quantity=Exact(0, 1),
            quantity_text=quantity_text(row["quantity"]),
            state=STATES[row["state"]],
            gated=True,
            key=row["key"],
            key_digest=row["key_digest"],
            fingerprint=row["fingerprint"],
            override=None,
            properties={},
            metadata=row["metadata"],
            tag=TAGS[row["tag"]],
            occurred_at=row["occurred_at"],
            cogs_amount=None,
            cogs_denomination=None,
            parent_event_id=None,
        ),
        row["occurred_at"],
        row["recorded_at"],
        row["code"],
        decoded(row["details"]),
        row["request_id"],
    )


def decoded(text: str | None) -> Any:
    """A JSON column; nothing where it is null."""
    return () if text is None else msgspec.json.decode(text)
