"""Grants against the gate: what has ended cannot be used, though no clockwork is alive; what is used first."""

from __future__ import annotations

from datetime import timedelta

from tenuto.core.event import UsageEvent
from tenuto.core.identifiers import spell
from tenuto.engine import Engine
from tenuto.service import grants
from tenuto.service.grants import GrantAsk
from tests.conftest import MadeUpClock
from tests.inside import Inside, disagreements, event


async def given(company: Inside, account_id: int, units: int, *, days: int | None = None, priority: int = 100) -> None:
    engine = company.engine
    expires_at = None if days is None else engine.now_of(company.environment) + timedelta(days=days)
    ask = GrantAsk("tokens", units, priority, expires_at, 0, "USD", "goodwill")
    async with engine.database.writing() as unit:
        await grants.give(engine, unit, company.environment, account_id, ask)


async def lefts(company: Inside, account_id: int) -> list[tuple[int, int, bool]]:
    rows = await company.rows(
        "select units, units_left, closed_at is not null as is_closed from balance_grant"
        " where account_id = $1 order by id",
        account_id,
    )
    return [(row["units"], row["units_left"], row["is_closed"]) for row in rows]


def used(units: int) -> UsageEvent:
    return event("USE", override=(units, "tokens"), gated=True)


async def test_the_gate_does_not_count_what_has_ended(engine: Engine, clock: MadeUpClock) -> None:
    company = await Inside.open(engine)
    account_id = await company.account()
    await given(company, account_id, 100, days=10)
    await given(company, account_id, 50, days=30)
    first = await company.send(account_id, used(30))
    assert first.event.charges[0].balance_amount == 120
    clock.at += timedelta(days=10)

    refused = await company.send(account_id, used(51))
    assert [found.details["available"] for found in refused.refused] == [50]
    passed = await company.send(account_id, used(50))
    assert passed.event.charges[0].balance_amount == 0
    assert await lefts(company, account_id) == [(100, 70, True), (50, 50, False)]
    assert await disagreements(engine.database.dsn) == [], spell("a", account_id)


async def test_what_has_the_lower_priority_is_used_first(engine: Engine, clock: MadeUpClock) -> None:
    company = await Inside.open(engine)
    account_id = await company.account()
    await given(company, account_id, 100, days=10)
    await given(company, account_id, 100, days=10, priority=1)
    await company.send(account_id, used(60))
    clock.at += timedelta(days=10)
    assert await grants.expire_grants(engine, now=engine.now(), limit=10) == 1
    assert await lefts(company, account_id) == [(100, 100, True), (100, 40, True)]
    assert (await company.balance(account_id, "tokens")).amount == 0
    assert await grants.expire_grants(engine, now=engine.now(), limit=10) == 0
