"""Events that were kept aside are billed once, whatever dies or happens meanwhile.

Real PostgreSQL and a made-up clock; the events, the balances and the product's own audit are the judges.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import random
import re
import signal
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Final

import asyncpg
import pytest

from tenuto.core.event import Settlement
from tenuto.core.money import exact
from tenuto.core.outcomes import Refusal
from tenuto.engine import Answer, Engine, Settings
from tenuto.service import pauses, usage
from tenuto.service.usage import Replay, UsageRequest, replay_all, replay_suspended
from tenuto.store import invoices
from tenuto.store import pauses as shelf
from tenuto.store.pauses import Word
from tests.client import Client, Company
from tests.conftest import MadeUpClock
from tests.inside import Inside, another_engine, audit, disagreements, event, let_go
from tests.store.test_crashes import running, until
from tests.wire import Wire

BY_HAND: Final = Word("manual")
PRICE: Final = Fraction("1.5")
STORM: Final = 3_000
PAGES: Final = 600
"""Events of one account: more than two pages."""


class Crash(BaseException):
    """The worker dies here."""


def points() -> list[str]:
    """Every fault point of the replay, as the source names them."""
    found = re.findall(r'\.reach\("(replay:\w+)"\)', inspect.getsource(usage))
    assert len(found) == len(set(found)) >= 4
    return found


async def suspended(engine: Engine, *, accounts: int, events: int) -> tuple[Inside, list[int]]:
    """A company with accounts of 10,000 credits, of each of which so many events wait."""
    company = await Inside.open(engine)
    await company.price("CHAT", "credits", amount=str(float(PRICE)))
    ids = [await company.account(credits=10_000) for _ in range(accounts)]
    await set_aside(company)
    for account_id in ids:
        for begin in range(0, events, 500):
            batch = [event("CHAT", key=f"k{number}") for number in range(begin, min(begin + 500, events))]
            sent = await company.send(account_id, *batch)
            assert {made.state for made in sent.events} == {"suspended"}
    return company, ids


async def set_aside(company: Inside) -> None:
    async with company.engine.database.writing() as unit:
        await pauses.suspend_company(company.engine, unit, company.environment, word=BY_HAND)
    await company.look()


async def go_on(company: Inside, queued: pauses.Queued = "replay") -> None:
    async with company.engine.database.writing() as unit:
        await pauses.resume_company(company.engine, unit, company.environment, queued=queued, word=BY_HAND)
    await company.look()


async def suspend(company: Inside, account_id: int) -> None:
    async with company.engine.database.writing() as unit:
        await pauses.suspend_usage(company.engine, unit, company.environment, account_id, word=BY_HAND)


async def resume(company: Inside, account_id: int, queued: pauses.Queued = "replay") -> None:
    async with company.engine.database.writing() as unit:
        await pauses.resume_usage(company.engine, unit, company.environment, account_id, queued=queued, word=BY_HAND)


async def all_billed_once(company: Inside, accounts: list[int], events: int) -> None:
    """Each event is billed, by a transaction of its own where a whole unit moved, and nothing is marked any more."""
    for account_id in accounts:
        rows = await company.rows("select state, finished_at, first from event where account_id = $1", account_id)
        assert Counter(row["state"] for row in rows) == {0: events}
        assert all(row["finished_at"] is not None and row["first"] is not None for row in rows)
        balance = await company.balance(account_id, "credits")
        assert balance.amount - Fraction(*balance.residue) == 10_000 - events * PRICE
    left = await company.rows(
        "select count(*) as n from account where replays_to is not null or replays_as is not null"
    )
    assert left[0]["n"] == 0
    assert await disagreements(company.engine.database.dsn) == []
    await audit(company.engine.database.dsn)


# --- workers that die -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("point", points())
async def test_a_replay_that_dies_at_any_point_is_gone_on_with(
    engine: Engine, clock: MadeUpClock, point: str, nth: int
) -> None:
    company, accounts = await suspended(engine, accounts=3, events=PAGES)
    await go_on(company)
    reached: Counter[str] = Counter()

    def die(at: str) -> None:
        reached[at] += 1
        if reached[point] >= nth:
            raise Crash

    async with another_engine(engine, clock) as doomed:
        doomed.faults = die
        died = False
        for _ in range(20):
            try:
                await replay_suspended(doomed, now=clock.now(), limit=500)
            except Crash:
                died = True
                break
        assert died, f"{point} is reached"
    await replay_all(engine, company.environment.id)
    await all_billed_once(company, accounts, PAGES)
    await let_go(engine)


async def test_two_clockworks_take_up_the_same_events_once(engine: Engine, clock: MadeUpClock) -> None:
    company, accounts = await suspended(engine, accounts=4, events=PAGES)
    await go_on(company)
    async with another_engine(engine, clock) as second:
        done = 0
        while done < len(accounts) * PAGES:
            swept = (replay_suspended(one, now=clock.now(), limit=500) for one in (engine, second, engine))
            took = await asyncio.gather(*swept)
            done += sum(took)
            assert any(took), "nothing moves any more"
    assert done == len(accounts) * PAGES, "each event was ended by one of them"
    await replay_all(engine, company.environment.id)
    await all_billed_once(company, accounts, PAGES)
    await let_go(engine)


async def test_a_connection_that_breaks_in_the_midst_bills_nothing_twice(engine: Engine) -> None:
    company, accounts = await suspended(engine, accounts=2, events=PAGES)
    await go_on(company)
    breaker = await asyncpg.connect(engine.database.dsn)
    done = asyncio.Event()

    async def break_lanes() -> None:
        while not done.is_set():
            await breaker.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
                " and pid <> pg_backend_pid() and query like '%tenuto_save%'"
            )
            await asyncio.sleep(0.03)

    async def sweep() -> None:
        for _ in range(6):
            with_trouble = asyncio.create_task(
                replay_suspended(engine, now=engine.now(), limit=500, environment_id=company.environment.id)
            )
            await asyncio.wait([with_trouble])
            with_trouble.exception()
        done.set()

    try:
        await asyncio.gather(break_lanes(), sweep())
    finally:
        await breaker.close()
    await company.look()
    await replay_all(engine, company.environment.id)
    await all_billed_once(company, accounts, PAGES)
    await let_go(engine)


async def test_killed_workers_bill_what_waits_once(tmp_path: Path) -> None:
    settings = Settings(port=0, data=str(tmp_path), workers=2, registration="open", log_level="error")
    async with running(settings) as server:
        assert server.workers is not None
        pids, chance = server.workers.pids, random.Random(4)
        with Client(*server.address) as client:
            company = Company.open(client)
            company.price("CHAT", "credits", "3")
            accounts = [company.account(credits=100_000) for _ in range(4)]
            company.call("POST", "/v1/companies/{company}/suspend_usage")
            for account_id in accounts:
                for _ in range(3):
                    assert company.send(account_id, *({"type": "CHAT"} for _ in range(1000))).status == 200
            assert company.call("POST", "/v1/companies/{company}/resume_usage").status == 200
            shown, kills = 12_000, 0
            while shown:
                if kills < 4:
                    victim = chance.choice(pids)
                    os.kill(victim, signal.SIGKILL)
                    await until(lambda gone=victim: gone not in server.workers.pids, 10)  # type: ignore[misc]
                    pids, kills = server.workers.pids, kills + 1
                await asyncio.sleep(chance.uniform(0, 0.1))
                try:
                    shown = company.call("GET", "/v1/companies/{company}/pauses").data["events_waiting"]
                except (OSError, ValueError):
                    client._connection.close()
            assert kills > 1, "the replay was over too soon"
            assert [company.balance(account_id, "credits")["amount"] for account_id in accounts] == [91_000] * 4
        assert await disagreements(server.dsn) == []
        await audit(server.dsn)


async def test_two_workers_lose_no_event_of_a_storm_while_the_company_stops_and_goes_on(tmp_path: Path) -> None:
    settings = Settings(port=0, data=str(tmp_path), workers=2, lanes=2, registration="open", log_level="error")
    async with running(settings) as server:
        with Client(*server.address) as client:
            company = Company.open(client)
            company.price("CHAT", "credits", "3")
            accounts = [company.account(credits=100_000) for _ in range(10)]
            numbers, answered = iter(range(STORM)), Counter[str]()

            async def crowd() -> None:
                async with Wire(server.address, company.id, company.key) as wire:
                    for number in numbers:
                        path = f"/v1/accounts/{accounts[number % 10]}/events"
                        heard = await wire.call("POST", path, {"type": "CHAT", "key": f"k{number}"})
                        assert heard.status == 200, heard
                        answered[heard.body["data"]["state"]] += 1

            async def operator() -> None:
                async with Wire(server.address, company.id, company.key) as wire:
                    while answered.total() < STORM - 100:
                        for verb in ("suspend_usage", "resume_usage"):
                            heard = await wire.call("POST", f"/v1/companies/{company.id}/{verb}")
                            assert heard.status == 200, heard
                            goal = min(STORM - 100, answered.total() + 60)
                            await until(lambda goal=goal: answered.total() >= goal, 30)  # type: ignore[misc]

            async with asyncio.timeout(120):
                await asyncio.gather(operator(), *(crowd() for _ in range(24)))
            assert set(answered) == {"complete", "suspended"}
            shown = company.call("GET", "/v1/companies/{company}/pauses").data
            async with asyncio.timeout(30):
                while shown["events_waiting"]:
                    await asyncio.sleep(0.05)
                    shown = company.call("GET", "/v1/companies/{company}/pauses").data
            amounts = [company.balance(account_id, "credits")["amount"] for account_id in accounts]
            assert amounts == [100_000 - 3 * STORM // 10] * 10
        assert await disagreements(server.dsn) == []
        await audit(server.dsn)


# --- what is late, and what is not to be billed -----------------------------------------------------------------------


async def test_an_event_that_is_saved_after_the_company_went_on_is_taken_up_too(
    engine: Engine, clock: MadeUpClock
) -> None:
    company, (account_id,) = await suspended(engine, accounts=1, events=1)
    await let_go(engine)
    late = await asyncpg.connect(engine.database.dsn)
    try:
        # A lane has found the company suspended; its unit is over only after that has changed.
        unit = late.transaction()
        await unit.start()
        await late.execute("update account set tick = tick + 10 where id = $1", account_id)
        await late.execute(
            "create temp table late on commit drop as select * from event where account_id = $1", account_id
        )
        await late.execute("update late set id = id + 5, posting = posting + 5, key = null, key_digest = null")
        await late.execute("insert into event select * from late")
        await go_on(company)
        async with another_engine(engine, clock) as worker:
            await replay_all(worker, company.environment.id)
            await unit.commit()
            clock.forward(seconds=2)
            await replay_all(worker, company.environment.id)
            await all_billed_once_but_marks(company, account_id, 2)
            clock.forward(seconds=61)
            await replay_all(worker, company.environment.id)
    finally:
        await late.close()
    marks = await company.rows("select replays_as, replays_until from environment")
    assert [tuple(row) for row in marks] == [(None, None)]
    assert await disagreements(engine.database.dsn) == []


async def all_billed_once_but_marks(company: Inside, account_id: int, events: int) -> None:
    rows = await company.rows("select state from event where account_id = $1", account_id)
    assert Counter(row["state"] for row in rows) == {0: events}
    balance = await company.balance(account_id, "credits")
    assert balance.amount - Fraction(*balance.residue) == 10_000 - events * PRICE


async def test_what_cannot_be_billed_waits_on_and_is_not_tried_for_ever(engine: Engine, clock: MadeUpClock) -> None:
    company = await Inside.open(engine)
    await company.price("DEAR", "credits", amount=str(10**15))
    account_id = await company.account(credits=10)
    await set_aside(company)
    kept = (await company.send(account_id, event("DEAR", "1000000"))).event
    await go_on(company)
    for _ in range(3):
        assert await replay_suspended(engine, now=clock.now(), limit=500) == 0
    clock.forward(seconds=61)
    await replay_all(engine, company.environment.id)

    marks = await company.rows(
        "select a.replays_to, v.replays_as from account a join environment v on v.id = a.environment_id"
    )
    assert [tuple(row) for row in marks] == [(None, None)]
    rows = await company.rows("select id, state from event")
    assert [tuple(row) for row in rows] == [(kept.id, 3)]
    await let_go(engine)


async def test_the_last_word_about_what_waits_counts(engine: Engine) -> None:
    company = await Inside.open(engine)
    await company.price("CHAT", "credits", amount="1")
    account_id = await company.account(credits=1_000)
    await suspend(company, account_id)
    for _ in range(2):
        await company.send(account_id, *(event("CHAT") for _ in range(300)))
    await resume(company, account_id)
    assert await replay_suspended(engine, now=engine.now(), limit=500) == 250
    await resume(company, account_id, "keep")
    assert await replay_suspended(engine, now=engine.now(), limit=500) == 0, "a replay can be stopped"
    await resume(company, account_id, "void")
    await replay_all(engine, company.environment.id)

    rows = await company.rows("select state, count(*) as n from event group by state order by state")
    assert [tuple(row) for row in rows] == [(0, 250), (2, 350)]
    assert (await company.balance(account_id, "credits")).amount == 750
    await audit(engine.database.dsn)
    await let_go(engine)


async def test_new_events_are_billed_while_old_ones_wait_their_turn(engine: Engine) -> None:
    company = await Inside.open(engine)
    await company.price("CHAT", "credits", amount="1")
    account_id = await company.account(credits=1_000)
    await suspend(company, account_id)
    await company.send(account_id, *(event("CHAT") for _ in range(300)))
    await resume(company, account_id)
    assert (await company.send(account_id, event("CHAT"))).event.state == "complete"
    await suspend(company, account_id)
    kept = (await company.send(account_id, event("CHAT"))).event
    assert kept.state == "suspended"
    await replay_all(engine, company.environment.id)

    rows = await company.rows("select id from event where state = 3")
    assert [row["id"] for row in rows] == [kept.id], "what came after the mark waits on"
    assert (await company.balance(account_id, "credits")).amount == 699
    await let_go(engine)


async def test_a_page_of_many_passes_over_what_is_not_there_any_more(engine: Engine) -> None:
    company = await Inside.open(engine)
    await company.price("CHAT", "credits", amount="1")
    account_id, other = await company.account(credits=10), await company.account(credits=10)
    for id in (account_id, other):
        await suspend(company, id)
    first, second = (await company.send(account_id, event("CHAT"), event("CHAT"))).events
    of_other = (await company.send(other, *(event("CHAT") for _ in range(9)))).events
    foreign = of_other[-1]
    await company.void(account_id, first.id)

    async def replay(*ids: int) -> int:
        request = UsageRequest(
            company.environment,
            None,
            account_id,
            "test",
            lambda decision: Answer(200, b"%d" % len(decision.answers)),
            replay=Replay(ids),
        )
        return int((await engine.lanes.submit(account_id, request)).body)

    assert await replay(first.id, second.id, foreign.id) == 1
    assert await replay(first.id, second.id) == 0
    with pytest.raises(Refusal, match="not kept aside"):
        await replay(second.id)
    with pytest.raises(Refusal) as unknown:
        await replay(foreign.id)
    assert unknown.value.code == "not_found"
    assert (await company.balance(account_id, "credits")).amount == 9
    await let_go(engine)


# --- invoices ---------------------------------------------------------------------------------------------------------


async def posted(company: Inside, account_id: int, tick_from: int) -> tuple[Fraction, int]:
    """What an invoice would bill and take back above a tick, and the tick up to which."""
    async with company.engine.database.reading() as reader:
        found = await invoices.gather_posted(reader, account_id, "USD", tick_from)
    total = sum((Fraction(*group.exact) for group in found.posted.groups), Fraction())
    assert total == -found.posted.usage_amount, "events and transactions say the same"
    return total, found.tick_to


async def test_what_waited_for_a_day_is_on_the_invoice_of_when_it_was_billed(
    engine: Engine, clock: MadeUpClock
) -> None:
    company = await Inside.open(engine)
    await company.price("CHAT", "USD", amount="100")
    account_id = await company.account(USD=0)
    await company.send(account_id, event("CHAT"))
    await suspend(company, account_id)
    once, held, fleeting = (
        await company.send(account_id, event("CHAT"), event("CHAT", state="pending"), event("CHAT"))
    ).events
    total, first_cut = await posted(company, account_id, 0)
    assert total == 100, "what waits is on no invoice"

    clock.forward(hours=24)
    await resume(company, account_id)
    await replay_all(engine, company.environment.id)
    await company.void(account_id, fleeting.id)
    await company.finish(account_id, held.id, Settlement("complete", exact("1"), "1"))
    total, second_cut = await posted(company, account_id, first_cut)
    assert total == 200, "the event and the hold; what came and went is on no line"

    clock.forward(hours=24)
    for event_id in (once.id, held.id):
        await company.void(account_id, event_id)
    total, third_cut = await posted(company, account_id, second_cut)
    assert total == -200, "taken back, once"
    assert (await posted(company, account_id, third_cut))[0] == 0
    assert (await posted(company, account_id, 0))[0] == 100
    await audit(engine.database.dsn)
    await let_go(engine)


async def test_marks_are_counted_and_found_by_their_index(engine: Engine) -> None:
    company, accounts = await suspended(engine, accounts=3, events=2)
    async with engine.database.reading() as reader:
        found = await shelf.read_company(reader, company.environment.id)
    assert (found.waiting, found.accounts_waiting, found.is_replaying) == (6, 3, False)
    await go_on(company)
    async with engine.database.reading() as reader:
        assert (await shelf.read_company(reader, company.environment.id)).is_replaying
    await replay_all(engine, company.environment.id)
    async with engine.database.reading() as reader:
        found = await shelf.read_company(reader, company.environment.id)
    assert (found.waiting, found.accounts_waiting, found.is_replaying) == (0, 0, False)
    await all_billed_once(company, accounts, 2)
    await let_go(engine)
