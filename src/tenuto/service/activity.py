"""What was done by whom: told in the unit of what was done, with secrets left out, and sealed by a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from tenuto.engine import Engine
from tenuto.store import activity
from tenuto.store.database import Unit

SECRET_FIELDS: Final = frozenset(
    {"code", "keys", "password", "secret", "stripe_key", "stripe_webhook_secret", "token", "username"}
)
"""Fields of bodies of which only that they were given is told."""
TEXT_MAX: Final = 500
LIST_MAX: Final = 20
DEPTH_MAX: Final = 6
ASKED_MAX: Final = 8_192
"""The most bytes that are kept of one body."""


class Actor(NamedTuple):
    """Who does something, and from where: the id of a user or a key, and a name for people."""

    id: str
    name: str
    address: str


def masked(value: object, depth: int = 0) -> object:
    """A body as it is told: secrets are three dots, what is long is cut."""
    if depth > DEPTH_MAX:
        return "..."
    match value:
        case Mapping():
            shown = {
                str(name)[:TEXT_MAX]: "..." if name in SECRET_FIELDS and found else masked(found, depth + 1)
                for name, found in list(value.items())[:LIST_MAX]
            }
            more = len(value) - LIST_MAX
            return {**shown, "...": f"and {more} more"} if more > 0 else shown
        case list():
            cut = [masked(found, depth + 1) for found in value[:LIST_MAX]]
            return [*cut, f"and {len(value) - LIST_MAX} more"] if len(value) > LIST_MAX else cut
        case str():
            return value if len(value) <= TEXT_MAX else f"{value[:TEXT_MAX]}..."
        case _:
            return value


def told(body: object) -> object:
    """A body as it is kept: masked, and where it is too large even then, no more than the names of its fields."""
    if not isinstance(body, Mapping):
        return None
    found = masked(body)
    if len(msgspec.json.encode(found)) <= ASKED_MAX:
        return found
    return dict.fromkeys(found, "...") if isinstance(found, Mapping) else None


class Telling(NamedTuple):
    """What is written down: who did what, to what, with which body; about one half of a company, or all of it."""

    actor: Actor
    action: str
    company_id: int
    environment_id: int | None = None
    target: str = ""
    asked: object = None


async def tell(engine: Engine, unit: Unit, telling: Telling) -> None:
    """Write down what is done in this unit."""
    actor = telling.actor
    await activity.insert_activity(
        unit,
        company_id=telling.company_id,
        environment_id=telling.environment_id,
        at=engine.now(),
        actor=actor.id,
        actor_name=actor.name,
        address=actor.address,
        action=telling.action,
        target=telling.target[:TEXT_MAX],
        asked=told(telling.asked),
    )


async def tell_apart(engine: Engine, telling: Telling) -> None:
    """Write down what was done in many units, in one of its own after them."""
    async with engine.database.writing() as unit:
        await tell(engine, unit, telling)


async def seal_activity(engine: Engine, *, now: datetime, limit: int) -> int:  # noqa: ARG001 - a sweep's signature
    """Sweep: number and seal what was told; how many rows."""
    async with engine.database.writing() as unit:
        return await activity.seal_activity(unit, limit)
