"""Captures of invoices that end otherwise, are given up or given back: nobody pays twice, nobody is paid twice."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from tenuto.core.identifiers import read_of_account
from tenuto.core.money import AMOUNT_MAX, BALANCE_MAX
from tenuto.server import Server
from tests.client import Client, Company, Reply

DAY = 86_400
GOOD, REFUSED, SLOW = "tok_visa", "pm_card_chargeCustomerFail", "pm_card_simulatorProcessing"

ENDS = {
    "mark_paid": {"reference": "transfer 1"},
    "void": None,
    "credit_notes": {"amount": 600, "reason": "an outage"},
}
"""What ends a claim of 600 without the card."""


def ask(company: Company, method: str, path: str, body: object = None) -> Any:
    reply = company.call(method, f"/v1{path}", body)
    assert reply.status == 200, reply
    return reply.data


def pay(company: Company, invoice_id: str) -> Reply:
    return company.call("POST", f"/v1/invoices/{invoice_id}/pay")


def press(company: Company, invoice_id: str) -> str:
    """Press the button of the hosted page; what it says then."""
    url = ask(company, "POST", f"/invoices/{invoice_id}/link")["url"]
    path = url[url.index("/i/") :]
    reply = company.client.call("POST", f"{path}/pay", b"", {"content-type": "application/x-www-form-urlencoded"})
    assert reply.status == 303, reply
    return str(reply.headers["location"].rpartition("=")[2])


def forward(company: Company, seconds: int = 1) -> None:
    """Let the clock do all that is due."""
    ask(company, "POST", f"/companies/{company.id}/clock", {"advance_seconds": seconds})


def customer(company: Company, token: str = GOOD, **terms: object) -> str:
    """An account with a card that pays by invoice."""
    account_id = company.account(USD=0)
    company.card(account_id, token)
    ask(company, "PUT", f"/accounts/{account_id}/invoicing", {"currency": "USD", **terms})
    return account_id


def invoice(company: Company, account_id: str, amount: int = 600) -> str:
    """The id of a final invoice of an amount."""
    usage = {"type": "USED", "cost_override_amount": amount, "cost_override_denomination": "USD"}
    assert company.send(account_id, usage).status == 200
    draft = ask(company, "POST", f"/accounts/{account_id}/invoices", {"currency": "USD"})
    return str(ask(company, "POST", f"/invoices/{draft['id']}/finalize")["id"])


def end(company: Company, invoice_id: str, how: str) -> Reply:
    return company.call("POST", f"/v1/invoices/{invoice_id}/{how}", ENDS[how])


def status(company: Company, invoice_id: str) -> str:
    return str(ask(company, "GET", f"/invoices/{invoice_id}")["status"])


def payments(company: Company, account_id: str, method: str = "card") -> list[tuple[str, int]]:
    """Status and amount of the payments of an account, oldest first."""
    rows = reversed(ask(company, "GET", f"/accounts/{account_id}/payments"))
    return [(row["status"], row["amount"]) for row in rows if row["method"] == method]


def taken(company: Company, account_id: str) -> int:
    """What the card was charged."""
    return sum(amount for state, amount in payments(company, account_id) if state in {"succeeded", "refunded"})


# --- given up ---------------------------------------------------------------------------------------------------------


def test_a_given_up_invoice_is_paid_once(company: Company) -> None:
    account_id = customer(company)
    invoice_id = invoice(company, account_id)
    ask(company, "POST", f"/invoices/{invoice_id}/uncollectible")

    paid = pay(company, invoice_id)
    assert (paid.status, paid.data["status"], paid.data["remaining"]) == (200, "paid", 0)
    assert [pay(company, invoice_id).code for _ in range(2)] == ["invoice_settled"] * 2
    assert press(company, invoice_id) == "refused"
    assert (taken(company, account_id), company.balance(account_id, "USD")["amount"]) == (600, 0)


def test_a_given_up_invoice_is_paid_once_on_its_page(company: Company) -> None:
    account_id = customer(company)
    invoice_id = invoice(company, account_id)
    ask(company, "POST", f"/invoices/{invoice_id}/uncollectible")

    assert [press(company, invoice_id) for _ in range(3)] == ["done", "refused", "refused"]
    assert (status(company, invoice_id), taken(company, account_id)) == ("paid", 600)


def test_money_pays_the_oldest_first_whether_it_was_given_up_or_not(company: Company) -> None:
    account_id = customer(company)
    first, second = invoice(company, account_id), invoice(company, account_id, 1000)
    ask(company, "POST", f"/invoices/{first}/uncollectible")
    assert ask(company, "GET", f"/accounts/{account_id}")["owed_balance"] == 1000, "what was given up is not owed"

    assert press(company, second) == "older"
    assert (status(company, first), status(company, second)) == ("paid", "open")
    assert ask(company, "GET", f"/invoices/{second}")["remaining"] == 600
    assert press(company, second) == "done"
    assert taken(company, account_id) == 1600


def test_what_is_given_up_is_not_charged_by_itself(company: Company) -> None:
    account_id = customer(company)
    first = invoice(company, account_id)
    ask(company, "POST", f"/invoices/{first}/uncollectible")
    ask(company, "PUT", f"/accounts/{account_id}/invoicing", {"currency": "USD", "collection": "charge_automatically"})
    second = invoice(company, account_id, 1000)

    forward(company)
    # The capture is of the second alone, and what came in paid the first before it: the rest is asked for a day later.
    assert payments(company, account_id)[0] == ("succeeded", 1000)
    forward(company, DAY + 1)
    assert (status(company, first), status(company, second)) == ("paid", "paid")
    assert (taken(company, account_id), company.balance(account_id, "USD")["amount"]) == (1600, 0)


# --- a capture whose invoice ends otherwise ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", ENDS)
def test_a_capture_that_waits_after_a_decline_ends_with_its_invoice(company: Company, how: str) -> None:
    account_id = customer(company, REFUSED)
    invoice_id = invoice(company, account_id)
    assert pay(company, invoice_id).code == "payment_failed"
    assert payments(company, account_id) == [("pending", 600)]

    assert end(company, invoice_id, how).status == 200
    company.card(account_id, GOOD)
    forward(company, 3 * DAY)
    assert payments(company, account_id) == [("voided", 600)]
    assert company.balance(account_id, "USD")["amount"] == 0
    (payment,) = [row for row in ask(company, "GET", f"/accounts/{account_id}/payments") if row["method"] == "card"]
    assert company.call("POST", f"/v1/payments/{payment['id']}/retry").code == "payment_not_retryable"


@pytest.mark.parametrize("how", ENDS)
def test_a_skipped_capture_ends_with_its_invoice(company: Company, how: str) -> None:
    account_id = customer(company, collection="charge_automatically")
    ask(company, "POST", f"/accounts/{account_id}/suspend_capture")
    invoice_id = invoice(company, account_id)
    forward(company)
    assert payments(company, account_id) == [("skipped", 600)]

    assert end(company, invoice_id, how).status == 200
    ask(company, "POST", f"/accounts/{account_id}/resume_capture", {"skipped": "process"})
    forward(company, 3 * DAY)
    assert payments(company, account_id) == [("voided", 600)]
    assert company.balance(account_id, "USD")["amount"] == 0


@pytest.mark.parametrize("how", ENDS)
def test_while_the_bank_has_the_money_an_invoice_does_not_end_otherwise(company: Company, how: str) -> None:
    account_id = customer(company, SLOW)
    invoice_id = invoice(company, account_id)
    assert pay(company, invoice_id).status == 202

    refused = end(company, invoice_id, how)
    assert (refused.status, refused.code) == (409, "payment_in_progress")
    assert status(company, invoice_id) == "open"


def test_what_else_a_given_up_capture_was_for_is_collected_again(company: Company) -> None:
    account_id = customer(company, collection="charge_automatically")
    ask(company, "POST", f"/accounts/{account_id}/suspend_capture")
    first, second = invoice(company, account_id), invoice(company, account_id, 1000)
    forward(company)
    asked = sum(amount for _, amount in payments(company, account_id))
    assert asked in {600, 1600}  # the clockwork may have been there between the two

    assert end(company, first, "mark_paid").status == 200
    ask(company, "POST", f"/accounts/{account_id}/resume_capture", {"skipped": "process"})
    forward(company, DAY + 1)
    forward(company, DAY + 1)
    assert (status(company, second), taken(company, account_id)) == ("paid", 1000)


# --- suspended captures -----------------------------------------------------------------------------------------------


def test_suspended_captures_do_not_stop_who_pays_by_hand(company: Company) -> None:
    account_id = customer(company)
    ask(company, "POST", f"/accounts/{account_id}/suspend_capture")
    first = invoice(company, account_id)
    assert pay(company, first).data["status"] == "paid"
    second = invoice(company, account_id)
    assert press(company, second) == "done"
    assert status(company, second) == "paid"
    assert payments(company, account_id) == [("succeeded", 600)] * 2


@pytest.mark.parametrize("is_hosted", [False, True])
def test_a_skipped_capture_makes_room_for_who_pays_by_hand(company: Company, *, is_hosted: bool) -> None:
    account_id = customer(company, collection="charge_automatically")
    ask(company, "POST", f"/accounts/{account_id}/suspend_capture")
    invoice_id = invoice(company, account_id)
    forward(company)
    assert payments(company, account_id) == [("skipped", 600)]

    assert press(company, invoice_id) == "done" if is_hosted else pay(company, invoice_id).status == 200
    assert status(company, invoice_id) == "paid"
    ask(company, "POST", f"/accounts/{account_id}/resume_capture", {"skipped": "process"})
    forward(company, 3 * DAY)
    assert payments(company, account_id) == [("voided", 600), ("succeeded", 600)]


def test_the_page_says_refused_where_the_card_was(company: Company) -> None:
    invoice_id = invoice(company, customer(company, REFUSED))
    assert press(company, invoice_id) == "refused"
    assert status(company, invoice_id) == "open"


# --- dunning ----------------------------------------------------------------------------------------------------------


def dunned(company: Company, action: str) -> tuple[str, str]:
    """An account that dunning has closed, and its invoice."""
    ask(company, "PUT", f"/companies/{company.id}", {"invoicing": {"dunning": [{"days": 1, "action": action}]}})
    account_id = customer(company)
    invoice_id = invoice(company, account_id)
    forward(company, 40 * DAY)
    return account_id, invoice_id


def test_money_for_a_given_up_invoice_lifts_what_dunning_did(company: Company) -> None:
    account_id, invoice_id = dunned(company, "pause")
    ask(company, "POST", f"/invoices/{invoice_id}/uncollectible")
    assert ask(company, "GET", f"/accounts/{account_id}")["paused"]

    company.deposit(account_id, 6000, 6000, "USD")
    assert status(company, invoice_id) == "paid"
    assert not ask(company, "GET", f"/accounts/{account_id}")["paused"]
    assert company.balance(account_id, "USD")["amount"] == 5400


def test_relief_is_judged_when_money_comes_in_that_settles_nothing(company: Company) -> None:
    account_id, invoice_id = dunned(company, "credit_block")
    assert ask(company, "GET", f"/accounts/{account_id}")["credit_blocked"]
    ask(company, "PUT", f"/accounts/{account_id}", {"credit_limit": 1000})

    body = {"amount_to_deposit": 500, "amount_to_charge": 500, "denomination": "EUR", "currency": "EUR"}
    ask(company, "POST", f"/accounts/{account_id}/deposit", body)
    assert status(company, invoice_id) == "open"
    assert not ask(company, "GET", f"/accounts/{account_id}")["credit_blocked"]


# --- bounds -----------------------------------------------------------------------------------------------------------


def lines(*amounts: int) -> list[dict[str, object]]:
    return [{"description": f"part {index}", "amount": amount} for index, amount in enumerate(amounts)]


def out_of_range(reply: Reply, path: str) -> None:
    assert (reply.status, reply.code, reply.details["path"]) == (422, "out_of_range", path)


def test_an_invoice_stays_within_what_an_amount_may_be(company: Company) -> None:
    account_id = customer(company)
    draft_of = f"/v1/accounts/{account_id}/invoices"
    out_of_range(company.call("POST", draft_of, {"lines": lines(AMOUNT_MAX, 1)}), "lines")
    out_of_range(company.call("POST", draft_of, {"lines": lines(AMOUNT_MAX, 1), "preview": True}), "lines")
    draft = ask(company, "POST", draft_of.removeprefix("/v1"), {"lines": lines(AMOUNT_MAX)})
    path = f"/v1/invoices/{draft['id']}"
    out_of_range(company.call("PUT", path, {"lines": lines(AMOUNT_MAX, AMOUNT_MAX)}), "lines")
    out_of_range(company.call("PUT", path, {"taxes": [{"name": "VAT", "amount": 1}]}), "taxes")
    assert company.call("PUT", path, {"memo": "as large as can be"}).status == 200
    small = {"lines": lines(AMOUNT_MAX - 10), "taxes": [{"name": "VAT", "amount": 10}]}
    assert company.call("PUT", path, small).data["total"] == AMOUNT_MAX
    out_of_range(company.call("PUT", path, {"lines": lines(AMOUNT_MAX)}), "lines")
    assert ask(company, "POST", f"/invoices/{draft['id']}/finalize")["total"] == AMOUNT_MAX


def test_a_tax_that_takes_the_total_too_far_is_refused(company: Company) -> None:
    tax = {"name": "VAT", "rate": "100"}
    ask(company, "PUT", f"/companies/{company.id}", {"invoicing": {"taxes": [tax]}})
    account_id = customer(company)
    made = company.call("POST", f"/v1/accounts/{account_id}/invoices", {"lines": lines(AMOUNT_MAX)})
    out_of_range(made, "lines")
    for wrong in ([{**tax, "rate": "100.1"}], [{**tax, "rate": "-1"}], [tax] * 21):
        reply = company.call("PUT", f"/v1/companies/{company.id}", {"invoicing": {"taxes": wrong}})
        assert reply.status == 422, wrong


def test_a_draft_that_the_balance_has_no_room_for_keeps_no_later_one(service: Server) -> None:
    async def sink(account: int, amount: int) -> None:
        connection = await asyncpg.connect(service.settings.database)
        try:
            await connection.execute(
                "update balance set amount = amount + $2 where account_id = $1 and denomination = 'USD'",
                account,
                amount,
            )
        finally:
            await connection.close()

    with Client(*service.address) as client:
        company = Company.open(client)
        account_id = customer(company)
        made = ask(company, "POST", f"/accounts/{account_id}/invoices", {"lines": lines(5000)})
        account, _ = read_of_account("inv", made["id"]) or (0, 0)
        usage = {"type": "USED", "cost_override_amount": 7, "cost_override_denomination": "USD"}
        assert company.send(account_id, usage).status == 200
        later = ask(company, "POST", f"/accounts/{account_id}/invoices", {})
        asyncio.run(sink(account, 1000 - BALANCE_MAX))
        try:
            assert company.call("POST", f"/v1/invoices/{made['id']}/finalize").code == "balance_out_of_range"
            out_of_range(company.call("PUT", f"/v1/invoices/{made['id']}", {"lines": lines(6000)}), "lines")
            forward(company, 2 * 3600)
            assert (status(company, made["id"]), status(company, later["id"])) == ("draft", "open")
        finally:
            asyncio.run(sink(account, BALANCE_MAX - 1000))
        forward(company, 2 * DAY)
        found = ask(company, "GET", f"/invoices/{made['id']}")
        assert (found["status"], found["total"]) == ("open", 5000)
        assert company.balance(account_id, "USD")["amount"] == -5007


# --- given back once --------------------------------------------------------------------------------------------------


def refund(company: Company, account_id: str, amount: int) -> Reply:
    (payment,) = ask(company, "GET", f"/accounts/{account_id}/payments")
    return company.call("POST", f"/v1/payments/{payment['id']}/refund", {"amount": amount, "reason": "sorry"})


def credit(company: Company, invoice_id: str, amount: int) -> Reply:
    note = {"amount": amount, "reason": "sorry"}
    return company.call("POST", f"/v1/invoices/{invoice_id}/credit_notes", note)


def test_what_was_refunded_is_not_credited_too(company: Company) -> None:
    account_id = customer(company)
    invoice_id = invoice(company, account_id)
    pay(company, invoice_id)
    assert refund(company, account_id, 400).status == 200

    refused = credit(company, invoice_id, 201)
    assert (refused.status, refused.code) == (422, "credit_exceeds_invoice")
    assert (refused.details["creditable"], refused.details["required"]) == (200, 201)
    assert credit(company, invoice_id, 200).status == 200
    assert credit(company, invoice_id, 1).code == "credit_exceeds_invoice"
    assert company.balance(account_id, "USD")["amount"] == 200


def test_what_was_credited_is_not_refunded_too(company: Company) -> None:
    account_id = customer(company)
    invoice_id = invoice(company, account_id)
    pay(company, invoice_id)
    assert credit(company, invoice_id, 600).status == 200

    assert refund(company, account_id, 600).code == "refund_exceeds_payment"
    assert company.balance(account_id, "USD")["amount"] == 600


def test_a_note_before_the_payment_takes_nothing_from_what_can_be_refunded(company: Company) -> None:
    account_id = customer(company)
    invoice_id = invoice(company, account_id, 1000)
    assert credit(company, invoice_id, 400).status == 200
    assert pay(company, invoice_id).data["amount_paid"] == 600

    assert refund(company, account_id, 600).status == 200
    refused = credit(company, invoice_id, 1)
    assert (refused.code, refused.details["creditable"]) == ("credit_exceeds_invoice", 0)


def test_a_payment_of_two_invoices_gives_back_no_more_than_it_took(company: Company) -> None:
    account_id = customer(company)
    ask(company, "POST", f"/accounts/{account_id}/suspend_capture")
    ask(company, "PUT", f"/accounts/{account_id}/invoicing", {"currency": "USD", "collection": "charge_automatically"})
    first, second = drafts(company, account_id, 1000, 500)
    forward(company)
    ask(company, "POST", f"/accounts/{account_id}/resume_capture", {"skipped": "process"})
    forward(company)
    assert payments(company, account_id) == [("succeeded", 1500)]
    assert refund(company, account_id, 1000).status == 200

    assert credit(company, first, 501).details["creditable"] == 500
    assert credit(company, first, 300).status == 200
    assert credit(company, second, 201).details["creditable"] == 200
    assert credit(company, second, 200).status == 200
    assert credit(company, first, 1).details["creditable"] == 0


def drafts(company: Company, account_id: str, *amounts: int) -> list[str]:
    """Invoices of these amounts that become final at once, in one step."""
    made = []
    for amount in amounts:
        body = {"currency": "USD", "lines": lines(amount)}
        made.append(str(ask(company, "POST", f"/accounts/{account_id}/invoices", body)["id"]))
    ask(company, "POST", f"/invoices/{made[-1]}/finalize")
    return made
