"""Grants given by hand: units with a priority and an end; and the sweep that ends them."""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

from tenuto.core.event import AccountState
from tenuto.core.grant import GRANTS_MAX, Grant, Purse, closed, empty, opened
from tenuto.core.ledger import EXPIRY_BOOK, GRANT_BOOK, move, open_balance
from tenuto.core.outcomes import Refusal
from tenuto.engine import Engine
from tenuto.store import due, ledger, subscriptions
from tenuto.store.accounts import Environment
from tenuto.store.database import Record, Unit, translated
from tenuto.store.subscriptions import Moment

AT_ONCE: Final = 4


class GrantAsk(NamedTuple):
    """Units to give: which, how many, when they are used and when they end, and what was paid for them."""

    denomination: str
    units: int
    priority: int
    expires_at: datetime | None
    price: int
    price_denomination: str
    reason: str


async def give(engine: Engine, unit: Unit, environment: Environment, account_id: int, ask: GrantAsk) -> Grant:
    """Give units that end together; a balance that is not there yet is opened by it.

    Raises Refusal ``out_of_range`` beyond the grants that a balance may have.
    """
    now = engine.now_of(environment)
    state = await ledger.take_account(unit, environment.id, account_id, now)
    purse = await _purse(unit, state, ask.denomination, Moment(now, state.tick))
    used_up = [grant.id for grant in purse.grants if not grant.left and grant.source != "plan"]
    purse, gone = closed(purse, used_up, now=now)
    if len(purse.grants) >= GRANTS_MAX:
        raise Refusal("out_of_range", f"A balance has at most {GRANTS_MAX} grants at a time.", path="denomination")
    tick = max(engine.tick(), state.tick + 1)
    grant = Grant(
        account_id=account_id,
        id=tick,
        environment_id=environment.id,
        denomination=ask.denomination,
        source="manual",
        units=ask.units,
        left=ask.units,
        priority=ask.priority,
        price=ask.price,
        price_denomination=ask.price_denomination,
        plan_id=None,
        period_id=None,
        until_at=None,
        expires_at=ask.expires_at,
        reason=ask.reason,
        created_at=now,
    )
    after = opened(purse, [grant])
    balance = state.balances.get(ask.denomination) or open_balance(ask.denomination)
    made = move(
        balance,
        ask.units,
        id=tick + 1,
        book=GRANT_BOOK,
        type="GRANT",
        description=ask.reason,
        now=now,
        cause_id=tick,
    )
    await ledger.save_moves(unit, state, made[1].id, [made], now)
    await subscriptions.put_grants(unit, (*gone, *after.grants))
    await subscriptions.put_burned(unit, {(account_id, ask.denomination): after.burned})
    return next(found for found in after.grants if found.id == grant.id)


async def void(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, denomination: str, grant_id: int
) -> Grant:
    """Take back what is left of a grant that was given by hand. Raises Refusal ``not_found`` or ``grant_closed``."""
    now = engine.now_of(environment)
    state = await ledger.take_account(unit, environment.id, account_id, now)
    purse = await _purse(unit, state, denomination, Moment(now, state.tick))
    grant = next((found for found in purse.grants if found.id == grant_id and found.source == "manual"), None)
    if grant is None:
        known = await subscriptions.read_grant(unit, account_id, grant_id)
        raise Refusal("not_found" if known is None or known.denomination != denomination else "grant_closed")
    tick = max(engine.tick(), state.tick + 1)
    _, gone = closed(purse, [grant_id], now=now, cancelled=grant.left)
    made = None
    if grant.left:
        made = move(
            state.balances[denomination],
            -grant.left,
            id=tick,
            book=EXPIRY_BOOK,
            type="CANCEL_REMAINING",
            description=f"Taken back: {grant.reason}",
            now=now,
            cause_id=tick,
        )
    await ledger.save_moves(unit, state, tick, [] if made is None else [made], now)
    await subscriptions.close_grants(unit, denomination, gone)
    return gone[0]


async def _purse(unit: Unit, state: AccountState, denomination: str, moment: Moment) -> Purse:
    standing = await subscriptions.read_standing(unit, state.account_id, moment)
    return standing.purses.get(denomination) or empty(denomination)


async def expire_grants(engine: Engine, *, now: datetime, limit: int, environment_id: int | None = None) -> int:
    """Sweep: end the grants whose time is over, each as of its own date; how many accounts were gone through."""

    async def step(environment: Environment, row: Record) -> bool:
        async with translated(), engine.database.writing() as unit:
            present = engine.now_of(environment)
            state = await ledger.take_account(unit, environment.id, row["account_id"], present)
            tick = max(engine.tick(), state.tick + 1)
            return await subscriptions.end_grants(unit, state, tick=tick, now=present) > 0

    return await engine.each_due(
        due.GRANTS,
        "t.account_id",
        step,
        now=now,
        limit=limit,
        environment_id=environment_id,
        at_once=AT_ONCE,
    )
