"""Invoices that a card pays, and the page on which a customer sees one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tenuto.engine import Settings
from tenuto.server import Server, wait_until_ready
from tests.client import Client, Company
from tests.simulated import Simulated

GOOD, REFUSED = "tok_visa", "pm_card_chargeCustomerFail"


@pytest.fixture(scope="module")
def paying_service(
    new_database: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, int]]:
    """A service whose payment provider is a simulator."""
    with Simulated() as stripe:
        settings = Settings(
            port=0,
            database=new_database("paying"),
            data=str(tmp_path_factory.mktemp("paying")),
            registration="open",
            log_level="warning",
            sandbox_url=stripe.url,
            secret_key="0" * 64,
        )
        server = Server(settings)
        server.start()
        try:
            assert wait_until_ready(*server.address, seconds=30)
            yield server.address
        finally:
            server.stop()


@pytest.fixture
def company(paying_service: tuple[str, int]) -> Iterator[Company]:
    with Client(*paying_service) as client:
        yield Company.open(client, "Acme <b>&</b> Sons")


def ask(company: Company, method: str, path: str, body: object = None, status: int = 200) -> Any:
    reply = company.call(method, f"/v1{path}", body)
    assert reply.status == status, reply
    return reply.data if status == 200 else reply


def invoiced(company: Company, quantity: int = 1000, token: str | None = GOOD, **terms: object) -> tuple[str, str]:
    """An account with a card and a final invoice: their ids."""
    company.price("chat", "USD", "1")
    account_id = company.account(USD=0)
    if token is not None:
        ask(company, "POST", f"/accounts/{account_id}/card", {"token": token})
    ask(company, "PUT", f"/accounts/{account_id}/invoicing", {"currency": "USD", **terms})
    assert company.send(account_id, type="chat", quantity=quantity).status == 200
    return account_id, final(company, account_id)


def final(company: Company, account_id: str) -> str:
    draft = ask(company, "POST", f"/accounts/{account_id}/invoices", {})
    return str(ask(company, "POST", f"/invoices/{draft['id']}/finalize")["id"])


def forward(company: Company, seconds: int = 1) -> None:
    """Let the clock do all that is due."""
    ask(company, "POST", f"/companies/{company.id}/clock", {"advance_seconds": seconds})


def test_an_invoice_is_paid_by_card_when_asked(company: Company) -> None:
    account_id, invoice_id = invoiced(company)
    paid = ask(company, "POST", f"/invoices/{invoice_id}/pay")
    assert (paid["status"], paid["amount_paid"]) == ("paid", 1000)
    assert [part["method"] for part in paid["payments"]] == ["card"]
    assert company.balance(account_id, "USD")["amount"] == 0
    assert ask(company, "POST", f"/invoices/{invoice_id}/pay", status=409).code == "invoice_settled"


def test_the_same_key_pays_once(company: Company) -> None:
    account_id, invoice_id = invoiced(company)
    key = {"idempotency-key": "pay it"}
    replies = [company.call("POST", f"/v1/invoices/{invoice_id}/pay", None, key) for _ in range(2)]
    assert [reply.status for reply in replies] == [200, 200]
    assert replies[0].raw == replies[1].raw
    assert company.balance(account_id, "USD")["amount"] == 0


def test_a_refund_of_what_paid_an_invoice_is_credited_and_not_owed_again(company: Company) -> None:
    """Decision 0021."""
    account_id, invoice_id = invoiced(company)
    paid = ask(company, "POST", f"/invoices/{invoice_id}/pay")
    payment = ask(company, "GET", f"/accounts/{account_id}/payments")[0]

    ask(company, "POST", f"/payments/{payment['id']}/refund", {"amount": 400, "reason": "an outage"})

    moved = ask(company, "GET", f"/accounts/{account_id}/transactions")[:2]
    assert [(row["book"], row["amount"]) for row in moved] == [("refund_credit", 400), ("refund", -400)]
    assert company.balance(account_id, "USD")["amount"] == 0
    assert ask(company, "GET", f"/accounts/{account_id}")["owed_balance"] == 0
    assert ask(company, "GET", f"/invoices/{invoice_id}")["status"] == paid["status"] == "paid"
    assert ask(company, "POST", f"/accounts/{account_id}/invoices", {}, status=409).code == "nothing_to_invoice"


def test_a_card_is_charged_by_itself_once_for_all_that_is_open(company: Company) -> None:
    account_id, first = invoiced(company, collection="charge_automatically")
    company.send(account_id, type="chat", quantity=500)
    second = final(company, account_id)
    forward(company)
    found = [ask(company, "GET", f"/invoices/{id}") for id in (first, second)]
    assert [row["status"] for row in found] == ["paid", "paid"]
    payments = ask(company, "GET", f"/accounts/{account_id}/payments")
    assert sum(row["amount"] for row in payments) == 1500


def test_below_the_minimum_it_is_carried_to_the_next_one(company: Company) -> None:
    account_id, first = invoiced(company, 30, collection="charge_automatically")
    forward(company, 3 * 86400)
    row = ask(company, "GET", f"/invoices/{first}")
    assert (row["status"], row["next_collection_at"]) == ("open", None)
    assert ask(company, "GET", f"/accounts/{account_id}")["owed_balance"] == 30
    company.send(account_id, type="chat", quantity=25)
    second = final(company, account_id)
    forward(company)
    assert [ask(company, "GET", f"/invoices/{id}")["status"] for id in (first, second)] == ["paid", "paid"]
    (payment,) = ask(company, "GET", f"/accounts/{account_id}/payments")
    assert payment["amount"] == 55


def test_a_refused_card_leaves_the_invoice_open(company: Company) -> None:
    account_id, invoice_id = invoiced(company, token=REFUSED)
    refused = ask(company, "POST", f"/invoices/{invoice_id}/pay", status=402)
    assert refused.code == "payment_failed"
    assert ask(company, "GET", f"/invoices/{invoice_id}")["remaining"] == 1000
    assert ask(company, "GET", f"/accounts/{account_id}")["owed_balance"] == 1000


def test_suspended_captures_are_written_down_and_wait(company: Company) -> None:
    account_id, invoice_id = invoiced(company, collection="charge_automatically")
    ask(company, "POST", f"/accounts/{account_id}/suspend_capture")
    forward(company)
    (payment,) = ask(company, "GET", f"/accounts/{account_id}/payments")
    assert payment["status"] in {"skipped", "succeeded"}  # the clockwork may have been there before
    if payment["status"] == "skipped":
        ask(company, "POST", f"/accounts/{account_id}/resume_capture")
        forward(company)
    assert ask(company, "GET", f"/invoices/{invoice_id}")["status"] == "paid"


def page(company: Company, url: str) -> Any:
    return company.client.call("GET", url[url.index("/i/") :])


def test_a_customer_sees_the_invoice_and_pays_it(company: Company) -> None:
    _, invoice_id = invoiced(company, memo="<script>alert(1)</script>")
    made = ask(company, "POST", f"/invoices/{invoice_id}/link")
    shown = page(company, made["url"])
    text = shown.raw.decode()
    assert shown.status == 200
    assert "default-src 'none'" in shown.headers["content-security-policy"]
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "Pay $10.00 by card" in text
    paper = page(company, f"{made['url']}/invoice.pdf")
    assert (paper.status, paper.raw[:5]) == (200, b"%PDF-")
    path = made["url"][made["url"].index("/i/") :]
    pressed = company.client.call("POST", f"{path}/pay", b"", {"content-type": "application/x-www-form-urlencoded"})
    assert (pressed.status, pressed.headers["location"]) == (303, f"{path}?payment=done")
    after = page(company, made["url"]).raw.decode()
    assert 'class="state paid"' in after
    assert "by card" not in after
    again = company.client.call("POST", f"{path}/pay", b"", {"content-type": "application/x-www-form-urlencoded"})
    assert again.headers["location"].endswith("payment=refused")


def test_without_a_card_there_is_no_button(company: Company) -> None:
    _, invoice_id = invoiced(company, token=None)
    shown = page(company, ask(company, "POST", f"/invoices/{invoice_id}/link", {"expires_in_days": 1})["url"])
    assert shown.status == 200
    assert b"<button" not in shown.raw


def test_a_link_that_is_forged_or_unknown_leads_to_one_plain_page(company: Company) -> None:
    _, invoice_id = invoiced(company)
    url = ask(company, "POST", f"/invoices/{invoice_id}/link")["url"]
    public, _, mac = url.rpartition("/")[2].partition(".")
    swapped = f"{public[:-1]}{'0' if public[-1] != '0' else '1'}"
    pages = [
        page(company, f"/i/{token}{tail}")
        for token in (f"{public}.{mac[:-2]}AA", f"{swapped}.{mac}", public, "x", f"{public}.", f"pl{public[2:]}.{mac}")
        for tail in ("", "/invoice.pdf")
    ]
    assert {found.status for found in pages} == {404}
    assert len({found.raw for found in pages}) == 1
    ask(company, "POST", f"/invoices/{invoice_id}/link", {"expires_in_days": 0}, status=422)


def test_a_draft_has_no_page(company: Company) -> None:
    account_id, _ = invoiced(company)
    company.send(account_id, type="chat", quantity=5)
    draft = ask(company, "POST", f"/accounts/{account_id}/invoices", {})
    assert ask(company, "POST", f"/invoices/{draft['id']}/link", status=409).code == "invoice_not_open"
