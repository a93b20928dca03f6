"""Invoices of an organization: the rows of its company, in major units, and the one that is coming."""

from __future__ import annotations

from typing import Any

import pytest

from tenuto.server import Server
from tests.api.test_organization_plans import Organization, plan, price, seats, to
from tests.client import Company
from tests.members import Members


@pytest.fixture
def members(service: Server, company: Company) -> Members:
    return Members(service, company)


@pytest.fixture
def paying(members: Members) -> Organization:
    """An organization whose account has a card, at noon of 15 January 2030."""
    organization = Organization(members)
    organization.company.card(organization.id)
    to(organization.company, "2030-01-15T12:00:00Z")
    return organization


def ask(company: Company, method: str, path: str, body: object = None) -> Any:
    reply = company.call(method, f"/v1{path}", body)
    assert reply.status == 200, reply
    return reply.data


def owe(organization: Organization, amount: int = 1250, **terms: object) -> str:
    """The id of a final invoice of some usage in Australian dollars."""
    company, account = organization.company, organization.id
    ask(company, "PUT", f"/accounts/{account}/invoicing", {"currency": "AUD", **terms})
    usage = {"type": "USED", "cost_override_amount": amount, "cost_override_denomination": "AUD"}
    assert company.send(account, usage).status == 200
    draft = ask(company, "POST", f"/accounts/{account}/invoices", {"currency": "AUD"})["id"]
    return str(ask(company, "POST", f"/invoices/{draft}/finalize")["id"])


def use(organization: Organization, units: int, denomination: str) -> None:
    usage = {"type": "USED", "cost_override_amount": units, "cost_override_denomination": denomination}
    assert organization.company.send(organization.id, usage).status == 200


def invoices(organization: Organization) -> list[Any]:
    reply = organization.call("GET", "/invoices")
    assert reply.status == 200, reply
    return list(reply.body)


def coming(organization: Organization) -> Any:
    reply = organization.call("GET", f"/invoices/{organization.now()['id']}")
    assert reply.status == 200, reply
    return reply.body


def test_an_invoice_in_major_units(paying: Organization) -> None:
    taxes = {"invoicing": {"taxes": [{"name": "GST", "rate": "10"}]}}
    assert paying.company.call("PUT", "/v1/companies/{company}", taxes).status == 200
    theirs = ask(paying.company, "GET", f"/invoices/{owe(paying, 1250, terms_days=14, memo='PO 7')}")
    (found,) = invoices(paying)
    pdf = found.pop("invoice_pdf")
    assert found == {
        "id": theirs["id"].replace("inv_", "in_"),
        "number": theirs["number"],
        "description": "PO 7",
        "status": "open",
        "currency": "AUD",
        "currency_symbol": "A$",
        "paid": False,
        "subtotal": 12.5,
        "subtotal_excluding_tax": 12.5,
        "tax": 1.25,
        "total": 13.75,
        "total_excluding_tax": 12.5,
        "starting_balance": 0.0,
        "amount_due": 13.75,
        "amount_paid": 0.0,
        "amount_remaining": 13.75,
        "attempted": False,
        "attempt_count": 0,
        **{name: theirs[of][:19].replace("T", " ") for name, of in (("due_date", "due_at"), ("created_at",) * 2)},
        **{name: theirs[name][:19].replace("T", " ") for name in ("period_start", "period_end")},
    }
    one = paying.call("GET", f"/invoices/{found['id']}").body
    assert one == {**found, "invoice_pdf": pdf}
    assert paying.members.call("GET", f"/v1/billing/invoices/{found['id']}").body == one
    path = pdf[pdf.index("/i/") :]
    paper = paying.company.client.call("GET", path)
    assert (paper.status, paper.headers["content-type"], paper.raw[:4]) == (200, "application/pdf", b"%PDF")


def test_times_of_invoices_are_in_the_zone_of_the_token(paying: Organization) -> None:
    owe(paying)
    (utc,), (cairo,) = invoices(paying), paying.call("GET", "/invoices", timezone="Africa/Cairo").body
    assert (utc["created_at"][11:13], cairo["created_at"][11:13]) == ("12", "14")


def test_newest_first_and_no_drafts(paying: Organization) -> None:
    first, second = owe(paying, 100), owe(paying, 200)
    use(paying, 300, "AUD")
    draft = ask(paying.company, "POST", f"/accounts/{paying.id}/invoices", {"currency": "AUD"})["id"]
    assert [one["id"] for one in invoices(paying)] == [id.replace("inv_", "in_") for id in (second, first)]
    assert paying.call("GET", f"/invoices/{draft.replace('inv_', 'in_')}").status == 410
    assert paying.call("GET", f"/invoices/{first}").status == 410


def test_statuses_are_those_of_stripe(paying: Organization) -> None:
    paid, void, lost = owe(paying, 100), owe(paying, 200), owe(paying, 300)
    ask(paying.company, "POST", f"/invoices/{void}/void")
    ask(paying.company, "POST", f"/invoices/{lost}/uncollectible")
    ask(paying.company, "POST", f"/invoices/{paid}/mark_paid", {"reference": "transfer"})
    found = invoices(paying)
    assert [(one["status"], one["paid"]) for one in found] == [
        ("uncollectible", False),
        ("void", False),
        ("paid", True),
    ]
    assert (found[2]["amount_due"], found[2]["amount_paid"], found[2]["amount_remaining"]) == (1.0, 1.0, 0.0)


def test_what_the_balance_held_is_not_due(paying: Organization) -> None:
    ask(paying.company, "POST", f"/accounts/{paying.id}/balance/AUD/adjust", {"amount": 400})
    owe(paying, 1250)
    (found,) = invoices(paying)
    assert (found["total"], found["starting_balance"], found["amount_due"]) == (12.5, -4.0, 8.5)


def test_a_credit_note_lowers_what_is_due(paying: Organization) -> None:
    credit = {"amount": 250, "reason": "an outage"}
    ask(paying.company, "POST", f"/invoices/{owe(paying, 1250)}/credit_notes", credit)
    (found,) = invoices(paying)
    assert (found["total"], found["amount_due"], found["amount_remaining"]) == (12.5, 10.0, 10.0)


def test_a_card_that_was_asked_is_counted(paying: Organization) -> None:
    paying.company.card(paying.id, "tok_chargeCustomerFail")
    invoice = owe(paying, 1250)
    assert paying.company.call("POST", f"/v1/invoices/{invoice}/pay").status == 402
    (found,) = invoices(paying)
    assert (found["status"], found["attempted"], found["attempt_count"]) == ("open", True, 1)
    paying.company.card(paying.id)
    to(paying.company, "2030-01-25T00:00:00Z")
    owe(paying, 100)
    newer, older = invoices(paying)
    assert (older["status"], older["attempt_count"], newer["attempt_count"]) == ("paid", 2, 0)


def test_a_link_is_made_once(paying: Organization) -> None:
    owe(paying)
    assert invoices(paying)[0]["invoice_pdf"] == invoices(paying)[0]["invoice_pdf"]


def test_what_is_coming_is_what_the_renewal_charges(paying: Organization) -> None:
    balances = {"seats": {"amount": 0, "variable_amount_cost": 250}, "gb": {"amount": 1, "overage_charge_amount": 100}}
    paying.subscribe(price(seats(paying.company, balances=balances)), 2)
    use(paying, 4, "gb")
    found = coming(paying)
    assert "id" not in found
    assert (found["subtotal"], found["total"], found["starting_balance"], found["amount_due"]) == (
        15.0,
        15.0,
        3.0,
        18.0,
    )
    assert (found["status"], found["number"], found["description"]) == ("draft", None, "Seats")
    assert found["period_start"].startswith("2030-02-15 12:00")
    assert found["period_end"].startswith("2030-03-15 12:00")
    assert paying.payments() == [("plan_start", "succeeded", 1500)]
    to(paying.company, "2030-02-16T00:00:00Z")
    assert paying.payments()[1:] == [("plan_renewal", "succeeded", 1800)]
    assert coming(paying)["amount_due"] == 15.0


def test_what_is_coming_after_a_trial(paying: Organization) -> None:
    paying.subscribe(price(plan(paying.company, trial_days=14, setup_fee=300)))
    found = coming(paying)
    assert (found["amount_due"], found["period_start"][:10]) == (13.0, "2030-01-29")
    to(paying.company, "2030-01-30T00:00:00Z")
    assert paying.payments() == [("plan_renewal", "succeeded", 1300)]


def test_what_is_coming_of_a_change(paying: Organization) -> None:
    plan_id = seats(paying.company)
    made = paying.subscribe(price(plan_id), 2).body["id"]
    paying.call("PATCH", f"/subscriptions/{made}", {"items": [{"quantity": 4}]})
    assert coming(paying)["amount_due"] == 20.0
    to(paying.company, "2030-02-16T00:00:00Z")
    assert paying.payments()[-1] == ("plan_renewal", "succeeded", 2000)


def test_less_than_a_card_can_be_charged_is_not_due(paying: Organization) -> None:
    balances = {"gb": {"amount": 1, "overage_charge_amount": 10}}
    paying.subscribe(price(plan(paying.company, renewals={"MONTHLY": {"amount": 0}}, balances=balances)))
    use(paying, 3, "gb")
    found = coming(paying)
    assert (found["total"], found["starting_balance"], found["amount_due"]) == (0.0, 0.2, 0.0)
    before = paying.payments()
    to(paying.company, "2030-02-15T13:00:00Z")
    assert paying.payments() == before


def test_what_is_coming_by_invoice(paying: Organization) -> None:
    taxes = {"invoicing": {"taxes": [{"name": "GST", "rate": "10"}], "grace_seconds": 0}}
    assert paying.company.call("PUT", "/v1/companies/{company}", taxes).status == 200
    paying.subscribe(price(plan(paying.company)), collection_method="send_invoice")
    found = coming(paying)
    assert (found["subtotal"], found["tax"], found["total"], found["amount_due"]) == (10.0, 1.0, 11.0, 11.0)
    assert invoices(paying) == []
    to(paying.company, "2030-03-01T06:00:00Z")
    renewal, start = invoices(paying)
    names = ("subtotal", "tax", "total", "amount_due")
    assert [renewal[name] for name in names] == [start[name] for name in names] == [found[name] for name in names]
    assert paying.payments() == []


def test_nothing_is_coming_of_what_ends(paying: Organization) -> None:
    made = paying.subscribe(price(plan(paying.company))).body["id"]
    assert paying.call("DELETE", f"/subscriptions/{made}?at_period_end=true").status == 204
    assert paying.call("GET", f"/invoices/{made}").status == 410
    assert paying.call("DELETE", f"/subscriptions/{made}").status == 204
    assert paying.call("GET", f"/invoices/{made}").status == 410


def test_no_invoice_of_another_organization(paying: Organization) -> None:
    owe(paying)
    paying.subscribe(price(plan(paying.company)))
    other = Organization(paying.members, "org-2")
    assert invoices(other) == []
    for id in (invoices(paying)[0]["id"], paying.now()["id"], "in_1", "sub_1", "x"):
        refused = other.call("GET", f"/invoices/{id}")
        assert (refused.status, set(refused.body)) == (410, {"message"})


def test_without_an_account_there_are_no_invoices(members: Members) -> None:
    for path in ("/v1/account/invoices", "/v1/billing/invoices/in_1"):
        refused = members.call("GET", path)
        assert (refused.status, set(refused.body)) == (422, {"message", "documentation_url"})
    assert members.call("GET", "/v1/account/invoices", scopes=()).status == 403
