"""Equalities of usage billing that hold for every price, every event and every order (house, principle 13).

``Life`` audits itself after each step: the posted sum and the residue are the exact sum of all costs, the transactions
are a chain without a gap, what is pending is what the holds reserve, each counter is the sum of its events. So a life
that can be lived at all has proved these. Always the same examples, so that a failure is never a surprise to somebody
else; ``-m slow`` tries new ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from fractions import Fraction
from typing import Final, NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tenuto.core.catalog import PriceVersion, price_version
from tenuto.core.event import Decision, Event, GatedEvent, Settlement, State, UsageEvent
from tenuto.core.ledger import Balance, Transaction
from tenuto.core.money import (
    Exact,
    at_most,
    exact,
    exact_text,
    fraction_text,
    minus,
    parse_fraction,
    plus,
    round_up,
    split_whole,
    times,
)
from tenuto.core.outcomes import Refusal
from tenuto.core.rating import EMPTY, count, rate
from tests.core.account_life import CANCEL, LONG_AGO, Life, event, fraction, settle_for

seeded = settings(derandomize=True, deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
TYPES: Final = ("CHAT", "READ", "STORE")
LIMITS: Final = {"USD": 7, "credits": 0}

# --- what may come ----------------------------------------------------------------------------------------------------

amounts = st.integers(0, 12).map(str) | st.decimals("0", "9", places=4).map(lambda amount: f"{amount:f}")
quantities = st.integers(1, 12).map(str) | st.decimals("0.001", "9", places=3).map(lambda quantity: f"{quantity:f}")
units_per = st.sampled_from([1, 1, 7, 60, 1000])


@st.composite
def tier_lists(draw: st.DrawFn, *, rising: bool = False) -> list[dict[str, object]]:
    ends = sorted(draw(st.sets(st.integers(1, 40), max_size=3)))
    unit_prices = draw(st.lists(amounts, min_size=len(ends) + 1, max_size=len(ends) + 1))
    if rising:
        unit_prices.sort(key=Fraction)
    return [{"up_to": end, "amount": amount} for end, amount in zip([*ends, None], unit_prices, strict=True)]


@st.composite
def sums_of_units(draw: st.DrawFn) -> dict[str, object]:
    """Terms under which a month costs the same however its units are cut up: no minimum, no cap, no falling total."""
    model = draw(st.sampled_from(["per_unit", "package", "graduated", "volume"]))
    terms: dict[str, object] = {"model": model, "free_units": draw(st.sampled_from([0, 0, 3]))}
    terms["max_value_billing"] = draw(st.booleans())
    if model in {"per_unit", "package"}:
        return terms | {"amount": draw(amounts), "per": draw(units_per)}
    return terms | {"tiers": draw(tier_lists(rising=model == "volume"))}


@st.composite
def any_terms(draw: st.DrawFn) -> dict[str, object]:
    terms = draw(sums_of_units())
    if terms["model"] == "volume":
        terms["tiers"] = draw(tier_lists())
    bounds = sorted(draw(st.lists(amounts, min_size=2, max_size=2)), key=Fraction)
    for name, bound in zip(("minimum", "cap"), bounds, strict=True):
        if draw(st.booleans()):
            terms[name] = bound
    return terms


@st.composite
def price_lists(draw: st.DrawFn, terms: st.SearchStrategy[dict[str, object]]) -> Life:
    """An account with some money, and a price or two for each type of event."""
    life = Life()
    for denomination, limit in LIMITS.items():
        life.open(
            denomination, draw(st.integers(0, 90)), limit=limit, residue=draw(st.sampled_from(["0", "2/5", "6/7"]))
        )
    for kind in TYPES:
        for denomination in draw(st.sampled_from([["USD"], ["credits"], ["USD", "credits"], []])):
            life.price(kind, denomination, draw(terms))
    return life


@st.composite
def usage_events(
    draw: st.DrawFn, *, states: Sequence[State] = ("complete",), is_gated: bool | None = False
) -> UsageEvent:
    """One event; where it may be gated or pending it may have one of a few keys too."""
    override = draw(st.none() | st.none() | st.tuples(st.integers(0, 20), st.sampled_from(list(LIMITS))))
    return event(
        draw(st.sampled_from(TYPES)),
        draw(quantities),
        state=draw(st.sampled_from(states)),
        gated=draw(st.booleans()) if is_gated is None else is_gated,
        key=draw(st.none() | st.integers(0, 9).map(str)) if is_gated is not False else None,
        override=override,
        occurred_at=draw(st.none() | st.integers(1, 34).map(lambda days: Life().now - timedelta(days=days))),
    )


def requests(**rules: object) -> st.SearchStrategy[list[UsageEvent]]:
    return st.lists(usage_events(**rules), min_size=1, max_size=4)  # type: ignore[arg-type]


class Ending(NamedTuple):
    """An event, chosen by its place among the holds or among all, and how it is to end; None takes it back."""

    place: int
    settlement: Settlement | None


settlements = st.one_of(
    st.just(settle_for()),
    quantities.map(lambda quantity: settle_for(quantity=quantity)),
    st.integers(0, 40).map(lambda cost: settle_for(cost=cost)),
    st.builds(lambda quantity, cost: settle_for(quantity=quantity, cost=cost), quantities, st.integers(0, 40)),
    st.just(CANCEL),
)
endings = st.builds(Ending, st.integers(0, 99), settlements | st.none())
spans = st.sampled_from([0, 1, 1799, 1800, 3599, 3600]).map(lambda seconds: timedelta(seconds=seconds))
Step = list[UsageEvent] | Ending | timedelta
EVERYTHING: Final = requests(states=("complete", "complete", "pending", "cancelled"), is_gated=None)
GATED: Final = requests(states=("complete", "pending"), is_gated=True)


def steps(pushes: st.SearchStrategy[list[UsageEvent]]) -> st.SearchStrategy[list[Step]]:
    return st.lists(st.one_of(pushes, pushes, pushes, endings, endings, spans), min_size=4, max_size=12)


def take(life: Life, step: Step) -> Decision | Refusal | None:
    """One step of a life. A timedelta lets time pass and sweeps what has lapsed, every other time."""
    try:
        match step:
            case timedelta():
                life.wait(step)
                if step.seconds % 2 == 0:
                    life.sweep()
                return None
            case Ending(place, settlement):
                if not life.events:
                    return None
                holds = [event_id for event_id, made in life.events.items() if made.state == "pending"]
                among = holds if holds and place % 3 else sorted(life.events)
                event_id = among[place % len(among)]
                return life.void(event_id) if settlement is None else life.finish(event_id, settlement)
            case _:
                return life.push(*step)
    except Refusal as refusal:
        return refusal


def live_through(life: Life, lived: Iterable[Step]) -> Life:
    for step in lived:
        take(life, step)
    return life


def sums(life: Life) -> dict[str, Fraction]:
    """What usage has taken of each denomination, to the last fraction."""
    return {denomination: life.owed(denomination) for denomination in life.stored.balances}


def counted(life: Life) -> Mapping[object, tuple[Fraction, Fraction]]:
    return {slot: (fraction(seen.units), fraction(seen.billed)) for slot, seen in life.stored.counters.items()}


# --- any life ---------------------------------------------------------------------------------------------------------


def check_any_life(life: Life, lived: list[Step]) -> None:
    """The second opinion of ``audit`` after every step, and refusals for the expected reasons only."""
    for step in lived:
        answer = take(life, step)
        if isinstance(answer, Refusal):
            assert answer.code in {
                "event_expired",
                "event_finished",
                "exceeds_reserved",
                "key_reused",
                "too_late",
            }


@seeded
@given(price_lists(any_terms()), steps(EVERYTHING))
def test_posted_sum_and_residue_are_the_exact_sum_after_any_life(life: Life, lived: list[Step]) -> None:
    check_any_life(life, lived)


@pytest.mark.slow
@settings(deadline=None, max_examples=20_000, suppress_health_check=list(HealthCheck))
@given(price_lists(any_terms()), steps(EVERYTHING))
def test_posted_sum_and_residue_are_the_exact_sum_after_any_life_campaign(life: Life, lived: list[Step]) -> None:
    check_any_life(life, lived)


def check_floor(life: Life, lived: list[Step]) -> None:
    for step in lived:
        before = life.state
        answer = take(life, step)
        for denomination, balance in life.state.balances.items():
            assert balance.available >= -LIMITS[denomination], f"{denomination} below its floor"
            assert balance.amount >= -LIMITS[denomination]
        if isinstance(answer, Decision) and isinstance(step, list):
            for refused in answer.gated:
                assert_short(refused, before.balances)


def assert_short(refused: GatedEvent, balances: Mapping[str, Balance]) -> None:
    """No false refusal: what is told was available is not more than was there, and is less than is required."""
    facts = refused.details
    denomination, limit = str(facts["denomination"]), LIMITS[str(facts["denomination"])]
    available, required, shortfall = (int(str(facts[name])) for name in ("available", "required", "shortfall"))
    assert available <= balances[denomination].available
    assert shortfall == required - available - limit > 0


@seeded
@given(price_lists(any_terms()), steps(GATED))
def test_a_gated_balance_never_goes_below_its_floor(life: Life, lived: list[Step]) -> None:
    check_floor(life, lived)


@pytest.mark.slow
@settings(deadline=None, max_examples=20_000, suppress_health_check=list(HealthCheck))
@given(price_lists(any_terms()), steps(GATED))
def test_a_gated_balance_never_goes_below_its_floor_campaign(life: Life, lived: list[Step]) -> None:
    check_floor(life, lived)


@seeded
@given(price_lists(any_terms()), usage_events(states=("complete", "pending"), is_gated=True), st.data())
def test_the_gate_is_exact(life: Life, asked: UsageEvent, data: st.DataObject) -> None:
    """Refused if and only if, somewhere, what is owed with the cost is more than is there with the limit.

    At no cost only a balance that is below its floor refuses: a fraction that is owed at the floor does not.
    """
    (answer,) = copy_of(life).push(asked._replace(gated=False, key_digest=None)).answers
    assert isinstance(answer, Event)
    is_short = False
    for charge in answer.charges:
        limit, residue = LIMITS[charge.denomination], data.draw(st.sampled_from(["0", "1/1000", "2/5", "999/1000"]))
        amount = round_up(charge.cost) - limit + data.draw(st.integers(-1, 1))
        life.open(charge.denomination, amount, limit=limit, residue=residue)
        owed = Fraction(residue) + fraction(charge.cost) if charge.cost.numerator else 0
        is_short = is_short or owed > amount + limit
    assert bool(life.push(asked).gated) is is_short


@seeded
@given(price_lists(any_terms()), steps(EVERYTHING), st.data())
def test_replaying_all_keys_changes_nothing(life: Life, lived: list[Step], data: st.DataObject) -> None:
    first: list[tuple[UsageEvent, Event | GatedEvent]] = []
    for step in lived:
        answer = take(life, step)
        if isinstance(answer, Decision) and isinstance(step, list):
            for asked, told in zip(step, answer.answers, strict=True):
                if asked.key is not None and told is not None and (asked, told) not in first:
                    first.append((asked, told))
    before, records = life.state, len(life.gated)
    again = data.draw(st.permutations(first))
    for asked, told in again:
        replayed = life.push(asked)
        assert replayed.is_replay
        assert replayed.answers == (told,)
    if again:
        whole = life.push(*(asked for asked, _ in again))
        assert whole.is_replay
        assert bool(whole.refusals) is any(isinstance(told, GatedEvent) for _, told in first)
    assert (life.state, len(life.gated)) == (before, records)


@seeded
@given(price_lists(any_terms()), steps(EVERYTHING))
def test_taking_everything_back_leaves_nothing(life: Life, lived: list[Step]) -> None:
    live_through(life, lived)
    life.wait(timedelta(hours=1))
    life.sweep()
    for event_id, made in sorted(life.events.items()):
        if made.state == "complete":
            life.void(event_id)
    assert set(sums(life).values()) <= {0}
    assert all(life.amount(denomination) == life.opening[denomination].amount for denomination in sums(life))
    assert set(counted(life).values()) <= {(0, 0)}


# --- order and cut ----------------------------------------------------------------------------------------------------


def copy_of(life: Life) -> Life:
    return Life(prices=life.prices, versions=life.versions, opening=dict(life.opening), stored=life.stored)


@seeded
@given(price_lists(any_terms()), st.lists(usage_events(), max_size=12), st.data())
def test_cutting_a_list_into_requests_changes_no_total(
    life: Life, events: list[UsageEvent], data: st.DataObject
) -> None:
    whole, cut = copy_of(life), copy_of(life)
    if events:
        whole.push(*events)
    ends = sorted(data.draw(st.sets(st.integers(1, max(1, len(events))))))
    for start, end in zip([0, *ends], [*ends, len(events)], strict=True):
        if events[start:end]:
            cut.push(*events[start:end])
    assert sums(whole) == sums(cut)
    assert counted(whole) == counted(cut)


@seeded
@given(price_lists(sums_of_units()), st.lists(usage_events(), max_size=8), st.data())
def test_the_order_of_ungated_events_changes_no_total(
    life: Life, events: list[UsageEvent], data: st.DataObject
) -> None:
    told, shuffled = copy_of(life), copy_of(life)
    for one in events:
        told.push(one)
    for one in data.draw(st.permutations(events)):
        shuffled.push(one)
    assert sums(told) == sums(shuffled)
    assert counted(told) == counted(shuffled)


@seeded
@given(price_lists(any_terms()), steps(requests()), usage_events(states=("pending",)))
def test_a_hold_settled_in_full_is_a_plain_event(life: Life, lived: list[Step], asked: UsageEvent) -> None:
    held, plain = live_through(copy_of(life), lived), live_through(copy_of(life), lived)
    hold = held.push(asked).events[0]
    settled = held.finish(hold.id, settle_for())
    posted = plain.push(asked._replace(state="complete"))
    assert sums(held) == sums(plain)
    assert counted(held) == counted(plain)
    assert [_without_id(row, held) for row in settled.transactions] == [
        _without_id(row, plain) for row in posted.transactions
    ]
    (finished,) = settled.finished
    ended, done = finished.charges, posted.events[0].charges
    assert [charge._replace(transaction_id=None) for charge in ended] == [
        charge._replace(transaction_id=None) for charge in done
    ]


def _without_id(row: Transaction, life: Life) -> Transaction:
    """A transaction, its ids replaced by what they mean."""
    seq_of = {other.id: other.seq for other in life.transactions}
    previous = row.max_value_billing_previous_id
    return row._replace(
        id=0, first_event_id=0, max_value_billing_previous_id=None if previous is None else seq_of[previous]
    )


# --- rating -----------------------------------------------------------------------------------------------------------


def version_of(terms: Mapping[str, object]) -> PriceVersion:
    return price_version(id=1, price_id=1, number=1, denomination="USD", effective_at=LONG_AGO, terms=terms)


def cost_of_all(terms: Mapping[str, object], pieces: Iterable[str]) -> tuple[Fraction, list[Fraction]]:
    """What the pieces cost one after another: the sum, and each."""
    version, counter, costs = version_of(terms), EMPTY, []
    for piece in pieces:
        rated = rate(version, exact(piece), counter)
        counter = count(counter, rated.counted, rated.cost)
        costs.append(fraction(rated.cost))
    return sum(costs, start=Fraction(0)), costs


@seeded
@given(sums_of_units(), st.lists(quantities, min_size=1, max_size=8))
@example({"model": "volume", "tiers": [{"up_to": 10, "amount": "1"}, {"up_to": None, "amount": "1"}]}, ["10", "0.001"])
def test_a_month_in_pieces_costs_as_much_as_at_once(terms: dict[str, object], pieces: list[str]) -> None:
    numbers = [exact(piece) for piece in pieces]
    whole = max(numbers, key=fraction) if terms.get("max_value_billing") else numbers[0]
    if not terms.get("max_value_billing"):
        for number in numbers[1:]:
            whole = plus(whole, number)
    assert cost_of_all(terms, pieces)[0] == cost_of_all(terms, [exact_text(whole)])[0]


@seeded
@given(tier_lists(), st.lists(quantities, min_size=1, max_size=8))
def test_a_month_of_volume_costs_the_highest_total_it_ever_had(
    tiers: list[dict[str, object]], pieces: list[str]
) -> None:
    total, costs = cost_of_all({"model": "volume", "tiers": tiers}, pieces)
    used, highest = Fraction(0), Fraction(0)
    for piece in pieces:
        used += Fraction(piece)
        price = next(tier["amount"] for tier in tiers if tier["up_to"] is None or used <= int(str(tier["up_to"])))
        highest = max(highest, used * Fraction(str(price)))
    assert total == highest
    assert min(costs) >= 0


@seeded
@given(tier_lists(), quantities)
def test_a_graduated_month_costs_the_sum_over_its_tiers(tiers: list[dict[str, object]], quantity: str) -> None:
    units, start, whole = Fraction(quantity), Fraction(0), Fraction(0)
    for tier in tiers:
        end = units if tier["up_to"] is None else min(units, Fraction(int(str(tier["up_to"]))))
        whole += max(Fraction(0), end - start) * Fraction(str(tier["amount"]))
        start = max(start, end)
    assert cost_of_all({"model": "graduated", "tiers": tiers}, [quantity])[0] == whole


@seeded
@given(any_terms(), st.lists(quantities, min_size=1, max_size=5))
def test_an_event_costs_between_its_minimum_and_its_cap_or_nothing(terms: dict[str, object], pieces: list[str]) -> None:
    for cost in cost_of_all(terms, pieces)[1]:
        assert cost >= 0
        if "cap" in terms:
            assert cost <= Fraction(str(terms["cap"]))
        if "minimum" in terms:
            assert cost == 0 or cost >= Fraction(str(terms["minimum"]))


# --- numbers ----------------------------------------------------------------------------------------------------------

numerators, denominators = st.integers(-(10**20), 10**20), st.integers(1, 10**12)
exacts = st.builds(Exact, numerators, denominators)


@seeded
@given(exacts, exacts)
def test_exact_arithmetic_is_that_of_fractions(left: Exact, right: Exact) -> None:
    assert fraction(plus(left, right)) == fraction(left) + fraction(right)
    assert fraction(minus(left, right)) == fraction(left) - fraction(right)
    assert fraction(times(left, right)) == fraction(left) * fraction(right)
    assert at_most(left, right) is (fraction(left) <= fraction(right))


@seeded
@given(exacts)
def test_a_number_is_its_whole_and_its_rest_and_survives_being_written(value: Exact) -> None:
    whole, rest = split_whole(value)
    assert whole + fraction(rest) == fraction(value)
    assert 0 <= fraction(rest) < 1
    assert 0 <= round_up(value) - fraction(value) < 1
    assert fraction(parse_fraction(fraction_text(value))) == Fraction(exact_text(value)) == fraction(value)
