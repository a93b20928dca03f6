"""How the Stripe simulator brings events to the endpoints of its accounts: signed, again and again, never in the way.

The problem, on one example. An intent succeeded while the endpoint was being restarted:

    attempt 1    connection refused     tried again after a quarter of a second
    attempt 2    500                    after half a second
    attempt 3    200                    delivered; the journal notes it

Every endpoint has its own mailbox with a few senders, so that one that hangs keeps nobody else waiting. Order is not
promised, as it is not by Stripe.
"""

from __future__ import annotations

import asyncio
import hmac
import ssl
import time
from collections import deque
from hashlib import sha256
from random import Random
from typing import Final
from urllib.parse import urlsplit

from tenuto.gateway.simulator_book import Account, Book, Event, Obj, encode
from tenuto.gateway.simulator_faults import Faults

ATTEMPTS_MAX: Final = 20
FIRST_PAUSE_SECONDS: Final = 0.25
PAUSE_SECONDS_MAX: Final = 30.0
ANSWER_SECONDS: Final = 10.0
SENDERS_PER_ENDPOINT: Final = 4
MAILBOX_MAX: Final = 100_000
HEAD_BYTES_MAX: Final = 65_536
_POLL_SECONDS: Final = 0.005

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def sign(body: bytes, secret: str, at: int) -> str:
    """The value of the header ``Stripe-Signature``."""
    mac = hmac.new(secret.encode(), f"{at}.".encode() + body, sha256)
    return f"t={at},v1={mac.hexdigest()}"


class Delivery:
    """One event on its way to one endpoint."""

    __slots__ = ("account", "attempts", "endpoint", "event")

    def __init__(self, account: Account, event: Event, endpoint: Obj) -> None:
        self.account, self.event, self.endpoint, self.attempts = account, event, endpoint, 0


class Mailbox:
    """What waits for one endpoint, and the connections that are open to it."""

    def __init__(self) -> None:
        self.waiting: deque[Delivery] = deque()
        self.connections: list[Connection] = []
        self.senders = 0


class Courier:
    """Sends every event of a book to whom it concerns, until it is taken or given up on."""

    def __init__(self, book: Book, faults: Faults) -> None:
        self._book, self._faults = book, faults
        self.signature_offset_seconds = 0
        self.sent = 0
        self._mailboxes: dict[str, Mailbox] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: list[Delivery] = []
        self._later: dict[Delivery, asyncio.TimerHandle] = {}
        self._tls: ssl.SSLContext | None = None
        book.on_event = self.take

    def start(self) -> None:
        """Go on with what a former process left undelivered."""
        for account in self._book.accounts.values():
            for event_id, endpoint_id in list(account.undelivered):
                event, endpoint = account.events.get(event_id), account.objects.get(endpoint_id)
                if event is None or endpoint is None or endpoint.get("deleted"):
                    self._book.note_delivered(account, event_id, endpoint_id)
                else:
                    self._post(Delivery(account, event, endpoint))

    def take(self, account: Account, event: Event, endpoint: Obj) -> None:
        """An event happened: send it, with the faults that strike it."""
        copies, delay = 1, 0.0
        for fault in self._faults.strike_event(account.name, event.type):
            if fault.kind == "drop" or len(self._held) >= MAILBOX_MAX:
                self._book.note_delivered(account, event.id, endpoint["id"])
                return
            if fault.kind == "shuffle":
                self._held.append(Delivery(account, event, endpoint))
                return
            if fault.kind == "duplicate":
                copies = max(copies, fault.copies)
            else:
                delay = fault.seconds or 0.0
        for _ in range(copies):
            delivery = Delivery(account, event, endpoint)
            if delay:
                self._post_later(delivery, delay)
            else:
                self._post(delivery)

    async def flush(self, seconds: float, seed: int = 0) -> dict[str, int]:
        """Send what is held (in random order) or waits for its time, and wait until nothing is on its way."""
        before = self.sent
        held, self._held = self._held, []
        Random(seed).shuffle(held)  # noqa: S311 - chance that can be repeated
        later, self._later = list(self._later.items()), {}
        for _, timer in later:
            timer.cancel()
        for delivery in (*held, *(delivery for delivery, _ in later)):
            self._post(delivery)
        give_up_at = time.monotonic() + seconds
        while any(box.senders for box in self._mailboxes.values()) and time.monotonic() < give_up_at:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)  # flushing is for tests: no sender pays for it
        return {"sent": self.sent - before, "waiting": self.waiting()}

    def waiting(self) -> int:
        """How many deliveries are still to be made."""
        boxes = self._mailboxes.values()
        return sum(len(box.waiting) + box.senders for box in boxes) + len(self._later) + len(self._held)

    async def stop(self) -> None:
        """Stop sending; what is undelivered stays so in the journal."""
        for timer in self._later.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for box in self._mailboxes.values():
            for _, writer in box.connections:
                writer.close()

    def _post_later(self, delivery: Delivery, seconds: float) -> None:
        def post() -> None:
            self._later.pop(delivery, None)
            self._post(delivery)

        self._later[delivery] = asyncio.get_running_loop().call_later(seconds, post)

    def _post(self, delivery: Delivery) -> None:
        box = self._mailboxes.get(delivery.endpoint["id"])
        if box is None:
            box = self._mailboxes[delivery.endpoint["id"]] = Mailbox()
        if len(box.waiting) >= MAILBOX_MAX:
            self._give_up(box.waiting.popleft())
        box.waiting.append(delivery)
        if box.senders < SENDERS_PER_ENDPOINT:
            box.senders += 1
            task = asyncio.get_running_loop().create_task(self._drain(box))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _give_up(self, delivery: Delivery) -> None:
        self._book.note_delivered(delivery.account, delivery.event.id, delivery.endpoint["id"])

    async def _drain(self, box: Mailbox) -> None:
        try:
            while box.waiting:
                delivery = box.waiting.popleft()
                delivery.attempts += 1
                if await self._send(box, delivery):
                    self.sent += 1
                    self._give_up(delivery)
                elif delivery.attempts >= ATTEMPTS_MAX or self._is_gone(delivery):
                    self._give_up(delivery)
                else:
                    pause = min(PAUSE_SECONDS_MAX, FIRST_PAUSE_SECONDS * 2 ** (delivery.attempts - 1))
                    self._post_later(delivery, pause)
        finally:
            box.senders -= 1

    def _is_gone(self, delivery: Delivery) -> bool:
        found = delivery.account.objects.get(delivery.endpoint["id"])
        return found is None or bool(found.get("deleted"))

    async def _send(self, box: Mailbox, delivery: Delivery) -> bool:
        """Whether the endpoint took the event."""
        body = encode(delivery.event.shown(is_live=delivery.account.is_live))
        # An endpoint is a live object: its secret may have changed since the event was made.
        endpoint = delivery.account.objects.get(delivery.endpoint["id"], delivery.endpoint)
        if endpoint.get("deleted"):
            return False
        at = int(time.time()) + self.signature_offset_seconds
        url = urlsplit(endpoint["url"])
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        head = (
            f"POST {target} HTTP/1.1\r\nHost: {url.netloc.rpartition('@')[2]}\r\nUser-Agent: Stripe/1.0 (simulator)\r\n"
            f"Content-Type: application/json; charset=utf-8\r\nContent-Length: {len(body)}\r\nAccept: */*\r\n"
            f"Stripe-Signature: {sign(body, endpoint['secret'], at)}\r\n\r\n"
        )
        request = head.encode() + body
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                if box.connections:
                    try:
                        return await self._exchange(box, box.connections.pop(), request)
                    except (OSError, EOFError):
                        pass  # an idle connection that the other side had closed
                return await self._exchange(box, await self._connect(url.scheme, url.hostname, url.port), request)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            return False

    async def _connect(self, scheme: str, host: str | None, port: int | None) -> Connection:
        if scheme == "https":
            self._tls = self._tls or ssl.create_default_context()
            return await asyncio.open_connection(host, port or 443, ssl=self._tls)
        return await asyncio.open_connection(host, port or 80, limit=HEAD_BYTES_MAX)

    async def _exchange(self, box: Mailbox, connection: Connection, request: bytes) -> bool:
        """Send a request and read the answer's status; the connection is kept if its end is known."""
        reader, writer = connection
        is_kept = False
        try:
            writer.write(request)
            await writer.drain()
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {
                name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
            }
            length = headers.get("content-length", "")
            if length.isdigit() and int(length) <= HEAD_BYTES_MAX:
                await reader.readexactly(int(length))
                is_kept = headers.get("connection", "").lower() != "close"
            return lines[0].split(" ")[1].startswith("2")
        except IndexError as error:
            raise ValueError("The endpoint's answer is no HTTP.") from error
        finally:
            if is_kept:
                box.connections.append(connection)
            else:
                writer.close()
