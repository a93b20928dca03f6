"""Invoices in the console: the paper, what stands behind its lines, and what can be done to it."""

from __future__ import annotations

import re
from typing import Any

from tests.client import Company
from tests.console.visitor import Visitor

HOSTILE = "<script>alert(1)</script>{{7*7}}"


def draft_of(company: Company, account: str) -> str:
    return company.invoice(account, is_final=False)


def invoice_of(company: Company, invoice: str) -> Any:
    return company.call("GET", f"/v1/invoices/{invoice}").data


def test_an_invoice_is_shown_as_on_paper_and_its_lines_lead_to_events(visitor: Visitor) -> None:
    company = visitor.company
    invoicing = {
        "seller": {"name": "Acme Inc.", "address": "1 Main Street\nZürich", "tax_id": "CHE-1"},
        "taxes": [{"name": "VAT", "rate": "10"}],
        "dunning": [{"days": 3, "action": "remind"}],
    }
    assert company.call("PUT", "/v1/companies/{company}", {"invoicing": invoicing}).status == 200
    invoice = company.invoice(company.account())

    assert "INV-000001" in visitor.visit("/control/invoices?status=open").words
    assert "Nothing fits these filters." in visitor.visit("/control/invoices?status=void").words
    seen = visitor.visit(f"/control/invoices/{invoice}")
    for words in (
        "Invoice INV-000001",
        "Acme Inc. 1 Main Street Zürich CHE-1",
        "INVOICED 2 events 2 $6.00",
        "Subtotal $6.00 VAT 10 % $0.60 Total $6.60",
        "Amount due $6.60",
        "3 days after it was due: remind to come",
    ):
        assert words in seen.words, words
    (tax,) = company.call("GET", f"/v1/companies/{{company}}/transactions?cause_id={invoice}").data
    assert f'href="/control/transactions/{tax["id"]}"' in seen.text
    line = visitor.visit(seen.attribute(rf'href="(/control/invoices/{invoice}/lines/1)"'))
    events = company.call("GET", f"/v1/invoices/{invoice}/lines/1/events").data
    assert len(events) == 2
    for event in events:
        assert f'href="/control/events/{event["id"]}"' in line.text
    assert len(visitor.visit(f"/control/invoices/{invoice}/lines/1?format=csv").text.splitlines()) == 3
    assert visitor.visit(f"/control/invoices/{invoice}/lines/9").status == 404


def test_a_draft_is_written_and_made_final(visitor: Visitor) -> None:
    company = visitor.company
    invoice = draft_of(company, company.account())
    page = f"/control/invoices/{invoice}"

    visitor.send(f"{page}/memo", came_from=page, memo="Thank you.\r\nPay soon.")
    described: dict[str, Any] = {"line_description": ["Onboarding", "", "Rebate"], "line_amount": ["25", "", "-1.50"]}
    lines = visitor.send(f"{page}/lines", came_from=page, **described)
    found = invoice_of(company, invoice)
    assert found["memo"] == "Thank you.\nPay soon."
    assert [(line["description"], line["amount"]) for line in found["lines"]][1:] == [
        ("Onboarding", 2500),
        ("Rebate", -150),
    ]
    assert "Total $29.50" in lines.words
    assert 'value="Onboarding"' in lines.text, "the lines can be written again"
    unnamed = visitor.send(f"{page}/lines", came_from=page, line_description="", line_amount="3")
    assert "says what the line is for" in unnamed.words
    done = visitor.send(f"{page}/finalize", came_from=page)
    assert "The invoice is final: INV-000001." in done.words
    assert f'action="{page}/finalize"' not in done.text


def test_a_draft_is_discarded(visitor: Visitor) -> None:
    company = visitor.company
    invoice = draft_of(company, company.account())
    done = visitor.send(f"/control/invoices/{invoice}/discard")
    assert "The draft is gone." in done.words
    assert company.call("GET", f"/v1/invoices/{invoice}").status == 404


def test_an_open_invoice_is_credited_and_marked_as_paid(visitor: Visitor) -> None:
    company = visitor.company
    invoice = company.invoice(company.account())
    page = f"/control/invoices/{invoice}"

    credited = visitor.send(f"{page}/credit", came_from=page, amount="1.00", reason="outage")
    assert "Credit note CN-000001 is written." in credited.words
    assert "CN-000001 $1.00" in credited.words
    assert "Amount due $5.00" in credited.words
    much = visitor.send(f"{page}/credit", came_from=page, amount="6", reason="outage")
    assert "more than the invoice's total" in much.words
    paid = visitor.send(f"{page}/paid", came_from=page, reference="transfer 7")
    assert invoice_of(company, invoice)["status"] == "paid"
    payment = invoice_of(company, invoice)["payments"][0]["payment_id"]
    assert f'href="/control/payments/{payment}"' in paid.text
    again = visitor.send(f"{page}/paid", came_from=page, reference="transfer 8")
    assert "The invoice is paid" in again.words
    assert len(invoice_of(company, invoice)["payments"]) == 1


def test_an_invoice_is_paid_by_card_or_says_why_not(visitor: Visitor) -> None:
    company = visitor.company
    account = company.account()
    invoice = company.invoice(account)
    page = f"/control/invoices/{invoice}"

    assert "The account has no card" in visitor.send(f"{page}/pay", came_from=page).words
    company.card(account)
    assert "The card was charged." in visitor.send(f"{page}/pay", came_from=page).words
    assert invoice_of(company, invoice)["status"] == "paid"


def test_an_invoice_is_given_up_and_another_is_void(visitor: Visitor) -> None:
    company = visitor.company
    account = company.account()
    for verb, status in (("give-up", "uncollectible"), ("void", "void")):
        invoice = company.invoice(account)
        visitor.send(f"/control/invoices/{invoice}/{verb}")
        assert invoice_of(company, invoice)["status"] == status


def test_the_paper_and_the_link_can_be_handed_on(visitor: Visitor) -> None:
    company = visitor.company
    invoice = company.invoice(company.account())
    page = f"/control/invoices/{invoice}"

    link = visitor.send(f"{page}/link", came_from=page).attribute(r'id="link" value="([^"]+)"')
    hosted = company.client.call("GET", link[link.index("/i/") :])
    assert hosted.status == 200
    assert b"INV-000001" in hosted.raw
    cookie = "; ".join(f"{name}={value}" for name, value in visitor.cookies.items())
    pdf = company.client.call("GET", f"{page}/invoice.pdf", headers={"cookie": cookie})
    assert pdf.headers["content-type"] == "application/pdf"
    assert pdf.headers["content-disposition"] == 'attachment; filename="INV-000001.pdf"'
    assert pdf.headers["cache-control"] == "no-store"
    assert pdf.raw.startswith(b"%PDF")


def test_a_new_invoice_is_seen_before_it_is_cut(visitor: Visitor) -> None:
    company = visitor.company
    account = company.account()
    new = f"/control/invoices/new?account_id={account}"
    assert "This account does not pay by invoice yet" in visitor.visit(new).words
    terms: dict[str, Any] = {"currency": "USD", "terms_days": "14", "collection": "send_invoice"}
    assert "What stands on it" in visitor.send("/control/invoices/terms", account_id=account, **terms).words
    company.send(account, type="CHAT", cost_override_amount=300, cost_override_denomination="USD")

    form: dict[str, Any] = {"account_id": account, "currency": "USD", "_key": "the form's own"}
    for amount, total in (("2", "Total $5.00"), ("4", "Total $7.00")):
        form |= {"line_description": "Onboarding", "line_amount": amount}
        assert total in visitor.send("/control/invoices/preview", **form).words
    assert company.call("GET", f"/v1/accounts/{account}/invoices").data == []
    cut = visitor.send("/control/invoices/new", came_from=new, **form)
    (made,) = company.call("GET", f"/v1/accounts/{account}/invoices").data
    assert cut.path == f"/control/invoices/{made['id']}"
    assert (made["status"], made["total"]) == ("draft", 700)
    nothing = visitor.send("/control/invoices/new", came_from=new, account_id=account, currency="USD")
    assert "Nothing was posted since the last invoice" in nothing.words


def test_hostile_words_stand_on_it_as_words(visitor: Visitor) -> None:
    company = visitor.company
    body = {"name": HOSTILE, "email": "x@y.example"}
    account = company.call("POST", "/v1/companies/{company}/accounts", body).data["id"]
    invoice = draft_of(company, account)
    lines = [{"description": HOSTILE, "amount": 100}]
    assert company.call("PUT", f"/v1/invoices/{invoice}", {"lines": lines, "memo": HOSTILE}).status == 200
    company.call("POST", f"/v1/invoices/{invoice}/finalize")

    for path in ("", f"/{invoice}", f"/{invoice}/lines/2", f"/new?account_id={account}"):
        seen = visitor.visit(f"/control/invoices{path}")
        assert seen.status == 200, path
        assert HOSTILE in seen.words, path
        assert not re.search(r"<script>alert", seen.text), path
