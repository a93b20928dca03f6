"""Several clockworks at once do what one does: one draft a month, one number each, one payment."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from tenuto.core.identifiers import spell_of_account
from tenuto.engine import Engine
from tenuto.service import invoicing
from tenuto.service.invoicing import TermsWanted
from tests.conftest import MadeUpClock
from tests.inside import Inside, event

ACCOUNTS = 6
CLOCKWORKS = 4


async def test_several_clockworks_cut_and_number_once(engine: Engine, clock: MadeUpClock) -> None:
    company = await Inside.open(engine)
    await company.price("chat", "USD", amount="1")
    for _ in range(ACCOUNTS):
        account_id = await company.account(USD=0)
        async with engine.database.writing() as unit:
            await invoicing.set_terms(engine, unit, company.environment, account_id, TermsWanted("USD"))
        await company.send(account_id, event("chat", "100"))
    clock.forward(days=31)

    async def sweep_all() -> None:
        now = engine.now()
        for sweep in (invoicing.cut_invoices, invoicing.finalize_invoices, invoicing.dun_invoices):
            await asyncio.gather(*(sweep(engine, now=now, limit=100) for _ in range(CLOCKWORKS)))

    await sweep_all()
    rows = await company.rows("select status, total from invoice")
    assert [tuple(row) for row in rows] == [("draft", 100)] * ACCOUNTS
    clock.forward(seconds=3600)
    await sweep_all()
    rows = await company.rows("select number, status from invoice order by number")
    assert [tuple(row) for row in rows] == [(f"INV-{number:06d}", "open") for number in range(1, ACCOUNTS + 1)]
    await sweep_all()
    assert len(await company.rows("select from invoice")) == ACCOUNTS


async def test_events_that_come_while_it_is_cut_are_on_one_invoice_or_the_next(
    engine: Engine, clock: MadeUpClock
) -> None:
    company = await Inside.open(engine)
    await company.price("chat", "USD", amount="1")
    account_id = await company.account(USD=0)
    async with engine.database.writing() as unit:
        await invoicing.set_terms(engine, unit, company.environment, account_id, TermsWanted("USD"))

    async def use() -> None:
        for _ in range(40):
            await company.send(account_id, event("chat", "3"))

    async def cut() -> None:
        for _ in range(10):
            clock.at += timedelta(milliseconds=1)
            async with engine.database.writing() as unit:
                if await company.rows("select from transaction where account_id = $1 limit 1", account_id):
                    made = await invoicing.cut_invoice(
                        engine, unit, company.environment, account_id, currency="USD", manual=()
                    )
                    assert made.invoice.total % 3 == 0, spell_of_account("inv", account_id, made.invoice.id)
            await asyncio.sleep(0.002)
            await company.send(account_id, event("chat", "3"))

    await asyncio.gather(use(), use(), cut())
    async with engine.database.writing() as unit:
        await invoicing.cut_invoice(engine, unit, company.environment, account_id, currency="USD")
    (row,) = await company.rows("select sum(total)::bigint as total from invoice where account_id = $1", account_id)
    assert row["total"] == 90 * 3
