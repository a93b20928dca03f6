"""Plans: published, changed by a new version, archived."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from tenuto.core.outcomes import Refusal
from tenuto.core.plan import merged, plan_terms, refuse_prices
from tenuto.engine import Engine
from tenuto.store import accounts, catalog, plans
from tenuto.store.accounts import Environment
from tenuto.store.database import Unit
from tenuto.store.plans import PlanRow


async def publish_plan(
    engine: Engine, unit: Unit, environment: Environment, code: str | None, given: Mapping[str, Any]
) -> PlanRow:
    """A new plan with its first version. Raises Refusal for terms that do not fit, or ``plan_exists``."""
    now, plan_id = engine.now_of(environment), engine.new_id()
    terms = _judged({}, given)
    await accounts.lock_environment(unit, environment.id)
    if not await plans.insert_plan(unit, environment_id=environment.id, id=plan_id, code=code, now=now):
        raise Refusal("plan_exists", plan_code=code)
    await _insert_version(engine, unit, environment, plan_id, 1, terms, now)
    await accounts.raise_revision(unit, environment.id, engine.now())
    return await _found(unit, environment, plan_id)


async def change_plan_terms(
    engine: Engine, unit: Unit, environment: Environment, plan_id: int, changes: Mapping[str, Any]
) -> PlanRow:
    """The next version of a plan; ``changes`` are laid over the latest one, and accounts stay on theirs.

    Changes that change nothing make no version. Raises Refusal for terms that do not fit, or ``plan_archived``.
    """
    await accounts.lock_environment(unit, environment.id)
    current = await _found(unit, environment, plan_id)
    if current.archived_at is not None:
        raise Refusal("plan_archived")
    terms = _judged(current.terms, changes)
    if _spelled(terms) == _spelled(current.terms):
        return current
    now = engine.now_of(environment)
    await _insert_version(engine, unit, environment, plan_id, current.number + 1, terms, now)
    await accounts.raise_revision(unit, environment.id, engine.now())
    return await _found(unit, environment, plan_id)


async def archive_plan(engine: Engine, unit: Unit, environment: Environment, plan_id: int) -> PlanRow:
    """Sell a plan no more. Accounts on it stay; one that is archived already stays as it is."""
    await accounts.lock_environment(unit, environment.id)
    current = await _found(unit, environment, plan_id)
    if current.archived_at is not None:
        return current
    await plans.archive_plan(unit, environment.id, plan_id, engine.now_of(environment))
    await accounts.raise_revision(unit, environment.id, engine.now())
    return await _found(unit, environment, plan_id)


def _judged(known: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Terms with changes laid over them, judged whole."""
    terms = merged(known, changes)
    refuse_prices(terms.get("event_prices", ()))
    plan_terms(terms)
    return terms


def _spelled(terms: Mapping[str, Any]) -> bytes:
    """Terms in one spelling, to compare: Python finds True equal to 1."""
    return msgspec.json.encode(terms, order="sorted")


async def _insert_version(
    engine: Engine,
    unit: Unit,
    environment: Environment,
    plan_id: int,
    number: int,
    terms: Mapping[str, Any],
    now: datetime,
) -> None:
    """A version and its event prices, which are this version's alone."""
    version_id = engine.new_id()
    await plans.insert_plan_version(
        unit, environment_id=environment.id, id=version_id, plan_id=plan_id, number=number, terms=terms, now=now
    )
    prices = terms.get("event_prices", ())
    await catalog.insert_plan_prices(
        unit,
        environment_id=environment.id,
        plan_version_id=version_id,
        prices=prices,
        ids=[(engine.new_id(), engine.new_id()) for _ in prices],
        now=now,
    )


async def _found(unit: Unit, environment: Environment, plan_id: int) -> PlanRow:
    found = await plans.read_plan(unit, environment.id, plan_id)
    if found is None:
        raise Refusal("not_found")
    return found
