"""Carrying out a step: rows, grants, who pays, and what a plan makes of refills."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from tenuto.core.cards import maximum
from tenuto.core.effect import Way, as_paid, effect_of, expired, on_card, plan_refills, way_of
from tenuto.core.ledger import OVERAGE_BOOK
from tenuto.core.lifecycle import cancelled, started
from tenuto.core.money import BALANCE_MAX, parse_fraction
from tenuto.core.outcomes import Refusal
from tenuto.core.refill import new_refill
from tenuto.core.subscription import Offer, Step, StepKind
from tests.core.plan_life import PlanLife, offer_of, sold

APRIL: Final = datetime(2030, 4, 1, tzinfo=UTC)
BASIC: Final = offer_of(1, sold("Basic", 1000, 1000))
PRO: Final = offer_of(2, sold("Pro", 4000, 5000))


def begun(offer: Offer, **fields: Any) -> PlanLife:
    life = PlanLife(now=APRIL, **fields)
    life.start(offer)
    return life


def rows(life: PlanLife) -> list[tuple[str, int, str, str]]:
    """What the last step moved: denomination, amount, book, type."""
    _, effect, _ = life.steps[-1]
    own = [one for one in life.transactions if one.cause_id == effect.step_id]
    return [(one.denomination, one.amount, one.book, one.type) for one in own]


# --- the rows of a step -----------------------------------------------------------------------------------------------


def test_the_example_of_the_module() -> None:
    life = begun(BASIC)
    life.use("tokens", 250)
    life.wait(days=15)
    life.card = "slow"
    shown = life.change(PRO, "ariel")
    life.use("tokens", 20)
    life.answer()
    assert (shown.charge, life.last) == (3500, shown)
    assert rows(life) == [
        ("USD", -4000, "plan", "PLAN_CHANGE"),
        ("USD", 500, "proration", "PLAN_CHANGE"),
        ("tokens", -750, "expiry", "CANCEL_REMAINING"),
        ("tokens", 5000, "grant", "PLAN_CHANGE"),
    ]
    assert (life.amount("tokens"), life.left("tokens"), life.amount("USD"), life.paid) == (4980, 4980, 0, 4500)
    life.audit()


def test_every_row_says_what_it_is_of() -> None:
    life = begun(offer_of(1, sold("Year", {"YEARLY": 12_000}, 100, refill_cadence="MONTHLY")))
    assert {kind for _, _, _, kind in rows(life)} == {"PLAN_START"}
    life.wait(days=30)
    assert rows(life) == [("tokens", -100, "expiry", "CANCEL_REMAINING"), ("tokens", 100, "grant", "PLAN_RENEWAL")]
    assert {one.description for one in life.transactions if one.id > 6} == {"Year filled again"}
    life.wait(days=340)
    assert ("USD", -12_000, "plan", "PLAN_RENEWAL") in rows(life)


def test_ids_rise_from_the_first_and_none_is_given_twice() -> None:
    life = begun(BASIC)
    life.change(PRO, "snow_white")
    _, effect, _ = life.steps[-1]
    ids = [made.id for _, made in effect.moves if made] + [grant.id for grant in effect.grants if grant.plan_id == 2]
    assert len(set(ids)) == len(ids)
    assert min(ids) > effect.step_id
    assert max(ids) == effect.tick


def test_a_new_period_gets_the_id_of_its_step() -> None:
    life = begun(BASIC)
    _, effect, _ = life.steps[-1]
    assert life.running.period_id == effect.step_id
    assert [period.id for period in effect.periods] == [effect.step_id]
    assert {grant.period_id for grant in effect.grants} == {effect.step_id}


def test_balances_of_the_plan_are_there_from_the_start_also_empty_ones() -> None:
    life = begun(offer_of(1, sold("Empty", 0, {"tokens": 0, "images": 0})))
    assert set(life.state.balances) == {"tokens", "images"}
    assert life.transactions == []


def test_a_balance_that_would_hold_too_much_is_refused() -> None:
    life = begun(BASIC)
    life.adjust("tokens", BALANCE_MAX - 1000)
    with pytest.raises(Refusal) as found:
        life.change(PRO, "snow_white")
    assert found.value.code == "balance_out_of_range"


def test_an_end_opens_no_balance_and_moves_nothing_where_nothing_is_left() -> None:
    life = begun(offer_of(1, sold("Empty", 0, 0)))
    step = cancelled(life.around(), at_end=False, prorates=False)
    effect = effect_of(step, life.around(), life.state._replace(balances={}), BASIC.terms, tick=9, paid=0, now=APRIL)
    assert (effect.moves, effect.grants, effect.subscription.status) == ((), (), "cancelled")


# --- grants -----------------------------------------------------------------------------------------------------------


def test_the_price_of_a_period_is_spread_over_its_units() -> None:
    terms = sold("Three", 1000, {"images": 1, "seats": {"amount": 1, "variable_amount_cost": 3}, "tokens": 0})
    life = begun(offer_of(1, terms, units={"seats": 1}))
    prices = {grant.denomination: (grant.units, grant.price) for grant in life.grants.values()}
    assert prices == {"images": (1, 334), "seats": (2, 669)}
    assert sum(price for _, price in prices.values()) == 1003


def test_a_grant_says_until_when_and_why() -> None:
    life = begun(BASIC)
    (grant,) = life.grants.values()
    assert (grant.source, grant.priority, grant.plan_id, grant.until_at) == ("plan", 50, 1, life.period.end_at)
    assert (grant.reason, grant.expires_at, grant.created_at) == ("begins", None, APRIL)
    life.change(PRO, "snow_white")
    assert [one.reason for one in life.grants.values()] == ["begins", "changed"]


def test_credit_above_the_new_price_is_a_grant_of_money() -> None:
    life = begun(PRO)
    life.change(BASIC, "ariel")
    credit = next(grant for grant in life.grants.values() if grant.source == "credit")
    assert (credit.denomination, credit.units, credit.left, credit.priority) == ("USD", 3000, 3000, 200)
    assert (life.amount("USD"), life.left("USD")) == (3000, 3000)
    life.audit()


def test_credit_pays_first_what_was_owed() -> None:
    life = begun(PRO)
    life.use("USD", 300, book=OVERAGE_BOOK)
    life.change(BASIC, "ariel")
    credit = next(grant for grant in life.grants.values() if grant.source == "credit")
    assert (life.amount("USD"), credit.units, credit.left) == (2700, 3000, 2700)


def test_who_pays_by_invoice_gets_no_grant_of_money() -> None:
    life = begun(PRO, by_invoice=True)
    life.change(BASIC, "ariel")
    assert life.amount("USD") == -1000
    assert all(grant.source == "plan" for grant in life.grants.values())


def test_a_renewal_uses_up_credit_and_leaves_other_grants_of_money_alone() -> None:
    life = begun(PRO)
    life.change(BASIC, "ariel")
    gift = life.give("USD", 500)
    life.wait(days=30)
    lefts = {grant.source: grant.left for grant in life.grants.values() if grant.denomination == "USD"}
    assert (lefts, life.grants[gift.id].left, life.amount("USD")) == ({"credit": 2000, "manual": 500}, 500, 2500)


# --- grants whose time is over ----------------------------------------------------------------------------------------


def test_what_is_left_of_a_grant_ends_with_its_time() -> None:
    life = begun(BASIC)
    life.give("tokens", 200, days=5)
    life.give("tokens", 70, days=6)
    life.use("tokens", 1050)
    life.wait(days=5)
    life.expire()
    assert (life.amount("tokens"), life.transactions[-1].amount, life.transactions[-1].type) == (70, -150, "EXPIRY")
    life.expire()
    assert life.amount("tokens") == 70
    life.audit()


def test_a_grant_that_was_used_up_ends_without_a_move() -> None:
    life = begun(BASIC)
    given = life.give("tokens", 200, priority=10, days=5)
    life.use("tokens", 300)
    purse = life.purse("tokens", life.now, life.tick)
    at = APRIL + timedelta(days=5)
    after, gone, made = expired(purse, life.state, at=at, tick=99, now=at)
    assert ([grant.id for grant in gone], made, after.amount) == ([given.id], None, 900)
    none_yet = expired(purse, life.state, at=at - timedelta(seconds=1), tick=99, now=at)
    assert none_yet == (purse, (), None)


# --- who pays ---------------------------------------------------------------------------------------------------------

TOKENS: Final = offer_of(3, sold("Tokens", 100, {"images": 5}, denomination="tokens"))


def asked(
    offer: Offer, amount: int, *, by_invoice: bool = False, pending: int = 0, residue: str = "0"
) -> tuple[Step, Any]:
    """The start of a plan on a balance that holds so much."""
    life = PlanLife(now=APRIL, by_invoice=by_invoice)
    life.adjust(offer.terms.denomination, amount)
    for name, balance in life.state.balances.items():
        kept = balance._replace(pending=pending, residue=parse_fraction(residue))
        life.state = life.state._replace(balances={name: kept})
    return started(offer, life.around(offer)), life.around(offer)


def priced(price: int) -> Offer:
    return offer_of(1, sold("Any", price, 0))


WAYS: Final[dict[str, tuple[Offer, dict[str, Any], bool, int, Way]]] = {
    # plan, balance, has a card, limit
    "nothing to pay": (priced(0), {"amount": 0}, False, 0, "none"),
    "an invoice will ask": (BASIC, {"amount": 0, "by_invoice": True}, False, 0, "none"),
    "by card": (BASIC, {"amount": 0}, True, 0, "card"),
    "by card though money is there": (BASIC, {"amount": 5000}, True, 0, "card"),
    "money is there": (BASIC, {"amount": 1000}, False, 0, "balance"),
    "tokens are there": (TOKENS, {"amount": 100}, True, 0, "balance"),
    "tokens on credit": (TOKENS, {"amount": 40}, False, 60, "balance"),
}


@pytest.mark.parametrize(("offer", "balance", "has_card", "limit", "way"), WAYS.values(), ids=WAYS.keys())
def test_how_a_charge_is_paid(offer: Offer, balance: dict[str, Any], limit: int, way: Way, *, has_card: bool) -> None:
    step, around = asked(offer, **balance)
    assert way_of(step, around, has_card=has_card, limit=limit) == way


# charge, what the balance owes, what the step is, whether there is a card: how it is paid, and what is charged then.
LITTLE: Final[list[tuple[int, int, StepKind, bool, Way | None, int]]] = [
    (49, 0, "start", True, "none", 0),
    (49, 0, "start", False, None, 0),
    (49, 0, "renewal", False, "none", 0),
    (49, 0, "cancel", True, "none", 0),
    (50, 0, "start", True, "card", 50),
    (49, 1, "change", True, "card", 50),
    (40, 30, "change", True, "card", 70),
    (100_000_000, 0, "change", True, None, 0),
    (100_000_000, 0, "renewal", True, "card", 99_999_999),
]


@pytest.mark.parametrize(("charge", "owed", "kind", "has_card", "way", "charged"), LITTLE)
def test_what_is_too_little_or_too_much_for_a_card(
    charge: int, owed: int, kind: StepKind, way: Way | None, charged: int, *, has_card: bool
) -> None:
    step, around = asked(BASIC, -owed)
    step = replace(step, charge=charge, kind=kind)
    if way is None:
        with pytest.raises(Refusal):
            way_of(step, around, has_card=has_card, limit=0)
        return
    assert way_of(step, around, has_card=has_card, limit=0) == way
    paid = as_paid(step, way, around.state.balances.get("USD"))
    assert paid.charge == charged
    is_with_debt = way == "card" and charge < 50
    assert [line.amount for line in paid.lines if line.kind == "owed"] == ([owed] if is_with_debt else [])


REFUSED: Final[dict[str, tuple[Offer, dict[str, Any], int, str, dict[str, Any]]]] = {
    "no card and not enough": (BASIC, {"amount": 999}, 0, "payment_method_required", {}),
    "some of it is held": (BASIC, {"amount": 1200, "pending": 201}, 0, "payment_method_required", {}),
    "a limit is no money": (BASIC, {"amount": 0}, 9000, "payment_method_required", {}),
    "too few tokens": (TOKENS, {"amount": 40}, 0, "insufficient_balance", {"available": 40, "shortfall": 60}),
    "over the limit": (TOKENS, {"amount": 40}, 59, "credit_limit_reached", {"required": 100, "shortfall": 1}),
    "a fraction is owed": (TOKENS, {"amount": 100, "residue": "1/3"}, 0, "insufficient_balance", {"required": 101}),
    "some tokens are held": (TOKENS, {"amount": 100, "pending": 5}, 0, "insufficient_balance", {"pending": 5}),
}


@pytest.mark.parametrize(("offer", "balance", "limit", "code", "details"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_paid(
    offer: Offer, balance: dict[str, Any], limit: int, code: str, details: dict[str, Any]
) -> None:
    step, around = asked(offer, **balance)
    with pytest.raises(Refusal) as found:
        way_of(step, around, has_card=False, limit=limit)
    assert (found.value.code, found.value.details | details) == (code, found.value.details)


def test_more_than_a_card_takes_is_refused() -> None:
    step, around = asked(BASIC, 0)
    most = maximum("USD")
    assert way_of(replace(step, charge=most), around, has_card=True, limit=0) == "card"
    with pytest.raises(Refusal) as found:
        way_of(replace(step, charge=most + 1), around, has_card=True, limit=0)
    assert (found.value.code, found.value.details) == ("amount_not_chargeable", {"minimum": 50, "maximum": most})


def test_a_plan_is_paid_from_tokens() -> None:
    life = PlanLife(now=APRIL)
    life.adjust("tokens", 250)
    life.start(TOKENS)
    assert (life.amount("tokens"), life.amount("images"), life.paid) == (150, 5, 0)
    life.wait(days=30)
    assert life.amount("tokens") == 50
    life.audit()


CHARGES: Final = [
    # to be charged, currency, asked of the card (bar R-5)
    (1001, "USD", 1001),
    (500, "JPY", 500),
    (5124, "KWD", 5130),
    (5120, "KWD", 5120),
    (501, "MGA", 600),
]


@pytest.mark.parametrize(("charge", "currency", "on"), CHARGES)
def test_a_card_is_asked_for_what_it_can_count(charge: int, currency: str, on: int) -> None:
    assert on_card(charge, currency) == on


# --- refills that a plan makes ----------------------------------------------------------------------------------------

REFILLS: Final = sold(
    "Refills",
    1000,
    {
        "tokens": {
            "amount": 10,
            "auto_refill_amount": 500,
            "auto_refill_threshold": 50,
            "auto_refill_charge_amount": 700,
        },
        "images": {
            "amount": 10,
            "overage_charge_amount": "3",
            "overage_charge_denomination": "USD",
            "auto_refill_amount": 100,
            "auto_refill_threshold": 5,
        },
        "seats": 3,
    },
)


def test_a_plan_lets_its_balances_fill_themselves() -> None:
    known = begun(BASIC).running
    keep, over = plan_refills(REFILLS, [], known, APRIL)
    told = [(one.denomination, one.amount, one.threshold, one.charge_amount, one.charge_denomination) for one in keep]
    assert told == [("images", 100, 5, 300, "USD"), ("tokens", 500, 50, 700, "USD")]
    assert all(one.by_plan and not one.is_monthly for one in keep)
    assert over == ()


def test_what_the_company_set_itself_is_left_alone_and_what_an_old_plan_made_is_over() -> None:
    known = begun(BASIC).running
    own = new_refill(known.account_id, "tokens", 1, APRIL)._replace(amount=7, threshold=1)
    old = new_refill(known.account_id, "seats", 1, APRIL)._replace(by_plan=True)
    other = new_refill(known.account_id, "videos", 1, APRIL)
    kept = new_refill(known.account_id, "images", 1, APRIL)._replace(by_plan=True, amount=1, payment_id=42)
    keep, over = plan_refills(REFILLS, [own, old, other, kept], known, APRIL)
    assert [(one.denomination, one.amount, one.payment_id) for one in keep] == [("images", 100, 42)]
    assert over == ("seats",)


# --- late, and between ------------------------------------------------------------------------------------------------


def test_what_was_given_by_hand_while_a_card_was_asked_stays_whole() -> None:
    life = begun(BASIC)
    life.use("tokens", 30)
    life.card = "slow"
    life.change(PRO, "ariel")
    life.use("tokens", 20)
    gift = life.give("tokens", 50)
    life.answer()
    assert (life.amount("tokens"), life.grants[gift.id].left, life.left("tokens")) == (5030, 50, 5030)


def test_three_months_at_once_come_to_the_same_as_one_by_one() -> None:
    late, prompt = begun(BASIC, sweeps_late=True), begun(BASIC)
    for life in (late, prompt):
        life.use("tokens", 300)
        life.wait(days=65)
        life.use("tokens", 100)
        life.wait(days=30)
        life.sweep()
    cancelled_then = [step.cancelled for step, _, _ in late.steps]
    assert cancelled_then == [{}, {"tokens": 700}, {"tokens": 1000}, {"tokens": 900}]
    assert cancelled_then == [step.cancelled for step, _, _ in prompt.steps]
    assert (late.amount("tokens"), late.paid) == (prompt.amount("tokens"), prompt.paid) == (1000, 4000)
