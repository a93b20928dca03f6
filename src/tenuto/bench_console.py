"""``tenuto bench --console N``: how long a person waits for each page of the console, with N events stored.

One service, one worker, a company with many accounts. N events with a transaction each are stored as of the last ninety
days, spread evenly over time and accounts: only their number is true, their balances are not. Then its owner signs in
and opens every page in turn, round by round, so that noise hits all alike. What is measured is the first byte, as the
browser would have it; parts that a page asks for after it are measured for themselves. (Goal: 200 ms at the median.)
"""

from __future__ import annotations

import http.client
import re
import statistics
import time
from typing import Final, NamedTuple
from urllib.parse import urlencode

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tenuto.bench import Ask as HouseAsk
from tenuto.bench import House, opened
from tenuto.bench_rows import Rows
from tenuto.core.identifiers import read, spell
from tenuto.importer import Connection

GOAL_MS: Final = 200.0
ROUNDS: Final = 9
EMAIL: Final = "bench@example.com"
FOUND: Final = 200
PAGES: Final = {
    "Home": "/",
    "Home: figures": "/control/figures",
    "Treasury": "/control/accounts",
    "Treasury, by name": "/control/accounts?name=Ada",
    "Account": "/control/accounts/{account}",
    "Account: charts": "/control/accounts/{account}/charts",
    "Account: events": "/control/accounts/{account}/events",
    "Account: transactions": "/control/accounts/{account}/transactions",
    "Event": "/control/events/{event}",
    "Transactions": "/control/transactions",
    "Transactions, filtered": "/control/transactions?book=usage",
    "Payments": "/control/payments",
    "Invoices": "/control/invoices",
    "Plans": "/control/plans",
    "Reports": "/control/reports/usage",
    "Reports: usage this month": "/control/reports/usage/figures",
    "Events": "/control/events",
    "Settings": "/control/settings/keys",
    "Activity": "/control/settings/activity",
}
"""Every page that lists or sums up, and its address. What stands behind a colon comes after its page."""


class Ask(NamedTuple):
    """What the person at the terminal asked for."""

    events: int
    accounts: int
    data: str | None = None


class PageFigure(msgspec.Struct, kw_only=True):
    """One page: its status, and the milliseconds to its first byte."""

    name: str
    status: int
    median_ms: float
    slowest_ms: float


class ConsoleReport(msgspec.Struct, kw_only=True):
    """What was measured."""

    events: int
    accounts: int
    figures: list[PageFigure]
    is_met: bool


class _Browser:
    """Somebody who is signed in."""

    def __init__(self, address: tuple[str, int], password: str) -> None:
        self._line = http.client.HTTPConnection(*address, timeout=120)
        self._origin = f"http://{address[0]}:{address[1]}"
        self._cookie = ""
        form = urlencode({"email": EMAIL, "password": password})
        headers = {"content-type": "application/x-www-form-urlencoded", "origin": self._origin}
        self._line.request("POST", "/control/sign-in", form, headers)
        answer = self._line.getresponse()
        answer.read()
        self._cookie = (answer.getheader("set-cookie") or "").partition(";")[0]
        if not self._cookie:
            raise RuntimeError(f"The sign-in answered {answer.status}.")

    def open(self, path: str) -> tuple[int, float, str]:
        """A page: its status, the milliseconds to its first byte, its text."""
        begun = time.perf_counter()
        self._line.request("GET", path, headers={"cookie": self._cookie})
        answer = self._line.getresponse()
        took = (time.perf_counter() - begun) * 1000
        return answer.status, took, answer.read().decode()


def run_console(ask: Ask, console: Console) -> ConsoleReport:
    """Measure. Raises RuntimeError where the service does not start, or a page is not there."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with (
        opened(HouseAsk(data=ask.data), lambda text: console.print(f"[dim]{text}[/]"), has_plain=False) as house,
        Rows.opened(house.dsn) as rows,
        Progress(*columns, console=console) as progress,
    ):
        password = f"bench {time.time_ns()}"
        account = _seeded(house, rows, ask, password, progress)
        browser = _Browser(house.address, password)
        _, _, text = browser.open(f"/control/accounts/{account}/events")
        event = re.search(r"/control/events/(e_[0-9a-z]+)", text)
        names = {"account": account, "event": event[1] if event else ""}
        took: dict[str, list[float]] = {name: [] for name in PAGES}
        statuses: dict[str, int] = {}
        task = progress.add_task("Opening pages", total=ROUNDS + 1)
        for number in range(ROUNDS + 1):
            for name, path in PAGES.items():
                statuses[name], ms, _ = browser.open(path.format(**names))
                took[name] += [ms] if number else []
            progress.advance(task)
    figures = [
        PageFigure(name=name, status=statuses[name], median_ms=statistics.median(found), slowest_ms=max(found))
        for name, found in took.items()
    ]
    is_met = all(found.status == FOUND and found.median_ms <= GOAL_MS for found in figures if ":" not in found.name)
    return ConsoleReport(events=ask.events, accounts=ask.accounts, figures=figures, is_met=is_met)


def _seeded(house: House, rows: Rows, ask: Ask, password: str, progress: Progress) -> str:
    """The company with its accounts and events; one of the accounts."""
    line = Connection(f"http://{house.address[0]}:{house.address[1]}")
    try:
        person = {"name": "Bench", "email": EMAIL, "password": password}
        company = line.call("POST", "/v1/companies", person).data
        line.key = company["api_key"]
        price = {"type": "tokens", "denomination": "USD", "amount": "15", "per": 1_000_000}
        line.call("POST", f"/v1/companies/{company['id']}/event_prices", price)
        accounts = [spell("a", id) for id in rows.open_accounts(ask.accounts, read("c", company["id"]))]
        line.call("POST", f"/v1/accounts/{accounts[0]}/events", {"type": "tokens", "quantity": 1_000_000})
    finally:
        line.close()
    task = progress.add_task("Storing events", total=ask.events)
    rows.store_history(ask.events, lambda done: progress.update(task, completed=done))
    return accounts[1]


def show_console(report: ConsoleReport, console: Console) -> None:
    """The report for people."""
    table = Table(title=f"First byte with {report.accounts:,} accounts and {report.events:,} events stored")
    table.add_column("page", style="bold")
    for heading in ("status", "median ms", "slowest ms"):
        table.add_column(heading, justify="right")
    for found in report.figures:
        table.add_row(found.name, str(found.status), f"{found.median_ms:.0f}", f"{found.slowest_ms:.0f}")
    console.print(table)
    said = "[green]yes[/green]" if report.is_met else "[red]no[/red]"
    console.print(
        f"every page within {GOAL_MS:g} ms at the median: {said} (parts that come after a page are not pages)"
    )
