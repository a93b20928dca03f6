"""The simulator's book under many random requests: its sums hold, and its journal makes the same book again."""

from __future__ import annotations

from http.client import HTTPConnection
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlencode

import msgspec

from tenuto.gateway.simulator_book import Account, Book
from tests.simulated import Simulated

KEY = "sk_test_random"
CARDS = ("visa", "visa", "chargeCustomerFail", "createDispute", "refundFail", "pendingRefund", "simulatorProcessing")
REQUESTS = 1200


class Caller:
    """Somebody who asks for what comes to mind, on one connection."""

    def __init__(self, simulator: Simulated, random: Random) -> None:
        self.connection = HTTPConnection(simulator.host, simulator.port, timeout=10)
        self.random, self.statuses = random, set[int]()
        self.customers = [self.post("customers", name=str(number))["id"] for number in range(3)]
        self.intents: list[str] = []

    def post(self, path: str, **fields: object) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {KEY}", "Idempotency-Key": str(self.random.randrange(10**6))}
        self.connection.request("POST", f"/v1/{path}", urlencode(fields), headers)
        response = self.connection.getresponse()
        found: dict[str, Any] = msgspec.json.decode(response.read())
        self.statuses.add(response.status)
        return found

    def ask(self) -> None:
        """One request, sensible or not."""
        intent = self.random.choice(self.intents or ["pi_none"])
        match self.random.randrange(8):
            case 0 | 1:
                terms = {"amount": self.random.randrange(40, 900), "currency": "usd"}
                terms |= {"customer": self.random.choice(self.customers), "allowed_payment_method_types[]": "card"}
                terms["capture_method"] = self.random.choice(("automatic", "automatic_async", "manual"))
                made = self.post("payment_intents", **terms)
                if "id" in made:
                    self.intents.append(made["id"])
            case 2 | 3 | 4:
                card = f"pm_card_{self.random.choice(CARDS)}"
                self.post(f"payment_intents/{intent}/confirm", payment_method=card, off_session="true")
            case 5:
                self.post(f"payment_intents/{intent}/capture", amount_to_capture=self.random.randrange(1, 900))
            case 6:
                self.post("refunds", payment_intent=intent, amount=self.random.randrange(1, 900))
            case _:
                self.post(f"payment_intents/{intent}/cancel")


def sums_hold(account: Account) -> None:
    for intent in account.newest("payment_intent"):
        charges = list(account.newest("charge", "payment_intent", intent["id"]))
        paid = [charge for charge in charges if charge["captured"]]
        assert len(paid) == (intent["status"] == "succeeded")
        assert intent["amount_received"] == sum(charge["amount_captured"] for charge in paid) <= intent["amount"]
    for charge in account.newest("charge"):
        refunds = [found for found in account.newest("refund", "charge", charge["id"]) if found["status"] != "failed"]
        given_back = sum(refund["amount"] for refund in refunds)
        if charge["captured"]:
            assert charge["amount_refunded"] == charge["amount"] - charge["amount_captured"] + given_back
        assert given_back <= charge["amount_captured"]


def test_the_journal_makes_the_same_book_again(tmp_path: Path) -> None:
    data = tmp_path / "book.ndjson"
    with Simulated(data) as simulator:
        caller = Caller(simulator, Random(20261121))
        for number in range(REQUESTS):
            caller.ask()
            if number % 400 == 399:
                simulator.release()
        caller.connection.close()
        assert caller.statuses == {200, 400, 402, 404}
        before = simulator.door.book.accounts[KEY]
    book = Book(data)
    book.close()
    after = book.accounts[KEY]
    sums_hold(after)
    assert after.objects == before.objects
    assert after.events == before.events
    assert after.answers == before.answers
    assert after.spent == before.spent
    for kind in ("payment_intent", "charge", "refund", "dispute", "payment_method"):
        assert list(after.newest(kind)) == list(before.newest(kind))
    assert len(list(after.newest("refund"))) > 10
    assert len(list(after.newest("dispute"))) > 3
