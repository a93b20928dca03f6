"""What forms hold, read as the API takes it, and kept as it was typed where the API refuses.

A form has one path for reading and for sending. Where the API refuses, the same page comes again with what was typed
and with the reason in the words of the form; where it agrees, the browser is sent on.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from tenuto.core.money import is_fiat
from tenuto.core.outcomes import Refusal, invalid

from .formats import without_separators
from .frame import Visit

REFUSED: Final = 422
"""The status of a form that comes back."""
UNITS: Final = {"days": 86_400, "hours": 3_600, "minutes": 60, "seconds": 1}
DIGITS_MAX: Final = 16
"""How many digits a whole number has at most: those of the largest amount."""
WHOLE: Final = re.compile(rf"-?[0-9]{{1,{DIGITS_MAX}}}", re.ASCII)
"""A whole number."""
_PLACE: Final = re.compile(r"\[(\d+)\]")
_SECTIONS: Final = ("invoicing.", "refill_caps.", "plans.", "plan.")


def said(refusal: Refusal) -> str:
    """Why something was refused, with the field in words: ``levels[1].flag: …`` is Levels 2, flag: …."""
    path = str(refusal.details.get("path") or "")
    head = f"{path}: "
    if not path or not refusal.message.startswith(head):
        return refusal.message
    for section in _SECTIONS:
        path = path.removeprefix(section)
    words = _PLACE.sub(lambda place: f" {int(place[1]) + 1}", path).replace("_", " ").replace(".", ", ")
    return f"{words[0].upper()}{words[1:]}: {refusal.message.removeprefix(head)}"


def typed(visit: Visit, *names: str) -> dict[str, Any]:
    """Fields as they were typed, for the page to show again."""
    return {name: visit.field(name) for name in names}


def rows_of(visit: Visit, *names: str) -> list[dict[str, str]]:
    """Repeated rows of fields, in their order; a row in which nothing at all was typed is none."""
    columns = [visit.fields(name) for name in names]
    rows = [dict(zip(names, values, strict=False)) for values in zip(*columns, strict=False)]
    return [row for row in rows if any(row.values())]


def whole(text: str, path: str) -> int:
    """A whole number as it was typed. Raises Refusal ``invalid_field``."""
    plain = without_separators(text)
    if not WHOLE.fullmatch(plain):
        raise invalid(path, "takes a whole number.")
    return int(plain)


def whole_or_none(text: str, path: str) -> int | None:
    """The same; nothing typed is None."""
    return whole(text, path) if text else None


def read_denomination(text: str, path: str = "denomination", known: Collection[str] = ()) -> str:
    """A denomination as somebody types it. Raises Refusal ``invalid_field`` for a currency in another case: ``usd``.

    The API takes ``usd`` for a token like any other, counted in whole units beside USD; nobody who types it means that.
    ``known`` are those that are there already, which may stay as they are.
    """
    currency = text.upper()
    if is_fiat(currency) and text not in {currency, *known}:
        raise invalid(path, f"Did you mean {currency}?")
    return text


def spelled_duration(name: str, seconds: int) -> dict[str, str]:
    """Seconds as a form shows them, in the largest unit that leaves no rest: 7200 is 2 hours."""
    unit = next(unit for unit, size in UNITS.items() if seconds % size == 0 and (seconds or unit == "hours"))
    return {name: str(seconds // UNITS[unit]), f"{name}_unit": unit}


def typed_duration(visit: Visit, name: str) -> dict[str, str]:
    """A duration as it was typed."""
    unit = visit.field(f"{name}_unit")
    return {name: visit.field(name), f"{name}_unit": unit if unit in UNITS else "seconds"}


def read_duration(visit: Visit, name: str) -> int:
    """A duration of a form, in seconds. Raises Refusal ``invalid_field``."""
    unit = UNITS.get(visit.field(f"{name}_unit"))
    if unit is None:
        raise invalid(name, f"is in {', '.join(UNITS)}.")
    return whole(visit.field(name), name) * unit


def read_moment(text: str, zone: str, path: str) -> str:
    """A day and time as a browser's field gives it, in the company's zone, as the API takes it. Raises Refusal."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise invalid(path, "takes a day and a time.") from error
    return (at if at.tzinfo is not None else at.replace(tzinfo=ZoneInfo(zone))).isoformat()


def lines_of(text: str) -> list[str]:
    """The lines in which something is written."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def chosen(visit: Visit, name: str, known: Sequence[str]) -> list[str]:
    """Boxes that were ticked, in the order in which they stand."""
    ticked = set(visit.fields(name))
    return [one for one in known if one in ticked]
