"""What a month of given usage would cost on the terms of a plan, before anybody is on it.

The problem, on one example. Ten dollars a month bring 10 GB, a further GB is a dollar; 12 GB are used:

    line        name         units   each    comes to
    plan        Pro                          1000 USD
    per_unit    STORE        12      1       12 storage_gb
    beyond      STORE        2       -1      -2 storage_gb    not there to be taken
    overage     storage_gb   2       100     200 USD
    total                                    1200 USD, and 0 of 10 storage_gb are left

Nothing is worked out here that is worked out elsewhere: an account that does not exist begins with the plan
(``lifecycle``), its usage is billed (``usage``), and its month is closed as a renewal would close it (``proration``).
So the figure is what would be charged, to the unit: the price of the first period, what usage took beyond the units
that came with it, and what is short of a minimum spend. Left out, because they come once or depend on the day: a
trial, the setup fee, and refills of a balance that fills itself. Of what is paid by the year, the month is the one in
which the year is paid. Source: bar 4.9.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, NamedTuple

from .catalog import EventPrice, PriceVersion, families_of, price_version
from .event import AccountState, Event, OnPlan, UsageEvent, overflow_of
from .grant import Purse
from .ledger import Balance, open_balance
from .lifecycle import started
from .money import CURRENCY_EXPONENTS, ZERO, Exact, exact_text, minus, plus, reduced
from .outcomes import Refusal, invalid
from .plan import Cadence, PlanTerms, PlanVersion, checked_cadence, checked_units, plan_terms, refuse_prices
from .proration import minimum_lines
from .rating import EMPTY, Counter, rate
from .subscription import Around, Line, Offer, Step
from .terms import Terms
from .usage import bill_events

USAGE_MAX: Final = 100
"""Rows of usage in one forecast."""
EVENTS_MAX: Final = 1000
"""Events that the usage of one forecast comes in, all rows together."""

_ID: Final = -1
"""Of the account, plan and version that are not there; nothing that is there has an id below zero."""
_MONTH: Final = "month"
_NOBODY: Final = AccountState(
    account_id=_ID,
    environment_id=_ID,
    tick=0,
    credit_limit=None,
    has_refusals=False,
    balances={},
    counters={},
    expires_at=None,
)
_EACH: Final[Mapping[Cadence, str]] = {"MONTHLY": "a month", "YEARLY": "a year", "ONE_OFF": "once"}


class Usage(NamedTuple):
    """So much of an event type in the month, in ``events`` events of one size with ``properties`` for the prices."""

    type: str
    quantity: Exact
    events: int = 1
    properties: Mapping[str, object] = {}


class Cost(NamedTuple):
    """One explained part of what a month costs: ``units`` at ``unit`` each make ``exact`` of a denomination.

    ``what`` is a line of a step (plan, variable, minimum_spend), a rule of a price (``rating``), ``overage`` for what
    is charged of units that were not there, ``beyond`` for those units, or ``no_price``. ``name`` says of what.
    """

    what: str
    name: str
    units: Exact
    unit: Exact
    exact: Exact
    denomination: str


class Came(NamedTuple):
    """Units of a balance that came with the period, and what became of them. ``short``: how far it ends below 0."""

    denomination: str
    included: int
    used: int
    left: int
    short: int


class Forecast(NamedTuple):
    """A month: its lines, what is to be paid by denomination, and what became of the units that came with it.

    ``above_cap``: how far usage goes above the plan's spend cap, in its denomination; a gated event would be refused
    there. None where there is no cap.
    """

    cadence: Cadence
    lines: tuple[Cost, ...]
    totals: Mapping[str, int]
    included: tuple[Came, ...]
    setup_fee: int
    above_cap: int | None


def version_of(given: Mapping[str, Any], now: datetime) -> PlanVersion:
    """A version that is not there from the stored form of its terms. Raises Refusal for terms that do not fit."""
    prices = given.get("event_prices") or ()
    refuse_prices(prices)
    made = [
        EventPrice(
            id=-number,
            type=price["type"],
            denomination=price["denomination"],
            match=price["match"],
            versions=(
                price_version(
                    id=-number,
                    price_id=-number,
                    number=1,
                    denomination=price["denomination"],
                    effective_at=now,
                    terms=price,
                ),
            ),
        )
        for number, price in enumerate(prices, start=1)
    ]
    return PlanVersion(_ID, _ID, 1, plan_terms(given), families_of(made))


def forecast(
    version: PlanVersion,
    usage: Sequence[Usage],
    *,
    terms: Terms,
    cadence: Cadence | None,
    chosen: Mapping[str, int],
    now: datetime,
) -> Forecast:
    """What a month costs whoever begins with a plan now and uses so much. ``terms`` are the company's.

    ``cadence`` None is the plan's only or most frequent one, ``chosen`` are variable units. Raises Refusal for a
    cadence or units that the plan does not have, and for usage past what can be billed or is looked at.
    """
    sold = replace(version.terms, trial_days=0, setup_fee=0)
    offer = Offer(_ID, _ID, None, sold, checked_cadence(sold, cadence), checked_units(sold, chosen))
    _refuse_size(usage)
    begun = started(offer, _around(now, terms))
    state = _begun(begun, now)
    # What is asked is what it costs, not whether somebody has paused something.
    known = replace(
        terms, is_paused=False, is_suspended=False, plans={**terms.plans, _ID: replace(version, terms=sold)}
    )
    lines = [_line(line) for line in begun.lines]
    versions = {**terms.versions, **{price.latest.id: price.latest for price in _prices_of(version)}}
    for index, row in enumerate(usage):
        billed, state = _billed(state, row, known, now, index)
        found = [cost for event in billed for cost in _costs(event, row, versions)]
        lines += found or [Cost("no_price", row.type, row.quantity, ZERO, ZERO, sold.denomination)]
    short = _up_to_minimum(begun, state, terms, offer, now)
    lines += short
    owed = begun.charge + sum(line.exact.numerator for line in short)
    return Forecast(
        offer.cadence,
        tuple(_merged(lines)),
        _totals(begun, state, owed),
        tuple(_came(name, begun.granted.get(name, 0), state.balances[name]) for name in sorted(state.balances)),
        version.terms.setup_fee,
        _above_cap(sold, begun, state),
    )


# --- the account that is not there ------------------------------------------------------------------------------------


def _refuse_size(usage: Sequence[Usage]) -> None:
    if len(usage) > USAGE_MAX:
        raise invalid("usage", f"at most {USAGE_MAX} rows.", "out_of_range")
    events = 0
    for index, row in enumerate(usage):
        events += row.events
        if events > EVENTS_MAX:
            raise invalid(f"usage[{index}].events", f"at most {EVENTS_MAX} events in all.", "out_of_range")


def _around(now: datetime, terms: Terms) -> Around:
    """The account before it is on a plan."""
    return Around(
        account_id=_ID,
        environment_id=_ID,
        state=_NOBODY,
        purses={},
        subscription=None,
        period=None,
        terms=None,
        zone_name=str(terms.zone),
        zone=terms.zone,
        at=now,
    )


def _begun(step: Step, now: datetime) -> AccountState:
    """The account with the units that came with the period, and nothing else."""
    balances: dict[str, Balance] = {
        name: open_balance(name)._replace(amount=units, filled=units) for name, units in step.granted.items()
    }
    plan = OnPlan(_ID, None, ((now, _MONTH),), step.granted.get(step.denomination, 0))
    return _NOBODY._replace(balances=balances, plan=plan)


def _billed(
    state: AccountState, row: Usage, terms: Terms, now: datetime, index: int
) -> tuple[tuple[Event, ...], AccountState]:
    """A row of usage as the engine bills it. Raises Refusal ``out_of_range`` for what costs too much to be billed."""
    each = reduced(Exact(row.quantity.numerator, row.quantity.denominator * row.events))
    event = UsageEvent(
        type=row.type,
        quantity=each,
        quantity_text=exact_text(each),
        state="complete",
        gated=False,
        key=None,
        key_digest=None,
        fingerprint=0,
        override=None,
        properties=row.properties,
        metadata=None,
        tag="",
        occurred_at=None,
        cogs_amount=None,
        cogs_denomination=None,
        parent_event_id=None,
    )
    try:
        decision = bill_events(
            state, [event] * row.events, terms=terms, known={}, now=now, tick=state.tick + 1, request_id=""
        )
    except Refusal as refusal:
        raise invalid(f"usage[{index}].quantity", "at its price this costs more than 10^15.", refusal.code) from refusal
    return decision.events, decision.state


def _costs(event: Event, row: Usage, versions: Mapping[int, PriceVersion]) -> Iterator[Cost]:
    """What the charges of one event are the sum of, as its explanation would say it."""
    each = reduced(Exact(row.quantity.numerator, row.quantity.denominator * row.events))
    for charge in event.charges:
        if charge.overage is not None:
            spilt = charge.overage
            yield Cost("overage", spilt.denomination, spilt.units, spilt.unit, charge.cost, charge.denomination)
            continue
        assert charge.price_version_id is not None
        counter = EMPTY if charge.prior is None else Counter(charge.prior.units, charge.prior.billed)
        for line in rate(versions[charge.price_version_id], each, counter).lines:
            yield Cost(line.what, row.type, line.units, line.unit, line.exact, charge.denomination)
        beyond = overflow_of(event.charges, charge)
        if beyond is not None and beyond.overage is not None:
            units = beyond.overage.units
            yield Cost("beyond", row.type, units, Exact(-1, 1), minus(ZERO, units), charge.denomination)


def _up_to_minimum(begun: Step, state: AccountState, terms: Terms, offer: Offer, now: datetime) -> list[Cost]:
    """What a period of one month is short of its minimum when it is over; a longer one is not over then."""
    if offer.cadence != "MONTHLY":
        return []
    denomination = offer.terms.denomination
    balance = state.balances.get(denomination) or open_balance(denomination)
    purse = Purse(denomination, balance.amount, begun.granted.get(denomination, 0), 0)
    around = _around(now, terms)._replace(period=begun.period, terms=offer.terms, purses={denomination: purse})
    return [_line(line) for line in minimum_lines(around, 0, is_whole=True)]


def _line(line: Line) -> Cost:
    """A line of a step."""
    unit = line.amount if line.unit is None else line.unit
    return Cost(
        line.kind, line.description, Exact(line.quantity, 1), Exact(unit, 1), Exact(line.amount, 1), line.denomination
    )


def _merged(costs: Sequence[Cost]) -> list[Cost]:
    """Costs of one kind at one price as one, where the first of them stands."""
    found: dict[tuple[str, str, Exact, str], Cost] = {}
    for cost in costs:
        kind = cost.what, cost.name, reduced(cost.unit), cost.denomination
        known = found.get(kind)
        found[kind] = (
            cost
            if known is None
            else known._replace(units=plus(known.units, cost.units), exact=plus(known.exact, cost.exact))
        )
    return [cost._replace(units=reduced(cost.units), exact=reduced(cost.exact)) for cost in found.values()]


def _totals(begun: Step, state: AccountState, charged: int) -> dict[str, int]:
    """What is to be paid: what is charged for the plan, and how far each balance ends below zero."""
    totals = {begun.denomination: charged}
    for name, balance in sorted(state.balances.items()):
        if balance.amount < 0:
            totals[name] = totals.get(name, 0) - balance.amount
    return totals


def _came(denomination: str, included: int, balance: Balance) -> Came:
    amount = balance.amount
    return Came(denomination, included, included - amount, max(0, amount), max(0, -amount))


def _above_cap(terms: PlanTerms, begun: Step, state: AccountState) -> int | None:
    if terms.spend_cap is None:
        return None
    balance = state.balances.get(terms.denomination)
    spent = 0 if balance is None else begun.granted.get(terms.denomination, 0) - balance.amount
    return max(0, spent - terms.spend_cap)


def _prices_of(version: PlanVersion) -> list[EventPrice]:
    return [price for families in version.prices.values() for family in families for price in family]


# --- in words ---------------------------------------------------------------------------------------------------------


def sentence_of(version: PlanVersion) -> str:
    """A plan in one sentence: its price, what comes with it, what more of that costs, and what events cost."""
    terms = version.terms
    prices = " or ".join(
        f"{money_text(Exact(amount, 1), terms.denomination)} {_EACH[cadence]}"
        if amount
        else f"nothing {_EACH[cadence]}"
        for cadence, amount in terms.renewals.items()
    )
    parts = [f"{terms.name} costs {prices}"]
    units = [money_text(Exact(balance.amount, 1), name) for name, balance in terms.balances.items() if balance.amount]
    if units:
        parts[0] += f" and includes {_listed(units)}"
    parts += [
        f"each further {name} is {money_text(balance.overage.unit, balance.overage.denomination)}"
        for name, balance in terms.balances.items()
        if balance.overage is not None
    ]
    chosen = [name for name, balance in terms.balances.items() if balance.variable_cost is not None]
    if chosen:
        parts.append(f"the number of {_listed(chosen)} is the account's choice")
    parts += [_priced(price) for price in _prices_of(version)]
    if terms.minimum_spend:
        parts.append(f"a period comes to at least {money_text(Exact(terms.minimum_spend, 1), terms.denomination)}")
    if terms.spend_cap is not None:
        parts.append(f"usage stops at {money_text(Exact(terms.spend_cap, 1), terms.denomination)} a period")
    if terms.trial_days:
        parts.append(f"the first {terms.trial_days} days are free")
    if terms.setup_fee:
        parts.append(f"the start costs {money_text(Exact(terms.setup_fee, 1), terms.denomination)} once")
    return "; ".join(parts) + "."


def _priced(price: EventPrice) -> str:
    version = price.latest
    name = (
        f"{price.type} ({', '.join(f'{key} {value}' for key, value in price.match.items())})"
        if price.match
        else price.type
    )
    match version.model:
        case "per_unit":
            return f"{name} costs {money_text(version.unit, version.denomination)} each"
        case "package":
            return f"{name} costs {money_text(version.unit, version.denomination)} per package of {version.per}"
        case "graduated":
            how = "graduated, each unit at the price of its tier"
        case _:
            how = "by volume, all units at the price of the tier that the total reaches"
    return f"{name} is priced {how}, from {money_text(version.tiers[0].unit, version.denomination)} each"


def money_text(value: Exact, denomination: str) -> str:
    """An amount with its denomination, exact: 1250 of USD is ``12.50 USD``, 1/10 is ``0.001 USD``."""
    places = CURRENCY_EXPONENTS.get(denomination, 0)
    text = exact_text(reduced(Exact(value.numerator, value.denominator * 10**places)))
    whole, _, decimals = text.partition(".")
    if places and "/" not in text:
        text = f"{whole}.{decimals:0<{places}}"
    return f"{text} {denomination}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
