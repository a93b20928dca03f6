"""The port, asked of Stripe or of anything that speaks like it.

The problem, on one example. A card is charged, and of all that Stripe may answer each word means one of four things:

    200                                             the intent, as it is now
    402 card_error, insufficient_funds              the intent, with declined = insufficient_funds: an answer too
    400 payment_intent_unexpected_state             it is settled already: read it and return it as it is
    400 another, 401, 403, 404, or the same key     GatewayRefused: nothing was done
    with other parameters (idempotency_error)
    409 (the same key is being worked on), 429,     GatewayUnclear: it may have been done
    5xx, no answer, an answer that makes no sense

Nothing is tried again here: who asks knows what may be asked twice. A restricted key needs the right to *write*
Customers, PaymentIntents, PaymentMethods, SetupIntents and Refunds, which lets it read them too; it needs no others
(not Events: what Stripe tells, it tells by itself). No message of an exception holds a secret.

Importing the SDK takes half a second: import this module when a gateway is needed, and not before.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime
from functools import cache, partial
from typing import Any, Final, TypeVar, cast

import httpx
import stripe

from tenuto.core.cards import to_stripe
from tenuto.gateway import answers
from tenuto.gateway.answers import ACCOUNT, PAYMENT, REFUND, Object, masked
from tenuto.gateway.messages import read_event
from tenuto.gateway.pace import RateLimit
from tenuto.gateway.port import (
    Card,
    CardDeclined,
    GatewayAccount,
    GatewayRefund,
    GatewayRefused,
    GatewayTaxId,
    GatewayUnclear,
    Intent,
    SetupIntent,
)

__all__ = ["API_VERSION", "RateLimit", "StripeGateway", "read_event"]

API_VERSION: Final = "2026-10-28.endive"
"""The version of Stripe's API that the translation was written for; an account's own default does not matter."""

BASE_URL: Final = "https://api.stripe.com"
TIMEOUT_SECONDS: Final = 15.0
CONNECT_SECONDS: Final = 5.0
TURN_SECONDS: Final = 30.0
"""How long a request may wait for its turn under the rate limit."""

PER_SECOND_TEST: Final = 25.0
PER_SECOND_LIVE: Final = 100.0
"""What Stripe documents as the most that one account may ask."""

PAGE_SIZE: Final = 100
PAGES_MAX: Final = 10_000

_UNCLEAR_STATUSES: Final = frozenset({408, 409, 424, 425, 429})
_LIVE_KEYS: Final = ("sk_live_", "rk_live_")
_UNEXPECTED_STATE: Final = "payment_intent_unexpected_state"
_SENSELESS: Final = (AttributeError, KeyError, TypeError, ValueError, RecursionError)
"""What reading an answer that makes no sense raises, here or in the SDK."""

_Told = TypeVar("_Told")

# The SDK would tell Stripe how long its answers took and on what machine, and keep a file in the home folder for it.
stripe.enable_telemetry = False
# At the levels below, it would log whole answers: client secrets, and what a provider says about keys.
logging.getLogger("stripe").setLevel(logging.WARNING)


class _Http(stripe.HTTPClient):
    """How the SDK reaches the network. Its own client for httpx hands the body on in a way that httpx deprecates."""

    name = "httpx"

    def __init__(self, base_url: str, timeout: float) -> None:
        super().__init__()
        self.client = httpx.AsyncClient(
            timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS)),
            verify=_authorities() if base_url.startswith("https:") else False,
        )

    async def request_async(  # type: ignore[explicit-override] # typing.override is younger than Python 3.11
        self, method: str, url: str, headers: Mapping[str, str], post_data: str | None = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        try:
            response = await self.client.request(method, url, headers=headers, content=post_data)
        except Exception as error:
            raise stripe.APIConnectionError(type(error).__name__) from error  # type: ignore[no-untyped-call]
        return response.content, response.status_code, response.headers

    async def close_async(self) -> None:  # type: ignore[explicit-override]
        await self.client.aclose()


@cache
def _authorities() -> ssl.SSLContext:
    """Who may vouch for Stripe: the authorities that the SDK brings, read once and not for every company."""
    return ssl.create_default_context(cafile=stripe.ca_bundle_path)


class StripeGateway:
    """One company's access to its Stripe account, as :class:`tenuto.gateway.port.PaymentGateway` says."""

    def __init__(
        self,
        secret_key: str,
        *,
        base_url: str = BASE_URL,
        per_second: float | None = None,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        self._secret_key, self._timeout = secret_key, timeout
        self._is_live = secret_key.startswith(_LIVE_KEYS)
        self._limit = RateLimit(per_second or (PER_SECOND_LIVE if self._is_live else PER_SECOND_TEST))
        self._http = _Http(base_url, timeout)
        client = stripe.StripeClient(
            secret_key,
            stripe_version=API_VERSION,
            base_addresses={"api": base_url.rstrip("/")},
            max_network_retries=0,
            http_client=self._http,
        )
        self._stripe = client.v1

    async def check(self) -> GatewayAccount:
        """Whether the key works, by two lists that change nothing; GatewayRefused names the right that lacks.

        The rights to write cannot be tried without writing: a key that may read only is found out by its first charge.
        """
        lists = self._stripe
        for right, ask in (
            ("Customers", lambda: lists.customers.list_async({"limit": 1})),
            ("PaymentIntents", lambda: lists.payment_intents.list_async({"limit": 1})),
        ):
            try:
                await self._ask(ask)
            except stripe.AuthenticationError as error:
                refused = self._refused(error)
                raise GatewayRefused(
                    refused.code, f"Stripe does not know the key: {refused.message}", is_key=True
                ) from None
            except stripe.PermissionError as error:
                refused = self._refused(error)
                raise GatewayRefused(
                    refused.code, f"The key lacks the right to write {right}: {refused.message}", is_key=True
                ) from None
            except stripe.StripeError as error:
                raise self._refused(error) from None
        return GatewayAccount(self._is_live)

    async def create_customer(self, *, key: str, name: str, email: str, account: str) -> str:
        """A new customer's id."""
        params: stripe.params.CustomerCreateParams = {"metadata": {ACCOUNT: account}}
        if name:
            params["name"] = name
        if email:
            params["email"] = email
        return await self._told(_id, lambda: self._stripe.customers.create_async(params, {"idempotency_key": key}))

    async def attach_card(self, *, key: str, customer: str, token: str) -> Card:
        """Give a customer the card behind a token (``tok_…``, ``pm_…``). Raises CardDeclined when the bank says no."""
        methods = self._stripe.payment_methods
        try:
            if token.startswith("tok_"):
                made = await self._ask(
                    lambda: methods.create_async(
                        {"type": "card", "card": {"token": token}}, {"idempotency_key": f"{key}/method"}
                    )
                )
                token = self._understood(_id, made)
            attached = await self._ask(
                lambda: methods.attach_async(token, {"customer": customer}, {"idempotency_key": key})
            )
        except stripe.CardError as error:
            raise CardDeclined(answers.decline(_error_of(error))) from None
        except stripe.StripeError as error:
            raise self._refused(error) from None
        return self._understood(answers.card, attached)

    async def detach_card(self, gateway_id: str) -> None:
        """Forget a card; one that is gone already is fine."""
        try:
            await self._ask(lambda: self._stripe.payment_methods.detach_async(gateway_id))
        except stripe.InvalidRequestError as error:
            if error.code == "resource_missing":
                return
            # Stripe has no code for "is no customer's any more"; the card itself tells.
            if (await self.read_card(gateway_id)).customer is not None:
                raise self._refused(error) from None
        except stripe.StripeError as error:
            raise self._refused(error) from None

    async def create_setup_intent(self, *, key: str, customer: str) -> SetupIntent:
        """Let a browser give this customer a card for use when the customer is away."""
        return await self._told(
            answers.setup_intent,
            lambda: self._stripe.setup_intents.create_async(
                {"customer": customer, "usage": "off_session", "allowed_payment_method_types": ["card"]},
                {"idempotency_key": key},
            ),
        )

    async def read_setup_intent(self, gateway_id: str) -> SetupIntent:
        """A SetupIntent as it is now."""
        return await self._told(answers.setup_intent, lambda: self._stripe.setup_intents.retrieve_async(gateway_id))

    async def read_card(self, gateway_id: str) -> Card:
        """A payment method as it is now."""
        return await self._told(answers.card, lambda: self._stripe.payment_methods.retrieve_async(gateway_id))

    async def create_tax_id(self, *, key: str, customer: str, type: str, value: str) -> GatewayTaxId:  # noqa: A002
        """Give a customer a tax number; Stripe looks it up in a register, which may take days."""
        params = cast("stripe.params.CustomerTaxIdCreateParams", {"type": type, "value": value})
        return await self._told(
            answers.tax_id,
            lambda: self._stripe.customers.tax_ids.create_async(customer, params, {"idempotency_key": key}),
        )

    async def read_tax_id(self, customer: str, gateway_id: str) -> GatewayTaxId:
        """A customer's tax number as it is now."""
        return await self._told(
            answers.tax_id, lambda: self._stripe.customers.tax_ids.retrieve_async(customer, gateway_id)
        )

    async def delete_tax_id(self, customer: str, gateway_id: str) -> None:
        """Forget a customer's tax number; one that is gone already is fine."""
        try:
            await self._ask(lambda: self._stripe.customers.tax_ids.delete_async(customer, gateway_id))
        except stripe.StripeError as error:
            if error.code != "resource_missing":
                raise self._refused(error) from None

    async def list_tax_ids(self, customer: str) -> list[GatewayTaxId]:
        """All tax numbers of a customer."""
        tax_ids = self._stripe.customers.tax_ids

        def ask(after: str | None) -> Awaitable[stripe.StripeObject]:
            params: stripe.params.CustomerTaxIdListParams = {"limit": PAGE_SIZE}
            if after:
                params["starting_after"] = after
            return tax_ids.list_async(customer, params)

        return [self._understood(answers.tax_id, data) async for data in self._pages(ask)]

    async def create_intent(
        self, *, key: str, amount: int, currency: str, customer: str, account: str, payment: str, description: str
    ) -> Intent:
        """An *unconfirmed* PaymentIntent for cards: no money moves."""
        params: stripe.params.PaymentIntentCreateParams = {
            "amount": _counted(amount, currency),
            "currency": currency.lower(),
            "customer": customer,
            "allowed_payment_method_types": ["card"],
            "metadata": {ACCOUNT: account, PAYMENT: payment},
        }
        if description:
            params["description"] = description
        return await self._told(
            answers.intent, lambda: self._stripe.payment_intents.create_async(params, {"idempotency_key": key})
        )

    async def confirm_intent(self, gateway_id: str, *, key: str, card: str) -> Intent:
        """Charge ``card`` while the customer is away. A decline is an answer, not an exception."""
        try:
            confirmed = await self._ask(
                lambda: self._stripe.payment_intents.confirm_async(
                    gateway_id, {"payment_method": card, "off_session": True}, {"idempotency_key": key}
                )
            )
        except stripe.CardError as error:
            said = _error_of(error)
            shown = said.get("payment_intent")
            found = self._understood(answers.intent, shown) if shown else await self.read_intent(gateway_id)
            return found if found.status == "succeeded" else found._replace(declined=answers.decline(said))
        except stripe.StripeError as error:
            if error.code == _UNEXPECTED_STATE:
                return await self.read_intent(gateway_id)
            raise self._refused(error) from None
        return self._understood(answers.intent, confirmed)

    async def read_intent(self, gateway_id: str) -> Intent:
        """A PaymentIntent as it is now."""
        return await self._told(answers.intent, lambda: self._stripe.payment_intents.retrieve_async(gateway_id))

    async def cancel_intent(self, gateway_id: str, *, key: str) -> Intent:
        """Make sure that an intent never takes money; what it is now (``succeeded`` if it was too late)."""
        try:
            cancelled = await self._ask(
                lambda: self._stripe.payment_intents.cancel_async(gateway_id, {}, {"idempotency_key": key})
            )
        except stripe.StripeError as error:
            if error.code == _UNEXPECTED_STATE:
                return await self.read_intent(gateway_id)
            raise self._refused(error) from None
        return self._understood(answers.intent, cancelled)

    async def refund(self, *, key: str, intent_id: str, amount: int, currency: str, refund: str) -> GatewayRefund:
        """Give back a part of what an intent took."""
        params: stripe.params.RefundCreateParams = {
            "payment_intent": intent_id,
            "amount": _counted(amount, currency),
            "metadata": {REFUND: refund},
        }
        return await self._told(
            answers.refund, lambda: self._stripe.refunds.create_async(params, {"idempotency_key": key})
        )

    async def find_refund(self, *, intent_id: str, refund: str) -> GatewayRefund | None:
        """The refund of an intent that carries our public id, or None."""
        refunds = self._stripe.refunds

        def ask(after: str | None) -> Awaitable[stripe.StripeObject]:
            params: stripe.params.RefundListParams = {"payment_intent": intent_id, "limit": PAGE_SIZE}
            if after:
                params["starting_after"] = after
            return refunds.list_async(params)

        async for data in self._pages(ask):
            found = self._understood(answers.refund, data)
            if found.metadata.get(REFUND) == refund:
                return found
        return None

    async def intents(self, *, since: datetime) -> AsyncIterator[Intent]:
        """Every PaymentIntent made since a moment, newest first."""
        intents = self._stripe.payment_intents

        def ask(after: str | None) -> Awaitable[stripe.StripeObject]:
            params: stripe.params.PaymentIntentListParams = {
                "created": {"gte": int(since.timestamp())},
                "limit": PAGE_SIZE,
            }
            if after:
                params["starting_after"] = after
            return intents.list_async(params)

        async for data in self._pages(ask):
            yield self._understood(answers.intent, data)

    async def close(self) -> None:
        """Let go of connections."""
        await self._http.close_async()

    async def _pages(self, ask: Callable[[str | None], Awaitable[stripe.StripeObject]]) -> AsyncIterator[Object]:
        after: str | None = None
        for _ in range(PAGES_MAX):
            rows, has_more = await self._told(_rows, partial(ask, after))
            for row in rows:
                yield row
            if not rows or not has_more:
                return
            after = self._understood(_id, rows[-1])

    async def _told(self, read: Callable[[Object], _Told], request: Callable[[], Awaitable[Any]]) -> _Told:
        """The answer to a request that has nothing to say but yes or no."""
        try:
            return self._understood(read, await self._ask(request))
        except stripe.StripeError as error:
            raise self._refused(error) from None

    async def _ask(self, request: Callable[[], Awaitable[Any]]) -> Object:
        """One request, when its turn comes. Raises GatewayUnclear, or the SDK's own error where Stripe said no."""
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._limit.wait()
        except TimeoutError:
            raise GatewayUnclear("Too many requests to Stripe wait for their turn; this one was not sent.") from None
        try:
            async with asyncio.timeout(self._timeout):
                answer = await request()
                data: Object = answer.to_dict()
        except TimeoutError:
            raise GatewayUnclear(f"Stripe did not answer within {self._timeout:g} seconds.") from None
        except stripe.RateLimitError as error:
            if _error_of(error).get("code") != "lock_timeout":  # one object was busy; the rate is not to blame
                self._limit.hold_back()
            raise self._unclear(error) from None
        except stripe.APIConnectionError as error:
            raise GatewayUnclear(f"Stripe could not be asked, or its answer was lost ({error}).") from None
        except stripe.APIError as error:
            status = error.http_status or 0
            if 400 <= status < 500 and status not in _UNCLEAR_STATUSES:  # noqa: PLR2004 - 4xx
                raise
            raise self._unclear(error) from None
        except _SENSELESS as error:
            raise self._senseless(error) from None
        return data

    def _understood(self, read: Callable[[Object], _Told], data: Object) -> _Told:
        try:
            return read(data)
        except _SENSELESS as error:
            raise self._senseless(error) from None

    def _senseless(self, error: Exception) -> GatewayUnclear:
        return GatewayUnclear(f"Stripe's answer cannot be understood: {self._clean(repr(error)[:200])}")

    def _refused(self, error: stripe.StripeError) -> GatewayRefused:
        said = _error_of(error)
        code = said.get("code") or said.get("type") or f"http_{error.http_status}"
        message = said.get("message") or f"Stripe answered with status {error.http_status}."
        is_key = isinstance(error, stripe.AuthenticationError | stripe.PermissionError)
        return GatewayRefused(str(code), self._clean(str(message)), is_key=is_key)

    def _unclear(self, error: stripe.StripeError) -> GatewayUnclear:
        said = _error_of(error)
        word = said.get("code") or said.get("type") or "no reason given"
        request = f", {error.request_id}" if error.request_id else ""
        return GatewayUnclear(self._clean(f"Stripe answered with status {error.http_status} ({word}{request})."))

    def _clean(self, text: str) -> str:
        return masked(text.replace(self._secret_key, "…") if self._secret_key else text)


def _error_of(error: stripe.StripeError) -> Object:
    """What Stripe said, as it said it: the SDK leaves out parts."""
    body = error.json_body
    said = body.get("error") if isinstance(body, dict) else None
    return said if isinstance(said, dict) else {}


def _counted(amount: int, currency: str) -> int:
    counted = to_stripe(amount, currency)
    if counted is None:
        raise GatewayRefused("amount_not_chargeable", f"No card can be charged {amount} minor units of {currency}.")
    return counted


def _id(data: Object) -> str:
    return str(data["id"])


def _rows(page: Object) -> tuple[list[Object], bool]:
    return list(page["data"]), page["has_more"] is True
