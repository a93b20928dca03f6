"""Flags of accounts: what they are read off, what was set by hand, and every change of one.

The problem, on one example. A plan with ``exports``: true ends and another begins that has ``seats``: 5; ``seats`` was
set to 8 by hand before. In the unit of the change of plans:

    flag      before        after         history                    flag.changed
    exports   on, plan      not there     one row, source plan       told
    seats     8, operator   8, operator   nothing: the plan is below what was set by hand

No flag is stored as it stands (``core/entitlement``): one statement reads everything that all flags of an account are
read off, and a change is what differs between two such readings. Sources: contract 3.10, 6.1 (22, 32).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec

from tenuto.core.entitlement import Flag, flags_of, shown
from tenuto.core.event import AccountState
from tenuto.core.ledger import Balance, open_balance
from tenuto.core.plan import FlagValue
from tenuto.core.subscription import RUNNING
from tenuto.core.topic import SYSTEM_FLAGS, FlagChange, Notification, rules_of

from . import ledger
from .database import Reader, Record, Unit
from .records import Page, decoded
from .signals import insert_flag_changes, tell

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

OWN_FLAGS: Final = (
    "(select json_agg(json_build_array(f.name, f.value, (extract(epoch from f.changed_at) * 1000000)::bigint))"
    " from account_flag f where f.account_id = a.id)"
)
"""SQL: the flags that were set for an account ``a``, for :func:`own_flags`."""

RUNNING_STATUSES: Final = "({})".format(", ".join(f"'{status}'" for status in sorted(RUNNING)))
"""SQL: the statuses of a subscription whose terms are in force."""

_HELD: Final = f"""
select v.revision = $3 as is_current, a.id as account_id, a.tick, a.credit_limit, a.paused_at, a.credit_blocked_at,
    a.usage_suspended_at, s.updated_at as plan_at, coalesce(o.terms, w.terms) -> 'flags' as of_plan,
    {OWN_FLAGS} as own,
    (select json_agg(json_build_array(b.denomination, b.amount, b.credit_limit))
        from balance b where b.account_id = a.id) as balances
from environment v
left join account a on a.environment_id = v.id and a.id = $2
left join subscription s on s.account_id = a.id and s.status in {RUNNING_STATUSES}
left join plan_version w on w.environment_id = v.id and w.id = s.version_id
left join plan_override o on o.account_id = a.id and o.id = s.override_id
where v.id = $1
"""


class OwnFlag(NamedTuple):
    """A flag as it was set for one account, and when."""

    value: FlagValue
    changed_at: datetime


class FlagRow(NamedTuple):
    """A flag as it stands, and since when its value, or what raised it, has been what it is."""

    flag: Flag
    updated_at: datetime | None


class Held(NamedTuple):
    """What the flags of an account are read off. ``of_plan`` is empty for an account that is on no plan."""

    account_id: int
    tick: int
    credit_limit: int | None
    paused_at: datetime | None
    credit_blocked_at: datetime | None
    usage_suspended_at: datetime | None
    of_plan: Mapping[str, FlagValue]
    plan_at: datetime | None
    own: Mapping[str, OwnFlag]
    balances: Mapping[str, Balance]

    def flags(self, system: Mapping[str, bool]) -> dict[str, Flag]:
        """All flags by name; ``system`` are those that nobody sets by hand."""
        amounts = {name: balance.amount for name, balance in self.balances.items()}
        return flags_of(self.of_plan, values_of(self.own), amounts, system)


def values_of(own: Mapping[str, OwnFlag]) -> dict[str, FlagValue]:
    """Flags that were set by hand, without when."""
    return {name: found.value for name, found in own.items()}


def own_flags(text: str | None) -> dict[str, OwnFlag]:
    """The flags that were set for an account, from the column :data:`OWN_FLAGS`."""
    return {name: OwnFlag(value, _EPOCH + timedelta(microseconds=at)) for name, value, at in decoded(text)}


async def read_held(reader: Reader, environment_id: int, revision: int, account_id: int) -> tuple[bool, Held | None]:
    """What the flags of an account are read off, and whether the environment is still at ``revision``.

    One round trip reads and proves; None for an account that is not the environment's.
    """
    row = await reader.fetchrow(_HELD, environment_id, account_id, revision)
    if row is None or not row["is_current"]:
        return False, None
    return True, _held(row)


async def take_held(unit: Unit, environment_id: int, account_id: int) -> Held | None:
    """Lock an account, then read in the next statement what its flags are read off."""
    await ledger.lock_accounts(unit, [account_id])
    row = await unit.fetchrow(_HELD, environment_id, account_id, 0)
    return None if row is None else _held(row)


def _held(row: Record) -> Held | None:
    if row["account_id"] is None:
        return None
    balances = {
        name: open_balance(name, credit_limit=limit)._replace(amount=amount)
        for name, amount, limit in decoded(row["balances"])
    }
    return Held(
        row["account_id"],
        row["tick"],
        row["credit_limit"],
        row["paused_at"],
        row["credit_blocked_at"],
        row["usage_suspended_at"],
        _flags_of_terms(row["of_plan"]),
        row["plan_at"],
        own_flags(row["own"]),
        balances,
    )


def _flags_of_terms(text: str | None) -> dict[str, FlagValue]:
    return dict(decoded(text) or {})


# --- setting by hand --------------------------------------------------------------------------------------------------


async def put_own(unit: Unit, account_id: int, name: str, value: FlagValue, now: datetime) -> None:
    """Set a flag for one account that this unit has locked."""
    await unit.execute(
        "insert into account_flag (account_id, name, value, changed_at) values ($1, $2, $3, $4)"
        " on conflict (account_id, name) do update set value = excluded.value, changed_at = excluded.changed_at",
        account_id,
        name,
        msgspec.json.encode(value).decode(),
        now,
    )


async def delete_own(unit: Unit, account_id: int, name: str) -> None:
    """Take back what was set for one account that this unit has locked."""
    await unit.execute("delete from account_flag where account_id = $1 and name = $2", account_id, name)


async def save_changes(
    unit: Unit, environment_id: int, account_id: int, changes: Sequence[FlagChange], now: datetime
) -> None:
    """Keep changes of flags of an account that this unit has locked, and tell those by which a flag became another.

    The account's tick becomes at least the largest of their ids, so nobody goes on with the flags of before.
    """
    await insert_flag_changes(unit, account_id, changes, now)
    told = [_told(account_id, change, now) for change in changes if change.before != change.after]
    await tell(unit, environment_id, *told)
    await ledger.raise_tick(unit, account_id, max(change.id for change in changes))


def _told(account_id: int, change: FlagChange, now: datetime) -> Notification:
    """A flagback; a flag that is not there any more is off and has no type."""
    gone = {"type": None, "enabled": False, "value": None, "denomination": None}
    after = gone if change.after is None else change.after
    denomination = after["denomination"]
    assert denomination is None or isinstance(denomination, str)
    about = {"name": change.name, "before": change.before, "source": change.source, "reason": change.reason}
    return Notification(account_id, "flag.changed", {**about, **after}, now, denomination)


# --- following plans --------------------------------------------------------------------------------------------------


class Replaced(NamedTuple):
    """The terms of an account's plan that take the place of others.

    ``before`` is the account as it was. Of the terms from now on, ``version_id`` is None where it is on no plan any
    more, and ``override_id`` names what was agreed with it alone. ``balances`` are those that moved with it. ``id`` is
    above every id given so far.
    """

    before: AccountState
    version_id: int | None
    override_id: int | None
    balances: Mapping[str, Balance]
    id: int
    actor: str | None
    reason: str

    @property
    def is_same(self) -> bool:
        """Whether the flags are surely those of before."""
        known = self.before.plan
        if known is None:
            return self.version_id is None
        return known.version_id == self.version_id and known.override is None and self.override_id is None


_OF_PLANS: Final = """
select v.money -> 'levels' as levels, b.terms -> 'flags' as before, coalesce(o.terms, n.terms) -> 'flags' as after
from unnest($1::bigint[], $2::integer[], $3::bigint[], $4::bigint[], $5::bigint[])
    with ordinality as asked (account_id, environment_id, known_id, version_id, override_id, place)
join environment v on v.id = asked.environment_id
left join plan_version b on b.environment_id = v.id and b.id = asked.known_id
left join plan_version n on n.environment_id = v.id and n.id = asked.version_id
left join plan_override o on o.account_id = asked.account_id and o.id = asked.override_id
order by asked.place
"""


async def follow_plans(unit: Unit, replaced: Sequence[Replaced], now: datetime) -> None:
    """Keep and tell what other terms of their plans change about the flags of accounts that this unit has locked."""
    changing = [one for one in replaced if not one.is_same]
    if not changing:
        return
    rows = await unit.fetch(
        _OF_PLANS,
        [one.before.account_id for one in changing],
        [one.before.environment_id for one in changing],
        [None if one.before.plan is None else one.before.plan.version_id for one in changing],
        [one.version_id for one in changing],
        [one.override_id for one in changing],
    )
    for one, row in zip(changing, rows, strict=True):
        changes = _changes(one, row)
        if changes:
            await save_changes(unit, one.before.environment_id, one.before.account_id, changes, now)


def _changes(one: Replaced, row: Record) -> list[FlagChange]:
    """What differs; metered flags are read off the balances of afterwards, since what moved them was told already."""
    known = one.before.plan
    agreed = None if known is None else known.override
    old = _flags_of_terms(row["before"]) if agreed is None else agreed.flags
    amounts = {name: balance.amount for name, balance in {**one.before.balances, **one.balances}.items()}
    system = dict.fromkeys(system_names(row["levels"]), False)
    before = flags_of(old, one.before.own_flags, amounts, system)
    after = flags_of(_flags_of_terms(row["after"]), one.before.own_flags, amounts, system)
    return [
        FlagChange(one.id, name, "plan", one.actor, one.reason, shown(before.get(name)), shown(after.get(name)))
        for name in sorted({*before, *after})
        if shown(before.get(name)) != shown(after.get(name))
    ]


def system_names(levels: str | None) -> set[str]:
    """The flags that nobody sets by hand; ``levels`` is the setting of a company's rules, as it is stored."""
    rules = rules_of({} if levels is None else {"levels": decoded(levels)})
    return {*SYSTEM_FLAGS, *(rule.flag for rule in rules if rule.flag is not None)}


# --- history ----------------------------------------------------------------------------------------------------------


class StoredChange(NamedTuple):
    """A change of a flag as it is listed; ``before`` and ``after`` as flags are shown, None: it was not there."""

    account_id: int
    id: int
    name: str
    source: str
    actor: str | None
    reason: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    changed_at: datetime


async def list_changes(reader: Reader, account_id: int, name: str, page: Page) -> list[StoredChange]:
    """What became of a flag of an account, newest first."""
    rows = await reader.fetch(
        "select {} from flag_change c where c.account_id = $1 and c.name = $2 and ($4::bigint is null or c.id < $4)"
        " order by c.id desc limit $3".format(", ".join(f"c.{column}" for column in StoredChange._fields)),
        account_id,
        name,
        page.limit,
        None if page.after is None else page.after[0],
    )
    return [
        StoredChange(*row)._replace(before=decoded(row["before"]) or None, after=decoded(row["after"]) or None)
        for row in rows
    ]
