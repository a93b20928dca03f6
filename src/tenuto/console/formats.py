"""How values are shown to people: amounts by currency and locale, times with their exact moment, states by colour."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Context, Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from babel import Locale, UnknownLocaleError
from babel.dates import format_datetime
from babel.numbers import format_currency, format_decimal
from markupsafe import Markup, escape

from tenuto.core.money import AMOUNT_MAX, CURRENCY_EXPONENTS
from tenuto.core.outcomes import invalid

LOCALE: Final = "en_US"
LOCALES_TRIED: Final = 5
_HEADER_MAX: Final = 200
NOTHING: Final = "\N{EN DASH}"
"""What stands where there is no value."""
_GOOD: Final = frozenset({"active", "complete", "delivered", "live", "on", "paid", "succeeded", "trialing", "usage"})
_BAD: Final = frozenset(
    {"blocked", "cancelled", "disabled", "failed", "failing", "past_due", "refused", "uncollectible", "void", "voided"}
)
_SLOW: Final = frozenset(
    {"draft", "intended", "open", "paused", "pending", "pending_card", "processing", "skipped", "suspended", "waiting"}
)
TYPED_MAX: Final = 40
"""How many characters a number has at most as it is typed, separators and all."""
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?", re.ASCII)
_TYPED: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)", re.ASCII)
_SPACES: Final = re.compile(r"[ _\u00a0\u202f]")
_GROUPED: Final = re.compile(r"[+-]?[0-9]{1,3}([ _\u00a0\u202f][0-9]{3})+(\.[0-9]*)?", re.ASCII)
_EXACT: Final = Context(prec=2 * TYPED_MAX)
"""Wide enough that shifting the point of a typed number rounds nothing."""
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def locale_of(header: str) -> str:
    """The viewer's locale by their Accept-Language; American English where it is none that is known."""
    for part in header[:_HEADER_MAX].split(",")[:LOCALES_TRIED]:
        try:
            return str(Locale.parse(part.partition(";")[0].strip().replace("-", "_")))
        except (UnknownLocaleError, ValueError, TypeError):
            continue
    return LOCALE


def amount(value: int | str | Decimal | None, denomination: str | None, locale: str = LOCALE) -> str:
    """An amount in the denomination's smallest unit: 123456 USD is $1,234.56, 5 tokens are 5 tokens."""
    if value is None:
        return NOTHING
    number = Decimal(value)
    exponent = CURRENCY_EXPONENTS.get(denomination or "")
    if denomination is None or exponent is None:
        return f"{format_decimal(number, locale=locale)} {denomination or ''}".strip()
    whole = number.scaleb(-exponent)
    if number % 1 == 0:
        return str(format_currency(whole, denomination, locale=locale))
    # A fraction of the smallest unit, as prices have: all digits that there are.
    digits = max(exponent, -int(whole.normalize().as_tuple().exponent))
    return f"{format_decimal(whole, format='#,##0.' + '0' * digits, locale=locale)} {denomination}"


def without_separators(text: str) -> str:
    """Digits as they are typed, without the spaces that people put between thousands: 1 000 is 1000.

    A comma stays, and so is refused: it parts thousands for some, and cents from dollars for others.
    """
    return _SPACES.sub("", text) if _GROUPED.fullmatch(text) else text


def read_number(text: str, path: str, example: str = "12.50") -> Decimal:
    """A number in plain decimal writing: a sign, digits, one point. Raises Refusal ``invalid_field``.

    An exponent is refused, for it writes in a few characters what no field means and what takes long to work out.
    """
    if len(text) > TYPED_MAX:
        raise invalid(path, f"takes at most {TYPED_MAX} characters.")
    plain = without_separators(text.strip())
    if "," in plain:
        raise invalid(path, f"takes a point and no comma, such as {example}: a comma could mean either.")
    if not _TYPED.fullmatch(plain):
        raise invalid(path, f"takes a number in plain digits, such as {example}.")
    return Decimal(plain)


def shifted(value: Decimal, places: int) -> Decimal:
    """A number that was typed with its point moved to the right, to the last digit: 0.03 by two places is 3."""
    return value.scaleb(places, _EXACT)


def read_amount(text: str, denomination: str, path: str = "amount") -> int:
    """An amount as somebody types it, in the smallest unit: 12.50 USD is 1250. Raises Refusal ``invalid_field``."""
    exponent = CURRENCY_EXPONENTS.get(denomination, 0)
    typed = read_number(text, path)
    if abs(typed) > AMOUNT_MAX:
        raise invalid(path, "is too large.")
    units = shifted(typed, exponent)
    if units != units.to_integral_value():
        raise invalid(
            path, f"takes at most {exponent} digits after the point." if exponent else "takes a whole number."
        )
    return int(units)


def typed_amount(value: int | None, denomination: str | None) -> str:
    """The same backwards, for a field of a form: 1250 USD is 12.50."""
    if value is None:
        return ""
    exponent = CURRENCY_EXPONENTS.get(denomination or "", 0)
    return f"{Decimal(value).scaleb(-exponent):f}"


def in_major(value: int | None, denomination: str) -> float | None:
    """An amount in major units, to be drawn and for nothing else: 1250 USD is 12.5."""
    return None if value is None else float(Decimal(value).scaleb(-CURRENCY_EXPONENTS.get(denomination, 0)))


def number(value: float | str | Decimal | None, locale: str = LOCALE) -> str:
    """A plain number with the viewer's separators."""
    return NOTHING if value is None else str(format_decimal(Decimal(str(value)), locale=locale))


def moment(value: str | None, zone: str = "UTC", locale: str = LOCALE) -> Markup:
    """A moment in the company's zone, which the browser turns into the viewer's; the exact one on hover."""
    if not value:
        return escape(NOTHING)
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return escape(value)
    shown = format_datetime(at, "medium", tzinfo=ZoneInfo(zone), locale=locale)
    return Markup('<time datetime="{0}" title="{0}">{1}</time>').format(value, shown)


def badge(value: object) -> Markup:
    """A state in a colour that says whether somebody should look at it; the word says it too."""
    text = (
        {True: "yes", False: "no", None: NOTHING}.get(value, str(value))
        if isinstance(value, bool | None)
        else str(value)
    )
    tone = "good" if text in _GOOD else "bad" if text in _BAD else "slow" if text in _SLOW else "plain"
    return Markup('<span class="badge {}">{}</span>').format(tone, text.replace("_", " "))


def pick(row: Any, path: str) -> Any:
    """What stands at a path of names in nested objects; None where there is nothing."""
    for name in path.split("."):
        if not isinstance(row, dict):
            return None
        row = row.get(name)
    return row


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Lines of CSV. A list is one cell; what a spreadsheet would take for a formula gets an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return out.getvalue()


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = "; ".join(str(one) for one in value) if isinstance(value, list | tuple) else str(value)
    if isinstance(value, str | list | tuple) and text.startswith(_FORMULA) and not _NUMBER.fullmatch(text):
        return f"'{text}"
    return text
