"""``tenuto bench --webhooks N``: N notifications to twenty webhooks, and what one that hangs costs the others.

A whole service (its own PostgreSQL, one worker, the courier) is started in a temporary folder, a receiver beside it.
Events are posted as customers post them: each request carries one event for each of the five webhooks of a company, and
each event moves a balance whose changes one webhook hears. So each notification has one place to go to.

First all are posted as fast as they are taken: what is measured is how fast the courier delivers. Then they are posted
at half of that rate while one webhook of the twenty never answers: how long do the other nineteen wait? (Goal: the 95th
percentile from an event to the arrival of what it told is five seconds at most.)
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tenuto.bench import resident_mb
from tenuto.bench_receiver import Command, Received
from tenuto.engine import Settings
from tenuto.importer import Connection
from tenuto.server import Server, wait_until_ready

COMPANIES: Final = 4
WEBHOOKS: Final = 5
"""Webhooks of a company; as many events in a request."""
ACCOUNTS: Final = 25
"""Accounts of a company."""
CONNECTIONS: Final = 16
PACED_SHARE: Final = 0.5
GOAL_SECONDS: Final = 5.0
READY_SECONDS: Final = 30.0
STUCK_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 0.5


class Ask(NamedTuple):
    """What the person at the terminal asked for."""

    notifications: int
    paced_seconds: float = 20.0
    data: str | None = None


class Stretch(msgspec.Struct, kw_only=True):
    """What was measured of one stretch; seconds count from the first request. Latencies: from event to arrival."""

    notifications: int
    written_seconds: float
    seconds: float
    rate: float
    lost: int
    duplicates: int
    verified: int
    forged: int
    p50_seconds: float
    p95_seconds: float
    p99_seconds: float
    most_seconds: float


class WebhookReport(msgspec.Struct, kw_only=True):
    """What was measured: all at once, and paced beside a webhook that hangs (``hanging`` never counts its own)."""

    webhooks: int
    companies: int
    burst: Stretch
    hanging: Stretch
    hung_attempts: int
    courier_before_mb: float | None
    courier_peak_mb: float | None
    worker_mb: float | None

    @property
    def is_true(self) -> bool:
        """Whether everything arrived, once, as it was signed."""
        stretches = (self.burst, self.hanging)
        return all(not (one.lost or one.duplicates or one.forged) and one.verified for one in stretches)


class Receiver:
    """The receiver's process, and the bench's line to it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tenuto.bench_receiver"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        self._line = Connection(self.url)

    def begin(self, command: Command) -> None:
        """Have it count anew."""
        self._line.call("POST", "/_begin", msgspec.json.encode(command))

    def count(self) -> int:
        """How many came in."""
        return int(self._line.call("GET", "/_count", b"").raw)

    def told(self) -> Received:
        """All that it has to say."""
        return msgspec.json.decode(self._line.call("GET", "/_told", b"").raw, type=Received)

    def stop(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(READY_SECONDS)
        self._line.close()


class Tenant(NamedTuple):
    """A company of the bench, ready to be billed: the requests of its accounts, head and body in one."""

    requests: list[bytes]
    secrets: dict[str, str]


def asked(line: Connection, method: str, path: str, body: object) -> Any:  # noqa: ANN401 - JSON
    """The data of a request that must succeed. Raises RuntimeError."""
    reply = line.call(method, path, body)
    if reply.status != 200:  # noqa: PLR2004
        raise RuntimeError(f"{method} {path} answers {reply.status}: {reply.raw.decode()}")
    return reply.data


def open_tenant(server: Server, receiver_url: str, number: int) -> Tenant:
    """A company with its webhooks, one a denomination, and its accounts."""
    line = Connection(server.url)
    try:
        person = {"name": f"Bench {number}", "email": "bench@example.com", "password": os.urandom(12).hex()}
        opened = asked(line, "POST", "/v1/companies", person)
        line.key, own = opened["api_key"], f"/v1/companies/{opened['id']}"
        secrets: dict[str, str] = {}
        for place in range(WEBHOOKS):
            price = {"type": f"e{place}", "denomination": f"d{place}", "amount": "1"}
            asked(line, "POST", f"{own}/event_prices", price)
            path = f"/{opened['id']}/{place}"
            topics = [{"topic": "balance_change", "denomination": f"d{place}"}]
            made = asked(line, "POST", f"{own}/webhooks", {"url": receiver_url + path, "topics": topics})
            secrets[path] = made["secret"]
        customer = {"name": "Ada", "email": "ada@example.com"}
        accounts = [asked(line, "POST", f"{own}/accounts", customer)["id"] for _ in range(ACCOUNTS)]
        body = msgspec.json.encode([{"type": f"e{place}"} for place in range(WEBHOOKS)])
        head = "POST /v1/accounts/{} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {}\r\n"
        rest = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
        return Tenant([head.format(f"{id}/events", line.key).encode() + rest for id in accounts], secrets)
    finally:
        line.close()


# --- posting ----------------------------------------------------------------------------------------------------------


class Posting:
    """Requests sent over some connections, as fast as they are answered, or so many a second."""

    def __init__(self, address: tuple[str, int], requests: Sequence[bytes], count: int, rate: float | None) -> None:
        self._address, self._requests, self._count, self._rate = address, requests, count, rate
        self._next = 0
        self.done = 0
        self.seconds = 0.0

    async def run(self) -> None:
        """Send all of them. Raises RuntimeError where one is not taken."""
        self._began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(self._send())
        self.seconds = time.monotonic() - self._began

    async def _send(self) -> None:
        reader, writer = await asyncio.open_connection(*self._address)
        try:
            while self._next < self._count:
                number, self._next = self._next, self._next + 1
                if self._rate is not None:
                    await asyncio.sleep(max(0.0, self._began + number / self._rate - time.monotonic()))
                writer.write(self._requests[number % len(self._requests)])
                head = await reader.readuntil(b"\r\n\r\n")
                at = head.find(b"content-length: ") + 16
                body = await reader.readexactly(int(head[at : head.find(b"\r", at)]))
                if not head.startswith(b"HTTP/1.1 200"):
                    raise RuntimeError(f"The service answers {head[9:12].decode()}: {body.decode()}")
                self.done += 1
        finally:
            writer.close()


class Run:
    """One run: a service, its receiver, and the requests of all accounts, company by company in turn."""

    def __init__(self, server: Server, receiver: Receiver, progress: Progress) -> None:
        self._server, self._receiver, self._progress = server, receiver, progress
        progress.console.print(f"[dim]Opening {COMPANIES} companies with {WEBHOOKS} webhooks each[/]")
        tenants = [open_tenant(server, receiver.url, number) for number in range(COMPANIES)]
        self._requests = [one for turn in zip(*(tenant.requests for tenant in tenants), strict=True) for one in turn]
        self._secrets = {path: secret for tenant in tenants for path, secret in tenant.secrets.items()}
        self._hanging = next(iter(tenants[0].secrets))

    def burst(self, notifications: int) -> Stretch:
        """All at once."""
        self._receiver.begin(Command(secrets=self._secrets))
        return asyncio.run(self._stretch(notifications, None))[0]

    def beside_one_that_hangs(self, seconds: float, rate: float) -> tuple[Stretch, int]:
        """So many notifications a second while one webhook never answers; how many attempts it let hang."""
        self._receiver.begin(Command(hanging=self._hanging))
        stretch, told = asyncio.run(self._stretch(round(seconds * rate), rate / WEBHOOKS))
        return stretch, told.unanswered

    async def _stretch(self, notifications: int, rate: float | None) -> tuple[Stretch, Received]:
        """Post, and look until everything came, or nothing does any more. ``rate`` is in requests a second."""
        count = max(1, notifications // WEBHOOKS)
        # Every request of the first company has one event for the webhook that hangs.
        total = count * WEBHOOKS - (0 if rate is None else -(-count // COMPANIES))
        name = "at once" if rate is None else "one hangs"
        tasks = [self._progress.add_task(f"{name}: {what}", total=total) for what in ("posted", "arrived")]
        posting = Posting(self._server.address, self._requests, count, rate)
        began, arrived, moved_at = time.time(), 0, time.monotonic()
        task = asyncio.create_task(posting.run())
        while (not task.done() or arrived < total) and time.monotonic() - moved_at < STUCK_SECONDS:
            await asyncio.sleep(LOOK_SECONDS)
            found = await asyncio.to_thread(self._receiver.count)
            if found != arrived:
                arrived, moved_at = found, time.monotonic()
            for shown, done in zip(tasks, (posting.done * total // count, arrived), strict=True):
                self._progress.update(shown, completed=done)
        await task
        await asyncio.sleep(LOOK_SECONDS)  # what comes twice may come late
        told = await asyncio.to_thread(self._receiver.told)
        return _stretch(total, posting.seconds, told.last_at - began, told), told


def _stretch(total: int, written_seconds: float, seconds: float, told: Received) -> Stretch:
    return Stretch(
        notifications=total,
        written_seconds=round(written_seconds, 1),
        seconds=round(seconds, 1),
        rate=round(told.distinct / max(seconds, 0.001)),
        lost=total - told.distinct,
        duplicates=told.count - told.distinct,
        verified=told.verified,
        forged=told.forged,
        p50_seconds=round(told.p50_seconds, 2),
        p95_seconds=round(told.p95_seconds, 2),
        p99_seconds=round(told.p99_seconds, 2),
        most_seconds=round(told.most_seconds, 2),
    )


@contextmanager
def opened(data: str | None, say: Callable[[str], None]) -> Iterator[tuple[Server, Receiver]]:
    """A whole service and a receiver, until the block ends. Raises RuntimeError where the service does not start."""
    where = data or ("/var/tmp" if Path("/var/tmp").is_dir() else None)  # noqa: S108 - on a disk, unlike some /tmp
    folder = Path(tempfile.mkdtemp(prefix="tenuto-webhooks-", dir=where))
    settings = Settings(
        port=0, data=str(folder), registration="open", log_level="error", sandbox="off", private_webhooks="on"
    )
    server, receiver = Server(settings, say), Receiver()
    try:
        server.start()
        if not wait_until_ready(*server.address, seconds=READY_SECONDS):
            raise RuntimeError("The service did not start.")
        yield server, receiver
    finally:
        server.stop()
        receiver.stop()
        shutil.rmtree(folder, ignore_errors=True)


def run_webhooks(ask: Ask, console: Console) -> WebhookReport:
    """Measure. Raises RuntimeError where the service does not start, or refuses something."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        opened(ask.data, lambda text: console.print(f"[dim]{text}[/]")) as (server, receiver),
        Progress(*columns, console=console) as progress,
    ):
        assert server.courier is not None
        assert server.workers is not None
        run, courier = Run(server, receiver, progress), server.courier.pid or 0
        before = resident_mb(courier)
        burst = run.burst(ask.notifications)
        hanging, hung = run.beside_one_that_hangs(ask.paced_seconds, burst.rate * PACED_SHARE)
        return WebhookReport(
            webhooks=COMPANIES * WEBHOOKS,
            companies=COMPANIES,
            burst=burst,
            hanging=hanging,
            hung_attempts=hung,
            courier_before_mb=before,
            courier_peak_mb=resident_mb(courier, is_peak=True),
            worker_mb=resident_mb(server.workers.pids[0]),
        )


def show_webhooks(report: WebhookReport, console: Console) -> None:
    """The report for people."""
    burst, hanging = report.burst, report.hanging
    paced = hanging.notifications / max(hanging.written_seconds, 0.1)
    is_met = hanging.p95_seconds <= GOAL_SECONDS
    before, peak = report.courier_before_mb or 0, report.courier_peak_mb or 0
    told = f"{burst.notifications:,} notifications to {report.webhooks} webhooks of {report.companies} companies"
    beside = f"one of {report.webhooks} hangs, {hanging.notifications:,} to the others at {paced:,.0f} a second"
    lines = (
        f"{told}: {burst.seconds} s, {burst.rate:,} a second; posting their events took {burst.written_seconds} s",
        f"memory of the courier: {before:.0f} MB before, {peak:.0f} MB at its peak",
        f"lost {burst.lost}, twice {burst.duplicates}",
        f"{beside}: lost {hanging.lost}, twice {hanging.duplicates}; {report.hung_attempts} attempts hung",
        f"from event to arrival at the others: {hanging.p50_seconds} s at the median, {hanging.most_seconds} s at most",
        f"{hanging.p95_seconds} s at the 95th percentile <= {GOAL_SECONDS:g} s: {'yes' if is_met else 'no'}",
        f"signatures looked at: {burst.verified + hanging.verified:,}; wrong: {burst.forged + hanging.forged}",
    )
    for line in lines:
        console.print(line, soft_wrap=True)
