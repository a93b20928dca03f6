"""Pauses, credit blocks and suspended usage: of an account, and of a whole half of a company.

The problem, on one example. A price was wrong since noon. ``POST .../companies/c_.../suspend_usage`` at one, the price
is put right as of noon, ``POST .../companies/c_.../resume_usage``: what came meanwhile is billed by the right price,
and ``GET .../pauses`` counts it down. Each route may be called again: what stands so already stays so.
"""

from __future__ import annotations

from typing import Final

import msgspec

from tenuto.core.event import Decision, Event
from tenuto.core.identifiers import spell
from tenuto.core.outcomes import Refusal, invalid
from tenuto.engine import Answer
from tenuto.service import pauses as service
from tenuto.service.usage import Replay, UsageRequest
from tenuto.store import pauses as store
from tenuto.store.database import Unit
from tenuto.store.pauses import MANUAL, CompanyPauses, Word

from . import body as bodies
from . import shapes
from .account_plans import account_in
from .body import spelled
from .routes import Call, Route
from .usage import submitted

REASON_MAX: Final = 500


class PauseIn(msgspec.Struct, forbid_unknown_fields=True):
    """Why; kept in the history of the account's flags."""

    reason: str | None = None


class ResumeUsageIn(msgspec.Struct, forbid_unknown_fields=True):
    """What becomes of the events that wait: replay, void, or keep for later."""

    queued: str = "replay"
    reason: str | None = None


class CompanyPausesOut(shapes.Shape):
    """What of one half of a company stands still, and how many events of how many accounts wait."""

    company_id: str
    mode: str
    paused: bool
    paused_at: str | None
    usage_suspended: bool
    usage_suspended_at: str | None
    capture_suspended: bool
    events_waiting: int
    accounts_waiting: int
    replaying: bool


def _word(call: Call, reason: str | None) -> Word:
    given = None if reason is None else bodies.text(reason, "reason", REASON_MAX)
    return Word(MANUAL, call.caller.actor, given)


def _asked(call: Call) -> Word:
    return _word(call, (call.decoded(PauseIn) if call.body else PauseIn()).reason)


def _resumed(call: Call) -> tuple[service.Queued, Word]:
    given = call.decoded(ResumeUsageIn) if call.body else ResumeUsageIn()
    for queued in service.QUEUED:
        if given.queued == queued:
            return queued, _word(call, given.reason)
    raise invalid("queued", f"is one of {', '.join(service.QUEUED)}.")


# --- accounts ---------------------------------------------------------------------------------------------------------


async def pause_account(call: Call) -> Answer:
    """Refuse every gated event of an account."""
    return await _pause(call, is_paused=True)


async def resume_account(call: Call) -> Answer:
    """Let an account go on, whatever had paused it."""
    return await _pause(call, is_paused=False)


async def _pause(call: Call, *, is_paused: bool) -> Answer:
    account_id, word = call.id("a", "account_id"), _asked(call)

    async def verb(unit: Unit) -> shapes.AccountOut:
        await service.pause_account(call.engine, unit, call.environment, account_id, is_paused=is_paused, word=word)
        return await account_in(call, unit, account_id)

    return await call.once(verb, shapes.wrapped)


async def block_credit(call: Call) -> Answer:
    """Block an account as if it were over its limit, until it is unblocked."""
    return await _block(call, is_blocked=True)


async def unblock_credit(call: Call) -> Answer:
    """End the block of an account's credit, whatever had begun it."""
    return await _block(call, is_blocked=False)


async def _block(call: Call, *, is_blocked: bool) -> Answer:
    account_id, word = call.id("a", "account_id"), _asked(call)

    async def verb(unit: Unit) -> shapes.AccountOut:
        await service.block_credit(call.engine, unit, call.environment, account_id, is_blocked=is_blocked, word=word)
        return await account_in(call, unit, account_id)

    return await call.once(verb, shapes.wrapped)


async def suspend_usage(call: Call) -> Answer:
    """Keep an account's events aside from now on."""
    account_id, word = call.id("a", "account_id"), _asked(call)

    async def verb(unit: Unit) -> shapes.AccountOut:
        await service.suspend_usage(call.engine, unit, call.environment, account_id, word=word)
        return await account_in(call, unit, account_id)

    return await call.once(verb, shapes.wrapped)


async def resume_usage(call: Call) -> Answer:
    """Bill an account's events again, and say what becomes of those that wait."""
    account_id, (queued, word) = call.id("a", "account_id"), _resumed(call)

    async def verb(unit: Unit) -> shapes.AccountOut:
        await service.resume_usage(call.engine, unit, call.environment, account_id, queued=queued, word=word)
        return await account_in(call, unit, account_id)

    answer = await call.once(verb, shapes.wrapped)
    call.engine.nudge("replay_suspended")
    return answer


# --- companies --------------------------------------------------------------------------------------------------------


def _shown(call: Call, found: CompanyPauses) -> bytes:
    environment = call.environment
    return shapes.wrapped(
        CompanyPausesOut(
            company_id=spell("c", environment.company_id),
            mode=environment.mode,
            paused=found.paused_at is not None,
            paused_at=spelled(found.paused_at),
            usage_suspended=found.usage_suspended_at is not None,
            usage_suspended_at=spelled(found.usage_suspended_at),
            capture_suspended=found.capture_suspended,
            events_waiting=found.waiting,
            accounts_waiting=found.accounts_waiting,
            replaying=found.is_replaying,
        )
    )


async def get_company_pauses(call: Call) -> Answer:
    """What of the company's half stands still."""
    call.company()
    async with call.engine.database.reading() as reader:
        return Answer(200, _shown(call, await store.read_company(reader, call.environment.id)))


async def pause_company(call: Call) -> Answer:
    """Refuse every gated event of all accounts."""
    return await _pause_company(call, is_paused=True)


async def resume_company(call: Call) -> Answer:
    """Let all accounts go on that are not paused by themselves."""
    return await _pause_company(call, is_paused=False)


async def _pause_company(call: Call, *, is_paused: bool) -> Answer:
    call.company()
    word = _asked(call)

    async def verb(unit: Unit) -> CompanyPauses:
        return await service.pause_company(call.engine, unit, call.environment, is_paused=is_paused, word=word)

    return await call.once(verb, lambda found: _shown(call, found))


async def suspend_company_usage(call: Call) -> Answer:
    """Keep the events of all accounts aside from now on."""
    call.company()
    word = _asked(call)

    async def verb(unit: Unit) -> CompanyPauses:
        return await service.suspend_company(call.engine, unit, call.environment, word=word)

    return await call.once(verb, lambda found: _shown(call, found))


async def resume_company_usage(call: Call) -> Answer:
    """Bill the events of all accounts again, and say what becomes of those that wait."""
    call.company()
    queued, word = _resumed(call)

    async def verb(unit: Unit) -> CompanyPauses:
        return await service.resume_company(call.engine, unit, call.environment, queued=queued, word=word)

    answer = await call.once(verb, lambda found: _shown(call, found))
    call.engine.nudge("replay_suspended")
    return answer


# --- one event --------------------------------------------------------------------------------------------------------


async def replay_event(call: Call) -> Answer:
    """Bill one event that waits, now, whether usage is suspended or not."""
    account_id, event_id = call.event_id()
    if call.body:
        bodies.parse(call.body)
    request = UsageRequest(
        environment=call.environment,
        key_id=call.caller.key_id,
        account_id=account_id,
        request_id=call.request_id,
        render=_render_replayed,
        replay=Replay((event_id,)),
        once=call.idempotency(),
    )
    try:
        answer = await submitted(call, account_id, request)
    except Refusal as refusal:
        path = refusal.details.get("path")
        if isinstance(path, str):
            refusal.details["path"] = path.removeprefix("events[0].")
        raise
    await call.tell_by_hand(answer)
    return answer


def _render_replayed(decision: Decision) -> Answer:
    (replayed,) = decision.answers
    assert isinstance(replayed, Event)
    return Answer(200, shapes.wrapped(shapes.EventWriter().event(replayed)))


WITHOUT_BODY: Final = (
    *(pause_account, resume_account, block_credit, unblock_credit, suspend_usage, resume_usage),
    *(pause_company, resume_company, suspend_company_usage, resume_company_usage),
)
"""What may be asked for without saying why."""
_REASON: Final = {"reason": "asked by support"}
ROUTES: Final = (
    *(
        Route(
            "POST",
            f"/accounts/{{account_id}}/{name}",
            serve,
            summary,
            "Pauses",
            shapes.AccountOut,
            scope="accounts:write",
            body=PauseIn,
            example=_REASON,
        )
        for name, serve, summary in (
            ("pause", pause_account, "Pause an account"),
            ("resume", resume_account, "Let a paused account go on"),
            ("credit_block", block_credit, "Block an account's credit"),
            ("credit_unblock", unblock_credit, "End the block of an account's credit"),
            ("suspend_usage", suspend_usage, "Keep an account's events aside"),
        )
    ),
    Route(
        "POST",
        "/accounts/{account_id}/resume_usage",
        resume_usage,
        "Bill an account's events again",
        "Pauses",
        shapes.AccountOut,
        scope="accounts:write",
        body=ResumeUsageIn,
        example={"queued": "replay"},
        details="Events that wait are billed in order, each priced as of its own time, or voided. It goes on after the"
        " answer; `events_waiting` of the account counts it down.",
    ),
    Route(
        "GET",
        "/companies/{company_id}/pauses",
        get_company_pauses,
        "What of the company stands still",
        "Pauses",
        CompanyPausesOut,
        scope="company:read",
    ),
    *(
        Route(
            "POST",
            f"/companies/{{company_id}}/{name}",
            serve,
            summary,
            "Pauses",
            CompanyPausesOut,
            scope="company:write",
            body=PauseIn,
            example=_REASON,
        )
        for name, serve, summary in (
            ("pause", pause_company, "Pause all accounts"),
            ("resume", resume_company, "Let all accounts go on"),
            ("suspend_usage", suspend_company_usage, "Keep the events of all accounts aside"),
        )
    ),
    Route(
        "POST",
        "/companies/{company_id}/resume_usage",
        resume_company_usage,
        "Bill the events of all accounts again",
        "Pauses",
        CompanyPausesOut,
        scope="company:write",
        body=ResumeUsageIn,
        example={"queued": "replay"},
        details="Accounts that are suspended by themselves stay so, with what waits of them.",
    ),
    Route(
        "POST",
        "/events/{event_id}/replay",
        replay_event,
        "Bill one event that waits",
        "Events",
        shapes.EventOut,
        scope="events:write",
        refusals=("event_not_suspended", "out_of_range", "balance_out_of_range", "overloaded"),
    ),
)
