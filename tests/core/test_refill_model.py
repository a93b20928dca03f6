"""Every way in which a charge can go wrong, tried out: protocol P7 of the bar, driven by our own pure functions.

A world is one payment as it is committed, two workers, and a provider that keeps objects of its own. From the first
world all others are found, move by move: a worker commits a step, sends its call, the call arrives, the answer is
recorded; time passes, leases run out. Each fault has a budget: workers crash anywhere (their call may still be under
way), a request or an answer is lost, keys are forgotten, a living worker is overtaken, a card says no, the bank takes
its time, a message comes twice, somebody retries or voids by hand. What must hold:

    in every world          the card was charged at most once, and nothing was credited that was not charged
    where nothing moves     credited if and only if charged
    from every world        without further faults, it comes to such an end

Rules with a deliberate mistake prove that the model would tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final, Literal, NamedTuple

import pytest

from tenuto.core.outcomes import Refusal
from tenuto.core.payment import (
    Action,
    Answered,
    Payment,
    answered,
    began,
    in_doubt,
    next_step,
    retried,
    told_of_success,
    voided,
)

NOW: Final = datetime(2030, 1, 15, 12, tzinfo=UTC)
LATER: Final = NOW + timedelta(seconds=1)
SOFT, HARD = "insufficient_funds", "stolen_card"

Fault = Literal[
    "crash", "lost_request", "lost_answer", "forgotten", "overtaken", "soft", "hard", "slow", "twice", "hand"
]


class Turn(NamedTuple):
    """A step in a worker's hands. ``lease``: freed, it may still send, but others may take the payment as well."""

    action: Action
    intent_id: str | None
    attempt: int
    phase: Literal["ready", "sent", "told"] = "ready"
    answer: Answered | None = None
    is_current: bool = True
    lease: Literal["held", "freed", "over"] = "held"


class Intent(NamedTuple):
    """The provider's object: it succeeds once, whatever is asked of it."""

    status: str = "requires_confirmation"
    declined: str | None = None


Keys = frozenset[tuple[tuple[str, str | None, int], Answered]]


class Provider(NamedTuple):
    """The other side: its objects, the answers it keeps by idempotency key, the messages it still has to deliver."""

    intents: tuple[Intent, ...] = ()
    keys: Keys = frozenset()
    messages: int = 0


class World(NamedTuple):
    payment: Payment
    provider: Provider
    budget: tuple[Fault, ...]
    turns: tuple[Turn, ...] = ()  # at most two: they are alike, so their order says nothing
    strays: tuple[Turn, ...] = ()  # calls under way whose worker is gone
    is_claimed_by_the_dead: bool = False
    credits: int = 0

    @property
    def charges(self) -> int:
        return sum(intent.status == "succeeded" for intent in self.provider.intents)


class Rules(NamedTuple):
    """What decides: our functions, or a mistake in one of them."""

    step: Callable[[Payment], Action] = lambda payment: next_step(payment, now=NOW)
    is_fenced: bool = True
    is_told_of_late_success: bool = True
    is_overtaken_by_message: bool = True
    is_one_call: bool = False  # the intent is made and confirmed by one call, under one key


class Move(NamedTuple):
    world: World
    is_fault: bool = False


NEW: Final = Payment(
    account_id=7,
    id=1,
    environment_id=1,
    method="card",
    reason="threshold_refill",
    status="intended",
    amount=1000,
    currency="USD",
    denomination="credits",
    units=1000,
    description="Refill",
    created_at=NOW,
    due_at=NOW,
    next_attempt_at=NOW,
)


# --- the provider -----------------------------------------------------------------------------------------------------


def say(provider: Provider, number: int) -> Answered:
    intent = provider.intents[number]
    return Answered(str(number), intent.status, NEW.amount, NEW.currency, intent.declined)


def becomes(provider: Provider, number: int, intent: Intent) -> Provider:
    intents = (*provider.intents[:number], intent, *provider.intents[number + 1 :])
    return provider._replace(intents=intents, messages=provider.messages + (intent.status == "succeeded"))


@cache
def asked(provider: Provider, turn: Turn, rules: Rules) -> tuple[tuple[Provider, Answered, Fault | None], ...]:
    """All that a call which arrives may come to, each with the fault it needs."""
    key = (turn.action, turn.intent_id, turn.attempt if turn.action == "confirm" else 0)
    for known, answer in provider.keys:
        if known == key:
            return ((provider, answer, None),)
    if turn.action == "create":
        number = len(provider.intents)
        found = provider._replace(intents=(*provider.intents, Intent()))
        ends = _confirmed(found, number) if rules.is_one_call else ((found, None),)
    else:
        assert turn.intent_id is not None
        number = int(turn.intent_id)
        status = provider.intents[number].status
        if turn.action == "inspect" or status in {"succeeded", "canceled", "processing"}:
            return ((provider, say(provider, number), None),)
        if turn.action == "cancel":
            return ((becomes(provider, number, Intent("canceled")), say_canceled(number), None),)
        ends = _confirmed(provider, number)
    return tuple(
        (after._replace(keys=after.keys | {(key, say(after, number))}), say(after, number), fault)
        for after, fault in ends
    )


def say_canceled(number: int) -> Answered:
    return Answered(str(number), "canceled", NEW.amount, NEW.currency)


def _confirmed(provider: Provider, number: int) -> tuple[tuple[Provider, Fault | None], ...]:
    return (
        (becomes(provider, number, Intent("succeeded")), None),
        (becomes(provider, number, Intent("requires_payment_method", SOFT)), "soft"),
        (becomes(provider, number, Intent("requires_payment_method", HARD)), "hard"),
        (becomes(provider, number, Intent("processing")), "slow"),
    )


# --- our side ---------------------------------------------------------------------------------------------------------


def plain(payment: Payment) -> Payment:
    """Without what no decision here depends on: which moment exactly, which number a worker's turn has."""
    at = payment.next_attempt_at
    return payment._replace(
        next_attempt_at=None if at is None else min(at, LATER), fence=0, code=None, message=None, finished_at=None
    )


@cache
def taken(payment: Payment, rules: Rules) -> tuple[Payment, Turn] | None:
    action = rules.step(payment)
    if action in {"none", "wait"}:
        return None
    begun = began(payment, action, card_id=None, now=NOW)
    assert begun.fence == payment.fence + 1, "whoever is overtaken can know it"
    return plain(begun), Turn(action, begun.intent_id, begun.attempts)


@cache
def recorded(payment: Payment, turn: Turn) -> Payment:
    if turn.answer is None:
        return plain(in_doubt(payment, tries=0, now=NOW))
    after = answered(payment, turn.answer, now=NOW, is_reading=turn.action == "inspect")
    assert answered(after, turn.answer, now=NOW, is_reading=turn.action == "inspect") == after
    return plain(after)


def record(world: World, turn: Turn, rules: Rules) -> World:
    """The answer on the payment as it is now; success credits in the same unit, once."""
    rest = without(world, turn)
    if not turn.is_current and rules.is_fenced:
        return rest
    after = recorded(world.payment, turn)
    is_credited = after.status == "succeeded" and (world.payment.status != "succeeded" or not rules.is_fenced)
    return rest._replace(payment=after, credits=world.credits + is_credited)


@cache
def by_hand(payment: Payment) -> tuple[Payment, ...]:
    """Retried or given up by a person, where that is allowed."""
    found = []
    for act in (retried, voided):
        try:
            found.append(plain(act(payment, now=NOW)))
        except Refusal:
            continue
    return tuple(found)


def freed(world: World) -> World:
    """Open to any worker: those who have it in hand may still send, for their lease is not over."""
    turns = tuple(turn._replace(lease="freed" if turn.lease == "held" else turn.lease) for turn in world.turns)
    return world._replace(turns=turns, is_claimed_by_the_dead=False)


def told(world: World, rules: Rules) -> World:
    """After a message that the intent succeeded."""
    if world.payment.status == "failed" and not rules.is_told_of_late_success:
        return world
    after = told_of_success(world.payment, now=NOW)
    if after is None:
        return world
    if not rules.is_overtaken_by_message:
        return world._replace(payment=plain(after))
    assert after.fence == world.payment.fence + 1, "whoever is overtaken can know it"
    open_to_all = freed(world._replace(payment=plain(after)))
    return open_to_all._replace(turns=tuple(turn._replace(is_current=False) for turn in open_to_all.turns))


# --- moves ------------------------------------------------------------------------------------------------------------


def without(world: World, turn: Turn) -> World:
    turns = list(world.turns)
    turns.remove(turn)
    return world._replace(turns=tuple(turns))


def holding(world: World, turn: Turn) -> World:
    return world._replace(turns=tuple(sorted((*world.turns, turn), key=hash)))


def turned(world: World, before: Turn, after: Turn) -> World:
    return holding(without(world, before), after)


def spend(world: World, fault: Fault) -> World | None:
    if fault not in world.budget:
        return None
    budget = list(world.budget)
    budget.remove(fault)
    return world._replace(budget=tuple(budget))


def moves(world: World, rules: Rules) -> Iterator[Move]:
    """All that may happen next."""
    yield from _by_time(world)
    yield from _by_provider(world, rules)
    yield from _by_hand(world)
    is_free = not world.is_claimed_by_the_dead and all(turn.lease != "held" for turn in world.turns)
    if len(world.turns) < 2 and is_free and (step := taken(world.payment, rules)) is not None:
        others = tuple(turn._replace(is_current=False) for turn in world.turns)
        yield Move(holding(world._replace(payment=step[0], turns=others), step[1]))
    for turn in set(world.turns):
        yield from _by_worker(world, turn, rules)
    for stray in set(world.strays):
        strays = list(world.strays)
        strays.remove(stray)
        for provider, _, fault in asked(world.provider, stray, rules):
            yield from _costing(world._replace(provider=provider, strays=tuple(strays)), fault)


def _costing(world: World, fault: Fault | None) -> Iterator[Move]:
    if fault is None:
        yield Move(world)
    elif (paid := spend(world, fault)) is not None:
        yield Move(paid, is_fault=True)


def _by_time(world: World) -> Iterator[Move]:
    if world.payment.next_attempt_at == LATER:
        yield Move(world._replace(payment=world.payment._replace(next_attempt_at=NOW)))
    if world.is_claimed_by_the_dead:
        yield Move(world._replace(is_claimed_by_the_dead=False))
    if "overtaken" in world.budget:
        for turn in set(world.turns):
            if turn.lease != "over":
                yield from _costing(turned(world, turn, turn._replace(lease="over")), "overtaken")


def _by_provider(world: World, rules: Rules) -> Iterator[Move]:
    provider = world.provider
    if provider.messages:
        after = told(world, rules)
        yield Move(after._replace(provider=provider._replace(messages=provider.messages - 1)))
        yield from _costing(after, "twice")
    if provider.keys:
        yield from _costing(world._replace(provider=provider._replace(keys=frozenset())), "forgotten")
    for number, intent in enumerate(provider.intents):
        if intent.status == "processing":
            yield Move(world._replace(provider=becomes(provider, number, Intent("succeeded"))))
            refused = becomes(provider, number, Intent("requires_payment_method", SOFT))
            yield from _costing(world._replace(provider=refused), "soft")


def _by_hand(world: World) -> Iterator[Move]:
    if "hand" in world.budget:
        for after in by_hand(world.payment):
            yield from _costing(freed(world)._replace(payment=after), "hand")


def _by_worker(world: World, turn: Turn, rules: Rules) -> Iterator[Move]:
    if "crash" in world.budget:
        gone = without(world, turn)
        gone = gone._replace(is_claimed_by_the_dead=world.is_claimed_by_the_dead or turn.lease == "held")
        yield from _costing(gone, "crash")
        if turn.phase == "sent":
            strays = (*gone.strays, turn._replace(is_current=False, lease="over"))
            yield from _costing(gone._replace(strays=tuple(sorted(strays, key=hash))), "crash")
    unclear = turn._replace(phase="told", answer=None)
    match turn.phase:
        case "ready" if turn.lease == "over":
            yield Move(turned(world, turn, unclear))  # a worker that outlived its lease makes no call
        case "ready":
            yield Move(turned(world, turn, turn._replace(phase="sent")))
        case "sent":
            yield from _costing(turned(world, turn, unclear), "lost_request")
            for provider, answer, fault in asked(world.provider, turn, rules):
                for move in _costing(world._replace(provider=provider), fault):
                    knows = turn._replace(phase="told", answer=answer)
                    yield Move(turned(move.world, turn, knows), is_fault=move.is_fault)
                    yield from _costing(turned(move.world, turn, unclear), "lost_answer")
        case _:
            yield Move(record(world, turn, rules))


# --- the exploration --------------------------------------------------------------------------------------------------


class Explored(NamedTuple):
    worlds: int
    wrong: Counter[str]
    ends: Counter[str]


def explore(budget: tuple[Fault, ...], rules: Rules = Rules()) -> Explored:  # noqa: B008 - a value
    """Find every world, breadth first, and what is wrong with any of them."""
    first = World(NEW, Provider(), tuple(sorted(budget)))
    numbers, worlds = {first: 0}, [first]
    comes_from: list[list[int]] = [[]]
    wrong, ends, good = Counter[str](), Counter[str](), list[int]()
    for number, world in enumerate(worlds):
        wrong["charged twice"] += world.charges > 1
        wrong["credited without a charge"] += world.credits > world.charges
        if world.charges > 1 or world.credits > world.charges:
            continue  # what follows from a mistake may have no end
        is_over = True
        for move in moves(world, rules):
            if move.world not in numbers:
                numbers[move.world] = len(worlds)
                worlds.append(move.world)
                comes_from.append([])
            if not move.is_fault and move.world != world:
                is_over = False
                comes_from[numbers[move.world]].append(number)
        if is_over:
            ends[world.payment.status] += 1
            wrong["charged and never credited"] += world.credits < world.charges
            if world.credits == world.charges and not world.payment.is_open:
                good.append(number)
    wrong["no way to an end"] = len(worlds) - _lead_to(good, comes_from)
    return Explored(len(worlds), +wrong, ends)


def _lead_to(ends: list[int], comes_from: list[list[int]]) -> int:
    """How many worlds come to one of these ends by themselves."""
    reached, found = set(ends), list(ends)
    while found:
        for before in comes_from[found.pop()]:
            if before not in reached:
                reached.add(before)
                found.append(before)
    return len(reached)


STORIES: Final[dict[str, tuple[Fault, ...]]] = {
    "nothing goes wrong": (),
    "the appendix of the bar": ("crash", "lost_request", "lost_answer", "forgotten", "twice"),
    "two crashes": ("crash", "crash", "forgotten", "overtaken"),
    "a decline, then success": ("crash", "lost_answer", "forgotten", "soft", "twice"),
    "a decline for good": ("crash", "forgotten", "hard", "twice", "overtaken"),
    "the bank takes its time": ("crash", "slow", "soft", "twice", "lost_request"),
    "somebody acts by hand": ("crash", "forgotten", "hard", "hand", "lost_answer"),
    "given up while the bank takes its time": ("slow", "soft", "hand", "lost_answer"),
    "three declines": ("soft", "soft", "soft", "lost_answer"),
}
CAMPAIGNS: Final[dict[str, tuple[Fault, ...]]] = {
    "six faults": ("crash", "lost_request", "lost_answer", "forgotten", "twice", "overtaken"),
    "six faults and a decline": ("crash", "lost_answer", "forgotten", "soft", "overtaken", "crash"),
    "six faults and a last decline": ("crash", "lost_answer", "forgotten", "hard", "overtaken", "twice"),
    "six faults and a hand": ("crash", "lost_answer", "forgotten", "hard", "hand", "overtaken"),
    "six faults and a slow bank": ("crash", "lost_answer", "slow", "soft", "hand", "overtaken"),
}


@pytest.mark.parametrize("budget", STORIES.values(), ids=STORIES.keys())
def test_a_card_is_charged_once_and_credited_if_and_only_if_charged(budget: tuple[Fault, ...]) -> None:
    explored = explore(budget)
    assert not explored.wrong
    assert explored.ends["succeeded"]
    assert set(explored.ends) <= {"succeeded", "failed", "voided"}


@pytest.mark.slow
@pytest.mark.parametrize("budget", CAMPAIGNS.values(), ids=CAMPAIGNS.keys())
def test_six_faults_at_once(budget: tuple[Fault, ...]) -> None:
    assert not explore(budget).wrong


def test_every_end_there_is_is_reached() -> None:
    assert set(explore(("hard", "hand")).ends) == {"succeeded", "failed", "voided"}


def _a_new_intent_after_doubt(payment: Payment) -> Action:
    action = next_step(payment, now=NOW)
    return "create" if action == "inspect" else action


def _confirms_again_without_reading(payment: Payment) -> Action:
    action = next_step(payment, now=NOW)
    return "confirm" if action == "inspect" else action


FAULTS: Final[tuple[Fault, ...]] = ("overtaken", "lost_answer", "forgotten")
MISTAKES: Final[dict[str, tuple[Rules, tuple[Fault, ...], set[str]]]] = {
    "a new intent after doubt": (Rules(step=_a_new_intent_after_doubt), FAULTS, {"charged twice"}),
    "created and confirmed in one call, under a key that is forgotten": (
        Rules(is_one_call=True),
        STORIES["the appendix of the bar"],
        {"charged twice"},
    ),
    "a worker that was overtaken credits too": (Rules(is_fenced=False), FAULTS, {"credited without a charge"}),
    "a message says so while a worker holds a later refusal": (
        Rules(is_overtaken_by_message=False),
        STORIES["a decline for good"],
        {"charged and never credited"},
    ),
    "what failed is never looked at again": (
        Rules(is_told_of_late_success=False),
        STORIES["a decline for good"],
        {"charged and never credited"},
    ),
}


@pytest.mark.parametrize(("rules", "budget", "mistakes"), MISTAKES.values(), ids=MISTAKES.keys())
def test_the_model_tells_a_mistake(rules: Rules, budget: tuple[Fault, ...], mistakes: set[str]) -> None:
    assert mistakes <= set(explore(budget, rules).wrong)


def test_one_intent_is_charged_once_even_by_those_who_do_not_read_first() -> None:
    """Why it is the object that is trusted and not the key: reading saves attempts, the intent saves the money."""
    explored = explore(FAULTS, Rules(step=_confirms_again_without_reading))
    assert not explored.wrong["charged twice"]
