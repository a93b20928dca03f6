"""A company whose customers are charged by the Stripe simulator, and what must be true of the two books afterwards.

The gateway is the real one, the database is PostgreSQL, the clock is made up. A worker is an engine that remembers
nothing; it dies when a fault point raises :class:`Crash`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import random
import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, get_args

import asyncpg
import msgspec

from tenuto.core.identifiers import spell_of_account
from tenuto.core.outcomes import Refusal
from tenuto.core.payment import OPEN, Action, Payment
from tenuto.engine import Engine, Settings
from tenuto.gateway.messages import read_event, signature_of
from tenuto.gateway.port import GatewayEvent, PaymentGateway
from tenuto.gateway.stripe import StripeGateway
from tenuto.service import accounts, cards, payments, refills, refunds
from tenuto.service.usage import open_lanes
from tenuto.store import audit as audits
from tenuto.store import payments as shelf
from tenuto.store import refills as refill_shelf
from tenuto.store.accounts import Environment, find_environment
from tenuto.store.database import Database
from tenuto.store.payments import Refund
from tests.conftest import MadeUpClock
from tests.inside import Inside, on_another_thread
from tests.simulated import Simulated

GIVES = 1000
COSTS = 900
LIMIT = 500
LEASE_AND_A_BIT = 61
ROUNDS_MAX = 90
CONFIRM = "payment_intents.confirm"
REFILLS = ("refill", "threshold_refill")
PER_SECOND = 100_000.0
DEADLY = 0.08
DECLINED = 0.25
HALF = 0.5
RARE = 0.2
PATIENCE_SECONDS = 5.0
_REACH = re.compile(r'\.reach\(f?"([^"]+)"\)')


def points() -> list[str]:
    """Every named fault point between a decision and its record, as the source names them now."""
    found: set[str] = set()
    for module in (payments, refills, refunds):
        source = inspect.getsource(module)
        named = _REACH.findall(source)
        assert len(named) == source.count(".reach("), "a fault point that is named in another way"
        for name in named:
            calls = [action for action in get_args(Action) if action not in {"wait", "none"}]
            found.update(name.replace("{turn.action}", action) for action in calls)
    assert not [name for name in found if "{" in name], "a fault point with a part that is not known"
    return sorted(found)


class Crash(BaseException):
    """The worker dies here."""


class Worker(Engine):
    """An engine whose gateway asks as fast as it can, gives up soon, and has the simulator send nothing by itself."""

    patience_seconds = PATIENCE_SECONDS

    async def gateway_for(self, environment: Environment) -> PaymentGateway:  # type: ignore[explicit-override]
        if environment.live:
            raise Refusal("gateway_not_configured")
        if environment.id not in self._gateways:
            key, url = self.sandbox_key(environment), self.settings.sandbox_url
            made = StripeGateway(key, base_url=url, per_second=PER_SECOND, timeout=self.patience_seconds)
            self._gateways[environment.id] = (None, made)
        return self._gateways[environment.id][1]


class World:
    """One company's test half with its engine, its clock and its book at the simulator."""

    def __init__(self, engine: Engine, clock: MadeUpClock, stripe: Simulated, company: Inside) -> None:
        self.engine, self.clock, self.stripe, self.company = engine, clock, stripe, company
        self.reached: Counter[str] = Counter()
        self._cards = 0

    @classmethod
    async def open(cls, dsn: str, clock: MadeUpClock, stripe: Simulated) -> World:
        engine = await _worker(dsn, clock, stripe)
        return cls(engine, clock, stripe, await Inside.open(engine))

    @classmethod
    async def beside(cls, world: World, *, is_live: bool = False) -> World:
        """The same company seen by another worker, on whatever loop this is; or its live half."""
        engine = await _worker(world.engine.database.dsn, world.clock, world.stripe)
        environment_id: int | None = world.environment.id
        if is_live:
            async with engine.database.writing() as unit:
                await accounts.issue_key(
                    engine, unit, world.environment, live=True, name="live", scopes=(), expires_at=None
                )
                environment_id = await find_environment(unit, world.environment.company_id, live=True)
        environment = await engine.environment(environment_id or 0)
        assert environment is not None
        return cls(engine, world.clock, world.stripe, Inside(engine, environment, world.company.key_id))

    @property
    def environment(self) -> Environment:
        return self.company.environment

    @property
    def key(self) -> str:
        """The API key under which the simulator keeps this company's book."""
        return self.engine.sandbox_key(self.environment)

    @asynccontextmanager
    async def worker(self, *, patience_seconds: float = PATIENCE_SECONDS) -> AsyncIterator[Engine]:
        """Another worker, who remembers nothing."""
        found = await _worker(self.engine.database.dsn, self.clock, self.stripe)
        found.patience_seconds = patience_seconds
        try:
            yield found
        finally:
            await found.close()

    # --- what there is to be paid ------------------------------------------------------------------------------------

    async def customer(self, card: str | None = "pm_card_visa") -> int:
        """An account with a card."""
        account_id = await self.company.account()
        if card is not None:
            await self.give_card(account_id, card)
        return account_id

    async def give_card(self, account_id: int, card: str) -> None:
        self._cards += 1
        given = await cards.give_card(
            self.engine, self.environment, account_id, card, f"card:{account_id}:{self._cards}"
        )
        await cards.keep_given(self.engine, self.environment, account_id, given)

    async def refill_below(
        self, account_id: int, denomination: str = "tokens", *, threshold: int = 100, gives: int = GIVES
    ) -> None:
        """A refill below a threshold; due at once where less than that is there."""
        changes = {"amount": gives, "charge_amount": COSTS, "threshold": threshold}
        async with self.engine.database.writing() as unit:
            await refills.set_refill(self.engine, unit, self.environment, account_id, denomination, changes)

    async def refill_monthly(
        self, account_id: int, denomination: str = "minutes", *, is_driven: bool = True
    ) -> Payment:
        """A monthly refill whose first filling is paid, or only written down."""
        changes = {"amount": GIVES, "charge_amount": COSTS, "is_monthly": True}
        async with self.engine.database.writing() as unit:
            found = await refills.set_refill(self.engine, unit, self.environment, account_id, denomination, changes)
            assert found.starts is not None
            ask = payments.Deposit(denomination, GIVES, COSTS, "USD")
            begun = await payments.begin_deposit(
                self.engine, unit, self.environment, account_id, ask, None, starts=found.starts
            )
        return await self.drive(begun) if is_driven else begun

    async def deposit(self, account_id: int, denomination: str = "tokens", engine: Engine | None = None) -> Payment:
        """Write a deposit down."""
        engine = engine or self.engine
        ask = payments.Deposit(denomination, GIVES, COSTS, "USD")
        async with engine.database.writing() as unit:
            return await payments.begin_deposit(engine, unit, self.environment, account_id, ask, None)

    async def refund(self, payment: Payment, amount: int | None = None) -> Refund:
        """Write a refund down."""
        async with self.engine.database.writing() as unit:
            return await refunds.begin_refund(
                self.engine,
                unit,
                self.environment,
                payment.account_id,
                payment.id,
                amount=amount,
                reason="asked for",
                once=None,
            )

    async def due(self, count: int) -> None:
        """``count`` accounts with a monthly refill and one by threshold, both due now."""
        owners = await asyncio.gather(*(self.customer() for _ in range(count)))
        await asyncio.gather(*(self.refill_monthly(owner) for owner in owners))
        self.clock.forward(days=32)
        for owner in owners:
            await self.refill_below(owner)

    async def pay_in_browser(self, payment: Payment) -> None:
        """The customer confirms an intent of ours with another card, without us."""
        assert payment.intent_id is not None
        account = self.stripe.door.book.account_of(self.key)
        customer = str(account.objects[payment.intent_id]["customer"])
        gateway = await self.engine.gateway_for(self.environment)
        self._cards += 1
        card = await gateway.attach_card(key=f"browser:{self._cards}", customer=customer, token="pm_card_amex")
        found = await gateway.confirm_intent(payment.intent_id, key=f"browser:{self._cards}:pay", card=card.gateway_id)
        assert found.status == "succeeded"

    async def by_hand(self, verb: Callable[..., Awaitable[Payment]], payment: Payment) -> Payment:
        """``payments.retry_payment`` or ``payments.void_payment``."""
        async with self.engine.database.writing() as unit:
            return await verb(self.engine, unit, self.environment, payment.account_id, payment.id)

    # --- working on it -----------------------------------------------------------------------------------------------

    async def drive(self, payment: Payment, engine: Engine | None = None) -> Payment:
        return await payments.drive(
            engine or self.engine, self.environment, payment.account_id, payment.id, fence=payment.fence
        )

    async def drive_refund(self, refund: Refund, engine: Engine | None = None) -> Refund:
        return await refunds.drive_refund(
            engine or self.engine, self.environment, refund.account_id, refund.id, fence=refund.fence
        )

    async def passes(self, engine: Engine) -> int:
        """One pass of each sweep that moves money."""
        done = 0
        for sweep in (refills.refill_due, payments.collect_due, refunds.refund_due):
            done += await sweep(engine, now=engine.now(), limit=LIMIT, environment_id=self.environment.id)
        return done

    async def sweep(self, engine: Engine | None = None) -> None:
        """Passes until one finds nothing to do at this moment of the made-up clock."""
        for _ in range(ROUNDS_MAX):
            if not await self.passes(engine or self.engine):
                return
        raise AssertionError("the sweeps always find something to do")

    async def recover(self, *engines: Engine) -> None:
        """Sweep, and let time pass, until nothing is due or in doubt; then one more minute must change nothing."""
        for _ in range(ROUNDS_MAX):
            await asyncio.gather(*(self.sweep(engine) for engine in engines))
            if not await self.unresolved():
                break
            self.clock.forward(seconds=LEASE_AND_A_BIT)
        assert not await self.unresolved(), f"after {ROUNDS_MAX} minutes: {await self.unresolved()}"
        self.clock.forward(seconds=60)
        for engine in engines:
            assert not await self.passes(engine), "a minute later there is something to do again"

    async def meanwhile(self, work: Callable[[World], Awaitable[None]]) -> None:
        """What another worker does."""
        other = await World.beside(self)
        try:
            await work(other)
        finally:
            await other.engine.close()

    def at(self, point: str, work: Callable[[World], Awaitable[None]]) -> Callable[[str], None]:
        """For ``engine.faults``: the first time at a point, another worker does something from start to end."""
        done: list[str] = []

        def reach(name: str) -> None:
            if name == point and not done:
                done.append(name)
                on_another_thread(lambda: self.meanwhile(work))

        return reach

    async def dying(self, engine: Engine, point: str | None) -> None:
        """One pass of each sweep by a worker to which ``point`` is deadly, whatever it has in hand at the time."""

        def reach(name: str) -> None:
            self.reached[name] += 1
            if name == point:
                raise Crash(name)

        engine.faults = reach
        at_once, payments.EACH = payments.EACH, LIMIT  # type: ignore[misc] # a pass may have all of one company
        for sweep in (refills.refill_due, payments.collect_due, refunds.refund_due):
            before = asyncio.all_tasks()
            with contextlib.suppress(Crash):
                await sweep(engine, now=engine.now(), limit=LIMIT, environment_id=self.environment.id)
            await asyncio.gather(*(asyncio.all_tasks() - before), return_exceptions=True)
        engine.faults, payments.EACH = None, at_once  # type: ignore[misc]

    # --- messages ----------------------------------------------------------------------------------------------------

    def messages(self) -> list[bytes]:
        """Every message of the simulator about this company so far, as it sends them."""
        account = self.stripe.door.book.account_of(self.key)
        return [msgspec.json.encode(event.shown(is_live=False)) for event in list(account.events.values())]

    def read(self, body: bytes, engine: Engine | None = None) -> GatewayEvent:
        """A message, signed and believed."""
        engine = engine or self.engine
        secrets = (engine.sandbox_secret(self.environment),)
        signature = signature_of(body, secret=secrets[0], at=engine.now())
        return read_event(body, signature, secrets=secrets, now=engine.now())

    async def deliver(self, bodies: Iterable[bytes], engine: Engine | None = None) -> None:
        """What the door does with messages that it believes, one after the other."""
        for body in bodies:
            await self.take(self.read(body, engine), engine)

    async def take(self, event: GatewayEvent, engine: Engine | None = None) -> None:
        engine = engine or self.engine
        if event.object_type == "payment_intent":
            found = await payments.take_intent_event(engine, self.environment, event)
            if found is not None:
                await self.drive(found, engine)
        elif event.object_type in {"dispute", "refund"}:
            await refunds.take_refund_event(engine, self.environment, event)

    # --- looking -----------------------------------------------------------------------------------------------------

    async def payments(self, *reasons: str) -> list[Payment]:
        """The company's payments, oldest first; of some reasons, or all."""
        rows = await self.company.rows(
            "select * from payment where environment_id = $1 order by id, account_id", self.environment.id
        )
        return [found for found in map(shelf.payment_of, rows) if not reasons or found.reason in reasons]

    async def payment(self, before: Payment) -> Payment:
        """A payment as it is now."""
        async with self.engine.database.reading() as reader:
            held = await shelf.read_payment(reader, before.account_id, before.id)
        assert held is not None
        return held.payment

    async def refunds(self) -> list[Refund]:
        names = ", ".join(Refund._fields)
        rows = await self.company.rows(f"select {names} from refund where environment_id = $1", self.environment.id)
        return [Refund(*row) for row in rows]

    async def refill(self, account_id: int, denomination: str = "tokens") -> Any:
        async with self.engine.database.reading() as reader:
            return await refill_shelf.read_refill(reader, account_id, denomination)

    async def available(self, account_id: int, denomination: str = "tokens") -> int:
        return (await self.company.balance(account_id, denomination)).amount

    async def unresolved(self) -> list[str]:
        """What is due, or in doubt: everything but a decline that waits for its date, and what waits for it."""
        now = self.engine.now_of(self.environment)
        found = [
            f"payment {p.id} is {p.status}"
            for p in await self.payments()
            if p.status in OPEN and not (p.status == "created" and p.declines and _is_far(p.next_attempt_at, now))
        ]
        found += [f"refund {r.id} is {r.status}" for r in await self.refunds() if r.status == "intended"]
        rows = await self.company.rows(
            "select account_id, denomination, due_at, next_at from refill where environment_id = $1"
            " and payment_id is null and parked_at is null and (due_at <= $2 or next_at <= $2)"
            " and not exists (select from payment p where p.account_id = refill.account_id and p.declines > 0"
            " and p.slot = refill.denomination and p.status = 'created')",
            self.environment.id,
            now,
        )
        return found + [f"refill due: {dict(row)}" for row in rows]

    async def disagreements(self) -> list[str]:
        """Where our book and the simulator's contradict each other: charges, credits, refunds and their sums."""
        book, paid = self.stripe.book(self.key), await self.payments()
        intents = {intent["id"]: intent["metadata"]["tenuto_payment"] for intent in book["payment_intents"]}
        charges: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for charge in book["charges"]:
            if charge["status"] == "succeeded":
                charges[intents[charge["payment_intent"]]].append(charge)
        moves = await self.company.rows(
            "select t.account_id, t.cause_id, t.book, t.amount from transaction t join account a on a.id = t.account_id"
            " where a.environment_id = $1 and t.cause_id is not null",
            self.environment.id,
        )
        caused: dict[tuple[int, int], list[asyncpg.Record]] = defaultdict(list)
        for move in moves:
            caused[move["account_id"], move["cause_id"]].append(move)
        found: list[str] = []
        for payment in paid:
            public = spell_of_account("pay", payment.account_id, payment.id)
            is_paid = payment.status == "succeeded"
            charged = [(c["amount"], c["id"]) for c in charges.pop(public, [])]
            if charged != ([(payment.amount, payment.charge_id)] if is_paid else []):
                found.append(f"{public} ({payment.status}) of {payment.amount} was charged {charged}")
            credited = [move["amount"] for move in caused.pop((payment.account_id, payment.id), [])]
            if credited != ([payment.units] if is_paid else []):
                found.append(f"{public} ({payment.status}) of {payment.units} units credited {credited}")
        found += [f"charged for nothing of ours: {public}" for public in charges]
        return found + self._refunds_that_disagree(book, await self.refunds(), caused)

    @staticmethod
    def _refunds_that_disagree(
        book: dict[str, Any], ours: Sequence[Refund], caused: dict[tuple[int, int], list[asyncpg.Record]]
    ) -> list[str]:
        found: list[str] = []
        theirs: dict[str, list[int]] = defaultdict(list)
        for refund in book["refunds"]:
            if refund["status"] in {"succeeded", "pending"}:
                theirs[refund["metadata"].get("tenuto_refund", "")].append(refund["amount"])
        for refund in ours:
            public = spell_of_account("re", refund.account_id, refund.id)
            taken = sum(move["amount"] for move in caused.pop((refund.account_id, refund.id), []))
            is_done = refund.status == "succeeded"
            if refund.kind == "refund" and theirs.pop(public, []) != ([refund.amount] if is_done else []):
                found.append(f"{public} ({refund.status}) of {refund.amount} is another at the provider")
            if taken != (-refund.units if is_done else 0):
                found.append(f"{public} ({refund.status}) of {refund.units} units took {taken}")
        found += [f"refunded for nothing of ours: {public}" for public in theirs]
        return found + [f"a move without a cause: {place}" for place in caused]


async def emptied(dsn: str) -> None:
    """Take every row away: much faster than another database."""
    connection = await asyncpg.connect(dsn)
    try:
        tables = await connection.fetch(
            "select tablename from pg_tables where schemaname = 'public' and tablename <> 'schema_migration'"
        )
        deletes = "".join(f"delete from {table['tablename']};" for table in tables)
        await connection.execute(f"begin; set local session_replication_role = replica; {deletes} commit")
    finally:
        await connection.close()


async def audited(dsn: str) -> None:
    """The product's audit, as ``tenuto audit`` runs it, without a process of its own."""
    database = await Database.connect(dsn)
    try:
        async with database.snapshot() as reader:
            planned = await audits.plan(reader)
            wrong = [await audits.run(reader, planned, check) for check in audits.CHECKS]
    finally:
        await database.close()
    found = [(check.name, one.findings) for check, one in zip(audits.CHECKS, wrong, strict=True) if one.total]
    assert found == []


async def _worker(dsn: str, clock: MadeUpClock, stripe: Simulated) -> Worker:
    settings = Settings(database=dsn, lanes=1, secret_key="ab" * 32, sandbox_url=stripe.url)
    found = Worker(settings, await Database.connect(dsn), clock)
    found.lanes = open_lanes(found)
    found.lanes.start()
    return found


def _is_far(at: datetime | None, now: datetime) -> bool:
    return at is not None and (at - now).total_seconds() > LEASE_AND_A_BIT


# --- stories that are told with every fault point ---------------------------------------------------------------------


async def recovered(world: World, refills_paid: int) -> None:
    """Other workers, who remember nothing, bring everything to its one right end."""
    async with world.worker() as fresh:
        await world.recover(fresh)
    await right(world, refills_paid)


async def right(world: World, refills_paid: int) -> None:
    """Both books agree, and so many refills were paid for."""
    assert await world.disagreements() == []
    paid = [found for found in await world.payments(*REFILLS) if found.status == "succeeded"]
    assert len(paid) == refills_paid
    places = [(found.account_id, found.denomination) for found in paid]
    for place in places:
        refill = await world.refill(*place)
        assert (refill.payment_id, refill.due_at, refill.parked_at) == (None, None, None)
        assert await world.available(*place) >= 0


def charges(world: World) -> Counter[str]:
    """How the charges in the simulator's book ended."""
    return Counter(charge["status"] for charge in world.stripe.book(world.key)["charges"])


async def waiting_for_cancel(world: World) -> Payment:
    """A refill that was declined and then given up: its intent is to be cancelled."""
    owner = await world.customer("pm_card_chargeCustomerFail")
    await world.refill_below(owner, "images")
    await world.sweep()
    (found,) = [payment for payment in await world.payments() if payment.account_id == owner]
    assert (found.status, found.declines) == ("created", 1)
    return await world.by_hand(payments.void_payment, found)


async def under_way(world: World, count: int) -> tuple[int, list[Payment]]:
    """Refills that are due, refunds that were asked for and payments that were given up: how many are to be paid."""
    given_up = [await waiting_for_cancel(world) for _ in range(max(1, count // 5))]
    await world.due(count)
    for start in await world.payments("refill_start"):
        await world.refund(start, COSTS // 3)
    await world.refill_monthly(await world.customer(), is_driven=False)
    return 2 * count, given_up


async def die(world: World, point: str, *, count: int, seed: int, is_forgotten: bool = False) -> None:
    """A worker dies at a point with whatever it has in hand; others bring everything to its one right end."""
    expected, given_up = await under_way(world, count)
    # Some confirmations are lost, before or after the card was charged, so that there is something to look up.
    for number, (kind, probability) in enumerate((("timeout_after_effect", 0.4), ("timeout_before_effect", 0.2))):
        world.stripe.fault(kind, route=CONFIRM, key=world.key)
        world.stripe.fault(kind, route=CONFIRM, key=world.key, probability=probability, seed=seed + number)
    async with world.worker() as doomed:
        await world.dying(doomed, point)
        if not world.reached[point]:
            world.clock.forward(seconds=LEASE_AND_A_BIT)
            await world.dying(doomed, point)
    assert world.reached[point], f"nothing that is told here comes to {point}"
    world.stripe.heal()
    if is_forgotten:
        world.stripe.advance(25 * 3600)
        world.clock.forward(hours=25)
    await recovered(world, expected)
    assert {(await world.payment(found)).status for found in given_up} == {"voided"}
    assert {refund.status for refund in await world.refunds()} == {"succeeded"}
    for start in await world.payments("refill_start"):
        refill = await world.refill(start.account_id, "minutes")
        assert (start.status, refill.is_monthly) == ("succeeded", True)
        assert refill.next_at > world.clock.at


# --- anything, in any order ------------------------------------------------------------------------------------------


class Storm:
    """Customers, a company, its provider and its workers doing one random thing after another, chosen by a seed."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.chance = world, random.Random(seed)
        self.log: list[str] = []
        self.owners: list[int] = []
        self._verbs = (
            *((self.use, 20), (self.work, 20), (self.wait, 7), (self.deposit, 5), (self.give_up, 1), (self.again, 2)),
            *((self.give_back, 3), (self.card, 6), (self.hear, 4), (self.break_something, 5), (self.argue, 1)),
            *((self.hold, 2), (self.forget, 1), (self.resume, 3), (self.change, 2), (self.end, 0.5)),
            *((self.take_card, 1), (self.revoke, 2)),
        )

    async def begin(self, count: int) -> None:
        for _ in range(count):
            owner = await self.world.customer()
            await self.world.refill_monthly(owner)
            await self.world.refill_below(owner)
            self.owners.append(owner)

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
        """Nothing goes wrong any more; good cards, and everything that was held is let on."""
        self.world.stripe.heal()
        self.world.engine.faults = None
        self.world.stripe.set_key(self.world.key, revoked=False)
        await self._resume()
        await self.hear(everything=True)
        async with self.world.worker() as fresh:
            await self.world.recover(fresh)
            await self.hear(everything=True)
            await self.world.recover(fresh)
        assert await self.disputes_untold() == []

    async def disputes_untold(self) -> list[str]:
        """Disputes at the provider that are not here just once, although there was something left to take back."""
        book, ours, paid = self.world.stripe.book(self.world.key), await self.world.refunds(), {}
        for payment in await self.world.payments():
            paid[payment.intent_id] = payment
        found: list[str] = []
        for dispute in book["disputes"]:
            here = [one for one in ours if one.gateway_id == dispute["id"]]
            is_won = dispute["status"] == "won"
            is_right = [one.status for one in here] == (["failed"] if is_won else ["succeeded"])
            payment = paid[dispute["payment_intent"]]
            others = sum(one.amount for one in ours if one.payment_id == payment.id and one.kind == "refund")
            if not is_right and not (not here and others >= payment.amount):
                found.append(f"{dispute['id']} ({dispute['status']}): {here}")
        return found

    def _owner(self) -> int:
        return self.chance.choice(self.owners)

    async def _payment(self) -> Payment:
        found = [one for one in await self.world.payments() if one.method == "card"]
        return self.chance.choice(found[-12:])

    def _deadly(self, name: str) -> None:
        if self.chance.random() < DEADLY:
            raise Crash(name)

    async def use(self) -> None:
        owner, denomination = self._owner(), self.chance.choice(("tokens", "minutes"))
        await self.world.company.adjust(owner, denomination, -self.chance.randint(GIVES // 4, GIVES))

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
            seconds=self.chance.choice((1, 5, 30, 61, 61, 61, 600, 3_600, 3_600, 90_000, 2_764_800))
        )

    async def deposit(self) -> None:
        begun = await self.world.deposit(self._owner(), self.chance.choice(("tokens", "minutes")))
        async with self.world.worker() as worker:
            worker.faults = self._deadly
            await self.world.drive(begun, worker)

    async def give_up(self) -> None:
        await self.world.drive(await self.world.by_hand(payments.void_payment, await self._payment()))

    async def again(self) -> None:
        await self.world.drive(await self.world.by_hand(payments.retry_payment, await self._payment()))

    async def give_back(self) -> None:
        paid = await self._payment()
        amount = self.chance.choice((None, 1, COSTS // 2, COSTS))
        await self.world.drive_refund(await self.world.refund(paid, amount))

    async def card(self) -> None:
        kinds = ("visa", "visa_debit", "mastercard", "mastercard_debit", "amex", "discover", "chargeCustomerFail")
        kind = self.chance.choice(kinds)
        await self.world.give_card(self._owner(), f"pm_card_{kind}")

    async def hear(self, *, everything: bool = False) -> None:
        """Some of the newest messages, or all there are twice, in any order; what is refused comes again later."""
        bodies = self.world.messages()
        told = bodies * 2 if everything else self.chance.choices(bodies[-40:], k=10)
        self.chance.shuffle(told)
        for body in told:
            with contextlib.suppress(Refusal):
                await self.world.deliver([body])

    async def break_something(self) -> None:
        kinds = ("timeout_after_effect", "timeout_before_effect", "500_before", "500_after_effect", "lock_timeout")
        terms: dict[str, Any] = {"key": self.world.key, "times": self.chance.randint(1, 4)}
        if self.chance.random() < DECLINED:
            code = self.chance.choice(("insufficient_funds", "lost_card", "generic_decline"))
            self.world.stripe.fault("decline", code=code, route=CONFIRM, **terms)
        else:
            self.world.stripe.fault(self.chance.choice(kinds), **terms)

    async def argue(self) -> None:
        paid = await self._payment()
        disputed = {one["payment_intent"] for one in self.world.stripe.book(self.world.key)["disputes"]}
        if paid.status != "succeeded" or paid.intent_id is None or paid.intent_id in disputed:
            return
        dispute = self.world.stripe.dispute(self.world.key, paid.intent_id)
        await self.world.deliver(self.world.messages()[-4:])
        if self.chance.random() < HALF:
            self.world.stripe.close_dispute(self.world.key, dispute["id"], self.chance.choice(("won", "lost")))
            await self.world.deliver(self.world.messages()[-4:])

    async def hold(self) -> None:
        if self.chance.random() < 2 * RARE:
            await self._resume()
            return
        async with self.world.engine.database.writing() as unit:
            await payments.suspend_capture(self.world.engine, unit, self.world.environment, self._owner())

    async def forget(self) -> None:
        self.world.stripe.advance(25 * 3600)

    async def resume(self) -> None:
        owner, denomination = self._owner(), self.chance.choice(("tokens", "minutes"))
        async with self.world.engine.database.writing() as unit:
            await refills.resume_refill(self.world.engine, unit, self.world.environment, owner, denomination)

    async def change(self) -> None:
        """Other settings of a refill, or a refill where there was none."""
        threshold, gives = self.chance.choice((50, 100, 2 * GIVES)), self.chance.choice((GIVES // 2, GIVES))
        await self.world.refill_below(self._owner(), threshold=threshold, gives=gives)

    async def end(self) -> None:
        async with self.world.engine.database.writing() as unit:
            await refills.end_refill(self.world.engine, unit, self.world.environment, self._owner(), "tokens")

    async def take_card(self) -> None:
        owner = self._owner()
        async with self.world.engine.database.writing() as unit:
            for card in (await shelf.list_cards(unit, owner))[:1]:
                await cards.remove_card(self.world.engine, unit, self.world.environment, owner, card.id)

    async def revoke(self) -> None:
        self.world.stripe.set_key(self.world.key, revoked=self.chance.random() < RARE)

    async def _resume(self) -> None:
        for owner in self.owners:
            async with self.world.engine.database.writing() as unit:
                await payments.resume_capture(
                    self.world.engine,
                    unit,
                    self.world.environment,
                    owner,
                    process=self.chance.random() < HALF,
                    limit=LIMIT,
                )
