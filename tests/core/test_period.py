"""Calendar rules. The months that daylight saving begins or ends in are the interesting ones."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenuto.core.period import day_after, instant, month_of, month_start, monthly, months_within, whole_seconds, yearly

DAYS = [
    # zone,                 instant,                          month there
    ("UTC", "2030-01-01T00:00:00Z", "2030-01-01"),
    ("UTC", "2029-12-31T23:59:59.999999Z", "2029-12-01"),
    ("UTC", "2030-01-01T01:00:00+02:00", "2029-12-01"),
    ("Australia/Sydney", "2024-03-31T12:59:59.999999Z", "2024-03-01"),
    ("Australia/Sydney", "2024-03-31T13:00:00Z", "2024-04-01"),
    ("Australia/Sydney", "2024-03-31T13:30:00Z", "2024-04-01"),
    ("America/New_York", "2030-03-01T04:59:59Z", "2030-02-01"),
    ("America/New_York", "2030-03-01T05:00:00Z", "2030-03-01"),
    ("America/New_York", "2030-04-01T03:59:59Z", "2030-03-01"),
    ("America/New_York", "2030-04-01T04:00:00Z", "2030-04-01"),
    ("Asia/Kolkata", "2030-01-31T18:29:59Z", "2030-01-01"),
    ("Asia/Kolkata", "2030-01-31T18:30:00Z", "2030-02-01"),
    ("Pacific/Apia", "2011-12-30T10:00:00Z", "2011-12-01"),
    ("Pacific/Kiritimati", "2030-06-30T10:00:00Z", "2030-07-01"),
]


@pytest.mark.parametrize(("zone", "instant", "month"), DAYS)
def test_the_month_an_instant_falls_in(zone: str, instant: str, month: str) -> None:
    assert month_of(datetime.fromisoformat(instant), ZoneInfo(zone)) == date.fromisoformat(month)


# --- monthly dates ----------------------------------------------------------------------------------------------------

# Contract 3.1, and the ends of months around it.
MONTHLY = [
    # begins      first again   then          and then
    ("2024-01-15", "2024-02-15", "2024-03-15", "2024-04-15"),
    ("2024-01-28", "2024-02-28", "2024-03-28", "2024-04-28"),
    ("2024-01-29", "2024-03-01", "2024-04-01", "2024-05-01"),
    ("2024-01-30", "2024-03-01", "2024-04-01", "2024-05-01"),
    ("2024-01-31", "2024-03-01", "2024-04-01", "2024-05-01"),
    ("2024-02-28", "2024-03-28", "2024-04-28", "2024-05-28"),
    ("2024-02-29", "2024-04-01", "2024-05-01", "2024-06-01"),
    ("2023-02-28", "2023-03-28", "2023-04-28", "2023-05-28"),
    ("2024-04-30", "2024-06-01", "2024-07-01", "2024-08-01"),
    ("2023-11-30", "2024-01-01", "2024-02-01", "2024-03-01"),
    ("2023-12-01", "2024-01-01", "2024-02-01", "2024-03-01"),
    ("2023-12-28", "2024-01-28", "2024-02-28", "2024-03-28"),
    ("2023-12-30", "2024-02-01", "2024-03-01", "2024-04-01"),
    ("2023-12-31", "2024-02-01", "2024-03-01", "2024-04-01"),
]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Australia/Sydney"])
@pytest.mark.parametrize("dates", MONTHLY, ids=[dates[0] for dates in MONTHLY])
def test_what_begins_on_a_day_comes_again_on_it_or_on_firsts(dates: tuple[str, ...], zone: str) -> None:
    there = ZoneInfo(zone)
    walls = [datetime.fromisoformat(f"{day}T09:30:00.000001") for day in dates]
    anchor = instant(walls[0], there)
    assert [monthly(anchor, number, there) for number in range(4)] == [instant(wall, there) for wall in walls]


def test_it_is_the_companys_day_that_counts() -> None:
    began = datetime(2024, 1, 31, 23, 30, tzinfo=UTC)  # the first of February in Berlin
    assert monthly(began, 1, UTC) == datetime(2024, 3, 1, 23, 30, tzinfo=UTC)
    assert monthly(began, 1, ZoneInfo("Europe/Berlin")) == datetime(2024, 2, 29, 23, 30, tzinfo=UTC)


# Three zones: clocks go forward in spring (a gap), back in autumn (an overlap).
CLOCKS = [
    # zone,           begins (UTC),          date,  comes (UTC)            there
    ("Europe/Berlin", "2024-02-29T01:30:00", 1, "2024-04-01T00:30:00"),  # 02:30, in summer now
    ("Europe/Berlin", "2025-02-28T01:30:00", 1, "2025-03-28T01:30:00"),  # 02:30, two days before the gap
    ("Europe/Berlin", "2022-02-27T01:30:00", 1, "2022-03-27T01:30:00"),  # 02:30 does not exist: 03:30
    ("Europe/Berlin", "2022-02-27T01:30:00", 2, "2022-04-27T00:30:00"),  # and 02:30 again: no drift
    ("Europe/Berlin", "2024-09-27T00:30:00", 1, "2024-10-27T00:30:00"),  # 02:30 exists twice: the first
    ("Europe/Berlin", "2024-10-27T00:30:00", 1, "2024-11-27T01:30:00"),  # begun in the first 02:30
    ("Europe/Berlin", "2024-10-27T01:30:00", 1, "2024-11-27T01:30:00"),  # begun in the second 02:30
    ("Europe/Berlin", "2024-10-27T01:30:00", 0, "2024-10-27T01:30:00"),  # which stays what it was
    ("America/New_York", "2024-02-10T07:30:00", 1, "2024-03-10T07:30:00"),  # 02:30 does not exist: 03:30
    ("America/New_York", "2024-02-10T07:30:00", 2, "2024-04-10T06:30:00"),
    ("America/New_York", "2024-10-03T05:30:00", 1, "2024-11-03T05:30:00"),  # 01:30 exists twice: the first
    ("America/New_York", "2024-10-03T05:30:00", 2, "2024-12-03T06:30:00"),
    ("Australia/Lord_Howe", "2024-09-05T15:45:00", 1, "2024-10-05T15:45:00"),  # a gap of half an hour: 02:15 -> 02:45
    ("Australia/Lord_Howe", "2024-03-06T14:45:00", 1, "2024-04-06T14:45:00"),  # 01:45 exists twice: the first
    ("Australia/Lord_Howe", "2024-03-06T14:45:00", 2, "2024-05-06T15:15:00"),
]


@pytest.mark.parametrize(("zone", "begins", "number", "comes"), CLOCKS)
def test_dates_keep_their_wall_time_over_changes_of_the_clock(zone: str, begins: str, number: int, comes: str) -> None:
    anchor = datetime.fromisoformat(f"{begins}+00:00")
    assert monthly(anchor, number, ZoneInfo(zone)) == datetime.fromisoformat(f"{comes}+00:00")


ZONES: Final = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kolkata")
moments = st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds


@settings(derandomize=True, deadline=None)
@given(moments, st.sampled_from(ZONES))
def test_over_24_months_nothing_drifts(anchor: datetime, zone: str) -> None:
    """One date a month, on one day of it, at one time of day but where clocks change (bar T-5)."""
    there = ZoneInfo(zone)
    local = anchor.astimezone(there)
    day, skipped = (local.day, 0) if local.day <= 28 else (1, 1)
    dates = [monthly(anchor, number, there) for number in range(25)]
    assert dates[0] == anchor
    assert all(before < after for before, after in pairwise(dates))
    for number, at in enumerate(dates[1:], start=1):
        wall = at.astimezone(there)
        months = wall.year * 12 + wall.month - local.year * 12 - local.month
        meant = datetime(wall.year, wall.month, day, tzinfo=there).replace(tzinfo=None) + timedelta(
            hours=local.hour, minutes=local.minute, seconds=local.second, microseconds=local.microsecond
        )
        gap = wall.replace(tzinfo=None) - meant
        assert (months, wall.day) == (number + skipped, day)
        assert gap in {timedelta(0), timedelta(minutes=30), timedelta(hours=1)}
        assert not gap or at - timedelta(hours=1) < _last_change(at, there) <= at


def _last_change(at: datetime, zone: ZoneInfo) -> datetime:
    """The latest full minute, within two hours before, from which clocks showed what they show at ``at``."""
    minutes = (at - timedelta(minutes=minute, seconds=at.second, microseconds=at.microsecond) for minute in range(120))
    for minute in minutes:
        if (minute - timedelta(minutes=1)).astimezone(zone).utcoffset() != at.astimezone(zone).utcoffset():
            return minute
    raise AssertionError("no clock changed here")


# --- months and days --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("month", "months", "zone", "starts"),
    [
        ("2030-01-01", 0, "UTC", "2030-01-01T00:00:00"),
        ("2030-01-01", 1, "UTC", "2030-02-01T00:00:00"),
        ("2030-01-01", 12, "UTC", "2031-01-01T00:00:00"),
        ("2030-11-01", 14, "UTC", "2032-01-01T00:00:00"),
        ("2030-01-01", -1, "UTC", "2029-12-01T00:00:00"),
        ("2024-03-01", 0, "Australia/Sydney", "2024-02-29T13:00:00"),
        ("2024-03-01", 1, "Australia/Sydney", "2024-03-31T13:00:00"),
        ("2024-03-01", 2, "Australia/Sydney", "2024-04-30T14:00:00"),
        # a month that begins in a gap begins at its end; one that follows a day that never was
        ("2023-09-01", 1, "America/Asuncion", "2023-10-01T04:00:00"),
        ("2011-12-01", 1, "Pacific/Apia", "2011-12-31T10:00:00"),
    ],
)
def test_the_first_instant_of_a_month(month: str, months: int, zone: str, starts: str) -> None:
    start = month_start(date.fromisoformat(month), months, ZoneInfo(zone))
    assert start == datetime.fromisoformat(f"{starts}+00:00")
    assert month_of(start, ZoneInfo(zone)).day == 1
    assert month_of(start, ZoneInfo(zone)) > month_of(start - timedelta(microseconds=1), ZoneInfo(zone))


@pytest.mark.parametrize(
    ("zone", "wall", "at"),
    [
        ("UTC", "2024-03-31T02:30:00", "2024-03-31T02:30:00"),
        ("Europe/Berlin", "2024-03-31T01:59:59", "2024-03-31T00:59:59"),
        ("Europe/Berlin", "2024-03-31T02:00:00", "2024-03-31T01:00:00"),
        ("Europe/Berlin", "2024-03-31T02:30:00", "2024-03-31T01:30:00"),
        ("Europe/Berlin", "2024-03-31T03:00:00", "2024-03-31T01:00:00"),
        ("Europe/Berlin", "2024-10-27T02:30:00", "2024-10-27T00:30:00"),
        ("Europe/Berlin", "2024-10-27T03:00:00", "2024-10-27T02:00:00"),
        ("America/New_York", "2024-03-10T02:30:00", "2024-03-10T07:30:00"),
        ("America/New_York", "2024-11-03T01:30:00", "2024-11-03T05:30:00"),
        ("Australia/Lord_Howe", "2024-10-06T02:15:00", "2024-10-05T15:45:00"),
        ("Australia/Lord_Howe", "2024-04-07T01:45:00", "2024-04-06T14:45:00"),
    ],
)
def test_a_wall_time_in_a_gap_moves_on_and_in_an_overlap_is_the_first(zone: str, wall: str, at: str) -> None:
    for fold in (0, 1):
        meant = datetime.fromisoformat(wall).replace(fold=fold)
        assert instant(meant, ZoneInfo(zone)) == datetime.fromisoformat(f"{at}+00:00")


@pytest.mark.parametrize(
    ("zone", "at", "days", "after"),
    [
        ("UTC", "2024-02-28T09:00:00", 1, "2024-02-29T09:00:00"),
        ("UTC", "2024-02-28T09:00:00", 30, "2024-03-29T09:00:00"),
        ("UTC", "2024-02-28T09:00:00", 0, "2024-02-28T09:00:00"),
        # a day of 23 hours, and one of 25
        ("Europe/Berlin", "2024-03-30T08:00:00", 1, "2024-03-31T07:00:00"),
        ("Europe/Berlin", "2024-10-26T07:00:00", 1, "2024-10-27T08:00:00"),
        ("America/New_York", "2024-03-09T07:30:00", 1, "2024-03-10T07:30:00"),
        ("America/New_York", "2024-03-09T07:30:00", 2, "2024-03-11T06:30:00"),
        ("America/New_York", "2024-11-02T05:30:00", 1, "2024-11-03T05:30:00"),
    ],
)
def test_days_are_counted_at_the_wall_clock(zone: str, at: str, days: int, after: str) -> None:
    began = datetime.fromisoformat(f"{at}+00:00")
    assert day_after(began, days, ZoneInfo(zone)) == datetime.fromisoformat(f"{after}+00:00")


# --- yearly dates -----------------------------------------------------------------------------------------------------

YEARLY = [
    # begins      first again   then          and then
    ("2024-01-15", "2025-01-15", "2026-01-15", "2027-01-15"),
    ("2024-01-31", "2025-01-31", "2026-01-31", "2027-01-31"),
    ("2023-12-31", "2024-12-31", "2025-12-31", "2026-12-31"),
    ("2023-02-28", "2024-02-28", "2025-02-28", "2026-02-28"),
    # 29 February comes again on 1 March, in the leap year after it too.
    ("2024-02-29", "2025-03-01", "2026-03-01", "2027-03-01"),
]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Australia/Sydney"])
@pytest.mark.parametrize("dates", YEARLY, ids=[dates[0] for dates in YEARLY])
def test_what_begins_on_a_day_comes_again_a_year_later(dates: tuple[str, ...], zone: str) -> None:
    there = ZoneInfo(zone)
    walls = [datetime.fromisoformat(f"{day}T09:30:00.000001") for day in dates]
    anchor = instant(walls[0], there)
    assert [yearly(anchor, number, there) for number in range(4)] == [instant(wall, there) for wall in walls]


def test_a_leap_day_four_years_on_is_the_first_of_march() -> None:
    assert yearly(datetime(2024, 2, 29, 8, tzinfo=UTC), 4, UTC) == datetime(2028, 3, 1, 8, tzinfo=UTC)


def test_a_yearly_date_keeps_its_wall_time_over_changes_of_the_clock() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    began = datetime(2025, 3, 26, 1, 30, tzinfo=UTC)  # 02:30, still in winter
    assert yearly(began, 1, berlin) == datetime(2026, 3, 26, 1, 30, tzinfo=UTC)
    assert yearly(began, 5, berlin) == datetime(2030, 3, 26, 1, 30, tzinfo=UTC)
    into_the_gap = datetime(2025, 3, 29, 1, 30, tzinfo=UTC)  # 02:30, which does not exist a year later: 03:30
    assert yearly(into_the_gap, 1, berlin) == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
    assert yearly(into_the_gap, 2, berlin) == datetime(2027, 3, 29, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize("day", ["2023-02-28", "2024-02-29", "2024-01-31", "2023-12-30", "2023-11-29", "2024-06-15"])
@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_every_year_has_twelve_months(day: str, zone: str) -> None:
    there = ZoneInfo(zone)
    start = instant(datetime.fromisoformat(f"{day}T23:59:59"), there)
    assert months_within(start, yearly(start, 1, there), there) == 12


def test_a_span_has_its_first_month_at_least() -> None:
    start = datetime(2030, 1, 31, tzinfo=UTC)
    assert months_within(start, start + timedelta(days=1), UTC) == 1
    assert months_within(start, datetime(2030, 3, 1, tzinfo=UTC), UTC) == 1
    assert months_within(start, datetime(2030, 3, 1, 0, 0, 1, tzinfo=UTC), UTC) == 2


SPANS = [
    # from the first moment to one so much later: whole seconds
    (timedelta(0), 0),
    (timedelta(microseconds=999_999), 0),
    (timedelta(seconds=1), 1),
    (timedelta(seconds=1, microseconds=999_999), 1),
    (timedelta(days=30), 2_592_000),
    (timedelta(days=-1), 0),
    (timedelta(microseconds=-1), 0),
]


@pytest.mark.parametrize(("later", "seconds"), SPANS)
def test_whole_seconds_are_rounded_down_and_never_below_zero(later: timedelta, seconds: int) -> None:
    start = datetime(2030, 1, 1, 12, tzinfo=UTC)
    assert whole_seconds(start, start + later) == seconds


def test_a_day_of_23_hours_is_so_many_seconds() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    spring = instant(datetime.fromisoformat("2030-03-31T00:00:00"), berlin)
    assert whole_seconds(spring, day_after(spring, 1, berlin)) == 23 * 3600
