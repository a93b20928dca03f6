"""Invoices over HTTP: a postpaid month from its first event to its payment, and everything that may happen instead."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from tenuto.engine import Engine, Settings
from tenuto.server import Server
from tenuto.service import invoicing
from tests.client import Client, Company, Reply

SWEEPS = (
    invoicing.cut_invoices,
    invoicing.finalize_invoices,
    invoicing.collect_invoices,
    invoicing.dun_invoices,
)
SELLER = {"name": "Acme Ltd", "address": "1 High Street\nLondon", "tax_id": "GB123", "email": "billing@acme.example"}


@pytest.fixture
def sweep(service: Server) -> Callable[[], dict[str, int]]:
    """Runs the sweeps of invoices once, as the clockwork does."""
    dsn = service.settings.database

    async def run() -> dict[str, int]:
        engine = await Engine.open(Settings(database=dsn), dsn)
        try:
            return {one.__name__: await one(engine, now=engine.now(), limit=500) for one in SWEEPS}
        finally:
            await engine.close()

    return lambda: asyncio.run(run())


def set_up(company: Company, **invoicing: object) -> None:
    reply = company.call("PUT", "/v1/companies/{company}", {"invoicing": {"seller": SELLER, **invoicing}})
    assert reply.status == 200, reply


def customer(company: Company, *, usd: int = 0, **terms: object) -> str:
    """An account that pays by invoice and whose chats cost 2.5 cents."""
    account_id = company.account(USD=usd)
    reply = company.call("PUT", f"/v1/accounts/{account_id}/invoicing", {"currency": "USD", **terms})
    assert reply.status == 200, reply
    return account_id


def ask(company: Company, method: str, path: str, body: object = None, status: int = 200) -> Any:
    reply = company.call(method, f"/v1{path}", body)
    assert reply.status == status, reply
    return reply.data if status == 200 else reply


def cut(company: Company, account_id: str, **body: object) -> Any:
    return ask(company, "POST", f"/accounts/{account_id}/invoices", body)


def final(company: Company, account_id: str, **body: object) -> Any:
    return ask(company, "POST", f"/invoices/{cut(company, account_id, **body)['id']}/finalize")


def next_month(company: Company) -> None:
    """Move the clock to half an hour into the next month: drafts are there, none is final."""
    now = datetime.fromisoformat(ask(company, "GET", f"/companies/{company.id}/clock")["now"]).astimezone(UTC)
    first = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, 0, 30, tzinfo=UTC)
    ask(company, "POST", f"/companies/{company.id}/clock", {"now": first.isoformat()})


def forward(company: Company, **by: int) -> None:
    seconds = by.get("days", 0) * 86400 + by.get("hours", 0) * 3600
    ask(company, "POST", f"/companies/{company.id}/clock", {"advance_seconds": seconds})


def books(company: Company, account_id: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in ask(company, "GET", f"/accounts/{account_id}/transactions"):
        found[row["book"]] = found.get(row["book"], 0) + row["amount"]
    return found


def test_a_postpaid_month_from_its_first_event_to_its_payment(
    company: Company, sweep: Callable[[], dict[str, int]]
) -> None:
    set_up(company, taxes=[{"name": "VAT", "rate": "20"}], terms_days=14)
    company.price("chat", "USD", "2.5")
    account_id = customer(company)
    for _ in range(3):
        assert company.send(account_id, type="chat", quantity=101).status == 200
    ask(company, "POST", f"/accounts/{account_id}/balance/USD/adjust", {"amount": 57, "reason": "an outage"})
    next_month(company)
    sweep()
    (draft,) = ask(company, "GET", f"/accounts/{account_id}/invoices")
    assert (draft["status"], draft["number"]) == ("draft", None)
    # 757 of 757.5 cents are posted; the half cent stays as residue for the next month.
    assert (draft["subtotal"], draft["tax"], draft["total"]) == (700, 140, 840)
    assert company.send(account_id, type="chat", quantity=1000).status == 200  # in the grace: it is next month's
    forward(company, hours=2)
    sweep()
    invoice = ask(company, "GET", f"/invoices/{draft['id']}")
    assert (invoice["status"], invoice["number"], invoice["amount_due"]) == ("open", "INV-000001", 840)
    assert [(line["description"], line["amount"]) for line in invoice["lines"]] == [
        ("chat", 757),
        ("Adjustment: an outage", -57),
    ]
    assert invoice["lines"][0]["exact"] == "757.5"
    assert invoice["seller"] == SELLER
    assert company.balance(account_id, "USD")["amount"] == -840 - 2500
    account = ask(company, "GET", f"/accounts/{account_id}")
    assert (account["owed_balance"], account["owed_balances"]) == (840, {"USD": 840})
    paid = ask(company, "POST", f"/invoices/{draft['id']}/mark_paid", {"reference": "transfer 77"})
    assert (paid["status"], paid["amount_paid"], paid["remaining"]) == ("paid", 840, 0)
    assert paid["payments"][0]["method"] == "out_of_band"
    assert company.balance(account_id, "USD")["amount"] == -2500
    assert ask(company, "GET", f"/accounts/{account_id}")["owed_balances"] == {}
    next_month(company)
    sweep()
    second = ask(company, "GET", f"/accounts/{account_id}/invoices")[0]
    assert (second["subtotal"], second["total"]) == (2500, 3000)


def test_the_events_behind_a_line_are_those_that_made_it(company: Company) -> None:
    company.price("chat", "USD", "2")
    account_id = customer(company)
    first = company.send(account_id, type="chat", quantity=4).data["id"]
    gone = company.send(account_id, type="chat", quantity=9).data["id"]
    held = company.send(account_id, type="chat", quantity=5, state="pending").data["id"]
    ask(company, "DELETE", f"/events/{gone}")
    ask(company, "PUT", f"/events/{held}", {"state": "complete", "quantity": 3})
    invoice = final(company, account_id)
    (line,) = invoice["lines"]
    assert (line["amount"], line["quantity"], line["event_count"]) == (14, 7, 2)
    path = f"/invoices/{invoice['id']}/lines/1/events"
    assert [event["id"] for event in ask(company, "GET", path)] == [held, first]
    # Taken back later, it still is what this line was made of, and a line of its own on the next invoice.
    ask(company, "DELETE", f"/events/{first}")
    ask(company, "DELETE", f"/events/{held}")
    company.send(account_id, type="chat", quantity=50)
    assert [event["id"] for event in ask(company, "GET", path)][-1] == first
    later = final(company, account_id)
    assert [(line["kind"], line["amount"]) for line in later["lines"]] == [("usage", 100), ("reversal", -14)]
    assert {event["id"] for event in ask(company, "GET", f"/invoices/{later['id']}/lines/2/events")} == {first, held}
    ask(company, "GET", f"/invoices/{invoice['id']}/lines/2/events", status=404)


def test_an_event_in_two_denominations_is_billed_in_each(company: Company) -> None:
    company.price("chat", "credits", "1")
    company.price("chat", "USD", "0.4")
    account_id = customer(company)
    company.send(account_id, *({"type": "chat", "quantity": 3} for _ in range(5)))
    invoice = final(company, account_id)
    assert [(line["amount"], line["exact"], line["quantity"]) for line in invoice["lines"]] == [(6, "6", 15)]
    assert len(ask(company, "GET", f"/invoices/{invoice['id']}/lines/1/events")) == 5


def test_what_was_paid_ahead_is_applied(company: Company) -> None:
    company.price("chat", "USD", "1")
    account_id = customer(company, usd=400)
    company.send(account_id, type="chat", quantity=1000)
    invoice = final(company, account_id)
    assert (invoice["total"], invoice["applied"], invoice["amount_due"]) == (1000, 400, 600)
    company.send(account_id, type="chat", quantity=50)
    second = final(company, account_id)
    assert (second["applied"], second["amount_due"]) == (0, 50)
    assert ask(company, "GET", f"/accounts/{account_id}")["owed_balance"] == 650


def test_a_covered_invoice_is_paid_at_once(company: Company) -> None:
    company.price("chat", "USD", "1")
    account_id = customer(company, usd=400)
    company.send(account_id, type="chat", quantity=300)
    invoice = final(company, account_id)
    assert (invoice["status"], invoice["applied"], invoice["amount_due"]) == ("paid", 300, 0)
    ask(company, "POST", f"/invoices/{invoice['id']}/mark_paid", {"reference": "again"}, status=409)


def test_taxes_on_top_and_inside(company: Company) -> None:
    company.price("chat", "USD", "1")
    account_id = customer(
        company, taxes=[{"name": "VAT", "rate": "20", "inclusive": True}, {"name": "City", "rate": 7.5}]
    )
    company.send(account_id, type="chat", quantity=1201)
    invoice = final(company, account_id)
    # 1201 / 120 * 20 = 200.17 are inside; 1201 * 7.5 % = 90.075 come on top.
    assert [(tax["name"], tax["inclusive"], tax["amount"]) for tax in invoice["taxes"]] == [
        ("VAT", True, 200),
        ("City", False, 90),
    ]
    assert (invoice["subtotal"], invoice["tax"], invoice["tax_included"], invoice["total"]) == (1201, 90, 200, 1291)
    assert books(company, account_id) == {"usage": -1201, "tax": -90}


def test_a_draft_takes_lines_and_taxes_from_outside(company: Company) -> None:
    company.price("chat", "USD", "1")
    account_id = customer(company, taxes=[{"name": "VAT", "rate": "10"}])
    company.send(account_id, type="chat", quantity=100)
    draft = cut(company, account_id, lines=[{"description": "Onboarding", "amount": 400}])
    assert (draft["subtotal"], draft["tax"]) == (500, 50)
    path = f"/invoices/{draft['id']}"
    lines = [{"description": "Onboarding", "amount": 900}, {"description": "Discount", "amount": -100}]
    assert ask(company, "PUT", path, {"lines": lines, "memo": "Thank you"})["tax"] == 90
    given = ask(company, "PUT", path, {"taxes": [{"name": "VAT of elsewhere", "amount": 77}]})
    assert (given["tax"], given["taxes"][0]["rate"], given["memo"]) == (77, None, "Thank you")
    assert ask(company, "PUT", path, {"lines": lines[:1]})["tax"] == 77
    assert ask(company, "PUT", path, {"taxes": None})["tax"] == 100
    assert ask(company, "PUT", path, {"lines": [{"description": "No", "amount": -101}]}, status=422).code == (
        "out_of_range"
    )
    invoice = ask(company, "POST", f"{path}/finalize")
    assert (invoice["total"], invoice["amount_due"]) == (1100, 1100)
    assert books(company, account_id) == {"usage": -100, "invoice_item": -900, "tax": -100}
    assert ask(company, "PUT", path, {"memo": "late"}, status=409).code == "invoice_not_draft"
    assert ask(company, "DELETE", path, status=409).code == "invoice_not_draft"


def test_a_preview_leaves_nothing(company: Company) -> None:
    company.price("chat", "USD", "1")
    account_id = customer(company)
    company.send(account_id, type="chat", quantity=100)
    shown = cut(company, account_id, preview=True)
    assert (shown["id"], shown["total"], len(shown["lines"])) == (None, 100, 1)
    assert ask(company, "GET", f"/accounts/{account_id}/invoices") == []
    assert cut(company, account_id)["total"] == 100


def test_nothing_to_bill_makes_no_invoice(company: Company, sweep: Callable[[], dict[str, int]]) -> None:
    company.price("chat", "USD", "1")
    account_id = customer(company)
    path = f"/accounts/{account_id}/invoices"
    assert ask(company, "POST", path, {}, status=409).code == "nothing_to_invoice"
    ask(company, "POST", f"/accounts/{account_id}/balance/USD/adjust", {"amount": 500, "reason": "goodwill"})
    next_month(company)
    sweep()
    assert ask(company, "GET", path) == []
    company.send(account_id, type="chat", quantity=700)
    next_month(company)
    sweep()
    (draft,) = ask(company, "GET", path)
    assert draft["subtotal"] == 200  # the credit of the month before waited for something to take from
    other = company.account(USD=0)
    assert ask(company, "POST", f"/accounts/{other}/invoices", {}, status=409).code == "no_invoice_terms"


def test_a_discarded_draft_goes_on_the_next_one(company: Company) -> None:
    company.price("chat", "USD", "1")
    account_id = customer(company)
    company.send(account_id, type="chat", quantity=100)
    first = cut(company, account_id)
    company.send(account_id, type="chat", quantity=20)
    second = cut(company, account_id)
    assert ask(company, "DELETE", f"/invoices/{first['id']}", status=409).code == "not_latest_invoice"
    ask(company, "DELETE", f"/invoices/{second['id']}")
    ask(company, "DELETE", f"/invoices/{first['id']}")
    assert cut(company, account_id)["total"] == 120


def test_older_drafts_become_final_first_and_numbers_have_no_gap(company: Company) -> None:
    set_up(company, prefix="A/", taxes=[{"name": "VAT", "rate": "10"}])
    company.price("chat", "USD", "1")
    account_id = customer(company)
    drafts = []
    for quantity in (100, 200, 300):
        company.send(account_id, type="chat", quantity=quantity)
        drafts.append(cut(company, account_id)["id"])
    last = ask(company, "POST", f"/invoices/{drafts[2]}/finalize")
    found = [ask(company, "GET", f"/invoices/{id}") for id in drafts]
    assert [row["number"] for row in found] == ["A/000001", "A/000002", "A/000003"]
    assert [row["amount_due"] for row in found] == [110, 220, 330]
    assert last == found[2]
    assert company.balance(account_id, "USD")["amount"] == -660


def test_a_void_invoice_is_owed_no_more(company: Company) -> None:
    company.price("chat", "USD", "1")
    account_id = customer(company, taxes=[{"name": "VAT", "rate": "10"}])
    company.send(account_id, type="chat", quantity=100)
    invoice = final(company, account_id)
    void = ask(company, "POST", f"/invoices/{invoice['id']}/void")
    assert (void["status"], void["remaining"]) == ("void", 0)
    assert company.balance(account_id, "USD")["amount"] == 0
    assert ask(company, "POST", f"/invoices/{invoice['id']}/void", status=409).code == "invoice_not_open"
    assert ask(company, "GET", f"/accounts/{account_id}")["owed_balance"] == 0


def test_credit_notes_come_to_the_total_and_no_further(company: Company) -> None:
    company.price("chat", "USD", "1")
    account_id = customer(company)
    company.send(account_id, type="chat", quantity=1000)
    path = f"/invoices/{final(company, account_id)['id']}"
    first = ask(company, "POST", f"{path}/credit_notes", {"amount": 300, "reason": "an outage"})
    assert first["number"] == "CN-000001"
    assert ask(company, "GET", path)["remaining"] == 700
    over = ask(company, "POST", f"{path}/credit_notes", {"amount": 701, "reason": "too much"}, status=422)
    assert (over.code, over.details["creditable"]) == ("credit_exceeds_invoice", 700)
    ask(company, "POST", f"{path}/credit_notes", {"amount": 700, "reason": "the rest"})
    invoice = ask(company, "GET", path)
    assert (invoice["status"], invoice["amount_credited"]) == ("paid", 1000)
    assert sum(note["amount"] for note in invoice["credit_notes"]) == invoice["total"]
    assert company.balance(account_id, "USD")["amount"] == 0


def test_a_credit_note_of_a_paid_invoice_stays_on_the_balance(company: Company) -> None:
    company.price("chat", "USD", "1")
    account_id = customer(company)
    company.send(account_id, type="chat", quantity=1000)
    path = f"/invoices/{final(company, account_id)['id']}"
    ask(company, "POST", f"{path}/mark_paid", {"reference": "cheque"})
    ask(company, "POST", f"{path}/credit_notes", {"amount": 250, "reason": "goodwill"})
    assert company.balance(account_id, "USD")["amount"] == 250
    company.send(account_id, type="chat", quantity=300)
    second = final(company, account_id)
    assert (second["applied"], second["amount_due"]) == (250, 50)


def test_dunning_pauses_and_payment_relieves(company: Company, sweep: Callable[[], dict[str, int]]) -> None:
    ladder = [{"days": 3, "action": "remind"}, {"days": 14, "action": "pause"}, {"days": 30, "action": "credit_block"}]
    set_up(company, dunning=ladder, terms_days=10)
    company.price("chat", "USD", "1")
    account_id = customer(company)
    company.send(account_id, type="chat", quantity=1000)
    path = f"/invoices/{final(company, account_id)['id']}"
    forward(company, days=14)
    sweep()
    assert ask(company, "GET", path)["dunning_step"] == 1
    assert not ask(company, "GET", f"/accounts/{account_id}")["paused"]
    assert company.send(account_id, type="chat", quantity=1).status == 200  # its lane remembers it, not paused
    forward(company, days=31)
    sweep()
    account = ask(company, "GET", f"/accounts/{account_id}")
    assert (account["paused"], account["credit_blocked"]) == (True, True)
    gated = company.send(account_id, type="chat", quantity=1, gate_on_balance=True)
    assert (gated.status, gated.code) == (402, "account_paused")
    ask(company, "POST", f"{path}/mark_paid", {"reference": "transfer"})
    account = ask(company, "GET", f"/accounts/{account_id}")
    assert (account["paused"], account["credit_blocked"]) == (False, False)


def test_an_invoice_that_is_given_up_is_owed_no_more_but_stays_on_the_balance(company: Company) -> None:
    company.price("chat", "USD", "1")
    account_id = customer(company)
    company.send(account_id, type="chat", quantity=1000)
    path = f"/invoices/{final(company, account_id)['id']}"
    assert ask(company, "POST", f"{path}/uncollectible")["status"] == "uncollectible"
    assert ask(company, "GET", f"/accounts/{account_id}")["owed_balance"] == 0
    assert company.balance(account_id, "USD")["amount"] == -1000
    assert ask(company, "POST", f"{path}/mark_paid", {"reference": "after all"})["status"] == "paid"


def test_a_card_is_needed_where_one_is_to_be_charged(company: Company, sweep: Callable[[], dict[str, int]]) -> None:
    company.price("chat", "USD", "1")
    account_id = customer(company, collection="charge_automatically")
    company.send(account_id, type="chat", quantity=1000)
    path = f"/invoices/{final(company, account_id)['id']}"
    before = ask(company, "GET", path)["next_collection_at"]
    sweep()
    assert ask(company, "GET", path)["next_collection_at"] > before
    reply: Reply = ask(company, "POST", f"{path}/pay", status=402)
    assert reply.code == "payment_method_required"


def test_terms_can_be_read_changed_and_ended(company: Company) -> None:
    account_id = customer(company, terms_days=0, grace_seconds=0, memo="PO 7")
    path = f"/accounts/{account_id}/invoicing"
    (terms,) = ask(company, "GET", path)
    assert (terms["terms_days"], terms["grace_seconds"], terms["memo"]) == (0, 0, "PO 7")
    ask(company, "PUT", path, {"currency": "USD", "taxes": []})
    (terms,) = ask(company, "GET", path)
    assert (terms["terms_days"], terms["grace_seconds"], terms["taxes"]) == (30, None, [])
    ask(company, "DELETE", f"{path}?currency=USD")
    assert ask(company, "GET", path) == []
    assert ask(company, "DELETE", f"{path}?currency=USD", status=409).code == "no_invoice_terms"
    for currency in ("USD", "EUR"):
        ask(company, "PUT", path, {"currency": currency})
    assert ask(company, "DELETE", path, status=422).code == "missing_field"
    ask(company, "DELETE", f"{path}?currency=EUR")
    assert ask(company, "DELETE", path)["currency"] == "USD"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("currency", "usd"),
        ("currency", "credits"),
        ("terms_days", -1),
        ("collection", "by_force"),
        ("grace_seconds", 99_999_999),
        ("taxes", [{"name": "VAT", "rate": "0"}]),
        ("taxes", [{"name": "VAT", "rate": "100.1"}]),
        ("taxes", [{"name": "VAT", "rate": "-3"}]),
        ("taxes", [{"name": "", "rate": "3"}]),
    ],
)
def test_terms_that_make_no_sense_are_refused(company: Company, field: str, value: object) -> None:
    body = {"currency": "USD", field: value}
    assert company.call("PUT", f"/v1/accounts/{company.account()}/invoicing", body).status == 422


def test_settings_are_shown_as_they_are_set(company: Company) -> None:
    shown = ask(company, "GET", f"/companies/{company.id}")["invoicing"]
    assert (shown["prefix"], shown["grace_seconds"], shown["dunning"], shown["taxes"]) == ("INV-", 3600, [], [])
    set_up(company, dunning=[{"days": 9, "action": "pause"}, {"days": 2, "action": "remind"}], footer="Thank you")
    shown = ask(company, "GET", f"/companies/{company.id}")["invoicing"]
    assert [step["days"] for step in shown["dunning"]] == [2, 9]
    assert (shown["footer"], shown["seller"]) == ("Thank you", SELLER)
    for wrong in ({"prefix": "a b"}, {"dunning": [{"days": 1, "action": "sue"}]}, {"currency": "XYZ"}):
        assert company.call("PUT", "/v1/companies/{company}", {"invoicing": wrong}).status == 422


def test_lists_filter_and_page(company: Company) -> None:
    company.price("chat", "USD", "1")
    account_id = customer(company)
    made = []
    for _ in range(3):
        company.send(account_id, type="chat", quantity=100)
        made.append(cut(company, account_id)["id"])
    ask(company, "POST", f"/invoices/{made[0]}/finalize")
    for path in (f"/v1/accounts/{account_id}/invoices", "/v1/companies/{company}/invoices"):
        drafts = company.call("GET", f"{path}?status=draft&currency=USD")
        assert [row["id"] for row in drafts.data] == made[:0:-1]
        first = company.call("GET", f"{path}?limit=2")
        rest = company.call("GET", f"{path}?limit=2&cursor={first.body['next_cursor']}")
        assert [row["id"] for row in [*first.data, *rest.data]] == made[::-1]


def test_the_paper_is_the_same_each_time(company: Company) -> None:
    set_up(company, footer="Registered in London · Директор", taxes=[{"name": "VAT", "rate": "20"}])
    company.price("chat", "USD", "1")
    account_id = customer(company, memo="<b>Ω 東京</b> \u202e")
    company.send(account_id, type="chat", quantity=123456)
    lines = [{"description": f"{'x' * 200} Item {number} <script>", "amount": 1000 + number} for number in range(80)]
    draft = cut(company, account_id, lines=lines)
    assert company.call("GET", f"/v1/invoices/{draft['id']}/pdf").raw.startswith(b"%PDF-")
    ask(company, "POST", f"/invoices/{draft['id']}/finalize")
    papers = [company.call("GET", f"/v1/invoices/{draft['id']}/pdf") for _ in range(2)]
    assert papers[0].headers["content-type"] == "application/pdf"
    assert papers[0].raw == papers[1].raw
    assert len(re.findall(rb"/Type /Page\b", papers[0].raw)) > 2


def test_other_companies_find_nothing(company: Company, client: Client) -> None:
    company.price("chat", "USD", "1")
    account_id = customer(company)
    company.send(account_id, type="chat", quantity=100)
    invoice_id = cut(company, account_id)["id"]
    other = Company.open(client)
    account, one = f"/v1/accounts/{account_id}", f"/v1/invoices/{invoice_id}"
    for method, path, body in (
        ("GET", one, None),
        ("GET", f"{one}/pdf", None),
        ("GET", f"{one}/lines/1/events", None),
        ("PUT", one, {"memo": "x"}),
        ("DELETE", one, None),
        ("POST", f"{one}/finalize", None),
        ("POST", f"{one}/void", None),
        ("POST", f"{one}/pay", None),
        ("POST", f"{one}/link", {}),
        ("POST", f"{one}/uncollectible", None),
        ("POST", f"{one}/mark_paid", {"reference": "x"}),
        ("POST", f"{one}/credit_notes", {"amount": 1, "reason": "x"}),
        ("GET", f"{account}/invoices", None),
        ("POST", f"{account}/invoices", {}),
        ("GET", f"{account}/invoicing", None),
        ("PUT", f"{account}/invoicing", {"currency": "USD"}),
        ("DELETE", f"{account}/invoicing?currency=USD", None),
        ("GET", f"/v1/companies/{company.id}/invoices", None),
    ):
        reply = other.call(method, path, body)
        assert (reply.status, reply.code) == (404, "not_found"), (method, path)
    assert ask(company, "GET", f"/invoices/{invoice_id}")["status"] == "draft"


def test_the_same_key_credits_once(company: Company) -> None:
    company.price("chat", "USD", "1")
    account_id = customer(company)
    company.send(account_id, type="chat", quantity=1000)
    path = f"/v1/invoices/{final(company, account_id)['id']}/credit_notes"
    body, key = {"amount": 400, "reason": "goodwill"}, {"idempotency-key": "credit 1"}
    replies = [company.call("POST", path, body, key) for _ in range(2)]
    assert replies[0].raw == replies[1].raw
    assert company.balance(account_id, "USD")["amount"] == -600
