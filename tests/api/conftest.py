"""What the tests of webhooks stand on: companies of the service that may call this machine, and its rows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest
import pytest_asyncio

from tenuto.server import Server
from tests.client import Client
from tests.hearing import Hearer


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
