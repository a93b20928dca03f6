"""Receivers of webhooks on this machine, good ones and bad ones, and somebody who vouches for them."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

GIGABYTE = 1 << 30

Behaviour = Callable[["Visit"], Awaitable[None]]


class Visit:
    """One connection as its receiver sees it."""

    def __init__(self, receiver: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.receiver, self.reader, self.writer = receiver, reader, writer

    async def request(self) -> bytes:
        """The next request, whole: its head in lower case, and its body."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        length = re.search(rb"content-length: (\d+)", head)
        whole = head + await self.reader.readexactly(int(length[1]) if length else 0)
        self.receiver.requests.append(whole)
        return whole

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()
        self.receiver.sent += len(data)

    async def flood(self, data: bytes, total: int = GIGABYTE) -> None:
        """Send ``data`` again and again, until the other side hangs up or ``total`` bytes are out."""
        while self.receiver.sent < total:
            await self.send(data)

    def reset(self) -> None:
        """End the connection by RST."""
        found = self.writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Receiver:
    """A small server on loopback that behaves as it is told and counts."""

    def __init__(self, behave: Behaviour) -> None:
        self._behave = behave
        self._visits: set[asyncio.Task[Any]] = set()
        self.connections = self.now = self.most_at_once = self.sent = 0
        self.requests: list[bytes] = []
        self.asked, self.left = asyncio.Event(), asyncio.Event()
        self.address = ("", 0)

    async def visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._visits.add(task)
        self.connections += 1
        self.asked.set()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        try:
            with suppress(OSError, EOFError, asyncio.CancelledError):
                await self._behave(Visit(self, reader, writer))
        finally:
            self.left.set()
            writer.transport.abort()
            self._visits.discard(task)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.address[1]}/hook"

    async def end(self) -> None:
        for task in self._visits.copy():
            task.cancel()
        await asyncio.gather(*self._visits, return_exceptions=True)


@asynccontextmanager
async def receiving(behave: Behaviour, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    receiver = Receiver(behave)
    server = await asyncio.start_server(receiver.visit, "127.0.0.1", 0, ssl=tls)
    receiver.address = server.sockets[0].getsockname()
    try:
        yield receiver
    finally:
        server.close()
        await receiver.end()


def answering(answer: bytes) -> Behaviour:
    """Answers each request alike, and leaves the connection open."""

    async def behave(visit: Visit) -> None:
        while True:
            await visit.request()
            await visit.send(answer)

    return behave


def once(answer: bytes) -> Behaviour:
    """Answers one request and hangs up."""

    async def behave(visit: Visit) -> None:
        await visit.request()
        await visit.send(answer)
        visit.writer.write_eof()
        await visit.reader.read()

    return behave


def flooding(head: bytes, data: bytes) -> Behaviour:
    async def behave(visit: Visit) -> None:
        await visit.request()
        await visit.send(head)
        await visit.flood(data)

    return behave


async def silent(visit: Visit) -> None:
    await visit.reader.read()


class Authority:
    """Somebody who vouches for servers, and is trusted while SSL_CERT_FILE names him."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority")])
        self.file = folder / "authority.pem"
        self.file.write_bytes(self._sign(self._name, self._key, None, days=30))

    def _sign(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, host: str | None, *, days: int) -> bytes:
        end = datetime.now(UTC) + timedelta(days=days)
        builder = x509.CertificateBuilder(self._name, name, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(end - timedelta(days=60)).not_valid_after(end)
        builder = builder.add_extension(x509.BasicConstraints(ca=host is None, path_length=None), critical=True)
        if host is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def server(self, host: str, *, days: int = 30) -> ssl.SSLContext:
        """What a server needs to be ``host``; with ``days`` below zero its certificate is over."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        both = self._folder / f"{host}{days}.pem"
        both.write_bytes(self._sign(name, key, host, days=days) + key.private_bytes(serialization.Encoding.PEM, *form))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(both)
        return context
