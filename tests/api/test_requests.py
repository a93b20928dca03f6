"""Requests to a customer: pages on which units are bought once and overage is agreed to, and their list."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import asyncpg
import pytest

from tenuto.core.identifiers import read, read_of_account, spell_of_account
from tenuto.server import Server
from tests.api.test_card_pages import HOSTILE, Page, cards_of, visit
from tests.client import Company
from tests.inside import audit

OFFERS: Final = [{"amount": 1000, "charge_amount": 500}, {"amount": 5000, "charge_amount": 2000}]
NO_MONEY: Final = "tok_chargeCustomerFail"


@pytest.fixture
async def rows(service: Server) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(service.dsn)
    yield connection
    await connection.close()


def topup(company: Company, account: str, **more: object) -> Any:
    body = {"denomination": "tokens", "amounts": OFFERS, **more}
    reply = company.call("POST", f"/v1/accounts/{account}/topup_request", body)
    assert reply.status == 200, reply
    return reply.data


def overage(company: Company, account: str, **more: object) -> Any:
    body = {"denomination": "storage_gb", "overage_charge_amount": "100", **more}
    reply = company.call("POST", f"/v1/accounts/{account}/overage_request", body)
    assert reply.status == 200, reply
    return reply.data


def press(company: Company, url: str, offer: int = 0) -> Page:
    """Press the button of an offer as the page shows it now, and look at what comes then."""
    found = re.search(r'name="seen" value="([^"]*)"', visit(company, url).text)
    return after(company, url, {"offer": str(offer), "seen": "0" if found is None else found[1]})


def after(company: Company, url: str, form: Mapping[str, str]) -> Page:
    """The page that a browser ends on after posting a form."""
    answer = visit(company, url, form)
    assert answer.status == 303, answer
    return visit(company, answer.headers["location"])


def paid(company: Company, account: str) -> list[tuple[str, int, int]]:
    """Status, units and amount of an account's payments, newest first."""
    found = company.call("GET", f"/v1/accounts/{account}/payments").data
    return [(one["status"], one["units"], one["amount"]) for one in found]


def tokens(company: Company, account: str) -> int:
    return int(company.balance(account, "tokens")["amount"])


def listed(company: Company, account: str) -> list[Any]:
    reply = company.call("GET", f"/v1/accounts/{account}/requests")
    assert reply.status == 200, reply
    return list(reply.data)


async def listen(rows: asyncpg.Connection, company: Company, topic: str) -> None:
    """Have the company hear a topic."""
    environment = await rows.fetchval(
        "select id from environment where company_id = $1 and not live", read("c", company.id)
    )
    await rows.execute(
        "insert into webhook (environment_id, id, secret, description, in_flight, merges, created_at)"
        " values ($1, 1, 'x', '', 1, false, now())",
        environment,
    )
    await rows.execute(
        "insert into webhook_topic (environment_id, id, webhook_id, topic, created_at) values ($1, 1, 1, $2, now())",
        environment,
        topic,
    )


async def told(rows: asyncpg.Connection, account: str, topic: str) -> list[Any]:
    """The data of what was told of an account, first to last."""
    found = await rows.fetch(
        "select data::text from notification where account_id = $1 and topic = $2 order by id",
        read("a", account),
        topic,
    )
    return [json.loads(row["data"]) for row in found]


async def change(rows: asyncpg.Connection, url: str, what: str) -> None:
    place = read_of_account("rq", url.rpartition("/")[2].partition(".")[0])
    assert place is not None
    assert await rows.execute(f"update payment_link set {what} where account_id = $1 and id = $2", *place) == "UPDATE 1"


# --- a top-up ---------------------------------------------------------------------------------------------------------


async def test_a_customer_buys_what_was_offered_and_the_company_hears_of_it_once(
    company: Company, rows: asyncpg.Connection, service: Server
) -> None:
    await listen(rows, company, "topup.completed")
    account = company.account(tokens=40, USD=-250)
    company.card(account)
    asked = topup(company, account, message="You are nearly out of tokens.", return_url="https://example.com/thanks")

    page = visit(company, asked["url"])
    assert page.status == 200
    for shown in ("Top up tokens for Ada", "You are nearly out", "1,000 tokens", "$5.00", "$20.00", "visa 4242"):
        assert shown in page.text, page.text
    assert "<td>tokens</td><td>40</td>" in page.text
    assert "<td>USD owed</td><td>$2.50</td>" in page.text
    done = press(company, asked["url"], 1)
    assert (done.status, "5,000 tokens were added for $20.00" in done.text) == (200, True)
    assert '<a href="https://example.com/thanks" rel="noreferrer">' in done.text

    assert tokens(company, account) == 5040
    assert paid(company, account) == [("succeeded", 5000, 2000)]
    for _ in range(2):
        assert "5,000 tokens were added" in visit(company, asked["url"]).text
        assert "5,000 tokens were added" in after(company, asked["url"], {"offer": "0", "seen": "0"}).text
    assert tokens(company, account) == 5040
    payment = company.call("GET", f"/v1/accounts/{account}/payments").data[0]
    assert await told(rows, account, "topup.completed") == [
        {
            "denomination": "tokens",
            "units": 5000,
            "charge": 2000,
            "currency": "USD",
            "payment_id": payment["id"],
            "request_id": asked["id"],
        }
    ]
    request = listed(company, account)[0]
    assert (request["status"], request["payment_id"]) == ("done", payment["id"])
    assert request["used_at"] is not None
    await audit(service.dsn)


def test_two_clicks_at_once_are_one_payment(company: Company) -> None:
    account = company.account(tokens=0)
    company.card(account)
    for round_ in range(1, 6):
        url = topup(company, account)["url"]
        with ThreadPoolExecutor(4) as pool:
            forms = [{"offer": offer, "seen": "0"} for offer in "0011"]
            answers = list(pool.map(visit, [company] * 4, [url] * 4, forms))
        assert {answer.status for answer in answers} == {303}
        assert "were added for" in visit(company, url).text
        assert len(paid(company, account)) == round_
    assert {status for status, _, _ in paid(company, account)} == {"succeeded"}
    assert tokens(company, account) == sum(units for _, units, _ in paid(company, account))


def test_without_a_card_the_page_leads_to_one_and_back(company: Company) -> None:
    account = company.account()
    url = topup(company, account)["url"]
    page = visit(company, url)
    assert "Give a card to go on" in page.text
    assert 'name="offer"' not in page.text

    leads = visit(company, f"{url}/card", {})
    again = visit(company, url, {"offer": "0", "seen": "0"})
    assert (leads.status, again.status) == (303, 303)
    assert leads.headers["location"] == again.headers["location"], "the same link, while it is good"
    card_page = visit(company, leads.headers["location"])
    assert "Test card" in card_page.text
    kept = visit(company, leads.headers["location"], {"token": "pm_card_mastercard"})
    assert f'content="1;url={url}"' in kept.text
    assert cards_of(company, account) == ["4444"]
    assert "1,000 tokens were added for $5.00" in press(company, url).text
    assert tokens(company, account) == 1000


async def test_a_declined_card_is_followed_by_another_and_nothing_is_charged_twice(
    company: Company, rows: asyncpg.Connection
) -> None:
    await listen(rows, company, "topup.completed")
    account = company.account(tokens=0)
    company.card(account, NO_MONEY)
    url = topup(company, account)["url"]

    declined = press(company, url)
    assert (declined.status, "Nothing was charged. Your card was declined." in declined.text) == (200, True)
    assert "Use another card" in declined.text
    stale = after(company, url, {"offer": "0", "seen": "0"})
    assert "Nothing was charged" in stale.text
    payments = company.call("GET", f"/v1/accounts/{account}/payments").data
    assert [(one["status"], one["attempts"]) for one in payments] == [("failed", 1)], "an old page tries nothing again"
    assert listed(company, account)[0]["status"] == "open"

    visit(company, visit(company, f"{url}/card", {}).headers["location"], {"token": "pm_card_visa"})
    assert "1,000 tokens were added" in press(company, url).text
    assert paid(company, account) == [("succeeded", 1000, 500)]
    assert len(await told(rows, account, "topup.completed")) == 1


def test_another_offer_after_a_decline_ends_the_first_payment(company: Company) -> None:
    account = company.account(tokens=0)
    company.card(account, NO_MONEY)
    url = topup(company, account)["url"]
    press(company, url, 0)
    company.card(account)

    assert "5,000 tokens were added" in press(company, url, 1).text
    assert paid(company, account) == [("succeeded", 5000, 2000), ("voided", 1000, 500)]
    assert tokens(company, account) == 5000


def test_a_payment_that_was_tried_again_by_hand_answers_its_request(company: Company) -> None:
    account = company.account(tokens=0)
    company.card(account, NO_MONEY)
    asked = topup(company, account)
    press(company, asked["url"])
    company.card(account)
    failed = company.call("GET", f"/v1/accounts/{account}/payments").data[0]["id"]
    assert company.call("POST", f"/v1/payments/{failed}/retry").data["status"] == "succeeded"

    assert (listed(company, account)[0]["status"], listed(company, account)[0]["payment_id"]) == ("done", failed)
    assert "1,000 tokens were added" in after(company, asked["url"], {"offer": "0", "seen": "1.1"}).text
    assert tokens(company, account) == 1000


def test_a_payment_that_was_voided_by_hand_makes_room_for_another(company: Company) -> None:
    account = company.account(tokens=0)
    company.card(account, NO_MONEY)
    url = topup(company, account)["url"]
    press(company, url)
    failed = company.call("GET", f"/v1/accounts/{account}/payments").data[0]["id"]
    assert company.call("POST", f"/v1/payments/{failed}/void").status == 200
    company.card(account)

    assert "1,000 tokens were added" in press(company, url).text
    assert paid(company, account) == [("succeeded", 1000, 500), ("voided", 1000, 500)]


def test_a_bank_that_wants_to_be_asked_is_said_to_want_it(company: Company) -> None:
    account = company.account()
    company.card(account, "pm_card_authenticationRequired")
    page = press(company, topup(company, account)["url"])
    assert (page.status, "Your bank wants you to confirm" in page.text) == (200, True)
    assert "Use another card" in page.text


def test_a_bank_that_takes_its_time_is_waited_for(company: Company) -> None:
    account = company.account(tokens=0)
    company.card(account, "pm_card_simulatorProcessing")
    url = topup(company, account)["url"]
    page = press(company, url)
    assert (page.status, "The payment is under way" in page.text) == (200, True)
    again = after(company, url, {"offer": "1", "seen": "0"})
    assert "The payment is under way" in again.text
    assert len(paid(company, account)) == 1
    assert tokens(company, account) == 0


def test_captures_that_are_suspended_do_not_keep_a_customer_from_buying(company: Company) -> None:
    account = company.account(tokens=0)
    company.card(account)
    assert company.call("POST", f"/v1/accounts/{account}/suspend_capture").status == 200
    assert "1,000 tokens were added" in press(company, topup(company, account)["url"]).text
    assert tokens(company, account) == 1000


def test_another_payment_for_the_balance_goes_first(company: Company) -> None:
    account = company.account()
    company.card(account, "pm_card_simulatorProcessing")
    first, second = topup(company, account)["url"], topup(company, account)["url"]
    press(company, first)
    answer = visit(company, second, {"offer": "0", "seen": "0"})
    assert (answer.status, "Something is being paid for this balance already" in answer.text) == (409, True)
    assert len(paid(company, account)) == 1


async def test_a_request_that_expired_says_so_and_sells_nothing(company: Company, rows: asyncpg.Connection) -> None:
    account = company.account()
    company.card(account)
    asked = topup(company, account)
    await change(rows, asked["url"], "expires_at = now()")
    for page in (visit(company, asked["url"]), after(company, asked["url"], {"offer": "0", "seen": "0"})):
        assert (page.status, "This request has expired" in page.text) == (404, True)
    assert after(company, f"{asked['url']}/card", {}).status == 404
    assert paid(company, account) == []
    assert listed(company, account)[0]["status"] == "expired"


@pytest.mark.parametrize("form", [{}, {"offer": ""}, {"offer": "2"}, {"offer": "-1"}, {"offer": "²"}, {"agree": "yes"}])
def test_only_what_is_offered_can_be_bought(company: Company, form: dict[str, str]) -> None:
    account = company.account()
    company.card(account)
    url = topup(company, account)["url"]
    assert "Top up tokens" in after(company, url, {"seen": "0", **form}).text
    assert paid(company, account) == []


# --- overage ----------------------------------------------------------------------------------------------------------


def on_a_plan(company: Company, **balance: object) -> str:
    """An account on ten dollars a month with 10 GB, which were used up."""
    company.price("STORE", "storage_gb", "1")
    plan = company.plan(balances={"storage_gb": {"amount": 10, **balance}, "seats": {"amount": 3}})
    account = company.account()
    assert company.call("PUT", f"/v1/accounts/{account}", {"credit_limit": 1000}).status == 200
    company.card(account)
    company.start(account, plan)
    assert company.send(account, type="STORE", quantity=10).status == 200
    return account


def gated(company: Company, account: str) -> int:
    return company.send(account, type="STORE", quantity=2, gate_on_balance=True).status


async def test_a_customer_agrees_to_pay_for_what_goes_beyond(
    company: Company, rows: asyncpg.Connection, service: Server
) -> None:
    await listen(rows, company, "overage.accepted")
    account = on_a_plan(company)
    assert gated(company, account) == 402
    asked = overage(company, account, message="Your disk is full.")
    assert (asked["kind"], asked["asked"]["overage_charge_denomination"]) == ("overage", "USD")

    page = visit(company, asked["url"])
    assert page.status == 200
    for shown in ("Pro includes 10 storage_gb", "$1.00", "Your disk is full.", "<td>storage_gb</td><td>0</td>"):
        assert shown in page.text, page.text
    assert gated(company, account) == 402, "to look agrees to nothing"
    assert "Agree to $1.00" in after(company, asked["url"], {"agree": "no"}).text
    done = after(company, asked["url"], {"agree": "yes"})
    assert (done.status, "Thank you" in done.text) == (200, True)

    assert gated(company, account) == 200
    assert company.balance(account, "USD")["amount"] == -200
    assert company.call("GET", f"/v1/accounts/{account}/plan").data["has_overrides"] is True
    assert "Thank you" in after(company, asked["url"], {"agree": "yes"}).text
    plan_id = company.call("GET", f"/v1/accounts/{account}/plan").data["plan_id"]
    assert await told(rows, account, "overage.accepted") == [
        {
            "denomination": "storage_gb",
            "overage_charge_amount": "100",
            "overage_charge_denomination": "USD",
            "plan_id": plan_id,
            "request_id": asked["id"],
        }
    ]
    assert listed(company, account)[0]["status"] == "done"
    await audit(service.dsn)


async def test_two_who_agree_at_once_agree_once(company: Company, rows: asyncpg.Connection) -> None:
    await listen(rows, company, "*")
    account = on_a_plan(company)
    url = overage(company, account)["url"]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: visit(company, url, {"agree": "yes"}).status, range(4)))
    assert answers == [303] * 4
    assert len(await told(rows, account, "overage.accepted")) == 1
    agreed = await rows.fetchval("select count(*) from plan_override where account_id = $1", read("a", account))
    assert agreed == 1


def test_what_was_agreed_before_stays_agreed(company: Company) -> None:
    account = on_a_plan(company)
    terms = {"balances": {"seats": {"overage_charge_amount": "7"}}}
    assert company.call("PUT", f"/v1/accounts/{account}/plan/overrides", terms).status == 200
    after(company, overage(company, account)["url"], {"agree": "yes"})
    company.price("SIT", "seats", "1")
    assert company.send(account, type="SIT", quantity=4, gate_on_balance=True).status == 200
    assert company.balance(account, "USD")["amount"] == -7


@pytest.mark.parametrize("how", ["another plan", "other terms", "another request", "ended"])
def test_an_offer_on_terms_that_are_others_by_now_is_void(company: Company, how: str) -> None:
    account = on_a_plan(company)
    url = overage(company, account)["url"]
    match how:
        case "another plan":
            company.start(account, company.plan(name="Big", renewals={"MONTHLY": {"amount": 9000}}), scheme="ariel")
        case "other terms":
            agreed = {"balances": {"storage_gb": {"amount": 20}}}
            assert company.call("PUT", f"/v1/accounts/{account}/plan/overrides", agreed).status == 200
        case "another request":
            after(company, overage(company, account, denomination="seats")["url"], {"agree": "yes"})
        case _:
            ended = company.call("POST", f"/v1/accounts/{account}/cancelplan", {"at_period_end": False})
            assert ended.status == 200, ended
    before = company.call("GET", f"/v1/accounts/{account}/plan").data
    for page in (visit(company, url), visit(company, url, {"agree": "yes"})):
        assert (page.status, "This offer no longer holds" in page.text) == (409, True)
    assert company.call("GET", f"/v1/accounts/{account}/plan").data == before
    assert listed(company, account)[-1]["status"] == "open"


async def test_an_overage_request_that_expired_agrees_to_nothing(company: Company, rows: asyncpg.Connection) -> None:
    account = on_a_plan(company)
    url = overage(company, account)["url"]
    await change(rows, url, "expires_at = now()")
    assert "This request has expired" in visit(company, url).text
    assert visit(company, url, {"agree": "yes"}).status == 404
    assert gated(company, account) == 402


def test_overage_is_asked_where_there_is_none_yet(company: Company) -> None:
    def refused(account: str, **more: object) -> tuple[int, str, object]:
        body = {"denomination": "storage_gb", "overage_charge_amount": "100", **more}
        reply = company.call("POST", f"/v1/accounts/{account}/overage_request", body)
        return reply.status, reply.code, reply.details.get("path")

    account = on_a_plan(company)
    assert refused(company.account()) == (409, "no_plan", None)
    assert refused(account, denomination="tokens") == (422, "invalid_field", "denomination")
    field = "overage_charge_denomination"
    assert refused(account, **{field: "storage_gb"}) == (422, "invalid_field", field)
    after(company, overage(company, account)["url"], {"agree": "yes"})
    assert refused(account) == (409, "overage_exists", "denomination")
    assert refused(account, denomination="seats", **{field: "storage_gb"}) == (422, "invalid_field", field)


# --- both -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change_", ["forged", "cut", "other", "word", "card"])
def test_an_address_that_was_not_made_by_us_is_no_page(company: Company, change_: str) -> None:
    account = company.account()
    url = topup(company, account)["url"]
    address, _, token = url.rpartition("/")
    public, _, mac = token.partition(".")
    card_link = company.call("POST", f"/v1/accounts/{account}/payment_links", {}).data["url"].rpartition("/")[2]
    token = {
        "forged": f"{public}.{mac[:-1]}{'A' if mac[-1] != 'A' else 'E'}",
        "cut": public,
        "other": f"{topup(company, account)['id']}.{mac}",
        "word": "nothing",
        "card": card_link,
    }[change_]
    for page in (
        visit(company, f"{address}/{token}"),
        visit(company, f"{address}/{token}", {"offer": "0", "seen": "0"}),
        visit(company, f"{address}/{token}/card", {}),
    ):
        assert (page.status, "This page does not exist" in page.text) == (404, True)
    assert visit(company, f"{address.removesuffix('/ask')}/pay/{public}.{mac}").status == 404
    assert paid(company, account) == []


def test_what_somebody_wrote_is_shown_as_text(company: Company) -> None:
    opened = company.call("POST", "/v1/companies/{company}/accounts", {"name": HOSTILE, "email": "a@example.com"})
    account, wild = opened.data["id"], "<b>'x\"&;"
    company.call("POST", f"/v1/accounts/{account}/balance/{'%3Cb%3E'}", {"amount": 5})
    company.card(account)
    terms = {wild: {"amount": 10}}
    company.start(account, company.plan(name=HOSTILE, balances=terms))
    for url in (
        topup(company, account, message=HOSTILE, denomination=wild, return_url="https://example.com/?a=1&b='<x")["url"],
        overage(company, account, message=HOSTILE, denomination=wild)["url"],
    ):
        pages = [visit(company, url), press(company, url), after(company, url, {"agree": "yes"})]
        for page in pages:
            assert page.status == 200, page
            assert not re.search("<(script|img|b|x)\\b", page.text), page.text
        assert "&lt;script&gt;" in pages[0].text
        assert "Thank you" in pages[2].text


def test_the_pages_are_private_and_framed_by_nobody(company: Company) -> None:
    account = on_a_plan(company)
    for url in (topup(company, account)["url"], overage(company, account)["url"]):
        for page in (visit(company, url), visit(company, url, {}), visit(company, f"{url}x")):
            policy = page.headers["content-security-policy"]
            assert "frame-ancestors 'none'" in policy
            assert "script-src" not in policy
            assert "unsafe" not in policy
            assert page.headers["cache-control"] == "no-store"
            assert page.headers["referrer-policy"] == "no-referrer"
            assert page.headers["x-content-type-options"] == "nosniff"
            assert "<script" not in page.text
            assert "style=" not in page.text


def test_the_same_key_gets_the_same_address_which_is_kept_sealed(company: Company, service: Server) -> None:
    account = on_a_plan(company)
    once = {"idempotency-key": "ask-ada"}
    body = {"denomination": "tokens", "amounts": OFFERS}
    first, again = (company.call("POST", f"/v1/accounts/{account}/topup_request", body, once) for _ in range(2))
    assert (first.raw, again.is_replay) == (again.raw, True)
    assert (
        company.call("POST", f"/v1/accounts/{account}/topup_request", {**body, "message": "x"}, once).code
        == "key_reused"
    )

    async def kept() -> list[bytes]:
        connection = await asyncpg.connect(service.dsn)
        try:
            found = await connection.fetch("select body from stored_answer where key = 'ask-ada'")
        finally:
            await connection.close()
        return [row["body"] for row in found]

    stored = asyncio.run(kept())
    assert len(stored) == 1
    assert b"/ask/" not in stored[0]


def test_requests_are_listed_newest_first_by_pages(company: Company) -> None:
    account = on_a_plan(company)
    made = [topup(company, account, message="one"), overage(company, account), topup(company, account)]
    path = f"/v1/accounts/{account}/requests?limit=2"
    first = company.call("GET", path)
    rest = company.call("GET", f"{path}&cursor={first.body['next_cursor']}")
    shown = [*first.data, *rest.data]
    assert [one["id"] for one in shown] == [one["id"] for one in reversed(made)]
    assert (first.body["has_more"], rest.body["has_more"]) == (True, False)
    for one, before in zip(shown, reversed(made), strict=True):
        assert one == {name: value for name, value in before.items() if name != "url"}
    assert shown[-1]["asked"] == {
        "denomination": "tokens",
        "amounts": [{**offer, "charge_denomination": "USD"} for offer in OFFERS],
        "overage_charge_amount": None,
        "overage_charge_denomination": None,
        "plan_id": None,
    }
    assert "link" not in str(shown)


def test_a_request_of_another_company_is_out_of_reach(company: Company) -> None:
    account = on_a_plan(company)
    topup(company, account)
    other = Company.open(company.client, "Other")
    unknown = "a_00000000"
    for id in (account, unknown):
        assert (
            other.call("POST", f"/v1/accounts/{id}/topup_request", {"denomination": "t", "amounts": OFFERS}).status
            == 404
        )
        asked = {"denomination": "storage_gb", "overage_charge_amount": "1"}
        assert other.call("POST", f"/v1/accounts/{id}/overage_request", asked).status == 404
        assert other.call("GET", f"/v1/accounts/{id}/requests").status == 404
    assert len(listed(company, account)) == 1


def test_a_deposit_by_key_is_no_answer_to_a_request(company: Company) -> None:
    """The company's own deposit, under a key that reads like the request's, pays for nothing on the page."""
    account = company.account(tokens=0)
    company.card(account)
    asked = topup(company, account)
    body = {"amount_to_deposit": 1000, "amount_to_charge": 500, "denomination": "tokens"}
    paid_ = company.call("POST", f"/v1/accounts/{account}/deposit", body, {"idempotency-key": asked["id"]})
    assert paid_.status == 200
    assert listed(company, account)[0]["status"] == "open"
    assert "Top up tokens" in visit(company, asked["url"]).text
    place = read_of_account("rq", asked["id"])
    assert place is not None
    assert asked["id"] == spell_of_account("rq", *place)


WRONG: Final[dict[str, tuple[dict[str, object], str, str | None]]] = {
    "no amounts": ({"amounts": []}, "amounts", "out_of_range"),
    "eleven amounts": ({"amounts": [OFFERS[0]] * 11}, "amounts", "out_of_range"),
    "no units": ({"amounts": [{"amount": 0, "charge_amount": 500}]}, "amounts[0].amount", "must_be_positive"),
    "too little": ({"amounts": [*OFFERS, {"amount": 5, "charge_amount": 1}]}, "amounts[2].charge_amount", None),
    "no money": (
        {"amounts": [{**OFFERS[0], "charge_denomination": "tokens"}]},
        "amounts[0].charge_denomination",
        "invalid_field",
    ),
    "money for other money": (
        {"denomination": "USD", "amounts": [{"amount": 600, "charge_amount": 500}]},
        "amounts[0].amount",
        "invalid_field",
    ),
    "a strange field": ({"surprise": 1}, "surprise", "unknown_field"),
    "a long message": ({"message": "x" * 1001}, "message", "invalid_field"),
    "a message of nothing": ({"message": " "}, "message", "invalid_field"),
    "a wrong balance": ({"denomination": "a b"}, "denomination", "invalid_field"),
    "nowhere to return to": ({"return_url": "javascript:alert(1)"}, "return_url", "invalid_field"),
    "too short a life": ({"expires_in_seconds": 59}, "expires_in_seconds", "out_of_range"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_asked_is_refused_by_its_field(company: Company, case: str) -> None:
    body, path, code = WRONG[case]
    account = company.account()
    reply = company.call(
        "POST", f"/v1/accounts/{account}/topup_request", {"denomination": "tokens", "amounts": OFFERS, **body}
    )
    assert (reply.status, reply.code, reply.details["path"]) == (422, code or "amount_not_chargeable", path), reply
    assert listed(company, account) == []
