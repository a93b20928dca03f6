"""What the tests of webhooks stand on: a service that may call this machine, and receivers that it calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import asyncpg
import pytest
import pytest_asyncio

from tenuto.engine import Settings
from tenuto.server import Server, wait_until_ready
from tests.client import Client
from tests.hearing import Hearer
from tests.receivers import Receivers


@pytest.fixture(scope="session")
def calling_service(new_database: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running service with a courier that delivers to this machine too."""
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
    server = Server(settings)
    server.start()
    try:
        assert wait_until_ready(*server.address, seconds=30)
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def receivers() -> Iterator[Receivers]:
    """Receivers, to be opened as a test needs them."""
    with Receivers() as found:
        yield found


@pytest.fixture
def hearer(calling_service: Server) -> Iterator[Hearer]:
    """A fresh company of the service that calls."""
    with Client(*calling_service.address) as client:
        yield Hearer.begin(client)


@pytest_asyncio.fixture
async def rows(calling_service: Server) -> AsyncIterator[asyncpg.Connection]:
    """The rows of the service that calls: to move what would take days, and to see what is sealed."""
    connection = await asyncpg.connect(calling_service.dsn)
    yield connection
    await connection.close()
