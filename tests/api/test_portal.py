"""The page of a company's customer: one account and no other, a top-up once a form, framed by whom the link names."""

from __future__ import annotations

import asyncio
import http.client
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlencode, urlsplit

import asyncpg
import pytest

from tenuto.core.identifiers import read, read_of_account, spell_of_account
from tenuto.engine import Engine
from tenuto.server import Server
from tenuto.service import portal
from tenuto.store import reports
from tenuto.store.database import Reader
from tests.api.test_card_pages import HOSTILE, Page, cards_of, visit
from tests.client import Client, Company
from tests.inside import Inside, audit

OURS: Final = {"sec-fetch-site": "same-origin"}


@pytest.fixture
async def rows(service: Server) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(service.dsn)
    yield connection
    await connection.close()


def link(company: Company, account: str, **body: object) -> str:
    reply = company.call("POST", f"/v1/accounts/{account}/portal_links", body)
    assert reply.status == 200, reply
    return str(reply.data["url"])


def browse(
    company: Company, url: str, form: Mapping[str, str] | None = None, headers: Mapping[str, str] = OURS
) -> Page:
    """What a browser sees at an address, or after sending a form to it, before it follows where that leads."""
    connection = http.client.HTTPConnection(company.client.host, company.client.port, timeout=30)
    found = urlsplit(url)
    try:
        body = None if form is None else urlencode(form)
        sent = dict(headers) if form is None else {"content-type": "application/x-www-form-urlencoded", **headers}
        path = found.path + (f"?{found.query}" if found.query else "")
        connection.request("GET" if form is None else "POST", path, body, sent)
        answer = connection.getresponse()
        return Page(answer.status, answer.read().decode(), {name.lower(): value for name, value in answer.getheaders()})
    finally:
        connection.close()


def form_of(page: Page) -> str:
    """What the forms of a page carry."""
    found = re.search(r'name="form" value="([^"]+)"', page.text)
    assert found is not None, page.text
    return found[1]


def pay(company: Company, url: str, form: str, amount: str = "1000", own: str = "") -> Page:
    """Press a button of the top-up, and look at the page that follows."""
    sent = browse(company, f"{url}/topup", {"form": form, "amount": amount, "own": own})
    return browse(company, sent.headers["location"]) if sent.status == 303 else sent


def paid(company: Company, account: str) -> list[tuple[str, int, str]]:
    """Status, amount and currency of an account's payments, newest first."""
    found = company.call("GET", f"/v1/accounts/{account}/payments").data
    return [(one["status"], one["amount"], one["currency"]) for one in found]


async def change(rows: asyncpg.Connection, url: str, what: str) -> None:
    place = read_of_account("po", url.rpartition("/")[2].partition(".")[0])
    assert place is not None
    assert await rows.execute(f"update payment_link set {what} where account_id = $1 and id = $2", *place) == "UPDATE 1"


# --- what it shows ----------------------------------------------------------------------------------------------------


def test_a_customer_sees_what_the_account_has_used_and_paid(company: Company) -> None:
    account = company.account(tokens=5000, USD=1250)
    company.card(account)
    company.price("CHAT", "tokens", "3")
    company.start(account, company.plan(name="Gold", balances={"storage_gb": {"amount": 10}}))
    company.send(account, type="CHAT", quantity=7)
    company.send(account, type="CHAT", quantity=2, state="pending")
    invoice = company.invoice(account)
    company.deposit(account, 1000, 700)

    page = browse(company, link(company, account, return_url="https://example.com/billing?a=1&b=2"))

    assert page.status == 200
    for shown in ("Acme", "<h1>Ada</h1>", "Gold (active): $10.00 each month", "Renews on ", "visa 4242"):
        assert shown in page.text, page.text
    assert "<td>tokens</td><td>4,973</td><td>6</td><td>4,979</td>" in page.text
    assert re.search(r"<td>storage_gb</td><td>10</td><td>0</td><td>10</td><td>\d+ \w{3} \d{4}</td>", page.text)
    number = company.call("GET", f"/v1/invoices/{invoice}").data["number"]
    hosted = re.search(rf'<a href="(/i/[^"]+)">{number}</a>', page.text)
    assert hosted is not None
    assert visit(company, hosted[1]).status == 200
    assert f'<a href="{hosted[1]}/invoice.pdf"' in page.text
    assert re.search(r"<td>Deposit</td><td>[^<]+</td><td>\$7\.00</td><td>Paid</td>", page.text)
    assert '<a href="https://example.com/billing?a=1&amp;b=2" rel="noreferrer">Back to Acme</a>' in page.text


def test_usage_is_drawn_with_its_numbers_beside_it(company: Company) -> None:
    account = company.account(tokens=5000)
    company.price("CHAT", "tokens", "3")
    url = link(company, account)
    assert "Nothing was used in the last 30 days." in browse(company, url).text
    company.send(account, type="CHAT", quantity=7)
    company.call("POST", "/v1/companies/{company}/clock", {"advance_seconds": 2 * 86_400})
    company.send(account, type="CHAT", quantity=2)

    text = browse(company, url).text

    drawn = re.search(r"<svg.*?</svg>", text, re.DOTALL)
    assert drawn is not None
    assert re.search(
        r'role="img" aria-label="tokens: 27 tokens from \d+ \w{3} to \d+ \w{3}, at most 21 tokens on one day."', text
    )
    heights = [int(height) for height in re.findall(r'<rect [^>]* height="(\d+)"', drawn[0])]
    assert len(heights) == 2
    assert heights[0] > 3 * heights[1] > 0
    assert re.search(r"<td>21 tokens</td></tr>\s*<tr><td>[^<]+</td><td>6 tokens</td>", text)


async def test_a_page_whose_usage_takes_too_long_shows_the_rest(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    company = await Inside.open(engine)
    account = await company.account(tokens=5000)

    async with engine.database.writing() as unit:
        made = await portal.make_link(
            engine, unit, company.environment, account, return_url=None, origins=(), life=timedelta(hours=1)
        )
    assert (await portal.read_view(engine, company.environment, made)).usage is not None

    async def sleeping(reader: Reader, *_: object, **__: object) -> None:
        await reader.execute("select pg_sleep(60)")

    monkeypatch.setattr(portal, "USAGE_SECONDS", 0.2)
    with monkeypatch.context() as slow:
        slow.setattr(reports, "sum_usage", sleeping)
        views = await asyncio.gather(*(portal.read_view(engine, company.environment, made) for _ in range(9)))
    assert [(view.usage, view.balances[0].amount) for view in views] == [(None, 5000)] * 9
    monkeypatch.setattr(portal, "USAGE_SECONDS", 30)
    assert (await portal.read_view(engine, company.environment, made)).usage is not None


def test_a_draft_is_not_shown_and_an_empty_account_has_a_page(company: Company) -> None:
    account = company.account()
    assert "There is nothing on this account yet." in browse(company, link(company, account)).text
    company.invoice(account, is_final=False)
    page = browse(company, link(company, account))
    assert page.status == 200
    assert "<h2>Invoices</h2>" not in page.text


def test_the_page_may_be_visited_as_often_as_one_likes(company: Company) -> None:
    url = link(company, company.account(tokens=1))
    forms = {form_of(browse(company, url)) for _ in range(3)}
    assert len(forms) == 3


def test_the_address_of_a_form_leads_back_to_the_page(company: Company) -> None:
    url = link(company, company.account())
    for path in ("topup", "card"):
        page = browse(company, f"{url}/{path}")
        assert (page.status, page.headers["location"]) == (303, urlsplit(url).path)
        assert browse(company, f"{url}x/{path}").status == 404


def test_the_account_of_somebody_else_is_never_shown(company: Company) -> None:
    ada = company.account(tokens=111_222)
    grace = company.account(credits=333_444)
    for account in (ada, grace):
        company.card(account)
    company.deposit(grace, 5, 77_700)
    invoice = company.invoice(grace)
    number = company.call("GET", f"/v1/invoices/{invoice}").data["number"]

    text = browse(company, link(company, ada)).text

    assert "111,222" in text
    for foreign in ("333,444", "$777.00", number, "credits"):
        assert foreign not in text


def test_a_form_of_one_page_is_none_of_another(company: Company) -> None:
    ada, grace = company.account(), company.account()
    for account in (ada, grace):
        company.card(account)
    mine, hers = link(company, ada), link(company, grace)
    form = form_of(browse(company, mine))
    refused = pay(company, hers, form)
    assert (refused.status, "load the page and try again" in refused.text) == (403, True)
    assert "were added" in pay(company, mine, form).text
    number = form.partition(".")[0]
    assert "were added" not in browse(company, f"{hers}?form={number}").text
    assert paid(company, grace) == []


def test_what_somebody_wrote_is_shown_as_text(company: Company) -> None:
    assert company.call("PUT", "/v1/companies/{company}", {"name": HOSTILE}).status == 200
    body = {"name": HOSTILE + "{{7*7}}" + "W" * 120, "email": "a@example.com"}
    account = str(company.call("POST", "/v1/companies/{company}/accounts", body).data["id"])
    denomination = "<b>x"
    assert company.call("POST", f"/v1/accounts/{account}/balance/{denomination}", {"amount": 90}).status == 200
    company.price("CHAT", denomination, "3")
    company.send(account, type="CHAT")

    text = browse(company, link(company, account, return_url="https://example.com/?%22%3E<script>")).text

    for hostile in ("<script", "<img", "<b>x", "onerror=alert(2)>"):
        assert hostile not in text
    assert "&lt;script&gt;" in text
    assert "{{7*7}}" in text
    assert "&lt;b&gt;x" in text


def test_there_is_no_script_and_no_style_in_the_page(company: Company) -> None:
    account = company.account(tokens=100)
    company.price("CHAT", "tokens", "3")
    company.send(account, type="CHAT")
    text = browse(company, link(company, account)).text
    assert not re.search(r"<script|<style|\sstyle=|\son\w+=", text)


# --- the link ---------------------------------------------------------------------------------------------------------


def test_only_what_we_signed_opens_it(company: Company) -> None:
    account = company.account()
    url = link(company, account)
    head, _, token = url.rpartition("/")
    public, mac = token.split(".")
    place = read_of_account("po", public)
    assert place is not None
    request = company.call(
        "POST",
        f"/v1/accounts/{account}/topup_request",
        {"denomination": "t", "amounts": [{"amount": 1, "charge_amount": 100}]},
    ).data["url"]
    card_link = company.call("POST", f"/v1/accounts/{account}/payment_links", {}).data["url"]
    others = [
        *(
            f"{public}.{mac[:-2]}",
            f"{public}.{'A' if mac[0] != 'A' else 'B'}{mac[1:]}",
            f"{public}.",
            public,
            f".{mac}",
        ),
        *(f"{spell_of_account('po', place[0], place[1] + 1)}.{mac}", f"{public}.%00", "x" * 3000, "%F0%9F%92%A9"),
        *(address.rpartition("/")[2] for address in (request, card_link)),
        *(address.rpartition("/")[2].replace(of, "po_") for address, of in ((request, "rq_"), (card_link, "pl_"))),
    ]
    gone = browse(company, f"{head}/{others[0]}")
    assert "This page does not exist" in gone.text
    for other in others:
        for page in (
            browse(company, f"{head}/{other}"),
            browse(company, f"{head}/{other}/topup", {"amount": "1000"}),
            browse(company, f"{head}/{other}/card", {}),
        ):
            assert (page.status, page.text) == (404, gone.text), other
    for path in ("pay", "ask", "i"):
        assert visit(company, f"/{path}/{token}").status == 404


async def test_an_expired_link_opens_nothing(company: Company, rows: asyncpg.Connection) -> None:
    account = company.account()
    company.card(account)
    url = link(company, account)
    form = form_of(browse(company, url))
    await change(rows, url, "expires_at = now() - interval '1 second'")
    assert browse(company, url).status == 404
    assert pay(company, url, form).status == 404
    assert browse(company, f"{url}/card", {"form": form}).status == 404
    assert paid(company, account) == []


async def test_a_link_ends_with_its_account(company: Company, rows: asyncpg.Connection) -> None:
    account = company.account()
    url = link(company, account)
    form = form_of(browse(company, url))
    await rows.execute("delete from payment_link where account_id = $1", read("a", account))
    await rows.execute("delete from account where id = $1", read("a", account))
    assert browse(company, url).status == 404
    assert pay(company, url, form).status == 404


async def test_the_test_clock_does_not_age_a_link(company: Company, rows: asyncpg.Connection) -> None:
    url = link(company, company.account(), expires_in_seconds=300)
    company.call("POST", "/v1/companies/{company}/clock", {"advance_seconds": 86_400})
    assert browse(company, url).status == 200


def test_a_link_lives_as_long_as_it_is_told(company: Company) -> None:
    path = f"/v1/accounts/{company.account()}/portal_links"
    for given, seconds in (
        (None, 86_400),
        ({"expires_in_seconds": 300}, 300),
        ({"expires_in_seconds": 2_592_000}, 2_592_000),
    ):
        made = company.call("POST", path, given).data
        assert set(made) == {"url", "expires_at"}
        left = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
        assert abs(left - timedelta(seconds=seconds)) < timedelta(seconds=60)


@pytest.mark.parametrize(
    "body",
    [
        *({"expires_in_seconds": value} for value in (299, 2_592_001, 0, -1, "300", 300.5, True)),
        *(
            {"return_url": value}
            for value in ("http://example.com", "javascript:alert(1)", "//example.com", "https://", 5)
        ),
        *({"return_url": value} for value in ("https://a@b.com", "data:text/html,x", "https:\\\\a.com")),
        {"unknown": 1},
        [],
    ],
)
def test_a_link_that_cannot_be(company: Company, body: object) -> None:
    path = f"/v1/accounts/{company.account()}/portal_links"
    assert company.call("POST", path, body).status in {400, 422}


def test_a_key_needs_the_scope_and_the_account(company: Company) -> None:
    account = company.account()
    assert Company.open(company.client, "Others").call("POST", f"/v1/accounts/{account}/portal_links").status == 404
    scopes = {"name": "reader", "scopes": ["payments:read"]}
    key = company.call("POST", "/v1/companies/{company}/keys", scopes).data["api_key"]
    reader = Company(company.client, company.id, key)
    assert reader.call("POST", f"/v1/accounts/{account}/portal_links").status == 403


def test_the_same_key_gives_the_same_link(company: Company) -> None:
    path, once = f"/v1/accounts/{company.account()}/portal_links", {"idempotency-key": "p-1"}
    first, again = (company.call("POST", path, {}, once) for _ in range(2))
    assert (first.data, again.is_replay) == (again.data, True)


# --- who may frame it -------------------------------------------------------------------------------------------------


def test_nobody_frames_it_unless_told(company: Company) -> None:
    account = company.account(tokens=1)
    page = browse(company, link(company, account))
    policy = page.headers["content-security-policy"]
    assert policy == (
        "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'self';"
        " frame-ancestors 'none'"
    )
    assert 'target="_blank"' not in page.text
    told = {name: page.headers[name] for name in ("cache-control", "referrer-policy", "x-content-type-options")}
    assert told == {"cache-control": "no-store", "referrer-policy": "same-origin", "x-content-type-options": "nosniff"}
    assert page.headers["x-robots-tag"] == "noindex"
    assert "set-cookie" not in page.headers
    assert "access-control-allow-origin" not in page.headers


def test_exactly_the_sites_that_the_link_names_may_frame_it(company: Company) -> None:
    account = company.account()
    company.card(account)
    company.invoice(account)
    origins = ["https://app.example.com", "https://example.org:8443", "https://app.example.com"]
    url = link(company, account, embed_origins=origins, return_url="https://example.com/")
    page = browse(company, url)
    ending = "; frame-ancestors https://app.example.com https://example.org:8443"
    assert page.headers["content-security-policy"].endswith(ending)
    # What leads to a page that nobody frames opens a tab of its own.
    leading_away = re.findall(r"<(?:a|form) [^>]*(?:/i/|/card)[^>]*>", page.text)
    assert len(leading_away) == 3
    assert all('target="_blank" rel="noopener"' in tag for tag in leading_away)
    assert 'rel="noreferrer" target="_top">Back to' in page.text
    sent = browse(company, f"{url}/topup", {"form": form_of(page), "amount": "1000"})
    assert sent.headers["content-security-policy"].endswith(ending)
    refused = browse(company, f"{url}/topup", {"form": "x", "amount": "1000"})
    assert (refused.status, refused.headers["content-security-policy"].endswith(ending)) == (403, True)
    assert "frame-ancestors 'none'" in visit(company, link(company, account)).headers["content-security-policy"]


@pytest.mark.parametrize(
    "origin",
    [
        *(
            "http://example.com",
            "https://example.com/",
            "https://example.com/a",
            "https://*.example.com",
            "*",
            "https://*",
        ),
        *(
            "https://a@example.com",
            "https://example.com?x",
            "https://example.com#x",
            "example.com",
            "'self'",
            "https:",
            "",
        ),
        *(
            "https://example.com; script-src *",
            "https://example.com https://evil.com",
            "https://example.com,https://x.y",
        ),
        *("https://exa\nmple.com", "https://example.com\r\nx: y", "https://example.com\n", "https://Example.com"),
        *("https://exämple.com", "https://example.com:", "https://example.com:0", "https://example.com:65536"),
        *(
            "https://-a.com",
            "https://a..com",
            "https://" + "a." * 140 + "com",
            "data:",
            "https://[::1]",
            "http://localhost",
        ),
        *(5, None),
    ],
)
def test_an_origin_that_is_none(company: Company, origin: object) -> None:
    reply = company.call("POST", f"/v1/accounts/{company.account()}/portal_links", {"embed_origins": [origin]})
    assert reply.status in {400, 422}, reply
    if isinstance(origin, str):
        assert reply.details["path"] == "embed_origins[0]"


def test_at_most_five_sites_frame_it(company: Company) -> None:
    path = f"/v1/accounts/{company.account()}/portal_links"
    sites = [f"https://s{number}.example" for number in range(6)]
    assert company.call("POST", path, {"embed_origins": sites[:5]}).status == 200
    assert company.call("POST", path, {"embed_origins": sites}).code == "out_of_range"


# --- the top-up -------------------------------------------------------------------------------------------------------


async def test_a_top_up_is_an_ordinary_deposit_once_a_form(company: Company, service: Server) -> None:
    account = company.account()
    company.card(account)
    url = link(company, account)
    page = browse(company, url)
    assert "Charged to visa 4242 at once. A card can be charged $0.50 to $999,999.99." in page.text
    form = form_of(page)

    done = pay(company, url, form, "2500")
    assert (done.status, "$25.00 were added." in done.text) == (200, True)
    for amount in ("2500", "10000"):
        assert "$25.00 were added." in pay(company, url, form, amount).text
    assert paid(company, account) == [("succeeded", 2500, "USD")]
    assert company.balance(account, "USD")["amount"] == 2500
    assert form_of(done) != form

    assert "$12.34 were added." in pay(company, url, form_of(done), "own", "12.34").text
    assert company.balance(account, "USD")["amount"] == 3734
    await audit(service.dsn)


def test_clicks_at_the_same_time_charge_once(company: Company) -> None:
    account = company.account()
    company.card(account)
    url = link(company, account)
    for round_ in range(1, 5):
        form = form_of(browse(company, url))
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _, form=form: pay(company, url, form), range(4)))
        assert {answer.status for answer in answers} == {200}
        assert paid(company, account) == [("succeeded", 1000, "USD")] * round_


@pytest.mark.parametrize(
    ("amount", "own"),
    [
        *(
            ("own", text)
            for text in ("", "0", "0.49", "1000000", "999999999999999", "-5", "1e3", "12,50", "1.005", "a")
        ),
        *(("own", text) for text in ("١٢", " ", "1.", ".5", "0x10", "9" * 400, "NaN", "Infinity", "12.5\x00")),
        *((text, "20") for text in ("", "1", "1001", "-1000", "999999999", "1000.0", " 1000x")),
    ],
)
def test_an_amount_that_no_card_is_charged(shop: tuple[Company, str, str], amount: str, own: str) -> None:
    company, account, url = shop
    refused = pay(company, url, form_of(browse(company, url)), amount, own)
    assert (refused.status, "Nothing was charged." in refused.text) == (422, True)
    assert "A card can be charged $0.50 to $999,999.99." in refused.text
    assert paid(company, account) == []


@pytest.fixture(scope="module")
def shop(service: Server) -> Iterator[tuple[Company, str, str]]:
    """A company, an account with a card, and the page of that."""
    with Client(*service.address) as client:
        company = Company.open(client)
        account = company.account()
        company.card(account)
        yield company, account, link(company, account)


def test_the_least_that_a_card_is_charged(company: Company) -> None:
    account = company.account()
    company.card(account)
    url = link(company, account)
    assert "$0.50 were added." in pay(company, url, form_of(browse(company, url)), "own", "0.5").text


def test_money_without_decimals_is_topped_up_in_whole_units(company: Company) -> None:
    account = company.account(JPY=500)
    company.card(account)
    url = link(company, account)
    page = browse(company, url)
    assert 'value="1000">Pay ¥1,000<' in page.text
    assert pay(company, url, form_of(page), "own", "1500.5").status == 422
    assert "¥1,500 were added." in pay(company, url, form_of(page), "own", "1500").text
    assert company.balance(account, "JPY")["amount"] == 2000


def test_a_declined_card_is_told_in_words_and_another_one_pays(company: Company) -> None:
    account = company.account()
    company.card(account, "tok_chargeCustomerFail")
    url = link(company, account)
    declined = pay(company, url, form_of(browse(company, url)))
    assert "Nothing was charged. Your card was declined." in declined.text
    assert re.search(r"<td>Deposit</td><td>[^<]+</td><td>\$10\.00</td><td>Not paid</td>", declined.text)

    leads = browse(company, f"{url}/card", {"form": form_of(declined)})
    assert leads.status == 303
    kept = visit(company, leads.headers["location"], {"token": "pm_card_mastercard"})
    assert f'content="1;url={url}"' in kept.text
    assert cards_of(company, account)[0] == "4444"
    page = browse(company, url)
    assert "mastercard 4444" in page.text
    assert "$10.00 were added." in pay(company, url, form_of(page)).text
    assert [status for status, _, _ in paid(company, account)] == ["succeeded", "failed"]


def test_a_bank_that_wants_to_be_asked_is_said_to_want_it(company: Company) -> None:
    account = company.account()
    company.card(account, "pm_card_authenticationRequired")
    url = link(company, account)
    assert "Your bank wants you to confirm" in pay(company, url, form_of(browse(company, url))).text


def test_a_bank_that_takes_its_time_is_waited_for_and_nothing_else_is_paid_meanwhile(company: Company) -> None:
    account = company.account()
    company.card(account, "pm_card_simulatorProcessing")
    url = link(company, account)
    first, second = (form_of(browse(company, url)) for _ in range(2))
    waiting = pay(company, url, first)
    assert "The payment is under way" in waiting.text
    assert '<meta http-equiv="refresh" content="5">' in waiting.text
    assert "The payment is under way" in pay(company, url, first).text
    refused = pay(company, url, second)
    assert (refused.status, "Nothing was charged twice" in refused.text) == (409, True)
    assert [status for status, _, _ in paid(company, account)] == ["pending"]


def test_without_a_card_nothing_is_charged(company: Company) -> None:
    account = company.account()
    card = company.card(account)
    url = link(company, account)
    form = form_of(browse(company, url))
    assert company.call("DELETE", f"/v1/accounts/{account}/cards/{card}").status == 200
    page = browse(company, url)
    assert "Give a card" in page.text
    assert "<h2>Top up</h2>" not in page.text
    refused = pay(company, url, form)
    assert (refused.status, "there is no card" in refused.text) == (402, True)
    assert paid(company, account) == []


# --- where a form comes from ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "same-origin", "origin": "https://evil.example"},
        {"sec-fetch-site": "cross-site", "origin": "{ours}"},
    ],
)
def test_a_form_of_another_site_does_nothing(company: Company, service: Server, headers: dict[str, str]) -> None:
    account = company.account()
    company.card(account)
    url = link(company, account)
    sent = {name: value.replace("{ours}", service.url) for name, value in headers.items()}
    form = {"form": form_of(browse(company, url)), "amount": "1000"}
    for path in ("topup", "card"):
        refused = browse(company, f"{url}/{path}", form, sent)
        assert (refused.status, "did not come from this site" in refused.text) == (403, True)
        assert "Ada" not in refused.text
    assert paid(company, account) == []


def test_an_older_browser_says_where_a_form_comes_from_by_its_origin(company: Company, service: Server) -> None:
    account = company.account()
    company.card(account)
    url = link(company, account)
    form = {"form": form_of(browse(company, url)), "amount": "1000"}
    assert browse(company, f"{url}/topup", form, {"origin": service.url}).status == 303
    assert paid(company, account) == [("succeeded", 1000, "USD")]


@pytest.mark.parametrize("kind", ["none", "made up", "altered", "of another number"])
def test_a_form_that_we_did_not_make_does_nothing(company: Company, kind: str) -> None:
    account = company.account()
    company.card(account)
    url = link(company, account)
    number, mac = form_of(browse(company, url)).split(".")
    forms = {
        "none": "",
        "made up": f"{'a' * 32}.{'b' * 43}",
        "altered": f"{number}.{mac[:-2]}AA",
        "of another number": f"{'0' * 32}.{mac}",
    }
    assert pay(company, url, forms[kind]).status == 403
    assert browse(company, f"{url}/card", {"form": forms[kind]}).status == 403
    assert paid(company, account) == []
