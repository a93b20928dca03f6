"""What stands still: of one account, and of a whole half of a company; and what becomes of what waited meanwhile.

The problem, on one example. Usage was suspended at noon because a price was wrong; three events wait. Two are to be
billed, one was a trial run: it is ticked and voided, then usage goes on and the rest is replayed. Captures go likewise:
what was skipped is ticked to be processed or voided, or all of it is settled when captures go on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

from litestar import Response

from tenuto.core.outcomes import Refusal, invalid

from . import account_head
from .frame import Page, Rows, Visit

TICKED_MAX: Final = 100
"""The most rows of a table that can be ticked at once: what one page shows."""


class Control(NamedTuple):
    """One thing that can be done about what stands still: its route, what it needs, and what is said afterwards."""

    route: str
    scope: str
    said: str
    takes_reason: bool = True


OF_ACCOUNT: Final[Mapping[str, Control]] = {
    "pause": Control("pause", "accounts:write", "The account is paused."),
    "resume": Control("resume", "accounts:write", "The account goes on."),
    "credit_block": Control("credit_block", "accounts:write", "Credit is blocked."),
    "credit_unblock": Control("credit_unblock", "accounts:write", "Credit is given again."),
    "suspend_usage": Control("suspend_usage", "accounts:write", "Usage is suspended: events are kept aside."),
    "resume_usage": Control("resume_usage", "accounts:write", "Usage goes on."),
    "suspend_capture": Control("suspend_capture", "payments:write", "Captures are suspended.", takes_reason=False),
}
OF_COMPANY: Final[Mapping[str, Control]] = {
    "pause": Control("pause", "company:write", "All accounts are paused."),
    "resume": Control("resume", "company:write", "All accounts go on that are not paused by themselves."),
    "suspend_usage": Control("suspend_usage", "company:write", "Usage is suspended: all events are kept aside."),
    "resume_usage": Control("resume_usage", "company:write", "Usage goes on."),
    "suspend_capture": Control("suspend_capture", "payments:write", "Captures are suspended.", takes_reason=False),
}
CAPTURES_GO_ON: Final = Control("resume_capture", "payments:write", "Captures go on.", takes_reason=False)
"""Stands by itself, for it charges cards, so it asks for the password; what stops something must not."""


def _asked(visit: Visit, control: Control) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if control.takes_reason and visit.field("reason"):
        body["reason"] = visit.field("reason")
    if control.route == "resume_usage":
        body["queued"] = visit.field("queued") or "replay"
    if control.route == "resume_capture":
        body["skipped"] = visit.field("skipped") or "process"
    return body


def _control(visit: Visit, known: Mapping[str, Control]) -> Control:
    found = known.get(visit.field("action"))
    if found is None:
        raise invalid("action", f"is one of {', '.join(known)}.")
    visit.needs(found.scope)
    return found


async def _do(visit: Visit, control: Control, whose: str, **params: Any) -> Any:
    body = _asked(visit, control)
    # A route without a body takes none at all.
    return await visit.do("POST", f"{whose}/{control.route}", body or None, **params)


# --- one account ------------------------------------------------------------------------------------------------------


async def account_pauses(visit: Visit) -> Response[Any]:
    """What of an account stands still, and how to let it go on."""
    return visit.page("engine_account.html", account=await account_head.head(visit))


async def change_account(visit: Visit) -> Response[Any]:
    """Stop a part of an account, or let it go on."""
    account_id = visit.param("account_id")
    control = _control(visit, OF_ACCOUNT)
    await _do(visit, control, "/accounts/{account_id}", account_id=account_id)
    return visit.go(f"/control/accounts/{account_id}/pauses", control.said)


async def resume_captures(visit: Visit) -> Response[Any]:
    """Let the captures of an account go on, with those that were skipped or without."""
    account_id = visit.param("account_id")
    await _do(visit, CAPTURES_GO_ON, "/accounts/{account_id}", account_id=account_id)
    return visit.go(f"/control/accounts/{account_id}/pauses", CAPTURES_GO_ON.said)


# --- the whole half ---------------------------------------------------------------------------------------------------


async def engine(visit: Visit) -> Response[Any]:
    """What of the whole half stands still, the events that wait, and the captures that were skipped."""
    account_id = visit.query.get("account_id", "")
    pauses = await visit.get("/companies/{company_id}/pauses")
    account = await visit.get("/accounts/{account_id}", account_id=account_id) if account_id else None
    return visit.page(
        "engine.html",
        pauses=pauses,
        account=account,
        waiting=await _listed(visit, "events", "events:read", {"state": "suspended"}),
        skipped=await _listed(visit, "payments", "payments:read", {"status": "skipped"}),
    )


async def _listed(visit: Visit, name: str, scope: str, query: Mapping[str, str]) -> Rows:
    """A part of what waits, of all accounts or of the one that the address names."""
    if not visit.may(scope):
        return Rows([], None)
    account_id, cursor = visit.query.get("account_id", ""), visit.query.get(f"{name}_cursor", "")
    asked = {**query, "limit": str(TICKED_MAX), **({"cursor": cursor} if cursor else {})}
    if account_id:
        return await visit.rows(f"/accounts/{{account_id}}/{name}", query=asked, account_id=account_id)
    return await visit.rows(f"/companies/{{company_id}}/{name}", query=asked)


async def change_engine(visit: Visit) -> Response[Any]:
    """Stop a part of the whole half, or let it go on."""
    control = _control(visit, OF_COMPANY)
    await _do(visit, control, "/companies/{company_id}")
    return visit.go("/control/engine", control.said)


async def resume_all_captures(visit: Visit) -> Response[Any]:
    """Let the captures of the whole half go on, with those that were skipped or without."""
    await _do(visit, CAPTURES_GO_ON, "/companies/{company_id}")
    return visit.go("/control/engine", CAPTURES_GO_ON.said)


async def settle_events(visit: Visit) -> Response[Any]:
    """Bill or void the waiting events that are ticked, one by one."""

    async def one(event_id: str) -> None:
        if visit.field("action") == "void":
            await visit.do("DELETE", "/events/{event_id}", part=event_id, event_id=event_id)
        else:
            await visit.do("POST", "/events/{event_id}/replay", part=event_id, event_id=event_id)

    return await _each(visit, one, "voided" if visit.field("action") == "void" else "replayed")


async def settle_payments(visit: Visit) -> Response[Any]:
    """Process or void the skipped captures that are ticked, one by one."""
    verb = "void" if visit.field("action") == "void" else "retry"

    async def one(payment_id: str) -> None:
        await visit.do("POST", f"/payments/{{payment_id}}/{verb}", part=payment_id, payment_id=payment_id)

    return await _each(visit, one, "voided" if verb == "void" else "processed")


async def _each(visit: Visit, one: Callable[[str], Awaitable[None]], done: str) -> Response[Any]:
    ticked = visit.fields("ticked")
    if not ticked:
        raise invalid("ticked", "tick at least one row.")
    if len(ticked) > TICKED_MAX:
        raise invalid("ticked", f"takes at most {TICKED_MAX} rows.")
    failed: list[Refusal] = []
    for row in ticked:
        try:
            await one(row)
        except Refusal as refusal:
            failed.append(refusal)
    note = f"{len(ticked) - len(failed)} of {len(ticked)} {done}."
    if failed:
        note = f"{note} {failed[0].message}"
    return visit.go(visit.came_from(), note, is_bad=bool(failed))


PAGES: Final = (
    Page("GET", "/control/accounts/{account_id}/pauses", account_pauses, "accounts:read"),
    Page("POST", "/control/accounts/{account_id}/pauses", change_account),
    Page(
        "POST",
        "/control/accounts/{account_id}/pauses/captures",
        resume_captures,
        CAPTURES_GO_ON.scope,
        fresh=True,
    ),
    Page("GET", "/control/engine", engine, "company:read"),
    Page("POST", "/control/engine", change_engine),
    Page("POST", "/control/engine/captures", resume_all_captures, CAPTURES_GO_ON.scope, fresh=True),
    Page("POST", "/control/engine/events", settle_events, "events:write"),
    Page("POST", "/control/engine/payments", settle_payments, "payments:write", fresh=True),
)
