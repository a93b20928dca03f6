"""What holds of signals whatever moves: each level is told as often as it was passed, each movement exactly once.

The second opinion looks at nothing but the balances after each save and what was last filled, in fractions. And usage
that is kept aside and billed later leaves what it would have left at once. Always the same examples; ``-m slow`` tries
new ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from fractions import Fraction
from typing import Final, NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tenuto.core.event import UsageEvent
from tenuto.core.topic import DEAF, Heard, Level, LevelKind, Rule, Told, watch_of
from tests.core.account_life import Life, event
from tests.properties.test_usage_properties import any_terms, counted, price_lists, requests, sums

seeded = settings(derandomize=True, deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
campaign = settings(deadline=None, max_examples=20_000, suppress_health_check=list(HealthCheck))
LIMITS: Final = {"USD": 50, "tokens": 20, "credits": 0}
PASSING: Final = {"payment", "plan"}
BOOKS: Final = ("refill", "deposit", "expiry", "adjustment", *sorted(PASSING))

# --- what may come ----------------------------------------------------------------------------------------------------

names = st.sampled_from(list(LIMITS))


def tens(least: int, most: int) -> st.SearchStrategy[int]:
    """Numbers so round that they often come to a level exactly, and now and then one beside."""
    return st.builds(lambda ten, one: ten * 10 + one, st.integers(least, most), st.sampled_from([0] * 8 + [-1, 1]))


class Use(NamedTuple):
    """One request: what its events cost."""

    costs: tuple[tuple[int, str], ...]


class Move(NamedTuple):
    """One save of movements that are no usage."""

    moves: tuple[tuple[str, int, str], ...]


class Undo(NamedTuple):
    """The event at a place is taken back."""

    place: int


uses = st.builds(Use, st.lists(st.tuples(tens(0, 6).map(abs), names), min_size=1, max_size=3).map(tuple))
amounts = tens(-6, 9).filter(bool)
moves = st.builds(Move, st.lists(st.tuples(names, amounts, st.sampled_from(BOOKS)), min_size=1, max_size=3).map(tuple))
Step = Use | Move | Undo
runs = st.lists(st.one_of(uses, uses, moves, moves, st.builds(Undo, st.integers(0, 9))), min_size=1, max_size=14)


@st.composite
def some_levels(draw: st.DrawFn) -> Level:
    kinds: tuple[LevelKind, ...] = ("consumed", "remaining", "below", "credit")
    kind = draw(st.sampled_from(kinds))
    return Level(kind, 10 * draw(st.integers(1, {"below": 6, "credit": 30}.get(kind, 10))))


rules = st.lists(st.builds(Rule, some_levels(), denomination=st.none() | names), max_size=5)


class Seen(NamedTuple):
    """One balance over one save, as it was kept, and by which books it moved."""

    denomination: str
    before: int
    after: int
    filled: int
    books: frozenset[str]


def live_through(life: Life, run: Sequence[Step]) -> list[Seen]:
    """Live a run; each balance that a save moved, with what it was last filled to by a count of our own."""
    seen: list[Seen] = []
    filled: Counter[str] = Counter()
    for step in run:
        was, rows = {name: balance.amount for name, balance in life.stored.balances.items()}, len(life.transactions)
        told = _taken(life, step)
        made = life.transactions[rows:]
        for row in made:
            if row.amount > 0 and row.book not in {"usage", "overage", *PASSING}:
                filled[row.denomination] = max(0, row.ending_balance)
        for name in dict.fromkeys(row.denomination for row in made):
            books = frozenset(row.book for row in made if row.denomination == name)
            seen.append(Seen(name, was.get(name, 0), life.stored.balances[name].amount, filled[name], books))
        assert made or not told.notifications
    return seen


def _taken(life: Life, step: Step) -> Told:
    match step:
        case Use(costs):
            return life.push(*(event("USE", override=cost) for cost in costs)).told
        case Move(moved):
            return life.move(*moved)
        case Undo(place):
            done = sorted(made.id for made in life.events.values() if made.state == "complete")
            return life.void(done[place % len(done)]).told if done else Told()


def alive(told_of: Sequence[Rule]) -> Life:
    life = Life(account_limit=LIMITS["USD"], rules=tuple(told_of))
    life.watch = watch_of([Heard(1, "*", None, None, None)])
    life.open("tokens", 0, limit=LIMITS["tokens"])
    return life


# --- levels -----------------------------------------------------------------------------------------------------------


def crossings(level: Level, denomination: str, seen: Sequence[Seen]) -> int:
    """How often a balance came to a level from outside of it."""
    return sum(
        _is_at(level, one, one.after) and not _is_at(level, one, one.before)
        for one in seen
        if one.denomination == denomination
        # Money that only passes through consumes nothing; a plan that is paid with tokens does.
        and (level.kind == "credit" or denomination != "USD" or not one.books <= PASSING)
    )


def _is_at(level: Level, seen: Seen, amount: int) -> bool:
    if level.kind == "below":
        return amount < level.value
    whole = LIMITS[seen.denomination] if level.kind == "credit" else seen.filled
    if not whole:
        return False
    share = Fraction(amount, whole) * 100
    return {
        "consumed": 100 - share >= level.value,
        "remaining": share < level.value,
        "credit": -share >= level.value,
    }[level.kind]


def check_levels(told_of: Sequence[Rule], run: Sequence[Step]) -> None:
    life = alive(told_of)
    seen = live_through(life, run)
    told = Counter((one.topic, one.denomination, one.level) for one in life.notifications if one.level)
    expected: Counter[tuple[str, str | None, str | None]] = Counter()
    for denomination in LIMITS:
        for level in {rule.level for rule in told_of if rule.denomination in {None, denomination}}:
            for topic in ("threshold", "credit_limit") if level.kind == "credit" else ("threshold",):
                expected[topic, denomination, level.spelled] = crossings(level, denomination, seen)
    assert told == +expected


@seeded
@given(rules, runs)
@example(
    [Rule(Level("consumed", 90)), Rule(Level("credit", 150))],
    [Move((("USD", 90, "deposit"),)), *[Use(((60, "USD"),))] * 3, Undo(1), Use(((60, "USD"),))],
)
@example([Rule(Level("credit", 100))], [Use(((50, "USD"),)), Move((("USD", 50, "deposit"),))])
@example([Rule(Level("remaining", 50))], [Move((("USD", 80, "deposit"),)), Use(((40, "USD"),))])
def test_a_level_is_told_as_often_as_it_was_passed(told_of: list[Rule], run: list[Step]) -> None:
    check_levels(told_of, run)


@pytest.mark.slow
@campaign
@given(rules, runs)
def test_a_level_is_told_as_often_as_it_was_passed_campaign(told_of: list[Rule], run: list[Step]) -> None:
    check_levels(told_of, run)


# --- flags and blocks -------------------------------------------------------------------------------------------------


def check_acts(flag_at: int, block_at: int, run: Sequence[Step]) -> None:
    life = alive([Rule(Level("credit", flag_at), "flag", "slow"), Rule(Level("credit", block_at), "block")])
    is_up = is_blocked = False
    for step in run:
        was = {name: balance.amount for name, balance in life.stored.balances.items()}
        count = len(life.told)
        live_through(life, [step])
        owed = {name: -balance.amount for name, balance in life.stored.balances.items()}
        at = {
            name: Fraction(amount, LIMITS[name]) * 100 if LIMITS[name] else Fraction(0) for name, amount in owed.items()
        }
        before = {name: Fraction(-was.get(name, 0), LIMITS[name]) * 100 if LIMITS[name] else 0 for name in owed}
        raised = [one for told in life.told[count:] for one in told.flags if one.name == "slow"]
        should = any(share >= flag_at for share in at.values())
        assert [bool((one.after or {})["enabled"]) for one in raised] == ([should] if should != is_up else [])
        is_up = should
        if not life.told[count:] or not life.told[-1].notifications:
            continue
        if is_blocked:
            is_blocked = any(share > 100 or share >= block_at for share in at.values())
        else:
            is_blocked = any(share >= block_at > before[name] for name, share in at.items())
        assert (life.stored.bar == "credit_blocked") is is_blocked
        assert (life.stored.blocked_by == "level") is is_blocked


@seeded
@given(st.integers(1, 300), st.integers(1, 300), runs)
def test_a_flag_stands_while_its_level_does_and_a_block_until_less_is_owed(
    flag_at: int, block_at: int, run: list[Step]
) -> None:
    check_acts(flag_at, block_at, run)


@pytest.mark.slow
@campaign
@given(st.integers(1, 300), st.integers(1, 300), runs)
def test_a_flag_stands_while_its_level_does_and_a_block_until_less_is_owed_campaign(
    flag_at: int, block_at: int, run: list[Step]
) -> None:
    check_acts(flag_at, block_at, run)


# --- every movement ---------------------------------------------------------------------------------------------------


def check_changes(life: Life, pushes: Sequence[Sequence[UsageEvent]], run: Sequence[Step]) -> None:
    life.watch = watch_of([Heard(1, "balance_change", None, None, None), Heard(1, "negative_balance", 7, None, None)])
    for pushed in pushes:
        life.push(*pushed)
    live_through(life, run)
    changes = [one for one in life.notifications if one.topic == "balance_change"]
    assert [
        (one.denomination, one.sequence, one.data["previous_amount"], one.data["change"], one.data["amount"])
        for one in changes
    ] == [
        (row.denomination, row.seq, row.starting_balance, row.amount, row.ending_balance) for row in life.transactions
    ]
    for denomination in life.stored.balances:
        numbers = [one.sequence for one in changes if one.denomination == denomination]
        assert numbers == list(range(1, len(numbers) + 1))
    below = [(one.denomination, one.sequence) for one in life.notifications if one.topic == "negative_balance"]
    assert below == [
        (row.denomination, row.seq)
        for row in life.transactions
        if row.book in {"usage", "overage"} and row.amount < 0 and row.ending_balance < 0
    ]


EVENTS: Final = requests(states=("complete", "complete", "pending", "cancelled"))


@seeded
@given(price_lists(any_terms()), st.lists(EVENTS, max_size=6), runs)
def test_every_transaction_is_told_once_with_its_number(
    life: Life, pushes: list[list[UsageEvent]], run: list[Step]
) -> None:
    life.subscribe({"credits": {"overage_charge_amount": "0.7", "overage_charge_denomination": "USD"}})
    check_changes(life, pushes, run)


@settings(seeded, max_examples=40)
@given(price_lists(any_terms()), st.lists(EVENTS, max_size=6), runs)
def test_what_nobody_hears_is_not_said(life: Life, pushes: list[list[UsageEvent]], run: list[Step]) -> None:
    life.watch = DEAF
    for pushed in pushes:
        life.push(*pushed)
    live_through(life, run)
    assert life.notifications == []


# --- kept aside -------------------------------------------------------------------------------------------------------


def copy_of(life: Life) -> Life:
    return Life(prices=life.prices, versions=life.versions, opening=dict(life.opening), stored=life.stored)


def check_replay(
    life: Life, pushes: Sequence[Sequence[UsageEvent]], waits: Sequence[int], cuts: Sequence[int], overage: str | None
) -> None:
    at_once, later = copy_of(life), copy_of(life)
    later.is_suspended = True
    for one in (at_once, later):
        if overage is not None:
            one.subscribe({"credits": {"overage_charge_amount": overage, "overage_charge_denomination": "USD"}})
        for seconds, pushed in zip(waits, pushes, strict=True):
            one.wait(timedelta(seconds=seconds))
            one.push(*pushed)
    assert {name: balance.amount for name, balance in later.stored.balances.items()} == {
        name: balance.amount for name, balance in life.stored.balances.items()
    }, "what is kept aside touches nothing"
    assert counted(later) == {}
    waiting = sorted(made.id for made in later.events.values() if made.state == "suspended")
    ends = sorted({min(cut, len(waiting)) for cut in cuts} - {0})
    for start, end in zip([0, *ends], [*ends, len(waiting)], strict=True):
        if waiting[start:end]:
            later.replay(*waiting[start:end])
    assert sums(later) == sums(at_once)
    assert counted(later) == counted(at_once)
    for name, balance in at_once.state.balances.items():
        found = later.state.balances[name]
        assert (found.amount, found.pending, found.residue) == (balance.amount, balance.pending, balance.residue)
    assert [_billed(later, event_id) for event_id in sorted(later.events)] == [
        _billed(at_once, event_id) for event_id in sorted(at_once.events)
    ]


def _billed(life: Life, event_id: int) -> object:
    made = life.events[event_id]
    charges = [
        (charge.denomination, charge.amount, charge.cost, charge.overage, charge.prior) for charge in made.charges
    ]
    return made.type, made.state, made.quantity, made.occurred_at, charges


waits = st.lists(st.integers(0, 300), min_size=8, max_size=8)


@seeded
@given(
    price_lists(any_terms()),
    st.lists(EVENTS, max_size=8),
    waits,
    st.lists(st.integers(0, 30), max_size=3),
    st.none() | st.sampled_from(["0", "0.7", "3"]),
)
def test_usage_that_is_billed_later_leaves_what_it_would_have_left_at_once(
    life: Life, pushes: list[list[UsageEvent]], waited: list[int], cuts: list[int], overage: str | None
) -> None:
    check_replay(life, pushes, waited[: len(pushes)], cuts, overage)


@pytest.mark.slow
@campaign
@given(
    price_lists(any_terms()),
    st.lists(EVENTS, max_size=8),
    waits,
    st.lists(st.integers(0, 30), max_size=3),
    st.none() | st.sampled_from(["0", "0.7", "3"]),
)
def test_usage_that_is_billed_later_leaves_what_it_would_have_left_at_once_campaign(
    life: Life, pushes: list[list[UsageEvent]], waited: list[int], cuts: list[int], overage: str | None
) -> None:
    check_replay(life, pushes, waited[: len(pushes)], cuts, overage)
