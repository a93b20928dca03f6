"""Prices and subscriptions of an organization: what its people see and do is what its company sees."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest

from tenuto.server import Server
from tests.api.test_payment_faults import sandbox_key
from tests.client import Client, Company, Reply
from tests.members import Members
from tests.simulated import Simulated

NO_SUCH: Final = "price_zzzzzzzzm"


class Organization:
    """An organization with an account, and its company's view of it."""

    def __init__(self, members: Members, name: str = "org-1", country: str = "AU") -> None:
        self.members, self.company, self.name = members, members.company, name
        members.account(name, country)

    def call(self, method: str, path: str, body: object = None, **more: Any) -> Reply:
        return self.members.call(method, f"/v1/account{path}", body, self.name, **more)

    @property
    def id(self) -> str:
        """The account's id, as the company knows it."""
        found = self.company.call("GET", "/v1/companies/{company}/accounts").data
        return str(next(one["id"] for one in found if one["organization_id"] == self.name))

    def prices(self) -> list[Any]:
        reply = self.call("GET", "/prices")
        assert reply.status == 200, reply
        return list(reply.body)

    def subscribe(self, price: str, quantity: int | None = None, **more: object) -> Reply:
        item: dict[str, object] = {"price": price}
        if quantity is not None:
            item["quantity"] = quantity
        return self.call("POST", "/subscriptions", {"items": [item], **more})

    def now(self) -> Any:
        (found,) = self.call("GET", "/subscriptions").body
        return found

    def payments(self) -> list[tuple[str, str, int]]:
        found = self.company.call("GET", f"/v1/accounts/{self.id}/payments").data
        return [(one["reason"], one["status"], one["amount"]) for one in reversed(found)]


def plan(company: Company, **terms: object) -> str:
    """A plan in Australian dollars, 10 a month."""
    return company.plan(**{"renewal_denomination": "AUD", "balances": {"tokens": {"amount": 1000}}, **terms})


def seats(company: Company, **terms: object) -> str:
    """A plan of seats: 10 Australian dollars a month, and 2.50 for each seat."""
    return plan(
        company, **{"name": "Seats", "balances": {"seats": {"amount": 0, "variable_amount_cost": 250}}, **terms}
    )


def price(plan_id: str, letter: str = "m") -> str:
    return f"price_{plan_id.removeprefix('p_')}{letter}"


def to(company: Company, now: str) -> None:
    moved = company.call("POST", "/v1/companies/{company}/clock", {"now": now})
    assert moved.status == 200, moved


@pytest.fixture
def members(service: Server, company: Company) -> Members:
    return Members(service, company)


@pytest.fixture
def organization(members: Members) -> Organization:
    return Organization(members)


@pytest.fixture
def paying(organization: Organization) -> Organization:
    """An organization whose account has a card, at noon of 15 January 2030."""
    organization.company.card(organization.id)
    to(organization.company, "2030-01-15T12:00:00Z")
    return organization


def test_prices_are_the_plans_in_the_currency_of_the_country(organization: Organization) -> None:
    company = organization.company
    company.plan(name="Dollars")
    flat = plan(company, name="Flat", renewals={"MONTHLY": {"amount": 1250}, "YEARLY": {"amount": 12_000}})
    counted = seats(company, setup_fee=500, trial_days=14)
    two = {"variable_amount_cost": 1}
    plan(company, balances={"a": two, "b": two})
    found = {one["id"]: one for one in organization.prices()}
    assert set(found) == {price(flat), price(flat, "y"), price(counted)}
    assert found[price(flat)] == {
        "id": price(flat),
        "plan": flat,
        "nickname": "Flat",
        "type": "recurring",
        "interval": "month",
        "currency": "AUD",
        "currency_symbol": "A$",
        "unit": None,
        "unit_amount": 12.5,
        "unit_amount_minor": 1250,
        "base_amount": 0.0,
        "base_amount_minor": 0,
        "quantity": {"minimum": 1, "maximum": 1},
        "includes": {"tokens": 1000},
        "trial_days": 0,
        "setup_fee": 0.0,
    }
    by_seat = found[price(counted)]
    assert (by_seat["unit"], by_seat["unit_amount"], by_seat["base_amount"]) == ("seats", 2.5, 10.0)
    assert (by_seat["setup_fee"], by_seat["trial_days"], by_seat["quantity"]["minimum"]) == (5.0, 14, 0)
    assert organization.members.call("GET", "/v1/billing/prices").body == organization.prices()


def test_a_subscription_is_the_plan_that_the_company_sees(paying: Organization) -> None:
    plan_id = seats(paying.company)
    assert paying.call("GET", "").body["currency"] == ""
    made = paying.subscribe(price(plan_id), 3)
    assert made.status == 201, made
    found = made.body
    assert (found["status"], found["currency"], found["collection_method"]) == ("active", "AUD", "charge_automatically")
    assert found["current_period_start"].startswith("2030-01-15 12:00")
    assert found["current_period_end"].startswith("2030-02-15 12:00")
    assert [(one["price"]["id"], one["quantity"], one["amount"]) for one in found["items"]] == [
        (price(plan_id), 3, 17.5)
    ]
    assert (found["cancel_at"], found["canceled_at"], found["ended_at"]) == (None, None, None)
    assert paying.payments() == [("plan_start", "succeeded", 1750)]
    assert paying.call("GET", "").body["currency"] == "AUD"
    assert paying.now() == found == paying.call("GET", f"/subscriptions/{found['id']}").body
    theirs = paying.company.call("GET", f"/v1/accounts/{paying.id}").data
    assert (theirs["plan_id"], theirs["plan_status"], theirs["currency"]) == (plan_id, "ACTIVE", "AUD")
    assert paying.company.balance(paying.id, "seats")["amount"] == 3


def test_times_are_in_the_zone_of_the_token(paying: Organization) -> None:
    found = paying.subscribe(price(plan(paying.company))).body
    in_cairo = paying.call("GET", f"/subscriptions/{found['id']}", timezone="Africa/Cairo").body
    assert (found["created_at"][11:13], in_cairo["created_at"][11:13]) == ("12", "14")


def test_it_keeps_its_id_until_it_ends(paying: Organization) -> None:
    first = paying.subscribe(price(plan(paying.company))).body["id"]
    to(paying.company, "2030-03-01T00:00:00Z")
    renewed = paying.now()
    assert (renewed["id"], renewed["status"]) == (first, "active")
    assert renewed["current_period_start"].startswith("2030-02-15 12:00")
    assert paying.call("DELETE", f"/subscriptions/{first}").status == 204
    ended = paying.call("GET", f"/subscriptions/{first}").body
    assert ended["status"] == "canceled"
    assert ended["ended_at"] == ended["canceled_at"] is not None
    again = paying.subscribe(price(plan(paying.company))).body["id"]
    assert again != first
    assert paying.call("GET", f"/subscriptions/{first}").status == 410
    assert paying.payments()[-2:] == [("plan_renewal", "succeeded", 1000), ("plan_start", "succeeded", 1000)]


def test_there_is_one_at_a_time(paying: Organization) -> None:
    plan_id = plan(paying.company)
    assert paying.subscribe(price(plan_id)).status == 201
    refused = paying.subscribe(price(plan_id))
    assert refused.status == 422, refused
    assert set(refused.body) == {"message"}
    assert len(paying.payments()) == 1


def test_two_at_once_begin_one(paying: Organization, service: Server) -> None:
    asked = {"items": [{"price": price(plan(paying.company))}]}
    token = paying.members.token()

    def post(_: int) -> int:
        with Client(*service.address) as client:
            headers = {"authorization": f"Bearer {token}"}
            return client.call("POST", "/v1/account/subscriptions", asked, headers).status

    with ThreadPoolExecutor(4) as pool:
        statuses = sorted(pool.map(post, range(4)))
    assert statuses == [201, 422, 422, 422]
    assert paying.payments() == [("plan_start", "succeeded", 1000)]


def test_a_key_subscribes_once(paying: Organization) -> None:
    plan_id = plan(paying.company)
    asked = {"items": [{"price": price(plan_id)}]}
    key = {"idempotency-key": "one"}
    first = paying.call("POST", "/subscriptions", asked, headers=key)
    again = paying.call("POST", "/subscriptions", asked, headers=key)
    assert (first.status, again.status, again.is_replay) == (201, 201, True)
    assert first.raw == again.raw
    other = paying.call("POST", "/subscriptions", {"items": []}, headers=key)
    assert (other.status, other.body["message"]) == (422, "The key was used before with another body.")
    assert paying.company.call("DELETE", f"/v1/plans/{plan_id}").status == 200
    assert paying.call("POST", "/subscriptions", asked, headers=key).raw == first.raw
    path = f"/subscriptions/{first.body['id']}"
    ended = [paying.call("DELETE", path, headers={"idempotency-key": "two"}) for _ in range(2)]
    assert [(one.status, one.raw, one.is_replay) for one in ended] == [(204, b"", False), (204, b"", True)]


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize("body", [b"{", b'{"items": "\\ud800"}'])
def test_a_key_beside_a_body_that_is_no_json_is_no_fault_of_ours(
    organization: Organization, method: str, body: bytes
) -> None:
    path = "/v1/account/subscriptions" + ("" if method == "POST" else "/sub_x")
    headers = {"idempotency-key": "k", "content-type": "application/json"}
    reply = organization.members.call(method, path, body, headers=headers)
    assert reply.status == 400, reply


def test_a_card_that_is_declined_begins_nothing(organization: Organization) -> None:
    organization.company.card(organization.id, "tok_chargeCustomerFail")
    refused = organization.subscribe(price(plan(organization.company)))
    assert refused.status == 402, refused
    assert refused.body["message"]
    assert refused.body["errors"]["decline_code"] == "generic_decline"
    assert organization.call("GET", "/subscriptions").body == []
    assert organization.call("GET", "").body["currency"] == ""


def test_without_a_card_it_is_refused(organization: Organization) -> None:
    refused = organization.subscribe(price(plan(organization.company)))
    assert refused.status == 402, refused
    assert organization.payments() == []


def test_a_trial_needs_no_card_and_is_charged_when_it_ends(paying: Organization) -> None:
    plan_id = plan(paying.company, trial_days=14, setup_fee=300)
    found = paying.subscribe(price(plan_id)).body
    assert found["status"] == "trialing"
    assert found["trial_end"] == found["current_period_end"]
    assert found["trial_end"].startswith("2030-01-29")
    assert paying.payments() == []
    to(paying.company, "2030-01-30T00:00:00Z")
    assert (paying.now()["status"], paying.now()["trial_end"]) == ("active", None)
    assert paying.payments() == [("plan_renewal", "succeeded", 1300)]


def test_a_renewal_that_is_declined_is_past_due_and_then_unpaid(paying: Organization) -> None:
    found = paying.subscribe(price(plan(paying.company))).body
    paying.company.card(paying.id, "tok_chargeCustomerFail")
    to(paying.company, "2030-02-15T13:00:00Z")
    assert paying.now()["status"] == "past_due"
    to(paying.company, "2030-04-15T13:00:00Z")
    assert (paying.now()["status"], paying.now()["id"]) == ("unpaid", found["id"])
    paying.company.card(paying.id)
    to(paying.company, "2030-04-15T14:00:00Z")
    assert (paying.now()["status"], paying.now()["id"]) == ("active", found["id"])


def test_it_ends_with_its_period_and_may_go_on(paying: Organization) -> None:
    path = f"/subscriptions/{paying.subscribe(price(plan(paying.company))).body['id']}"
    assert paying.call("DELETE", f"{path}?at_period_end=true").status == 204
    ending = paying.now()
    assert (ending["status"], ending["cancel_at_period_end"]) == ("active", True)
    assert ending["cancel_at"] == ending["current_period_end"]
    assert ending["canceled_at"].startswith("2030-01-15 12:")
    going_on = paying.call("PATCH", path, {"cancel_at_period_end": False})
    assert (going_on.status, going_on.body["cancel_at_period_end"], going_on.body["canceled_at"]) == (200, False, None)
    assert paying.call("DELETE", path, {"at_period_end": True}).status == 204
    assert paying.call("PATCH", path, {"cancel_at_period_end": True}).body["cancel_at_period_end"] is True
    to(paying.company, "2030-02-16T00:00:00Z")
    assert paying.now()["status"] == "canceled"
    assert paying.now()["ended_at"].startswith("2030-02-15 12:")
    assert paying.call("DELETE", path).status == 422
    assert paying.payments() == [("plan_start", "succeeded", 1000)]


def test_one_that_is_to_end_with_its_first_period(paying: Organization) -> None:
    made = paying.subscribe(price(plan(paying.company)), cancel_at_period_end=True).body
    assert (made["status"], made["cancel_at_period_end"]) == ("active", True)
    to(paying.company, "2030-02-16T00:00:00Z")
    assert paying.now()["status"] == "canceled"


def test_a_quantity_changes_as_the_company_changes_plans(paying: Organization) -> None:
    plan_id = seats(paying.company)
    path = f"/subscriptions/{paying.subscribe(price(plan_id), 2).body['id']}"
    later = paying.call("PATCH", path, {"items": [{"quantity": 5}]})
    assert later.status == 200, later
    assert (later.body["items"][0]["quantity"], later.body["pending_update"]["items"][0]["quantity"]) == (2, 5)
    assert later.body["pending_update"]["at"] == later.body["current_period_end"]
    scheme = paying.company.call("PUT", "/v1/companies/{company}", {"plans": {"scheme": "snow_white"}})
    assert scheme.status == 200, scheme
    now = paying.call("PATCH", path, {"items": [{"price": price(plan_id), "quantity": 6}]})
    assert (now.body["items"][0]["quantity"], now.body["items"][0]["amount"], now.body["pending_update"]) == (
        *(6, 25.0),
        None,
    )
    assert paying.payments()[-1] == ("plan_change", "succeeded", 1000)


def test_a_change_that_is_declined_changes_nothing(paying: Organization) -> None:
    assert paying.company.call("PUT", "/v1/companies/{company}", {"plans": {"scheme": "ariel"}}).status == 200
    path = f"/subscriptions/{paying.subscribe(price(plan(paying.company))).body['id']}"
    before = paying.now()
    paying.company.card(paying.id, "tok_chargeCustomerFail")
    dear = plan(paying.company, renewals={"MONTHLY": {"amount": 9900}})
    refused = paying.call("PATCH", path, {"items": [{"price": price(dear)}]})
    assert refused.status == 402, refused
    assert paying.now() == before


def test_by_invoice_no_card_is_needed(organization: Organization) -> None:
    plan_id = plan(organization.company)
    made = organization.subscribe(price(plan_id), collection_method="send_invoice")
    assert made.status == 201, made
    assert (made.body["status"], made.body["collection_method"]) == ("active", "send_invoice")
    terms = organization.company.call("GET", f"/v1/accounts/{organization.id}/invoicing").data
    assert [(one["currency"], one["collection"]) for one in terms] == [("AUD", "send_invoice")]
    path = f"/subscriptions/{made.body['id']}"
    by_card = organization.call("PATCH", path, {"collection_method": "charge_automatically"}).body
    assert by_card["collection_method"] == "charge_automatically"
    assert organization.payments() == []


def test_what_the_company_agreed_on_invoices_stays(organization: Organization) -> None:
    agreed = {"currency": "AUD", "terms_days": 5, "memo": "PO 7", "collection": "charge_automatically"}
    path = f"/v1/accounts/{organization.id}/invoicing"
    assert organization.company.call("PUT", path, agreed).status == 200
    made = organization.subscribe(price(plan(organization.company)), collection_method="send_invoice").body
    (terms,) = organization.company.call("GET", path).data
    assert (made["collection_method"], terms["terms_days"], terms["memo"]) == ("send_invoice", 5, "PO 7")


def test_agreed_terms_are_the_prices(paying: Organization) -> None:
    plan_id = plan(paying.company)
    paying.subscribe(price(plan_id))
    agreed = {"renewals": {"MONTHLY": {"amount": 900}}}
    assert paying.company.call("PUT", f"/v1/accounts/{paying.id}/plan/overrides", agreed).status == 200
    assert [(one["id"], one["unit_amount"]) for one in paying.prices()] == [(price(plan_id), 9.0)]
    assert paying.now()["items"][0]["amount"] == 9.0


def test_the_currency_is_fixed_with_the_first(paying: Organization) -> None:
    path = f"/subscriptions/{paying.subscribe(price(plan(paying.company))).body['id']}"
    assert paying.call("DELETE", path).status == 204
    assert paying.call("PATCH", "", {"address": {"country": "DE"}}).body["currency"] == "AUD"
    euros = paying.company.plan(renewal_denomination="EUR")
    refused = paying.subscribe(price(euros))
    assert (refused.status, refused.body["errors"]) == (
        422,
        {"items.0.price": ["The items.0.price field must be a price in AUD."]},
    )
    assert {one["currency"] for one in paying.prices()} == {"AUD"}


def test_a_plan_that_the_company_puts_an_account_on_fixes_it_too(members: Members) -> None:
    organization = Organization(members, country="GB")
    organization.company.card(organization.id)
    organization.company.start(organization.id, organization.company.plan(renewal_denomination="USD"))
    assert organization.call("GET", "").body["currency"] == "USD"
    assert (organization.now()["status"], organization.now()["currency"]) == ("active", "USD")


def test_pauses_of_the_company_are_seen(paying: Organization) -> None:
    path = f"/subscriptions/{paying.subscribe(price(plan(paying.company))).body['id']}"
    assert paying.company.call("POST", f"/v1/accounts/{paying.id}/pauseplan").status == 200
    assert paying.call("GET", path).body["status"] == "paused"
    refused = paying.call("PATCH", path, {"items": [{"quantity": 2}]})
    assert refused.status == 422, refused


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({}, {"items": ["The items field is required."]}),
        ({"items": []}, {"items": ["The items field must contain 1 item."]}),
        ({"items": "Pro"}, {"items": ["The items field must be an array of objects."]}),
        ({"items": [7]}, {"items": ["The items field must be an array of objects."]}),
        ({"items": [{}, {}]}, {"items": ["The items field must contain 1 item."]}),
        ({"items": [{}]}, {"items.0.price": ["The items.0.price field is required."]}),
        ({"items": [{"price": NO_SUCH}]}, {"items.0.price": ["The selected items.0.price is invalid."]}),
        ({"items": [{"price": 7}]}, {"items.0.price": ["The selected items.0.price is invalid."]}),
    ],
)
def test_what_is_wrong_is_said_by_field(organization: Organization, body: object, errors: object) -> None:
    refused = organization.call("POST", "/subscriptions", body)
    assert (refused.status, refused.body["errors"]) == (422, errors)


def test_all_that_is_wrong_is_said_at_once(organization: Organization) -> None:
    item = {"price": price(plan(organization.company)), "quantity": 2}
    body = {"items": [item], "collection_method": "barter", "cancel_at_period_end": "yes"}
    refused = organization.call("POST", "/subscriptions", body)
    assert refused.status == 422, refused
    assert refused.body["message"] == "The selected collection method is invalid. (and 2 more errors)"
    assert set(refused.body["errors"]) == {"collection_method", "cancel_at_period_end", "items.0.quantity"}
    for quantity in ("2", True, -1, 1.5):
        wrong = {"items": [{**item, "quantity": quantity}]}
        assert organization.call("POST", "/subscriptions", wrong).status == 422
    assert organization.call("GET", "/subscriptions").body == []


def test_more_than_can_be_charged_is_refused(paying: Organization) -> None:
    plan_id = seats(paying.company)
    path = f"/subscriptions/{paying.subscribe(price(plan_id), 1).body['id']}"
    (most,) = {one["quantity"]["maximum"] for one in paying.prices()}
    for quantity in (most, most + 1, 10**30):
        refused = paying.call("PATCH", path, {"items": [{"quantity": quantity}]})
        assert refused.status == 422, refused
    assert paying.now()["pending_update"] is None
    huge = {"plan_id": plan_id, "plan_variable_amounts": {"seats": most}}
    assert paying.company.call("POST", f"/v1/accounts/{paying.id}/changeplan", huge).status == 200
    assert paying.now()["pending_update"]["items"][0]["quantity"] == most


def test_a_plan_bought_once_has_no_end(paying: Organization) -> None:
    plan_id = plan(paying.company, renewals={"ONE_OFF": {"amount": 5000}})
    (sold,) = paying.prices()
    assert (sold["id"], sold["type"], sold["interval"]) == (price(plan_id, "o"), "one_time", None)
    made = paying.subscribe(sold["id"]).body
    assert (made["status"], made["current_period_end"]) == ("active", None)
    assert paying.call("GET", f"/invoices/{made['id']}").status == 410


def test_a_plan_that_counts_two_things_is_shown_as_one_item(paying: Organization) -> None:
    counted = {"amount": 0, "variable_amount_cost": 100}
    plan_id = plan(paying.company, balances={"a": counted, "b": counted})
    assert paying.prices() == []
    assert paying.subscribe(price(plan_id)).status == 422
    paying.company.start(paying.id, plan_id, plan_variable_amounts={"a": 2, "b": 3})
    (item,) = paying.now()["items"]
    assert (item["quantity"], item["amount"], item["price"]["unit_amount"]) == (1, 15.0, 15.0)
    assert item["price"]["includes"] == {"a": 2, "b": 3}


def test_a_plan_in_tokens_is_shown_in_tokens(paying: Organization) -> None:
    ask = paying.company.call("POST", f"/v1/accounts/{paying.id}/balance/credits", {"amount": 500})
    assert ask.status == 200, ask
    terms = {"renewal_denomination": "credits", "renewals": {"MONTHLY": {"amount": 70}}}
    paying.company.start(paying.id, paying.company.plan(**terms))
    assert (paying.now()["currency"], paying.now()["items"][0]["amount"]) == ("credits", 70.0)
    coming = paying.call("GET", f"/invoices/{paying.now()['id']}").body
    assert (coming["currency"], coming["amount_due"]) == ("credits", 70.0)
    assert paying.call("GET", "").body["currency"] == ""


def test_what_is_archived_or_not_sold_by_a_cadence_is_not_sold(paying: Organization) -> None:
    plan_id = plan(paying.company)
    assert paying.subscribe(price(plan_id, "y")).status == 422
    assert paying.company.call("DELETE", f"/v1/plans/{plan_id}").status == 200
    assert paying.subscribe(price(plan_id)).status == 422
    assert paying.prices() == []


def test_nothing_of_another_organization_is_there(paying: Organization) -> None:
    made = paying.subscribe(price(plan(paying.company))).body["id"]
    other = Organization(paying.members, "org-2")
    assert other.call("GET", "/subscriptions").body == []
    for method, body in (("GET", None), ("PATCH", {"cancel_at_period_end": True}), ("DELETE", None)):
        refused = other.call(method, f"/subscriptions/{made}", body)
        assert (refused.status, set(refused.body)) == (410, {"message"})
    assert other.call("GET", "/subscriptions/sub_1").status == 410
    assert paying.now()["cancel_at_period_end"] is False


def test_without_an_account_there_is_nothing_to_subscribe_with(members: Members) -> None:
    for method, path, body in (
        ("GET", "/v1/account/prices", None),
        ("GET", "/v1/account/subscriptions", None),
        ("POST", "/v1/account/subscriptions", {}),
        ("GET", "/v1/account/subscriptions/sub_1", None),
        ("PATCH", "/v1/account/subscriptions/sub_1", {}),
        ("DELETE", "/v1/billing/subscriptions/sub_1", None),
    ):
        refused = members.call(method, path, body)
        assert (refused.status, set(refused.body)) == (422, {"message", "documentation_url"}), path


def test_who_may_read_may_not_subscribe(paying: Organization) -> None:
    read = ("account:read",)
    assert paying.call("GET", "/prices", scopes=read).status == 200
    assert paying.call("POST", "/subscriptions", {}, scopes=read).status == 403


def test_the_successor_spells_it_otherwise(paying: Organization) -> None:
    plan_id = plan(paying.company, code="pro")
    made = paying.members.call("POST", "/v1/billing/subscriptions", {"items": [{"price": price(plan_id)}]})
    assert made.status == 201, made
    assert paying.members.call("GET", "/v1/billing/subscriptions").body == [paying.now()] == [made.body]
    assert paying.call("DELETE", "/subscriptions/pro").status == 410
    assert paying.members.call("DELETE", "/v1/billing/subscriptions/basic").status == 410
    assert paying.members.call("DELETE", "/v1/billing/subscriptions/pro?at_period_end=1").status == 204
    assert paying.members.call("DELETE", f"/v1/billing/subscriptions/{plan_id}").status == 204
    assert paying.now()["status"] == "canceled"


def test_what_the_bank_has_not_said_yet_is_incomplete(paying: Organization, stripe: Simulated) -> None:
    plan_id = plan(paying.company)
    key = {"idempotency-key": "slow"}
    asked = {"items": [{"price": price(plan_id)}]}
    stripe.fault("timeout_before_effect", key=sandbox_key(paying.company), times=50)
    try:
        made = paying.call("POST", "/subscriptions", asked, headers=key)
        path = f"/subscriptions/{made.body['id']}"
        assert (made.status, made.body["status"], made.body["current_period_start"]) == (202, "incomplete", None)
        assert paying.now() == paying.call("GET", path).body == made.body
        assert paying.call("GET", "").body["currency"] == ""
        assert paying.call("GET", f"/invoices/{made.body['id']}").status == 410
        assert paying.subscribe(price(plan_id)).status == 422
        assert paying.call("PATCH", path, {"cancel_at_period_end": True}).status == 422
        assert paying.call("DELETE", path).status == 422
    finally:
        stripe.heal()
    to(paying.company, "2030-01-15T18:00:00Z")
    assert paying.call("GET", path).body["status"] == "active"
    again = paying.call("POST", "/subscriptions", asked, headers=key)
    assert (again.status, again.body["id"]) == (201, made.body["id"])
    assert paying.payments() == [("plan_start", "succeeded", 1000)]


def test_what_is_not_paid_in_money_is_not_invoiced(organization: Organization) -> None:
    company = organization.company
    plan_id = company.plan(name="Credits", renewal_denomination="credits", renewals={"MONTHLY": {"amount": 100}})
    assert company.call("POST", f"/v1/accounts/{organization.id}/balance/credits", {"amount": 100}).status == 200
    started = company.call("POST", f"/v1/accounts/{organization.id}/changeplan", {"plan_id": plan_id})
    assert started.status == 200, started
    path = f"/subscriptions/{organization.now()['id']}"
    refused = organization.call("PATCH", path, {"collection_method": "send_invoice"})
    assert (refused.status, list(refused.body["errors"])) == (422, ["collection_method"])
    assert company.call("GET", f"/v1/accounts/{organization.id}/invoicing").data == []


def test_an_account_that_is_linked_has_the_currency_of_the_plan_it_is_on(members: Members) -> None:
    company = members.company
    plan_id = company.plan(
        name="Yen",
        renewal_denomination="JPY",
        renewals={"MONTHLY": {"amount": 1000}},
        balances={"seats": {"amount": 0, "variable_amount_cost": 100}},
    )
    company.plan(name="Dollars")
    account_id = company.account()
    company.card(account_id)
    started = company.call(
        "POST", f"/v1/accounts/{account_id}/changeplan", {"plan_id": plan_id, "plan_variable_amounts": {"seats": 2}}
    )
    assert started.status == 200, started
    linked = company.call("PUT", "/v1/companies/{company}/organizations/lk", {"account_id": account_id})
    assert linked.status == 200, linked
    assert members.call("GET", "/v1/account", None, "lk").body["currency"] == "JPY"
    (shown,) = members.call("GET", "/v1/account/prices", None, "lk").body
    assert shown["id"] == price(plan_id)
    (running,) = members.call("GET", "/v1/account/subscriptions", None, "lk").body
    more = {"items": [{"price": shown["id"], "quantity": 4}]}
    changed = members.call("PATCH", f"/v1/account/subscriptions/{running['id']}", more, "lk")
    assert changed.status in {200, 202}, changed
