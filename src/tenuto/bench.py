"""``tenuto bench``: what this machine does with Tenuto, beside what the same machine does without.

One run, one database (embedded, in a temporary folder, set as ``tenuto serve`` sets it), two workers of which one is
busy at a time: Tenuto's, and one of the same application whose lanes are replaced by a transaction per event
(``PlainLanes``). Every figure is measured once a round, so that noise hits all alike; the medians of the rounds are
shown, and all rounds are in the JSON. A ratio is the median of the rounds' ratios. The load comes from a process of its
own (``bench_load``) on the same machine.

An event is 123,457 tokens at 15 cents a million: it is gated, has a key, moves whole units and leaves a fraction, so
each event by itself writes two rows (event, transaction) and changes two (balance, account). Source: design 8.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from tenuto.bench_load import OK, Kind, Load, Outcome
from tenuto.bench_rows import BATCH, Rows, Timed, fsync_latency
from tenuto.core.identifiers import spell
from tenuto.engine import Settings
from tenuto.postgres import EmbeddedPostgres
from tenuto.server import Workers, listen, prepare, wait_until_ready

READY_SECONDS: Final = 30.0
START_SECONDS: Final = 20.0
"""How long a load generator may take on top of its load."""
WARM_SHARE: Final = 0.1
"""Of its seconds, what each measurement runs uncounted before."""


class Scenario(NamedTuple):
    """One thing to measure. ``of`` and ``share`` make it an open loop at a share of another scenario's rate."""

    name: str
    what: str
    connections: int
    unit: str = "events"
    kind: Kind = "events"
    batch: int = 1
    is_hot: bool = False
    is_plain: bool = False
    of: str = ""
    share: float = 0.0


COPY: Final = Scenario("copy", "The same rows by COPY alone, 1,000 at once", 1)
BARE: Final = Scenario("bare", "One bare lock, update, insert, commit", 1)
FILL: Final = Scenario("fill", "Every account once", 32)
SCENARIOS: Final = (
    BARE,
    Scenario("c1", "One event a request, spread", 1),
    Scenario("hot1", "One event a request, one account", 1, is_hot=True),
    Scenario("plain", "The same door, a transaction per event, no lanes", 32, is_plain=True),
    Scenario("c32", "One event a request, spread", 32),
    Scenario("hot32", "One event a request, one account", 32, is_hot=True),
    Scenario("half", "One event a request, at half the rate of c32", 64, of="c32", share=0.5),
    Scenario("c128", "One event a request, spread", 128),
    Scenario("hot128", "One event a request, one account", 128, is_hot=True),
    COPY,
    Scenario("batch", "100 events a request, spread", 8, batch=100),
    Scenario("holds", "Hold, then settled for less", 32, "pairs", "holds"),
    Scenario("reads", "Balance reads", 32, "reads", "reads"),
)
"""What is compared stands side by side, so that both meet the same weather."""
AGAIN: Final = ("c1", "c32", "c128", "batch", "reads")
"""What is measured again when the tables are large; with it ``bare``, whose tables are not: the weather."""
LARGE: Final = "-large"


class Figure(msgspec.Struct, kw_only=True):
    """What was measured of one scenario: medians of the rounds, and the rounds. Rates are units a second."""

    name: str
    what: str
    unit: str
    connections: int
    rate: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    failed: int = 0
    statuses: dict[int, int] = {}
    rates: list[float] = []
    p50s_ms: list[float] = []
    p99s_ms: list[float] = []

    def add(self, rate: float, p50_ms: float, p99_ms: float, statuses: Mapping[int, int]) -> None:
        """One more round."""
        self.rates.append(rate)
        self.p50s_ms.append(p50_ms)
        self.p99s_ms.append(p99_ms)
        self.rate = statistics.median(self.rates)
        self.p50_ms, self.p99_ms = statistics.median(self.p50s_ms), statistics.median(self.p99s_ms)
        for status, count in statuses.items():
            self.statuses[status] = self.statuses.get(status, 0) + count
        self.failed = sum(count for status, count in self.statuses.items() if status != OK)


class Ratio(msgspec.Struct, kw_only=True):
    """A figure against another, or against a bound; ``goal`` is that of design 8."""

    name: str
    value: float
    goal: str
    is_met: bool


class Report(msgspec.Struct, kw_only=True):
    """All of a run."""

    machine: dict[str, str]
    settings: dict[str, str]
    seconds: float
    rounds: int
    accounts: int
    events_stored: int
    events_in_the_end: int
    worker_mb: float | None
    figures: list[Figure]
    ratios: list[Ratio]


class Ask(NamedTuple):
    """What the person at the terminal asked for."""

    seconds: float = 5.0
    rounds: int = 3
    only: frozenset[str] = frozenset()
    data: str | None = None
    events_stored: int = 0
    accounts: int = 10_000


# --- what is measured against ----------------------------------------------------------------------------------------


class _Workers(Workers):
    """Workers of a module that is named, with their log in a file."""

    def __init__(self, listener: socket.socket, settings: Settings, dsn: str, module: str, log: Path) -> None:
        super().__init__(listener, settings, dsn)
        self._module, self._log = module, log

    def _spawn(self) -> subprocess.Popen[bytes]:  # type: ignore[explicit-override]  # 3.11 has no override
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", self._module],
                env=self._environ,
                pass_fds=[self._listener.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


class House(NamedTuple):
    """What runs during a bench: a database, Tenuto's worker and, where it is needed, the one without lanes."""

    dsn: str
    version: str
    data: Path
    worker_pid: int
    address: tuple[str, int]
    plain_address: tuple[str, int] | None


@contextmanager
def opened(ask: Ask, say: Callable[[str], None], *, has_plain: bool) -> Iterator[House]:
    """The house; in the end it is taken down and its folder removed. Raises RuntimeError if a worker does not start."""
    where = ask.data or ("/var/tmp" if Path("/var/tmp").is_dir() else None)  # noqa: S108 - on a disk, unlike some /tmp
    data = Path(tempfile.mkdtemp(prefix="tenuto-bench-", dir=where))
    settings = Settings(port=0, workers=1, data=str(data))
    modules = ["tenuto.server", "tenuto.bench_plain"][: 2 if has_plain else 1]
    listeners: list[socket.socket] = []
    running: list[_Workers] = []
    try:
        with EmbeddedPostgres.start(data, progress=say) as postgres:
            try:
                say("Making the schema and starting the workers")
                asyncio.run(prepare(postgres.dsn))
                for module in modules:
                    listeners.append(listen(settings.host, 0))
                    running.append(_Workers(listeners[-1], settings, postgres.dsn, module, data / f"{module}.log"))
                    running[-1].start()
                addresses: list[tuple[str, int]] = [listener.getsockname()[:2] for listener in listeners]
                for module, address in zip(modules, addresses, strict=True):
                    if not wait_until_ready(*address, seconds=READY_SECONDS):
                        raise RuntimeError(f"{module} did not start:\n{(data / f'{module}.log').read_text()[-2000:]}")
                yield House(
                    postgres.dsn,
                    postgres.version,
                    data,
                    running[0].pids[0],
                    addresses[0],
                    addresses[1] if has_plain else None,
                )
            finally:
                for workers in running:
                    workers.stop()
                for listener in listeners:
                    listener.close()
    finally:
        shutil.rmtree(data, ignore_errors=True)


class Tenant(NamedTuple):
    """The company that is billed: its authorization header and its accounts, shuffled.

    The worker without lanes has accounts of its own: no worker finds accounts changed behind its back.
    """

    authorization: str
    accounts: list[str]
    plain_accounts: list[str]


def seeded(house: House, rows: Rows, count: int) -> Tenant:
    """A company with a price, opened over HTTP, and its accounts, copied into the tables as the API would make them."""
    client = http.client.HTTPConnection(*house.address, timeout=READY_SECONDS)

    def call(path: str, body: object, headers: Mapping[str, str]) -> Any:  # noqa: ANN401 - JSON
        sent = {"content-type": "application/json", **headers}
        client.request("POST", path, msgspec.json.encode(body), sent)
        answer = client.getresponse()
        raw = answer.read()
        if answer.status != OK:
            raise RuntimeError(f"POST {path} answered {answer.status}: {raw.decode()}")
        return msgspec.json.decode(raw)["data"]

    company = call(
        "/v1/companies",
        {"name": "Bench", "email": "bench@example.com", "password": base64.b64encode(os.urandom(18))},
        {},
    )
    authorization = "Basic " + base64.b64encode(f"{company['id']}:{company['api_key']}".encode()).decode()
    price = {"type": "tokens", "denomination": "USD", "amount": "15", "per": 1_000_000}
    call(f"/v1/companies/{company['id']}/event_prices", price, {"authorization": authorization})
    client.close()
    ids = [spell("a", id) for id in rows.open_accounts(2 * count)]
    return Tenant(authorization, ids[:count], ids[count:])


# --- measuring -------------------------------------------------------------------------------------------------------


class Bench:
    """One run."""

    def __init__(self, ask: Ask, house: House, rows: Rows, tenant: Tenant) -> None:
        self._ask, self._house, self._rows, self._tenant = ask, house, rows, tenant
        self.figures: dict[str, Figure] = {}
        self._last: dict[str, float] = {}
        self._count = 0

    def warm_up(self) -> None:
        """Have every account seen once, as in a service that has been up for a while."""
        self._load(FILL, max(1.0, self._ask.accounts / 2500), self._tenant.accounts)
        self._load(FILL._replace(batch=100, connections=8), min(1.0, self._ask.seconds), self._tenant.accounts)

    def measure(self, scenario: Scenario, suffix: str = "") -> None:
        """One round of one scenario."""
        name = scenario.name + suffix
        if scenario is COPY:
            self._note(scenario, name, self._rows.copied(self._ask.seconds), batch=BATCH)
            return
        if scenario is BARE:
            self._note(scenario, name, self._rows.bare(self._ask.seconds), batch=1)
            return
        accounts = self._tenant.plain_accounts if scenario.is_plain else self._tenant.accounts
        if scenario.is_hot:
            accounts = accounts[:1]
        rate = scenario.share * self._last[scenario.of] if scenario.of else None
        found = self._load(scenario, self._ask.seconds, accounts, rate)
        self._last[name] = found.done / found.seconds
        self._figure(scenario, name).add(
            found.done * scenario.batch / found.seconds, found.p50_ms, found.p99_ms, found.statuses
        )

    def _note(self, scenario: Scenario, name: str, timed: Timed, *, batch: int) -> None:
        self._figure(scenario, name).add(
            timed.times * batch / timed.seconds, timed.p50_ms, timed.p99_ms, {OK: timed.times}
        )

    def _figure(self, scenario: Scenario, name: str) -> Figure:
        return self.figures.setdefault(
            name,
            Figure(name=name, what=scenario.what, unit=scenario.unit, connections=scenario.connections),
        )

    def _load(self, scenario: Scenario, seconds: float, accounts: list[str], rate: float | None = None) -> Outcome:
        address = self._house.plain_address if scenario.is_plain else self._house.address
        assert address is not None
        self._count += 1
        load = Load(
            host=address[0],
            port=address[1],
            authorization=self._tenant.authorization,
            accounts=accounts,
            prefix=f"{scenario.name}-{self._count}",
            kind=scenario.kind,
            connections=scenario.connections,
            batch=scenario.batch,
            seconds=seconds,
            warm_seconds=WARM_SHARE * seconds,
            rate=rate,
        )
        return made(load, scenario.name)


def made(load: Load, name: str) -> Outcome:
    """What came of a load, made by a process of its own. Raises RuntimeError if nothing did."""
    done = subprocess.run(
        [sys.executable, "-m", "tenuto.bench_load"],
        input=msgspec.json.encode(load),
        stdout=subprocess.PIPE,
        timeout=load.seconds * 2 + START_SECONDS * 3,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name}: the load generator ended with {done.returncode}.")
    outcome = msgspec.json.decode(done.stdout, type=Outcome)
    if not outcome.done:
        found = ", ".join(f"{status}: {count}" for status, count in outcome.statuses.items())
        raise RuntimeError(
            f"{name}: no 200 within {load.seconds:g} s (answers by status: {found}). Measure longer: --seconds."
        )
    return outcome


def run(ask: Ask, console: Console) -> Report:
    """Measure everything asked for. ``console`` is told what is being done."""
    names = ask.only | {scenario.of for scenario in SCENARIOS if scenario.name in ask.only and scenario.of}
    wanted = [scenario for scenario in SCENARIOS if not names or scenario.name in names]
    again = [scenario for scenario in wanted if scenario.name in AGAIN or scenario is BARE] if ask.events_stored else []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, refresh_per_second=2) as progress:
        task = progress.add_task("Starting", total=3 + ask.rounds * (len(wanted) + len(again)) + bool(again))

        def say(text: str) -> None:
            progress.update(task, description=text)

        has_plain = any(scenario.is_plain for scenario in wanted)
        with opened(ask, say, has_plain=has_plain) as house, Rows.opened(house.dsn) as rows:
            machine, settings = described(house, rows)
            say(f"Opening {ask.accounts:,} accounts")
            bench = Bench(ask, house, rows, seeded(house, rows, ask.accounts))
            progress.advance(task)
            say("Warming up")
            bench.warm_up()
            rows.make_tables()
            progress.advance(task, 2)

            def measure_all(scenarios: Sequence[Scenario], suffix: str) -> None:
                for number in range(1, ask.rounds + 1):
                    for scenario in scenarios:
                        say(f"Round {number} of {ask.rounds}: {scenario.name}{suffix}")
                        bench.measure(scenario, suffix)
                        progress.advance(task)

            measure_all(wanted, "")
            if again:
                rows.preload(ask.events_stored, lambda done: say(f"Storing events: {done:,} of {ask.events_stored:,}"))
                progress.advance(task)
                bench.warm_up()
                measure_all(again, LARGE)
            worker_mb = resident_mb(house.worker_pid)
            return Report(
                machine=machine,
                settings=settings,
                seconds=ask.seconds,
                rounds=ask.rounds,
                accounts=ask.accounts,
                events_stored=ask.events_stored,
                events_in_the_end=rows.count_events(),
                worker_mb=worker_mb,
                figures=list(bench.figures.values()),
                ratios=ratios(bench.figures, worker_mb),
            )


def ratios(figures: Mapping[str, Figure], worker_mb: float | None) -> list[Ratio]:
    """What design 8 sets goals for, as far as it was measured; a ratio is the median of those of the rounds."""
    found: list[Ratio] = []

    def at_least(over: str, under: str, goal: float) -> None:
        if over in figures and under in figures and all(figures[under].rates):
            value = _median_ratio(figures[over].rates, figures[under].rates)
            found.append(Ratio(name=f"{over} / {under}", value=value, goal=f">= {goal:g}", is_met=value >= goal))

    def at_most(name: str, value: float, goal: float) -> None:
        found.append(Ratio(name=name, value=value, goal=f"<= {goal:g}", is_met=value <= goal))

    at_least("c32", "plain", 5.0)
    at_least("c128", "plain", 6.5)
    at_least("batch", "copy", 0.6)
    at_least("hot32", "c32", 0.9)
    at_least("hot128", "c128", 0.9)
    for name in AGAIN:
        at_least(name + LARGE, name, 0.9)
    if "c1" in figures and "bare" in figures:
        at_most("p50 of c1 / p50 of bare", _median_ratio(figures["c1"].p50s_ms, figures["bare"].p50s_ms), 2.0)
    if "half" in figures:
        at_most("p99 at half load, ms", figures["half"].p99_ms, 10.0)
    if worker_mb is not None:
        at_most("memory of the worker, MB", worker_mb, 150.0)
    return found


def _median_ratio(over: Sequence[float], under: Sequence[float]) -> float:
    return statistics.median(one / other for one, other in zip(over, under, strict=True))


# --- saying it -------------------------------------------------------------------------------------------------------

_SHOWN: Final = [
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_sync_method",
    "shared_buffers",
    "wal_compression",
    "max_wal_size",
    "checkpoint_timeout",
    "autovacuum",
    "jit",
]


def described(house: House, rows: Rows) -> tuple[dict[str, str], dict[str, str]]:
    """The machine, and the server's settings as the server says them."""
    latency = fsync_latency(house.data)
    page = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    machine = {
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{os.cpu_count()} x {_processor()}",
        "memory": f"{page / 2**30:.1f} GiB",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "folder": f"{house.data.parent} ({_file_system(house.data)})",
        "fsync": f"p50 {latency.p50_ms:.2f} ms, p99 {latency.p99_ms:.2f} ms for 8 KiB",
        "Python": f"{platform.python_version()}",
        "PostgreSQL": house.version,
    }
    return machine, rows.settings(_SHOWN)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _file_system(folder: Path) -> str:
    """The type of the file system, where the kernel tells: on tmpfs no figure means anything."""
    found, longest = "unknown", -1
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return found
    for _, point, kind, *_ in mounts:
        if folder.is_relative_to(point) and len(point) >= longest:
            found, longest = kind, len(point)
    return found


def resident_mb(pid: int, *, is_peak: bool = False) -> float | None:
    """The resident memory of a process in MB (10^6 bytes), now or at its peak, where there is a /proc."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    name = "VmHWM" if is_peak else "VmRSS"
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(name)), None)


def show(report: Report, console: Console) -> None:
    """The report as tables for people."""
    for facts in (report.machine, report.settings):
        console.print("  ".join(f"[dim]{name}[/dim] {value}" for name, value in facts.items()), soft_wrap=True)
    figures = Table(title=f"Medians of {report.rounds} rounds of {report.seconds:g} s, {report.accounts:,} accounts")
    figures.add_column("name", style="bold")
    figures.add_column("what")
    for heading in ("connections", "a second", "lowest", "highest", "p50 ms", "p99 ms", "not 200"):
        figures.add_column(heading, justify="right")
    for found in report.figures:
        figures.add_row(
            found.name,
            found.what,
            str(found.connections),
            f"{found.rate:,.0f} {found.unit}",
            f"{min(found.rates):,.0f}",
            f"{max(found.rates):,.0f}",
            f"{found.p50_ms:.2f}",
            f"{found.p99_ms:.2f}",
            f"[red]{found.failed:,}[/red]" if found.failed else "0",
        )
    console.print(figures)
    table = Table(title="Against each other (medians of the rounds' ratios), and the goals of the design")
    table.add_column("ratio", style="bold")
    for heading in ("value", "goal", ""):
        table.add_column(heading, justify="right")
    for ratio in report.ratios:
        table.add_row(
            ratio.name, f"{ratio.value:.2f}", ratio.goal, "[green]yes[/green]" if ratio.is_met else "[red]no[/red]"
        )
    console.print(table)
    console.print(f"{report.events_in_the_end:,} events were stored in the end.")
