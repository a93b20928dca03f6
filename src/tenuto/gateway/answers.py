"""Stripe's objects in the words of our port.

The problem, on one example. The answer to a declined charge of 500 krona is a PaymentIntent of many fields:

    {"id": "pi_1", "status": "requires_payment_method", "amount": 50000, "currency": "isk", "latest_charge": "ch_1",
     "last_payment_error": {"code": "card_declined", "decline_code": "insufficient_funds", ...}, ...}

and becomes ``Intent("pi_1", "requires_payment_method", 500, 0, "ISK", ..., Decline("insufficient_funds", ...))``: our
amounts, the most precise word of why, and no charge, since none of them paid. Everything here is pure; an object that
lacks what it must have raises KeyError, TypeError or ValueError.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, cast, get_args

from tenuto.core.cards import from_stripe
from tenuto.gateway.port import Card, Decline, GatewayRefund, GatewayTaxId, Intent, IntentStatus, SetupIntent

Object = Mapping[str, Any]
"""A Stripe object as its JSON says it."""

ACCOUNT: Final = "tenuto_account"
PAYMENT: Final = "tenuto_payment"
REFUND: Final = "tenuto_refund"
"""Where an object of Stripe's keeps our public ids: its metadata."""

_LAST: Final = 253_402_300_800  # the year 10000
_STATUSES: Final = frozenset(get_args(IntentStatus))
_VERIFICATIONS: Final = frozenset({"pending", "verified", "unverified", "unavailable"})
_AUTHENTICATION: Final = "authentication_required"
_SECRET: Final = re.compile(r"\b((?:[srp]k|whsec)_(?:(?:test|live)_)?|(?:pi|seti)_[A-Za-z0-9]+_secret_)[A-Za-z0-9_*]+")


def intent(data: Object) -> Intent:
    """A PaymentIntent."""
    status, currency, error = str(data["status"]), str(data["currency"]).upper(), data.get("last_payment_error")
    if status not in _STATUSES:
        raise ValueError(f"a PaymentIntent is {status}")
    is_paid = status == "succeeded"
    return Intent(
        gateway_id=str(data["id"]),
        status=cast("IntentStatus", status),
        amount=from_stripe(whole(data["amount"]), currency),
        amount_received=from_stripe(whole(data.get("amount_received") or 0), currency),
        currency=currency,
        customer=related_id(data.get("customer")),
        declined=decline(error) if error and not is_paid else None,
        charge_id=related_id(data.get("latest_charge")) if is_paid else None,
        metadata=_metadata(data),
    )


def decline(error: Object) -> Decline:
    """Why a card said no: the bank's word before Stripe's, except that a wish to see the customer is always told."""
    code, bank_code = error.get("code"), error.get("decline_code")
    word = _AUTHENTICATION if _AUTHENTICATION in {code, bank_code} else bank_code or code or error.get("type")
    return Decline(str(word or "card_declined"), masked(str(error.get("message") or "The card was declined.")))


def card(data: Object) -> Card:
    """A payment method that is a card."""
    details = data["card"]
    return Card(
        gateway_id=str(data["id"]),
        brand=str(details["brand"]),
        last4=str(details["last4"]),
        exp_month=whole(details["exp_month"]),
        exp_year=whole(details["exp_year"]),
        fingerprint=details.get("fingerprint"),
        customer=related_id(data.get("customer")),
        name=(data.get("billing_details") or {}).get("name"),
    )


def tax_id(data: Object) -> GatewayTaxId:
    """A customer's tax number; one that Stripe does not verify says nothing of that."""
    verification = data.get("verification") or {}
    status = verification.get("status") or "unavailable"
    if status not in _VERIFICATIONS:
        raise ValueError(f"a tax number is {status}")
    return GatewayTaxId(
        gateway_id=str(data["id"]),
        type=str(data["type"]),
        value=str(data["value"]),
        status=str(status),
        verified_name=verification.get("verified_name"),
        verified_address=verification.get("verified_address"),
    )


def setup_intent(data: Object) -> SetupIntent:
    """A SetupIntent."""
    return SetupIntent(
        gateway_id=str(data["id"]),
        client_secret=str(data["client_secret"]),
        status=str(data["status"]),
        customer=related_id(data.get("customer")),
        payment_method=related_id(data.get("payment_method")),
        created_at=moment(data["created"]),
    )


def refund(data: Object) -> GatewayRefund:
    """A refund."""
    currency = str(data["currency"]).upper()
    return GatewayRefund(
        gateway_id=str(data["id"]),
        intent_id=related_id(data.get("payment_intent")),
        amount=from_stripe(whole(data["amount"]), currency),
        currency=currency,
        status=str(data.get("status") or "pending"),
        metadata=_metadata(data),
        failure=data.get("failure_reason"),
    )


def related_id(value: object) -> str | None:
    """The id of another object: it stands for the object, or in it."""
    if isinstance(value, Mapping):
        value = value.get("id")
    return value if isinstance(value, str) and value else None


def moment(seconds: int) -> datetime:
    """A moment of Stripe's, in seconds since 1970."""
    if not 0 <= whole(seconds) < _LAST:
        raise ValueError(f"{seconds} is no moment")
    return datetime.fromtimestamp(whole(seconds), UTC)


def masked(text: str) -> str:
    """A sentence without the secrets that somebody may have put into it."""
    return _SECRET.sub(r"\1…", text)


def whole(value: object) -> int:
    """A number that must be whole."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no whole number")
    return value


def _metadata(data: Object) -> dict[str, str]:
    return {str(key): str(value) for key, value in (data.get("metadata") or {}).items()}
