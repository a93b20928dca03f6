"""What can be charged to a card."""

from __future__ import annotations

import pytest

from tenuto.core.cards import MAXIMUM, from_stripe, maximum, minimum, to_stripe
from tenuto.core.money import CURRENCY_EXPONENTS

# As Stripe's page on currencies lists them; UGX stands there too, with the remark that it is counted with two decimals.
ZERO_DECIMAL = "BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF"


@pytest.mark.parametrize(
    ("currency", "ours", "theirs"),
    [
        ("USD", 1000, 1000),
        ("USD", 1, 1),
        ("USD", 0, 0),
        ("HUF", 1045, 1045),
        ("TWD", 80_045, 80_045),
        ("JPY", 500, 500),
        ("KRW", 1, 1),
        ("ISK", 5, 500),
        ("UGX", 5, 500),
        ("MGA", 500, 5),
        ("MGA", 12_300, 123),
        ("KWD", 5120, 5120),
        ("BHD", 10, 10),
        ("UYI", 7, 7),
    ],
)
def test_an_amount_is_counted_as_stripe_counts(currency: str, ours: int, theirs: int) -> None:
    assert to_stripe(ours, currency) == theirs
    assert from_stripe(theirs, currency) == ours


@pytest.mark.parametrize(
    ("currency", "amount"),
    [
        ("KWD", 5124),
        ("JOD", 1),
        ("TND", 9999),
        ("MGA", 501),
        ("MGA", 50),
        ("CLF", 10_000),
        ("UYW", 10_000),
        ("TOKENS", 100),
        ("usd", 100),
    ],
)
def test_what_stripe_cannot_count_is_refused_and_never_rounded(currency: str, amount: int) -> None:
    assert to_stripe(amount, currency) is None


def test_what_stripe_tells_is_always_understood() -> None:
    assert from_stripe(550, "ISK") == 5
    assert from_stripe(1234, "BGN") == 1234
    assert from_stripe(5124, "KWD") == 5124


def test_stripe_differs_from_iso_in_three_currencies() -> None:
    differing = {code for code in CURRENCY_EXPONENTS if to_stripe(10_000, code) not in {10_000, None}}
    assert differing == {"ISK", "UGX", "MGA"}
    assert all(to_stripe(100, code) == from_stripe(100, code) or code == "MGA" for code in ZERO_DECIMAL.split())
    assert {code for code, decimals in CURRENCY_EXPONENTS.items() if decimals == 0} - set(ZERO_DECIMAL.split()) == {
        "ISK",
        "UGX",
        "UYI",
    }


@pytest.mark.parametrize(
    ("currency", "least"),
    [
        ("USD", 50),
        ("EUR", 50),
        ("GBP", 30),
        ("JPY", 50),
        ("HUF", 17_500),
        ("CZK", 1500),
        ("AED", 200),
        ("MXN", 1000),
        ("ZAR", 50),
        ("KRW", 50),
        ("ISK", 50),
        ("MGA", 100),
        ("KWD", 500),
        ("BGN", 50),
    ],
)
def test_there_is_a_least_amount(currency: str, least: int) -> None:
    assert minimum(currency) == least


def test_the_least_and_the_most_lie_apart_in_every_currency() -> None:
    for code, decimals in CURRENCY_EXPONENTS.items():
        assert minimum(code) <= maximum(code)
        assert to_stripe(minimum(code), code) is not None or decimals > 3


def test_a_charge_has_eight_digits_at_most() -> None:
    assert MAXIMUM == 99_999_999
    assert maximum("USD") == maximum("JPY") == MAXIMUM
    assert maximum("ISK") == 999_999
    assert maximum("MGA") == 9_999_999_900
