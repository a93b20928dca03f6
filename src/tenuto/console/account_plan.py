"""The plan of one account: what it is on, what a change of it would do before it is done, and what was done.

A change is shown twice: the preview is the API's own step, with its charge, its credit and its lines, and the button
under it sends the same words again without ``preview``. Between the two nothing is kept but the fields of the form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from litestar import Response

from tenuto.core.outcomes import Refusal, invalid

from . import account_head
from .formats import read_amount
from .frame import Page, Visit
from .tables import Column, Listing, show

OFFERS: Final = 250
"""How many plans one form offers, the newest."""
SCHEMES: Final = (
    ("", "As the company has it set"),
    ("sleeping_beauty", "With the next renewal: nothing is charged now"),
    ("snow_white", "Now: the difference is charged, the period stays"),
    ("ariel", "Now: what is left is given back, a new period begins"),
)
_PLAN: Final = "/accounts/{account_id}/plan"
HISTORY: Final = Listing(
    name="plan-history",
    path="/accounts/{account_id}/plan/history",
    columns=(
        Column("at", "For", "moment"),
        Column("kind", "What was done", "badge"),
        Column("scheme", "Scheme"),
        Column("charge", "Charged", "amount"),
        Column("credit", "Credited", "amount"),
        Column("payment_id", "Payment", "code"),
    ),
    empty="Nothing was done to a plan of this account yet.",
    hint="Put it on a plan above; each step stands here with its lines.",
)


async def offers(visit: Visit) -> list[dict[str, Any]]:
    """The plans that an account can be put on, the newest first."""
    found = await visit.rows("/companies/{company_id}/plans", query={"limit": str(OFFERS), "archived": "false"})
    return found.rows


def offered(plan: Mapping[str, Any], chosen: Mapping[str, int] | None = None, cadence: str = "") -> dict[str, Any]:
    """A plan as a form asks for it: its cadences, and the units that an account may choose."""
    variable = [
        {"denomination": name, "cost": terms["variable_amount_cost"], "units": (chosen or {}).get(name, 0)}
        for name, terms in plan["balances"].items()
        if terms["variable_amount_cost"] is not None
    ]
    return {
        "plan": plan,
        "cadence": cadence,
        "variable": variable,
        "cadences": [(name, renewal["amount"]) for name, renewal in plan["renewals"].items()],
    }


async def terms_part(visit: Visit) -> Response[Any]:
    """What a form asks of the plan that was chosen in it: how often it is paid for, and how much of it."""
    plan_id = visit.query.get("plan_id", "")
    if not plan_id:
        return visit.page("admin_terms.html", offer=None)
    return visit.page("admin_terms.html", offer=offered(await visit.get("/plans/{plan_id}", plan_id=plan_id)))


def asked(visit: Visit, cadence: str = "plan_renewal_cadence") -> dict[str, Any]:
    """The plan that a form asks for, in the API's words; empty where it asks for none."""
    if not visit.field("plan_id"):
        return {}
    found: dict[str, Any] = {"plan_id": visit.field("plan_id")}
    if visit.field("cadence"):
        found[cadence] = visit.field("cadence")
    units = chosen(visit.fields("variable"), visit.fields("units"))
    if units:
        found["plan_variable_amounts"] = units
    return found


def chosen(names: Sequence[str], amounts: Sequence[str]) -> dict[str, int]:
    """Units by denomination, as they were typed. Raises Refusal."""
    if len(names) != len(amounts):
        raise invalid("plan_variable_amounts", "do not belong to this plan.")
    return {
        name: read_amount(text or "0", name, f"plan_variable_amounts.{name}")
        for name, text in zip(names, amounts, strict=True)
    }


async def current(visit: Visit) -> dict[str, Any] | None:
    """The plan an account is on, or was on last; None where it never had one."""
    try:
        found: dict[str, Any] = await visit.get(_PLAN, account_id=visit.param("account_id"))
    except Refusal as refusal:
        if refusal.code == "no_plan":
            return None
        raise
    return found


async def plan_page(visit: Visit) -> Response[Any]:
    """What the account is on, and all that can be done about it."""
    account, plan, plans = await account_head.head(visit), await current(visit), await offers(visit)
    names = {one["id"]: one["name"] for one in plans}
    if plan is not None:
        names[plan["plan_id"]] = plan["name"]
    running = None if plan is None or plan["ended_at"] else plan
    offer = None
    if running is not None:
        terms = await visit.get("/plans/{plan_id}", plan_id=running["plan_id"])
        offer = offered(terms, running["plan_variable_amounts"], running["cadence"])
    history = await show(visit, HISTORY, account_id=account["id"])
    return visit.page(
        "admin_plan.html",
        account=account,
        plan=plan,
        plans=plans,
        names=names,
        offer=offer,
        schemes=SCHEMES,
        history=history,
    )


def _back(visit: Visit) -> str:
    return f"/control/accounts/{visit.param('account_id')}/admin/plan"


def _change(visit: Visit) -> dict[str, Any]:
    body = asked(visit, "cadence")
    if not body:
        raise invalid("plan_id", "choose a plan.")
    if visit.field("scheme"):
        body["scheme"] = visit.field("scheme")
    return body


async def preview_change(visit: Visit) -> Response[Any]:
    """What a change would charge, give and take, before it is done."""
    body = _change(visit)
    account = await account_head.head(visit)
    step = await visit.do(
        "POST", "/accounts/{account_id}/changeplan", {**body, "preview": True}, account_id=account["id"]
    )
    plan = await visit.get("/plans/{plan_id}", plan_id=body["plan_id"])
    sent = [("plan_id", body["plan_id"]), ("scheme", visit.field("scheme")), ("cadence", visit.field("cadence"))]
    sent += [("variable", name) for name in visit.fields("variable")]
    sent += [("units", units) for units in visit.fields("units")]
    return visit.page(
        "admin_plan_preview.html",
        account=account,
        step=step,
        title=f"Change to {plan['name']}",
        sent=sent,
        action="change",
        word="Change the plan",
    )


async def change(visit: Visit) -> Response[Any]:
    """Put the account on a plan, or change the one it is on."""
    done = await visit.do(
        "POST", "/accounts/{account_id}/changeplan", _change(visit), account_id=visit.param("account_id")
    )
    return visit.go(_back(visit), f"Done. The plan is {str(done['plan_status']).lower().replace('_', ' ')}.")


def _cancellation(visit: Visit) -> dict[str, Any]:
    return {"at_period_end": visit.field("when") != "now", "prorate": visit.field("prorate") == "on"}


async def preview_end(visit: Visit) -> Response[Any]:
    """What the end of the plan would charge and give back, before it is done."""
    account, body = await account_head.head(visit), _cancellation(visit)
    step = await visit.do(
        "POST", "/accounts/{account_id}/cancelplan", {**body, "preview": True}, account_id=account["id"]
    )
    return visit.page(
        "admin_plan_preview.html",
        account=account,
        step=step,
        title="End the plan with its period" if body["at_period_end"] else "End the plan now",
        sent=[("when", visit.field("when")), ("prorate", visit.field("prorate"))],
        action="cancel",
        word="End the plan",
    )


async def cancel(visit: Visit) -> Response[Any]:
    """End the plan, now or with its period."""
    body = _cancellation(visit)
    await visit.do("POST", "/accounts/{account_id}/cancelplan", body, account_id=visit.param("account_id"))
    return visit.go(_back(visit), "The plan ends with its period." if body["at_period_end"] else "The plan has ended.")


async def pause(visit: Visit) -> Response[Any]:
    """No renewal until the plan is resumed."""
    await visit.do("POST", "/accounts/{account_id}/pauseplan", account_id=visit.param("account_id"))
    return visit.go(_back(visit), "The plan is paused.")


async def resume(visit: Visit) -> Response[Any]:
    """Take a paused plan up again."""
    await visit.do("POST", "/accounts/{account_id}/resumeplan", account_id=visit.param("account_id"))
    return visit.go(_back(visit), "The plan goes on.")


async def renew(visit: Visit) -> Response[Any]:
    """Try a renewal that was not paid again."""
    await visit.do("POST", "/accounts/{account_id}/renewplan", account_id=visit.param("account_id"))
    return visit.go(_back(visit), "The renewal is tried again.")


async def drop(visit: Visit) -> Response[Any]:
    """Drop what is scheduled for the end of the period."""
    await visit.do("DELETE", "/accounts/{account_id}/plan/scheduled", account_id=visit.param("account_id"))
    return visit.go(_back(visit), "Nothing is scheduled any more.")


_HERE: Final = "/control/accounts/{account_id}/admin/plan"
PAGES: Final = (
    Page("GET", "/control/accounts/plan-terms", terms_part, "catalog:read"),
    Page("GET", _HERE, plan_page, "accounts:read"),
    Page("POST", f"{_HERE}/preview", preview_change, "accounts:write"),
    Page("POST", f"{_HERE}/change", change, "accounts:write", fresh=True),
    Page("POST", f"{_HERE}/preview-end", preview_end, "accounts:write"),
    Page("POST", f"{_HERE}/cancel", cancel, "accounts:write", fresh=True),
    Page("POST", f"{_HERE}/pause", pause, "accounts:write"),
    Page("POST", f"{_HERE}/resume", resume, "accounts:write"),
    Page("POST", f"{_HERE}/renew", renew, "payments:write", fresh=True),
    Page("POST", f"{_HERE}/drop", drop, "accounts:write"),
)
