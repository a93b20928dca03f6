"""Whatever an account on plans goes through: money is conserved, and nobody gets for nothing what others pay for.

A ``PlanLife`` goes through any steps at all: plans of every shape and scheme, usage, cards that fail, pauses, months.
Its rows are then added up by other means than the core's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tenuto.core import lifecycle
from tenuto.core.effect import Effect
from tenuto.core.grant import Grant
from tenuto.core.ledger import EXPIRY_BOOK, GRANT_BOOK, OVERAGE_BOOK, PLAN_BOOK, PRORATION_BOOK, USAGE_BOOK
from tenuto.core.outcomes import Refusal
from tenuto.core.period import months_within, whole_seconds
from tenuto.core.plan import Cadence, Scheme, included, price_of
from tenuto.core.subscription import Offer, Period, Step, Subscription
from tests.core.plan_life import PlanLife, offer_of, sold

seeded = settings(
    derandomize=True,
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
UNITS: Final = ("images", "tokens")
SCHEMES: Final[tuple[Scheme, ...]] = ("ariel", "snow_white", "sleeping_beauty")
SAID_NO: Final = {
    *("plan_not_active", "plan_not_paid", "plan_not_paused", "plan_change_in_progress", "no_plan"),
    *("nothing_scheduled", "payment_method_required", "invalid_field"),
}
BILLED: Final = frozenset({"plan", "variable"})

# --- what can be sold, and what can happen ----------------------------------------------------------------------------

prices = st.sampled_from([0, 0, 500, 1000, 1999, 4000])
amounts = st.sampled_from([0, 3, 10, 100, 1000])


@st.composite
def plans(draw: st.DrawFn, *, is_plain: bool = False) -> Offer:
    """A plan of any shape; a plain one is sold by the month and asks for nothing but its price."""
    name = str(draw(st.integers(0, 9)))
    rollover = {} if is_plain else {"rollover": draw(st.booleans())}
    balances: dict[str, Mapping[str, Any]] = {unit: {"amount": draw(amounts), **rollover} for unit in UNITS}
    if is_plain:
        return offer_of(0, sold(name, draw(prices), balances))
    if draw(st.booleans()):
        balances["images"] = {**balances["images"], "variable_amount_cost": draw(st.sampled_from([0, 7, 100]))}
    cadence: Cadence = draw(st.sampled_from(["MONTHLY", "MONTHLY", "MONTHLY", "YEARLY", "ONE_OFF"]))
    renews = cadence != "ONE_OFF"
    more: dict[str, Any] = {
        "setup_fee": draw(st.sampled_from([0, 0, 300])),
        "trial_days": draw(st.sampled_from([0, 0, 9])) if renews else 0,
        "minimum_spend": draw(st.sampled_from([None, None, 2500])) if renews else None,
        "refill_cadence": draw(st.sampled_from([None, "MONTHLY"])) if cadence == "YEARLY" else None,
    }
    units = {"images": draw(st.integers(0, 5))} if "variable_amount_cost" in balances["images"] else {}
    return offer_of(0, sold(name, {cadence: draw(prices)}, balances, **more), units=units)


def shelves(*, is_plain: bool = False) -> st.SearchStrategy[list[Offer]]:
    """A few plans, each with an id of its own."""
    every = st.lists(plans(is_plain=is_plain), min_size=2, max_size=4)
    return every.map(lambda made: [offer._replace(plan_id=at, version_id=10 * at) for at, offer in enumerate(made, 1)])


class Act(NamedTuple):
    """What somebody does: ``verb`` of ``_VERBS``, on what."""

    verb: str
    place: int = 0
    scheme: Scheme = "ariel"
    units: int = 0
    name: str = "tokens"


places = st.integers(0, 3)
quantities = st.sampled_from([1, 3, 7, 50, 100, 700, 1500])
acts = st.one_of(
    st.builds(Act, st.just("use"), units=quantities, name=st.sampled_from([*UNITS, "tokens", "USD"])),
    st.builds(Act, st.just("change"), places, st.sampled_from(SCHEMES)),
    st.builds(Act, st.just("change"), places, st.just("ariel")),
    st.builds(Act, st.just("change"), places, st.just("snow_white")),
    st.builds(Act, st.just("wait"), units=st.sampled_from([0, 1, 24, 24 * 9, 24 * 16, 24 * 33, 24 * 80, 24 * 370])),
    st.builds(Act, st.sampled_from(["start", "cancel", "cancel", "pause", "resume", "reinstate", "modify"]), places),
    st.builds(Act, st.sampled_from(["card", "card", "retry"]), places),
)


def more_of(offer: Offer, version_id: int) -> Offer:
    """The same plan with twice the tokens and some, for ten dollars more."""
    tokens = offer.terms.balances["tokens"]
    terms = replace(
        offer.terms,
        renewals={cadence: amount + 1000 for cadence, amount in offer.terms.renewals.items()},
        balances={**offer.terms.balances, "tokens": replace(tokens, amount=2 * tokens.amount + 5)},
    )
    return offer._replace(version_id=version_id, terms=terms)


def act(life: PlanLife, shelf: list[Offer], one: Act) -> None:
    """Do what somebody does; what is refused is not done."""
    offer = shelf[one.place % len(shelf)]
    verbs: dict[str, Callable[[], object]] = {
        "start": lambda: _started(life, offer),
        "change": lambda: life.change(offer, one.scheme),
        "cancel": lambda: life.cancel(at_end=one.place == 1, prorates=one.place == 2),
        "pause": lambda: life.do(lifecycle.paused),
        "resume": lambda: life.do(lifecycle.resumed),
        "reinstate": lambda: life.do(lifecycle.reinstated),
        "modify": lambda: _modified(life),
        "look": lambda: life.look(offer, one.scheme),
        "use": lambda: life.use(one.name, one.units, book=OVERAGE_BOOK if one.name == "USD" else USAGE_BOOK),
        "wait": lambda: life.wait(hours=one.units),
        "card": lambda: setattr(life, "card", ("yes", "no", "none", "slow")[one.place]),
        "retry": lambda: life.retry() if life.waiting else None,
    }
    try:
        verbs[one.verb]()
    except Refusal as refusal:
        if refusal.code not in SAID_NO:
            raise


def _started(life: PlanLife, offer: Offer) -> None:
    life.sweep()
    if life.subscription is not None and life.subscription.is_running:
        raise Refusal("plan_not_active")
    life.start(offer)


def _modified(life: PlanLife) -> None:
    known = life.subscription
    if known is not None and known.is_running:
        terms = life.terms[known.version_id]
        offer = Offer(known.plan_id, known.version_id, None, terms, known.cadence, known.variable_units)
        life.modify(more_of(offer, 1000 + life.tick))


# --- what must hold ---------------------------------------------------------------------------------------------------


def audit_money(life: PlanLife) -> None:
    """Each step moves what it says and no more, what is paid is the exact rest, and each period has its own price."""
    billed = 0
    for step, effect, paid in life.steps:
        sums: dict[tuple[str, str], int] = {}
        for one in life.transactions:
            if one.cause_id == effect.step_id:
                sums[one.denomination, one.book] = sums.get((one.denomination, one.book), 0) + one.amount
        kinds: dict[str, int] = {}
        for line in step.lines:
            kinds[line.kind] = kinds.get(line.kind, 0) + line.amount
        sold_for = sum(kinds.get(kind, 0) for kind in ("plan", "variable", "setup_fee", "minimum_spend"))
        given_back = -kinds.get("proration", 0)
        told = {
            ("USD", PLAN_BOOK): -sold_for,
            ("USD", PRORATION_BOOK): given_back,
            **{(name, EXPIRY_BOOK): -units for name, units in step.cancelled.items()},
            **{(name, GRANT_BOOK): units for name, units in step.granted.items()},
        }
        assert sums == {key: amount for key, amount in told.items() if amount}
        assert step.credit == given_back
        assert step.closes is None or step.closes.credited == given_back
        rest = sold_for - given_back + kinds.get("owed", 0) + kinds.get("credit", 0)
        assert paid in {0, rest}
        assert paid == step.charge or life.card != "yes"
        billed += sum(kinds.get(kind, 0) for kind in BILLED)
    assert billed == sum(period.price for period in life.periods.values())


def audit_worth(life: PlanLife) -> None:
    """No period gave more than what could be had for its price, and none was credited for what was used of it."""
    visited: dict[int, list[Subscription]] = {}
    granted: dict[tuple[int, Any, str], int] = {}
    for step, effect, _ in life.steps:
        after = effect.subscription
        visited.setdefault(after.period_id, []).append(after)
        for name, units in step.granted.items():
            key = (after.period_id, step.until_at, name)
            granted[key] = granted.get(key, 0) + units
    for (period_id, _, name), units in granted.items():
        period = life.periods[period_id]
        fair = [
            included(life.terms[one.version_id], one.variable_units).get(name, 0)
            for one in visited[period_id]
            if period.is_trial or price_of(life.terms[one.version_id], one.cadence, one.variable_units) <= period.price
        ]
        assert units <= max(fair, default=0), f"{period} gave {units} {name}"
    for step, effect, _ in life.steps:
        if step.closes is not None and step.credit:
            _audit_credit(life, step, step.closes, effect)


def _audit_credit(life: PlanLife, step: Step, period: Period, effect: Effect) -> None:
    """What stays paid of a period is at least the share of it that is over, and that was used of each balance."""
    kept = period.price - period.credited
    assert 0 <= kept <= period.price
    if period.end_at is not None and step.kind != "modify":
        whole = whole_seconds(period.start_at, period.end_at)
        assert kept * whole >= period.price * (whole - whole_seconds(step.at, period.end_at))
    for name in UNITS:
        own = [one for one in _grants_at(life, effect) if one.period_id == period.id and one.denomination == name]
        months = {one.until_at for one in own}
        times = 1
        if len(months) > 1 or (period.end_at and months and period.end_at not in months):
            assert period.end_at is not None
            times = months_within(period.start_at, period.end_at, ZoneInfo(life.zone))
        gave = max((sum(one.units for one in own if one.until_at == month) for month in months), default=0) * times
        used = sum(one.units - one.left for one in own)
        assert kept * gave >= period.price * used, f"{used} of {gave} {name} were used"


def _grants_at(life: PlanLife, effect: Effect) -> list[Grant]:
    """Grants as a step left them; what it closed has what was left then."""
    own = {grant.id: grant for grant in effect.grants}
    return [own.get(grant.id, grant) for grant in life.grants.values()]


def audit_free(life: PlanLife) -> None:
    """What a plan gives for nothing it gives once for the same time, however often it is entered."""
    taken_back: dict[int, int] = {}
    for step, effect, _ in life.steps:
        for grant in effect.grants:
            if grant.id in step.ends and grant.denomination in step.cancelled:
                taken_back[grant.id] = grant.left
    given: dict[tuple[int | None, str], int] = {}
    for grant in life.grants.values():
        runs = grant.until_at is None or grant.until_at > life.now
        if grant.period_id is not None and runs and not life.periods[grant.period_id].price:
            key = (grant.plan_id, grant.denomination)
            given[key] = given.get(key, 0) + grant.units - taken_back.get(grant.id, 0)
    known = [(effect.subscription, life.terms[effect.subscription.version_id]) for _, effect, _ in life.steps]
    for (plan_id, name), units in given.items():
        entered = [included(terms, one.variable_units).get(name, 0) for one, terms in known if one.plan_id == plan_id]
        assert units <= max(entered), f"{units} {name} for nothing"


@seeded
@given(shelves(), st.lists(acts, min_size=3, max_size=16))
def test_money_is_conserved_and_no_value_made(shelf: list[Offer], story: list[Act]) -> None:
    life = PlanLife()
    act(life, shelf, Act("start"))
    for one in story:
        act(life, shelf, one)
        life.audit()
        audit_free(life)
    audit_money(life)
    audit_worth(life)


ways_of_free: Final[tuple[tuple[Cadence, bool], ...]] = (
    ("ONE_OFF", False),
    ("MONTHLY", True),
    ("MONTHLY", False),
    ("YEARLY", True),
)


@st.composite
def free_shelves(draw: st.DrawFn) -> list[Offer]:
    """Plans that cost nothing, or nothing at first."""
    shelf: list[Offer] = []
    for at in (1, 2):
        cadence, has_trial = draw(st.sampled_from(ways_of_free))
        terms = sold(
            str(at),
            {cadence: 1000 * has_trial},
            {"tokens": {"amount": 100 * at, "rollover": draw(st.booleans())}},
            trial_days=9 * has_trial,
        )
        shelf.append(offer_of(at, terms))
    return shelf


free_acts = st.one_of(
    st.builds(Act, st.sampled_from(["start", "cancel"]), st.integers(0, 1)),
    st.builds(Act, st.just("change"), st.integers(0, 1), st.sampled_from(["ariel", "snow_white"])),
    st.builds(Act, st.just("change"), st.integers(0, 1), st.just("ariel")),
    st.builds(Act, st.just("use"), units=st.sampled_from([100, 30])),
    st.builds(Act, st.just("wait"), units=st.sampled_from([24 * 12, 24 * 3])),
)


@settings(seeded, max_examples=300)
@given(free_shelves(), st.lists(free_acts, min_size=6, max_size=12), st.sampled_from([0, 1]))
def test_nothing_is_had_twice_for_nothing(shelf: list[Offer], story: list[Act], card: int) -> None:
    life = PlanLife()
    for one in (Act("card", card), Act("start"), *story):
        act(life, shelf, one)
        life.audit()
        audit_free(life)
        # What lasts until now or longer was given until then, and no period ends before it begins.
        assert all(period.end_at is None or period.start_at < period.end_at for period in life.periods.values())
    audit_worth(life)


@st.composite
def year_shelves(draw: st.DrawFn) -> list[Offer]:
    """Plans by the year, filled at once or by the month."""
    shelf: list[Offer] = []
    for at in (1, 2):
        how = draw(st.sampled_from([None, "MONTHLY"]))
        price = draw(st.sampled_from([6000, 12_000, 24_000]))
        terms = sold(str(at), {"YEARLY": price}, draw(st.sampled_from([100, 200, 1200])), refill_cadence=how)
        shelf.append(offer_of(at, terms))
    return shelf


year_acts = st.one_of(
    st.builds(Act, st.just("change"), st.integers(0, 1), st.sampled_from(["ariel", "snow_white", "snow_white"])),
    st.builds(Act, st.just("use"), units=st.sampled_from([30, 100, 1200])),
    st.builds(Act, st.just("wait"), units=st.sampled_from([24 * 3, 24 * 31, 24 * 62])),
)


@seeded
@given(year_shelves(), st.lists(year_acts, min_size=2, max_size=8))
def test_a_year_gives_what_its_plan_gives_in_a_year(shelf: list[Offer], story: list[Act]) -> None:
    life = PlanLife()
    for one in (Act("start"), *story):
        act(life, shelf, one)
    audit_money(life)
    audit_worth(life)
    for step, effect, _ in life.steps:
        if step.kind == "refill":
            assert life.terms[effect.subscription.version_id].refills_monthly


# --- to and fro -------------------------------------------------------------------------------------------------------


def _held(life: PlanLife) -> int:
    """What the account paid and does not hold: what it really costs."""
    return life.paid - life.amount("USD")


@seeded
@given(shelves(is_plain=True), st.integers(0, 40 * 24), st.integers(0, 1200))
def test_ariel_to_another_plan_and_back_costs_as_much_as_a_new_start(shelf: list[Offer], hours: int, used: int) -> None:
    first, second = shelf[:2]
    life = PlanLife()
    life.start(first)
    # What is owed would be paid from the units of the second plan, and that has its price.
    life.use("tokens", min(used, life.amount("tokens")))
    life.wait(hours=hours)
    there = deepcopy(life)
    life.change(first, "ariel")
    there.change(second, "ariel")
    there.change(first, "ariel")
    assert _held(there) == _held(life)
    assert [there.amount(name) for name in UNITS] == [life.amount(name) for name in UNITS]
    assert there.running.next_at == life.running.next_at
    if not hours and not used:
        assert _held(there) == first.price
        there.cancel(prorates=True)
        assert _held(there) == 0


@seeded
@given(shelves(is_plain=True), st.lists(st.tuples(places, st.integers(0, 24), st.integers(0, 60)), max_size=8))
def test_snow_white_to_and_fro_costs_the_dearest_plan_on_the_way(
    shelf: list[Offer], changes: list[tuple[int, int, int]]
) -> None:
    life = PlanLife()
    life.start(shelf[0])
    dearest, given = shelf[0], included(shelf[0].terms, {})
    for place, hours, used in changes:
        life.wait(hours=hours)
        life.use("tokens", used)
        offer = shelf[place % len(shelf)]
        units = included(offer.terms, {})
        if offer.price > dearest.price and any(units.get(name, 0) < most for name, most in given.items()):
            with pytest.raises(Refusal, match="snow_white"):
                life.change(offer, "snow_white")
            continue
        life.change(offer, "snow_white")
        dearest = max(dearest, offer, key=lambda known: known.price)
        if all(units.get(name, 0) >= most for name, most in given.items()):
            given = units
    assert life.paid == dearest.price
    assert life.period.price == dearest.price
    assert life.running.period_end == life.period.end_at
    assert {name: sum(one.units for one in life.grants.values() if one.denomination == name) for name in given} == given


# --- looking, waiting, being slow -------------------------------------------------------------------------------------


def _picture(life: PlanLife) -> object:
    """All that an account is, but for ids."""
    grants = [
        (one.denomination, one.source, one.units, one.left, one.until_at, one.created_at)
        for name in (*UNITS, "USD")
        for one in life.purse(name, life.now, life.tick).grants
    ]
    periods = [(one.start_at, one.end_at, one.ended_at, one.price, one.credited) for one in life.periods.values()]
    balances = {name: life.amount(name) for name in (*UNITS, "USD")}
    known = life.running
    return grants, periods, balances, life.paid, known.status, known.next_at, known.number, known.refill_number


@seeded
@given(shelves(), st.lists(acts, max_size=6), st.lists(st.integers(1, 900), min_size=1, max_size=5), places)
def test_time_in_pieces_and_looking_change_nothing(
    shelf: list[Offer], story: list[Act], pieces: list[int], place: int
) -> None:
    life = PlanLife()
    for one in (Act("start"), *story):
        act(life, shelf, one)
    other = deepcopy(life)
    life.wait(hours=sum(pieces))
    for hours in pieces:
        other.wait(hours=hours)
        seen = deepcopy(other)
        act(other, shelf, Act("look", place, "ariel"))
        assert _picture(other) == _picture(seen)
    assert _picture(life) == _picture(other)


@seeded
@given(shelves(), st.lists(st.tuples(st.integers(0, 900), st.sampled_from(UNITS), quantities), max_size=10))
def test_a_late_sweep_comes_to_the_same(shelf: list[Offer], uses: list[tuple[int, str, int]]) -> None:
    prompt, slow = PlanLife(), PlanLife(sweeps_late=True)
    for life in (prompt, slow):
        life.start(shelf[0])
        for hours, name, units in uses:
            life.wait(hours=hours)
            life.use(name, units)
        life.sweep()
    assert _picture(slow) == _picture(prompt)


@seeded
@given(
    shelves(),
    st.lists(acts, max_size=8),
    st.sampled_from(SCHEMES),
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([*UNITS, "USD"]), quantities), max_size=4),
)
def test_a_step_comes_to_what_was_shown_however_slow_the_card(
    shelf: list[Offer], story: list[Act], scheme: Scheme, since: list[tuple[int, str, int]]
) -> None:
    life = PlanLife()
    for one in (Act("start"), *story):
        act(life, shelf, one)
    life.sweep()
    assume(not life.is_asked and life.subscription is not None and life.subscription.is_running)
    life.card = "yes"
    at_once = deepcopy(life)
    try:
        shown = at_once.change(shelf[-1], scheme)
    except Refusal:
        assume(False)
        raise
    life.card = "slow"
    assert life.change(shelf[-1], scheme) == shown
    for minutes, name, units in since:
        for one_life in (life, at_once):
            one_life.now += timedelta(minutes=minutes)
            one_life.use(name, units)
    if life.is_asked:
        life.answer()
    assert _picture(life) == _picture(at_once)
