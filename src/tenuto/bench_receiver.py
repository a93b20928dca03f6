"""The receiver of ``tenuto bench --webhooks``: a process that takes notifications, counts them and answers at once.

It is cheap on purpose, for it shares the machine with what it measures: a plain protocol that reads no more of a
request than its path, its id and the moment of its event. Of each so many it verifies the signature, with the reference
library. A path can be told to hang: what comes there is never answered. The bench asks for its counts and commands it
by paths that begin with an underscore. It prints its port, serves until its standard input ends, and is run as a
program.
"""

from __future__ import annotations

import asyncio
import sys
import time
from array import array
from datetime import datetime
from typing import Final

import msgspec
import uvloop
from standardwebhooks import Webhook, WebhookVerificationError

from tenuto.bench_load import percentile

SAMPLE: Final = 50
"""Of so many notifications, one is verified."""

_OK: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
_CREATED: Final = b'"created_at":"'


class Command(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What the bench tells its receiver: the secrets of paths, and a path that hangs (empty: none). It counts anew."""

    secrets: dict[str, str] = {}
    hanging: str = ""


class Received(msgspec.Struct, kw_only=True):
    """What has come in since the last command, without what came to the path that hangs.

    ``last_at`` is in seconds since 1970. Latencies are seconds from an event's moment to the arrival of what it told.
    """

    count: int = 0
    distinct: int = 0
    verified: int = 0
    forged: int = 0
    unanswered: int = 0
    last_at: float = 0.0
    p50_seconds: float = 0.0
    p95_seconds: float = 0.0
    p99_seconds: float = 0.0
    most_seconds: float = 0.0


class _Book:
    """What has come in."""

    def __init__(self) -> None:
        self._signers: dict[str, Webhook] = {}
        self.begin(Command())

    def begin(self, command: Command) -> None:
        """Obey, and count anew."""
        self._signers |= {path: Webhook(secret) for path, secret in command.secrets.items()}
        self.hanging = command.hanging
        self._seen: set[tuple[str, bytes]] = set()
        self._latencies = array("q")
        self._received = Received()

    def take(self, path: str, head: bytes, body: bytes) -> None:
        """One notification."""
        now = time.time()
        told = self._received
        if path == self.hanging:
            told.unanswered += 1
            return
        at = body.find(_CREATED) + len(_CREATED)
        created = datetime.fromisoformat(body[at : body.find(b'"', at)].decode()).timestamp()
        self._latencies.append(round((now - created) * 1e9))
        told.count, told.last_at = told.count + 1, now
        self._seen.add((path, _header(head, b"webhook-id")))
        if told.count % SAMPLE == 1:
            headers = {name.decode(): _header(head, name).decode() for name in _SIGNED}
            try:
                self._signers[path].verify(body, headers)
                told.verified += 1
            except (WebhookVerificationError, KeyError):
                told.forged += 1

    def told(self) -> Received:
        """The counts as they stand."""
        found, told = sorted(self._latencies), self._received
        told.distinct = len(self._seen)
        told.p50_seconds, told.p95_seconds = percentile(found, 0.5) / 1000, percentile(found, 0.95) / 1000
        told.p99_seconds, told.most_seconds = percentile(found, 0.99) / 1000, percentile(found, 1) / 1000
        return told

    @property
    def count(self) -> int:
        """How many came in."""
        return self._received.count


_SIGNED: Final = (b"webhook-id", b"webhook-timestamp", b"webhook-signature")


def _header(head: bytes, name: bytes) -> bytes:
    at = head.find(b"\r\n" + name + b": ") + len(name) + 4
    return head[at : head.find(b"\r\n", at)]


class _Connection(asyncio.Protocol):
    """One connection of the courier, or of the bench."""

    def __init__(self, book: _Book) -> None:
        self._book = book
        self._parts = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # type: ignore[explicit-override]  # 3.11 has no override
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]  # a TCP transport, as asked for

    def data_received(self, data: bytes) -> None:  # type: ignore[explicit-override]  # 3.11 has no override
        """Take whole requests, one after another."""
        self._parts += data
        while (end := self._parts.find(b"\r\n\r\n")) >= 0:
            head = self._parts[: end + 2]
            lowered = head.lower()
            at = lowered.find(b"content-length: ") + 16
            length = int(lowered[at : lowered.find(b"\r", at)])
            if len(self._parts) < end + 4 + length:
                return
            body = self._parts[end + 4 : end + 4 + length]
            self._parts = self._parts[end + 4 + length :]
            self._answer(head.split(b" ", 2)[1].decode(), head, body)

    def _answer(self, path: str, head: bytes, body: bytes) -> None:
        assert self._transport is not None
        if not path.startswith("/_"):
            self._book.take(path, head, body)
            if path != self._book.hanging:
                self._transport.write(_OK)
            return
        if path == "/_begin":
            self._book.begin(msgspec.json.decode(body, type=Command))
        answer = b"%d" % self._book.count if path == "/_count" else msgspec.json.encode(self._book.told())
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(answer), answer))


async def _serve() -> None:
    book = _Book()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(book), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - the bench reads it
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    server.close()


def main() -> None:
    """Serve until the standard input ends."""
    uvloop.run(_serve())


if __name__ == "__main__":
    main()
