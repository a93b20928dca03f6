"""What was done by whom: a chain, and the audit names the row that was altered, taken out or numbered anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

import asyncpg
import pytest
import pytest_asyncio

from tenuto.engine import Engine, Settings
from tenuto.service.activity import ASKED_MAX, LIST_MAX, TEXT_MAX, Actor, Telling, masked, seal_activity, tell, told
from tenuto.store import audit
from tenuto.store.database import Database, migrate
from tests.conftest import MadeUpClock
from tests.store.test_audit import findings

ADA: Final = Actor("u_00000001", "ada@example.com", "192.0.2.1")
COMPANIES: Final = (1, 2)
ROWS: Final = 5


@pytest_asyncio.fixture(scope="module")
async def engine(new_database: Callable[[str], str]) -> AsyncIterator[Engine]:
    """Two companies, in each of which five things were done and sealed, and one that is not sealed yet."""
    dsn = new_database("audit_activity")
    await migrate(dsn)
    found = Engine(Settings(database=dsn, lanes=1), await Database.connect(dsn), MadeUpClock())
    async with found.database.writing() as unit:
        for company_id in COMPANIES:
            await unit.execute("insert into company (id, name, created_at) values ($1, 'Acme', now())", company_id)
    for number in range(ROWS):
        await done(found, number)
        assert await sealed(found) == len(COMPANIES)
    await done(found, ROWS)
    yield found
    await found.close()


async def done(engine: Engine, number: int) -> None:
    async with engine.database.writing() as unit:
        for company_id in COMPANIES:
            asked = {"name": f"key {number}", "secret": "s"}
            await tell(engine, unit, Telling(ADA, "issue_key", company_id, None, "POST /keys", asked))


async def sealed(engine: Engine) -> int:
    return await seal_activity(engine, now=engine.now(), limit=100)


@pytest_asyncio.fixture
async def books(engine: Engine) -> AsyncIterator[asyncpg.Connection]:
    """A connection in a transaction that is rolled back: what a test breaks, nobody ever sees."""
    connection = await asyncpg.connect(engine.settings.database)
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield connection
    finally:
        await transaction.rollback()
        await connection.close()


async def found(books: asyncpg.Connection) -> list[str]:
    """The rows that the audit names, in its order."""
    outcomes = await findings(books, "activity")
    return [finding.row for finding in outcomes.get("activity", [])]


def named(company_id: int, *numbers: int) -> list[str]:
    return [audit.row_name("activity", company_id, number, f"activity {number}") for number in numbers]


async def test_the_chains_are_whole(books: asyncpg.Connection) -> None:
    assert await found(books) == []
    for company_id in COMPANIES:
        numbers = await books.fetch("select number from activity where company_id = $1 order by id", company_id)
        assert [row["number"] for row in numbers] == [*range(1, ROWS + 1), None]


@pytest.mark.parametrize(
    "change",
    [
        "actor = 'u_00000002'",
        "actor_name = 'eve@example.com'",
        "address = '198.51.100.1'",
        "action = 'revoke_key'",
        "target = 'POST /users'",
        "at = at + interval '1 microsecond'",
        "environment_id = 7",
        "asked = null",
        """asked = '{"name": "key 2","secret":"..."}'""",
        "digest = '\\x00'",
    ],
)
async def test_a_row_that_was_altered_is_named(books: asyncpg.Connection, change: str) -> None:
    await books.execute(f"update activity set {change} where company_id = 1 and number = 3")
    expected = named(1, 3, 4) if change.startswith("digest") else named(1, 3)
    assert await found(books) == expected


async def test_a_row_that_was_taken_out_is_named_by_the_one_after_it(books: asyncpg.Connection) -> None:
    await books.execute("delete from activity where company_id = 2 and number = 3")
    assert await found(books) == named(2, 4)


async def test_the_first_row_that_was_taken_out_is_missed(books: asyncpg.Connection) -> None:
    await books.execute("delete from activity where company_id = 1 and number = 1")
    assert await found(books) == named(1, 2)


async def test_rows_that_were_numbered_anew_are_named(books: asyncpg.Connection) -> None:
    await books.execute("delete from activity where company_id = 1 and number = 2")
    await books.execute("update activity set number = number - 1 where company_id = 1 and number = 3")
    await books.execute("update activity set number = number - 1 where company_id = 1 and number = 4")
    await books.execute("update activity set number = number - 1 where company_id = 1 and number = 5")
    assert await found(books) == named(1, 2), "from there on each follows the one before it again"


async def test_two_rows_that_changed_places_are_named(books: asyncpg.Connection) -> None:
    await books.execute(
        "update activity set number = case number when 2 then 103 else 102 end"
        " where company_id = 1 and number in (2, 3)"
    )
    await books.execute("update activity set number = number - 100 where company_id = 1 and number > 100")
    assert await found(books) == named(1, 2, 3, 4)


async def test_a_row_of_another_company_is_no_row_of_ours(books: asyncpg.Connection) -> None:
    await books.execute("delete from activity where company_id = 1 and number = 3")
    await books.execute("update activity set company_id = 1 where company_id = 2 and number = 3")
    assert await found(books) == [*named(1, 3, 4), *named(2, 4)]


# --- sealing ---


async def test_many_sealers_at_once_leave_one_chain(engine: Engine, books: asyncpg.Connection) -> None:
    for number in range(20):
        await done(engine, number)
    counts = await asyncio.gather(*(sealed(engine) for _ in range(5)))
    while rest := await sealed(engine):
        counts.append(rest)
    assert sum(counts) == 21 * len(COMPANIES)
    assert await found(books) == []


async def test_what_is_sealed_is_sealed_once(engine: Engine, books: asyncpg.Connection) -> None:
    await sealed(engine)
    before = await books.fetch("select number, digest from activity order by company_id, id")
    assert await sealed(engine) == 0
    assert await books.fetch("select number, digest from activity order by company_id, id") == before


async def test_what_was_not_done_is_not_told(engine: Engine, books: asyncpg.Connection) -> None:
    before = await books.fetchval("select count(*) from activity")

    async def fail() -> None:
        async with engine.database.writing() as unit:
            await tell(engine, unit, Telling(ADA, "issue_key", 1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await books.fetchval("select count(*) from activity") == before


# --- what is left out ---


def test_secrets_are_masked_wherever_they_stand() -> None:
    body = {"password": "a", "token": "", "deep": [{"secret": "b", "name": "c"}], "keys": [{"k": "d"}]}
    assert masked(body) == {"password": "...", "token": "", "deep": [{"secret": "...", "name": "c"}], "keys": "..."}


def test_what_is_long_is_cut() -> None:
    cut = masked({"text": "x" * (TEXT_MAX + 1), "list": list(range(LIST_MAX + 5))})
    assert cut == {"text": "x" * TEXT_MAX + "...", "list": [*range(LIST_MAX), "and 5 more"]}
    assert masked([[[[[[[[1]]]]]]]]) == [[[[[[["..."]]]]]]]


def test_what_is_too_large_even_then_is_named_only() -> None:
    large = {f"name {number}": ["x" * TEXT_MAX] * LIST_MAX for number in range(5)}
    assert len(str(masked(large))) > ASKED_MAX
    assert told(large) == dict.fromkeys(large, "...")
    assert told([1]) is None
