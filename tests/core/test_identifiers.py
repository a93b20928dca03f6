"""Public ids."""

from __future__ import annotations

import pytest

from tenuto.core.identifiers import ID_MAX, read, read_of_account, spell, spell_of_account

ACCOUNT_ID = 36**7


@pytest.mark.parametrize(
    ("prefix", "number", "text"),
    [
        ("a", ACCOUNT_ID, "a_10000000"),
        ("c", 0, "c_00000000"),
        ("ep", 35, "ep_0000000z"),
        ("u", 36, "u_00000010"),
        ("w", ID_MAX, "w_zzzzzzzz"),
    ],
)
def test_an_id_is_a_prefix_and_eight_characters(prefix: str, number: int, text: str) -> None:
    assert spell(prefix, number) == text
    assert read(prefix, text) == number


@pytest.mark.parametrize(
    ("tick", "text"),
    [
        (0, "e_100000000000000000"),
        (1_700_000_000_000_000, "e_10000000gqll7vatq8"),
        (36**10 - 1, "e_10000000zzzzzzzzzz"),
    ],
)
def test_an_id_of_an_account_carries_its_account(tick: int, text: str) -> None:
    assert spell_of_account("e", ACCOUNT_ID, tick) == text
    assert read_of_account("e", text) == (ACCOUNT_ID, tick)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a_",
        "a_1000000",
        "a_100000000",
        "A_10000000",
        "a-10000000",
        "c_10000000",
        "a_1000000A",
        "a_1000000-",
        "a_+1000000",
        "a_10_00000",
        "a_ 1000000",
        "a_1000000\u0661",
        "a_10000000\n",
    ],
)
def test_what_is_not_spelled_so_is_no_id(text: str) -> None:
    assert read("a", text) is None
    assert read_of_account("a", text) is None


def test_kinds_are_not_mistaken_for_each_other() -> None:
    event_id = spell_of_account("e", ACCOUNT_ID, 7)
    assert read_of_account("t", event_id) is None
    assert read("e", event_id) is None
    assert read_of_account("e", spell("e", ACCOUNT_ID)) is None


def test_ids_of_an_account_sort_by_time_as_text() -> None:
    ticks = [0, 9, 10, 35, 36, 1295, 1296, 1_699_999_999_999_999, 1_700_000_000_000_000, 36**10 - 1]
    texts = [spell_of_account("e", ACCOUNT_ID, tick) for tick in ticks]
    assert texts == sorted(texts)
