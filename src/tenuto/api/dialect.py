"""The dialect of the second family: bare objects, floats in major units, its own times, errors and statuses.

What the rest of the house says in its own words is spelled here for the people of an organization, and nothing of it
goes deeper:

    in the house                        on this wire
    1250 US cents                       12.5
    2023-09-14 01:16:36 UTC             "2023-09-14 04:16:36" for a token with the time zone Africa/Cairo
    Refusal not_found                   410 {"message": "..."}
    two fields that are missing         422 {"message": "The type field is required. (and 1 more error)", "errors": …}

Sources: contract 5.2, 5.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache, lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo, available_timezones

import msgspec

from tenuto.core.money import CURRENCY_EXPONENTS
from tenuto.core.organization import SYMBOLS
from tenuto.core.outcomes import Kind, Refusal
from tenuto.engine import Answer

FAMILY: Final = "organization"
DOCUMENTATION_URL: Final = "https://docs.mikrocloud.com/api/accounts#create-an-account"
"""Where the no-account error leads (seed S3)."""
STATUSES: Final[Mapping[str, int]] = {
    "not_found": 410,
    "not_implemented": 501,
    "no_account": 422,
    "insufficient_scope": 403,
    "gateway_not_configured": 503,
}
"""Statuses that this family gives to refusals, where they differ from those of the first."""
_MESSAGES: Final[Mapping[str, str]] = {
    "gateway_not_configured": "Payment methods cannot be taken here yet; ask whoever runs the service.",
}
"""Sentences that this family says otherwise: people are not told what a company has to do."""


_ROOTS: Final = frozenset({"account", "billing", "billable"})


def is_of_family(path: str) -> bool:
    """Whether a path, without ``/v1``, lies where the routes of this family do, be there a route or not."""
    return path.lstrip("/").partition("/")[0] in _ROOTS


class Problems:
    """What is wrong with the fields of a body, gathered: they are told together."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}

    def add(self, field: str, message: str) -> None:
        """One more problem of a field."""
        self.found.setdefault(field, []).append(message)

    def required(self, field: str, value: object) -> bool:
        """Whether a field that has to be there is; it is a problem if not."""
        is_there = value is not None and value != ""
        if not is_there:
            self.add(field, f"The {_words(field)} field is required.")
        return is_there

    def text(self, field: str, value: object, longest: int) -> str | None:
        """A text of at most so many characters; None where it is none, which is a problem."""
        if not isinstance(value, str):
            self.add(field, f"The {_words(field)} field must be a string.")
            return None
        if len(value) > longest:
            self.add(field, f"The {_words(field)} field must not be greater than {longest} characters.")
            return None
        return value

    def refuse(self) -> None:
        """Raises Refusal where anything is wrong: the first problem, and how many more there are."""
        if not self.found:
            return
        messages = [message for of_field in self.found.values() for message in of_field]
        more = len(messages) - 1
        first = messages[0]
        if more:
            first += f" (and {more} more error{'s' if more > 1 else ''})"
        raise Refusal("invalid_field", first, errors=self.found)


def _words(field: str) -> str:
    return field.replace("_", " ")


def bare(status: int, value: object) -> Answer:
    """An object or a list, without an envelope."""
    return Answer(status, msgspec.json.encode(value))


def empty() -> Answer:
    """What a successful DELETE answers."""
    return Answer(204, b"")


def moment(at: datetime | None, zone: str) -> str | None:
    """A time as the people of an organization read it."""
    return None if at is None else at.astimezone(_zone(zone)).strftime("%Y-%m-%d %H:%M:%S")


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    """The zone of this name, and UTC where there is none (contract 5.2)."""
    return ZoneInfo(name if name in zones() else "UTC")


@cache
def zones() -> frozenset[str]:
    """The names of zones that IANA gives: not those that a host has beside them."""
    return frozenset(available_timezones()) - {"localtime"}


def major(amount: int, currency: str) -> float:
    """An amount in major units; a whole one is written without a point, as seed S3 shows it."""
    units: int = 10 ** CURRENCY_EXPONENTS.get(currency, 2)
    return amount // units if amount % units == 0 else amount / units


def symbol(currency: str) -> str:
    """The sign of a currency."""
    return SYMBOLS.get(currency, currency)


def refused(refusal: Refusal, statuses: Mapping[Kind, int]) -> tuple[int, bytes]:
    """An error of this family: its status and body."""
    status = STATUSES.get(refusal.code, statuses[refusal.kind])
    body: dict[str, Any] = {"message": _MESSAGES.get(refusal.code, refusal.message)}
    if refusal.code == "no_account":
        body["documentation_url"] = DOCUMENTATION_URL
    elif "errors" in refusal.details:
        body["errors"] = refusal.details["errors"]
    elif "path" in refusal.details:
        body["errors"] = {str(refusal.details["path"]): [refusal.message]}
    elif refusal.code in {"payment_failed", "not_cleared"} and refusal.details:
        body["errors"] = refusal.details
    return status, msgspec.json.encode(body)
