"""Calendar rules.

The problem, on one example. A company in Sydney sells "the first 1,000 chats of a month are free". An event that
occurred at 2024-03-31 13:30 UTC is at 2024-04-01 00:30 in Sydney: it belongs to April, whose first instant there is
2024-03-31 13:00 UTC. So a period is found from the event's own time in the company's zone, and is half-open: the first
instant belongs to it, the first instant of the next one does not (bar T-3, T-4).

A refill that begins on 31 January cannot come again on 31 February: what begins on the 29th, 30th or 31st comes again
on the first of the second following month, and on firsts from then on (contract 3.1). Every date is counted from the
first one, never from the one before, so nothing drifts (bar T-5):

    begins        first again   then
    2024-01-15    2024-02-15    2024-03-15
    2024-01-31    2024-03-01    2024-04-01
    2023-12-30    2024-02-01    2024-03-01
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final

LAST_DAY_OF_ALL_MONTHS: Final = 28


def moment_text(at: datetime) -> str:
    """An instant in the spelling of the contract (6.1, 26): ``2024-02-20 05:46:11.769107+00``."""
    return at.astimezone(UTC).isoformat(" ", "microseconds")[:-3]


def month_of(at: datetime, zone: tzinfo) -> date:
    """The first day of the calendar month, in ``zone``, that the instant ``at`` falls in.

    Counters of tiers, packages and free units are kept by it (design 11, Rating).
    """
    local = at.astimezone(zone)
    return date(local.year, local.month, 1)


def month_start(month: date, months: int, zone: tzinfo) -> datetime:
    """The first instant, in UTC, of the calendar month ``months`` after ``month`` (a first day) in ``zone``."""
    later = _months_after(month, months)
    return instant(datetime(later.year, later.month, 1), zone)  # noqa: DTZ001 - wall time, given its zone next


def monthly(anchor: datetime, number: int, zone: tzinfo) -> datetime:
    """The instant of the ``number``-th monthly date after ``anchor`` (0: the anchor itself), at its local wall time."""
    if number == 0:
        return anchor
    local = anchor.astimezone(zone)
    first = date(local.year, local.month, 1)
    if local.day > LAST_DAY_OF_ALL_MONTHS:
        day = _months_after(first, number + 1)
    else:
        day = _months_after(first, number).replace(day=local.day)
    return instant(datetime.combine(day, local.time()), zone)


def yearly(anchor: datetime, number: int, zone: tzinfo) -> datetime:
    """The instant of the ``number``-th yearly date after ``anchor``, at its local wall time.

    What begins on 29 February comes again on 1 March, in leap years too (design 11, Dates).
    """
    if number == 0:
        return anchor
    local = anchor.astimezone(zone)
    first = date(local.year + number, local.month, 1)
    is_leap_day = (local.month, local.day) == (2, LAST_DAY_OF_ALL_MONTHS + 1)
    day = _months_after(first, 1) if is_leap_day else first.replace(day=local.day)
    return instant(datetime.combine(day, local.time()), zone)


def months_within(start: datetime, end: datetime, zone: tzinfo) -> int:
    """How many monthly dates from ``start`` (counted) lie before ``end``: 12 in every year."""
    number = 1
    while monthly(start, number, zone) < end:
        number += 1
    return number


def whole_seconds(start: datetime, end: datetime) -> int:
    """Whole seconds from one moment to a later one, rounded down; 0 where it is not later."""
    return max(0, (end - start) // timedelta(seconds=1))


def instant(wall: datetime, zone: tzinfo) -> datetime:
    """The instant, in UTC, at which clocks in ``zone`` show ``wall`` (without a zone).

    A wall time that exists twice means the first; one that does not exist moves forward by the gap (design 11, Dates).
    """
    # Python reads fold=0 of a gap with the offset from before it, which is forward by the gap, and of an overlap as
    # the first.
    return wall.replace(tzinfo=zone, fold=0).astimezone(UTC)


def day_after(at: datetime, days: int, zone: tzinfo) -> datetime:
    """The same local wall time ``days`` days later: what a term of payment or a step of dunning is counted in."""
    if not days:
        return at
    return instant(at.astimezone(zone).replace(tzinfo=None) + timedelta(days=days), zone)


def _months_after(first: date, months: int) -> date:
    year, month = divmod(first.year * 12 + first.month - 1 + months, 12)
    return date(year, month + 1, 1)
