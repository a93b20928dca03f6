"""Users: what roles may do, which passwords will do, who may change whom, and how often somebody may try."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenuto.core.outcomes import Refusal
from tenuto.core.user import (
    FAR_FAILURES,
    FRESH,
    IDLE,
    NEAR_FAILURES,
    NEAR_WINDOW,
    PASSWORD_MAX,
    READING,
    ROLES,
    SCOPES,
    WHOLE,
    Session,
    User,
    judge_change,
    judge_password,
    judge_role,
    may_try_at,
)

NOW = datetime(2030, 1, 15, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def user(role: str) -> User:
    return User(1, 2, "ada@example.com", role, False, NOW, None, None)


def session(**ages: timedelta) -> Session:
    at = {name: NOW - ages.get(name, timedelta()) for name in ("created_at", "seen_at", "authenticated_at")}
    return Session(user=user("owner"), company_name="Acme", digest=b"", live=False, address="", agent="", **at)


# --- roles ---


def test_roles_hold_no_more_than_there_is() -> None:
    assert all(scopes <= set(SCOPES) for scopes in ROLES.values())
    assert user("finance").scopes == ROLES["finance"]


@pytest.mark.parametrize(
    ("role", "writes"),
    [
        ("owner", {scope for scope in SCOPES if scope.endswith(":write")}),
        ("admin", {scope for scope in SCOPES if scope.endswith(":write")}),
        ("finance", {"balances:write", "invoices:write", "payments:write"}),
        ("support", {"accounts:write"}),
        ("read_only", set()),
    ],
)
def test_each_role_changes_what_its_work_is(role: str, writes: set[str]) -> None:
    assert {scope for scope in ROLES[role] if scope.endswith(":write")} == writes


def test_support_sees_no_reports_and_the_others_all() -> None:
    assert READING - ROLES["support"] == {"reports:read"}
    assert all(ROLES[role] >= READING for role in ROLES if role != "support")


@pytest.mark.parametrize("role", ["", "Owner", "root", "owner "])
def test_there_are_no_other_roles(role: str) -> None:
    with pytest.raises(Refusal) as refused:
        judge_role(role)
    assert refused.value.details["path"] == "role"


# --- passwords ---


@pytest.mark.parametrize(
    "password",
    [
        "correct horse",
        " leading and trailing ",
        "nul \0 inside it",
        "пароль из слов",
        "🐎🔋📎 три слова",
        "x1y2" * (PASSWORD_MAX // 4),
        "a" * 9 + "bcd",
    ],
)
def test_any_characters_make_a_password(password: str) -> None:
    judge_password(password, "ada@example.com")


@pytest.mark.parametrize(
    "password",
    [
        "",
        "short",
        "elevenchars",
        "x1y2" * (PASSWORD_MAX // 4) + "z",
        "aaaaaaaaaaaa",
        "abcabcabcabc",
        "Ada@Example.com",
        " ada@example.com ",
    ],
)
def test_what_is_guessed_first_is_no_password(password: str) -> None:
    with pytest.raises(Refusal) as refused:
        judge_password(password, "ada@example.com")
    assert refused.value.code == "invalid_field"
    assert not password or password not in str(refused.value.message)


def test_the_name_before_the_at_is_no_password() -> None:
    with pytest.raises(Refusal):
        judge_password("ADA.LOVELACE.1815", "ada.lovelace.1815@example.com")


# --- who may change whom ---


@pytest.mark.parametrize("by", ["admin", "finance", "support", "read_only", None])
@pytest.mark.parametrize(
    ("before", "after"), [(None, "owner"), ("owner", None), ("admin", "owner"), ("owner", "admin"), ("owner", "owner")]
)
def test_only_an_owner_touches_owners(by: str | None, before: str | None, after: str | None) -> None:
    with pytest.raises(Refusal) as refused:
        judge_change(None if by is None else user(by), 2, before, after)
    assert refused.value.code == "owner_needed"
    judge_change(user("owner"), 2, before, after)


@pytest.mark.parametrize("by", ["owner", "admin", None])
def test_the_others_are_for_admins_too(by: str | None) -> None:
    who = None if by is None else user(by)
    for before, after in ((None, "admin"), ("admin", None), ("support", "admin"), ("admin", "read_only")):
        judge_change(who, 1, before, after)


@pytest.mark.parametrize("after", ["admin", "read_only", None])
def test_the_last_owner_stays(after: str | None) -> None:
    with pytest.raises(Refusal) as refused:
        judge_change(user("owner"), 1, "owner", after)
    assert refused.value.code == "last_owner"
    judge_change(user("owner"), 1, "owner", "owner")


# --- tries ---


def failures(*seconds_ago: float, is_near: bool = True) -> list[tuple[datetime, bool]]:
    return [(NOW - timedelta(seconds=ago), is_near) for ago in seconds_ago]


def test_the_first_try_waits_for_nothing() -> None:
    assert may_try_at([], NOW) == NOW


@pytest.mark.parametrize(("count", "seconds"), [(1, 1), (2, 2), (3, 4), (4, 8)])
def test_each_failure_doubles_the_wait(count: int, seconds: int) -> None:
    assert may_try_at(failures(*[0] * count), NOW) == NOW + seconds * SECOND
    assert may_try_at(failures(*[seconds] * count), NOW) == NOW


def test_after_five_the_oldest_has_to_be_a_quarter_of_an_hour_old() -> None:
    five = failures(800, 700, 600, 500, 400)
    assert may_try_at(five, NOW) == NOW + 100 * SECOND
    assert may_try_at(five, NOW + 100 * SECOND) == NOW + 100 * SECOND


def test_what_fails_elsewhere_delays_nobody_here_before_the_hundredth() -> None:
    elsewhere = failures(*range(FAR_FAILURES - 1), is_near=False)
    assert may_try_at(elsewhere, NOW) == NOW
    assert may_try_at([*elsewhere, *failures(3_000)], NOW) == NOW + 600 * SECOND


def test_failures_are_forgotten() -> None:
    assert may_try_at(failures(*[NEAR_WINDOW.total_seconds()] * NEAR_FAILURES), NOW) == NOW
    assert may_try_at(failures(*[3_600] * FAR_FAILURES, is_near=False), NOW) == NOW


@given(st.lists(st.tuples(st.floats(0, 4_000), st.booleans()), max_size=150), st.randoms())
def test_the_order_of_failures_says_nothing_and_nobody_is_locked_out(
    found: list[tuple[float, bool]], chance: object
) -> None:
    told = [(NOW - timedelta(seconds=ago), is_near) for ago, is_near in found]
    at = may_try_at(told, NOW)
    shuffled = list(told)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert may_try_at(shuffled, NOW) == at >= NOW
    # Waiting as long as is asked is always enough, in the end.
    for _ in range(150):
        if (later := may_try_at(told, at)) == at:
            break
        at = later
    assert may_try_at(told, NOW + timedelta(hours=48)) <= NOW + timedelta(hours=48)


def test_whoever_waits_as_told_fails_five_times_a_quarter_of_an_hour() -> None:
    at, told = NOW, []
    while at < NOW + 10 * NEAR_WINDOW:
        told.append((at, True))
        at = may_try_at(told, at)
    counts = [sum(start <= one < start + NEAR_WINDOW for one, _ in told) for start, _ in told]
    assert max(counts) == NEAR_FAILURES


# --- sessions ---


def test_a_session_ends_when_nobody_is_there() -> None:
    assert not session(created_at=IDLE, seen_at=IDLE - SECOND).is_over(NOW)
    assert session(created_at=IDLE, seen_at=IDLE).is_over(NOW)


def test_a_session_ends_after_half_a_day() -> None:
    assert not session(created_at=WHOLE - SECOND).is_over(NOW)
    assert session(created_at=WHOLE).is_over(NOW)


def test_a_password_is_fresh_for_a_quarter_of_an_hour() -> None:
    assert session(authenticated_at=FRESH - SECOND).is_fresh(NOW)
    assert not session(authenticated_at=FRESH).is_fresh(NOW)


def test_there_are_the_roles_that_there_are() -> None:
    for role in ROLES:
        judge_role(role)
    with pytest.raises(Refusal, match="is one of owner, admin"):
        judge_role("root")
