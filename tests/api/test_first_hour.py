"""What an engineer tries in the first hour, over HTTP."""

from __future__ import annotations

from tests.client import Company


def test_the_answer_carries_the_balance_right_after(company: Company) -> None:
    account = company.account(credits=10)
    company.price("CHAT", "credits", "3")

    first = company.send(account, type="CHAT", gate_on_balance=True, key="chat-1")

    assert first.status == 200
    assert first.data["cost"] == {"denomination": "credits", "amount": 3, "exact": "3"}
    assert first.data["balance"]["amount"] == 7
    assert company.balance(account, "credits")["amount"] == 7


def test_the_same_key_gets_the_same_bytes(company: Company) -> None:
    account = company.account(credits=10)
    company.price("CHAT", "credits", "3")

    first = company.send(account, type="CHAT", key="chat-1")
    again = company.send(account, type="CHAT", key="chat-1")

    assert again.raw == first.raw
    assert again.is_replay
    assert company.balance(account, "credits")["amount"] == 7


def test_a_settled_hold_still_replays_its_first_answer(company: Company) -> None:
    account = company.account(credits=7)
    company.price("CHAT", "credits", "3")

    hold = company.send(account, type="CHAT", quantity=2, state="pending", gate_on_balance=True, key="h")
    company.call("PUT", f"/v1/events/{hold.data['id']}", {"state": "complete", "quantity": 1})
    again = company.send(account, type="CHAT", quantity=2, state="pending", gate_on_balance=True, key="h")

    assert again.status == 200
    assert again.raw == hold.raw
    assert company.balance(account, "credits")["available"] == 4
