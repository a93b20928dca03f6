"""Amounts, and the fractions that never get lost.

The problem, on one example. A model is sold at 15 cents per million tokens read. Request one reads 4,808 tokens and
costs exactly 4808 * 15 / 1000000 = 0.07212 cents; a balance holds whole cents. Rounding down gives usage away, rounding
up charges 13 times too much. So each balance carries a *residue*, the part of a cent that is owed but not yet posted:

    event   exact cost   residue before   whole part moved   residue after
    1       0.07212      0                0                  0.07212
    2       0.94         0.07212          1                  0.01212

After any number of events, the sum moved plus the residue is the exact sum: nothing is rounded, so nothing drifts.
An amount on a balance is a plain ``int`` of the smallest unit (a token, a cent); a fraction is an ``Exact``; a binary
float exists nowhere. Source of the rules: design 5 (Money) and 11 (Rating).
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from math import gcd, lcm
from typing import Final, NamedTuple

AMOUNT_MAX: Final = 10**15
"""The largest single amount, of one event, adjustment or limit, in smallest units."""

BALANCE_MAX: Final = 8 * 10**18
"""How far from zero a balance may go, in smallest units: inside a signed 64-bit integer with a margin."""

RESIDUE_PLACES: Final = 12
"""Decimal places in which a residue is shown. The stored fraction is exact."""


_RESIDUE_SCALE: Final = 10**RESIDUE_PLACES


class Exact(NamedTuple):
    """A fraction of a smallest unit: ``numerator / denominator``, denominator at least 1, not always in lowest terms.

    Keeping the terms unreduced lets a stream of events at one price add up without a single gcd.
    """

    numerator: int
    denominator: int


ZERO: Final = Exact(0, 1)


def exact(text: str | int | Decimal) -> Exact:
    """The fraction a decimal stands for: ``exact("0.15")`` is 15/100 in lowest terms, 3/20.

    Raises ValueError for text that is no finite decimal number.
    """
    if isinstance(text, int):
        return Exact(text, 1)
    number = Decimal(text)
    if not number.is_finite():
        msg = f"{text} is not a finite decimal number"
        raise ValueError(msg)
    return Exact(*number.as_integer_ratio())


def parse_fraction(text: str) -> Exact:
    """The inverse of :func:`fraction_text`."""
    numerator, _, denominator = text.partition("/")
    return Exact(int(numerator), int(denominator) if denominator else 1)


def plus(left: Exact, right: Exact) -> Exact:
    """The sum, over the least common denominator; equal denominators, the common case, are added at once."""
    if left.denominator == right.denominator:
        return Exact(left.numerator + right.numerator, left.denominator)
    divisor = gcd(left.denominator, right.denominator)
    scale = right.denominator // divisor
    return Exact(
        left.numerator * scale + right.numerator * (left.denominator // divisor),
        left.denominator * scale,
    )


def minus(left: Exact, right: Exact) -> Exact:
    """The difference ``left - right``."""
    return plus(left, Exact(-right.numerator, right.denominator))


def times(left: Exact, right: Exact) -> Exact:
    """The product, not reduced."""
    return Exact(left.numerator * right.numerator, left.denominator * right.denominator)


def at_most(left: Exact, right: Exact) -> bool:
    """Whether ``left <= right``."""
    return left.numerator * right.denominator <= right.numerator * left.denominator


def split_whole(value: Exact) -> tuple[int, Exact]:
    """Whole units and the rest in [0, 1): 7/2 is 3 and 1/2; -1/2 is -1 and 1/2."""
    whole, rest = divmod(value.numerator, value.denominator)
    return whole, Exact(rest, value.denominator)


def round_up(value: Exact) -> int:
    """The smallest whole number of units not below ``value``. Used only to reserve, never to charge (design 5.3)."""
    return -(-value.numerator // value.denominator)


def round_half_up(value: Exact) -> int:
    """The nearest whole number of units, a half upwards: what a tax is rounded by, and nothing else."""
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


def allocate(total: int, exacts: Sequence[Exact]) -> tuple[int, ...]:
    """Whole units for each of ``exacts`` that sum to ``total``: the largest remainders get the units that are left.

    Ties go to the earlier position. Where ``total`` is within one unit of the exact sum, as what a balance posted is
    (its residue carries the rest), each part is within one unit of its own exact value (bar I-56). Raises ValueError
    where there is something to give and nobody to get it.
    """
    if not exacts:
        if total:
            msg = f"{total} units cannot be given to nobody"
            raise ValueError(msg)
        return ()
    parts, rests = zip(*(split_whole(value) for value in exacts), strict=True)
    # Remainders are compared over one denominator, so the order is exact.
    scale = lcm(*(rest.denominator for rest in rests))
    order = sorted(range(len(parts)), key=lambda at: (-rests[at].numerator * (scale // rests[at].denominator), at))
    each, more = divmod(total - sum(parts), len(parts))
    given = list(parts)
    for rank, at in enumerate(order):
        given[at] += each + (rank < more)
    return tuple(given)


def reduced(value: Exact) -> Exact:
    """The same fraction in lowest terms."""
    divisor = gcd(value.numerator, value.denominator)
    return Exact(value.numerator // divisor, value.denominator // divisor)


def fraction_text(value: Exact) -> str:
    """``"3/20"``, or ``"4"`` where the denominator is 1; in lowest terms."""
    lowest = reduced(value)
    return f"{lowest.numerator}/{lowest.denominator}" if lowest.denominator != 1 else str(lowest.numerator)


def exact_text(value: Exact) -> str:
    """The shortest exact spelling: a decimal where one exists (``"0.07212"``), else the fraction (``"1/7"``)."""
    numerator, denominator = value
    if denominator == 1:
        return str(numerator)
    decimal = _decimal_form(denominator)
    if decimal is None:
        lowest = reduced(value)
        return fraction_text(lowest) if lowest.denominator == denominator else exact_text(lowest)
    places, factor = decimal
    text = _placed(numerator * factor, places)
    return text.rstrip("0").rstrip(".")


def residue_text(value: Exact) -> str:
    """A residue, in [0, 1), as a decimal string of twelve places, cut, so that it is never shown as a whole unit."""
    return f"0.{value.numerator * _RESIDUE_SCALE // value.denominator:012d}"


@lru_cache(maxsize=4096)
def _decimal_form(denominator: int) -> tuple[int, int] | None:
    """Places and factor that turn any numerator over ``denominator`` into decimal digits, where that can be done."""
    rest, twos, fives = denominator, 0, 0
    while rest % 2 == 0:
        rest //= 2
        twos += 1
    while rest % 5 == 0:
        rest //= 5
        fives += 1
    places = max(twos, fives)
    return (places, 10**places // denominator) if rest == 1 else None


def _placed(digits: int, places: int) -> str:
    """``digits`` with the decimal point ``places`` (at least 1) from the right."""
    sign, padded = ("-" if digits < 0 else ""), str(abs(digits)).rjust(places + 1, "0")
    return f"{sign}{padded[:-places]}.{padded[-places:]}"


def _codes(exponent: int, codes: str) -> dict[str, int]:
    return dict.fromkeys(codes.split(), exponent)


CURRENCY_EXPONENTS: Final[dict[str, int]] = {
    **_codes(0, "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"),
    **_codes(3, "BHD IQD JOD KWD LYD OMR TND"),
    **_codes(4, "CLF UYW"),
    **_codes(
        2,
        "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW "
        "CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF "
        "IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK "
        "MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP "
        "SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG "
        "YER ZAR ZMW ZWG",
    ),
}
"""ISO 4217 currencies with the number of decimals of their minor unit. A test compares it with the iso4217 package."""


def is_fiat(denomination: str) -> bool:
    """Whether a denomination is money (an ISO 4217 code) and not a token."""
    return denomination in CURRENCY_EXPONENTS
