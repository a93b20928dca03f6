"""Topics, levels and rules: what can be heard, when a level is reached, and for whom a notification is."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tenuto.core.money import AMOUNT_MAX
from tenuto.core.outcomes import Refusal
from tenuto.core.topic import (
    DEAF,
    OF_BALANCES,
    OVER_LIMIT_FLAG,
    RULES_MAX,
    TOPICS,
    USUAL_RULES,
    WITH_LEVELS,
    Action,
    Heard,
    Level,
    LevelKind,
    Rule,
    Watch,
    checked_level,
    checked_rules,
    checked_topic,
    level_fields,
    level_of,
    rules_of,
    rules_to_settings,
    wants,
    watch_of,
)

OF_CONTRACT: Final = {"negative_balance", "balance_change", "auto_refill", "threshold", "pause_balance", "credit_limit"}


def heard(
    topic: str, account_id: int | None = None, denomination: str | None = None, level: str | None = None
) -> Heard:
    return Heard(1, topic, account_id, denomination, level)


# --- topics -----------------------------------------------------------------------------------------------------------


def test_the_topics_of_the_contract_and_those_with_a_dot_say_what_they_carry() -> None:
    assert {name for name in TOPICS if "." not in name} == OF_CONTRACT
    for topic in TOPICS.values():
        assert topic.what.endswith(".")
        assert len(set(topic.fields)) == len(topic.fields) > 0
    assert set(TOPICS) > OF_BALANCES > set(WITH_LEVELS)


@pytest.mark.parametrize("name", ["*", *TOPICS])
def test_a_topic_that_there_is_can_be_subscribed_to(name: str) -> None:
    assert checked_topic(name) == name


@pytest.mark.parametrize("name", ["", "**", "Threshold", "payment", "x" * 10_000])
def test_a_topic_that_is_none_is_not_found(name: str) -> None:
    with pytest.raises(Refusal) as refused:
        checked_topic(name)
    assert refused.value.code == "not_found"
    assert len(refused.value.message) < 200


# --- levels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spelled", "amount", "filled", "limit", "is_reached"),
    [
        ("consumed:90", 101, 1000, 0, False),
        ("consumed:90", 100, 1000, 0, True),
        ("consumed:90", -5, 1000, 0, True),
        ("consumed:90", -5, 0, 500, False),
        ("consumed:100", 1, 1000, 0, False),
        ("consumed:100", 0, 1000, 0, True),
        ("consumed:33", 3, 4, 0, False),
        ("consumed:33", 2, 3, 0, True),
        ("remaining:10", 100, 1000, 0, False),
        ("remaining:10", 99, 1000, 0, True),
        ("remaining:10", -99, 0, 500, False),
        ("remaining:100", 1000, 1000, 0, False),
        ("remaining:100", 999, 1000, 0, True),
        ("below:50", 50, 0, 0, False),
        ("below:50", 49, 0, 0, True),
        ("below:1", 0, 0, 0, True),
        ("credit:150", -749, 1000, 500, False),
        ("credit:150", -750, 1000, 500, True),
        ("credit:1", -4, 0, 500, False),
        ("credit:1", -5, 0, 500, True),
        ("credit:1", 5, 0, 500, False),
        ("credit:150", -750, 1000, 0, False),
        ("credit:10000", -AMOUNT_MAX * 100, 0, AMOUNT_MAX, True),
    ],
)
def test_a_level_is_reached_at_its_percentage_and_left_things_strictly_below(
    spelled: str,
    amount: int,
    filled: int,
    limit: int,
    is_reached: bool,  # noqa: FBT001 - a row of the table
) -> None:
    assert level_of(spelled).is_reached(amount, filled=filled, limit=limit) is is_reached


@pytest.mark.parametrize("spelled", ["consumed:90", "remaining:10", "below:500", "credit:150"])
def test_a_level_is_spelled_as_it_is_read(spelled: str) -> None:
    level = level_of(spelled)
    assert level.spelled == spelled
    assert level.is_of_credit is spelled.startswith("credit")
    assert Rule(level).is_of_credit is level.is_of_credit


@pytest.mark.parametrize(
    ("kind", "least", "most"),
    [("consumed", 1, 100), ("remaining", 1, 100), ("below", 1, AMOUNT_MAX), ("credit", 1, 10_000)],
)
def test_a_level_has_bounds(kind: LevelKind, least: int, most: int) -> None:
    for value in (least, most):
        assert checked_level(kind, value, "level") == Level(kind, value)
    for value in (least - 1, most + 1, -1):
        with pytest.raises(Refusal) as refused:
            checked_level(kind, value, "levels[3].level")
        assert (refused.value.code, refused.value.details) == ("out_of_range", {"path": "levels[3].level"})
        assert str(most) in refused.value.message


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("consumed:90", "threshold_percentage"),
        ("remaining:90", "remaining_percentage"),
        ("below:90", "level"),
        ("credit:90", "credit_limit_percentage"),
    ],
)
def test_a_level_is_shown_under_the_name_of_its_kind(spelled: str, name: str) -> None:
    nothing = {
        "threshold_percentage": None,
        "remaining_percentage": None,
        "level": None,
        "credit_limit_percentage": None,
    }
    assert level_fields(level_of(spelled)) == {**nothing, name: 90}
    assert level_fields(None) == nothing


# --- rules ------------------------------------------------------------------------------------------------------------


def test_shipped_are_90_150_and_200() -> None:
    assert [(rule.level.spelled, rule.action, rule.flag, rule.denomination) for rule in USUAL_RULES] == [
        ("consumed:90", "notify", None, None),
        ("credit:150", "flag", OVER_LIMIT_FLAG, None),
        ("credit:200", "block", None, None),
    ]
    assert checked_rules(USUAL_RULES) == USUAL_RULES


def test_the_usual_rules_hold_until_a_company_says_otherwise() -> None:
    assert rules_of({}) == rules_of({"levels": None}) == USUAL_RULES
    assert rules_of({"levels": []}) == (), "an empty list switches all of them off"


def test_rules_are_read_as_they_are_kept() -> None:
    rules = (
        Rule(Level("remaining", 5), denomination="tokens"),
        Rule(Level("credit", 120), "flag", "slow", "USD"),
        Rule(Level("credit", 300), "block"),
    )
    kept = rules_to_settings(rules)
    assert kept[1] == {"level": "credit:120", "action": "flag", "flag": "slow", "denomination": "USD"}
    assert rules_of({"levels": kept}) == rules


CONSUMED: Final = Level("consumed", 90)
CREDIT: Final = Level("credit", 90)


@pytest.mark.parametrize(
    "rules",
    [
        [],
        [Rule(Level("below", n)) for n in range(1, RULES_MAX + 1)],
        [Rule(CONSUMED), Rule(CONSUMED, denomination="tokens"), Rule(CONSUMED, denomination="credits")],
        [Rule(CREDIT), Rule(CREDIT, "block"), Rule(CREDIT, "flag", "slow")],
    ],
)
def test_rules_that_may_stand_together(rules: list[Rule]) -> None:
    assert checked_rules(rules) == tuple(rules)


@pytest.mark.parametrize(
    ("rules", "code", "path"),
    [
        ([Rule(Level("below", n)) for n in range(1, RULES_MAX + 2)], "out_of_range", "levels"),
        ([Rule(CONSUMED), Rule(CREDIT), Rule(CONSUMED)], "invalid_field", "levels[2]"),
        ([Rule(CREDIT, "block", None, "USD"), Rule(CREDIT, "block", None, "USD")], "invalid_field", "levels[1]"),
        ([Rule(CONSUMED, "block")], "invalid_field", "levels[0].action"),
        ([Rule(CREDIT, "flag", "credit_blocked")], "invalid_field", "levels[0].flag"),
        ([Rule(CREDIT), Rule(Level("below", 3), "flag", "slow")], "invalid_field", "levels[1].action"),
        ([Rule(CREDIT, "flag")], "invalid_field", "levels[0].flag"),
        ([Rule(CREDIT, "block", "slow")], "invalid_field", "levels[0].flag"),
        ([Rule(CONSUMED, "notify", "slow")], "invalid_field", "levels[0].flag"),
    ],
)
def test_rules_that_may_not(rules: list[Rule], code: str, path: str) -> None:
    with pytest.raises(Refusal) as refused:
        checked_rules(rules)
    assert (refused.value.code, refused.value.details["path"]) == (code, path)


def test_each_action_has_its_own_shape() -> None:
    actions: list[tuple[Action, str | None]] = [("notify", None), ("flag", "slow"), ("block", None)]
    for action, flag in actions:
        assert checked_rules([Rule(CREDIT, action, flag)])[0].action == action


# --- who listens ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subscriptions", "topic", "denomination", "is_heard"),
    [
        ([], "threshold", None, False),
        ([heard("threshold")], "threshold", None, True),
        ([heard("threshold")], "threshold", "tokens", True),
        ([heard("threshold")], "balance_change", "tokens", False),
        ([heard("*")], "balance_change", "tokens", True),
        ([heard("*")], "account.paused", None, True),
        ([heard("threshold", None, "tokens")], "threshold", "tokens", True),
        ([heard("threshold", None, "tokens")], "threshold", "credits", False),
        ([heard("threshold", None, "tokens")], "threshold", None, False),
        ([heard("threshold", None, "tokens"), heard("threshold", None, "USD")], "threshold", "USD", True),
        ([heard("threshold", None, "tokens"), heard("threshold")], "threshold", "USD", True),
        ([heard("threshold"), heard("threshold", None, "tokens")], "threshold", "USD", True),
        ([heard("threshold", None, "tokens"), heard("*", None, "USD")], "threshold", "USD", True),
        ([heard("threshold", None, "tokens"), heard("*", None, "USD")], "threshold", "credits", False),
    ],
)
def test_what_several_subscriptions_hear_together(
    subscriptions: list[Heard],
    topic: str,
    denomination: str | None,
    is_heard: bool,  # noqa: FBT001 - a row of the table
) -> None:
    assert watch_of(subscriptions).hears(topic, denomination) is is_heard


def test_the_levels_of_subscriptions_are_heard_once_each() -> None:
    found = watch_of(
        [
            heard("threshold", level="below:5"),
            heard("threshold", 7, None, "below:5"),
            heard("credit_limit", None, "USD", "credit:80"),
            heard("threshold"),
        ]
    )
    assert found.levels == (("threshold", None, Level("below", 5)), ("credit_limit", "USD", Level("credit", 80)))
    assert found.topics == {"threshold": None}
    assert Watch() == DEAF == watch_of([])


TOLD: Final[dict[str, Any]] = {
    "topic": "threshold",
    "account_id": 7,
    "denomination": "tokens",
    "level": "consumed:90",
    "by_rule": True,
}


@pytest.mark.parametrize(
    ("subscription", "told", "is_for_it"),
    [
        (heard("threshold"), {}, True),
        (heard("*"), {}, True),
        (heard("balance_change"), {}, False),
        (heard("threshold", 7), {}, True),
        (heard("threshold", 8), {}, False),
        (heard("threshold", 8), {"account_id": None}, False),
        (heard("*"), {"account_id": None, "denomination": None, "level": None, "by_rule": False}, True),
        (heard("threshold", None, "tokens"), {}, True),
        (heard("threshold", None, "credits"), {}, False),
        (heard("threshold", None, "tokens"), {"denomination": None}, False),
        (heard("threshold", level="consumed:90"), {}, True),
        (heard("threshold", level="consumed:90"), {"by_rule": False}, True),
        (heard("threshold", level="consumed:80"), {}, False),
        (heard("threshold"), {"by_rule": False}, False),
        (heard("*"), {"by_rule": False}, False),
        (heard("threshold"), {"level": None, "by_rule": False}, True),
        (heard("threshold", level="consumed:90"), {"level": None}, False),
        (heard("threshold", 7, "tokens", "consumed:90"), {}, True),
    ],
)
def test_for_whom_a_notification_is(
    subscription: Heard,
    told: dict[str, object],
    is_for_it: bool,  # noqa: FBT001 - a row of the table
) -> None:
    assert wants(subscription, **{**TOLD, **told}) is is_for_it
