"""What happened is told: each fact of a payment, refund, refill, invoice or plan once, where it happened.

A company with a made-up clock, its customers charged by the Stripe simulator; what a webhook hears is read in the
database, where it is written in the unit of its cause. Whatever is told has exactly the fields of its topic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any, Final, NamedTuple

import msgspec
import pytest

from tenuto.core.identifiers import spell, spell_of_account
from tenuto.core.payment import Payment
from tenuto.core.period import moment_text
from tenuto.core.topic import OF_BALANCES, TOPICS
from tenuto.service import invoicing, payments, refills, subscriptions
from tenuto.service.invoicing import TermsWanted
from tenuto.service.subscriptions import PlanAsk
from tenuto.store import invoices as invoice_shelf
from tenuto.store import payments as payment_shelf
from tenuto.store import refills as refill_shelf
from tenuto.store import subscriptions as plan_shelf
from tenuto.store.database import migrate
from tests.conftest import MadeUpClock
from tests.inside import event
from tests.simulated import Simulated
from tests.store.plan_world import BASIC, BY_TOKEN, FREE, INCLUDED, MONTH, PRICE, PRO, YEARLY, PlanWorld
from tests.store.refill_world import COSTS, GIVES, LEASE_AND_A_BIT, Crash, emptied

REFUSING: Final = "pm_card_chargeCustomerFail"
LADDER: Final = [{"days": 1, "action": "remind"}, {"days": 3, "action": "remind"}]
SWEEPS: Final = (
    *(invoicing.cut_invoices, invoicing.finalize_invoices, invoicing.collect_invoices, invoicing.dun_invoices),
)


class Fact(NamedTuple):
    """One notification."""

    topic: str
    account_id: int
    denomination: str | None
    data: dict[str, Any]


class Ear:
    """A webhook of the company's, and what it has heard."""

    def __init__(self, world: PlanWorld) -> None:
        self.world = world
        self.last = 0

    async def hear(self, *topics: str, account_id: int | None = None, denomination: str | None = None) -> None:
        """Subscribe to topics, of everything or of one account or balance."""
        environment_id, now = self.world.environment.id, self.world.clock.now()
        async with self.world.engine.database.writing() as unit:
            await unit.execute(
                "insert into webhook (environment_id, id, secret, description, in_flight, merges, created_at)"
                " values ($1, 1, '', '', 1, false, $2) on conflict do nothing",
                environment_id,
                now,
            )
            for topic in topics:
                await unit.execute(
                    "insert into webhook_topic (environment_id, id, webhook_id, topic, account_id, denomination,"
                    " created_at) select $1, count(*), 1, $2, $3, $4, $5 from webhook_topic",
                    environment_id,
                    topic,
                    account_id,
                    denomination,
                    now,
                )

    async def heard(self, *topics: str) -> list[Fact]:
        """What is new since it was last asked, in order; of some topics, or of all but those of balances."""
        rows = await self.world.company.rows(
            "select id, topic, account_id, denomination, data from notification"
            " where id > $1 and topic <> all($2) order by id",
            self.last,
            list(OF_BALANCES),
        )
        self.last = max([self.last, *(row["id"] for row in rows)])
        found = [
            Fact(row["topic"], row["account_id"], row["denomination"], msgspec.json.decode(row["data"])) for row in rows
        ]
        for fact in found:
            assert set(fact.data) == set(TOPICS[fact.topic].fields), fact
        return [fact for fact in found if not topics or fact.topic in topics]

    async def topics(self) -> list[str]:
        """The topics of what is new, in order."""
        return [fact.topic for fact in await self.heard()]


@pytest.fixture(scope="module")
async def database(new_database: Callable[[str], str]) -> str:
    dsn = new_database("facts")
    await migrate(dsn)
    return dsn


@pytest.fixture
async def world(database: str, clock: MadeUpClock, stripe: Simulated) -> AsyncIterator[PlanWorld]:
    await emptied(database)
    found = await PlanWorld.made(database, clock, stripe)
    try:
        yield found
    finally:
        stripe.heal()
        await found.engine.close()


@pytest.fixture
async def ear(world: PlanWorld) -> Ear:
    """A webhook that hears everything."""
    found = Ear(world)
    await found.hear("*")
    return found


def pay(payment: Payment) -> str:
    return spell_of_account("pay", payment.account_id, payment.id)


async def same_again(world: PlanWorld) -> None:
    """Save every payment, refund, invoice, refill and plan of the company once more, as it is."""
    now, rows = world.engine.now_of(world.environment), world.company.rows
    owned = await rows("select account_id, denomination from refill")
    on_plans = await rows("select account_id from subscription")
    invoiced = await rows("select account_id, id from invoice")
    async with world.engine.database.writing() as unit:
        for payment in await world.payments():
            await payment_shelf.update_payment(unit, payment, now)
        for refund in await world.refunds():
            await payment_shelf.update_refund(unit, refund)
        for account_id, denomination in owned:
            refill = await refill_shelf.read_refill(unit, account_id, denomination)
            assert refill is not None
            await refill_shelf.put_refill(unit, refill, now)
        for account_id, id in invoiced:
            invoice = await invoice_shelf.read_invoice(unit, world.environment.id, account_id, id)
            assert invoice is not None
            await invoice_shelf.update_invoice(unit, invoice, now)
        found = await plan_shelf.read_subscriptions(unit, [row["account_id"] for row in on_plans])
        await plan_shelf.put_subscriptions(unit, list(found.values()), now)


async def swept(world: PlanWorld) -> None:
    """What the clockwork does at this moment."""
    for sweep in SWEEPS:
        await sweep(world.engine, now=world.engine.now(), limit=100, environment_id=world.environment.id)
    await world.sweep()


# --- payments ---------------------------------------------------------------------------------------------------------


async def test_money_that_comes_in_is_told_once(world: PlanWorld, ear: Ear) -> None:
    account_id = await world.customer()
    begun = await world.deposit(account_id)
    assert await ear.topics() == []
    await world.drive(begun)

    (fact,) = await ear.heard()
    assert fact == (
        "payment.succeeded",
        account_id,
        "tokens",
        {
            "payment_id": pay(begun),
            "reason": "deposit",
            "status": "succeeded",
            "method": "card",
            "amount": COSTS,
            "currency": "USD",
            "denomination": "tokens",
            "units": GIVES,
            "code": None,
            "message": None,
        },
    )
    await world.deliver(world.messages())
    await world.sweep()
    await same_again(world)
    assert await ear.topics() == []


async def test_every_decline_is_told_and_the_refill_that_it_ends(world: PlanWorld, ear: Ear) -> None:
    account_id = await world.customer(REFUSING)
    await world.refill_below(account_id)
    told: list[Fact] = []
    for wait in (timedelta(hours=1), timedelta(hours=24), None):
        await world.sweep()
        (fact,) = await ear.heard("payment.failed")
        told.append(fact)
        due = None if wait is None else moment_text(world.clock.now() + wait)
        assert fact.data["next_attempt_at"] == due
        await same_again(world)
        world.clock.at += wait or timedelta()

    (payment,) = await world.payments()
    assert [fact.data["status"] for fact in told] == ["pending", "pending", "failed"]
    assert {fact.data["payment_id"] for fact in told} == {pay(payment)}
    assert {(fact.data["code"], fact.denomination) for fact in told} == {("generic_decline", "tokens")}
    assert await ear.topics() == []
    rows = await world.company.rows("select data from notification where topic = 'refill.parked'")
    assert [msgspec.json.decode(row["data"]) for row in rows] == [
        {
            "denomination": "tokens",
            "code": "generic_decline",
            "payment_id": pay(payment),
            "units": GIVES,
            "amount": COSTS,
            "currency": "USD",
        }
    ]


async def test_a_payment_that_is_tried_again_by_hand_tells_its_next_refusal(world: PlanWorld, ear: Ear) -> None:
    account_id = await world.customer(REFUSING)
    failed = await world.drive(await world.deposit(account_id))
    assert failed.status == "failed"
    assert await ear.topics() == ["payment.failed"]
    again = await world.by_hand(payments.retry_payment, failed)
    assert await ear.topics() == []
    await world.drive(again)
    assert await ear.topics() == ["payment.failed"]


async def test_refills_tell_what_they_filled(world: PlanWorld, ear: Ear) -> None:
    account_id = await world.customer()
    first = await world.refill_monthly(account_id)
    facts = await ear.heard()
    assert [fact.topic for fact in facts] == ["payment.succeeded", "auto_refill"]
    assert facts[1].denomination == "minutes"
    assert facts[1].data == {
        "denomination": "minutes",
        "units": GIVES,
        "amount": COSTS,
        "currency": "USD",
        "reason": "refill_start",
        "payment_id": pay(first),
        "step_id": None,
    }
    world.clock.forward(days=MONTH)
    await world.refill_below(account_id)
    await world.sweep()
    filled = [fact.data["reason"] for fact in await ear.heard("auto_refill")]
    assert sorted(filled) == ["refill", "threshold_refill"]
    await same_again(world)
    assert await ear.topics() == []


async def test_a_refill_from_another_balance_is_told_and_where_it_parks(world: PlanWorld, ear: Ear) -> None:
    account_id = await world.company.account(credits=COSTS)
    changes = {
        "amount": GIVES,
        "charge_amount": COSTS,
        "charge_denomination": "credits",
        "source": "balance",
        "threshold": 100,
    }
    async with world.engine.database.writing() as unit:
        await refills.set_refill(world.engine, unit, world.environment, account_id, "tokens", changes)
    await world.sweep()
    paid, filled = await ear.heard("payment.succeeded", "auto_refill")
    assert (paid.data["method"], paid.data["currency"], paid.data["amount"]) == ("balance", "credits", COSTS)
    assert (filled.data["units"], filled.data["payment_id"]) == (GIVES, paid.data["payment_id"])

    await world.company.adjust(account_id, "tokens", -GIVES)
    for hours in (0, 1, 24):
        world.clock.forward(hours=hours)
        await world.sweep()
    (parked,) = await ear.heard()
    assert (parked.topic, parked.data["code"], parked.data["payment_id"]) == (
        "refill.parked",
        "insufficient_balance",
        None,
    )


async def test_what_goes_back_is_told_with_the_sum(world: PlanWorld, ear: Ear) -> None:
    payment = await world.drive(await world.deposit(await world.customer()))
    await ear.heard()
    first = await world.refund(payment, 200)
    assert await ear.topics() == []
    await world.drive_refund(first)
    assert payment.intent_id is not None
    world.stripe.dispute(world.key, payment.intent_id)
    await world.deliver(world.messages())
    await world.deliver(world.messages())
    await same_again(world)

    refunded, disputed = await ear.heard()
    assert refunded.topic == "payment.refunded"
    assert refunded.data["refund_id"] == spell_of_account("re", first.account_id, first.id)
    assert [refunded.data[name] for name in ("refund_amount", "refunded", "status")] == [200, 200, "succeeded"]
    assert refunded.data["refund_units"] == GIVES * 200 // COSTS
    assert disputed.topic == "payment.disputed"
    assert [disputed.data[name] for name in ("refund_amount", "refunded", "status")] == [
        COSTS - 200,
        COSTS,
        "refunded",
    ]


# --- invoices ---------------------------------------------------------------------------------------------------------


async def invoiced(world: PlanWorld, used: int, *, terms_days: int = 1, held: int = 0) -> tuple[int, int]:
    """An account with a final invoice for what it used: their ids."""
    company = world.company
    account_id = await company.account(USD=held)
    async with world.engine.database.writing() as unit:
        wanted = TermsWanted("USD", terms_days=terms_days)
        await invoicing.set_terms(world.engine, unit, world.environment, account_id, wanted)
    await company.send(account_id, event("chat", override=(used, "USD")))
    async with world.engine.database.writing() as unit:
        draft = await invoicing.cut_invoice(world.engine, unit, world.environment, account_id, currency="USD")
    async with world.engine.database.writing() as unit:
        await invoicing.finalize_invoice(world.engine, unit, world.environment, account_id, draft.invoice.id)
    return account_id, draft.invoice.id


async def test_an_invoice_tells_of_its_life(world: PlanWorld, ear: Ear) -> None:
    await world.company.set_up(money={"invoicing": {"dunning": LADDER}})
    account_id, invoice_id = await invoiced(world, 300)
    (final,) = await ear.heard()
    due_at = world.clock.now() + timedelta(days=1)
    assert final == (
        "invoice.finalized",
        account_id,
        "USD",
        {
            "invoice_id": spell_of_account("inv", account_id, invoice_id),
            "number": "INV-000001",
            "status": "open",
            "currency": "USD",
            "total": 300,
            "amount_due": 300,
            "amount_remaining": 300,
            "due_at": moment_text(due_at),
        },
    )
    for days, step in ((2, 1), (2, 2), (2, None)):
        world.clock.forward(days=days)
        await swept(world)
        await same_again(world)
        assert [(fact.topic, fact.data["dunning_step"]) for fact in await ear.heard()] == (
            [] if step is None else [("invoice.past_due", step)]
        )
    async with world.engine.database.writing() as unit:
        await invoicing.mark_paid(world.engine, unit, world.environment, account_id, invoice_id, reference="transfer")
    money, paid = await ear.heard()
    assert (money.topic, money.data["method"], money.data["reason"]) == ("payment.succeeded", "out_of_band", "invoice")
    assert (paid.topic, paid.data["status"], paid.data["amount_remaining"]) == ("invoice.paid", "paid", 0)
    await same_again(world)
    assert await ear.topics() == []


async def test_an_invoice_that_the_balance_covers_is_final_and_paid_at_once(world: PlanWorld, ear: Ear) -> None:
    await invoiced(world, 300, held=500)
    facts = await ear.heard()
    assert [fact.topic for fact in facts] == ["invoice.finalized", "invoice.paid"]
    assert {(fact.data["status"], fact.data["amount_due"]) for fact in facts} == {("paid", 0)}


async def test_an_invoice_that_is_taken_back_is_told(world: PlanWorld, ear: Ear) -> None:
    account_id, invoice_id = await invoiced(world, 300)
    async with world.engine.database.writing() as unit:
        await invoicing.void_invoice(world.engine, unit, world.environment, account_id, invoice_id)
    facts = await ear.heard()
    assert [fact.topic for fact in facts] == ["invoice.finalized", "invoice.voided"]
    assert facts[1].data["status"] == "void"


async def test_a_deposit_tells_of_every_invoice_that_it_pays(world: PlanWorld, ear: Ear) -> None:
    account_id, _ = await invoiced(world, 300)
    await world.company.send(account_id, event("chat", override=(400, "USD")))
    async with world.engine.database.writing() as unit:
        draft = await invoicing.cut_invoice(world.engine, unit, world.environment, account_id, currency="USD")
    async with world.engine.database.writing() as unit:
        await invoicing.finalize_invoice(world.engine, unit, world.environment, account_id, draft.invoice.id)
    await world.give_card(account_id, "pm_card_visa")
    await ear.heard()
    await world.drive(await world.deposit(account_id, "USD"))
    assert Counter(await ear.topics()) == {"invoice.paid": 2, "payment.succeeded": 1}


# --- plans ------------------------------------------------------------------------------------------------------------


async def test_a_plan_tells_of_its_beginning_its_renewals_and_its_end(world: PlanWorld, ear: Ear) -> None:
    account_id = await world.on(BASIC)
    started, paid = await ear.heard()
    known = await world.subscription(account_id)
    assert paid.topic == "payment.succeeded"
    assert started[:3] == ("plan.started", account_id, "USD")
    (payment,) = await world.payments()
    step = await world.company.rows("select id from subscription_step where account_id = $1", account_id)
    assert started.data == {
        "plan_id": spell("p", await world.plan(BASIC)),
        "version": 1,
        "status": "active",
        "step_id": spell_of_account("ps", account_id, step[0]["id"]),
        "payment_id": pay(payment),
        "cadence": "MONTHLY",
        "scheme": None,
        "charge": PRICE,
        "credit": 0,
        "denomination": "USD",
        "period_start": moment_text(known.period_start),  # type: ignore[arg-type] # it is active
        "period_end": moment_text(known.period_end),  # type: ignore[arg-type]
    }

    world.clock.forward(days=MONTH)
    await world.sweep()
    renewed, filled, paid = await ear.heard()
    assert (renewed.topic, filled.topic, paid.topic) == ("plan.renewed", "auto_refill", "payment.succeeded")
    assert renewed.data["period_start"] == started.data["period_end"]
    assert filled.denomination == "tokens"
    assert filled.data == {
        "denomination": "tokens",
        "units": INCLUDED,
        "amount": PRICE,
        "currency": "USD",
        "reason": "plan_renewal",
        "payment_id": paid.data["payment_id"],
        "step_id": renewed.data["step_id"],
    }

    await world.verb(subscriptions.cancelling(at_end=True, prorates=False), account_id)
    await same_again(world)
    assert await ear.topics() == []
    world.clock.forward(days=MONTH)
    await world.sweep()
    await same_again(world)
    (ended,) = await ear.heard()
    assert (ended.topic, ended.data["status"]) == ("plan.cancelled", "cancelled")
    await world.step(account_id, PlanAsk(await world.plan(BASIC)))
    assert "plan.started" in await ear.topics()


async def test_a_change_is_told_when_it_holds(world: PlanWorld, ear: Ear) -> None:
    account_id = await world.on(BASIC)
    basic, pro = await world.plan(BASIC), await world.plan(PRO)
    await ear.heard()
    await world.step(account_id, PlanAsk(pro, scheme="sleeping_beauty"))
    assert await ear.topics() == []
    world.clock.forward(days=MONTH)
    await world.sweep()
    renewed, changed, _, _ = await ear.heard()
    assert (renewed.topic, changed.topic) == ("plan.renewed", "plan.changed")
    for fact in (renewed, changed):
        assert (fact.data["plan_id"], fact.data["charge"]) == (spell("p", pro), 4 * PRICE)
    assert (changed.data["previous_plan_id"], changed.data["previous_version"]) == (spell("p", basic), 1)

    await world.step(account_id, PlanAsk(basic, scheme="ariel"))
    facts = await ear.heard("plan.changed", "plan.renewed", "auto_refill")
    assert [(fact.topic, fact.data["scheme"]) for fact in facts] == [("plan.changed", "ariel")]
    assert facts[0].data["credit"] == 4 * PRICE
    assert facts[0].data["previous_plan_id"] == spell("p", pro)

    async with world.engine.database.writing() as unit:
        agreed = {"balances": {"tokens": {"amount": 5}}}
        await subscriptions.agree_terms(world.engine, unit, world.environment, account_id, agreed)
    (changed,) = await ear.heard("plan.changed")
    assert (changed.data["step_id"], changed.data["charge"], changed.data["denomination"]) == (None, None, "USD")
    await world.verb(subscriptions.PAUSING, account_id)
    await world.verb(subscriptions.RESUMING, account_id)
    await same_again(world)
    assert await ear.topics() == []


async def test_a_renewal_that_is_refused_is_past_due_once(world: PlanWorld, ear: Ear) -> None:
    account_id = await world.on(BASIC)
    await world.give_card(account_id, REFUSING)
    await ear.heard()
    world.clock.forward(days=MONTH)
    await world.sweep()
    past_due, failed = await ear.heard()
    assert (past_due.topic, failed.topic) == ("plan.past_due", "payment.failed")
    assert past_due.data["payment_id"] == failed.data["payment_id"]
    assert (past_due.data["status"], past_due.data["denomination"], past_due.denomination) == ("past_due", "USD", "USD")
    world.clock.forward(hours=1)
    await world.sweep()
    assert await ear.topics() == ["payment.failed"]
    await world.give_card(account_id, "pm_card_visa")
    world.clock.forward(days=1)
    await world.sweep()
    assert await ear.topics() == ["plan.renewed", "auto_refill", "payment.succeeded"]
    await same_again(world)
    assert await ear.topics() == []


async def test_a_run_of_renewals_tells_of_each_account(world: PlanWorld, ear: Ear) -> None:
    free = [await world.on(FREE, None) for _ in range(3)]
    by_token = [await world.on(BY_TOKEN, None, credits=5 * PRICE) for _ in range(2)]
    yearly = await world.on(YEARLY)
    await ear.heard()
    world.clock.forward(days=MONTH)
    await world.sweep()
    facts = await ear.heard()
    renewed = {fact.account_id: fact for fact in facts if fact.topic == "plan.renewed"}
    assert set(renewed) == {*free, *by_token}
    filled = {fact.account_id: fact.data for fact in facts if fact.topic == "auto_refill"}
    assert len(facts) == len(renewed) + len(filled)
    for account_id in by_token:
        assert (renewed[account_id].denomination, renewed[account_id].data["charge"]) == ("credits", PRICE)
        assert (filled[account_id]["amount"], filled[account_id]["currency"]) == (PRICE, "credits")
    assert (filled[yearly]["reason"], filled[yearly]["units"], filled[yearly]["amount"]) == ("plan_refill", INCLUDED, 0)


# --- who hears, and what survives -------------------------------------------------------------------------------------


async def everything(world: PlanWorld) -> None:
    """A life with a plan, a refill and an invoice."""
    account_id = await world.on(BASIC)
    await world.refill_below(account_id, "minutes")
    await invoiced(world, 300)
    world.clock.forward(days=MONTH)
    await swept(world)


async def test_what_nobody_hears_is_not_written(world: PlanWorld) -> None:
    ear = Ear(world)
    await everything(world)
    await ear.hear("plan.cancelled", "payment.refunded")
    await everything(world)
    assert await world.company.rows("select from notification") == []


async def test_one_account_or_one_denomination_may_be_heard(world: PlanWorld) -> None:
    ear = Ear(world)
    watched, other = await world.customer(), await world.customer()
    await ear.hear("payment.succeeded", account_id=watched)
    await ear.hear("auto_refill", denomination="minutes")
    for account_id in (watched, other):
        await world.refill_monthly(account_id)
        await world.drive(await world.deposit(account_id))
    facts = await ear.heard()
    assert Counter((fact.topic, fact.account_id) for fact in facts) == {
        ("payment.succeeded", watched): 2,
        ("auto_refill", watched): 1,
        ("auto_refill", other): 1,
    }


@pytest.mark.parametrize("point", ["payment.after_create", "payment.after_confirm", "payment.closed", "plan.renewed"])
async def test_a_worker_that_dies_leaves_it_told_once(world: PlanWorld, ear: Ear, point: str) -> None:
    account_id, free = await world.on(BASIC), await world.on(FREE, None)
    await ear.heard()
    world.clock.forward(days=MONTH)
    async with world.worker() as doomed:
        await world.dying(doomed, point)
    assert world.reached[point]
    world.clock.forward(seconds=LEASE_AND_A_BIT)
    async with world.worker() as fresh:
        await world.recover(fresh)
    facts = await ear.heard()
    assert Counter((fact.topic, fact.account_id) for fact in facts) == {
        ("plan.renewed", account_id): 1,
        ("auto_refill", account_id): 1,
        ("payment.succeeded", account_id): 1,
        ("plan.renewed", free): 1,
        ("auto_refill", free): 1,
    }


async def test_a_unit_that_fails_tells_nothing(world: PlanWorld, ear: Ear) -> None:
    account_id, invoice_id = await invoiced(world, 300)
    await ear.heard()

    async def die() -> None:
        async with world.engine.database.writing() as unit:
            await invoicing.void_invoice(world.engine, unit, world.environment, account_id, invoice_id)
            raise Crash

    with pytest.raises(Crash):
        await die()
    assert await ear.topics() == []
