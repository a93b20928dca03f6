"""What was decided where several answers would have been defensible; each test belongs to a page of docs/decisions."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.client import Client, Company

CLOUD = {"specversion": "1.0", "id": "c-1", "type": "CHAT", "source": "/chat"}


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text if re.search(r"[+-]\d\d:\d\d$", text) else f"{text}:00")


def test_every_test_that_a_decision_names_exists() -> None:
    root = Path(__file__).parents[2]
    for page in (root / "docs" / "decisions").glob("*.md"):
        held = page.read_text().partition("## Test\n")[2]
        for name in re.findall(r"`(tests/[^`]+)`", held):
            assert (root / name).exists(), f"{page.name} names {name}, which is not there"


# --- 0003: test and live halves --------------------------------------------------------------------------------------


def test_a_test_key_that_manages_keys_makes_the_first_live_key(company: Company, client: Client) -> None:
    issued = company.call("POST", "/v1/companies/{company}/keys", {"mode": "live"})
    live = Company(client, company.id, issued.data["api_key"])
    account = company.account(credits=1)

    assert issued.data["api_key"].startswith("sk_live_")
    assert live.call("GET", f"/v1/accounts/{account}").status == 404
    assert live.call("GET", "/v1/companies/{company}/accounts").data == []


def test_a_test_key_without_that_scope_makes_none(company: Company, client: Client) -> None:
    scopes = {"scopes": ["events:write", "company:write"]}
    weak = Company(client, company.id, company.call("POST", "/v1/companies/{company}/keys", scopes).data["api_key"])

    refused = weak.call("POST", "/v1/companies/{company}/keys", {"mode": "live"})

    assert (refused.status, refused.code) == (403, "insufficient_scope")


# --- 0007: adjust opens a missing balance ----------------------------------------------------------------------------


def test_an_adjustment_opens_a_missing_balance_and_says_who_made_it(company: Company) -> None:
    account = company.account()

    made = company.call("POST", f"/v1/accounts/{account}/balance/credits/adjust", {"amount": 5})

    assert made.status == 200
    assert (made.data["seq"], made.data["starting_balance"], made.data["ending_balance"]) == (1, 0, 5)
    assert re.fullmatch(r"adjustment with key k_[0-9a-z]{8}", made.data["description"])
    assert company.balance(account, "credits")["amount"] == 5


def test_opening_a_balance_that_exists_stays_a_refusal(company: Company) -> None:
    account = company.account()
    company.call("POST", f"/v1/accounts/{account}/balance/credits/adjust", {"amount": 5})

    again = company.call("POST", f"/v1/accounts/{account}/balance/credits", {"amount": 5})

    assert (again.status, again.code) == (409, "balance_exists")


# --- 0009: answers show the balance right after the whole request ----------------------------------------------------


def test_each_event_of_a_list_shows_the_balance_after_the_whole_list(company: Company) -> None:
    account = company.account(credits=10)
    company.price("HALF", "credits", "0.5")

    reply = company.send(account, {"type": "HALF"}, {"type": "HALF"}, {"type": "HALF"})

    assert [event["balance"]["amount"] for event in reply.data] == [9, 9, 9]
    assert [event["cost"]["exact"] for event in reply.data] == ["0.5", "0.5", "0.5"]
    assert [event["cost"]["amount"] for event in reply.data] == [0, 1, 0]
    assert company.balance(account, "credits")["residue_fraction"] == "1/2"


# --- 0010: company lists ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_a_company_list_is_whole_and_newest_first_over_all_accounts(company: Company, limit: int) -> None:
    accounts = [company.account(credits=100) for _ in range(3)]
    company.price("CHAT", "credits", "1")
    sent = [company.send(accounts[number % 3], type="CHAT").data["id"] for number in range(8)]

    found: list[str] = []
    query = f"limit={limit}"
    while True:
        page: Any = company.call("GET", f"/v1/companies/{{company}}/events?{query}").body
        found += [event["id"] for event in page["data"]]
        if not page["has_more"]:
            break
        query = f"limit={limit}&cursor={page['next_cursor']}"

    assert found == list(reversed(sent))


# --- 0012: the clock runs on -----------------------------------------------------------------------------------------


def test_a_clock_runs_on_from_where_it_was_moved_to(company: Company) -> None:
    before = moment(company.call("GET", "/v1/companies/{company}/clock").data["now"])

    moved = moment(company.call("POST", "/v1/companies/{company}/clock", {"advance_seconds": 86_400}).data["now"])
    later = moment(company.call("GET", "/v1/companies/{company}/clock").data["now"])

    assert timedelta(days=1) <= moved - before < timedelta(days=1, minutes=1)
    assert moved < later < moved + timedelta(minutes=1)


def test_a_clock_moves_forward_only(company: Company) -> None:
    now = moment(company.call("GET", "/v1/companies/{company}/clock").data["now"])

    back = company.call("POST", "/v1/companies/{company}/clock", {"now": (now - timedelta(hours=1)).isoformat()})

    assert (back.status, back.code) == (422, "clock_not_forward")


def test_live_time_is_real(company: Company, client: Client) -> None:
    issued = company.call("POST", "/v1/companies/{company}/keys", {"mode": "live"})
    live = Company(client, company.id, issued.data["api_key"])

    refused = live.call("POST", "/v1/companies/{company}/clock", {"advance_seconds": 1})

    assert (refused.status, refused.code) == (403, "live_clock")


# --- 0013: CloudEvents -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "quantity", "metadata"),
    [
        ({"quantity": 3}, 3, None),
        ({"quantity": 3, "metadata": {"model": "large"}}, 3, {"model": "large"}),
        ({"quantity": 3, "model": "large"}, 3, {"quantity": 3, "model": "large"}),
        ({"state": "CA"}, 1, {"state": "CA"}),
        ({"type": "OTHER"}, 1, {"type": "OTHER"}),
        ("a text", 1, "a text"),
    ],
    ids=[
        "fields",
        "fields-and-metadata",
        "mixed-counts-and-is-metadata",
        "state-of-theirs",
        "type-is-metadata",
        "text-is-metadata",
    ],
)
def test_data_of_a_cloud_event(company: Company, data: object, quantity: int, metadata: object) -> None:
    account = company.account()

    reply = company.call(
        "POST",
        f"/v1/accounts/{account}/events",
        {**CLOUD, "data": data},
        {"content-type": "application/cloudevents+json"},
    )

    assert reply.status == 200, reply.body
    assert (reply.data["type"], reply.data["key"]) == ("CHAT", "c-1")
    assert (reply.data["quantity"], reply.data["metadata"]) == (quantity, metadata)


def test_a_batch_of_cloud_events(company: Company) -> None:
    account = company.account()
    batch = [{**CLOUD, "id": name, "extension": 1} for name in ("c-1", "c-2")]

    reply = company.call(
        "POST", f"/v1/accounts/{account}/events", batch, {"content-type": "application/cloudevents-batch+json"}
    )

    assert [event["key"] for event in reply.data] == ["c-1", "c-2"]
    assert reply.body["events_submitted"] == 2
