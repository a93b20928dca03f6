"""Two companies, two halves of one, a tree of three organizations and a stranger: nobody learns or touches another's.

The matrix is made from the table of routes: every route of the people of organizations, called by everybody whom what
it is about does not concern. What is another's is as unknown as what never was, to the byte.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, NamedTuple

import asyncpg
import jwt
import pytest
import pytest_asyncio

from tenuto.api.app import ROUTES
from tenuto.api.dialect import FAMILY
from tenuto.api.routes import Route
from tenuto.core.organization import READ_SCOPE
from tenuto.server import Server
from tests.client import Client, Company, Reply
from tests.members import SCOPES, Members

OURS: Final = [route for route in ROUTES if route.family == FAMILY]
OF_ALL: Final = frozenset({"/account/tax/types", "/billing/tax/types"})
"""What is the same for everybody, and needs neither an account nor a scope (contract 5.3)."""
CLEARANCES: Final = frozenset({"/billable", "/account/subscriptions/clearance"})
"""What the services of the company ask for an organization, wherever it stands in its tree (contract 5.9)."""
OPENINGS: Final = frozenset({("POST", "/account"), ("POST", "/billing/account")})
UNKNOWN: Final = {
    "subscription_id": "sub_000000000000000000",
    "own_invoice_id": "in_000000000000000000",
    "method_id": "pm_000000000000000000000000",
    "tax_id": "txi_000000000000000000",
}
PARENT_PAYS: Final = {"message": "The billing of this organization is managed by its parent."}


class Side(NamedTuple):
    """An organization at the top of its tree, with one of everything, in a half of a company."""

    company: Company
    members: Members
    organization: str
    account_id: str
    ids: Mapping[str, str]
    words: tuple[str, ...]
    """What only its own people may read: names, addresses, ids."""

    def call(self, route: Route, ids: Mapping[str, str], body: object = None, organization: str = "") -> Reply:
        path = f"/v1{route.path.format(**ids)}"
        given = route.example if body is None else body
        return self.members.call(route.method, path, given, organization or self.organization)


def named(route: Route) -> str:
    return f"{route.method} {route.path}"


def populated(company: Company, members: Members, organization: str, mark: str) -> Side:
    """An organization that has an account, a card, a tax number, a subscription and an invoice."""
    opened = members.call(
        "POST",
        "/v1/account",
        {"name": f"Owner {mark}", "email": f"{mark}@example.com", "address": {"country": "US"}},
        organization,
    )
    assert opened.status == 201, opened
    found = company.call("GET", f"/v1/companies/{company.id}/organizations/{organization}").data
    account_id = found["account_id"]

    def made(path: str, body: object) -> Any:
        reply = members.call("POST", f"/v1/account/{path}", body, organization)
        assert reply.status in {200, 201}, reply
        return reply.body

    company.card(account_id)
    method = members.call("GET", "/v1/account/payment-methods", None, organization).body[0]
    tax = made("tax", {"type": "us_ein", "value": f"12-34567{len(mark):02}"})
    prices = members.call("GET", "/v1/account/prices", None, organization).body
    subscription = made("subscriptions", {"items": [{"price": prices[0]["id"], "quantity": 1}]})
    invoice = company.invoice(account_id)
    ids = {
        "subscription_id": subscription["id"],
        "own_invoice_id": invoice.replace("inv_", "in_", 1),
        "method_id": method["id"],
        "tax_id": tax["id"],
        "price": prices[0]["id"],
    }
    words = (opened.body["id"], f"Owner {mark}", f"{mark}@example.com", *(ids[name] for name in UNKNOWN))
    return Side(company, members, organization, account_id, ids, words)


class World(NamedTuple):
    """The one whom nobody else may see, and everybody else, by who they are."""

    rows: asyncpg.Connection
    top: Side
    others: Mapping[str, Side]


@pytest_asyncio.fixture(scope="module")
async def world(service: Server) -> AsyncIterator[World]:
    rows = await asyncpg.connect(service.dsn)
    with Client(*service.address) as client:
        company = Company.open(client, "Ours")
        live = company.live_half()
        live.own_stripe()  # test mode has the sandbox
        live.call("PUT", "/v1/companies/{company}", {"stripe_publishable_key": "pk_live_ofOurs12345"})
        theirs = Company.open(client, "Theirs")
        for one in (company, live, theirs):
            one.plan()
        ours = Members(service, company)
        top = populated(company, ours, "top", "ours")
        for below, above in (("middle", "top"), ("leaf", "middle")):
            path = f"/v1/companies/{company.id}/organizations/{below}"
            assert company.call("PUT", path, {"parent": above}).status == 200
        others = {
            "a stranger": populated(company, ours, "stranger", "strangers"),
            "the live half": populated(live, Members(service, live, mode="live"), "top", "lives"),
            "another company": populated(theirs, Members(service, theirs), "top", "theirs"),
        }
        await settled(rows)
        yield World(rows, top, others)
    await rows.close()


async def settled(rows: asyncpg.Connection) -> None:
    """Wait until no tax number is looked up and no payment is under way: rows change by what is asked only."""
    give_up_at = time.monotonic() + 20
    while await rows.fetchval("select exists (select from tax_id where next_at <= clock_timestamp() + '1 s')"):
        assert time.monotonic() < give_up_at, "the register never answered"
        await asyncio.sleep(0.05)


async def facts(world: World) -> dict[str, str]:
    """Of every table with rows of the account, the digest of its rows; of the account and its organizations too."""
    account = int(world.top.account_id.removeprefix("a_"), 36)
    tables = await world.rows.fetch(
        "select c.table_name from information_schema.columns c join information_schema.tables t using (table_name)"
        " where c.column_name = 'account_id' and t.table_type = 'BASE TABLE' and c.table_schema = 'public'"
        " and t.table_schema = 'public' order by 1"
    )
    found = {}
    for table in ["account", *(row["table_name"] for row in tables)]:
        column = "id" if table == "account" else "account_id"
        found[table] = await world.rows.fetchval(
            f"select md5(string_agg(md5(x::text), '' order by md5(x::text))) from \"{table}\" x where {column} = $1",
            account,
        )
    found["below"] = await world.rows.fetchval(
        "select string_agg(b::text, ' ' order by b.external_id) from organization o"
        " join organization b using (environment_id)"
        " where o.account_id = $1 and b.external_id in ('top', 'middle', 'leaf')",
        account,
    )
    return found


def test_nothing_was_left_out() -> None:
    assert len({(route.method, route.path) for route in OURS}) == len(OURS) > 20


def id_of(route: Route) -> str | None:
    found = re.findall(r"{(\w+)}", route.path)
    assert len(found) <= 1
    return found[0] if found else None


WITH_ID: Final = [route for route in OURS if id_of(route) is not None]
OTHERS: Final = ("a stranger", "the live half", "another company")


def test_every_id_of_the_family_stands_in_the_matrix() -> None:
    assert {id_of(route) for route in WITH_ID} == set(UNKNOWN)


@pytest.mark.parametrize("who", OTHERS)
@pytest.mark.parametrize("route", WITH_ID, ids=named)
async def test_anothers_id_is_as_unknown_as_one_that_never_was(world: World, route: Route, who: str) -> None:
    before, caller, name = await facts(world), world.others[who], id_of(route)
    assert name is not None
    foreign = caller.call(route, {name: world.top.ids[name]})
    unknown = caller.call(route, {name: UNKNOWN[name]})

    assert (foreign.status, foreign.body) == (unknown.status, unknown.body)
    assert (foreign.status, set(foreign.body)) == (410, {"message"})
    assert await facts(world) == before


@pytest.mark.parametrize("who", OTHERS)
@pytest.mark.parametrize("route", [route for route in WITH_ID if id_of(route) == "own_invoice_id"], ids=named)
def test_nobody_looks_ahead_of_anothers_subscription(world: World, route: Route, who: str) -> None:
    """The invoice that comes next is asked for by the subscription."""
    caller, expected = world.others[who], (410, {"message"})
    foreign = caller.call(route, {"own_invoice_id": world.top.ids["subscription_id"]})
    unknown = caller.call(route, {"own_invoice_id": UNKNOWN["subscription_id"]})
    assert (foreign.status, set(foreign.body)) == (unknown.status, set(unknown.body)) == expected
    assert foreign.body == unknown.body
    assert world.top.call(route, {"own_invoice_id": world.top.ids["subscription_id"]}).status == 200


@pytest.mark.parametrize("who", OTHERS)
@pytest.mark.parametrize("route", [route for route in OURS if id_of(route) is None], ids=named)
async def test_what_others_do_neither_shows_nor_changes_ours(world: World, route: Route, who: str) -> None:
    before, caller = await facts(world), world.others[who]
    reply = caller.call(route, {})

    assert reply.status < 500 or (route.method, reply.status) == ("DELETE", 501)
    assert not [word for word in world.top.words if word.encode() in reply.raw]
    assert await facts(world) == before


@pytest.mark.parametrize("who", ["middle", "leaf"])
@pytest.mark.parametrize("route", OURS, ids=named)
async def test_those_below_see_nothing_of_who_pays(world: World, route: Route, who: str) -> None:
    before, name = await facts(world), id_of(route)
    replies = [
        world.top.call(route, {name: id} if name is not None else {}, organization=who)
        for id in ((world.top.ids[name], UNKNOWN[name]) if name is not None else ("",))
    ]
    for reply in replies:
        if route.path in OF_ALL:
            assert reply.status == 200
        elif route.path not in CLEARANCES:
            assert (reply.status, reply.body) == (403, PARENT_PAYS)
        assert not [word for word in world.top.words if word.encode() in reply.raw]
    assert await facts(world) == before


@pytest.mark.parametrize("route", OURS, ids=named)
def test_without_an_account_there_is_nothing_but_the_way_to_one(world: World, route: Route) -> None:
    name = id_of(route)
    reply = world.top.call(route, {name: world.top.ids[name]} if name is not None else {}, organization=named(route))
    if route.path in OF_ALL:
        assert reply.status == 200
    elif (route.method, route.path) not in OPENINGS and (route.method, route.path in CLEARANCES) != ("DELETE", True):
        assert (reply.status, reply.body["message"]) == (422, "You need to create an account first")
        assert reply.body["documentation_url"].endswith("/api/accounts#create-an-account")


@pytest.mark.parametrize("route", OURS, ids=named)
async def test_without_a_good_token_every_route_says_the_same(world: World, route: Route) -> None:
    before, name, top = await facts(world), id_of(route), world.top
    path = f"/v1{route.path.format(**top.ids)}" if name is not None else f"/v1{route.path}"
    theirs = world.others["another company"].members
    live = world.others["the live half"].members
    claims = top.members.claims(top.organization)
    forged = {
        "their secret": jwt.encode(claims, theirs.secret(), algorithm="HS256"),
        "the secret of the live half": jwt.encode(claims, live.secret(), algorithm="HS256"),
        "their issuer": jwt.encode({**claims, "iss": theirs.issuer}, top.members.secret(), algorithm="HS256"),
        "the live issuer": jwt.encode({**claims, "iss": live.issuer}, top.members.secret(), algorithm="HS256"),
        "no signature": jwt.encode(claims, "", algorithm="none"),
        "over": jwt.encode({**claims, "exp": claims["iat"] - 100, "iat": claims["iat"] - 200}, top.members.secret()),
        "nothing": "",
        "a key": top.company.key,
    }
    replies = {why: top.members.bearing(token, route.method, path, route.example) for why, token in forged.items()}
    replies["no header"] = top.company.client.call(route.method, path, route.example)
    replies["the company's key"] = top.company.call(route.method, path, route.example)

    assert {why: (reply.status, reply.body) for why, reply in replies.items()} == dict.fromkeys(
        replies, (401, {"message": "The token is not valid."})
    )
    assert await facts(world) == before


@pytest.mark.parametrize("route", [route for route in OURS if route.scope is not None], ids=named)
async def test_without_its_scope_no_route_does_anything(world: World, route: Route) -> None:
    before, name = await facts(world), id_of(route)
    scopes = [scope for scope in SCOPES if scope != route.scope]
    path = f"/v1{route.path.format(**world.top.ids)}" if name is not None else f"/v1{route.path}"
    reply = world.top.members.call(route.method, path, route.example, world.top.organization, scopes)

    assert (reply.status, set(reply.body)) == (403, {"message"})
    assert await facts(world) == before


def test_every_reading_route_reads_and_every_other_one_writes() -> None:
    for route in OURS:
        if route.scope is not None:
            assert (route.scope == READ_SCOPE) == (route.method == "GET"), named(route)
        else:
            assert route.path in OF_ALL | CLEARANCES, named(route)


async def test_ours_are_there_for_their_own_people_all_the_while(world: World) -> None:
    """The matrix is worth something only where the very ids that nobody else can see are seen by who owns them."""
    for route in WITH_ID:
        if route.method == "GET":
            reply = world.top.call(route, world.top.ids)
            assert reply.status == 200, (route.path, world.top.ids, reply)
    for path in ("payment-methods", "tax"):
        listed = world.top.members.call("GET", f"/v1/account/{path}", None, "top")
        kind = {"payment-methods": "method_id", "tax": "tax_id"}[path]
        assert [one["id"] for one in listed.body] == [world.top.ids[kind]]


async def test_a_price_of_another_company_is_as_unknown_as_one_that_never_was(world: World) -> None:
    outcomes = []
    for price in (world.others["another company"].ids["price"], "price_00000000m", "price_zzzzzzzzm"):
        body = {"items": [{"price": price, "quantity": 1}]}
        reply = world.top.members.call("POST", "/v1/account/subscriptions", body, "top")
        outcomes.append((reply.status, reply.raw.replace(price.encode(), b"")))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert outcomes[0][0] in {410, 422}
