"""Tax numbers of customers at the provider, asked of the simulator by way of Stripe's own SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tenuto.gateway import answers
from tenuto.gateway.port import GatewayRefused, GatewayUnclear, PaymentGateway
from tenuto.gateway.simulator_taxes import VERIFIED_ADDRESS, VERIFIED_NAME
from tenuto.gateway.stripe import StripeGateway
from tests.simulated import Simulated


@pytest.fixture
async def gateway(simulator: Simulated, stripe_key: str) -> AsyncIterator[PaymentGateway]:
    found = StripeGateway(stripe_key, base_url=simulator.url, timeout=5, per_second=1000)
    yield found
    await found.close()


@pytest.fixture
async def customer(gateway: PaymentGateway) -> str:
    return await gateway.create_customer(key="customer", name="Ada", email="ada@example.com", account="a_10000000")


@pytest.mark.parametrize(
    ("kind", "value", "status"),
    [
        ("eu_vat", "DE000000000", "verified"),
        ("gb_vat", "000000000", "verified"),
        ("eu_vat", "111111111", "unverified"),
        ("au_abn", "12345678912", "unverified"),
        ("gb_vat", "222222222", "pending"),
    ],
)
async def test_a_register_answers_a_moment_later(
    gateway: PaymentGateway, customer: str, simulator: Simulated, kind: str, value: str, status: str
) -> None:
    made = await gateway.create_tax_id(key="tax", customer=customer, type=kind, value=value)
    assert (made.type, made.value, made.status, made.verified_name) == (kind, value, "pending", None)

    simulator.release()

    found = await gateway.read_tax_id(customer, made.gateway_id)
    assert found.status == status
    names = (VERIFIED_NAME, VERIFIED_ADDRESS) if status == "verified" else (None, None)
    assert (found.verified_name, found.verified_address) == names


async def test_of_other_kinds_nobody_says_anything(gateway: PaymentGateway, customer: str) -> None:
    made = await gateway.create_tax_id(key="tax", customer=customer, type="za_vat", value="4123456789")
    assert made.status == "unavailable"


async def test_the_same_key_is_one_number(gateway: PaymentGateway, customer: str) -> None:
    first = await gateway.create_tax_id(key="tax", customer=customer, type="eu_vat", value="DE123456789")
    again = await gateway.create_tax_id(key="tax", customer=customer, type="eu_vat", value="DE123456789")

    assert first == again
    assert [one.gateway_id for one in await gateway.list_tax_ids(customer)] == [first.gateway_id]


async def test_a_deleted_number_is_gone_and_deleting_it_again_is_fine(gateway: PaymentGateway, customer: str) -> None:
    made = await gateway.create_tax_id(key="tax", customer=customer, type="eu_vat", value="DE000000000")

    for _ in range(2):
        await gateway.delete_tax_id(customer, made.gateway_id)

    assert await gateway.list_tax_ids(customer) == []
    with pytest.raises(GatewayRefused) as raised:
        await gateway.read_tax_id(customer, made.gateway_id)
    assert raised.value.code == "resource_missing"


async def test_a_number_is_one_customers_own(gateway: PaymentGateway, customer: str) -> None:
    other = await gateway.create_customer(key="other", name="Bob", email="bob@example.com", account="a_20000000")
    made = await gateway.create_tax_id(key="tax", customer=customer, type="eu_vat", value="DE000000000")

    with pytest.raises(GatewayRefused):
        await gateway.read_tax_id(other, made.gateway_id)
    await gateway.delete_tax_id(other, made.gateway_id)

    assert await gateway.list_tax_ids(other) == []
    assert len(await gateway.list_tax_ids(customer)) == 1


@pytest.mark.parametrize(
    ("kind", "value", "code"),
    [
        ("eu_vat", "Germany", "tax_id_invalid"),
        ("xx_vat", "1", "invalid_request_error"),
        ("au_abn", "1", "tax_id_invalid"),
    ],
)
async def test_what_is_no_number_is_refused(
    gateway: PaymentGateway, customer: str, kind: str, value: str, code: str
) -> None:
    with pytest.raises(GatewayRefused) as raised:
        await gateway.create_tax_id(key="tax", customer=customer, type=kind, value=value)
    assert (raised.value.code, raised.value.is_key) == (code, False)


@pytest.mark.parametrize("right", ["rak_customer_write", "rak_customer_read"])
async def test_a_restricted_key_needs_the_right(
    gateway: PaymentGateway, customer: str, simulator: Simulated, stripe_key: str, right: str
) -> None:
    made = await gateway.create_tax_id(key="tax", customer=customer, type="eu_vat", value="DE000000000")
    simulator.set_key(stripe_key, missing_rights=[right])

    ask = gateway.delete_tax_id if right.endswith("write") else gateway.read_tax_id

    with pytest.raises(GatewayRefused) as raised:
        await ask(customer, made.gateway_id)

    assert raised.value.is_key
    assert right in raised.value.message


@pytest.mark.parametrize("kind", ["500_before", "429", "500_after_effect"])
async def test_an_outage_says_nothing(
    gateway: PaymentGateway, customer: str, simulator: Simulated, stripe_key: str, kind: str
) -> None:
    simulator.fault(kind, key=stripe_key, route="customers.create_tax_id")

    with pytest.raises(GatewayUnclear):
        await gateway.create_tax_id(key="tax", customer=customer, type="eu_vat", value="DE000000000")
    simulator.heal()

    assert len(await gateway.list_tax_ids(customer)) == (1 if kind == "500_after_effect" else 0)


async def test_a_long_list_is_read_to_its_end(gateway: PaymentGateway, customer: str) -> None:
    for index in range(103):
        await gateway.create_tax_id(key=f"tax{index}", customer=customer, type="za_vat", value=f"4{index:09}")

    assert len({one.gateway_id for one in await gateway.list_tax_ids(customer)}) == 103


def test_an_answer_that_makes_no_sense_is_none() -> None:
    whole = {"id": "txi_1", "type": "eu_vat", "value": "DE1", "verification": {"status": "guessed"}}
    with pytest.raises(ValueError, match="guessed"):
        answers.tax_id(whole)
    assert answers.tax_id({**whole, "verification": None}).status == "unavailable"


async def test_a_cardholders_name_is_told(gateway: PaymentGateway, customer: str) -> None:
    given = await gateway.attach_card(key="card", customer=customer, token="pm_card_visa")
    assert given.name is None
    told = {"id": "pm_1", "card": {"brand": "visa", "last4": "4242", "exp_month": 1, "exp_year": 2040}}
    assert answers.card({**told, "billing_details": {"name": "Ada"}}).name == "Ada"
    assert answers.card(told).name is None
