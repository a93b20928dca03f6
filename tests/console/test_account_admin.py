"""What is done to an account on its pages, told by what the API says afterwards."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tenuto.console.account_admin import rule_sentence
from tenuto.console.account_flags import flag_words, read_flag
from tenuto.core.outcomes import Refusal
from tenuto.server import Server
from tests.client import Client
from tests.console.colleagues import colleague
from tests.console.visitor import Seen, Visitor
from tests.receivers import until

HOSTILE = "<script>alert(1)</script>{{7*7}}" + "W" * 150


@pytest.fixture
def stranger(service: Server) -> Iterator[Visitor]:
    """The owner of another company, signed in."""
    with Client(*service.address) as client:
        yield Visitor.signed_up(client, service.address, "Other")


def account_of(visitor: Visitor, account_id: str) -> Any:
    return visitor.company.call("GET", f"/v1/accounts/{account_id}").data


def admin_of(account_id: str) -> str:
    return f"/control/accounts/{account_id}/admin"


def balance_of(account_id: str, denomination: str) -> str:
    return f"{admin_of(account_id)}/balances/{denomination}"


def waiting_of(visitor: Visitor) -> list[str]:
    found = visitor.company.call("GET", "/v1/companies/{company}/events?state=suspended")
    return [event["id"] for event in found.data]


def skipped_of(visitor: Visitor, account_id: str) -> str:
    """The one capture of an account that is skipped, once it is."""
    path = f"/v1/accounts/{account_id}/payments?status=skipped"
    until(lambda: visitor.company.call("GET", path).data)
    (payment,) = visitor.company.call("GET", path).data
    return str(payment["id"])


# --- new accounts -----------------------------------------------------------------------------------------------------


def test_an_account_is_opened_by_hand(visitor: Visitor) -> None:
    seen = visitor.send("/control/accounts/new", name="Nimbus", email="n@example.com", credit_limit="12.50")
    account_id = seen.path.rpartition("/")[2]
    assert account_of(visitor, account_id)["credit_limit"] == 1250
    assert "The account Nimbus is open." in seen.words


def test_a_refused_account_comes_back_with_what_was_typed(visitor: Visitor) -> None:
    plan = visitor.company.plan(renewals={"MONTHLY": {"amount": 1000}, "YEARLY": {"amount": 9900}})
    seen = visitor.send("/control/accounts/new", name="Nimbus", email="n@example.com", plan_id=plan, cadence="YEARLY")
    assert seen.status == 422
    assert "no card to charge" in seen.words
    assert 'value="Nimbus"' in seen.text
    assert re.search(r'<option value="YEARLY" selected>', seen.text)
    assert visitor.company.call("GET", "/v1/companies/{company}/accounts").data == []


def test_a_payment_link_opens_the_account_and_is_shown_to_copy(visitor: Visitor) -> None:
    plan = visitor.company.plan(balances={"seats": {"amount": 0, "variable_amount_cost": 200}})
    seen = visitor.send(
        "/control/accounts/new/link",
        name="Nimbus",
        email="n@example.com",
        plan_id=plan,
        cadence="MONTHLY",
        variable=["seats"],
        units=["4"],
    )
    assert "/pay/" in seen.attribute(r'id="link" value="([^"]+)"')
    assert 'data-copy="link"' in seen.text
    (account,) = visitor.company.call("GET", "/v1/companies/{company}/accounts").data
    assert account["plan_status"] == "PENDING_CARD"


def test_the_form_asks_for_the_cadence_and_units_of_the_chosen_plan(visitor: Visitor) -> None:
    plan = visitor.company.plan(balances={"seats": {"amount": 0, "variable_amount_cost": 200}})
    part = visitor.visit(f"/control/accounts/plan-terms?plan_id={plan}")
    assert "Monthly, $10.00" in part.words
    assert "$2.00 each" in part.words
    assert 'name="variable" value="seats"' in part.text


# --- details and cards ------------------------------------------------------------------------------------------------


def test_details_are_edited(visitor: Visitor) -> None:
    account = visitor.company.account()
    visitor.send(
        f"{admin_of(account)}/details",
        name="Nimbus",
        email="new@example.com",
        credit_limit="5",
        metadata='{"order": 12345678901234567890, "price": 1.10}',
    )
    reply = visitor.company.call("GET", f"/v1/accounts/{account}")
    assert (reply.data["name"], reply.data["email"], reply.data["credit_limit"]) == ("Nimbus", "new@example.com", 500)
    assert b"12345678901234567890" in reply.raw
    assert b"1.10" in reply.raw, "numbers of metadata stay as they were typed"
    visitor.send(f"{admin_of(account)}/details", name="Nimbus", email="new@example.com", metadata="{")
    assert account_of(visitor, account)["metadata"]["order"] == 12345678901234567890


def test_metadata_that_is_no_json_is_refused_with_a_note(visitor: Visitor) -> None:
    account = visitor.company.account()
    page = admin_of(account)
    seen = visitor.send(f"{page}/details", came_from=page, name="Other", email="a@example.com", metadata="{order}")
    assert seen.path == page
    assert "takes JSON" in seen.words
    assert account_of(visitor, account)["name"] == "Ada"


def test_a_hostile_name_is_text_on_every_page(visitor: Visitor) -> None:
    body = {"name": HOSTILE, "email": "h@example.com"}
    account = visitor.company.call("POST", "/v1/companies/{company}/accounts", body).data["id"]
    visitor.company.call("POST", f"/v1/accounts/{account}/balance/tokens", {"amount": 5})
    flag = quote("a/b<b>", safe="")
    visitor.company.flag(account, flag, HOSTILE, reason=HOSTILE)
    pages = ("admin", "admin/balances/tokens", "admin/plan", "pauses", "flags", f"flags/{flag}")
    for page in pages:
        seen = visitor.visit(f"/control/accounts/{account}/{page}")
        assert seen.status == 200, page
        assert "<script>alert" not in seen.text
        assert "a/b<b>" not in seen.text
        assert HOSTILE in seen.words


def test_another_card_is_charged_and_one_removed(visitor: Visitor) -> None:
    account = visitor.company.account()
    first, second = visitor.company.card(account), visitor.company.card(account, "tok_mastercard")
    page = admin_of(account)
    assert "ends in 4242" in visitor.visit(page).words
    visitor.send(f"{page}/cards/{first}/default")
    visitor.send(f"{page}/cards/{second}/remove")
    cards = visitor.company.call("GET", f"/v1/accounts/{account}/cards").data
    assert [(card["id"], card["default"]) for card in cards] == [(first, True)]


def test_a_payment_link_for_an_account_that_there_is(visitor: Visitor) -> None:
    account = visitor.company.account()
    plan = visitor.company.plan()
    seen = visitor.send(f"{admin_of(account)}/payment-link", plan_id=plan, cadence="MONTHLY")
    assert "/pay/" in seen.attribute(r'id="link" value="([^"]+)"')
    assert account_of(visitor, account)["plan_status"] == "PENDING_CARD"


def test_the_levels_of_the_company_are_told_in_words(visitor: Visitor) -> None:
    level = {"credit_limit_percentage": 100, "action": "block"}
    assert visitor.company.call("PUT", "/v1/companies/{company}", {"levels": [level]}).status == 200
    seen = visitor.visit(admin_of(visitor.company.account()))
    assert "When a balance owes 100 % of its credit limit, credit is blocked." in seen.words
    assert 'href="/control/settings/credit"' in seen.text


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"threshold_percentage": 80, "action": "notify"}, "When 80 % of a balance is consumed, webhooks are told."),
        (
            {"remaining_percentage": 20, "denomination": "tokens", "action": "flag", "flag": "low"},
            "When 20 % of the balance in tokens is left, the flag low is raised.",
        ),
        (
            {"level": -500, "denomination": "USD", "action": "block"},
            "When the balance in USD falls to -$5.00, credit is blocked.",
        ),
    ],
)
def test_each_level_is_a_sentence(rule: dict[str, Any], said: str) -> None:
    assert rule_sentence(rule, "en_US") == said


# --- balances ---------------------------------------------------------------------------------------------------------


def test_a_balance_is_opened_and_adjusted_with_a_reason(visitor: Visitor) -> None:
    account = visitor.company.account()
    opened = visitor.send(f"{admin_of(account)}/balances", denomination="USD", amount="10")
    assert "$10.00" in opened.words
    adjusted = visitor.send(f"{balance_of(account, 'USD')}/adjust", way="off", amount="2.50", reason="wrongly billed")
    assert "The balance is $7.50 now." in adjusted.words
    newest = visitor.company.call("GET", f"/v1/accounts/{account}/transactions").data[0]
    assert newest["amount"] == -250
    assert "wrongly billed" in str(newest)


def test_an_amount_that_is_no_number_comes_back_as_a_note(visitor: Visitor) -> None:
    account = visitor.company.account(USD=100)
    page = balance_of(account, "USD")
    seen = visitor.send(f"{page}/adjust", came_from=page, way="on", amount="ten", reason="x")
    assert seen.path == page
    assert 'role="alert"' in seen.text
    assert visitor.company.balance(account, "USD")["amount"] == 100


def test_a_deposit_charges_the_card(visitor: Visitor) -> None:
    account = visitor.company.account(tokens=0)
    page = balance_of(account, "tokens")
    refused = visitor.send(f"{page}/deposit", came_from=page, units="1000", charge="5", currency="USD")
    assert "no card" in refused.words
    assert visitor.company.balance(account, "tokens")["amount"] == 0
    visitor.company.card(account)
    done = visitor.send(f"{page}/deposit", units="1000", charge="5", currency="USD", source="")
    assert "$5.00 was charged" in done.words
    assert visitor.company.balance(account, "tokens")["amount"] == 1000


def test_a_declined_card_is_told_and_nothing_is_added(visitor: Visitor) -> None:
    account = visitor.company.account(tokens=0)
    visitor.company.card(account, "tok_chargeCustomerFail")
    page = balance_of(account, "tokens")
    seen = visitor.send(f"{page}/deposit", came_from=page, units="1000", charge="5", currency="USD")
    assert 'class="note bad"' in seen.text
    assert visitor.company.balance(account, "tokens")["amount"] == 0


def test_a_deposit_from_another_balance(visitor: Visitor) -> None:
    account = visitor.company.account(tokens=0, USD=1000)
    visitor.send(f"{balance_of(account, 'tokens')}/deposit", units="100", charge="4", source="USD")
    assert visitor.company.balance(account, "tokens")["amount"] == 100
    assert visitor.company.balance(account, "USD")["amount"] == 600


def test_a_form_sent_twice_has_one_effect(visitor: Visitor) -> None:
    account = visitor.company.account(USD=0)
    for _ in range(2):
        visitor.send(f"{balance_of(account, 'USD')}/adjust", way="on", amount="1", reason="once", _key="the-same-form")
    assert visitor.company.balance(account, "USD")["amount"] == 100


def test_the_credit_limit_of_a_balance(visitor: Visitor) -> None:
    account = visitor.company.account(USD=0)
    visitor.send(f"{balance_of(account, 'USD')}/limit", credit_limit="20")
    assert visitor.company.balance(account, "USD")["credit_limit"] == 2000
    visitor.send(f"{balance_of(account, 'USD')}/limit", credit_limit="")
    assert visitor.company.balance(account, "USD")["credit_limit"] is None


def test_a_refill_is_set_and_ended(visitor: Visitor) -> None:
    account = visitor.company.account(tokens=5000)
    visitor.company.card(account)
    page = balance_of(account, "tokens")
    visitor.send(f"{page}/refill", units="2000", charge="9", currency="USD", source="", threshold="1000")
    balance = visitor.company.balance(account, "tokens")
    assert (balance["threshold"], balance["refill_amount"], balance["usd_charge"]) == (1000, 2000, 900)
    assert balance["refill_monthly"] is False
    assert "Change the refill" in visitor.visit(page).words
    visitor.send(f"{page}/refill", units="2000", charge="9", currency="USD", source="", monthly="on")
    balance = visitor.company.balance(account, "tokens")
    assert (balance["threshold"], balance["refill_monthly"], balance["amount"]) == (None, True, 7000)
    visitor.send(f"{page}/refill/end")
    assert visitor.company.balance(account, "tokens")["refill_monthly"] is False


def test_a_grant_is_given_and_voided(visitor: Visitor) -> None:
    account = visitor.company.account(tokens=0)
    page = balance_of(account, "tokens")
    given = visitor.send(f"{page}/grants", units="200", reason="goodwill", priority="7")
    assert "goodwill" in given.words
    assert visitor.company.balance(account, "tokens")["amount"] == 200
    (grant,) = visitor.company.call("GET", f"/v1/accounts/{account}/balance/tokens/grants").data
    assert grant["priority"] == 7
    visitor.send(f"{page}/grants/{grant['id']}/void")
    assert visitor.company.balance(account, "tokens")["amount"] == 0


# --- the plan ---------------------------------------------------------------------------------------------------------


def previewed(seen: Seen) -> dict[str, Any]:
    """The hidden fields that the button under a preview sends."""
    fields: dict[str, Any] = {}
    for name, value in re.findall(r'<input type="hidden" name="([a-z]\w*)" value="([^"]*)">', seen.text):
        if name != "mode":
            fields.setdefault(name, []).append(value)
    return fields


def test_a_plan_change_is_previewed_and_then_done_as_it_was_previewed(visitor: Visitor) -> None:
    account = visitor.company.account()
    visitor.company.card(account)
    plan = visitor.company.plan(balances={"seats": {"amount": 0, "variable_amount_cost": 200}})
    page = f"{admin_of(account)}/plan"
    assert "This account is on no plan." in visitor.visit(page).words
    seen = visitor.send(f"{page}/preview", plan_id=plan, cadence="MONTHLY", variable=["seats"], units=["3"])
    assert "Change the plan and charge $16.00" in seen.words
    assert account_of(visitor, account)["plan_id"] is None, "a preview does nothing"
    done = visitor.send(f"{page}/change", **previewed(seen))
    assert "The plan is active." in done.words
    payments = visitor.company.call("GET", f"/v1/accounts/{account}/payments").data
    assert [payment["amount"] for payment in payments] == [1600]
    assert "3 seats" in done.words
    assert payments[0]["id"] in done.text, "the history leads to the payment"


def test_a_change_with_the_next_renewal_is_scheduled_and_dropped(visitor: Visitor) -> None:
    account = visitor.company.account()
    visitor.company.card(account)
    visitor.company.start(account, visitor.company.plan())
    more = visitor.company.plan(name="Max", renewals={"MONTHLY": {"amount": 5000}})
    page = f"{admin_of(account)}/plan"
    fields: dict[str, Any] = {"plan_id": more, "cadence": "MONTHLY", "scheme": "sleeping_beauty"}
    seen = visitor.send(f"{page}/preview", **fields)
    assert "Next renewal" in seen.words
    done = visitor.send(f"{page}/change", **previewed(seen))
    assert "to Max, monthly" in done.words.replace(" ,", ",")
    plan = visitor.company.call("GET", f"/v1/accounts/{account}/plan").data
    assert plan["scheduled"]["plan_id"] == more
    visitor.send(f"{page}/drop")
    assert visitor.company.call("GET", f"/v1/accounts/{account}/plan").data["scheduled"] is None


def test_a_plan_is_paused_resumed_and_ended(visitor: Visitor) -> None:
    account = visitor.company.account()
    visitor.company.card(account)
    visitor.company.start(account, visitor.company.plan())
    page = f"{admin_of(account)}/plan"
    assert "Resume the plan" in visitor.send(f"{page}/pause").words
    assert account_of(visitor, account)["plan_status"] == "PAUSED"
    visitor.send(f"{page}/resume")
    assert account_of(visitor, account)["plan_status"] == "ACTIVE"
    seen = visitor.send(f"{page}/preview-end", when="end")
    assert "End the plan with its period" in seen.words
    visitor.send(f"{page}/cancel", **previewed(seen))
    assert visitor.company.call("GET", f"/v1/accounts/{account}/plan").data["cancel_at_period_end"] is True
    seen = visitor.send(f"{page}/preview-end", when="now", prorate="on")
    visitor.send(f"{page}/cancel", **previewed(seen))
    assert account_of(visitor, account)["plan_status"] == "CANCELLED"


def test_a_plan_that_cannot_be_paid_is_refused_with_a_note(visitor: Visitor) -> None:
    account = visitor.company.account()
    page = f"{admin_of(account)}/plan"
    seen = visitor.send(f"{page}/change", came_from=page, plan_id=visitor.company.plan())
    assert seen.path == page
    assert "no card" in seen.words
    assert account_of(visitor, account)["plan_id"] is None


# --- flags ------------------------------------------------------------------------------------------------------------


def test_flags_are_set_and_taken_back_with_a_reason(visitor: Visitor) -> None:
    account = visitor.company.account(tokens=40)
    page = f"/control/accounts/{account}/flags"
    assert visitor.visit(page).status == 200
    new = (("beta", "binary", "on"), ("storage", "limit", "5"), ("tier", "text", "gold"), ("chat", "metered", "tokens"))
    for name, kind, value in new:
        visitor.send(page, came_from=page, name=name, type=kind, value=value, reason="asked by support")
    seen = visitor.visit(page)
    flags = visitor.company.flags(account)
    assert flags["beta"]["enabled"] is True
    assert (flags["storage"]["value"], flags["tier"]["value"], flags["chat"]["denomination"]) == (5, "gold", "tokens")
    assert "follows tokens , which holds 40 tokens" in seen.words
    assert 'role="switch" aria-checked="true" aria-label="beta"' in seen.text
    visitor.send(f"{page}/beta", came_from=page, type="binary", value="off")
    visitor.send(f"{page}/beta/clear", came_from=page, reason="a mistake")
    assert "beta" not in visitor.company.flags(account)
    history = visitor.visit(f"{page}/beta").words
    for told in ("asked by support", "a mistake", "on off", "off not there"):
        assert told in history


def test_a_flag_of_the_system_has_no_switch(visitor: Visitor) -> None:
    account = visitor.company.account()
    page = f"/control/accounts/{account}/flags"
    assert 'aria-label="account_paused"' not in visitor.visit(page).text
    seen = visitor.send(f"{page}/account_paused", came_from=page, type="binary", value="on")
    assert 'class="note bad"' in seen.text
    assert visitor.company.flags(account)["account_paused"]["enabled"] is False


def test_flags_in_words() -> None:
    assert flag_words(None) == "not there"
    assert flag_words({"type": "limit", "value": 5, "enabled": True}) == "up to 5"
    assert flag_words({"type": "metered", "denomination": "tokens", "enabled": False}) == "follows tokens: off"
    assert read_flag("binary", "Off") is False
    for kind, value in (("colour", "red"), ("binary", "yes"), ("limit", "much")):
        with pytest.raises(Refusal):
            read_flag(kind, value)


# --- pauses -----------------------------------------------------------------------------------------------------------


def test_an_account_is_paused_and_blocked_with_a_reason(visitor: Visitor) -> None:
    account = visitor.company.account()
    page = f"/control/accounts/{account}/pauses"
    paused = visitor.send(page, action="pause", reason="chargeback")
    assert account_of(visitor, account)["paused"] is True
    assert "This account is paused." in paused.words
    history = visitor.company.call("GET", f"/v1/accounts/{account}/flags/account_paused/history").data
    assert history[0]["reason"] == "chargeback"
    visitor.send(page, action="resume")
    visitor.send(page, action="credit_block")
    after = account_of(visitor, account)
    assert (after["paused"], after["credit_blocked"]) == (False, True)
    visitor.send(page, action="credit_unblock")
    assert account_of(visitor, account)["credit_blocked"] is False
    assert "data-confirm" in visitor.visit(page).text


def test_usage_of_an_account_waits_and_is_voided(visitor: Visitor) -> None:
    account = visitor.company.account(USD=1000)
    visitor.company.price("CHAT", "USD", "3")
    page = f"/control/accounts/{account}/pauses"
    visitor.send(page, action="suspend_usage")
    visitor.company.send(account, type="CHAT")
    assert "1 event waits" in visitor.visit(page).words
    visitor.send(page, action="resume_usage", queued="void")
    assert account_of(visitor, account)["usage_suspended"] is False
    assert visitor.company.balance(account, "USD")["amount"] == 1000


def test_captures_of_an_account_are_suspended_and_resumed(visitor: Visitor) -> None:
    account = visitor.company.account()
    page = f"/control/accounts/{account}/pauses"
    visitor.send(page, action="suspend_capture")
    assert account_of(visitor, account)["capture_suspended"] is True
    visitor.send(f"{page}/captures", skipped="void")
    assert account_of(visitor, account)["capture_suspended"] is False


def test_an_action_that_there_is_not_is_refused(visitor: Visitor) -> None:
    account = visitor.company.account()
    page = f"/control/accounts/{account}/pauses"
    seen = visitor.send(page, came_from=page, action="explode")
    assert 'class="note bad"' in seen.text


# --- the engine -------------------------------------------------------------------------------------------------------


def test_waiting_events_are_ticked_for_replay_or_void_and_the_rest_resumed(visitor: Visitor) -> None:
    account = visitor.company.account(USD=1000)
    visitor.company.price("CHAT", "USD", "3")
    stopped = visitor.send("/control/engine", action="suspend_usage", reason="a wrong price")
    assert "Usage is suspended since" in stopped.words
    for _ in range(3):
        visitor.company.send(account, type="CHAT")
    first, second, third = waiting_of(visitor)
    assert first in visitor.visit("/control/engine").text
    replayed = visitor.send("/control/engine/events", came_from="/control/engine", ticked=[first], action="replay")
    assert "1 of 1 replayed." in replayed.words
    assert visitor.company.balance(account, "USD")["amount"] == 997
    visitor.send("/control/engine/events", came_from="/control/engine", ticked=[second], action="void")
    assert waiting_of(visitor) == [third]
    visitor.send("/control/engine", action="resume_usage", queued="keep")
    assert waiting_of(visitor) == [third]
    both = visitor.send("/control/engine/events", came_from="/control/engine", ticked=[third, first], action="replay")
    assert "1 of 2 replayed." in both.words
    assert visitor.company.balance(account, "USD")["amount"] == 994


def test_skipped_captures_are_ticked_to_be_processed_or_voided(visitor: Visitor) -> None:
    company = visitor.company
    visitor.send("/control/engine", action="suspend_capture")
    skipped = {}
    for name in ("processed", "voided"):
        account = company.account(tokens=5000)
        company.card(account)
        refill = {"threshold": 1000, "amount": 2000, "usd_charge": 900}
        assert company.call("PUT", f"/v1/accounts/{account}/balance/tokens/autorefill", refill).status == 200
        company.call("POST", f"/v1/accounts/{account}/balance/tokens/adjust", {"amount": -4500})
        skipped[name] = skipped_of(visitor, account)
    page = visitor.visit("/control/engine")
    assert "$9.00" in page.words
    assert skipped["voided"] in page.text
    for name, action in (("processed", "process"), ("voided", "void")):
        done = visitor.send(
            "/control/engine/payments", came_from="/control/engine", ticked=[skipped[name]], action=action
        )
        assert f"1 of 1 {name}." in done.words
    states = {name: company.call("GET", f"/v1/payments/{id}").data["status"] for name, id in skipped.items()}
    assert states["voided"] == "voided"
    assert states["processed"] in {"pending", "succeeded"}
    visitor.send("/control/engine/captures", skipped="process")
    assert company.call("GET", "/v1/companies/{company}/pauses").data["capture_suspended"] is False


def test_the_whole_half_is_paused_and_goes_on(visitor: Visitor) -> None:
    assert "All accounts are paused since" in visitor.send("/control/engine", action="pause").words
    visitor.send("/control/engine", action="resume")
    assert visitor.company.call("GET", "/v1/companies/{company}/pauses").data["paused"] is False


def test_nothing_ticked_is_said(visitor: Visitor) -> None:
    seen = visitor.send("/control/engine/events", came_from="/control/engine", action="void")
    assert "tick at least one row" in seen.words


# --- who may ----------------------------------------------------------------------------------------------------------


def test_somebody_who_only_reads_sees_all_and_is_offered_nothing(visitor: Visitor) -> None:
    company = visitor.company
    account = company.account(tokens=10)
    company.card(account)
    company.start(account, company.plan())
    company.flag(account, "beta", True)
    reader = colleague(visitor, "read_only")
    here = f"/control/accounts/{account}"
    for page in ("admin", "admin/balances/tokens", "admin/plan", "flags", "flags/beta", "pauses"):
        seen = reader.visit(f"{here}/{page}")
        assert seen.status == 200, page
        assert set(re.findall(r'<form method="post" action="([^"]+)"', seen.text)) <= {
            "/control/mode",
            "/control/sign-out",
        }, page
    assert 'action="/control/engine"' not in reader.visit("/control/engine").text
    assert reader.visit("/control/accounts/new").status == 403


@pytest.mark.parametrize(
    ("page", "fields"),
    [
        ("pauses", {"action": "pause"}),
        ("flags", {"name": "beta", "type": "binary", "value": "on"}),
        ("admin/details", {"name": "Mallory", "email": "m@example.com"}),
        ("admin/balances/tokens/adjust", {"way": "on", "amount": "5", "reason": "x"}),
        ("admin/plan/cancel", {"when": "now"}),
    ],
)
def test_a_form_that_the_role_may_not_send_changes_nothing(visitor: Visitor, page: str, fields: dict[str, Any]) -> None:
    account = visitor.company.account(tokens=10)
    before = account_of(visitor, account), visitor.company.balance(account, "tokens")["amount"]
    reader = colleague(visitor, "read_only")
    here = f"/control/accounts/{account}"
    seen = reader.send(f"{here}/{page}", came_from=here, **fields)
    assert "cannot do this" in seen.words
    assert (account_of(visitor, account), visitor.company.balance(account, "tokens")["amount"]) == before


def test_support_may_pause_an_account_but_not_the_whole_half(visitor: Visitor) -> None:
    account = visitor.company.account()
    support = colleague(visitor, "support")
    support.send(f"/control/accounts/{account}/pauses", action="pause")
    assert account_of(visitor, account)["paused"] is True
    seen = support.send("/control/engine", came_from="/control/engine", action="pause")
    assert "cannot do this" in seen.words
    assert visitor.company.call("GET", "/v1/companies/{company}/pauses").data["paused"] is False


def test_finance_may_make_a_payment_link_but_open_no_account_by_hand(visitor: Visitor) -> None:
    finance = colleague(visitor, "finance")
    page = finance.visit("/control/accounts/new")
    assert "New payment link" in page.words
    assert 'action="/control/accounts/new"' not in page.text
    made = finance.send("/control/accounts/new/link", name="Nimbus", email="n@example.com")
    assert "/pay/" in made.attribute(r'id="link" value="([^"]+)"')


def test_an_account_of_another_company_is_not_there(visitor: Visitor, stranger: Visitor) -> None:
    account = stranger.company.account(tokens=10)
    for page in ("admin", "admin/balances/tokens", "admin/plan", "flags", "pauses"):
        assert visitor.visit(f"/control/accounts/{account}/{page}").status == 404, page
    visitor.send(f"/control/accounts/{account}/pauses", action="pause")
    assert account_of(stranger, account)["paused"] is False


def test_a_link_to_the_customers_own_page_is_handed_on(visitor: Visitor) -> None:
    account = visitor.company.account(USD=1000)
    made = visitor.send(f"/control/accounts/{account}/admin/customer-page")
    assert made.status == 200
    address = made.attribute(r'id="link" value="([^"]+)"')
    assert "/me/" in address
    assert "once" not in made.words.partition("Send it to the customer.")[2].partition("It is shown")[0]
    page = visitor.visit("/me/" + address.rpartition("/")[2])
    assert (page.status, "Ada" in page.words) == (200, True)
