"""Overage over HTTP: what the answers, the explanation and the balances of an account on a plan say."""

from __future__ import annotations

from typing import Any

import pytest

from tenuto.server import Server
from tests.client import Company
from tests.subscribed import subscribe

INTO = {"overage_charge_denomination": "USD"}
WORKED = {
    "storage_gb": {"amount": 10, "overage_charge_amount": 100, **INTO},
    "compute_minutes": {"amount": 60, "overage_charge_amount": 50, **INTO},
}


@pytest.fixture
def account(company: Company, service: Server) -> str:
    """An account on the worked plan of the contract, its period just paid."""
    company.price("STORE", "storage_gb", "1")
    company.price("RUN", "compute_minutes", "1")
    found = company.account(storage_gb=10, compute_minutes=60, USD=1000)
    subscribe(service.dsn, found, company.plan(balances=WORKED))
    return found


def explained(company: Company, event_id: str) -> Any:
    answer = company.call("GET", f"/v1/events/{event_id}/explain")
    assert answer.status == 200, answer
    return answer.data


def transactions(company: Company, account: str, **filters: str) -> list[Any]:
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    return list(company.call("GET", f"/v1/accounts/{account}/transactions?{query}").data)


def test_an_event_that_overflows_shows_both_costs_and_both_balances(company: Company, account: str) -> None:
    event = company.send(account, type="STORE", quantity="12.5", gate_on_balance=True).data

    assert event["cost"] == {"denomination": "storage_gb", "amount": 10, "exact": "10"}
    assert event["costs"] == [event["cost"], {"denomination": "USD", "amount": 250, "exact": "250"}]
    assert event["balance"]["denomination"] == "storage_gb"
    assert [(at["denomination"], at["amount"]) for at in event["balances"]] == [("storage_gb", 0), ("USD", 750)]
    assert company.call("GET", f"/v1/events/{event['id']}").data == event


def test_the_explanation_says_what_was_not_there_and_what_it_cost(company: Company, account: str) -> None:
    company.send(account, type="STORE", quantity=8)
    sent = company.send(account, {"type": "STORE", "quantity": "2.25"}, {"type": "STORE"}).data
    found = explained(company, sent[0]["id"])

    assert "cost exactly 2.25 storage_gb" in found["sentence"]
    assert "2 were there, the other 0.25 are overage at 100 USD each" in found["sentence"]
    covered, over = found["charges"]
    assert [(line["what"], line["exact"]) for line in covered["lines"]] == [("per_unit", "2.25"), ("overage", "-0.25")]
    assert covered["overage"] is None
    assert over["overage"] == {
        "denomination": "storage_gb",
        "units": "0.25",
        "unit_cost": "100",
        "plan_id": company.balance(account, "storage_gb")["managed_by_plan_id"],
    }
    assert over["lines"] == [{"what": "overage", "units": "0.25", "unit_cost": "100", "exact": "25"}]
    assert (over["price"], over["amount"], over["residue_before"], over["residue_after"]) == (None, 25, "0", "0")
    transaction = over["transaction"]
    assert (transaction["book"], transaction["type"], transaction["amount"]) == ("overage", "OVERAGE", -125)
    assert (transaction["description"], transaction["unit_cost"]) == ("Overage of storage_gb", 100)
    assert transaction["event_ids"] == [event["id"] for event in sent]


def test_overage_that_was_not_needed_is_given_back(company: Company, account: str) -> None:
    hold = company.send(account, type="RUN", quantity=62, state="pending", gate_on_balance=True).data
    assert [(cost["denomination"], cost["amount"]) for cost in hold["costs"]] == [("compute_minutes", 60), ("USD", 100)]
    assert company.balance(account, "USD")["pending"] == 100
    ended = company.call("PUT", f"/v1/events/{hold['id']}", {"state": "complete", "quantity": 61}).data
    assert [(cost["denomination"], cost["amount"]) for cost in ended["costs"]] == [("compute_minutes", 60), ("USD", 50)]
    assert company.call("DELETE", f"/v1/events/{hold['id']}").data["state"] == "cancelled"
    amounts = {name: company.balance(account, name)["amount"] for name in ("compute_minutes", "USD")}
    assert amounts == {"compute_minutes": 60, "USD": 1000}
    assert [row["type"] for row in transactions(company, account, book="overage")] == ["REVERSAL", "OVERAGE"]


def test_an_account_without_the_money_is_refused_by_name(company: Company, account: str) -> None:
    refused = company.send(account, type="RUN", quantity=81, gate_on_balance=True, key="much")
    assert (refused.status, refused.code) == (402, "insufficient_balance")
    assert refused.details == {
        "denomination": "USD", "available": 1000, "pending": 0, "required": 1050, "shortfall": 50,
    }  # fmt: skip
    assert company.send(account, type="RUN", quantity=81, gate_on_balance=True, key="much").is_replay


def test_the_spend_cap_of_a_plan(company: Company, service: Server) -> None:
    company.price("STORE", "storage_gb", "1")
    account = company.account(storage_gb=1, USD=1000)
    assert company.send(account, type="X", cost_override_amount=400, cost_override_denomination="USD").status == 200
    subscribe(service.dsn, account, company.plan(balances=WORKED, spend_cap=300))
    assert company.send(account, type="STORE", quantity=3, gate_on_balance=True).status == 200
    refused = company.send(account, type="STORE", quantity=2, gate_on_balance=True)
    assert (refused.status, refused.code) == (402, "spend_cap_reached")
    assert (refused.details["available"], refused.details["required"], refused.details["shortfall"]) == (100, 200, 100)
    given = {"amount": 500, "reason": "a gift"}
    assert company.call("POST", f"/v1/accounts/{account}/balance/USD/adjust", given).status == 200
    assert company.send(account, type="STORE", quantity=2, gate_on_balance=True).code == "spend_cap_reached"
    assert company.send(account, type="STORE", quantity=1, gate_on_balance=True).status == 200


def test_prices_of_the_plan_of_the_account_and_of_the_company(company: Company, service: Server) -> None:
    for kind in ("CHAT", "READ", "DRAW"):
        company.price(kind, "credits", "10")
    planned = [{"type": kind, "denomination": "credits", "amount": "5"} for kind in ("CHAT", "READ")]
    account, other = company.account(credits=1000), company.account(credits=1000)
    subscribe(service.dsn, account, company.plan(event_prices=planned, balances={"credits": {"amount": 0}}))
    price = company.agreed_price(account, "CHAT", "credits", "2")

    def cost(of: str, kind: str) -> int:
        return int(company.send(of, type=kind).data["cost"]["amount"])

    assert [cost(account, kind) for kind in ("CHAT", "READ", "DRAW")] == [2, 5, 10]
    assert [cost(other, kind) for kind in ("CHAT", "READ", "DRAW")] == [10, 10, 10]
    found = explained(company, company.send(account, type="CHAT", quantity=3).data["id"])
    assert (found["price"]["id"], found["price"]["version"], found["exact"]) == (price, 1, "6")
    assert [line["unit_cost"] for line in found["lines"]] == ["2"]


def test_tiers_count_by_the_period_of_the_plan(company: Company, service: Server) -> None:
    tiers = [{"up_to": 1, "amount": "10"}, {"up_to": None, "amount": "1"}]
    company.price("STORE", "credits", model="graduated", tiers=tiers)
    account = company.account(credits=1000)
    assert company.send(account, type="STORE", quantity=3).data["cost"]["amount"] == 12
    subscribe(service.dsn, account, company.plan())
    assert company.send(account, type="STORE", quantity=3).data["cost"]["amount"] == 12
    assert company.send(account, type="STORE", quantity=3).data["cost"]["amount"] == 3


def test_terms_agreed_with_the_account(company: Company, service: Server) -> None:
    company.price("STORE", "storage_gb", "1")
    account = company.account(storage_gb=1, USD=1000)
    agreed = (
        '{"name": "Ours", "renewal_denomination": "USD", "renewals": {"MONTHLY": {"amount": 1000}}, "balances":'
        ' {"storage_gb": {"amount": 1, "overage_charge_amount": "7", "overage_charge_denomination": "USD"}}}'
    )
    subscribe(service.dsn, account, company.plan(balances=WORKED), agreed=agreed)
    assert company.send(account, type="STORE", quantity=3).data["costs"][1]["amount"] == 14


def test_a_balance_says_which_plan_manages_it(company: Company, service: Server) -> None:
    account = company.account(storage_gb=10, seats=3, credits=5, USD=1000)
    balances = {**WORKED, "seats": {"amount": 0, "variable_amount_cost": 200}, "USD": {"amount": 0}}
    plan = company.plan(balances=balances)
    assert company.balance(account, "storage_gb")["managed_by_plan_id"] is None
    subscribe(service.dsn, account, plan, chosen='{"seats": 3}')

    found = {at["denomination"]: at for at in company.call("GET", f"/v1/accounts/{account}/balance").data}
    assert {name: at["managed_by_plan_id"] for name, at in found.items()} == {
        "storage_gb": plan, "seats": plan, "USD": plan, "credits": None,
    }  # fmt: skip
    assert {name: at["plan_variable_amount"] for name, at in found.items()} == {
        "storage_gb": None, "seats": 3, "USD": None, "credits": None,
    }  # fmt: skip
    included = {name for name, at in found.items() if at["last_periodic_refill"] and at["next_periodic_refill"]}
    assert included == {"storage_gb", "seats"}
    assert found["seats"] == company.balance(account, "seats")
