"""Visitors of the console at the service of the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tenuto.server import Server
from tests.client import Client
from tests.console.visitor import Visitor


@pytest.fixture
def visitor(service: Server) -> Iterator[Visitor]:
    """The owner of a fresh company, signed in."""
    with Client(*service.address) as client:
        yield Visitor.signed_up(client, service.address)
