"""Plans: the list, and a plan's page with its terms in words, its versions and the accounts that are on it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

from litestar import Response

from tenuto.core.outcomes import Refusal

from . import plan_editor
from .frame import Page, Visit
from .plan_form import form_of, terms_in
from .plan_terms import CADENCE_WORDS, Difference, differences, prices_of
from .tables import Column, Listing, answer, export, show

VERSIONS: Final = 100
"""Versions that the page of them shows, the newest ones."""
API_ROWS: Final = 1000


def _to_plan(row: Mapping[str, Any]) -> str:
    return f"/control/plans/{row['id']}"


def _price_column(cadence: str, label: str) -> Column:
    return Column(f"renewals.{cadence}.amount", label, "amount", denomination="renewal_denomination")


PLANS: Final = Listing(
    name="plans",
    path="/companies/{company_id}/plans",
    columns=(
        Column("name", "Plan", link=_to_plan),
        Column("code", "Code", "code", filter="code"),
        Column("version", "Version", "number"),
        _price_column("MONTHLY", "A month"),
        _price_column("YEARLY", "A year"),
        _price_column("ONE_OFF", "Once"),
        Column("included", "Included"),
        Column("updated_at", "Changed", "moment"),
        Column("archived_at", "Archived", "moment", filter="archived", choices=("false", "true")),
    ),
    empty="No plan has been published yet.",
    hint="A plan is what accounts are sold as a whole. New plan leads to a form that shows what a month would cost.",
    anchor=_to_plan,
)
ACCOUNTS: Final = Listing(
    name="accounts",
    path="/companies/{company_id}/accounts",
    columns=(
        Column("name", "Account", link=lambda row: f"/control/accounts/{row['id']}"),
        Column("email", "E-mail"),
        Column("plan_status", "State", "badge"),
        Column("plan_renewal_cadence", "Cadence"),
        Column("next_plan_renewal", "Next renewal", "moment"),
    ),
    empty="No account is on this plan.",
    hint="Put one on it on the account's own page, or send a customer a link to it.",
    anchor=lambda row: f"/control/accounts/{row['id']}",
)


async def plans(visit: Visit) -> Response[Any]:
    """The plans of the company."""
    if visit.query.get("format") == "csv":
        return await export(visit, PLANS, lambda row: {**row, "included": list(row["balances"])})
    table = await show(visit, PLANS)
    for row in table.rows:
        row["included"] = ", ".join(row["balances"]) or None
    return visit.page("plans.html", table=table)


async def _head(visit: Visit, tab: str) -> dict[str, Any]:
    plan = await visit.get("/plans/{plan_id}", plan_id=visit.param("plan_id"))
    return {"plan": plan, "tab": tab}


async def plan(visit: Visit) -> Response[Any]:
    """The terms of a plan in words."""
    head = await _head(visit, "")
    found = head["plan"]
    asked = {"plan": terms_in(form_of(found))}
    try:
        sentence = (await visit.do("POST", "/companies/{company_id}/plans/preview", asked))["sentence"]
    except Refusal:
        # A plan that was published under earlier rules is shown without it.
        sentence = ""
    return visit.page("plan.html", **head, sentence=sentence, prices=prices_of(found), cadences=CADENCE_WORDS)


async def versions(visit: Visit) -> Response[Any]:
    """A plan's versions, the newest first, each with what it changed."""
    head = await _head(visit, "versions")
    found: list[dict[str, Any]] = []
    query = {"limit": str(API_ROWS)}
    while True:
        part = await visit.rows("/plans/{plan_id}/versions", query=query, plan_id=visit.param("plan_id"))
        found = [*found, *part.rows][-VERSIONS - 1 :]
        if part.next_cursor is None:
            break
        query = {**query, "cursor": part.next_cursor}
    told: list[tuple[dict[str, Any], list[Difference] | None]] = [(found[0], None)] if found[0]["version"] == 1 else []
    told += [(new, differences(terms_in(form_of(old)), terms_in(form_of(new)))) for old, new in pairwise(found)]
    return visit.page("plan_versions.html", **head, versions=told[::-1], is_whole=found[0]["version"] == 1)


async def accounts(visit: Visit) -> Response[Any]:
    """The accounts that are on a plan."""
    head = await _head(visit, "accounts")
    listing = ACCOUNTS._replace(fixed={"plan_id": visit.param("plan_id")})
    return await answer(visit, listing, "plan_accounts.html", head)


async def move(visit: Visit) -> Response[Any]:
    """Let all accounts on older versions change to the newest one with their next renewals."""
    plan_id = visit.param("plan_id")
    found = await visit.do("POST", "/plans/{plan_id}/move", plan_id=plan_id)
    note = f"{found['moved']} accounts change to the newest version with their next renewals."
    if found["refused"]:
        why = ", ".join(f"{count} ({code.replace('_', ' ')})" for code, count in found["refused"].items())
        note = f"{note} Not moved: {why}."
    return visit.go(f"/control/plans/{plan_id}/accounts", note, is_bad=bool(found["refused"]))


async def archive(visit: Visit) -> Response[Any]:
    """Sell a plan no more."""
    plan_id = visit.param("plan_id")
    found = await visit.do("DELETE", "/plans/{plan_id}", plan_id=plan_id)
    return visit.go(f"/control/plans/{plan_id}", f"{found['name']} is sold no more. Accounts that are on it stay.")


PAGES: Final = (
    *plan_editor.PAGES,
    Page("GET", "/control/plans", plans, "catalog:read"),
    Page("GET", "/control/plans/{plan_id}", plan, "catalog:read"),
    Page("GET", "/control/plans/{plan_id}/versions", versions, "catalog:read"),
    Page("GET", "/control/plans/{plan_id}/accounts", accounts, "accounts:read"),
    Page("POST", "/control/plans/{plan_id}/move", move, "accounts:write"),
    Page("POST", "/control/plans/{plan_id}/archive", archive, "catalog:write"),
)
