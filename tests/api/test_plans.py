"""Plans as a company publishes them: both shapes, versions, archives, codes, and prices of a plan and of an account."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest

from tenuto.server import Server
from tests.client import Client, Company, Reply

FIELDS: Final = {
    "id", "company_id", "code", "version", "name", "renewal_denomination", "refill_cadence", "renewals", "balances",
    "flags", "trial_days", "setup_fee", "minimum_spend", "spend_cap", "threshold_alert_percentage", "rollover",
    "event_prices", "archived_at", "created_at", "updated_at",
}  # fmt: skip
NOTHING: Final = {
    "variable_amount_cost": None,
    "overage_charge_amount": None,
    "overage_charge_per": None,
    "overage_charge_denomination": None,
    "auto_refill_amount": None,
    "auto_refill_threshold": None,
    "auto_refill_charge_amount": None,
    "rollover": False,
}
PLANS: Final = "/v1/companies/{company}/plans"
SAMPLE: Final = {
    "name": "Sample",
    "renewal_denomination": "USD",
    "refill_cadence": "MONTHLY",
    "renewals": {"MONTHLY": {"amount": 1000}, "YEARLY": {"amount": 1100}},
    "balances": {"tokens": {"amount": 500}, "credits": {"amount": 0, "variable_amount_cost": 200}},
    "flags": {"no_watermark": True},
}
STORAGE: Final = {
    "charge_amount": 1000,
    "charge_denomination": "USD",
    "billing_period": "monthly",
    "balances": [
        {
            "denomination": "storage_gb",
            "amount": 10,
            "overage_charge_amount": 100,
            "overage_charge_denomination": "USD",
        },
        {
            "denomination": "compute_minutes",
            "amount": 60,
            "overage_charge_amount": 50,
            "overage_charge_denomination": "USD",
        },
    ],
}
LARGE: Final = {"type": "CHAT", "denomination": "credits", "amount": "2", "match": {"model": "large"}}


def published(company: Company, terms: object) -> Any:
    reply = company.call("POST", PLANS, terms)
    assert reply.status == 200, reply.raw
    return reply.data


def changed(company: Company, plan: str, **terms: object) -> Any:
    reply = company.call("PUT", f"/v1/plans/{plan}", terms)
    assert reply.status == 200, reply.raw
    return reply.data


def refused(reply: Reply, status: int, code: str, path: str | None = None) -> None:
    assert (reply.status, reply.code) == (status, code), reply.raw
    assert reply.details.get("path") == path


# --- the two shapes ---


def test_the_current_shape_comes_back_as_it_was_sent(company: Company) -> None:
    made = published(company, SAMPLE)

    assert set(made) == FIELDS
    assert re.fullmatch(r"p_[0-9a-z]{8}", made["id"])
    assert {name: made[name] for name in ("name", "renewal_denomination", "refill_cadence", "renewals", "flags")} == {
        name: value for name, value in SAMPLE.items() if name != "balances"
    }
    assert made["balances"] == {
        "tokens": {**NOTHING, "amount": 500},
        "credits": {**NOTHING, "amount": 0, "variable_amount_cost": 200},
    }
    assert (made["company_id"], made["code"], made["version"], made["archived_at"]) == (company.id, None, 1, None)
    assert (made["trial_days"], made["setup_fee"], made["event_prices"]) == (0, 0, [])
    assert made["created_at"] == made["updated_at"]
    assert company.call("GET", f"/v1/plans/{made['id']}").data == made


def test_the_earlier_shape_comes_back_as_the_current_one(company: Company) -> None:
    made = published(company, STORAGE)

    assert set(made) == FIELDS
    assert (made["renewal_denomination"], made["renewals"]) == ("USD", {"MONTHLY": {"amount": 1000}})
    assert (made["name"], made["refill_cadence"]) == ("Plan", "MONTHLY")
    in_dollars = {"overage_charge_denomination": "USD", "overage_charge_per": 1}
    assert made["balances"] == {
        "storage_gb": {**NOTHING, **in_dollars, "amount": 10, "overage_charge_amount": 100},
        "compute_minutes": {**NOTHING, **in_dollars, "amount": 60, "overage_charge_amount": 50},
    }


def test_both_shapes_of_one_plan_are_one_plan(company: Company) -> None:
    earlier = published(company, {**STORAGE, "name": "Pro"})
    current = {
        "name": "Pro",
        "renewal_denomination": "USD",
        "renewals": {"monthly": {"amount": 1000}},
        "balances": {
            "storage_gb": {"amount": "10", "overage_charge_amount": "100"},
            "compute_minutes": {"amount": "60", "overage_charge_amount": 50},
        },
    }
    made = published(company, current)

    of_its_own = {"id", "created_at", "updated_at"}
    assert {k: v for k, v in made.items() if k not in of_its_own} == {
        k: v for k, v in earlier.items() if k not in of_its_own
    }


@pytest.mark.parametrize(
    ("spelled", "cadence"),
    [
        *(("monthly", "MONTHLY"), ("Month", "MONTHLY"), ("MONTHLY", "MONTHLY")),
        *(("year", "YEARLY"), ("Yearly", "YEARLY"), ("one_off", "ONE_OFF"), ("ONCE", "ONE_OFF")),
    ],
)
def test_a_cadence_is_read_in_any_spelling(shop: Company, spelled: str, cadence: str) -> None:
    earlier = published(shop, {**STORAGE, "billing_period": spelled})
    current = published(shop, {**SAMPLE, "refill_cadence": spelled, "renewals": {spelled: {"amount": 1000}}})

    for made in (earlier, current):
        assert (made["refill_cadence"], made["renewals"]) == (cadence, {cadence: {"amount": 1000}})


def test_everything_that_a_plan_can_say_comes_back(shop: Company) -> None:
    terms = {
        "name": "Scale",
        "code": "scale-2030",
        "renewal_denomination": "EUR",
        "refill_cadence": "MONTHLY",
        "renewals": {"MONTHLY": {"amount": 5000}, "YEARLY": {"amount": 50000}},
        "trial_days": 14,
        "setup_fee": 9900,
        "minimum_spend": 1000,
        "spend_cap": 100000,
        "threshold_alert_percentage": 10,
        "rollover": True,
        "flags": {"sso": True, "projects": 50, "region": "eu"},
    }
    balances = {
        "tokens": {
            "amount": 1000000,
            "overage_charge_amount": "0.15",
            "overage_charge_per": 1000,
            "auto_refill_amount": 1000000,
            "auto_refill_threshold": 1000,
            "rollover": False,
        },
        "seats": {"amount": 1, "variable_amount_cost": {"MONTHLY": 900, "YEARLY": 9000}},
    }
    made = published(shop, {**terms, "balances": balances})

    assert {name: made[name] for name in terms} == terms
    # The refill costs what the overage of its units does: a million at 0.15 a thousand.
    filled = {"overage_charge_denomination": "EUR", "auto_refill_charge_amount": 150}
    assert made["balances"]["tokens"] == {**NOTHING, **balances["tokens"], **filled}
    assert made["balances"]["seats"] == {**NOTHING, **balances["seats"], "rollover": True}
    assert shop.call("GET", PLANS + "?code=scale-2030").data == [made]


# --- versions ---


def test_a_change_is_a_new_version_and_the_old_one_stays(company: Company) -> None:
    first = published(company, SAMPLE)
    second = changed(
        company,
        first["id"],
        renewals={"MONTHLY": {"amount": 1200}},
        balances={"tokens": {"amount": 600}, "credits": None, "images": {"amount": 5}},
        flags={"no_watermark": None, "api": 3},
    )

    assert second["version"] == 2
    assert second["renewals"] == {"MONTHLY": {"amount": 1200}, "YEARLY": {"amount": 1100}}
    assert {name: one["amount"] for name, one in second["balances"].items()} == {"tokens": 600, "images": 5}
    assert second["flags"] == {"api": 3}
    assert (second["created_at"], second["name"]) == (first["created_at"], "Sample")
    assert second["updated_at"] > first["updated_at"]

    versions = company.call("GET", f"/v1/plans/{first['id']}/versions")
    assert versions.data == [first, second]
    page = company.call("GET", f"/v1/plans/{first['id']}/versions?limit=1")
    cursor = page.body["next_cursor"]
    assert page.data == [first]
    assert company.call("GET", f"/v1/plans/{first['id']}/versions?limit=1&cursor={cursor}").data == [second]


def test_a_change_in_the_earlier_shape(company: Company) -> None:
    plan = published(company, STORAGE)["id"]
    made = changed(
        company,
        plan,
        charge_amount=1500,
        billing_period="month",
        balances=[{"denomination": "storage_gb", "amount": "20"}],
    )

    assert made["renewals"] == {"MONTHLY": {"amount": 1500}}
    assert made["balances"]["storage_gb"]["amount"] == 20
    assert made["balances"]["storage_gb"]["overage_charge_amount"] == 100
    assert made["balances"]["compute_minutes"]["amount"] == 60


def test_a_change_that_changes_nothing_makes_no_version(company: Company) -> None:
    made = published(company, SAMPLE)

    assert changed(company, made["id"], **SAMPLE) == made
    assert changed(company, made["id"]) == made
    assert company.call("GET", f"/v1/plans/{made['id']}/versions").data == [made]
    assert changed(company, made["id"], flags={"no_watermark": 1})["version"] == 2


def test_a_change_is_judged_with_what_it_is_laid_over(company: Company) -> None:
    plan = published(company, {**SAMPLE, "balances": {"seats": {"variable_amount_cost": {"MONTHLY": 5, "YEARLY": 50}}}})

    reply = company.call("PUT", f"/v1/plans/{plan['id']}", {"renewals": {"YEARLY": None}})
    refused(reply, 422, "invalid_field", "balances.seats.variable_amount_cost")
    costs = {"seats": {"variable_amount_cost": {"YEARLY": None}}}
    made = changed(company, plan["id"], renewals={"YEARLY": None}, balances=costs)
    assert made["balances"]["seats"]["variable_amount_cost"] == {"MONTHLY": 5}


def test_changes_at_once_make_one_version_each(service: Server, company: Company) -> None:
    plan = published(company, SAMPLE)["id"]

    def change(number: int) -> int:
        with Client(*service.address) as client:
            own = Company(client, company.id, company.key)
            return own.call("PUT", f"/v1/plans/{plan}", {"flags": {f"f{number}": True}}).status

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(change, range(8))) == [200] * 8
    found = company.call("GET", f"/v1/plans/{plan}/versions").data
    assert [one["version"] for one in found] == list(range(1, 10))
    assert len(found[-1]["flags"]) == 9


# --- codes, archives, lists ---


def test_a_code_is_one_plan_until_it_is_archived(company: Company) -> None:
    first = published(company, {**SAMPLE, "code": "pro"})["id"]
    reply = company.call("POST", PLANS, {**SAMPLE, "code": "pro"})
    refused(reply, 409, "plan_exists")
    assert reply.details == {"plan_code": "pro"}

    archived = company.call("DELETE", f"/v1/plans/{first}")
    assert archived.data["archived_at"] is not None
    assert company.call("DELETE", f"/v1/plans/{first}").data == archived.data
    assert company.call("GET", f"/v1/plans/{first}").data == archived.data
    refused(company.call("PUT", f"/v1/plans/{first}", {"name": "Other"}), 409, "plan_archived")

    second = published(company, {**SAMPLE, "code": "pro"})["id"]
    assert {one["id"] for one in company.call("GET", PLANS + "?code=pro").data} == {first, second}
    assert [one["id"] for one in company.call("GET", PLANS + "?code=pro&archived=false").data] == [second]
    assert [one["id"] for one in company.call("GET", PLANS + "?archived=true").data] == [first]


def test_plans_are_listed_page_by_page(company: Company) -> None:
    made = {company.plan(name=f"Plan {number}") for number in range(5)}
    found: list[str] = []
    cursor = ""
    while True:
        page = company.call("GET", f"{PLANS}?limit=2{cursor}")
        found += [one["id"] for one in page.data]
        if not page.body["has_more"]:
            break
        cursor = f"&cursor={page.body['next_cursor']}"

    assert (set(found), len(found)) == (made, 5)


def test_a_key_publishes_once(company: Company) -> None:
    headers = {"idempotency-key": "publish pro"}
    first, again = (company.call("POST", PLANS, SAMPLE, headers) for _ in range(2))

    assert (first.raw, first.is_replay, again.is_replay) == (again.raw, False, True)
    assert len(company.call("GET", PLANS).data) == 1


def test_a_plan_needs_the_scopes_of_the_catalogue(company: Company) -> None:
    reader = {"name": "reader", "scopes": ["catalog:read"]}
    key = company.call("POST", "/v1/companies/{company}/keys", reader).data["api_key"]
    own, plan = Company(company.client, company.id, key), company.plan()

    assert own.call("GET", f"/v1/plans/{plan}").status == 200
    assert own.call("POST", PLANS, SAMPLE).code == "insufficient_scope"
    assert own.call("DELETE", f"/v1/plans/{plan}").code == "insufficient_scope"


# --- event prices of a plan ---


def test_a_plans_prices_are_its_own(company: Company) -> None:
    company.price("CHAT", "credits", "9")
    own = company.call("GET", "/v1/companies/{company}/event_prices").data
    plan = published(company, {**SAMPLE, "event_prices": [LARGE, {**LARGE, "match": {}, "amount": 3}]})

    assert [(one["match"], one["amount"], one["model"]) for one in plan["event_prices"]] == [
        ({"model": "large"}, "2", "per_unit"),
        ({}, "3", "per_unit"),
    ]
    assert company.call("GET", "/v1/companies/{company}/event_prices").data == own
    account = company.account(credits=100)
    company.send(account, type="CHAT", metadata={"model": "large"})
    assert company.balance(account, "credits")["amount"] == 91


def test_prices_are_kept_replaced_and_taken_away(company: Company) -> None:
    first = published(company, {**SAMPLE, "event_prices": [LARGE]})
    renamed = changed(company, first["id"], name="Other")
    replaced = changed(company, first["id"], event_prices=[{**LARGE, "amount": "5"}])
    emptied = changed(company, first["id"], event_prices=None)

    assert renamed["event_prices"] == first["event_prices"]
    assert [one["amount"] for one in replaced["event_prices"]] == ["5"]
    assert emptied["event_prices"] == []
    assert [one["version"] for one in (renamed, replaced, emptied)] == [2, 3, 4]


# --- event prices agreed with an account ---


def test_a_price_is_agreed_changed_and_ended(company: Company) -> None:
    account, other = company.account(credits=100), company.account(credits=100)
    path = f"/v1/accounts/{account}/event_prices"
    body = {"type": "CHAT", "denomination": "credits", "amount": "2", "match": {"b": 1, "a": 2}}
    made = company.call("POST", path, body)
    own = company.price("CHAT", "credits", "9")

    assert made.status == 200, made.raw
    company_price = company.call("GET", f"/v1/companies/{{company}}/event_prices/{own}").data
    assert set(made.data) == {*company_price, "account_id"}
    assert (made.data["account_id"], made.data["version"], made.data["amount"]) == (account, 1, "2")
    assert re.fullmatch(r"ep_[0-9a-z]{8}", made.data["id"])

    one = f"{path}/{made.data['id']}"
    second = company.call("PUT", one, {"amount": "1"})
    assert (second.data["version"], second.data["amount"]) == (2, "1")
    assert (second.data["id"], second.data["created_at"]) == (made.data["id"], made.data["created_at"])
    assert second.data["effective_at"] > made.data["effective_at"]
    assert company.call("GET", one).data == second.data
    assert company.call("GET", path).data == [second.data]
    assert company.call("GET", f"{path}?type=DRAW").data == []
    assert company.call("GET", f"/v1/accounts/{other}/event_prices").data == []

    assert company.call("DELETE", one).data == second.data
    for method, terms in (("GET", None), ("PUT", {"amount": "3"}), ("DELETE", None)):
        refused(company.call(method, one, terms), 404, "not_found")
    assert company.call("GET", path).data == []


def test_one_price_is_agreed_for_one_kind_of_event(company: Company) -> None:
    account, other = company.account(), company.account()
    body = {"type": "CHAT", "denomination": "credits", "amount": "2", "match": {"a": 1, "b": 2}}
    path = f"/v1/accounts/{account}/event_prices"
    price = company.call("POST", path, body).data["id"]

    refused(company.call("POST", path, {**body, "amount": "5", "match": {"b": 2, "a": 1}}), 409, "price_exists")
    company.call("PUT", f"{path}/{price}", {"amount": "3"})
    refused(company.call("POST", path, body), 409, "price_exists")
    assert company.call("POST", path, {**body, "match": {}}).status == 200
    assert company.call("POST", f"/v1/accounts/{other}/event_prices", body).status == 200
    company.call("DELETE", f"{path}/{price}")
    assert company.call("POST", path, body).status == 200


def test_an_agreed_price_is_what_its_account_pays(company: Company) -> None:
    account, other = company.account(credits=100), company.account(credits=100)
    company.price("CHAT", "credits", "9")
    price = company.agreed_price(account, "CHAT", "credits", "2")

    assert company.send(account, type="CHAT").data["balance"]["amount"] == 98
    assert company.send(other, type="CHAT").data["balance"]["amount"] == 91
    company.call("PUT", f"/v1/accounts/{account}/event_prices/{price}", {"amount": "3"})
    assert company.send(account, type="CHAT").data["balance"]["amount"] == 95
    company.call("DELETE", f"/v1/accounts/{account}/event_prices/{price}")
    assert company.send(account, type="CHAT").data["balance"]["amount"] == 86


def test_an_account_has_a_hundred_prices_of_its_own(company: Company) -> None:
    account = company.account()
    prices = [company.agreed_price(account, f"KIND{number}", "credits", "1") for number in range(100)]
    path, body = f"/v1/accounts/{account}/event_prices", {"type": "MORE", "denomination": "credits", "amount": "1"}

    refused(company.call("POST", path, body), 422, "out_of_range")
    company.call("DELETE", f"{path}/{prices[0]}")
    assert company.call("POST", path, body).status == 200


def test_a_price_belongs_to_its_account(company: Company) -> None:
    account, other = company.account(), company.account()
    price = company.agreed_price(account, "CHAT", "credits", "2")
    plan = company.plan(event_prices=[LARGE])

    for path in (
        f"/v1/accounts/{other}/event_prices/{price}",
        f"/v1/companies/{{company}}/event_prices/{price}",
        f"/v1/accounts/{account}/event_prices/ep_{plan.removeprefix('p_')}",
    ):
        for method, terms in (("GET", None), ("PUT", {"amount": "3"}), ("DELETE", None)):
            refused(company.call(method, path, terms), 404, "not_found")
    assert company.call("GET", f"/v1/accounts/{account}/event_prices/{price}").data["amount"] == "2"


@pytest.fixture(scope="module")
def shop(service: Server) -> Any:
    """One company for the tests that only publish."""
    with Client(*service.address) as client:
        yield Company.open(client)
