"""``tenuto bench --topics``: what it costs the one who posts events that somebody listens.

One service with its courier, one worker, three companies: nobody listens to the first; to the second a webhook without
a url listens, so that what it hears is written and published but not sent; the third has a receiver that takes it all.
Both hear ``balance_change`` and ``threshold`` of all accounts, so every event of the load has something to say. Each
round posts to the three in turn, 32 connections with one event a request, so that noise hits all alike; what is still
waiting is delivered before the next begins. A ratio is the median of the rounds' ratios to the silent company.
(Goal: being written costs at most a quarter of the events.)
"""

from __future__ import annotations

import statistics
import time
from typing import Final, NamedTuple

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tenuto.bench import WARM_SHARE, made
from tenuto.bench_load import Load
from tenuto.bench_receiver import Command
from tenuto.bench_rows import Rows
from tenuto.bench_webhooks import asked, opened
from tenuto.core.identifiers import read, spell
from tenuto.importer import Connection
from tenuto.server import Server

CONNECTIONS: Final = 32
GOAL: Final = 0.75
DRAIN_SECONDS: Final = 120.0
SILENT, HEARD, SENT = "silent", "heard", "sent"
WHAT: Final = {SILENT: "Nobody listens", HEARD: "It is written and published", SENT: "It is delivered, too"}
TOPICS: Final = ("balance_change", "threshold")


class Ask(NamedTuple):
    """What the person at the terminal asked for."""

    seconds: float = 5.0
    rounds: int = 3
    accounts: int = 10_000
    data: str | None = None


class TopicFigure(msgspec.Struct, kw_only=True):
    """One company's: events a second and the 99th percentile of each round; ``ratio`` is to the silent company."""

    name: str
    what: str
    rate: float
    ratio: float
    p99_ms: float
    rates: list[float]
    p99s_ms: list[float]
    notifications: int
    failed: int


class TopicReport(msgspec.Struct, kw_only=True):
    """What was measured. ``accounts`` are those of all three companies."""

    seconds: float
    rounds: int
    accounts: int
    figures: list[TopicFigure]
    is_met: bool


class _Party(NamedTuple):
    """A company that is billed."""

    name: str
    id: str
    key: str
    accounts: list[str]


def _open(server: Server, rows: Rows, name: str, url: str, count: int) -> _Party:
    """A company with a price, its accounts and, unless it is silent, its webhook."""
    line = Connection(server.url)
    try:
        person = {"name": name, "email": "bench@example.com", "password": f"bench {time.time_ns()}"}
        company = asked(line, "POST", "/v1/companies", person)
        line.key, own = company["api_key"], f"/v1/companies/{company['id']}"
        price = {"type": "tokens", "denomination": "USD", "amount": "15", "per": 1_000_000}
        asked(line, "POST", f"{own}/event_prices", price)
        if name != SILENT:
            asked(line, "POST", f"{own}/webhooks", {"url": url if name == SENT else None, "topics": TOPICS})
        ids = rows.open_accounts(count, read("c", company["id"]))
        return _Party(name, company["id"], line.key, [spell("a", id) for id in ids])
    finally:
        line.close()


class _Run:
    """One run."""

    def __init__(self, ask: Ask, server: Server, rows: Rows) -> None:
        self._ask, self._server, self._rows = ask, server, rows
        self._count = 0
        self.figures: dict[str, TopicFigure] = {}

    def measure(self, party: _Party, seconds: float, *, counts: bool = True) -> None:
        """One round of one company."""
        self._count += 1
        before = time.monotonic()
        load = Load(
            host=self._server.address[0],
            port=self._server.address[1],
            authorization=f"Bearer {party.key}",
            accounts=party.accounts,
            prefix=f"{party.name}-{self._count}",
            connections=CONNECTIONS,
            seconds=seconds,
            warm_seconds=WARM_SHARE * seconds,
        )
        outcome = made(load, party.name)
        while self._rows.count_waiting():
            if time.monotonic() > before + seconds + DRAIN_SECONDS:
                raise RuntimeError(f"{party.name}: what was told is not delivered within {DRAIN_SECONDS:g} s.")
            time.sleep(0.1)
        if counts:
            figure = self.figures.setdefault(party.name, _figure(party.name))
            figure.rates.append(outcome.done / outcome.seconds)
            figure.p99s_ms.append(outcome.p99_ms)
            figure.failed += sum(number for status, number in outcome.statuses.items() if status != 200)  # noqa: PLR2004


def _figure(name: str) -> TopicFigure:
    return TopicFigure(
        name=name, what=WHAT[name], rate=0, ratio=1, p99_ms=0, rates=[], p99s_ms=[], notifications=0, failed=0
    )


def run_topics(ask: Ask, console: Console) -> TopicReport:
    """Measure. Raises RuntimeError where the service does not start, or refuses something."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with (
        opened(ask.data, lambda text: console.print(f"[dim]{text}[/]")) as (server, receiver),
        Rows.opened(server.dsn) as rows,
        Progress(*columns, console=console) as progress,
    ):
        receiver.begin(Command())
        task = progress.add_task("Opening accounts", total=len(WHAT) * (ask.rounds + 1))
        run = _Run(ask, server, rows)
        share = max(1, ask.accounts // len(WHAT))  # together no more than a worker remembers
        parties = [_open(server, rows, name, f"{receiver.url}/topics", share) for name in WHAT]
        for number in range(ask.rounds + 1):
            for party in parties:
                what = f"Round {number} of {ask.rounds}" if number else "Warming up"
                progress.update(task, description=f"{what}: {party.name}")
                warm = max(1.0, share / 2500)
                run.measure(party, ask.seconds if number else warm, counts=number > 0)
                progress.advance(task)
        figures = run.figures
        silent = figures[SILENT].rates
        for figure in figures.values():
            figure.rate, figure.p99_ms = statistics.median(figure.rates), statistics.median(figure.p99s_ms)
            figure.ratio = statistics.median(one / other for one, other in zip(figure.rates, silent, strict=True))
        figures[SENT].notifications = receiver.count()
        return TopicReport(
            seconds=ask.seconds,
            rounds=ask.rounds,
            accounts=ask.accounts,
            figures=list(figures.values()),
            is_met=figures[HEARD].ratio >= GOAL,
        )


def show_topics(report: TopicReport, console: Console) -> None:
    """The report for people."""
    table = Table(title=f"Medians of {report.rounds} rounds of {report.seconds:g} s, {CONNECTIONS} connections")
    table.add_column("company", style="bold")
    table.add_column("what")
    for heading in ("events a second", "lowest", "highest", "p99 ms", "to silent", "not 200"):
        table.add_column(heading, justify="right")
    for found in report.figures:
        table.add_row(
            found.name,
            found.what,
            f"{found.rate:,.0f}",
            f"{min(found.rates):,.0f}",
            f"{max(found.rates):,.0f}",
            f"{found.p99_ms:.2f}",
            f"{found.ratio:.2f}",
            f"{found.failed:,}",
        )
    console.print(table)
    said = "[green]yes[/green]" if report.is_met else "[red]no[/red]"
    console.print(f"{HEARD} / {SILENT} >= {GOAL:g}: {said}; {report.figures[-1].notifications:,} were delivered.")
