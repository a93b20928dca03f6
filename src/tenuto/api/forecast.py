"""What a plan would cost: a month of given usage on terms that nobody is on yet."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tenuto.core.forecast import EVENTS_MAX, USAGE_MAX, Came, Cost, Usage, forecast, sentence_of, version_of
from tenuto.core.money import exact, exact_text
from tenuto.core.outcomes import Refusal, beneath, invalid
from tenuto.core.plan import BALANCES_MAX
from tenuto.engine import Answer

from . import body as bodies
from . import shapes
from .catalog import match_of
from .plan_input import PlanIn, cadence_of, plan_of
from .routes import Call, Route


class UsageIn(msgspec.Struct, forbid_unknown_fields=True):
    """So much of an event type in the month, in `events` events of one size."""

    type: str
    quantity: int | str
    events: int = 1
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


class PreviewIn(msgspec.Struct, forbid_unknown_fields=True):
    """A plan as it would be published, what an account would choose of it, and what it would use in a month."""

    plan: PlanIn
    cadence: str | None = None
    units: dict[str, int] = msgspec.field(default_factory=dict)
    usage: list[UsageIn] = msgspec.field(default_factory=list)


class CostOut(shapes.Shape):
    """One explained part of what a month costs: `units` at `unit_cost` each make `exact`; `name` says of what."""

    what: str
    name: str
    units: str
    unit_cost: str
    exact: str
    denomination: str


class IncludedOut(shapes.Shape):
    """Units of a balance that come with the period, and what became of them; `short` is how far it ends below zero."""

    denomination: str
    amount: int
    used: int
    left: int
    short: int


class PreviewOut(shapes.Shape):
    """What a month costs: `totals` by denomination are what would be charged, to the unit.

    `setup_fee` comes once and is not in the totals. `above_spend_cap` is how far usage would go above the plan's cap,
    in its denomination; null where it has none.
    """

    sentence: str
    cadence: str
    lines: list[CostOut]
    totals: dict[str, int]
    included: list[IncludedOut]
    setup_fee: int
    above_spend_cap: int | None


async def preview_plan(call: Call) -> Answer:
    """What a month of given usage would cost on a plan; nothing is kept."""
    call.company()
    given = call.decoded(PreviewIn)
    now = call.engine.now_of(call.environment)
    try:
        version = version_of(plan_of(given.plan), now)
    except Refusal as refusal:
        raise beneath("plan", refusal) from refusal
    found = forecast(
        version,
        _usage(given.usage),
        terms=call.environment.terms,
        cadence=None if given.cadence is None else cadence_of(given.cadence, "cadence"),
        chosen=_chosen(given.units),
        now=now,
    )
    shown = PreviewOut(
        sentence=sentence_of(version),
        cadence=found.cadence,
        lines=[_cost(line) for line in found.lines],
        totals=dict(found.totals),
        included=[_included(came) for came in found.included],
        setup_fee=found.setup_fee,
        above_spend_cap=found.above_cap,
    )
    return Answer(200, shapes.wrapped(shown))


def _usage(rows: list[UsageIn]) -> list[Usage]:
    if len(rows) > USAGE_MAX:
        raise invalid("usage", f"at most {USAGE_MAX} rows.", "out_of_range")
    found: list[Usage] = []
    for index, row in enumerate(rows):
        path = f"usage[{index}]"
        try:
            properties = match_of(row.metadata)
        except Refusal as refusal:
            raise beneath(path, refusal) from refusal
        found.append(
            Usage(
                bodies.event_type(row.type, f"{path}.type"),
                exact(bodies.quantity(row.quantity, f"{path}.quantity")),
                bodies.whole(row.events, f"{path}.events", least=1, most=EVENTS_MAX),
                properties,
            )
        )
    return found


def _chosen(units: dict[str, int]) -> dict[str, int]:
    if len(units) > BALANCES_MAX:
        raise invalid("units", f"at most {BALANCES_MAX} balances.", "out_of_range")
    return {name: bodies.whole(amount, f"units.{name}") for name, amount in units.items()}


def _cost(cost: Cost) -> CostOut:
    return CostOut(
        cost.what,
        cost.name,
        exact_text(cost.units),
        exact_text(cost.unit),
        exact_text(cost.exact),
        cost.denomination,
    )


def _included(came: Came) -> IncludedOut:
    return IncludedOut(came.denomination, came.included, came.used, came.left, came.short)


_EXAMPLE: Final = {
    "plan": {
        "name": "Storage",
        "renewal_denomination": "USD",
        "renewals": {"MONTHLY": {"amount": 1000}},
        "balances": {"storage_gb": {"amount": 10, "overage_charge_amount": "100"}},
        "event_prices": [{"type": "STORE", "denomination": "storage_gb", "amount": "1"}],
    },
    "cadence": "MONTHLY",
    "usage": [{"type": "STORE", "quantity": 12}],
}

ROUTES: Final = (
    Route(
        "POST",
        "/companies/{company_id}/plans/preview",
        preview_plan,
        "Preview what a plan costs",
        "Plans",
        PreviewOut,
        scope="catalog:read",
        body=PreviewIn,
        example=_EXAMPLE,
        details="The usage is billed as an account's would be that begins with the plan now; nothing is kept. A trial,"
        " the setup fee and refills of a balance that fills itself are left out; of a plan that is paid by the year"
        " it is the month in which the year is paid.",
    ),
)
