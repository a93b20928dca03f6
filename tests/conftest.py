"""What the tests stand on: one real PostgreSQL for the session, one running service, a fresh company per test."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from tenuto.engine import Engine, Settings
from tenuto.postgres import EmbeddedPostgres
from tenuto.server import Server, wait_until_ready
from tenuto.service.usage import open_lanes
from tenuto.store.database import Database, migrate
from tests.client import Client, Company
from tests.receivers import Receivers
from tests.simulated import Simulated

EPOCH = datetime(2030, 1, 15, 12, tzinfo=UTC)
SECRET_KEY = "5e" * 32
"""The master key of the service, so that a test can sign what only the service or its provider could."""


class MadeUpClock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self, at: datetime = EPOCH) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def forward(self, **by: float) -> None:
        self.at += timedelta(**by)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """The PostgreSQL of the session; TENUTO_TEST_BINDIR names the folder of another version's binaries."""
    bindir = os.environ.get("TENUTO_TEST_BINDIR")
    data = tmp_path_factory.mktemp("postgres")
    with EmbeddedPostgres.start(data, bindir=Path(bindir) if bindir else None) as running:
        yield running


@pytest.fixture(scope="session")
def new_database(postgres: EmbeddedPostgres) -> Callable[[str], str]:
    """Makes an empty database by name and returns its DSN."""

    def make(name: str) -> str:
        async def create() -> None:
            connection = await asyncpg.connect(postgres.dsn)
            try:
                await connection.execute(f'drop database if exists "{name}" with (force)')
                await connection.execute(f'create database "{name}"')
            finally:
                await connection.close()

        _run(create)
        return _on(postgres.dsn, name)

    return make


def _on(dsn: str, name: str) -> str:
    before, _, query = dsn.partition("?")
    return f"{before.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")


def _run(work: Callable[[], object]) -> None:
    """Run a coroutine function on a loop of its own, away from the loop of the tests."""
    failed: list[BaseException] = []

    def body() -> None:
        try:
            asyncio.run(work())  # type: ignore[arg-type]
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


@pytest.fixture(scope="session")
def stripe() -> Iterator[Simulated]:
    """The simulator of Stripe that the service asks, for the sandbox as for keys of companies."""
    with Simulated() as found:
        yield found


@contextmanager
def running(settings: Settings) -> Iterator[Server]:
    """A service that takes work, and is stopped in the end."""
    server = Server(settings)
    server.start()
    try:
        assert wait_until_ready(*server.address, seconds=30)
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def service(
    new_database: Callable[[str], str], stripe: Simulated, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A running service: real processes, a real socket, a database of its own, and a simulator of Stripe."""
    settings = Settings(
        port=0,
        database=new_database("service"),
        data=str(tmp_path_factory.mktemp("service")),
        registration="open",
        log_level="warning",
        secret_key=SECRET_KEY,
        stripe_url=stripe.url,
        sandbox_url=stripe.url,
    )
    with running(settings) as server:
        yield server


@pytest.fixture(scope="session")
def calling_service(new_database: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running service with a courier that delivers to this machine too, and two workers that may call it."""
    settings = Settings(
        port=0,
        database=new_database("calling"),
        data=str(tmp_path_factory.mktemp("calling")),
        registration="open",
        log_level="critical",
        sandbox="off",
        private_webhooks="on",
        workers=2,
    )
    with running(settings) as server:
        yield server


@pytest.fixture(scope="session")
def receivers() -> Iterator[Receivers]:
    """Receivers, to be opened as a test needs them."""
    with Receivers() as found:
        yield found


@pytest.fixture
def client(service: Server) -> Iterator[Client]:
    """An HTTP client of nobody in particular."""
    with Client(*service.address) as found:
        yield found


@pytest.fixture
def company(client: Client) -> Company:
    """A fresh company in test mode, with its key."""
    return Company.open(client)


@pytest.fixture
def clock() -> MadeUpClock:
    return MadeUpClock()


@pytest.fixture
async def engine(new_database: Callable[[str], str], clock: MadeUpClock) -> AsyncIterator[Engine]:
    """An engine in the test's own process on a fresh database, its lanes running, its clock made up."""
    dsn = new_database("engine")
    await migrate(dsn)
    found = Engine(Settings(database=dsn, lanes=2), await Database.connect(dsn), clock)
    found.lanes = open_lanes(found)
    found.lanes.start()
    yield found
    await found.close()
