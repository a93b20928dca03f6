"""Payment methods of an organization by its people's tokens: the very cards the company sees (contract 5.5)."""

from __future__ import annotations

import re
import secrets
from typing import Any, Final

import pytest

from tenuto.server import Server
from tests.client import Client, Company, Reply
from tests.members import Members
from tests.simulated import Simulated

METHODS: Final = "/v1/account/payment-methods"
SETUP: Final = "/v1/account/setup-intent"
METHOD_FIELDS: Final = {"id", "brand", "last4", "exp_month", "exp_year", "name", "default", "created_at"}


@pytest.fixture
def members(service: Server, company: Company) -> Members:
    return Members(service, company)


def sandbox(company: Company) -> str:
    """The key under which the simulator keeps the company's book."""
    return f"sk_test_sandbox{company.id[2:]}"


def asked(stripe: Simulated, company: Company, path: str, form: str = "") -> Any:
    """What somebody with the company's secret key is answered by the provider; a browser does this by a script."""
    with Client(stripe.host, stripe.port) as client:
        headers = {
            "authorization": f"Bearer {sandbox(company)}",
            "content-type": "application/x-www-form-urlencoded",
        }
        reply = client.call("POST", f"/v1/{path}", form.encode(), headers)
    assert reply.status == 200, reply.raw[:500]
    return reply.body


def confirmed(stripe: Simulated, members: Members, organization: str = "org-1", name: str = "") -> str:
    """The id of a payment method that a browser has confirmed for an organization's SetupIntent."""
    setup = members.call("POST", SETUP, organization=organization)
    assert setup.status == 201, setup
    form = f"type=card&card[token]=tok_visa&billing_details[name]={name}" if name else "type=card&card[token]=tok_visa"
    method = asked(stripe, members.company, "payment_methods", form)["id"]
    done = asked(stripe, members.company, f"setup_intents/{setup.body['id']}/confirm", f"payment_method={method}")
    assert done["status"] == "succeeded"
    return str(method)


def kept(members: Members, method: str, organization: str = "org-1") -> Any:
    reply = members.call("POST", METHODS, {"id": method}, organization)
    assert reply.status == 201, reply.raw[:500]
    return reply.body


def listed(members: Members, organization: str = "org-1") -> list[tuple[str, bool]]:
    reply = members.call("GET", METHODS, organization=organization)
    assert reply.status == 200
    return [(one["id"], one["default"]) for one in reply.body]


def refused(reply: Reply, status: int, part: str) -> None:
    assert reply.status == status, reply.raw[:500]
    assert part in reply.body["message"]


def account_of(members: Members) -> str:
    """The account that the company's engineers see behind the organization."""
    accounts = members.company.call("GET", "/v1/companies/{company}/accounts").data
    assert len(accounts) == 1
    return str(accounts[0]["id"])


# --- setup intents ----------------------------------------------------------------------------------------------------


def test_a_setup_intent_has_what_a_browser_needs(members: Members, stripe: Simulated, company: Company) -> None:
    members.account()

    reply = members.call("POST", SETUP)

    assert reply.status == 201
    assert set(reply.body) == {"id", "publishable_key", "client_secret", "status", "created_at"}
    assert reply.body["id"].startswith("seti_")
    assert reply.body["client_secret"].startswith(f"{reply.body['id']}_secret_")
    assert reply.body["publishable_key"].startswith("pk_test_")
    assert reply.body["status"] == "requires_payment_method"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", reply.body["created_at"])
    held = stripe.book(sandbox(company))
    assert [one["customer"] for one in held["setup_intents"]] == [held["customers"][0]["id"]]


def test_the_companys_own_publishable_key_is_told(members: Members, company: Company) -> None:
    members.account()
    key = f"pk_test_{secrets.token_hex(12)}"
    assert company.call("PUT", "/v1/companies/{company}", {"stripe_publishable_key": key}).status == 200

    assert members.call("POST", SETUP).body["publishable_key"] == key


def test_the_same_key_is_the_same_setup_intent_as_it_is_by_then(
    members: Members, stripe: Simulated, company: Company
) -> None:
    members.account()
    first = members.call("POST", SETUP, headers={"idempotency-key": "once"})
    method = asked(stripe, company, "payment_methods", "type=card&card[token]=tok_visa")["id"]
    asked(stripe, company, f"setup_intents/{first.body['id']}/confirm", f"payment_method={method}")

    again = members.call("POST", SETUP, headers={"idempotency-key": "once"})

    assert again.is_replay
    assert again.body == {**first.body, "status": "succeeded"}
    assert len(stripe.book(sandbox(company))["setup_intents"]) == 1


@pytest.mark.parametrize("kind", ["timeout_before_effect", "timeout_after_effect", "500_after_effect"])
def test_an_outage_is_told_and_the_same_key_goes_on(
    members: Members, stripe: Simulated, company: Company, kind: str
) -> None:
    members.account()
    seconds = {"seconds": 0.05} if kind.startswith("timeout") else {}
    stripe.fault(kind, key=sandbox(company), route="setup_intents.create", **seconds)

    assert members.call("POST", SETUP, headers={"idempotency-key": "once"}).status == 503

    stripe.heal()
    made = members.call("POST", SETUP, headers={"idempotency-key": "once"})
    assert made.status == 201
    assert members.call("POST", SETUP, headers={"idempotency-key": "once"}).body == made.body
    assert made.body["id"] in {one["id"] for one in stripe.book(sandbox(company))["setup_intents"]}


# --- methods ----------------------------------------------------------------------------------------------------------


def test_a_confirmed_method_becomes_the_default_and_the_company_sees_it(
    members: Members, stripe: Simulated, company: Company
) -> None:
    members.account()
    method = confirmed(stripe, members, name="Hannes")

    made = kept(members, method)

    assert set(made) == METHOD_FIELDS
    assert (made["id"], made["brand"], made["last4"], made["name"]) == (method, "visa", "4242", "Hannes")
    assert members.call("GET", METHODS).body == [made]
    seen = company.call("GET", f"/v1/accounts/{account_of(members)}/cards").data
    assert [(card["last4"], card["default"]) for card in seen] == [("4242", True)]


def test_a_card_that_the_company_gave_is_a_payment_method(members: Members, company: Company) -> None:
    members.account()
    company.card(account_of(members), "tok_mastercard")

    found = members.call("GET", METHODS).body

    assert [(one["brand"], one["name"], one["default"]) for one in found] == [("mastercard", "", True)]
    assert found[0]["id"].startswith("pm_")


def test_an_older_method_is_made_the_default_again_without_asking_anybody(
    members: Members, stripe: Simulated, company: Company
) -> None:
    members.account()
    first = kept(members, confirmed(stripe, members))["id"]
    second = kept(members, confirmed(stripe, members))["id"]
    assert listed(members) == [(second, True), (first, False)]
    calls = stripe.rate(sandbox(company))["total"]

    kept(members, first)

    assert listed(members) == [(first, True), (second, False)]
    assert stripe.rate(sandbox(company))["total"] == calls


def test_a_method_of_another_organization_cannot_be_used(members: Members, stripe: Simulated) -> None:
    members.account()
    members.account("org-2")
    theirs = confirmed(stripe, members, "org-2")
    confirmed(stripe, members)  # so that ours is a customer too

    refused(members.call("POST", METHODS, {"id": theirs}), 422, "no payment method")

    assert listed(members) == []
    kept(members, theirs, "org-2")
    refused(members.call("POST", METHODS, {"id": theirs}), 422, "no payment method")
    assert members.call("DELETE", f"{METHODS}/{theirs}").status == 410
    assert listed(members, "org-2") == [(theirs, True)]


def test_a_method_that_was_never_confirmed_cannot_be_used(
    members: Members, stripe: Simulated, company: Company
) -> None:
    members.account()
    loose = asked(stripe, company, "payment_methods", "type=card&card[token]=tok_visa")["id"]

    for method in (loose, "pm_nobody", f"seti_{secrets.token_hex(12)}"):
        reply = members.call("POST", METHODS, {"id": method})
        refused(reply, 422, "no payment method")
        assert set(reply.body["errors"]) == {"id"}
    confirmed(stripe, members)
    for method in (loose, "pm_nobody"):
        refused(members.call("POST", METHODS, {"id": method}), 422, "no payment method")
    assert listed(members) == []


def test_in_test_mode_a_test_method_is_taken_as_confirmed(members: Members) -> None:
    members.account()

    assert kept(members, "pm_card_visa")["last4"] == "4242"
    refused(members.call("POST", METHODS, {"id": "pm_card_chargeDeclined"}), 402, "declined")
    assert len(listed(members)) == 1


def test_the_same_key_is_one_method(members: Members) -> None:
    members.account()
    keyed = {"idempotency-key": "once"}

    first = members.call("POST", METHODS, {"id": "pm_card_visa"}, headers=keyed)
    again = members.call("POST", METHODS, {"id": "pm_card_visa"}, headers=keyed)

    assert (first.status, again.status, again.is_replay) == (201, 201, True)
    assert first.raw == again.raw
    assert len(listed(members)) == 1
    other = members.call("POST", METHODS, {"id": "pm_card_mastercard"}, headers=keyed)
    refused(other, 422, "used before")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "The id field is required."),
        ({"id": None}, "The id field is required."),
        ({"id": ""}, "The id field is required."),
        ({"id": 5}, "The id field must be a string."),
        ({"id": ["pm_1"]}, "The id field must be a string."),
        ({"id": "pm_" + "a" * 253}, "The id field must not be greater than 255 characters."),
        ({"id": "../customers/cus_1"}, "The id field must be the id of a payment method."),
        ({"id": "pm_1?x"}, "The id field must be the id of a payment method."),
    ],
)
def test_what_is_no_id_is_told(members: Members, body: object, message: str) -> None:
    members.account()

    reply = members.call("POST", METHODS, body)

    assert (reply.status, reply.body) == (422, {"message": message, "errors": {"id": [message]}})


# --- removal ----------------------------------------------------------------------------------------------------------


def test_the_only_method_stays(members: Members) -> None:
    members.account()
    method = kept(members, "pm_card_visa")["id"]

    refused(members.call("DELETE", f"{METHODS}/{method}"), 422, "only payment method")

    assert listed(members) == [(method, True)]


def test_a_spare_method_goes_here_and_at_the_provider(members: Members, stripe: Simulated, company: Company) -> None:
    members.account()
    first = kept(members, "pm_card_visa")["id"]
    second = kept(members, "pm_card_mastercard")["id"]

    gone = members.call("DELETE", f"{METHODS}/{second}", headers={"idempotency-key": "gone"})

    assert (gone.status, gone.raw) == (204, b"")
    assert listed(members) == [(first, True)]
    held = {one["id"]: one["customer"] for one in stripe.book(sandbox(company))["payment_methods"]}
    assert held[second] is None
    assert held[first] is not None
    again = members.call("DELETE", f"{METHODS}/{second}", headers={"idempotency-key": "gone"})
    assert (again.status, again.is_replay) == (204, True)
    assert members.call("DELETE", f"{METHODS}/{second}").status == 410


def test_the_default_stays_while_a_subscription_runs(members: Members, company: Company) -> None:
    members.account()
    spare = kept(members, "pm_card_visa")["id"]
    default = kept(members, "pm_card_mastercard")["id"]
    company.start(account_of(members), company.plan())

    refused(members.call("DELETE", f"{METHODS}/{default}"), 422, "subscription is active")

    assert members.call("DELETE", f"{METHODS}/{spare}").status == 204
    assert listed(members) == [(default, True)]


def test_a_removal_that_the_provider_did_not_hear_goes_on_with_its_key(
    members: Members, stripe: Simulated, company: Company
) -> None:
    members.account()
    kept(members, "pm_card_visa")
    second = kept(members, "pm_card_mastercard")["id"]
    stripe.fault("500_before", key=sandbox(company), route="payment_methods.detach")
    keyed = {"idempotency-key": "gone"}

    assert members.call("DELETE", f"{METHODS}/{second}", headers=keyed).status == 503

    stripe.heal()
    assert members.call("DELETE", f"{METHODS}/{second}", headers=keyed).status == 204
    assert {one["id"]: one["customer"] for one in stripe.book(sandbox(company))["payment_methods"]}[second] is None


@pytest.mark.parametrize("method", ["pm_nobody", "nothing", "pm_%00", "pm_%2e%2e"])
def test_an_unknown_method_is_gone(members: Members, method: str) -> None:
    members.account()

    assert members.call("DELETE", f"{METHODS}/{method}").status == 410


# --- who may, and by which names --------------------------------------------------------------------------------------


def test_without_an_account_there_is_nothing_to_pay_with(members: Members) -> None:
    for method, path in (("POST", SETUP), ("POST", METHODS), ("GET", METHODS), ("DELETE", f"{METHODS}/pm_1")):
        reply = members.call(method, path, {"id": "pm_card_visa"} if method == "POST" else None)
        refused(reply, 422, "create an account first")


def test_reading_needs_one_scope_and_changing_the_other(members: Members) -> None:
    members.account()
    for method, path in (("POST", SETUP), ("POST", METHODS), ("DELETE", f"{METHODS}/pm_1")):
        assert members.call(method, path, {"id": "pm_card_visa"}, scopes=["account:read"]).status == 403
    assert members.call("GET", METHODS, scopes=["account:write"]).status == 403
    assert members.call("GET", METHODS, scopes=["account:read"]).status == 200


def test_the_other_names_are_the_same_things(members: Members) -> None:
    members.account()
    assert members.call("POST", "/v1/billing/setup-intent").status == 201
    first, second, third = (
        members.call("POST", path, {"id": "pm_card_visa"}).body["id"]
        for path in ("/v1/account/payment-method", "/v1/billing/payment-methods", "/v1/billing/payment-method")
    )
    assert members.call("DELETE", f"/v1/account/payment-method/{first}").status == 204
    assert members.call("DELETE", f"/v1/billing/payment-methods/{second}").status == 204
    for path in ("/v1/account/payment-method", "/v1/billing/payment-methods"):
        assert [one["id"] for one in members.call("GET", path).body] == [third]


def test_where_no_provider_is_set_up_people_are_told_so(service: Server, company: Company) -> None:
    issued = company.call("POST", "/v1/companies/{company}/keys", {"name": "live", "mode": "live"})
    assert issued.status == 200, issued
    people = Members(service, company, mode="live")
    people.account()

    for path, body in ((SETUP, None), (METHODS, {"id": "pm_card_visa"})):
        refused(people.call("POST", path, body), 503, "ask whoever runs the service")
    assert people.call("GET", METHODS).body == []


# --- another provider -------------------------------------------------------------------------------------------------


def test_a_customer_made_without_a_card_is_not_taken_to_another_provider(members: Members, company: Company) -> None:
    members.account()
    accounts = "/v1/companies/{company}/accounts"
    body = {"name": "Own", "email": "own@example.com", "stripe_id": "cus_own"}
    named = company.call("POST", accounts, body).data["id"]
    assert members.call("POST", SETUP).status == 201
    (made,) = (one for one in company.call("GET", accounts).data if one["id"] != named)
    assert made["stripe_id"].startswith("cus_")
    company.own_stripe()
    after = {one["id"]: one["stripe_id"] for one in company.call("GET", accounts).data}
    assert after == {made["id"]: None, named: "cus_own"}
