"""Overage on invoices: what was not included stands on lines of its own, and what is taken back comes off again."""

from __future__ import annotations

from typing import Any

import asyncpg

from tenuto.server import Server
from tenuto.store import audit
from tests.client import Company
from tests.subscribed import subscribe

BALANCES = {"gb": {"amount": 1, "overage_charge_amount": "33.3", "overage_charge_denomination": "USD"}}


def invoiced(company: Company, account: str) -> list[Any]:
    draft = company.call("POST", f"/v1/accounts/{account}/invoices", {"currency": "USD"})
    assert draft.status == 200, draft
    assert company.call("POST", f"/v1/invoices/{draft.data['id']}/finalize").status == 200
    return list(company.call("GET", f"/v1/invoices/{draft.data['id']}").data["lines"])


async def wrongs(dsn: str) -> list[audit.Finding]:
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction(isolation="repeatable_read"):
            planned = await audit.plan(connection)
            return [
                finding
                async for outcome in audit.outcomes(connection, planned)
                for finding in outcome.findings
                if outcome.check in {"billed", "lines", "totals", "residue", "overages", "prices"}
            ]
    finally:
        await connection.close()


async def test_overage_is_billed_and_taken_back(company: Company, service: Server) -> None:
    company.price("STORE", "gb", "1")
    company.price("CHAT", "USD", "0.5")
    account = company.account(gb=1)
    company.call("PUT", f"/v1/accounts/{account}/invoicing", {"currency": "USD"})
    subscribe(service.dsn, account, company.plan(balances=BALANCES))
    assert company.send(account, type="STORE", quantity=3).status == 200
    later = company.send(account, type="STORE", quantity=2).data["id"]
    hold = company.send(account, type="STORE", quantity=5, state="pending").data["id"]
    assert company.call("PUT", f"/v1/events/{hold}", {"state": "complete", "quantity": 4}).status == 200
    assert company.send(account, type="CHAT", quantity=3).status == 200

    lines = {line["description"]: (line["kind"], line["amount"]) for line in invoiced(company, account)}
    # 8 units at 33.3 are 266.4, and 1.5 for the chat: 267.9 in all, 267 of it posted.
    assert lines == {"CHAT": ("usage", 1), "STORE, overage of gb": ("usage", 266)}

    for event in (later, hold):
        assert company.call("DELETE", f"/v1/events/{event}").status == 200
    assert company.send(account, type="CHAT", quantity=1000).status == 200
    lines = {line["description"]: (line["kind"], line["amount"]) for line in invoiced(company, account)}
    assert lines["STORE, overage of gb, taken back"][0] == "reversal"
    # 500 less 199.8, and 0.9 that was owed before.
    assert sum(amount for _, amount in lines.values()) == 301
    assert await wrongs(service.dsn) == []
