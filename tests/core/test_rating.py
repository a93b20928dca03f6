"""From a quantity to a cost: each row an event of a month that had seen something before."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tenuto.core.catalog import price_version
from tenuto.core.money import exact, exact_text
from tenuto.core.rating import EMPTY, Counter, count, rate
from tests.core.account_life import LONG_AGO, fraction
from tests.core.ledger_language import expected, live

EXACT = {
    "a quantity may have nine places": """
        price GB 2 in USD
        balance USD 5
        GB 0.000000001                    -> USD 5 + 1/500000000
        GB 1.499999999                    -> USD 2
    """,
    "thirds and sevenths are exact": """
        price MINUTE 1 per 7 in USD
        price SECOND 1 per 60 in USD
        balance USD 5
        MINUTE                            -> USD 5 + 1/7
        SECOND                            -> USD 5 + 67/420
        MINUTE 6                          -> USD 4 + 1/60
        SECOND 59                         -> USD 3
    """,
    "a million events of 0.0003 units drift by nothing": """
        price DROP 0.0003 in USD
        balance USD 1000
        DROP 999999                       -> USD 701 + 9997/10000
        DROP                              -> USD 700
    """,
}

COUNTED = {
    "tiers of a month: each unit at the price of the tier it lies in": """
        price STORE graduated 10:2 rest:1 in credits
        balance credits 100
        STORE 7                           -> credits 86
        STORE 7                           -> credits 76
        STORE                             -> credits 75
        ledger credits                    -> 1 event -14, 2 event -10, 3 event -1
    """,
    "several events in one request count on": """
        price STORE graduated 10:2 rest:1 in credits
        balance credits 100
        STORE 7; STORE 7; STORE           -> credits 75
        ledger credits                    -> 1 event -25
    """,
    "volume: the month's total at the price of its tier, less what was billed, never below zero": """
        price STORE volume 10:2 rest:1 in credits
        balance credits 100
        STORE 10                          -> credits 80
        STORE                             -> credits 80
        STORE 8                           -> credits 80
        STORE 3                           -> credits 78
    """,
    "packages are paid when their first unit is used": """
        price STORE 5 per 10 package in credits
        balance credits 100
        STORE                             -> credits 95
        STORE 9                           -> credits 95
        STORE 0.5                         -> credits 90
        STORE 10                          -> credits 85
    """,
    "free units are counted before tiers": """
        price STORE graduated 10:2 rest:1 in credits free 4
        balance credits 100
        STORE 5                           -> credits 98
        STORE 7                           -> credits 84
        STORE 3                           -> credits 79
    """,
    "the month is the calendar month in the company's zone, by when the event occurred": """
        zone Australia/Sydney
        price CHAT 1 in credits free 2
        balance credits 100
        CHAT 2                                -> credits 100
        CHAT at 2029-12-31T13:00:00Z          -> credits 99
        CHAT at 2029-12-31T12:59:59.999999Z   -> credits 99
        CHAT at 2029-12-20T00:00Z             -> credits 99
        CHAT at 2029-12-20T00:00Z             -> credits 98
    """,
    "a new month starts at nothing": """
        price CHAT 1 in credits free 2
        balance credits 100
        CHAT 3                            -> credits 99
        wait 17d
        CHAT 3                            -> credits 98
    """,
    "a new version of a price goes on counting": """
        price CHAT 1 in credits free 2
        balance credits 100
        CHAT 2                            -> credits 100
        wait 1d
        price CHAT 5 in credits free 3 since +0s
        CHAT 2                            -> credits 95
    """,
    "two prices of a type count apart": """
        price CHAT 1 in credits free 1
        price CHAT 2 in credits free 1 where model="large"
        price CHAT 3 in USD free 2
        balance credits 100
        balance USD 100
        CHAT                              -> USD 100, credits 100
        CHAT where model="large"          -> USD 100, credits 100
        CHAT                              -> USD 97, credits 99
    """,
    "a hold counts from when it is pushed, and only for what it is settled for": """
        price CHAT 1 in credits free 3
        balance credits 100
        CHAT 3 pending as hold            -> credits 100
        CHAT                              -> credits 99
        complete hold quantity 1          -> credits 99
        CHAT                              -> credits 99
        CHAT                              -> credits 98
    """,
    "a hold at a given cost counts the units that it was settled with": """
        price CHAT 2 in credits free 1
        balance credits 100
        CHAT 5 pending as hold            -> credits 100 (8 held)
        complete hold quantity 1 cost 7   -> credits 93
        CHAT                              -> credits 91
        delete hold                       -> credits 98
        CHAT                              -> credits 96
    """,
    "a hold that is cancelled or lapsed leaves no count": """
        price CHAT 1 in credits free 2
        balance credits 100
        CHAT 2 pending as a               -> credits 100
        cancel a                          -> credits 100
        CHAT 2 pending as b               -> credits 100
        wait 1h
        sweep                             -> credits 100
        CHAT 2                            -> credits 100
        CHAT                              -> credits 99
    """,
    "a hold on tiers is settled where it stood when it was pushed": """
        price STORE graduated 10:2 rest:1 in credits
        balance credits 100
        STORE 8                           -> credits 84
        STORE 8 pending as hold           -> credits 84 (10 held)
        STORE 4                           -> credits 80 (10 held)
        complete hold quantity 2          -> credits 76
        STORE                             -> credits 75
    """,
    "volume settled for less is billed less": """
        price STORE volume 10:2 rest:1 in credits
        balance credits 100
        STORE 8 pending as hold           -> credits 100 (16 held)
        complete hold quantity 3          -> credits 94
        STORE 2                           -> credits 90
    """,
    "minimum and cap bound one event": """
        price SCAN 2 in credits minimum 3 cap 5
        balance credits 100
        SCAN                              -> credits 97
        SCAN 2                            -> credits 93
        SCAN 3                            -> credits 88
        SCAN 900                          -> credits 83
        ledger credits                    -> 1 event -3, 2 event -4, 3 event -5, 4 event -5
    """,
    "a minimum is not raised on what the free units cover": """
        price SCAN 2 in credits minimum 3 free 2
        balance credits 100
        SCAN                              -> credits 100
        SCAN 2                            -> credits 97
        SCAN                              -> credits 94
    """,
}

HIGHEST = {
    "only the excess over the month's highest value is charged, and the transaction says which": """
        price SEATS 2 in credits highest
        balance credits 100
        SEATS 4                           -> credits 92
        SEATS 3                           -> credits 92
        SEATS 10                          -> credits 80
        SEATS 10                          -> credits 80
        ledger credits                    -> 1 event -8 highest 4, 2 event -12 highest 10 after 1
        wait 31d
        SEATS 1                           -> credits 78
        ledger credits  -> 1 event -8 highest 4, 2 event -12 highest 10 after 1, 3 event -2 highest 1
    """,
    "two rises in one request make one transaction, at the highest": """
        price SEATS 2 in credits highest
        balance credits 100
        SEATS 4; SEATS 6; SEATS 5         -> credits 88
        SEATS 7                           -> credits 86
        ledger credits                    -> 1 event -12 highest 6, 2 event -2 highest 7 after 1
    """,
    "two prices on one balance, each with its own highest": """
        price SEATS 2 in credits highest
        price DISKS 1 in credits highest
        balance credits 100
        SEATS 4; DISKS 5                  -> credits 87
        SEATS 5                           -> credits 85
        DISKS 6                           -> credits 84
        ledger credits  -> 1 event -13 highest 5, 2 event -2 highest 5 after 1, 3 event -1 highest 6 after 1
    """,
    "a hold takes its excess when it is pushed, and its transaction says the value": """
        price SEATS 2 in credits highest
        balance credits 100
        SEATS 4 pending as hold           -> credits 100 (8 held)
        SEATS 6                           -> credits 96 (8 held)
        complete hold                     -> credits 88
        SEATS 7                           -> credits 86
        ledger credits  -> 1 event -4 highest 6, 2 event -8 highest 4 after 1, 3 event -2 highest 7 after 1
    """,
    "a hold settled at its value is the highest for the next": """
        price SEATS 2 in credits highest
        balance credits 100
        SEATS 4 pending as hold           -> credits 100 (8 held)
        complete hold quantity 3          -> credits 94
        SEATS 5                           -> credits 90
        ledger credits                    -> 1 event -6 highest 3, 2 event -4 highest 5 after 1
    """,
    "a hold settled below the highest value before it raised nothing": """
        price SEATS 2 in credits highest
        balance credits 100
        SEATS 4                           -> credits 92
        SEATS 6 pending as hold           -> credits 92 (4 held)
        complete hold quantity 2          -> credits 92
        SEATS 5                           -> credits 90
        ledger credits                    -> 1 event -8 highest 4, 2 event -2 highest 5 after 1
    """,
    "nor did one that was settled so at a given cost": """
        price SEATS 2 in credits highest
        balance credits 100
        SEATS 4                           -> credits 92
        SEATS 6 pending as hold           -> credits 92 (4 held)
        complete hold quantity 2 cost 1   -> credits 91
        ledger credits                    -> 1 event -8 highest 4, 2 event -1
    """,
    "a value taken back is charged again when it is reached again": """
        price SEATS 2 in credits highest
        balance credits 100
        SEATS 4 as seats                  -> credits 92
        delete seats                      -> credits 100
        SEATS 4                           -> credits 92
    """,
    "free units are counted on the value": """
        price SEATS 2 in credits highest free 3
        balance credits 100
        SEATS 2                           -> credits 100
        SEATS 5                           -> credits 96
        SEATS 5                           -> credits 96
    """,
}

LIVES = EXACT | COUNTED | HIGHEST


@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES.keys())
def test_life(life: str) -> None:
    assert live(life) == expected(life)


GRADUATED = {
    "model": "graduated",
    "tiers": [{"up_to": 10, "amount": "2"}, {"up_to": 20, "amount": "1"}, {"up_to": None, "amount": "0.5"}],
}
VOLUME = {**GRADUATED, "model": "volume"}
PACKAGE = {"model": "package", "amount": "5", "per": 10}

ROWS: list[tuple[str, Mapping[str, object], str, str, str, str, str]] = [
    # rule, terms, units before, billed before, quantity, cost, lines
    ("per unit", {"amount": "3"}, "0", "0", "7", "21", "per_unit 7 x 3 = 21"),
    ("per unit, a part of one", {"amount": "3"}, "0", "0", "0.5", "1.5", "per_unit 0.5 x 3 = 1.5"),
    ("none", {"amount": "3"}, "0", "0", "0", "0", ""),
    (
        "a million units",
        {"amount": "15", "per": 10**6},
        "0",
        "0",
        "4808",
        "0.07212",
        "per_unit 4808 x 0.000015 = 0.07212",
    ),
    ("a seventh", {"amount": "1", "per": 7}, "0", "0", "3", "3/7", "per_unit 3 x 1/7 = 3/7"),
    ("the first package", PACKAGE, "0", "0", "1", "5", "package 1 x 5 = 5"),
    ("a full package", PACKAGE, "0", "0", "10", "5", "package 1 x 5 = 5"),
    ("one unit more", PACKAGE, "0", "0", "11", "10", "package 2 x 5 = 10"),
    ("in a package that is paid", PACKAGE, "1", "5", "9", "0", "package 0 x 5 = 0"),
    ("the next package by a trace", PACKAGE, "10", "5", "0.000000001", "5", "package 1 x 5 = 5"),
    ("the first tier", GRADUATED, "0", "0", "10", "20", "tier 10 x 2 = 20"),
    ("across two tiers", GRADUATED, "8", "16", "4", "6", "tier 2 x 2 = 4, tier 2 x 1 = 2"),
    ("across all tiers", GRADUATED, "0", "0", "30", "35", "tier 10 x 2 = 20, tier 10 x 1 = 10, tier 10 x 0.5 = 5"),
    ("from the edge of a tier", GRADUATED, "10", "20", "1", "1", "tier 1 x 1 = 1"),
    ("in the last tier", GRADUATED, "99", "69.5", "1", "0.5", "tier 1 x 0.5 = 0.5"),
    ("across an edge by parts", GRADUATED, "9.5", "19", "1", "1.5", "tier 0.5 x 2 = 1, tier 0.5 x 1 = 0.5"),
    ("volume in the first tier", VOLUME, "0", "0", "10", "20", "volume 10 x 2 = 20"),
    ("volume into the second tier", VOLUME, "10", "20", "1", "0", "volume 1 x 1 = 0"),
    ("volume, more than was billed", VOLUME, "10", "20", "10", "0", "volume 10 x 1 = 0"),
    ("volume, the rest of the total", VOLUME, "18", "18", "2", "2", "volume 2 x 1 = 2"),
    ("volume in the last tier", VOLUME, "20", "20", "40", "10", "volume 40 x 0.5 = 10"),
    ("free", {"amount": "3", "free_units": 5}, "0", "0", "5", "0", "free_units 5 x 0 = 0"),
    ("partly free", {"amount": "3", "free_units": 5}, "3", "0", "4", "6", "free_units 2 x 0 = 0, per_unit 2 x 3 = 6"),
    ("no longer free", {"amount": "3", "free_units": 5}, "5", "0", "1", "3", "per_unit 1 x 3 = 3"),
    ("free before tiers", {**GRADUATED, "free_units": 4}, "5", "2", "7", "14", "tier 7 x 2 = 14"),
    (
        "free before packages",
        {**PACKAGE, "free_units": 4},
        "0",
        "0",
        "5",
        "5",
        "free_units 4 x 0 = 0, package 1 x 5 = 5",
    ),
    (
        "free before volume",
        {**VOLUME, "free_units": 4},
        "0",
        "0",
        "15",
        "11",
        "free_units 4 x 0 = 0, volume 11 x 1 = 11",
    ),
    ("below the minimum", {"amount": "1", "minimum": "3"}, "0", "0", "1", "3", "per_unit 1 x 1 = 1, minimum 1 x 3 = 2"),
    ("at the minimum", {"amount": "1", "minimum": "3"}, "0", "0", "3", "3", "per_unit 3 x 1 = 3"),
    ("above the cap", {"amount": "1", "cap": "3"}, "0", "0", "5", "3", "per_unit 5 x 1 = 5, cap 1 x 3 = -2"),
    ("at the cap", {"amount": "1", "cap": "3"}, "0", "0", "3", "3", "per_unit 3 x 1 = 3"),
    (
        "minimum and cap alike",
        {"amount": "1", "minimum": "3", "cap": "3"},
        "0",
        "0",
        "1",
        "3",
        "per_unit 1 x 1 = 1, minimum 1 x 3 = 2",
    ),
    (
        "covered whole, no minimum",
        {"amount": "1", "minimum": "3", "free_units": 5},
        "0",
        "0",
        "5",
        "0",
        "free_units 5 x 0 = 0",
    ),
    (
        "covered in part, the minimum",
        {"amount": "1", "minimum": "3", "free_units": 5},
        "4",
        "0",
        "2",
        "3",
        "free_units 1 x 0 = 0, per_unit 1 x 1 = 1, minimum 1 x 3 = 2",
    ),
    (
        "a paid package, the minimum",
        {**PACKAGE, "minimum": "1"},
        "1",
        "5",
        "1",
        "1",
        "package 0 x 5 = 0, minimum 1 x 1 = 1",
    ),
    ("a new highest value", {"amount": "2", "max_value_billing": True}, "4", "8", "10", "12", "per_unit 6 x 2 = 12"),
    ("not the highest value", {"amount": "2", "max_value_billing": True}, "4", "8", "3", "0", ""),
    ("the highest value again", {"amount": "2", "max_value_billing": True}, "4", "8", "4", "0", ""),
    (
        "a highest value in tiers",
        {**GRADUATED, "max_value_billing": True},
        "8",
        "16",
        "12",
        "6",
        "tier 2 x 2 = 4, tier 2 x 1 = 2",
    ),
    (
        "a highest value, partly free",
        {"amount": "2", "max_value_billing": True, "free_units": 6},
        "4",
        "0",
        "10",
        "8",
        "free_units 2 x 0 = 0, per_unit 4 x 2 = 8",
    ),
]


@pytest.mark.parametrize(
    ("terms", "before", "billed", "quantity", "cost", "lines"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_a_quantity_becomes_a_cost(
    terms: Mapping[str, object], before: str, billed: str, quantity: str, cost: str, lines: str
) -> None:
    version = price_version(id=1, price_id=1, number=1, denomination="USD", effective_at=LONG_AGO, terms=terms)
    rated = rate(version, exact(quantity), Counter(exact(before), exact(billed)))
    spelled = [
        f"{line.what} {exact_text(line.units)} x {exact_text(line.unit)} = {exact_text(line.exact)}"
        for line in rated.lines
    ]
    assert ", ".join(spelled) == lines
    assert exact_text(rated.cost) == cost
    assert fraction(rated.cost) == sum(fraction(line.exact) for line in rated.lines), "the lines sum to the cost"


def test_the_example_of_the_module() -> None:
    terms = {
        "model": "graduated",
        "tiers": [{"up_to": 10, "amount": "2"}, {"up_to": None, "amount": "1"}],
        "free_units": 4,
        "minimum": "3",
    }
    version = price_version(id=1, price_id=1, number=1, denomination="USD", effective_at=LONG_AGO, terms=terms)
    assert exact_text(rate(version, exact("7"), Counter(exact("5"), exact("2"))).cost) == "14"


def test_a_counter_adds_up_and_takes_back() -> None:
    after = count(count(EMPTY, exact("7"), exact("2.5")), exact("-7"), exact("-2.5"))
    assert (exact_text(after.units), exact_text(after.billed)) == ("0", "0")
