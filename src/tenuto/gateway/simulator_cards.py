"""What the Stripe simulator does with customers and their cards.

The problem, on one example. A customer is given the card behind a token, and is charged later while away:

    POST /v1/payment_methods                 card[token]=tok_visa             pm_1, of nobody yet
    POST /v1/payment_methods/pm_1/attach     customer=cus_1                   pm_1 of cus_1, or 402 from the bank
    POST /v1/payment_methods/pm_1/detach                                      pm_1 is spent and may not come back

A built-in ``pm_card_visa`` is a pattern: whoever attaches or charges it gets a fresh payment method made after it.
Every verb takes the change it is part of, the parameters, and the id in the path, and returns Stripe's object.
"""

from __future__ import annotations

from typing import Any

from tenuto.gateway.simulator_book import Account, Change, Obj, Refusal, new_id
from tenuto.gateway.simulator_input import (
    DECLINES,
    Params,
    TestCard,
    card_by_name,
    card_by_number,
    card_error,
    card_of,
    fingerprint_of,
    missing,
)

# --- lists -----------------------------------------------------------------------------------------------------------

_TIMES = ("gt", "gte", "lt", "lte")


def page_of(change: Change, params: Params, kind: str, url: str, *, field: str = "", value: str = "") -> Obj:
    """A page of the account's objects of a kind, newest first."""
    limit, after = params.page(), params.text("starting_after")
    if params.has("ending_before"):
        raise Refusal(400, "The simulator pages forward only.", param="ending_before")
    if after is not None and change.account.place(after) is None:
        raise Refusal(400, f"No such {kind}: '{after}'", code="resource_missing", param="starting_after")
    created = params.fields.get("created")
    wanted = Params(dict(created)) if isinstance(created, dict) else Params({"gte": created, "lte": created})
    wanted.only(*_TIMES)
    gt, gte, lt, lte = (wanted.whole(name) for name in _TIMES)
    found: list[Obj] = []
    for obj in change.account.newest(kind, field, value, before=after):
        at = obj["created"]
        if (gte is not None and at < gte) or (gt is not None and at <= gt):
            break
        if obj.get("deleted") or (lt is not None and at >= lt) or (lte is not None and at > lte):
            continue
        found.append(obj)
        if len(found) > limit:
            break
    return {"object": "list", "url": url, "has_more": len(found) > limit, "data": found[:limit]}


# --- customers -------------------------------------------------------------------------------------------------------

_CUSTOMER_TEXTS = ("description", "email", "name", "phone")
_CUSTOMER = (*_CUSTOMER_TEXTS, "metadata", "address", "shipping", "preferred_locales", "tax_exempt", "invoice_settings")


def create_customer(change: Change, params: Params, _id: str) -> Obj:
    """POST /v1/customers."""
    params.only(*_CUSTOMER, "payment_method")
    made = change.new(
        "cus",
        "customer",
        address=None,
        balance=0,
        currency=None,
        default_source=None,
        delinquent=False,
        description=params.text("description"),
        discount=None,
        email=params.text("email"),
        invoice_prefix=new_id("x")[2:10].upper(),
        invoice_settings={"custom_fields": None, "default_payment_method": None, "footer": None},
        metadata=params.metadata(),
        name=params.text("name"),
        next_invoice_sequence=1,
        phone=params.text("phone"),
        preferred_locales=[],
        shipping=None,
        tax_exempt="none",
        test_clock=None,
    )
    method = params.text("payment_method")
    if method is not None:
        attach(change, method, made["id"])
    change.emit("customer.created", made)
    return made


def read_customer(change: Change, params: Params, id: str) -> Obj:
    """GET /v1/customers/{id}; a deleted one says so."""
    params.only()
    return change.find("customer", id)


def living_customer(change: Change, id: str, param: str = "customer") -> Obj:
    """A customer that can be used. Raises a Refusal for one that is not there any more."""
    found = change.find("customer", id, param=param, status=400 if param == "customer" else 404)
    if found.get("deleted"):
        raise Refusal(400, f"No such customer: '{id}'", code="resource_missing", param=param)
    return found


def update_customer(change: Change, params: Params, id: str) -> Obj:
    """POST /v1/customers/{id}."""
    params.only(*_CUSTOMER)
    found = living_customer(change, id, "id")
    metadata = params.metadata(found["metadata"])
    found.update({name: params.text(name) for name in _CUSTOMER_TEXTS if params.has(name)})
    found["metadata"] = metadata
    default = params.inner("invoice_settings").text("default_payment_method")
    if default is not None:
        found["invoice_settings"]["default_payment_method"] = change.find("payment_method", default)["id"]
    change.emit("customer.updated", found)
    return found


def delete_customer(change: Change, params: Params, id: str) -> Obj:
    """DELETE /v1/customers/{id}: its cards go with it."""
    params.only()
    found = living_customer(change, id, "id")
    for method in list(change.account.newest("payment_method", "customer", id)):
        _detach(change, method)
    change.emit("customer.deleted", dict(found))
    gone: Obj = {"id": id, "object": "customer", "created": found["created"], "deleted": True}
    change.keep(gone)
    return gone


def list_customers(change: Change, params: Params, _id: str) -> Obj:
    """GET /v1/customers."""
    params.only("limit", "starting_after", "ending_before", "created")
    return page_of(change, params, "customer", "/v1/customers")


# --- tokens ----------------------------------------------------------------------------------------------------------


def create_token(change: Change, params: Params, _id: str) -> Obj:
    """POST /v1/tokens."""
    params.only("card")
    given = params.inner("card")
    card = card_by_number(given.needed("number"))
    details = _card_details(card, given)
    made = change.new(
        "tok",
        "token",
        card={"id": new_id("card"), "object": "card", **details},
        client_ip=None,
        type="card",
        used=False,
    )
    change.keep(made)
    return made


def read_token(change: Change, params: Params, id: str) -> Obj:
    """GET /v1/tokens/{id}."""
    params.only()
    return change.find("token", id)


def _card_details(card: TestCard, given: Params) -> dict[str, Any]:
    month, year = given.whole("exp_month", 12) or 0, given.whole("exp_year", 2040) or 0
    if not 1 <= month <= 12:  # noqa: PLR2004 - the months of a year
        raise Refusal(402, "Your card's expiration month is invalid.", type="card_error", code="invalid_expiry_month")
    return {
        "brand": card.brand,
        "country": "US",
        "exp_month": month,
        "exp_year": year + 2000 if year < 100 else year,  # noqa: PLR2004 - two digits are this century's
        "fingerprint": fingerprint_of(card.number),
        "funding": "credit",
        "last4": card.number[-4:],
    }


# --- payment methods -------------------------------------------------------------------------------------------------


def new_method(change: Change, card: TestCard, given: Params, metadata: dict[str, str] | None = None) -> Obj:
    """A fresh payment method for a test card, of nobody yet."""
    details = _card_details(card, given)
    address = {"city": None, "country": None, "line1": None, "line2": None, "postal_code": None, "state": None}
    return change.new(
        "pm",
        "payment_method",
        allow_redisplay="unspecified",
        billing_details={"address": address, "email": None, "name": None, "phone": None, "tax_id": None},
        card={
            **details,
            "checks": {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"},
            "display_brand": details["brand"],
            "generated_from": None,
            "networks": {"available": [details["brand"]], "preferred": None},
            "three_d_secure_usage": {"supported": True},
            "wallet": None,
        },
        customer=None,
        metadata=metadata or {},
        type="card",
    )


def create_method(change: Change, params: Params, _id: str) -> Obj:
    """POST /v1/payment_methods."""
    params.only("type", "card", "metadata", "billing_details", "allow_redisplay")
    if params.needed("type") != "card":
        raise Refusal(400, "The simulator knows cards only.", param="type", is_stored=False)
    given = params.inner("card")
    metadata = params.metadata()
    token = given.text("token")
    if token is None:
        card = card_by_number(given.needed("number"))
    else:
        card, given = _spend_token(change, token)
    made = new_method(change, card, given, metadata)
    made["billing_details"]["name"] = params.inner("billing_details").text("name")
    change.keep(made)
    return made


def _spend_token(change: Change, id: str) -> tuple[TestCard, Params]:
    """The card behind a token, which can be used once unless it is a built-in one."""
    card = card_by_name(id, "tok_")
    if card is not None:
        return card, Params({})
    token = change.find("token", id, param="card[token]", status=400)
    if token["used"]:
        message = f"You cannot use a Stripe token more than once: {id}."
        raise Refusal(400, message, code="token_already_used", param="card[token]")
    token["used"] = True
    change.keep(token)
    return card_of(token), Params({name: str(token["card"][name]) for name in ("exp_month", "exp_year")})


def read_method(change: Change, params: Params, id: str) -> Obj:
    """GET /v1/payment_methods/{id}."""
    params.only()
    return change.find("payment_method", id)


def update_method(change: Change, params: Params, id: str) -> Obj:
    """POST /v1/payment_methods/{id}."""
    params.only("metadata", "billing_details", "card", "allow_redisplay")
    found = change.find("payment_method", id)
    found["metadata"] = params.metadata(found["metadata"])
    details = params.inner("billing_details")
    if details.has("name"):
        found["billing_details"]["name"] = details.text("name")
    change.emit("payment_method.updated", found)
    return found


def usable_method(change: Change, id: str) -> Obj:
    """A payment method that may be charged or attached; a fresh one for a built-in ``pm_card_…``."""
    card = card_by_name(id, "pm_card_")
    if card is not None:
        made = new_method(change, card, Params({}))
        change.keep(made)
        return made
    found = change.find("payment_method", id, param="payment_method", status=400)
    if id in change.account.spent:
        message = (
            "This PaymentMethod was previously used without being attached to a Customer or was detached from a "
            "Customer, and may not be used again."
        )
        raise Refusal(400, message, param="payment_method")
    return found


def attach(change: Change, id: str, customer: str) -> Obj:
    """Give a payment method to a customer. Raises the bank's no."""
    found = usable_method(change, id)
    if found["customer"] == customer:
        return found
    if found["customer"] is not None:
        raise Refusal(400, "The payment method you provided has already been attached to a customer.")
    why = change.declined() or card_of(found).attach
    if why is not None:
        raise card_error(DECLINES[why])
    found["customer"] = customer
    change.emit("payment_method.attached", found)
    return found


def attach_method(change: Change, params: Params, id: str) -> Obj:
    """POST /v1/payment_methods/{id}/attach."""
    params.only("customer")
    return attach(change, id, str(living_customer(change, params.needed("customer"))["id"]))


def detach_method(change: Change, params: Params, id: str) -> Obj:
    """POST /v1/payment_methods/{id}/detach."""
    params.only()
    found = change.find("payment_method", id)
    if found["customer"] is None:
        message = "The payment method you provided is not attached to a customer so detachment is impossible."
        raise Refusal(400, message, param="payment_method")
    _detach(change, found)
    return found


def _detach(change: Change, method: Obj) -> None:
    method["customer"] = None
    change.spend(method["id"])
    change.emit("payment_method.detached", method)


def list_methods(change: Change, params: Params, _id: str) -> Obj:
    """GET /v1/payment_methods?customer=…."""
    params.only("customer", "type", "limit", "starting_after", "ending_before")
    customer = living_customer(change, params.needed("customer"))["id"]
    return page_of(change, params, "payment_method", "/v1/payment_methods", field="customer", value=customer)


def list_customer_methods(change: Change, params: Params, id: str) -> Obj:
    """GET /v1/customers/{id}/payment_methods."""
    params.only("type", "limit", "starting_after", "ending_before", "allow_redisplay")
    living_customer(change, id, "id")
    url = f"/v1/customers/{id}/payment_methods"
    return page_of(change, params, "payment_method", url, field="customer", value=id)


# --- setup intents ---------------------------------------------------------------------------------------------------


def create_setup(change: Change, params: Params, _id: str) -> Obj:
    """POST /v1/setup_intents."""
    params.only(
        "customer",
        "payment_method",
        "allowed_payment_method_types",
        "payment_method_types",
        "automatic_payment_methods",
        "usage",
        "metadata",
        "description",
        "confirm",
        "return_url",
    )
    customer, method = params.text("customer"), params.text("payment_method")
    if customer is not None:
        living_customer(change, customer)
    metadata, usage = params.metadata(), params.choice("usage", "off_session", "off_session", "on_session")
    if method is not None:
        method = usable_method(change, method)["id"]
    made = change.new(
        "seti",
        "setup_intent",
        application=None,
        automatic_payment_methods=automatic_methods(params),
        cancellation_reason=None,
        client_secret=None,
        customer=customer,
        description=params.text("description"),
        last_setup_error=None,
        latest_attempt=None,
        mandate=None,
        metadata=metadata,
        next_action=None,
        payment_method=method,
        payment_method_options={"card": {"request_three_d_secure": "automatic"}},
        **allowed_methods(params),
        status="requires_payment_method" if method is None else "requires_confirmation",
        usage=usage,
    )
    made["client_secret"] = f"{made['id']}_secret_{new_id('s')[2:]}"
    change.emit("setup_intent.created", made)
    if params.truth("confirm"):
        _confirm_setup(change, made)
    return made


def allowed_methods(params: Params) -> dict[str, Any]:
    """The types of payment methods that an intent takes; older callers give them by another name."""
    allowed = params.items("allowed_payment_method_types") or params.items("payment_method_types")
    for unknown in set(allowed) - {"card"}:
        raise Refusal(400, f"The simulator knows cards only, not {unknown}.", param="allowed_payment_method_types")
    return {"allowed_payment_method_types": allowed or None, "payment_method_types": ["card"]}


def automatic_methods(params: Params) -> dict[str, Any] | None:
    """How an intent chooses payment methods, as Stripe shows it."""
    given = params.inner("automatic_payment_methods")
    if params.has("allowed_payment_method_types") or params.has("payment_method_types"):
        return None
    redirects = given.choice("allow_redirects", "always", "always", "never")
    return {"allow_redirects": redirects, "enabled": given.truth("enabled", default=True)}


def read_setup(change: Change, params: Params, id: str) -> Obj:
    """GET /v1/setup_intents/{id}."""
    params.only("client_secret")
    return change.find("setup_intent", id)


def list_setups(change: Change, params: Params, _id: str) -> Obj:
    """GET /v1/setup_intents."""
    params.only("customer", "created", "limit", "starting_after", "ending_before")
    customer = params.text("customer")
    field = "customer" if customer else ""
    return page_of(change, params, "setup_intent", "/v1/setup_intents", field=field, value=customer or "")


def confirm_setup(change: Change, params: Params, id: str) -> Obj:
    """POST /v1/setup_intents/{id}/confirm."""
    params.only("payment_method", "return_url", "client_secret", "use_stripe_sdk", "mandate_data")
    found = change.find("setup_intent", id)
    if found["status"] in {"succeeded", "canceled"}:
        raise unexpected_setup(found, "confirm")
    method = params.text("payment_method")
    if method is not None:
        found["payment_method"] = usable_method(change, method)["id"]
        change.keep(found)
    _confirm_setup(change, found)
    return found


def unexpected_setup(found: Obj, verb: str) -> Refusal:
    """What Stripe says when a SetupIntent is past what was asked of it."""
    message = f"You cannot {verb} this SetupIntent because it has a status of {found['status']}."
    return Refusal(400, message, code="setup_intent_unexpected_state", setup_intent=dict(found))


def _confirm_setup(change: Change, intent: Obj) -> None:
    if intent["payment_method"] is None:
        raise missing("payment_method")
    method = change.find("payment_method", intent["payment_method"], param="payment_method", status=400)
    if method["customer"] not in {None, intent["customer"]}:
        message = "The payment method must be attached to the customer of the SetupIntent, or to nobody."
        raise Refusal(400, message, param="payment_method")
    card = card_of(method)
    why = change.declined() or card.attach
    if why is not None:
        intent["status"], intent["payment_method"] = "requires_payment_method", None
        refusal = card_error(DECLINES[why], payment_method=method)
        intent["last_setup_error"] = refusal.error.copy()
        change.emit("setup_intent.setup_failed", intent)
        refusal.error["setup_intent"] = intent
        raise refusal
    if card.authentication is not None:
        intent["status"] = "requires_action"
        intent["next_action"] = {"type": "use_stripe_sdk", "use_stripe_sdk": {"type": "three_d_secure_redirect"}}
        change.emit("setup_intent.requires_action", intent)
        return
    finish_setup(change, intent)


def finish_setup(change: Change, intent: Obj) -> None:
    """A SetupIntent succeeds, and its card is the customer's."""
    method = change.find("payment_method", intent["payment_method"])
    customer = intent["customer"]
    if customer is not None and method["customer"] is None:
        method["customer"] = customer
        change.emit("payment_method.attached", method)
    intent.update(status="succeeded", next_action=None, last_setup_error=None, latest_attempt=new_id("setatt"))
    change.emit("setup_intent.succeeded", intent)


def cancel_setup(change: Change, params: Params, id: str) -> Obj:
    """POST /v1/setup_intents/{id}/cancel."""
    params.only("cancellation_reason")
    found = change.find("setup_intent", id)
    if found["status"] in {"succeeded", "canceled"}:
        raise unexpected_setup(found, "cancel")
    found.update(status="canceled", cancellation_reason=params.text("cancellation_reason"), next_action=None)
    change.emit("setup_intent.canceled", found)
    return found


# --- events and endpoints --------------------------------------------------------------------------------------------


def read_event(change: Change, params: Params, id: str) -> Obj:
    """GET /v1/events/{id}."""
    params.only()
    found = change.account.events.get(id)
    if found is None:
        raise Refusal(404, f"No such event: '{id}'", code="resource_missing", param="id")
    return found.shown(is_live=change.account.is_live)


def list_events(change: Change, params: Params, _id: str) -> Obj:
    """GET /v1/events, newest first."""
    params.only("type", "types", "created", "limit", "starting_after", "ending_before")
    account, limit, after = change.account, params.page(), params.text("starting_after")
    since = params.inner("created").whole("gte", 0) or 0
    types = set(params.items("types")) | ({wanted} if (wanted := params.text("type")) else set())
    found: list[Obj] = []
    is_past = after is None
    for event in reversed(account.events.values()):
        if is_past and event.created >= since and (not types or event.type in types):
            found.append(event.shown(is_live=account.is_live))
        is_past = is_past or event.id == after
        if len(found) > limit:
            break
    return {"object": "list", "url": "/v1/events", "has_more": len(found) > limit, "data": found[:limit]}


def create_endpoint(change: Change, params: Params, _id: str) -> Obj:
    """POST /v1/webhook_endpoints: the answer alone holds the secret."""
    params.only("url", "enabled_events", "api_version", "description", "metadata", "connect")
    url, types = params.needed("url"), params.items("enabled_events")
    if not types:
        raise missing("enabled_events")
    if not url.startswith(("http://", "https://")):
        raise Refusal(400, "Invalid URL: URL must be publicly accessible.", code="url_invalid", param="url")
    return add_endpoint(change, url, types, f"whsec_{new_id('w')[2:]}", params.metadata())


def add_endpoint(change: Change, url: str, types: list[str], secret: str, metadata: dict[str, str]) -> Obj:
    """Make an endpoint with a given secret."""
    made = change.new(
        "we",
        "webhook_endpoint",
        api_version=None,
        application=None,
        description=None,
        enabled_events=types,
        metadata=metadata,
        secret=secret,
        status="enabled",
        url=url,
    )
    change.keep(made)
    return made


def list_endpoints(change: Change, params: Params, _id: str) -> Obj:
    """GET /v1/webhook_endpoints."""
    params.only("limit", "starting_after", "ending_before")
    page = page_of(change, params, "webhook_endpoint", "/v1/webhook_endpoints")
    page["data"] = [{name: value for name, value in found.items() if name != "secret"} for found in page["data"]]
    return page


def delete_endpoint(change: Change, params: Params, id: str) -> Obj:
    """DELETE /v1/webhook_endpoints/{id}."""
    params.only()
    found = change.find("webhook_endpoint", id)
    gone: Obj = {"id": id, "object": "webhook_endpoint", "created": found["created"], "deleted": True}
    change.keep(gone)
    return gone


def read_account(change: Change, params: Params, _id: str) -> Obj:
    """GET /v1/account."""
    params.only()
    return {
        "id": account_id(change.account),
        "object": "account",
        "charges_enabled": True,
        "country": "US",
        "default_currency": "usd",
        "details_submitted": True,
        "payouts_enabled": True,
        "type": "standard",
    }


def read_balance(change: Change, params: Params, _id: str) -> Obj:
    """GET /v1/balance: the simulator keeps no money, so it is always empty."""
    params.only()
    none = [{"amount": 0, "currency": "usd", "source_types": {"card": 0}}]
    return {"object": "balance", "available": none, "livemode": change.account.is_live, "pending": none}


def account_id(account: Account) -> str:
    """What Stripe would call the account."""
    return f"acct_{fingerprint_of(account.name)}"
