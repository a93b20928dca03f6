"""Which provider an engine asks for whom: one gateway a company, made once, and none where there is nobody to ask."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tenuto.core.outcomes import Refusal
from tenuto.engine import Engine
from tests.inside import Inside
from tests.simulated import Simulated


@pytest.fixture
async def company(engine: Engine, tmp_path: Path, stripe: Simulated) -> Inside:
    engine.settings = replace(engine.settings, sandbox_url=stripe.url, data=str(tmp_path))
    return await Inside.open(engine)


async def test_ten_who_ask_at_once_share_one_gateway(company: Inside) -> None:
    engine = company.engine
    found = await asyncio.gather(*(engine.gateway_for(company.environment) for _ in range(10)))
    assert len(set(map(id, found))) == 1


async def test_a_company_in_test_mode_without_a_key_asks_the_sandbox_for_its_own_book(
    company: Inside, stripe: Simulated
) -> None:
    engine = company.engine
    gateway = await engine.gateway_for(company.environment)
    made = await gateway.create_customer(key="k", name="Ada", email="ada@example.com", account="a_00000001")
    book = await asyncio.to_thread(stripe.book, engine.sandbox_key(company.environment))
    assert [customer["id"] for customer in book["customers"]] == [made]


async def test_without_a_sandbox_there_is_nobody_to_ask(company: Inside) -> None:
    company.engine.settings = replace(company.engine.settings, sandbox_url="")
    with pytest.raises(Refusal, match="no Stripe key"):
        await company.engine.gateway_for(company.environment)


async def test_a_live_company_never_asks_the_sandbox(company: Inside) -> None:
    with pytest.raises(Refusal, match="no Stripe key"):
        await company.engine.gateway_for(replace(company.environment, live=True))


async def test_a_key_that_was_sealed_for_another_company_opens_nothing(company: Inside) -> None:
    engine, environment = company.engine, company.environment
    foreign = engine.vault.seal("sk_test_0123456789", context="c_99999999/test/stripe_key")
    asked = replace(environment, stripe=replace(environment.stripe, key=foreign))
    with pytest.raises(Refusal) as refused:
        await engine.gateway_for(asked)
    assert refused.value.code == "gateway_not_configured"
    assert "sk_test" not in str(refused.value)
