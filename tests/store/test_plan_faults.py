"""A plan is renewed once for its date, paid once and gives its units once, whatever dies, is lost, doubled or raced.

Real PostgreSQL, a made-up clock, the real gateway asking the simulator; the simulator's own book is the judge.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any, Final, NamedTuple

import asyncpg
import msgspec
import pytest

from tenuto.api import account_plans
from tenuto.api.account_plans import (
    agree_terms,
    cancel_plan,
    change_plan,
    modify_mid_month,
    pause_plan,
    renew_plan,
    resume_plan,
)
from tenuto.api.accounts import open_account
from tenuto.api.cards import attach_card
from tenuto.api.catalog import agree_event_price
from tenuto.api.payments import resume_capture, retry_payment, void_payment
from tenuto.core.identifiers import read, spell
from tenuto.core.payment import Payment
from tenuto.core.period import monthly
from tenuto.engine import Answer, Engine
from tenuto.service import cards, payments
from tenuto.service.invoicing import TermsWanted, set_terms
from tenuto.service.renewals import renew_due
from tenuto.store.database import migrate
from tenuto.store.payments import list_cards
from tenuto.worker import Clockwork
from tests.conftest import MadeUpClock
from tests.inside import disagreements, event
from tests.simulated import Simulated
from tests.store.plan_world import (
    BASIC,
    BY_TOKEN,
    FREE,
    INCLUDED,
    MONTH,
    PRICE,
    PRO,
    YEARLY,
    PlanWorld,
    deadly,
    die_renewing,
    kill_while_renewing,
    plan_points,
    renewed_once,
    spin,
    storm,
    the_payment,
    until,
)
from tests.store.refill_world import LEASE_AND_A_BIT, Crash, World, audited, charges, emptied


@pytest.fixture(scope="module")
def stripe() -> Iterator[Simulated]:
    with Simulated() as found:
        yield found


@pytest.fixture(scope="module")
async def database(new_database: Callable[[str], str]) -> str:
    dsn = new_database("plan_faults")
    await migrate(dsn)
    return dsn


@pytest.fixture
async def world(database: str, clock: MadeUpClock, stripe: Simulated) -> AsyncIterator[PlanWorld]:
    """A company of the test's own in an empty database. What it leaves behind must please the product's audit."""
    await emptied(database)
    found = await PlanWorld.made(database, clock, stripe)
    try:
        yield found
        await audited(database)
        assert await disagreements(database) == []
    finally:
        stripe.heal()
        await found.engine.close()


# --- workers that die in a run of renewals ----------------------------------------------------------------------------


@pytest.mark.parametrize("point", plan_points())
async def test_a_run_of_renewals_that_dies_at_any_point_renews_each_account_once(world: PlanWorld, point: str) -> None:
    await die_renewing(world, point, count=1, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [10, 20, 30])
@pytest.mark.parametrize("point", plan_points())
async def test_seventy_renewals_survive_a_death_at_any_point(world: PlanWorld, point: str, seed: int) -> None:
    await die_renewing(world, point, count=10, seed=seed)


# --- changes that are interrupted, lost and asked again ---------------------------------------------------------------

LOST: Final = ("timeout_before_effect", "timeout_after_effect", "500_before", "500_after_effect")


class Wanted(NamedTuple):
    """A change over the door, and what it must come to: the charge at the simulator, and the tokens."""

    serve: Callable[..., Awaitable[Answer]]
    body: dict[str, Any]
    charge: int
    tokens: int
    step: str


async def wanted(world: PlanWorld, what: str) -> tuple[int | None, Wanted]:
    """An account before a change, and the change."""
    pro = spell("p", await world.plan(PRO))
    match what:
        case "attach":
            return await world.customer(), Wanted(change_plan, {"plan_id": pro}, 4 * PRICE, 5 * INCLUDED, "start")
        case "account":
            body = {"name": "Ada", "email": "a@example.com", "token": "tok_visa", "plan_id": pro}
            return None, Wanted(open_account, body, 4 * PRICE, 5 * INCLUDED, "start")
        case "modify":
            more: dict[str, Any] = {"denomination": "tokens", "amount": 3 * INCLUDED, "usd_charge": 3 * PRICE}
            return await world.on(BASIC), Wanted(modify_mid_month, more, 2 * PRICE, 3 * INCLUDED, "modify")
        case _:
            body = {"plan_id": pro, "scheme": what}
            return await world.on(BASIC), Wanted(change_plan, body, 3 * PRICE, 5 * INCLUDED, "change")


def some(values: Sequence[str], *quick: str) -> list[Any]:
    """The values, of which only the quick ones are told in every run."""
    return [pytest.param(one, marks=[] if one in quick else pytest.mark.slow) for one in values]


CHANGES: Final = ("ariel", "snow_white", "attach", "account", "modify")


def opened(answer: Answer) -> int:
    """The id of the account that an answer shows."""
    found = read("a", str(msgspec.json.decode(answer.body)["data"]["id"]))
    assert found is not None
    return found


async def applied_once(world: PlanWorld, before: int | None, want: Wanted, key: str) -> None:
    """However it went: the same key gets the one answer, and everything was done once."""
    await world.calm()
    first = await world.ask(want.serve, before, want.body, key=key)
    assert first.status == 200, first
    async with world.worker() as other:
        again = await world.ask(want.serve, before, want.body, key=key, engine=other)
    assert (again.status, again.body, again.is_replay) == (200, first.body, True)
    account_id = opened(first) if before is None else before
    assert (await world.paid(account_id))[-1:] == [want.charge]
    assert len(await world.paid(account_id)) == (1 if want.step == "start" else 2)
    assert (await world.kinds(account_id))[want.step] == 1
    assert (await world.available(account_id), await world.available(account_id, "USD")) == (want.tokens, 0)
    assert await world.disagreements() == []


@pytest.mark.parametrize("point", [point for point in plan_points() if re.search("create|confirm|closed", point)])
@pytest.mark.parametrize("what", some(CHANGES, "ariel", "account"))
async def test_a_change_that_dies_at_any_point_is_done_once(world: PlanWorld, what: str, point: str) -> None:
    before, want = await wanted(world, what)
    async with world.worker() as doomed:
        doomed.faults = deadly(point)
        with pytest.raises(Crash):
            await world.ask(want.serve, before, want.body, key="once", engine=doomed)
    at_once = await world.ask(want.serve, before, want.body, key="once")
    assert at_once.status in {200, 202}, at_once
    world.clock.forward(seconds=LEASE_AND_A_BIT)
    await applied_once(world, before, want, "once")


@pytest.mark.parametrize("step", some(("create", "confirm"), "confirm"))
@pytest.mark.parametrize("kind", LOST)
@pytest.mark.parametrize("what", some(CHANGES, "snow_white", "account"))
async def test_a_change_whose_answer_is_lost_is_done_once(world: PlanWorld, what: str, kind: str, step: str) -> None:
    before, want = await wanted(world, what)
    world.stripe.fault(kind, route=f"payment_intents.{step}", key=world.key)
    answer = await world.ask(want.serve, before, want.body, key="once")
    assert answer.status in {200, 202}, answer
    for body in world.messages() * 2:
        await world.deliver([body])
    await applied_once(world, before, want, "once")


@pytest.mark.parametrize("terms", [FREE, BY_TOKEN], ids=["free", "by token"])
async def test_a_change_that_no_card_pays_for_and_whose_answer_is_lost_is_answered_again(
    world: PlanWorld, monkeypatch: pytest.MonkeyPatch, terms: dict[str, Any]
) -> None:
    account_id = await world.customer(None)
    await world.company.balance_opened(account_id, "credits", PRICE)
    body = {"plan_id": spell("p", await world.plan(terms))}

    async def dies(*_: object) -> object:
        raise Crash("after the change was committed")

    with monkeypatch.context() as patch:
        patch.setattr(account_plans, "shown_account", dies)
        with pytest.raises(Crash):
            await world.ask(change_plan, account_id, body, key="once")
    first = await world.ask(change_plan, account_id, body, key="once")
    again = await world.ask(change_plan, account_id, body, key="once")
    assert (first.status, again.status, again.body) == (200, 200, first.body)
    assert await world.steps(account_id) == [("start", world.clock.at)]
    assert await world.available(account_id) == INCLUDED


async def test_an_account_whose_plan_was_declined_is_gone_and_its_key_opens_another(world: PlanWorld) -> None:
    body = {"name": "Ada", "email": "a@example.com", "plan_id": spell("p", await world.plan(PRO))}
    refused = await world.ask(open_account, None, {**body, "token": "tok_chargeCustomerFail"}, key="once")
    assert b"payment_failed" in refused.body
    assert await world.company.rows("select from account") == []
    made = await world.ask(open_account, None, {**body, "token": "tok_visa"}, key="once")
    assert made.status == 200, made
    assert await world.paid(opened(made)) == [4 * PRICE]


# --- several clockworks -----------------------------------------------------------------------------------------------


async def run_together(world: PlanWorld, engines: int, count: int) -> None:
    since = world.clock.at
    whom = await world.everybody(1)
    await world.many_due(count)
    async with contextlib.AsyncExitStack() as stack:
        works = [Clockwork(await stack.enter_async_context(world.worker())) for _ in range(engines)]
        for work in works:
            work.start()

        async def is_done() -> bool:
            return not await world.unresolved()

        took = await until(is_done, f"{count} renewals")
        await asyncio.gather(*(work.stop() for work in works))
    sys.stdout.write(f"{engines} clockworks: {count} renewals in {took:.2f} s\n")
    await world.calm()
    await renewed_once(world, whom, since=since)
    rows = await world.company.rows(
        "select account_id, count(*) as steps from subscription_step where kind = 'renewal' group by account_id"
    )
    assert {row["steps"] for row in rows} == {1}
    assert len(rows) == count + 5
    (short,) = await world.company.rows(
        "select count(*) as n from balance where denomination = 'tokens' and amount not in (0, 1000, 5000)"
    )
    assert short["n"] == 0


@pytest.mark.parametrize("engines", [2, 5])
async def test_several_clockworks_renew_five_hundred_once(world: PlanWorld, engines: int) -> None:
    await run_together(world, engines, 500)


async def test_a_clockwork_that_was_off_for_three_months_renews_each_date_once(world: PlanWorld) -> None:
    began = world.clock.at
    owners = [await world.on(BASIC), await world.on(FREE, None), await world.on(YEARLY), await world.invoiced(BASIC)]
    await world.company.price("CHAT", "tokens", amount="1")
    for owner in owners:
        await world.company.send(owner, event("CHAT", "400"))
    world.clock.forward(days=40)
    for owner in owners:
        await world.company.send(owner, event("CHAT", "50"))
    world.clock.forward(days=55)
    async with world.worker() as one, world.worker() as two:
        await world.recover(one, two)
    for owner in owners:
        dates = [at for kind, at in await world.steps(owner) if kind != "start"]
        assert dates == [monthly(began, number, UTC) for number in (1, 2, 3)]
        assert await world.available(owner) == INCLUDED
    assert await world.paid(owners[0]) == [PRICE] * 4
    assert await world.disagreements() == []


# --- everything together ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
async def test_after_anything_in_any_order_the_books_agree(world: PlanWorld, seed: int) -> None:
    await storm(world, seed, 30)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 160))
async def test_after_a_long_storm_the_books_agree(world: PlanWorld, seed: int) -> None:
    await storm(world, seed, 150)


# --- races ------------------------------------------------------------------------------------------------------------


async def together(
    world: PlanWorld, *work: Callable[[Engine], Awaitable[object]], wait_seconds: float = 0
) -> list[str]:
    """Do things at the same time, each on a worker of its own, then bring all to an end; what each was answered."""
    async with contextlib.AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(world.worker()) for _ in work]
        found = await asyncio.gather(*(one(worker) for one, worker in zip(work, workers, strict=True)))
    world.clock.forward(seconds=wait_seconds)
    await world.calm()
    assert await world.disagreements() == []
    assert await world.kept_for_nothing() == []
    return [said(one) for one in found]


def said(found: object) -> str:
    """An answer in one word: ``ok``, or the code of its refusal."""
    if not isinstance(found, Answer):
        return ""
    body = msgspec.json.decode(found.body)
    return str(body["error"]["code"]) if "error" in body else "ok"


class Race(NamedTuple):
    """Both of one account: what is asked over the door, and what must be true of it."""

    world: PlanWorld
    account_id: int

    def to(self, terms: dict[str, Any], scheme: str) -> Callable[[Engine], Awaitable[Answer]]:
        body = {"plan_id": spell("p", self.world.plans[terms["name"]]), "scheme": scheme}
        return self.asked(change_plan, body)

    def asked(
        self, serve: Callable[..., Awaitable[Answer]], body: dict[str, Any] | None = None
    ) -> Callable[[Engine], Awaitable[Answer]]:
        return lambda engine: self.world.ask(serve, self.account_id, body, engine=engine)

    def sweeps(self, engine: Engine) -> Awaitable[None]:
        return spin(self.world, engine)


@pytest.fixture
async def race(world: PlanWorld) -> Race:
    """An account on Basic, whose period ends now."""
    for terms in (BASIC, PRO, FREE, YEARLY):
        await world.plan(terms)
    await world.company.price("CHAT", "tokens", amount="1")
    account_id = await world.on(BASIC)
    world.clock.forward(days=MONTH)
    return Race(world, account_id)


POINTS_IN_HAND: Final = ("payment.before_confirm", "payment.after_confirm", "plan.renewed")
BUSY: Final = {"ok", "plan_change_in_progress"}


@pytest.mark.parametrize("schemes", [("ariel", "ariel"), ("snow_white", "snow_white"), ("ariel", "snow_white")])
async def test_two_changes_at_once_are_each_done_whole_or_refused(
    world: PlanWorld, race: Race, schemes: tuple[str, str]
) -> None:
    world.clock.forward(days=-1)
    heard = await together(world, *(race.to(PRO, scheme) for scheme in schemes))
    assert set(heard) <= BUSY
    done = (await world.kinds(race.account_id))["change"]
    assert (done, len(await world.paid(race.account_id)) - 1) == (heard.count("ok"), heard.count("ok"))


@pytest.mark.parametrize("early", [-1, 0, 1])
@pytest.mark.parametrize("scheme", ["ariel", "snow_white", "sleeping_beauty"])
async def test_a_change_against_the_renewal_at_the_boundary(
    world: PlanWorld, race: Race, scheme: str, early: int
) -> None:
    end = world.clock.at
    world.clock.forward(seconds=early)
    (heard, _) = await together(world, race.to(PRO, scheme), race.sweeps, wait_seconds=2)
    assert heard in BUSY
    known = await world.subscription(race.account_id)
    assert known.status == "active"
    kinds = await world.kinds(race.account_id)
    assert kinds["renewal"] == (0 if heard == "ok" and early < 0 and scheme == "ariel" else 1)
    assert await world.disagreements() == []
    assert known.period_start is not None
    assert abs((known.period_start - end).total_seconds()) <= 1
    assert await world.available(race.account_id) in {INCLUDED, 5 * INCLUDED}


@pytest.mark.parametrize("scheme", ["ariel", "snow_white"])
async def test_a_change_asked_before_the_end_of_the_period_and_paid_after_it(
    world: PlanWorld, race: Race, scheme: str
) -> None:
    world.clock.forward(seconds=-30)
    world.stripe.fault("timeout_before_effect", route="payment_intents.confirm", key=world.key, times=3)
    assert (await race.to(PRO, scheme)(world.engine)).status == 202
    world.clock.forward(seconds=31)
    await together(world, race.sweeps, race.sweeps)
    kinds = await world.kinds(race.account_id)
    assert kinds == Counter(start=1, change=1, renewal=0 if scheme == "ariel" else 1)
    assert await world.available(race.account_id) == 5 * INCLUDED


@pytest.mark.parametrize("body", [{"at_period_end": True}, {"at_period_end": False}], ids=["at its end", "now"])
@pytest.mark.parametrize("against", ["ariel", "snow_white", "sleeping_beauty", "renewal"])
async def test_a_cancel_against_a_change_or_a_renewal(
    world: PlanWorld, race: Race, against: str, body: dict[str, Any]
) -> None:
    world.clock.forward(seconds=0 if against == "renewal" else -60)
    other = race.sweeps if against == "renewal" else race.to(PRO, against)
    heard = await together(world, race.asked(cancel_plan, body), other, wait_seconds=61)
    assert set(heard) <= BUSY | {""}
    known = await world.subscription(race.account_id)
    assert known.status in {"active", "cancelled"}
    if known.status == "cancelled":
        assert known.ended_at is not None
        assert await world.available(race.account_id) == 0


@pytest.mark.parametrize("point", some(POINTS_IN_HAND, "payment.after_confirm"))
@pytest.mark.parametrize("serve", ["pause", "cancel", "agree", "renewplan", "card", "sleeping_beauty"])
async def test_what_is_asked_while_a_renewal_is_in_hand(world: PlanWorld, race: Race, serve: str, point: str) -> None:
    verbs: dict[str, Callable[[Engine], Awaitable[Answer]]] = {
        "pause": race.asked(pause_plan),
        "cancel": race.asked(cancel_plan, {"at_period_end": False}),
        "agree": race.asked(agree_terms, {"balances": {"tokens": {"amount": 2 * INCLUDED}}}),
        "renewplan": race.asked(renew_plan),
        "card": race.asked(attach_card, {"token": "tok_mastercard"}),
        "sleeping_beauty": race.to(PRO, "sleeping_beauty"),
    }
    heard: list[str] = []

    async def meanwhile(other: World) -> None:
        heard.append(said(await verbs[serve](other.engine)))

    async with world.worker() as worker:
        worker.faults = world.at(point, meanwhile)
        await spin(world, worker)
    await world.calm()
    assert heard
    assert heard[0] in BUSY | {"plan_not_active"}
    assert await world.disagreements() == []
    assert await world.kept_for_nothing() == []
    assert len(await world.paid(race.account_id)) == 2


@pytest.mark.parametrize("serve", ["ariel", "modify"])
async def test_two_hundred_events_while_a_plan_changes_are_counted_exactly(
    world: PlanWorld, race: Race, serve: str
) -> None:
    world.clock.forward(days=-15)
    modified = {"denomination": "tokens", "amount": 3 * INCLUDED, "usd_charge": 3 * PRICE}
    verb = race.to(PRO, "ariel") if serve == "ariel" else race.asked(modify_mid_month, modified)
    gives = 5 * INCLUDED if serve == "ariel" else 3 * INCLUDED
    used: list[int] = []

    async def customer(engine: Engine, number: int) -> None:
        inside = await world.company.through(engine)
        found = await inside.send(race.account_id, event("CHAT", "7", gated=True, key=f"e{number}"))
        used.append(0 if found.refused else 7)

    async def customers(engine: Engine) -> None:
        await asyncio.gather(*(customer(engine, number) for number in range(100)))

    async def others(engine: Engine) -> None:
        await asyncio.gather(*(customer(engine, number) for number in range(100, 200)))

    heard = await together(world, customers, verb, others)
    assert heard[1] == "ok"
    (change,) = await world.company.rows(
        "select credit, charge, cancelled->>'tokens' as ended from subscription_step where account_id = $1"
        " and kind <> 'start'",
        race.account_id,
    )
    ended = int(change["ended"] or 0)
    assert await world.available(race.account_id) == INCLUDED - ended + gives - sum(used)
    assert len(used) == 200
    # What was asked for before the change found 142 events' worth; how many came by then is for the race to say.
    assert 994 <= sum(used) <= 1400
    assert change["credit"] <= PRICE * ended // INCLUDED
    assert await world.available(race.account_id, "USD") == 0


# --- a renewal that failed --------------------------------------------------------------------------------------------


async def failed_renewal(world: PlanWorld, race: Race, code: str = "lost_card") -> Payment:
    """The renewal was declined for good."""
    world.stripe.fault("decline", code=code, route="payment_intents.confirm", key=world.key)
    await spin(world, world.engine)
    found = await the_payment(world, race.account_id)
    known = await world.subscription(race.account_id)
    assert (known.status, known.payment_id) == ("past_due", found.id)
    return found


async def up_to_date(world: PlanWorld, race: Race, *, charges: int = 2) -> None:
    """The plan was renewed once after all."""
    await world.calm()
    known = await world.subscription(race.account_id)
    assert (known.status, known.payment_id, known.declines) == ("active", None, 0)
    assert await world.kinds(race.account_id) == Counter(start=1, renewal=1)
    assert await world.paid(race.account_id) == [PRICE] * charges
    assert await world.available(race.account_id) == INCLUDED
    assert await world.disagreements() == []
    assert await world.kept_for_nothing() == []


TAKEN_UP: Final = ("card", "renewplan", "retry", "all")


@pytest.mark.parametrize("code", ["lost_card", "insufficient_funds"])
@pytest.mark.parametrize("by", TAKEN_UP)
async def test_a_failed_renewal_is_taken_up_once(world: PlanWorld, race: Race, by: str, code: str) -> None:
    found = await failed_renewal(world, race, code)
    verbs: dict[str, Callable[[Engine], Awaitable[object]]] = {
        "card": race.asked(attach_card, {"token": "tok_mastercard"}),
        "renewplan": race.asked(renew_plan),
        "retry": lambda engine: world.ask(retry_payment, race.account_id, payment_id=found.id, engine=engine),
    }
    chosen = list(verbs.values()) if by == "all" else [verbs[by]]
    await together(world, *chosen, race.sweeps, race.sweeps)
    await up_to_date(world, race)


@pytest.mark.parametrize("then", ["card", "renewplan", "retry"])
@pytest.mark.parametrize("code", ["lost_card", "insufficient_funds"])
async def test_a_failed_renewal_that_is_voided_charges_nothing_until_it_is_asked_for(
    world: PlanWorld, race: Race, code: str, then: str
) -> None:
    found = await failed_renewal(world, race, code)
    assert (await world.ask(void_payment, race.account_id, payment_id=found.id)).status == 200
    world.clock.forward(days=3)
    await world.calm()
    known = await world.subscription(race.account_id)
    assert (known.status, known.payment_id, await world.paid(race.account_id)) == ("past_due", None, [PRICE])
    if then == "retry":
        assert said(await world.ask(retry_payment, race.account_id, payment_id=found.id)) == "payment_not_retryable"
        await world.calm()
        assert await world.paid(race.account_id) == [PRICE]
        return
    await together(
        world, race.asked(renew_plan) if then == "renewplan" else race.asked(attach_card, {"token": "tok_amex"})
    )
    await up_to_date(world, race)


async def test_a_failed_renewal_is_not_paid_twice_where_its_terms_changed_meanwhile(
    world: PlanWorld, race: Race
) -> None:
    found = await failed_renewal(world, race)
    agreed = await world.ask(agree_terms, race.account_id, {"balances": {"tokens": {"amount": 2 * INCLUDED}}})
    assert agreed.status == 200, agreed
    await world.ask(retry_payment, race.account_id, payment_id=found.id)
    await world.calm()
    await world.ask(renew_plan, race.account_id)
    await world.calm()
    assert await world.paid(race.account_id) == [PRICE] * 2
    assert await world.available(race.account_id) == 2 * INCLUDED
    assert await world.kept_for_nothing() == []


async def test_a_plan_past_due_that_is_to_end_with_its_period_ends(world: PlanWorld, race: Race) -> None:
    await failed_renewal(world, race)
    assert said(await world.ask(cancel_plan, race.account_id, {"at_period_end": True})) == "ok"
    await world.calm()
    known = await world.subscription(race.account_id)
    assert (known.status, await world.paid(race.account_id)) == ("cancelled", [PRICE])


async def test_a_declined_renewal_is_asked_three_times_and_not_more(world: PlanWorld, race: Race) -> None:
    await world.give_card(race.account_id, "pm_card_chargeCustomerFail")
    await spin(world, world.engine)
    await world.give_card(race.account_id, "pm_card_chargeCustomerFail")
    for hours in (0, 1, 24, 1, 24, 24 * 30):
        world.clock.forward(hours=hours)
        await spin(world, world.engine)
    found = await the_payment(world, race.account_id)
    assert (found.status, charges(world)["failed"]) == ("failed", 3)
    assert await world.unresolved() == []


async def test_renewplan_asks_the_card_at_once_where_the_renewal_waits_after_a_decline(
    world: PlanWorld, race: Race
) -> None:
    await failed_renewal(world, race, "insufficient_funds")
    assert said(await world.ask(renew_plan, race.account_id)) == "ok"
    await spin(world, world.engine)
    assert await world.paid(race.account_id) == [PRICE] * 2
    await up_to_date(world, race)


@pytest.mark.parametrize("process", [True, False], ids=["process", "void"])
async def test_a_renewal_while_captures_are_suspended(world: PlanWorld, race: Race, *, process: bool) -> None:
    async with world.engine.database.writing() as unit:
        await payments.suspend_capture(world.engine, unit, world.environment, race.account_id)
    await world.calm()
    found = await the_payment(world, race.account_id)
    assert (found.status, await world.paid(race.account_id)) == ("skipped", [PRICE])
    body = {"skipped": "process" if process else "void"}
    await together(world, race.asked(resume_capture, body), race.sweeps)
    if not process:
        known = await world.subscription(race.account_id)
        assert (known.status, await world.paid(race.account_id)) == ("past_due", [PRICE])
        await together(world, race.asked(renew_plan))
    await up_to_date(world, race)


@pytest.mark.parametrize("failed", ["declined", "in doubt"])
async def test_a_late_success_that_only_a_message_tells_renews_once(world: PlanWorld, race: Race, failed: str) -> None:
    if failed == "declined":
        await world.pay_in_browser(await failed_renewal(world, race))
    else:
        world.stripe.fault("timeout_after_effect", route="payment_intents.confirm", key=world.key)
        await spin(world, world.engine)
    await world.deliver(list(reversed(world.messages())) * 2)
    await up_to_date(world, race)


async def test_a_late_success_of_a_renewal_that_was_given_up_stays_on_the_balance(world: PlanWorld, race: Race) -> None:
    found = await failed_renewal(world, race)
    assert said(await race.to(FREE, "ariel")(world.engine)) == "ok"
    assert (await world.payment(found)).status == "voided"
    await world.pay_in_browser(found)
    await world.deliver(world.messages() * 2)
    await world.calm()
    assert (await world.payment(found)).status == "succeeded"
    assert await world.disagreements() == []
    assert await world.available(race.account_id, "USD") == PRICE


@pytest.mark.parametrize("between", ["sleeping_beauty", "pause", "agree", "cancel"])
async def test_what_is_asked_while_a_renewal_was_skipped_lets_it_be_paid_later(
    world: PlanWorld, race: Race, between: str
) -> None:
    async with world.engine.database.writing() as unit:
        await payments.suspend_capture(world.engine, unit, world.environment, race.account_id)
    await world.calm()
    verbs = {
        "sleeping_beauty": race.to(PRO, "sleeping_beauty"),
        "pause": race.asked(pause_plan),
        "agree": race.asked(agree_terms, {"balances": {"tokens": {"amount": 2 * INCLUDED}}}),
        "cancel": race.asked(cancel_plan, {"at_period_end": True}),
    }
    assert said(await verbs[between](world.engine)) == "ok"
    await world.calm()
    if between == "pause":
        assert said(await world.ask(resume_plan, race.account_id)) == "ok"
        await world.calm()
    assert said(await world.ask(resume_capture, race.account_id, {"skipped": "process"})) == "ok"
    await world.calm()
    known = await world.subscription(race.account_id)
    expected = {"sleeping_beauty": ([4 * PRICE], 5 * INCLUDED), "agree": ([PRICE], 2 * INCLUDED), "cancel": ([], 0)}
    paid, units = expected.get(between, ([PRICE], INCLUDED))
    assert known.status == ("cancelled" if between == "cancel" else "active")
    assert (await world.paid(race.account_id), await world.available(race.account_id)) == ([PRICE, *paid], units)
    assert await world.kept_for_nothing() == []


@pytest.mark.parametrize("setting", ["pause", "cancel"])
async def test_a_renewal_that_failed_for_good_does_what_the_company_chose(
    world: PlanWorld, race: Race, setting: str
) -> None:
    await world.company.set_up(money={"plans": {"failed_renewal": setting}})
    world.stripe.fault("decline", code="lost_card", route="payment_intents.confirm", key=world.key)
    await spin(world, world.engine)
    asked = "select paused_at is not null from account where id = $1"
    assert (await world.company.rows(asked, race.account_id))[0][0] is (setting == "pause")
    await together(world, race.asked(attach_card, {"token": "tok_mastercard"}), race.sweeps)
    known = await world.subscription(race.account_id)
    if setting == "pause":
        await up_to_date(world, race)
        assert not (await world.company.rows(asked, race.account_id))[0][0]
    else:
        assert (known.status, await world.paid(race.account_id)) == ("cancelled", [PRICE])


@pytest.mark.parametrize("by", ["change", "balance"])
async def test_an_account_that_its_plan_paused_goes_on_however_the_plan_does(
    world: PlanWorld, race: Race, by: str
) -> None:
    await world.company.set_up(money={"plans": {"failed_renewal": "pause"}})
    await failed_renewal(world, race)
    if by == "balance":
        await world.company.adjust(race.account_id, "USD", PRICE)
        await world.meanwhile(lambda other: remove_cards(other, race.account_id))
        assert said(await world.ask(renew_plan, race.account_id)) == "ok"
    else:
        assert said(await race.to(FREE, "ariel")(world.engine)) == "ok"
    await world.calm()
    asked = "select paused_at, paused_by from account where id = $1"
    assert (await world.subscription(race.account_id)).status == "active"
    assert tuple((await world.company.rows(asked, race.account_id))[0]) == (None, None)


async def remove_cards(world: World, account_id: int) -> None:
    async with world.engine.database.writing() as unit:
        for card in await list_cards(unit, account_id):
            await cards.remove_card(world.engine, unit, world.environment, account_id, card.id)


@pytest.mark.parametrize("point", [point for point in plan_points() if re.search("create|confirm|closed|plan", point)])
async def test_a_plan_that_waits_for_a_card_begins_once_when_it_is_given(world: PlanWorld, point: str) -> None:
    body = {"name": "Ada", "email": "a@example.com", "plan_id": spell("p", await world.plan(PRO))}
    account_id = opened(await world.ask(open_account, None, {**body, "enable_card_collector": 1}))
    assert said(await world.ask(attach_card, account_id, {"token": "tok_chargeCustomerFail"})) == "ok"
    await world.calm()
    assert (await world.subscription(account_id)).status == "pending_card"
    await world.ask(attach_card, account_id, {"token": "tok_visa"})
    async with world.worker() as doomed:
        await world.dying(doomed, point)
    assert world.reached[point]
    await world.calm()
    assert (await world.subscription(account_id)).status == "active"
    assert (await world.paid(account_id), await world.available(account_id)) == ([4 * PRICE], 5 * INCLUDED)
    assert await world.kinds(account_id) == Counter(start=1)
    assert await world.disagreements() == []


@pytest.mark.parametrize("meanwhile", ["deposit", "refill", "invoicing", "price"])
async def test_an_account_that_was_used_before_its_plan_was_declined_stays(world: PlanWorld, meanwhile: str) -> None:
    body = {"name": "Ada", "email": "a@example.com", "plan_id": spell("p", await world.plan(PRO)), "token": "tok_visa"}
    world.stripe.fault("timeout_before_effect", route="payment_intents.confirm", key=world.key, times=2)
    account_id = opened(await world.ask(open_account, None, body))
    match meanwhile:
        case "deposit":
            await world.deposit(account_id)
        case "refill":
            await world.refill_below(account_id)
        case "invoicing":
            async with world.engine.database.writing() as unit:
                await set_terms(world.engine, unit, world.environment, account_id, TermsWanted("USD"))
        case _:
            price = {"type": "CHAT", "denomination": "tokens", "amount": "2"}
            assert (await world.ask(agree_event_price, account_id, price)).status == 200
    world.stripe.fault("decline", code="lost_card", route="payment_intents.confirm", key=world.key, times=9)
    for _ in range(3):
        world.clock.forward(seconds=LEASE_AND_A_BIT)
        await spin(world, world.engine)
    await world.calm()
    assert [one.status for one in await world.payments("plan_start")] == ["failed"]
    assert len(await world.company.rows("select from account where id = $1", account_id)) == 1
    assert await world.disagreements() == []


@pytest.mark.slow
async def test_an_account_that_somebody_holds_keeps_no_other_from_its_renewal(world: PlanWorld, race: Race) -> None:
    world.clock.forward(days=-MONTH)
    held = await world.on(FREE, None)
    world.clock.forward(days=MONTH)
    connection = await asyncpg.connect(world.engine.database.dsn)
    try:
        async with connection.transaction():
            await connection.execute("select from account where id = $1 for update", held)
            async with world.worker() as worker:
                assert await renew_due(worker, now=worker.now(), limit=500) == 1
    finally:
        await connection.close()
    await world.calm()
    assert [await world.kinds(one) for one in (held, race.account_id)] == [Counter(start=1, renewal=1)] * 2


# --- a server that is killed ------------------------------------------------------------------------------------------


async def test_killed_workers_renew_each_account_once(new_database: Callable[[str], str], tmp_path: Path) -> None:
    await kill_while_renewing(new_database("plan_kills"), tmp_path, price=0, count=30, kills=2)


@pytest.mark.slow
async def test_killed_workers_renew_two_hundred_accounts_once(
    new_database: Callable[[str], str], tmp_path: Path
) -> None:
    await kill_while_renewing(new_database("plan_kills"), tmp_path, price=PRICE, count=200, kills=8)
