"""The hosted page on which a person gives a card: signed, once, no number typed, everything escaped."""

from __future__ import annotations

import asyncio
import http.client
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

import asyncpg
import pytest

from tenuto.server import Server
from tests.client import Company

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


class Page(NamedTuple):
    status: int
    text: str
    headers: Mapping[str, str]


def visit(company: Company, url: str, form: Mapping[str, str] | None = None) -> Page:
    """What a browser sees at a hosted address, or after posting a form to it."""
    connection = http.client.HTTPConnection(company.client.host, company.client.port, timeout=30)
    try:
        body = None if form is None else urlencode(form)
        headers = {} if form is None else {"content-type": "application/x-www-form-urlencoded"}
        connection.request("GET" if form is None else "POST", urlsplit(url).path, body, headers)
        answer = connection.getresponse()
        return Page(answer.status, answer.read().decode(), {name.lower(): value for name, value in answer.getheaders()})
    finally:
        connection.close()


def link_for(company: Company, account_id: str, **body: object) -> str:
    reply = company.call("POST", f"/v1/accounts/{account_id}/payment_links", body)
    assert reply.status == 200, reply
    return str(reply.data["url"])


def cards_of(company: Company, account_id: str) -> list[str]:
    return [card["last4"] for card in company.call("GET", f"/v1/accounts/{account_id}/cards").data]


def test_a_card_is_given_once(company: Company) -> None:
    account_id = company.account()
    url = link_for(company, account_id)
    page = visit(company, url)
    assert page.status == 200
    assert "Add a card for Ada" in page.text
    assert "sandbox" in page.text
    done = visit(company, url, {"token": "pm_card_visa"})
    assert (done.status, "The card is saved" in done.text) == (200, True)
    assert cards_of(company, account_id) == ["4242"]
    assert visit(company, url).status == 404
    assert visit(company, url, {"token": "pm_card_mastercard"}).status == 404
    assert cards_of(company, account_id) == ["4242"]


def test_a_refused_card_may_be_followed_by_another(company: Company) -> None:
    account_id = company.account()
    url = link_for(company, account_id)
    refused = visit(company, url, {"token": "pm_card_chargeDeclined"})
    assert (refused.status, "Your card was declined." in refused.text) == (200, True)
    assert cards_of(company, account_id) == []
    assert visit(company, url, {"token": "pm_card_visa"}).status == 200
    assert cards_of(company, account_id) == ["4242"]


@pytest.mark.parametrize("form", [{}, {"token": ""}, {"token": "tok_visa"}, {"token": "4242424242424242"}, {"x": "y"}])
def test_only_what_is_offered_can_be_chosen(company: Company, form: dict[str, str]) -> None:
    account_id = company.account()
    url = link_for(company, account_id)
    answer = visit(company, url, form)
    assert (answer.status, "Choose a card." in answer.text) == (200, True)
    assert cards_of(company, account_id) == []


def test_no_field_takes_a_card_number(company: Company) -> None:
    page = visit(company, link_for(company, company.account()))
    fields = re.findall(r"<input[^>]*>", page.text)
    assert fields
    assert all('type="radio"' in field for field in fields)


def test_afterwards_the_person_is_sent_back(company: Company) -> None:
    url = link_for(company, company.account(), return_url="https://example.com/thanks?x=1&y=2")
    answer = visit(company, url, {"token": "pm_card_visa"})
    assert answer.status == 200
    assert '<a href="https://example.com/thanks?x=1&amp;y=2"' in answer.text
    assert 'content="1;url=https://example.com/thanks?x=1&amp;y=2"' in answer.text


@pytest.mark.parametrize(
    "address",
    [
        *("javascript:alert(1)", "http://example.com/", "//example.com", "https://a b", "https://", "https:///x"),
        *("http://localhost.evil.com/", "http://localhost@evil.com/", "https://evil.com@good.com", "https:\\\\a.com"),
    ],
)
def test_nobody_is_sent_somewhere_unsafe(company: Company, address: str) -> None:
    reply = company.call("POST", f"/v1/accounts/{company.account()}/payment_links", {"return_url": address})
    assert reply.status == 422, reply


def test_what_somebody_wrote_is_shown_as_text(company: Company) -> None:
    body = {"name": HOSTILE, "email": "a@example.com"}
    opened = company.call("POST", "/v1/companies/{company}/payment_links", body)
    page = visit(company, opened.data["url"])
    assert "<script" not in page.text
    assert "<img" not in page.text
    assert "&lt;script&gt;" in page.text


def test_the_page_is_private_and_framed_by_nobody(company: Company) -> None:
    headers = visit(company, link_for(company, company.account())).headers
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "script-src" not in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("change", ["forged", "cut", "other", "word"])
def test_an_address_that_was_not_made_by_us_is_no_page(company: Company, change: str) -> None:
    account_id, other = company.account(), company.account()
    url = link_for(company, account_id)
    public, _, mac = url.rpartition("/")[2].partition(".")
    token = {
        "forged": f"{public}.{mac[:-1]}{'A' if mac[-1] != 'A' else 'B'}",
        "cut": public,
        "other": f"{link_for(company, other).rpartition('/')[2].partition('.')[0]}.{mac}",
        "word": "nothing",
    }[change]
    answer = visit(company, f"{url.rpartition('/')[0]}/{token}")
    assert answer.status == 404
    assert "This page does not exist" in answer.text


def test_an_account_with_the_collector_gets_an_address(company: Company) -> None:
    body = {"name": "Ada", "email": "a@example.com", "enable_card_collector": 1}
    opened = company.call("POST", "/v1/companies/{company}/accounts", body).data
    assert visit(company, opened["card_collector_url"], {"token": "pm_card_visa"}).status == 200
    assert cards_of(company, opened["id"]) == ["4242"]


def test_a_link_that_was_opened_too_late_is_over(company: Company, service: Server) -> None:
    url = link_for(company, company.account())
    assert visit(company, url).status == 200

    async def let_it_expire() -> None:
        connection = await asyncpg.connect(service.dsn)
        try:
            await connection.execute("update payment_link set expires_at = now() - interval '1 second'")
        finally:
            await connection.close()

    asyncio.run(let_it_expire())
    assert visit(company, url).status == 404


@pytest.mark.parametrize("seconds", [59, 0, -1, 7_776_001])
def test_a_link_lives_between_a_minute_and_ninety_days(company: Company, seconds: int) -> None:
    path = f"/v1/accounts/{company.account()}/payment_links"
    assert company.call("POST", path, {"expires_in_seconds": seconds}).status == 422
