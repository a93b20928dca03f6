"""What bodies about plans may look like, and the one form in which their terms are kept.

The problem, on one example. Ten dollars a month with 10 GB, a further one for a dollar, comes in two shapes:

    current   {"renewal_denomination": "USD", "renewals": {"MONTHLY": {"amount": 1000}},
               "balances": {"storage_gb": {"amount": 10, "overage_charge_amount": "100"}}}
    earlier   {"charge_denomination": "USD", "charge_amount": 1000, "billing_period": "monthly",
               "balances": [{"denomination": "storage_gb", "amount": "10", "overage_charge_amount": 100}]}

Both become the first. Here each field is judged in itself; ``core.plan`` judges the whole. Sources: contract 2.5, 6.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from tenuto.core.catalog import PER_MAX
from tenuto.core.money import AMOUNT_MAX
from tenuto.core.outcomes import Refusal, beneath, invalid
from tenuto.core.plan import BALANCES_MAX, EVENT_PRICES_MAX, FLAGS_MAX, PERCENT_MAX, TRIAL_DAYS_MAX, Cadence, FlagValue

from . import body as bodies
from .catalog import Amount, EventPriceIn, match_of, terms_of

CODE_MAX: Final = 64
FLAG_NAME_MAX: Final = 64
UNNAMED: Final = "Plan"
"""What a plan of the earlier shape is called that brings no name."""

_CADENCES: Final[Mapping[str, Cadence]] = {
    "monthly": "MONTHLY",
    "month": "MONTHLY",
    "yearly": "YEARLY",
    "year": "YEARLY",
    "one_off": "ONE_OFF",
    "once": "ONE_OFF",
}
_DIGITS: Final = re.compile("[0-9]{1,16}")


class RenewalIn(msgspec.Struct, forbid_unknown_fields=True):
    """What a period costs."""

    amount: int


class PlanBalanceIn(msgspec.Struct, forbid_unknown_fields=True):
    """What a plan does for one balance; null takes a field away."""

    amount: int | str | msgspec.UnsetType | None = msgspec.UNSET
    variable_amount_cost: int | dict[str, int | None] | msgspec.UnsetType | None = msgspec.UNSET
    overage_charge_amount: Amount | msgspec.UnsetType = msgspec.UNSET
    overage_charge_per: int | msgspec.UnsetType | None = msgspec.UNSET
    overage_charge_denomination: str | msgspec.UnsetType | None = msgspec.UNSET
    auto_refill_amount: int | str | msgspec.UnsetType | None = msgspec.UNSET
    auto_refill_threshold: int | str | msgspec.UnsetType | None = msgspec.UNSET
    auto_refill_charge_amount: int | str | msgspec.UnsetType | None = msgspec.UNSET
    rollover: bool | msgspec.UnsetType | None = msgspec.UNSET


class ListedBalanceIn(PlanBalanceIn, forbid_unknown_fields=True, kw_only=True):
    """The same in the earlier shape, where balances are a list."""

    denomination: str


class MeteredIn(msgspec.Struct, forbid_unknown_fields=True):
    """A flag that is on while there is something on a balance."""

    metered: str


class PlanChange(msgspec.Struct, forbid_unknown_fields=True):
    """Terms of a plan, or changes to them; ``charge_*`` and ``billing_period`` are the earlier shape."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    renewal_denomination: str | msgspec.UnsetType = msgspec.UNSET
    refill_cadence: str | msgspec.UnsetType | None = msgspec.UNSET
    renewals: dict[str, RenewalIn | None] | msgspec.UnsetType = msgspec.UNSET
    charge_amount: int | msgspec.UnsetType = msgspec.UNSET
    charge_denomination: str | msgspec.UnsetType = msgspec.UNSET
    billing_period: str | msgspec.UnsetType = msgspec.UNSET
    balances: dict[str, PlanBalanceIn | None] | list[ListedBalanceIn] | msgspec.UnsetType = msgspec.UNSET
    flags: dict[str, bool | int | str | MeteredIn | None] | msgspec.UnsetType | None = msgspec.UNSET
    trial_days: int | msgspec.UnsetType | None = msgspec.UNSET
    setup_fee: int | msgspec.UnsetType | None = msgspec.UNSET
    minimum_spend: int | msgspec.UnsetType | None = msgspec.UNSET
    spend_cap: int | msgspec.UnsetType | None = msgspec.UNSET
    threshold_alert_percentage: int | msgspec.UnsetType | None = msgspec.UNSET
    rollover: bool | msgspec.UnsetType | None = msgspec.UNSET
    event_prices: list[EventPriceIn] | msgspec.UnsetType | None = msgspec.UNSET


class PlanIn(PlanChange, forbid_unknown_fields=True):
    """A plan. ``code`` is the company's own name for it."""

    code: str | None = None


_WHOLE: Final = {
    "trial_days": TRIAL_DAYS_MAX,
    "setup_fee": AMOUNT_MAX,
    "minimum_spend": AMOUNT_MAX,
    "spend_cap": AMOUNT_MAX,
    "threshold_alert_percentage": PERCENT_MAX,
}
_EARLIER: Final = ("charge_amount", "charge_denomination", "billing_period")


def code_of(given: PlanIn) -> str | None:
    """The code of a new plan."""
    return None if given.code is None else bodies.token(given.code, "code", CODE_MAX)


def plan_of(given: PlanIn) -> dict[str, Any]:
    """The terms of a new plan in the form in which they are kept. Raises Refusal for what is wrong or missing."""
    is_earlier = any(_is_set(given, name) for name in _EARLIER)
    terms = changes_of(given)
    if is_earlier:
        terms.setdefault("name", given.code or UNNAMED)
    else:
        terms.setdefault("balances", {})
    for name, field in (
        ("name", "name"),
        ("renewal_denomination", "charge_denomination" if is_earlier else "renewal_denomination"),
        ("renewals", "charge_amount" if is_earlier else "renewals"),
        ("balances", "balances"),
    ):
        if name not in terms:
            raise invalid(field, "is required.", "missing_field")
    return terms


def changes_of(given: PlanChange) -> dict[str, Any]:
    """What a body says of a plan's terms, each field judged in itself; null says that one is taken away."""
    changes: dict[str, Any] = {}
    if not isinstance(given.name, msgspec.UnsetType):
        changes["name"] = bodies.text(given.name, "name")
    _price(given, changes)
    cadence = given.refill_cadence
    if not isinstance(cadence, msgspec.UnsetType):
        changes["refill_cadence"] = None if cadence is None else cadence_of(cadence, "refill_cadence")
    if not isinstance(given.balances, msgspec.UnsetType):
        changes["balances"] = _balances(given.balances)
    if not isinstance(given.flags, msgspec.UnsetType):
        changes["flags"] = None if given.flags is None else _flags(given.flags)
    for name, most in _WHOLE.items():
        if _is_set(given, name):
            value = getattr(given, name)
            changes[name] = None if value is None else bodies.whole(value, name, most=most)
    if not isinstance(given.rollover, msgspec.UnsetType):
        changes["rollover"] = given.rollover
    if not isinstance(given.event_prices, msgspec.UnsetType):
        changes["event_prices"] = _event_prices(given.event_prices or ()) or None
    return changes


def cadence_of(text: str, path: str) -> Cadence:
    """A cadence in any of its spellings (contract 6.1, 16)."""
    found = _CADENCES.get(text.lower())
    if found is None:
        raise invalid(path, "is MONTHLY, YEARLY or ONE_OFF.")
    return found


def _is_set(given: PlanChange | PlanBalanceIn, name: str) -> bool:
    return getattr(given, name) is not msgspec.UNSET


def _price(given: PlanChange, changes: dict[str, Any]) -> None:
    """What the plan costs in either shape, not in both."""
    denomination, older = given.renewal_denomination, given.charge_denomination
    if not isinstance(denomination, msgspec.UnsetType):
        if _is_set(given, "charge_denomination"):
            raise invalid("charge_denomination", "is the earlier name of renewal_denomination; send one of them.")
        changes["renewal_denomination"] = bodies.token(denomination, "renewal_denomination", bodies.DENOMINATION_MAX)
    elif not isinstance(older, msgspec.UnsetType):
        changes["renewal_denomination"] = bodies.token(older, "charge_denomination", bodies.DENOMINATION_MAX)
    amount, period = given.charge_amount, given.billing_period
    if not isinstance(given.renewals, msgspec.UnsetType):
        for name in ("charge_amount", "billing_period"):
            if _is_set(given, name):
                raise invalid(name, "belongs to the earlier shape, renewals to the current one; send one of them.")
        changes["renewals"] = _renewals(given.renewals)
    elif not isinstance(amount, msgspec.UnsetType) and not isinstance(period, msgspec.UnsetType):
        cadence = cadence_of(period, "billing_period")
        changes["renewals"] = {cadence: {"amount": bodies.whole(amount, "charge_amount")}}
    elif amount is not period:  # one of the two is set
        missing = "billing_period" if isinstance(period, msgspec.UnsetType) else "charge_amount"
        raise invalid(missing, "goes with the other of charge_amount and billing_period.", "missing_field")


def _renewals(given: Mapping[str, RenewalIn | None]) -> dict[str, Any]:
    renewals: dict[str, Any] = {}
    for name, price in given.items():
        cadence = cadence_of(name, "renewals")
        if cadence in renewals:
            raise invalid("renewals", f"names {cadence} twice.")
        renewals[cadence] = price and {"amount": bodies.whole(price.amount, f"renewals.{cadence}.amount")}
    return renewals


def _balances(given: Mapping[str, PlanBalanceIn | None] | Sequence[ListedBalanceIn]) -> dict[str, Any]:
    if len(given) > BALANCES_MAX:
        raise invalid("balances", f"at most {BALANCES_MAX} balances.", "out_of_range")
    if isinstance(given, Mapping):
        for name in given:
            bodies.token(name, "balances", bodies.DENOMINATION_MAX)
        return {name: found and _balance(found, f"balances.{name}") for name, found in given.items()}
    if not given:
        raise invalid("balances", "a list of balances holds at least 1.")
    balances: dict[str, Any] = {}
    for index, entry in enumerate(given):
        path = f"balances[{index}]"
        name = bodies.token(entry.denomination, f"{path}.denomination", bodies.DENOMINATION_MAX)
        if name in balances:
            raise invalid(f"{path}.denomination", "stands in the list already.")
        balances[name] = _balance(entry, path)
    return balances


def _balance(given: PlanBalanceIn, path: str) -> dict[str, Any]:
    terms: dict[str, Any] = {}
    for name in ("amount", "auto_refill_amount", "auto_refill_threshold", "auto_refill_charge_amount"):
        if _is_set(given, name):
            terms[name] = _count(getattr(given, name), f"{path}.{name}")
    if not isinstance(given.variable_amount_cost, msgspec.UnsetType):
        terms["variable_amount_cost"] = _unit_costs(given.variable_amount_cost, f"{path}.variable_amount_cost")
    if not isinstance(given.overage_charge_amount, msgspec.UnsetType):
        terms["overage_charge_amount"] = bodies.decimal(given.overage_charge_amount, f"{path}.overage_charge_amount")
    per, into = given.overage_charge_per, given.overage_charge_denomination
    if not isinstance(per, msgspec.UnsetType):
        field = f"{path}.overage_charge_per"
        terms["overage_charge_per"] = None if per is None else bodies.whole(per, field, least=1, most=PER_MAX)
    if not isinstance(into, msgspec.UnsetType):
        field = f"{path}.overage_charge_denomination"
        valid = None if into is None else bodies.token(into, field, bodies.DENOMINATION_MAX)
        terms["overage_charge_denomination"] = valid
    if not isinstance(given.rollover, msgspec.UnsetType):
        terms["rollover"] = given.rollover
    return terms


def _count(value: int | str | None, path: str) -> int | None:
    """A whole number, which the earlier shape may send as text."""
    if value is None:
        return None
    if isinstance(value, str):
        if not _DIGITS.fullmatch(value):
            raise invalid(path, "takes a whole number, or one as text.")
        value = int(value)
    return bodies.whole(value, path)


def _unit_costs(given: int | Mapping[str, int | None] | None, path: str) -> int | dict[str, int | None] | None:
    if given is None or isinstance(given, int):
        return None if given is None else bodies.whole(given, path)
    costs: dict[str, int | None] = {}
    for name, cost in given.items():
        cadence = cadence_of(name, path)
        if cadence in costs:
            raise invalid(path, f"names {cadence} twice.")
        costs[cadence] = None if cost is None else bodies.whole(cost, f"{path}.{cadence}")
    return costs


def _flags(given: Mapping[str, bool | int | str | MeteredIn | None]) -> dict[str, Any]:
    if len(given) > FLAGS_MAX:
        raise invalid("flags", f"at most {FLAGS_MAX} flags.", "out_of_range")
    return {
        bodies.token(name, "flags", FLAG_NAME_MAX): None if value is None else flag_value(value, f"flags.{name}")
        for name, value in given.items()
    }


def flag_value(given: bool | int | str | MeteredIn, path: str) -> FlagValue:  # noqa: FBT001 - the value of a flag
    """The value of a flag: on or off, a limit, a text, or the balance that it follows."""
    if isinstance(given, MeteredIn):
        return {"metered": bodies.token(given.metered, f"{path}.metered", bodies.DENOMINATION_MAX)}
    if isinstance(given, str):
        return bodies.text(given, path, shortest=0)
    return given if isinstance(given, bool) else bodies.whole(given, path, least=-AMOUNT_MAX)


def _event_prices(given: Sequence[EventPriceIn]) -> list[dict[str, Any]]:
    if len(given) > EVENT_PRICES_MAX:
        raise invalid("event_prices", f"at most {EVENT_PRICES_MAX} prices.", "out_of_range")
    prices: list[dict[str, Any]] = []
    for index, price in enumerate(given):
        try:
            found = {
                "type": bodies.event_type(price.type, "type"),
                "denomination": bodies.token(price.denomination, "denomination", bodies.DENOMINATION_MAX),
                "match": match_of(price.match),
            }
            prices.append({**found, **terms_of(price)})
        except Refusal as refusal:
            raise beneath(f"event_prices[{index}]", refusal) from refusal
    return prices
