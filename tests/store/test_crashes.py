"""What is acknowledged stays: workers and PostgreSQL killed under load, requests aborted at every moment.

The client keeps its own journal of what was acknowledged, for the database cannot tell what it lost (bar 0, finding 2).
What stayed open is asked again with the same key until it has its one answer.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import pytest

from tenuto.core.identifiers import read, read_of_account
from tenuto.engine import Settings
from tenuto.server import RESTART_SECONDS, Server, wait_until_ready
from tests.client import Client, Company
from tests.inside import audit, disagreements
from tests.wire import Wire

OPENING = 10**9
ACCOUNTS = 8
BACK_SECONDS = 10.0
AGAIN_SECONDS = 0.02


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Server]:
    """A service whose dead workers are replaced, as ``tenuto serve`` does; all of its life in one thread."""
    server, ready, done = Server(settings), asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def live() -> None:
        try:
            server.start()
            assert wait_until_ready(*server.address, seconds=30)
            loop.call_soon_threadsafe(ready.set)
            while not done.wait(RESTART_SECONDS):
                server.tend()
        finally:
            loop.call_soon_threadsafe(ready.set)
            server.stop()

    life = asyncio.create_task(asyncio.to_thread(live))
    await ready.wait()
    try:
        if not life.done():
            yield server
    finally:
        done.set()
        await life


@dataclass
class Journal:
    """What a client knows: every key it sent, every answer it heard, and when it heard of trouble."""

    company: Company
    accounts: list[str]
    sent: dict[str, tuple[str, int]] = field(default_factory=dict)
    acknowledged: dict[str, tuple[str, int]] = field(default_factory=dict)
    acknowledged_at: list[float] = field(default_factory=list)
    troubles: list[tuple[float, int]] = field(default_factory=list)

    @classmethod
    def begin(cls, server: Server) -> Journal:
        with Client(*server.address) as client:
            company = Company.open(client)
            company.price("CHAT", "credits", "1")
            return cls(company, [company.account(credits=OPENING) for _ in range(ACCOUNTS)])

    def new_key(self, key: str, chance: random.Random) -> str:
        self.sent[key] = (chance.choice(self.accounts), chance.randint(1, 9))
        return key

    def request(self, key: str) -> tuple[str, dict[str, object]]:
        account_id, quantity = self.sent[key]
        body = {"type": "CHAT", "quantity": quantity, "gate_on_balance": True, "key": key}
        return f"/v1/accounts/{account_id}/events", body

    def hear(self, key: str, status: int, data: dict[str, object]) -> None:
        assert status == 200, (status, data)
        cost = data["cost"]
        assert isinstance(cost, dict)
        answer = (str(data["id"]), int(cost["amount"]))
        assert self.acknowledged.setdefault(key, answer) == answer, f"{key} was answered in two ways"
        self.acknowledged_at.append(asyncio.get_running_loop().time())

    async def insist(self, wire: Wire, key: str) -> None:
        """Ask with the same key until there is an answer; only a broken connection and 503 may come before it."""
        path, body = self.request(key)
        now = asyncio.get_running_loop().time
        async with asyncio.timeout(60):
            while True:
                try:
                    heard = await wire.call("POST", path, body)
                except OSError:
                    self.troubles.append((now(), 0))
                else:
                    if heard.status != 503:
                        self.hear(key, heard.status, heard.body.get("data", heard.body))
                        return
                    assert "retry-after" in heard.head
                    self.troubles.append((now(), 503))
                await asyncio.sleep(AGAIN_SECONDS)

    def wire(self, server: Server) -> Wire:
        return Wire(server.address, self.company.id, self.company.key)

    async def check(self, server: Server) -> None:
        """Every key once, with the answer that was heard; balances are the opening less what was acknowledged."""
        assert self.acknowledged.keys() == self.sent.keys()
        connection = await asyncpg.connect(server.dsn)
        try:
            rows = await connection.fetch("select account_id, id, key, amount, state from event")
            balances = await connection.fetch("select account_id, amount, pending from balance")
        finally:
            await connection.close()
        assert len(rows) == len(self.sent)
        spent = dict.fromkeys((read("a", account_id) for account_id in self.accounts), 0)
        for row in rows:
            event_id, amount = self.acknowledged[row["key"]]
            assert (row["account_id"], row["id"]) == read_of_account("e", event_id)
            assert (row["amount"], row["state"]) == (amount, 0) == (self.sent[row["key"]][1], 0)
            spent[row["account_id"]] += amount
        assert {row["account_id"]: (row["amount"], row["pending"]) for row in balances} == {
            account_id: (OPENING - amount, 0) for account_id, amount in spent.items()
        }
        assert await disagreements(server.dsn) == []
        await audit(server.dsn)


async def load(
    server: Server, journal: Journal, faults: Callable[[list[float]], Awaitable[None]], *, connections: int
) -> list[float]:
    """Traffic on many connections while faults happen, until they are over; the moments of the faults."""
    over = asyncio.Event()
    moments: list[float] = []

    async def customer(number: int) -> None:
        chance, count = random.Random(number), 0
        async with journal.wire(server) as wire:
            while not over.is_set():
                count += 1
                await journal.insist(wire, journal.new_key(f"{number}-{count}", chance))

    async def trouble() -> None:
        try:
            await faults(moments)
        finally:
            over.set()

    await asyncio.gather(trouble(), *(customer(number) for number in range(connections)))
    return moments


async def until(holds: Callable[[], bool], seconds: float) -> None:
    """Wait for what no one announces: another process, or the load at large. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - a process that dies sets no event of ours
            await asyncio.sleep(0.01)


async def answers_after(journal: Journal, count: int) -> None:
    """Wait until the load was acknowledged so many more events."""
    goal = len(journal.acknowledged) + count
    await until(lambda: len(journal.acknowledged) >= goal, BACK_SECONDS + 20)


def judge(journal: Journal, moments: list[float]) -> None:
    """Trouble only in the ten seconds after a fault, and answers again within them."""
    for at, status in journal.troubles:
        assert any(moment <= at <= moment + BACK_SECONDS for moment in moments), (at, status, moments)
    for moment in moments:
        later = [at for at in journal.acknowledged_at if at > moment + 0.05]
        assert later, moment
        assert min(later) <= moment + BACK_SECONDS


async def kill_workers(tmp_path: Path, kills: int) -> None:
    async with running(
        Settings(port=0, data=str(tmp_path), workers=2, registration="open", log_level="error")
    ) as server:
        journal, chance = Journal.begin(server), random.Random(1)
        assert server.workers is not None
        workers = server.workers

        async def faults(moments: list[float]) -> None:
            now = asyncio.get_running_loop().time
            for _ in range(kills):
                await answers_after(journal, chance.randint(100, 500))
                victim = chance.choice(workers.pids)
                moments.append(now())
                os.kill(victim, signal.SIGKILL)
                await until(lambda gone=victim: gone not in workers.pids, BACK_SECONDS)  # type: ignore[misc]
                await answers_after(journal, 300)

        moments = await load(server, journal, faults, connections=16)
        judge(journal, moments)
        await journal.check(server)


def postmaster(data: Path) -> int:
    return int((data / "postgres" / "postmaster.pid").read_text().split()[0])


def children(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(stat.parent.name))
    return found


async def kill_postgres(tmp_path: Path, kills: int) -> None:
    async with running(
        Settings(port=0, data=str(tmp_path), workers=2, registration="open", log_level="error")
    ) as server:
        journal, chance = Journal.begin(server), random.Random(2)
        assert server.workers is not None
        pids = server.workers.pids

        async def faults(moments: list[float]) -> None:
            now = asyncio.get_running_loop().time
            for number in range(kills):
                await answers_after(journal, chance.randint(100, 500))
                victim = postmaster(tmp_path)
                # The postmaster alone, or with all its children at one stroke; both happen.
                victims = [victim, *(children(victim) if number % 2 else [])]
                moments.append(now())
                for pid in victims:
                    os.kill(pid, signal.SIGKILL)
                await until(lambda old=victim: _postmaster_or_none(tmp_path) not in {old, None}, BACK_SECONDS)  # type: ignore[misc]
                await answers_after(journal, 300)

        moments = await load(server, journal, faults, connections=16)
        judge(journal, moments)
        assert server.workers.pids == pids, "no worker had to be started again"
        await journal.check(server)


def _postmaster_or_none(data: Path) -> int | None:
    try:
        return postmaster(data)
    except (OSError, IndexError, ValueError):
        return None


async def abort_requests(server: Server, count: int) -> None:
    """Half of the requests are dropped by their client after 0 to 20 ms; each key is then asked for again."""
    journal, chance = Journal.begin(server), random.Random(3)
    keys = iter([journal.new_key(f"a{number}", chance) for number in range(count)])
    aborted: list[str] = []

    async def customer() -> None:
        async with journal.wire(server) as wire:
            for key in keys:
                path, body = journal.request(key)
                await wire.begin("POST", path, body)
                if chance.random() < 0.5:
                    await asyncio.sleep(chance.uniform(0, 0.02))
                    wire.close()
                    aborted.append(key)
                else:
                    heard = await wire.hear()
                    journal.hear(key, heard.status, heard.body["data"])

    await asyncio.gather(*(customer() for _ in range(64)))
    assert not journal.troubles
    before = await stored(server, aborted)
    async with journal.wire(server) as wire:
        for key in aborted:
            await journal.insist(wire, key)
    assert not journal.troubles
    # What had been committed without its client hearing of it is found by its key, the same event.
    for key, event_id in before.items():
        assert read_of_account("e", journal.acknowledged[key][0]) == event_id
    assert len(before) > 0, "some were committed though their client had gone"
    connection = await asyncpg.connect(server.dsn)
    try:
        idle = await connection.fetchval(
            # Between two statements of a sweep a unit is idle, too, but not for a second.
            "select count(*) from pg_stat_activity where state like 'idle in transaction%'"
            " and datname = current_database() and state_change < clock_timestamp() - interval '1 second'"
        )
    finally:
        await connection.close()
    assert idle == 0
    await journal.check(server)


async def stored(server: Server, keys: list[str]) -> dict[str, tuple[int, int]]:
    connection = await asyncpg.connect(server.dsn)
    try:
        rows = await connection.fetch("select key, account_id, id from event where key = any($1)", keys)
    finally:
        await connection.close()
    return {row["key"]: (row["account_id"], row["id"]) for row in rows}


async def test_killed_workers_lose_nothing(tmp_path: Path) -> None:
    await kill_workers(tmp_path, 3)


async def test_a_killed_postgres_loses_nothing_and_comes_back_by_itself(tmp_path: Path) -> None:
    await kill_postgres(tmp_path, 2)


async def test_aborted_requests_lose_nothing(new_database: Callable[[str], str]) -> None:
    settings = Settings(port=0, database=new_database("aborts"), registration="open", log_level="error")
    async with running(settings) as server:
        await abort_requests(server, 1_500)


@pytest.mark.slow
async def test_fifty_killed_workers_lose_nothing(tmp_path: Path) -> None:
    await kill_workers(tmp_path, 50)


@pytest.mark.slow
async def test_ten_killed_postgres_lose_nothing(tmp_path: Path) -> None:
    await kill_postgres(tmp_path, 10)


@pytest.mark.slow
async def test_ten_thousand_aborted_requests_lose_nothing(new_database: Callable[[str], str]) -> None:
    settings = Settings(port=0, database=new_database("aborts"), registration="open", log_level="error", workers=2)
    async with running(settings) as server:
        await abort_requests(server, 20_000)
