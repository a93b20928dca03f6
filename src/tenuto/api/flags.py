"""Flags of an account: what it may do right now, what is set for it by hand, and what became of each."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tenuto.core.entitlement import Flag
from tenuto.core.outcomes import Refusal
from tenuto.core.plan import FlagValue
from tenuto.engine import Answer
from tenuto.service import flags as service
from tenuto.store import flags
from tenuto.store.database import Unit
from tenuto.store.flags import FlagRow, StoredChange

from . import body as bodies
from . import shapes
from .plan_input import FLAG_NAME_MAX, MeteredIn, flag_value
from .routes import PAGING, Call, Param, Route
from .usage import page_of

REASON_MAX: Final = 500
_READ: Final = "accounts:read"


class FlagIn(msgspec.Struct, forbid_unknown_fields=True):
    """A flag to set for one account: on or off, a limit, a text, or the balance that it follows."""

    value: bool | int | str | MeteredIn
    reason: str | None = None


class FlagAskedOut(shapes.FlagOut):
    """A flag, and whether it allows what was asked. One that nobody set is off, has no type and the source `none`."""

    allowed: bool


class FlagChangeOut(shapes.Shape):
    """A change of a flag. ``before`` and ``after`` have type, enabled, value and denomination; null: it was not there.

    ``source`` is `plan`, `operator`, `system` or `balance`; ``actor`` the API key, the step of a plan or the
    transaction.
    """

    name: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    source: str
    actor: str | None
    reason: str | None
    changed_at: str | None


async def list_flags(call: Call) -> Answer:
    """Every flag of an account as it stands now, by name."""
    found = await _standing(call)
    return Answer(200, shapes.listed([shapes.flag(row) for row in found.values()], None))


async def get_flag(call: Call) -> Answer:
    """One flag as it stands now, and whether it allows what is asked."""
    name, given = _name(call), call.filters().get("value")
    found = (await _standing(call)).get(name)
    assert given is None or isinstance(given, int)
    allowed = found is not None and found.flag.allows(given)
    out = _shown(name, found)
    return Answer(200, shapes.wrapped(FlagAskedOut(**msgspec.structs.asdict(out), allowed=allowed)))


async def _standing(call: Call) -> dict[str, FlagRow]:
    """All flags. Reads and proves the caller in one round trip."""
    account_id = call.id("a", "account_id")
    while True:
        environment = call.environment
        async with call.engine.database.reading() as reader:
            is_current, held = await flags.read_held(reader, environment.id, environment.revision, account_id)
        if is_current:
            break
        caller = await call.callers.proven(call.headers.get(b"authorization"))
        caller.needs(_READ)
        call.become(caller)
    if held is None:
        raise Refusal("not_found")
    return service.standing(environment, held)


def _name(call: Call) -> str:
    return bodies.token(call.params["name"], "name", FLAG_NAME_MAX)


def _shown(name: str, row: FlagRow | None) -> shapes.FlagOut:
    if row is not None:
        return shapes.flag(row)
    none = shapes.flag(FlagRow(Flag(name, "binary", enabled=False, value=None, denomination=None, source="plan"), None))
    return msgspec.structs.replace(none, type=None, source="none")


async def set_flag(call: Call) -> Answer:
    """Set a flag for one account, over what its plan says."""
    given = call.decoded(FlagIn)
    value = flag_value(given.value, "value")
    reason = "set by hand" if given.reason is None else bodies.text(given.reason, "reason", REASON_MAX)
    return await _change(call, value, reason)


async def clear_flag(call: Call) -> Answer:
    """Take back what was set for one account: its plan's word holds again."""
    given = call.query.get("reason")
    reason = "taken back by hand" if given is None else bodies.text(str(call.filters()["reason"]), "reason")
    return await _change(call, None, reason)


async def _change(call: Call, value: FlagValue | None, reason: str) -> Answer:
    account_id, name = call.id("a", "account_id"), _name(call)
    ask = service.FlagAsk(name, value, reason, call.caller.actor)

    async def verb(unit: Unit) -> FlagRow | None:
        return await service.change_flag(call.engine, unit, call.environment, account_id, ask)

    return await call.once(verb, lambda row: shapes.wrapped(_shown(name, row)))


async def list_changes(call: Call) -> Answer:
    """What became of a flag: from what to what, when, by whom and why; newest first."""
    account, name = await call.account(), _name(call)
    async with call.engine.database.reading() as reader:
        found = await flags.list_changes(reader, account.id, name, call.page())
    return page_of(call, found, lambda change: (change.id, change.account_id), _change_out)


def _change_out(change: StoredChange) -> FlagChangeOut:
    return FlagChangeOut(
        name=change.name,
        before=change.before,
        after=change.after,
        source=change.source,
        actor=change.actor,
        reason=change.reason,
        changed_at=bodies.spelled(change.changed_at),
    )


_PATH: Final = "/accounts/{account_id}/flags"
_ONE: Final = _PATH + "/{name}"

ROUTES: Final = (
    Route(
        "GET",
        _PATH,
        list_flags,
        "List an account's flags",
        "Flags",
        shapes.FlagOut,
        scope=_READ,
        is_list=True,
        details="All of them in one answer.",
    ),
    Route(
        "GET",
        _ONE,
        get_flag,
        "Ask a flag",
        "Flags",
        FlagAskedOut,
        scope=_READ,
        query=(Param("value", "whole", "How much is wanted, of a limit; it is allowed up to the limit."),),
        refusals=("out_of_range",),
    ),
    Route(
        "PUT",
        _ONE,
        set_flag,
        "Set a flag for one account",
        "Flags",
        shapes.FlagOut,
        scope="accounts:write",
        body=FlagIn,
        refusals=("flag_is_set_by_system",),
        example={"value": True, "reason": "on trial for a week"},
    ),
    Route(
        "DELETE",
        _ONE,
        clear_flag,
        "Take back what was set for one account",
        "Flags",
        shapes.FlagOut,
        scope="accounts:write",
        query=(Param("reason", "text", "Why; it stands in the history, and takes 1 to 200 characters."),),
        refusals=("flag_is_set_by_system", "invalid_string"),
    ),
    Route(
        "GET",
        _ONE + "/history",
        list_changes,
        "List the changes of a flag",
        "Flags",
        FlagChangeOut,
        scope=_READ,
        query=PAGING,
        is_list=True,
        refusals=("invalid_cursor",),
    ),
)
