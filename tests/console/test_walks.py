"""Walks through the console with a real browser, the real service and its database."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tenuto.server import Server
from tests.client import Client, Company
from tests.console.browsing import DESKTOP, PHONE, Window, chromium
from tests.console.screens import PASSWORD, opened, screens
from tests.console.world import lived

HOSTILE = '<script>alert("x")</script>{{7*7}}'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def window(browser: Browser, service: Server) -> Iterator[Window]:
    found = Window(browser, service.address)
    yield found
    found.close()


@pytest.fixture
def engineer(service: Server) -> Iterator[Client]:
    with Client(*service.address) as found:
        yield found


def signed_up(window: Window, engineer: Client, name: str = "Acme") -> Company:
    """Open a company in the browser, as a person does; its engineers get the key that is shown."""
    page = window.look("/control/sign-up")
    page.get_by_label("Company").fill(name)
    page.get_by_label("Your e-mail address").fill(f"ada-{secrets.token_hex(4)}@example.com")
    page.get_by_label("Password").fill("correct horse battery")
    page.get_by_role("button", name="Open it").click()
    key = page.get_by_label("API key").input_value()
    company = page.get_by_label("Company").input_value()
    page.get_by_role("link", name="Go on to Home").click()
    page.wait_for_url(f"{window.url}/")
    return Company(engineer, company, key)


def test_from_sign_up_to_the_first_event(window: Window, engineer: Client) -> None:
    company = signed_up(window, engineer, HOSTILE)
    page = window.page
    expect(page.get_by_role("heading", name="First steps")).to_be_visible()
    expect(page.get_by_text("No event has come in yet.")).to_be_visible()
    company.price("CHAT", "credits", "3")
    account = company.account(credits=5)
    expect(page.locator("li.done", has_text="Open an account")).to_be_visible()

    sent = company.call("POST", f"/v1/accounts/{account}/events", {"type": "CHAT", "gate_on_balance": True})
    expect(page.get_by_role("link", name=sent.data["id"])).to_be_visible(timeout=1500)
    refused = company.call("POST", f"/v1/accounts/{account}/events", {"type": "CHAT", "gate_on_balance": True})
    assert refused.status == 402
    expect(page.locator("#live tr").first).to_contain_text(re.compile("refused.*insufficient balance", re.DOTALL))
    expect(page.locator("li.done", has_text="Send the first event")).to_be_visible()
    page.get_by_label("You and your company").click()
    expect(page.get_by_text(HOSTILE).first).to_be_visible()


def confirming(window: Window) -> None:
    """Say yes where a form asks whether it is meant."""
    window.page.on("dialog", lambda dialog: dialog.accept())


def test_a_refused_customer_is_topped_up(window: Window, engineer: Client) -> None:
    company = signed_up(window, engineer)
    confirming(window)
    company.price("CHAT", "credits", "3")
    account = company.account(credits=2)
    company.card(account)
    assert (
        company.call("POST", f"/v1/accounts/{account}/events", {"type": "CHAT", "gate_on_balance": True}).status == 402
    )

    page = window.look(f"/control/accounts/{account}/refused")
    expect(page.get_by_text("insufficient balance").first).to_be_visible()
    page = window.look(f"/control/accounts/{account}/admin/balances/credits")
    page.get_by_label("Units to add, in credits").fill("100")
    page.get_by_label("Charge", exact=True).fill("5.00")
    page.get_by_role("button", name="Charge and add").click()
    expect(page.get_by_text("102 credits").first).to_be_visible()
    taken = company.call("POST", f"/v1/accounts/{account}/events", {"type": "CHAT", "gate_on_balance": True})
    assert taken.status == 200

    page = window.look(f"/control/events/{taken.data['id']}")
    expect(page.get_by_text("3 credits").first).to_be_visible()
    page.locator("a[href^='/control/transactions/t_']").first.click()
    expect(page.get_by_text("99 credits").first).to_be_visible()


def test_a_plan_is_written_looked_at_and_changed(window: Window, engineer: Client) -> None:
    company = signed_up(window, engineer)
    page = window.look("/control/plans/new")
    page.locator("input[name=name]").fill("Pro")
    page.locator("input[name=currency]").fill("USD")
    page.locator("input[name=renewal_MONTHLY]").fill("49")
    page.get_by_role("button", name="Add a price").click()
    page.locator("fieldset.price input[name=price_type]").fill("CHAT")
    page.locator("fieldset.price input[name=price_denomination]").fill("USD")
    page.locator("fieldset.price input[name=price_amount]").fill("0.02")
    page.locator("input[name=usage_type]").first.fill("CHAT")
    page.locator("input[name=usage_quantity]").first.fill("100")
    page.locator("input[name=usage_quantity]").first.blur()
    month = page.get_by_label("What a month would cost")
    expect(month.get_by_text("$51.00").first).to_be_visible()
    page.get_by_role("button", name="Publish the plan").click()
    expect(page.get_by_role("heading", name="Pro", level=1)).to_be_visible()
    (plan,) = company.call("GET", "/v1/companies/{company}/plans").data
    assert plan["renewals"] == {"MONTHLY": {"amount": 4900}}
    assert (plan["event_prices"][0]["type"], plan["event_prices"][0]["amount"]) == ("CHAT", "2")

    page = window.look(f"/control/plans/{plan['id']}/edit")
    page.locator("input[name=renewal_MONTHLY]").fill("59")
    page.get_by_role("button", name="See what changes").click()
    expect(page.get_by_text("59.00 USD").first).to_be_visible()
    page.get_by_role("button", name=re.compile("[Pp]ublish")).first.click()
    expect(page.get_by_role("heading", name="Pro", level=1)).to_be_visible()
    assert company.call("GET", f"/v1/plans/{plan['id']}").data["renewals"] == {"MONTHLY": {"amount": 5900}}


def test_a_payment_is_given_back(window: Window, engineer: Client) -> None:
    company = signed_up(window, engineer)
    confirming(window)
    account = company.account(credits=0)
    company.card(account)
    payment = company.deposit(account, 1000, 5000)

    page = window.look("/control/payments")
    page.get_by_role("link", name=payment).click()
    expect(page.get_by_text("$50.00").first).to_be_visible()
    refund = page.locator("form[action$='/refund']")
    refund.locator("input[name=amount]").fill("20.00")
    refund.locator("input[name=reason]").fill("asked for")
    refund.get_by_role("button").click()
    expect(page.locator("dd", has_text="$20.00").first).to_be_visible()
    assert company.call("GET", f"/v1/payments/{payment}").data["refunded"] == 2000


def test_a_delivery_is_sent_again(window: Window, engineer: Client) -> None:
    company = signed_up(window, engineer)
    confirming(window)
    hook, delivery = company.listening_webhook(company.account(credits=1))
    page = window.look(f"/control/settings/webhooks/{hook}/logs")
    page.locator(f"a[href$='{delivery}']").first.click()
    expect(page.get_by_role("heading", name="balance_change")).to_be_visible()
    page.get_by_role("button", name="Send it again").click()
    expect(page.locator(".note")).to_be_visible()


def test_whoever_is_invited_may_do_what_the_role_says(
    window: Window, engineer: Client, browser: Browser, service: Server
) -> None:
    signed_up(window, engineer)
    page = window.look("/control/settings/users")
    page.get_by_label("E-mail address").fill("grace@example.com")
    page.locator("form[action='/control/settings/users']").get_by_label("Role").select_option("support")
    page.get_by_role("button", name="Invite").click()
    link = page.locator("input[readonly]").first.input_value()

    colleague = Window(browser, service.address)
    theirs = colleague.look(link.removeprefix(colleague.url))
    theirs.get_by_label("A password of your own").fill("another correct horse")
    theirs.get_by_role("button", name="Join").click()
    theirs.wait_for_url(f"{colleague.url}/")
    theirs = colleague.look("/control/settings/keys")
    expect(theirs.get_by_text("Not for your role")).to_be_visible()
    theirs = colleague.look("/control/reports")
    expect(theirs.get_by_text("Not for your role")).to_be_visible()
    theirs = colleague.look("/control/accounts")
    expect(theirs.get_by_role("heading", name="Treasury Management")).to_be_visible()
    colleague.close()

    window.look("/control/settings/users")
    confirming(window)
    page.get_by_role("button", name="Remove").last.click()
    expect(page.locator("tbody th", has_text="grace@example.com")).to_have_count(0)


def test_every_screen_is_whole_and_open_to_everybody(browser: Browser, service: Server, engineer: Client) -> None:
    email = f"owner-{secrets.token_hex(4)}@example.com"
    company = opened(engineer, email, HOSTILE)
    world = lived(company, days=3)
    company.call("PUT", f"/v1/accounts/{world.subscribed}", {"name": f"{HOSTILE}{'x' * 180}"})
    for size in (DESKTOP, PHONE):
        window = Window(browser, service.address, size)
        window.sign_in(email, PASSWORD)
        for name, path in screens(world).items():
            page = window.look(path)
            page.wait_for_load_state("networkidle") if path != "/" else page.wait_for_timeout(500)
            assert page.locator("h1").count() == 1, name
            assert window.overflow() <= 0, f"{name} is wider than {size}"
            assert window.troubles == [], (name, window.troubles)
            if size is DESKTOP:
                assert window.barriers() == [], name
        window.close()
