"""Settings: how much may be owed, what happens at which level, how plans change, and how the company invoices."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from litestar import Response

from tenuto.core.outcomes import Refusal, invalid
from tenuto.core.plan import SCHEMES
from tenuto.core.subscription import FAILED_RENEWALS
from tenuto.core.topic import LEVEL_FIELDS

from .formats import read_amount, typed_amount
from .forms import (
    REFUSED,
    read_denomination,
    read_duration,
    rows_of,
    said,
    spelled_duration,
    typed,
    typed_duration,
    whole,
    whole_or_none,
)
from .frame import Page, Visit
from .settings import COMPANY, ROOT

KINDS: Final[Mapping[str, str]] = {
    "threshold_percentage": "% consumed",
    "remaining_percentage": "% left, less than",
    "level": "units left, less than",
    "credit_limit_percentage": "% of limit owed",
}
"""The levels that there are, in words, by the name of their field (contract 2.6)."""
ACTIONS: Final[Mapping[str, str]] = {
    "notify": "tell webhooks",
    "flag": "tell, and raise a flag",
    "block": "tell, and block credit",
}
"""What can be done at a level, in words."""
SCHEME_WORDS: Final[Mapping[str, str]] = {
    "sleeping_beauty": "With the next renewal: nothing is charged before",
    "snow_white": "Now, for the difference of what is left of the period",
    "ariel": "Now, with a new period that begins at once",
}
RENEWAL_WORDS: Final[Mapping[str, str]] = {
    "past_due": "It stays past due, and goes on when it is paid",
    "pause": "It stays past due, and the account is paused",
    "cancel": "The plan ends",
}
STEP_WORDS: Final[Mapping[str, str]] = {
    "remind": "remind: webhooks are told",
    "pause": "pause the account",
    "credit_block": "block the account's credit",
}
_ROW: Final = ("kind", "value", "of", "action", "flag")


# --- credit -----------------------------------------------------------------------------------------------------------


def _level_row(level: Mapping[str, Any]) -> dict[str, str]:
    kind = next(name for name in LEVEL_FIELDS if level[name] is not None)
    return {
        "kind": kind,
        "value": str(level[kind]),
        "of": level["denomination"] or "",
        "action": level["action"],
        "flag": level["flag"] or "",
    }


def _credit_form(company: Mapping[str, Any]) -> dict[str, Any]:
    caps, currency = company["refill_caps"], company["invoicing"]["currency"]
    return {
        "default_credit_limit": typed_amount(company["default_credit_limit"], currency),
        "per_hour": str(caps["per_hour"]),
        "per_day": "" if caps["per_day"] is None else str(caps["per_day"]),
        "amount_per_day": typed_amount(caps["amount_per_day"], currency),
        "levels": [_level_row(level) for level in company["levels"]],
        "scheme": company["plans"]["scheme"],
        "failed_renewal": company["plans"]["failed_renewal"],
    }


def _credit_page(visit: Visit, company: Mapping[str, Any], form: Mapping[str, Any], problem: str = "") -> Response[Any]:
    return visit.page(
        "settings_credit.html",
        status=REFUSED if problem else 200,
        form=form,
        currency=company["invoicing"]["currency"],
        kinds=KINDS,
        actions=ACTIONS,
        schemes={name: SCHEME_WORDS[name] for name in SCHEMES},
        failed_renewals={name: RENEWAL_WORDS[name] for name in FAILED_RENEWALS},
        problem=problem,
    )


async def credit(visit: Visit) -> Response[Any]:
    """How much may be owed and what happens then; how often a balance is refilled by itself; how plans change."""
    company = await visit.get(COMPANY)
    return _credit_page(visit, company, _credit_form(company))


def _level(index: int, row: Mapping[str, str], known: Collection[str]) -> dict[str, Any]:
    if row["kind"] not in KINDS:
        raise invalid(f"levels[{index}]", "is one of those that there are.")
    flag = row["flag"] if row["action"] == "flag" else ""
    return {
        row["kind"]: whole(row["value"], f"levels[{index}]"),
        "denomination": read_denomination(row["of"], f"levels[{index}].denomination", known) or None,
        "action": row["action"],
        "flag": flag or None,
    }


def _credit_body(form: Mapping[str, Any], company: Mapping[str, Any]) -> dict[str, Any]:
    currency, day = company["invoicing"]["currency"], form["amount_per_day"]
    body: dict[str, Any] = {
        "default_credit_limit": read_amount(form["default_credit_limit"], currency, "default_credit_limit"),
        "refill_caps": {
            "per_hour": whole(form["per_hour"], "refills an hour"),
            "per_day": whole_or_none(form["per_day"], "refills a day"),
            "amount_per_day": read_amount(day, currency, "amount_a_day") if day else None,
        },
        "plans": {"scheme": form["scheme"], "failed_renewal": form["failed_renewal"]},
    }
    # What was not touched is not set: a company that never chose its levels follows those that are shipped.
    if form["levels"] != [_level_row(level) for level in company["levels"]]:
        known = {level["denomination"] for level in company["levels"]} - {None}
        body["levels"] = [_level(index, row, known) for index, row in enumerate(form["levels"])]
    return body


async def save_credit(visit: Visit) -> Response[Any]:
    """Keep it."""
    company = await visit.get(COMPANY)
    form = {
        **typed(visit, "default_credit_limit", "per_hour", "per_day", "amount_per_day", "scheme", "failed_renewal"),
        # A row always says its kind and action; without a number it is one that was never filled in.
        "levels": [row for row in rows_of(visit, *_ROW) if row["value"]],
    }
    try:
        await visit.do("PUT", COMPANY, _credit_body(form, company))
    except Refusal as refusal:
        return _credit_page(visit, company, form, said(refusal))
    return visit.go(f"{ROOT}/credit", "Saved.")


async def reset_levels(visit: Visit) -> Response[Any]:
    """Back to the levels that are shipped."""
    await visit.do("PUT", COMPANY, {"levels": None})
    return visit.go(f"{ROOT}/credit", "The levels are those that are shipped.")


# --- invoicing --------------------------------------------------------------------------------------------------------


def _invoicing_form(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "prefix": found["prefix"],
        "currency": found["currency"],
        "terms_days": str(found["terms_days"]),
        "footer": found["footer"],
        **{f"seller_{name}": found["seller"].get(name, "") for name in ("name", "address", "tax_id", "email")},
        **spelled_duration("grace", found["grace_seconds"]),
        "taxes": [
            {"tax": one["name"], "rate": one["rate"], "how": "included" if one["inclusive"] else "added"}
            for one in found["taxes"]
        ],
        "steps": [{"days": str(step["days"]), "step": step["action"]} for step in found["dunning"]],
    }


def timeline(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What becomes of an invoice that nobody pays, in words: when, and what."""
    terms = found["terms_days"]
    due = "at once" if terms == 0 else f"{terms} {'day' if terms == 1 else 'days'} later"
    told = {"remind": "a reminder", "pause": "the account is paused", "credit_block": "the account's credit is blocked"}
    steps = [
        ("on that day" if step["days"] == 0 else f"{step['days']} {'day' if step['days'] == 1 else 'days'} after that",
         told.get(step["action"], step["action"]))
        for step in found["dunning"]
    ]  # fmt: skip
    return [("When the invoice is final", "it is sent"), (due, "it is due"), *steps]


def _invoicing_page(
    visit: Visit, company: Mapping[str, Any], form: Mapping[str, Any], problem: str = ""
) -> Response[Any]:
    return visit.page(
        "settings_invoicing.html",
        status=REFUSED if problem else 200,
        form=form,
        timeline=timeline(company["invoicing"]),
        has_ladder=bool(company["invoicing"]["dunning"]),
        steps=STEP_WORDS,
        problem=problem,
    )


async def invoicing(visit: Visit) -> Response[Any]:
    """What stands on invoices, when they are due, and what is done about those that nobody pays."""
    company = await visit.get(COMPANY)
    return _invoicing_page(visit, company, _invoicing_form(company["invoicing"]))


async def save_invoicing(visit: Visit) -> Response[Any]:
    """Keep it, the whole section."""
    company = await visit.get(COMPANY)
    names = ("prefix", "currency", "terms_days", "footer")
    seller = ("name", "address", "tax_id", "email")
    form: dict[str, Any] = {
        **typed(visit, *names, *(f"seller_{name}" for name in seller)),
        **typed_duration(visit, "grace"),
        "taxes": [row for row in rows_of(visit, "tax", "rate", "how") if row["tax"] or row["rate"]],
        "steps": [row for row in rows_of(visit, "days", "step") if row["days"]],
    }
    try:
        section = {
            "prefix": form["prefix"],
            "currency": form["currency"].upper(),
            "terms_days": whole(form["terms_days"], "terms"),
            "grace_seconds": read_duration(visit, "grace"),
            "footer": form["footer"],
            "seller": {name: form[f"seller_{name}"] for name in seller},
            "taxes": [
                {"name": row["tax"], "rate": row["rate"].replace(",", "."), "inclusive": row["how"] == "included"}
                for row in form["taxes"]
            ],
            "dunning": [
                {"days": whole(row["days"], f"dunning[{index}]"), "action": row["step"]}
                for index, row in enumerate(form["steps"])
            ],
        }
        await visit.do("PUT", COMPANY, {"invoicing": section})
    except Refusal as refusal:
        return _invoicing_page(visit, company, form, said(refusal))
    return visit.go(f"{ROOT}/invoicing", "Saved. Invoices that are final stay as they are.")


PAGES: Final = (
    Page("GET", f"{ROOT}/credit", credit, "company:read"),
    Page("POST", f"{ROOT}/credit", save_credit, "company:write"),
    Page("POST", f"{ROOT}/credit/levels", reset_levels, "company:write"),
    Page("GET", f"{ROOT}/invoicing", invoicing, "company:read"),
    Page("POST", f"{ROOT}/invoicing", save_invoicing, "company:write"),
)
