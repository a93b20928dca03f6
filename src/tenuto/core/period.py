"""Calendar rules.

The problem, on one example. A company in Sydney sells "the first 1,000 chats of a month are free". An event that
occurred at 2024-03-31 13:30 UTC is at 2024-04-01 00:30 in Sydney: it belongs to April, whose first instant there is
2024-03-31 13:00 UTC. So a period is found from the event's own time in the company's zone, and is half-open: the first
instant belongs to it, the first instant of the next one does not (bar T-3, T-4).
"""

from __future__ import annotations

from datetime import date, datetime, tzinfo


def month_of(at: datetime, zone: tzinfo) -> date:
    """The first day of the calendar month, in ``zone``, that the instant ``at`` falls in.

    Counters of tiers, packages and free units are kept by it (design 11, Rating).
    """
    local = at.astimezone(zone)
    return date(local.year, local.month, 1)
