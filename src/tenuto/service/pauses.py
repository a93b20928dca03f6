"""Pause, block and suspend, of one account or of a whole half of a company; and what becomes of events that waited.

The problem, on one example. An account's usage is suspended at noon, three events come, and it goes on at one:

    noon    suspend_usage          its events are kept aside from now on: accepted, not priced, never refused
    12:10   CHAT, quantity 2       200, state suspended; the balance stands still
    12:20   a hold, a gated event  both wait too
    13:00   resume_usage           a new event is billed at once; the mark says up to which id the old ones are taken up
    13:00   the sweep (usage)      takes them up in order, through the lanes, each priced as of its own time

The mark is a column, so a crash loses nothing of the intention; an event that was billed is no longer suspended, so it
is billed once, whoever goes on. Sources: contract 1, 2.7, 3.6, 3.7; decision 0040.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, Literal

import structlog

from tenuto.engine import Engine
from tenuto.store import accounts, ledger, pauses
from tenuto.store.accounts import Account, Environment
from tenuto.store.database import Unit
from tenuto.store.pauses import MANUAL, CompanyPauses, Word

Queued = Literal["replay", "void", "keep"]
QUEUED: Final[tuple[Queued, ...]] = ("replay", "void", "keep")

LATE: Final = timedelta(seconds=60)
"""How long after a company's usage goes on a save may still arrive that was decided before: no unit lives as long."""
MARKED_MAX: Final = 500
"""Accounts that are marked in one statement."""

_log = structlog.get_logger()


async def pause_account(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, *, is_paused: bool, word: Word
) -> Account:
    """Pause an account by hand, or let it go on whatever had paused it: the operator's word wins.

    One that dunning or its plan had paused is now paused by hand, so that a payment does not lift it.
    """
    names = ("paused_at", "paused_by")
    return await _stand(engine, unit, environment, account_id, names, is_barred=is_paused, word=word)


async def block_credit(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, *, is_blocked: bool, word: Word
) -> Account:
    """Block an account's credit by hand, or end its block, whatever had begun it."""
    names = ("credit_blocked_at", "credit_blocked_by")
    return await _stand(engine, unit, environment, account_id, names, is_barred=is_blocked, word=word)


async def _stand(
    engine: Engine,
    unit: Unit,
    environment: Environment,
    account_id: int,
    names: tuple[str, str],
    *,
    is_barred: bool,
    word: Word,
) -> Account:
    """Set or clear a pause of an account, since when and by whom; nothing is written where it stands so already."""
    at, by = names
    now, found = await _taken(engine, unit, environment, account_id)
    changes: dict[str, object] = {}
    if is_barred and getattr(found, by) != MANUAL:
        changes = {at: getattr(found, at) or now, by: MANUAL}
    if not is_barred and getattr(found, at) is not None:
        changes = {at: None, by: None}
    return await _changed(engine, unit, environment, account_id, changes, now, word) if changes else found


async def suspend_usage(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, *, word: Word
) -> Account:
    """Keep events of an account aside from now on. A replay under way goes on to its mark."""
    now, found = await _taken(engine, unit, environment, account_id)
    if found.usage_suspended_at is not None:
        return found
    return await _changed(engine, unit, environment, account_id, {"usage_suspended_at": now}, now, word)


async def resume_usage(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, *, queued: Queued, word: Word
) -> Account:
    """Bill events of an account again; those that wait are replayed, voided, or go on waiting.

    Said again it is about what waits by then; ``keep`` ends a replay where it is.
    """
    now, found = await _taken(engine, unit, environment, account_id)
    changes: dict[str, object] = {}
    if found.usage_suspended_at is not None:
        changes = {"usage_suspended_at": None}
    if changes or found.waiting:
        await _changed(engine, unit, environment, account_id, changes, now, word._replace(queued=queued))
        await pauses.mark_account(unit, account_id, queued)
    return await _read(unit, environment, account_id)


async def _taken(engine: Engine, unit: Unit, environment: Environment, account_id: int) -> tuple[datetime, Account]:
    now = engine.now_of(environment)
    await ledger.take_account(unit, environment.id, account_id, now)
    return now, await _read(unit, environment, account_id)


async def _read(unit: Unit, environment: Environment, account_id: int) -> Account:
    found = await accounts.read_account(unit, environment.id, account_id)
    assert found is not None
    return found


async def _changed(
    engine: Engine,
    unit: Unit,
    environment: Environment,
    account_id: int,
    changes: Mapping[str, object],
    now: datetime,
    word: Word,
) -> Account:
    await accounts.update_account(unit, account_id, changes, now, engine.tick(), word)
    return await _read(unit, environment, account_id)


# --- a half of a company ----------------------------------------------------------------------------------------------


async def pause_company(
    engine: Engine, unit: Unit, environment: Environment, *, is_paused: bool, word: Word
) -> CompanyPauses:
    """Refuse every gated event of a half of a company, or no longer."""
    found = await _taken_company(unit, environment)
    if (found.paused_at is not None) == is_paused:
        return found
    at = engine.now_of(environment) if is_paused else None
    return await _changed_company(engine, unit, environment, {"paused_at": at}, word)


async def suspend_company(engine: Engine, unit: Unit, environment: Environment, *, word: Word) -> CompanyPauses:
    """Keep all events of a half of a company aside from now on. Replays under way go on to their marks."""
    found = await _taken_company(unit, environment)
    if found.usage_suspended_at is not None:
        return found
    # What is to be taken up is marked while it can still be told from what comes from now on.
    while len(await pauses.mark_accounts(unit, environment.id, MARKED_MAX)) == MARKED_MAX:
        continue
    await pauses.unmark_company(unit, environment.id)
    at = engine.now_of(environment)
    return await _changed_company(engine, unit, environment, {"usage_suspended_at": at}, word)


async def resume_company(
    engine: Engine, unit: Unit, environment: Environment, *, queued: Queued, word: Word
) -> CompanyPauses:
    """Bill events of a half of a company again; those that wait are replayed, voided, or go on waiting.

    Accounts that are suspended by themselves stay so, with what waits of them.
    """
    found = await _taken_company(unit, environment)
    if found.usage_suspended_at is None and not found.waiting:
        return found
    await pauses.mark_company(unit, environment.id, queued, engine.now() + LATE)
    return await _changed_company(engine, unit, environment, {"usage_suspended_at": None}, word._replace(queued=queued))


async def _taken_company(unit: Unit, environment: Environment) -> CompanyPauses:
    await accounts.lock_environment(unit, environment.id)
    return await pauses.read_company(unit, environment.id)


async def _changed_company(
    engine: Engine, unit: Unit, environment: Environment, changes: Mapping[str, object], word: Word
) -> CompanyPauses:
    """Change a pause of a half of a company; its revision rises, since what workers remember is no longer true."""
    await pauses.pause_company(unit, environment.id, changes, engine.now_of(environment), word)
    await accounts.raise_revision(unit, environment.id, engine.now())
    changed = {name: value is not None for name, value in changes.items()}
    _log.info("pause_company", company=environment.company_id, mode=environment.mode, reason=word.reason, **changed)
    return await pauses.read_company(unit, environment.id)
