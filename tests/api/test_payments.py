"""Cards, deposits, and what becomes of payments afterwards: the contract of money by HTTP (contract 2.1, 2.2, 2.4)."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest

from tenuto.api.app import ROUTES
from tenuto.core.user import SCOPES
from tests.client import Client, Company, Reply
from tests.simulated import Simulated

REFUSING: Final = "pm_card_chargeCustomerFail"
"""A card that can be given and then refuses every charge."""
SLOW: Final = "pm_card_simulatorProcessing"
"""A card whose charges stay under way."""
CARD_FIELDS: Final = {"id", "account_id", "brand", "last4", "exp_month", "exp_year", "default", "created_at"}
PAYMENT_FIELDS: Final = {
    "id", "account_id", "amount", "currency", "reason", "status", "method", "denomination", "units", "description",
    "code", "message", "attempts", "refunded", "stripe_payment_intent_id", "due_at", "next_attempt_at", "created_at",
    "finished_at",
}  # fmt: skip
REFUND_FIELDS: Final = {
    "id", "payment_id", "account_id", "kind", "status", "amount", "units", "denomination", "currency", "reason",
    "stripe_refund_id", "code", "created_at", "finished_at",
}  # fmt: skip


def refused(reply: Reply, status: int, code: str, /, **details: object) -> None:
    assert (reply.status, reply.code) == (status, code), reply.raw[:500]
    assert {name: reply.details.get(name) for name in details} == details


def ask(company: Company, method: str, path: str, body: object = None) -> Any:
    reply = company.call(method, f"/v1{path}", body)
    assert reply.status == 200, reply.raw[:500]
    return reply.data


def deposit(company: Company, account: str, units: int = 1000, charge: int = 500, **terms: object) -> Reply:
    """A deposit by the account's path; ``terms`` are further fields, and ``key`` an Idempotency-Key."""
    key = terms.pop("key", None)
    body = {"amount_to_deposit": units, "amount_to_charge": charge, **terms}
    headers = {} if key is None else {"idempotency-key": str(key)}
    return company.call("POST", f"/v1/accounts/{account}/deposit", body, headers)


def amount(company: Company, account: str, denomination: str = "credits") -> int:
    return int(company.balance(account, denomination)["amount"])


def payments(company: Company, account: str, query: str = "") -> list[Any]:
    return list(ask(company, "GET", f"/accounts/{account}/payments{query}"))


def charged(stripe: Simulated, company: Company) -> list[int]:
    """What the company's sandbox took from cards, newest first."""
    book = stripe.book(f"sk_test_sandbox{company.id[2:]}")
    return [intent["amount_received"] for intent in book["payment_intents"] if intent["status"] == "succeeded"]


# --- cards ------------------------------------------------------------------------------------------------------------


def test_a_card_is_given_by_its_token(company: Company) -> None:
    account = company.account()

    card = ask(company, "POST", f"/accounts/{account}/card", {"token": "tok_mastercard"})

    assert set(card) == CARD_FIELDS
    assert re.fullmatch(r"card_[0-9a-z]{18}", card["id"])
    assert (card["account_id"], card["brand"], card["last4"]) == (account, "mastercard", "4444")
    assert card["default"] is True
    assert ask(company, "GET", f"/accounts/{account}/cards") == [card]
    assert ask(company, "GET", f"/accounts/{account}")["stripe_id"].startswith("cus_")


@pytest.mark.parametrize(
    ("token", "decline"),
    [
        ("tok_chargeDeclined", "generic_decline"),
        ("tok_chargeDeclinedInsufficientFunds", "insufficient_funds"),
        ("tok_chargeDeclinedExpiredCard", "expired_card"),
    ],
)
def test_a_card_that_the_bank_refuses_is_not_kept(company: Company, token: str, decline: str) -> None:
    account = company.account()

    refused(
        company.call("POST", f"/v1/accounts/{account}/card", {"token": token}),
        402,
        "payment_failed",
        decline_code=decline,
    )
    assert ask(company, "GET", f"/accounts/{account}/cards") == []


def test_a_token_that_was_made_up_is_refused(company: Company) -> None:
    account = company.account()

    refused(company.call("POST", f"/v1/accounts/{account}/card", {"token": "tok_nobody"}), 422, "gateway_refused")
    assert ask(company, "GET", f"/accounts/{account}/cards") == []


def test_the_newest_card_is_charged_until_another_is_chosen(company: Company) -> None:
    account = company.account()
    first, second = company.card(account), company.card(account, "tok_mastercard")
    path = f"/accounts/{account}/cards"

    assert {card["id"]: card["default"] for card in ask(company, "GET", path)} == {second: True, first: False}
    assert ask(company, "GET", path)[0]["id"] == second

    assert ask(company, "PUT", f"{path}/{first}", {"default": True})["default"] is True
    assert {card["id"]: card["default"] for card in ask(company, "GET", path)} == {second: False, first: True}
    paid = ask(company, "GET", f"/payments/{company.deposit(account)}")
    assert [attempt["card"] for attempt in paid["attempt_log"]] == ["visa 4242"]


def test_a_removed_card_leaves_its_place_to_the_newest(company: Company) -> None:
    account = company.account()
    first, second = company.card(account), company.card(account, "tok_mastercard")
    path = f"/accounts/{account}/cards"

    removed = ask(company, "DELETE", f"{path}/{second}")
    assert (removed["id"], removed["default"]) == (second, False)
    assert [(card["id"], card["default"]) for card in ask(company, "GET", path)] == [(first, True)]
    for method, body in (("DELETE", None), ("PUT", {"default": True})):
        refused(company.call(method, f"/v1{path}/{second}", body), 404, "not_found")

    ask(company, "DELETE", f"{path}/{first}")
    assert ask(company, "GET", path) == []
    refused(deposit(company, account, denomination="credits"), 402, "payment_method_required")


def test_a_card_of_another_account_is_unknown(company: Company) -> None:
    mine, other = company.account(), company.account()
    card = company.card(other)

    for method, body in (("DELETE", None), ("PUT", {"default": True})):
        refused(company.call(method, f"/v1/accounts/{mine}/cards/{card}", body), 404, "not_found")
    assert [one["id"] for one in ask(company, "GET", f"/accounts/{other}/cards")] == [card]


def test_the_same_key_gives_a_card_once(company: Company) -> None:
    account, key = company.account(), {"idempotency-key": "once"}
    first, again = (company.call("POST", f"/v1/accounts/{account}/card", {"token": "tok_visa"}, key) for _ in range(2))

    assert (first.status, again.status, again.is_replay) == (200, 200, True)
    assert first.raw == again.raw
    assert len(ask(company, "GET", f"/accounts/{account}/cards")) == 1


def test_a_card_comes_with_a_new_account(company: Company) -> None:
    body = {"name": "Ada", "email": "ada@example.com", "token": "tok_visa"}
    opened = ask(company, "POST", f"/companies/{company.id}/accounts", body)

    assert opened["stripe_id"].startswith("cus_")
    assert "card_collector_url" not in opened
    assert [card["last4"] for card in ask(company, "GET", f"/accounts/{opened['id']}/cards")] == ["4242"]
    assert company.deposit(opened["id"]).startswith("pay_")


def test_a_refused_card_leaves_no_account_behind(company: Company) -> None:
    body = {"name": "Ada", "email": "ada@example.com", "token": "tok_chargeDeclined"}

    refused(company.call("POST", "/v1/companies/{company}/accounts", body), 402, "payment_failed")
    assert ask(company, "GET", f"/companies/{company.id}/accounts") == []


def test_the_same_key_opens_one_account_with_its_card(company: Company) -> None:
    body = {"name": "Ada", "email": "ada@example.com", "token": "tok_visa"}
    first, again = (
        company.call("POST", "/v1/companies/{company}/accounts", body, {"x-dedupeid": "once"}) for _ in range(2)
    )

    assert first.raw == again.raw
    assert again.is_replay
    assert len(ask(company, "GET", f"/companies/{company.id}/accounts")) == 1


@pytest.mark.parametrize(
    ("given", "is_asked"), [(1, True), (True, True), ("yes", True), (0, False), (False, False), (None, False)]
)
def test_a_card_collector_is_asked_for_by_anything_true(company: Company, given: object, *, is_asked: bool) -> None:
    body = {"name": "Ada", "email": "ada@example.com", "enable_card_collector": given}
    opened = ask(company, "POST", f"/companies/{company.id}/accounts", body)

    assert ("card_collector_url" in opened) is is_asked
    if is_asked:
        host, port = company.client.host, company.client.port
        assert re.fullmatch(
            rf"http://{host}:{port}/pay/pl_[0-9a-z]{{18}}\.[\w-]{{43}}", opened["card_collector_url"], re.ASCII
        )
    assert "card_collector_url" not in ask(company, "GET", f"/accounts/{opened['id']}")


def test_without_a_provider_no_card_can_be_given(company: Company, client: Client) -> None:
    live_key = ask(company, "POST", f"/companies/{company.id}/keys", {"mode": "live"})["api_key"]
    live = Company(client, company.id, live_key)
    account = live.account()

    refused(live.call("POST", f"/v1/accounts/{account}/card", {"token": "tok_visa"}), 409, "gateway_not_configured")
    body = {"name": "Ada", "email": "ada@example.com", "token": "tok_visa"}
    refused(live.call("POST", "/v1/companies/{company}/accounts", body), 409, "gateway_not_configured")
    refused(deposit(live, account, denomination="credits"), 402, "payment_method_required")


# --- deposits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/accounts/{}/deposit", "/accounts/{}/balance/credits/deposit"])
def test_a_deposit_charges_the_card_and_fills_the_balance(company: Company, stripe: Simulated, path: str) -> None:
    account = company.account(credits=5)
    company.card(account)

    made = ask(company, "POST", path.format(account), {"amount_to_deposit": 1000, "amount_to_charge": 500})

    assert set(made) == {"payment", "balance"}
    assert set(made["payment"]) == PAYMENT_FIELDS
    paid = made["payment"]
    assert (paid["status"], paid["reason"], paid["method"]) == ("succeeded", "deposit", "card")
    assert (paid["amount"], paid["currency"], paid["units"], paid["denomination"]) == (500, "USD", 1000, "credits")
    assert paid["stripe_payment_intent_id"].startswith("pi_")
    assert made["balance"] == company.balance(account, "credits")
    assert made["balance"]["amount"] == 1005
    assert charged(stripe, company) == [500]
    (moved, _) = ask(company, "GET", f"/accounts/{account}/transactions")
    assert (moved["type"], moved["book"], moved["amount"], moved["cause_id"]) == (
        "DEPOSIT",
        "deposit",
        1000,
        paid["id"],
    )


def test_a_deposit_opens_a_balance_that_is_not_there(company: Company) -> None:
    account = company.account()
    company.card(account)

    refused(deposit(company, account), 422, "missing_field", path="denomination")
    assert deposit(company, account, denomination="tokens").data["balance"]["amount"] == 1000
    assert deposit(company, account).data["balance"]["amount"] == 2000


def test_between_two_balances_the_one_to_fill_is_named(company: Company) -> None:
    account = company.account(credits=0, tokens=0, USD=0)
    company.card(account)

    refused(deposit(company, account), 422, "missing_field", path="denomination")
    assert deposit(company, account, denomination="tokens").data["payment"]["denomination"] == "tokens"
    path = f"/v1/accounts/{account}/balance/credits/deposit"
    body = {"amount_to_deposit": 1, "amount_to_charge": 500, "denomination": "tokens"}
    refused(company.call("POST", path, body), 422, "invalid_field", path="denomination")


def test_dollars_are_charged_as_they_are_put_on(company: Company) -> None:
    account = company.account(USD=0)
    company.card(account)

    refused(deposit(company, account, denomination="USD"), 422, "invalid_field", path="amount_to_deposit")
    assert deposit(company, account, 500, 500, denomination="USD").data["balance"]["amount"] == 500


@pytest.mark.parametrize("header", ["X-DedupeId", "Idempotency-Key"])
def test_the_same_key_charges_once(company: Company, stripe: Simulated, header: str) -> None:
    account = company.account(credits=0)
    company.card(account)
    path = f"/v1/accounts/{account}/deposit"
    body = {"amount_to_deposit": 1000, "amount_to_charge": 500}

    first = company.call("POST", path, body, {header: "once"})
    spelled = b'{ "amount_to_charge":500,\n"amount_to_deposit":1000 }'
    for again in (
        company.call("POST", path, body, {header: "once"}),
        company.call("POST", path, spelled, {header: "once"}),
    ):
        assert (again.status, again.is_replay, again.raw) == (200, True, first.raw)
    refused(company.call("POST", path, {**body, "amount_to_charge": 501}, {header: "once"}), 422, "key_reused")
    other = f"/v1/accounts/{account}/balance/credits/deposit"
    refused(company.call("POST", other, body, {header: "once"}), 422, "key_reused")
    assert charged(stripe, company) == [500]
    assert amount(company, account) == 1000


def test_many_at_once_with_one_key_charge_once(company: Company, stripe: Simulated) -> None:
    account = company.account(credits=0)
    company.card(account)

    def ask_alone(_: int) -> Reply:
        with Client(company.client.host, company.client.port) as client:
            return deposit(Company(client, company.id, company.key), account, key="all at once")

    with ThreadPoolExecutor(12) as crowd:
        replies = list(crowd.map(ask_alone, range(24)))
    assert {reply.status for reply in replies} <= {200, 202, 409}
    assert {reply.code for reply in replies if reply.status == 409} <= {"request_in_progress"}
    assert deposit(company, account, key="all at once").data["payment"]["status"] == "succeeded"
    assert charged(stripe, company) == [500]
    assert amount(company, account) == 1000
    assert len(payments(company, account)) == 1


def test_many_at_once_without_a_key_leave_one_under_way(company: Company, stripe: Simulated) -> None:
    account = company.account(credits=0)
    company.card(account)

    def ask_alone(_: int) -> Reply:
        with Client(company.client.host, company.client.port) as client:
            return deposit(Company(client, company.id, company.key), account)

    with ThreadPoolExecutor(8) as crowd:
        replies = list(crowd.map(ask_alone, range(8)))
    done = [reply for reply in replies if reply.status == 200]
    assert {reply.code for reply in replies if reply.status != 200} <= {"refill_in_progress", "request_in_progress"}
    assert len(charged(stripe, company)) == len(done) >= 1
    assert amount(company, account) == 1000 * len(done)


def test_a_refused_charge_sticks_to_its_key(company: Company) -> None:
    account = company.account(credits=0)
    company.card(account, REFUSING)

    first = deposit(company, account, key="tried")
    refused(first, 402, "payment_failed", decline_code="generic_decline")
    company.card(account)
    again = deposit(company, account, key="tried")
    assert (again.status, again.is_replay, again.raw) == (402, True, first.raw)
    assert amount(company, account) == 0
    (payment,) = payments(company, account)
    assert (payment["id"], payment["status"]) == (first.details["payment_id"], "failed")
    assert deposit(company, account, key="with another key").status == 200


def test_without_a_card_nothing_is_written(company: Company) -> None:
    account = company.account(credits=0)

    refused(deposit(company, account, key="k"), 402, "payment_method_required")
    assert payments(company, account) == []
    company.card(account)
    assert deposit(company, account, key="k").status == 200, "the key is free: nothing began"


@pytest.mark.parametrize(
    ("charge", "currency", "least", "most"),
    [
        (49, "USD", 50, 99_999_999),
        (0, "USD", 50, 99_999_999),
        (100_000_000, "USD", 50, 99_999_999),
        (49, "JPY", 50, 99_999_999),
        (29, "GBP", 30, 99_999_999),
    ],
)
def test_what_no_card_can_be_charged_is_refused(
    company: Company, charge: int, currency: str, least: int, most: int
) -> None:
    account = company.account(credits=0)
    company.card(account)

    for preview in (False, True):
        reply = deposit(company, account, charge=charge, currency=currency, preview=preview)
        refused(reply, 422, "amount_not_chargeable", path="amount_to_charge", minimum=least, maximum=most)
    assert payments(company, account) == []


@pytest.mark.parametrize(("charge", "currency"), [(50, "USD"), (99_999_999, "USD"), (30, "GBP"), (50, "JPY")])
def test_the_smallest_and_the_largest_charge_are_taken(company: Company, charge: int, currency: str) -> None:
    account = company.account(credits=0)
    company.card(account)

    paid = deposit(company, account, charge=charge, currency=currency).data["payment"]
    assert (paid["amount"], paid["currency"], paid["status"]) == (charge, currency, "succeeded")


def test_a_preview_charges_nothing(company: Company, stripe: Simulated) -> None:
    account = company.account(credits=0)

    shown = deposit(company, account, preview=True).data
    assert shown == {
        "preview": True,
        "amount_to_charge": 500,
        "currency": "USD",
        "amount_to_deposit": 1000,
        "denomination": "credits",
    }
    assert charged(stripe, company) == []
    assert payments(company, account) == []


def test_a_deposit_can_be_paid_from_another_balance(company: Company) -> None:
    account = company.account(credits=0, USD=500)

    short = deposit(company, account, charge=501, charge_against_denomination="USD")
    refused(short, 402, "insufficient_balance", denomination="USD", required=501, available=500, shortfall=1)
    made = deposit(company, account, charge=500, charge_against_denomination="USD").data
    assert (made["payment"]["method"], made["payment"]["currency"], made["balance"]["amount"]) == (
        "balance",
        "USD",
        1000,
    )
    assert amount(company, account, "USD") == 0
    company.call("PUT", f"/v1/accounts/{account}/balance/USD", {"credit_limit": 30})
    refused(deposit(company, account, charge=31, charge_against_denomination="USD"), 402, "credit_limit_reached")
    assert deposit(company, account, charge=30, charge_against_denomination="USD").status == 200
    assert amount(company, account, "USD") == -30
    itself = deposit(company, account, charge=1, charge_against_denomination="credits", denomination="credits")
    refused(itself, 422, "invalid_field", path="charge_against_denomination")
    moved = ask(company, "GET", f"/accounts/{account}/transactions")
    assert sum(one["amount"] for one in moved if one["denomination"] == "USD") == -30


def test_a_hold_is_not_spent_on_a_deposit(company: Company) -> None:
    account = company.account(credits=0, USD=100)
    hold = {"type": "A", "state": "pending", "cost_override_amount": 60, "cost_override_denomination": "USD"}
    company.send(account, hold)

    refused(deposit(company, account, charge=41, charge_against_denomination="USD"), 402, "insufficient_balance")
    assert deposit(company, account, charge=40, charge_against_denomination="USD").status == 200


def test_a_deposit_from_a_balance_is_done_once_per_key(company: Company) -> None:
    account = company.account(credits=0, USD=500)
    replies = [deposit(company, account, charge=200, charge_against_denomination="USD", key="k") for _ in range(2)]

    assert replies[0].raw == replies[1].raw
    assert (amount(company, account), amount(company, account, "USD")) == (1000, 300)


def test_a_charge_under_way_is_pending_and_keeps_the_balance_empty(company: Company, stripe: Simulated) -> None:
    account = company.account(credits=0)
    company.card(account, SLOW)

    begun = deposit(company, account, key="slow")
    assert (begun.status, begun.data["payment"]["status"]) == (202, "pending")
    assert begun.data["balance"]["amount"] == 0
    refused(deposit(company, account), 409, "refill_in_progress", payment_id=begun.data["payment"]["id"])
    stripe.release()
    ask(company, "POST", f"/companies/{company.id}/clock", {"advance_seconds": 60})
    assert amount(company, account) == 1000
    assert ask(company, "GET", f"/payments/{begun.data['payment']['id']}")["status"] == "succeeded"
    known, again = deposit(company, account, key="slow"), deposit(company, account, key="slow")
    assert (known.status, known.data["payment"]["status"]) == (200, "succeeded"), "a 202 is no last word for its key"
    assert (again.is_replay, again.raw) == (True, known.raw)
    assert charged(stripe, company) == [500]


# --- lists and one payment --------------------------------------------------------------------------------------------


def test_payments_are_listed_newest_first_with_filters(company: Company) -> None:
    account, other = company.account(credits=0, USD=1000), company.account(credits=0)
    company.card(account)
    company.card(other, REFUSING)
    by_card = company.deposit(account)
    by_balance = deposit(company, account, charge=10, charge_against_denomination="USD", denomination="credits")
    euros = deposit(company, account, currency="EUR", denomination="credits").data["payment"]["id"]
    failed = deposit(company, other, denomination="credits").details["payment_id"]
    mine = [euros, by_balance.data["payment"]["id"], by_card]

    assert [one["id"] for one in payments(company, account)] == mine
    assert all(set(one) == PAYMENT_FIELDS for one in payments(company, account))
    everyone = f"/companies/{company.id}/payments"
    assert [one["id"] for one in ask(company, "GET", everyone)] == [failed, *mine]
    for query, expected in {
        "status=succeeded": mine,
        "status=failed": [failed],
        "status=pending": [],
        "reason=deposit": [failed, *mine],
        "reason=refill": [],
        "method=balance": [mine[1]],
        "currency=EUR": [euros],
        "currency=usd": [],
        "from=2999-01-01T00:00:00Z": [],
        "to=2999-01-01T00:00:00Z": [failed, *mine],
        "to=2001-01-01T00:00:00Z": [],
    }.items():
        assert [one["id"] for one in ask(company, "GET", f"{everyone}?{query}")] == expected, query
    seen: list[str] = []
    page = company.call("GET", f"/v1{everyone}?limit=1").body
    while True:
        seen += [one["id"] for one in page["data"]]
        if not page["has_more"]:
            break
        page = company.call("GET", f"/v1{everyone}?limit=1&cursor={page['next_cursor']}").body
    assert seen == [failed, *mine]


def test_one_payment_shows_every_attempt(company: Company) -> None:
    account = company.account(credits=0)
    company.card(account, REFUSING)
    payment_id = deposit(company, account).details["payment_id"]
    company.card(account)
    ask(company, "POST", f"/payments/{payment_id}/retry")

    shown = ask(company, "GET", f"/payments/{payment_id}")
    assert set(shown) == {*PAYMENT_FIELDS, "attempt_log", "refunds", "invoices"}
    assert [(one["number"], one["card"], one["outcome"]) for one in shown["attempt_log"]] == [
        (1, "visa 0341", "declined"),
        (2, "visa 4242", "succeeded"),
    ]
    assert shown["attempt_log"][0]["code"] == "generic_decline"
    assert (shown["status"], shown["code"], shown["attempts"]) == ("succeeded", None, 2)
    assert amount(company, account) == 1000


@pytest.mark.parametrize("scope", ["payments:read", "payments:write"])
def test_money_is_moved_and_seen_only_with_its_scope(company: Company, client: Client, scope: str) -> None:
    account = company.account(credits=0)
    card, payment = company.card(account), company.deposit(account)
    ids = {"company_id": company.id, "account_id": account, "card_id": card, "payment_id": payment}
    ids |= {"denomination": "credits", "refund_id": "re_000000000000000000"}
    others = [one for one in SCOPES if one != scope]
    issued = ask(company, "POST", f"/companies/{company.id}/keys", {"scopes": others})
    without = Company(client, company.id, issued["api_key"])

    found = [route for route in ROUTES if route.scope == scope]
    assert len(found) >= 4
    for route in found:
        reply = without.call(route.method, f"/v1{route.path.format(**ids)}", route.example)
        refused(reply, 403, "insufficient_scope", scope=scope)
    assert charged_once(company, account, payment)


def charged_once(company: Company, account: str, payment: str) -> bool:
    return [one["id"] for one in payments(company, account)] == [payment]


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_only_what_failed_can_be_tried_again(company: Company, stripe: Simulated) -> None:
    account = company.account(credits=0)
    company.card(account)
    paid = company.deposit(account)

    refused(company.call("POST", f"/v1/payments/{paid}/retry"), 409, "payment_not_retryable", status="succeeded")
    refused(company.call("POST", f"/v1/payments/{paid}/void"), 409, "payment_not_voidable", status="succeeded")
    company.card(account, REFUSING)
    failed = deposit(company, account).details["payment_id"]
    company.card(account)
    key = {"idempotency-key": "again"}
    replies = [company.call("POST", f"/v1/payments/{failed}/retry", None, key) for _ in range(2)]
    assert replies[0].raw == replies[1].raw
    assert replies[0].data["status"] == "succeeded"
    assert charged(stripe, company) == [500, 500]
    assert amount(company, account) == 2000


def test_a_failed_payment_is_given_up_at_the_provider_too(company: Company, stripe: Simulated) -> None:
    account = company.account(credits=0)
    company.card(account, REFUSING)
    failed = deposit(company, account).details["payment_id"]

    given_up = ask(company, "POST", f"/payments/{failed}/void")
    assert given_up["status"] == "voided"
    book = stripe.book(f"sk_test_sandbox{company.id[2:]}")
    assert [intent["status"] for intent in book["payment_intents"]] == ["canceled"]
    company.card(account)
    refused(company.call("POST", f"/v1/payments/{failed}/retry"), 409, "payment_not_retryable", status="voided")
    refused(company.call("POST", f"/v1/payments/{failed}/void"), 409, "payment_not_voidable", status="voided")


@pytest.mark.parametrize("verb", ["retry", "void", "refund"])
def test_an_unknown_payment_is_not_found(company: Company, verb: str) -> None:
    refused(company.call("POST", f"/v1/payments/pay_000000000000000000/{verb}"), 404, "not_found")
    refused(company.call("POST", f"/v1/payments/a_00000000/{verb}"), 404, "not_found")


def test_what_was_charged_before_it_could_be_given_up_is_credited(company: Company, stripe: Simulated) -> None:
    account = company.account(credits=0)
    company.card(account, SLOW)
    payment_id = deposit(company, account).data["payment"]["id"]

    assert ask(company, "POST", f"/payments/{payment_id}/void")["status"] == "pending"
    stripe.release()
    ask(company, "POST", f"/companies/{company.id}/clock", {"advance_seconds": 300})
    assert ask(company, "GET", f"/payments/{payment_id}")["status"] == "succeeded"
    assert (charged(stripe, company), amount(company, account)) == ([500], 1000)


# --- refunds ----------------------------------------------------------------------------------------------------------


def test_a_whole_refund_takes_the_units_back(company: Company) -> None:
    account = company.account(credits=7)
    company.card(account)
    payment_id = company.deposit(account)

    back = ask(company, "POST", f"/payments/{payment_id}/refund")
    assert set(back) == REFUND_FIELDS
    assert (back["kind"], back["status"], back["amount"], back["units"]) == ("refund", "succeeded", 500, 1000)
    assert (back["payment_id"], back["reason"]) == (payment_id, "Refund")
    assert back["stripe_refund_id"].startswith("re_")
    assert amount(company, account) == 7
    shown = ask(company, "GET", f"/payments/{payment_id}")
    assert (shown["status"], shown["refunded"], shown["refunds"]) == ("refunded", 500, [back])
    refused(company.call("POST", f"/v1/payments/{payment_id}/refund"), 422, "refund_exceeds_payment", refundable=0)
    assert [one["id"] for one in payments(company, account, "?status=refunded")] == [payment_id]


def test_parts_take_back_all_units_together(company: Company) -> None:
    account = company.account()
    company.card(account)
    payment_id = company.deposit(account, units=1000, charge=700)
    path = f"/payments/{payment_id}/refund"

    parts = [ask(company, "POST", path, {"amount": part, "reason": "part"})["units"] for part in (100, 100, 499)]
    refused(company.call("POST", f"/v1{path}", {"amount": 2}), 422, "refund_exceeds_payment", refundable=1, required=2)
    parts.append(ask(company, "POST", path)["units"])
    assert parts == [142, 143, 713, 2]
    assert amount(company, account) == 0


def test_a_refund_may_leave_a_balance_below_zero(company: Company) -> None:
    account = company.account()
    company.card(account)
    company.price("CHAT", "credits", "1")
    payment_id = company.deposit(account)
    company.send(account, type="CHAT", quantity=900)

    ask(company, "POST", f"/payments/{payment_id}/refund")
    assert amount(company, account) == -900


def test_the_same_key_refunds_once(company: Company) -> None:
    account = company.account()
    company.card(account)
    path = f"/v1/payments/{company.deposit(account)}/refund"
    replies = [company.call("POST", path, {"amount": 100}, {"idempotency-key": "k"}) for _ in range(2)]

    assert (replies[0].raw, replies[1].is_replay) == (replies[1].raw, True)
    refused(company.call("POST", path, {"amount": 101}, {"idempotency-key": "k"}), 422, "key_reused")
    assert amount(company, account) == 800


def test_what_another_balance_paid_is_no_refund(company: Company) -> None:
    account = company.account(credits=0, USD=500)
    made = deposit(company, account, charge=100, charge_against_denomination="USD").data["payment"]["id"]

    refused(company.call("POST", f"/v1/payments/{made}/refund"), 409, "payment_not_refundable")


def test_a_refund_that_the_bank_refuses_takes_nothing(company: Company) -> None:
    account = company.account()
    company.card(account, REFUSING)
    failed = deposit(company, account, denomination="credits").details["payment_id"]

    refused(company.call("POST", f"/v1/payments/{failed}/refund"), 409, "payment_not_refundable", status="failed")


def test_money_that_came_outside_goes_back_outside(company: Company) -> None:
    account = company.account(USD=0)
    invoice = company.invoice(account)
    ask(company, "POST", f"/invoices/{invoice}/mark_paid", {"reference": "bank transfer"})
    (payment,) = payments(company, account, "?method=out_of_band")
    assert (payment["status"], payment["amount"], payment["stripe_payment_intent_id"]) == ("succeeded", 600, None)

    back = ask(company, "POST", f"/payments/{payment['id']}/refund", {"amount": 200})
    assert (back["status"], back["amount"], back["stripe_refund_id"]) == ("succeeded", 200, None)
    assert ask(company, "GET", f"/payments/{payment['id']}")["refunded"] == 200


@pytest.mark.parametrize(
    ("token", "status", "left"), [("pendingRefund", "succeeded", 800), ("refundFail", "failed", 1000)]
)
def test_a_refund_that_takes_its_time_takes_units_only_when_it_is_made(
    company: Company, stripe: Simulated, token: str, status: str, left: int
) -> None:
    account = company.account()
    company.card(account, f"pm_card_{token}")
    payment_id = company.deposit(account)
    path = f"/v1/payments/{payment_id}/refund"

    begun = company.call("POST", path, {"amount": 100})
    assert (begun.status, begun.data["status"], amount(company, account)) == (202, "pending", 1000)
    refused(company.call("POST", path, {"amount": 401}), 422, "refund_exceeds_payment", refundable=400)
    stripe.release()
    ask(company, "POST", f"/companies/{company.id}/clock", {"advance_seconds": 7200})
    (refund,) = ask(company, "GET", f"/payments/{payment_id}")["refunds"]
    assert (refund["id"], refund["status"], amount(company, account)) == (begun.data["id"], status, left)


def test_an_account_keeps_a_bounded_number_of_cards(company: Company) -> None:
    account = company.account()
    for _ in range(20):
        company.card(account)

    reply = company.call("POST", f"/v1/accounts/{account}/card", {"token": "tok_visa"})
    refused(reply, 422, "invalid_field", path="token")
    assert len(ask(company, "GET", f"/accounts/{account}/cards")) == 20


# --- captures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whose", ["account", "company"])
@pytest.mark.parametrize(("skipped", "status", "left"), [("process", "succeeded", 1049), ("void", "voided", 49)])
def test_suspended_captures_are_skipped_then_processed_or_voided(
    company: Company, stripe: Simulated, whose: str, skipped: str, status: str, left: int
) -> None:
    account = company.account(credits=500)
    company.card(account)
    company.price("CHAT", "credits", "1")
    refill = {"threshold": 100, "amount": 1000, "usd_charge": 500}
    ask(company, "PUT", f"/accounts/{account}/auto_refill", refill)
    path = f"/accounts/{account}" if whose == "account" else f"/companies/{company.id}"

    assert ask(company, "POST", f"{path}/suspend_capture") == {"capture_suspended": True, "payments": []}
    assert ask(company, "GET", f"/accounts/{account}")["capture_suspended"] is (whose == "account")
    company.send(account, type="CHAT", quantity=450)
    ask(company, "POST", f"/companies/{company.id}/clock", {"advance_seconds": 1})
    (payment,) = payments(company, account)
    assert (payment["status"], payment["reason"], payment["next_attempt_at"]) == ("skipped", "threshold_refill", None)
    assert company.send(account, type="CHAT", quantity=1).status == 200, "usage goes on"
    assert charged(stripe, company) == []

    resumed = ask(company, "POST", f"{path}/resume_capture", {"skipped": skipped})
    assert resumed == {"capture_suspended": False, "payments": [payment["id"]]}
    if skipped == "void":
        company.call("DELETE", f"/v1/accounts/{account}/balance/credits/autorefill")
    ask(company, "POST", f"/companies/{company.id}/clock", {"advance_seconds": 1})
    assert ask(company, "GET", f"/payments/{payment['id']}")["status"] == status
    assert amount(company, account) == left
    assert ask(company, "GET", f"/accounts/{account}")["capture_suspended"] is False


def test_what_was_skipped_can_be_captured_by_hand(company: Company) -> None:
    account = company.account(credits=0)
    company.card(account)
    ask(company, "POST", f"/accounts/{account}/suspend_capture")
    ask(company, "PUT", f"/accounts/{account}/auto_refill", {"threshold": 100, "amount": 1000, "usd_charge": 500})
    ask(company, "POST", f"/companies/{company.id}/clock", {"advance_seconds": 1})
    (payment,) = payments(company, account)
    assert payment["status"] == "skipped"

    assert ask(company, "POST", f"/payments/{payment['id']}/retry")["status"] == "succeeded"
    assert amount(company, account) == 1000


def test_a_deposit_is_no_automatic_capture(company: Company) -> None:
    account = company.account(credits=0)
    company.card(account)
    ask(company, "POST", f"/accounts/{account}/suspend_capture")

    assert deposit(company, account).status == 200
