"""What happened, written down where it happened, and by whose ears it is judged.

Movements of balances come with what they have to say (``core/notification``) and are written with it; the rare rest
goes through :func:`tell`, which writes a fact down only where somebody hears it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from tenuto.core.event import AccountState, OnPlan
from tenuto.core.notification import BLOCKED_BY_LEVEL
from tenuto.core.plan import PlanTerms, plan_terms
from tenuto.core.topic import FlagChange, Heard, Listening, Notification, Told, rules_of, watch_of

from .database import Reader, Record, Unit
from .records import decoded

Signals = dict[str, list[Any]]
"""The last argument of tenuto_save: ``notifications``, ``bars``, ``flags``."""

_encode: Final = msgspec.json.Encoder().encode


def add_told(signals: Signals, before: AccountState, told: Told, now: datetime) -> None:
    """Add what a decision has to say to the signals of a save."""
    if told.notifications:
        rows = signals.setdefault("notifications", [])
        rows.extend(_row(before.environment_id, notification) for notification in told.notifications)
    if told.flags:
        rows = signals.setdefault("flags", [])
        rows.extend(_flag_row(before.account_id, change, now) for change in told.flags)
    if told.blocks is not None:
        bar = {"at": now, "by": BLOCKED_BY_LEVEL} if told.blocks else {"at": None, "by": None}
        # Only the last word about an account counts: one statement changes a row once.
        rows = [row for row in signals.get("bars", ()) if row["account_id"] != before.account_id]
        signals["bars"] = [*rows, {"account_id": before.account_id, **bar}]


async def save_signals(unit: Unit, signals: Signals) -> None:
    """Write signals of accounts that this unit has locked."""
    if signals:
        await unit.execute("select tenuto_signal($1)", _encode(signals).decode())


async def tell(unit: Unit, environment_id: int, *facts: Notification) -> None:
    """Write down facts that somebody hears; those that nobody hears are not kept."""
    if facts:
        await unit.execute(_TELL, _encode([_row(environment_id, fact) for fact in facts]).decode())


async def write(unit: Unit, environment_id: int, fact: Notification) -> None:
    """Write down a fact whoever hears it."""
    await save_signals(unit, {"notifications": [_row(environment_id, fact)]})


_TELL: Final = """
insert into notification (environment_id, account_id, topic, denomination, level, by_rule, sequence, data, created_at)
select n.environment_id, n.account_id, n.topic, n.denomination, n.level, coalesce(n.by_rule, false), n.sequence,
    n.data, n.created_at
from rows from (json_to_recordset($1) as (
    environment_id integer, account_id bigint, topic text, denomination text, level text, by_rule boolean,
    sequence bigint, data json, created_at timestamptz
)) with ordinality as n
where exists (
    select from webhook_topic h
    where h.environment_id = n.environment_id and h.topic in (n.topic, '*')
        and (h.account_id is null or h.account_id = n.account_id)
        and (h.denomination is null or h.denomination = n.denomination)
)
order by n.ordinality
"""


class _Row(msgspec.Struct, omit_defaults=True):
    """A notification in the columns of its table; the fields after the first are those of Notification, in its order.

    Built and encoded in a third of the time of a dict, and what is not there is not sent.
    """

    environment_id: int
    account_id: int | None
    topic: str
    data: Mapping[str, object]
    created_at: datetime
    denomination: str | None = None
    level: str | None = None
    by_rule: bool = False
    sequence: int | None = None


def _row(environment_id: int, notification: Notification) -> _Row:
    return _Row(environment_id, *notification)


def _flag_row(account_id: int, change: FlagChange, now: datetime) -> dict[str, object]:
    return {"account_id": account_id, **change._asdict(), "changed_at": now}


async def insert_flag_changes(unit: Unit, account_id: int, changes: Sequence[FlagChange], now: datetime) -> None:
    """Keep changes of flags of an account that this unit has locked."""
    if changes:
        await save_signals(unit, {"flags": [_flag_row(account_id, change, now) for change in changes]})


class Ears(NamedTuple):
    """By what movements of accounts are judged: how a half of a company listens, and the terms of plan versions."""

    listening: Mapping[int, Listening]
    plans: Mapping[tuple[int, int], PlanTerms]

    def plan_of(self, state: AccountState) -> PlanTerms | None:
        """What an account's plan promises it."""
        if state.plan is None:
            return None
        return state.plan.override or self.plans.get((state.environment_id, state.plan.version_id))


async def read_ears(reader: Reader, states: Sequence[AccountState]) -> Ears:
    """By what the movements of these accounts are judged, in one statement."""
    wanted = {(state.environment_id, _version(state.plan)) for state in states}
    rows = await reader.fetch(_EARS, [environment_id for environment_id, _ in wanted], [id for _, id in wanted])
    return Ears(
        {row["id"]: listening_of(row) for row in rows},
        {(row["id"], row["version_id"]): _terms(row["terms"]) for row in rows if row["terms"] is not None},
    )


def _version(plan: OnPlan | None) -> int:
    return 0 if plan is None or plan.override is not None else plan.version_id


LISTENING: Final = (
    "v.money -> 'levels' as levels, v.default_credit_limit, (select json_agg(json_build_array(h.webhook_id, h.topic,"
    " h.account_id, h.denomination, h.level)) from webhook_topic h"
    " where h.environment_id = v.id and h.account_id is null) as heard"
)
"""SQL: how a half of a company ``v`` listens, for :func:`listening_of`."""

_EARS: Final = (
    f"select v.id, {LISTENING}, p.id as version_id, p.terms"
    " from unnest($1::integer[], $2::bigint[]) as asked (id, version_id) join environment v on v.id = asked.id"
    " left join plan_version p on p.environment_id = v.id and p.id = asked.version_id"
)


def listening_of(row: Record) -> Listening:
    """How a half of a company listens, from the columns of :data:`LISTENING`."""
    levels = row["levels"]
    return Listening(
        watch_of(Heard(*heard) for heard in decoded(row["heard"])),
        rules_of({} if levels is None else {"levels": decoded(levels)}),
        row["default_credit_limit"],
    )


@lru_cache(maxsize=4096)
def _terms(text: str) -> PlanTerms:
    return plan_terms(msgspec.json.decode(text))
