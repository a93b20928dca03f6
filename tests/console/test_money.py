"""Transactions and payments in the console: what they say, where they lead, what can be done to them."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

from tests.client import Company
from tests.console.colleagues import colleague
from tests.console.visitor import Visitor

REFUSING = "tok_chargeCustomerFail"
HOSTILE = "<script>alert(1)</script>{{7*7}}"


def movements(company: Company) -> list[Any]:
    return list(company.call("GET", "/v1/companies/{company}/transactions").data)


def payment_of(company: Company, payment_id: str) -> Any:
    return company.call("GET", f"/v1/payments/{payment_id}").data


def refused_deposit(company: Company) -> str:
    account = company.account()
    company.card(account, REFUSING)
    body = {"amount_to_deposit": 100, "amount_to_charge": 500, "denomination": "credits"}
    return str(company.call("POST", f"/v1/accounts/{account}/deposit", body).details["payment_id"])


def test_a_charge_explains_itself_from_both_sides_to_its_event(visitor: Visitor) -> None:
    company = visitor.company
    company.price("CHAT", "USD", "250")
    account = company.account(USD=1000)
    event = company.send(account, type="CHAT").data

    assert f'href="/control/transactions/{event["transaction_id"]}"' in visitor.visit("/control/transactions").text
    seen = visitor.visit(f"/control/transactions/{event['transaction_id']}")
    assert "Before $10.00 This transaction -$2.50 After $7.50" in seen.words
    assert "Book usage of Acme $2.50 In sum $0.00" in seen.words
    assert f'href="/control/events/{event["id"]}"' in seen.text
    assert f'href="/control/accounts/{account}"' in seen.text


def test_what_was_not_usage_leads_to_its_cause(visitor: Visitor) -> None:
    company = visitor.company
    account = company.account()
    company.card(account)
    payment, invoice = company.deposit(account), company.invoice(account)
    company.call("POST", f"/v1/payments/{payment}/refund", {"amount": 100, "reason": "goodwill"})
    company.call("POST", f"/v1/invoices/{invoice}/credit_notes", {"amount": 50, "reason": "outage"})
    company.grant(account)
    company.call("POST", f"/v1/accounts/{account}/balance/credits/adjust", {"amount": 7})
    leads = {
        "deposit": f'href="/control/payments/{payment}"',
        "refund": f'href="/control/payments/{payment}"',
        "credit_note": f'href="/control/invoices/{invoice}"',
        "grant": f'href="/control/accounts/{account}">A grant',
        "adjustment": "By hand",
    }
    moved = {one["book"]: one["id"] for one in movements(company)}
    for book, lead in leads.items():
        assert lead in visitor.visit(f"/control/transactions/{moved[book]}").text, book


def test_transactions_are_filtered_and_taken_as_a_file(visitor: Visitor) -> None:
    company = visitor.company
    company.price("CHAT", "credits", "3")
    account, other = company.account(credits=100), company.account(credits=1)
    charge = company.send(account, type="CHAT").data["transaction_id"]
    (opening,) = (one["id"] for one in movements(company) if one["account_id"] == other)

    usage = visitor.visit("/control/transactions?book=usage").text
    assert charge in usage
    assert opening not in usage
    theirs = visitor.visit(f"/control/transactions?account_id={other}").text
    assert opening in theirs
    assert charge not in theirs
    assert "Nothing fits these filters." in visitor.visit("/control/transactions?type=GRANT").words
    assert "is the id of an account" in visitor.visit("/control/transactions?account_id=nobody").words
    told = visitor.visit("/control/transactions?format=csv&book=usage")
    assert told.headers["content-type"].startswith("text/csv")
    _, row = csv.reader(io.StringIO(told.text))
    assert row[0] == charge
    assert "-3" in row


def test_a_failed_payment_says_why_and_what_to_do(visitor: Visitor) -> None:
    payment = refused_deposit(visitor.company)

    assert "Your card was declined." in visitor.visit("/control/payments?status=failed").words
    seen = visitor.visit(f"/control/payments/{payment}")
    assert "The bank refused the card" in seen.words
    assert "Ask the customer for another card, then try it again." in seen.words
    assert "generic_decline" in seen.words
    assert "/refund" not in seen.text, "nothing came in that could go back"


def test_a_failed_payment_is_tried_again_and_given_up(visitor: Visitor) -> None:
    company = visitor.company
    payment = refused_deposit(company)
    page = f"/control/payments/{payment}"
    again = visitor.send(f"{page}/retry", came_from=page)
    assert payment_of(company, payment)["attempts"] == 2
    assert again.path == page

    account = payment_of(company, payment)["account_id"]
    visitor.send(f"{page}/void", came_from=page)
    assert payment_of(company, payment)["status"] == "voided"
    company.card(account)
    refusal = visitor.send(f"{page}/retry", came_from=page)
    assert "Only a failed or skipped payment can be tried again." in refusal.words
    assert f'action="{page}/retry"' not in refusal.text


def test_money_goes_back_once_however_often_the_form_is_sent(visitor: Visitor) -> None:
    company = visitor.company
    account = company.account()
    company.card(account)
    payment = company.deposit(account, units=1000, charge=500)
    page = f"/control/payments/{payment}"
    shown = visitor.visit(page)
    assert "On the balance 1,000 credits" in shown.words
    assert 'value="5.00"' in shown.text

    for done in [
        visitor.send(f"{page}/refund", came_from=page, _key="once", amount="1.50", reason="goodwill") for _ in range(2)
    ]:
        assert "The money goes back." in done.words
        assert 'value="3.50"' in done.text
    assert payment_of(company, payment)["refunded"] == 150
    assert "-300 credits" in visitor.visit("/control/transactions?book=refund").words
    for amount, problem in (("9", "more than what is left"), ("1.005", "at most 2 digits"), ("much", "takes a number")):
        assert problem in visitor.send(f"{page}/refund", came_from=page, amount=amount, reason="x").words
    assert "Say why the money goes back." in visitor.send(f"{page}/refund", came_from=page, amount="1", reason="").words
    assert payment_of(company, payment)["refunded"] == 150


def test_a_payment_leads_to_the_invoice_and_the_plan_it_paid(visitor: Visitor) -> None:
    company = visitor.company
    account = company.account()
    company.card(account)
    invoice = company.invoice(account)
    paid = company.call("POST", f"/v1/invoices/{invoice}/pay").data["payments"][0]["payment_id"]
    assert f'href="/control/invoices/{invoice}"' in visitor.visit(f"/control/payments/{paid}").text
    account = company.account()
    company.card(account)
    plan = company.start(account, company.plan())
    (bought,) = company.call("GET", f"/v1/accounts/{account}/payments?reason=plan_start").data
    assert f'href="/control/plans/{plan}"' in visitor.visit(f"/control/payments/{bought['id']}").text


def test_hostile_words_are_shown_as_words(visitor: Visitor) -> None:
    company = visitor.company
    account = company.call("POST", "/v1/companies/{company}/accounts", {"name": HOSTILE, "email": "x@y.example"}).data
    company.card(account["id"])
    payment = company.deposit(account["id"])
    page = f"/control/payments/{payment}"
    visitor.send(f"{page}/refund", came_from=page, amount="1", reason=HOSTILE)

    moved = movements(company)
    paths = (page, "/control/transactions", *(f"/control/transactions/{one['id']}" for one in moved))
    for path in paths:
        seen = visitor.visit(path)
        assert HOSTILE in seen.words, path
        assert "<script>alert" not in seen.text, path


def test_foreign_and_unknown_ones_are_not_there(visitor: Visitor) -> None:
    paths = (
        "transactions/t_000000000000000000",
        "payments/pay_000000000000000000",
        "invoices/inv_000000000000000000",
        "invoices/inv_000000000000000000/invoice.pdf",
    )
    for path in paths:
        assert visitor.visit(f"/control/{path}").status == 404, path


def test_support_sees_money_and_cannot_move_it(visitor: Visitor) -> None:
    company = visitor.company
    account = company.account()
    company.card(account)
    payment, failed, invoice = company.deposit(account), refused_deposit(company), company.invoice(account)
    draft = company.invoice(account, is_final=False)
    support = colleague(visitor, "support")

    for path in (f"payments/{payment}", f"payments/{failed}", f"invoices/{invoice}", f"invoices/{draft}", "invoices"):
        seen = support.visit(f"/control/{path}")
        assert seen.status == 200, path
        assert not re.search(r'action="/control/(payments|invoices)/', seen.text), path
        assert "/control/invoices/new" not in seen.text, path
    for verb in (
        f"payments/{payment}/refund",
        f"payments/{failed}/retry",
        f"payments/{failed}/void",
        f"invoices/{invoice}/void",
        f"invoices/{invoice}/paid",
        f"invoices/{draft}/finalize",
        f"invoices/{draft}/discard",
    ):
        refusal = support.send(f"/control/{verb}", amount="1", reason="x", reference="x")
        assert "Your role, support, cannot do this." in refusal.words, verb
    assert support.visit("/control/invoices/new").status == 403
    assert payment_of(company, payment)["refunded"] == 0
    assert payment_of(company, failed)["status"] == "failed"
