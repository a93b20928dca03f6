"""A company seen from inside the engine: the service's verbs without HTTP, for races and stories."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from fractions import Fraction
from typing import Any, NamedTuple

import asyncpg

from tenuto.core.event import Decision, Event, GatedEvent, Settlement, UsageEvent
from tenuto.core.outcomes import Refusal
from tenuto.engine import Answer, Clock, Engine, Once, Settings
from tenuto.service import accounts, catalog
from tenuto.service.usage import Ending, UsageRequest, open_lanes
from tenuto.store import accounts as shelf
from tenuto.store import records
from tenuto.store.accounts import Environment
from tenuto.store.database import Database
from tests.core.account_life import event, settle_for

__all__ = ["Asked", "Inside", "another_engine", "audit", "disagreements", "event", "let_go", "meanwhile", "settle_for"]


class Asked(NamedTuple):
    """A request that was answered: the answer, and what was decided (None where a stored answer was replayed)."""

    answer: Answer
    decision: Decision | None

    @property
    def events(self) -> list[Event]:
        assert self.decision is not None
        return [found for found in self.decision.answers if isinstance(found, Event)]

    @property
    def event(self) -> Event:
        (found,) = self.events
        return found

    @property
    def refused(self) -> list[GatedEvent]:
        assert self.decision is not None
        return list(self.decision.refusals)


class Inside:
    """One company's test half in one engine, with what it remembers of itself (which may be out of date)."""

    def __init__(self, engine: Engine, environment: Environment, key_id: int) -> None:
        self.engine, self.environment, self.key_id = engine, environment, key_id

    @classmethod
    async def open(cls, engine: Engine) -> Inside:
        async with engine.database.writing() as unit:
            made = await accounts.open_company(engine, unit, name="Acme", email="a@example.com", password_hash="x")
            environment_id = await shelf.find_environment(unit, made.company_id, live=False)
        assert environment_id is not None
        environment = await engine.environment(environment_id)
        assert environment is not None
        return cls(engine, environment, next(iter(environment.keys)))

    async def through(self, engine: Engine) -> Inside:
        """The same company, as another worker knows it."""
        environment = await engine.environment(self.environment.id)
        assert environment is not None
        return Inside(engine, environment, self.key_id)

    async def look(self) -> None:
        """Remember the environment as it is now, as the door does before it lets a request in."""
        found = await self.engine.environment(self.environment.id)
        assert found is not None
        self.environment = found

    async def account(self, **balances: int) -> int:
        async with self.engine.database.writing() as unit:
            made = await accounts.open_account(
                self.engine,
                unit,
                self.environment,
                name="Ada",
                email="ada@example.com",
                metadata=None,
                stripe_id=None,
                credit_limit=None,
            )
        for denomination, amount in balances.items():
            await self.balance_opened(made.id, denomination, amount)
        return made.id

    async def balance_opened(
        self, account_id: int, denomination: str, amount: int, credit_limit: int | None = None
    ) -> None:
        async with self.engine.database.writing() as unit:
            await accounts.open_account_balance(
                self.engine,
                unit,
                self.environment,
                account_id,
                denomination,
                amount=amount,
                credit_limit=credit_limit,
            )

    async def adjust(self, account_id: int, denomination: str, amount: int) -> None:
        async with self.engine.database.writing() as unit:
            await accounts.adjust_balance(
                self.engine, unit, self.environment, account_id, denomination, amount=amount, reason="by hand"
            )

    async def price(
        self, kind: str, denomination: str, *, match: dict[str, object] | None = None, **terms: object
    ) -> int:
        async with self.engine.database.writing() as unit:
            row = await catalog.set_event_price(
                self.engine,
                unit,
                self.environment,
                kind=kind,
                denomination=denomination,
                match=match or {},
                terms=terms,
            )
        await self.look()
        return int(row["id"])

    async def reprice(self, price_id: int, **terms: object) -> None:
        async with self.engine.database.writing() as unit:
            await catalog.change_event_price(self.engine, unit, self.environment, price_id, terms)

    async def set_up(self, **settings: object) -> None:
        """Change settings of the company: zone, default_credit_limit, late_seconds, ahead_seconds."""
        async with self.engine.database.writing() as unit:
            await accounts.change_company(self.engine, unit, self.environment, name=None, settings=settings)
        await self.look()

    async def ask(
        self,
        account_id: int,
        events: Sequence[UsageEvent] = (),
        *,
        ending: Ending | None = None,
        once: Once | None = None,
        before_save: Callable[[], None] = lambda: None,
    ) -> Asked:
        """One request through the lane of the account. ``before_save`` runs after each decision, before its save."""
        decided: list[Decision] = []

        def render(decision: Decision, *_: object) -> Answer:
            decided.append(decision)
            before_save()
            status = 402 if decision.refusals else 200
            return Answer(status, b"%d" % decision.state.tick, decision.is_replay)

        request = UsageRequest(
            environment=self.environment,
            key_id=self.key_id,
            account_id=account_id,
            request_id="test",
            render=render,
            events=events,
            ending=ending,
            once=once,
        )
        answer = await self.engine.lanes.submit(account_id, request)
        return Asked(answer, decided[-1] if decided else None)

    async def send(self, account_id: int, *events: UsageEvent) -> Asked:
        return await self.ask(account_id, events)

    async def finish(self, account_id: int, event_id: int, settlement: Settlement) -> Asked:
        return await self.ask(account_id, ending=Ending(event_id, settlement))

    async def void(self, account_id: int, event_id: int) -> Asked:
        return await self.ask(account_id, ending=Ending(event_id, None))

    async def balance(self, account_id: int, denomination: str) -> records.BalanceRow:
        await self.look()
        now = self.engine.now_of(self.environment)
        async with self.engine.database.reading() as reader:
            _, found = await records.read_balance(
                reader, self.environment.id, self.environment.revision, account_id, denomination, now
            )
        assert found is not None
        return found

    async def rows(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        async with self.engine.database.reading() as reader:
            return await reader.fetch(query, *arguments)


@asynccontextmanager
async def another_engine(engine: Engine, clock: Clock, *, lanes: int = 2) -> AsyncIterator[Engine]:
    """A second worker's worth of engine on the same database."""
    dsn = engine.database.dsn
    found = Engine(Settings(database=dsn, lanes=lanes), await Database.connect(dsn), clock)
    found.lanes = open_lanes(found)
    found.lanes.start()
    try:
        yield found
    finally:
        await let_go(found)
        await found.close()


async def let_go(engine: Engine) -> None:
    """End the lanes, and with them the connections they own."""
    await engine.lanes.stop()


def meanwhile(engine: Engine, work: Callable[[Inside], Awaitable[None]], company: Inside) -> None:
    """Do something on another thread and connection, and wait for it: what another worker does while this one decides.

    To be called where the test's loop stands still, between a decision and its save.
    """

    async def body() -> None:
        database = await Database.connect(engine.database.dsn)
        other = Engine(engine.settings, database, engine.clock)
        try:
            await work(await company.through(other))
        finally:
            await database.close()

    on_another_thread(body)


def on_another_thread(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    failed: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), "the work on the other thread hangs"
    if failed:
        raise failed[0]


async def outcome_of(asked: Awaitable[Asked]) -> str:
    """How a request ended in one word: its first event's state, or the code of its refusal."""
    try:
        found = await asked
    except Refusal as refusal:
        return refusal.code
    if found.refused:
        return found.refused[0].code
    return found.events[0].state


_BALANCES = """
select b.account_id, b.denomination, b.amount, b.pending, b.seq, b.residue_num::text as num, b.residue_den::text as den,
    coalesce((select sum(t.amount) from transaction t
        where t.account_id = b.account_id and t.denomination = b.denomination), 0)::bigint as moved,
    coalesce((select sum(t.amount) from transaction t where t.account_id = b.account_id
        and t.denomination = b.denomination and t.book in ('usage', 'overage')), 0)::bigint as used,
    (select count(*) from transaction t
        where t.account_id = b.account_id and t.denomination = b.denomination) as count
from balance b
"""
_CHAIN = """
select * from (select account_id, denomination, seq, amount, starting_balance,
    lag(ending_balance, 1, 0::bigint) over chain as before, row_number() over chain as place from transaction
    window chain as (partition by account_id, denomination order by seq)) as t
where starting_balance <> before or seq <> place
"""
_CHARGES = """
select account_id, denomination, amount, cost, state from event where denomination is not null
union all
select x.account_id, x.denomination, x.amount, x.cost, e.state from event_charge x
    join event e on e.account_id = x.account_id and e.id = x.event_id
"""


async def disagreements(dsn: str) -> list[str]:
    """Where the rows of a database contradict each other, worked out apart from the product's own audit."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            balances = await connection.fetch(_BALANCES)
            broken = await connection.fetch(_CHAIN)
            charges = await connection.fetch(_CHARGES)
    finally:
        await connection.close()
    held: dict[tuple[int, str], int] = {}
    exact: dict[tuple[int, str], Fraction] = {}
    for row in charges:
        place = (row["account_id"], row["denomination"])
        if row["state"] == 1:
            held[place] = held.get(place, 0) + row["amount"]
        elif row["state"] == 0:
            exact[place] = exact.get(place, Fraction()) + Fraction(row["cost"])
    found = [f"chain broken: {dict(row)}" for row in broken]
    for row in balances:
        place = (row["account_id"], row["denomination"])
        residue = Fraction(int(row["num"]), int(row["den"]))
        if row["amount"] != row["moved"]:
            found.append(f"{place}: amount {row['amount']}, transactions sum to {row['moved']}")
        if row["seq"] != row["count"]:
            found.append(f"{place}: seq {row['seq']}, but {row['count']} transactions")
        if row["pending"] != held.get(place, 0):
            found.append(f"{place}: pending {row['pending']}, holds sum to {held.get(place, 0)}")
        if exact.get(place, Fraction()) != residue - row["used"]:
            found.append(f"{place}: events cost {exact.get(place)}, posted {-row['used']} with residue {residue}")
    return found


async def audit(dsn: str) -> None:
    """The product's own word for it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tenuto.cli", "audit", "--database", dsn),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
