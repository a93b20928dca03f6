"""Tax numbers of an organization by its people's tokens (contract 5.6)."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest

from tenuto.core.organization import TAX_TYPES
from tenuto.server import Server
from tests.client import Client, Company, Reply
from tests.members import Members
from tests.simulated import Simulated

TAX: Final = "/v1/account/tax"
TYPES: Final = f"{TAX}/types"


@pytest.fixture
def members(service: Server, company: Company) -> Members:
    return Members(service, company)


def given(members: Members, value: str = "DE123456789", type: str = "eu_vat", organization: str = "org-1") -> Any:
    reply = members.call("POST", TAX, {"type": type, "value": value}, organization)
    assert reply.status == 201, reply.raw[:500]
    return reply.body


def listed(members: Members, organization: str = "org-1") -> list[Any]:
    reply = members.call("GET", TAX, organization=organization)
    assert reply.status == 200
    return list(reply.body)


def refused(reply: Reply, status: int, part: str) -> None:
    assert reply.status == status, reply.raw[:500]
    assert part in reply.body["message"]


def verified(members: Members, seconds: float = 15) -> list[str]:
    """The statuses of an organization's numbers, once none is pending."""
    give_up_at = time.monotonic() + seconds
    while "pending" in (found := [one["verification"]["status"] for one in listed(members)]):
        assert time.monotonic() < give_up_at, "no register has answered"
        time.sleep(0.1)
    return found


def test_everybody_with_a_token_may_see_the_kinds(members: Members) -> None:
    reply = members.call("GET", TYPES, scopes=[])

    assert reply.status == 200
    kinds = {one["type"]: one for one in reply.body}
    assert tuple(kinds) == TAX_TYPES
    assert kinds["za_vat"] == {"type": "za_vat", "flag": "🇿🇦", "name": "VAT", "country": "ZA"}
    assert kinds["eu_vat"] == {"type": "eu_vat", "flag": "🇪🇺", "name": "VAT", "country": "EU"}
    assert kinds["ca_gst_hst"]["name"] == "GST/HST"
    assert members.call("GET", "/v1/billing/tax/types").body == reply.body
    assert members.company.client.call("GET", TYPES).status == 401


def test_a_number_is_kept_at_once(members: Members) -> None:
    members.account()

    made = given(members, " 4123456789 ", "za_vat")

    assert set(made) == {"id", "value", "type", "country", "verification", "created_at"}
    assert re.fullmatch(r"txi_[0-9a-z]{18}", made["id"])
    assert (made["value"], made["type"], made["country"]) == ("4123456789", "za_vat", "ZA")
    assert made["verification"] == {"status": "unavailable", "verified_address": None, "verified_name": None}
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", made["created_at"])
    assert listed(members) == [made]


def test_registers_are_asked_about_some_kinds(members: Members) -> None:
    members.account()
    assert given(members, "DE000000000")["verification"]["status"] == "pending"
    given(members, "111111111", "gb_vat")
    given(members, "000000000", "au_abn")

    assert verified(members) == ["verified", "unverified", "verified"]

    first = listed(members)[0]["verification"]
    assert first["verified_name"]
    assert first["verified_address"]


@pytest.mark.parametrize(
    ("value", "country"), [("DE123456789", "DE"), ("EL123456789", "GR"), ("fr83404833048", "FR"), ("999", "EU")]
)
def test_the_country_of_a_european_number_stands_in_it(members: Members, value: str, country: str) -> None:
    members.account()

    assert given(members, value)["country"] == country


@pytest.mark.parametrize(
    ("body", "message", "fields"),
    [
        ({}, "The type field is required. (and 1 more error)", {"type", "value"}),
        ({"type": "eu_vat"}, "The value field is required.", {"value"}),
        ({"type": "eu_vat", "value": "   "}, "The value field is required.", {"value"}),
        ({"type": "", "value": None}, "The type field is required. (and 1 more error)", {"type", "value"}),
        ({"type": "xx_vat", "value": "1"}, "The selected type is invalid.", {"type"}),
        ({"type": 5, "value": "1"}, "The type field must be a string.", {"type"}),
        ({"type": ["eu_vat"], "value": "1"}, "The type field must be a string.", {"type"}),
        ({"type": "eu_vat", "value": 123}, "The value field must be a string.", {"value"}),
        ({"type": "eu_vat", "value": "1" * 51}, "The value field must not be greater than 50 characters.", {"value"}),
        ({"type": "eu_vat", "value": "1\u00072"}, "The value field must be printable.", {"value"}),
    ],
)
def test_what_is_no_number_is_told(members: Members, body: object, message: str, fields: set[str]) -> None:
    members.account()

    reply = members.call("POST", TAX, body)

    assert (reply.status, reply.body["message"], set(reply.body["errors"])) == (422, message, fields)
    assert listed(members) == []


def test_a_number_stands_there_once_however_it_is_written(members: Members) -> None:
    members.account()
    given(members, "DE 123.456.789")

    for value in ("DE 123.456.789", "DE123456789", "de123 456 789"):
        refused(members.call("POST", TAX, {"type": "eu_vat", "value": value}), 422, "already")
    given(members, "DE123456789", "eu_oss_vat")
    assert len(listed(members)) == 2


def test_twenty_numbers_are_enough(members: Members) -> None:
    members.account()
    made = [given(members, f"41234567{index:02}", "za_vat")["id"] for index in range(20)]

    refused(members.call("POST", TAX, {"type": "za_vat", "value": "4999999999"}), 422, "at most 20")

    assert members.call("DELETE", f"{TAX}/{made[0]}").status == 204
    given(members, "4999999999", "za_vat")


def test_a_race_for_the_same_number_has_one_winner(members: Members, service: Server) -> None:
    members.account()

    def attempt(_: int) -> int:
        with Client(*service.address) as client:
            other = Members(service, Company(client, members.company.id, members.company.key))
            return other.call("POST", TAX, {"type": "za_vat", "value": "4123456789"}).status

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(attempt, range(6))) == [201, 422, 422, 422, 422, 422]
    assert len(listed(members)) == 1


def test_the_same_key_is_one_number(members: Members) -> None:
    members.account()
    keyed, body = {"idempotency-key": "once"}, {"type": "za_vat", "value": "4123456789"}

    first = members.call("POST", TAX, body, headers=keyed)
    again = members.call("POST", TAX, body, headers=keyed)

    assert (first.status, again.status, again.is_replay) == (201, 201, True)
    assert first.raw == again.raw
    assert len(listed(members)) == 1


def test_a_deleted_number_is_gone_and_may_come_again(members: Members, stripe: Simulated, company: Company) -> None:
    members.account()
    first = given(members, "DE000000000")["id"]
    assert verified(members) == ["verified"]

    gone = members.call("DELETE", f"{TAX}/{first}", headers={"idempotency-key": "gone"})

    assert (gone.status, gone.raw) == (204, b"")
    assert listed(members) == []
    assert members.call("DELETE", f"{TAX}/{first}").status == 410
    again = members.call("DELETE", f"{TAX}/{first}", headers={"idempotency-key": "gone"})
    assert (again.status, again.is_replay) == (204, True)
    give_up_at = time.monotonic() + 15
    while any(not one.get("deleted") for one in stripe.book(f"sk_test_sandbox{company.id[2:]}")["tax_ids"]):
        assert time.monotonic() < give_up_at, "the provider was not told"
        time.sleep(0.1)
    assert given(members, "DE000000000")["id"] != first


def test_numbers_of_others_are_unknown(members: Members, client: Client, service: Server) -> None:
    members.account()
    members.account("org-2")
    theirs = given(members, organization="org-2")["id"]
    strangers = Members(service, Company.open(client, "Other"))
    strangers.account()
    foreign = given(strangers)["id"]

    for id in (theirs, foreign, "txi_nobody", "nothing", f"{theirs}x", theirs.replace("txi_", "card_")):
        assert members.call("DELETE", f"{TAX}/{id}").status == 410
    assert listed(members) == []
    assert [len(listed(members, "org-2")), len(listed(strangers))] == [1, 1]


def test_who_has_no_account_or_not_the_scope_is_told(members: Members) -> None:
    body = {"type": "eu_vat", "value": "DE123456789"}
    for method, path in (("GET", TAX), ("POST", TAX), ("DELETE", f"{TAX}/txi_1")):
        refused(members.call(method, path, body if method == "POST" else None), 422, "create an account first")
    members.account()
    assert members.call("GET", TAX, scopes=["account:write"]).status == 403
    assert members.call("POST", TAX, body, scopes=["account:read"]).status == 403
    assert members.call("DELETE", f"{TAX}/txi_1", scopes=["account:read"]).status == 403
    assert members.call("PUT", TAX, body).status == 405


def test_the_other_name_is_the_same_thing(members: Members) -> None:
    members.account()
    made = members.call("POST", "/v1/billing/tax", {"type": "za_vat", "value": "4123456789"})
    assert made.status == 201
    assert members.call("GET", "/v1/billing/tax").body == listed(members) == [made.body]
    assert members.call("DELETE", f"/v1/billing/tax/{made.body['id']}").status == 204


def test_invoices_show_the_numbers_as_they_were(members: Members, company: Company) -> None:
    members.account()
    real, unreal = given(members, "DE123456789"), given(members, "4123456789", "za_vat")
    account = str(company.call("GET", "/v1/companies/{company}/accounts").data[0]["id"])
    invoice = company.invoice(account)
    assert members.call("DELETE", f"{TAX}/{unreal['id']}").status == 204

    shown = company.call("GET", f"/v1/invoices/{invoice}").data

    assert [one["value"] for one in shown["customer"]["tax_ids"]] == [real["value"], unreal["value"]]
    page = str(company.call("POST", f"/v1/invoices/{invoice}/link").data["url"])
    html = company.client.call("GET", page[page.index("/i/") :]).raw.decode()
    assert real["value"] in html
    assert unreal["value"] in html
