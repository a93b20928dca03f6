"""Treasury Management: the list of accounts, an account's page by how it pays, its tabs, and an event explained."""

from __future__ import annotations

import html
import json
import re
from datetime import date, datetime, timedelta
from typing import Any

import pytest

from tenuto.console import account_charts as charts
from tenuto.console.account_events import exact_amount, sentence_of, story_of
from tenuto.console.account_overview import Line, by_type, card_of, chosen
from tests.console.colleagues import colleague
from tests.console.visitor import Seen, Visitor

HOSTILE = "<script>alert(1)</script>{{7*7}}" + "x" * 150
TODAY = date(2026, 3, 2)


def charts_of(seen: Seen) -> dict[str, Any]:
    """The charts of a page by what they are said to show, up to the first comma."""
    found = re.findall(r'aria-label="([^"]*)" data-chart="([^"]*)"', seen.text)
    return {html.unescape(label): json.loads(html.unescape(config)) for label, config in found}


def moved(bucket: str, book: str, amount: int, ending: int = 0, denomination: str = "USD") -> dict[str, Any]:
    """One row of the sums of movements."""
    return {
        "bucket": bucket,
        "book": book,
        "amount": amount,
        "ending_balance": ending,
        "denomination": denomination,
    }


# --- how an account pays ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("has_credit", "has_plan", "has_funds", "kind"),
    [
        (False, False, False, "prepaid"),
        (False, False, True, "prepaid"),
        (True, False, False, "postpaid"),
        (True, False, True, "postpaid"),
        (False, True, False, "subscription"),
        (False, True, True, "hybrid"),
        (True, True, False, "hybrid"),
        (True, True, True, "hybrid"),
    ],
)
def test_how_an_account_pays_is_seen_by_what_it_has(
    *, has_credit: bool, has_plan: bool, has_funds: bool, kind: str
) -> None:
    assert charts.kind_of(has_credit=has_credit, has_plan=has_plan, has_funds=has_funds) == kind


def test_months_go_back_over_the_new_year() -> None:
    assert [month.name for month in charts.months_until(date(2026, 1, 31), 3)] == ["2025-11", "2025-12", "2026-01"]
    assert [month.days for month in charts.months_until(TODAY, 2)] == [28, 31]


def test_burn_up_adds_up_by_day_and_stops_today() -> None:
    rows = [
        moved("2026-02-28", "usage", -50),
        moved("2026-03-01", "usage", -300),
        moved("2026-03-01", "deposit", 900),
        moved("2026-03-02", "overage", -25),
        moved("2026-03-02", "usage", -7, denomination="tokens"),
    ]
    chart = charts.burn_up(rows, "USD", TODAY)
    this, last, _ = chart.config["data"]["datasets"]
    assert this["data"][:3] == [3.0, 3.25, None]
    assert last["data"][26:29] == [0.0, 0.5, None], "February has no twenty-ninth"
    assert chart.rows[1] == ("2", [325, 0, 0]), "the table says whole units"
    assert charts.spend_of(rows, "USD", charts.Month(2026, 3)) == 325


@pytest.mark.parametrize(("limit", "count"), [(0, 3), (1625, 4), (1626, 3)])
def test_the_credit_line_is_drawn_where_it_can_be_seen_beside_the_spend(limit: int, count: int) -> None:
    chart = charts.burn_up([moved("2026-03-01", "usage", -325)], "USD", TODAY, limit=limit)
    assert len(chart.config["data"]["datasets"]) == count


def test_burn_down_keeps_what_the_day_before_had() -> None:
    rows = [moved("2026-02-27", "deposit", 100, 506), moved("2026-03-01", "usage", -3, 503)]
    ends = [values[0] for _, values in charts.burn_down(rows, "USD", 503, TODAY).rows]
    assert len(ends) == charts.BURN_DOWN_DAYS
    assert ends[0] == 406, "before it first moved it held what the first movement began with"
    assert ends[-5:] == [406, 506, 506, 503, 503]


def test_a_balance_that_never_moved_in_the_span_is_flat() -> None:
    assert {values[0] for _, values in charts.burn_down([], "USD", 77, TODAY).rows} == {77}


def test_revenue_is_split_into_plan_top_ups_and_overage() -> None:
    rows = [moved("2026-02", "plan", -1000), moved("2026-02", "payment", 1000), moved("2026-03-02", "overage", -75)]
    paid = {"bucket": "2026-03", "reason": "deposit", "currency": "USD", "net": 400}
    others = [{**paid, "currency": "EUR"}, {**paid, "reason": "plan_renewal"}]
    chart = charts.revenue(rows, [paid, *others], "USD", TODAY)
    assert chart.heads == ["Core plan", "Top-ups", "Overage"]
    assert chart.rows[:2] == [("2026-03", [0, 400, 75]), ("2026-02", [1000, 0, 0])]


def test_the_headline_is_about_the_balance_that_says_most() -> None:
    usd = Line("USD", -500, -500, 10_000, is_funded=False, plan_id=None)
    tokens = Line("tokens", 900, 900, 10_000, is_funded=True, plan_id=None)
    assert chosen([tokens, usd], [], "postpaid", "") == usd, "money is what is paid afterwards"
    assert chosen([usd, tokens], [], "prepaid", "") == tokens, "funds are what runs out"
    assert chosen([usd, tokens], [], "prepaid", "USD") == usd
    assert chosen([], [], "prepaid", "") is None


def test_a_plans_balance_says_what_is_used_of_what_is_included() -> None:
    line = Line("renders", 40, 40, 0, is_funded=False, plan_id="p_1")
    rows = [moved("2026-03-01", "grant", 100, denomination="renders"), moved("x", "usage", -60, denomination="renders")]
    assert card_of(line, rows) == ("renders", 100, 60, 40, 60)
    assert card_of(line, []).share == 0


def test_usage_of_one_type_is_one_row_whatever_it_took_from() -> None:
    first = {"bucket": "CHAT", "denomination": "USD", "events": 2, "quantity": "2.5", "amount": 6, "cogs": {"USD": 1}}
    beside = {**first, "denomination": "tokens", "events": 0, "quantity": "0", "amount": 9, "cogs": {}}
    free = {**first, "bucket": "FREE", "denomination": None, "amount": 0, "cogs": {}}
    chat, nothing = by_type([first, beside, free])
    assert (chat.events, str(chat.quantity), chat.costs, chat.cogs) == (2, "2.5", {"USD": 6, "tokens": 9}, {"USD": 1})
    assert nothing.costs == {}


# --- the list ---------------------------------------------------------------------------------------------------------


def test_a_company_without_accounts_is_told_the_next_step(visitor: Visitor) -> None:
    seen = visitor.visit("/control/accounts")
    assert "No account has been opened yet." in seen.words
    assert 'href="/control/accounts/new"' in seen.text


def test_the_list_shows_what_stands_still_and_names_as_text(visitor: Visitor) -> None:
    company = visitor.company
    calm = company.account(USD=100)
    body = {"name": HOSTILE, "email": "bobby@example.com"}
    hostile = company.call("POST", "/v1/companies/{company}/accounts", body).data["id"]
    assert company.call("POST", f"/v1/accounts/{hostile}/pause", {"reason": "=1+1"}).status == 200
    seen = visitor.visit("/control/accounts")
    assert "<script>alert(1)" not in seen.text
    assert "{{7*7}}" in seen.words
    assert f'href="/control/accounts/{hostile}"' in seen.text
    assert '<span class="badge slow">paused</span>' in seen.text
    found = visitor.visit("/control/accounts?email=bobby@example.com")
    assert hostile in found.text
    assert calm not in found.text


def test_the_list_can_be_had_as_a_file(visitor: Visitor) -> None:
    account = visitor.company.account(USD=100)
    body = {"name": "=SUM(A1)", "email": "x@example.com"}
    assert visitor.company.call("POST", "/v1/companies/{company}/accounts", body).status == 200
    head, *rows = visitor.visit("/control/accounts?format=csv").text.splitlines()
    assert head.startswith("id,name,email,plan_status")
    assert any(row.startswith(f"{account},Ada,ada@example.com,NONE") for row in rows)
    assert any(",'=SUM(A1)," in row for row in rows)


# --- an account -------------------------------------------------------------------------------------------------------


def test_banners_say_what_stands_still_since_when_by_whom_and_why(visitor: Visitor) -> None:
    company, account = visitor.company, visitor.company.account(USD=100)
    calm = visitor.visit(f"/control/accounts/{account}")
    assert 'class="banner' not in calm.text
    company.call("POST", f"/v1/accounts/{account}/pause", {"reason": "They asked <b>"})
    company.call("POST", f"/v1/accounts/{account}/credit_block", {})
    company.call("POST", f"/v1/accounts/{account}/suspend_usage", {})
    company.call("POST", f"/v1/accounts/{account}/suspend_capture")
    stands = company.call("GET", f"/v1/accounts/{account}").data
    for tab in ("", "/events", "/transactions", "/payments", "/invoices", "/refused"):
        seen = visitor.visit(f"/control/accounts/{account}{tab}")
        assert seen.status == 200, tab
        assert "This account is paused. Since" in seen.words
        assert "by k_" in seen.words
        assert "Reason: They asked <b>" in seen.words
        assert stands["paused_at"] in html.unescape(seen.text)
        assert "Credit is blocked. Since" in seen.words
        assert "Usage is suspended. Since" in seen.words
        assert "Capture is suspended." in seen.words


def test_what_stands_still_for_all_is_told_on_each_account(visitor: Visitor) -> None:
    account = visitor.company.account(USD=100)
    assert visitor.company.call("POST", "/v1/companies/{company}/pause", {}).status == 200
    assert "All accounts are paused." in visitor.visit(f"/control/accounts/{account}").words


def test_an_account_that_is_not_there_is_a_page_that_says_so(visitor: Visitor) -> None:
    seen = visitor.visit("/control/accounts/a_00000000")
    assert seen.status == 404
    assert "There is nothing here" in seen.words


def test_a_postpaid_account_shows_its_spend_against_its_credit_line(visitor: Visitor) -> None:
    company = visitor.company
    body = {"name": "Later", "email": "later@example.com", "credit_limit": 10_000}
    account = company.call("POST", "/v1/companies/{company}/accounts", body).data["id"]
    company.price("CHAT", "USD", "300")
    assert company.send(account, {"type": "CHAT", "quantity": 7}, {"type": "CHAT", "quantity": 2}).status == 200
    seen = visitor.visit(f"/control/accounts/{account}/charts")
    assert "Spend this month $27.00" in seen.words
    assert "27 % of the credit line of $100.00" in seen.words
    assert "$27.00 of $100.00 credit used" in seen.words
    (chart,) = charts_of(seen).values()
    this = [value for value in chart["data"]["datasets"][0]["data"] if value is not None]
    assert this[-1] == 27.0
    assert chart["data"]["datasets"][-1]["label"] == "Credit line"
    assert "CHAT 2 9 $27.00" in seen.words


def test_a_prepaid_account_shows_its_balance_and_how_it_burns_down(visitor: Visitor) -> None:
    account = visitor.company.account(tokens=500)
    visitor.company.price("CHAT", "tokens", "3")
    assert visitor.company.send(account, type="CHAT", quantity=20).status == 200
    seen = visitor.visit(f"/control/accounts/{account}/charts")
    assert "Balance 440 tokens" in seen.words
    assert "Spend this month 60 tokens" in seen.words
    up, down = charts_of(seen).values()
    assert up["data"]["datasets"][0]["label"] == "This month"
    assert down["data"]["datasets"][0]["data"][-2:] == [0.0, 440.0], "its first units came today"


def test_a_subscription_shows_revenue_by_its_parts_and_what_is_left_of_what_is_included(visitor: Visitor) -> None:
    company = visitor.company
    account = company.account()
    company.card(account)
    renders = {"amount": 100, "overage_charge_amount": 25, "overage_charge_denomination": "USD"}
    plan = company.plan(name="Studio", balances={"renders": renders})
    company.price("RENDER", "renders", "1")
    assert company.call("POST", f"/v1/accounts/{account}/changeplan", {"plan_id": plan}).status == 200
    assert company.send(account, type="RENDER", quantity=60).status == 200
    seen = visitor.visit(f"/control/accounts/{account}/charts")
    assert "40 renders left" in seen.words
    assert "60 renders used of 100 renders included" in seen.words
    assert f'href="/control/plans/{plan}"' in seen.text
    assert company.send(account, type="RENDER", quantity=50).status == 200
    (chart,) = charts_of(visitor.visit(f"/control/accounts/{account}/charts")).values()
    last = {part["label"]: part["data"][-1] for part in chart["data"]["datasets"]}
    assert last == {"Core plan": 10.0, "Top-ups": 0.0, "Overage": 2.5}


def test_a_plan_beside_a_top_up_is_shown_with_both(visitor: Visitor) -> None:
    company = visitor.company
    account = company.account()
    company.card(account)
    assert company.call("POST", f"/v1/accounts/{account}/changeplan", {"plan_id": company.plan()}).status == 200
    company.deposit(account, units=1000, charge=500)
    seen = visitor.visit(f"/control/accounts/{account}/charts")
    found = charts_of(seen)
    assert [label.partition(" ")[0] for label in found] == ["Spend", "The", "Revenue"]
    *_, revenue = found.values()
    assert {part["label"]: part["data"][-1] for part in revenue["data"]["datasets"]}["Top-ups"] == 5.0


def test_the_account_and_the_reports_say_the_same_of_what_came_in(visitor: Visitor) -> None:
    company = visitor.company
    account = company.account()
    company.card(account)
    early = company.deposit(account, charge=700)
    assert company.call("POST", "/v1/companies/{company}/clock", {"advance_seconds": 40 * 86_400}).status == 200
    company.start(account, company.plan(renewals={"MONTHLY": {"amount": 0}}))
    company.deposit(account, charge=500)
    assert company.call("POST", f"/v1/payments/{early}/refund", {"amount": 300}).status == 200
    *_, revenue = charts_of(visitor.visit(f"/control/accounts/{account}/charts")).values()
    drawn = next(part["data"] for part in revenue["data"]["datasets"] if part["label"] == "Top-ups")
    now = datetime.fromisoformat(company.call("GET", "/v1/companies/{company}/clock").data["now"])
    months = charts.months_until(now.date(), charts.REVENUE_MONTHS)
    span = f"from={months[0].first}T00:00:00Z"
    rows = company.call("GET", f"/v1/companies/{{company}}/reports/revenue?{span}").data["rows"]
    told = {row["bucket"]: row["net"] / 100 for row in rows if row["reason"] == "deposit"}
    assert drawn == [told.get(month.name, 0.0) for month in months]
    assert sorted(told.values()) == [2.0, 7.0], "a refund lowers the month in which it went back"


def test_who_reads_no_reports_sees_what_an_account_paid(visitor: Visitor) -> None:
    company = visitor.company
    account = company.account()
    company.card(account)
    company.start(account, company.plan())
    company.deposit(account, charge=500)
    support = colleague(visitor, "support")
    *_, revenue = charts_of(support.visit(f"/control/accounts/{account}/charts")).values()
    assert {part["label"]: part["data"][-1] for part in revenue["data"]["datasets"]}["Top-ups"] == 5.0


def test_an_account_without_balances_is_told_the_next_step(visitor: Visitor) -> None:
    account = visitor.company.account()
    assert "This account has no balance yet." in visitor.visit(f"/control/accounts/{account}").words
    assert charts_of(visitor.visit(f"/control/accounts/{account}/charts")) == {}


def test_the_balance_that_is_asked_for_is_drawn_though_it_bears_a_strange_name(visitor: Visitor) -> None:
    account = visitor.company.account(tokens=500, USD=100)
    page = visitor.visit(f"/control/accounts/{account}?denomination=%22%3E%3Cscript%3E")
    assert "<script>" not in page.text.replace("<script src=", "")
    seen = visitor.visit(f"/control/accounts/{account}/charts?denomination=USD")
    assert "Balance $1.00" in seen.words


# --- tabs -------------------------------------------------------------------------------------------------------------


def test_the_tabs_list_what_belongs_to_the_account_alone(visitor: Visitor) -> None:
    company = visitor.company
    mine, other = company.account(USD=1000), company.account(USD=1000)
    company.price("CHAT", "USD", "3")
    own = company.send(mine, type="CHAT").data["id"]
    foreign = company.send(other, type="CHAT").data["id"]
    events = visitor.visit(f"/control/accounts/{mine}/events")
    assert f'href="/control/events/{own}"' in events.text
    assert foreign not in events.text
    assert "$0.03" in events.words
    moves = visitor.visit(f"/control/accounts/{mine}/transactions")
    assert f'href="/control/events/{own}"' in moves.text
    assert "-$0.03" in moves.words
    file = visitor.visit(f"/control/accounts/{mine}/events?format=csv")
    assert file.headers["content-type"].startswith("text/csv")
    assert own in file.text
    assert foreign not in file.text


def test_details_show_money_as_money_and_metadata_as_it_came(visitor: Visitor) -> None:
    company, account = visitor.company, visitor.company.account(USD=123456)
    company.price("CHAT", "USD", "2")
    metadata = {"amount": 777, "denomination": "USD"}
    company.send(account, type="CHAT", quantity=617, metadata=metadata)
    words = visitor.visit(f"/control/accounts/{account}/events").words
    assert "denomination USD amount $12.34 exact $12.34" in words
    assert "amount 777" in words
    assert "amount $1,222.22" in visitor.visit(f"/control/accounts/{account}").words


@pytest.mark.parametrize(
    ("query", "is_there"),
    [
        ("type=CHAT", True),
        ("type=OTHER", False),
        ("state=complete", True),
        ("state=pending", False),
        ("tag=usage", True),
        ("tag=payout", False),
        ("denomination=USD", True),
        ("denomination=tokens", False),
    ],
)
def test_events_are_filtered_by_all_that_the_api_filters_by(visitor: Visitor, query: str, *, is_there: bool) -> None:
    account = visitor.company.account(USD=1000)
    visitor.company.price("CHAT", "USD", "3")
    event = visitor.company.send(account, type="CHAT").data["id"]
    seen = visitor.visit(f"/control/accounts/{account}/events?{query}")
    assert (event in seen.text) == is_there
    assert ("Nothing fits these filters." in seen.words) != is_there


def test_refused_events_have_a_view_of_their_own(visitor: Visitor) -> None:
    account = visitor.company.account(USD=1)
    visitor.company.price("CHAT", "USD", "3")
    refused = visitor.company.send(account, type="CHAT", gate_on_balance=True)
    assert refused.status != 200
    seen = visitor.visit(f"/control/accounts/{account}/refused")
    assert refused.code.replace("_", " ") in seen.words
    assert "Refused because" in seen.words
    assert "No event of this account has been billed." in visitor.visit(f"/control/accounts/{account}/events").words
    filtered = visitor.visit(f"/control/accounts/{account}/refused?type=OTHER")
    assert "Nothing fits these filters." in filtered.words


def test_payments_and_invoices_lead_to_their_pages(visitor: Visitor) -> None:
    company, account = visitor.company, visitor.company.account()
    company.card(account)
    payment = company.deposit(account)
    invoice = company.invoice(account)
    paid = visitor.visit(f"/control/accounts/{account}/payments")
    assert f'href="/control/payments/{payment}"' in paid.text
    assert "$5.00" in paid.words
    billed = visitor.visit(f"/control/accounts/{account}/invoices")
    assert f'href="/control/invoices/{invoice}"' in billed.text
    assert "$6.00" in billed.words


# --- an event ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exact", "denomination", "shown"),
    [
        ("300", "USD", "$3.00"),
        ("1/4", "USD", "0.0025 USD"),
        ("5.25", "tokens", "5.25 tokens"),
        ("1/3", "tokens", "about 0.333 tokens"),
        (None, "USD", "\N{EN DASH}"),
    ],
)
def test_an_exact_amount_is_shown_to_its_last_digit(exact: str | None, denomination: str, shown: str) -> None:
    assert exact_amount(exact, denomination) == shown


def test_an_event_that_an_override_priced_says_so() -> None:
    charge = {"denomination": "USD", "exact": "5", "amount": 5, "price": None, "overage": None}
    event = {"quantity": 1, "type": "CALL", "state": "pending", "reason": None}
    assert (
        sentence_of(event, charge)
        == "1 x CALL cost exactly $0.05, as the event itself said; $0.05 are held until it is settled."
    )
    ended = sentence_of({**event, "state": "cancelled", "reason": "expired"}, charge)
    assert ended.endswith("its hour was over before it was settled, so it costs nothing.")


def test_what_a_balance_lacked_is_told_as_overage(visitor: Visitor) -> None:
    company = visitor.company
    account = company.account()
    company.card(account)
    renders = {"amount": 10, "overage_charge_amount": 25, "overage_charge_denomination": "USD"}
    plan = company.plan(balances={"renders": renders})
    price = company.price("RENDER", "renders", "1.5")
    assert company.call("POST", f"/v1/accounts/{account}/changeplan", {"plan_id": plan}).status == 200
    event = company.send(account, type="RENDER", quantity=8).data["id"]
    seen = visitor.visit(f"/control/events/{event}")
    whole = f"8 x RENDER cost exactly 12 renders by version 1 of price {price}"
    assert f"{whole}; 2 renders of that were not there, and became overage." in seen.words
    assert "2 renders were not there; at $0.25 each they cost exactly $0.50 as overage." in seen.words
    assert f'href="/control/plans/{plan}"' in seen.text


def test_the_story_of_a_hold_ends_with_how_it_ended() -> None:
    held = {
        "recorded_at": "2026-03-01T10:00:00Z",
        "occurred_at": "2026-03-01T09:00:00Z",
        "expires_at": "2026-03-01T11:00:00Z",
        "finished_at": None,
        "state": "pending",
        "reason": None,
    }
    assert [at[11:13] for at, _ in story_of(held)] == ["09", "10", "11"]
    over = {**held, "state": "cancelled", "reason": "requested", "finished_at": "2026-03-01T10:30:00Z"}
    assert story_of(over)[-1] == ("2026-03-01T10:30:00Z", "It was cancelled on request.")


def test_an_event_is_explained_from_its_price_to_the_balance_after(visitor: Visitor) -> None:
    company = visitor.company
    account = company.account(tokens=100)
    price = company.price("CHAT", "tokens", "5.25")
    body = {"type": "CHAT", "metadata": {"model": "<img onerror=x>"}, "cogs_amount": 2, "cogs_denomination": "USD"}
    parent = company.send(account, **body).data["id"]
    child = company.send(account, type="CHAT", quantity=3, parent_event_id=parent).data["id"]
    seen = visitor.visit(f"/control/events/{parent}")
    assert (
        f"1 x CHAT cost exactly 5.25 tokens by version 1 of price {price}. With 0 tokens carried over from before, that"
        " moves 5 tokens and carries 0.25 tokens on." in seen.words
    )
    assert "100 tokens → 95 tokens" in seen.words
    assert "Cost of goods $0.02" in seen.words
    assert "<img onerror" not in seen.text
    assert "<img onerror=x>" in html.unescape(seen.text)
    assert f'href="/control/events/{child}"' in seen.text
    part = visitor.visit(f"/control/events/{child}")
    assert f'href="/control/events/{parent}"' in part.text


def test_an_event_is_taken_back_once(visitor: Visitor) -> None:
    company, account = visitor.company, visitor.company.account(USD=100)
    company.price("CHAT", "USD", "3")
    event = company.send(account, type="CHAT").data["id"]
    page = f"/control/events/{event}"
    assert "Take back" in visitor.visit(page).words
    done = visitor.send(f"{page}/take-back", came_from=page)
    assert "The event was taken back." in done.words
    assert "It was taken back." in done.words
    assert f'action="{page}/take-back"' not in done.text
    assert company.call("GET", f"/v1/accounts/{account}/balance/USD").data["amount"] == 100
    again = visitor.send(f"{page}/take-back", came_from=page)
    assert 'class="note bad"' in again.text


def test_a_hold_is_settled_for_less_than_it_holds(visitor: Visitor) -> None:
    company, account = visitor.company, visitor.company.account(USD=100)
    company.price("CHAT", "USD", "3")
    event = company.send(account, type="CHAT", quantity=10, state="pending").data["id"]
    page = f"/control/events/{event}"
    assert "$0.30 are held until it is settled." in visitor.visit(page).words
    refused = visitor.send(f"{page}/settle", came_from=page, quantity="11")
    assert 'class="note bad"' in refused.text
    done = visitor.send(f"{page}/settle", came_from=page, quantity="4")
    assert "The hold was settled." in done.words
    assert company.call("GET", f"/v1/accounts/{account}/balance/USD").data["amount"] == 88


def test_an_event_that_waits_is_billed_by_hand(visitor: Visitor) -> None:
    company, account = visitor.company, visitor.company.account(USD=100)
    company.price("CHAT", "USD", "3")
    company.call("POST", f"/v1/accounts/{account}/suspend_usage", {})
    event = company.send(account, type="CHAT").data["id"]
    page = f"/control/events/{event}"
    assert "It was kept aside" in visitor.visit(page).words
    billed = visitor.send(f"{page}/replay", came_from=page)
    assert 'class="note good"' in billed.text, billed.words
    assert company.call("GET", f"/v1/accounts/{account}/balance/USD").data["amount"] == 97


def test_who_may_only_read_sees_no_control_and_has_none(visitor: Visitor) -> None:
    company, account = visitor.company, visitor.company.account(USD=100)
    company.price("CHAT", "USD", "3")
    event = company.send(account, type="CHAT").data["id"]
    reader = colleague(visitor, "read_only")
    page = f"/control/events/{event}"
    assert "Take back" not in reader.visit(page).words
    assert "New account" not in reader.visit("/control/accounts").words
    assert "New payment link" not in reader.visit(f"/control/accounts/{account}").words
    denied = reader.send(f"{page}/take-back", came_from=page)
    assert "cannot do this" in denied.words
    assert company.call("GET", f"/v1/accounts/{account}/balance/USD").data["amount"] == 97


def test_another_companys_event_is_not_there(visitor: Visitor) -> None:
    other = Visitor.signed_up(visitor.company.client, visitor.address)
    account = other.company.account(USD=100)
    other.company.price("CHAT", "USD", "3")
    event = other.company.send(account, type="CHAT").data["id"]
    for path in (f"/control/events/{event}", f"/control/accounts/{account}", f"/control/accounts/{account}/events"):
        assert visitor.visit(path).status == 404, path


def test_months_are_the_companys_own(visitor: Visitor) -> None:
    """What is used today stands under today, in whatever zone the company counts its days."""
    company, account = visitor.company, visitor.company.account(tokens=100)
    company.price("CHAT", "tokens", "1")
    for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago"):
        assert company.call("PUT", "/v1/companies/{company}", {"time_zone": zone}).status == 200
        company.send(account, type="CHAT")
        seen = visitor.visit(f"/control/accounts/{account}/charts")
        up, _ = charts_of(seen).values()
        shown = [value for value in up["data"]["datasets"][0]["data"] if value is not None]
        now = datetime.fromisoformat(company.call("GET", "/v1/companies/{company}/clock").data["now"])
        hours = timedelta(hours=14 if zone.endswith("Kiritimati") else -11)
        assert len(shown) == (now + hours).day
