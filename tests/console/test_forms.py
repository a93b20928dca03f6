"""What is typed into forms: numbers, denominations, and the password that what charges a card asks for again."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import Any, Final

import asyncpg
import pytest

from tenuto.console import account_plan, engine_pauses, invoices, money
from tenuto.console.formats import read_amount, read_number
from tenuto.console.forms import DIGITS_MAX, read_denomination, said, whole
from tenuto.console.frame import Page
from tenuto.console.plan_form import read_price, typed_price
from tenuto.core.money import AMOUNT_MAX, CURRENCY_EXPONENTS
from tenuto.core.outcomes import Refusal, invalid
from tenuto.server import Server
from tests.client import Company
from tests.console.visitor import PASSWORD, Seen, Visitor

# --- numbers ----------------------------------------------------------------------------------------------------------

UNPLAIN: Final = (
    *("", "-", ".", "+-1", "1.2.3", "--5", "0x10", "ten", "NaN", "sNaN", "inf", "-Infinity"),
    *("1e3", "1E3", "1e-9999999", "1e-99999999", "1e9999999", "9e999999999999999999", "0e5"),
    *("\N{FULLWIDTH DIGIT ONE}0", "\N{ARABIC-INDIC DIGIT FIVE}", "\N{SUPERSCRIPT TWO}", "\N{MINUS SIGN}5"),
    *("0" * 41, "0." + "0" * 38 + "1", " 1" * 21),
)
"""What is no number in plain decimal writing, or is longer than any field needs."""


@pytest.mark.parametrize("text", UNPLAIN)
def test_a_number_that_is_not_plainly_written_is_refused_in_every_field(text: str) -> None:
    for read in (read_amount, read_price):
        with pytest.raises(Refusal) as refused:
            read(text, "USD", "amount")
        assert refused.value.code == "invalid_field"
        assert refused.value.message in {
            "amount: takes at most 40 characters.",
            f"amount: takes a number in plain digits, such as {'12.50' if read is read_amount else '0.03'}.",
        }
    with pytest.raises(Refusal):
        whole(text, "days")


@pytest.mark.parametrize(
    ("text", "denomination", "amount"),
    [
        ("12.50", "USD", 1250),
        ("12.", "USD", 1200),
        (".5", "USD", 50),
        ("+3", "USD", 300),
        ("-3", "USD", -300),
        ("1 000 000", "USD", 100_000_000),
        ("1_000_000", "tokens", 1_000_000),
        ("1\u00a0000\u202f000", "tokens", 1_000_000),
        ("500", "JPY", 500),
        ("0.001", "KWD", 1),
        ("0.000", "USD", 0),
        (str(AMOUNT_MAX), "tokens", AMOUNT_MAX),
    ],
)
def test_an_amount_is_read_as_people_write_it(text: str, denomination: str, amount: int) -> None:
    assert read_amount(text, denomination) == amount


@pytest.mark.parametrize(
    ("text", "denomination", "problem"),
    [
        ("0.001", "USD", "at most 2 digits after the point"),
        # Thirty-four digits are more than Python's arithmetic keeps by itself; the last one still counts.
        ("1.000000000000000000000000000000001", "USD", "at most 2 digits after the point"),
        ("0.5", "tokens", "takes a whole number"),
        (str(AMOUNT_MAX + 1), "tokens", "is too large"),
        ("9" * 40, "USD", "is too large"),
        # Twelve and a half for some, twelve hundred and fifty for others; a charge is no place to guess.
        ("12,50", "USD", "a comma could mean either"),
        ("1,000", "USD", "a comma could mean either"),
        ("1.234,56", "USD", "a comma could mean either"),
        ("12 50", "USD", "plain digits"),
    ],
)
def test_an_amount_that_cannot_be_says_why(text: str, denomination: str, problem: str) -> None:
    with pytest.raises(Refusal, match=problem):
        read_amount(text, denomination)


@pytest.mark.parametrize(
    ("text", "denomination", "price"),
    [
        ("0.0003", "USD", "0.03"),
        ("1 000", "USD", "100000"),
        ("0.15", "tokens", "0.15"),
        ("1.234567890123456789012345678901234567", "USD", "123.4567890123456789012345678901234567"),
    ],
)
def test_a_price_is_read_to_its_last_digit(text: str, denomination: str, price: str) -> None:
    assert read_price(text, denomination, "amount") == price
    assert Decimal(typed_price(price, denomination)) == read_number(text, "amount")


def test_a_whole_number_has_at_most_the_digits_of_the_largest_amount() -> None:
    assert len(str(AMOUNT_MAX)) == DIGITS_MAX
    assert whole(f"{AMOUNT_MAX:,}".replace(",", " "), "units") == AMOUNT_MAX
    assert whole("-7", "units") == -7
    for text in ("1" * (DIGITS_MAX + 1), "1.0", "+7"):
        with pytest.raises(Refusal, match="takes a whole number"):
            whole(text, "units")


def test_a_number_with_an_exponent_comes_back_with_the_form(visitor: Visitor) -> None:
    account = visitor.company.account(USD=100)
    page = f"/control/accounts/{account}/admin/balances/USD"
    seen = visitor.send(f"{page}/adjust", came_from=page, way="on", amount="1e-99999999", reason="x")
    assert "takes a number in plain digits" in seen.words
    assert visitor.company.balance(account, "USD")["amount"] == 100


def test_days_of_terms_are_plain_digits_too(visitor: Visitor) -> None:
    account = visitor.company.account()
    page = f"/control/invoices/new?account_id={account}"
    for days in ("\N{FULLWIDTH DIGIT ONE}4", "9" * 5000):
        terms: dict[str, Any] = {"account_id": account, "currency": "USD", "terms_days": days, "collection": "send"}
        assert "takes a whole number" in visitor.send("/control/invoices/terms", came_from=page, **terms).words
    assert visitor.company.call("GET", f"/v1/accounts/{account}/invoicing").data == []


# --- what a refusal says ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (invalid("levels[1].flag", "is missing."), "Levels 2, flag: is missing."),
        (invalid("invoicing.taxes[0].rate", "is too high."), "Taxes 1, rate: is too high."),
        (invalid("plan.event_prices[1].tiers", "have an end."), "Event prices 2, tiers: have an end."),
        (invalid("refills an hour", "takes a whole number."), "Refills an hour: takes a whole number."),
        (Refusal("invalid_field", "A list holds 1 to 5 events: split it."), "A list holds 1 to 5 events: split it."),
    ],
)
def test_a_refusal_names_its_field_in_words(refusal: Refusal, words: str) -> None:
    assert said(refusal) == words


# --- denominations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("currency", sorted(CURRENCY_EXPONENTS))
def test_a_currency_in_another_case_is_asked_about(currency: str) -> None:
    assert read_denomination(currency) == currency
    for text in (currency.lower(), currency.title()):
        with pytest.raises(Refusal, match=f"Did you mean {currency}\\?"):
            read_denomination(text)
        assert read_denomination(text, known={text}) == text


@pytest.mark.parametrize("name", ["tokens", "usd_credits", "USDX", "us", ""])
def test_a_token_is_no_currency(name: str) -> None:
    assert read_denomination(name) == name


def denominations_of(company: Company, account: str) -> set[str]:
    listed = company.call("GET", f"/v1/accounts/{account}/balances").data
    return {balance["denomination"] for balance in listed}


def test_no_balance_called_usd_is_opened_beside_usd(visitor: Visitor) -> None:
    account = visitor.company.account(USD=100)
    page = f"/control/accounts/{account}/admin"
    seen = visitor.send(f"{page}/balances", came_from=page, denomination="usd", amount="10")
    assert "Did you mean USD?" in seen.words
    assert denominations_of(visitor.company, account) == {"USD"}


@pytest.mark.parametrize(
    ("form", "fields"),
    [
        ("deposit", {"units": "5", "charge": "5", "currency": "usd"}),
        ("refill", {"units": "5", "charge": "5", "threshold": "1", "currency": "Usd"}),
        ("grants", {"units": "5", "price": "5", "currency": "usd"}),
    ],
)
def test_what_is_paid_for_in_usd_asks_for_the_currency(visitor: Visitor, form: str, fields: dict[str, Any]) -> None:
    account = visitor.company.account(tokens=3)
    visitor.company.card(account)
    page = f"/control/accounts/{account}/admin/balances/tokens"
    assert "Did you mean USD?" in visitor.send(f"{page}/{form}", came_from=page, **fields).words
    assert visitor.company.balance(account, "tokens")["amount"] == 3


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("company", {"name": "A", "time_zone": "UTC", "late_event": "1", "late_event_unit": "days", "ahead_event": "1",
                     "ahead_event_unit": "days", "billable": "Server", "denomination": "usd"}),
        ("credit", {"default_credit_limit": "0", "per_hour": "3", "scheme": "ariel", "failed_renewal": "pause",
                    "kind": "level", "value": "5", "of": "usd", "action": "notify", "flag": ""}),
        ("webhooks/new", {"url": "https://example.com", "max_in_flight": "2", "topic": "threshold",
                          "denomination:threshold": "usd"}),
    ],
)  # fmt: skip
def test_settings_name_no_currency_in_another_case(visitor: Visitor, path: str, fields: dict[str, Any]) -> None:
    before = visitor.company.call("GET", "/v1/companies/{company}").data
    seen = visitor.send(f"/control/settings/{path}", **fields)
    assert (seen.status, "Did you mean USD?" in seen.words) == (422, True), seen.words
    assert visitor.company.call("GET", "/v1/companies/{company}").data == before


def test_a_flag_follows_no_balance_called_usd(visitor: Visitor) -> None:
    account = visitor.company.account(USD=100)
    page = f"/control/accounts/{account}/flags"
    seen = visitor.send(page, came_from=page, name="beta", type="metered", value="usd")
    assert "Did you mean USD?" in seen.words
    assert "beta" not in visitor.company.flags(account)


# --- the password -----------------------------------------------------------------------------------------------------

CHARGING: Final[tuple[tuple[tuple[Page, ...], str], ...]] = (
    (account_plan.PAGES, "/renew"),
    (account_plan.PAGES, "/cancel"),
    (account_plan.PAGES, "/change"),
    (invoices.PAGES, "/pay"),
    (money.PAGES, "/retry"),
    (money.PAGES, "/refund"),
    (engine_pauses.PAGES, "/pauses/captures"),
    (engine_pauses.PAGES, "/engine/captures"),
    (engine_pauses.PAGES, "/engine/payments"),
)


@pytest.mark.parametrize(("pages", "path"), CHARGING, ids=[path for _, path in CHARGING])
def test_what_charges_or_credits_asks_for_the_password_again(pages: tuple[Page, ...], path: str) -> None:
    assert [page.fresh for page in pages if page.method == "POST" and page.path.endswith(path)] == [True]


async def grown_old(service: Server, visitor: Visitor) -> None:
    """Let the password have been given half an hour ago."""
    rows = await asyncpg.connect(service.dsn)
    try:
        await rows.execute(
            "update console_session set authenticated_at = authenticated_at - interval '30 minutes' where digest = $1",
            hashlib.sha256(visitor.cookies["tenuto_session"].encode()).digest(),
        )
    finally:
        await rows.close()


def confirmed(visitor: Visitor, path: str, asked: Seen) -> Seen:
    """The form that asked for the password, sent with it as a browser sends it."""
    assert "Your password, please" in asked.words
    names = ("_key", "_back", "_kept")
    held: dict[str, Any] = {name: asked.attribute(rf'name="{name}" value="([^"]*)"') for name in names}
    return visitor.send(path, **held, _password=PASSWORD)


async def test_a_payment_is_tried_again_once_the_password_is_given(visitor: Visitor, service: Server) -> None:
    company = visitor.company
    account = company.account()
    company.card(account, "tok_chargeCustomerFail")
    body = {"amount_to_deposit": 100, "amount_to_charge": 500, "denomination": "credits"}
    payment = company.call("POST", f"/v1/accounts/{account}/deposit", body).details["payment_id"]
    page = f"/control/payments/{payment}"
    await grown_old(service, visitor)

    asked = visitor.send(f"{page}/retry", came_from=page)
    assert company.call("GET", f"/v1/payments/{payment}").data["attempts"] == 1
    done = confirmed(visitor, f"{page}/retry", asked)
    assert done.path == page
    assert company.call("GET", f"/v1/payments/{payment}").data["attempts"] == 2


async def test_a_plan_ends_as_it_was_asked_once_the_password_is_given(visitor: Visitor, service: Server) -> None:
    company = visitor.company
    account = company.account()
    company.card(account)
    company.start(account, company.plan())
    page = f"/control/accounts/{account}/admin/plan"
    await grown_old(service, visitor)

    asked = visitor.send(f"{page}/cancel", came_from=page, when="end")
    assert company.call("GET", f"/v1/accounts/{account}/plan").data["cancel_at_period_end"] is False
    confirmed(visitor, f"{page}/cancel", asked)
    assert company.call("GET", f"/v1/accounts/{account}/plan").data["cancel_at_period_end"] is True


async def test_captures_stop_at_once_and_go_on_with_the_password(visitor: Visitor, service: Server) -> None:
    await grown_old(service, visitor)
    visitor.send("/control/engine", action="suspend_capture")
    shown = visitor.visit("/control/engine")
    assert "Captures are suspended: no card is charged by itself." in shown.words
    assert 'action="/control/engine/captures"' in shown.text

    refused = visitor.send("/control/engine", came_from="/control/engine", action="resume_capture", skipped="void")
    assert 'class="note bad"' in refused.text, "the way that asks for no password is closed"
    asked = visitor.send("/control/engine/captures", came_from="/control/engine", skipped="void")
    pauses = "/v1/companies/{company}/pauses"
    assert visitor.company.call("GET", pauses).data["capture_suspended"] is True
    done = confirmed(visitor, "/control/engine/captures", asked)
    assert "Captures go on." in done.words
    assert visitor.company.call("GET", pauses).data["capture_suspended"] is False


async def test_every_capture_that_was_ticked_is_still_ticked_after_the_password(
    visitor: Visitor, service: Server
) -> None:
    await grown_old(service, visitor)
    page, ticked = "/control/engine", ["pay_00000001", "pay_00000002"]
    asked = visitor.send(f"{page}/payments", came_from=page, ticked=ticked, action="process")
    done = confirmed(visitor, f"{page}/payments", asked)
    assert done.path == page
    assert "0 of 2 processed." in done.words
