"""Settings and the engine: what every verb needs from the world, gathered in one value.

The only reader of the environment variables. The engine holds the database, the clock, chance for ids, and what a
worker remembers of companies; a remembered environment is never trusted by itself, each write proves its revision.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol

from tenuto.core.identifiers import ID_MAX
from tenuto.lanes import Lanes
from tenuto.store import accounts as store
from tenuto.store.accounts import Environment
from tenuto.store.database import Database

ENVIRONMENTS_MAX: Final = 10_000
"""Environments one worker remembers."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What can be set from outside, by ``TENUTO_*`` variables or flags of the same names. All have a default."""

    host: str = "127.0.0.1"
    port: int = 8080
    database: str = ""
    data: str = ".tenuto"
    workers: int = 1
    lanes: int = 1
    registration: str = ""
    operator_token: str = ""
    log_level: str = "info"

    @property
    def is_registration_open(self) -> bool:
        """Whether anybody may open a company: said so, or not said and on the embedded database."""
        return self.registration == "open" or (not self.registration and not self.database)


SECRET_SETTINGS: Final = frozenset({"operator_token", "database"})


def read_settings(
    flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> tuple[Settings, dict[str, str]]:
    """The settings and, per name, where each came from: ``flag``, ``environment`` or ``default``.

    Raises ValueError naming the variable whose value does not fit.
    """
    environ = os.environ if environ is None else environ
    flags = flags or {}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for item in fields(Settings):
        name, variable = item.name, f"TENUTO_{item.name.upper()}"
        given = flags.get(name)
        if given is not None:
            values[name], sources[name] = given, "flag"
        elif environ.get(variable, "") != "":
            values[name], sources[name] = _converted(variable, environ[variable], item.default), "environment"
        else:
            values[name], sources[name] = item.default, "default"
    return replace(Settings(), **values), sources


def _converted(variable: str, text: str, default: object) -> object:
    if isinstance(default, int):
        if not text.isdecimal():
            msg = f"{variable} is {text!r}, but it takes a whole number."
            raise ValueError(msg)
        return int(text)
    return text


class Once(NamedTuple):
    """An Idempotency-Key with the digest of the request it came with."""

    key: str
    fingerprint: bytes


class Answer(NamedTuple):
    """What goes back to a client: status, body, and whether it is the stored answer of an earlier request."""

    status: int
    body: bytes
    is_replay: bool = False


class Clock(Protocol):
    """Where the present comes from: the database's clock, or a made-up one in tests."""

    def now(self) -> datetime:
        """The present in UTC."""
        ...


class DatabaseClock:
    """The database's clock, carried forward between looks by the monotonic clock: the host's time never matters."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._base = datetime.now(UTC)
        self._at = time.monotonic()

    async def look(self) -> None:
        """Ask the database again. Time never goes back because of it: a clock that was ahead waits."""
        async with self._database.reading() as reader:
            before = time.monotonic()
            seen: datetime = await reader.fetchval("select clock_timestamp()")
        self._base, self._at = seen, (before + time.monotonic()) / 2

    def now(self) -> datetime:
        """The present in UTC."""
        return self._base + timedelta(seconds=time.monotonic() - self._at)


class Engine:
    """One worker's engine. ``lanes`` is set by whoever assembles the house (api.app, worker, tests)."""

    def __init__(self, settings: Settings, database: Database, clock: Clock) -> None:
        self.settings = settings
        self.database = database
        self.clock = clock
        self.lanes: Lanes[Any, Any] = Lanes(())
        self.keys_used: dict[tuple[int, int], datetime] = {}
        self._environments: dict[int, Environment] = {}

    @classmethod
    async def open(cls, settings: Settings, dsn: str) -> Engine:
        """Connect and look at the clock. Raises UnsafeServer or Unavailable."""
        database = await Database.connect(dsn)
        clock = DatabaseClock(database)
        await clock.look()
        return cls(settings, database, clock)

    async def close(self) -> None:
        """Let the lanes finish, then let go of the database."""
        await self.lanes.stop()
        await self.database.close()

    def now(self) -> datetime:
        """The real present; a company's own is :meth:`now_of`."""
        return self.clock.now()

    def now_of(self, environment: Environment) -> datetime:
        """The present as an environment lives it: a test clock may be ahead."""
        return self.clock.now() + environment.clock_offset

    def tick(self) -> int:
        """The real present in microseconds: the lower bound of every new id of an account."""
        return microseconds(self.clock.now())

    def new_id(self) -> int:
        """A number for a new company, user, key, price or account, from chance."""
        return secrets.randbelow(ID_MAX) + 1

    def remembered(self, environment_id: int) -> Environment | None:
        """What is remembered of an environment; it may be out of date until proven by a write or ``environment``."""
        return self._environments.get(environment_id)

    async def environment(self, environment_id: int) -> Environment | None:
        """An environment as it is now: what is remembered if its revision still holds, else read anew."""
        known = self._environments.get(environment_id)
        async with self.database.reading() as reader:
            if known is not None and await store.current_revision(reader, environment_id) == known.revision:
                return known
            found = await store.read_environment(reader, environment_id)
        if found is None:
            self._environments.pop(environment_id, None)
            return None
        self.remember(found)
        return found

    def remember(self, environment: Environment) -> None:
        """Keep an environment, the oldest making room."""
        self._environments.pop(environment.id, None)
        while len(self._environments) >= ENVIRONMENTS_MAX:
            self._environments.pop(next(iter(self._environments)))
        self._environments[environment.id] = environment


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(at: datetime) -> int:
    """Microseconds since 1970."""
    return (at - _EPOCH) // timedelta(microseconds=1)
