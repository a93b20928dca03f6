"""What the Stripe simulator does with money: intents, charges, refunds and disputes.

The problem, on one example. An intent over 10 dollars is confirmed twice, once with a card that has no funds:

    POST /v1/payment_intents                      requires_confirmation, or requires_payment_method without a card
    …/confirm    a card without funds             402; a failed charge; requires_payment_method again
    …/confirm    a good card                      succeeded; a charge that paid
    …/confirm    once more                        400 payment_intent_unexpected_state, with the intent inside
    POST /v1/refunds  amount=400, then 700        the first; then 400: only 600 is left

Every function takes the change it is part of, the parameters, and the id in the path, and returns Stripe's object.
"""

from __future__ import annotations

import math
from typing import Any, Final

from tenuto.gateway.simulator_book import Change, Obj, Refusal, new_id
from tenuto.gateway.simulator_cards import (
    allowed_methods,
    automatic_methods,
    finish_setup,
    living_customer,
    page_of,
    usable_method,
)
from tenuto.gateway.simulator_input import DECLINES, Params, TestCard, card_error, card_of, missing, refuse_amount

_OPEN: Final = ("requires_payment_method", "requires_confirmation", "requires_action")
_CREATE: Final = (
    "amount",
    "currency",
    "customer",
    "payment_method",
    "allowed_payment_method_types",
    "payment_method_types",
    "automatic_payment_methods",
    "capture_method",
    "confirmation_method",
    "setup_future_usage",
    "metadata",
    "description",
    "receipt_email",
    "statement_descriptor",
    "statement_descriptor_suffix",
    "shipping",
    "payment_method_options",
)
_CONFIRM: Final = ("off_session", "return_url", "error_on_requires_action", "use_stripe_sdk", "mandate_data")


# --- making and changing ---------------------------------------------------------------------------------------------


def create_intent(change: Change, params: Params, _id: str) -> Obj:
    """POST /v1/payment_intents."""
    params.only(*_CREATE, *_CONFIRM, "confirm")
    amount = params.whole("amount")
    if amount is None:
        raise missing("amount")
    currency = params.needed("currency").lower()
    refuse_amount(amount, currency)
    is_confirmed = params.truth("confirm")
    if params.has("off_session") and not is_confirmed:
        message = "`off_session` can only be passed when `confirm` is `true`."
        raise Refusal(400, message, code="parameter_missing", param="confirm", is_stored=False)
    customer, method = params.text("customer"), params.text("payment_method")
    if customer is not None:
        living_customer(change, customer)
    capture = params.choice("capture_method", "automatic_async", "automatic", "automatic_async", "manual")
    found = change.new(
        "pi",
        "payment_intent",
        amount=amount,
        amount_capturable=0,
        amount_details={"tip": {}},
        amount_received=0,
        application=None,
        application_fee_amount=None,
        automatic_payment_methods=automatic_methods(params),
        canceled_at=None,
        cancellation_reason=None,
        capture_method=capture,
        client_secret=None,
        confirmation_method=params.choice("confirmation_method", "automatic", "automatic", "manual"),
        currency=currency,
        customer=customer,
        description=params.text("description"),
        last_payment_error=None,
        latest_charge=None,
        metadata=params.metadata(),
        next_action=None,
        on_behalf_of=None,
        payment_method=None,
        payment_method_options={"card": {"request_three_d_secure": "automatic"}},
        **allowed_methods(params),
        processing=None,
        receipt_email=params.text("receipt_email"),
        setup_future_usage=params.text("setup_future_usage"),
        shipping=None,
        statement_descriptor=params.text("statement_descriptor"),
        statement_descriptor_suffix=params.text("statement_descriptor_suffix"),
        status="requires_payment_method",
    )
    found["client_secret"] = f"{found['id']}_secret_{new_id('s')[2:]}"
    if method is not None:
        _use(change, found, method)
    change.emit("payment_intent.created", found)
    if is_confirmed:
        _confirm(change, found, params)
    return found


def _use(change: Change, intent: Obj, method: str) -> None:
    """Put a payment method on an intent. Raises a Refusal for one of somebody else's."""
    found = usable_method(change, method)
    if found["customer"] is not None and found["customer"] != intent["customer"]:
        if intent["customer"] is None:
            message = (
                f"The PaymentMethod {method} belongs to a Customer. Please include the Customer in the `customer` "
                "parameter on the PaymentIntent."
            )
        else:
            message = (
                f"The customer does not have a payment method with the ID {method}. The payment method must be "
                "attached to the customer."
            )
        raise Refusal(400, message, param="payment_method")
    intent["payment_method"] = found["id"]
    if intent["status"] == "requires_payment_method":
        intent["status"] = "requires_confirmation"


def read_intent(change: Change, params: Params, id: str) -> Obj:
    """GET /v1/payment_intents/{id}."""
    params.only("client_secret")
    return change.find("payment_intent", id, param="intent")


def list_intents(change: Change, params: Params, _id: str) -> Obj:
    """GET /v1/payment_intents, newest first."""
    params.only("customer", "created", "limit", "starting_after", "ending_before")
    customer = params.text("customer")
    field = "customer" if customer else ""
    return page_of(change, params, "payment_intent", "/v1/payment_intents", field=field, value=customer or "")


def _unexpected(intent: Obj, message: str) -> Refusal:
    return Refusal(400, message, code="payment_intent_unexpected_state", payment_intent=dict(intent))


def update_intent(change: Change, params: Params, id: str) -> Obj:
    """POST /v1/payment_intents/{id}."""
    params.only(*_CREATE)
    found = change.find("payment_intent", id, param="intent")
    fixed = [name for name in ("amount", "currency", "payment_method", "customer") if params.has(name)]
    if fixed and found["status"] not in _OPEN:
        raise _unexpected(
            found,
            f"This PaymentIntent's {fixed[0]} could not be updated because it has a status of {found['status']}. You "
            "may only update the given parameters of a PaymentIntent with one of the following statuses: "
            f"{', '.join(_OPEN)}.",
        )
    amount = params.whole("amount", found["amount"]) or 0
    currency = (params.text("currency") or found["currency"]).lower()
    refuse_amount(amount, currency)
    metadata, customer, method = params.metadata(found["metadata"]), params.text("customer"), None
    if customer is not None:
        living_customer(change, customer)
        found["customer"] = customer
        change.keep(found)
    method = params.text("payment_method")
    if method is not None:
        _use(change, found, method)
    found.update(amount=amount, currency=currency, metadata=metadata)
    found.update({name: params.text(name) for name in ("description", "receipt_email") if params.has(name)})
    change.keep(found)
    return found


def cancel_intent(change: Change, params: Params, id: str) -> Obj:
    """POST /v1/payment_intents/{id}/cancel."""
    params.only("cancellation_reason")
    found = change.find("payment_intent", id, param="intent")
    if found["status"] not in {*_OPEN, "requires_capture"}:
        raise _unexpected(
            found,
            f"You cannot cancel this PaymentIntent because it has a status of {found['status']}. Only a PaymentIntent "
            f"with one of the following statuses may be canceled: {', '.join(_OPEN)}, requires_capture.",
        )
    if found["status"] == "requires_capture":
        charge = change.find("charge", found["latest_charge"])
        charge.update(amount_refunded=charge["amount"], refunded=True)
        change.emit("charge.refunded", charge)
    found.update(
        status="canceled",
        amount_capturable=0,
        canceled_at=change.now,
        cancellation_reason=params.text("cancellation_reason"),
        next_action=None,
    )
    change.emit("payment_intent.canceled", found)
    return found


# --- paying ----------------------------------------------------------------------------------------------------------


def confirm_intent(change: Change, params: Params, id: str) -> Obj:
    """POST /v1/payment_intents/{id}/confirm."""
    params.only("payment_method", "allowed_payment_method_types", "receipt_email", "setup_future_usage", *_CONFIRM)
    found = change.find("payment_intent", id, param="intent")
    status = found["status"]
    if status == "succeeded":
        message = (
            "You cannot confirm this PaymentIntent because it has already succeeded after being previously confirmed."
        )
        raise _unexpected(found, message)
    if status not in _OPEN:
        raise _unexpected(found, f"You cannot confirm this PaymentIntent because it has a status of {status}.")
    method = params.text("payment_method")
    if method is not None:
        _use(change, found, method)
    _confirm(change, found, params)
    return found


def _confirm(change: Change, intent: Obj, params: Params) -> None:
    """Charge the intent's card, once. Raises the bank's no, after noting it."""
    is_away = params.text("off_session") not in {None, "false"}
    change.keep(intent)
    if intent["payment_method"] is None:
        message = (
            "You cannot confirm this PaymentIntent because it's missing a payment method. You can either update the "
            "PaymentIntent with a payment method and then confirm it again, or confirm it again directly with a "
            "payment method or ConfirmationToken."
        )
        raise _unexpected(intent, message)
    automatic = intent["automatic_payment_methods"] or {"allow_redirects": "never", "enabled": True}
    if (
        not is_away
        and automatic["allow_redirects"] == "always"
        and automatic["enabled"]
        and not params.has("return_url")
    ):
        message = (
            "This PaymentIntent is configured to accept payment methods enabled in your Dashboard. Because some of "
            "these payment methods might redirect your customer off of your page, you must provide a `return_url`. If "
            "you don't want to accept redirect-based payment methods, set "
            "`automatic_payment_methods[enabled]` to `true` and `automatic_payment_methods[allow_redirects]` to "
            "`never` when creating Setup Intents and Payment Intents."
        )
        raise Refusal(400, message, is_stored=False)
    method = change.find("payment_method", intent["payment_method"])
    card = card_of(method)
    intent.update(last_payment_error=None, next_action=None)
    if _is_authentication_due(change, card, method):
        if is_away or params.truth("error_on_requires_action"):
            _decline(change, intent, method, "authentication_required")
        intent["status"] = "requires_action"
        intent["next_action"] = {"type": "use_stripe_sdk", "use_stripe_sdk": {"type": "three_d_secure_redirect"}}
        change.emit("payment_intent.requires_action", intent)
        return
    pay(change, intent)


def _is_authentication_due(change: Change, card: TestCard, method: Obj) -> bool:
    if card.authentication != "unless_set_up":
        return card.authentication is not None
    set_up = change.account.newest("setup_intent", "payment_method", method["id"])
    return not any(found["status"] == "succeeded" for found in set_up)


def pay(change: Change, intent: Obj) -> None:
    """Ask the bank: the intent succeeds, waits for capture, stays processing, or is declined (raised)."""
    method = change.find("payment_method", intent["payment_method"])
    card = card_of(method)
    why = change.declined() or card.charge
    if why is not None:
        _decline(change, intent, method, why)
    if method["customer"] is None:
        if intent["setup_future_usage"] is not None and intent["customer"] is not None:
            method["customer"] = intent["customer"]
            change.emit("payment_method.attached", method)
        else:
            change.spend(method["id"])
    fault = change.ask_bank("processing")
    if card.is_slow or fault is not None:
        intent["status"] = "processing"
        seconds = math.inf if fault is None or fault.seconds is None else fault.seconds
        change.finish_at(change.now + seconds, intent["id"], "paid")
        change.emit("payment_intent.processing", intent)
        return
    _charge(change, intent, method)


def _charge(change: Change, intent: Obj, method: Obj) -> None:
    """The bank says yes."""
    is_captured = intent["capture_method"] != "manual"
    charge = _new_charge(change, intent, method)
    charge.update(
        amount_captured=intent["amount"] if is_captured else 0,
        captured=is_captured,
        paid=True,
        status="succeeded",
        balance_transaction=new_id("txn") if is_captured else None,
        outcome={
            "network_status": "approved_by_network",
            "reason": None,
            "risk_level": "normal",
            "seller_message": "Payment complete.",
            "type": "authorized",
        },
    )
    intent.update(latest_charge=charge["id"], last_payment_error=None, next_action=None)
    change.emit("charge.succeeded", charge)
    if not is_captured:
        intent.update(status="requires_capture", amount_capturable=intent["amount"])
        change.emit("payment_intent.amount_capturable_updated", intent)
        return
    intent.update(status="succeeded", amount_received=intent["amount"])
    change.emit("payment_intent.succeeded", intent)
    reason = card_of(method).dispute
    if reason is not None:
        open_dispute(change, charge, reason)


def _decline(change: Change, intent: Obj, method: Obj, why: str) -> None:
    """The bank says no. Always raises."""
    decline = DECLINES[why]
    charge = _new_charge(change, intent, method)
    charge.update(
        failure_code=decline.code,
        failure_message=decline.message,
        paid=False,
        status="failed",
        outcome={
            "network_status": "declined_by_network",
            "reason": decline.decline_code,
            "risk_level": "normal",
            "seller_message": "The bank did not return any further details with this decline.",
            "type": "issuer_declined",
        },
    )
    refusal = card_error(decline, charge=charge["id"], payment_method=dict(method))
    intent.update(
        status="requires_payment_method",
        payment_method=None,
        latest_charge=charge["id"],
        last_payment_error=refusal.error.copy(),
        next_action=None,
    )
    if method["customer"] is None:
        change.spend(method["id"])
    change.emit("charge.failed", charge)
    change.emit("payment_intent.payment_failed", intent)
    refusal.error["payment_intent"] = dict(intent)
    raise refusal


def _new_charge(change: Change, intent: Obj, method: Obj) -> Obj:
    card = method["card"]
    shown = ("brand", "checks", "country", "exp_month", "exp_year", "fingerprint", "funding", "last4", "wallet")
    return change.new(
        "ch",
        "charge",
        amount=intent["amount"],
        amount_captured=0,
        amount_refunded=0,
        application=None,
        balance_transaction=None,
        billing_details=method["billing_details"],
        calculated_statement_descriptor="TENUTO SIMULATOR",
        captured=False,
        currency=intent["currency"],
        customer=intent["customer"],
        description=intent["description"],
        disputed=False,
        failure_balance_transaction=None,
        failure_code=None,
        failure_message=None,
        fraud_details={},
        metadata=dict(intent["metadata"]),
        outcome=None,
        payment_intent=intent["id"],
        payment_method=method["id"],
        payment_method_details={
            "card": {name: card[name] for name in shown} | {"network": card["brand"], "three_d_secure": None},
            "type": "card",
        },
        receipt_email=intent["receipt_email"],
        receipt_number=None,
        receipt_url=None,
        refunded=False,
        review=None,
        shipping=None,
        statement_descriptor=None,
    )


def capture_intent(change: Change, params: Params, id: str) -> Obj:
    """POST /v1/payment_intents/{id}/capture: all that was reserved, or a part of it."""
    params.only("amount_to_capture", "metadata", "statement_descriptor")
    found = change.find("payment_intent", id, param="intent")
    if found["status"] != "requires_capture":
        raise _unexpected(
            found,
            f"This PaymentIntent could not be captured because it has a status of {found['status']}. Only a "
            "PaymentIntent with one of the following statuses may be captured: requires_capture.",
        )
    amount = params.whole("amount_to_capture", found["amount_capturable"]) or 0
    if not 1 <= amount <= found["amount_capturable"]:
        message = "The requested capture amount is greater than the amount you can capture for this charge."
        raise Refusal(400, message, code="amount_too_large", param="amount_to_capture")
    charge = change.find("charge", found["latest_charge"])
    charge.update(amount_captured=amount, captured=True, balance_transaction=new_id("txn"))
    charge["amount_refunded"] = charge["amount"] - amount
    found.update(
        status="succeeded", amount_received=amount, amount_capturable=0, metadata=params.metadata(found["metadata"])
    )
    change.emit("charge.captured", charge)
    change.emit("payment_intent.succeeded", found)
    return found


# --- charges and refunds ---------------------------------------------------------------------------------------------


def read_charge(change: Change, params: Params, id: str) -> Obj:
    """GET /v1/charges/{id}."""
    params.only()
    return change.find("charge", id)


def _listed_by(params: Params, *fields: str) -> dict[str, str]:
    for field in fields:
        value = params.text(field)
        if value is not None:
            return {"field": field, "value": value}
    return {}


def list_charges(change: Change, params: Params, _id: str) -> Obj:
    """GET /v1/charges, by intent or customer."""
    params.only("payment_intent", "customer", "created", "limit", "starting_after", "ending_before")
    return page_of(change, params, "charge", "/v1/charges", **_listed_by(params, "payment_intent", "customer"))


def create_refund(change: Change, params: Params, _id: str) -> Obj:
    """POST /v1/refunds: all that is left of a charge, or a part of it."""
    params.only("payment_intent", "charge", "amount", "metadata", "reason", "currency")
    charge = _charge_to_refund(change, params)
    left = charge["amount"] - charge["amount_refunded"]
    if left <= 0:
        message = f"Charge {charge['id']} has already been refunded."
        raise Refusal(400, message, code="charge_already_refunded")
    amount = params.whole("amount", left) or 0
    if amount < 1:
        raise Refusal(400, "Invalid positive integer", code="parameter_invalid_integer", param="amount")
    if amount > left:
        message = f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})"
        raise Refusal(400, message, param="amount")
    reason = params.choice("reason", "", "", "duplicate", "fraudulent", "requested_by_customer") or None
    method = change.find("payment_method", charge["payment_method"])
    outcome, seconds, fault = card_of(method).refund, math.inf, change.ask_bank("refund_pending")
    if fault is not None:
        outcome, seconds = fault.code or "failed", math.inf if fault.seconds is None else fault.seconds
    made = change.new(
        "re",
        "refund",
        amount=amount,
        balance_transaction=new_id("txn"),
        charge=charge["id"],
        currency=charge["currency"],
        customer=charge["customer"],
        destination_details={"card": {"reference_status": "pending", "type": "refund"}, "type": "card"},
        metadata=params.metadata(),
        payment_intent=charge["payment_intent"],
        payment_method=charge["payment_method"],
        reason=reason,
        receipt_number=None,
        source_transfer_reversal=None,
        status="succeeded" if outcome is None else "pending",
        transfer_reversal=None,
    )
    _note_refunded(charge, amount)
    change.emit("charge.refunded", charge)
    change.emit("refund.created", made)
    if outcome is not None:
        change.finish_at(change.now + seconds, made["id"], outcome)
    return made


def _charge_to_refund(change: Change, params: Params) -> Obj:
    id, intent_id = params.text("charge"), params.text("payment_intent")
    if intent_id is not None:
        intent = change.find("payment_intent", intent_id, param="payment_intent", status=404)
        if intent["status"] != "succeeded":
            message = f"This PaymentIntent ({intent_id}) does not have a successful charge to refund."
            raise Refusal(400, message, code="payment_intent_unexpected_state", param="payment_intent")
        id = intent["latest_charge"]
    if id is None:
        message = "One of the following params should be provided for this request: payment_intent or charge."
        raise Refusal(400, message, code="parameter_missing", is_stored=False)
    charge = change.find("charge", id, param="charge", status=404)
    if not charge["captured"]:
        raise Refusal(400, f"Charge {id} has not been captured and cannot be refunded.", param="charge")
    if charge["disputed"] and _is_lost(change, charge):
        raise Refusal(400, f"Charge {id} has been charged back; cannot issue a refund.", code="charge_disputed")
    return charge


def _is_lost(change: Change, charge: Obj) -> bool:
    return any(found["status"] != "won" for found in change.account.newest("dispute", "charge", charge["id"]))


def _note_refunded(charge: Obj, amount: int) -> None:
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] >= charge["amount"]


def read_refund(change: Change, params: Params, id: str) -> Obj:
    """GET /v1/refunds/{id}."""
    params.only()
    return change.find("refund", id)


def update_refund(change: Change, params: Params, id: str) -> Obj:
    """POST /v1/refunds/{id}: its metadata."""
    params.only("metadata")
    found = change.find("refund", id)
    found["metadata"] = params.metadata(found["metadata"])
    change.emit("refund.updated", found)
    return found


def list_refunds(change: Change, params: Params, _id: str) -> Obj:
    """GET /v1/refunds, by intent or charge."""
    params.only("payment_intent", "charge", "created", "limit", "starting_after", "ending_before")
    return page_of(change, params, "refund", "/v1/refunds", **_listed_by(params, "payment_intent", "charge"))


# --- disputes --------------------------------------------------------------------------------------------------------


def open_dispute(change: Change, charge: Obj, reason: str = "fraudulent", amount: int | None = None) -> Obj:
    """The cardholder takes the money back through the bank, for now."""
    taken = charge["amount_captured"] if amount is None else amount
    made = change.new(
        "du",
        "dispute",
        amount=taken,
        balance_transactions=[],
        charge=charge["id"],
        currency=charge["currency"],
        enhanced_eligibility_types=[],
        evidence={},
        evidence_details={"due_by": change.now + 7 * 86400, "has_evidence": False, "submission_count": 0},
        is_charge_refundable=False,
        metadata={},
        payment_intent=charge["payment_intent"],
        payment_method_details={"card": {"brand": "visa", "case_type": "chargeback"}, "type": "card"},
        reason=reason,
        status="needs_response",
    )
    charge["disputed"] = True
    change.keep(charge)
    change.emit("charge.dispute.created", made)
    made["balance_transactions"] = [_movement(change, made, -taken)]
    change.emit("charge.dispute.funds_withdrawn", made)
    return made


def _movement(change: Change, dispute: Obj, amount: int) -> dict[str, Any]:
    return {
        "id": new_id("txn"),
        "object": "balance_transaction",
        "amount": amount,
        "created": change.now,
        "currency": dispute["currency"],
        "source": dispute["id"],
        "type": "adjustment",
    }


def end_dispute(change: Change, id: str, status: str) -> Obj:
    """The bank decides: ``won`` gives the money back, ``lost`` does not."""
    found = change.find("dispute", id)
    if found["status"] in {"won", "lost"}:
        raise Refusal(400, f"This dispute is already closed: it was {found['status']}.")
    found["status"] = status
    change.emit("charge.dispute.closed", found)
    if status == "won":
        found["balance_transactions"] = [
            *found["balance_transactions"],
            _movement(change, found, found["amount"]),
        ]
        change.emit("charge.dispute.funds_reinstated", found)
    return found


def close_dispute(change: Change, params: Params, id: str) -> Obj:
    """POST /v1/disputes/{id}/close: the merchant gives in."""
    params.only()
    return end_dispute(change, id, "lost")


def read_dispute(change: Change, params: Params, id: str) -> Obj:
    """GET /v1/disputes/{id}."""
    params.only()
    return change.find("dispute", id)


def list_disputes(change: Change, params: Params, _id: str) -> Obj:
    """GET /v1/disputes, by intent or charge."""
    params.only("payment_intent", "charge", "created", "limit", "starting_after", "ending_before")
    return page_of(change, params, "dispute", "/v1/disputes", **_listed_by(params, "payment_intent", "charge"))


# --- what happens without a request ----------------------------------------------------------------------------------


def finish(change: Change, id: str, outcome: str) -> None:
    """What waited is over: a processing intent is paid or fails, a pending refund succeeds or fails."""
    found = change.account.objects.get(id)
    if found is None:
        return
    if found["object"] == "payment_intent" and found["status"] == "processing":
        method = change.find("payment_method", found["payment_method"])
        try:
            if outcome == "paid":
                _charge(change, found, method)
            else:
                _decline(change, found, method, outcome)
        except Refusal:
            return
    if found["object"] == "refund" and found["status"] == "pending":
        found["status"] = outcome
        if outcome == "failed":
            found.update(failure_reason="expired_or_canceled_card", failure_balance_transaction=new_id("txn"))
            charge = change.find("charge", found["charge"])
            _note_refunded(charge, -found["amount"])
            change.keep(charge)
            change.emit("refund.failed", found)
        change.emit("refund.updated", found)
        change.emit("charge.refund.updated", found)


def authenticate(change: Change, id: str, *, is_passed: bool) -> Obj:
    """The cardholder answers the bank's question about an intent or a SetupIntent that requires action."""
    found = change.account.objects.get(id)
    if found is None or found.get("status") != "requires_action":
        raise Refusal(400, f"{id} does not require action.")
    if not is_passed:
        message = "We are unable to authenticate your payment method."
        problem = {"type": "card_error", "code": "payment_intent_authentication_failure", "message": message}
        is_payment = found["object"] == "payment_intent"
        name = "last_payment_error" if is_payment else "last_setup_error"
        found.update(status="requires_payment_method", next_action=None, payment_method=None, **{name: problem})
        change.emit("payment_intent.payment_failed" if is_payment else "setup_intent.setup_failed", found)
    elif found["object"] == "setup_intent":
        finish_setup(change, found)
    else:
        try:
            pay(change, found)
        except Refusal:
            return found
    return found
