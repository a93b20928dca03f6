"""Which flags an account has, and what they allow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pytest

from tenuto.core.entitlement import (
    Flag,
    FlagType,
    flag_as,
    flags_of,
    flags_of_rules,
    metered_flags,
    shown,
)
from tenuto.core.ledger import Balance, open_balance
from tenuto.core.outcomes import Refusal
from tenuto.core.plan import FlagValue, plan_terms
from tenuto.core.topic import SYSTEM_FLAGS, USUAL_RULES, Level, Rule
from tests.core.account_life import NO_PLAN

AMOUNTS: Final = {"messages": 1, "minutes": 0, "USD": -800}
METERED: Final = {"metered": "messages"}


@pytest.mark.parametrize(
    ("value", "type", "enabled", "shows", "denomination"),
    [
        (True, "binary", True, None, None),
        (False, "binary", False, None, None),
        (5, "limit", True, 5, None),
        (1, "limit", True, 1, None),
        (0, "limit", False, 0, None),
        (-1, "limit", False, -1, None),
        ("eu", "text", True, "eu", None),
        ("", "text", True, "", None),
        (METERED, "metered", True, None, "messages"),
        ({"metered": "minutes"}, "metered", False, None, "minutes"),
        ({"metered": "USD"}, "metered", False, None, "USD"),
        ({"metered": "never"}, "metered", False, None, "never"),
    ],
)
def test_a_flag_is_of_the_kind_of_its_value(
    value: FlagValue,
    type: FlagType,
    enabled: bool,  # noqa: FBT001 - a row of the table
    shows: object,
    denomination: str | None,
) -> None:
    flag = flag_as("it", value, AMOUNTS, "plan")
    assert flag == Flag("it", type, enabled, shows, denomination, "plan")  # type: ignore[arg-type]
    assert shown(flag) == {"type": type, "enabled": enabled, "value": shows, "denomination": denomination}


def test_a_flag_that_is_not_there_shows_nothing() -> None:
    assert shown(None) is None


@pytest.mark.parametrize(
    ("value", "asked", "is_allowed"),
    [
        (True, None, True),
        (True, 10**9, True),
        (False, None, False),
        (False, 0, False),
        (8, None, True),
        (8, 0, True),
        (8, 8, True),
        (8, 9, False),
        (0, None, False),
        (0, 0, True),
        (0, 1, False),
        ("eu", None, True),
        ("eu", 3, True),
        (METERED, None, True),
        (METERED, 5, True),
        ({"metered": "minutes"}, None, False),
        ({"metered": "minutes"}, 0, False),
    ],
)
def test_a_limit_allows_up_to_its_value_and_others_while_they_are_on(
    value: FlagValue,
    asked: int | None,
    is_allowed: bool,  # noqa: FBT001 - a row of the table
) -> None:
    assert flag_as("it", value, AMOUNTS, "plan").allows(asked) is is_allowed


def test_what_is_set_by_hand_goes_before_the_plan_and_the_system_before_both() -> None:
    plan: dict[str, FlagValue] = {"exports": True, "storage_gb": 5, "sms": METERED, "credit_blocked": True}
    own: dict[str, FlagValue] = {"storage_gb": 8, "beta": False, "sms": True, "account_paused": True}
    found = flags_of(plan, own, AMOUNTS, {"account_paused": False, "credit_blocked": False, "over_credit_limit": True})
    assert list(found) == sorted({*plan, *own, "over_credit_limit"})
    assert [(name, flag.source, flag.enabled, flag.value, flag.overrides) for name, flag in found.items()] == [
        ("account_paused", "system", False, None, None),
        ("beta", "operator", False, None, None),
        ("credit_blocked", "system", False, None, None),
        ("exports", "plan", True, None, None),
        ("over_credit_limit", "system", True, None, None),
        ("sms", "operator", True, None, METERED),
        ("storage_gb", "operator", True, 8, 5),
    ]
    assert {flag.type for name, flag in found.items() if flag.source == "system"} == {"binary"}
    assert set(SYSTEM_FLAGS) == {"account_paused", "credit_blocked", "usage_suspended"}


def test_an_account_without_anything_has_no_flags() -> None:
    assert flags_of({}, {}, {}, {}) == {}


def test_the_flags_that_follow_a_balance_are_found_by_it() -> None:
    plan: dict[str, FlagValue] = {
        "sms": METERED,
        "calls": {"metered": "minutes"},
        "mms": METERED,
        "fax": METERED,
        "exports": True,
    }
    assert metered_flags(plan, {}) == {"messages": ("fax", "mms", "sms"), "minutes": ("calls",)}
    own: dict[str, FlagValue] = {"fax": {"metered": "minutes"}, "mms": 3, "chat": METERED}
    assert metered_flags(plan, own) == {"messages": ("chat", "sms"), "minutes": ("calls", "fax")}
    assert metered_flags({}, {}) == {}


def test_a_plan_may_promise_a_flag_that_follows_a_balance() -> None:
    flags = {"sms": METERED, "exports": True, "storage_gb": 5, "region": "eu"}
    assert plan_terms({**NO_PLAN, "flags": flags}).flags == flags


@pytest.mark.parametrize("value", [{}, {"metered": 3}, {"metered": None}, {"metered": "a", "b": "c"}, {"of": "a"}, 1.5])
def test_a_plan_promises_no_flag_of_another_shape(value: Any) -> None:
    with pytest.raises(Refusal) as refused:
        plan_terms({**NO_PLAN, "flags": {"sms": value}})
    assert (refused.value.code, refused.value.details["path"]) == ("invalid_field", "flags.sms")


# --- the flags of rules -----------------------------------------------------------------------------------------------


def balances(amounts: Mapping[str, int], limits: Mapping[str, int]) -> dict[str, Balance]:
    return {
        name: open_balance(name, credit_limit=limits.get(name))._replace(amount=amount)
        for name, amount in amounts.items()
    }


SLOW: Final = Rule(Level("credit", 100), "flag", "slow")
SLOW_TOKENS: Final = Rule(Level("credit", 100), "flag", "slow", "tokens")
LATER: Final = Rule(Level("credit", 300), "flag", "slow")


@pytest.mark.parametrize(
    ("rules", "amounts", "limits", "account", "default", "up"),
    [
        ((), {"USD": -9}, {}, 1, 1, {}),
        ((Rule(Level("credit", 1)), Rule(Level("credit", 1), "block")), {"USD": -9}, {}, 1, 1, {}),
        (USUAL_RULES, {}, {}, 100, 0, {"over_credit_limit": False}),
        (USUAL_RULES, {"USD": -149}, {}, 100, 0, {"over_credit_limit": False}),
        (USUAL_RULES, {"USD": -150}, {}, 100, 0, {"over_credit_limit": True}),
        (USUAL_RULES, {"USD": 150}, {}, 100, 0, {"over_credit_limit": False}),
        (USUAL_RULES, {"USD": -150}, {}, None, 100, {"over_credit_limit": True}),
        (USUAL_RULES, {"USD": -150}, {}, 200, 100, {"over_credit_limit": False}),
        (USUAL_RULES, {"USD": -150}, {"USD": 0}, 100, 100, {"over_credit_limit": False}),
        (USUAL_RULES, {"tokens": -150}, {}, 100, 100, {"over_credit_limit": False}),
        (USUAL_RULES, {"tokens": -150, "USD": 3}, {"tokens": 100}, None, 0, {"over_credit_limit": True}),
        ((SLOW_TOKENS,), {"USD": -500}, {}, 100, 0, {"slow": False}),
        ((SLOW_TOKENS,), {"tokens": -500}, {"tokens": 100}, 100, 0, {"slow": True}),
        ((SLOW, LATER), {"USD": -100}, {}, 100, 0, {"slow": True}),
        ((LATER, SLOW), {"USD": -100}, {}, 100, 0, {"slow": True}),
        ((LATER, SLOW_TOKENS), {"USD": -100}, {}, 100, 0, {"slow": False}),
    ],
)
def test_a_rule_keeps_its_flag_up_while_a_balance_is_at_its_level(
    rules: tuple[Rule, ...],
    amounts: Mapping[str, int],
    limits: Mapping[str, int],
    account: int | None,
    default: int,
    up: Mapping[str, bool],
) -> None:
    assert flags_of_rules(rules, balances(amounts, limits), account, default) == up
