"""Plans as they are written to the wire: the current shape of contract 2.5, with what Tenuto adds to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tenuto.core.identifiers import spell
from tenuto.core.plan import PlanBalance, PlanTerms
from tenuto.store.accounts import Environment
from tenuto.store.plans import PlanRow, terms_of_plan

from .body import spelled
from .shapes import Shape, number


class RenewalOut(Shape):
    """What a period costs."""

    amount: int


class PlanBalanceOut(Shape):
    """What a plan does for one balance."""

    amount: int
    variable_amount_cost: int | dict[str, int] | None
    overage_charge_amount: int | str | None
    overage_charge_per: int | None
    overage_charge_denomination: str | None
    auto_refill_amount: int | None
    auto_refill_threshold: int | None
    auto_refill_charge_amount: int | None
    rollover: bool


class PlanOut(Shape):
    """A plan at one of its versions, the latest where nothing else is said."""

    id: str
    company_id: str
    code: str | None
    version: int
    name: str
    renewal_denomination: str
    refill_cadence: str | None
    renewals: dict[str, RenewalOut]
    balances: dict[str, PlanBalanceOut]
    flags: dict[str, bool | int | str | dict[str, str]]
    trial_days: int
    setup_fee: int
    minimum_spend: int | None
    spend_cap: int | None
    threshold_alert_percentage: int | None
    rollover: bool
    event_prices: list[dict[str, Any]]
    archived_at: str | None
    created_at: str | None
    updated_at: str | None


def plan(row: PlanRow, environment: Environment) -> PlanOut:
    """A plan at the version that was read, with what holds where its terms say nothing."""
    terms = terms_of_plan(row)
    return PlanOut(
        id=spell("p", row.id),
        company_id=spell("c", environment.company_id),
        code=row.code,
        version=row.number,
        name=terms.name,
        renewal_denomination=terms.denomination,
        refill_cadence=_refill_cadence(row, terms),
        renewals={cadence: RenewalOut(amount) for cadence, amount in terms.renewals.items()},
        balances={name: _balance(found, row.terms["balances"][name]) for name, found in terms.balances.items()},
        flags={name: dict(v) if isinstance(v, Mapping) else v for name, v in terms.flags.items()},
        trial_days=terms.trial_days,
        setup_fee=terms.setup_fee,
        minimum_spend=terms.minimum_spend,
        spend_cap=terms.spend_cap,
        threshold_alert_percentage=terms.threshold_alert_percentage,
        rollover=bool(row.terms.get("rollover")),
        event_prices=row.terms.get("event_prices", []),
        archived_at=spelled(row.archived_at),
        created_at=spelled(row.created_at),
        updated_at=spelled(row.changed_at),
    )


def _refill_cadence(row: PlanRow, terms: PlanTerms) -> str | None:
    """The one that was set, else the only one that the plan is sold by; null: balances come with each period."""
    only = next(iter(terms.renewals)) if len(terms.renewals) == 1 else None
    return row.terms.get("refill_cadence") or only


def _balance(found: PlanBalance, given: Mapping[str, Any]) -> PlanBalanceOut:
    amount, refill = given.get("overage_charge_amount"), found.refill
    return PlanBalanceOut(
        amount=found.amount,
        variable_amount_cost=given.get("variable_amount_cost"),
        overage_charge_amount=None if amount is None else number(amount),
        overage_charge_per=None if found.overage is None else given.get("overage_charge_per", 1),
        overage_charge_denomination=None if found.overage is None else found.overage.denomination,
        auto_refill_amount=None if refill is None else refill.amount,
        auto_refill_threshold=None if refill is None else refill.threshold,
        auto_refill_charge_amount=None if refill is None else refill.charge,
        rollover=found.rollover,
    )
