"""What is sold: event prices and their immutable versions.

The problem, on one example. Events of type ``CHAT`` cost 2 credits, those on the large model 15 cents a million tokens
instead, and last month it was 20 cents. Three things are kept apart so that each stays simple:

    EventPrice    CHAT -> USD where {"model": "large"}     which events, which denomination; found by its ``match``
    PriceVersion  1: 20 per 1000000, 2: 15 per 1000000     the terms; a change is a new version, never an edit
    Terms         all prices of an environment by type     what one decision needs to know

The most specific ``match`` wins within a denomination; a price in each of several denominations makes one event debit
several balances. An event is priced by the version in force when it occurred, and by the first version if it occurred
before there was one (decision 0005). Sources: contract 2.7, 3.7; design 10 and 11 (Rating).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from .money import Exact, exact, reduced
from .outcomes import Refusal, invalid

Model = Literal["per_unit", "package", "graduated", "volume"]
Property = str | int | float | bool | None  # a JSON scalar as the wire has it; never money

PER_MAX: Final = 10**12
TIERS_MAX: Final = 100
MATCH_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class Tier:
    """Units up to and including ``up_to`` of the period (None: without end) at ``unit`` smallest units each."""

    up_to: int | None
    unit: Exact


@dataclass(frozen=True, slots=True)
class PriceVersion:
    """Immutable terms of a price.

    ``unit`` is the price of one unit, or of one package of ``per`` units. ``minimum`` and ``cap`` bound one event.
    ``is_plain`` marks the common case, quantity times unit and nothing else, which needs no counter and no lines.
    """

    id: int
    price_id: int
    number: int
    denomination: str
    effective_at: datetime
    model: Model
    unit: Exact
    per: int
    tiers: tuple[Tier, ...] = ()
    free_units: int = 0
    minimum: Exact | None = None
    cap: Exact | None = None
    max_value_billing: bool = False
    is_plain: bool = False
    is_counted: bool = False


@dataclass(frozen=True, slots=True)
class EventPrice:
    """A rule: events of ``type`` whose metadata holds all of ``match`` cost something in ``denomination``.

    ``created_at`` and ``ended_at`` matter to events that are billed later than they were recorded; None: always.
    """

    id: int
    type: str
    denomination: str
    match: Mapping[str, Property]
    versions: tuple[PriceVersion, ...]
    created_at: datetime | None = None
    ended_at: datetime | None = None

    def held_at(self, at: datetime) -> bool:
        """Whether it was there at ``at``: made by then, and not deleted yet."""
        return (self.created_at is None or self.created_at <= at) and (self.ended_at is None or at < self.ended_at)

    @property
    def latest(self) -> PriceVersion:
        """The version that prices what occurs now."""
        return self.versions[-1]

    def version_at(self, at: datetime) -> PriceVersion:
        """The version in force at ``at``; the first one for anything older."""
        for version in reversed(self.versions):
            if version.effective_at <= at:
                return version
        return self.versions[0]

    def covers(self, properties: Mapping[str, object]) -> bool:
        """Whether every property of ``match`` is there with an equal value of the same JSON kind: true is not 1."""
        return all(
            name in properties
            and properties[name] == value
            and isinstance(properties[name], bool) is isinstance(value, bool)
            for name, value in self.match.items()
        )


def price_version(
    *, id: int, price_id: int, number: int, denomination: str, effective_at: datetime, terms: Mapping[str, object]
) -> PriceVersion:
    """A version from its stored or requested terms, judged whole.

    ``terms``: ``model``, ``amount`` (decimal text), ``per`` (int), ``tiers`` (list of ``up_to``, ``amount``, ``per``),
    ``free_units`` (int), ``minimum``, ``cap`` (decimal text or None), ``max_value_billing`` (bool).
    Raises Refusal with the path of the field that does not fit.
    """
    model = _model(terms)
    tiers = _tiers(terms, model)
    minimum, cap = _bound(terms, "minimum"), _bound(terms, "cap")
    if minimum and cap and minimum.numerator * cap.denominator > cap.numerator * minimum.denominator:
        raise invalid("minimum", "lies above the cap; no event could satisfy both.")
    free_units, by_maximum = int(str(terms.get("free_units") or 0)), bool(terms.get("max_value_billing"))
    unit, per = Exact(0, 1), 1
    if not tiers:
        amount, per = _amount(terms, ""), _per(terms, "")
        unit = Exact(amount.numerator, amount.denominator) if model == "package" else _over(amount, per)
    is_counted = model != "per_unit" or free_units > 0 or by_maximum
    return PriceVersion(
        id=id,
        price_id=price_id,
        number=number,
        denomination=denomination,
        effective_at=effective_at,
        model=model,
        unit=unit,
        per=per,
        tiers=tiers,
        free_units=free_units,
        minimum=minimum,
        cap=cap,
        max_value_billing=by_maximum,
        is_plain=not is_counted and minimum is None and cap is None,
        is_counted=is_counted,
    )


def _model(terms: Mapping[str, object]) -> Model:
    match terms.get("model", "per_unit"):
        case "per_unit":
            return "per_unit"
        case "package":
            return "package"
        case "graduated":
            return "graduated"
        case "volume":
            return "volume"
        case _:
            raise invalid("model", "is one of per_unit, package, graduated, volume.")


def _tiers(terms: Mapping[str, object], model: Model) -> tuple[Tier, ...]:
    given = terms.get("tiers")
    if model in {"per_unit", "package"}:
        if given:
            raise invalid("tiers", f"belong to the models graduated and volume, not to {model}.")
        return ()
    if not isinstance(given, Sequence) or not given:
        raise invalid("tiers", f"the model {model} needs a list of tiers, the last one with up_to null.")
    if terms.get("amount") is not None:
        raise invalid("amount", f"the model {model} takes its amounts from the tiers.")
    if len(given) > TIERS_MAX:
        raise invalid("tiers", f"at most {TIERS_MAX} tiers.")
    tiers: list[Tier] = []
    reached = 0
    for index, tier in enumerate(given):
        path = f"tiers[{index}]."
        up_to = tier.get("up_to")
        if (up_to is None) != (index == len(given) - 1):
            raise invalid(path + "up_to", "null marks the last tier, and only the last.")
        if up_to is not None and up_to <= reached:
            raise invalid(path + "up_to", "each tier must reach further than the one before.")
        reached = up_to
        tiers.append(Tier(up_to, _over(_amount(tier, path), _per(tier, path))))
    return tuple(tiers)


def _amount(terms: Mapping[str, object], path: str) -> Exact:
    amount = terms.get("amount")
    if amount is None:
        raise Refusal("missing_field", f"{path}amount: a decimal string of smallest units.", path=f"{path}amount")
    return exact(str(amount))


def _per(terms: Mapping[str, object], path: str) -> int:
    """Units that ``amount`` buys. Only 2, 3, 5 and 7 as prime factors, so that denominators cannot grow without end."""
    given = terms.get("per")
    per = rest = 1 if given is None else int(str(given))
    for factor in (2, 3, 5, 7):
        while per > 0 and rest % factor == 0:
            rest //= factor
    if rest != 1 or per > PER_MAX:
        raise invalid(f"{path}per", "a whole number up to 10^12 whose prime factors are 2, 3, 5 and 7 only.")
    return per


def _bound(terms: Mapping[str, object], name: str) -> Exact | None:
    value = terms.get(name)
    return None if value is None else exact(str(value))


def _over(amount: Exact, per: int) -> Exact:
    """``amount / per`` in lowest terms, so that equal prices spelt differently share a denominator."""
    return reduced(Exact(amount.numerator, amount.denominator * per))


def by_type(prices: Iterable[EventPrice]) -> dict[str, tuple[EventPrice, ...]]:
    """Prices by type, in their order."""
    found: dict[str, list[EventPrice]] = {}
    for price in prices:
        found.setdefault(price.type, []).append(price)
    return {kind: tuple(of_type) for kind, of_type in found.items()}


def families_of(prices: Iterable[EventPrice]) -> dict[str, tuple[tuple[EventPrice, ...], ...]]:
    """Prices by type, then a family per denomination, the most specific match first."""
    grouped: dict[str, dict[str, list[EventPrice]]] = {}
    for price in prices:
        grouped.setdefault(price.type, {}).setdefault(price.denomination, []).append(price)
    return {
        kind: tuple(
            tuple(sorted(family, key=lambda price: (-len(price.match), price.versions[0].effective_at, price.id)))
            for _, family in sorted(by_denomination.items())
        )
        for kind, by_denomination in grouped.items()
    }
