"""Entitlement: which flags an account has right now, and whether they allow what somebody wants.

The problem, on one example. A plan gives ``exports``: true, ``storage_gb``: 5 and ``sms`` that follows the balance of
messages; the account was given 8 GB by hand, and owes 160 % of its credit limit:

    flag               value                  from         a request for ``value``
    exports            on                     plan         0, or none: allowed
    over_credit_limit  on                     system       what the company asks before it serves
    sms                off: 0 messages left   plan         not allowed
    storage_gb         on, up to 8            operator     8 is allowed, 9 is not

Nothing of it is stored but what a plan promises and what was set by hand: the rest is read off the balances, so it is
true in the moment it is asked. Sources: contract 3.10, 3.8.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from .event import credit_limit_of
from .ledger import Balance
from .plan import FlagValue
from .topic import Rule

FlagType = Literal["binary", "limit", "text", "metered"]
FlagSource = Literal["plan", "operator", "system"]


class Flag(NamedTuple):
    """A flag as it stands. ``value`` is the limit or the text, ``denomination`` the balance that a metered one follows.

    ``overrides``: the value of the plan that one set by hand takes the place of.
    """

    name: str
    type: FlagType
    enabled: bool
    value: int | str | None
    denomination: str | None
    source: FlagSource
    overrides: FlagValue | None = None

    def allows(self, value: int | None) -> bool:
        """Whether so much of it may be had: of a limit at most that, of others while they are on (contract 3.10)."""
        if self.type == "limit" and value is not None:
            assert isinstance(self.value, int)
            return value <= self.value
        return self.enabled


def flags_of(
    plan: Mapping[str, FlagValue],
    own: Mapping[str, FlagValue],
    amounts: Mapping[str, int],
    system: Mapping[str, bool],
) -> dict[str, Flag]:
    """Every flag of an account, by name: its plan's, over them those set by hand, over all the system's.

    ``amounts`` are what its balances hold; ``system`` are the flags of pauses and of the company's rules.
    """
    found = {name: flag_as(name, value, amounts, "plan") for name, value in plan.items()}
    for name, value in own.items():
        found[name] = flag_as(name, value, amounts, "operator")._replace(overrides=plan.get(name))
    for name, is_up in system.items():
        found[name] = Flag(name, "binary", is_up, None, None, "system")
    return dict(sorted(found.items()))


def shown(flag: Flag | None) -> dict[str, Any] | None:
    """A flag as its history and topics tell of it."""
    if flag is None:
        return None
    return {"type": flag.type, "enabled": flag.enabled, "value": flag.value, "denomination": flag.denomination}


def flag_as(name: str, value: FlagValue, amounts: Mapping[str, int], source: FlagSource) -> Flag:
    """One flag as its value and the balances have it."""
    if isinstance(value, Mapping):
        denomination = value["metered"]
        return Flag(name, "metered", amounts.get(denomination, 0) > 0, None, denomination, source)
    if isinstance(value, bool):
        return Flag(name, "binary", value, None, None, source)
    if isinstance(value, int):
        return Flag(name, "limit", value > 0, value, None, source)
    return Flag(name, "text", enabled=True, value=value, denomination=None, source=source)


def metered_flags(plan: Mapping[str, FlagValue], own: Mapping[str, FlagValue]) -> dict[str, tuple[str, ...]]:
    """The names of the flags that follow a balance, by its denomination; what is set for the account goes before."""
    found: dict[str, tuple[str, ...]] = {}
    for name, value in sorted({**plan, **own}.items()):
        if isinstance(value, Mapping):
            denomination = value["metered"]
            found[denomination] = (*found.get(denomination, ()), name)
    return found


def flags_of_rules(
    rules: Iterable[Rule], balances: Mapping[str, Balance], credit_limit: int | None, default_credit_limit: int
) -> dict[str, bool]:
    """The flags that a company's rules raise, by name: up while a balance is at the level of one."""
    found: dict[str, bool] = {}
    for rule in rules:
        if rule.flag is not None:
            found[rule.flag] = found.get(rule.flag, False) or any(
                rule.level.is_reached(
                    balance.amount, filled=0, limit=credit_limit_of(balance, credit_limit, default_credit_limit)
                )
                for balance in balances.values()
                if balance.amount < 0 and rule.denomination in {None, balance.denomination}
            )
    return found
