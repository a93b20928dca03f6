"""Opening an account, by hand or with a payment link, and the page on which one is administered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from litestar import Response

from tenuto.core.outcomes import Kind, Refusal, invalid

from . import account_head, account_plan
from .account_balances import currency_of
from .account_plan import asked, offered
from .formats import amount, number, read_amount
from .frame import Page, Visit

_ACCOUNT: Final = "/accounts/{account_id}"


# --- new accounts -----------------------------------------------------------------------------------------------------


async def new_account(visit: Visit) -> Response[Any]:
    """The two ways to an account: by hand, or with a link on which its customer gives a card."""
    if not visit.may("accounts:write"):
        visit.needs("payments:write")
    return await _new(visit)


async def _new(visit: Visit, problem: str = "", failed: str = "") -> Response[Any]:
    """The page with its two forms; after a refusal with what was typed in the one that ``failed``."""
    plans = await account_plan.offers(visit) if visit.may("catalog:read") else []
    filled = {name: visit.field(name) for name in ("name", "email", "credit_limit", "plan_id")}
    offer = next(
        (offered(plan, cadence=visit.field("cadence")) for plan in plans if plan["id"] == filled["plan_id"]), None
    )
    return visit.page(
        "new_account.html",
        status=422 if problem else 200,
        plans=plans,
        currency=await currency_of(visit),
        problem=problem,
        failed=failed,
        filled=filled,
        offer=offer,
    )


async def open_account(visit: Visit) -> Response[Any]:
    """Open an account by hand."""
    try:
        body = {"name": visit.field("name"), "email": visit.field("email"), **asked(visit)}
        if visit.field("credit_limit"):
            body["credit_limit"] = read_amount(visit.field("credit_limit"), await currency_of(visit), "credit_limit")
        made = await visit.do("POST", "/companies/{company_id}/accounts", body)
    except Refusal as refusal:
        if refusal.kind in {Kind.FORBIDDEN, Kind.BUSY, Kind.FAULT}:
            raise
        return await _new(visit, refusal.message, "account")
    return visit.go(f"/control/accounts/{made['id']}", f"The account {made['name']} is open.")


async def open_by_link(visit: Visit) -> Response[Any]:
    """Open an account with a link on which its customer gives a card."""
    try:
        body = {"name": visit.field("name"), "email": visit.field("email"), **asked(visit)}
        made = await visit.do("POST", "/companies/{company_id}/payment_links", body)
    except Refusal as refusal:
        if refusal.kind in {Kind.FORBIDDEN, Kind.BUSY, Kind.FAULT}:
            raise
        return await _new(visit, refusal.message, "link")
    return visit.page("admin_link.html", what="Payment link", is_once=True, link=made, account=made["account"])


async def make_link(visit: Visit) -> Response[Any]:
    """A link on which an account's customer gives a card, and begins with a plan where one is chosen."""
    account = await visit.get(_ACCOUNT, account_id=visit.param("account_id"))
    made = await visit.do("POST", f"{_ACCOUNT}/payment_links", asked(visit), account_id=account["id"])
    return visit.page("admin_link.html", what="Payment link", is_once=True, link=made, account=account)


async def make_customer_page(visit: Visit) -> Response[Any]:
    """A link to the page on which the account's own people see balances, invoices and payments, and top up."""
    account = await visit.get(_ACCOUNT, account_id=visit.param("account_id"))
    made = await visit.do("POST", f"{_ACCOUNT}/portal_links", {}, account_id=account["id"])
    return visit.page("admin_link.html", what="Customer page", is_once=False, link=made, account=account)


# --- one account ------------------------------------------------------------------------------------------------------


def spelled_metadata(value: object) -> str:
    """Metadata as somebody edits it."""
    return msgspec.json.format(msgspec.json.encode({} if value is None else value), indent=2).decode()


def read_metadata(text: str) -> msgspec.Raw:
    """The same backwards; its numbers stay as they were typed. Raises Refusal ``invalid_field``."""
    raw = (text or "{}").encode()
    try:
        msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise invalid("metadata", 'takes JSON, such as {"order": 17}.') from error
    return msgspec.Raw(raw)


def rule_sentence(rule: Mapping[str, Any], locale: str) -> str:
    """A level of the company's own as a person says it."""
    whose = f"the balance in {rule['denomination']}" if rule.get("denomination") else "a balance"
    if rule.get("credit_limit_percentage") is not None:
        at = f"{whose} owes {number(rule['credit_limit_percentage'], locale)} % of its credit limit"
    elif rule.get("threshold_percentage") is not None:
        at = f"{number(rule['threshold_percentage'], locale)} % of {whose} is consumed"
    elif rule.get("remaining_percentage") is not None:
        at = f"{number(rule['remaining_percentage'], locale)} % of {whose} is left"
    else:
        level = amount(rule.get("level"), rule.get("denomination"), locale)
        at = f"{whose} falls to {level}"
    done = {"block": "credit is blocked", "flag": f"the flag {rule.get('flag')} is raised"}
    return f"When {at}, {done.get(rule['action'], 'webhooks are told')}."


async def admin(visit: Visit) -> Response[Any]:
    """An account's details, balances, cards, plan, and what happens to it by itself."""
    account = await account_head.head(visit)
    one = {"account_id": account["id"]}
    company = await visit.get("/companies/{company_id}")
    cards = (await visit.rows(f"{_ACCOUNT}/cards", **one)).rows if visit.may("payments:read") else []
    balances = (await visit.rows(f"{_ACCOUNT}/balances", **one)).rows if visit.may("balances:read") else []
    levels = [{**rule, "sentence": rule_sentence(rule, visit.locale)} for rule in company["levels"]]
    return visit.page(
        "admin.html",
        account=account,
        cards=cards,
        balances=balances,
        plan=await account_plan.current(visit),
        plans=await account_plan.offers(visit),
        levels=levels,
        blocks=any(rule["action"] == "block" for rule in levels),
        currency=company["invoicing"]["currency"],
        default_limit=company["default_credit_limit"],
        metadata=spelled_metadata(account["metadata"]),
    )


def _admin(visit: Visit) -> str:
    return f"/control/accounts/{visit.param('account_id')}/admin"


async def edit(visit: Visit) -> Response[Any]:
    """Change name, address, credit limit and metadata."""
    account_id = visit.param("account_id")
    before = await visit.get(_ACCOUNT, account_id=account_id)
    limit, metadata = visit.field("credit_limit"), visit.field("metadata")
    body: dict[str, Any] = {
        "name": visit.field("name"),
        "email": visit.field("email"),
    }
    credit_limit = read_amount(limit, await currency_of(visit), "credit_limit") if limit else None
    if credit_limit != before["credit_limit"]:
        # A role that may change the name need not be one that may lend.
        body["credit_limit"] = credit_limit
    if metadata.split() != spelled_metadata(before["metadata"]).split():
        body["metadata"] = read_metadata(metadata)
    await visit.do("PUT", _ACCOUNT, body, account_id=account_id)
    return visit.go(_admin(visit), "The details are saved.")


async def choose_card(visit: Visit) -> Response[Any]:
    """Make a card the one that is charged."""
    place: dict[str, Any] = {"account_id": visit.param("account_id"), "card_id": visit.param("card_id")}
    card = await visit.do("PUT", f"{_ACCOUNT}/cards/{{card_id}}", {"default": True}, **place)
    return visit.go(_admin(visit), f"The card that ends in {card['last4']} is charged from now on.")


async def remove_card(visit: Visit) -> Response[Any]:
    """Forget a card."""
    place: dict[str, Any] = {"account_id": visit.param("account_id"), "card_id": visit.param("card_id")}
    card = await visit.do("DELETE", f"{_ACCOUNT}/cards/{{card_id}}", **place)
    return visit.go(_admin(visit), f"The card that ended in {card['last4']} is removed.")


_HERE: Final = "/control/accounts/{account_id}/admin"
PAGES: Final = (
    Page("GET", "/control/accounts/new", new_account),
    Page("POST", "/control/accounts/new", open_account, "accounts:write"),
    Page("POST", "/control/accounts/new/link", open_by_link, "payments:write"),
    Page("GET", _HERE, admin, "accounts:read"),
    Page("POST", f"{_HERE}/details", edit, "accounts:write"),
    Page("POST", f"{_HERE}/payment-link", make_link, "payments:write"),
    Page("POST", f"{_HERE}/customer-page", make_customer_page, "payments:write"),
    Page("POST", f"{_HERE}/cards/{{card_id}}/default", choose_card, "payments:write"),
    Page("POST", f"{_HERE}/cards/{{card_id}}/remove", remove_card, "payments:write"),
)
