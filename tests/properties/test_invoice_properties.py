"""Whatever an account goes through: its invoices say exactly what was posted, and the balance exactly what is owed."""

from __future__ import annotations

import random
from typing import Final

import pytest

from tenuto.core.identifiers import spell_of_account
from tenuto.core.invoice import UNBILLED_BOOKS, ManualLine
from tenuto.core.outcomes import Refusal
from tenuto.engine import Engine
from tenuto.service import invoicing
from tenuto.service.invoicing import TermsWanted
from tenuto.store import invoices
from tenuto.store.invoices import WholeInvoice
from tests.conftest import MadeUpClock
from tests.core.account_life import fraction
from tests.inside import Inside, event, settle_for

STEPS: Final = 90
SEEDS: Final = range(12)
NOT_DUE: Final = {
    *("nothing_to_invoice", "not_latest_invoice", "invoice_not_draft", "invoice_not_open", "invoice_settled"),
    *("credit_exceeds_invoice", "out_of_range", "event_finished", "event_expired", "exceeds_reserved"),
}


class Story:
    """One account that pays by invoice, and dice."""

    def __init__(self, company: Inside, account_id: int, seed: int) -> None:
        self.company, self.account_id, self.dice = company, account_id, random.Random(seed)
        self.events: list[int] = []
        self.held: list[int] = []
        self.invoices: list[int] = []
        self.start = 0

    async def do(self, verb: str) -> None:
        try:
            await getattr(self, verb)()
        except Refusal as refusal:
            if refusal.code not in NOT_DUE:
                raise

    async def use(self) -> None:
        kind = self.dice.choice(["chat", "image", "both"])
        asked = await self.company.send(
            self.account_id, *(event(kind, str(self.dice.randint(1, 400))) for _ in range(self.dice.randint(1, 4)))
        )
        self.events += [found.id for found in asked.events]

    async def hold(self) -> None:
        asked = await self.company.send(self.account_id, event("chat", "300", state="pending"))
        self.held.append(asked.event.id)

    async def settle(self) -> None:
        if self.held:
            event_id = self.held.pop(self.dice.randrange(len(self.held)))
            await self.company.finish(self.account_id, event_id, settle_for(quantity=str(self.dice.randint(1, 300))))
            self.events.append(event_id)

    async def take_back(self) -> None:
        if self.events:
            event_id = self.events.pop(self.dice.randrange(len(self.events)))
            await self.company.void(self.account_id, event_id)

    async def adjust(self) -> None:
        await self.company.adjust(self.account_id, "USD", self.dice.choice([-70, -3, 5, 40]))

    async def cut(self) -> None:
        manual = [ManualLine("by hand", self.dice.randint(1, 90))] if self.dice.random() < 0.3 else []
        async with self.company.engine.database.writing() as unit:
            made = await invoicing.cut_invoice(
                self.company.engine, unit, self.company.environment, self.account_id, currency="USD", manual=manual
            )
        self.invoices.append(made.invoice.id)

    async def _about_one(self, verb: str, **more: object) -> None:
        if self.invoices:
            async with self.company.engine.database.writing() as unit:
                await getattr(invoicing, verb)(
                    self.company.engine,
                    unit,
                    self.company.environment,
                    self.account_id,
                    self.dice.choice(self.invoices),
                    **more,
                )

    async def finalize(self) -> None:
        await self._about_one("finalize_invoice")

    async def void(self) -> None:
        await self._about_one("void_invoice")

    async def pay(self) -> None:
        await self._about_one("mark_paid", reference="transfer")

    async def credit(self) -> None:
        await self._about_one("credit_invoice", amount=self.dice.randint(1, 200), reason="goodwill")

    async def discard(self) -> None:
        if self.invoices:
            before, self.dice = self.dice, random.Random(0)
            try:
                chosen, self.invoices = self.invoices, self.invoices[-1:]
                await self._about_one("discard_draft")
                chosen.pop()
            finally:
                self.invoices, self.dice = chosen, before

    async def found(self) -> list[WholeInvoice]:
        async with self.company.engine.database.reading() as reader:
            return [
                await invoices.read_whole(reader, invoice)
                for invoice_id in self.invoices
                if (
                    invoice := await invoices.read_invoice(
                        reader, self.company.environment.id, self.account_id, invoice_id
                    )
                )
            ]


@pytest.mark.parametrize("seed", SEEDS)
async def test_invoices_say_exactly_what_was_posted(engine: Engine, clock: MadeUpClock, seed: int) -> None:
    company = await Inside.open(engine)
    await company.price("chat", "USD", amount="2.7")
    await company.price("image", "USD", amount="1", per=7)
    await company.price("both", "credits", amount="1")
    await company.price("both", "USD", amount="0.33")
    account_id = await company.account(USD=0)
    async with engine.database.writing() as unit:
        terms = await invoicing.set_terms(engine, unit, company.environment, account_id, TermsWanted("USD", taxes=()))
    story = Story(company, account_id, seed)
    story.start = terms.invoiced_tick
    weights = dict.fromkeys(("settle", "cut", "finalize"), 4)
    weights |= dict.fromkeys(("take_back", "hold", "adjust", "pay", "credit"), 2) | {"use": 9, "void": 1, "discard": 1}
    for _ in range(STEPS):
        clock.forward(seconds=1)
        await story.do(story.dice.choices(list(weights), list(weights.values()))[0])
        await _everything_agrees(story)
    assert len(story.invoices) > 1  # otherwise the dice told no story


async def _everything_agrees(story: Story) -> None:
    company, account_id = story.company, story.account_id
    found = await story.found()
    (terms,) = await company.rows("select invoiced_tick from invoice_terms where account_id = $1", account_id)
    posted = await company.rows(
        "select t.id <= $4 as is_invoiced, sum(t.amount)::bigint as amount from transaction t where t.account_id = $1"
        " and t.denomination = 'USD' and t.id > $2 and t.book <> all($3) group by 1",
        account_id,
        story.start,
        list(UNBILLED_BOOKS),
        terms["invoiced_tick"],
    )
    moved = {row["is_invoiced"]: row["amount"] for row in posted}
    billed = sum(line.amount for whole in found for line in whole.lines if line.kind != "manual")
    assert billed == -moved.get(True, 0)
    for whole in found:
        invoice = whole.invoice
        assert invoice.total == sum(line.amount for line in whole.lines) + invoice.tax
        assert sum(note.amount for note in whole.credit_notes) <= invoice.total
        assert sum(part.amount for part in whole.payments) == invoice.amount_paid
        assert (invoice.status == "paid") <= (invoice.remaining == 0)
        for line in whole.lines:
            if line.exact is not None:
                assert abs(fraction(line.exact) - line.amount) <= 1, spell_of_account("inv", account_id, invoice.id)
    numbers = sorted(whole.invoice.number for whole in found if whole.invoice.number is not None)
    assert numbers == [f"INV-{number:06d}" for number in range(1, len(numbers) + 1)]
    # Whatever is owed and was invoiced is waited for by some invoice; what is not waited for is not owed.
    waiting = sum(whole.invoice.remaining for whole in found)
    drafted = sum(
        line.amount
        for whole in found
        if whole.invoice.status == "draft"
        for line in whole.lines
        if line.kind != "manual"
    )
    balance = await company.balance(account_id, "USD")
    assert balance.amount - moved.get(False, 0) + drafted + waiting >= 0
