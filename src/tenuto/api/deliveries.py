"""The log of what happened, and of how it was delivered. Sources: contract 2.6, 3.9."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tenuto.core.identifiers import read_of_account, spell
from tenuto.core.notification import public_id
from tenuto.core.outcomes import Refusal, invalid
from tenuto.engine import Answer
from tenuto.service import webhooks as service
from tenuto.store import deliveries as store
from tenuto.store import webhooks
from tenuto.store.database import Unit
from tenuto.store.deliveries import Logged, Published
from tenuto.store.records import owns_account

from . import body as bodies
from . import shapes
from .routes import PAGING, Call, Param, Route
from .usage import page_of

MESSAGE_MAX: Final = 500
_END: Final = 2**62
STATUSES: Final = ("waiting", "delivered", "failed", "merged")


class TestIn(msgspec.Struct, forbid_unknown_fields=True):
    """A trial."""

    message: str = "A trial from Tenuto."


class ReplayIn(msgspec.Struct, forbid_unknown_fields=True):
    """What to send again: from one notification to another, both included, of one status or of all."""

    from_id: str | None = None
    to_id: str | None = None
    status: str | None = None


class AttemptOut(shapes.Shape):
    """One request and its answer: ``error`` says what went wrong, ``answer`` is the beginning of the body."""

    at: str
    url: str
    status: int | None
    error: str | None
    ms: int
    answer: str


class DeliveryOut(shapes.Shape):
    """A notification on its way to one webhook. ``merged_into``: the later change that speaks for this one."""

    id: str
    webhook_id: str
    topic: str
    account_id: str | None
    status: str
    attempt_count: int
    last_status: int | None
    last_error: str | None
    next_attempt_at: str | None
    merged_into: str | None
    created_at: str | None
    finished_at: str | None


class DeliveryWholeOut(DeliveryOut):
    """A delivery with what was sent and every attempt."""

    body: msgspec.Raw
    attempts: list[AttemptOut]


class ReplayOut(shapes.Shape):
    """How many deliveries are made again."""

    count: int


class NotificationOut(shapes.Shape):
    """A fact, as it is sent to webhooks."""

    id: str
    topic: str
    company_id: str
    account_id: str | None
    created_at: str
    data: dict[str, Any]


def _place(call: Call, text: str, path: str | None) -> tuple[int, int]:
    """Whose a notification of this half is, and its place in the log. Raises Refusal naming ``path``, or not_found."""
    found = read_of_account("wd", text)
    if found is None or found[1] % 2 != call.environment.live:
        if path is None:
            raise Refusal("not_found")
        raise invalid(path, "is the id of a notification of this company.")
    return found[0], found[1] // 2


async def _known_place(call: Call, text: str, path: str) -> int:
    """The place in the log of a notification of this half, given in a body or query. Raises Refusal naming ``path``."""
    owner, position = _place(call, text, path)
    if owner != call.environment.company_id:
        async with call.engine.database.reading() as reader:
            if not await owns_account(reader, call.environment.id, owner):
                raise invalid(path, "is the id of a notification of this company.")
    return position


def _id(call: Call, account_id: int | None, position: int) -> str:
    environment = call.environment
    return public_id(environment.company_id, account_id, position, live=environment.live)


def _fields(call: Call, webhook_id: int, row: Logged) -> dict[str, Any]:
    attempts = msgspec.json.decode(row.log or "[]")
    last = attempts[-1] if attempts else {}
    return {
        "id": _id(call, row.account_id, row.position),
        "webhook_id": spell("w", webhook_id),
        "topic": row.topic,
        "account_id": None if row.account_id is None else spell("a", row.account_id),
        "status": row.status,
        "attempt_count": row.attempts,
        "last_status": last.get("status"),
        "last_error": last.get("error"),
        "next_attempt_at": bodies.spelled(row.next_attempt_at) if row.status == "waiting" else None,
        "merged_into": None if row.merged_into is None else _id(call, row.account_id, row.merged_into),
        "created_at": bodies.spelled(row.created_at),
        "finished_at": bodies.spelled(row.finished_at),
    }


async def _webhook_id(call: Call) -> int:
    call.company()
    webhook_id = call.id("w", "webhook_id")
    async with call.engine.database.reading() as reader:
        if await webhooks.read_webhook(reader, call.environment.id, webhook_id) is None:
            raise Refusal("not_found")
    return webhook_id


async def list_logs(call: Call) -> Answer:
    """Deliveries to a webhook, the newest first."""
    webhook_id, after = await _webhook_id(call), call.after(1)
    async with call.engine.database.reading() as reader:
        found = await store.list_deliveries(
            reader,
            call.environment.id,
            webhook_id,
            before=None if after is None else after[0],
            limit=call.limit() + 1,
            filters=call.filters(),
        )
    return page_of(call, found, lambda row: (row.position,), lambda row: DeliveryOut(**_fields(call, webhook_id, row)))


async def get_log(call: Call) -> Answer:
    """One delivery, with what was sent and every answer."""
    webhook_id, (owner, position) = await _webhook_id(call), _place(call, call.params["notification_id"], None)
    async with call.engine.database.reading() as reader:
        row = await store.read_delivery(reader, call.environment.id, webhook_id, position)
    if row is None or owner != (row.account_id or call.environment.company_id):
        raise Refusal("not_found")
    attempts = [AttemptOut(**attempt) for attempt in msgspec.json.decode(row.log or "[]")]
    fields = _fields(call, webhook_id, row)
    return Answer(
        200, shapes.wrapped(DeliveryWholeOut(**fields, body=msgspec.Raw(row.body.encode()), attempts=attempts))
    )


async def replay_one(call: Call) -> Answer:
    """Send one notification to a webhook once more."""
    call.company()
    webhook_id, (owner, position) = call.id("w", "webhook_id"), _place(call, call.params["notification_id"], None)

    async def verb(unit: Unit) -> int:
        row = await store.read_delivery(unit, call.environment.id, webhook_id, position)
        if row is None or owner != (row.account_id or call.environment.company_id):
            raise Refusal("not_found")
        done = await service.send_again(
            call.engine, unit, call.environment, webhook_id, since=position, until=position, status=None
        )
        if not done:
            raise Refusal("not_found", "Nothing of it was sent to this webhook, or it is on its way already.")
        return done

    return await call.once(verb, lambda count: shapes.wrapped(ReplayOut(count)))


async def replay(call: Call) -> Answer:
    """Send a range of notifications, or all failed ones, once more."""
    call.company()
    webhook_id, given = call.id("w", "webhook_id"), call.decoded(ReplayIn)
    if given.status not in {None, "failed", "delivered"}:
        raise invalid("status", "is failed or delivered.")
    if given.from_id is None and given.to_id is None and given.status is None:
        raise invalid("from_id", "say from where to where, or which status.", "missing_field")
    since = 0 if given.from_id is None else await _known_place(call, given.from_id, "from_id")
    until = _END if given.to_id is None else await _known_place(call, given.to_id, "to_id")

    async def verb(unit: Unit) -> int:
        return await service.send_again(
            call.engine, unit, call.environment, webhook_id, since=since, until=until, status=given.status
        )

    return await call.once(verb, lambda count: shapes.wrapped(ReplayOut(count)))


async def send_test(call: Call) -> Answer:
    """Send a trial to a webhook; its log shows what became of it."""
    call.company()
    webhook_id = call.id("w", "webhook_id")
    given = call.decoded(TestIn) if call.body else TestIn()
    message = bodies.text(given.message, "message", MESSAGE_MAX)

    async def verb(unit: Unit) -> int:
        await service.send_test(call.engine, unit, call.environment, webhook_id, message)
        return 1

    return await call.once(verb, lambda count: shapes.wrapped(ReplayOut(count)))


async def list_notifications(call: Call) -> Answer:
    """What happened, the oldest first, for those who rather ask than be called."""
    call.company()
    filters, position = call.filters(), call.after(1)
    after = 0 if position is None else position[0]
    given = filters.pop("after", None)
    if given is not None and position is None:
        after = await _known_place(call, str(given), "after")
    async with call.engine.database.reading() as reader:
        found = await store.list_notifications(
            reader, call.environment.id, after=after, limit=call.limit() + 1, filters=filters
        )

    def shown(row: Published) -> msgspec.Raw:
        return msgspec.Raw(row.body.encode())

    return page_of(call, found, lambda row: (row.position,), shown)


_ONE: Final = "/companies/{company_id}/webhooks/{webhook_id}"

ROUTES: Final = (
    Route(
        "GET",
        _ONE + "/logs",
        list_logs,
        "List deliveries to a webhook",
        "Webhooks",
        DeliveryOut,
        scope="company:read",
        query=(
            *PAGING,
            Param("status", "|".join(STATUSES), "Only deliveries in this state."),
            Param("topic", "text", "Only this topic."),
            Param("account_id", "account_id", "Only what is about this account."),
        ),
        is_list=True,
        refusals=("invalid_cursor",),
    ),
    Route(
        "GET",
        _ONE + "/logs/{notification_id}",
        get_log,
        "Read a delivery",
        "Webhooks",
        DeliveryWholeOut,
        scope="company:read",
    ),
    Route(
        "POST",
        _ONE + "/logs/{notification_id}/replay",
        replay_one,
        "Deliver a notification again",
        "Webhooks",
        ReplayOut,
        scope="company:write",
    ),
    Route(
        "POST",
        _ONE + "/replay",
        replay,
        "Deliver a range, or all that failed, again",
        "Webhooks",
        ReplayOut,
        scope="company:write",
        body=ReplayIn,
        example={"status": "failed"},
    ),
    Route(
        "POST",
        _ONE + "/test",
        send_test,
        "Send a trial",
        "Webhooks",
        ReplayOut,
        scope="company:write",
        body=TestIn,
        example={"message": "Can you hear me?"},
    ),
    Route(
        "GET",
        "/companies/{company_id}/notifications",
        list_notifications,
        "List notifications",
        "Webhooks",
        NotificationOut,
        scope="company:read",
        query=(
            *PAGING,
            Param("after", "text", "The id of the last notification that is known: the list goes on after it."),
            Param("topic", "text", "Only this topic."),
            Param("account_id", "account_id", "Only what is about this account."),
            Param("denomination", "text", "Only what is about this balance."),
        ),
        is_list=True,
        refusals=("invalid_cursor",),
        details="Oldest first. Whoever cannot receive calls asks again and again, with `after` the last id that came.",
    ),
)
