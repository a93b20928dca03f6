"""Each file in ``lives`` and ``plans`` is a life of an account that an accountant can review; here they are lived."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tenuto.engine import Engine, Settings
from tenuto.service.usage import open_lanes
from tenuto.store.database import Database, migrate
from tests.conftest import MadeUpClock
from tests.inside import audit, disagreements, let_go
from tests.simulated import Simulated
from tests.store.refill_world import Worker
from tests.stories.notation import Story, lines_of
from tests.stories.plan_notation import PlanStory

HERE = Path(__file__).parent
LIVES = {path.stem: path.read_text() for path in sorted((HERE / "lives").glob("*.txt"))}
PLANS = {path.stem: path.read_text() for path in sorted((HERE / "plans").glob("*.txt"))}


@pytest.fixture(scope="module")
async def house(new_database: Callable[[str], str], stripe: Simulated) -> AsyncIterator[Engine]:
    """One engine for all lives: they share a database as companies do, and must not feel each other."""
    dsn = new_database("stories")
    await migrate(dsn)
    settings = Settings(database=dsn, lanes=2, secret_key="ab" * 32, sandbox_url=stripe.url)
    engine = Worker(settings, await Database.connect(dsn), MadeUpClock())
    engine.lanes = open_lanes(engine)
    engine.lanes.start()
    yield engine
    await let_go(engine)
    await engine.close()


@pytest.mark.parametrize("name", LIVES)
async def test_life(house: Engine, name: str) -> None:
    lines = lines_of(LIVES[name])
    told = await Story(house).live(lines)
    assert told == [line.told(line.answer or "") for line in lines]
    assert await disagreements(house.database.dsn) == []


@pytest.mark.parametrize("name", PLANS)
async def test_life_on_plans(house: Engine, stripe: Simulated, name: str) -> None:
    lines = lines_of(PLANS[name])
    story = PlanStory(house, stripe)
    told = await story.live(lines)
    assert told == [line.told(line.answer or "") for line in lines]
    assert await story.disagreements() == []
    assert await disagreements(house.database.dsn) == []


async def test_all_lives_together_pass_the_audit(house: Engine) -> None:
    await audit(house.database.dsn)


def test_there_are_enough_lives() -> None:
    assert len(LIVES) >= 15
    assert len(PLANS) >= 40
