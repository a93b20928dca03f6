"""What every page of an account begins with: who it is, what of it stands still since when and by whom, its tabs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from tenuto.core.topic import BLOCKED_FLAG, PAUSED_FLAG, SUSPENDED_FLAG

from .frame import Visit

_TABS: Final = (
    ("", "Overview", "accounts:read"),
    ("events", "Events", "events:read"),
    ("transactions", "Transactions", "balances:read"),
    ("payments", "Payments", "payments:read"),
    ("invoices", "Invoices", "invoices:read"),
    ("flags", "Flags", "accounts:read"),
    ("pauses", "Pause controls", "accounts:read"),
    ("admin", "Admin", "accounts:read"),
)
"""The end of a tab's address, its label, and the scope it needs."""

_ACTORS: Final = {
    "dunning": "by dunning, because an invoice is overdue",
    "level": "by a level of credit that was passed",
    "plan": "by its plan, whose renewal was refused",
}
"""Who blocks or pauses when nobody does it by hand."""


class Banner(NamedTuple):
    """Something that stands still: since when and by whom, as far as it is known, why, and what that means."""

    tone: str
    title: str
    at: str | None
    by: str
    reason: str
    text: str


class Pause(NamedTuple):
    """A way for an account to stand still: the field that says so, its flag, how it is told, and what it means."""

    field: str
    flag: str
    tone: str
    title: str
    text: str


_PAUSES: Final = (
    Pause("paused", PAUSED_FLAG, "bad", "This account is paused.", "Its events are refused."),
    Pause("credit_blocked", BLOCKED_FLAG, "bad", "Credit is blocked.", "Events that need credit are refused."),
    Pause("usage_suspended", SUSPENDED_FLAG, "slow", "Usage is suspended.", ""),
)


async def head(visit: Visit) -> dict[str, Any]:
    """The account of the page's address, as ``account_head.html`` shows it. Raises Refusal ``not_found``."""
    account: dict[str, Any] = await visit.get("/accounts/{account_id}", account_id=visit.param("account_id"))
    tabs = [(name, label) for name, label, scope in _TABS if visit.may(scope)]
    banners = [*await _of_company(visit), *await _of_account(visit, account)]
    return {**account, "banners": banners, "tabs": tabs}


async def _of_account(visit: Visit, account: Mapping[str, Any]) -> list[Banner]:
    """What of this account alone stands still."""
    found = [await _banner(visit, account, pause) for pause in _PAUSES if account[pause.field]]
    if account["events_waiting"] and not account["usage_suspended"]:
        text = f"Events that wait to be billed: {account['events_waiting']}."
        title = "Events that waited are being billed." if account["replaying"] else "Events are kept aside."
        found.append(Banner("slow", title, None, "", "", text))
    if account["capture_suspended"]:
        text = "Cards are not charged by themselves; what falls due is skipped until captures resume."
        found.append(Banner("slow", "Capture is suspended.", None, "", "", text))
    return found


async def _banner(visit: Visit, account: Mapping[str, Any], pause: Pause) -> Banner:
    """The last change of the pause's flag says who did it and why."""
    path, query = "/accounts/{account_id}/flags/{name}/history", {"limit": "1"}
    changes = (await visit.rows(path, query=query, account_id=account["id"], name=pause.flag)).rows
    last: Mapping[str, Any] = changes[0] if changes else {}
    cause = account.get(f"{pause.field}_by") or ""
    actor, reason = last.get("actor"), last.get("reason") or ""
    by = _ACTORS.get(cause, f"by {actor}" if actor else "")
    text = pause.text
    if pause.field == "usage_suspended":
        text = f"Its events wait, and are not billed yet: {account['events_waiting']} so far."
    # A reason that nobody gave repeats what it was begun by, which is said already.
    shown = "" if reason.startswith("begun by ") else reason
    return Banner(pause.tone, pause.title, account[f"{pause.field}_at"], by, shown, text)


async def _of_company(visit: Visit) -> list[Banner]:
    """What stands still for all accounts, and so for this one."""
    if not visit.may("company:read"):
        return []
    pauses = await visit.get("/companies/{company_id}/pauses")
    found: list[Banner] = []
    if pauses["paused"]:
        found.append(
            Banner("bad", "All accounts are paused.", pauses["paused_at"], "", "", "Their events are refused.")
        )
    if pauses["usage_suspended"]:
        text = "Events wait, and are not billed yet."
        found.append(Banner("slow", "All usage is suspended.", pauses["usage_suspended_at"], "", "", text))
    if pauses["capture_suspended"]:
        found.append(
            Banner("slow", "All captures are suspended.", None, "", "", "Cards are not charged by themselves.")
        )
    return found
