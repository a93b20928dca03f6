"""The courier dies, loses its database, or is not alone: nothing is lost, and hardly anything comes twice.

The receiver is the journal: it says 200, and at that moment the courier is killed, so what it was told is not written
down. Who receives knows a repetition by its id and sees the same bytes.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import asyncpg
import pytest

from tenuto.engine import Settings
from tenuto.server import RESTART_SECONDS, Server
from tenuto.store.deliveries import COURIER_LOCK
from tests.client import Client
from tests.conftest import running
from tests.hearing import Hearer, Hook
from tests.receivers import Message, Receiver, Receivers, Visit, answer, until

IN_FLIGHT: Final = 2
DUPLICATES_A_KILL: Final = 2
EACH: Final = 12
"""Events around one death."""


@pytest.fixture
def settings(new_database: Callable[[str], str], tmp_path: Path) -> Settings:
    return Settings(
        port=0,
        database=new_database("courier"),
        data=str(tmp_path),
        registration="open",
        log_level="critical",
        sandbox="off",
        secret_key="c0" * 32,
        private_webhooks="on",
    )


@pytest.fixture
def receivers() -> Iterator[Receivers]:
    with Receivers() as found:
        yield found


@contextmanager
def tended(server: Server) -> Iterator[None]:
    """What died is started again, as ``tenuto serve`` does."""
    done = threading.Event()

    def tend() -> None:
        while not done.wait(RESTART_SECONDS):
            server.tend()

    thread = threading.Thread(target=tend)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@dataclass
class Shop:
    """A company with one webhook that hears every change of one account's tokens."""

    hearer: Hearer
    hook: Hook
    receiver: Receiver
    account: str
    sent: int = 1
    proven: int = 0

    @classmethod
    def begin(cls, client: Client, receiver: Receiver) -> Shop:
        hearer = Hearer.begin(client)
        account = hearer.account(tokens=1_000_000)
        hook = hearer.hook(receiver, "balance_change", max_in_flight=IN_FLIGHT)
        return cls(hearer, hook, receiver, account)

    def spend(self, count: int) -> None:
        for _ in range(count):
            self.hearer.spend(self.account)
            self.sent += 1

    def all_here(self) -> None:
        """Every message has come, and is marked so; each with the same bytes whenever it came."""
        wanted = set(range(2, self.sent + 1))
        messages = self.receiver.until(lambda came: {message.data["sequence"] for message in came} == wanted)
        assert len({(message.id, message.body) for message in messages}) == len(wanted)
        until(lambda: not self.hearer.logs(self.hook, "status=waiting"))
        # Each soon after it came: the reference library refuses what is five minutes old.
        assert all(message.verified(self.hook.secret) for message in messages[self.proven :])
        self.proven = len(messages)

    @property
    def repeated(self) -> int:
        return len(self.receiver.messages) - (self.sent - 1)


class Killer:
    """Takes what comes; once armed it says 200 to the ``nth`` new message and kills the courier ``late`` seconds on."""

    def __init__(self, server: Server) -> None:
        self._server, self._seen, self.at, self.late = server, set[str](), 0, 0.0
        self.killed: list[int] = []

    def arm(self, nth: int, late: float = 0.0) -> None:
        self.at, self.late = len(self._seen) + nth, late

    async def __call__(self, visit: Visit) -> None:
        self._seen.add(visit.message.id)
        is_now = self.at > 0 and len(self._seen) >= self.at
        if is_now:
            self.at = 0
        await answer(200)(visit)
        if is_now:
            await asyncio.sleep(self.late)
            courier = self._server.courier
            assert courier is not None
            assert courier.pid is not None
            os.kill(courier.pid, signal.SIGKILL)
            self.killed.append(courier.pid)


def assert_merged_is_whole(receiver: Receiver, wanted: range) -> None:
    """What came merged speaks for every change, says so, and is the same whenever it came."""

    def told(came: list[Message]) -> set[int]:
        spoken = (message.data for message in came)
        return {
            number
            for data in spoken
            for number in range(data.get("merged_from_sequence", data["sequence"]), data["sequence"] + 1)
        }

    messages = receiver.until(lambda came: told(came) == set(wanted))
    assert len({(message.id, message.body) for message in messages}) == len({message.id for message in messages})
    for data in (message.data for message in messages):
        first = data.get("merged_from_sequence", data["sequence"])
        assert data["previous_amount"] - data["amount"] == data["sequence"] - first + 1


def campaign(settings: Settings, receivers: Receivers, kills: int, chance: random.Random) -> None:
    with running(settings) as server, Client(*server.address) as client, tended(server):
        killer = Killer(server)
        shop, merging = Shop.begin(client, receivers.open(killer)), receivers.open()
        shop.hearer.hook(merging, "balance_change", merge_balance_changes=True)
        shop.spend(1)
        shop.all_here()
        for kill in range(1, kills + 1):
            before = shop.repeated
            # Mostly at once, when the mark cannot be there yet; now and then around the moment of its writing.
            killer.arm(chance.randint(1, EACH - 2), chance.choice((0.0, 0.0, 0.002, 0.01)))
            shop.spend(EACH)
            until(lambda n=kill: len(killer.killed) == n)  # type: ignore[misc] # mypy cannot type a default
            shop.all_here()
            assert shop.repeated - before <= DUPLICATES_A_KILL
        assert_merged_is_whole(merging, range(2, shop.sent + 1))
        assert len(set(killer.killed)) == kills
        assert kills // 4 <= shop.repeated, "the deaths came too late to matter"
        assert Counter(log["status"] for log in shop.hearer.logs(shop.hook)) == {"delivered": shop.sent - 1}


def test_a_courier_that_dies_between_the_answer_and_our_mark_loses_nothing(
    settings: Settings, receivers: Receivers
) -> None:
    campaign(settings, receivers, 4, random.Random(4))


@pytest.mark.slow
def test_thirty_deaths_lose_nothing(settings: Settings, receivers: Receivers) -> None:
    campaign(settings, receivers, 30, random.Random(30))


async def _cut(dsn: str) -> bool:
    """End the connection on which is delivered, as a failover would."""
    rows = await asyncpg.connect(dsn)
    try:
        found = await rows.fetch(
            "select pg_terminate_backend(pid, 5000) as is_cut from pg_locks where locktype = 'advisory' and granted"
            " and classid = $1 and objid = $2"
            " and database = (select oid from pg_database where datname = current_database())",
            COURIER_LOCK >> 32,
            COURIER_LOCK & 0xFFFFFFFF,
        )
    finally:
        await rows.close()
    return [row["is_cut"] for row in found] == [True]


def test_a_courier_whose_connection_is_cut_goes_on(settings: Settings, receivers: Receivers) -> None:
    with running(settings) as server, Client(*server.address) as client:
        assert server.courier is not None
        shop, pid = Shop.begin(client, receivers.open()), server.courier.pid
        for _ in range(3):
            shop.spend(EACH)
            shop.receiver.wait(1)
            assert asyncio.run(_cut(server.dsn))
            shop.spend(EACH)
            shop.all_here()

        assert server.courier.pid == pid
        assert shop.repeated <= 3 * DUPLICATES_A_KILL


def test_of_two_couriers_one_delivers_and_the_other_takes_over(settings: Settings, receivers: Receivers) -> None:
    with (
        running(settings) as first,
        running(replace(settings, public_url=first.url)) as second,
        Client(*first.address) as client,
    ):
        shop = Shop.begin(client, receivers.open())
        shop.spend(EACH * 3)
        shop.all_here()
        assert shop.repeated == 0

        for gone, back in ((first, second), (second, first)):
            assert gone.courier is not None
            assert back.courier is not None
            if back.courier.pid is None:
                back.courier.start()
            gone.courier.stop()
            shop.spend(EACH)
            shop.all_here()
        assert shop.repeated <= 2 * DUPLICATES_A_KILL
