"""Lanes: the mechanism by itself, then with the database under it and a second worker beside it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import pytest

from tenuto.core.event import Settlement
from tenuto.core.outcomes import Refusal
from tenuto.core.user import SCOPES
from tenuto.engine import Engine, Once
from tenuto.lanes import TRIES_MAX, Again, Lane, Lanes, Lost, Overloaded
from tenuto.service import accounts
from tenuto.service.usage import Ending, release_expired
from tests.conftest import MadeUpClock
from tests.inside import Inside, another_engine, disagreements, event, let_go, meanwhile, outcome_of, settle_for

# --- the mechanism alone -----------------------------------------------------------------------------------------


class Desk:
    """Work that upper-cases words, and does what some words tell it to. Waits at its door while it is shut."""

    def __init__(self) -> None:
        self.turns: list[list[str]] = []
        self.done: list[str] = []
        self.door = asyncio.Event()
        self.entered = asyncio.Event()
        self.stale = 0
        self.recovered = 0
        self.is_down = False
        self.is_closed = False
        self.door.set()

    async def turn(self, requests: Sequence[str], *, again: int) -> Sequence[str | BaseException]:
        self.turns.append(list(requests))
        self.entered.set()
        await self.door.wait()
        if "lose" in requests and not self.recovered:
            raise Lost("gone")
        if again < self.stale:
            raise Again
        if "poison" in requests:
            raise ArithmeticError("poison")
        self.done.extend(requests)
        return [Refusal("not_found") if request == "refuse" else request.upper() for request in requests]

    async def recover(self) -> None:
        if self.is_down:
            raise Lost("still down")
        self.recovered += 1

    async def close(self) -> None:
        self.is_closed = True


@asynccontextmanager
async def opened(desk: Desk, *, waiting_max: int = 100, batch_max: int = 100) -> AsyncIterator[Lane[str, str]]:
    lane: Lane[str, str] = Lane(desk, weigh=len_or_one, waiting_max=waiting_max, batch_max=batch_max)
    lane.start()
    try:
        yield lane
    finally:
        desk.door.set()
        await lane.stop()


def len_or_one(request: str) -> int:
    """A request weighs 1, or what it says: "5 eggs" weighs 5."""
    number = request.partition(" ")[0]
    return int(number) if number.isdigit() else 1


async def outcomes(*futures: asyncio.Future[str]) -> list[str]:
    found = await asyncio.gather(*futures, return_exceptions=True)
    return [type(item).__name__ if isinstance(item, BaseException) else item for item in found]


async def test_what_comes_while_a_batch_is_worked_on_gathers_in_order() -> None:
    desk = Desk()
    desk.door.clear()
    async with opened(desk) as lane:
        first = lane.submit("a")
        await desk.entered.wait()
        rest = [lane.submit(word) for word in "bcd"]
        assert lane.waiting == 3
        desk.door.set()
        assert await outcomes(first, *rest) == ["A", "B", "C", "D"]
        assert desk.turns == [["a"], ["b", "c", "d"]]
        assert lane.waiting == 0


async def test_a_refusal_is_an_answer_and_spares_its_neighbours() -> None:
    desk = Desk()
    async with opened(desk) as lane:
        assert await outcomes(*map(lane.submit, ["a", "refuse", "b"])) == ["A", "Refusal", "B"]
        assert len(desk.turns) == 1


async def test_past_its_bound_a_lane_refuses_at_once_and_takes_on_again_when_it_is_free() -> None:
    desk = Desk()
    desk.door.clear()
    async with opened(desk, waiting_max=5) as lane:
        first = lane.submit("a")
        await desk.entered.wait()
        waiting = [lane.submit("2 eggs"), lane.submit("3 eggs")]
        with pytest.raises(Overloaded):
            _ = lane.submit("b")
        assert lane.waiting == 5
        desk.door.set()
        assert await outcomes(first, *waiting) == ["A", "2 EGGS", "3 EGGS"]
        assert await lane.submit("b") == "B"


async def test_a_batch_stops_at_its_bound_but_takes_one_heavy_request_whole() -> None:
    desk = Desk()
    desk.door.clear()
    async with opened(desk, batch_max=4) as lane:
        first = lane.submit("a")
        await desk.entered.wait()
        rest = [lane.submit(word) for word in ("3 eggs", "2 eggs", "9 eggs", "b")]
        desk.door.set()
        await asyncio.gather(first, *rest)
        assert desk.turns == [["a"], ["3 eggs"], ["2 eggs"], ["9 eggs"], ["b"]]


async def test_a_request_whose_client_went_away_is_not_worked_on_and_disturbs_nobody() -> None:
    desk = Desk()
    desk.door.clear()
    async with opened(desk) as lane:
        running = lane.submit("a")
        await desk.entered.wait()
        gone, stays = lane.submit("b"), lane.submit("c")
        running.cancel()
        gone.cancel()
        desk.door.set()
        assert await stays == "C"
        assert desk.done == ["a", "c"]
        assert lane.waiting == 0


async def test_a_batch_of_clients_that_all_went_away_is_no_batch() -> None:
    desk = Desk()
    desk.door.clear()
    async with opened(desk) as lane:
        first = lane.submit("a")
        await desk.entered.wait()
        for word in "bc":
            lane.submit(word).cancel()
        desk.door.set()
        await first
        assert await lane.submit("d") == "D"
        assert desk.turns == [["a"], ["d"]]


@pytest.mark.parametrize("place", range(7))
async def test_poison_is_halved_until_the_culprit_stands_alone(place: int) -> None:
    desk = Desk()
    words = list("abcdef")
    words.insert(place, "poison")
    async with opened(desk) as lane:
        found = await outcomes(*map(lane.submit, words))
        assert found == [word.upper() if word != "poison" else "ArithmeticError" for word in words]
        assert sorted(desk.done) == list("abcdef")
        assert desk.done == sorted(desk.done), "halving keeps the order"
        assert await lane.submit("g") == "G"


async def test_two_culprits_are_both_found() -> None:
    desk = Desk()
    async with opened(desk) as lane:
        found = await outcomes(*map(lane.submit, ["poison", "a", "b", "poison", "c"]))
        assert found == ["ArithmeticError", "A", "B", "ArithmeticError", "C"]


async def test_a_stale_batch_is_read_and_decided_anew() -> None:
    desk = Desk()
    desk.stale = TRIES_MAX - 1
    async with opened(desk) as lane:
        assert await outcomes(*map(lane.submit, "ab")) == ["A", "B"]
        assert desk.turns == [["a", "b"]] * TRIES_MAX


async def test_what_stays_stale_is_told_to_come_again() -> None:
    desk = Desk()
    desk.stale = TRIES_MAX
    async with opened(desk) as lane:
        assert await outcomes(*map(lane.submit, "ab")) == ["Overloaded", "Overloaded"]
        desk.stale = 0
        assert await lane.submit("c") == "C"


async def test_a_lost_connection_fails_the_batch_without_halving_and_is_replaced_before_the_next() -> None:
    desk = Desk()
    async with opened(desk) as lane:
        assert await outcomes(*map(lane.submit, ["a", "lose", "b"])) == ["Lost", "Lost", "Lost"]
        assert len(desk.turns) == 1
        assert desk.recovered == 0
        assert await lane.submit("c") == "C"
        assert desk.recovered == 1


async def test_while_there_is_no_new_connection_each_batch_hears_so() -> None:
    desk = Desk()
    desk.is_down = True
    async with opened(desk) as lane:
        assert await outcomes(lane.submit("lose")) == ["Lost"]
        assert await outcomes(lane.submit("a")) == ["Lost"]
        desk.is_down = False
        assert await lane.submit("b") == "B"
        assert desk.done == ["b"]


async def test_a_connection_lost_while_halving_fails_the_rest_alike() -> None:
    desk = Desk()
    async with opened(desk) as lane:
        found = await outcomes(*map(lane.submit, ["a", "poison", "lose", "b"]))
        assert found == ["Lost"] * 4, "the whole batch meets the loss first"
        assert await lane.submit("c") == "C"


async def test_stop_answers_what_waits_and_takes_nothing_more() -> None:
    desk = Desk()
    desk.door.clear()
    async with opened(desk) as lane:
        first = lane.submit("a")
        await desk.entered.wait()
        rest = [lane.submit(word) for word in "bc"]
        stopping = asyncio.create_task(lane.stop())
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            _ = lane.submit("d")
        desk.door.set()
        await stopping
        assert await outcomes(first, *rest) == ["A", "B", "C"]


async def test_one_place_always_goes_to_one_lane() -> None:
    desks = [Desk() for _ in range(3)]
    lanes = Lanes([Lane(desk, weigh=len_or_one, waiting_max=100, batch_max=100) for desk in desks])
    lanes.start()
    found = await asyncio.gather(*(lanes.submit(place, f"p{place}") for place in [0, 1, 2, 3, 4, 5] * 4))
    await lanes.stop()
    assert found == [f"P{place}" for place in [0, 1, 2, 3, 4, 5] * 4]
    served = [{word for turn in desk.turns for word in turn} for desk in desks]
    assert sum(len(words) for words in served) == 6
    assert lanes.waiting == 0


# --- with the database -------------------------------------------------------------------------------------------


@pytest.fixture
async def company(engine: Engine) -> AsyncIterator[Inside]:
    found = await Inside.open(engine)
    await found.price("CHAT", "credits", amount="1")
    yield found
    await let_go(engine)


@pytest.fixture
async def other(engine: Engine, clock: MadeUpClock) -> AsyncIterator[Engine]:
    async with another_engine(engine, clock) as found:
        yield found


def once_only(work: Callable[[], None]) -> Callable[[], None]:
    """The work at the first call, nothing at later ones: a batch that is decided anew calls again."""
    calls: list[None] = []

    def run() -> None:
        calls.append(None)
        if len(calls) == 1:
            work()

    return run


@pytest.mark.parametrize("neighbours", [7, 250], ids=["arrays", "copy"])
async def test_rows_that_postgresql_refuses_fail_their_request_only(company: Inside, neighbours: int) -> None:
    account_id = await company.account(credits=1000)
    requests = [company.send(account_id, event("CHAT", key=f"k{n}")) for n in range(neighbours)]
    bad = event("CHAT", key="bad")._replace(metadata="{no json")
    requests.insert(neighbours // 2, company.send(account_id, bad))
    found = await asyncio.gather(*requests, return_exceptions=True)
    failed = [item for item in found if isinstance(item, BaseException)]
    assert len(failed) == 1
    assert isinstance(failed[0], asyncpg.PostgresError)
    assert (await company.balance(account_id, "credits")).amount == 1000 - neighbours
    rows = await company.rows("select key from event where account_id = $1", account_id)
    assert sorted(row["key"] for row in rows) == sorted(f"k{n}" for n in range(neighbours))
    # The key of the failed one is unused.
    assert (await company.send(account_id, event("CHAT", key="bad"))).event.state == "complete"
    assert await disagreements(company.engine.database.dsn) == []


async def test_an_answer_that_cannot_be_rendered_hides_no_effect(company: Inside) -> None:
    account_id = await company.account(credits=10)

    def refuse() -> None:
        raise ValueError("this cannot be written down")

    found = await asyncio.gather(
        company.send(account_id, event("CHAT", key="a")),
        company.ask(account_id, [event("CHAT", key="b")], before_save=refuse),
        company.send(account_id, event("CHAT", key="c")),
        return_exceptions=True,
    )
    assert [type(item).__name__ for item in found] == ["Asked", "ValueError", "Asked"]
    assert (await company.balance(account_id, "credits")).amount == 8
    assert len(await company.rows("select from event where account_id = $1", account_id)) == 2


async def test_a_price_changed_between_decision_and_save_is_the_price_that_counts(company: Inside) -> None:
    price_id = await company.price("IMAGE", "credits", amount="3")
    account_id = await company.account(credits=100)

    async def dearer(elsewhere: Inside) -> None:
        await elsewhere.reprice(price_id, amount="5")

    asked = await company.ask(
        account_id,
        [event("IMAGE", key="k")],
        before_save=once_only(lambda: meanwhile(company.engine, dearer, company)),
    )
    assert asked.event.charges[0].amount == 5
    assert (await company.balance(account_id, "credits")).amount == 95


async def test_a_key_revoked_between_decision_and_save_writes_nothing(company: Inside) -> None:
    account_id = await company.account(credits=100)
    async with company.engine.database.writing() as unit:
        spare, _ = await accounts.issue_key(
            company.engine,
            unit,
            company.environment,
            live=False,
            name="spare",
            scopes=SCOPES,
            expires_at=None,
        )
    await company.look()
    holder = Inside(company.engine, company.environment, spare.id)

    async def revoke(elsewhere: Inside) -> None:
        async with elsewhere.engine.database.writing() as unit:
            await accounts.revoke_key(elsewhere.engine, unit, elsewhere.environment, spare.id)

    with pytest.raises(Refusal) as refused:
        await holder.ask(
            account_id,
            [event("CHAT", key="k")],
            before_save=once_only(lambda: meanwhile(company.engine, revoke, company)),
        )
    assert refused.value.code == "invalid_credentials"
    assert (await company.balance(account_id, "credits")).amount == 100
    assert await company.rows("select from event where account_id = $1", account_id) == []


async def test_units_taken_between_decision_and_save_are_not_spent_twice(company: Inside) -> None:
    account_id = await company.account(credits=10)

    async def take(elsewhere: Inside) -> None:
        await elsewhere.adjust(account_id, "credits", -8)

    asked = await company.ask(
        account_id,
        [event("CHAT", "5", gated=True)],
        before_save=once_only(lambda: meanwhile(company.engine, take, company)),
    )
    assert asked.refused[0].details["available"] == 2
    assert (await company.balance(account_id, "credits")).amount == 2


async def test_a_stored_answer_written_meanwhile_is_the_answer(company: Inside) -> None:
    account_id = await company.account(credits=10)
    once, heard = Once("idem", b"\1" * 16), []

    def same_elsewhere() -> None:
        async def same(elsewhere: Inside) -> None:
            async with another_engine(elsewhere.engine, elsewhere.engine.clock) as worker:
                heard.append(await (await elsewhere.through(worker)).ask(account_id, [event("CHAT")], once=once))

        meanwhile(company.engine, same, company)

    asked = await company.ask(account_id, [event("CHAT")], once=once, before_save=once_only(same_elsewhere))
    assert asked.answer.is_replay
    assert asked.answer.body == heard[0].answer.body
    assert (await company.balance(account_id, "credits")).amount == 9


async def test_equal_keys_in_one_batch_have_one_effect_and_other_bodies_are_refused(company: Inside) -> None:
    account_id = await company.account(credits=10)
    found = await asyncio.gather(
        *(company.send(account_id, event("CHAT", key="k")) for _ in range(5)),
        company.send(account_id, event("CHAT", "2", key="k")),
        return_exceptions=True,
    )
    same = [item for item in found if not isinstance(item, BaseException)]
    assert len({asked.event.id for asked in same}) == 1
    assert len(same) == 5
    assert sum(not asked.answer.is_replay for asked in same) == 1
    assert isinstance(found[-1], Refusal)
    assert found[-1].code == "key_reused"
    assert (await company.balance(account_id, "credits")).amount == 9


async def test_equal_keys_from_two_engines_at_once_have_one_effect_and_one_answer(
    company: Inside, other: Engine
) -> None:
    account_id = await company.account(credits=1000)
    elsewhere = await company.through(other)
    keys = [f"k{n}" for n in range(100)]
    asked = await asyncio.gather(
        *(worker.send(account_id, event("CHAT", key=key)) for key in keys for worker in (company, elsewhere))
    )
    for one, two in zip(asked[::2], asked[1::2], strict=True):
        assert one.event.id == two.event.id
        assert one.event.charges[0].balance_amount == two.event.charges[0].balance_amount
        assert one.answer.is_replay is not two.answer.is_replay
    assert (await company.balance(account_id, "credits")).amount == 900
    assert await disagreements(company.engine.database.dsn) == []


async def test_a_refused_key_keeps_its_refusal_for_both_engines(company: Inside, other: Engine) -> None:
    account_id = await company.account(credits=0)
    elsewhere = await company.through(other)
    asked = await asyncio.gather(
        *(
            worker.send(account_id, event("CHAT", gated=True, key="k"))
            for _ in range(5)
            for worker in (company, elsewhere)
        )
    )
    await company.adjust(account_id, "credits", 10)
    asked += await asyncio.gather(
        *(worker.send(account_id, event("CHAT", gated=True, key="k")) for worker in (company, elsewhere))
    )
    assert len({found.refused[0].id for found in asked}) == 1
    assert len(await company.rows("select from gated_event where account_id = $1", account_id)) == 1
    assert (await company.balance(account_id, "credits")).amount == 10


async def test_two_engines_racing_on_one_account_never_oversell_it(company: Inside, other: Engine) -> None:
    account_id = await company.account(credits=300)
    elsewhere = await company.through(other)
    found = await asyncio.gather(
        *(
            outcome_of(worker.send(account_id, event("CHAT", "3", gated=True)))
            for _ in range(200)
            for worker in (company, elsewhere)
        )
    )
    assert found.count("complete") == 100
    assert found.count("insufficient_balance") == 300
    assert (await company.balance(account_id, "credits")).amount == 0
    assert await disagreements(company.engine.database.dsn) == []


async def test_record_settle_void_and_adjust_from_two_engines_lose_no_update(company: Inside, other: Engine) -> None:
    """Ten accounts, both workers, all verbs in a seeded order: nothing is lost and nobody waits in a circle."""
    chance = random.Random(7)
    account_ids = [await company.account(credits=100_000) for _ in range(10)]
    workers = [company, await company.through(other)]
    moved = dict.fromkeys(account_ids, 0)

    async def live(number: int) -> None:
        account_id, worker = chance.choice(account_ids), chance.choice(workers)
        second = chance.choice(workers)
        match number % 4:
            case 0:
                await worker.send(account_id, event("CHAT", "2", gated=True, key=f"r{number}"))
                moved[account_id] -= 2
            case 1:
                held = await worker.send(account_id, event("CHAT", "5", state="pending", gated=True))
                await second.finish(account_id, held.event.id, settle_for(quantity="3"))
                moved[account_id] -= 3
            case 2:
                sent = await worker.send(account_id, event("CHAT", "7"))
                await second.void(account_id, sent.event.id)
            case _:
                await worker.adjust(account_id, "credits", 11)
                moved[account_id] += 11

    async with asyncio.timeout(30):
        await asyncio.gather(*(live(number) for number in range(400)))
    for account_id in account_ids:
        balance = await company.balance(account_id, "credits")
        assert (balance.amount, balance.pending) == (100_000 + moved[account_id], 0)
    assert await disagreements(company.engine.database.dsn) == []


# --- holds that a lane remembers ---------------------------------------------------------------------------------


async def held(company: Inside, account_id: int) -> int:
    return (await company.send(account_id, event("CHAT", "4", state="pending"))).event.id


async def test_a_hold_whose_hour_is_over_is_told_so_by_the_lane_that_made_it(
    company: Inside, clock: MadeUpClock
) -> None:
    account_id = await company.account(credits=10)
    event_id = await held(company, account_id)
    clock.forward(seconds=3600)
    assert await outcome_of(company.finish(account_id, event_id, settle_for())) == "event_expired"


async def test_a_live_hold_is_settled_though_another_one_has_lapsed(company: Inside, clock: MadeUpClock) -> None:
    account_id = await company.account(credits=10)
    await held(company, account_id)
    clock.forward(minutes=30)
    event_id = await held(company, account_id)
    clock.forward(minutes=30)
    assert await outcome_of(company.finish(account_id, event_id, settle_for())) == "complete"
    balance = await company.balance(account_id, "credits")
    assert (balance.amount, balance.pending) == (6, 0)


async def test_the_first_sweep_after_its_hour_ends_a_hold(company: Inside, clock: MadeUpClock) -> None:
    account_id = await company.account(credits=10)
    await held(company, account_id)
    clock.forward(seconds=3600)
    assert await release_expired(company.engine, now=clock.now(), limit=100) == 1
    (row,) = await company.rows("select state, reason from event where account_id = $1", account_id)
    assert (row["state"], row["reason"]) == (2, 2)


async def test_a_hold_cancelled_elsewhere_is_finished_and_not_expired_an_hour_later(
    company: Inside, other: Engine, clock: MadeUpClock
) -> None:
    account_id = await company.account(credits=10)
    event_id = await held(company, account_id)
    elsewhere = await company.through(other)
    await elsewhere.finish(account_id, event_id, Settlement("cancelled"))
    clock.forward(hours=2)
    assert await outcome_of(company.void(account_id, event_id)) == "event_finished"


async def test_a_hold_settled_elsewhere_is_finished_whatever_the_new_settlement_asks(
    company: Inside, other: Engine
) -> None:
    account_id = await company.account(credits=10)
    event_id = await held(company, account_id)
    elsewhere = await company.through(other)
    await elsewhere.finish(account_id, event_id, settle_for())
    found = await outcome_of(company.finish(account_id, event_id, settle_for(quantity="1000")))
    assert found == "event_finished"


async def test_out_of_range_is_not_said_of_a_balance_that_has_moved_elsewhere(company: Inside, other: Engine) -> None:
    account_id = await company.account()
    await company.balance_opened(account_id, "credits", -(8 * 10**18 - 10))
    await company.send(account_id, event("CHAT"))
    await (await company.through(other)).adjust(account_id, "credits", 10**15)
    assert await outcome_of(company.send(account_id, event("CHAT", "100"))) == "complete"


async def test_a_lane_at_rest_answers_at_once_after_its_connection_was_ended(company: Inside) -> None:
    """Outside the fault no request may hear of it (bar, Faults): a connection seen to be closed is replaced first."""
    account_id = await company.account(credits=10)
    await company.send(account_id, event("CHAT"))
    connection = await asyncpg.connect(company.engine.database.dsn)
    try:
        count = await connection.fetchval(
            "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
        )
    finally:
        await connection.close()
    assert count >= 1
    assert await outcome_of(company.send(account_id, event("CHAT"))) == "complete"
    assert (await company.balance(account_id, "credits")).amount == 8


async def test_a_test_clock_moved_between_decision_and_save_is_the_time_that_counts(company: Inside) -> None:
    account_id = await company.account(credits=10)
    event_id = await held(company, account_id)

    async def later(elsewhere: Inside) -> None:
        async def nothing(_: object) -> None:
            return None

        await accounts.set_clock(elsewhere.engine, elsewhere.environment, timedelta(hours=1), nothing)

    asked = company.ask(
        account_id,
        ending=Ending(event_id, settle_for()),
        before_save=once_only(lambda: meanwhile(company.engine, later, company)),
    )
    assert await outcome_of(asked) == "event_expired"
    assert (await company.balance(account_id, "credits")).amount == 10


# --- two endings in one batch ------------------------------------------------------------------------------------


async def test_a_hold_settled_and_taken_back_in_one_batch_ends_as_the_last_one_said(company: Inside) -> None:
    account_id = await company.account(credits=10)
    event_id = await held(company, account_id)
    both = (company.finish(account_id, event_id, settle_for(quantity="3")), company.void(account_id, event_id))
    assert await asyncio.gather(*map(outcome_of, both)) == ["complete", "cancelled"]
    (row,) = await company.rows("select state, reason from event where account_id = $1", account_id)
    assert (row["state"], row["reason"]) == (2, 3)
    assert (await company.balance(account_id, "credits")).amount == 10
    assert await outcome_of(company.void(account_id, event_id)) == "event_finished"
    assert await disagreements(company.engine.database.dsn) == []


async def test_the_same_with_several_denominations(company: Inside) -> None:
    await company.price("CHAT", "USD", amount="2")
    account_id = await company.account(credits=10, USD=20)
    event_id = await held(company, account_id)
    both = (company.finish(account_id, event_id, settle_for(quantity="3")), company.void(account_id, event_id))
    assert await asyncio.gather(*map(outcome_of, both)) == ["complete", "cancelled"]
    assert (await company.balance(account_id, "credits")).amount == 10
    assert (await company.balance(account_id, "USD")).amount == 20
    assert await outcome_of(company.void(account_id, event_id)) == "event_finished"
    assert await disagreements(company.engine.database.dsn) == []
