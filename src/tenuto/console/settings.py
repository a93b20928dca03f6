"""Settings: the company's keys, its Stripe, its clock, its name and its times."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from zoneinfo import available_timezones

from litestar import Response

from tenuto.core.outcomes import Refusal, invalid
from tenuto.core.user import SCOPES

from .forms import (
    REFUSED,
    chosen,
    lines_of,
    read_denomination,
    read_duration,
    read_moment,
    rows_of,
    said,
    spelled_duration,
    typed,
    typed_duration,
    whole_or_none,
)
from .frame import Page, Visit, environment_of
from .tables import Column, Listing, export, show

ROOT: Final = "/control/settings"
COMPANY: Final = "/companies/{company_id}"
_FIRST: Final = (("keys:write", "keys"), ("company:read", "company"), ("users:read", "users"))
SUBJECTS: Final[Mapping[str, str]] = {
    "accounts": "Accounts, their plans and cards",
    "balances": "Balances and credit",
    "catalog": "Plans and prices",
    "company": "Company, webhooks, issuers",
    "events": "Events",
    "invoices": "Invoices",
    "keys": "Keys",
    "payments": "Payments and refunds",
    "reports": "Reports",
    "users": "Users",
}
"""What scopes are about, in words, by their first part."""


async def settings(visit: Visit) -> Response[Any]:
    """On to the first section that the role may see."""
    return visit.go(f"{ROOT}/{next((name for scope, name in _FIRST if visit.may(scope)), 'you')}")


# --- keys -------------------------------------------------------------------------------------------------------------

KEYS: Final = Listing(
    name="keys",
    path="/companies/{company_id}/keys",
    columns=(
        Column("name", "Name"),
        Column("hint", "Key", "code"),
        Column("state", "State", "badge", sorts=False),
        Column("scopes_count", "Scopes", "number", sorts=False),
        Column("last_used_at", "Last used", "moment"),
        Column("expires_at", "Ends", "moment"),
        Column("revoked_at", "Revoked", "moment"),
        Column("created_at", "Made", "moment"),
    ),
    empty="There is no key here yet.",
    hint="A key lets your engineers call the API. Make one for each service, with the scopes that it needs.",
)


def _key_row(visit: Visit, row: dict[str, Any]) -> dict[str, Any]:
    ends = row["expires_at"]
    is_over = ends is not None and datetime.fromisoformat(ends) <= visit.engine.now()
    state = "revoked" if row["revoked_at"] else "ended" if is_over else "active"
    return {**row, "hint": f"…{row['hint']}", "state": state, "scopes_count": len(row["scopes"])}


async def keys(visit: Visit) -> Response[Any]:
    """The keys of this half; without their secrets, which nobody can see again."""
    if visit.query.get("format") == "csv":
        known = [column for column in KEYS.columns if column.path not in {"state", "scopes_count"}]
        return await export(visit, KEYS._replace(columns=(*known, Column("scopes", "Scopes"))))
    table = await show(visit, KEYS)
    return visit.page("settings_keys.html", table=table._replace(rows=[_key_row(visit, row) for row in table.rows]))


def _key_form(visit: Visit) -> dict[str, Any]:
    return {
        **typed(visit, "name", "expires_at"),
        "mode": visit.field("mode") or visit.environment.mode,
        "scopes": chosen(visit, "scope", SCOPES),
    }


def _key_page(visit: Visit, form: Mapping[str, Any], problem: str = "") -> Response[Any]:
    mine = [scope for scope in SCOPES if visit.may(scope)]
    groups = {
        label: [scope for scope in mine if scope.startswith(f"{subject}:")] for subject, label in SUBJECTS.items()
    }
    return visit.page(
        "settings_key_new.html",
        status=REFUSED if problem else 200,
        form=form,
        groups={label: scopes for label, scopes in groups.items() if scopes},
        problem=problem,
    )


async def new_key(visit: Visit) -> Response[Any]:
    """The form of a key."""
    form = {"name": "", "expires_at": "", "mode": visit.environment.mode, "scopes": SCOPES}
    return _key_page(visit, form)


async def make_key(visit: Visit) -> Response[Any]:
    """Make a key, and show it this once."""
    form = _key_form(visit)
    try:
        ends = form["expires_at"]
        body = {
            "name": form["name"],
            "mode": form["mode"],
            "scopes": form["scopes"],
            "expires_at": read_moment(ends, visit.environment.zone_name, "ends") if ends else None,
        }
        made = await visit.do("POST", KEYS.path, body)
    except Refusal as refusal:
        return _key_page(visit, form, said(refusal))
    return visit.page("settings_key.html", key=made)


async def revoke_key(visit: Visit) -> Response[Any]:
    """End a key at once."""
    await visit.do("DELETE", "/companies/{company_id}/keys/{key_id}", key_id=visit.param("key_id"))
    return visit.go(f"{ROOT}/keys", "The key is revoked: nothing is let in by it any more.")


# --- Stripe -----------------------------------------------------------------------------------------------------------

SECRETS: Final = ("stripe_key", "stripe_publishable_key", "stripe_webhook_secret")
RIGHTS: Final = ("Customers", "PaymentIntents", "PaymentMethods", "SetupIntents", "Refunds")
"""What a restricted key of Stripe must be able to write (docs/operating.md)."""
MESSAGES: Final = (
    "payment_intent.succeeded",
    "payment_intent.payment_failed",
    "payment_intent.processing",
    "payment_intent.canceled",
    "refund.updated",
    "refund.failed",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.funds_reinstated",
)
"""What Stripe is to send (docs/operating.md)."""


async def stripe(visit: Visit, problem: str = "") -> Response[Any]:
    """The company's own Stripe account, in this half."""
    environment, asked = visit.environment, visit.engine.settings
    has_sandbox = not environment.live and (asked.is_sandbox_ours or bool(asked.sandbox_url))
    company = await visit.get(COMPANY)
    return visit.page(
        "settings_stripe.html",
        status=REFUSED if problem else 200,
        company=company,
        is_sandbox=has_sandbox and company["stripe_key"] is None,
        has_sandbox=has_sandbox,
        address=f"{visit.engine.public_url}/v1/companies/{visit.company}/stripe/{environment.mode}",
        rights=RIGHTS,
        messages=MESSAGES,
        public=visit.field("stripe_publishable_key"),
        problem=problem,
    )


async def save_stripe(visit: Visit) -> Response[Any]:
    """Keep what was typed; what was left empty stays as it is, and what was ticked is taken away."""
    body = {name: visit.field(name) for name in SECRETS if visit.field(name)}
    body |= dict.fromkeys(chosen(visit, "drop", SECRETS), "")
    if not body:
        return visit.go(f"{ROOT}/stripe", "Nothing was typed, so nothing has changed.")
    try:
        await visit.do("PUT", COMPANY, body)
    except Refusal as refusal:
        return await stripe(visit, said(refusal))
    return visit.go(f"{ROOT}/stripe", "Saved. The key was tried by a call." if body.get("stripe_key") else "Saved.")


# --- the clock --------------------------------------------------------------------------------------------------------

DONE: Final[Mapping[str, str]] = {
    "expire_grants": "grants that ended",
    "renew_due": "plans renewed",
    "cut_invoices": "invoices cut",
    "finalize_invoices": "invoices made final",
    "collect_invoices": "invoices collected",
    "refill_due": "refills",
    "collect_due": "payments tried",
    "refund_due": "refunds looked at",
    "dun_invoices": "reminders and steps of the ladder",
    "release_expired": "holds that ended",
}
"""What the clockwork does, in words, by its name in the API's answer."""


async def clock(visit: Visit) -> Response[Any]:
    """What time it is for this half."""
    return await _clock_page(visit, await visit.get("/companies/{company_id}/clock"))


async def _clock_page(visit: Visit, found: Mapping[str, Any], problem: str = "") -> Response[Any]:
    done = {DONE.get(name, name.replace("_", " ")): count for name, count in found["done"].items() if count}
    return visit.page(
        "settings_clock.html",
        status=200 if not problem or visit.request.headers.get("hx-request") else REFUSED,
        clock=found,
        ahead=_spelled_span(found["offset_seconds"]),
        done=done,
        has_moved=visit.request.method == "POST" and not problem,
        form=typed(visit, "days", "hours", "until"),
        problem=problem,
    )


def _spelled_span(seconds: int) -> str:
    span = timedelta(seconds=seconds)
    hours, rest = divmod(span.seconds, 3600)
    parts = [(span.days, "day"), (hours, "hour"), (rest // 60, "minute"), (rest % 60, "second")]
    return ", ".join(f"{count} {unit}{'' if count == 1 else 's'}" for count, unit in parts if count)


def _clock_body(visit: Visit) -> dict[str, Any]:
    days, hours = whole_or_none(visit.field("days"), "days"), whole_or_none(visit.field("hours"), "hours")
    until = visit.field("until")
    if until and (days or hours):
        raise invalid("date", "stands beside days or hours; move by one of them.")
    if until:
        return {"now": read_moment(until, visit.environment.zone_name, "date")}
    return {"advance_seconds": (days or 0) * 86_400 + (hours or 0) * 3_600}


async def move_clock(visit: Visit) -> Response[Any]:
    """Move the test clock forward, and tell what fell due on the way."""
    try:
        body = _clock_body(visit)
        if body.get("advance_seconds") == 0:
            raise invalid("days", "say how far, in days or hours, or to which date.")
        found = await visit.do("POST", "/companies/{company_id}/clock", body)
    except Refusal as refusal:
        now = await visit.get("/companies/{company_id}/clock")
        return await _clock_page(visit, now, said(refusal))
    # The head of the page shows the time as it is now.
    visit.environment = await environment_of(visit.engine, visit.session)
    return await _clock_page(visit, found)


# --- the company ------------------------------------------------------------------------------------------------------


def _company_form(company: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": company["name"],
        "time_zone": company["time_zone"],
        **spelled_duration("late_event", company["late_event_seconds"]),
        **spelled_duration("ahead_event", company["ahead_event_seconds"]),
        "billables": [
            {"billable": name, "denomination": one.get("denomination") or ""}
            for name, one in company["billables"].items()
        ],
        "prefixes": "\n".join(company["billable_prefixes"]),
    }


def _company_page(visit: Visit, form: Mapping[str, Any], problem: str = "") -> Response[Any]:
    zones = sorted(available_timezones())
    return visit.page(
        "settings_company.html", status=REFUSED if problem else 200, form=form, zones=zones, problem=problem
    )


async def company(visit: Visit) -> Response[Any]:
    """Name, zone, how late and how early events may come, and what clearance counts."""
    return _company_page(visit, _company_form(await visit.get(COMPANY)))


def _billed(row: Mapping[str, str], known: Collection[str]) -> dict[str, str]:
    path = f"billables.{row['billable']}.denomination"
    return {"denomination": read_denomination(row["denomination"], path, known)}


async def save_company(visit: Visit) -> Response[Any]:
    """Keep them."""
    form = {
        **typed(visit, "name", "time_zone", "prefixes"),
        **typed_duration(visit, "late_event"),
        **typed_duration(visit, "ahead_event"),
        "billables": rows_of(visit, "billable", "denomination"),
    }
    before = _company_form(await visit.get(COMPANY))
    known = {row["denomination"] for row in before["billables"]}
    try:
        body = {
            "name": form["name"],
            "time_zone": form["time_zone"],
            "late_event_seconds": read_duration(visit, "late_event"),
            "ahead_event_seconds": read_duration(visit, "ahead_event"),
            "billables": {
                row["billable"]: _billed(row, known) if row["denomination"] else {"free": True}
                for row in form["billables"]
            },
            "billable_prefixes": lines_of(visit.field("prefixes")),
        }
        await visit.do("PUT", COMPANY, body)
    except Refusal as refusal:
        return _company_page(visit, form, said(refusal))
    return visit.go(f"{ROOT}/company", "Saved.")


PAGES: Final = (
    Page("GET", ROOT, settings),
    Page("GET", f"{ROOT}/keys", keys, "keys:write"),
    Page("GET", f"{ROOT}/keys/new", new_key, "keys:write"),
    Page("POST", f"{ROOT}/keys/new", make_key, "keys:write", fresh=True),
    Page("POST", f"{ROOT}/keys/{{key_id}}/revoke", revoke_key, "keys:write", fresh=True),
    Page("GET", f"{ROOT}/stripe", stripe, "company:read"),
    Page("POST", f"{ROOT}/stripe", save_stripe, "company:write", fresh=True),
    Page("GET", f"{ROOT}/clock", clock, "company:read"),
    Page("POST", f"{ROOT}/clock", move_clock, "company:write"),
    Page("GET", f"{ROOT}/company", company, "company:read"),
    Page("POST", f"{ROOT}/company", save_company, "company:write"),
)
