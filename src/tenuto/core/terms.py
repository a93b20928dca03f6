"""What one half of a company bills by: its prices and plans, arranged for look-up, with its zone and limits.

An account on a plan has the prices of its plan's version for the types that the version prices, and the company's for
all others (contract 3.7). Terms are what is remembered of a company between requests; nothing in them changes but by
becoming new terms.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from .catalog import EventPrice, PriceVersion, by_type, families_of
from .plan import PlanVersion
from .topic import DEAF, USUAL_RULES, Listening, Rule, Watch


@dataclass(frozen=True, slots=True)
class Terms:
    """What the events of one environment are billed by: prices, zone, limits and the window for event times.

    ``single`` holds the types that one price without a match covers, the common case, found at one look-up.
    ``is_paused``: every gated event of the company is refused. ``is_suspended``: its events are kept aside. ``past``
    are prices that were deleted, by type: those of events that were kept aside while they held.
    """

    zone: tzinfo
    default_credit_limit: int
    late: timedelta
    ahead: timedelta
    prices: Mapping[str, tuple[tuple[EventPrice, ...], ...]]
    single: Mapping[str, EventPrice]
    versions: Mapping[int, PriceVersion]
    plans: Mapping[int, PlanVersion]
    listening: Listening
    is_paused: bool
    is_suspended: bool
    past: Mapping[str, tuple[EventPrice, ...]]

    def versions_for(self, kind: str, properties: Mapping[str, object], at: datetime) -> list[PriceVersion]:
        """The versions that price an event of type ``kind``: one per denomination that has a covering price."""
        chosen: list[PriceVersion] = []
        for family in self.prices.get(kind, ()):
            for price in family:
                if price.covers(properties):
                    chosen.append(price.version_at(at))
                    break
        return chosen


def terms_of(  # noqa: PLR0913 - the settings of a company's half, each by its name
    *,
    zone: tzinfo,
    default_credit_limit: int,
    late: timedelta,
    ahead: timedelta,
    prices: Iterable[EventPrice],
    versions: Iterable[PriceVersion],
    plans: Iterable[PlanVersion] = (),
    watch: Watch = DEAF,
    rules: Sequence[Rule] = USUAL_RULES,
    is_paused: bool = False,
    is_suspended: bool = False,
    past: Iterable[EventPrice] = (),
) -> Terms:
    """Arrange prices for look-up: by type, then a family per denomination, the most specific match first.

    Two matches of one length that both cover an event are taken in the order they were made. ``versions`` are all that
    ever were, also those of deleted prices: a hold is settled on the version it was rated with.
    """
    families = families_of(prices)
    single = {
        kind: found[0][0]
        for kind, found in families.items()
        if len(found) == 1 and len(found[0]) == 1 and not found[0][0].match
    }
    return Terms(
        zone,
        default_credit_limit,
        late,
        ahead,
        families,
        single,
        {version.id: version for version in versions},
        {version.id: version for version in plans},
        Listening(watch, tuple(rules), default_credit_limit),
        is_paused,
        is_suspended,
        by_type(past),
    )
