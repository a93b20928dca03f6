"""A company in which everything has happened once that can happen to money, for the tests of the audit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from tenuto.core.invoice import ManualLine, TaxRate
from tenuto.core.payment import Payment
from tenuto.engine import Engine, Settings
from tenuto.gateway.port import GatewayEvent
from tenuto.service import cards, invoicing, payments, refills, refunds, webhooks
from tenuto.service.invoicing import TermsWanted
from tenuto.service.payments import Deposit
from tenuto.service.usage import open_lanes
from tenuto.service.webhooks import TopicAsk
from tenuto.store import accounts as shelf
from tenuto.store import deliveries
from tenuto.store.database import Database, Unit, migrate
from tenuto.store.payments import Refund
from tests.conftest import MadeUpClock
from tests.inside import Inside, event
from tests.simulated import Simulated

GOOD, REFUSED = "tok_visa", "pm_card_chargeCustomerFail"
TAXES = (TaxRate("VAT", "20", is_inclusive=False), TaxRate("Levy", "5.5", is_inclusive=True))


class Money:
    """A company in an engine of its own that pays, is paid, invoices and is disputed."""

    def __init__(self, engine: Engine, clock: MadeUpClock, company: Inside, stripe: Simulated) -> None:
        self.engine, self.clock, self.company, self.stripe = engine, clock, company, stripe
        self.disputes = 0

    @asynccontextmanager
    async def unit(self) -> AsyncIterator[Unit]:
        async with self.engine.database.writing() as unit:
            yield unit

    async def account(self, token: str = GOOD, **balances: int) -> int:
        account_id = await self.company.account(**balances)
        await self.card(account_id, token)
        return account_id

    async def card(self, account_id: int, token: str) -> None:
        given = await cards.give_card(
            self.engine, self.company.environment, account_id, token, f"{account_id} {token} {self.clock.at}"
        )
        await cards.keep_given(self.engine, self.company.environment, account_id, given)

    async def drive(self, payment: Payment) -> Payment:
        return await payments.drive(
            self.engine, self.company.environment, payment.account_id, payment.id, fence=payment.fence
        )

    async def deposit(self, account_id: int, denomination: str, units: int, amount: int) -> Payment:
        async with self.unit() as unit:
            ask = Deposit(denomination, units, amount, "USD")
            begun = await payments.begin_deposit(self.engine, unit, self.company.environment, account_id, ask, None)
        return await self.drive(begun)

    async def refund(self, payment: Payment, amount: int | None) -> Refund:
        async with self.unit() as unit:
            begun = await refunds.begin_refund(
                self.engine,
                unit,
                self.company.environment,
                payment.account_id,
                payment.id,
                amount=amount,
                reason="sorry",
                once=None,
            )
        done = await refunds.drive_refund(
            self.engine, self.company.environment, payment.account_id, begun.id, fence=begun.fence
        )
        assert done.status == "succeeded", done
        return done

    async def dispute(self, payment: Payment, amount: int, *, is_won: bool = False) -> None:
        self.disputes += 1
        for status in ("needs_response", "won") if is_won else ("needs_response",):
            await self.told("dispute", f"dp_{self.disputes}", status, payment, amount)

    async def told(self, kind: str, gateway_id: str, status: str, payment: Payment, amount: int) -> None:
        """A message of the provider about money that goes back."""
        said = GatewayEvent(
            id=f"evt_{gateway_id}_{status}",
            type=f"{kind}.updated",
            created_at=self.clock.at,
            is_live=False,
            object_type=kind,
            object_id=gateway_id,
            intent_id=payment.intent_id,
            status=status,
            amount=amount,
            currency="USD",
            reason="fraudulent",
        )
        await refunds.take_refund_event(self.engine, self.company.environment, said)

    async def refill(self, account_id: int, denomination: str, **changes: object) -> None:
        async with self.unit() as unit:
            made = await refills.set_refill(
                self.engine, unit, self.company.environment, account_id, denomination, changes
            )
        if made.starts is None:
            return
        async with self.unit() as unit:
            ask = Deposit(denomination, made.starts.amount, made.starts.charge_amount, "USD")
            begun = await payments.begin_deposit(
                self.engine, unit, self.company.environment, account_id, ask, None, starts=made.starts
            )
        assert (await self.drive(begun)).status == "succeeded"

    async def sweep(self, **forward: float) -> None:
        self.clock.forward(**forward)
        for work in (refills.refill_due, payments.collect_due, refunds.refund_due):
            await work(self.engine, now=self.clock.at, limit=100)

    async def invoice(self, account_id: int, quantity: int, *manual: ManualLine) -> int:
        """A final invoice's id."""
        draft = await self.draft(account_id, quantity, *manual)
        await self.about(invoicing.finalize_invoice, account_id, draft)
        return draft

    async def draft(self, account_id: int, quantity: int, *manual: ManualLine) -> int:
        await self.company.send(account_id, event("chat", str(quantity)), event("image", "2"))
        async with self.unit() as unit:
            made = await invoicing.cut_invoice(
                self.engine, unit, self.company.environment, account_id, currency="USD", manual=manual
            )
        return made.invoice.id

    async def about(
        self, verb: Callable[..., Awaitable[object]], account_id: int, invoice_id: int, **more: object
    ) -> None:
        async with self.unit() as unit:
            await verb(self.engine, unit, self.company.environment, account_id, invoice_id, **more)


@asynccontextmanager
async def money_books(dsn: str) -> AsyncIterator[Money]:
    """Fill an empty database. The clock starts at the real time, for the provider's is real."""
    await migrate(dsn)
    with Simulated() as stripe:
        clock = MadeUpClock(datetime.now(UTC))
        settings = Settings(database=dsn, lanes=2, sandbox_url=stripe.url, stripe_url=stripe.url, secret_key="0" * 64)
        engine = Engine(settings, await Database.connect(dsn), clock)
        engine.lanes = open_lanes(engine)
        engine.lanes.start()
        try:
            found = Money(engine, clock, await Inside.open(engine), stripe)
            await fill(found)
            yield found
        finally:
            await engine.close()


async def fill(money: Money) -> None:
    company = money.company
    await company.set_up(zone="Australia/Sydney")
    await company.price("chat", "USD", amount="2.7")
    await company.price("image", "USD", amount="1", per=7)
    await company.price("read", "credits", amount="1")
    await listen(money)
    await seal(money)
    await pay_in(money)
    await refill(money)
    await invoice(money)
    async with money.unit() as unit:
        while await deliveries.publish(unit, company.environment.id, money.clock.at):
            continue


async def listen(money: Money) -> None:
    """Somebody hears everything, and has for a while."""
    asked = {"url": "https://receiver.example.com/hook"}
    async with money.unit() as unit:
        await webhooks.create_webhook(money.engine, unit, money.company.environment, asked, [TopicAsk("*")])
    await money.company.look()
    money.clock.forward(minutes=2)


async def seal(money: Money) -> None:
    company_id, now = money.company.environment.company_id, money.clock.at
    async with money.unit() as unit:
        live_id = await shelf.insert_environment(unit, company_id=company_id, live=True, now=now)
    live = await money.engine.environment(live_id)
    assert live is not None
    kept: dict[str, object] = {
        name: money.engine.vault.seal("sk_live_0123456789abcdefghij", context=money.engine.context_of(live, name))
        for name in ("stripe_key", "stripe_webhook_secret")
    }
    async with money.unit() as unit:
        await cards.keep_stripe(money.engine, unit, live, kept | {"stripe_key_hint": "sk_live_…ghij"})


async def pay_in(money: Money) -> None:
    account_id = await money.account(credits=5)
    dollars = await money.deposit(account_id, "USD", 5_000, 5_000)
    tokens = await money.deposit(account_id, "credits", 300, 1_000)
    await money.refund(dollars, 700)
    await money.refund(tokens, 333)
    await money.refund(tokens, None)
    more = await money.deposit(account_id, "credits", 60, 600)
    bounced = await money.refund(more, 200)
    await money.told("refund", str(bounced.gateway_id), "failed", more, 200)
    await money.dispute(await money.deposit(account_id, "USD", 900, 900), 900)
    await money.dispute(await money.deposit(account_id, "credits", 77, 770), 500, is_won=True)
    await money.dispute(await money.deposit(account_id, "credits", 1, 1_000), 400)
    async with money.unit() as unit:
        await refills.deposit_from_balance(
            money.engine,
            unit,
            money.company.environment,
            account_id,
            denomination="credits",
            units=40,
            amount=100,
            source="USD",
        )
        await cards.make_link(money.engine, unit, money.company.environment, account_id, return_url=None)
    await money.card(account_id, "tok_mastercard")
    poor = await money.account(REFUSED)
    assert (await money.deposit(poor, "USD", 600, 600)).status == "failed"


async def refill(money: Money) -> None:
    account_id = await money.account(USD=9_000, tokens=10, credits=50)
    await money.refill(account_id, "credits", amount=100, charge_amount=500, threshold=20)
    await money.refill(account_id, "seats", amount=10, charge_amount=900, is_monthly=True)
    await money.refill(
        account_id,
        "tokens",
        amount=7,
        charge_amount=50,
        is_monthly=True,
        source="balance",
        charge_denomination="USD",
    )
    await money.company.send(account_id, event("read", "40"))
    await money.sweep()
    parked = await money.account(REFUSED, credits=5)
    await money.refill(parked, "credits", amount=100, charge_amount=500, threshold=20)
    skipped = await money.account(credits=5)
    async with money.unit() as unit:
        await payments.suspend_capture(money.engine, unit, money.company.environment, skipped)
    await money.refill(skipped, "credits", amount=100, charge_amount=500, threshold=20)
    waiting = await money.account(REFUSED, credits=5)
    for forward in ({"seconds": 1}, {"hours": 1.1}, {"hours": 25}, {"days": 40}):
        await money.sweep(**forward)
    await money.refill(waiting, "credits", amount=100, charge_amount=500, threshold=20)
    await money.sweep()


async def invoice(money: Money) -> None:
    account_id = await money.account(USD=100)
    async with money.unit() as unit:
        await invoicing.set_terms(
            money.engine, unit, money.company.environment, account_id, TermsWanted("USD", taxes=TAXES)
        )
    await money.about(
        invoicing.mark_paid,
        account_id,
        await money.invoice(account_id, 1_000, ManualLine("help", 77)),
        reference="wire",
    )
    void = await money.invoice(account_id, 300, ManualLine("more", 33))
    await money.about(invoicing.credit_invoice, account_id, void, amount=50, reason="late")
    await money.about(invoicing.void_invoice, account_id, void)
    charged = await money.invoice(account_id, 2_000)
    async with money.unit() as unit:
        begun = await invoicing.begin_payment(money.engine, unit, money.company.environment, account_id, charged)
    paid = await money.drive(begun)
    await money.refund(paid, 1_000)
    await money.about(invoicing.credit_invoice, account_id, charged, amount=20, reason="kind")
    async with money.unit() as unit:
        await invoicing.make_link(
            money.engine, unit, money.company.environment, account_id, charged, life=timedelta(days=1)
        )
    lost = await money.invoice(account_id, 400)
    await money.about(invoicing.give_up_invoice, account_id, lost)
    partly = await money.invoice(account_id, 600)
    await money.deposit(account_id, "USD", 100, 100)
    await money.about(invoicing.credit_invoice, account_id, partly, amount=10, reason="bulk")
    discarded = await money.draft(account_id, 20)
    await money.about(invoicing.discard_draft, account_id, discarded)
    await money.draft(account_id, 200)
