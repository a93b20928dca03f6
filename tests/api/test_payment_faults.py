"""Deposits while Stripe fails: nothing is charged twice or credited unpaid, and what is open ends by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tenuto.engine import Settings
from tenuto.server import Server, wait_until_ready
from tests.client import Client, Company, Reply
from tests.conftest import SECRET_KEY
from tests.simulated import Simulated

PATIENCE_SECONDS: Final = 60
BODY: Final = {"amount_to_deposit": 1000, "amount_to_charge": 500, "denomination": "credits"}


def deposit(company: Company, account: str, key: str) -> Reply:
    return company.call("POST", f"/v1/accounts/{account}/deposit", BODY, {"idempotency-key": key})


def payments(company: Company, account: str) -> list[Any]:
    reply = company.call("GET", f"/v1/accounts/{account}/payments")
    assert reply.status == 200, reply.raw
    return list(reply.data)


def until_settled(company: Company, account: str) -> Any:
    """The only payment of the account, once the clockwork has brought it to its end."""
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while True:
        (found,) = payments(company, account)
        if found["status"] != "pending":
            return found
        assert time.monotonic() < give_up_at, found
        time.sleep(0.1)


def settled(company: Company, account: str) -> Any:
    """The only payment of the account, once the company's clock was moved past every pause."""
    moved = company.call("POST", "/v1/companies/{company}/clock", {"advance_seconds": 300})
    assert moved.status == 200, moved.raw
    (found,) = payments(company, account)
    return found


def sandbox_key(company: Company) -> str:
    return f"sk_test_sandbox{company.id[2:]}"


def taken(stripe: Simulated, company: Company) -> list[int]:
    """What was taken from cards in the company's sandbox."""
    intents = stripe.book(sandbox_key(company))["payment_intents"]
    return [intent["amount_received"] for intent in intents if intent["amount_received"]]


@pytest.mark.parametrize(
    ("kind", "route"),
    [
        (kind, f"payment_intents.{step}")
        for kind in (
            "500_before",
            "500_after_effect",
            "timeout_before_effect",
            "timeout_after_effect",
            "429",
            "lock_timeout",
        )
        for step in ("create", "confirm")
    ],
)
def test_a_deposit_that_stripe_leaves_unclear_is_paid_once(
    company: Company, stripe: Simulated, kind: str, route: str
) -> None:
    account = company.account(credits=0)
    company.card(account)
    stripe.fault(kind, route=route, key=sandbox_key(company))

    begun = deposit(company, account, "k")
    assert begun.status in {200, 202}, begun.raw
    assert begun.data["balance"]["amount"] == (1000 if begun.status == 200 else 0)
    paid = settled(company, account)
    assert (paid["status"], paid["amount"]) == ("succeeded", 500)
    assert taken(stripe, company) == [500]
    assert company.balance(account, "credits")["amount"] == 1000
    again = deposit(company, account, "k")
    assert (again.status, again.data["payment"]["id"]) == (200, paid["id"])
    assert taken(stripe, company) == [500]


def test_a_charge_that_was_declined_out_of_sight_credits_nothing(company: Company, stripe: Simulated) -> None:
    account = company.account(credits=0)
    company.card(account, "pm_card_chargeCustomerFail")
    stripe.fault("timeout_after_effect", route="payment_intents.confirm", key=sandbox_key(company))

    begun = deposit(company, account, "k")
    assert begun.status in {202, 402}, begun.raw
    assert settled(company, account)["status"] == "failed"
    assert company.balance(account, "credits")["amount"] == 0
    assert taken(stripe, company) == []


def test_a_refund_that_stripe_leaves_unclear_is_made_once(company: Company, stripe: Simulated) -> None:
    account = company.account(credits=0)
    company.card(account)
    payment_id = company.deposit(account)
    stripe.fault("timeout_after_effect", route="refunds.create", key=sandbox_key(company))

    key = {"idempotency-key": "k"}
    begun = company.call("POST", f"/v1/payments/{payment_id}/refund", {"amount": 200}, key)
    assert begun.status in {200, 202}, begun.raw
    company.call("POST", "/v1/companies/{company}/clock", {"advance_seconds": 3600})
    assert company.balance(account, "credits")["amount"] == 600
    refunds = stripe.book(sandbox_key(company))["refunds"]
    assert [refund["amount"] for refund in refunds] == [200]
    again = company.call("POST", f"/v1/payments/{payment_id}/refund", {"amount": 200}, key)
    assert (again.status, again.data["status"], again.data["id"]) == (200, "succeeded", begun.data["id"])


def test_a_card_that_cannot_be_given_now_says_so(company: Company, stripe: Simulated) -> None:
    account = company.account()
    stripe.fault("timeout_before_effect", key=sandbox_key(company), times=50)
    try:
        reply = company.call("POST", f"/v1/accounts/{account}/card", {"token": "tok_visa"})
    finally:
        stripe.heal()

    assert (reply.status, reply.code) == (503, "gateway_unavailable")
    assert int(reply.headers["retry-after"]) >= 1
    assert company.card(account).startswith("card_")


class Own(NamedTuple):
    """A service of the test's own, whose Stripe may be taken away."""

    company: Company
    port: int
    book: Path


@pytest.fixture
def own(new_database: Callable[[str], str], tmp_path: Path) -> Iterator[tuple[Own, Simulated]]:
    stripe = Simulated(tmp_path / "book.ndjson")
    settings = Settings(
        port=0,
        database=new_database("fault"),
        data=str(tmp_path / "data"),
        registration="open",
        log_level="error",
        secret_key=SECRET_KEY,
        sandbox_url=stripe.url,
    )
    server = Server(settings)
    server.start()
    try:
        assert wait_until_ready(*server.address, seconds=30)
        with Client(*server.address) as client:
            yield Own(Company.open(client), stripe.port, tmp_path / "book.ndjson"), stripe
    finally:
        server.stop()
        stripe.stop()


def test_a_deposit_while_stripe_is_away_is_paid_once_when_it_is_back(own: tuple[Own, Simulated]) -> None:
    (company, port, book), stripe = own
    account = company.account(credits=0)
    company.card(account)
    stripe.stop()

    begun = deposit(company, account, "k")
    assert begun.status == 202, begun.raw
    assert (begun.data["payment"]["status"], begun.data["balance"]["amount"]) == ("pending", 0)
    again = deposit(company, account, "k")
    assert (again.status, again.data["payment"]["id"]) == (202, begun.data["payment"]["id"])
    assert len(payments(company, account)) == 1
    with Simulated(book, port) as back:
        assert until_settled(company, account)["status"] == "succeeded"
        assert taken(back, company) == [500]
    assert company.balance(account, "credits")["amount"] == 1000
    final = deposit(company, account, "k")
    assert (final.status, final.data["payment"]["status"]) == (200, "succeeded")
