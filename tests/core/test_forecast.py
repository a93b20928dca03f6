"""What a month of given usage would cost on a plan that nobody is on, and how a plan is said in one sentence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from tenuto.core.catalog import EventPrice, price_version
from tenuto.core.forecast import (
    EVENTS_MAX,
    USAGE_MAX,
    Cost,
    Forecast,
    Usage,
    forecast,
    money_text,
    sentence_of,
    version_of,
)
from tenuto.core.money import Exact, exact, exact_text
from tenuto.core.outcomes import Refusal
from tenuto.core.plan import Cadence
from tenuto.core.terms import Terms, terms_of

NOW: Final = datetime(2030, 4, 1, 12, tzinfo=UTC)
GB: Final = {"type": "STORE", "denomination": "storage_gb", "match": {}, "amount": "1"}
TIERS: Final = [{"up_to": 10, "amount": "3", "per": 1}, {"up_to": None, "amount": "1", "per": 2}]


def terms(*prices: EventPrice, **more: Any) -> Terms:
    """A company's, with prices of its own."""
    return terms_of(
        zone=UTC,
        default_credit_limit=0,
        late=timedelta(days=1),
        ahead=timedelta(minutes=5),
        prices=prices,
        versions=[version for price in prices for version in price.versions],
        **more,
    )


def of_company(kind: str, denomination: str, amount: str) -> EventPrice:
    """A price that holds for all accounts of a company."""
    version = price_version(
        id=7, price_id=7, number=1, denomination=denomination, effective_at=NOW, terms={"amount": amount}
    )
    return EventPrice(7, kind, denomination, {}, (version,))


def plan(*prices: dict[str, Any], monthly: int = 1000, balances: Any = None, **more: Any) -> dict[str, Any]:
    """The stored form of a plan's terms."""
    return {
        "name": "Pro",
        "renewal_denomination": "USD",
        "renewals": {"MONTHLY": {"amount": monthly}},
        "balances": balances or {},
        "event_prices": [{"denomination": "USD", "match": {}, **price} for price in prices],
        **more,
    }


def month(
    given: dict[str, Any],
    *usage: Usage,
    cadence: Cadence | None = None,
    chosen: dict[str, int] | None = None,
    of: Terms | None = None,
) -> Forecast:
    """A month on a plan."""
    version = version_of(given, NOW)
    return forecast(version, usage, terms=of or terms(), cadence=cadence, chosen=chosen or {}, now=NOW)


def used(kind: str, quantity: str, events: int = 1, **properties: object) -> Usage:
    """So much of a type."""
    return Usage(kind, exact(quantity), events, properties)


def told(found: Forecast) -> list[tuple[str, str, str, str]]:
    """Lines in short: what, of what, how many, what they come to."""
    return [(cost.what, cost.name, exact_text(cost.units), exact_text(cost.exact)) for cost in found.lines]


def test_what_is_not_included_is_charged_as_overage() -> None:
    found = month(
        plan(GB, balances={"storage_gb": {"amount": 10, "overage_charge_amount": "100"}}), used("STORE", "12")
    )

    assert told(found) == [
        ("plan", "Pro", "1", "1000"),
        ("per_unit", "STORE", "12", "12"),
        ("beyond", "STORE", "2", "-2"),
        ("overage", "storage_gb", "2", "200"),
    ]
    assert found.totals == {"USD": 1200}
    assert [(came.denomination, came.included, came.used, came.left, came.short) for came in found.included] == [
        ("USD", 0, 200, 0, 200),
        ("storage_gb", 10, 10, 0, 0),
    ]


def test_included_units_pay_before_money_does() -> None:
    found = month(plan({"type": "CHAT", "amount": "30"}, balances={"USD": {"amount": 500}}), used("CHAT", "20"))

    assert found.totals == {"USD": 1000 + 600 - 500}


def test_a_balance_without_overage_goes_below_zero() -> None:
    chat = {"type": "CHAT", "denomination": "credits", "amount": "3"}
    found = month(plan(chat, balances={"credits": {"amount": 100}}), used("CHAT", "40"))

    assert found.totals == {"USD": 1000, "credits": 20}
    assert found.included[0].short == 20


@pytest.mark.parametrize("events", [1, 3, 40])
def test_tiers_are_climbed_by_the_whole_month(events: int) -> None:
    found = month(plan({"type": "CHAT", "model": "graduated", "tiers": TIERS}), used("CHAT", "40", events))

    assert [line for line in told(found) if line[0] == "tier"] == [
        ("tier", "CHAT", "10", "30"),
        ("tier", "CHAT", "30", "15"),
    ]
    assert found.totals == {"USD": 1045}


def test_a_bound_of_each_event_counts_as_often_as_events_come() -> None:
    priced = plan({"type": "CHAT", "amount": "1", "minimum": "5"})

    assert month(priced, used("CHAT", "10")).totals == {"USD": 1010}
    assert month(priced, used("CHAT", "10", 10)).totals == {"USD": 1050}


def test_a_month_that_stays_below_the_minimum_is_lifted_to_it() -> None:
    priced = plan({"type": "CHAT", "amount": "1"}, minimum_spend=5000)

    found = month(priced, used("CHAT", "100"))
    assert found.totals == {"USD": 5000}
    assert found.lines[-1].what == "minimum_spend"
    assert found.lines[-1].exact == Exact(3900, 1)
    assert month(priced, used("CHAT", "4500")).totals == {"USD": 5500}
    assert month(priced).totals == {"USD": 5000}


def test_a_year_is_not_lifted_to_its_minimum_after_a_month() -> None:
    yearly = plan(renewals={"YEARLY": {"amount": 12_000}}, minimum_spend=50_000)

    found = month(yearly)
    assert (found.cadence, found.totals) == ("YEARLY", {"USD": 12_000})


def test_usage_above_the_cap_is_told() -> None:
    capped = plan({"type": "CHAT", "amount": "1"}, spend_cap=100)

    assert month(capped, used("CHAT", "130")).above_cap == 30
    assert month(capped, used("CHAT", "90")).above_cap == 0
    assert month(capped).above_cap == 0
    assert month(plan()).above_cap is None


def test_chosen_units_are_paid_for_and_come_with_the_period() -> None:
    seats = plan(balances={"seats": {"amount": 1, "variable_amount_cost": 200}})

    found = month(seats, chosen={"seats": 3})
    assert told(found) == [("plan", "Pro", "1", "1000"), ("variable", "seats", "3", "600")]
    assert [(came.denomination, came.included) for came in found.included] == [("seats", 4)]
    with pytest.raises(Refusal) as caught:
        month(plan(), chosen={"seats": 3})
    assert caught.value.details["path"] == "plan_variable_amounts.seats"


def test_a_trial_and_the_setup_fee_are_left_out() -> None:
    found = month(plan(trial_days=14, setup_fee=5000))

    assert (found.totals, found.setup_fee) == ({"USD": 1000}, 5000)


def test_what_the_plan_does_not_price_has_the_price_of_the_company() -> None:
    company = terms(of_company("CHAT", "USD", "4"), is_paused=True, is_suspended=True)

    assert month(plan(), used("CHAT", "10"), of=company).totals == {"USD": 1040}
    assert month(plan({"type": "CHAT", "amount": "1"}), used("CHAT", "10"), of=company).totals == {"USD": 1010}


def test_what_nobody_prices_is_said_to_cost_nothing() -> None:
    found = month(plan(), used("CHAT", "10"))

    assert told(found)[1:] == [("no_price", "CHAT", "10", "0")]
    assert found.totals == {"USD": 1000}


def test_a_price_for_some_events_looks_at_their_properties() -> None:
    priced = plan(
        {"type": "CHAT", "amount": "1"}, {"type": "CHAT", "amount": "9", "match": {"model": "large"}}, monthly=0
    )

    assert month(priced, used("CHAT", "1"), used("CHAT", "1", model="large")).totals == {"USD": 10}


def test_fractions_add_up_before_they_are_charged() -> None:
    priced = plan({"type": "READ", "amount": "15", "per": 1_000_000}, monthly=0)

    found = month(priced, used("READ", "100000", 7))
    assert found.lines == (Cost("per_unit", "READ", Exact(100_000, 1), Exact(3, 200_000), Exact(3, 2), "USD"),)
    assert found.totals == {"USD": 1}


def test_usage_has_bounds() -> None:
    priced = plan({"type": "CHAT", "amount": "1000000"})
    for usage, path in (
        ([used("CHAT", "1")] * (USAGE_MAX + 1), "usage"),
        ([used("CHAT", "1"), used("CHAT", "1", EVENTS_MAX)], "usage[1].events"),
        ([used("CHAT", "1"), used("CHAT", "10000000000")], "usage[1].quantity"),
    ):
        with pytest.raises(Refusal) as caught:
            month(priced, *usage)
        assert (caught.value.code, caught.value.details["path"]) == ("out_of_range", path)


def test_terms_that_do_not_fit_are_refused() -> None:
    for given, path in (
        (plan(renewals={}), "renewals"),
        (plan({"type": "CHAT", "model": "volume"}), "event_prices[0].tiers"),
    ):
        with pytest.raises(Refusal) as caught:
            version_of(given, NOW)
        assert caught.value.details["path"] == path


def test_a_plan_in_one_sentence() -> None:
    whole = plan(
        {"type": "READ", "amount": "15", "per": 1_000_000},
        {"type": "SEND", "amount": "50", "per": 100, "model": "package", "match": {"model": "large"}},
        {"type": "CHAT", "tiers": TIERS, "model": "graduated"},
        {"type": "SHOW", "tiers": TIERS, "model": "volume"},
        renewals={"MONTHLY": {"amount": 1000}, "YEARLY": {"amount": 11_000}},
        balances={
            "storage_gb": {"amount": 10, "overage_charge_amount": "100"},
            "minutes": {"amount": 60},
            "seats": {"variable_amount_cost": 200},
        },
        minimum_spend=1000,
        spend_cap=9000,
        trial_days=14,
        setup_fee=500,
    )

    assert sentence_of(version_of(whole, NOW)) == (
        "Pro costs 10.00 USD a month or 110.00 USD a year and includes 60 minutes and 10 storage_gb;"
        " each further storage_gb is 1.00 USD; the number of seats is the account's choice;"
        " READ costs 0.00000015 USD each; SEND (model large) costs 0.50 USD per package of 100;"
        " CHAT is priced graduated, each unit at the price of its tier, from 0.03 USD each;"
        " SHOW is priced by volume, all units at the price of the tier that the total reaches, from 0.03 USD each;"
        " a period comes to at least 10.00 USD; usage stops at 90.00 USD a period; the first 14 days are free;"
        " the start costs 5.00 USD once."
    )
    assert sentence_of(version_of(plan(monthly=0), NOW)) == "Pro costs nothing a month."
    assert (
        sentence_of(version_of(plan(monthly=0, renewals={"ONE_OFF": {"amount": 50}}), NOW))
        == "Pro costs 0.50 USD once."
    )


def test_amounts_in_words_are_exact() -> None:
    assert money_text(Exact(1250, 1), "USD") == "12.50 USD"
    assert money_text(Exact(1, 7), "USD") == "1/700 USD"
    assert money_text(Exact(1250, 1), "JPY") == "1250 JPY"
    assert money_text(Exact(1, 10), "credits") == "0.1 credits"
