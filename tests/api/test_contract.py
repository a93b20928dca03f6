"""Every route and what it promises: fields, states, lists, keys, path forms. Sources: contract 2, design 4, 10, 12."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from itertools import count
from typing import Any, Final
from urllib.parse import quote

import pytest

from tenuto.api.app import ROUTES
from tenuto.core.outcomes import REFUSALS
from tenuto.server import Server
from tests.client import Client, Company, Reply

_NUMBERS: Final = count()
TIME: Final = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}\+00")

ACCOUNT_FIELDS: Final = {
    "id", "name", "email", "company_id", "plan_id", "plan_renewal_cadence", "billing_address_id", "stripe_id",
    "metadata", "last_plan_renewal", "next_plan_renewal", "plan_status", "flags", "credit_limit", "owed_balance",
    "owed_balances", "paused", "credit_blocked", "usage_suspended", "capture_suspended", "created_at", "updated_at",
    "paused_at", "paused_by", "credit_blocked_at", "credit_blocked_by", "usage_suspended_at", "events_waiting",
    "replaying", "organization_id", "address", "currency",
}  # fmt: skip
BALANCE_FIELDS: Final = {
    "account_id", "denomination", "amount", "pending", "available", "residue", "residue_fraction", "credit_limit",
    "last_periodic_refill", "next_periodic_refill", "threshold", "refill_amount", "usd_charge", "charge_denomination",
    "refill_monthly", "refill_parked", "managed_by_plan_id", "plan_variable_amount", "created_at", "updated_at",
}  # fmt: skip
EVENT_FIELDS: Final = {
    "id", "account_id", "type", "quantity", "state", "gated", "key", "cost", "balance", "transaction_id", "metadata",
    "tag", "cogs_amount", "cogs_denomination", "parent_event_id", "reason", "occurred_at", "recorded_at", "expires_at",
    "finished_at", "created_at",
}  # fmt: skip
TRANSACTION_FIELDS: Final = {
    "id", "account_id", "denomination", "seq", "type", "book", "description", "unit_cost", "amount",
    "starting_balance", "ending_balance", "max_value_billing_amount", "max_value_billing_previous_id", "cause_id",
    "account", "event_ids", "events", "created_at",
}  # fmt: skip
PRICE_FIELDS: Final = {
    "id", "version", "type", "denomination", "model", "amount", "per", "tiers", "free_units", "minimum", "cap",
    "max_value_billing", "match", "effective_at", "created_at",
}  # fmt: skip


@pytest.fixture(scope="module")
def shop(service: Server) -> Iterator[Company]:
    """One company for all tests that only need its accounts and its price of 3 credits for a CHAT."""
    with Client(*service.address) as client:
        found = Company.open(client)
        found.price("CHAT", "credits", "3")
        yield found


def refused(reply: Reply, status: int, code: str) -> None:
    assert (reply.status, reply.code) == (status, code), reply.raw[:500]


def hold(company: Company, account: str, **event: object) -> str:
    reply = company.send(account, **{"type": "CHAT", "quantity": 2, "state": "pending", **event})
    assert reply.status == 200, reply.raw
    return str(reply.data["id"])


def settle(company: Company, event_id: str, **settlement: object) -> Reply:
    return company.call("PUT", f"/v1/events/{event_id}", settlement)


def pages(company: Company, path: str, limit: int) -> list[list[Any]]:
    """A list read to its end, page by page."""
    found: list[list[Any]] = []
    joint = "&" if "?" in path else "?"
    cursor = ""
    while True:
        page = company.call("GET", f"{path}{joint}limit={limit}{cursor}")
        assert page.status == 200, page.raw
        assert set(page.body) == {"data", "has_more", "next_cursor"}
        assert page.body["has_more"] is (page.body["next_cursor"] is not None)
        found.append(page.data)
        if not page.body["has_more"]:
            return found
        cursor = f"&cursor={page.body['next_cursor']}"


# --- companies, keys, callers ---


def test_a_company_begins_with_a_key(client: Client) -> None:
    reply = client.call(
        "POST", "/v1/companies", {"name": "Acme", "email": "Owner@Example.com", "password": "plain words!"}
    )

    assert reply.status == 200
    assert set(reply.data) == {"id", "name", "mode", "api_key", "user"}
    assert re.fullmatch(r"c_[0-9a-z]{8}", reply.data["id"])
    assert re.fullmatch(r"sk_test_[0-9a-z]{8}_[0-9A-Za-z]{49}", reply.data["api_key"])
    assert re.fullmatch(r"u_[0-9a-z]{8}", reply.data["user"]["id"])
    assert (reply.data["name"], reply.data["mode"]) == ("Acme", "test")
    assert reply.data["user"]["email"] == "owner@example.com"


def test_the_company_and_its_settings(company: Company) -> None:
    found = company.call("GET", "/v1/companies/{company}")
    changes = {
        "name": "Acme Ltd",
        "time_zone": "Europe/Berlin",
        "default_credit_limit": 50,
        "late_event_seconds": 60,
        "ahead_event_seconds": 0,
    }
    changed = company.call("PUT", "/v1/companies/{company}", changes)

    money = {
        "stripe_key",
        "stripe_publishable_key",
        "stripe_webhook_secret",
        "refill_caps",
        "plans",
        "levels",
        "invoicing",
        "billables",
        "billable_prefixes",
    }
    assert set(found.data) == {"id", "name", "mode", "created_at", *money, *changes}
    assert found.data["refill_caps"] == {"per_hour": 4, "per_day": 24, "amount_per_day": None}
    assert (found.data["time_zone"], found.data["default_credit_limit"]) == ("UTC", 0)
    assert (found.data["late_event_seconds"], found.data["ahead_event_seconds"]) == (35 * 86_400, 300)
    assert {name: changed.data[name] for name in changes} == changes
    assert company.call("GET", "/v1/companies/{company}").data == changed.data


@pytest.mark.parametrize("keys", ["/v1/companies/{company}/keys", "/v1/companies/{company}/apikeys"])
def test_keys_are_issued_listed_and_revoked(company: Company, keys: str) -> None:
    issued = company.call("POST", keys, {"name": "ingest", "scopes": ["events:write", "accounts:read"]})
    listed = company.call("GET", keys)
    second = Company(company.client, company.id, issued.data["api_key"])
    account = company.account()

    fields = {"id", "name", "mode", "hint", "scopes", "created_at", "expires_at", "revoked_at", "last_used_at"}
    assert set(issued.data) == {*fields, "api_key"}
    assert issued.data["hint"] == issued.data["api_key"][-4:]
    assert issued.data["scopes"] == ["accounts:read", "events:write"]
    assert [set(key) for key in listed.data] == [fields, fields]
    assert listed.data[0]["id"] == issued.data["id"]
    assert issued.data["api_key"].encode() not in listed.raw

    assert second.call("GET", f"/v1/accounts/{account}").status == 200
    assert second.send(account, type="A").status == 200
    for method, path, body in (
        ("GET", f"/v1/accounts/{account}/events", None),
        ("GET", f"/v1/accounts/{account}/balance/credits", None),
        ("POST", keys, {"name": "more"}),
    ):
        refused(second.call(method, path, body), 403, "insufficient_scope")

    revoked = company.call("DELETE", f"{keys}/{issued.data['id']}")
    assert TIME.fullmatch(revoked.data["revoked_at"])
    refused(second.call("GET", f"/v1/accounts/{account}"), 401, "invalid_credentials")
    refused(second.send(account, type="A"), 401, "invalid_credentials")
    refused(second.call("GET", f"/v1/accounts/{account}/balance/credits"), 401, "invalid_credentials")
    refused(company.call("DELETE", f"{keys}/{issued.data['id']}"), 404, "not_found")


def test_a_key_gives_away_no_more_than_it_has(company: Company) -> None:
    keys = "/v1/companies/{company}/keys"
    issued = company.call("POST", keys, {"scopes": ["keys:write", "events:read"]})
    second = Company(company.client, company.id, issued.data["api_key"])

    refused(second.call("POST", keys, {"scopes": ["events:write"]}), 403, "insufficient_scope")
    assert second.call("POST", keys, {}).data["scopes"] == ["events:read", "keys:write"]
    assert second.call("POST", keys).data["scopes"] == ["events:read", "keys:write"]


def test_test_and_live_never_see_each_other(company: Company) -> None:
    live = company.call("POST", "/v1/companies/{company}/keys", {"mode": "live"})
    assert live.data["api_key"].startswith("sk_live_")
    other = Company(company.client, company.id, live.data["api_key"])
    account = company.account(credits=10)

    refused(other.call("GET", f"/v1/accounts/{account}"), 404, "not_found")
    assert other.call("GET", "/v1/companies/{company}/accounts").data == []
    assert other.call("GET", "/v1/companies/{company}").data["mode"] == "live"
    assert [key["mode"] for key in other.call("GET", "/v1/companies/{company}/keys").data] == ["live"]
    refused(other.call("POST", "/v1/companies/{company}/clock", {"advance_seconds": 1}), 403, "live_clock")


def test_basic_and_bearer_both_work(shop: Company) -> None:
    account = shop.account(credits=1)
    basic = base64.b64encode(f"{shop.id}:{shop.key}".encode()).decode()

    for scheme in (f"Basic {basic}", f"basic {basic}", f"Bearer {shop.key}", f"bearer {shop.key}"):
        for path in (f"/v1/accounts/{account}", f"/v1/accounts/{account}/balance/credits"):
            assert shop.client.call("GET", path, headers={"authorization": scheme}).status == 200, scheme


def test_the_clock_moves_forward_and_holds_expire_by_it(company: Company) -> None:
    account = company.account(credits=10)
    company.price("CHAT", "credits", "3")
    event_id = hold(company, account)
    before = company.call("GET", "/v1/companies/{company}/clock")

    moved = company.call("POST", "/v1/companies/{company}/clock", {"advance_seconds": 3599})
    assert set(before.data) == set(moved.data) == {"now", "offset_seconds", "done"}
    assert company.balance(account, "credits")["available"] == 4
    moved = company.call("POST", "/v1/companies/{company}/clock", {"advance_seconds": 1})
    assert moved.data["done"] == {"release_expired": 1}
    assert moved.data["offset_seconds"] == 3600
    assert company.balance(account, "credits")["available"] == 10
    assert company.call("GET", f"/v1/events/{event_id}").data["reason"] == "expired"
    refused(settle(company, event_id, state="complete"), 409, "event_expired")

    to = company.call("POST", "/v1/companies/{company}/clock", {"now": "2090-01-31T00:00:00Z"})
    assert to.data["now"].startswith("2090-01-31 00:00:0")
    refused(
        company.call("POST", "/v1/companies/{company}/clock", {"now": "2090-01-30T00:00:00Z"}), 422, "clock_not_forward"
    )
    assert company.send(account, type="CHAT").data["recorded_at"].startswith("2090-01-31 00:00:")


# --- paths ---


@pytest.mark.parametrize("form", ["/v1{}", "{}", "/v1{}/", "{}/"])
def test_every_path_form_is_served(company: Company, form: str) -> None:
    account = company.account(credits=10)
    event = company.send(account, type="A").data["id"]
    price = company.price("A", "credits", "1")
    ids = {"company_id": company.id, "account_id": account, "event_id": event, "price_id": price}
    ids |= {"denomination": "credits", "key_id": "k_00000000", "invoice_id": company.invoice(account), "position": "1"}
    ids |= {"card_id": company.card(account), "payment_id": company.deposit(account), "plan_id": company.plan()}
    ids |= {"account_price_id": company.agreed_price(account, "A", "credits", "1"), "name": "seats"}
    ids["webhook_id"], ids["notification_id"] = company.listening_webhook(account)
    ids["issuer_id"], ids["external_id"] = company.issuer(), company.organization()
    ids |= {"refund_id": company.refund(ids["payment_id"]), "credit_note_id": company.credit_note(ids["invoice_id"])}
    ids["transaction_id"] = company.moved(account)
    company.start(account, ids["plan_id"])
    for route in ROUTES:
        if route.method == "GET" and not route.family:
            assert company.call("GET", form.format(route.path.format(**ids))).status == 200, route.path
    assert company.call("POST", form.format(f"/accounts/{account}/events"), {"type": "A"}).status == 200
    assert company.call("PUT", form.format(f"/accounts/{account}"), {"name": "B"}).status == 200


@pytest.mark.parametrize("denomination", ["a/b", "/", "a?b", "a#b", "50%", "%2F", "'--", "a;b", "~", "x" * 64])
def test_a_denomination_of_any_printable_ascii_has_a_path(shop: Company, denomination: str) -> None:
    account = shop.account()
    path = f"/v1/accounts/{account}/balance/{quote(denomination, safe='')}"

    assert shop.call("POST", path, {"amount": 5}).data["denomination"] == denomination
    assert shop.call("POST", f"{path}/adjust", {"amount": 1}).data["denomination"] == denomination
    for form in (path, f"{path}/"):
        assert shop.call("GET", form).data["amount"] == 6
    assert shop.send(account, type="A", cost_override_amount=1, cost_override_denomination=denomination).status == 200


def test_an_escaped_slash_divides_nothing(shop: Company) -> None:
    account = shop.account(credits=1)

    refused(shop.call("GET", f"/v1/accounts/{account}%2Fbalance%2Fcredits"), 404, "not_found")
    refused(shop.call("POST", f"/v1/accounts/{account}%2fevents", {"type": "A"}), 405, "method_not_allowed")


def test_a_method_that_is_not_served_says_which_are(shop: Company) -> None:
    account = shop.account(credits=1)

    for path, allowed in (
        (f"/v1/accounts/{account}/events", {"GET", "POST"}),
        (f"/accounts/{account}/balance/credits/", {"GET", "POST", "PUT"}),
        ("/v1/companies", {"POST"}),
        (f"/v1/events/{account}", {"GET", "PUT", "DELETE"}),
    ):
        reply = shop.call("PATCH", path, {})
        refused(reply, 405, "method_not_allowed")
        assert set(reply.headers["allow"].split(", ")) >= allowed


# --- accounts ---


METADATA: Final = (
    '{"organization_id":500}', "{}", "[]", "[1,[2,[3]]]", '"text"', "0", "-0.0", "1.50", "1e2", "true", "false",
    '""', '{"b":1,"a":2}', '{"__proto__":{"x":1},"constructor":null}', '{"é":"\U0001f4b8","\\u00e9e":"\\n\\"\\u2028"}',
    '{"big":12345678901234567890123456789,"small":0.1000000000000000055}', '"\u202eabc\u200b"', '{"":""}',
)  # fmt: skip


@pytest.mark.parametrize("metadata", METADATA)
def test_metadata_of_any_json_comes_back_unchanged(shop: Company, metadata: str) -> None:
    body = f'{{"name":"Ada","email":"ada@example.com","metadata":{metadata}}}'.encode()
    opened = shop.call("POST", "/v1/companies/{company}/accounts", body)
    sent = shop.call(
        "POST", f"/v1/accounts/{opened.data['id']}/events", f'{{"type":"A","metadata":{metadata}}}'.encode()
    )

    spelled = f'"metadata":{metadata}'.encode()
    assert spelled in opened.raw
    assert spelled in shop.call("GET", f"/v1/accounts/{opened.data['id']}").raw
    assert spelled in sent.raw
    assert spelled in shop.call("GET", f"/v1/events/{sent.data['id']}").raw
    assert spelled in shop.call("GET", f"/v1/accounts/{opened.data['id']}/events").raw


def test_an_account_is_opened_read_and_edited(company: Company) -> None:
    accounts = "/v1/companies/{company}/accounts"
    body = {"name": "Ada", "email": "Ada@Example.com", "metadata": {"a": 1}, "stripe_id": "cus_1", "credit_limit": 7}
    opened = company.call("POST", accounts, body)
    path = f"/v1/accounts/{opened.data['id']}"

    assert set(opened.data) == ACCOUNT_FIELDS
    assert re.fullmatch(r"a_[0-9a-z]{8}", opened.data["id"])
    assert opened.data["company_id"] == company.id
    assert (opened.data["plan_status"], opened.data["flags"], opened.data["owed_balance"]) == ("NONE", [], 0)
    assert TIME.fullmatch(opened.data["created_at"])
    assert opened.data["updated_at"] is None
    assert company.call("GET", path).data == opened.data

    edited = company.call("PUT", path, {"name": "Ada L."})
    assert TIME.fullmatch(edited.data["updated_at"])
    assert edited.data == {**opened.data, "name": "Ada L.", "updated_at": edited.data["updated_at"]}
    cleared = company.call("PUT", path, {"metadata": None, "stripe_id": None, "credit_limit": None})
    assert (cleared.data["metadata"], cleared.data["stripe_id"], cleared.data["credit_limit"]) == (None, None, None)
    assert company.call("PUT", path, {}).data["name"] == "Ada L."
    refused(company.call("GET", "/v1/accounts/a_00000000"), 404, "not_found")


def test_accounts_are_listed_newest_first_by_cursor_and_filter(company: Company) -> None:
    accounts = "/v1/companies/{company}/accounts"
    made = []
    for number in range(5):
        body = {"name": f"N{number % 2}", "email": f"n{number}@example.com", "stripe_id": f"cus_{number}"}
        made.append(company.call("POST", accounts, body).data["id"])

    found = pages(company, accounts, 2)
    assert [len(page) for page in found] == [2, 2, 1]
    assert [account["id"] for page in found for account in page] == made[::-1]
    assert [page["id"] for page in company.call("GET", f"{accounts}?name=N1").data] == [made[3], made[1]]
    assert [page["id"] for page in company.call("GET", f"{accounts}?email=n2@example.com").data] == [made[2]]
    assert [page["id"] for page in company.call("GET", f"{accounts}?stripe_id=cus_4").data] == [made[4]]
    assert company.call("GET", f"{accounts}?name=nobody").body == {"data": [], "has_more": False, "next_cursor": None}
    assert pages(company, f"{accounts}?name=N0", 3)[0][0]["id"] == made[4]


# --- balances ---


def test_a_balance_is_opened_read_listed_and_limited(shop: Company) -> None:
    account = shop.account()
    path = f"/v1/accounts/{account}/balance/credits"
    refused(shop.call("GET", path), 404, "not_found")

    opened = shop.call("POST", path, {"amount": 10, "credit_limit": 5})
    bare = shop.call("POST", f"/v1/accounts/{account}/balance/USD")
    limited = shop.call("PUT", path, {"credit_limit": None})

    assert set(opened.data) == BALANCE_FIELDS
    assert (opened.data["amount"], opened.data["pending"], opened.data["available"]) == (10, 0, 10)
    assert (opened.data["residue"], opened.data["residue_fraction"]) == ("0.000000000000", "0")
    assert opened.data["credit_limit"] == 5
    assert bare.data["amount"] == 0
    assert limited.data["credit_limit"] is None
    assert shop.balance(account, "credits") == limited.data
    for form in ("balance", "balances"):
        assert shop.call("GET", f"/v1/accounts/{account}/{form}").body == {
            "data": [bare.data, limited.data], "has_more": False, "next_cursor": None,
        }  # fmt: skip
    refused(shop.call("POST", path, {"amount": 10}), 409, "balance_exists")
    assert shop.balance(account, "credits")["amount"] == 10


def test_units_are_adjusted_with_a_reason(shop: Company) -> None:
    account = shop.account(credits=10)
    path = f"/v1/accounts/{account}/balance/credits/adjust"

    up = shop.call("POST", path, {"amount": 100, "reason": "goodwill"})
    down = shop.call("POST", path, {"amount": -150})
    new = shop.call("POST", f"/v1/accounts/{account}/balance/seats/adjust", {"amount": 3})

    assert set(up.data) == TRANSACTION_FIELDS
    assert (up.data["seq"], up.data["starting_balance"], up.data["amount"], up.data["ending_balance"]) == (
        2,
        10,
        100,
        110,
    )
    assert (up.data["type"], up.data["book"], up.data["description"]) == ("ADJUSTMENT", "adjustment", "goodwill")
    assert up.data["account"] == {"account_id": account, "name": "Ada"}
    assert (down.data["seq"], down.data["ending_balance"]) == (3, -40)
    assert (new.data["seq"], new.data["ending_balance"]) == (1, 3)
    listed = shop.call("GET", f"/v1/accounts/{account}/transactions").data
    assert [one["id"] for one in listed][:3] == [new.data["id"], down.data["id"], up.data["id"]]
    assert listed[2] == up.data


# --- prices ---


def test_a_price_is_set_changed_by_versions_and_deleted(company: Company) -> None:
    prices = "/v1/companies/{company}/event_prices"
    body = {"type": "READ", "denomination": "USD", "amount": "15", "per": 1_000_000, "match": {"model": "large"}}
    made = company.call("POST", prices, body)
    path = f"{prices}/{made.data['id']}"

    assert set(made.data) == PRICE_FIELDS
    assert re.fullmatch(r"ep_[0-9a-z]{8}", made.data["id"])
    assert {name: made.data[name] for name in body} == body
    assert (made.data["version"], made.data["model"], made.data["tiers"]) == (1, "per_unit", None)
    assert (made.data["free_units"], made.data["minimum"], made.data["cap"]) == (0, None, None)
    assert made.data["max_value_billing"] is False
    assert company.call("GET", path).data == made.data
    refused(company.call("POST", prices, body), 409, "price_exists")

    changed = company.call("PUT", path, {"amount": "20.5"})
    assert (changed.data["id"], changed.data["version"]) == (made.data["id"], 2)
    assert (changed.data["amount"], changed.data["per"]) == ("20.5", 1_000_000)
    assert [price["version"] for price in company.call("GET", prices).data] == [2]
    tiers = [{"up_to": 10, "amount": "1", "per": 1}, {"up_to": None, "amount": "0.5", "per": 1}]
    tiered = company.call("PUT", path, {"model": "graduated", "amount": None, "tiers": tiers})
    assert (tiered.data["version"], tiered.data["tiers"], tiered.data["amount"]) == (3, tiers, None)

    assert company.call("DELETE", path).status == 200
    for method in ("GET", "DELETE"):
        refused(company.call(method, path), 404, "not_found")
    refused(company.call("PUT", path, {"amount": "1"}), 404, "not_found")
    assert company.call("GET", prices).data == []
    assert company.call("POST", prices, body).data["id"] != made.data["id"]


@pytest.mark.parametrize("amount", ['"15"', "15", "0.15", "0", '"0.000000000001"', "999999999999999.000000000001"])
def test_a_price_is_taken_digit_by_digit(shop: Company, amount: str) -> None:
    body = f'{{"type":"DIGITS{next(_NUMBERS)}","denomination":"USD","amount":{amount}}}'.encode()

    assert shop.call("POST", "/v1/companies/{company}/event_prices", body).data["amount"] == amount.strip('"')


def test_prices_are_listed_by_filter_and_cursor(company: Company) -> None:
    made = [company.price(kind, unit, "1") for kind in ("A", "B") for unit in ("USD", "credits")]
    prices = "/v1/companies/{company}/event_prices"

    assert sorted(price["id"] for page in pages(company, prices, 3) for price in page) == sorted(made)
    assert {price["id"] for price in company.call("GET", f"{prices}?type=A").data} == set(made[:2])
    assert {price["id"] for price in company.call("GET", f"{prices}?denomination=USD").data} == {made[0], made[2]}


def test_the_event_keeps_the_version_that_priced_it(company: Company) -> None:
    account = company.account(USD=100)
    price = company.price("READ", "USD", "15", per=10)
    first = company.send(account, type="READ", quantity=3)
    company.call("PUT", f"/v1/companies/{{company}}/event_prices/{price}", {"amount": "40"})
    second = company.send(account, type="READ", quantity=3)

    why = company.call("GET", f"/v1/events/{first.data['id']}/explain").data
    assert set(why) == {
        "event", "sentence", "price", "lines", "exact", "amount", "denomination", "residue_before", "residue_after",
        "transaction", "charges",
    }  # fmt: skip
    assert (why["price"]["id"], why["price"]["version"], why["price"]["amount"]) == (price, 1, "15")
    assert why["lines"] == [{"what": why["lines"][0]["what"], "units": "3", "unit_cost": "1.5", "exact": "4.5"}]
    assert (why["exact"], why["amount"], why["residue_before"], why["residue_after"]) == ("4.5", 4, "0", "1/2")
    assert why["event"] == company.call("GET", f"/v1/events/{first.data['id']}").data
    assert why["transaction"]["events"] == [{"event_id": first.data["id"], "type": "READ"}]
    assert why["sentence"]
    why = company.call("GET", f"/v1/events/{second.data['id']}/explain").data
    assert (why["price"]["version"], why["exact"], why["amount"]) == (2, "12", 12)
    assert (why["residue_before"], why["residue_after"]) == ("1/2", "1/2")


def test_an_unpriced_event_explains_that_it_costs_nothing(shop: Company) -> None:
    event = shop.send(shop.account(), type="LOGIN").data
    why = shop.call("GET", f"/v1/events/{event['id']}/explain").data

    assert (why["price"], why["lines"], why["exact"], why["transaction"], why["charges"]) == (None, [], None, None, [])
    assert "LOGIN" in why["sentence"]


def test_max_value_billing_charges_only_what_exceeds_the_maximum(company: Company) -> None:
    account = company.account(USD=1000)
    company.price("SEATS", "USD", "10", max_value_billing=True)

    costs = [company.send(account, type="SEATS", quantity=value).data["cost"]["amount"] for value in (5, 3, 8, 8)]
    moved = company.call("GET", f"/v1/accounts/{account}/transactions?type=EVENT").data

    assert costs == [50, 0, 30, 0]
    assert [one["max_value_billing_amount"] for one in moved] == [8, 5]
    assert [one["max_value_billing_previous_id"] for one in moved] == [moved[1]["id"], None]
    assert company.balance(account, "USD")["amount"] == 920


@pytest.mark.parametrize(
    ("terms", "quantities", "costs"),
    [
        ({"amount": "3"}, (1, 2), (3, 6)),
        ({"amount": "5", "model": "package", "per": 10}, (1, 9, 1), (5, 0, 5)),
        ({"amount": "2", "free_units": 5}, (4, 4), (0, 6)),
        ({"amount": "1", "minimum": "5", "cap": "8"}, (1, 6, 100), (5, 6, 8)),
        (
            {"model": "graduated", "tiers": [{"up_to": 10, "amount": "2"}, {"up_to": None, "amount": "1"}]},
            (8, 8),
            (16, 10),
        ),
        ({"model": "volume", "tiers": [{"up_to": 10, "amount": "2"}, {"up_to": None, "amount": "1"}]}, (8, 8), (16, 0)),
    ],
)
def test_price_models(
    shop: Company, terms: dict[str, Any], quantities: tuple[int, ...], costs: tuple[int, ...]
) -> None:
    account, kind = shop.account(USD=1000), f"MODEL{next(_NUMBERS)}"
    shop.price(kind, "USD", **terms)

    assert tuple(shop.send(account, type=kind, quantity=q).data["cost"]["amount"] for q in quantities) == costs


def test_a_price_by_property_beats_the_plain_one(company: Company) -> None:
    account = company.account(credits=100)
    company.price("CHAT", "credits", "1")
    company.price("CHAT", "credits", "5", match={"model": "large"})

    for metadata, cost in (({"model": "large"}, 5), ({"model": "small"}, 1), (None, 1), ("large", 1)):
        assert company.send(account, type="CHAT", metadata=metadata).data["cost"]["amount"] == cost


def test_one_event_may_debit_several_balances(company: Company) -> None:
    account = company.account(credits=10, USD=10)
    company.price("CHAT", "credits", "3")
    company.price("CHAT", "USD", "1")

    data = company.send(account, type="CHAT").data

    assert set(data) == {*EVENT_FIELDS, "costs", "balances"}
    assert {cost["denomination"]: cost["amount"] for cost in data["costs"]} == {"credits": 3, "USD": 1}
    assert {after["denomination"]: after["amount"] for after in data["balances"]} == {"credits": 7, "USD": 9}
    assert (data["cost"], data["balance"]) == (data["costs"][0], data["balances"][0])


# --- events ---


def test_one_event_in_one_event_out(shop: Company) -> None:
    account = shop.account(credits=10)

    reply = shop.send(account, type="CHAT", quantity=2, key="k", metadata={"a": 1})
    data = reply.data

    assert set(reply.body) == {"data", "events_submitted"}
    assert reply.body["events_submitted"] == 1
    assert set(data) == EVENT_FIELDS
    assert re.fullmatch(rf"e_{account[2:]}[0-9a-z]{{10}}", data["id"])
    assert re.fullmatch(rf"t_{account[2:]}[0-9a-z]{{10}}", data["transaction_id"])
    assert (data["account_id"], data["type"], data["quantity"], data["state"]) == (account, "CHAT", 2, "complete")
    assert (data["gated"], data["key"], data["metadata"], data["tag"]) == (False, "k", {"a": 1}, "usage")
    assert data["cost"] == {"denomination": "credits", "amount": 6, "exact": "6"}
    after = data["balance"]
    assert (after["account_id"], after["denomination"], after["amount"]) == (account, "credits", 4)
    assert (after["pending"], after["available"], after["residue"]) == (0, 4, "0.000000000000")
    assert data["occurred_at"] == data["recorded_at"] == data["created_at"]
    assert TIME.fullmatch(data["recorded_at"])
    assert (data["expires_at"], data["finished_at"], data["reason"], data["parent_event_id"]) == (None,) * 4
    assert shop.call("GET", f"/v1/events/{data['id']}").data == data


def test_a_list_in_a_list_out(shop: Company) -> None:
    account = shop.account(credits=10)

    reply = shop.send(account, {"type": "CHAT"}, {"type": "LOGIN"}, {"type": "CHAT", "quantity": 2})

    assert reply.body["events_submitted"] == 3
    assert [set(event) for event in reply.data] == [EVENT_FIELDS] * 3
    assert [event["cost"] and event["cost"]["amount"] for event in reply.data] == [3, None, 6]
    assert reply.data[1]["balance"] is None
    assert len({event["transaction_id"] for event in reply.data} - {None}) == 1
    assert shop.send(account, {"type": "CHAT"}).data[0]["balance"]["amount"] == -2


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ({"quantity": "1.50"}, {"quantity": "1.5"}),
        ({"quantity": "2.0"}, {"quantity": 2}),
        ({"quantity": "007"}, {"quantity": 7}),
        ({"quantity": "0.000000001"}, {"quantity": "0.000000001"}),
        ({"cogs": 5}, {"cogs_amount": 5, "cogs_denomination": "USD"}),
        ({"cogs_amount": 5, "cogs_denomination": "EUR"}, {"cogs_amount": 5, "cogs_denomination": "EUR"}),
        ({"tag": "revenue"}, {"tag": "revenue"}),
        ({"state": "completed"}, {"state": "complete"}),
        ({"state": "canceled"}, {"state": "cancelled", "reason": "pushed"}),
        ({"state": "cancelled"}, {"state": "cancelled", "reason": "pushed"}),
        ({"metadata": None}, {"metadata": None}),
    ],
)
def test_what_an_event_may_say(shop: Company, sent: dict[str, Any], kept: dict[str, Any]) -> None:
    account = shop.account()
    data = shop.send(account, type="A", **sent).data

    assert {name: data[name] for name in kept} == kept
    assert shop.call("GET", f"/v1/events/{data['id']}").data == data


@pytest.mark.parametrize("spelling", ["Z", "+00:00", "+02:00", "-0330", "+05", "z"])
def test_the_time_of_an_event_in_any_iso_spelling(shop: Company, spelling: str) -> None:
    account = shop.account()
    now = shop.call("GET", "/v1/companies/{company}/clock").data["now"]
    day = str(date.fromisoformat(now[:10]) - timedelta(days=1))
    offset = {"+02:00": "22:00:00", "-0330": "03:30:00", "+05": "19:00:00"}.get(spelling)

    data = shop.send(account, type="A", occurred_at=f"{day}T00:00:00{spelling}").data
    assert data["occurred_at"][11:] == f"{offset or '00:00:00'}.000000+00"
    assert shop.send(account, type="A", occurred_at=now).data["occurred_at"] == now


def test_cogs_may_follow_in_an_event_of_its_own(company: Company) -> None:
    account = company.account(credits=10)
    company.price("CHAT", "credits", "3")
    parent = company.send(account, type="CHAT").data["id"]

    child = company.send(account, type="COGS", cogs_amount=2, parent_event_id=parent).data

    assert (child["parent_event_id"], child["cost"]) == (parent, None)
    for listing in (f"/v1/accounts/{account}/events", "/v1/companies/{company}/events"):
        found = company.call("GET", f"{listing}?parent_event_id={parent}").data
        assert [event["id"] for event in found] == [child["id"]]


@pytest.mark.parametrize(
    "override",
    [
        {"cost_override_amount": 4, "cost_override_denomination": "credits"},
        {"cost_override": {"amount": 4, "denomination": "credits"}},
    ],
)
def test_an_override_is_the_total_in_both_spellings(shop: Company, override: dict[str, Any]) -> None:
    account = shop.account(credits=10)

    data = shop.send(account, type="CHAT", quantity=5, **override).data

    assert data["cost"] == {"denomination": "credits", "amount": 4, "exact": "4"}
    assert data["balance"]["amount"] == 6


def test_what_the_real_clients_do(shop: Company) -> None:
    """Contract 2.8: two calls, one object, `data.amount` and `data.balance.amount`; anything but 2xx is "no"."""
    account = shop.account(docchats=2)
    event = {
        "type": "CHAT",
        "cost_override_amount": 1,
        "cost_override_denomination": "docchats",
        "gate_on_balance": True,
    }
    assert shop.call("GET", f"/v1/accounts/{account}/balance/docchats").data["amount"] == 2
    left = [shop.call("POST", f"/v1/accounts/{account}/events", event).data["balance"]["amount"] for _ in range(2)]
    assert left == [1, 0]
    assert shop.call("POST", f"/v1/accounts/{account}/events", event).status == 402
    assert shop.call("GET", f"/v1/accounts/{account}/balance/docchats").data["amount"] == 0


STRUCTURED: Final = {"content-type": "application/cloudevents+json; charset=utf-8"}
BATCHED: Final = {"content-type": "application/cloudevents-batch+json"}


def test_cloud_events_structured_and_batched(shop: Company) -> None:
    account = shop.account(credits=100)
    path = f"/v1/accounts/{account}/events"
    one = {"specversion": "1.0", "id": "c1", "source": "/chat", "type": "CHAT", "datacontenttype": "application/json"}
    now = shop.call("GET", "/v1/companies/{company}/clock").data["now"].replace(" ", "T")

    fields = shop.call("POST", path, {**one, "data": {"quantity": 2, "metadata": {"a": 1}}, "time": now}, STRUCTURED)
    free = shop.call("POST", path, {**one, "id": "c2", "data": {"model": "x"}}, STRUCTURED)
    again = shop.call("POST", path, {**one, "id": "c2", "data": {"model": "x"}}, STRUCTURED)
    batch = shop.call("POST", path, [{**one, "id": "c3"}, {**one, "id": "c4", "extension": "ok"}], BATCHED)

    assert (fields.data["quantity"], fields.data["metadata"], fields.data["key"]) == (2, {"a": 1}, "c1")
    assert fields.data["occurred_at"][:19] == now[:19].replace("T", " ")
    assert (free.data["quantity"], free.data["metadata"]) == (1, {"model": "x"})
    assert again.is_replay
    assert again.raw == free.raw
    assert [event["key"] for event in batch.data] == ["c3", "c4"]
    assert batch.body["events_submitted"] == 2
    assert shop.balance(account, "credits")["amount"] == 100 - 5 * 3


# --- the gate ---


def test_a_402_says_what_is_missing(company: Company) -> None:
    account = company.account(credits=10)
    company.price("CHAT", "credits", "3")
    hold(company, account, quantity=1)

    reply = company.send(account, type="CHAT", quantity=3, gate_on_balance=True, key="k", metadata={"a": 1})

    refused(reply, 402, "insufficient_balance")
    assert reply.details == {"denomination": "credits", "available": 7, "pending": 3, "required": 9, "shortfall": 2}
    assert (
        company.send(account, type="CHAT", quantity=3, gate_on_balance=True, key="k", metadata={"a": 1}).raw
        == reply.raw
    )
    [record] = company.call("GET", f"/v1/accounts/{account}/gated_events").data
    assert set(record) == {
        "id", "account_id", "type", "quantity", "state", "key", "code", "details", "metadata", "tag", "request_id",
        "occurred_at", "recorded_at", "created_at",
    }  # fmt: skip
    assert (record["code"], record["details"], record["key"]) == ("insufficient_balance", reply.details, "k")
    assert (record["quantity"], record["metadata"]) == (3, {"a": 1})
    assert record["request_id"] == reply.body["error"]["request_id"]
    assert record["id"] not in {event["id"] for event in company.call("GET", f"/v1/accounts/{account}/events").data}
    assert company.call("GET", "/v1/companies/{company}/gated_events").data == [record]


def test_a_credit_limit_lets_money_go_below_zero_so_far(company: Company) -> None:
    account = company.account(USD=1)
    company.price("CHAT", "USD", "3")
    company.call("PUT", f"/v1/accounts/{account}", {"credit_limit": 5})

    assert company.send(account, type="CHAT", gate_on_balance=True).data["balance"]["amount"] == -2
    assert company.send(account, type="CHAT", gate_on_balance=True).data["balance"]["amount"] == -5
    reply = company.send(account, type="CHAT", gate_on_balance=True)
    refused(reply, 402, "credit_limit_reached")
    assert (reply.details["available"], reply.details["shortfall"]) == (-5, 3)


def test_the_gate_takes_what_is_exactly_enough(shop: Company) -> None:
    account = shop.account(credits=6)

    assert shop.send(account, type="CHAT", quantity=2, gate_on_balance=True).data["balance"]["amount"] == 0
    refused(shop.send(account, type="CHAT", gate_on_balance=True), 402, "insufficient_balance")
    assert shop.send(account, type="LOGIN", gate_on_balance=True).status == 200
    assert shop.send(account, type="CHAT").data["balance"]["amount"] == -3


def test_a_list_is_all_or_nothing_for_the_gate(shop: Company) -> None:
    account = shop.account(credits=7)
    events = [{"type": "CHAT", "gate_on_balance": True, "key": f"k{number}"} for number in range(4)]

    reply = shop.send(account, *events)

    refused(reply, 402, "insufficient_balance")
    assert [(one["index"], one["key"], one["code"]) for one in reply.details["refused"]] == [
        (2, "k2", "insufficient_balance"),
        (3, "k3", "insufficient_balance"),
    ]
    assert shop.balance(account, "credits")["amount"] == 7
    assert shop.call("GET", f"/v1/accounts/{account}/events").data == []
    assert {one["key"] for one in shop.call("GET", f"/v1/accounts/{account}/gated_events").data} == {"k2", "k3"}
    assert shop.send(account, *events[:2]).data[-1]["balance"]["amount"] == 1


def test_a_dry_run_changes_nothing(shop: Company) -> None:
    account = shop.account(credits=5)
    event = {"type": "CHAT", "gate_on_balance": True, "key": "k", "dry_run": True}
    before = shop.balance(account, "credits")

    once = shop.send(account, **event)
    hold_of = shop.send(account, type="CHAT", state="pending", dry_run=True)
    no = shop.send(account, **{**event, "quantity": 2})
    listed = shop.send(account, {"type": "CHAT", "dry_run": True}, {"type": "CHAT", "dry_run": True})

    assert (once.data["id"], once.data["transaction_id"], once.data["dry_run"]) == (None, None, True)
    assert once.data["cost"]["amount"] == 3
    assert once.data["balance"]["amount"] == 2
    assert (hold_of.data["balance"]["pending"], hold_of.data["balance"]["available"]) == (3, 2)
    refused(no, 402, "insufficient_balance")
    assert [one["balance"]["amount"] for one in listed.data] == [-1, -1]
    assert shop.balance(account, "credits") == before
    for listing in ("events", "gated_events"):
        assert shop.call("GET", f"/v1/accounts/{account}/{listing}").data == []
    assert shop.send(account, **{**event, "dry_run": False}).status == 200


# --- holds ---


def test_a_hold_is_settled_for_less(shop: Company) -> None:
    account = shop.account(credits=10)
    sent = shop.send(account, type="CHAT", quantity=3, state="pending", gate_on_balance=True)

    assert (sent.data["state"], sent.data["cost"]["amount"], sent.data["transaction_id"]) == ("pending", 9, None)
    after = sent.data["balance"]
    assert (after["amount"], after["pending"], after["available"]) == (10, 9, 1)
    assert TIME.fullmatch(sent.data["expires_at"])
    balance = shop.balance(account, "credits")
    assert (balance["amount"], balance["pending"], balance["available"]) == (10, 9, 1)

    done = settle(shop, sent.data["id"], state="complete", quantity=2)
    assert set(done.body) == {"data"}
    assert (done.data["state"], done.data["quantity"], done.data["cost"]["amount"]) == ("complete", 2, 6)
    assert (done.data["balance"]["amount"], done.data["balance"]["pending"]) == (4, 0)
    assert done.data["transaction_id"]
    assert TIME.fullmatch(done.data["finished_at"])
    assert shop.call("GET", f"/v1/events/{sent.data['id']}").data == done.data


@pytest.mark.parametrize(
    ("settlement", "amount", "state"),
    [
        ({"state": "complete"}, 4, "complete"),
        ({"state": "completed"}, 4, "complete"),
        ({"state": "cancelled"}, 10, "cancelled"),
        ({"state": "canceled"}, 10, "cancelled"),
        ({"state": "complete", "quantity": "0.5"}, 9, "complete"),
        ({"state": "complete", "cost_override_amount": 0}, 10, "complete"),
        ({"state": "complete", "cost_override_amount": 6}, 4, "complete"),
    ],
)
def test_how_a_hold_may_end(shop: Company, settlement: dict[str, Any], amount: int, state: str) -> None:
    account = shop.account(credits=10)

    done = settle(shop, hold(shop, account), **settlement)

    assert (done.status, done.data["state"]) == (200, state)
    balance = shop.balance(account, "credits")
    assert (balance["amount"], balance["pending"]) == (amount, 0)


@pytest.mark.parametrize("first", ["complete", "cancelled", "deleted", "never held"])
@pytest.mark.parametrize(
    "body", [{"state": "complete"}, {"state": "nonsense"}, {"x": 1}, {}, {"state": "complete", "quantity": 0}]
)
def test_what_is_finished_is_finished_before_any_field_is_judged(shop: Company, first: str, body: object) -> None:
    account = shop.account(credits=10)
    if first == "never held":
        event_id = shop.send(account, type="CHAT").data["id"]
    else:
        event_id = hold(shop, account)
        if first == "deleted":
            assert shop.call("DELETE", f"/v1/events/{event_id}").status == 200
        else:
            settle(shop, event_id, state=first)
    before = shop.balance(account, "credits")

    reply = shop.call("PUT", f"/v1/events/{event_id}", body)

    refused(reply, 409, "event_finished")
    assert reply.details["state"] == ("complete" if first in {"complete", "never held"} else "cancelled")
    assert shop.balance(account, "credits") == before


def test_an_unknown_event_is_missing_before_any_field_is_judged(shop: Company) -> None:
    for body in ({"state": "complete"}, {"x": 1}):
        refused(shop.call("PUT", "/v1/events/e_000000000000000000", body), 404, "not_found")


def test_taking_back_reverses_the_charge_once(shop: Company) -> None:
    account = shop.account(credits=10)
    event_id = shop.send(account, type="CHAT", quantity=2).data["id"]

    gone = shop.call("DELETE", f"/v1/events/{event_id}")

    assert (gone.data["state"], gone.data["reason"]) == ("cancelled", "deleted")
    assert gone.data["balance"]["amount"] == 10
    assert shop.balance(account, "credits")["amount"] == 10
    moved = shop.call("GET", f"/v1/accounts/{account}/transactions").data
    assert [one["amount"] for one in moved] == [6, -6, 10]
    refused(shop.call("DELETE", f"/v1/events/{event_id}"), 409, "event_finished")
    assert shop.balance(account, "credits")["amount"] == 10


# --- keys ---


def test_an_event_key_replays_byte_by_byte_and_refuses_another_body(shop: Company) -> None:
    account = shop.account(credits=10)
    path = f"/v1/accounts/{account}/events"

    first = shop.call("POST", path, b'{"type":"CHAT","key":"k","metadata":{"a":1,"b":2}}')
    again = shop.call("POST", path, b'{ "metadata": {"b":2, "a":1}, "key":"k", "type":"CHAT", "quantity":1}')
    other = shop.call("POST", path, b'{"type":"CHAT","key":"k","quantity":2}')

    assert (again.status, again.raw, again.is_replay, first.is_replay) == (200, first.raw, True, False)
    refused(other, 422, "key_reused")
    assert shop.balance(account, "credits")["amount"] == 7


def test_known_keys_in_a_list_cut_differently(shop: Company) -> None:
    account = shop.account(credits=100)
    events: list[dict[str, object]] = [{"type": "CHAT", "key": f"k{number}"} for number in range(4)]
    first = shop.send(account, *events[:3])

    again = shop.send(account, *events[1:])
    twice = shop.send(account, {"type": "CHAT", "key": "t"}, {"type": "CHAT", "key": "t"})

    assert again.body["events_submitted"] == 3
    assert again.data[:2] == first.data[1:]
    assert twice.body["events_submitted"] == 2
    assert twice.data[0] == twice.data[1]
    assert shop.balance(account, "credits")["amount"] == 100 - 5 * 3


_ACCOUNT: Final = {"name": "A", "email": "a@example.com"}
_PRICE: Final = {"type": "KEYED", "denomination": "credits", "amount": "1"}
KEYED: Final[tuple[tuple[str, str, object, object], ...]] = (
    ("POST", "/v1/companies/{company}/accounts", _ACCOUNT, {**_ACCOUNT, "name": "B"}),
    ("POST", "/v1/accounts/{account}/balance/new", {"amount": 5}, {"amount": 6}),
    ("POST", "/v1/accounts/{account}/balance/credits/adjust", {"amount": 5}, {"amount": 6}),
    ("POST", "/v1/accounts/{account}/events", {"type": "CHAT"}, {"type": "CHAT", "quantity": 2}),
    ("POST", "/v1/accounts/{account}/events", [{"type": "CHAT"}], [{"type": "CHAT"}, {"type": "CHAT"}]),
    ("POST", "/v1/companies/{company}/event_prices", _PRICE, {**_PRICE, "amount": "2"}),
    ("POST", "/v1/companies/{company}/keys", {"name": "a"}, {"name": "b"}),
    ("POST", "/v1/companies/{company}/clock", {"advance_seconds": 60}, {"advance_seconds": 61}),
    ("PUT", "/v1/accounts/{account}", {"name": "Z"}, {"name": "Y"}),
    ("PUT", "/v1/events/{hold}", {"state": "complete"}, {"state": "cancelled"}),
)


@pytest.mark.parametrize(
    ("method", "path", "body", "other"), KEYED, ids=[f"{k[0]} {k[1]} {type(k[2]).__name__}" for k in KEYED]
)
def test_an_idempotency_key_has_one_effect(shop: Company, method: str, path: str, body: object, other: object) -> None:
    account, key = shop.account(credits=100), f"the key {next(_NUMBERS)}"
    path = path.replace("{account}", account).replace("{hold}", hold(shop, account))

    first = shop.call(method, path, body, {"Idempotency-Key": key})
    again = shop.call(method, path, body, {"X-DedupeId": key})

    assert first.status == 200, first.raw
    assert not first.is_replay
    assert (again.status, again.raw, again.is_replay) == (200, first.raw, True)
    refused(shop.call(method, path, other, {"Idempotency-Key": key}), 422, "key_reused")
    elsewhere = f"/v1/accounts/{account}/balance/other/adjust"
    refused(shop.call("POST", elsewhere, {"amount": 1}, {"Idempotency-Key": key}), 422, "key_reused")


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("events", {"type": "CHAT", "key": "at once"}, {}),
        ("events", {"type": "CHAT"}, {"Idempotency-Key": "events at once"}),
        ("balance/credits/adjust", {"amount": -3}, {"Idempotency-Key": "adjustments at once"}),
    ],
)
def test_one_key_twenty_times_at_once_has_one_effect(
    shop: Company, path: str, body: dict[str, object], headers: dict[str, str]
) -> None:
    account = shop.account(credits=10)

    def send(_: int) -> Reply:
        with Client(shop.client.host, shop.client.port) as line:
            return Company(line, shop.id, shop.key).call("POST", f"/v1/accounts/{account}/{path}", body, headers)

    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(send, range(20)))

    assert {reply.status for reply in replies} <= {200, 409}
    answered = [reply for reply in replies if reply.status == 200]
    assert len({reply.raw for reply in answered}) == 1
    assert [reply.is_replay for reply in answered].count(False) == 1
    assert shop.balance(account, "credits")["amount"] == 7


def test_both_headers_name_the_same_key(shop: Company) -> None:
    account = shop.account(credits=1)
    path = f"/v1/accounts/{account}/balance/credits/adjust"

    first = shop.call("POST", path, {"amount": 1}, {"Idempotency-Key": "both"})
    assert shop.call("POST", path, {"amount": 1}, {"X-DedupeId": "both"}).raw == first.raw
    assert shop.call("POST", path, {"amount": 1}, {"X-DedupeId": "both", "Idempotency-Key": "both"}).is_replay
    assert shop.balance(account, "credits")["amount"] == 2


def test_a_refused_request_leaves_its_key_free_but_a_402_keeps_it(shop: Company) -> None:
    account = shop.account(credits=1)
    path, headers = f"/v1/accounts/{account}/events", {"Idempotency-Key": "freed"}

    assert shop.call("POST", path, {"type": "CHAT", "quantity": 0}, headers).status == 422
    assert shop.call("POST", "/v1/accounts/a_00000000/events", {"type": "CHAT"}, headers).status == 404
    no = shop.call("POST", path, {"type": "CHAT", "gate_on_balance": True}, headers)
    shop.call("POST", f"/v1/accounts/{account}/balance/credits/adjust", {"amount": 100})
    still = shop.call("POST", path, {"type": "CHAT", "gate_on_balance": True}, headers)

    refused(no, 402, "insufficient_balance")
    assert (still.status, still.raw, still.is_replay) == (402, no.raw, True)
    assert len(shop.call("GET", f"/v1/accounts/{account}/gated_events").data) == 1


# --- lists ---


def test_events_are_listed_newest_first_with_filters(company: Company) -> None:
    account, other = company.account(credits=100), company.account()
    company.price("CHAT", "credits", "3")
    now = company.call("GET", "/v1/companies/{company}/clock").data["now"]
    ids = {
        "plain": company.send(account, type="LOGIN").data["id"],
        "billed": company.send(account, type="CHAT", key="b", gate_on_balance=True).data["id"],
        "held": hold(company, account),
        "cancelled": hold(company, account),
        "old": company.send(
            account,
            type="CHAT",
            occurred_at="2026-01-01T00:00:00Z" if now < "2026-01-20" else f"{now[:8]}01T00:00:00Z",
            tag="payout",
        ).data["id"],
    }
    settle(company, ids["cancelled"], state="cancelled")
    company.send(account, type="CHAT", quantity=999, gate_on_balance=True)
    elsewhere = company.send(other, type="LOGIN").data["id"]
    names = {id: name for name, id in ids.items()}
    mine = f"/v1/accounts/{account}/events"

    def listed(query: str, path: str = mine) -> list[str]:
        reply = company.call("GET", f"{path}?{query}")
        assert reply.status == 200, reply.raw
        return [names.get(event["id"], "elsewhere") for event in reply.data]

    assert listed("") == ["old", "cancelled", "held", "billed", "plain"]
    assert listed("", "/v1/companies/{company}/events") == ["elsewhere", "old", "cancelled", "held", "billed", "plain"]
    assert listed(f"account_id={account}", "/v1/companies/{company}/events") == listed("")
    assert listed("type=LOGIN") == ["plain"]
    assert listed("state=pending") == ["held"]
    assert listed("state=cancelled") == ["cancelled"]
    assert listed("state=complete") == ["old", "billed", "plain"]
    assert listed("gated=true") == ["billed"]
    assert listed("gated=false&state=complete") == ["old", "plain"]
    assert listed("key=b") == ["billed"]
    assert listed("tag=payout") == ["old"]
    assert listed("denomination=credits") == ["old", "cancelled", "held", "billed"]
    assert listed(f"to={now.replace(' ', 'T').replace('+', '%2B')}") == ["old"]
    assert listed(f"from={now.replace(' ', 'T')[:-3]}Z") == ["cancelled", "held", "billed", "plain"]
    assert listed(f"account_id={other}&type=CHAT", "/v1/companies/{company}/events") == []
    assert elsewhere not in names
    for path in (mine, "/v1/companies/{company}/events", "/v1/companies/{company}/events?denomination=credits"):
        whole = [event["id"] for event in company.call("GET", path).data]
        assert [event["id"] for page in pages(company, path, 2) for event in page] == whole


def test_transactions_are_listed_newest_first_with_filters(company: Company) -> None:
    account, other = company.account(credits=100, USD=5), company.account(USD=1)
    company.price("CHAT", "credits", "3")
    event = company.send(account, type="CHAT", quantity=2).data
    pair = company.send(account, {"type": "CHAT"}, {"type": "CHAT"}).data
    mine = f"/v1/accounts/{account}/transactions"

    listed = company.call("GET", mine).data
    assert [(one["denomination"], one["seq"], one["amount"], one["ending_balance"]) for one in listed] == [
        ("credits", 3, -6, 88),
        ("credits", 2, -6, 94),
        ("USD", 1, 5, 5),
        ("credits", 1, 100, 100),
    ]
    assert [set(one) for one in listed] == [TRANSACTION_FIELDS] * 4
    assert listed[0]["event_ids"] == [one["id"] for one in pair]
    assert listed[0]["events"] == [{"event_id": one["id"], "type": "CHAT"} for one in pair]
    assert (listed[1]["id"], listed[1]["event_ids"]) == (event["transaction_id"], [event["id"]])
    assert (listed[1]["type"], listed[1]["book"], listed[1]["unit_cost"]) == ("EVENT", "usage", 3)
    assert listed[1]["account"] == {"account_id": account, "name": "Ada"}
    assert [one["seq"] for one in company.call("GET", f"{mine}?denomination=credits").data] == [3, 2, 1]
    assert [one["seq"] for one in company.call("GET", f"{mine}?book=usage").data] == [3, 2]
    assert [one["denomination"] for one in company.call("GET", f"{mine}?type=ADJUSTMENT").data] == ["USD", "credits"]
    assert company.call("GET", f"{mine}?to=2020-01-01T00:00:00Z").data == []
    everybody = "/v1/companies/{company}/transactions"
    whole = company.call("GET", everybody).data
    assert len(whole) == 5
    assert {one["account_id"] for one in whole} == {account, other}
    assert company.call("GET", f"{everybody}?account_id={account}").data == listed
    assert company.call("GET", f"{everybody}?account_id={account}&book=usage&limit=1").data == listed[:1]
    for path in (mine, "/v1/companies/{company}/transactions"):
        every = [one["id"] for one in company.call("GET", path).data]
        assert [one["id"] for page in pages(company, path, 2) for one in page] == every


def test_refused_events_are_listed_with_filters(company: Company) -> None:
    account = company.account(credits=1)
    company.price("CHAT", "credits", "3")
    company.price("DRAW", "credits", "9")
    for number in range(3):
        company.send(account, type="CHAT", gate_on_balance=True, key=f"k{number}")
    company.send(account, type="DRAW", gate_on_balance=True)

    for path in (f"/v1/accounts/{account}/gated_events", "/v1/companies/{company}/gated_events"):
        assert [one["type"] for one in company.call("GET", path).data] == ["DRAW", "CHAT", "CHAT", "CHAT"]
        assert [one["key"] for one in company.call("GET", f"{path}?key=k1").data] == ["k1"]
        assert [one["type"] for one in company.call("GET", f"{path}?type=DRAW").data] == ["DRAW"]
        assert len(company.call("GET", f"{path}?code=insufficient_balance").data) == 4
        assert company.call("GET", f"{path}?code=credit_limit_reached").data == []
        assert [len(page) for page in pages(company, path, 3)] == [3, 1]


def test_a_cursor_is_good_for_its_own_list_only(shop: Company) -> None:
    account, other = shop.account(), shop.account()
    for owner in (account, other):
        for _ in range(3):
            shop.send(owner, type="A")
    mine = f"/v1/accounts/{account}/events"
    cursor = shop.call("GET", f"{mine}?limit=1").body["next_cursor"]

    assert shop.call("GET", f"{mine}?limit=2&cursor={cursor}").status == 200
    for path in (
        f"/v1/accounts/{other}/events?cursor={cursor}",
        f"/v1/companies/{{company}}/events?cursor={cursor}",
        f"/v1/accounts/{account}/transactions?cursor={cursor}",
        f"{mine}?type=A&cursor={cursor}",
        f"{mine}?cursor={cursor}x",
        f"{mine}?cursor=0{cursor}",
        f"{mine}?cursor={cursor.upper()}",
    ):
        refused(shop.call("GET", path), 400, "invalid_cursor")


# --- beside the API ---


def test_health(client: Client) -> None:
    assert client.call("GET", "/healthz").status == 200
    assert client.call("GET", "/readyz").status == 200
    assert b"tenuto" in client.call("GET", "/metrics").raw


@pytest.mark.parametrize("path", ["/docs", "/docs/errors", "/openapi.json"])
def test_the_reference_is_served(client: Client, path: str) -> None:
    reply = client.call("GET", path)

    assert reply.status == 200
    if path == "/docs/errors":
        assert all(f'id="{code}"'.encode() in reply.raw for code in REFUSALS)
