"""Pauses: what stands still, what is told when that begins and ends, and the events that wait meanwhile.

The problem, on one example. Dunning pauses an account, an operator suspends its usage, and both end again:

    written                      stored before    told                                    history of flags
    paused_at, by dunning        not paused       account.paused, flag.changed            account_paused, by dunning
    usage_suspended_at           billed           account.usage_suspended, flag.changed   usage_suspended, by the key
    paused_at, by dunning        paused           nothing: it was paused                  nothing
    neither                      both             account.resumed, account.usage_resumed  two changes

It is told where the row is written, by comparing with the row before, so that no way to a pause can forget it; only
levels of credit, which the hot path judges, are told by ``core/notification``. Source: contract 1, 2.7, 3.9.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple

from tenuto.core.entitlement import Flag, shown
from tenuto.core.topic import BLOCKED_FLAG, PAUSED_FLAG, SUSPENDED_FLAG, FlagChange, Notification

from .database import Reader, Record, Unit
from .signals import insert_flag_changes, tell

MANUAL: Final = "manual"


class Word(NamedTuple):
    """By whose word a pause is changed: ``by`` as topics say it, the actor and the reason as the history of flags does.

    ``by`` None: by what the pause itself was by. ``queued``: what becomes of events that wait.
    """

    by: str | None = None
    actor: str | None = None
    reason: str | None = None
    queued: str = "keep"


ITSELF: Final = Word()
"""Dunning, a plan, a level: the pause says by what."""
BY_HAND: Final = Word(MANUAL)


class Pause(NamedTuple):
    """A way to stand still: its column, that of what began it, its topics (of the end, of the beginning), its flag."""

    column: str
    by: str | None
    topics: tuple[str, str]
    flag: str | None

    def is_changed(self, before: Record, changes: Mapping[str, object]) -> bool:
        """Whether it really begins or ends."""
        return self.column in changes and bool(before[self.column]) != bool(changes[self.column])

    def author(self, before: Record, changes: Mapping[str, object], word: Word) -> str:
        """What it began by, or whose word ended it."""
        if self.by is None:
            return word.by or MANUAL
        return str(changes.get(self.by) or word.by or before[self.by])


PAUSED: Final = Pause("paused_at", "paused_by", ("account.resumed", "account.paused"), PAUSED_FLAG)
BLOCKED: Final = Pause(
    "credit_blocked_at", "credit_blocked_by", ("account.credit_unblocked", "account.credit_blocked"), BLOCKED_FLAG
)
SUSPENDED: Final = Pause(
    "usage_suspended_at", None, ("account.usage_resumed", "account.usage_suspended"), SUSPENDED_FLAG
)
CAPTURE: Final = Pause("capture_suspended", None, ("account.capture_resumed", "account.capture_suspended"), None)

_OF_ACCOUNTS: Final = (PAUSED, BLOCKED, SUSPENDED, CAPTURE)
_OF_COMPANIES: Final = tuple(pause._replace(by=None) for pause in (PAUSED, SUSPENDED, CAPTURE))

BEFORE: Final = ", ".join(f"b.{name}" for pause in _OF_ACCOUNTS for name in (pause.column, pause.by) if name)
"""SQL: what :func:`tell_pauses` needs of the row ``b`` as it was."""


async def tell_pauses(
    unit: Unit, account_id: int, before: Record, changes: Mapping[str, object], now: datetime, word: Word
) -> None:
    """Tell what has changed about an account's pauses, and keep it in the history of its flags.

    ``before`` has the columns of :data:`BEFORE`, ``environment_id``, and the ``tick`` that the change has made.
    """
    facts: list[Notification] = []
    flags: list[FlagChange] = []
    for pause in _OF_ACCOUNTS:
        if not pause.is_changed(before, changes):
            continue
        begins, author = bool(changes[pause.column]), pause.author(before, changes, word)
        data: dict[str, object] = {"by": author}
        if pause is SUSPENDED and not begins:
            data |= {"waiting": await count_waiting(unit, account_id), "queued": word.queued}
        facts.append(Notification(account_id, pause.topics[begins], data, now))
        if pause.flag is not None:
            reason = word.reason or f"{'begun' if begins else 'ended'} by {author}"
            change = _flag_change(pause.flag, word.actor, reason, id=before["tick"], begins=begins)
            flags.append(change)
            facts.append(Notification(account_id, "flag.changed", _flag_data(change), now))
    await tell(unit, before["environment_id"], *facts)
    await insert_flag_changes(unit, account_id, flags, now)


def _flag_change(name: str, actor: str | None, reason: str, *, id: int, begins: bool) -> FlagChange:
    then, is_now = (shown(Flag(name, "binary", is_up, None, None, "system")) for is_up in (not begins, begins))
    return FlagChange(id, name, "system", actor, reason, then, is_now)


def _flag_data(change: FlagChange) -> dict[str, object]:
    after = change.after or {}
    return {
        "name": change.name,
        **after,
        "before": change.before,
        "source": change.source,
        "reason": change.reason,
    }


# --- a half of a company ----------------------------------------------------------------------------------------------


class CompanyPauses(NamedTuple):
    """What of one half of a company stands still, how many events of how many accounts wait, and for what."""

    paused_at: datetime | None
    usage_suspended_at: datetime | None
    capture_suspended: bool
    waiting: int
    accounts_waiting: int
    is_replaying: bool


async def pause_company(
    unit: Unit, environment_id: int, changes: Mapping[str, object], now: datetime, word: Word
) -> None:
    """Begin or end pauses of a half of a company that this unit has locked; what really changed is told.

    ``changes`` are of paused_at, usage_suspended_at, capture_suspended.
    """
    found = [pause for pause in _OF_COMPANIES if pause.column in changes]
    columns = ", ".join(f"b.{pause.column}" for pause in found)
    before = await unit.fetchrow(
        f"with b as (select b.id, {columns} from environment b where b.id = $1 for no key update) update environment v"
        f" set {', '.join(f'{pause.column} = ${index}' for index, pause in enumerate(found, 2))}"
        f" from b where v.id = b.id returning {columns}",
        environment_id,
        *(changes[pause.column] for pause in found),
    )
    assert before is not None
    for pause in found:
        if pause.is_changed(before, changes):
            begins = bool(changes[pause.column])
            data: dict[str, object] = {"by": pause.author(before, changes, word)}
            if pause.flag == SUSPENDED_FLAG and not begins:
                data |= {"waiting": (await read_company(unit, environment_id)).waiting, "queued": word.queued}
            await tell(unit, environment_id, Notification(None, pause.topics[begins], data, now))


async def read_company(reader: Reader, environment_id: int) -> CompanyPauses:
    """How one half of a company stands."""
    row = await reader.fetchrow(
        "select v.paused_at, v.usage_suspended_at, v.capture_suspended, w.events, w.accounts,"
        " exists (select from account a where a.environment_id = v.id and a.replays_to is not null)"
        " or v.replays_as is not null and w.free > 0"
        " from environment v cross join lateral (select count(*) as events, count(distinct a.id) as accounts,"
        " count(*) filter (where a.usage_suspended_at is null) as free"
        " from event e join account a on a.id = e.account_id where e.state = 3 and a.environment_id = v.id) w"
        " where v.id = $1",
        environment_id,
    )
    assert row is not None
    return CompanyPauses(*row)


# --- events that wait -------------------------------------------------------------------------------------------------


class Replaying(NamedTuple):
    """An account whose events that wait, up to the id ``to``, are taken up: to be billed, or to be voided."""

    environment_id: int
    account_id: int
    to: int
    is_void: bool


async def count_waiting(reader: Reader, account_id: int) -> int:
    """How many events of an account are kept aside."""
    found: int = await reader.fetchval("select count(*) from event where account_id = $1 and state = 3", account_id)
    return found


async def mark_account(unit: Unit, account_id: int, queued: str) -> None:
    """Say what is to become of what waits of an account that this unit has locked: all that has an id by now."""
    await unit.execute(
        "update account set replays_to = case when $2 = 'keep' then null else tick end,"
        " replays_as = nullif($2, 'keep') where id = $1",
        account_id,
        queued,
    )


async def mark_company(unit: Unit, environment_id: int, queued: str, until: datetime) -> None:
    """Say what is to become of what waits of a half of a company that this unit has locked.

    Requests that were decided before may still save events after it: those are looked for until ``until``, real time.
    """
    await unit.execute(
        "update environment set replays_as = nullif($2, 'keep'),"
        " replays_until = case when $2 <> 'keep' then $3::timestamptz end where id = $1",
        environment_id,
        queued,
        until,
    )
    if queued == "keep":
        await unit.execute(
            # Locked in the order in which everybody does.
            "with found as (select id from account where environment_id = $1 and replays_to is not null order by id"
            " for no key update) update account a set replays_to = null, replays_as = null from found"
            " where a.id = found.id",
            environment_id,
        )


async def unmark_company(unit: Unit, environment_id: int, now: datetime | None = None) -> None:
    """No more accounts are to be marked for a half of a company; with ``now``, real time, if it is late enough."""
    await unit.execute(
        "update environment set replays_as = null, replays_until = null where id = $1"
        " and ($2::timestamptz is null or replays_until < $2)",
        environment_id,
        now,
    )


async def marked_companies(reader: Reader, environment_id: int | None) -> list[tuple[int, datetime]]:
    """The halves of companies whose accounts have to be marked, and until when; ``environment_id`` names one."""
    rows = await reader.fetch(
        "select id, replays_until from environment where replays_as is not null and ($1::integer is null or id = $1)"
        " order by id",
        environment_id,
    )
    return [tuple(row) for row in rows]


async def mark_accounts(
    unit: Unit, environment_id: int, limit: int, *, after: int = 0, is_patient: bool = True
) -> list[int]:
    """Mark accounts of a marked half of a company that have events that wait, from an id on; which.

    Those that are suspended by themselves stay so. Rows are locked in the order in which lanes lock them; what somebody
    else has locked is waited for, or left for the next time.
    """
    rows = await unit.fetch(
        "with found as (select a.id, v.replays_as from account a join environment v on v.id = a.environment_id"
        " where v.id = $1 and v.replays_as is not null and a.usage_suspended_at is null and a.replays_to is null"
        " and a.id > $3 and a.id in (select e.account_id from event e where e.state = 3) order by a.id limit $2"
        f" for no key update of a{'' if is_patient else ' skip locked'}),"
        " marked as (update account a set replays_to = a.tick, replays_as = found.replays_as from found"
        " where a.id = found.id returning a.id) select id from marked order by id",
        environment_id,
        limit,
        after,
    )
    return [row["id"] for row in rows]


async def read_replaying(reader: Reader, environment_id: int | None, limit: int, chance: int) -> list[Replaying]:
    """Accounts whose events are taken up, in another order each time, so that none keeps the others waiting."""
    rows = await reader.fetch(
        "select a.environment_id, a.id, a.replays_to, a.replays_as = 'void' from account a"
        " where a.replays_to is not null and ($1::integer is null or a.environment_id = $1)"
        " order by hashint8(a.id # $3::bigint) limit $2",
        environment_id,
        limit,
        chance,
    )
    return [Replaying(*row) for row in rows]


async def read_waiting(reader: Reader, account_id: int, *, after: int, to: int, limit: int) -> list[int]:
    """The ids of events of an account that wait, in order."""
    rows = await reader.fetch(
        "select id from event where account_id = $1 and state = 3 and id > $2 and id <= $3 order by id limit $4",
        account_id,
        after,
        to,
        limit,
    )
    return [row["id"] for row in rows]


async def unmark_account(unit: Unit, replaying: Replaying) -> None:
    """Nothing is left to take up, unless it was marked anew meanwhile."""
    await unit.execute(
        "update account set replays_to = null, replays_as = null where id = $1 and replays_to = $2"
        " and (replays_as = 'void') = $3",
        replaying.account_id,
        replaying.to,
        replaying.is_void,
    )
