"""Plans: what a period includes and costs, and which terms could not be charged, granted or undone later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pytest

from tenuto.core.money import AMOUNT_MAX, Exact
from tenuto.core.outcomes import Refusal
from tenuto.core.plan import (
    AutoRefill,
    Cadence,
    Overage,
    checked_cadence,
    checked_units,
    included,
    merged,
    plan_terms,
    price_of,
    refuse_prices,
    variable_lines,
)

GIVEN: Final[Mapping[str, Any]] = {
    "name": "Storage and compute",
    "renewal_denomination": "USD",
    "renewals": {"MONTHLY": {"amount": 1000}},
    "balances": {
        "storage_gb": {"amount": 10, "overage_charge_amount": "100"},
        "compute_minutes": {"amount": 60, "overage_charge_amount": "50", "overage_charge_denomination": "USD"},
        "seats": {"amount": 0, "variable_amount_cost": 200},
    },
}
SAMPLE: Final[Mapping[str, Any]] = {
    "name": "Sample",
    "renewal_denomination": "USD",
    "refill_cadence": "MONTHLY",
    "renewals": {"MONTHLY": {"amount": 1000}, "YEARLY": {"amount": 1100}},
    "balances": {"tokens": {"amount": 500}, "credits": {"amount": 0, "variable_amount_cost": 200}},
    "flags": {"no_watermark": True},
}


def given(**changes: object) -> dict[str, Any]:
    return merged(GIVEN, changes)


def of_one(**balance: object) -> dict[str, Any]:
    """The plan with one balance only."""
    return {**GIVEN, "balances": {"gb": balance}}


def refusal_of(terms: Mapping[str, Any]) -> tuple[str, object]:
    with pytest.raises(Refusal) as found:
        plan_terms(terms)
    assert found.value.message.startswith(f"{found.value.details['path']}: ")
    return found.value.code, found.value.details["path"]


# --- the worked plan ---


def test_ten_dollars_with_storage_and_minutes() -> None:
    terms = plan_terms(GIVEN)

    assert included(terms, {}) == {"compute_minutes": 60, "storage_gb": 10}
    assert price_of(terms, "MONTHLY", {}) == 1000
    assert terms.balances["storage_gb"].overage == Overage(Exact(100, 1), "USD")
    assert terms.balances["compute_minutes"].overage == Overage(Exact(50, 1), "USD")
    assert terms.balances["seats"].overage is None
    assert (terms.charges_money, terms.refills_monthly, terms.trial_days, terms.setup_fee) == (True, False, 0, 0)
    assert (terms.minimum_spend, terms.spend_cap, terms.threshold_alert_percentage) == (None, None, None)


def test_three_seats_cost_six_dollars_more() -> None:
    terms = plan_terms(GIVEN)
    chosen = checked_units(terms, {"seats": 3})

    assert included(terms, chosen) == {"compute_minutes": 60, "seats": 3, "storage_gb": 10}
    assert variable_lines(terms, "MONTHLY", chosen) == [("seats", 3, 200)]
    assert price_of(terms, "MONTHLY", chosen) == 1600
    assert checked_units(terms, {"seats": 0}) == {}


@pytest.mark.parametrize("name", ["storage_gb", "images"])
def test_only_some_amounts_can_be_chosen(name: str) -> None:
    with pytest.raises(Refusal) as found:
        checked_units(plan_terms(GIVEN), {name: 1})
    assert found.value.details["path"] == f"plan_variable_amounts.{name}"


def test_a_price_has_an_end() -> None:
    terms = plan_terms(GIVEN)
    assert price_of(terms, "MONTHLY", {"seats": (AMOUNT_MAX - 1000) // 200}) == AMOUNT_MAX
    with pytest.raises(Refusal) as found:
        price_of(terms, "MONTHLY", {"seats": AMOUNT_MAX // 200})
    assert found.value.code == "out_of_range"


def test_the_sample_of_two_cadences() -> None:
    terms = plan_terms(SAMPLE)

    assert terms.renewals == {"MONTHLY": 1000, "YEARLY": 1100}
    assert terms.refills_monthly
    assert terms.flags == {"no_watermark": True}
    assert price_of(terms, "YEARLY", {"credits": 2}) == 1500


@pytest.mark.parametrize(
    ("renewals", "named", "cadence"),
    [
        (("YEARLY", "MONTHLY"), None, "MONTHLY"),
        (("ONE_OFF", "YEARLY"), None, "YEARLY"),
        (("ONE_OFF",), None, "ONE_OFF"),
        (("YEARLY", "MONTHLY"), "YEARLY", "YEARLY"),
        (("YEARLY", "MONTHLY"), "ONE_OFF", None),
    ],
)
def test_which_cadence_an_account_is_on(
    renewals: tuple[str, ...], named: Cadence | None, cadence: Cadence | None
) -> None:
    terms = plan_terms({**GIVEN, "renewals": {name: {"amount": 1000} for name in renewals}})
    if cadence is not None:
        assert checked_cadence(terms, named) == cadence
        return
    with pytest.raises(Refusal) as found:
        checked_cadence(terms, named)
    assert found.value.details["path"] == "cadence"


# --- terms that hold ---


@pytest.mark.parametrize(
    ("cadence", "renewals", "monthly"),
    [
        (None, ("MONTHLY", "YEARLY"), False),
        ("MONTHLY", ("MONTHLY",), True),
        ("MONTHLY", ("YEARLY",), True),
        ("MONTHLY", ("ONE_OFF",), True),
        ("YEARLY", ("YEARLY",), False),
        ("YEARLY", ("YEARLY", "ONE_OFF"), False),
        ("ONE_OFF", ("ONE_OFF",), False),
    ],
)
def test_when_balances_are_filled(cadence: str | None, renewals: tuple[str, ...], *, monthly: bool) -> None:
    prices = {name: {"amount": 1000} for name in renewals}
    assert plan_terms({**GIVEN, "renewals": prices, "refill_cadence": cadence}).refills_monthly is monthly


@pytest.mark.parametrize(
    ("balance", "overage"),
    [
        ({"overage_charge_amount": "0.15"}, Overage(Exact(3, 20), "USD")),
        ({"overage_charge_amount": "15", "overage_charge_per": 1000}, Overage(Exact(3, 200), "USD")),
        ({"overage_charge_amount": "2", "overage_charge_denomination": "coins"}, Overage(Exact(2, 1), "coins")),
        ({"overage_charge_amount": "0"}, Overage(Exact(0, 1), "USD")),
    ],
)
def test_what_a_unit_costs_beyond(balance: dict[str, object], overage: Overage) -> None:
    assert plan_terms(of_one(**balance)).balances["gb"].overage == overage


@pytest.mark.parametrize(
    ("balance", "refill"),
    [
        ({"auto_refill_charge_amount": 500}, AutoRefill(100, 5, 500)),
        ({"auto_refill_charge_amount": 0}, AutoRefill(100, 5, 0)),
        ({"overage_charge_amount": "7"}, AutoRefill(100, 5, 700)),
        ({"overage_charge_amount": "50.001", "overage_charge_per": 100}, AutoRefill(100, 5, 51)),
        ({"overage_charge_amount": "7", "auto_refill_charge_amount": 60}, AutoRefill(100, 5, 60)),
    ],
)
def test_what_a_refill_costs(balance: dict[str, object], refill: AutoRefill) -> None:
    terms = of_one(auto_refill_amount=100, auto_refill_threshold=5, **balance)
    assert plan_terms(terms).balances["gb"].refill == refill


@pytest.mark.parametrize(
    ("of_plan", "of_balance", "rolls"),
    [(None, None, False), (True, None, True), (True, False, False), (False, True, True)],
)
def test_what_is_left_rolls_over_where_it_is_said(of_plan: object, of_balance: object, *, rolls: bool) -> None:
    terms = plan_terms({**of_one(amount=5, rollover=of_balance), "rollover": of_plan})
    assert terms.balances["gb"].rollover is rolls


def test_everything_that_bounds_a_plan() -> None:
    terms = plan_terms(
        given(trial_days=730, setup_fee=500, minimum_spend=500, spend_cap=500, threshold_alert_percentage=0)
    )
    assert (terms.trial_days, terms.setup_fee, terms.minimum_spend, terms.spend_cap) == (730, 500, 500, 500)
    assert terms.threshold_alert_percentage == 0


def test_a_plan_may_be_free_or_paid_in_tokens() -> None:
    assert plan_terms(given(renewals={"MONTHLY": {"amount": 0}})).renewals == {"MONTHLY": 0}
    tokens = plan_terms(given(renewal_denomination="coins", renewals={"MONTHLY": {"amount": 1}}, setup_fee=1))
    assert not tokens.charges_money
    assert tokens.balances["storage_gb"].overage == Overage(Exact(100, 1), "coins")


def test_a_price_for_each_cadence() -> None:
    costs = {"MONTHLY": 5, "YEARLY": 50}
    terms = plan_terms(merged(SAMPLE, {"balances": {"credits": {"variable_amount_cost": costs}}}))
    assert terms.balances["credits"].variable_cost == costs


# --- terms that do not ---


REFUSED: Final[Mapping[str, tuple[Mapping[str, Any], str, str]]] = {
    "no price": ({**GIVEN, "renewals": {}}, "missing_field", "renewals"),
    "a cadence that is none": (given(renewals={"WEEKLY": {"amount": 5}}), "invalid_field", "renewals.WEEKLY"),
    "a price below 0": (given(renewals={"MONTHLY": {"amount": -1}}), "out_of_range", "renewals.MONTHLY.amount"),
    "a price beyond all": (
        given(renewal_denomination="coins", renewals={"MONTHLY": {"amount": AMOUNT_MAX + 1}}),
        "out_of_range",
        "renewals.MONTHLY.amount",
    ),
    "less than a card pays": (given(renewals={"YEARLY": {"amount": 49}}), "out_of_range", "renewals.YEARLY.amount"),
    "more than a card pays": (
        given(renewals={"YEARLY": {"amount": 100_000_000}}),
        "out_of_range",
        "renewals.YEARLY.amount",
    ),
    "money of no card": (given(renewal_denomination="CLF"), "invalid_field", "renewals.MONTHLY.amount"),
    "a fifth of a coin": (
        given(renewal_denomination="KWD", renewals={"MONTHLY": {"amount": 5124}}),
        "invalid_field",
        "renewals.MONTHLY.amount",
    ),
    "a seat of a fifth of a coin": (
        given(renewal_denomination="KWD", balances={"seats": {"variable_amount_cost": 201}}),
        "invalid_field",
        "balances.seats.variable_amount_cost",
    ),
    "a year's units for a month's price": (given(refill_cadence="YEARLY"), "invalid_field", "refill_cadence"),
    "a cadence that is not sold": (given(refill_cadence="ONE_OFF"), "invalid_field", "refill_cadence"),
    "units once for a price every year": (
        {
            **GIVEN,
            "renewals": {"YEARLY": {"amount": 1000}, "ONE_OFF": {"amount": 5000}},
            "refill_cadence": "ONE_OFF",
        },
        "invalid_field",
        "refill_cadence",
    ),
    "51 balances": ({**GIVEN, "balances": {f"b{n}": {} for n in range(51)}}, "out_of_range", "balances"),
    "an amount below 0": (of_one(amount=-1), "out_of_range", "balances.gb.amount"),
    "a seat below 0": (of_one(variable_amount_cost=-1), "out_of_range", "balances.gb.variable_amount_cost"),
    "a seat by the year only": (
        of_one(variable_amount_cost={"YEARLY": 5}),
        "invalid_field",
        "balances.gb.variable_amount_cost",
    ),
    "a seat beyond all": (
        of_one(variable_amount_cost={"MONTHLY": AMOUNT_MAX + 1}),
        "out_of_range",
        "balances.gb.variable_amount_cost.MONTHLY",
    ),
    "overage per nothing said": (
        of_one(overage_charge_per=10),
        "missing_field",
        "balances.gb.overage_charge_amount",
    ),
    "overage in something, for nothing": (
        of_one(overage_charge_denomination="USD"),
        "missing_field",
        "balances.gb.overage_charge_amount",
    ),
    "overage per eleven": (
        of_one(overage_charge_amount="1", overage_charge_per=11),
        "invalid_field",
        "balances.gb.overage_charge_per",
    ),
    "overage per less than one": (
        of_one(overage_charge_amount="1", overage_charge_per=-2),
        "invalid_field",
        "balances.gb.overage_charge_per",
    ),
    "overage per too many": (
        of_one(overage_charge_amount="1", overage_charge_per=10**13),
        "invalid_field",
        "balances.gb.overage_charge_per",
    ),
    "overage in itself": (
        of_one(overage_charge_amount="1", overage_charge_denomination="gb"),
        "invalid_field",
        "balances.gb.overage_charge_denomination",
    ),
    "overage in what has overage": (
        given(balances={"storage_gb": {"overage_charge_denomination": "compute_minutes"}}),
        "invalid_field",
        "balances.storage_gb.overage_charge_denomination",
    ),
    "a refill of nothing": (
        of_one(auto_refill_amount=0, auto_refill_threshold=5),
        "missing_field",
        "balances.gb.auto_refill_amount",
    ),
    "a refill that only costs": (
        of_one(auto_refill_charge_amount=500),
        "missing_field",
        "balances.gb.auto_refill_amount",
    ),
    "a refill at no threshold": (of_one(auto_refill_amount=5), "missing_field", "balances.gb.auto_refill_threshold"),
    "a refill at no price": (
        of_one(auto_refill_amount=5, auto_refill_threshold=5),
        "missing_field",
        "balances.gb.auto_refill_charge_amount",
    ),
    "a refill at a price in something else": (
        of_one(
            auto_refill_amount=5,
            auto_refill_threshold=5,
            overage_charge_amount="100",
            overage_charge_denomination="EUR",
        ),
        "missing_field",
        "balances.gb.auto_refill_charge_amount",
    ),
    "a refill for less than a card pays": (
        of_one(auto_refill_amount=5, auto_refill_threshold=5, auto_refill_charge_amount=49),
        "out_of_range",
        "balances.gb.auto_refill_charge_amount",
    ),
    "a refill beyond all": (
        of_one(auto_refill_amount=AMOUNT_MAX + 1, auto_refill_threshold=5, auto_refill_charge_amount=500),
        "out_of_range",
        "balances.gb.auto_refill_amount",
    ),
    "a refill below everything": (
        of_one(auto_refill_amount=5, auto_refill_threshold=AMOUNT_MAX + 1, auto_refill_charge_amount=500),
        "out_of_range",
        "balances.gb.auto_refill_threshold",
    ),
    "a refill of tokens paid in the same tokens": (
        {
            **of_one(auto_refill_amount=5, auto_refill_threshold=5, auto_refill_charge_amount=500),
            "renewal_denomination": "gb",
        },
        "invalid_field",
        "balances.gb.auto_refill_amount",
    ),
    "101 flags": (given(flags={f"f{n}": True for n in range(101)}), "out_of_range", "flags"),
    "a flag of parts": (given(flags={"limit": [1]}), "invalid_field", "flags.limit"),
    "two years and a day of trial": (given(trial_days=731), "out_of_range", "trial_days"),
    "a trial of what is sold once": (
        {**GIVEN, "renewals": {"ONE_OFF": {"amount": 1000}}, "trial_days": 14},
        "invalid_field",
        "trial_days",
    ),
    "a percentage above all": (
        given(threshold_alert_percentage=101),
        "out_of_range",
        "threshold_alert_percentage",
    ),
    "a setup fee that no card pays": (given(setup_fee=1), "out_of_range", "setup_fee"),
    "a first charge that no card pays": (given(setup_fee=99_999_999), "out_of_range", "setup_fee"),
    "a minimum of what never ends": (
        {**GIVEN, "renewals": {"ONE_OFF": {"amount": 1000}}, "minimum_spend": 1},
        "invalid_field",
        "minimum_spend",
    ),
    "a minimum above the cap": (given(minimum_spend=2, spend_cap=1), "invalid_field", "minimum_spend"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_terms_that_could_not_be_kept(name: str) -> None:
    terms, code, path = REFUSED[name]
    assert refusal_of(terms) == (code, path)


# --- changes ---


@pytest.mark.parametrize(
    ("changes", "result"),
    [
        ({}, {"a": 1, "b": {"c": 2, "d": [3]}}),
        ({"a": 2}, {"a": 2, "b": {"c": 2, "d": [3]}}),
        ({"a": None, "x": None}, {"b": {"c": 2, "d": [3]}}),
        ({"b": {"c": None, "e": 5}}, {"a": 1, "b": {"d": [3], "e": 5}}),
        ({"b": {"d": [4]}}, {"a": 1, "b": {"c": 2, "d": [4]}}),
        ({"a": {"x": 1, "y": None}}, {"a": {"x": 1}, "b": {"c": 2, "d": [3]}}),
        ({"b": 7}, {"a": 1, "b": 7}),
    ],
)
def test_changes_are_laid_over(changes: dict[str, Any], result: dict[str, Any]) -> None:
    known = {"a": 1, "b": {"c": 2, "d": [3]}}
    assert merged(known, changes) == result
    assert known == {"a": 1, "b": {"c": 2, "d": [3]}}


# --- event prices of a plan ---

PRICE: Final[Mapping[str, Any]] = {"type": "CHAT", "denomination": "credits", "match": {}, "amount": "2"}


def test_prices_that_differ_in_one_thing_go_together() -> None:
    refuse_prices([])
    refuse_prices(
        [
            PRICE,
            {**PRICE, "type": "DRAW"},
            {**PRICE, "denomination": "USD"},
            {**PRICE, "match": {"fast": True}},
            {**PRICE, "match": {"fast": 1}},
            {**PRICE, "match": {"fast": "1"}},
        ]
    )


@pytest.mark.parametrize(
    ("prices", "code", "path"),
    [
        ([PRICE] * 101, "out_of_range", "event_prices"),
        ([PRICE, {**PRICE, "amount": "5"}], "invalid_field", "event_prices[1]"),
        (
            [{**PRICE, "match": {"a": 1, "b": 2}}, PRICE, {**PRICE, "match": {"b": 2, "a": 1}}],
            "invalid_field",
            "event_prices[2]",
        ),
        ([PRICE, {**PRICE, "type": "DRAW", "amount": None}], "missing_field", "event_prices[1].amount"),
        ([{**PRICE, "per": 11}], "invalid_field", "event_prices[0].per"),
        ([{**PRICE, "amount": None, "model": "volume"}], "invalid_field", "event_prices[0].tiers"),
    ],
)
def test_prices_that_do_not_fit(prices: list[dict[str, Any]], code: str, path: str) -> None:
    with pytest.raises(Refusal) as found:
        refuse_prices(prices)
    assert (found.value.code, found.value.details["path"]) == (code, path)
    assert found.value.message.startswith(f"{path}: ")
