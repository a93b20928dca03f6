"""Requests to the customer: links on which somebody buys units, or agrees to pay for what a plan does not include."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from tenuto.core.identifiers import spell, spell_of_account
from tenuto.core.invoice import settings_of
from tenuto.core.outcomes import Refusal, invalid
from tenuto.engine import Answer
from tenuto.service import payments
from tenuto.service import requests as service
from tenuto.service.requests import Letter, Offer, OverageAsk
from tenuto.store import requests as store
from tenuto.store.database import Unit
from tenuto.store.payments import Link
from tenuto.store.requests import Listed

from . import body as bodies
from . import shapes
from .body import spelled
from .cards import link_life, return_address
from .catalog import Amount
from .routes import PAGING, Call, Route
from .usage import page_of

PATH: Final = "/ask"


# --- shapes -----------------------------------------------------------------------------------------------------------


class OfferOut(shapes.Shape):
    """What can be bought: ``amount`` units for ``charge_amount``."""

    amount: int
    charge_amount: int
    charge_denomination: str


class AskedOut(shapes.Shape):
    """What is asked: ``amounts`` of a top-up; the price of a further unit, and on which plan, of overage."""

    denomination: str
    amounts: list[OfferOut] | None
    overage_charge_amount: str | None
    overage_charge_denomination: str | None
    plan_id: str | None


class RequestOut(shapes.Shape):
    """A request to a customer. ``status`` is open, done or expired; ``payment_id`` paid for the top-up."""

    id: str
    account_id: str
    kind: str
    status: str
    asked: AskedOut
    message: str | None
    return_url: str | None
    payment_id: str | None
    created_at: str | None
    expires_at: str | None
    used_at: str | None


class RequestMadeOut(RequestOut):
    """A request with the address of its page. Whoever has the address may answer it, once, until it expires."""

    url: str


# --- bodies -----------------------------------------------------------------------------------------------------------


class OfferIn(msgspec.Struct, forbid_unknown_fields=True):
    """An amount to buy, and its price; in the company's currency where none is named."""

    amount: int
    charge_amount: int
    charge_denomination: str | None = None


class TopupRequestIn(msgspec.Struct, forbid_unknown_fields=True):
    """What a customer is asked to buy: up to ten amounts of one balance."""

    denomination: str
    amounts: list[OfferIn]
    message: str | None = None
    return_url: str | None = None
    expires_in_seconds: int | None = None


class OverageRequestIn(msgspec.Struct, forbid_unknown_fields=True):
    """What a unit beyond the plan's is to cost; in the denomination of the plan's renewals where none is named."""

    denomination: str
    overage_charge_amount: Amount
    overage_charge_denomination: str | None = None
    message: str | None = None
    return_url: str | None = None
    expires_in_seconds: int | None = None


# --- verbs ------------------------------------------------------------------------------------------------------------


async def ask_topup(call: Call) -> Answer:
    """Ask a customer to buy units of one balance."""
    account = await call.account()
    given = call.decoded(TopupRequestIn)
    denomination = bodies.token(given.denomination, "denomination", bodies.DENOMINATION_MAX)
    if not 1 <= len(given.amounts) <= service.OFFERS_MAX:
        raise invalid("amounts", f"holds 1 to {service.OFFERS_MAX} amounts.", "out_of_range")
    offers = [_offer(call, denomination, offer, f"amounts[{index}].") for index, offer in enumerate(given.amounts)]
    letter = _letter(given)

    async def verb(unit: Unit) -> Link:
        return await service.ask_topup(call.engine, unit, call.environment, account.id, denomination, offers, letter)

    return await call.once(verb, lambda link: _made(call, link), is_secret=True)


def _offer(call: Call, denomination: str, given: OfferIn, path: str) -> Offer:
    amount = bodies.whole(given.amount, f"{path}amount", least=1)
    charge = bodies.whole(given.charge_amount, f"{path}charge_amount")
    currency = given.charge_denomination
    if currency is None:
        currency = settings_of(call.environment.money).currency
    try:
        payments.refuse_uncharged(charge, currency, f"{path}charge_amount")
    except Refusal as refusal:
        if refusal.details.get("path") != "currency":
            raise
        raise invalid(f"{path}charge_denomination", "is an ISO 4217 code such as USD.") from refusal
    if denomination == currency and amount != charge:
        raise invalid(f"{path}amount", f"is what is charged, {charge}: {currency} is put on a {currency} balance.")
    return Offer(amount, charge, currency)


async def ask_overage(call: Call) -> Answer:
    """Ask a customer to pay for each unit beyond what the plan includes."""
    account = await call.account()
    given = call.decoded(OverageRequestIn)
    price = bodies.decimal(given.overage_charge_amount, "overage_charge_amount")
    if price is None:
        raise invalid("overage_charge_amount", "is required.", "missing_field")
    charged_in = given.overage_charge_denomination
    if charged_in is not None:
        charged_in = bodies.token(charged_in, "overage_charge_denomination", bodies.DENOMINATION_MAX)
    ask = OverageAsk(bodies.token(given.denomination, "denomination", bodies.DENOMINATION_MAX), price, charged_in)
    letter = _letter(given)

    async def verb(unit: Unit) -> Link:
        return await service.ask_overage(call.engine, unit, call.environment, account.id, ask, letter)

    return await call.once(verb, lambda link: _made(call, link), is_secret=True)


def _letter(given: TopupRequestIn | OverageRequestIn) -> Letter:
    message = None if given.message is None else bodies.text(given.message, "message", service.MESSAGE_MAX)
    return Letter(message, return_address(given.return_url), link_life(given.expires_in_seconds))


async def list_requests(call: Call) -> Answer:
    """Requests to a customer, newest first, and what became of them."""
    account = await call.account()
    async with call.engine.database.reading() as reader:
        found = await store.list_requests(reader, call.whose(account), call.page())
    now = call.engine.now()
    return page_of(
        call,
        found,
        lambda row: (row.link.id, row.link.account_id),
        lambda row: RequestOut(**_fields(row, now)),
    )


def _made(call: Call, link: Link) -> bytes:
    fields = _fields(Listed(link, None), call.engine.now())
    url = f"{call.engine.public_url}{PATH}/{service.token_of(call.engine, link)}"
    return shapes.wrapped(RequestMadeOut(**fields, url=url))


def _fields(listed: Listed, now: datetime) -> dict[str, Any]:
    link, payment_id = listed
    asked, plan_id = link.ask, link.ask.get("plan_id")
    status = "done" if link.used_at is not None else "expired" if link.expires_at <= now else "open"
    offers = asked.get("amounts")
    return {
        "id": store.public_id(link),
        "account_id": spell("a", link.account_id),
        "kind": link.kind,
        "status": status,
        "asked": AskedOut(
            denomination=asked["denomination"],
            amounts=None if offers is None else [OfferOut(**offer) for offer in offers],
            overage_charge_amount=asked.get("overage_charge_amount"),
            overage_charge_denomination=asked.get("overage_charge_denomination"),
            plan_id=None if plan_id is None else spell("p", plan_id),
        ),
        "message": asked["message"],
        "return_url": link.return_url,
        "payment_id": None if payment_id is None else spell_of_account("pay", link.account_id, payment_id),
        "created_at": spelled(link.created_at),
        "expires_at": spelled(link.expires_at),
        "used_at": spelled(link.used_at),
    }


_PAGE: Final = "Whoever has the address may answer, once, until it expires: keep it as secret as what it can buy."
ROUTES: Final = (
    Route(
        "POST",
        "/accounts/{account_id}/topup_request",
        ask_topup,
        "Ask a customer to top a balance up",
        "Requests",
        RequestMadeOut,
        scope="payments:write",
        body=TopupRequestIn,
        refusals=("amount_not_chargeable",),
        example={"denomination": "tokens", "amounts": [{"amount": 1000, "charge_amount": 500}]},
        details=_PAGE,
    ),
    Route(
        "POST",
        "/accounts/{account_id}/overage_request",
        ask_overage,
        "Ask a customer to pay for what a plan does not include",
        "Requests",
        RequestMadeOut,
        scope="catalog:write",
        body=OverageRequestIn,
        refusals=("no_plan", "overage_exists"),
        example={"denomination": "tokens", "overage_charge_amount": "1"},
        details=_PAGE,
    ),
    Route(
        "GET",
        "/accounts/{account_id}/requests",
        list_requests,
        "List requests to a customer",
        "Requests",
        RequestOut,
        scope="payments:read",
        query=PAGING,
        is_list=True,
        refusals=("invalid_cursor",),
    ),
)
