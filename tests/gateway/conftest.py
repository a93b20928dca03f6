"""One Stripe simulator for the session; every test has an account of its own by using its own key."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.simulated import Simulated


@pytest.fixture(scope="session")
def running_simulator() -> Iterator[Simulated]:
    with Simulated() as found:
        yield found


@pytest.fixture
def simulator(running_simulator: Simulated) -> Iterator[Simulated]:
    """The simulator, without the faults of the test before."""
    yield running_simulator
    running_simulator.heal()


@pytest.fixture
def own_simulator() -> Iterator[Simulated]:
    """A simulator of the test's own, whose clock it may move."""
    with Simulated() as found:
        yield found


@pytest.fixture
def stripe_key() -> str:
    """An API key that nobody else uses: an empty account."""
    return f"sk_test_{secrets.token_hex(12)}"
