"""Prices: which one covers an event, which version was in force, and which terms are no price at all."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import pytest

from tenuto.core.catalog import PER_MAX, PriceVersion, Property, Tier, price_version
from tenuto.core.money import Exact, exact
from tenuto.core.outcomes import Refusal
from tests.core.account_life import LONG_AGO, START, Life
from tests.core.ledger_language import expected, live

LIVES = {
    "the most specific match wins, within each denomination": """
        price CHAT 1 in credits
        price CHAT 5 in credits where model="large"
        price CHAT 9 in credits where model="large" where fast=true
        price CHAT 7 in USD where fast=true
        balance credits 100
        balance USD 100
        CHAT                              -> credits 99
        CHAT where model="small"          -> credits 98
        CHAT where model="large"          -> credits 93
        CHAT where model="large" where fast=true -> USD 93, credits 84
        CHAT where fast=true where model="large" where who="me" -> USD 86, credits 75
        CHAT where fast=1                 -> credits 74
        CHAT where fast="true"            -> credits 73
        CHAT where model=null             -> credits 72
    """,
    "of two matches of one length the older price wins": """
        price CHAT 2 in credits where b=1 since 2029-01-01T00:00Z
        price CHAT 1 in credits where a=1 since 2028-01-01T00:00Z
        balance credits 100
        CHAT where a=1 where b=1          -> credits 99
    """,
    "a match sees numbers, not how they were written": """
        price CHAT 2 in credits where size=1
        balance credits 100
        CHAT where size=1.0               -> credits 98
        CHAT where size=true              -> recorded
    """,
    "where nothing matches, the event is unpriced": """
        price CHAT 5 in credits where model="large"
        balance credits 100
        CHAT                              -> recorded
        CHAT gated where model="small"    -> recorded
    """,
    "the version in force when the event occurred prices it, from its first instant on": """
        price CHAT 2 in credits since 2030-01-01T00:00Z
        price CHAT 3 in credits since 2030-01-10T00:00Z
        balance credits 100
        CHAT at 2030-01-10T00:00:00Z        -> credits 97
        CHAT at 2030-01-09T23:59:59.999999Z -> credits 95
        CHAT at 2029-12-25T00:00Z           -> credits 93
        CHAT                                -> credits 90
    """,
    "the version of then, for prices that need more than a multiplication too": """
        price CHAT 2 in credits cap 3 since 2030-01-01T00:00Z
        price CHAT 3 in credits cap 4 since 2030-01-10T00:00Z
        price CHAT 0 in credits cap 4 where free=true
        balance credits 100
        CHAT 2 at 2030-01-09T00:00Z       -> credits 97
        CHAT 2                            -> credits 93
        CHAT 2 where free=true            -> credits 93
    """,
}


@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES.keys())
def test_life(life: str) -> None:
    assert live(life) == expected(life)


def version(**terms: object) -> PriceVersion:
    return price_version(id=1, price_id=1, number=1, denomination="USD", effective_at=LONG_AGO, terms=terms)


@pytest.mark.parametrize(
    ("amount", "per", "unit"),
    [
        ("15", 1_000_000, Exact(3, 200_000)),
        ("0.000015", 1, Exact(3, 200_000)),
        ("2", 1, Exact(2, 1)),
        ("2", None, Exact(2, 1)),
        ("0", 7, Exact(0, 1)),
        (3, 7, Exact(3, 7)),
        ("0.000000000001", PER_MAX, Exact(1, 10**24)),
    ],
)
def test_equal_prices_are_equal_however_they_are_spelled(amount: object, per: int | None, unit: Exact) -> None:
    assert version(amount=amount, per=per).unit == unit


@pytest.mark.parametrize("per", [1, 2, 3, 7, 60, 3600, 1024, 10**6, 10**12, 2 * 3 * 5 * 7])
def test_a_price_may_be_for_so_many_units(per: int) -> None:
    assert version(amount="1", per=per).per == per


def tier(up_to: object, amount: object = "1", **more: object) -> dict[str, object]:
    return {"up_to": up_to, "amount": amount, **more}


LAST = tier(None)

REFUSED: list[tuple[str, dict[str, object], str, str]] = [
    # what is wrong, terms, code, path
    ("an unknown model", {"model": "surprise", "amount": "1"}, "invalid_field", "model"),
    ("no amount", {}, "missing_field", "amount"),
    ("per has another prime factor", {"amount": "1", "per": 11}, "invalid_field", "per"),
    ("per has another prime factor among good ones", {"amount": "1", "per": 130}, "invalid_field", "per"),
    ("per is nothing", {"amount": "1", "per": 0}, "invalid_field", "per"),
    ("per is nothing, as text", {"amount": "1", "per": "0"}, "invalid_field", "per"),
    ("per is negative", {"amount": "1", "per": -2}, "invalid_field", "per"),
    ("per is too large", {"amount": "1", "per": 10**13}, "invalid_field", "per"),
    ("tiers on a flat price", {"amount": "1", "tiers": [LAST]}, "invalid_field", "tiers"),
    ("tiers on packages", {"model": "package", "amount": "1", "tiers": [LAST]}, "invalid_field", "tiers"),
    ("no tiers", {"model": "volume"}, "invalid_field", "tiers"),
    ("an empty list of tiers", {"model": "graduated", "tiers": []}, "invalid_field", "tiers"),
    ("tiers that are no list", {"model": "graduated", "tiers": 5}, "invalid_field", "tiers"),
    ("an amount beside tiers", {"model": "volume", "tiers": [LAST], "amount": "1"}, "invalid_field", "amount"),
    ("an end to the last tier", {"model": "volume", "tiers": [tier(5)]}, "invalid_field", "tiers[0].up_to"),
    ("no end to another tier", {"model": "volume", "tiers": [LAST, LAST]}, "invalid_field", "tiers[0].up_to"),
    ("a tier that ends at nothing", {"model": "volume", "tiers": [tier(0), LAST]}, "invalid_field", "tiers[0].up_to"),
    ("tiers that end alike", {"model": "volume", "tiers": [tier(5), tier(5), LAST]}, "invalid_field", "tiers[1].up_to"),
    ("tiers that fall", {"model": "volume", "tiers": [tier(5), tier(4), LAST]}, "invalid_field", "tiers[1].up_to"),
    ("a tier without an amount", {"model": "volume", "tiers": [tier(None, None)]}, "missing_field", "tiers[0].amount"),
    ("a tier per 11", {"model": "volume", "tiers": [tier(None, per=11)]}, "invalid_field", "tiers[0].per"),
    (
        "too many tiers",
        {"model": "volume", "tiers": [*(tier(end) for end in range(1, 101)), LAST]},
        "invalid_field",
        "tiers",
    ),
    ("a minimum above the cap", {"amount": "1", "minimum": "5", "cap": "4.99"}, "invalid_field", "minimum"),
]


@pytest.mark.parametrize(("terms", "code", "path"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_terms_that_are_no_price(terms: Mapping[str, object], code: str, path: str) -> None:
    with pytest.raises(Refusal) as refused:
        version(**terms)
    assert (refused.value.code, refused.value.details["path"]) == (code, path)


@pytest.mark.parametrize(
    ("terms", "is_plain", "is_counted"),
    [
        ({"amount": "1"}, True, False),
        ({"amount": "1", "minimum": "0"}, False, False),
        ({"amount": "1", "cap": "5"}, False, False),
        ({"amount": "1", "free_units": 1}, False, True),
        ({"amount": "1", "free_units": 0}, True, False),
        ({"amount": "1", "max_value_billing": True}, False, True),
        ({"model": "package", "amount": "1", "per": 10}, False, True),
        ({"model": "volume", "tiers": [LAST]}, False, True),
    ],
)
def test_which_prices_need_a_counter(
    terms: Mapping[str, object],
    is_plain: bool,  # noqa: FBT001 - a column
    is_counted: bool,  # noqa: FBT001 - a column
) -> None:
    made = version(**terms)
    assert (made.is_plain, made.is_counted) == (is_plain, is_counted)


def test_tiers_may_begin_at_one_unit_and_be_a_hundred() -> None:
    made = version(model="volume", tiers=[*(tier(end) for end in range(1, 100)), LAST])
    assert [tier.up_to for tier in made.tiers] == [*range(1, 100), None]


def test_a_version_keeps_its_terms() -> None:
    made = version(
        model="graduated",
        tiers=[tier(10, "2", per=4), tier(None, "0.1")],
        free_units=3,
        minimum="0.5",
        cap="0.5",
        max_value_billing=False,
    )
    assert made.tiers == (Tier(10, Exact(1, 2)), Tier(None, Exact(1, 10)))
    assert (made.model, made.free_units, made.minimum, made.cap) == ("graduated", 3, exact("0.5"), exact("0.5"))
    assert version(model="package", amount="5", per=10).unit == (5, 1)


@pytest.mark.parametrize(
    ("match", "properties", "covers"),
    [
        ({}, {}, True),
        ({}, {"model": "large"}, True),
        ({"model": "large"}, {"model": "large", "user": 7}, True),
        ({"model": "large"}, {}, False),
        ({"model": "large"}, {"model": "small"}, False),
        ({"model": "large"}, {"model": ["large"]}, False),
        ({"model": None}, {"model": None}, True),
        ({"model": None}, {}, False),
        ({"fast": True}, {"fast": True}, True),
        ({"fast": True}, {"fast": 1}, False),
        ({"fast": 1}, {"fast": True}, False),
        ({"fast": False}, {"fast": 0}, False),
        ({"size": 1}, {"size": 1}, True),
        ({"size": 1}, {"size": "1"}, False),
        ({"a": 1, "b": 2}, {"a": 1, "b": 2}, True),
        ({"a": 1, "b": 2}, {"a": 1}, False),
    ],
)
def test_whether_a_price_covers_an_event(
    match: Mapping[str, Property],
    properties: Mapping[str, object],
    covers: bool,  # noqa: FBT001 - a column
) -> None:
    life = Life()
    life.price("CHAT", "USD", {"amount": "1"}, match=match)
    (price,) = life.prices.values()
    assert price.covers(properties) is covers
    assert bool(life.terms.versions_for("CHAT", properties, START)) is covers


def test_the_latest_version_prices_what_occurs_now() -> None:
    life = Life()
    first = life.price("CHAT", "USD", {"amount": "1"}, since=LONG_AGO)
    second = life.price("CHAT", "USD", {"amount": "2"}, since=START - timedelta(days=1))
    third = life.price("CHAT", "USD", {"amount": "3"}, since=START)
    (price,) = life.prices.values()
    assert price.latest == third == price.version_at(START)
    assert second == price.version_at(START - timedelta(days=1))
    assert first == price.version_at(LONG_AGO) == price.version_at(LONG_AGO - timedelta(days=1))
    assert life.terms.versions == {1: first, 2: second, 3: third}


@pytest.mark.parametrize(
    ("prices", "is_single"),
    [
        ([("CHAT", "USD", {})], True),
        ([("CHAT", "USD", {"a": 1})], False),
        ([("CHAT", "USD", {}), ("CHAT", "USD", {"a": 1})], False),
        ([("CHAT", "USD", {}), ("CHAT", "credits", {})], False),
        ([("CHAT", "USD", {}), ("READ", "USD", {})], True),
    ],
)
def test_the_common_case_is_found_at_one_look_up(
    prices: list[tuple[str, str, dict[str, Property]]],
    is_single: bool,  # noqa: FBT001 - a column
) -> None:
    life = Life()
    for kind, denomination, match in prices:
        life.price(kind, denomination, {"amount": "1"}, match=match)
    assert ("CHAT" in life.terms.single) is is_single
