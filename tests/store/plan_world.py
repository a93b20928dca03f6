"""A company whose customers are on plans, with the Stripe simulator, and what must be true of both books afterwards.

Beside what :mod:`refill_world` tells: subscribers of every kind whose plans renew on one day, the door (a request is
answered by the route's own function, so that a worker can die in the middle of it), and the count of dates, charges,
steps and units that must come to the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import random
import re
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

import msgspec

from tenuto.api import account_plans
from tenuto.api.app import ROUTES
from tenuto.api.auth import Caller, Callers
from tenuto.api.routes import Call
from tenuto.core.cards import minimum
from tenuto.core.identifiers import spell, spell_of_account
from tenuto.core.outcomes import Refusal
from tenuto.core.payment import Action, Payment
from tenuto.core.subscription import Subscription
from tenuto.engine import Answer, Engine, Settings
from tenuto.server import Server
from tenuto.service import grants, invoicing, payments, plans, refills, refunds, renewals, subscriptions
from tenuto.service.subscriptions import Begun, PlanAsk
from tenuto.store import subscriptions as shelf
from tenuto.store.database import AccountMovedOn, Contended
from tests.client import Client, Company, Reply
from tests.conftest import SECRET_KEY, MadeUpClock
from tests.inside import Inside, disagreements, event
from tests.simulated import Simulated
from tests.store.refill_world import (
    CONFIRM,
    DEADLY,
    DECLINED,
    HALF,
    LEASE_AND_A_BIT,
    LIMIT,
    ROUNDS_MAX,
    Crash,
    World,
    audited,
)
from tests.store.test_crashes import running

PRICE: Final = 1000
INCLUDED: Final = 1000
DEADLINE_SECONDS: Final = 20.0
MONTH: Final = 31
"""Days from the day on which every account begins to the day on which it renews."""
BASIC: Final[dict[str, Any]] = {
    "name": "Basic",
    "renewal_denomination": "USD",
    "renewals": {"MONTHLY": {"amount": PRICE}},
    "balances": {"tokens": {"amount": INCLUDED}},
}
PRO: Final[dict[str, Any]] = {
    **BASIC,
    "name": "Pro",
    "renewals": {"MONTHLY": {"amount": 4 * PRICE}},
    "balances": {"tokens": {"amount": 5 * INCLUDED}},
}
BY_TOKEN: Final[dict[str, Any]] = {**BASIC, "name": "By token", "renewal_denomination": "credits"}
FREE: Final[dict[str, Any]] = {**BASIC, "name": "Free", "renewals": {"MONTHLY": {"amount": 0}}}
YEARLY: Final[dict[str, Any]] = {
    **BASIC,
    "name": "Yearly",
    "renewals": {"YEARLY": {"amount": 10 * PRICE}},
    "refill_cadence": "MONTHLY",
}
_REACH: Final = re.compile(r'\.reach\(f?"([^"]+)"\)')
_SWEEPS: Final = (
    renewals.renew_due,
    grants.expire_grants,
    refills.refill_due,
    payments.collect_due,
    refunds.refund_due,
)
_ROUTES: Final = {route.serve: route for route in ROUTES}


def plan_points() -> list[str]:
    """Every named fault point on the way of a plan's step, as the source names them now."""
    found: set[str] = set()
    for module in (payments, subscriptions):
        source = inspect.getsource(module)
        named = _REACH.findall(source)
        assert len(named) == source.count(".reach("), "a fault point that is named in another way"
        for name in named:
            calls = [action for action in get_args(Action) if action not in {"wait", "none"}]
            found.update(name.replace("{turn.action}", action) for action in calls)
    assert not [name for name in found if "{" in name], "a fault point with a part that is not known"
    return sorted(found)


class Subscriber(NamedTuple):
    """An account on a plan with what a renewal must come to: how often it is charged, and its tokens afterwards."""

    account_id: int
    kind: str
    charge: int
    tokens: int
    steps: tuple[str, ...]


class PlanWorld(World):
    """One company's test half whose accounts are on plans."""

    def __init__(self, engine: Engine, clock: MadeUpClock, stripe: Simulated, company: Inside) -> None:
        super().__init__(engine, clock, stripe, company)
        self.plans: dict[str, int] = {}

    @classmethod
    async def made(cls, dsn: str, clock: MadeUpClock, stripe: Simulated) -> PlanWorld:
        """A company of its own."""
        plain = await World.open(dsn, clock, stripe)
        return cls(plain.engine, clock, stripe, plain.company)

    # --- what there is to renew --------------------------------------------------------------------------------------

    async def plan(self, terms: dict[str, Any]) -> int:
        """A plan, published once by its name."""
        if terms["name"] not in self.plans:
            async with self.engine.database.writing() as unit:
                row = await plans.publish_plan(self.engine, unit, self.environment, None, terms)
            self.plans[terms["name"]] = row.id
            await self.company.look()
        return self.plans[terms["name"]]

    async def step(self, account_id: int, ask: PlanAsk, engine: Engine | None = None) -> Begun:
        """Change an account's plan, and drive its payment where it has one."""
        engine = engine or self.engine
        environment = await engine.environment(self.environment.id)
        assert environment is not None
        async with engine.database.writing() as unit:
            begun = await subscriptions.change_plan(engine, unit, environment, account_id, ask, None)
        if begun.payment is not None:
            await self.drive(begun.payment, engine)
        return begun

    async def on(self, terms: dict[str, Any], card: str | None = "pm_card_visa", **balances: int) -> int:
        """An account that begins with a plan now."""
        plan_id = await self.plan(terms)
        account_id = await self.customer(card)
        for denomination, amount in balances.items():
            await self.company.balance_opened(account_id, denomination, amount)
        await self.step(account_id, PlanAsk(plan_id))
        return account_id

    async def invoiced(self, terms: dict[str, Any]) -> int:
        """An account that pays by invoice and begins with a plan now."""
        plan_id, account_id = await self.plan(terms), await self.customer(None)
        async with self.engine.database.writing() as unit:
            wanted = invoicing.TermsWanted("USD")
            await invoicing.set_terms(self.engine, unit, self.environment, account_id, wanted)
        await self.step(account_id, PlanAsk(plan_id))
        return account_id

    async def verb(self, decide: subscriptions.Decide, account_id: int, engine: Engine | None = None) -> Begun:
        """Pause, resume, cancel or reinstate a plan."""
        engine = engine or self.engine
        async with engine.database.writing() as unit:
            return await subscriptions.begin_step(engine, unit, self.environment, account_id, decide)

    async def everybody(self, count: int) -> list[Subscriber]:
        """``count`` accounts of each kind, all of which are due in a month."""
        found: list[Subscriber] = []
        for _ in range(count):
            found += await self._one_of_each()
        return found

    async def _one_of_each(self) -> list[Subscriber]:
        renewed = ("start", "renewal")
        later = await self.on(BASIC)
        await self.step(later, PlanAsk(await self.plan(PRO), scheme="sleeping_beauty"))
        leaving = await self.on(BASIC)
        await self.verb(subscriptions.cancelling(at_end=True, prorates=False), leaving)
        by_token = await self.on(BY_TOKEN, None, credits=5 * PRICE)
        return [
            Subscriber(await self.on(BASIC), "card", PRICE, INCLUDED, renewed),
            Subscriber(await self.invoiced(BASIC), "invoice", 0, INCLUDED, renewed),
            Subscriber(by_token, "token", 0, INCLUDED, renewed),
            Subscriber(await self.on(FREE, None), "free", 0, INCLUDED, renewed),
            Subscriber(await self.on(YEARLY), "yearly", 0, INCLUDED, ("start", "refill")),
            Subscriber(later, "scheduled", 4 * PRICE, 5 * INCLUDED, renewed),
            Subscriber(leaving, "cancelling", 0, 0, ("start", "cancel")),
        ]

    async def many_due(self, count: int) -> None:
        """``count`` accounts of two kinds whose renewals are due now: copied in SQL, for what they did is not asked."""
        seeds = [await self.on(FREE, None), await self.on(BY_TOKEN, None, credits=5 * PRICE)]
        tables = ("account", "balance", "transaction", "subscription", "subscription_period", "balance_grant")
        async with self.engine.database.writing() as unit:
            for table in (*tables, "subscription_step"):
                columns = await unit.fetchval(
                    "select string_agg(quote_ident(column_name), ', ' order by ordinal_position)"
                    " from information_schema.columns where table_name = $1 and column_name <> $2"
                    " and table_schema = 'public' and is_generated = 'NEVER'",
                    table,
                    "id" if table == "account" else "account_id",
                )
                key = "id" if table == "account" else "account_id"
                await unit.execute(
                    f"insert into {table} ({key}, {columns}) select {key} % 1000000007 * 1000 + n, {columns}"
                    f" from {table}, generate_series(1, $2) n where {key} = any($1)",
                    seeds,
                    count // 2 - 1,
                )
        self.clock.forward(days=MONTH, hours=1)

    # --- the door ----------------------------------------------------------------------------------------------------

    async def ask(
        self,
        serve: Callable[[Call], Awaitable[Answer]],
        account_id: int | None,
        body: dict[str, Any] | None = None,
        *,
        key: str | None = None,
        engine: Engine | None = None,
        payment_id: int | None = None,
    ) -> Answer:
        """A request, answered by its route's own function; refusals are answers, and all else is a fault of ours."""
        engine = engine or self.engine
        environment = await engine.environment(self.environment.id)
        assert environment is not None
        params = {"company_id": spell("c", environment.company_id)}
        if account_id is not None:
            params["account_id"] = spell("a", account_id)
        if payment_id is not None:
            params["payment_id"] = spell_of_account("pay", account_id or 0, payment_id)
        call = Call(
            engine,
            Callers(engine),
            route=_ROUTES[serve],
            params=params,
            query={},
            headers={} if key is None else {b"idempotency-key": key.encode()},
            body=b"" if body is None else msgspec.json.encode(body),
            request_id="req_test",
            caller=Caller(environment, next(iter(environment.keys.values()))),
        )
        try:
            return await serve(call)
        except Refusal as refusal:
            return Answer(409, msgspec.json.encode({"error": {"code": refusal.code, "message": refusal.message}}))
        except Contended:
            return Answer(503, msgspec.json.encode({"error": {"code": "overloaded"}}))

    # --- working on it -----------------------------------------------------------------------------------------------

    async def passes(self, engine: Engine) -> int:  # type: ignore[explicit-override]
        done = 0
        for sweep in _SWEEPS:
            with contextlib.suppress(AccountMovedOn, Contended):  # the clockwork comes again
                done += await sweep(engine, now=engine.now(), limit=LIMIT, environment_id=self.environment.id)
        return done

    async def dying(self, engine: Engine, point: str | None) -> None:  # type: ignore[explicit-override]
        def reach(name: str) -> None:
            self.reached[name] += 1
            if name == point:
                raise Crash(name)

        engine.faults = reach
        for sweep in _SWEEPS:
            before = asyncio.all_tasks()
            with contextlib.suppress(Crash):
                await sweep(engine, now=engine.now(), limit=LIMIT, environment_id=self.environment.id)
            await asyncio.gather(*(asyncio.all_tasks() - before), return_exceptions=True)
        engine.faults = None

    async def unresolved(self) -> list[str]:  # type: ignore[explicit-override]
        found = await World.unresolved(self)
        rows = await self.company.rows(
            "select s.account_id, s.status, s.next_at from subscription s where s.environment_id = $1"
            " and s.next_at <= $2 and not exists (select from payment p where p.account_id = s.account_id"
            " and p.slot = 'plan' and p.status = 'created' and p.declines > 0)",
            self.environment.id,
            self.engine.now_of(self.environment),
        )
        return found + [f"plan due: {dict(row)}" for row in rows]

    async def calm(self) -> None:
        """Nothing goes wrong any more; other workers bring everything to its end."""
        self.stripe.heal()
        self.engine.faults = None
        async with self.worker() as fresh:
            await self.recover(fresh)

    # --- looking -----------------------------------------------------------------------------------------------------

    async def subscription(self, account_id: int) -> Subscription:
        async with self.engine.database.reading() as reader:
            found = await shelf.read_subscription(reader, account_id)
        assert found is not None
        return found

    async def steps(self, account_id: int) -> list[tuple[str, datetime]]:
        """What was done to a plan, oldest first: kind, and the date it was done for."""
        rows = await self.company.rows(
            "select kind, for_at from subscription_step where account_id = $1 order by id", account_id
        )
        return [(row["kind"], row["for_at"]) for row in rows]

    async def kinds(self, account_id: int) -> Counter[str]:
        return Counter(kind for kind, _ in await self.steps(account_id))

    async def paid(self, account_id: int) -> list[int]:
        """What the simulator's book says the account's cards were charged, oldest first."""
        book = self.stripe.book(self.key)
        intents = {intent["id"]: intent["metadata"]["tenuto_payment"] for intent in book["payment_intents"]}
        ours = {
            spell_of_account("pay", one.account_id, one.id)
            for one in await self.payments()
            if one.account_id == account_id
        }
        charged = [c for c in book["charges"] if c["status"] == "succeeded" and intents[c["payment_intent"]] in ours]
        return [charge["amount"] for charge in reversed(charged)]

    async def disagreements(self) -> list[str]:  # type: ignore[explicit-override]
        """Where our book and the simulator's contradict each other: charges, credits and the steps they paid for."""
        book, ours = self.stripe.book(self.key), await self.payments()
        intents = {intent["id"]: intent["metadata"]["tenuto_payment"] for intent in book["payment_intents"]}
        charges: dict[str, list[int]] = defaultdict(list)
        for charge in book["charges"]:
            if charge["status"] == "succeeded":
                charges[intents[charge["payment_intent"]]].append(charge["amount"])
        moves = await self.company.rows(
            "select t.account_id, t.cause_id, t.amount from transaction t join account a on a.id = t.account_id"
            " where a.environment_id = $1 and t.book in ('payment', 'deposit', 'refill')",
            self.environment.id,
        )
        credited: dict[tuple[int, int], list[int]] = defaultdict(list)
        for move in moves:
            credited[move["account_id"], move["cause_id"]].append(move["amount"])
        found: list[str] = []
        for payment in ours:
            public = spell_of_account("pay", payment.account_id, payment.id)
            expected = [payment.amount] if payment.status == "succeeded" else []
            charged = charges.pop(public, [])
            if charged != expected:
                found.append(f"{public} ({payment.reason}, {payment.status}) was charged {charged}, not {expected}")
            units = [payment.units] if expected else []
            if (came := credited.pop((payment.account_id, payment.id), [])) != units:
                found.append(f"{public} ({payment.reason}, {payment.status}) credited {came}, not {units}")
        found += [f"charged for nothing of ours: {public} {amounts}" for public, amounts in charges.items()]
        found += [f"credited for nothing: {place}" for place in credited]
        return found + await self._steps_that_disagree()

    async def kept_for_nothing(self) -> list[str]:
        """Money that stands on a balance and is neither credit of a change nor anything else that was meant to."""
        rows = await self.company.rows(
            "select b.account_id, b.amount, coalesce(sum(g.units_left), 0) as credit from balance b"
            " join account a on a.id = b.account_id left join balance_grant g on g.account_id = b.account_id"
            " and g.denomination = b.denomination and g.closed_at is null where a.environment_id = $1"
            " and b.denomination = 'USD' group by b.account_id, b.denomination, b.amount",
            self.environment.id,
        )
        # What no card can be charged is carried as owed.
        least = -minimum("USD")
        return [f"{dict(row)}" for row in rows if not least < row["amount"] - row["credit"] <= 0]

    async def _steps_that_disagree(self) -> list[str]:
        """Steps against the movements that they caused, and dates for which something was done twice."""
        rows = await self.company.rows(
            "select s.account_id, s.id, s.kind, s.for_at, s.granted, s.cancelled,"
            " (select json_object_agg(t.denomination, t.amount) from transaction t where t.account_id = s.account_id"
            "  and t.cause_id = s.id and t.book = 'grant') as came,"
            " (select json_object_agg(t.denomination, -t.amount) from transaction t where t.account_id = s.account_id"
            "  and t.cause_id = s.id and t.book = 'expiry') as went"
            " from subscription_step s where s.environment_id = $1 order by s.account_id, s.id",
            self.environment.id,
        )
        found: list[str] = []
        seen: Counter[tuple[int, str, datetime]] = Counter()
        for row in rows:
            for said, moved in ((row["granted"], row["came"]), (row["cancelled"], row["went"])):
                told = {name: units for name, units in _object(said).items() if units}
                if told != _object(moved):
                    found.append(f"step {row['kind']} of {row['account_id']} says {told}, moved {moved}")
            if row["kind"] in {"renewal", "refill"}:
                seen[row["account_id"], row["kind"], row["for_at"]] += 1
        return found + [f"done {count} times: {what}" for what, count in seen.items() if count > 1]


def _object(found: Any) -> dict[str, int]:
    return dict(msgspec.json.decode(found)) if isinstance(found, str) else dict(found or {})


# --- stories that are told with every fault point ---------------------------------------------------------------------


async def renewed_once(world: PlanWorld, whom: Sequence[Subscriber], *, since: datetime) -> None:
    """Each account went on exactly once for its date, was charged once for it, and has its units once."""
    assert await world.disagreements() == []
    book = world.stripe.book(world.key)
    taken = sum(charge["amount"] for charge in book["charges"] if charge["status"] == "succeeded")
    assert taken == sum(one.amount for one in await world.payments() if one.status == "succeeded")
    paid = Counter[int]()
    for payment in await world.payments("plan_renewal"):
        paid[payment.account_id] += payment.amount * (payment.status == "succeeded")
        assert not payment.is_open, payment
    for one in whom:
        steps = await world.steps(one.account_id)
        assert tuple(kind for kind, _ in steps) == one.steps, (one, steps)
        assert steps[-1][1] == since + timedelta(days=MONTH), (one, steps)
        assert paid[one.account_id] == one.charge, one
        assert await world.available(one.account_id) == one.tokens, one
        status = (await world.subscription(one.account_id)).status
        assert status == ("cancelled" if one.kind == "cancelling" else "active"), one


async def die_renewing(world: PlanWorld, point: str, *, count: int, seed: int) -> None:
    """A worker dies at a point in the middle of a run of renewals; others bring it to its one right end."""
    since = world.clock.at
    whom = await world.everybody(count)
    given_up = await world.on(BASIC) if point.endswith("cancel") else None
    if given_up is not None:
        await world.give_card(given_up, "pm_card_chargeCustomerFail")
    world.clock.forward(days=MONTH, hours=1)
    for number, (kind, probability) in enumerate((("timeout_after_effect", 0.4), ("timeout_before_effect", 0.2))):
        world.stripe.fault(kind, route=CONFIRM, key=world.key)
        world.stripe.fault(kind, route=CONFIRM, key=world.key, probability=probability, seed=seed + number)
    async with world.worker() as doomed:
        for _ in range(3):
            await world.dying(doomed, point)
            if world.reached[point]:
                break
            world.clock.forward(seconds=LEASE_AND_A_BIT)
            if given_up is not None:
                await world.by_hand(payments.void_payment, await the_payment(world, given_up))
    assert world.reached[point], f"nothing that is told here comes to {point}"
    await world.calm()
    if given_up is not None:
        assert (await the_payment(world, given_up)).status == "voided"
        assert (await world.subscription(given_up)).status == "past_due"
    await renewed_once(world, whom, since=since)


async def spin(world: PlanWorld, engine: Engine) -> None:
    """Sweep as a clockwork does, until a pass finds nothing."""
    for _ in range(ROUNDS_MAX):
        if not await world.passes(engine):
            return
    raise AssertionError("the sweeps always find something to do")


async def the_payment(world: PlanWorld, account_id: int, reason: str = "plan_renewal") -> Payment:
    """The only payment of an account for this reason."""
    (found,) = [one for one in await world.payments(reason) if one.account_id == account_id]
    return found


def deadly(point: str) -> Callable[[str], None]:
    """For ``engine.faults``: the worker dies at a point."""

    def reach(name: str) -> None:
        if name == point:
            raise Crash(name)

    return reach


async def until(is_so: Callable[[], Awaitable[bool]], what: str) -> float:
    """Wait until something is so, no longer than the deadline; the seconds it took."""
    began = time.monotonic()
    while not await is_so():
        assert time.monotonic() < began + DEADLINE_SECONDS, f"{what}: not within {DEADLINE_SECONDS} seconds"
        await asyncio.sleep(0.05)  # nobody tells a test that a row changed
    return time.monotonic() - began


# --- anything, in any order ------------------------------------------------------------------------------------------


class PlanStorm:
    """Accounts on plans, their company, its provider and its workers doing one random thing after another."""

    def __init__(self, world: PlanWorld, seed: int) -> None:
        self.world, self.chance = world, random.Random(seed)
        self.log: list[str] = []
        self.owners: list[int] = []
        self._key = 0
        self._verbs = (
            *((self.change, 14), (self.modify, 3), (self.cancel, 3), (self.pause, 3), (self.resume, 4)),
            *((self.renew, 4), (self.card, 5), (self.retry, 4), (self.void, 2), (self.agree, 2), (self.use, 12)),
            *((self.work, 20), (self.wait, 10), (self.break_something, 5), (self.hear, 3), (self.hold, 2)),
            *((self.let_on, 3), (self.drop, 1)),
        )

    async def begin(self, count: int) -> None:
        await self.world.company.price("CHAT", "tokens", amount="1")
        for terms in (BASIC, PRO, YEARLY, FREE, BY_TOKEN):
            await self.world.plan(terms)
        for number in range(count):
            terms = (BASIC, YEARLY, FREE)[number % 3]
            self.owners.append(await self.world.on(terms))
            await self.world.company.balance_opened(self.owners[-1], "credits", 2 * PRICE)

    async def blow(self, steps: int) -> None:
        """So many things, some of them at the same time as the next."""
        verbs, weights = zip(*self._verbs, strict=True)
        for _ in range(steps):
            together = self.chance.choices(verbs, weights, k=self.chance.choice((1, 1, 2, 3)))
            self.log.append(" + ".join(verb.__name__ for verb in together))
            found = await asyncio.gather(*(verb() for verb in together), return_exceptions=True)
            for error in found:
                if isinstance(error, BaseException) and not isinstance(error, Refusal | Crash):
                    raise error

    async def calm(self) -> None:
        """Good cards, nothing held, nothing paused: then every plan goes on, or has ended."""
        world = self.world
        world.stripe.heal()
        await self.let_on()
        async with world.worker() as fresh:
            await world.recover(fresh)
            for _ in range(3):
                for owner in self.owners:
                    await world.give_card(owner, "pm_card_visa")
                    await world.company.adjust(owner, "credits", 2 * PRICE)
                    await world.ask(account_plans.resume_plan, owner)
                    await world.ask(account_plans.renew_plan, owner)
                await world.recover(fresh)
        for owner in self.owners:
            known = await world.subscription(owner)
            assert known.status in {"active", "cancelled"}, known

    def _owner(self) -> int:
        return self.chance.choice(self.owners)

    async def _said(self, serve: Callable[[Call], Awaitable[Answer]], body: dict[str, Any] | None = None) -> None:
        self._key += 1
        key = f"storm:{self._key}"
        owner = self._owner()
        async with self.world.worker() as worker:
            worker.faults = self._deadly
            found = await self.world.ask(serve, owner, body, key=key, engine=worker)
        said = msgspec.json.decode(found.body).get("error", {}).get("code", "")
        self.log[-1] += f" [{serve.__name__} {owner % 1000} {body or ''} {found.status} {said}]"

    def _deadly(self, name: str) -> None:
        if self.chance.random() < DEADLY:
            raise Crash(name)

    async def change(self) -> None:
        plan_id = self.chance.choice(list(self.world.plans.values()))
        scheme = self.chance.choice(("ariel", "snow_white", "sleeping_beauty"))
        await self._said(account_plans.change_plan, {"plan_id": spell("p", plan_id), "scheme": scheme})

    async def modify(self) -> None:
        units = self.chance.randint(2, 9)
        body = {"denomination": "tokens", "amount": units * INCLUDED, "usd_charge": units * PRICE}
        await self._said(account_plans.modify_mid_month, body)

    async def cancel(self) -> None:
        body = self.chance.choice(({"at_period_end": True}, {"at_period_end": False, "prorate": True}))
        await self._said(account_plans.cancel_plan, body)

    async def pause(self) -> None:
        await self._said(account_plans.pause_plan)

    async def resume(self) -> None:
        await self._said(account_plans.resume_plan)

    async def drop(self) -> None:
        await self._said(account_plans.drop_scheduled)

    async def renew(self) -> None:
        await self._said(account_plans.renew_plan)

    async def agree(self) -> None:
        body = {"balances": {"tokens": {"amount": self.chance.randint(500, 3000)}}}
        await self._said(account_plans.agree_terms, body)

    async def card(self) -> None:
        kind = self.chance.choice(("visa", "mastercard", "amex", "chargeCustomerFail", "chargeCustomerFail"))
        await self.world.give_card(self._owner(), f"pm_card_{kind}")

    async def _by_hand(self, verb: Callable[..., Awaitable[Payment]]) -> None:
        found = [one for one in await self.world.payments() if one.account_id == (owner := self._owner()) or not owner]
        if found:
            chosen = self.chance.choice(found[-3:])
            self.log[-1] += f" [{verb.__name__} {chosen.account_id % 1000} {chosen.reason} {chosen.status}]"
            await self.world.drive(await self.world.by_hand(verb, chosen))

    async def retry(self) -> None:
        await self._by_hand(payments.retry_payment)

    async def void(self) -> None:
        await self._by_hand(payments.void_payment)

    async def use(self) -> None:
        owner = self._owner()
        asked = [event("CHAT", str(self.chance.randint(1, 300)), gated=True) for _ in range(5)]
        await asyncio.gather(*(self.world.company.send(owner, one) for one in asked), return_exceptions=True)

    async def work(self) -> None:
        async with self.world.worker() as worker:
            worker.faults = self._deadly
            before = asyncio.all_tasks()
            try:
                await self.world.passes(worker)
            finally:
                await asyncio.gather(*(asyncio.all_tasks() - before - self._others()), return_exceptions=True)

    def _others(self) -> set[asyncio.Task[Any]]:
        mine = asyncio.current_task()
        return {task for task in asyncio.all_tasks() if task is mine or "Storm" in repr(task.get_coro())}

    async def wait(self) -> None:
        self.world.clock.forward(
            seconds=self.chance.choice((1, 61, 61, 3_600, 86_400, 86_400, 864_000, 1_296_000, 2_678_400))
        )

    async def break_something(self) -> None:
        kinds = ("timeout_after_effect", "timeout_before_effect", "500_before", "500_after_effect", "lock_timeout")
        terms: dict[str, Any] = {"key": self.world.key, "times": self.chance.randint(1, 4)}
        if self.chance.random() < DECLINED:
            code = self.chance.choice(("insufficient_funds", "lost_card", "generic_decline"))
            self.world.stripe.fault("decline", code=code, route=CONFIRM, **terms)
        else:
            self.world.stripe.fault(self.chance.choice(kinds), **terms)

    async def hear(self) -> None:
        for body in self.chance.choices(self.world.messages()[-40:], k=10):
            with contextlib.suppress(Refusal):
                await self.world.deliver([body])

    async def hold(self) -> None:
        async with self.world.engine.database.writing() as unit:
            await payments.suspend_capture(self.world.engine, unit, self.world.environment, self._owner())

    async def let_on(self) -> None:
        for owner in self.owners:
            is_wanted = self.chance.random() < HALF
            async with self.world.engine.database.writing() as unit:
                await payments.resume_capture(
                    self.world.engine, unit, self.world.environment, owner, process=is_wanted, limit=LIMIT
                )


async def storm(world: PlanWorld, seed: int, steps: int) -> None:
    found = PlanStorm(world, seed)
    try:
        await found.begin(3)
        await found.blow(steps)
        await found.calm()
        wrong = await world.disagreements() + await world.kept_for_nothing()
        assert not wrong, wrong
        await audited(world.engine.database.dsn)
    except BaseException as error:
        error.add_note(f"seed {seed}:\n" + "\n".join(found.log))
        raise


# --- a server that is killed ------------------------------------------------------------------------------------------


async def kill_while_renewing(dsn: str, data: Path, *, price: int, count: int, kills: int) -> None:
    """Workers are killed while the company's clock moves over the renewals of all its accounts."""
    with Simulated() as stripe:
        settings = Settings(
            port=0,
            database=dsn,
            data=str(data),
            workers=2,
            registration="open",
            log_level="error",
            secret_key=SECRET_KEY,
            sandbox_url=stripe.url,
        )
        async with running(settings) as server:
            assert server.workers is not None
            workers, chance = server.workers, random.Random(count)
            company, ids = await asyncio.to_thread(subscribers, server, price, count)

            async def trouble() -> None:
                for _ in range(kills):
                    await asyncio.sleep(chance.uniform(0.02, 0.4))
                    victim = chance.choice(workers.pids)
                    os.kill(victim, signal.SIGKILL)
                    async with asyncio.timeout(10):
                        while victim in workers.pids:  # noqa: ASYNC110 - a process that dies sets no event of ours
                            await asyncio.sleep(0.01)

            await asyncio.gather(trouble(), asyncio.to_thread(move_on, server, company))
            await asyncio.to_thread(all_renewed, server, company, ids, 2 if price else 0)
            book = stripe.book(f"sk_test_sandbox{company.id[2:]}")
            taken = Counter(charge["amount"] for charge in book["charges"] if charge["status"] == "succeeded")
            assert taken == ({price: 2 * count} if price else {})
            assert await disagreements(server.dsn) == []
            await audited(server.dsn)


def subscribers(server: Server, price: int, count: int) -> tuple[Company, list[str]]:
    """A company with so many accounts on a plan, each with a card."""
    with Client(*server.address) as client:
        company = Company.open(client)
        renewals = {"MONTHLY": {"amount": price}}
        plan_id = company.plan(name="Basic", renewals=renewals, balances={"tokens": {"amount": INCLUDED}})
        body = {
            "name": "Ada",
            "email": "ada@example.com",
            "plan_id": plan_id,
            **({"token": "tok_visa"} if price else {}),
        }
        made = [company.call("POST", "/v1/companies/{company}/accounts", body) for _ in range(count)]
    assert {reply.status for reply in made} == {200}, made
    return company, [reply.data["id"] for reply in made]


def insist(server: Server, company: Company, method: str, path: str, body: object = None) -> Reply:
    """Ask until there is an answer: a killed worker breaks connections, and that is all it does."""
    give_up_at = time.monotonic() + LEASE_AND_A_BIT + DEADLINE_SECONDS
    while True:
        try:
            with Client(*server.address) as client:
                reply = Company(client, company.id, company.key).call(method, path, body)
        except (OSError, HTTPException):
            assert time.monotonic() < give_up_at, path
        else:
            if reply.status != 503:
                return reply
        time.sleep(0.05)


def move_on(server: Server, company: Company) -> None:
    """Over the end of the month, to one moment however often it is asked for."""
    now = datetime.now(UTC) + timedelta(days=MONTH, hours=1)
    found = insist(server, company, "POST", "/v1/companies/{company}/clock", {"now": now.isoformat()})
    assert found.status == 200 or found.code == "clock_not_forward", found


def all_renewed(server: Server, company: Company, ids: list[str], charges: int) -> None:
    """Every account was renewed once and has its units once, as soon as the leases of the dead have run out."""
    give_up_at = time.monotonic() + LEASE_AND_A_BIT + DEADLINE_SECONDS
    for account_id in ids:
        path = f"/v1/accounts/{account_id}"
        while True:
            history = [step["kind"] for step in insist(server, company, "GET", f"{path}/plan/history").data]
            if len(history) > 1:
                break
            assert time.monotonic() < give_up_at, insist(server, company, "GET", f"{path}/payments").data
            time.sleep(0.5)
        assert history == ["renewal", "start"]
        paid = insist(server, company, "GET", f"{path}/payments").data
        assert [payment["status"] for payment in paid] == ["succeeded"] * charges
        assert insist(server, company, "GET", f"{path}/balance/tokens").data["amount"] == INCLUDED
