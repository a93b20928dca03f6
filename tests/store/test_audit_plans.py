"""The audit of plans: clean after everything that plans do has happened, and naming the very row that is wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any, Final

import asyncpg
import pytest

from tenuto.api import account_plans
from tenuto.api.routes import Call
from tenuto.core.identifiers import spell
from tenuto.core.refill import Refill
from tenuto.engine import Answer
from tenuto.service import grants as giving
from tenuto.service import plans, subscriptions, webhooks
from tenuto.service import refills as refilling
from tenuto.service.grants import GrantAsk
from tenuto.service.webhooks import TopicAsk
from tenuto.store import audit
from tenuto.store.database import migrate
from tests.conftest import MadeUpClock
from tests.inside import event
from tests.simulated import Simulated
from tests.store.plan_world import BASIC, BY_TOKEN, FREE, PRICE, PRO, YEARLY, PlanWorld
from tests.store.test_audit import PLAN_CHECKS, Wrong, expect_clean, expect_named, torn_open
from tests.store.test_audit_money import dropped, first, moved

RICH: Final[dict[str, Any]] = {
    "name": "Rich",
    "renewal_denomination": "USD",
    "renewals": {"MONTHLY": {"amount": 2 * PRICE}},
    "trial_days": 14,
    "setup_fee": 700,
    "minimum_spend": 9_000,
    "balances": {
        "tokens": {"amount": 100, "rollover": True},
        "seats": {"variable_amount_cost": 300},
        "calls": {"amount": 10, "auto_refill_amount": 50, "auto_refill_threshold": 5, "auto_refill_charge_amount": 90},
    },
}
DINARS: Final[dict[str, Any]] = {
    "name": "Dinars",
    "renewal_denomination": "KWD",
    "renewals": {"MONTHLY": {"amount": 5_120}, "ONE_OFF": {"amount": 9_000}},
    "balances": {"tokens": {"amount": 10}},
}


class Plans(PlanWorld):
    """A company in whose books everything stands that a plan may do."""

    async def asked(self, serve: Callable[[Call], Awaitable[Answer]], account_id: int, **body: object) -> None:
        answer = await self.ask(serve, account_id, body or None, key=f"{serve.__name__} {self.clock.at} {account_id}")
        assert answer.status == 200, answer

    async def change(self, account_id: int, terms: dict[str, Any], scheme: str, **more: object) -> None:
        plan_id = spell("p", await self.plan(terms))
        await self.asked(account_plans.change_plan, account_id, plan_id=plan_id, scheme=scheme, **more)
        self.clock.forward(seconds=1)

    async def use(self, account_id: int, units: int) -> None:
        await self.company.send(account_id, event("CHAT", str(units)))

    async def passed(self, days: float) -> None:
        """So many days, every sweep at its time."""
        until = self.clock.at + timedelta(days=days)
        while self.clock.at < until:
            self.clock.at = min(until, self.clock.at + timedelta(hours=6))
            for _ in range(5):
                if not await self.passes(self.engine):
                    break

    async def give(self, account_id: int, units: int, **changes: Any) -> int:
        ask = GrantAsk("tokens", units, 100, None, 0, "USD", "for goodwill")._replace(**changes)
        async with self.engine.database.writing() as unit:
            made = await giving.give(self.engine, unit, self.environment, account_id, ask)
        return made.id

    async def filled_by_month(self, account_id: int, **changes: object) -> Refill:
        wanted = {"amount": 10, "charge_amount": 50, "is_monthly": True, "source": "balance", **changes}
        async with self.engine.database.writing() as unit:
            made = await refilling.set_refill(self.engine, unit, self.environment, account_id, "minutes", wanted)
        assert made.refill is not None
        return made.refill


@pytest.fixture(scope="module")
def stripe() -> Iterator[Simulated]:
    with Simulated() as found:
        yield found


@pytest.fixture(scope="module")
async def world(new_database: Callable[[str], str], stripe: Simulated) -> AsyncIterator[Plans]:
    dsn = new_database("audit_plans")
    await migrate(dsn)
    found = await Plans.made(dsn, MadeUpClock(), stripe)
    assert isinstance(found, Plans)
    try:
        await fill(found)
        yield found
    finally:
        await found.engine.close()


async def fill(world: Plans) -> None:
    # Somebody hears everything, so that all that moves has to be told.
    async with world.engine.database.writing() as unit:
        await webhooks.create_webhook(world.engine, unit, world.environment, {}, [TopicAsk("*")])
    world.clock.forward(minutes=2)
    await world.company.price("CHAT", "tokens", amount="1")
    owners = [await subscribe(world), await declined(world), await by_hand(world), await rich(world)]
    await world.passed(20)
    await turn(world, owners)
    await world.passed(45)
    await leave(world)


async def subscribe(world: Plans) -> int:
    """Every kind of subscriber, and one who changes to and fro."""
    await world.everybody(1)
    owner = await world.on(BASIC)
    await world.use(owner, 250)
    await world.passed(3)
    for terms, scheme in ((PRO, "ariel"), (BASIC, "ariel"), (PRO, "snow_white"), (BASIC, "sleeping_beauty")):
        await world.change(owner, terms, scheme)
    dinars = await world.on(DINARS)
    await world.use(dinars, 3)
    await world.change(dinars, DINARS, "ariel", cadence="ONE_OFF")
    poor = await world.on(BY_TOKEN, None, credits=PRICE)
    await world.use(poor, 7)
    return owner


async def declined(world: Plans) -> int:
    """Payments that did not come in: of a start, of a change, and of renewals."""
    refused, plan_id = await world.customer("pm_card_chargeCustomerFail"), await world.plan(BASIC)
    body = {"plan_id": spell("p", plan_id)}
    assert (await world.ask(account_plans.change_plan, refused, body, key="refused")).status != 200
    owner = await world.on(BASIC)
    await world.give_card(owner, "pm_card_chargeCustomerFail")
    body = {"plan_id": spell("p", await world.plan(PRO)), "scheme": "ariel"}
    assert (await world.ask(account_plans.change_plan, owner, body, key="refused too")).status != 200
    waiting = await world.customer(None)
    async with world.engine.database.writing() as unit:
        ask = subscriptions.PlanAsk(plan_id)
        await subscriptions.wait_for_card(world.engine, unit, world.environment, waiting, ask)
    return owner


async def by_hand(world: Plans) -> int:
    """Units that were given, ended and taken back, and terms that were agreed."""
    owner = await world.on(BASIC)
    await world.give(owner, 200, expires_at=world.clock.at + timedelta(days=5), priority=10)
    await world.give(owner, 300)
    taken = await world.give(owner, 40, priority=20)
    await world.use(owner, 120)
    async with world.engine.database.writing() as unit:
        await giving.void(world.engine, unit, world.environment, owner, "tokens", taken)
    await world.company.adjust(owner, "tokens", -70)
    terms = {"tokens": {"amount": 1_200}}
    await world.asked(account_plans.agree_terms, owner, balances=terms)
    async with world.engine.database.writing() as unit:
        await plans.change_plan_terms(
            world.engine, unit, world.environment, world.plans["Pro"], {"renewals": {"MONTHLY": {"amount": 5_000}}}
        )
    await world.company.look()
    return owner


async def rich(world: Plans) -> int:
    """A trial, a fee, a minimum, chosen units, units that roll over, a balance that fills itself; refills by month."""
    owner = await world.customer()
    await world.change(owner, RICH, "ariel", plan_variable_amounts={"seats": 2})
    await world.use(owner, 30)
    filled = await world.customer()
    await world.company.balance_opened(filled, "USD", 1_000)
    await world.filled_by_month(filled, charge_denomination="USD")
    body = {"denomination": "minutes", "amount": 20, "usd_charge": 20}
    await world.asked(account_plans.modify_mid_month, filled, **body)
    carded = await world.customer()
    await world.refill_monthly(carded)
    await world.asked(account_plans.modify_mid_month, carded, denomination="minutes", amount=2_000, usd_charge=1_500)
    return owner


async def turn(world: Plans, owners: list[int]) -> None:
    """Pauses, more in the middle of a month, money that went back, and a plan of a year."""
    owner, _, _, rich_owner = owners
    paused = await world.on(BASIC)
    await world.asked(account_plans.pause_plan, paused)
    later = await world.on(BASIC)
    await world.asked(account_plans.modify_mid_month, later, denomination="tokens", amount=3_000, usd_charge=2_500)
    year = await world.on(YEARLY)
    await world.use(year, 400)
    await world.passed(40)
    await world.asked(account_plans.resume_plan, paused)
    still = await world.on(BASIC)
    await world.asked(account_plans.pause_plan, still)
    await world.use(rich_owner, 5)
    payment = next(one for one in await world.payments("plan_start") if one.account_id == owner)
    await world.drive_refund(await world.refund(payment, 200))


async def leave(world: Plans) -> None:
    """Plans that end at once, with and without their worth; one that begins again; one whose payment is under way."""
    leaving = [await world.on(PRO), await world.on(PRO)]
    await world.passed(1)
    for owner, prorates in zip(leaving, (False, True), strict=True):
        await world.use(owner, 100)
        await world.verb(subscriptions.cancelling(at_end=False, prorates=prorates), owner)
    await world.change(leaving[1], FREE, "ariel")
    again = await world.on(BASIC)
    await world.give_card(again, "pm_card_chargeCustomerFail")
    await world.passed(31.5)
    trying = await world.customer()
    await world.change(trying, RICH, "ariel")
    await world.use(trying, 30)


@pytest.fixture
async def books(world: Plans) -> AsyncIterator[asyncpg.Connection]:
    """A connection in a transaction that is rolled back: what a test breaks, nobody ever sees."""
    async with torn_open(world.engine.settings.database) as connection:
        yield connection


async def test_books_in_which_plans_did_everything_are_clean(books: asyncpg.Connection) -> None:
    planned = await expect_clean(books)
    counted = ("plans", "plan_versions", "agreed_terms", "subscriptions", "periods", "steps", "grants", "notifications")
    assert all(planned.counts[name] for name in counted), planned.counts


async def test_the_books_hold_what_the_rules_are_about(books: asyncpg.Connection) -> None:
    async def words(query: str) -> set[str]:
        return {row[0] for row in await books.fetch(query)}

    assert await words("select status from subscription") == {
        *("active", "trialing", "past_due", "paused", "cancelled", "pending_card")
    }
    assert await words("select kind from subscription_step") == {
        *("start", "renewal", "refill", "change", "modify", "cancel")
    }
    assert await words("select concat(reason, ' ', status) from payment") >= {
        *("plan_start succeeded", "plan_start failed", "plan_renewal succeeded", "plan_renewal created"),
        *("plan_change succeeded", "plan_change failed"),
    }
    assert await words("select json_array_elements(lines) ->> 'kind' from subscription_step") >= {
        *("plan", "variable", "setup_fee", "minimum_spend", "proration", "credit")
    }
    assert await words("select concat(source, closed_at is null) from balance_grant") >= {
        *("plant", "planf", "manualt", "manualf", "creditt")
    }
    assert await words("select denomination from refill where by_plan") == {"calls"}


def payment(change: str, where: str) -> str:
    return first("payment", "payment", change, where)


def step(change: str, where: str) -> str:
    return first("subscription_step", "step", change, where)


def period(change: str, where: str) -> str:
    return first("subscription_period", "period", change, where)


def grant(change: str, where: str) -> str:
    return first("balance_grant", "grant", change, where, "denomination")


def plan(change: str, where: str) -> str:
    return f"""update subscription set {change} where account_id = (
        select account_id from subscription where {where} order by account_id limit 1)
        returning 'subscription', account_id, 0::bigint, ''"""


def balance(change: str, where: str) -> str:
    return f"""update balance set {change} where (account_id, denomination) = (
        select account_id, denomination from balance where {where} order by 1, 2 limit 1)
        returning 'balance', account_id, 0::bigint, denomination"""


def gone(book: str, where: str, names: str = "step") -> str:
    return f"""delete from transaction where (account_id, id) = (
        select account_id, id from transaction t where book = '{book}' and {where} order by 1, 2 limit 1)
        returning '{names}', account_id, cause_id, denomination"""


def line(names: str, place: str, value: str) -> str:
    """A line of a step with one field changed."""
    return f"lines = jsonb_set(lines::jsonb, '{{{place},{names}}}', '{value}')::json"


OF_PERIOD: Final = ("'step', account_id, id, ''", "'period', account_id, period_id, ''")
PAID: Final = "reason = 'plan_renewal' and status = 'succeeded'"
UNFINISHED: Final = "status in ('created', 'failed') and reason = 'plan_renewal'"
BY_CARD: Final = "payment_id is not null and kind = 'renewal'"
RAN: Final = "ended_at is not null and price > 0 and not is_trial"
OPEN: Final = "closed_at is null and source = 'plan'"
OF_STEP: Final = "exists (select from subscription_step s where s.account_id = t.account_id and s.id = t.cause_id)"
NO_SUM: Final = "alter table transaction drop constraint transaction_adds_up"
NO_AMOUNTS: Final = dropped("subscription_period", "subscription_period_amounts")
NO_ENDS: Final = dropped("subscription_period", "subscription_period_ends")
NO_START: Final = "drop index subscription_period_start_key"

WRONGS: Final = {
    "payment that was not credited": Wrong(
        "payments",
        gone("payment", "exists (select from subscription_step s where s.payment_id = t.cause_id)", "payment"),
    ),
    "payment credited in another book": Wrong("payments", moved("payment", "book = 'deposit'", "payment")),
    "payment whose refill has not ended": Wrong(
        "payments", gone("expiry", f"not {OF_STEP} and cause_id <> id", "payment")
    ),
    "price of no step": Wrong("causes", moved("plan", "cause_id = 5")),
    "price without cause": Wrong("causes", moved("plan", "cause_id = null")),
    "units of nobody": Wrong("causes", moved("grant", "cause_id = 5")),
    "units that end for nobody": Wrong("causes", moved("expiry", "cause_id = 5")),
    "credit of nobody": Wrong("causes", moved("proration", "cause_id = null")),
    "payment without its step": Wrong(
        "plan_payments",
        """with last as (select distinct on (account_id) * from subscription_step order by account_id, id desc),
        chosen as (select * from last where kind = 'renewal' and payment_id is not null limit 1)
        update subscription_step s set payment_id = null from chosen c where s.account_id = c.account_id
        and s.id = c.id returning 'payment', c.account_id, c.payment_id, ''""",
    ),
    "payment whose step is gone": Wrong(
        "plan_payments",
        """delete from subscription_step where (account_id, id) in (select account_id, id from subscription_step
        where kind = 'start' and payment_id is not null limit 1) returning 'payment', account_id, payment_id, ''""",
    ),
    "payment that failed, with a step": Wrong("plan_payments", payment("status = 'failed'", PAID)),
    "payment of another amount": Wrong("plan_payments", payment("amount = amount + 1", PAID)),
    "payment for something else": Wrong("plan_payments", payment("reason = 'plan_start'", PAID)),
    "payment for nothing": Wrong("plan_payments", payment("settings = null", UNFINISHED)),
    "step paid by a deposit": Wrong(
        "plan_payments",
        """update payment p set reason = 'deposit' from subscription_step s where s.account_id = p.account_id
        and s.payment_id = p.id returning 'step', s.account_id, s.id, ''""",
    ),
    "step of no kind": Wrong("steps", step("kind = 'gift'", "kind = 'modify'")),
    "line of no kind": Wrong("steps", step(line("kind", "0", '"gift"'), BY_CARD)),
    "step that charged more": Wrong("steps", step("charge = charge + 1", BY_CARD)),
    "step that charged below nothing": Wrong("steps", step("charge = -1", "kind = 'renewal' and charge = 0")),
    "step that charged what it was not paid": Wrong("steps", step("charge = 7", "kind = 'start' and charge = 0")),
    "step rounded up too far": Wrong("steps", step("charge = charge + 10", "denomination = 'KWD' and charge > 0")),
    "end that charged": Wrong("steps", step("charge = 5", "kind = 'cancel'")),
    "step that credited more": Wrong("steps", step("credit = credit + 1", "credit > 0")),
    "step whose line costs more": Wrong("steps", step(line("amount", "0", "1001"), BY_CARD)),
    "two renewals for a date": Wrong(
        "steps",
        """with dated as (select * from subscription_step where kind = 'renewal' limit 1)
        insert into subscription_step select (jsonb_populate_record(null::subscription_step, to_jsonb(dated)
        || jsonb_build_object('id', dated.id - 1, 'payment_id', null))).* from dated
        returning 'step', account_id, id, ''""",
        "drop index subscription_step_renewal_key",
    ),
    "price that was not posted": Wrong("step_moves", gone("plan", OF_STEP)),
    "credit that was not posted": Wrong("step_moves", gone("proration", OF_STEP)),
    "units that did not come": Wrong("step_moves", gone("grant", OF_STEP)),
    "units that did not end": Wrong("step_moves", gone("expiry", OF_STEP)),
    "price posted with another amount": Wrong("step_moves", moved("plan", "amount = amount - 1", "step"), NO_SUM),
    "price posted in another book": Wrong("step_moves", moved("plan", "book = 'proration'", "step")),
    "step that says it gave more": Wrong(
        "step_moves", step("granted = '{\"tokens\": 77}'", "kind = 'refill'").replace("id, ''", "id, 'tokens'")
    ),
    "step that says it ended more": Wrong(
        "step_moves", step("cancelled = '{\"tokens\": 77}'", "kind = 'start'").replace("id, ''", "id, 'tokens'")
    ),
    "periods that overlap": Wrong(
        "periods",
        period(
            "start_at = start_at - interval '1 day'",
            "exists (select from"
            " subscription_period y where y.account_id = x.account_id and y.id < x.id and y.ended_at = x.start_at)",
        ),
    ),
    "period that begins later": Wrong(
        "periods", period("start_at = start_at + interval '1 second'", f"{RAN} and ended_at = end_at")
    ),
    "period after one that never ended": Wrong(
        "periods",
        """with chained as (select *, lead(id) over (partition by account_id order by id) as next_id
        from subscription_period), chosen as (select * from chained where next_id is not null limit 1)
        update subscription_period p set ended_at = null from chosen c where p.account_id = c.account_id
        and p.id = c.id returning 'period', c.account_id, c.next_id, ''""",
        NO_START,
    ),
    "gap between periods": Wrong(
        "periods",
        """with chained as (select p.*, lead(id) over (partition by account_id order by id) as next_id
        from subscription_period p), chosen as (select c.* from chained c join subscription_step s
        on s.account_id = c.account_id and s.id = c.next_id and s.kind = 'change' where c.ended_at > c.start_at
        and not c.is_trial limit 1)
        update subscription_period p set ended_at = c.start_at from chosen c where p.account_id = c.account_id
        and p.id = c.id returning 'period', c.account_id, c.next_id, ''""",
    ),
    "period that ends before it starts": Wrong("periods", period("end_at = start_at - interval '1 day'", RAN), NO_ENDS),
    "period that nothing began": Wrong(
        "periods",
        """delete from subscription_step where (account_id, id) in (select account_id, id from subscription_step
        where kind = 'renewal' limit 1) returning 'period', account_id, period_id, ''""",
    ),
    "period of another price": Wrong("periods", period("price = price + 1", RAN)),
    "period that gave more back": Wrong("periods", period("credited = credited + 1", f"{RAN} and credited < price")),
    "period that gave back more than its price": Wrong("periods", period("credited = price + 1", RAN), NO_AMOUNTS),
    "trial that costs": Wrong("periods", period("price = 5", "is_trial")),
    "period in another money": Wrong("periods", period("denomination = 'EUR'", "price = 0 and not is_trial")),
    "period of another plan": Wrong("periods", period("plan_id = plan_id + 1", RAN)),
    "period of no cadence": Wrong("periods", period("cadence = 'DAILY'", RAN)),
    "plan of no status": Wrong("subscriptions", plan("status = 'gone'", "status = 'active'")),
    "plan that ended at no time": Wrong("subscriptions", plan("ended_at = null", "status = 'cancelled'")),
    "plan in another period": Wrong("subscriptions", plan("period_id = period_id + 1", "status = 'active'")),
    "plan whose period has ended": Wrong(
        "subscriptions",
        """with chosen as (select * from subscription where status = 'active' limit 1)
        update subscription_period p set ended_at = p.start_at from chosen c where p.account_id = c.account_id
        and p.id = c.period_id returning 'subscription', p.account_id, 0::bigint, ''""",
    ),
    "plan that ended, its period did not": Wrong(
        "subscriptions",
        """with chosen as (select * from subscription where status = 'cancelled' limit 1)
        update subscription_period p set ended_at = null from chosen c where p.account_id = c.account_id
        and p.id = c.period_id returning 'subscription', p.account_id, 0::bigint, ''""",
    ),
    "plan of another version": Wrong("subscriptions", plan("version_id = version_id + 1", "status = 'active'")),
    "plan that ends later than its period": Wrong(
        "subscriptions",
        plan(
            "period_end = period_end + interval '1 day', next_at = next_at + interval '1 day'",
            "status = 'active' and number > 0 and refill_at is null and period_end is not null",
        ),
    ),
    "trial that is none": Wrong("subscriptions", plan("status = 'active'", "status = 'trialing'")),
    "plan that is never renewed": Wrong("subscriptions", plan("next_at = null", "status = 'trialing'")),
    "plan that is due earlier": Wrong(
        "subscriptions", plan("next_at = next_at - interval '1 hour'", "status = 'active' and next_at is not null")
    ),
    "plan that is due though it is paid for": Wrong(
        "subscriptions", plan("payment_id = 5", "status = 'active' and next_at is not null")
    ),
    "paused plan that is due": Wrong("subscriptions", plan("next_at = period_end", "status = 'paused'")),
    "plan to another day": Wrong(
        "plan_dates",
        plan("period_end = period_end + interval '1 hour'", "status = 'active' and period_end is not null"),
    ),
    "plan of another number": Wrong(
        "plan_dates", plan("number = number + 1", "status = 'active' and cadence = 'MONTHLY'")
    ),
    "plan in no zone": Wrong("plan_dates", plan("zone = 'Nowhere/Land'", "status = 'active'")),
    "plan filled on another day": Wrong(
        "plan_dates", plan("refill_at = refill_at - interval '1 hour'", "refill_at is not null and status = 'active'")
    ),
    "grant with more left than it gave": Wrong(
        "grants", grant("units_left = units + 1", OPEN), dropped("balance_grant", "balance_grant_units")
    ),
    "grant of no source": Wrong("grants", grant("source = 'luck'", "source = 'manual'")),
    "grant of a plan without period": Wrong("grants", grant("period_id = null", OPEN)),
    "grant of a plan before its turn": Wrong("grants", grant("priority = 1", OPEN)),
    "credit before its turn": Wrong("grants", grant("priority = 1", "source = 'credit'")),
    "grant of a plan that ends by itself": Wrong("grants", grant("expires_at = created_at", OPEN)),
    "grant that outlives its period": Wrong(
        "grants",
        grant(
            "closed_at = null",
            "source = 'plan' and closed_at is not null and exists (select from subscription_period p"
            " where p.account_id = x.account_id and p.id = x.period_id and p.ended_at is not null)",
        ),
    ),
    "credit of no step": Wrong("grants", grant("units = units + 1", "source = 'credit'")),
    "grant of other units": Wrong(
        "grants",
        grant("units = units + 1", OPEN).replace(
            "'grant', account_id, id, denomination", "'period', account_id, period_id, ''"
        ),
    ),
    "units of no grant": Wrong(
        "grants",
        """delete from balance_grant where (account_id, id) in (select account_id, id from balance_grant
        where source = 'plan' limit 1) returning 'period', account_id, period_id, ''""",
    ),
    "grant by hand that never came": Wrong("grant_moves", gone("grant", f"not {OF_STEP}", "grant")),
    "grant by hand of other units": Wrong("grant_moves", grant("units = units + 1", "source = 'manual'")),
    "rest that has not ended": Wrong(
        "grant_moves", gone("expiry", "cause_id = id", "balance").replace("cause_id,", "0::bigint,")
    ),
    "rest that ended with more": Wrong(
        "grant_moves",
        grant("units_left = units_left - 1", "source = 'manual' and closed_at is not null and units_left > 0").replace(
            "'grant', account_id, id,", "'balance', account_id, 0::bigint,"
        ),
    ),
    "grants burned by what nobody used": Wrong("burned", balance("burned = arrived - amount + 1", "burned > 0")),
    "grants burned below nothing": Wrong("burned", balance("burned = -1", "burned > 0")),
    "grants that hold more than there is": Wrong(
        "burned",
        balance(
            "burned = arrived - amount",
            "denomination = 'tokens' and burned = 0 and arrived > amount and exists (select from subscription s"
            " where s.account_id = balance.account_id and s.status = 'trialing')",
        ),
    ),
    "version that is missing": Wrong(
        "plan_numbers",
        "update plan_version set number = 7 where number = 2"
        " returning 'plan', environment_id::bigint, plan_id, number::text",
    ),
    "plan without a version": Wrong(
        "plan_numbers",
        "insert into plan (environment_id, id, created_at) select environment_id, 5, created_at from plan limit 1"
        " returning 'plan', environment_id::bigint, id, '1'",
    ),
    "terms that cannot be read": Wrong(
        "plan_terms",
        """update plan_version set terms = '{"name": "Pro"}' where id = (select min(id) from plan_version)
        returning 'plan', environment_id::bigint, plan_id, number::text""",
    ),
    "terms that nobody agreed": Wrong(
        "plan_terms",
        """update plan_override set terms = jsonb_set(terms::jsonb, '{spend_cap}', '5')::json where id = (
        select min(id) from plan_override) returning 'agreement', account_id, id, ''""",
    ),
    "refill that no plan asks for": Wrong(
        "plan_refills",
        "update refill set by_plan = true where denomination = 'minutes'"
        " returning 'refill', account_id, 0::bigint, denomination",
    ),
    "tick below a step": Wrong(
        "ticks",
        """update account set tick = s.id - 1 from subscription_step s where s.account_id = account.id
        and s.kind = 'start' returning 'account', account.id, 0::bigint, ''""",
    ),
    "plan of another company's half": Wrong("owners", plan("environment_id = environment_id + 1", "true")),
    "grant of another company's half": Wrong(
        "owners", grant("environment_id = environment_id + 1", OPEN).replace("id, denomination", "id, ''")
    ),
    "period of another company's half": Wrong("owners", period("environment_id = environment_id + 1", RAN)),
    "step of no version": Wrong("owners", step("version_id = 5", "kind = 'start'")),
    "step of no payment": Wrong("owners", step("payment_id = 5", "kind = 'cancel'")),
    "grant of no period": Wrong("owners", grant("period_id = 5", OPEN)),
    "plan in terms that are not there": Wrong("owners", plan("override_id = 5", "status = 'active'")),
    "agreement on no version": Wrong(
        "owners",
        "update plan_override set version_id = 5 where id = (select min(id) from plan_override)"
        " returning 'agreement', account_id, id, ''",
    ),
    "grant beyond all bounds": Wrong("bounds", grant("units = 2000000000000000", OPEN)),
    "step beyond all bounds": Wrong("bounds", step("credit = 2000000000000000", "kind = 'start'")),
    "period beyond all bounds": Wrong("bounds", period("price = 2000000000000000", RAN)),
}


@pytest.mark.parametrize("name", WRONGS)
async def test_a_wrong_fact_about_plans_is_named(books: asyncpg.Connection, name: str) -> None:
    await expect_named(books, WRONGS[name])


def test_every_rule_about_plans_has_a_wrong_fact_that_it_names() -> None:
    assert set(PLAN_CHECKS) <= {check.name for check in audit.CHECKS}
    assert {wrong.check for wrong in WRONGS.values()} >= set(PLAN_CHECKS)
