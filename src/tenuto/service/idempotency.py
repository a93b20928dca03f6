"""One effect per Idempotency-Key.

The key is claimed, the verb done, its answer encoded and stored in one unit: a crash leaves the key unused or complete,
never in between, and an answer that cannot be encoded undoes its effect (bar I-30 to I-38). A second request with the
same key waits for the first one's unit and then gets its answer. A refusal stores nothing: its key may be used again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, TypeVar

from tenuto.core.outcomes import Refusal
from tenuto.engine import Answer, Engine, Once
from tenuto.store import answers
from tenuto.store.accounts import Environment
from tenuto.store.database import AccountMovedOn, Contended, KeyIsKnown, Unit, translated

Result = TypeVar("Result")

TRIES_MAX: Final = 5
ANSWER_LIFE: Final = timedelta(days=35)


async def run_once(
    engine: Engine,
    environment: Environment | None,
    once: Once | None,
    verb: Callable[[Unit], Awaitable[Result]],
    render: Callable[[Result], bytes],
    *,
    is_secret: bool = False,
) -> Answer:
    """Run a verb in a unit and render its answer (status 200), or replay the stored one.

    ``is_secret``: the answer holds what nobody may read in the database (a key, a signed address): it is kept sealed.

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
                    return _opened(engine, environment, once, stored)
                body = render(await verb(unit))
                kept = engine.vault.seal(body.decode(), context=_context(environment, once)) if is_secret else body
                await answers.store_answer(unit, environment.id, once.key, 200, kept)
                return Answer(200, body)
        except AccountMovedOn:
            continue
        except Contended as error:
            raise Refusal("request_in_progress") from error
    raise Refusal("request_in_progress")


class Steps(NamedTuple):
    """A verb that has to ask a stranger on its way.

    ``begin`` writes down, in the unit that claims the key, what is to be done; ``resume`` finds that again when the
    same key comes back before there was an answer; ``finish`` does it, with nothing open, and gives the answer, or an
    answer of 202 that is not kept because the end is not known yet. ``leaves_nothing``: where ``finish`` refuses,
    nothing was written, so the key may be used again for something else.
    """

    begin: Callable[[Unit], Awaitable[Any]]
    resume: Callable[[Unit], Awaitable[Any]]
    finish: Callable[[Any], Awaitable[Answer]]
    leaves_nothing: bool = False


ACCEPTED: Final = 202


async def run_in_steps(engine: Engine, environment: Environment, once: Once | None, steps: Steps) -> Answer:
    """Run such a verb once per key: a crash in the middle leaves what was begun, which the key then goes on with.

    Raises Refusal: the verb's own, ``key_reused``, ``request_in_progress``.
    """
    begun = None
    for _ in range(TRIES_MAX):
        try:
            async with translated(), engine.database.writing() as unit:
                if once is None:
                    begun = await steps.begin(unit)
                    break
                stored = await _known(unit, environment.id, once, engine.now_of(environment))
                if isinstance(stored, Answer):
                    return stored
                begun = await (steps.resume(unit) if stored else steps.begin(unit))
                break
        except (AccountMovedOn, KeyIsKnown):
            continue
        except Contended as error:
            raise Refusal("request_in_progress") from error
    else:
        raise Refusal("request_in_progress")
    try:
        answer = await steps.finish(begun)
    except Refusal:
        if once is not None and steps.leaves_nothing:
            async with engine.database.writing() as unit:
                await answers.let_go_of_answer(unit, environment.id, once.key)
        raise
    if once is not None and answer.status != ACCEPTED:
        async with engine.database.writing() as unit:
            await answers.store_answer(unit, environment.id, once.key, answer.status, answer.body)
    return answer


def _context(environment: Environment, once: Once) -> str:
    return f"answer {environment.id} {once.key}"


def _opened(engine: Engine, environment: Environment, once: Once, stored: Answer) -> Answer:
    """A stored answer as it was given; what was kept sealed begins with no bracket, and is never empty."""
    if stored.body[:1] in {b"", b"{", b"["}:
        return stored
    return stored._replace(body=engine.vault.open(stored.body, context=_context(environment, once)).encode())


async def _known(unit: Unit, environment_id: int, once: Once, now: datetime) -> Answer | bool:
    """The stored answer of a key; else whether it was claimed before (True) or is now ours (False)."""
    if await answers.claim_answer(unit, environment_id, once.key, once.fingerprint, now):
        return False
    found = (await answers.find_answers(unit, [(environment_id, once.key)])).get((environment_id, once.key))
    if found is None:
        raise AccountMovedOn
    if found.fingerprint != once.fingerprint:
        raise Refusal("key_reused", key=once.key)
    return True if found.status is None else Answer(found.status, found.body, is_replay=True)


async def _claim(unit: Unit, environment_id: int, once: Once, now: datetime) -> Answer | None:
    """None when the key is now ours, else the answer stored under it."""
    known = await _known(unit, environment_id, once, now)
    if known is True:
        raise Refusal("request_in_progress")
    return known or None


async def forget_answers(engine: Engine, *, now: datetime, limit: int) -> int:
    """Sweep: delete stored answers past their life; event keys live for ever in their events."""
    async with engine.database.writing() as unit:
        return await answers.forget_answers(unit, now - ANSWER_LIFE, limit)
