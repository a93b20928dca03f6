"""The command line: serve, migrate, audit, import, demo, bench, settings."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from tenuto.engine import SECRET_SETTINGS, Settings, read_settings

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Tenuto: real-time usage billing on PostgreSQL.")

Host = Annotated[str | None, typer.Option(help="Address to listen on.")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; 0 lets the system choose.")]
DatabaseUrl = Annotated[str | None, typer.Option("--database", help="PostgreSQL to use instead of the embedded one.")]
Data = Annotated[str | None, typer.Option(help="Folder of the embedded PostgreSQL.")]


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
