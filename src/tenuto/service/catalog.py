"""Event prices, of a company or agreed with one account: set, changed by a new version, taken out of force."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tenuto.core.catalog import price_version
from tenuto.core.outcomes import Refusal
from tenuto.engine import Engine
from tenuto.store import accounts, catalog, ledger
from tenuto.store.accounts import Environment
from tenuto.store.database import Record, Unit

AGREED_MAX: Final = 100
"""Prices in force that an account may have of its own: whoever reads the account reads them all."""


async def set_event_price(
    engine: Engine,
    unit: Unit,
    environment: Environment,
    *,
    kind: str,
    denomination: str,
    match: Mapping[str, object],
    terms: Mapping[str, object],
) -> Record:
    """A new price with its first version. Raises Refusal for terms that do not fit, or ``price_exists``."""
    now, price_id = engine.now_of(environment), engine.new_id()
    version_id = engine.new_id()
    price_version(id=version_id, price_id=price_id, number=1, denomination=denomination, effective_at=now, terms=terms)
    await accounts.lock_environment(unit, environment.id)
    made = await catalog.insert_price(
        unit,
        environment_id=environment.id,
        id=price_id,
        kind=kind,
        denomination=denomination,
        match=match,
        now=now,
    )
    if not made:
        raise Refusal("price_exists", type=kind, denomination=denomination, match=match)
    await catalog.insert_version(
        unit, environment_id=environment.id, id=version_id, price_id=price_id, number=1, terms=terms, now=now
    )
    await accounts.raise_revision(unit, environment.id, engine.now())
    return await _found(unit, environment, price_id)


async def change_event_price(
    engine: Engine, unit: Unit, environment: Environment, price_id: int, terms: Mapping[str, object]
) -> Record:
    """The next version of a price, in force from now on; ``terms`` are the changes to the latest ones."""
    now, version_id = engine.now_of(environment), engine.new_id()
    await accounts.lock_environment(unit, environment.id)
    current = await _found(unit, environment, price_id)
    merged = {**catalog.terms_of_row(current), **terms}
    price_version(
        id=version_id,
        price_id=price_id,
        number=current["number"] + 1,
        denomination=current["denomination"],
        effective_at=now,
        terms=merged,
    )
    await catalog.insert_version(
        unit,
        environment_id=environment.id,
        id=version_id,
        price_id=price_id,
        number=current["number"] + 1,
        terms=merged,
        now=now,
    )
    await accounts.raise_revision(unit, environment.id, engine.now())
    return await _found(unit, environment, price_id)


async def delete_event_price(engine: Engine, unit: Unit, environment: Environment, price_id: int) -> Record:
    """Take a price out of force; what it priced keeps its version."""
    await accounts.lock_environment(unit, environment.id)
    current = await _found(unit, environment, price_id)
    await catalog.delete_price(unit, environment.id, price_id, engine.now_of(environment))
    await accounts.raise_revision(unit, environment.id, engine.now())
    return current


async def agree_event_price(
    engine: Engine,
    unit: Unit,
    environment: Environment,
    account_id: int,
    *,
    kind: str,
    denomination: str,
    match: Mapping[str, object],
    terms: Mapping[str, object],
) -> Record:
    """A price that only one account has, in place of its plan's or the company's. Raises Refusal ``price_exists``."""
    now, price_id, version_id = engine.now_of(environment), engine.new_id(), engine.new_id()
    price_version(id=version_id, price_id=price_id, number=1, denomination=denomination, effective_at=now, terms=terms)
    state = await ledger.take_account(unit, environment.id, account_id, now)
    if await catalog.count_overrides(unit, account_id) >= AGREED_MAX:
        raise Refusal("out_of_range", f"An account has at most {AGREED_MAX} event prices of its own; end one first.")
    made = await catalog.insert_override(
        unit,
        account_id=account_id,
        ids=(price_id, version_id),
        kind=kind,
        denomination=denomination,
        match=match,
        terms=terms,
        now=now,
    )
    if not made:
        raise Refusal("price_exists", type=kind, denomination=denomination, match=match)
    await ledger.raise_tick(unit, account_id, max(engine.tick(), state.tick + 1))
    return await _agreed(unit, account_id, price_id)


async def change_agreed_price(
    engine: Engine,
    unit: Unit,
    environment: Environment,
    account_id: int,
    price_id: int,
    terms: Mapping[str, object],
) -> Record:
    """The next version of a price agreed with an account; ``terms`` are the changes to the latest ones."""
    now, version_id = engine.now_of(environment), engine.new_id()
    state = await ledger.take_account(unit, environment.id, account_id, now)
    current = await _agreed(unit, account_id, price_id)
    merged = {**catalog.terms_of_row(current), **terms}
    price_version(
        id=version_id,
        price_id=price_id,
        number=current["number"] + 1,
        denomination=current["denomination"],
        effective_at=now,
        terms=merged,
    )
    await catalog.insert_override_version(
        unit, account_id=account_id, id=version_id, price_id=price_id, terms=merged, now=now
    )
    await ledger.raise_tick(unit, account_id, max(engine.tick(), state.tick + 1))
    return await _agreed(unit, account_id, price_id)


async def end_agreed_price(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, price_id: int
) -> Record:
    """Take a price agreed with an account out of force; what it priced keeps its version."""
    now = engine.now_of(environment)
    state = await ledger.take_account(unit, environment.id, account_id, now)
    current = await _agreed(unit, account_id, price_id)
    await catalog.end_override(unit, account_id, price_id, now)
    await ledger.raise_tick(unit, account_id, max(engine.tick(), state.tick + 1))
    return current


async def _agreed(unit: Unit, account_id: int, price_id: int) -> Record:
    found = await catalog.read_override(unit, account_id, price_id)
    if found is None:
        raise Refusal("not_found")
    return found


async def _found(unit: Unit, environment: Environment, price_id: int) -> Record:
    found = await catalog.read_price(unit, environment.id, price_id)
    if found is None:
        raise Refusal("not_found")
    return found
