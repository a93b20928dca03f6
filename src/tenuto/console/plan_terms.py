"""A plan's terms as people read them: tables of prices, and what differs between two versions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

from .plan_form import typed_price

LINES: Final[Mapping[str, str]] = {
    "plan": "The plan",
    "variable": "Chosen units",
    "minimum_spend": "Up to the minimum spend",
    "per_unit": "Per unit",
    "package": "Packages",
    "tier": "Tier",
    "volume": "Volume",
    "free_units": "Free units",
    "minimum": "Minimum of an event",
    "cap": "Cap of an event",
    "overage": "Overage",
    "beyond": "Not covered, so it is overage",
    "no_price": "No price covers it",
}
"""What the lines of a forecast are called."""
CADENCE_WORDS: Final[Mapping[str, str]] = {"MONTHLY": "a month", "YEARLY": "a year", "ONE_OFF": "once"}
_PARTS: Final[Mapping[str, str]] = {
    "renewals": "price",
    "balances": "balance",
    "flags": "flag",
    "event_prices": "event price",
    "tiers": "tier",
    "MONTHLY": "a month",
    "YEARLY": "a year",
    "ONE_OFF": "once",
}
_MONEY: Final = frozenset({"setup_fee", "minimum_spend", "spend_cap"})
_PRICE: Final = frozenset({"amount", "minimum", "cap"})


Path = tuple[str | int, ...]


class Tier(NamedTuple):
    """A tier: the first and the last unit in it (None: no end), and what ``per`` units of it cost."""

    first: int
    last: int | None
    amount: str
    per: int


class Price(NamedTuple):
    """The price of an event type in words."""

    type: str
    denomination: str
    model: str
    amount: str | None
    per: int
    tiers: list[Tier]
    match: dict[str, Any]
    rules: list[tuple[str, str | None]]
    """Further rules: what, and an amount where there is one."""


def prices_of(plan: Mapping[str, Any]) -> list[Price]:
    """The event prices of a plan."""
    return [_price(price) for price in plan["event_prices"]]


def _price(given: Mapping[str, Any]) -> Price:
    rules: list[tuple[str, str | None]] = []
    if given.get("free_units"):
        rules.append((f"{given['free_units']} units of a period are free", None))
    if given.get("minimum") is not None:
        rules.append(("an event costs at least", given["minimum"]))
    if given.get("cap") is not None:
        rules.append(("an event costs at most", given["cap"]))
    if given.get("max_value_billing"):
        rules.append(("only the highest value of a period counts", None))
    tiers, reached = [], 0
    for tier in given.get("tiers") or ():
        tiers.append(Tier(reached + 1, tier["up_to"], tier["amount"], tier.get("per") or 1))
        reached = tier["up_to"] or reached
    return Price(
        given["type"],
        given["denomination"],
        given.get("model") or "per_unit",
        given.get("amount"),
        given.get("per") or 1,
        tiers,
        given.get("match") or {},
        rules,
    )


class MonthLine(NamedTuple):
    """A line of a forecast, with numbers that can be shown; ``unit`` None: a price for each would say nothing."""

    what: str
    name: str
    units: Decimal
    unit: Decimal | None
    cost: Decimal
    denomination: str


def month_of(seen: Mapping[str, Any]) -> list[MonthLine]:
    """The lines of a forecast as the editor shows them."""
    return [
        MonthLine(
            LINES[line["what"]],
            "" if line["what"] in {"plan", "minimum_spend"} else line["name"],
            _number(line["units"]),
            None if line["what"] in _NO_UNIT else _number(line["unit_cost"]),
            _number(line["exact"]),
            line["denomination"],
        )
        for line in seen["lines"]
    ]


_NO_UNIT: Final = frozenset({"beyond", "no_price", "free_units", "minimum", "cap", "plan", "minimum_spend"})
_PLACES: Final = Decimal("0.000001")


def _number(text: str) -> Decimal:
    """An exact number; of a fraction that no decimal is, six digits after the point."""
    over, _, under = text.partition("/")
    return (Decimal(over) / Decimal(under)).quantize(_PLACES) if under else Decimal(over)


class Difference(NamedTuple):
    """A field that differs: where it stands, and what it was and is; empty where it was or is not there."""

    path: str
    before: str
    after: str


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    """What differs between two terms of a plan, field by field, with amounts as they are typed."""
    before, after = _fields(old), _fields(new)
    paths = [*before, *(path for path in after if path not in before)]
    found = (Difference(_words(path), before.get(path, ""), after.get(path, "")) for path in paths)
    return [one for one in found if one.before != one.after]


def _fields(terms: Mapping[str, Any]) -> dict[Path, str]:
    """Every single value of a plan's terms by where it stands."""
    # A price is the same one wherever it stands in the list.
    prices = {_name_of(price): price for price in terms.get("event_prices") or ()}
    rest = {name: value for name, value in terms.items() if name != "event_prices"}
    return dict(_flat({**rest, "event_prices": prices}, (), terms))


def _name_of(price: Mapping[str, Any]) -> str:
    match = ", ".join(f"{name} = {json.dumps(value)}" for name, value in (price.get("match") or {}).items())
    return f"{price['type']} in {price['denomination']}{f' where {match}' if match else ''}"


def _flat(value: object, path: Path, terms: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Every single value below an object, by its path."""
    if isinstance(value, Mapping):
        denomination = value.get("denomination")
        for name, item in value.items():
            yield from _flat(item, (*path, name), {**terms, "denomination": denomination or terms.get("denomination")})
    elif isinstance(value, list):
        for index, item in enumerate(value, start=1):
            yield from _flat(item, (*path, index), terms)
    elif value is not None:
        yield path, _said(value, _denomination_of(path, terms))


def _denomination_of(path: Path, terms: Mapping[str, Any]) -> str | None:
    """The denomination of the amount at a path; None where there stands no amount."""
    head, last, currency = path[0], path[-1], terms.get("renewal_denomination")
    if head == "renewals" or last in _MONEY:
        return currency
    if head == "event_prices" and last in _PRICE:
        return terms.get("denomination")
    if head != "balances":
        return None
    name, field = str(path[1]), path[2]
    match field:
        case "amount" | "auto_refill_amount" | "auto_refill_threshold":
            return name
        case "overage_charge_amount":
            return terms["balances"][name].get("overage_charge_denomination") or currency
        case "variable_amount_cost" | "auto_refill_charge_amount":
            return currency
        case _:
            return None


def _words(path: Path) -> str:
    """A path in words; what a company has named itself stands as it is."""
    own = 1 if path[0] in {"balances", "flags", "event_prices"} else -1
    return ", ".join(
        str(part) if at == own else _PARTS.get(str(part), str(part).replace("_", " ")) for at, part in enumerate(path)
    )


def _said(value: object, denomination: str | None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if denomination is not None and isinstance(value, int | str):
        return f"{typed_price(value, denomination)} {denomination}"
    return value if isinstance(value, str) else json.dumps(value)
