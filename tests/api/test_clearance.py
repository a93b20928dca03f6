"""Clearance: whether one more of something is covered, asked with the token of whoever creates it (contract 5.9)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any, Final

import asyncpg
import pytest

from tenuto.engine import Engine
from tenuto.gateway.egress import Egress
from tenuto.server import Server
from tenuto.service import clearance
from tests.client import Client, Company
from tests.counting import Sites, flood, saying, send
from tests.members import Members

SITE: Final = {"class": "App\\Models\\Site", "basename": "Site", "api_prefix": "https://api.example/v1/sites"}
SETTINGS: Final = {"billables": {"Site": {"denomination": "sites"}, "Note": {"free": True}}}
MINE: Final = "where environment_id = (select environment_id from account where public_id = $1)"
HIDDEN: Final = "Whoever pays for this organization is not in good standing."


class World:
    """A company with the organization ``org-1``, which has an account, and what its people ask."""

    def __init__(self, server: Server, client: Client) -> None:
        self.company = Company.open(client)
        self.members = Members(server, self.company)
        self.public_id = str(self.members.account("org-1")["id"])
        self.account = str(self.company.call("GET", "/v1/companies/{company}/accounts").data[0]["id"])
        self.set(**SETTINGS)

    def set(self, **settings: object) -> Any:
        reply = self.company.call("PUT", "/v1/companies/{company}", settings)
        assert reply.status == 200, reply
        return reply.data

    def subscribe(self, sites: int | None = 2, **terms: Any) -> str:
        balances = {} if sites is None else {"sites": {"amount": sites}}
        plan = self.company.plan(renewals={"MONTHLY": {"amount": 0}}, **{"balances": balances, **terms})
        return self.company.start(self.account, plan)

    def put_below(self, organization: str, parent: str | None = "org-1") -> None:
        path = f"/v1/companies/{{company}}/organizations/{organization}"
        assert self.company.call("PUT", path, {"parent": parent}).status == 200

    def ask(self, organization: str = "org-1", *, method: str = "POST", **body: Any) -> Any:
        return self.members.call(method, "/v1/billable", {**SITE, **body}, organization)

    def reasons(self, organization: str = "org-1", **body: Any) -> list[str]:
        """Why nothing was cleared."""
        reply = self.ask(organization, **body)
        assert reply.status == 402, reply
        assert set(reply.body) == {"message", "errors"}
        assert set(reply.body["errors"]) == {"reasons"}
        reasons: list[str] = reply.body["errors"]["reasons"]
        assert reply.body["message"].startswith(reasons[0])
        return reasons

    def clears(self, organization: str = "org-1", **body: Any) -> tuple[int | None, int | None]:
        """What was used of what total when one more was cleared."""
        reply = self.ask(organization, **body)
        assert reply.status == 200, reply
        assert reply.body["allowed"] is True
        assert set(reply.body) == {"allowed", "used", "total"}
        return reply.body["used"], reply.body["total"]


@pytest.fixture
def world(calling_service: Server) -> Iterator[World]:
    """A fresh company at the service that may call this machine."""
    with Client(*calling_service.address) as client:
        yield World(calling_service, client)


@pytest.fixture
def sites(world: World) -> Iterator[Sites]:
    """A service that counts sites, known to the company."""
    with Sites() as found:
        world.set(billable_prefixes=[found.url])
        yield found


# --- what is covered --------------------------------------------------------------------------------------------------


def test_clearances_are_counted_up_to_what_the_plan_includes_and_given_back(world: World) -> None:
    world.subscribe(2)

    assert [world.clears(), world.clears()] == [(0, 2), (1, 2)]
    assert world.reasons() == ["2 of 2 Site are in use."]

    assert world.ask(method="DELETE").status == 204
    assert world.clears() == (1, 2)
    assert world.reasons() == ["2 of 2 Site are in use."]


def test_no_more_is_given_back_than_was_cleared(world: World) -> None:
    world.subscribe(1)
    for _ in range(3):
        reply = world.ask(method="DELETE")
        assert (reply.status, reply.raw) == (204, b"")
    assert world.clears() == (0, 1)
    world.reasons()


def test_both_addresses_are_one(world: World) -> None:
    world.subscribe(2)
    again = world.members.call("POST", "/v1/account/subscriptions/clearance", SITE)
    assert (again.status, again.body) == (200, {"allowed": True, "used": 0, "total": 2})
    assert world.clears() == (1, 2)
    assert world.members.call("DELETE", "/v1/account/subscriptions/clearance", SITE).status == 204
    assert world.clears() == (1, 2)


def test_what_is_free_needs_the_account_only(world: World) -> None:
    assert world.clears(basename="Note") == (None, None)
    assert world.ask("org-2", basename="Note").status == 422


def test_what_is_not_listed_needs_a_subscription_and_has_no_limit(world: World) -> None:
    assert world.reasons(basename="Banner") == ["There is no subscription."]
    world.subscribe()
    assert [world.clears(basename="Banner") for _ in range(3)] == [(None, None)] * 3


def test_units_that_were_chosen_count_too(world: World) -> None:
    terms = {"balances": {"sites": {"amount": 2, "variable_amount_cost": 0}}}
    plan = world.company.plan(renewals={"MONTHLY": {"amount": 0}}, **terms)
    world.company.start(world.account, plan, plan_variable_amounts={"sites": 3})
    assert world.clears() == (0, 5)


@pytest.mark.parametrize(
    ("value", "total"),
    [(7, 7), (True, None), ({"metered": "seats"}, 4)],
    ids=["limit", "on", "metered"],
)
def test_a_flag_of_that_name_sets_the_limit(world: World, value: object, total: int | None) -> None:
    world.subscribe(None, balances={"seats": {"amount": 4}}, flags={"sites": value})
    assert world.clears() == (0, total)


@pytest.mark.parametrize("value", [0, False, "many", {"metered": "nothing"}], ids=str)
def test_a_flag_that_is_off_includes_none(world: World, value: object) -> None:
    world.subscribe(None, flags={"sites": value})
    assert world.reasons() == ["The subscription does not include any Site."]


def test_what_was_agreed_by_a_flag_goes_before_the_plan(world: World) -> None:
    world.subscribe(2, flags={"sites": 3})
    assert world.clears() == (0, 2), "the plan's balance goes before its flag"
    world.company.flag(world.account, "sites", 5)
    assert world.clears() == (1, 5)
    world.company.flag(world.account, "sites", value=True)
    assert world.clears() == (2, None)
    world.company.flag(world.account, "sites", 10**15)
    assert world.clears() == (3, 10**15)
    world.company.flag(world.account, "sites", -1)
    assert world.reasons() == ["The subscription does not include any Site."]


def test_the_same_key_takes_one_place(world: World) -> None:
    world.subscribe(1)
    key = {"idempotency-key": "create-1"}
    first, again = (world.members.call("POST", "/v1/billable", SITE, headers=key) for _ in range(2))
    assert (first.status, again.status, again.is_replay) == (200, 200, True)
    assert first.body == again.body == {"allowed": True, "used": 0, "total": 1}
    world.reasons()


def test_the_same_key_gives_one_place_back(world: World) -> None:
    world.subscribe(2)
    assert (world.clears(), world.clears()) == ((0, 2), (1, 2))
    key = {"idempotency-key": "gone-1"}
    first, again = (world.members.call("DELETE", "/v1/billable", SITE, headers=key) for _ in range(2))
    assert (first.status, again.status, again.is_replay) == (204, 204, True)
    assert world.clears() == (1, 2)
    world.reasons()


# --- reasons ----------------------------------------------------------------------------------------------------------


async def test_only_an_active_subscription_or_a_trial_covers_anything(world: World, rows: asyncpg.Connection) -> None:
    world.subscribe(10)
    why = {
        "pending_card": ["The subscription waits for a payment method."],
        "past_due": ["The subscription was not paid."],
        "paused": ["The subscription is paused."],
        "cancelled": ["The subscription has ended."],
    }
    found = {}
    for status in (*why, "active", "trialing"):
        await rows.execute(
            "update subscription set status = $1 where account_id = (select id from account where public_id = $2)",
            status,
            world.public_id,
        )
        found[status] = world.ask().status
        if status in why:
            assert world.reasons() == why[status]
    assert found == {**dict.fromkeys(why, 402), "active": 200, "trialing": 200}


async def test_an_invoice_past_due_beyond_the_grace_refuses(world: World, rows: asyncpg.Connection) -> None:
    world.subscribe(10)
    world.company.invoice(world.account)

    async def due(ago: str) -> None:
        moved = await rows.execute(
            "update invoice set due_at = clock_timestamp() - $1::text::interval"
            " where account_id = (select id from account where public_id = $2)",
            ago,
            world.public_id,
        )
        assert moved == "UPDATE 1"

    await due("50 minutes")
    assert world.clears() == (0, 10)
    await due("2 days")
    assert world.reasons() == ["An invoice is past due."]
    world.set(invoicing={"dunning": [{"days": 1, "action": "remind"}, {"days": 3, "action": "pause"}]})
    assert world.clears() == (1, 10)
    await due("4 days")
    assert "An invoice is past due." in world.reasons()


def test_while_the_account_or_the_company_stands_still_nothing_is_cleared(world: World) -> None:
    world.subscribe(10)
    account, company = f"/v1/accounts/{world.account}", "/v1/companies/{company}"
    blocked = "The account is over its limit and blocked until it pays."
    for stop, go_on, why in (
        (f"{account}/pause", f"{account}/resume", "The account is paused."),
        (f"{company}/pause", f"{company}/resume", "The account is paused."),
        (f"{account}/credit_block", f"{account}/credit_unblock", blocked),
    ):
        assert world.company.call("POST", stop, {}).status == 200
        assert world.reasons() == [why]
        assert world.company.call("POST", go_on, {}).status == 200
    assert world.clears() == (0, 10), "nothing of all that was counted"


def test_all_reasons_are_told_together(world: World) -> None:
    world.company.call("POST", f"/v1/accounts/{world.account}/pause", {})
    reply = world.ask()
    assert (reply.status, reply.body) == (
        402,
        {
            "message": "There is no subscription. (and 1 more reason)",
            "errors": {"reasons": ["There is no subscription.", "The account is paused."]},
        },
    )


def test_without_an_account_one_is_to_be_created_first(world: World) -> None:
    reply = world.ask("org-9")
    assert reply.status == 422
    assert world.ask("org-9", method="DELETE").status == 422
    assert set(reply.body) == {"message", "documentation_url"}
    assert reply.body["message"] == "You need to create an account first"


# --- trees ------------------------------------------------------------------------------------------------------------


def test_a_tree_shares_what_its_top_pays_for(world: World) -> None:
    world.subscribe(3)
    world.put_below("org-2")
    world.put_below("org-3", "org-2")
    assert [world.clears(name) for name in ("org-1", "org-2", "org-3")] == [(0, 3), (1, 3), (2, 3)]
    for name in ("org-1", "org-2", "org-3"):
        assert world.reasons(name) == ["3 of 3 Site are in use."]

    world.put_below("org-4", None)
    world.put_below("org-3", "org-4")
    assert world.ask("org-3").status == 422, "who pays for it now has no account"
    assert world.clears() == (2, 3), "what it has goes with it"


def test_a_child_is_not_told_how_its_parent_pays(world: World) -> None:
    world.put_below("org-2")
    assert world.reasons("org-2") == [HIDDEN]
    world.put_below("org-4", None)
    world.put_below("org-3", "org-4")
    reply = world.ask("org-3")
    assert (reply.status, reply.body["message"]) == (422, "Whoever pays has no account yet")


def test_counts_of_a_tree_are_added_up(world: World, sites: Sites) -> None:
    world.subscribe(3)
    world.put_below("org-2")
    sites.rows["org-2"] = 2
    assert world.clears("org-2", api_prefix=sites.url) == (2, 3)
    assert world.reasons("org-1", api_prefix=sites.url) == ["3 of 3 Site are in use."]


# --- services that count ----------------------------------------------------------------------------------------------


def test_the_service_is_asked_with_the_callers_own_token(world: World, sites: Sites) -> None:
    world.set(billables={"SiteUser": {"denomination": "sites"}})
    world.subscribe(5)
    sites.rows["org-1"] = 3
    seen: list[str] = []

    def note(visit: Any) -> None:
        seen.append(visit.headers["authorization"])
        send(visit, 200, {"count": 3})

    sites.answer = note
    token = world.members.token()
    body = {**SITE, "basename": "SiteUser", "api_prefix": f"{sites.url}/below/"}
    reply = world.members.bearing(token, "POST", "/v1/billable", body)
    assert (reply.status, reply.body) == (200, {"allowed": True, "used": 3, "total": 5})
    assert sites.asked == [("/v1/sites/below/billable-count/site-user?count=1", "org-1")]
    assert seen == [f"Bearer {token}"]


async def forget(rows: asyncpg.Connection, world: World) -> None:
    """Let the minute for which clearances are remembered be over."""
    await rows.execute(f"update clearance set until = clock_timestamp() - interval '1 second' {MINE}", world.public_id)


async def test_what_was_cleared_counts_for_a_minute_and_then_what_is_there(
    world: World, sites: Sites, rows: asyncpg.Connection
) -> None:
    world.subscribe(2)
    asked = {"api_prefix": sites.url}
    assert [world.clears(**asked), world.clears(**asked)] == [(0, 2), (1, 2)]
    assert world.reasons(**asked) == ["2 of 2 Site are in use."]

    left = await rows.fetchval(f"select until - clock_timestamp() from clearance {MINE}", world.public_id)
    assert 50 < left.total_seconds() <= 60
    await forget(rows, world)
    sites.rows["org-1"] = 2
    assert world.reasons(**asked) == ["2 of 2 Site are in use."]
    sites.rows["org-1"] = 1
    assert world.clears(**asked) == (1, 2)
    assert world.ask(method="DELETE", **asked).status == 204
    assert world.clears(**asked) == (1, 2), "what was not made after all leaves its place"


async def test_a_count_that_refuses_one_frees_the_others_of_its_tree(
    world: World, sites: Sites, rows: asyncpg.Connection
) -> None:
    world.subscribe(4)
    world.put_below("org-2")
    asked = {"api_prefix": sites.url}
    sites.rows["org-1"] = 3
    assert world.clears(**asked) == (3, 4)
    await forget(rows, world)
    sites.rows["org-1"], sites.rows["org-2"] = 2, 4
    assert world.reasons("org-2", **asked) == ["8 of 4 Site are in use."]
    assert world.reasons("org-1", **asked) == ["6 of 4 Site are in use."]
    sites.rows["org-2"] = 1
    assert world.clears("org-2", **asked) == (3, 4)


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (410, {"message": "There is no Site here."}, "There is no Site here."),
        (410, b"", "Site is not known to the service that should count it."),
        (422, {"message": "A Site is not billable."}, "A Site is not billable."),
        (422, {"message": 5}, "Site is not billable."),
        (422, {"message": "a" * 900}, "a" * 200),
        (410, {"message": "\x1b[31mred"}, "Site is not known to the service that should count it."),
        (500, {"count": 0}, "an answer of 500 without a count"),
        (200, {"count": -1}, "an answer of 200 without a count"),
        (200, {"count": True}, "an answer of 200 without a count"),
        (200, {"count": 1.0}, "an answer of 200 without a count"),
        (200, {"count": "1"}, "an answer of 200 without a count"),
        (200, {"count": 2**64}, "an answer of 200 without a count"),
        (200, [{"id": 1}], "an answer of 200 without a count"),
        (200, b"[" * 60_000, "an answer of 200 without a count"),
        (200, b"\xff\xfe", "an answer of 200 without a count"),
        (204, b"", "an answer of 204 without a count"),
    ],
    ids=lambda value: None if isinstance(value, int) else repr(value)[:24],
)
def test_a_count_that_is_none_clears_nothing(
    world: World, sites: Sites, status: int, body: object, reason: str
) -> None:
    world.subscribe(5)
    sites.answer = saying(status, body)
    (said,) = world.reasons(api_prefix=sites.url)
    assert reason in said
    assert len(said) <= 250


@pytest.mark.parametrize("way", ["hang", "drip", "flood", "redirect", "closed"])
def test_a_service_that_does_not_answer_well_clears_nothing_and_holds_nobody(
    world: World, sites: Sites, way: str
) -> None:
    world.subscribe(5)
    near = saying(302, b"", location=f"{sites.url}/billable-count/site?count=1")
    sites.answer = {"hang": sites.hang, "drip": sites.drip, "flood": flood, "redirect": near, "closed": None}[way]
    if way == "closed":
        sites.__exit__(None, None, None)
    begun = time.monotonic()
    (said,) = world.reasons(api_prefix=sites.url)
    assert time.monotonic() - begun < 5
    assert "could not be counted" in said
    assert len(sites.asked) == (way != "closed"), "it is asked once, and not led elsewhere"


def test_a_missing_subscription_and_a_missing_count_are_told_together(world: World, sites: Sites) -> None:
    sites.answer = saying(422, {"message": "No."})
    assert world.reasons(api_prefix=sites.url) == ["There is no subscription.", "No."]


def test_who_is_moved_while_its_service_counts_is_asked_to_come_again(
    world: World, sites: Sites, calling_service: Server
) -> None:
    world.subscribe(2)
    world.put_below("org-2")
    world.put_below("org-3", None)

    def moved(visit: BaseHTTPRequestHandler) -> None:
        with Client(*calling_service.address) as other:
            mover = Company(other, world.company.id, world.company.key)
            path = "/v1/companies/{company}/organizations/org-2"
            assert mover.call("PUT", path, {"parent": "org-3"}).status == 200
        saying(200, {"count": 0})(visit)

    sites.answer = moved
    reply = world.ask("org-2", api_prefix=sites.url)
    assert (reply.status, reply.body["message"]) == (503, "The organization was moved a moment ago: ask again.")
    assert world.clears("org-1", api_prefix=sites.url) == (0, 2)


async def test_a_name_that_means_a_near_address_is_not_called(engine: Engine) -> None:
    async def near(_: str) -> list[str]:
        return ["127.0.0.1"]

    with Sites() as sites:
        port = sites.url.split(":")[2].partition("/")[0]
        engine._egress = Egress(allow_private=False, lookup=near)
        for prefix in ("https://sites.example/v1", f"https://sites.example:{port}/v1", sites.url):
            found = await clearance.count(engine, 1, prefix, "Site", "Bearer x")
            assert found.number is None
            assert "blocked_address" in str(found.reason)
        assert sites.asked == []


# --- addresses --------------------------------------------------------------------------------------------------------


def tricks(sites: Sites) -> list[str]:
    """Prefixes that mean another address than one below that of the service."""
    host = sites.url.removeprefix("http://").partition("/")[0]
    return [
        f"http://{host}/v1",
        f"http://{host}/v1/sitesque",
        f"http://{host}/v1/sites/../admin",
        f"http://{host}/v1/sites/..",
        f"http://{host}/v1/sites/%2e%2e/admin",
        f"http://{host}/v1/sites/%2E./admin",
        f"http://{host}/v1/sites/..%2fadmin",
        f"http://{host}/v1/sites/..\\admin",
        f"http://{host}/v1/sites//",
        f"http://{host}//v1/sites",
        f"http://{host}/v1/sites?x=",
        f"http://{host}/v1/sites#",
        f"http://{host}/v1/sites;a",
        f"http://{host}/v1/sites/\u2025/x",
        f"http://{host}/V1/sites",
        f"http://user@{host}/v1/sites",
        f"http://{host}@evil.example/v1/sites",
        f"http://{host}.evil.example/v1/sites",
        f"http://evil.example/{host}/v1/sites",
        f"https://{host}/v1/sites",
        f"HTTP://{host}/v1/sites/../../",
        f"//{host}/v1/sites",
        f"/{host}/v1/sites",
        "http://169.254.169.254/v1/sites",
        "http://127.0.0.1/v1/sites",
        "http://127.0.0.1:1/v1/sites",
        "http://localhost/v1/sites",
        "http://[::1]/v1/sites",
        f"http://2130706433:{host.rpartition(':')[2]}/v1/sites",
        f"http://\uff11\uff12\uff17.0.0.1:{host.rpartition(':')[2]}/v1/sites",
        "file:///etc/passwd",
        "gopher://evil.example/v1/sites",
        f" {sites.url}",
        f"{sites.url}\n",
        f"{sites.url}\r\nX-Other: 1",
        f"{sites.url}/" + "a" * 2000,
        "sites",
    ]


def test_no_prefix_leads_anywhere_but_below_a_registered_one(world: World, sites: Sites) -> None:
    world.subscribe(100)
    for prefix in tricks(sites):
        reply = world.ask(api_prefix=prefix)
        assert reply.status == 422, (prefix, reply)
        assert set(reply.body) == {"message", "errors"}
        assert set(reply.body["errors"]) == {"api_prefix"}, prefix
    assert sites.asked == [], "nobody was given a token"
    for good in (sites.url, f"{sites.url}/", f"{sites.url}/a/b.c/~d"):
        assert world.ask(api_prefix=good).status == 200, good


def test_a_service_of_another_company_is_not_asked(world: World, sites: Sites, calling_service: Server) -> None:
    with Client(*calling_service.address) as client:
        other = World(calling_service, client)
        other.subscribe(5)
        assert other.clears(api_prefix=sites.url) == (0, 5), "it has registered none: its clearances are counted"
        other.set(billable_prefixes=["https://api.example/v1"])
        assert other.ask(api_prefix=sites.url).status == 422
    assert sites.asked == []


def test_a_company_that_has_registered_services_is_told_which_one_to_ask(world: World, sites: Sites) -> None:
    world.subscribe(5)
    reply = world.members.call("POST", "/v1/billable", {"class": "Site", "basename": "Site"})
    assert (reply.status, reply.body["errors"]) == (422, {"api_prefix": ["The api prefix field is required."]})
    assert sites.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "http://api.example/v1",
        "https://127.0.0.1/v1",
        "https://10.0.0.1/v1",
        "https://[::ffff:127.0.0.1]/v1",
        "https://169.254.169.254/latest",
        "https://localhost/v1",
        "https://metadata.google.internal/v1",
        "https://api.example:25/v1",
        "https://api.example/v1?x=1",
        "https://api.example?/",
        "https://api.example?x",
        "https://api.example/v1/%2e%2e",
        "https://api.example/v1/../v2",
        "https://api.example//v1",
        "https://user:word@api.example/v1",
        "https://api.example/v1#a",
        "api.example/v1",
        "",
    ],
)
def test_a_prefix_is_a_plain_public_address(company: Company, url: str) -> None:
    reply = company.call("PUT", "/v1/companies/{company}", {"billable_prefixes": ["https://api.example", url]})
    assert (reply.status, reply.code, reply.details["path"]) == (422, "url_not_allowed", "billable_prefixes[1]")


# --- settings ---------------------------------------------------------------------------------------------------------


def test_settings_are_shown_as_they_were_set_and_stay(company: Company) -> None:
    def settings() -> tuple[object, object]:
        shown = company.call("GET", "/v1/companies/{company}").data
        return shown["billables"], shown["billable_prefixes"]

    assert settings() == ({}, [])
    prefixes = ["https://api.example/v1/sites", "https://API.example:8443"]
    assert company.call("PUT", "/v1/companies/{company}", {**SETTINGS, "billable_prefixes": prefixes}).status == 200
    set_now = ({"Site": {"denomination": "sites"}, "Note": {"free": True}}, [prefixes[0], "https://api.example:8443"])
    assert settings() == set_now
    assert company.call("PUT", "/v1/companies/{company}", {"name": "Acme Ltd"}).status == 200
    assert settings() == set_now
    company.call("PUT", "/v1/companies/{company}", {"billables": {}, "billable_prefixes": []})
    assert settings() == ({}, [])


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"billables": {"Site": {}}}, "billables.Site"),
        ({"billables": {"Site": {"free": False}}}, "billables.Site"),
        ({"billables": {"Site": {"free": True, "denomination": "sites"}}}, "billables.Site"),
        ({"billables": {"Site": {"denomination": "my sites"}}}, "billables.Site.denomination"),
        ({"billables": {"Site": {"denomination": ""}}}, "billables.Site.denomination"),
        ({"billables": {"App\\Site": {"free": True}}}, "billables"),
        ({"billables": {"": {"free": True}}}, "billables"),
        ({"billables": {"S" * 101: {"free": True}}}, "billables"),
        ({"billables": {f"S{index}": {"free": True} for index in range(101)}}, "billables"),
        ({"billable_prefixes": [f"https://api.example/{index}" for index in range(21)]}, "billable_prefixes"),
    ],
    ids=lambda value: repr(value)[:48],
)
def test_settings_that_mean_nothing_are_refused(company: Company, settings: object, field: str) -> None:
    reply = company.call("PUT", "/v1/companies/{company}", settings)
    assert (reply.status, reply.details["path"]) == (422, field)


# --- who asks, and how ------------------------------------------------------------------------------------------------


def test_a_valid_token_is_enough_whatever_its_scopes(world: World) -> None:
    world.subscribe(5)
    for scopes in ((), ("account:read",), ("something:else",)):
        assert world.members.call("POST", "/v1/billable", SITE, scopes=scopes).status == 200
    for headers in ({}, {"authorization": "Bearer a.b.c"}):
        reply = world.company.client.call("POST", "/v1/billable", SITE, headers)
        assert (reply.status, set(reply.body)) == (401, {"message"})
    assert world.company.call("POST", "/v1/billable", SITE).status == 401


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"basename": None}, "basename"),
        ({"basename": ""}, "basename"),
        ({"basename": 5}, "basename"),
        ({"basename": ["Site"]}, "basename"),
        ({"basename": {"Site": 1}}, "basename"),
        ({"basename": "Site/../../admin"}, "basename"),
        ({"basename": "Site?count=0&x="}, "basename"),
        ({"basename": "Site#"}, "basename"),
        ({"basename": "Site\r\nX: 1"}, "basename"),
        ({"basename": "Site\u202e"}, "basename"),
        ({"basename": "'; drop table clearance; --"}, "basename"),
        ({"basename": "\u0421ite"}, "basename"),
        ({"basename": "9Site"}, "basename"),
        ({"basename": "S" * 101}, "basename"),
        ({"class": None}, "class"),
        ({"class": ""}, "class"),
        ({"class": True}, "class"),
        ({"class": "S" * 256}, "class"),
        ({"class": "App\nSite"}, "class"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_to_be_created_is_said_plainly(world: World, changes: dict[str, Any], field: str) -> None:
    for method in ("POST", "DELETE"):
        reply = world.ask(method=method, **changes)
        assert reply.status == 422, reply
        assert set(reply.body) == {"message", "errors"}
        assert set(reply.body["errors"]) == {field}


def test_all_that_is_wrong_is_told_together(world: World) -> None:
    reply = world.members.call("POST", "/v1/billable", {})
    assert (reply.status, reply.body) == (
        422,
        {
            "message": "The basename field is required. (and 1 more error)",
            "errors": {"basename": ["The basename field is required."], "class": ["The class field is required."]},
        },
    )


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"[]", 422), (b"5", 422), (b"{", 400), (b"\xff", 400), (b'{"basename": "a\\u0000"}', 422)],
    ids=repr,
)
def test_what_is_no_object_is_refused_in_the_dialect(world: World, body: bytes, status: int) -> None:
    headers = {"content-type": "application/json"}
    reply = world.members.call("POST", "/v1/billable", body, headers=headers)
    assert reply.status == status, reply
    assert isinstance(reply.body["message"], str)
    assert "error" not in reply.body
