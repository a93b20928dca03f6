"""A plan is renewed once for its date, paid once and gives its units once, whatever dies, is lost, doubled or raced.

Real PostgreSQL, a made-up clock, the real gateway asking the simulator; the simulator's own book is the judge.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tenuto.store.database import migrate
from tests.conftest import MadeUpClock
from tests.inside import disagreements
from tests.simulated import Simulated
from tests.store.plan_world import PlanWorld, audited, die_renewing, plan_points
from tests.store.refill_world import emptied


@pytest.fixture(scope="module")
def stripe() -> Iterator[Simulated]:
    with Simulated() as found:
        yield found


@pytest.fixture(scope="module")
async def database(new_database: Callable[[str], str]) -> str:
    dsn = new_database("plan_faults")
    await migrate(dsn)
    return dsn


@pytest.fixture
async def world(database: str, clock: MadeUpClock, stripe: Simulated) -> AsyncIterator[PlanWorld]:
    """A company of the test's own in an empty database. What it leaves behind must please the product's audit."""
    await emptied(database)
    found = await PlanWorld.made(database, clock, stripe)
    try:
        yield found
        await audited(database)
        assert await disagreements(database) == []
    finally:
        stripe.heal()
        await found.engine.close()


# --- workers that die in a run of renewals ----------------------------------------------------------------------------


@pytest.mark.parametrize("point", plan_points())
async def test_a_run_of_renewals_that_dies_at_any_point_renews_each_account_once(world: PlanWorld, point: str) -> None:
    await die_renewing(world, point, count=1, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [10, 20, 30])
@pytest.mark.parametrize("point", plan_points())
async def test_seventy_renewals_survive_a_death_at_any_point(world: PlanWorld, point: str, seed: int) -> None:
    await die_renewing(world, point, count=10, seed=seed)
