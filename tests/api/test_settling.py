"""What money does besides filling a balance: it pays invoices, wakes refills, and finds room or is not asked for."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from tenuto.core.identifiers import read
from tenuto.core.money import BALANCE_MAX
from tenuto.server import Server
from tests.client import Company
from tests.simulated import Simulated


def status(company: Company, invoice_id: str) -> str:
    return str(company.call("GET", f"/v1/invoices/{invoice_id}").data["status"])


def test_a_deposit_in_another_currency_pays_the_invoice_too(company: Company) -> None:
    account_id = company.account()
    company.card(account_id)
    invoice_id = company.invoice(account_id)
    body = {"denomination": "USD", "amount_to_deposit": 600, "amount_to_charge": 550, "currency": "EUR"}
    assert company.call("POST", f"/v1/accounts/{account_id}/deposit", body).status == 200
    assert (status(company, invoice_id), company.balance(account_id, "USD")["amount"]) == ("paid", 0)
    assert company.call("POST", f"/v1/invoices/{invoice_id}/pay", {}).status == 409


def test_what_another_balance_buys_pays_the_invoice_too(company: Company) -> None:
    account_id = company.account(credits=100)
    invoice_id = company.invoice(account_id)
    body = {
        "denomination": "USD",
        "amount_to_deposit": 600,
        "amount_to_charge": 60,
        "charge_against_denomination": "credits",
    }
    once = {"idempotency-key": "buy"}
    bought = company.call("POST", f"/v1/accounts/{account_id}/deposit", body, once)
    assert (bought.status, bought.data["balance"]["amount"]) == (200, 0)
    assert (status(company, invoice_id), company.balance(account_id, "credits")["amount"]) == ("paid", 40)
    assert company.call("POST", f"/v1/accounts/{account_id}/deposit", body, once).raw == bought.raw
    assert company.balance(account_id, "credits")["amount"] == 40


def test_a_debit_while_a_refill_is_open_is_a_need_of_its_own(company: Company, stripe: Simulated) -> None:
    account_id = company.account(credits=150)
    company.card(account_id, "pm_card_simulatorProcessing")
    company.price("CHAT", "credits", "1")
    terms = {"threshold": 100, "amount": 10, "usd_charge": 100}
    assert company.call("PUT", f"/v1/accounts/{account_id}/balance/credits/autorefill", terms).status == 200

    def forward(seconds: int) -> None:
        moved = company.call("POST", "/v1/companies/{company}/clock", {"advance_seconds": seconds})
        assert moved.status == 200, moved

    def payments() -> list[str]:
        found = company.call("GET", f"/v1/accounts/{account_id}/payments").data
        return [payment["status"] for payment in found]

    company.send(account_id, type="CHAT", quantity=60)
    forward(1)
    assert payments() == ["pending"]
    company.send(account_id, type="CHAT", quantity=5)
    forward(1)
    assert payments() == ["pending"], "one at a time"
    stripe.release()
    forward(120)
    assert payments() == ["pending", "succeeded"], "95 is still below 100, and a debit came meanwhile"
    stripe.release()
    forward(120)
    assert payments() == ["succeeded", "succeeded"]
    assert company.balance(account_id, "credits")["amount"] == 105


@pytest.mark.parametrize("units", [1, 10**15])
def test_a_balance_without_room_refuses_before_the_card_is_charged(
    company: Company, service: Server, stripe: Simulated, units: int
) -> None:
    account_id = company.account(full=1)
    company.card(account_id)
    number = read("a", account_id)

    async def fill(amount: int) -> None:
        connection = await asyncpg.connect(service.dsn)
        try:
            await connection.execute("update balance set amount = $2 where account_id = $1", number, amount)
            await connection.execute("update account set tick = tick + 1 where id = $1", number)
        finally:
            await connection.close()

    asyncio.run(fill(BALANCE_MAX - units + 1))
    body = {"denomination": "full", "amount_to_deposit": units, "amount_to_charge": 500}
    refused = company.call("POST", f"/v1/accounts/{account_id}/deposit", body)
    assert (refused.status, refused.code) == (422, "balance_out_of_range")
    assert company.call("GET", f"/v1/accounts/{account_id}/payments").data == []
    asyncio.run(fill(1))
    assert stripe.book(f"sk_test_sandbox{company.id[2:]}")["payment_intents"] == []


def test_a_free_refill_is_no_refund(company: Company) -> None:
    account_id = company.account()
    terms = {"refill_monthly": True, "amount": 10, "usd_charge": 0}
    reply = company.call("PUT", f"/v1/accounts/{account_id}/balance/credits/autorefill", terms)
    assert (reply.status, reply.data["amount"]) == (200, 10)
    (payment,) = company.call("GET", f"/v1/accounts/{account_id}/payments").data
    assert (payment["status"], payment["amount"]) == ("succeeded", 0)


# --- what was skipped and is wanted no more ---------------------------------------------------------------------------


def post(company: Company, path: str, body: object = None) -> object:
    reply = company.call("POST", f"/v1{path}", {} if body is None else body)
    assert reply.status == 200, reply
    return reply.data


def test_a_skipped_capture_of_more_than_is_owed_is_replaced_by_one_of_what_is(company: Company) -> None:
    account_id = company.account()
    company.card(account_id)
    post(company, f"/accounts/{account_id}/suspend_capture")
    terms = {"currency": "USD", "collection": "charge_automatically"}
    assert company.call("PUT", f"/v1/accounts/{account_id}/invoicing", terms).status == 200
    usage = {"type": "USED", "cost_override_amount": 600, "cost_override_denomination": "USD"}
    assert company.send(account_id, usage).status == 200
    invoice = company.call("POST", f"/v1/accounts/{account_id}/invoices", {"currency": "USD"}).data["id"]
    post(company, f"/invoices/{invoice}/finalize")
    post(company, f"/companies/{company.id}/clock", {"advance_seconds": 10})
    company.deposit(account_id, 100, 100, "USD")
    post(company, f"/accounts/{account_id}/resume_capture", {"skipped": "process"})
    post(company, f"/companies/{company.id}/clock", {"advance_seconds": 3 * 86_400})
    assert (status(company, invoice), company.balance(account_id, "USD")["amount"]) == ("paid", 0)
    found = company.call("GET", f"/v1/accounts/{account_id}/payments").data
    assert sorted((payment["amount"], payment["status"]) for payment in found) == [
        (100, "succeeded"),
        (500, "succeeded"),
        (600, "voided"),
    ]


def test_a_skipped_refill_is_not_charged_once_the_balance_was_filled_otherwise(company: Company) -> None:
    account_id = company.account(credits=150)
    company.card(account_id)
    company.price("CHAT", "credits", "1")
    terms = {"threshold": 100, "amount": 1000, "usd_charge": 500}
    assert company.call("PUT", f"/v1/accounts/{account_id}/balance/credits/autorefill", terms).status == 200
    post(company, f"/accounts/{account_id}/suspend_capture")
    company.send(account_id, type="CHAT", quantity=100)
    post(company, f"/companies/{company.id}/clock", {"advance_seconds": 5})
    company.deposit(account_id)
    post(company, f"/accounts/{account_id}/resume_capture", {"skipped": "process"})
    post(company, f"/companies/{company.id}/clock", {"advance_seconds": 60})
    assert company.balance(account_id, "credits")["amount"] == 1050
