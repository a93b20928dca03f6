"""The editor of a plan: a form without code, with what a month would cost beside it.

Nothing that was typed is ever lost: where the API refuses, the same page comes again, with the reason beside the field
that it names. A plan that is there is changed in two steps: the form, then what changes and for whom, then it is
published as its next version; accounts stay on theirs until they are moved.
"""

from __future__ import annotations

import json
from typing import Any, Final

from litestar import Response

from tenuto.core.money import CURRENCY_EXPONENTS
from tenuto.core.outcomes import Refusal, invalid
from tenuto.core.plan import CADENCES
from tenuto.plan_changes import in_place_of

from .forms import REFUSED, said
from .frame import Page, Visit
from .plan_form import (
    BEYOND,
    KINDS,
    MODELS,
    ROWS,
    PlanForm,
    asked_of,
    body_of,
    denominations_of,
    empty_form,
    form_of,
    place_of,
    plain_message,
    refuse_mistaken,
    terms_in,
    typed_form,
)
from .plan_terms import differences, month_of

ACCOUNTS_COUNTED: Final = 1000
_PLANS: Final = "/companies/{company_id}/plans"


def _shown(visit: Visit, form: PlanForm, plan: dict[str, Any] | None, refusal: Refusal | None = None) -> Response[str]:
    """The form as it stands, with what was refused, if anything."""
    problems: dict[str, str] = {}
    if refusal is not None:
        problems = {place_of(refusal, form): plain_message(refusal)}
    return visit.page(
        "plan_edit.html",
        status=200 if refusal is None else REFUSED,
        form=form,
        plan=plan,
        problems=problems,
        problem=None if refusal is None else said(refusal),
        blanks={group: dict.fromkeys(names, "") for group, names in ROWS.items()},
        choices={
            "cadences": CADENCES,
            "models": MODELS,
            "kinds": KINDS,
            "currencies": sorted(CURRENCY_EXPONENTS),
            "beyond": BEYOND,
        },
    )


def _known(plan: dict[str, Any]) -> set[str]:
    return {name for _, name in denominations_of(form_of(plan))}


async def new_plan(visit: Visit) -> Response[Any]:
    """A form that nothing was typed into."""
    return _shown(visit, empty_form(), None)


async def publish_plan(visit: Visit) -> Response[Any]:
    """Publish a new plan."""
    form = typed_form(visit)
    try:
        refuse_mistaken(form)
        made = await visit.do("POST", _PLANS, body_of(form))
    except Refusal as refusal:
        return _shown(visit, form, None, refusal)
    return visit.go(f"/control/plans/{made['id']}", f"{made['name']} is published: accounts can begin with it.")


async def edit_plan(visit: Visit) -> Response[Any]:
    """The form with the plan's terms as they stand."""
    plan = await visit.get("/plans/{plan_id}", plan_id=visit.param("plan_id"))
    return _shown(visit, form_of(plan), plan)


async def review_plan(visit: Visit) -> Response[Any]:
    """What would change, and for whom, before it is published; or the form again, where somebody goes back to it."""
    plan_id, form = visit.param("plan_id"), typed_form(visit)
    plan = await visit.get("/plans/{plan_id}", plan_id=plan_id)
    if visit.field("_again"):
        return _shown(visit, form, plan)
    try:
        refuse_mistaken(form, _known(plan))
        body = terms_in(form)
        seen = await visit.do("POST", f"{_PLANS}/preview", {"plan": body})
    except Refusal as refusal:
        return _shown(visit, form, plan, refusal)
    accounts = await visit.rows(
        "/companies/{company_id}/accounts", query={"plan_id": plan_id, "limit": str(ACCOUNTS_COUNTED)}
    )
    return visit.page(
        "plan_review.html",
        form=form,
        plan=plan,
        sentence=seen["sentence"],
        changes=differences(terms_in(form_of(plan)), body),
        accounts=len(accounts.rows),
        has_more=accounts.next_cursor is not None,
    )


async def publish_version(visit: Visit) -> Response[Any]:
    """Publish the next version of a plan, if it still stands as it was looked at."""
    plan_id, form = visit.param("plan_id"), typed_form(visit)
    plan = await visit.get("/plans/{plan_id}", plan_id=plan_id)
    try:
        if str(plan["version"]) != form.values["version"]:
            form.values["version"] = str(plan["version"])
            meanwhile = f"Somebody has published version {plan['version']} meanwhile; see what would change now."
            raise invalid("version", meanwhile)
        refuse_mistaken(form, _known(plan))
        made = await visit.do("PUT", "/plans/{plan_id}", in_place_of(plan, terms_in(form)), plan_id=plan_id)
    except Refusal as refusal:
        return _shown(visit, form, plan, refusal)
    return visit.go(
        f"/control/plans/{plan_id}",
        f"Version {made['version']} is published. Accounts stay on theirs until they are moved.",
    )


async def preview(visit: Visit) -> Response[Any]:
    """What a month of the usage beside the form would cost, as the form stands; a part of the editor."""
    form = typed_form(visit)
    seen: dict[str, Any] | None = None
    body: dict[str, Any] | None = None
    problem = ""
    try:
        # A plan that is there may name what it always named; only its own pages know which that is.
        if not form.values["version"]:
            refuse_mistaken(form)
        body = body_of(form)
        seen = await visit.do("POST", f"{_PLANS}/preview", asked_of(form, body))
    except Refusal as refusal:
        problem = said(refusal)
    written = "" if body is None else json.dumps(body, indent=2, ensure_ascii=False)
    month = None if seen is None else month_of(seen)
    currency = form.values["currency"]
    return visit.page(
        "part_plan_preview.html", month=month, seen=seen, problem=problem, written=written, currency=currency
    )


PAGES: Final = (
    Page("GET", "/control/plans/new", new_plan, "catalog:write"),
    Page("POST", "/control/plans/new", publish_plan, "catalog:write"),
    Page("POST", "/control/plans/preview", preview, "catalog:read"),
    Page("GET", "/control/plans/{plan_id}/edit", edit_plan, "catalog:write"),
    Page("POST", "/control/plans/{plan_id}/edit", review_plan, "catalog:write"),
    Page("POST", "/control/plans/{plan_id}/publish", publish_version, "catalog:write"),
)
