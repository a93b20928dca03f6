"""Settings: what was sent to a webhook, what it answered, and sending it again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from litestar import Response

from tenuto.core.outcomes import invalid
from tenuto.core.topic import TOPICS

from .forms import read_moment
from .frame import Page, Visit
from .tables import Column, Listing, answer
from .webhooks import AT, ONE

STATUSES: Final = ("waiting", "delivered", "failed", "merged")
ERRORS: Final[Mapping[str, str]] = {
    "blocked_address": "The address is not public, so nothing was sent.",
    "dns": "There is no host of this name.",
    "connect_timeout": "The host did not take the connection in time.",
    "connect": "The host did not take the connection.",
    "tls": "The connection was not secure: its certificate, or how it began, is wrong.",
    "disconnected": "The connection ended before the answer did.",
    "timeout": "The answer did not come in time.",
    "bad_answer": "What came back is no answer of HTTP.",
    "too_large": "The answer was too long.",
    "closed": "We stopped before the answer came.",
    "secret": "The secret cannot be read any more: the master key has changed. Change the secret.",
    "fault": "The request could not be made, by a fault of ours.",
}
"""Why there is no answer, in words, by the codes of the API (docs/guides/webhooks.md)."""
PAGE_ROWS: Final = 1000
LOOK_PAGES: Final = 100
"""How far back a moment is looked for: so many pages of deliveries that failed."""


def _listing(webhook_id: str) -> Listing:
    """The deliveries to one webhook. They lead to what was sent and what was answered."""
    return Listing(
        name="deliveries",
        path=ONE + "/logs",
        columns=(
            Column("id", "Notification", "code"),
            Column("created_at", "When", "moment"),
            Column("topic", "Topic", filter="topic", choices=tuple(TOPICS)),
            Column("status", "State", "badge", filter="status", choices=STATUSES),
            Column("account_id", "Account", "code", filter="account_id", link=_account),
            Column("attempt_count", "Attempts", "number"),
            Column("last_status", "Answer"),
            Column("last_error", "Error"),
        ),
        empty="Nothing was sent to this webhook yet.",
        hint="Send a trial, or let it hear a topic and wait for it.",
        anchor=lambda row: f"{AT}/{webhook_id}/logs/{row['id']}",
    )


def _account(row: Mapping[str, Any]) -> str:
    return f"/control/accounts/{row['account_id']}" if row["account_id"] else ""


async def logs(visit: Visit) -> Response[Any]:
    """What was sent to one webhook, the newest first."""
    webhook_id = visit.param("webhook_id")
    found = await visit.get(ONE, webhook_id=webhook_id)
    return await answer(visit, _listing(webhook_id), "webhook_logs.html", {"webhook": found}, webhook_id=webhook_id)


async def delivery(visit: Visit) -> Response[Any]:
    """One delivery: its body, and the answer to every attempt."""
    webhook_id, notification_id = visit.param("webhook_id"), visit.param("notification_id")
    found = await visit.get(ONE + "/logs/{notification_id}", webhook_id=webhook_id, notification_id=notification_id)
    return visit.page(
        "webhook_delivery.html",
        delivery=found,
        webhook_id=webhook_id,
        errors=ERRORS,
        body=msgspec.json.format(msgspec.json.encode(found["body"]), indent=2).decode(),
    )


async def replay_one(visit: Visit) -> Response[Any]:
    """Send one notification once more."""
    webhook_id, notification_id = visit.param("webhook_id"), visit.param("notification_id")
    await visit.do(
        "POST",
        ONE + "/logs/{notification_id}/replay",
        webhook_id=webhook_id,
        notification_id=notification_id,
    )
    return visit.go(f"{AT}/{webhook_id}/logs/{notification_id}", "It is on its way once more.")


async def replay(visit: Visit) -> Response[Any]:
    """Send all that failed once more, or all that failed since a moment."""
    webhook_id, since = visit.param("webhook_id"), visit.field("since")
    body: dict[str, Any] = {"status": "failed"}
    if since:
        moment = datetime.fromisoformat(read_moment(since, visit.environment.zone_name, "since"))
        first = await _first_failed(visit, webhook_id, moment)
        if first is None:
            return visit.go(f"{AT}/{webhook_id}/logs", "Nothing has failed since then.")
        body["from_id"] = first
    done = await visit.do("POST", ONE + "/replay", body, webhook_id=webhook_id)
    count = done["count"]
    if not count:
        return visit.go(f"{AT}/{webhook_id}/logs", "Nothing has failed, so nothing is sent again.")
    return visit.go(f"{AT}/{webhook_id}/logs", f"{count} {'is' if count == 1 else 'are'} on the way once more.")


async def _first_failed(visit: Visit, webhook_id: str, since: datetime) -> str | None:
    """The oldest notification that failed and is no older than ``since``. Raises Refusal where that is too far back."""
    cursor: str | None = None
    first: str | None = None
    for _ in range(LOOK_PAGES):
        query = {"status": "failed", "limit": str(PAGE_ROWS), **({"cursor": cursor} if cursor else {})}
        found = await visit.rows(ONE + "/logs", query=query, webhook_id=webhook_id)
        for row in found.rows:
            if datetime.fromisoformat(row["created_at"]) < since:
                return first
            first = row["id"]
        cursor = found.next_cursor
        if cursor is None:
            return first
    raise invalid("since", "too much has failed since then; send all that failed again.")


PAGES: Final = (
    Page("GET", f"{AT}/{{webhook_id}}/logs", logs, "company:read"),
    Page("POST", f"{AT}/{{webhook_id}}/replay", replay, "company:write"),
    Page("GET", f"{AT}/{{webhook_id}}/logs/{{notification_id}}", delivery, "company:read"),
    Page("POST", f"{AT}/{{webhook_id}}/logs/{{notification_id}}/replay", replay_one, "company:write"),
)
