"""A company that has lived for a month: plans, customers of every kind, usage, payments, and some trouble.

It is made through the API on the company's own clock, day by day, so that every amount in it traces to what was sent.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, NamedTuple

from tests.client import Company

DAYS: Final = 30
NAMES: Final = (
    "Aurora Robotics",
    "Blue Heron Press",
    "Cobalt Mining Software",
    "Delta Translations",
    "Evergreen Clinics",
    "Fjord Analytics",
    "Granite Legal",
    "Harbor Freight Desk",
    "Indigo Games",
    "Juniper Schools",
)
USAGE: Final = (("CHAT_INPUT", 400_000, 2_500_000), ("CHAT_OUTPUT", 60_000, 600_000), ("IMAGE", 1, 24))
INCLUDED: Final = (("TOKENS", 400_000, 1_100_000),)


class World(NamedTuple):
    """What there is to look at. Each is the id of one that shows its kind well."""

    subscribed: str
    prepaid: str
    postpaid: str
    troubled: str
    plan: str
    webhook: str
    invoice: str
    payment: str
    event: str


def lived(company: Company, say: Callable[[str], None] = lambda _: None, days: int = DAYS) -> World:
    """Let a company live for so many days."""
    chance = random.Random(7)
    company.call("PUT", "/v1/companies/{company}", {"time_zone": "Europe/Berlin"})
    company.price("CHAT_INPUT", "USD", "250", per=1_000_000)
    company.price("CHAT_OUTPUT", "USD", "1000", per=1_000_000)
    company.price("IMAGE", "USD", "4")
    company.price("TOKENS", "tokens", "1")
    starter = company.plan(
        name="Starter",
        code="starter",
        renewals={"MONTHLY": {"amount": 2900}, "YEARLY": {"amount": 29_000}},
        balances={"tokens": {"amount": 20_000_000, "overage_charge_amount": "250", "overage_charge_per": 1_000_000}},
        flags={"priority_support": False, "seats": 3},
    )
    scale = company.plan(
        name="Scale",
        code="scale",
        renewals={"MONTHLY": {"amount": 19_900}},
        balances={"tokens": {"amount": 200_000_000, "overage_charge_amount": "180", "overage_charge_per": 1_000_000}},
        flags={"priority_support": True, "seats": 50},
    )
    webhook = company.call("POST", "/v1/companies/{company}/webhooks", {"url": "https://hooks.example/tenuto"}).data
    company.call("POST", f"/v1/companies/{{company}}/webhooks/{webhook['id']}/subscribe/*")
    company.call("PUT", f"/v1/companies/{{company}}/webhooks/{webhook['id']}", {"paused": True})
    accounts = [_opened(company, name) for name in NAMES]
    for number, account in enumerate(accounts):
        _equipped(company, account, number, (starter, scale))
    event = payment = ""
    for day in range(days):
        say(f"day {day + 1} of {days}")
        for number, account in enumerate(accounts):
            event = _day(company, account, number, chance) or event
        if day in {3, 12, 20}:
            payment = company.deposit(accounts[1], 5_000, 5_000, "USD")
        company.call("POST", "/v1/companies/{company}/clock", {"advance_seconds": 86_400})
    invoice = company.call("POST", f"/v1/accounts/{accounts[3]}/invoices", {"currency": "USD"}).data["id"]
    company.call("POST", f"/v1/invoices/{invoice}/finalize")
    company.call("POST", f"/v1/payments/{payment}/refund", {"amount": 1500, "reason": "asked for in good faith"})
    company.call("POST", f"/v1/accounts/{accounts[5]}/pause", {"reason": "contract under review"})
    return World(
        accounts[0], accounts[1], accounts[3], accounts[5], starter, str(webhook["id"]), str(invoice), payment, event
    )


def _opened(company: Company, name: str) -> str:
    person = {"name": name, "email": f"billing@{name.split(maxsplit=1)[0].lower()}.example"}
    return str(company.call("POST", "/v1/companies/{company}/accounts", person).data["id"])


def _equipped(company: Company, account: str, number: int, plans: tuple[str, str]) -> None:
    """Subscribed, paying in advance, or by invoice, in turn."""
    match number % 4:
        case 0 | 2:
            company.card(account)
            company.start(account, plans[number % 4 // 2])
        case 1:
            company.card(account)
            company.call("POST", f"/v1/accounts/{account}/balance/USD", {"amount": 0})
            company.deposit(account, 25_000, 25_000, "USD")
        case _:
            company.call("PUT", f"/v1/accounts/{account}", {"credit_limit": 100_000})
            company.call("POST", f"/v1/accounts/{account}/balance/USD", {"amount": 0})
            company.call("PUT", f"/v1/accounts/{account}/invoicing", {"currency": "USD", "terms_days": 14})


def _day(company: Company, account: str, number: int, chance: random.Random) -> str:
    """What one customer does in a day; the id of the last event."""
    events = []
    for name, least, most in INCLUDED if number % 4 in {0, 2} else USAGE:
        quantity = chance.randint(least, most)
        events.append(
            {"type": name, "quantity": quantity, "cogs_amount": quantity * 2 // 20_000, "cogs_denomination": "USD"}
        )
    reply = company.send(account, *events)
    found = reply.data[-1] if isinstance(reply.data, list) else reply.data
    return str(found["id"]) if reply.status == 200 else ""
