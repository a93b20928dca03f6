"""Subscriptions with their periods and steps, and the grants of balances.

Everything a step depends on comes in one statement for many accounts (``read_standings``), everything it writes goes
in a handful for many steps (``write_effects``), so that a run of renewals takes accounts by the dozen. Whoever writes
holds the accounts' row locks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from tenuto.core.effect import Effect, Way, effect_of, expired, plan_refills, way_of
from tenuto.core.event import AccountState, credit_limit_of
from tenuto.core.grant import Grant, Purse, as_before, burned_down
from tenuto.core.identifiers import spell_of_account
from tenuto.core.ledger import Balance, open_balance
from tenuto.core.lifecycle import late
from tenuto.core.outcomes import Refusal
from tenuto.core.payment import Payment, PaymentReason
from tenuto.core.plan import PlanTerms, plan_terms
from tenuto.core.refill import Refill
from tenuto.core.subscription import Around, Offer, Period, Step, Subscription, basis_of
from tenuto.core.terms import Terms

from . import accounts, facts, flags, ledger, payments, refills
from .database import Reader, Record, Unit
from .records import TAKEN, Page, decoded
from .signals import tell

_encode: Final = msgspec.json.Encoder().encode


class StoredStep(NamedTuple):
    """A step that was carried out, as it is listed. ``lines``, ``granted`` and ``cancelled`` as in the step."""

    account_id: int
    id: int
    kind: str
    scheme: str | None
    for_at: datetime
    plan_id: int
    version_id: int
    denomination: str
    charge: int
    credit: int
    lines: Any
    granted: Any
    cancelled: Any
    payment_id: int | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """An account as its plan finds it, as of a moment.

    ``purses`` are burned down to that moment. ``owed`` is what open invoices wait for by currency, ``invoiced`` the
    currencies it is invoiced in. ``free`` are units by plan and denomination that were given for nothing, for a time
    that would still run, and used. ``payment_id`` is of a change that is being paid for.
    """

    account_id: int
    subscription: Subscription | None
    period: Period | None
    terms: PlanTerms | None
    purses: Mapping[str, Purse]
    owed: Mapping[str, int]
    invoiced: frozenset[str]
    has_card: bool
    is_suspended: bool
    had_trial: bool
    has_plan_refills: bool
    refunded: int
    free: Mapping[int, Mapping[str, int]]
    payment_id: int | None

    def way_of(self, step: Step, state: AccountState, terms: Terms) -> Way:
        """How the charge of a step would be paid. Raises Refusal where it cannot be; but a plan can always be ended."""
        try:
            way = self._way_of(step, state, terms)
        except Refusal:
            if step.kind != "cancel":
                raise
            return "none"
        return way if step.kind != "cancel" or way == "card" else "none"

    def _way_of(self, step: Step, state: AccountState, terms: Terms) -> Way:
        balance = state.balances.get(step.denomination) or open_balance(step.denomination)
        limit = credit_limit_of(balance, state.credit_limit, terms.default_credit_limit)
        return way_of(step, self.around_of(step, state, step.at), has_card=self.has_card, limit=limit)

    def around_of(self, step: Step, state: AccountState, at: datetime) -> Around:
        """What carrying out a step depends on."""
        after = step.subscription
        return self.around(state, after.zone, at, step.denomination, after.plan_id)

    def around(self, state: AccountState, zone: str, at: datetime, denomination: str, plan_id: int) -> Around:
        """What a step to a plan in ``denomination`` depends on; ``zone`` is the company's, for a new subscription."""
        name = zone if self.subscription is None or not self.subscription.is_running else self.subscription.zone
        return Around(
            account_id=self.account_id,
            environment_id=state.environment_id,
            state=state,
            purses=self.purses,
            subscription=self.subscription,
            period=self.period,
            terms=self.terms,
            zone_name=name,
            zone=ZoneInfo(name),
            at=at,
            owed=self.owed.get(denomination, 0),
            by_invoice=denomination in self.invoiced,
            had_trial=self.had_trial,
            used_free=self.free.get(plan_id, {}),
            refunded=self.refunded,
            invoiced=self.invoiced,
        )


_USED: Final = f"t.book in {TAKEN}"
# What a step moved counts from the step's date on, however late it was carried out: a card may have said yes, or a
# sweep come by, after the next date.
_DATED: Final = (
    "exists (select from subscription_step y where y.account_id = t.account_id and y.for_at < asked.at"
    " and t.cause_id in (y.id, y.payment_id))"
)
_STANDING: Final = f"""
select a.id, to_json(s) as subscription, to_json(p) as period,
    coalesce(o.terms, v.terms) as terms, coalesce(o.id, v.id) as terms_id,
    (select json_agg(json_build_array(b.denomination, b.amount, b.arrived, b.burned, tail.used, tail.arrived))
        from balance b left join lateral (
            select -sum(t.amount) filter (where {_USED}) as used,
                sum(t.amount) filter (where not {_USED} and not (asked.tick is null and {_DATED})) as arrived
            from transaction t where t.account_id = b.account_id and t.denomination = b.denomination
            and t.seq > coalesce((
                select u.seq from transaction u where u.account_id = b.account_id and u.denomination = b.denomination
                and case when asked.tick is null then u.recorded_at < asked.at else u.id <= asked.tick end
                order by u.seq desc limit 1), 0)
        ) tail on true
        where b.account_id = a.id) as balances,
    (select json_agg(to_json(g) order by g.priority, g.expires_at, g.id) from balance_grant g
        where g.account_id = a.id and g.closed_at is null and (g.source <> 'manual'
            or case when asked.tick is null then g.created_at < asked.at else g.id <= asked.tick end)) as grants,
    (select json_object_agg(i.currency, i.waiting) from (
        select n.currency, sum(n.waiting) as waiting from (
            select currency, greatest(amount_due - amount_paid - amount_credited, 0) as waiting from invoice
            where account_id = a.id and status = 'open'
            union all
            select denomination, amount from payment where account_id = a.id and slot = 'plan_end'
            and status in ('intended', 'created', 'confirming', 'processing', 'voiding')
            and not (status = 'created' and declines > 0)
            union all
            select z.denomination, r.units - r.credited from refund r
            join payment z on z.account_id = r.account_id and z.id = r.payment_id
            where r.account_id = a.id and r.kind = 'dispute' and r.status = 'succeeded'
        ) n group by n.currency) i) as owed,
    (coalesce((select sum(r.amount) from subscription_step x join refund r
        on r.account_id = x.account_id and r.payment_id = x.payment_id and r.kind = 'refund' and r.status <> 'failed'
        where x.account_id = a.id and x.period_id = s.period_id), 0)
    + coalesce((select sum(case i.status when 'void' then w.price else least(w.price, i.amount_credited) end)
        from subscription_step x join invoice i on i.account_id = x.account_id and i.currency = x.denomination
            and x.id > i.tick_from and x.id <= i.tick_to
        cross join lateral (select coalesce(sum((l ->> 'amount')::bigint), 0) as price from json_array_elements(x.lines)
            l where l ->> 'kind' in ('plan', 'variable')) w
        where x.account_id = a.id and x.period_id = s.period_id and x.payment_id is null), 0))::bigint as refunded,
    (select json_agg(x.currency) from (
        select currency from invoice_terms where account_id = a.id
        union select currency from invoice where account_id = a.id and status = 'draft') x) as invoiced,
    a.stripe_id is not null and exists (select from payment_method m
        where m.account_id = a.id and m.is_default and m.removed_at is null) as has_card,
    a.capture_suspended,
    exists (select from subscription_period t where t.account_id = a.id and t.is_trial) as had_trial,
    exists (select from refill r where r.account_id = a.id and r.by_plan) as has_plan_refills,
    (select json_agg(json_build_array(f.plan_id, f.denomination, f.used)) from (
        select g.plan_id, g.denomination, sum(g.units - g.units_left) as used from balance_grant g
        join subscription_period q on q.account_id = g.account_id and q.id = g.period_id
        where g.account_id = a.id and g.closed_at is not null and q.price = 0
        and (g.until_at is null or g.until_at > asked.at)
        group by g.plan_id, g.denomination) f) as free,
    (select min(y.id) from payment y where y.account_id = a.id and y.slot = 'plan'
        and y.status in ('intended', 'created', 'confirming', 'processing', 'voiding')
        and not (y.status = 'created' and y.declines > 0)) as payment_id
from unnest($1::bigint[], $2::timestamptz[], $3::bigint[]) as asked (id, at, tick)
join account a on a.id = asked.id
left join subscription s on s.account_id = a.id
left join subscription_period p on p.account_id = a.id and p.id = s.period_id
left join plan_version v on v.environment_id = a.environment_id and v.id = s.version_id
left join plan_override o on o.account_id = a.id and o.id = s.override_id
"""


class Moment(NamedTuple):
    """As of when an account is looked at: by the tick that it had, else by the time."""

    at: datetime
    tick: int | None = None


async def read_standings(reader: Reader, asked: Mapping[int, Moment]) -> dict[int, Standing]:
    """How accounts stand, each as of its moment; their row locks are held, or nothing is decided on it."""
    moments = asked.values()
    rows = await reader.fetch(_STANDING, list(asked), [one.at for one in moments], [one.tick for one in moments])
    return {row["id"]: _standing(row) for row in rows}


async def read_standing(reader: Reader, account_id: int, moment: Moment) -> Standing:
    """How one account stands as of a moment."""
    return (await read_standings(reader, {account_id: moment}))[account_id]


def _standing(row: Record) -> Standing:
    subscription, period = decoded(row["subscription"]), decoded(row["period"])
    grants: dict[str, list[Grant]] = {}
    for given in decoded(row["grants"]):
        grant = _grant(given)
        grants.setdefault(grant.denomination, []).append(grant)
    purses: dict[str, Purse] = {}
    for denomination, amount, arrived, burned, used, came in decoded(row["balances"]):
        purse = Purse(denomination, amount, arrived, burned, tuple(grants.get(denomination, ())))
        purses[denomination] = burned_down(as_before(purse, used=used or 0, arrived=came or 0))
    free: dict[int, dict[str, int]] = {}
    for plan_id, denomination, used in decoded(row["free"]):
        free.setdefault(plan_id, {})[denomination] = used
    return Standing(
        account_id=row["id"],
        subscription=_kept(subscription, Subscription) if subscription else None,
        period=_kept(period, Period) if period else None,
        terms=None if row["terms"] is None else terms_of(row["terms_id"], row["terms"]),
        purses=purses,
        owed=decoded(row["owed"]) or {},
        invoiced=frozenset(decoded(row["invoiced"])),
        has_card=row["has_card"],
        is_suspended=row["capture_suspended"],
        had_trial=row["had_trial"],
        has_plan_refills=row["has_plan_refills"],
        refunded=row["refunded"],
        free=free,
        payment_id=row["payment_id"],
    )


@lru_cache(maxsize=1024)
def terms_of(_: int, text: str) -> PlanTerms:
    """Stored terms of a plan, read once: versions and what was agreed with an account never change."""
    return plan_terms(msgspec.json.decode(text))


def _kept(found: dict[str, Any], kind: type[Any]) -> Any:
    names = [field.name for field in fields(kind)]
    return msgspec.convert({name: found[name] for name in names}, kind)


def _grant(found: Mapping[str, Any]) -> Grant:
    given = {**found, "left": found["units_left"]}
    return msgspec.convert([given[name] for name in Grant._fields], Grant)


async def read_terms(reader: Reader, environment_id: int, account_id: int, subscription: Subscription) -> PlanTerms:
    """The terms that a subscription is on."""
    if subscription.override_id is not None:
        text = await reader.fetchval(
            "select terms from plan_override where account_id = $1 and id = $2", account_id, subscription.override_id
        )
        return terms_of(subscription.override_id, text)
    text = await reader.fetchval(
        "select terms from plan_version where environment_id = $1 and id = $2", environment_id, subscription.version_id
    )
    return terms_of(subscription.version_id, text)


async def read_offer(reader: Reader, environment_id: int, known: Subscription) -> Offer:
    """What an account is on, as an offer."""
    terms = await read_terms(reader, environment_id, known.account_id, known)
    return Offer(known.plan_id, known.version_id, known.override_id, terms, known.cadence, known.variable_units)


async def insert_override(
    unit: Unit,
    account_id: int,
    id: int,
    version_id: int,
    changes: Mapping[str, Any],
    terms: Mapping[str, Any],
    now: datetime,
) -> None:
    """Keep a version's terms as agreed with one account."""
    await unit.execute(
        "insert into plan_override (account_id, id, version_id, changes, terms, created_at)"
        " values ($1, $2, $3, $4, $5, $6)",
        account_id,
        id,
        version_id,
        _encode(changes).decode(),
        _encode(terms).decode(),
        now,
    )


async def read_override_changes(reader: Reader, account_id: int, override_id: int) -> dict[str, Any]:
    """What was agreed with one account, beside the version's own terms."""
    found = await reader.fetchval(
        "select changes from plan_override where account_id = $1 and id = $2", account_id, override_id
    )
    return dict(decoded(found))


# --- writing ----------------------------------------------------------------------------------------------------------


class Written(NamedTuple):
    """An effect with what its rows are made from: the step, the state before, the payment that paid for it."""

    step: Step
    effect: Effect
    before: AccountState
    environment_id: int
    payment_id: int | None


_SUBSCRIPTION: Final = tuple(field.name for field in fields(Subscription))
_PERIOD: Final = tuple(field.name for field in fields(Period))
_GRANT: Final = tuple("units_left" if name == "left" else name for name in Grant._fields)


def _upsert(table: str, names: Sequence[str], keys: Sequence[str]) -> str:
    places = ", ".join(f"${place}" for place in range(1, len(names) + 1))
    sets = ", ".join(f"{name} = excluded.{name}" for name in names if name not in keys)
    return (
        f"insert into {table} ({', '.join(names)}) values ({places})"
        f" on conflict ({', '.join(keys)}) do update set {sets}"
    )


_PLAN_BEFORE: Final = ", ".join(f"b.{name}" for name in facts.PlanBefore._fields[:-1])
_PUT_SUBSCRIPTIONS: Final = f"""
with given as (select * from json_populate_recordset(null::subscription, $1)),
before as (select s.* from subscription s where s.account_id in (select account_id from given)),
put as (
    insert into subscription ({", ".join(_SUBSCRIPTION)}, updated_at)
    select {", ".join(_SUBSCRIPTION)}, $2::timestamptz from given
    on conflict (account_id) do update
    set {", ".join(f"{name} = excluded.{name}" for name in (*_SUBSCRIPTION[1:], "updated_at"))}
)
select g.account_id, v.number as version_now, p.denomination, {_PLAN_BEFORE}, w.number as version
from given g left join before b on b.account_id = g.account_id
left join plan_version v on v.environment_id = g.environment_id and v.id = g.version_id
left join plan_version w on w.environment_id = b.environment_id and w.id = b.version_id
left join subscription_period p on p.account_id = g.account_id and p.id = g.period_id
"""
_PUT_PERIOD: Final = _upsert("subscription_period", _PERIOD, ("account_id", "id"))
_PUT_GRANT: Final = _upsert("balance_grant", _GRANT, ("account_id", "id"))
_PUT_STEP: Final = """
insert into subscription_step (account_id, id, environment_id, kind, scheme, for_at, period_id, plan_id, version_id,
    denomination, charge, credit, lines, granted, cancelled, payment_id, created_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
"""


async def write_effects(unit: Unit, made: Sequence[Written], now: datetime) -> None:
    """Write what steps do, of many accounts at once: movements, periods, grants, subscriptions and the steps."""
    await ledger.save_many_moves(unit, [(one.before, one.effect.tick, one.effect.moves, now) for one in made])
    kept = await _put_subscriptions(unit, [one.effect.subscription for one in made], now)
    # The old period is closed before the new one begins where it ended.
    await unit.executemany(_PUT_PERIOD, [_row(p) for one in made for p in one.effect.periods])
    await put_grants(unit, [grant for one in made for grant in one.effect.grants])
    burned: dict[tuple[int, str], int] = {}
    for one in made:
        for name, value in one.effect.burned.items():
            burned[one.effect.subscription.account_id, name] = value
    await put_burned(unit, burned)
    await unit.executemany(_PUT_STEP, [_step_row(one, now) for one in made if one.step.is_now])
    done = {one.before.account_id: facts.Done(one.step, one.effect, one.payment_id) for one in made}
    await _tell(unit, kept, done, now)
    await flags.follow_plans(unit, [_replaced(one) for one in made], now)


_ENDINGS: Final[Mapping[str, str]] = {"start": "has begun", "renewal": "was renewed", "cancel": "has ended"}


def _replaced(one: Written) -> flags.Replaced:
    """The terms of an account's plan before and after a step."""
    after = one.effect.subscription
    return flags.Replaced(
        before=one.before,
        version_id=after.version_id if after.is_running else None,
        override_id=after.override_id if after.is_running else None,
        balances={balance.denomination: balance for balance, _ in one.effect.moves},
        id=one.effect.tick + 1,
        actor=spell_of_account("ps", after.account_id, one.effect.step_id),
        reason=f"the plan {_ENDINGS.get(one.step.kind, 'has changed')}",
    )


async def put_subscriptions(unit: Unit, found: Sequence[Subscription], now: datetime) -> None:
    """Write subscriptions of one company's half as they are now, and tell what is new about them."""
    await _tell(unit, await _put_subscriptions(unit, found, now), {}, now)


async def _put_subscriptions(unit: Unit, found: Sequence[Subscription], now: datetime) -> list[facts.Kept]:
    """Write subscriptions, in one statement that says how they were before."""
    rows = await unit.fetch(_PUT_SUBSCRIPTIONS, _encode(found).decode(), now)
    after = {one.account_id: one for one in found}
    return [
        facts.Kept(None if row["status"] is None else _before(row), after[row["account_id"]], *row[1:3]) for row in rows
    ]


def _before(row: Record) -> facts.PlanBefore:
    names = facts.PlanBefore._fields
    return facts.PlanBefore(*(decoded(row[name]) if name == "variable_units" else row[name] for name in names))


async def _tell(unit: Unit, kept: Sequence[facts.Kept], done: Mapping[int, facts.Done], now: datetime) -> None:
    told = [fact for one in kept for fact in facts.of_plan(one, done.get(one.after.account_id), now)]
    if told:
        await tell(unit, kept[0].after.environment_id, *told)


async def put_grants(unit: Unit, grants: Sequence[Grant]) -> None:
    """Write grants, new or as they are now."""
    await unit.executemany(_PUT_GRANT, [tuple(grant) for grant in grants])


async def put_burned(unit: Unit, burned: Mapping[tuple[int, str], int]) -> None:
    """Write by how much of what usage took the grants of balances are burned down."""
    await unit.executemany(
        "update balance set burned = $3 where account_id = $1 and denomination = $2",
        [(account_id, denomination, value) for (account_id, denomination), value in burned.items()],
    )


def _row(period: Period) -> tuple[Any, ...]:
    return tuple(getattr(period, name) for name in _PERIOD)


def _step_row(one: Written, now: datetime) -> tuple[Any, ...]:
    step, after = one.step, one.effect.subscription
    return (
        after.account_id,
        one.effect.step_id,
        one.environment_id,
        step.kind,
        step.scheme,
        step.at,
        after.period_id,
        after.plan_id,
        after.version_id,
        step.denomination,
        step.charge,
        step.credit,
        _encode(step.lines).decode(),
        _encode(step.granted).decode(),
        _encode(step.cancelled).decode(),
        one.payment_id,
        now,
    )


async def close_grants(unit: Unit, denomination: str, gone: Sequence[Grant]) -> None:
    """Write grants that are over, and no other: what usage took of them is burned, and what it took else is not yet.

    Others may have to be seen as of an earlier moment still, by a renewal that is late.
    """
    if not gone:
        return
    account_id, ids = gone[0].account_id, [grant.id for grant in gone]
    before: int = await unit.fetchval(
        "select sum(units_left)::bigint from balance_grant where account_id = $1 and id = any($2)", account_id, ids
    )
    await put_grants(unit, gone)
    await unit.execute(
        "update balance set burned = burned + least($3, greatest(0, arrived - amount - burned))"
        " where account_id = $1 and denomination = $2",
        account_id,
        denomination,
        before - sum(grant.left for grant in gone),
    )


async def end_grants(unit: Unit, state: AccountState, *, tick: int, now: datetime) -> int:
    """End the grants of an account that this unit has locked whose time is over, each as of its own date; how many."""
    due = await unit.fetch(
        "select denomination, expires_at from balance_grant where account_id = $1 and closed_at is null"
        " and expires_at <= $2 group by denomination, expires_at order by expires_at, denomination",
        state.account_id,
        now,
    )
    ended = 0
    for row in due:
        standing = await read_standing(unit, state.account_id, Moment(row["expires_at"]))
        purse = standing.purses[row["denomination"]]
        _, gone, made = expired(purse, state, at=row["expires_at"], tick=tick, now=now)
        await ledger.save_moves(unit, state, tick, () if made is None else (made,), now)
        await close_grants(unit, purse.denomination, gone)
        if made is not None:
            state = state._replace(balances={**state.balances, purse.denomination: made[0]})
        tick += 1
        ended += len(gone)
    return ended


async def carry_out(
    unit: Unit, step: Step, state: AccountState, *, paid: int, payment_id: int | None, tick: int, now: datetime
) -> Effect:
    """Do a step on an account that this unit has locked, with all its rows; ``state`` is as it is now.

    It is done as of its own moment, whatever was used since (``core.effect``); but a renewal that was not paid for
    until its own period would be over begins now.
    """
    account_id = state.account_id
    standing = await read_standing(unit, account_id, Moment(step.at, step.tick))
    is_late = standing.subscription is not None and standing.subscription.status == "past_due"
    if is_late and step.kind == "renewal" and step.period and step.period.end_at and step.period.end_at <= now:
        standing = await read_standing(unit, account_id, Moment(now, state.tick))
        step = late(step, standing.around_of(step, state, now))
        # Seen as of now, the purses hold what was paid already.
        paid = 0
    around = standing.around_of(step, state, step.at)
    terms = await read_terms(unit, state.environment_id, account_id, step.subscription)
    effect = effect_of(step, around, state, terms, tick=tick, paid=paid, now=now)
    known = standing.subscription
    if known is not None and known.payment_id is not None and known.payment_id != payment_id:
        # What could not be paid is not asked for any more once something else has taken its place.
        unpaid = await payments.read_payment(unit, account_id, known.payment_id)
        await payments.give_up(unit, account_id, known.payment_id, now)
        if unpaid is not None and unpaid.payment.status == "created" and effect.subscription.status == "past_due":
            # It is worked out anew when the payment would have been tried again.
            again = replace(effect.subscription, next_at=unpaid.payment.next_attempt_at)
            effect = effect._replace(subscription=again)
    await write_effects(unit, [Written(step, effect, state, state.environment_id, payment_id)], now)
    if step.kind == "start" and terms.charges_money:
        await accounts.fix_currency(unit, account_id, terms.denomination)
    if is_late and effect.subscription.status == "active":
        await accounts.unpause(unit, account_id, "plan", now)
    if step.kind != "refill" and (standing.has_plan_refills or any(one.refill for one in terms.balances.values())):
        held = {**state.balances, **{balance.denomination: balance for balance, _ in effect.moves}}
        await put_refills(unit, effect.subscription, terms, held, now)
    return effect


async def put_refills(
    unit: Unit, subscription: Subscription, terms: PlanTerms, held: Mapping[str, Balance], now: datetime
) -> None:
    """Let the balances of a plan fill themselves as it says, at once where too little is held already."""
    known = await refills.list_refills(unit, subscription.account_id)
    keep, over = plan_refills(terms, known, subscription, now) if subscription.is_running else ((), _by_plan(known))
    for refill in keep:
        assert refill.threshold is not None
        is_low = held[refill.denomination].available < refill.threshold
        await refills.put_refill(unit, refill._replace(due_at=refill.due_at or now if is_low else None), now)
    for denomination in over:
        await refills.delete_refill(unit, subscription.account_id, denomination)


def _by_plan(known: Sequence[Refill]) -> tuple[str, ...]:
    return tuple(refill.denomination for refill in known if refill.by_plan)


# --- steps that wait for their payment --------------------------------------------------------------------------------


def step_to_json(step: Step) -> dict[str, Any]:
    """A step as a payment carries it until the card has said yes."""
    return msgspec.to_builtins(step)  # type: ignore[no-any-return] # an object, for a step is one


def step_of_json(kept: Mapping[str, Any]) -> Step:
    """The inverse of :func:`step_to_json`."""
    return msgspec.convert(kept, Step)


def payment_of(
    step: Step, state: AccountState, standing: Standing, reason: PaymentReason, id: int, now: datetime
) -> Payment:
    """The payment of a step by card, not written yet; it carries the step, and what that was worked out on."""
    return Payment(
        account_id=state.account_id,
        id=id,
        environment_id=state.environment_id,
        method="card",
        reason=reason,
        status="intended",
        amount=step.charge,
        currency=step.denomination,
        denomination=step.denomination,
        units=step.charge,
        description=next((line.description for line in step.lines if line.kind == "plan"), "Plan"),
        created_at=now,
        due_at=step.at,
        slot="plan",
        settings={"step": step_to_json(step), "basis": basis_of(standing.subscription)},
        next_attempt_at=now,
    )


async def ask_for_rest(unit: Unit, step: Step, effect: Effect, *, is_suspended: bool, now: datetime) -> None:
    """Write down a payment for what is owed when a plan has ended; one that is asked for already is not asked twice."""
    after = effect.subscription
    if await payments.open_payment(unit, after.account_id, "plan_end") is not None:
        return
    id = effect.tick + 1
    await payments.insert_payment(
        unit,
        Payment(
            account_id=after.account_id,
            id=id,
            environment_id=after.environment_id,
            method="card",
            reason="plan_end",
            status="skipped" if is_suspended else "intended",
            amount=step.charge,
            currency=step.denomination,
            denomination=step.denomination,
            units=step.charge,
            description="Owed when the plan ended",
            created_at=now,
            due_at=step.at,
            slot="plan_end",
            next_attempt_at=None if is_suspended else now,
        ),
    )
    await ledger.raise_tick(unit, after.account_id, id)


# --- reading ----------------------------------------------------------------------------------------------------------

_SELECT: Final = "select {} from subscription s".format(", ".join(f"s.{name}" for name in _SUBSCRIPTION))


def _of_row(row: Record) -> Subscription:
    values = {name: row[name] for name in _SUBSCRIPTION}
    values["variable_units"] = decoded(row["variable_units"])
    values["scheduled"] = decoded(row["scheduled"]) or None
    return Subscription(**values)


async def read_subscription(reader: Reader, account_id: int) -> Subscription | None:
    """The plan an account is on, or was on last."""
    row = await reader.fetchrow(f"{_SELECT} where s.account_id = $1", account_id)
    return None if row is None else _of_row(row)


async def read_begun(reader: Reader, account_id: int) -> int | None:
    """What the plan that an account is on began with: the payment of its first step, else that step; None: nothing."""
    found: int | None = await reader.fetchval(
        "select coalesce(payment_id, id) from subscription_step where account_id = $1 and kind = 'start'"
        " order by id desc limit 1",
        account_id,
    )
    return found


async def read_subscriptions(reader: Reader, account_ids: Sequence[int]) -> dict[int, Subscription]:
    """The plans of accounts, by account id."""
    rows = await reader.fetch(f"{_SELECT} where s.account_id = any($1)", list(account_ids))
    return {row["account_id"]: _of_row(row) for row in rows}


async def credited_of(reader: Reader, account_id: int, payment_id: int) -> int:
    """What a change or an end has given back of the period that a payment paid for: that cannot be refunded too."""
    found: int | None = await reader.fetchval(
        "select p.credited from subscription_step s join subscription_period p on p.account_id = s.account_id"
        " and p.id = s.period_id where s.account_id = $1 and s.payment_id = $2",
        account_id,
        payment_id,
    )
    return found or 0


async def is_step_paid_by(reader: Reader, account_id: int, payment_id: int) -> bool:
    """Whether a payment has paid for a step; where the plan had changed before it came in, it has not."""
    found: bool = await reader.fetchval(
        "select exists (select from subscription_step where account_id = $1 and payment_id = $2)",
        account_id,
        payment_id,
    )
    return found


async def list_steps(reader: Reader, account_id: int, page: Page) -> list[StoredStep]:
    """What was done to an account's plan, newest first."""
    rows = await reader.fetch(
        "select {} from subscription_step t where t.account_id = $1 and ($3::bigint is null or t.id < $3)"
        " order by t.id desc limit $2".format(", ".join(f"t.{name}" for name in StoredStep._fields)),
        account_id,
        page.limit,
        None if page.after is None else page.after[0],
    )
    json_columns = {"lines", "granted", "cancelled"}
    return [
        StoredStep(*(decoded(row[name]) if name in json_columns else row[name] for name in StoredStep._fields))
        for row in rows
    ]


async def list_grants(reader: Reader, account_id: int, denomination: str, page: Page) -> list[Grant]:
    """The grants of a balance, newest first; ``left`` is as of what they are burned down by."""
    columns = ", ".join(f"g.{name}" for name in _GRANT)
    rows = await reader.fetch(
        f"select {columns} from balance_grant g where g.account_id = $1 and g.denomination = $2"
        " and ($4::bigint is null or g.id < $4) order by g.id desc limit $3",
        account_id,
        denomination,
        page.limit,
        None if page.after is None else page.after[0],
    )
    return [Grant(*row) for row in rows]


async def read_version_terms(reader: Reader, environment_id: int, version_id: int) -> dict[str, Any]:
    """The terms of a version as they are stored, to be merged with what is agreed with an account."""
    found = await reader.fetchval(
        "select terms from plan_version where environment_id = $1 and id = $2", environment_id, version_id
    )
    return dict(decoded(found))


async def read_grant(reader: Reader, account_id: int, grant_id: int) -> Grant | None:
    """One grant, open or closed."""
    columns = ", ".join(f"g.{name}" for name in _GRANT)
    row = await reader.fetchrow(
        f"select {columns} from balance_grant g where g.account_id = $1 and g.id = $2", account_id, grant_id
    )
    return None if row is None else Grant(*row)


async def wake(unit: Unit, account_id: int, now: datetime) -> bool:
    """A new card: a plan that waits for one, or could not be paid, is due at once. Whether there was one.

    A payment that is about to ask a card asks the new one: then nothing more is due.
    """
    done: str = await unit.execute(
        "update subscription s set next_at = $2 where account_id = $1 and next_at is null"
        " and status in ('pending_card', 'past_due') and not exists (select from payment p"
        " where p.account_id = $1 and p.id = s.payment_id and p.status in ('intended', 'created'))",
        account_id,
        now,
    )
    return done != "UPDATE 0"


async def wait_for(unit: Unit, account_id: int, payment_id: int) -> None:
    """A payment of a plan's renewal is tried again by hand: nothing is due by itself meanwhile."""
    await unit.execute(
        "update subscription set next_at = null where account_id = $1 and payment_id = $2", account_id, payment_id
    )


async def accounts_behind(
    reader: Reader, environment_id: int, plan_id: int, version_id: int, *, after: int, limit: int
) -> list[int]:
    """Accounts that run on another version of a plan than this one, and have nothing scheduled; by id."""
    rows = await reader.fetch(
        "select account_id from subscription where environment_id = $1 and plan_id = $2 and account_id > $4"
        " and status in ('trialing', 'active', 'paused') and version_id <> $3"
        " and not cancels_at_end and scheduled is null order by account_id limit $5",
        environment_id,
        plan_id,
        version_id,
        after,
        limit,
    )
    return [row["account_id"] for row in rows]
