"""Flags of accounts: all of them as they stand now, and what the company sets for one account."""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

from tenuto.core.entitlement import flags_of_rules, shown
from tenuto.core.outcomes import Refusal
from tenuto.core.plan import FlagValue
from tenuto.core.topic import BLOCKED_FLAG, PAUSED_FLAG, SUSPENDED_FLAG, FlagChange
from tenuto.engine import Engine
from tenuto.store import flags
from tenuto.store.accounts import Environment
from tenuto.store.database import Unit
from tenuto.store.flags import FlagRow, Held, OwnFlag

OWN_FLAGS_MAX: Final = 100
"""Flags that may be set for one account; as many as a plan may have."""


class FlagAsk(NamedTuple):
    """What is to become of a flag of one account: a value, or None to go by its plan again. ``actor`` asks for it."""

    name: str
    value: FlagValue | None
    reason: str
    actor: str


def standing(environment: Environment, held: Held) -> dict[str, FlagRow]:
    """Every flag of an account by name, with since when its value is what it is; of metered ones, since it was set."""
    since = _since(held)
    found: dict[str, FlagRow] = {}
    for name, flag in held.flags(_system(environment, held)).items():
        match flag.source:
            case "operator":
                found[name] = FlagRow(flag, held.own[name].changed_at)
            case "plan":
                found[name] = FlagRow(flag, held.plan_at)
            case "system":
                found[name] = FlagRow(flag, since.get(name))
    return found


def _since(held: Held) -> dict[str, datetime | None]:
    return {
        PAUSED_FLAG: held.paused_at,
        BLOCKED_FLAG: held.credit_blocked_at,
        SUSPENDED_FLAG: held.usage_suspended_at,
    }


def _system(environment: Environment, held: Held) -> dict[str, bool]:
    """The flags of pauses, of the account or its whole company, and those that the company's rules raise."""
    terms = environment.terms
    up = {name: at is not None for name, at in _since(held).items()}
    up[PAUSED_FLAG] |= terms.is_paused
    up[SUSPENDED_FLAG] |= terms.is_suspended
    limit = terms.default_credit_limit
    return {**flags_of_rules(terms.listening.rules, held.balances, held.credit_limit, limit), **up}


async def change_flag(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, ask: FlagAsk
) -> FlagRow | None:
    """Set a flag for one account, or take back what was set: the flag as it stands then, None where none is left.

    What is set already is not set again. Raises Refusal ``not_found`` (for an account, or for a flag to take back that
    was not set), ``flag_is_set_by_system``, or ``out_of_range`` beyond the flags that may be set.
    """
    held = await flags.take_held(unit, environment.id, account_id)
    if held is None:
        raise Refusal("not_found")
    known = held.own.get(ask.name)
    _refuse(environment, held, ask)
    if known is not None and ask.value is not None and _is_same(known.value, ask.value):
        return standing(environment, held).get(ask.name)
    now = engine.now_of(environment)
    own = {name: set_before for name, set_before in held.own.items() if name != ask.name}
    if ask.value is None:
        await flags.delete_own(unit, account_id, ask.name)
    else:
        await flags.put_own(unit, account_id, ask.name, ask.value, now)
        own[ask.name] = OwnFlag(ask.value, now)
    before, after = standing(environment, held), standing(environment, held._replace(own=own))
    change = FlagChange(
        max(engine.tick(), held.tick + 1),
        ask.name,
        "operator",
        ask.actor,
        ask.reason,
        _shown(before.get(ask.name)),
        _shown(after.get(ask.name)),
    )
    await flags.save_changes(unit, environment.id, account_id, [change], now)
    return after.get(ask.name)


def _refuse(environment: Environment, held: Held, ask: FlagAsk) -> None:
    """What was set before a rule of the company took the name can still be taken back."""
    if ask.name in held.own:
        if ask.value is None:
            return
    elif ask.value is not None and len(held.own) >= OWN_FLAGS_MAX:
        raise Refusal("out_of_range", f"At most {OWN_FLAGS_MAX} flags are set for one account.", path="name")
    if ask.name in _system(environment, held):
        raise Refusal("flag_is_set_by_system", name=ask.name)
    if ask.value is None:
        raise Refusal("not_found")


def _is_same(known: FlagValue, value: FlagValue) -> bool:
    """Whether two values are one; true is not 1 here."""
    return isinstance(known, bool) == isinstance(value, bool) and known == value


def _shown(row: FlagRow | None) -> dict[str, object] | None:
    return None if row is None else shown(row.flag)
