"""``tenuto bench --refills N``: N accounts that are all due at one midnight, refilled by card through the sandbox.

A whole service (its own PostgreSQL, one worker, the simulator of Stripe) is started in a temporary folder. The accounts
are spread over companies, since Stripe bounds requests by company: with few companies the bound is what is measured.
Accounts, balances, refill settings and cards are copied into the tables as the API would make them; the accounts of a
company share one customer and card at the simulator. Then midnight comes, and nothing is done here but to look.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import tempfile
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tenuto.bench import resident_mb
from tenuto.core.identifiers import read
from tenuto.engine import GATEWAY_PER_SECOND, Settings, microseconds
from tenuto.server import Server, wait_until_ready

READY_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 0.5
STUCK_SECONDS: Final = 60.0
REQUESTS: Final = 2
"""What one refill asks of Stripe: create an intent, confirm it."""


class RefillReport(msgspec.Struct, kw_only=True):
    """What was measured. ``bound`` is the rate that Stripe's documented limit allows these companies."""

    accounts: int
    companies: int
    seconds: float
    rate: float
    bound: float
    succeeded: int
    charged_twice: int
    credited_twice: int
    most_requests_in_a_second: int
    allowed_requests_in_a_second: int
    worker_mb: float | None
    simulator_mb: float | None
    p50_seconds: float
    p99_seconds: float


def _ask(url: str, body: object = None, authorization: str = "") -> Any:  # noqa: ANN401 - JSON
    data = None if body is None else msgspec.json.encode(body)
    headers = {"content-type": "application/json"}
    if authorization:
        headers["authorization"] = authorization
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, data, headers), timeout=READY_SECONDS) as answer:  # noqa: S310
        return msgspec.json.decode(answer.read())


def _open_company(server: Server, number: int) -> tuple[str, str, str]:
    """A company with one account that has a card: (company id, account id, key of its book in the sandbox)."""
    person = {"name": f"Bench {number}", "email": "bench@example.com", "password": os.urandom(12).hex()}
    opened = _ask(f"{server.url}/v1/companies", person)["data"]
    authorization = "Basic " + base64.b64encode(f"{opened['id']}:{opened['api_key']}".encode()).decode()
    customer = {"name": "Bench", "email": "bench@example.com", "token": "tok_visa"}
    account = _ask(f"{server.url}/v1/companies/{opened['id']}/accounts", customer, authorization)["data"]
    return opened["id"], account["id"], f"sk_test_sandbox{opened['id'][2:]}"


_SEED: Final = """
with made as (
    insert into account (id, environment_id, tick, opened, name, email, stripe_id, created_at)
    select $1 + n, a.environment_id, $2, $2 + n, 'Bench', 'bench@example.com', a.stripe_id, $3
    from generate_series(1, $4::bigint) as n, account a where a.id = $5 returning id, environment_id
), cards as (
    insert into payment_method
        (account_id, id, gateway_id, brand, last4, exp_month, exp_year, is_default, created_at)
    select made.id, $2, m.gateway_id, m.brand, m.last4, m.exp_month, m.exp_year, true, $3
    from made, payment_method m where m.account_id = $5
), balances as (
    insert into balance
        (account_id, denomination, amount, pending, seq, residue_num, residue_den, created_at, updated_at)
    select id, 'tokens', 0, 0, 0, 0, 1, $3, $3 from made returning account_id
)
select id, environment_id from made
"""
_SETTINGS: Final = """
insert into refill (account_id, denomination, environment_id, amount, charge_amount, charge_denomination, source,
    is_monthly, anchor_at, number, next_at, declines, created_at, updated_at)
select id, 'tokens', environment_id, 1000, 1000, 'USD', 'card', true, $2, 1, $3, 0, $2, $2
from unnest($1::bigint[], $4::integer[]) as a (id, environment_id)
"""


async def _seed(dsn: str, accounts: list[str], count: int, midnight: datetime) -> int:
    """Copy the accounts in, all due at one moment; how many there are."""
    now = datetime.now(UTC)
    connection = await asyncpg.connect(dsn)
    made = 0
    try:
        for place, spelled in enumerate(accounts):
            share = count // len(accounts) + (place < count % len(accounts))
            base, first = 10**12 + place * 10**7, read("a", spelled)
            async with connection.transaction():
                rows = await connection.fetch(_SEED, base, microseconds(now), now, share, first)
                ids, halves = [row["id"] for row in rows], [row["environment_id"] for row in rows]
                await connection.execute(_SETTINGS, ids, midnight - timedelta(days=31), midnight, halves)
            made += len(rows)
        await connection.execute("analyze")
    finally:
        await connection.close()
    return made


async def _watch(dsn: str, total: int, midnight: datetime, console: Console) -> float:
    """Look until all are refilled: the seconds from midnight on. Raises RuntimeError when nothing moves any more."""
    columns = (TextColumn("refilled"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    connection = await asyncpg.connect(dsn)
    try:
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("", total=total)
            done, moved_at = 0, time.monotonic()
            while done < total:
                await asyncio.sleep(LOOK_SECONDS)
                found = await connection.fetchval("select count(*) from payment where status = 'succeeded'")
                if found != done:
                    done, moved_at = found, time.monotonic()
                progress.update(task, completed=done)
                if time.monotonic() - moved_at > STUCK_SECONDS + max(
                    0.0, (midnight - datetime.now(UTC)).total_seconds()
                ):
                    raise RuntimeError(f"Nothing moves any more: {done} of {total} are refilled.")
        last = await connection.fetchval("select max(finished_at) from payment")
        return float((last - midnight).total_seconds())
    finally:
        await connection.close()


async def _facts(dsn: str) -> tuple[int, float, float]:
    """Payments that were credited more than once, and seconds from midnight to credit at the median and the 99th."""
    connection = await asyncpg.connect(dsn)
    try:
        twice = await connection.fetchval(
            "select count(*) from (select from transaction where book = 'refill' group by account_id, cause_id"
            " having count(*) > 1) as t"
        )
        row = await connection.fetchrow(
            "select percentile_cont(0.5) within group (order by extract(epoch from finished_at - due_at)) as p50,"
            " percentile_cont(0.99) within group (order by extract(epoch from finished_at - due_at)) as p99"
            " from payment"
        )
        assert row is not None
        return twice, float(row["p50"]), float(row["p99"])
    finally:
        await connection.close()


def run_refills(count: int, companies: int, data: str | None, console: Console) -> RefillReport:
    """Measure. Raises RuntimeError where the service does not start, or gets stuck."""
    where = data or ("/var/tmp" if Path("/var/tmp").is_dir() else None)  # noqa: S108 - on a disk, unlike some /tmp
    folder = Path(tempfile.mkdtemp(prefix="tenuto-refills-", dir=where))
    settings = Settings(port=0, data=str(folder), registration="open", log_level="error", sandbox="on")
    server = Server(settings, lambda text: console.print(f"[dim]{text}[/]"))
    try:
        server.start()
        if not wait_until_ready(*server.address, seconds=READY_SECONDS):
            raise RuntimeError("The service did not start.")
        assert server.sandbox is not None
        assert server.workers is not None
        opened = [_open_company(server, number) for number in range(companies)]
        console.print(f"[dim]Copying {count:,} accounts of {companies} companies in[/]")
        midnight = datetime.now(UTC) + timedelta(seconds=10 + count / 5000)
        total = asyncio.run(_seed(server.dsn, [account for _, account, _ in opened], count, midnight))
        seconds = asyncio.run(_watch(server.dsn, total, midnight, console))
        credited_twice, p50, p99 = asyncio.run(_facts(server.dsn))
        most = charges = 0
        for _, _, key in opened:
            most = max(most, int(_ask(f"{server.sandbox.url}/_simulator/rate?key={key}")["peak_per_second"]))
            book = _ask(f"{server.sandbox.url}/_simulator/book?key={key}")
            charges += sum(1 for intent in book["payment_intents"] if intent["status"] == "succeeded")
        allowed = int(GATEWAY_PER_SECOND[False])
        return RefillReport(
            accounts=total,
            companies=companies,
            seconds=round(seconds, 1),
            rate=round(total / seconds, 1),
            bound=companies * allowed / REQUESTS,
            succeeded=total,
            charged_twice=charges - total,
            credited_twice=credited_twice,
            most_requests_in_a_second=most,
            allowed_requests_in_a_second=allowed,
            worker_mb=resident_mb(server.workers.pids[0]),
            simulator_mb=resident_mb(server.sandbox.pid or 0),
            p50_seconds=round(p50, 1),
            p99_seconds=round(p99, 1),
        )
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def show_refills(report: RefillReport, console: Console) -> None:
    """The report for people."""
    lines = (
        f"{report.accounts:,} accounts of {report.companies} companies, due at one moment: {report.seconds} s",
        f"{report.rate} refills a second; Stripe's limit allows so many companies {report.bound:g}",
        f"from due to credited: {report.p50_seconds} s at the median, {report.p99_seconds} s at the 99th percentile",
        f"charged twice {report.charged_twice}, credited twice {report.credited_twice}",
        f"most requests of one company in one second: {report.most_requests_in_a_second}",
        f"Stripe's documented limit: {report.allowed_requests_in_a_second}",
        f"memory: worker {report.worker_mb or 0:.0f} MB, simulator {report.simulator_mb or 0:.0f} MB",
    )
    for line in lines:
        console.print(line, soft_wrap=True)
