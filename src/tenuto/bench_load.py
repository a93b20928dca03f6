"""The load of the bench: one process that keeps connections busy and counts what comes back.

It is cheap on purpose, for it shares the machine with what it measures: a plain protocol, requests put together from
ready bytes, answers read no further than their status and length. It is run as a program; the ``Load`` it is to make
comes in by standard input, the ``Outcome`` goes out by standard output, both as JSON.

Closed loop (the usual): each connection sends its next request when the last one is answered. Open loop (``rate``):
requests are due at random moments, as customers come, and their latency counts from the moment they were due, so that a
server that stalls cannot hide it.
"""

from __future__ import annotations

import asyncio
import gc
import math
import random
import sys
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable
from typing import Final, Literal

import msgspec
import uvloop

Kind = Literal["events", "holds", "reads"]

OK: Final = 200
NO_ANSWER: Final = 0
"""The status under which a connection that broke is counted."""
STRAGGLER_SECONDS: Final = 30.0
"""How long answers are waited for after the last request was sent."""
QUANTITY: Final = 123_457
"""Tokens of one event: at 15 cents a million, 1.85 cents: each event moves whole units and leaves a fraction."""
SETTLED: Final = 100_000
"""Tokens that a hold is settled for."""

_EVENT: Final = b'{"type":"tokens","quantity":%d,"gate_on_balance":true,"key":"%s-%%012d"}'
_HOLD: Final = b'{"type":"tokens","quantity":%d,"gate_on_balance":true,"state":"pending","key":"%s-%%012d"}'
_SETTLE: Final = b'{"state":"complete","quantity":%d}' % SETTLED
_ID: Final = b'"id":"'


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be sent. ``prefix`` makes the keys unique; ``batch`` is how many events a request carries.

    ``warm_seconds`` are run before ``seconds`` and not counted; ``rate`` is in requests a second.
    """

    host: str
    port: int
    authorization: str
    accounts: list[str]
    prefix: str
    kind: Kind = "events"
    connections: int = 32
    batch: int = 1
    seconds: float = 5.0
    warm_seconds: float = 0.5
    rate: float | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came back. ``done`` and the latencies are of the counted time; ``statuses`` of all of it.

    ``done`` counts requests, or pairs of hold and settlement.
    """

    done: int
    seconds: float
    p50_ms: float
    p99_ms: float
    statuses: dict[int, int]


def percentile(values: array[int] | list[int], share: float) -> float:
    """The nearest-rank percentile of sorted nanoseconds, in milliseconds; 0 of nothing."""
    return values[max(0, math.ceil(share * len(values)) - 1)] / 1e6 if values else 0.0


class _Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way, sent (or due) at ``since``."""

    def __init__(self, on_answer: Callable[[_Connection, int, bytes], None]) -> None:
        self.since = 0
        self.stage = 0
        self._on_answer = on_answer
        self._parts = b""
        self._missing = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # type: ignore[explicit-override]  # 3.11 has no override
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]  # a TCP transport, as asked for

    def send(self, request: bytes) -> None:
        """Write a request."""
        assert self._transport is not None
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:  # type: ignore[explicit-override]  # 3.11 has no override
        """Read a status and a length; call back when the whole answer is there."""
        if self._parts:
            self._missing -= len(data)
            self._parts += data
            if self._missing > 0:
                return
            data, self._parts = self._parts, b""
        head = data.find(b"\r\n\r\n")
        if head < 0:
            self._parts, self._missing = data, 0
            return
        at = data.find(b"content-length: ", 0, head) + 16
        missing = head + 4 + int(data[at : data.find(b"\r", at)]) - len(data)
        if missing > 0:
            self._parts, self._missing = data, missing
            return
        self._on_answer(self, int(data[9:12]), data)

    def connection_lost(self, _: Exception | None) -> None:  # type: ignore[explicit-override]  # 3.11 has no override
        """Count it: the service never closes a connection that is in use."""
        self._on_answer(self, NO_ANSWER, b"")

    def close(self) -> None:
        """Close it, and hear of nothing any more."""
        self._on_answer = lambda *_: None
        if self._transport is not None:
            self._transport.close()


class _Requests:
    """The requests of a load, one after another, over the accounts in turn (they come shuffled)."""

    def __init__(self, load: Load) -> None:
        ending = f" HTTP/1.1\r\nhost: {load.host}\r\nauthorization: {load.authorization}\r\n".encode()
        self._count = 0
        self._batch = load.batch
        self._is_read = load.kind == "reads"
        if self._is_read:
            self._body = b""
            paths = [f"GET /v1/accounts/{account}/balance/USD" for account in load.accounts]
            self._heads = [path.encode() + ending + b"\r\n" for path in paths]
            return
        event = (_HOLD if load.kind == "holds" else _EVENT) % (QUANTITY, load.prefix.encode())
        self._body = event if load.batch == 1 else b"[" + b",".join([event] * load.batch) + b"]"
        json = ending + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n"
        posted = json % len(self._body % tuple(range(load.batch)))
        self._heads = [f"POST /v1/accounts/{account}/events".encode() + posted for account in load.accounts]
        self._settle = json % len(_SETTLE) + _SETTLE

    def next(self) -> bytes:
        """The next one."""
        count = self._count
        self._count = count + 1
        head = self._heads[count % len(self._heads)]
        if self._is_read:
            return head
        if self._batch == 1:
            return head + self._body % count
        first = count * self._batch
        return head + self._body % tuple(range(first, first + self._batch))

    def settle(self, held: bytes) -> bytes:
        """The settlement of a hold, from the answer that opened it."""
        at = held.find(_ID) + len(_ID)
        return b"PUT /v1/events/" + held[at : held.find(b'"', at)] + self._settle


class _Run:
    """One load under way."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._requests = _Requests(load)
        self._has_pairs = load.kind == "holds"
        self._statuses: Counter[int] = Counter()
        self._latencies = array("q")
        self._from = self._until = 0
        self._idle: list[_Connection] = []
        self._due: deque[int] = deque()
        self._busy = 0
        self._finished = asyncio.Event()

    async def run(self) -> Outcome:
        """All of it."""
        load, loop = self._load, asyncio.get_running_loop()
        connections: list[_Connection] = []
        for _ in range(load.connections):
            answered = self._answered if load.rate is None else self._answered_open
            _, connection = await loop.create_connection(lambda: _Connection(answered), load.host, load.port)  # noqa: B023
            connections.append(connection)
        now = time.perf_counter_ns()
        self._from = now + round(load.warm_seconds * 1e9)
        self._until = self._from + round(load.seconds * 1e9)
        if load.rate is None:
            self._busy = len(connections)
            for connection in connections:
                self._begin(connection, time.perf_counter_ns())
        else:
            self._idle = list(connections)
            await self._come_as_customers_do(load.rate)
        try:
            async with asyncio.timeout(load.seconds + load.warm_seconds + STRAGGLER_SECONDS):
                await self._finished.wait()
        except TimeoutError:
            self._statuses[NO_ANSWER] += self._busy
        for connection in connections:
            connection.close()
        found = sorted(self._latencies)
        return Outcome(
            done=len(found),
            seconds=load.seconds,
            p50_ms=percentile(found, 0.5),
            p99_ms=percentile(found, 0.99),
            statuses=dict(self._statuses),
        )

    def _begin(self, connection: _Connection, since: int) -> None:
        connection.since, connection.stage = since, 0
        connection.send(self._requests.next())

    def _answered(self, connection: _Connection, status: int, data: bytes) -> None:
        now = time.perf_counter_ns()
        self._statuses[status] += 1
        if status == OK:
            if self._has_pairs and connection.stage == 0:
                connection.stage = 1
                connection.send(self._requests.settle(data))
                return
            if self._from <= now < self._until:
                self._latencies.append(now - connection.since)
        if now < self._until and status != NO_ANSWER:
            self._begin(connection, now)
            return
        self._busy -= 1
        if not self._busy:
            self._finished.set()

    def _answered_open(self, connection: _Connection, status: int, _: bytes) -> None:
        now = time.perf_counter_ns()
        self._statuses[status] += 1
        if status == OK and self._from <= connection.since < self._until:
            self._latencies.append(now - connection.since)
        if self._due and status != NO_ANSWER:
            self._begin(connection, self._due.popleft())
            return
        self._busy -= 1
        if status != NO_ANSWER:
            self._idle.append(connection)
        if not self._busy and now >= self._until:
            self._finished.set()

    async def _come_as_customers_do(self, rate: float) -> None:
        """Poisson arrivals; those that find every connection busy wait for one, and their latency goes on counting."""
        chance = random.Random(1)  # noqa: S311 - arrivals, not secrets
        due = float(time.perf_counter_ns())
        while due < self._until:
            now = time.perf_counter_ns()
            while due <= now:
                if self._idle:
                    self._busy += 1
                    self._begin(self._idle.pop(), int(due))
                else:
                    self._due.append(int(due))
                due += chance.expovariate(rate) * 1e9
            await asyncio.sleep((due - now) / 1e9)
        if not self._busy:
            self._finished.set()


def main() -> None:
    """Read a load, make it, write what came of it."""
    load = msgspec.json.decode(sys.stdin.buffer.read(), type=Load)
    gc.disable()
    outcome = uvloop.run(_Run(load).run())
    sys.stdout.buffer.write(msgspec.json.encode(outcome))


if __name__ == "__main__":
    main()
