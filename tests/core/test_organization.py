"""Who stands behind a token, who pays in a tree, and whether one more of something is covered."""

from __future__ import annotations

import re

import pytest

from tenuto.core.organization import (
    COUNTRIES,
    CURRENCIES,
    DEPTH_MAX,
    ID_MAX_CHARACTERS,
    READ_SCOPE,
    SYMBOLS,
    TAX_TYPES,
    VERIFIED_TYPES,
    WRITE_SCOPE,
    Claims,
    Cleared,
    clear,
    currency_of,
    flag_of,
    is_name,
    path_to_root,
    read_claims,
    tax_country,
)
from tenuto.core.outcomes import Refusal


def code_of(given: dict[str, object]) -> str:
    with pytest.raises(Refusal) as refused:
        read_claims(given)
    return refused.value.code


# --- claims -----------------------------------------------------------------------------------------------------------


def test_a_token_with_nothing_but_an_organization_gets_the_defaults() -> None:
    assert read_claims({"id": "org-1"}) == Claims("org-1", None, "UTC", frozenset(), None)


def test_all_claims_are_read() -> None:
    given = {
        "id": "org-1",
        "user_id": "u1",
        "timezone": "Africa/Cairo",
        "scopes": [READ_SCOPE, WRITE_SCOPE],
        "is_direct": True,
    }
    assert read_claims(given) == Claims("org-1", "u1", "Africa/Cairo", frozenset({READ_SCOPE, WRITE_SCOPE}), True)


def test_numbers_name_organizations_and_users_too() -> None:
    claims = read_claims({"id": 500, "user_id": 7})
    assert (claims.organization, claims.user) == ("500", "7")


@pytest.mark.parametrize(
    "id", [None, "", " org", "org ", "o\0rg", "a\nb", True, 1.5, [], {}, "x" * (ID_MAX_CHARACTERS + 1)]
)
def test_without_an_organization_a_token_says_nothing(id: object) -> None:
    with pytest.raises(Refusal, match="customer id is missing") as refused:
        read_claims({"id": id})
    assert refused.value.code == "invalid_credentials"


@pytest.mark.parametrize("user", ["", " u", True, 1.5, [], "x" * (ID_MAX_CHARACTERS + 1)])
def test_a_user_that_is_no_name_is_refused(user: object) -> None:
    assert code_of({"id": "org-1", "user_id": user}) == "invalid_credentials"


def test_a_name_may_hold_any_letters_and_is_counted_in_characters() -> None:
    assert is_name("Größe 1 🏢")
    assert is_name("ü" * ID_MAX_CHARACTERS)
    assert not is_name("ü" * (ID_MAX_CHARACTERS + 1))


@pytest.mark.parametrize("zone", [None, "", 5, [], " UTC", "a\0b"])
def test_a_zone_that_cannot_be_one_is_utc(zone: object) -> None:
    assert read_claims({"id": "org-1", "timezone": zone}).zone == "UTC"


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"scopes": ["a", "b"]}, {"a", "b"}),
        ({"scopes": "a b"}, {"a", "b"}),
        ({"permissions": ["a"]}, {"a"}),
        ({"permissions": "a"}, {"a"}),
        ({"scopes": [], "permissions": ["a"]}, set()),
        ({"scopes": ""}, set()),
        ({}, set()),
    ],
)
def test_scopes_are_read_and_permissions_only_where_they_are_missing(given: dict[str, object], read: set[str]) -> None:
    assert read_claims({"id": "org-1", **given}).scopes == read


@pytest.mark.parametrize("scopes", [None, 5, {"account:read": True}, ["account:read", 5]])
def test_scopes_that_are_no_texts_are_refused(scopes: object) -> None:
    assert code_of({"id": "org-1", "scopes": scopes}) == "invalid_credentials"


@pytest.mark.parametrize(("given", "read"), [(True, True), (False, False), (1, None), ("false", None), (None, None)])
def test_only_a_boolean_says_whether_an_organization_is_direct(given: object, read: object) -> None:
    assert read_claims({"id": "org-1", "is_direct": given}).is_direct is read


def test_a_scope_is_needed_by_its_name() -> None:
    claims = Claims("org-1", scopes=frozenset({READ_SCOPE}))
    claims.needs(READ_SCOPE)
    with pytest.raises(Refusal) as refused:
        claims.needs(WRITE_SCOPE)
    assert (refused.value.code, refused.value.details) == ("insufficient_scope", {"scope": WRITE_SCOPE})


# --- the tree ---------------------------------------------------------------------------------------------------------


def test_the_last_one_of_a_path_pays() -> None:
    reseller, customer, branch = 1, 2, 3
    parents = {branch: customer, customer: reseller, reseller: None}
    assert path_to_root(parents, branch) == (branch, customer, reseller)
    assert path_to_root(parents, reseller) == (reseller,)
    assert path_to_root({}, 9) == (9,)


@pytest.mark.parametrize("parents", [{1: 1}, {1: 2, 2: 1}, {1: 2, 2: 3, 3: 2}])
def test_a_circle_is_refused(parents: dict[int, int | None]) -> None:
    with pytest.raises(Refusal) as refused:
        path_to_root(parents, 1)
    assert refused.value.code == "organization_cycle"


def chain(length: int) -> dict[int, int | None]:
    return {one: one + 1 if one < length else None for one in range(1, length + 1)}


def test_a_tree_is_as_deep_as_it_may_be_and_no_deeper() -> None:
    assert len(path_to_root(chain(DEPTH_MAX), 1)) == DEPTH_MAX
    with pytest.raises(Refusal, match="deeper than 32"):
        path_to_root(chain(DEPTH_MAX + 1), 1)


def test_what_hangs_below_counts_for_the_depth() -> None:
    assert len(path_to_root(chain(20), 1, below=12)) == 20
    with pytest.raises(Refusal) as refused:
        path_to_root(chain(20), 1, below=13)
    assert refused.value.code == "organization_cycle"


# --- countries, currencies, tax numbers -------------------------------------------------------------------------------


def test_countries_are_those_of_the_standard() -> None:
    assert len(COUNTRIES) == 249
    assert all(re.fullmatch("[A-Z]{2}", country) for country in COUNTRIES)
    assert set(CURRENCIES) <= COUNTRIES
    assert set(CURRENCIES.values()) < set(SYMBOLS)


@pytest.mark.parametrize(
    ("country", "currency"),
    [
        ("DE", "EUR"),
        ("HR", "EUR"),
        ("DK", "EUR"),
        ("GB", "GBP"),
        ("ZA", "ZAR"),
        ("AU", "AUD"),
        ("US", "USD"),
        ("CH", "USD"),
    ],
)
def test_a_country_has_the_currency_of_the_map(country: str, currency: str) -> None:
    assert currency_of(country) == currency


@pytest.mark.parametrize(
    ("type", "value", "country"),
    [
        ("au_abn", "12345678912", "AU"),
        ("ca_gst_hst", "123456789RT0002", "CA"),
        ("eu_vat", "DE123456789", "DE"),
        ("eu_vat", " el123456789", "GR"),
        ("eu_oss_vat", "EU123456789", "EU"),
        ("eu_vat", "12", "EU"),
        ("eu_vat", "", "EU"),
    ],
)
def test_the_country_of_a_tax_number(type: str, value: str, country: str) -> None:
    assert tax_country(type, value) == country


def test_kinds_of_tax_numbers_are_each_there_once() -> None:
    assert len(set(TAX_TYPES)) == len(TAX_TYPES)
    assert set(TAX_TYPES) > VERIFIED_TYPES


def test_a_flag_is_two_letters_of_another_alphabet() -> None:
    assert flag_of("AU") == "🇦🇺"
    assert flag_of("ZA") == "🇿🇦"


# --- clearance --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counted", "lately", "total", "cleared"),
    [
        (0, None, 2, Cleared(True, 0, 2, 1)),
        (1, None, 2, Cleared(True, 1, 2, 2)),
        (2, None, 2, Cleared(False, 2, 2, 2)),
        (1, 2, 2, Cleared(False, 2, 2, 2)),
        (2, 1, 3, Cleared(True, 2, 3, 3)),
        (0, None, 0, Cleared(False, 0, 0, 0)),
        (900, 901, None, Cleared(True, 901, None, 902)),
    ],
)
def test_what_was_cleared_a_moment_ago_counts_as_if_it_were_there(
    counted: int, lately: int | None, total: int | None, cleared: Cleared
) -> None:
    assert clear(counted, lately, total) == cleared


def test_the_last_places_are_given_once_each() -> None:
    lately, passed = None, 0
    for _ in range(200):
        found = clear(5, lately, 15)
        passed, lately = passed + found.is_allowed, found.expected
    assert passed == 10
