"""Public ids: how a number of ours is spelled for others.

The problem, on one example. Account 78364164096 is ``a_10000000``; its event with the id 1700000000000000 is
``e_10000000gqll7vatq8``: the prefix says what it is, eight characters name the account, ten are the time-ordered rest.
So an event is found by its id alone, without a table that says whose it is, and ids sort by time as text
(design 6). Letters are lower case, digits count in base 36.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

ACCOUNT_DIGITS: Final = 8
TICK_DIGITS: Final = 10
ID_MAX: Final = 36**ACCOUNT_DIGITS - 1
"""The largest id of a company, user, key, price, account."""

_ALPHABET: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_PAIRS: Final = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
_LOW: Final = 36**4
_SHORT: Final = frozenset(_ALPHABET)


def spell(prefix: str, number: int) -> str:
    """``spell("a", 78364164096)`` is ``"a_10000000"``: a prefix and eight characters."""
    return f"{prefix}_{_account_digits(number)}"


def spell_of_account(prefix: str, account_id: int, tick: int) -> str:
    """The id of something that belongs to an account: an event (``e``) or a transaction (``t``)."""
    high, low = divmod(tick, _LOW)
    return f"{prefix}_{_account_digits(account_id)}{_high_digits(high)}{_PAIRS[low // 1296]}{_PAIRS[low % 1296]}"


def read(prefix: str, text: str) -> int | None:
    """The number behind a public id, or None where it is not one of this kind."""
    return _number(text, prefix, ACCOUNT_DIGITS)


def read_of_account(prefix: str, text: str) -> tuple[int, int] | None:
    """Account id and tick behind the public id of an account's thing, or None."""
    digits = ACCOUNT_DIGITS + TICK_DIGITS
    if _number(text, prefix, digits) is None:
        return None
    split = len(prefix) + 1 + ACCOUNT_DIGITS
    return int(text[len(prefix) + 1 : split], 36), int(text[split:], 36)


@lru_cache(maxsize=65_536)
def _account_digits(number: int) -> str:
    return _digits(number, ACCOUNT_DIGITS)


@lru_cache(maxsize=1024)
def _high_digits(high: int) -> str:
    """All but the last four digits of a tick: they change every 1.7 seconds."""
    return _digits(high, TICK_DIGITS - 4)


def _digits(number: int, width: int) -> str:
    """Base 36, padded to an even ``width``, two digits at a time."""
    pairs: list[str] = []
    for _ in range(width // 2):
        number, pair = divmod(number, 1296)
        pairs.append(_PAIRS[pair])
    pairs.reverse()
    return "".join(pairs)


def _number(text: str, prefix: str, width: int) -> int | None:
    start = len(prefix) + 1
    if len(text) != start + width or text[:start] != f"{prefix}_" or not _SHORT.issuperset(text[start:]):
        return None
    return int(text[start:], 36)
