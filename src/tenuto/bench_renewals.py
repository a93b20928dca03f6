"""``tenuto bench --renewals N``: N accounts whose plans are all due at one moment, and what the clockwork makes of it.

A whole service (its own PostgreSQL, one worker, the simulator of Stripe) is started in a temporary folder. In each
company one account a kind begins with a plan and uses some of it, through the API; the others are copies of its rows.
Then the companies' test clocks are set past the renewal in one update, and nothing is done here but to look, and, where
that is asked for, to kill the worker. Kinds:

    invoiced   10.00 USD a month, posted for the next invoice     no card is asked
    tokens     50 credits a month, from a balance of them         no card is asked
    free       nothing                                            no card is asked
    card       10.00 USD a month, by card: the share ``paid``     Stripe bounds it by company

In the end each account is counted: one renewal, two periods back to back, the old grant closed and one new, balances as
they have to be; then the audit recomputes everything from the facts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import asyncpg
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tenuto.bench import resident_mb
from tenuto.core.identifiers import read
from tenuto.core.payment import LEASE
from tenuto.demo_story import Company, StepFailed
from tenuto.engine import GATEWAY_PER_SECOND, Settings
from tenuto.importer import Connection
from tenuto.server import Server, wait_until_ready
from tenuto.store import audit
from tenuto.store.database import Database

READY_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 0.5
LEAST_SECONDS: Final = 0.001
STUCK_SECONDS: Final = 60.0 + LEASE.total_seconds()
"""What a worker that was killed had in hand at Stripe is nobody else's until its lease is over."""
REQUESTS: Final = 2
"""What one charge asks of Stripe: create an intent, confirm it."""
UNITS: Final = 100
"""Units that every plan includes; ten are used before the renewal."""

TABLES: Final = (
    *("balance", "transaction", "event", "payment_method", "invoice_terms"),
    *("subscription", "subscription_period", "subscription_step", "balance_grant"),
)
"""What belongs to an account of this bench, beside its own row."""


class Kind(NamedTuple):
    """A way to pay for a plan: in what, how much, what the account has of it at first, and in the end."""

    name: str
    denomination: str
    price: int
    before: int
    after: int


KINDS: Final = (
    Kind("invoiced", "USD", 1000, 0, -2000),
    Kind("tokens", "credits", 50, 1000, 900),
    Kind("free", "USD", 0, 0, 0),
    Kind("card", "USD", 1000, 1000, 0),
)


class Ask(NamedTuple):
    """How many accounts of how many companies, the share that pays by card, and how often the worker is killed."""

    accounts: int
    companies: int
    paid: float
    kills: int
    data: str | None


class Counts(msgspec.Struct, kw_only=True):
    """What the tables say in the end. All but ``renewed`` have to be zero."""

    renewed: int
    renewed_twice: int
    never_renewed: int
    wrong_periods: int
    wrong_grants: int
    wrong_balances: int
    left_due: int


class RenewalReport(msgspec.Struct, kw_only=True):
    """What was measured. ``card_seconds`` is what Stripe's documented limit makes the cards' renewals take at least.

    The rates of the first and the last tenth are of the renewals that ask no card: how it goes when there is more.
    """

    accounts: int
    companies: int
    by_kind: dict[str, int]
    kills: int
    seconds: float
    rate: float
    first_tenth_rate: float
    last_tenth_rate: float
    counts: Counts
    charged: int
    charged_twice: int
    card_seconds: float
    disagreeing: dict[str, int]
    worker_before_mb: float
    worker_peak_mb: float
    worker_after_mb: float
    bytes_a_renewal: int
    log_bytes_a_renewal: int
    bytes_by_table: dict[str, int]

    @property
    def is_true(self) -> bool:
        """Whether each account was renewed once and whole, charged once, and the books agree."""
        found = self.counts
        wrong = (
            *(found.renewed_twice, found.never_renewed, found.wrong_periods, found.wrong_grants),
            *(found.wrong_balances, found.left_due, self.charged_twice, *self.disagreeing.values()),
        )
        return not any(wrong) and found.renewed == self.accounts and self.charged == self.by_kind["card"]


# --- seeding ----------------------------------------------------------------------------------------------------------


class Seed(NamedTuple):
    """An account to be copied, and how many of its kind there are to be, itself included."""

    kind: Kind
    account_id: int
    plan_id: int
    accounts: int


def _shares(ask: Ask, company: int) -> list[int]:
    """Accounts of each kind in one company."""
    accounts = ask.accounts // ask.companies + (company < ask.accounts % ask.companies)
    card = round(accounts * ask.paid)
    rest = accounts - card
    thirds = [rest // 3 + (place < rest % 3) for place in range(3)]
    return [*thirds, card]


def _open_company(url: str, ask: Ask, number: int) -> tuple[Company, list[Seed]]:
    """A company with one account a kind, each on its plan and with some of it used."""
    company = Company(url)
    seeds = []
    for kind, accounts in zip(KINDS, _shares(ask, number), strict=True):
        if not accounts:
            continue
        account = company.account(kind.name, **{kind.denomination: kind.before})
        if kind.name == "invoiced":
            company.ask("PUT", f"/v1/accounts/{account}/invoicing", {"currency": "USD", "terms_days": 30})
        plan = {
            "name": kind.name,
            "renewal_denomination": kind.denomination,
            "renewals": {"MONTHLY": {"amount": kind.price}},
            "balances": {"units": {"amount": UNITS}},
        }
        plan_id = company.ask("POST", "/v1/companies/{company}/plans", plan)["id"]
        company.ask("POST", f"/v1/accounts/{account}/changeplan", {"plan_id": plan_id})
        use = {"type": "USE", "cost_override_amount": 10, "cost_override_denomination": "units"}
        company.ask("POST", f"/v1/accounts/{account}/events", use)
        if kind.name == "card":
            # The first month was paid from the balance; from now on there is a card.
            company.ask("POST", f"/v1/accounts/{account}/card", {"token": "tok_visa"})
        seeds.append(Seed(kind, read("a", account) or 0, read("p", plan_id) or 0, accounts))
    return company, seeds


async def _copy(connection: asyncpg.Connection[Any], seed: Seed, first_id: int) -> None:
    """Copy an account with all its rows; ids are counted by account, so only the account's own is another."""
    for table, key in (("account", "id"), *((table, "account_id") for table in TABLES)):
        columns = await connection.fetchval(
            "select string_agg(quote_ident(column_name), ', ' order by ordinal_position)"
            " from information_schema.columns where table_name = $1 and column_name <> $2",
            table,
            key,
        )
        await connection.execute(
            f"insert into {table} ({key}, {columns}) select $1 + n, {columns}"  # noqa: S608 - names of the catalog
            f" from {table} t, generate_series(1, $2::bigint) as n where t.{key} = $3",
            first_id,
            seed.accounts - 1,
            seed.account_id,
        )


async def _seed(connection: asyncpg.Connection[Any], seeds: Sequence[Seed], console: Console) -> None:
    total = sum(seed.accounts for seed in seeds)
    # The renewal of a month crosses the first of one; what an invoice does then is not measured here.
    await connection.execute("update invoice_terms set next_at = null")
    columns = (TextColumn("copied"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=total)
        for place, seed in enumerate(seeds):
            async with connection.transaction():
                await _copy(connection, seed, 10**12 + place * 10**7)
            progress.advance(task, seed.accounts)
    await connection.execute("vacuum analyze")
    await connection.execute("checkpoint")


# --- looking ----------------------------------------------------------------------------------------------------------


class _Memory:
    """What the worker takes: at first, at most over all its lives, in the end."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.before = self.peak = self.after = 0.0
        with contextlib.suppress(OSError):
            # What it took to start up is not asked for: the kernel counts the peak from here on.
            Path(f"/proc/{self.pid}/clear_refs").write_text("5", encoding="ascii")
        self.look()
        self.before = self.after

    @property
    def pid(self) -> int:
        """Of the worker, which may be another one by now."""
        assert self._server.workers is not None
        return self._server.workers.pids[0]

    def look(self) -> None:
        """Look again."""
        self.after = resident_mb(self.pid) or self.after
        self.peak = max(self.peak, resident_mb(self.pid, is_peak=True) or 0.0)


class _Killer:
    """Kills the worker with SIGKILL at moments chosen by chance; who tends the server starts it again."""

    def __init__(self, kills: int, total: int) -> None:
        self._at = sorted(random.uniform(0.02, 0.95) * total for _ in range(kills))  # noqa: S311 - only for a bench
        self.killed = 0

    async def go_on(self, memory: _Memory, done: int) -> None:
        """Kill, if it is time to; a little later than that, so that it does not meet the same place each time."""
        if self.killed < len(self._at) and done >= self._at[self.killed]:
            await asyncio.sleep(random.uniform(0, LOOK_SECONDS))  # noqa: S311
            os.kill(memory.pid, signal.SIGKILL)
            self.killed += 1


_RENEWED: Final = "select count(*) from subscription_step where kind = 'renewal'"
_MOVE: Final = """
update environment
set clock_offset = extract(epoch from s.last_at - clock_timestamp()) * 1000000, revision = revision + 1
from (select max(period_end) + interval '1 second' as last_at from subscription) s
where id in (select environment_id from subscription) returning clock_timestamp() as moved_at
"""


async def _watch(
    connection: asyncpg.Connection[Any], server: Server, total: int, ask: Ask, memory: _Memory, console: Console
) -> tuple[datetime, int]:
    """Set the clocks and look until all is renewed: when that began, and how often the worker was killed.

    Raises RuntimeError when nothing moves any more.
    """
    columns = (TextColumn("renewed"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    killer = _Killer(ask.kills, total)
    began: datetime = await connection.fetchval(_MOVE, column=0)
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=total)
        done, moved_at = 0, time.monotonic()
        while done < total:
            await asyncio.sleep(LOOK_SECONDS)
            server.tend()
            memory.look()
            found = await connection.fetchval(_RENEWED)
            if found != done:
                done, moved_at = found, time.monotonic()
            progress.update(task, completed=done)
            await killer.go_on(memory, done)
            if time.monotonic() - moved_at > STUCK_SECONDS:
                raise RuntimeError(f"Nothing moves any more: {done} of {total} are renewed.")
    return began, killer.killed


_COUNT: Final = """
with kinds as (select * from unnest($1::bigint[], $2::text[], $3::bigint[]) as k (plan_id, denomination, amount)),
steps as materialized (
    select account_id, count(*) as many from subscription_step where kind = 'renewal' group by account_id
),
periods as materialized (
    select p.account_id, count(*) as many, count(*) filter (where p.ended_at is null) as running,
        count(*) filter (where p.ended_at = p.end_at and q.ended_at is null and q.id is not null) as followed
    from subscription_period p
    left join subscription_period q on q.account_id = p.account_id and q.start_at = p.end_at group by p.account_id
),
grants as materialized (
    select account_id, count(*) as many, count(*) filter (where closed_at is null and units_left = $4) as whole
    from balance_grant group by account_id
)
select count(*) filter (where t.many = 1) as renewed,
    count(*) filter (where t.many > 1) as renewed_twice,
    count(*) filter (where t.many is null) as never_renewed,
    count(*) filter (where (s.status, p.many, p.running, p.followed) is distinct from ('active', 2, 1, 1))
        as wrong_periods,
    count(*) filter (where (g.many, g.whole) is distinct from (2, 1)) as wrong_grants,
    count(*) filter (where u.amount is distinct from $4 or coalesce(m.amount, 0) <> k.amount) as wrong_balances
from subscription s join kinds k on k.plan_id = s.plan_id
left join steps t on t.account_id = s.account_id
left join periods p on p.account_id = s.account_id
left join grants g on g.account_id = s.account_id
left join balance u on u.account_id = s.account_id and u.denomination = 'units'
left join balance m on m.account_id = s.account_id and m.denomination = k.denomination
"""
_LEFT: Final = """
select (select count(*) from subscription s join environment v on v.id = s.environment_id
        where s.next_at <= clock_timestamp() + v.clock_offset * interval '1 microsecond')
    + (select count(*) from payment where status not in ('succeeded', 'failed', 'skipped', 'voided'))
"""
_PACE: Final = """
with done as (
    select t.created_at - v.clock_offset * interval '1 microsecond' as at, t.payment_id
    from subscription_step t join environment v on v.id = t.environment_id where t.kind = 'renewal'
)
select extract(epoch from (select max(at) from done) - $1)::float as whole, count(*) as many,
    extract(epoch from percentile_disc(0.1) within group (order by at) - $1)::float as first,
    extract(epoch from max(at) - percentile_disc(0.9) within group (order by at))::float as last
from done where payment_id is null or $2
"""


async def _counts(connection: asyncpg.Connection[Any], seeds: Sequence[Seed]) -> Counts:
    ids, names = [seed.plan_id for seed in seeds], [seed.kind.denomination for seed in seeds]
    row = await connection.fetchrow(_COUNT, ids, names, [seed.kind.after for seed in seeds], UNITS)
    assert row is not None
    return Counts(**dict(row), left_due=await connection.fetchval(_LEFT))


async def _sizes(connection: asyncpg.Connection[Any]) -> dict[str, int]:
    """Bytes by table, with its indexes; of the whole database, and of its log, under names of their own."""
    rows = await connection.fetch(
        "select relname, pg_total_relation_size(oid) as size from pg_class"
        " where relkind = 'r' and relnamespace = 'public'::regnamespace"
        " union all select ' whole', pg_database_size(current_database())"
        " union all select ' log', pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint"
    )
    return {row["relname"]: row["size"] for row in rows}


def _charged(server: Server, companies: Sequence[Company]) -> tuple[int, int]:
    """Accounts that the simulator charged, and charges beyond one of an account."""
    assert server.sandbox is not None
    door = Connection(server.sandbox.url)
    found: Counter[str] = Counter()
    for company in companies:
        book = door.call("GET", f"/_simulator/book?key=sk_test_sandbox{company.id[2:]}").body
        intents = (intent for intent in book["payment_intents"] if intent["status"] == "succeeded")
        found.update(intent["metadata"]["tenuto_account"] for intent in intents)
    return len(found), sum(found.values()) - len(found)


async def _audited(dsn: str, console: Console) -> dict[str, int]:
    """Rows that disagree, by the check that says so."""
    database, found = await Database.connect(dsn), {}
    try:
        async with database.snapshot() as reader:
            with Progress(TextColumn("audited"), BarColumn(), MofNCompleteColumn(), console=console) as progress:
                planned = await audit.plan(reader)
                for check in progress.track(audit.CHECKS):
                    outcome = await audit.run(reader, planned, check)
                    if outcome.total:
                        found[check.name] = outcome.total
    finally:
        await database.close()
    return found


async def _measure(
    server: Server, ask: Ask, companies: Sequence[Company], seeds: Sequence[Seed], console: Console
) -> RenewalReport:
    total = sum(seed.accounts for seed in seeds)
    by_kind = Counter({kind.name: 0 for kind in KINDS})
    for seed in seeds:
        by_kind[seed.kind.name] += seed.accounts
    connection = await asyncpg.connect(server.dsn)
    try:
        await _seed(connection, seeds, console)
        memory, before = _Memory(server), await _sizes(connection)
        began, kills = await _watch(connection, server, total, ask, memory, console)
        # Had anything been left, or were anything done twice, it would be done now.
        await asyncio.sleep(2.0)
        memory.look()
        after, pace = await _sizes(connection), await connection.fetchrow(_PACE, began, by_kind["card"] == total)
        assert pace is not None
        tenth = pace["many"] / 10
        grown = {name: (size - before[name]) // total for name, size in after.items()}
        charged, twice = _charged(server, companies)
        return RenewalReport(
            accounts=total,
            companies=ask.companies,
            by_kind=dict(by_kind),
            kills=kills,
            seconds=round(pace["whole"], 1),
            rate=round(total / pace["whole"], 1),
            first_tenth_rate=round(tenth / max(pace["first"], LEAST_SECONDS), 1),
            last_tenth_rate=round(tenth / max(pace["last"], LEAST_SECONDS), 1),
            counts=await _counts(connection, seeds),
            charged=charged,
            charged_twice=twice,
            card_seconds=round(by_kind["card"] * REQUESTS / GATEWAY_PER_SECOND[False] / ask.companies, 1),
            disagreeing=await _audited(server.dsn, console),
            worker_before_mb=round(memory.before, 1),
            worker_peak_mb=round(memory.peak, 1),
            worker_after_mb=round(memory.after, 1),
            bytes_a_renewal=grown.pop(" whole"),
            log_bytes_a_renewal=grown.pop(" log"),
            bytes_by_table=_largest(grown),
        )
    finally:
        await connection.close()


def _largest(grown: Mapping[str, int]) -> dict[str, int]:
    return {name: size for name, size in sorted(grown.items(), key=lambda item: -item[1]) if size > 0}


def run_renewals(ask: Ask, console: Console) -> RenewalReport:
    """Measure. Raises RuntimeError where the service does not start, or gets stuck."""
    ask = ask._replace(companies=max(1, min(ask.companies, ask.accounts // len(KINDS))))
    where = ask.data or ("/var/tmp" if Path("/var/tmp").is_dir() else None)  # noqa: S108 - on a disk, unlike some /tmp
    folder = Path(tempfile.mkdtemp(prefix="tenuto-renewals-", dir=where))
    settings = Settings(port=0, data=str(folder), registration="open", log_level="error", sandbox="on")
    server = Server(settings, lambda text: console.print(f"[dim]{text}[/]"))
    try:
        server.start()
        if not wait_until_ready(*server.address, seconds=READY_SECONDS):
            raise RuntimeError("The service did not start.")
        opened = [_open_company(server.url, ask, number) for number in range(ask.companies)]
        seeds = [seed for _, found in opened for seed in found]
        return asyncio.run(_measure(server, ask, [company for company, _ in opened], seeds, console))
    except StepFailed as error:
        raise RuntimeError(str(error)) from error
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def show_renewals(report: RenewalReport, console: Console) -> None:
    """The report for people."""
    kinds = ", ".join(f"{count:,} {name}" for name, count in report.by_kind.items() if count)
    found, before, after = report.counts, report.worker_before_mb, report.worker_after_mb
    killed = f", the worker killed {report.kills} times" if report.kills else ""
    tables = ", ".join(f"{name} {size:,}" for name, size in list(report.bytes_by_table.items())[:5])
    disagreeing = ", ".join(f"{name} {rows:,}" for name, rows in report.disagreeing.items())
    lines = (
        f"{report.accounts:,} accounts of {report.companies} companies ({kinds}), due at one moment:",
        f"{report.seconds} s{killed}",
        f"{report.rate:,} renewals a second",
        f"first tenth without cards {report.first_tenth_rate:,} a second, last tenth {report.last_tenth_rate:,}",
        f"renewed once {found.renewed:,}, twice {found.renewed_twice:,}, never {found.never_renewed:,}",
        f"wrong periods {found.wrong_periods:,}, grants {found.wrong_grants:,}, balances {found.wrong_balances:,}",
        f"left due {found.left_due:,}",
        f"charged by card {report.charged:,}, charged twice {report.charged_twice:,}",
        f"the least that Stripe's documented limit makes these charges take: {report.card_seconds} s",
        f"audit: {disagreeing or 'every fact agrees'}",
        f"memory of the worker: before {before:.0f} MB, peak {report.worker_peak_mb:.0f} MB, after {after:.0f} MB",
        f"a renewal adds {report.bytes_a_renewal:,} bytes to the database: {tables}",
        f"and {report.log_bytes_a_renewal:,} bytes to its log",
    )
    for line in lines:
        console.print(line, soft_wrap=True)
    console.print(
        "[green]Each account was renewed exactly once.[/]" if report.is_true else "[red]Something is wrong.[/]"
    )
