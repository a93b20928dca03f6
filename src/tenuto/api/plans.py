"""Plans."""

from __future__ import annotations

from typing import Final

from tenuto.core.outcomes import Refusal
from tenuto.engine import Answer
from tenuto.service import plans as service
from tenuto.service import subscriptions
from tenuto.store import plans
from tenuto.store.database import Unit
from tenuto.store.plans import PlanRow

from . import plan_shapes, shapes
from .plan_input import PlanChange, PlanIn, changes_of, code_of, plan_of
from .routes import PAGING, Call, Param, Route
from .usage import page_of


async def publish_plan(call: Call) -> Answer:
    """A plan with its first version."""
    call.company()
    given = call.decoded(PlanIn)
    code, terms = code_of(given), plan_of(given)

    async def verb(unit: Unit) -> PlanRow:
        return await service.publish_plan(call.engine, unit, call.environment, code, terms)

    return await call.once(verb, lambda row: _wrapped(call, row))


async def list_plans(call: Call) -> Answer:
    """Plans, archived ones too, each at its latest version."""
    call.company()
    after = call.after(1)
    filters = call.filters()
    code, is_archived = filters.get("code"), filters.get("archived")
    async with call.engine.database.reading() as reader:
        found = await plans.list_plans(
            reader,
            call.environment.id,
            limit=call.limit() + 1,
            after=None if after is None else after[0],
            code=None if code is None else str(code),
            is_archived=None if is_archived is None else bool(is_archived),
        )
    return page_of(call, found, lambda row: (row.id,), lambda row: plan_shapes.plan(row, call.environment))


async def get_plan(call: Call) -> Answer:
    """A plan at its latest version, archived or not."""
    async with call.engine.database.reading() as reader:
        found = await plans.read_plan(reader, call.environment.id, call.id("p", "plan_id"))
    if found is None:
        raise Refusal("not_found")
    return Answer(200, _wrapped(call, found))


async def change_plan(call: Call) -> Answer:
    """A new version of a plan: what is sent is laid over the latest one. Accounts stay on the version they are on."""
    plan_id = call.id("p", "plan_id")
    changes = changes_of(call.decoded(PlanChange))

    async def verb(unit: Unit) -> PlanRow:
        return await service.change_plan_terms(call.engine, unit, call.environment, plan_id, changes)

    return await call.once(verb, lambda row: _wrapped(call, row))


async def archive_plan(call: Call) -> Answer:
    """Sell a plan no more. Accounts that are on it stay."""
    plan_id = call.id("p", "plan_id")

    async def verb(unit: Unit) -> PlanRow:
        return await service.archive_plan(call.engine, unit, call.environment, plan_id)

    return await call.once(verb, lambda row: _wrapped(call, row))


async def list_plan_versions(call: Call) -> Answer:
    """A plan at each of its versions, the first one first; `updated_at` is when the version was made."""
    plan_id = call.id("p", "plan_id")
    after = call.after(1)
    async with call.engine.database.reading() as reader:
        found = await plans.list_versions(
            reader,
            call.environment.id,
            plan_id,
            limit=call.limit() + 1,
            after=None if after is None else after[0],
        )
        if not found and await plans.read_plan(reader, call.environment.id, plan_id) is None:
            raise Refusal("not_found")
    return page_of(call, found, lambda row: (row.number,), lambda row: plan_shapes.plan(row, call.environment))


class PlanMovedOut(shapes.Shape):
    """How many accounts change to a plan's latest version, and how many could not, by the code of the refusal."""

    moved: int
    refused: dict[str, int]


async def move_accounts(call: Call) -> Answer:
    """Let every account on an older version of a plan change to the latest one with its next renewal."""
    plan_id = call.id("p", "plan_id")
    call.caller.needs_for_money("payments:write")
    found = await subscriptions.move_accounts(call.engine, call.environment, plan_id)
    await call.tell()
    return Answer(200, shapes.wrapped(PlanMovedOut(found.moved, dict(found.refused))))


def _wrapped(call: Call, row: PlanRow) -> bytes:
    return shapes.wrapped(plan_shapes.plan(row, call.environment))


_EXAMPLE: Final = {
    "name": "Storage and compute",
    "renewal_denomination": "USD",
    "refill_cadence": "MONTHLY",
    "renewals": {"MONTHLY": {"amount": 1000}, "YEARLY": {"amount": 11000}},
    "balances": {
        "storage_gb": {"amount": 10, "overage_charge_amount": "100"},
        "compute_minutes": {"amount": 60, "overage_charge_amount": "50"},
        "seats": {"amount": 0, "variable_amount_cost": {"MONTHLY": 200, "YEARLY": 2000}},
    },
    "flags": {"no_watermark": True},
}

ROUTES: Final = (
    Route(
        "POST",
        "/companies/{company_id}/plans",
        publish_plan,
        "Publish a plan",
        "Plans",
        plan_shapes.PlanOut,
        scope="catalog:write",
        body=PlanIn,
        refusals=("plan_exists",),
        example=_EXAMPLE,
        details="The earlier shape, with `charge_amount`, `billing_period` and a list of balances, is taken too.",
    ),
    Route(
        "GET",
        "/companies/{company_id}/plans",
        list_plans,
        "List plans",
        "Plans",
        plan_shapes.PlanOut,
        scope="catalog:read",
        query=(
            *PAGING,
            Param("code", "text", "Only plans with this code."),
            Param("archived", "boolean", "Only plans that are archived, or only those that are not."),
        ),
        is_list=True,
    ),
    Route(
        "GET",
        "/plans/{plan_id}",
        get_plan,
        "Get a plan",
        "Plans",
        plan_shapes.PlanOut,
        scope="catalog:read",
    ),
    Route(
        "PUT",
        "/plans/{plan_id}",
        change_plan,
        "Change a plan's terms by a new version",
        "Plans",
        plan_shapes.PlanOut,
        scope="catalog:write",
        body=PlanChange,
        refusals=("plan_archived",),
        example={"renewals": {"MONTHLY": {"amount": 1200}}},
        details="Objects are laid over by name, null takes away, a list takes the place of the one before.",
    ),
    Route(
        "DELETE",
        "/plans/{plan_id}",
        archive_plan,
        "Archive a plan",
        "Plans",
        plan_shapes.PlanOut,
        scope="catalog:write",
    ),
    Route(
        "POST",
        "/plans/{plan_id}/move",
        move_accounts,
        "Move a plan's accounts to its latest version",
        "Plans",
        PlanMovedOut,
        scope="accounts:write",
        details="Accounts stay on the version they began with until they are moved; this moves all of them at their"
        " next renewals.",
    ),
    Route(
        "GET",
        "/plans/{plan_id}/versions",
        list_plan_versions,
        "List a plan's versions",
        "Plans",
        plan_shapes.PlanOut,
        scope="catalog:read",
        query=PAGING,
        is_list=True,
    ),
)
