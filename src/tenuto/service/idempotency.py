"""One effect per Idempotency-Key.

The key is claimed, the verb done, its answer encoded and stored in one unit: a crash leaves the key unused or complete,
never in between, and an answer that cannot be encoded undoes its effect (bar I-30 to I-38). A second request with the
same key waits for the first one's unit and then gets its answer. A refusal stores nothing: its key may be used again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final, TypeVar

from tenuto.core.outcomes import Refusal
from tenuto.engine import Answer, Engine, Once
from tenuto.store import ledger
from tenuto.store.accounts import Environment
from tenuto.store.database import AccountMovedOn, Contended, Unit, translated

Result = TypeVar("Result")

TRIES_MAX: Final = 5
ANSWER_LIFE: Final = timedelta(days=35)


async def run_once(
    engine: Engine,
    environment: Environment | None,
    once: Once | None,
    verb: Callable[[Unit], Awaitable[Result]],
    render: Callable[[Result], bytes],
) -> Answer:
    """Run a verb in a unit and render its answer (status 200), or replay the stored one.

    Raises Refusal: the verb's own, ``key_reused``, or ``request_in_progress`` when locks cannot be had in time.
    """
    for _ in range(TRIES_MAX):
        try:
            async with translated(), engine.database.writing() as unit:
                if once is None or environment is None:
                    return Answer(200, render(await verb(unit)))
                now = engine.now_of(environment)
                stored = await _claim(unit, environment.id, once, now)
                if stored is not None:
                    return stored
                body = render(await verb(unit))
                await ledger.store_answer(unit, environment.id, once.key, 200, body)
                return Answer(200, body)
        except AccountMovedOn:
            continue
        except Contended as error:
            raise Refusal("request_in_progress") from error
    raise Refusal("request_in_progress")


async def _claim(unit: Unit, environment_id: int, once: Once, now: datetime) -> Answer | None:
    """None when the key is now ours, else the answer stored under it."""
    if await ledger.claim_answer(unit, environment_id, once.key, once.fingerprint, now):
        return None
    found = (await ledger.find_answers(unit, [(environment_id, once.key)])).get((environment_id, once.key))
    if found is None:
        raise AccountMovedOn
    if found.fingerprint != once.fingerprint:
        raise Refusal("key_reused", key=once.key)
    return Answer(found.status, found.body, is_replay=True)


async def forget_answers(engine: Engine, *, now: datetime, limit: int) -> int:
    """Sweep: delete stored answers past their life; event keys live for ever in their events."""
    async with engine.database.writing() as unit:
        return await ledger.forget_answers(unit, now - ANSWER_LIFE, limit)
