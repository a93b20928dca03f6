"""Users by the API: who is invited, changed and removed by whom; and the activity, where all of it stands."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio

from tenuto.api.app import ROUTES
from tenuto.api.routes import Route
from tenuto.core.user import ROLES, SCOPES, USERS_MAX
from tenuto.server import Server
from tests.client import Client, Company, Reply

USERS: Final = "/v1/companies/{company}/users"
ACTIVITY: Final = "/v1/companies/{company}/activity"
USER_FIELDS: Final = {
    "id", "email", "role", "status", "two_factor", "created_at", "signed_in_at", "invited_until",
}  # fmt: skip
ACTIVITY_FIELDS: Final = {
    "id", "at", "environment", "actor", "actor_name", "address", "action", "target", "asked", "number", "digest",
    "previous_digest", "sealed",
}  # fmt: skip


@pytest_asyncio.fixture
async def rows(service: Server) -> AsyncIterator[asyncpg.Connection]:
    """The rows of the service: to see what is written down."""
    connection = await asyncpg.connect(service.dsn)
    yield connection
    await connection.close()


def refused(reply: Reply, status: int, code: str) -> None:
    assert (reply.status, reply.code) == (status, code), reply.raw[:500]


def invite(company: Company, email: str = "grace@example.com", role: str = "finance") -> Any:
    reply = company.call("POST", USERS, {"email": email, "role": role})
    assert reply.status == 200, reply.raw
    return reply.data


def with_scopes(company: Company, scopes: list[str]) -> Company:
    reply = company.call("POST", "/v1/companies/{company}/keys", {"scopes": scopes})
    assert reply.status == 200, reply.raw
    return Company(company.client, company.id, reply.data["api_key"])


# --- users ---


def test_users_are_invited_listed_changed_and_removed(company: Company) -> None:
    made = invite(company, "Grace@Example.com")
    listed = company.call("GET", USERS)

    assert set(made) == {*USER_FIELDS, "url"}
    assert (made["email"], made["role"], made["status"]) == ("grace@example.com", "finance", "invited")
    assert re.fullmatch(r"/control/join/[\w-]{43}", urlsplit(made["url"]).path)
    assert [set(user) for user in listed.data] == [USER_FIELDS, USER_FIELDS]
    owner, grace = listed.data
    assert (owner["email"], owner["role"], owner["status"]) == ("owner@example.com", "owner", "active")
    assert (owner["two_factor"], owner["invited_until"]) == (False, None)
    assert grace == {name: value for name, value in made.items() if name != "url"}
    assert urlsplit(made["url"]).path.rpartition("/")[2].encode() not in listed.raw

    changed = company.call("PUT", f"{USERS}/{made['id']}", {"role": "support"})
    assert changed.data == {**grace, "role": "support"}
    removed = company.call("DELETE", f"{USERS}/{made['id']}")
    assert removed.data == changed.data
    assert company.call("GET", USERS).data == [owner]
    refused(company.call("DELETE", f"{USERS}/{made['id']}"), 404, "not_found")
    refused(company.call("PUT", f"{USERS}/{made['id']}", {"role": "support"}), 404, "not_found")


def test_an_address_is_invited_once(company: Company) -> None:
    made = invite(company)
    refused(company.call("POST", USERS, {"email": "GRACE@example.com", "role": "admin"}), 409, "user_exists")
    refused(company.call("POST", USERS, {"email": "owner@example.com", "role": "admin"}), 409, "user_exists")
    company.call("DELETE", f"{USERS}/{made['id']}")
    assert invite(company)["id"] != made["id"]


def test_an_open_invitation_is_made_again_and_a_taken_one_is_not(company: Company) -> None:
    made = invite(company)
    again = company.call("POST", f"{USERS}/{made['id']}/invite")
    assert again.status == 200
    assert again.data["id"] == made["id"]
    assert again.data["url"] != made["url"]
    assert again.data["invited_until"] >= made["invited_until"]
    support = invite(company, "sue@example.com", "support")
    assert company.call("PUT", f"{USERS}/{support['id']}", {"role": "admin"}).status == 200
    admin = company.call("GET", USERS).data[0]
    refused(company.call("POST", f"{USERS}/{admin['id']}/invite"), 403, "owner_needed")


def test_the_link_is_told_to_the_same_key_again_and_kept_sealed(company: Company) -> None:
    asked = {"email": "grace@example.com", "role": "finance"}
    first = company.call("POST", USERS, asked, {"idempotency-key": "invite grace"})
    again = company.call("POST", USERS, asked, {"idempotency-key": "invite grace"})
    assert (again.status, again.raw, again.is_replay) == (200, first.raw, True)


async def test_no_link_stands_in_the_database(company: Company, rows: asyncpg.Connection) -> None:
    asked = {"email": "grace@example.com", "role": "finance"}
    made = company.call("POST", USERS, asked, {"idempotency-key": "invite grace"}).data
    token = made["url"].rpartition("/")[2]
    number = int(company.id[2:], 36)
    kept = [
        *await rows.fetch("select * from console_user where company_id = $1", number),
        *await rows.fetch("select * from activity where company_id = $1", number),
        *await rows.fetch(
            "select key, body from stored_answer where environment_id in"
            " (select id from environment where company_id = $1)",
            number,
        ),
    ]
    told = str([dict(row) for row in kept])
    assert token not in told
    assert hashlib.sha256(token.encode()).digest() in {row.get("invitation") for row in kept}


@pytest.mark.parametrize("role", ["admin", "finance", "support", "read_only"])
def test_a_key_makes_anybody_but_owners(company: Company, role: str) -> None:
    made = invite(company, role=role)
    refused(company.call("POST", USERS, {"email": "eve@example.com", "role": "owner"}), 403, "owner_needed")
    refused(company.call("PUT", f"{USERS}/{made['id']}", {"role": "owner"}), 403, "owner_needed")
    owner = company.call("GET", USERS).data[0]["id"]
    refused(company.call("PUT", f"{USERS}/{owner}", {"role": "admin"}), 403, "owner_needed")
    refused(company.call("DELETE", f"{USERS}/{owner}"), 403, "owner_needed")


@pytest.mark.parametrize(
    "email", ["", "grace", "a b@example.com", "x" * 250 + "@a.de", "a\u0000@example.com", "a@b\n.de"]
)
def test_what_is_no_address_is_not_invited(company: Company, email: str) -> None:
    reply = company.call("POST", USERS, {"email": email, "role": "finance"})
    assert reply.status == 422
    assert len(company.call("GET", USERS).data) == 1


@pytest.mark.parametrize("role", ["", "Owner", "root", None, 7])
def test_there_are_no_other_roles(company: Company, role: object) -> None:
    assert company.call("POST", USERS, {"email": "grace@example.com", "role": role}).status == 422


async def test_a_company_has_so_many_users_and_no_more(company: Company, rows: asyncpg.Connection) -> None:
    await rows.execute(
        "insert into console_user (company_id, id, email, role, created_at, invited_until)"
        " select $1, n, 'user-' || n || '@example.com', 'support', now(), now() from generate_series(1, $2::int) n",
        int(company.id[2:], 36),
        USERS_MAX - 1,
    )
    refused(company.call("POST", USERS, {"email": "grace@example.com", "role": "finance"}), 422, "invalid_field")
    listed = company.call("GET", f"{USERS}?limit=1000").data
    assert len(listed) == USERS_MAX
    seen, cursor = [], ""
    while True:
        page = company.call("GET", f"{USERS}?limit=150{cursor}")
        seen += page.data
        if not page.body["has_more"]:
            break
        cursor = f"&cursor={page.body['next_cursor']}"
    assert seen == listed


def test_users_need_their_scopes(company: Company) -> None:
    made = invite(company)
    reader = with_scopes(company, ["users:read"])
    assert reader.call("GET", USERS).status == 200
    for method, path, body in (
        ("POST", USERS, {"email": "eve@example.com", "role": "admin"}),
        ("PUT", f"{USERS}/{made['id']}", {"role": "admin"}),
        ("DELETE", f"{USERS}/{made['id']}", None),
        ("POST", f"{USERS}/{made['id']}/invite", None),
        ("GET", ACTIVITY, None),
    ):
        refused(reader.call(method, path, body), 403, "insufficient_scope")
    refused(with_scopes(company, ["company:read"]).call("GET", USERS), 403, "insufficient_scope")


@pytest.mark.parametrize("role", ROLES)
def test_a_role_opens_the_routes_of_its_scopes_and_no_other(company: Company, role: str) -> None:
    holder = with_scopes(company, sorted(ROLES[role]))
    for route in ROUTES:
        if route.scope is None or route.family:
            continue
        path = re.sub(r"{(\w+)}", lambda found: "x" if found[1] != "company_id" else company.id, route.path)
        reply = holder.call(route.method, f"/v1{path}", None if route.body is None else {"no": "body"})
        is_refused = (reply.status, (reply.body or {}).get("error", {}).get("code")) == (403, "insufficient_scope")
        assert is_refused is (route.scope not in ROLES[role]), (route.method, route.path, reply.raw[:200])


def test_every_scope_of_a_route_is_one_that_roles_know() -> None:
    assert {route.scope for route in ROUTES if route.scope is not None and not route.family} <= set(SCOPES)


# --- what was done ---


def sealed(company: Company, count: int) -> list[Any]:
    """The activity, latest first, once so many rows are sealed."""
    give_up_at = time.monotonic() + 15
    while True:
        found = company.call("GET", f"{ACTIVITY}?limit=1000").data
        if sum(row["number"] is not None for row in found) >= count:
            return list(found)
        assert time.monotonic() < give_up_at, found
        time.sleep(0.05)


def test_what_was_done_is_told_with_who_and_from_where(company: Company) -> None:
    made = invite(company)
    reply = company.call("GET", ACTIVITY)
    (row,) = reply.data
    key = company.call("GET", "/v1/companies/{company}/keys").data[0]
    assert set(row) == ACTIVITY_FIELDS
    assert (row["actor"], row["actor_name"], row["address"]) == (key["id"], "first key", "127.0.0.1")
    assert (row["action"], row["target"]) == ("invite_user", f"POST /companies/{company.id}/users")
    assert row["asked"] == {"email": "grace@example.com", "role": "finance"}
    assert row["environment"] is None, "users are of the whole company"
    assert urlsplit(made["url"]).path.encode() not in reply.raw

    account = company.account()
    latest = company.call("GET", ACTIVITY).data[0]
    assert (latest["action"], latest["environment"]) == ("open_account", "test")
    assert account not in latest["target"]


def test_the_activity_is_filtered_and_read_page_by_page(company: Company) -> None:
    invite(company)
    for _ in range(3):
        company.account()
    key = company.call("GET", "/v1/companies/{company}/keys").data[0]["id"]
    assert [row["action"] for row in company.call("GET", f"{ACTIVITY}?action=invite_user").data] == ["invite_user"]
    assert len(company.call("GET", f"{ACTIVITY}?actor={key}").data) == 4
    assert len(company.call("GET", f"{ACTIVITY}?actor=first%20key&action=open_account").data) == 3
    assert company.call("GET", f"{ACTIVITY}?actor=u_00000000").data == []
    assert company.call("GET", f"{ACTIVITY}?action=%27%20or%201%3D1").data == []

    whole = [row["id"] for row in company.call("GET", ACTIVITY).data]
    first = company.call("GET", f"{ACTIVITY}?limit=3")
    rest = company.call("GET", f"{ACTIVITY}?limit=3&cursor={first.body['next_cursor']}")
    assert [row["id"] for row in (*first.data, *rest.data)] == whole
    assert rest.body["has_more"] is False


def test_anybody_can_check_the_chain(company: Company) -> None:
    for name in ("ä", "\U0001f40e <b>", '"quoted"'):
        company.call("POST", "/v1/companies/{company}/keys", {"name": name})
    chain = sealed(company, 3)[::-1]
    assert [row["number"] for row in chain] == [1, 2, 3]
    before = ""
    for row in chain:
        assert (row["previous_digest"] or "") == before
        assert hashlib.sha256(bytes.fromhex(before) + row["sealed"].encode()).hexdigest() == row["digest"]
        told = json.loads(row["sealed"])
        assert told[3:8] == [row["actor"], row["actor_name"], row["address"], row["action"], row["target"]] or (
            set(told) >= {row["actor"], row["actor_name"], row["address"], row["action"], row["target"]}
        )
        before = row["digest"]


def test_each_half_tells_its_own_and_what_is_of_both(company: Company) -> None:
    holder = company.live_half()
    holder.account()
    invite(holder)
    company.account()
    assert [row["action"] for row in holder.call("GET", ACTIVITY).data] == ["invite_user", "open_account"]
    told = [(row["action"], row["environment"]) for row in company.call("GET", ACTIVITY).data]
    assert told == [("open_account", "test"), ("invite_user", None), ("issue_key", "test")]


def test_secrets_are_left_out(company: Company) -> None:
    hidden = {
        "stripe_key": "sk_test_" + "4eC39HqLyjWDarjtT1zdp7dc",
        "stripe_webhook_secret": "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    }
    assert company.call("PUT", "/v1/companies/{company}", hidden).status == 200
    hook = {"url": "https://hooks.example/x", "username": "tenuto", "password": "seen nowhere"}
    assert company.call("POST", "/v1/companies/{company}/webhooks", hook).status == 200
    issuer = {
        "issuer": "https://auth.example.com/", "audience": f"https://b.example.com/{company.id}", "algorithm": "HS256",
        "secret": "never told to anybody at all, ever",
    }  # fmt: skip
    assert company.call("POST", "/v1/companies/{company}/issuers", issuer).status == 200
    company.card(company.account())

    reply = company.call("GET", ACTIVITY)
    for secret in (*hidden.values(), "seen nowhere", "never told", "tok_visa"):
        assert secret.encode() not in reply.raw
    told = {name for row in reply.data for name, value in (row["asked"] or {}).items() if value == "..."}
    assert told >= {"stripe_key", "stripe_webhook_secret", "password", "secret", "token"}


def test_a_large_body_is_cut(company: Company) -> None:
    account = company.account()
    metadata = {f"name {number}": "x" * 400 for number in range(40)}
    changed = company.call("PUT", f"/v1/accounts/{account}", {"name": "n" * 200, "metadata": metadata})
    assert changed.status in {200, 422}
    company.call("PUT", f"/v1/accounts/{account}", {"metadata": {"note": "y" * 300}})
    reply = company.call("GET", ACTIVITY)
    assert all(len(json.dumps(row["asked"])) < 20_000 for row in reply.data)


# --- exactly one row a change ---


def changing() -> list[Route]:
    return [route for route in ROUTES if route.method != "GET" and not route.family and not route.is_open]


async def count(rows: asyncpg.Connection, company: Company) -> int:
    found = await rows.fetchval("select count(*) from activity where company_id = $1", int(company.id[2:], 36))
    assert isinstance(found, int)
    return found


def seeded(company: Company, route: Route) -> dict[str, str]:
    """One of everything."""
    account = company.account(credits=1000, USD=0)
    company.price("CHAT", "credits", "3")
    ids = {
        "company_id": company.id,
        "account_id": account,
        "event_id": company.send(account, type="CHAT", quantity=2, state="pending").data["id"],
        "price_id": company.price("OTHER", "credits", "1"),
        "account_price_id": company.agreed_price(account, "OTHER", "credits", "2"),
        "plan_id": company.plan(balances={"tokens": {"amount": 1000}}),
        "denomination": "new" if (route.method, route.path[-15:]) == ("POST", "/{denomination}") else "credits",
        "name": "seats",
        "invoice_id": company.invoice(account, is_final=route.method != "PUT"),
        "card_id": company.card(account),
        "payment_id": company.deposit(account),
        "grant_id": company.grant(account),
        "topic": "threshold",
        "user_id": invite(company, "sue@example.com", "support")["id"],
        "key_id": company.call("POST", "/v1/companies/{company}/keys", {"name": "spare"}).data["id"],
        "mode": "test",
        "position": "1",
    }
    ids["webhook_id"], ids["notification_id"] = company.listening_webhook(account)
    ids["issuer_id"], ids["external_id"] = company.issuer(), company.organization()
    company.flag(account, "seats", 5)
    return ids


async def test_every_change_is_told_once_and_no_refusal_ever(client: Client, rows: asyncpg.Connection) -> None:
    """By a body that works where the route has one; usage stands in the ledger instead, and a preview is no change."""
    told: dict[str, int] = {}
    for route in changing():
        company = Company.open(client)
        ids = seeded(company, route)
        if route.path.endswith(("plan", "plan/overrides", "plan/scheduled", "renewplan", "modifymidmonth")):
            company.start(ids["account_id"], ids["plan_id"])
        foreign = {**ids, "company_id": "c_00000000", "account_id": "a_00000000"}
        before = await count(rows, company)
        other = client.call(route.method, f"/v1{route.path.format(**foreign)}", None)
        assert other.status == 401
        assert await count(rows, company) == before, "nobody was there"

        text = json.dumps(route.example).replace("p_00000000", ids["plan_id"])
        body = json.loads(text.replace("https://billing.example.com", f"https://billing.example.com/{company.id}"))
        body = {**body, "preview": False} if isinstance(body, dict) and "preview" in body else body
        path, key = f"/v1{route.path.format(**ids)}", {"idempotency-key": "once"}
        reply = company.call(route.method, path, body, key)
        name = f"{route.method} {route.path}"
        rose = await count(rows, company) - before
        if reply.status >= 300:
            assert rose == 0, (name, reply.raw)
            continue
        assert rose == (0 if is_untold(route) else 1), (name, rose, reply.raw[:300])
        company.call(route.method, path, body, key)
        again = await count(rows, company) - before
        assert again == rose or route.path.endswith("/move"), (name, "once more with the same key")
        told[name] = rose
    assert len(told) > len(changing()) * 3 / 4, "most routes were given a body that works"


def is_untold(route: Route) -> bool:
    """Usage stands in the ledger, event by event; what a plan would cost changes nothing."""
    return "/events" in route.path or route.path.endswith("/preview")


async def test_a_preview_is_no_change(company: Company, rows: asyncpg.Connection) -> None:
    account, plan = company.account(), company.plan()
    company.card(account)
    before = await count(rows, company)
    asked = {"plan_id": plan, "preview": True}
    assert company.call("POST", f"/v1/accounts/{account}/changeplan", asked).status == 200
    assert await count(rows, company) == before
    assert company.call("POST", f"/v1/accounts/{account}/changeplan", {"plan_id": plan}).status == 200
    assert await count(rows, company) == before + 1
