"""Plans on the shelf: what an environment knows of them, and two workers who publish at once."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import pytest

from tenuto.core.outcomes import Refusal
from tenuto.engine import Engine
from tenuto.service import catalog, plans
from tenuto.store import catalog as shelf
from tenuto.store.plans import PlanRow, read_plan
from tests.conftest import MadeUpClock
from tests.inside import Inside, another_engine

GIVEN: Final[dict[str, Any]] = {
    "name": "Pro",
    "renewal_denomination": "USD",
    "renewals": {"MONTHLY": {"amount": 1000}},
    "balances": {"credits": {"amount": 100}},
}
PRICE: Final[dict[str, Any]] = {
    "type": "CHAT",
    "denomination": "credits",
    "match": {},
    "model": "per_unit",
    "amount": "2",
    "per": 1,
}


async def publish(company: Inside, code: str | None = None, **terms: object) -> PlanRow:
    async with company.engine.database.writing() as unit:
        return await plans.publish_plan(company.engine, unit, company.environment, code, {**GIVEN, **terms})


async def change(company: Inside, plan_id: int, **changes: object) -> PlanRow:
    async with company.engine.database.writing() as unit:
        return await plans.change_plan_terms(company.engine, unit, company.environment, plan_id, changes)


async def test_an_environment_knows_every_version_with_its_prices(engine: Engine) -> None:
    company = await Inside.open(engine)
    own = await company.price("CHAT", "credits", model="per_unit", amount="9", per=1)
    first = await publish(company, event_prices=[PRICE, {**PRICE, "match": {"model": "large"}, "amount": "5"}])
    second = await change(
        company, first.id, event_prices=[{**PRICE, "type": "DRAW"}], renewals={"YEARLY": {"amount": 0}}
    )
    await company.look()

    terms = company.environment.terms
    assert set(terms.plans) == {first.version_id, second.version_id}
    before, after = terms.plans[first.version_id], terms.plans[second.version_id]
    assert (before.plan_id, before.number, after.plan_id, after.number) == (first.id, 1, first.id, 2)
    assert (before.terms.renewals, after.terms.renewals) == ({"MONTHLY": 1000}, {"MONTHLY": 1000, "YEARLY": 0})
    assert [price.match for price in before.prices["CHAT"][0]] == [{"model": "large"}, {}]
    assert (list(before.prices), list(after.prices)) == (["CHAT"], ["DRAW"])
    assert not before.is_archived

    # The company's own prices are its own; every version that ever was can be found again.
    assert [price.id for family in terms.prices["CHAT"] for price in family] == [own]
    assert list(terms.prices) == ["CHAT"]
    of_plans = [price for plan in (before, after) for families in plan.prices.values() for price in families[0]]
    assert {price.latest.id for price in of_plans} < set(terms.versions)
    assert len(terms.versions) == 4


async def test_a_price_of_a_plan_is_out_of_reach(engine: Engine) -> None:
    company = await Inside.open(engine)
    row = await publish(company, event_prices=[PRICE])
    await company.look()
    ((price,),) = company.environment.terms.plans[row.version_id].prices["CHAT"]

    async with engine.database.reading() as reader:
        assert await shelf.read_price(reader, company.environment.id, price.id) is None
        assert await shelf.list_prices(reader, company.environment.id, limit=9, after=None, filters={}) == []
    async with engine.database.writing() as unit:
        with pytest.raises(Refusal, match="nothing at this address"):
            await catalog.delete_event_price(engine, unit, company.environment, price.id)
        with pytest.raises(Refusal, match="nothing at this address"):
            await catalog.change_event_price(engine, unit, company.environment, price.id, {"amount": "1"})


async def test_an_archived_plan_is_known_and_not_sold(engine: Engine) -> None:
    company = await Inside.open(engine)
    row = await publish(company)
    async with engine.database.writing() as unit:
        await plans.archive_plan(engine, unit, company.environment, row.id)
    await company.look()

    assert company.environment.terms.plans[row.version_id].is_archived


async def test_two_workers_publish_one_code_once(engine: Engine, clock: MadeUpClock) -> None:
    company = await Inside.open(engine)
    async with another_engine(engine, clock) as other:
        workers = [company, await company.through(other)]
        results = await asyncio.gather(
            *(publish(worker, "pro") for worker in workers for _ in range(3)), return_exceptions=True
        )

    made = [found for found in results if isinstance(found, PlanRow)]
    refused = [found for found in results if isinstance(found, Refusal)]
    assert (len(made), [found.code for found in refused]) == (1, ["plan_exists"] * 5)
    async with engine.database.reading() as reader:
        assert await read_plan(reader, company.environment.id, made[0].id) == made[0]
