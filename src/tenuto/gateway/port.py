"""What we ask of a payment provider, and the words it answers in.

The problem, on one example. A card is to be charged 10 dollars; the connection breaks after the request left:

    what happened                        what the gateway raises or returns
    the provider answered "paid"         Intent(status="succeeded")
    the provider answered "declined"     Intent(status="requires_payment_method", declined=Decline(...))
    the provider said the request is     GatewayRefused: nothing was done, and asking again would not help
    wrong, or the key is no good
    nobody knows                         GatewayUnclear: it may have been done; read the intent before anything else

Amounts are whole minor units of the currency as ISO 4217 counts them; whoever implements the port converts to what the
provider counts in (Stripe has exceptions). Every call that changes something carries an idempotency key of ours.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Final, Literal, NamedTuple, Protocol

IntentStatus = Literal[
    "requires_payment_method",
    "requires_confirmation",
    "requires_action",
    "processing",
    "requires_capture",
    "canceled",
    "succeeded",
]


class GatewayRefused(Exception):
    """The provider said no to the request itself (a wrong id, a bad key, a missing right): nothing was done.

    ``code`` is the provider's own word for it, the message its sentence, without any secret. ``is_key`` tells that it
    is the company's key that is no good.
    """

    def __init__(self, code: str, message: str, *, is_key: bool = False) -> None:
        self.code, self.message, self.is_key = code, message, is_key
        super().__init__(f"{code}: {message}")


class GatewayUnclear(Exception):
    """No answer, or one that says nothing (time-out, broken connection, 429, 5xx): it may or may not have been done."""


class Decline(NamedTuple):
    """Why a card said no.

    ``code`` is the most precise word of the provider (``insufficient_funds``, ``lost_card``,
    ``authentication_required``, ``card_declined``…), ``message`` its sentence for people.
    """

    code: str
    message: str


class Card(NamedTuple):
    """A payment method as the provider keeps it. ``gateway_id`` is its id there (``pm_…``)."""

    gateway_id: str
    brand: str
    last4: str
    exp_month: int
    exp_year: int
    fingerprint: str | None = None
    customer: str | None = None
    name: str | None = None


class Intent(NamedTuple):
    """A PaymentIntent as the provider knows it now.

    ``declined`` is the last refusal of a card, if the last attempt ended in one; ``charge_id`` the charge that paid.
    ``metadata`` is what we gave it: ``tenuto_account`` and ``tenuto_payment`` hold our public ids.
    """

    gateway_id: str
    status: IntentStatus
    amount: int
    amount_received: int
    currency: str
    customer: str | None
    declined: Decline | None
    charge_id: str | None
    metadata: Mapping[str, str]


class SetupIntent(NamedTuple):
    """A SetupIntent: how a customer's browser gives a card to the provider without our seeing it."""

    gateway_id: str
    client_secret: str
    status: str
    customer: str | None
    payment_method: str | None
    created_at: datetime


class GatewayRefund(NamedTuple):
    """A refund as the provider knows it. ``status``: pending, succeeded, failed, canceled, requires_action."""

    gateway_id: str
    intent_id: str | None
    amount: int
    currency: str
    status: str
    metadata: Mapping[str, str]
    failure: str | None


class GatewayTaxId(NamedTuple):
    """A tax number of a customer as the provider knows it. ``status``: pending, verified, unverified, unavailable."""

    gateway_id: str
    type: str
    value: str
    status: str
    verified_name: str | None
    verified_address: str | None


class GatewayEvent(NamedTuple):
    """A verified message from the provider: which object it is about, as it stood when the message was made.

    ``object_type`` is the provider's (``payment_intent``, ``refund``, ``dispute``, ``charge``…); ``object_id`` its id;
    ``intent_id`` the PaymentIntent that it belongs to, where there is one; ``amount``/``currency`` the object's.
    """

    id: str
    type: str
    created_at: datetime
    is_live: bool
    object_type: str
    object_id: str
    intent_id: str | None
    status: str | None
    amount: int | None
    currency: str | None
    reason: str | None


class GatewayAccount(NamedTuple):
    """Whose key it is, as far as a restricted key may know."""

    is_live: bool


class BadSignature(Exception):
    """A message that claims to come from the provider and cannot be believed: forged, altered, or too old."""


SIGNATURE_AGE_SECONDS: Final = 300
"""How old, or how far ahead, a signed message may be (bar I-47)."""


class PaymentGateway(Protocol):
    """One company's access to its provider. Every method may raise GatewayRefused or GatewayUnclear."""

    async def check(self) -> GatewayAccount:
        """Whether the key works and has the rights that are needed. Changes nothing. GatewayRefused says what lacks."""
        ...

    async def create_customer(self, *, key: str, name: str, email: str, account: str) -> str:
        """A new customer's id. ``account`` is our public account id, kept in its metadata."""
        ...

    async def attach_card(self, *, key: str, customer: str, token: str) -> Card:
        """Give a customer the card behind a token (``tok_…``, ``pm_…``). Raises CardDeclined when the bank says no."""
        ...

    async def detach_card(self, gateway_id: str) -> None:
        """Forget a card; one that is gone already is fine."""
        ...

    async def create_setup_intent(self, *, key: str, customer: str) -> SetupIntent:
        """Let a browser give this customer a card for use when the customer is away."""
        ...

    async def read_setup_intent(self, gateway_id: str) -> SetupIntent:
        """A SetupIntent as it is now."""
        ...

    async def read_card(self, gateway_id: str) -> Card:
        """A payment method as it is now."""
        ...

    async def create_tax_id(self, *, key: str, customer: str, type: str, value: str) -> GatewayTaxId:  # noqa: A002
        """Give a customer a tax number; the provider looks it up in a register, which may take days."""
        ...

    async def read_tax_id(self, customer: str, gateway_id: str) -> GatewayTaxId:
        """A customer's tax number as it is now."""
        ...

    async def delete_tax_id(self, customer: str, gateway_id: str) -> None:
        """Forget a customer's tax number; one that is gone already is fine."""
        ...

    async def list_tax_ids(self, customer: str) -> list[GatewayTaxId]:
        """All tax numbers of a customer: how a making whose answer was lost is found again."""
        ...

    async def create_intent(
        self, *, key: str, amount: int, currency: str, customer: str, account: str, payment: str, description: str
    ) -> Intent:
        """An *unconfirmed* PaymentIntent: no money moves. ``account`` and ``payment`` are our public ids."""
        ...

    async def confirm_intent(self, gateway_id: str, *, key: str, card: str) -> Intent:
        """Charge ``card`` (``pm_…``) while the customer is away. A decline is an answer, not an exception."""
        ...

    async def read_intent(self, gateway_id: str) -> Intent:
        """A PaymentIntent as it is now."""
        ...

    async def cancel_intent(self, gateway_id: str, *, key: str) -> Intent:
        """Make sure that an intent never takes money; what it is now (``succeeded`` if it was too late)."""
        ...

    async def refund(self, *, key: str, intent_id: str, amount: int, currency: str, refund: str) -> GatewayRefund:
        """Give back a part of what an intent took. ``refund`` is our public id, kept in its metadata."""
        ...

    async def find_refund(self, *, intent_id: str, refund: str) -> GatewayRefund | None:
        """The refund of an intent that carries our public id, or None: how an unclear refund is resolved."""
        ...

    def intents(self, *, since: datetime) -> AsyncIterator[Intent]:
        """Every PaymentIntent made since a moment, newest first: what ``tenuto audit --gateway`` compares with."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class CardDeclined(Exception):
    """The bank refused a card when it was to be attached."""

    def __init__(self, decline: Decline) -> None:
        self.decline = decline
        super().__init__(f"{decline.code}: {decline.message}")


class EventReader(Protocol):
    """How a message that claims to come from the provider is verified and read."""

    def __call__(self, body: bytes, signature: str, *, secrets: tuple[str, ...], now: datetime) -> GatewayEvent:
        """The message, if one of the secrets signed these very bytes lately. Raises BadSignature."""
        ...
