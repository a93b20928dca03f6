"""What a lane reads of an account's plan and prices, and the moves of many accounts in one go."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Final

import asyncpg
import pytest

from tenuto.core.event import AccountState
from tenuto.core.identifiers import spell
from tenuto.core.ledger import adjust, open_balance
from tenuto.core.money import Exact
from tenuto.engine import Engine
from tenuto.store import ledger
from tests.inside import Inside, event
from tests.subscribed import subscribe

PLAN_ID: Final = 77
TERMS: Final = {"name": "Pro", "renewal_denomination": "USD", "renewals": {"MONTHLY": {"amount": 1000}}, "balances": {}}


@pytest.fixture
async def acme(engine: Engine) -> Inside:
    """A company with a plan."""
    found = await Inside.open(engine)
    async with engine.database.writing() as unit:
        await unit.execute(
            "with made as (insert into plan (environment_id, id, created_at) values ($1, $2, now()))"
            " insert into plan_version (environment_id, id, plan_id, number, terms, created_at)"
            " values ($1, $2 + 1, $2, 1, $3, now())",
            found.environment.id,
            PLAN_ID,
            json.dumps(TERMS),
        )
    return found


async def state_of(engine: Engine, account_id: int) -> AccountState:
    async with engine.database.reading() as reader:
        return (await ledger.load_states(reader, {account_id: engine.now()})).states[account_id]


def put_on_plan(engine: Engine, account_id: int, **terms: str) -> int:
    return subscribe(engine.settings.database, spell("a", account_id), spell("p", PLAN_ID), **terms)


async def execute(engine: Engine, sql: str, *arguments: object) -> None:
    async with engine.database.writing() as unit:
        await unit.execute(sql, *arguments)


async def test_an_account_is_read_with_its_plan(engine: Engine, acme: Inside) -> None:
    account_id = await acme.account(USD=500)
    await acme.balance_opened(account_id, "credits", 5)
    assert (await state_of(engine, account_id)).plan is None
    period_id = put_on_plan(engine, account_id)
    await acme.adjust(account_id, "USD", -40)

    plan = (await state_of(engine, account_id)).plan
    assert plan is not None
    assert (plan.version_id, plan.override, plan.unspent) == (PLAN_ID + 1, None, 460)
    assert [name for _, name in plan.periods] == [str(period_id), str(period_id - 1)]
    assert plan.periods[0][0] - plan.periods[1][0] == timedelta(days=30)


async def test_terms_agreed_with_the_account_are_read_with_it(engine: Engine, acme: Inside) -> None:
    account_id = await acme.account()
    put_on_plan(engine, account_id, agreed=json.dumps({**TERMS, "spend_cap": 70}))
    first, second = [(await state_of(engine, account_id)).plan for _ in range(2)]
    assert first is not None
    assert second is not None
    assert first.override is not None
    assert (first.override.spend_cap, first.unspent) == (70, 0)
    assert first.override is second.override, "text that is known is not read again"


@pytest.mark.parametrize(
    ("status", "is_on"),
    [("trialing", True), ("past_due", True), ("paused", True), ("cancelled", False), ("pending_card", False)],
)
async def test_a_plan_counts_while_it_runs(engine: Engine, acme: Inside, status: str, is_on: bool) -> None:  # noqa: FBT001 - a row
    account_id = await acme.account()
    put_on_plan(engine, account_id)
    await execute(engine, "update subscription set status = $1", status)
    assert ((await state_of(engine, account_id)).plan is not None) is is_on


async def test_periods_of_long_ago_are_left_out(engine: Engine, acme: Inside) -> None:
    account_id = await acme.account()
    period_id = put_on_plan(engine, account_id)
    copied = (
        "insert into subscription_period (account_id, id, environment_id, plan_id, version_id, cadence, is_trial,"
        " start_at, end_at, ended_at, denomination, price, credited, spent_before, created_at)"
        " select account_id, id - n - 10, environment_id, plan_id, version_id, cadence, is_trial,"
        " start_at - n * interval '40 days', end_at - n * interval '40 days', $2, denomination, price, credited,"
        " spent_before, created_at from subscription_period, generate_series(1, $3) as n where id = $1"
    )
    await execute(engine, copied, period_id, None, 60)
    await execute(engine, "update subscription_period set ended_at = start_at where id = $1", period_id - 1)

    plan = (await state_of(engine, account_id)).plan
    assert plan is not None
    assert len(plan.periods) == ledger.PERIODS_MAX
    assert [name for _, name in plan.periods[:2]] == [str(period_id), str(period_id - 1)]


async def test_a_period_that_a_change_began_counts_from_where_the_last_was_to_end(engine: Engine, acme: Inside) -> None:
    account_id = await acme.account()
    period_id = put_on_plan(engine, account_id)
    plan = (await state_of(engine, account_id)).plan
    assert plan is not None
    (began, name), (earlier, before) = plan.periods
    assert (name, before) == (str(period_id), str(period_id - 1))
    # It was to last ten days more when something else took its place.
    longer = "update subscription_period set end_at = end_at + interval '10 days' where id = $1"
    await execute(engine, longer, period_id - 1)
    plan = (await state_of(engine, account_id)).plan
    assert plan is not None
    assert plan.periods == ((began + timedelta(days=10), name), (earlier, before))


async def test_an_account_is_read_with_the_prices_agreed_with_it(engine: Engine, acme: Inside) -> None:
    account_id, other = await acme.account(), await acme.account()
    rows = [(1, 10, 1, "CHAT", "2", None), (2, 10, 2, "CHAT", "3", None), (3, 11, 1, "READ", "5", engine.now())]
    for id, price_id, number, kind, amount, ended_at in rows:
        await execute(
            engine,
            "insert into price_override (account_id, id, price_id, number, type, denomination, match, match_key, terms,"
            " created_at, effective_at, ended_at) values ($1, $2, $3, $4, $5, 'credits', '{}', '{}', $6, $7, $7, $8)",
            *(account_id, id, price_id, number, kind, json.dumps({"amount": amount}), engine.now(), ended_at),
        )
    state = await state_of(engine, account_id)
    assert set(state.own_prices) == {"CHAT"}
    (((chat,),),) = state.own_prices.values()
    assert (chat.id, [version.unit for version in chat.versions]) == (10, [Exact(2, 1), Exact(3, 1)])
    assert chat.latest.effective_at == engine.now()
    assert {id: version.price_id for id, version in state.own_versions.items()} == {1: 10, 2: 10, 3: 11}
    assert not (await state_of(engine, other)).own_versions


async def test_many_accounts_are_taken_and_moved_together(engine: Engine, acme: Inside) -> None:
    ids = [await acme.account(credits=10), await acme.account(credits=20), await acme.account()]
    stranger = await (await Inside.open(engine)).account()
    now = engine.now()
    async with engine.database.writing() as unit:
        states = await ledger.take_accounts(unit, acme.environment.id, [*ids, stranger, 5], now)
        assert sorted(states) == sorted(ids)
        many = []
        for state in states.values():
            balance = state.balances.get("credits") or open_balance("credits")
            first, given = adjust(balance, 7, id=state.tick + 1, reason="a gift", now=now)
            last, taken = adjust(first, -3, id=state.tick + 2, reason="a mistake", now=now)
            many.append((state, state.tick + 2, [(first, given), (last, taken)], now))
        await ledger.save_many_moves(unit, many)
        await ledger.save_many_moves(unit, [])

    found = {id: await state_of(engine, id) for id in ids}
    assert [found[id].balances["credits"].amount for id in ids] == [14, 24, 4]
    assert [found[id].tick - states[id].tick for id in ids] == [2, 2, 2]
    connection = await asyncpg.connect(engine.settings.database)
    try:
        rows = await connection.fetch("select amount, arrived from balance")
    finally:
        await connection.close()
    assert sorted(tuple(row) for row in rows) == [(4, 4), (14, 14), (24, 24)]


async def test_what_usage_takes_has_not_arrived(engine: Engine, acme: Inside) -> None:
    account_id = await acme.account(credits=10)
    await acme.price("CHAT", "credits", amount="3")
    await acme.look()
    put_on_plan(engine, account_id)
    await acme.send(account_id, event("CHAT"), event("CHAT"))
    await acme.adjust(account_id, "credits", 1)
    async with engine.database.reading() as reader:
        assert await reader.fetchval("select arrived from balance where account_id = $1", account_id) == 11
