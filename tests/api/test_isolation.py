"""Two companies, and the two halves of one: nobody can tell another's ids from ids that never were, or touch a row.

The matrix is made from the table of routes: every route, every position an id can stand in.
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import asyncpg
import pytest
import pytest_asyncio

from tenuto.api.app import ROUTES
from tenuto.api.routes import Route
from tenuto.server import Server
from tests.api.facts import facts_of
from tests.client import Client, Company, Reply

UNKNOWN: Final = {
    "company_id": "c_00000000",
    "account_id": "a_00000000",
    "event_id": "e_000000000000000000",
    "transaction_id": "t_000000000000000000",
    "cause_id": "pay_000000000000000000",
    "price_id": "ep_00000000",
    "account_price_id": "ep_00000000",
    "plan_id": "p_00000000",
    "key_id": "k_00000000",
    "user_id": "u_00000000",
    "invoice_id": "inv_000000000000000000",
    "card_id": "card_000000000000000000",
    "payment_id": "pay_000000000000000000",
    "refund_id": "re_000000000000000000",
    "credit_note_id": "cn_000000000000000000",
    "grant_id": "g_000000000000000000",
    "webhook_id": "w_00000000",
    "notification_id": "wd_000000000000000000",
    "issuer_id": "iss_00000000",
}
OURS: Final = [route for route in ROUTES if not route.family]  # the others: test_organization_matrix
NO_IDS: Final = frozenset({"denomination", "name", "position", "mode", "topic", "external_id"})
SHARED: Final = frozenset({"company_id", "user_id"})
ID_KINDS: Final = frozenset({"account_id", "event_id", "cause_id", "plan_id"})


class Side(NamedTuple):
    """A company, or one half of it, with one of everything."""

    company: Company
    live: bool
    ids: dict[str, str]
    cursors: dict[str, str]


class Position(NamedTuple):
    """Where in a request to a route an id stands: ``where`` is path, query, cursor or body."""

    route: Route
    where: str
    name: str
    kind: str


def positions() -> list[Position]:
    found: list[Position] = []
    for route in OURS:
        found += [
            Position(route, "path", name, name) for name in re.findall(r"{(\w+)}", route.path) if name not in NO_IDS
        ]
        found += [Position(route, "query", param.name, param.kind) for param in route.query if param.kind in ID_KINDS]
        found += [Position(route, "cursor", param.name, "cursor") for param in route.query if param.kind == "cursor"]
    events = next(route for route in ROUTES if route.path.endswith("/events") and route.method == "POST")
    return [*found, Position(events, "body", "parent_event_id", "event_id")]


MATRIX: Final = positions()


def populated(company: Company, *, live: bool) -> Side:
    if live:
        company.own_stripe()  # test mode has the sandbox
    account = company.account(credits=100, tokens=5)
    company.account()
    price = company.price("CHAT", "credits", "3")
    company.price("CHAT", "tokens", "1")
    plan = [company.plan(code=code) for code in ("pro", "team")][-1]
    company.call("PUT", f"/v1/plans/{plan}", {"name": "Team"})
    hold = company.send(account, type="CHAT", state="pending")
    company.send(account, type="CHAT")
    for _ in range(2):
        assert company.send(account, type="CHAT", quantity=999, gate_on_balance=True).status == 402
    company.call("POST", "/v1/companies/{company}/keys", {"name": "another"})
    keys = company.call("GET", "/v1/companies/{company}/keys")
    card, payment = company.card(account), [company.deposit(account) for _ in range(2)][-1]
    ids = {
        "company_id": company.id,
        "account_id": account,
        "event_id": hold.data["id"],
        "price_id": price,
        "account_price_id": [company.agreed_price(account, kind, "credits", "2") for kind in ("DRAW", "SING")][-1],
        "plan_id": plan,
        "key_id": keys.data[0]["id"],
        "user_id": [company.invite(f"{name}-{live}@example.com") for name in ("grace", "sue")][-1],
        "denomination": "credits",
        "name": "seats",
        "invoice_id": [company.invoice(account) for _ in range(2)][-1],
        "position": "1",
        "card_id": card,
        "payment_id": payment,
        "cause_id": payment,
        "transaction_id": company.moved(account),
        "grant_id": [company.grant(account) for _ in range(2)][-1],
        "mode": "live" if live else "test",
        "topic": "balance_change",
    }
    ids["refund_id"], ids["credit_note_id"] = company.refund(payment), company.credit_note(ids["invoice_id"])
    for scheme in ("snow_white", "ariel"):
        company.start(account, plan, scheme=scheme)
    for seats in (5, 8):
        company.flag(account, ids["name"], seats)
    for _ in range(2):
        asked_for = {"denomination": "credits", "amounts": [{"amount": 10, "charge_amount": 100}]}
        assert company.call("POST", f"/v1/accounts/{account}/topup_request", asked_for).status == 200
    ids["webhook_id"], ids["notification_id"] = company.listening_webhook(account)
    ids["issuer_id"] = company.issuer()
    ids["external_id"] = [company.organization(name) for name in ("org-1", "org-2")][-1]
    cursors: dict[str, str] = {}
    for route in OURS:
        if route.is_list and any(param.kind == "cursor" for param in route.query):
            page = company.call("GET", f"/v1{route.path.format(**ids)}?limit=1")
            assert page.body["has_more"] is True, route.path
            cursors[route.path] = page.body["next_cursor"]
    return Side(company, live, ids, cursors)


class World(NamedTuple):
    """Ours, and two that are not: another company, and the live half of our own."""

    rows: asyncpg.Connection
    ours: Side
    foreign: dict[str, Side]


@pytest_asyncio.fixture(scope="module")
async def world(service: Server) -> AsyncIterator[World]:
    rows = await asyncpg.connect(service.dsn)
    with Client(*service.address) as client:
        company = Company.open(client, "Ours")
        live = company.live_half()
        ours = populated(company, live=False)
        theirs = populated(Company.open(client, "Theirs"), live=False)
        yield World(rows, ours, {"another company": theirs, "the live half": populated(live, live=True)})
    await rows.close()


def asked(side: Side, position: Position, id: str) -> Reply:
    """The route called by ``side`` with its own ids but for the one position."""
    route, ids, body, query = position.route, dict(side.ids), position.route.example, ""
    match position.where:
        case "path":
            ids[position.name] = id
        case "body":
            body = {**body, position.name: id}
        case _:
            query = f"?{position.name}={quote(id)}"
    if route.is_open:
        body = {"id": "evt_1", "type": "payment_intent.succeeded"}
    return side.company.call(route.method, f"/v1{route.path.format(**ids)}{query}", body)


def seen(reply: Reply) -> tuple[int, Any]:
    """A reply without what is different every time."""
    body = reply.body
    if "error" in body:
        body = {"error": {name: value for name, value in body["error"].items() if name != "request_id"}}
    return reply.status, body


@pytest.mark.parametrize(
    ("position", "whose"),
    [
        pytest.param(place, whose, id=f"{place.route.method} {place.route.path} {place.where} {place.name} of {whose}")
        for place in MATRIX
        for whose in ("another company", "the live half")
        # The halves of a company share its id and its users: which half a call is about is said by the key.
        if place.kind not in SHARED or whose != "the live half"
    ],
)
async def test_a_foreign_id_is_as_unknown_as_one_that_never_was(world: World, position: Position, whose: str) -> None:
    other = world.foreign[whose]
    before = await facts_of(world.rows, other.company.id, live=other.live)

    if position.where == "cursor":
        foreign = asked(world.ours, position, other.cursors[position.route.path])
        unknown = asked(world.ours, position, "1-1-0123456789ab")
    else:
        foreign = asked(world.ours, position, other.ids[position.kind])
        unknown = asked(world.ours, position, UNKNOWN[position.kind])

    assert seen(foreign) == seen(unknown)
    expected = {"path": {404}, "query": {200}, "cursor": {400}, "body": {422}}[position.where]
    if (position.route.method, position.where) == ("DELETE", "query"):
        expected = {404}  # what is heard of an account that is none of ours is nothing
    if position.route.is_open:
        expected = {400}  # judged by the signature of what arrives, before anything else is said
    assert foreign.status in expected
    assert foreign.status != 200 or foreign.data == []
    assert await facts_of(world.rows, other.company.id, live=other.live) == before


@pytest.mark.parametrize("whose", ["another company", "the live half"])
def test_our_lists_hold_nothing_of_theirs(world: World, whose: str) -> None:
    theirs = world.foreign[whose].ids
    hidden = [id for name, id in theirs.items() if name not in SHARED and name not in NO_IDS]
    for route in OURS:
        if route.method == "GET":
            reply = world.ours.company.call("GET", f"/v1{route.path.format(**world.ours.ids)}")
            assert reply.status == 200, route.path
            assert not any(id.encode() in reply.raw for id in hidden), route.path


def test_one_key_in_two_companies_is_two_keys(world: World) -> None:
    for side in (world.ours, *world.foreign.values()):
        reply = side.company.call(
            "POST",
            f"/v1/accounts/{side.ids['account_id']}/balance/credits/adjust",
            {"amount": 1},
            {"idempotency-key": "the same everywhere"},
        )
        assert reply.status == 200
        assert not reply.is_replay


def test_a_foreign_account_does_not_consume_our_key(world: World) -> None:
    foreign = world.foreign["another company"].ids["account_id"]
    headers = {"idempotency-key": "not spent"}

    assert world.ours.company.call("POST", f"/v1/accounts/{foreign}/events", {"type": "A"}, headers).status == 404
    own = world.ours.ids["account_id"]
    assert world.ours.company.call("POST", f"/v1/accounts/{own}/events", {"type": "A"}, headers).status == 200


def test_company_and_key_must_belong_together(world: World) -> None:
    ours, theirs = world.ours.company, world.foreign["another company"].company
    account = world.ours.ids["account_id"]
    outcomes = []
    for company_id, key in (
        (theirs.id, ours.key),
        (ours.id, theirs.key),
        ("c_00000000", ours.key),
        (ours.id, ours.key[:-1]),
    ):
        basic = base64.b64encode(f"{company_id}:{key}".encode()).decode()
        reply = ours.client.call("GET", f"/v1/accounts/{account}", headers={"authorization": f"Basic {basic}"})
        outcomes.append(seen(reply))

    assert [status for status, _ in outcomes] == [401] * 4
    assert all(outcome == outcomes[0] for outcome in outcomes)
