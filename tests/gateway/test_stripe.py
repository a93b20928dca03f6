"""The whole port, asked of the simulator by way of Stripe's own SDK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tenuto.gateway.messages import read_event
from tenuto.gateway.port import (
    BadSignature,
    Card,
    CardDeclined,
    GatewayRefused,
    GatewayUnclear,
    Intent,
    PaymentGateway,
)
from tenuto.gateway.stripe import StripeGateway, _authorities
from tests.simulated import SECRET, Simulated


@pytest.fixture
async def gateway(simulator: Simulated, stripe_key: str) -> AsyncIterator[PaymentGateway]:
    found = StripeGateway(stripe_key, base_url=simulator.url, timeout=5, per_second=1000)
    yield found
    await found.close()


@pytest.fixture
async def customer(gateway: PaymentGateway) -> str:
    return await gateway.create_customer(key="customer", name="Ada", email="ada@example.com", account="a_10000000")


@pytest.fixture
async def card(gateway: PaymentGateway, customer: str) -> Card:
    return await gateway.attach_card(key="card", customer=customer, token="pm_card_visa")


async def an_intent(
    gateway: PaymentGateway, customer: str, *, key: str = "intent", amount: int = 1000, currency: str = "USD"
) -> Intent:
    return await gateway.create_intent(
        key=key,
        amount=amount,
        currency=currency,
        customer=customer,
        account="a_10000000",
        payment="p_10000000",
        description="Top-up",
    )


def now_of(simulator: Simulated) -> datetime:
    """The simulator's own time, which other tests move forward."""
    return datetime.fromtimestamp(simulator.control("POST", "clock", {"advance_seconds": 0})["now"], UTC)


async def a_payment(gateway: PaymentGateway, card: Card, *, amount: int = 1000) -> Intent:
    assert card.customer is not None
    made = await an_intent(gateway, card.customer, amount=amount)
    return await gateway.confirm_intent(made.gateway_id, key="confirm", card=card.gateway_id)


# --- keys and customers ----------------------------------------------------------------------------------------------


async def test_a_good_key_is_good(gateway: PaymentGateway, simulator: Simulated, stripe_key: str) -> None:
    assert not (await gateway.check()).is_live
    assert not any(simulator.book(stripe_key)[kind] for kind in ("customers", "payment_intents"))


async def test_a_revoked_key_is_refused(gateway: PaymentGateway, simulator: Simulated, stripe_key: str) -> None:
    simulator.set_key(stripe_key, revoked=True)
    with pytest.raises(GatewayRefused) as raised:
        await gateway.check()
    assert raised.value.is_key
    assert stripe_key not in str(raised.value)


@pytest.mark.parametrize(
    ("right", "word"), [("rak_customer_read", "Customers"), ("rak_payment_intent_read", "PaymentIntents")]
)
async def test_a_check_names_the_right_that_lacks(
    gateway: PaymentGateway, simulator: Simulated, stripe_key: str, right: str, word: str
) -> None:
    simulator.set_key(stripe_key, missing_rights=[right])
    with pytest.raises(GatewayRefused, match=f"lacks the right to write {word}") as raised:
        await gateway.check()
    assert raised.value.is_key
    assert stripe_key not in str(raised.value)


async def test_a_customer_knows_its_account_and_the_same_key_makes_one(
    gateway: PaymentGateway, simulator: Simulated, stripe_key: str, customer: str
) -> None:
    again = await gateway.create_customer(key="customer", name="Ada", email="ada@example.com", account="a_10000000")
    assert again == customer
    [kept] = simulator.book(stripe_key)["customers"]
    assert (kept["id"], kept["name"], kept["email"]) == (customer, "Ada", "ada@example.com")
    assert kept["metadata"] == {"tenuto_account": "a_10000000"}
    assert await gateway.create_customer(key="other", name="", email="", account="a_10000001") != customer


async def test_the_same_key_with_other_words_is_refused(gateway: PaymentGateway, customer: str) -> None:
    with pytest.raises(GatewayRefused) as raised:
        await gateway.create_customer(key="customer", name="Bob", email="", account="a_10000001")
    assert raised.value.code == "idempotency_error"


# --- cards -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "brand"), [("tok_visa", "visa"), ("pm_card_visa", "visa"), ("pm_card_mastercard", "mastercard")]
)
async def test_a_card_is_given_by_token_or_payment_method(
    gateway: PaymentGateway, customer: str, token: str, brand: str
) -> None:
    attached = await gateway.attach_card(key="card", customer=customer, token=token)
    assert attached.gateway_id.startswith("pm_")
    assert attached.gateway_id != token
    assert (attached.brand, attached.customer, len(attached.last4)) == (brand, customer, 4)
    assert 1 <= attached.exp_month <= 12
    assert await gateway.read_card(attached.gateway_id) == attached
    assert await gateway.attach_card(key="card", customer=customer, token=token) == attached


@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("tok_chargeDeclined", "generic_decline"),
        ("pm_card_visa_chargeDeclined", "generic_decline"),
        ("pm_card_chargeDeclinedInsufficientFunds", "insufficient_funds"),
        ("pm_card_chargeDeclinedLostCard", "lost_card"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card"),
    ],
)
async def test_a_card_that_the_bank_declines_is_not_attached(
    gateway: PaymentGateway, customer: str, token: str, code: str
) -> None:
    with pytest.raises(CardDeclined) as raised:
        await gateway.attach_card(key="card", customer=customer, token=token)
    assert raised.value.decline.code == code
    assert raised.value.decline.message


async def test_a_card_that_is_none_is_refused(gateway: PaymentGateway, customer: str) -> None:
    for token in ("tok_nonsense", "pm_nonsense"):
        with pytest.raises(GatewayRefused):
            await gateway.attach_card(key=token, customer=customer, token=token)
    with pytest.raises(GatewayRefused):
        await gateway.attach_card(key="stranger", customer="cus_nonsense", token="pm_card_visa")


async def test_a_card_is_forgotten_once_and_again(gateway: PaymentGateway, card: Card) -> None:
    for _again in range(2):
        await gateway.detach_card(card.gateway_id)
    assert (await gateway.read_card(card.gateway_id)).customer is None
    await gateway.detach_card("pm_nonsense")


async def test_a_browser_may_give_a_card(gateway: PaymentGateway, simulator: Simulated, customer: str) -> None:
    setup = await gateway.create_setup_intent(key="setup", customer=customer)
    assert setup.gateway_id.startswith("seti_")
    assert setup.client_secret.startswith(setup.gateway_id)
    assert (setup.status, setup.customer, setup.payment_method) == ("requires_payment_method", customer, None)
    assert abs(now_of(simulator) - setup.created_at) < timedelta(minutes=1)
    assert await gateway.read_setup_intent(setup.gateway_id) == setup
    assert await gateway.create_setup_intent(key="setup", customer=customer) == setup


# --- payments --------------------------------------------------------------------------------------------------------


async def test_an_intent_takes_nothing_until_it_is_confirmed(
    gateway: PaymentGateway, simulator: Simulated, stripe_key: str, card: Card
) -> None:
    assert card.customer is not None
    made = await an_intent(gateway, card.customer)
    assert (made.status, made.amount, made.amount_received) == ("requires_payment_method", 1000, 0)
    assert (made.currency, made.customer, made.declined, made.charge_id) == ("USD", card.customer, None, None)
    assert made.metadata == {"tenuto_account": "a_10000000", "tenuto_payment": "p_10000000"}
    assert await an_intent(gateway, card.customer) == made
    assert not simulator.book(stripe_key)["charges"]

    paid = await gateway.confirm_intent(made.gateway_id, key="confirm", card=card.gateway_id)
    assert (paid.status, paid.amount_received, paid.declined) == ("succeeded", 1000, None)
    assert paid.charge_id is not None
    assert await gateway.read_intent(made.gateway_id) == paid
    [charge] = simulator.book(stripe_key)["charges"]
    assert (charge["id"], charge["amount"]) == (paid.charge_id, 1000)


async def test_an_intent_is_paid_once_however_often_it_is_confirmed(
    gateway: PaymentGateway, simulator: Simulated, stripe_key: str, card: Card
) -> None:
    paid = await a_payment(gateway, card)
    for key in ("confirm", "confirm", "another key"):
        again = await gateway.confirm_intent(paid.gateway_id, key=key, card=card.gateway_id)
        assert again == paid
    assert len(simulator.book(stripe_key)["charges"]) == 1


@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("pm_card_chargeCustomerFail", "generic_decline"),
        ("pm_card_authenticationRequired", "authentication_required"),
    ],
)
async def test_a_decline_is_an_answer_and_another_card_may_pay(
    gateway: PaymentGateway, customer: str, card: Card, token: str, code: str
) -> None:
    bad = await gateway.attach_card(key="bad", customer=customer, token=token)
    made = await an_intent(gateway, customer)
    declined = await gateway.confirm_intent(made.gateway_id, key="first", card=bad.gateway_id)
    assert declined.status == "requires_payment_method"
    assert declined.declined is not None
    assert declined.declined.code == code
    assert declined.charge_id is None
    assert await gateway.read_intent(made.gateway_id) == declined
    assert await gateway.confirm_intent(made.gateway_id, key="first", card=bad.gateway_id) == declined

    paid = await gateway.confirm_intent(made.gateway_id, key="second", card=card.gateway_id)
    assert (paid.status, paid.declined) == ("succeeded", None)


@pytest.mark.parametrize("code", ["insufficient_funds", "expired_card", "do_not_honor", "processing_error"])
async def test_every_word_of_the_bank_is_told(
    gateway: PaymentGateway, simulator: Simulated, stripe_key: str, card: Card, code: str
) -> None:
    simulator.fault("decline", key=stripe_key, route="payment_intents.confirm", code=code)
    declined = await a_payment(gateway, card)
    assert declined.declined is not None
    assert declined.declined.code == code


async def test_a_cancelled_intent_never_takes_money(gateway: PaymentGateway, customer: str, card: Card) -> None:
    made = await an_intent(gateway, customer)
    cancelled = await gateway.cancel_intent(made.gateway_id, key="cancel")
    assert cancelled.status == "canceled"
    assert (await gateway.cancel_intent(made.gateway_id, key="again")).status == "canceled"
    assert (await gateway.confirm_intent(made.gateway_id, key="late", card=card.gateway_id)).status == "canceled"


async def test_it_is_too_late_to_cancel_what_was_paid(gateway: PaymentGateway, card: Card) -> None:
    paid = await a_payment(gateway, card)
    assert await gateway.cancel_intent(paid.gateway_id, key="cancel") == paid


async def test_a_payment_that_takes_its_time_is_processing_first(
    gateway: PaymentGateway, simulator: Simulated, stripe_key: str, card: Card
) -> None:
    simulator.fault("processing", key=stripe_key, route="payment_intents.confirm")
    slow = await a_payment(gateway, card)
    assert (slow.status, slow.amount_received, slow.charge_id) == ("processing", 0, None)
    simulator.release()
    assert (await gateway.read_intent(slow.gateway_id)).status == "succeeded"


@pytest.mark.parametrize(
    ("amount", "currency", "theirs"), [(500, "ISK", 50_000), (50_000, "MGA", 500), (5120, "KWD", 5120), (50, "JPY", 50)]
)
async def test_amounts_are_counted_as_stripe_counts(
    gateway: PaymentGateway,
    simulator: Simulated,
    stripe_key: str,
    card: Card,
    amount: int,
    currency: str,
    theirs: int,
) -> None:
    assert card.customer is not None
    made = await an_intent(gateway, card.customer, amount=amount, currency=currency)
    assert (made.amount, made.currency) == (amount, currency)
    assert simulator.book(stripe_key)["payment_intents"][0]["amount"] == theirs
    paid = await gateway.confirm_intent(made.gateway_id, key="confirm", card=card.gateway_id)
    assert paid.amount_received == amount


async def test_what_does_not_exist_is_refused(gateway: PaymentGateway, customer: str) -> None:
    made = await an_intent(gateway, customer)
    for ask in (
        gateway.read_intent("pi_nonsense"),
        gateway.read_card("pm_nonsense"),
        gateway.read_setup_intent("seti_nonsense"),
        gateway.confirm_intent("pi_nonsense", key="k1", card="pm_nonsense"),
        gateway.confirm_intent(made.gateway_id, key="k2", card="pm_nonsense"),
        gateway.cancel_intent("pi_nonsense", key="k3"),
        gateway.refund(key="k4", intent_id="pi_nonsense", amount=1, currency="USD", refund="r_1"),
    ):
        with pytest.raises(GatewayRefused) as raised:
            await ask
        assert raised.value.code == "resource_missing"
        assert not raised.value.is_key


# --- when nobody knows -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "is_paid"),
    [
        ("timeout_after_effect", True),
        ("500_after_effect", True),
        ("timeout_before_effect", False),
        ("500_before", False),
        ("429", False),
        ("lock_timeout", False),
    ],
)
async def test_an_unclear_confirmation_is_cleared_by_reading(
    gateway: PaymentGateway,
    simulator: Simulated,
    stripe_key: str,
    card: Card,
    fault: str,
    *,
    is_paid: bool,
) -> None:
    assert card.customer is not None
    made = await an_intent(gateway, card.customer)
    simulator.fault(fault, key=stripe_key, route="payment_intents.confirm")
    with pytest.raises(GatewayUnclear):
        await gateway.confirm_intent(made.gateway_id, key="confirm", card=card.gateway_id)
    found = await gateway.read_intent(made.gateway_id)
    assert (found.status == "succeeded") is is_paid
    assert len(simulator.book(stripe_key)["charges"]) == is_paid


async def test_the_lost_answer_is_told_to_who_asks_with_the_same_key(
    gateway: PaymentGateway, simulator: Simulated, stripe_key: str, card: Card
) -> None:
    simulator.fault("timeout_after_effect", key=stripe_key, route="payment_intents.confirm")
    with pytest.raises(GatewayUnclear):
        await a_payment(gateway, card)
    paid = await a_payment(gateway, card)
    assert paid.status == "succeeded"
    assert len(simulator.book(stripe_key)["charges"]) == 1


async def test_a_call_that_takes_too_long_is_given_up(simulator: Simulated, stripe_key: str) -> None:
    impatient = StripeGateway(stripe_key, base_url=simulator.url, timeout=0.3)
    simulator.fault("slow", key=stripe_key, seconds=5)
    try:
        with pytest.raises(GatewayUnclear):
            await impatient.read_intent("pi_1")
    finally:
        await impatient.close()


async def test_a_stripe_that_is_not_there_is_unclear(stripe_key: str) -> None:
    nowhere = StripeGateway(stripe_key, base_url="http://127.0.0.1:9", timeout=2)
    try:
        with pytest.raises(GatewayUnclear):
            await nowhere.check()
    finally:
        await nowhere.close()


async def test_many_at_once_stay_below_the_rate(simulator: Simulated, stripe_key: str) -> None:
    simulator.set_key(stripe_key, requests_per_second=25)
    gateway = StripeGateway(stripe_key, base_url=simulator.url, per_second=25)
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(gateway.create_customer(key=f"k{number}", name="", email="", account="a_1"))
    finally:
        await gateway.close()
    assert simulator.rate(stripe_key)["total"] == 40
    assert simulator.rate(stripe_key)["peak_per_second"] <= 25


# --- refunds, lists --------------------------------------------------------------------------------------------------


async def test_a_refund_is_made_once_and_found_by_our_id(gateway: PaymentGateway, card: Card) -> None:
    paid = await a_payment(gateway, card)
    assert await gateway.find_refund(intent_id=paid.gateway_id, refund="r_1") is None
    made = await gateway.refund(key="r", intent_id=paid.gateway_id, amount=300, currency="USD", refund="r_1")
    assert (made.intent_id, made.amount, made.currency, made.status) == (paid.gateway_id, 300, "USD", "succeeded")
    assert (made.metadata, made.failure) == ({"tenuto_refund": "r_1"}, None)
    again = await gateway.refund(key="r", intent_id=paid.gateway_id, amount=300, currency="USD", refund="r_1")
    assert again == made
    other = await gateway.refund(key="s", intent_id=paid.gateway_id, amount=700, currency="USD", refund="r_2")
    assert await gateway.find_refund(intent_id=paid.gateway_id, refund="r_1") == made
    assert await gateway.find_refund(intent_id=paid.gateway_id, refund="r_2") == other


async def test_more_than_was_paid_is_not_given_back(gateway: PaymentGateway, card: Card) -> None:
    paid = await a_payment(gateway, card)
    await gateway.refund(key="r", intent_id=paid.gateway_id, amount=900, currency="USD", refund="r_1")
    with pytest.raises(GatewayRefused) as raised:
        await gateway.refund(key="s", intent_id=paid.gateway_id, amount=101, currency="USD", refund="r_2")
    assert not raised.value.is_key
    assert await gateway.find_refund(intent_id=paid.gateway_id, refund="r_2") is None


async def test_an_unclear_refund_is_found(
    gateway: PaymentGateway, simulator: Simulated, stripe_key: str, card: Card
) -> None:
    paid = await a_payment(gateway, card)
    simulator.fault("timeout_after_effect", key=stripe_key, route="refunds.create")
    with pytest.raises(GatewayUnclear):
        await gateway.refund(key="r", intent_id=paid.gateway_id, amount=300, currency="USD", refund="r_1")
    found = await gateway.find_refund(intent_id=paid.gateway_id, refund="r_1")
    assert found is not None
    assert (found.amount, found.status) == (300, "succeeded")


async def test_every_intent_since_a_moment_is_listed_newest_first(
    gateway: PaymentGateway, simulator: Simulated, customer: str
) -> None:
    began = now_of(simulator)
    made = [(await an_intent(gateway, customer, key=f"i{number}")).gateway_id for number in range(105)]
    listed = [intent.gateway_id async for intent in gateway.intents(since=began)]
    assert listed == made[::-1]
    assert [intent async for intent in gateway.intents(since=began + timedelta(days=1))] == []


# --- messages --------------------------------------------------------------------------------------------------------


class Ear:
    """An address where messages arrive."""

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, str]] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head.split("\r\n"))}
        body = await reader.readexactly(int(headers["content-length"]))
        self.heard.append((body, headers["stripe-signature"]))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()


async def test_what_the_simulator_tells_is_believed_and_understood(
    gateway: PaymentGateway, simulator: Simulated, stripe_key: str, card: Card
) -> None:
    ear = Ear()
    async with await asyncio.start_server(ear.answer, "127.0.0.1", 0) as server:
        simulator.endpoint(stripe_key, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook")
        paid = await a_payment(gateway, card)
        refund = await gateway.refund(key="r", intent_id=paid.gateway_id, amount=300, currency="USD", refund="r_1")
        dispute: dict[str, Any] = await asyncio.to_thread(simulator.dispute, stripe_key, paid.gateway_id)
        await asyncio.to_thread(simulator.flush)
    now = datetime.now(UTC)
    events = {}
    for body, signature in ear.heard:
        event = read_event(body, signature, secrets=("whsec_other", SECRET), now=now)
        events[event.type] = event
        with pytest.raises(BadSignature):
            read_event(body, signature, secrets=("whsec_other",), now=now)
        with pytest.raises(BadSignature):
            read_event(body, signature, secrets=(SECRET,), now=now + timedelta(seconds=310))
    succeeded = events["payment_intent.succeeded"]
    assert (succeeded.object_id, succeeded.intent_id) == (paid.gateway_id, paid.gateway_id)
    assert (succeeded.status, succeeded.amount, succeeded.currency) == ("succeeded", 1000, "USD")
    assert not succeeded.is_live
    assert events["charge.refunded"].intent_id == paid.gateway_id
    given = events["refund.created"]
    assert (given.object_type, given.object_id, given.amount) == ("refund", refund.gateway_id, 300)
    disputed = events["charge.dispute.created"]
    assert (disputed.object_type, disputed.object_id) == ("dispute", dispute["id"])
    assert (disputed.intent_id, disputed.reason) == (paid.gateway_id, "fraudulent")


async def test_a_real_address_is_reached_by_https_that_checks_who_answers() -> None:
    gateway = StripeGateway("sk_test_x")
    assert isinstance(gateway._http.client, httpx.AsyncClient)
    assert _authorities().check_hostname
    await gateway.close()
