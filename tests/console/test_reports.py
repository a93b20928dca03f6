"""Reports in the console, and the figures of Home: what they say is what the API says, and leads on."""

from __future__ import annotations

import re
from typing import Final

import pytest

from tests.console.visitor import PASSWORD, Visitor

NAMES: Final = ("revenue", "usage", "accounts", "cogs", "owed", "mrr")


@pytest.fixture
def account(visitor: Visitor) -> str:
    """An account that used something, paid something, and owes something."""
    company = visitor.company
    company.price("CHAT", "USD", "3")
    company.price("<script>alert(1)</script>", "tokens", "2")
    account = company.account(USD=100_000, tokens=0)
    company.send(account, type="CHAT", quantity=41, cogs=7)
    company.send(account, type="<script>alert(1)</script>", quantity=4)
    company.card(account)
    company.deposit(account, charge=1234)
    company.account(USD=-500)
    return account


def joined(visitor: Visitor, role: str) -> Visitor:
    """Somebody with a role who was invited and has signed in."""
    invited = visitor.company.call(
        "POST", "/v1/companies/{company}/users", {"email": f"{role}-{visitor.email}", "role": role}
    )
    assert invited.status == 200, invited
    other = Visitor(visitor.address)
    other.email = f"{role}-{visitor.email}"
    path = re.sub(r"^https?://[^/]+", "", str(invited.data["url"] if "url" in invited.data else invited.data["link"]))
    page = other.visit(path)
    fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.text))
    done = other.send(path, **{**fields, "password": PASSWORD})
    assert done.status == 200, done
    return other


@pytest.mark.parametrize("name", NAMES)
def test_a_report_has_a_page_at_once_and_its_figures_after(visitor: Visitor, account: str, name: str) -> None:
    page = visitor.visit(f"/control/reports/{name}")
    assert page.status == 200
    assert 'aria-current="page"' in page.text
    part = page.attribute(r'hx-get="(/control/reports/[^"]+)"')
    seen = visitor.visit(part, hx_request="true")
    assert seen.status == 200
    assert "<html" not in seen.text
    if name == "mrr":
        assert "No account is on a plan that is paid in money." in seen.words
    else:
        assert "<table>" in seen.text
        assert "data-chart" in seen.text
    assert account


def test_usage_shows_the_sum_and_leads_to_its_events(visitor: Visitor, account: str) -> None:
    seen = visitor.visit("/control/reports/usage/figures")
    assert "$1.23" in seen.words
    assert "$0.07" in seen.words
    lead = seen.attribute(r'href="(/control/events\?[^"]+)"')
    events = visitor.visit(lead)
    assert events.status == 200
    assert "CHAT" in events.words
    assert account in events.text
    assert "script" not in events.words


def test_hostile_types_are_text(visitor: Visitor, account: str) -> None:
    seen = visitor.visit("/control/reports/usage/figures?unit=tokens")
    assert "<script>" not in seen.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in seen.text
    assert visitor.visit(seen.attribute(r'href="(/control/events\?[^"]+)"')).status == 200
    assert account


def test_accounts_and_debtors_lead_to_their_pages(visitor: Visitor, account: str) -> None:
    assert f'href="/control/accounts/{account}"' in visitor.visit("/control/reports/accounts/figures").text
    assert "$5.00" in visitor.visit("/control/reports/owed/figures").words


def test_a_time_without_anything_says_so(visitor: Visitor, account: str) -> None:
    for name in ("revenue", "usage", "accounts", "cogs"):
        seen = visitor.visit(f"/control/reports/{name}/figures?range=custom&from=2020-01-01&to=2020-01-31")
        assert "Choose another time above." in seen.words
    assert account


def test_days_of_a_custom_time_are_both_in_it(visitor: Visitor, account: str) -> None:
    today = visitor.visit("/control/reports/usage?range=90_days").attribute(r'name="to" value="([^"]+)"')
    seen = visitor.visit(f"/control/reports/usage/figures?range=custom&from={today}&to={today}")
    assert "$1.23" in seen.words
    assert account


def test_a_file_holds_all_rows_and_its_taking_is_told(visitor: Visitor, account: str) -> None:
    file = visitor.visit("/control/reports/usage/csv?by=type")
    assert file.headers["content-type"].startswith("text/csv")
    assert "attachment" in file.headers["content-disposition"]
    lines = file.text.splitlines()
    assert lines[0] == "bucket,denomination,events,quantity,amount,cogs"
    assert "CHAT,USD,1,41,123,7 USD" in lines
    told = visitor.company.call("GET", "/v1/companies/{company}/activity?action=export_report").data
    assert [row["actor_name"] for row in told] == [visitor.email]
    assert account


@pytest.mark.parametrize("name", NAMES)
def test_a_file_has_its_head_though_there_is_nothing(visitor: Visitor, name: str) -> None:
    told = visitor.visit(f"/control/reports/{name}/csv").text.splitlines()
    company = visitor.company
    company.price("CHAT", "USD", "3")
    account = company.account(USD=-500)
    company.card(account)
    company.deposit(account)
    company.start(account, company.plan())
    assert company.send(account, type="CHAT", cogs=1).status == 200
    found = company.call("GET", f"/v1/companies/{{company}}/reports/{name}").data["rows"]
    assert told == [",".join(field for field in found[0] if field != "filters")]
    assert len(visitor.visit(f"/control/reports/{name}/csv").text.splitlines()) == 1 + len(found)


def test_a_file_that_is_cut_says_so_in_its_last_line(visitor: Visitor, account: str) -> None:
    assert "Cut here" not in visitor.visit("/control/reports/usage/csv").text
    for start in range(0, 1002, 501):
        kinds = [{"type": f"KIND{start + one}"} for one in range(501)]
        assert visitor.company.send(account, *kinds).status == 200
    lines = visitor.visit("/control/reports/usage/csv").text.splitlines()
    assert sum(line.startswith("KIND") for line in lines) == 1000
    assert lines[-1] == "Cut here: of each denomination the first 1000 rows stand above; there are more."


def test_what_has_no_price_is_one_click_away(visitor: Visitor, account: str) -> None:
    assert visitor.company.send(account, type="FREE", quantity=8).status == 200
    seen = visitor.visit("/control/reports/usage/figures")
    assert "FREE" not in seen.words
    page = visitor.visit(seen.attribute(r'href="([^"]+)">without a price</a>'))
    part = visitor.visit(page.attribute(r'hx-get="(/control/reports/[^"]+)"'))
    assert "FREE" in part.words
    assert "CHAT" not in part.words
    assert re.search(r'aria-current="true">without a price</a>', part.text)


def test_revenue_leads_to_the_payments_it_counts(visitor: Visitor, account: str) -> None:
    company = visitor.company
    back = company.deposit(account, charge=4321)
    assert company.call("POST", f"/v1/payments/{back}/refund").status == 200
    company.account(USD=5000)
    body = {"amount_to_deposit": 5, "amount_to_charge": 77, "denomination": "tokens"}
    paid = company.call("POST", f"/v1/accounts/{account}/deposit", {**body, "charge_against_denomination": "USD"})
    assert paid.status == 200, paid
    seen = visitor.visit("/control/reports/revenue/figures")
    assert "$55.55" in seen.words
    listed = visitor.visit(seen.attribute(r'href="(/control/payments\?[^"]+)"'))
    assert listed.status == 200
    assert "$12.34" in listed.words
    assert "$43.21" in listed.words, "what was refunded came in, too"
    assert "$0.77" not in listed.words, "a balance brought nothing in"


def test_a_role_without_reports_sees_neither_them_nor_money(visitor: Visitor, account: str) -> None:
    support = joined(visitor, "support")
    assert support.visit("/control/reports/usage").status == 403
    assert support.visit("/control/reports/usage/csv").status == 403
    figures = support.visit("/control/figures")
    assert figures.status == 200
    assert "Events in 24 hours" in figures.words
    assert "Revenue" not in figures.words
    assert "Owed" not in figures.words
    assert "Revenue this month" in visitor.visit("/control/figures").words
    assert account


def test_figures_count_what_the_lists_hold(visitor: Visitor, account: str) -> None:
    visitor.company.send(account, type="CHAT", quantity=10**7, gate_on_balance=True)
    visitor.company.card(account, "tok_chargeCustomerFail")
    failed = {"amount_to_deposit": 5, "amount_to_charge": 5000, "denomination": "credits"}
    assert visitor.company.call("POST", f"/v1/accounts/{account}/deposit", failed).status == 402
    seen = visitor.visit("/control/figures")
    for figure in (
        "Accounts 2",
        "Events in 24 hours 2",
        "Refused in 24 hours 1",
        "Revenue this month $12.34",
        "Failed payments in 7 days 1",
        "Failing webhooks 0",
        "database answers",
        "clockwork runs",
    ):
        assert figure in seen.words, (figure, seen.words)
    for path in re.findall(r'class="tile[^"]*" href="([^"]+)"', seen.text):
        assert visitor.visit(path.replace("&amp;", "&")).status == 200, path


def test_there_is_no_other_report(visitor: Visitor) -> None:
    assert visitor.visit("/control/reports/everything").status == 404
    assert visitor.visit("/control/reports").path == "/control/reports/revenue"
