"""Grants: which units are used first, and what is left of which."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from tenuto.core.grant import (
    CREDIT_PRIORITY,
    MANUAL_PRIORITY,
    PLAN_PRIORITY,
    Grant,
    Purse,
    as_before,
    burned_down,
    closed,
    empty,
    left_of,
    opened,
    taken_from,
)

NOW: Final = datetime(2030, 3, 1, 12, tzinfo=UTC)
LATER: Final = NOW + timedelta(days=14)
PLAN: Final = Grant(
    account_id=7,
    id=1,
    environment_id=1,
    denomination="tokens",
    source="plan",
    units=1000,
    left=1000,
    priority=PLAN_PRIORITY,
    price=1000,
    price_denomination="USD",
    plan_id=1,
    period_id=5,
    until_at=LATER,
    expires_at=None,
    reason="begins",
    created_at=NOW,
)
GOODWILL: Final = PLAN._replace(
    id=2,
    source="manual",
    units=200,
    left=200,
    priority=MANUAL_PRIORITY,
    plan_id=None,
    period_id=None,
    until_at=None,
    expires_at=LATER,
)
CREDIT: Final = GOODWILL._replace(id=3, source="credit", units=80, left=80, priority=CREDIT_PRIORITY, expires_at=None)


def purse(*grants: Grant, rest: int = 0, used: int = 0, burned: int = 0) -> Purse:
    """Grants that arrived with ``rest`` units besides, of which ``used`` are gone."""
    arrived = sum(grant.units for grant in grants) + rest
    return Purse("tokens", arrived - used, arrived, burned, tuple(grants))


def lefts(found: Purse) -> list[int]:
    return [grant.left for grant in found.grants]


# The example of the module: 1,000 of the plan, 200 of goodwill, 50 that were bought.
BURNED: Final[dict[str, tuple[int, list[int]]]] = {
    "nothing used": (0, [1000, 200]),
    "of the plan first": (300, [700, 200]),
    "all of the plan": (1000, [0, 200]),
    "then goodwill": (1100, [0, 100]),
    "then the rest": (1230, [0, 0]),
    "all there is": (1250, [0, 0]),
    "more than there is": (1300, [0, 0]),
}


@pytest.mark.parametrize(("used", "left"), BURNED.values(), ids=BURNED.keys())
def test_what_is_used_is_burned_in_order(used: int, left: list[int]) -> None:
    after = burned_down(purse(PLAN, GOODWILL, rest=50, used=used))
    assert lefts(after) == left
    assert (after.burned, after.amount, after.spent) == (used, 1250 - used, used)
    assert burned_down(after) == after


def test_what_was_burned_already_is_not_burned_again() -> None:
    once = burned_down(purse(PLAN, used=300))
    assert lefts(burned_down(once._replace(amount=once.amount - 50))) == [650]


def test_units_that_were_taken_away_otherwise_are_burned_too() -> None:
    # An adjustment took 900 of 1,000: usage took none, and yet no more than 100 can be left.
    assert lefts(burned_down(Purse("tokens", 100, 100, 0, (PLAN,)))) == [100]
    assert lefts(burned_down(Purse("tokens", -40, -40, 0, (PLAN,)))) == [0]


def test_what_comes_back_fills_no_grant_again() -> None:
    used = burned_down(purse(PLAN, used=300))
    back = burned_down(used._replace(amount=used.amount + 100))
    assert lefts(back) == [700]


ORDERED: Final[dict[str, list[dict[str, Any]]]] = {
    "by priority": [{"id": 9, "priority": 10}, {"id": 2, "priority": 50}, {"id": 1, "priority": 200}],
    "what ends sooner before what ends later": [
        {"id": 3, "expires_at": NOW},
        {"id": 2, "expires_at": LATER},
        {"id": 1, "expires_at": None},
    ],
    "what came first of two alike": [{"id": 1}, {"id": 2}, {"id": 3}],
}


@pytest.mark.parametrize("grants", ORDERED.values(), ids=ORDERED.keys())
def test_the_order_in_which_grants_are_used(grants: list[dict[str, Any]]) -> None:
    made = [PLAN._replace(units=10, left=10, **fields) for fields in grants]
    found = empty("tokens")
    for grant in reversed(made):
        found = opened(found, [grant])
    assert [grant.id for grant in found.grants] == [grant.id for grant in made]
    assert lefts(burned_down(found._replace(amount=found.amount - 15))) == [0, 5, 10]


def test_a_purse_begins_with_nothing() -> None:
    assert empty("tokens") == Purse("tokens", 0, 0, 0)
    assert left_of(empty("tokens").grants) == 0


def test_what_arrives_pays_what_is_owed_first() -> None:
    after = opened(Purse("tokens", -40, 0, 40), [PLAN])
    assert (lefts(after), after.amount, after.arrived, after.spent) == ([960], 960, 1000, 40)


def test_a_grant_that_ends_takes_its_rest_along() -> None:
    before = burned_down(purse(PLAN, GOODWILL, used=300))
    after, gone = closed(before, [PLAN.id], now=LATER, cancelled=700)
    assert gone == (PLAN._replace(left=700, closed_at=LATER),)
    assert (after.amount, after.arrived, after.spent, after.grants) == (200, 500, 300, (GOODWILL,))
    kept, _ = closed(before, [PLAN.id], now=LATER)
    assert kept.amount == 900


def test_an_end_of_nothing_changes_nothing() -> None:
    before = burned_down(purse(PLAN, used=300))
    assert closed(before, [], now=LATER) == (before, ())


def test_credit_is_taken_of_credit_only() -> None:
    before = purse(GOODWILL, CREDIT, CREDIT._replace(id=4))
    assert lefts(taken_from(before, 100, source="credit")) == [200, 0, 60]
    assert taken_from(before, 0, source="credit") == before


def test_a_purse_as_it_was_before() -> None:
    now = purse(PLAN, GOODWILL, used=300)
    before = as_before(now, used=100, arrived=200)
    assert (before.amount, before.arrived, before.spent) == (800, 1000, 200)


def test_the_grants_of_a_period_are_those_the_plan_made_for_it() -> None:
    found = purse(PLAN, PLAN._replace(id=8, period_id=6), GOODWILL._replace(period_id=5))
    assert found.of_period(5) == (PLAN,)


def test_what_was_burned_later_already_is_not_burned_a_second_time() -> None:
    # 300 were used by now, and burned; somebody looks at the purse as it was when 100 were, and grants come then.
    now = burned_down(purse(PLAN, used=300))
    after = opened(as_before(now, used=200, arrived=0), [GOODWILL])
    assert lefts(after) == [700, 200]
    as_of_now = after._replace(amount=after.amount - 200)
    assert lefts(burned_down(as_of_now)) == [700, 200]
    assert lefts(burned_down(as_of_now._replace(amount=as_of_now.amount - 30))) == [670, 200]
