"""Calendar rules. The months that daylight saving begins or ends in are the interesting ones."""

from __future__ import annotations

from datetime import date, datetime
from zoneinfo import ZoneInfo

import pytest

from tenuto.core.period import month_of

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
