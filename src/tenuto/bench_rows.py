"""The bench's own hands in the database: what is seeded, and what is measured there without Tenuto.

COPY and the bare transaction write into copies of the tables (``like … including all``: the same columns and indexes),
so that the ledger stays true.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import time
from array import array
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import asyncpg
import uvloop

from tenuto.bench_load import percentile
from tenuto.core.identifiers import ID_MAX
from tenuto.core.ledger import ADJUSTMENT_BOOK, USAGE_BOOK
from tenuto.engine import microseconds
from tenuto.store.database import Unit

Result = TypeVar("Result")

BATCH: Final = 1000
"""Events of one COPY."""
EVENTS_A_POSTING: Final = 100
"""Events that share a transaction, as in requests of 100."""
BALANCE: Final = 10**12
"""Cents on each account: no gate ever closes."""
PRELOAD_STEP: Final = 250_000
FSYNCS: Final = 200
FSYNC_BYTES: Final = 8192

_TABLES: Final = """
create table bench_copied_event (like event including all);
create table bench_copied_transaction (like transaction including all);
create table bench_copied_balance (like balance including all);
create table bench_account (like account including all);
create table bench_balance (like balance including all);
create table bench_event (like event including all);
insert into bench_account select * from account;
insert into bench_balance select * from balance;
analyze bench_account, bench_balance;
"""

_PRELOAD_EVENTS: Final = """
insert into event (account_id, id, posting, fingerprint, amount, balance_amount, balance_pending, transaction_seq,
    price_version_id, occurred_at, recorded_at, state, tag, gated, type, denomination, quantity, cost, residue, key,
    key_digest)
select ($1::bigint[])[1 + g % cardinality($1)], $2 + g, $2 + g, hashint8extended(g, 0), like_this.amount,
    like_this.balance_amount, 0, -g, like_this.price_version_id, like_this.occurred_at, like_this.recorded_at, 0, 0,
    true, like_this.type, like_this.denomination, like_this.quantity, like_this.cost, like_this.residue,
    'stored-' || g, decode(md5(g::text), 'hex')
from generate_series($3::bigint, $4::bigint) as g,
    (select * from event where state = 0 and transaction_seq is not null limit 1) as like_this
"""
_PRELOAD_TRANSACTIONS: Final = """
insert into transaction (account_id, denomination, seq, id, amount, starting_balance, ending_balance, first_event_id,
    recorded_at, event_count, book, type, description, unit_cost)
select ($1::bigint[])[1 + g % cardinality($1)], like_this.denomination, -g, $2 + g, like_this.amount,
    like_this.starting_balance, like_this.ending_balance, $2 + g, like_this.recorded_at, 1, like_this.book,
    like_this.type, like_this.description, like_this.unit_cost
from generate_series($3::bigint, $4::bigint) as g,
    (select * from transaction where book = 'usage' limit 1) as like_this
"""


HISTORY_MICROSECONDS: Final = 90 * 86_400 * 10**6
_MOMENT: Final = "to_timestamp(($2 + g * $5) / 1000000.0)"
_HISTORY_EVENTS: Final = (
    _PRELOAD_EVENTS.replace("$2 + g", "$2 + g * $5")
    .replace("like_this.occurred_at, like_this.recorded_at", f"{_MOMENT}, {_MOMENT}")
    .replace("like_this.type", "(array['tokens', 'chat', 'embed', 'image'])[1 + g % 4]")
)
_HISTORY_TRANSACTIONS: Final = _PRELOAD_TRANSACTIONS.replace("$2 + g", "$2 + g * $5").replace(
    "like_this.recorded_at", _MOMENT
)


class Timed(NamedTuple):
    """How often something was done in so many seconds, and how long one took."""

    times: int
    seconds: float
    p50_ms: float
    p99_ms: float


class Rows:
    """One connection, and a loop for it."""

    def __init__(self, runner: asyncio.Runner, connection: Unit) -> None:
        self._runner, self._connection = runner, connection
        self._count = 0
        self._ids: list[int] = []

    @classmethod
    @contextmanager
    def opened(cls, dsn: str) -> Iterator[Rows]:
        """Connected, until the block ends."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            connection = runner.run(asyncpg.connect(dsn, server_settings={"timezone": "UTC", "jit": "off"}))
            try:
                yield cls(runner, connection)
            finally:
                runner.run(connection.close())

    def _do(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self._runner.run(work)

    def settings(self, names: Sequence[str]) -> dict[str, str]:
        """Settings of the server, spelled as it spells them."""
        rows = self._do(
            self._connection.fetch("select n, current_setting(n) as value from unnest($1::text[]) n", names)
        )
        return {row["n"]: row["value"] for row in rows}

    def count_events(self) -> int:
        """Events that are stored."""
        return int(self._do(self._connection.fetchval("select count(*) from event")))

    def open_accounts(self, count: int, company_id: int | None = None) -> list[int]:
        """So many accounts, each with a large balance and the transaction it came by.

        They are the company's, or, where none is named, those of the one company that there is.
        """
        self._ids = random.sample(range(1, ID_MAX), count)
        self._do(self._open_accounts(company_id))
        return self._ids

    async def _open_accounts(self, company_id: int | None) -> None:
        environment_id = await self._connection.fetchval(
            "select id from environment where not live and company_id = coalesce($1, company_id)", company_id
        )
        now = datetime.now(UTC)
        tick = microseconds(now)
        name, email = "Ada", "ada@example.com"
        await self._copy(
            "account",
            "id environment_id tick opened name email created_at",
            [(id, environment_id, tick, tick, name, email, now) for id in self._ids],
        )
        await self._copy(
            "balance",
            "account_id denomination amount filled pending seq residue_num residue_den created_at updated_at",
            [(id, "USD", BALANCE, BALANCE, 0, 1, 0, 1, now, now) for id in self._ids],
        )
        await self._copy(
            "transaction",
            "account_id denomination seq id amount starting_balance ending_balance recorded_at event_count book type"
            " description",
            [
                (id, "USD", 1, tick, BALANCE, 0, BALANCE, now, 0, ADJUSTMENT_BOOK, "ADJUSTMENT", "bench")
                for id in self._ids
            ],
        )
        await self._connection.execute("analyze account, balance, transaction")

    async def _copy(self, table: str, columns: str, records: Sequence[tuple[object, ...]]) -> None:
        await self._connection.copy_records_to_table(table, records=records, columns=columns.split())

    def count_waiting(self) -> int:
        """Notifications that are not published, or not delivered, yet."""
        return int(
            self._do(
                self._connection.fetchval(
                    "select (select count(*) from notification where position is null)"
                    " + (select count(*) from delivery where status = 'waiting')"
                )
            )
        )

    def make_tables(self) -> None:
        """The tables that COPY and the bare transaction write; called once there are events to take after."""
        self._do(self._connection.execute(_TABLES))

    def preload(self, count: int, say: Callable[[int], None]) -> None:
        """Store events as of long ago, each with a transaction, spread over the accounts. Only their number is true."""
        base = microseconds(datetime.now(UTC)) - 10**13
        for start in range(0, count, PRELOAD_STEP):
            say(start)
            bounds = (start + 1, min(count, start + PRELOAD_STEP))
            for statement in (_PRELOAD_EVENTS, _PRELOAD_TRANSACTIONS):
                self._do(self._connection.execute(statement, self._ids, base, *bounds))
        for table in ("event", "transaction"):
            self._do(self._connection.execute(f"vacuum (analyze) {table}"))
        self._do(self._connection.execute("checkpoint"))

    def store_history(self, count: int, say: Callable[[int], None]) -> None:
        """Store events of the last ninety days, each with a transaction, over time and accounts evenly."""
        began = microseconds(datetime.now(UTC)) - HISTORY_MICROSECONDS
        step = max(1, HISTORY_MICROSECONDS // max(1, count))
        for start in range(0, count, PRELOAD_STEP):
            bounds = (start + 1, min(count, start + PRELOAD_STEP))
            for statement in (_HISTORY_EVENTS, _HISTORY_TRANSACTIONS):
                self._do(self._connection.execute(statement, self._ids, began, *bounds, step))
            say(bounds[1])
        for table in ("event", "transaction"):
            self._do(self._connection.execute(f"vacuum (analyze) {table}"))
        self._do(self._connection.execute("checkpoint"))

    def copied(self, seconds: float) -> Timed:
        """The rows of requests of 100 events, 1,000 events a transaction, by COPY into tables like theirs."""
        return self._do(self._copied(seconds))

    async def _copied(self, seconds: float) -> Timed:
        unit = self._connection
        events = await self._like("select * from event where state = 0 limit $1", BATCH)
        transactions = await self._like("select * from transaction where book = $1 limit 1", USAGE_BOOK)
        balances = await self._like("select * from balance limit 1")
        took = array("q")
        while sum(took) < seconds * 1e9:
            # New rows are made between the measured stretches; making them is not COPY's work.
            made = self._made(events, transactions[0], balances[0])
            started = time.perf_counter_ns()
            async with unit.transaction():
                await unit.copy_records_to_table("bench_copied_event", records=made[0])
                await unit.copy_records_to_table("bench_copied_transaction", records=made[1])
                await unit.copy_records_to_table("bench_copied_balance", records=made[2])
            took.append(time.perf_counter_ns() - started)
        return _timed(took)

    async def _like(self, query: str, *values: object) -> list[dict[str, Any]]:
        return [dict(row) for row in await self._connection.fetch(query, *values)]

    def _made(
        self, events: Sequence[dict[str, Any]], transaction: dict[str, Any], balance: dict[str, Any]
    ) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]], list[tuple[object, ...]]]:
        """The next 1,000 events of ten accounts, with their transactions and balances."""
        made: tuple[list[tuple[object, ...]], ...] = ([], [], [])
        base = microseconds(datetime.now(UTC))
        for position, event in enumerate(events):
            self._count += 1
            account_id = self._ids[self._count // EVENTS_A_POSTING % len(self._ids)]
            posting = base + position // EVENTS_A_POSTING * EVENTS_A_POSTING
            own = {"account_id": account_id, "id": base + position, "posting": posting, **_key(self._count)}
            made[0].append(tuple({**event, **own}.values()))
            if position % EVENTS_A_POSTING == 0:
                moved = {"account_id": account_id, "id": posting, "seq": self._count, "first_event_id": posting}
                made[1].append(tuple({**transaction, **moved}.values()))
                # A balance is changed and not written anew; COPY cannot, so it writes one of a new account.
                made[2].append(tuple({**balance, "account_id": self._count}.values()))
        return made[0], made[1], made[2]

    def bare(self, seconds: float) -> Timed:
        """BEGIN, lock an account, update its balance, insert an event, COMMIT, and nothing decided."""
        return self._do(self._bare(seconds))

    async def _bare(self, seconds: float) -> Timed:
        unit = self._connection
        (event,) = await self._like("select * from event where state = 0 limit 1")
        places = ", ".join(f"${number}" for number in range(1, len(event) + 1))
        took = array("q")
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            self._count += 1
            account_id = self._ids[self._count % len(self._ids)]
            own = {"account_id": account_id, "id": microseconds(datetime.now(UTC)), **_key(self._count)}
            row = tuple({**event, **own}.values())
            started = time.perf_counter_ns()
            async with unit.transaction():
                await unit.fetchrow("select tick from bench_account where id = $1 for no key update", account_id)
                await unit.execute(
                    "update bench_balance set amount = amount - 1, seq = seq + 1"
                    " where account_id = $1 and denomination = 'USD'",
                    account_id,
                )
                await unit.execute(f"insert into bench_event values ({places})", *row)  # noqa: S608 - numbers only
            took.append(time.perf_counter_ns() - started)
        return _timed(took)


def _key(count: int) -> dict[str, object]:
    key = f"copied-{count:012d}"
    return {"key": key, "key_digest": hashlib.blake2b(key.encode(), digest_size=16).digest()}


def _timed(took: array[int]) -> Timed:
    found = sorted(took)
    return Timed(len(found), sum(found) / 1e9, percentile(found, 0.5), percentile(found, 0.99))


def fsync_latency(folder: Path) -> Timed:
    """How long this disk takes to make 8 KiB durable: write and fdatasync, over and over."""
    took = array("q")
    path = folder / "fsync"
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    sync = getattr(os, "fdatasync", os.fsync)
    try:
        for number in range(FSYNCS):
            os.pwrite(file, os.urandom(FSYNC_BYTES), number % 16 * FSYNC_BYTES)
            started = time.perf_counter_ns()
            sync(file)
            took.append(time.perf_counter_ns() - started)
    finally:
        os.close(file)
        path.unlink()
    return _timed(took)
