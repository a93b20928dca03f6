"""The schema: new and migrated are one, the habits it promises hold, unsafe servers are refused, plans use indexes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path

import asyncpg
import pytest

from tenuto.engine import Engine
from tenuto.postgres import EmbeddedPostgres
from tenuto.server import prepare
from tenuto.store import database
from tenuto.store.database import MIGRATION_LOCK, Database, UnsafeServer, migrate, refuse_unsafe_settings
from tests.inside import Inside, event, let_go, settle_for

FOLDER = resources.files("tenuto.store")
ACCOUNT_LEVEL = (
    *("balance", "event", "event_charge", "gated_event", "transaction", "price_counter"),
    *("payment_method", "payment", "payment_attempt", "refund", "refill", "payment_link"),
    *("plan_override", "price_override", "subscription", "subscription_period", "subscription_step", "balance_grant"),
    *("account_flag", "flag_change", "tax_id"),
    *("invoice_terms", "invoice", "invoice_line", "invoice_tax", "invoice_payment", "credit_note"),
)
ABOUT_ACCOUNTS = {"webhook_topic", "notification", "delivery", "organization"}
"""Rows of a company that may be about one of its accounts."""
EXACT_NUMERICS = {("balance", "residue_num"), ("balance", "residue_den")}
QUANTITIES = {("event", "quantity"), ("gated_event", "quantity")}

CATALOGUE = {
    "columns": """
        select table_name, column_name, data_type, udt_name, column_default, is_nullable, is_identity,
            identity_generation, collation_name, is_generated
        from information_schema.columns where table_schema = 'public' order by 1, 2""",
    "constraints": """
        select conrelid::regclass::text, conname, contype::text, pg_get_constraintdef(oid) from pg_constraint
        where connamespace = 'public'::regnamespace order by 1, 2""",
    "indexes": "select tablename, indexname, indexdef from pg_indexes where schemaname = 'public' order by 1, 2",
    "functions": """
        select proname, pg_get_function_identity_arguments(oid), pg_get_function_result(oid), provolatile::text,
            proconfig, regexp_replace(prosrc, '\\s+', ' ', 'g')
        from pg_proc where pronamespace = 'public'::regnamespace order by 1, 2""",
    "relations": """
        select relname, relkind::text, relpersistence::text, reloptions from pg_class
        where relnamespace = 'public'::regnamespace order by 1""",
    "triggers": "select tgrelid::regclass::text, tgname from pg_trigger where not tgisinternal order by 1, 2",
}


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def catalogue(dsn: str) -> dict[str, list[tuple[object, ...]]]:
    async with connected(dsn) as connection:
        return {name: [tuple(row) for row in await connection.fetch(query)] for name, query in CATALOGUE.items()}


@pytest.fixture
async def fresh(new_database: Callable[[str], str]) -> str:
    dsn = new_database("schema_fresh")
    await migrate(dsn)
    return dsn


async def test_a_fresh_schema_equals_a_migrated_one(fresh: str, new_database: Callable[[str], str]) -> None:
    migrated = new_database("schema_migrated")
    names = sorted(entry.name for entry in (FOLDER / "migrations").iterdir() if entry.name.endswith(".sql"))
    async with connected(migrated) as connection:
        await connection.execute(
            "create table schema_migration (name text primary key, applied_at timestamptz not null)"
        )
        for name in names:
            async with connection.transaction():
                await connection.execute((FOLDER / "migrations" / name).read_text())
    new, old = await catalogue(fresh), await catalogue(migrated)
    for part in CATALOGUE:
        assert new[part] == old[part], part
    assert len(new["columns"]) > 100
    assert new["triggers"] == []


async def test_migrating_twice_applies_nothing(fresh: str) -> None:
    before = await catalogue(fresh)
    assert await migrate(fresh) == []
    assert await catalogue(fresh) == before


async def test_a_database_that_lacks_the_last_migration_gets_only_that(
    fresh: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "migrations").mkdir()
    for entry in (FOLDER / "migrations").iterdir():
        if entry.name.endswith(".sql"):
            (tmp_path / "migrations" / entry.name).write_text(entry.read_text())
    (tmp_path / "migrations" / "9998_good.sql").write_text("create table good (id bigint primary key);")
    (tmp_path / "migrations" / "9999_bad.sql").write_text("create table half (id bigint primary key); select 1/0;")
    monkeypatch.setattr(resources, "files", lambda _: tmp_path)
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(fresh)
    async with connected(fresh) as connection:
        assert await connection.fetchval("select to_regclass('good') is not null")
        assert await connection.fetchval("select to_regclass('half') is null"), "a migration is one unit"
    (tmp_path / "migrations" / "9999_bad.sql").write_text("create table half (id bigint primary key);")
    assert await migrate(fresh) == ["9999_bad.sql"]


async def test_two_migrations_at_once_apply_once(new_database: Callable[[str], str]) -> None:
    dsn = new_database("schema_raced")
    found = await asyncio.gather(*(migrate(dsn) for _ in range(4)))
    assert sum(bool(applied) for applied in found) == 1
    async with connected(dsn) as connection:
        marked = await connection.fetchval("select count(*) from schema_migration")
    assert marked == max(map(len, found))


async def test_a_migration_waits_for_the_one_that_runs(new_database: Callable[[str], str]) -> None:
    dsn = new_database("schema_waits")
    async with connected(dsn) as connection:
        await connection.execute("select pg_advisory_lock($1)", MIGRATION_LOCK)
        waiting = asyncio.create_task(migrate(dsn))
        async with asyncio.timeout(10):
            while not await connection.fetchval(
                "select count(*) from pg_locks where locktype = 'advisory' and not granted"
                " and database = (select oid from pg_database where datname = current_database())"
            ):
                assert not waiting.done()
        assert await connection.fetchval("select to_regclass('company') is null")
        await connection.execute("select pg_advisory_unlock($1)", MIGRATION_LOCK)
        assert await waiting


# --- habits -------------------------------------------------------------------------------------------------------


async def test_no_column_is_a_float_or_money_and_every_amount_is_a_bigint(fresh: str) -> None:
    async with connected(fresh) as connection:
        columns = await connection.fetch(
            "select table_name, column_name, data_type from information_schema.columns where table_schema = 'public'"
        )
    for table, column, kind in columns:
        assert kind not in {"real", "double precision", "money"}, f"{table}.{column}"
        if kind == "numeric":
            assert (table, column) in EXACT_NUMERICS | QUANTITIES, f"{table}.{column}"
        if re.search(r"amount|pending|starting_balance|ending_balance|credit_limit", column) and kind != "text":
            assert kind == "bigint", f"{table}.{column}"
        assert kind != "timestamp without time zone", f"{table}.{column}"


async def test_account_id_comes_first_in_every_key_of_account_level_tables(fresh: str) -> None:
    async with connected(fresh) as connection:
        keys = await connection.fetch(
            "select c.relname, i.indexrelid::regclass::text as index, a.attname from pg_index i"
            " join pg_class c on c.oid = i.indrelid"
            " join pg_attribute a on a.attrelid = c.oid and a.attnum = i.indkey[0]"
            " where i.indisunique and c.relname = any($1)",
            list(ACCOUNT_LEVEL),
        )
        tables = await connection.fetch(
            "select distinct table_name from information_schema.columns"
            " where table_schema = 'public' and column_name = 'account_id'"
        )
        foreign = await connection.fetch(
            "select conrelid::regclass::text as name, a.attname from pg_constraint k"
            " join pg_attribute a on a.attrelid = k.conrelid and a.attnum = k.conkey[1]"
            " where k.contype = 'f' and k.conrelid::regclass::text = any($1)",
            list(ACCOUNT_LEVEL),
        )
    named = {row["table_name"] for row in tables} - ABOUT_ACCOUNTS
    assert named == set(ACCOUNT_LEVEL), "a new table of accounts belongs in the list"
    assert {row["relname"] for row in keys} == set(ACCOUNT_LEVEL)
    for row in [*keys, *foreign]:
        assert row["attname"] == "account_id", tuple(row)


@pytest.mark.parametrize(
    ("numerator", "denominator"),
    [("NaN", "1"), ("0", "NaN"), ("Infinity", "Infinity"), ("0", "Infinity"), ("-1", "2"), ("2", "2"), ("0", "0")],
)
async def test_a_residue_that_is_no_fraction_below_one_is_refused(fresh: str, numerator: str, denominator: str) -> None:
    async with connected(fresh) as connection:
        await connection.execute(
            "insert into company values (1, 'c', now()) on conflict do nothing;"
            "insert into environment (company_id, live, revision, zone, default_credit_limit, late_seconds,"
            " ahead_seconds, clock_offset, created_at, updated_at)"
            " values (1, false, 1, 'UTC', 0, 0, 0, 0, now(), now());"
            "insert into account (id, environment_id, tick, opened, name, email, created_at)"
            " select 1, id, 1, 1, 'n', 'e', now() from environment"
        )
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute(
                "insert into balance (account_id, denomination, amount, pending, seq, residue_num, residue_den,"
                " created_at, updated_at) values (1, 'x', 0, 0, 0, $1::text::numeric, $2::text::numeric, now(), now())",
                numerator,
                denominator,
            )


@pytest.mark.parametrize("quantity", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("table", ["event", "gated_event"])
async def test_a_quantity_that_is_no_number_is_refused(fresh: str, table: str, quantity: str) -> None:
    values = {"event": "0, 0, 0, false, 't'", "gated_event": "0, 0, 't'"}[table]
    columns = {"event": "posting, state, tag, gated, type", "gated_event": "state, tag, type"}[table]
    if table == "gated_event":
        columns, values = columns + ", code, details, request_id", values + ", 'c', '{}', 'r'"
    async with connected(fresh) as connection:
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute(
                f"insert into {table} (account_id, id, fingerprint, occurred_at, recorded_at, quantity, {columns})"
                f" values (1, 1, 1, now(), now(), $1::text::numeric, {values})",
                quantity,
            )


# --- servers that would lose money --------------------------------------------------------------------------------


async def test_a_database_set_to_lose_commits_is_refused_by_name(new_database: Callable[[str], str]) -> None:
    dsn = new_database("schema_unsafe")
    async with connected(dsn) as connection:
        await connection.execute("alter database schema_unsafe set synchronous_commit = off")
    with pytest.raises(UnsafeServer, match="synchronous_commit = off"):
        await prepare(dsn)
    with pytest.raises(UnsafeServer, match="synchronous_commit"):
        await Database.connect(dsn)
    async with connected(dsn) as connection:
        assert await connection.fetchval("select to_regclass('company') is null"), "nothing was written"


@pytest.mark.parametrize("name", ["fsync", "full_page_writes"])
async def test_a_server_set_to_lose_data_in_a_crash_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with EmbeddedPostgres.start(tmp_path / "data", settings={"shared_buffers": "16MB", name: "off"}) as server:
        with pytest.raises(UnsafeServer, match=f"{name} = off"):
            await refuse_unsafe_settings(server.dsn)
        with pytest.raises(UnsafeServer, match=name):
            await prepare(server.dsn)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
async def test_a_database_of_another_encoding_is_refused(postgres: EmbeddedPostgres, encoding: str) -> None:
    name = f"schema_{encoding.lower()}"
    async with connected(postgres.dsn) as connection:
        await connection.execute(
            f"create database {name} encoding '{encoding}' lc_collate 'C' lc_ctype 'C' template template0"
        )
    before, _, query = postgres.dsn.partition("?")
    dsn = f"{before.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")
    with pytest.raises(UnsafeServer, match=rf"{encoding}.*UTF8"):
        await refuse_unsafe_settings(dsn)


# --- plans --------------------------------------------------------------------------------------------------------

FILL = """
insert into company values (1, 'c', now());
insert into environment (company_id, live, revision, zone, default_credit_limit, late_seconds, ahead_seconds,
    clock_offset, created_at, updated_at) values (1, false, 1, 'UTC', 0, 0, 0, 0, now(), now());
insert into account (id, environment_id, tick, opened, name, email, created_at)
    select n, (select id from environment), 1, n, 'n', 'e', now() from generate_series(1, 500) n;
insert into balance (account_id, denomination, amount, pending, seq, residue_num, residue_den, created_at, updated_at)
    select n, 'credits', 0, 0, 0, 0, 1, now(), now() from generate_series(1, 500) n;
insert into event (account_id, id, posting, fingerprint, occurred_at, recorded_at, state, tag, gated, type, quantity,
    key_digest, expires_at)
    select 1 + n % 500, n, n, n, now(), now(), case when n % 100 = 0 then 1 else 0 end, 0, false, 't', 1,
        sha256(n::text::bytea), now() from generate_series(1, 20000) n;
insert into transaction (account_id, denomination, seq, id, amount, starting_balance, ending_balance, recorded_at,
    event_count, book, type, description)
    select 1 + n % 500, 'credits', n, n, 1, 0, 1, now(), 1, 'usage', 'EVENT', '' from generate_series(1, 20000) n;
"""

KEYS = """select * from {0} e join unnest($1::bigint[], $2::bytea[]) as asked (account_id, key_digest)
    on asked.account_id = e.account_id and asked.key_digest = e.key_digest"""
EVENTS = """select * from event e join unnest($1::bigint[], $2::bigint[]) as asked (account_id, id)
    on asked.account_id = e.account_id and asked.id = e.id"""
LIVE = "select min(expires_at) from event where account_id = $1::bigint and state = 1 and expires_at > $2::timestamptz"
DUE = "select * from event where state = 1 and expires_at <= $1::timestamptz order by expires_at limit 500"
MOVE = """update account set tick = m.n from unnest($1::bigint[], $2::bigint[], $3::bigint[]) as m (id, o, n)
    where account.id = m.id and account.tick = m.o"""
PLACE = "select * from transaction where account_id = $1::bigint and denomination = $2::text and seq = $3::bigint"

HOT = {
    "known keys": (KEYS.format("event"), "array[1], array['\\x00'::bytea]"),
    "refused keys": (KEYS.format("gated_event"), "array[1], array['\\x00'::bytea]"),
    "events by id": (EVENTS, "array[1], array[1]"),
    "balances": ("select * from balance where account_id = $1::bigint", "1"),
    "live holds": (LIVE, "1, now()"),
    "due holds": (DUE, "now()"),
    "accounts": (MOVE, "array[1], array[1], array[2]"),
    "one transaction": (PLACE, "1, 'credits', 1"),
}


@pytest.mark.parametrize("analysed", [True, False], ids=["analysed", "just-made"])
async def test_the_hot_path_reads_by_index_whatever_the_planner_believes(
    new_database: Callable[[str], str], *, analysed: bool
) -> None:
    """A plan made while a table was small is kept; it must be the right one already (design 7)."""
    dsn = new_database("schema_plans")
    await migrate(dsn)
    connection = await asyncpg.connect(dsn, server_settings=dict(database._LANE))
    try:
        if analysed:
            await connection.execute(FILL)
            await connection.execute("analyze")
        for number, (what, (query, arguments)) in enumerate(HOT.items()):
            await connection.execute(f"prepare q{number} as {query}")
            plan = await connection.fetchval(f"explain (format json) execute q{number}({arguments})")
            kinds = _scans(json.loads(plan)[0]["Plan"])
            assert kinds, what
            assert not kinds & {"Seq Scan", "Hash Join", "Merge Join"}, f"{what}: {kinds}"
    finally:
        await connection.close()


async def test_a_lane_at_work_scans_no_table_of_events(engine: Engine) -> None:
    company = await Inside.open(engine)
    await company.price("CHAT", "credits", amount="1")
    account_id = await company.account(credits=20)
    hold = await company.send(account_id, event("CHAT", state="pending", key="hold"))
    sent = await company.send(account_id, *(event("CHAT", gated=True, key=f"k{n}") for n in range(10)))
    for key in ("k1", "k2"):
        await company.send(account_id, event("CHAT", gated=True, key=key))
    for _ in range(2):
        await company.send(account_id, event("CHAT", "50", gated=True, key="refused"))
    await company.finish(account_id, hold.event.id, settle_for())
    await company.void(account_id, sent.events[3].id)
    dsn = engine.database.dsn
    await let_go(engine)
    async with connected(dsn) as connection:
        # A backend hands in its counts when it ends; until it is gone they may be missing.
        async with asyncio.timeout(10):
            while await connection.fetchval(
                "select count(*) from pg_stat_activity where datname = current_database()"
                " and application_name = 'tenuto' and query like '%tenuto_save%'"
            ):
                pass
        scanned = await connection.fetch(
            # Making an index reads the table once.
            "select relname, seq_scan - (select count(*) from pg_index i where i.indrelid = relid) as scans, idx_scan"
            " from pg_stat_user_tables where relname = any($1)",
            list(ACCOUNT_LEVEL),
        )
    assert {row["relname"]: row["scans"] for row in scanned} == dict.fromkeys(ACCOUNT_LEVEL, 0)
    assert sum(row["idx_scan"] for row in scanned) > 10


def _scans(plan: dict[str, object]) -> set[str]:
    found = {str(plan["Node Type"])}
    below = plan.get("Plans", [])
    assert isinstance(below, list)
    for part in below:
        found |= _scans(part)
    return found
