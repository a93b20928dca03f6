"""Transactions by their ids, and by what caused them. Sources: contract 2.3, issue of the console."""

from __future__ import annotations

from typing import Any

from tests.client import Company, Reply


def refused(reply: Reply, status: int, code: str) -> None:
    assert (reply.status, reply.code) == (status, code), reply.raw[:500]


def test_a_transaction_is_shown_by_its_id(company: Company) -> None:
    company.price("CHAT", "credits", "3")
    account = company.account(credits=10)
    event = company.send(account, type="CHAT").data

    shown = company.call("GET", f"/v1/transactions/{event['transaction_id']}").data
    assert shown == company.call("GET", f"/v1/accounts/{account}/transactions").data[0]
    assert (shown["starting_balance"], shown["amount"], shown["ending_balance"]) == (10, -3, 7)
    assert shown["event_ids"] == [event["id"]]
    for none in ("t_000000000000000000", f"t_{event['id'][2:]}x", event["id"], "t_"):
        refused(company.call("GET", f"/v1/transactions/{none}"), 404, "not_found")


def test_what_a_cause_moved_is_listed(company: Company) -> None:
    account, other = company.account(USD=1000), company.account()
    company.card(account)
    payment = company.deposit(account, units=500, charge=700)
    mine = f"/v1/accounts/{account}/transactions?cause_id="
    everybody = "/v1/companies/{company}/transactions?cause_id="

    (moved,) = company.call("GET", mine + payment).data
    assert (moved["book"], moved["amount"], moved["cause_id"]) == ("deposit", 500, payment)
    assert company.call("GET", everybody + payment).data == [moved]
    invoice = company.invoice(account)
    assert {one["book"] for one in company.call("GET", mine + invoice).data} <= {"tax", "invoice_item"}
    assert company.call("GET", f"/v1/accounts/{other}/transactions?cause_id={payment}").data == []
    assert company.call("GET", f"{everybody}{payment}&account_id={other}").data == []
    assert company.call("GET", f"{everybody}{payment}&account_id={account}").data == [moved]
    refused(company.call("GET", f"{everybody}{moved['id']}"), 422, "invalid_field")


def test_a_refund_and_a_credit_note_lead_to_what_they_are_of(company: Company) -> None:
    account = company.account()
    company.card(account)
    payment, invoice = company.deposit(account), company.invoice(account)
    refund = company.call("POST", f"/v1/payments/{payment}/refund", {"amount": 100, "reason": "goodwill"}).data
    note = company.call("POST", f"/v1/invoices/{invoice}/credit_notes", {"amount": 50, "reason": "outage"}).data

    assert company.call("GET", f"/v1/refunds/{refund['id']}").data == refund
    assert refund["payment_id"] == payment
    assert company.call("GET", f"/v1/credit_notes/{note['id']}").data == note
    assert note["invoice_id"] == invoice
    assert [one["amount"] for one in causes(company, refund["id"])] == [-200]
    assert [one["amount"] for one in causes(company, note["id"])] == [50]
    for path in ("refunds/re_000000000000000000", f"refunds/{note['id']}", "credit_notes/cn_000000000000000000"):
        refused(company.call("GET", f"/v1/{path}"), 404, "not_found")


def test_a_payment_names_the_invoices_it_paid(company: Company) -> None:
    account = company.account()
    invoice = company.invoice(account)
    paid = company.call("POST", f"/v1/invoices/{invoice}/mark_paid", {"reference": "transfer 7"}).data
    (part,) = paid["payments"]

    shown = company.call("GET", f"/v1/payments/{part['payment_id']}").data
    assert shown["invoices"] == [{"invoice_id": invoice, "number": paid["number"], "amount": 600}]


def causes(company: Company, cause_id: str) -> list[Any]:
    return list(company.call("GET", f"/v1/companies/{{company}}/transactions?cause_id={cause_id}").data)
