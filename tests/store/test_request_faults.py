"""A request is paid for once and told of once, wherever the worker that served its page dies."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from tenuto.core.identifiers import spell_of_account
from tenuto.core.payment import Payment
from tenuto.engine import Engine, Once
from tenuto.service import payments, requests
from tenuto.service.requests import Letter, Offer, Till
from tenuto.store import requests as shelf
from tenuto.store.database import Unit, migrate
from tenuto.store.payments import Link
from tests.conftest import MadeUpClock
from tests.inside import disagreements
from tests.simulated import Simulated
from tests.store.refill_world import LEASE_AND_A_BIT, Crash, World, audited, charges, emptied

SMALL, LARGE = Offer(1000, 500, "USD"), Offer(5000, 2000, "USD")


@pytest.fixture(scope="module")
def stripe() -> Iterator[Simulated]:
    with Simulated() as found:
        yield found


@pytest.fixture(scope="module")
async def database(new_database: Callable[[str], str]) -> str:
    dsn = new_database("requests")
    await migrate(dsn)
    return dsn


@pytest.fixture
async def world(database: str, clock: MadeUpClock, stripe: Simulated) -> AsyncIterator[World]:
    """A company of the test's own that hears every topic. What it leaves behind must please the product's audit."""
    await emptied(database)
    found = await World.open(database, clock, stripe)
    async with found.engine.database.writing() as unit:
        await unit.execute(
            "insert into webhook (environment_id, id, secret, description, in_flight, merges, created_at)"
            " values ($1, 1, 'x', '', 1, false, now())",
            found.environment.id,
        )
        await unit.execute(
            "insert into webhook_topic (environment_id, id, webhook_id, topic, created_at)"
            " values ($1, 1, 1, '*', now())",
            found.environment.id,
        )
    try:
        yield found
        await audited(database)
        assert await disagreements(database) == []
    finally:
        stripe.heal()
        await found.engine.close()


async def ask(world: World, account_id: int) -> Link:
    letter = Letter(None, None, timedelta(days=7))
    async with world.engine.database.writing() as unit:
        return await requests.ask_topup(
            world.engine, unit, world.environment, account_id, "tokens", [SMALL, LARGE], letter
        )


def till(world: World, engine: Engine, link: Link) -> Till:
    """What the page buys with."""
    whose = (world.environment, link.account_id)

    async def begin(unit: Unit, offer: Offer, once: Once) -> Payment:
        return await payments.begin_deposit(engine, unit, *whose, payments.Deposit("tokens", *offer), once)

    async def retry(unit: Unit, payment_id: int) -> Payment:
        return await payments.retry_payment(engine, unit, *whose, payment_id, is_claimed=True)

    async def give_up(unit: Unit, payment_id: int) -> Payment:
        return await payments.void_payment(engine, unit, *whose, payment_id, is_claimed=True)

    async def drive(payment_id: int, fence: int | None) -> Payment:
        return await payments.drive(engine, *whose, payment_id, fence=fence)

    return Till(begin, retry, give_up, drive)


async def press(world: World, link: Link, offer: Offer, engine: Engine | None = None) -> None:
    """The button of an offer, on the page as it is now."""
    engine = engine or world.engine
    async with engine.database.reading() as reader:
        seen = (await requests.read_standing(reader, link)).seen
    await requests.buy(engine, link, offer, seen, till(world, engine, link))


async def answered(world: World, link: Link, payment: Payment) -> None:
    """The request is done and was told of once, by the one payment that came in."""
    async with world.engine.database.reading() as reader:
        standing = await requests.read_standing(reader, link)
    assert standing.link.used_at is not None
    rows = await world.company.rows("select data::text from notification where topic = 'topup.completed'")
    told: list[Any] = [json.loads(row["data"]) for row in rows]
    assert [(one["request_id"], one["payment_id"], one["units"]) for one in told] == [
        (shelf.public_id(link), spell_of_account("pay", payment.account_id, payment.id), payment.units)
    ]
    assert charges(world)["succeeded"] == 1
    assert (await world.company.balance(link.account_id, "tokens")).amount == payment.units


POINTS = [f"payment.{when}_{what}" for what in ("create", "confirm") for when in ("before", "after")]


@pytest.mark.parametrize("point", [*POINTS, "payment.closed"])
async def test_a_page_whose_worker_dies_has_bought_once_or_is_pressed_again(world: World, point: str) -> None:
    link = await ask(world, await world.customer())

    def die(name: str) -> None:
        if name == point:
            raise Crash(name)

    async with world.worker() as doomed:
        doomed.faults = die
        with pytest.raises(Crash):
            await press(world, link, SMALL, doomed)
    await press(world, link, SMALL)
    await press(world, link, LARGE)
    world.clock.forward(seconds=LEASE_AND_A_BIT)
    await world.recover(world.engine)
    await press(world, link, LARGE)
    (paid,) = await world.payments()
    assert (paid.status, paid.units) == ("succeeded", 1000)
    await answered(world, link, paid)


@pytest.mark.parametrize("offer", [SMALL, LARGE])
async def test_a_refused_payment_that_was_paid_all_the_same_is_found_before_another_begins(
    world: World, offer: Offer
) -> None:
    account_id = await world.customer("pm_card_chargeCustomerFail")
    link = await ask(world, account_id)
    await press(world, link, SMALL)
    (refused,) = await world.payments()
    assert refused.status == "failed"
    await world.pay_in_browser(refused)
    await world.give_card(account_id, "pm_card_visa")

    await press(world, link, offer)
    await world.recover(world.engine)
    (paid,) = await world.payments()
    assert (paid.id, paid.status) == (refused.id, "succeeded")
    await answered(world, link, paid)


async def test_an_answer_that_is_lost_is_waited_for(world: World) -> None:
    link = await ask(world, await world.customer())
    world.stripe.fault("500_after_effect", route="payment_intents.confirm", key=world.key)
    await press(world, link, SMALL)
    await press(world, link, LARGE)
    await world.recover(world.engine)
    (paid,) = await world.payments()
    await answered(world, link, paid)
