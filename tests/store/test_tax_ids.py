"""Tax numbers in turns: a register that is slow, a provider that is away, workers that die (contract 5.6)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from tenuto.core.outcomes import Refusal
from tenuto.engine import Engine
from tenuto.gateway.port import PaymentGateway
from tenuto.service import tax_ids
from tenuto.service.cards import customer_of
from tenuto.service.tax_ids import PAUSES, TRIES_MAX
from tenuto.store import tax_ids as shelf
from tenuto.store.accounts import Environment
from tenuto.store.database import migrate
from tenuto.store.tax_ids import TaxId
from tests.conftest import MadeUpClock
from tests.simulated import Simulated
from tests.store.refill_world import LEASE_AND_A_BIT, Crash, World

VERIFIED, UNVERIFIED, SLOW = "DE000000000", "DE111111111", "DE222222222"


@pytest.fixture(scope="module")
def stripe() -> Iterator[Simulated]:
    with Simulated() as found:
        yield found


@pytest.fixture
async def world(new_database: Callable[[str], str], clock: MadeUpClock, stripe: Simulated) -> AsyncIterator[World]:
    dsn = new_database("tax_ids")
    await migrate(dsn)
    found = await World.open(dsn, clock, stripe)
    try:
        yield found
    finally:
        stripe.heal()
        await found.engine.close()


async def given(world: World, account_id: int, value: str = VERIFIED, type: str = "eu_vat") -> TaxId:
    async with world.engine.database.writing() as unit:
        return await tax_ids.add_tax_id(world.engine, unit, world.environment, account_id, type=type, value=value)


async def removed(world: World, tax_id: TaxId) -> None:
    async with world.engine.database.writing() as unit:
        await tax_ids.remove_tax_id(world.engine, unit, world.environment, tax_id.account_id, tax_id.id)


async def turns(world: World, engine: Engine | None = None) -> int:
    """One pass of the sweep; registers have answered when it is over."""
    engine = engine or world.engine
    done = await tax_ids.verify_due(engine, customer_of, now=engine.now(), limit=100)
    world.stripe.release()
    return done


async def now_is(world: World, tax_id: TaxId) -> TaxId:
    async with world.engine.database.reading() as reader:
        found = await shelf.read_tax_id(reader, tax_id.account_id, tax_id.id, or_deleted=True)
    assert found is not None
    return found


async def settled(world: World, tax_id: TaxId, passes: int = 6) -> TaxId:
    """A number after so many passes, each when the one before is due again."""
    for _ in range(passes):
        await turns(world)
        found = await now_is(world, tax_id)
        if found.next_at is None:
            return found
        world.clock.at = max(world.clock.at, found.next_at)
    return await now_is(world, tax_id)


def known_there(world: World) -> list[Any]:
    return [one for one in world.stripe.book(world.key)["tax_ids"] if not one.get("deleted")]


@pytest.mark.parametrize(("value", "status"), [(VERIFIED, "verified"), (UNVERIFIED, "unverified")])
async def test_a_register_says_whether_a_number_is_real(world: World, value: str, status: str) -> None:
    made = await given(world, await world.company.account(), value)
    assert (made.status, made.country) == ("pending", "DE")

    found = await settled(world, made)

    assert (found.status, found.next_at) == (status, None)
    assert (found.verified_name is not None) == (status == "verified")
    assert [(one["type"], one["value"]) for one in known_there(world)] == [("eu_vat", value)]
    total = world.stripe.rate(world.key)["total"]
    world.clock.forward(days=30)
    assert await turns(world) == 0
    assert world.stripe.rate(world.key)["total"] == total


async def test_a_number_that_no_register_is_asked_about_goes_nowhere(world: World) -> None:
    made = await given(world, await world.company.account(), "4123456789", "za_vat")

    assert (made.status, await turns(world)) == ("unavailable", 0)
    assert known_there(world) == []


async def test_a_number_that_is_none_is_unverified(world: World) -> None:
    made = await given(world, await world.company.account(), "Germany")

    assert (await settled(world, made)).status == "unverified"


async def test_a_slow_register_is_asked_at_growing_pauses_and_not_for_ever(world: World) -> None:
    made = await given(world, await world.company.account(), SLOW)
    pauses: list[timedelta] = []

    for _ in range(TRIES_MAX - 1):
        assert await turns(world) == 1
        found = await now_is(world, made)
        assert (found.status, found.next_at is None) == ("pending", False)
        assert found.next_at is not None
        pauses.append(found.next_at - world.clock.at)
        world.clock.at = found.next_at
    assert pauses[: len(PAUSES)] == list(PAUSES)
    assert set(pauses[len(PAUSES) :]) == {PAUSES[-1]}
    assert len(known_there(world)) == 1

    assert await turns(world) == 1
    found = await now_is(world, made)
    assert (found.status, found.next_at) == ("unavailable", None)


@pytest.mark.parametrize("kind", ["500_before", "500_after_effect", "429"])
@pytest.mark.parametrize("route", ["customers.create", "customers.create_tax_id", "customers.retrieve_tax_id"])
async def test_an_outage_at_any_call_is_waited_for(world: World, kind: str, route: str) -> None:
    made = await given(world, await world.company.account())
    world.stripe.fault(kind, key=world.key, route=route, times=2)

    await turns(world)
    found = await now_is(world, made)
    assert found.status == "pending"
    assert found.next_at is not None
    assert found.next_at > world.clock.at
    world.clock.at = found.next_at
    await turns(world)
    world.clock.forward(days=1)
    await turns(world)
    world.stripe.heal()
    # To the same key the provider repeats its own fault for a day.
    world.stripe.advance(2 * 86_400)
    world.clock.forward(days=1)

    assert (await settled(world, made)).status == "verified"
    assert len(known_there(world)) == 1


@pytest.mark.parametrize("point", ["tax_id.before_ask", "tax_id.after_ask"])
@pytest.mark.parametrize("what", ["made", "deleted"])
async def test_a_worker_that_dies_costs_one_more_turn(world: World, point: str, what: str) -> None:
    is_deleted = what == "deleted"
    made = await given(world, await world.company.account())
    if is_deleted:
        await turns(world)
        await removed(world, made)

    def crash(reached: str) -> None:
        if reached == point:
            raise Crash

    async with world.worker() as mortal:
        mortal.faults = crash
        with pytest.raises(Crash):
            await turns(world, mortal)
    assert await turns(world) == 0  # until it is sure that nobody has it in hand
    world.clock.forward(seconds=LEASE_AND_A_BIT)

    found = await settled(world, made)

    assert found.next_at is None
    assert found.status == ("pending" if is_deleted else "verified")
    assert len(known_there(world)) == (0 if is_deleted else 1)


async def test_a_deleted_number_is_forgotten_at_the_provider_however_long_that_takes(world: World) -> None:
    made = await given(world, await world.company.account())
    await settled(world, made)
    await removed(world, made)
    world.stripe.fault("500_before", key=world.key, route="customers.delete_tax_id")
    await turns(world)
    assert len(known_there(world)) == 1
    world.stripe.heal()

    world.clock.forward(days=1)
    await turns(world)

    assert known_there(world) == []
    assert (await now_is(world, made)).next_at is None


async def test_what_a_lost_turn_made_is_forgotten_too_and_its_successor_is_not(world: World) -> None:
    account = await world.company.account()
    made = await given(world, account)
    world.stripe.fault("500_after_effect", key=world.key, route="customers.create_tax_id")
    await turns(world)
    world.stripe.heal()
    await removed(world, made)
    again = await given(world, account)
    await settled(world, again)
    assert len(known_there(world)) == 2

    world.clock.forward(days=1)
    await turns(world)

    assert (await now_is(world, made)).next_at is None
    assert [one["id"] for one in known_there(world)] == [(await now_is(world, again)).gateway_id]


async def test_a_number_that_was_deleted_at_the_provider_is_made_again(world: World) -> None:
    made = await given(world, await world.company.account(), SLOW)
    await turns(world)
    first = await now_is(world, made)
    gateway = await world.engine.gateway_for(world.environment)
    assert first.gateway_id is not None
    await gateway.delete_tax_id(known_there(world)[0]["customer"], first.gateway_id)

    await settled(world, made, passes=3)

    second = await now_is(world, made)
    assert [one["id"] for one in known_there(world)] == [second.gateway_id]
    assert second.gateway_id != first.gateway_id


async def test_two_workers_make_one_number(world: World) -> None:
    made = await given(world, await world.company.account())

    async with world.worker() as other:
        done = await asyncio.gather(turns(world), turns(world, other))

    assert sum(done) == 1
    assert (await settled(world, made)).status == "verified"
    assert len(known_there(world)) == 1


async def test_a_number_that_was_deleted_while_it_was_asked_about_stays_deleted(world: World) -> None:
    made = await given(world, await world.company.account())

    async with world.worker() as slow:
        asked = slow.gateway_for

        async def gateway_for(environment: Environment) -> PaymentGateway:
            await removed(world, made)
            return await asked(environment)

        slow.gateway_for = gateway_for  # type: ignore[method-assign]
        await turns(world, slow)

    assert (await now_is(world, made)).deleted_at is not None
    world.clock.forward(days=1)
    await turns(world)
    assert known_there(world) == []


async def test_without_a_provider_a_number_waits(world: World) -> None:
    made = await given(world, await world.company.account())

    async with world.worker() as poor:

        async def gateway_for(_: Environment) -> PaymentGateway:
            raise Refusal("gateway_not_configured")

        poor.gateway_for = gateway_for  # type: ignore[method-assign, assignment]
        await turns(world, poor)

    found = await now_is(world, made)
    assert found.status == "pending"
    assert found.next_at is not None
    assert found.next_at - world.clock.at >= timedelta(hours=1)
    assert await turns(world) == 0
    world.clock.forward(hours=2)
    assert (await settled(world, made)).status == "verified"
