"""What a plan would cost, against what it does cost: the same usage is previewed, and then sent and paid for."""

from __future__ import annotations

import random
from typing import Any, Final

import pytest

from tests.client import Company, Reply

PREVIEW: Final = "/v1/companies/{company}/plans/preview"
CHAT: Final = {"type": "CHAT", "denomination": "USD", "amount": "30"}
GB: Final = {"type": "STORE", "denomination": "storage_gb", "amount": "1"}
READ: Final = {"type": "READ", "denomination": "USD", "amount": "15", "per": 1_000_000}
TIERS: Final = [
    {"up_to": 100, "amount": "30"},
    {"up_to": 1000, "amount": "20"},
    {"up_to": None, "amount": "25", "per": 2},
]
GRADUATED: Final = {"type": "CHAT", "denomination": "USD", "model": "graduated", "tiers": TIERS, "free_units": 20}
VOLUME: Final = {"type": "CHAT", "denomination": "USD", "model": "volume", "tiers": TIERS}
PACKAGE: Final = {"type": "SEND", "denomination": "USD", "model": "package", "amount": "500", "per": 100}
BOUNDED: Final = {"type": "CHAT", "denomination": "USD", "amount": "7", "minimum": "50", "cap": "90"}
HIGHEST: Final = {"type": "SEAT", "denomination": "USD", "amount": "200", "max_value_billing": True}
LARGE: Final = {"type": "CHAT", "denomination": "USD", "amount": "99", "match": {"model": "large"}}
OVERAGE: Final = {"storage_gb": {"amount": 10, "overage_charge_amount": "75", "overage_charge_per": 2}}


def preview(company: Company, plan: object, usage: object = (), **more: object) -> Reply:
    return company.call("POST", PREVIEW, {"plan": plan, "usage": list(usage), **more})  # type: ignore[call-overload]


def plan(*prices: object, monthly: int = 1000, **more: object) -> dict[str, Any]:
    """A plan as it is published."""
    return {
        "name": "Pro",
        "renewal_denomination": "USD",
        "renewals": {"MONTHLY": {"amount": monthly}},
        "event_prices": list(prices),
        **more,
    }


def of(kind: str, quantity: int | str, events: int = 1, **metadata: object) -> dict[str, Any]:
    """So much of a type in a month."""
    return {"type": kind, "quantity": quantity, "events": events, "metadata": metadata}


CASES: Final = {
    "nothing is used": (plan(GB, balances=OVERAGE), []),
    "included, then overage": (plan(GB, balances=OVERAGE), [of("STORE", 7), of("STORE", "6.5")]),
    "money that is included": (plan(CHAT, balances={"USD": {"amount": 700}}), [of("CHAT", 60, 3)]),
    "a balance below zero": (plan(GB, balances={"storage_gb": {"amount": 5}}), [of("STORE", 9)]),
    "graduated": (plan(GRADUATED), [of("CHAT", 90, 9), of("CHAT", 1500, 2)]),
    "volume": (plan(VOLUME), [of("CHAT", 90, 3), of("CHAT", 1500, 5)]),
    "packages": (plan(PACKAGE), [of("SEND", 250, 10), of("SEND", 1)]),
    "bounds of an event": (plan(BOUNDED), [of("CHAT", 20, 4), of("CHAT", 100)]),
    "the highest value": (plan(HIGHEST), [of("SEAT", 3), of("SEAT", 5), of("SEAT", 4)]),
    "by property": (plan(CHAT, LARGE), [of("CHAT", 2), of("CHAT", 2, model="large")]),
    "fractions": (plan(READ, GB, balances=OVERAGE), [of("READ", 700_000, 7), of("STORE", "12.25")]),
    "up to the minimum": (plan(CHAT, minimum_spend=9000), [of("CHAT", 100)]),
    "past the minimum": (plan(CHAT, minimum_spend=2000), [of("CHAT", 100)]),
    "past the cap": (plan(CHAT, spend_cap=500), [of("CHAT", 100)]),
    "a price of the company": (plan(), [of("SHOW", 4)]),
    "no price": (plan(), [of("NOTHING", 4)]),
    "tokens pay": (
        plan({**CHAT, "denomination": "credits"}, balances={"credits": {"amount": 100, "overage_charge_amount": "2"}}),
        [of("CHAT", 11)],
    ),
}


def bill(company: Company, terms: dict[str, Any], usage: list[dict[str, Any]]) -> tuple[int, dict[str, int]]:
    """What an account on the plan pays for its first month, and what its balances hold before the renewal."""
    account = company.account()
    company.card(account)
    company.start(account, company.plan(**terms))
    for row in usage:
        # A part of a quantity has to have an end, as a quantity of an event does.
        each = float(row["quantity"]) / row["events"]
        event = {"type": row["type"], "quantity": f"{each:f}", "metadata": row["metadata"]}
        assert company.send(account, *[event] * row["events"]).status == 200
    found = company.call("GET", f"/v1/accounts/{account}/balance").data
    amounts = {balance["denomination"]: balance["amount"] for balance in found}
    moved = company.call("POST", "/v1/companies/{company}/clock", {"advance_seconds": 32 * 86400})
    assert moved.status == 200, moved
    paid = company.call("GET", f"/v1/accounts/{account}/payments").data
    assert [payment["reason"] for payment in paid] == ["plan_renewal", "plan_start"]
    return sum(payment["amount"] for payment in paid) - terms["renewals"]["MONTHLY"]["amount"], amounts


def agrees(company: Company, terms: dict[str, Any], usage: list[dict[str, Any]]) -> None:
    """What is previewed is what is billed, to the unit."""
    seen = preview(company, terms, usage)
    assert seen.status == 200, seen
    paid, amounts = bill(company, terms, usage)
    assert seen.data["totals"]["USD"] == paid
    told = {one["denomination"]: one["left"] - one["short"] for one in seen.data["included"]}
    assert {"USD": 0, **told} == {"USD": 0, **amounts}


@pytest.mark.parametrize("case", CASES)
def test_the_preview_is_what_is_billed(company: Company, case: str) -> None:
    company.price("SHOW", "USD", "25")
    agrees(company, *CASES[case])


@pytest.mark.parametrize("seed", range(4))
def test_any_usage_of_all_models_at_once(company: Company, seed: int) -> None:
    dice = random.Random(seed)
    first = dice.choice([GRADUATED, VOLUME, BOUNDED])
    terms = plan(
        *(first, LARGE, GB, READ, PACKAGE),
        balances={**OVERAGE, "USD": {"amount": dice.choice([0, 1000])}},
        minimum_spend=dice.choice([None, 20_000]),
    )
    usage = [
        of(dice.choice(["CHAT", "STORE", "READ", "SEND"]), events * dice.randint(1, 700), events)
        for events in (dice.randint(1, 6) for _ in range(8))
    ]
    agrees(company, terms, usage)


def test_a_preview_keeps_nothing(company: Company) -> None:
    seen = preview(company, plan(GB, balances=OVERAGE, code="pro", setup_fee=500), [of("STORE", 12)])

    assert seen.data == {
        "sentence": "Pro costs 10.00 USD a month and includes 10 storage_gb; each further storage_gb is 0.375 USD;"
        " STORE costs 1 storage_gb each; the start costs 5.00 USD once.",
        "cadence": "MONTHLY",
        "lines": [
            line("plan", "Pro", "1", "1000", "1000", "USD"),
            line("per_unit", "STORE", "12", "1", "12", "storage_gb"),
            line("beyond", "STORE", "2", "-1", "-2", "storage_gb"),
            line("overage", "storage_gb", "2", "37.5", "75", "USD"),
        ],
        "totals": {"USD": 1075},
        "included": [
            {"denomination": "USD", "amount": 0, "used": 75, "left": 0, "short": 75},
            {"denomination": "storage_gb", "amount": 10, "used": 10, "left": 0, "short": 0},
        ],
        "setup_fee": 500,
        "above_spend_cap": None,
    }
    assert company.call("GET", "/v1/companies/{company}/plans").data == []


def line(what: str, name: str, units: str, unit: str, exact: str, denomination: str) -> dict[str, str]:
    names = ("what", "name", "units", "unit_cost", "exact", "denomination")
    return dict(zip(names, (what, name, units, unit, exact, denomination), strict=True))


def test_a_preview_by_cadence_and_chosen_units(company: Company) -> None:
    terms = plan(
        renewals={"MONTHLY": {"amount": 1000}, "YEARLY": {"amount": 10_000}},
        balances={"seats": {"variable_amount_cost": {"MONTHLY": 200, "YEARLY": 2000}}},
    )

    assert preview(company, terms, cadence="yearly", units={"seats": 3}).data["totals"] == {"USD": 16_000}
    assert preview(company, terms, units={"seats": 3}).data["totals"] == {"USD": 1600}


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"plan": {}}, "plan.name"),
        ({"plan": plan(renewals={"MONTHLY": {"amount": -1}})}, "plan.renewals.MONTHLY.amount"),
        ({"plan": plan({**CHAT, "amount": "x"})}, "plan.event_prices[0].amount"),
        ({"plan": plan({**CHAT, "model": "volume"})}, "plan.event_prices[0].tiers"),
        ({"plan": plan(), "cadence": "DAILY"}, "cadence"),
        ({"plan": plan(), "cadence": "YEARLY"}, "cadence"),
        ({"plan": plan(), "units": {"seats": 1}}, "plan_variable_amounts.seats"),
        ({"plan": plan(), "units": {f"s{n}": 1 for n in range(51)}}, "units"),
        ({"plan": plan(), "units": {"seats": -1}}, "units.seats"),
        ({"plan": plan(), "usage": [of("CHAT", 0)]}, "usage[0].quantity"),
        ({"plan": plan(), "usage": [of("CHAT", 1, 0)]}, "usage[0].events"),
        ({"plan": plan(), "usage": [of("CHAT", 1), of("CHAT", 1, 1000)]}, "usage[1].events"),
        ({"plan": plan(), "usage": [of("", 1)]}, "usage[0].type"),
        ({"plan": plan(), "usage": [of("CHAT", 1, model=[])]}, "usage[0].match.model"),
        ({"plan": plan(), "usage": [of("CHAT", 1)] * 101}, "usage"),
        ({"plan": plan(CHAT), "usage": [of("CHAT", 10**15)]}, "usage[0].quantity"),
    ],
)
def test_a_refusal_names_its_field(company: Company, body: dict[str, Any], path: str) -> None:
    found = company.call("POST", PREVIEW, body)

    assert found.status == 422, found
    assert found.details["path"] == path


def test_a_plan_of_another_company_is_not_previewed(company: Company) -> None:
    found = company.call("POST", "/v1/companies/c_00000000/plans/preview", {"plan": plan()})

    assert (found.status, found.code) == (404, "not_found")


def test_the_accounts_of_a_plan(company: Company) -> None:
    pro, team = company.plan(name="Pro"), company.plan(name="Team")
    accounts = [company.account() for _ in range(4)]
    for account, chosen in zip(accounts, (pro, pro, team), strict=False):
        company.card(account)
        company.start(account, chosen)

    def on(plan_id: str, more: str = "") -> list[str]:
        found = company.call("GET", f"/v1/companies/{{company}}/accounts?plan_id={plan_id}{more}")
        assert found.status == 200, found
        return [account["id"] for account in found.data]

    assert on(pro) == [accounts[1], accounts[0]]
    assert on(team) == [accounts[2]]
    assert on("p_00000000") == []
    assert on(pro, "&limit=1") == [accounts[1]]
    assert company.call("POST", f"/v1/accounts/{accounts[0]}/cancelplan", {"at_period_end": False}).status == 200
    assert on(pro) == [accounts[1]]
    refused = company.call("GET", "/v1/companies/{company}/accounts?plan_id=pro")
    assert (refused.status, refused.details["path"]) == (422, "plan_id")
