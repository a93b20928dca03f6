"""Amounts and their exact fractions."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import iso4217
import pytest

from tenuto.core.money import (
    CURRENCY_EXPONENTS,
    ZERO,
    Exact,
    at_most,
    exact,
    exact_text,
    fraction_text,
    is_fiat,
    minus,
    parse_fraction,
    plus,
    reduced,
    residue_text,
    round_up,
    split_whole,
    times,
)
from tests.core.account_life import fraction


@pytest.mark.parametrize(
    ("text", "numerator", "denominator"),
    [
        ("0", 0, 1),
        ("15", 15, 1),
        (16, 16, 1),
        ("0.15", 3, 20),
        ("0.000000000001", 1, 10**12),
        ("-2.5", -5, 2),
        ("1e3", 1000, 1),
        (Decimal("0.07212"), 1803, 25000),
        ("1000000000000000", 10**15, 1),
    ],
)
def test_a_decimal_is_read_as_the_fraction_it_stands_for(
    text: str | int | Decimal, numerator: int, denominator: int
) -> None:
    assert exact(text) == (numerator, denominator)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_has_no_fraction(text: str) -> None:
    with pytest.raises(ValueError, match="not a finite decimal number"):
        exact(text)


VALUES = [Exact(0, 1), Exact(0, 7), Exact(1, 3), Exact(3, 20), Exact(6, 40), Exact(-7, 2), Exact(10**30, 1)]


@pytest.mark.parametrize("left", VALUES)
@pytest.mark.parametrize("right", VALUES)
def test_arithmetic_is_that_of_fractions(left: Exact, right: Exact) -> None:
    assert fraction(plus(left, right)) == fraction(left) + fraction(right)
    assert fraction(minus(left, right)) == fraction(left) - fraction(right)
    assert fraction(times(left, right)) == fraction(left) * fraction(right)
    assert at_most(left, right) == (fraction(left) <= fraction(right))


def test_adding_at_one_price_keeps_the_denominator() -> None:
    assert plus(Exact(3, 200000), Exact(5, 200000)) == (8, 200000)
    assert plus(Exact(1, 4), Exact(1, 6)) == (5, 12)


@pytest.mark.parametrize(
    ("value", "whole", "rest", "held"),
    [
        # value, whole units posted, rest carried as residue, units a hold of it keeps
        (Exact(0, 1), 0, Exact(0, 1), 0),
        (Exact(4, 1), 4, Exact(0, 1), 4),
        (Exact(7, 2), 3, Exact(1, 2), 4),
        (Exact(1, 1000), 0, Exact(1, 1000), 1),
        (Exact(-1, 2), -1, Exact(1, 2), 0),
        (Exact(-7, 2), -4, Exact(1, 2), -3),
    ],
)
def test_whole_units_and_the_rest(value: Exact, whole: int, rest: Exact, held: int) -> None:
    assert split_whole(value) == (whole, rest)
    assert round_up(value) == held


@pytest.mark.parametrize(
    ("value", "as_fraction", "as_exact", "as_residue"),
    [
        (ZERO, "0", "0", "0.000000000000"),
        (Exact(6, 40), "3/20", "0.15", "0.150000000000"),
        (Exact(1803, 25000), "1803/25000", "0.07212", "0.072120000000"),
        (Exact(1, 7), "1/7", "1/7", "0.142857142857"),
        (Exact(1, 6), "1/6", "1/6", "0.166666666666"),
        (Exact(1, 1024), "1/1024", "0.0009765625", "0.000976562500"),
        (Exact(1, 125), "1/125", "0.008", "0.008000000000"),
        (Exact(10**13 - 1, 10**13), f"{10**13 - 1}/{10**13}", "0.9999999999999", "0.999999999999"),
    ],
)
def test_how_a_fraction_is_written(value: Exact, as_fraction: str, as_exact: str, as_residue: str) -> None:
    assert fraction_text(value) == as_fraction
    assert exact_text(value) == as_exact
    assert residue_text(value) == as_residue
    assert parse_fraction(as_fraction) == reduced(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Exact(8, 2), "4"),
        (Exact(-5, 2), "-2.5"),
        (Exact(-1, 20), "-0.05"),
        (Exact(-1, 3), "-1/3"),
        (Exact(35, 1), "35"),
    ],
)
def test_how_any_exact_number_is_written(value: Exact, text: str) -> None:
    assert exact_text(value) == text
    assert Fraction(text) == fraction(value)


def test_the_example_of_the_module() -> None:
    price = exact("0.000015")
    first = times(exact(4808), price)
    assert exact_text(first) == "0.07212"
    moved, residue = split_whole(plus(first, exact("0.94")))
    assert (moved, exact_text(residue)) == (1, "0.01212")


def test_the_currencies_are_those_of_iso_4217() -> None:
    # Funds, metals and codes for testing have no minor unit and are no money here.
    published = {currency.code: currency.exponent for currency in iso4217.Currency if currency.exponent is not None}
    assert published == CURRENCY_EXPONENTS


@pytest.mark.parametrize(
    ("denomination", "is_money"),
    [("USD", True), ("JPY", True), ("KWD", True), ("usd", False), ("tokens", False), ("XAU", False), ("", False)],
)
def test_money_is_what_has_an_iso_code(denomination: str, is_money: bool) -> None:  # noqa: FBT001 - a column
    assert is_fiat(denomination) is is_money
