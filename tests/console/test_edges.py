"""Edges of the console: two halves in two windows, a missing half, addresses that are none, and who may lend."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tenuto.console.home import Live
from tenuto.engine import Engine
from tenuto.store import records
from tests.client import Client
from tests.console.colleagues import colleague
from tests.console.visitor import PASSWORD, Visitor
from tests.inside import Inside, event


def test_a_form_of_test_data_does_nothing_to_live_data(visitor: Visitor) -> None:
    visitor.company.live_half()
    visitor.visit("/control/accounts/new")
    shown_with = visitor.csrf
    visitor.send("/control/mode", mode="live")
    assert "Live data" in visitor.visit("/").words
    stale = visitor.send("/control/accounts/new", _csrf=shown_with, way="account", name="Ada", email="a@example.com")
    assert "other half of the company" in stale.words
    assert "Ada" not in visitor.visit("/control/accounts").words
    # Going to the other half, or out, means the same whichever page it is asked from.
    assert "Test data" in visitor.send("/control/mode", _csrf=shown_with, mode="test").words


def test_live_data_begins_with_a_live_key(visitor: Visitor) -> None:
    assert "it begins with your first live key" in visitor.send("/control/mode", mode="live").words
    visitor.company.live_half()
    assert "Test data" in visitor.visit("/").words, "nobody is taken there unasked"
    assert "Live data" in visitor.send("/control/mode", mode="live").words


@pytest.mark.parametrize("address", ["http://[", "//[", "https://evil.example\\@x", "//evil.example/x"])
def test_an_address_that_is_none_leads_home(visitor: Visitor, address: str) -> None:
    stranger = Visitor(visitor.address)
    assert stranger.visit(f"/control/sign-in?next={address}").status == 200
    done = stranger.send("/control/sign-in", follow=False, email=visitor.email, password=PASSWORD, next=address)
    assert done.status == 303
    assert done.headers["location"].startswith("/")
    assert not done.headers["location"].startswith("//")
    assert visitor.send("/control/accounts/new", follow=False, _back=address).headers.get("location", "/")[0] == "/"


def test_an_origin_that_is_none_is_foreign(visitor: Visitor) -> None:
    visitor.visit("/")
    headers = {"content-type": "application/x-www-form-urlencoded", "origin": "http://["}
    for path in ("/control/sign-in", "/control/mode"):
        assert visitor._ask("POST", path, f"_csrf={visitor.csrf}&_key=k".encode(), headers).status == 403


def test_a_form_without_its_key_does_nothing(visitor: Visitor) -> None:
    assert "load its page again" in visitor.send("/control/mode", _key="", mode="live").words


def test_what_a_person_does_to_an_event_is_told(visitor: Visitor) -> None:
    visitor.company.price("CHAT", "USD", "3")
    account = visitor.company.account(USD=100)
    first, second = (visitor.company.send(account, type="CHAT").data["id"] for _ in range(2))
    visitor.send(f"/control/events/{first}/take-back")
    assert visitor.company.call("DELETE", f"/v1/events/{second}").status == 200
    assert visitor.company.balance(account, "USD")["amount"] == 100
    told = visitor.company.call("GET", "/v1/companies/{company}/activity?action=delete_event").data
    assert [one["target"] for one in told] == [f"DELETE /events/{first}"], "what keys do to events is no activity"


def test_support_changes_accounts_and_lends_nothing(visitor: Visitor) -> None:
    plan = visitor.company.plan()
    account = visitor.company.account(USD=0)
    visitor.company.card(account)
    support = colleague(visitor, "support")
    admin = f"/control/accounts/{account}/admin"
    named: dict[str, Any] = {"name": "Grace", "email": "g@example.com", "metadata": "{}"}
    assert "saved" in support.send(f"{admin}/details", came_from=admin, credit_limit="", **named).words
    refused = support.send(f"{admin}/details", came_from=admin, credit_limit="50.00", **named)
    assert "the scope balances:write" in refused.words
    refused = support.send(f"{admin}/plan/change", came_from=f"{admin}/plan", plan_id=plan, cadence="MONTHLY")
    assert "the scope payments:write" in refused.words
    found = visitor.company.call("GET", f"/v1/accounts/{account}").data
    assert (found["name"], found["credit_limit"], found["plan_id"]) == ("Grace", None, None)


def test_whoever_is_in_two_companies_says_which(visitor: Visitor, client: Client) -> None:
    body = {"name": "Second", "email": visitor.email, "password": PASSWORD}
    second = client.call("POST", "/v1/companies", body).data["id"]
    somebody = Visitor(visitor.address)
    assert "Acme" in somebody.send("/control/sign-in", email=visitor.email, password=PASSWORD).words
    other = Visitor(visitor.address)
    seen = other.send("/control/sign-in", email=visitor.email, password=PASSWORD, company=second)
    assert "Second" in seen.words
    # The browser keeps which it was.
    other.send("/control/sign-out")
    assert "Second" in other.send("/control/sign-in", email=visitor.email, password=PASSWORD).words
    wrong = other.send("/control/sign-in", email=visitor.email, password=PASSWORD, company="c_00000000")
    assert wrong.status == 401


async def test_whoever_leaves_before_the_first_look_leaves_nothing_behind(engine: Engine) -> None:
    world = await Inside.open(engine)
    live = Live(engine, world.environment)
    joining = asyncio.create_task(live.join())
    await asyncio.sleep(0)
    joining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await joining
    assert (live._listeners, live._task) == (set(), None)


async def test_a_look_that_fails_is_not_the_last(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    world = await Inside.open(engine)
    real, failed = records.list_events, asyncio.Event()

    async def failing(*_: object) -> list[Any]:
        failed.set()
        raise ValueError("a fault")

    live = Live(engine, world.environment)
    queue = await live.join()
    monkeypatch.setattr(records, "list_events", failing)
    async with asyncio.timeout(10):
        await failed.wait()
        monkeypatch.setattr(records, "list_events", real)
        account = await world.account(credits=10)
        await world.send(account, event("CHAT"))
        assert [fact.account_id for fact in await queue.get()] == [account]
    live.leave(queue)
