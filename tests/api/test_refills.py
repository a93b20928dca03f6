"""Refills: below a threshold, every month at its own date, from a card or another balance, and the clock that moves."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from tests.client import Client, Company, Reply
from tests.simulated import Simulated

REFUSING: Final = "pm_card_chargeCustomerFail"
THRESHOLD: Final = {"threshold": 100, "amount": 1000, "usd_charge": 500}
MONTHLY: Final = {"refill_monthly": True, "amount": 1000, "usd_charge": 500}


def refused(reply: Reply, status: int, code: str, /, **details: object) -> None:
    assert (reply.status, reply.code) == (status, code), reply.raw[:500]
    assert {name: reply.details.get(name) for name in details} == details


def ask(company: Company, method: str, path: str, body: object = None) -> Any:
    reply = company.call(method, f"/v1{path}", body)
    assert reply.status == 200, reply.raw[:500]
    return reply.data


def refill(company: Company, account: str, terms: dict[str, Any], **headers: str) -> Reply:
    """Set the refill of the account's credits."""
    return company.call("PUT", f"/v1/accounts/{account}/balance/credits/autorefill", terms, headers)


def set_refill(company: Company, account: str, **terms: object) -> Any:
    reply = refill(company, account, terms)
    assert reply.status == 200, reply.raw[:500]
    return reply.data


def forward(company: Company, **by: float) -> Any:
    """Move the company's clock by days, hours, seconds."""
    seconds = int(timedelta(**by).total_seconds())
    return ask(company, "POST", f"/companies/{company.id}/clock", {"advance_seconds": seconds})


def move_to(company: Company, at: str) -> Any:
    return ask(company, "POST", f"/companies/{company.id}/clock", {"now": at})


def now_of(company: Company) -> datetime:
    return moment(ask(company, "GET", f"/companies/{company.id}/clock")["now"])


def moment(text: str) -> datetime:
    """A time as answers spell it."""
    return datetime.fromisoformat(text if re.search(r"[+-]\d\d:\d\d$", text) else f"{text}:00")


def payments(company: Company, account: str, query: str = "") -> list[Any]:
    return list(ask(company, "GET", f"/accounts/{account}/payments{query}"))


def amount(company: Company, account: str, denomination: str = "credits") -> int:
    return int(company.balance(account, denomination)["amount"])


def charged(stripe: Simulated, company: Company) -> int:
    """How often the company's sandbox charged a card."""
    book = stripe.book(f"sk_test_sandbox{company.id[2:]}")
    return sum(intent["status"] == "succeeded" for intent in book["payment_intents"])


def usage(company: Company, account: str, quantity: int) -> None:
    used = {"type": "USED", "quantity": 1, "cost_override_amount": quantity, "cost_override_denomination": "credits"}
    assert company.send(account, used).status == 200


def january(company: Company, day: int) -> None:
    """Let it be noon of a day in January of a year to come."""
    move_to(company, f"2031-01-{day:02}T12:00:00Z")


# --- below a threshold ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/accounts/{}/auto_refill", "/accounts/{}/balance/credits/autorefill"])
def test_a_balance_below_its_threshold_is_refilled(company: Company, stripe: Simulated, path: str) -> None:
    account = company.account(credits=200)
    company.card(account)
    shown = ask(company, "PUT", path.format(account), THRESHOLD)

    assert shown == company.balance(account, "credits")
    assert (shown["threshold"], shown["refill_amount"], shown["usd_charge"]) == (100, 1000, 500)
    assert (shown["charge_denomination"], shown["refill_monthly"], shown["refill_parked"]) == ("USD", False, None)
    usage(company, account, 100)
    forward(company, seconds=1)
    assert (amount(company, account), charged(stripe, company)) == (100, 0), "below is strict"
    usage(company, account, 1)
    forward(company, seconds=1)
    assert (amount(company, account), charged(stripe, company)) == (1099, 1)
    (payment,) = payments(company, account)
    assert (payment["reason"], payment["status"], payment["units"]) == ("threshold_refill", "succeeded", 1000)
    assert ask(company, "GET", f"/accounts/{account}/transactions")[0]["type"] == "THRESHOLD_REFILL"


def test_the_clockwork_refills_without_being_told(company: Company) -> None:
    account = company.account(credits=200)
    company.card(account)
    set_refill(company, account, **THRESHOLD)
    usage(company, account, 150)

    give_up_at = datetime.now(UTC) + timedelta(seconds=15)
    while amount(company, account) != 1050:
        assert datetime.now(UTC) < give_up_at, "nobody refills"


def test_a_threshold_above_what_is_there_is_crossed_already(company: Company) -> None:
    account = company.account(credits=0)
    company.card(account)
    set_refill(company, account, **THRESHOLD)

    forward(company, seconds=1)
    assert amount(company, account) == 1000


def test_ending_and_changing_a_threshold_takes_effect_at_once(company: Company, stripe: Simulated) -> None:
    account = company.account(credits=200)
    company.card(account)
    set_refill(company, account, **THRESHOLD)

    assert set_refill(company, account, threshold=50)["threshold"] == 50
    usage(company, account, 110)
    forward(company, seconds=1)
    assert charged(stripe, company) == 0
    ended = set_refill(company, account, threshold=None)
    assert (ended["threshold"], ended["refill_amount"]) == (None, None)
    usage(company, account, 80)
    forward(company, seconds=1)
    assert (amount(company, account), charged(stripe, company)) == (10, 0)


def test_delete_ends_all_refills(company: Company, stripe: Simulated) -> None:
    account = company.account(credits=200)
    company.card(account)
    set_refill(company, account, **THRESHOLD, refill_monthly=True)
    path = f"/accounts/{account}/balance/credits/autorefill"

    ended = ask(company, "DELETE", path)
    assert (ended["refill_monthly"], ended["threshold"], ended["next_periodic_refill"]) == (False, None, None)
    forward(company, days=70)
    usage(company, account, 1150)
    forward(company, seconds=1)
    assert (amount(company, account), charged(stripe, company)) == (50, 1)
    refused(company.call("POST", f"/v1{path}/resume"), 409, "no_refill")
    assert company.call("DELETE", f"/v1{path}").status == 200
    refused(company.call("DELETE", f"/v1/accounts/{account}/balance/none/autorefill"), 404, "not_found")


@pytest.mark.parametrize(
    ("terms", "code", "path"),
    [
        ({"threshold": 100, "usd_charge": 500}, "missing_field", "amount"),
        ({"threshold": 100, "amount": 1000}, "missing_field", "usd_charge"),
        ({"amount": 1000, "usd_charge": 500}, "missing_field", "threshold"),
        ({**THRESHOLD, "usd_charge": 49}, "amount_not_chargeable", "usd_charge"),
        ({**THRESHOLD, "usd_charge": 100_000_000}, "amount_not_chargeable", "usd_charge"),
        ({**THRESHOLD, "charge_against_denomination": "credits"}, "invalid_field", "charge_against_denomination"),
    ],
)
def test_a_refill_says_what_when_and_for_how_much(
    company: Company, terms: dict[str, Any], code: str, path: str
) -> None:
    account = company.account(credits=0)
    company.card(account)

    for said in (terms, {**terms, "preview": True}):
        refused(refill(company, account, said), 422, code, path=path)
    assert company.balance(account, "credits")["threshold"] is None


def test_a_refill_for_nothing_needs_no_card(company: Company) -> None:
    account = company.account(credits=0)
    set_refill(company, account, threshold=10, amount=100, usd_charge=0)

    forward(company, seconds=1)
    assert amount(company, account) == 100


def test_a_balance_can_be_opened_with_its_refill(company: Company, stripe: Simulated) -> None:
    account = company.account()
    company.card(account)
    path = f"/v1/accounts/{account}/balance"
    terms = {"amount": 50, "threshold": 100, "refill_amount": 1000, "usd_charge": 500}

    opened = company.call("POST", f"{path}/credits", terms, {"idempotency-key": "k"})
    assert (opened.status, opened.data["amount"], opened.data["threshold"]) == (200, 50, 100)
    assert company.call("POST", f"{path}/credits", terms, {"idempotency-key": "k"}).raw == opened.raw
    refused(company.call("POST", f"{path}/credits", terms), 409, "balance_exists")
    forward(company, seconds=1)
    assert amount(company, account) == 1050
    monthly = {"refill_monthly": True, "refill_amount": 7, "usd_charge": 100}
    refused(company.call("POST", f"{path}/tokens", monthly), 422, "invalid_field")
    refused(company.call("GET", f"{path}/tokens"), 404, "not_found")
    assert charged(stripe, company) == 1
    refused(company.call("POST", f"{path}/seats", {"threshold": 5}), 422, "missing_field")
    refused(company.call("GET", f"{path}/seats"), 404, "not_found")


# --- declines, caps, resuming -----------------------------------------------------------------------------------------


def test_a_refused_refill_is_tried_three_times_then_parked_until_resumed(company: Company, stripe: Simulated) -> None:
    account = company.account(credits=0)
    company.card(account, REFUSING)
    set_refill(company, account, **THRESHOLD)

    forward(company, seconds=1)
    (payment,) = payments(company, account)
    assert (payment["status"], payment["attempts"]) == ("pending", 1)
    forward(company, hours=1)
    assert payments(company, account)[0]["attempts"] == 2
    forward(company, hours=24)
    (payment,) = payments(company, account)
    assert (payment["status"], payment["attempts"], payment["code"]) == ("failed", 3, "generic_decline")
    assert company.balance(account, "credits")["refill_parked"] == "generic_decline"
    forward(company, days=10)
    assert (amount(company, account), charged(stripe, company)) == (0, 0)

    company.card(account)
    forward(company, seconds=1)
    assert company.balance(account, "credits")["refill_parked"] is None
    assert (amount(company, account), charged(stripe, company)) == (1000, 1), "a new card takes it up, once"


def test_a_parked_refill_is_resumed_by_hand(company: Company) -> None:
    account = company.account(credits=0)
    set_refill(company, account, **THRESHOLD)
    forward(company, seconds=1)
    assert company.balance(account, "credits")["refill_parked"] == "payment_method_required"

    path = f"/accounts/{account}/balance/credits/autorefill/resume"
    assert ask(company, "POST", path)["refill_parked"] is None
    forward(company, seconds=1)
    assert company.balance(account, "credits")["refill_parked"] == "payment_method_required"
    assert amount(company, account) == 0


def test_no_balance_is_refilled_more_often_than_the_company_allows(company: Company, stripe: Simulated) -> None:
    caps = {"per_hour": 2, "per_day": 3, "amount_per_day": None}
    assert ask(company, "PUT", f"/companies/{company.id}", {"refill_caps": caps})["refill_caps"] == caps
    account = company.account(credits=0)
    company.card(account)
    set_refill(company, account, threshold=100, amount=1, usd_charge=100)

    drain(company, account, 4)
    assert charged(stripe, company) == 2
    assert company.balance(account, "credits")["refill_parked"] == "refill_cap_reached"
    forward(company, hours=2)
    assert charged(stripe, company) == 2, "what is parked waits for a person"
    ask(company, "POST", f"/accounts/{account}/balance/credits/autorefill/resume")
    drain(company, account, 2)
    assert (charged(stripe, company), company.balance(account, "credits")["refill_parked"]) == (3, "refill_cap_reached")


def test_no_balance_is_refilled_for_more_a_day_than_the_company_allows(company: Company, stripe: Simulated) -> None:
    ask(company, "PUT", f"/companies/{company.id}", {"refill_caps": {"per_hour": 100, "amount_per_day": 250}})
    account = company.account(credits=0)
    company.card(account)
    set_refill(company, account, threshold=100, amount=1, usd_charge=100)

    drain(company, account, 3)
    assert (charged(stripe, company), company.balance(account, "credits")["refill_parked"]) == (2, "refill_cap_reached")


def test_one_debit_is_followed_by_one_refill(company: Company, stripe: Simulated) -> None:
    account = company.account(credits=0)
    company.card(account)
    set_refill(company, account, threshold=100, amount=1, usd_charge=100)

    forward(company, hours=1)
    assert (amount(company, account), charged(stripe, company)) == (1, 1), "though 1 is still below 100"


def drain(company: Company, account: str, times: int) -> None:
    """So many debits, with a refill after each where one may be."""
    for _ in range(times):
        forward(company, seconds=1)
        usage(company, account, 1)
    forward(company, seconds=1)


# --- every month ------------------------------------------------------------------------------------------------------


def test_the_first_monthly_refill_is_charged_at_once(company: Company, stripe: Simulated) -> None:
    account = company.account(credits=5)
    company.card(account)
    january(company, 15)

    shown = set_refill(company, account, **MONTHLY)
    assert (shown["amount"], charged(stripe, company)) == (1005, 1)
    assert shown["refill_monthly"] is True
    assert shown["last_periodic_refill"].startswith("2031-01-15 12:00:")
    assert shown["next_periodic_refill"].startswith("2031-02-15 12:00:")
    (payment,) = payments(company, account)
    assert (payment["reason"], payment["status"]) == ("refill_start", "succeeded")


def test_a_refused_first_refill_leaves_nothing_set(company: Company) -> None:
    account = company.account(credits=5)
    company.card(account, REFUSING)

    reply = refill(company, account, MONTHLY, **{"idempotency-key": "start"})
    refused(reply, 402, "payment_failed", decline_code="generic_decline")
    assert refill(company, account, MONTHLY, **{"idempotency-key": "start"}).raw == reply.raw
    shown = company.balance(account, "credits")
    assert (shown["amount"], shown["refill_monthly"], shown["next_periodic_refill"]) == (5, False, None)
    assert (shown["refill_amount"], shown["threshold"]) == (None, None)
    forward(company, days=70)
    assert [one["status"] for one in payments(company, account)] == ["failed"]


def test_without_a_card_no_monthly_refill_begins(company: Company) -> None:
    account = company.account(credits=5)

    refused(refill(company, account, MONTHLY), 402, "payment_method_required")
    assert company.balance(account, "credits")["refill_monthly"] is False
    assert payments(company, account) == []


def test_the_same_key_begins_monthly_refills_once(company: Company, stripe: Simulated) -> None:
    account = company.account(credits=0)
    company.card(account)
    replies = [refill(company, account, MONTHLY, **{"x-dedupeid": "start"}) for _ in range(2)]

    assert [reply.status for reply in replies] == [200, 200]
    assert replies[0].raw == replies[1].raw
    assert (amount(company, account), charged(stripe, company)) == (1000, 1)
    assert refill(company, account, MONTHLY).status == 200, "said again, nothing changes"
    assert charged(stripe, company) == 1


def test_a_preview_of_a_monthly_refill_says_what_it_charges_now(company: Company, stripe: Simulated) -> None:
    account = company.account(credits=0)
    company.card(account)
    price = {"preview": True, "amount_to_charge": 500, "currency": "USD", "amount_to_deposit": 1000}

    assert set_refill(company, account, **MONTHLY, preview=True) == {**price, "denomination": "credits"}
    begun = {**MONTHLY, "amount": 7, "usd_charge": 700}
    assert set_refill(company, account, **begun, preview=True)["amount_to_charge"] == 700
    later = set_refill(company, account, **THRESHOLD, preview=True)
    assert (later["amount_to_charge"], later["amount_to_deposit"]) == (0, 0)
    assert charged(stripe, company) == 0
    assert company.balance(account, "credits")["refill_monthly"] is False


@pytest.mark.parametrize(
    ("day", "dates"),
    [
        (15, [f"2031-{month:02}-15" for month in range(2, 13)] + ["2032-01-15"]),
        (28, [f"2031-{month:02}-28" for month in range(2, 13)] + ["2032-01-28"]),
        (29, [f"2031-{month:02}-01" for month in range(3, 13)] + ["2032-01-01", "2032-02-01"]),
        (31, [f"2031-{month:02}-01" for month in range(3, 13)] + ["2032-01-01", "2032-02-01"]),
    ],
)
def test_a_year_in_one_call_refills_each_month_at_its_own_date(
    company: Company, stripe: Simulated, day: int, dates: list[str]
) -> None:
    account = company.account(credits=0)
    company.card(account)
    january(company, day)
    set_refill(company, account, **MONTHLY)

    moved = move_to(company, "2032-02-02T12:00:00Z")
    assert moved["done"]["refill_due"] == len(dates)
    found = payments(company, account, "?reason=refill")
    assert [one["due_at"][:10] for one in found] == dates[::-1]
    for one in found:
        late = moment(one["created_at"]) - moment(one["due_at"])
        assert timedelta(0) <= late < timedelta(minutes=1), "each is written at its own date, not at the end"
        assert moment(one["finished_at"]) - moment(one["due_at"]) < timedelta(minutes=1)
        assert one["due_at"][11:17] == "12:00:"
    assert amount(company, account) == 1000 * (1 + len(dates))
    assert charged(stripe, company) == 1 + len(dates)
    moves = [one for one in ask(company, "GET", f"/accounts/{account}/transactions") if one["type"] == "REFILL"]
    assert [one["created_at"][:10] for one in moves] == [*dates[::-1], f"2031-01-{day}"]
    shown = company.balance(account, "credits")
    assert shown["last_periodic_refill"][:10] == dates[-1]
    assert shown["next_periodic_refill"][:10] == {15: "2032-02-15", 28: "2032-02-28"}.get(day, "2032-03-01")


def test_monthly_dates_keep_their_hour_in_the_zone_of_the_company(company: Company) -> None:
    ask(company, "PUT", f"/companies/{company.id}", {"time_zone": "Europe/Berlin"})
    account = company.account(credits=0)
    company.card(account)
    move_to(company, "2031-03-15T12:00:00Z")
    set_refill(company, account, **MONTHLY)

    assert company.balance(account, "credits")["next_periodic_refill"].startswith("2031-04-15 11:00:")


def test_a_change_of_a_monthly_refill_begins_with_the_next_one(company: Company, stripe: Simulated) -> None:
    account = company.account(credits=0)
    company.card(account)
    january(company, 15)
    set_refill(company, account, **MONTHLY)

    shown = set_refill(company, account, amount=300, usd_charge=200, threshold=20)
    assert (shown["refill_amount"], shown["usd_charge"], shown["threshold"]) == (1000, 500, 20)
    assert (shown["amount"], charged(stripe, company)) == (1000, 1)
    move_to(company, "2031-02-16T00:00:00Z")
    shown = company.balance(account, "credits")
    assert (shown["amount"], shown["refill_amount"], shown["usd_charge"]) == (1300, 300, 200)
    assert payments(company, account)[0]["amount"] == 200


def test_monthly_refills_end_with_the_next_one(company: Company, stripe: Simulated) -> None:
    account = company.account(credits=0)
    company.card(account)
    january(company, 15)
    set_refill(company, account, **MONTHLY)

    shown = set_refill(company, account, refill_monthly=False)
    assert (shown["refill_monthly"], shown["next_periodic_refill"][:10]) == (True, "2031-02-15")
    move_to(company, "2031-06-01T00:00:00Z")
    shown = company.balance(account, "credits")
    assert (shown["refill_monthly"], shown["next_periodic_refill"], shown["amount"]) == (False, None, 1000)
    assert charged(stripe, company) == 1


def test_an_end_that_was_taken_back_ends_nothing(company: Company) -> None:
    account = company.account(credits=0)
    company.card(account)
    january(company, 15)
    set_refill(company, account, **MONTHLY)
    set_refill(company, account, refill_monthly=False)
    set_refill(company, account, refill_monthly=True)

    move_to(company, "2031-02-16T00:00:00Z")
    assert amount(company, account) == 2000


def test_a_month_and_a_threshold_live_on_one_balance(company: Company) -> None:
    account = company.account(credits=0)
    company.card(account)
    january(company, 15)
    set_refill(company, account, **MONTHLY, threshold=100)
    usage(company, account, 950)
    forward(company, seconds=1)
    assert amount(company, account) == 1050
    move_to(company, "2031-02-16T00:00:00Z")

    assert amount(company, account) == 2050
    assert [one["reason"] for one in payments(company, account)] == ["refill", "threshold_refill", "refill_start"]


def test_a_refused_month_is_paid_later_and_the_dates_stay(company: Company, stripe: Simulated) -> None:
    account = company.account(credits=0)
    good = company.card(account)
    january(company, 15)
    set_refill(company, account, **MONTHLY)
    company.card(account, REFUSING)
    move_to(company, "2031-02-15T12:30:00Z")
    assert (amount(company, account), payments(company, account)[0]["status"]) == (1000, "pending")

    ask(company, "PUT", f"/accounts/{account}/cards/{good}", {"default": True})
    forward(company, seconds=1)
    assert (amount(company, account), charged(stripe, company)) == (2000, 2)
    move_to(company, "2031-03-15T13:00:00Z")
    assert [one["due_at"][:10] for one in payments(company, account)] == ["2031-03-15", "2031-02-15", "2031-01-15"]


# --- from another balance ---------------------------------------------------------------------------------------------


def test_a_refill_can_be_paid_from_another_balance(company: Company, stripe: Simulated) -> None:
    account = company.account(credits=0, USD=1200)
    january(company, 15)
    shown = set_refill(company, account, **MONTHLY, charge_against_denomination="USD")

    assert (shown["charge_denomination"], shown["amount"]) == ("USD", 1000)
    assert amount(company, account, "USD") == 700
    move_to(company, "2031-02-16T00:00:00Z")
    assert (amount(company, account), amount(company, account, "USD")) == (2000, 200)
    move_to(company, "2031-03-16T00:00:00Z")
    assert (amount(company, account), amount(company, account, "USD")) == (2000, 200), "too little waits"
    assert {one["method"] for one in payments(company, account)} == {"balance"}
    assert charged(stripe, company) == 0


def test_a_first_refill_that_a_balance_cannot_pay_sets_nothing(company: Company) -> None:
    account = company.account(credits=0, USD=499)
    terms = {**MONTHLY, "charge_against_denomination": "USD"}

    refused(refill(company, account, terms), 402, "insufficient_balance", required=500, shortfall=1)
    assert company.balance(account, "credits")["refill_monthly"] is False
    assert amount(company, account, "USD") == 499


# --- the clock --------------------------------------------------------------------------------------------------------


def test_everything_due_happens_in_order_while_a_year_passes(company: Company) -> None:
    account = company.account(credits=0)
    company.card(account)
    january(company, 31)
    set_refill(company, account, **MONTHLY, threshold=100)
    usage(company, account, 950)

    done = move_to(company, "2031-05-02T00:00:00Z")["done"]
    assert done["refill_due"] >= 4
    moves = [one for one in reversed(ask(company, "GET", f"/accounts/{account}/transactions")) if one["amount"]]
    assert [(one["type"], one["created_at"][:10]) for one in moves] == [
        ("REFILL", "2031-01-31"),
        ("EVENT", "2031-01-31"),
        ("THRESHOLD_REFILL", "2031-01-31"),
        ("REFILL", "2031-03-01"),
        ("REFILL", "2031-04-01"),
        ("REFILL", "2031-05-01"),
    ]
    assert [one["ending_balance"] for one in moves] == [1000, 50, 1050, 2050, 3050, 4050]


def test_the_clock_of_one_company_moves_no_other(company: Company, client: Client) -> None:
    other = Company.open(client)
    account = other.account(credits=0)
    other.card(account)
    set_refill(other, account, **MONTHLY)
    before = now_of(other)

    forward(company, days=365)
    assert now_of(other) - before < timedelta(minutes=1)
    assert amount(other, account) == 1000


def test_a_move_with_a_key_is_made_once(company: Company, stripe: Simulated) -> None:
    account = company.account(credits=0)
    company.card(account)
    set_refill(company, account, **MONTHLY)
    path, key = "/v1/companies/{company}/clock", {"idempotency-key": "a month"}
    replies = [company.call("POST", path, {"advance_seconds": 45 * 86_400}, key) for _ in range(2)]

    assert replies[0].raw == replies[1].raw
    assert replies[1].is_replay
    assert charged(stripe, company) == 2
