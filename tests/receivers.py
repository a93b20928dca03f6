"""Receivers of webhooks on this machine: they write down what comes and behave as they are told, request by request.

A receiver is given turns, one for each request that comes; the last one holds from then on. So
``receivers.open(answer(500), reset, answer(200))`` fails, hangs up, and takes what comes third and later.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from standardwebhooks import Webhook

WAIT_SECONDS: Final = 20.0
"""How long a test waits for what must come."""
GIGABYTE: Final = 1 << 30
_CHUNK: Final = bytes(65_536)
_AGAIN_SECONDS: Final = 0.02


class Message(NamedTuple):
    """One request as it came; ``at`` is of the monotonic clock, in seconds."""

    at: float
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def told(self) -> Any:
        return json.loads(self.body)

    @property
    def topic(self) -> str:
        return str(self.told["topic"])

    @property
    def data(self) -> Any:
        return self.told["data"]

    @property
    def signatures(self) -> list[str]:
        return self.headers["webhook-signature"].split(" ")

    def verified(self, secret: str) -> Any:
        """The body, proven by the reference library. Raises WebhookVerificationError."""
        return Webhook(secret).verify(self.body, self.headers)


class Visit:
    """One request at its receiver."""

    def __init__(self, writer: asyncio.StreamWriter, message: Message) -> None:
        self.writer, self.message = writer, message

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


Turn = Callable[[Visit], Awaitable[None]]


def answer(status: int, body: bytes = b"ok", **headers: str) -> Turn:
    """Answers; ``retry_after="5"`` is the header Retry-After."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in {**names, "content-length": str(len(body))}.items())

    async def turn(visit: Visit) -> None:
        await visit.send(f"HTTP/1.1 {status} As told\r\n{lines}\r\n".encode() + (b"" if status == 204 else body))

    return turn


def redirect(to: str) -> Turn:
    return answer(302, location=to)


async def hang(_: Visit) -> None:
    """Takes the request and never says a word."""
    await asyncio.Event().wait()


async def drip(visit: Visit) -> None:
    """Answers a byte at a time, without an end."""
    await visit.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    while True:
        await visit.send(b"x")
        await asyncio.sleep(0.2)


async def flood(visit: Visit) -> None:
    """Answers 200 and a gigabyte."""
    await visit.send(f"HTTP/1.1 200 OK\r\ncontent-length: {GIGABYTE}\r\n\r\n".encode())
    for _ in range(GIGABYTE // len(_CHUNK)):
        await visit.send(_CHUNK)


async def reset(visit: Visit) -> None:
    """Ends the connection by RST."""
    line = visit.writer.get_extra_info("socket")
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    visit.writer.transport.abort()


class Gate:
    """A turn that answers 200 only once it is let go."""

    def __init__(self) -> None:
        self._open = threading.Event()

    def let_go(self) -> None:
        self._open.set()

    async def __call__(self, visit: Visit) -> None:
        while not self._open.is_set():  # noqa: ASYNC110 - it is let go from another thread
            await asyncio.sleep(_AGAIN_SECONDS)
        await answer(200)(visit)


def then(turn: Turn, act: Callable[[], None]) -> Turn:
    """Takes a turn and does something at once afterwards."""

    async def both(visit: Visit) -> None:
        await turn(visit)
        act()

    return both


class Receiver:
    """One server on a port of its own. With ``per_message`` every message goes through all the turns by itself."""

    def __init__(self, turns: Sequence[Turn], *, per_message: bool) -> None:
        self._turns, self._per_message = list(turns) or [answer(200)], per_message
        self._came: list[Message] = []
        self._news = threading.Condition()
        self._port = 0
        self.server: asyncio.Server | None = None
        self.visits: set[asyncio.Task[Any]] = set()

    async def listen(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._port = self.server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/hook"

    @property
    def messages(self) -> list[Message]:
        """All that came, in the order in which it came."""
        with self._news:
            return list(self._came)

    def behave(self, *turns: Turn) -> None:
        """From now on, whatever was to come."""
        with self._news:
            self._turns = list(turns)
            if not self._per_message:
                self._turns = [turns[0]] * len(self._came) + self._turns

    def wait(self, count: int, seconds: float = WAIT_SECONDS) -> list[Message]:
        """All that came, once it is so many requests."""
        return self.until(lambda came: len(came) >= count, seconds)

    def until(self, is_enough: Callable[[list[Message]], bool], seconds: float = WAIT_SECONDS) -> list[Message]:
        """All that came, once it is enough."""
        with self._news:
            assert self._news.wait_for(lambda: is_enough(self._came), seconds), (
                f"only {len(self._came)} requests in {seconds} s"
            )
            return list(self._came)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.visits.add(task)
        try:
            with suppress(OSError, EOFError, asyncio.CancelledError):
                while not writer.transport.is_closing():
                    message = await _read(reader)
                    await self._turn_of(message)(Visit(writer, message))
        finally:
            writer.transport.abort()
            self.visits.discard(task)

    def _turn_of(self, message: Message) -> Turn:
        with self._news:
            earlier = Counter(one.id for one in self._came)[message.id] if self._per_message else len(self._came)
            self._came.append(message)
            self._news.notify_all()
            return self._turns[min(earlier, len(self._turns) - 1)]

    async def close(self) -> None:
        assert self.server is not None
        self.server.close()
        for visit in self.visits.copy():
            visit.cancel()
        await asyncio.gather(*self.visits, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Message:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    headers = {name.lower(): value for name, value in re.findall(r"(?m)^([^\s:]+): *(.*?)\r$", head)}
    body = await reader.readexactly(int(headers["content-length"]))
    assert head.startswith("POST ")
    return Message(time.monotonic(), headers, body)


class Receivers:
    """Opens receivers, all in one thread of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._opened: list[Receiver] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for receiver in self._opened:
            self._run(receiver.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def open(self, *turns: Turn, per_message: bool = False) -> Receiver:
        """A receiver; without turns it takes everything."""
        receiver = Receiver(turns, per_message=per_message)
        self._run(receiver.listen())
        self._opened.append(receiver)
        return receiver

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_SECONDS)


def until(is_true: Callable[[], object], seconds: float = WAIT_SECONDS) -> None:
    """Ask again and again until it is so: for what can only be asked for."""
    give_up_at = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < give_up_at, f"not so within {seconds} s"
        time.sleep(_AGAIN_SECONDS)
