"""What can be charged to a card, and how a card processor counts it.

The problem, on one example. We count money in the minor units of ISO 4217; Stripe mostly does too, and where it does
not, the same number means a hundred times as much or as little:

    to be charged       our amount   Stripe's amount
    10 US dollars       1000         1000
    500 yen             500          500
    500 Icelandic krona 500          50000     no decimals in ISO, two in Stripe
    5 ariary (MGA)      500          5         two decimals in ISO, none in Stripe
    5.120 dinars (KWD)  5120         5120      three decimals, but the last must be 0
    5.124 dinars (KWD)  5124         none: no card can be charged this amount

Nothing is rounded: an amount that Stripe cannot count is refused before anybody is asked. Source of the table: Stripe's
pages on currencies.
"""

from __future__ import annotations

from typing import Final

from tenuto.core.money import CURRENCY_EXPONENTS

MAXIMUM: Final = 99_999_999
"""The largest single charge, as Stripe counts: eight digits."""

DECIMALS_MAX: Final = 3
"""Stripe counts no currency with more decimals."""

_OTHER_DECIMALS: Final = {"ISK": 2, "UGX": 2, "MGA": 0}
"""The currencies that Stripe counts with other decimals than ISO 4217."""

_MINIMUMS: Final[dict[str, int]] = {
    "AED": 200,
    "AUD": 50,
    "BRL": 50,
    "CAD": 50,
    "CHF": 50,
    "CZK": 1500,
    "DKK": 250,
    "EUR": 50,
    "GBP": 30,
    "HKD": 400,
    "HUF": 17_500,
    "INR": 50,
    "JPY": 50,
    "MXN": 1000,
    "MYR": 200,
    "NOK": 300,
    "NZD": 50,
    "PLN": 200,
    "RON": 200,
    "SEK": 300,
    "SGD": 50,
    "THB": 1000,
    "USD": 50,
}


def to_stripe(amount: int, currency: str) -> int | None:
    """An amount of ours as Stripe counts it, or None where no card can be charged it."""
    ours = CURRENCY_EXPONENTS.get(currency)
    if ours is None or ours > DECIMALS_MAX:
        return None
    if ours == DECIMALS_MAX:
        return amount if amount % 10 == 0 else None
    theirs = _OTHER_DECIMALS.get(currency, ours)
    if theirs >= ours:
        return int(amount * 10 ** (theirs - ours))
    whole, rest = divmod(amount, 10 ** (ours - theirs))
    return whole if rest == 0 else None


def from_stripe(amount: int, currency: str) -> int:
    """An amount of Stripe's in our minor units.

    Exact for everything that Stripe takes; a fraction of a krona, which it does not, would be cut. A currency that ISO
    4217 no longer knows is taken as it is.
    """
    ours = CURRENCY_EXPONENTS.get(currency)
    if ours is None:
        return amount
    theirs = _OTHER_DECIMALS.get(currency, ours)
    if ours >= theirs:
        return int(amount * 10 ** (ours - theirs))
    return int(amount // 10 ** (theirs - ours))


def minimum(currency: str) -> int:
    """The least that Stripe charges, in our minor units.

    Where Stripe names none it wants the worth of half a dollar; the 50 taken here (0.500 with three decimals) is a
    lower bound, and Stripe has the last word.
    """
    known = _MINIMUMS.get(currency)
    if known is not None:
        return known
    ours = CURRENCY_EXPONENTS.get(currency, 2)
    return max(50 * int(10 ** max(0, ours - 2)), from_stripe(1, currency))


def maximum(currency: str) -> int:
    """The most that Stripe takes in one charge, in our minor units."""
    return from_stripe(MAXIMUM, currency)
