"""Webhooks and what they hear."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Final, NamedTuple

from tenuto.core.topic import Heard

from .database import Reader, Record, Unit


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where a half of a company hears what happens; without a ``url`` its notifications are only there to be read.

    ``password`` and the secrets are sealed. ``in_flight`` is how many requests are under way at a time. ``merges``:
    changes of one balance that wait together become one. ``failing_since`` and ``paused_at`` are real times.
    """

    environment_id: int
    id: int
    url: str | None
    username: str | None
    password: bytes | None
    secret: bytes
    old_secret: bytes | None
    old_secret_until: datetime | None
    description: str
    in_flight: int
    merges: bool
    failing_since: datetime | None
    paused_at: datetime | None
    paused_by: str | None
    created_at: datetime
    updated_at: datetime | None


PASSWORD_OF: Final = "webhook_{}_password"  # noqa: S105 - what it is sealed for, not a password
SECRET_OF: Final = "webhook_{}_secret"  # noqa: S105 - likewise

_NAMES: Final = tuple(field.name for field in fields(Webhook))
_COLUMNS: Final = ", ".join(f"w.{name}" for name in _NAMES)
_CHANGES: Final = frozenset(_NAMES) - {"environment_id", "id", "created_at"}


class Subscription(NamedTuple):
    """One topic that a webhook hears: of all accounts or one, of all balances or one, at a level or without."""

    id: int
    webhook_id: int
    topic: str
    account_id: int | None
    denomination: str | None
    level: str | None
    created_at: datetime

    @property
    def heard(self) -> Heard:
        """As core knows it."""
        return Heard(self.webhook_id, self.topic, self.account_id, self.denomination, self.level)


async def insert_webhook(unit: Unit, webhook: Webhook) -> None:
    """A webhook that hears nothing yet."""
    places = ", ".join(f"${index}" for index in range(1, len(_NAMES) + 1))
    await unit.execute(
        f"insert into webhook ({', '.join(_NAMES)}) values ({places})", *(getattr(webhook, name) for name in _NAMES)
    )


async def read_webhook(reader: Reader, environment_id: int, webhook_id: int) -> Webhook | None:
    """One webhook of an environment; None for a foreign or deleted one."""
    row = await reader.fetchrow(
        f"select {_COLUMNS} from webhook w where w.environment_id = $1 and w.id = $2 and w.deleted_at is null",
        environment_id,
        webhook_id,
    )
    return None if row is None else _webhook(row)


async def list_webhooks(reader: Reader, environment_id: int) -> list[Webhook]:
    """All webhooks of an environment, the oldest first."""
    rows = await reader.fetch(
        f"select {_COLUMNS} from webhook w where w.environment_id = $1 and w.deleted_at is null"
        " order by w.created_at, w.id",
        environment_id,
    )
    return [_webhook(row) for row in rows]


async def list_subscriptions(
    reader: Reader, environment_id: int, webhook_id: int | None = None
) -> dict[int, list[Subscription]]:
    """What the webhooks of an environment hear, by webhook."""
    rows = await reader.fetch(
        f"select {', '.join(Subscription._fields)} from webhook_topic"
        " where environment_id = $1 and ($2::bigint is null or webhook_id = $2) order by topic, created_at, id",
        environment_id,
        webhook_id,
    )
    found: dict[int, list[Subscription]] = {}
    for row in rows:
        found.setdefault(row["webhook_id"], []).append(Subscription(*row))
    return found


async def update_webhook(
    unit: Unit, environment_id: int, webhook_id: int, changes: Mapping[str, object], now: datetime
) -> None:
    """Set columns of a webhook."""
    columns = sorted(_CHANGES & changes.keys())
    sets = "".join(f", {name} = ${index}" for index, name in enumerate(columns, 4))
    await unit.execute(
        f"update webhook set updated_at = $3{sets} where environment_id = $1 and id = $2",
        environment_id,
        webhook_id,
        now,
        *(changes[name] for name in columns),
    )


async def delete_webhook(unit: Unit, environment_id: int, webhook_id: int, now: datetime) -> None:
    """Take a webhook away with what it hears and what waits for it; its log stays for a while."""
    for table in ("webhook_topic", "delivery"):
        where = "" if table == "webhook_topic" else " and status = 'waiting'"
        await unit.execute(
            f"delete from {table} where environment_id = $1 and webhook_id = $2{where}", environment_id, webhook_id
        )
    await unit.execute(
        "update webhook set deleted_at = $3, password = null, old_secret = null where environment_id = $1 and id = $2",
        environment_id,
        webhook_id,
        now,
    )


async def insert_subscription(unit: Unit, environment_id: int, subscription: Subscription) -> bool:
    """Let a webhook hear something; False where it does already."""
    found = await unit.fetchval(
        f"insert into webhook_topic (environment_id, {', '.join(Subscription._fields)})"
        " values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict do nothing returning id",
        environment_id,
        *subscription,
    )
    return found is not None


async def delete_subscriptions(
    unit: Unit, environment_id: int, webhook_id: int, topic: str, narrowed: Mapping[str, object]
) -> list[int | None]:
    """Let a webhook hear a topic no more; the accounts whose subscriptions ended (None: those of the whole company).

    ``narrowed``: only those with this account_id, denomination or level.
    """
    arguments: list[object] = [environment_id, webhook_id, topic]
    where = ""
    for name in ("account_id", "denomination", "level"):
        if name in narrowed:
            arguments.append(narrowed[name])
            where += f" and {name} = ${len(arguments)}"
    rows = await unit.fetch(
        "delete from webhook_topic where environment_id = $1 and webhook_id = $2 and topic = $3"
        f"{where} returning account_id",
        *arguments,
    )
    return [row["account_id"] for row in rows]


async def count_subscriptions(reader: Reader, environment_id: int, webhook_id: int) -> int:
    """How much a webhook hears."""
    found: int = await reader.fetchval(
        "select count(*) from webhook_topic where environment_id = $1 and webhook_id = $2", environment_id, webhook_id
    )
    return found


async def count_looks(reader: Reader, environment_id: int, account_id: int | None) -> int:
    """What each movement is held against: all that is heard of one account, or the levels that are heard of all."""
    found: int = await reader.fetchval(
        "select count(*) from webhook_topic where environment_id = $1"
        " and case when $2::bigint is null then account_id is null and level is not null else account_id = $2 end",
        environment_id,
        account_id,
    )
    return found


def _webhook(row: Record) -> Webhook:
    return Webhook(*(row[name] for name in _NAMES))
