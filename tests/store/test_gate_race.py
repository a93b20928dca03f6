"""Crowds at the gate: never one too many, never one too few, and one end for every hold."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from tenuto.core.event import Settlement
from tenuto.core.outcomes import Refusal
from tenuto.engine import Engine
from tenuto.server import Server
from tenuto.service.usage import release_expired
from tests.client import Company
from tests.conftest import MadeUpClock
from tests.inside import Inside, another_engine, audit, disagreements, event, let_go, settle_for
from tests.wire import Wire

EVENTS, CONNECTIONS, PRICE, BALANCE = 10_000, 200, 3, 15_000
HOLDS, GROUP = 1_000, 100


async def test_ten_thousand_at_one_gate(service: Server, company: Company) -> None:
    company.price("CHAT", "credits", str(PRICE))
    account_id = company.account(credits=BALANCE)
    numbers = iter(range(EVENTS))
    seen: Counter[int] = Counter()
    ends: list[int] = []

    async def crowd() -> None:
        async with Wire(service.address, company.id, company.key) as wire:
            for number in numbers:
                body = {"type": "CHAT", "gate_on_balance": True, "key": f"k{number}"}
                heard = await wire.call("POST", f"/v1/accounts/{account_id}/events", body)
                seen[heard.status] += 1
                if heard.status == 200:
                    ends.append(heard.body["data"]["balance"]["amount"])

    async with asyncio.timeout(60):
        await asyncio.gather(*(crowd() for _ in range(CONNECTIONS)))
    accepted = BALANCE // PRICE
    assert seen == {200: accepted, 402: EVENTS - accepted}
    # Each answer tells the balance right after its own event: all steps of the ladder, each once.
    assert sorted(ends) == list(range(0, BALANCE, PRICE))
    balance = company.balance(account_id, "credits")
    assert (balance["amount"], balance["pending"]) == (0, 0)
    assert await disagreements(service.dsn) == []
    await audit(service.dsn)


async def test_post_void_expiry_and_the_same_key_race_to_one_end(engine: Engine, clock: MadeUpClock) -> None:
    """Four actors a hold, two workers, time moving past the hour in the midst of it."""
    company = await Inside.open(engine)
    await company.price("CHAT", "credits", amount="1")
    account_ids = [await company.account(credits=1_000_000) for _ in range(5)]
    chance = random.Random(11)
    ends: Counter[str] = Counter()
    async with another_engine(engine, clock) as second:
        workers = [company, await company.through(second)]
        for group in range(HOLDS // GROUP):
            await _race(group, workers, account_ids, clock, chance, ends)
        assert await disagreements(engine.database.dsn) == []
        await audit(engine.database.dsn)
    assert sum(ends.values()) == HOLDS
    assert set(ends) == {"settled", "voided", "expired"}, "each end is reached, or this tries too little"
    for account_id in account_ids:
        assert (await company.balance(account_id, "credits")).pending == 0
    await let_go(engine)


async def _race(
    group: int,
    workers: list[Inside],
    account_ids: list[int],
    clock: MadeUpClock,
    chance: random.Random,
    ends: Counter[str],
) -> None:
    bodies = {number: event("CHAT", "7", state="pending", key=f"h{group}-{number}") for number in range(GROUP)}
    homes = {number: chance.choice(account_ids) for number in bodies}
    pushed = dict(
        zip(bodies, await asyncio.gather(*(workers[0].send(homes[n], bodies[n]) for n in bodies)), strict=True)
    )
    heard: dict[int, dict[str, str]] = {number: {} for number in bodies}
    answered = 0

    async def act(number: int, actor: str) -> None:
        nonlocal answered
        worker, account_id, event_id = chance.choice(workers), homes[number], pushed[number].event.id
        try:
            match actor:
                case "post":
                    await worker.finish(account_id, event_id, settle_for(quantity="5"))
                case "void":
                    await (
                        worker.void(account_id, event_id)
                        if number % 2
                        else worker.finish(account_id, event_id, Settlement("cancelled"))
                    )
                case _:
                    again = await worker.send(account_id, bodies[number])
                    assert again.answer.is_replay
                    assert again.event.id == event_id
                    assert again.event.state == "pending", "a key goes on giving its first answer"
            heard[number][actor] = "done"
        except Refusal as refusal:
            heard[number][actor] = refusal.code
        answered += 1
        if answered == GROUP:
            clock.forward(seconds=3600)
            await release_expired(worker.engine, now=clock.now(), limit=GROUP // 4)

    acts = [(number, actor) for number in bodies for actor in ("post", "void", "same key")]
    chance.shuffle(acts)
    # Two waves, so that the hour ends with some of the actors still to come.
    await asyncio.gather(*(act(*item) for item in acts[: len(acts) // 3]))
    swept = [release_expired(worker.engine, now=clock.now(), limit=1000) for worker in workers]
    await asyncio.gather(*swept, *(act(*item) for item in acts[len(acts) // 3 :]))
    await release_expired(workers[0].engine, now=clock.now(), limit=1000)

    rows = await workers[0].rows(
        "select account_id, id, state, reason, amount from event where account_id = any($1)",
        account_ids,
    )
    stored = {(row["account_id"], row["id"]): row for row in rows}
    for number, replies in heard.items():
        row = stored[homes[number], pushed[number].event.id]
        post, void = replies["post"], replies["void"]
        assert replies["same key"] == "done"
        # A settled event may be taken back once more by DELETE; but nobody else may claim to have ended it.
        if row["state"] == 0:
            ends["settled"] += 1
            assert (post, void) == ("done", "event_finished"), (number, replies)
            assert row["amount"] == 5
        elif row["reason"] == 2:
            ends["expired"] += 1
            assert (post, void) == ("event_expired", "event_expired"), (number, replies)
        else:
            ends["voided"] += 1
            assert void == "done", (number, replies)
            assert post in ({"done", "event_finished"} if number % 2 else {"event_finished"}), (number, replies)
