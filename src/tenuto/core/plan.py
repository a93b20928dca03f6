"""Plans: what an account is sold as a whole, for a period.

The problem, on one example. Ten dollars a month buy 10 GB of storage and 60 minutes of compute; a further GB costs one
dollar, a further minute 50 cents; a seat is 2 dollars a month, as many as the account chooses:

    renewals    MONTHLY 1000 USD                        what a period costs, by cadence
    balances    storage_gb       10, overage 100 USD    units included in each period, and the price of one beyond
                compute_minutes  60, overage  50 USD
                seats             0, variable 200 USD   chosen by the account: 3 seats add 600 and include 3 units
    terms       1600 USD for 10 + 60 + 3 units          what this account pays and gets

A plan is changed by a new version; terms are immutable, so an account is billed by what it agreed to until it is moved.
A plan judges itself whole: everything that could not be charged, granted or undone later is refused when it is written.
Sources: contract 2.5, 3.4 and 3.10, design 11.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple

from .cards import maximum, minimum, to_stripe
from .catalog import PER_MAX, EventPrice, price_version
from .money import AMOUNT_MAX, Exact, exact, is_fiat, reduced, round_up, times
from .outcomes import Refusal, beneath, invalid

Cadence = Literal["MONTHLY", "YEARLY", "ONE_OFF"]
Scheme = Literal["sleeping_beauty", "snow_white", "ariel"]
FlagValue = bool | int | str | Mapping[str, str]
"""On or off, a limit, a text, or ``{"metered": denomination}``: on while there is something on that balance."""

CADENCES: Final[tuple[Cadence, ...]] = ("MONTHLY", "YEARLY", "ONE_OFF")
SCHEMES: Final = ("sleeping_beauty", "snow_white", "ariel")
BALANCES_MAX: Final = 50
FLAGS_MAX: Final = 100
EVENT_PRICES_MAX: Final = 100
TRIAL_DAYS_MAX: Final = 730
PERCENT_MAX: Final = 100


class Overage(NamedTuple):
    """What a unit costs beyond those that are there: ``unit`` smallest units of ``denomination``, exact."""

    unit: Exact
    denomination: str


class AutoRefill(NamedTuple):
    """``amount`` units for ``charge`` of the plan's denomination whenever less than ``threshold`` are available."""

    amount: int
    threshold: int
    charge: int


@dataclass(frozen=True, slots=True)
class PlanBalance:
    """What a plan does for one balance.

    ``amount`` units are included in each period, ``variable_cost`` by cadence is the price of one more that the account
    chooses. Without ``rollover`` what is left of the included units ends with its period.
    """

    denomination: str
    amount: int
    variable_cost: Mapping[Cadence, int] | None
    overage: Overage | None
    refill: AutoRefill | None
    rollover: bool


@dataclass(frozen=True, slots=True)
class PlanTerms:
    """Immutable terms of a plan.

    ``renewals``: the price of a period by cadence, in smallest units of ``denomination``. ``refills_monthly``: a period
    of a year has its balances filled every month. ``minimum_spend`` and ``spend_cap`` are for one period.
    """

    name: str
    denomination: str
    renewals: Mapping[Cadence, int]
    refills_monthly: bool
    balances: Mapping[str, PlanBalance]
    flags: Mapping[str, FlagValue]
    trial_days: int
    setup_fee: int
    minimum_spend: int | None
    spend_cap: int | None
    threshold_alert_percentage: int | None

    @property
    def charges_money(self) -> bool:
        """Whether it is paid in money and not from a balance of tokens."""
        return is_fiat(self.denomination)


@dataclass(frozen=True, slots=True)
class PlanVersion:
    """A version of a plan with the event prices that only its accounts have."""

    id: int
    plan_id: int
    number: int
    terms: PlanTerms
    prices: Mapping[str, tuple[tuple[EventPrice, ...], ...]]
    is_archived: bool = False


def included(terms: PlanTerms, chosen: Mapping[str, int]) -> dict[str, int]:
    """Units by denomination that a period (or a month of a year's) includes; those above zero only."""
    found = {name: balance.amount + chosen.get(name, 0) for name, balance in terms.balances.items()}
    return {name: units for name, units in found.items() if units}


def price_of(terms: PlanTerms, cadence: Cadence, chosen: Mapping[str, int]) -> int:
    """What a period costs: the plan's price and that of the chosen units. Raises Refusal ``out_of_range``."""
    total = terms.renewals[cadence] + sum(cost * units for _, units, cost in variable_lines(terms, cadence, chosen))
    if total > AMOUNT_MAX:
        raise invalid("plan_variable_amounts", f"come to {total}, above {AMOUNT_MAX}.", "out_of_range")
    return total


def variable_lines(terms: PlanTerms, cadence: Cadence, chosen: Mapping[str, int]) -> list[tuple[str, int, int]]:
    """(denomination, units, price of one) of the chosen units."""
    return [
        (name, units, balance.variable_cost[cadence])
        for name, balance in terms.balances.items()
        if balance.variable_cost is not None and (units := chosen.get(name, 0))
    ]


def checked_units(terms: PlanTerms, chosen: Mapping[str, int]) -> dict[str, int]:
    """What an account chose, if the plan lets it. Raises Refusal for a balance that is not to be chosen."""
    for name in chosen:
        balance = terms.balances.get(name)
        if balance is None or balance.variable_cost is None:
            raise invalid(f"plan_variable_amounts.{name}", "is no balance of this plan whose amount can be chosen.")
        if balance.amount + chosen[name] > AMOUNT_MAX:
            raise invalid(f"plan_variable_amounts.{name}", f"come to more than {AMOUNT_MAX} units.", "out_of_range")
    return {name: units for name, units in chosen.items() if units}


def checked_cadence(terms: PlanTerms, cadence: Cadence | None) -> Cadence:
    """The cadence that was named, else the plan's only or most frequent one. Raises Refusal ``invalid_field``."""
    if cadence is None:
        return next(known for known in ("MONTHLY", "YEARLY", "ONE_OFF") if known in terms.renewals)
    if cadence not in terms.renewals:
        raise invalid("cadence", f"is one of {', '.join(terms.renewals)}: the plan has no price for {cadence}.")
    return cadence


def plan_terms(given: Mapping[str, Any]) -> PlanTerms:
    """Terms from their stored form (:func:`merged` makes it), judged whole but for the event prices.

    ``given``: ``name``, ``renewal_denomination``, ``renewals`` (cadence to an object with ``amount``),
    ``refill_cadence``, ``balances`` (denomination to an object with ``amount``, ``variable_amount_cost``,
    ``overage_charge_amount`` (decimal text), ``overage_charge_per``, ``overage_charge_denomination``,
    ``auto_refill_amount``, ``auto_refill_threshold``, ``auto_refill_charge_amount``, ``rollover``), ``flags``,
    ``trial_days``, ``setup_fee``, ``minimum_spend``, ``spend_cap``, ``threshold_alert_percentage``, ``rollover``,
    ``event_prices`` (see :func:`refuse_prices`). What is missing or null is not there.
    Raises Refusal with the path of the field that does not fit.
    """
    denomination = given["renewal_denomination"]
    renewals = _renewals(given["renewals"], denomination)
    if len(given["balances"]) > BALANCES_MAX:
        raise invalid("balances", f"at most {BALANCES_MAX} balances.", "out_of_range")
    rollover = bool(given.get("rollover"))
    balances = {
        name: _balance(name, balance, denomination, renewals, default_rollover=rollover)
        for name, balance in sorted(given["balances"].items())
    }
    _refuse_chains(balances)
    terms = PlanTerms(
        name=given["name"],
        denomination=denomination,
        renewals=renewals,
        refills_monthly=_refills_monthly(given.get("refill_cadence"), renewals),
        balances=balances,
        flags=_flags(given.get("flags") or {}),
        trial_days=_bounded(given.get("trial_days") or 0, "trial_days", TRIAL_DAYS_MAX),
        setup_fee=_amount(given.get("setup_fee") or 0, "setup_fee"),
        minimum_spend=_optional(given, "minimum_spend"),
        spend_cap=_optional(given, "spend_cap"),
        threshold_alert_percentage=None
        if given.get("threshold_alert_percentage") is None
        else _bounded(given["threshold_alert_percentage"], "threshold_alert_percentage", PERCENT_MAX),
    )
    _refuse_sums(terms)
    return terms


def refuse_prices(prices: Sequence[Mapping[str, Any]]) -> None:
    """Judge a plan's event prices: each has ``type``, ``denomination``, ``match`` and the terms of a price version.

    Raises Refusal with a path such as ``event_prices[1].amount``.
    """
    if len(prices) > EVENT_PRICES_MAX:
        raise invalid("event_prices", f"at most {EVENT_PRICES_MAX} prices.", "out_of_range")
    seen: dict[object, int] = {}
    for index, price in enumerate(prices):
        try:
            price_version(
                id=0, price_id=0, number=1, denomination=price["denomination"], effective_at=_ANY_TIME, terms=price
            )
        except Refusal as refusal:
            raise beneath(f"event_prices[{index}]", refusal) from refusal
        # True is not 1 in a match, though Python finds them equal.
        match = frozenset((name, type(value), value) for name, value in price["match"].items())
        first = seen.setdefault((price["type"], price["denomination"], match), index)
        if first != index:
            raise invalid(f"event_prices[{index}]", f"has the type, denomination and match of event_prices[{first}].")


def merged(terms: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Stored terms with changes laid over them: objects by name, null takes away, anything else takes the place."""
    result = dict(terms)
    for name, value in changes.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            known = result.get(name)
            result[name] = merged(known if isinstance(known, Mapping) else {}, value)
        else:
            result[name] = value
    return result


_ANY_TIME: Final = datetime.min.replace(tzinfo=UTC)
"""When a price begins that is only judged."""


def _renewals(given: Mapping[str, Any], denomination: str) -> dict[Cadence, int]:
    if not given:
        raise invalid("renewals", f"holds at least one price: {', '.join(CADENCES)}.", "missing_field")
    for name in given:
        if name not in CADENCES:
            raise invalid(f"renewals.{name}", f"is one of {', '.join(CADENCES)}.")
    renewals: dict[Cadence, int] = {
        name: _amount(given[name]["amount"], f"renewals.{name}.amount") for name in CADENCES if name in given
    }
    for name, amount in renewals.items():
        _refuse_uncharged(amount, denomination, f"renewals.{name}.amount")
    return renewals


def _refills_monthly(cadence: str | None, renewals: Mapping[Cadence, int]) -> bool:
    """Whether balances are filled by the month: else they come with each period, and no cadence may say otherwise."""
    if cadence == "YEARLY" and "MONTHLY" in renewals:
        raise invalid("refill_cadence", "is MONTHLY where a month can be bought: balances come with what is paid.")
    if cadence not in {None, "MONTHLY", *renewals} or (cadence == "ONE_OFF" and len(renewals) > 1):
        raise invalid("refill_cadence", "is MONTHLY, or the cadence that the plan is sold by.")
    return cadence == "MONTHLY"


def _refuse_chains(balances: Mapping[str, PlanBalance]) -> None:
    for name, balance in balances.items():
        into = None if balance.overage is None else balances.get(balance.overage.denomination)
        if into is not None and into.overage is not None:
            raise invalid(f"balances.{name}.overage_charge_denomination", "has overage itself; overage goes one step.")


def _refuse_sums(terms: PlanTerms) -> None:
    """What no field is wrong in alone."""
    _refuse_uncharged(terms.setup_fee, terms.denomination, "setup_fee")
    for amount in terms.renewals.values():
        _refuse_uncharged(terms.setup_fee + amount, terms.denomination, "setup_fee")
    if terms.trial_days and set(terms.renewals) == {"ONE_OFF"}:
        raise invalid("trial_days", "come before a period that renews; what is sold ONE_OFF has none.")
    if terms.minimum_spend and "ONE_OFF" in terms.renewals:
        raise invalid("minimum_spend", "needs periods that end; what is sold ONE_OFF has none.")
    if terms.minimum_spend and terms.spend_cap is not None and terms.minimum_spend > terms.spend_cap:
        raise invalid("minimum_spend", "lies above the spend_cap; no period could satisfy both.")


def _balance(
    name: str, given: Mapping[str, Any], denomination: str, renewals: Mapping[Cadence, int], *, default_rollover: bool
) -> PlanBalance:
    path = f"balances.{name}."
    overage = _overage(name, given, denomination)
    return PlanBalance(
        denomination=name,
        amount=_amount(given.get("amount") or 0, path + "amount"),
        variable_cost=_variable_cost(given.get("variable_amount_cost"), renewals, denomination, path),
        overage=overage,
        refill=_auto_refill(name, given, overage, denomination),
        rollover=default_rollover if given.get("rollover") is None else bool(given["rollover"]),
    )


def _variable_cost(
    given: object, renewals: Mapping[Cadence, int], denomination: str, path: str
) -> dict[Cadence, int] | None:
    path += "variable_amount_cost"
    if given is None:
        return None
    if not isinstance(given, Mapping):
        costs = dict.fromkeys(renewals, _amount(given, path))
    elif set(given) != set(renewals):
        raise invalid(path, f"has a price for each of {', '.join(renewals)}, and for nothing else.")
    else:
        costs = {name: _amount(given[name], f"{path}.{name}") for name in renewals}
    for cost in costs.values():
        _refuse_uncounted(cost, denomination, path)
    return costs


def _overage(name: str, given: Mapping[str, Any], denomination: str) -> Overage | None:
    path = f"balances.{name}.overage_charge_"
    amount = given.get("overage_charge_amount")
    if amount is None:
        for field in ("per", "denomination"):
            if given.get(f"overage_charge_{field}") is not None:
                raise invalid(f"{path}amount", "says what a unit beyond the included ones costs.", "missing_field")
        return None
    unit, per = exact(str(amount)), int(given.get("overage_charge_per") or 1)
    rest = per
    for factor in (2, 3, 5, 7):
        while rest > 0 and rest % factor == 0:
            rest //= factor
    if rest != 1 or per > PER_MAX:
        raise invalid(f"{path}per", "a whole number up to 10^12 whose prime factors are 2, 3, 5 and 7 only.")
    into = given.get("overage_charge_denomination") or denomination
    if into == name:
        raise invalid(f"{path}denomination", "is another balance than the one that has run out.")
    return Overage(reduced(Exact(unit.numerator, unit.denominator * per)), into)


def _auto_refill(name: str, given: Mapping[str, Any], overage: Overage | None, denomination: str) -> AutoRefill | None:
    """How the balance fills itself; where no price is said, at the price of overage, rounded up."""
    path = f"balances.{name}.auto_refill_"
    amount, threshold = given.get("auto_refill_amount"), given.get("auto_refill_threshold")
    charge = given.get("auto_refill_charge_amount")
    if amount is None and threshold is None and charge is None:
        return None
    if not amount or threshold is None:
        missing = "threshold" if amount else "amount"
        raise invalid(path + missing, "a refill says how much it gives, above zero, and below what.", "missing_field")
    if name == denomination and not is_fiat(denomination):
        raise invalid(path + "amount", f"would be paid from {name} itself.")
    units = _amount(amount, path + "amount")
    path += "charge_amount"
    if charge is None:
        if overage is None or overage.denomination != denomination:
            raise invalid(
                path, f"says what a refill costs: there is no overage price in {denomination}.", "missing_field"
            )
        charge = round_up(times(Exact(units, 1), overage.unit))
    cost = _amount(charge, path)
    _refuse_uncharged(cost, denomination, path)
    return AutoRefill(units, _amount(threshold, f"balances.{name}.auto_refill_threshold"), cost)


def _flags(given: Mapping[str, Any]) -> dict[str, FlagValue]:
    if len(given) > FLAGS_MAX:
        raise invalid("flags", f"at most {FLAGS_MAX} flags.", "out_of_range")
    for name, value in given.items():
        if not (isinstance(value, bool | int | str) or _is_metered(value)):
            raise invalid(f"flags.{name}", 'is true, false, a whole number, a text or {"metered": denomination}.')
    return dict(sorted(given.items()))


def _is_metered(value: object) -> bool:
    return isinstance(value, Mapping) and set(value) == {"metered"} and isinstance(value["metered"], str)


def _refuse_uncharged(amount: int, denomination: str, path: str) -> None:
    """Raises Refusal for money that no card can be charged; a balance of tokens pays anything."""
    if not amount or not is_fiat(denomination):
        return
    _refuse_uncounted(amount, denomination, path)
    least, most = minimum(denomination), maximum(denomination)
    if not least <= amount <= most:
        raise invalid(path, f"a card can be charged {least} to {most} of {denomination}; 0 is free.", "out_of_range")


def _refuse_uncounted(amount: int, denomination: str, path: str) -> None:
    if is_fiat(denomination) and to_stripe(amount, denomination) is None:
        raise invalid(path, f"no card can be charged {amount} of {denomination}: it has a smallest step.")


def _amount(value: object, path: str) -> int:
    return _bounded(value, path, AMOUNT_MAX)


def _bounded(value: object, path: str, most: int) -> int:
    amount = int(str(value))
    if not 0 <= amount <= most:
        raise invalid(path, f"takes a whole number from 0 to {most}.", "out_of_range")
    return amount


def _optional(given: Mapping[str, Any], name: str) -> int | None:
    return None if given.get(name) is None else _amount(given[name], name)
