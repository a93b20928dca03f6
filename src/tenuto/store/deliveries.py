"""Notifications on their way: published once, delivered at least once, kept for a while.

Publishing gives a notification its place in the log of its half of the company and the text that is sent; it happens
after the cause has been committed, so the log has no gaps and its order does not change. A delivery is one notification
on its way to one webhook. Only one process delivers at a time (:func:`become_courier`), so nothing is claimed: what is
under way is known to that process, and free again when it dies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec

from tenuto.core.notification import envelope, public_id
from tenuto.core.topic import EVERY_TOPIC, TOPICS, Heard, Notification, wants

from .database import Reader, Record, Unit

COURIER_LOCK: Final = 7_203_114_005
"""The advisory lock of the one process that delivers."""
COMPANY_MAX: Final = 128
"""How many requests a half of a company has under way at a time: however slow its receivers are, others have room."""
PUBLISHED_AT_ONCE: Final = 1000
PUBLISHED_LATE: Final = timedelta(days=7)
AHEAD: Final = timedelta(days=365)


async def become_courier(unit: Unit) -> bool:
    """Whether this connection is the one that delivers now; it stays so until it ends."""
    found: bool = await unit.fetchval("select pg_try_advisory_lock($1)", COURIER_LOCK)
    return found


# --- publishing -------------------------------------------------------------------------------------------------------


async def unpublished(reader: Reader) -> list[int]:
    """The halves of companies with something to publish; one look at the index for each."""
    rows = await reader.fetch(
        "with recursive found as ("
        " (select environment_id from notification where position is null order by environment_id limit 1)"
        " union all select (select n.environment_id from notification n"
        "  where n.position is null and n.environment_id > found.environment_id order by n.environment_id limit 1)"
        " from found where found.environment_id is not null"
        ") select environment_id from found where environment_id is not null"
    )
    return [row["environment_id"] for row in rows]


class _Company(NamedTuple):
    """Whose notifications are published, and to whom they go: ``heard`` by topic and account, None for all of them."""

    company_id: int
    live: bool
    webhooks: Mapping[int, bool]
    heard: Mapping[tuple[str, int | None], Sequence[Heard]]


async def publish(unit: Unit, environment_id: int, now: datetime, limit: int = PUBLISHED_AT_ONCE) -> int:
    """Publish what is not published yet of one half of a company, in the order of its writing; how much it was.

    ``now`` is real time.
    """
    # Whoever else publishes this half waits here, so places are given one after the other.
    last: int = await unit.fetchval(
        "insert into number_series (environment_id, name, last_number) values ($1, 'notification', 0)"
        " on conflict (environment_id, name) do update set last_number = number_series.last_number"
        " returning last_number",
        environment_id,
    )
    rows = await unit.fetch(
        "select n.*, a.metadata from notification n left join account a on a.id = n.account_id"
        " where n.environment_id = $1 and n.position is null order by n.id limit $2",
        environment_id,
        limit,
    )
    if not rows:
        return 0
    company = await _company(unit, environment_id)
    ids: list[int] = []
    bodies: list[str] = []
    deliveries: list[tuple[Any, ...]] = []
    for position, row in enumerate(rows, last + 1):
        ids.append(row["id"])
        bodies.append(_body(row, company, position))
        for webhook_id in _receivers(row, company):
            merges = row["topic"] == "balance_change" and company.webhooks[webhook_id]
            key = row["denomination"] if merges else None
            # Somebody waits for a trial: it goes before all that waits itself.
            due = now - AHEAD if row["topic"] == "webhook.test" else now
            deliveries.append((environment_id, webhook_id, position, "waiting", due, row["account_id"], key, now))
    await unit.execute(
        "update notification n set position = p.position, body = p.body"
        " from unnest($2::bigint[], $3::bigint[], $4::text[]) as p (id, position, body)"
        " where n.environment_id = $1 and n.id = p.id",
        environment_id,
        ids,
        list(range(last + 1, last + 1 + len(rows))),
        bodies,
    )
    await unit.execute(
        "update number_series set last_number = last_number + $2 where environment_id = $1 and name = 'notification'",
        environment_id,
        len(rows),
    )
    if deliveries:
        await unit.copy_records_to_table("delivery", records=deliveries, columns=_DELIVERY_COLUMNS)
    return len(rows)


_DELIVERY_COLUMNS: Final = (
    *("environment_id", "webhook_id", "position", "status", "next_attempt_at", "account_id", "merge_key", "created_at"),
)


async def _company(unit: Unit, environment_id: int) -> _Company:
    row = await unit.fetchrow(
        "select v.company_id, v.live, (select json_agg(json_build_array(w.id, w.merges)) from webhook w"
        "  where w.environment_id = v.id and w.deleted_at is null and w.url is not null) as webhooks,"
        " (select json_agg(json_build_array(h.webhook_id, h.topic, h.account_id, h.denomination, h.level))"
        "  from webhook_topic h where h.environment_id = v.id) as heard from environment v where v.id = $1",
        environment_id,
    )
    assert row is not None
    webhooks = dict(msgspec.json.decode(row["webhooks"] or "[]"))
    heard: dict[tuple[str, int | None], list[Heard]] = {}
    for one in (Heard(*columns) for columns in msgspec.json.decode(row["heard"] or "[]")):
        if one.webhook_id in webhooks:
            heard.setdefault((one.topic, one.account_id), []).append(one)
    return _Company(row["company_id"], row["live"], webhooks, heard)


def _receivers(row: Record, company: _Company) -> Sequence[int]:
    if row["topic"] == "webhook.test":
        only = msgspec.json.decode(row["data"])["number"]
        return [only] if only in company.webhooks else []
    found = {
        heard.webhook_id: None
        for topic in (row["topic"], EVERY_TOPIC)
        for account_id in dict.fromkeys((None, row["account_id"]))
        for heard in company.heard.get((topic, account_id), ())
        if wants(
            heard,
            topic=row["topic"],
            account_id=row["account_id"],
            denomination=row["denomination"],
            level=row["level"],
            by_rule=row["by_rule"],
        )
    }
    return list(found)


def _body(row: Record, company: _Company, position: int) -> str:
    data = msgspec.json.decode(row["data"], type=dict[str, msgspec.Raw])
    shown = {name: data[name] for name in TOPICS[row["topic"]].fields if name in data}
    notification = Notification(row["account_id"], row["topic"], shown, row["created_at"])
    metadata = None if row["metadata"] is None else msgspec.Raw(row["metadata"].encode())
    id = public_id(company.company_id, row["account_id"], position, live=company.live)
    return msgspec.json.encode(envelope(notification, id=id, company_id=company.company_id, metadata=metadata)).decode()


# --- delivering -------------------------------------------------------------------------------------------------------


class Attempt(NamedTuple):
    """A delivery that is due, with all that an attempt needs. ``password`` and the secrets are sealed."""

    environment_id: int
    webhook_id: int
    position: int
    attempts: int
    account_id: int | None
    body: str
    url: str
    username: str | None
    password: bytes | None
    secret: bytes
    old_secret: bytes | None
    company_id: int
    live: bool
    is_failing: bool

    @property
    def place(self) -> tuple[int, int, int]:
        """Which delivery it is."""
        return self.environment_id, self.webhook_id, self.position


async def next_attempts(
    unit: Unit,
    *,
    now: datetime,
    under_way: Sequence[tuple[int, int, int]],
    limit: int,
    failing: int,
    of_one: int = COMPANY_MAX,
) -> list[Attempt]:
    """Deliveries that are due at ``now`` (real time), of each company in its turn, its longest waiting first.

    Each webhook has at most so many under way as it allows, one while it fails; of those that fail come at most
    ``failing``, after the others, and of each company so many that it has ``of_one``. ``under_way`` are those that this
    process is delivering.
    """
    rows = await unit.fetch(
        _NEXT, now, [place[0] for place in under_way], [place[1] for place in under_way],
        [place[2] for place in under_way], limit, max(0, failing), of_one,
    )  # fmt: skip
    found: list[Attempt] = []
    merged: set[tuple[int, int, int]] = set()
    for row in rows:
        if (row["environment_id"], row["webhook_id"], row["position"]) in merged:
            continue
        body, position, old = row["body"], row["position"], row["old_secret"]
        if row["merge_key"] is not None and not row["attempts"]:
            others = await _merge(unit, row, under_way)
            if others:
                merged.update((row["environment_id"], row["webhook_id"], one["position"]) for one in others)
                position, body = others[-1]["position"], _merged_body(others)
                await _save_merged(unit, row, others, body, now)
        until = row["old_secret_until"]
        found.append(
            Attempt(
                row["environment_id"],
                row["webhook_id"],
                position,
                row["attempts"],
                row["account_id"],
                body,
                row["url"],
                row["username"],
                row["password"],
                row["secret"],
                old if until is not None and now < until else None,
                row["company_id"],
                row["live"],
                row["is_failing"],
            )
        )
    return found


# Of each webhook the index gives the longest waiting, already in order. Which go first is settled by turns: one of each
# company before a second of any, those under way counted, so that nobody's backlog keeps the others waiting. The texts
# are read only of what goes.
_NEXT: Final = """
with busy as (
    select environment_id, webhook_id, count(*) as count
    from unnest($2::integer[], $3::bigint[]) as b (environment_id, webhook_id) group by 1, 2
), due as (
    select d.*, w.failing_since is not null as is_failing
    from webhook w
    left join busy b on b.environment_id = w.environment_id and b.webhook_id = w.id
    cross join lateral (
        select t.environment_id, t.webhook_id, t.position, t.attempts, t.account_id, t.merge_key, t.next_attempt_at,
            t.body
        from delivery t
        where t.environment_id = w.environment_id and t.webhook_id = w.id and t.status = 'waiting'
            and t.next_attempt_at <= $1
            and not exists (
                select from unnest($2::integer[], $3::bigint[], $4::bigint[])
                    as u (environment_id, webhook_id, position)
                where u.environment_id = t.environment_id and u.webhook_id = t.webhook_id and u.position = t.position
            )
            and exists (
                select from notification n where n.environment_id = t.environment_id and n.position = t.position
            )
        order by t.next_attempt_at, t.position
        limit greatest(0, case when w.failing_since is null then w.in_flight else 1 end - coalesce(b.count, 0))
    ) d
    where w.url is not null and w.paused_at is null and w.deleted_at is null
), shared as (
    select d.*, coalesce(b.count, 0)
        + row_number() over (partition by d.environment_id, is_failing order by d.next_attempt_at, d.position) as share
    from due d left join (select environment_id, sum(count) as count from busy group by 1) b using (environment_id)
), found as (
    select s.*, row_number() over (partition by is_failing order by share, next_attempt_at, position) as turn
    from shared s where share <= $7
), chosen as (
    select * from found where turn <= $6 or not is_failing order by is_failing, turn limit $5
)
select c.environment_id, c.webhook_id, c.position, c.attempts, c.account_id, c.merge_key, c.is_failing,
    coalesce(c.body, n.body) as body, w.url, w.username, w.password, w.secret, w.old_secret, w.old_secret_until,
    v.company_id, v.live
from chosen c
join webhook w on w.environment_id = c.environment_id and w.id = c.webhook_id
join environment v on v.id = c.environment_id
join notification n on n.environment_id = c.environment_id and n.position = c.position
order by c.is_failing, c.turn
"""


async def _merge(unit: Unit, row: Record, under_way: Sequence[tuple[int, int, int]]) -> list[Record]:
    """The changes of one balance that wait together and were never sent, from ``row`` on, if there are others."""
    rows: list[Record] = await unit.fetch(
        "select t.position, n.sequence, n.body from delivery t"
        " join notification n on n.environment_id = t.environment_id and n.position = t.position"
        " where t.environment_id = $1 and t.webhook_id = $2 and t.account_id = $3 and t.merge_key = $4"
        " and t.status = 'waiting' and t.attempts = 0 and t.position >= $5 and t.position <> all($6)"
        " order by t.position limit 10000",
        row["environment_id"],
        row["webhook_id"],
        row["account_id"],
        row["merge_key"],
        row["position"],  # those before it are under way
        [position for *webhook, position in under_way if webhook == [row["environment_id"], row["webhook_id"]]],
    )
    return rows if len(rows) > 1 else []


def _merged_body(others: Sequence[Record]) -> str:
    """The last change, speaking for all of them: from what the first one found to what it left."""
    first = msgspec.json.decode(others[0]["body"])["data"]
    last = msgspec.json.decode(others[-1]["body"], type=dict[str, msgspec.Raw])
    # What is not changed stays as it was spelled, metadata above all.
    data: dict[str, object] = dict(msgspec.json.decode(last["data"], type=dict[str, msgspec.Raw]))
    amount = msgspec.json.decode(others[-1]["body"])["data"]["amount"]
    data["previous_amount"], data["change"] = first["previous_amount"], amount - first["previous_amount"]
    data["merged_from_sequence"] = first["sequence"]
    return msgspec.json.encode({**last, "data": data}).decode()


async def _save_merged(unit: Unit, row: Record, others: Sequence[Record], body: str, now: datetime) -> None:
    """Say of the earlier changes that the last one speaks for them; it keeps what it says, for every attempt."""
    last = others[-1]["position"]
    await unit.execute(
        "update delivery set status = case when position = $4 then status else 'merged' end,"
        " merged_into = case when position = $4 then null else $4 end,"
        " finished_at = case when position = $4 then null else $6::timestamptz end,"
        " body = case when position = $4 then $5 end, merge_key = null"
        " where environment_id = $1 and webhook_id = $2 and position = any($3)",
        row["environment_id"],
        row["webhook_id"],
        [one["position"] for one in others],
        last,
        body,
        now,
    )


class Ended(NamedTuple):
    """How an attempt ended. ``next_attempt_at`` None: it was the last one, whether it succeeded or not."""

    place: tuple[int, int, int]
    is_taken: bool
    next_attempt_at: datetime | None
    log: Mapping[str, object]


async def save_ended(unit: Unit, ended: Sequence[Ended], now: datetime) -> list[Record]:
    """Write down how attempts ended; the webhooks that fail since, with the moment since which they do.

    What was replayed or taken away meanwhile keeps its new state, but for the log.
    """
    if not ended:
        return []
    failing: list[Record] = await unit.fetch(
        _SAVE_ENDED,
        [one.place[0] for one in ended],
        [one.place[1] for one in ended],
        [one.place[2] for one in ended],
        [one.is_taken for one in ended],
        [one.next_attempt_at for one in ended],
        [msgspec.json.encode(one.log).decode() for one in ended],
        now,
    )
    return failing


# A success clears what a failure before it began; only a webhook whose state changes is written.
_SAVE_ENDED: Final = """
with e as (
    select * from unnest($1::integer[], $2::bigint[], $3::bigint[], $4::boolean[], $5::timestamptz[], $6::text[])
        as e (environment_id, webhook_id, position, is_taken, next_attempt_at, log)
), saved as (
    update delivery d
    set attempts = d.attempts + 1,
        status = case when e.is_taken then 'delivered' when e.next_attempt_at is null then 'failed' else 'waiting' end,
        next_attempt_at = coalesce(e.next_attempt_at, d.next_attempt_at),
        finished_at = case when e.is_taken or e.next_attempt_at is null then $7::timestamptz end,
        -- The last fifty attempts: one that is asked for again and again must not grow without end.
        log = (case when json_array_length(d.log) >= 50 then d.log::jsonb - 0
            else coalesce(d.log::jsonb, '[]') end || e.log::jsonb)::json,
        merge_key = null
    from e
    where d.environment_id = e.environment_id and d.webhook_id = e.webhook_id and d.position = e.position
        and d.status = 'waiting'
), said as (
    select environment_id, webhook_id, bool_or(is_taken) as is_taken from e group by 1, 2
), changed as (
    update webhook w set failing_since = case when said.is_taken then null else $7 end
    from said
    where w.environment_id = said.environment_id and w.id = said.webhook_id
        and (w.failing_since is not null) = said.is_taken
)
select w.environment_id, w.id, w.url, coalesce(w.failing_since, $7) as failing_since
from webhook w join said on w.environment_id = said.environment_id and w.id = said.webhook_id
where not said.is_taken and w.paused_at is null and w.deleted_at is null
"""


async def count_waiting(reader: Reader, environment_id: int, webhook_id: int) -> int:
    """How many deliveries wait for a webhook."""
    found: int = await reader.fetchval(
        "select count(*) from delivery where environment_id = $1 and webhook_id = $2 and status = 'waiting'",
        environment_id,
        webhook_id,
    )
    return found


# --- looking back -----------------------------------------------------------------------------------------------------


class Logged(NamedTuple):
    """A delivery with what it delivers, as it is shown. ``log`` are its attempts, the first one first."""

    position: int
    topic: str
    account_id: int | None
    status: str
    attempts: int
    next_attempt_at: datetime
    merged_into: int | None
    created_at: datetime
    finished_at: datetime | None
    body: str
    log: str | None


_LOGGED: Final = (
    "select t.position, n.topic, t.account_id, t.status, t.attempts, t.next_attempt_at, t.merged_into, t.created_at,"
    " t.finished_at, coalesce(t.body, n.body) as body, t.log from delivery t"
    " join notification n on n.environment_id = t.environment_id and n.position = t.position"
    " where t.environment_id = $1 and t.webhook_id = $2"
)


async def list_deliveries(
    reader: Reader,
    environment_id: int,
    webhook_id: int,
    *,
    before: int | None,
    limit: int,
    filters: Mapping[str, object],
) -> list[Logged]:
    """Deliveries to a webhook, the newest first. ``filters``: status, topic, account_id."""
    arguments: list[object] = [environment_id, webhook_id, before or 2**62, limit]
    where = ""
    for name, column in (("status", "t.status"), ("topic", "n.topic"), ("account_id", "t.account_id")):
        if name in filters:
            arguments.append(filters[name])
            where += f" and {column} = ${len(arguments)}"
    rows = await reader.fetch(f"{_LOGGED} and t.position < $3{where} order by t.position desc limit $4", *arguments)
    return [Logged(*row) for row in rows]


async def read_delivery(reader: Reader, environment_id: int, webhook_id: int, position: int) -> Logged | None:
    """One delivery."""
    row = await reader.fetchrow(f"{_LOGGED} and t.position = $3", environment_id, webhook_id, position)
    return None if row is None else Logged(*row)


class Published(NamedTuple):
    """A notification in the log of its half of the company: its place and its text."""

    position: int
    body: str


async def list_notifications(
    reader: Reader, environment_id: int, *, after: int, limit: int, filters: Mapping[str, object]
) -> list[Published]:
    """The log of a half of a company from a place on, oldest first. ``filters``: topic, account_id, denomination."""
    arguments: list[object] = [environment_id, after, limit]
    where = ""
    for name in ("topic", "account_id", "denomination"):
        if name in filters:
            arguments.append(filters[name])
            where += f" and {name} = ${len(arguments)}"
    rows = await reader.fetch(
        f"select position, body from notification where environment_id = $1 and position > $2{where}"
        " order by position limit $3",
        *arguments,
    )
    return [Published(*row) for row in rows]


async def send_again(
    unit: Unit, environment_id: int, webhook_id: int, *, since: int, until: int, status: str | None, now: datetime
) -> int:
    """Let deliveries of a range of places be made once more, from the first attempt on; how many.

    ``status`` None takes all but those that wait already, and those that another one speaks for.
    """
    done: str = await unit.execute(
        "update delivery set status = 'waiting', attempts = 0, next_attempt_at = $5, finished_at = null"
        " where environment_id = $1 and webhook_id = $2 and position between $3 and $4"
        " and status = any($6)",
        environment_id,
        webhook_id,
        since,
        until,
        now,
        ["delivered", "failed"] if status is None else [status],
    )
    return int(done.rpartition(" ")[2])


async def wake(unit: Unit, environment_id: int, webhook_id: int, now: datetime) -> None:
    """Let everything that waits for a webhook be tried now."""
    await unit.execute(
        "update delivery set next_attempt_at = $3 where environment_id = $1 and webhook_id = $2"
        " and status = 'waiting' and next_attempt_at > $3",
        environment_id,
        webhook_id,
        now,
    )


async def forget(unit: Unit, before: datetime, limit: int) -> int:
    """Delete deliveries from before a moment, and notifications that no delivery can need any more; how many."""
    deliveries: str = await unit.execute(
        "delete from delivery where (environment_id, webhook_id, position) in"
        " (select environment_id, webhook_id, position from delivery where created_at < $1 limit $2)",
        before,
        limit,
    )
    notifications: str = await unit.execute(
        "delete from notification where (environment_id, id) in (select environment_id, id from notification"
        " where created_at < $1 and position is not null limit $2)",
        before - PUBLISHED_LATE,
        limit,
    )
    return int(deliveries.rpartition(" ")[2]) + int(notifications.rpartition(" ")[2])
