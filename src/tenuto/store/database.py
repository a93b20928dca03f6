"""The door to PostgreSQL: connections, units, migrations, and what must be true of a server before money goes in.

A *unit* is one database transaction. ``reading()`` lends a connection on which PostgreSQL itself refuses writes;
``writing()`` opens a unit and commits it when the block ends without an exception. Lanes own a connection each
(``lane_connection``) and never share it. Sources: design 2 and 7, bar I-79.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from typing import TYPE_CHECKING, Final, TypeAlias

import asyncpg

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Unit: TypeAlias = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
    Reader: TypeAlias = Unit
    Record: TypeAlias = asyncpg.Record
else:
    Unit = Reader = asyncpg.Connection
    Record = asyncpg.Record

__all__ = [
    "AccountMovedOn",
    "Contended",
    "Database",
    "EnvironmentMovedOn",
    "KeyIsKnown",
    "Reader",
    "Record",
    "Unavailable",
    "Unit",
    "UnsafeServer",
]

POOL_SIZE: Final = 4
OLDEST_MAJOR: Final = 15
STATEMENT_SECONDS: Final = 30
LOCK_SECONDS: Final = 5
MIGRATION_LOCK: Final = 7_365_217_001
"""The advisory lock under which migrations run: any number, as long as it stays the same."""

_SESSION: Final = {
    "timezone": "UTC",
    "synchronous_commit": "on",
    "statement_timeout": str(STATEMENT_SECONDS * 1000),
    "lock_timeout": str(LOCK_SECONDS * 1000),
    "idle_in_transaction_session_timeout": "30000",
    "application_name": "tenuto",
    "jit": "off",
}
# A plan that is made while a table is small turns the look-up of a key into a scan of the table and is then kept; and
# lanes rely on rows being taken in the order of their sorted arrays, which only the nested loop promises.
_LANE: Final = {
    **_SESSION,
    "lock_timeout": "1000",  # a lane that waits makes all its accounts wait
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}


class UnsafeServer(Exception):
    """The server has a setting on which acknowledged money could be lost; the message names it and the remedy."""


class AccountMovedOn(Exception):
    """The account was written to since it was read (TN001): read again and decide again."""


class EnvironmentMovedOn(Exception):
    """A price, a setting, a key or the clock was changed since it was read (TN002)."""


class KeyIsKnown(Exception):
    """A key of the batch was used before (23505, TN003): decide again with the stored outcomes."""


class Contended(Exception):
    """A row was locked by somebody else for longer than is waited (55P03)."""


class Unavailable(Exception):
    """The database cannot be reached, or went away while a unit was open: its outcome may be unknown."""


class Database:
    """One PostgreSQL database, seen from one process. Make it with :meth:`connect`, end it with :meth:`close`."""

    def __init__(self, dsn: str, readers: asyncpg.Pool, writers: asyncpg.Pool) -> None:
        self.dsn = dsn
        self._readers = readers
        self._writers = writers

    @classmethod
    async def connect(cls, dsn: str) -> Database:
        """Open the pools. Raises UnsafeServer, or Unavailable when nobody answers."""
        try:
            await refuse_unsafe_settings(dsn)
            readers = await _pool(dsn, {**_SESSION, "default_transaction_read_only": "on"})
            writers = await _pool(dsn, _SESSION)
        except _GONE as error:
            raise Unavailable(str(error)) from error
        return cls(dsn, readers, writers)

    async def close(self) -> None:
        """Wait for what is being done, then let go of every connection."""
        await asyncio.gather(self._readers.close(), self._writers.close())

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Reader]:
        """A connection that can read. Each statement sees what was committed when it began. Raises Contended."""
        async with _borrowed(self._readers) as connection:
            try:
                yield connection
            except asyncpg.LockNotAvailableError as error:
                raise Contended from error

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Reader]:
        """A connection whose statements all see one and the same moment, however long they take."""
        connection = await asyncpg.connect(self.dsn, server_settings={**_SESSION, "statement_timeout": "0"})
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Unit]:
        """A unit. Only ``service`` may open one."""
        async with _borrowed(self._writers) as connection, connection.transaction():
            yield connection

    async def lane_connection(self, patience: float) -> Unit:
        """A connection for one lane to keep, tried for ``patience`` seconds. Raises Unavailable."""
        give_up_at = asyncio.get_running_loop().time() + patience
        while True:
            try:
                return await asyncpg.connect(self.dsn, server_settings=_LANE, timeout=5)
            except _GONE as error:
                if asyncio.get_running_loop().time() >= give_up_at:
                    raise Unavailable(str(error)) from error
                await asyncio.sleep(0.1)


_GONE: Final = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a farewell that arrived between two statements
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.DiskFullError,
)


async def _pool(dsn: str, settings: dict[str, str]) -> asyncpg.Pool:
    return await asyncpg.create_pool(
        dsn, min_size=0, max_size=POOL_SIZE, server_settings=settings, timeout=5, max_inactive_connection_lifetime=60
    )


@asynccontextmanager
async def _borrowed(pool: asyncpg.Pool) -> AsyncIterator[Unit]:
    """A connection from the pool; one that went away while it was lent is an Unavailable, not a fault."""
    try:
        async with pool.acquire(timeout=10) as connection:
            yield connection
    except _GONE as error:
        raise Unavailable(str(error)) from error


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Run a lane's statements: SQLSTATEs that have a meaning here become exceptions that have a name."""
    try:
        yield
    except asyncpg.UniqueViolationError as error:
        raise KeyIsKnown from error
    except asyncpg.PostgresError as error:
        match error.sqlstate:
            case "TN001" | "40001" | "40P01":
                raise AccountMovedOn from error
            case "55P03":
                raise Contended from error
            case "TN002":
                raise EnvironmentMovedOn from error
            case "TN003":
                raise KeyIsKnown from error
            case _ if isinstance(error, _GONE):
                raise Unavailable(str(error)) from error
            case _:
                raise
    except _GONE as error:
        raise Unavailable(str(error)) from error


async def refuse_unsafe_settings(dsn: str) -> str:
    """Look before the first write: the server's version, or UnsafeServer with what to change."""
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        version = connection.get_server_version()
        settings = {
            row["name"]: row["setting"]
            for row in await connection.fetch(
                "select name, setting from pg_settings where name = any($1)",
                ["fsync", "full_page_writes", "synchronous_commit", "server_encoding", "transaction_read_only"],
            )
        }
    finally:
        await connection.close()
    if version.major < OLDEST_MAJOR:
        msg = f"PostgreSQL {version.major} is too old: Tenuto needs {OLDEST_MAJOR} or newer."
        raise UnsafeServer(msg)
    for name, wrong, why in (
        ("fsync", "off", "a crash could lose acknowledged events"),
        ("full_page_writes", "off", "a crash could tear pages"),
        ("synchronous_commit", "off", "an acknowledged event could be lost in a crash"),
    ):
        if settings.get(name) == wrong:
            msg = f"The server runs with {name} = {wrong}: {why}. Set it to on, reload, and start again."
            raise UnsafeServer(msg)
    if settings.get("server_encoding") != "UTF8":
        msg = f"The database has the encoding {settings.get('server_encoding')}: create it with encoding 'UTF8'."
        raise UnsafeServer(msg)
    return f"{version.major}.{version.minor}"


async def migrate(dsn: str) -> list[str]:
    """Bring a database to this version's schema and return the names of the migrations that were applied.

    Plain SQL, under an advisory lock, each migration in a unit of its own. An empty database gets ``schema.sql`` at
    once and all migrations marked as applied.
    """
    folder = resources.files("tenuto.store")
    known = sorted(entry.name for entry in (folder / "migrations").iterdir() if entry.name.endswith(".sql"))
    connection = await asyncpg.connect(dsn, server_settings={"timezone": "UTC", "application_name": "tenuto-migrate"})
    try:
        await connection.execute("select pg_advisory_lock($1)", MIGRATION_LOCK)
        await connection.execute(
            "create table if not exists schema_migration (name text primary key, applied_at timestamptz not null)"
        )
        applied = {row["name"] for row in await connection.fetch("select name from schema_migration")}
        if not applied:
            async with connection.transaction():
                await connection.execute((folder / "schema.sql").read_text())
                await _mark(connection, known)
            return known
        missing = [name for name in known if name not in applied]
        for name in missing:
            async with connection.transaction():
                await connection.execute("set local lock_timeout = '5s'")
                await connection.execute((folder / "migrations" / name).read_text())
                await _mark(connection, [name])
        return missing
    finally:
        await connection.close()


async def _mark(connection: Unit, names: list[str]) -> None:
    await connection.execute("insert into schema_migration select unnest($1::text[]), clock_timestamp()", names)
