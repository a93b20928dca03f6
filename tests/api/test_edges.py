"""Edges that were fallen over once, over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.client import Company


def test_a_hold_without_a_price_expires_like_any_other(company: Company) -> None:
    account = company.account(credits=5)
    hold = company.send(account, type="NOPRICE", state="pending")

    moved = company.call("POST", "/v1/companies/{company}/clock", {"advance_seconds": 3600})

    assert moved.data["done"] == {"release_expired": 1}
    assert company.call("GET", f"/v1/events/{hold.data['id']}").data["reason"] == "expired"
    again = company.call("POST", "/v1/companies/{company}/clock", {"advance_seconds": 1})
    assert again.data["done"] == {"release_expired": 0}


def test_more_holds_than_one_pass_tidies_are_counted_once(company: Company) -> None:
    account = company.account(credits=5000)
    company.price("CHAT", "credits", "1")
    for part in range(3):
        hold = {"type": "CHAT", "state": "pending"}
        assert company.send(account, *[hold] * (500 + part)).status == 200

    moved = company.call("POST", "/v1/companies/{company}/clock", {"advance_seconds": 3600})

    assert moved.data["done"] == {"release_expired": 1503}
    assert company.balance(account, "credits")["available"] == 5000


def test_the_last_key_that_lasts_stays(company: Company) -> None:
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    company.call("POST", "/v1/companies/{company}/keys", {"name": "for an hour", "expires_at": soon})
    own = company.key.split("_")[2]

    refused = company.call("DELETE", f"/v1/companies/{{company}}/keys/k_{own}")

    assert (refused.status, refused.code) == (409, "last_key")


@pytest.mark.parametrize(
    "metadata", [b'"\\u00e9\\ud83d\\ude00"', b'"\\/ \\u003c"', b'{"a":1.10,"b":[1e5, -0.0]}', b"12.50"]
)
def test_metadata_comes_back_to_the_byte(company: Company, metadata: bytes) -> None:
    account = company.account()
    body = b'{"type":"FREE","key":"m","metadata":' + metadata + b"}"

    first = company.call("POST", f"/v1/accounts/{account}/events", body)
    again = company.call("POST", f"/v1/accounts/{account}/events", body)
    found = company.call("GET", f"/v1/events/{first.data['id']}")

    assert b'"metadata":' + metadata + b"," in first.raw
    assert again.raw == first.raw
    assert b'"metadata":' + metadata + b"," in found.raw


def test_the_bound_of_a_quantity_holds_for_fractions_too(company: Company) -> None:
    account = company.account()

    assert company.send(account, type="FREE", quantity="1000000000000000").status == 200
    refused = company.send(account, type="FREE", quantity="1000000000000000.000000001")

    assert (refused.status, refused.code) == (422, "out_of_range")


def test_a_dry_run_of_a_known_key_shows_what_it_was(company: Company) -> None:
    account = company.account(credits=5)
    company.price("CHAT", "credits", "1")
    first = company.send(account, type="CHAT", key="known")

    dry = company.send(account, type="CHAT", key="known", dry_run=True)

    assert (dry.status, dry.data["id"]) == (200, first.data["id"])
    assert company.balance(account, "credits")["amount"] == 4
