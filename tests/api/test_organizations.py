"""The billing account as the people of an organization see it, and the tree as their company arranges it (seed S3)."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, Final

import asyncpg
import jwt
import pytest

from tenuto.api.tokens import OWN_AUDIENCE
from tenuto.core.organization import DEPTH_MAX, READ_SCOPE, WRITE_SCOPE
from tenuto.server import Server
from tests.client import Client, Company, Reply
from tests.members import Members

NO_ACCOUNT: Final = {
    "message": "You need to create an account first",
    "documentation_url": "https://docs.mikrocloud.com/api/accounts#create-an-account",
}
PARENT_PAYS: Final = {"message": "The billing of this organization is managed by its parent."}
OPENING: Final = {"name": "Hannes Kruger", "email": "hannes@mikrocloud.com", "address": {"country": "AU"}}
EMPTY: Final = {"city": "", "country": "AU", "line1": "", "line2": "", "postal_code": "", "state": ""}
TREE: Final = "/v1/companies/{company}/organizations"


@pytest.fixture
def members(service: Server, company: Company) -> Members:
    """The people of the organizations of a fresh company."""
    return Members(service, company)


def problems(reply: Reply) -> dict[str, list[str]]:
    """What an answer says of each field; its message is the first of it, with a count of the others."""
    assert reply.status == 422, reply
    errors: dict[str, list[str]] = reply.body["errors"]
    told = [message for messages in errors.values() for message in messages]
    more = len(told) - 1
    count = f" (and {more} more error{'s' if more > 1 else ''})" if more else ""
    assert reply.body["message"] == told[0] + count
    return errors


def placed(company: Company, id: str, **changes: object) -> Any:
    reply = company.call("PUT", f"{TREE}/{id}", changes)
    assert reply.status == 200, reply
    return reply.data


# --- seed S3, line for line -------------------------------------------------------------------------------------------

CURL: Final = {
    "retrieve": """
curl -G https://api.mikrocloud.com/v1/account \\
-H "Authorization: Bearer {token}"
""",
    "create": """
curl -X POST https://api.mikrocloud.com/v1/account \\
-H "Authorization: Bearer {token}" \\
-H "Content-Type: application/json" \\
-d '{
"name": "Hannes Kruger",
"email": "hannes@mikrocloud.com",
"address": {
"country": "AU"
}
}'
""",
    "update": """
curl -X PUT https://api.mikrocloud.com/v1/account \\
-H "Authorization: Bearer {token}" \\
-H "Content-Type: application/json" \\
-d '{
"name": "Hannes Kruger",
"email": "hkruger@mikrocloud.com",
"address": {
"city": "Melbourne",
"country": "AU",
"line1": "123 Mikro St",
"line2": "Apt 4B",
"postal_code": "3000",
"state": "VIC"
}
}'
""",
}
"""The commands of the seed as they stand there."""
SHOWN: Final = """{
"id": "cus_OdMmvWHZ8Y2rEH",
"name": "Hannes Kruger",
"email": "hannes@mikrocloud.com",
"currency": "",
"balance": 0,
"address": {
"city": "",
"country": "AU",
"line1": "",
"line2": "",
"postal_code": "",
"state": ""
},
"created_at": "2023-09-14 03:16:36"
}"""
"""What the seed answers to the creation."""
UPDATED: Final = """{
"id": "cus_OdMmvWHZ8Y2rEH",
"name": "Hannes Kruger",
"email": "hkruger@mikrocloud.com",
"currency": "",
"balance": 0,
"address": {
"city": "Melbourne",
"country": "AU",
"line1": "123 Mikro St",
"line2": "Apt 4B",
"postal_code": "3000",
"state": "VIC"
},
"created_at": "2023-09-14 03:16:36"
}"""
"""What it answers to the update; there the account has its first subscription behind it, and a currency."""


def compact(shown: str, answered: str) -> str:
    """The seed's text without its line breaks, with the id and the time that were made here in place of its own."""
    id, at = re.search(r"cus_[A-Za-z0-9]{14}", answered), re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", answered)
    assert id is not None
    assert at is not None
    text = json.dumps(json.loads(shown), separators=(",", ":"), ensure_ascii=False)
    return text.replace("cus_OdMmvWHZ8Y2rEH", id[0]).replace("2023-09-14 03:16:36", at[0])


@pytest.mark.skipif(not shutil.which("curl"), reason="the seed's examples are commands of curl")
def test_the_examples_of_the_seed_byte_for_byte(members: Members, service: Server) -> None:
    token = members.token()

    def run(name: str) -> tuple[int, str]:
        command = CURL[name].replace("https://api.mikrocloud.com", service.url).replace("{token}", token)
        command = command.strip().replace("curl ", "curl -s -w '\\n%{http_code}' ", 1)
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=True)
        body, _, status = done.stdout.rpartition("\n")
        return int(status), body

    assert run("retrieve") == (422, json.dumps(NO_ACCOUNT, separators=(",", ":")))
    status, created = run("create")
    assert (status, created) == (201, compact(SHOWN, created))
    assert run("retrieve") == (200, created)
    status, updated = run("update")
    assert (status, updated) == (200, compact(UPDATED, created))
    assert run("retrieve") == (200, updated)


def test_before_there_is_a_currency_the_balance_is_nothing(members: Members, company: Company) -> None:
    placed(company, "org-1", account_id=company.account(AUD=1250, USD=99))
    shown = members.call("GET", "/v1/account").body
    assert (shown["currency"], shown["balance"]) == ("", 0)


async def test_a_balance_is_in_major_units_of_the_currency_that_was_fixed(
    members: Members, company: Company, service: Server
) -> None:
    account = company.account(AUD=1250, JPY=7)
    placed(company, "org-1", account_id=account)
    public_id = members.call("GET", "/v1/account").body["id"]
    rows = await asyncpg.connect(service.dsn)
    try:
        for currency, shown in (
            ("AUD", b'"currency":"AUD","balance":12.5,'),
            ("JPY", b'"currency":"JPY","balance":7,'),
        ):
            await rows.execute("update account set currency = $1 where public_id = $2", currency, public_id)
            assert shown in members.call("GET", "/v1/account").raw
        company.call("POST", f"/v1/accounts/{account}/balance/JPY/adjust", {"amount": -10})
        assert b'"balance":-3,' in members.call("GET", "/v1/account").raw
        assert company.call("GET", f"/v1/accounts/{account}").data["currency"] == "JPY"
    finally:
        # No plan fixed it, which the audit of all that the tests leave behind would say.
        await rows.execute("update account set currency = null where public_id = $1", public_id)
        await rows.close()


# --- opening ----------------------------------------------------------------------------------------------------------


def test_what_an_opening_does_not_need_is_ignored(members: Members) -> None:
    body = {
        **OPENING,
        "currency": "USD",
        "balance": 5,
        "address": {**EMPTY, "city": 5, "line1": "x" * 500},
        "other": {},
    }
    reply = members.call("POST", "/v1/account", body)
    assert reply.status == 201
    assert reply.body == {**reply.body, "address": EMPTY, "currency": "", "balance": 0}
    assert re.fullmatch("cus_[A-Za-z0-9]{14}", reply.body["id"])


def test_an_opening_needs_name_email_and_country(members: Members) -> None:
    needed = {
        "name": ["The name field is required."],
        "email": ["The email field is required."],
        "address.country": ["The address.country field is required."],
    }
    bodies: tuple[dict[str, object], ...] = (
        {},
        {"name": "", "email": "", "address": {"country": ""}},
        {"name": None, "email": " ", "address": {}},
    )
    for body in bodies:
        assert problems(members.call("POST", "/v1/account", body)) == needed
    reply = members.call("POST", "/v1/account", {"email": "a@b.c"})
    assert reply.body["message"] == "The name field is required. (and 1 more error)"
    assert problems(members.call("POST", "/v1/account", {**OPENING, "address": "AU"})) == {
        "address": ["The address field must be an object."],
        "address.country": ["The address.country field is required."],
    }
    assert members.call("GET", "/v1/account").body == NO_ACCOUNT


def test_a_second_opening_is_refused(members: Members) -> None:
    account = members.account()
    reply = members.call("POST", "/v1/account", {**OPENING, "name": "Another"})
    assert (reply.status, reply.body) == (422, {"message": "The organization has an account already."})
    assert members.call("GET", "/v1/account").body == account


def test_two_openings_at_once_make_one_account(members: Members, company: Company, service: Server) -> None:
    token = members.token("racers")

    def attempt(_: int) -> int:
        with Client(*service.address) as client:
            headers = {"authorization": f"Bearer {token}"}
            return client.call("POST", "/v1/account", OPENING, headers).status

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(attempt, range(8)))
    assert statuses == [201] + [422] * 7
    assert len(company.call("GET", "/v1/companies/{company}/accounts").data) == 1
    assert len(company.call("GET", TREE).data) == 1


# --- changing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_what_is_not_given_stays_and_an_empty_text_unsets(members: Members, method: str) -> None:
    before = members.account()

    def change(**body: object) -> Any:
        reply = members.call(method, "/v1/account", body)
        assert reply.status == 200, reply
        assert members.call("GET", "/v1/account").body == reply.body
        return reply.body

    assert change() == before
    assert change(name="Hanna") == {**before, "name": "Hanna"}
    changed = change(address={"city": "Köln", "line1": "1", "state": "NW"}, email="HANNA@Example.COM")
    address = {**EMPTY, "city": "Köln", "line1": "1", "state": "NW"}
    assert changed == {**before, "name": "Hanna", "email": "hanna@example.com", "address": address}
    assert change(address={"city": "", "state": None})["address"] == {**EMPTY, "line1": "1"}
    assert change(address={"country": "DE"})["address"] == {**EMPTY, "line1": "1", "country": "DE"}
    assert change(id="cus_00000000000000", currency="EUR", balance=7, created_at="now") == change()


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("nothing", ["", None])
def test_name_email_and_country_cannot_be_unset(members: Members, method: str, nothing: object) -> None:
    before = members.account()
    reply = members.call(method, "/v1/account", {"name": nothing, "email": nothing, "address": {"country": nothing}})
    assert set(problems(reply)) == {"name", "email", "address.country"}
    assert members.call("GET", "/v1/account").body == before


LONGEST: Final = {
    "name": 100,
    "email": 250,
    "address.city": 50,
    "address.line1": 100,
    "address.line2": 100,
    "address.postal_code": 10,
    "address.state": 50,
}


def nested(field: str, value: object) -> dict[str, object]:
    above, _, part = field.rpartition(".")
    return {above: {part: value}} if above else {field: value}


@pytest.mark.parametrize(("field", "longest"), LONGEST.items())
def test_lengths_are_counted_in_characters(members: Members, field: str, longest: int) -> None:
    members.account()
    end = "@ü.de" if field == "email" else ""
    fits = "ü" * (longest - len(end)) + end
    assert members.call("PATCH", "/v1/account", nested(field, fits)).status == 200
    words = field.replace("_", " ")
    assert problems(members.call("PATCH", "/v1/account", nested(field, "ü" + fits))) == {
        field: [f"The {words} field must not be greater than {longest} characters."]
    }
    for wrong in (5, True, ["x"], {"x": 1}):
        assert problems(members.call("PATCH", "/v1/account", nested(field, wrong))) == {
            field: [f"The {words} field must be a string."]
        }


@pytest.mark.parametrize("email", ["nobody", "@b.c", "a@", "a b@c.d", "a@b@c", "a\n@b.c", "a@b\u202e.c"])
def test_an_email_address_could_be_one(members: Members, email: str) -> None:
    reply = members.call("POST", "/v1/account", {**OPENING, "email": email})
    assert problems(reply) == {"email": ["The email field must be a valid email address."]}


@pytest.mark.parametrize("country", ["au", "AUS", "XX", "A", "ÄU", 61, ["AU"], {"AU": 1}, True])
def test_a_country_is_one_of_the_standard(members: Members, country: object) -> None:
    expected = {"address.country": ["The address.country field must be a two-letter country code."]}
    assert problems(members.call("POST", "/v1/account", {**OPENING, "address": {"country": country}})) == expected
    members.account()
    assert problems(members.call("PUT", "/v1/account", {"address": {"country": country}})) == expected


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_a_body_is_an_object_of_json(members: Members, method: str) -> None:
    if method != "POST":
        members.account()
    json_type = {"content-type": "application/json"}
    outcomes = {
        body: members.call(method, "/v1/account", body, headers=json_type)
        for body in (b"[]", b'"text"', b"5", b"null", b"", b"{", b'{"name": "\xff"}', b'{"name": "a", "name": "b"}')
    }
    assert {body: reply.status for body, reply in outcomes.items()} == {
        **dict.fromkeys((b"[]", b'"text"', b"5", b"null"), 422),
        **dict.fromkeys((b"", b"{", b'{"name": "\xff"}', b'{"name": "a", "name": "b"}'), 400),
    }
    assert all(set(reply.body) == {"message"} for reply in outcomes.values())
    text = members.call(method, "/v1/account", b"{}", headers={"content-type": "text/plain"})
    assert (text.status, set(text.body)) == (415, {"message"})


# --- not served, and nowhere ------------------------------------------------------------------------------------------


def test_deletion_is_not_implemented(members: Members) -> None:
    assert members.call("DELETE", "/v1/account").body == NO_ACCOUNT
    account = members.account()
    reply = members.call("DELETE", "/v1/account")
    assert (reply.status, reply.body) == (501, {"message": "This is not implemented; contact support."})
    assert members.call("GET", "/v1/account").body == account


@pytest.mark.parametrize(
    "path", ["/v1/account/nothing", "/v1/billing", "/billing/nothing", "/v1/billable/nothing", "/account/a/b/c/d/e"]
)
def test_a_route_that_is_not_there_is_told_in_the_dialect(client: Client, members: Members, path: str) -> None:
    for reply in (client.call("GET", path), members.call("GET", path)):
        assert (reply.status, set(reply.body)) == (404, {"message"})


def test_a_method_that_is_not_there_is_told_in_the_dialect(members: Members) -> None:
    reply = members.call("HEAD", "/v1/nothing")
    assert reply.status == 404
    reply = members.call("OPTIONS", "/v1/account")
    assert (reply.status, reply.body) != (404, None)
    reply = members.company.client.call("TRACE", "/v1/account")
    assert (reply.status, set(reply.body), reply.headers["allow"]) == (
        405,
        {"message"},
        "DELETE, GET, PATCH, POST, PUT",
    )


def test_the_first_family_keeps_its_own_words(company: Company) -> None:
    for path in ("/v1/accounts/a_00000000", "/v1/accounting", "/v1/billings", "/v1/nothing"):
        reply = company.call("GET", path)
        assert (reply.status, reply.code) == (404, "not_found")


def test_the_successors_spelling_answers_the_same(members: Members) -> None:
    assert members.call("GET", "/v1/billing/account").body == NO_ACCOUNT
    account = members.call("POST", "/v1/billing/account", OPENING)
    assert account.status == 201
    assert members.call("GET", "/account").body == members.call("GET", "/billing/account/").body == account.body
    assert members.call("PATCH", "/v1/billing/account", {"name": "H"}).body == {**account.body, "name": "H"}
    assert members.call("DELETE", "/v1/billing/account").status == 501


# --- who calls --------------------------------------------------------------------------------------------------------


def test_a_route_needs_its_scope(members: Members) -> None:
    members.account()
    for method, scope in (("GET", READ_SCOPE), ("PUT", WRITE_SCOPE), ("PATCH", WRITE_SCOPE), ("POST", WRITE_SCOPE)):
        others = {READ_SCOPE, WRITE_SCOPE, "account", "*"} - {scope}
        reply = members.call(method, "/v1/account", {} if method != "GET" else None, scopes=others)
        assert (reply.status, reply.body) == (403, {"message": f"The token needs the scope {scope}."})
    assert members.call("GET", "/v1/account", scopes=(), permissions=[READ_SCOPE]).status == 403


def test_an_earlier_token_calls_its_scopes_permissions(members: Members) -> None:
    account = members.account()
    claims = members.claims(permissions=[READ_SCOPE])
    del claims["scopes"]
    token = jwt.encode(claims, members.secret(), algorithm="HS256")
    assert members.bearing(token, "GET", "/v1/account").body == account
    assert members.bearing(token, "PATCH", "/v1/account", {}).status == 403


def test_a_token_without_an_organization_is_told_so(members: Members) -> None:
    reply = members.call("GET", "/v1/account", id=None)
    assert (reply.status, set(reply.body)) == (401, {"message"})
    assert "customer id is missing" in reply.body["message"]
    assert reply.headers["www-authenticate"].startswith("Bearer")


def test_neither_key_opens_the_other_door(company: Company, members: Members) -> None:
    assert company.call("GET", "/v1/account").status == 401
    for path in (f"/v1/companies/{company.id}", f"/v1/companies/{company.id}/organizations"):
        reply = members.call("GET", path)
        assert (reply.status, reply.code) == (401, "invalid_credentials")


@pytest.mark.parametrize(
    ("zone", "hours"),
    [
        *(("Africa/Cairo", {2, 3}), ("Asia/Kolkata", {5.5}), (None, {0})),
        *((none, {0}) for none in ("Nowhere/None", "../../etc/passwd", "/etc/localtime", "Africa", "", 5)),
    ],
)
def test_times_are_told_in_the_zone_of_the_token(members: Members, zone: object, hours: set[float]) -> None:
    members.account()

    def created(name: object) -> datetime:
        text = members.call("GET", "/v1/account", timezone=name).body["created_at"]
        return datetime.strptime(text, "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007 - the point is that it has no zone

    assert (created(zone) - created("UTC")).total_seconds() / 3600 in hours


def test_an_organization_is_made_at_first_sight_and_owned_by_who_came(members: Members, company: Company) -> None:
    assert members.call("GET", "/v1/account", organization="new", user_id="first").status == 422
    assert members.call("GET", "/v1/account", organization="new", user_id="second").status == 422
    [found] = company.call("GET", TREE).data
    assert (found["id"], found["owner"], found["name"], found["parent"], found["account_id"]) == (
        *("new", "first"),
        *("", None, None),
    )


def test_many_who_come_at_once_are_of_one_organization(members: Members, company: Company, service: Server) -> None:
    def attempt(user: int) -> int:
        with Client(*service.address) as client:
            headers = {"authorization": f"Bearer {members.token('busy', user_id=user)}"}
            return client.call("GET", "/v1/account", headers=headers).status

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(attempt, range(16))) == {422}
    assert [one["id"] for one in company.call("GET", TREE).data] == ["busy"]


def test_names_of_organizations_are_any_letters(members: Members, company: Company) -> None:
    members.account("Größe 1/🏢")
    reply = company.call("GET", f"{TREE}/Gr%C3%B6%C3%9Fe%201%2F%F0%9F%8F%A2")
    assert (reply.status, reply.data["id"]) == (200, "Größe 1/🏢")


# --- once per key -----------------------------------------------------------------------------------------------------


def test_an_opening_again_by_its_key_answers_what_it_answered(members: Members) -> None:
    headers = {"idempotency-key": "open"}
    first = members.call("POST", "/v1/account", OPENING, headers=headers)
    assert members.call("PATCH", "/v1/account", {"name": "Changed"}).status == 200
    again = members.call("POST", "/v1/account", OPENING, headers=headers)
    assert (again.status, again.raw, again.is_replay) == (201, first.raw, True)
    other = members.call("POST", "/v1/account", {**OPENING, "name": "X"}, headers=headers)
    assert (other.status, set(other.body)) == (422, {"message"})


def test_a_change_again_by_its_key_changes_nothing(members: Members) -> None:
    members.account()
    headers = {"idempotency-key": "change"}
    first = members.call("PATCH", "/v1/account", {"name": "One"}, headers=headers)
    members.call("PATCH", "/v1/account", {"name": "Two"})
    again = members.call("PATCH", "/v1/account", {"name": "One"}, headers=headers)
    assert (again.status, again.raw, again.is_replay) == (200, first.raw, True)
    assert members.call("GET", "/v1/account").body["name"] == "Two"


def test_a_key_of_one_organization_is_none_of_another(members: Members) -> None:
    headers = {"idempotency-key": "the same"}
    replies = [members.call("POST", "/v1/account", OPENING, organization, headers=headers) for organization in "ab"]
    assert [(reply.status, reply.is_replay) for reply in replies] == [(201, False)] * 2
    assert replies[0].body["id"] != replies[1].body["id"]


def test_a_refusal_uses_no_key(members: Members) -> None:
    headers = {"idempotency-key": "again"}
    assert members.call("POST", "/v1/account", {}, headers=headers).status == 422
    assert members.call("POST", "/v1/account", OPENING, headers=headers).status == 201


# --- one account, two views -------------------------------------------------------------------------------------------


def test_the_company_sees_the_same_account(members: Members, company: Company) -> None:
    members.account(country="DE")
    [seen] = company.call("GET", "/v1/companies/{company}/accounts").data
    expected = {"name": "Hannes Kruger", "organization_id": "org-1", "address": {"country": "DE"}, "currency": None}
    assert {name: seen[name] for name in expected} == expected
    assert company.call("GET", f"/v1/accounts/{seen['id']}").data == seen
    company.call("PUT", f"/v1/accounts/{seen['id']}", {"name": "Renamed", "email": "new@example.com"})
    shown = members.call("GET", "/v1/account").body
    assert (shown["name"], shown["email"]) == ("Renamed", "new@example.com")
    assert company.call("GET", f"{TREE}/org-1").data["account_id"] == seen["id"]


def test_an_account_without_an_organization_says_so(company: Company) -> None:
    seen = company.call("GET", f"/v1/accounts/{company.account()}").data
    assert (seen["organization_id"], seen["address"], seen["currency"]) == (None, None, None)


# --- the tree ---------------------------------------------------------------------------------------------------------


def test_the_top_pays_and_those_below_are_told_so(members: Members, company: Company) -> None:
    members.account("reseller")
    placed(company, "customer", parent="reseller")
    placed(company, "branch", parent="customer")
    for organization in ("customer", "branch"):
        for method, body in (
            ("GET", None),
            ("POST", OPENING),
            ("POST", {}),
            ("PUT", {}),
            ("PATCH", {}),
            ("DELETE", None),
        ):
            reply = members.call(method, "/v1/account", body, organization)
            assert (reply.status, reply.body) == (403, PARENT_PAYS)
    placed(company, "customer", parent=None)
    assert members.call("GET", "/v1/account", None, "customer").body == NO_ACCOUNT
    assert members.call("GET", "/v1/account", None, "branch").body == PARENT_PAYS
    members.account("customer")


def test_a_token_may_put_itself_below_but_never_on_top(members: Members, company: Company) -> None:
    members.account("top")
    reply = members.call("GET", "/v1/account", None, "top", is_direct=False)
    assert (reply.status, reply.body) == (403, PARENT_PAYS)
    assert members.call("POST", "/v1/account", OPENING, "new", is_direct=False).body == PARENT_PAYS
    placed(company, "below", parent="top")
    assert members.call("GET", "/v1/account", None, "below", is_direct=True).body == PARENT_PAYS
    assert members.call("GET", "/v1/account", None, "top", is_direct=True).status == 200


def test_an_organization_is_made_changed_and_shown(company: Company) -> None:
    placed(company, "top", name="Top")
    made = placed(company, "one", name="One", owner="u1", parent="top")
    assert made == {**made, "id": "one", "name": "One", "owner": "u1", "parent": "top", "account_id": None}
    changed = placed(company, "one", owner=None)
    assert changed == {**made, "owner": None, "updated_at": changed["updated_at"]}
    assert placed(company, "one") == changed == company.call("GET", f"{TREE}/one").data
    assert placed(company, "one", parent=None, name="")["parent"] is None


def test_lists_are_paged_and_filtered(company: Company) -> None:
    for name in ("r", "a", "b", "c"):
        placed(company, name, **({} if name == "r" else {"parent": "r"}))
    account = company.account()
    placed(company, "d", account_id=account)
    seen: list[str] = []
    cursor = ""
    while True:
        page = company.call("GET", f"{TREE}?limit=2{cursor}").body
        seen += [one["id"] for one in page["data"]]
        if not page["has_more"]:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert sorted(seen) == ["a", "b", "c", "d", "r"]

    def found(query: str) -> list[str]:
        return sorted(one["id"] for one in company.call("GET", f"{TREE}?{query}").data)

    assert found("parent=r") == ["a", "b", "c"]
    assert found("parent=a") == found("parent=nobody") == []
    assert found(f"account_id={account}") == ["d"]
    assert found(f"account_id={company.account()}") == []


def test_circles_are_refused(company: Company) -> None:
    placed(company, "a")
    placed(company, "b", parent="a")
    placed(company, "c", parent="b")
    for below, above in (("a", "a"), ("a", "b"), ("a", "c"), ("new", "new")):
        reply = company.call("PUT", f"{TREE}/{below}", {"parent": above, "name": "changed"})
        assert (reply.status, reply.code) == (409, "organization_cycle")
    assert company.call("GET", f"{TREE}/a").data["name"] == ""
    assert company.call("GET", f"{TREE}/new").status == 404


def test_two_moves_at_once_close_no_circle(company: Company, service: Server) -> None:
    def move(pair: tuple[str, str]) -> int:
        with Client(*service.address) as client:
            mover = Company(client, company.id, company.key)
            return mover.call("PUT", f"{TREE}/{pair[0]}", {"parent": pair[1]}).status

    for turn in range(10):
        names = [f"{name}{turn}" for name in "xyz"]
        for name in names:
            placed(company, name)
        with ThreadPoolExecutor(3) as pool:
            statuses = sorted(pool.map(move, zip(names, [*names[1:], names[0]], strict=True)))
        assert statuses == [200, 200, 409]


def test_an_account_is_not_opened_while_its_organization_is_put_below(
    company: Company, members: Members, service: Server
) -> None:
    def move(name: str) -> int:
        with Client(*service.address) as client:
            return Company(client, company.id, company.key).call("PUT", f"{TREE}/{name}", {"parent": "top"}).status

    def open_account(name: str) -> int:
        with Client(*service.address) as client:
            headers = {"authorization": f"Bearer {members.token(name)}"}
            return client.call("POST", "/v1/account", OPENING, headers).status

    placed(company, "top")
    for turn in range(10):
        with ThreadPoolExecutor(2) as pool:
            moved, opened = pool.submit(move, f"one{turn}"), pool.submit(open_account, f"one{turn}")
            assert (moved.result(), opened.result()) in {(200, 403), (422, 201)}
    for one in company.call("GET", TREE).data:
        assert one["parent"] is None or one["account_id"] is None


def test_a_tree_is_at_most_so_deep_wherever_it_is_joined(company: Company) -> None:
    for index in range(DEPTH_MAX):
        placed(company, f"l{index}", **({"parent": f"l{index - 1}"} if index else {}))
    deepest = f"l{DEPTH_MAX - 1}"
    assert company.call("PUT", f"{TREE}/more", {"parent": deepest}).code == "organization_cycle"
    placed(company, "root")
    assert company.call("PUT", f"{TREE}/l0", {"parent": "root"}).code == "organization_cycle"
    placed(company, "l1", parent=None)
    placed(company, "root", parent="l0")
    placed(company, "l1", parent="l0")


def test_an_account_that_is_there_becomes_an_organizations_own_once(company: Company, members: Members) -> None:
    account, other = company.account(credits=5), company.account()
    assert placed(company, "one", account_id=account)["account_id"] == account
    shown = members.call("GET", "/v1/account", None, "one").body
    assert re.fullmatch("cus_[A-Za-z0-9]{14}", shown["id"])
    assert (shown["name"], shown["address"]) == ("Ada", {**EMPTY, "country": ""})
    assert placed(company, "one", account_id=account, name="again")["account_id"] == account
    assert members.call("GET", "/v1/account", None, "one").body == shown
    assert company.call("GET", f"/v1/accounts/{account}").data["organization_id"] == "one"

    def code(id: str, **body: object) -> str:
        reply = company.call("PUT", f"{TREE}/{id}", body)
        assert reply.status == 422
        return reply.code

    assert code("one", account_id=other) == "account_exists"
    assert code("two", account_id=account) == "account_exists"
    placed(company, "below", parent="one")
    assert code("below", account_id=other) == "account_exists"
    assert code("three", account_id=other, parent="one") == "account_exists"
    assert code("one", parent="two") == "invalid_field"
    placed(company, "two")
    assert code("one", parent="two") == "account_exists"


def test_what_an_account_or_a_parent_cannot_be(company: Company, client: Client) -> None:
    theirs = Company.open(client, "Theirs")
    placed(theirs, "their-own")
    foreign = theirs.account()
    for body in (
        {"account_id": foreign},
        {"account_id": "a_00000000"},
        {"account_id": "x"},
        {"account_id": None},
        {"parent": "their-own"},
        {"parent": "nobody"},
        {"parent": ""},
        {"parent": 5},
        {"owner": " "},
        {"name": "x" * 201},
        {"name": None},
        {"other": 1},
    ):
        reply = company.call("PUT", f"{TREE}/one", body)
        assert (reply.status, reply.details["path"]) == (422, next(iter(body)))
    assert company.call("GET", f"{TREE}/one").status == 404


def test_an_organization_goes_when_nothing_hangs_on_it(company: Company, members: Members) -> None:
    members.account("payer")
    placed(company, "top")
    placed(company, "below", parent="top")
    for name in ("payer", "top"):
        reply = company.call("DELETE", f"{TREE}/{name}")
        assert (reply.status, reply.code) == (409, "organization_in_use")
    assert company.call("DELETE", f"{TREE}/below").data["id"] == "below"
    assert company.call("DELETE", f"{TREE}/top").status == 200
    assert company.call("DELETE", f"{TREE}/top").status == 404
    assert [one["id"] for one in company.call("GET", TREE).data] == ["payer"]


@pytest.mark.parametrize("id", ["%20a", "a%20", "%0A", "x" * 256])
def test_a_name_that_no_organization_can_have_is_not_found(company: Company, id: str) -> None:
    for method, body in (("GET", None), ("PUT", {}), ("DELETE", None)):
        assert company.call(method, f"{TREE}/{id}", body).status == 404


def test_the_halves_of_a_company_have_trees_of_their_own(company: Company, service: Server) -> None:
    live = company.live_half()
    Members(service, company, mode="live").account("org-1", country="DE")
    assert company.call("GET", TREE).data == []
    assert Members(service, company).call("GET", "/v1/account").body == NO_ACCOUNT
    assert len(live.call("GET", TREE).data) == len(company.call("GET", TREE).data) == 1


def test_the_tree_needs_the_scopes_of_accounts(company: Company, client: Client) -> None:
    def keyed(*scopes: str) -> Company:
        body = {"name": "narrow", "scopes": list(scopes)}
        return Company(client, company.id, company.call("POST", "/v1/companies/{company}/keys", body).data["api_key"])

    reads, writes = keyed("accounts:read"), keyed("accounts:write")
    assert reads.call("GET", TREE).status == writes.call("PUT", f"{TREE}/a", {}).status == 200
    for refused in (writes.call("GET", TREE), reads.call("PUT", f"{TREE}/a", {}), reads.call("DELETE", f"{TREE}/a")):
        assert (refused.status, refused.code) == (403, "insufficient_scope")


def test_a_token_of_the_company_names_its_audience(members: Members) -> None:
    assert members.call("GET", "/v1/account", aud=[OWN_AUDIENCE, "another"]).status == 401
    assert members.call("GET", "/v1/account", aud=[OWN_AUDIENCE]).status == 422
