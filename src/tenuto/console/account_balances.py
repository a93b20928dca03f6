"""One balance of an account: set right by hand, filled, refilled by itself, and the grants it is made of."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from litestar import Response

from tenuto.core.outcomes import invalid

from . import account_head
from .formats import amount, read_amount
from .forms import read_denomination
from .frame import Page, Visit
from .tables import Column, Listing, show

_BALANCE: Final = "/accounts/{account_id}/balance/{denomination}"
GRANTS: Final = Listing(
    name="grants",
    path="/accounts/{account_id}/balance/{denomination}/grants",
    columns=(
        Column("id", "Grant", "code"),
        Column("source", "From", "badge"),
        Column("amount", "Given", "amount"),
        Column("amount_left", "Left", "amount"),
        Column("expires_at", "Ends", "moment"),
    ),
    empty="No units were given to this balance as a grant.",
    hint="A grant has an end and a place in the order of use; give one below.",
)


def balance_path(account_id: str, denomination: str) -> str:
    """The page of one balance."""
    return f"/control/accounts/{account_id}/admin/balances/{quote(denomination, safe='')}"


def _of(visit: Visit) -> dict[str, Any]:
    return {"account_id": visit.param("account_id"), "denomination": visit.param("denomination")}


def _here(visit: Visit) -> str:
    return balance_path(**_of(visit))


async def currency_of(visit: Visit) -> str:
    """The currency that the company charges in where none is named."""
    company = await visit.get("/companies/{company_id}")
    return str(company["invoicing"]["currency"])


async def balance_page(visit: Visit) -> Response[Any]:
    """A balance with what can be done to it."""
    account = await account_head.head(visit)
    found = (await visit.rows("/accounts/{account_id}/balances", account_id=account["id"])).rows
    balance = await visit.get(_BALANCE, **_of(visit))
    others = [row["denomination"] for row in found if row["denomination"] != balance["denomination"]]
    return visit.page(
        "admin_balance.html",
        account=account,
        balance=balance,
        others=others,
        currency=await currency_of(visit),
        here=_here(visit),
        grants=await show(visit, GRANTS, **_of(visit)),
    )


async def open_balance(visit: Visit) -> Response[Any]:
    """Open a balance."""
    account_id, denomination = visit.param("account_id"), read_denomination(visit.field("denomination"))
    body: dict[str, Any] = {}
    if visit.field("amount"):
        body["amount"] = read_amount(visit.field("amount"), denomination)
    await visit.do("POST", _BALANCE, body, account_id=account_id, denomination=denomination)
    return visit.go(balance_path(account_id, denomination), f"The balance in {denomination} is open.")


async def adjust(visit: Visit) -> Response[Any]:
    """Put units on a balance, or take them off, without payment."""
    place = _of(visit)
    units = read_amount(visit.field("amount"), place["denomination"])
    if units < 0:
        raise invalid("amount", "takes a number above zero; choose whether it is added or taken off.")
    signed = -units if visit.field("way") == "off" else units
    body = {"amount": signed, "reason": visit.field("reason") or None}
    done = await visit.do("POST", f"{_BALANCE}/adjust", body, **place)
    after = amount(done["ending_balance"], place["denomination"], visit.locale)
    return visit.go(_here(visit), f"Adjusted. The balance is {after} now.")


async def deposit(visit: Visit) -> Response[Any]:
    """Buy units now, with the card or from another balance."""
    place = _of(visit)
    source = visit.field("source")
    body: dict[str, Any] = {"amount_to_deposit": read_amount(visit.field("units"), place["denomination"], "units")}
    paid_in = source or read_denomination(visit.field("currency"), "currency")
    body["amount_to_charge"] = read_amount(visit.field("charge"), paid_in, "charge")
    body["charge_against_denomination" if source else "currency"] = paid_in
    done = await visit.do("POST", f"{_BALANCE}/deposit", body, **place)
    payment = done["payment"]
    if payment["status"] != "succeeded":
        return visit.go(
            _here(visit), f"The payment {payment['id']} is {payment['status']}; its page tells how it ends."
        )
    charged = amount(payment["amount"], payment["currency"], visit.locale)
    return visit.go(_here(visit), f"{charged} was charged, and the units are there.")


async def limit(visit: Visit) -> Response[Any]:
    """Say how far below zero the balance may go; empty: as the account has it."""
    place = _of(visit)
    typed = visit.field("credit_limit")
    value = read_amount(typed, place["denomination"], "credit_limit") if typed else None
    await visit.do("PUT", _BALANCE, {"credit_limit": value}, **place)
    return visit.go(_here(visit), "The credit limit is set.")


async def refill(visit: Visit) -> Response[Any]:
    """Set how the balance is refilled by itself."""
    place = _of(visit)
    denomination, source = place["denomination"], visit.field("source")
    paid_in = source or read_denomination(visit.field("currency"), "currency")
    threshold = visit.field("threshold")
    body: dict[str, Any] = {
        "threshold": read_amount(threshold, denomination, "threshold") if threshold else None,
        "amount": read_amount(visit.field("units"), denomination, "units"),
        "usd_charge": read_amount(visit.field("charge"), paid_in, "charge"),
        "refill_monthly": visit.field("monthly") == "on",
        "charge_against_denomination": source or None,
    }
    if not source:
        body["currency"] = paid_in
    await visit.do("PUT", f"{_BALANCE}/autorefill", body, **place)
    return visit.go(_here(visit), "The refill is set.")


async def end_refill(visit: Visit) -> Response[Any]:
    """End refilling."""
    await visit.do("DELETE", f"{_BALANCE}/autorefill", **_of(visit))
    return visit.go(_here(visit), "The balance is not refilled any more.")


async def resume_refill(visit: Visit) -> Response[Any]:
    """Take a parked refill up again."""
    await visit.do("POST", f"{_BALANCE}/autorefill/resume", **_of(visit))
    return visit.go(_here(visit), "The refill goes on.")


async def grant(visit: Visit) -> Response[Any]:
    """Give units that end together."""
    place = _of(visit)
    body: dict[str, Any] = {"amount": read_amount(visit.field("units"), place["denomination"], "units")}
    if visit.field("priority"):
        body["priority"] = read_amount(visit.field("priority"), "", "priority")
    if visit.field("expires_on"):
        body["expires_at"] = f"{visit.field('expires_on')}T00:00:00Z"
    if visit.field("price"):
        currency = read_denomination(visit.field("currency"), "currency")
        body |= {"price": read_amount(visit.field("price"), currency, "price"), "price_denomination": currency}
    if visit.field("reason"):
        body["reason"] = visit.field("reason")
    await visit.do("POST", f"{_BALANCE}/grants", body, **place)
    return visit.go(_here(visit), "The units are given.")


async def void_grant(visit: Visit) -> Response[Any]:
    """Take back what is left of a grant."""
    await visit.do("DELETE", f"{_BALANCE}/grants/{{grant_id}}", grant_id=visit.param("grant_id"), **_of(visit))
    return visit.go(_here(visit), "What was left of the grant is taken back.")


_ALL: Final = "/control/accounts/{account_id}/admin/balances"
_ONE: Final = f"{_ALL}/{{denomination}}"
PAGES: Final = (
    Page("POST", _ALL, open_balance, "balances:write"),
    Page("GET", _ONE, balance_page, "balances:read"),
    Page("POST", f"{_ONE}/adjust", adjust, "balances:write"),
    Page("POST", f"{_ONE}/deposit", deposit, "payments:write", fresh=True),
    Page("POST", f"{_ONE}/limit", limit, "balances:write"),
    Page("POST", f"{_ONE}/refill", refill, "payments:write", fresh=True),
    Page("POST", f"{_ONE}/refill/end", end_refill, "payments:write"),
    Page("POST", f"{_ONE}/refill/resume", resume_refill, "payments:write"),
    Page("POST", f"{_ONE}/grants", grant, "balances:write"),
    Page("POST", f"{_ONE}/grants/{{grant_id}}/void", void_grant, "balances:write"),
)
