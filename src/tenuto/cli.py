"""The command line: serve, migrate, audit, import, plans, demo, bench, settings, stripe-simulator."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from tenuto.engine import SECRET_SETTINGS, Settings, read_settings

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Tenuto: real-time usage billing on PostgreSQL.")
plans = typer.Typer(no_args_is_help=True, help="Keep plans and event prices in a file, and a company as the file says.")
app.add_typer(plans, name="plans")

Host = Annotated[str | None, typer.Option(help="Address to listen on.")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; 0 lets the system choose.")]
DatabaseUrl = Annotated[str | None, typer.Option("--database", help="PostgreSQL to use instead of the embedded one.")]
Data = Annotated[str | None, typer.Option(help="Folder of the embedded PostgreSQL.")]
PlanFile = Annotated[Path, typer.Argument(metavar="FILE.yaml", help="The file of plans and event prices.")]
CompanyId = Annotated[str, typer.Option("--company", envvar="TENUTO_COMPANY", help="Id of the company.")]
ApiKey = Annotated[str, typer.Option("--key", envvar="TENUTO_API_KEY", help="API key that may read or write prices.")]
ServiceUrl = Annotated[str, typer.Option("--url", envvar="TENUTO_URL", help="Where the service is.")]
SERVICE_URL = "http://127.0.0.1:8080"


def say(text: str) -> None:
    """A line for the person at the terminal."""
    typer.echo(text, err=True)


def fail(text: str) -> NoReturn:
    """End with a sentence that says what to do."""
    say(f"tenuto: {text}")
    raise typer.Exit(1)


def settings_from(**flags: object) -> Settings:
    """The settings of a command, or the end with what is wrong in them."""
    try:
        return read_settings(flags)[0]
    except ValueError as error:
        fail(str(error))


@app.command()
def serve(
    host: Host = None,
    port: Port = None,
    database: DatabaseUrl = None,
    data: Data = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes.")] = None,
) -> None:
    """Serve the API, with the clockwork and, unless --database is given, its own PostgreSQL."""
    from tenuto.server import Server, wait_until_ready

    settings = settings_from(host=host, port=port, database=database, data=data, workers=workers)
    server = Server(settings, say)
    try:
        server.start()
    except Exception as error:  # noqa: BLE001 - whatever keeps it from starting, the person hears a sentence
        fail(str(error))
    try:
        if wait_until_ready(*server.address, seconds=30):
            say(f"Tenuto answers at {server.url}  (API description: {server.url}/docs)")
        else:
            say("The workers are not ready yet; their log says why.")
        server.run()
    finally:
        server.stop()


@app.command()
def migrate(database: DatabaseUrl = None, data: Data = None) -> None:
    """Bring the database's schema up to date, and say what was applied."""
    from tenuto.store.database import migrate as migrated

    applied = asyncio.run(migrated(_dsn(database, data)))
    say(f"Applied: {', '.join(applied)}" if applied else "The schema is up to date.")


@app.command()
def settings(host: Host = None, port: Port = None, database: DatabaseUrl = None, data: Data = None) -> None:
    """Print every setting and where it comes from, secrets masked."""
    try:
        found, sources = read_settings({"host": host, "port": port, "database": database, "data": data})
    except ValueError as error:
        fail(str(error))
    for name, source in sources.items():
        value = getattr(found, name)
        shown = "********" if name in SECRET_SETTINGS and value else value
        typer.echo(f"TENUTO_{name.upper():<16} {shown!s:<24} {source}")


@app.command()
def bench(  # noqa: PLR0913, PLR0917 - one parameter an option
    seconds: Annotated[float, typer.Option(min=0.05, help="How long each measurement takes.")] = 5.0,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is made; medians are shown.")] = 3,
    only: Annotated[str, typer.Option(help="Names of measurements, with commas between, such as plain,c32.")] = "",
    data: Annotated[str | None, typer.Option(help="Folder (that is: disk) for the temporary database.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the whole report to this file, too.")] = None,
    events_stored: Annotated[int, typer.Option(min=0, help="Then store so many events and measure again.")] = 0,
    accounts: Annotated[int, typer.Option(min=1, help="Accounts that the load is spread over.")] = 10_000,
    refills: Annotated[int, typer.Option(min=0, help="Instead, so many accounts refilled by card at once.")] = 0,
    renewals: Annotated[int, typer.Option(min=0, help="Instead, so many accounts whose plans are due at once.")] = 0,
    paid: Annotated[float, typer.Option(min=0, max=1, help="The share of those that pays by card.")] = 0.0,
    kill: Annotated[int, typer.Option(min=0, help="How often the worker is killed meanwhile.")] = 0,
    companies: Annotated[int, typer.Option(min=1, help="Companies that those accounts are spread over.")] = 40,
    webhooks: Annotated[int, typer.Option(min=0, help="Instead, so many notifications to twenty webhooks.")] = 0,
    topics: Annotated[bool, typer.Option("--topics", help="Instead, what it costs that somebody listens.")] = False,
    console: Annotated[int, typer.Option(min=0, help="Instead, the console's pages with so many events stored.")] = 0,
) -> None:
    """Measure this machine: a temporary database, Tenuto's own load, and what the same rows cost without Tenuto."""
    import msgspec
    from rich.console import Console

    from tenuto import bench as benches

    if refills:
        _bench_refills(refills, companies, data, json)
        return
    if renewals:
        _bench_renewals((renewals, companies, paid, kill, data), json)
        return
    if webhooks:
        _bench_webhooks(webhooks, seconds, data, json)
        return
    if topics:
        _bench_topics((seconds, rounds, accounts, data), json)
        return
    if console:
        _bench_console((console, accounts, data), json)
        return
    names = frozenset(name.strip() for name in only.split(",") if name.strip())
    if unknown := names - {scenario.name for scenario in benches.SCENARIOS}:
        fail(f"{', '.join(sorted(unknown))}: only {', '.join(s.name for s in benches.SCENARIOS)} can be measured.")
    ask = benches.Ask(seconds, rounds, names, data, events_stored, accounts)
    try:
        report = benches.run(ask, Console(stderr=True))
    except RuntimeError as error:
        fail(str(error))
    benches.show(report, Console(width=None if sys.stdout.isatty() else 160))
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))


def _bench_console(asked: tuple[int, int, str | None], json: Path | None) -> None:
    import msgspec
    from rich.console import Console

    from tenuto.bench_console import Ask, run_console, show_console

    try:
        report = run_console(Ask(*asked), Console(stderr=True))
    except RuntimeError as error:
        fail(str(error))
    show_console(report, Console())
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))


def _bench_refills(count: int, companies: int, data: str | None, json: Path | None) -> None:
    import msgspec
    from rich.console import Console

    from tenuto.bench_refills import run_refills, show_refills

    try:
        report = run_refills(count, companies, data, Console(stderr=True))
    except RuntimeError as error:
        fail(str(error))
    show_refills(report, Console())
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))


def _bench_renewals(asked: tuple[int, int, float, int, str | None], json: Path | None) -> None:
    import msgspec
    from rich.console import Console

    from tenuto.bench_renewals import Ask, run_renewals, show_renewals

    try:
        report = run_renewals(Ask(*asked), Console(stderr=True))
    except RuntimeError as error:
        fail(str(error))
    show_renewals(report, Console())
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    if not report.is_true:
        raise typer.Exit(1)


def _bench_webhooks(count: int, seconds: float, data: str | None, json: Path | None) -> None:
    import msgspec
    from rich.console import Console

    from tenuto.bench_webhooks import Ask, run_webhooks, show_webhooks

    try:
        report = run_webhooks(Ask(count, 4 * seconds, data), Console(stderr=True))
    except RuntimeError as error:
        fail(str(error))
    show_webhooks(report, Console())
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    if not report.is_true:
        raise typer.Exit(1)


def _bench_topics(asked: tuple[float, int, int, str | None], json: Path | None) -> None:
    import msgspec
    from rich.console import Console

    from tenuto.bench_topics import Ask, run_topics, show_topics

    try:
        report = run_topics(Ask(*asked), Console(stderr=True))
    except RuntimeError as error:
        fail(str(error))
    show_topics(report, Console(width=None if sys.stdout.isatty() else 160))
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))


@app.command()
def audit(
    database: DatabaseUrl = None,
    data: Data = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows named per check; all are counted.")] = 100,
    gateway: Annotated[bool, typer.Option("--gateway", help="Compare card payments with the provider, too.")] = False,
) -> None:
    """Work every stored fact out again and name each row that disagrees: ends with 0, with 1, or 2 if it cannot run."""
    import asyncpg

    from tenuto.store.database import Unavailable, UnsafeServer

    try:
        found = settings_from(database=database, data=data)
        status = asyncio.run(_audit(_dsn(database, data), limit, _with_sandbox(found) if gateway else None))
    except asyncpg.UndefinedTableError as error:
        say(f"tenuto: This database has no schema of this version ({error}). Bring it up to date: tenuto migrate")
        raise typer.Exit(2) from error
    except (Unavailable, UnsafeServer, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
        say(f"tenuto: {error}")
        raise typer.Exit(2) from error
    except typer.Exit as ended:
        raise typer.Exit(2) from ended
    raise typer.Exit(status)


def _with_sandbox(found: Settings) -> Settings:
    """The settings with where the simulator of the server that runs on the data folder answers, if one does."""
    from tenuto.server import SANDBOX_ADDRESS

    file = Path(found.data) / SANDBOX_ADDRESS
    if found.sandbox_url or not file.exists():
        return found
    return replace(found, sandbox_url=file.read_text().strip())


async def _audit(dsn: str, limit: int, gateway: Settings | None) -> int:
    """Print what there is and what each check found, in one snapshot; then compare with the providers, if asked to.

    0 where all agreed, 1 where something did not, 2 where a provider could not be asked.
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from tenuto.store import audit as audits
    from tenuto.store.database import Database

    console = Console(markup=False, highlight=False, soft_wrap=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    total = 0
    opened = await Database.connect(dsn)
    try:
        async with opened.snapshot() as reader:
            with Progress(*columns, console=console, transient=True) as progress:
                task = progress.add_task("counting", total=None)
                planned = await audits.plan(reader, limit=limit)
                for name, count in planned.counts.items():
                    console.print(f"{count:>14,} {name.replace('_', ' ')}")
                for check in audits.CHECKS:
                    progress.reset(task, description=f"{check.name}: {check.rule}", total=None)
                    found = await audits.run(reader, planned, check)
                    total += found.total
                    verdict = f"{found.total:,} wrong" if found.total else "ok"
                    console.print(f"{verdict:>14} {check.name}: {check.rule}")
                    for finding in found.findings:
                        console.print(f"{'':>15}{finding.row}: {finding.stored}; should be {finding.expected}")
    finally:
        await opened.close()
    silent = 0
    if gateway is not None:
        differing, silent = await _compare(gateway, dsn, limit, console)
        total += differing
    told = f"Every fact here agrees; {silent:,} could not be compared." if silent else "Every fact agrees."
    console.print(f"{total:,} rows disagree." if total else told)
    return 1 if total else 2 if silent else 0


async def _compare(settings: Settings, dsn: str, limit: int, console: Console) -> tuple[int, int]:
    """Print how each company's card payments differ from what its provider says: rows that do, halves not asked."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from tenuto.engine import Engine
    from tenuto.service import gateway_audit

    total = silent = 0
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    engine = await Engine.open(settings, dsn)
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("asking the providers", total=None)
            for half in await gateway_audit.halves(engine):

                def seen(intents: int, name: str = half.name) -> None:
                    progress.update(task, description=f"{name}: {intents:,} intents")

                found = await gateway_audit.compare(engine, half, limit=limit, seen=seen)
                total += found.total
                silent += bool(found.problem)
                verdict = "not asked" if found.problem else f"{found.total:,} wrong" if found.total else "ok"
                told = found.problem or f"{found.payments:,} card payments, {found.intents:,} intents of the provider"
                console.print(f"{verdict:>14} gateway: {half.name}: {told}")
                for finding in found.findings:
                    console.print(f"{'':>15}{finding.row}: {finding.stored}; should be {finding.expected}")
                if found.strangers:
                    console.print(f"{found.strangers:>14,} succeeded that Tenuto did not make, and does not count:")
                for finding in found.foreign:
                    console.print(f"{'':>15}{finding.row}: {finding.stored}")
    finally:
        await engine.close()
    return total, silent


@app.command(name="import")
def import_usage(  # noqa: PLR0913, PLR0917 - one parameter an option
    file: Annotated[Path, typer.Argument(help="CSV with a header, or NDJSON; may be gzipped.")],
    key: Annotated[str, typer.Option(envvar="TENUTO_KEY", help="API key that may write events.")],
    url: Annotated[str, typer.Option(envvar="TENUTO_URL", help="Where the service is.")] = "http://127.0.0.1:8080",
    account: Annotated[str | None, typer.Option(help="Column of the account id.")] = None,
    account_id: Annotated[list[str] | None, typer.Option(help="Account; several take the rows in turn.")] = None,
    type: Annotated[str | None, typer.Option(help="Event type of every row.")] = None,  # noqa: A002 - the option
    type_column: Annotated[str | None, typer.Option(help="Column of the event type.")] = None,
    quantity: Annotated[str | None, typer.Option(help="Column of the quantity; without it, 1 a row.")] = None,
    event: Annotated[list[str] | None, typer.Option(help="TYPE=COLUMN of the quantity; several events a row.")] = None,
    at: Annotated[str | None, typer.Option(help="Column of the time, UTC unless it says otherwise.")] = None,
    key_column: Annotated[str | None, typer.Option(help="Column of the event key; else made from the row.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="Columns to keep as metadata: COLUMN,COLUMN.")] = None,
    ignore_time: Annotated[bool, typer.Option(help="Bill everything as of now.")] = False,
    format: Annotated[str, typer.Option(help="csv or ndjson; by the file's ending when left out.")] = "",  # noqa: A002
    delimiter: Annotated[str, typer.Option(help="What separates the cells of a CSV.")] = ",",
    bad: Annotated[Path | None, typer.Option(help="File that is told every row that did not go in.")] = None,
    progress: Annotated[Path | None, typer.Option(help="Side file for resuming; FILE.progress when left out.")] = None,
    connections: Annotated[int, typer.Option(min=1, max=64, help="Connections at once.")] = 4,
) -> None:
    """Send past or present usage from a file. Sent twice, it counts once; interrupted, it goes on."""
    from tenuto import importer

    if format not in {"", "csv", "ndjson"}:
        fail("--format is csv or ndjson.")
    if len(delimiter) != 1:
        fail("--delimiter is one character.")
    pairs = [(name, column) for name, _, column in (pair.partition("=") for pair in event or [])]
    if not all(name and column for name, column in pairs):
        fail("--event is TYPE=COLUMN, such as --event tokens_read=ContextTokens.")
    try:
        columns = importer.Columns(
            account=account,
            account_ids=tuple(account_id or ()),
            type=type,
            type_column=type_column,
            events=tuple(pairs),
            quantity=quantity,
            at=at,
            key=key_column,
            metadata=tuple(name for names in metadata or () for name in names.split(",") if name),
            is_time_ignored=ignore_time,
        )
    except importer.ImportStopped as error:
        fail(str(error))
    raise typer.Exit(
        importer.import_file(
            file,
            columns,
            url,
            key,
            format=format,
            delimiter=delimiter,
            progress=progress,
            bad=bad,
            connections=connections,
        )
    )


@plans.command(name="pull")
def pull_plans(file: PlanFile, company: CompanyId, key: ApiKey, url: ServiceUrl = SERVICE_URL) -> None:
    """Write what the company sells to the file."""
    from tenuto.plan_changes import run

    raise typer.Exit(run("pull", file, url=url, company_id=company, key=key))


@plans.command(name="diff")
def diff_plans(file: PlanFile, company: CompanyId, key: ApiKey, url: ServiceUrl = SERVICE_URL) -> None:
    """Tell, field by field, what would change: ends with 0 if nothing, with 1 if something, or 2 if it cannot tell."""
    from tenuto.plan_changes import run

    raise typer.Exit(run("diff", file, url=url, company_id=company, key=key))


@plans.command(name="apply")
def apply_plans(
    file: PlanFile,
    company: CompanyId,
    key: ApiKey,
    url: ServiceUrl = SERVICE_URL,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this, it is only told.")] = False,
) -> None:
    """Make the company as the file says. What is in the file no more is archived, or ends."""
    from tenuto.plan_changes import run

    raise typer.Exit(run("apply", file, url=url, company_id=company, key=key, is_meant=yes))


@app.command()
def demo(
    once: Annotated[bool, typer.Option(help="Exit after the last step: 0 if every step was true.")] = False,
    data: Annotated[Path, typer.Option(help="Folder of the demo's own PostgreSQL.")] = Path(".tenuto/demo"),
    port: Annotated[int | None, typer.Option(help="Port; 8080 or the next free one when left out.")] = None,
    usage: Annotated[
        Path | None, typer.Option(help="CSV with the columns TIMESTAMP, ContextTokens, GeneratedTokens to bill.")
    ] = None,
) -> None:
    """Show the engine at work, each step checked, then stay up to be tried."""
    from tenuto.demo import run_demo

    raise typer.Exit(run_demo(data, port=port, usage=usage, is_once=once))


@app.command(name="stripe-simulator")
def stripe_simulator(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 lets the system choose.")] = 12111,
    data: Annotated[Path | None, typer.Option(help="File that keeps the book; without it, memory does.")] = None,
    fsync: Annotated[bool, typer.Option(help="Have every change on the disk before it is answered.")] = False,
) -> None:
    """Serve a Stripe of our own, with test cards, for trying and testing without a Stripe account."""
    from tenuto.gateway import simulator

    try:
        simulator.run(host, port, data, is_synced=fsync, say=say)
    except (OSError, ValueError) as error:
        fail(str(error))


def _dsn(database: str | None, data: str | None) -> str:
    """The database that is meant: the one named, or the embedded one that runs in the data folder."""
    found = settings_from(database=database, data=data)
    if found.database:
        return found.database
    from tenuto.postgres import running_dsn

    dsn = running_dsn(Path(found.data))
    if dsn is None:
        fail(f"No embedded PostgreSQL runs in {found.data}. Start `tenuto serve`, or name one with --database.")
    return dsn


def main() -> None:
    """The entry point."""
    sys.exit(app())


if __name__ == "__main__":
    main()
